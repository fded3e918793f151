"""Bootstrap intervals against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neuromas.errors import InvalidInput
from neuromas.evaluate.inference import bootstrap_interval


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("n", [200, 1000])
def test_of_shares_is_the_binomial_interval(share, n):
    right = np.arange(n) < round(share * n)
    low, high = bootstrap_interval(right)
    # resampling n outcomes makes their sum binomial
    expected = stats.binom(n, right.mean()).ppf([0.025, 0.975]) / n
    np.testing.assert_allclose([low, high], expected, atol=3 / n + 0.1 * np.sqrt(share * (1 - share) / n))


def test_of_means_is_the_normal_interval():
    values = np.random.default_rng(0).exponential(size=2000)
    error = values.std() / np.sqrt(2000)
    expected = values.mean() + np.array([-1, 1]) * stats.norm.ppf(0.95) * error
    np.testing.assert_allclose(bootstrap_interval(values, level=0.9), expected, atol=0.1 * error)


def test_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = []
    for seed in range(150):
        low, high = bootstrap_interval(rng.random(150) < 0.4, level=0.9, n_resamples=400, seed=seed)
        covered.append(low <= 0.4 <= high)
    assert 0.82 <= np.mean(covered) <= 0.96


def test_all_equal():
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0)


def test_a_seed_is_all_there_is_to_it():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few(values):
    with pytest.raises(InvalidInput) as caught:
        bootstrap_interval(values)
    assert caught.value.kind == "too_few_values"
