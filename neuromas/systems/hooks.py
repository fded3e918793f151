"""Read what a submodule gives while its module runs, or put something else in its place.

The output of a submodule may be a tensor, or a tuple, mapping or dataclass that holds one. A *place* says which part of it
counts: a position, a key or the name of an attribute; None stands for the output itself.

A hook changes the module that it is on. So a thread that hooks or freezes a module has it to itself: see `alone`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuromas.errors import InvalidInput

Hook = Callable[[nn.Module, Any, Any], Any]
"""(submodule, its arguments, its output) → what to use in place of the output; None to leave it."""


_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_MAKING_LOCKS = threading.Lock()


@contextmanager
def alone(module: nn.Module) -> Iterator[None]:
    """No other thread is inside `alone` with `module`, or with a module that shares a part with it."""
    with _MAKING_LOCKS:
        locks = [_LOCKS.setdefault(part, threading.RLock()) for part in module.modules()]
    with ExitStack() as held:
        # in one order for all threads, so that none waits for another that waits for it
        for lock in sorted(locks, key=id):
            held.enter_context(lock)
        yield


@contextmanager
def hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    """`hook` after each run of `module` by this thread."""
    thread = threading.get_ident()

    def only_here(module: nn.Module, args: Any, output: Any) -> Any:
        return hook(module, args, output) if threading.get_ident() == thread else None

    handle = module.register_forward_hook(only_here)
    try:
        yield
    finally:
        handle.remove()


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


def check_hookable(module: nn.Module, tap: str, where: str) -> None:
    """Raise InvalidInput unless Python runs the submodule `tap` of `module`, so that a hook on it is called."""
    part: Any = module
    for name in ("", *tap.split(".")):
        part = getattr(part, name) if name else part
        if isinstance(part, torch.jit.ScriptModule):
            raise InvalidInput(
                f"{where}: {type(part).__name__} is compiled by TorchScript, so what is inside cannot be read or put in place;"
                " expected the nn.Module that it was made from",
                kind="invalid_module",
            )
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            raise InvalidInput(
                f"{where}: {type(part).__name__} is compiled by torch.compile, which leaves out hooks; expected the module"
                " before it was compiled (of torch.compile(module) that is ._orig_mod)",
                kind="invalid_module",
            )


def first_tensor(output: Any) -> int | str | None:
    """The place of the first tensor in `output`; None if it is the output itself, or if there is none."""
    if isinstance(output, Mapping):
        return next((key for key, value in output.items() if isinstance(value, Tensor)), None)
    if isinstance(output, (tuple, list)):
        return next((place for place, value in enumerate(output) if isinstance(value, Tensor)), None)
    if is_dataclass(output):
        return next((field.name for field in fields(output) if isinstance(getattr(output, field.name), Tensor)), None)
    return None


def get_part(output: Any, place: int | str | None) -> Any:
    """What `output` holds at `place`; raises as its own look-up does if there is no such place."""
    if place is None:
        return output
    if isinstance(output, Mapping) and isinstance(place, int):
        return [*output.values()][place]
    return output[place] if isinstance(place, int) or isinstance(output, Mapping) else getattr(output, place)


def put_part(output: Any, place: int | str | None, tensor: Tensor) -> Any:
    """A copy of `output` that holds `tensor` at `place`."""
    if place is None:
        return tensor
    if isinstance(output, (tuple, list)):
        items = [*output]
        items[place if isinstance(place, int) else output._fields.index(place)] = tensor  # type: ignore[union-attr]
        return output._make(items) if hasattr(output, "_make") else type(output)(items)
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[[*output][place] if isinstance(place, int) else place] = tensor
        return changed
    return replace(output, **{str(place): tensor})


def describe_output(output: Any) -> str:
    """What `output` is, in a few words for an error message.

    Examples
    --------
    >>> import torch
    >>> describe_output(torch.ones(2, 3)), describe_output((torch.ones(1), None)), describe_output({"a": 1})
    ('(2, 3)', 'tuple of (Tensor, NoneType)', 'dict with a')
    """
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__} of ({', '.join(type(part).__name__ for part in output)})"
    if isinstance(output, Mapping):
        return f"{type(output).__name__} with {', '.join(map(str, output))}"
    return f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
