"""The counterfactual-latent index: from values of causal variables to recorded latents that hold them.

A counterfactual latent is a recorded latent whose variables have the values asked for. It is looked up; nothing is run.
"""

from __future__ import annotations

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
from neuromas.index.query import ANY, Any_, Predicate, describe, matches
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
        What to look in. It is read, never run.
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
        self._columns = recording.unit_positions(units)
        self.units = [recording.unit_names[column] for column in self._columns]

        rows = self._usable_rows(units, eligible_only)
        self.n_samples = int(rows.size)
        self._grouped(rows)
        latents = recording.latents(units, None if rows.size == recording.n_samples else rows)
        # (n_samples, n_units): rows in the recording's order
        self._latents = torch.from_numpy(latents).to(self.device, dtype)

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
            raise InvalidInput(
                f"index of {recording.name!r}: none of {recording.n_samples} samples is left: {self.n_ineligible} are "
                f"not eligible, {self.n_outside_split} outside the split, {self.n_incomplete} incomplete in the "
                f"{len(self.units)} units asked for",
                kind="no_samples",
            )
        return rows

    def _grouped(self, rows: NDArray[np.int64]) -> None:
        """Number the combinations of values that occur, in ascending order, and sort the samples by them."""
        dataset = self.recording.dataset
        self._dtypes = tuple(dataset[name].dtype for name in self.variables)
        levels: list[NDArray[Any]] = []  # per variable, its values in ascending order
        prefixes: list[NDArray[Any]] = []  # per variable, the combinations of it and those before, as keys
        key = np.zeros(rows.size, dtype=np.int64)
        for name in self.variables:
            unique, code = _unique(np.asarray(dataset[name].values)[rows])
            levels.append(unique.astype(np.float64))
            # Numbered anew at each variable: a key is below n_samples × n_levels, so it never overflows.
            prefix, key = _unique(key * unique.size + code)
            prefixes.append(prefix)
        order = np.argsort(key, kind="stable")
        counts = np.bincount(key, minlength=prefixes[-1].size)
        starts = np.cumsum(counts) - counts
        values = np.stack(
            [np.asarray(dataset[name].values)[rows[order[starts]]].astype(np.float64) for name in self.variables],
            axis=1,
        )
        self._values = values  # (n_values, n_variables)
        self._counts = counts  # (n_values,)
        device = self.device
        self._levels = [torch.from_numpy(level).to(device) for level in levels]
        self._prefixes = [torch.from_numpy(prefix).to(device) for prefix in prefixes]
        self._rows = torch.from_numpy(rows).to(device)  # (n_samples,): row of the latents → sample number
        self._order = torch.from_numpy(order).to(device)  # (n_samples,): rows of the latents, by combination
        self._group_starts = torch.from_numpy(starts).to(device)  # (n_values,): where each begins in the order
        self._group_counts = torch.from_numpy(counts).to(device)

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
        """Every latent of the index, shape (n_samples, n_units), in the recording's order."""
        return self._latents

    @property
    def samples(self) -> Tensor:
        """Sample number in the recording of each of `latents`, shape (n_samples,)."""
        return self._rows

    @property
    def combinations(self) -> Tensor:
        """Recorded combinations as numbers, ascending, shape (n_values, n_variables), float64."""
        return torch.from_numpy(self._values).to(self.device)

    @property
    def counts(self) -> Tensor:
        """How often each of `combinations` was recorded, shape (n_values,)."""
        return self._group_counts

    def values(self) -> pd.DataFrame:
        """Every combination of values recorded, and how often.

        Returns
        -------
        pandas.DataFrame
            One row per combination, one column per variable (meanings of categorical ones), and ``n_samples``.
        """
        columns: dict[str, object] = {}
        for column, spec in enumerate(self.specs):
            numbers = self._values[:, column]
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
                hit, off = matches(predicate, spec, self._values[:, column], self._dtypes[column])
                fulfilled &= hit
                distance += off
        if not fulfilled.any():
            raise NoMatch(
                f"nothing in {self.recording.name!r} has {describe(query)}; nearest recorded: {self._nearest(distance)}"
            )
        starts, order = self._group_starts.cpu().numpy(), self._order.cpu().numpy()
        found = np.sort(
            np.concatenate(
                [order[starts[group] : starts[group] + self._counts[group]] for group in np.flatnonzero(fulfilled)]
            )
        )
        if n is not None:
            if found.size < n:
                warnings.warn(
                    f"only {found.size} of the {n} samples asked for: no more in {self.recording.name!r} have "
                    f"{describe(query)}",
                    FewMatchesWarning,
                    stacklevel=2,
                )
            found = np.random.default_rng(seed).permutation(found)[:n]
        return self._labelled(found)

    def _nearest(self, distance: NDArray[np.float64], most: int = 3) -> str:
        nearest = np.lexsort((-self._counts, distance))[:most]
        told = []
        for group in nearest:
            values = (f"{s.name}={s.label(v)}" for s, v in zip(self.specs, self._values[group], strict=True))
            told.append(f"{' '.join(values)} ({self._counts[group]:,} samples)")
        return ", ".join(told)

    def _labelled(self, rows: NDArray[np.int64]) -> xr.DataArray:
        """Latents of some of the index's samples, with the recording's coordinates."""
        samples = self._rows.cpu().numpy()[rows]
        dataset = self.recording.dataset
        chosen = torch.from_numpy(rows).to(self.device)
        coordinates: dict[str, object] = {dims.SAMPLE: samples}
        for name, coordinate in dataset.coords.items():
            if name == dims.SAMPLE:
                continue
            at = samples if coordinate.dims == (dims.SAMPLE,) else self._columns
            coordinates[str(name)] = (coordinate.dims, coordinate.values[at], coordinate.attrs)
        return xr.DataArray(
            self._latents[chosen].cpu().numpy(),
            dims=(dims.SAMPLE, dims.UNIT),
            coords=coordinates,
            name=dims.ACTIVITY,
            attrs={"units": self.recording.manifest.units, "recording": self.recording.name},
        )

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
            Row of `combinations`; −1 where it was never recorded.
        count : Tensor of int64 of shape (n_queries,)
            0 where it was never recorded.

        Raises
        ------
        InvalidInput
            `values` has another width.
        """
        if values.ndim != 2 or values.shape[1] != len(self.variables):
            raise InvalidInput(
                f"index of {self.recording.name!r}: expected values of shape (n_queries, {len(self.variables)}) for "
                f"{', '.join(self.variables)}, got {tuple(values.shape)}",
                kind="values_shape",
            )
        wanted = values.to(self.device, torch.float64)
        hit = torch.ones(len(wanted), dtype=torch.bool, device=self.device)
        key = torch.zeros(len(wanted), dtype=torch.int64, device=self.device)
        for column, (levels, prefixes) in enumerate(zip(self._levels, self._prefixes, strict=True)):
            asked = wanted[:, column]
            if self._dtypes[column] == np.float32:
                asked = asked.to(torch.float32).to(torch.float64)  # as the recorded values were rounded
            code = torch.searchsorted(levels, asked.contiguous()).clamp_(max=levels.numel() - 1)
            hit = hit & (levels[code] == asked)
            key = key * levels.numel() + code
            position = torch.searchsorted(prefixes, key).clamp_(max=prefixes.numel() - 1)
            hit = hit & (prefixes[position] == key)
            key = position
        count = torch.where(hit, self._group_counts[key], 0)
        return torch.where(hit, key, -1), count

    def sample(self, values: Tensor, generator: torch.Generator | None = None) -> Draw:
        """A counterfactual latent for each row of `values`, drawn uniformly among the samples that hold it.

        Parameters
        ----------
        values : Tensor of shape (n_queries, n_variables)
            As stored numbers (codes of categorical variables), in the order of the index's variables.
        generator : torch.Generator, optional
            On the index's device; torch's own by default.

        Returns
        -------
        Draw
            Latents of shape (n_queries, n_units), hits and sample numbers of shape (n_queries,). A miss has a latent of
            NaN and sample −1: an unrelated latent never stands in for one.

        Raises
        ------
        InvalidInput
            `values` has another width.
        """
        combination, count = self.lookup(values)
        hit = count > 0
        # In double precision: in single, a group of more than 2**24 samples would have members that are never drawn.
        share = torch.rand(count.shape, generator=generator, device=self.device, dtype=torch.float64)
        offset = torch.minimum((share * count).to(torch.int64), (count - 1).clamp_(min=0))
        row = self._order[self._group_starts[combination.clamp(min=0)] + offset]
        latents = self._latents[row].masked_fill_(~hit[:, None], torch.nan)  # a copy, so in place is safe
        return Draw(latents, hit, torch.where(hit, self._rows[row], -1))

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
        group = torch.empty(self.n_samples, dtype=torch.int64, device=self.device)
        numbers = torch.arange(self.n_values, device=self.device)
        group[self._order] = torch.repeat_interleave(numbers, self._group_counts)
        sums = torch.zeros(self.n_values, self.n_units, dtype=torch.float64, device=self.device)
        rows = max(1, 2**23 // max(1, self.n_units))  # 64 MiB of doubles at a time
        for start in range(0, self.n_samples, rows):
            sums.index_add_(0, group[start : start + rows], self._latents[start : start + rows].double())
        means = sums / self._group_counts[:, None]
        return Means(self.combinations, means.to(self._latents.dtype), self._group_counts)


def _unique(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(distinct values, ascending; position of each value among them), unsorted where integers are dense."""
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low <= 4 * values.size + 1024:
            shifted = values.astype(np.int64) - low
            present = np.zeros(high - low + 1, dtype=bool)
            present[shifted] = True
            unique = np.flatnonzero(present)
            return unique + low, (np.cumsum(present) - 1)[shifted]
    unique_values, inverse = np.unique(values, return_inverse=True)
    return unique_values, inverse.astype(np.int64)
