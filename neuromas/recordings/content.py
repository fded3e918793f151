"""Hashes of what a recording says, however it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.recordings.check import block_bounds
from neuromas.recordings.reading import Reading

if TYPE_CHECKING:
    from hashlib import _Hash as Digest


def content_sha256(recording: Reading, each: dict[str, Digest] | None = None) -> str:
    """Hash of what a recording says: equal for equal activity, coordinates and manifest, however and whenever stored.

    Provenance, the set's name and the list of files do not count. Fields of the manifest that hold their default do not
    count either, so that a field added by a later version leaves the hash as it is.

    Parameters
    ----------
    recording : Recording
    each : dict, optional
        Filled with a hash of each array's bytes, by the array's name.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    document = recording.manifest.model_dump(
        mode="json", exclude_defaults=True, exclude={"provenance", "files", "content_sha256", "set", "format_version"}
    )
    variables = {str(name): variable for name, variable in recording.dataset.variables.items() if name != dims.SAMPLE}
    described = {spec.name for spec in recording.manifest.variables} | {dims.ACTIVITY}
    arrays = [
        [
            name,
            list(variables[name].dims),
            _dtype_name(variables[name].dtype),
            list(variables[name].shape),
            {} if name in described else attributes_as_json(variables[name]),
        ]
        for name in sorted(variables)
    ]
    digest = hashlib.sha256(json.dumps([document, arrays], sort_keys=True).encode())
    for name in sorted(variables):
        blocks: Iterable[NDArray[Any]]
        blocks = (block for _, block in recording.blocks()) if name == dims.ACTIVITY else _pieces(variables[name])
        own = hashlib.sha256()
        for block in blocks:
            data = as_bytes(block)
            digest.update(data)
            if each is not None:
                own.update(data)
        if each is not None:
            each[name] = own
    return digest.hexdigest()


def attributes_as_json(variable: xr.Variable) -> dict[str, Any]:
    """Attributes in a form that JSON can hold, arrays as lists."""
    return {str(key): np.asarray(value).tolist() for key, value in sorted(variable.attrs.items(), key=str)}


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "U" else dtype.newbyteorder("<").str


def _pieces(variable: xr.Variable) -> Iterator[NDArray[Any]]:
    for start, stop in block_bounds(variable.shape[0], variable.dtype.itemsize):
        yield variable[start:stop].values


def as_bytes(block: NDArray[Any]) -> bytes | memoryview:
    """The bytes of `block` that a hash is made of: little-endian numbers, text as JSON."""
    if block.dtype.kind == "U":
        return json.dumps(block.tolist()).encode()
    little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    return little.view(np.uint8).data
