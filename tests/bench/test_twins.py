"""The calibration of twins: its points, its table, its figure; and a system of which only some units are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from neuromas.bench import twins
from neuromas.bench.twins import (
    CASES,
    Case,
    Partly,
    Point,
    bench_twins,
    calibrate,
    draw_twins,
    points_table,
    read_points,
)
from neuromas.systems.system import Packed

POINT = Point("a → b", "clmas", "linear", 400, 0.9, 0.93, 0.91, 0.95, 0.02, "good", 0.99, 0.97, 0.98, "gru")


def test_tables_are_read_as_they_were_written(tmp_path):
    points = [POINT, replace(POINT, ceiling=None, verdict="poor")]
    path = tmp_path / "points.csv"
    path.write_text(points_table(points), encoding="utf-8")
    assert read_points(path) == points


def test_rows_say_how_far_the_estimate_is_from_the_truth():
    points = [POINT, replace(POINT, iia_twin=0.83), replace(POINT, case="c → d", verdict="poor")]
    good, poor = bench_twins(points)
    assert math.isclose(good.value, 0.05)
    assert "nothing is estimated" in poor.name
    (axes,) = draw_twins(points).axes
    assert sum(len(dots.get_offsets()) for dots in axes.collections if dots.get_offsets().shape[1] == 2) >= 3


def test_cases_have_names_of_their_own():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 12


def test_units_that_are_not_recorded_stay_as_they_are(toys):
    net = toys.make("net")
    units = np.array([0, 2, 3, 7])
    partly = Partly(net, units)
    trials = toys.model.sample(6, seed=0)
    tokens = torch.from_numpy(trials.tokens)
    whole = net.latents(tokens)
    torch.testing.assert_close(partly.latents(tokens), whole[..., units])
    rows, steps = np.arange(6), np.full(6, 2)
    packed = Packed.from_sequences(np.full((6, 1), 4), np.ones(6, int), np.ones((6, 1), bool))
    donated = whole[torch.from_numpy(rows[::-1].copy()), 3]
    expected = whole[torch.from_numpy(rows), 2].clone()
    expected[:, units] = donated[:, units]
    context = partly.context(tokens).at(rows, steps)
    torch.testing.assert_close(partly.resume(donated[:, units], packed, context), net.resume(expected, packed))


def test_a_case_is_calibrated_and_not_repeated(tmp_path, monkeypatch):
    case = Case("multi-object/gru-0", "multi-object/gru-1", n_trials=60)
    small = {"n_train_pairs": 60, "n_validation_pairs": 30, "n_trials": 60}
    fitter = twins.CLMAS

    def quick(rank, *, map, max_iterations):
        return fitter(rank, map=map, max_iterations=min(max_iterations, 2), **small)

    monkeypatch.setattr(twins, "CLMAS", quick)
    monkeypatch.setattr(twins, "_N_PAIRS", 40)
    options = {"max_iterations": 4, "validate_every": 4, "judge_kind": "linear", "kind": "linear"}
    points = calibrate([case], out=tmp_path, **options)
    assert [(point.map, point.iterations) for point in points] == [
        *(("linear", n) for n in (0, 2, 2)),
        *(("orthogonal", n) for n in (0, 2, 2)),
    ]
    assert all(0 <= point.iia <= 1 and point.low <= point.iia_twin <= point.high for point in points)
    monkeypatch.setattr(twins, "capture", lambda *_, **__: 1 / 0)
    assert calibrate([case], out=tmp_path, **options) == points
