"""Measures of a sweep: two systems compared on the same trials."""

from __future__ import annotations

import time
from collections.abc import Sequence

from neuromas.causal.balanced import N_PER_QUANTITY, balanced_trials
from neuromas.causal.model import get_task
from neuromas.measures.comparison import compare
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.sweep import MeasureReport, SweepJob
from neuromas.systems.capture import capture
from neuromas.systems.system import System


def measure(job: SweepJob, systems: Sequence[System]) -> MeasureReport:
    """Compare two systems on the same trials, which show every object quantity equally often (paper 2.7, A.3)."""
    assert job.measure is not None
    started = time.monotonic()
    options = dict(job.options)
    allow_unsolved = options.pop("allow_unsolved", False)
    n_per_quantity, seed = options.pop("n_per_quantity", N_PER_QUANTITY), options.get("seed", 0)
    first, second = systems
    model = get_task(first.config.task)
    trials = balanced_trials(model, n_per_quantity, seed)
    x, y = (
        capture(system, trials, model=model, name=f"{letter}.{system.name}", allow_unsolved=allow_unsolved)
        for letter, system in zip("xy", (first, second), strict=True)
    )
    comparison = compare(x, y, job.measure, **options)
    return MeasureReport(
        job=job,
        options=comparison.options,
        values=comparison.values,
        mean=comparison.mean,
        low=comparison.low,
        high=comparison.high,
        n_trials=len(trials),
        n_samples=comparison.n_samples,
        n_usable=comparison.n_usable,
        seconds=time.monotonic() - started,
        provenance=Provenance(
            source=f"{job.measure} of {job.systems[0].name} and {job.systems[1].name}",
            seed=seed,
            created=now(),
            versions=versions(),
        ),
    )
