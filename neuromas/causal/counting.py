"""Counting tasks: a trial shows some objects, then the system gives as many responses as the task asks for (paper 2.1).

They share one automaton, `Counting`. They differ in their tokens, and in the number of responses to an object quantity.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from neuromas.causal.model import BoolArray, CausalModel, IntArray, register_task
from neuromas.errors import InvalidInput
from neuromas.schema.recording import VariableSpec

MAX_QUANTITY = 20
HOLD_OUT = (4, 9, 14, 17)
"""Object quantities that the paper keeps for testing; give them as ``hold_out``."""
VOID = "V"
DEMO, RESPONSE = 0, 1
_PHASE, _COUNT, _REMAINING = 0, 1, 2


def phase_and_count(most: int) -> tuple[VariableSpec, ...]:
    """``phase`` and ``count``, the latter up to `most`."""
    return (
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
            values=tuple(range(most + 1)),
            description="demo phase: objects so far; response phase: responses still to come",
        ),
    )


class Counting(CausalModel):
    """A number n of demo tokens, the object quantity, uniform in 1..20; a trigger T; the responses to n; the end E.

    The variables are ``phase`` (demo or response) and ``count`` (paper A.7). In the demo phase, ``count`` is the number of demos
    so far; in the response phase, it is the number of responses still to come. State slots: phase, count, demos still to come.
    Only responses and E are deterministic: the environment decides when the demos stop.

    Parameters
    ----------
    void : float
        Probability of a void token V, which changes nothing, before the next demo or trigger. The paper trains transformers with
        0.2, to prevent solutions that count positions, and analyses all systems with 0 (2.1). If it is above 0, V is the last
        token of the vocabulary, so the other tokens keep their numbers. No interchange follows a V.
    hold_out : int or collection of int
        Object quantities that never occur, neither in trials nor in counterfactual sequences; `HOLD_OUT` in the paper.

    Raises
    ------
    InvalidInput
        `void` is not in 0 <= void < 1, or `hold_out` is not a proper subset of 1..`most`.
    """

    vocabulary: tuple[str, ...] = ("B", "D1", "D2", "D3", "T", "R", "E")
    variables = phase_and_count(MAX_QUANTITY)
    begin, trigger, response, end = 0, 4, 5, 6
    demos: tuple[int, ...] = (1, 2, 3)
    """Tokens that show an object, numbered without a gap."""
    most: int = MAX_QUANTITY
    """The largest object quantity. A task with a smaller one sets it, and declares its variables up to it."""

    def __init__(self, *, void: float = 0.0, hold_out: int | Collection[int] = ()) -> None:
        hold_out = [hold_out] if isinstance(hold_out, int) else list(hold_out)
        if not all(isinstance(quantity, (int, np.integer)) for quantity in hold_out):
            raise InvalidInput(
                f"task {self.name!r}: expected whole numbers as hold_out, got {hold_out}", kind="invalid_option"
            )
        if not 0 <= void < 1:
            raise InvalidInput(f"task {self.name!r}: expected void in 0 <= void < 1, got {void}", kind="invalid_option")
        self.quantities = np.setdiff1d(np.arange(1, self.most + 1), hold_out)
        """Object quantities that occur, ascending."""
        if len(self.quantities) != self.most - len(set(hold_out)) or not len(self.quantities):
            raise InvalidInput(
                f"task {self.name!r}: expected hold_out among 1..{self.most}, not all of them, got {sorted(hold_out)}",
                kind="invalid_option",
            )
        self.void, self.hold_out = void, tuple(sorted(set(hold_out)))
        if void:
            self.vocabulary = (*type(self).vocabulary, VOID)
        options = [f"void={void:g}"] * (void > 0) + [f"hold_out={self.hold_out}"] * bool(self.hold_out)
        self.options = ", ".join(options)

    @property
    def filler(self) -> int:  # type: ignore[override]
        return self.response

    def responses(self, quantity: IntArray) -> IntArray:
        """Number of responses to each object quantity, of any shape; the result has the same shape."""
        return quantity

    def start(self, n_trials: int, generator: np.random.Generator) -> IntArray:
        state = np.zeros((n_trials, 3), dtype=np.int64)
        state[:, _REMAINING] = self.quantities[generator.integers(len(self.quantities), size=n_trials)]
        return state

    def emit(self, state: IntArray, generator: np.random.Generator) -> tuple[IntArray, BoolArray]:
        in_demo = state[:, _PHASE] == DEMO
        demo = generator.integers(self.demos[0], self.demos[-1], endpoint=True, size=len(state))
        in_demo_token = np.where(state[:, _REMAINING] > 0, demo, self.trigger)
        if self.void:
            is_void = generator.random(len(state)) < self.void
            in_demo_token = np.where(is_void, self.vocabulary.index(VOID), in_demo_token)
        in_response_token = np.where(state[:, _COUNT] > 0, self.response, self.end)
        # the environment decides when the demos stop, so T cannot be predicted; every response and E can
        return np.where(in_demo, in_demo_token, in_response_token), ~in_demo

    def transition(self, state: IntArray, tokens: IntArray) -> IntArray:
        in_demo, count = state[:, _PHASE] == DEMO, state[:, _COUNT]
        is_demo = in_demo & self._is_demo(tokens)
        is_response = ~in_demo & (tokens == self.response)  # the same token may show an object and answer
        after = state.copy()
        after[:, _PHASE] = np.where(tokens == self.trigger, RESPONSE, state[:, _PHASE])
        after[:, _COUNT] = np.where(tokens == self.trigger, self.responses(count), count + is_demo - is_response)
        after[:, _REMAINING] -= is_demo
        return after

    def intervene(self, values: IntArray, generator: np.random.Generator) -> IntArray:
        in_demo, count = values[:, _PHASE] == DEMO, values[:, _COUNT]
        reachable = np.searchsorted(self.quantities, count)  # the first quantity that is not below the count
        last = np.where(in_demo, len(self.quantities) - 1 - reachable, 0)
        drawn = reachable + generator.integers(0, last, endpoint=True)
        remaining = np.where(in_demo, self.quantities[np.where(in_demo, drawn, 0)] - count, 0)
        return np.column_stack([values, remaining])

    def possible(self, values: IntArray) -> BoolArray:
        phase, count = values[:, _PHASE], values[:, _COUNT]
        in_demo = (phase == DEMO) & (count >= 1) & (count <= self.quantities[-1])
        in_response = (phase == RESPONSE) & (count >= 0) & (count < self.responses(self.quantities).max())
        return in_demo | in_response

    def eligible(self, tokens: IntArray) -> BoolArray:
        return self._is_demo(tokens) | (tokens == self.response)

    def _is_demo(self, tokens: IntArray) -> BoolArray:
        return (tokens >= self.demos[0]) & (tokens <= self.demos[-1])


@register_task
class MultiObject(Counting):
    """The multi-object task: ``B D2 D1 T R R E``, as many responses R as demos, each demo drawn from D1, D2, D3.

    Takes the options of `Counting`.

    Examples
    --------
    >>> task = MultiObject()
    >>> trials = task.sample(1, seed=0)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0][:4])
    'B D2 D2 D1'
    >>> trials.values[0, 3].tolist()  # demo phase, three objects seen
    [0, 3]

    With void tokens, as transformers are trained:

    >>> task = MultiObject(void=0.2)
    >>> trials = task.sample(1, seed=233)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0])
    'B D1 D3 V V T R R E'
    """

    name = "multi-object"


@register_task
class SameObject(Counting):
    """The same-object task: ``B C C T C C E``, one token C for objects and responses.

    Takes the options of `Counting`.

    Examples
    --------
    >>> task = SameObject()
    >>> trials = task.sample(1, seed=11)
    >>> " ".join(task.vocabulary[token] for token in trials.tokens[0])
    'B C C C T C C C E'
    >>> [task.variables[0].label(phase) for phase, count in trials.values[0, [3, 5]]]
    ['demo', 'response']
    """

    name = "same-object"
    vocabulary = ("B", "C", "T", "E")
    begin, trigger, response, end = 0, 2, 1, 3
    demos = (1,)


@register_task
class Modulo(Counting):
    """The modulo task: as multi-object, with n mod 4 responses. ``B D1 D3 D1 D2 D1 T R E``; for n = 4, 8, ... none.

    Takes the options of `Counting`.

    Examples
    --------
    >>> Modulo().responses(np.arange(1, 9)).tolist()
    [1, 2, 3, 0, 1, 2, 3, 0]
    """

    name = "modulo"
    modulus = 4

    def responses(self, quantity: IntArray) -> IntArray:
        return quantity % self.modulus


@register_task
class Rounding(Counting):
    """The rounding task: as multi-object, with n rounded to the nearest multiple of 3. ``B D1 D3 T R R R E``.

    There are no ties, because a whole number is never half-way between two multiples of 3. An object quantity of 1 has no
    response, and 20 has 21 responses, so ``count`` goes up to 21. Takes the options of `Counting`.

    Examples
    --------
    >>> Rounding().responses(np.arange(1, 9)).tolist()
    [0, 3, 3, 3, 6, 6, 6, 9]
    """

    name = "rounding"
    multiple = 3
    variables = phase_and_count(21)

    def responses(self, quantity: IntArray) -> IntArray:
        return (quantity + self.multiple // 2) // self.multiple * self.multiple
