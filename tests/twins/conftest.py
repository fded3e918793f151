"""Recordings of planted systems, and a twin of one."""

from __future__ import annotations

import pytest

from neuromas.systems.capture import capture
from neuromas.twins.twin import Twin

QUICK = {
    "kind": "gru",
    "judge_kind": "mlp",
    "n_twins": 2,
    "n_hidden": 32,
    "rollout": 10,
    "batch_size": 48,
    "max_iterations": 250,
    "validate_every": 125,
    "noise": 0.02,
}


@pytest.fixture(scope="session")
def quick():
    """Settings with which a planted system is learnt within seconds."""
    return QUICK


@pytest.fixture(scope="session")
def short():
    """Settings with which nothing is learnt, quickly."""
    return {**QUICK, "n_twins": 1, "max_iterations": 6, "validate_every": 3, "n_hidden": 8}


@pytest.fixture(scope="session")
def brain(toys):
    """A recording of a planted system, with the answers that it gave."""
    return capture(toys.make("brain", 14, seed=2, scale=1.5), 300, model=toys.model, seed=5, access="read")


@pytest.fixture(scope="session")
def twin(brain, toys):
    """A twin of `brain`."""
    return Twin.fit(brain, model=toys.model, **QUICK)
