"""The counting tasks against a slow simulator that shares nothing with them but the words of the paper."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.causal.counting import HOLD_OUT, Modulo, MultiObject, Rounding, SameObject
from neuromas.causal.model import PAD, TASKS
from neuromas.errors import InvalidInput

KINDS = (MultiObject, SameObject, Modulo, Rounding)
OPTIONS = ({}, {"void": 0.2}, {"hold_out": HOLD_OUT}, {"void": 0.5, "hold_out": [20, 1, 7, 19]})
CASES = [(kind, options) for kind in KINDS for options in OPTIONS]
IDS = [f"{kind.name}-{index}" for kind in KINDS for index in range(len(OPTIONS))]


def answers(name: str, quantity: int) -> int:
    """How many responses the paper asks for."""
    if name == "modulo":
        while quantity >= 4:
            quantity -= 4
        return quantity
    if name == "rounding":
        nearest = sorted(range(0, 30, 3), key=lambda multiple: abs(multiple - quantity))
        assert abs(nearest[0] - quantity) < abs(nearest[1] - quantity)  # no ties
        return nearest[0]
    return quantity


def allowed(options: dict) -> list[int]:
    return [quantity for quantity in range(1, 21) if quantity not in options.get("hold_out", ())]


def words(task, tokens) -> list[str]:
    return [task.vocabulary[token] for token in tokens if token != PAD]


def spell(heard: list[str], answering: bool = False) -> str:
    """One letter per word: what it is, as told by the words before it."""
    letters = ""
    for word in heard:
        if word[0] in "DC" and not answering:
            letters += "d"
        else:
            letters += {"C": "r", "D1": "?", "D2": "?", "D3": "?"}.get(word, word.lower())
        answering = answering or word == "T"
    return letters


def simulate(name: str, letters: str) -> list[tuple[str, int]]:
    """(phase, count) after each letter of a trial, by counting letters."""
    told = []
    for end in range(1, len(letters) + 1):
        past = letters[:end]
        n_demos = past.count("d")
        in_response = "t" in past
        told.append(("response", answers(name, n_demos) - past.count("r")) if in_response else ("demo", n_demos))
    return told


def named(task, values) -> tuple[str, int]:
    return task.variables[0].label(float(values[0])), int(values[1])


def possible(name: str, options: dict) -> list[tuple[int, int]]:
    """What eligible steps can hold: each demo and each response of each trial there is."""
    demo = {(0, seen) for quantity in allowed(options) for seen in range(1, quantity + 1)}
    response = {(1, left) for quantity in allowed(options) for left in range(answers(name, quantity))}
    return sorted(demo | response)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_trials_are_what_the_paper_says(kind, options, seed):
    task = kind(**options)
    trials = task.sample(3, seed)
    for row in range(len(trials)):
        heard = words(task, trials.tokens[row])
        letters = spell(heard)
        match = re.fullmatch(r"b([dv]*)t(r*)e", letters)
        assert match is not None, heard
        quantity = match[1].count("d")
        assert quantity in allowed(options)
        assert len(match[2]) == answers(task.name, quantity)
        assert options.get("void") or "v" not in letters
        assert trials.lengths[row] == len(heard)
        assert (trials.tokens[row, len(heard) :] == PAD).all()
        for step, expected in enumerate(simulate(task.name, letters)):
            assert named(task, trials.values[row, step]) == expected
            assert trials.deterministic[row, step] == (letters[step] in "re")
            assert trials.eligible[row, step] == (letters[step] in "dr")
        assert not trials.eligible[row, len(heard) :].any()
        assert not trials.deterministic[row, len(heard) :].any()


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_what_follows_an_intervention(kind, options, data, seed):
    task = kind(**options)
    held = st.sampled_from(possible(task.name, options))
    values = data.draw(st.lists(held, min_size=1, max_size=5))
    went_on = task.counterfactual(np.array(values), np.random.default_rng(seed))
    for row, (phase, count) in enumerate(values):
        heard = words(task, went_on.tokens[row])
        letters = spell(heard, answering=phase == 1)
        if phase == 0:
            before = "b" + "d" * count
            match = re.fullmatch(r"([dv]*)t(r*)e", letters)
            assert match is not None, heard
            quantity = count + match[1].count("d")
            assert quantity in allowed(options)
            assert len(match[2]) == answers(task.name, quantity)
        else:
            quantity = next(n for n in range(20, 0, -1) if answers(task.name, n) >= count)
            before = "b" + "d" * quantity + "t" + "r" * (answers(task.name, quantity) - count)
            assert letters == "r" * count + "e"
        assert went_on.lengths[row] == len(heard)
        for step, expected in enumerate(simulate(task.name, before + letters)[len(before) :]):
            assert named(task, went_on.values[row, step]) == expected
            assert went_on.deterministic[row, step] == (letters[step] in "re")
            assert went_on.eligible[row, step] == (letters[step] in "dr")


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
def test_possible_values_are_those_that_eligible_steps_hold(kind, options):
    task = kind(**options)
    known = possible(task.name, options)
    every = np.array([(phase, count) for phase in (0, 1) for count in range(-1, 25)])
    assert [tuple(row) for row in every[task.possible(every)].tolist()] == known
    trials = task.sample(5000, 0)
    assert {tuple(row) for row in trials.values[trials.eligible].tolist()} == set(known)


def test_possible_values_of_the_tasks_as_registered():
    every = np.array([(1, count) for count in range(25)])
    highest = {kind.name: every[kind().possible(every)][:, 1].max() for kind in KINDS}
    assert highest == {"multi-object": 19, "same-object": 19, "modulo": 2, "rounding": 20}


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (MultiObject, "B D1 D1"),
        (MultiObject, "B D1 D2 D3 T R"),
        (SameObject, "B C C"),
        (SameObject, "B C C C T C"),
        (Modulo, "B D1 D2"),
        (Modulo, "B D1 D1 D1 D3 D1 D2 D1 T R"),
        (Rounding, "B D3 D3"),
        (Rounding, "B D1 D1 D1 D2 T R"),
    ],
)
def test_the_papers_examples_of_count(kind, heard):
    """A.7: each of these sequences has a count of 2 at the last token."""
    task = kind()
    state = task.start(1, np.random.default_rng(0))
    for word in heard.split()[1:]:
        state = task.transition(state, np.array([task.vocabulary.index(word)]))
    assert state[0, 1] == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"hold_out": HOLD_OUT}])
def test_quantities_are_uniform(kind, options):
    task = kind(**options)
    trials = task.sample(20_000, 1)
    quantity = (trials.eligible & (trials.values[..., 0] == 0)).sum(axis=1)
    occurred = np.bincount(quantity, minlength=21)[1:]
    assert np.flatnonzero(occurred).tolist() == [n - 1 for n in allowed(options)]
    assert stats.chisquare(occurred[occurred > 0]).pvalue > 1e-4


def test_objects_are_uniform():
    task = MultiObject()
    objects = Counter(word for row in task.sample(3000, 1).tokens for word in words(task, row) if word.startswith("D"))
    assert stats.chisquare(list(objects.values())).pvalue > 1e-4


@pytest.mark.parametrize("count", [1, 7, 14, 20])
@pytest.mark.parametrize("options", [{}, {"hold_out": HOLD_OUT}])
def test_quantities_are_uniform_after_an_intervention(count, options):
    values = np.tile([0, count], (4000, 1))
    went_on = MultiObject(**options).counterfactual(values, np.random.default_rng(2))
    further = (went_on.eligible & (went_on.values[..., 0] == 0)).sum(axis=1)
    occurred = np.bincount(count + further, minlength=21)
    assert np.flatnonzero(occurred).tolist() == [n for n in allowed(options) if n >= count]
    if count < 20:
        assert stats.chisquare(occurred[occurred > 0]).pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_of_the_demo_phase_is_void_with_the_given_chance(kind):
    """Those before a demo and those before the trigger alike: what comes after a V cannot be told from it."""
    task = kind(void=0.2)
    trials = task.sample(4000, 3)
    void, trigger = task.vocabulary.index("V"), task.vocabulary.index("T")
    live = np.arange(trials.tokens.shape[1]) < trials.lengths[:, None]
    in_demo = live & (trials.values[..., 0] == 0)
    before_trigger = trials.tokens[:, :-1][trials.tokens[:, 1:] == trigger]
    first = trials.tokens[:, 1]
    for found, of in [
        ((trials.tokens[in_demo] == void).sum(), in_demo.sum()),  # B is no draw, but T, outside the phase, is one
        ((before_trigger == void).sum(), len(before_trigger)),
        ((first == void).sum(), len(first)),
    ]:
        assert stats.binomtest(int(found), int(of), 0.2).pvalue > 1e-4
    assert not (trials.tokens[~in_demo & live] == void).any()


@pytest.mark.parametrize("kind", KINDS)
def test_void_tokens_leave_the_other_tokens_their_numbers(kind):
    assert kind(void=0.2).vocabulary == (*kind().vocabulary, "V")
    assert "V" not in kind.vocabulary


def test_options_are_told():
    assert MultiObject(void=0.2, hold_out={9, 4}).options == "void=0.2, hold_out=(4, 9)"
    assert Modulo(hold_out=[4]).options == "hold_out=(4,)"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"void": 1.0}, "void in 0 <= void < 1, got 1.0"),
        ({"void": -0.1}, "got -0.1"),
        ({"void": float("nan")}, "got nan"),
        ({"hold_out": [0, 3]}, r"among 1\.\.20.*got \[0, 3\]"),
        ({"hold_out": [21]}, r"got \[21\]"),
        ({"hold_out": range(1, 21)}, "not all of them"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(InvalidInput, match=told) as caught:
        Rounding(**options)
    assert caught.value.kind == "invalid_option"


def test_without_options_the_draws_are_those_of_the_first_version():
    """Trials that shipped systems were trained on come again from the same seeds: so many draws, in this order."""
    task = MultiObject()
    for seed in range(5):
        trials = task.sample(16, seed)
        generator = np.random.default_rng(seed)
        quantity = generator.integers(1, 20, endpoint=True, size=16)
        demos = [generator.integers(1, 3, endpoint=True, size=16) for _ in range(20)]
        for row, n in enumerate(quantity):
            expected = [0, *(draw[row] for draw in demos[:n]), 4, *[5] * n, 6]
            assert trials.tokens[row, : len(expected)].tolist() == expected
        values = trials.values[trials.eligible]
        went_on = task.counterfactual(values, np.random.default_rng(seed))
        room = np.where(values[:, 0] == 0, 20 - values[:, 1], 0)
        further = np.random.default_rng(seed).integers(0, room, endpoint=True)
        np.testing.assert_array_equal((went_on.eligible & (went_on.values[..., 0] == 0)).sum(axis=1), further)


def test_a_seed_is_all_there_is_to_a_sample():
    task = MultiObject()
    one, again, other = task.sample(50, 3), task.sample(50, np.random.default_rng(3)), task.sample(50, 4)
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert one.tokens.shape != other.tokens.shape or (one.tokens != other.tokens).any()


def test_all_are_registered():
    assert {kind.name: kind for kind in KINDS}.items() <= TASKS.items()
