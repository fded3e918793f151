"""The main job on real input: two GRUs that were trained apart, one of them treated as a brain that can only be read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from neuromas.actions.evaluate import evaluate
from neuromas.actions.fit import fit_all, sharing_systems
from neuromas.evaluation.accuracy import CONTROLS, scores_table
from neuromas.files import local_path, write_atomically
from neuromas.fit.progress import FitBar
from neuromas.fit.request import parse_request
from neuromas.fit.result import FitResult
from neuromas.recordings.store.locate import shipped_store
from neuromas.report.page import DemoPage, write_page
from neuromas.schema.actions import EvaluateRequest
from neuromas.schema.evaluation import DirectionScore, Evaluation
from neuromas.schema.fit import FitReport, FitRequest
from neuromas.systems.training import load_system

LIVE, BRAIN = "multi-object/gru-0", "multi-object/gru-1"
"""The system that runs, and the recording that is only read. A system of the same name is behind the recording."""

FITS, IIA, REPORT = "fits", "iia.csv", "report.html"
QUICK = ("latent-stitch", "clmas")
"""What ``quick`` fits."""


def requests(seed: int = 0, *, quick: bool = False) -> dict[str, FitRequest]:
    """Every fit of the demo, by the name it has in ``iia.csv``.

    Parameters
    ----------
    seed : int
        Decides every random number.
    quick : bool
        Only those in `QUICK`.
    """
    alone: dict[str, Any] = {"systems": [LIVE]}
    reading = {"systems": [LIVE], "read": [BRAIN], "store": str(shipped_store().path)}
    both = {"systems": [LIVE, BRAIN]}
    fits: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "stitch": ({"method": "stitch"}, reading),
        "latent-stitch": ({"method": "latent-stitch"}, reading),
        "das": ({"method": "das"}, alone),
        "mas": ({"method": "mas"}, both),
        "clmas": ({"method": "clmas"}, reading),
        "clmas-linear": ({"method": "clmas", "map": "linear"}, reading),
    }
    return {
        name: parse_request(
            {"config": {"preset": "fast", **config, "seed": seed}, **systems}, f"fit {name!r} of the demo"
        )
        for name, (config, systems) in fits.items()
        if not quick or name in QUICK
    }


def run_demo(
    out: str | Path, *, seed: int = 0, quick: bool = False, console: Console | None = None
) -> list[DirectionScore]:
    """Fit and evaluate every method, and write ``iia.csv``, ``report.html`` and a folder for each fit into `out`.

    An interrupted demo continues where it stopped when it is called again with the same `out`. Each fit in ``fits`` can be used
    like any other: `neuromas.reopen` opens it. The demo computes on one thread, so that its numbers do not depend on the number
    of threads.

    Parameters
    ----------
    out : path-like
    seed : int
    quick : bool
        Fit only the methods in `QUICK`, with the settings of the full demo.
    console : rich.console.Console, optional
        Where to print; standard error by default.

    Returns
    -------
    list of DirectionScore
        The rows of ``iia.csv``.
    """
    n_threads = torch.get_num_threads()
    # the matrices are small: a second thread gains little where a core is free, and costs time where none is
    torch.set_num_threads(1)
    try:
        return _run(local_path(out), seed, quick, console or Console(stderr=True))
    finally:
        torch.set_num_threads(n_threads)


def _run(out: Path, seed: int, quick: bool, console: Console) -> list[DirectionScore]:
    started = time.monotonic()
    asked = requests(seed, quick=quick)
    _introduce(asked, quick, console)
    fits = _fit(asked, out / FITS, console)
    every = [score for evaluation in _evaluate(fits, out / FITS, seed) for score in evaluation.scores]
    scores = [score for method in (*CONTROLS, *fits) for score in every if score.method == method]
    write_atomically(out / IIA, scores_table(scores))
    sides = fits["clmas"].sides
    first, second = (side.name for side in sides)
    write_page(DemoPage(scores, fits, sides, first, second, time.monotonic() - started), out / REPORT)
    console.print(summary(scores, {name: fit.report for name, fit in fits.items()}, first, second))
    console.print(
        f"0→1 asks: does a value that is carried from {first} into {second} change what {second} does? To measure it, the"
        f" evaluation ran a copy of {second} (the oracle). The fits marked 'only read' never ran {second}.\n"
        f"Wrote [b]{out / REPORT}[/b], {out / IIA} and {out / FITS} in {time.monotonic() - started:.0f} s."
    )
    return scores


def _introduce(asked: Mapping[str, FitRequest], quick: bool, console: Console) -> None:
    brain = shipped_store().get(BRAIN)
    first, second = load_system(LIVE).name, brain.manifest.name
    console.print(
        f"[b]{first}[/b] is a network that can be run. [b]{second}[/b] is the recording of another network: {brain.n_samples}"
        f" samples x {brain.n_units} units. The fits only read it"
        + ("; MAS runs its network, and shows what is possible." if "mas" in asked else ".")
    )
    if quick:
        others = ", ".join(name for name in requests() if name not in asked)
        console.print(f"This is the quick demo, with fewer methods. The full demo also fits {others}.")


def _fit(asked: Mapping[str, FitRequest], out: Path, console: Console) -> dict[str, FitResult]:
    """Results in the order in which they were asked for; fits of the same systems run together."""
    results: dict[str, FitResult] = {}
    for group in sharing_systems(asked):
        results |= _fit_group(group, out, console)
    return {name: results[name] for name in asked}


def _fit_group(group: Mapping[str, FitRequest], out: Path, console: Console) -> dict[str, FitResult]:
    names = list(group)
    with FitBar([request.config for request in group.values()], ", ".join(names), names, console) as bar:
        results = fit_all(group, out, progress=lambda name, now: bar(names.index(name), now))
        bar.finish(f"iterations in {max(result.report.seconds for result in results.values()):.0f} s")
    return results


def _evaluate(fits: Mapping[str, FitResult], folder: Path, seed: int) -> Iterator[Evaluation]:
    """Scores of every fit; those of the controls, which are the same for every method, beside CLMAS."""
    for name, result in fits.items():
        read_only = [side.name for side in result.sides if side.system is None]
        request = EvaluateRequest(
            folder=str(folder / name),
            label=name,
            oracle=dict.fromkeys(read_only, BRAIN),
            controls=CONTROLS if name == "clmas" else (),
            seed=seed,
        )
        yield evaluate(request, result=result)


def summary(scores: list[DirectionScore], fits: Mapping[str, FitReport], first: str, second: str) -> Table:
    """The table that the demo prints: IIA of every method in each direction.

    Parameters
    ----------
    scores : list of DirectionScore
    fits : mapping of method to FitReport
        Of the methods that are no controls.
    first, second : str
        Names of the live system and of the one that is only read.
    """
    table = Table(title="IIA on held-out pairs", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "0→1", "95 % interval", "1→0", "0→0", "1→1", f"{second} (fit)"):
        table.add_column(name, justify="left" if name in ("method", f"{second} (fit)") else "right", no_wrap=True)
    cells = {(score.method, score.source, score.target): score for score in scores}
    directions = (first, second), (second, first), (first, first), (second, second)
    for method in dict.fromkeys(score.method for score in scores):
        row = [cells.get((method, *direction)) for direction in directions]
        iia = ["–" if score is None or score.iia is None else f"{score.iia:.3f}" for score in row]
        main = row[0]
        interval = "" if main is None or main.low is None else f"{main.low:.3f}–{main.high:.3f}"
        table.add_row(method, iia[0], interval, *iia[1:], _use_of(second, fits.get(method)))
    return table


def _use_of(system: str, report: FitReport | None) -> str:
    """What a fit did with `system`; empty for a control."""
    if report is None:
        return ""
    if system not in [entry.name for entry in report.inputs]:
        return "not used"
    return "run" if system in report.ran else "only read"
