"""What an NWB file holds, for people who write a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.recordings.convert.nwb.columns import read_columns, read_matrices
from neuromas.recordings.convert.nwb.file import open_nwb
from neuromas.recordings.convert.nwb.series import describe_series
from neuromas.recordings.matrices import Matrix, example

_SHOWN = 6  # different values of a column


def contents(path: Path) -> list[tuple[str, str]]:
    """Tables, units and time series of an NWB file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of (str, str)
        Name and description of each interval table, table of units and time series. The name is the one that a recipe uses.
        The columns of a table follow it.

    Raises
    ------
    InvalidInput
        The file is not an NWB file.
    """
    rows: list[tuple[str, str]] = []
    with open_nwb(path) as file:
        for kind, tables in (("interval table, {} rows", file.tables), ("spikes of {} units", file.units)):
            for name, table in tables.items():
                rows.append((name, kind.format(len(table))))
                columns = read_columns(table)
                rows += [(f"{name}.{column}", _examples(values)) for column, values in columns.items()]
                matrices = read_matrices(table)
                rows += [
                    (f"{name}.{column}", _of_columns(matrices.get(column), column))
                    for column in table.colnames
                    if column not in columns
                ]
        for place, series in file.series.items():
            rows.append((place, describe_series(series, file.array(series.data))))
    return rows


def _of_columns(matrix: Matrix | None, column: str) -> str:
    """A column of several entries per row, and how an expression names one."""
    if matrix is None:
        return "not one number or text per row"
    return f"{matrix.described}: an expression names one entry per row, e.g. {example(column, matrix)}"


def _examples(values: NDArray[Any]) -> str:
    """A few of the values of a column, or their range."""
    if values.size == 0:
        return "no rows"
    kind = values.dtype.kind
    absent = np.isnan(values) if kind == "f" else values == "" if kind == "U" else np.zeros(values.shape, dtype=bool)
    unique = np.unique(values[np.isfinite(values)] if kind == "f" else values)
    if unique.size == 0:
        return "only missing values"
    if kind in "iuf" and unique.size > _SHOWN:
        text = f"{unique[0]:g} to {unique[-1]:g}"
    else:
        examples = [f"{value + 0:g}" if kind in "iuf" else str(value) for value in unique[:_SHOWN]]
        text = ", ".join(examples) + (f" and {unique.size - _SHOWN} more" if unique.size > _SHOWN else "")
    return text + (f" ({int(absent.sum())} missing)" if absent.any() else "")
