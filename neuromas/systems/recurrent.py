"""Recurrent systems (paper A.1): one recurrent cell, then a two-layer readout.

`GRUNetwork` is the trainable module. `GRU` is the frozen system made from it: its continuation is written out by hand, forward
and backward with respect to the latent only, because that is all a fit needs and autograd would keep, and compute, more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from neuromas.schema import SystemConfig
from neuromas.systems.system import Packed, System


class GRUNetwork(nn.Module):
    """Embedding → GRU → MLP readout (GELU, dropout), predicting the next token.

    Parameters
    ----------
    config : SystemConfig
        Widths, vocabulary, dropout.
    """

    def __init__(self, config: SystemConfig) -> None:
        super().__init__()
        n_tokens = len(config.vocabulary)
        self.embedding = nn.Embedding(n_tokens, config.n_units)
        self.cell = nn.GRU(config.n_units, config.n_units, batch_first=True)
        self.readout = nn.Sequential(
            nn.Linear(config.n_units, config.n_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, n_tokens),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (n_trials, n_steps, n_tokens) for the token after each of `tokens` (n_trials, n_steps)."""
        latents, _ = self.cell(self.embedding(tokens.clamp(min=0)))
        return self.readout(latents)


class GRU(System):
    """A frozen GRU; its latent is the hidden state.

    Parameters
    ----------
    config : SystemConfig
    weights : dict of str to Tensor
        State of a `GRUNetwork`.
    device : str or torch.device
    """

    def __init__(self, config: SystemConfig, weights: dict[str, Tensor], device: str | torch.device = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._network = GRUNetwork(config).to(self.device)
        self._network.load_state_dict(weights)
        self._network.eval().requires_grad_(False)
        self._prepare()

    @property
    def layer(self) -> str:
        return "hidden"

    @property
    def weights(self) -> dict[str, Tensor]:
        """State of the network, as saved."""
        return self._network.state_dict()

    def to(self, device: str | torch.device) -> GRU:
        self.device = torch.device(device)
        self._network.to(self.device)
        self._prepare()
        return self

    def _prepare(self) -> None:
        cell, width = dict(self._network.cell.named_parameters()), self.config.n_units
        # tokens are few, so what they add to the gates is a table: (n_tokens, 3 * n_units), gates in order reset, update, new
        table = self._network.embedding.weight @ cell["weight_ih_l0"].T + cell["bias_ih_l0"]
        table[:, : 2 * width] += cell["bias_hh_l0"][: 2 * width]  # the new gate's bias stays inside the reset product
        self._table = table.contiguous()
        self._recurrent = cell["weight_hh_l0"].contiguous()
        self._new_bias = cell["bias_hh_l0"][2 * width :].contiguous()

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        embedded = self._network.embedding(tokens.to(self.device).clamp(min=0))
        return self._network.cell(embedded)[0]

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        states = _Unroll.apply(
            latents[continuation.order],
            self._table,
            self._recurrent,
            self._new_bias,
            continuation.tokens,
            continuation.sizes,
        )
        first_weight, first_bias, last_weight, last_bias = self._network.readout.parameters()
        hidden = functional.gelu(functional.linear(states, first_weight, first_bias))
        return functional.linear(hidden, last_weight, last_bias)


class _Unroll(torch.autograd.Function):
    """States of a frozen GRU on packed tokens, with the gradient for the first state alone."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        table: Tensor,
        recurrent: Tensor,
        new_bias: Tensor,
        tokens: Tensor,
        sizes: tuple[int, ...],
    ) -> Tensor:
        width = first.shape[1]
        states = first.new_empty(sum(sizes), width)
        states[: sizes[0]] = first
        gate_weight, new_weight = recurrent[: 2 * width].T, recurrent[2 * width :].T
        gate_table, new_table = table[:, : 2 * width].contiguous(), table[:, 2 * width :].contiguous()
        keep = ctx.needs_input_grad[0]
        kept = []
        start = 0
        for now, alive in pairwise(sizes):
            before = states[start : start + alive]
            inputs = tokens[start : start + alive]
            gates = torch.addmm(gate_table[inputs], before, gate_weight).sigmoid_()
            reset, update = gates[:, :width], gates[:, width:]
            pre_new = torch.addmm(new_bias, before, new_weight)
            new = (
                torch.addcmul(new_table[inputs], reset, pre_new).mul_(2).sigmoid_().mul_(2).sub_(1)
            )  # tanh, 4 x faster here
            start += now
            torch.lerp(new, before, update, out=states[start : start + alive])
            if keep:
                kept.append((gates, pre_new, new))
        ctx.kept, ctx.sizes = kept, sizes
        ctx.save_for_backward(states, recurrent)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, recurrent = ctx.saved_tensors
        (gradient,) = gradients
        width, sizes = states.shape[1], ctx.sizes
        start = sum(sizes) - sizes[-1]
        carried = gradient[start:].clone() if len(sizes) else gradient
        for step in range(len(sizes) - 1, 0, -1):
            gates, pre_new, new = ctx.kept[step - 1]
            alive, start = sizes[step], start - sizes[step - 1]
            before = states[start : start + alive]
            reset, update = gates[:, :width], gates[:, width:]
            by_gate = gradient.new_empty(alive, 3 * width)
            # h = new + update * (before - new);  new = tanh(... + reset * pre_new)
            by_update = carried * (before - new)
            into_new = torch.ops.aten.tanh_backward(torch.addcmul(carried, carried, update, value=-1), new)
            torch.mul(into_new, pre_new, out=by_gate[:, :width])
            by_gate[:, width : 2 * width] = by_update
            by_gate[:, : 2 * width] = torch.ops.aten.sigmoid_backward(by_gate[:, : 2 * width], gates)
            torch.mul(into_new, reset, out=by_gate[:, 2 * width :])
            earlier = torch.addmm(carried.mul_(update), by_gate, recurrent)
            carried = gradient[start : start + sizes[step - 1]].clone()
            carried[:alive] += earlier
        return carried, None, None, None, None, None
