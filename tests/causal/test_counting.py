"""The multi-object task against a slow simulator that shares nothing with it but the words of the paper."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.causal.counting import MultiObject
from neuromas.causal.model import PAD

TASK = MultiObject()
LETTERS = {"B": "b", "D1": "d", "D2": "d", "D3": "d", "T": "t", "R": "r", "E": "e"}


def words(tokens) -> list[str]:
    return [TASK.vocabulary[token] for token in tokens if token != PAD]


def simulate(heard: list[str]) -> list[tuple[str, int]]:
    """(phase, count) after each token of a trial, by counting words."""
    told = []
    for end in range(1, len(heard) + 1):
        past = heard[:end]
        n_demos = sum(word.startswith("D") for word in past)
        answered = past.count("R")
        told.append(("response", n_demos - answered) if "T" in past else ("demo", n_demos))
    return told


def named(values) -> tuple[str, int]:
    phase = TASK.variables[0]
    return phase.label(float(values[0])), int(values[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_trials_are_what_the_paper_says(seed):
    trials = TASK.sample(3, seed)
    for row in range(len(trials)):
        heard = words(trials.tokens[row])
        spelled = "".join(LETTERS[word] for word in heard)
        match = re.fullmatch(r"b(d{1,20})t(r{1,20})e", spelled)
        assert match is not None, heard
        assert len(match[1]) == len(match[2])
        assert trials.lengths[row] == len(heard)
        assert (trials.tokens[row, len(heard) :] == PAD).all()
        for step, expected in enumerate(simulate(heard)):
            assert named(trials.values[row, step]) == expected
            assert trials.deterministic[row, step] == (heard[step] in "RE")
            assert trials.eligible[row, step] == (heard[step] not in "BTE")
        assert not trials.eligible[row, len(heard) :].any()
        assert not trials.deterministic[row, len(heard) :].any()


POSSIBLE = [(0, count) for count in range(1, 21)] + [(1, count) for count in range(20)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(POSSIBLE), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_what_follows_an_intervention(values, seed):
    went_on = TASK.counterfactual(np.array(values), np.random.default_rng(seed))
    for row, (phase, count) in enumerate(values):
        heard = words(went_on.tokens[row])
        spelled = "".join(LETTERS[word] for word in heard)
        before = ["B"] + ["D1"] * count
        if phase == 0:
            match = re.fullmatch(r"(d*)t(r*)e", spelled)
            assert match is not None, heard
            assert count + len(match[1]) <= 20
            assert len(match[2]) == count + len(match[1])
        else:
            assert spelled == "r" * count + "e"
            before = ["B"] + ["D1"] * 20 + ["T"] + ["R"] * (20 - count)
        assert went_on.lengths[row] == len(heard)
        for step, expected in enumerate(simulate(before + heard)[len(before) :]):
            assert named(went_on.values[row, step]) == expected
            assert went_on.deterministic[row, step] == (heard[step] in "RE")


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("count", range(-1, 23))
def test_which_values_are_possible(phase, count):
    assert TASK.possible(np.array([[phase, count]]))[0] == ((phase, count) in POSSIBLE)


def test_possible_values_are_those_that_eligible_steps_hold():
    trials = TASK.sample(5000, 0)
    held = {tuple(row) for row in trials.values[trials.eligible].tolist()}
    assert held == set(POSSIBLE)


def test_quantities_and_objects_are_uniform():
    trials = TASK.sample(20_000, 1)
    quantity = np.array([sum(word == "R" for word in words(row)) for row in trials.tokens])
    assert stats.chisquare(np.bincount(quantity, minlength=21)[1:]).pvalue > 1e-4
    objects = Counter(word for row in trials.tokens[:3000] for word in words(row) if word.startswith("D"))
    assert stats.chisquare(list(objects.values())).pvalue > 1e-4


@pytest.mark.parametrize("count", [1, 7, 20])
def test_further_objects_are_uniform_up_to_twenty(count):
    values = np.tile([0, count], (4000, 1))
    went_on = TASK.counterfactual(values, np.random.default_rng(2))
    further = np.array([sum(word.startswith("D") for word in words(row)) for row in went_on.tokens])
    occurred = np.bincount(further, minlength=21 - count)
    assert len(occurred) == 21 - count
    if count < 20:
        assert stats.chisquare(occurred).pvalue > 1e-4


def test_a_seed_is_all_there_is_to_a_sample():
    one, again, other = TASK.sample(50, 3), TASK.sample(50, np.random.default_rng(3)), TASK.sample(50, 4)
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert one.tokens.shape != other.tokens.shape or (one.tokens != other.tokens).any()
