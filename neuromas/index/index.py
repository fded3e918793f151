"""The counterfactual-latent index: from values of causal variables to recorded latents that hold them.

A counterfactual latent is a recorded latent whose variables have the values asked for. It is looked up; nothing is run.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from neuromas import dims
from neuromas.errors import InvalidInput, NoMatch
from neuromas.index.choose import Near, Ordered, Windows, shares
from neuromas.index.combinations import Combinations
from neuromas.index.query import ANY, Any_, Predicate, describe, matches
from neuromas.recordings.grouping import group
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import Split


class FewMatchesWarning(UserWarning):
    """Fewer samples hold the values asked for than were asked for."""


class Draw(NamedTuple):
    """Counterfactual latents drawn for a batch of values; see `CLIndex.sample`."""

    latents: Tensor
    """Shape (n_queries, n_units); NaN where nothing recorded holds the values."""
    hit: Tensor
    """Shape (n_queries,), bool: whether something recorded holds the values."""
    samples: Tensor
    """Shape (n_queries,), int64: the latent's sample number in the recording; −1 for a miss."""


@dataclass(frozen=True)
class Means:
    """Mean latent of each recorded combination of values."""

    values: Tensor
    """Shape (n_values, n_variables), float64: the combinations, in ascending order."""
    latents: Tensor
    """Shape (n_values, n_units)."""
    counts: Tensor
    """Shape (n_values,), int64: how many samples each mean is of."""


class CLIndex:
    """Which samples of a recording hold which values.

    Parameters
    ----------
    recording : Recording
        What to look in. It is read, never run. Where it is in memory in the index's precision, its activity is not copied: do
        not write to it while the index is used.
    variables : sequence of str
        Causal variables to look by.
    split : Split, optional
        Use its samples alone, so that training and held-out trials do not mix.
    units : sequence of str, optional
        Units whose activity makes the latents; all by default. Samples in which one of them was not recorded are left
        out.
    device : str or torch.device
        Where latents are kept and drawn.
    eligible_only : bool
        Whether to leave out samples that the recording declares not eligible.
    dtype : torch.dtype
        Of the latents.
    tolerance : mapping of str to float, optional
        Variable → by how much the values of a counterfactual latent may differ from those asked for in `sample`, `lookup` and
        `coverage`; for continuous variables, which hardly hold a value twice. In `query` say `between`.
    hold : bool, optional
        Whether to hold the latents in memory. By default they are, unless the recording was opened lazily and is stored
        grouped by these variables (`neuromas.recordings.store.store.RecordingStore.register`, ``group_by``): then the index is
        a table of values, and latents are read when they are drawn. ``False`` leaves latents on disk in any case; from a
        recording that is not grouped each one drawn costs a chunk.

    Attributes
    ----------
    n_samples : int
        Samples in the index.
    n_ineligible, n_outside_split, n_incomplete : int
        Samples left out, in this order, each counted once.

    Raises
    ------
    NotFound
        A variable or unit does not exist; lists those that do.
    InvalidInput
        No variable is given, one is given twice, the split is of another recording, or no sample is left.

    Examples
    --------
    >>> recording = Recording.from_arrays(
    ...     np.arange(8.0).reshape(4, 2), {"phase": ["demo", "demo", "resp", "resp"], "count": [1, 2, 1, 1]}, name="toy"
    ... )
    >>> index = CLIndex(recording, ["phase", "count"])
    >>> index.query({"phase": "demo", "count": 2}).values
    array([[2., 3.]], dtype=float32)
    >>> index.values()
      phase  count  n_samples
    0  demo      1          1
    1  demo      2          1
    2  resp      1          2
    """

    def __init__(
        self,
        recording: Recording,
        variables: Sequence[str],
        *,
        split: Split | None = None,
        units: Sequence[str | int] | None = None,
        device: str | torch.device = "cpu",
        eligible_only: bool = True,
        dtype: torch.dtype = torch.float32,
        tolerance: Mapping[str, float] | None = None,
        hold: bool | None = None,
    ) -> None:
        self.variables = (variables,) if isinstance(variables, str) else tuple(variables)
        if not self.variables or len(set(self.variables)) != len(self.variables):
            raise InvalidInput(
                f"index of {recording.name!r}: expected variables, each once, got {list(self.variables)}",
                kind="invalid_variables",
            )
        self.specs = tuple(recording.spec(name) for name in self.variables)
        self.recording = recording
        self.split = split
        self.device = torch.device(device)
        self.dtype = dtype
        self._columns = recording.unit_positions(units)
        self.units = [recording.unit_names[column] for column in self._columns]
        self._dtypes = tuple(recording.dataset[name].dtype for name in self.variables)
        self._latents: Tensor | None = None  # (n_rows, n_units), in the recording's order, where they are held
        self._rows: Tensor | None = None  # (n_rows,): row of the latents → sample number, where the two differ
        if not hold and eligible_only and self._is_grouped():
            self._choose: Ordered | Windows = self._windows()
        else:
            self._choose = self._ordered(units, eligible_only, hold is not False)
        self._counts = self._choose.counts[:-1]
        self.n_samples = int(self._counts.sum())
        self.tolerance = self._checked_tolerance(tolerance or {})
        self._near = None
        if self.tolerance:
            each = np.array([self.tolerance.get(name, 0.0) for name in self.variables])
            self._near = Near(self._combinations.values, each)

    def _checked_tolerance(self, tolerance: Mapping[str, float]) -> dict[str, float]:
        strange = [name for name in tolerance if name not in self.variables]
        if strange:
            raise InvalidInput(
                f"index of {self.recording.name!r}: tolerance for {', '.join(map(repr, strange))}, but it looks by "
                f"{', '.join(self.variables)}",
                kind="invalid_tolerance",
            )
        wrong = {name: width for name, width in tolerance.items() if not 0 <= width < np.inf}
        named = [spec.name for spec in self.specs if spec.type == "categorical" and tolerance.get(spec.name)]
        if wrong or named:
            raise InvalidInput(
                f"index of {self.recording.name!r}: expected a tolerance of 0 or more"
                + (f", got {wrong}" if wrong else f" for numbers; {', '.join(map(repr, named))} is categorical"),
                kind="invalid_tolerance",
            )
        return {name: float(width) for name, width in tolerance.items() if width > 0}

    def _is_grouped(self) -> bool:
        """Whether samples that hold equal values lie together on disk."""
        table = self.recording.groups
        if table is None or self.recording.in_memory or not set(self.variables) <= set(table.variables):
            return False
        # the groups leave out what is incomplete in any unit; some units alone may be complete there
        return table.n_incomplete == 0 or self.n_units == self.recording.n_units

    def _windows(self) -> Windows:
        """From the table of groups that is stored with the recording; no sample is looked at, but by a split."""
        table = self.recording.groups
        assert table is not None
        starts, counts = np.asarray(table.starts), np.asarray(table.counts)
        values = np.asarray(table.values, dtype=np.float64).reshape(len(counts), len(table.variables))
        usable = None
        self.n_ineligible, self.n_incomplete, self.n_outside_split = table.n_ineligible, table.n_incomplete, 0
        if self.split is not None:
            self.split.check(self.recording)
            usable = self.split.samples
            within = np.array([np.count_nonzero(usable[at : at + n]) for at, n in zip(starts, counts, strict=True)])
            self.n_outside_split = int(counts.sum() - within.sum())
            starts, counts, values = starts[within > 0], counts[within > 0], values[within > 0]
        if not len(counts):
            raise self._none_left()
        found = group(list(values[:, [table.variables.index(name) for name in self.variables]].T))
        self._combinations = Combinations(found.values, self._dtypes)
        owners = np.repeat(np.arange(len(found.values)), found.counts)
        return Windows(starts[found.order], counts[found.order], owners, len(found.values), usable)

    def _ordered(self, units: Sequence[str | int] | None, eligible_only: bool, hold: bool) -> Ordered:
        recording = self.recording
        rows = self._usable_rows(units, eligible_only)
        whole = rows.size == recording.n_samples
        columns = [np.asarray(recording.dataset[name].values) for name in self.variables]
        found = group(columns if whole else [column[rows] for column in columns])
        self._combinations = Combinations(found.values, self._dtypes)
        order, n_rows = found.order, rows.size
        latents: NDArray[Any] | None = None
        activity = recording.dataset[dims.ACTIVITY].variable
        every_unit = np.array_equal(self._columns, np.arange(recording.n_units))
        if hold and recording.in_memory and every_unit and _as_stored(activity.dtype, self.dtype, self.device):
            # its own: nothing is copied, unless torch would complain
            latents, n_rows = np.require(activity.values, requirements=["C", "W"]), recording.n_samples
            order = order if whole else rows[order]
        else:
            if hold:
                latents = recording.latents(units, None if whole else rows, dtype=_numpy(self.dtype))
            if not whole:
                self._rows = torch.from_numpy(rows).to(self.device)
        if latents is not None:
            self._latents = torch.from_numpy(latents).to(self.device, self.dtype)
        return Ordered(order, found.counts, n_rows, self.device)

    def _usable_rows(self, units: Sequence[str | int] | None, eligible_only: bool) -> NDArray[np.int64]:
        recording = self.recording
        usable = recording.eligible if eligible_only else np.ones(recording.n_samples, dtype=bool)
        self.n_ineligible = int((~usable).sum())
        self.n_outside_split = 0
        if self.split is not None:
            self.split.check(recording)
            self.n_outside_split = int((usable & ~self.split.samples).sum())
            usable = usable & self.split.samples
        complete = recording.complete(units)
        self.n_incomplete = int((usable & ~complete).sum())
        rows = np.flatnonzero(usable & complete)
        if rows.size == 0:
            raise self._none_left()
        return rows

    def _none_left(self) -> InvalidInput:
        return InvalidInput(
            f"index of {self.recording.name!r}: none of {self.recording.n_samples} samples is left: {self.n_ineligible} are "
            f"not eligible, {self.n_outside_split} outside the split, {self.n_incomplete} incomplete in the "
            f"{len(self.units)} units asked for",
            kind="no_samples",
        )

    def __repr__(self) -> str:
        left_out = {
            "not eligible": self.n_ineligible,
            "outside the split": self.n_outside_split,
            "incomplete": self.n_incomplete,
        }
        told = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
        return (
            f"<CLIndex of {self.recording.name!r} by {', '.join(self.variables)}: {self.n_samples:,} samples, "
            f"{self.n_values:,} combinations of values, {self.n_units:,} units"
            + (f"; left out: {told}" if told else "")
            + ">"
        )

    @property
    def n_units(self) -> int:
        """Width of the latents."""
        return len(self.units)

    @property
    def n_values(self) -> int:
        """How many combinations of values were recorded."""
        return len(self._counts)

    @property
    def latents(self) -> Tensor:
        """Every latent of the index, shape (n_samples, n_units), in the recording's order; a copy.

        Raises
        ------
        InvalidInput
            They are left on disk.
        """
        if self._latents is None:
            raise InvalidInput(
                f"index of {self.recording.name!r}: its latents are left on disk; query or sample it, or make it with"
                " hold=True",
                kind="not_held",
            )
        return self._latents[self._own_rows()]

    @property
    def samples(self) -> Tensor:
        """Sample number in the recording of each of `latents`, shape (n_samples,), ascending."""
        return self._samples(self._own_rows())

    def _own_rows(self) -> Tensor:
        """Rows that belong to a combination."""
        return torch.from_numpy(np.flatnonzero(self._choose.owners(0, self._choose.n_rows) >= 0)).to(self.device)

    @property
    def combinations(self) -> Tensor:
        """Recorded combinations as numbers, ascending, shape (n_values, n_variables), float64."""
        return torch.from_numpy(self._combinations.values).to(self.device)

    @property
    def counts(self) -> Tensor:
        """How often each of `combinations` was recorded, shape (n_values,)."""
        return torch.from_numpy(self._counts).to(self.device)

    def values(self) -> pd.DataFrame:
        """Every combination of values recorded, and how often.

        Returns
        -------
        pandas.DataFrame
            One row per combination, one column per variable (meanings of categorical ones), and ``n_samples``.
        """
        columns: dict[str, object] = {}
        for column, spec in enumerate(self.specs):
            numbers = self._combinations.values[:, column]
            if spec.type == "categorical":
                columns[spec.name] = [spec.label(number) for number in numbers]
            else:
                columns[spec.name] = numbers if spec.type == "real" else numbers.astype(np.int64)
        return pd.DataFrame(columns | {dims.N_SAMPLES: self._counts})

    # ------------------------------------------------------------------------------------------------- one at a time

    def query(self, query: Mapping[str, Predicate], n: int | None = None, seed: int = 0) -> xr.DataArray:
        """Recorded latents that hold the values asked for.

        Parameters
        ----------
        query : mapping of str to predicate
            Variable → a value (meaning or number), several (list, set or tuple), `neuromas.index.query.between`, or
            `ANY`. A variable of the index that is not mentioned may have any value.
        n : int, optional
            How many to draw, uniformly among all matches and without replacement; all of them, in order, by default.
        seed : int
            Of the draw.

        Returns
        -------
        xarray.DataArray
            Dims (sample, unit), with the samples' coordinates; ``sample`` is the sample's number in the recording.

        Raises
        ------
        NoMatch
            Nothing recorded holds the values; tells the nearest combinations that were.
        NotFound
            The recording has no such variable; lists those it has.
        InvalidInput
            A value the variable cannot take, a variable the index does not look by, or a negative `n`.

        Warns
        -----
        FewMatchesWarning
            Fewer than `n` samples match; all of them are returned.
        """
        if n is not None and n < 1:
            raise InvalidInput(f"query: expected n of at least 1, got {n}", kind="invalid_query")
        for name in query:
            self.recording.spec(name)
            if name not in self.variables:
                raise InvalidInput(
                    f"query: this index looks by {', '.join(self.variables)}, not by {name!r}", kind="invalid_query"
                )
        fulfilled = np.ones(self.n_values, dtype=bool)
        distance = np.zeros(self.n_values)
        for column, spec in enumerate(self.specs):
            predicate = query.get(spec.name, ANY)
            if not isinstance(predicate, Any_):
                hit, off = matches(predicate, spec, self._combinations.values[:, column], self._dtypes[column])
                fulfilled &= hit
                distance += off
        if not fulfilled.any():
            raise NoMatch(
                f"nothing in {self.recording.name!r} has {describe(query)}; nearest recorded: {self._nearest(distance)}"
            )
        rows, n_found = self._choose.of(np.flatnonzero(fulfilled), n, np.random.default_rng(seed))
        if n is not None and n_found < n:
            warnings.warn(
                f"only {n_found} of the {n} samples asked for: no more in {self.recording.name!r} have "
                f"{describe(query)}",
                FewMatchesWarning,
                stacklevel=2,
            )
        return self._labelled(rows)

    def _nearest(self, distance: NDArray[np.float64], most: int = 3) -> str:
        nearest = np.lexsort((-self._counts, distance))[:most]
        told = []
        for one in nearest:
            values = (f"{s.name}={s.label(v)}" for s, v in zip(self.specs, self._combinations.values[one], strict=True))
            told.append(f"{' '.join(values)} ({self._counts[one]:,} samples)")
        return ", ".join(told)

    def _labelled(self, rows: NDArray[np.int64]) -> xr.DataArray:
        """Latents of some of the index's rows, with the recording's coordinates."""
        samples = self._samples(torch.from_numpy(rows)).cpu().numpy()
        dataset = self.recording.dataset
        coordinates: dict[str, object] = {dims.SAMPLE: samples}
        found = self.recording.coordinates_at(samples)
        for name, coordinate in dataset.coords.items():
            if name == dims.SAMPLE:
                continue
            values = found[str(name)] if str(name) in found else coordinate.values[self._columns]
            coordinates[str(name)] = (coordinate.dims, values, coordinate.attrs)
        sampling = self.recording.manifest.sampling
        seconds = sampling.seconds(found[dims.STEP])
        if seconds is not None and dims.TIME_S not in coordinates:
            told = {"units": "s", "long_name": f"centre of the bin, from {sampling.aligned_to or 'time zero'}"}
            coordinates[dims.TIME_S] = (dims.SAMPLE, seconds, told)
        return xr.DataArray(
            self._at(torch.from_numpy(rows)).cpu().numpy(),
            dims=(dims.SAMPLE, dims.UNIT),
            coords=coordinates,
            name=dims.ACTIVITY,
            attrs={"units": self.recording.manifest.units, "recording": self.recording.name},
        )

    def _at(self, rows: Tensor) -> Tensor:
        """Latents of rows, shape (n, n_units): of those held, or read now."""
        if self._latents is not None and self.device.type == "cpu":
            # numpy takes rows faster than torch does; as integers, since it knows no bfloat16
            return torch.from_numpy(self._as_integers.take(rows.numpy(), axis=0)).view(self.dtype)
        if self._latents is not None:
            return torch.index_select(self._latents, 0, rows.to(self.device))
        samples = self._samples(rows).cpu().numpy()
        read = self.recording.latents(self._columns.tolist(), samples, dtype=_numpy(self.dtype))
        return torch.from_numpy(read).to(self.device, self.dtype)

    @functools.cached_property
    def _as_integers(self) -> NDArray[Any]:
        assert self._latents is not None
        return self._latents.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[self.dtype.itemsize]).numpy()

    def _samples(self, rows: Tensor) -> Tensor:
        """Sample numbers of rows."""
        if self._rows is None:
            return rows.to(self.device, torch.int64)
        return torch.index_select(self._rows, 0, rows.to(self.device))

    # ---------------------------------------------------------------------------------------------------- in batches

    def lookup(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Which recorded combination each row of `values` is, and how often that was recorded.

        Parameters
        ----------
        values : Tensor of shape (n_queries, n_variables)
            As stored numbers, in the order of the index's variables. NaN matches nothing.

        Returns
        -------
        combination : Tensor of int64 of shape (n_queries,)
            Row of `combinations`, with a tolerance the nearest; −1 where it was never recorded.
        count : Tensor of int64 of shape (n_queries,)
            With a tolerance, of all samples within it; 0 where it was never recorded.

        Raises
        ------
        InvalidInput
            `values` has another width.
        """
        if self._near is not None:
            wanted = self._combinations.as_stored(self._checked(values))
            matches, sizes = self._near.find(wanted)
            owner = np.repeat(np.arange(len(sizes)), sizes)
            counts = np.bincount(owner, weights=self._counts[matches], minlength=len(sizes)).astype(np.int64)
            nearest = self._near.nearest(wanted, matches, sizes)
            return torch.from_numpy(nearest).to(self.device), torch.from_numpy(counts).to(self.device)
        combination = self._find(values)
        return combination, torch.from_numpy(self._choose.counts[combination.cpu().numpy()]).to(self.device)

    def _find(self, values: Tensor) -> Tensor:
        return torch.from_numpy(self._combinations.find(self._checked(values))).to(self.device)

    def _checked(self, values: Tensor) -> NDArray[np.float64]:
        if values.ndim != 2 or values.shape[1] != len(self.variables):
            raise InvalidInput(
                f"index of {self.recording.name!r}: expected values of shape (n_queries, {len(self.variables)}) for "
                f"{', '.join(self.variables)}, got {tuple(values.shape)}",
                kind="values_shape",
            )
        return values.to("cpu", torch.float64).numpy()

    def sample(self, values: Tensor, generator: torch.Generator | None = None, n_matches: int = 1) -> Draw:
        """A counterfactual latent for each row of `values`, drawn uniformly among the samples that hold it.

        Parameters
        ----------
        values : Tensor of shape (n_queries, n_variables)
            As stored numbers (codes of categorical variables), in the order of the index's variables.
        generator : torch.Generator, optional
            On the index's device; torch's own by default.
        n_matches : int
            More than 1: the mean of so many draws, each among all matches, for recordings as noisy as a brain's.

        Returns
        -------
        Draw
            Latents of shape (n_queries, n_units), hits and sample numbers of shape (n_queries,), or for means
            (n_queries, n_matches). A miss has a latent of NaN and sample −1: an unrelated latent never stands in for one.

        Raises
        ------
        InvalidInput
            `values` has another width; `n_matches` is below 1.
        """
        if n_matches < 1:
            raise InvalidInput(f"sample: expected n_matches of 1 or more, got {n_matches}", kind="n_matches")
        if n_matches > 1:
            # batch after batch: on disk, draws of one batch are neighbours, and the mean of neighbours is not that of random ones
            draws = [self.sample(values, generator) for _ in range(n_matches)]
            latents = torch.stack([draw.latents for draw in draws]).mean(dim=0)
            return Draw(latents, draws[0].hit, torch.stack([draw.samples for draw in draws], dim=1))
        if self._near is not None:
            matches, sizes = self._near.find(self._combinations.as_stored(self._checked(values)))
            share = shares(torch.from_numpy(sizes), generator, self.device).cpu().numpy()
            return self.draw(
                torch.from_numpy(self._near.pick(matches, sizes, self._counts, share)).to(self.device), generator
            )
        return self.draw(self._find(values), generator)

    def draw(self, combination: Tensor, generator: torch.Generator | None = None) -> Draw:
        """`sample` for combinations that were looked up before; what a loop over the same values does again and again.

        Parameters
        ----------
        combination : Tensor of int64 of shape (n_queries,)
            Rows of `combinations`, −1 for a miss, as `lookup` gives them; on the index's device.
        generator : torch.Generator, optional
            On the index's device; torch's own by default.

        Returns
        -------
        Draw
        """
        return self._drawn(*self._choose.draw(combination, generator))

    @property
    def replayable(self) -> bool:
        """Whether `draw_at` is there: latents are held, and values must be equal, not near."""
        return self._latents is not None and self._near is None

    def draw_at(self, combination: Tensor, share: Tensor) -> Draw:
        """`draw` with its uniform numbers given: on a GPU the same operations whatever they are, as a CUDA graph needs.

        Parameters
        ----------
        combination : Tensor of int64 of shape (n_queries,)
        share : Tensor of float64 of shape (n_queries,)
            In [0, 1), as `draw` takes them from its generator; may be used up.

        Returns
        -------
        Draw

        Raises
        ------
        InvalidInput
            The index is not `replayable`.
        """
        if not (self.replayable and isinstance(self._choose, Ordered)):
            raise InvalidInput(
                f"index of {self.recording.name!r}: draw_at needs latents that are held and values without a tolerance",
                kind="not_held",
            )
        return self._drawn(*self._choose.at(combination, share))

    def _drawn(self, rows: Tensor, hit: Tensor) -> Draw:
        hit = hit.to(self.device)
        latents, samples = self._at(rows), self._samples(rows)
        if self.device.type != "cpu" or not hit.all():  # elsewhere, to look would be to wait
            latents.masked_fill_(~hit[:, None], torch.nan)  # a copy, so in place is safe
            samples = torch.where(hit, samples, -1)
        return Draw(latents, hit, samples)

    def coverage(self, values: Tensor) -> float:
        """Share of the rows of `values`, shape (n_queries, n_variables), that something recorded holds.

        Raises
        ------
        InvalidInput
            `values` has another width, or no rows.
        """
        _, count = self.lookup(values)
        if count.numel() == 0:
            raise InvalidInput("coverage: no values were asked for", kind="values_shape")
        return float((count > 0).double().mean())

    def means(self) -> Means:
        """Mean latent of each recorded combination of values.

        Returns
        -------
        Means
            Means are summed in double precision and given in the latents' own.
        """
        # on the CPU: elsewhere `index_add_` sums in any order
        sums = torch.zeros(self.n_values, self.n_units, dtype=torch.float64)
        at_once = max(1, 2**23 // max(1, self.n_units))  # 64 MiB of doubles
        for start in range(0, self._choose.n_rows, at_once):
            owner = torch.from_numpy(self._choose.owners(start, start + at_once))
            rows = start + torch.nonzero(owner >= 0)[:, 0]
            if len(rows):
                sums.index_add_(0, owner[rows - start], self._at(rows).double().cpu())
        means = sums.to(self.device) / self.counts[:, None]
        return Means(self.combinations, means.to(self.dtype), self.counts)


def _as_stored(stored: np.dtype[Any], wanted: torch.dtype, device: torch.device) -> bool:
    """Whether latents can be the recording's own array."""
    return device.type == "cpu" and wanted != torch.bfloat16 and stored == _numpy(wanted)


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy precision that holds `dtype` (bfloat16 has none of its own)."""
    return np.dtype({torch.float16: np.float16, torch.float64: np.float64}.get(dtype, np.float32))
