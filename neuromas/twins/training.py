"""Training of one twin: rolled over several steps from a noisy start, early stopped on other trials.

Iteration i depends on the seed, i and the state alone, so an interrupted training goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.schema.twin import TwinConfig
from neuromas.systems.updates import seeded
from neuromas.twins.data import MISSING, TwinData
from neuromas.twins.kinds import KINDS, Dynamics
from neuromas.weights import adam_tensors, read_safetensors, restore_adam, resuming, safetensors_bytes

_STREAM = 7927  # seeds of batches and noise
_N_VALIDATION = 512
"""Starts of each validation."""

Report = Callable[[int, float, float], None]
"""Called with the iteration, the loss and the latest validation loss."""


@dataclass(frozen=True)
class Course:
    """How training went.

    Attributes
    ----------
    iterations, best_iteration : int
    loss : float
        Validation loss of the weights that were kept: error of the latents, as a share of their variance, plus cross-entropy of
        the behaviour, over the steps of a rollout.
    surprise : float
        The cross-entropy alone, from starts with noise.
    """

    iterations: int
    best_iteration: int
    loss: float
    surprise: float


@dataclass
class _State:
    """Parameters and optimiser, which change in place, and the best checkpoint."""

    dynamics: Dynamics
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor]
    iteration: int = 0
    best_iteration: int = 0
    best_loss: float = math.inf
    stale: int = 0

    def validated(self, loss: float, tolerance: float) -> None:
        """Keep the weights if they are the best so far."""
        improved = loss < self.best_loss * (1 - tolerance)
        if loss < self.best_loss:
            self.best_loss, self.best_iteration = loss, self.iteration
            self.best = _copied(self.dynamics)
        self.stale = 0 if improved else self.stale + 1


def _copied(dynamics: Dynamics) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in dynamics.state_dict().items()}


def train_dynamics(
    data: TwinData,
    kind: str,
    config: TwinConfig,
    *,
    train: Tensor,
    validation: Tensor,
    seed: int,
    identity: str = "",
    checkpoint: Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    report: Report = lambda iteration, loss, validated: None,
) -> tuple[Dynamics, Course]:
    """Train one twin.

    Parameters
    ----------
    data : TwinData
    kind : str
        One of `KINDS`.
    config : TwinConfig
    train, validation : Tensor of int64
        Rows of `data` from which rollouts start; of different trials.
    seed : int
    identity : str
        What the training is of; a checkpoint of another identity is refused.
    checkpoint : path, optional
        File from which training goes on, and into which it is saved at each validation.
    interrupted : callable
        Whether to stop here, after saving.
    report : callable

    Returns
    -------
    (Dynamics, Course)

    Raises
    ------
    InvalidInput
        The loss is no longer finite, or the checkpoint belongs to another training.
    KeyboardInterrupt
        `interrupted` returned true.
    """
    state = _begin(data, kind, config, train, seed)
    if checkpoint is not None and checkpoint.exists():
        _restore(checkpoint, identity, state)
    starts = _spread(validation, _N_VALIDATION)
    variance = _variance(data, train)
    noise = config.noise * data.latents[train].std(dim=0)
    while state.iteration < config.max_iterations and state.stale < config.patience:
        loss = _update(state, data, train, config, variance, noise, seed)
        if state.iteration % config.validate_every == 0 or state.iteration == config.max_iterations:
            with torch.no_grad():
                error, surprise = rollout_losses(state.dynamics, data, starts, config.rollout, variance)
            state.validated(float(error + surprise), config.tolerance)
            if checkpoint is not None:
                _save(checkpoint, identity, state)
        report(state.iteration, loss, state.best_loss)
        if interrupted():
            if checkpoint is not None:
                _save(checkpoint, identity, state)
            raise KeyboardInterrupt
    state.dynamics.load_state_dict(state.best)
    state.dynamics.eval().requires_grad_(False)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(_seed(seed, -1))
        surprise = rollout_losses(state.dynamics, data, starts, config.rollout, variance, noise, generator)[1]
    return state.dynamics, Course(state.iteration, state.best_iteration, state.best_loss, float(surprise))


def _update(
    state: _State, data: TwinData, train: Tensor, config: TwinConfig, variance: Tensor, noise: Tensor, seed: int
) -> float:
    """One update on a new batch of rollouts; returns the loss before it."""
    generator = torch.Generator().manual_seed(_seed(seed, state.iteration))
    chosen = train[torch.randint(len(train), (config.batch_size,), generator=generator)]
    _set_rate(state.optimiser, config, state.iteration)
    error, surprise = rollout_losses(state.dynamics, data, chosen, config.rollout, variance, noise, generator)
    loss = error + surprise
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.dynamics.parameters(), 1.0)
    state.optimiser.step()
    value = loss.item()
    if not math.isfinite(value):
        raise InvalidInput(
            f"the loss of the twin became {value} at iteration {state.iteration}; a smaller learning rate may help",
            kind="diverged",
        )
    state.iteration += 1
    return value


def rollout_losses(
    dynamics: Dynamics,
    data: TwinData,
    starts: Tensor,
    n_steps: int,
    variance: Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Error of latents and behaviour over a rollout with the recorded inputs.

    Parameters
    ----------
    dynamics : Dynamics
    data : TwinData
    starts : Tensor of int64, shape (n_starts,)
        Rows of `data`.
    n_steps : int
        Steps of the rollout; a trial may end before.
    variance : Tensor, scalar
        Of the latents, summed over units.
    noise : Tensor, shape (n_units,), optional
        Standard deviation of the noise that is added to each start.
    generator : torch.Generator, optional

    Returns
    -------
    (Tensor, Tensor), scalars
        Mean over steps of squared error divided by `variance`, and mean cross-entropy of the behaviour.
    """
    remaining = data.remaining[starts].clamp(max=n_steps)
    order = torch.argsort(remaining, descending=True, stable=True)
    starts, remaining = starts[order], remaining[order]
    latents = data.latents[starts]
    if noise is not None:
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
    every_row, every_latent = [starts], [latents]
    for step in range(1, int(remaining[0]) + 1):
        # the trials that go on are the first ones
        rows = starts[: int((remaining >= step).sum())] + step
        latents = dynamics(latents[: len(rows)], data.inputs[rows])
        every_row.append(rows)
        every_latent.append(latents)
    rows, latents = torch.cat(every_row), torch.cat(every_latent)
    known = data.behaviour[rows] != MISSING
    surprise = functional.cross_entropy(dynamics.behaviour(latents[known]), data.behaviour[rows[known]])
    after = slice(len(starts), None)
    if len(rows) == len(starts):
        return latents.new_zeros(()), surprise
    return (latents[after] - data.latents[rows[after]]).square().sum(dim=1).mean() / variance, surprise


def _begin(data: TwinData, kind: str, config: TwinConfig, train: Tensor, seed: int) -> _State:
    with seeded(seed):
        dynamics = KINDS[kind](data.n_units, data.inputs.shape[1], len(data.of_behaviour.codes), config.n_hidden)
    before = train[data.followed[train]]
    dynamics.adapt(data.latents[train], data.latents[before], data.inputs[before + 1], data.latents[before + 1])
    rate = config.learning_rate or dynamics.learning_rate
    optimiser = torch.optim.AdamW(dynamics.parameters(), lr=rate, weight_decay=config.weight_decay)
    optimiser.param_groups[0]["initial_lr"] = rate
    return _State(dynamics, optimiser, _copied(dynamics))


def _variance(data: TwinData, rows: Tensor) -> Tensor:
    return data.latents[rows].var(dim=0, correction=0).sum().clamp_min(1e-12)


def _spread(rows: Tensor, most: int) -> Tensor:
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), most)).long()]


def _seed(seed: int, iteration: int) -> int:
    words = np.random.SeedSequence([seed, _STREAM, iteration + 1]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def _set_rate(optimiser: torch.optim.Optimizer, config: TwinConfig, iteration: int) -> None:
    """Cosine from the rate at the start to 0."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * 0.5 * (1 + math.cos(math.pi * iteration / config.max_iterations))


_NUMBERS = ("iteration", "best_iteration", "best_loss", "stale")


def _save(path: Path, identity: str, state: _State) -> None:
    tensors = {f"now/{name}": value for name, value in state.dynamics.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= adam_tensors(state.dynamics, state.optimiser)
    described = {"identity": identity, "state": json.dumps({name: getattr(state, name) for name in _NUMBERS})}
    write_atomically(path, safetensors_bytes(tensors, described))


def _restore(path: Path, identity: str, state: _State) -> None:
    with resuming(path):
        tensors, described = read_safetensors(path)
        if described["identity"] != identity:
            raise InvalidInput(
                f"{path} belongs to another twin (recording or settings differ); choose another folder or remove it",
                kind="occupied",
            )
        state.dynamics.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("now/")})
        restore_adam(state.dynamics, state.optimiser, tensors)
        for name, value in json.loads(described["state"]).items():
            setattr(state, name, value)
        state.best = {name[5:]: value for name, value in tensors.items() if name.startswith("best/")}
