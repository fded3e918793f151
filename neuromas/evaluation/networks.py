"""The error of a mean over networks, where pairs of networks share networks and so are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from neuromas.errors import InvalidInput
from neuromas.evaluation.intervals import LEVEL


class OverNetworks(NamedTuple):
    """A mean over choices of networks, with its jackknife error over networks.

    Attributes
    ----------
    mean, error : float
        The error is not a number if no network can be left out.
    low, high : float
        95 % interval of Student's t.
    n : int
        Choices of networks, such as pairs.
    n_networks : int
    """

    mean: float
    error: float
    low: float
    high: float
    n: int
    n_networks: int


def over_networks(
    values: ArrayLike, networks: Sequence[Sequence[str]], *, bounds: tuple[float, float] | None = None
) -> OverNetworks:
    """The mean of values of choices of networks, with its error over networks.

    Six pairs of four networks are no six observations: each network is in three of them. So the error leaves out one network at a
    time, with all choices that contain it (jackknife). If each choice holds one network, this is the usual standard error. If the
    first networks of all pairs are others than the second ones, these are two populations: each has its own jackknife, their
    variances are added, and the degrees of freedom are Welch's. A population of one network is taken as fixed.

    Parameters
    ----------
    values : array-like, shape (n,)
    networks : sequence of sequence of str
        The names of the networks of each choice.
    bounds : (float, float), optional
        Values that the mean cannot exceed, such as 0 and 1; the interval ends there.

    Returns
    -------
    OverNetworks

    Raises
    ------
    InvalidInput
        No value, or another number of choices than of values.

    Examples
    --------
    >>> alone = over_networks([0.5, 0.7, 0.9], [["a"], ["b"], ["c"]])
    >>> round(alone.mean, 3), round(alone.error, 4)  # 0.2 / sqrt(3)
    (0.7, 0.1155)
    >>> pairs = over_networks([0.5, 0.7, 0.9], [["a", "b"], ["a", "c"], ["b", "c"]])
    >>> round(pairs.error, 4)  # twice that: each network is in two of three pairs
    0.2309
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) != len(networks):
        raise InvalidInput(
            f"expected the networks of each value, got {array.size} values and {len(networks)} choices of networks",
            kind="shape_mismatch",
        )
    if not len(array):
        raise InvalidInput("a mean over networks needs at least 1 value, got none", kind="too_few_values")
    mean = float(array.mean())
    every = {name for choice in networks for name in choice}
    parts = [_jackknife(array, networks, members) for members in _populations(networks)]
    measured = [(variance, n - 1) for variance, n in parts if n > 1]
    variance = sum(part for part, _ in measured)
    error = float(np.sqrt(variance)) if measured else float("nan")
    degrees = _welch(measured)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error if measured else float("nan")
    ends = np.array([mean - margin, mean + margin])
    low, high = (ends if bounds is None else np.clip(ends, *bounds)).tolist()
    return OverNetworks(mean, error, low, high, len(array), len(every))


def _populations(networks: Sequence[Sequence[str]]) -> list[set[str]]:
    """The networks, in two sets if those that stand first in pairs never stand second."""
    if all(len(choice) == 2 for choice in networks):
        first, second = ({choice[place] for choice in networks} for place in (0, 1))
        if not first & second:
            return [first, second]
    return [{name for choice in networks for name in choice}]


def _jackknife(
    values: NDArray[np.float64], networks: Sequence[Sequence[str]], population: set[str]
) -> tuple[float, int]:
    """Variance of the mean over the networks of a population, and their number; NaN if leaving one out leaves nothing."""
    n = len(population)
    if n < 2:
        return 0.0, n
    left = []
    for name in sorted(population):
        others = values[[name not in choice for choice in networks]]
        left.append(others.mean() if len(others) else np.nan)
    return float((n - 1) / n * np.sum((left - np.mean(left)) ** 2)), n


def _welch(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own."""
    total = sum(variance for variance, _ in parts)
    if not total > 0:
        return float(sum(degrees for _, degrees in parts))
    return float(total**2 / sum(variance**2 / degrees for variance, degrees in parts))
