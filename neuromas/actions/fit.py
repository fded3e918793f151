"""Fit: one alignment, or one for every combination of settings, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from neuromas.actions.outputs import check_folder
from neuromas.files import write_atomically
from neuromas.fit.folder import RESULT
from neuromas.fit.progress import Progress
from neuromas.fit.request import Varied, parse_request, run_requests, settled, vary
from neuromas.fit.result import FitResult, results_table
from neuromas.schema.actions import FitsRequest
from neuromas.schema.fit import FitRequest
from neuromas.text import csv_table

TABLE = "table.csv"
"""The table of the fits of one request, in their common folder."""


@dataclass(frozen=True)
class Fits:
    """Fits of one request that are finished.

    Attributes
    ----------
    results : dict of str to FitResult
        By the name of the fit's folder; one fit alone has the name ``""``.
    points : dict of str to dict
        By name, the settings that tell each fit from the others.
    repeated : bool
        Whether everything was finished before, so that nothing was fitted now.
    """

    results: dict[str, FitResult]
    points: dict[str, Mapping[str, Any]]
    repeated: bool = False

    def table(self) -> pd.DataFrame:
        """A row per fit; see `results_table`."""
        return results_table(self.results, self.points)


def fits_request(document: Mapping[str, Any], where: str) -> FitsRequest:
    """The request that `document` spells, with the method's own defaults for what its configuration leaves out.

    Parameters
    ----------
    document : mapping
        Fields of `FitsRequest`; its ``config`` needs at least ``method``.
    where : str
        What it comes from, for messages.

    Raises
    ------
    InvalidDocument
        Lists every problem.
    """
    axes = document.get("vary") or {}
    request = parse_request({key: value for key, value in document.items() if key != "vary"}, where)
    return FitsRequest.parse({**request.model_dump(exclude_unset=True), "vary": axes}, where)


def fit(
    request: FitRequest,
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[str, Progress], None] | None = None,
) -> Fits:
    """Fit what `request` asks for into `out`.

    Interrupted, it goes on from the checkpoints there when it is called again. What is finished there is not fitted again. A
    request that varies settings leaves a folder per combination and ``table.csv``.

    Parameters
    ----------
    request : FitRequest or FitsRequest
    out : path-like
        Folder for checkpoints and results.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``, …
    progress : callable, optional
        Called with a fit's name and its `Progress` after each of its iterations.

    Returns
    -------
    Fits

    Raises
    ------
    InvalidInput
        `out` holds another fit, or the loss of a fit is no longer finite; other fits of the request end first.
    NotFound
        A system, store, recording, variable or unit that does not exist.
    ReadOnly
        The method would have to run what can only be read.
    """
    out = check_folder(out)
    request = settled(request)
    requests = {varied.name: varied.request for varied in combinations(request)}
    folders = {name: out / name for name in requests}
    repeated = all((folder / RESULT).is_file() for folder in folders.values())
    try:
        fit_all(requests, out, device=device, progress=progress)
    finally:
        if getattr(request, "vary", None):
            _write_table(finished(request, out), out)
    return replace(finished(request, out), repeated=repeated)


def fit_all(
    requests: Mapping[str, FitRequest],
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[str, Progress], None] | None = None,
) -> dict[str, FitResult]:
    """Fit several requests, each into a folder of its name in `out`; those of the same systems run together.

    Parameters and errors are those of `fit`.

    Returns
    -------
    dict of str to FitResult
        By name.
    """
    out = check_folder(out)
    results: dict[str, FitResult] = {}
    for group in sharing_systems(requests):
        results |= run_requests(group, out, device=device, progress=progress)
    return {name: results[name] for name in requests}


def sharing_systems(requests: Mapping[str, FitRequest]) -> list[dict[str, FitRequest]]:
    """Requests in groups that differ in their configuration alone, so that they can run together."""
    groups: dict[str, dict[str, FitRequest]] = {}
    for name, request in requests.items():
        groups.setdefault(request.model_dump_json(exclude={"config", "vary"}), {})[name] = request
    return list(groups.values())


def combinations(request: FitRequest) -> list[Varied]:
    """The fits that a request asks for, one for every combination of the settings that vary."""
    axes = getattr(request, "vary", None)
    plain = FitRequest(**{name: getattr(request, name) for name in FitRequest.model_fields})
    return vary(plain, axes) if axes else [Varied("", {}, plain)]


def finished(request: FitRequest, out: str | Path) -> Fits:
    """Those fits of `request` that are finished in `out`."""
    points = {varied.name: varied.point for varied in combinations(request)}
    done = [name for name in points if (Path(out) / name / RESULT).is_file()]
    return Fits({name: FitResult.load(Path(out) / name) for name in done}, {name: points[name] for name in done})


def _write_table(fits: Fits, out: Path) -> None:
    if fits.results:
        write_atomically(out / TABLE, csv_table(fits.table(), index=False))
