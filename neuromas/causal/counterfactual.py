"""Pairs of source and target samples, the values that an interchange should produce, and the behaviour that should follow.

Source and target are tables of values, one row per recorded sample. A network and a recording that can only be read are paired in
the same way (method: pairs, counterfactual behaviour).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuromas import seeds
from neuromas.causal.model import BoolArray, CausalModel, IntArray, Sequences
from neuromas.errors import InvalidInput

FloatArray = NDArray[np.float64]
_MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Candidates:
    """Samples of one recording from which pairs may be drawn, grouped by trial.

    Attributes
    ----------
    samples : ndarray of int64, shape (n_candidates,)
        Row numbers in the recording, samples of one trial next to each other.
    first, count : ndarray of int64, shape (n_trials,)
        Where each trial's samples start in `samples`, and how many there are.
    values : ndarray of float64, shape (n_candidates, n_variables)
        Causal variables of each candidate.
    """

    samples: IntArray
    first: IntArray
    count: IntArray
    values: FloatArray

    @classmethod
    def from_samples(cls, samples: IntArray, trials: IntArray, values: FloatArray) -> Candidates:
        """Group `samples` (n,) with their `trials` (n,) and `values` (n, n_variables) by trial."""
        if len(samples) == 0:
            raise InvalidInput("no eligible samples to draw pairs from: expected at least 1", kind="no_samples")
        order = np.argsort(trials, kind="stable")
        _, first, count = np.unique(trials[order], return_index=True, return_counts=True)
        return cls(samples[order], first.astype(np.int64), count.astype(np.int64), values[order])

    def draw(self, n: int, generator: np.random.Generator) -> IntArray:
        """Positions in `samples`: trials uniformly, then a sample within the trial; shape (n,)."""
        trial = generator.integers(len(self.first), size=n)
        return self.first[trial] + generator.integers(self.count[trial])


@dataclass(frozen=True)
class Pairs:
    """Interchanges, and the values and behaviour that they should lead to.

    Attributes
    ----------
    source, target : ndarray of int64, shape (n_pairs,)
        Row numbers in the source's and the target's recording.
    values : ndarray of float64, shape (n_pairs, n_variables)
        Expected values V*.
    continuation : Sequences or None
        Counterfactual tokens after the target's step; ``None`` if there is no causal model.
    resampled : int
        Draws that were discarded because V* is impossible in the target's task.
    """

    source: IntArray
    target: IntArray
    values: FloatArray
    continuation: Sequences | None = field(repr=False)
    resampled: int

    def __len__(self) -> int:
        return len(self.source)


def draw_pairs(
    source: Candidates,
    target: Candidates,
    columns: list[int],
    n_pairs: int,
    *,
    source_columns: list[int] | None = None,
    model: CausalModel | None,
    seed: int | np.random.Generator,
) -> Pairs:
    """Draw pairs and their expected values and, if there is a causal model, their counterfactual sequences.

    The expected values V* are those of the target, with the columns `columns` from the source.

    Parameters
    ----------
    source, target : Candidates
        If there is a `model`, the variables of the target are those of the model.
    columns : list of int
        The target's variables that take the source's values.
    n_pairs : int
    source_columns : list of int, optional
        The same variables in the source; by default the same columns.
    model : CausalModel or None
        Causal model of the target's task: which V* are possible, and which sequences follow from them. Without a model, no V* is
        refused here; values that were never recorded are a miss of the counterfactual-latent index.
    seed : int or numpy.random.Generator

    Returns
    -------
    Pairs

    Raises
    ------
    InvalidInput
        Hardly any draw has a possible V*.
    """
    generator = seeds.generator(seed)
    exchanged = source.values[:, columns if source_columns is None else source_columns]
    sources, targets = source.draw(n_pairs, generator), target.draw(n_pairs, generator)
    values = _exchange(exchanged[sources], target.values[targets], columns)
    resampled = 0
    if model is not None:
        wrong = np.flatnonzero(~possible(model, values))
        for _ in range(_MAX_ROUNDS):
            if not len(wrong):
                break
            resampled += len(wrong)
            sources[wrong], targets[wrong] = source.draw(len(wrong), generator), target.draw(len(wrong), generator)
            values[wrong] = _exchange(exchanged[sources[wrong]], target.values[targets[wrong]], columns)
            wrong = wrong[~possible(model, values[wrong])]
        if len(wrong):
            raise InvalidInput(
                f"task {model.name!r}: after {_MAX_ROUNDS} redraws {len(wrong)} of {n_pairs} pairs still ask for values that"
                f" cannot occur, e.g. {dict(zip(model.variable_names, values[wrong[0]].tolist(), strict=True))}."
                " If names or values in a recording differ from those of the task, map them (mapping=, --mapping)",
                kind="impossible_pairs",
            )
    continuation = None if model is None else model.counterfactual(values.astype(np.int64), generator)
    return Pairs(source.samples[sources], target.samples[targets], values, continuation, resampled)


def _exchange(source: FloatArray, target: FloatArray, columns: list[int]) -> FloatArray:
    expected = target.copy()
    expected[:, columns] = source
    return expected


def possible(model: CausalModel, values: FloatArray) -> BoolArray:
    """Whether a trial can hold each row of `values` (n, n_variables); a row with a missing value is not possible."""
    # false for a missing value, which is NaN
    whole = (values == np.round(values)).all(axis=1)
    possible = np.zeros(len(values), dtype=bool)
    possible[whole] = model.possible(values[whole].astype(np.int64))
    return possible
