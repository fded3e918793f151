"""Kinds of twins: how the next latent follows from this one and the next input, and behaviour from the latent."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_QUIETEST = 1e-3
"""Smallest scale of a unit, relative to the mean scale: what hardly varies is not blown up."""


class Dynamics(nn.Module, ABC):
    """A twin's equations.

    Parameters
    ----------
    n_units : int
        Width of the latent.
    n_features : int
        Width of the inputs.
    n_classes : int
        Number of answers.
    n_hidden : int
        Width of hidden layers.
    """

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(n_units))
        self.register_buffer("scale", torch.ones(n_units))
        self.readout = nn.Sequential(nn.Linear(n_units, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_classes))

    def adapt(self, latents: Tensor) -> None:
        """Take the scale of the units from recorded latents (n_samples, n_units), before training."""
        self.offset.copy_(latents.mean(dim=0))
        spread = latents.std(dim=0)
        self.scale.copy_(spread.clamp_min(_QUIETEST * spread.square().mean().sqrt().clamp_min(1e-12)))

    def forward(self, latents: Tensor, inputs: Tensor) -> Tensor:
        """The next latents, from `latents` (n, n_units) and the next `inputs` (n, n_features); shape (n, n_units)."""
        return self._next((latents - self.offset) / self.scale, inputs) * self.scale + self.offset

    def behaviour(self, latents: Tensor) -> Tensor:
        """Logits of the answers (n, n_classes) at `latents` (n, n_units)."""
        return self.readout((latents - self.offset) / self.scale)

    @abstractmethod
    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        """The next latents, in units of the scale."""


class GRUCell(Dynamics):
    """A GRU cell whose state is the latent. Latents beyond (-1, 1) are scaled into it, all units alike."""

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.cell = nn.GRUCell(n_features, n_units)

    def adapt(self, latents: Tensor) -> None:
        self.scale.fill_(max(1.0, float(latents.abs().max())))

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        return self.cell(inputs, scaled)


class ResidualMLP(Dynamics):
    """The latent plus what two hidden layers make of latent and input."""

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.change = nn.Sequential(
            nn.Linear(n_units + n_features, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_units),
        )

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        return scaled + self.change(torch.cat([scaled, inputs], dim=1))


class Linear(Dynamics):
    """A linear function of latent and input."""

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.step = nn.Linear(n_units + n_features, n_units)
        with torch.no_grad():
            self.step.weight.mul_(0.1)
            self.step.weight[:, :n_units] += torch.eye(n_units)

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        return self.step(torch.cat([scaled, inputs], dim=1))


KINDS: dict[str, type[Dynamics]] = {"gru": GRUCell, "mlp": ResidualMLP, "linear": Linear}
"""Kinds of twins by name."""
