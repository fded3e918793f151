"""Trials from a table of events, and spikes counted in bins about them: what every event-locked format shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.expression import evaluate
from neuromas.schema import EventRecipe, Sampling, VariableSpec


@dataclass(frozen=True)
class Events:
    """The trials that a recipe takes from a table.

    Attributes
    ----------
    rows : ndarray of int64, shape (n_trials,)
        Rows of the table.
    times : ndarray of float64, shape (n_trials,)
        Time zero of each, in seconds.
    edges : ndarray of float64, shape (n_trials, n_steps + 1)
        Of the bins, in seconds.
    variables : dict of str to ndarray, shape (n_trials, n_steps)
    specs : list of VariableSpec
    n_without_time, n_not_taken : int
        Rows left out because they have no time zero, or because ``where`` is not true there.
    """

    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    edges: NDArray[np.float64]
    variables: dict[str, NDArray[Any]]
    specs: list[VariableSpec]
    n_without_time: int
    n_not_taken: int

    @property
    def notes(self) -> str:
        """Which rows were left out, for the provenance."""
        told = {"without a time": self.n_without_time, "not asked for": self.n_not_taken}
        return ", ".join(f"{count} rows {why}" for why, count in told.items() if count)


def take_events(columns: Mapping[str, Any], recipe: EventRecipe, where: str) -> Events:
    """The trials that `recipe` takes from a table.

    Parameters
    ----------
    columns : mapping of str to array, each of shape (n_rows,)
    recipe : EventRecipe
    where : str
        File and table, for messages.

    Returns
    -------
    Events

    Raises
    ------
    NotFound
        `align` or `where` names no column; lists those there are.
    InvalidInput
        No row is left.
    InvalidDocument
        Variables cannot be computed; lists every problem.

    Examples
    --------
    >>> recipe = EventRecipe(align="cue", start_s=0, stop_s=0.2, bin_s=0.1, where="n > 1", variables={"n": "n"})
    >>> events = take_events({"cue": np.array([1.0, np.nan, 3.0]), "n": np.array([2, 2, 3])}, recipe, "example")
    >>> events.rows.tolist(), events.edges.tolist(), events.variables["n"].tolist(), events.notes
    ([0, 2], [[1.0, 1.1, 1.2], [3.0, 3.1, 3.2]], [[2, 2], [3, 3]], '1 rows without a time')
    """
    columns = {name: tidy(values) for name, values in columns.items()}
    n_rows = len(next(iter(columns.values()), ()))
    times = np.broadcast_to(np.asarray(evaluate(recipe.align, columns, f"{where}: align"), dtype=np.float64), n_rows)
    taken = np.ones(n_rows, dtype=bool)
    if recipe.where is not None:
        chosen = evaluate(recipe.where, columns, f"{where}: where")
        if chosen.dtype.kind != "b":
            raise InvalidInput(
                f"{where}: where={recipe.where!r}: expected something true or false, got {chosen.dtype}; compare it, e.g. "
                f"{recipe.where} == 1",
                kind="expression",
            )
        taken = np.broadcast_to(chosen, n_rows)
    timed = np.isfinite(times)
    rows = np.flatnonzero(taken & timed)
    if rows.size == 0:
        raise InvalidInput(
            f"{where}: none of {n_rows} rows is a trial: {int((~timed).sum())} have no time in {recipe.align!r}"
            + (f", {int((~taken).sum())} do not fulfil {recipe.where!r}" if recipe.where is not None else ""),
            kind="no_trials",
        )
    width = recipe.stop_s - recipe.start_s if recipe.bin_s is None else recipe.bin_s
    relative = recipe.start_s + width * np.arange(recipe.n_steps + 1)
    centres = relative[:-1] + width / 2
    trials = {name: values[rows][:, None] for name, values in columns.items() if np.ndim(values) == 1}
    values, specs = make_variables(recipe.variables, {**trials, "time": centres[None, :]}, where)
    shape = (len(rows), recipe.n_steps)
    return Events(
        rows=rows,
        times=times[rows],
        edges=times[rows, None] + relative,
        variables={name: np.broadcast_to(one, shape) for name, one in values.items()},
        specs=specs,
        n_without_time=int((taken & ~timed).sum()),
        n_not_taken=int((~taken).sum()),
    )


def sampling_of(recipe: EventRecipe) -> Sampling:
    """What the recipe's steps are."""
    width = recipe.stop_s - recipe.start_s if recipe.bin_s is None else recipe.bin_s
    return Sampling(step="time bin", step_s=width, start_s=recipe.start_s, aligned_to=recipe.align)


def bin_spikes(times: NDArray[np.float64], edges: NDArray[np.float64], activity: str) -> NDArray[np.float64]:
    """Spikes of one unit in each bin; a spike on an edge belongs to the bin that begins there.

    Parameters
    ----------
    times : ndarray of shape (n_spikes,)
        In seconds, in any order.
    edges : ndarray of shape (n_trials, n_steps + 1)
        Rising.
    activity : {"rate", "count"}

    Returns
    -------
    ndarray of shape (n_trials, n_steps)
        In Hz, or counts.

    Examples
    --------
    >>> bin_spikes(np.array([0.05, 0.1, 0.11]), np.array([[0.0, 0.1, 0.2]]), "rate")
    array([[10., 20.]])
    """
    counts = np.diff(np.searchsorted(np.sort(times), edges, side="left"), axis=1).astype(np.float64)
    return counts / np.diff(edges, axis=1) if activity == "rate" else counts


def spanned(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Trials that lie between the first and the last of `times`, shape (n_trials,); none if there are no times."""
    if times.size == 0:
        return np.zeros(len(edges), dtype=bool)
    return (edges[:, 0] >= times.min()) & (edges[:, -1] <= times.max())


def within(intervals: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Bins that lie in one of `intervals`, shape (n_intervals, 2); the result is of shape (n_trials, n_steps).

    Examples
    --------
    >>> within(np.array([[0.0, 0.1], [0.3, 1.0]]), np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]))
    array([[ True, False],
           [ True,  True]])
    """
    inside = np.zeros((len(edges), edges.shape[1] - 1), dtype=bool)
    slack = 1e-9  # s: edges are sums of floats
    for start, stop in np.atleast_2d(intervals):
        inside |= (edges[:, :-1] >= start - slack) & (edges[:, 1:] <= stop + slack)
    return inside
