"""MATLAB's ``.mat`` files of every version as plain arrays, axes in MATLAB's order; nothing in them is ever run."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.exceptions import ComplexWarning
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque
from scipy.sparse import csc_matrix, issparse

from neuromas.errors import InvalidInput
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.unpacked import check_hdf5
from neuromas.unpacking import inflated_size, most_bytes, stored_bytes, too_large

_DEEPEST = 16  # structs within structs
_V5_HEADER = 128  # bytes before the first variable
_V5_COMPRESSED = 15  # kind of a variable that zlib packed
_OBJECT = "an object of MATLAB's (table, string, datetime, function, class); save plain arrays instead"


@dataclass(frozen=True)
class _Struct:
    """``fields[name]`` lists the value of each element."""

    fields: dict[str, list[Any]]


@dataclass(frozen=True)
class _Cell:
    entries: list[Any]
    """In MATLAB's order, without the shape."""


@dataclass(frozen=True)
class _Unusable:
    reason: str


def read_mat(path: Path) -> Arrays:
    """Every array of a ``.mat`` file: numbers, logicals and text; fields of structs as ``struct.field``.

    A cell array with one number or text per cell becomes an array, and so does a field of a struct array with one number or
    text per element.

    Raises
    ------
    InvalidInput
        The file is not a ``.mat`` file, or is damaged.
    """
    try:
        values = _read_hdf5(path) if h5py.is_hdf5(path) else _read_v5(path)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a .mat file", error) from error
    source = Arrays({}, str(path), vectors=True)
    for name, value in values.items():
        _add(source, name, value, 0)
    return source


def _add(source: Arrays, name: str, value: Any, depth: int) -> None:
    """Add what `value` holds to `source`, structs by field."""
    if isinstance(value, _Struct) and depth < _DEEPEST:
        for label, entries in value.fields.items():
            _add(source, f"{name}.{label}", entries[0] if len(entries) == 1 else _Cell(entries), depth + 1)
        return
    if isinstance(value, _Struct):
        value = _Unusable(f"structs within structs, more than {_DEEPEST} deep")
    if isinstance(value, list):  # references that belong to no struct
        value = _Cell(value)
    if isinstance(value, _Cell):
        value = _joined(value)
    if isinstance(value, _Unusable):
        source.unusable[name] = value.reason
    else:
        source.arrays[name] = value


def _joined(cell: _Cell) -> NDArray[Any] | _Unusable:
    """A cell array of one number or text per cell as an array."""
    plain: list[Any] = []
    for entry in cell.entries:
        if not isinstance(entry, np.ndarray) or entry.size > 1 or (entry.size == 0 and entry.dtype.kind != "U"):
            what = f"an array of shape {entry.shape}" if isinstance(entry, np.ndarray) else "other things"
            return _Unusable(f"a cell or struct array of {what}; expected one number or text in each")
        plain.append(entry.item() if entry.size else "")
    if len({isinstance(value, str) for value in plain}) > 1:
        return _Unusable("a cell or struct array of both numbers and text")
    return np.array(plain)


def _numbers(array: NDArray[Any]) -> NDArray[Any] | _Unusable:
    if array.dtype.kind == "c":
        return _Unusable("complex numbers; save a part of them, or the magnitude")
    if array.dtype.kind in "biuf":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return _Unusable(f"{array.dtype}, which is neither numbers nor text")


def _dense(matrix: Any) -> NDArray[Any] | _Unusable:
    size = int(np.prod(matrix.shape, dtype=np.float64) * matrix.dtype.itemsize)
    if size > named_arrays.LARGEST_DENSE_BYTES:
        return _Unusable(f"sparse, and of {size / 2**30:.1f} GiB when written out in full")
    return _numbers(matrix.toarray())


# ------------------------------------------------------------------------------------------------------- up to version 7


def _read_v5(path: Path) -> dict[str, Any]:
    _check_unpacked_v5(path)
    with warnings.catch_warnings():
        # scipy warns of two variables of one name; the last counts, as in MATLAB
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ComplexWarning)
        try:
            loaded = loadmat(path, mat_dtype=True)
        except ComplexWarning:  # scipy would drop imaginary parts; read as stored, logicals are 0 and 1
            loaded = loadmat(path)
    return {
        str(name): _from_v5(value)
        for name, value in loaded.items()
        if not (str(name).startswith("__") and not isinstance(value, np.ndarray)) and name != "__function_workspace__"
    }


def _check_unpacked_v5(path: Path) -> None:
    """InvalidInput if the compressed variables of a file unpack to too much."""
    stored = stored_bytes(path)
    most, size = most_bytes(stored), 0
    with path.open("rb") as file:
        header = file.read(_V5_HEADER)
        order: Literal["little", "big"] = "little" if header[126:128] == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, length = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            if kind != _V5_COMPRESSED:
                file.seek(length, os.SEEK_CUR)
                continue
            size += inflated_size(file.read(length), most - size)
            if size > most:
                raise too_large(most, stored, path, cut=True)


def _from_v5(value: Any) -> Any:
    if isinstance(value, MatlabOpaque | MatlabObject | MatlabFunction):
        return _Unusable(_OBJECT)
    if issparse(value):
        return _dense(value)
    if not isinstance(value, np.ndarray):
        return _Unusable("an empty struct")
    array = value
    if array.dtype.names is not None:
        return _Struct(
            {name: [_from_v5(value) for value in array[name].ravel(order="F")] for name in array.dtype.names}
        )
    if array.dtype.kind == "O":
        return _Cell([_from_v5(entry) for entry in array.ravel(order="F")])
    if array.dtype.kind == "U":
        return np.char.rstrip(array) if array.size > 1 else array
    return _numbers(array)


# ------------------------------------------------------------------------------------------------------------ version 7.3


def _read_hdf5(path: Path) -> dict[str, Any]:
    check_hdf5(path)
    with h5py.File(path, "r") as file:
        return {name: _member(file, name, file, 0) for name in file if not name.startswith("#")}


def _member(group: Any, name: str, file: Any, depth: int) -> Any:
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return _Unusable("a link to another file")
    return _from_hdf5(group[name], file, depth)


def _from_hdf5(item: Any, file: Any, depth: int) -> Any:
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if depth > _DEEPEST:
        return _Unusable(f"more than {_DEEPEST} deep")
    if "MATLAB_object_decode" in item.attrs or kind in ("function_handle", "opaque"):
        return _Unusable(_OBJECT)
    if isinstance(item, h5py.Group):
        return _sparse(item) if "MATLAB_sparse" in item.attrs else _struct(item, file, depth)
    if item.external is not None or item.is_virtual:
        return _Unusable("numbers that lie in another file")
    if item.attrs.get("MATLAB_empty", 0):
        return _empty(item, kind)
    if h5py.check_ref_dtype(item.dtype) is not None:
        entries = [_from_hdf5(file[reference], file, depth + 1) for reference in np.asarray(item[()]).ravel()]
        return _Cell(entries) if kind == "cell" else entries  # a field of a struct array
    # MATLAB writes its last axis first
    array = np.asarray(item[()]).T
    if kind == "char" or array.dtype.kind in "SO":
        return _texts(array, kind)
    return _numbers(array.astype(bool) if kind == "logical" else array)


def _struct(group: Any, file: Any, depth: int) -> _Struct:
    fields = {name: _member(group, name, file, depth + 1) for name in group}
    if fields and all(isinstance(value, list) for value in fields.values()):
        return _Struct(fields)
    return _Struct({name: [value] for name, value in fields.items()})


def _empty(item: Any, kind: str) -> Any:
    """An empty array, of which MATLAB stores the shape."""
    if kind == "char":
        return np.array([], dtype=str)
    return _Cell([]) if kind == "cell" else np.zeros(tuple(int(size) for size in np.atleast_1d(item[()])))


def _texts(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """Text of each row of characters, or of each entry."""
    if kind != "char":
        return np.array([text.decode() if isinstance(text, bytes) else str(text) for text in array.ravel()], dtype=str)
    rows = np.atleast_2d(array).astype("<u2")
    texts = [row.tobytes().decode("utf-16-le", "replace") for row in rows]
    return np.array(texts if len(texts) == 1 else [text.rstrip() for text in texts], dtype=str)


def _sparse(group: Any) -> Any:
    n_rows = int(np.ravel(group.attrs["MATLAB_sparse"])[0])
    starts = group["jc"][()].astype(np.int64)
    data = group["data"][()] if "data" in group else np.zeros(0)
    rows = group["ir"][()].astype(np.int64) if "ir" in group else np.zeros(0, dtype=np.int64)
    return _dense(csc_matrix((data, rows, starts), shape=(n_rows, len(starts) - 1)))
