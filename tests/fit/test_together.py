"""Fits at once against the same fits alone."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidInput
from neuromas.fit.fitters import CLMAS, DAS, MAS, Fitter, LatentStitch, fit_together
from neuromas.fit.loop import Interrupted, init, step, step_together
from neuromas.fit.plan import FitPlan, State
from neuromas.fit.prepare import OF_SIDES, fit_sides, prepare
from neuromas.fit.result import FitResult
from neuromas.fit.start import start_maps
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import shipped_store
from neuromas.schema.fit import FitConfig
from neuromas.systems.recurrent import GRU
from neuromas.systems.training import load_system
from neuromas.systems.transformer import Transformer

SMALL = {
    "preset": "paper",
    "n_trials": 60,
    "n_train_pairs": 60,
    "n_validation_pairs": 20,
    "batch_size": 12,
    "max_iterations": 7,
    "validate_every": 3,
}


@pytest.fixture(scope="module")
def networks():
    return [load_system(f"multi-object/gru-{seed}") for seed in (0, 1)]


def in_double(fitter: Fitter, systems: list) -> tuple[FitPlan, State]:
    """A fit whose every number is in double precision, at its start."""
    for system in systems:
        system._network.double()
        system._prepare()
    sides = [replace(side, latents=side.latents.double()) for side in fit_sides(fitter.config, systems)]
    ready = prepare(fitter.config, systems, sides)
    return ready.plan, init(ready.plan, {name: one.double() for name, one in start_maps(ready).items()}, None)


def test_each_comes_to_what_it_comes_to_alone():
    fitters = [
        MAS(4, **SMALL),
        MAS(8, **SMALL, seed=3),
        MAS(6, **SMALL, rotation="cayley", loss_tokens="deterministic"),
    ]
    fitters += [MAS({"phase": 2, "count": 3}, **SMALL, map="linear", init="closed-form")]
    systems = [load_system(f"multi-object/gru-{seed}") for seed in (0, 1)]
    alone = [in_double(fitter, systems) for fitter in fitters]
    together = [in_double(fitter, systems) for fitter in fitters]
    for _ in range(5):
        expected = [step(plan, state) for plan, state in alone]
        found = step_together([plan for plan, _ in together], [state for _, state in together])
        assert found == pytest.approx(expected, abs=1e-10)
    for (_, one), (_, other) in zip(alone, together, strict=True):
        for name, value in one.maps.state_dict().items():
            torch.testing.assert_close(other.maps.state_dict()[name], value, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("kind", "runs"), [(GRU, 1), (Transformer, 2)])
def test_a_frozen_network_is_run_once_for_all(kind, runs, monkeypatch):
    """But where it also needs what came before the latent, only fits on the same trials go together."""
    system = load_system(f"multi-object/{kind.__name__.lower()}-0")
    fitters = [DAS(4, **SMALL), DAS(6, **SMALL), DAS(4, **SMALL, seed=1)]
    known = {seed: fit_sides(DAS(4, **SMALL, seed=seed).config, [system]) for seed in (0, 1)}
    ready = [prepare(fitter.config, [system], known[fitter.config.seed]) for fitter in fitters]
    states = [init(one.plan, start_maps(one), None) for fitter, one in zip(fitters, ready, strict=True)]
    calls = []
    plain = kind.token_losses
    monkeypatch.setattr(
        kind, "token_losses", lambda *given, **named: calls.append(len(given[1])) or plain(*given, **named)
    )
    step_together([one.plan for one in ready], states)
    assert len(calls) == runs
    assert sum(calls) == 3 * SMALL["batch_size"]


def test_on_a_cpu_not_more_are_run_at_once_than_fit_its_cache(networks, monkeypatch):
    system = networks[0]
    fitters = [DAS(rank, **SMALL) for rank in (2, 3, 4, 5)]
    sides = fit_sides(fitters[0].config, [system])
    ready = [prepare(fitter.config, [system], sides) for fitter in fitters]
    starts = [[init(one.plan, start_maps(one), None) for one, fitter in zip(ready, fitters, strict=True)] for _ in "ab"]
    plans = [one.plan for one in ready]
    expected = step_together(plans, starts[0])
    calls = []
    plain = GRU.token_losses
    monkeypatch.setattr(GRU, "token_losses", lambda *given: calls.append(len(given[1])) or plain(*given))
    monkeypatch.setattr("neuromas.fit.objective._CPU_PAIRS", 20)
    assert step_together(plans, starts[1]) == pytest.approx(expected, rel=1e-5)
    assert calls == [24, 24]


def test_different_methods_on_a_network_and_a_brain(networks, tmp_path):
    systems = [networks[0], shipped_store().get("multi-object/gru-1")]
    fitters = [CLMAS(4, **SMALL), CLMAS(4, **SMALL, epsilon=0.3), LatentStitch(8, **SMALL)]
    told: list[tuple[int, int]] = []
    found = fit_together(
        fitters,
        systems,
        out=[tmp_path / "a", None, tmp_path / "c"],
        progress=lambda number, one: told.append((number, one.iteration)),
    )
    assert told == [(number, iteration) for iteration in range(1, 8) for number in range(3)]
    for fitter, one in zip(fitters, found, strict=True):
        alone = fitter.fit(systems)
        assert one.report.config == alone.report.config
        assert one.report.identity == alone.report.identity
        assert one.report.iterations == 7
        assert [seen.loss for seen in one.report.history] == pytest.approx(
            [seen.loss for seen in alone.report.history], rel=1e-3
        )
    assert found[0].alignment.sha256() != found[1].alignment.sha256()
    assert (tmp_path / "a" / "result.json").is_file()
    assert not list(tmp_path.rglob("checkpoint*"))
    again = fit_together(fitters[:1], systems, out=[tmp_path / "a"])
    assert again[0].report == found[0].report


def test_interrupted_fits_go_on(networks, tmp_path):
    fitters, folders = [DAS(4, **SMALL), DAS(8, **SMALL)], [tmp_path / "a", tmp_path / "b"]
    expected = fit_together(fitters, networks[:1])

    def stop(number: int, progress: object) -> None:
        if (number, progress.iteration) == (1, 4):
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        fit_together(fitters, networks[:1], out=folders, progress=stop)
    found = fit_together(fitters, networks[:1], out=folders)
    assert [one.alignment.sha256() for one in found] == [one.alignment.sha256() for one in expected]


def test_one_that_diverges_leaves_the_others_alone(networks, tmp_path):
    fitters = [DAS(4, **SMALL), DAS(4, **SMALL, learning_rate=1e30, rotation="gram-schmidt"), DAS(8, **SMALL)]
    folders = [tmp_path / name for name in "abc"]
    fit_together(fitters[:1], networks[:1], out=folders[:1])
    with pytest.raises(InvalidInput, match="the loss of fit 1 became nan at iteration"):
        fit_together(fitters, networks[:1], out=folders)
    alone = fitters[2].fit(networks[:1])
    assert FitResult.load(folders[2]).report.history[-1].loss == pytest.approx(alone.report.history[-1].loss, rel=1e-3)
    assert not (folders[1] / "result.json").exists()


def test_what_cannot_be_done_together(networks):
    with pytest.raises(InvalidInput, match="one folder for each of 1 fits, got 2"):
        fit_together([DAS(4, **SMALL)], networks[:1], out=["a", "b"])
    with pytest.raises(InvalidInput, match="two fits have the same folder"):
        fit_together([DAS(4, **SMALL), DAS(8, **SMALL)], networks[:1], out=["a", "a"])
    assert fit_together([], networks) == []


def test_a_closed_form_solution_beside_iterations(networks, tmp_path):
    systems = [networks[0], shipped_store().get("multi-object/gru-1")]
    fitters = [LatentStitch(8, **SMALL), LatentStitch(8, **SMALL, solver="closed-form")]
    results = fit_together(fitters, systems, out=[tmp_path / "gradient", tmp_path / "closed"])
    assert [result.report.status for result in results] == ["max_iterations", "closed_form"]
    assert results[1].alignment.sha256() == fitters[1].fit(systems).alignment.sha256()
    assert FitResult.load(tmp_path / "closed").report == results[1].report


def test_every_setting_that_sides_are_made_by_keeps_fits_apart():
    taken = set(inspect.signature(make_sides).parameters) - {"systems", "model", "mapping", "units", "device"}
    assert taken <= OF_SIDES
    assert set(FitConfig.model_fields) >= OF_SIDES


def test_fits_of_other_tolerances_are_not_mixed():
    generator = np.random.default_rng(0)
    recordings = [
        Recording.from_arrays(generator.normal(size=(300, 4)), {"x": generator.uniform(size=300)}, name=name)
        for name in ("a", "b")
    ]
    fitters = [
        LatentStitch(
            direction=("a", "b"),
            rank=2,
            tolerances={"x": width},
            n_train_pairs=60,
            n_validation_pairs=40,
            max_iterations=2,
        )
        for width in (0.5, 0.002)
    ]
    missed = [sum(one.n_missed for one in result.report.misses) for result in fit_together(fitters, recordings)]
    assert missed[0] == 0 < missed[1]
