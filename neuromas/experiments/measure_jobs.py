"""Measures of a sweep: two systems compared on the same trials."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from neuromas import dims
from neuromas.actions.compare import compare
from neuromas.causal.balanced import N_PER_QUANTITY
from neuromas.experiments.attempts import Report
from neuromas.experiments.jobs import check_weights
from neuromas.experiments.recorded import recorded_for_measure, recording_store
from neuromas.provenance import now, versions
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import CompareRequest
from neuromas.schema.document import Provenance
from neuromas.schema.sweep import MeasureReport, SweepJob


def measure(job: SweepJob, out: Path, report: Report) -> MeasureReport:
    """Compare two systems on the same trials, which show every object quantity equally often (paper 2.7, A.3)."""
    assert job.measure is not None
    started = time.monotonic()
    options = dict(job.options)
    per_quantity = options.pop("n_per_quantity", N_PER_QUANTITY)
    allow_unsolved = options.pop("allow_unsolved", False)
    for entry in job.systems:
        check_weights(entry, out)
    x, y = (recorded_for_measure(job, place, per_quantity, allow_unsolved, out, report) for place in range(2))
    store = recording_store(out)
    common = {key: options.pop(key) for key in ("n_samples", "n_resamples", "seed") if key in options}
    result = compare(CompareRequest(x=x, y=y, measure=job.measure, store=str(store), option=options, **common))
    return MeasureReport(
        job=job,
        options=result.options,
        values=result.values,
        mean=result.mean,
        low=result.low,
        high=result.high,
        n_trials=np.unique(RecordingStore(store).get(x, load=False).dataset[dims.TRIAL]).size,
        n_samples=result.n_samples,
        n_usable=result.n_usable,
        seconds=time.monotonic() - started,
        provenance=Provenance(
            source=f"{job.measure} of {job.systems[0].name} and {job.systems[1].name}",
            seed=job.options.get("seed", 0),
            created=now(),
            versions=versions(),
        ),
    )
