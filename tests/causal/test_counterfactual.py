"""Pairs: who is drawn, what V* is, and what is thrown away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.causal.counterfactual import Candidates, draw_pairs
from neuromas.causal.counting import MultiObject
from neuromas.causal.model import TASKS, CausalModel, get_task
from neuromas.errors import InvalidInput

TASK = MultiObject()


def of_trials(
    n_trials: int, seed: int, task: CausalModel = TASK
) -> tuple[Candidates, dict[int, tuple[int, ...]], dict[int, int]]:
    """Candidates of sampled trials; values and trial of every row number, kept apart from them."""
    trials = task.sample(n_trials, seed)
    trial, step = np.nonzero(trials.eligible)
    rows = np.random.default_rng(seed).permutation(10 * len(trial))[: len(trial)]  # row numbers in no order
    values = trials.values[trial, step].astype(float)
    known = {int(row): tuple(int(v) for v in vs) for row, vs in zip(rows, values, strict=True)}
    return Candidates.from_samples(rows, trial, values), known, dict(zip(rows.tolist(), trial.tolist(), strict=True))


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([[0], [1], [0, 1]]))
def test_expected_values_are_the_sources_columns_in_the_target(name, seed, columns):
    task = get_task(name)
    source, of_source, _ = of_trials(20, seed, task)
    target, of_target, _ = of_trials(20, seed + 1, task)
    pairs = draw_pairs(source, target, columns, 50, model=task, seed=seed)
    assert len(pairs) == 50
    for row in range(50):
        expected = list(of_target[int(pairs.target[row])])
        for column in columns:
            expected[column] = of_source[int(pairs.source[row])][column]
        assert pairs.values[row].tolist() == expected
    assert task.possible(pairs.values.astype(int)).all()
    for row in range(50):  # the counterfactual tokens lead from V* to the end
        state = task.intervene(pairs.values[row][None].astype(int), np.random.default_rng(0))
        for step in range(pairs.continuation.lengths[row]):
            state = task.transition(state, pairs.continuation.tokens[row, step][None])
            assert state[0, :2].tolist() == pairs.continuation.values[row, step].tolist()
        assert pairs.continuation.tokens[row, pairs.continuation.lengths[row] - 1] == task.end


@pytest.mark.parametrize("name", TASKS)
def test_one_variable_goes_wherever_eligible_steps_ever_hold_it(name):
    """`count` alone crosses the phases: pairs reach combinations that occur, and no others."""
    task = get_task(name)
    candidates, known, _ = of_trials(3000, 0, task)
    for column in (0, 1):
        pairs = draw_pairs(candidates, candidates, [column], 3000, model=task, seed=1)
        assert {tuple(values) for values in pairs.values.astype(int).tolist()} <= set(known.values())
        kept = 1 - column
        crossing = [
            known[source][kept] != known[target][kept]
            for source, target in zip(pairs.source.tolist(), pairs.target.tolist(), strict=True)
        ]
        assert np.mean(crossing) > 0.05
        # in arithmetic every combination occurs; elsewhere some are impossible, and drawn again
        assert (pairs.resampled == 0) == (name == "arithmetic")


@pytest.mark.parametrize(
    ("name", "source", "target", "column", "wanted"),
    [
        ("same-object", [(0, 20), (0, 5)], (1, 3), 1, (1, 5)),  # no 20 responses are left after the first
        ("same-object", [(1, 0), (1, 3)], (0, 7), 1, (0, 3)),  # no demo phase without an object
        ("modulo", [(0, 7), (0, 3), (0, 2)], (1, 0), 1, (1, 2)),  # 3 at most, less the first
        ("modulo", [(1, 2), (0, 1)], (0, 20), 0, (0, 20)),
        ("rounding", [(1, 0), (1, 20)], (0, 4), 1, (0, 20)),
        ("rounding", [(0, 20), (0, 20)], (1, 5), 1, (1, 20)),  # 20 objects call for 21 responses
        ("arithmetic", [(9, 0), (9, 10), (9, 4)], (2, 3), 1, (2, 4)),  # after a comma, 1 to 9 operations are left
        ("arithmetic", [(21, 1), (20, 1)], (2, 3), 0, (20, 3)),
    ],
)
def test_impossible_values_of_a_task_are_drawn_again(name, source, target, column, wanted):
    given_away = np.array(source, dtype=float)
    sources = Candidates.from_samples(np.arange(len(source)), np.arange(len(source)), given_away)
    targets = Candidates.from_samples(np.arange(1), np.arange(1), np.array([target], dtype=float))
    pairs = draw_pairs(sources, targets, [column], 400, model=get_task(name), seed=0)
    assert set(map(tuple, pairs.values.tolist())) == {wanted}
    possible = np.mean([row[column] == wanted[column] for row in source])
    if possible == 1:
        assert pairs.resampled == 0
    else:
        low, high = stats.nbinom(400, possible).ppf([1e-5, 1 - 1e-5])
        assert low < pairs.resampled < high


def test_continuations_start_from_the_expected_values():
    source, *_ = of_trials(50, 0)
    pairs = draw_pairs(source, source, [1], 500, model=TASK, seed=1)
    first = pairs.continuation.tokens[:, 0]
    phase, count = pairs.values.astype(int).T
    response, end, trigger = TASK.vocabulary.index("R"), TASK.vocabulary.index("E"), TASK.vocabulary.index("T")
    assert (first[(phase == 1) & (count > 0)] == response).all()
    assert (first[(phase == 1) & (count == 0)] == end).all()
    assert (first[(phase == 0) & (count == 20)] == trigger).all()
    assert np.isin(first[phase == 0], [1, 2, 3, trigger]).all()


def test_trials_are_drawn_uniformly_then_steps_within():
    """A long trial has as many pairs as a short one, and within a trial no step is favoured."""
    samples = np.arange(10)
    trials = np.array([7, 7, 7, 7, 7, 7, 7, 3, 3, 9])  # lengths 7, 2, 1
    candidates = Candidates.from_samples(samples, trials, np.zeros((10, 1)))
    drawn = candidates.samples[candidates.draw(60_000, np.random.default_rng(0))]
    expected = np.array([1 / 3 / 7] * 7 + [1 / 3 / 2] * 2 + [1 / 3]) * 60_000
    assert stats.chisquare(np.bincount(drawn, minlength=10), expected).pvalue > 1e-4


def test_source_and_target_are_independent():
    samples, trials = np.arange(4), np.arange(4)
    candidates = Candidates.from_samples(samples, trials, np.ones((4, 1)))
    pairs = draw_pairs(candidates, candidates, [0], 20_000, model=None, seed=0)
    table = np.zeros((4, 4))
    np.add.at(table, (pairs.source, pairs.target), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_impossible_pairs_are_drawn_again_and_counted():
    """Count 20 cannot occur in the response phase, count 0 not in the demo phase."""
    source = Candidates.from_samples(np.arange(2), np.arange(2), np.array([[0.0, 20.0], [0.0, 5.0]]))
    target = Candidates.from_samples(np.arange(1), np.arange(1), np.array([[1.0, 3.0]]))
    pairs = draw_pairs(source, target, [1], 4000, model=TASK, seed=0)
    assert set(map(tuple, pairs.values.tolist())) == {(1.0, 5.0)}
    # half of all draws fail: their number is negative binomial with 4000 successes
    low, high = stats.nbinom(4000, 0.5).ppf([1e-5, 1 - 1e-5])
    assert low < pairs.resampled < high
    assert draw_pairs(source, target, [0, 1], 100, model=TASK, seed=0).resampled == 0


def test_without_a_model_nothing_is_refused():
    source = Candidates.from_samples(np.arange(1), np.arange(1), np.array([[0.0, 20.0]]))
    target = Candidates.from_samples(np.arange(1), np.arange(1), np.array([[1.0, 3.0]]))
    pairs = draw_pairs(source, target, [1], 10, model=None, seed=0)
    assert pairs.values.tolist() == [[1.0, 20.0]] * 10
    assert pairs.continuation is None
    assert pairs.resampled == 0


@pytest.mark.parametrize("bad", [20.0, 2.5, np.nan])
def test_only_impossible_pairs_is_an_error(bad):
    source = Candidates.from_samples(np.arange(1), np.arange(1), np.array([[0.0, bad]]))
    target = Candidates.from_samples(np.arange(1), np.arange(1), np.array([[1.0, 3.0]]))
    with pytest.raises(InvalidInput, match="cannot occur") as caught:
        draw_pairs(source, target, [1], 10, model=TASK, seed=0)
    assert caught.value.kind == "impossible_pairs"


def test_nothing_to_draw_from():
    with pytest.raises(InvalidInput, match="no eligible samples"):
        Candidates.from_samples(np.empty(0, int), np.empty(0, int), np.empty((0, 2)))


def test_a_seed_decides_everything():
    source, *_ = of_trials(30, 0)
    one, again = (draw_pairs(source, source, [1], 200, model=TASK, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.source, again.source)
    np.testing.assert_array_equal(one.continuation.tokens, again.continuation.tokens)
