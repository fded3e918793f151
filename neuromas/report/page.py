"""The page of a demo: one HTML file with its figures inside, which loads nothing else."""

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

_SHOWN_SAMPLES = 600
"""Samples per system in the scatter plot."""

_METHODS = {
    "none": "control: the target keeps its own latent",
    "random": "control: components of a random rotation of the same rank are interchanged",
    "wrong-variable": "control: components of another variable than the pair's are interchanged",
    "cl-ceiling": "ceiling: a recorded counterfactual latent replaces the target's",
    "stitch": "full-width orthogonal map, trained on behaviour of the live system as target; replaces the latent",
    "latent-stitch": "full-width orthogonal map, trained on counterfactual latents only; replaces the latent",
    "das": "trained on the behaviour of one system alone",
    "mas": "upper bound: trained on the behaviour of both systems",
    "clmas": "method of the paper: behaviour of the live system, counterfactual latents of the read-only system; map R = λQ",
    "clmas-linear": "the same with one linear map per system and a closed-form start; a weaker claim about similarity",
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
    """The content of the demo's page.

    Attributes
    ----------
    scores : sequence of DirectionScore
    fits : mapping of method to FitResult
    sides : sequence of Side
        Sides of the CLMAS fit: the live system and the recording.
    first, second : str
        Names of the live and of the read-only system.
    seconds : float
        Duration of the whole demo.
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
        (f"no access: {first} → {second}, which is only read (hatched: it was run)", first, second),
        (f"access: {second} → {first}, which is run", second, first),
    ]
    reports = {method: fit.report for method, fit in page.fits.items()}
    sections = [
        f"<h1>Aligning a live network with one that can only be read</h1><p>{_headline(page)}</p>",
        f'<p class="note">{escape(second)} stands for a brain: every fit except MAS received its recording only, and could'
        f" not run it. Afterwards, the evaluation measured the IIA into {escape(second)} by an <b>oracle</b>, a live copy of"
        f" {escape(second)} that no fit ran. With a real brain there is no oracle and no such IIA. Held-out"
        " counterfactual-latent error, retrieval of values and coverage (right-hand columns below) then describe the"
        " alignment. They do not rank alignments; a twin of the recording may (<code>fit --twin auto</code>).</p>",
        "<h2>Does behaviour follow the interchange?</h2>",
        _figure(
            iia_bars(page.scores, directions),
            "Share of held-out pairs in which every deterministic token of the counterfactual continuation is right, with"
            " 95 % intervals over pairs: exact, and wider where pairs share trials. There is one pair of networks, so no error"
            " over networks. Random: mean of 10 rotations. Same layout as"
            " Figure 3a of the paper.",
        ),
        _score_table(page.scores),
        _method_table(page),
        "<h2>How natural are intervened latents?</h2>",
        _figure(
            divergence_bars(page.scores, [(f"{s} → {t}", s, t) for s, t in ((first, second), (second, first))]),
            "Above: mean distance of an intervened latent from a recorded latent with the expected values, divided by the"
            " distance between two recorded latents with equal values. Below, on a logarithmic axis: median Mahalanobis distance"
            " from the centre of all recorded latents, divided by that of recorded latents with the expected values. The dotted"
            " line is the value of natural latents.",
        ),
        _divergence_table(page.scores),
        "<h2>Training</h2>",
        _figure(
            training_curves(reports),
            "Each method has its own loss, so losses cannot be compared between methods. Dots: the checkpoint that validation"
            " chose.",
        ),
    ]
    for method in ("clmas", "clmas-linear"):
        if method in page.fits and page.sides:
            sections += [
                f"<h2>The aligned subspace ({method})</h2>",
                _subspace(page.fits[method].alignment, page.sides),
            ]
    sections += ["<h2>Values of the pairs</h2>", _values(page), "<h2>Provenance</h2>", _provenance(page)]
    title = f"neuromas demo: {escape(first)} and {escape(second)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _find(page: DemoPage, method: str, source: str, target: str) -> DirectionScore | None:
    for score in page.scores:
        if (score.method, score.source, score.target, score.subspace) == (method, source, target, ""):
            return score
    return None


def _headline(page: DemoPage) -> str:
    results = []
    for method in ("clmas", "clmas-linear", "mas", "none"):
        score = _find(page, method, page.first, page.second)
        if score is not None and score.iia is not None:
            results.append(f"{method} {score.iia:.2f}")
    return (
        "Two GRUs were trained separately on the multi-object task: count the objects, then give the same number of responses."
        " An interchange moves count and phase from one step of one network into one step of the other. The other network"
        f" should then behave as if it had this count. IIA from {escape(page.first)} into {escape(page.second)}:"
        f" {', '.join(results)}."
    )


def _figure(figure: Figure, caption: str) -> str:
    data = base64.b64encode(png(figure)).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _number(value: float | None, digits: int = 3) -> str:
    # + 0.0: no minus zero
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _interval(low: float | None, high: float | None, digits: int = 3) -> str:
    return "–" if low is None or high is None else f"{low:.{digits}f}–{high:.{digits}f}"


def _wide(head: Sequence[str], rows: Sequence[str], numeric: Sequence[str] = ()) -> str:
    """A table with the names of its columns, which are texts but for `numeric`, above `rows`, which are HTML."""
    kinds = ["" if name in numeric else ' class="text"' for name in head]
    titles = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _score_table(scores: Sequence[DirectionScore]) -> str:
    head = (
        "method,source,target,ran,oracle,IIA,95 % interval,ICC,tokens right,pairs,missed,"
        "CL error,CL spread,retrieval,95 %,by chance,its ceiling"
    )
    rows = []
    for s in scores:
        interval = _interval(s.low, s.high)
        cells = [
            *(f'<td class="text">{escape(text)}</td>' for text in (s.method, s.source, s.target)),
            f"<td>{'yes' if s.ran else 'no'}</td><td>{'yes' if s.oracle else ''}</td>",
            f"<td><b>{_number(s.iia)}</b></td><td>{interval}</td><td>{_number(s.icc, 2)}</td>",
            f"<td>{_number(s.token_accuracy)}</td><td>{s.n_pairs}</td><td>{s.n_missed}</td>",
            f"<td>{_number(s.cl_loss)}</td><td>{_number(s.cl_spread)}</td>",
            f"<td>{_number(s.retrieval, 2)}</td><td>{_interval(s.retrieval_low, s.retrieval_high, 2)}</td>"
            f"<td>{_number(s.retrieval_chance, 2)}</td>"
            f"<td>{_number(s.retrieval_ceiling, 2)}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        _wide(head.split(","), rows)
        + "<p>Ran: whether the fit ran the target. ICC: mean correlation between two pairs that share a trial."
        " CL error: held-out counterfactual-latent loss (eqs. 8, 9). CL spread: the same"
        " loss between two different recorded latents of equal values; a perfect prediction of their mean has half of it."
        " Retrieval: share of intervened latents whose nearest mean latent holds the expected values; its ceiling is that of"
        " recorded latents. Missed: pairs whose expected values were not recorded in the held-out part.</p>"
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
    return (
        _wide(head.split(","), rows)
        + "<p>Ratios are 1 for natural latents. A mean of latents with equal values has an L2 ratio of about 0.7 and a cosine"
        " ratio of about 0.5. Outside: share of intervened latents outside the ellipsoid that holds 99 % of recorded latents of"
        " any value; beside it, the same share of recorded latents with the expected values. Recorded latents hardly vary along"
        " many axes, so a small change can put a latent outside; the Mahalanobis ratio shows how far. Wasserstein: sliced"
        " distance between the cloud of intervened latents and that of recorded latents with the same values; beside it, the"
        " distance between two draws of recorded latents, which is chance. A latent without interchange (none) is natural but"
        " holds unexpected values, which the first two ratios show. Latents outside need not change behaviour. A high IIA does"
        " not show that the system itself works in this way.</p>"
    )


def _method_table(page: DemoPage) -> str:
    rows = []
    for method in dict.fromkeys(score.method for score in page.scores):
        fit = page.fits.get(method)
        if fit is None:
            cells = "<td></td><td></td><td></td>"
        else:
            report = fit.report
            cells = f"<td>{report.iterations}</td><td>{report.status}</td><td>{report.seconds:.0f}</td>"
        rows.append(
            f'<tr><td class="text">{method}</td>{cells}<td class="prose">{escape(_METHODS.get(method, ""))}</td></tr>'
        )
    return _wide(
        ("method", "iterations", "ended", "seconds", "what it is"), rows, numeric=("iterations", "ended", "seconds")
    )


def _subspace(alignment: Alignment, sides: Sequence[Side]) -> str:
    return _figure(
        overlaid_components(
            {side.name: _cloud(alignment, side, "train") for side in sides},
            {side.name: _cloud(alignment, side, "test") for side in sides},
            "count",
        ),
        f"Held-out latents of both systems in the {alignment.rank} shared components, in the plane that best separates counts"
        " (two linear discriminants of the training latents of both systems). Equal colours should lie together in both"
        " systems.",
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
    by_value = _figure(
        value_histogram(score, "phase", "count"),
        f"Expected values of the {score.n_pairs} held-out pairs {escape(page.first)} → {escape(page.second)}, and the pairs"
        " that are wrong with CLMAS. Trials are drawn uniformly, then a step within the trial, so small counts are more"
        " frequent.",
    )
    by_target = (
        _figure(
            source_target_map(score, "phase", "count"),
            f"IIA of CLMAS {escape(page.first)} → {escape(page.second)} by the source's count and by the target's count before"
            " the interchange, over both phases of the target. Grey: no held-out pair. Most cells have one or two pairs, so"
            " single cells are uncertain; compare rows, columns and corners.",
        )
        if score.by_source_target
        else ""
    )
    return by_value + by_target


def _provenance(page: DemoPage) -> str:
    rows = []
    for method, fit in page.fits.items():
        report = fit.report
        inputs = "; ".join(
            f"{each.name} ({each.access}, {each.n_samples} samples,"
            f" {(each.weights_sha256 or each.content_sha256 or '')[:12]})"
            for each in report.inputs
        )
        rows.append(
            f'<tr><td class="text">{method}</td><td>{report.config.seed}</td>'
            f'<td class="text"><code>{report.identity[:12]}</code></td>'
            f'<td class="prose">{escape(inputs)}</td></tr>'
        )
    provenance = next(iter(page.fits.values())).report.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    return (
        _wide(("fit", "seed", "identity", "inputs (hash)"), rows, numeric=("seed",))
        + f"<p>{escape(versions)}; {escape(provenance.notes)}. Made {escape(provenance.created or '')}, in {page.seconds:.0f} s."
        " The folder of each fit holds its configuration, alignment, history and evaluation.</p>"
    )
