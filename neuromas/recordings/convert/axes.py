"""Which axis of an array is which: trials, steps, samples or units, by name where the file names axes, else by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.encode import UNIT_PREFIX
from neuromas.recordings.incoming import CANONICAL, TIME, in_order
from neuromas.recordings.matrices import Index, kept_axes, spelled
from neuromas.schema.recipe import ArraysRecipe


def axes_of(source: Arrays, recipe: ArraysRecipe, key: str) -> tuple[str, ...]:
    """What each axis of the activity, the array `key`, is; InvalidInput if the axes do not fit the array."""
    shape = source.array(key, "activity").shape
    where = f"{source.where}: array {key!r} of shape {shape}"
    axes: tuple[str, ...] | None = recipe.axes
    if len(shape) > 3:
        raise InvalidInput(
            f"{where}: expected 2 or 3 axes; the recipe can name them for a part of the array, e.g. activity = "
            f"{spelled(recipe.activity or key, (slice(None), 0, *[slice(None)] * (len(shape) - 2)))}",
            kind="invalid_axes",
        )
    if axes is None and source.vectors and key in source.stacked:
        raise InvalidInput(
            f"{where}: these are the entries of a cell or struct array, the entries first; the recipe must say what each axis "
            'is, e.g. axes = ["trial", "unit", "step"]',
            kind="invalid_axes",
        )
    if axes is None and key in source.dims:
        axes = _named_axes(source.dims[key], where)
    if axes is None:
        axes = CANONICAL.get(len(shape))
    if axes is None:
        raise InvalidInput(
            f'{where}: expected 2 or 3 axes; the recipe can name them, e.g. axes = ["trial", "step", "unit"]',
            kind="invalid_axes",
        )
    _check_axes(source, key, axes, where)
    return axes


def _named_axes(names: Sequence[str], where: str) -> tuple[str, ...]:
    axes = tuple(dims.STEP if name == TIME else name for name in names)
    if set(axes) <= {dims.TRIAL, dims.STEP, dims.UNIT, dims.SAMPLE} and len(set(axes)) == len(axes):
        return axes
    example = '["sample", "unit"]' if len(names) == 2 else '["trial", "step", "unit"]'
    raise InvalidInput(
        f"{where}: its axes are called {listing(names)}; the recipe must say what each is, e.g. axes = {example}",
        kind="invalid_axes",
    )


def _check_axes(source: Arrays, key: str, axes: tuple[str, ...], where: str) -> None:
    n_axes = source.arrays[key].ndim
    missing_last = source.vectors and n_axes < len(axes) and key not in source.dims
    vector = source.vectors and len(axes) == 1 and n_axes == 2 and 1 in source.arrays[key].shape
    if len(set(axes)) < len(axes):
        problem = "names an axis twice"
    elif dims.SAMPLE in axes and (dims.TRIAL in axes or dims.STEP in axes):
        problem = "a sample is one step of a trial, so it cannot stand beside trial or step"
    elif len(axes) != n_axes and not missing_last and not vector:
        problem = f"names {len(axes)} axes, the array has {n_axes}"
    elif (axis := _filled_axis(source, key, axes)) not in (None, dims.STEP):
        problem = (
            f"entries of the cell or struct array differ in their number of {axis}s, which only steps may; with 'each', every "
            "entry becomes a recording of its own"
        )
    else:
        return
    raise InvalidInput(f"{where}: axes={list(axes)}: {problem}", kind="invalid_axes")


def _filled_axis(source: Arrays, key: str, axes: tuple[str, ...]) -> str | None:
    """The axis along which entries of different lengths were filled up; None if there is none."""
    if key not in source.filled:
        return None
    squeezed = key in source.dropped and len(axes) == source.arrays[key].ndim
    return axes[source.filled[key] - squeezed]


def activity_of(source: Arrays, key: str, axes: tuple[str, ...]) -> NDArray[Any]:
    """The activity with as many axes as `axes`, in the order of `in_order`."""
    array = source.array(key, "activity")
    if key in source.dropped and len(axes) == array.ndim + 1:
        array = np.expand_dims(array, source.dropped[key])
    return in_order(array, axes)


def padding_of(activity: NDArray[Any]) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Which steps are no padding, and a note. Padding is NaN in every unit, up to the end of the trial.

    Parameters
    ----------
    activity : ndarray of shape (n_trials, n_steps, n_units)

    Returns
    -------
    present : ndarray of bool, shape (n_trials, n_steps), or None if no step is padding
    notes : list of str
    """
    absent = np.isnan(activity).all(axis=2)
    padding = np.logical_and.accumulate(absent[:, ::-1], axis=1)[:, ::-1]
    if not padding.any():
        return None, []
    n_empty = int(padding.all(axis=1).sum())
    trials = f", {n_empty} trials of nothing else" if n_empty else ""
    return ~padding, [
        f"left out as padding: {int(padding.sum())} steps at the ends of trials, NaN in every unit{trials}"
    ]


class Places:
    """What the arrays beside the activity hold: a value per trial, step, (trial, step), sample or unit.

    Parameters
    ----------
    source : Arrays
    key : str
        Name of the activity.
    axes : tuple of str
        What its axes are, in the file's order.
    shape : tuple of int
        Its shape, in the order of `in_order`.
    """

    def __init__(self, source: Arrays, key: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.source = source
        self.key = key
        self.axes = axes
        self.canonical = CANONICAL[2] if dims.SAMPLE in axes else CANONICAL[3]
        self.sizes = dict(zip(self.canonical, shape, strict=True))
        names = source.dims.get(key, ())
        self.axis_of = dict(zip(names, axes, strict=True)) if len(names) == len(axes) else {}
        self.guessed: dict[str, str] = {}

    @property
    def shape(self) -> str:
        """Shape of the activity with its axes, for messages."""
        return f"{tuple(self.sizes.values())} ({', '.join(self.canonical)})"

    def _axes_of(self, label: str, index: Index | None = None) -> tuple[tuple[str, ...], NDArray[Any]] | None:
        """What the axes of an array are, or of the part that `index` names, and the array; None if they are none of the
        activity's."""
        array = self.source.arrays[label]
        names: Sequence[str] | None = self.source.dims.get(label)
        if index is not None:
            array = array[index]
            names = None if names is None else kept_axes(names, index)
            label = spelled(label, index)
        if names is not None and self.axis_of:
            return (tuple(self.axis_of[name] for name in names), array) if set(names) <= set(self.axis_of) else None
        if array.ndim == 2 and (array.shape[1] == 1 or (self.source.vectors and 1 in array.shape)):
            per_step = (self.sizes.get(dims.TRIAL), self.sizes.get(dims.STEP))
            array = array if array.shape == per_step else array.ravel()
        axes: tuple[str, ...] | None = None
        if array.ndim == 1:
            axes = self._axis_of_length(label, array.size)
        elif array.ndim == 2 and dims.TRIAL in self.sizes:
            axes = self._axes_of_shape(label, array.shape)
        return None if axes is None else (axes, array)

    def _axis_of_length(self, label: str, size: int) -> tuple[str, ...] | None:
        """The axis that an array of one axis lies along; None if no axis has its length."""
        # a name that says it goes before a length that may fit by chance
        named: tuple[str, ...] = ()
        if label in (dims.STEP, TIME) and dims.STEP in self.sizes:
            named = (dims.STEP,)
        elif label.startswith(UNIT_PREFIX) or label == dims.UNIT:
            named = (dims.UNIT,)
        fitting = [axis for axis in (*named, *self.canonical) if size == self.sizes[axis]]
        if not fitting:
            return None
        if len(set(fitting)) > 1 and fitting[0] not in named:
            self.guessed[label] = f"one per {fitting[0]}, not per {' or '.join(fitting[1:])}"
        return (fitting[0],)

    def _axes_of_shape(self, label: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
        """(trial, step) or (step, trial), in the activity's order if both fit; None if neither does."""
        own = tuple(axis for axis in self.axes if axis in (dims.TRIAL, dims.STEP))
        if len(own) < 2:
            return None
        if shape[0] == shape[1] == self.sizes[dims.TRIAL] == self.sizes[dims.STEP]:
            self.guessed[label] = f"of shape ({', '.join(own)})"
        fitting = (pair for pair in (own, own[::-1]) if shape == tuple(self.sizes[axis] for axis in pair))
        return next(fitting, None)

    def find(self, label: str, index: Index | None = None) -> NDArray[Any] | None:
        """An array, or a part of it, as `Layout.column` expects it; None if it has no value per trial, step or sample."""
        placed = self._axes_of(label, index)
        if placed is None or dims.UNIT in placed[0]:
            return None
        axes, array = placed
        if axes == (dims.STEP,) and label != dims.STEP:
            return np.broadcast_to(array[None, :], (self.sizes[dims.TRIAL], self.sizes[dims.STEP]))
        if axes == (dims.STEP, dims.TRIAL):
            return array.T
        return array if axes else None

    def guesses(self, used: Iterable[str]) -> list[str]:
        """A note on the arrays that would fit in more than one way."""
        notes = [f"{label!r} {self.guessed[label]}" for label in sorted(used) if label in self.guessed]
        return [f"placed by their sizes: {', '.join(notes)}"] if notes else []

    def is_variable(self, label: str) -> bool:
        """Whether an array has a value per trial, per (trial, step) or per sample."""
        placed = self._axes_of(label)
        return placed is not None and placed[0] not in ((), (dims.STEP,), (dims.UNIT,))

    def of_units(self, label: str) -> NDArray[Any] | None:
        """Metadata of the units, if the array is that."""
        placed = self._axes_of(label)
        return None if placed is None or placed[0] != (dims.UNIT,) else tidy(placed[1])
