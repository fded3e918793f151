"""Samples by the combination of values that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 2**16
"""So many keys fit 16 bits, which numpy sorts by radix, in linear time."""


@dataclass(frozen=True, eq=False)
class Grouped:
    """Samples by the combination of values that they hold.

    Attributes
    ----------
    values : ndarray of float64, shape (n_values, n_variables)
        The combinations that occur, in ascending order.
    counts : ndarray of int64, shape (n_values,)
    order : ndarray of int64, shape (n_samples,)
        Positions of the samples, combination by combination; within a combination in their old order.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    order: NDArray[np.int64]


def group(columns: Sequence[NDArray[Any]]) -> Grouped:
    """Number the combinations that occur in `columns`, one array of shape (n_samples,) per variable.

    Examples
    --------
    >>> grouped = group([np.array([1, 0, 1]), np.array([5, 6, 5])])
    >>> grouped.values.tolist(), grouped.counts.tolist(), grouped.order.tolist()
    ([[0.0, 6.0], [1.0, 5.0]], [1, 2], [1, 0, 2])
    """
    key, n_keys = _keys(columns)
    counts = np.bincount(key, minlength=n_keys)
    present = np.flatnonzero(counts)
    if present.size < n_keys:
        counts = counts[present]
        if n_keys > _SMALL:
            renumbered = np.zeros(n_keys, dtype=np.int64 if present.size > _SMALL else np.uint16)
            renumbered[present] = np.arange(present.size)
            key = renumbered[key]
    order = np.argsort(key, kind="stable")
    first = order[np.cumsum(counts) - counts]
    values = np.stack([column[first].astype(np.float64) for column in columns], axis=1)
    return Grouped(values, counts, order)


def _keys(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], int]:
    """One number per sample, below the second, that tells combinations apart and ascends with them."""
    bounds = [(int(column.min()), int(column.max())) for column in columns if column.dtype.kind in "iu"]
    n_keys, n_samples = 1, columns[0].size
    for low, high in bounds:
        n_keys *= high - low + 1
    if len(bounds) == len(columns) and n_keys <= max(_SMALL, 4 * n_samples):
        dtype = np.dtype(np.uint16 if n_keys <= _SMALL else np.int64)
        key = np.zeros(n_samples, dtype=dtype)
        for column, (low, high) in zip(columns, bounds, strict=True):
            # the difference fits where its terms may not: both are wrapped around
            place = column.astype(dtype)
            np.subtract(place, np.asarray(low).astype(dtype), out=place)
            np.multiply(
                key, np.asarray(high - low + 1).astype(dtype), out=key
            )  # 2^16 becomes 0, and so is the key then
            np.add(key, place, out=key)
        return key, n_keys
    wide = np.zeros(n_samples, dtype=np.int64)
    n_keys = 1
    for column in columns:
        unique, code = np.unique(column, return_inverse=True)
        # numbered anew at each variable: below n_samples * n_levels, so it never overflows
        unique, wide = np.unique(wide * unique.size + code, return_inverse=True)
        n_keys = unique.size
    return wide.astype(np.uint16) if n_keys <= _SMALL else wide, n_keys


def by_trial(
    trial: NDArray[np.int64], step: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions of samples trial by trial and step by step, where in that order each trial begins, and how long it is.

    Examples
    --------
    >>> order, starts, lengths = by_trial(np.array([7, 3, 7]), np.array([1, 0, 0]))
    >>> order.tolist(), starts.tolist(), lengths.tolist()
    ([1, 2, 0], [0, 1], [1, 2])
    """
    order = np.lexsort((step, trial))
    ordered = trial[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return order, starts, np.diff(np.r_[starts, len(order)])
