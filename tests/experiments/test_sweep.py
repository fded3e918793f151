"""Sweeps with real worker processes: nothing done twice, killed, interrupted, failed, on a scheduler that is there already."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

pytest.importorskip("distributed", reason='sweeps need Dask: pip install "neuromas[sweep]"')

from distributed import LocalCluster

from neuromas.errors import InvalidInput
from neuromas.experiments import jobs
from neuromas.experiments import sweep as sweeps
from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.jobs import expand, read_fit, read_measure
from neuromas.experiments.reproduce import JobsFailed, reproduce
from neuromas.experiments.sweep import run_sweep
from neuromas.experiments.table import headline, paired, sweep_table
from neuromas.fit.fitters import Fitter
from neuromas.fit.folder import CHECKPOINT
from neuromas.report.figures import new_figure
from neuromas.systems.training import load_system
from neuromas.weights import read_safetensors

SCRIPT = Path(__file__).with_name("tiny_figure.py")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a cluster that somebody else keeps: one process, one thread."""
    scratch = tmp_path_factory.mktemp("dask")
    options = {"dashboard_address": ":0", "memory_limit": 0, "local_directory": str(scratch)}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        yield cluster.scheduler_address


def never(*_, **__):
    pytest.fail("a finished sweep needs no cluster")


def test_finished_jobs_are_never_repeated(tiny, scheduler, tmp_path, monkeypatch):
    das = tiny.group("das", systems=[[tiny.first], [tiny.second]])
    measured = {
        "label": "rsa",
        "measure": "rsa",
        "systems": [[tiny.first, tiny.second]],
        "config": {"n_samples": 100, "n_resamples": 2, "n_per_quantity": 2},
    }
    sweep = tiny.declared(das, measured)
    first = run_sweep(sweep, tmp_path, scheduler=scheduler, console=quiet())
    assert (first.n_done, first.problems, len(first.jobs)) == (3, {}, 3)
    assert len(tiny.attempts(tmp_path)) == 2
    report = read_measure(next(tmp_path.glob("measures/*")))
    assert len(report.values) == 2
    assert report.n_trials == 40

    # another figure that has one of these fits, twice, and a new one: only that is done
    again = tiny.declared(das, tiny.group("same"), tiny.group("new", config={"seed": 1}), figure="other")
    second = run_sweep(again, tmp_path, scheduler=scheduler, console=quiet())
    assert (second.n_done, len(second.jobs)) == (1, 4)
    assert len(tiny.attempts(tmp_path)) == 3

    monkeypatch.setattr(sweeps, "connected", never)
    third = run_sweep(sweep, tmp_path, console=quiet())
    assert (third.n_done, len(third.jobs)) == (0, 3)
    pd.testing.assert_frame_equal(sweep_table(third), sweep_table(first))


def test_fits_of_the_same_systems_are_compared_pair_by_pair(tiny, scheduler, tmp_path):
    groups = [tiny.group("one"), tiny.group("again"), tiny.group("two", config={"learning_rate": 0.0101})]
    groups.append(tiny.group("other pairs", config={"seed": 1}))
    run = run_sweep(tiny.declared(*groups), tmp_path, scheduler=scheduler, console=quiet())
    table = paired(run)
    assert {(row.first, row.second) for row in table.itertuples()} <= {("one", "two"), ("again", "two")}
    assert set(table["measure"]) == {"iia", "retrieval"}
    rows = sweep_table(run).query("trained")
    for row in table.query("measure == 'iia'").itertuples():
        here = rows[(rows["source"] == row.source) & (rows["target"] == row.target)].set_index("fit")["iia"]
        first, second = (
            here[fit] if isinstance(here[fit], float) else here[fit].iloc[0] for fit in (row.first_fit, row.second_fit)
        )
        assert row.difference == pytest.approx(first - second)


def test_workers_take_devices_in_turn(tiny, tmp_path, monkeypatch):
    """Two workers, one of them given a GPU that is not there: its fit says so, the other one's is done."""
    monkeypatch.setattr(sweeps, "check_device", lambda device: None)
    sweep = tiny.declared(tiny.group("das"), tiny.group("other", config={"seed": 1}))
    run = run_sweep(sweep, tmp_path, workers=2, devices=["cpu", "cuda:99"], console=quiet())
    assert len(run.jobs) == 1
    (problem,) = run.problems.values()
    assert "device 'cuda:99' cannot be used here" in problem
    report, _ = read_fit(next(path.parent for path in tmp_path.glob("fits/*/result.json")))
    assert report.provenance.notes.startswith("device cpu,")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"devices": []}, "at least one"),
        ({"devices": "cuda"}, "a list of devices"),
        ({"devices": ["cpu", "cuda:99"]}, "'cuda:99' cannot be used here"),
        ({"devices": ["cuda:0", "cuda:1"], "scheduler": "tcp://x"}, "one device beside a scheduler"),
        ({"devices": ["cpu", "cpu"], "workers": 1}, "nothing to do"),
    ],
)
def test_devices_that_cannot_be_and_nothing_is_left(tiny, tmp_path, options, told):
    sweep = tiny.declared(tiny.group("das"))
    figure = PaperFigure("tiny", "Tiny", lambda quick: sweep, lambda table: never(), lambda table: never())
    for run, what in ((run_sweep, sweep), (reproduce, figure)):
        with pytest.raises(InvalidInput, match=told):
            run(what, tmp_path / "f", console=quiet(), **options)
    assert not (tmp_path / "f").exists()


@pytest.mark.gpu
def test_a_sweep_on_a_gpu(tiny, tmp_path):
    run = run_sweep(tiny.declared(tiny.group("das")), tmp_path, devices=["cuda:0"], console=quiet())
    assert run.problems == {}
    report, _ = read_fit(next(tmp_path.glob("fits/*")))
    assert report.provenance.notes.startswith("device cuda:0,")


def test_a_failed_job_stops_no_other_and_is_tried_again(tiny, scheduler, tmp_path):
    wide = tiny.group("wide", config={"subspaces": {"full": 500}})  # more than a GRU has units
    sweep = tiny.declared(wide, tiny.group("das"))
    figure = PaperFigure("tiny", "Tiny", lambda quick: sweep, lambda table: never(), lambda table: never())
    for n_done in (1, 0):
        with pytest.raises(JobsFailed, match=r"1 of 2 jobs.*\n.*wide.*rank 500 is larger than the width") as raised:
            reproduce(figure, tmp_path, scheduler=scheduler, console=(console := quiet()))
        assert f"done in this run: {n_done}, failed: 1" in console.file.getvalue()
    assert raised.value.exit_code != 0
    table = pd.read_csv(tmp_path / "tiny/table.csv")
    assert set(table["label"]) == {"das"}
    failed = [path for path in tmp_path.glob("fits/*/error.txt") if "InvalidInput" in path.read_text()]
    assert len(failed) == 1
    assert len(tiny.attempts(tmp_path)) == 1


def test_a_figure_leaves_its_files_and_says_that_it_is_quick(tiny, scheduler, tmp_path):
    def declare(quick):
        return tiny.declared(tiny.group("das"), quick=quick, note="one fit <of> ten iterations" if quick else "")

    def draw(table):
        figure, axes = new_figure(4, 3)
        axes[0, 0].plot(headline(table)["iia"], "o")
        return figure

    said = [Claim("a claim", True, "0.5, as said")]
    figure = PaperFigure("tiny", "Tiny", declare, draw, lambda table: said)
    assert reproduce(figure, tmp_path, quick=True, scheduler=scheduler, console=quiet()) == said
    folder = tmp_path / "tiny-quick"
    assert {path.name for path in folder.iterdir()} == {
        *("table.csv", "phases.csv", "figure.png", "figure.svg", "claims.csv", "sweep.json")
    }
    with (folder / "claims.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["claim", "held", "detail"], ["a claim", "yes", "0.5, as said"]]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    drawing = (folder / "figure.svg").read_text()
    assert "quick: one fit" in drawing
    table = pd.read_csv(folder / "table.csv")
    assert table["quick"].all()
    phases = pd.read_csv(folder / "phases.csv")
    assert set(zip(phases["source_phase"], phases["target_phase"], strict=True)) == set(
        itertools.product(("demo", "response"), repeat=2)
    )
    assert set(phases["method"]) == {"das", "none"}
    for method, mine in phases.groupby("method"):
        (whole,) = table.loc[table["method"] == method, "iia"]
        assert (mine["iia"] * mine["n_pairs"]).sum() / 40 == pytest.approx(whole)
        assert mine["n_pairs"].sum() == 40
    reproduce(figure, tmp_path, console=quiet())  # the same fit: nothing to do
    assert "quick:" not in (tmp_path / "tiny" / "figure.svg").read_text()
    assert "quick: one fit" in (folder / "figure.svg").read_text()


def test_systems_that_are_not_there_are_trained_first(tiny, scheduler, tmp_path):
    limits = {"min_iterations": 2, "max_iterations": 4, "n_units": 16}
    systems = {"mine/gru-7": {"task": "multi-object", "seed": 7, **limits}}
    sweep = tiny.declared(tiny.group("das", systems=[["mine/gru-7"]], config={"allow_unsolved": True}), systems=systems)
    console = quiet()
    run = run_sweep(sweep, tmp_path, scheduler=scheduler, console=console)
    assert (run.n_done, run.problems) == (2, {})
    assert "mine/gru-7 reached a trial accuracy of only 0.0" in console.file.getvalue()
    system = load_system(tmp_path / "systems/mine/gru-7")
    assert (system.name, system.n_units, system.config.iterations) == ("gru-7", 16, 4)
    assert run.jobs[0].job.systems[0].weights_sha256 == system.config.weights_sha256
    assert set(sweep_table(run)["seeds"]) == {"7"}


def test_workers_with_several_threads_are_refused(tiny, tmp_path):
    options = {"dashboard_address": ":0", "processes": False, "n_workers": 1, "threads_per_worker": 2}
    with LocalCluster(**options) as cluster, pytest.raises(InvalidInput, match="--nthreads 1"):
        run_sweep(tiny.declared(tiny.group("das")), tmp_path, scheduler=cluster.scheduler_address, console=quiet())


def test_without_dask_the_message_says_how_to_get_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InvalidInput, match=r'pip install "neuromas\[sweep\]"'):
        run_sweep(tiny.declared(tiny.group("das")), tmp_path, console=quiet())


def test_a_worker_killed_in_mid_fit_loses_no_more_than_since_its_last_checkpoint(tiny, tmp_path):
    config = {"max_iterations": 200, "patience": 10_000, "learning_rate": 3e-3}
    sweep = tiny.declared(tiny.group("das", config=config))
    (planned,) = expand(sweep)
    folder = jobs.job_folder(tmp_path, planned.job)
    kept: list[int] = []

    def checkpoint() -> int:
        path = folder / CHECKPOINT
        return json.loads(read_safetensors(path)[1]["state"])["iteration"] if path.exists() else 0

    def kill() -> None:
        tiny.until(checkpoint)
        process = int(tiny.attempts(tmp_path)[0]["process"])
        assert process != os.getpid()
        os.kill(process, signal.SIGKILL)
        tiny.until(lambda: not tiny.alive(process))
        kept.append(checkpoint())

    killer = threading.Thread(target=kill)
    killer.start()
    run = run_sweep(sweep, tmp_path, workers=1, console=quiet())
    killer.join()
    assert run.problems == {}
    first, second = tiny.attempts(tmp_path)
    assert first["process"] != second["process"]
    assert 0 < kept[0] < 200
    # it went on exactly at the checkpoint that was there, so what is repeated is what came after that
    assert [int(one["from_iteration"]) for one in (first, second)] == [0, kept[0]]
    report, evaluation = read_fit(folder)
    whole = Fitter.from_config(planned.job.config).fit([load_system(tiny.first)])
    assert report.alignment_sha256 == whole.report.alignment_sha256
    assert report.history == whole.report.history
    assert evaluation.scores == whole.evaluate(n_pairs=40, controls=("none", "random", "wrong-variable")).scores
    assert not tiny.alive(int(second["process"]))


def test_ctrl_c_leaves_no_process_and_the_same_command_goes_on(tiny, tmp_path):
    out = tmp_path / "figures"
    command = [sys.executable, str(SCRIPT), "reproduce", "tiny", "--out", str(out), "--workers", "1"]
    options = {"env": tiny.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        tiny.until(lambda: process.poll() is not None or any(out.glob(f"fits/*/{CHECKPOINT}")))
        children = tiny.descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        printed, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "The same command goes on" in told
    assert "Traceback" not in told
    assert printed == ""
    assert children, "it had not begun"
    tiny.until(lambda: not any(tiny.alive(child) for child in children), 10)
    assert not (out / "tiny/table.csv").exists()

    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True, env=tiny.environment)
    assert done.returncode == 0, done.stderr
    by_fit: dict[str, list[int]] = {}
    for one in tiny.attempts(out):
        by_fit.setdefault(one["fit"], []).append(int(one["from_iteration"]))
    assert len(by_fit) == 2
    assert max(map(max, by_fit.values())) > 0, "it began anew"
    assert "IIA is a share yes" in " ".join(done.stdout.split())
    assert pd.read_csv(out / "tiny/table.csv")["fit"].nunique() == 2


@pytest.mark.slow
def test_a_main_process_that_is_killed_takes_its_workers_along(tiny, tmp_path):
    command = [sys.executable, str(SCRIPT), "reproduce", "tiny", "--out", str(tmp_path), "--workers", "1"]
    with subprocess.Popen(command, env=tiny.environment, stderr=subprocess.DEVNULL) as process:
        tiny.until(lambda: tiny.attempts(tmp_path))
        children = tiny.descendants(process.pid)
        process.kill()
    tiny.until(lambda: not any(tiny.alive(child) for child in children), 30)


@pytest.mark.slow
def test_a_scheduler_and_workers_that_somebody_started_by_hand(tiny, tmp_path):
    logs = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quietly = {"env": tiny.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = [*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(logs)]
    with subprocess.Popen(start, **quietly) as scheduler:
        try:
            tiny.until(logs.exists)
            address = json.loads(tiny.until(logs.read_text))["address"]
            join = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
            with subprocess.Popen([*join, "--local-directory", str(tmp_path)], **quietly) as worker:
                try:
                    out = tmp_path / "figures"
                    command = [sys.executable, str(SCRIPT), "reproduce", "tiny", "--quick", "--out", str(out)]
                    done = subprocess.run(
                        [*command, "--scheduler", address],
                        **{"env": tiny.environment, "capture_output": True, "text": True, "check": False},
                    )
                    assert done.returncode == 0, done.stderr
                    processes = {int(one["process"]) for one in tiny.attempts(out)}
                    assert processes <= tiny.descendants(worker.pid)
                finally:
                    worker.terminate()
        finally:
            scheduler.terminate()
