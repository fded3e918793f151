"""Figure 3a: CLMAS, Latent Stitch, Stitch, and MAS as the bound, with and without access to the target."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neuromas.evaluation.networks import OverNetworks
from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import (
    HIGH,
    MORE_SEEDS,
    SEEDS,
    at,
    by_label,
    declare,
    difference,
    listed,
    ranks,
    settings,
    spread,
    within,
    without,
)
from neuromas.experiments.table import best_of
from neuromas.report.figures import COLOURS, new_figure
from neuromas.report.panels import bars, iia_axis
from neuromas.schema.sweep import Sweep

TITLE = "A system that is only read: CLMAS, Latent Stitch and Stitch, with MAS as the bound"
METHODS = {
    "Behaviour alone": "behaviour-alone",
    "Stitch": "stitch",
    "Latent Stitch": "latent-stitch",
    "CLMAS": "clmas",
    "CLMAS, linear": "clmas-linear",
    "MAS": "mas",
}
NO_ACCESS, ACCESS = "no access", "access"


def sweep(quick: bool = False) -> Sweep:
    """The second system of every pair is a recording to all fits but MAS; an oracle scores what leads into it."""
    pairs = within("multi-object", "gru", SEEDS if quick else MORE_SEEDS)
    config = settings(quick)
    linear = {"map": "linear", "init": "closed-form", "epsilon": 3.0}
    longer: dict[str, Any] = {} if quick else {"max_iterations": 1200}
    # without behaviour the loss has no floor, and falls for long
    longest: dict[str, Any] = {} if quick else {"max_iterations": 10000}
    groups: list[dict[str, Any]] = [
        # MAS with the behaviour of the system that runs and nothing else (eq. 7)
        {
            "label": "Behaviour alone",
            "method": "clmas",
            "read": [1],
            "config": config | {"epsilon": 0.0},
            "axes": ranks(quick),
        },
        {"label": "Stitch", "method": "stitch", "read": [1], "config": config},
        {"label": "Latent Stitch", "method": "latent-stitch", "read": [1], "config": config | longest},
        {"label": "CLMAS", "method": "clmas", "read": [1], "config": config | longer, "axes": ranks(quick)},
        {"label": "CLMAS, linear", "method": "clmas", "read": [1], "config": config | linear, "axes": ranks(quick)},
        {"label": "MAS", "method": "mas", "config": config, "axes": ranks(quick)},
    ]
    for group in groups:
        group["systems"] = pairs
    return declare("3a", TITLE, quick, groups, "seeds 0 and 1, rank 16, 200 iterations on 2,000 pairs")


def into(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by direction (no access: from the first system into the second), of the rank that validation found best."""
    own = table[table["method"].isin(["stitch", "latent-stitch", "clmas", "mas"])]
    kept = best_of(own, by=["label", "systems"])
    first = kept["systems"].str.split(" + ", regex=False).str[0]
    into_second = kept[(kept["source"] == first) & (kept["target"] != first)]
    into_first = kept[(kept["source"] != first) & (kept["target"] == first)]
    return {NO_ACCESS: into_second, ACCESS: into_first}


def scored(table: pd.DataFrame) -> dict[str, dict[str, OverNetworks]]:
    """Mean and error over pairs, by direction and label."""
    return {side: by_label(rows) for side, rows in into(table).items()}


def draw(table: pd.DataFrame) -> Figure:
    """Bars by direction; MAS, which has access to both, as a dashed line."""
    iia = scored(table)
    figure, axes = new_figure(8.6, 3.8)
    panel = axes[0, 0]
    shown = {label: METHODS[label] for label in METHODS if label != "MAS"}
    series = {label: [at(iia[side], label) for side in (NO_ACCESS, ACCESS)] for label in shown}
    none = {side: by_label(without(table, rows)) for side, rows in into(table).items()}
    floors = {label: [at(none[side], label)[0] for side in (NO_ACCESS, ACCESS)] for label in shown}
    bars(
        panel,
        ["into the system that is only read", "into the system that runs"],
        series,
        {k: COLOURS[v] for k, v in shown.items()},
        floors,
    )
    for place, side in enumerate((NO_ACCESS, ACCESS)):
        panel.hlines(
            at(iia[side], "MAS")[0],
            place - 0.42,
            place + 0.42,
            linestyles="dashed",
            colors="#111111",
            label="MAS" if place else None,
        )
    iia_axis(panel, 1.25)
    panel.legend(frameon=False, fontsize=8.5, ncols=6, loc="upper center")
    return figure


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the paper says about figure 3a."""
    iia, rows = scored(table), into(table)[NO_ACCESS]

    def gap(lower: str, higher: str) -> str:
        return f"{listed(iia[NO_ACCESS], [lower, higher])}; difference {spread(difference(rows, higher, lower), '+')}"

    no_access = {label: at(iia[NO_ACCESS], label)[0] for label in METHODS}
    order = ["Behaviour alone", "Stitch", "Latent Stitch", "CLMAS", "MAS"]
    alone, stitch, latent, clmas, mas = (no_access[label] for label in order)
    return [
        Claim(
            "Without access, the behaviour of the other system alone (eq. 7) does not align",
            alone < min(HIGH, clmas),
            f"{gap('Behaviour alone', 'CLMAS')}; high from {HIGH:g}",
        ),
        Claim("Without access: Stitch < Latent Stitch", stitch < latent, gap("Stitch", "Latent Stitch")),
        Claim("Without access: Latent Stitch < CLMAS", latent < clmas, gap("Latent Stitch", "CLMAS")),
        Claim("Without access: CLMAS ≤ MAS", clmas <= mas, gap("CLMAS", "MAS")),
        Claim(
            "Behavioural stitching works in the direction that it was trained in",
            at(iia[ACCESS], "Stitch")[0] >= 0.95,
            listed(iia[ACCESS], ["Stitch"]),
        ),
    ]


FIGURE = PaperFigure("3a", TITLE, sweep, draw, claims)
