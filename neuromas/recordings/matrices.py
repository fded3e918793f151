"""Columns with several entries per row, of which an expression names one: ``v[:, 0]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput

Index = tuple[int | slice, ...]
"""Whole axes (``slice(None)``) and whole numbers, one for each axis."""


@dataclass(frozen=True)
class Matrix:
    """An array of several entries per row, as a column of a table.

    Attributes
    ----------
    shape : tuple of int
    part : callable
        ``part(index) -> ndarray``: the column that `index`, one entry for each axis, leaves.
    whole : ndarray, optional
        What the name stands for without an index; by default an index is needed.
    per_row : bool
        Whether the first axis are the rows of a table, so that an index must leave this axis alone.
    ragged : int
        Of how many axes after the first the length differs from row to row. These are as long as the longest row; entries behind
        the end of a row are missing, and ``-1`` is the last entry of each row.
    remark : str
        What else a message about a missing index says.
    """

    shape: tuple[int, ...]
    part: Callable[[Index], NDArray[Any]]
    whole: NDArray[Any] | None = None
    per_row: bool = False
    ragged: int = 0
    remark: str = ""

    @property
    def described(self) -> str:
        """The shape, for messages."""
        sizes = [f"up to {size}" if 0 < axis <= self.ragged else str(size) for axis, size in enumerate(self.shape)]
        return f"({', '.join(sizes)})"

    def __len__(self) -> int:
        return self.shape[0]

    def of_rows(self, rows: NDArray[Any]) -> Matrix:
        """Some rows of a table's column, or all in another order."""
        return replace(self, shape=(len(rows), *self.shape[1:]), part=lambda index: self.part(index)[rows])


def of_table(values: NDArray[Any]) -> Matrix:
    """A table's column of shape (n_rows, …).

    Examples
    --------
    >>> of_table(np.array([[1, 2], [3, 4]])).part((slice(None), 0))
    array([1, 3])
    """
    return Matrix(values.shape, values.__getitem__, per_row=True)


def of_lists(
    read: Callable[[NDArray[np.int64]], NDArray[Any]], levels: Sequence[NDArray[np.int64]], others: tuple[int, ...]
) -> Matrix:
    """A table's column of lists of different lengths: ``[:, k]`` is entry `k` of each row, missing where a row is shorter.

    Parameters
    ----------
    read : callable
        ``read(places)``: entries at `places`, which rise, of shape (n_places, *others); all rows' entries are numbered in one
        row after the other.
    levels : sequence of ndarray
        Where the entries of each row end, shape (n_rows,). Of lists of lists, these entries are lists; then follows where the
        entries of each of these end, and so on.
    others : tuple of int
        Shape of an entry.

    Examples
    --------
    >>> lists = of_lists(np.array([1, 2, 3]).take, [np.array([2, 2, 3])], ())
    >>> lists.described, lists.part((slice(None), 0)).tolist(), lists.part((slice(None), -1)).tolist()
    ('(3, up to 2)', [1.0, nan, 3.0], [2.0, nan, 3.0])
    >>> nested = of_lists(np.array([1, 2, 3]).take, [np.array([2, 2]), np.array([1, 3])], ())  # [[1], [2, 3]] and []
    >>> nested.described, nested.part((slice(None), 1, -1)).tolist()
    ('(2, up to 2, up to 2)', [3.0, nan])
    """
    bounds = [(np.r_[0, ends[:-1]].astype(np.int64), ends.astype(np.int64)) for ends in levels]
    n_rows = len(levels[0])

    def part(index: Index) -> NDArray[Any]:
        # the rows that have such an entry, and the list of each at this level
        rows = lists = np.arange(n_rows)
        for (starts, ends), entry in zip(bounds, index[1:], strict=False):
            at, first, last = int(entry), starts[lists], ends[lists]  # type: ignore[arg-type]
            present = (last - first > at) if at >= 0 else (last - first >= -at)
            rows, lists = rows[present], ((first if at >= 0 else last) + at)[present]
        column = read(lists)[(slice(None), *index[1 + len(bounds) :])]
        if len(rows) == n_rows:
            return column
        if column.dtype.kind == "U":
            filled: NDArray[Any] = np.full((n_rows, *column.shape[1:]), "", dtype=column.dtype)
        else:
            filled = np.full((n_rows, *column.shape[1:]), np.nan)
        filled[rows] = column
        return filled

    widths = tuple(int((ends - starts).max(initial=0)) for starts, ends in bounds)
    return Matrix((n_rows, *widths, *others), part, per_row=True, ragged=len(bounds))


def checked(matrix: Matrix, index: Sequence[int | slice | Any], name: str, where: str) -> Index:
    """`index` with one entry for each axis of `matrix`, ``...`` spelled out.

    Raises
    ------
    InvalidInput
        It has more or fewer entries than the array has axes, or a number beyond the end of an axis.
    """
    n_axes = len(matrix.shape)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = [*index[:at], *[slice(None)] * (n_axes - len(index) + 1), *index[at + 1 :]]
    if len(index) != n_axes:
        raise InvalidInput(
            f"{where}: {name!r} is of shape {matrix.described}, so an index needs {n_axes} entries, one for each axis, got "
            f"{len(index)}; e.g. {example(name, matrix)}",
            kind="invalid_expression",
        )
    if matrix.per_row and [isinstance(entry, slice) for entry in index] != [True] + [False] * (n_axes - 1):
        raise InvalidInput(
            f"{where}: {spelled(name, tuple(index))} is no entry per row; {name!r} is of shape {matrix.described}, rows first; "
            f"e.g. {example(name, matrix)}",
            kind="invalid_expression",
        )
    for axis, (entry, size) in enumerate(zip(index, matrix.shape, strict=True)):
        if isinstance(entry, int) and not -size <= entry < size:
            raise InvalidInput(
                f"{where}: {name!r} is of shape {matrix.described}; its axis {axis} has no entry {entry}, expected "
                + (f"0 to {size - 1} (counted from 0)" if size else "an axis that is not empty"),
                kind="invalid_expression",
            )
    return tuple(index)


def spelled(name: str, index: Index) -> str:
    """A part of an array as an expression names it.

    Examples
    --------
    >>> spelled("v", (slice(None), 0)), spelled("info.v", (-1, slice(None)))
    ('v[:, 0]', 'col("info.v")[-1, :]')
    """
    named = name if name.isidentifier() else f'col("{name}")'
    return f"{named}[{', '.join(':' if isinstance(entry, slice) else str(entry) for entry in index)}]"


def example(name: str, matrix: Matrix) -> str:
    """How to name a column of an array: ``v[:, 0]``."""
    kept = 1 if matrix.per_row else len(matrix.shape) - 1
    return spelled(name, (*[slice(None)] * kept, *[0] * (len(matrix.shape) - kept)))


def kept_axes(names: Sequence[str], index: Index) -> list[str]:
    """Names of the axes that `index` leaves."""
    return [name for name, entry in zip(names, index, strict=True) if isinstance(entry, slice)]
