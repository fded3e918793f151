"""Figures 5 and 6: numbers in arithmetic GRUs, among themselves and against the count of multi-object GRUs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuromas.causal.model import CausalModel, Sequences, get_task
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
    difference,
    listed,
    means,
    ranks,
    settings,
    spread,
    within,
    without,
)
from neuromas.report.figures import new_figure
from neuromas.report.panels import bars, iia_axis
from neuromas.schema.sweep import Sweep

TITLE = "Numbers in arithmetic GRUs, and the count of multi-object GRUs"
TITLE_5 = "An interchange between an arithmetic and a multi-object GRU"
NUMBER = 1
"""Column of the values that holds the count, or rem_ops."""
OWN = ("cumu_val", "rem_ops")
REM_OPS, CUMU_VAL, LOW = "count ↔ rem_ops", "count ↔ cumu_val", "count ↔ low cumu_val"
LOW_REM_OPS = "count ↔ rem_ops, 1 to 9"
"""Not in the paper: `LOW` leaves the multi-object networks' counts above 9 out, so what it is compared with should, too."""
_LOW = list(range(1, 10))  # the values that rem_ops can have at a comma
ROLES = {
    REM_OPS: ("rem_ops", None),
    CUMU_VAL: ("cumu_val", None),
    LOW: ("cumu_val", _LOW),
    LOW_REM_OPS: ("rem_ops", _LOW),
}


def across(quick: bool, labels: tuple[str, ...]) -> list[dict]:
    """MAS between multi-object and arithmetic GRUs, the count in the role of a variable there."""
    groups = []
    for label in labels:
        variable, only = ROLES[label]
        config = settings(quick, roles={"number": {"multi-object": "count", "arithmetic": variable}})
        if only is not None:
            config["values"] = {"number": only}
        pairs = between("multi-object/gru", "arithmetic/gru", (0,) if quick else SEEDS)
        groups.append(
            {"label": label, "method": "mas", "systems": pairs, "config": config, "axes": ranks(quick, "number")}
        )
    return groups


def sweep(quick: bool = False) -> Sweep:
    """Each variable by DAS in each arithmetic GRU and by MAS between them; then the count against each."""
    groups = []
    for variable in OWN:
        common = {"config": settings(quick), "axes": ranks(quick, variable)}
        alone = [[f"arithmetic/gru-{seed}"] for seed in SEEDS]
        groups.append({"label": f"DAS {variable}", "method": "das", "systems": alone, **common})
        groups.append(
            {"label": f"MAS {variable}", "method": "mas", "systems": within("arithmetic", "gru", SEEDS), **common}
        )
    note = "fewer seeds, rank 16, 200 iterations on 2,000 pairs"
    return declare("6", TITLE, quick, [*groups, *across(quick, tuple(ROLES))], note)


def draw(table: pd.DataFrame) -> Figure:
    """Three panels, as in the paper."""
    iia, none = by_label(best(table)), by_label(without(table, best(table)))
    figure, axes = new_figure(11, 3.8, columns=3)
    left, middle, right = axes[0]
    series = {name: [at(iia, f"{name} {variable}") for variable in OWN] for name in ("DAS", "MAS")}
    floors = {name: means(none, [f"{name} {variable}" for variable in OWN]) for name in series}
    bars(left, list(OWN), series, COLOURS, floors)
    left.set_title("arithmetic GRUs", fontsize=9)
    left.legend(frameon=False, fontsize=9, ncols=3, loc="upper center")
    for panel, labels in ((middle, (REM_OPS, LOW_REM_OPS)), (right, (CUMU_VAL, LOW))):
        floor = {"MAS": means(none, labels)}
        bars(panel, labels, {"MAS": [at(iia, label) for label in labels]}, COLOURS, floor)
        panel.set_title("multi-object and arithmetic GRUs", fontsize=9)
    for panel in axes[0]:
        iia_axis(panel, 1.18)
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about figure 6."""
    rows = best(table)
    iia = by_label(rows)
    own = [f"{name} {variable}" for variable in OWN for name in ("DAS", "MAS")]
    rem_ops, cumu_val, low = (at(iia, label)[0] for label in (REM_OPS, CUMU_VAL, LOW))
    return [
        Claim(
            "cumu_val and rem_ops align within and between arithmetic GRUs",
            min(at(iia, label)[0] for label in own) >= HIGH,
            f"{listed(iia, own)}; aligned from {HIGH:g}",
        ),
        Claim("The count aligns with rem_ops", rem_ops >= HIGH, f"{listed(iia, [REM_OPS])}; aligned from {HIGH:g}"),
        Claim(
            "The count aligns less with cumu_val",
            cumu_val < rem_ops,
            f"{listed(iia, [REM_OPS, CUMU_VAL])}; difference {spread(difference(rows, REM_OPS, CUMU_VAL), '+')}",
        ),
        Claim(
            "Restricted to low values, cumu_val lies in between",
            cumu_val < low < rem_ops,
            f"{listed(iia, [CUMU_VAL, LOW, REM_OPS])}; {LOW} less {REM_OPS} {spread(difference(rows, LOW, REM_OPS), '+')}",
        ),
    ]


def sweep_5(quick: bool = False) -> Sweep:
    """The fits of figure 6 that the picture is of."""
    return declare(
        "5", TITLE_5, quick, across(quick, (REM_OPS,)), "fewer seeds, rank 16, 200 iterations on 2,000 pairs"
    )


def draw_5(table: pd.DataFrame) -> Figure:
    """Two trials, what is carried over, and what should follow, in both directions, with the IIA that was measured."""
    kept = best(table)
    rows = table[table["trained"].eq(True) & table["fit"].isin(kept["fit"])]
    figure, axes = new_figure(11, 4.6, rows=2)
    tasks = ("multi-object", "arithmetic")
    for panel, (source, target) in zip(axes[:, 0], (tasks, tasks[::-1]), strict=True):
        mine = rows[rows["source"].str.startswith(source) & rows["target"].str.startswith(target)]
        _exchange(panel, get_task(source), get_task(target), float(mine["iia"].mean()))
    return figure


def _exchange(panel: Axes, source: CausalModel, target: CausalModel, iia: float) -> None:
    carrying, row, u, receiving, other, t, after, value = next(_examples(source, target))
    before = _words(target, receiving.tokens[other], t + 1)
    lines = [
        (f"source, {source.name}", _words(source, carrying.tokens[row], carrying.lengths[row]), u),
        (f"target, {target.name}", _words(target, receiving.tokens[other], receiving.lengths[other]), t),
        ("expected after it", before + _words(target, after.tokens[0], after.lengths[0]), t),
    ]
    _lines(panel, lines, f"{value} carried from {source.name} to {target.name}: IIA {iia:.3f}")


def _examples(
    source: CausalModel, target: CausalModel
) -> Iterator[tuple[Sequences, int, int, Sequences, int, int, Sequences, int]]:
    """Short trials and the steps at which an interchange between them changes something, with what follows and the value."""
    carrying, receiving = source.sample(200, 3), target.sample(200, 4)
    generator = np.random.default_rng(0)
    for row, other in itertools.product(np.flatnonzero(carrying.lengths < 22), np.flatnonzero(receiving.lengths < 22)):
        steps = np.flatnonzero(carrying.eligible[row]), np.flatnonzero(receiving.eligible[other])
        for u, t in itertools.product(*steps):
            value, expected = int(carrying.values[row, u, NUMBER]), receiving.values[other, t].copy()
            changes = expected[NUMBER] != value and 1 < value < 5
            expected[NUMBER] = value
            if changes and target.possible(expected[None])[0]:
                after = target.counterfactual(expected[None], generator)
                if after.lengths[0] + t < 22:
                    yield carrying, int(row), int(u), receiving, int(other), int(t), after, value


def _words(model: CausalModel, tokens: np.ndarray, length: int) -> list[str]:
    return [model.vocabulary[token] for token in tokens[:length]]


def _lines(panel: Axes, lines: list[tuple[str, list[str], int]], title: str) -> None:
    panel.set_axis_off()
    panel.set_title(title, fontsize=10, loc="left")
    longest = max(len(words) for _, words, _ in lines)
    panel.set_xlim(-9, longest + 1)
    panel.set_ylim(-0.6, len(lines) - 0.3)
    for place, (name, words, step) in enumerate(lines):
        y = len(lines) - 1 - place
        panel.text(-9, y, name, fontsize=9, va="center")
        for x, word in enumerate(words):
            expected = place == 2 and x > step
            box = {"boxstyle": "square,pad=0.35", "edgecolor": "#2f6fb0" if x == step else "none"}
            box["facecolor"] = "#d6ecdf" if expected else "#eaf1f8" if x == step else "#f4f4f4"
            panel.text(x, y, word, fontsize=8.5, ha="center", va="center", family="monospace", bbox=box)


def claims_5(table: pd.DataFrame) -> list[Claim]:
    """What the paper shows in figure 5."""
    kept = best(table)
    rows = table[table["trained"].eq(True) & table["fit"].isin(kept["fit"])]
    cross = rows[rows["source"].str.partition("/")[0] != rows["target"].str.partition("/")[0]]
    means = cross.groupby(cross["source"].str.partition("/")[0])["iia"].mean()
    detail = "; ".join(f"from {task} {iia:.3f}" for task, iia in means.items())
    return [
        Claim("A number can be carried between the two tasks in both directions", bool((means >= HIGH).all()), detail)
    ]


FIGURE_5 = PaperFigure("5", TITLE_5, sweep_5, draw_5, claims_5)
FIGURE = PaperFigure("6", TITLE, sweep, draw, claims)
