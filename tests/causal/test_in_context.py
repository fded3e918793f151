"""The in-context task: the paper's words, and quantities up to 12."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.causal.in_context import PROMPT, InContext
from neuromas.causal.model import PAD, get_task
from neuromas.errors import InvalidInput


def said(task: InContext, tokens: np.ndarray) -> str:
    return " ".join(task.vocabulary[token] for token in tokens if token != PAD)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_trials_are_what_the_paper_says(seed):
    task = InContext()
    trials = task.sample(4, seed)
    for row in range(len(trials)):
        match = re.fullmatch(r"B((?: nut)+) :((?: seed)+) stop", said(task, trials.tokens[row]))
        assert match is not None
        nuts, seeds = match[1].split(), match[2].split()
        assert len(nuts) == len(seeds) <= 12
        n = len(nuts)
        expected = [(0, 0), *((0, k + 1) for k in range(n)), *((1, n - k) for k in range(n + 1)), (1, 0)]
        assert [tuple(value) for value in trials.values[row, : trials.lengths[row]].tolist()] == expected
        assert trials.deterministic[row].sum() == n + 1  # each "seed", and "stop"
        assert trials.eligible[row].sum() == 2 * n  # each "nut" and each "seed"


def test_the_prompts_examples_are_trials_of_the_task():
    task = InContext()
    for example in re.findall(r"Example: User: (.*)", PROMPT):
        words = example.split()
        state = task.start(1, np.random.default_rng(0))
        state[:, 2] = words.count("nut")
        for word in words:
            emitted, _ = task.emit(state, np.random.default_rng(0))
            assert task.vocabulary[emitted[0]] == word
            state = task.transition(state, emitted)


def test_every_word_of_a_trial_is_in_the_prompt():
    assert all(word in PROMPT for word in InContext.vocabulary[1:])
    assert not PROMPT.endswith((" ", "\n"))  # each word of a trial brings the space before it


def test_quantities_are_uniform_up_to_12():
    task = InContext()
    trials = task.sample(6000, 0)
    quantity = (trials.tokens == task.demos[0]).sum(axis=1)
    occurred = np.bincount(quantity)
    assert len(occurred) == 13
    assert occurred[0] == 0
    assert stats.chisquare(occurred[1:]).pvalue > 1e-4
    assert task.variables[1].values == tuple(range(13))
    every = np.array([(phase, count) for phase in (0, 1) for count in range(-1, 15)])
    assert set(map(tuple, every[task.possible(every)].tolist())) == set(
        map(tuple, trials.values[trials.eligible].tolist())
    )


def test_an_intervention_keeps_the_quantity_within_12():
    task = InContext()
    went_on = task.counterfactual(np.tile([0, 9], (500, 1)), np.random.default_rng(1))
    quantity = 9 + (went_on.tokens == task.demos[0]).sum(axis=1)
    assert set(quantity.tolist()) == {9, 10, 11, 12}
    assert ((went_on.tokens == task.response).sum(axis=1) == quantity).all()


@settings(max_examples=40)
@given(
    values=st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 11)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_what_follows_an_intervention_is_said_by_counting_words(values, seed):
    """Words, values after each, and which can be foreseen, from regular expressions over the sentence alone."""
    task = InContext()
    went_on = task.counterfactual(np.array(values), np.random.default_rng(seed))
    for row, (phase, count) in enumerate(values):
        heard = said(task, went_on.tokens[row])
        match = re.fullmatch(r"((?:nut )*): ((?:seed )*)stop" if phase == 0 else r"()((?:seed )*)stop", heard)
        assert match is not None, heard
        more, left = (len(part.split()) for part in match.groups())
        assert left == (count + more if phase == 0 else count) <= 12
        nuts = [(0, count + k + 1) for k in range(more)]
        seeds = [(1, left - k) for k in range(left + 1)] if phase == 0 else [(1, left - k - 1) for k in range(left)]
        found = went_on.values[row, : went_on.lengths[row]].tolist()
        assert [tuple(value) for value in found] == [*nuts, *seeds, (1, 0)]
        live = slice(went_on.lengths[row])
        words = heard.split()
        assert went_on.deterministic[row, live].tolist() == [word in ("seed", "stop") for word in words]
        assert went_on.eligible[row, live].tolist() == [word in ("nut", "seed") for word in words]


def test_options_are_those_of_counting():
    assert get_task("in-context", hold_out=[4, 9]).quantities.tolist() == [1, 2, 3, 5, 6, 7, 8, 10, 11, 12]
    with pytest.raises(InvalidInput, match=r"among 1\.\.12.*got \[14\]"):
        InContext(hold_out=[14])
