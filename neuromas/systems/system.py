"""What a system can do: be recorded, and be resumed from an intervened latent.

Everything up to the intervention is computed once and kept. A fit iteration runs only the steps after it, for the sequences that
have not ended. These sequences are packed: sorted by length, step after step, so that no work is spent on padding.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromas import seeds
from neuromas.causal.model import PAD, Sequences
from neuromas.errors import InvalidInput, NotFound
from neuromas.schema.system import SystemConfig


@dataclass(frozen=True)
class Capacity:
    """Room for packed continuations whose lengths are not known yet: how many sequences may be alive at each step.

    Attributes
    ----------
    sizes : tuple of int
        Sequences that there is room for at each step; falling.
    places, steps : Tensor of int64, shape (n_live,)
        Place of each live token's sequence among the sorted ones, and its step; ``n_live = sum(sizes)``.
    """

    sizes: tuple[int, ...]
    places: Tensor
    steps: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], device: Any = "cpu") -> Capacity:
        """Room for `sizes` sequences at each step."""
        places = np.concatenate([np.arange(size) for size in sizes])
        steps = np.repeat(np.arange(len(sizes)), sizes)
        return cls(tuple(map(int, sizes)), torch.from_numpy(places).to(device), torch.from_numpy(steps).to(device))


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
    counted : Tensor of bool, shape (n_live,), or None
        Where there was more room than sequences filled (`at_capacity`): which tokens are there; the others follow their
        sequence's end and mean nothing.
    capacity : Capacity or None
    """

    order: Tensor
    sizes: tuple[int, ...]
    tokens: Tensor
    deterministic: Tensor
    rows: Tensor
    counted: Tensor | None = None
    capacity: Capacity | None = None

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
    def at_capacity(cls, tokens: Tensor, lengths: Tensor, deterministic: Tensor, capacity: Capacity) -> Packed:
        """Pack padded tensors (n_pairs, n_steps) into `capacity`, by the same operations whatever `lengths` (n_pairs,) are.

        The caller makes the capacity large enough; sequences that do not fit are left out.
        """
        order = torch.argsort(lengths, descending=True, stable=True)
        rows = order.index_select(0, capacity.places)
        at = rows * tokens.shape[1] + capacity.steps
        by_step = tokens.flatten().index_select(0, at).clamp_min(0)  # PAD is negative
        counted = capacity.steps < lengths.index_select(0, rows)
        fixed = deterministic.flatten().index_select(0, at) & counted
        return cls(order, capacity.sizes, by_step, fixed, rows, counted, capacity)

    @property
    def steps(self) -> Tensor:
        """Step of its continuation that each live token stands at; int64, shape (n_live,)."""
        if self.capacity is not None:
            return self.capacity.steps
        sizes = torch.tensor(self.sizes, device=self.tokens.device)
        return torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)

    def padded(self) -> Tensor:
        """The tokens by batch row, `PAD` after the end; int64, shape (n_pairs, n_steps)."""
        table = self.tokens.new_full((len(self.order), len(self.sizes)), PAD)
        table[self.rows, self.steps] = (
            self.tokens if self.counted is None else torch.where(self.counted, self.tokens, PAD)
        )
        return table

    @classmethod
    def from_continuation(cls, continuation: Sequences, pairs: np.ndarray | None = None, device: Any = "cpu") -> Packed:
        """Pack the rows `pairs` of `continuation` (all if not given)."""
        chosen = slice(None) if pairs is None else pairs
        return cls.from_sequences(
            continuation.tokens[chosen], continuation.lengths[chosen], continuation.deterministic[chosen], device
        )


EMBEDDING, HIDDEN = "embedding", "hidden"
"""Layers that every kind of `Trained` system has; it may have other names for them too."""


Past = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values by block, each of shape (n_trials, n_heads, n_steps, head width)."""


class Context(ABC):
    """What a system needs besides the latent to be resumed at a step, such as keys and values."""

    @abstractmethod
    def at(self, trials: np.ndarray, steps: np.ndarray) -> Any:
        """The part for the positions (trial, step), each of shape (n_pairs,); its form is the system's own."""


class System(ABC):
    """A network that can be recorded and resumed. It is frozen: no method changes its weights."""

    config: SystemConfig
    device: torch.device = torch.device("cpu")

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def n_units(self) -> int:
        """Width of the latent."""
        return self.config.n_units

    layer: str = ""
    """Which layer's activity is the latent."""
    at_once: int = 2000
    """Pairs that are resumed together if no gradient is kept; fewer for a large vocabulary."""
    replayable: bool = False
    """Whether a CUDA graph of `token_losses` can be replayed: for continuations in a `Capacity`, the operations do not depend on
    what the continuations hold, and the host is not asked for anything."""

    horizon: int | None = None
    """Most steps that the system can be run on for; None for any number."""

    def foreseen(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths of continuations (n_pairs,), cut to the horizon."""
        return lengths if self.horizon is None else np.minimum(lengths, self.horizon)

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer whose activity can be the latent."""
        return (self.layer,)

    @property
    def stepwise(self) -> bool:
        """Whether a latent does not depend on earlier latents of the same layer, so that many steps can be intervened at."""
        return False

    def at(self, layer: str) -> System:
        """The same system with another layer as its latent.

        Raises
        ------
        NotFound
            The system has no such layer; the nearest names are listed.
        """
        find_layer(layer, self.layers, self.name)
        return self

    @abstractmethod
    def latents(self, tokens: Tensor) -> Tensor:
        """Record: the latent after each token was consumed.

        Parameters
        ----------
        tokens : Tensor of int64, shape (n_trials, n_steps)
            `PAD` after the end of a trial; the result has no meaning there.

        Returns
        -------
        Tensor of float32, shape (n_trials, n_steps, n_units)
        """

    @abstractmethod
    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        """Continue from `latents`; the tokens of the continuation are the input.

        Differentiable with respect to `latents`, once. The token at the intervened step was consumed already, so the first
        prediction comes from the latent itself.

        Parameters
        ----------
        latents : Tensor, shape (n_pairs, n_units)
            In the batch's order, not the packed one.
        continuation : Packed
            At least one token of each pair.
        context : optional
            The result of ``context(...).at(...)`` for these pairs.

        Returns
        -------
        Tensor, shape (n_live, n_tokens)
            Logits for each of ``continuation.tokens``.
        """

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        """Continue after interventions at every step from the first: `latents` take the place of the latents of `tokens`.

        Differentiable with respect to `latents`.

        Parameters
        ----------
        latents : Tensor, shape (n_pairs, n_steps, n_units)
        lengths : Tensor of int64, shape (n_pairs,)
            How many steps of each pair are intervened at, at least one. Later `latents` and `tokens` are not used.
        tokens : Tensor of int64, shape (n_pairs, n_steps)
            The system's own tokens at those steps.
        continuation : Packed
            Follows the last intervened step.

        Returns
        -------
        Tensor, shape (n_live, n_tokens)
            Logits for each of ``continuation.tokens``.

        Raises
        ------
        InvalidInput
            Latents of this layer depend on earlier ones of the same layer.
        """
        raise InvalidInput(
            f"system {self.name!r}: a latent of layer {self.layer!r} follows from the one before it, so an interchange at the"
            " last step is enough; stepwise interchanges are for layers such as 'embedding'",
            kind="not_stepwise",
        )

    def token_losses(
        self,
        latents: Tensor,
        continuation: Packed,
        context: Any = None,
        *,
        lengths: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of each token of the continuation, from the logits of `resume`, or with `lengths` of `resume_steps`.

        A system that can compute it without keeping logits may override this method.

        Parameters
        ----------
        latents, continuation, context
            As in `resume`.
        lengths, tokens : Tensor, optional
            As in `resume_steps`.

        Returns
        -------
        Tensor, shape (n_live,)
            Differentiable with respect to `latents`, once.
        """
        if lengths is None:
            logits = self.resume(latents, continuation, context)
        elif tokens is None:
            raise InvalidInput("token_losses: got lengths without tokens; expected both or none", kind="no_tokens")
        else:
            logits = self.resume_steps(latents, lengths, tokens, continuation)
        return functional.cross_entropy(logits, continuation.tokens, reduction="none")

    def context(self, tokens: Tensor) -> Context | None:
        """What is needed besides the latent to resume inside the trials `tokens`; None if the latent is enough."""
        return None

    def to(self, device: str | torch.device) -> System:
        """Move the weights; returns the system itself. A system that cannot be moved does not override this.

        Raises
        ------
        InvalidInput
            The system cannot be moved there.
        """
        if torch.device(device) != self.device:
            raise InvalidInput(
                f"{type(self).__name__} is on {self.device} and cannot be moved to {device}", kind="invalid_device"
            )
        return self

    @torch.no_grad()
    def outputs(
        self, tokens: Tensor, lengths: Tensor, *, n_tokens: int | None = None, batch_size: int = 1000
    ) -> Tensor:
        """What the system itself answers after each token: its most probable next token.

        Parameters
        ----------
        tokens : Tensor of int64, shape (n_trials, n_steps)
            What it is shown; `PAD` after the end of a trial.
        lengths : Tensor of int64, shape (n_trials,)
        n_tokens : int, optional
            The answer is one of the first tokens of the vocabulary, which are those of the task; by default any token.
        batch_size : int
            Trials run at once.

        Returns
        -------
        Tensor of int64, shape (n_trials, n_steps)
            `PAD` after the end of a trial.
        """
        # the answer to the last token is read where one more would follow
        shown = np.pad(tokens.cpu().numpy()[:, 1:].clip(min=0), [(0, 0), (0, 1)])
        answers = tokens.new_full(tokens.shape, PAD, device=self.device)
        for start in range(0, len(tokens), batch_size):
            rows = slice(start, start + batch_size)
            begin = tokens[rows, :1].to(self.device)
            rest = Packed.from_sequences(
                shown[rows], lengths[rows].cpu().numpy(), np.ones_like(shown[rows], dtype=bool), self.device
            )
            context = self.context(begin)
            held = None if context is None else context.at(np.arange(len(begin)), np.zeros(len(begin), np.int64))
            logits = self.resume(self.latents(begin)[:, 0], rest, held)
            answers[rest.rows + start, rest.steps] = logits[:, :n_tokens].argmax(dim=1)
        return answers

    def untrained(self, seed: int) -> System | None:
        """A system of the same architecture with initial weights, for controls; None if it is not known how to make one."""
        return None

    def trial_accuracy(self, trials: Sequences, batch_size: int = 1000) -> float:
        """Share of `trials` in which every deterministic token is the most probable one."""
        return float(self.solved(trials, batch_size).mean())

    @torch.no_grad()
    def solved(self, trials: Sequences, batch_size: int = 1000) -> np.ndarray:
        """Which of `trials` have every deterministic token as the most probable one; bool, shape (n_trials,)."""
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
        return torch.cat(right).cpu().numpy()


DRAWING = threading.RLock()
"""Held by a thread while it draws from PyTorch's own generator, which all threads share, or makes modules, which do."""


class Trained(System):
    """A system from a network that `train` trains and `load_system` loads.

    A subclass sets ``network``, and computes in ``_prepare`` what it needs from the weights.

    Parameters
    ----------
    config : SystemConfig
    weights : dict of str to Tensor
        State of a ``network``.
    device : str or torch.device
    layer : str, optional
        One of ``layers``, or ``hidden`` (default), which every kind has.

    Raises
    ------
    NotFound
        There is no such layer; the nearest names are listed.
    """

    network: type[nn.Module]
    """The trainable module. Made from a `SystemConfig`, it gives the logits (n_trials, n_steps, n_tokens) of the token after
    each of its tokens (n_trials, n_steps)."""

    def __init__(
        self,
        config: SystemConfig,
        weights: dict[str, Tensor],
        device: str | torch.device = "cpu",
        layer: str | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.layer = self.hidden if layer in (None, HIDDEN) else find_layer(str(layer), self.layers, config.name)
        with DRAWING:
            self._network = self.network(config).to(self.device)
        self._network.load_state_dict(weights)
        self._network.eval().requires_grad_(False)
        self._prepare()

    @property
    def layers(self) -> tuple[str, ...]:
        return (EMBEDDING, HIDDEN)

    @property
    def hidden(self) -> str:
        """The layer that ``hidden`` stands for."""
        return HIDDEN

    def at(self, layer: str) -> Self:
        return type(self)(self.config, self.weights, self.device, layer)

    @classmethod
    def readout_width(cls, n_units: int) -> int:
        """Width of the readout's hidden layer where the latent has `n_units`: four times the hidden state's (paper A.1)."""
        return 4 * n_units

    @classmethod
    def remember(cls, network: nn.Module, n_steps: int, generator: torch.Generator) -> None:
        """Set the gates of a new `network` so that they remember for up to `n_steps`; InvalidInput if it has no gates."""
        raise InvalidInput(f"{cls.__name__} has no gates to set for a memory of {n_steps} steps", kind="invalid_option")

    @property
    def weights(self) -> dict[str, Tensor]:
        """State of the network, as saved."""
        return self._network.state_dict()

    def to(self, device: str | torch.device) -> Self:
        self.device = torch.device(device)
        self._network.to(self.device)
        self._prepare()
        return self

    def untrained(self, seed: int) -> Self:
        config = self.config.model_copy(update={"weights_sha256": None, "trial_accuracy": None, "iterations": 0})
        memory = re.search(r"memory: (\d+)", config.provenance.notes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.for_torch(seed))
            network = self.network(config)
            if memory is not None:
                # the gates of a network with a long memory are set before training
                self.remember(network, int(memory[1]), torch.Generator().manual_seed(seeds.for_torch(seed)))
            return type(self)(config, network.state_dict(), self.device, self.layer)

    @abstractmethod
    def _prepare(self) -> None:
        """Called after the weights were loaded or moved."""


def find_layer(layer: str, layers: Sequence[str], system: str) -> str:
    """`layer`, if it is one of `layers`; else NotFound, with the nearest names."""
    if layer in layers:
        return layer
    near = get_close_matches(str(layer), layers, n=5, cutoff=0.4) or list(layers[:10])
    more = f" ({len(layers)} in all)" if len(layers) > len(near) else ""
    raise NotFound(f"system {system!r} has no layer {layer!r}; nearest: {', '.join(near)}{more}", kind="unknown_layer")


def check_device(device: str | torch.device) -> None:
    """Raise InvalidInput if `device` cannot be used here; the message lists the GPUs.

    Examples
    --------
    >>> check_device("cpu")
    """
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:  # what torch raises for unknown and for absent devices
        n_gpus = torch.cuda.device_count()
        there = f"{', '.join(f'cuda:{number}' for number in range(n_gpus))}" if n_gpus else "no CUDA devices"
        raise InvalidInput(
            f"device {str(device)!r} cannot be used here (there are {there}): {str(error).partition(chr(10))[0]}",
            kind="invalid_device",
        ) from error


def with_steps(x: Tensor, n_steps: int) -> Tensor:
    """`x` (n_pairs, any number of steps, ...) cut, or padded with zeros, to `n_steps`; always a copy.

    Examples
    --------
    >>> with_steps(torch.tensor([[1, 2, 3]]), 2), with_steps(torch.tensor([[1, 2, 3]]), 4)
    (tensor([[1, 2]]), tensor([[1, 2, 3, 0]]))
    """
    return functional.pad(x, (0, 0) * (x.ndim - 2) + (0, n_steps - x.shape[1]))


def join_past(chunks: Sequence[Past]) -> Past:
    """Keys and values of one chunk of trials after another; all have the same steps."""
    return tuple(
        (torch.cat([keys for keys, _ in block]), torch.cat([values for _, values in block]))
        for block in zip(*chunks, strict=True)
    )


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


__all__ = ["PAD", "Context", "Packed", "Past", "System", "Trained", "all_right", "join_past", "with_steps"]
