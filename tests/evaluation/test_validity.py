"""Intervals and probes of a validation, against what is known in closed form or from another library; and its rules."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neuromas.errors import InvalidInput
from neuromas.evaluation.probe import Probe
from neuromas.evaluation.shares import share_of
from neuromas.evaluation.validity import Measured, judged_control, judged_fresh, judged_interchange, judged_kept
from neuromas.schema.validity import Share


class TestIntervals:
    @pytest.mark.parametrize("hits", [0, 1, 37, 99, 100])
    def test_a_pair_per_trial_is_exact(self, hits):
        share = share_of(np.arange(100) < hits, np.arange(100))
        exact = stats.binomtest(hits, 100).proportion_ci(0.95, method="exact")
        assert (share.low, share.high) == pytest.approx((exact.low, exact.high))
        assert share.low < share.high

    def test_pairs_that_always_agree_count_once_per_trial(self):
        right, trials = np.repeat(np.arange(20) < 12, 10), np.repeat(np.arange(20), 10)
        share, once = share_of(right, trials), share_of(np.arange(20) < 12, np.arange(20))
        # and a little wider, since 20 trials leave their correlation uncertain
        assert once.low - 0.03 < share.low <= once.low < once.high <= share.high < once.high + 0.03

    @pytest.mark.parametrize("correlation", [0.0, 0.3])
    @pytest.mark.parametrize("p", [0.5, 0.95])
    def test_it_holds_the_truth_in_nineteen_of_twenty(self, p, correlation):
        generator = np.random.default_rng(3)
        n_trials, size = 60, 5
        trials, covered = np.repeat(np.arange(n_trials), size), []
        for _ in range(400):
            # a share of trials has one outcome for all of its pairs: their correlation
            alike = generator.random(n_trials) < correlation
            whole = generator.random(n_trials) < p
            single = generator.random((n_trials, size)) < p
            right = np.where(alike[:, None], whole[:, None], single).ravel()
            share = share_of(right, trials)
            covered.append(share.low <= p <= share.high)
        assert np.mean(covered) >= 0.93

    def test_nothing_to_count_is_refused(self):
        with pytest.raises(InvalidInput, match="needs at least 1 outcome"):
            share_of([], [])


class TestProbe:
    def test_it_reads_as_another_library_does(self):
        generator = np.random.default_rng(0)
        values = generator.integers(5, size=2000)
        latents = generator.normal(size=(5, 8))[values] + generator.normal(size=(2000, 8))
        probe = Probe.fit(latents[:1000], values[:1000])
        known = LinearDiscriminantAnalysis(solver="lsqr").fit(latents[:1000], values[:1000])
        assert (probe.read(latents[1000:]) == known.predict(latents[1000:])).mean() > 0.995

    def test_latents_without_spread_within_values(self):
        values = np.arange(40) % 4
        probe = Probe.fit(np.eye(6)[values], values)
        assert (probe.read(np.eye(6)[values]) == values).all()

    def test_noise_is_read_at_chance(self):
        generator = np.random.default_rng(1)
        probe = Probe.fit(generator.normal(size=(2000, 6)), generator.integers(4, size=2000))
        read = probe.read(generator.normal(size=(2000, 6)))
        assert (read == generator.integers(4, size=2000)).mean() == pytest.approx(0.25, abs=0.04)

    def test_one_value_is_refused(self):
        with pytest.raises(InvalidInput, match="at least 2 values"):
            Probe.fit(np.zeros((3, 2)), np.ones(3))


def share(value, width=0.03):
    return Share(value=value, low=max(0, value - width), high=min(1, value + width), n=300)


@pytest.mark.parametrize(
    ("claim", "none", "outcome"),
    [(0.95, 0.05, "passed"), (0.3, 0.05, "failed"), (0.53, 0.05, "undecided"), (1.0, 1.0, "failed")],
)
def test_an_interchange_must_do_more_than_half(claim, none, outcome):
    assert judged_interchange(Measured("iia", share(claim), share(none), None, None)) == outcome


@pytest.mark.parametrize(("control", "outcome"), [(0.1, "passed"), (0.5, "undecided"), (0.8, "failed")])
def test_a_control_must_stay_below_the_middle(control, outcome):
    assert judged_control(Measured("iia", share(0.95), share(0.05), None, None), share(control)) == outcome


@pytest.mark.parametrize(("fresh", "outcome"), [(0.93, "passed"), (0.88, "undecided"), (0.7, "failed")])
def test_new_trials_may_cost_little(fresh, outcome):
    assert judged_fresh(share(0.95), share(fresh)) == outcome


@pytest.mark.parametrize(("kept", "outcome"), [(0.9, "passed"), (0.88, "undecided"), (0.6, "failed")])
def test_nine_of_ten_pairs_keep_what_they_should(kept, outcome):
    assert judged_kept(share(kept)) == outcome
