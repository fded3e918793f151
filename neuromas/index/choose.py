"""Draws samples that hold certain combinations of values: among samples ordered in memory, or grouped on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor


class Draw(NamedTuple):
    """Counterfactual latents drawn for a batch of values; see `CLIndex.sample`."""

    latents: Tensor
    """Shape (n_queries, n_units); NaN if no recorded latent holds the values."""
    hit: Tensor
    """Shape (n_queries,), bool: whether a recorded latent holds the values."""
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
    """Shape (n_values,), int64: number of samples of each mean."""


class Ordered:
    """Samples in order of combinations, in memory. Draws are independent and uniform.

    Parameters
    ----------
    order : ndarray of int64, shape (n_samples,)
        Rows of the latents, ordered by combination.
    counts : ndarray of int64, shape (n_values,)
        Number of rows of each combination.
    n_rows : int
        Number of latents, with those that belong to no combination.
    device : torch.device
    """

    def __init__(self, order: NDArray[np.int64], counts: NDArray[np.int64], n_rows: int, device: torch.device) -> None:
        # the last combination has no row: −1 leads there
        self.counts = np.append(counts, 0)
        self.starts = np.append(np.cumsum(counts) - counts, 0)
        self.order = order.astype(np.int32) if n_rows < 2**31 else order
        self.n_rows = n_rows
        self.device = device
        self._owners: NDArray[np.int32] | None = None
        self._on_device = tuple(torch.from_numpy(x).to(device) for x in (self.counts, self.starts, self.order))

    def draw(self, combination: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Row (0 where there is none) and hit for each combination; −1 is a miss. On the device, shape (n,)."""
        return self.at(combination, shares(combination, generator, self.device))

    def at(self, combination: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """`draw` with the uniform numbers `share` (n,) given; on a GPU they are used up."""
        # a share is below 1 by at least 2^-53, so that its product with a count, rounded, is below that
        if self.device.type == "cpu":  # numpy's calls cost a third of torch's, and batches are small
            numbers = combination.numpy()
            count = self.counts.take(numbers)
            place = (share.numpy() * count).astype(np.int64)
            place += self.starts.take(numbers)
            return torch.from_numpy(self.order.take(place)), torch.from_numpy(count > 0)
        counts, starts, order = self._on_device
        among = counts[combination]
        return torch.index_select(order, 0, share.mul_(among).to(torch.int64).add_(starts[combination])), among > 0

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """Combination of the rows from `start` to `stop` or the last, shape (n,)."""
        if self._owners is None:
            self._owners = np.full(self.n_rows, -1, dtype=np.int32)
            self._owners[self.order] = np.repeat(np.arange(len(self.counts)), self.counts)
        return self._owners[start:stop].astype(np.int64)

    def of(
        self, combinations: NDArray[np.int64], n: int | None, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], int]:
        """Rows of some combinations in ascending order, or `n` of them in random order; and how many there are."""
        spans = zip(self.starts[combinations], self.counts[combinations], strict=True)
        members = np.concatenate([self.order[start : start + count] for start, count in spans])
        rows = np.sort(members).astype(np.int64)
        return (rows if n is None else generator.permutation(rows)[:n]), rows.size


class Windows:
    """Samples grouped on disk, shuffled within each group: a run of neighbours is a fair draw.

    Draws of one combination in one batch are neighbours that begin at a random place. At the end of the group they go on at its
    beginning. Each draw is uniform. Draws of one batch differ until the group is used up.

    Parameters
    ----------
    starts, counts : ndarray of int64, shape (n_groups,)
        First sample and number of samples of each group.
    owners : ndarray of int64, shape (n_groups,)
        Combination that each group belongs to, ascending. Several groups can belong to one combination.
    n_values : int
    usable : ndarray of bool, shape (n_samples,), optional
        Samples that can be drawn. By default all.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        counts: NDArray[np.int64],
        owners: NDArray[np.int64],
        n_values: int,
        usable: NDArray[np.bool_] | None,
    ) -> None:
        self.starts, self.stops, self.usable = starts, starts + counts, usable
        self._places: dict[
            int, NDArray[np.int32 | np.int64]
        ] = {}  # of groups drawn from, where a split leaves some out
        if usable is not None:
            counts = np.array([np.count_nonzero(usable[a:b]) for a, b in zip(starts, self.stops, strict=True)])
        self.group_counts = counts
        self.first = np.searchsorted(owners, np.arange(n_values + 1))  # (n_values + 1,): where each one's groups begin
        self.before = np.concatenate([[0], np.cumsum(counts)])
        totals = self.before[self.first[1:]] - self.before[self.first[:-1]]
        self.counts = np.append(totals, 0)

    def draw(self, combination: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Row (0 where there is none) and hit for each combination; −1 is a miss."""
        numbers = combination.cpu().numpy()
        share = shares(combination, generator, combination.device).cpu().numpy()
        count = self.counts[numbers]
        hit = count > 0
        # a place among all samples of the combination says which of its groups is drawn from, and where the run begins
        place = self.before[self.first[np.where(hit, numbers, 0)]] + (share * count).astype(np.int64)
        group = np.searchsorted(self.before, place, side="right") - 1
        rows = np.zeros(len(numbers), dtype=np.int64)
        for chosen_group in np.unique(group[hit]):
            draws = np.flatnonzero(hit & (group == chosen_group))
            rows[draws] = self._run(chosen_group, int(place[draws[0]] - self.before[chosen_group]), draws.size)
        return torch.from_numpy(rows), torch.from_numpy(hit)

    @property
    def n_rows(self) -> int:
        return int(self.stops.max())

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """Combination of the rows from `start` to `stop` or the last, shape (n,); −1 for none."""
        owner_of_row = np.full(min(stop, self.n_rows) - start, -1)
        for group in np.flatnonzero((self.starts < stop) & (self.stops > start)):
            owner = np.searchsorted(self.first, group, side="right") - 1
            owner_of_row[max(self.starts[group] - start, 0) : self.stops[group] - start] = owner
        if self.usable is not None:
            owner_of_row[~self.usable[start:stop][: len(owner_of_row)]] = -1
        return owner_of_row

    def of(
        self, combinations: NDArray[np.int64], n: int | None, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], int]:
        """Rows of some combinations in ascending order, or `n` of them in random order; and how many there are."""
        groups = np.concatenate(
            [np.arange(self.first[combination], self.first[combination + 1]) for combination in combinations]
        )
        counts = self.group_counts[groups]
        total = int(counts.sum())
        if n is None or n >= total:
            shares: Sequence[int] = counts.tolist()
        else:
            drawn = generator.choice(total, n, replace=False, shuffle=False)
            shares = np.bincount(
                np.searchsorted(np.cumsum(counts), drawn, side="right"), minlength=len(groups)
            ).tolist()
        runs = [
            self._run(group, int(generator.integers(count)), share)
            for group, count, share in zip(groups, counts, shares, strict=True)
            if share
        ]
        rows = np.sort(np.concatenate(runs))
        return (rows if n is None else generator.permutation(rows)), total

    def _run(self, group: int, begin: int, n: int) -> NDArray[np.int64]:
        """`n` samples of a group, from its usable sample number `begin` on."""
        places = (begin + np.arange(n)) % self.group_counts[group]
        start, stop = self.starts[group], self.stops[group]
        if self.usable is None:
            return start + places
        if group not in self._places:
            usable_places = np.flatnonzero(self.usable[start:stop])
            self._places[group] = usable_places.astype(np.int32) if stop - start < 2**31 else usable_places
        return start + self._places[group][places].astype(np.int64)


def shares(combination: Tensor, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), shape (n,), in double precision: single has no number for some of 2²⁴ members."""
    return torch.rand(combination.shape, generator=generator, device=device, dtype=torch.float64)


def near(values: NDArray[np.float64], wanted: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether rows of values (…, n_variables) lie within the tolerance of the wanted values. The limit itself counts.

    Examples
    --------
    >>> near(np.array([[0.3, 1.0], [0.3, 2.0]]), np.array([0.1, 1.0]), np.array([0.2, 0.0])).tolist()
    [True, False]
    """
    return np.asarray((np.abs(values - wanted) <= tolerance * (1 + _ROUNDING)).all(axis=-1))


class Near:
    """Finds the combinations of values within a tolerance of the wanted values.

    Parameters
    ----------
    values : ndarray of float64, shape (n_values, n_variables)
        Recorded combinations.
    tolerance : ndarray of float64, shape (n_variables,)
        Largest difference of each value. 0 means equal.
    """

    def __init__(self, values: NDArray[np.float64], tolerance: NDArray[np.float64]) -> None:
        self._values, self._tolerance = values, tolerance
        self._loose = tolerance > 0
        self._exact, which = np.unique(values[:, ~self._loose] + 0.0, axis=0, return_inverse=True)
        self._known = {row.tobytes(): number for number, row in enumerate(self._exact)}
        # a tree for each combination of the values that must be equal: distances in tolerances, the largest counts
        self._members = [np.flatnonzero(which.reshape(-1) == number) for number in range(len(self._exact))]
        self._trees = [KDTree(values[rows][:, self._loose] / tolerance[self._loose]) for rows in self._members]

    def find(self, wanted: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Matching combinations of every query, joined, and the number of matches of each query, shape (n_queries,)."""
        unique, which = np.unique(wanted, axis=0, return_inverse=True)
        by_query: list[NDArray[np.int64]] = []
        for row in unique:
            number = self._known.get((row[~self._loose] + 0.0).tobytes(), -1)
            point = row[self._loose] / self._tolerance[self._loose]
            if number < 0 or not np.isfinite(point).all():
                by_query.append(np.empty(0, dtype=np.int64))
                continue
            near = self._trees[number].query_ball_point(point, r=1 + _ROUNDING, p=np.inf, return_sorted=True)
            by_query.append(self._members[number][np.asarray(near, dtype=np.int64)])
        matches = [by_query[number] for number in which.reshape(-1)]
        sizes = np.array([len(match) for match in matches], dtype=np.int64)
        return (np.concatenate(matches) if matches else np.empty(0, dtype=np.int64)), sizes

    def nearest(
        self, wanted: NDArray[np.float64], matches: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The nearest match of each query; −1 if it has none; shape (n_queries,)."""
        owner = np.repeat(np.arange(len(sizes)), sizes)
        off = np.abs(self._values[matches] - wanted[owner])[:, self._loose] / self._tolerance[self._loose]
        order = np.lexsort((off.max(axis=1), owner))
        nearest = np.full(len(sizes), -1)
        nearest[sizes > 0] = matches[order[np.cumsum(sizes)[sizes > 0] - sizes[sizes > 0]]]
        return nearest

    @staticmethod
    def pick(
        matches: NDArray[np.int64],
        sizes: NDArray[np.int64],
        counts: NDArray[np.int64],
        share: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """A match of each query, drawn with the odds of its number of samples; −1 if there is none. `share` is in [0, 1)."""
        bounds = np.concatenate([[0], np.cumsum(counts[matches])])
        last = np.cumsum(sizes)
        low, high = bounds[last - sizes], bounds[last]
        picked = np.searchsorted(bounds, low + (share * (high - low)).astype(np.int64), side="right") - 1
        return np.where(sizes > 0, matches[np.minimum(picked, len(matches) - 1)] if len(matches) else -1, -1)


_ROUNDING = 1e-9
"""In tolerances: what differs by just the tolerance counts as within it."""
