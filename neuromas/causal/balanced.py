"""Trials of a task that show every object quantity equally often, for measures that compare systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuromas.causal.counting import DEMO, Counting
from neuromas.causal.model import PAD, CausalModel, Sequences

N_PER_QUANTITY = 15
# of random numbers, apart from those of fits
_STREAM = 8


def balanced_trials(model: CausalModel, n_per_quantity: int = N_PER_QUANTITY, seed: int = 0) -> Sequences:
    """Trials of a counting task, `n_per_quantity` for each object quantity that occurs, quantities ascending.

    For a task that does not count, the number of trials is that of 20 quantities, drawn without balancing.

    Parameters
    ----------
    model : CausalModel
    n_per_quantity, seed : int

    Returns
    -------
    Sequences

    Examples
    --------
    >>> from neuromas.causal.model import get_task
    >>> trials = balanced_trials(get_task("multi-object"), n_per_quantity=2)
    >>> shown = np.isin(trials.tokens, [1, 2, 3]).sum(axis=1)
    >>> shown.tolist() == [quantity for quantity in range(1, 21) for _ in range(2)]
    True
    """
    generator = np.random.default_rng([seed, _STREAM])
    if not isinstance(model, Counting):
        return model.sample(20 * n_per_quantity, generator)
    drawn: list[Sequences] = []
    missing = {int(quantity): n_per_quantity for quantity in model.quantities}
    while any(missing.values()):
        trials = model.sample(20 * n_per_quantity, generator)
        quantities = _quantities(trials)
        kept = []
        for quantity, number in missing.items():
            rows = np.flatnonzero(quantities == quantity)[:number]
            missing[quantity] = number - len(rows)
            kept += rows.tolist()
        drawn.append(_ascending(_rows(trials, np.array(kept, dtype=np.int64))))
    return _ascending(_joined(drawn))


def _quantities(trials: Sequences) -> np.ndarray:
    """The object quantity of each trial, shape (n_trials,)."""
    in_demo = (trials.values[:, :, 0] == DEMO) & (np.arange(trials.tokens.shape[1]) < trials.lengths[:, None])
    quantities: np.ndarray = np.where(in_demo, trials.values[:, :, 1], 0).max(axis=1)
    return quantities


def _rows(trials: Sequences, rows: np.ndarray) -> Sequences:
    return Sequences(**{name: getattr(trials, name)[rows] for name in Sequences.__dataclass_fields__})


def _ascending(trials: Sequences) -> Sequences:
    return _rows(trials, np.argsort(_quantities(trials), kind="stable"))


def _joined(batches: Sequence[Sequences]) -> Sequences:
    """Batches of trials one after another; shorter trials are padded."""
    longest = max(batch.tokens.shape[1] for batch in batches)

    def joined(name: str) -> np.ndarray:
        fill = PAD if name == "tokens" else 0
        arrays = []
        for batch in batches:
            array = getattr(batch, name)
            room = [(0, 0), (0, longest - array.shape[1] if array.ndim > 1 else 0)][: array.ndim]
            arrays.append(np.pad(array, room + [(0, 0)] * (array.ndim - len(room)), constant_values=fill))
        return np.concatenate(arrays)

    return Sequences(**{name: joined(name) for name in Sequences.__dataclass_fields__})
