"""Whether padding in front of trials shifts what a module makes of them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuromas.errors import NeuromasError
from neuromas.systems.inputs import Inputs
from neuromas.systems.torch_module import TorchSystem

POSITIONS = "position_ids"
"""Name of the input that says at which position each token stands, as in Hugging Face models."""
_TOLERANCE = 1e-3


def shifted_by_padding(system: TorchSystem, inputs: Inputs, activity: Tensor) -> bool:
    """Whether the module counts positions from the padding in front of a trial, so that latents depend on the batch.

    Parameters
    ----------
    system : TorchSystem
    inputs : Inputs
    activity : Tensor, shape (n_trials, n_units) or (n_trials, n_steps, n_units)
        The tap's output for `inputs`.
    """
    if inputs.present is None or inputs.present[:, :1].all() or POSITIONS in inputs.kwargs:
        return False
    present = torch.from_numpy(inputs.present)
    counted = (present.long().cumsum(dim=1) - 1).clamp(min=0)
    if not _takes_positions(system.module.forward):
        return any(_takes_positions(part.forward) for part in system.module.modules())
    try:
        placed = system.activity(replace(inputs, kwargs={**inputs.kwargs, POSITIONS: counted}))
    except NeuromasError:  # the module says that it takes positions, but not these
        return True
    if activity.shape[:2] == present.shape:
        here = present.to(activity.device)
        activity, placed = activity[here], placed[here]
    return float((placed - activity).abs().max()) > _TOLERANCE * max(float(activity.abs().max()), _TOLERANCE)


def _takes_positions(forward: Any) -> bool:
    try:
        return POSITIONS in inspect.signature(forward).parameters
    except (TypeError, ValueError):  # no signature
        return False


__all__ = ["shifted_by_padding"]
