"""One system's part in a comparison, and the interchanges drawn between two of them.

A `Side` always has a recording; only a side made from a `System` can also be resumed. That is how a network and a brain use
the same interface: whoever was handed a `Recording` holds nothing that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.causal.counterfactual import Candidates, Pairs, draw_pairs
from neuromas.causal.model import PAD, CausalModel, Sequences, get_task, variable_columns
from neuromas.errors import InvalidInput, NotFound, ReadOnly
from neuromas.index.index import CLIndex
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import split_by_trial
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
class Side:
    """A system as a fit or an evaluation sees it.

    Attributes
    ----------
    name : str
    recording : Recording
        With the variable names that all sides share.
    variables : tuple of str
        What is compared; columns of every ``values``.
    units : tuple of str
        Units taken; only samples complete in them are used.
    latents : Tensor of float32, shape (n_samples, n_units)
        NaN where a unit was not recorded; such samples are never drawn.
    candidates : dict of str to Candidates
        By part: eligible, complete samples.
    indexes : dict of str to CLIndex
        By part.
    system : System or None
        What can be resumed; None for a side that can only be read.
    """

    name: str
    recording: Recording
    variables: tuple[str, ...]
    units: tuple[str, ...]
    latents: Tensor = field(repr=False)
    candidates: Mapping[str, Candidates] = field(repr=False)
    indexes: Mapping[str, CLIndex] = field(repr=False)
    system: System | None = None
    context: HeldContext | None = field(default=None, repr=False)

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

    def take(self, samples: NDArray[np.int64]) -> Tensor:
        """Latents of these rows of the recording; shape (n, n_units)."""
        return self.latents[torch.from_numpy(samples).to(self.latents.device)]

    def resume(self, latents: Tensor, continuation: Packed, samples: NDArray[np.int64]) -> Tensor:
        """Logits (n_live, n_tokens) after putting `latents` in place of the recorded rows `samples`.

        Raises
        ------
        ReadOnly
            This side can only be read.
        """
        if self.system is None:
            raise ReadOnly(
                f"system {self.name!r} can only be read: it was handed in as a recording, nothing here runs it"
            )
        held = None if self.context is None else self.context.at(samples)
        return self.system.resume(latents, continuation, held)

    def with_system(self, system: System) -> Side:
        """The same side, able to run: for an oracle in an evaluation, never in a fit."""
        if system.n_units != self.n_units:
            raise InvalidInput(
                f"oracle {system.name!r} has {system.n_units} units, recording {self.name!r} has {self.n_units}",
                kind="unit_mismatch",
            )
        system = system.to(self.latents.device)
        return Side(
            **{**vars(self), "system": system, "context": _context(system, self.recording)},
        )


def make_sides(
    systems: Sequence[System | Recording],
    *,
    variables: Sequence[str] | None = None,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    n_trials: int = 2000,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[list[Side], CausalModel | None]:
    """Prepare systems and recordings for a comparison.

    A `System` is recorded on `n_trials` fresh trials of its task and stays able to run; a `Recording` is taken as it is.

    Parameters
    ----------
    systems : sequence of System or Recording
    variables : sequence of str, optional
        Which to compare; by default the causal model's, or where there is none all that the recordings share.
    model : CausalModel, optional
        By default the task of the first `System`.
    mapping : mapping of name to mapping, optional
        For recordings that use other names or values; see `Recording.relabel`.
    units : mapping of name to sequence of str, optional
        Units to take of a recording; all by default.
    n_trials : int
    fractions : mapping of part to float, optional
        By default train 0.6, validation 0.2, test 0.2 of the trials.
    seed : int
        Of trials and splits.
    device : str or torch.device

    Returns
    -------
    list of Side
    CausalModel or None

    Raises
    ------
    InvalidInput
        Two sides of one name, a mapping for nobody, or a split with too few trials.
    NotFound
        A variable or unit that a side does not have.
    """
    if not systems:
        raise InvalidInput("expected at least 1 system or recording, got none", kind="wrong_systems")
    for one in systems:
        if not isinstance(one, (System, Recording)):
            raise InvalidInput(f"expected a System or a Recording, got {one!r}", kind="wrong_systems")
    check_device(device)
    names = side_names(systems)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"two systems are called {', '.join(map(repr, twice))}; give one another name", kind="same_name"
        )
    for what, keyed in (("mapping", mapping), ("units", units)):
        strange = [name for name in keyed or {} if name not in names]
        if strange:
            raise InvalidInput(f"{what} for {', '.join(map(repr, strange))}, but the systems are {', '.join(names)}")
    live = [one for one in systems if isinstance(one, System)]
    if model is None and live:
        model = get_task(live[0].config.task)
    recordings: list[Recording] = []
    for position, one in enumerate(systems):
        if isinstance(one, System):
            recording = capture(one.to(device), n_trials, seed=seed * 1000 + position, model=model)
        else:
            recording = one
        like = model.variables if model is not None else recordings[0] if recordings else None
        recordings.append(recording.relabel((mapping or {}).get(names[position]), like=like))
    chosen = tuple(variables) if variables is not None else _shared_variables(recordings, model)
    if live and model is not None and chosen != model.variable_names and set(chosen) <= set(model.variable_names):
        raise InvalidInput(
            f"variables are {', '.join(chosen)}, but {live[0].name!r} can be run and needs all that drive task"
            f" {model.name!r}, in its order: {', '.join(model.variable_names)}. To interchange only some of them, give"
            ' subspaces, e.g. {"' + chosen[0] + '": 4}',
            kind="variables_of_task",
        )
    sides = []
    for name, one, recording in zip(names, systems, recordings, strict=True):
        system = one if isinstance(one, System) else None
        wanted = None if units is None else units.get(name)
        sides.append(_side(name, recording, system, chosen, wanted, fractions, seed, device))
    return sides, model


def side_names(systems: Sequence[System | Recording]) -> list[str]:
    """How each system is called in a comparison: by its own name, or SET/RECORDING where two recordings share theirs."""
    short = [one.manifest.name if isinstance(one, Recording) else one.name for one in systems]
    return [
        one.name if isinstance(one, Recording) and short.count(name) > 1 else name
        for one, name in zip(systems, short, strict=True)
    ]


def _shared_variables(recordings: Sequence[Recording], model: CausalModel | None) -> tuple[str, ...]:
    if model is not None:
        return model.variable_names
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
    splits = split_by_trial(recording, fractions, seed=seed)
    values = recording.values(list(variables))
    usable = recording.eligible & recording.complete(units) & np.isfinite(values).all(axis=1)
    candidates, indexes = {}, {}
    for part in PARTS:
        samples = np.flatnonzero(usable & splits[part].samples)
        if not len(samples):
            raise InvalidInput(
                f"recording {recording.name!r}: no eligible, complete sample in the {part} part", kind="no_samples"
            )
        candidates[part] = Candidates.from_samples(samples, recording.trial[samples], values[samples])
        indexes[part] = CLIndex(recording, list(variables), split=splits[part], units=units, device=device)
    return Side(
        name=name,
        recording=recording,
        variables=variables,
        units=tuple(recording.unit_names if units is None else units),
        latents=torch.from_numpy(np.asarray(recording.latents(units), dtype=np.float32)).to(device),
        candidates=candidates,
        indexes=indexes,
        system=system,
        context=None if system is None else _context(system, recording),
    )


def _context(system: System, recording: Recording) -> HeldContext | None:
    if "token" not in recording.dataset.coords:
        if type(system).context is not System.context:
            raise InvalidInput(
                f"system {system.name!r} cannot be resumed from its latent alone, and recording {recording.name!r} has no"
                " tokens to say what came before",
                kind="no_tokens",
            )
        return None
    trials, rows = np.unique(recording.trial, return_inverse=True)
    tokens = np.full((len(trials), int(recording.step.max()) + 1), PAD, dtype=np.int64)
    tokens[rows, recording.step] = recording.dataset["token"].values
    context = system.context(torch.from_numpy(tokens))
    return None if context is None else HeldContext(context, rows.astype(np.int64), recording.step)


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
    """

    direction: Direction
    part: str
    source: NDArray[np.int64] = field(repr=False)
    target: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    continuation: Sequences | None = field(repr=False)
    subspace: NDArray[np.int64] = field(repr=False)
    resampled: int

    def __len__(self) -> int:
        return len(self.source)


def draw_pair_set(
    direction: Direction,
    part: str,
    n_pairs: int,
    subspaces: Sequence[Subspace],
    model: CausalModel | None,
    seed: Sequence[int],
) -> PairSet:
    """Draw `n_pairs` of a direction, spread evenly over the subspaces; `seed` is a sequence of numbers."""
    generator = np.random.default_rng(list(seed))
    variables = direction.target.variables
    drawn: list[Pairs] = []
    for share, subspace in zip(np.array_split(np.arange(n_pairs), len(subspaces)), subspaces, strict=True):
        columns = variable_columns(variables, subspace.variables, f"the comparison of {direction.name}")
        fitting = model if model is not None and model.variable_names == variables else None
        drawn.append(
            draw_pairs(
                direction.source.candidates[part],
                direction.target.candidates[part],
                columns,
                len(share),
                model=fitting,
                seed=generator,
            )
        )
    order = generator.permutation(n_pairs) if len(drawn) > 1 else np.arange(n_pairs)
    return PairSet(
        direction,
        part,
        np.concatenate([pairs.source for pairs in drawn])[order],
        np.concatenate([pairs.target for pairs in drawn])[order],
        np.concatenate([pairs.values for pairs in drawn])[order],
        _join([pairs.continuation for pairs in drawn], order),
        np.repeat(np.arange(len(drawn)), [len(pairs) for pairs in drawn])[order],
        sum(pairs.resampled for pairs in drawn),
    )


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
