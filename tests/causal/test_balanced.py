"""Trials that show every object quantity equally often."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.causal.balanced import balanced_trials
from neuromas.causal.model import get_task


@pytest.mark.parametrize("task", ["multi-object", "same-object", "modulo", "rounding"])
def test_balanced_trials_show_every_quantity_equally_often(task):
    model = get_task(task)
    trials = balanced_trials(model, 3, seed=1)
    in_demo = np.cumsum(trials.tokens == model.trigger, axis=1) == 0
    shown = (np.isin(trials.tokens, model.demos) & in_demo).sum(axis=1)
    assert shown.tolist() == [quantity for quantity in range(1, 21) for _ in range(3)]
    again = balanced_trials(model, 3, seed=1)
    assert np.array_equal(again.tokens, trials.tokens)
    if len(model.demos) > 1:  # with one demo token, trials of one quantity are all the same
        assert not np.array_equal(balanced_trials(model, 3, seed=2).tokens, trials.tokens)


def test_balanced_trials_leave_out_what_is_held_out():
    trials = balanced_trials(get_task("multi-object", hold_out=[4, 9]), 2)
    assert len(trials) == 2 * 18
