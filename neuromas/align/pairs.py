"""Pairs drawn between two sides: which samples donate, which receive, and what should follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.align.side import Side, check_meeting
from neuromas.causal.counterfactual import Pairs, draw_pairs
from neuromas.causal.model import Sequences, join_sequences
from neuromas.errors import InvalidInput
from neuromas.recordings.meeting import offered_mapping, unlike

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
        _check_shared(direction, part, subspace, columns, source_columns)
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
    source, target = direction.source, direction.target
    if subspace.variables == ("full",) and source.variables != target.variables:
        raise InvalidInput(
            f"subspace 'full' needs the same variables in both systems, but {source.name!r} has"
            f" {', '.join(source.variables)} and {target.name!r} has {', '.join(target.variables)}. Name one of each with"
            " roles=",
            kind="variables_mismatch",
        )
    columns, source_columns = target.columns(subspace.variables), source.columns(subspace.variables)
    for column, source_column in zip(columns, source_columns, strict=True):
        check_meeting(target, target.variables[column], source, source.variables[source_column])
    return columns, source_columns


def _check_shared(
    direction: Direction, part: str, subspace: Subspace, columns: list[int], source_columns: list[int]
) -> None:
    source, target = direction.source, direction.target
    tolerance = target.indexes[part].tolerance
    exact = [place for place, column in enumerate(columns) if not tolerance.get(target.variables[column])]
    if not exact:
        return  # no value must be equal; pairs without a counterfactual latent are counted as misses
    columns, source_columns = [columns[place] for place in exact], [source_columns[place] for place in exact]
    donated = {tuple(row) for row in source.candidates[part].values[:, source_columns].tolist()}
    recorded = {tuple(row) for row in target.candidates[part].values[:, columns].tolist()}
    if donated & recorded:
        return
    raise InvalidInput(
        f"{direction.name}: the two systems have no value of {subspace.name!r} in common: "
        f"{_listed(source, source_columns, donated)}; {_listed(target, columns, recorded)}; "
        f"{_advice(direction, columns, source_columns)}",
        kind="no_shared_value",
    )


def _advice(direction: Direction, columns: list[int], source_columns: list[int]) -> str:
    """What to do if two sides have no value in common."""
    source, target = direction.source, direction.target
    for column, source_column in zip(columns, source_columns, strict=True):
        here, there = source.held(source.variables[source_column]), target.held(target.variables[column])
        if here.is_text and len(unlike(here, there)) == len(here.labels):
            changed, kept = (here, there) if source.system is None else (there, here)
            return offered_mapping(changed, kept)
    continuous = any(target.recording.spec(target.variables[column]).type == "real" for column in columns)
    return "if names or values differ, map them (mapping=)" + (
        "; continuous values need bins or a tolerance (tolerances=)" if continuous else ""
    )


def _listed(side: Side, columns: Sequence[int], values: set[tuple[float, ...]]) -> str:
    specs = [side.recording.spec(side.variables[column]) for column in columns]
    names = "+".join(spec.name for spec in specs)
    shown = [
        " ".join(spec.label(value) for spec, value in zip(specs, row, strict=True))
        for row in sorted(values)[:_SHOWN_VALUES]
    ]
    more = ", …" if len(values) > _SHOWN_VALUES else ""
    return f"{names} of {side.name!r} is {', '.join(shown)}{more}"
