"""Trials that show each object quantity equally often: what measures compare two systems on."""

from __future__ import annotations

import numpy as np

from neuromas import seeds
from neuromas.causal.counting import DEMO, Counting
from neuromas.causal.model import CausalModel, IntArray, Sequences, join_sequences

N_PER_QUANTITY = 15
_N_QUANTITIES = 20  # trials drawn at once are this many times those that each quantity is to have
_STREAM = 8


def balanced_trials(model: CausalModel, n_per_quantity: int = N_PER_QUANTITY, seed: int = 0) -> Sequences:
    """Trials of a counting task, the same number for each object quantity.

    Parameters
    ----------
    model : CausalModel
    n_per_quantity : int
        Trials of each object quantity that occurs in the task.
    seed : int

    Returns
    -------
    Sequences
        Trials in the order of their object quantity. Of a task that does not count, ``20 * n_per_quantity`` trials as the task
        draws them.

    Examples
    --------
    >>> from neuromas.causal.model import get_task
    >>> trials = balanced_trials(get_task("multi-object"), n_per_quantity=2)
    >>> shown = np.isin(trials.tokens, [1, 2, 3]).sum(axis=1)
    >>> shown.tolist() == [quantity for quantity in range(1, 21) for _ in range(2)]
    True
    """
    generator = np.random.default_rng([seeds.checked(seed), _STREAM])
    if not isinstance(model, Counting):
        return model.sample(_N_QUANTITIES * n_per_quantity, generator)
    drawn: list[Sequences] = []
    missing = {int(quantity): n_per_quantity for quantity in model.quantities}
    while any(missing.values()):
        trials = model.sample(_N_QUANTITIES * n_per_quantity, generator)
        quantities = _object_quantities(trials)
        kept = []
        for quantity, n_missing in missing.items():
            rows = np.flatnonzero(quantities == quantity)[:n_missing]
            missing[quantity] = n_missing - len(rows)
            kept.append(rows)
        drawn.append(trials.take(np.concatenate(kept)))
    joined = join_sequences(drawn)
    return joined.take(np.argsort(_object_quantities(joined), kind="stable"))


def _object_quantities(trials: Sequences) -> IntArray:
    """How many objects each trial shows; shape (n_trials,)."""
    phase, count = trials.values[:, :, 0], trials.values[:, :, 1]
    in_demo = (phase == DEMO) & (np.arange(trials.tokens.shape[1]) < trials.lengths[:, None])
    return np.where(in_demo, count, 0).max(axis=1)
