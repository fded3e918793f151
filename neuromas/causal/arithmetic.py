"""The arithmetic task: running sums and differences, with each result written out (paper A.6)."""

from __future__ import annotations

import numpy as np

from neuromas.causal.model import BoolArray, CausalModel, IntArray, register_task
from neuromas.schema.recording import VariableSpec

MAX_VALUE = 20
MAX_OPERATIONS = 10

_CUMU_VAL, _REM_OPS, _STAGE, _OPERATOR, _OPERAND = range(5)
# stages: the token that is awaited; after the length and the start value, the other five come over and over
_LENGTH, _START, _OPERATION, _NUMBER, _EQUALS, _RESULT, _CLOSING = range(7)


@register_task
class Arithmetic(CausalModel):
    """The arithmetic task: ``B 3 4 + 3 = 7 , + 11 = 18 , - 5 = 13 E``.

    A trial shows the number of operations, uniform in 1..10, and a start value, uniform in 0..20. Each operation is an operator,
    an operand, =, the result, and a comma; E replaces the last comma. Every number is one token. Operators + and - are equally
    likely, but it is always + at 0 and - at 20. Operands are uniform among those that keep the result in 0..20, 0 included. The
    tokens =, results, commas and E are deterministic. The operator at 0 and 20 counts as random, as in the paper.

    The variables are ``cumu_val``, the start value and then the latest result, and ``rem_ops``, the operations whose result is
    still to come. Both are 0 until the trial shows them. Interchanges follow commas only, where cumu_val is any of 0..20 and
    rem_ops any of 1..9, in every combination. State slots: cumu_val, rem_ops, the kind of the next token, operator (1 or -1),
    operand.

    Examples
    --------
    >>> task = Arithmetic()
    >>> trials = task.sample(1, seed=11)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0])
    'B 2 2 - 1 = 1 , - 1 = 0 E'
    >>> trials.values[0, 7].tolist()  # at the comma: cumu_val, rem_ops
    [1, 1]

    Had the value been 8 there (paper A.7):

    >>> after = task.counterfactual(np.array([[8, 1]]), np.random.default_rng(0))
    >>> " ".join(task.vocabulary[token] for token in after.tokens[0])
    '- 5 = 3 E'
    """

    name = "arithmetic"
    vocabulary = ("B", *(str(value) for value in range(MAX_VALUE + 1)), "+", "-", "=", ",", "E")
    variables = (
        VariableSpec(
            name="cumu_val",
            type="integer",
            values=tuple(range(MAX_VALUE + 1)),
            description="the start value, then the latest result",
        ),
        VariableSpec(
            name="rem_ops",
            type="integer",
            values=tuple(range(MAX_OPERATIONS + 1)),
            description="operations whose result is still to come",
        ),
    )
    begin, zero, plus, minus, equals, comma, end = 0, 1, 22, 23, 24, 25, 26

    def start(self, n_trials: int, generator: np.random.Generator) -> IntArray:
        # random tokens are drawn when they are emitted
        return np.zeros((n_trials, 5), dtype=np.int64)

    def emit(self, state: IntArray, generator: np.random.Generator) -> tuple[IntArray, BoolArray]:
        cumu_val, rem_ops, stage, operator, operand = state.T
        result = self.zero + np.clip(cumu_val + operator * operand, 0, MAX_VALUE)
        closing = np.where(rem_ops > 0, self.comma, self.end)
        lowest = np.choose(
            stage,
            [
                self.zero + 1,
                self.zero,
                np.where(cumu_val < MAX_VALUE, self.plus, self.minus),
                self.zero,
                self.equals,
                result,
                closing,
            ],
        )
        highest = np.choose(
            stage,
            [
                self.zero + MAX_OPERATIONS,
                self.zero + MAX_VALUE,
                np.where(cumu_val > 0, self.minus, self.plus),
                self.zero + np.where(operator > 0, MAX_VALUE - cumu_val, cumu_val),
                self.equals,
                result,
                closing,
            ],
        )
        return generator.integers(lowest, highest, endpoint=True), stage >= _EQUALS

    def transition(self, state: IntArray, tokens: IntArray) -> IntArray:
        stage, number = state[:, _STAGE], tokens - self.zero
        got_result = stage == _RESULT
        after = state.copy()
        after[:, _CUMU_VAL] = np.where(got_result | (stage == _START), number, state[:, _CUMU_VAL])
        after[:, _REM_OPS] = np.where(stage == _LENGTH, number, state[:, _REM_OPS] - got_result)
        sign = np.where(tokens == self.plus, 1, -1)
        after[:, _OPERATOR] = np.where(stage == _OPERATION, sign, state[:, _OPERATOR])
        after[:, _OPERAND] = np.where(stage == _NUMBER, number, state[:, _OPERAND])
        after[:, _STAGE] = np.where(stage == _CLOSING, _OPERATION, stage + 1)
        return after

    def intervene(self, values: IntArray, generator: np.random.Generator) -> IntArray:
        state = np.zeros((len(values), 5), dtype=np.int64)  # the past operation no longer matters
        state[:, [_CUMU_VAL, _REM_OPS]] = values
        state[:, _STAGE] = _OPERATION
        return state

    def possible(self, values: IntArray) -> BoolArray:
        cumu_val, rem_ops = values.T
        return (cumu_val >= 0) & (cumu_val <= MAX_VALUE) & (rem_ops >= 1) & (rem_ops < MAX_OPERATIONS)

    def eligible(self, tokens: IntArray) -> BoolArray:
        return tokens == self.comma
