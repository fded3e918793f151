"""A fit with two threads is that with one, but for rounding."""

from __future__ import annotations

import pytest
import torch

from neuromas.fit.fitters import CLMAS
from neuromas.recordings.store.locate import shipped_store
from neuromas.systems.training import load_system


@pytest.mark.slow
def test_the_number_of_threads_changes_the_rounding_alone():
    system, brain = load_system("multi-object/gru-0"), shipped_store().get("multi-object/gru-1")
    small = {"n_trials": 200, "n_train_pairs": 256, "n_validation_pairs": 64, "validate_every": 5, "max_iterations": 10}
    before, reports = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            reports.append(CLMAS(rank=16, preset="fast", **small).fit([system, brain]).report)
    finally:
        torch.set_num_threads(before)
    single, double = ([seen.loss for seen in report.history] for report in reports)
    assert len(single) == 3
    assert double == pytest.approx(single, rel=1e-5)
    assert [report.threads for report in reports] == [1, 2]
    assert reports[0].identity == reports[1].identity
