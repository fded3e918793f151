"""Validate: the controls that the claim of a fit must survive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuromas.fit.folder import write_validity
from neuromas.fit.request import oracles_by_side, reopen
from neuromas.fit.result import FitResult
from neuromas.schema.actions import ValidateRequest
from neuromas.schema.validity import Validity
from neuromas.systems.training import load_system


def validate(
    request: ValidateRequest,
    *,
    result: FitResult | None = None,
    device: str = "cpu",
    progress: Callable[[str], object] | None = None,
) -> Validity:
    """Try the controls on a fit and write ``validity.json`` and ``validity.csv`` into its folder.

    Parameters
    ----------
    request : ValidateRequest
    result : FitResult, optional
        The fit with its systems, if it is open already.
    device : str
    progress : callable, optional
        Called with what is done next, in words.

    Returns
    -------
    Validity

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
    validity = result.validate(
        oracles=oracles,
        checks=request.checks,
        n_pairs=request.n_pairs,
        part=request.part,
        seed=request.seed,
        progress=progress,
    )
    write_validity(folder, validity)
    return validity
