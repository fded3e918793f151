"""Compare: a measure of similarity between two recordings of the same trials, or between RDMs in files or of conditions."""

from __future__ import annotations

from typing import Any

from neuromas.errors import InvalidInput
from neuromas.measures.comparison import MeasureResult
from neuromas.measures.comparison import compare as compare_recordings
from neuromas.measures.rdms import compare_rdm_files, names_rdm
from neuromas.measures.registry import get_measure
from neuromas.recordings.store.locate import existing_store
from neuromas.recordings.trust import trusting
from neuromas.schema.actions import CompareRequest
from neuromas.unpacking import largest


def compare(request: CompareRequest) -> MeasureResult:
    """Compare two recordings, or RDMs in files with each other or with those of a recording's conditions; nothing is run.

    Parameters
    ----------
    request : CompareRequest

    Returns
    -------
    MeasureResult

    Raises
    ------
    NotFound
        A recording, measure, unit or option that does not exist.
    InvalidInput
        Recordings that share no trials, a file without an RDM, or an option's value that cannot be used.
    """
    chosen: dict[str, Any] = {key.replace("-", "_"): value for key, value in request.option.items()}
    options = get_measure(request.measure).settled(chosen)
    draws: dict[str, Any] = {"n_samples": request.n_samples, "n_resamples": request.n_resamples, "seed": request.seed}
    units = {name: list(units) for name, units in request.units.items()}
    if request.by is None and not any(map(names_rdm, (request.x, request.y))):
        if request.conditions:
            raise InvalidInput("conditions= are for files with RDMs", kind="invalid_option")
        store = existing_store(request.store)
        return compare_recordings(
            store.get(request.x), store.get(request.y), request.measure, units=units, **draws, **options
        )
    x, y = (
        name if names_rdm(name) else existing_store(request.store).get(name, load=False)
        for name in (request.x, request.y)
    )
    with trusting(in_process=request.in_process, timeout_s=request.timeout_s), largest(request.largest_gib):
        return compare_rdm_files(
            x, y, request.measure, by=request.by, conditions=request.conditions, units=units, **draws, **chosen
        )
