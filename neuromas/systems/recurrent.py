"""Recurrent systems (paper A.1): one recurrent cell, then a two-layer readout.

`GRUNetwork` and `LSTMNetwork` are the trainable modules. `GRU` and `LSTM` are the frozen systems made from them: on a CPU their
continuation is written out by hand, forward and backward with respect to the latent only, because that is all a fit needs and
autograd would keep, and compute, more. On a GPU, where the number of calls counts, cuDNN takes all steps at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from neuromas.errors import InvalidInput
from neuromas.schema.system import SystemConfig
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
                kind="invalid_width",
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

    @property
    def n_units(self) -> int:
        return self._network.embedding.embedding_dim if self.layer == EMBEDDING else self.config.n_units

    @property
    def stepwise(self) -> bool:
        return self.layer == EMBEDDING

    @property
    def replayable(self) -> bool:  # type: ignore[override]
        return self.layer == HIDDEN

    def _prepare(self) -> None:
        # cuDNN has gradients only in training mode; the cell has no dropout
        self._network.cell.train(self.device.type == "cuda")

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

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        return self._network.readout(self._hidden(self._after(latents, context), continuation))

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        if not self.stepwise:
            return super().resume_steps(latents, lengths, tokens, continuation)
        return self._network.readout(self._hidden(self._after_all(latents, lengths), continuation))

    def token_losses(
        self,
        latents: Tensor,
        continuation: Packed,
        context: Any = None,
        *,
        lengths: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        if lengths is not None and not self.stepwise:
            return super().token_losses(latents, continuation, lengths=lengths, tokens=tokens)
        states = self._after(latents, context) if lengths is None else self._after_all(latents, lengths)
        hidden = self._hidden(states, continuation)
        return _TokenLosses.apply(hidden, *self._network.readout.parameters(), continuation.tokens)

    def _after(self, latents: Tensor, context: Any) -> Tensor:
        """States (n_pairs, n_units of the hidden layer) that `latents` lead to."""
        if self.layer == HIDDEN:
            return latents
        if context is None:
            raise InvalidInput(
                f"system {self.name!r} needs its state before the embedding: resume it with the result of"
                " context(tokens).at(...)",
                kind="no_context",
            )
        return self._consumed(latents, context, (len(latents),))

    def _after_all(self, latents: Tensor, lengths: Tensor) -> Tensor:
        """States (n_pairs, n_units of the hidden layer) after the embeddings `latents` (n_pairs, n_steps, width)."""
        if len(lengths) == 0 or int(lengths.min()) < 1:
            raise InvalidInput(
                f"system {self.name!r}: expected at least one intervened step in each pair", kind="no_samples"
            )
        packed = pack_padded_sequence(latents, lengths.cpu(), batch_first=True, enforce_sorted=False)
        nothing = latents.new_zeros(len(latents), self.config.n_units)
        return self._consumed(packed.data, nothing, tuple(packed.batch_sizes.tolist()))[packed.unsorted_indices]

    def _consumed(self, embedded: Tensor, before: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """What `_consume` gives, on a GPU by cuDNN."""
        if embedded.is_cuda:
            return _ByLibrary.apply(embedded, before, self._network.cell, sizes)[1]
        return self._consume(embedded, before, sizes)

    def _hidden(self, states: Tensor, continuation: Packed) -> Tensor:
        """Hidden states (n_live, width) that the continuation's tokens are read out from."""
        first = states.index_select(0, continuation.order)
        unroll = self._unroll_by_library if first.is_cuda else self._unroll
        return unroll(first, continuation.tokens, continuation.sizes)

    def _unroll_by_library(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """What `_unroll` gives, by cuDNN."""
        hidden = first[: sum(sizes[:1]), : self._network.embedding.embedding_dim]
        if len(sizes) < 2:
            return hidden
        starts = accumulate(sizes, initial=0)
        fed = torch.cat([tokens[start : start + alive] for start, alive in zip(starts, sizes[1:], strict=False)])
        embedded = self._network.embedding(fed)
        return torch.cat([hidden, _ByLibrary.apply(embedded, first[: sizes[1]], self._network.cell, sizes[1:])[0]])

    @abstractmethod
    def _states(self, tokens: Tensor) -> Tensor:
        """States (n_trials, n_steps, n_units of the hidden layer) after each of `tokens` (n_trials, n_steps)."""

    @abstractmethod
    def _consume(self, embedded: Tensor, before: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """States (n_pairs, n_units of the hidden layer) after the last step of each pair; differentiable in both.

        Parameters
        ----------
        embedded : Tensor, shape (n_live, width)
            One step after the other, as packed.
        before : Tensor, shape (n_pairs, n_units of the hidden layer)
            States before the first step.
        sizes : tuple of int
            Of each step: how many pairs take it.
        """

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
        # the update gate keeps
        cell.get_parameter("bias_hh_l0")[width : 2 * width] += _spans(width, n_steps, generator)

    def _prepare(self) -> None:
        super()._prepare()
        cell, width = dict(self._network.cell.named_parameters()), self.config.n_units
        # gates in order reset, update, new
        into, weight = cell["weight_ih_l0"], cell["weight_hh_l0"]
        new_bias = cell["bias_hh_l0"][2 * width :]  # stays inside the reset product
        bias = cell["bias_ih_l0"] + functional.pad(cell["bias_hh_l0"][: 2 * width], (0, width))
        # all that enters the new gate twice as large, since tanh(y) = 2 sigmoid(2 y) - 1; doubling and halving are exact
        self._into = (into[: 2 * width].T, 2 * into[2 * width :].T), (bias[: 2 * width], 2 * bias[2 * width :])
        self._frozen = _FrozenGRU(
            (weight[: 2 * width].T, 2 * weight[2 * width :].T),
            2 * new_bias,
            torch.cat([weight[:width] / 2, weight[width:]]),  # the reset gate's gradient is twice as large
            torch.cat([into[:width] / 2, into[width:]]),
        )
        self._tables = self._inputs(self._network.embedding.weight)

    def _inputs(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """What `embedded` (n, width) adds to reset and update (n, 2 * width), and to twice the new gate (n, width)."""
        gates, new = (torch.addmm(bias, embedded, weight) for weight, bias in zip(*self._into, strict=True))
        return gates, new

    def _states(self, tokens: Tensor) -> Tensor:
        with _full_precision(self.device):
            return self._network.cell(self._network.embedding(tokens))[0]

    def _consume(self, embedded: Tensor, before: Tensor, sizes: tuple[int, ...]) -> Tensor:
        inputs = self._inputs(embedded.detach())

        def of_step(_: slice, after: slice) -> tuple[Tensor, Tensor]:
            rows = slice(after.start - len(before), after.stop - len(before))
            return inputs[0][rows], inputs[1][rows]

        states = _RunGRU.apply(before, embedded, self._frozen, of_step, (len(before), *sizes))
        return states.index_select(0, _last_rows(sizes, states.device))

    def _unroll(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        def looked_up(rows: slice, _: slice) -> tuple[Tensor, Tensor]:
            return self._tables[0].index_select(0, tokens[rows]), self._tables[1].index_select(0, tokens[rows])

        return _RunGRU.apply(first, None, self._frozen, looked_up, sizes)


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
        super()._prepare()
        cell, width = dict(self._network.cell.named_parameters()), self.config.n_units // 2
        # torch has the gates in order in, forget, new, out; with new last, the sigmoids lie together
        order = torch.arange(4 * width, device=self.device).reshape(4, width)[[0, 1, 3, 2]].flatten()
        into, weight = cell["weight_ih_l0"][order], cell["weight_hh_l0"][order]
        twice = torch.cat([into.new_ones(3 * width), into.new_full((width,), 2.0)])  # as in a GRU
        self._into = (into * twice[:, None]).T, (cell["bias_ih_l0"] + cell["bias_hh_l0"])[order] * twice
        fourfold = (twice**2)[:, None]
        self._frozen = _FrozenLSTM((weight * twice[:, None]).T, weight * fourfold, into * fourfold)
        self._table = self._inputs(self._network.embedding.weight)

    def _inputs(self, embedded: Tensor) -> Tensor:
        """What `embedded` (n, width) adds to the gates in, forget and out, and to twice the new one; (n, 4 * width)."""
        weight, bias = self._into
        return torch.addmm(bias, embedded, weight)

    def _consume(self, embedded: Tensor, before: Tensor, sizes: tuple[int, ...]) -> Tensor:
        inputs = self._inputs(embedded.detach())

        def of_step(_: slice, after: slice) -> Tensor:
            return inputs[after.start - len(before) : after.stop - len(before)]

        states = _RunLSTM.apply(before, embedded, self._frozen, of_step, (len(before), *sizes))
        last = _last_rows(sizes, before.device)
        return torch.cat([state.index_select(0, last) for state in states], dim=1)

    def _states(self, tokens: Tensor) -> Tensor:
        width = self.config.n_units // 2
        states = self._table.new_zeros(*tokens.shape, 2 * width)
        hidden = cell = self._table.new_zeros(len(tokens), width)
        for step in range(tokens.shape[1]):  # torch.nn.LSTM gives c for the last step only
            gates, _, cell, squashed = _lstm_step(hidden, cell, self._table[tokens[:, step]], self._frozen.weight)
            hidden = gates[:, 2 * width : 3 * width] * squashed
            states[:, step, :width], states[:, step, width:] = hidden, cell
        return states

    def _unroll(self, first: Tensor, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        def looked_up(rows: slice, _: slice) -> Tensor:
            return self._table.index_select(0, tokens[rows])

        states, _ = _RunLSTM.apply(first, None, self._frozen, looked_up, sizes)
        return states


class _ByLibrary(torch.autograd.Function):
    """Hidden states of a frozen `cell` after each packed step (n_live, width), and its state after each pair's last step
    (n_pairs, n_units), with the gradient for what was `embedded` (n_live, width) and for the state `before` (n_pairs, n_units).

    One call of torch's cell, which on a GPU is cuDNN, there in full single precision.
    """

    @staticmethod
    def forward(
        ctx: Any, embedded: Tensor, before: Tensor, cell: nn.RNNBase, sizes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[:2]
        inputs = [x.detach().requires_grad_(need) for x, need in zip((embedded, before), needed, strict=True)]
        with torch.set_grad_enabled(any(needed)), _full_precision(embedded.device):
            state = [part.contiguous() for part in inputs[1][None].split(cell.hidden_size, dim=2)]
            packed = PackedSequence(inputs[0], torch.tensor(sizes))
            out, last = cell(packed, state[0] if len(state) == 1 else tuple(state))
            outputs = out.data, (last if len(state) == 1 else torch.cat(last, dim=2))[0]
        ctx.kept = inputs, outputs
        return outputs[0].detach(), outputs[1].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, outputs = ctx.kept
        needed = [x for x in inputs if x.requires_grad]
        with _full_precision(inputs[0].device):
            by = iter(torch.autograd.grad(outputs, needed, gradients))
        return (*(next(by) if x.requires_grad else None for x in inputs), None, None)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """cuDNN without TF32, to which torch lets it round products by default: three digits of a state."""
    if device.type != "cuda":
        yield
        return
    flags: Any = torch.backends.cudnn
    name, exact = "allow_tf32", False  # type: str, bool | str
    try:
        before = flags.allow_tf32
    except RuntimeError:  # it was set through torch's later interface, which does not go with the earlier
        flags, name, exact = flags.rnn, "fp32_precision", "ieee"
        before = flags.fp32_precision
    setattr(flags, name, exact)
    try:
        yield
    finally:
        setattr(flags, name, before)


def _spans(width: int, n_steps: int, generator: torch.Generator) -> Tensor:
    """Gate biases (width,) that forget within 1 to `n_steps` steps: the log of spans drawn uniformly."""
    return torch.log(1 + (n_steps - 1) * torch.rand(width, generator=generator))


_IN_CACHE = 2**17
"""Numbers of an activation that a thread works on at a time: half a megabyte, so that what one operation writes, the next reads
from the cache."""


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy of a frozen readout (linear, GELU, linear), with the gradient for its input alone.

    A cacheful of rows after the other: the gradient of each row's own loss is worked out while its activations are at hand.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        last_weight: Tensor,
        last_bias: Tensor,
        tokens: Tensor,
    ) -> Tensor:
        losses = hidden.new_empty(len(hidden))
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        n_rows = _rows_at_once(hidden, len(first_weight))
        for start in range(0, len(hidden), n_rows):
            rows = slice(start, start + n_rows)
            labels = tokens[None, rows]
            before = torch.addmm(first_bias, hidden[rows], first_weight.T)
            # tokens are few: with them in the first dimension, the softmax is over long vectors
            logits = torch.addmm(last_bias[:, None], last_weight, functional.gelu(before).T)
            logits = torch.log_softmax(logits, dim=0)
            losses[rows] = logits.gather(0, labels)[0].neg_()
            if gradient is not None:
                # p, and p − 1 of the label
                by_logits = logits.exp_().scatter_(0, labels, torch.expm1(-losses[rows])[None])
                by_before = torch.ops.aten.gelu_backward(by_logits.T @ last_weight, before)
                torch.mm(by_before, first_weight, out=gradient[rows])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0][:, None], None, None, None, None, None


def _rows_at_once(like: Tensor, width: int) -> int:
    """Rows of an activation of `width` that are worked on together; all of them but on a CPU."""
    if like.device.type != "cpu":
        return max(len(like), 1)
    return max(1, _IN_CACHE * torch.get_num_threads() // width)


_MINUS_ONE = torch.tensor(-1.0)  # on the CPU; beside a tensor on a GPU it counts as a plain number


def _tanh(sigmoid: Tensor, out: Tensor | None = None) -> Tensor:
    """tanh(x) of sigmoid(2 x); together 4 x faster here than tanh."""
    return torch.add(_MINUS_ONE, sigmoid, alpha=2, out=out)


def _by_gate(gates: Tensor, n_gates: int) -> tuple[Tensor, ...]:
    """Views (n, width) of (n, n_gates * width)."""
    return gates.unflatten(1, (n_gates, gates.shape[1] // n_gates)).unbind(1)


def _steps(sizes: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Of each step but the first: the packed rows that the surviving pairs had before it, and those that they have after."""
    starts = accumulate(sizes, initial=0)
    for (before, after), alive in zip(pairwise(starts), sizes[1:], strict=False):
        yield slice(before, before + alive), slice(after, after + alive)


def _last_rows(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Of each pair: the row of the state after its last step, where the states before the first step come first."""
    before = np.array((sizes[0], *sizes))
    of_pair = np.arange(sizes[0])
    n_steps = (before[1:, None] > of_pair).sum(axis=0)
    return torch.from_numpy((np.cumsum(before) - before)[n_steps] + of_pair).to(device)


class _FrozenGRU(NamedTuple):
    """Frozen weights of a GRU as `_RunGRU` needs them."""

    weights: tuple[Tensor, Tensor]
    """To reset and update (width, 2 * width), and to twice the new gate (width, width)."""
    new_bias: Tensor
    back: Tensor
    """Gradients of the gates (3 * width) to that of the state before."""
    back_into: Tensor
    """Gradients of the gates to that of what was embedded."""


class _RunGRU(torch.autograd.Function):
    """States of a frozen GRU, `first` and after each step, with the gradient for `first` and for `embedded`.

    ``take(rows, after)`` gives the inputs (`GRU._inputs`) of the step from the states `rows` to the states `after`, to be used
    up. `embedded` is for the gradient alone, and not needed for inputs that have none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        embedded: Tensor | None,
        frozen: _FrozenGRU,
        take: Callable[[slice, slice], tuple[Tensor, Tensor]],
        sizes: tuple[int, ...],
    ) -> Tensor:
        width, n_first = first.shape[1], sum(sizes[:1])
        gate_weight, new_weight = frozen.weights
        states = first.new_empty(sum(sizes), width)
        states[:n_first] = first[:n_first]
        kept, differentiable = [], any(ctx.needs_input_grad)
        for rows, after in _steps(sizes):
            before, (gates, new) = states[rows], take(rows, after)
            gates.addmm_(before, gate_weight).sigmoid_()
            reset, update = _by_gate(gates, 2)
            pre_new = torch.addmm(frozen.new_bias, before, new_weight)
            new.addcmul_(reset, pre_new).sigmoid_()
            _tanh(new, out=new)
            torch.lerp(new, before, update, out=states[after])
            if differentiable:
                kept.append((rows, after, gates, pre_new, new))
        ctx.kept, ctx.n_first, ctx.n_pairs, ctx.frozen = kept, n_first, len(first), frozen
        ctx.save_for_backward(states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (states,) = ctx.saved_tensors
        width, gradient, n_first = states.shape[1], gradients[0].clone(), ctx.n_first
        of_inputs = gradient.new_empty(len(states) - n_first, 3 * width) if ctx.needs_input_grad[1] else None
        for rows, after, gates, pre_new, new in reversed(ctx.kept):
            before, carried = states[rows], gradient[after]
            reset, update = _by_gate(gates, 2)
            by_gate = (
                gradient.new_empty(len(gates), 3 * width)
                if of_inputs is None
                else of_inputs[after.start - n_first : after.stop - n_first]
            )
            by_reset, by_update, by_new = _by_gate(by_gate, 3)
            # h = new + update * (before - new);  new = tanh(... + reset * pre_new)
            into_new = torch.ops.aten.tanh_backward(torch.addcmul(carried, carried, update, value=-1), new)
            torch.mul(into_new, pre_new, out=by_reset)
            torch.sub(before, new, out=by_update).mul_(carried)
            _sigmoid_backward_(by_gate[:, : 2 * width], gates)
            torch.mul(into_new, reset, out=by_new)
            if rows.start or ctx.needs_input_grad[0]:  # else nobody asks for the gradient of the first states
                gradient[rows].addcmul_(carried, update).addmm_(by_gate, ctx.frozen.back)
            if of_inputs is not None:
                by_new.copy_(into_new)  # inputs are not multiplied by the reset gate
        by_embedded = None if of_inputs is None else of_inputs @ ctx.frozen.back_into
        by_first = _padded(gradient[:n_first], ctx.n_pairs) if ctx.needs_input_grad[0] else None
        return by_first, by_embedded, None, None, None


def _sigmoid_backward_(gradient: Tensor, sigmoid: Tensor) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(gradient, sigmoid, grad_input=gradient)


def _padded(gradient: Tensor, n_pairs: int) -> Tensor:
    """Zeros for the pairs that have no step."""
    return functional.pad(gradient, (0, 0, 0, n_pairs - len(gradient)))


class _FrozenLSTM(NamedTuple):
    """Frozen weights of an LSTM as `_RunLSTM` needs them; gates in order in, forget, out, new."""

    weight: Tensor
    """From the hidden state to the gates, to twice the new one; (width, 4 * width)."""
    back: Tensor
    """Gradients of the gates (4 * width) to that of the hidden state before."""
    back_into: Tensor
    """Gradients of the gates to that of what was embedded."""


def _lstm_step(
    hidden: Tensor, cell: Tensor, gates: Tensor, weight: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sigmoids of all gates (n, 4 * width) in order in, forget, out, new; then each (n, width): the new gate's tanh, the cell
    state after the step, written to `out` if given, and its tanh. `gates` holds what the inputs add, and is used up."""
    into, forget, _, new = _by_gate(gates.addmm_(hidden, weight).sigmoid_(), 4)
    new = _tanh(new)
    after = torch.mul(into, new, out=out).addcmul_(forget, cell)
    squashed = torch.mul(after, 2).sigmoid_()
    return gates, new, after, _tanh(squashed, out=squashed)


class _RunLSTM(torch.autograd.Function):
    """Hidden states and cell states of a frozen LSTM, as `_RunGRU`."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        embedded: Tensor | None,
        frozen: _FrozenLSTM,
        take: Callable[[slice, slice], Tensor],
        sizes: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        width, n_first = first.shape[1] // 2, sum(sizes[:1])
        states, cells = first.new_empty(sum(sizes), width), first.new_empty(sum(sizes), width)
        states[:n_first], cells[:n_first] = first[:n_first, :width], first[:n_first, width:]
        kept, differentiable = [], any(ctx.needs_input_grad)
        for rows, after in _steps(sizes):
            gates, new, _, squashed = _lstm_step(
                states[rows], cells[rows], take(rows, after), frozen.weight, out=cells[after]
            )
            torch.mul(gates[:, 2 * width : 3 * width], squashed, out=states[after])
            if differentiable:
                kept.append((rows, after, gates, new, squashed))
        ctx.kept, ctx.n_first, ctx.n_pairs, ctx.frozen = kept, n_first, len(first), frozen
        ctx.save_for_backward(cells)
        ctx.set_materialize_grads(False)
        return states, cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (cells,) = ctx.saved_tensors
        of_states, of_cells = gradients
        width, n_first = cells.shape[1], ctx.n_first
        gradient = torch.zeros_like(cells) if of_states is None else of_states.clone()
        by_cell_of_all = gradient.new_zeros(n_first, width)
        of_inputs = gradient.new_empty(len(cells) - n_first, 4 * width) if ctx.needs_input_grad[1] else None
        for rows, after, gates, new, squashed in reversed(ctx.kept):
            by_hidden, by_cell, before = gradient[after], by_cell_of_all[: len(gates)], cells[rows]
            into, forget, out, _ = _by_gate(gates, 4)
            by_gate = (
                torch.empty_like(gates)
                if of_inputs is None
                else of_inputs[after.start - n_first : after.stop - n_first]
            )
            by_into, by_forget, by_out, by_new = _by_gate(by_gate, 4)
            # h = out * tanh(c);  c = into * new + forget * before
            by_cell += torch.ops.aten.tanh_backward(by_hidden * out, squashed)
            if of_cells is not None:
                by_cell += of_cells[after]
            torch.mul(by_cell, new, out=by_into)
            torch.mul(by_cell, before, out=by_forget)
            torch.mul(by_hidden, squashed, out=by_out)
            torch.mul(by_cell, into, out=by_new)
            _sigmoid_backward_(by_gate, gates)
            if rows.start or ctx.needs_input_grad[0]:
                gradient[rows].addmm_(by_gate, ctx.frozen.back)
                by_cell *= forget
        by_embedded = None if of_inputs is None else of_inputs @ ctx.frozen.back_into
        if not ctx.needs_input_grad[0]:
            return None, by_embedded, None, None, None
        if of_cells is not None:
            by_cell_of_all += of_cells[:n_first]
        by_first = torch.cat([gradient[:n_first], by_cell_of_all], dim=1)
        return _padded(by_first, ctx.n_pairs), by_embedded, None, None, None
