"""Plan: the stimulation that would make a system hold other values."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from neuromas.actions.outputs import check_file
from neuromas.align.side import Side
from neuromas.errors import NotFound, suggestion
from neuromas.evaluation.stimulation import save_plan, stimulation_plan
from neuromas.fit.request import reopen
from neuromas.fit.result import FitResult
from neuromas.recordings.export import check_ending
from neuromas.schema.actions import PlanRequest


def plan(request: PlanRequest, out: str | Path, *, device: str = "cpu") -> xr.Dataset:
    """Work out a stimulation plan from a fit and write it to `out`.

    Parameters
    ----------
    request : PlanRequest
    out : path-like
        ``.nc``, or ``.csv`` with a row per sample and unit.
    device : str

    Returns
    -------
    xarray.Dataset
        See `neuromas.evaluation.stimulation.stimulation_plan`.

    Raises
    ------
    NotFound
        No fit in the folder, or a system, variable or subspace that does not exist.
    InvalidInput
        An ending that stands for no format, or values that the target cannot hold.
    """
    check_file(check_ending(Path(out), (".nc", ".csv")))
    result = reopen(request.folder, store=request.store, device=device)
    made = stimulation_plan(
        result.alignment,
        side_of(result, request.source, request.folder),
        side_of(result, request.target, request.folder),
        request.want,
        subspace=request.subspace,
        part=request.part,
        n_samples=request.n_samples,
        n_sources=request.n_sources,
        n_after=request.n_after,
        seed=request.seed,
    )
    save_plan(made, Path(out))
    return made


def side_of(result: FitResult, name: str, where: str) -> Side:
    """The side of a fit by its name, or by its recording's; NotFound for another."""
    sides = {known: side for side in result.sides for known in (side.recording.name, side.name)}
    if name not in sides:
        names = [side.name for side in result.sides]
        raise NotFound(
            f"{where} joins {', '.join(names)}, not {name!r}{suggestion(name, names)}", kind="unknown_system"
        )
    return sides[name]
