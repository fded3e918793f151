"""The interval of a share of pairs, some of which come from the same trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from neuromas.evaluation.intervals import proportion
from neuromas.schema.validity import Share


def share_of(right: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> Share:
    """A share with its exact interval (Clopper-Pearson), widened for pairs that share a trial; see `proportion`.

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
    """
    share = proportion(right, trials, level=level)
    return Share(value=share.estimate, low=share.low, high=share.high, n=np.size(right))
