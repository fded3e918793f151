"""What a system can do: be recorded, and be resumed from an intervened latent.

Everything up to the intervention is computed once and kept; a fit iteration runs only what follows it, on the steps still
alive. Sequences that follow travel packed: sorted by length, step after step, so that no work is spent on padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from neuromas.causal.model import PAD, Sequences
from neuromas.errors import InvalidInput
from neuromas.schema import SystemConfig


@dataclass(frozen=True)
class Packed:
    """Continuations of a batch, sorted by falling length and laid out step after step.

    Row τ of the batch's j-th sequence is alive while τ < its length; ``sizes[τ]`` sequences are alive at step τ, and
    because of the order they are the first ones.

    Attributes
    ----------
    order : Tensor of int64, shape (n_pairs,)
        Batch row of each sorted sequence.
    sizes : tuple of int
        Sequences alive at each step; falling.
    tokens : Tensor of int64, shape (n_live,)
        The counterfactual tokens; ``n_live = sum(sizes)``. They are the labels, and each is the input of the next step.
    deterministic : Tensor of bool, shape (n_live,)
    rows : Tensor of int64, shape (n_live,)
        Batch row that each live token belongs to.
    """

    order: Tensor
    sizes: tuple[int, ...]
    tokens: Tensor
    deterministic: Tensor
    rows: Tensor

    @classmethod
    def from_sequences(
        cls, tokens: np.ndarray, lengths: np.ndarray, deterministic: np.ndarray, device: Any = "cpu"
    ) -> Packed:
        """Pack padded arrays of shape (n_pairs, n_steps), with `lengths` of shape (n_pairs,)."""
        order = np.argsort(-lengths, kind="stable")
        longest = int(lengths.max(initial=0))
        alive = np.arange(longest)[:, None] < lengths[order][None, :]  # (n_steps, n_pairs), a staircase
        by_step = tokens[order, :longest].T[alive]
        fixed = deterministic[order, :longest].T[alive]
        rows = np.broadcast_to(order, alive.shape)[alive]

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        return cls(tensor(order), tuple(alive.sum(axis=1).tolist()), tensor(by_step), tensor(fixed), tensor(rows))

    @classmethod
    def from_continuation(cls, continuation: Sequences, pairs: np.ndarray | None = None, device: Any = "cpu") -> Packed:
        """Pack the rows `pairs` of `continuation` (all if not given)."""
        chosen = slice(None) if pairs is None else pairs
        return cls.from_sequences(
            continuation.tokens[chosen], continuation.lengths[chosen], continuation.deterministic[chosen], device
        )


class Context(ABC):
    """What a system must keep, besides the latent, to be resumed at a step: a key-value cache, say."""

    @abstractmethod
    def at(self, trials: np.ndarray, steps: np.ndarray) -> Any:
        """The part that belongs to these (trial, step) positions, each of shape (n_pairs,), in the system's own form."""


class System(ABC):
    """A network that can be recorded and resumed. It is frozen: nothing here changes its weights."""

    config: SystemConfig
    device: torch.device = torch.device("cpu")

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def n_units(self) -> int:
        """Width of the latent."""
        return self.config.n_units

    @property
    @abstractmethod
    def layer(self) -> str:
        """Which layer's activity is the latent."""

    @abstractmethod
    def latents(self, tokens: Tensor) -> Tensor:
        """Record: the latent after each token was consumed.

        Parameters
        ----------
        tokens : Tensor of int64, shape (n_trials, n_steps)
            `PAD` after the end of a trial; what stands there in the result means nothing.

        Returns
        -------
        Tensor of float32, shape (n_trials, n_steps, n_units)
        """

    @abstractmethod
    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        """Go on from `latents`, fed with the continuation's own tokens.

        Differentiable with respect to `latents`. The token at the intervened step has been consumed already, so the
        first prediction comes from the latent itself.

        Parameters
        ----------
        latents : Tensor, shape (n_pairs, n_units)
            In the batch's order, not the packed one.
        continuation : Packed
        context : optional
            What ``context(...).at(...)`` gave for these pairs.

        Returns
        -------
        Tensor, shape (n_live, n_tokens)
            Logits for each of ``continuation.tokens``.
        """

    def context(self, tokens: Tensor) -> Context | None:
        """What else must be kept of trials `tokens` to resume inside them; None if the latent is all there is."""
        return None

    def to(self, device: str | torch.device) -> System:
        """Move the weights; returns self. A system that never moves need not override this.

        Raises
        ------
        InvalidInput
            The system cannot be moved there.
        """
        if torch.device(device) != self.device:
            raise InvalidInput(
                f"{type(self).__name__} lies on {self.device} and cannot be moved to {device}", kind="no_device"
            )
        return self

    @torch.no_grad()
    def trial_accuracy(self, trials: Sequences, batch_size: int = 1000) -> float:
        """Share of `trials` in which every deterministic token is the most probable one."""
        right = []
        for start in range(0, len(trials), batch_size):
            rows = np.arange(start, min(start + batch_size, len(trials)))
            begin = torch.from_numpy(trials.tokens[rows, :1]).to(self.device)
            rest = Packed.from_sequences(
                trials.tokens[rows, 1:], trials.lengths[rows] - 1, trials.deterministic[rows, 1:], self.device
            )
            context = self.context(begin)
            held = None if context is None else context.at(np.arange(len(rows)), np.zeros(len(rows), np.int64))
            logits = self.resume(self.latents(begin)[:, 0], rest, held)
            right.append(all_right(logits, rest, len(rows)))
        return torch.cat(right).double().mean().item()


class Trained(System):
    """A system made from a network that `train` trains and `load_system` loads.

    A subclass sets ``network``, and derives in ``_prepare`` what it needs of the weights.

    Parameters
    ----------
    config : SystemConfig
    weights : dict of str to Tensor
        State of a ``network``.
    device : str or torch.device
    """

    network: type[nn.Module]
    """The trainable module. Made from a `SystemConfig`, it gives the logits (n_trials, n_steps, n_tokens) of the token after
    each of its tokens (n_trials, n_steps)."""

    def __init__(self, config: SystemConfig, weights: dict[str, Tensor], device: str | torch.device = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._network = self.network(config).to(self.device)
        self._network.load_state_dict(weights)
        self._network.eval().requires_grad_(False)
        self._prepare()

    @classmethod
    def readout_width(cls, n_units: int) -> int:
        """Width of the readout's hidden layer where the latent has `n_units`: four times the hidden state's (paper A.1)."""
        return 4 * n_units

    @property
    def weights(self) -> dict[str, Tensor]:
        """State of the network, as saved."""
        return self._network.state_dict()

    def to(self, device: str | torch.device) -> Self:
        self.device = torch.device(device)
        self._network.to(self.device)
        self._prepare()
        return self

    @abstractmethod
    def _prepare(self) -> None:
        """Called when weights were loaded or moved."""


def check_device(device: str | torch.device) -> None:
    """InvalidInput if nothing can be computed on `device` here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for an unknown and for an absent device
        raise InvalidInput(f"device {str(device)!r} cannot be used here: {error}", kind="no_device") from error


def all_right(logits: Tensor, continuation: Packed, n_pairs: int) -> Tensor:
    """Whether every deterministic token of a continuation is the argmax.

    Parameters
    ----------
    logits : Tensor, shape (n_live, n_tokens)
    continuation : Packed
    n_pairs : int

    Returns
    -------
    Tensor of bool, shape (n_pairs,)
    """
    wrong = (logits.argmax(dim=-1) != continuation.tokens) & continuation.deterministic
    missed = torch.zeros(n_pairs, dtype=torch.int64, device=logits.device)
    missed.index_add_(0, continuation.rows, wrong.long())
    return missed == 0


__all__ = ["PAD", "Context", "Packed", "System", "Trained", "all_right"]
