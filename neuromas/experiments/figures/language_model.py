"""The language-model comparison (3.2, A.5): embeddings of multi-object GRUs and of a model that does the task in context."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import SEEDS, best, between, by_label, declare, settings, told
from neuromas.report.figures import new_figure
from neuromas.report.panels import bars, iia_axis
from neuromas.schema import Sweep

TITLE = "Embeddings of GRUs and of a small Llama that does the task in context"
LABEL, WIDTH = "GRU–language model", 128
ITERATIONS = 700
"""After 300, as for the other embeddings, the loss still fell."""
PAPER = 0.400
DIRECTIONS = {"GRU → GRU": (0, 0), "GRU → LM": (0, 1), "LM → GRU": (1, 0), "LM → LM": (1, 1)}


def sweep(quick: bool = False) -> Sweep:
    """MAS at the full width of the GRU, stepwise, by Gram-Schmidt, on trials that the language model solves."""
    config: dict[str, Any] = {
        "stepwise": True,
        "only_solved": True,
        "rotation": "gram-schmidt",
        "subspaces": {"full": WIDTH},
    }
    config |= {} if quick else {"max_iterations": ITERATIONS}
    pairs = between("multi-object/gru", "in-context/llama", (0,) if quick else SEEDS, "embedding")
    groups = [{"label": LABEL, "method": "mas", "systems": pairs, "config": settings(quick, **config)}]
    return declare("lm", TITLE, quick, groups, "seed 0, 200 iterations on 2,000 pairs")


def directions(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean and standard error over pairs of systems, by direction."""
    own = table[table["trained"].eq(True)]
    named = own.assign(
        label=[
            " → ".join("LM" if name.startswith("in-context") else "GRU" for name in pair)
            for pair in zip(own["source"], own["target"], strict=True)
        ]
    )
    return by_label(named)


def draw(table: pd.DataFrame) -> Figure:
    """IIA by direction; the paper's number, of another model, as a line."""
    found = directions(table)
    figure, axes = new_figure(6.8, 3.8)
    panel = axes[0, 0]
    shown = [found.get(name, (math.nan, math.nan)) for name in DIRECTIONS]
    bars(panel, list(DIRECTIONS), {"MAS": shown}, {"MAS": "#2f6fb0"})
    panel.axhline(PAPER, linestyle="dashed", color="#111111", linewidth=1)
    panel.text(1, PAPER + 0.02, "paper, worst direction,\n8B model", ha="center", fontsize=8)
    iia_axis(panel, 1.15)
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about the language model."""
    worst = by_label(best(table))
    iia = worst[LABEL][0]
    return [
        Claim(
            "An instruction-following language model aligns in part with a GRU (paper: 0.400 with an 8B model)",
            0.2 <= iia <= 0.99,
            f"small Llama trained on the task itself, worst direction: {told(worst, [LABEL])}; "
            + told(directions(table), DIRECTIONS),
        )
    ]


FIGURE = PaperFigure("lm", TITLE, sweep, draw, claims)
