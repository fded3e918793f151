"""Several systems at once: one map each, against a fit per pair."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import MORE_SEEDS, declare, settings, within
from neuromas.report.figures import new_figure
from neuromas.schema.sweep import Sweep

TITLE = "Four multi-object GRUs: aligned at once, and pair by pair"
AT_ONCE, IN_PAIRS = "at once", "in pairs"
ALIKE = 0.05


def sweep(quick: bool = False) -> Sweep:
    """MAS of all four, and of every pair."""
    seeds = (0, 1, 2) if quick else MORE_SEEDS
    common = {"method": "mas", "config": settings(quick), "axes": {"subspaces.full": [16]}}
    groups = [
        {"label": AT_ONCE, "systems": [[f"multi-object/gru-{seed}" for seed in seeds]], **common},
        {"label": IN_PAIRS, "systems": within("multi-object", "gru", seeds), **common},
    ]
    return declare("n-systems", TITLE, quick, groups, "three GRUs, 200 iterations on 2,000 pairs")


def directions(table: pd.DataFrame) -> pd.DataFrame:
    """IIA by source and target (two different systems), with a column for each way of aligning."""
    own = table[table["trained"].eq(True) & (table["source"] != table["target"])]
    return own.pivot_table(index=["source", "target"], columns="label", values="iia")


def draw(table: pd.DataFrame) -> Figure:
    """Two tables of IIA, source by target, and how many maps each way needs."""
    own = table[table["trained"].eq(True)]
    names = sorted({*own["source"], *own["target"]})
    figure, axes = new_figure(11.5, 4, columns=3)
    for panel, label in zip(axes[0], (AT_ONCE, IN_PAIRS), strict=False):
        iia = own[own["label"] == label].pivot_table(index="source", columns="target", values="iia")
        grid = iia.reindex(index=names, columns=names).to_numpy()
        panel.imshow(grid, vmin=0, vmax=1, cmap="Blues")
        for row, column in itertools.product(range(len(names)), repeat=2):
            value = grid[row, column]
            colour = "white" if value > 0.6 else "black"
            panel.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=9, color=colour)
        short = [name.rpartition("/")[2] for name in names]
        panel.set_xticks(range(len(names)), short, fontsize=8)
        panel.set_yticks(range(len(names)), short, fontsize=8)
        panel.set_xlabel("target")
        panel.set_ylabel("source")
        panel.set_title(label, fontsize=10)
        panel.spines[["left", "bottom"]].set_visible(False)
    panel = axes[0, 2]
    numbers = np.arange(2, 11)
    panel.plot(numbers, numbers, label="one map per system (MAS)", color="#2f6fb0")
    panel.plot(
        numbers, numbers * (numbers - 1), linestyle="dashed", label="one per direction (stitching)", color="#d1772c"
    )
    held = own.groupby(["label", "fit"]).agg(systems=("source", "nunique"), maps=("n_maps", "first"))
    panel.plot(held["systems"], held["maps"], "o", color="#2f6fb0", label="in the fits of this figure")
    panel.set_xlabel("systems")
    panel.set_ylabel("maps")
    panel.legend(frameon=False, fontsize=8.5)
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about more than two systems."""
    iia = directions(table).dropna()
    gap = (iia[AT_ONCE] - iia[IN_PAIRS]).abs()
    n = len({*iia.reset_index()["source"]})
    maps = table.drop_duplicates("fit").groupby("label")["n_maps"].sum()
    return [
        Claim(
            "One map per system: linear in their number",
            int(maps[AT_ONCE]) == n,
            f"{n} systems: {maps[AT_ONCE]} maps at once, {maps[IN_PAIRS]} in the {n * (n - 1) // 2} fits of pairs",
        ),
        Claim(
            "Pairwise IIAs agree with separately fitted pairs",
            bool((gap <= ALIKE).all()),
            f"{len(iia)} directions: mean {iia[AT_ONCE].mean():.3f} at once, {iia[IN_PAIRS].mean():.3f} in pairs;"
            f" largest difference {gap.max():.3f}; agree within {ALIKE:g}",
        ),
    ]


FIGURE = PaperFigure("n-systems", TITLE, sweep, draw, claims)
