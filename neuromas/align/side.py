"""What a fit or an evaluation sees of one system.

A `Side` always has a recording. Only a side that was made from a `System` can also be run. So a network and a brain share one
interface, and code that was handed a `Recording` holds nothing that runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.oracle import check_oracle
from neuromas.causal.counterfactual import Candidates
from neuromas.causal.model import TASKS, CausalModel, get_task, tokens_by_trial, variable_columns
from neuromas.errors import InvalidInput, ReadOnly
from neuromas.index.index import CLIndex
from neuromas.recordings.meeting import Held, Mismatch, clashing_codes, mismatch, other_words, refusal
from neuromas.recordings.recording import Recording
from neuromas.systems.system import Context, Packed, System
from neuromas.twins.twin import JUDGE, REFEREE, Twin

PARTS = ("train", "validation", "test")
"""The three parts of every recording. A trial belongs to one of them."""


@dataclass(frozen=True)
class HeldContext:
    """What a system needs besides a latent to run on, for every sample of a recording.

    Attributes
    ----------
    context : Context
        Of all trials.
    rows, steps : ndarray of int64, shape (n_samples,)
        Row of the context and step of each sample.
    """

    context: Context
    rows: NDArray[np.int64]
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, system: System, recording: Recording) -> HeldContext | None:
        """The context of `system` over the recording's trials; None if the system runs on from its latent alone.

        Raises
        ------
        InvalidInput
            The system needs what came before, and the recording has no tokens.
        """
        if "token" not in recording.dataset.coords:
            if type(system).context is not System.context:
                raise InvalidInput(
                    f"system {system.name!r} cannot be run on from its latent alone: it needs the tokens that came before,"
                    f" and recording {recording.name!r} has no tokens",
                    kind="no_tokens",
                )
            return None
        tokens, rows = tokens_by_trial(recording.dataset["token"].values, recording.trial, recording.step)
        context = system.context(torch.from_numpy(tokens))
        return None if context is None else cls(context, rows, recording.step)

    def at(self, samples: NDArray[np.int64]) -> Any:
        """The context of these rows of the recording."""
        return self.context.at(self.rows[samples], self.steps[samples])


@dataclass(frozen=True)
class Unrolled:
    """Trials padded to equal length. Stepwise interchanges read their source latents here.

    Attributes
    ----------
    tokens : Tensor of int64, shape (n_trials, n_steps)
        After a trial's end, the filler token of the causal model.
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
        Under the names and codes that all sides share.
    original : Recording
        As it was passed or captured, under its own names.
    variables : tuple of str
        Variables that are compared, by this side's own names; the columns of every ``values``.
    units : tuple of str
        Units that are used. Samples that miss one of them are never drawn.
    latents : Tensor of float32, shape (n_samples, n_units)
        NaN where a unit was not recorded.
    candidates : dict of str to Candidates
        By part: eligible, complete samples.
    indexes : dict of str to CLIndex
        By part.
    model : CausalModel or None
        The causal model of this side's task. It says what follows when this side is a target.
    roles : dict of str to str
        Shared name of a variable → its name here, if the two differ.
    mapping : mapping of str to entry
        What gave the recording's variables their names and values, as `Recording.relabel` takes it.
    system : System or None
        What can be run; None for a side that can only be read.
    context : HeldContext or None
    unrolled : Unrolled or None
        For stepwise interchanges.
    twin : Twin or None
        Of a side that can only be read.
    stand_ins : dict of str to System
        The twin's members by role, ready to be run in place of the system.
    """

    name: str
    recording: Recording
    original: Recording
    variables: tuple[str, ...]
    units: tuple[str, ...]
    latents: Tensor = field(repr=False)
    candidates: Mapping[str, Candidates] = field(repr=False)
    indexes: Mapping[str, CLIndex] = field(repr=False)
    model: CausalModel | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    mapping: Mapping[str, Any] = field(default_factory=dict)
    system: System | None = None
    context: HeldContext | None = field(default=None, repr=False)
    unrolled: Unrolled | None = field(default=None, repr=False)
    twin: Twin | None = field(default=None, repr=False)
    stand_ins: Mapping[str, System] = field(default_factory=dict, repr=False)

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

    def held(self, variable: str) -> Held:
        """A variable, by its name here, with the values that samples of this side hold."""
        column = self.variables.index(variable)
        columns = (candidates.values[:, column] for candidates in self.candidates.values())
        return Held(
            self.name, self.recording.spec(variable), lambda: np.concatenate(list(columns)), mapping=self.mapping
        )

    def columns(self, variables: Sequence[str]) -> list[int]:
        """Columns of ``values`` that hold `variables`, by this side's own or by shared names; NotFound for others."""
        own = [self.roles.get(name, name) for name in variables]
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
        """Run the system on from `latents`, which replace recorded ones.

        Parameters
        ----------
        latents : Tensor, shape (n_pairs, n_units) or (n_pairs, n_steps, n_units)
            They replace the rows `samples` or, stepwise, the first steps of their trials.
        continuation : Packed
        samples : ndarray of int64, shape (n_pairs,)
        lengths : ndarray of int64, shape (n_pairs,), optional
            Stepwise: the number of steps of each pair.

        Returns
        -------
        Tensor, shape (n_live, n_tokens)
            Logits.

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
        """Cross-entropy of the continuation's tokens, shape (n_live,); parameters and errors as `resume`."""
        system = self._running()
        if lengths is None:
            return system.token_losses(latents, continuation, self._held(samples))
        steps, tokens = self._stepwise(latents, samples, lengths)
        return system.token_losses(latents, continuation, lengths=steps, tokens=tokens)

    def _running(self) -> System:
        if self.system is None:
            raise ReadOnly(
                f"system {self.name!r} can only be read: it was passed as a recording, so nothing here can run it"
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
        """The same side, able to run: for an oracle in an evaluation, never in a fit.

        Raises
        ------
        InvalidInput
            The system is not the one that was recorded: it has another number of units, or other latents on the recording's own
            tokens. Or the recording has no tokens to compare them on, or the system's task has other values or codes.
        """
        if system.n_units != self.n_units:
            raise InvalidInput(
                f"oracle {system.name!r} has {system.n_units} units, recording {self.name!r} has {self.n_units};"
                " expected the system that was recorded",
                kind="unit_mismatch",
            )
        system = system.to(self.latents.device)
        check_oracle(system, self.recording, self.latents)
        model = self.model
        if model is None and system.config.task in TASKS:
            task = get_task(system.config.task)
            model = task if task.variable_names == self.variables else None
        side = replace(self, system=system, context=HeldContext.of(system, self.recording), model=model)
        check_meanings([side])
        return side

    def with_twin(self, twin: Twin) -> Side:
        """The same side with a twin, which a fit may run in its place.

        Raises
        ------
        InvalidInput
            The twin was learnt from another recording or other units, or follows no tokens; or nothing says how this side should
            go on after an interchange.
        """
        # learnt by a fit under the common names, or by itself under the recording's own
        own = self.recording if twin.card.content_sha256 == self.recording.content_sha256 else self.original
        twin.check(own, self.units)
        model = self.model
        if model is None:
            raise InvalidInput(
                f"a twin of {self.name!r} can be trained on behaviour only if a causal model says what should follow an"
                " interchange; the recording's task is not registered, and no system of the fit has one",
                kind="no_model",
            )
        known = twin.card.vocabulary or ()
        if known[: len(model.vocabulary)] != model.vocabulary:
            raise InvalidInput(
                f"the twin of {self.name!r} knows the tokens {', '.join(known) or 'none'}, task {model.name!r} has"
                f" {', '.join(model.vocabulary)}; expected the same, in the same order",
                kind="vocabulary_mismatch",
            )
        roles = (*twin.roles, REFEREE, JUDGE)
        stand_ins = {role: twin.system(role, self.latents.device) for role in roles}
        return replace(self, twin=twin, stand_ins=stand_ins)

    def run_by(self, role: str) -> Side:
        """The same side, able to run: a member of its twin goes on in its place."""
        return replace(self, system=self.stand_ins[role], context=None)

    def with_steps(self, n_steps: int) -> Side:
        """The same side with its trials padded to `n_steps`, ready for stepwise interchanges.

        Raises
        ------
        InvalidInput
            The side can only be read, its layer does not allow stepwise interchanges, or its task has no filler token.
        """
        system, model = self.system, self.model
        if system is None or not system.stepwise or model is None or model.filler is None:
            raise InvalidInput(
                f"stepwise interchanges need systems that can be run, at a layer such as 'embedding'; {self.name!r}"
                f" {self._why_not_stepwise()}",
                kind="not_stepwise",
            )
        recording = self.recording
        padded, rows = tokens_by_trial(
            recording.dataset["token"].values, recording.trial, recording.step, fill=model.filler, n_steps=n_steps
        )
        tokens = torch.from_numpy(padded).to(self.latents.device)
        return replace(self, unrolled=Unrolled(tokens, system.latents(tokens), rows, recording.step))

    def _why_not_stepwise(self) -> str:
        if self.system is None:
            return "can only be read"
        if not self.system.stepwise:
            return f"is intervened on at layer {self.system.layer!r}, where each latent depends on the one before"
        return "has a task without a filler token, which pads trials"


def check_meanings(sides: Sequence[Side]) -> None:
    """Refuse variables of the same name that are numbers in one side and categories in another.

    Sides with different variables are checked where a subspace joins them.

    Raises
    ------
    InvalidInput
        Lists every such variable, and says which mapping would make the values comparable.
    """
    mismatches = []
    for side in sides:
        if side.model is not None:
            for spec in side.model.variables:
                mismatches.append(
                    _mismatch(side, spec.name, Held(side.model.name, spec, noun="task "), {side.model.name})
                )
    if len({side.variables for side in sides}) == 1:
        first = next((side for side in sides if side.system is not None), sides[0])
        mismatches += [meeting(first, variable, side, variable) for side in sides for variable in side.variables]
        if any(mismatches):
            # these alone are no reason to refuse, for a fit may leave the variable out
            recorded = [side for side in sides if side.system is None and side is not first]
            mismatches += [
                other_words(first.held(variable), side.held(variable))
                for side in recorded
                for variable in side.variables
            ]
    refuse(mismatches)


def meeting(first: Side, variable: str, other: Side, others: str) -> Mismatch | None:
    """Why a variable of one side cannot be compared with one of another; None if it can."""
    running = {side.name for side in (first, other) if side.system is not None}
    return _mismatch(first, variable, other.held(others), running)


def refuse(mismatches: Sequence[Mismatch | None]) -> None:
    """Raise InvalidInput that lists all mismatches, if there are any."""
    message = refusal(filter(None, mismatches))
    if message:
        raise InvalidInput(message, kind="no_shared_value")


def _mismatch(side: Side, variable: str, other: Held, fixed: Collection[str]) -> Mismatch | None:
    held = side.held(variable)
    return mismatch(held, other, fixed) or clashing_codes(held, other)
