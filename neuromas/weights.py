"""Tensors and optimiser states in safetensors files, which are never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from neuromas.errors import Corrupt

_MOMENTS = ("exp_avg", "exp_avg_sq")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text metadata of a safetensors file.

    Raises
    ------
    Corrupt
        `path` is not a complete safetensors file. It is never unpickled.
    """
    data = path.read_bytes()
    try:
        tensors = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise Corrupt(f"{path} is not a safetensors file, or is damaged: {error}", kind="not_safetensors") from error
    return tensors, header.get("__metadata__") or {}


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file with copies of `tensors`, which may share memory or be on a GPU."""
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save_safetensors(copies, None if metadata is None else dict(metadata))


def adam_tensors(module: nn.Module, optimiser: torch.optim.Optimizer, separator: str = "/") -> dict[str, Tensor]:
    """The state of Adam for the parameters of `module`, by names such as ``adam/exp_avg/weight``.

    Parameters
    ----------
    module : nn.Module
    optimiser : torch.optim.Optimizer
    separator : str
        Between the parts of a name.

    Returns
    -------
    dict of str to Tensor
        Empty before the first update.
    """
    return {
        separator.join(("adam", moment, name)): value
        for name, parameter in module.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }


def restore_adam(
    module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], separator: str = "/"
) -> None:
    """Give Adam the state that `adam_tensors` took; parameters without one there are left as they are."""
    on_device = {
        parameter
        for group in optimiser.param_groups
        if group.get("capturable") or group.get("fused")
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        step = tensors.get(separator.join(("adam", "step", name)))
        if step is None:
            continue
        # the moments need the memory layout of the parameter, so that one kernel can update all of them
        moments = {
            moment: torch.empty_like(parameter.data).copy_(tensors[separator.join(("adam", moment, name))])
            for moment in _MOMENTS
        }
        optimiser.state[parameter] = {"step": step.to(parameter.device if parameter in on_device else "cpu"), **moments}
