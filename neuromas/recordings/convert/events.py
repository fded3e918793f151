"""Trials from a table of events, and spikes counted in bins: what all event-locked formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.expression import evaluate, evaluate_mask
from neuromas.recordings.matrices import Matrix, of_table
from neuromas.schema.recipe import EventRecipe
from neuromas.schema.recording import Sampling, VariableSpec

SLACK_S = 1e-9
"""Edges are sums of floats, so a time that lies so little before an edge belongs to the bin that begins there."""

LARGEST_BYTES = 8 * 2**30
"""The largest activity, written out in full."""

EVENT_TIME = "event_time"
"""Name of the time zero of a trial in expressions."""


@dataclass(frozen=True)
class Events:
    """The trials that a recipe selects from a table.

    Attributes
    ----------
    rows : ndarray of int64, shape (n_trials,)
        Rows of the table.
    times : ndarray of float64, shape (n_trials,)
        Time zero of each trial, in seconds.
    edges : ndarray of float64, shape (n_trials, n_steps + 1)
        Edges of the bins, in seconds.
    variables : dict of str to ndarray, shape (n_trials, n_steps)
    specs : list of VariableSpec
    n_without_time, n_not_selected : int
        Rows left out because they have no time zero, or because ``where`` is not true for them.
    """

    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    edges: NDArray[np.float64]
    variables: dict[str, NDArray[Any]]
    specs: list[VariableSpec]
    n_without_time: int
    n_not_selected: int

    @property
    def notes(self) -> str:
        """Which rows were left out, for the provenance."""
        counts = {"without a time": self.n_without_time, "not selected": self.n_not_selected}
        return ", ".join(f"{count} rows {why}" for why, count in counts.items() if count)


def take_events(columns: Mapping[str, Any], recipe: EventRecipe, where: str) -> Events:
    """The trials that `recipe` selects from a table.

    Parameters
    ----------
    columns : mapping of str to array, each of shape (n_rows,), or to `Matrix` of n_rows rows
    recipe : EventRecipe
        In ``where``, ``time`` is a column of the table, if the table has one; in variables it is the centre of a bin. In
        both, ``event_time`` is the trial's time zero, unless a column has this name.
    where : str
        File and table, for messages.

    Returns
    -------
    Events

    Raises
    ------
    NotFound
        `align` or `where` names a column that does not exist; the message lists the existing ones.
    InvalidInput
        No row is a trial.
    InvalidDocument
        Variables cannot be computed; lists every problem.

    Examples
    --------
    >>> recipe = EventRecipe(align="cue", start_s=0, stop_s=0.2, bin_s=0.1, where="n > 1", variables={"n": "n"})
    >>> events = take_events({"cue": np.array([1.0, np.nan, 3.0]), "n": np.array([2, 2, 3])}, recipe, "example")
    >>> events.rows.tolist(), events.edges.tolist(), events.variables["n"].tolist(), events.notes
    ([0, 2], [[1.0, 1.1, 1.2], [3.0, 3.1, 3.2]], [[2, 2], [3, 3]], '1 rows without a time')
    """
    columns = {name: as_column(values) for name, values in columns.items()}
    n_rows = n_rows_of(columns)
    times = event_times(columns, recipe.align, where)
    columns.setdefault(EVENT_TIME, times)
    selected = np.ones(n_rows, dtype=bool)
    if recipe.where is not None:
        selected = evaluate_mask(recipe.where, columns, n_rows, f"{where}: where")
    timed = np.isfinite(times)
    rows = np.flatnonzero(selected & timed)
    if rows.size == 0:
        raise InvalidInput(
            f"{where}: none of {n_rows} rows is a trial: {int((~timed).sum())} have no time in {recipe.align!r}"
            + (
                f", where={recipe.where!r} is not true for {int((~selected).sum())}" if recipe.where is not None else ""
            ),
            kind="no_trials",
        )
    check_size(len(rows), recipe.n_steps, 1, where)
    width = recipe.width_s
    relative = recipe.start_s + width * np.arange(recipe.n_steps + 1)
    centres = relative[:-1] + width / 2
    trials = {name: _of_trials(values, rows) for name, values in columns.items()}
    values, specs = make_variables(recipe.variables, {**trials, "time": centres[None, :]}, where)
    shape = (len(rows), recipe.n_steps)
    return Events(
        rows=rows,
        times=times[rows],
        edges=times[rows, None] + relative,
        variables={name: np.broadcast_to(value, shape) for name, value in values.items()},
        specs=specs,
        n_without_time=int((selected & ~timed).sum()),
        n_not_selected=int((~selected).sum()),
    )


def as_column(values: Any) -> NDArray[Any] | Matrix:
    """A column of a table: one entry per row, or an array of which expressions name a column."""
    if isinstance(values, Matrix):
        return values
    tidied = tidy(values)
    return tidied if tidied.ndim < 2 else of_table(tidied)


def n_rows_of(columns: Mapping[str, NDArray[Any] | Matrix]) -> int:
    """Rows of a table; 0 without columns."""
    first = next(iter(columns.values()), None)
    return 0 if first is None else first.shape[0]


def _of_trials(column: NDArray[Any] | Matrix, rows: NDArray[np.int64]) -> NDArray[Any] | Matrix:
    """Selected rows of a column, shape (n_trials, 1)."""
    if not isinstance(column, Matrix):
        return column[rows][:, None]
    selected = column.of_rows(rows)
    return replace(selected, part=lambda index: selected.part(index)[:, None])


def event_times(columns: Mapping[str, Any], align: str, where: str) -> NDArray[np.float64]:
    """The time of each row by the expression `align`, in seconds; InvalidInput if it gives no numbers."""
    n_rows = n_rows_of(columns)
    times = evaluate(align, columns, f"{where}: align")
    if times.dtype.kind not in "biuf" or times.shape not in ((), (n_rows,)):
        raise InvalidInput(
            f"{where}: align={align!r}: expected a time in seconds for each row, got {times.dtype} of shape {times.shape}, e.g. "
            f"{times.ravel()[:1].tolist()}",
            kind="invalid_expression",
        )
    return np.broadcast_to(times.astype(np.float64), n_rows)


def check_size(n_trials: int, n_steps: int, n_units: int, where: str) -> None:
    """InvalidInput if activity of this shape needs more than `LARGEST_BYTES`."""
    size = 8 * n_trials * n_steps * n_units
    if size > LARGEST_BYTES:
        raise InvalidInput(
            f"{where}: {n_trials} trials × {n_steps} steps × {n_units} units would take {size / 2**30:.1f} GiB, expected at most "
            f"{LARGEST_BYTES / 2**30:g}; use wider bins or a shorter window, or select fewer trials or units",
            kind="too_large",
        )


def sampling_of(recipe: EventRecipe) -> Sampling:
    """The steps of the recipe, for the manifest."""
    return Sampling(step="time bin", step_s=recipe.width_s, start_s=recipe.start_s, aligned_to=recipe.align)


def bin_spikes(
    times: NDArray[np.float64], edges: NDArray[np.float64], rate_per_s: float | None = None
) -> NDArray[np.float64]:
    """Spikes of one unit in each bin. A spike on an edge belongs to the bin that begins there.

    Parameters
    ----------
    times : ndarray of shape (n_spikes,)
        In seconds, in any order.
    edges : ndarray of shape (n_trials, n_steps + 1)
        Rising.
    rate_per_s : float, optional
        Nominal width of a bin in seconds. It replaces the difference of edges, which is rounded differently in each bin.

    Returns
    -------
    ndarray of shape (n_trials, n_steps)
        Counts, or rates in Hz with `rate_per_s`.

    Examples
    --------
    >>> bin_spikes(np.array([0.05, 0.1, 0.11]), np.array([[0.0, 0.1, 0.2]]), 0.1)
    array([[10., 20.]])
    """
    counts = np.diff(np.searchsorted(np.sort(times), edges - SLACK_S, side="left"), axis=1).astype(np.float64)
    return counts if rate_per_s is None else counts / rate_per_s


def spanned(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each trial lies between the first and the last of `times`, shape (n_trials,); false without times."""
    if times.size == 0:
        return np.zeros(len(edges), dtype=bool)
    return (edges[:, 0] >= times.min() - SLACK_S) & (edges[:, -1] <= times.max() + SLACK_S)


def within(intervals: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each bin lies in one of `intervals`, shape (n_intervals, 2); the result has shape (n_trials, n_steps).

    Examples
    --------
    >>> within(np.array([[0.0, 0.1], [0.3, 1.0]]), np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]))
    array([[ True, False],
           [ True,  True]])
    >>> within(np.array([[0.5, 1.0], [0.0, 0.5]]), np.array([[0.4, 0.6]]))  # they touch
    array([[ True]])
    """
    inside = np.zeros((len(edges), edges.shape[1] - 1), dtype=bool)
    for start, stop in _merged(np.atleast_2d(intervals)):
        inside |= (edges[:, :-1] >= start - SLACK_S) & (edges[:, 1:] <= stop + SLACK_S)
    return inside


def _merged(intervals: NDArray[np.float64]) -> list[list[float]]:
    """Intervals in order; those that touch or overlap are joined."""
    merged: list[list[float]] = []
    for start, stop in intervals[np.argsort(intervals[:, 0], kind="stable")].tolist():
        if merged and start <= merged[-1][1] + SLACK_S:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return merged


def touching(intervals: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each bin has a moment in common with one of `intervals`; the result has shape (n_trials, n_steps).

    Examples
    --------
    >>> touching(np.array([[0.1, 0.2], [0.35, 0.35]]), np.array([[0.0, 0.1, 0.2], [0.2, 0.3, 0.4]]))
    array([[False,  True],
           [False,  True]])
    """
    touched = np.zeros((len(edges), edges.shape[1] - 1), dtype=bool)
    for start, stop in intervals:
        touched |= (edges[:, :-1] < stop - SLACK_S) & (edges[:, 1:] > start + SLACK_S)
        touched |= (edges[:, :-1] <= start) & (edges[:, 1:] > start) & (stop <= start)
    return touched
