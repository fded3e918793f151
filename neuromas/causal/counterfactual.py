"""Pairs of source and target samples, the values an interchange should produce, and the behaviour that should follow.

Source and target are given as tables of values, one row per recorded sample, so that a network and a recording nobody can
run are paired in the same way (method: pairs, counterfactual behaviour).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
    """Interchanges to be made, and what should come of them.

    Attributes
    ----------
    source, target : ndarray of int64, shape (n_pairs,)
        Row numbers in the source's and the target's recording.
    values : ndarray of float64, shape (n_pairs, n_variables)
        Expected values V*.
    continuation : Sequences or None
        Counterfactual tokens after the target's step; ``None`` where no causal model was given.
    resampled : int
        Draws thrown away because V* is impossible in the target's state.
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
    """Draw pairs, their expected values and (given a causal model) their counterfactual sequences.

    V* is the target's values with the columns `columns` taken from the source.

    Parameters
    ----------
    source, target : Candidates
        The target's variables are those of `model` where one is given.
    columns : list of int
        Which of the target's variables take the source's values.
    n_pairs : int
    source_columns : list of int, optional
        Which of the source's variables they are there; by default the same columns.
    model : CausalModel or None
        The target's; says which V* are possible and what they lead to. Without one nothing is refused here: what was never
        recorded turns up as a miss of the counterfactual-latent index.
    seed : int or numpy.random.Generator

    Returns
    -------
    Pairs

    Raises
    ------
    InvalidInput
        Hardly any draw gives a possible V*.
    """
    generator = np.random.default_rng(seed)
    given = source.values[:, columns if source_columns is None else source_columns]
    sources, targets = source.draw(n_pairs, generator), target.draw(n_pairs, generator)
    values = _exchange(given[sources], target.values[targets], columns)
    resampled = 0
    if model is not None:
        wrong = np.flatnonzero(~possible(model, values))
        for _ in range(_MAX_ROUNDS):
            if not len(wrong):
                break
            resampled += len(wrong)
            sources[wrong], targets[wrong] = source.draw(len(wrong), generator), target.draw(len(wrong), generator)
            values[wrong] = _exchange(given[sources[wrong]], target.values[targets[wrong]], columns)
            wrong = wrong[~possible(model, values[wrong])]
        if len(wrong):
            raise InvalidInput(
                f"task {model.name!r}: after {_MAX_ROUNDS} redraws {len(wrong)} of {n_pairs} pairs still ask for values that"
                f" cannot occur, e.g. {dict(zip(model.variable_names, values[wrong[0]].tolist(), strict=True))}."
                " Where a recording's names or values differ from the task's, map them (mapping=, --mapping)",
                kind="impossible_pairs",
            )
    continuation = None if model is None else model.counterfactual(values.astype(np.int64), generator)
    return Pairs(source.samples[sources], target.samples[targets], values, continuation, resampled)


def _exchange(source: FloatArray, target: FloatArray, columns: list[int]) -> FloatArray:
    expected = target.copy()
    expected[:, columns] = source
    return expected


def possible(model: CausalModel, values: FloatArray) -> BoolArray:
    """Whether a trial can hold each row of `values` (n, n_variables); what was not annotated it cannot."""
    whole = (values == np.round(values)).all(axis=1)  # NaN is not whole: a variable that was not annotated
    possible = np.zeros(len(values), dtype=bool)
    possible[whole] = model.possible(values[whole].astype(np.int64))
    return possible
