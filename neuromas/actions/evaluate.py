"""Evaluate: the score of a fit on held-out pairs, with its controls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from neuromas.actions.validate import validate
from neuromas.evaluation.paired import compare_evaluations
from neuromas.files import write_atomically
from neuromas.fit.folder import PAIRED, read_evaluation, write_evaluation
from neuromas.fit.request import oracles_by_side, reopen
from neuromas.fit.result import FitResult
from neuromas.schema.actions import EvaluateRequest, ValidateRequest
from neuromas.schema.evaluation import Evaluation
from neuromas.systems.training import load_system
from neuromas.text import csv_table

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    request: EvaluateRequest,
    *,
    result: FitResult | None = None,
    device: str = "cpu",
    progress: Callable[[str], object] | None = None,
) -> Evaluation:
    """Score a fit and write ``evaluation.json`` and ``iia.csv`` into its folder; with ``validity``, also ``validity.json``.

    An evaluation with other options that lies there is kept as ``evaluation-HASH.json`` and ``iia-HASH.csv``; a warning says so.

    Parameters
    ----------
    request : EvaluateRequest
    result : FitResult, optional
        The fit with its systems, if it is open already.
    device : str
    progress : callable, optional
        Called with what a validation does next, in words.

    Returns
    -------
    Evaluation

    Raises
    ------
    NotFound
        No fit in the folder, or a system, recording or oracle that does not exist.
    Corrupt
        Systems or recordings are not those that were fitted.
    InvalidInput
        An oracle for a system that can be run, or that is not the system that was recorded.
    """
    folder = Path(request.folder)
    if request.against is not None:
        read_evaluation(Path(request.against))  # before any work
    result = reopen(folder, store=request.store, device=device) if result is None else result
    oracles = oracles_by_side(result, {name: load_system(path, device) for name, path in request.oracle.items()})
    evaluation = result.evaluate(
        oracles=oracles,
        directions=None if request.directions is None else [_ends(text) for text in request.directions],
        controls=request.controls,
        n_pairs=request.n_pairs,
        part=request.part,
        seed=request.seed,
        method=request.label,
    )
    kept = write_evaluation(folder, evaluation)
    if kept is not None:
        warnings.warn(
            f"{folder} had an evaluation with other oracles or options; it is kept as {kept.name}", stacklevel=2
        )
    if request.validity:
        fields = request.model_dump(include={"folder", "store", "oracle", "part", "seed"})
        validate(ValidateRequest(**fields), result=result, device=device, progress=progress)
    return evaluation


def against(request: EvaluateRequest, evaluation: Evaluation) -> pd.DataFrame | None:
    """Paired tests of an evaluation and that of the fit that the request names, written as ``paired.csv``.

    Parameters
    ----------
    request : EvaluateRequest
    evaluation : Evaluation
        What `evaluate` returned for the request.

    Returns
    -------
    pandas.DataFrame or None
        As `neuromas.evaluation.paired.compare_evaluations`; None if the request names no other fit.

    Raises
    ------
    NotFound
        The other fit was not evaluated.
    InvalidInput
        The two evaluations scored other pairs.
    """
    if request.against is None:
        return None
    other = Path(request.against)
    tests = compare_evaluations(evaluation, read_evaluation(other))
    alike = tests["first"] == tests["second"]
    tests.loc[alike, "second"] = tests["second"][alike] + f" ({other})"
    write_atomically(Path(request.folder) / PAIRED, csv_table(tests, index=False))
    return tests


def _ends(direction: str) -> tuple[str, str]:
    source, target = direction.split(":")
    return source, target
