"""Recordings locked to events: the one way from activity in bins to a recording, for every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.convert.events import Events, as_column, event_times, sampling_of
from neuromas.recordings.convert.source import assemble, free_names, provenance_of
from neuromas.recordings.matrices import Matrix
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import EventRecipe


@dataclass(frozen=True)
class Binned:
    """Activity in the bins of events, and the units that it belongs to.

    Attributes
    ----------
    activity : ndarray of shape (n_trials, n_steps, n_units)
        NaN where a unit was not recorded.
    units : sequence of str
        Names of the units.
    physical : str
        Physical unit of the activity.
    unit_metadata : mapping of str to array of shape (n_units,), or to (array, attributes)
    span : str
        When there was a recording, for messages.
    left_out : sequence of str
        What was not read, for the provenance.
    """

    activity: NDArray[Any]
    units: Sequence[str]
    physical: str = "1"
    unit_metadata: Mapping[str, Any] = field(default_factory=dict)
    span: str = ""
    left_out: Sequence[str] = ()

    @cached_property
    def recorded_units(self) -> NDArray[np.bool_]:
        """Units that were recorded in at least one bin, shape (n_units,)."""
        return ~np.isnan(self.activity).all(axis=(0, 1))

    @cached_property
    def recorded_bins(self) -> NDArray[np.bool_]:
        """Bins in which at least one unit was recorded, shape (n_trials, n_steps)."""
        return ~np.isnan(self.activity).all(axis=2)


def in_time_order(columns: Mapping[str, Any], align: str, where: str) -> dict[str, NDArray[Any] | Matrix]:
    """Rows of a table of events in order of their times, so that trial numbers do not depend on the selected rows.

    Examples
    --------
    >>> in_time_order({"cue": np.array([2.0, np.nan, 1.0]), "side": ["l", "?", "r"]}, "cue", "example")["side"].tolist()
    ['r', 'l', '?']
    """
    tidied = {name: as_column(values) for name, values in columns.items()}
    order = np.argsort(event_times(tidied, align, where), kind="stable")  # NaN last
    return {
        name: values.of_rows(order) if isinstance(values, Matrix) else values[order] for name, values in tidied.items()
    }


def recording_of(
    events: Events,
    binned: Binned,
    recipe: EventRecipe,
    fields: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    where: str,
    path: Path | None = None,
    notes: Sequence[str] = (),
    libraries: Sequence[str] = (),
    row_ids: NDArray[Any] | None = None,
    keep_empty_bins: bool = False,
    session_times: bool = True,
    files: Sequence[Path] = (),
) -> Recording:
    """A recording of `events`, without the trials in which no unit was recorded and without the units that never were.

    Parameters
    ----------
    events : Events
    binned : Binned
    recipe : EventRecipe
    fields : mapping
        Fields of the manifest that the user gives. They override `defaults`.
    defaults : mapping
        Fields of the manifest that the source tells; ``name`` is required.
    where : str
        The source, for messages.
    path : Path, optional
        The source's file, for the provenance.
    notes : sequence of str
        For the provenance, beside what was left out.
    libraries : sequence of str
        Libraries that read the source, for the provenance.
    row_ids : ndarray of shape (n_rows,), optional
        Ids of the rows of the table of events. Trials have these numbers if no id occurs twice; otherwise, and by default, trials
        have the numbers of their rows.
    keep_empty_bins : bool
        Whether a kept trial keeps its bins in which no unit was recorded, as NaN. By default these bins are no samples.
    session_times : bool
        Whether times of events are those of the session. If each trial has a clock of its own, they are not kept.
    files : sequence of Path
        Of a folder, the files that were read. They are hashed in the provenance.

    Raises
    ------
    InvalidInput
        No unit was recorded in any bin.
    InvalidDocument
        `fields` or the data are invalid; lists every problem.
    """
    present, units = binned.recorded_bins, binned.recorded_units
    trials: NDArray[np.bool_] = np.any(present, axis=1)
    if not trials.any():
        raise InvalidInput(
            f"{where}: no unit was recorded in any of {len(trials)} trials, which lie between {events.edges.min():g} and "
            f"{events.edges.max():g} s" + (f"; {binned.span}" if binned.span else ""),
            kind="no_trials",
        )
    if keep_empty_bins:
        present = np.broadcast_to(trials[:, None], present.shape)
    numbers, unnumbered = _trial_numbers(events, row_ids)
    left_out = [*_left_out(events, binned, trials, present), *unnumbered]
    activity = binned.activity[:, :, units]
    document = {
        **defaults,
        "units": binned.physical,
        "missing": bool(np.isnan(activity[present]).any()),
        "sampling": sampling_of(recipe),
        "provenance": provenance_of(
            path, recipe, [*notes, f"left out: {'; '.join(left_out)}" if left_out else ""], libraries, files
        ),
    }
    free = free_names(binned.unit_metadata, [*events.variables, dims.EVENT_S])
    return assemble(
        activity[trials],
        {name: values[trials] for name, values in events.variables.items()},
        events.specs,
        document,
        fields,
        trial=numbers[trials],
        present=present[trials],
        units=[name for name, recorded in zip(binned.units, units, strict=True) if recorded],
        unit_metadata={free[name]: _of_units(values, units) for name, values in binned.unit_metadata.items()},
        sample_metadata={}
        if dims.EVENT_S in events.variables or not session_times
        else {dims.EVENT_S: events.times[trials]},
    )


def _trial_numbers(events: Events, row_ids: NDArray[Any] | None) -> tuple[NDArray[Any], list[str]]:
    """Numbers of the trials, shape (n_trials,), and a note if row ids cannot be them."""
    if row_ids is None:
        return events.rows, []
    ids = row_ids[events.rows]
    if np.unique(ids).size < ids.size:
        return events.rows, ["row ids, because some occur twice: trials are numbered by rows"]
    return ids, []


def _left_out(events: Events, binned: Binned, trials: NDArray[np.bool_], present: NDArray[np.bool_]) -> list[str]:
    """What the recording does not hold, for the provenance."""
    n_trials, n_bins = int((~trials).sum()), int((~present[trials]).sum())
    never = [name for name, recorded in zip(binned.units, binned.recorded_units, strict=True) if not recorded]
    notes = [
        events.notes,
        f"{n_trials} trials in which no unit was recorded" if n_trials else "",
        f"{n_bins} bins of other trials in which no unit was recorded" if n_bins else "",
        *binned.left_out,
        f"units that were recorded in none of the trials: {listing(never, len(never))}" if never else "",
    ]
    return [note for note in notes if note]


def _of_units(values: Any, units: NDArray[np.bool_]) -> Any:
    """Metadata of some units; with attributes, if there are any."""
    return (np.asarray(values[0])[units], values[1]) if isinstance(values, tuple) else np.asarray(values)[units]
