"""Folders of suite2p: fluorescence or deconvolved activity of regions of interest, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.files import sha256_file
from neuromas.recordings.convert.beside import beside, contents_of, files_in, follow, need_array
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import Events, check_size, take_events
from neuromas.recordings.convert.locked import Binned, in_time_order, recording_of
from neuromas.recordings.convert.samples import Clock, check_rising, means
from neuromas.recordings.convert.source import name_of, need_variables
from neuromas.recordings.convert.spikes import event_table, read_columns, units_beside, units_of_table
from neuromas.recordings.convert.units import by_activity, metadata_columns, not_selected, select_units
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import Suite2pRecipe

_OF_ROIS = ("iscell", "redcell")
"""Arrays that say of each region whether it is something, and how probable that is."""


def convert_suite2p(path: Path, recipe: Suite2pRecipe, fields: Mapping[str, Any]) -> Recording:
    """Activity about events, from a folder of suite2p. Units are called by the numbers of their regions of interest."""
    folder = _plane(path, recipe.plane)
    files = {file.stem: file for file in files_in(folder, ["*.npy"])}
    data = _traces(files, recipe.source, folder)
    n_units, n_frames = data.shape
    names = [str(number) for number in range(n_units)]
    own = units_of_table(units_beside(path, recipe), names, recipe)
    regions, read = _regions(files, n_units)
    metadata = {**regions, **own.columns}
    columns = {**metadata, "unit": np.array(names)}
    rows = select_units(columns, recipe, n_units, str(path))
    events = event_table({}, recipe, path)
    need_variables(recipe, list(events.columns), events.where)
    trials = take_events(in_time_order(events.columns, recipe.align, events.where), recipe, events.where)
    check_size(len(trials.rows), recipe.n_steps, len(rows), events.where)
    clock, notes = _clock(path, recipe, n_frames)
    activity = _means(data, rows, clock, trials)
    if recipe.neuropil is not None:
        around = _traces(files, "Fneu", folder)
        if around.shape != data.shape:
            raise InvalidInput(
                f"{folder}: Fneu.npy has shape {around.shape}, but F.npy has {data.shape}", kind="shape_mismatch"
            )
        activity -= recipe.neuropil * _means(around, rows, clock, trials)
        read.append("Fneu")
    binned = Binned(
        activity.astype(np.float32),
        [names[row] for row in rows.tolist()],
        unit_metadata={name: values[rows] for name, values in metadata_columns(metadata, recipe, str(path)).items()},
        span=f"frames lie between {clock.first:g} and {clock.last:g} s",
        left_out=not_selected(n_units - len(rows)),
    )
    return recording_of(
        trials,
        by_activity(binned, {name: values[rows] for name, values in columns.items()}, recipe, str(path)),
        recipe,
        fields,
        defaults={"name": name_of(path), "layer": recipe.source},
        where=str(path),
        path=path,
        notes=[*events.notes, *own.notes, *notes],
        files=[files[name] for name in (recipe.source, *read)],
    )


def _plane(path: Path, name: str | None) -> Path:
    """The folder of traces: `path`, or the plane called `name` in it, by default its only one."""
    planes = {file.parent.name: file.parent for file in sorted(path.glob("*/F.npy"))}
    if name is None and ((path / "F.npy").exists() or (path / "spks.npy").exists()):
        return path
    if name is None and len(planes) == 1:
        (name,) = planes
    if name is None or name not in planes:
        held = f"it holds {', '.join(planes)}; name one in the recipe (plane)" if planes else "it has no F.npy"
        what = "expected a folder of suite2p" if name is None else f"no plane {name!r}"
        raise InvalidInput(f"{path}: {what}; {held}", kind="invalid_recipe")
    return follow(planes[name], path, [path.resolve().parent])


def _traces(files: dict[str, Path], name: str, path: Path) -> NDArray[Any]:
    """An array of shape (n_regions, n_frames), left on disk."""
    data = need_array(files, name, path)
    if data.ndim != 2 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InvalidInput(
            f"{files[name]}: expected numbers of shape (region, frame), got {data.dtype} of shape {data.shape}",
            kind="shape_mismatch",
        )
    return data


def _regions(files: dict[str, Path], n_units: int) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Columns that describe the regions, and the arrays that hold them."""
    columns: dict[str, NDArray[Any]] = {}
    names = [name for name in _OF_ROIS if name in files]
    for name in names:
        values = need_array(files, name, files[name].parent)
        if values.shape not in ((n_units,), (n_units, 1), (n_units, 2)) or values.dtype.kind not in "biuf":
            raise InvalidInput(
                f"{files[name]}: expected shape ({n_units}, 2), a row for each region, got {values.dtype} of shape "
                f"{values.shape}",
                kind="unit_mismatch",
            )
        table = np.array(values).reshape(n_units, -1)
        columns[name] = table[:, 0] != 0
        if table.shape[1] == 2:
            columns[f"{name}_probability"] = table[:, 1].astype(np.float64)
    return columns, names


def _clock(path: Path, recipe: Suite2pRecipe, n_frames: int) -> tuple[Clock, list[str]]:
    """Times of the frames, and a note if a file holds them."""
    if recipe.frame_times is None:
        if recipe.fs is None:
            raise InvalidInput(
                f"{path}: expected fs, the frames per second of this plane, or frame_times; suite2p keeps fs in ops.npy, which "
                "is a pickle and is not opened (in Python: ops['fs'])",
                kind="invalid_times",
            )
        return Clock(n_frames, recipe.first_frame_s, recipe.fs, None, str(path)), []
    file = beside(path, recipe.frame_times, "frame_times")
    times = next(iter(read_columns(file).values()), np.empty(0))
    if times.size != n_frames or times.dtype.kind not in "iuf":
        raise InvalidInput(
            f"{file}: expected the times of {n_frames} frames in seconds, got {times.dtype} of shape {times.shape}",
            kind="sample_mismatch",
        )
    times = times.astype(np.float64)
    check_rising(times, 0, str(file))
    note = f"frame_times {recipe.frame_times} (sha256 {sha256_file(file)})"
    return Clock(n_frames, 0.0, None, times, str(file)), [note]


def _means(data: NDArray[Any], rows: NDArray[np.int64], clock: Clock, trials: Events) -> NDArray[np.float64]:
    """Means of regions `rows` in each bin, shape (n_trials, n_steps, n_selected)."""
    frames = data.T
    return np.stack([means(frames, rows, clock.samples_at(edges)) for edges in trials.edges])


def contents_suite2p(path: Path) -> list[tuple[str, str]]:
    """Arrays of the folder; pickles are listed and not opened."""
    return [
        (f"{folder.name}/{name}" if folder != path else name, which)
        for folder in (path, *(file.parent for file in sorted(path.glob("*/F.npy"))))
        for name, which in contents_of(folder)
    ]


CONVERTERS: tuple[Converter, ...] = (
    Converter(
        "suite2p",
        (),
        Suite2pRecipe,
        convert_suite2p,
        contents_suite2p,
        holds=("F.npy", "spks.npy", "plane0/F.npy", "combined/F.npy"),
    ),
)
