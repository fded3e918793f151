"""The counterfactual-latent index: from values of causal variables to recorded latents that hold them.

A counterfactual latent is a recorded latent whose variables hold the values of a request. It is looked up; nothing is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from neuromas import dims, seeds
from neuromas.errors import InvalidInput, NoMatch
from neuromas.index.choose import Draw, Means, Near, Ordered, shares
from neuromas.index.members import Selection
from neuromas.index.query import Predicate, checked_tolerance, describe, matching, nearest
from neuromas.recordings import looks
from neuromas.recordings.incomplete import MissingUnitsWarning
from neuromas.recordings.meanings import with_meanings
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import Split


class FewMatchesWarning(UserWarning):
    """Fewer samples than requested hold the values of a query."""


class CLIndex:
    """Which samples of a recording hold which values.

    Parameters
    ----------
    recording : Recording
        The recording to search. It is read, never run. If it is in memory in the index's precision, its activity is not
        copied: do not write to it while you use the index.
    variables : sequence of str
        Causal variables by whose values latents are found.
    split : Split, optional
        Use only its samples, so that training and held-out trials do not mix.
    units : sequence of str, optional
        Units whose activity makes the latents; by default all. Samples in which one of these units was not recorded are
        left out.
    device : str or torch.device
        Where latents are kept and drawn.
    eligible_only : bool
        Whether to leave out samples that the recording declares not eligible.
    dtype : torch.dtype
        Precision of the latents.
    tolerance : mapping of str to float, optional
        Variable → how much the values of a counterfactual latent may differ from the requested ones in `sample`, `lookup`
        and `coverage`. It is for continuous variables, which rarely take a value twice. In `query`, use `between`.
    hold : bool, optional
        Whether to keep the latents in memory. The default is yes, unless the recording was opened lazily and is stored
        grouped by these variables (`neuromas.recordings.store.store.RecordingStore.register`, ``group_by``). Then the index is a
        table of values, and latents are read when they are drawn. With ``False``, latents always stay on disk; if the
        recording is not grouped, each latent drawn reads a chunk.

    Attributes
    ----------
    n_samples : int
        Number of samples in the index.
    n_ineligible, n_outside_split, n_incomplete : int
        Samples left out, in this order, each counted once.

    Raises
    ------
    NotFound
        A variable or unit does not exist. The error lists those that do.
    InvalidInput
        There is no variable, one is listed twice, the split is of another recording, or no sample is left.

    Examples
    --------
    >>> recording = Recording.from_arrays(
    ...     np.arange(8.0).reshape(4, 2), {"phase": ["demo", "demo", "resp", "resp"], "count": [1, 2, 1, 1]}, name="toy"
    ... )
    >>> index = CLIndex(recording, ["phase", "count"])
    >>> latents = index.query({"phase": "demo"})
    >>> latents.values
    array([[0., 1.],
           [2., 3.]], dtype=float32)
    >>> latents["phase"].values.tolist(), latents["count"].values.tolist()
    (['demo', 'demo'], [1, 2])
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
        self._dtypes = tuple(recording.dataset[name].dtype for name in self.variables)
        columns = recording.unit_positions(units)
        self.units = [recording.unit_names[column] for column in columns]
        selection = Selection(recording, self.variables, split, columns, eligible_only, hold)
        members = selection.members(self.device, dtype)
        self._choose, self._combinations, self._latents = members.choose, members.combinations, members.latents
        self._left_out = members.left_out
        self._counts = self._choose.counts[:-1]
        self.n_samples = int(self._counts.sum())
        self.tolerance = checked_tolerance(recording.name, self.specs, tolerance or {})
        self._near = None
        if self.tolerance:
            widths = np.array([self.tolerance.get(name, 0.0) for name in self.variables])
            self._near = Near(self._combinations.values, widths)

    @property
    def n_ineligible(self) -> int:
        """Samples left out because they are not eligible."""
        return self._left_out.n_ineligible

    @property
    def n_outside_split(self) -> int:
        """Eligible samples left out because they are not in the split."""
        return self._left_out.n_outside_split

    @property
    def n_incomplete(self) -> int:
        """Other samples left out because one of the units was not recorded."""
        return self._left_out.n_incomplete

    def __repr__(self) -> str:
        head = (
            f"<CLIndex of {self.recording.name!r} (sample: {self.n_samples:,}, combination: {self.n_values:,}, "
            f"unit: {self.n_units:,})>"
        )
        rows = [(spec.name, f"{spec.type}: {self._values_of(column)}") for column, spec in enumerate(self.specs)]
        left_out = str(self._left_out)
        return looks.lines(head, rows, [f"Left out: {left_out}"] if left_out else [])

    def _values_of(self, column: int) -> str:
        spec, numbers = self.specs[column], np.unique(self._combinations.values[:, column])
        return looks.range_of(spec, numbers) if spec.meanings is None else ", ".join(map(spec.label, numbers.tolist()))

    def _repr_html_(self) -> str:
        facts = [
            ("samples", f"{self.n_samples:,}" + ("" if self.split is None else f" of the {self.split.name} part")),
            ("left out", str(self._left_out)),
            ("combinations", f"{self.n_values:,}, with {self._counts.min():,} to {self._counts.max():,} samples each"),
            ("units", f"{self.n_units:,}"),
            ("tolerance", ", ".join(f"{name} ±{width:g}" for name, width in self.tolerance.items())),
            ("latents", f"{self.dtype} on {self.device}" + (", on disk" if self._latents.held is None else "")),
        ]
        rows = []
        for column, spec in enumerate(self.specs):
            values, which = np.unique(self._combinations.values[:, column], return_inverse=True)
            counts = np.bincount(which, weights=self._counts).astype(np.int64)
            rows.append((spec.name, spec.type, looks.counted(spec, values, counts)))
        heads = ("variable", "type", "values (samples)")
        return looks.page(f"CLIndex of {self.recording.name}", [fact for fact in facts if fact[1]], heads, rows)

    @property
    def n_units(self) -> int:
        """Width of the latents."""
        return len(self.units)

    @property
    def n_values(self) -> int:
        """Number of recorded combinations of values."""
        return len(self._counts)

    @property
    def latents(self) -> Tensor:
        """Every latent of the index, shape (n_samples, n_units), in the recording's order; a copy.

        Raises
        ------
        InvalidInput
            The latents are on disk, not in memory.
        """
        if self._latents.held is None:
            raise InvalidInput(
                f"index of {self.recording.name!r}: its latents are left on disk; query or sample it, or make it with"
                " hold=True",
                kind="not_held",
            )
        return self._latents.held[self._own_rows()]

    @property
    def samples(self) -> Tensor:
        """Sample number in the recording of each of `latents`, shape (n_samples,), ascending."""
        return self._latents.samples(self._own_rows())

    def _own_rows(self) -> Tensor:
        """Rows of the latents that belong to a combination, shape (n_samples,)."""
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
        """Every recorded combination of values, and how often it was recorded.

        Returns
        -------
        pandas.DataFrame
            One row per combination, one column per variable (categorical variables as their meanings), and ``n_samples``.
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
        """Recorded latents that hold certain values.

        Parameters
        ----------
        query : mapping of str to predicate
            Variable → a value (meaning or number), several values (list, set or tuple), `neuromas.index.query.between`, or
            `ANY`. A variable of the index that is not mentioned may have any value.
        n : int, optional
            Number of latents to draw, uniformly among all matches and without replacement. By default, all matches in the
            recording's order.
        seed : int
            Equal seeds draw equal latents.

        Returns
        -------
        xarray.DataArray
            Dims (sample, unit), with every coordinate of the samples and units; ``sample`` is the sample's number in the
            recording. Categorical variables and tokens are their meanings, not codes.

        Raises
        ------
        NoMatch
            No recorded latent holds the values. The error names the nearest recorded combinations.
        NotFound
            The recording has no such variable. The error lists those that it has.
        InvalidInput
            The variable cannot take the value, the index was not made with the variable, or `n` is below 1.

        Warns
        -----
        FewMatchesWarning
            Fewer than `n` samples match; all of them are returned.
        MissingUnitsWarning
            A few units cost a third of the samples or more.
        """
        if n is not None and n < 1:
            raise InvalidInput(f"query: expected n of at least 1, got {n}", kind="invalid_query")
        for name in query:
            self.recording.spec(name)
            if name not in self.variables:
                raise InvalidInput(
                    f"query: this index has the variables {', '.join(self.variables)}, not {name!r}; make an index with "
                    f"{name!r} to query it",
                    kind="invalid_query",
                )
        if self._left_out.costly:
            warnings.warn(f"{self.recording.name}: {self._left_out.costly}", MissingUnitsWarning, stacklevel=2)
        values = self._combinations.values
        fulfilled, distance = matching(query, self.specs, values, self._dtypes)
        if not fulfilled.any():
            known = nearest(self.specs, values, self._counts, distance)
            raise NoMatch(f"no sample of {self.recording.name!r} has {describe(query)}; nearest recorded: {known}")
        rows, n_matches = self._choose.of(np.flatnonzero(fulfilled), n, seeds.generator(seed))
        if n is not None and n_matches < n:
            warnings.warn(
                f"only {n_matches} of the {n} requested samples: no other sample of {self.recording.name!r} has "
                f"{describe(query)}",
                FewMatchesWarning,
                stacklevel=2,
            )
        return self._labelled(rows)

    def _labelled(self, rows: NDArray[np.int64]) -> xr.DataArray:
        """Latents of some of the index's rows, with the recording's coordinates."""
        recording = self.recording
        samples = self._latents.samples(torch.from_numpy(rows)).cpu().numpy()
        coordinates: dict[str, xr.Variable] = {dims.SAMPLE: xr.Variable((dims.SAMPLE,), samples)}
        on_sample = recording.coordinates_at(samples)
        for key, coordinate in recording.dataset.coords.items():
            name = str(key)
            if name != dims.SAMPLE:
                values = on_sample[name] if name in on_sample else coordinate.values[self._latents.columns]
                coordinates[name] = xr.Variable(coordinate.dims, values, coordinate.attrs)
        sampling = recording.manifest.sampling
        seconds = sampling.seconds(on_sample[dims.STEP])
        if seconds is not None and dims.TIME_S not in coordinates:
            attributes = {"units": "s", "long_name": f"centre of the bin, from {sampling.aligned_to or 'time zero'}"}
            coordinates[dims.TIME_S] = xr.Variable((dims.SAMPLE,), seconds, attributes)
        activity = (dims.SAMPLE, dims.UNIT), self._latents.at(torch.from_numpy(rows)).cpu().numpy()
        dataset = with_meanings(xr.Dataset({dims.ACTIVITY: activity}, coords=coordinates), recording.manifest)
        return dataset[dims.ACTIVITY].assign_attrs(units=recording.manifest.units, recording=recording.name)

    # ---------------------------------------------------------------------------------------------------- in batches

    def lookup(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The recorded combination that each row of `values` is, and how often it was recorded.

        Parameters
        ----------
        values : Tensor of shape (n_queries, n_variables)
            As stored numbers, in the order of the index's variables. NaN matches nothing.

        Returns
        -------
        combination : Tensor of int64 of shape (n_queries,)
            Row of `combinations`; with a tolerance, the nearest. −1 if it was never recorded.
        count : Tensor of int64 of shape (n_queries,)
            Number of samples; with a tolerance, of all samples within it. 0 if it was never recorded.

        Raises
        ------
        InvalidInput
            `values` has another width.
        """
        if self._near is not None:
            stored = self._combinations.as_stored(self._checked(values))
            matches, sizes = self._near.find(stored)
            owner = np.repeat(np.arange(len(sizes)), sizes)
            counts = np.bincount(owner, weights=self._counts[matches], minlength=len(sizes)).astype(np.int64)
            nearest = self._near.nearest(stored, matches, sizes)
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
                kind="shape_mismatch",
            )
        return values.to("cpu", torch.float64).numpy()

    def sample(self, values: Tensor, generator: torch.Generator | None = None, n_matches: int = 1) -> Draw:
        """A counterfactual latent for each row of `values`, drawn uniformly among the samples that hold these values.

        Parameters
        ----------
        values : Tensor of shape (n_queries, n_variables)
            As stored numbers (codes of categorical variables), in the order of the index's variables.
        generator : torch.Generator, optional
            On the index's device; by default torch's global generator.
        n_matches : int
            If above 1, each latent is the mean of this many draws, each among all matches. This is for noisy recordings, such
            as those of brains.

        Returns
        -------
        Draw
            Latents of shape (n_queries, n_units), hits of shape (n_queries,), and sample numbers of shape (n_queries,), or
            (n_queries, n_matches) for means. A miss has a latent of NaN and sample −1; it is never replaced by another latent.

        Raises
        ------
        InvalidInput
            `values` has another width; `n_matches` is below 1.
        """
        if n_matches < 1:
            raise InvalidInput(f"sample: expected n_matches of 1 or more, got {n_matches}", kind="invalid_option")
        if n_matches > 1:
            # batch after batch: on disk, draws of one batch are neighbours, and a mean of neighbours is not a mean of random ones
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
        """`sample` for combinations that were looked up before, for loops over the same values.

        Parameters
        ----------
        combination : Tensor of int64 of shape (n_queries,)
            Rows of `combinations` as `lookup` returns them, −1 for a miss; on the index's device.
        generator : torch.Generator, optional
            On the index's device; by default torch's global generator.

        Returns
        -------
        Draw
        """
        return self._drawn(*self._choose.draw(combination, generator))

    @property
    def replayable(self) -> bool:
        """Whether `draw_at` can be used: latents are in memory, and there is no tolerance."""
        return self._latents.held is not None and self._near is None

    def draw_at(self, combination: Tensor, share: Tensor) -> Draw:
        """`draw` with uniform numbers as an argument. On a GPU the operations do not depend on them, as a CUDA graph needs.

        Parameters
        ----------
        combination : Tensor of int64 of shape (n_queries,)
        share : Tensor of float64 of shape (n_queries,)
            In [0, 1), as `draw` gets them from its generator. They may be overwritten.

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
        latents, samples = self._latents.at(rows), self._latents.samples(rows)
        if self.device.type != "cpu" or not hit.all():  # on a GPU, looking would mean waiting
            latents.masked_fill_(~hit[:, None], torch.nan)  # a copy, so in place is safe
            samples = torch.where(hit, samples, -1)
        return Draw(latents, hit, samples)

    def coverage(self, values: Tensor) -> float:
        """Share of the rows of `values`, shape (n_queries, n_variables), that a recorded latent holds.

        Raises
        ------
        InvalidInput
            `values` has another width, or no rows.
        """
        _, count = self.lookup(values)
        if count.numel() == 0:
            raise InvalidInput("coverage: expected at least one row of values, got none", kind="shape_mismatch")
        return float((count > 0).double().mean())

    def means(self) -> Means:
        """Mean latent of each recorded combination of values.

        Returns
        -------
        Means
            Means are computed in double precision and returned in that of the latents.
        """
        # on the CPU: elsewhere `index_add_` sums in any order
        sums = torch.zeros(self.n_values, self.n_units, dtype=torch.float64)
        at_once = max(1, 2**23 // max(1, self.n_units))  # 64 MiB of doubles
        for start in range(0, self._choose.n_rows, at_once):
            owner = torch.from_numpy(self._choose.owners(start, start + at_once))
            rows = start + torch.nonzero(owner >= 0)[:, 0]
            if len(rows):
                sums.index_add_(0, owner[rows - start], self._latents.at(rows).double().cpu())
        means = sums.to(self.device) / self.counts[:, None]
        return Means(self.combinations, means.to(self.dtype), self.counts)
