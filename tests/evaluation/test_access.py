"""What `ran` says: whether the fit ran the target, whatever could have been run."""

from __future__ import annotations

import pytest

from neuromas import MAS, LatentStitch, Stitch, load_system, shipped_store

TINY = {"batch_size": 16, "n_trials": 60, "n_train_pairs": 64, "n_validation_pairs": 16, "max_iterations": 2}


@pytest.mark.parametrize(
    ("fitter", "ran"), [(LatentStitch(**TINY), ()), (Stitch(**TINY), ("gru-1",)), (MAS(4, **TINY), ("gru-0", "gru-1"))]
)
def test_what_the_fit_ran(fitter, ran):
    result = fitter.fit([load_system("multi-object/gru-0"), load_system("multi-object/gru-1")])
    assert result.report.ran == ran
    for score in result.evaluate(n_pairs=20).scores:
        assert score.ran == (score.target in ran)
        assert score.iia is not None  # both can be run by the evaluation


def test_between_recordings_an_oracle_brings_the_task():
    brains = [shipped_store().get(f"multi-object/gru-{number}") for number in (0, 1)]
    result = LatentStitch(solver="closed-form", n_train_pairs=200, n_validation_pairs=20).fit(brains)
    assert [score.iia for score in result.evaluate(n_pairs=20, controls=()).scores] == [None, None]
    found = result.evaluate(n_pairs=20, controls=(), oracles={"gru-1": load_system("multi-object/gru-1")})
    scored = {score.target: score.iia for score in found.scores}
    assert scored["gru-0"] is None
    assert scored["gru-1"] is not None


def test_the_ceiling_is_not_compared_with_itself():
    result = MAS(4, **TINY).fit([load_system("multi-object/gru-0"), load_system("multi-object/gru-1")])
    for score in result.evaluate(n_pairs=20).scores:
        assert (score.cl_loss is None) == (score.method == "cl-ceiling")
        assert score.cl_spread is not None
        assert score.cl_spread > 0
