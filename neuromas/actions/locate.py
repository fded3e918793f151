"""Locate: a map of where a variable can be interchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuromas.actions.outputs import check_folder
from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.fit.folder import LOCATION, LOCATION_FIGURE, LOCATION_TABLE
from neuromas.fit.locate import Search
from neuromas.fit.locate import locate as search_in
from neuromas.report.locate import draw
from neuromas.schema.actions import LocateRequest
from neuromas.schema.fit import FitConfig
from neuromas.schema.locate import Location
from neuromas.systems.system import System
from neuromas.systems.training import load_system
from neuromas.text import csv_table


def locate(
    request: LocateRequest,
    out: str | Path,
    *,
    systems: list[System] | None = None,
    device: str = "cpu",
    report: Callable[[str], object] | None = None,
) -> Location:
    """Search, and write ``locate.json``, ``locate.csv`` and ``locate.png`` into `out`.

    Parameters
    ----------
    request : LocateRequest
    out : path-like
        Folder for the map.
    systems : list of System, optional
        The systems of the request, if they are open already.
    device : str
    report : callable, optional
        Called with what is done next, in words.

    Returns
    -------
    Location

    Raises
    ------
    NotFound
        A system, layer or variable does not exist.
    InvalidInput
        The systems share no layer, or as in a fit.
    """
    folder = check_folder(out)
    opened = [load_system(path, device) for path in request.systems] if systems is None else systems
    location = search_in(opened, _search(request, opened), device=device, report=report)
    write_atomically(folder / LOCATION_TABLE, csv_table(location.to_dataframe(), index=False))
    write_atomically(folder / LOCATION_FIGURE, draw(location))
    write_atomically(folder / LOCATION, location.to_json())
    return location


def _search(request: LocateRequest, systems: list[System]) -> Search:

    layers = request.layers or [layer for layer in systems[0].layers if all(layer in each.layers for each in systems)]
    if not layers:
        names = "; ".join(f"{system.name} has {', '.join(system.layers)}" for system in systems)
        raise InvalidInput(f"the systems share no layer: {names}", kind="invalid_option")
    variables = request.variables or (*get_task(systems[0].config.task).variable_names, "full")
    settings = {
        "method": "das" if len(systems) == 1 else "mas",
        "preset": "fast",
        "subspaces": {"full": 1},
        "n_trials": request.n_trials,
        "max_iterations": request.max_iterations,
        "seed": request.seed,
        "n_train_pairs": 4_000,
        "n_validation_pairs": 300,
    }
    return Search(
        layers=tuple(layers),
        variables=tuple(variables),
        ranks=tuple(sorted(set(request.ranks))),
        n_bins=request.n_bins,
        n_fits=request.n_fits,
        config=FitConfig.parse(settings, "locate"),
        n_pairs=request.n_pairs,
        seed=request.seed,
    )
