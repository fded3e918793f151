"""A fit while it runs: a plan that does not change, and a state that does.

Iteration i depends on the seed, i and the state alone, since batches and draws come from generators seeded with (seed, i). So a
fit that was interrupted and resumed gives the same numbers as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuromas.align.alignment import Subspace, TrainableMap
from neuromas.align.pairs import PairSet
from neuromas.fit.objective import Term
from neuromas.schema.fit import FitConfig, Validation

_DRAWS, _BATCHES = 7919, 7907
"""Separate the random streams of counterfactual latents and of batches from that of pairs."""


@dataclass(frozen=True)
class FitPlan:
    """The settings and pairs of a fit, which do not change while it runs.

    Attributes
    ----------
    config : FitConfig
    terms : tuple of Term
    train, validation : tuple of PairSet
        One per term.
    subspaces : tuple of Subspace
    identity : str
        Hash of configuration and inputs; a checkpoint of another identity is refused.
    """

    config: FitConfig
    terms: tuple[Term, ...]
    train: tuple[PairSet, ...] = field(repr=False)
    validation: tuple[PairSet, ...] = field(repr=False)
    subspaces: tuple[Subspace, ...]
    identity: str


@dataclass
class State:
    """The state of a fit: parameters and optimiser (changed in place), the best checkpoint, and the history."""

    maps: nn.ModuleDict
    optimiser: torch.optim.Optimizer
    iteration: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_iteration: int = 0
    best_score: float = math.inf
    reference: float = math.inf
    """Score that a validation must beat by `tolerance` to count as progress."""
    references: dict[str, float] = field(default_factory=dict)
    """The same for each direction's own losses."""
    stale: int = 0
    seconds: float = 0.0
    """Wall time, which fits that run together share."""
    history: list[Validation] = field(default_factory=list)

    @classmethod
    def fresh(cls, maps: Mapping[str, TrainableMap], learning_rate: float) -> State:
        """The state before the first iteration, without any validation; `maps` by side are trained in place."""
        modules = nn.ModuleDict({_key(name): module for name, module in maps.items()})
        return cls(modules, adam((p for p in modules.parameters() if p.requires_grad), learning_rate))

    @classmethod
    def solved(cls, history: list[Validation], seconds: float) -> State:
        """The state of a fit without iterations."""
        nothing = torch.optim.SGD([torch.zeros(0)], lr=0.0)
        return cls(nn.ModuleDict(), nothing, seconds=seconds, history=history)

    def named_maps(self) -> Iterator[tuple[str, TrainableMap]]:
        """Maps by side."""
        for key, module in self.maps.items():
            assert isinstance(module, TrainableMap)
            yield key.removeprefix("of ").replace("\x1f", "."), module

    def set_learning_rate(self, rate: float | Tensor) -> None:
        """Set the learning rate of the next update."""
        for group in self.optimiser.param_groups:
            # a tensor if a CUDA graph may read it
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate) if isinstance(rate, Tensor) else group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def _key(name: str) -> str:
    # the name of a module must not contain a dot, nor be that of a method
    return "of " + name.replace(".", "\x1f")


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam; on a GPU as one kernel with its whole state there, including the learning rate."""
    trained = list(parameters)
    if not all(parameter.is_cuda for parameter in trained):
        return torch.optim.Adam(trained, lr=learning_rate)
    rate = torch.tensor(learning_rate, device=trained[0].device)
    return torch.optim.Adam(trained, lr=rate, fused=True, capturable=True)


def learning_rate(config: FitConfig, iteration: int) -> float:
    """The learning rate of the update after `iteration` updates."""
    if config.schedule == "constant" or config.max_iterations == 0:
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / config.max_iterations))


def batch_rows(n_pairs: int, batch_size: int, seed: int, number: int, iteration: int) -> NDArray[np.int64]:
    """Rows of the pairs for this iteration. Each epoch uses every pair once, in a new order."""
    size = min(batch_size, n_pairs)
    per_epoch = n_pairs // size
    epoch, position = divmod(iteration, per_epoch)
    return _order(n_pairs, seed, number, epoch)[position * size : (position + 1) * size].copy()


@lru_cache(maxsize=64)
def _order(n_pairs: int, seed: int, number: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _BATCHES, number, epoch]).permutation(n_pairs)


def draw_generator(pairs: PairSet, seed: int, number: int, iteration: int) -> torch.Generator:
    """Generator of the counterfactual latents of this iteration; −1: of validation, −2: of draws made once."""
    return torch.Generator(device=pairs.direction.target.latents.device).manual_seed(draw_seed(seed, number, iteration))


def draw_seed(seed: int, number: int, iteration: int) -> int:
    """Seed of `draw_generator`."""
    words = np.random.SeedSequence([seed, _DRAWS, number, iteration + 2]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
