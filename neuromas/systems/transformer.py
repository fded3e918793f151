"""Transformers with rotary positions (paper 2.2, A.1): the trainable module, and the frozen system made from it.

The latent is the embedding or the residual stream after one of the layers. Attention looks back, so a trial can be resumed
inside only with the keys and values of what came before: these are the system's context, computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromas.errors import InvalidInput
from neuromas.schema.system import SystemConfig
from neuromas.systems.system import Context, Packed, Past, Trained, join_past, with_steps

_BASE = 10_000.0
_CHUNK = 500  # trials run at once for their context


@dataclass(frozen=True)
class Places:
    """Where the live steps of ragged sequences lie, so that no work is spent on padding but in attention itself.

    Attributes
    ----------
    index : Tensor of int64, shape (n_live,)
        Row × n_steps + step.
    n, n_steps : int
    """

    index: Tensor
    n: int
    n_steps: int

    def spread(self, x: Tensor) -> Tensor:
        """Rows `x` (n_live, width) in their places, zeros elsewhere; (n, n_steps, width)."""
        whole = x.new_zeros(self.n * self.n_steps, x.shape[1]).index_copy(0, self.index, x)
        return whole.unflatten(0, (self.n, self.n_steps))

    def take(self, x: Tensor) -> Tensor:
        """What `spread` put there; (n_live, width)."""
        return x.flatten(0, 1).index_select(0, self.index)


class Block(nn.Module):
    """One layer: attention, then a feed-forward network of four times the width, each on the normed residual stream.

    Parameters
    ----------
    width, n_heads : int
        ``width / n_heads`` must be even: rotary positions turn pairs of dimensions.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def keys_values(self, x: Tensor, turns: Tensor, places: Places | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x`, each (n, n_heads, n_steps, width / n_heads)."""
        flat = self.project(self.attention_norm(x))
        whole = flat if places is None else places.spread(flat)
        queries, keys, values = whole.unflatten(-1, (3, self.n_heads, -1)).movedim(-3, 0).transpose(2, 3)
        return _turn(queries, turns), _turn(keys, turns), values

    def attend(
        self,
        x: Tensor,
        turns: Tensor,
        past: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        places: Places | None = None,
    ) -> Tensor:
        """The residual stream `x` (n, n_steps, width) after attention to `past` and to itself.

        Without `mask`, of shape (n, n_steps, n_past + n_steps), each step attends to itself and what came before. With `places`,
        `x` (n_live, width) holds only the steps that are there.
        """
        queries, keys, values = self.keys_values(x, turns, places)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=None if mask is None else mask[:, None], is_causal=mask is None
        )
        attended = attended.transpose(1, 2).flatten(2)
        return x + self.merge(attended if places is None else places.take(attended))

    def feed(self, x: Tensor) -> Tensor:
        """The residual stream `x` (..., width) after the feed-forward network."""
        return x + self.feed_forward(self.feed_norm(x))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """Both, over whole sequences `x` (n, n_steps, width)."""
        return self.feed(self.attend(x, turns))


class TransformerNetwork(nn.Module):
    """Embedding → blocks → norm → MLP readout (GELU, dropout), predicting the next token.

    Parameters
    ----------
    config : SystemConfig
        Vocabulary, width, layers, heads, width of the readout's hidden layer, dropout.

    Raises
    ------
    InvalidInput
        The width is no even multiple of the number of heads.
    """

    def __init__(self, config: SystemConfig) -> None:
        super().__init__()
        n_tokens, width = len(config.vocabulary), config.n_units
        if width % (2 * config.n_heads):
            raise InvalidInput(
                f"system {config.name!r}: rotary positions need n_units that is a multiple of twice the number of heads"
                f" ({config.n_heads}), got {width}",
                kind="invalid_width",
            )
        self.head_width = width // config.n_heads
        self.embedding = nn.Embedding(n_tokens, width)
        self.blocks = nn.ModuleList(Block(width, config.n_heads) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Sequential(
            nn.Linear(width, config.n_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, n_tokens),
        )

    def turns(self, positions: Tensor) -> Tensor:
        """Rotations (n, 1, n_steps, head width / 2), complex, of `positions` (n, n_steps)."""
        rates = _BASE ** (
            -torch.arange(0, self.head_width, 2, device=positions.device, dtype=self.norm.weight.dtype)
            / self.head_width
        )
        angles = positions[:, None, :, None] * rates
        return torch.polar(torch.ones_like(angles), angles)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (n_trials, n_steps, n_tokens) for the token after each of `tokens` (n_trials, n_steps)."""
        x = self.embedding(tokens.clamp(min=0))  # what stands after a trial's end is seen by nothing before it
        turns = self.turns(torch.arange(tokens.shape[1], device=tokens.device)[None])
        for block in self.blocks:
            x = block(x, turns)
        return self.readout(self.norm(x))


@dataclass(frozen=True)
class Prefix:
    """Keys and values up to the step at which each pair is resumed, that step included.

    Attributes
    ----------
    past : tuple of (Tensor, Tensor)
        By block, each (n_pairs, n_heads, n_steps, head width); what lies beyond a pair's step is masked.
    steps : Tensor of int64, shape (n_pairs,)
    """

    past: Past
    steps: Tensor


class KeysValues(Context):
    """Keys and values of whole trials, by block.

    Parameters
    ----------
    past : sequence of (Tensor, Tensor)
        By block, each (n_trials, n_heads, n_steps, head width).
    """

    def __init__(self, past: Past) -> None:
        self._past = past

    def at(self, trials: np.ndarray, steps: np.ndarray) -> Prefix:
        device = self._past[0][0].device
        rows, last = torch.from_numpy(trials).to(device), int(steps.max(initial=0)) + 1
        past = tuple((keys[:, :, :last][rows], values[:, :, :last][rows]) for keys, values in self._past)
        return Prefix(past, torch.from_numpy(steps).to(device))


class Transformer(Trained):
    """A frozen transformer; its latent is the embedding or the residual stream after a layer, by default the first.

    Parameters
    ----------
    config : SystemConfig
    weights : dict of str to Tensor
        State of a `TransformerNetwork`.
    device : str or torch.device
    layer : str, optional
        ``embedding``, ``layer-1`` (also called ``hidden``), ``layer-2``, …
    """

    network = TransformerNetwork
    _network: TransformerNetwork

    @property
    def layers(self) -> tuple[str, ...]:
        return ("embedding", *(f"layer-{number + 1}" for number in range(self.config.n_layers)))

    @property
    def hidden(self) -> str:
        return "layer-1"

    @property
    def stepwise(self) -> bool:
        return True

    def _prepare(self) -> None:
        blocks = list(self._network.blocks)
        tap = self.layers.index(self.layer)
        self._below: list[Block] = blocks[:tap]  # type: ignore[assignment]
        self._above: list[Block] = blocks[tap:]  # type: ignore[assignment]

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        return self._run_below(tokens.to(self.device))

    @torch.no_grad()
    def context(self, tokens: Tensor) -> KeysValues:
        chunks: list[Past] = []
        for chunk in tokens.to(self.device).split(_CHUNK):
            x = self._network.embedding(chunk.clamp(min=0))
            turns = self._network.turns(torch.arange(chunk.shape[1], device=self.device)[None])
            past = []
            for block in (*self._below, *self._above):
                past.append(block.keys_values(x, turns)[1:])
                x = block(x, turns)
            chunks.append(tuple(past))
        return KeysValues(join_past(chunks))

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        if not isinstance(context, Prefix):
            raise InvalidInput(
                f"system {self.name!r} attends to earlier tokens: resume it with the result of context(tokens).at(...)",
                kind="no_context",
            )
        n, n_steps = len(latents), len(continuation.sizes)  # steps: the intervened one, then all tokens but the last
        rows, steps, n_first = continuation.rows, continuation.steps, continuation.sizes[0]
        before = context.steps[:, None, None]
        past_steps = torch.arange(context.past[0][0].shape[2], device=self.device)
        turns = self._network.turns(context.steps[:, None] + torch.arange(n_steps, device=self.device))
        causal = torch.ones(n_steps, n_steps, dtype=torch.bool, device=self.device).tril().expand(n, -1, -1)
        with torch.no_grad():  # below the tap nothing depends on the intervened latent
            fed = continuation.padded()[rows[n_first:], steps[n_first:] - 1]
            x = self._network.embedding(fed)
            places = Places(rows[n_first:] * (n_steps - 1) + steps[n_first:] - 1, n, n_steps - 1)
            # the intervened step's own keys and values below the tap are part of the past
            mask = torch.cat([(past_steps <= before).expand(-1, n_steps - 1, -1), causal[:, 1:, 1:]], dim=2)
            for block, past in zip(self._below, context.past, strict=False):
                x = block.feed(block.attend(x, turns[:, :, 1:], past, mask, places))
        x = torch.cat([latents[continuation.order], x])  # in the packed order: step after step
        places = Places(rows * n_steps + steps, n, n_steps)
        mask = torch.cat([(past_steps < before).expand(-1, n_steps, -1), causal], dim=2)
        for block, past in zip(self._above, context.past[len(self._below) :], strict=True):
            x = block.feed(block.attend(x, turns, past, mask, places))
        return self._network.readout(self._network.norm(x))

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        # nothing follows from the last token
        ends = lengths + torch.bincount(continuation.rows, minlength=len(tokens)) - 1
        n, n_steps = len(tokens), int(ends.max()) + 1
        at = torch.arange(n_steps, device=self.device)
        column = lengths[continuation.rows] + continuation.steps
        whole = with_steps(tokens, n_steps)
        whole[continuation.rows, column] = continuation.tokens
        live = (at < ends[:, None]).flatten()
        places = Places(live.nonzero()[:, 0], n, n_steps)
        turns = self._network.turns(at[None])
        with torch.no_grad():
            x = self._network.embedding(whole.flatten()[places.index].clamp(min=0))
            for block in self._below:
                x = block.feed(block.attend(x, turns, places=places))
        put = places.take(with_steps(latents, n_steps))
        x = torch.where((at < lengths[:, None]).flatten()[places.index, None], put, x)
        place = live.cumsum(0) - 1  # in x, of each step
        asked = place[continuation.rows * n_steps + column - 1]  # each token is predicted one step before it
        for number, block in enumerate(self._above):
            x = block.attend(x, turns, places=places)
            x = block.feed(x[asked] if number + 1 == len(self._above) else x)
        if not self._above:
            x = x[asked]
        return self._network.readout(self._network.norm(x))

    def _run_below(self, tokens: Tensor) -> Tensor:
        """The latents of `tokens` (n, n_steps), each run from its beginning."""
        x = self._network.embedding(tokens.clamp(min=0))
        turns = self._network.turns(torch.arange(tokens.shape[1], device=self.device)[None])
        for block in self._below:
            x = block(x, turns)
        return x


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate pairs of dimensions of `x` (n, n_heads, n_steps, head width) by `turns`."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)
