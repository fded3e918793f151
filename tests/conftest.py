"""Options and markers of the suite, and planted systems: networks whose inner workings are known exactly."""

from __future__ import annotations

import os
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from neuromas.causal.model import PAD, CausalModel
from neuromas.schema.recording import VariableSpec
from neuromas.schema.system import SystemConfig
from neuromas.systems.system import Context, Packed, System

settings.register_profile("neuromas", deadline=None)  # how long a test takes says more of the machine than of the code
settings.load_profile("neuromas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take longer than half a minute")
    parser.addoption(
        "--fuzz", type=int, default=0, metavar="N", help="mutations of each format and document (tests/fuzz)"
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # the suite's matrices are small: threads only wait for each other
    if hasattr(config, "workerinput"):  # one of several processes: neither should those that it starts have threads
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="needs a GPU: torch.cuda.is_available() is False here")
    too_slow = pytest.mark.skip(reason="takes longer than half a minute: run with --slow")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(too_slow)
    # pages take the longest: with several processes, what begins first does not keep the others waiting at the end
    items.sort(key=lambda item: item.path.name != "test_docs.py")


MOST = 4
N_STATES = 2 * (MOST + 1)
"""Combinations of phase (2) and count (0..MOST)."""
N_EVER = 2 * MOST
"""Combinations that an eligible sample can hold: demo 1..MOST, response 0..MOST-1."""


class Toy(CausalModel):
    """A small counting task that a user might declare: ``B D1 D2 T R R E``, quantities 1..4."""

    name = "toy"
    vocabulary = ("B", "D1", "D2", "T", "R", "E")
    variables = (
        VariableSpec(name="phase", type="categorical", values=(0, 1), meanings=("demo", "response")),
        VariableSpec(name="count", type="integer", values=tuple(range(MOST + 1))),
    )
    begin, end = 0, 5

    def start(self, n_trials, generator):
        state = np.zeros((n_trials, 3), dtype=np.int64)
        state[:, 2] = generator.integers(1, MOST, endpoint=True, size=n_trials)
        return state

    def emit(self, state, generator):
        demo = np.where(state[:, 2] > 0, generator.integers(1, 2, endpoint=True, size=len(state)), 3)
        return np.where(state[:, 0] == 0, demo, np.where(state[:, 1] > 0, 4, 5)), state[:, 0] == 1

    def transition(self, state, tokens):
        demo = (tokens == 1) | (tokens == 2)
        phase = np.where(tokens == 3, 1, state[:, 0])
        return np.column_stack([phase, state[:, 1] + demo - (tokens == 4), state[:, 2] - demo])

    def intervene(self, values, generator):
        room = np.where(values[:, 0] == 0, MOST - values[:, 1], 0)
        return np.column_stack([values, generator.integers(0, room, endpoint=True)])

    def possible(self, values):
        phase, count = values.T
        return np.where(phase == 0, (count >= 1) & (count <= MOST), (count >= 0) & (count < MOST))

    def eligible(self, tokens):
        return (tokens == 1) | (tokens == 2) | (tokens == 4)


def _number(phase: Any, count: Any) -> Any:
    return phase * (MOST + 1) + count


def _automaton() -> tuple[Tensor, Tensor]:
    """Logits of each state, (n_states, n_tokens), and where each token leads, (n_tokens, n_states, n_states)."""
    logits = torch.zeros(N_STATES, 6)
    leads = torch.eye(N_STATES).repeat(6, 1, 1)

    def lead(token: int, before: int, after: int) -> None:
        leads[token, before] = 0
        leads[token, before, after] = 1

    for count in range(MOST + 1):
        demo, response = _number(0, count), _number(1, count)
        logits[demo, 1:3] = 3.0 * (count < MOST)
        logits[demo, 3] = 3.0 * (count > 0)
        logits[response, 4 if count else 5] = 6.0
        for token in (1, 2):
            lead(token, demo, _number(0, min(count + 1, MOST)))
        lead(3, demo, response)
        if count:
            lead(4, response, response - 1)
    return logits, leads


LOGITS, LEADS = _automaton()


class Exact(System):
    """A system that solves `Toy` and whose latent is, exactly, ``scale * columns @ onehot(phase, count)``.

    Parameters
    ----------
    name : str
    columns : Tensor, shape (n_units, N_STATES)
        Orthonormal: the planted rotation.
    scale : float
    """

    def __init__(self, name: str, columns: Tensor, scale: float = 1.0) -> None:
        self.columns, self.scale = columns, scale
        self.device = torch.device("cpu")
        self.config = SystemConfig(name=name, task="toy", vocabulary=Toy.vocabulary, n_units=len(columns), n_hidden=1)
        self.n_resumed = self.n_recorded = 0

    @property
    def layer(self) -> str:
        return "state"

    def to(self, device):
        return self

    def latents(self, tokens):
        self.n_recorded += 1
        state = torch.zeros(len(tokens), N_STATES)
        state[:, 0] = 1
        steps = []
        for step in range(tokens.shape[1]):
            state = torch.einsum("ns,nst->nt", state, LEADS[tokens[:, step].clamp(min=0)])
            steps.append(state)
        return self.scale * torch.stack(steps, dim=1) @ self.columns.T

    def resume(self, latents, continuation, context=None):
        self.n_resumed += 1
        state = latents[continuation.order] @ self.columns / self.scale
        seen, start = [state], 0
        for now, alive in pairwise(continuation.sizes):
            tokens = continuation.tokens[start : start + alive]
            state = torch.einsum("ns,nst->nt", state[:alive], LEADS[tokens])
            seen.append(state)
            start += now
        return torch.cat(seen) @ LOGITS

    def solved(self, trials, batch_size=1000):
        """Tests count what a fit runs, not the check of accuracy before it."""
        counts = self.n_resumed, self.n_recorded
        solved = super().solved(trials, batch_size)
        self.n_resumed, self.n_recorded = counts
        return solved

    def outputs(self, tokens, lengths, *, n_tokens=None, batch_size=1000):
        """Nor the answers that a recording holds."""
        counts = self.n_resumed, self.n_recorded
        answers = super().outputs(tokens, lengths, n_tokens=n_tokens, batch_size=batch_size)
        self.n_resumed, self.n_recorded = counts
        return answers


class Sums(Context):
    """Sum of all tokens up to a step, itself included."""

    def __init__(self, tokens: Tensor) -> None:
        self.sums = tokens.clamp(min=0).cumsum(dim=1)

    def at(self, trials, steps):
        return self.sums[torch.from_numpy(trials), torch.from_numpy(steps)]


class Remembering(Exact):
    """Like `Exact`, but resuming needs the sum of all earlier tokens, which the latent does not tell.

    Every latent is shifted by a vector that belongs to that sum. Whoever resumes without subtracting the right one gets
    nonsense: the shifts lie along the planted columns too.
    """

    def __init__(self, name: str, columns: Tensor, scale: float = 1.0) -> None:
        super().__init__(name, columns, scale)
        self.shifts = 4 * torch.randn(100, len(columns), generator=torch.Generator().manual_seed(7))

    def latents(self, tokens):
        return super().latents(tokens) + self.shifts[Sums(tokens).sums]

    def context(self, tokens):
        return Sums(tokens)

    def resume(self, latents, continuation, context=None):
        sums = torch.zeros(len(latents), dtype=torch.int64) if context is None else context
        return super().resume(latents - self.shifts[sums], continuation)


class Brain(Exact):
    """A system that can be recorded, once; whoever runs it again has broken the rules."""

    def resume(self, latents, continuation, context=None):
        raise AssertionError("a system that can only be read was run")

    def solved(self, trials, batch_size=1000):
        """A brain's trials are known: it has done them."""
        return np.ones(len(trials), dtype=bool)

    def outputs(self, tokens, lengths, *, n_tokens=None, batch_size=1000):
        """And what it answered was seen."""
        answers = (self.latents(tokens) @ self.columns / self.scale @ LOGITS).argmax(dim=2)
        return torch.where(torch.arange(tokens.shape[1]) < lengths[:, None], answers, PAD)


def _columns(n_units: int, seed: int) -> Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_units, N_STATES)))
    return torch.from_numpy(q.astype(np.float32))


def _exact(name: str, n_units: int = 12, seed: int = 0, scale: float = 1.0, kind: type[Exact] = Exact) -> Exact:
    return kind(name, _columns(n_units, seed), scale)


def _states(values: np.ndarray) -> Tensor:
    """One-hot (n, N_STATES) of (phase, count) rows."""
    return torch.eye(N_STATES)[torch.from_numpy(_number(values[:, 0], values[:, 1]).astype(np.int64))]


@pytest.fixture(scope="session")
def toys() -> SimpleNamespace:
    """Planted systems and their task; `make(name, n_units, seed, scale, kind)` plants one."""
    return SimpleNamespace(
        Toy=Toy,
        model=Toy(),
        Exact=Exact,
        Brain=Brain,
        Remembering=Remembering,
        make=_exact,
        columns=_columns,
        states=_states,
        automaton=_automaton,
        n_states=N_STATES,
        n_ever=N_EVER,
        most=MOST,
        pad=PAD,
        Packed=Packed,
    )
