"""How far a fit has come, and when it is expected to end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console

from neuromas.progress import Bar
from neuromas.schema.fit import FitConfig, Validation


@dataclass(frozen=True)
class Progress:
    """How far a fit has come.

    Attributes
    ----------
    iteration, max_iterations : int
    loss : float
        Training loss of this iteration.
    validation : Validation or None
        The latest.
    seconds : float
        Wall time since the start, over all runs of an interrupted fit.
    expected_end : int
        Iteration at which the fit is expected to stop, at most `max_iterations`.
    """

    iteration: int
    max_iterations: int
    loss: float
    validation: Validation | None
    seconds: float
    expected_end: int

    @property
    def seconds_left(self) -> float:
        """Until the expected end, at the rate so far."""
        return self.seconds / max(self.iteration, 1) * max(self.expected_end - self.iteration, 0)

    def __str__(self) -> str:
        text = f"loss {self.loss:.4f}"
        if self.validation is not None and self.validation.iia:
            text += f", IIA {min(self.validation.iia.values()):.3f}"
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{text}, about {minutes}:{seconds:02d} left"


def expected_end(config: FitConfig, history: Sequence[Validation], stale: int) -> int:
    """The iteration at which a fit is expected to stop.

    A cosine schedule ends at its last iteration. With a constant learning rate, a fit stops when the validation loss is flat.
    The relative decrease of the loss is taken to fall geometrically, and the end is where it reaches the tolerance.

    Parameters
    ----------
    config : FitConfig
    history : sequence of Validation
        So far.
    stale : int
        Validations in a row without progress.

    Returns
    -------
    int
        At most ``max_iterations``, which is also the answer as long as nothing can be said.
    """
    limit = config.max_iterations
    if config.schedule == "cosine" or not history:
        return limit
    now, every = history[-1].iteration, config.validate_every
    earliest = min(limit, now + (config.patience - stale) * every)
    window = min(len(history) // 3, config.patience)
    if stale > 1:
        return earliest
    if window == 0:
        return limit
    latest, middle, first = (history[-1 - window * n].loss for n in (0, 1, 2))
    before, after = (first - middle) / abs(first or 1.0), (middle - latest) / abs(middle or 1.0)
    if after <= config.tolerance:
        return earliest
    if before <= after:
        return limit
    n_windows = math.log(config.tolerance / after) / math.log(after / before)
    return max(earliest, min(limit, now + math.ceil(n_windows * window + config.patience) * every))


class FitBar:
    """A progress bar of one fit, or of several together, in a terminal or a notebook.

    It is full at the expected end, and called with the number of a fit and its `Progress`.

    Parameters
    ----------
    configs : sequence of FitConfig
        Of the fits.
    title : str, optional
        By default the methods.
    names : sequence of str, optional
        Names of the fits; their numbers by default.
    console : rich.console.Console, optional
        Standard error by default.
    """

    def __init__(
        self,
        configs: Sequence[FitConfig],
        title: str | None = None,
        names: Sequence[str] | None = None,
        console: Console | None = None,
    ) -> None:
        methods = ", ".join(dict.fromkeys(config.method for config in configs))
        self._names = None if len(configs) < 2 else names or [f"fit {number}" for number in range(len(configs))]
        title = title or (f"{len(configs)} × {methods}" if self._names else methods)
        self._done = [0] * len(configs)
        self._ends = [config.max_iterations for config in configs]
        self._bar = Bar(title, sum(self._ends), console)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def __call__(self, number: int, progress: Progress) -> None:
        self._done[number], self._ends[number] = progress.iteration, progress.expected_end
        message = f"{progress}" if self._names is None else f"{self._names[number]}: {progress}"
        self._bar.update(sum(self._done), message, total=sum(self._ends))

    def finish(self, message: str) -> None:
        """Fill the bar and end it with `message`."""
        self._bar.finish(sum(self._done), message)
