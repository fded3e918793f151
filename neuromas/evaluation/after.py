"""What a twin expects after a stimulation: activity and answers in the steps that follow, beside those without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.recordings.annotate import STANDARD_MEAN, STANDARD_SD
from neuromas.recordings.meanings import meanings_by_code
from neuromas.twins.twin import JUDGE, Rollout

AFTER = "after"
"""Dimension: steps after the stimulation; 0 is the stimulated step itself."""
NAMES = ("predicted", "predicted_without", "answer", "answer_without")


def predicted_after(
    target: Side, samples: NDArray[np.int64], planned: NDArray[np.float64], n_after: int, units: str
) -> dict[str, xr.Variable]:
    """Roll the judge of the target's twin on from planned and from recorded latents, with the recorded inputs.

    Parameters
    ----------
    target : Side
        With a twin.
    samples : ndarray of int64, shape (n_samples,)
        Rows of its recording.
    planned : ndarray of float64, shape (n_samples, n_units)
        Latents after the stimulation, as the recording has them.
    n_after : int
        Steps.
    units : str
        Physical units of the activity.

    Returns
    -------
    dict of str to xarray.Variable
        ``predicted``, ``predicted_without`` (sample × after × unit): activity with and without the stimulation, NaN beyond the
        end of a trial. ``answer``, ``answer_without`` (sample × after): the answers, empty beyond.

    Raises
    ------
    InvalidInput
        The target has no twin, or its twin is poor.
    """
    twin = target.twin
    if twin is None:
        raise InvalidInput(
            f"plan: what follows a stimulation of {target.name!r} is predicted by a twin, and this fit has none (twin=)",
            kind="unknown_option",
        )
    if twin.card.verdict == "poor":
        raise InvalidInput(
            f"plan: the twin of {target.name!r} is poor, so it predicts nothing: {'; '.join(twin.card.reasons)}",
            kind="wrong_twin",
        )
    recorded = target.take(samples).cpu()
    recording = target.recording
    both = {
        "": twin.roll(recording, samples, torch.from_numpy(planned).float(), n_after, role=JUDGE),
        "_without": twin.roll(recording, samples, recorded, n_after, role=JUDGE),
    }
    positions = recording.unit_positions(target.units)
    variables = {}
    for suffix, rollout in both.items():
        activity = _physical(recording.dataset.coords, positions, rollout.latents)
        text = "activity that the twin expects" + (" without the stimulation" if suffix else " after the stimulation")
        attributes = {"long_name": text, "units": units}
        variables[f"predicted{suffix}"] = xr.Variable((dims.SAMPLE, AFTER, dims.UNIT), activity, attributes)
        variables[f"answer{suffix}"] = xr.Variable((dims.SAMPLE, AFTER), _labels(target, rollout))
    return variables


def _physical(coordinates: Any, positions: NDArray[np.int64], activity: NDArray[np.float64]) -> NDArray[np.float64]:
    if STANDARD_SD not in coordinates:
        return activity
    mean, sd = (coordinates[name].values[positions] for name in (STANDARD_MEAN, STANDARD_SD))
    return np.asarray(mean + sd * activity)


def _labels(target: Side, rollout: Rollout) -> NDArray[np.str_]:
    """Answers as people read them."""
    assert target.twin is not None
    of = target.twin.card.behaviour
    words = dict(enumerate(target.twin.card.vocabulary or ())) if of.tokens else None
    meanings = words or meanings_by_code(target.recording.manifest, of.name) or {}
    texts = np.array([*(meanings.get(code, str(code)) for code in of.codes), ""])
    return np.asarray(texts[rollout.answers])
