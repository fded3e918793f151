"""NWB files, HDF5 and zarr: spikes or a time series about the rows of an interval table.

What pynwb opens is read lazily: of a time series, only the samples of the trials that are taken, trial by trial. Where a
file does not say that a unit was recorded, its activity is missing, never zero.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NeuromasError, NotFound
from neuromas.files import sha256_bytes, sha256_file
from neuromas.provenance import versions
from neuromas.recordings.check import BLOCK_BYTES, listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import (
    SLACK_S,
    Events,
    bin_spikes,
    check_size,
    sampling_of,
    spanned,
    take_events,
    within,
)
from neuromas.recordings.convert.source import assemble, check_fields, free_names, unreadable
from neuromas.recordings.expression import evaluate_mask
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.recipe import NwbRecipe

_NAME_COLUMNS = ("unit_name", "label", "channel_name")
_WHOLE = 2**20  # so many timestamps are read in one go; of more, only those that a bisection asks for
_LONGEST_TOLD = 100  # characters of a text that goes where a name is expected


# ------------------------------------------------------------------------------------------------------- the file


@dataclass
class _Session:
    """An open NWB file, and what in it is known by which name."""

    path: Path
    file: Any
    manager: Any
    hollow: Mapping[int, Any] = field(default_factory=dict)

    def place(self, container: Any) -> str:
        """Path of `container` in the file, e.g. ``processing/ophys/DfOverF/RoiResponseSeries``."""
        return str(self.manager.get_builder(container).path).removeprefix("root").strip("/")

    def _all(self, *kinds: type) -> dict[str, Any]:
        found: dict[str, Any] = {}
        waiting = [self.file]  # pynwb's own list of everything fails where two parts of a file have the same object_id
        while waiting:
            one = waiting.pop()
            waiting += one.children
            if isinstance(one, kinds):
                found[self.place(one)] = one
        return dict(sorted(found.items()))

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Tables of intervals or events; those below ``intervals`` by name, others by path."""
        import pynwb

        events = getattr(getattr(pynwb, "event", None), "EventsTable", None)  # not in every version
        kinds = (pynwb.epoch.TimeIntervals, *([] if events is None else [events]))
        return {place.removeprefix("intervals/"): one for place, one in self._all(*kinds).items()}

    @cached_property
    def units(self) -> dict[str, Any]:
        """Tables of units that have spike times."""
        from pynwb import misc

        return {place: one for place, one in self._all(misc.Units).items() if "spike_times" in one.colnames}

    @cached_property
    def series(self) -> dict[str, Any]:
        """Time series, readable or not."""
        from pynwb import base

        return self._all(base.TimeSeries)

    def array(self, data: Any) -> Any:
        """What slices of `data` are read from."""
        if not self.hollow or not hasattr(data, "id"):
            return data
        from neuromas.recordings.convert.zarr_as_hdf5 import identity

        return self.hollow.get(identity(data), data)


@contextmanager
def _opened(path: Path) -> Iterator[_Session]:
    """The NWB file at `path`; InvalidInput for whatever is wrong with it, when it is opened or later."""
    from pynwb import NWBHDF5IO

    with ExitStack() as stack:
        # pynwb warns of cached namespaces, and of flaws in parts of the file; what is taken is checked here
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if path.is_dir():
                from neuromas.recordings.convert.zarr_as_hdf5 import zarr_as_hdf5

                stored, hollow = zarr_as_hdf5(path)
                stack.callback(stored.close)
                io = NWBHDF5IO(file=stored, mode="r", load_namespaces=True)
            else:
                hollow = {}
                io = NWBHDF5IO(str(path), "r", load_namespaces=True)
                stack.callback(io.close)
            session = _Session(path, io.read(), io.manager, hollow)
        except NeuromasError:
            raise
        except Exception as error:  # h5py, hdmf and pynwb have many ways to say so
            raise unreadable(path, "an NWB file", error) from error
        try:
            yield session
        except NeuromasError:
            raise
        except (OSError, RuntimeError) as error:  # h5py, of a part of the file that is read only now
            raise unreadable(path, "an NWB file", error) from error


def _choose(found: Mapping[str, Any], name: str) -> str | None:
    """The key of `found` that `name` means: itself, its path in full, or the end of a single one."""
    name = name.strip("/")
    for key in (name, name.removeprefix("intervals/")):
        if key in found:
            return key
    ends = [key for key in found if key.endswith(f"/{name}")]
    return ends[0] if len(ends) == 1 else None


# ------------------------------------------------------------------------------------------------------- tables


def _plain(column: Any) -> NDArray[Any] | None:
    """One number or text per row of a column; None where it holds several, or references."""
    import h5py
    from hdmf.common import DynamicTableRegion, EnumData, VectorIndex

    if isinstance(column, (VectorIndex, DynamicTableRegion)):
        return None
    data = column.data
    if isinstance(data, h5py.Dataset) and data.shape is not None and len(data.shape) == 1:
        if h5py.check_ref_dtype(data.dtype) is not None or data.dtype.kind == "V":
            return None
        values = tidy(data[:])
    elif isinstance(data, (list, tuple, np.ndarray)):
        values = tidy(np.asarray(data))
    else:
        return None
    if isinstance(column, EnumData):
        elements = tidy(column.elements.data[:])
        values = elements[values.astype(np.int64)]
    return values if values.ndim == 1 and values.dtype.kind in "biufU" else None


def _columns(table: Any) -> dict[str, NDArray[Any]]:
    """Columns of a table with one number or text per row, its row ids as ``id``."""
    columns = {"id": np.asarray(table.id.data[:])}
    for name in table.colnames:
        values = _plain(table[name])
        if values is not None:
            columns[str(name)] = values
    return columns


def _region(column: Any) -> tuple[Any, list[NDArray[np.int64]]]:
    """The table that a column of references leads to, and its rows for each row of the column."""
    from hdmf.common import VectorIndex

    if isinstance(column, VectorIndex):
        rows = np.asarray(column.target.data[:], dtype=np.int64)
        ends = np.asarray(column.data[:], dtype=np.int64)
        return column.target.table, np.split(rows, ends[:-1]) if len(ends) else []
    return column.table, [np.array([row], dtype=np.int64) for row in column.data[:]]


# ------------------------------------------------------------------------------------------------------- activity


@dataclass(frozen=True)
class _Taken:
    """Activity and who it belongs to."""

    activity: NDArray[np.float32]  # (n_trials, n_steps, n_units)
    names: list[str]
    columns: dict[str, Any]
    physical: str
    covered: str
    """When there was a recording, for people."""
    left_out: tuple[str, ...]


def _chosen(columns: Mapping[str, NDArray[Any]], recipe: NwbRecipe, n_units: int, where: str) -> NDArray[np.int64]:
    if recipe.units_where is None:
        return np.arange(n_units)
    rows = np.flatnonzero(evaluate_mask(recipe.units_where, columns, n_units, f"{where}: units_where"))
    if rows.size == 0:
        raise InvalidInput(f"{where}: none of {n_units} units fulfils {recipe.units_where!r}", kind="no_units")
    return rows


def _kept(columns: Mapping[str, NDArray[Any]], recipe: NwbRecipe, where: str) -> dict[str, NDArray[Any]]:
    """Columns that become metadata of the units."""
    if recipe.unit_columns is None:
        return {name: values for name, values in columns.items() if name != "id"}
    unknown = [name for name in recipe.unit_columns if name not in columns]
    if unknown:
        raise NotFound(
            f"{where}: unit_columns: no column {listing(unknown)} with one number or text per unit; there are "
            f"{', '.join(columns)}",
            kind="unknown_column",
        )
    return {name: columns[name] for name in recipe.unit_columns}


def _names(columns: Mapping[str, NDArray[Any]], prefix: str) -> list[str]:
    for name in _NAME_COLUMNS:
        values = columns.get(name)
        if values is not None and values.dtype.kind == "U" and "" not in values and len(set(values)) == len(values):
            return [str(value) for value in values]
    ids = columns["id"]
    numbers = ids if len(set(ids.tolist())) == len(ids) else np.arange(len(ids))
    return [f"{prefix}-{number}" for number in numbers.tolist()]


def _take_units(session: _Session, place: str, recipe: NwbRecipe, events: Events, where: str) -> _Taken:
    table = session.units[place]
    columns = _columns(table)
    n_units = len(columns["id"])
    if n_units == 0:
        raise InvalidInput(f"{where}: the table has no rows", kind="no_units")
    if "electrodes" in table.colnames:
        columns |= {name: one for name, one in _electrode_columns(table["electrodes"]).items() if name not in columns}
    ends = np.asarray(table["spike_times"].data[:], dtype=np.int64)
    flat = table["spike_times"].target.data
    starts = np.r_[0, ends[:-1]]

    def spikes_of(unit: int) -> NDArray[np.float64]:
        times = np.asarray(flat[int(starts[unit]) : int(ends[unit])], dtype=np.float64)
        return times[np.isfinite(times)]

    def observed(unit: int) -> NDArray[np.float64]:
        return np.asarray(table["obs_intervals"][unit], dtype=np.float64).reshape(-1, 2)

    has_intervals = "obs_intervals" in table.colnames
    if recipe.coverage == "obs_intervals" and not has_intervals:
        raise InvalidInput(
            f"{where}: coverage='obs_intervals', but the table has no such column; it has {', '.join(table.colnames)}. "
            "'spikes' takes what lies between a unit's first spike and its last",
            kind="coverage",
        )
    extent = np.full((n_units, 2), np.nan)  # first and last spike
    session_extent = np.full((n_units, 2), np.nan)
    for unit in range(n_units):
        times = spikes_of(unit)
        told = np.concatenate([times, observed(unit).ravel() if has_intervals else []])
        told = told[np.isfinite(told)]
        if times.size:
            extent[unit] = times.min(), times.max()
        if told.size:
            session_extent[unit] = told.min(), told.max()
    if np.isnan(session_extent).all():
        raise InvalidInput(f"{where}: no unit has a spike", kind="no_units")
    whole = np.array([np.nanmin(session_extent), np.nanmax(session_extent)])

    rows = _chosen(columns, recipe, n_units, where)
    check_size(len(events.rows), recipe.n_steps, len(rows), where)
    activity = np.empty((*events.edges[:, :-1].shape, len(rows)), dtype=np.float32)
    width = recipe.width_s if recipe.activity == "rate" else None
    for at, unit in enumerate(rows.tolist()):
        times = spikes_of(unit)
        values = bin_spikes(times, events.edges, width)
        intervals = observed(unit) if has_intervals else np.empty((0, 2))
        if recipe.coverage == "session":
            covered = spanned(whole, events.edges)[:, None]
        elif recipe.coverage == "obs_intervals" or (recipe.coverage == "auto" and len(intervals)):
            covered = within(intervals, events.edges)
        else:
            covered = spanned(times, events.edges)[:, None]
        activity[:, :, at] = np.where(covered, values, np.nan)
    names = np.array(_names(columns, "unit"))[rows]
    metadata: dict[str, Any] = {name: values[rows] for name, values in _kept(columns, recipe, where).items()}
    metadata |= {name: (extent[rows, end], {"units": "s"}) for end, name in enumerate(("first_spike", "last_spike"))}
    return _Taken(
        activity,
        names.tolist(),
        metadata,
        "Hz" if recipe.activity == "rate" else "1",
        f"units were recorded from {whole[0]:g} to {whole[1]:g} s",
        (f"{n_units - len(rows)} units not asked for",) if len(rows) < n_units else (),
    )


def _electrode_columns(column: Any) -> dict[str, NDArray[Any]]:
    """Group and location of each unit's electrodes."""
    table, rows = _region(column)
    told: dict[str, NDArray[Any]] = {}
    for name, called in (("group_name", "electrode_group"), ("location", "location")):
        values = _plain(table[name]) if name in table.colnames else None
        if values is not None:
            texts = values.astype(str)
            told[called] = np.array(["; ".join(dict.fromkeys(texts[one].tolist())) for one in rows], dtype=str)
    return told


def _take_series(session: _Session, place: str, recipe: NwbRecipe, events: Events, where: str) -> _Taken:
    series = session.series[place]
    if recipe.activity == "count":
        raise InvalidInput(
            f"{where}: activity='count' is for spikes; samples of a series are averaged", kind="activity"
        )
    if recipe.coverage != "auto":
        raise InvalidInput(
            f"{where}: coverage={recipe.coverage!r} is for spikes; bins of a series without samples are missing",
            kind="coverage",
        )
    data = session.array(series.data)
    shape = _readable_shape(data)
    if shape is None:
        raise InvalidInput(f"{where}: expected numbers of shape (time, channel) or (time,), got {_told(series, data)}")
    n_samples, n_channels = shape[0], shape[1] if len(shape) == 2 else 1
    columns, prefix = _channels(series, n_channels, where)
    rows = _chosen(columns, recipe, n_channels, where)
    clock = _clock(session, series, n_samples, where)
    check_size(len(events.rows), recipe.n_steps, len(rows), where)
    sums = np.zeros((events.edges.shape[1] - 1, len(rows)))
    activity = np.empty((len(events.rows), *sums.shape), dtype=np.float32)
    first, last = int(rows.min()), int(rows.max()) + 1
    block = max(1, BLOCK_BYTES // (8 * (last - first)))
    for trial, edges in enumerate(events.edges):
        cuts = clock.samples_at(edges)  # (n_steps + 1,): the first sample of each bin
        sums, counts = np.zeros(sums.shape), np.zeros(sums.shape)
        for start in range(int(cuts[0]), int(cuts[-1]), block):
            stop = min(start + block, int(cuts[-1]))
            values = np.asarray(data[start:stop] if len(shape) == 1 else data[start:stop, first:last], dtype=np.float64)
            values = values.reshape(stop - start, -1)[:, rows - first]
            present = np.isfinite(values)
            values = np.where(present, values, 0.0)
            inside = np.clip(cuts, start, stop) - start
            for step in np.flatnonzero(np.diff(inside)):
                sums[step] += values[inside[step] : inside[step + 1]].sum(axis=0)
                counts[step] += present[inside[step] : inside[step + 1]].sum(axis=0)
        with np.errstate(invalid="ignore"):
            activity[trial] = _scaled(series, sums / counts, rows)
    return _Taken(
        activity,
        np.array(_names(columns, prefix))[rows].tolist(),
        {name: values[rows] for name, values in _kept(columns, recipe, where).items()},
        str(series.unit or "1"),
        f"its samples go from {clock.first:g} to {clock.last:g} s",
        (f"{n_channels - len(rows)} channels not asked for",) if len(rows) < n_channels else (),
    )


def _scaled(series: Any, values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Stored numbers in the series' unit."""
    scale: Any = 1.0 if series.conversion is None else float(series.conversion)
    channel = getattr(series, "channel_conversion", None)
    if channel is not None:
        scale = scale * np.asarray(channel[:], dtype=np.float64)[rows]
    return values * scale + (0.0 if series.offset is None else series.offset)


def _readable_shape(data: Any) -> tuple[int, ...] | None:
    """The shape of data that can be averaged; None for text, images and what lies outside the file."""
    shape = getattr(data, "shape", None)
    if shape is None or len(shape) not in (1, 2) or 0 in shape or np.dtype(data.dtype).kind not in "biuf":
        return None
    return tuple(shape)


def _channels(series: Any, n_channels: int, where: str) -> tuple[dict[str, NDArray[Any]], str]:
    """What is known of each channel, and what channels are called."""
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
        return {name: values[rows] for name, values in _columns(region.table).items()}, prefix
    return {"id": np.arange(n_channels)}, "channel"


@dataclass(frozen=True)
class _Clock:
    """When the samples of a series were taken."""

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
            kind="timestamps",
        )


def _clock(session: _Session, series: Any, n_samples: int, where: str) -> _Clock:
    if series.timestamps is None:
        if not series.rate:
            raise InvalidInput(f"{where}: neither timestamps nor a rate tell when its samples were taken")
        return _Clock(n_samples, float(series.starting_time or 0.0), float(series.rate), None, where)
    timestamps = session.array(series.timestamps)
    if len(timestamps) != n_samples:
        raise InvalidInput(
            f"{where}: {n_samples} samples, but {len(timestamps)} timestamps; expected data of shape (time, channel)"
        )
    if n_samples <= _WHOLE:
        timestamps = np.asarray(timestamps[:], dtype=np.float64)
        _check_rising(timestamps, 0, where)
    return _Clock(n_samples, 0.0, None, timestamps, where)


# ------------------------------------------------------------------------------------------------------- recording


def convert(path: Path, recipe: NwbRecipe, fields: Mapping[str, Any]) -> Recording:
    """A recording from an NWB file: activity about the rows of one of its interval tables.

    Parameters
    ----------
    path : Path
        A ``.nwb`` file, or a folder that hdmf-zarr wrote.
    recipe : NwbRecipe
    fields : mapping
        Fields of the manifest that go before what the file says.

    Returns
    -------
    Recording
        float32; trial numbers are the table's row ids, ``event_s`` is each trial's time zero in the session. NaN where a
        unit was not recorded. A trial in which none was is left out, and so is a unit that was in none of the trials.

    Raises
    ------
    NotFound
        The file has no such table, source or column; lists those it has.
    InvalidInput
        It is no NWB file, or no trial can be taken from it.
    InvalidDocument
        Variables cannot be computed, or fields of the manifest are unusable; lists every problem.
    """
    if "variables" in fields:
        raise InvalidInput("variables: expected in the recipe, not among the fields of the manifest", kind="manifest")
    check_fields(fields)
    with _opened(path) as session:
        table_name = _choose(session.tables, recipe.table)
        if table_name is None:
            told = ", ".join(f"{name} ({len(table)} rows)" for name, table in session.tables.items())
            raise NotFound(
                f"{path}: no interval table {recipe.table!r}; there are {told or 'none'}", kind="unknown_table"
            )
        table = session.tables[table_name]
        where = f"{path}: {table_name}"
        columns = _columns(table)
        if not recipe.variables:
            raise InvalidInput(
                f"{where}: the recipe names no variables; columns to make them from are {', '.join(columns)}",
                kind="no_variables",
            )
        kind, place = _source(session, recipe)
        events = take_events(columns, recipe, where)
        take = _take_units if kind == "units" else _take_series
        taken = take(session, place, recipe, events, f"{path}: {place}")
        defaults = _manifest(session)
    recorded = np.isfinite(taken.activity)
    trials: NDArray[np.bool_] = np.any(recorded, axis=(1, 2))
    units: NDArray[np.bool_] = np.any(recorded, axis=(0, 1))
    if not trials.any():
        raise InvalidInput(
            f"{where}: no unit was recorded in any of {len(trials)} trials, which lie between {events.edges.min():g} and "
            f"{events.edges.max():g} s; {taken.covered}",
            kind="no_trials",
        )
    never = np.array(taken.names)[~units].tolist()
    left_out = [
        *([events.notes] if events.notes else []),
        *([f"{int((~trials).sum())} trials in which no unit was recorded"] if not trials.all() else []),
        *taken.left_out,
        *([f"units that were recorded in none of the trials: {', '.join(never)}"] if never else []),
    ]
    activity = taken.activity[trials][:, :, units]
    free = free_names(taken.columns, [*events.variables, dims.EVENT_S])
    metadata = {free[name]: _picked(values, units) for name, values in taken.columns.items()}
    ids = columns["id"][events.rows]
    if np.unique(ids).size < ids.size:
        left_out.append("row ids, of which some occur twice: trials are numbered by rows")
        ids = events.rows
    notes = [f"recipe {recipe.model_dump_json(exclude_defaults=True)}"]
    notes += [f"left out: {'; '.join(left_out)}"] if left_out else []
    areas = dict.fromkeys(np.asarray(metadata["location"]).astype(str).tolist()) if "location" in metadata else {}
    area = ", ".join(one for one in areas if one)
    area = area if len(area) <= _LONGEST_TOLD else ""
    document = {
        **defaults,
        "system": ", ".join(filter(None, (defaults["system"], area))) or defaults["name"],
        "layer": area,
        "access": "read",
        "missing": bool(np.isnan(activity).any()),
        "sampling": sampling_of(recipe),
        "units": taken.physical,
        "provenance": Provenance(
            source=path.name,
            source_sha256=_hash(path),
            versions=versions(("pynwb", "hdmf", "h5py", "numpy")),
            notes="; ".join(notes),
        ),
    }
    return assemble(
        activity,
        {name: values[trials] for name, values in events.variables.items()},
        events.specs,
        document,
        fields,
        trial=ids[trials],
        units=np.array(taken.names)[units].tolist(),
        unit_metadata=metadata,
        sample_metadata={} if dims.EVENT_S in events.variables else {dims.EVENT_S: events.times[trials]},
    )


def _source(session: _Session, recipe: NwbRecipe) -> tuple[Literal["units", "series"], str]:
    place = _choose(session.units, recipe.source)
    if place is not None:
        return "units", place
    place = _choose(session.series, recipe.source)
    if place is not None:
        return "series", place
    readable = [place for place, one in session.series.items() if _readable_shape(session.array(one.data)) is not None]
    found = ", ".join([*session.units, *readable]) or "none"
    if recipe.source == "units":
        raise NotFound(f"{session.path}: no units with spike times; source may be: {found}", kind="unknown_source")
    raise NotFound(
        f"{session.path}: no units or time series {recipe.source!r}; there are {found}", kind="unknown_source"
    )


def _picked(values: Any, units: NDArray[np.bool_]) -> Any:
    return (values[0][units], values[1]) if isinstance(values, tuple) else values[units]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if value is None:
        return ""
    return str(value).strip() if isinstance(value, str) else "; ".join(_text(one) for one in value)


def _manifest(session: _Session) -> dict[str, Any]:
    """What the file itself says about the recording."""
    stem = re.sub(r"(\.nwb)?(\.zarr)?$", "", session.path.name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:100] or "recording"
    said = _text(session.file.session_description)
    more = _text(session.file.experiment_description)
    subject = session.file.subject
    return {
        "name": name,
        "system": "" if subject is None else _text(subject.species),
        "task": said.splitlines()[0] if said else "",
        "description": "\n".join(filter(None, (said, more if more != said else ""))),
        "citation": _text(session.file.related_publications),
    }


def _hash(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and hashes of its files in order."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return sha256_bytes("".join(f"{one.relative_to(path).as_posix()} {sha256_file(one)}\n" for one in files).encode())


# ------------------------------------------------------------------------------------------------------- contents


def contents(path: Path) -> list[tuple[str, str]]:
    """What there is in an NWB file to choose from.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of (str, str)
        Interval tables, units and time series by the name that a recipe gives, each of a table's columns below it.

    Raises
    ------
    InvalidInput
        It is no NWB file.
    """
    rows: list[tuple[str, str]] = []
    with _opened(path) as session:
        for kind, tables in (("interval table, {} rows", session.tables), ("spikes of {} units", session.units)):
            for name, table in tables.items():
                rows.append((name, kind.format(len(table))))
                columns = _columns(table)
                rows += [(f"{name}.{column}", _examples(values)) for column, values in columns.items()]
                rows += [
                    (f"{name}.{column}", "not one number or text per row")
                    for column in table.colnames
                    if column not in columns
                ]
        for place, series in session.series.items():
            rows.append((place, _told(series, session.array(series.data))))
    return rows


def _told(series: Any, data: Any) -> str:
    shape = getattr(data, "shape", None)
    parts = [type(series).__name__]
    parts.append("no data in the file" if shape is None else f"shape {tuple(map(int, shape))}")
    if series.timestamps is not None:
        parts.append("timestamps")
    elif series.rate is not None:
        parts.append(f"{series.rate:g} Hz from {series.starting_time or 0:g} s")
    parts.append(str(series.unit or "1"))
    if _readable_shape(data) is None:
        parts.append("cannot be averaged in bins")
    return ", ".join(parts)


def _examples(values: NDArray[Any]) -> str:
    """A few of the values of a column, or their range."""
    if values.size == 0:
        return "no rows"
    missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else int(np.sum(values == ""))
    missing = missing if values.dtype.kind in "fU" else 0
    present = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    unique = np.unique(present)
    if unique.size == 0:
        told = "nothing but missing values"
    elif values.dtype.kind in "iuf" and unique.size > 6:
        told = f"{unique[0]:g} to {unique[-1]:g}"
    else:
        texts = [f"{one + 0:g}" if values.dtype.kind in "iuf" else str(one) for one in unique[:6]]
        told = ", ".join(texts) + (f" and {unique.size - 6} more" if unique.size > 6 else "")
    return told + (f" ({missing} missing)" if missing and unique.size else "")


CONVERTERS: tuple[Converter, ...] = (
    Converter(
        name="nwb",
        endings=(".nwb", ".nwb.zarr"),
        recipe=NwbRecipe,
        convert=convert,
        contents=contents,
        requires=("pynwb",),
        extra="nwb",
    ),
)
