"""The causal-model interface: what every registered task, and one that a user declares, must hold to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.causal.model import PAD, TASKS, get_task, join_sequences, pad_steps, tokens_by_trial, variable_columns
from neuromas.errors import InvalidInput, NotFound


@pytest.fixture(params=[*TASKS, "declared"])
def task(request, toys):
    return toys.Toy() if request.param == "declared" else get_task(request.param)


def test_declared_values_and_tokens(task):
    trials = task.sample(300, 0)
    assert (trials.tokens[:, 0] == task.begin).all()
    last = trials.tokens[np.arange(len(trials)), trials.lengths - 1]
    assert (last == task.end).all()
    used = trials.tokens[trials.tokens != PAD]
    assert used.min() >= 0
    assert used.max() < len(task.vocabulary)
    live = np.arange(trials.tokens.shape[1]) < trials.lengths[:, None]
    assert ((trials.tokens == PAD) == ~live).all()
    for column, spec in enumerate(task.variables):
        assert set(np.unique(trials.values[live][:, column]).tolist()) <= set(spec.values)


def test_values_follow_from_those_at_any_eligible_step(task):
    """A state is more than its variables, but where an interchange may take place they are enough to go on from."""
    trials = task.sample(8, 1)
    n_variables = len(task.variables)
    for row, step in np.argwhere(trials.eligible):
        state = task.intervene(trials.values[row, step][None], np.random.default_rng(0))
        np.testing.assert_array_equal(state[0, :n_variables], trials.values[row, step])
        for later in range(step + 1, trials.lengths[row]):
            state = task.transition(state, trials.tokens[row, later][None])
            np.testing.assert_array_equal(state[0, :n_variables], trials.values[row, later])


def test_what_holds_at_eligible_steps_is_possible(task):
    trials = task.sample(300, 2)
    assert task.possible(trials.values[trials.eligible]).all()


def test_deterministic_tokens_follow_from_values(task):
    """Twice from the same values: as long as the past is the same, deterministic tokens are."""
    trials = task.sample(200, 3)
    values = trials.values[trials.eligible]
    first = task.counterfactual(values, np.random.default_rng(0))
    second = task.counterfactual(values, np.random.default_rng(1))
    assert first.lengths.min() >= 1
    fixed = first.deterministic[:, 0]
    np.testing.assert_array_equal(fixed, second.deterministic[:, 0])
    np.testing.assert_array_equal(first.tokens[fixed, 0], second.tokens[fixed, 0])


@settings(max_examples=25)
@given(st.sampled_from(sorted(TASKS)), st.integers(2, 20), st.integers(0, 1000))
def test_trials_in_a_batch_do_not_disturb_each_other(name, n_trials, seed):
    """Where no chance is left in a continuation, it is the same alone and in a batch."""
    task = get_task(name)
    trials = task.sample(n_trials, seed)
    held = trials.eligible.any(axis=1)
    last = trials.eligible.shape[1] - 1 - trials.eligible[:, ::-1].argmax(axis=1)
    values = trials.values[held, last[held]]  # at each trial's last eligible step
    together = task.counterfactual(values, np.random.default_rng(0))
    for row in range(len(values)):
        alone = task.counterfactual(values[row : row + 1], np.random.default_rng(5))
        length = alone.lengths[0]
        assert together.tokens[row, together.lengths[row] - 1] == task.end
        assert (together.tokens[row, together.lengths[row] :] == PAD).all()
        if alone.deterministic[0, :length].all():
            np.testing.assert_array_equal(alone.tokens[0, :length], together.tokens[row, :length])
            assert together.lengths[row] == length


@pytest.mark.parametrize("name", TASKS)
def test_a_task_by_name_has_no_options(name):
    """Systems remember their task by name alone; what departs from it says so."""
    task = get_task(name)
    assert task.name == name
    assert task.options == ""


def test_no_trials():
    with pytest.raises(InvalidInput, match="at least 1 trial"):
        get_task("multi-object").sample(0, 0)


def test_unknown_task_lists_the_known():
    with pytest.raises(NotFound, match="multi-object") as caught:
        get_task("multi-objects")
    assert caught.value.message.endswith("; did you mean 'multi-object'?")
    assert caught.value.kind == "unknown_task"


def test_columns_of_variables():
    names = ("phase", "count", "load")
    assert variable_columns(names, ["full"], "it") == [0, 1, 2]
    assert variable_columns(names, ["load", "phase"], "it") == [2, 0]
    with pytest.raises(NotFound, match=r"'side'.*phase, count, load"):
        variable_columns(names, ["side"], "it")


def test_joined_sequences_are_the_parts_in_the_order_asked_for(task):
    parts = [task.sample(n, seed) for n, seed in ((3, 0), (1, 1), (5, 2))]
    order = np.random.default_rng(0).permutation(9)
    joined = join_sequences(parts, order)
    for row, place in enumerate(order):
        part, own = [(part, at) for part in parts for at in range(len(part))][place]
        length = part.lengths[own]
        assert joined.lengths[row] == length
        for name in ("tokens", "deterministic", "values", "eligible"):
            np.testing.assert_array_equal(getattr(joined, name)[row, :length], getattr(part, name)[own, :length])
            assert getattr(joined, name).dtype == getattr(part, name).dtype
        assert (joined.tokens[row, length:] == PAD).all()
        assert not joined.deterministic[row, length:].any()
        assert not joined.eligible[row, length:].any()
    assert joined.tokens.shape[1] == max(part.tokens.shape[1] for part in parts)


def test_rows_are_taken_by_number_and_by_mask(task):
    trials = task.sample(4, 0)
    chosen = trials.take(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.values, trials.values[[3, 1]])
    np.testing.assert_array_equal(trials.take(trials.lengths >= 0).tokens, trials.tokens)


def test_steps_are_padded_behind_their_end():
    np.testing.assert_array_equal(pad_steps(np.ones((2, 1, 3)), 2)[:, 1], np.zeros((2, 3)))
    assert pad_steps(np.ones((2, 1), bool), 3).dtype == bool


def test_a_table_of_tokens_by_trial():
    trial, step, tokens = np.array([7, 7, 3, 7]), np.array([1, 0, 0, 2]), np.array([11, 10, 20, 12])
    table, rows = tokens_by_trial(tokens, trial, step)
    np.testing.assert_array_equal(table, [[20, PAD, PAD], [10, 11, 12]])
    np.testing.assert_array_equal(rows, [1, 1, 0, 1])
    longer, _ = tokens_by_trial(tokens, trial, step, fill=5, n_steps=4)
    np.testing.assert_array_equal(longer, [[20, 5, 5, 5], [10, 11, 12, 5]])
