"""A figure of the paper from its declaration to its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from neuromas.errors import NeuromasError, NotFound
from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures import FIGURES
from neuromas.experiments.sweep import SweepRun, check_devices, run_sweep
from neuromas.experiments.table import paired, split_by, sweep_table
from neuromas.files import write_atomically
from neuromas.report.figures import png
from neuromas.report.panels import svg, titled
from neuromas.text import csv_table

TABLE, PHASES, PAIRED = "table.csv", "phases.csv", "paired.csv"
CLAIMS, SWEEP = "claims.csv", "sweep.json"
PNG, SVG = "figure.png", "figure.svg"


class JobsFailed(NeuromasError):
    """Some jobs of a sweep failed; all others were done, and the table has them."""

    kind = "jobs_failed"


def get_figure(name: str, figures: Mapping[str, PaperFigure] = FIGURES) -> PaperFigure:
    """The figure called `name`.

    Raises
    ------
    NotFound
        There is none of that name; the known ones are listed.
    """
    if name not in figures:
        raise NotFound(f"no figure {name!r}; known figures: {', '.join(figures)}", kind="unknown_figure")
    return figures[name]


def reproduce(
    figure: str | PaperFigure,
    out: str | Path = "neuromas-figures",
    *,
    quick: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    devices: Sequence[str] = ("cpu",),
    console: Console | None = None,
) -> list[Claim]:
    """Run a figure's sweep and write its files into its `figure_folder`.

    These are ``table.csv``, ``figure.png``, ``figure.svg``, ``claims.csv``, ``paired.csv`` (paired tests of fits that were scored
    on the same pairs) and ``phases.csv`` (IIA by the phase of source and target) where the task has phases.

    Systems, fits and measures lie beside it in `out`, shared by all figures; what is finished there is not repeated, so an
    interrupted figure goes on when this is called again.

    Parameters
    ----------
    figure : str or PaperFigure
        One of `FIGURES` by name.
    out : path-like
    quick : bool
        The smaller sweep; the figure says so.
    workers, scheduler, devices, console
        As for `run_sweep`.

    Returns
    -------
    list of Claim
        The rows of ``claims.csv``.

    Raises
    ------
    NotFound
        No such figure.
    JobsFailed
        With every failure. ``table.csv`` has what there is; there is no figure, and no claim, from a part of a sweep.
    NeuromasError
        What `run_sweep` raises.
    """
    chosen = get_figure(figure) if isinstance(figure, str) else figure
    check_devices(devices, workers, scheduler)
    console = console or Console(stderr=True)
    out = Path(out)
    folder = figure_folder(out, chosen.name, quick)
    sweep = chosen.sweep(quick)
    write_atomically(folder / SWEEP, sweep.to_json())
    run = run_sweep(sweep, out, workers=workers, scheduler=scheduler, devices=devices, console=console)
    table = sweep_table(run)
    write_atomically(folder / TABLE, csv_table(table, index=False))
    tests = paired(run)
    if len(tests):
        write_atomically(folder / PAIRED, csv_table(tests, index=False))
    phases = split_by(run, "phase")
    if len(phases):
        write_atomically(folder / PHASES, csv_table(phases, index=False))
    _show_run(run, console)
    if run.problems or len(run.jobs) < run.n_jobs:
        for name in (PNG, SVG, CLAIMS):
            (folder / name).unlink(missing_ok=True)  # of an earlier table
        raise JobsFailed(_failure(run, folder))
    claims = list(chosen.claims(table))
    drawn = titled(chosen.draw(table), sweep.title, f"quick: {sweep.note}" if sweep.quick else "")
    write_atomically(folder / PNG, png(drawn))
    write_atomically(folder / SVG, svg(drawn))
    write_atomically(folder / CLAIMS, claims_table(claims))
    return claims


def figure_folder(out: str | Path, name: str, quick: bool) -> Path:
    """Where a figure's files lie: ``out/FIGURE``, of a quick one ``out/FIGURE-quick``."""
    return Path(out) / (f"{name}-quick" if quick else name)


def claims_table(claims: Sequence[Claim]) -> str:
    """Claims as CSV text: ``claim, held, detail``."""
    rows = [(claim.claim, "yes" if claim.held else "no", claim.detail) for claim in claims]
    return csv_table(pd.DataFrame(rows, columns=["claim", "held", "detail"]), index=False)


def _show_run(run: SweepRun, console: Console) -> None:
    message = f"{run.sweep.figure}: {len(run.jobs)} of {run.n_jobs} jobs finished; done in this run: {run.n_done}"
    message += f", failed: {len(run.problems)}" if run.problems else ""
    console.print(message, highlight=False, soft_wrap=True)


def _failure(run: SweepRun, folder: Path) -> str:
    missing = run.n_jobs - len(run.jobs)
    lines = [
        f"{missing} of {run.n_jobs} jobs of figure {run.sweep.figure} are missing; {folder / TABLE} has the others"
    ]
    lines += [f"  - {name}: {problem}" for name, problem in run.problems.items()]
    return "\n".join([*lines, "The same command tries only these again."])
