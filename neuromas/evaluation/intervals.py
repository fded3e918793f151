"""Intervals of proportions, such as IIA: exact, and wider where pairs share trials.

Two pairs with the same source trial, or the same target trial, are not independent: a trial that is hard for one of them is hard
for the other. The intraclass correlation says how much alike they are. The design effect follows from it, and says how many
independent pairs these pairs are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from neuromas.errors import InvalidInput

LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True)
class Proportion:
    """A proportion with its interval.

    Attributes
    ----------
    estimate, low, high : float
        The share, and the ends of its interval: ``low < high`` always.
    icc : float or None
        Intraclass correlation: the mean correlation between outcomes of two pairs that share a trial. Somewhat below 0 by chance
        where there is none. None if it cannot be measured: no two pairs share a trial, all outcomes are equal, or all pairs
        share one trial.
    n_effective : float
        The number of independent pairs that would have this interval.
    """

    estimate: float
    low: float
    high: float
    icc: float | None
    n_effective: float


def proportion(
    right: ArrayLike, *trials: ArrayLike, sizes: ArrayLike | None = None, level: float = LEVEL
) -> Proportion:
    """Share of outcomes that are right, with the Clopper-Pearson interval of as many independent pairs as these are worth.

    Without shared trials, this is the exact interval of Clopper and Pearson (1934). Otherwise the number of pairs is divided by
    the design effect, 1 + c times the intraclass correlation, where c is the mean number of other pairs with which a pair shares
    a trial. Few trials leave the correlation uncertain, so the number is also multiplied by a squared ratio of quantiles of t
    (Korn and Graubard 1998). The degrees of freedom are those of the label with the fewest trials (Cameron, Gelbach and Miller
    2011).

    Few wrong pairs say little about the correlation, and none say nothing. So the interval takes 0.1 for it, as if two wrong
    pairs had shown that; each wrong pair (or right one, if these are rarer) moves it towards what was measured. The networks
    that ship with neuromas have -0.05 to 0.06 in IIA.

    Parameters
    ----------
    right : array-like, shape (n_pairs,)
        1 or True where a pair is right, else 0. Or a share, or with `sizes` the number of right tokens.
    *trials : array-like, shape (n_pairs,)
        Up to two labels per pair: the trial of its source, and that of its target. Equal labels are one trial; labels of the
        source are never compared with labels of the target. By default no two pairs share a trial.
    sizes : array-like, shape (n_pairs,), optional
        Outcomes per pair, such as its number of tokens; 1 by default. A pair counts once at most.
    level : float
        Confidence level.

    Returns
    -------
    Proportion

    Raises
    ------
    InvalidInput
        No pair; labels of another number of pairs; shares outside 0 to 1.

    Examples
    --------
    >>> all_right = proportion([1] * 1000)
    >>> round(all_right.low, 4), all_right.high
    (0.9963, 1.0)
    >>> trials = [trial for trial in range(200) for _ in range(5)]
    >>> half = proportion([trial % 2 for trial in trials], trials)  # pairs of one trial always agree
    >>> round(half.icc, 2), round(half.n_effective / 200, 1)
    (1.0, 1.0)
    """
    sums, counts, groups = _checked(right, sizes, trials)
    n, total = len(sums), float(counts.sum())
    share = float(sums.sum() / total)
    shared, correlated = sharing(sums - share * counts, counts, groups)
    # how many other outcomes depend on an outcome, on average
    others = shared / total - 1
    icc = _icc(share, total, shared, correlated)
    n_rare = min(share, 1 - share) * n
    design_effect = 1 + others * _cautious(icc or 0.0, n_rare)
    n_trials = min(int(group.max()) + 1 for group in groups)
    n_effective = max(1.0, min(n, total / design_effect) * _few_trials(n, n_trials, level))
    low, high = clopper_pearson(share * n_effective, n_effective, level)
    return Proportion(share, low, high, icc, n_effective)


def clopper_pearson(n_right: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of `n_right` of `n` independent outcomes, which need not be whole numbers.

    Examples
    --------
    >>> [round(end, 4) for end in clopper_pearson(999, 1000)]
    [0.9944, 1.0]
    """
    tail = (1 - level) / 2
    n_wrong = n - n_right
    low = special.betaincinv(n_right, n_wrong + 1, tail) if n_right > 0 else 0.0
    high = special.betaincinv(n_right + 1, n_wrong, 1 - tail) if n_wrong > 0 else 1.0
    return float(low), float(high)


_MOST_LABELS = 2


def _checked(
    right: ArrayLike, sizes: ArrayLike | None, trials: Sequence[ArrayLike]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.int64]]]:
    """Right outcomes and outcomes per pair, and a number per trial for each label; without labels each pair is a trial."""
    if len(trials) > _MOST_LABELS:
        raise InvalidInput(f"expected up to {_MOST_LABELS} labels per pair, got {len(trials)}", kind="invalid_option")
    sums = np.asarray(right, dtype=np.float64)
    counts = np.ones_like(sums) if sizes is None else np.asarray(sizes, dtype=np.float64)
    labels = [np.asarray(label) for label in trials] or [np.arange(len(sums))]
    if not len(sums) or counts.sum() == 0:
        raise InvalidInput("an interval of a proportion needs at least 1 outcome, got none", kind="too_few_values")
    if any(array.shape != sums.shape or array.ndim != 1 for array in (counts, *labels)):
        shapes = ", ".join(str(array.shape) for array in (sums, counts, *labels))
        raise InvalidInput(f"expected a size and a label per pair, got shapes {shapes}", kind="shape_mismatch")
    if not np.all((sums >= 0) & (sums <= counts)):
        raise InvalidInput("expected shares between 0 and 1, or numbers of at most sizes", kind="invalid_option")
    return sums, counts, [np.unique(label, return_inverse=True)[1].astype(np.int64) for label in labels]


def sharing(
    residuals: NDArray[np.float64], counts: NDArray[np.float64], groups: Sequence[NDArray[np.int64]]
) -> tuple[float, float]:
    """Over all ordered pairs of outcomes that share a trial, themselves included: their number, and the sum of products.

    Inclusion and exclusion: outcomes that share both trials are counted with each label, so once too often.
    """
    number = products = 0.0
    for sign, group in zip((1, 1, -1), crossed(groups), strict=False):
        number += sign * float((np.bincount(group, weights=counts) ** 2).sum())
        products += sign * float((np.bincount(group, weights=residuals) ** 2).sum())
    return number, products


def crossed(groups: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The groups of one or two labels, numbered from 0; where there are two, then those of pairs that share both trials."""
    if len(groups) < 2:
        return list(groups)
    first, second = groups
    return [first, second, np.unique(first * (second.max() + 1) + second, return_inverse=True)[1]]


def _icc(share: float, total: float, shared: float, correlated: float) -> float | None:
    """Mean correlation of outcomes that share a trial; None where it cannot be measured."""
    variance, dependent = share * (1 - share), shared - total
    # residuals sum to 0, which makes them less alike than errors are: this much less if outcomes are independent
    kept = 1 - shared / total**2
    if variance <= 0 or dependent <= 0 or kept < _LEAST_KEPT:
        return None
    design_effect = correlated / (total * variance) * (1 - 1 / total) / kept
    return min(1.0, (design_effect - 1) * total / dependent)


_LEAST_KEPT = 1e-6


def _cautious(icc: float, n_rare: float) -> float:
    """The correlation that an interval takes: not below the measured one, and not 0 where hardly anything could be measured."""
    measured = max(icc, 0.0)
    return max(measured, (n_rare * measured + _WEIGHT * _UNMEASURED) / (n_rare + _WEIGHT))


_UNMEASURED, _WEIGHT = 0.1, 2.0
"""Intraclass correlation where no pair is wrong. With 0 in its place, 40 trials of 25 pairs with a correlation of 0.3 and a true
share of 0.99 would be covered in 80 % instead of 95 %."""


def _few_trials(n: int, n_trials: int, level: float) -> float:
    """By what the number of pairs is multiplied, because the design effect of few trials is uncertain."""
    if n < 2:
        return 1.0
    if n_trials < 2:
        return 0.0
    quantiles = special.stdtrit([n - 1, n_trials - 1], (1 + level) / 2)
    return float((quantiles[0] / quantiles[1]) ** 2)
