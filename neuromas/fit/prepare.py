"""A fit before its first iteration: sides, directions, pairs, and the plan that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromas.align.alignment import Subspace, lay_out
from neuromas.align.pairs import PairSet, check_values, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.align.side import Side
from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput
from neuromas.files import sha256_bytes
from neuromas.fit.objective import Term
from neuromas.fit.plan import FitPlan
from neuromas.fit.remarks import count_misses
from neuromas.fit.terms import terms_of
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitConfig, FitInput
from neuromas.systems.system import System

_PART_SEEDS = {"train": 1, "validation": 2, "test": 3}
OF_SIDES = {
    *("variables", "roles", "values", "tolerances", "task_options"),
    *("stepwise", "only_solved", "allow_unsolved", "n_trials", "fractions", "seed"),
}
"""Fields of a configuration that `fit_sides` reads."""


@dataclass(frozen=True)
class Prepared:
    """A fit before its first iteration.

    Attributes
    ----------
    plan : FitPlan
    sides : tuple of Side
        One per input.
    taking_part : tuple of Side
        Those that are source or target of some direction.
    inputs : tuple of FitInput
        Description of each input for the report.
    """

    plan: FitPlan
    sides: tuple[Side, ...]
    taking_part: tuple[Side, ...]
    inputs: tuple[FitInput, ...]


def fit_sides(
    config: FitConfig,
    systems: Sequence[System | Recording],
    *,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    device: str = "cpu",
) -> list[Side]:
    """The sides of a fit. Equal arguments give equal sides.

    Parameters
    ----------
    config : FitConfig
    systems, model, mapping, units, device
        As in `neuromas.fit.fitters.Fitter.fit`, with its errors.
    """
    return make_sides(
        systems,
        variables=config.variables,
        model=model,
        mapping=mapping,
        units=units,
        roles=config.roles,
        values=config.values,
        tolerances=config.tolerances,
        task_options=config.task_options,
        stepwise=config.stepwise,
        only_solved=config.only_solved,
        allow_unsolved=config.allow_unsolved,
        n_trials=config.n_trials,
        fractions={str(part): share for part, share in config.fractions.items()},
        seed=config.seed,
        device=device,
    )


def prepare(
    config: FitConfig,
    systems: Sequence[System | Recording],
    sides: Sequence[Side],
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
) -> Prepared:
    """Choose the directions of a fit and draw its pairs.

    Parameters
    ----------
    config : FitConfig
    systems : sequence of System or Recording
    sides : sequence of Side
        Those of `systems`, from `fit_sides`.
    mapping : mapping, optional
        As in `neuromas.fit.fitters.Fitter.fit`, for the report.

    Raises
    ------
    InvalidInput, NotFound, ReadOnly
        As in `neuromas.fit.fitters.Fitter.fit`.
    """
    terms = terms_of(config, sides)
    taking_part = [side for side in sides if any(side in (t.direction.source, t.direction.target) for t in terms)]
    subspaces = _subspaces(config, taking_part)
    inputs = describe_inputs(sides, systems, mapping)
    check_values([term.direction for term in terms], "train", subspaces)
    train = tuple(_draw(config, terms, subspaces, "train", config.n_train_pairs))
    validation = tuple(_draw(config, terms, subspaces, "validation", config.n_validation_pairs))
    identity = _identity(config, inputs, taking_part, train)
    plan = FitPlan(config, tuple(terms), train, validation, subspaces, identity)
    return Prepared(plan, tuple(sides), tuple(taking_part), _with_hashes(inputs, sides))


def _subspaces(config: FitConfig, sides: Sequence[Side]) -> tuple[Subspace, ...]:
    widths = {side.name: side.n_units for side in sides}
    subspaces = lay_out(config.subspaces or {"full": min(widths.values())})
    rank = sum(subspace.rank for subspace in subspaces)
    for name, width in widths.items():
        if rank > width:
            raise InvalidInput(f"rank {rank} is larger than the width: {name!r} has {width} units", kind="invalid_rank")
    for subspace in subspaces:
        for side in sides:
            side.columns(subspace.variables)
    return subspaces


def _draw(
    config: FitConfig, terms: Sequence[Term], subspaces: tuple[Subspace, ...], part: str, n_pairs: int
) -> list[PairSet]:
    """The pairs of one part, one set per term."""
    drawn = []
    for number, term in enumerate(terms):
        seed = [config.seed, _PART_SEEDS[part], number]
        pairs = draw_pair_set(term.direction, part, n_pairs, subspaces, seed, stepwise=config.stepwise)
        if term.cl and count_misses(pairs).n_missed == n_pairs:
            raise InvalidInput(
                f"{term.direction.name}: none of the {n_pairs} {part} pairs has a counterfactual latent; the expected"
                f" values were never recorded in {term.direction.target.name!r} (names or values may need mapping=,"
                " continuous ones tolerances=)",
                kind="no_counterfactual_latents",
            )
        drawn.append(pairs)
    return drawn


def _identity(
    config: FitConfig, inputs: Sequence[FitInput], taking_part: Sequence[Side], train: Sequence[PairSet]
) -> str:
    """Hash of everything that decides a fit."""
    text = "".join([config.identity_json(), *(each.model_dump_json() for each in inputs)])
    if config.twin not in (None, "auto"):
        # what the twin is, not where it lies
        text += "".join(side.twin.sha256 for side in taking_part if side.twin is not None)
    # the pairs, so that a fit with another causal model is another fit
    text += "".join(_pairs_hash(pairs) for pairs in train)
    sides = {side.name: side for side in taking_part}
    for each in inputs:
        if each.weights_sha256 is None and each.content_sha256 is None and each.name in sides:
            # never saved: only its content distinguishes it from another input of the same name
            text += _content(sides[each.name])
    return sha256_bytes(text.encode())


def _pairs_hash(pairs: PairSet) -> str:
    arrays: list[np.ndarray] = [pairs.source, pairs.target, pairs.values]
    if pairs.continuation is not None:
        arrays += [pairs.continuation.tokens, pairs.continuation.deterministic]
    return sha256_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))


def _content(side: Side) -> str:
    """Hash of a side's latents and values."""
    latents = np.ascontiguousarray(side.latents.cpu().numpy())
    return sha256_bytes(latents.tobytes() + side.recording.values(list(side.variables)).tobytes())


def describe_inputs(
    sides: Sequence[Side],
    systems: Sequence[System | Recording],
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[FitInput, ...]:
    """Describe the inputs of a fit for its report; `sides` are those of `systems`."""
    return tuple(_describe(side, system, mapping) for side, system in zip(sides, systems, strict=True))


def _describe(side: Side, system: System | Recording, mapping: Mapping[str, Mapping[str, Any]] | None) -> FitInput:
    common: dict[str, Any] = {
        "name": side.name,
        "access": side.access,
        "n_units": side.n_units,
        "n_samples": side.n_samples,
        "n_by_part": {part: len(candidates.samples) for part, candidates in side.candidates.items()},
        "n_incomplete": sum(index.n_incomplete for index in side.indexes.values()),
        "units": None if side.units == tuple(side.recording.unit_names) else side.units,
        "mapping": None if mapping is None or side.name not in mapping else dict(mapping[side.name]),
    }
    if isinstance(system, System):
        config = system.config
        return FitInput(**common, system=system.name, layer=system.layer, weights_sha256=config.weights_sha256)
    manifest = system.manifest
    stored = None if manifest.set is None else f"{manifest.set}/{manifest.name}"
    return FitInput(**common, recording=stored, content_sha256=manifest.content_sha256)


def _with_hashes(inputs: Sequence[FitInput], sides: Sequence[Side]) -> tuple[FitInput, ...]:
    """The inputs with the hash of every recording that was read, stored or not; it is not part of a fit's identity."""
    return tuple(
        each
        if side.system is not None or each.content_sha256 is not None
        else each.model_copy(update={"content_sha256": side.original.content_sha256})
        for each, side in zip(inputs, sides, strict=True)
    )


def compared_variables(sides: Sequence[Side], subspaces: Sequence[Subspace]) -> tuple[str, ...]:
    """The variables of all sides; where these differ, their shared names."""
    if len({side.variables for side in sides}) == 1:
        return sides[0].variables
    return tuple(name for subspace in subspaces for name in subspace.variables)
