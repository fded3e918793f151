"""MATLAB's ``.mat`` files of every version as plain arrays, axes in MATLAB's order; nothing in them is ever run."""

from __future__ import annotations

import os
import warnings
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
from neuromas.recordings.convert.tree import DEEPEST, Cell, Struct, Unusable, arrays_of
from neuromas.recordings.trust import trust
from neuromas.recordings.unpacked import check_hdf5
from neuromas.unpacking import inflated_size, most_bytes, stored_bytes, too_large

_V5_HEADER = 128  # bytes before the first variable
_V5_COMPRESSED = 15  # kind of a variable that zlib packed
_OBJECT = "an object of MATLAB's (table, string, datetime, function, class); save plain arrays instead"


def read_mat(path: Path) -> Arrays:
    """Every array of a ``.mat`` file, as `arrays_of` makes them of cell and struct arrays.

    Raises
    ------
    InvalidInput
        The file is not a ``.mat`` file, or is damaged.
    """
    return arrays_of(read_tree(path), str(path), vectors=True)


def read_tree(path: Path) -> dict[str, Any]:
    """Every variable of a ``.mat`` file: an array, a `Struct`, a `Cell`, or `Unusable`.

    Raises
    ------
    InvalidInput
        The file is not a ``.mat`` file, or is damaged.
    """
    try:
        return _read_hdf5(path) if h5py.is_hdf5(path) else _read_v5(path)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a .mat file", error) from error


def _numbers(array: NDArray[Any]) -> NDArray[Any] | Unusable:
    if array.dtype.kind == "c":
        return Unusable("complex numbers; save a part of them, or the magnitude")
    if array.dtype.kind in "biuf":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return Unusable(f"{array.dtype}, which is neither numbers nor text")


def _dense(matrix: Any) -> NDArray[Any] | Unusable:
    size = int(np.prod(matrix.shape, dtype=np.float64) * matrix.dtype.itemsize)
    if size > named_arrays.LARGEST_DENSE_BYTES:
        return Unusable(f"sparse, and of {size / 2**30:.1f} GiB when written out in full")
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
        return Unusable(_OBJECT)
    if issparse(value):
        return _dense(value)
    if not isinstance(value, np.ndarray):
        return Unusable("an empty struct")
    array = value
    if array.dtype.names is not None:
        return Struct({name: [_from_v5(value) for value in array[name].ravel(order="F")] for name in array.dtype.names})
    if array.dtype.kind == "O":
        return Cell([_from_v5(entry) for entry in array.ravel(order="F")], array.shape)
    if array.dtype.kind == "U":
        return np.char.rstrip(array) if array.size > 1 else array
    return _numbers(array)


# ------------------------------------------------------------------------------------------------------------ version 7.3


def _read_hdf5(path: Path) -> dict[str, Any]:
    check_hdf5(path, once=True)
    with h5py.File(path, "r") as file:
        known: dict[Any, Any] = {}
        return {name: _member(file, name, known, 0) for name in file if not name.startswith("#")}


def _member(group: Any, name: str, known: dict[Any, Any], depth: int) -> Any:
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink) and not trust().allow_external:
        return Unusable("a link to another file")
    try:
        item = group[name]
    except (KeyError, OSError, RuntimeError):
        return Unusable("a link that leads nowhere")
    return _once(item, group.file, known, depth)


def _once(item: Any, file: Any, known: dict[Any, Any], depth: int) -> Any:
    """What `item` holds; each object is read once, whatever the number of its names. `file` is what leads to it."""
    if item.file != file and not trust().allow_external:
        # by way of a soft link to a link to another file
        return Unusable("a link to another file")
    info = h5py.h5o.get_info(item.id)
    identity = info.fileno, info.addr
    if identity not in known:
        known[identity] = Unusable("a link back to what holds it")
        known[identity] = _from_hdf5(item, known, depth)
    return known[identity]


def _from_hdf5(item: Any, known: dict[Any, Any], depth: int) -> Any:
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if depth > DEEPEST:
        return Unusable(f"more than {DEEPEST} deep")
    if "MATLAB_object_decode" in item.attrs or kind in ("function_handle", "opaque"):
        return Unusable(_OBJECT)
    if isinstance(item, h5py.Group):
        return _sparse(item) if "MATLAB_sparse" in item.attrs else _struct(item, known, depth)
    if (item.external is not None or item.is_virtual) and not trust().allow_external:
        return Unusable("numbers that lie in another file")
    if item.attrs.get("MATLAB_empty", 0):
        return _empty(item, kind)
    if h5py.check_ref_dtype(item.dtype) is not None:
        references = np.asarray(item[()]).ravel()
        entries = [_once(item.file[reference], item.file, known, depth + 1) for reference in references]
        return Cell(entries, item.shape[::-1]) if kind == "cell" else entries  # a field of a struct array
    # MATLAB writes its last axis first
    array = np.asarray(item[()]).T
    if kind == "char" or array.dtype.kind in "SO":
        return _texts(array, kind)
    return _numbers(array.astype(bool) if kind == "logical" else array)


def _struct(group: Any, known: dict[Any, Any], depth: int) -> Struct:
    fields = {name: _member(group, name, known, depth + 1) for name in group}
    if fields and all(isinstance(value, list) for value in fields.values()):
        return Struct(fields)
    return Struct({name: [value] for name, value in fields.items()})


def _empty(item: Any, kind: str) -> Any:
    """An empty array, of which MATLAB stores the shape."""
    if kind == "char":
        return np.array([], dtype=str)
    return Cell([], (0,)) if kind == "cell" else np.zeros(tuple(int(size) for size in np.atleast_1d(item[()])))


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
