"""The benchmarks run, and count the work they compare with as one would by hand; what they measure is never a test."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.bench import measure
from neuromas.bench.fit import bench_fit, bench_pairs, continuation_bytes, continuation_flops
from neuromas.bench.growth import Curve, bench_growth, draw_growth
from neuromas.bench.index import VARIABLES, bench_index, contenders, planted
from neuromas.bench.peers import peers
from neuromas.bench.schedule import bench_schedule
from neuromas.bench.store import bench_store, made
from neuromas.errors import InvalidInput
from neuromas.fit.fitters import DAS
from neuromas.fit.loop import init, step
from neuromas.fit.plan import batch_rows
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.start import start_maps
from neuromas.report.figures import png
from neuromas.schema.system import SystemConfig
from neuromas.systems.training import load_system


def test_the_work_of_a_continuation_is_counted_by_hand():
    config = SystemConfig(name="toy", task="toy", vocabulary=("a", "b"), n_units=3, n_hidden=5)
    # two sequences of 1 and 4 tokens: 5 readouts of 3 x 5 and 5 x 2, 3 cell steps of 3 x 9; twice: forward and gradient
    readouts, steps = 5 * 2 * (3 * 5 + 5 * 2), 3 * 2 * (3 * 9)
    assert continuation_flops(config, np.array([1, 4])) == 2 * (readouts + steps)
    # 5 tokens: 9 gates, 3 states, 5 hidden and 2 logits written and read, 3 gradients, 4 bytes each
    assert continuation_bytes(config, np.array([1, 4])) == 4 * 5 * (2 * (9 + 3 + 5 + 2) + 3)
    lstm = config.model_copy(update={"kind": "lstm", "n_units": 6})
    steps = 3 * 2 * (3 * 12)
    assert continuation_flops(lstm, np.array([1, 4])) == 2 * (readouts + steps)


@pytest.mark.parametrize("name", peers())
def test_a_peer_computes_the_loss_that_a_fit_starts_from(name):
    system = load_system("multi-object/gru-0")
    fitter = DAS(6, batch_size=32, n_trials=60, n_train_pairs=100, n_validation_pairs=20, learn_scale=False)
    ready = prepare(fitter.config, [system], fit_sides(fitter.config, [system]))
    state = init(ready.plan, start_maps(ready), None)
    (own,) = state.maps.values()
    columns = own.get_submodule("rotation")().detach().clone()
    theirs = peers()[name](system, ready.plan.train[0], columns, 1e-3)
    rows = batch_rows(100, 32, ready.plan.config.seed, 0, 0)
    expected = step(ready.plan, state)
    first, second = theirs(rows), theirs(rows)
    assert first == pytest.approx(expected, abs=1e-5)
    assert second < first


@pytest.fixture
def _quick(monkeypatch):
    once = measure.paired
    monkeypatch.setattr(
        "neuromas.bench.fit.paired", lambda work, reference, **_: once(work, reference, repeats=1, warm_up=0)
    )


@pytest.mark.usefixtures("_quick")
def test_every_benchmark_gives_rows():
    rows = [*bench_fit(batch_size=4, n_fits=2), *bench_pairs(n_pairs=20)]
    assert [row.unit for row in rows] == [
        *["GFLOP/s", "GB/s", "GFLOP", "GB", "ms"] * 3,
        *["ms"] * (len(peers()) + 1),
        "s",
    ]
    assert all(np.isfinite(row.value) and row.value > 0 for row in rows)
    for row in rows:
        if row.target is not None:
            assert row.met == ((row.value if row.ratio is None else row.ratio) <= row.target)


def test_the_ratio_is_that_of_the_times(monkeypatch):
    clock = iter(np.cumsum([0, 2, 0, 1, 0, 3, 0, 1]).tolist())  # work 2 s, reference 1 s; then 3 s and 1 s
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    ours, theirs, ratio = measure.paired(lambda: None, lambda: None, repeats=1, warm_up=1)
    assert (ours, theirs, ratio) == (3, 1, 3)


def test_rows_can_be_had_as_json():
    from neuromas.cli.verbs import app

    result = CliRunner().invoke(app, ["bench", "pairs", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert set(row) == {"name", "value", "unit", "against", "ratio", "target", "met"}


@pytest.mark.parametrize("contender", contenders(), ids=lambda one: one.name)
def test_every_contender_finds_samples_that_hold_the_values(contender):
    columns, activity = planted(4000, 3)
    assert np.isfinite(activity).all()
    values = np.stack(list(columns.values()), axis=1).astype(float)
    asked = values[np.random.default_rng(1).integers(0, len(values), 300)]
    lookup = contender.build(columns)
    once, again = lookup(asked), lookup(asked)
    np.testing.assert_array_equal(values[once], asked)
    assert (once != again).any()  # drawn, not the first that comes


def test_look_ups_are_compared_with_every_contender():
    rows = bench_index(n_samples=3000, n_units=4, batch_size=16)
    told = " ".join(row.against for row in rows)
    assert all(one.name in told for one in contenders())
    assert {row.target for row in rows} == {None, 1 / 0.7, 0.5, 0.02} | ({1.0} if "polars" in told else set())
    assert all(row.value > 0 and row.ratio > 0 for row in rows)


def test_a_recording_on_disk_is_made_of_different_blocks_and_queried():
    blocks = list(made(200, 3, block_samples=100))
    assert [block.n_samples for block in blocks] == [100, 100]
    assert not np.array_equal(blocks[0].activity, blocks[1].activity)
    assert set(np.concatenate([block.trial for block in blocks])) == set(range(10))
    assert all(set(VARIABLES) == set(block.variable_names) for block in blocks)
    rows = bench_store(n_samples=40_000, n_units=3, batch_size=8, n_queries=3)
    assert [row.target for row in rows if row.target is not None] == [50.0, 2.0]
    assert all(row.value > 0 for row in rows)


def test_growth_is_measured_and_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr("neuromas.bench.growth._stored", _few)
    rows, curves = bench_growth(most_samples=100_000, most_systems=4)
    assert {curve.sizes for curve in curves} == {(1e4, 1e5), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (2.0, 4.0)}
    assert all(cost > 0 for curve in curves for cost in curve.costs)
    assert len([row for row in rows if "power" in row.name]) == len(curves) == 8
    assert png(draw_growth(curves)).startswith(b"\x89PNG")


def test_a_slope_needs_two_sizes():
    with pytest.raises(InvalidInput, match="at least 100,000 samples"):
        bench_growth(most_samples=10_000)


def test_a_slope_is_that_of_the_larger_sizes():
    sizes = (1.0, 10.0, 100.0, 1000.0)
    assert Curve("x", "n", "s", sizes, (50.0, 50.0, 3e4, 3e6), 2).slope == pytest.approx(2)


def _few(n_samples: int) -> list:
    return bench_store(n_samples=20_000, n_units=2, n_queries=2)


@pytest.mark.parametrize("method", ["mas", "clmas"])
def test_schedules_are_held_against_the_papers(method):
    told = []
    rows = bench_schedule(method, iterations=40, rank=4, n_pairs=60, n_test=30, n_trials=60, report=told.append)
    assert told[0].name == "paper: constant 0.001, 40 × 512"
    assert told[0].iterations == 40
    assert {one.iterations for one in told[1:-1]} == {2}
    assert told[-1].name.startswith("L-BFGS")
    assert 1 <= told[-1].iterations <= 4  # a line search may look once more
    by_name = {row.name: row for row in rows}
    for one in told[1:]:
        row = by_name[f"{method}, {one.name}: iterations"]
        assert row.ratio == one.iterations / 40
        assert row.met == (row.ratio <= 1 / 20 and one.worst >= told[0].worst)
    with pytest.raises(InvalidInput, match="expected mas or clmas"):
        bench_schedule("das")
