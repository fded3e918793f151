"""Recordings whose values are exchanged between trials: a control in which no fit may find anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims, seeds
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.recordings.annotate import derived, sample_columns
from neuromas.recordings.grouping import by_trial
from neuromas.recordings.recording import Recording

_ATTEMPTS = 10
"""With few trials, a random order may be the old one."""


def shuffled(
    recording: Recording,
    variables: Sequence[str] | None = None,
    seed: int = 0,
    within: str = "",
    by: Literal["trial", "sample"] = "trial",
) -> Recording:
    """The recording with the values of its variables exchanged between trials: a control in which no fit may find anything.

    A trial exchanges the values of all its steps with a trial of equal length. So each value stays as frequent as it was,
    values keep their order within trials, and what is equal in all trials at a step (a phase, for example) stays correct.
    With ``by="sample"``, none of this holds.

    Parameters
    ----------
    recording : Recording
    variables : sequence of str, optional
        Names of the variables, by default all. They are exchanged together.
    seed : int
        Equal seeds give equal results.
    within : str, optional
        A coordinate on sample, e.g. ``session``. Trials exchange values only if they agree in it. Trials of a
        pseudo-population always stay within their part.
    by : {"trial", "sample"}
        Whether whole trials exchange values, or single samples.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        A variable or coordinate does not exist.
    InvalidInput
        No sample would get another value, because trials that could exchange values hold equal ones.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((6, 1)), {"n": [1, 2, 3, 4, 5, 6]}, name="toy")
    >>> sorted(shuffled(recording, seed=1).values(["n"]).ravel().tolist())
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    names = recording.variable_names if variables is None else list(variables)
    for name in names:
        recording.spec(name)
    owner = recording.trial if by == "trial" else np.arange(recording.n_samples)
    order, starts, lengths = by_trial(owner, recording.step)
    strata = _strata(recording, within, order[starts], lengths)
    generator = seeds.generator(seed)
    for _ in range(_ATTEMPTS):
        donor = _donors(strata, len(starts), generator)
        source = np.concatenate([order[starts[trial] : starts[trial] + lengths[trial]] for trial in donor])
        values = _exchanged(recording, names, order, source)
        shares = {name: float((new != recording.dataset[name].values).mean()) for name, new in values.items()}
        if any(shares.values()):
            break
    else:
        hint = ". Trials exchange values with trials of equal length; by='sample' exchanges values of single samples"
        raise InvalidInput(
            f"recording {recording.name!r}: shuffling {by}s changes nothing: those that could exchange values hold equal ones"
            + (hint if by == "trial" else ""),
            kind="no_effect",
        )
    changes = ", ".join(f"{name} ({share:.0%} of samples changed)" for name, share in shares.items())
    note = f"values shuffled between {by}s, seed {seed}: {changes}"
    control = "; ".join(text for text in (recording.manifest.control, note) if text)
    coordinates = {name: xr.Variable((dims.SAMPLE,), new) for name, new in values.items()}
    dataset = recording.dataset.assign_coords(coordinates)
    return derived(recording, dataset, recording.manifest.variables, note, control=control)


def _strata(
    recording: Recording, within: str, first: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Trials that may exchange values, group by group: of equal length, session and part. `first` is a sample of each."""
    columns = sample_columns(recording)
    pooled = recording.manifest.pseudo_population is not None
    kept_apart = [name for name in (within, dims.PART if pooled else "") if name]
    missing = [name for name in kept_apart if name not in columns]
    if missing:
        raise NotFound(
            f"recording {recording.name!r} has no coordinate {missing[0]!r}; it has {', '.join(columns)}"
            + suggestion(missing[0], columns),
            kind="unknown_coordinate",
        )
    keys = [lengths, *(pd.factorize(columns[name][first])[0] for name in kept_apart)]
    _, stratum = np.unique(np.column_stack(keys), axis=0, return_inverse=True)
    return [np.flatnonzero(stratum == number) for number in np.unique(stratum)]


def _donors(strata: Sequence[NDArray[np.int64]], n_trials: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The trial whose values each trial gets, shape (n_trials,)."""
    donor = np.arange(n_trials)
    for members in strata:
        donor[members] = members[generator.permutation(len(members))]
    return donor


def _exchanged(
    recording: Recording, names: Sequence[str], order: NDArray[np.int64], source: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Variables in which the samples `order` have the values of the samples `source`."""
    values = {}
    for name in names:
        stored = recording.dataset[name].values
        values[name] = stored.copy()
        values[name][order] = stored[source]
    return values
