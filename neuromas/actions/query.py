"""Query: recorded latents by the values of their variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.index.index import CLIndex
from neuromas.index.query import parse_query
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import QueryRequest


@dataclass(frozen=True)
class QueryResult:
    """The latents that match a query.

    Attributes
    ----------
    index : CLIndex
        What was searched; it counts what was left out.
    samples : ndarray of int64, shape (n,)
        Rows of the recording.
    latents : Recording
        These samples, in the units asked for.
    """

    index: CLIndex
    samples: NDArray[np.int64]
    latents: Recording


def query(request: QueryRequest) -> QueryResult:
    """Find recorded latents whose variables hold the values asked for.

    A recording that is stored grouped by these variables is searched on disk; others are loaded.

    Parameters
    ----------
    request : QueryRequest

    Returns
    -------
    QueryResult

    Raises
    ------
    NotFound
        A recording, variable or unit that does not exist.
    InvalidInput
        A value that the variable cannot hold.
    NoMatch
        No recorded latent holds these values; says which values are recorded.

    Examples
    --------
    >>> found = query(QueryRequest(recording="multi-object/gru-1", values={"phase": "demo", "count": 3}, n=5))
    >>> found.latents.n_samples
    5
    """
    values = predicates(request.values)
    store = existing_store(request.store)
    recording = store.get(request.recording, load=False)
    names = list(values) or recording.variable_names
    if not set(names) <= set(recording.manifest.grouped_by):
        recording = store.get(request.recording)
    index = CLIndex(recording, names, units=None if request.units is None else list(request.units))
    samples = index.query(values, request.n, request.seed)["sample"].values
    return QueryResult(index, samples, recording.select_samples(samples).select_units(index.units))


def predicates(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `CLIndex.query` takes for the values of a request: text may say ``1,3``, ``2..5`` or ``any``."""
    words = [f"{name}={value}" for name, value in values.items() if isinstance(value, str)]
    parsed = parse_query(words)
    return {name: parsed.get(name, value) for name, value in values.items()}
