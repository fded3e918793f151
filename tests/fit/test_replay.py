"""Iterations with fixed shapes against those of the loop; on a GPU, the graph of them against launching their kernels."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuromas.fit import loop
from neuromas.fit import replay as module
from neuromas.fit.fitters import CLMAS, DAS, MAS, Fitter, LatentStitch, Stitch, fit_together
from neuromas.fit.loop import Interrupted, init, step_together
from neuromas.fit.objective import token_totals, totals_in_order
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.replay import MOST, Replay, room
from neuromas.fit.start import start_maps
from neuromas.recordings.store.locate import shipped_store
from neuromas.systems.system import Capacity, Packed
from neuromas.systems.training import load_system

SMALL = {
    "preset": "paper",
    "n_trials": 80,
    "n_train_pairs": 100,
    "n_validation_pairs": 20,
    "batch_size": 24,
    "max_iterations": 9,
    "validate_every": 4,
    "schedule": "cosine",
    "learning_rate": 0.01,
}
BOTH = ["multi-object/gru-0", "multi-object/gru-1"]


def in_double(fitters: list[Fitter], systems: list, twice: int = 2):
    """Plans, and so many times the states at their start, every number in double precision."""
    for system in systems:
        if hasattr(system, "_network"):
            system._network.double()
            system._prepare()
    plans, states = [], [[] for _ in range(twice)]
    for fitter in fitters:
        sides = [replace(side, latents=side.latents.double()) for side in fit_sides(fitter.config, systems)]
        ready = prepare(fitter.config, systems, sides)
        plans.append(ready.plan)
        for own in states:
            own.append(init(ready.plan, {name: one.double() for name, one in start_maps(ready).items()}, None))
    return plans, states


def opened(*names: str, brain: str | None = None) -> list:
    systems = [load_system(name) for name in names]
    return systems if brain is None else [*systems, shipped_store().get(brain)]


def parameters(states) -> list[torch.Tensor]:
    return [value for state in states for value in state.maps.state_dict().values()]


CASES = {
    "mas": (BOTH, None, [MAS(4, **SMALL)]),
    "gram-schmidt": (BOTH, None, [MAS(4, **SMALL, rotation="gram-schmidt")]),
    "householder": (BOTH, None, [MAS(4, **SMALL, rotation="householder")]),
    "lstm": (["multi-object/lstm-0", "multi-object/gru-0"], None, [MAS(4, **SMALL)]),
    "subspaces": (BOTH, None, [MAS({"phase": 2, "count": 3}, **SMALL, loss_tokens="deterministic")]),
    "across tasks": (["multi-object/gru-0", "modulo/gru-0"], None, [MAS({"count": 4}, **SMALL)]),
    "stitch": (BOTH, None, [Stitch(4, **SMALL)]),
    "clmas": (BOTH[:1], "multi-object/gru-1", [CLMAS(4, **SMALL)]),
    "clmas, linear": (BOTH[:1], "multi-object/gru-1", [CLMAS(4, **SMALL, map="linear", rotation="cayley")]),
    "means of matches": (BOTH[:1], "multi-object/gru-1", [CLMAS(4, **SMALL, cl_matches=3)]),
    "drawn once": (BOTH[:1], "multi-object/gru-1", [CLMAS(4, **SMALL, cl_draw="fixed")]),
    "latent stitch": (BOTH[:1], "multi-object/gru-1", [LatentStitch(4, **SMALL)]),
    "several": (BOTH, None, [MAS(4, **SMALL), MAS(6, **SMALL | {"batch_size": 10}, seed=3)]),
    "several, of different loss": (BOTH, None, [MAS(4, **SMALL), MAS(4, **SMALL, loss_tokens="deterministic")]),
}


@pytest.mark.parametrize("case", CASES)
def test_iterations_are_those_of_the_loop(case):
    names, brain, fitters = CASES[case]
    plans, (one, other) = in_double(fitters, opened(*names, brain=brain))
    fixed = [loop.fixed_draws(plan) if plan.config.cl_draw == "fixed" else None for plan in plans]
    expected = [step_together(plans, one, fixed) for _ in range(7)]
    replay = Replay(plans, other, fixed)
    found = replay.run(3)
    for state in other:
        state.iteration += 3
    found += replay.run(4)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    for mine, its in zip(parameters(other), parameters(one), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-9, rtol=0)


def test_what_needs_more_room_is_computed_too(monkeypatch):
    plans, (one, other) = in_double([MAS(4, **SMALL)], opened(*BOTH))
    expected = [step_together(plans, one) for _ in range(4)]
    asked = []
    plain = Capacity.of
    monkeypatch.setattr(module, "room", lambda parts: [max(1, size // 2) for size in room(parts)])
    monkeypatch.setattr(Capacity, "of", lambda sizes, device: asked.append(sizes) or plain(sizes, device))
    found = Replay(plans, other, [None]).run(4)
    assert len(asked) == 2 + 4 * 2  # of both targets, and of each in every iteration
    np.testing.assert_allclose(found, expected, atol=1e-10)
    for mine, its in zip(parameters(other), parameters(one), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-9, rtol=0)


class TestTheLoop:
    """With iterations many at a time, as on a GPU, but each launched on the CPU."""

    @pytest.fixture(autouse=True)
    def _by_replay(self, monkeypatch):
        monkeypatch.setattr(loop, "replayable", lambda plans: True)

    def test_a_fit_is_what_it_is(self, cast, monkeypatch):
        found = cast.fit("clmas", max_iterations=37, validate_every=6, patience=99)
        monkeypatch.setattr(loop, "replayable", lambda plans: False)
        expected = cast.fit("clmas", max_iterations=37, validate_every=6, patience=99)
        assert [look.iteration for look in found.report.history] == [0, 6, 12, 18, 24, 30, 36, 37]
        for mine, its in zip(found.report.history, expected.report.history, strict=True):
            assert mine.loss == pytest.approx(its.loss, rel=1e-3)
            assert mine.train_loss == (None if its.train_loss is None else pytest.approx(its.train_loss, rel=1e-3))

    def test_progress_is_told_after_every_iteration(self, cast):
        told = []
        cast.fit("das", max_iterations=12, validate_every=5, patience=99, progress=told.append)
        assert [one.iteration for one in told] == list(range(1, 13))
        assert [one.validation.iteration for one in told] == [0] * 4 + [5] * 5 + [10, 10, 12]

    def test_not_more_than_the_tables_hold(self, cast):
        report = cast.fit("das", max_iterations=2 * MOST + 5, validate_every=1000, patience=99).report
        assert report.iterations == 2 * MOST + 5

    def test_interrupted_it_comes_to_the_same(self, cast, tmp_path):
        options = {"max_iterations": 23, "validate_every": 6, "patience": 99}
        whole = cast.fit("clmas", **options)

        def stop(now):
            if now.iteration == 8:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted):
            cast.fit("clmas", out=tmp_path, progress=stop, **options)
        again = cast.fit("clmas", out=tmp_path, **options)
        assert [look.model_dump() for look in again.report.history] == [
            look.model_dump() for look in whole.report.history
        ]
        assert again.alignment.sha256() == whole.alignment.sha256()

    def test_a_fit_that_diverges_leaves_the_others_alone(self):
        systems, told = opened(BOTH[0]), []
        common = SMALL | {"schedule": "constant", "validate_every": 9}
        fitters = [DAS(4, **common), DAS(4, **common | {"learning_rate": 1e30}, map="linear")]
        with pytest.raises(Exception, match="the loss of fit 1 became nan at iteration") as caught:
            fit_together(fitters, systems, progress=lambda number, one: told.append((number, one.iteration)))
        assert caught.value.kind == "diverged"
        assert [iteration for number, iteration in told if number == 0] == list(range(1, 10))
        last = max(iteration for number, iteration in told if number == 1)
        assert f"became nan at iteration {last}" in str(caught.value)


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=200), min_size=1, max_size=4), st.integers(1, 64))
def test_room_falls_and_is_never_more_than_there_can_be(lengths, size):
    parts = [(np.array(one), min(size, len(one))) for one in lengths]
    sizes = room(parts)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == max(map(max, lengths))
    every = sum(n for _, n in parts)
    assert sizes[0] == every
    for step, found in enumerate(sizes):
        assert 1 <= found <= sum(min(n, int((one > step).sum())) for one, n in parts)


def test_a_batch_seldom_needs_more_room():
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.08, 10_000).clip(max=60)
    sizes, n_wider = np.array(room([(lengths, 128)])), 0
    for _ in range(3000):
        drawn = rng.choice(lengths, 128, replace=False)
        n_wider += bool(((drawn[:, None] > np.arange(len(sizes))).sum(axis=0) > sizes).any())
    assert n_wider < 30
    assert sizes.sum() < 1.6 * 128 * lengths.mean()


@st.composite
def ragged(draw):
    lengths = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=8)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    tokens = rng.integers(0, 9, (len(lengths), 6))
    tokens[np.arange(6) >= lengths[:, None]] = -1
    return tokens, lengths, rng.random(tokens.shape) < 0.5


@given(ragged(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_capacity_holds_what_is_packed_on_the_host(arrays, more):
    tokens, lengths, fixed = arrays
    alive = (lengths[:, None] > np.arange(6)).sum(axis=0)
    sizes = np.maximum.accumulate(np.minimum(alive + more, len(lengths))[::-1])[::-1]
    sizes = sizes[sizes > 0]
    expected = Packed.from_sequences(tokens, lengths, fixed)
    found = Packed.at_capacity(*map(torch.from_numpy, (tokens, lengths, fixed)), Capacity.of(sizes.tolist()))
    assert torch.equal(found.order, expected.order)
    assert found.sizes == tuple(sizes)
    for name in ("tokens", "deterministic", "rows", "steps"):
        assert torch.equal(getattr(found, name)[found.counted], getattr(expected, name))
    assert not found.deterministic[~found.counted].any()
    assert (found.tokens >= 0).all()


@given(ragged(), st.integers(0, 1000), st.sampled_from(["all", "deterministic"]))
def test_totals_in_order_are_totals(arrays, seed, loss_tokens):
    tokens, lengths, fixed = arrays
    packed = Packed.from_sequences(tokens, lengths, fixed)
    rng = np.random.default_rng(seed)
    each, part = torch.from_numpy(rng.random(len(packed.tokens))), torch.from_numpy(rng.integers(0, 3, len(lengths)))
    counted = packed.deterministic.to(each) if loss_tokens == "deterministic" else torch.ones_like(each)
    found = totals_in_order(each * counted, counted, packed, part, 3)
    for mine, its in zip(found, token_totals(each, packed, part, 3, loss_tokens), strict=True):
        torch.testing.assert_close(mine, its)
    each[part[packed.rows] == 1] = torch.nan  # a fit that diverged leaves the others alone
    total, _ = totals_in_order(each * counted, counted, packed, part, 3)
    assert not total[[0, 2]].isnan().any()


# ------------------------------------------------------------------------------------------------------------- on a GPU

LONGER = SMALL | {"max_iterations": 30, "validate_every": 10, "patience": 99}


def history(result) -> list[float]:
    return [look.loss for look in result.report.history]


def cases():
    for case, (names, brain, fitters) in CASES.items():
        yield pytest.param(names, brain, [longer(one) for one in fitters], id=case)


def longer(fitter: Fitter) -> Fitter:
    more = {"max_iterations": 30, "validate_every": 10, "patience": 99}
    return Fitter.from_config(fitter.config.model_copy(update=more))


@pytest.mark.gpu
@pytest.mark.parametrize(("names", "brain", "fitters"), list(cases()))
def test_a_graph_is_its_kernels_launched_one_by_one(names, brain, fitters, monkeypatch):
    systems = opened(*names, brain=brain)
    recorded = []
    plain = Replay._recorded
    monkeypatch.setattr(Replay, "_recorded", lambda self: recorded.append(plain(self)) or recorded[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once, again = (fit_together(fitters, systems, device="cuda") for _ in range(2))
    assert len(recorded) == 2
    assert all(recorded)
    monkeypatch.setattr(loop, "replayable", lambda plans: False)
    launched = fit_together(fitters, systems, device="cuda")
    here = fit_together(fitters, systems)
    for one, same, other, cpu in zip(once, again, launched, here, strict=True):
        assert history(one) == history(same)  # to the last bit
        assert one.alignment.sha256() == same.alignment.sha256()
        np.testing.assert_allclose(history(one), history(other), rtol=1e-3)
        np.testing.assert_allclose(history(one), history(cpu), rtol=0.2)  # draws differ between devices


@pytest.mark.gpu
@pytest.mark.parametrize("fitter", [MAS(4, **LONGER), CLMAS(4, **LONGER)], ids=["mas", "clmas"])
def test_interrupted_on_a_gpu_it_comes_to_the_same(fitter, tmp_path):
    systems = opened(*BOTH) if fitter.method == "mas" else opened(BOTH[0], brain="multi-object/gru-1")
    whole = fitter.fit(systems, device="cuda")

    def stop(now):
        if now.iteration == 13:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fitter.fit(systems, device="cuda", out=tmp_path, progress=stop)
    again = fitter.fit(systems, device="cuda", out=tmp_path)
    assert history(again) == history(whole)
    assert again.alignment.sha256() == whole.alignment.sha256()


@pytest.mark.gpu
def test_on_a_gpu_a_fit_that_diverges_leaves_the_others_alone():
    common, told = LONGER | {"schedule": "constant"}, []
    fitters = [DAS(4, **common), DAS(4, **common | {"learning_rate": 1e30}, map="linear")]
    with pytest.raises(Exception, match="the loss of fit 1 became nan at iteration") as caught:
        fit_together(
            fitters, opened(BOTH[0]), device="cuda", progress=lambda number, one: told.append((number, one.iteration))
        )
    assert caught.value.kind == "diverged"
    assert [iteration for number, iteration in told if number == 0] == list(range(1, 31))


@pytest.mark.gpu
def test_a_graph_that_cannot_be_recorded_is_a_warning(monkeypatch):
    systems, fitter = opened(*BOTH), MAS(4, **LONGER)
    expected = fitter.fit(systems, device="cuda")
    plain = module.losses_together
    monkeypatch.setattr(  # asks the host, which cannot be recorded
        module, "losses_together", lambda *given, **named: [one for one in plain(*given, **named) if one.total.item()]
    )
    with pytest.warns(RuntimeWarning, match="could not be recorded as a CUDA graph") as told:
        found = fitter.fit(systems, device="cuda")
    assert len(told) == 1
    np.testing.assert_allclose(history(found), history(expected), rtol=1e-3)


@pytest.mark.gpu
def test_batches_that_need_more_room_on_a_gpu(monkeypatch):
    systems, fitter = opened(*BOTH), MAS(4, **LONGER)
    expected = fitter.fit(systems, device="cuda")
    monkeypatch.setattr(module, "room", lambda parts: [max(1, int(size / 1.2)) for size in room(parts)])
    launched = []
    plain = Replay._launch
    monkeypatch.setattr(Replay, "_launch", lambda self: launched.append(bool(self._wider)) or plain(self))
    found = fitter.fit(systems, device="cuda")
    assert any(launched)
    np.testing.assert_allclose(history(found), history(expected), rtol=1e-3)
