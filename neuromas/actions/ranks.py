"""Ranks: what a nested fit reaches at every rank, as a table and a figure."""

from __future__ import annotations

from pathlib import Path

from neuromas.files import write_atomically
from neuromas.fit.folder import RANKS, RANKS_FIGURE, RANKS_TABLE
from neuromas.fit.request import oracles_by_side, reopen
from neuromas.fit.result import FitResult
from neuromas.report.ranks import draw
from neuromas.schema.actions import RanksRequest
from neuromas.schema.ranks import RankCurve
from neuromas.systems.training import load_system
from neuromas.text import csv_table


def ranks(request: RanksRequest, *, result: FitResult | None = None, device: str = "cpu") -> RankCurve:
    """Score a nested fit at every rank and write ``ranks.json``, ``ranks.csv`` and ``ranks.png`` into its folder.

    Parameters
    ----------
    request : RanksRequest
    result : FitResult, optional
        The fit with its systems, if it is open already.
    device : str

    Returns
    -------
    RankCurve

    Raises
    ------
    NotFound
        No fit in the folder, or a system, recording or oracle that does not exist.
    Corrupt
        Systems or recordings are not those that were fitted.
    InvalidInput
        The fit was not nested, or a rank is out of range.
    """
    folder = Path(request.folder)
    result = reopen(folder, store=request.store, device=device) if result is None else result
    oracles = oracles_by_side(result, {name: load_system(path, device) for name, path in request.oracle.items()})
    curve = result.ranks(request.ranks, oracles=oracles, n_pairs=request.n_pairs, part=request.part, seed=request.seed)
    write_atomically(folder / RANKS_TABLE, csv_table(curve.to_dataframe(), index=False))
    write_atomically(folder / RANKS_FIGURE, draw(curve))
    write_atomically(folder / RANKS, curve.to_json())
    return curve
