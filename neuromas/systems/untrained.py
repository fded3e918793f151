"""Weights as they were before any training, for controls: what does the architecture reach by itself?"""

from __future__ import annotations

import copy

import torch
from torch import nn

from neuromas import seeds


def untrained_module(module: nn.Module, seed: int) -> nn.Module:
    """A copy of `module` with initial weights.

    Layers that know how to initialise themselves do so. The entries of all other parameters are exchanged at random: they keep
    their scale and lose their structure.

    Parameters
    ----------
    module : torch.nn.Module
        It stays as it is.
    seed : int

    Examples
    --------
    >>> module = nn.Linear(2, 3)
    >>> bool((untrained_module(module, seed=1).weight == module.weight).any())
    False
    """
    fresh = copy.deepcopy(module)
    with torch.random.fork_rng(devices=_gpus(module)), torch.no_grad():
        torch.manual_seed(seeds.for_torch(seed))
        initial: set[int] = set()
        for part in fresh.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
                initial |= {id(parameter) for parameter in part.parameters(recurse=False)}
        for parameter in fresh.parameters():
            if id(parameter) not in initial:
                flat = parameter.flatten()
                parameter.copy_(flat[torch.randperm(len(flat), device=flat.device)].view_as(parameter))
    return fresh


def _gpus(module: nn.Module) -> list[torch.device]:
    return list({parameter.device for parameter in module.parameters() if parameter.is_cuda})
