"""Figure 3b: the count alone, within and across multi-object, rounding and modulo GRUs."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import (
    COLOURS,
    HIGH,
    SEEDS,
    at,
    best,
    between,
    by_label,
    declare,
    listed,
    means,
    ranks,
    settings,
    within,
    without,
)
from neuromas.report.figures import new_figure
from neuromas.report.panels import bars, iia_axis
from neuromas.schema.sweep import Sweep

TITLE = "The count alone, within and across tasks, GRUs"
TASKS = ("multi-object", "rounding", "modulo")
ACROSS = tuple(itertools.combinations(TASKS, 2))
ITERATIONS, LONGER = 800, 6000
"""Of fits within multi-object and modulo, and of all others: across tasks, and for rounding, the loss still fell after 800
and after 2,000."""


def sweep(quick: bool = False) -> Sweep:
    """DAS in each network, MAS between seeds of a task and between tasks."""
    groups = []

    def common(iterations: int) -> dict[str, Any]:
        longer = {} if quick else {"max_iterations": iterations}
        return {"config": settings(quick, **longer), "axes": ranks(quick, "count")}

    for task in TASKS:
        alone = [[f"{task}/gru-{seed}"] for seed in SEEDS]
        iterations = LONGER if task == "rounding" else ITERATIONS
        groups.append({"label": f"DAS {task}", "method": "das", "systems": alone, **common(iterations)})
        groups.append(
            {"label": f"MAS {task}", "method": "mas", "systems": within(task, "gru", SEEDS), **common(iterations)}
        )
    for first, second in ACROSS:
        pairs = between(f"{first}/gru", f"{second}/gru", (0,) if quick else SEEDS)
        groups.append({"label": f"MAS {first}–{second}", "method": "mas", "systems": pairs, **common(LONGER)})
    return declare("3b", TITLE, quick, groups, "fewer seeds, rank 16, 200 iterations on 2,000 pairs")


def draw(table: pd.DataFrame) -> Figure:
    """DAS and MAS within tasks to the left, MAS across tasks to the right."""
    iia, none = by_label(best(table)), by_label(without(table, best(table)))
    figure, axes = new_figure(9.6, 3.8, columns=2)
    left, right = axes[0]
    series = {name: [at(iia, f"{name} {task}") for task in TASKS] for name in ("DAS", "MAS")}
    floors = {name: means(none, [f"{name} {task}" for task in TASKS]) for name in series}
    bars(left, list(TASKS), series, COLOURS, floors)
    left.set_title("within a task", fontsize=9)
    across = [f"{first}–{second}" for first, second in ACROSS]
    names = [label.replace("–", "–\n") for label in across]
    floors = {"MAS": means(none, [f"MAS {label}" for label in across])}
    bars(right, names, {"MAS": [at(iia, f"MAS {label}") for label in across]}, COLOURS, floors)
    right.set_title("across tasks", fontsize=9)
    for panel in (left, right):
        iia_axis(panel, 1.18)
    left.legend(frameon=False, fontsize=9, ncols=3, loc="upper center")
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about figure 3b."""
    rows = best(table)
    iia = by_label(rows)
    das = [f"DAS {task}" for task in TASKS]
    across = [f"MAS {first}–{second}" for first, second in ACROSS]
    lower = min(at(iia, label)[0] for label in das)
    worst = rows[rows["label"].isin(das)].nsmallest(1, "iia")
    return [
        Claim(
            "Each network has a single count (DAS high)",
            bool((worst["iia"] >= HIGH).all()),
            f"{listed(iia, das)}; lowest network {worst['systems'].item()}, {worst['iia'].item():.3f}; high from {HIGH:g}",
        ),
        Claim(
            "The count differs across tasks (MAS across tasks lower than DAS within)",
            max(at(iia, label)[0] for label in across) < lower,
            listed(iia, across),
        ),
    ]


FIGURE = PaperFigure("3b", TITLE, sweep, draw, claims)
