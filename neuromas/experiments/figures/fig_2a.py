"""Figures 2a and 2b: MAS beside RSA and CKA, for networks that differ in nothing but their seed."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from neuromas.experiments.figure import Claim, PaperFigure
from neuromas.experiments.figures.common import (
    COLOURS,
    MORE_SEEDS,
    NEAR_ONE,
    SEEDS,
    at,
    best,
    by_label,
    declare,
    listed,
    means,
    measured,
    ranks,
    settings,
    within,
    without,
)
from neuromas.report.figures import new_figure
from neuromas.report.panels import bars
from neuromas.schema.sweep import Sweep

LAYERS = ("embedding", "hidden")
TITLES = {
    "gru": "MAS, RSA and CKA of multi-object GRUs that differ in their seed",
    "transformer": "MAS, RSA and CKA of multi-object transformers that differ in their seed",
}
PEARSON = "RSA by Pearson, embedding"
FIGURE_OF = {"gru": "2a", "transformer": "2b"}


def sweep(quick: bool = False, *, kind: str) -> Sweep:
    """Every pair of seeds, both layers, by MAS and by both measures; stepwise at the embedding (paper 2.5)."""
    seeds = SEEDS if quick or kind == "transformer" else MORE_SEEDS
    groups = []
    for layer in LAYERS:
        pairs = within("multi-object", kind, seeds, layer)
        # at the embedding one step holds one token, so all steps up to the source's are interchanged
        config = settings(quick, **({"stepwise": True} if layer == "embedding" else {}))
        groups.append(
            {"label": f"MAS {layer}", "method": "mas", "systems": pairs, "config": config, "axes": ranks(quick)}
        )
        groups += [
            {"label": f"{measure.upper()} {layer}", "measure": measure, "systems": pairs} for measure in ("rsa", "cka")
        ]
    # footnote 1 of the paper; no bar of the figure
    options = {"comparison": "pearson"}
    groups.append({"label": PEARSON, "measure": "rsa", "config": options, "systems": groups[0]["systems"]})
    note = "seeds 0 and 1, rank 16, 200 iterations on 2,000 pairs"
    return declare(FIGURE_OF[kind], TITLES[kind], quick, groups, note)


def draw(table: pd.DataFrame) -> Figure:
    """Bars by layer."""
    iia, none = by_label(best(table)) | measured(table), by_label(without(table, best(table)))
    figure, axes = new_figure(6.8, 3.8)
    panel = axes[0, 0]
    series = {name: [at(iia, f"{name} {layer}") for layer in LAYERS] for name in ("MAS", "RSA", "CKA")}
    floor = {"MAS": means(none, [f"MAS {layer}" for layer in LAYERS])}
    bars(panel, [f"{layer} layer" for layer in LAYERS], series, COLOURS, floor)
    panel.set_ylim(min(0, *(mean for each in series.values() for mean, *_ in each)), 1.18)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    panel.set_ylabel("IIA (worst direction), or similarity")
    panel.legend(frameon=False, fontsize=9, ncols=4, loc="upper center")
    return figure


def claims(table: pd.DataFrame, *, kind: str) -> list[Claim]:
    """What the paper says of MAS, RSA and CKA here."""
    iia = by_label(best(table)) | measured(table)
    mas = {layer: at(iia, f"MAS {layer}")[0] for layer in LAYERS}
    rsa = {layer: at(iia, f"RSA {layer}")[0] for layer in LAYERS}
    low = Claim(
        "RSA is lower at the embedding than at the hidden layer",
        rsa["embedding"] < rsa["hidden"],
        listed(iia, ["RSA embedding", "RSA hidden"]),
    )
    pearson = Claim(
        "Compared by Pearson's correlation, the same RDMs of embeddings are near ceiling",
        at(iia, PEARSON)[0] >= NEAR_ONE,
        f"{listed(iia, [PEARSON])}; near ceiling from {NEAR_ONE:g}",
    )
    if kind == "gru":
        return [
            Claim(
                "MAS aligns behaviour at both layers (IIA near 1)",
                min(mas.values()) >= NEAR_ONE,
                f"{listed(iia, ['MAS embedding', 'MAS hidden'])}; near 1 from {NEAR_ONE:g}",
            ),
            low,
            pearson,
        ]
    return [
        Claim(
            "MAS is low at the transformers' hidden layer, where counts are worked out anew at every step",
            mas["hidden"] < 0.5,
            f"{listed(iia, ['MAS hidden'])}; low below 0.5",
        ),
        Claim(
            "MAS aligns behaviour at the transformers' embedding",
            mas["embedding"] >= NEAR_ONE,
            f"{listed(iia, ['MAS embedding'])}; near 1 from {NEAR_ONE:g}",
        ),
        low,
        pearson,
        Claim(
            "RSA and CKA of the hidden layer do not show that no single step carries the count",
            min(at(iia, f"{name} hidden")[0] for name in ("RSA", "CKA")) > mas["hidden"],
            listed(iia, ["RSA hidden", "CKA hidden", "MAS hidden"]),
        ),
    ]


FIGURES = tuple(
    PaperFigure(FIGURE_OF[kind], TITLES[kind], partial(sweep, kind=kind), draw, partial(claims, kind=kind))
    for kind in ("gru", "transformer")
)
