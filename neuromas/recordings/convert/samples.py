"""Samples of a series in bins: their times, and their means. Only what is needed is read."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import BLOCK_BYTES
from neuromas.recordings.convert.events import SLACK_S

READ_AT_ONCE = 2**20
"""Up to so many timestamps are read at once; of more, only those that a bisection asks for."""


def means(data: Any, rows: NDArray[np.int64], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of the stored numbers of channels `rows`, shape (n_steps, n_selected); NaN in a bin without samples.

    Parameters
    ----------
    data : array-like of shape (n_samples, n_channels) or (n_samples,)
    rows : ndarray of shape (n_selected,)
    cuts : ndarray of shape (n_steps + 1,)
        The first sample of each bin, and the first sample after the last bin.
    """
    sums, counts = np.zeros((2, len(cuts) - 1, len(rows)))
    first, last = int(rows.min()), int(rows.max()) + 1
    block = max(1, BLOCK_BYTES // (8 * (last - first)))
    for start in range(int(cuts[0]), int(cuts[-1]), block):
        stop = min(start + block, int(cuts[-1]))
        stored = data[start:stop] if len(data.shape) == 1 else data[start:stop, first:last]
        values = np.asarray(stored, dtype=np.float64).reshape(stop - start, -1)[:, rows - first]
        present = np.isfinite(values)
        values = np.where(present, values, 0.0)
        inside = np.clip(cuts, start, stop) - start
        for step in np.flatnonzero(np.diff(inside)):
            sums[step] += values[inside[step] : inside[step + 1]].sum(axis=0)
            counts[step] += present[inside[step] : inside[step + 1]].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return sums / counts


@dataclass(frozen=True)
class Clock:
    """Times of the samples of a series, in seconds: a start and a rate, or timestamps."""

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
        check_rising(times, first, self.where)
        return first + np.searchsorted(times, edges, side="left").astype(np.int64)


def check_rising(times: NDArray[np.float64], first: int, where: str) -> None:
    """InvalidInput if `times` do not rise; `first` is the number of the first sample, for the message."""
    falls = np.flatnonzero(~(np.diff(times) >= 0))  # NaN too
    if falls.size:
        at = int(falls[0]) + 1
        raise InvalidInput(
            f"{where}: its timestamps do not rise: sample {first + at} is at {times[at]:g} s, after {times[at - 1]:g} s",
            kind="invalid_times",
        )
