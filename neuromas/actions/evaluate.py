"""Evaluate: the score of a fit on held-out pairs, with its controls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from neuromas.actions.validate import validate
from neuromas.fit.folder import write_evaluation
from neuromas.fit.request import oracles_by_side, reopen
from neuromas.fit.result import FitResult
from neuromas.schema.actions import EvaluateRequest, ValidateRequest
from neuromas.schema.evaluation import Evaluation
from neuromas.systems.training import load_system


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


def _ends(direction: str) -> tuple[str, str]:
    source, target = direction.split(":")
    return source, target
