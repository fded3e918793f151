"""Times that an NWB file says must not be used. In the standard, ``invalid_times`` and ``obs_intervals`` say this."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.events import Events, touching
from neuromas.recordings.convert.nwb.file import NwbFile
from neuromas.schema.recipe import NwbRecipe

NAME = "invalid_times"


def without_invalid_times(
    activity: NDArray[np.float32], file: NwbFile, series: Any, recipe: NwbRecipe, events: Events
) -> list[str]:
    """Make activity missing in bins that touch the file's ``invalid_times``; notes of it for the provenance.

    An interval that names time series holds for these alone. If one of them is electrical, it also holds for units and for other
    electrical series, which were made from the same signal; likewise for optical series.

    Parameters
    ----------
    activity : ndarray of shape (n_trials, n_steps, n_units)
        Is changed.
    file : NwbFile
    series : pynwb.TimeSeries or None
        The source of the activity; None for units.
    recipe : NwbRecipe
    events : Events

    Raises
    ------
    InvalidInput
        An interval ends before it starts.
    """
    tables = [table for place, table in file.tables.items() if place.split("/")[-1] == NAME]
    if recipe.invalid_times == "keep" or not tables:
        return []
    intervals, n_others = [], 0
    for table in tables:
        for row in range(len(table)):
            if _holds(_named_series(table, row), series):
                intervals.append(_interval(table, row, str(file.path)))
            else:
                n_others += 1
    invalid = touching(np.reshape(intervals, (-1, 2)), events.edges)
    activity[invalid] = np.nan
    notes = [f"{int(invalid.sum())} bins that touch {NAME} ({len(intervals)} intervals)"] if invalid.any() else []
    return [*notes, *([f"{n_others} intervals of {NAME} that hold for other series"] if n_others else [])]


def _interval(table: Any, row: int, path: str) -> tuple[float, float]:
    """Start and end of an interval in seconds; one that is not known is infinitely far."""
    start, stop = float(table["start_time"].data[row]), float(table["stop_time"].data[row])
    if stop < start:
        raise InvalidInput(
            f"{path}: {NAME}, row {row}: the interval ends at {stop:g} s, before it starts at {start:g} s; correct the file, "
            f"or keep these times ({NAME}='keep')",
            kind="invalid_times",
        )
    return -np.inf if np.isnan(start) else start, np.inf if np.isnan(stop) else stop


def _named_series(table: Any, row: int) -> list[Any]:
    """The time series that an interval names."""
    if "timeseries" not in table.colnames:
        return []
    return [reference.timeseries for reference in table["timeseries"][row]]


def _holds(named: list[Any], series: Any) -> bool:
    if not named or any(other is series for other in named):
        return True
    kind = "electrical" if series is None else _kind(series)
    return kind is not None and any(_kind(other) == kind for other in named)


def _kind(series: Any) -> str | None:
    from pynwb import ecephys, misc, ophys

    if isinstance(series, (ecephys.ElectricalSeries, misc.DecompositionSeries)):
        return "electrical"
    optical = (ophys.TwoPhotonSeries, ophys.OnePhotonSeries, ophys.RoiResponseSeries)
    return "optical" if isinstance(series, optical) else None
