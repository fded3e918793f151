"""The main job on real input: two independently trained GRUs, one of them treated as a brain that can only be read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from neuromas.align.side import Side
from neuromas.evaluate.accuracy import CONTROLS, scores_table
from neuromas.files import write_atomically
from neuromas.fit.fitters import CLMAS, DAS, MAS, Fitter, LatentStitch, Stitch
from neuromas.fit.result import FitResult
from neuromas.progress import Bar
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import shipped_store
from neuromas.report.page import DemoPage, write_page
from neuromas.schema.evaluation import DirectionScore, Evaluation
from neuromas.systems.system import System
from neuromas.systems.training import load_system

LIVE, BRAIN = "multi-object/gru-0", "multi-object/gru-1"
"""The system that runs, and the recording of the one that is only read (and, for the oracle, its weights)."""

IIA, REPORT = "iia.csv", "report.html"
RANK = 16


@dataclass(frozen=True)
class Job:
    """One method of the comparison: its fitter, and whether it may run the second system."""

    method: str
    fitter: Fitter
    runs_both: bool = False
    only_first: bool = False


def jobs(seed: int = 0) -> list[Job]:
    """Every fit of the demo, by the name it has in ``iia.csv``.

    All use the `full` variable at batch 128, 800 trials of each system that runs, one learning rate, and stop when validation
    is flat. Every random number comes from `seed`.
    """
    common: dict[str, Any] = {
        "preset": "paper",
        "batch_size": 128,
        "n_trials": 800,
        "learning_rate": 3e-3,
        "tolerance": 3e-3,
        "patience": 8,
        "seed": seed,
    }
    linear = {"map": "linear", "init": "closed-form", "epsilon": 3.0, "schedule": "cosine", "max_iterations": 600}
    return [
        Job("stitch", Stitch(max_iterations=1000, **common)),
        Job("latent-stitch", LatentStitch(max_iterations=1500, **common)),
        Job("das", DAS(RANK, max_iterations=1000, **common), only_first=True),
        Job("mas", MAS(RANK, max_iterations=600, **common), runs_both=True),
        Job("clmas", CLMAS(RANK, epsilon=0.85, max_iterations=4000, **common)),
        Job("clmas-linear", CLMAS(RANK, **common, **linear)),
    ]


def run_demo(out: str | Path, *, seed: int = 0, console: Console | None = None) -> list[DirectionScore]:
    """Fit and evaluate every method, and write ``iia.csv``, ``report.html`` and a directory per fit into `out`.

    Interrupted, it goes on where it was when called again with the same `out`. It computes on one thread, so that its numbers
    do not depend on how many there are.

    Parameters
    ----------
    out : path-like
    seed : int
    console : rich.console.Console, optional
        Where to tell what happens.

    Returns
    -------
    list of DirectionScore
        The rows of ``iia.csv``.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # matrices are small: a second thread gains little where a core is free, and costs where none is
    try:
        return _run(Path(out), seed, console or Console(stderr=True))
    finally:
        torch.set_num_threads(before)


def _run(out: Path, seed: int, console: Console) -> list[DirectionScore]:
    started = time.monotonic()
    first, oracle = load_system(LIVE), load_system(BRAIN)
    brain = shipped_store().get(BRAIN)
    second = brain.manifest.name
    console.print(
        f"[b]{first.name}[/b] is a network that can be run. [b]{second}[/b] is a recording: {brain.n_samples} samples x"
        f" {brain.n_units} units, access '{brain.manifest.access}'. No fit runs it, except MAS, which is the bound."
    )
    scores: list[DirectionScore] = []
    fits: dict[str, FitResult] = {}
    evaluations: dict[str, Evaluation] = {}
    sides: list[Side] = []
    for job in jobs(seed):
        systems: list[System | Recording] = [first] if job.only_first else [first, oracle if job.runs_both else brain]
        fits[job.method] = _fit(job, systems, out / "fits" / job.method, console)
    for job in jobs(seed):
        result = fits[job.method]
        alone = job.only_first or job.runs_both
        with_controls = job.method == "clmas"
        evaluations[job.method] = result.evaluate(
            method=job.method,
            oracles=None if alone else {second: oracle},
            controls=CONTROLS if with_controls else (),
            seed=seed,
        )
        write_atomically(out / "fits" / job.method / "evaluation.json", evaluations[job.method].to_json())
        if with_controls:
            sides = list(result.sides)
    for method in (*CONTROLS, *(job.method for job in jobs(seed))):
        scores += [score for one in evaluations.values() for score in one.scores if score.method == method]
    write_atomically(out / IIA, scores_table(scores))
    page = DemoPage(scores, fits, sides, first.name, second, time.monotonic() - started)
    write_page(page, out / REPORT)
    console.print(summary(scores, first.name, second))
    console.print(
        f"0→1 asks whether a value carried from {first.name} into {second} changes what {second} does. Only the"
        f" evaluation ran a copy of {second} (the oracle); the fits marked 'only read' never did.\n"
        f"Wrote [b]{out / REPORT}[/b], {out / IIA} and {out / 'fits'} in {time.monotonic() - started:.0f} s."
    )
    return scores


def _fit(job: Job, systems: list[System | Recording], folder: Path, console: Console) -> FitResult:
    with Bar(f"{job.method:14s}", job.fitter.config.max_iterations, console) as bar:
        result = job.fitter.fit(systems, out=folder, progress=lambda now: bar.update(now.iteration, str(now)))
        report = result.report
        bar.finish(report.iterations, f"iterations, {report.status}, {report.seconds:.0f} s")
    return result


def summary(scores: list[DirectionScore], first: str, second: str) -> Table:
    """The table that the demo prints: IIA of every method in each direction."""
    table = Table(title="IIA on held-out pairs", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "0→1", "95 % interval", "1→0", "0→0", "1→1", f"{second} (fit)"):
        table.add_column(name, justify="left" if name in ("method", f"{second} (fit)") else "right", no_wrap=True)
    cells = {(score.method, score.source, score.target): score for score in scores}
    for method in dict.fromkeys(score.method for score in scores):
        found = [
            cells.get((method, s, t)) for s, t in ((first, second), (second, first), (first, first), (second, second))
        ]
        told = ["–" if one is None or one.iia is None else f"{one.iia:.3f}" for one in found]
        main = found[0]
        interval = "" if main is None or main.low is None else f"{main.low:.3f}–{main.high:.3f}"
        access = {"das": "not used", "mas": "run"}.get(method, "" if method in CONTROLS else "only read")
        table.add_row(method, told[0], interval, *told[1:], access)
    return table
