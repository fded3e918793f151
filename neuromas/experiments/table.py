"""Results of a sweep as one tidy table, and what figures and claims need of it.

A row is one score: one fit, one direction, one method (the fit's own or a control), or one measure of two systems.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuromas.align.alignment import Alignment
from neuromas.errors import InvalidInput
from neuromas.evaluation.intervals import clopper_pearson
from neuromas.evaluation.networks import OverNetworks, over_networks
from neuromas.evaluation.paired import PairedTest, paired_rows
from neuromas.experiments.jobs import (
    Planned,
    job_folder,
    order_of_fit,
    read_config,
    read_fit,
    read_measure,
    system_folder,
)
from neuromas.experiments.sweep import SweepRun
from neuromas.fit.folder import ALIGNMENT
from neuromas.fit.table import FIT_COLUMNS, fit_row, rank
from neuromas.schema.evaluation import SCORE_COLUMNS, Evaluation
from neuromas.schema.fit import FitReport
from neuromas.schema.sweep import MeasureReport, SweepJob

_COLUMNS = (
    *("figure", "label", "method", "systems", "seeds", "layer", "rank", "source", "target", "trained"),
    *("iia", "low", "high", "value", "token_accuracy", "n_pairs", "cl_loss", "coverage"),
    *(name for name in SCORE_COLUMNS if name not in ("method", "source", "target")),
    *FIT_COLUMNS,
    *("trial_accuracy", "fit", "quick"),
)
COLUMNS = tuple(dict.fromkeys(_COLUMNS))
"""Columns of ``table.csv``, less tags and axes, which follow ``label``."""
_WHOLE = (
    "rank",
    "n_pairs",
    "n_missed",
    "n_maps",
    "iterations",
    "threads",
)  # whole numbers, even where some rows have none


def sweep_table(run: SweepRun) -> pd.DataFrame:
    """The finished jobs of a sweep as a tidy table.

    Parameters
    ----------
    run : SweepRun

    Returns
    -------
    DataFrame
        `COLUMNS`, with the groups' tags and axes after ``label``. ``source`` and ``target`` are systems as the sweep calls them.
        ``trained`` says whether the fit was trained in that direction, ``ran`` whether it ran the target. ``value`` is the mean
        of a measure, ``low`` and ``high`` its lowest and highest resample. ``trial_accuracy`` is the lower one of the systems.
        ``fit`` holds the first digits of the identity, which begin the folder's name. `neuromas.fit.table.fit_row` says what
        ``rank`` and the columns about the fit are.

    Raises
    ------
    InvalidInput
        A tag is called like a column.
    """
    tags = list(dict.fromkeys(key for planned in run.jobs for key in planned.tags))
    reserved = [key for key in tags if key in COLUMNS]
    if reserved:
        raise InvalidInput(
            f"sweep {run.sweep.figure}: tags and axes cannot have the names of columns: {', '.join(reserved)}",
            kind="invalid_name",
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
    rows: list[dict[str, Any]] = []
    for planned in run.jobs:
        fit = read_fit(job_folder(run.out, planned.job)) if planned.job.config is not None else None
        if fit is None:
            continue
        report, evaluation = fit
        names = _names(planned.job, report)
        common = {
            "label": planned.label,
            "systems": " + ".join(system.name for system in planned.job.systems),
            "rank": rank(report),
            "fit": planned.job.identity()[:12],
        }
        for score in evaluation.scores:
            if score.subspace:
                continue
            direction = {"source": names[score.source], "target": names[score.target], "method": score.method}
            rows += [
                {**common, **direction, here: cell.source[variable], there: cell.target[variable]}
                | {"n_pairs": cell.n_pairs, "iia": cell.iia}
                for cell in score.by_source_target
                if variable in cell.source and variable in cell.target
            ]
    columns = ["label", "systems", "rank", "fit", "source", "target", "method", here, there, "n_pairs", "iia"]
    table = pd.DataFrame(rows, columns=columns)
    table["iia"] *= table["n_pairs"]
    summed = table.groupby(columns[:-2], sort=False, as_index=False)[["n_pairs", "iia"]].sum()
    return summed.assign(iia=summed["iia"] / summed["n_pairs"])


def _rows(run: SweepRun, planned: Planned) -> Iterator[dict[str, Any]]:
    job, folder = planned.job, job_folder(run.out, planned.job)
    common = {"figure": run.sweep.figure, "label": planned.label, **planned.tags, **_systems(run.out, job)}
    common |= {"fit": job.identity()[:12], "quick": run.sweep.quick}
    if job.measure is not None:
        report = read_measure(folder)
        if report is not None:
            yield common | _measured(report)
        return
    fit = read_fit(folder)
    if fit is not None:
        yield from (common | scored for scored in _scored(job, *fit, folder))


def _systems(out: Path, job: SweepJob) -> dict[str, Any]:
    layers = [system.name.partition("@")[2] or "hidden" for system in job.systems]
    configs = [read_config(system_folder(out, system.name)) for system in job.systems]
    accuracies = [config.trial_accuracy for config in configs if config.trial_accuracy is not None]
    return {
        "systems": " + ".join(system.name for system in job.systems),
        "seeds": " + ".join(str(system.made.seed) for system in job.systems),
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


def _scored(job: SweepJob, report: FitReport, evaluation: Evaluation, folder: Path) -> Iterator[dict[str, Any]]:
    assert job.config is not None
    names = _names(job, report)
    fit = fit_row(report, len(Alignment.load(folder / ALIGNMENT).maps))
    trained = {misses.direction for misses in report.misses}
    for score in evaluation.scores:
        yield {
            **score.model_dump(include=set(SCORE_COLUMNS)),
            "source": names[score.source],
            "target": names[score.target],
            "trained": f"{score.source}->{score.target}" in trained and score.method == job.config.method,
            **fit,
        }


def _names(job: SweepJob, report: FitReport) -> dict[str, str]:
    """The sweep's names of systems, by their names in the fit."""
    systems = [job.systems[place] for place in order_of_fit(job)]
    return {side.name: system.name for side, system in zip(report.inputs, systems, strict=True)}


# ------------------------------------------------------------------------------------------------ what figures take from it


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """One row per fit: the worst direction among those that the fit was trained in and that have an IIA.

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
    """Rows of the fits with the best validation score, among fits that differ only in `over`.

    Parameters
    ----------
    table : DataFrame
    by : sequence of str
        Columns that are equal in fits that are compared, e.g. ``["label", "systems"]``.
    over : str
        Column in which they differ.
    score : {"validation_loss", "validation_iia"}
        The lowest loss is best, or the highest IIA of the worst direction that the fit may run. A test score and an oracle's
        score never choose.

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
        raise InvalidInput(f"expected score validation_loss or validation_iia, got {score!r}", kind="invalid_option")
    signed = table.assign(_score=table[score] if score == "validation_loss" else -table[score])
    per_choice = signed.dropna(subset=["_score"]).groupby([*by, over], sort=False, dropna=False)["_score"].max()
    chosen = per_choice.groupby(level=list(range(len(by))), sort=False, dropna=False).idxmin()
    keys = pd.MultiIndex.from_tuples(list(chosen), names=[*by, over])
    return table[pd.MultiIndex.from_frame(table[[*by, over]]).isin(keys)].reset_index(drop=True)


def mean_and_error(table: pd.DataFrame, by: Sequence[str], value: str = "iia") -> pd.DataFrame:
    """Mean of `value` and its error over systems, per combination of `by`.

    Rows of the same systems are averaged first, so that the error is that over systems alone. Pairs that share a system are not
    independent: `neuromas.evaluation.networks.over_networks` leaves out one system at a time.

    Parameters
    ----------
    table : DataFrame
    by : sequence of str
    value : str

    Returns
    -------
    DataFrame
        Columns `by`, ``mean``, ``error`` (not a number where there is one choice of systems only), ``low``, ``high`` (95 %
        interval of Student's t; that of an IIA ends at 0 and 1), ``n`` (choices of systems), ``n_networks``.

    Examples
    --------
    >>> rows = [{"rank": 2, "systems": name, "iia": iia} for name, iia in (("a", 0.5), ("b", 0.7))]
    >>> table = mean_and_error(pd.DataFrame(rows), by=["rank"])
    >>> table["mean"].round(6).tolist(), table["error"].round(6).tolist(), table["n"].tolist()
    ([0.6], [0.1], [2])
    """
    rows = []
    for key, group in table.dropna(subset=[value]).groupby(list(by), sort=False, dropna=False):
        per_systems = group.groupby("systems", sort=False)[value].mean()
        networks = [systems.split(" + ") for systems in per_systems.index]
        summary = over_networks(per_systems.to_numpy(), networks, bounds=(0.0, 1.0) if value == "iia" else None)
        if value == "iia" and "n_pairs" in group:
            summary = _no_narrower(summary, float(group["n_pairs"].sum()))
        rows.append(dict(zip(by, key, strict=True)) | summary._asdict())
    return pd.DataFrame(rows, columns=[*by, *OverNetworks._fields])


def _no_narrower(summary: OverNetworks, n_pairs: float) -> OverNetworks:
    """The interval of a share is no narrower than that over pairs: networks may all have the same IIA, such as 1."""
    low, high = clopper_pearson(summary.mean * n_pairs, n_pairs)
    # comparisons with NaN are false: without an error there is no interval
    return summary._replace(
        low=low if low < summary.low else summary.low, high=high if high > summary.high else summary.high
    )


def paired(run: SweepRun) -> pd.DataFrame:
    """Paired tests of every two fits of a sweep that were scored on the same pairs of the same systems.

    Parameters
    ----------
    run : SweepRun

    Returns
    -------
    DataFrame
        A row per two fits, direction and measure (``iia``, ``retrieval``): ``systems``, ``first``, ``second`` (labels, with
        tags), ``first_fit``, ``second_fit``, ``source``, ``target``, ``subspace``, ``measure``, and the attributes of
        `neuromas.evaluation.paired.PairedTest`. ``p_value`` is of one test: no correction for their number. Evaluations of
        earlier versions have no rows.
    """
    fits: dict[tuple[str, ...], list[tuple[Planned, Evaluation, dict[str, str]]]] = {}
    for planned in run.jobs:
        fit = read_fit(job_folder(run.out, planned.job)) if planned.job.config is not None else None
        if fit is not None:
            report, evaluation = fit
            systems = tuple(system.name for system in planned.job.systems)
            fits.setdefault(systems, []).append((planned, evaluation, _names(planned.job, report)))
    rows: list[dict[str, Any]] = []
    for systems, scored in fits.items():
        # several labels may name one fit
        distinct = {planned.job.identity(): (planned, ours, names) for planned, ours, names in scored}
        for (first, ours, names), (second, theirs, _) in itertools.combinations(distinct.values(), 2):
            who = {"systems": " + ".join(systems), "first": _called(first), "second": _called(second)}
            who |= {"first_fit": first.job.identity()[:12], "second_fit": second.job.identity()[:12]}
            for row in paired_rows(ours, theirs):
                direction = {"source": names[str(row["source"])], "target": names[str(row["target"])]}
                rows.append({**row, **direction, **who})
    columns = [*("systems", "first", "second", "first_fit", "second_fit"), *("source", "target", "subspace", "measure")]
    return pd.DataFrame(rows, columns=[*columns, *PairedTest.__dataclass_fields__])


def _called(planned: Planned) -> str:
    """Label and tags of a fit."""
    return ", ".join([planned.label, *(f"{key} {value}" for key, value in planned.tags.items())])
