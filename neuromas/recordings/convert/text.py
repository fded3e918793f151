"""Tables written as text: the separator of the columns, what is a number, and what is not a table."""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.source import unreadable
from neuromas.unpacking import check_unpacked, read_packed

MISSING = ("", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "-nan", "#N/A")
"""Words for a missing number in a column of numbers; in a column of text only an empty cell is missing."""


_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""Reads numbers exactly as they were written. Since 3.1, pandas always does."""


def read_text(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a table with a header, separated by tabs, commas or semicolons; gzipped if the name ends in ``.gz``.

    Returns
    -------
    dict of str to ndarray of shape (n_rows,)
        Numbers, booleans or text; a missing number is NaN, missing text is empty.

    Raises
    ------
    InvalidInput
        The file is not text, is cut off, has no header, names a column twice, or has a row with more cells than the header.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = Path(folder, "toy.csv").write_text("rate,side\\n1.5,left\\nNA,right\\n")
    ...     read_text(Path(folder, "toy.csv"))
    {'rate': array([1.5, nan]), 'side': array(['left', 'right'], dtype='<U5')}
    """
    what = "a table of text"
    try:
        data = read_packed(path)
        if b"\0" in data[:4096]:
            raise unreadable(path, what, "it holds binary data")
        first = data.decode("utf-8-sig").split("\n", 1)[0]
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise unreadable(path, what, error) from error
    except Exception as error:  # zlib.error, which has no other base
        raise unreadable(path, what, error) from error
    if not first.strip():
        raise unreadable(path, what, "no header in its first line")
    separator = max("\t,;", key=first.count)
    try:
        header = next(csv.reader([first.rstrip("\r")], delimiter=separator))
    except csv.Error as error:
        raise unreadable(path, what, error) from error
    # short rows are filled up to the length of the header
    check_unpacked(8 * len(header) * (data.count(b"\n") + 1), len(data), path)
    twice = sorted(name for name, count in Counter(header).items() if name and count > 1)
    if twice:
        raise InvalidInput(f"{path}: columns named more than once: {listing(twice)}", kind="unreadable_source")
    numbers = [name for name in header if name.strip()]
    if all(_is_number(name) for name in numbers) and numbers != [str(column) for column in range(len(numbers))]:
        raise InvalidInput(
            f"{path}: no header: its first line holds numbers ({listing(numbers, 3)}), expected names of the columns",
            kind="unreadable_source",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.BytesIO(data),
                encoding="utf-8-sig",
                sep=separator,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                **_EXACT,
                low_memory=False,
            )
    except (ValueError, pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise unreadable(path, what, error) from error
    return {str(name): _settled(tidy(table[name].to_numpy())) for name in table.columns}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _settled(values: NDArray[Any]) -> NDArray[Any]:
    """Text as numbers, if all of it is numbers or words such as ``NA``; other values as they are."""
    if values.dtype.kind != "U":
        return values
    present = ~np.isin(np.char.strip(values), MISSING)
    if not present.any():
        return values
    try:
        numbers = np.full(values.shape, np.nan)
        numbers[present] = values[present].astype(np.float64)
    except ValueError:
        return values
    return numbers
