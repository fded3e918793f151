"""The language-model comparison (3.2, A.5): embeddings of multi-object GRUs and of a model that does the task in context."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neuromas.causal.counting import MAX_QUANTITY
from neuromas.causal.in_context import InContext
from neuromas.evaluation.networks import OverNetworks
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
    settings,
    without,
)
from neuromas.report.figures import new_figure
from neuromas.report.panels import bars, iia_axis
from neuromas.schema.sweep import Sweep

TITLE = "Embeddings of GRUs and of a small Llama that does the task in context"
LABEL, WIDTH = "GRU–language model", 128
ITERATIONS = 700
"""After 300, as for the other embeddings, the loss still fell."""
PAPER = 0.400
MORE = 0.05
"""By how much an IIA must exceed that of no interchange to count as alignment."""
TOO_MANY = list(range(InContext.most + 1, MAX_QUANTITY + 1))
"""Object quantities beyond the language model's, left out of the GRU's trials, too (paper A.5: values from 1 to 12 only)."""
DIRECTIONS = {"GRU → GRU": (0, 0), "GRU → LM": (0, 1), "LM → GRU": (1, 0), "LM → LM": (1, 1)}


def sweep(quick: bool = False) -> Sweep:
    """MAS at the full width of the GRU, stepwise, by Gram-Schmidt, on trials that the language model solves."""
    config: dict[str, Any] = {
        "stepwise": True,
        "only_solved": True,
        "task_options": {"multi-object": {"hold_out": TOO_MANY}},
        "rotation": "gram-schmidt",
        "subspaces": {"full": WIDTH},
    }
    config |= {} if quick else {"max_iterations": ITERATIONS}
    pairs = between("multi-object/gru", "in-context/llama", (0,) if quick else SEEDS, "embedding")
    groups = [{"label": LABEL, "method": "mas", "systems": pairs, "config": settings(quick, **config)}]
    return declare("lm", TITLE, quick, groups, "seed 0, 200 iterations on 2,000 pairs")


def directions(rows: pd.DataFrame) -> dict[str, OverNetworks]:
    """Mean over pairs of systems with its error over systems, by direction."""
    called = [
        " → ".join("LM" if name.startswith("in-context") else "GRU" for name in pair)
        for pair in zip(rows["source"], rows["target"], strict=True)
    ]
    return by_label(rows.assign(label=called))


def draw(table: pd.DataFrame) -> Figure:
    """IIA by direction; the paper's number, of another model, as a line."""
    own = table[table["trained"].eq(True)]
    iia, none = directions(own), directions(without(table, own))
    figure, axes = new_figure(6.8, 3.8)
    panel = axes[0, 0]
    shown = [at(iia, name) for name in DIRECTIONS]
    bars(panel, list(DIRECTIONS), {"MAS": shown}, COLOURS, {"MAS": means(none, DIRECTIONS)})
    panel.axhline(PAPER, linestyle="dashed", color="#111111", linewidth=1, label="paper, worst direction, 8B model")
    iia_axis(panel, 1.25)
    panel.legend(frameon=False, fontsize=8.5, ncols=3, loc="upper center")
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about the language model."""
    own = table[table["trained"].eq(True)]
    worst = best(table)
    iia, none = (at(by_label(rows), LABEL)[0] for rows in (worst, without(table, worst)))
    return [
        Claim(
            "A language model that does the task in context aligns in part with a GRU (paper: 0.400 with an 8B model)",
            none + MORE <= iia < HIGH,
            f"small Llama trained on the task itself, worst direction: {listed(by_label(worst), [LABEL])}, {none:.3f} without"
            f" interchange; in part from {MORE:g} above that to below {HIGH:g}; {listed(directions(own), DIRECTIONS)};"
            f" without interchange {listed(directions(without(table, own)), DIRECTIONS)}",
        )
    ]


FIGURE = PaperFigure("lm", TITLE, sweep, draw, claims)
