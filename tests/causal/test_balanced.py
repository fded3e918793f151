"""Trials that show each object quantity equally often."""

from __future__ import annotations

import numpy as np

from neuromas.causal.balanced import balanced_trials
from neuromas.causal.counting import HOLD_OUT, Modulo, MultiObject
from neuromas.causal.model import get_task


def shown(task, trials) -> list[int]:
    return np.isin(trials.tokens, task.demos).sum(axis=1).tolist()


def test_every_quantity_is_shown_equally_often():
    for task in (MultiObject(void=0.3), Modulo(hold_out=HOLD_OUT), get_task("in-context")):
        trials = balanced_trials(task, n_per_quantity=3, seed=1)
        assert shown(task, trials) == np.repeat(task.quantities, 3).tolist()
        assert trials.lengths.max() == trials.tokens.shape[1]


def test_the_seed_decides_the_trials():
    task = MultiObject()
    first, again, other = (balanced_trials(task, 2, seed).tokens for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_a_task_that_does_not_count():
    assert len(balanced_trials(get_task("arithmetic"), 2)) == 40
