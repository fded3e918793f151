"""Panels that figures of the paper are put together from, and figures as files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuromas.report.figures import COLOURS

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
    """A line through `means` with standard errors; a not-a-number error draws no bar."""
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


def iia_axis(panel: Axes) -> None:
    """An IIA from 0 to 1 along the vertical axis."""
    panel.set_ylim(0, 1.05)
    panel.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    panel.set_ylabel("IIA on held-out pairs")


def powers_axis(panel: Axes, values: Sequence[int], label: str) -> None:
    """Powers of two along the horizontal axis, as numbers."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(sorted(set(values)), [str(value) for value in sorted(set(values))])
    panel.set_xlabel(label)


def titled(figure: Figure, title: str, note: str = "") -> Figure:
    """The figure with its title above it, and below that, where there is one, a note in a colour that is not overlooked."""
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    if note:
        figure.supxlabel(note, fontsize=9, x=0.01, ha="left", color="#b5482f")
    return figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG, without a date or random names in it, so that equal figures are equal files."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "neuromas"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
