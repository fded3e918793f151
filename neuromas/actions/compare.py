"""Compare: a measure of similarity between two recordings of the same trials."""

from __future__ import annotations

from neuromas.measures.comparison import MeasureResult
from neuromas.measures.comparison import compare as compare_recordings
from neuromas.measures.registry import get_measure
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import CompareRequest


def compare(request: CompareRequest) -> MeasureResult:
    """Compare two recordings; nothing is run.

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
        Recordings that share no trials, or an option's value that cannot be used.
    """
    options = get_measure(request.measure).settled(
        {key.replace("-", "_"): value for key, value in request.option.items()}
    )
    store = existing_store(request.store)
    return compare_recordings(
        store.get(request.x),
        store.get(request.y),
        request.measure,
        n_samples=request.n_samples,
        n_resamples=request.n_resamples,
        seed=request.seed,
        units={name: list(units) for name, units in request.units.items()},
        **options,
    )
