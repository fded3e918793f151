"""Recurrent systems (paper A.1): one recurrent cell, then a two-layer readout.

`GRUNetwork` and `LSTMNetwork` are the trainable modules. `GRU` and `LSTM` are the frozen systems made from them: their
continuation is written out by hand, forward and backward with respect to the latent only, because that is all a fit needs and
autograd would keep, and compute, more.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from neuromas.errors import InvalidInput
from neuromas.schema import SystemConfig
from neuromas.systems.system import EMBEDDING, HIDDEN, Context, Packed, Trained


class RecurrentNetwork(nn.Module):
    """Embedding → recurrent cell → MLP readout (GELU, dropout), predicting the next token.

    Parameters
    ----------
    config : SystemConfig
        Vocabulary, width of the readout's hidden layer, dropout.
    cell : type of torch.nn.RNNBase
    width : int
        Of embedding and hidden state.
    """

    def __init__(self, config: SystemConfig, cell: type[nn.GRU] | type[nn.LSTM], width: int) -> None:
        super().__init__()
        n_tokens = len(config.vocabulary)
        self.embedding = nn.Embedding(n_tokens, width)
        self.cell = cell(width, width, batch_first=True)
        self.readout = nn.Sequential(
            nn.Linear(width, config.n_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, n_tokens),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (n_trials, n_steps, n_tokens) for the token after each of `tokens` (n_trials, n_steps)."""
        hidden, _ = self.cell(self.embedding(tokens.clamp(min=0)))
        return self.readout(hidden)


class GRUNetwork(RecurrentNetwork):
    """A GRU of ``config.n_units``."""

    def __init__(self, config: SystemConfig) -> None:
        super().__init__(config, nn.GRU, config.n_units)


class LSTMNetwork(RecurrentNetwork):
    """An LSTM whose h and c have half of ``config.n_units`` each.

    Raises
    ------
    InvalidInput
        ``n_units`` is odd.
    """

    def __init__(self, config: SystemConfig) -> None:
        if config.n_units % 2:
            raise InvalidInput(
                f"system {config.name!r}: the latent of an LSTM is [h, c]; expected an even n_units, got {config.n_units}",
                kind="odd_width",
            )
        super().__init__(config, nn.LSTM, config.n_units // 2)


class Before(Context):
    """The state before each step of whole trials, which an embedding is consumed from.

    Parameters
    ----------
    states : Tensor, shape (n_trials, n_steps, n_units of the hidden layer)
    """

    def __init__(self, states: Tensor) -> None:
        self._states = states

    def at(self, trials: np.ndarray, steps: np.ndarray) -> Tensor:
        device = self._states.device
        return self._states[torch.from_numpy(trials).to(device), torch.from_numpy(steps).to(device)]


class Recurrent(Trained):
    """A frozen recurrent network; its latent is all that the cell keeps from one step to the next, or the embedding."""

    _network: RecurrentNetwork
    _table: Tensor
    """What each token adds to the gates, biases included; (n_tokens, n_gates * width). Tokens are few."""
    _recurrent: Tensor
    """(n_gates * width, width)"""

    @property
    def n_units(self) -> int:
        return self._network.embedding.embedding_dim if self.layer == EMBEDDING else self.config.n_units

    @property
    def stepwise(self) -> bool:
        return self.layer == EMBEDDING

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self.device).clamp(min=0)
        return self._network.embedding(tokens) if self.layer == EMBEDDING else self._states(tokens)

    def context(self, tokens: Tensor) -> Before | None:
        if self.layer == HIDDEN:
            return None
        with torch.no_grad():
            states = self._states(tokens.to(self.device).clamp(min=0))
        return Before(functional.pad(states[:, :-1], (0, 0, 1, 0)))

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        if not self.stepwise:
            return super().resume_steps(latents, lengths, tokens, continuation)
        order = torch.argsort(lengths, descending=True, stable=True)
        latents, sizes = (
            latents[order],
            (lengths[:, None] > torch.arange(int(lengths.max()), device=self.device)).sum(dim=0),
        )
        state = latents.new_zeros(len(latents), self.config.n_units)
        for step, alive in enumerate(sizes.tolist()):
            state = torch.cat([self._consume(latents[:alive, step], state[:alive]), state[alive:]])
        return self._go_on(state[torch.argsort(order)], continuation)

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        if self.layer == EMBEDDING:
            if context is None:
                raise InvalidInput(
                    f"system {self.name!r} needs its state before the embedding: resume it with what"
                    " context(tokens).at(...) gives",
                    kind="no_context",
                )
            latents = self._consume(latents, context)
        return self._go_on(latents, continuation)

    def _go_on(self, latents: Tensor, continuation: Packed) -> Tensor:
        """`resume` from states (n_pairs, n_units of the hidden layer)."""
        hidden = self._unroll(latents[continuation.order], continuation.tokens, continuation.sizes)
        first_weight, first_bias, last_weight, last_bias = self._network.readout.parameters()
        hidden = functional.gelu(functional.linear(hidden, first_weight, first_bias))
        return functional.linear(hidden, last_weight, last_bias)

    @abstractmethod
    def _states(self, tokens: Tensor) -> Tensor:
        """States (n_trials, n_steps, n_units of the hidden layer) after each of `tokens` (n_trials, n_steps)."""

    @abstractmethod
    def _consume(self, embedded: Tensor, before: Tensor) -> Tensor:
        """States after one step on `embedded` (n, width) from the states `before`; differentiable in both."""

    @abstractmethod
    def _unroll(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Hidden states (n_live, width) on packed tokens, from the latents `first` on, which are sorted as they are."""


class GRU(Recurrent):
    """A frozen GRU; its latent is the hidden state.

    Parameters
    ----------
    config : SystemConfig
    weights : dict of str to Tensor
        State of a `GRUNetwork`.
    device : str or torch.device
    layer : str, optional
        ``hidden`` (default) or ``embedding``.
    """

    network = GRUNetwork

    @classmethod
    @torch.no_grad()
    def remember(cls, network: nn.Module, n_steps: int, generator: torch.Generator) -> None:
        cell = network.get_submodule("cell")
        width = cell.get_parameter("weight_hh_l0").shape[1]
        cell.get_parameter("bias_hh_l0")[width : 2 * width] += _spans(
            width, n_steps, generator
        )  # the update gate keeps

    def _prepare(self) -> None:
        cell, width = dict(self._network.cell.named_parameters()), self.config.n_units
        # gates in order reset, update, new
        table = self._network.embedding.weight @ cell["weight_ih_l0"].T + cell["bias_ih_l0"]
        table[:, : 2 * width] += cell["bias_hh_l0"][: 2 * width]  # the new gate's bias stays inside the reset product
        self._table = table.contiguous()
        self._recurrent = cell["weight_hh_l0"].contiguous()
        self._new_bias = cell["bias_hh_l0"][2 * width :].contiguous()

    def _states(self, tokens: Tensor) -> Tensor:
        return self._network.cell(self._network.embedding(tokens))[0]

    def _consume(self, embedded: Tensor, before: Tensor) -> Tensor:
        return torch.gru_cell(embedded, before, *self._network.cell.parameters())

    def _unroll(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return _UnrollGRU.apply(first, self._table, self._recurrent, self._new_bias, tokens, sizes)


class LSTM(Recurrent):
    """A frozen LSTM; its latent is [h, c], hidden state and cell state side by side.

    Parameters
    ----------
    config : SystemConfig
        ``n_units`` is the width of h and c together.
    weights : dict of str to Tensor
        State of an `LSTMNetwork`.
    device : str or torch.device
    layer : str, optional
        ``hidden`` (default), that is [h, c], or ``embedding``.
    """

    network = LSTMNetwork

    @classmethod
    @torch.no_grad()
    def remember(cls, network: nn.Module, n_steps: int, generator: torch.Generator) -> None:
        cell = network.get_submodule("cell")
        width = cell.get_parameter("weight_hh_l0").shape[1]
        spans = _spans(width, n_steps, generator)
        cell.get_parameter("bias_hh_l0")[width : 2 * width] += spans  # what is not forgotten ...
        cell.get_parameter("bias_hh_l0")[:width] -= spans  # ... leaves no room for what comes in

    @classmethod
    def readout_width(cls, n_units: int) -> int:
        return 4 * (n_units // 2)  # the hidden state is h alone

    def _prepare(self) -> None:
        cell, width = dict(self._network.cell.named_parameters()), self.config.n_units // 2
        table = self._network.embedding.weight @ cell["weight_ih_l0"].T + cell["bias_ih_l0"] + cell["bias_hh_l0"]
        # torch has the gates in order in, forget, new, out; with new last, the sigmoids lie together
        order = torch.arange(4 * width, device=self.device).reshape(4, width)[[0, 1, 3, 2]].flatten()
        self._table = table[:, order].contiguous()
        self._recurrent = cell["weight_hh_l0"][order].contiguous()

    def _consume(self, embedded: Tensor, before: Tensor) -> Tensor:
        halves = before.chunk(2, dim=1)
        return torch.cat(torch.lstm_cell(embedded, halves, *self._network.cell.parameters()), dim=1)

    def _states(self, tokens: Tensor) -> Tensor:
        width, weight = self.config.n_units // 2, self._recurrent.T
        found = self._table.new_zeros(*tokens.shape, 2 * width)
        hidden = cell = self._table.new_zeros(len(tokens), width)
        for step in range(tokens.shape[1]):  # torch.nn.LSTM gives c for the last step only
            gates, cell, squashed = _lstm_step(hidden, cell, self._table[tokens[:, step]], weight)
            hidden = gates[:, 2 * width : 3 * width] * squashed
            found[:, step, :width], found[:, step, width:] = hidden, cell
        return found

    def _unroll(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return _UnrollLSTM.apply(first, self._table, self._recurrent, tokens, sizes)


def _spans(width: int, n_steps: int, generator: torch.Generator) -> Tensor:
    """Gate biases (width,) that forget within 1 to `n_steps` steps: the log of spans drawn uniformly."""
    return torch.log(1 + (n_steps - 1) * torch.rand(width, generator=generator))


def _tanh_(x: Tensor) -> Tensor:
    """tanh in place, by way of the sigmoid: 4 x faster here."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


class _UnrollGRU(torch.autograd.Function):
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
            new = _tanh_(torch.addcmul(new_table[inputs], reset, pre_new))
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


def _lstm_step(hidden: Tensor, cell: Tensor, inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates (n, 4 * width) in order in, forget, out, new; the cell state after the step, and its tanh, each (n, width)."""
    width = cell.shape[1]
    gates = torch.addmm(inputs, hidden, weight)
    gates[:, : 3 * width].sigmoid_()
    into, forget, _, new = gates.split(width, dim=1)
    _tanh_(new)
    after = torch.addcmul(into * new, forget, cell)
    return gates, after, _tanh_(after.clone())


class _UnrollLSTM(torch.autograd.Function):
    """Hidden states of a frozen LSTM on packed tokens, with the gradient for the first [h, c] alone."""

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, table: Tensor, recurrent: Tensor, tokens: Tensor, sizes: tuple[int, ...]
    ) -> Tensor:
        width, weight = recurrent.shape[1], recurrent.T
        states = first.new_empty(sum(sizes), width)
        states[: sizes[0]] = first[:, :width]
        cell = first[:, width:]
        keep = ctx.needs_input_grad[0]
        kept = []
        start = 0
        for now, alive in pairwise(sizes):
            before = cell[:alive]
            inputs = table[tokens[start : start + alive]]
            gates, cell, squashed = _lstm_step(states[start : start + alive], before, inputs, weight)
            start += now
            torch.mul(gates[:, 2 * width : 3 * width], squashed, out=states[start : start + alive])
            if keep:
                kept.append((gates, before, squashed))
        ctx.kept, ctx.sizes = kept, sizes
        ctx.save_for_backward(recurrent)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (recurrent,) = ctx.saved_tensors
        (gradient,) = gradients
        width, sizes = recurrent.shape[1], ctx.sizes
        start = sum(sizes) - sizes[-1]
        by_hidden = gradient[start:].clone()
        by_cell = torch.zeros_like(by_hidden)
        for step in range(len(sizes) - 1, 0, -1):
            gates, before, squashed = ctx.kept[step - 1]
            alive, start = sizes[step], start - sizes[step - 1]
            into, forget, out, new = gates.split(width, dim=1)
            by_gate = torch.empty_like(gates)
            # h = out * tanh(c);  c = into * new + forget * before
            by_cell = by_cell + torch.ops.aten.tanh_backward(by_hidden * out, squashed)
            torch.mul(by_cell, new, out=by_gate[:, :width])
            torch.mul(by_cell, before, out=by_gate[:, width : 2 * width])
            torch.mul(by_hidden, squashed, out=by_gate[:, 2 * width : 3 * width])
            by_gate[:, : 3 * width] = torch.ops.aten.sigmoid_backward(by_gate[:, : 3 * width], gates[:, : 3 * width])
            by_gate[:, 3 * width :] = torch.ops.aten.tanh_backward(by_cell * into, new)
            by_hidden = gradient[start : start + sizes[step - 1]].clone()
            by_hidden[:alive] += by_gate @ recurrent
            earlier = torch.zeros_like(by_hidden)
            torch.mul(by_cell, forget, out=earlier[:alive])
            by_cell = earlier
        return torch.cat([by_hidden, by_cell], dim=1), None, None, None, None
