"""Errors of means over networks, against closed forms and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.evaluation.networks import over_networks


def pairs_within(n):
    return list(itertools.combinations([f"n{i}" for i in range(n)], 2))


def test_single_networks_have_the_standard_error():
    values = np.array([0.3, 0.6, 0.9, 0.7])
    summary = over_networks(values, [[name] for name in "abcd"])
    assert summary.error == pytest.approx(values.std(ddof=1) / 2)
    assert summary.high - summary.mean == pytest.approx(3.1824 * summary.error, rel=1e-4)


def test_pairs_that_add_up_have_twice_the_error_of_their_networks():
    effects = np.random.default_rng(0).normal(size=5)
    values = [effects[int(a[1:])] + effects[int(b[1:])] for a, b in pairs_within(5)]
    summary = over_networks(values, pairs_within(5))
    assert summary.error == pytest.approx(2 * effects.std(ddof=1) / math.sqrt(5))
    assert (summary.n, summary.n_networks) == (10, 5)


def test_two_kinds_of_networks_add_their_variances():
    first, second = np.array([0.1, 0.5]), np.array([0.2, 0.3, 0.9])
    names = [(f"a{i}", f"b{j}") for i in range(2) for j in range(3)]
    summary = over_networks([first[i] + second[j] for i in range(2) for j in range(3)], names)
    assert summary.error == pytest.approx(math.sqrt(first.var(ddof=1) / 2 + second.var(ddof=1) / 3))


def coverage(effect, noise, n_networks, n_draws):
    rng = np.random.default_rng(1)
    names, covered, naive = pairs_within(n_networks), [], []
    for _ in range(n_draws):
        effects = effect * rng.normal(size=n_networks)
        values = np.array([effects[int(a[1:])] + effects[int(b[1:])] for a, b in names]) + noise * rng.normal(
            size=len(names)
        )
        summary = over_networks(values, names)
        covered.append(summary.low <= 0 <= summary.high)
        naive.append(abs(values.mean()) <= 2.571 * values.std(ddof=1) / math.sqrt(len(values)))
    return np.mean(covered), np.mean(naive)


def test_intervals_cover_where_pairs_share_networks_and_the_naive_error_does_not():
    covered, naive = coverage(1.0, 0.2, 4, 1000)
    assert covered == pytest.approx(0.95, abs=0.025)
    assert naive < 0.85


def test_without_shared_effects_the_interval_is_too_wide_never_too_narrow():
    covered, _ = coverage(0.0, 1.0, 4, 500)
    assert covered > 0.95


@pytest.mark.parametrize("names", [[["a"]], [["a", "b"]], [["a", "b", "c", "d"]]])
def test_one_choice_has_no_error(names):
    summary = over_networks([0.7], names)
    assert summary.mean == 0.7
    assert all(math.isnan(value) for value in (summary.error, summary.low, summary.high))


def test_an_interval_ends_at_its_bounds():
    summary = over_networks([0.9, 1.0, 1.0], [["a"], ["b"], ["c"]], bounds=(0, 1))
    assert summary.high == 1.0
    assert summary.low < 0.9


@pytest.mark.parametrize(("values", "names", "kind"), [([], [], "too_few_values"), ([1.0], [], "shape_mismatch")])
def test_refused(values, names, kind):
    with pytest.raises(InvalidInput) as caught:
        over_networks(values, names)
    assert caught.value.kind == kind
