"""Columns of the tables of an NWB file, and the names of units from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neuromas.recordings.columns import tidy
from neuromas.recordings.matrices import Matrix, of_lists

_NAME_COLUMNS = ("unit_name", "label", "channel_name")
"""Columns that name units, if every row has a different name there."""

_LONG_COLUMNS = ("spike_times", "obs_intervals", "timeseries")
"""Columns of lists that are no values of a row."""

_WHOLE = 2**22
"""Up to so many rows of lists are read at once; of more, only those that are asked for."""

_AT_ONCE = 2**12


def read_columns(table: Any) -> dict[str, NDArray[Any]]:
    """Columns of a table with one number or text per row, and its row ids as ``id``."""
    columns = {"id": np.asarray(table.id.data[:])}
    for name in table.colnames:
        values = plain_column(table[name])
        if values is not None:
            columns[str(name)] = values
    return columns


def plain_column(column: Any) -> NDArray[Any] | None:
    """One number or text per row of a column; None if a row holds several, or a reference."""
    from hdmf.common import DynamicTableRegion, EnumData, VectorIndex

    if isinstance(column, (VectorIndex, DynamicTableRegion)):
        return None
    data = column.data
    if isinstance(data, h5py.Dataset) and data.shape is not None and len(data.shape) == 1:
        if h5py.check_ref_dtype(data.dtype) is not None or data.dtype.kind == "V":
            return None
        values = tidy(data[:])
    elif isinstance(data, (list, tuple, np.ndarray)):
        values = tidy(np.asarray(data))
    else:
        return None
    if isinstance(column, EnumData):
        elements = tidy(column.elements.data[:])
        values = elements[values.astype(np.int64)]
    return values if values.ndim == 1 and values.dtype.kind in "biufU" else None


def read_matrices(table: Any) -> dict[str, Matrix]:
    """Columns of a table with several numbers or texts per row, of which expressions name one: ``v[:, 0]``."""
    matrices = {str(name): _matrix(table[name]) for name in table.colnames if name not in _LONG_COLUMNS}
    return {name: matrix for name, matrix in matrices.items() if matrix is not None}


def _matrix(column: Any) -> Matrix | None:
    """A column of vectors, of lists, or of lists of lists; None if its entries are neither numbers nor text."""
    from hdmf.common import DynamicTableRegion, EnumData, VectorIndex

    levels, entries = [], column
    while isinstance(entries, VectorIndex):
        levels.append(entries)
        entries = entries.target
    if isinstance(entries, (DynamicTableRegion, EnumData)):
        return None
    data = entries.data
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if shape is None and isinstance(data, (list, tuple)):
        data = np.asarray(data)
        shape, dtype = data.shape, data.dtype
    if shape is None or dtype is None or not _plain(dtype):
        return None
    if levels:
        return of_lists(partial(_rows_of, data), [np.asarray(level.data[:]) for level in levels], tuple(shape[1:]))
    if len(shape) < 2 or 0 in shape[1:]:
        return None
    return Matrix(tuple(shape), lambda index: tidy(data[index]), per_row=True)


def _plain(dtype: Any) -> bool:
    """Whether entries are numbers or text."""
    return (
        isinstance(dtype, np.dtype)
        and h5py.check_ref_dtype(dtype) is None
        and (dtype.kind in "biufSU" or h5py.check_string_dtype(dtype) is not None)
    )


def _rows_of(data: Any, places: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of `data` at rising `places`; of large data in a file, those alone are read."""
    if places.size == 0:
        return np.zeros((0, *data.shape[1:]))
    if data.shape[0] <= _WHOLE:
        return tidy(np.asarray(data[:]))[places]
    return tidy(np.concatenate([data[chunk.tolist()] for chunk in np.array_split(places, -(-places.size // _AT_ONCE))]))


def electrode_columns(column: Any) -> dict[str, NDArray[Any]]:
    """Group and location of the electrodes of each unit, from the column that refers to them."""
    table, rows_of_unit = _region(column)
    columns: dict[str, NDArray[Any]] = {}
    for source, name in (("group_name", "electrode_group"), ("location", "location")):
        values = plain_column(table[source]) if source in table.colnames else None
        if values is not None:
            texts = values.astype(str)
            joined = ["; ".join(dict.fromkeys(texts[rows].tolist())) for rows in rows_of_unit]
            columns[name] = np.array(joined, dtype=str)
    return columns


def _region(column: Any) -> tuple[Any, list[NDArray[np.int64]]]:
    """The table that a column of references leads to, and its rows for each row of the column."""
    from hdmf.common import VectorIndex

    if isinstance(column, VectorIndex):
        rows = np.asarray(column.target.data[:], dtype=np.int64)
        ends = np.asarray(column.data[:], dtype=np.int64)
        return column.target.table, np.split(rows, ends[:-1]) if len(ends) else []
    return column.table, [np.array([row], dtype=np.int64) for row in column.data[:]]


def unit_names(columns: Mapping[str, NDArray[Any]], prefix: str) -> NDArray[Any]:
    """Names of the units, shape (n_units,): from a column of unique names, else `prefix` and the row id."""
    for name in _NAME_COLUMNS:
        values = columns.get(name)
        if values is not None and values.dtype.kind == "U" and "" not in values and len(set(values)) == len(values):
            return values
    ids = columns["id"]
    numbers = ids if len(set(ids.tolist())) == len(ids) else np.arange(len(ids))
    return np.array([f"{prefix}-{number}" for number in numbers.tolist()], dtype=str)
