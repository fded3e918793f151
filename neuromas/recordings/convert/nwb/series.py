"""Samples of a time series of an NWB file, averaged in bins; only the samples of selected trials are read."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import BLOCK_BYTES
from neuromas.recordings.convert.events import SLACK_S, Events, check_size
from neuromas.recordings.convert.locked import Binned
from neuromas.recordings.convert.nwb.columns import read_columns, unit_names
from neuromas.recordings.convert.nwb.file import NwbFile
from neuromas.recordings.convert.nwb.invalid import without_invalid_times
from neuromas.recordings.convert.units import by_activity, metadata_columns, select_units
from neuromas.schema.recipe import NwbRecipe

_WHOLE = 2**20
"""Up to so many timestamps are read at once; of more, only those that a bisection asks for."""


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
    rows = select_units(columns, recipe, n_channels, where)
    clock = _clock(file, series, n_samples, where)
    check_size(len(events.rows), recipe.n_steps, len(rows), where)
    n_trials, n_edges = events.edges.shape
    activity = np.empty((n_trials, n_edges - 1, len(rows)), dtype=np.float32)
    for trial, edges in enumerate(events.edges):
        activity[trial] = _scaled(series, _means(data, rows, clock.samples_at(edges)), rows)
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
    if recipe.coverage != "auto":
        raise InvalidInput(
            f"{where}: coverage={recipe.coverage!r} is for spikes; bins of a series without samples are missing",
            kind="invalid_recipe",
        )


def _means(data: Any, rows: NDArray[np.int64], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of the stored numbers of channels `rows`, shape (n_steps, n_selected); NaN in a bin without samples.

    Parameters
    ----------
    data : array-like of shape (n_samples, n_channels) or (n_samples,)
    rows : ndarray of shape (n_selected,)
    cuts : ndarray of shape (n_steps + 1,)
        The first sample of each bin, and the first sample after the last bin.
    """
    sums, counts = np.zeros((2, len(cuts) - 1, len(rows)))
    first, last = int(rows.min()), int(rows.max()) + 1
    block = max(1, BLOCK_BYTES // (8 * (last - first)))
    for start in range(int(cuts[0]), int(cuts[-1]), block):
        stop = min(start + block, int(cuts[-1]))
        stored = data[start:stop] if len(data.shape) == 1 else data[start:stop, first:last]
        values = np.asarray(stored, dtype=np.float64).reshape(stop - start, -1)[:, rows - first]
        present = np.isfinite(values)
        values = np.where(present, values, 0.0)
        inside = np.clip(cuts, start, stop) - start
        for step in np.flatnonzero(np.diff(inside)):
            sums[step] += values[inside[step] : inside[step + 1]].sum(axis=0)
            counts[step] += present[inside[step] : inside[step + 1]].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return sums / counts


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


# ------------------------------------------------------------------------------------------------------- sample times


@dataclass(frozen=True)
class _Clock:
    """Times of the samples of a series, in seconds: a start and a rate, or timestamps."""

    n_samples: int
    start: float
    rate: float | None
    timestamps: Any
    where: str

    @property
    def first(self) -> float:
        return self.start if self.rate is not None else float(self.timestamps[0])

    @property
    def last(self) -> float:
        if self.rate is not None:
            return self.start + (self.n_samples - 1) / self.rate
        return float(self.timestamps[self.n_samples - 1])

    def samples_at(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """The first sample at or after each of `edges`."""
        edges = edges - SLACK_S
        if self.rate is not None:
            cuts = np.ceil((edges - self.start) * self.rate)
            return np.clip(cuts, 0, self.n_samples).astype(np.int64)
        first = bisect_left(self.timestamps, edges[0], 0, self.n_samples)
        last = bisect_left(self.timestamps, edges[-1], first, self.n_samples)
        times = np.asarray(self.timestamps[first:last], dtype=np.float64)
        _check_rising(times, first, self.where)
        return first + np.searchsorted(times, edges, side="left").astype(np.int64)


def _check_rising(times: NDArray[np.float64], first: int, where: str) -> None:
    falls = np.flatnonzero(~(np.diff(times) >= 0))  # NaN too
    if falls.size:
        at = int(falls[0]) + 1
        raise InvalidInput(
            f"{where}: its timestamps do not rise: sample {first + at} is at {times[at]:g} s, after {times[at - 1]:g} s",
            kind="invalid_times",
        )


def _clock(file: NwbFile, series: Any, n_samples: int, where: str) -> _Clock:
    if series.timestamps is None:
        if not series.rate:
            raise InvalidInput(
                f"{where}: expected timestamps or a rate, got neither; the times of its samples are unknown",
                kind="invalid_times",
            )
        return _Clock(n_samples, float(series.starting_time or 0.0), float(series.rate), None, where)
    timestamps = file.array(series.timestamps)
    if len(timestamps) != n_samples:
        raise InvalidInput(
            f"{where}: {n_samples} samples, but {len(timestamps)} timestamps; expected data of shape (time, channel)",
            kind="sample_mismatch",
        )
    if n_samples <= _WHOLE:
        timestamps = np.asarray(timestamps[:], dtype=np.float64)
        _check_rising(timestamps, 0, where)
    return _Clock(n_samples, 0.0, None, timestamps, where)
