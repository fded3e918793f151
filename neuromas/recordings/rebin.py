"""Longer steps: several consecutive steps of a trial become one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.annotate import derived
from neuromas.recordings.check import listing
from neuromas.recordings.recording import Recording

BinBy = Literal["mean", "sum"]
"""How the activity of steps becomes that of a bin: their mean, for rates; their sum, for counts."""


def rebinned(recording: Recording, n_steps: int, by: BinBy = "mean") -> Recording:
    """The recording with steps that are `n_steps` times as long, for example 50 ms instead of 1 ms.

    Step k of the result covers the steps from ``k * n_steps`` to ``(k + 1) * n_steps - 1``. Bins in which a step is missing, such
    as the rest at the end of a trial, are left out.

    Parameters
    ----------
    recording : Recording
    n_steps : int
        Number of steps that become one.
    by : {"mean", "sum"}
        Mean of the activity, for rates, or sum, for counts. A unit that is missing in one of the steps is missing.

    Returns
    -------
    Recording
        In memory, with the precision of `recording`. Variables and other coordinates have their values at the middle step of each
        bin. A bin is eligible if all of its steps are. The provenance says what was left out and which variables changed
        within bins.

    Raises
    ------
    InvalidInput
        `n_steps` is below 2, `by` is something else, or no trial holds a whole bin.

    Examples
    --------
    >>> sampling = {"step": "time bin", "step_s": 0.001, "start_s": -0.002}
    >>> recording = Recording.from_arrays(
    ...     [[[1.0], [3.0], [5.0], [7.0], [9.0]]], {"side": ["left"]}, name="toy", sampling=sampling
    ... )
    >>> longer = rebinned(recording, 2)
    >>> longer.latents().ravel().tolist(), longer.time_s.tolist()
    ([2.0, 6.0], [-0.001, 0.001])
    """
    if n_steps < 2 or by not in ("mean", "sum"):
        raise InvalidInput(
            f"recording {recording.name!r}: expected at least 2 steps per bin, by mean or sum; got {n_steps!r} and {by!r}",
            kind="invalid_option",
        )
    rows = _whole_bins(recording, n_steps)
    activity = recording.dataset[dims.ACTIVITY]
    # (n_bins, n_steps, n_units)
    grouped = activity.values[rows.ravel()].reshape(*rows.shape, recording.n_units)
    reduced = (grouped.mean if by == "mean" else grouped.sum)(axis=1, dtype=np.float64).astype(activity.dtype)
    middle = rows[:, n_steps // 2]
    dataset = recording.dataset.isel({dims.SAMPLE: middle})
    dataset[dims.ACTIVITY] = ((dims.SAMPLE, dims.UNIT), reduced, activity.attrs)
    dataset = dataset.assign_coords(_bin_coordinates(recording, rows, n_steps))
    sampling = recording.manifest.sampling
    length_s = None if sampling.step_s is None else sampling.step_s * n_steps
    return derived(
        recording,
        dataset,
        recording.manifest.variables,
        _note(recording, rows, by),
        sampling=sampling.model_copy(update={"step_s": length_s}).model_dump(),
    )


def _whole_bins(recording: Recording, n_steps: int) -> NDArray[np.int64]:
    """Samples of each bin that has all of its steps, shape (n_bins, n_steps)."""
    trial, step = recording.trial, recording.step
    order = np.lexsort((step, trial))
    bins = step[order] // n_steps
    new = np.flatnonzero(np.diff(trial[order], prepend=trial[order][0] - 1) | np.diff(bins, prepend=bins[0] - 1))
    sizes = np.diff(np.append(new, len(order)))
    starts = new[sizes == n_steps]
    if not starts.size:
        raise InvalidInput(
            f"recording {recording.name!r}: no trial holds a whole bin of {n_steps} steps; the longest run of steps in a bin has"
            f" {int(sizes.max())}",
            kind="no_samples",
        )
    return np.asarray(order[starts[:, None] + np.arange(n_steps)], dtype=np.int64)


def _bin_coordinates(recording: Recording, rows: NDArray[np.int64], n_steps: int) -> dict[str, Any]:
    """Numbers of the bins in their trials, and whether each may be used."""
    coordinates: dict[str, Any] = {dims.STEP: (dims.SAMPLE, recording.step[rows[:, 0]] // n_steps)}
    if dims.ELIGIBLE in recording.dataset.coords:
        coordinates[dims.ELIGIBLE] = (dims.SAMPLE, recording.eligible[rows].all(axis=1))
    return {name: xr.Variable(*value) for name, value in coordinates.items()}


def _note(recording: Recording, rows: NDArray[np.int64], by: BinBy) -> str:
    left_out = recording.n_samples - rows.size
    changing = [
        name
        for name in recording.variable_names
        if (np.ptp(recording.dataset[name].values[rows].astype(np.float64), axis=1) > 0).any()
    ]
    note = f"{rows.shape[1]} steps to a bin, by {by}"
    note += f"; {left_out:,} samples of bins that are not whole left out" if left_out else ""
    return note + (f"; value at the middle of the bin: {listing(changing)}" if changing else "")
