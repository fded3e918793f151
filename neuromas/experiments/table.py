"""Results of a sweep as one tidy table, and what figures and claims need of it.

A row is one score: one fit, one direction, one method (the fit's own or a control), or one measure of two systems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromas.align.alignment import Alignment
from neuromas.errors import InvalidInput
from neuromas.experiments.jobs import Planned, job_folder, read_config, read_fit, read_measure, system_folder
from neuromas.experiments.sweep import SweepRun
from neuromas.fit.folder import ALIGNMENT
from neuromas.schema.evaluation import SCORE_COLUMNS, Evaluation
from neuromas.schema.fit import FitReport
from neuromas.schema.sweep import MeasureReport, SweepJob

_COLUMNS = (
    *("figure", "label", "method", "systems", "seeds", "layer", "rank", "source", "target", "trained"),
    *("iia", "low", "high", "value", "token_accuracy", "n_pairs", "cl_loss", "coverage"),
    *(name for name in SCORE_COLUMNS if name not in ("method", "source", "target")),
    *(
        "validation_loss",
        "validation_iia",
        "late_gain",
        "n_maps",
        "iterations",
        "status",
        "seconds",
        "trial_accuracy",
        "fit",
        "quick",
    ),
)
COLUMNS = tuple(dict.fromkeys(_COLUMNS))
"""Columns of ``table.csv``, less tags and axes, which follow ``label``."""
_WHOLE = ("rank", "n_pairs", "n_missed", "n_maps", "iterations")  # whole numbers, even where some rows have none


def sweep_table(run: SweepRun) -> pd.DataFrame:
    """The finished jobs of a sweep as a tidy table.

    Parameters
    ----------
    run : SweepRun

    Returns
    -------
    DataFrame
        `COLUMNS`, with the groups' tags and axes after ``label``. ``source`` and ``target`` are systems as the sweep calls them;
        ``rank`` is that of all subspaces together; ``trained`` says whether the fit was trained in that direction;
        ``validation_loss`` and ``validation_iia`` (the worst direction) are the kept checkpoint's, ``late_gain`` is by what share
        that loss still fell in the last quarter of the iterations; ``n_maps`` counts the maps of the fit; ``value`` is a
        measure's mean,
        ``low`` and ``high`` its lowest and highest resample; ``trial_accuracy`` is the worse of the systems'; ``fit`` begins the
        identity, and the folder's name.

    Raises
    ------
    InvalidInput
        A tag is called like a column.
    """
    tags = list(dict.fromkeys(key for planned in run.jobs for key in planned.tags))
    taken = [key for key in tags if key in COLUMNS]
    if taken:
        raise InvalidInput(
            f"sweep {run.sweep.figure}: tags or axes may not be called {', '.join(taken)}, which are columns already",
            kind="reserved_name",
        )
    columns = [*COLUMNS[:2], *tags, *COLUMNS[2:]]
    rows = [row for planned in run.jobs for row in _rows(run, planned)]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_WHOLE, "Int64"))


def split_by(run: SweepRun, variable: str = "phase") -> pd.DataFrame:
    """IIA of the fits, and of no interchange, by what `variable` was in the source and in the target.

    Parameters
    ----------
    run : SweepRun
    variable : str
        Of the systems' own names; fits without it have no rows.

    Returns
    -------
    DataFrame
        A row per fit, direction, method (``none`` is no interchange) and combination that occurs: ``label``, ``systems``,
        ``rank``, ``fit``, ``source``, ``target``, ``method``, ``source_VARIABLE``, ``target_VARIABLE``, ``n_pairs``, ``iia``.
    """
    here, there = f"source_{variable}", f"target_{variable}"
    rows = []
    for planned in run.jobs:
        found = read_fit(job_folder(run.out, planned.job)) if planned.job.config is not None else None
        if found is None:
            continue
        called = {given.name: one.name for given, one in zip(found[0].inputs, planned.job.systems, strict=True)}
        systems = " + ".join(one.name for one in planned.job.systems)
        fit = {"label": planned.label, "systems": systems, "rank": _rank(planned.job, found[0])}
        fit["fit"] = planned.job.identity()[:12]
        for score in found[1].scores:
            direction = {**fit, "source": called[score.source], "target": called[score.target]}
            direction["method"] = score.method
            rows += [
                direction
                | {here: one.source[variable], there: one.target[variable], "n_pairs": one.n_pairs, "iia": one.iia}
                for one in score.by_source_target
                if not score.subspace and variable in one.source and variable in one.target
            ]
    columns = ["label", "systems", "rank", "fit", "source", "target", "method", here, there, "n_pairs", "iia"]
    table = pd.DataFrame(rows, columns=columns)
    table["iia"] *= table["n_pairs"]
    summed = table.groupby(columns[:-2], sort=False, as_index=False)[["n_pairs", "iia"]].sum()
    return summed.assign(iia=summed["iia"] / summed["n_pairs"])


def _rank(job: SweepJob, report: FitReport) -> int:
    """Of all subspaces together."""
    assert job.config is not None
    full_width = min(given.n_units for given in report.inputs)
    return full_width if job.config.subspaces is None else sum(job.config.subspaces.values())


def _rows(run: SweepRun, planned: Planned) -> Iterator[dict[str, Any]]:
    job, folder = planned.job, job_folder(run.out, planned.job)
    common = {"figure": run.sweep.figure, "label": planned.label, **planned.tags, **_systems(run.out, job)}
    common |= {"fit": job.identity()[:12], "quick": run.sweep.quick}
    if job.measure is not None:
        report = read_measure(folder)
        if report is not None:
            yield common | _measured(report)
        return
    found = read_fit(folder)
    if found is not None:
        common["n_maps"] = len(Alignment.load(folder / ALIGNMENT).maps)
        yield from (common | scored for scored in _scored(job, *found))


def _systems(out: Path, job: SweepJob) -> dict[str, Any]:
    layers = [one.name.partition("@")[2] or "hidden" for one in job.systems]
    configs = [read_config(system_folder(out, one.name)) for one in job.systems]
    accuracies = [config.trial_accuracy for config in configs if config.trial_accuracy is not None]
    return {
        "systems": " + ".join(one.name for one in job.systems),
        "seeds": " + ".join(str(one.made.seed) for one in job.systems),
        "layer": " + ".join(dict.fromkeys(layers)),
        "trial_accuracy": min(accuracies, default=None),
    }


def _measured(report: MeasureReport) -> dict[str, Any]:
    return {
        "method": report.job.measure,
        "source": report.job.systems[0].name,
        "target": report.job.systems[1].name,
        "trained": False,
        "value": report.mean,
        "low": report.low,
        "high": report.high,
        "seconds": report.seconds,
    }


def _scored(job: SweepJob, report: FitReport, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    assert job.config is not None
    called = {given.name: one.name for given, one in zip(report.inputs, job.systems, strict=True)}
    best = next(seen for seen in report.history if seen.iteration == report.best_iteration)
    trained = {misses.direction for misses in report.misses}
    for score in evaluation.scores:
        yield {
            **score.model_dump(include=set(SCORE_COLUMNS)),
            "source": called[score.source],
            "target": called[score.target],
            "trained": f"{score.source}->{score.target}" in trained and score.method == job.config.method,
            "rank": _rank(job, report),
            "validation_loss": best.loss,
            "validation_iia": min(best.iia.values(), default=None),
            "late_gain": late_gain(report),
            "iterations": report.iterations,
            "status": report.status,
            "seconds": report.seconds,
        }


def late_gain(report: FitReport) -> float:
    """By what share the best validation loss fell in the last quarter of the iterations: 0 where it was flat."""
    early = min(seen.loss for seen in report.history if seen.iteration <= 0.75 * report.iterations)
    return 1 - min(early, *(seen.loss for seen in report.history)) / early


# ------------------------------------------------------------------------------------------------ what figures take from it


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """The worst direction of each fit, among those that it was trained in and that have an IIA; one row per fit.

    Controls and measures are left out.

    Examples
    --------
    >>> rows = [{"label": "a", "fit": "f", "trained": True, "iia": iia} for iia in (0.9, 0.7)]
    >>> headline(pd.DataFrame(rows))["iia"].tolist()
    [0.7]
    """
    scored = table[table["trained"].eq(True) & table["iia"].notna()]
    if "subspace" in scored:  # all pairs, not those of one subspace alone
        scored = scored[scored["subspace"].isna() | scored["subspace"].eq("")]
    worst = scored.groupby(["label", "fit"], sort=False)["iia"].idxmin()
    return scored.loc[worst].reset_index(drop=True)


def best_of(table: pd.DataFrame, by: Sequence[str], over: str = "rank", score: str = "validation_loss") -> pd.DataFrame:
    """Rows of the fit that validation found best among those that differ in `over` only.

    Parameters
    ----------
    table : DataFrame
    by : sequence of str
        Columns that are equal among fits that compete, e.g. ``["label", "systems"]``.
    over : str
        Column in which they differ.
    score : {"validation_loss", "validation_iia"}
        What chooses: the lowest loss, or the highest IIA of the worst direction that the fit may run. Never a test score, nor
        anything that an oracle measured.

    Returns
    -------
    DataFrame
        All rows of the fits that were chosen.

    Raises
    ------
    InvalidInput
        `score` is something else.

    Examples
    --------
    >>> rows = [{"label": "a", "rank": 16, "validation_loss": 0.2}, {"label": "a", "rank": 32, "validation_loss": 0.1}]
    >>> best_of(pd.DataFrame(rows), by=["label"])["rank"].tolist()
    [32]
    """
    if score not in ("validation_loss", "validation_iia"):
        raise InvalidInput(f"expected score validation_loss or validation_iia, got {score!r}", kind="wrong_score")
    signed = table.assign(_score=table[score] if score == "validation_loss" else -table[score])
    per_choice = signed.dropna(subset=["_score"]).groupby([*by, over], sort=False, dropna=False)["_score"].max()
    chosen = per_choice.groupby(level=list(range(len(by))), sort=False, dropna=False).idxmin()
    keys = pd.MultiIndex.from_tuples(list(chosen), names=[*by, over])
    return table[pd.MultiIndex.from_frame(table[[*by, over]]).isin(keys)].reset_index(drop=True)


def mean_and_error(table: pd.DataFrame, by: Sequence[str], value: str = "iia") -> pd.DataFrame:
    """Mean of `value` and its standard error over systems (seed pairs), per combination of `by`.

    Rows of the same systems are averaged first, so that the error is that over systems alone.

    Parameters
    ----------
    table : DataFrame
    by : sequence of str
    value : str

    Returns
    -------
    DataFrame
        Columns `by`, ``mean``, ``error`` (not a number where there is one choice of systems only), ``n``.

    Examples
    --------
    >>> rows = [{"rank": 2, "systems": name, "iia": iia} for name, iia in (("a", 0.5), ("b", 0.7))]
    >>> found = mean_and_error(pd.DataFrame(rows), by=["rank"])
    >>> found["mean"].round(6).tolist(), found["error"].round(6).tolist(), found["n"].tolist()
    ([0.6], [0.1], [2])
    """
    known = table.dropna(subset=[value])
    per_systems = known.groupby([*by, "systems"], sort=False, dropna=False)[value].mean()
    grouped = per_systems.groupby(level=list(range(len(by))), sort=False, dropna=False)
    found = pd.DataFrame({"mean": grouped.mean(), "error": grouped.sem(), "n": grouped.size()})
    if len(by) > 1:
        found.index = found.index.set_names(list(by))
    return found.rename_axis(by[0]).reset_index() if len(by) == 1 else found.reset_index()
