"""A recording as one file, for other programs or another store: ``.npz``, ``.nc`` or ``.csv``.

All three hold categorical variables and tokens as their meanings, never as codes.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.recordings.encode import SAMPLE_PREFIX, UNIT_PREFIX, labelled
from neuromas.recordings.meanings import readable as as_read
from neuromas.recordings.recording import Recording
from neuromas.text import csv_table

ENDINGS = (".npz", ".nc", ".csv")
"""What `export` can write. The first two can be registered again."""

_NUMBER = "number"
"""Name of the samples' numbers in an archive, where the name of their dimension is not allowed."""


def check_ending(path: str | Path, endings: tuple[str, ...] = ENDINGS) -> Path:
    """`path`, if its ending is one of `endings`.

    Raises
    ------
    InvalidInput
        It has another ending.
    """
    if Path(path).suffix not in endings:
        raise InvalidInput(
            f"{path}: expected a file that ends in {', '.join(endings[:-1])} or {endings[-1]}", kind="invalid_format"
        )
    return Path(path)


def export(recording: Recording, path: str | Path, *, samples: NDArray[np.int64] | None = None) -> Path:
    """Write `recording` to one file. If writing fails, the file at `path` stays as it was.

    Parameters
    ----------
    recording : Recording
        The samples and units to write, in the order to write them.
    path : path-like
        ``.npz`` and ``.nc`` hold everything and can be read again by `Recording.from_file`. ``.csv`` has one row per sample:
        coordinates, then one column per unit, empty where the unit was not recorded. All hold the meanings of categorical
        variables and tokens.
    samples : ndarray of int64 of shape (n_samples,), optional
        Numbers of these samples in the recording that they come from. They are written, too.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InvalidInput
        The ending is unknown.
    StorageFailed
        The file cannot be written. An older file at `path` stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> recording = Recording.from_arrays([[0.1, 0.2]], {"side": ["left"]}, name="toy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(export(recording, f"{folder}/toy.csv").read_text())
    trial,step,side,u0,u1
    0,0,left,0.1,0.2
    <BLANKLINE>
    """
    path = check_ending(path)
    manifest = recording.manifest.model_copy(update={"set": None, "content_sha256": None, "files": {}})
    dataset = labelled(recording.dataset, manifest)
    dataset = dataset if samples is None else dataset.assign_coords({dims.SAMPLE: samples})
    recording = Recording(dataset, manifest)
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **_arrays(recording))
        write_atomically(path, buffer.getvalue())
    elif path.suffix == ".csv":
        write_atomically(path, _csv(recording))
    else:
        write_atomically(path, _netcdf(recording))
    return path


def _arrays(recording: Recording) -> dict[str, Any]:
    """Keys as `Recording.from_npz` documents them."""
    dataset, manifest = recording.to_dataset(), recording.manifest
    arrays: dict[str, Any] = {dims.ACTIVITY: dataset[dims.ACTIVITY].values}
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if name == dims.SAMPLE:
            arrays[SAMPLE_PREFIX + _NUMBER] = coordinate.values
        elif name in (dims.TRIAL, dims.STEP, dims.TOKEN, dims.ELIGIBLE, dims.UNIT) or name in recording.variable_names:
            arrays[name] = coordinate.values
        else:
            arrays[(SAMPLE_PREFIX if coordinate.dims == (dims.SAMPLE,) else UNIT_PREFIX) + name] = coordinate.values
    document = manifest.model_dump(mode="json", exclude={"set", "content_sha256", "files"})
    return arrays | {"manifest": np.array(json.dumps(document))}


def _csv(recording: Recording) -> str:
    if recording.dataset[dims.ACTIVITY].dtype == np.float16:
        # pandas cannot write it as text
        recording = _as_float32(recording)
    return csv_table(recording.to_dataframe(), index=False)


def _netcdf(recording: Recording) -> memoryview:
    """Built in memory, because HDF5 may crash when the disk that it writes to is full."""
    if recording.dataset[dims.ACTIVITY].dtype == np.float16:
        # NetCDF has no such type
        recording = _as_float32(recording)
    return recording.to_dataset().to_netcdf(engine="h5netcdf")


def _as_float32(recording: Recording) -> Recording:
    dataset = recording.dataset
    return Recording(dataset.assign({dims.ACTIVITY: dataset[dims.ACTIVITY].astype(np.float32)}), recording.manifest)


def readable(recording: Recording, coordinate: str) -> NDArray[Any]:
    """Values of a coordinate as people read them: meanings of categorical variables, words of tokens.

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    return np.asarray(as_read(recording.manifest, coordinate, recording.dataset[coordinate].values))
