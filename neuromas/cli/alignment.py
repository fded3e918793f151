"""Verbs about alignments: fit, evaluate, plan, compare."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromas.cli import terminal
from neuromas.cli.options import Asked, options_of
from neuromas.cli.verbs import keywords_as_options, verb
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.schema.actions import CompareRequest, EvaluateRequest, FitsRequest, IntoFolder, PlanRequest, ReadsDevice

if TYPE_CHECKING:
    from neuromas.actions.fit import Fits
    from neuromas.fit.result import FitResult
    from neuromas.schema.evaluation import DirectionScore, Evaluation


@verb(FitsRequest, IntoFolder, others="config", table=True)
def fit_(asked: Asked) -> None:
    """The options that are not given follow from the preset: fast by default, paper in a file that names none."""
    from neuromas.actions.fit import combinations, finished, fit, fits_request
    from neuromas.fit.folder import CHECKPOINT
    from neuromas.fit.progress import FitBar

    document = {"config": {}, **asked.document()}
    if "vary" in document:
        document["vary"] = _axes(asked)
    if asked.filed is None:
        document["config"] = {"preset": "fast", **document.get("config", {})}
    elif "preset" not in document["config"]:
        terminal.tell(
            "The file names no preset. What it leaves out has the paper's values; --preset fast has the defaults."
        )
    _check_method(asked)
    request = fits_request(document, "fit" if asked.filed is None else "fit, configuration file and options")
    place = IntoFolder.parse(asked.typed[1], "fit")
    out = Path(place.out)
    varied = combinations(request)
    names = [each_fit.name for each_fit in varied]
    try:
        with FitBar([each_fit.request.config for each_fit in varied], names=names) as bar:
            fits = fit(request, out, device=place.device, progress=lambda name, now: bar(names.index(name), now))
    except KeyboardInterrupt:
        if request.vary:
            terminal.stop(f"Interrupted. What is in {out} is kept; the same command goes on from there.")
        terminal.stop_at(out / CHECKPOINT)
    except NeuromasError as error:
        # the other fits have ended
        if error.kind == "diverged" and request.vary:
            _show_fits(finished(request, out), out)
        raise
    if asked.as_json:
        terminal.show_json({name or str(out): json_of(result) for name, result in fits.results.items()})
    elif request.vary:
        _show_fits(fits, out)
        terminal.say(f"next: neuromas evaluate {out / varied[0].name}")
    else:
        if fits.repeated:
            terminal.tell(f"{out} holds this fit, finished already.")
        _show_fit(fits.results[""])
        terminal.say(f"wrote {terminal.contents(out)}\nnext: neuromas evaluate {out}")


@verb(EvaluateRequest, ReadsDevice, table=True)
def evaluate_(asked: Asked) -> None:
    from neuromas.actions.evaluate import against, evaluate
    from neuromas.cli.validity import show_validity
    from neuromas.fit.folder import EVALUATION, IIA, PAIRED, VALIDITY, read_validity

    request, place = asked.parse("evaluate")
    evaluation = evaluate(request, device=place.device, progress=lambda text: terminal.tell(f"{text} …", "dim"))
    tests = against(request, evaluation)
    folder = Path(request.folder)
    rows = [] if tests is None else tests.to_dict("records")
    if asked.as_json:
        compared = {} if tests is None else {"against": rows}
        terminal.show_json(evaluation.model_dump(mode="json") | compared)
        return
    _show_evaluation(evaluation)
    if rows:
        _show_tests(rows)
    if request.validity:
        show_validity(read_validity(folder))
    written = (EVALUATION, IIA, *([PAIRED] if rows else []), *([VALIDITY] if request.validity else []))
    terminal.say(f"wrote {', '.join(str(folder / name) for name in written)}")


@verb(PlanRequest, IntoFolder, table=True)
def plan_(asked: Asked) -> None:
    from neuromas.actions.plan import plan

    request, place = asked.parse("plan")
    made = plan(request, place.out, device=place.device)
    columns = ("current", "planned", "change", "clipped")
    means = {name: made[name].mean("sample").values.tolist() for name in columns}
    names = made["unit"].values.tolist()
    if asked.as_json:
        terminal.show_json({"unit": names, **means, "out": place.out})
        return
    units = terminal.table("unit", *(f"{name} >" for name in columns))
    for number, unit in enumerate(names[: terminal.SHOWN_VALUES]):
        *values, clipped = (means[name][number] for name in columns)
        terminal.row(units, unit, *(f"{value:.3g}" for value in values), f"{clipped:.0%}")
    terminal.show(units)
    some = f" (the first {terminal.SHOWN_VALUES} of {len(names)} units)" if len(names) > terminal.SHOWN_VALUES else ""
    terminal.tell(f"Means over {made.sizes['sample']:,} samples{some}, in {made['change'].attrs['units']}.", "dim")
    if "warnings" in made.attrs:
        terminal.warn(made.attrs["warnings"])
    terminal.say(f"wrote {place.out}")


@verb(CompareRequest, table=True)
def compare_(asked: Asked) -> None:
    """Nothing is run."""
    from dataclasses import asdict

    from neuromas.actions.compare import compare

    (request,) = asked.parse("compare")
    result = compare(request)
    if asked.as_json:
        terminal.show_json(asdict(result) | {"mean": result.mean, "low": result.low, "high": result.high})
        return
    table = terminal.table("measure", "mean >", "lowest >", "highest >", "resamples >", "samples >", "options")
    numbers = (terminal.number(value) for value in (result.mean, result.low, result.high))
    options = ", ".join(f"{key} {str(value).lower()}" for key, value in result.options.items())
    samples = f"{result.n_samples:,} of {result.n_usable:,}"
    terminal.row(table, request.measure, *numbers, result.n_resamples, samples, options)
    terminal.show(table)
    reasons = {"with an end token": result.n_ended, "incomplete": result.n_incomplete}
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count) or "none"
    matched = ", ".join(result.matched_by)
    terminal.tell(f"{result.n_shared:,} shared samples, matched by {matched}; left out: {left_out}.", "dim")
    for name, count in zip(result.recordings, result.n_constant_units, strict=True):
        if count:
            terminal.tell(f"{name}: {count:,} units are constant over the samples drawn.", "dim")


# --------------------------------------------------------------------------------------------------------- fits in words


def _check_method(asked: Asked) -> None:
    """Refuse a method that contradicts the file's: InvalidInput."""
    typed, filed = (document.get("config", {}) for document in (asked.typed[0], asked.filed or {}))
    if isinstance(filed, Mapping) and filed.get("method", typed.get("method")) != typed.get(
        "method", filed.get("method")
    ):
        raise InvalidInput(
            f"the configuration file is for {filed['method']!r}, the command says {typed['method']!r}",
            kind="given_twice",
        )


def _axes(asked: Asked) -> dict[str, Any]:
    """The settings that vary, by the names of their fields.

    Raises
    ------
    InvalidInput
        A setting varies twice, or has an option of its own as well.
    """
    from neuromas.fit.request import SHORT

    axes = dict((asked.filed or {}).get("vary", {}))
    typed: dict[str, Any] = {}
    for key, values in asked.typed[0].get("vary", {}).items():
        head, dot, rest = key.partition(".")
        name = head.replace("-", "_") + dot + rest
        inside: Any = asked.typed[0].get("config", {})
        for part in SHORT.get(name, name).split("."):
            inside = inside.get(part) if isinstance(inside, Mapping) else None
        if name in typed or inside is not None:
            other = "by an option of its own" if inside is not None else "before"
            raise InvalidInput(f"--vary {key}: given twice, there and {other}", kind="given_twice")
        typed[name] = values
    return axes | typed


def json_of(result: FitResult) -> dict[str, Any]:
    """A fit's report as JSON."""
    return result.report.model_dump(mode="json")


def _show_fits(fits: Fits, out: Path) -> None:
    """A table of fits, and their warnings with the fits that they concern."""
    if not fits.results:
        return
    table = fits.table()
    settings = list(next(iter(fits.points.values())))
    shown = terminal.table(
        *(
            f"{column} >"
            for column in (
                *settings,
                "iterations",
                "validation loss",
                "validation IIA",
                "missed pairs",
                "seconds",
                "status",
            )
        )
    )
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        losses = (terminal.number(row[column]) for column in ("validation_loss", "validation_iia"))
        missed = "–" if row["missed_pairs"] is None else f"{row['missed_pairs']:.0%}"
        rest = missed, terminal.number(row["seconds"]), row["status"]
        terminal.row(shown, *(str(row[name]) for name in (*settings, "iterations")), *losses, *rest)
    terminal.show(shown)
    for warning in dict.fromkeys(text for result in fits.results.values() for text in result.report.warnings):
        concerned = [name for name, result in fits.results.items() if warning in result.report.warnings]
        where = "" if len(concerned) == len(fits.results) else f"{', '.join(concerned)}: "
        _warn(f"{where}{warning}")
    terminal.say(f"wrote {out / 'table.csv'}")


def _show_fit(result: FitResult) -> None:
    report = result.report
    best = next((seen for seen in report.history if seen.iteration == report.best_iteration), report.history[-1])
    terminal.say(
        f"{report.config.method}: {report.status}, {report.iterations:,} iterations in {report.seconds:.1f} s; "
        f"best at {report.best_iteration:,}, validation loss {best.loss:.4f}"
    )
    for warning in report.warnings:
        _warn(warning)
    inputs = terminal.table("input", "access", "units >", "samples used >", "incomplete >")
    for system in report.inputs:
        counts = f"{system.n_units:,}", f"{system.n_samples:,}", f"{system.n_incomplete:,}"
        terminal.row(inputs, system.name, system.access, *counts)
    terminal.show(inputs)
    heads = "behaviour loss >", "CL loss >", "validation IIA >", "missed training pairs >", "missed validation pairs >"
    scores = terminal.table("direction", *heads)
    missed = {(seen.direction, seen.part): f"{seen.n_missed:,} of {seen.n_pairs:,}" for seen in report.misses}
    for name in dict.fromkeys([*(direction for direction, _ in missed), *best.behaviour, *best.cl]):
        losses = (terminal.number(values.get(name)) for values in (best.behaviour, best.cl, best.iia))
        terminal.row(scores, name, *losses, *(missed.get((name, part), "") for part in ("train", "validation")))
    terminal.show(scores)


def _warn(warning: str) -> None:
    """A warning of a fit, with settings as they are typed: ``--values``, not ``values=``."""
    fields = {option.path[-1]: option.name for option in options_of(FitsRequest)}
    terminal.warn(keywords_as_options(warning, fields))


def _show_evaluation(evaluation: Evaluation) -> None:
    by_direction: dict[tuple[str, str], list[DirectionScore]] = {}
    for score in evaluation.scores:
        by_direction.setdefault((score.source, score.target), []).append(score)
    for (source, target), scores in by_direction.items():
        _show_direction(source, target, scores, evaluation.part)
    for warning in evaluation.warnings:
        terminal.warn(warning)
    if evaluation.oracles:
        names = ", ".join(evaluation.oracles)
        terminal.tell(f"{names}: the fit only read it. This evaluation alone ran a live copy, the oracle.")
    elif any(score.iia is None for score in evaluation.scores):
        terminal.tell("A target that can only be read has no IIA: --oracle NAME=DIR runs a live copy, if there is one.")
    if any(score.iia_twin is not None for score in evaluation.scores):
        terminal.tell("IIA by twin: a twin that the fit never saw answered in the target's place; see docs/twins.md.")
    elif any(score.iia is None for score in evaluation.scores):
        terminal.tell(
            "CL loss and retrieval do not rank alignments with a target that can only be read: the IIA may fall while they"
            " improve. A fit with --twin auto may estimate the IIA."
        )


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _show_tests(rows: Sequence[Mapping[Hashable, Any]]) -> None:
    """Paired tests of two methods: their difference, its interval, and p."""
    first, second = rows[0]["first"], rows[0]["second"]
    terminal.say(f"{first} less {second}, on the same pairs", "bold")
    table = terminal.table(
        "direction", "measure", "difference >", "95 % >", f"{first} alone >", f"{second} alone >", "p >"
    )
    for row in rows:
        name = f"{row['source']} → {row['target']}" + (f", {row['subspace']}" if row["subspace"] else "")
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
        alone = f"{row['n_first']:,}", f"{row['n_second']:,}"
        terminal.row(
            table, name, row["measure"], f"{row['difference']:+.3f}", interval, *alone, f"{row['p_value']:.2g}"
        )
    terminal.show(table)
    tests = " and ".join(sorted({str(row["test"]) for row in rows}))
    terminal.tell(
        f"Pairs that one method alone has right; p: {tests}, over trials; one test a row, not corrected.", "dim"
    )


def _show_direction(source: str, target: str, scores: list[DirectionScore], part: str) -> None:
    first = scores[0]
    how = "its live copy, an oracle, was run here" if first.oracle else "only read, never run"
    how = "run" if first.ran else how
    terminal.say(f"{source} → {target} ({how}; {first.n_pairs:,} {part} pairs)", "bold")
    several = any(score.subspace for score in scores)
    ran = any(score.iia is not None for score in scores)
    judged = any(score.iia_twin is not None for score in scores)
    behaviour = [
        *(["IIA >", "95 % >", "ICC >", "tokens >"] if ran else []),
        *(["IIA by twin >", "95 % >"] if judged else []),
    ]
    heads = (*behaviour, "CL loss >", "L2 ratio >", "outside >", "retrieval >", "chance >")
    heads = (*heads, "coverage >") if ran else (*heads, "pattern >", "ceiling >", "coverage >")
    table = terminal.table("method", *(["subspace"] if several else []), *heads)
    for score in scores:
        cells = []
        if ran:
            cells += [
                terminal.number(score.iia),
                _between(score.low, score.high),
                terminal.number(score.icc),
                terminal.number(score.token_accuracy),
            ]
        if judged:
            cells += [terminal.number(score.iia_twin), _between(score.iia_twin_low, score.iia_twin_high)]
        distances = (score.cl_loss, score.l2_ratio, score.outside, score.retrieval, score.retrieval_chance)
        cells += map(terminal.number, distances)
        cells += [] if ran else map(terminal.number, (score.pattern, score.pattern_ceiling))
        names = (score.method, score.subspace or "all") if several else (score.method,)
        terminal.row(table, *names, *cells, terminal.number(score.coverage))
    terminal.show(table)
