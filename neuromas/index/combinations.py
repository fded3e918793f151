"""Combinations of values: find again those that were recorded.

Plain arrays on the CPU. Where variables are whole numbers that lie close together, a combination is a place in a table (one
product with the strides); elsewhere each variable's values are searched in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TABLE = 2**22
"""Most places of a table by which combinations are found: 32 MB."""


class Combinations:
    """Finds rows of a table of combinations.

    Parameters
    ----------
    values : ndarray of float64, shape (n_values, n_variables)
        Distinct, in ascending order.
    dtypes : sequence of dtype
        In which each variable is stored: what is asked of one in single precision is rounded to it.
    """

    def __init__(self, values: NDArray[np.float64], dtypes: Sequence[np.dtype[Any]]) -> None:
        self.values = values
        self._rounded = [column for column, dtype in enumerate(dtypes) if dtype == np.float32]
        # one row more, which nothing equals: where a search ends that found nothing
        self._padded = np.concatenate([values, np.full((1, values.shape[1]), np.nan)]).T.copy()
        low = values.min(axis=0)
        spans = values.max(axis=0) - low + 1
        whole = all(dtype.kind in "iu" for dtype in dtypes)
        self._table: NDArray[np.int64] | None = None
        if whole and np.prod(spans) <= _TABLE:
            strides = np.ones(len(spans))
            strides[:-1] = np.cumprod(spans[:0:-1])[::-1]
            self._strides, self._low = strides, low
            self._table = np.full(int(np.prod(spans)) + 1, len(values))
            # the least is taken off first: whole numbers up to 2^53 times a stride would be rounded
            self._table[((values - low) @ strides).astype(np.int64)] = np.arange(len(values))
        else:
            self._levels = [np.unique(column) for column in values.T]
            self._prefixes = _prefixes(values, self._levels)

    def __len__(self) -> int:
        return len(self.values)

    def find(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        """Row of `values` of each row of `wanted` (n, n_variables); −1 for none."""
        wanted = self.as_stored(wanted)
        if self._table is None:
            row = self._search(wanted)
        else:
            with np.errstate(all="ignore"):  # NaN, and what is too large, become some number, and equal nothing
                place = ((wanted - self._low) @ self._strides).astype(np.int64)
            row = self._table.take(place, mode="clip")
        same = self._padded.take(row, axis=1) == wanted.T
        return np.where(np.logical_and.reduce(same, axis=0), row, -1)

    def as_stored(self, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
        """`wanted`, rounded as values are stored: 0.1 in single precision is another number."""
        if self._rounded:
            wanted = wanted.copy()
            with np.errstate(over="ignore"):
                wanted[:, self._rounded] = wanted[:, self._rounded].astype(np.float32)
        return wanted

    def _search(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        key = np.zeros(len(wanted), dtype=np.int64)
        for column, (levels, prefixes) in enumerate(zip(self._levels, self._prefixes, strict=True)):
            code = np.searchsorted(levels, wanted[:, column]).clip(max=levels.size - 1)
            key = np.searchsorted(prefixes, key * levels.size + code).clip(max=prefixes.size - 1)
        return key


def _prefixes(values: NDArray[np.float64], levels: Sequence[NDArray[np.float64]]) -> list[NDArray[np.int64]]:
    """Per variable, the combinations of it and those before, as keys in ascending order."""
    prefixes = []
    key = np.zeros(len(values), dtype=np.int64)
    for column, own in enumerate(levels):
        unique, key = np.unique(key * own.size + np.searchsorted(own, values[:, column]), return_inverse=True)
        prefixes.append(unique)
    return prefixes
