"""A table that a user brings to a recording: CSV, with or without packing, or a workbook."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.convert.workbook import read_workbook
from neuromas.recordings.isolation import isolates, read_tables
from neuromas.unpacking import check_zip, read_packed


def read_user_table(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Columns of a table, and each cell of them as it is written; read in a child process, unless files are read in this one.

    Parameters
    ----------
    path : Path

    Returns
    -------
    columns, written : dict of str to ndarray of shape (n_rows,)
        Of a workbook, nothing is known as it was written.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        The file cannot be read as a table, unpacks to too much, or crashes or stops its reader.
    """
    if not path.exists():
        raise NotFound(f"no such file: {path}", kind="unknown_file")
    if path.is_dir():
        raise InvalidInput(f"{path}: expected a file with a table, got a folder", kind="not_a_file")
    columns, written = read_tables(path, _read, path, preload=(__name__,)) if isolates(_read) else _read(path)
    return columns, written


def _read(path: Path) -> list[dict[str, NDArray[Any]]]:
    if path.suffix in (".xlsx", ".xlsm"):
        return [dict(read_workbook(path)), {}]
    # pandas guesses the separator, unless the name says it
    how: dict[str, Any] = {"sep": "\t" if path.name.removesuffix(".gz").endswith(".tsv") else None, "engine": "python"}
    try:
        if path.suffix == ".zip":
            check_zip(path)
        packed = path.read_bytes() if path.suffix == ".zip" else read_packed(path)
        how |= {"compression": "zip"} if path.suffix == ".zip" else {}
        table = pd.read_csv(io.BytesIO(packed), **how)
        cells = pd.read_csv(io.BytesIO(packed), dtype=str, keep_default_na=False, **how)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes pandas and the unpackers raise
        raise unreadable(path, "a table", error) from error
    written = {str(name): np.char.strip(cells[name].to_numpy().astype(str)) for name in cells.columns}
    return [{str(name): tidy(table[name]) for name in table.columns}, written]
