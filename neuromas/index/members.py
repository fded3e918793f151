"""Which samples of a recording an index has: in memory, ordered by their values, or on disk where they are stored grouped."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.index.choose import Ordered, Windows
from neuromas.index.combinations import Combinations
from neuromas.recordings.grouping import group
from neuromas.recordings.incomplete import costly_units
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import Split


@dataclass
class Latents:
    """Latents of an index, in memory or read when they are drawn.

    Attributes
    ----------
    recording : Recording
    columns : ndarray of int64, shape (n_units,)
        Units whose activity makes the latents.
    device : torch.device
    dtype : torch.dtype
    held : Tensor of shape (n_rows, n_units), optional
        In the recording's order; None if latents stay on disk.
    rows : Tensor of int64, shape (n_rows,), optional
        Row of the latents → sample number; None where the two are equal.
    """

    recording: Recording
    columns: NDArray[np.int64]
    device: torch.device
    dtype: torch.dtype
    held: Tensor | None = None
    rows: Tensor | None = None

    def at(self, rows: Tensor) -> Tensor:
        """Latents of rows, shape (n, n_units), a copy."""
        if self.held is not None and self.device.type == "cpu":
            # numpy takes rows faster than torch; as integers, because it has no bfloat16
            return torch.from_numpy(self._as_integers.take(rows.numpy(), axis=0)).view(self.dtype)
        if self.held is not None:
            return torch.index_select(self.held, 0, rows.to(self.device))
        samples = self.samples(rows).cpu().numpy()
        activity = self.recording.latents(self.columns.tolist(), samples, dtype=numpy_dtype(self.dtype))
        return torch.from_numpy(activity).to(self.device, self.dtype)

    def samples(self, rows: Tensor) -> Tensor:
        """Sample numbers of rows, shape (n,)."""
        if self.rows is None:
            return rows.to(self.device, torch.int64)
        return torch.index_select(self.rows, 0, rows.to(self.device))

    @functools.cached_property
    def _as_integers(self) -> NDArray[Any]:
        assert self.held is not None
        return self.held.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[self.dtype.itemsize]).numpy()


@dataclass(frozen=True)
class LeftOut:
    """Samples that are not in an index, in this order, each counted once."""

    n_ineligible: int
    n_outside_split: int
    n_incomplete: int
    costly: str = ""
    """Units without which many more samples would be complete; see `neuromas.recordings.incomplete.costly_units`."""

    def __str__(self) -> str:
        reasons = {
            "not eligible": self.n_ineligible,
            "outside the split": self.n_outside_split,
            "incomplete": self.n_incomplete,
        }
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        return f"{counts}; {self.costly}" if self.costly else counts


@dataclass(frozen=True)
class Members:
    """The samples of an index: what they hold, how to draw among them, and their latents."""

    choose: Ordered | Windows
    combinations: Combinations
    latents: Latents
    left_out: LeftOut


@dataclass(frozen=True)
class Selection:
    """Which samples of which recording an index is made of; the parameters are those of `CLIndex`."""

    recording: Recording
    variables: tuple[str, ...]
    split: Split | None
    columns: NDArray[np.int64] = field(repr=False)
    eligible_only: bool
    hold: bool | None

    def members(self, device: torch.device, dtype: torch.dtype) -> Members:
        """The samples, drawn from disk if they are stored grouped, else ordered in memory.

        Raises
        ------
        InvalidInput
            The split is of another recording, or no sample is left.
        """
        if not self.hold and self.eligible_only and self._is_grouped():
            return self._grouped(device, dtype)
        return self._ordered(device, dtype)

    @property
    def _every_unit(self) -> bool:
        return np.array_equal(self.columns, np.arange(self.recording.n_units))

    def _dtypes(self) -> tuple[np.dtype[Any], ...]:
        return tuple(self.recording.dataset[name].dtype for name in self.variables)

    def _is_grouped(self) -> bool:
        """Whether samples with equal values lie together on disk."""
        table = self.recording.groups
        if table is None or self.recording.in_memory or not set(self.variables) <= set(table.variables):
            return False
        # groups leave out samples that are incomplete in any unit, also those that are complete in `columns`
        return table.n_incomplete == 0 or len(self.columns) == self.recording.n_units

    def _grouped(self, device: torch.device, dtype: torch.dtype) -> Members:
        """From the table of groups that is stored with the recording. Samples are read only if there is a split."""
        table = self.recording.groups
        assert table is not None
        starts, counts = np.asarray(table.starts), np.asarray(table.counts)
        values = np.asarray(table.values, dtype=np.float64).reshape(len(counts), len(table.variables))
        usable, n_outside_split = None, 0
        if self.split is not None:
            self.split.check(self.recording)
            usable = self.split.samples
            within = np.array(
                [np.count_nonzero(usable[start : start + n]) for start, n in zip(starts, counts, strict=True)]
            )
            n_outside_split = int(counts.sum() - within.sum())
            starts, counts, values = starts[within > 0], counts[within > 0], values[within > 0]
        left_out = LeftOut(table.n_ineligible, n_outside_split, table.n_incomplete)
        if not len(counts):
            raise self._none_left(left_out)
        grouped = group(list(values[:, [table.variables.index(name) for name in self.variables]].T))
        owners = np.repeat(np.arange(len(grouped.values)), grouped.counts)
        choose = Windows(starts[grouped.order], counts[grouped.order], owners, len(grouped.values), usable)
        latents = Latents(self.recording, self.columns, device, dtype)
        return Members(choose, Combinations(grouped.values, self._dtypes()), latents, left_out)

    def _ordered(self, device: torch.device, dtype: torch.dtype) -> Members:
        recording = self.recording
        rows, left_out = self._usable_rows()
        whole = rows.size == recording.n_samples
        columns = [np.asarray(recording.dataset[name].values) for name in self.variables]
        grouped = group(columns if whole else [column[rows] for column in columns])
        order, n_rows = grouped.order, rows.size
        latents = Latents(recording, self.columns, device, dtype)
        activity = recording.dataset[dims.ACTIVITY].variable
        hold = self.hold is not False
        if hold and recording.in_memory and self._every_unit and _is_stored_as(activity.dtype, dtype, device):
            # the recording's own array: nothing is copied unless torch needs another layout
            own = np.require(activity.values, requirements=["C", "W"])
            latents.held, n_rows = torch.from_numpy(own).to(device, dtype), recording.n_samples
            order = order if whole else rows[order]
        else:
            if hold:
                read = recording.latents(self.columns.tolist(), None if whole else rows, dtype=numpy_dtype(dtype))
                latents.held = torch.from_numpy(read).to(device, dtype)
            if not whole:
                latents.rows = torch.from_numpy(rows).to(device)
        choose = Ordered(order, grouped.counts, n_rows, device)
        return Members(choose, Combinations(grouped.values, self._dtypes()), latents, left_out)

    def _usable_rows(self) -> tuple[NDArray[np.int64], LeftOut]:
        recording = self.recording
        usable = recording.eligible if self.eligible_only else np.ones(recording.n_samples, dtype=bool)
        n_ineligible, n_outside_split = int((~usable).sum()), 0
        if self.split is not None:
            self.split.check(recording)
            n_outside_split = int((usable & ~self.split.samples).sum())
            usable = usable & self.split.samples
        complete = recording.complete(self.columns.tolist())
        n_incomplete = int((usable & ~complete).sum())
        costly = costly_units(recording, self.columns.tolist(), usable) if n_incomplete else ""
        left_out = LeftOut(n_ineligible, n_outside_split, n_incomplete, costly)
        rows = np.flatnonzero(usable & complete)
        if rows.size == 0:
            raise self._none_left(left_out)
        return rows, left_out

    def _none_left(self, left_out: LeftOut) -> InvalidInput:
        return InvalidInput(
            f"index of {self.recording.name!r}: none of {self.recording.n_samples} samples is left: "
            f"{left_out.n_ineligible} are not eligible, {left_out.n_outside_split} outside the split, "
            f"{left_out.n_incomplete} incomplete in the {len(self.columns)} units of the index"
            + (f"; {left_out.costly}" if left_out.costly else ""),
            kind="no_samples",
        )


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy precision that holds `dtype`; numpy has no bfloat16."""
    return np.dtype({torch.float16: np.float16, torch.float64: np.float64}.get(dtype, np.float32))


def _is_stored_as(stored: np.dtype[Any], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether latents of `dtype` on `device` can be the recording's own array."""
    return device.type == "cpu" and dtype != torch.bfloat16 and stored == numpy_dtype(dtype)
