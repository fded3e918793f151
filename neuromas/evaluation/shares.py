"""The interval of a share of pairs, some of which come from the same trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from neuromas.errors import InvalidInput
from neuromas.schema.validity import Share


def share_of(right: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> Share:
    """A share with its exact interval (Clopper-Pearson), widened for pairs that share a trial.

    The number of pairs is divided by the design effect 1 + (m − 1)ρ. ρ is the intraclass correlation over trials. m is the mean
    number of pairs with which a pair shares its trial, itself included.

    Parameters
    ----------
    right : array-like of bool, shape (n,)
    trials : array-like, shape (n,)
        Trial of each.
    level : float
        Confidence level.

    Returns
    -------
    Share
        The interval never has zero width.

    Raises
    ------
    InvalidInput
        Nothing to count, or another number of trials.

    Examples
    --------
    >>> print(share_of([True] * 1000, range(1000)))
    1.000 (0.996–1.000)
    >>> print(share_of([True, True, False, False] * 25, [0, 0, 1, 1] * 25))
    0.500 (0.013–0.987)
    """
    x = np.asarray(right, dtype=np.float64)
    trial = np.unique(np.asarray(trials), return_inverse=True)[1]
    if not len(x) or len(x) != len(trial):
        raise InvalidInput(
            f"an interval needs values with their trials, got {len(x)} and {len(trial)}", kind="too_few_values"
        )
    n = len(x) / design_effect(x, trial)
    hits = x.mean() * n
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return Share(value=float(x.mean()), low=low, high=high, n=len(x))


def design_effect(x: np.ndarray, trial: np.ndarray) -> float:
    """By how much pairs that share a trial widen an interval: 1 if they do not agree more than others.

    Parameters
    ----------
    x : ndarray of float64, shape (n,)
    trial : ndarray of int64, shape (n,)
        Numbered from 0.
    """
    sizes = np.bincount(trial)
    n, n_trials = len(x), len(sizes)
    if n_trials == n:
        return 1.0
    shared = float((sizes**2).sum() / n)
    if n_trials == 1:
        return shared
    means = np.bincount(trial, weights=x) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum() / (n_trials - 1))
    within = float(((x - means[trial]) ** 2).sum() / (n - n_trials))
    # the mean size of a trial in the one-way analysis of variance
    size = (n - shared) / (n_trials - 1)
    total = between + (size - 1) * within
    correlation = 0.0 if total <= 0 else min(1.0, max(0.0, (between - within) / total))
    return max(1.0, 1 + (shared - 1) * correlation)
