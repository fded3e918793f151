"""One system's part in a comparison, and the interchanges drawn between two of them.

A `Side` always has a recording; only a side made from a `System` can also be resumed. That is how a network and a brain use
the same interface: whoever was handed a `Recording` holds nothing that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.causal.counterfactual import Candidates, Pairs, draw_pairs
from neuromas.causal.model import PAD, TASKS, CausalModel, Sequences, get_task, variable_columns
from neuromas.errors import InvalidInput, NotFound, ReadOnly
from neuromas.index.index import CLIndex
from neuromas.recordings.pseudo import parts_of, warnings_about
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture
from neuromas.systems.system import Context, Packed, System, check_device

PARTS = ("train", "validation", "test")
"""The three splits of every recording, by trial; they never mix."""


@dataclass(frozen=True)
class HeldContext:
    """A system's context over all trials of a recording, addressed by sample.

    Attributes
    ----------
    context : Context
    rows, steps : ndarray of int64, shape (n_samples,)
        Row of the context and step of each sample.
    """

    context: Context
    rows: NDArray[np.int64]
    steps: NDArray[np.int64]

    def at(self, samples: NDArray[np.int64]) -> Any:
        """The part that belongs to these rows of the recording."""
        return self.context.at(self.rows[samples], self.steps[samples])


@dataclass(frozen=True)
class Unrolled:
    """Whole trials from their first step, filled up behind their end: what a stepwise interchange takes its latents from.

    Attributes
    ----------
    tokens : Tensor of int64, shape (n_trials, n_steps)
    latents : Tensor of float32, shape (n_trials, n_steps, n_units)
    rows, steps : ndarray of int64, shape (n_samples,)
        Trial and step of each sample of the recording.
    """

    tokens: Tensor = field(repr=False)
    latents: Tensor = field(repr=False)
    rows: NDArray[np.int64] = field(repr=False)
    steps: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class Side:
    """A system as a fit or an evaluation sees it.

    Attributes
    ----------
    name : str
    recording : Recording
    variables : tuple of str
        What is compared, by this side's own names; columns of every ``values``.
    units : tuple of str
        Units taken; only samples complete in them are used.
    latents : Tensor of float32, shape (n_samples, n_units)
        NaN where a unit was not recorded; such samples are never drawn.
    candidates : dict of str to Candidates
        By part: eligible, complete samples.
    indexes : dict of str to CLIndex
        By part.
    model : CausalModel or None
        Of this side's task: says what follows when this side is a target.
    roles : dict of str to str
        Shared name of a variable → what it is called here, where the two differ.
    system : System or None
        What can be resumed; None for a side that can only be read.
    context : HeldContext or None
    unrolled : Unrolled or None
        For stepwise interchanges.
    """

    name: str
    recording: Recording
    variables: tuple[str, ...]
    units: tuple[str, ...]
    latents: Tensor = field(repr=False)
    candidates: Mapping[str, Candidates] = field(repr=False)
    indexes: Mapping[str, CLIndex] = field(repr=False)
    model: CausalModel | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    system: System | None = None
    context: HeldContext | None = field(default=None, repr=False)
    unrolled: Unrolled | None = field(default=None, repr=False)

    @property
    def access(self) -> str:
        """``"intervene"`` if this side can be resumed, else ``"read"``."""
        return "read" if self.system is None else "intervene"

    @property
    def n_units(self) -> int:
        return self.latents.shape[1]

    @property
    def n_samples(self) -> int:
        """Eligible, complete samples over all parts."""
        return sum(len(candidates.samples) for candidates in self.candidates.values())

    def columns(self, wanted: Sequence[str]) -> list[int]:
        """Columns of ``values`` that hold `wanted`, given by this side's or by shared names; NotFound for others."""
        own = [self.roles.get(name, name) for name in wanted]
        return variable_columns(self.variables, own, f"system {self.name!r}")

    def take(self, samples: NDArray[np.int64]) -> Tensor:
        """Latents of these rows of the recording; shape (n, n_units)."""
        return self.latents[torch.from_numpy(samples).to(self.latents.device)]

    def take_steps(self, samples: NDArray[np.int64], n_steps: int) -> Tensor:
        """Latents of the first `n_steps` of the trials that these rows belong to; shape (n, n_steps, n_units)."""
        assert self.unrolled is not None
        rows = torch.from_numpy(self.unrolled.rows[samples]).to(self.latents.device)
        return self.unrolled.latents[rows, :n_steps]

    def resume(
        self,
        latents: Tensor,
        continuation: Packed,
        samples: NDArray[np.int64],
        lengths: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Logits (n_live, n_tokens) after putting `latents` in place of recorded ones.

        Parameters
        ----------
        latents : Tensor, shape (n_pairs, n_units) or (n_pairs, n_steps, n_units)
            In place of the rows `samples`; or, stepwise, of the first steps of their trials.
        continuation : Packed
        samples : ndarray of int64, shape (n_pairs,)
        lengths : ndarray of int64, shape (n_pairs,), optional
            Stepwise: how many steps of each.

        Raises
        ------
        ReadOnly
            This side can only be read.
        """
        system = self._running()
        if lengths is not None:
            return system.resume_steps(latents, *self._stepwise(latents, samples, lengths), continuation)
        return system.resume(latents, continuation, self._held(samples))

    def token_losses(
        self,
        latents: Tensor,
        continuation: Packed,
        samples: NDArray[np.int64],
        lengths: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Cross-entropy (n_live,) of the continuation's tokens; otherwise as `resume`."""
        system = self._running()
        if lengths is None:
            return system.token_losses(latents, continuation, self._held(samples))
        steps, tokens = self._stepwise(latents, samples, lengths)
        return system.token_losses(latents, continuation, lengths=steps, tokens=tokens)

    def _running(self) -> System:
        if self.system is None:
            raise ReadOnly(
                f"system {self.name!r} can only be read: it was handed in as a recording, nothing here runs it"
            )
        return self.system

    def _held(self, samples: NDArray[np.int64]) -> Any:
        return None if self.context is None else self.context.at(samples)

    def _stepwise(
        self, latents: Tensor, samples: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Lengths, and the side's own tokens at the steps of `latents`."""
        assert self.unrolled is not None
        rows = torch.from_numpy(self.unrolled.rows[samples]).to(latents.device)
        return torch.from_numpy(lengths).to(latents.device), self.unrolled.tokens[rows, : latents.shape[1]]

    def with_system(self, system: System) -> Side:
        """The same side, able to run: for an oracle in an evaluation, never in a fit."""
        if system.n_units != self.n_units:
            raise InvalidInput(
                f"oracle {system.name!r} has {system.n_units} units, recording {self.name!r} has {self.n_units}",
                kind="unit_mismatch",
            )
        system = system.to(self.latents.device)
        model = self.model
        if model is None and system.config.task in TASKS:
            known = get_task(system.config.task)
            model = known if known.variable_names == self.variables else None
        return replace(self, system=system, context=_context(system, self.recording), model=model)


def make_sides(
    systems: Sequence[System | Recording],
    *,
    variables: Sequence[str] | None = None,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    roles: Mapping[str, Mapping[str, str]] | None = None,
    values: Mapping[str, Sequence[float]] | None = None,
    tolerances: Mapping[str, float] | None = None,
    task_options: Mapping[str, Mapping[str, Any]] | None = None,
    stepwise: bool = False,
    only_solved: bool = False,
    n_trials: int = 2000,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[Side]:
    """Prepare systems and recordings for a comparison.

    A `System` is recorded on `n_trials` fresh trials of its task and stays able to run; a `Recording` is taken as it is. Each
    has the causal model of its own task. A recording of no known task has that of the first `System`.

    Parameters
    ----------
    systems : sequence of System or Recording
    variables : sequence of str, optional
        Which to compare; by default the causal model's, or where there is none all that the recordings share.
    model : CausalModel, optional
        For all of them; needed where a task is not registered.
    mapping : mapping of name to mapping, optional
        For recordings that use other names or values; see `Recording.relabel`.
    units : mapping of name to sequence of str, optional
        Units to take of a recording; all by default.
    roles : mapping of shared name to mapping of side or task to variable, optional
        Variables that stand for each other but are called differently, in systems of different tasks.
    values : mapping of variable or shared name to sequence of float, optional
        Only samples in which it holds one of these are drawn into pairs.
    tolerances : mapping of variable or shared name to float, optional
        By how much a counterfactual latent's value may be off, for continuous variables.
    task_options : mapping of task to mapping, optional
        Options of the causal models of these tasks; systems are recorded on trials that they make.
    stepwise : bool
        Keep what interchanges at every step need.
    only_solved : bool
        Record only trials that the system solves.
    n_trials : int
    fractions : mapping of part to float, optional
        By default train 0.6, validation 0.2, test 0.2 of the trials. A pseudo-population keeps the parts it was made with.
    seed : int
        Of trials and splits.
    device : str or torch.device

    Returns
    -------
    list of Side

    Raises
    ------
    InvalidInput
        Two sides of one name, a system that does no task, a mapping or role for nobody, a split with too few trials, a
        layer at which steps follow from one another.
    NotFound
        A variable or unit that a side does not have.
    """
    if not systems:
        raise InvalidInput("expected at least 1 system or recording, got none", kind="wrong_systems")
    for one in systems:
        if not isinstance(one, (System, Recording)):
            raise InvalidInput(f"expected a System or a Recording, got {one!r}", kind="wrong_systems")
        if isinstance(one, System) and not one.config.task:
            raise InvalidInput(
                f"system {one.name!r} says no task, so nothing can be run on it here: say which it does with task=, or capture it"
                " and hand in the recording, which is only read",
                kind="no_task",
            )
    check_device(device)
    names = side_names(systems)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"two systems are called {', '.join(map(repr, twice))}; give one another name", kind="same_name"
        )
    tasks = [one.manifest.task if isinstance(one, Recording) else one.config.task for one in systems]
    for what, keyed, known in (
        ("mapping", mapping, names),
        ("units", units, names),
        *((f"role {role!r}", of, [*names, *tasks]) for role, of in (roles or {}).items()),
        ("task_options", task_options, tasks),
    ):
        strange = [name for name in keyed or {} if name not in known]
        if strange:
            told = f"the {'tasks' if known is tasks else 'systems'} are {', '.join(filter(None, dict.fromkeys(known)))}"
            raise InvalidInput(f"{what} for {', '.join(map(repr, strange))}, but {told}")
    if model is not None and task_options:
        raise InvalidInput(
            "task_options go with registered tasks, not with model=; give its options to the model itself"
        )

    def task_model(task: str) -> CausalModel:
        return get_task(task, **(task_options or {}).get(task, {}))

    live = [one for one in systems if isinstance(one, System)]
    reference = task_model(live[0].config.task) if model is None and live else model
    recordings: list[Recording] = []
    models: list[CausalModel | None] = []
    for position, (name, one) in enumerate(zip(names, systems, strict=True)):
        own = reference
        if isinstance(one, System):
            own = model or task_model(one.config.task)
            recording = capture(
                one.to(device), n_trials, seed=seed * 1000 + position, model=own, only_solved=only_solved
            )
        else:
            recording = one
            if model is None and name not in (mapping or {}):
                own = _task_of(one, task_model) or reference
        like = own.variables if own is not None else recordings[0] if recordings else None
        recordings.append(recording.relabel((mapping or {}).get(name), like=like))
        models.append(own)
    shared = None if any(own is not None for own in models) else _shared_variables(recordings)
    sides = []
    for name, task, one, recording, own in zip(names, tasks, systems, recordings, models, strict=True):
        chosen = tuple(variables or shared or (own.variable_names if own is not None else ()))
        given = isinstance(one, System) and own is not None and chosen != own.variable_names
        if given and own is not None and set(chosen) <= set(own.variable_names):
            raise InvalidInput(
                f"variables are {', '.join(chosen)}, but {name!r} can be run and needs all that drive task {own.name!r}, in"
                f" its order: {', '.join(own.variable_names)}. To interchange only some of them, give subspaces, e.g. "
                '{"' + chosen[0] + '": 4}',
                kind="variables_of_task",
            )
        called = {role: of.get(name, of.get(task, role)) for role, of in (roles or {}).items()}
        side = _side(
            name,
            recording,
            one if isinstance(one, System) else None,
            chosen,
            None if units is None else units.get(name),
            own if own is not None and own.variable_names == chosen else None,
            called,
            values or {},
            tolerances or {},
            fractions,
            seed,
            device,
        )
        sides.append(side)
    if stepwise:
        longest = max(int(side.recording.step.max()) for side in sides) + 1  # a source may be of another task
        sides = [replace(side, unrolled=_unroll(side, longest)) for side in sides]
    return sides


def side_names(systems: Sequence[System | Recording]) -> list[str]:
    """How each system is called in a comparison: by its own name; where two share theirs, TASK/NAME or SET/RECORDING."""
    short = [one.manifest.name if isinstance(one, Recording) else one.name for one in systems]
    long = [one.name if isinstance(one, Recording) else f"{one.config.task}/{one.name}" for one in systems]
    return [full if short.count(name) > 1 else name for full, name in zip(long, short, strict=True)]


def _task_of(recording: Recording, task_model: Callable[[str], CausalModel]) -> CausalModel | None:
    """The causal model of the recording's task, if it is a registered one with these variables and tokens."""
    if recording.manifest.task not in TASKS:
        return None
    model = task_model(recording.manifest.task)
    told = recording.manifest.vocabulary
    known = all(name in recording.variable_names for name in model.variable_names)
    return model if known and (told is None or told[: len(model.vocabulary)] == model.vocabulary) else None


def _shared_variables(recordings: Sequence[Recording]) -> tuple[str, ...]:
    shared = [
        name for name in recordings[0].variable_names if all(name in other.variable_names for other in recordings)
    ]
    if not shared:
        told = "; ".join(f"{recording.name!r} has {', '.join(recording.variable_names)}" for recording in recordings)
        raise NotFound(f"the recordings share no variable: {told}. Map names with mapping=", kind="no_shared_variable")
    return tuple(shared)


def _side(
    name: str,
    recording: Recording,
    system: System | None,
    variables: tuple[str, ...],
    units: Sequence[str] | None,
    model: CausalModel | None,
    roles: Mapping[str, str],
    only: Mapping[str, Sequence[float]],
    tolerances: Mapping[str, float],
    fractions: Mapping[str, float] | None,
    seed: int,
    device: str | torch.device,
) -> Side:
    missing = [variable for variable in variables if variable not in recording.variable_names]
    if missing:
        raise NotFound(
            f"recording {recording.name!r} has no variable {', '.join(map(repr, missing))};"
            f" it has {', '.join(recording.variable_names)}. Map names with mapping=",
            kind="unknown_variable",
        )
    splits = parts_of(recording, fractions, seed)
    values = recording.values(list(variables))
    usable = recording.eligible & recording.complete(units) & np.isfinite(values).all(axis=1)
    for variable, allowed in only.items():
        (column,) = variable_columns(variables, [roles.get(variable, variable)], f"system {name!r}")
        usable &= np.isin(values[:, column], np.asarray(allowed, dtype=np.float64))
    loose = {}
    for variable, width in tolerances.items():
        (column,) = variable_columns(variables, [roles.get(variable, variable)], f"system {name!r}")
        loose[variables[column]] = width
    candidates, indexes = {}, {}
    for part in PARTS:
        samples = np.flatnonzero(usable & splits[part].samples)
        if not len(samples):
            told = "".join(
                f", with {variable} among {', '.join(f'{x:g}' for x in of)}" for variable, of in only.items()
            )
            raise InvalidInput(
                f"recording {recording.name!r}: no eligible, complete sample in the {part} part{told}",
                kind="no_samples",
            )
        candidates[part] = Candidates.from_samples(samples, recording.trial[samples], values[samples])
        indexes[part] = CLIndex(
            recording, list(variables), split=splits[part], units=units, device=device, tolerance=loose
        )
    return Side(
        name=name,
        recording=recording,
        variables=variables,
        units=tuple(recording.unit_names if units is None else units),
        latents=torch.from_numpy(np.asarray(recording.latents(units), dtype=np.float32)).to(device),
        candidates=candidates,
        indexes=indexes,
        model=model,
        roles=roles,
        system=system,
        context=None if system is None else _context(system, recording),
    )


def _trials(recording: Recording, fill: int, n_steps: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens (n_trials, n_steps), `fill` after the end, and the trial that each sample belongs to (n_samples,)."""
    trials, rows = np.unique(recording.trial, return_inverse=True)
    tokens = np.full((len(trials), max(int(recording.step.max()) + 1, n_steps)), fill, dtype=np.int64)
    tokens[rows, recording.step] = recording.dataset["token"].values
    return tokens, rows.astype(np.int64)


def _context(system: System, recording: Recording) -> HeldContext | None:
    if "token" not in recording.dataset.coords:
        if type(system).context is not System.context:
            raise InvalidInput(
                f"system {system.name!r} cannot be resumed from its latent alone, and recording {recording.name!r} has no"
                " tokens to say what came before",
                kind="no_tokens",
            )
        return None
    tokens, rows = _trials(recording, PAD)
    context = system.context(torch.from_numpy(tokens))
    return None if context is None else HeldContext(context, rows, recording.step)


def _unroll(side: Side, n_steps: int) -> Unrolled:
    system, model = side.system, side.model
    if system is None or not system.stepwise or model is None or model.filler is None:
        why = (
            "can only be read"
            if system is None
            else f"has latents at layer {system.layer!r} that follow from one another"
            if not system.stepwise
            else "has a task without a token to fill trials up with"
        )
        raise InvalidInput(
            f"stepwise interchanges need systems that run, at a layer such as 'embedding'; {side.name!r} {why}",
            kind="not_stepwise",
        )
    tokens, rows = _trials(side.recording, model.filler, n_steps)
    given = torch.from_numpy(tokens).to(side.latents.device)
    return Unrolled(given, system.latents(given), rows, side.recording.step)


def warnings_of(sides: Sequence[Side]) -> tuple[str, ...]:
    """What whoever reads a result made from `sides` must know."""
    told = [f"{side.name}: {one}" for side in sides for one in warnings_about(side.recording)]
    for side in sides:
        index = side.indexes["train"]
        counts = index.counts
        single = int((counts == 1).sum())
        if side.system is None and not index.tolerance and single > len(counts) / 2:
            told.append(
                f"{side.name}: {single:,} of {len(counts):,} combinations of values have a single training sample, which is then"
                " always the counterfactual latent; bins or a tolerance bring more together"
            )
    return tuple(told)


@dataclass(frozen=True)
class Direction:
    """Who donates and who receives."""

    source: Side = field(repr=False)
    target: Side = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.source.name}->{self.target.name}"


@dataclass(frozen=True)
class PairSet:
    """Pairs of one direction and one part, with the subspace each interchanges.

    Attributes
    ----------
    direction : Direction
    part : str
    source, target : ndarray of int64, shape (n_pairs,)
        Rows of the recordings.
    values : ndarray of float64, shape (n_pairs, n_variables)
        Expected values V*.
    continuation : Sequences or None
    subspace : ndarray of int64, shape (n_pairs,)
        Number of the subspace.
    resampled : int
    lengths : ndarray of int64, shape (n_pairs,), or None
        Stepwise: at how many steps, from the first on, each pair is intervened at.
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
        """Source's and target's latents of these pairs: each (n, n_units), or stepwise (n, n_steps, n_units)."""
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
    """Draw `n_pairs` of a direction, spread evenly over the subspaces; `seed` is a sequence of numbers.

    Raises
    ------
    InvalidInput
        The two sides have no value of a subspace's variables in common; or, stepwise, a subspace is not all variables.
    """
    source, target = direction.source, direction.target
    generator = np.random.default_rng(list(seed))
    drawn: list[Pairs] = []
    for share, subspace in zip(np.array_split(np.arange(n_pairs), len(subspaces)), subspaces, strict=True):
        columns, source_columns = paired_columns(direction, subspace)
        if stepwise and len(columns) < len(target.variables):
            raise InvalidInput(
                f"a stepwise interchange moves all that the source's steps hold: expected the subspace 'full', got"
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
    return PairSet(
        direction,
        part,
        sources,
        np.concatenate([pairs.target for pairs in drawn])[order],
        np.concatenate([pairs.values for pairs in drawn])[order],
        _join([pairs.continuation for pairs in drawn], order),
        np.repeat(np.arange(len(drawn)), [len(pairs) for pairs in drawn])[order],
        sum(pairs.resampled for pairs in drawn),
        source.recording.step[sources] + 1 if stepwise else None,
    )


def paired_columns(direction: Direction, subspace: Subspace) -> tuple[list[int], list[int]]:
    """Columns of the subspace's variables in the target's values and in the source's."""
    source, target = direction.source, direction.target
    if subspace.variables == ("full",) and source.variables != target.variables:
        raise InvalidInput(
            f"subspace 'full' needs the same variables in both systems: {source.name!r} has {', '.join(source.variables)},"
            f" {target.name!r} has {', '.join(target.variables)}. Name one of each with roles=",
            kind="different_variables",
        )
    return target.columns(subspace.variables), source.columns(subspace.variables)


def _check_shared(
    direction: Direction, part: str, subspace: Subspace, columns: list[int], source_columns: list[int]
) -> None:
    source, target = direction.source, direction.target
    tolerance = target.indexes[part].tolerance
    exact = [at for at, column in enumerate(columns) if not tolerance.get(target.variables[column])]
    if len(exact) < len(columns):
        if not exact:
            return  # nothing must be equal: what is out of reach is a miss
        columns, source_columns = [columns[at] for at in exact], [source_columns[at] for at in exact]
    given = {tuple(row) for row in source.candidates[part].values[:, source_columns].tolist()}
    known = {tuple(row) for row in target.candidates[part].values[:, columns].tolist()}
    if not given & known:

        def told(side: Side, at: list[int], values: set[tuple[float, ...]]) -> str:
            names = "+".join(side.variables[column] for column in at)
            some = [" ".join(f"{x:g}" for x in row) for row in sorted(values)]
            return f"{names} of {side.name!r} is {', '.join(some[:10])}{', …' if len(some) > 10 else ''}"

        raise InvalidInput(
            f"{direction.name}: the two systems have no value of {subspace.name!r} in common: "
            f"{told(source, source_columns, given)}; {told(target, columns, known)}. Where names or codes differ, map them"
            " (mapping=, --mapping)"
            + ("; continuous values need bins or a tolerance (tolerances=)" if _continuous(target, columns) else ""),
            kind="no_shared_value",
        )


def _continuous(side: Side, columns: Sequence[int]) -> bool:
    return any(side.recording.spec(side.variables[column]).type == "real" for column in columns)


def _join(parts: Sequence[Sequences | None], order: NDArray[np.int64]) -> Sequences | None:
    whole = [part for part in parts if part is not None]
    if len(whole) != len(parts):
        return None
    longest = max(part.tokens.shape[1] for part in whole)

    def padded(name: str, fill: Any) -> NDArray[Any]:
        arrays = []
        for part in whole:
            array = getattr(part, name)
            room = [(0, 0), (0, longest - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
            arrays.append(np.pad(array, room, constant_values=fill))
        return np.concatenate(arrays)[order]

    return Sequences(
        tokens=padded("tokens", PAD),
        lengths=np.concatenate([part.lengths for part in whole])[order],
        deterministic=padded("deterministic", False),
        values=padded("values", 0),
        eligible=padded("eligible", False),
    )
