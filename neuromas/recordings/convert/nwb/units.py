"""Spikes of the units of an NWB file, counted in bins; what was not recorded is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.coverage import Coverage
from neuromas.recordings.convert.events import Events, bin_spikes, check_size, within
from neuromas.recordings.convert.locked import Binned
from neuromas.recordings.convert.nwb.columns import electrode_columns, read_columns, read_matrices, unit_names
from neuromas.recordings.convert.nwb.file import NwbFile
from neuromas.recordings.convert.nwb.invalid import without_invalid_times
from neuromas.recordings.convert.units import by_activity, metadata_columns, not_selected, select_units
from neuromas.schema.recipe import NwbRecipe


class _Spikes:
    """Spike times and observed intervals of a table of units, read unit by unit."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.n_units = len(table.id)
        self.has_intervals = "obs_intervals" in table.colnames
        self._stops = np.asarray(table["spike_times"].data[:], dtype=np.int64)
        self._starts = np.r_[0, self._stops[:-1]]

    def times(self, unit: int) -> NDArray[np.float64]:
        """Spike times of a unit in seconds, shape (n_spikes,)."""
        stored = self.table["spike_times"].target.data
        times = np.asarray(stored[int(self._starts[unit]) : int(self._stops[unit])], dtype=np.float64)
        return times[np.isfinite(times)]

    def intervals(self, unit: int) -> NDArray[np.float64]:
        """Intervals in which a unit was observed, shape (n_intervals, 2); none if the table does not say."""
        if not self.has_intervals:
            return np.empty((0, 2))
        return np.asarray(self.table["obs_intervals"][unit], dtype=np.float64).reshape(-1, 2)

    def extents(self, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and last spike of each unit, shape (n_units, 2), and start and stop of the session, shape (2,)."""
        of_unit = np.full((self.n_units, 2), np.nan)
        observed = np.full((self.n_units, 2), np.nan)
        for unit in range(self.n_units):
            times = self.times(unit)
            if times.size:
                of_unit[unit] = times.min(), times.max()
            seen = np.concatenate([times, self.intervals(unit).ravel()])
            seen = seen[np.isfinite(seen)]
            if seen.size:
                observed[unit] = seen.min(), seen.max()
        if np.isnan(observed).all():
            raise InvalidInput(f"{where}: no unit has a spike", kind="no_units")
        return of_unit, np.array([np.nanmin(observed), np.nanmax(observed)])


def bin_units(file: NwbFile, place: str, recipe: NwbRecipe, events: Events, where: str) -> Binned:
    """Spikes of the selected units of the table at `place`, in each bin of each event."""
    table = file.units[place]
    columns = _unit_columns(table, where)
    spikes = _Spikes(table)
    _check_coverage(spikes, recipe, where)
    extents, session = spikes.extents(where)
    described: dict[str, Any] = {**read_matrices(table), **columns}
    rows = select_units(described, recipe, spikes.n_units, where)
    check_size(len(events.rows), recipe.n_steps, len(rows), where)
    metadata: dict[str, Any] = {name: values[rows] for name, values in metadata_columns(columns, recipe, where).items()}
    metadata |= {name: (extents[rows, end], {"units": "s"}) for end, name in enumerate(("first_spike", "last_spike"))}
    coverage = Coverage("spikes" if recipe.coverage == "auto" else recipe.coverage, session, described, where)
    activity = _activity(spikes, rows, recipe, events, coverage)
    cut_off = coverage.notes(where)
    invalid = without_invalid_times(activity, file, None, recipe, events)
    binned = Binned(
        activity=activity,
        units=unit_names(columns, "unit")[rows].tolist(),
        physical="Hz" if recipe.activity == "rate" else "1",
        unit_metadata=metadata,
        span="; ".join([f"units were recorded from {session[0]:g} to {session[1]:g} s", *invalid]),
        left_out=(*cut_off, *invalid, *not_selected(spikes.n_units - len(rows))),
    )
    return by_activity(binned, {name: values[rows] for name, values in columns.items()}, recipe, where)


def _unit_columns(table: Any, where: str) -> dict[str, NDArray[Any]]:
    """Columns of a table of units, and those of their electrodes."""
    columns = read_columns(table)
    if len(columns["id"]) == 0:
        raise InvalidInput(f"{where}: the table has no rows", kind="no_units")
    electrodes = electrode_columns(table["electrodes"]) if "electrodes" in table.colnames else {}
    return columns | {name: values for name, values in electrodes.items() if name not in columns}


def _check_coverage(spikes: _Spikes, recipe: NwbRecipe, where: str) -> None:
    if recipe.coverage == "obs_intervals" and not spikes.has_intervals:
        raise InvalidInput(
            f"{where}: coverage='obs_intervals' needs a column 'obs_intervals'; the table has "
            f"{', '.join(spikes.table.colnames)}. coverage='spikes' uses the time between a unit's first and last spike",
            kind="invalid_recipe",
        )


def _activity(
    spikes: _Spikes,
    rows: NDArray[np.int64],
    recipe: NwbRecipe,
    events: Events,
    coverage: Coverage,
) -> NDArray[np.float32]:
    """Rates or counts, shape (n_trials, n_steps, n_selected), NaN where a unit was not recorded."""
    n_trials, n_edges = events.edges.shape
    activity = np.empty((n_trials, n_edges - 1, len(rows)), dtype=np.float32)
    width = recipe.width_s if recipe.activity == "rate" else None
    for column, unit in enumerate(rows.tolist()):
        times, intervals = spikes.times(unit), spikes.intervals(unit)
        if recipe.coverage == "obs_intervals" or (recipe.coverage == "auto" and len(intervals)):
            recorded = within(intervals, events.edges)
        else:
            recorded = coverage.recorded(times, events.edges, unit)
        activity[:, :, column] = np.where(recorded, bin_spikes(times, events.edges, width), np.nan)
    return activity
