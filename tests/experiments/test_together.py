"""Fits of a sweep that run together: which ones, and that each comes to what it comes to alone."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from neuromas.experiments import sweep as sweeps
from neuromas.experiments.attempts import Stopped
from neuromas.experiments.groups import grouped
from neuromas.experiments.jobs import EVALUATION, expand, finished, job_folder, read_fit
from neuromas.experiments.sweep import Ended, SweepRun, run_sweep
from neuromas.experiments.table import sweep_table
from neuromas.experiments.work import run_job, run_jobs
from neuromas.fit import request
from neuromas.fit.folder import CHECKPOINT
from neuromas.weights import read_safetensors

RANKS = {"subspaces.full": [2, 4, 8]}


def planned_jobs(tiny, *groups):
    return [planned.job for planned in expand(tiny.declared(*groups))]


def silent(number, iteration, most, message):
    """Hears everything, says nothing."""


@pytest.fixture
def n_together(monkeypatch):
    """How many fits went into each call of `together` that got several."""
    sizes = []
    plain = request.together

    def counted(configs, *args, **named):
        sizes.extend([len(configs)] if len(configs) > 1 else [])
        return plain(configs, *args, **named)

    monkeypatch.setattr(request, "together", counted)
    return sizes


# ------------------------------------------------------------------------------------------------------------- which fits


def test_fits_of_the_same_systems_form_groups_and_workers_stay_busy(tiny):
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS, systems=[[tiny.first], [tiny.second]]))
    assert grouped(jobs, 1) == [[0, 2, 4], [1, 3, 5]]
    assert grouped(jobs, 2) == [[0, 2, 4], [1, 3, 5]]
    assert grouped(jobs, 3) == [[0, 2], [1, 3], [4], [5]]
    assert grouped(jobs, 6) == grouped(jobs, 100) == [[number] for number in range(6)]


def test_no_group_is_larger_than_a_workers_share_of_the_work(tiny):
    longer = tiny.group("longer", config={"max_iterations": 90})
    jobs = planned_jobs(tiny, longer, tiny.group("a", axes=RANKS))
    assert grouped(jobs, 1) == [[0, 1, 2, 3]]
    assert grouped(jobs, 2) == [[0], [1, 2, 3]]


@pytest.mark.parametrize(
    ("method", "batch_size", "on_cpu", "sizes"),
    [
        ("das", 512, True, [2, 1]),
        ("das", 1024, True, [1, 1, 1]),
        ("mas", 512, True, [1, 1, 1]),
        ("mas", 256, True, [2, 1]),
        ("mas", 512, False, [3]),
    ],
)
def test_large_batches_fill_a_processor_by_themselves(tiny, method, batch_size, on_cpu, sizes):
    systems = [[tiny.first]] if method == "das" else [[tiny.first, tiny.second]]
    group = tiny.group("a", method, systems=systems, axes=RANKS, config={"batch_size": batch_size})
    assert [len(numbers) for numbers in grouped(planned_jobs(tiny, group), 1, on_cpu=on_cpu)] == sizes


def test_what_stays_alone(tiny):
    both = {"systems": [[tiny.first, tiny.second]], "read": [1]}
    measure = {"label": "rsa", "measure": "rsa", "systems": [[tiny.first, tiny.second]]}
    closed = tiny.group("closed", "latent-stitch", config={"solver": "closed-form"}, axes=RANKS, **both)
    assert grouped(planned_jobs(tiny, closed, measure), 1) == [[0], [1], [2], [3]]
    # a system that is only read is recorded on the trials of the fit's seed
    seeds = tiny.group("seeds", "clmas", axes={"seed": [0, 1], **RANKS}, **both)
    assert grouped(planned_jobs(tiny, seeds), 1) == [[0, 1, 2], [3, 4, 5]]
    runs = tiny.group("runs", "clmas", axes={"seed": [0, 1]}, systems=both["systems"])
    assert grouped(planned_jobs(tiny, runs), 1) == [[0, 1]]
    assert grouped(planned_jobs(tiny, runs, tiny.group("r", "clmas", **both)), 1) == [[0, 1], [2]]
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS))
    assert grouped(jobs, 1, alone={jobs[1].identity()}) == [[0, 2], [1]]


def test_a_group_whose_workers_are_killed_is_tried_again_one_by_one(tiny, tmp_path):
    planned = expand(tiny.declared(tiny.group("a", axes=RANKS)))
    run = SweepRun(tiny.declared(tiny.group("a", axes=RANKS)), tmp_path)
    state = sweeps._State(run, planned, {}, ["cpu"])
    (item,) = state.ready()
    assert len(item.jobs) == 3
    state.end(item, Ended.all_with(item, "killed", killed=True))
    assert run.problems == {}
    again = state.ready()
    assert [one.names for one in again] == [(name,) for name in item.names]
    state.end(again[0], Ended.all_with(again[0], "killed", killed=True))
    assert run.problems == {item.names[0]: "killed"}
    assert state.ready() == []


# ------------------------------------------------------------------------------------------------------- what comes of them


@pytest.mark.parametrize("read", [(), (1,)], ids=["run", "read"])
def test_each_comes_to_what_it_comes_to_alone(tiny, tmp_path, n_together, read):
    systems = [[tiny.first, tiny.second]]
    ranks = tiny.group("ranks", "clmas", axes=RANKS, systems=systems, read=read)
    other = tiny.group("other", "clmas", systems=systems, read=read, config={"seed": 0 if read else 3, "epsilon": 0.5})
    sweep = tiny.declared(ranks, other)
    jobs = [planned.job for planned in expand(sweep)]
    assert run_jobs(jobs, tmp_path / "together", silent) == {}
    for job in jobs:
        run_job(job, tmp_path / "alone", lambda *progress: None)
    assert n_together == [4]
    for job in jobs:
        (report, scores), (alone, expected) = (
            read_fit(job_folder(tmp_path / name, job)) for name in ("together", "alone")
        )
        assert (report.identity, report.config, report.inputs) == (alone.identity, alone.config, alone.inputs)
        losses = [[seen.loss for seen in one.history] for one in (report, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        assert [s.iia for s in scores.scores] == pytest.approx([s.iia for s in expected.scores], abs=0.051)
    tables = [
        sweep_table(SweepRun(sweep, tmp_path / name, list(expand(sweep)), n_jobs=4)) for name in ("together", "alone")
    ]
    assert list(tables[0]) == list(tables[1])
    same = [column for column in tables[0] if tables[0][column].dtype.kind not in "fc"]
    pd.testing.assert_frame_equal(tables[0][same], tables[1][same])
    files = [
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")}
        for name in ("together", "alone")
    ]
    assert files[0] == files[1]


def test_what_is_finished_is_not_done_again(tiny, tmp_path, n_together):
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS))
    run_job(jobs[1], tmp_path, lambda *progress: None)
    before = {path: path.read_bytes() for path in job_folder(tmp_path, jobs[1]).iterdir() if path.is_file()}
    run_jobs(jobs, tmp_path, silent)
    assert n_together == [2]
    assert len(tiny.attempts(tmp_path)) == 3
    assert all(path.read_bytes() == text for path, text in before.items())
    (job_folder(tmp_path, jobs[0]) / EVALUATION).unlink()
    assert run_jobs(jobs, tmp_path, silent) == {}
    assert all(finished(tmp_path, job) for job in jobs)
    assert len(tiny.attempts(tmp_path)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e30, "rotation": "gram-schmidt"}, "the loss became nan at iteration"),
        ({"subspaces": {"full": 500}}, "rank 500 is larger than the width"),
    ],
)
def test_a_fit_that_fails_keeps_no_other_from_being_done(tiny, tmp_path, settings, message):
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS), tiny.group("bad", config=settings))
    problems = run_jobs(jobs, tmp_path, silent)
    assert set(problems) == {3}
    assert message in str(problems[3])
    assert [finished(tmp_path, job) for job in jobs] == [True, True, True, False]


def test_fits_that_were_stopped_go_on_from_their_checkpoints(tiny, tmp_path):
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS))
    expected = run_jobs(jobs, tmp_path / "whole", silent)

    def stop(number, iteration, most, message):
        if (number, iteration) == (1, 7):
            raise Stopped

    with pytest.raises(Stopped):
        run_jobs(jobs, tmp_path / "stopped", stop)
    assert len(list(tmp_path.glob(f"stopped/fits/*/{CHECKPOINT}"))) == 3
    assert run_jobs(jobs, tmp_path / "stopped", silent) == expected == {}
    for job in jobs:
        (report, scores), (whole, whole_scores) = (
            read_fit(job_folder(tmp_path / name, job)) for name in ("stopped", "whole")
        )
        assert report.alignment_sha256 == whole.alignment_sha256
        assert scores.scores == whole_scores.scores
    assert sorted(int(one["from_iteration"]) for one in tiny.attempts(tmp_path / "stopped")) == [0, 0, 0, 5, 5, 5]


def test_progress_is_that_of_each_job(tiny, tmp_path):
    jobs = planned_jobs(tiny, tiny.group("a", axes=RANKS))
    reported: list[tuple[int, int]] = []
    run_jobs(jobs, tmp_path, lambda number, iteration, most, message: reported.append((number, iteration)))
    assert reported[:6] == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert reported[-3:] == [(0, 10), (1, 10), (2, 10)]  # scoring


def test_a_worker_killed_in_mid_group_loses_no_more_than_since_its_last_checkpoint(tiny, tmp_path):
    pytest.importorskip("distributed", reason='sweeps need Dask: pip install "neuromas[sweep]"')
    config = {"max_iterations": 60, "patience": 10_000}
    sweep = tiny.declared(tiny.group("a", config=config, axes={"subspaces.full": [2, 4]}))
    folders = [job_folder(tmp_path, planned.job) for planned in expand(sweep)]
    kept: list[int] = []

    def reached(folder: Path) -> int:
        path = folder / CHECKPOINT
        return json.loads(read_safetensors(path)[1]["state"])["iteration"] if path.exists() else 0

    def kill() -> None:
        tiny.until(lambda: all(map(reached, folders)))
        (process,) = {int(one["process"]) for one in tiny.attempts(tmp_path)}
        os.kill(process, signal.SIGKILL)
        tiny.until(lambda: not tiny.alive(process))
        kept.extend(map(reached, folders))

    killer = threading.Thread(target=kill)
    killer.start()
    run = run_sweep(sweep, tmp_path, workers=1, console=Console(file=io.StringIO()))
    killer.join()
    assert run.problems == {}
    assert len(run.jobs) == 2
    for folder, iteration in zip(folders, kept, strict=True):
        attempts = [one for one in tiny.attempts(tmp_path) if one["fit"] == folder.name]
        assert [int(one["from_iteration"]) for one in attempts] == [0, iteration]
        assert 0 < iteration < 60
