"""A causal model that never ends is told, not waited for."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.causal.counting import MultiObject
from neuromas.errors import InvalidInput


class Endless(MultiObject):
    name = "endless"
    max_steps = 50

    def emit(self, state, generator):
        return np.full(len(state), self.demos[0]), np.zeros(len(state), bool)


def test_a_sequence_without_end_is_an_error():
    with pytest.raises(InvalidInput, match="have not ended after 50 tokens; expected the end token 'E'"):
        Endless().sample(3, seed=0)
