"""Figures from scores, histories and components."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neuromas.schema.evaluation import DirectionScore
from neuromas.schema.fit import FitReport
from neuromas.text import visible

COLOURS = {
    "none": "#9a9a9a",
    "random": "#c4c4c4",
    "wrong-variable": "#b08d8d",
    "cl-ceiling": "#4d4d4d",
    "behaviour-alone": "#a83c6e",
    "stitch": "#d1772c",
    "latent-stitch": "#c9a227",
    "das": "#7a5aa8",
    "mas": "#2f6fb0",
    "clmas": "#1d8f6f",
    "clmas-linear": "#6bbf59",
}
_OTHER = "#444444"


@dataclass(frozen=True)
class Cloud:
    """Samples of one system in the shared components.

    Attributes
    ----------
    components : ndarray, shape (n_samples, rank)
    values : ndarray, shape (n_samples,)
        They become colours.
    groups : ndarray of str, shape (n_samples,)
        They become panels.
    """

    components: NDArray[np.floating]
    values: NDArray[np.floating]
    groups: NDArray[np.str_]

    def of(self, group: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Components and values of the samples in one panel."""
        members = self.groups == group
        return self.components[members], self.values[members]


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, NDArray[Any]]:
    """A figure of `width` × `height` inches and its axes, shape (rows, columns); it needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plain_text(figure: Figure) -> Figure:
    """`figure` with its titles, labels and legends drawn as they are: a ``$`` in a name begins no formula."""
    for axes in figure.axes:
        legend = axes.get_legend()
        texts = [child for child in axes.get_children() if isinstance(child, Text)]
        texts += [axes.xaxis.label, axes.yaxis.label]
        texts += [] if legend is None else legend.get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            # labels that a scale makes, such as 10², are formulas; those that were set are names
            texts += (
                axis.get_ticklabels() if isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter) else []
            )
        for text in texts:
            text.set_parse_math(False)
            text.set_text(visible(text.get_text(), lines=True))
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG without a date, so that equal figures give equal files."""
    buffer = io.BytesIO()
    plain_text(figure).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _of_direction(scores: Sequence[DirectionScore], source: str, target: str) -> list[DirectionScore]:
    """Scores of one direction over all pairs, in their order."""
    return [score for score in scores if (score.source, score.target, score.subspace) == (source, target, "")]


def iia_bars(scores: Sequence[DirectionScore], directions: Sequence[tuple[str, str, str]]) -> Figure:
    """IIA of each method in each direction with 95 % intervals (the arrangement of the paper's Figure 3a).

    Parameters
    ----------
    scores : sequence of DirectionScore
        Drawn in their order.
    directions : sequence of (title, source, target)
        One panel each.
    """
    methods = list(dict.fromkeys(score.method for score in scores))
    figure, axes = new_figure(5.2 * len(directions), 3.8, columns=len(directions))
    for panel, (title, source, target) in zip(axes[0], directions, strict=True):
        by_method = {score.method: score for score in _of_direction(scores, source, target)}
        not_run = sum(not score.ran for score in by_method.values()) > len(by_method) / 2
        shown = [method for method in methods if method in by_method and by_method[method].iia is not None]
        for place, method in enumerate(shown):
            score = by_method[method]
            assert score.iia is not None
            low = score.iia if score.low is None else score.low
            high = score.iia if score.high is None else score.high
            # the bound ran the target, the panel's other methods did not
            hatch = "//" if score.ran and not_run else None
            panel.bar(place, score.iia, color=COLOURS.get(method, _OTHER), width=0.75, hatch=hatch, edgecolor="white")
            panel.errorbar(
                place, score.iia, [[score.iia - low], [high - score.iia]], color="black", capsize=3, linewidth=1
            )
            panel.text(place, min(score.iia + 0.045, 1.04), f"{score.iia:.2f}", ha="center", fontsize=8)
        panel.set_xticks(range(len(shown)), shown, rotation=40, ha="right", fontsize=9)
        panel.set_ylim(0, 1.1)
        panel.set_yticks(np.linspace(0, 1, 6))
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_ylabel("IIA on held-out pairs")
    return figure


def divergence_bars(scores: Sequence[DirectionScore], directions: Sequence[tuple[str, str, str]]) -> Figure:
    """Distance of intervened latents from natural ones, by method and direction. The line at 1 is that of natural latents.

    Parameters
    ----------
    scores : sequence of DirectionScore
        Drawn in their order.
    directions : sequence of (title, source, target)
        One column of panels each: the L2 ratio above, the Mahalanobis ratio on a logarithmic axis below.
    """
    fields = (
        ("l2_ratio", "L2 distance from\nlatents of the same values"),
        ("mahalanobis_ratio", "Mahalanobis distance"),
    )
    figure, axes = new_figure(5.2 * len(directions), 5.6, rows=len(fields), columns=len(directions))
    for row, (name, label) in zip(axes, fields, strict=True):
        for panel, (_, source, target) in zip(row, directions, strict=True):
            ratios = [(score.method, getattr(score, name)) for score in _of_direction(scores, source, target)]
            shown = [(method, ratio) for method, ratio in ratios if ratio is not None]
            for place, (method, ratio) in enumerate(shown):
                panel.bar(place, ratio, color=COLOURS.get(method, _OTHER), width=0.75)
                panel.annotate(
                    f"{ratio:.3g}", (place, ratio), (0, 2), textcoords="offset points", ha="center", fontsize=8
                )
            panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
            panel.set_xticks(range(len(shown)), [method for method, _ in shown], rotation=40, ha="right", fontsize=9)
            panel.set_ylabel(f"{label}\n(natural latents: 1)", fontsize=9)
            panel.margins(y=0.12)
            if name == "mahalanobis_ratio":
                panel.set_yscale("log")
                panel.set_ylim(bottom=0.5)
    for panel, (title, _, _) in zip(axes[0], directions, strict=True):
        panel.set_title(title, fontsize=10, loc="left")
    return figure


def training_curves(reports: Mapping[str, FitReport]) -> Figure:
    """Validation loss, and validation IIA of targets that run, against iterations."""
    figure, axes = new_figure(10.4, 3.6, columns=2)
    for method, report in reports.items():
        iterations = [validation.iteration for validation in report.history]
        if len(iterations) < 2:
            continue
        colour = COLOURS.get(method, _OTHER)
        axes[0, 0].plot(iterations, [validation.loss for validation in report.history], color=colour, label=method)
        scored = [
            (validation.iteration, min(validation.iia.values())) for validation in report.history if validation.iia
        ]
        if scored:
            axes[0, 1].plot(*zip(*scored, strict=True), color=colour, label=method)
            axes[0, 1].plot(report.best_iteration, dict(scored)[report.best_iteration], "o", color=colour, markersize=5)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("validation loss (each fit's own objective)")
    axes[0, 1].set_ylabel("worst validation IIA, targets that run")
    axes[0, 1].set_ylim(0, 1.03)
    for panel in axes.flat:
        panel.set_xlabel("iteration")
        panel.legend(frameon=False, fontsize=8)
    return figure


def overlaid_components(
    axes_from: Mapping[str, Cloud],
    clouds: Mapping[str, Cloud],
    value_name: str,
) -> Figure:
    """Aligned components of several systems in the plane that best separates values, one panel per group.

    Two linear discriminants (shrunk covariance) span the plane. They are fitted to the components of all systems in `axes_from`,
    which are other samples than those drawn.

    Parameters
    ----------
    axes_from, clouds : mapping of system to Cloud
        Samples that give the plane, and samples that are drawn.
    value_name : str
        Label of the colours.
    """
    names = sorted({name for cloud in clouds.values() for name in cloud.groups})
    figure, axes = new_figure(5.2 * len(names), 4.4, columns=len(names))
    top = max(cloud.values.max() for cloud in clouds.values())
    colours = matplotlib.colormaps["viridis"]
    for panel, name in zip(axes[0], names, strict=True):
        training = [cloud.of(name) for cloud in axes_from.values()]
        plane = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=2).fit(
            np.concatenate([components for components, _ in training]),
            np.concatenate([values for _, values in training]).astype(int),
        )
        for (system, cloud), marker in zip(clouds.items(), ("o", "x", "^", "s"), strict=False):
            components, values = cloud.of(name)
            panel.scatter(
                *plane.transform(components)[:, :2].T,
                c=colours(values / max(top, 1)),
                marker=marker,
                s=18,
                alpha=0.8,
                linewidths=0.9,
            )
            panel.scatter([], [], c="black", marker=marker, s=18, label=system)
        panel.set_title(f"{name} phase", fontsize=10, loc="left")
        panel.set_xlabel("first discriminant of the shared components")
        panel.legend(frameon=False, fontsize=8)
    axes[0, 0].set_ylabel("second")
    mappable = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, top), colours)
    figure.colorbar(mappable, ax=axes[0, -1], label=value_name)
    return figure


def value_histogram(score: DirectionScore, group: str, value: str) -> Figure:
    """Number of held-out pairs of one direction by expected value, and how many of them are wrong.

    Parameters
    ----------
    score : DirectionScore
    group, value : str
        Variables: one panel per value of `group`, with `value` along the axis.
    """
    groups = list(dict.fromkeys(each.values[group] for each in score.by_value))
    figure, axes = new_figure(5.2 * len(groups), 2.8, columns=len(groups))
    for panel, name in zip(axes[0], groups, strict=True):
        members = [each for each in score.by_value if each.values[group] == name]
        places = [float(each.values[value]) for each in members]
        panel.bar(places, [each.n_pairs for each in members], color="#b8cfe4", label="pairs")
        wrong = [each.n_pairs * (1 - (1.0 if each.iia is None else each.iia)) for each in members]
        panel.bar(places, wrong, color="#b5482f", label="wrong")
        panel.set_title(f"{name} phase", fontsize=10, loc="left")
        panel.set_xlabel(f"expected {value}")
        panel.set_ylabel("held-out pairs")
        panel.legend(frameon=False, fontsize=8)
    return figure


def source_target_map(score: DirectionScore, group: str, value: str) -> Figure:
    """IIA of one direction by the values of source and target; blank without pairs.

    Parameters
    ----------
    score : DirectionScore
    group, value : str
        Variables: one panel per value of `group` in the source, with `value` of the target along the horizontal and of the
        source along the vertical axis. Other variables are pooled.
    """
    cells = score.by_source_target
    groups = sorted({cell.source[group] for cell in cells})
    along = sorted({float(cell.target[value]) for cell in cells})
    up = sorted({float(cell.source[value]) for cell in cells})
    figure, axes = new_figure(5.2 * len(groups), 4.6, columns=len(groups))
    for panel, name in zip(axes[0], groups, strict=True):
        right, pairs = np.zeros((2, len(up), len(along)))
        for cell in cells:
            if cell.source[group] == name:
                place = up.index(float(cell.source[value])), along.index(float(cell.target[value]))
                right[place] += cell.n_pairs * cell.iia
                pairs[place] += cell.n_pairs
        shares = np.divide(right, pairs, out=np.full_like(right, np.nan), where=pairs > 0)
        drawn = panel.imshow(shares, cmap="RdYlBu", vmin=0, vmax=1, origin="lower", aspect="auto")
        panel.set_facecolor("#eeeeee")
        for ticks, labels in ((panel.set_xticks, along), (panel.set_yticks, up)):
            every = max(1, len(labels) // 10)
            ticks(range(0, len(labels), every), [f"{label:g}" for label in labels[::every]], fontsize=8)
        panel.set_title(f"source in the {name} phase", fontsize=10, loc="left")
        panel.set_xlabel(f"{value} that the target held")
        panel.set_ylabel(f"{value} from the source")
    figure.colorbar(drawn, ax=axes[0, -1], label="IIA")
    return figure
