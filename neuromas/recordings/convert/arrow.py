"""Parquet files, Arrow files and saved datasets: their columns as arrays, lists of numbers too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NeuromasError
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.outside import refuse_outside
from neuromas.unpacking import check_unpacked, stored_bytes

_FILE_MAGIC = b"ARROW1"
_STATE, _SPLITS = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class Columns:
    """Columns of a table.

    Attributes
    ----------
    arrays : dict of str to ndarray
        One entry per row, or several: shape (n_rows, …).
    filled : dict of str to int
        The axis along which shorter lists were filled up with NaN or empty text.
    lengths : dict of str to ndarray of shape (n_rows,)
        Entries in each row of a column of lists.
    unusable : dict of str to str
        Name and reason.
    unread : dict of str to str
        Columns of lists that nobody asked for, with their types.
    """

    arrays: dict[str, NDArray[Any]]
    filled: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def read_columns(path: Path, is_needed: Callable[[str], bool] = lambda name: True) -> Columns:
    """Columns of a parquet file, an Arrow file or stream, or a folder that ``Dataset.save_to_disk`` wrote.

    Numbers with the names of Hugging Face's ``ClassLabel`` become those names.

    Parameters
    ----------
    path : Path
    is_needed : callable
        ``is_needed(name)``: whether to read a column of lists; by default all.

    Raises
    ------
    InvalidInput
        The file is not what its name says, or is damaged.
    """
    what = "a parquet file" if path.suffix == ".parquet" else "an Arrow table"
    try:
        table = _read(path)
        return _columns(table, is_needed)
    except NeuromasError:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, what, error) from error


def is_dataset(path: Path) -> bool:
    """Whether `path` is a folder that ``Dataset.save_to_disk`` wrote."""
    return (path / _STATE).is_file() or (path / _SPLITS).is_file()


# ----------------------------------------------------------------------------------------------------------------- files


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_outside(path)
    if path.is_dir():
        table = pa.concat_tables([_read_ipc(file) for file in _files_of(path)])
    elif path.suffix == ".parquet":
        _check_parquet(path)
        table = pq.ParquetFile(path).read()
    else:
        table = _read_ipc(path)
    # offsets of lists that lead outside the data would crash
    table.validate(full=True)
    return table


def _check_parquet(path: Path) -> None:
    """InvalidInput if the columns of a file unpack to too much: one page can stand for any number of equal values."""
    from pyarrow import compute, parquet

    stored, size = stored_bytes(path), 0
    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        size = sum(8 * column.num_values for column in columns)
        check_unpacked(size, stored, path)
        texts = {column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"}
        plain = [name for name in file.schema_arrow.names if name in texts]
    if not plain:
        return
    # a text that stands in many rows is read once
    table = parquet.read_table(path, columns=plain, read_dictionary=plain)
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        words = chunk.dictionary if hasattr(chunk, "dictionary") else chunk
        lengths = compute.fill_null(compute.binary_length(words), 0)
        lengths = lengths.take(chunk.indices) if words is not chunk else lengths
        size += compute.sum(lengths).as_py() or 0
    check_unpacked(size, stored, path)


def _read_ipc(path: Path) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        file.seek(0)
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        stored, size, batches = stored_bytes(path), 0, []
        # buffers may be compressed
        for batch in (reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader:
            size += batch.nbytes
            check_unpacked(size, stored, path)
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)


def _files_of(folder: Path) -> list[Path]:
    """The files of a saved dataset, in order."""
    if (folder / _SPLITS).is_file():
        splits = json.loads((folder / _SPLITS).read_text(encoding="utf-8")).get("splits", [])
        raise InvalidInput(
            f"{folder}: it holds several splits; name one of these folders: "
            f"{', '.join(str(folder / str(split)) for split in splits)}",
            kind="unreadable_source",
        )
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InvalidInput(
            f"{folder}: the dataset is a selection of its rows; save it again after dataset.flatten_indices()",
            kind="unreadable_source",
        )
    names = [str(entry["filename"]) for entry in state["_data_files"]]
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InvalidInput(f"{folder}: its files lie elsewhere: {listing(outside)}", kind="unreadable_source")
    return [folder / name for name in names]


# --------------------------------------------------------------------------------------------------------------- columns


def _columns(table: Any, is_needed: Callable[[str], bool]) -> Columns:
    nested = [column.name for column in table.schema if _is_list(column.type)]
    plain = table.select([name for name in table.column_names if name not in nested]).to_pandas()
    if any(name is not None for name in plain.index.names):
        plain = plain.reset_index()
    columns = Columns({str(name): tidy(plain[name].to_numpy()) for name in plain.columns})
    for name in nested:
        if not is_needed(name):
            columns.unread[name] = str(table.schema.field(name).type)
            continue
        _add_lists(columns, name, table.column(name))
    for name, words in _class_labels(table.schema.metadata or {}).items():
        if name in columns.arrays and columns.arrays[name].dtype.kind in "iuf":
            columns.arrays[name] = _named(columns.arrays[name], words)
    return columns


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    kind = getattr(kind, "storage_type", kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _add_lists(columns: Columns, name: str, column: Any) -> None:
    """Add a column of lists, or of lists of lists, as an array."""
    import pyarrow as pa

    chunks = column.chunks or [pa.array([], type=column.type)]
    try:
        pieces = [_filled_up(chunk) for chunk in chunks if len(chunk)]
    except _Unusable as problem:
        columns.unusable[name] = str(problem)
        return
    if not pieces:
        columns.unusable[name] = "no rows"
        return
    shapes = [piece.values.shape[1:] for piece in pieces]
    longest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    ragged = {axis for piece in pieces for axis in piece.ragged}
    ragged |= {axis for axis, size in enumerate(longest, 1) for shape in shapes if shape[axis - 1] != size}
    n_rows = sum(len(piece.values) for piece in pieces)
    if len(ragged) > 1:
        columns.unusable[name] = "lists of lists of different lengths, which differ in several axes"
    elif not _fits((n_rows, *longest)):
        columns.unusable[name] = f"lists that take too much memory written out in full, as shape {(n_rows, *longest)}"
    else:
        if ragged:
            columns.filled[name] = ragged.pop()
            pieces = [_Piece(_as_long_as(piece.values, longest), piece.lengths, piece.ragged) for piece in pieces]
        columns.arrays[name] = np.concatenate([piece.values for piece in pieces])
        columns.lengths[name] = np.concatenate([piece.lengths for piece in pieces])


class _Unusable(Exception):
    """Why a column of lists cannot become an array."""


@dataclass(frozen=True)
class _Piece:
    """Lists as an array; `ragged` are the axes along which they were filled up."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]
    ragged: frozenset[int]


def _filled_up(array: Any) -> _Piece:
    """An array of lists, shape (n_lists, longest, …)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = getattr(array, "storage", array)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = array.flatten()
    flat = getattr(flat, "storage", flat)
    if _is_list(flat.type):
        inner = _filled_up(flat)
    elif pa.types.is_dictionary(flat.type) or pa.types.is_nested(flat.type):
        raise _Unusable(f"lists of {flat.type}, which are neither numbers nor text")
    else:
        values = tidy(flat.to_numpy(zero_copy_only=False))
        if values.dtype.kind not in "biufU":
            raise _Unusable(f"lists of {flat.type}, which are neither numbers nor text")
        inner = _Piece(values, lengths, frozenset())
    longest = int(lengths.max(initial=0))
    deeper = frozenset(axis + 1 for axis in inner.ragged)
    if longest == 0:
        raise _Unusable("lists without entries")
    if (lengths == longest).all():
        return _Piece(inner.values.reshape(len(lengths), longest, *inner.values.shape[1:]), lengths, deeper)
    if not _fits((len(lengths), longest, *inner.values.shape[1:])):
        raise _Unusable(f"lists of very different lengths, up to {longest}")
    filled = _nothing((len(lengths), longest, *inner.values.shape[1:]), inner.values.dtype)
    filled[np.arange(longest) < lengths[:, None]] = inner.values
    return _Piece(filled, lengths, deeper | {1})


def _fits(shape: tuple[int, ...]) -> bool:
    return 8 * float(np.prod(shape, dtype=np.float64)) <= named_arrays.LARGEST_DENSE_BYTES


def _nothing(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Missing entries beside entries of `dtype`."""
    if dtype.kind == "U":
        return np.full(shape, "", dtype=dtype)
    return np.full(shape, np.nan, dtype=dtype if dtype.kind == "f" else np.float64)


def _as_long_as(values: NDArray[Any], longest: tuple[int, ...]) -> NDArray[Any]:
    if values.shape[1:] == longest:
        return values
    filled = _nothing((len(values), *longest), values.dtype)
    filled[tuple(slice(size) for size in values.shape)] = values
    return filled


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Names of the codes of a column, from what Hugging Face's datasets write into a schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    labels = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        feature = feature.get("feature", feature) if isinstance(feature, dict) else {}
        words = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(words, list) and feature.get("_type") == "ClassLabel":
            labels[str(name)] = [str(word) for word in words]
    return labels


def _named(codes: NDArray[Any], words: list[str]) -> NDArray[Any]:
    """Codes as words; no code (NaN, -1) is missing. Codes that have no word stay numbers."""
    absent = np.isnan(codes) if codes.dtype.kind == "f" else np.zeros(codes.shape, dtype=bool)
    absent |= codes == -1
    places = np.where(absent, len(words), codes).astype(np.int64)
    if not ((places >= 0) & (places <= len(words))).all() or (places[~absent] == len(words)).any():
        return codes
    return np.array([*words, ""], dtype=str)[places]
