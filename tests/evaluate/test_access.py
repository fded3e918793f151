"""What `access` says: whether the fit ran the target, whatever could have been run."""

from __future__ import annotations

import pytest

from neuromas import MAS, LatentStitch, Stitch, load_system

TINY = {"batch_size": 16, "n_trials": 60, "n_train_pairs": 64, "n_validation_pairs": 16, "max_iterations": 2}


@pytest.mark.parametrize(
    ("fitter", "ran"), [(LatentStitch(**TINY), ()), (Stitch(**TINY), ("gru-1",)), (MAS(4, **TINY), ("gru-0", "gru-1"))]
)
def test_access_is_what_the_fit_ran(fitter, ran):
    result = fitter.fit([load_system("multi-object/gru-0"), load_system("multi-object/gru-1")])
    assert result.report.ran == ran
    for score in result.evaluate(n_pairs=20).scores:
        assert (score.access == "yes") == (score.target in ran)
        assert score.iia is not None  # both can be run by the evaluation
