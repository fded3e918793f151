"""Any PyTorch module as a system: read at one of its submodules, and resumed there where it does a task.

Nothing about a module changes: while it runs it is in evaluation mode and its parameters take no gradients, and after that
everything is as it was.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromas.causal.model import TASKS, CausalModel, get_task
from neuromas.errors import InvalidInput, NeuromasError, ReadOnly
from neuromas.schema.system import SystemConfig
from neuromas.systems.inputs import Batch
from neuromas.systems.system import Context, Packed, System, check_device, find_layer

Step = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(module, latents (n, n_units), tokens (n,)) → logits (n, n_tokens) of the token after `latents`, and the latents (n, n_units)
once `tokens` were consumed."""

Pool = Literal["mean", "flatten"]

_PROBED = 4  # steps that are run to see what a tap does


@dataclass(frozen=True)
class Prefix:
    """What each pair's module has read so far.

    Attributes
    ----------
    tokens : Tensor of int64, shape (n_pairs, n_steps)
    steps : Tensor of int64, shape (n_pairs,)
        At which of them each pair is resumed; what lies beyond is not looked at.
    """

    tokens: Tensor
    steps: Tensor


class Tokens(Context):
    """The tokens of whole trials, to be read again.

    Parameters
    ----------
    tokens : Tensor of int64, shape (n_trials, n_steps)
    """

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def at(self, trials: np.ndarray, steps: np.ndarray) -> Prefix:
        rows = torch.from_numpy(trials).to(self._tokens.device)
        known = self._tokens[:, : int(steps.max(initial=0)) + 1]
        return Prefix(known[rows], torch.from_numpy(steps).to(self._tokens.device))


class TorchSystem(System):
    """A PyTorch module; its latent is the output of one of its submodules.

    Any module can be recorded with `capture`. One that reads a task's tokens and predicts the next can be resumed too, and takes
    part in fits like any other system: say which `task` it does.

    Parameters
    ----------
    module : torch.nn.Module
        Taken as it is, not copied, and left as it is, but for the device where a fit or `to` moves it.
    tap : str
        Dotted name of a submodule, as ``named_modules()`` gives it; it must run once per call of the module.
    name : str, optional
        The system's name; by default that of the module's class.
    output : int, str or callable, optional
        Which part of the submodule's output counts: a place in a tuple, a key or attribute, or a function of the output.
        By default the first tensor in it.
    pool : {"mean", "flatten"}, optional
        What becomes of an output (n_trials, n_channels, …) of a convolution: a channel's mean over space, or every place of
        every channel a unit.
    task : str or CausalModel, optional
        What the module does when called with tokens (n_trials, n_steps): it gives the logits (n_trials, n_steps, n_tokens) of
        the token after each, as a tensor, as the output's ``logits``, or as its first tensor.
    vocabulary : sequence of str, optional
        Token → its number for the module; by default the task's.
    step : callable, optional
        For recurrent modules: ``step(module, latents, tokens) -> (logits, next latents)``, where `logits` (n, n_tokens) are of
        the token after `latents` (n, n_units), and the next latents (n, n_units) are those once `tokens` (n,) were
        consumed. It must be differentiable in `latents`.

    Raises
    ------
    NotFound
        No such submodule; the nearest names are listed.
    InvalidInput
        With a task: the module's logits or latents have other shapes, it looks ahead, later steps do not read the tap, or `step`
        disagrees with the module.

    Notes
    -----
    Without `step` a module is resumed by running prefix and continuation once more with the tap's output put in place:
    right for any causal module whose later steps read the tap, and slower than a system that keeps keys and values, by about
    the share of the prefix. A tap that later steps do not read, such as the output of ``nn.GRU``, whose next state follows from a
    state inside, is refused.

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
        vocabulary: Sequence[str] | None = None,
        step: Step | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise InvalidInput(f"expected a torch.nn.Module, got {type(module).__name__}", kind="no_module")
        name = type(module).__name__ if name is None else name
        self.module, self._output, self._pool, self._step = module, output, pool, step
        if pool not in (None, "mean", "flatten"):
            raise InvalidInput(f"system {name!r}: expected pool 'mean' or 'flatten', got {pool!r}", kind="wrong_option")
        if task is None and (vocabulary is not None or step is not None):
            raise InvalidInput(
                f"system {name!r}: vocabulary and step are for a module that does a task; say which with task=",
                kind="no_task",
            )
        if isinstance(task, str) and vocabulary is None:
            task = get_task(task)
        known = TASKS[task]().vocabulary if isinstance(task, str) and task in TASKS else ()
        told = task.vocabulary if isinstance(task, CausalModel) else known
        self.config = SystemConfig.parse(
            {
                "kind": "torch",
                "name": name,
                "task": "" if task is None else task if isinstance(task, str) else task.name,
                "vocabulary": list(told if vocabulary is None else vocabulary),
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
                f"system {self.name!r}: the width at {self.layer!r} is not known before the module was run; capture it first",
                kind="unknown_width",
            )
        return self._width

    def weights_sha256(self) -> str:
        """Hash of the module's parameters and buffers as they are now, and of its structure as it prints."""
        digest = hashlib.sha256(f"{type(self.module).__qualname__} {self.module}".encode())
        for name, tensor in self.module.state_dict().items():
            if isinstance(tensor, Tensor):
                whole = tensor.detach().cpu().contiguous()
                digest.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
                digest.update(whole.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

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

    def to(self, device: str | torch.device) -> Self:
        """Move the module itself, for good; it is taken as it is, not copied."""
        if torch.device(device) != self.device:
            check_device(device)
            self.module.to(device)
        return self

    @torch.no_grad()
    def activity(self, batch: Batch) -> Tensor:
        """What the tap gives for a batch.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        Tensor, shape (n_trials, n_units) or (n_trials, n_steps, n_units)

        Raises
        ------
        InvalidInput
            The module cannot be run on these inputs; the tap does not run, or not once, or gives no such tensor.
        """
        given: list[Any] = []
        # a copy: what runs later may change the output in place
        self._run(batch, lambda module, args, output: given.append(self._part(output).detach().clone()))
        if len(given) != 1:
            often = f"is run {len(given)} times" if given else "is never run"
            hint = "; tap a module that is not shared between places" if given else ""
            raise InvalidInput(
                f"{self._where}: the tap {often} in one call of the module; expected once{hint}",
                kind="tap_repeated" if given else "tap_silent",
            )
        found = given[0]
        if not found.is_floating_point():
            raise InvalidInput(f"{self._where}: the tap gives {found.dtype}; expected floats", kind="no_latent")
        if not found.ndim or len(found) != batch.n_trials:
            raise InvalidInput(
                f"{self._where}: the tap gives shape {tuple(found.shape)} for {batch.n_trials} trials; expected these first. Of a"
                " module that is not batch_first take output=lambda output: output.transpose(0, 1), or the like",
                kind="wrong_batch",
            )
        if self._pool is not None and found.ndim > 2:
            found = found.flatten(1) if self._pool == "flatten" else found.flatten(2).mean(dim=2)
        if found.ndim not in (2, 3):
            raise InvalidInput(
                f"{self._where}: the tap gives shape {tuple(found.shape)}; expected (n_trials, n_units) or (n_trials, n_steps,"
                " n_units). For maps of a convolution, (n_trials, n_channels, …), say pool='mean' (each channel's mean over"
                " space) or pool='flatten' (every place of every channel a unit); for anything else output= takes a function",
                kind="wrong_shape",
            )
        self._width, self._dtype = found.shape[-1], found.dtype
        return found

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        chunks = tokens.to(self.device).clamp(min=0).split(self.at_once)
        return torch.cat([self._of_tokens(chunk).float() for chunk in chunks])

    def context(self, tokens: Tensor) -> Tokens | None:
        return None if self._step is not None else Tokens(tokens.to(self.device).clamp(min=0))

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        self._check_task()
        if self._step is not None:
            return self._unroll(latents, continuation)
        if not isinstance(context, Prefix):
            raise InvalidInput(
                f"system {self.name!r} reads what came before again: resume it with what context(tokens).at(...) gives",
                kind="no_context",
            )
        n_steps = context.tokens.shape[1] + len(continuation.sizes)
        at = torch.arange(n_steps, device=latents.device)
        whole = functional.pad(context.tokens, (0, len(continuation.sizes)))
        return self._resume(latents[:, None], at == context.steps[:, None], whole, context.steps, continuation)

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        if not self.stepwise:
            return super().resume_steps(latents, lengths, tokens, continuation)
        n_steps = max(int(lengths.max()) + len(continuation.sizes), latents.shape[1])
        at = torch.arange(n_steps, device=latents.device)
        whole = functional.pad(tokens.clamp(min=0), (0, max(0, n_steps - tokens.shape[1])))[:, :n_steps]
        given = functional.pad(latents, (0, 0, 0, n_steps - latents.shape[1]))
        return self._resume(given, at < lengths[:, None], whole, lengths - 1, continuation)

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"system {self.name!r} at {self.layer!r}"

    def _check_task(self) -> None:
        if not self.config.task:
            raise ReadOnly(
                f"system {self.name!r} says no task, so it can be recorded, but not resumed; say which with task="
            )

    def _resume(self, latents: Tensor, inside: Tensor, tokens: Tensor, last: Tensor, continuation: Packed) -> Tensor:
        """Logits (n_live, n_tokens) after step `last` (n_pairs,), with `latents` where `inside` (n_pairs, n_steps) says so.

        `tokens` (n_pairs, n_steps) has room for the continuation behind `last`.
        """
        rows, column = continuation.rows, last[continuation.rows] + continuation.steps
        whole = tokens.clone()
        whole[rows, column + 1] = continuation.tokens

        def put(module: nn.Module, args: Any, output: Any) -> Any:
            own = self._part(output)
            return self._with(output, torch.where(inside[:, :, None], latents.to(own), own))

        with _kernels(latents):
            out = self._run(Batch((whole,), {}, len(whole)), put)
        return self._logits(out, whole)[rows, column].float()

    def _unroll(self, latents: Tensor, continuation: Packed) -> Tensor:
        assert self._step is not None
        state, found, start = latents[continuation.order].to(self._dtype), [], 0
        with frozen(self.module), _kernels(latents):
            for now, alive in pairwise((*continuation.sizes, 0)):
                logits, state = self._step(self.module, state, continuation.tokens[start : start + now])
                found.append(logits)
                state = state[:alive]
                start += now
        return torch.cat(found).float() if found else latents.new_zeros(0, len(self.config.vocabulary))

    def _of_tokens(self, tokens: Tensor) -> Tensor:
        found = self.activity(Batch((tokens,), {}, len(tokens)))
        if found.shape[:-1] != tokens.shape:
            raise InvalidInput(
                f"{self._where}: the tap gives {tuple(found.shape)} for {tuple(tokens.shape)} tokens; expected a latent for each,"
                f" {(*tokens.shape, 'n_units')}",
                kind="no_latent",
            )
        return found

    def _logits(self, output: Any, tokens: Tensor) -> Tensor:
        """The module's logits (n_trials, n_steps, n_tokens) for `tokens`."""
        logits = getattr(output, "logits", None)
        if logits is None and isinstance(output, Mapping):
            logits = output.get("logits")
        if logits is None:
            logits = _get(output, _first(output))
        n_tokens = len(self.config.vocabulary)
        if not isinstance(logits, Tensor) or logits.shape[:-1] != tokens.shape or logits.shape[-1] < n_tokens:
            told = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidInput(
                f"system {self.name!r}: the module gives {told} for {tuple(tokens.shape)} tokens; expected logits of the next"
                f" token at each, {(*tokens.shape, n_tokens)}",
                kind="no_logits",
            )
        return logits

    def _run(self, batch: Batch, hook: Callable[[nn.Module, Any, Any], Any]) -> Any:
        """The module's output, with `hook` at the tap."""
        batch = batch.to(self.device)
        handle = self._tapped.register_forward_hook(hook)
        try:
            with frozen(self.module):
                return self.module(*batch.args, **batch.kwargs)
        except (NeuromasError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a foreign module raises
            shapes = [
                f"{tuple(one.shape)} {one.dtype}"
                for one in (*batch.args, *batch.kwargs.values())
                if isinstance(one, Tensor)
            ]
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidInput(
                f"system {self.name!r} cannot be run on inputs {', '.join(shapes)}: {line}", kind="module_failed"
            ) from error
        finally:
            handle.remove()

    def _part(self, output: Any) -> Tensor:
        """The tensor in a tap's output that counts."""
        which = _first(output) if self._output is None else self._output
        try:
            found = which(output) if callable(which) else _get(output, which)
        except (LookupError, AttributeError, TypeError):
            found = None
        if not isinstance(found, Tensor):
            raise InvalidInput(
                f"{self._where}: the tap gives {_told(output)}"
                + ("" if self._output is None else f", in which output={self._output!r} finds no tensor")
                + "; expected a tensor, or something that holds one; output= says which",
                kind="no_latent",
            )
        return found

    def _with(self, output: Any, tensor: Tensor) -> Any:
        """A tap's output with `tensor` in place of the part that counts."""
        which = _first(output) if self._output is None else self._output
        if which is None:
            return tensor
        if isinstance(output, (tuple, list)):
            items = [*output]
            items[which if isinstance(which, int) else output._fields.index(which)] = tensor  # type: ignore[union-attr]
            return output._make(items) if hasattr(output, "_make") else type(output)(items)
        if isinstance(output, Mapping):
            changed: Any = copy.copy(output)
            changed[[*output][which] if isinstance(which, int) else which] = tensor
            return changed
        return replace(output, **{str(which): tensor})

    @torch.no_grad()
    def _check_resumable(self) -> None:
        """Raise unless what resuming stands on holds: checked on a few tokens."""
        if (callable(self._output) and self._step is None) or self._pool is not None:
            raise InvalidInput(
                f"{self._where}: where a task is done, a latent is put in the place of each token's: expected no pool, and a"
                " function as output only beside step=",
                kind="wrong_option",
            )
        n_tokens = len(self.config.vocabulary)
        if n_tokens < 2:
            raise InvalidInput(
                f"system {self.name!r}: expected a vocabulary of at least 2 tokens", kind="no_vocabulary"
            )
        numbers = torch.arange(2 * _PROBED, device=self.device).reshape(2, _PROBED)
        tokens = numbers % n_tokens
        other = torch.cat([tokens[:, :2], (tokens[:, 2:] + 1) % n_tokens], dim=1)
        latents = self._of_tokens(tokens)
        logits = self._logits(self._run(Batch((tokens,), {}, 2), lambda *_: None), tokens)
        ahead = self._logits(self._run(Batch((other,), {}, 2), lambda *_: None), other)
        if not (_close(self._of_tokens(other)[:, :2], latents[:, :2]) and _close(ahead[:, :2], logits[:, :2])):
            raise InvalidInput(
                f"{self._where}: what the module gives for a step depends on later ones; expected a causal one, in which nothing"
                " looks ahead",
                kind="not_causal",
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

        changed = self._logits(self._run(Batch((tokens,), {}, 2), intervene), tokens)
        if _close(changed[:, 1:], logits[:, 1:], 1e-6):
            raise InvalidInput(
                f"{self._where}: later steps do not read this tap: another latent in its place leaves their logits as they are,"
                " as at the output of nn.GRU or nn.LSTM, whose next state follows from a state inside, or at a last layer. Tap"
                " an earlier submodule, or for a recurrent module say step=",
                kind="tap_not_read",
            )

    def _check_step(self, tokens: Tensor, latents: Tensor, logits: Tensor) -> None:
        assert self._step is not None
        with frozen(self.module):
            told, following = self._step(self.module, latents[:, 1], tokens[:, 2])
        for what, own, expected in (
            ("logits", told, logits[:, 1]),
            ("next latents", following, latents[:, 2]),
        ):
            if own.shape != expected.shape:
                raise InvalidInput(
                    f"{self._where}: step gives {what} of shape {tuple(own.shape)}; expected {tuple(expected.shape)}",
                    kind="step_differs",
                )
            if not _close(own, expected, max(1e-3, 16 * torch.finfo(self._dtype).eps)):
                raise InvalidInput(
                    f"{self._where}: step gives {what} that are not the module's own, off by up to"
                    f" {(own - expected).abs().max():.3g}; expected those of running it on the same tokens",
                    kind="step_differs",
                )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode, its parameters without gradients; after that as it was."""
    modes = [(part, part.training) for part in module.modules()]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)


def _kernels(latents: Tensor) -> AbstractContextManager[Any]:
    """Kernels through which the gradient of `latents` comes back: cuDNN's recurrent layers have one only where they train."""
    wanted = latents.is_cuda and latents.requires_grad
    return torch.backends.cudnn.flags(enabled=False) if wanted else nullcontext()


def _first(output: Any) -> int | str | None:
    """Where in an output the first tensor is; None if it is the output itself, or nowhere."""
    if isinstance(output, Mapping):
        return next((key for key, value in output.items() if isinstance(value, Tensor)), None)
    if isinstance(output, (tuple, list)):
        return next((place for place, value in enumerate(output) if isinstance(value, Tensor)), None)
    if is_dataclass(output):
        return next((one.name for one in fields(output) if isinstance(getattr(output, one.name), Tensor)), None)
    return None


def _get(output: Any, which: int | str | None) -> Any:
    if which is None:
        return output
    if isinstance(output, Mapping) and isinstance(which, int):
        return [*output.values()][which]
    return output[which] if isinstance(which, int) or isinstance(output, Mapping) else getattr(output, which)


def _told(output: Any) -> str:
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of ({', '.join(type(one).__name__ for one in output)})"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    return f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__


def _close(x: Tensor, y: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two tensors are equal to `tolerance` of the larger's largest value."""
    largest = max(float(x.abs().max()), float(y.abs().max()), 1e-30)
    return float((x - y).abs().max()) <= tolerance * largest


__all__ = ["Pool", "Prefix", "Step", "Tokens", "TorchSystem"]
