"""MATLAB's ``.mat`` files of every version as plain arrays, with its own order of axes; nothing in them is ever run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.exceptions import ComplexWarning
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque
from scipy.sparse import csc_matrix, issparse

from neuromas.recordings.convert import take
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.convert.take import Arrays

_DEEPEST = 16  # structs within structs


@dataclass(frozen=True)
class _Struct:
    """``fields[name]`` lists the value of each element."""

    fields: dict[str, list[Any]]


@dataclass(frozen=True)
class _Cell:
    entries: list[Any]
    """In MATLAB's order, whatever the shape."""


@dataclass(frozen=True)
class _Unusable:
    reason: str


def read_mat(path: Path) -> Arrays:
    """Every array of a ``.mat`` file: numbers, logicals, text; fields of structs as ``struct.field``.

    A field of a struct array with one number or text per element is an array of these, and so is such a cell array.

    Raises
    ------
    InvalidInput
        The file is no ``.mat`` file, or is damaged.
    """
    try:
        values = _read_hdf5(path) if h5py.is_hdf5(path) else _read_v5(path)
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a .mat file", error) from error
    found = Arrays({}, str(path), vectors=True)
    for name, value in values.items():
        _spread(name, value, found, 0)
    return found


def _spread(name: str, value: Any, found: Arrays, depth: int) -> None:
    """Put what `value` holds into `found`, structs by field."""
    if isinstance(value, _Struct) and depth < _DEEPEST:
        for label, entries in value.fields.items():
            one = entries[0] if len(entries) == 1 else _Cell(entries)
            _spread(f"{name}.{label}", one, found, depth + 1)
        return
    if isinstance(value, _Struct):
        value = _Unusable(f"structs within structs, more than {_DEEPEST} deep")
    if isinstance(value, _Cell):
        value = _joined(value)
    if isinstance(value, _Unusable):
        found.unusable[name] = value.reason
    else:
        found.arrays[name] = value


def _joined(cell: _Cell) -> NDArray[Any] | _Unusable:
    """A cell array of one number or text each as an array."""
    plain: list[Any] = []
    for one in cell.entries:
        if not isinstance(one, np.ndarray) or one.size > 1 or (one.size == 0 and one.dtype.kind != "U"):
            what = "other things" if not isinstance(one, np.ndarray) else f"an array of shape {one.shape}"
            return _Unusable(f"a cell or struct array of {what}; expected one number or text in each")
        plain.append(one.item() if one.size else "")
    if len({isinstance(one, str) for one in plain}) > 1:
        return _Unusable("a cell or struct array of both numbers and text")
    return np.array(plain)


def _numbers(array: NDArray[Any]) -> NDArray[Any] | _Unusable:
    if array.dtype.kind == "c":
        return _Unusable("complex numbers; take a part or the magnitude before it is saved")
    if array.dtype.kind in "biuf":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return _Unusable(f"{array.dtype}, which is neither numbers nor text")


def _dense(matrix: Any) -> NDArray[Any] | _Unusable:
    size = int(np.prod(matrix.shape, dtype=np.float64) * matrix.dtype.itemsize)
    if size > take.LARGEST_DENSE_BYTES:
        return _Unusable(f"sparse, and of {size / 2**30:.1f} GiB when written out in full")
    return _numbers(matrix.toarray())


# ------------------------------------------------------------------------------------------------------- up to version 7


def _read_v5(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two variables of one name, the last counts, as in MATLAB
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


def _from_v5(value: Any) -> Any:
    if isinstance(value, MatlabOpaque | MatlabObject | MatlabFunction):
        return _Unusable("an object of MATLAB's (table, string, datetime, function, class); save plain arrays instead")
    if issparse(value):
        return _dense(value)
    if not isinstance(value, np.ndarray):
        return _Unusable("an empty struct")
    array = value
    if array.dtype.names is not None:
        return _Struct({name: [_from_v5(one) for one in array[name].ravel(order="F")] for name in array.dtype.names})
    if array.dtype.kind == "O":
        return _Cell([_from_v5(one) for one in array.ravel(order="F")])
    if array.dtype.kind == "U":
        return np.char.rstrip(array) if array.size > 1 else array
    return _numbers(array)


# ------------------------------------------------------------------------------------------------------------ version 7.3


def _read_hdf5(path: Path) -> dict[str, Any]:
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
        return _Unusable("an object of MATLAB's (table, string, datetime, function, class); save plain arrays instead")
    if isinstance(item, h5py.Group):
        if "MATLAB_sparse" in item.attrs:
            return _sparse(item)
        fields = {name: _member(item, name, file, depth + 1) for name in item}
        lists = [one for one in fields.values() if isinstance(one, list)]
        if lists and len(lists) == len(fields):
            return _Struct(fields)
        return _Struct({name: [one] for name, one in fields.items()})
    if item.external is not None or item.is_virtual:
        return _Unusable("numbers that lie in another file")
    if item.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(size) for size in np.atleast_1d(item[()]))
        if kind == "char":
            return np.array([], dtype=str)
        return _Cell([]) if kind == "cell" else np.zeros(shape)
    array = item[()]
    if h5py.check_ref_dtype(item.dtype) is not None:
        entries = [_from_hdf5(file[reference], file, depth + 1) for reference in np.asarray(array).ravel()]
        return _Cell(entries) if kind == "cell" else entries  # a field of a struct array
    array = np.asarray(array).T  # MATLAB writes its last axis first
    if kind == "char":
        rows = np.atleast_2d(array).astype("<u2")
        texts = [row.tobytes().decode("utf-16-le", "replace") for row in rows]
        return np.array(texts if len(texts) == 1 else [text.rstrip() for text in texts], dtype=str)
    if array.dtype.kind in "SO":
        return np.array([one.decode() if isinstance(one, bytes) else str(one) for one in array.ravel()], dtype=str)
    return _numbers(array.astype(bool) if kind == "logical" else array)


def _sparse(group: Any) -> Any:
    n_rows = int(np.ravel(group.attrs["MATLAB_sparse"])[0])
    starts = group["jc"][()].astype(np.int64)
    data = group["data"][()] if "data" in group else np.zeros(0)
    rows = group["ir"][()].astype(np.int64) if "ir" in group else np.zeros(0, dtype=np.int64)
    return _dense(csc_matrix((data, rows, starts), shape=(n_rows, len(starts) - 1)))
