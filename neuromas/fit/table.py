"""Columns of a table of fits: the same names for settings that vary and for sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from neuromas.schema.fit import FitReport

FIT_COLUMNS = (
    *("validation_loss", "validation_iia", "late_gain", "n_maps"),
    *("iterations", "status", "seconds"),
)
"""Columns about a fit in every table of fits."""
_EARLIER_OF_SETTINGS = {"loss": "validation_loss", "iia": "validation_iia"}


def fit_row(report: FitReport, n_maps: int) -> dict[str, Any]:
    """A fit's entries in a table.

    Parameters
    ----------
    report : FitReport
    n_maps : int
        Maps of its alignment.

    Returns
    -------
    dict of str to object
        `FIT_COLUMNS`, ``rank``, ``best_iteration`` and ``missed_pairs``. ``rank`` is that of all subspaces together.
        ``validation_loss`` and ``validation_iia`` (the worst direction's, None if nothing was run) are those of the best
        iteration; ``late_gain``: see there. ``seconds`` is wall time, which fits that ran together share. ``missed_pairs``: see
        `missed_share`.
    """
    best = next((seen for seen in report.history if seen.iteration == report.best_iteration), report.history[-1])
    return {
        "rank": rank(report),
        "validation_loss": best.loss,
        "validation_iia": min(best.iia.values(), default=None),
        "late_gain": late_gain(report),
        "n_maps": n_maps,
        "iterations": report.iterations,
        "best_iteration": report.best_iteration,
        "status": report.status,
        "seconds": report.seconds,
        "missed_pairs": missed_share(report),
    }


def missed_share(report: FitReport) -> float | None:
    """Share of the training pairs without a counterfactual latent, where it counts in the loss; None if it counts nowhere."""
    trained = [seen for seen in report.misses if seen.part == "train" and seen.direction in report.best.cl]
    return sum(seen.n_missed for seen in trained) / sum(seen.n_pairs for seen in trained) if trained else None


def rank(report: FitReport) -> int:
    """The rank of all subspaces together; without subspaces, the width of the narrowest system."""
    if report.config.subspaces is None:
        return min(system.n_units for system in report.inputs)
    return sum(report.config.subspaces.values())


def late_gain(report: FitReport) -> float:
    """By what share the best validation loss fell in the last quarter of the iterations: 0 if it no longer fell."""
    early = min(seen.loss for seen in report.history if seen.iteration <= 0.75 * report.iterations)
    return 1 - min(early, *(seen.loss for seen in report.history)) / early


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of fits that `neuromas fit --vary` or a sweep wrote, of this version or an earlier one.

    Parameters
    ----------
    path : path-like
        ``table.csv``.

    Returns
    -------
    DataFrame
        With today's names: an earlier ``access`` (yes, no) is ``ran`` (true, false); ``loss`` and ``iia`` of an earlier table of
        ``--vary`` are ``validation_loss`` and ``validation_iia``. ``fit`` is text.
    """
    table = pd.read_csv(path, dtype={"fit": str})
    if "access" in table:
        ran = table["access"].map({"yes": True, "no": False})
        table = table.assign(access=ran).rename(columns={"access": "ran"})
    if "loss" in table:
        table = table.rename(columns=_EARLIER_OF_SETTINGS)
    return table
