"""Scores of a nested alignment at every rank, and the smallest rank that is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuromas.align.alignment import Alignment
from neuromas.align.side import Side
from neuromas.evaluation.shares import share_of
from neuromas.evaluation.validity import Setting, drawn, scored
from neuromas.schema.ranks import LearnedRank, RankScore

_RANKS = 17  # stream of seeds
_RESAMPLES = 1_000


@dataclass(frozen=True)
class ByRank:
    """Pairs of one direction and subspace at every rank.

    Attributes
    ----------
    source, target, subspace, measure : str
    right : ndarray of bool, shape (n_ranks, n_pairs)
    trials : ndarray of int64, shape (n_pairs,)
    """

    source: str
    target: str
    subspace: str
    measure: str
    right: NDArray[np.bool_] = field(repr=False)
    trials: NDArray[np.int64] = field(repr=False)


def by_rank(
    alignment: Alignment,
    runs: Mapping[str, Side],
    directions: Sequence[tuple[str, str]],
    ranks: Sequence[int],
    setting: Setting,
) -> list[ByRank]:
    """The same pairs at each of `ranks`, for every direction and subspace.

    Parameters
    ----------
    alignment : Alignment
    runs : mapping of str to Side
        Those with an oracle by it.
    directions : sequence of (source, target)
    ranks : sequence of int
    setting : Setting
    """
    smaller = [alignment.at_rank(rank) for rank in ranks]
    results = []
    for source, target in directions:
        for subspace in alignment.subspaces:
            pairs = drawn(runs[source], runs[target], subspace, setting)
            outcomes = [scored(each, pairs, each.subspace(subspace.name)) for each in smaller]
            known = outcomes[0].known
            if known.any():
                right = np.stack([outcome.right[known] for outcome in outcomes])
                trials = runs[target].recording.trial[pairs.target][known]
                results.append(ByRank(source, target, subspace.name, outcomes[0].measure, right, trials))
    return results


def scores(results: Sequence[ByRank], ranks: Sequence[int]) -> list[RankScore]:
    """A row per rank, direction and subspace, with its interval."""
    return [
        RankScore.model_validate(
            {
                "rank": rank,
                **{name: getattr(result, name) for name in ("source", "target", "subspace", "measure")},
                "score": share_of(result.right[place], result.trials),
            }
        )
        for place, rank in enumerate(ranks)
        for result in results
    ]


def learned_rank(results: Sequence[ByRank], ranks: Sequence[int], seed: int = 0) -> LearnedRank:
    """The smallest rank whose worst direction reaches the lower end of the best rank's interval.

    Directions whose target can be run decide; if there are none, all do.

    Examples
    --------
    >>> right = np.arange(200) < np.array([[80], [120], [198], [199]])
    >>> learned = learned_rank([ByRank("a", "b", "full", "iia", right, np.arange(200))], [1, 2, 4, 8])
    >>> learned.rank, learned.low, learned.high, learned.best
    (4, 4, 4, 8)
    """
    measure = "iia" if any(result.measure == "iia" for result in results) else "retrieval"
    deciding = [result for result in results if result.measure == measure]
    means = np.stack([result.right.mean(axis=1) for result in deciding])
    worst = means.min(axis=0)
    best = int(worst.argmax())
    of_best = deciding[int(means[:, best].argmin())]
    interval = share_of(of_best.right[best], of_best.trials)
    width = interval.value - interval.low
    chosen = _smallest(worst, width)
    generator = np.random.default_rng([seed, _RANKS])
    resampled = np.stack([_resampled(result, generator) for result in deciding]).min(axis=0)
    learned = np.sort([_smallest(row, width) for row in resampled])
    low, high = int(learned[_RESAMPLES // 40]), int(learned[-_RESAMPLES // 40])
    return LearnedRank(
        rank=ranks[chosen],
        low=ranks[min(low, chosen)],
        high=ranks[max(high, chosen)],
        best=ranks[best],
        threshold=interval.low,
    )


def _smallest(worst: NDArray[np.float64], width: float) -> int:
    """Position of the smallest rank that comes within `width` of the best."""
    # a little room for rounding
    return int(np.flatnonzero(worst >= worst.max() - width - 1e-9)[0])


def _resampled(result: ByRank, generator: np.random.Generator) -> NDArray[np.float64]:
    """Means at every rank on resamples of the trials, shape (n_resamples, n_ranks)."""
    trial = np.unique(result.trials, return_inverse=True)[1]
    n_trials = int(trial.max()) + 1
    sums = np.stack([np.bincount(trial, weights=row, minlength=n_trials) for row in result.right], axis=1)
    counts = np.bincount(trial, minlength=n_trials)
    times = generator.multinomial(n_trials, np.full(n_trials, 1 / n_trials), size=_RESAMPLES)
    means: NDArray[np.float64] = (times @ sums) / np.maximum(times @ counts, 1)[:, None]
    return means
