"""A recording as one file, for other programs and to be registered again: ``.npz``, ``.nc`` or ``.csv``.

Stores hold recordings as zarr groups; this is how a few samples, or a whole recording, leave a store.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.recordings.encode import SAMPLE_PREFIX, UNIT_PREFIX, labelled
from neuromas.recordings.recording import Recording

ENDINGS = (".npz", ".nc", ".csv")
"""What `export` can write; the first two can be registered."""

_NUMBER = "number"  # a coordinate named after its dimension cannot stand in an archive of arrays


def check_ending(path: str | Path, endings: tuple[str, ...] = ENDINGS) -> Path:
    """`path`, if it ends as one of `endings`.

    Raises
    ------
    InvalidInput
        It does not.
    """
    if Path(path).suffix not in endings:
        raise InvalidInput(
            f"{path}: expected a file that ends in {', '.join(endings[:-1])} or {endings[-1]}", kind="unknown_format"
        )
    return Path(path)


def export(recording: Recording, path: str | Path, *, samples: NDArray[np.int64] | None = None) -> Path:
    """Write `recording` to one file, whole or not at all.

    Parameters
    ----------
    recording : Recording
        Of the samples and units to write, in the order to write them.
    path : path-like
        ``.npz`` and ``.nc`` hold everything and open again with `Recording.from_file`; ``.csv`` has one row per sample,
        values as their meanings, then one column per unit, empty where it was not recorded.
    samples : ndarray of int64 of shape (n_samples,), optional
        Numbers of the samples in the recording they were taken from, to be written with them.

    Returns
    -------
    Path

    Raises
    ------
    InvalidInput
        Another ending.
    StorageFailed
        The disk refused; what stood at `path` still does.

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
        write_atomically(path, _table(recording).to_csv(index=False, lineterminator="\n"))
    else:
        write_atomically(path, _netcdf(recording))
    return path


def _arrays(recording: Recording) -> dict[str, Any]:
    """Keys as `Recording.from_npz` documents them."""
    dataset, manifest = recording.dataset, recording.manifest
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


def _table(recording: Recording) -> pd.DataFrame:
    dataset = recording.dataset
    columns: dict[str, Any] = {}
    if dims.SAMPLE in dataset.coords:
        columns[dims.SAMPLE] = dataset[dims.SAMPLE].values
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if coordinate.dims == (dims.SAMPLE,) and name != dims.SAMPLE:
            columns[name] = readable(recording, name)
    if recording.time_s is not None:
        columns.setdefault(dims.TIME_S, recording.time_s)
    activity = dataset[dims.ACTIVITY].values
    activity = activity.astype(np.float32) if activity.dtype == np.float16 else activity  # pandas has no text for it
    columns |= {name: activity[:, column] for column, name in enumerate(recording.unit_names)}
    return pd.DataFrame(columns)


def readable(recording: Recording, coordinate: str) -> NDArray[Any]:
    """Values of a coordinate on sample as people read them: meanings of categorical variables, words of tokens.

    Returns
    -------
    ndarray of shape (n_samples,)
    """
    values = np.asarray(recording.dataset[coordinate].values)
    if coordinate in recording.variable_names:
        spec = recording.spec(coordinate)
        if spec.type == "categorical":
            return np.array([spec.label(float(value)) for value in values], dtype=object)
    elif coordinate == dims.TOKEN and recording.manifest.vocabulary is not None:
        return np.array(recording.manifest.vocabulary, dtype=object)[values]
    return values


def _netcdf(recording: Recording) -> memoryview:
    """Built in memory: HDF5 may crash when the disk that it writes to is full."""
    dataset = recording.dataset
    if dataset[dims.ACTIVITY].dtype == np.float16:  # NetCDF has none
        dataset = dataset.assign({dims.ACTIVITY: dataset[dims.ACTIVITY].astype(np.float32)})
    return dataset.to_netcdf(engine="h5netcdf")
