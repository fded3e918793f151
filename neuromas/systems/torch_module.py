"""Any PyTorch module as a system: recorded at one of its submodules, and resumed there if it does a task.

A module stays as it is. While it runs, it is in evaluation mode and its parameters take no gradients. Then both are as before.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuromas.causal.model import TASKS, CausalModel, get_task
from neuromas.errors import InvalidInput, NeuromasError, ReadOnly
from neuromas.schema.system import SystemConfig
from neuromas.systems.hooks import (
    Hook,
    alone,
    check_hookable,
    describe_output,
    first_tensor,
    frozen,
    get_part,
    hooked,
    put_part,
)
from neuromas.systems.inputs import Inputs
from neuromas.systems.numbering import Numbering
from neuromas.systems.system import Context, Packed, System, check_device, find_layer, with_steps
from neuromas.systems.untrained import untrained_module

Step = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(module, latents (n, n_units), tokens (n,)) → logits (n, n_tokens) of the token after `latents`, and the latents (n, n_units)
after `tokens` were consumed."""

Pool = Literal["mean", "flatten"]

_PROBED = 4  # steps that are run to see what a tap does


@dataclass(frozen=True)
class Prefix:
    """What each pair's module has read so far.

    Attributes
    ----------
    tokens : Tensor of int64, shape (n_pairs, n_steps)
    steps : Tensor of int64, shape (n_pairs,)
        The step at which each pair is resumed; later tokens are not used.
    """

    tokens: Tensor
    steps: Tensor


class Tokens(Context):
    """Tokens of whole trials, which the module reads again.

    Parameters
    ----------
    tokens : Tensor of int64, shape (n_trials, n_steps)
    """

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def at(self, trials: np.ndarray, steps: np.ndarray) -> Prefix:
        rows = torch.from_numpy(trials).to(self._tokens.device)
        read = self._tokens[:, : int(steps.max(initial=0)) + 1]
        return Prefix(read[rows], torch.from_numpy(steps).to(self._tokens.device))


class TorchSystem(System):
    """A PyTorch module; its latent is the output of one of its submodules.

    Any module can be recorded with `capture`. A module that reads the tokens of a task and predicts the next can also be resumed,
    and can be fitted like any other system; name its `task`.

    Parameters
    ----------
    module : torch.nn.Module
        The module itself, not a copy. Its weights stay as they are; a fit or `to` may move it to another device.
    tap : str
        Dotted name of a submodule, as in ``named_modules()``. It must run once in each call of the module.
    name : str, optional
        Name of the system; by default the name of the module's class.
    output : int, str or callable, optional
        The part of the submodule's output that is the latent: a position in a tuple, a key, the name of an attribute, or a
        function of the output. By default the first tensor in it.
    pool : {"mean", "flatten"}, optional
        How an output (n_trials, n_channels, …) of a convolution becomes units: "mean" takes the mean of each channel over
        space; "flatten" makes every position of every channel a unit.
    task : str or CausalModel, optional
        The task that the module does. Called with tokens (n_trials, n_steps), the module returns the logits (n_trials, n_steps,
        n_tokens) of the token after each: as a tensor, as ``logits`` of its output, or as the first tensor in its output.
    vocabulary : sequence of str, or mapping of str to int, optional
        The module's tokens; by default the task's, with the task's numbers. A sequence lists them in the order of their numbers:
        the task's tokens in another order, also among others, or as many other names in the task's order. A mapping says the
        module's number of each token of the task.
    step : callable, optional
        For recurrent modules: ``step(module, latents, tokens) -> (logits, next latents)``. `logits` (n, n_tokens) predict the
        token after `latents` (n, n_units); the next latents (n, n_units) are those after `tokens` (n,) were consumed. The
        function must be differentiable in `latents`.

    Raises
    ------
    NotFound
        There is no such submodule; the nearest names are listed.
    InvalidInput
        The module does a task, but its logits or latents have other shapes, it looks ahead, later steps do not read the tap, or
        `step` returns something other than the module does; a token of the task has no number; the module is compiled.

    Notes
    -----
    Without `step`, a module is resumed by running prefix and continuation again, with the latents in place of the tap's output.
    This is right for any causal module whose later steps read the tap. It takes longer than a system that keeps keys and values,
    by about the share of the prefix. A tap that later steps do not read is refused. An example is the output of ``nn.GRU``: the
    next state follows from a state inside the module.

    Examples
    --------
    >>> from neuromas import capture
    >>> module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    >>> recording = capture(TorchSystem(module, "1", name="net"), torch.ones(4, 3), {"side": ["l", "r", "l", "r"]})
    >>> recording
    <Recording 'net' (sample: 4, unit: 5)> float32, 4 trials, access 'read'
    Variables:
        side     categorical: l, r
    """

    at_once = 250

    def __init__(
        self,
        module: nn.Module,
        tap: str,
        *,
        name: str | None = None,
        output: int | str | Callable[[Any], Tensor] | None = None,
        pool: Pool | None = None,
        task: str | CausalModel | None = None,
        vocabulary: Sequence[str] | Mapping[str, int] | None = None,
        step: Step | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise InvalidInput(f"expected a torch.nn.Module, got {type(module).__name__}", kind="invalid_module")
        name = type(module).__name__ if name is None else name
        self.module, self._output, self._pool, self._step = module, output, pool, step
        if pool not in (None, "mean", "flatten"):
            raise InvalidInput(
                f"system {name!r}: expected pool 'mean' or 'flatten', got {pool!r}", kind="invalid_option"
            )
        if task is None and (vocabulary is not None or step is not None):
            raise InvalidInput(
                f"system {name!r}: vocabulary and step are for a module that does a task; name it with task=",
                kind="no_task",
            )
        if isinstance(task, str) and vocabulary is None:
            task = get_task(task)
        registered = TASKS[task]().vocabulary if isinstance(task, str) and task in TASKS else ()
        of_task = task.vocabulary if isinstance(task, CausalModel) else registered
        self._numbering = Numbering.of(vocabulary, tuple(of_task), name)
        self.config = SystemConfig.parse(
            {
                "kind": "torch",
                "name": name,
                "task": "" if task is None else task if isinstance(task, str) else task.name,
                "vocabulary": list(self._numbering.vocabulary),
                "dropout": 0.0,
            },
            f"system {name!r}",
        )
        if task is not None:  # in a fit, which must tell one set of weights from another
            self.config = self.config.model_copy(update={"weights_sha256": self.weights_sha256()})
        self._width: int | None = None
        self._dtype = torch.float32
        self._names = tuple(name for name, _ in module.named_modules() if name)
        self._tap_at(tap)

    def _tap_at(self, tap: str) -> None:
        self.layer = find_layer(tap, self._names, self.name)
        check_hookable(self.module, tap, self._where)
        self._tapped = self.module.get_submodule(tap)
        if self.config.task:
            self._check_resumable()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the module's first parameter lies."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def n_units(self) -> int:
        if self._width is None:
            raise InvalidInput(
                f"system {self.name!r}: the width at {self.layer!r} is known only after the module was run; capture it first",
                kind="invalid_width",
            )
        return self._width

    def weights_sha256(self) -> str:
        """Hash of the module's parameters and buffers as they are now, and of its printed structure."""
        digest = hashlib.sha256(f"{type(self.module).__qualname__} {self.module}".encode())
        for name, tensor in self.module.state_dict().items():
            if isinstance(tensor, Tensor):
                digest.update(f"{name} {tensor.dtype} {tuple(self._shape(name, tensor))}".encode())
                whole = tensor.detach().cpu().to_dense().contiguous()
                digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
        if not self._numbering.same:  # the same weights do something else with other tokens
            digest.update(repr(self._numbering.numbers).encode())
        return digest.hexdigest()

    def tokens_of(self, numbers: np.ndarray) -> np.ndarray:
        """The system's tokens of the module's `numbers`, of any shape."""
        return numbers if self._numbering.same else self._numbering.recorded(numbers)

    def _shape(self, name: str, tensor: Tensor) -> tuple[int, ...]:
        """The shape of a parameter or buffer; InvalidInput if it holds no numbers yet."""
        if is_lazy(tensor) or tensor.is_meta:
            raise InvalidInput(
                f"system {self.name!r}: {name!r} of the module holds no numbers yet; expected a module whose weights are loaded."
                " A lazy module gets its weights when it is first run",
                kind="invalid_module",
            )
        return tuple(tensor.shape)

    @property
    def layers(self) -> tuple[str, ...]:
        return self._names

    @property
    def stepwise(self) -> bool:
        return self._step is None and bool(self.config.task)  # the tap's outputs are put in place all at once

    def at(self, layer: str) -> Self:
        """The same module, read at another submodule."""
        other = copy.copy(self)
        other._width = None
        other._tap_at(layer)
        return other

    def untrained(self, seed: int) -> Self:
        other = copy.copy(self)
        other.module = untrained_module(self.module, seed)
        other._tapped = other.module.get_submodule(self.layer)
        other.config = self.config.model_copy(update={"weights_sha256": other.weights_sha256()})
        return other

    def to(self, device: str | torch.device) -> Self:
        """Move the module itself, not a copy of it."""
        if torch.device(device) != self.device:
            check_device(device)
            with alone(self.module):
                self.module.to(device)
        return self

    @torch.no_grad()
    def activity(self, batch: Inputs) -> Tensor:
        """The output of the tap for a batch.

        Parameters
        ----------
        batch : Inputs

        Returns
        -------
        Tensor, shape (n_trials, n_units) or (n_trials, n_steps, n_units)

        Raises
        ------
        InvalidInput
            The module cannot be run on these inputs; the tap does not run exactly once; its output is not such a tensor.
        """
        outputs: list[Any] = []
        # a copy: what runs later may change the output in place
        self._run(batch, lambda module, args, output: outputs.append(self._part(output).detach().clone()))
        if len(outputs) != 1:
            often = f"is run {len(outputs)} times" if outputs else "is never run"
            hint = "; tap a module that is not shared between places" if outputs else ""
            raise InvalidInput(
                f"{self._where}: the tap {often} in one call of the module; expected once{hint}",
                kind="missing_output",
            )
        latents = outputs[0]
        if not latents.is_floating_point():
            raise InvalidInput(f"{self._where}: the tap gives {latents.dtype}; expected floats", kind="missing_output")
        if not latents.ndim or len(latents) != batch.n_trials:
            raise InvalidInput(
                f"{self._where}: the tap gives shape {tuple(latents.shape)} for {batch.n_trials} trials; expected the trials"
                " first. For a module that is not batch_first, use output=lambda output: output.transpose(0, 1)",
                kind="shape_mismatch",
            )
        if self._pool is not None and latents.ndim > 2:
            latents = latents.flatten(1) if self._pool == "flatten" else latents.flatten(2).mean(dim=2)
        if latents.ndim not in (2, 3):
            raise InvalidInput(
                f"{self._where}: the tap gives shape {tuple(latents.shape)}; expected (n_trials, n_units) or (n_trials, n_steps,"
                " n_units). For the maps of a convolution, (n_trials, n_channels, …), use pool='mean' (the mean of each channel"
                " over space) or pool='flatten' (every position of every channel is a unit). For any other shape, give a function"
                " as output=",
                kind="shape_mismatch",
            )
        self._width, self._dtype = latents.shape[-1], latents.dtype
        return latents

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        chunks = self._numbering.spoken(tokens.to(self.device)).split(self.at_once)
        return torch.cat([self._of_tokens(chunk).float() for chunk in chunks])

    def context(self, tokens: Tensor) -> Tokens | None:
        return None if self._step is not None else Tokens(self._numbering.spoken(tokens.to(self.device)))

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        self._check_task()
        if self._step is not None:
            return self._unroll(latents, continuation)
        if not isinstance(context, Prefix):
            raise InvalidInput(
                f"system {self.name!r} reads the earlier tokens again: resume it with the result of context(tokens).at(...)",
                kind="no_context",
            )
        n_steps = context.tokens.shape[1] + len(continuation.sizes)
        at = torch.arange(n_steps, device=latents.device)
        whole = with_steps(context.tokens, n_steps)
        return self._resume(latents[:, None], at == context.steps[:, None], whole, context.steps, continuation)

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        if not self.stepwise:
            return super().resume_steps(latents, lengths, tokens, continuation)
        n_steps = max(int(lengths.max()) + len(continuation.sizes), latents.shape[1])
        at = torch.arange(n_steps, device=latents.device)
        whole = with_steps(self._numbering.spoken(tokens), n_steps)
        padded = with_steps(latents, n_steps)
        return self._resume(padded, at < lengths[:, None], whole, lengths - 1, continuation)

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"system {self.name!r} at {self.layer!r}"

    def _check_task(self) -> None:
        if not self.config.task:
            raise ReadOnly(
                f"system {self.name!r} was made without a task, so it can be recorded, but not resumed; name its task with task="
            )

    def _resume(self, latents: Tensor, inside: Tensor, tokens: Tensor, last: Tensor, continuation: Packed) -> Tensor:
        """Logits (n_live, n_tokens) after step `last` (n_pairs,), with `latents` where `inside` (n_pairs, n_steps) says so.

        `tokens` (n_pairs, n_steps) has room for the continuation behind `last`.
        """
        rows, column = continuation.rows, last[continuation.rows] + continuation.steps
        whole = tokens.clone()
        whole[rows, column + 1] = self._numbering.spoken(continuation.tokens)

        def put(module: nn.Module, args: Any, output: Any) -> Any:
            own = self._part(output)
            return self._with(output, torch.where(inside[:, :, None], latents.to(own), own))

        with _kernels(latents):
            out = self._run(Inputs((whole,), {}, len(whole)), put)
        return self._numbering.heard(self._logits(out, whole)[rows, column].float())

    def _unroll(self, latents: Tensor, continuation: Packed) -> Tensor:
        assert self._step is not None
        state, predicted, start = latents[continuation.order].to(self._dtype), [], 0
        tokens = self._numbering.spoken(continuation.tokens)
        with alone(self.module), frozen(self.module), _kernels(latents):
            for now, alive in pairwise((*continuation.sizes, 0)):
                logits, state = self._step(self.module, state, tokens[start : start + now])
                predicted.append(logits)
                state = state[:alive]
                start += now
        if not predicted:
            return latents.new_zeros(0, len(self.config.vocabulary))
        return self._numbering.heard(torch.cat(predicted).float())

    def _of_tokens(self, tokens: Tensor) -> Tensor:
        latents = self.activity(Inputs((tokens,), {}, len(tokens)))
        if latents.shape[:-1] != tokens.shape:
            raise InvalidInput(
                f"{self._where}: the tap gives {tuple(latents.shape)} for {tuple(tokens.shape)} tokens; expected a latent for"
                f" each, {(*tokens.shape, 'n_units')}",
                kind="missing_output",
            )
        return latents

    def _logits(self, output: Any, tokens: Tensor) -> Tensor:
        """The module's logits (n_trials, n_steps, n_tokens) for `tokens`."""
        logits = getattr(output, "logits", None)
        if logits is None and isinstance(output, Mapping):
            logits = output.get("logits")
        if logits is None:
            logits = get_part(output, first_tensor(output))
        n_tokens = max(self._numbering.numbers) + 1
        if not isinstance(logits, Tensor) or logits.shape[:-1] != tokens.shape or logits.shape[-1] < n_tokens:
            actual = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidInput(
                f"system {self.name!r}: the module gives {actual} for {tuple(tokens.shape)} tokens; expected logits of the next"
                f" token at each, {(*tokens.shape, n_tokens)}",
                kind="missing_output",
            )
        return logits

    def _run(self, batch: Inputs, hook: Hook) -> Any:
        """The module's output, with `hook` at the tap."""
        batch = batch.to(self.device)
        try:
            with alone(self.module), hooked(self._tapped, hook), frozen(self.module):
                return self.module(*batch.args, **batch.kwargs)
        except (NeuromasError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a foreign module raises
            shapes = [
                f"{tuple(value.shape)} {value.dtype}"
                for value in (*batch.args, *batch.kwargs.values())
                if isinstance(value, Tensor)
            ]
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidInput(
                f"system {self.name!r} cannot be run on inputs {', '.join(shapes)}: {line}", kind="module_failed"
            ) from error

    def _part(self, output: Any) -> Tensor:
        """The tensor in a tap's output that is the latent."""
        place = first_tensor(output) if self._output is None else self._output
        try:
            part = place(output) if callable(place) else get_part(output, place)
        except (LookupError, AttributeError, TypeError):
            part = None
        if not isinstance(part, Tensor):
            raise InvalidInput(
                f"{self._where}: the tap gives {describe_output(output)}"
                + ("" if self._output is None else f", in which output={self._output!r} finds no tensor")
                + "; expected a tensor, or an output that holds one. Choose the tensor with output=",
                kind="missing_output",
            )
        return part

    def _with(self, output: Any, tensor: Tensor) -> Any:
        """A tap's output with `tensor` in place of the latent, which must not be a function of the output."""
        place = first_tensor(output) if self._output is None else self._output
        assert not callable(place)
        return put_part(output, place, tensor)

    @torch.no_grad()
    def _check_resumable(self) -> None:
        """Raise if the module cannot be resumed; checked on a few tokens."""
        if (callable(self._output) and self._step is None) or self._pool is not None:
            raise InvalidInput(
                f"{self._where}: a system with a task has one latent for each token; expected no pool, and a function as output"
                " only together with step=",
                kind="invalid_option",
            )
        n_tokens = len(self.config.vocabulary)
        if n_tokens < 2:
            raise InvalidInput(
                f"system {self.name!r}: expected a vocabulary of at least 2 tokens", kind="missing_vocabulary"
            )
        probed = torch.arange(2 * _PROBED, device=self.device).reshape(2, _PROBED)
        tokens = self._numbering.spoken(probed % n_tokens)
        other = torch.cat([tokens[:, :2], self._numbering.spoken((probed[:, 2:] + 1) % n_tokens)], dim=1)
        latents = self._of_tokens(tokens)
        # a copy: the module may reuse the memory of its output
        logits = self._logits(self._run(Inputs((tokens,), {}, 2), lambda *_: None), tokens).clone()
        ahead = self._logits(self._run(Inputs((other,), {}, 2), lambda *_: None), other)
        if not (_close(self._of_tokens(other)[:, :2], latents[:, :2]) and _close(ahead[:, :2], logits[:, :2])):
            raise InvalidInput(
                f"{self._where}: the module's output at a step depends on later tokens; expected a causal module, which does not"
                " look ahead",
                kind="not_resumable",
            )
        if self._step is not None:
            self._check_step(tokens, latents, logits)
            return
        generator = torch.Generator().manual_seed(0)
        strange = torch.randn(2, 1, latents.shape[-1], generator=generator).to(latents)
        put = latents[:, :1] + strange * latents.std().clamp_min(1e-3)
        inside = torch.arange(_PROBED, device=self.device)[None] < 1

        def intervene(module: nn.Module, args: Any, output: Any) -> Any:
            return self._with(output, torch.where(inside[:, :, None], put, self._part(output)))

        changed = self._logits(self._run(Inputs((tokens,), {}, 2), intervene), tokens)
        if _close(changed[:, 1:], logits[:, 1:], 1e-6):
            raise InvalidInput(
                f"{self._where}: later steps do not read this tap: their logits stay the same with another latent in its place."
                " Examples are a last layer, and the output of nn.GRU or nn.LSTM, whose next state follows from a state inside"
                " the module. Tap an earlier submodule; for a recurrent module, give step=",
                kind="not_resumable",
            )

    def _check_step(self, tokens: Tensor, latents: Tensor, logits: Tensor) -> None:
        assert self._step is not None
        with alone(self.module), frozen(self.module):
            predicted, following = self._step(self.module, latents[:, 1], tokens[:, 2])
        for what, own, expected in (
            ("logits", predicted, logits[:, 1]),
            ("next latents", following, latents[:, 2]),
        ):
            if own.shape != expected.shape:
                raise InvalidInput(
                    f"{self._where}: step gives {what} of shape {tuple(own.shape)}; expected {tuple(expected.shape)}",
                    kind="not_resumable",
                )
            if not _close(own, expected, max(1e-3, 16 * torch.finfo(self._dtype).eps)):
                raise InvalidInput(
                    f"{self._where}: step gives other {what} than the module does on the same tokens; they differ by up to"
                    f" {(own - expected).abs().max():.3g}",
                    kind="not_resumable",
                )


def _kernels(latents: Tensor) -> AbstractContextManager[Any]:
    """Kernels that have a gradient for `latents`: those of cuDNN for recurrent layers have it only in training mode."""
    with_gradient_on_gpu = latents.is_cuda and latents.requires_grad
    return torch.backends.cudnn.flags(enabled=False) if with_gradient_on_gpu else nullcontext()


def _close(x: Tensor, y: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors are equal to `tolerance` of the larger's largest value."""
    largest = max(float(x.abs().max()), float(y.abs().max()), 1e-30)
    return float((x - y).abs().max()) <= tolerance * largest


__all__ = ["Pool", "Prefix", "Step", "Tokens", "TorchSystem"]
