"""Figure 2d: IIA against the rank of the subspace (DAS, MAS), and of the map (Stitch), of multi-object GRUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import at, by_label, declare, settings, without
from neuromas.experiments.table import headline, mean_and_error
from neuromas.report.figures import new_figure
from neuromas.report.panels import curve, iia_axis, powers_axis
from neuromas.schema.sweep import Sweep

TITLE = "IIA against rank, multi-object GRUs"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
QUICK_RANKS = (2, 4, 16)
FIRST, SECOND = "multi-object/gru-0", "multi-object/gru-1"
ALIKE = 0.05
HELD = 0.9  # IIA above which the paper's curves lie where it says that they hold
NONE: dict[str, Any] = {"label": "no interchange", "linestyle": "dotted", "color": "#111111", "linewidth": 1.3}
NAMES = {"das": "DAS", "mas": "MAS", "stitch": "Stitch"}


def sweep(quick: bool = False) -> Sweep:
    """DAS on each GRU, MAS on the pair, and Stitch in each direction, at every rank."""
    ranks = QUICK_RANKS if quick else RANKS
    both = [[FIRST, SECOND], [SECOND, FIRST]]

    def group(
        method: str, systems: list[list[str]], tried: Sequence[int], suffix: str = "", **others: Any
    ) -> dict[str, Any]:
        return {
            "label": method + suffix,
            "method": method,
            "systems": systems,
            "config": settings(quick, **others),
            "axes": {"subspaces.full": tried},
        }

    groups = [
        group("das", [[FIRST], [SECOND]], ranks),
        group("mas", both[:1], ranks),
        group("stitch", both, [rank for rank in ranks if rank > 1]),
    ]
    if not quick:  # so narrow a map takes longer
        groups.append(group("stitch", both, [1], ", rank 1", max_iterations=6000))
    return declare(
        "2d", TITLE, quick, groups, f"ranks {', '.join(map(str, ranks))} only, 200 iterations on 2,000 pairs"
    )


def draw(table: pd.DataFrame) -> Figure:
    """Subspace methods to the left, Stitch to the right."""
    worst = headline(table)
    iia = mean_and_error(worst, by=["method", "rank"])
    none = by_label(without(table, worst))  # groups are labelled by their method
    figure, axes = new_figure(9.6, 3.8, columns=2)
    for panel, methods, label in zip(
        axes[0], (("das", "mas"), ("stitch",)), ("components of the subspace", "rank of the map"), strict=True
    ):
        for method in methods:
            mine = iia[iia["method"] == method].sort_values("rank")
            curve(panel, mine["rank"].tolist(), mine["mean"].tolist(), mine["error"].tolist(), NAMES[method])
        panel.axhline(at(none, methods[0])[0], **NONE)
        powers_axis(panel, sorted(iia["rank"].astype(int).unique().tolist()), label)
        iia_axis(panel)
        panel.legend(frameon=False, fontsize=9)
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about figure 2d."""
    means = mean_and_error(headline(table), by=["method", "rank"]).set_index(["method", "rank"])["mean"]

    def at(method: str, rank: int) -> float:
        return float(means.get((method, rank), math.nan))

    pair = {method: at(method, 4) for method in ("das", "mas")}
    stitched = at("stitch", 2)
    gaps = {
        rank: abs(at("das", rank) - at("mas", rank)) for method, rank in means.index if method == "das" and rank >= 4
    }
    return [
        Claim(
            "DAS and MAS hold down to 4 components",
            all(iia >= HELD for iia in pair.values()),
            f"worst direction at rank 4, mean over systems: {_listed(pair)}; holds from {HELD:g}",
        ),
        Claim(
            "There DAS and MAS have comparable IIAs",
            all(gap <= ALIKE for gap in gaps.values()),
            f"difference at rank {', '.join(f'{rank}: {gap:.3f}' for rank, gap in gaps.items())}; comparable within {ALIKE:g}",
        ),
        Claim(
            "Stitch is nearly perfect at rank 2",
            stitched >= HELD,
            f"trained direction at rank 2, mean over systems: stitch {stitched:.3f}; nearly perfect from {HELD:g}",
        ),
    ]


def _listed(iia: dict[str, float]) -> str:
    return ", ".join(f"{method} {iia:.3f}" for method, iia in iia.items())


FIGURE = PaperFigure("2d", TITLE, sweep, draw, claims)
