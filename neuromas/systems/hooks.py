"""Read what a submodule gives while its module runs, or put something else in its place.

The output of a submodule may be a tensor, or a tuple, mapping or dataclass that holds one. A *place* says which part of it
counts: a position, a key or the name of an attribute; None stands for the output itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

Hook = Callable[[nn.Module, Any, Any], Any]
"""(submodule, its arguments, its output) → what to use in place of the output; None to leave it."""


@contextmanager
def hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    """`hook` after each run of `module`."""
    handle = module.register_forward_hook(hook)
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
