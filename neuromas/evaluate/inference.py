"""How sure a number is: bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from neuromas.errors import InvalidInput


def bootstrap_interval(
    values: ArrayLike, *, level: float = 0.95, n_resamples: int = 2000, seed: int | np.random.Generator = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Parameters
    ----------
    values : array-like, shape (n,)
        One per pair, e.g. right (1) or wrong (0).
    level : float
        Confidence level.
    n_resamples : int
    seed : int or numpy.random.Generator

    Returns
    -------
    (float, float)
        Lower and upper end. Equal if all values are.

    Raises
    ------
    InvalidInput
        Fewer than two values.

    Examples
    --------
    >>> low, high = bootstrap_interval([0, 1] * 50)
    >>> 0.38 < low < 0.5 < high < 0.62
    True
    """
    sample = np.asarray(values, dtype=float)
    if sample.size < 2:
        raise InvalidInput(f"a bootstrap interval needs at least 2 values, got {sample.size}", kind="too_few_values")
    if np.all(sample == sample[0]):
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap(
        (sample,),
        np.mean,
        vectorized=True,
        confidence_level=level,
        n_resamples=n_resamples,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
