"""Recordings of any length, taken block by block, and their samples grouped by value on the way to the disk.

Samples that hold equal values of some variables are stored next to each other, in random order within such a group. Then a run
of neighbours is a fair draw, and thousands of latents with the same values are read as a chunk or two. Samples leave memory with
their block: every group has its own file, to which blocks append. A group is shuffled in memory. If it is too large for memory,
its samples are first dealt at random into smaller files. Only the trials' numbers stay in memory, 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import Corrupt, InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.grouping import group
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import GroupTable, RecordingManifest

IN_MEMORY = 64 * 2**20
"""Bytes of samples that are shuffled at once. Shuffling takes a few times as much memory."""
MOST_GROUPS = 10_000
_INELIGIBLE, _INCOMPLETE = "ineligible", "incomplete"


@dataclass
class Spool:
    """Blocks on their way into one recording.

    Parameters
    ----------
    folder : Path
        An empty folder for the files.
    group_by : tuple of str
        Variables whose values group the samples. If there are none, samples keep their order.
    whole_trials : bool
        Whether to refuse blocks that share a trial, because a sample could then occur twice.
    """

    folder: Path
    group_by: tuple[str, ...] = ()
    whole_trials: bool = True
    first: Recording | None = None
    """The first block, which all others must match."""
    counts: dict[str, int] = field(default_factory=dict)
    """Samples in each file."""
    _values: dict[tuple[float, ...], str] = field(default_factory=dict)
    _dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    _texts: dict[str, dict[str, int]] = field(default_factory=dict)
    _trials: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def n_samples(self) -> int:
        return sum(self.counts.values())

    def add(self, block: Recording) -> None:
        """Append a block's samples to the files of their groups.

        Raises
        ------
        InvalidInput
            The block differs from the first in units, variables or coordinates, or it holds a trial of an earlier block; there
            is no such variable; or samples hold more than `MOST_GROUPS` combinations of values.
        """
        if self.first is None:
            for name in self.group_by:
                block.spec(name)
            self.first = block
        self._check_alike(self.first, block)
        rows = self._packed(block)
        # of each sample: the place of its file in `names`
        number = np.full(block.n_samples, -1)
        names: list[str] = [_INELIGIBLE, _INCOMPLETE]
        eligible, complete = block.eligible, block.complete()
        number[~eligible], number[eligible & ~complete] = 0, 1
        usable = np.flatnonzero(number < 0)
        if not self.group_by:
            number[:], names = 0, ["all"]
        elif usable.size:
            grouped = group([np.asarray(block.dataset[name].values)[usable] for name in self.group_by])
            number[usable[grouped.order]] = np.repeat(len(names) + np.arange(len(grouped.counts)), grouped.counts)
            names += [self._file(tuple(values)) for values in grouped.values.tolist()]
        order = np.argsort(number.astype(np.uint16), kind="stable")  # by radix: linear
        sizes = np.bincount(number, minlength=len(names))
        for name, mine in zip(names, np.split(rows[order], np.cumsum(sizes)[:-1]), strict=True):
            if mine.size:
                self.counts[name] = self.counts.get(name, 0) + mine.size
                with (self.folder / name).open("ab") as file:
                    file.write(mine.view(np.uint8).data)

    def table(self) -> GroupTable | None:
        """Where each group's samples will lie; None if they are not grouped."""
        if not self.group_by:
            return None
        values = sorted(self._values)
        counts = [self.counts[self._values[combination]] for combination in values]
        starts = np.cumsum([0, *counts])[:-1].tolist()
        return GroupTable(
            variables=self.group_by,
            values=tuple(values),
            starts=tuple(starts),
            counts=tuple(counts),
            n_ineligible=self.counts.get(_INELIGIBLE, 0),
            n_incomplete=self.counts.get(_INCOMPLETE, 0),
        )

    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Precision of activity and of each coordinate on sample, wide enough for all blocks."""
        return self._dtypes | {name: np.array(list(texts)).dtype for name, texts in self._texts.items()}

    def blocks(self, generator: np.random.Generator) -> Iterator[dict[str, NDArray[Any]]]:
        """Activity and coordinates of the samples in their new order, piece by piece; each file is deleted after it was read."""
        files = [self._values[combination] for combination in sorted(self._values)]
        for name in [*files, *(other for other in (_INCOMPLETE, _INELIGIBLE, "all") if other in self.counts)]:
            path = self.folder / name
            pieces = self._shuffled(path, generator) if name in files else self._read(path)
            for piece in pieces:
                yield {column: self._unpacked(column, piece[column]) for column in self._dtypes}
            path.unlink()

    # ------------------------------------------------------------------------------------------------------------------

    def _file(self, values: tuple[float, ...]) -> str:
        if values not in self._values and len(self._values) == MOST_GROUPS:
            raise InvalidInput(
                f"group_by {', '.join(self.group_by)}: samples hold more than {MOST_GROUPS:,} combinations of values, too many"
                " for groups of a useful size; name fewer variables",
                kind="too_large",
            )
        return self._values.setdefault(values, f"group-{len(self._values)}")

    def _check_alike(self, first: Recording, block: Recording) -> None:
        problems = _differences(first.manifest, block.manifest)
        for noun, property_of in _ALIKE:
            if property_of(first) != property_of(block):
                problems.append(noun)
        if not problems:
            kinds = {name: [both.dataset[name].dtype.kind for both in (first, block)] for name in _coordinates(first)}
            problems += [f"kind of number in {name!r}" for name, (here, there) in kinds.items() if here != there]
        if problems:
            raise InvalidInput(
                f"block of {block.name!r} from sample {self.n_samples:,} on: it differs from the first block in"
                f" {' and '.join(problems)}",
                kind="recordings_differ",
            )
        if not self.whole_trials:
            return
        trials = np.unique(block.trial)
        for earlier in self._trials:
            if trials[0] > earlier[-1] or earlier[0] > trials[-1]:
                continue
            again = np.intersect1d(trials, earlier)
            if len(again):
                raise InvalidInput(
                    f"block of {block.name!r} from sample {self.n_samples:,} on: trials"
                    f" {listing([str(trial) for trial in again])} are also in an earlier block",
                    kind="invalid_trials",
                )
        self._trials.append(trials)

    def _packed(self, block: Recording) -> NDArray[Any]:
        """One record per sample: activity and coordinates, whole numbers as int64."""
        columns = {dims.ACTIVITY: block.activity.values} | {
            name: np.asarray(block.dataset[name].values) for name in _coordinates(block)
        }
        for name, values in columns.items():
            self._dtypes[name] = np.result_type(self._dtypes.get(name, values.dtype), values.dtype)
        rows = np.empty(block.n_samples, dtype=self._record())
        for name, values in columns.items():
            if values.dtype.kind == "U":
                codes = self._texts.setdefault(name, {})
                unique, inverse = np.unique(values, return_inverse=True)
                values = np.array([codes.setdefault(str(text), len(codes)) for text in unique])[inverse]
            rows[name] = values
        return rows

    def _record(self) -> np.dtype[Any]:
        assert self.first is not None
        wide = {"i": "<i8", "u": "<u8", "U": "<i8", "f": "<f8", "b": "?"}
        fields: list[Any] = [(dims.ACTIVITY, self.first.activity.dtype.newbyteorder("<"), (self.first.n_units,))]
        return np.dtype(fields + [(name, wide[self._dtypes[name].kind]) for name in _coordinates(self.first)])

    def _unpacked(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name in self._texts:
            return np.array(list(self._texts[name]))[values]
        return np.ascontiguousarray(values, dtype=self._dtypes[name])

    def _read(self, path: Path) -> Iterator[NDArray[Any]]:
        record = self._record()
        at_once = max(1, IN_MEMORY // record.itemsize)
        with path.open("rb") as file:
            while len(piece := np.fromfile(file, record, at_once)):
                yield piece

    def _shuffled(self, path: Path, generator: np.random.Generator) -> Iterator[NDArray[Any]]:
        """The samples of a file in random order; every order is equally likely."""
        n_shares = -(-path.stat().st_size // IN_MEMORY)
        if n_shares == 1:
            rows = np.fromfile(path, self._record())
            yield rows[generator.permutation(len(rows))]
            return
        # twice as many, so that each holds about half of what fits
        shares = [path.with_name(f"{path.name}-{share}") for share in range(2 * n_shares)]
        for piece in self._read(path):
            share = generator.integers(len(shares), size=len(piece), dtype=np.uint16)
            order, sizes = np.argsort(share, kind="stable"), np.bincount(share, minlength=len(shares))
            for file, mine in zip(shares, np.split(piece[order], np.cumsum(sizes)[:-1]), strict=True):
                with file.open("ab") as handle:
                    handle.write(mine.view(np.uint8).data)
        for file in shares:
            if file.exists():
                rows = np.fromfile(file, self._record())
                file.unlink()
                yield rows[generator.permutation(len(rows))]


def pieces(recording: Recording) -> Iterator[Recording]:
    """A recording in blocks of samples; each is read when it is asked for."""
    sample_bytes = recording.n_units * recording.activity.dtype.itemsize
    at_once = max(1, IN_MEMORY // sample_bytes)
    for start in range(0, recording.n_samples, at_once):
        dataset = recording.dataset.isel({dims.SAMPLE: slice(start, start + at_once)})
        try:
            dataset = dataset if recording.in_memory else dataset.load()
        except (ValueError, RuntimeError, OSError) as error:  # zarr's checksum error is a plain ValueError
            raise Corrupt(f"recording {recording.name!r}: samples from {start} on cannot be read: {error}") from error
        yield Recording._trusted(dataset, recording.manifest)


def _differences(first: RecordingManifest, other: RecordingManifest) -> list[str]:
    """Fields in which two blocks of one recording must not differ."""
    own = {"name", "set", "provenance", "content_sha256", "files", "variables", "grouped_by"}
    fields = [name for name in type(first).model_fields if name not in own]
    return [f"{name!r}" for name in fields if getattr(first, name) != getattr(other, name)]


def _unit_coordinates(block: Recording) -> list[str]:
    return sorted(str(name) for name, values in block.dataset.coords.items() if values.dims == (dims.UNIT,))


def _coordinates(block: Recording) -> Sequence[str]:
    """Names of the coordinates on sample."""
    named = (str(name) for name, values in block.dataset.coords.items() if values.dims == (dims.SAMPLE,))
    return sorted(name for name in named if name != dims.SAMPLE)


_ALIKE: tuple[tuple[str, Callable[[Recording], object]], ...] = (
    ("units", lambda block: block.unit_names),
    ("variables (if their values differ, declare them with variable_specs)", lambda block: block.manifest.variables),
    ("coordinates", _coordinates),
    ("metadata of units", lambda block: [block.dataset[name].values.tolist() for name in _unit_coordinates(block)]),
    ("precision of activity", lambda block: str(block.activity.dtype)),
)
"""What must be equal in all blocks of a recording."""
