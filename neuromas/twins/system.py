"""A twin as a system that can be resumed, in place of the one that it was learnt from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.schema.system import SystemConfig
from neuromas.schema.twin import TwinBehaviour, TwinInput
from neuromas.systems.system import Packed, System
from neuromas.twins.kinds import Dynamics


class TwinSystem(System):
    """A twin that runs on from a latent.

    Parameters
    ----------
    dynamics : Dynamics
    config : SystemConfig
        With the vocabulary that continuations are written in.
    of_inputs : tuple of TwinInput
    of_behaviour : TwinBehaviour
    longest : int
        Steps of the longest trial that it learnt from.
    device : str or torch.device

    Raises
    ------
    InvalidInput
        Its inputs or its behaviour are not tokens, so it cannot follow a continuation.
    """

    layer = "twin"
    horizon: int

    def __init__(
        self,
        dynamics: Dynamics,
        config: SystemConfig,
        of_inputs: tuple[TwinInput, ...],
        of_behaviour: TwinBehaviour,
        longest: int,
        device: str | torch.device = "cpu",
    ) -> None:
        names = [entry.name for entry in of_inputs]
        if names != [dims.TOKEN] or not of_behaviour.tokens:
            raise InvalidInput(
                f"the twin of {config.name!r} cannot follow a sequence of tokens: its inputs are {', '.join(names) or 'none'}"
                f" and its behaviour is {of_behaviour.name!r}; expected the inputs 'token' and the system's own outputs",
                kind="no_tokens",
            )
        self.config, self.device = config, torch.device(device)
        self.horizon = longest
        self._dynamics = dynamics.to(self.device)
        # features of each token: one-hot
        self._inputs = torch.eye(len(of_inputs[0].codes or ()), device=self.device)

    def latents(self, tokens: Tensor) -> Tensor:
        raise InvalidInput(
            f"{self.name!r} is a twin: it goes on from recorded latents and makes none of its own, so it cannot be recorded",
            kind="not_recordable",
        )

    def to(self, device: str | torch.device) -> System:
        self.device = torch.device(device)
        self._dynamics.to(self.device)
        self._inputs = self._inputs.to(self.device)
        return self

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        sizes = continuation.sizes
        if len(sizes) > self.horizon:
            raise InvalidInput(
                f"the twin of {self.name!r} was asked to run {len(sizes)} steps, but the longest trial that it learnt from has"
                f" {self.horizon}",
                kind="beyond_longest",
            )
        tokens = continuation.tokens.split(list(sizes))
        state = latents[continuation.order][: sizes[0]]
        states = [state]
        for step, size in enumerate(sizes[1:]):
            state = self._dynamics(state[:size], self._inputs[tokens[step][:size]])
            states.append(state)
        return self._dynamics.behaviour(torch.cat(states))
