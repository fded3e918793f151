"""Foreign files, read in a child process. A recording comes back as JSON and raw numbers, and is checked like any other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.child import can_run, run_in_child, unusable
from neuromas.recordings.check import block_bounds
from neuromas.recordings.encode import labelled
from neuromas.recordings.trust import trust, trusting
from neuromas.schema.recording import RecordingManifest
from neuromas.unpacking import largest, largest_now, most_memory

_SECONDS, _BYTES_PER_SECOND = 120.0, 2**20
"""How long a file may take: so long, and so much longer for its size."""
_ALIGNED = 64
_MOST_FILES = 2**20


def isolates(function: Callable[..., Any]) -> bool:
    """Whether `function` is to read files in a child process; one without a name that a child finds cannot."""
    return not trust().in_process and can_run(function)


def read_recordings(
    path: Path, function: Callable[..., Any], *arguments: Any, preload: Sequence[str] = ()
) -> list[tuple[xr.Dataset, RecordingManifest]]:
    """Dataset and manifest of the recordings that `function(*arguments)` makes of the file at `path`, in a child process.

    They are not checked yet: whoever makes recordings of them does.

    Parameters
    ----------
    path : Path
    function : callable
        Gives a recording, or a list of recordings.
    *arguments
    preload : sequence of str
        Modules that the child needs.

    Raises
    ------
    NeuromasError
        As `function` raises it.
    InvalidInput
        The child crashed, or took too long.
    """
    documents, data = _run(path, _write_recordings, function, arguments, preload)
    try:
        return [_recording(document, data) for document in documents]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise unusable(str(path), problem) from problem


def read_recording(
    path: Path, function: Callable[..., Any], *arguments: Any, preload: Sequence[str] = ()
) -> tuple[xr.Dataset, RecordingManifest]:
    """As `read_recordings`, where `function` gives one recording."""
    (recording,) = read_recordings(path, function, *arguments, preload=preload)
    return recording


def read_contents(
    path: Path, function: Callable[..., Any], *arguments: Any, preload: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The (name, description) pairs that `function(*arguments)` gives, in a child process; errors as `read_recording`."""
    pairs, _ = _run(path, _list_contents, function, arguments, preload)
    try:
        return [(str(name), str(description)) for name, description in pairs]
    except (ValueError, TypeError) as problem:
        raise unusable(str(path), problem) from problem


def read_tables(
    path: Path, function: Callable[..., Any], *arguments: Any, preload: Sequence[str] = ()
) -> list[dict[str, NDArray[Any]]]:
    """The tables that `function(*arguments)` gives, columns by name, in a child process; errors as `read_recording`.

    Dates become dates in microseconds. What else is neither numbers nor text becomes a column of void, which nothing uses.
    """
    tables, data = _run(path, _write_tables, function, arguments, preload)
    try:
        return [{str(name): _column(entry, data) for name, entry in table.items()} for table in tables]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise unusable(str(path), problem) from problem


def _run(
    path: Path,
    task: Callable[..., Any],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    preload: Sequence[str],
) -> tuple[Any, memoryview]:
    trusted = trust()
    size = _size(path)
    timeout_s = _SECONDS + size / _BYTES_PER_SECOND if trusted.timeout_s is None else trusted.timeout_s
    return run_in_child(
        str(path),
        task,
        function,
        arguments,
        trusted.allow_external,
        largest_now(),
        preload=preload,
        timeout_s=timeout_s,
        memory=most_memory(size),
        advice="; a file that is really that large is read with a higher largest_gib=, or with in_process=True",
    )


def _size(path: Path) -> int:
    """Bytes in a file, or in the first files of a folder."""
    if not path.is_dir():
        return path.stat().st_size
    files = (entry for entry, _ in zip(path.rglob("*"), range(_MOST_FILES), strict=False))
    return sum(entry.lstat().st_size for entry in files)


# ----------------------------------------------------------------------------------------------------------- in the child


def _write_recordings(
    file: Any, function: Callable[..., Any], arguments: Sequence[Any], allow_external: bool, gib: float | None
) -> Any:
    with trusting(in_process=True, allow_external=allow_external), largest(gib):
        made = function(*arguments)
        return [_write_recording(file, recording) for recording in (made if isinstance(made, list) else [made])]


def _write_recording(file: Any, recording: Any) -> dict[str, Any]:
    variables = {
        str(name): _written(file, variable)
        for name, variable in recording.dataset.variables.items()
        if name != dims.SAMPLE
    }
    return {"manifest": recording.manifest.model_dump(mode="json", exclude_unset=True), "variables": variables}


def _list_contents(
    file: Any, function: Callable[..., Any], arguments: Sequence[Any], allow_external: bool, gib: float | None
) -> Any:
    with trusting(in_process=True, allow_external=allow_external), largest(gib):
        return list(function(*arguments))


def _write_tables(
    file: Any, function: Callable[..., Any], arguments: Sequence[Any], allow_external: bool, gib: float | None
) -> Any:
    with trusting(in_process=True, allow_external=allow_external), largest(gib):
        return [
            {name: _written_column(file, np.asarray(values)) for name, values in table.items()}
            for table in function(*arguments)
        ]


def _written_column(file: Any, values: NDArray[Any]) -> dict[str, Any]:
    if values.dtype.kind == "O":
        try:
            values = values.astype("datetime64[us]")
        except (ValueError, TypeError, OverflowError):
            return {"void": len(values)}
    if values.dtype.kind == "M":
        return {"dates": _written(file, xr.Variable(("row",), values.astype("datetime64[us]").astype(np.int64)))}
    if values.dtype.kind not in "biufU":
        return {"void": len(values)}
    return _written(file, xr.Variable(("row", *range(values.ndim - 1)), values))


def _written(file: Any, variable: xr.Variable) -> dict[str, Any]:
    """Where an array lies in `file`, to which it is written block by block."""
    dtype = variable.dtype.newbyteorder("<")
    start = file.seek(math.ceil(file.tell() / _ALIGNED) * _ALIGNED)
    sample_bytes = dtype.itemsize * math.prod(variable.shape[1:])
    for first, last in block_bounds(variable.shape[0], sample_bytes):
        block = np.ascontiguousarray(variable[first:last].values, dtype=dtype)
        left = block.reshape(-1).view(np.uint8).data
        while left:
            left = left[file.write(left) :]
    attributes = {str(name): np.asarray(value).tolist() for name, value in variable.attrs.items()}
    return {
        "dims": list(variable.dims),
        "dtype": dtype.str,
        "shape": list(variable.shape),
        "start": start,
        "attributes": attributes,
    }


# ------------------------------------------------------------------------------------------------- in the process that asks


def _recording(document: Mapping[str, Any], data: memoryview) -> tuple[xr.Dataset, RecordingManifest]:
    manifest = RecordingManifest.model_validate(document["manifest"])
    variables = {name: _variable(entry, data) for name, entry in document["variables"].items()}
    activity = {dims.ACTIVITY: variables.pop(dims.ACTIVITY)}
    return labelled(xr.Dataset(activity, coords=variables), manifest), manifest


def _column(entry: Mapping[str, Any], data: memoryview) -> NDArray[Any]:
    if "void" in entry:
        return np.zeros(int(entry["void"]), dtype="V1")
    if "dates" in entry:
        return _variable(entry["dates"], data).values.astype("datetime64[us]")
    return _variable(entry, data).values


def _variable(entry: Mapping[str, Any], data: memoryview) -> xr.Variable:
    """An array that a child wrote; ValueError, KeyError or TypeError if its description or its bytes make none."""
    shape = tuple(int(size) for size in entry["shape"])
    if not re.fullmatch(r"[<|][biufU]\d{1,9}", entry["dtype"]) or min(shape, default=0) < 0:
        raise ValueError(f"an array of {entry['dtype']} and shape {shape}")
    dtype = np.dtype(entry["dtype"])
    values = np.frombuffer(data, dtype, math.prod(shape), int(entry["start"])).reshape(shape)
    _check_bytes(values)
    return xr.Variable(tuple(map(str, entry["dims"])), values, dict(entry["attributes"]))


def _check_bytes(values: NDArray[Any]) -> None:
    """ValueError if bytes are no booleans, or no text; every other pattern is a number."""
    if values.dtype.kind == "b" and (values.view(np.uint8) > 1).any():
        raise ValueError("booleans other than 0 and 1")
    if values.dtype.kind == "U" and values.size and (values.reshape(-1).view("<u4") > 0x10FFFF).any():
        raise ValueError("text beyond Unicode")
