"""From and to pynapple's objects: spikes or series in session time, with intervals or a table of events."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.coverage import Coverage
from neuromas.recordings.convert.events import SLACK_S, Events, bin_spikes, check_size, take_events, within
from neuromas.recordings.convert.locked import Binned, in_time_order, recording_of
from neuromas.recordings.convert.source import need_variables, needed
from neuromas.recordings.convert.tables import to_tables
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import EventRecipe, PynappleRecipe

_EXTRA = "pynapple"
_WHERE = "pynapple"


def from_pynapple(data: Any, intervals: Any, recipe: EventRecipe | Mapping[str, Any], **fields: Any) -> Recording:
    """A recording from pynapple's objects.

    Parameters
    ----------
    data : TsGroup, Ts, TsdFrame or Tsd
        Spike times of units, which are counted in each bin; or series, which are averaged in each bin. Bins outside the time
        support were not recorded: they are missing, never zero.
    intervals : IntervalSet or DataFrame
        A row per event. The columns of an IntervalSet are its metadata, ``start`` and ``end``, and these two again as
        ``start_time`` and ``stop_time``.
    recipe : EventRecipe or mapping
        ``align`` is the time zero of an event, by default ``start_time``.
    **fields
        Fields of the manifest, e.g. ``name``.

    Returns
    -------
    Recording
        Trials are numbered in order of their times, whichever rows are selected.

    Raises
    ------
    NotFound, InvalidInput, InvalidDocument
        As for `neuromas.recordings.convert.events.take_events`; or `data` is of another class.

    Examples
    --------
    >>> import pynapple as nap
    >>> cues = nap.IntervalSet([1.0, 3.0], [2.0, 4.0], metadata={"side": ["left", "right"]})
    >>> session = nap.IntervalSet(0, 5)
    >>> spikes = nap.TsGroup({7: nap.Ts(np.array([1.05, 3.15, 3.17]))}, time_support=session)
    >>> recipe = {"start_s": 0, "stop_s": 0.2, "bin_s": 0.1, "activity": "count", "variables": {"side": "side"}}
    >>> from_pynapple(spikes, cues, recipe, name="toy").latents().ravel().tolist()
    [1.0, 0.0, 0.0, 2.0]
    """
    nap = needed("pynapple", _EXTRA)
    document = recipe.model_dump(exclude_unset=True) if isinstance(recipe, EventRecipe) else dict(recipe)
    recipe = PynappleRecipe.parse(document, "recipe")
    table = _table(intervals, nap)
    need_variables(recipe, list(table), _WHERE)
    events = take_events(in_time_order(table, recipe.align, _WHERE), recipe, _WHERE)
    spiking = isinstance(data, nap.TsGroup | nap.Ts)
    if not spiking and not isinstance(data, nap.TsdFrame | nap.Tsd):
        raise InvalidInput(
            f"{_WHERE}: expected a TsGroup, Ts, TsdFrame or Tsd, got {type(data).__name__}", kind="invalid_inputs"
        )
    if not spiking and recipe.activity == "count":
        raise InvalidInput(
            f"{_WHERE}: activity='count' is for spikes; samples of a series are averaged", kind="invalid_recipe"
        )
    binned = _spikes(data, recipe, events, nap) if spiking else _series(data, recipe, events, nap)
    return recording_of(events, binned, recipe, fields, defaults={"name": _WHERE}, where=_WHERE, libraries=(_EXTRA,))


def _spikes(data: Any, recipe: PynappleRecipe, events: Events, nap: Any) -> Binned:
    """Spikes of each unit in each bin."""
    # a group's own keys; iterating over it gives others
    keys = data.keys() if isinstance(data, nap.TsGroup) else ()
    trains = {str(key): data[key].t for key in keys} if isinstance(data, nap.TsGroup) else {"u0": data.t}
    check_size(len(events.rows), recipe.n_steps, len(trains), _WHERE)
    width = recipe.width_s if recipe.activity == "rate" else None
    activity = np.stack([bin_spikes(np.asarray(times), events.edges, width) for times in trains.values()], axis=2)
    return Binned(
        _supported(activity, data, recipe, events),
        list(trains),
        physical="1" if recipe.activity == "count" else "Hz",
        unit_metadata=_metadata(data) if isinstance(data, nap.TsGroup) else {},
    )


def _series(data: Any, recipe: PynappleRecipe, events: Events, nap: Any) -> Binned:
    """Means of each series in each bin."""
    values = np.asarray(data.values, dtype=np.float64)
    activity = _means(np.asarray(data.t), values.reshape(len(values), -1), events.edges)
    framed = isinstance(data, nap.TsdFrame)
    return Binned(
        _supported(activity, data, recipe, events),
        [str(name) for name in data.columns] if framed else ["u0"],
        unit_metadata=_metadata(data) if framed else {},
    )


def _supported(activity: NDArray[np.float64], data: Any, recipe: PynappleRecipe, events: Events) -> NDArray[np.float32]:
    """`activity` with NaN in bins in which a unit was not recorded."""
    support = np.asarray(data.time_support.values, dtype=np.float64)
    if recipe.coverage == "time_support":
        activity[~within(support, events.edges)] = np.nan
    else:
        coverage = Coverage(recipe.coverage, support, _metadata(data) if hasattr(data, "metadata") else {}, _WHERE)
        for unit in range(activity.shape[2]):
            seen = np.broadcast_to(coverage.recorded(np.empty(0), events.edges, unit), activity.shape[:2])
            activity[~seen, unit] = np.nan
    return activity.astype(np.float32)


def _metadata(data: Any) -> dict[str, NDArray[Any]]:
    """Metadata of the units, without the rate that pynapple computes."""
    columns = {str(name): tidy(data.metadata[name].to_numpy()) for name in data.metadata.columns if name != "rate"}
    return {name: values for name, values in columns.items() if values.dtype.kind in "biufU"}


def _table(intervals: Any, nap: Any) -> dict[str, NDArray[Any]]:
    if isinstance(intervals, nap.IntervalSet):
        table = {str(name): tidy(intervals.metadata[name].to_numpy()) for name in intervals.metadata.columns}
        start, end = np.asarray(intervals.start), np.asarray(intervals.end)
        return {"start": start, "end": end, "start_time": start, "stop_time": end} | table
    if isinstance(intervals, pd.DataFrame):
        return {str(name): tidy(intervals[name].to_numpy()) for name in intervals.columns}
    raise InvalidInput(
        f"{_WHERE}: expected an IntervalSet or a DataFrame of events, got {type(intervals).__name__}",
        kind="invalid_inputs",
    )


def _means(times: NDArray[np.float64], values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of `values` in each bin, shape (n_trials, n_steps, n_units); NaN in a bin without values.

    Parameters
    ----------
    times : ndarray of shape (n_times,)
    values : ndarray of shape (n_times, n_units)
        NaN is left out of the means.
    edges : ndarray of shape (n_trials, n_steps + 1)
    """
    means = np.full((len(edges), edges.shape[1] - 1, values.shape[1]), np.nan)
    for trial, bounds in enumerate(np.searchsorted(times, edges - SLACK_S, side="left")):
        for step, (first, last) in enumerate(itertools.pairwise(bounds)):
            present = np.isfinite(values[first:last])
            counts = present.sum(axis=0)
            sums = np.where(present, values[first:last], 0).sum(axis=0)
            means[trial, step] = np.where(counts, sums / np.maximum(counts, 1), np.nan)
    return means


def to_pynapple(recording: Recording) -> tuple[Any, Any]:
    """Activity in session time, and the trials.

    Parameters
    ----------
    recording : Recording
        It needs event times (``event_s``) and ``start_s`` and ``step_s`` of the sampling, as event-locked formats give them.

    Returns
    -------
    activity : pynapple.TsdFrame
        A row per sample at the centre of its bin, a column per unit with the units' metadata.
    trials : pynapple.IntervalSet
        One interval per trial. Its metadata are the trial's number, ``event_s`` and every coordinate that is constant in
        each trial. For variables that change within trials, use `neuromas.recordings.convert.arrays.to_xarray`.

    Raises
    ------
    InvalidInput
        Event times or sampling are missing, the windows of two trials overlap, or pynapple is not installed.

    Examples
    --------
    >>> from neuromas.schema.recording import Sampling
    >>> recording = Recording.from_arrays(
    ...     np.zeros((2, 3, 1)), {"side": ["left", "right"]}, name="toy", sample_metadata={"event_s": [1.0, 5.0]},
    ...     sampling=Sampling(step="time bin", start_s=0, step_s=0.5),
    ... )
    >>> activity, trials = to_pynapple(recording)
    >>> activity.t.tolist(), trials.start.tolist(), trials["side"].tolist()
    ([1.25, 1.75, 2.25, 5.25, 5.75, 6.25], [1.0, 5.0], ['left', 'right'])
    """
    dataset, sampling = recording.dataset, recording.manifest.sampling
    needs = {
        f"a coordinate {dims.EVENT_S!r}, the time of each trial's event in seconds": dims.EVENT_S in dataset.coords,
        "sampling.start_s": sampling.start_s is not None,
        "sampling.step_s": sampling.step_s is not None,
    }
    missing = [need for need, is_met in needs.items() if not is_met]
    if missing or sampling.start_s is None or sampling.step_s is None:
        raise InvalidInput(
            f"recording {recording.name!r} has no times in a session; missing: {', '.join(missing)}",
            kind="invalid_times",
        )
    trials, units = to_tables(recording)
    order = np.argsort(trials["start_time"].to_numpy(), kind="stable")
    trials = trials.iloc[order].reset_index(drop=True)
    start, stop = trials.pop("start_time").to_numpy(copy=True), trials.pop("stop_time").to_numpy(copy=True)
    slack = sampling.step_s * 1e-6
    overlapping = np.flatnonzero(start[1:] < stop[:-1] - slack)
    if overlapping.size:
        first = int(overlapping[0])
        names = [str(trials[dims.TRIAL][at]) for at in (first, first + 1)]
        raise InvalidInput(
            f"recording {recording.name!r}: windows of {overlapping.size + 1} trials overlap in session time, e.g. those of "
            f"trials {listing(names)} ({start[first]:g} to {stop[first]:g} s and from {start[first + 1]:g} s); pynapple's "
            "intervals must not overlap. Use a shorter window or fewer trials",
            kind="invalid_trials",
        )
    nap = needed("pynapple", _EXTRA)
    # pynapple separates intervals that touch, with a warning
    stop[:-1] = np.minimum(stop[:-1], start[1:] - 2e-6)
    centres = dataset[dims.EVENT_S].values + sampling.start_s + sampling.step_s * (dataset[dims.STEP].values + 0.5)
    rows = np.argsort(centres, kind="stable")
    support = nap.IntervalSet(start, stop, metadata={name: trials[name].tolist() for name in trials.columns})
    activity = nap.TsdFrame(
        t=centres[rows],
        d=dataset[dims.ACTIVITY].values[rows],
        columns=recording.unit_names,
        time_support=nap.IntervalSet(start, stop),
        metadata={name: units[name].tolist() for name in units.columns if name != dims.UNIT},
    )
    return activity, support
