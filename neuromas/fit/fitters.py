"""The fitters: DAS, MAS, CLMAS, Stitch, LatentStitch.

One loop, one objective; a fitter is the table of which directions carry which loss (eqs. 5-9):

=============  ==========================  ==============================
fitter         behaviour                   counterfactual latents
=============  ==========================  ==============================
DAS            A → A                       –
MAS            every direction             –
CLMAS          targets that can be run     targets that can only be read
Stitch         source → target, replacing  –
LatentStitch   –                           source → target, replacing
=============  ==========================  ==============================
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from neuromas.align.alignment import (
    Alignment,
    Subspace,
    TrainableMap,
    closed_form_maps,
    lay_out,
    random_maps,
)
from neuromas.align.closed_form import procrustes_axes
from neuromas.align.interchange import LinearMap
from neuromas.align.pairs import Direction, PairSet, draw_pair_set, paired_columns
from neuromas.align.prepare import make_sides, warnings_of
from neuromas.align.side import Side
from neuromas.causal.counterfactual import possible
from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput, ReadOnly
from neuromas.files import sha256_bytes
from neuromas.fit.loop import CHECKPOINT, Outcome, Plan, Progress, State, run, run_together, validate
from neuromas.fit.objective import Term
from neuromas.fit.result import FitResult
from neuromas.provenance import now, versions
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.fit import FitConfig, FitInput, FitReport, Misses, Validation
from neuromas.systems.system import System

_LATER = ("task_options",)
"""Fields that configurations got later: at their default they change no fit's identity."""
_PART_SEEDS = {"train": 1, "validation": 2, "test": 3}


@dataclass(frozen=True)
class Prepared:
    """A fit before its first iteration.

    Attributes
    ----------
    plan : Plan
    sides, taking_part : tuple of Side
        All that were handed in, and those that some direction touches.
    inputs : tuple of FitInput
    """

    plan: Plan
    sides: tuple[Side, ...]
    taking_part: tuple[Side, ...]
    inputs: tuple[FitInput, ...]


class Fitter:
    """Base of the fitters: configuration in, `FitResult` out.

    Parameters
    ----------
    rank : int or mapping, optional
        Components given to ``full``; or ranks of disjoint blocks, e.g. ``{"phase": 4, "count": 12}``.
    **options
        Any other field of `neuromas.schema.fit.FitConfig`: ``map``, ``init``, ``epsilon``, ``batch_size``, ``seed``, …

    Raises
    ------
    InvalidDocument
        Options that do not exist or do not go together; lists every problem.
    """

    method: ClassVar[Literal["das", "mas", "clmas", "stitch", "latent-stitch"]]

    def __init__(self, rank: int | Mapping[str, int] | None = 16, **options: Any) -> None:
        if rank is not None:
            options["subspaces"] = dict(rank) if isinstance(rank, Mapping) else {"full": rank}
        elif "subspaces" not in options:
            options["subspaces"] = None
        self.config = FitConfig.parse({**options, "method": self.method}, f"configuration of {type(self).__name__}")

    @classmethod
    def from_config(cls, config: FitConfig) -> Fitter:
        """The fitter that `config` names."""
        fitter = object.__new__(FITTERS[config.method])
        fitter.config = config
        return fitter

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        """Which directions carry which loss; each fitter's own."""
        raise TypeError(f"{type(self).__name__} is no fitter; use one of {', '.join(FITTERS)}")

    def fit(
        self,
        systems: Sequence[System | Recording],
        *,
        model: CausalModel | None = None,
        mapping: Mapping[str, Mapping[str, Any]] | None = None,
        units: Mapping[str, Sequence[str]] | None = None,
        device: str = "cpu",
        out: str | Path | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> FitResult:
        """Fit the alignment.

        Parameters
        ----------
        systems : sequence of System or Recording
            What is handed in decides access: a `System` may be run, a `Recording` is never run.
        model : CausalModel, optional
            By default each system's own task.
        mapping : mapping of recording name to mapping, optional
            Names and values that differ; see `Recording.relabel`.
        units : mapping of recording name to units, optional
            Units to take; samples in which one of them is missing are left out and counted.
        device : str
            ``cpu``, ``cuda``, ``cuda:1``, …
        out : path-like, optional
            Folder for checkpoints and the result. A fit that was interrupted goes on from its checkpoint there; one that
            was finished is returned as it is.
        progress : callable, optional
            Called with a `Progress` after every iteration.

        Returns
        -------
        FitResult
            ``report.status`` is ``converged``, ``max_iterations`` or ``closed_form``.

        Raises
        ------
        InvalidInput
            The wrong number of systems, a rank larger than a width, too few trials, no counterfactual latent at all.
        NotFound
            A variable, unit or name that does not exist.
        ReadOnly
            The fitter would have to run what can only be read.
        """
        config, folder = self.config, None if out is None else Path(out)
        ready = self.prepare(systems, model=model, mapping=mapping, units=units, device=device)
        plan = ready.plan
        if folder is not None:
            finished = _finished(folder, plan)
            if finished is not None:
                return FitResult(finished.alignment, finished.report, ready.sides)
        if config.solver == "closed-form":
            started = time.monotonic()
            maps, history = _solve(plan)
            state = State.solved(history, time.monotonic() - started)
            return self._finish(ready, device, folder, maps, state, "closed_form")
        start = {name: one.to(device) for name, one in self.start(ready).items()}
        return self._finish(ready, device, folder, *run(plan, start, folder=folder, report=progress))

    def _finish(
        self,
        ready: Prepared,
        device: str,
        folder: Path | None,
        maps: dict[str, LinearMap],
        state: State,
        status: Literal["converged", "max_iterations", "closed_form"],
    ) -> FitResult:
        """The result, saved where there is a folder for it."""
        config, plan, sides = self.config, ready.plan, ready.sides
        alignment = Alignment(maps, plan.subspaces, config.map, self.method in ("stitch", "latent-stitch")).to("cpu")
        report = FitReport(
            config=config,
            inputs=ready.inputs,
            variables=_compared(sides, plan.subspaces),
            ran=tuple(dict.fromkeys(term.direction.target.name for term in plan.terms if term.behaviour)),
            status=status,
            iterations=state.iteration,
            best_iteration=state.best_iteration,
            seconds=state.seconds,
            history=tuple(state.history),
            misses=tuple(count_misses(pairs) for pairs in (*plan.train, *plan.validation)),
            warnings=(*warnings_of(sides), *without_effect(config, plan.terms), *strange_steps(plan)),
            identity=plan.identity,
            alignment_sha256=alignment.sha256(),
            provenance=Provenance(
                source=f"{self.method} on {', '.join(side.name for side in sides)}",
                seed=config.seed,
                created=now(),
                versions=versions(),
                notes=f"device {device}, {torch.get_num_threads()} threads",
            ),
        )
        result = FitResult(alignment, report, sides)
        if folder is not None:
            result.save(folder)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return result

    def prepare(
        self,
        systems: Sequence[System | Recording],
        *,
        model: CausalModel | None = None,
        mapping: Mapping[str, Mapping[str, Any]] | None = None,
        units: Mapping[str, Sequence[str]] | None = None,
        device: str = "cpu",
        sides: Sequence[Side] | None = None,
    ) -> Prepared:
        """Everything up to the first iteration: sides, pairs, the plan. Parameters and errors are those of `fit`.

        `sides` are what `sides` gave for these systems, where that is at hand.
        """
        if sides is None:
            sides = self.sides(systems, model=model, mapping=mapping, units=units, device=device)
        terms = self.terms(sides)
        taking_part = [side for side in sides if any(side in (t.direction.source, t.direction.target) for t in terms)]
        subspaces = self._subspaces(taking_part)
        inputs = describe_inputs(sides, systems, mapping)
        plan = self._plan(terms, subspaces, inputs)
        return Prepared(plan, tuple(sides), tuple(taking_part), inputs)

    def sides(
        self,
        systems: Sequence[System | Recording],
        *,
        model: CausalModel | None = None,
        mapping: Mapping[str, Mapping[str, Any]] | None = None,
        units: Mapping[str, Sequence[str]] | None = None,
        device: str = "cpu",
    ) -> list[Side]:
        """What `systems` are to this fit: the same again whenever they are handed in again.

        Parameters and errors are those of `fit`.
        """
        return make_sides(
            systems,
            variables=self.config.variables,
            model=model,
            mapping=mapping,
            units=units,
            roles=self.config.roles,
            values=self.config.values,
            tolerances=self.config.tolerances,
            task_options=self.config.task_options,
            stepwise=self.config.stepwise,
            only_solved=self.config.only_solved,
            n_trials=self.config.n_trials,
            fractions={str(part): share for part, share in self.config.fractions.items()},
            seed=self.config.seed,
            device=device,
        )

    def _subspaces(self, sides: Sequence[Side]) -> tuple[Subspace, ...]:
        widths = {side.name: side.n_units for side in sides}
        wanted = self.config.subspaces or {"full": min(widths.values())}
        subspaces = lay_out(wanted)
        rank = sum(subspace.rank for subspace in subspaces)
        for name, width in widths.items():
            if rank > width:
                raise InvalidInput(
                    f"rank {rank} is larger than the width: {name!r} has {width} units", kind="rank_too_large"
                )
        for subspace in subspaces:
            for side in sides:
                side.columns(subspace.variables)
        return subspaces

    def _plan(
        self,
        terms: Sequence[Term],
        subspaces: tuple[Subspace, ...],
        inputs: tuple[FitInput, ...],
    ) -> Plan:
        config = self.config
        drawn: dict[str, list[PairSet]] = {"train": [], "validation": []}
        for part, n_pairs in (("train", config.n_train_pairs), ("validation", config.n_validation_pairs)):
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
                drawn[part].append(pairs)
        sides = {side.name: side for term in terms for side in (term.direction.source, term.direction.target)}
        later = {name for name in _LATER if getattr(config, name) is None}
        known = "".join([config.model_dump_json(exclude=later), *(one.model_dump_json() for one in inputs)])
        known += "".join(_pairs_hash(pairs) for pairs in drawn["train"])  # so that another causal model is another fit
        for one in inputs:
            if one.weights_sha256 is None and one.content_sha256 is None and one.name in sides:
                known += _content(sides[one.name])  # never saved, so nothing else tells it from one of the same name
        return Plan(
            config,
            tuple(terms),
            tuple(drawn["train"]),
            tuple(drawn["validation"]),
            subspaces,
            sha256_bytes(known.encode()),
        )

    def start(self, ready: Prepared) -> dict[str, TrainableMap]:
        """The maps that iterations begin with, random or in closed form, by side; on the CPU."""
        config, sides, subspaces = self.config, ready.taking_part, ready.plan.subspaces
        offsets = None
        if config.map == "linear":
            same = len({side.variables for side in sides}) == 1
            everything = Subspace("full", ("full",), 0, 1) if same else subspaces[0]
            offsets = [means.mean(dim=0) for means in _shared_means(sides, everything)]
        if config.init == "random":
            made = random_maps(
                [side.n_units for side in sides],
                subspaces,
                config.map,
                config.rotation,
                config.seed,
                offsets=offsets,
                learn_scale=config.learn_scale,
            )
        else:
            means = [_shared_means(sides, subspace) for subspace in subspaces]
            made = closed_form_maps(
                means,
                subspaces,
                config.map,
                config.rotation,
                offsets=offsets,
                learn_scale=config.learn_scale,
                seed=config.seed,
            )
        return {side.name: one for side, one in zip(sides, made, strict=True)}

    def _one_direction(self, sides: Sequence[Side], preferred: str) -> Direction:
        """The direction of a stitch: as configured, else into the one side whose access is `preferred`, else into the last."""
        by_name = {side.name: side for side in sides}
        if self.config.direction is not None:
            for name in self.config.direction:
                if name not in by_name:
                    raise InvalidInput(f"direction names {name!r}, but the systems are {', '.join(by_name)}")
            return Direction(by_name[self.config.direction[0]], by_name[self.config.direction[1]])
        _expect(sides, len(sides) == 2, "exactly 2 systems, or direction=(source, target)", self.method)
        first, second = sides
        if first.access == preferred and second.access != preferred:
            return Direction(second, first)
        return Direction(first, second)


class DAS(Fitter):
    """Distributed Alignment Search: MAS with one system (Geiger et al. 2023)."""

    method = "das"

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        _expect(sides, len(sides) == 1, "exactly 1 system", self.method)
        return [_run(Direction(sides[0], sides[0]), self.method)]


class MAS(Fitter):
    """Model Alignment Search: behaviour in every direction, every system run (eq. 6)."""

    method = "mas"

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        _expect(sides, len(sides) >= 2, "at least 2 systems", self.method)
        return [_run(Direction(source, target), self.method) for target in sides for source in sides]


class CLMAS(Fitter):
    """Counterfactual-latent MAS: behaviour where the target runs, counterfactual latents where it is only read (eqs. 7-9)."""

    method = "clmas"

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        _expect(sides, len(sides) >= 2, "at least 2 systems", self.method)
        _expect(sides, any(side.system is not None for side in sides), "at least 1 system that can be run", self.method)
        everywhere = self.config.cl_directions == "all"
        return [
            Term(Direction(source, target), target.system is not None, everywhere or target.system is None)
            for target in sides
            for source in sides
        ]


class Stitch(Fitter):
    """Model stitching: one direction, behaviour only, the target's own latent thrown away.

    Rank None (the default) is full width.
    """

    method = "stitch"

    def __init__(self, rank: int | Mapping[str, int] | None = None, **options: Any) -> None:
        super().__init__(rank, **options)

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        return [_run(self._one_direction(sides, "intervene"), self.method)]


class LatentStitch(Fitter):
    """One orthogonal matrix from source to target by counterfactual latents alone (eqs. 8, 9); no scale.

    ``solver="closed-form"`` is orthogonal Procrustes, the optimum of the L2 term. Rank None (the default) is full width.
    """

    method = "latent-stitch"

    def __init__(self, rank: int | Mapping[str, int] | None = None, **options: Any) -> None:
        super().__init__(rank, **{"learn_scale": False, **options})

    def terms(self, sides: Sequence[Side]) -> list[Term]:
        return [Term(self._one_direction(sides, "read"), behaviour=False, cl=True)]


FITTERS: dict[str, type[Fitter]] = {one.method: one for one in (DAS, MAS, CLMAS, Stitch, LatentStitch)}
"""Fitters by the name that the command line uses."""


def fit_together(
    fitters: Sequence[Fitter],
    systems: Sequence[System | Recording],
    *,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    device: str = "cpu",
    out: Sequence[str | Path | None] | None = None,
    progress: Callable[[int, Progress], None] | None = None,
    names: Sequence[object] | None = None,
) -> list[FitResult]:
    """Fit several alignments of the same systems at once: other seeds, ranks, variables, weights, even methods.

    What they share is done once: recording the systems, where seeds and trials agree, and in every iteration running the
    frozen systems on the batches of several fits together (on a CPU about 1,024 pairs). Each fit comes to what it comes to
    alone, but for rounding.

    Parameters
    ----------
    fitters : sequence of Fitter
    systems, model, mapping, units, device
        As in `Fitter.fit`; the same for all.
    out : sequence of path-like or None, optional
        A folder for each; as in `Fitter.fit`.
    progress : callable, optional
        Called with the number of a fit and its `Progress` after each of its iterations.
    names : sequence, optional
        What errors call the fits; their numbers by default.

    Returns
    -------
    list of FitResult
        In the order of `fitters`.

    Raises
    ------
    InvalidInput, NotFound, ReadOnly
        As `Fitter.fit`; or a fitter with ``solver="closed-form"``, which has no iterations. Where the loss of some fits is no
        longer finite, the others end first, and are saved where they have folders.

    Examples
    --------
    >>> from neuromas.systems.training import load_system
    >>> some = {"n_trials": 60, "n_train_pairs": 40, "n_validation_pairs": 20, "max_iterations": 3, "batch_size": 8}
    >>> found = fit_together([DAS(rank, **some) for rank in (4, 8)], [load_system("multi-object/gru-0")])
    >>> [one.alignment.rank for one in found]
    [4, 8]
    """
    folders = [None if one is None else Path(one) for one in (out or [None] * len(fitters))]
    if len(folders) != len(fitters):
        raise InvalidInput(
            f"expected one folder for each of {len(fitters)} fits, got {len(folders)}", kind="wrong_folders"
        )
    named = [folder.absolute() for folder in folders if folder is not None]
    if len(set(named)) < len(named):
        raise InvalidInput("two fits were given the same folder; each needs one of its own", kind="wrong_folders")
    known: dict[str, list[Side]] = {}
    found: dict[int, FitResult] = {}
    waiting: dict[int, tuple[Prepared, dict[str, TrainableMap]]] = {}
    for number, (fitter, folder) in enumerate(zip(fitters, folders, strict=True)):
        if fitter.config.solver == "closed-form":
            raise InvalidInput("a closed-form solution has no iterations to share; fit it alone", kind="closed_form")
        key = fitter.config.model_dump_json(include=_OF_SIDES)
        if key not in known:
            known[key] = fitter.sides(systems, model=model, mapping=mapping, units=units, device=device)
        ready = fitter.prepare(systems, model=model, mapping=mapping, units=units, device=device, sides=known[key])
        finished = None if folder is None else _finished(folder, ready.plan)
        if finished is not None:
            found[number] = FitResult(finished.alignment, finished.report, ready.sides)
        else:
            waiting[number] = ready, {name: one.to(device) for name, one in fitter.start(ready).items()}
    numbers = list(waiting)

    def ended(place: int, outcome: Outcome) -> None:
        number = numbers[place]
        found[number] = fitters[number]._finish(waiting[number][0], device, folders[number], *outcome)

    run_together(
        [waiting[number][0].plan for number in numbers],
        [waiting[number][1] for number in numbers],
        ended,
        folders=[folders[number] for number in numbers],
        report=None if progress is None else lambda place, one: progress(numbers[place], one),
        names=numbers if names is None else [names[number] for number in numbers],
    )
    return [found[number] for number in range(len(fitters))]


_OF_SIDES = {
    *("variables", "roles", "values", "tolerances", "task_options"),
    *("stepwise", "only_solved", "n_trials", "fractions", "seed"),
}
"""Fields of a configuration that `Fitter.sides` looks at."""


def _expect(sides: Sequence[Side], met: bool, expected: str, method: str) -> None:
    if not met:
        told = ", ".join(f"{side.name} ({side.access})" for side in sides)
        raise InvalidInput(f"{method} expects {expected}; got {len(sides)}: {told}", kind="wrong_systems")


def _run(direction: Direction, method: str) -> Term:
    if direction.target.system is None:
        raise ReadOnly(
            f"{method} would have to run {direction.target.name!r}, which can only be read: it was handed in as a recording",
        )
    return Term(direction, behaviour=True, cl=False)


def _content(side: Side) -> str:
    """Hash of a side's latents and values."""
    latents = np.ascontiguousarray(side.latents.cpu().numpy())
    return sha256_bytes(latents.tobytes() + side.recording.values(list(side.variables)).tobytes())


def describe_inputs(
    sides: Sequence[Side],
    systems: Sequence[System | Recording],
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[FitInput, ...]:
    """What entered a fit, as its report tells it; `sides` are those of `systems`."""
    return tuple(_describe(side, one, mapping) for side, one in zip(sides, systems, strict=True))


def _describe(side: Side, one: System | Recording, mapping: Mapping[str, Mapping[str, Any]] | None) -> FitInput:
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
    if isinstance(one, System):
        return FitInput(**common, system=one.name, layer=one.layer, weights_sha256=one.config.weights_sha256)
    manifest = one.manifest
    stored = None if manifest.set is None else f"{manifest.set}/{manifest.name}"
    return FitInput(**common, recording=stored, content_sha256=manifest.content_sha256)


def _compared(sides: Sequence[Side], subspaces: Sequence[Subspace]) -> tuple[str, ...]:
    """The variables of all sides, or where these differ, the names under which they were brought together."""
    if len({side.variables for side in sides}) == 1:
        return sides[0].variables
    return tuple(name for subspace in subspaces for name in subspace.variables)


def _shared_means(sides: Sequence[Side], subspace: Subspace) -> list[Tensor]:
    """Mean training latents for the subspace's values, over combinations that every side recorded, in one order."""
    tables = []
    for side in sides:
        means = side.indexes["train"].means()
        tables.append(dict(zip(map(tuple, means.values.tolist()), means.latents.cpu(), strict=True)))
    if len({side.variables for side in sides}) == 1:  # then the means are over the same combinations everywhere
        together = set.intersection(*(set(table) for table in tables))
        tables = [{one: table[one] for one in together} for table in tables]
    grouped: list[dict[tuple[float, ...], list[Tensor]]] = []
    for side, table in zip(sides, tables, strict=True):
        columns = side.columns(subspace.variables)
        members: dict[tuple[float, ...], list[Tensor]] = {}
        for combination in sorted(table):
            members.setdefault(tuple(combination[column] for column in columns), []).append(table[combination])
        grouped.append(members)
    shared = sorted(set.intersection(*(set(members) for members in grouped)))
    if len(shared) < 2:
        raise InvalidInput(
            f"{', '.join(side.name for side in sides)} share {len(shared)} values of {subspace.name}; a closed-form start"
            " needs at least 2 (names or values may need mapping=, continuous ones tolerances=)",
            kind="too_few_shared_values",
        )
    # unweighted mean over what else varies
    return [torch.stack([torch.stack(members[one]).mean(dim=0) for one in shared]) for members in grouped]


def _solve(plan: Plan) -> tuple[dict[str, LinearMap], list[Validation]]:
    """Latent Stitch in closed form: Procrustes between source latents and drawn counterfactual latents."""
    (term,), (pairs,) = plan.terms, plan.train
    source, target = term.direction.source, term.direction.target
    generator = torch.Generator(device=target.latents.device).manual_seed(plan.config.seed)
    draw = target.indexes["train"].sample(torch.from_numpy(pairs.values), generator, plan.config.cl_matches)
    rank = sum(subspace.rank for subspace in plan.subspaces)
    u, v = procrustes_axes(source.take(pairs.source)[draw.hit], draw.latents[draw.hit], rank)
    maps = {
        source.name: LinearMap(u.T, u, u.new_zeros(source.n_units)),
        target.name: LinearMap(v.T, v, v.new_zeros(target.n_units)),
    }
    found = validate(plan, maps)
    seen = Validation(
        iteration=0,
        train_loss=None,
        loss=found.total.item(),
        cl={name: value.item() for name, value in found.cl.items()},
    )
    return maps, [seen]


def count_misses(pairs: PairSet) -> Misses:
    """How many expected values of `pairs` were never recorded in the target's part, and which."""
    index = pairs.direction.target.indexes[pairs.part]
    hit = index.lookup(torch.from_numpy(pairs.values))[1].cpu().numpy() > 0
    missing = Counter(
        ", ".join(
            f"{name}={pairs.direction.target.recording.manifest.variable(name).label(code)}"
            for name, code in zip(pairs.direction.target.variables, row, strict=True)
        )
        for row in pairs.values[~hit].tolist()
    )
    return Misses(
        direction=pairs.direction.name,
        part=pairs.part,
        n_pairs=len(pairs),
        n_missed=int((~hit).sum()),
        resampled=pairs.resampled,
        values=dict(missing.most_common()),
    )


def without_effect(config: FitConfig, terms: Sequence[Term]) -> tuple[str, ...]:
    """Options that differ from the fitter's defaults though they change nothing in its alignment, each group with the reason.

    Parameters
    ----------
    config : FitConfig
    terms : sequence of Term
        Of the fit.

    Returns
    -------
    tuple of str
        For `FitReport.warnings`.

    Examples
    --------
    >>> without_effect(FitConfig(method="clmas", map="linear", learn_scale=False), ())[0]
    'without effect: learn_scale=False, since a linear map has no scale of its own'
    """
    cl, behaviour = any(term.cl for term in terms), any(term.behaviour for term in terms)
    usual = FITTERS[config.method]().config
    sides = [side for term in terms for side in (term.direction.source, term.direction.target)]
    groups: list[tuple[bool, str, tuple[str, ...]]] = [
        (config.map == "linear", "a linear map has no scale of its own", ("learn_scale",)),
        (config.method != "clmas", "it is for clmas", ("cl_directions",)),
        (not cl, "no direction carries a counterfactual-latent loss", _OF_CL),
        (not (cl and behaviour), "there is one loss to weigh", ("epsilon", "weighting")),
        (
            cl and behaviour and config.epsilon == 0,
            "the counterfactual-latent loss has no weight",
            (*_OF_CL, "weighting"),
        ),
        (not behaviour, "no system is run", ("loss_tokens", "select")),
        (config.solver == "closed-form", "a closed-form solution has no iterations", _OF_ITERATIONS),
        (
            all(side.system is None for side in sides),
            "no system that takes part is recorded",
            ("n_trials", "only_solved"),
        ),
    ]
    found = []
    for applies, why, fields in groups:
        changed = {name: getattr(config, name) for name in fields if applies}
        told = [f"{name}={value}" for name, value in changed.items() if value != getattr(usual, name)]
        if told:
            found.append(f"without effect: {', '.join(told)}, since {why}")
    return tuple(found)


def strange_steps(plan: Plan) -> tuple[str, ...]:
    """Stepwise directions in which sources bring along, at steps before the last, values that the target's task never has.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    tuple of str
        For `FitReport.warnings`: how many training pairs of which direction.
    """
    found = []
    for term, pairs in zip(plan.terms, plan.train, strict=True):
        source, target = term.direction.source, term.direction.target
        if pairs.lengths is None or target.model is None:
            continue
        recording = source.recording
        columns, source_columns = paired_columns(
            term.direction, plan.subspaces[0]
        )  # all variables, in the target's order
        values = recording.values(list(source.variables))[:, source_columns][:, np.argsort(columns)]
        strange = recording.eligible & ~possible(target.model, values)
        _, trial = np.unique(recording.trial, return_inverse=True)
        first = np.full(trial.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, trial[strange], recording.step[strange])
        number = int((first[trial[pairs.source]] < recording.step[pairs.source]).sum())
        if number:
            found.append(
                f"{term.direction.name}: {number:,} of {len(pairs):,} pairs bring along steps whose values the task of"
                f" {target.name!r} never has; task_options can restrict that of {source.name!r}"
            )
    return tuple(found)


_OF_CL = ("cl_draw", "cl_matches", "cl_terms")
_OF_ITERATIONS = (
    "learn_scale",
    "cl_draw",
    "rotation",
    "init",
    "batch_size",
    "learning_rate",
    "schedule",
    "max_iterations",
    "validate_every",
    "patience",
    "tolerance",
)


def _pairs_hash(pairs: PairSet) -> str:
    parts: list[np.ndarray] = [pairs.source, pairs.target, pairs.values]
    if pairs.continuation is not None:
        parts += [pairs.continuation.tokens, pairs.continuation.deterministic]
    return sha256_bytes(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def _finished(folder: Path, plan: Plan) -> FitResult | None:
    if not (folder / "result.json").is_file():
        return None
    result = FitResult.load(folder)
    if result.report.identity != plan.identity:
        raise InvalidInput(
            f"{folder} holds the result of another fit ({result.report.provenance.source}; configuration or inputs differ);"
            " choose another folder",
            kind="occupied",
        )
    return result
