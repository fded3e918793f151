"""The figure of a nested fit: score against rank, with the rank that is enough."""

from __future__ import annotations

from neuromas.report.figures import COLOURS, new_figure, png
from neuromas.report.panels import OTHER_COLOURS, iia_axis, powers_axis
from neuromas.schema.ranks import RankCurve


def draw(curve: RankCurve) -> bytes:
    """The curve of every direction and subspace with its intervals, and the learned rank with its own; PNG."""
    figure, axes = new_figure(5.6, 3.8)
    panel = axes[0][0]
    lines: dict[tuple[str, str, str, str], list[tuple[int, float, float, float]]] = {}
    for row in curve.scores:
        points = lines.setdefault((row.source, row.target, row.subspace, row.measure), [])
        points.append((row.rank, row.score.value, row.score.low, row.score.high))
    colours = [COLOURS.get(curve.method, OTHER_COLOURS[0]), *OTHER_COLOURS]
    for number, ((source, target, subspace, measure), points) in enumerate(lines.items()):
        at, values, lows, highs = zip(*points, strict=True)
        colour = colours[number % len(colours)]
        label = f"{source} → {target}, {subspace}" + (" (retrieval)" if measure == "retrieval" else "")
        panel.plot(at, values, marker="o", markersize=4, linewidth=1.4, color=colour, label=label)
        panel.fill_between(at, lows, highs, color=colour, alpha=0.15, linewidth=0)
    learned = curve.learned
    panel.axvspan(learned.low, learned.high, color="#999999", alpha=0.2, linewidth=0)
    panel.axvline(learned.rank, color="#444444", linestyle="dotted", label=f"rank {learned.rank} is enough")
    powers_axis(panel, list(curve.ranks), "rank")
    iia_axis(panel)
    panel.legend(frameon=False, fontsize=8)
    return png(figure)
