"""Kinds of twins: how the next latent follows from this one and the next input, and behaviour from the latent."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_QUIETEST = 1e-3
"""Smallest scale of a unit, relative to the mean scale: what hardly varies is not blown up."""
_RIDGE = 1e-6
"""Ridge of least squares, relative to the mean square of the features: constant ones do no harm."""


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

    offset: Tensor
    scale: Tensor
    learning_rate: float
    """At the start of training, unless another one is asked for."""

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(n_units))
        self.register_buffer("scale", torch.ones(n_units))
        self.readout = nn.Sequential(nn.Linear(n_units, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_classes))

    def adapt(self, latents: Tensor, before: Tensor, inputs: Tensor, after: Tensor) -> None:
        """Take scales, and what can be had in closed form, from recorded latents, before training.

        Parameters
        ----------
        latents : Tensor, shape (n_samples, n_units)
        before, after : Tensor, shape (n_pairs, n_units)
            Latents that follow one another.
        inputs : Tensor, shape (n_pairs, n_features)
            Of the second.
        """
        self.offset.copy_(latents.mean(dim=0))
        spread = latents.std(dim=0)
        self.scale.copy_(spread.clamp_min(_QUIETEST * spread.square().mean().sqrt().clamp_min(1e-12)))

    def forward(self, latents: Tensor, inputs: Tensor) -> Tensor:
        """The next latents, from `latents` (n, n_units) and the next `inputs` (n, n_features); shape (n, n_units)."""
        following: Tensor = self._next((latents - self.offset) / self.scale, inputs) * self.scale + self.offset
        return following

    def behaviour(self, latents: Tensor) -> Tensor:
        """Logits of the answers (n, n_classes) at `latents` (n, n_units)."""
        logits: Tensor = self.readout((latents - self.offset) / self.scale)
        return logits

    @abstractmethod
    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        """The next latents, in units of the scale."""


class GRUCell(Dynamics):
    """A GRU cell whose state is the latent. Latents beyond (-1, 1) are scaled into it, all units alike."""

    learning_rate = 1e-2

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.cell = nn.GRUCell(n_features, n_units)

    def adapt(self, latents: Tensor, before: Tensor, inputs: Tensor, after: Tensor) -> None:
        self.scale.fill_(max(1.0, float(latents.abs().max())))

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        return self.cell(inputs, scaled)


class Linear(Dynamics):
    """A linear function of latent and input. It starts at the least-squares solution for one step."""

    learning_rate = 1e-3

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.step = nn.Linear(n_units + n_features, n_units)

    def adapt(self, latents: Tensor, before: Tensor, inputs: Tensor, after: Tensor) -> None:
        super().adapt(latents, before, inputs, after)
        x = torch.cat([(before - self.offset) / self.scale, inputs], dim=1)
        weights = least_squares(x, (after - self.offset) / self.scale)
        with torch.no_grad():
            self.step.weight.copy_(weights[:-1].T)
            self.step.bias.copy_(weights[-1])

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        following: Tensor = self.step(torch.cat([scaled, inputs], dim=1))
        return following


class ResidualMLP(Linear):
    """What `Linear` says, plus what two hidden layers make of latent and input."""

    learning_rate = 3e-3

    def __init__(self, n_units: int, n_features: int, n_classes: int, n_hidden: int) -> None:
        super().__init__(n_units, n_features, n_classes, n_hidden)
        self.correction = nn.Sequential(
            nn.Linear(n_units + n_features, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_units),
        )
        last = self.correction[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _next(self, scaled: Tensor, inputs: Tensor) -> Tensor:
        both = torch.cat([scaled, inputs], dim=1)
        following: Tensor = self.step(both) + self.correction(both)
        return following


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Weights (n_features + 1, n_outputs), the last row a constant, that predict `y` (n, n_outputs) from `x` (n, n_features)."""
    design = torch.cat([x, x.new_ones(len(x), 1)], dim=1).double()
    gram = design.T @ design
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, design.T @ y.double()).to(y)


KINDS: dict[str, type[Dynamics]] = {"gru": GRUCell, "mlp": ResidualMLP, "linear": Linear}
"""Kinds of twins by name."""
