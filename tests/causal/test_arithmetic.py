"""The arithmetic task against a slow simulator that shares nothing with it but the words of the paper."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.causal.arithmetic import Arithmetic
from neuromas.causal.model import PAD

TASK = Arithmetic()
POSSIBLE = [(cumu_val, rem_ops) for cumu_val in range(21) for rem_ops in range(1, 10)]


def words(tokens) -> list[str]:
    return [TASK.vocabulary[token] for token in tokens if token != PAD]


def operations(heard: list[str]) -> list[tuple[int, str, int, int]]:
    """(value before, operator, operand, result) of each operation of a whole trial; fails where the paper is broken."""
    assert heard[0] == "B"
    n_operations, value, rest = int(heard[1]), int(heard[2]), heard[3:]
    assert 1 <= n_operations <= 10
    assert 0 <= value <= 20
    assert len(rest) == 5 * n_operations
    found = []
    for position in range(n_operations):
        operator, operand, equals, result, closing = rest[5 * position : 5 * position + 5]
        assert operator in ("+", "-")
        assert (value, operator) not in [(0, "-"), (20, "+")]
        assert equals == "="
        assert int(result) == (value + int(operand) if operator == "+" else value - int(operand))
        assert 0 <= int(result) <= 20
        assert 0 <= int(operand) <= 20
        assert closing == ("E" if position == n_operations - 1 else ",")
        found.append((value, operator, int(operand), int(result)))
        value = int(result)
    return found


def simulate(heard: list[str]) -> list[list[int]]:
    """[cumu_val, rem_ops] after each word, by reading all words so far."""
    told = []
    for end in range(1, len(heard) + 1):
        past = heard[:end]
        results = [after for word, after in pairwise(past) if word == "="]
        shown = past[2:3] + results
        told.append([int(shown[-1]) if shown else 0, int(past[1]) - len(results) if end > 1 else 0])
    return told


def foreseeable(heard: list[str], step: int) -> bool:
    """A.6: the = tokens, the cumu vals, commas, and the E token."""
    return heard[step] in ("=", ",", "E") or heard[step - 1] == "="


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_trials_are_what_the_paper_says(seed):
    trials = TASK.sample(3, seed)
    for row in range(len(trials)):
        heard = words(trials.tokens[row])
        operations(heard)
        assert trials.lengths[row] == len(heard)
        assert (trials.tokens[row, len(heard) :] == PAD).all()
        assert trials.values[row, : len(heard)].tolist() == simulate(heard)
        for step, word in enumerate(heard):
            assert trials.deterministic[row, step] == (step > 0 and foreseeable(heard, step))
            assert trials.eligible[row, step] == (word == ",")
        assert not trials.eligible[row, len(heard) :].any()
        assert not trials.deterministic[row, len(heard) :].any()


@settings(max_examples=60)
@given(st.lists(st.sampled_from(POSSIBLE), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_what_follows_an_intervention(values, seed):
    """As after a past that leads to just these values."""
    went_on = TASK.counterfactual(np.array(values), np.random.default_rng(seed))
    for row, (cumu_val, rem_ops) in enumerate(values):
        heard = words(went_on.tokens[row])
        first = ("-", 20 - cumu_val, 20) if cumu_val < 20 else ("+", 1, 19)  # into 20, or out of it
        operator, operand, start = first
        past = ["B", str(rem_ops + 1), str(start), operator, str(operand), "=", str(cumu_val), ","]
        whole = past + heard
        assert len(operations(whole)) == rem_ops + 1
        assert went_on.lengths[row] == len(heard)
        assert went_on.values[row, : len(heard)].tolist() == simulate(whole)[len(past) :]
        for step in range(len(heard)):
            assert went_on.deterministic[row, step] == foreseeable(whole, len(past) + step)
            assert went_on.eligible[row, step] == (heard[step] == ",")


def test_possible_values_are_those_that_eligible_steps_hold():
    every = np.array([(cumu_val, rem_ops) for cumu_val in range(-1, 23) for rem_ops in range(-1, 13)])
    assert [tuple(row) for row in every[TASK.possible(every)].tolist()] == POSSIBLE
    trials = TASK.sample(5000, 0)
    assert {tuple(row) for row in trials.values[trials.eligible].tolist()} == set(POSSIBLE)


@pytest.mark.parametrize(
    ("past", "values", "expected"),
    [("B 2 3 + 5 = 8 ,", (3, 1), 3), ("B 3 3 + 5 = 8 ,", (8, 1), 8)],
)
def test_the_papers_examples(past, values, expected):
    """A.7: after 3 in the place of cumu_val, or 1 in that of rem_ops, one operation on the value follows."""
    heard = past.split()
    tokens = np.array([TASK.vocabulary.index(word) for word in heard])
    state = TASK.start(1, np.random.default_rng(0))
    for token in tokens[1:]:
        state = TASK.transition(state, token[None])
    assert state[0, :2].tolist() == [8, int(heard[1]) - 1]
    after = words(TASK.counterfactual(np.array([values]), np.random.default_rng(4)).tokens[0])
    operator, operand, equals, result, end = after
    assert (equals, end) == ("=", "E")
    assert int(result) == expected + int(operator + operand)


def test_chances_are_the_papers():
    heard = [words(row) for row in TASK.sample(8000, 1).tokens]
    assert stats.chisquare(np.bincount([int(trial[1]) for trial in heard])[1:]).pvalue > 1e-4
    assert stats.chisquare(np.bincount([int(trial[2]) for trial in heard])).pvalue > 1e-4
    done = [operation for trial in heard for operation in operations(trial)]
    inside = [operator == "+" for value, operator, _, _ in done if 0 < value < 20]
    assert stats.binomtest(sum(inside), len(inside)).pvalue > 1e-4
    for before, operator, most in [(5, "+", 15), (5, "-", 5), (0, "+", 20), (20, "-", 20), (19, "+", 1)]:
        operands = [operand for value, how, operand, _ in done if (value, how) == (before, operator)]
        occurred = np.bincount(operands, minlength=most + 1)
        assert len(occurred) == most + 1
        assert stats.chisquare(occurred).pvalue > 1e-4


def test_tokens():
    """One token per number, base 21; 21 numbers, two operators, two marks, begin and end."""
    assert len(TASK.vocabulary) == 27
    assert [TASK.vocabulary[TASK.zero + value] for value in range(21)] == [str(value) for value in range(21)]
    marks = (TASK.begin, TASK.plus, TASK.minus, TASK.equals, TASK.comma, TASK.end)
    assert "".join(TASK.vocabulary[token] for token in marks) == "B+-=,E"
