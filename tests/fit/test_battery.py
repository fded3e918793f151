"""Planted alignments that are valid, and planted ones that are not: the battery of controls tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment, lay_out
from neuromas.align.interchange import LinearMap
from neuromas.align.prepare import make_sides
from neuromas.evaluation.validity import Setting
from neuromas.fit.battery import Battery, summary
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitConfig
from neuromas.schema.system import SystemConfig
from neuromas.schema.validity import CHECKS
from neuromas.systems.capture import capture
from neuromas.systems.system import System

N_UNITS, N_TRIALS = 24, 60
QUICK = {"n_trials": N_TRIALS, "n_train_pairs": 300, "n_validation_pairs": 60, "batch_size": 64, "max_iterations": 40}
QUICK |= {"learning_rate": 0.03, "validate_every": 20, "rotation": "gram-schmidt", "allow_unsolved": True}


class Planted(System):
    """An automaton whose state is written into the latent by a code, times planted orthonormal columns.

    Parameters
    ----------
    toys : namespace of the fixture
    seed : int
        Of the columns.
    factored : bool
        Phase and count have components of their own. Otherwise each state has one.
    idle : bool
        A second copy of the state lies in other components, which nothing reads.
    known : set of bytes, optional
        Trials that are recorded rightly. In others, the count that is written is wrong.
    natural : bool
        Whether its initial weights do the task already.
    """

    layer = "state"

    def __init__(self, toys, name, seed, *, factored=False, idle=False, known=None, natural=False, automaton=None):
        self.toys, self.seed, self.factored, self.idle = toys, seed, factored, idle
        self.known, self.natural = known, natural
        self.device = torch.device("cpu")
        self.config = SystemConfig(name=name, task="toy", vocabulary=toys.Toy.vocabulary, n_units=N_UNITS, n_hidden=1)
        self.logits, self.leads = toys.automaton() if automaton is None else automaton
        n_counts = toys.most + 1
        state = torch.eye(toys.n_states).reshape(2, n_counts, toys.n_states)
        self.code = torch.cat([state.sum(dim=1), state.sum(dim=0)]).T if factored else torch.eye(toys.n_states)
        q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(N_UNITS, N_UNITS)))
        columns = torch.from_numpy(q.astype(np.float32))
        width = self.code.shape[1]
        self.columns, self.copy = columns[:, :width], columns[:, width : 2 * width]
        self.scale = float(np.random.default_rng(seed + 1).uniform(0.5, 2))

    def to(self, device):
        return self

    def untrained(self, seed):
        generator = torch.Generator().manual_seed(seed)
        n_tokens, n_states = len(self.config.vocabulary), self.toys.n_states
        goes = torch.randint(n_states, (n_tokens, n_states), generator=generator)
        random = torch.randn(n_states, n_tokens, generator=generator), torch.eye(n_states)[goes]
        automaton = (self.logits, self.leads) if self.natural else random
        return Planted(self.toys, self.name, seed, factored=self.factored, idle=self.idle, automaton=automaton)

    def latents(self, tokens):
        state = torch.zeros(len(tokens), self.toys.n_states)
        state[:, 0] = 1
        steps = []
        for column in tokens.clamp(min=0).T:
            state = torch.einsum("ns,nst->nt", state, self.leads[column])
            steps.append(state)
        states = torch.stack(steps, dim=1)
        if self.known is not None:
            new = [row[row >= 0].numpy().tobytes() not in self.known for row in tokens]
            states[new] = states[new].roll(1, dims=-1)
        written = states @ self.code
        latents = written @ self.columns.T
        return self.scale * (latents + written @ self.copy.T if self.idle else latents)

    def resume(self, latents, continuation, context=None):
        written = latents[continuation.order] @ self.columns / self.scale
        both = torch.einsum("np,nc->npc", written[:, :2], written[:, 2:]).flatten(1)
        state = both if self.factored else written
        seen, start = [state], 0
        for now, alive in pairwise(continuation.sizes):
            tokens = continuation.tokens[start : start + alive]
            state = torch.einsum("ns,nst->nt", state[:alive], self.leads[tokens])
            seen.append(state)
            start += now
        return torch.cat(seen) @ self.logits

    def map(self, columns):
        """The map that reads these columns."""
        return LinearMap(columns.T / self.scale, columns * self.scale, torch.zeros(N_UNITS))


def battery(systems, columns, ranks, toys, checks=CHECKS, oracles=None, n_pairs=150, **config):
    """Outcome and rows of the battery for the alignment that reads `columns` of each system."""
    names = [each.manifest.name if isinstance(each, Recording) else each.name for each in systems]
    method = "das" if len(systems) == 1 else "clmas" if any(isinstance(s, Recording) for s in systems) else "mas"
    fit = FitConfig(method=method, subspaces=ranks, **(QUICK | config))
    sides = make_sides(systems, model=toys.model, n_trials=fit.n_trials, allow_unsolved=True)
    alignment = Alignment(dict(zip(names, columns, strict=True)), lay_out(ranks))
    rows = Battery(alignment, fit, tuple(sides), oracles or {}, Setting(n_pairs=n_pairs)).checks(checks)
    return summary(rows)[0], rows


def pair(toys, seed, **options):
    return [Planted(toys, name, seed + place, **options) for place, name in enumerate("ab")]


def brain(system, toys):
    return capture(system, 150, model=toys.model, access="read", allow_unsolved=True, seed=5)


# ------------------------------------------------------------------------------------------------------------ valid ones


def whole_states(toys, seed, **options):
    systems = pair(toys, seed)
    return battery(systems, [s.map(s.columns) for s in systems], {"full": toys.n_states}, toys, **options)


def two_subspaces(toys, seed, **options):
    systems = pair(toys, seed, factored=True)
    return battery(systems, [s.map(s.columns) for s in systems], {"phase": 2, "count": toys.most + 1}, toys, **options)


def count_alone(toys, seed, **options):
    """Phase is not mapped; the interchange leaves it alone."""
    (system,) = pair(toys, seed, factored=True)[:1]
    return battery([system], [system.map(system.columns[:, 2:])], {"count": toys.most + 1}, toys, **options)


def beside_an_idle_copy(toys, seed, **options):
    """The subspace is the one that is used."""
    systems = pair(toys, seed, idle=True)
    return battery(systems, [s.map(s.columns) for s in systems], {"full": toys.n_states}, toys, **options)


def read_only(toys, seed, **options):
    systems = pair(toys, seed)
    maps = [s.map(s.columns) for s in systems]
    return battery([systems[0], brain(systems[1], toys)], maps, {"full": toys.n_states}, toys, **options)


def read_only_with_an_oracle(toys, seed, **options):
    systems = pair(toys, seed)
    maps = [s.map(s.columns) for s in systems]
    inputs = [systems[0], brain(systems[1], toys)]
    return battery(inputs, maps, {"full": toys.n_states}, toys, oracles={"b": systems[1]}, **options)


VALID = [whole_states, two_subspaces, count_alone, beside_an_idle_copy, read_only, read_only_with_an_oracle]


# ---------------------------------------------------------------------------------------------------------- invalid ones


def random_rotation(toys, seed, **options):
    systems = pair(toys, seed)
    q = [np.linalg.qr(np.random.default_rng(seed + 90 + i).normal(size=(N_UNITS, N_UNITS)))[0] for i in (0, 1)]
    columns = [torch.from_numpy(each[:, : toys.n_states].astype(np.float32)) for each in q]
    maps = [s.map(each) for s, each in zip(systems, columns, strict=True)]
    return battery(systems, maps, {"full": toys.n_states}, toys, **options)


def idle_copy(toys, seed, **options):
    """Present but not used: the subspace is a copy that nothing reads."""
    systems = pair(toys, seed, idle=True)
    return battery(systems, [s.map(s.copy) for s in systems], {"full": toys.n_states}, toys, **options)


def more_than_it_says(toys, seed, **options):
    """The subspace of count moves phase with it."""
    systems = pair(toys, seed, factored=True)
    order = [*range(2, 2 + toys.most + 1), 0, 1]
    maps = [s.map(s.columns[:, order]) for s in systems]
    return battery(systems, maps, {"count": toys.most + 3}, toys, **options)


def other_values(toys, seed, **options):
    """Each system with itself is right; between the two, the values have changed places."""
    systems = pair(toys, seed)
    turned = torch.roll(torch.arange(toys.n_states), 1 + seed % 4)
    maps = [systems[0].map(systems[0].columns), systems[1].map(systems[1].columns[:, turned])]
    return battery(systems, maps, {"full": toys.n_states}, toys, **options)


def recorded_trials_alone(toys, seed, **options):
    """Trials that are not in the recording are written wrongly."""
    plain = Planted(toys, "a", seed)
    trials = toys.model.sample(N_TRIALS, 0)
    known = {row[row >= 0].tobytes() for row in trials.tokens}
    system = Planted(toys, "a", seed, known=known)
    return battery([system], [plain.map(plain.columns)], {"full": toys.n_states}, toys, **options)


def architecture_alone(toys, seed, **options):
    """Untrained, the system does as well."""
    systems = pair(toys, seed, natural=True)
    return battery(
        systems,
        [s.map(s.columns) for s in systems],
        {"full": toys.n_states},
        toys,
        **({"max_iterations": 150} | options),
    )


def always_the_same(toys, seed, **options):
    """The behaviour does not depend on what is interchanged, and is always right."""
    logits, leads = toys.automaton()
    single = torch.zeros_like(logits)
    single[:, 4] = 1
    systems = pair(toys, seed, automaton=(single, leads))

    class Same(toys.Toy):
        def emit(self, state, generator):
            tokens, fixed = super().emit(state, generator)
            return tokens, fixed & (tokens == 4)

    twin = type("Namespace", (), {**vars(toys), "model": Same()})
    return battery(systems, [s.map(s.columns) for s in systems], {"full": toys.n_states}, twin, **options)


def read_only_other_values(toys, seed, **options):
    systems = pair(toys, seed)
    turned = torch.roll(torch.arange(toys.n_states), 1 + seed % 4)
    maps = [systems[0].map(systems[0].columns), systems[1].map(systems[1].columns[:, turned])]
    return battery([systems[0], brain(systems[1], toys)], maps, {"full": toys.n_states}, toys, **options)


INVALID = {
    random_rotation: "interchange",
    idle_copy: "interchange",
    more_than_it_says: "unmapped",
    other_values: "interchange",
    recorded_trials_alone: "fresh",
    architecture_alone: "untrained",
    always_the_same: "interchange",
    read_only_other_values: "interchange",
}
"""Planted case → the check that finds it."""

Case = Callable[..., tuple[str, Sequence]]


@pytest.mark.parametrize("case", [two_subspaces, count_alone, read_only_with_an_oracle], ids=lambda case: case.__name__)
def test_valid_alignments_survive(toys, case: Case):
    outcome, rows = case(toys, 100, max_iterations=12, n_pairs=80)
    assert outcome == "supported", [row.verdict for row in rows if row.outcome in ("failed", "undecided")]


@pytest.mark.parametrize(("case", "check"), INVALID.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_invalid_alignments_do_not(toys, case: Case, check: str):
    outcome, rows = case(toys, 100, checks=(check,), max_iterations=60)
    assert outcome == "not supported"
    assert check in {row.check for row in rows if row.outcome == "failed" and row.decides}


@pytest.mark.slow
def test_the_battery_tells_them_apart_in_nineteen_of_twenty(toys):
    right = [case(toys, 1000 + 10 * seed)[0] == "supported" for case in VALID for seed in range(10)]
    right += [case(toys, 1000 + 10 * seed)[0] == "not supported" for case in INVALID for seed in range(10)]
    assert np.mean(right) >= 0.95, np.reshape(right, (-1, 10)).mean(axis=1)
