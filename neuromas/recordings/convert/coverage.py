"""When units count as recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.events import SLACK_S, spanned, within


class Coverage:
    """When units count as recorded, as a recipe says it; counts what it cuts off.

    Parameters
    ----------
    coverage : "throughout", "session", "spikes", or intervals of shape (n_intervals, 2)
        As in recipes.
    session : ndarray
        Times between whose first and last the session lies, in seconds.

    Examples
    --------
    >>> edges, session = np.array([[0.0, 1.0, 2.0]]), np.array([0.0, 5.0])
    >>> words = ("throughout", "session", "spikes", [(1, 9)])
    >>> [Coverage(coverage, session).recorded(np.array([0.5, 1.5]), edges).tolist() for coverage in words]
    [[[True]], [[True]], [[False]], [[False, True]]]
    """

    def __init__(self, coverage: Any, session: NDArray[np.float64]) -> None:
        self.by = coverage if isinstance(coverage, str) else "intervals"
        self.intervals = np.empty((0, 2)) if isinstance(coverage, str) else np.asarray(coverage, dtype=np.float64)
        self.session = np.array([session.min(), session.max()]) if session.size else session
        self.n_spikes = self.n_outside = self.n_quiet = 0

    def recorded(self, times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the unit with spikes at `times` was recorded in each bin, shape (n_trials, n_steps) or (n_trials, 1)."""
        if self.by == "throughout":
            return np.ones((len(edges), 1), dtype=bool)
        if self.by == "session":
            return spanned(self.session, edges)[:, None]
        if self.by == "spikes":
            seen = spanned(times, edges)
            self.n_quiet += int((~seen).sum())
            return seen[:, None]
        self._count(times)
        return within(self.intervals, edges)

    def _count(self, times: NDArray[np.float64]) -> None:
        inside = np.zeros(times.shape, dtype=bool)
        for start, stop in self.intervals:
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
            raise InvalidInput(
                f"{where}: all {self.n_spikes:,} spikes lie outside coverage, which is {self.intervals.tolist()}; expected "
                "intervals in seconds, on the clock of the spikes",
                kind="invalid_times",
            )
        outside = f"{self.n_outside} of {self.n_spikes} spikes outside coverage" if self.n_outside else ""
        quiet = (
            f"{self.n_quiet} trials of units that lie before the unit's first or after its last spike; coverage can say that "
            "it was recorded there"
        )
        return [note for note in (outside, quiet if self.n_quiet else "") if note]
