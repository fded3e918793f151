"""From systems and recordings to sides, in four stages: check the request, record, agree on variables, build the sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuromas.align.side import PARTS, HeldContext, Side, check_meanings
from neuromas.causal.counterfactual import Candidates
from neuromas.causal.model import TASKS, CausalModel, get_task, variable_columns
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.index.index import CLIndex
from neuromas.recordings.check import listing
from neuromas.recordings.codes import CommonCodes, roles_of
from neuromas.recordings.incomplete import costly_units
from neuromas.recordings.meanings import meanings_by_code
from neuromas.recordings.meeting import Held, unlike
from neuromas.recordings.pseudo import parts_of, warnings_about
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import VariableSpec
from neuromas.systems.capture import capture
from neuromas.systems.competence import remark
from neuromas.systems.system import System, check_device


def make_sides(
    systems: Sequence[System | Recording],
    *,
    variables: Sequence[str] | None = None,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    roles: Mapping[str, Mapping[str, str]] | None = None,
    values: Mapping[str, Sequence[float | str]] | None = None,
    tolerances: Mapping[str, float] | None = None,
    task_options: Mapping[str, Mapping[str, Any]] | None = None,
    stepwise: bool = False,
    only_solved: bool = False,
    allow_unsolved: bool = False,
    n_trials: int = 2000,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[Side]:
    """Prepare systems and recordings for a comparison.

    A `System` is recorded on `n_trials` new trials of its task, and can still be run. A `Recording` is used as it is, and can
    only be read. Each has the causal model of its own task. A recording without a registered task has the causal model of the
    first `System`.

    Parameters
    ----------
    systems : sequence of System or Recording
    variables : sequence of str, optional
        Variables to compare. By default those of the causal model; without a causal model, all that the recordings share.
    model : CausalModel, optional
        Causal model of all systems. Needed if a task is not registered.
    mapping : mapping of name to mapping, optional
        For recordings that use other names or values; see `Recording.relabel`.
    units : mapping of name to sequence of str, optional
        Units of a recording to use; all by default.
    roles : mapping of shared name to mapping of side or task to variable, optional
        Variables that correspond but have different names, in systems of different tasks.
    values : mapping of variable or shared name to sequence of float or str, optional
        This restricts which samples form pairs: the variable must hold one of these values or meanings. Counterfactual latents
        are still drawn from the whole recording.
    tolerances : mapping of variable or shared name to float, optional
        Largest difference between the expected value and that of a counterfactual latent, for continuous variables.
    task_options : mapping of task to mapping, optional
        Options of the causal models of these tasks. Systems are recorded on trials that these models make.
    stepwise : bool
        Prepare stepwise interchanges: pad the trials to equal length.
    only_solved : bool
        Record only trials that the system solves.
    allow_unsolved : bool
        Use also systems that solve their task no better than guesses would.
    n_trials : int
        Trials to record of each `System`.
    fractions : mapping of part to float, optional
        By default train 0.6, validation 0.2, test 0.2 of the trials. A pseudo-population keeps its own parts.
    seed : int
        Seed of trials and parts.
    device : str or torch.device

    Returns
    -------
    list of Side
        In the order of `systems`.

    Raises
    ------
    InvalidInput
        Two sides have the same name, a system has no task, `mapping`, `units`, `roles` or `task_options` name something that
        is not compared, a part has too few trials, a layer does not allow stepwise interchanges, or a system solves its task no
        better than guesses would.
    NotFound
        A side has no such variable or unit.
    """
    systems = as_systems(systems)
    if not isinstance(model, (CausalModel, NoneType)):
        raise InvalidInput(f"model: expected a CausalModel, got {model!r}", kind="invalid_option")
    names = _checked_names(systems, device)
    tasks = [system.manifest.task if isinstance(system, Recording) else system.config.task for system in systems]
    _check_keys(names, tasks, mapping or {}, units or {}, roles or {}, task_options or {})
    if model is not None and task_options:
        raise InvalidInput(
            "task_options are for registered tasks and cannot be used with model=; set the options on the model itself",
            kind="invalid_option",
        )
    own_roles = [roles_of(name, task, roles or {}) for name, task in zip(names, tasks, strict=True)]
    recorder = _Recorder(model, task_options or {}, mapping or {}, n_trials, only_solved, allow_unsolved, seed, device)
    recorded = recorder.record(names, systems, own_roles)
    _check_values(recorded, own_roles, values or {})
    compared = _compared_variables(recorded, variables)
    sides = []
    for entry, own_variables, role in zip(recorded, compared, own_roles, strict=True):
        builder = _Builder(entry, own_variables, role, None if units is None else units.get(entry.name))
        sides.append(builder.build(values or {}, tolerances or {}, fractions, seed, device))
    check_meanings(sides)
    if stepwise:
        # the longest trial of any side: a source may do another task than its target
        n_steps = max(int(side.recording.step.max()) for side in sides) + 1
        sides = [side.with_steps(n_steps) for side in sides]
    return sides


def rebuilt(
    side: Side,
    recording: Recording,
    system: System | None,
    *,
    values: Mapping[str, Sequence[float | str]] | None = None,
    tolerances: Mapping[str, float] | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Side:
    """`side` with another recording of the same units and variables, and with `system`, or without any.

    Parameters
    ----------
    side : Side
    recording : Recording
        Under the names and codes that all sides share.
    system : System or None
    values, tolerances, fractions, seed
        As in `make_sides`.
    """
    units = None if side.units == tuple(side.recording.unit_names) else side.units
    entry = _Recorded(side.name, side.original, recording, system, side.model)
    builder = _Builder(entry, side.variables, side.roles, units)
    made = builder.build(values or {}, tolerances or {}, fractions, seed, side.latents.device)
    return made if side.unrolled is None else made.with_steps(side.unrolled.tokens.shape[1])


def as_systems(systems: Any) -> list[System | Recording]:
    """A list of systems and recordings from any iterable of them.

    Raises
    ------
    InvalidInput
        `systems` is a single system, or holds something else.
    """
    if isinstance(systems, (System, Recording)):
        raise InvalidInput(
            f"expected a list of systems and recordings, got {systems.name!r} alone; put it in brackets",
            kind="wrong_systems",
        )
    if isinstance(systems, (str, Mapping)) or not isinstance(systems, Iterable):
        raise InvalidInput(f"expected a list of systems and recordings, got {systems!r}", kind="wrong_systems")
    listed = list(systems)
    for system in listed:
        if not isinstance(system, (System, Recording)):
            hint = "; load_system(name) opens a system by its name" if isinstance(system, str) else ""
            raise InvalidInput(f"expected a System or a Recording, got {system!r}{hint}", kind="wrong_systems")
    return listed


def side_names(systems: Sequence[System | Recording]) -> list[str]:
    """The name of each system in a comparison: its own, or TASK/NAME (SET/RECORDING) if two systems share a name."""
    short = [system.manifest.name if isinstance(system, Recording) else system.name for system in systems]
    full = [
        system.name if isinstance(system, Recording) else f"{system.config.task}/{system.name}" for system in systems
    ]
    return [long if short.count(name) > 1 else name for long, name in zip(full, short, strict=True)]


def warnings_of(sides: Sequence[Side]) -> tuple[str, ...]:
    """Warnings that a reader of any result made from `sides` must know."""
    messages = [f"{side.name}: {warning}" for side in sides for warning in warnings_about(side.recording)]
    for side in sides:
        failing = remark(side.name, side.recording.manifest.provenance.trial_accuracy)
        messages += [] if failing is None else [failing]
        messages += _strange_meanings(side)
        costly = costly_units(side.recording, side.units, side.recording.eligible)
        messages += [f"{side.name}: {costly}"] if costly else []
        index = side.indexes["train"]
        counts = index.counts
        single = int((counts == 1).sum())
        if side.system is None and not index.tolerance and single > len(counts) / 2:
            messages.append(
                f"{side.name}: {single:,} of {len(counts):,} combinations of values have a single training sample, which is"
                " then always the counterfactual latent; use bins or a tolerance to bring more samples together"
            )
    return tuple(messages)


def _strange_meanings(side: Side) -> list[str]:
    """Meanings of a recording that its task does not have: what they stand for, nobody has said."""
    if side.model is None or side.system is not None:
        return []
    messages = []
    for spec in side.model.variables:
        strange = unlike(side.held(spec.name), Held(side.model.name, spec))
        if strange:
            messages.append(
                f"{side.name}: {spec.name} is {listing(strange)} in some samples, which task {side.model.name!r} does not have"
                f" ({listing(spec.meanings or ())}); they form no pairs as long as mapping= does not say what they are"
            )
    return messages


# ------------------------------------------------------------------------------------------------------------- 1. check


def _checked_names(systems: Sequence[System | Recording], device: str | torch.device) -> list[str]:
    if not systems:
        raise InvalidInput("expected at least 1 system or recording, got none", kind="wrong_systems")
    for system in systems:
        if isinstance(system, System) and not system.config.task:
            raise InvalidInput(
                f"system {system.name!r} has no task, so it cannot be run here. Name its task with task=, or capture it and"
                " pass the recording, which is only read",
                kind="no_task",
            )
    check_device(device)
    names = side_names(systems)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidInput(
            f"two systems are called {', '.join(map(repr, repeated))}; give each a name of its own",
            kind="duplicate_name",
        )
    return names


def _check_keys(
    names: Sequence[str],
    tasks: Sequence[str],
    mapping: Mapping[str, Any],
    units: Mapping[str, Any],
    roles: Mapping[str, Mapping[str, str]],
    task_options: Mapping[str, Any],
) -> None:
    _check_known("mapping", mapping, "systems", names)
    _check_known("units", units, "systems", names)
    for role, variables in roles.items():
        _check_known(f"role {role!r}", variables, "systems", [*names, *tasks])
    _check_known("task_options", task_options, "tasks", tasks)


def _check_known(option: str, keys: Collection[str], noun: str, known: Sequence[str]) -> None:
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise InvalidInput(
            f"{option} for {', '.join(map(repr, unknown))}, but the {noun} are"
            f" {', '.join(filter(None, dict.fromkeys(known)))}{suggestion(unknown[0], known)}",
            kind="invalid_option",
        )


# ------------------------------------------------------------------------------------------------------------ 2. record


@dataclass(frozen=True)
class _Recorded:
    """A system on its way to a side: what was recorded of it, under its own and common names, and its task's causal model."""

    name: str
    original: Recording
    recording: Recording
    system: System | None
    model: CausalModel | None
    mapping: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Recorder:
    """Records systems, and brings all recordings to common names and codes."""

    model: CausalModel | None
    task_options: Mapping[str, Mapping[str, Any]]
    mapping: Mapping[str, Mapping[str, Any]]
    n_trials: int
    only_solved: bool
    allow_unsolved: bool
    seed: int
    device: str | torch.device

    def record(
        self, names: Sequence[str], systems: Sequence[System | Recording], roles: Sequence[Mapping[str, str]]
    ) -> list[_Recorded]:
        reference = self.model
        if reference is None:
            tasks = [system.config.task for system in systems if isinstance(system, System)]
            reference = self._task_model(tasks[0]) if tasks else None
        entries = [
            self._captured(name, system, position)
            if isinstance(system, System)
            else _Recorded(name, system, system, None, self._model_of(name, system) or reference)
            for position, (name, system) in enumerate(zip(names, systems, strict=True))
        ]
        codes = CommonCodes()
        for entry, own_roles in zip(entries, roles, strict=True):
            if entry.model is not None:
                codes.learn(entry.model.variables, own_roles)
            codes.learn_numbers(entry.recording.manifest.variables, self.mapping.get(entry.name, {}), own_roles)
        return [self._relabelled(entry, codes, own_roles) for entry, own_roles in zip(entries, roles, strict=True)]

    def _relabelled(self, entry: _Recorded, codes: CommonCodes, roles: Mapping[str, str]) -> _Recorded:
        """The entry under common names and codes."""
        mapping = self.mapping.get(entry.name)
        own = () if entry.model is None else entry.model.variables
        like = codes.like([*entry.recording.variable_names, *(mapping or {})], roles, own)
        relabelled = entry.recording.relabel(mapping, like=like)
        codes.learn(relabelled.manifest.variables, roles)
        return replace(
            entry,
            recording=relabelled if entry.system is not None else _with_hash(relabelled, entry.original),
            mapping=mapping or {},
        )

    def _captured(self, name: str, system: System, position: int) -> _Recorded:
        model = self.model or self._task_model(system.config.task)
        seed = self.seed * 1000 + position
        recording = capture(
            system.to(self.device),
            self.n_trials,
            seed=seed,
            model=model,
            only_solved=self.only_solved,
            allow_unsolved=self.allow_unsolved,
            outputs=False,
        )
        return _Recorded(name, recording, recording, system, model)

    def _task_model(self, task: str) -> CausalModel:
        return get_task(task, **self.task_options.get(task, {}))

    def _model_of(self, name: str, recording: Recording) -> CausalModel | None:
        """The causal model of the recording's task, if the task is registered and has these variables and tokens."""
        if self.model is not None or name in self.mapping or recording.manifest.task not in TASKS:
            return None
        model = self._task_model(recording.manifest.task)
        vocabulary = recording.manifest.vocabulary
        same_variables = all(name in recording.variable_names for name in model.variable_names)
        same_tokens = vocabulary is None or vocabulary[: len(model.vocabulary)] == model.vocabulary
        return model if same_variables and same_tokens else None


def _with_hash(recording: Recording, original: Recording) -> Recording:
    """The recording with the hash of its content in its manifest: that of the original, if it says the same."""
    same = recording.variable_names == original.variable_names and all(
        np.array_equal(recording.dataset[name].values, original.dataset[name].values)
        and meanings_by_code(recording.manifest, name) == meanings_by_code(original.manifest, name)
        for name in recording.variable_names
    )
    sha256 = (original if same else recording).content_sha256
    manifest = recording.manifest.model_copy(update={"content_sha256": sha256})
    return Recording._trusted(recording.dataset, manifest)


# ------------------------------------------------------------------------------------------------- 3. agree on variables


def _compared_variables(recorded: Sequence[_Recorded], variables: Sequence[str] | None) -> list[tuple[str, ...]]:
    """The variables of each side: those that were named, else the causal model's, else all that the recordings share."""
    shared: tuple[str, ...] = ()
    if all(entry.model is None for entry in recorded):
        shared = _shared_variables([entry.recording for entry in recorded])
    compared = []
    for entry in recorded:
        own = entry.model.variable_names if entry.model is not None else ()
        chosen = tuple(variables or shared or own)
        if entry.system is not None and chosen != own and set(chosen) <= set(own):
            assert entry.model is not None
            raise InvalidInput(
                f"variables are {', '.join(chosen)}, but {entry.name!r} can be run and needs all variables of task"
                f" {entry.model.name!r}, in this order: {', '.join(own)}. To interchange only some of them, name subspaces,"
                f' e.g. {{"{chosen[0]}": 4}}',
                kind="variables_of_task",
            )
        compared.append(chosen)
    return compared


def _shared_variables(recordings: Sequence[Recording]) -> tuple[str, ...]:
    shared = [
        name for name in recordings[0].variable_names if all(name in other.variable_names for other in recordings)
    ]
    if not shared:
        held = "; ".join(f"{recording.name!r} has {', '.join(recording.variable_names)}" for recording in recordings)
        raise NotFound(f"the recordings share no variable: {held}. Map names with mapping=", kind="no_shared_variable")
    return tuple(shared)


# -------------------------------------------------------------------------------------------------------------- 4. build


@dataclass(frozen=True)
class _Builder:
    """Builds one side."""

    recorded: _Recorded
    variables: tuple[str, ...]
    roles: Mapping[str, str]
    units: Sequence[str] | None

    def build(
        self,
        values: Mapping[str, Sequence[float | str]],
        tolerances: Mapping[str, float],
        fractions: Mapping[str, float] | None,
        seed: int,
        device: str | torch.device,
    ) -> Side:
        self._check_variables()
        recording, system, model = self.recorded.recording, self.recorded.system, self.recorded.model
        splits = parts_of(recording, fractions, seed)
        held = recording.values(list(self.variables))
        usable = self._usable(held, values)
        own_tolerances = {self.variables[self._column(name)]: width for name, width in tolerances.items()}
        candidates, indexes = {}, {}
        for part in PARTS:
            samples = np.flatnonzero(usable & splits[part].samples)
            if not len(samples):
                raise self._no_samples(part, values)
            candidates[part] = Candidates.from_samples(samples, recording.trial[samples], held[samples])
            indexes[part] = CLIndex(
                recording,
                list(self.variables),
                split=splits[part],
                units=self.units,
                device=device,
                tolerance=own_tolerances,
            )
        return Side(
            name=self.recorded.name,
            recording=recording,
            original=self.recorded.original,
            variables=self.variables,
            units=tuple(recording.unit_names if self.units is None else self.units),
            latents=torch.from_numpy(np.asarray(recording.latents(self.units), dtype=np.float32)).to(device),
            candidates=candidates,
            indexes=indexes,
            model=model if model is not None and model.variable_names == self.variables else None,
            roles=self.roles,
            mapping=self.recorded.mapping,
            system=system,
            context=None if system is None else HeldContext.of(system, recording),
        )

    def _check_variables(self) -> None:
        recording = self.recorded.recording
        missing = [variable for variable in self.variables if variable not in recording.variable_names]
        if missing:
            raise NotFound(
                f"recording {recording.name!r} has no variable {', '.join(map(repr, missing))};"
                f" it has {', '.join(recording.variable_names)}. Map names with mapping="
                f"{suggestion(missing[0], recording.variable_names)}",
                kind="unknown_variable",
            )

    def _column(self, variable: str) -> int:
        own = self.roles.get(variable, variable)
        return variable_columns(self.variables, [own], f"system {self.recorded.name!r}")[0]

    def _usable(self, held: NDArray[np.float64], values: Mapping[str, Sequence[float | str]]) -> NDArray[np.bool_]:
        """Which samples may form pairs: eligible, complete, with values that were asked for; shape (n_samples,)."""
        recording = self.recorded.recording
        usable = recording.eligible & recording.complete(self.units) & np.isfinite(held).all(axis=1)
        for variable, allowed in values.items():
            column = self._column(variable)
            spec = recording.spec(self.variables[column])
            usable &= np.isin(held[:, column], [_code(spec, value) for value in allowed])
        return np.asarray(usable)

    def _no_samples(self, part: str, values: Mapping[str, Sequence[float | str]]) -> InvalidInput:
        recording = self.recorded.recording
        costly = costly_units(recording, self.units, recording.eligible)
        restriction = "".join(
            f", with {variable} among {', '.join(_text(value) for value in allowed)}"
            for variable, allowed in values.items()
        )
        return InvalidInput(
            f"recording {recording.name!r}: no eligible, complete sample in the {part} part{restriction}"
            f"{f'; {costly}' if costly else ''}",
            kind="no_samples",
        )


def _code(spec: VariableSpec, value: float | str) -> float:
    """The stored number of a value; NaN, which equals nothing, if the variable cannot hold it."""
    try:
        return spec.code(value)
    except KeyError:
        return np.nan


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _check_values(
    recorded: Sequence[_Recorded],
    roles: Sequence[Mapping[str, str]],
    values: Mapping[str, Sequence[float | str]],
) -> None:
    """Refuse a meaning that no system has."""
    for variable, allowed in values.items():
        names = [own_roles.get(variable, variable) for own_roles in roles]
        declared = [entry.recording.manifest.variables for entry in recorded]
        specs = [
            spec for name, variables in zip(names, declared, strict=True) for spec in variables if spec.name == name
        ]
        for value in allowed:
            if isinstance(value, str) and all(np.isnan(_code(spec, value)) for spec in specs):
                known = list(dict.fromkeys(text for spec in specs for text in spec.meanings or ()))
                raise InvalidInput(
                    f"values: no system has {variable} {value!r}; its values are {listing(known) or 'numbers'}"
                    f"{suggestion(value, known)}",
                    kind="invalid_value",
                )
