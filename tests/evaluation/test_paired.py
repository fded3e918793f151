"""Paired tests of two methods: exact where pairs are independent, and at their level by simulation where they share trials."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neuromas.errors import InvalidInput
from neuromas.evaluation.paired import mcnemar, paired_test


def two_methods(share, shared, n_pairs, n_trials, rng, *, by="source", gain=0.0):
    """Two equally good methods that are right by chance; a part `shared` of their difference belongs to trials."""
    source, target = rng.integers(n_trials, size=(2, n_pairs))
    trial = {"source": source, "target": target, "both": source}[by]
    draws = rng.normal(size=(2, n_pairs)) * np.sqrt(1 - shared)
    parts = [trial] if by != "both" else [source, target]
    for label in parts:
        draws += rng.normal(size=(2, n_trials))[:, label] * np.sqrt(shared / len(parts))
    threshold = stats.norm.ppf(share)
    first, second = draws[0] < threshold + gain, draws[1] < threshold
    return first, second, source, target


@pytest.mark.parametrize(("n_first", "n_second"), [(0, 0), (1, 0), (10, 2), (30, 31), (100, 60)])
def test_of_independent_pairs_is_mcnemars(n_first, n_second):
    first = np.r_[np.ones(n_first), np.zeros(n_second), np.ones(40)]
    second = np.r_[np.zeros(n_first), np.ones(n_second), np.ones(40)]
    test = paired_test(first, second)
    n = n_first + n_second
    tail = 2 * stats.binom.cdf(min(n_first, n_second), n, 0.5)
    assert test.p_value == pytest.approx(min(1.0, tail))
    assert (test.test, test.n_first, test.n_second) == ("McNemar", n_first, n_second)
    assert test.difference == pytest.approx((n_first - n_second) / (n + 40))
    assert test.low < test.difference < test.high
    assert mcnemar(n_first, n_second) == test.p_value


def test_a_permutation_of_single_pairs_agrees_with_mcnemar():
    # two pairs share a trial, so that trials are permuted; the two are equal in both methods
    first, second = np.r_[np.ones(60), np.zeros(35), 1, 1], np.r_[np.zeros(60), np.ones(35), 1, 1]
    trials = np.r_[np.arange(95), 95, 95]
    test = paired_test(first, second, trials, n_permutations=20_000)
    assert test.test == "permutation"
    assert test.p_value == pytest.approx(mcnemar(60, 35), abs=0.006)


def test_trials_are_exchanged_whole():
    # one trial of 50 pairs makes the difference: by pairs it is certain, by trials it is nothing
    first = np.r_[np.ones(50), np.ones(100)]
    second = np.r_[np.zeros(50), np.ones(100)]
    trials = np.r_[np.zeros(50), 1 + np.arange(100) // 2]
    assert paired_test(first, second).p_value < 1e-10
    assert paired_test(first, second, trials).p_value == 1.0
    assert paired_test(first, second, trials).low < 0


def test_all_sign_patterns_of_few_trials():
    # 6 trials, the first method better in each: 2 of 64 patterns are as extreme
    first, second = np.ones(24), np.zeros(24)
    test = paired_test(first, second, np.repeat(np.arange(6), 4), n_permutations=20_000)
    assert test.p_value == pytest.approx(2 / 64, abs=0.004)


def rejected(n_draws, seed, n_permutations=400, **options):
    rng = np.random.default_rng(seed)
    p_values = []
    for _ in range(n_draws):
        first, second, source, target = two_methods(rng=rng, **options)
        p_values.append(paired_test(first, second, source, target, n_permutations=n_permutations, seed=rng).p_value)
    return float(np.mean(np.array(p_values) <= 0.05))


CASES = [("source", 0.0), ("source", 0.3), ("target", 0.3), ("both", 0.4)]


@pytest.mark.parametrize(("by", "shared"), CASES)
def test_equal_methods_are_called_different_in_5_percent(by, shared):
    options = {"share": 0.7, "shared": shared, "n_pairs": 300, "n_trials": 60, "by": by}
    # 300 draws of 5 % have a standard error of 1.3 %
    assert 0.05 - 0.035 <= rejected(300, 3, **options) <= 0.05 + 0.035


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(("by", "shared"), CASES)
def test_equal_methods_are_called_different_in_5_percent_of_many_draws(by, shared, share):
    options = {"share": share, "shared": shared, "n_pairs": 1000, "n_trials": 200, "by": by}
    assert rejected(1000, 4, **options) == pytest.approx(0.05, abs=0.015)


def test_mcnemar_rejects_no_more_than_5_percent():
    rng = np.random.default_rng(5)
    n_first = rng.binomial(400, 0.5, size=4000)
    p_values = {int(n): mcnemar(int(n), 400 - int(n)) for n in np.unique(n_first)}
    rejects = np.array([p_values[int(n)] <= 0.05 for n in n_first])
    assert rejects.mean() == pytest.approx(0.05, abs=0.015)


def test_a_test_over_pairs_would_not_do():
    """What the permutation over trials is for: with gains that belong to trials, McNemar's test rejects far too often."""
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(200):
        first, second, *_ = two_methods(0.7, 0.5, 1000, 40, rng)
        p_values.append(paired_test(first, second).p_value)
    assert np.mean(np.array(p_values) <= 0.05) > 0.15


def test_a_planted_difference_is_seen_and_covered():
    rng = np.random.default_rng(8)
    truth = stats.norm.cdf(stats.norm.ppf(0.7) + 0.5) - 0.7
    tests = []
    for _ in range(150):
        outcomes = two_methods(0.7, 0.3, 600, 100, rng, gain=0.5)
        tests.append(paired_test(*outcomes, n_permutations=200, seed=rng))
    assert np.mean([test.p_value < 0.05 for test in tests]) > 0.95
    assert np.mean([test.low <= truth <= test.high for test in tests]) == pytest.approx(0.95, abs=0.045)


def test_equal_outcomes_leave_a_width():
    test = paired_test([1] * 1000, [1] * 1000, np.arange(1000) // 5)
    assert (test.difference, test.p_value) == (0.0, 1.0)
    assert test.low < -0.003 < 0.003 < test.high


def test_a_seed_decides():
    rng = np.random.default_rng(9)
    outcomes = two_methods(0.7, 0.3, 300, 60, rng)
    assert paired_test(*outcomes, seed=1) == paired_test(*outcomes, seed=1)


@pytest.mark.parametrize(
    ("first", "second", "trials", "kind"),
    [([], [], [], "too_few_values"), ([1], [1, 0], [], "shape_mismatch"), ([1, 0], [1, 0], [[1]], "shape_mismatch")],
)
def test_refused(first, second, trials, kind):
    with pytest.raises(InvalidInput) as caught:
        paired_test(first, second, *trials)
    assert caught.value.kind == kind
