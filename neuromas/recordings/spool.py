"""Recordings of any length, taken block by block, and their samples grouped by value on the way to the disk.

Samples that hold equal values of some variables are laid next to each other, in random order within such a group: then a run of
neighbours is a fair draw, and thousands of latents with given values are read as a chunk or two. No sample is held for
longer than its block: every group has a file of its own to which blocks append; a group is shuffled in memory, and where it is
too large for that, dealt at random into files that are not. What is kept is the trials' numbers, 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
"""Bytes of samples that are shuffled at once; a few times as much memory is used."""
MOST_GROUPS = 10_000
_INELIGIBLE, _INCOMPLETE = "ineligible", "incomplete"


@dataclass
class Spool:
    """Blocks on their way into one recording.

    Parameters
    ----------
    folder : Path
        Empty; for the files.
    group_by : tuple of str
        Variables whose values group the samples; empty to keep samples in the order in which they come.
    whole_trials : bool
        Whether to refuse blocks that share a trial, since then a sample could come twice.
    """

    folder: Path
    group_by: tuple[str, ...] = ()
    whole_trials: bool = True
    first: Recording | None = None
    """The block that all others must be like."""
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
            The block has other units, variables or coordinates than the first, or a trial of an earlier one; there is no
            such variable; or samples hold more combinations of values than are worth grouping.
        """
        if self.first is None:
            for name in self.group_by:
                block.spec(name)
            self.first = block
        self._check_alike(self.first, block)
        rows = self._packed(block)
        part = np.full(block.n_samples, -1)
        names: list[str] = [_INELIGIBLE, _INCOMPLETE]
        eligible, complete = block.eligible, block.complete()
        part[~eligible], part[eligible & ~complete] = 0, 1
        usable = np.flatnonzero(part < 0)
        if not self.group_by:
            part[:], names = 0, ["all"]
        elif usable.size:
            found = group([np.asarray(block.dataset[name].values)[usable] for name in self.group_by])
            part[usable[found.order]] = np.repeat(len(names) + np.arange(len(found.counts)), found.counts)
            names += [self._file(tuple(values)) for values in found.values.tolist()]
        order = np.argsort(part.astype(np.uint16), kind="stable")  # by radix: linear
        sizes = np.bincount(part, minlength=len(names))
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
        counts = [self.counts[self._values[one]] for one in values]
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
        """Activity and coordinates of the samples in their new order, piece by piece; each file goes once it was read."""
        files = [self._values[one] for one in sorted(self._values)]
        for name in [*files, *(one for one in (_INCOMPLETE, _INELIGIBLE, "all") if one in self.counts)]:
            path = self.folder / name
            pieces = self._shuffled(path, generator) if name in files else self._read(path)
            for piece in pieces:
                yield {column: self._unpacked(column, piece[column]) for column in self._dtypes}
            path.unlink()

    # ------------------------------------------------------------------------------------------------------------------

    def _file(self, values: tuple[float, ...]) -> str:
        if values not in self._values and len(self._values) == MOST_GROUPS:
            raise InvalidInput(
                f"group_by {', '.join(self.group_by)}: samples hold more than {MOST_GROUPS:,} combinations of values, so that"
                " grouping them would not keep many together; name fewer variables",
                kind="too_many_groups",
            )
        return self._values.setdefault(values, f"group-{len(self._values)}")

    def _check_alike(self, first: Recording, block: Recording) -> None:
        problems = _differences(first.manifest, block.manifest)
        for what, of in (
            ("units", lambda one: one.unit_names),
            ("variables (declare them with variable_specs, where values differ)", lambda one: one.manifest.variables),
            ("coordinates", _coordinates),
            ("metadata of units", lambda one: [one.dataset[name].values.tolist() for name in _unit_coordinates(one)]),
            ("precision of activity", lambda one: str(one.activity.dtype)),
        ):
            if of(first) != of(block):
                problems.append(what)
        if not problems:
            kinds = {name: {one.dataset[name].dtype.kind for one in (first, block)} for name in _coordinates(first)}
            problems += [f"kind of number in {name!r}" for name, found in kinds.items() if len(found) > 1]
        if problems:
            raise InvalidInput(
                f"block of {block.name!r} from sample {self.n_samples:,} on: other {' and '.join(problems)} than the first"
                " block has",
                kind="blocks_differ",
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
                    f" {listing([str(trial) for trial in again])} are in an earlier block, too",
                    kind="trial_twice",
                )
        self._trials.append(trials)

    def _packed(self, block: Recording) -> NDArray[Any]:
        """One record per sample: activity and coordinates, whole numbers as int64."""
        columns = {dims.ACTIVITY: block.activity.values} | {
            name: np.asarray(block.dataset[name].values) for name in _coordinates(block)
        }
        for name, values in columns.items():
            known = self._dtypes.get(name, values.dtype)
            self._dtypes[name] = np.result_type(known, values.dtype)
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
        """The samples of a file in random order, every order as likely as any other."""
        n_parts = -(-path.stat().st_size // IN_MEMORY)
        if n_parts == 1:
            rows = np.fromfile(path, self._record())
            yield rows[generator.permutation(len(rows))]
            return
        parts = [path.with_name(f"{path.name}-{part}") for part in range(2 * n_parts)]  # of half the size, give or take
        for piece in self._read(path):
            part = generator.integers(len(parts), size=len(piece), dtype=np.uint16)
            order, sizes = np.argsort(part, kind="stable"), np.bincount(part, minlength=len(parts))
            for one, mine in zip(parts, np.split(piece[order], np.cumsum(sizes)[:-1]), strict=True):
                with one.open("ab") as file:
                    file.write(mine.view(np.uint8).data)
        for one in parts:
            if one.exists():
                rows = np.fromfile(one, self._record())
                one.unlink()
                yield rows[generator.permutation(len(rows))]


def pieces(recording: Recording) -> Iterator[Recording]:
    """A recording in blocks of samples, each of them read when it comes."""
    sample_bytes = recording.n_units * recording.activity.dtype.itemsize
    at_once = max(1, IN_MEMORY // sample_bytes)
    recording._check_files()
    for start in range(0, recording.n_samples, at_once):
        dataset = recording.dataset.isel({dims.SAMPLE: slice(start, start + at_once)})
        try:
            dataset = dataset if recording.in_memory else dataset.load()
        except (ValueError, RuntimeError, OSError) as error:  # zarr's checksum error is a plain ValueError
            raise Corrupt(f"recording {recording.name!r}: samples from {start} on cannot be read: {error}") from error
        yield Recording._trusted(dataset, recording.manifest)


def _differences(first: RecordingManifest, other: RecordingManifest) -> list[str]:
    """Fields in which two blocks of one recording must not differ."""
    told = {"name", "set", "provenance", "content_sha256", "files", "variables", "grouped_by"}
    fields = [name for name in type(first).model_fields if name not in told]
    return [f"{name!r}" for name in fields if getattr(first, name) != getattr(other, name)]


def _unit_coordinates(block: Recording) -> list[str]:
    return sorted(str(name) for name, one in block.dataset.coords.items() if one.dims == (dims.UNIT,))


def _coordinates(block: Recording) -> Sequence[str]:
    """Names of the coordinates on sample."""
    named = (str(name) for name, one in block.dataset.coords.items() if one.dims == (dims.SAMPLE,))
    return sorted(name for name in named if name != dims.SAMPLE)
