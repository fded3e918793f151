"""Verbs about experiments: the demo, the paper's figures, benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from neuromas.cli import terminal
from neuromas.cli.options import Asked
from neuromas.cli.verbs import verb
from neuromas.errors import InvalidInput
from neuromas.schema.actions import BenchRequest, DemoRequest, ReproduceRequest
from neuromas.schema.document import Document, Shell

if TYPE_CHECKING:
    from neuromas.bench.measure import Row
    from neuromas.bench.schedule import Tried


class DemoFolder(Document):
    """Where the demo writes."""

    out: Annotated[str, Shell(metavar="DIR")] = "neuromas-demo"
    """Folder for results and report."""


class FiguresFolder(Document):
    """Where figures are written."""

    out: Annotated[str, Shell(metavar="DIR")] = "neuromas-figures"
    """Folder for systems, fits and figures. Figures share it."""


@verb(DemoRequest, DemoFolder)
def demo_(asked: Asked) -> None:
    """Interrupted, the same command goes on."""
    from neuromas.experiments.demo import run_demo

    request, place = asked.parse("demo")
    try:
        run_demo(Path(place.out), seed=request.seed, quick=request.quick, console=terminal.output())
    except KeyboardInterrupt:
        terminal.stop(f"Interrupted. The same command goes on from what {place.out} holds.")


@verb(ReproduceRequest, FiguresFolder, table=True)
def reproduce_(asked: Asked) -> None:
    """Writes table.csv, phases.csv (where the task has phases), paired.csv (paired tests), figure.png, figure.svg and claims.csv
    into DIR/FIGURE.

    A quick figure goes into DIR/FIGURE-quick.
    """
    from neuromas.experiments.figures import FIGURES
    from neuromas.experiments.reproduce import figure_folder, reproduce

    request, place = asked.parse("reproduce")
    if request.list or request.figure is None:
        if asked.as_json:
            terminal.show_json([{"figure": figure.name, "title": figure.title} for figure in FIGURES.values()])
            return
        figures = terminal.table("figure", "what")
        for figure in FIGURES.values():
            terminal.row(figures, figure.name, figure.title)
        terminal.show(figures)
        return
    if request.workers is not None and request.scheduler is not None:
        raise InvalidInput("reproduce: --workers is for this machine, --scheduler has its own", kind="invalid_option")
    out = Path(place.out)
    try:
        claims = reproduce(
            request.figure,
            out,
            quick=request.quick,
            workers=request.workers,
            scheduler=request.scheduler,
            devices=list(request.device),
            console=terminal.output(True),
        )
    except KeyboardInterrupt:
        terminal.stop(f"Interrupted. The same command goes on from what {out} holds.")
    if asked.as_json:
        terminal.show_json([{"claim": claim.claim, "held": claim.held, "detail": claim.detail} for claim in claims])
        return
    table = terminal.table("claim", "held", "detail")
    for claim in claims:
        terminal.row(table, claim.claim, "yes" if claim.held else "no", claim.detail)
    terminal.show(table)
    terminal.say(f"wrote {terminal.contents(figure_folder(out, request.figure, request.quick))}")


@verb(BenchRequest, table=True)
def bench_(asked: Asked) -> None:
    from dataclasses import asdict

    (request,) = asked.parse("bench")
    if request.device != "cpu" and request.what not in ("fit", "index", "schedule"):
        raise InvalidInput(
            f"bench {request.what} measures the CPU; --device goes with fit, index and schedule", kind="invalid_option"
        )
    rows = _benchmarks(request)[request.what]()
    if asked.as_json:
        terminal.show_json([asdict(measured) for measured in rows])
        return
    table = terminal.table("what", "value >", "unit", "ratio >", "against", "target >", "met")
    for measured in rows:
        target = "" if measured.target is None else f"≤ {measured.target:g}"
        met = "" if measured.met is None else "yes" if measured.met else "no"
        ratio = "" if measured.ratio is None else f"{measured.ratio:.3g}"
        terminal.row(table, measured.name, f"{measured.value:.4g}", measured.unit, ratio, measured.against, target, met)
    terminal.show(table)


def _benchmarks(request: BenchRequest) -> dict[str, Callable[[], list[Row]]]:
    from neuromas.bench.fit import bench_fit, bench_pairs
    from neuromas.bench.index import bench_index
    from neuromas.bench.schedule import bench_schedule
    from neuromas.bench.store import bench_store

    latents, n_samples, device = request.batch_size or 512, request.n_samples, request.device
    return {
        "fit": lambda: bench_fit(n_threads=request.threads, batch_size=request.batch_size or 128, device=device),
        "pairs": bench_pairs,
        "index": lambda: bench_index(n_samples=n_samples, batch_size=latents, device=device),
        "store": lambda: bench_store(n_samples=n_samples, batch_size=latents),
        "growth": lambda: _growth(request),
        "twins": lambda: _twins(request),
        "schedule": lambda: bench_schedule(
            request.method,
            iterations=request.iterations,
            run=request.run,
            n_threads=request.threads,
            device=device,
            report=_tell_schedule,
        ),
    }


def _tell_schedule(tried: Tried) -> None:
    terminal.tell(
        f"{tried.name}: worst IIA {tried.worst:.3f} after {tried.iterations:,} iterations, {tried.seconds:.0f} s"
    )


def _twins(request: BenchRequest) -> list[Row]:
    from neuromas.bench.twins import CASES, bench_twins, calibrate, draw_twins, points_table
    from neuromas.files import write_atomically
    from neuromas.report.figures import png

    points = calibrate(
        CASES[: request.run],
        out=request.folder,
        report=lambda point: terminal.tell(
            f"{point.case}, {point.method}, {point.map}: IIA {point.iia:.3f}, by the twin {point.iia_twin:.3f}"
        ),
    )
    write_atomically(f"{request.folder}/twins.csv", points_table(points))
    if request.figure is not None:
        write_atomically(request.figure, png(draw_twins(points)))
    return bench_twins(points)


def _growth(request: BenchRequest) -> list[Row]:
    from neuromas.bench.growth import bench_growth, draw_growth
    from neuromas.files import write_atomically
    from neuromas.report.figures import png

    rows, curves = bench_growth(most_samples=request.n_samples, n_threads=request.threads)
    if request.figure is not None:
        write_atomically(request.figure, png(draw_growth(curves)))
    return rows
