"""Arrays that a person hands in, as plain NumPy arrays: nothing that they say of themselves is lost.

NumPy's own conversion drops the mask of a masked array, the names of xarray's dimensions and of a table's columns, and what
pandas counts as missing; it reads ``["a", nan]`` as the text ``nan``, and fails on some tensors.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.unpacking import check_unpacked

LARGEST_CODE_POINT = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_EXACT = 2**53  # whole numbers that stay distinct as floats
TIME = "time"
"""Another name of the dimension step, as xarray's users have it."""
_SMALL_FLOATS = ("bfloat16", "float8")  # types of other libraries; float32 holds them exactly


def array_of(values: Any) -> NDArray[Any]:
    """Numbers, booleans or text; a masked array if entries are missing.

    Parameters
    ----------
    values : array-like
        Arrays of NumPy, masked or not; series and tables of pandas, arrays of xarray, tensors of PyTorch, sparse matrices, lists.
        None, NaN beside text, ``pd.NA`` and ``pd.NaT`` are missing; NaN among floats stays NaN.

    Returns
    -------
    ndarray, or MaskedArray where an entry is missing
        Bytes are decoded as UTF-8.

    Raises
    ------
    InvalidInput
        The values are dates, bytes in another encoding, rows of different lengths or anything else that is neither numbers nor
        text. The message is a noun phrase that follows the name of the array.

    Examples
    --------
    >>> array_of(np.ma.masked_equal([1, -999], -999)).mask.tolist(), array_of(["a", None]).mask.tolist()
    ([False, True], [False, True])
    >>> array_of([np.datetime64("2020-01-01")])
    Traceback (most recent call last):
    neuromas.errors.InvalidInput: dates, which are no values; give numbers, such as seconds or days, or text
    """
    array = _raw(values)
    if np.ma.isMaskedArray(array):
        mask = np.ma.getmaskarray(array)
        plain = _settled(np.ma.getdata(array), mask)
        absent = mask | np.ma.getmaskarray(plain)
    else:
        plain = _settled(array, None)
        absent = np.ma.getmaskarray(plain)
    data = np.ma.getdata(plain)
    return np.ma.masked_array(data, absent) if absent.any() else data


def filled(array: NDArray[Any]) -> NDArray[Any]:
    """`array` with NaN or empty text in place of missing entries; then whole numbers and booleans become floats.

    Raises
    ------
    InvalidInput
        Whole numbers beside missing entries are too large for floats.

    Examples
    --------
    >>> filled(np.ma.masked_array([1, 2], [False, True])), filled(np.ma.masked_array(["a", "b"], [True, False]))
    (array([ 1., nan]), array(['', 'b'], dtype='<U1'))
    """
    if not np.ma.isMaskedArray(array):
        return array
    values, absent = np.ma.getdata(array).copy(), np.ma.getmaskarray(array)
    if values.dtype.kind == "U":
        values[absent] = ""
        return values
    present = values[~absent]
    if values.dtype.kind in "iu" and present.size and max(-int(present.min()), int(present.max())) > _EXACT:
        raise _unusable(
            "whole numbers beyond ±2^53 beside missing entries, which floats cannot hold; give them as text"
        )
    if values.dtype.kind in "biu":
        values = values.astype(np.float64)
    values[absent] = np.nan
    return values


def missing_in(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which entries `array_of` found missing."""
    return np.ma.getmaskarray(array)


# ------------------------------------------------------------------------------------------------------- names of axes


def axis_names(values: Any) -> tuple[str, ...] | None:
    """What xarray calls the axes of `values`, ``time`` as ``step``; None if they have no names of their own.

    Examples
    --------
    >>> axis_names(xr.DataArray(np.zeros((2, 3)), dims=("trial", "time"))), axis_names(np.zeros(3))
    (('trial', 'step'), None)
    """
    if not isinstance(values, xr.DataArray):
        return None
    names = tuple(dims.STEP if name == TIME else str(name) for name in values.dims)
    return None if all(name == f"dim_{axis}" for axis, name in enumerate(names)) else names


def by_trial(values: Any) -> Any:
    """`values` with the axes (trial, step), if xarray names them so in another order; anything else as it is."""
    names = axis_names(values)
    return values.transpose() if names == (dims.STEP, dims.TRIAL) else values


CANONICAL = {3: (dims.TRIAL, dims.STEP, dims.UNIT), 2: (dims.SAMPLE, dims.UNIT)}
"""Axes of activity in their order, by their number."""


def activity_axes(names: Sequence[str]) -> tuple[str, ...]:
    """What the named axes of activity are; a single name that means nothing here stands for the axis that is left.

    Raises
    ------
    InvalidInput
        The names do not tell trials, steps and units apart.

    Examples
    --------
    >>> activity_axes(("neuron", "trial", "step")), activity_axes(("trial", "neuron"))
    (('unit', 'trial', 'step'), ('trial', 'unit'))
    """
    known = {name for name in names if name in {*CANONICAL[3], dims.SAMPLE}}
    whole = CANONICAL[2] if dims.SAMPLE in known or (known == {dims.UNIT} and len(names) == 2) else CANONICAL[3]
    left = [dims.UNIT] if len(names) == 2 and dims.UNIT not in known else [name for name in whole if name not in known]
    n_unknown = len(names) - len(known)
    if not known <= set(whole) or n_unknown > 1 or (n_unknown and len(left) != 1):
        raise _unusable(
            f"its axes are called {', '.join(map(repr, names))}; expected trial, step (or time) and unit, or sample and unit: "
            "rename them"
        )
    return tuple(name if name in known else left[0] for name in names)


def in_order(array: NDArray[Any], axes: tuple[str, ...]) -> NDArray[Any]:
    """Activity of shape (n_trials, n_steps, n_units) or (n_samples, n_units); a missing axis has length 1.

    Examples
    --------
    >>> in_order(np.zeros((7, 5)), ("unit", "trial")).shape
    (5, 1, 7)
    """
    if len(axes) == 1:
        array = array.ravel()
    array = array.reshape(array.shape + (1,) * (len(axes) - array.ndim))
    canonical = CANONICAL[2] if dims.SAMPLE in axes else CANONICAL[3]
    sizes: dict[str, int] = dict(zip(axes, array.shape, strict=True))
    array = array.transpose([axes.index(axis) for axis in canonical if axis in axes])
    return array.reshape([sizes.get(axis, 1) for axis in canonical])


def labels_of(activity: Any) -> dict[str, Any]:
    """What activity itself says of its axes: names of the units, numbers of trials and steps, and ``time``.

    Returns
    -------
    dict of str to array
        ``unit`` from the columns of a table, or from labels along xarray's axis of units; ``trial`` and ``step`` from whole
        numbers along xarray's axes, or in a table's index; ``time`` from xarray's numbers along steps.

    Examples
    --------
    >>> labels_of(pd.DataFrame({"cell 7": [0.1], "cell 9": [0.2]})), labels_of(np.zeros((1, 2)))
    ({'unit': ['cell 7', 'cell 9']}, {})
    """
    if isinstance(activity, pd.DataFrame):
        return _labels_of_table(activity)
    names = axis_names(activity)
    if names is None:
        return {}
    try:
        axes = activity_axes(names)
    except InvalidInput:
        return {}
    own: dict[str, Any] = {}
    for axis, name in zip(axes, activity.dims, strict=True):
        if name not in activity.coords:
            continue
        labels = activity.coords[name]
        if axis == dims.UNIT:
            own[axis] = [str(label) for label in labels.values.tolist()]
        elif axis in (dims.TRIAL, dims.STEP) and name != TIME and labels.dtype.kind in "iu":
            own[axis] = labels.values
    for name in (dims.TRIAL, dims.STEP, TIME):
        labels = activity.coords.get(name)
        along = dims.STEP if name == TIME else name
        if labels is not None and labels.dtype.kind in "iuf" and axis_names(labels) in ((along,), (dims.SAMPLE,)):
            own.setdefault(name, labels)
    return own


def _labels_of_table(table: pd.DataFrame) -> dict[str, Any]:
    columns = table.columns
    own: dict[str, Any] = {}
    if not (isinstance(columns, pd.RangeIndex) and columns.equals(pd.RangeIndex(len(columns)))):
        own[dims.UNIT] = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in columns]
    for name in (dims.TRIAL, dims.STEP):
        if name in table.index.names:
            own[name] = np.asarray(table.index.get_level_values(name))
    return own


# ------------------------------------------------------------------------------------------------------- values


def _raw(values: Any) -> NDArray[Any]:
    """`values` as an array of any kind, perhaps masked."""
    if isinstance(values, (list, tuple)):
        return _listed(values)
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        return _of_tensor(values)
    if isinstance(values, np.ndarray):
        return values
    lazy = values.data if hasattr(values, "dims") else values
    if hasattr(lazy, "dask") and hasattr(lazy, "compute"):
        # dask's blocks may be masked, which NumPy's conversion of the whole drops
        return _raw(lazy.compute())
    if isinstance(values, pd.DataFrame):
        return _of_table(values)
    if hasattr(values, "isna") and pd.api.types.is_extension_array_dtype(getattr(values, "dtype", None)):
        # as objects: pandas's own numbers become floats otherwise, missing ones NaN
        return np.asarray(values, dtype=object)
    if hasattr(values, "toarray"):
        return np.asarray(values.toarray())
    try:
        return np.asarray(values)
    except Exception as error:  # whatever a foreign object raises when it is made an array
        raise _unusable(f"a {type(values).__name__} that cannot be made an array: {_first_line(error)}") from error


def _listed(values: Sequence[Any]) -> NDArray[Any]:
    """A list, whose entries may be masked, tensors, or text beside NaN."""
    if _hold_masks(values):
        return _joined([array_of(value) for value in values], np.ma.stack)
    if any(hasattr(value, "detach") for value in values):
        return _joined([array_of(value) for value in values], np.stack)
    try:
        array = np.asarray(values)
    except Exception as error:  # rows of different lengths, and whatever entries raise
        raise _unusable(f"a list that cannot be made an array: {_first_line(error)}") from error
    if array.dtype.kind != "U":
        return array
    # NumPy turns NaN beside text into the text "nan"
    objects = np.empty(array.shape, dtype=object)
    objects[...] = values
    return objects if any(not isinstance(entry, str) for entry in objects.ravel().tolist()) else array


def _hold_masks(values: Sequence[Any]) -> bool:
    """Whether entries, or entries of lists in the list, are arrays that may be masked."""
    return any(
        isinstance(value, np.ma.MaskedArray)
        or hasattr(value, "dask")
        or (isinstance(value, (list, tuple)) and _hold_masks(value))
        for value in values
    )


def _joined(arrays: list[NDArray[Any]], stack: Any) -> NDArray[Any]:
    if len({array.shape for array in arrays}) > 1:
        raise _unusable(
            f"a list of arrays of different shapes: {', '.join(str(array.shape) for array in arrays[:3])}, …"
        )
    return stack(arrays)


def _of_tensor(tensor: Any) -> NDArray[Any]:
    """A tensor of PyTorch, on any device; bfloat16 and smaller types as float32, which holds them exactly."""
    try:
        tensor = tensor.detach().cpu()
        if getattr(tensor, "is_quantized", False):
            tensor = tensor.dequantize()
        tensor = tensor.to_dense() if str(getattr(tensor, "layout", "")) != "torch.strided" else tensor
        tensor = tensor.float() if any(name in str(tensor.dtype) for name in _SMALL_FLOATS) else tensor
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except (TypeError, RuntimeError, AttributeError) as error:
        raise _unusable(f"a tensor that cannot be made an array: {_first_line(error)}") from error


def _of_table(table: pd.DataFrame) -> NDArray[Any]:
    """A table; pandas's own numbers with missing entries as floats with NaN."""
    array = np.asarray(table)
    if array.dtype.kind != "O" or not all(pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes):
        return array
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def _settled(array: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Numbers, booleans or text of any kind of array; masked entries, which may be anything, are not looked at."""
    kind = array.dtype.kind
    if kind in "biufc":
        return array
    if kind == "U":
        _check_unicode(array if mask is None else np.where(mask, "", array))
        return array
    if kind == "S":
        return _decoded(array if mask is None else np.where(mask, b"", array))
    if kind in "OT":
        objects = np.array(array, dtype=object)
        if mask is not None:
            objects[mask] = None
        return _of_objects(objects)
    if kind == "V" and array.dtype.names is None and array.dtype.name.startswith(_SMALL_FLOATS):
        return array.astype(np.float32)
    raise _unusable(_UNUSABLE.get(kind, f"{array.dtype}, which is neither numbers nor text"))


_DATES = "dates, which are no values; give numbers, such as seconds or days, or text"
_SPANS = "spans of time, which are no values; divide them, e.g. by np.timedelta64(1, 's')"
_UNUSABLE = {
    "M": _DATES,
    "m": _SPANS,
    "V": "a structured array; give an array for each of its fields",
}


def _of_objects(array: NDArray[Any]) -> NDArray[Any]:
    """Python's objects as numbers, booleans or text; masked where one is missing."""
    entries = [_text_of(entry) if isinstance(entry, bytes) else entry for entry in array.ravel().tolist()]
    absent = np.array([is_missing(entry) for entry in entries], dtype=bool)
    present = [entry for entry, missing in zip(entries, absent, strict=True) if not missing]
    kinds = {_kind_of(entry) for entry in present}
    for unusable in (_DATES, _SPANS):
        if unusable in kinds:
            raise _unusable(unusable)
    strange = kinds - {"text", "numbers", "booleans"}
    if strange:
        raise _unusable(f"objects that are neither numbers nor text, such as {min(strange)}")
    if "text" in kinds:
        _check_mixed(present)
        values = _texts(["" if missing else str(entry) for entry, missing in zip(entries, absent, strict=True)])
        _check_unicode(values)
    elif kinds == {"booleans"}:
        values = np.array([False if missing else entry for entry, missing in zip(entries, absent, strict=True)])
    else:
        values = _numbers(entries, absent)
    values = values.reshape(array.shape)
    return np.ma.masked_array(values, absent.reshape(array.shape)) if absent.any() else values


def _check_mixed(entries: list[Any]) -> None:
    """Refuse text beside a number or truth value that would read the same: nobody can say whether they are one value."""
    texts = {entry for entry in entries if isinstance(entry, str)}
    same = next((entry for entry in entries if not isinstance(entry, str) and str(entry) in texts), None)
    if same is not None:
        raise _unusable(
            f"both {same!r} and the text {str(same)!r}, which would become one value; give all as text, or all as numbers"
        )


def _numbers(entries: list[Any], absent: NDArray[np.bool_]) -> NDArray[Any]:
    floating = any(isinstance(entry, (float, np.floating)) for entry in entries) or bool(absent.all())
    stand_in = np.nan if floating else 0
    values = np.array([stand_in if missing else entry for entry, missing in zip(entries, absent, strict=True)])
    if values.dtype.kind in "biufc":
        return values
    raise _unusable("numbers that no array of numbers can hold, such as whole numbers beyond 2^64")


def is_missing(entry: object) -> bool:
    """Whether `entry` stands for a missing one: None, NaN, ``pd.NA``, ``pd.NaT``, or a masked one."""
    is_nan = isinstance(entry, (float, np.floating)) and entry != entry
    return entry is None or entry is pd.NA or entry is pd.NaT or entry is np.ma.masked or is_nan


def _kind_of(entry: object) -> str:
    if isinstance(entry, str):
        return "text"
    if isinstance(entry, (bool, np.bool_)):
        return "booleans"
    if isinstance(entry, (datetime.date, datetime.time, np.datetime64, pd.Period)):
        return _DATES
    if isinstance(entry, (datetime.timedelta, np.timedelta64)):
        return _SPANS
    if isinstance(entry, Number):
        return "numbers"
    return f"a {type(entry).__name__}"


# ------------------------------------------------------------------------------------------------------- text


def _texts(texts: list[str]) -> NDArray[Any]:
    """An array in which every entry is as wide as the longest; InvalidInput if one long text makes it far too large."""
    lengths = [len(text) for text in texts]
    check_unpacked(
        4 * len(texts) * max(lengths), sum(lengths), f"{len(texts):,} texts of up to {max(lengths):,} characters"
    )
    return np.array(texts, dtype=str)


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    # eight bytes for each object on the way
    check_unpacked(8 * array.size + 4 * array.nbytes, array.nbytes, "text")
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise _unusable(_not_utf8(error.object)) from error


def _text_of(entry: bytes) -> str:
    try:
        return entry.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unusable(_not_utf8(entry)) from error


def _not_utf8(entry: bytes) -> str:
    return f"bytes that are not UTF-8, such as {entry[:20]!r}; decode them first, e.g. np.char.decode(x, 'latin-1')"


def _check_unicode(array: NDArray[Any]) -> None:
    """InvalidInput if text holds code points that no file can hold."""
    codes = code_points(array)
    beyond = codes > LARGEST_CODE_POINT
    if beyond.any():
        raise _unusable(
            f"text with a code point of {int(codes[beyond][0]):#x}, which is none of Unicode's: the data are damaged"
        )
    lone = (codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1])
    if lone.any():
        raise _unusable(
            f"text that is not Unicode: the lone surrogate {int(codes[lone][0]):#x} stands for a byte that is not UTF-8"
        )


def code_points(array: NDArray[Any]) -> NDArray[np.uint32]:
    """Every code point in an array of text, in one axis; text need not be valid."""
    if not array.size or not array.dtype.itemsize:
        return np.zeros(0, dtype=np.uint32)
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))


def _unusable(what: str) -> InvalidInput:
    return InvalidInput(what, kind="invalid_array")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
