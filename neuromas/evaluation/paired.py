"""Whether two methods differ on the same pairs: a paired test that respects trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats

from neuromas import seeds
from neuromas.errors import InvalidInput
from neuromas.evaluation.intervals import LEVEL, clopper_pearson, crossed, sharing
from neuromas.evaluation.outcomes import read_outcomes
from neuromas.schema.evaluation import DirectionScore, Evaluation, PairTrials

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 2_000_000
"""Signs that are drawn at once."""


@dataclass(frozen=True)
class PairedTest:
    """What differs between two methods on the same pairs.

    Attributes
    ----------
    difference : float
        Share of the first that is right, less that of the second.
    low, high : float
        95 % interval of the difference.
    p_value : float
        Two-sided: how often chance alone makes a difference of at least this size.
    n_first, n_second : int
        Pairs that the first alone has right, and the second alone.
    test : {"McNemar", "permutation"}
        Exact test of McNemar, where no two pairs share a trial; otherwise a permutation over trials.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n_first: int
    n_second: int
    test: str


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    *trials: ArrayLike,
    n_permutations: int = 5_000,
    seed: int | np.random.Generator = 0,
) -> PairedTest:
    """Test whether two methods are equally often right on the same pairs.

    Parameters
    ----------
    first, second : array-like of bool, shape (n_pairs,)
        Whether each method has each pair right.
    *trials : array-like, shape (n_pairs,)
        Up to two labels per pair, as for `neuromas.evaluation.intervals.proportion`. If pairs share trials, the two methods are
        exchanged in whole trials at a time: those of the label that matters more. The difference is divided by its standard
        error over trials of both labels, so that dependence along the other label counts too.
    n_permutations : int
    seed : int or numpy.random.Generator

    Returns
    -------
    PairedTest

    Raises
    ------
    InvalidInput
        No pair, or different numbers of outcomes and labels.

    Examples
    --------
    >>> first, second = [1] * 90 + [0] * 10, [1] * 80 + [0] * 20
    >>> test = paired_test(first, second)
    >>> round(test.difference, 2), round(test.p_value, 4), test.test
    (0.1, 0.002, 'McNemar')
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or any(np.shape(label) != ours.shape for label in trials):
        shapes = ", ".join(str(np.shape(array)) for array in (ours, theirs, *trials))
        raise InvalidInput(f"expected two outcomes and labels per pair, got shapes {shapes}", kind="shape_mismatch")
    if not len(ours):
        raise InvalidInput("a paired test needs at least 1 pair, got none", kind="too_few_values")
    gain = ours - theirs
    groups = [np.unique(np.asarray(label), return_inverse=True)[1].reshape(-1) for label in trials]
    groups = [group for group in groups if group.max() + 1 < len(gain)]
    n_first, n_second = int((gain > 0).sum()), int((gain < 0).sum())
    p_value = _permuted(gain, groups, n_permutations, seeds.generator(seed)) if groups else mcnemar(n_first, n_second)
    difference = float(gain.mean())
    margin = _margin(gain, groups)
    return PairedTest(
        difference,
        max(-1.0, difference - margin),
        min(1.0, difference + margin),
        p_value,
        n_first,
        n_second,
        "permutation" if groups else "McNemar",
    )


def mcnemar(n_first: int, n_second: int) -> float:
    """Exact two-sided p of McNemar's test: of the pairs that one method alone has right, each method has half by chance.

    Examples
    --------
    >>> mcnemar(5, 0), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    n = n_first + n_second
    return 1.0 if n == 0 else float(stats.binomtest(n_first, n, 0.5).pvalue)


def _permuted(
    gain: NDArray[np.float64], groups: Sequence[NDArray[np.int64]], n_permutations: int, generator: np.random.Generator
) -> float:
    """p of the mean gain over its standard error, if the methods are exchanged in random trials."""
    differ = gain != 0
    if not differ.any():
        return 1.0
    values = gain[differ]
    members = [_members(group[differ]) for group in crossed(groups)]
    measured = _studentised(values[None], members)[0]
    # trials of the label along which gains agree more: exchanging the others would miss that
    exchanged = max(members[: len(groups)], key=lambda member: float(((values @ member) ** 2).sum()))
    trial = exchanged.tocoo().col
    at_least, block = 0, max(1, _AT_ONCE // len(values))
    for start in range(0, n_permutations, block):
        n = min(block, n_permutations - start)
        signs = generator.integers(0, 2, (n, exchanged.shape[1])) * 2.0 - 1
        by_chance = _studentised(values * signs[:, trial], members)
        at_least += int((np.abs(by_chance) >= abs(measured) * (1 - 1e-9)).sum())
    return (1 + at_least) / (1 + n_permutations)


def _members(group: NDArray[np.int64]) -> sparse.csr_array:
    """Which pair belongs to which trial: shape (n_pairs, n_trials)."""
    trial = np.unique(group, return_inverse=True)[1]
    return sparse.csr_array((np.ones(len(trial)), (np.arange(len(trial)), trial)))


def _studentised(gains: NDArray[np.float64], members: Sequence[sparse.csr_array]) -> NDArray[np.float64]:
    """Sum of each row over its standard error from sums of trials (Cameron, Gelbach and Miller 2011); gains: (n, n_pairs)."""
    squares = [((gains @ member) ** 2).sum(axis=1) for member in members]
    crossed = squares[0] + squares[1] - squares[2] if len(squares) > 1 else squares[0]
    # pairs along one label alone, where the other seems to lower the variance
    variance = np.maximum.reduce([crossed, *squares[:2]])
    shares: NDArray[np.float64] = gains.sum(axis=1) / np.sqrt(np.maximum(variance, 1.0))
    return shares


def _margin(gain: NDArray[np.float64], groups: Sequence[NDArray[np.int64]]) -> float:
    """Half the width of the interval of the mean gain: no narrower than what n equal pairs leave open."""
    n = len(gain)
    floor = clopper_pearson(0, n)[1]
    n_trials = min([int(group.max()) + 1 for group in groups], default=n)
    if n_trials < 2:
        return 2.0
    residuals = gain - gain.mean()
    shared, products = sharing(residuals, np.ones(n), groups or [np.arange(n)])
    kept = max(1 - shared / n**2, 1 / n)
    variance = max(products / kept, float((residuals**2).sum())) / n**2
    quantile = stats.t.ppf((1 + LEVEL) / 2, n_trials - 1)
    return max(floor, float(quantile * np.sqrt(variance)))


def compare_evaluations(first: Evaluation, second: Evaluation) -> pd.DataFrame:
    """Paired tests of the methods of two evaluations, in every direction in which both scored the same pairs.

    Parameters
    ----------
    first, second : Evaluation
        Of the same systems, part, number of pairs and seed. With equal seeds, evaluations score equal pairs.

    Returns
    -------
    pandas.DataFrame
        A row per direction, subspace and measure (``iia``, ``retrieval``): ``source``, ``target``, ``subspace``, ``measure``,
        ``first``, ``second`` (names of the methods), and the attributes of `PairedTest`. Controls are left out.

    Raises
    ------
    InvalidInput
        They have no direction in which they scored the same pairs, or one was written by an earlier version, which kept no
        outcomes of single pairs.
    """
    import pandas as pd

    rows = list(paired_rows(first, second))
    if not rows:
        raise InvalidInput(
            "the two evaluations scored no pairs in common: evaluate both with the same systems, part, number of pairs and seed,"
            " and with this version of neuromas",
            kind="different_pairs",
        )
    return pd.DataFrame(rows)


def paired_rows(first: Evaluation, second: Evaluation) -> Iterator[dict[str, object]]:
    """The rows of `compare_evaluations`; none where no pairs are the same."""
    known = {(trials.source, trials.target): trials for trials in second.pairs}
    for trials in first.pairs:
        other = known.get((trials.source, trials.target))
        if other is None or other.pairs_sha256 != trials.pairs_sha256:
            continue
        ours, theirs = _methods(first, trials), _methods(second, trials)
        for subspace in [name for name in ours if name in theirs]:
            yield from _tests(ours[subspace], theirs[subspace], trials)


def _methods(evaluation: Evaluation, trials: PairTrials) -> dict[str, DirectionScore]:
    """By subspace, the score of the method in a direction; it stands behind the controls."""
    return {
        score.subspace: score
        for score in evaluation.scores
        if (score.source, score.target) == (trials.source, trials.target) and score.method not in evaluation.controls
    }


def _tests(first: DirectionScore, second: DirectionScore, trials: PairTrials) -> Iterator[dict[str, object]]:
    labels = np.stack([_numbers(trials.source_trials), _numbers(trials.target_trials)])
    if first.subspace:
        labels = labels[:, _numbers(trials.subspaces) == trials.subspace_names.index(first.subspace)]
    for measure, name in (("iia", "right"), ("retrieval", "retrieved")):
        texts = getattr(first, name), getattr(second, name)
        if None in texts:
            continue
        outcomes = np.stack([read_outcomes(text) for text in texts])
        scored = ~np.isnan(outcomes).any(axis=0)
        if scored.any():
            names = {"source": trials.source, "target": trials.target, "subspace": first.subspace, "measure": measure}
            test = paired_test(*outcomes[:, scored], *labels[:, scored])
            yield {**names, "first": first.method, "second": second.method, **asdict(test)}


def _numbers(text: str) -> NDArray[np.int64]:
    return np.array(text.split(), dtype=np.int64)
