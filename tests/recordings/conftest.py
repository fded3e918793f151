"""Recordings to plant and find again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from neuromas.recordings.recording import Recording
from neuromas.recordings.trust import trusting


@pytest.fixture
def in_process() -> Iterator[None]:
    """Files are read in this process, for tests that change what reads them."""
    with trusting(in_process=True):
        yield


def make(name: str = "toy", seed: int = 0, n_trials: int = 20, n_steps: int = 6, n_units: int = 5) -> Recording:
    """A recording with one of everything that a recording may hold."""
    rng = np.random.default_rng(seed)
    activity = rng.normal(size=(n_trials, n_steps, n_units)).astype(np.float32)
    activity[0, :, 1] = np.nan
    return Recording.from_arrays(
        activity,
        {
            "side": rng.choice(["lick left", "lick right"], n_trials),
            "count": rng.integers(0, 4, (n_trials, n_steps)),
            "load": rng.normal(size=n_trials).astype(np.float32),
        },
        name=name,
        system="planted",
        task="toy",
        lengths=rng.integers(2, n_steps + 1, n_trials),
        token=rng.choice(["BOS", "D", "R"], (n_trials, n_steps)),
        eligible=rng.random((n_trials, n_steps)) < 0.8,
        unit_metadata={
            "cell_type": [f"type {unit % 2}" for unit in range(n_units)],
            "depth": (np.arange(n_units) / 10, {"units": "mm"}),
        },
        sample_metadata={"session": np.array(["first", "second"])[np.arange(n_trials) % 2]},
        activity_units="Hz",
        missing=True,
        citation="Nobody (2020)",
        licence="CC0-1.0",
    )


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where that can be, since a store waits for the disk whenever it publishes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("store")
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="neuromas-") as path:
        yield Path(path)


@pytest.fixture
def planted() -> Callable[..., Recording]:
    """The maker of planted recordings."""
    return make
