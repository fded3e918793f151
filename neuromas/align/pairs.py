"""Pairs drawn between two sides: which samples donate, which receive, and what should follow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.align.side import Side, meeting, refuse
from neuromas.causal.counterfactual import Pairs, draw_pairs
from neuromas.causal.model import Sequences, join_sequences
from neuromas.errors import InvalidInput
from neuromas.recordings.meeting import Mismatch, mapped_mismatch, unlike

_SHOWN_VALUES = 10  # in an error


@dataclass(frozen=True)
class Direction:
    """The side that donates and the side that receives."""

    source: Side = field(repr=False)
    target: Side = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.source.name}->{self.target.name}"


@dataclass(frozen=True)
class PairSet:
    """Pairs of one direction and one part, each with the subspace that it interchanges.

    Attributes
    ----------
    direction : Direction
    part : str
    source, target : ndarray of int64, shape (n_pairs,)
        Rows of the recordings.
    values : ndarray of float64, shape (n_pairs, n_variables)
        Expected values V*.
    continuation : Sequences or None
        The tokens that should follow; None without a causal model.
    subspace : ndarray of int64, shape (n_pairs,)
        Number of the subspace.
    resampled : int
        Draws that were discarded because V* is impossible.
    lengths : ndarray of int64, shape (n_pairs,), or None
        Stepwise: the number of steps, from the first on, at which each pair is intervened on.
    """

    direction: Direction
    part: str
    source: NDArray[np.int64] = field(repr=False)
    target: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    continuation: Sequences | None = field(repr=False)
    subspace: NDArray[np.int64] = field(repr=False)
    resampled: int
    lengths: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.source)

    def latents(self, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Latents of the source and of the target of these pairs: (n, n_units), or stepwise (n, n_steps, n_units)."""
        source, target = self.direction.source, self.direction.target
        if self.lengths is None:
            return source.take(self.source[rows]), target.take(self.target[rows])
        n_steps = int(self.lengths[rows].max())
        return source.take_steps(self.source[rows], n_steps), target.take_steps(self.target[rows], n_steps)


def draw_pair_set(
    direction: Direction,
    part: str,
    n_pairs: int,
    subspaces: Sequence[Subspace],
    seed: Sequence[int],
    *,
    stepwise: bool = False,
) -> PairSet:
    """Draw pairs of a direction, spread evenly over the subspaces.

    Parameters
    ----------
    direction : Direction
    part : {"train", "validation", "test"}
    n_pairs : int
    subspaces : sequence of Subspace
    seed : sequence of int
    stepwise : bool
        Interchange at every step up to the source's.

    Returns
    -------
    PairSet

    Raises
    ------
    InvalidInput
        The two sides share no value of a subspace's variables; or, stepwise, a subspace is not that of all variables.
    """
    source, target = direction.source, direction.target
    check_values([direction], part, subspaces)
    generator = np.random.default_rng(list(seed))
    drawn: list[Pairs] = []
    for share, subspace in zip(np.array_split(np.arange(n_pairs), len(subspaces)), subspaces, strict=True):
        columns, source_columns = paired_columns(direction, subspace)
        if stepwise and len(columns) < len(target.variables):
            raise InvalidInput(
                "a stepwise interchange moves all variables of the source's steps: expected the subspace 'full', got"
                f" {subspace.name!r}",
                kind="not_stepwise",
            )
        drawn.append(
            draw_pairs(
                source.candidates[part],
                target.candidates[part],
                columns,
                len(share),
                source_columns=source_columns,
                model=target.model,
                seed=generator,
            )
        )
    order = generator.permutation(n_pairs) if len(drawn) > 1 else np.arange(n_pairs)
    sources = np.concatenate([pairs.source for pairs in drawn])[order]
    continuations = [pairs.continuation for pairs in drawn if pairs.continuation is not None]
    return PairSet(
        direction,
        part,
        sources,
        np.concatenate([pairs.target for pairs in drawn])[order],
        np.concatenate([pairs.values for pairs in drawn])[order],
        join_sequences(continuations, order) if len(continuations) == len(drawn) else None,
        np.repeat(np.arange(len(drawn)), [len(pairs) for pairs in drawn])[order],
        sum(pairs.resampled for pairs in drawn),
        source.recording.step[sources] + 1 if stepwise else None,
    )


def paired_columns(direction: Direction, subspace: Subspace) -> tuple[list[int], list[int]]:
    """Columns of the subspace's variables in the target's values and in the source's."""
    columns = _columns(direction, subspace)
    refuse(_not_comparable(direction, *columns))
    return columns


def check_values(directions: Sequence[Direction], part: str, subspaces: Sequence[Subspace]) -> None:
    """Refuse variables whose values do not meet, with every one of them in the message.

    Parameters
    ----------
    directions : sequence of Direction
    part : {"train", "validation", "test"}
    subspaces : sequence of Subspace

    Raises
    ------
    InvalidInput
        Values cannot be compared, or the two sides of a direction share no value of a subspace's variables.
    """
    # systems that run keep their values, then targets
    sides = [side for end in ("target", "source") for side in (getattr(each, end) for each in directions)]
    order = list(dict.fromkeys(side.name for side in sorted(sides, key=lambda side: side.system is None)))
    mismatches: list[Mismatch] = []
    seen = set()
    for direction, subspace in itertools.product(directions, subspaces):
        between = frozenset((direction.source.name, direction.target.name)), subspace.name
        columns, source_columns = _columns(direction, subspace)
        strange = _not_comparable(direction, columns, source_columns)
        if not strange and between not in seen:
            strange = _without_shared(direction, part, subspace, columns, source_columns, order)
        seen.add(between)
        mismatches += strange
    refuse(mismatches)


def _columns(direction: Direction, subspace: Subspace) -> tuple[list[int], list[int]]:
    source, target = direction.source, direction.target
    if subspace.variables == ("full",) and source.variables != target.variables:
        raise InvalidInput(
            f"subspace 'full' needs the same variables in both systems, but {source.name!r} has"
            f" {', '.join(source.variables)} and {target.name!r} has {', '.join(target.variables)}. Name one of each with"
            " roles=",
            kind="variables_mismatch",
        )
    return target.columns(subspace.variables), source.columns(subspace.variables)


def _not_comparable(direction: Direction, columns: list[int], source_columns: list[int]) -> list[Mismatch]:
    source, target = direction.source, direction.target
    met = (
        meeting(target, target.variables[column], source, source.variables[source_column])
        for column, source_column in zip(columns, source_columns, strict=True)
    )
    return [problem for problem in met if problem is not None]


def _without_shared(
    direction: Direction,
    part: str,
    subspace: Subspace,
    columns: list[int],
    source_columns: list[int],
    order: Sequence[str],
) -> list[Mismatch]:
    """Why source and target have no value of a subspace in common: each variable with other meanings, or all together."""
    source, target = direction.source, direction.target
    tolerance = target.indexes[part].tolerance
    exact = [place for place, column in enumerate(columns) if not tolerance.get(target.variables[column])]
    columns, source_columns = [columns[place] for place in exact], [source_columns[place] for place in exact]
    donated = {tuple(row) for row in source.candidates[part].values[:, source_columns].tolist()}
    recorded = {tuple(row) for row in target.candidates[part].values[:, columns].tolist()}
    if not exact or donated & recorded:
        return []  # without a value that must be equal, pairs without a counterfactual latent are counted as misses
    mismatches = []
    for column, source_column in zip(columns, source_columns, strict=True):
        here, there = source.held(source.variables[source_column]), target.held(target.variables[column])
        if here.is_text and len(unlike(here, there)) == len(here.labels):
            values = _nothing_shared(
                direction, subspace.name if len(columns) == 1 else there.spec.name, part, [column], [source_column]
            )
            if source.system is not None and target.system is not None:
                mismatches.append(Mismatch(values, advice="give equal meanings equal names in the two causal models"))
            else:
                changed, kept = sorted((here, there), key=lambda held: order.index(held.owner), reverse=True)
                mismatches.append(mapped_mismatch(values, changed, kept))
    if mismatches:
        return mismatches
    continuous = any(target.recording.spec(target.variables[column]).type == "real" for column in columns)
    advice = "if names or values differ, map them (mapping=)" + (
        "; continuous values need bins or a tolerance (tolerances=)" if continuous else ""
    )
    return [Mismatch(_nothing_shared(direction, subspace.name, part, columns, source_columns), advice=advice)]


def _nothing_shared(
    direction: Direction, name: str, part: str, columns: Sequence[int], source_columns: Sequence[int]
) -> str:
    return (
        f"{direction.name}: the two systems have no value of {name!r} in common: "
        f"{_listed(direction.source, source_columns, part)}; {_listed(direction.target, columns, part)}"
    )


def _listed(side: Side, columns: Sequence[int], part: str) -> str:
    values = {tuple(row) for row in side.candidates[part].values[:, list(columns)].tolist()}
    specs = [side.recording.spec(side.variables[column]) for column in columns]
    names = "+".join(spec.name for spec in specs)
    shown = [
        " ".join(spec.label(value) for spec, value in zip(specs, row, strict=True))
        for row in sorted(values)[:_SHOWN_VALUES]
    ]
    more = ", …" if len(values) > _SHOWN_VALUES else ""
    return f"{names} of {side.name!r} is {', '.join(shown)}{more}"
