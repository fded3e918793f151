"""Panels from which figures of the paper are composed, and figures as files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuromas.report.figures import COLOURS, plain_text

_PAPER = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
OTHER_COLOURS = ("#444444", "#8c564b", "#17798c", "#a83c6e", "#5f7a1f", "#3d3d9e")


def curve(
    panel: Axes,
    at: Sequence[float],
    means: Sequence[float],
    errors: Sequence[float],
    label: str,
    *,
    colour: str | None = None,
    style: str = "-",
) -> None:
    """A line through `means` with standard errors; an error of NaN draws no bar."""
    panel.errorbar(
        at,
        means,
        yerr=errors,
        label=label,
        color=colour or COLOURS.get(label.lower(), OTHER_COLOURS[0]),
        linestyle=style,
        marker="o",
        markersize=4,
        capsize=3,
        linewidth=1.4,
    )


def iia_axis(panel: Axes, top: float = 1.05) -> None:
    """An IIA from 0 to 1 along the vertical axis, with room up to `top`."""
    panel.set_ylim(0, top)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    panel.set_ylabel("IIA on held-out pairs")


def powers_axis(panel: Axes, values: Sequence[int], label: str) -> None:
    """Powers of two along the horizontal axis, as numbers."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(sorted(set(values)), [str(value) for value in sorted(set(values))])
    panel.set_xlabel(label)


def titled(figure: Figure, title: str, note: str = "") -> Figure:
    """The figure with a title above and, if there is one, a coloured note below."""
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    if note:
        figure.supxlabel(note, fontsize=9, x=0.01, ha="left", color="#b5482f")
    return figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG without a date or random names, so that equal figures give equal files."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "neuromas"}):
        plain_text(figure).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def bars(
    panel: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, ...]]],
    colours: Mapping[str, str],
    without: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Groups of bars with errors.

    Parameters
    ----------
    panel : Axes
    labels : sequence of str
        Names of the groups, along the horizontal axis.
    series : mapping of str to sequence of (mean, error, ...)
        Name in the legend → one mean and error per group; what follows them is not drawn. A mean of NaN leaves its place empty,
        an error of NaN draws no error bar.
    colours : mapping of str to str
        Name in the legend → colour.
    without : mapping of str to sequence of float, optional
        Name in the legend → one level per group without any interchange, drawn across the bar. NaN is left out.
    """
    width = 0.8 / max(len(series), 1)
    for number, (name, cells) in enumerate(series.items()):
        places = [group + (number - (len(series) - 1) / 2) * width for group in range(len(labels))]
        means = [mean for mean, *_ in cells]
        panel.bar(places, means, width * 0.92, label=name, color=colours[name])
        panel.errorbar(
            places,
            means,
            yerr=[error for _, error, *_ in cells],
            fmt="none",
            ecolor="#222222",
            capsize=2.5,
            linewidth=1,
        )
        for x, (mean, error, *_) in zip(places, cells, strict=True):
            if not math.isnan(mean):
                top = mean if math.isnan(error) else mean + error
                panel.text(
                    x,
                    max(top, 0) + 0.02,
                    f"{mean:.2f}".replace("0.", ".") if width < 0.2 else f"{mean:.3f}",
                    ha="center",
                    va="bottom",
                    fontsize=7,
                    color="#333333",
                    bbox=_PAPER,
                    zorder=5,
                )
        for x, level in zip(places, (without or {}).get(name, ()), strict=False):
            if not math.isnan(level):
                labelled = "no interchange" in panel.get_legend_handles_labels()[1]
                panel.hlines(
                    level,
                    x - width / 2,
                    x + width / 2,
                    label="_" if labelled else "no interchange",
                    linestyles="dotted",
                    colors="#111111",
                    linewidth=1.3,
                    zorder=4,
                )
    panel.set_xticks(range(len(labels)), labels)
    panel.tick_params(axis="x", labelsize=8.5, length=0)
