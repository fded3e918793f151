"""When units count as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.events import SLACK_S, n_rows_of, spanned, within
from neuromas.recordings.expression import evaluate
from neuromas.schema.recipe import UnitCoverage

_SHOWN = 5
"""Intervals in a message."""


class Coverage:
    """When units count as recorded, as a recipe says it; counts what it cuts off.

    Parameters
    ----------
    coverage : "throughout", "session", "spikes", UnitCoverage, or intervals of shape (n_intervals, 2)
        As in recipes.
    session : ndarray
        Times between whose first and last the session lies, in seconds.
    columns : mapping of str to array of shape (n_units,), optional
        What describes the units, for a `UnitCoverage`.
    where : str
        The source, for messages.

    Raises
    ------
    NotFound, InvalidInput
        A column does not exist, holds no numbers, or a unit stops before it starts.

    Examples
    --------
    >>> edges, session = np.array([[0.0, 1.0, 2.0]]), np.array([0.0, 5.0])
    >>> words = ("throughout", "session", "spikes", [(1, 9)])
    >>> [Coverage(coverage, session).recorded(np.array([0.5, 1.5]), edges).tolist() for coverage in words]
    [[[True]], [[True]], [[False]], [[False, True]]]
    """

    def __init__(
        self,
        coverage: Any,
        session: NDArray[np.float64],
        columns: Mapping[str, Any] | None = None,
        where: str = "coverage",
    ) -> None:
        self.by = coverage if isinstance(coverage, str) else "intervals"
        self.of_unit: NDArray[np.float64] | None = None
        self.intervals = np.empty((0, 2))
        if isinstance(coverage, UnitCoverage):
            self.of_unit = _of_units(coverage, columns or {}, where)
        elif self.by == "intervals":
            self.intervals = np.asarray(coverage, dtype=np.float64)
        self.session = np.array([session.min(), session.max()]) if session.size else session
        self.n_spikes = self.n_outside = self.n_quiet = 0

    def recorded(self, times: NDArray[np.float64], edges: NDArray[np.float64], unit: int = 0) -> NDArray[np.bool_]:
        """Whether the unit with spikes at `times` was recorded in each bin, shape (n_trials, n_steps) or (n_trials, 1).

        `unit` is its row in the columns that describe the units.
        """
        if self.by == "throughout":
            return np.ones((len(edges), 1), dtype=bool)
        if self.by == "session":
            return spanned(self.session, edges)[:, None]
        if self.by == "spikes":
            seen = spanned(times, edges)
            self.n_quiet += int((~seen).sum())
            return seen[:, None]
        intervals = self.intervals_of(unit)
        self._count(times, intervals)
        return within(intervals, edges)

    def intervals_of(self, unit: int) -> NDArray[np.float64]:
        """The intervals of a unit, shape (n_intervals, 2); none if its start or end is missing."""
        if self.of_unit is None:
            return self.intervals
        own = self.of_unit[unit : unit + 1]
        return own[np.isfinite(own).all(axis=1)]

    def _count(self, times: NDArray[np.float64], intervals: NDArray[np.float64]) -> None:
        inside = np.zeros(times.shape, dtype=bool)
        for start, stop in intervals:
            inside |= (times >= start - SLACK_S) & (times <= stop + SLACK_S)
        self.n_spikes += times.size
        self.n_outside += int((~inside).sum())

    def notes(self, where: str) -> list[str]:
        """What was cut off, for the provenance.

        Raises
        ------
        InvalidInput
            All spikes lie outside the intervals.
        """
        if self.n_outside and self.n_outside == self.n_spikes:
            intervals = self.intervals if self.of_unit is None else self.of_unit
            more = ", …" if len(intervals) > _SHOWN else ""
            raise InvalidInput(
                f"{where}: all {self.n_spikes:,} spikes lie outside coverage, which is {intervals[:_SHOWN].tolist()}{more}; "
                "expected intervals in seconds, on the clock of the spikes",
                kind="invalid_times",
            )
        unknown = 0 if self.of_unit is None else int((~np.isfinite(self.of_unit).all(axis=1)).sum())
        without = f"{unknown} units whose coverage is missing count as not recorded" if unknown else ""
        outside = f"{self.n_outside} of {self.n_spikes} spikes outside coverage" if self.n_outside else ""
        quiet = (
            f"{self.n_quiet} trials of units that lie before the unit's first or after its last spike; coverage can say that "
            "it was recorded there"
        )
        return [note for note in (without, outside, quiet if self.n_quiet else "") if note]


def _of_units(coverage: UnitCoverage, columns: Mapping[str, Any], where: str) -> NDArray[np.float64]:
    """Start and end of each unit in seconds, shape (n_units, 2)."""
    n_units = n_rows_of(columns)
    ends = []
    for name in ("start", "stop"):
        expression = getattr(coverage, name)
        values = evaluate(expression, columns, f"{where}: coverage: {name}")
        if values.dtype.kind not in "iuf":
            raise InvalidInput(
                f"{where}: coverage: {name}: expected seconds in {expression!r}, got {values.ravel()[:1].tolist()}",
                kind="invalid_times",
            )
        ends.append(np.broadcast_to(values.astype(np.float64), (n_units,)))
    start, stop = ends
    if (stop < start).any():
        unit = int(np.argmax(stop < start))
        raise InvalidInput(
            f"{where}: coverage: row {unit} of the units stops at {stop[unit]:g} s, before it starts at {start[unit]:g} s",
            kind="invalid_times",
        )
    return np.column_stack([start, stop])
