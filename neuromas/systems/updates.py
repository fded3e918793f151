"""How every network is trained: batches, learning rate, and when training stops (paper A.1; method: training details).

Batches depend on (seed, iteration) alone, so training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuromas import seeds
from neuromas.causal.model import CausalModel, Sequences
from neuromas.errors import InvalidInput
from neuromas.progress import Bar
from neuromas.schema.system import TrainRequest, TrainSpec
from neuromas.systems.system import DRAWING

BATCH_SIZE = 128
WARM_UP, MAX_RATE, MIN_RATE, POWER = 100, 1e-3, 1e-7, 0.5
HELD_OUT_STREAM = 2**32  # seeds of training batches are (seed, iteration); no iteration reaches this
LLAMA = "llama"
"""The kind of a language model; all others are in `neuromas.systems.training.SYSTEMS`."""

Report = Callable[[int, float, float | None], None]
"""Called with (iteration, loss, latest accuracy on held-out trials or None)."""


@dataclass(frozen=True)
class Limits:
    """When training validates, and when it stops; the attributes are those of `TrainRequest`."""

    target_accuracy: float
    min_iterations: int
    max_iterations: int
    validate_every: int
    n_held_out: int

    @classmethod
    def of(cls, request: TrainRequest) -> Limits:
        """Those of a request, with the defaults of its kind where it has none.

        Examples
        --------
        >>> Limits.of(TrainRequest(task="in-context", kind="llama")).max_iterations
        5000
        """
        defaults = LANGUAGE_MODEL_LIMITS if request.kind == LLAMA else NETWORK_LIMITS
        own = {name: getattr(request, name) for name in defaults}
        return cls(
            request.target_accuracy, **{name: defaults[name] if own[name] is None else own[name] for name in own}
        )


NETWORK_LIMITS = {
    **{name: TrainSpec.model_fields[name].default for name in ("min_iterations", "max_iterations")},
    "validate_every": 250,
    "n_held_out": 2_000,
}
LANGUAGE_MODEL_LIMITS = {"min_iterations": 0, "max_iterations": 5_000, "validate_every": 100, "n_held_out": 1_000}
"""What a `TrainRequest` means where it leaves these out."""


@dataclass(frozen=True)
class Course:
    """How far training has come.

    Attributes
    ----------
    iteration : int
        Updates done.
    streak : int
        Validations in a row that reached the target accuracy.
    accuracy : float or None
        Of the latest validation.
    """

    iteration: int = 0
    streak: int = 0
    accuracy: float | None = None

    @property
    def solved(self) -> bool:
        return self.streak >= 2


def train_until(
    course: Course,
    limits: Limits,
    update: Callable[[int], float],
    validate: Callable[[], float],
    *,
    keep: Callable[[Course], None] = lambda course: None,
    interrupted: Callable[[], bool] = lambda: False,
    report: Report,
) -> Course:
    """Update a network until two validations in a row reach the target accuracy, or until the iteration limit.

    Parameters
    ----------
    course : Course
        Where to start.
    limits : Limits
    update : callable
        Does the update of an iteration; returns the loss.
    validate : callable
        Returns the trial accuracy on held-out trials.
    keep : callable
        Writes a checkpoint; called after each validation and on an interrupt.
    interrupted : callable
        Whether to stop here.
    report : callable

    Returns
    -------
    Course

    Raises
    ------
    KeyboardInterrupt
        `interrupted` returned true; a checkpoint was written.
    """
    for iteration in range(course.iteration, limits.max_iterations):
        if course.solved and iteration >= limits.min_iterations:
            break
        loss = update(iteration)
        course = replace(course, iteration=iteration + 1)
        if course.iteration % limits.validate_every == 0 or course.iteration == limits.max_iterations:
            accuracy = validate()
            streak = course.streak + 1 if accuracy >= limits.target_accuracy else 0
            course = replace(course, accuracy=accuracy, streak=streak)
            keep(course)
        report(course.iteration, loss, course.accuracy)
        if interrupted():
            keep(course)
            raise KeyboardInterrupt
    return course


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's own generator begins at `seed`; afterwards it goes on where it was.

    There is one for all threads. Others that train wait, so that each draws what it draws alone. Weights and dropout are drawn
    within; nothing else needs it.

    Examples
    --------
    >>> draws = []
    >>> for _ in range(2):
    ...     with seeded(3):
    ...         draws.append(torch.rand(2))
    >>> torch.equal(*draws)
    True
    """
    with DRAWING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.for_torch(seed))
        yield


def learning_rate(iteration: int, largest: float = MAX_RATE) -> float:
    """Linear warm-up to `largest` over 100 iterations, then decay with the power 0.5 of the iteration (paper A.1)."""
    if iteration < WARM_UP:
        return largest * (iteration + 1) / WARM_UP
    return max(MIN_RATE, largest * (WARM_UP / (iteration + 1)) ** POWER)


def training_batch(model: CausalModel, n_trials: int, seed: int, iteration: int) -> Sequences:
    """Trials of an iteration."""
    return model.sample(n_trials, np.random.default_rng([seed, iteration]))


def held_out_trials(model: CausalModel, n_trials: int, seed: int) -> Sequences:
    """Trials that training never draws."""
    return model.sample(n_trials, np.random.default_rng([seed, HELD_OUT_STREAM]))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, iteration: int, largest_rate: float = MAX_RATE) -> float:
    """One update down the gradient of `loss`, at the iteration's learning rate; returns the loss.

    Raises
    ------
    InvalidInput
        The loss is not finite.
    """
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(iteration, largest_rate)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    value = loss.item()
    if not math.isfinite(value):
        raise InvalidInput(f"training loss became {value} at iteration {iteration}", kind="diverged")
    return value


@contextmanager
def reporting(progress: bool | Report, title: str, limits: Limits) -> Iterator[Report]:
    """`progress` itself if it is a function, a bar if it is true, else nothing."""
    if callable(progress):
        yield progress
    elif progress:
        with Bar(title, limits.max_iterations) as bar:

            def show(iteration: int, loss: float, accuracy: float | None) -> None:
                held_out = "" if accuracy is None else f", held-out accuracy {accuracy:.4f}"
                bar.update(iteration, f"loss {loss:.4f}{held_out}")

            yield show
    else:
        yield lambda iteration, loss, accuracy: None
