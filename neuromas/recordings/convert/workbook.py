"""Workbooks (``.xlsx``): a sheet as a table."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.source import needed, unreadable
from neuromas.recordings.convert.text import MISSING

EXTRA = "excel"
LARGEST_BYTES = 2**30
"""A workbook is read if its parts take at most so many bytes when they are decompressed."""


def read_workbook(path: Path, sheet: str | None = None) -> dict[str, NDArray[Any]]:
    """Columns of a sheet whose first row names them; formulas as the values that were saved with them.

    Parameters
    ----------
    path : Path
    sheet : str, optional
        By default the first one.

    Raises
    ------
    NotFound
        There is no such sheet.
    InvalidInput
        The file is no workbook, is too large when it is decompressed, names a column twice, or openpyxl is not installed.
    """
    needed("openpyxl", EXTRA)
    what = "a workbook (.xlsx)"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise unreadable(path, what, error) from error
    if size > LARGEST_BYTES:
        raise InvalidInput(
            f"{path}: its parts take {size / 2**30:.1f} GiB when they are decompressed, expected at most "
            f"{LARGEST_BYTES / 2**30:g}; save the sheet as CSV",
            kind="too_large",
        )
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            if sheet is not None and sheet not in book.sheet_names:
                raise NotFound(
                    f"{path}: no sheet {sheet!r}; there are {listing(book.sheet_names)}", kind="unknown_table"
                )
            cells = book.parse(sheet if sheet is not None else 0, header=None, dtype=object, keep_default_na=False)
    except (NotFound, InvalidInput):
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, what, error) from error
    return _columns(cells, path)


def _columns(cells: pd.DataFrame, path: Path) -> dict[str, NDArray[Any]]:
    """Columns by the names in the first row; rows and columns that are empty are left out."""
    values = cells.to_numpy(dtype=object)
    empty = (
        np.vectorize(lambda cell: cell is None or cell == "" or cell != cell, otypes=[bool])(values)
        if values.size
        else values
    )
    if values.size == 0 or empty[0].all():
        raise unreadable(path, "a workbook (.xlsx)", "no header in the first row of the sheet")
    values, empty = values[:, ~empty.all(axis=0)], empty[:, ~empty.all(axis=0)]
    values, empty = values[~empty.all(axis=1)], empty[~empty.all(axis=1)]
    names = ["" if absent else str(name) for name, absent in zip(values[0], empty[0], strict=True)]
    names = [name or f"Unnamed: {number}" for number, name in enumerate(names)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path}: columns named more than once: {listing(twice)}", kind="unreadable_source")
    values = values.copy()
    values[empty] = None
    return {name: tidy(_settled(column[1:])) for name, column in zip(names, values.T, strict=True)}


def _settled(cells: NDArray[Any]) -> NDArray[Any]:
    """Cells of a column; words such as ``NA`` are missing in a column of numbers."""
    words = [isinstance(cell, str) for cell in cells]
    if all(words) or not all(cell.strip() in MISSING for cell in cells[words]):
        return cells
    numbers = cells.copy()
    numbers[words] = None
    return numbers
