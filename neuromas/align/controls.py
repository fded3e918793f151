"""Sides with something wrong or something new in place of what was fitted: the controls of an alignment.

Each function gives a recording in a side's own names and codes. `neuromas.align.prepare.rebuilt` makes a side of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims, seeds
from neuromas.align.side import Side
from neuromas.causal.model import PAD, tokens_by_trial
from neuromas.recordings.annotate import derived
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture
from neuromas.systems.system import System

FEWEST_TRIALS = 30
"""Trials that a control needs; three parts are made of them."""
_FEWEST_DRAWN = 2_000
"""Trials that are drawn at least, to find some that the recording does not have."""


def permuted_values(sides: Sequence[Side], seed: int) -> list[Recording]:
    """Recordings in which each combination of values has the name of another, the same one everywhere.

    A causal model with these names expects the behaviour of other values than those that a latent holds.

    Parameters
    ----------
    sides : sequence of Side
        Sides with the same variables share one permutation.
    seed : int

    Returns
    -------
    list of Recording
        In the order of `sides`.
    """
    recordings = []
    for side in sides:
        alike = [other for other in sides if other.variables == side.variables]
        eligible = [other.recording.values(list(other.variables))[_usable(other)] for other in alike]
        combinations = np.unique(np.concatenate(eligible), axis=0)
        # one cycle through all of them, so that none keeps its name
        order = np.random.default_rng(seed).permutation(len(combinations))
        renamed = combinations.copy()
        renamed[order] = combinations[np.roll(order, 1)]
        values = side.recording.values(list(side.variables))
        rows = _usable(side)
        known = {row.tobytes(): number for number, row in enumerate(combinations + 0.0)}
        values[rows] = renamed[[known[row.tobytes()] for row in values[rows] + 0.0]]
        recordings.append(_with_values(side, values, f"combinations of values permuted, seed {seed}"))
    return recordings


def shuffled_values(side: Side, seed: int) -> Recording:
    """A recording in which every sample that pairs may use has the values of another one, at random."""
    values = side.recording.values(list(side.variables))
    rows = np.flatnonzero(_usable(side))
    values[rows] = values[np.random.default_rng(seed).permutation(rows)]
    return _with_values(side, values, f"values exchanged between samples, seed {seed}")


def recorded_by(side: Side, system: System) -> Recording | None:
    """The side's trials as `system` does them; None if they have no tokens from their first step on."""
    recording = side.recording
    if dims.TOKEN not in recording.dataset.coords:
        return None
    tokens, rows = tokens_by_trial(recording.dataset[dims.TOKEN].values, recording.trial, recording.step)
    ends = np.zeros(len(tokens), dtype=np.int64)
    np.maximum.at(ends, rows, recording.step + 1)
    if np.any((tokens == PAD) & (np.arange(tokens.shape[1]) < ends[:, None])):
        return None
    latents = _run(system, tokens)[rows, recording.step]
    activity = np.array(recording.latents(), dtype=np.float32)
    columns = [recording.unit_names.index(unit) for unit in side.units]
    if latents.shape[1] != len(columns):
        return None
    activity[:, columns] = latents
    dataset = recording.dataset.assign({dims.ACTIVITY: ((dims.SAMPLE, dims.UNIT), activity)})
    return derived(recording, dataset, recording.manifest.variables, f"activity of {system.name}, untrained")


def fresh_trials(side: Side, n_trials: int, seed: int) -> Recording | None:
    """New trials of the side's task, recorded of its system; None if nearly all trials that can be drawn are in the recording.

    Parameters
    ----------
    side : Side
        With a system and a causal model.
    n_trials : int
        Trials to record at most. Twice as many are drawn, and at least 2,000; those that the recording has are left out.
    seed : int
    """
    assert side.system is not None
    assert side.model is not None
    drawn = side.model.sample(max(2 * n_trials, _FEWEST_DRAWN), seeds.generator(seed))
    recording = side.recording
    tokens, _ = tokens_by_trial(recording.dataset[dims.TOKEN].values, recording.trial, recording.step)
    known = {row[row != PAD].tobytes() for row in tokens}
    new = [
        number
        for number, (row, length) in enumerate(zip(drawn.tokens, drawn.lengths, strict=True))
        if row[:length].tobytes() not in known
    ]
    if len(new) < FEWEST_TRIALS:
        return None
    with warnings.catch_warnings():
        # said of the fit already
        warnings.simplefilter("ignore")
        made = capture(side.system, drawn.take(np.array(new[:n_trials])), model=side.model, allow_unsolved=True)
    same = all(_codes(made, name) == _codes(recording, name) for name in side.variables)
    return made if same else None


def _codes(recording: Recording, name: str) -> tuple[object, ...]:
    spec = recording.spec(name)
    return spec.type, spec.meanings, spec.values if spec.meanings else None


def _usable(side: Side) -> NDArray[np.bool_]:
    """Samples that pairs or counterfactual latents may be drawn from, shape (n_samples,)."""
    recording = side.recording
    known = np.isfinite(recording.values(list(side.variables))).all(axis=1)
    rows: NDArray[np.bool_] = recording.eligible & recording.complete(list(side.units)) & known
    return rows


def _with_values(side: Side, values: NDArray[np.float64], note: str) -> Recording:
    recording = side.recording
    columns = {
        name: xr.Variable((dims.SAMPLE,), values[:, place].astype(recording.dataset[name].dtype))
        for place, name in enumerate(side.variables)
    }
    dataset = recording.dataset.assign_coords(columns)
    return derived(recording, dataset, recording.manifest.variables, note, control=note)


@torch.no_grad()
def _run(system: System, tokens: NDArray[np.int64], batch_size: int = 500) -> NDArray[np.float32]:
    batches = [
        system.latents(torch.from_numpy(tokens[start : start + batch_size])).float().cpu()
        for start in range(0, len(tokens), batch_size)
    ]
    latents: NDArray[np.float32] = torch.cat(batches).numpy()
    return latents
