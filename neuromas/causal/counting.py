"""Counting tasks: show some objects, then answer with as many responses (paper 2.1)."""

from __future__ import annotations

import numpy as np

from neuromas.causal.model import BoolArray, CausalModel, IntArray, register_task
from neuromas.schema import VariableSpec

MAX_QUANTITY = 20
DEMO, RESPONSE = 0, 1
_PHASE, _COUNT, _REMAINING = 0, 1, 2


@register_task
class MultiObject(CausalModel):
    """The multi-object task: ``B D2 D1 T R R E``.

    An object quantity n ~ U{1..20} of demo tokens, each drawn from D1, D2, D3; a trigger T; n responses R; the end E. The
    variables are ``phase`` (demo, response) and ``count`` (demo phase: demos so far; response phase: responses still to
    come). State slots: phase, count, demos still to come.

    Examples
    --------
    >>> task = MultiObject()
    >>> trials = task.sample(1, seed=0)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0][:4])
    'B D2 D2 D1'
    >>> trials.values[0, 3].tolist()  # demo phase, three objects seen
    [0, 3]
    """

    name = "multi-object"
    vocabulary = ("B", "D1", "D2", "D3", "T", "R", "E")
    variables = (
        VariableSpec(
            name="phase",
            type="categorical",
            values=(DEMO, RESPONSE),
            meanings=("demo", "response"),
            description="whether objects are being shown or responses given",
        ),
        VariableSpec(
            name="count",
            type="integer",
            values=tuple(range(MAX_QUANTITY + 1)),
            description="demo phase: objects so far; response phase: responses still to come",
        ),
    )
    begin, trigger, response, end = 0, 4, 5, 6
    demos = (1, 2, 3)

    def start(self, n_trials: int, generator: np.random.Generator) -> IntArray:
        state = np.zeros((n_trials, 3), dtype=np.int64)
        state[:, _REMAINING] = generator.integers(1, MAX_QUANTITY, endpoint=True, size=n_trials)
        return state

    def emit(self, state: IntArray, generator: np.random.Generator) -> tuple[IntArray, BoolArray]:
        in_demo = state[:, _PHASE] == DEMO
        demo = generator.integers(self.demos[0], self.demos[-1], endpoint=True, size=len(state))
        in_demo_token = np.where(state[:, _REMAINING] > 0, demo, self.trigger)
        in_response_token = np.where(state[:, _COUNT] > 0, self.response, self.end)
        # when the demos stop is up to the environment, so T cannot be foreseen; every R and E can
        return np.where(in_demo, in_demo_token, in_response_token), ~in_demo

    def transition(self, state: IntArray, tokens: IntArray) -> IntArray:
        is_demo = (tokens >= self.demos[0]) & (tokens <= self.demos[-1])
        after = state.copy()
        after[:, _PHASE] = np.where(tokens == self.trigger, RESPONSE, state[:, _PHASE])
        after[:, _COUNT] += is_demo.astype(np.int64) - (tokens == self.response)
        after[:, _REMAINING] -= is_demo
        return after

    def intervene(self, values: IntArray, generator: np.random.Generator) -> IntArray:
        room = np.where(values[:, _PHASE] == DEMO, MAX_QUANTITY - values[:, _COUNT], 0)
        remaining = generator.integers(0, room, endpoint=True)
        return np.column_stack([values, remaining])

    def possible(self, values: IntArray) -> BoolArray:
        phase, count = values[:, _PHASE], values[:, _COUNT]
        in_demo = (phase == DEMO) & (count >= 1) & (count <= MAX_QUANTITY)
        in_response = (phase == RESPONSE) & (count >= 0) & (count < MAX_QUANTITY)
        return in_demo | in_response

    def eligible(self, tokens: IntArray) -> BoolArray:
        is_demo = (tokens >= self.demos[0]) & (tokens <= self.demos[-1])
        return is_demo | (tokens == self.response)
