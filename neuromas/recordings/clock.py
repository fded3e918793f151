"""Time of the steps of an array: what the recipe, the manifest and the file itself say of it must agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.incoming import TIME
from neuromas.schema.recipe import ArraysRecipe
from neuromas.schema.recording import Sampling

OWN_TIME = (TIME, dims.TIME_S)
"""Names under which a file holds the time of its steps, or samples."""

_ROUNDING = 0.05
"""Part of a step by which a time may differ, because it was rounded when it was written."""

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3}


def in_seconds(own: NDArray[Any], units: str) -> NDArray[Any]:
    """Times in seconds, if their `units` are known; as they are otherwise."""
    scale = _SECONDS.get(units.strip().lower(), 1.0)
    return own if scale == 1 or own.dtype.kind not in "iuf" else own * scale


def _differs(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and not np.isclose(first, second, rtol=1e-6, atol=1e-12)


def sampling_of(
    recipe: ArraysRecipe, of_file: Sampling | Mapping[str, Any] | None, of_user: Any, where: str
) -> dict[str, Any] | None:
    """The fields of ``sampling`` that a recipe and a file's manifest give together; None if neither gives any.

    Parameters
    ----------
    recipe : ArraysRecipe
    of_file, of_user : Sampling or mapping, optional
        ``sampling`` of the manifest in the file, and of the fields that the user gives.
    where : str
        The file, for messages.

    Raises
    ------
    InvalidInput
        The recipe and a manifest contradict each other.

    Examples
    --------
    >>> sampling_of(ArraysRecipe(start_s=0, step_s=0.1), {"aligned_to": "cue"}, None, "example")
    {'aligned_to': 'cue', 'step': 'time bin', 'step_s': 0.1, 'start_s': 0.0}
    """
    own, asked = _fields(of_file), {"step_s": recipe.step_s, "start_s": recipe.start_s}
    for source, fields in (("the manifest in the file", own), ("the manifest that was given", _fields(of_user))):
        for name, value in asked.items():
            if _differs(value, _number(fields.get(name))):
                raise InvalidInput(
                    f"{where}: two sources of time: the recipe gives {name}={value:g}, {source} gives {fields[name]:g}; leave "
                    "one of them out",
                    kind="invalid_times",
                )
    asked = {name: value for name, value in asked.items() if value is not None}
    return own | {"step": "time bin"} | asked if asked else own or None


def sampling_from(own: NDArray[Any], step: NDArray[Any], units: str) -> dict[str, Any] | None:
    """``sampling`` of evenly spaced times `own` (n_samples,) in known `units`; None if they are not that.

    Examples
    --------
    >>> sampling_from(np.array([-50, 50, 150]), np.array([0, 1, 2]), "ms")
    {'step': 'time bin', 'step_s': 0.1, 'start_s': -0.1}
    """
    scale = _SECONDS.get(units.strip().lower())
    width, start = (None, None) if scale is None else even_steps(own.astype(np.float64), step)
    if scale is None or width is None or start is None:
        return None
    return {"step": "time bin", "step_s": round(scale * width, 12), "start_s": round(scale * start, 12)}


def _fields(sampling: Sampling | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(sampling, Sampling):
        sampling = sampling.model_dump(exclude_unset=True)
    # what is no mapping is told when the manifest is checked
    entries = sampling.items() if isinstance(sampling, Mapping) else ()
    return {name: value for name, value in entries if value is not None}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Clock:
    """Steps, and the times that the sampling gives them.

    Attributes
    ----------
    trial, step : ndarray of int, shape (n_samples,)
    step_s, start_s : float, optional
    where : str
        The file, for messages.
    """

    trial: NDArray[Any]
    step: NDArray[Any]
    step_s: float | None
    start_s: float | None
    where: str

    @property
    def centres(self) -> NDArray[np.float64] | None:
        """Centre of each sample's step in seconds; None as long as start or length of a step are unknown."""
        if self.step_s is None or self.start_s is None:
            return None
        return np.asarray(self.start_s + self.step_s * (self.step + 0.5), dtype=np.float64)

    @classmethod
    def of(cls, trial: NDArray[Any], step: NDArray[Any], sampling: Any, where: str) -> Clock:
        """The clock that a manifest's ``sampling`` gives, however much of it is there."""
        fields = _fields(sampling)
        return cls(trial, step, _number(fields.get("step_s")), _number(fields.get("start_s")), where)

    def is_of_steps(self, own: NDArray[Any]) -> bool:
        """Whether `own` (n_samples,) may be the time of steps: numbers that are not the same throughout each trial."""
        return own.dtype.kind in "iuf" and not self._per_trial(own)

    def check(self, name: str, own: NDArray[Any], is_used: bool) -> None:
        """InvalidInput if the file's own time contradicts the sampling.

        Parameters
        ----------
        name : str
            Name of the file's array.
        own : ndarray of shape (n_samples,)
        is_used : bool
            Whether an expression names the array. One that holds text, or the same time throughout each trial, is another fact
            than the time of steps; it is refused only if an expression names it, because then the two cannot be told apart.
        """
        if self.step_s is None and self.start_s is None:
            return
        if not is_used and not self.is_of_steps(own):
            return
        if own.dtype.kind in "iuf" and self._agrees(own.astype(np.float64)):
            return
        stated = (("start_s", self.start_s), ("step_s", self.step_s))
        said = [f"{label}={value:g}" for label, value in stated if value is not None]
        centres = self.centres
        of_steps = "" if centres is None else f", so {centres[:2].round(9).tolist()} for the centres of steps"
        raise InvalidInput(
            f"{self.where}: two sources of time: the array {name!r} begins with {own[:2].tolist()}, but the sampling has "
            f"{' and '.join(said)}{of_steps}; leave out start_s and step_s, or rename the array",
            kind="invalid_times",
        )

    def _agrees(self, own: NDArray[np.float64]) -> bool:
        centres = self.centres
        if centres is not None:
            return np.allclose(own, centres, rtol=1e-6, atol=_ROUNDING * float(self.step_s or 1))
        width, start = even_steps(own, self.step)
        if width is None or start is None:
            return int(np.unique(self.step).size) < 2
        if self.step_s is not None:
            return bool(np.isclose(width, self.step_s, rtol=_ROUNDING / max(1, np.ptp(self.step)) + 1e-6))
        return bool(np.isclose(start, float(self.start_s or 0), rtol=1e-6, atol=_ROUNDING * width))

    def _per_trial(self, own: NDArray[Any]) -> bool:
        """Whether the values are constant in each of the trials, of which some have several steps."""
        order = np.argsort(self.trial, kind="stable")
        same = self.trial[order][1:] == self.trial[order][:-1]
        return bool(same.any() and (own[order][1:] == own[order][:-1])[same].all())


def even_steps(own: NDArray[np.float64], step: NDArray[Any]) -> tuple[float | None, float | None]:
    """Length of a step, and start of step 0, if times `own` (n_samples,) of steps are evenly spaced; else None twice.

    Examples
    --------
    >>> width, start = even_steps(np.array([-0.05, 0.05, 0.15]), np.array([0, 1, 2]))
    >>> round(width, 6), round(start, 6)
    (0.1, -0.1)
    """
    steps, first = np.unique(step, return_index=True)
    if steps.size < 2 or not np.isfinite(own).all():
        return None, None
    times = own[first]
    width = float((times[-1] - times[0]) / (steps[-1] - steps[0]))
    expected = times[0] + width * (step - steps[0])
    if width <= 0 or not np.allclose(own, expected, rtol=1e-6, atol=_ROUNDING * abs(width)):
        return None, None
    return width, float(times[0] - width * (steps[0] + 0.5))
