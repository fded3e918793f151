"""Samples of a time series of an NWB file, averaged in bins; only the samples of selected trials are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.coverage import Coverage
from neuromas.recordings.convert.events import Events, check_size, within
from neuromas.recordings.convert.locked import Binned
from neuromas.recordings.convert.nwb.columns import read_columns, read_matrices, unit_names
from neuromas.recordings.convert.nwb.file import NwbFile
from neuromas.recordings.convert.nwb.invalid import without_invalid_times
from neuromas.recordings.convert.samples import READ_AT_ONCE, Clock, check_rising, means
from neuromas.recordings.convert.units import by_activity, metadata_columns, select_units
from neuromas.schema.recipe import NwbRecipe


def average_series(file: NwbFile, place: str, recipe: NwbRecipe, events: Events, where: str) -> Binned:
    """Means of the selected channels of the series at `place`, in each bin of each event."""
    series = file.series[place]
    _check_recipe(recipe, where)
    data = file.array(series.data)
    shape = readable_shape(data)
    if shape is None:
        raise InvalidInput(
            f"{where}: expected numbers of shape (time, channel) or (time,), got {describe_series(series, data)}",
            kind="shape_mismatch",
        )
    n_samples, n_channels = shape[0], shape[1] if len(shape) == 2 else 1
    columns, prefix = _channels(series, n_channels, where)
    rows = select_units(_matrices(series) | columns, recipe, n_channels, where)
    clock = _clock(file, series, n_samples, where)
    check_size(len(events.rows), recipe.n_steps, len(rows), where)
    n_trials, n_edges = events.edges.shape
    activity = np.empty((n_trials, n_edges - 1, len(rows)), dtype=np.float32)
    for trial, edges in enumerate(events.edges):
        activity[trial] = _scaled(series, means(data, rows, clock.samples_at(edges)), rows)
    if not isinstance(recipe.coverage, str):
        coverage = Coverage(recipe.coverage, np.empty(0), _matrices(series) | columns, where)
        for column, channel in enumerate(rows.tolist()):
            activity[~within(coverage.intervals_of(channel), events.edges), column] = np.nan
    invalid = without_invalid_times(activity, file, series, recipe, events)
    n_excluded = n_channels - len(rows)
    binned = Binned(
        activity=activity,
        units=unit_names(columns, prefix)[rows].tolist(),
        physical=str(series.unit or "1"),
        unit_metadata={name: values[rows] for name, values in metadata_columns(columns, recipe, where).items()},
        span="; ".join([f"the series has samples from {clock.first:g} to {clock.last:g} s", *invalid]),
        left_out=(*invalid, *([f"{n_excluded} channels not selected"] if n_excluded else [])),
    )
    return by_activity(binned, {name: values[rows] for name, values in columns.items()}, recipe, where)


def _check_recipe(recipe: NwbRecipe, where: str) -> None:
    if recipe.activity == "count":
        raise InvalidInput(
            f"{where}: activity='count' is for spikes; samples of a series are averaged", kind="invalid_recipe"
        )
    if recipe.coverage in ("spikes", "obs_intervals"):
        raise InvalidInput(
            f"{where}: coverage={recipe.coverage!r} is for spikes; bins of a series without samples are missing, and "
            "coverage can be intervals",
            kind="invalid_recipe",
        )


def _scaled(series: Any, values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Stored numbers in the unit of the series."""
    scale: Any = 1.0 if series.conversion is None else float(series.conversion)
    channel = getattr(series, "channel_conversion", None)
    if channel is not None:
        scale = scale * np.asarray(channel[:], dtype=np.float64)[rows]
    return values * scale + (0.0 if series.offset is None else series.offset)


def readable_shape(data: Any) -> tuple[int, ...] | None:
    """The shape of data that can be averaged; None for text, images and data outside the file."""
    shape = getattr(data, "shape", None)
    if shape is None or len(shape) not in (1, 2) or 0 in shape or np.dtype(data.dtype).kind not in "biuf":
        return None
    return tuple(shape)


def describe_series(series: Any, data: Any) -> str:
    """A time series in words: class, shape, clock and unit."""
    shape = getattr(data, "shape", None)
    parts = [type(series).__name__]
    parts.append("no data in the file" if shape is None else f"shape {tuple(map(int, shape))}")
    if series.timestamps is not None:
        parts.append("timestamps")
    elif series.rate is not None:
        parts.append(f"{series.rate:g} Hz from {series.starting_time or 0:g} s")
    parts.append(str(series.unit or "1"))
    if readable_shape(data) is None:
        parts.append("cannot be averaged in bins")
    return ", ".join(parts)


def _channels(series: Any, n_channels: int, where: str) -> tuple[dict[str, NDArray[Any]], str]:
    """Columns that describe the channels, and the word that their names begin with."""
    for attribute, prefix in (("electrodes", "electrode"), ("rois", "roi")):
        region = getattr(series, attribute, None)
        if region is None:
            continue
        rows = np.asarray(region.data[:], dtype=np.int64)
        if len(rows) != n_channels:
            raise InvalidInput(
                f"{where}: {n_channels} channels, but {attribute} names {len(rows)}; expected data of shape (time, channel)",
                kind="unit_mismatch",
            )
        return {name: values[rows] for name, values in read_columns(region.table).items()}, prefix
    return {"id": np.arange(n_channels)}, "channel"


def _matrices(series: Any) -> dict[str, Any]:
    """Columns that describe the channels with several entries per channel."""
    region = getattr(series, "electrodes", None)
    region = getattr(series, "rois", None) if region is None else region
    if region is None:
        return {}
    rows = np.asarray(region.data[:], dtype=np.int64)
    return {name: matrix.of_rows(rows) for name, matrix in read_matrices(region.table).items()}


def _clock(file: NwbFile, series: Any, n_samples: int, where: str) -> Clock:
    if series.timestamps is None:
        if not series.rate:
            raise InvalidInput(
                f"{where}: expected timestamps or a rate, got neither; the times of its samples are unknown",
                kind="invalid_times",
            )
        return Clock(n_samples, float(series.starting_time or 0.0), float(series.rate), None, where)
    timestamps = file.array(series.timestamps)
    if len(timestamps) != n_samples:
        raise InvalidInput(
            f"{where}: {n_samples} samples, but {len(timestamps)} timestamps; expected data of shape (time, channel)",
            kind="sample_mismatch",
        )
    if n_samples <= READ_AT_ONCE:
        timestamps = np.asarray(timestamps[:], dtype=np.float64)
        check_rising(timestamps, 0, where)
    return Clock(n_samples, 0.0, None, timestamps, where)
