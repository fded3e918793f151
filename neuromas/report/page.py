"""One self-contained HTML page per demo: figures inside, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from neuromas.align.alignment import Alignment
from neuromas.align.side import Side
from neuromas.files import write_atomically
from neuromas.fit.result import FitResult
from neuromas.report.figures import (
    Cloud,
    divergence_bars,
    iia_bars,
    overlaid_components,
    png,
    source_target_map,
    training_curves,
    value_histogram,
)
from neuromas.schema.evaluation import DirectionScore

_SHOWN_SAMPLES = 600  # per system in the scatter plot

_METHODS = {
    "none": "control: the target's own latent is left alone",
    "random": "control: components of a random rotation of the same rank are exchanged",
    "wrong-variable": "control: components of another variable than the one asked for are exchanged",
    "cl-ceiling": "ceiling: a recorded counterfactual latent is put in place",
    "stitch": "full-width orthogonal map, trained on behaviour from the read-only into the live system; replaces the latent",
    "latent-stitch": "full-width orthogonal map, trained on counterfactual latents alone; replaces the latent",
    "das": "one system alone, its behaviour",
    "mas": "bound: both systems are run and trained on",
    "clmas": "the paper's: behaviour of the live system, counterfactual latents for the read-only one; map R = λQ",
    "clmas-linear": "the same with one linear map per system, started in closed form: a weaker claim about similarity",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-top: 1px solid #ddd; padding-top: 1rem; }
img { max-width: 100%; height: auto; } figcaption { color: #444; font-size: .9rem; max-width: 52rem; }
figure { margin: 1rem 0; } table { border-collapse: collapse; font-size: .82rem; }
.wide { overflow-x: auto; }
th, td { padding: .2rem .45rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 2px solid #999; } td.text, th.text { text-align: left; } td.prose { white-space: normal; text-align: left; }
.note { background: #f4f1e8; border-left: 4px solid #c9a227; padding: .6rem 1rem; } code { background: #f2f2f2; padding: 0 .2em; }
"""


@dataclass(frozen=True)
class DemoPage:
    """What the demo's page shows.

    Attributes
    ----------
    scores : sequence of DirectionScore
    fits : mapping of method to FitResult
    sides : sequence of Side
        Of the CLMAS fit: the live system and the recording.
    first, second : str
        Names of the live system and the read-only one.
    seconds : float
        Everything together.
    """

    scores: Sequence[DirectionScore]
    fits: Mapping[str, FitResult]
    sides: Sequence[Side] = field(repr=False)
    first: str
    second: str
    seconds: float


def write_page(page: DemoPage, path: str | Path) -> None:
    """Write the page, whole or not at all."""
    write_atomically(path, render(page))


def render(page: DemoPage) -> str:
    """The page as HTML text."""
    first, second = page.first, page.second
    directions = [
        (f"no access: {first} → {second} is only read (hatched: it was run)", first, second),
        (f"access: {second} → {first} is run", second, first),
    ]
    reports = {method: fit.report for method, fit in page.fits.items()}
    parts = [
        f"<h1>Aligning a live network with one that can only be read</h1><p>{_headline(page)}</p>",
        f'<p class="note">{escape(second)} plays a brain: every fit except MAS was handed its recording and nothing that'
        f" runs. The IIA into {escape(second)} was measured afterwards by an <b>oracle</b>, a live copy of {escape(second)}"
        " that only this evaluation ran. With a real brain there is no oracle and no such IIA; then held-out"
        " counterfactual-latent error, retrieval of values and coverage (right-hand columns below) are what can be"
        " said.</p>",
        "<h2>Does behaviour follow?</h2>",
        _figure(
            iia_bars(page.scores, directions),
            "Share of held-out pairs in which every deterministic token of the counterfactual continuation is right, with"
            " 95 % bootstrap intervals over pairs (one pair of networks, so no error over networks). Arranged as the"
            " paper's Figure 3a.",
        ),
        _score_table(page.scores),
        _method_table(page),
        "<h2>How natural are intervened latents?</h2>",
        _figure(
            divergence_bars(page.scores, [(f"{s} → {t}", s, t) for s, t in ((first, second), (second, first))]),
            "Above: mean distance of an intervened latent from a recorded one with the expected values, over the distance"
            " between two recorded ones with equal values. Below, on a logarithmic axis: median Mahalanobis distance from the"
            " centre of all recorded latents, over that of recorded latents with the expected values. The dotted line is where"
            " natural latents lie.",
        ),
        _divergence_table(page.scores),
        "<h2>How the fits went</h2>",
        _figure(
            training_curves(reports),
            "Losses are each fit's own objective and do not compare between methods. Dots: the checkpoint that validation"
            " chose.",
        ),
    ]
    for method in ("clmas", "clmas-linear"):
        if method in page.fits and page.sides:
            parts += [f"<h2>The aligned subspace ({method})</h2>", _subspace(page.fits[method].alignment, page.sides)]
    parts += ["<h2>What was asked for</h2>", _values(page), "<h2>Where this came from</h2>", _provenance(page)]
    title = f"neuromas demo: {escape(first)} and {escape(second)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>\n'
    )


def _find(page: DemoPage, method: str, source: str, target: str) -> DirectionScore | None:
    for score in page.scores:
        if (score.method, score.source, score.target, score.subspace) == (method, source, target, ""):
            return score
    return None


def _headline(page: DemoPage) -> str:
    told = []
    for method in ("clmas", "clmas-linear", "mas", "none"):
        score = _find(page, method, page.first, page.second)
        if score is not None and score.iia is not None:
            told.append(f"{method} {score.iia:.2f}")
    return (
        f"Two GRUs were trained apart on the multi-object task: count the objects shown, then answer with as many responses."
        f" A pair takes the count and phase from a moment in one network and puts them into a moment in the other; the other"
        f" should then behave as if it had counted so. IIA from {escape(page.first)} into {escape(page.second)}:"
        f" {', '.join(told)}."
    )


def _figure(figure: Figure, caption: str) -> str:
    data = base64.b64encode(png(figure)).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no minus zero


def _score_table(scores: Sequence[DirectionScore]) -> str:
    head = (
        "method,source,target,ran,oracle,IIA,95 % interval,tokens right,pairs,missed,"
        "CL error,CL spread,retrieval,by chance,its ceiling"
    )
    rows = []
    for s in scores:
        interval = "–" if s.low is None else f"{s.low:.3f}–{s.high:.3f}"
        cells = [
            *(f'<td class="text">{escape(text)}</td>' for text in (s.method, s.source, s.target)),
            f"<td>{'yes' if s.ran else 'no'}</td><td>{'yes' if s.oracle else ''}</td>",
            f"<td><b>{_number(s.iia)}</b></td><td>{interval}</td>",
            f"<td>{_number(s.token_accuracy)}</td><td>{s.n_pairs}</td><td>{s.n_missed}</td>",
            f"<td>{_number(s.cl_loss)}</td><td>{_number(s.cl_spread)}</td>",
            f"<td>{_number(s.retrieval, 2)}</td><td>{_number(s.retrieval_chance, 2)}</td>"
            f"<td>{_number(s.retrieval_ceiling, 2)}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    titles = "".join(f'<th class="text">{escape(name)}</th>' for name in head.split(","))
    return (
        f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<p>CL error is the held-out counterfactual-latent loss (eqs. 8, 9); CL spread the same between two different"
        " recorded latents of equal values; a perfect prediction of their mean has half of it. Retrieval is the share of"
        " intervened latents nearest to the mean latent that holds the expected values; its ceiling is that of recorded"
        " latents. Missed: pairs whose expected values were not recorded in the held-out part.</p>"
    )


def _divergence_table(scores: Sequence[DirectionScore]) -> str:
    head = "method,source,target,L2 ratio,cosine ratio,Mahalanobis ratio,outside,naturally,Wasserstein,naturally"
    rows = []
    for s in scores:
        cells = "".join(f'<td class="text">{escape(text)}</td>' for text in (s.method, s.source, s.target))
        for value, digits in (
            (s.l2_ratio, 2),
            (s.cosine_ratio, 2),
            (s.mahalanobis_ratio, 2),
            (s.outside, 3),
            (s.outside_natural, 3),
            (s.wasserstein, 3),
            (s.wasserstein_natural, 3),
        ):
            cells += f"<td>{_number(value, digits)}</td>"
        rows.append(f"<tr>{cells}</tr>")
    titles = "".join(f'<th class="text">{escape(name)}</th>' for name in head.split(","))
    return (
        f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<p>Ratios are 1 for natural latents; a latent at the mean of those with its values has an L2 ratio of about 0.7 and a"
        " cosine ratio of about 0.5. Outside: share of intervened latents outside the ellipsoid that holds 99 % of recorded"
        " ones, whatever their values; beside it the share of recorded latents with the expected values. Units are not"
        " independent, so along many axes recorded latents hardly vary, and little suffices to be outside: the Mahalanobis"
        " ratio tells how far. Wasserstein: sliced distance between the cloud of intervened latents and that of recorded ones"
        " with the same values; beside it that between two draws of recorded ones, which is chance. A latent that nobody"
        " touched (none) is natural but holds other values than those expected: the first two ratios see that. To be"
        " outside need not matter for behaviour; that IIA is high does not show that the system works in this way by nature"
        " either.</p>"
    )


def _method_table(page: DemoPage) -> str:
    rows = []
    for method in dict.fromkeys(score.method for score in page.scores):
        fit = page.fits.get(method)
        if fit is None:
            told = "<td></td><td></td><td></td>"
        else:
            report = fit.report
            told = f"<td>{report.iterations}</td><td>{report.status}</td><td>{report.seconds:.0f}</td>"
        rows.append(
            f'<tr><td class="text">{method}</td>{told}<td class="prose">{escape(_METHODS.get(method, ""))}</td></tr>'
        )
    head = (
        '<th class="text">method</th><th>iterations</th><th>ended</th><th>seconds</th><th class="text">what it is</th>'
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _subspace(alignment: Alignment, sides: Sequence[Side]) -> str:
    return _figure(
        overlaid_components(
            {side.name: _cloud(alignment, side, "train") for side in sides},
            {side.name: _cloud(alignment, side, "test") for side in sides},
            "count",
        ),
        f"Held-out latents of both systems in the {alignment.rank} shared components, seen in the plane that best separates"
        " counts (two linear discriminants of the training latents of both systems together). Equal colours should lie"
        " together whichever the system.",
    )


def _cloud(alignment: Alignment, side: Side, part: str) -> Cloud:
    candidates = side.candidates[part]
    chosen = np.random.default_rng(0).permutation(len(candidates.samples))[:_SHOWN_SAMPLES]
    components = alignment.map_of(side.name).components(side.take(candidates.samples[chosen]).cpu()).numpy()
    columns = {name: candidates.values[chosen, column] for column, name in enumerate(side.variables)}
    spec = side.recording.manifest.variable("phase")
    return Cloud(components, columns["count"], np.array([spec.label(code) for code in columns["phase"]]))


def _values(page: DemoPage) -> str:
    score = _find(page, "clmas", page.first, page.second)
    if score is None or not score.by_value:
        return ""
    asked = _figure(
        value_histogram(score, "phase", "count"),
        f"Expected values of the {score.n_pairs} held-out pairs {escape(page.first)} → {escape(page.second)}, and those of"
        " them that CLMAS got wrong. Trials are drawn uniformly, then a step within the trial, so small counts are asked"
        " for more often.",
    )
    by_target = (
        _figure(
            source_target_map(score, "phase", "count"),
            f"IIA of CLMAS {escape(page.first)} → {escape(page.second)} by the count that the source gave and the count that"
            " the target held before, both phases of the target together. Grey: no held-out pair. Most cells hold one or two"
            " pairs, so rows, columns and corners tell something, single cells do not.",
        )
        if score.by_source_target
        else ""
    )
    return asked + by_target


def _provenance(page: DemoPage) -> str:
    rows = []
    for method, fit in page.fits.items():
        report = fit.report
        inputs = "; ".join(
            f"{one.name} ({one.access}, {one.n_samples} samples, {(one.weights_sha256 or one.content_sha256 or '')[:12]})"
            for one in report.inputs
        )
        rows.append(
            f'<tr><td class="text">{method}</td><td>{report.config.seed}</td>'
            f'<td class="text"><code>{report.identity[:12]}</code></td>'
            f'<td class="prose">{escape(inputs)}</td></tr>'
        )
    provenance = next(iter(page.fits.values())).report.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    head = '<th class="text">fit</th><th>seed</th><th class="text">identity</th><th class="text">inputs (hash)</th>'
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"<p>{escape(versions)}; {escape(provenance.notes)}. Made {escape(provenance.created or '')}, in {page.seconds:.0f} s."
        " Each fit's directory holds configuration, alignment, history and evaluation.</p>"
    )
