"""Causal models: variables, transition, emission and intervention, all vectorised over trials.

A causal model is a small automaton. Its state is an integer array of shape (n_trials, n_slots): first the causal variables,
in the order of ``variables``, then whatever else drives the task, such as the number of demonstrations that are still to come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import seeds
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.schema.recording import VariableSpec

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PAD = -1
"""Fills token arrays after a sequence has ended."""


@dataclass(frozen=True)
class Sequences:
    """Token sequences that a causal model emitted, and the causal variables at each step.

    Attributes
    ----------
    tokens : ndarray of int64, shape (n_trials, n_steps)
        `PAD` after the end.
    lengths : ndarray of int64, shape (n_trials,)
    deterministic : ndarray of bool, shape (n_trials, n_steps)
        Whether the token follows from what came before it; only these are scored.
    values : ndarray of int64, shape (n_trials, n_steps, n_variables)
        Causal variables after the token was consumed.
    eligible : ndarray of bool, shape (n_trials, n_steps)
        Whether an interchange may take place after this token.
    """

    tokens: IntArray
    lengths: IntArray
    deterministic: BoolArray
    values: IntArray
    eligible: BoolArray

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[Any]) -> Sequences:
        """The trials `rows`: their numbers in order, or a mask of shape (n_trials,)."""
        return Sequences(**{name: array[rows] for name, array in vars(self).items()})


def join_sequences(parts: Sequence[Sequences], order: IntArray | None = None) -> Sequences:
    """One batch of sequences after another, padded to the longest.

    Parameters
    ----------
    parts : sequence of Sequences
        At least one; all of the same variables.
    order : ndarray of int64, shape (n_trials,), optional
        Rows of the joined batch in the order that they are returned in.

    Returns
    -------
    Sequences

    Examples
    --------
    >>> task = get_task("multi-object")
    >>> joined = join_sequences([task.sample(2, seed=0), task.sample(3, seed=1)], order=np.arange(5)[::-1])
    >>> len(joined), bool((joined.tokens[4] == joined.tokens[-1]).all())
    (5, True)
    """
    n_steps = max(part.tokens.shape[1] for part in parts)

    def joined(name: str, fill: int = 0) -> NDArray[Any]:
        return np.concatenate([pad_steps(getattr(part, name), n_steps, fill) for part in parts])

    whole = Sequences(
        tokens=joined("tokens", PAD),
        lengths=np.concatenate([part.lengths for part in parts]),
        deterministic=joined("deterministic"),
        values=joined("values"),
        eligible=joined("eligible"),
    )
    return whole if order is None else whole.take(order)


def pad_steps(array: NDArray[Any], n_steps: int, fill: int = 0) -> NDArray[Any]:
    """`array` of shape (n_trials, at most `n_steps`, ...), its steps padded with `fill` to `n_steps`.

    Examples
    --------
    >>> pad_steps(np.array([[1, 2]]), 4, fill=PAD)
    array([[ 1,  2, -1, -1]])
    """
    room = [(0, 0), (0, n_steps - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, room, constant_values=fill)


def tokens_by_trial(
    tokens: NDArray[Any], trial: NDArray[Any], step: NDArray[Any], *, fill: int = PAD, n_steps: int = 0
) -> tuple[IntArray, IntArray]:
    """Tokens of samples as a table of trials, padded to the longest.

    Parameters
    ----------
    tokens, trial, step : ndarray of int, shape (n_samples,)
        Token, number of the trial, and step in it, of each sample in any order.
    fill : int
        What stands at steps that have no sample.
    n_steps : int
        Steps of the table at least.

    Returns
    -------
    table : ndarray of int64, shape (n_trials, n_steps)
        Trials by ascending number.
    rows : ndarray of int64, shape (n_samples,)
        Row of the table that each sample belongs to.

    Examples
    --------
    >>> table, rows = tokens_by_trial(np.array([5, 6, 7]), np.array([9, 9, 2]), np.array([0, 1, 0]))
    >>> table.tolist(), rows.tolist()
    ([[7, -1], [5, 6]], [1, 1, 0])
    """
    trials, rows = np.unique(trial, return_inverse=True)
    table = np.full((len(trials), max(int(step.max(initial=-1)) + 1, n_steps)), fill, dtype=np.int64)
    table[rows, step] = tokens
    return table, rows.astype(np.int64)


class CausalModel(ABC):
    """A task as an automaton over causal variables.

    Subclasses set ``name``, ``variables`` and ``vocabulary`` and write six methods, each vectorised: the first axis of every
    array runs over trials. ``docs/causal-models.md`` builds one in under 40 lines.
    """

    name: str
    variables: tuple[VariableSpec, ...]
    """The variables that drive behaviour; together they are `full`."""
    vocabulary: tuple[str, ...]
    begin: int
    """Token that starts every trial."""
    end: int
    """Token that ends every trial."""
    filler: int | None = None
    """Token that pads a target's trial if a stepwise interchange is longer than the trial; None if the task has none."""
    max_steps: int = 10_000
    """Longest sequence. A sequence that has not ended by then is treated as an error of the model."""
    options: str = ""
    """Options of this instance, such as ``void=0.2``; saved with each system that is trained on it."""

    @abstractmethod
    def start(self, n_trials: int, generator: np.random.Generator) -> IntArray:
        """States of fresh trials after the begin token; shape (n_trials, n_slots)."""

    @abstractmethod
    def emit(self, state: IntArray, generator: np.random.Generator) -> tuple[IntArray, BoolArray]:
        """The next token of each trial, and whether it is deterministic; two arrays of shape (n_trials,)."""

    @abstractmethod
    def transition(self, state: IntArray, tokens: IntArray) -> IntArray:
        """States after consuming `tokens` of shape (n_trials,); shape (n_trials, n_slots)."""

    @abstractmethod
    def intervene(self, values: IntArray, generator: np.random.Generator) -> IntArray:
        """States that hold `values` of shape (n_trials, n_variables), other slots drawn anew; shape (n_trials, n_slots)."""

    @abstractmethod
    def possible(self, values: IntArray) -> BoolArray:
        """Whether a trial can ever hold `values`, of shape (n_trials, n_variables), at an eligible step."""

    @abstractmethod
    def eligible(self, tokens: IntArray) -> BoolArray:
        """Whether an interchange may follow each token; any shape in, the same shape out."""

    # the methods below are derived from these six and need not be overridden

    @property
    def variable_names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.variables)

    def sample(self, n_trials: int, seed: int | np.random.Generator) -> Sequences:
        """Draw whole trials.

        Parameters
        ----------
        n_trials : int
        seed : int or numpy.random.Generator

        Returns
        -------
        Sequences
            Step 0 holds the begin token.
        """
        if n_trials < 1:
            raise InvalidInput(f"expected at least 1 trial, got {n_trials}", kind="no_trials")
        generator = seeds.generator(seed, f"trials of task {self.name!r}: seed")
        state = self.start(n_trials, generator)
        body = self.run(state, generator)
        begin = np.full((n_trials, 1), self.begin, dtype=np.int64)
        never = np.zeros((n_trials, 1), dtype=bool)
        return Sequences(
            tokens=np.concatenate([begin, body.tokens], axis=1),
            lengths=body.lengths + 1,
            deterministic=np.concatenate([never, body.deterministic], axis=1),
            values=np.concatenate([state[:, None, : len(self.variables)], body.values], axis=1),
            eligible=np.concatenate([never, body.eligible], axis=1),
        )

    def counterfactual(self, values: IntArray, generator: np.random.Generator) -> Sequences:
        """The sequences that the model emits from the state `values`: the counterfactual sequences.

        Parameters
        ----------
        values : ndarray of int64, shape (n_pairs, n_variables)
            Expected values V* after an interchange.
        generator : numpy.random.Generator
            Draws the choices of the environment after the intervention.

        Returns
        -------
        Sequences
            The tokens that follow; step 0 is the first token *after* the intervention.
        """
        return self.run(self.intervene(values, generator), generator)

    def run(self, state: IntArray, generator: np.random.Generator) -> Sequences:
        """Emit and consume tokens until every trial has ended."""
        n_trials, n_variables = len(state), len(self.variables)
        alive = np.ones(n_trials, dtype=bool)
        lengths = np.zeros(n_trials, dtype=np.int64)
        tokens: list[IntArray] = []
        deterministic: list[BoolArray] = []
        values: list[IntArray] = []
        while alive.any():
            if len(tokens) == self.max_steps:
                raise InvalidInput(
                    f"task {self.name!r}: {int(alive.sum())} of {n_trials} sequences have not ended after {self.max_steps}"
                    f" tokens; expected the end token {self.vocabulary[self.end]!r}",
                    kind="endless",
                )
            emitted, fixed = self.emit(state, generator)
            state = np.where(alive[:, None], self.transition(state, emitted), state)
            tokens.append(np.where(alive, emitted, PAD))
            deterministic.append(fixed & alive)
            values.append(state[:, :n_variables])
            lengths += alive
            alive = alive & (emitted != self.end)
        empty = not tokens
        token_array = np.empty((n_trials, 0), np.int64) if empty else np.stack(tokens, axis=1)
        return Sequences(
            tokens=token_array,
            lengths=lengths,
            deterministic=np.empty((n_trials, 0), bool) if empty else np.stack(deterministic, axis=1),
            values=np.empty((n_trials, 0, n_variables), np.int64) if empty else np.stack(values, axis=1),
            eligible=self.eligible(token_array) & (token_array != PAD),
        )


TASKS: dict[str, type[CausalModel]] = {}
"""Every registered task by name."""


def register_task(task: type[CausalModel]) -> type[CausalModel]:
    """Class decorator that registers a causal model under its ``name``."""
    TASKS[task.name] = task
    return task


def get_task(name: str, **options: Any) -> CausalModel:
    """The task called `name`, with options such as ``void=0.2``.

    Raises
    ------
    NotFound
        There is no task of that name; the registered tasks are listed.
    InvalidInput
        The task has no such option, or the option cannot have that value.
    """
    if name not in TASKS:
        raise NotFound(
            f"no task {name!r}; known tasks: {', '.join(sorted(TASKS))}{suggestion(name, TASKS)}", kind="unknown_task"
        )
    options_of_task = [key for key in signature(TASKS[name]).parameters if key not in ("args", "kwargs")]
    strange = [key for key in options if key not in options_of_task]
    if strange:
        raise InvalidInput(
            f"task {name!r} has no option {', '.join(map(repr, strange))}; it has {', '.join(options_of_task) or 'none'}"
            + suggestion(strange[0], options_of_task),
            kind="invalid_option",
        )
    return TASKS[name](**options)


def variable_columns(names: Sequence[str], chosen: Sequence[str], where: str) -> list[int]:
    """Positions of `chosen` in `names`; the word ``full`` stands for all of them.

    Raises
    ------
    NotFound
        A chosen variable is not among `names`.
    """
    if list(chosen) == ["full"]:
        return list(range(len(names)))
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise NotFound(
            f"{where} has no variable {', '.join(map(repr, unknown))}; it has {', '.join(names)} (and 'full', all of them)"
            + suggestion(unknown[0], names),
            kind="unknown_variable",
        )
    return [list(names).index(name) for name in chosen]
