"""Reading a recording in blocks or row by row, so that it may be larger than memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from neuromas import dims
from neuromas.errors import Corrupt, InvalidInput, NotFound, suggestion
from neuromas.recordings.check import block_bounds, chosen_rows, listing, place
from neuromas.schema.recording import RecordingManifest

_GAP = 1024
"""Rows that lie closer than this are read in one piece with the rows between them: about a chunk."""


class Reading:
    """What a recording reads of its own arrays, in memory or on disk. The base of `Recording`, which has the fields."""

    dataset: xr.Dataset
    manifest: RecordingManifest

    @property
    def name(self) -> str:
        """``SET/RECORDING`` if it comes from a set, else its own name."""
        return self.manifest.name if self.manifest.set is None else f"{self.manifest.set}/{self.manifest.name}"

    @property
    def n_samples(self) -> int:
        """Number of (trial, step) rows."""
        return int(self.dataset.sizes[dims.SAMPLE])

    @property
    def n_units(self) -> int:
        """Number of recorded units."""
        return int(self.dataset.sizes[dims.UNIT])

    @property
    def in_memory(self) -> bool:
        """Whether activity is in memory. Otherwise it is read when it is used."""
        return bool(self.dataset[dims.ACTIVITY].variable._in_memory)

    @property
    def unit_names(self) -> list[str]:
        """Names of the units, in order."""
        return [str(name) for name in self.dataset[dims.UNIT].values]

    def unit_positions(self, units: Sequence[str | int] | None = None) -> NDArray[np.int64]:
        """Columns of units, shape (n_selected,); by default all. A number is a column already.

        Raises
        ------
        NotFound
            A unit does not exist. The error lists those that do.
        InvalidInput
            No unit is selected, or one is selected twice.
        """
        if units is None:
            return np.arange(self.n_units)
        if isinstance(units, str):
            units = [units]
        by_name = {name: column for column, name in enumerate(self.unit_names)}
        columns: list[int] = []
        unknown: list[str] = []
        for unit in units:
            if isinstance(unit, str) and unit in by_name:
                columns.append(by_name[unit])
            elif not isinstance(unit, str) and -self.n_units <= int(unit) < self.n_units:
                columns.append(int(unit) % self.n_units)
            else:
                unknown.append(str(unit))
        if unknown:
            raise NotFound(
                f"recording {self.name!r} has no unit {listing(unknown)}; its {self.n_units} units are "
                f"{listing(self.unit_names)}" + suggestion(unknown[0], self.unit_names),
                kind="unknown_unit",
            )
        if not columns:
            raise InvalidInput(f"recording {self.name!r}: no unit was selected", kind="no_units")
        if len(set(columns)) != len(columns):
            twice = [self.unit_names[column] for column in sorted(set(columns)) if columns.count(column) > 1]
            raise InvalidInput(
                f"recording {self.name!r}: units selected twice: {listing(twice)}", kind="duplicate_unit"
            )
        return np.asarray(columns, dtype=np.int64)

    def latents(
        self,
        units: Sequence[str | int] | None = None,
        samples: NDArray[Any] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Activity as a plain array, read in blocks.

        Parameters
        ----------
        units : sequence of str, optional
            Units by name or column; by default all.
        samples : array of bool of shape (n_samples,) or of int of shape (n_selected,), optional
            Which samples; by default all.
        dtype : dtype
            Precision of the result.

        Returns
        -------
        ndarray of shape (n_selected, n_units)
            Always a copy. NaN where a unit was not recorded.

        Raises
        ------
        NotFound
            A unit does not exist.
        InvalidInput
            `samples` does not fit this recording's samples, or activity is too large for `dtype`.
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        columns = self.unit_positions(units)
        rows = None if samples is None else chosen_rows(np.asarray(samples), self.n_samples)
        return self._latents(columns, rows, dtype)

    def coordinates_at(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Every coordinate on sample, as stored, of some samples; the other samples are not read.

        Returns
        -------
        dict of str to ndarray of shape (n_selected,)

        Raises
        ------
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        on_sample = [str(name) for name, coordinate in self.dataset.coords.items() if coordinate.dims == (dims.SAMPLE,)]
        return {name: self._coordinate_at(name, samples) for name in on_sample if name != dims.SAMPLE}

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first sample, activity of shape (n_block, n_units)) for each block of samples, in stored precision.

        Raises
        ------
        Corrupt
            Stored bytes are missing or damaged (a lazily opened recording only).
        """
        activity = self._activity
        bounds = block_bounds(self.n_samples, self.n_units * activity.dtype.itemsize)
        if activity._in_memory:
            values = activity.values
            for start, stop in bounds:
                yield start, values[start:stop]
            return
        for start, stop in bounds:
            yield start, self._read(dims.ACTIVITY, start, stop)

    def complete(self, units: Sequence[str | int] | None = None) -> NDArray[np.bool_]:
        """Whether all of `units` (by default every unit) were recorded in each sample, shape (n_samples,).

        Raises
        ------
        NotFound
            A unit does not exist.
        """
        columns = self.unit_positions(units)
        complete = np.ones(self.n_samples, dtype=bool)
        if self.manifest.missing:
            for start, block in self.blocks():
                complete[start : start + len(block)] = ~np.isnan(block[:, columns]).any(axis=1)
        return complete

    # -------------------------------------------------------------------------------------------------- how it is read

    @property
    def _activity(self) -> xr.Variable:
        return self.dataset[dims.ACTIVITY].variable

    def _latents(self, columns: NDArray[np.int64], rows: NDArray[np.int64] | None, dtype: DTypeLike) -> NDArray[Any]:
        """Activity of shape (n_rows, n_columns), a copy; of every sample if `rows` is None."""
        if rows is not None and not np.all(rows[1:] >= rows[:-1]):
            # read in ascending order, return in the order of the request
            order = np.argsort(rows, kind="stable")
            result = np.empty((rows.size, columns.size), dtype=dtype)
            result[order] = self._latents(columns, rows[order], dtype)
            return result
        result = np.empty((self.n_samples if rows is None else rows.size, columns.size), dtype=dtype)
        every_unit = columns.size == self.n_units and bool(np.all(columns == np.arange(self.n_units)))
        for into, activity in self._pieces(rows):
            with np.errstate(over="ignore"):
                result[into] = activity if every_unit else activity[:, columns]
            if result.dtype.kind == "f" and result.dtype.itemsize < activity.dtype.itemsize:
                self._refuse_overflow(result[into], into.start, rows, columns)
        return result

    def _coordinate_at(self, name: str, samples: NDArray[np.int64]) -> NDArray[Any]:
        variable = self.dataset[name].variable
        if variable._in_memory:
            return np.asarray(variable.values[samples])
        order = np.argsort(samples, kind="stable")
        rows = samples[order]
        values = np.empty(len(rows), dtype=variable.dtype)
        for first, last in _runs(rows, variable.dtype.itemsize):
            start = int(rows[first])
            block = self._read(name, start, int(rows[last - 1]) + 1)
            values[order[first:last]] = block[rows[first:last] - start]
        return values

    def _pieces(self, rows: NDArray[np.int64] | None) -> Iterator[tuple[slice, NDArray[Any]]]:
        """(place in the result, activity of all units) of the samples `rows`, which ascend; of all if None."""
        if rows is None:
            for start, block in self.blocks():
                yield slice(start, start + len(block)), block
            return
        activity = self._activity
        sample_bytes = self.n_units * activity.dtype.itemsize
        if activity._in_memory:
            for first, last in block_bounds(len(rows), sample_bytes):
                yield slice(first, last), activity.values[rows[first:last]]
            return
        for first, last in _runs(rows, sample_bytes):
            start = int(rows[first])
            block = self._read(dims.ACTIVITY, start, int(rows[last - 1]) + 1)
            yield slice(first, last), block[rows[first:last] - start]

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Samples `start` to `stop` of activity or of a coordinate."""
        try:
            return np.asarray(self.dataset[name].variable[start:stop].values)
        except (ValueError, RuntimeError, OSError) as error:  # zarr's checksum error is a plain ValueError
            raise Corrupt(
                f"recording {self.name!r}: samples {start} to {stop - 1} of {name} cannot be read: {error}"
            ) from error

    def _refuse_overflow(
        self, latents: NDArray[Any], start: int, rows: NDArray[np.int64] | None, columns: NDArray[np.int64]
    ) -> None:
        # activity is finite, so an infinite latent comes from rounding
        infinite = np.argwhere(np.isinf(latents))
        if infinite.size:
            row, column = infinite[0]
            sample = int(start + row if rows is None else rows[start + row])
            raise InvalidInput(
                f"recording {self.name!r}: activity of unit {self.unit_names[columns[column]]!r} at "
                f"{place(self.dataset, sample)} is too large for {latents.dtype}, whose largest number is "
                f"{np.finfo(latents.dtype).max:.3g}; scale the activity before it is registered",
                kind="too_large",
            )


def _runs(rows: NDArray[np.int64], sample_bytes: int) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of `rows` to read in one piece: rows near to each other, at most a block."""
    longest = next(iter(block_bounds(2**62, sample_bytes)))[1]
    breaks = np.flatnonzero((np.diff(rows) > _GAP) | (np.diff(rows // longest) > 0)) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(rows)]):
        if last > first:
            yield first, last
