"""From a recording to what a twin learns from: latents, inputs and behaviour, sample after sample of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.recordings.recording import Recording
from neuromas.schema.twin import TwinBehaviour, TwinInput

MISSING = -1
"""Stands for an answer that is not known."""
_FEWEST_TRIALS = 5
"""Trials from which a twin can be learnt: training and validation for two twins, and a test."""


@dataclass(frozen=True)
class TwinData:
    """What a twin learns from, ordered by trial and step.

    Attributes
    ----------
    latents : Tensor of float32, shape (n_samples, n_units)
    inputs : Tensor of float32, shape (n_samples, n_features)
        What the system was fed at each sample. The latent of a sample follows from the one before and from this.
    behaviour : Tensor of int64, shape (n_samples,)
        Class of what the system did after each sample; `MISSING` where that is not known.
    usable : Tensor of bool, shape (n_samples,)
        Whether every unit was recorded.
    followed : Tensor of bool, shape (n_samples,)
        Whether the next row is the next step of the same trial, and both are usable.
    trial : ndarray of int64, shape (n_samples,)
    order : ndarray of int64, shape (n_samples,)
        Row of the recording that each sample is.
    of_inputs : tuple of TwinInput
    of_behaviour : TwinBehaviour
    """

    latents: Tensor = field(repr=False)
    inputs: Tensor = field(repr=False)
    behaviour: Tensor = field(repr=False)
    usable: Tensor = field(repr=False)
    followed: Tensor = field(repr=False)
    trial: NDArray[np.int64] = field(repr=False)
    order: NDArray[np.int64] = field(repr=False)
    of_inputs: tuple[TwinInput, ...]
    of_behaviour: TwinBehaviour

    @classmethod
    def of(
        cls,
        recording: Recording,
        *,
        inputs: Sequence[str] | None = None,
        behaviour: str | None = None,
        units: Sequence[str] | None = None,
    ) -> TwinData:
        """What a twin of `recording` learns from.

        Parameters
        ----------
        recording : Recording
        inputs : sequence of str, optional
            What the system was fed: ``token``, or variables. By default ``token`` if the recording has it, else nothing.
        behaviour : str, optional
            Coordinate with what the system did; by default the one that the manifest names.
        units : sequence of str, optional
            Units of the twin; all by default.

        Raises
        ------
        InvalidInput
            The recording has no steps that follow one another, too few trials, no complete sample, or no behaviour of the
            system itself; a variable that is real cannot be a behaviour.
        NotFound
            It has no such coordinate.
        """
        order = np.lexsort((recording.step, recording.trial))
        trial, step = recording.trial[order], recording.step[order]
        _check_trials(recording, trial, step)
        latents = recording.latents(units=units)[order].astype(np.float32)
        usable = np.asarray(~np.isnan(latents).any(axis=1))
        following = (trial[1:] == trial[:-1]) & (step[1:] == step[:-1] + 1) & usable[1:] & usable[:-1]
        if not following.any():
            raise InvalidInput(
                f"recording {recording.name!r} has no two complete samples that follow one another in a trial, so there is"
                f" nothing to learn of its dynamics ({int(usable.sum()):,} of {len(usable):,} samples are complete; fewer"
                " units= may leave more)",
                kind="no_samples",
            )
        of_inputs = _inputs_of(recording, inputs)
        of_behaviour = _behaviour_of(recording, behaviour)
        names = [*(entry.name for entry in of_inputs), of_behaviour.name]
        columns = {name: recording.dataset[name].values[order] for name in names}
        return cls(
            torch.from_numpy(np.nan_to_num(latents)),
            features(of_inputs, columns, len(order)),
            torch.from_numpy(_answers(of_behaviour, columns[of_behaviour.name], trial)),
            torch.from_numpy(usable),
            torch.from_numpy(np.append(following, False)),
            trial,
            order,
            of_inputs,
            of_behaviour,
        )

    @cached_property
    def remaining(self) -> Tensor:
        """How many usable steps follow each sample without a gap; int64, shape (n_samples,)."""
        remaining = np.zeros(len(self.trial), dtype=np.int64)
        followed = self.followed.numpy()
        for row in range(len(remaining) - 2, -1, -1):
            if followed[row]:
                remaining[row] = remaining[row + 1] + 1
        return torch.from_numpy(remaining)

    @property
    def n_units(self) -> int:
        return self.latents.shape[1]

    @property
    def longest(self) -> int:
        """Steps of the longest trial."""
        return int(np.unique(self.trial, return_counts=True)[1].max())

    def rows(self, trials: NDArray[np.int64]) -> Tensor:
        """Usable samples of `trials`; int64, shape (n,)."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.trial, trials) & self.usable.numpy()))


def features(inputs: Sequence[TwinInput], columns: dict[str, NDArray[np.generic]], n_samples: int) -> Tensor:
    """Inputs as numbers: categories and tokens one-hot, other variables standardised; float32 (n_samples, n_features)."""
    parts = [torch.zeros(n_samples, 0)]
    for entry in inputs:
        values = np.asarray(columns[entry.name])
        if entry.codes is None:
            parts.append(torch.from_numpy(((values - entry.mean) / entry.sd).astype(np.float32))[:, None])
        else:
            places = torch.from_numpy(np.searchsorted(np.array(entry.codes), values))
            parts.append(functional.one_hot(places, len(entry.codes)).float())
    return torch.cat(parts, dim=1)


def _answers(behaviour: TwinBehaviour, values: NDArray[np.generic], trial: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of each value: its place among the codes; `MISSING` where nothing was answered."""
    answers = np.searchsorted(np.array(behaviour.codes), np.asarray(values)).astype(np.int64)
    if not behaviour.shown_next:
        return answers
    same = np.append(trial[1:] == trial[:-1], False)
    return np.where(same, np.roll(answers, -1), MISSING)


def _check_trials(recording: Recording, trial: NDArray[np.int64], step: NDArray[np.int64]) -> None:
    n_trials = len(np.unique(trial))
    if not ((trial[1:] == trial[:-1]) & (step[1:] == step[:-1] + 1)).any():
        raise InvalidInput(
            f"recording {recording.name!r} has no steps: no sample follows another one in its trial. A twin learns how activity"
            " goes on from one step to the next",
            kind="no_steps",
        )
    if n_trials < _FEWEST_TRIALS:
        raise InvalidInput(
            f"recording {recording.name!r} has {n_trials} trials; a twin needs at least {_FEWEST_TRIALS}, some to learn from and"
            " others to be tested on",
            kind="too_few_trials",
        )


def _inputs_of(recording: Recording, names: Sequence[str] | None) -> tuple[TwinInput, ...]:
    """What the system was fed."""
    coordinates = recording.dataset.coords
    if names is None:
        names = [dims.TOKEN] if dims.TOKEN in coordinates else []
    known = [*([dims.TOKEN] if dims.TOKEN in coordinates else []), *recording.variable_names]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotFound(
            f"inputs: recording {recording.name!r} has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
            + suggestion(unknown[0], known),
            kind="unknown_variable",
        )
    return tuple(_input_of(recording, name) for name in names)


def _input_of(recording: Recording, name: str) -> TwinInput:
    if name == dims.TOKEN:
        return TwinInput(name=name, codes=_tokens(recording))
    spec, values = recording.spec(name), recording.dataset[name].values
    if spec.type == "categorical":
        return TwinInput(name=name, codes=tuple(sorted(int(code) for code in spec.values or ())))
    return TwinInput(name=name, mean=float(values.mean()), sd=float(values.std()) or 1.0)


def _tokens(recording: Recording) -> tuple[int, ...]:
    return tuple(range(len(recording.manifest.vocabulary or ())))


def _behaviour_of(recording: Recording, name: str | None) -> TwinBehaviour:
    """What the system did."""
    name = recording.manifest.behaviour if name is None else name
    if name is None:
        raise InvalidInput(
            f"recording {recording.name!r} does not say what the system itself did: its manifest names no behaviour. Capture a"
            " network again to record its own outputs, or name the variable of a choice or response (behaviour=NAME, --behaviour"
            " NAME). The tokens that a network was shown are not its own answers; behaviour='token' takes them as such",
            kind="no_behaviour",
        )
    if name == dims.TOKEN and dims.TOKEN in recording.dataset.coords:
        return TwinBehaviour(name=name, codes=_tokens(recording), tokens=True, shown_next=True)
    if name == recording.manifest.behaviour and name not in recording.variable_names:
        return TwinBehaviour(name=name, codes=_tokens(recording), tokens=True)
    spec = recording.spec(name)
    if spec.type == "real":
        raise InvalidInput(
            f"behaviour: {name!r} of recording {recording.name!r} is real; a twin predicts one of several answers. Divide it"
            " into categories, for example with bins",
            kind="no_behaviour",
        )
    values = spec.values if spec.values is not None else np.unique(recording.dataset[name].values).tolist()
    return TwinBehaviour(name=name, codes=tuple(sorted(int(value) for value in values)))
