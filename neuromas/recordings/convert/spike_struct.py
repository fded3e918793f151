"""FieldTrip's struct of spikes: for each unit, the time and the trial of each spike, or time stamps of the session.

Its fields are ``label``, names of the units; ``timestamp``, ticks of the session's clock; and, once there are trials, ``time``,
in seconds on the trial's own clock, ``trial``, the number of the trial from 1, and ``trialtime``, start and end of each trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.convert.tree import Cell, Struct, at
from neuromas.schema.recipe import SpikesRecipe

_TIMED, _STAMPED = ("label", "time", "trial"), ("label", "timestamp")


def with_struct(values: Mapping[str, Any], recipe: SpikesRecipe, where: str) -> SpikesRecipe:
    """The recipe with the fields of a struct of spikes in the place of its name.

    By default ``times`` is the only such struct of the file. Time stamps count where there are no trials.
    """
    name = recipe.times
    if name is None:
        structs = [name for name, value in values.items() if _holds(value, _TIMED) or _holds(value, _STAMPED)]
        if len(structs) != 1:
            return recipe
        (name,) = structs
    value = at(values, name, where) if name.split(".")[0] in values else None
    if not isinstance(value, Struct):
        return recipe
    timed = _holds(value, _TIMED)
    if not timed and not _holds(value, _STAMPED):
        raise InvalidInput(
            f"{where}: {name!r} is a struct with {listing(list(value.fields))}; times names a list of spike times for each unit, "
            f"or a struct with {', '.join(_TIMED)}, or {', '.join(_STAMPED)}",
            kind="invalid_recipe",
        )
    filled: dict[str, Any] = {"times": f"{name}.{'time' if timed else 'timestamp'}"}
    filled["unit"] = recipe.unit or f"{name}.label"
    if timed:
        filled["trial"] = recipe.trial or f"{name}.trial"
        if recipe.trial_time is None and "trialtime" in value.fields:
            filled["trial_time"] = f"{name}.trialtime"
    elif recipe.sample_rate is None:
        raise InvalidInput(
            f"{where}: {name}.timestamp counts ticks; expected ticks per second in the recipe (sample_rate)",
            kind="invalid_times",
        )
    return recipe.model_copy(update=filled)


def _holds(value: Any, names: Sequence[str]) -> bool:
    return isinstance(value, Struct) and value.n_elements == 1 and set(names) <= set(value.fields)


def as_cell(value: Any) -> Any:
    """A list for each unit; of a single unit, the file may hold the list itself."""
    return Cell([value], (1,)) if isinstance(value, np.ndarray) else value


def windows_of(bounds: NDArray[Any] | None, where: str) -> NDArray[np.float64] | None:
    """Start and end of each trial in seconds, shape (n_trials, 2)."""
    if bounds is None:
        return None
    if bounds.ndim != 2 or bounds.shape[1] != 2 or bounds.dtype.kind not in "iuf":
        raise InvalidInput(
            f"{where}: expected start and end of each trial, of shape (n_trials, 2), got {bounds.dtype} of shape {bounds.shape}",
            kind="shape_mismatch",
        )
    windows = bounds.astype(np.float64)
    if not (windows[:, 0] < windows[:, 1]).all():
        raise InvalidInput(f"{where}: a trial does not end after its start", kind="invalid_times")
    return windows


def by_trial(
    times: Sequence[NDArray[np.float64]],
    trials: Sequence[NDArray[np.float64]],
    n_trials: int | None,
    where: str,
) -> list[list[NDArray[np.float64]]]:
    """Spike times of each unit in each trial.

    Parameters
    ----------
    times, trials : sequence of ndarray of shape (n_spikes,)
        Of each unit: times of its spikes, and numbers of their trials from 1.
    n_trials : int, optional
        By default the largest number of a trial.
    where : str
        For messages.

    Examples
    --------
    >>> [train.tolist() for train in by_trial([np.array([0.1, 0.2, 0.3])], [np.array([1, 3, 1])], None, "example")[0]]
    [[0.1, 0.3], [], [0.2]]
    """
    lengths = [(len(own), len(numbers)) for own, numbers in zip(times, trials, strict=False)]
    if len(times) != len(trials) or any(own != numbers for own, numbers in lengths):
        raise InvalidInput(
            f"{where}: expected the number of a trial for each spike, got {sum(map(len, trials))} in {len(trials)} lists for "
            f"{sum(map(len, times))} spikes in {len(times)}",
            kind="shape_mismatch",
        )
    every = np.concatenate([np.empty(0), *trials])
    largest = int(every.max()) if every.size and np.isfinite(every).all() else 0
    most = largest if n_trials is None else n_trials
    if every.size and not (
        np.isfinite(every).all() and (every == np.rint(every)).all() and every.min() >= 1 and largest <= most
    ):
        raise InvalidInput(
            f"{where}: expected whole numbers of trials, from 1 to {most}, got {every.min():g} to {every.max():g}",
            kind="invalid_trials",
        )
    return [
        [own[numbers == trial] for trial in range(1, most + 1)] if len(own) else [own] * most
        for own, numbers in zip(times, trials, strict=True)
    ]
