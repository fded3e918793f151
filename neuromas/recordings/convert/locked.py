"""Recordings locked to events, from what was recorded in each bin: trials in time order, what was not recorded left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.events import Events, event_times, sampling_of
from neuromas.recordings.convert.source import assemble, free_names, provenance_of
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import EventRecipe


def in_time_order(columns: Mapping[str, Any], align: str, where: str) -> dict[str, NDArray[Any]]:
    """Rows of a table of events in order of their times, so that a row's number is its trial's, whatever is taken.

    Examples
    --------
    >>> in_time_order({"cue": np.array([2.0, np.nan, 1.0]), "side": ["l", "?", "r"]}, "cue", "example")["side"].tolist()
    ['r', 'l', '?']
    """
    tidied = {name: tidy(values) for name, values in columns.items()}
    order = np.argsort(event_times(tidied, align, where), kind="stable")  # NaN last
    return {name: values[order] for name, values in tidied.items()}


def recording_of(
    events: Events,
    activity: NDArray[Any],
    units: Sequence[str],
    recipe: EventRecipe,
    fields: Mapping[str, Any],
    *,
    name: str,
    where: str,
    path: Path | None = None,
    notes: Sequence[str] = (),
    libraries: Sequence[str] = (),
    activity_units: str = "1",
    unit_metadata: Mapping[str, Any] | None = None,
) -> Recording:
    """A recording of `events`, less the bins in which no unit was recorded and the units recorded in none of them.

    Parameters
    ----------
    events : Events
        Of a table in time order.
    activity : ndarray of shape (n_trials, n_steps, n_units)
        NaN where a unit was not recorded.
    notes : sequence of str
        For the provenance, beside what was left out.
    """
    present = ~np.isnan(activity).all(axis=2)
    if not present.any():
        raise InvalidInput(
            f"{where}: nothing was recorded about any of {len(events.rows)} events, which lie between "
            f"{events.times.min():g} and {events.times.max():g} s",
            kind="no_trials",
        )
    kept = present.any(axis=1)
    recorded = ~np.isnan(activity).all(axis=(0, 1))
    never = [name for name, there in zip(units, recorded, strict=True) if not there]
    activity = activity[:, :, recorded]
    dropped, holes = int((~kept).sum()), int((~present[kept]).sum())
    told = [
        events.notes,
        f"{dropped} trials in which no unit was recorded" if dropped else "",
        f"{holes} bins of other trials in which no unit was recorded" if holes else "",
        f"units that were recorded in none of the trials: {listing(never)}" if never else "",
    ]
    left_out = ", ".join(filter(None, told))
    defaults = {
        "name": name,
        "units": activity_units,
        "missing": bool(np.isnan(activity[present]).any()),
        "sampling": sampling_of(recipe),
        "provenance": provenance_of(path, recipe, [*notes, f"left out: {left_out}" if left_out else ""], libraries),
    }
    names = free_names(unit_metadata or {}, [*events.variables, dims.EVENT_S])
    return assemble(
        activity[kept],
        {name: values[kept] for name, values in events.variables.items()},
        events.specs,
        defaults,
        fields,
        trial=events.rows[kept],
        present=present[kept],
        units=[name for name, there in zip(units, recorded, strict=True) if there],
        unit_metadata={names[name]: np.asarray(values)[recorded] for name, values in (unit_metadata or {}).items()},
        sample_metadata={} if dims.EVENT_S in events.variables else {dims.EVENT_S: events.times[kept]},
    )
