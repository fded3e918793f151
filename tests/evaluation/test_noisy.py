"""Fits and scores of noisy, continuous and pooled recordings, against what was planted."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.evaluation.accuracy import evaluate
from neuromas.fit.fitters import LatentStitch
from neuromas.recordings.pseudo import pool
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled

N_VALUES, N_UNITS = 6, 12
MEANS = np.random.default_rng(7).normal(size=(N_VALUES, N_UNITS))
TURN = np.linalg.qr(np.random.default_rng(8).normal(size=(N_UNITS, N_UNITS)))[0]


def noisy(name, seed, noise=1.0, n_trials=900, turn=None):
    generator = np.random.default_rng(seed)
    values = generator.integers(N_VALUES, size=n_trials)
    means = MEANS if turn is None else MEANS @ turn
    return Recording.from_arrays(
        means[values] + noise * generator.normal(size=(n_trials, N_UNITS)),
        {"n": values},
        name=name,
        activity_units="Hz",
    )


def stitched(source, target, **options):
    settings = {"solver": "closed-form", "n_train_pairs": 2000, "n_validation_pairs": 200, "cl_terms": "l2", **options}
    result = LatentStitch(direction=("source", "target"), **settings).fit([source, target])
    found = evaluate(result.alignment, result.sides, method="fit", directions=[("source", "target")], n_pairs=1500)
    return result, found, {score.method: score for score in found.scores}


def test_the_ceiling_is_what_the_planted_means_would_reach():
    _, _, scores = stitched(noisy("source", 0), noisy("target", 1, turn=TURN))
    # a held-out value has about 900 · 0.2 / 6 trials, each with noise of variance 1
    n = 900 * 0.2 / N_VALUES
    signal = MEANS - MEANS.mean(axis=0)
    per_unit = (signal**2).mean()
    noise = (1 / n) * (1 - 1 / N_VALUES)
    assert scores["fit"].pattern_ceiling == pytest.approx(np.sqrt(per_unit / (per_unit + noise)), abs=0.01)
    assert scores["fit"].pattern <= scores["fit"].pattern_ceiling + 0.01
    assert scores["fit"].pattern > 0.9
    assert abs(scores["none"].pattern) < 0.3
    # latents of other trials than those of the means: noise in both
    assert scores["cl-ceiling"].pattern <= scores["fit"].pattern_ceiling + 0.01


def test_chance_is_that_of_expectations_dealt_out_anew():
    _, _, scores = stitched(noisy("source", 0), noisy("target", 1, turn=TURN))
    assert scores["fit"].retrieval_chance == pytest.approx(1 / N_VALUES, abs=0.01)
    assert scores["none"].retrieval == pytest.approx(scores["none"].retrieval_chance, abs=0.04)
    assert scores["fit"].retrieval > 0.6


def test_shuffled_labels_teach_nothing():
    source, target = noisy("source", 0), noisy("target", 1, turn=TURN)
    result, _, _ = stitched(source, shuffled(target, seed=5))
    honest, _, _ = stitched(source, target)
    found = evaluate(result.alignment, honest.sides, method="shuffled", directions=[("source", "target")], n_pairs=1500)
    (score,) = [score for score in found.scores if score.method == "shuffled"]
    assert score.retrieval < score.retrieval_chance + 0.15
    assert score.pattern < 0.5


def test_means_of_matches_are_drawn_where_asked_for():
    source, target = noisy("source", 0, noise=2.0), noisy("target", 1, noise=2.0, turn=TURN)
    one, _, _ = stitched(source, target, max_iterations=40, solver="gradient", rank=12)
    many, _, _ = stitched(source, target, max_iterations=40, solver="gradient", cl_matches=25, rank=12)
    # the noise of a counterfactual latent is most of the loss; a mean of 25 has a 25th of it
    assert many.report.history[-1].loss < 0.75 * one.report.history[-1].loss
    assert many.report.config.cl_matches == 25


def test_continuous_values_within_a_tolerance():
    def track(name, seed, turn):
        place = np.random.default_rng(seed).uniform(0, 1, size=1500)
        waves = np.column_stack([np.cos(2 * np.pi * place), np.sin(2 * np.pi * place)])
        latents = waves @ np.eye(2, N_UNITS) @ turn
        return Recording.from_arrays(latents, {"place": place}, name=name)

    source, target = track("source", 1, np.eye(N_UNITS)), track("target", 2, TURN)
    with pytest.raises(InvalidInput, match="no value of 'full' in common"):
        stitched(source, target)
    result, found, scores = stitched(source, target, tolerances={"place": 0.02})
    assert all(misses.n_missed == 0 for misses in result.report.misses)
    assert scores["fit"].coverage == 1
    assert scores["fit"].retrieval > 0.9  # the nearest training latent lies within the tolerance
    assert scores["none"].retrieval < 0.15
    assert found.warnings == ()
    assert found.tolerances == {"source": {"place": 0.02}, "target": {"place": 0.02}}
    assert scores["fit"].retrieval_chance == pytest.approx(0.04, abs=0.01)  # a band of 0.04 of a length of 1


def test_a_pseudo_population_warns_in_every_result():
    days = [noisy("a", 1, turn=TURN).select_units([0, 1, 2]), noisy("b", 2, turn=TURN).select_units([3, 4, 5])]
    pooled = pool(days, ["n"], name="target")
    result, found, _ = stitched(noisy("source", 0), pooled, rank=4)
    for told in (result.report.warnings, found.warnings):
        assert len(told) == 1
        assert "target: units were not recorded together" in told[0]


def test_noise_alone_has_no_pattern():
    generator = np.random.default_rng(0)
    for seed in range(3):
        noise = [
            Recording.from_arrays(generator.normal(size=(240, 5)), {"n": generator.integers(4, size=240)}, name=name)
            for name in ("source", "target")
        ]
        result = LatentStitch(direction=("source", "target"), solver="closed-form", cl_terms="l2", seed=seed).fit(noise)
        (ceiling,) = [
            score
            for score in evaluate(result.alignment, result.sides, directions=[("target", "target")]).scores
            if score.method == "cl-ceiling"
        ]
        assert abs(ceiling.pattern) < 0.75  # 20 numbers correlated with 20


def test_controls_and_single_trials_are_told_in_results():
    source, target = noisy("source", 0), shuffled(noisy("target", 1, turn=TURN), seed=5)
    result, found, _ = stitched(source, target)
    for told in (result.report.warnings, found.warnings):
        assert any("target: this is a control: values shuffled between trials, seed 5: n (" in one for one in told)
    generator = np.random.default_rng(0)
    lone = Recording.from_arrays(generator.normal(size=(40, 12)), {"n": np.repeat(np.arange(20), 2)}, name="target")
    many = Recording.from_arrays(generator.normal(size=(400, 12)), {"n": np.repeat(np.arange(20), 20)}, name="source")
    result, _, _ = stitched(many, lone)
    assert any("combinations of values have a single training sample" in one for one in result.report.warnings)
    parts = next(one.n_by_part for one in result.report.inputs if one.name == "target")
    assert parts == {"train": 24, "validation": 8, "test": 8}
