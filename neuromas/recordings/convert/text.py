"""Tables written as text: the separator of the columns, what is a number, and what is not a table."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.expression import column_of
from neuromas.schema.recipe import VariableRecipe
from neuromas.unpacking import check_unpacked, read_packed

_WHAT = "a table of text"

MISSING = ("", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "-nan", "#N/A")
"""Words for a missing number in a column of numbers; in a column of text only an empty cell is missing."""


_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""Reads numbers exactly as they were written. Since 3.1, pandas always does."""


_BINARY = (".npy", ".npz", ".mat", ".safetensors", ".pt", ".pth", ".parquet", ".arrow", ".xlsx", ".xlsm")


def read_text(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Columns of a table, separated by tabs, commas or semicolons; gzipped if the name ends in ``.gz``.

    Parameters
    ----------
    path : Path
    names : sequence of str, optional
        Names of the columns of a table without a header. By default, the first line holds them.

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
    data, separator = _decoded(path, names)
    header = _header(data, separator, path)
    # short rows are filled up to the length of the header
    check_unpacked(8 * len(header) * (data.count(b"\n") + 1), len(data), path)
    twice = sorted(name for name, count in Counter(header).items() if name and count > 1)
    if twice:
        raise InvalidInput(f"{path}: columns named more than once: {listing(twice)}", kind="unreadable_source")
    numbers = [name for name in header if name.strip()]
    if all(_is_number(name) for name in numbers) and numbers != [str(column) for column in range(len(numbers))]:
        raise InvalidInput(
            f"{path}: no header: its first line holds numbers ({listing(numbers, 3)}), expected names of the columns; the recipe"
            " can name them (column_names)",
            kind="unreadable_source",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.BytesIO(data),
                sep=separator,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                **_EXACT,
                low_memory=False,
            )
    except (ValueError, pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise unreadable(path, _WHAT, error) from error
    columns = {str(name): _settled(tidy(table[name].to_numpy())) for name in table.columns}
    padded = _LEADING_ZERO.search(data) is not None
    doubtful = [name for name, values in columns.items() if _beyond_exact(values) or (padded and _are_whole(values))]
    if doubtful:
        written = _as_written(data, separator, doubtful)
        columns |= {name: labels_apart(columns[name], written[name]) for name in doubtful}
    return columns


def _decoded(path: Path, names: Sequence[str] | None = None) -> tuple[bytes, str]:
    """A table of text in UTF-8, with a header of `names` if these are given, and the separator of its columns."""
    try:
        data = read_packed(path).removeprefix(b"\xef\xbb\xbf")
        if b"\0" in data[:4096]:
            raise unreadable(path, _WHAT, "it holds binary data")
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable(
            path,
            _WHAT,
            f"it is not UTF-8 (byte {error.start} is {data[error.start]:#x}); save it as UTF-8, e.g. with iconv",
        ) from error
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise unreadable(path, _WHAT, error) from error
    except Exception as error:  # zlib.error, which has no other base
        raise unreadable(path, _WHAT, error) from error
    first = data.split(b"\n", 1)[0].decode()
    if not first.strip():
        raise unreadable(path, _WHAT, "no header in its first line" if names is None else "its first line is empty")
    separator = max("\t,;", key=first.count)
    return (data, separator) if names is None else (_with_header(data, separator, names, path), separator)


def _header(data: bytes, separator: str, path: Path) -> list[str]:
    """Cells of the first line."""
    first = data.split(b"\n", 1)[0].decode().rstrip("\r")
    try:
        return next(csv.reader([first], delimiter=separator))
    except csv.Error as error:
        raise unreadable(path, _WHAT, error) from error


def _with_header(data: bytes, separator: str, names: Sequence[str], path: Path) -> bytes:
    n_columns = len(_header(data, separator, path))
    if n_columns != len(names):
        raise InvalidInput(
            f"{path}: column_names names {len(names)} columns, the first line has {n_columns}", kind="invalid_recipe"
        )
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="\n").writerow(names)
    return line.getvalue().encode() + data


def is_text(path: Path) -> bool:
    """Whether a file beside another is read as a table of text: its ending stands for no other format."""
    return not path.is_dir() and path.suffix not in _BINARY


def read_written(path: Path, columns: Sequence[str], names: Sequence[str] | None = None) -> dict[str, NDArray[np.str_]]:
    """Some columns of a table that `read_text` reads, each cell as it is written.

    Returns
    -------
    dict of str to ndarray of str, shape (n_rows,)
    """
    data, separator = _decoded(path, names)
    return _as_written(data, separator, columns)


def _as_written(data: bytes, separator: str, names: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    table = pd.read_csv(
        io.BytesIO(data), sep=separator, index_col=False, usecols=list(names), dtype=str, keep_default_na=False
    )
    return {name: np.char.strip(table[name].to_numpy().astype(str)) for name in names}


_LEADING_ZERO = re.compile(rb"(?:^|[\t,;\"\n])[ ]*[+-]?0\d")
"""A cell such as ``007``, which is a label unless nothing but its value counts."""

_EXACT_UP_TO = 2**53  # whole numbers that floats tell apart


def _are_whole(values: NDArray[Any]) -> bool:
    if values.dtype.kind != "f":
        return values.dtype.kind in "iu"
    return bool((np.isnan(values) | (values == np.rint(values))).all())


def _beyond_exact(values: NDArray[Any]) -> bool:
    """Whether these are numbers that floats may have merged, or that no type holds."""
    return values.dtype.kind == "O" or (values.dtype.kind == "f" and bool((np.abs(values) >= _EXACT_UP_TO).any()))


def labels_apart(values: NDArray[Any], written: NDArray[np.str_]) -> NDArray[Any]:
    """`values`, or the text that was `written` if numbers do not keep different whole numbers apart, as in ``007`` and ``7``.

    Examples
    --------
    >>> labels_apart(np.array([7, 7]), np.array(["007", "7"])), labels_apart(np.array([7, 8]), np.array(["007", "008"]))
    (array(['007', '7'], dtype='<U3'), array([7, 8]))
    """
    if values.dtype.kind not in "iuf":
        return written
    whole = np.array([_WHOLE.fullmatch(cell) is not None for cell in written.tolist()], dtype=bool)
    return _present(values, written) if _merges(values[whole], written[whole]) else values


def as_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Text as the numbers that are written there, where all of it is numbers: for columns that hold nothing else."""
    if values.dtype.kind != "U":
        return values
    return _settled(values)


_WHOLE = re.compile(r"[+-]?\d+")


def _merges(values: NDArray[Any], written: NDArray[np.str_]) -> bool:
    """Whether fewer numbers than different texts are left; a missing number is not counted."""
    present = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    return np.unique(np.char.lstrip(written[present], "+")).size > np.unique(values[present]).size


def _present(values: NDArray[Any], written: NDArray[np.str_]) -> NDArray[np.str_]:
    """`written`, empty where the number is missing."""
    return np.where(np.isnan(values), "", written) if values.dtype.kind == "f" else written


def as_labels(
    variables: Mapping[str, VariableRecipe],
    columns: Mapping[str, NDArray[Any]],
    read: Callable[[Sequence[str]], Mapping[str, NDArray[np.str_]]],
) -> tuple[dict[str, NDArray[Any]], dict[str, VariableRecipe]]:
    """Columns and variables in which a column of numbers that is declared categorical has its labels as they are written.

    Parameters
    ----------
    variables : mapping of str to VariableRecipe
    columns : mapping of str to ndarray
    read : callable
        Gives the cells of the named columns as they are written.

    Returns
    -------
    columns : dict of str to ndarray
        With a further column of text for each such column whose text says more than its numbers: ``007``.
    variables : dict of str to VariableRecipe
        These name the columns of text.
    """
    named = {name: column_of(recipe.expression) for name, recipe in variables.items()}
    labels = {
        name: column
        for name, column in named.items()
        if column is not None
        and column in columns
        and columns[column].dtype.kind in "iuf"
        and (variables[name].type == "categorical" or variables[name].meanings is not None)
        and variables[name].bins is None
    }
    written = read(sorted(set(labels.values()))) if labels else {}
    columns, variables = dict(columns), dict(variables)
    for name, column in labels.items():
        values, texts = columns[column], written[column]
        present = _present(values, texts)
        distinct = {text for text in present.tolist() if text}
        padded = any(_LEADING_ZERO.match(text.encode()) for text in distinct)
        meanings = variables[name].meanings
        if _merges(values, texts) or (padded and (meanings is None or distinct <= set(meanings))):
            columns[f"{column} {_WRITTEN}"] = present
            expression = f"col({json.dumps(f'{column} {_WRITTEN}', ensure_ascii=False)})"
            variables[name] = variables[name].model_copy(update={"expression": expression})
    return columns, variables


_WRITTEN = "as written"


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
