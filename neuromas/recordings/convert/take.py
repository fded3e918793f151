"""A recording from named arrays, whatever file they lie in: which axis is what, and what fits trials, steps, samples or units."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.convert.locked import EVENT_S
from neuromas.recordings.convert.source import assemble, entry, provenance_of
from neuromas.recordings.encode import SAMPLE_PREFIX, UNIT_PREFIX, Layout, as_floats, declared_names, flatten
from neuromas.recordings.recording import Recording
from neuromas.schema import ArraysRecipe, Sampling, VariableRecipe

LARGEST_DENSE_BYTES = 8 * 2**30
"""Sparse activity is written out in full up to here."""

_TIME = "time"  # centre of a step in seconds, where the recipe tells how long steps last
_KEYS = (dims.TOKEN, dims.ELIGIBLE, "vocabulary", "lengths", "present", "manifest")


@dataclass(frozen=True)
class Arrays:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to ndarray
    where : str
        The file, for messages.
    dims : dict of str to tuple of str
        Names of axes, for arrays whose file names them.
    unusable : dict of str to str
        What is in the file but is no array of numbers or text: name and reason.
    vectors : bool
        Whether a table of one row or one column is a vector, as in MATLAB; an axis of length 1 at the end may lack, too.
    document : dict
        Fields of a manifest that the file brings along.
    """

    arrays: dict[str, NDArray[Any]]
    where: str
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    vectors: bool = False
    document: dict[str, Any] = field(default_factory=dict)

    def contents(self) -> list[tuple[str, str]]:
        """Every array with shape, dtype and a few values; then what cannot be used, and why."""
        listed = [(name, entry(values)) for name, values in self.arrays.items()]
        return listed + [(name, f"not usable: {reason}") for name, reason in self.unusable.items()]

    def array(self, name: str, what: str) -> NDArray[Any]:
        """The array called `name`; NotFound lists those there are."""
        self.refuse_unusable(name)
        if name not in self.arrays:
            told = [f"{key} {values.shape}" for key, values in self.arrays.items()]
            told += [f"{key} ({reason})" for key, reason in self.unusable.items()]
            raise NotFound(
                f"{self.where}: no array {name!r} ({what}); there are {', '.join(told) or 'none'}",
                kind="unknown_array",
            )
        return self.arrays[name]

    def refuse_unusable(self, name: object) -> None:
        """InvalidInput if `name` is in the file, but is nothing that can be used."""
        if name in self.unusable:
            reason = self.unusable[str(name)]
            raise InvalidInput(f"{self.where}: {name!r} cannot be used: {reason}", kind="opaque_object")


class _Columns(Mapping[str, NDArray[Any]]):
    """What expressions may name, one value per sample each; remembers which they did."""

    def __init__(self, source: Arrays, layout: Layout) -> None:
        self.source = source
        self.layout = layout
        self.placed: dict[str, NDArray[Any]] = {}
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> NDArray[Any]:
        values = tidy(self.layout.column(name, self.placed[name], []))
        self.used.add(name)
        return values

    def __contains__(self, name: object) -> bool:
        self.source.refuse_unusable(name)
        return name in self.placed

    def __iter__(self) -> Iterator[str]:
        return iter(self.placed)

    def __len__(self) -> int:
        return len(self.placed)


def take(
    source: Arrays,
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    *,
    name: str,
    path: Path | None = None,
    asked: ArraysRecipe | None = None,
    libraries: Sequence[str] = (),
) -> Recording:
    """The recording that `recipe` takes from `source`; `asked` is the user's own, where `recipe` was made from that.

    Without variables in the recipe, those that a manifest declares are taken; else every array with a value per trial, per
    (trial, step) or per sample.

    Raises
    ------
    NotFound
        An array that the recipe names does not exist; lists those there are.
    InvalidInput
        The axes do not fit the array, or an array named is no plain array.
    InvalidDocument
        Variables cannot be computed, or the data are unusable; lists every problem.
    """
    key = recipe.activity or dims.ACTIVITY
    axes = _axes(source, recipe, key)
    activity = _in_order(source.array(key, "activity"), axes)
    places = _Places(source, key, axes, activity.shape)
    told: list[str] = []
    asked = asked or recipe

    def given(what: str, named: str | None = None) -> NDArray[Any] | None:
        if named is not None:
            source.array(named, what)
            values = places.find(named)
            if values is None:
                raise InvalidInput(
                    f"{source.where}: {what} array {named!r} of shape {source.arrays[named].shape} does not fit activity of "
                    f"shape {activity.shape} ({', '.join(places.canonical)})",
                    kind="axes",
                )
            return values
        return places.find(what) if what in source.arrays else None

    lengths, present = given("lengths"), given("present")
    if present is not None and present.dtype.kind in "iu" and np.isin(present, (0, 1)).all():
        present = present.astype(bool)
    problems: list[str] = []
    floats = as_floats(activity, problems)
    if floats.ndim == 3 and lengths is None and present is None and not problems:
        present, padding = _padding(floats)
        told += [padding] if padding else []
    if problems:
        raise InvalidInput(f"{source.where}: array {key!r}: {problems[0]}", kind="axes")
    flat, layout = flatten(floats, None if lengths is None else _whole(lengths), present, problems)
    if layout is None or problems:
        raise InvalidInput(f"{source.where}: {'; '.join(problems)}", kind="axes")

    numbers = layout.trial_and_step(
        _counted(source, dims.TRIAL, recipe.trial, given(dims.TRIAL, recipe.trial)),
        _counted(source, dims.STEP, recipe.step, given(dims.STEP, recipe.step)),
        problems,
    )
    if problems:
        raise InvalidDocument(source.where, problems)
    if recipe.start_s is not None:
        numbers[dims.STEP] = numbers[dims.STEP] - numbers[dims.STEP].min()  # a step's time follows from its number
    units, again = _told_apart(_unit_names(source, recipe, activity.shape[-1]))

    taken = {key, recipe.unit or dims.UNIT, recipe.trial or dims.TRIAL, recipe.step or dims.STEP, *_KEYS}
    columns = _Columns(source, layout)
    columns.placed = {
        label: values
        for label in source.arrays
        if label != key and label not in _KEYS[2:] and (values := places.find(label)) is not None
    }
    flats = _Columns(source, Layout(layout.n_samples, 1, None))  # already one per sample
    flats.placed = {label: columns[label] for label in columns.placed}
    for label in (dims.TRIAL, dims.STEP):
        flats.placed.setdefault(label, numbers[label])
    if recipe.step_s is not None and recipe.start_s is not None:
        centres = recipe.start_s + recipe.step_s * (numbers[dims.STEP] + 0.5)
        flats.placed.setdefault(_TIME, centres)

    implied = [label for label in columns.placed if label not in taken and places.is_variable(label)]
    variables, specs = _variables(source, recipe, fields, flats, implied, layout.n_samples)
    of_units = {
        _clean(label.removeprefix(UNIT_PREFIX)): values
        for label in source.arrays
        if label not in taken and (values := places.of_units(label)) is not None
    }
    declared = declared_names(_declared(source, recipe, fields)) is not None  # then all others are plain coordinates
    of_samples = {
        _clean(label.removeprefix(SAMPLE_PREFIX)): flats.placed[label]
        for label in implied
        if (declared or label == EVENT_S or label.startswith(SAMPLE_PREFIX)) and _clean(label) not in variables
    }
    used = taken | flats.used | set(variables)
    left_out = [
        label
        for label in source.arrays
        if label not in used
        and _clean(label.removeprefix(UNIT_PREFIX)) not in of_units
        and _clean(label.removeprefix(SAMPLE_PREFIX)) not in of_samples
    ]
    told += [f"units of one name numbered: {listing(again)}"] if again else []
    told += [f"left out: {listing([*left_out, *source.unusable])}"] if left_out or source.unusable else []
    document = {
        label: value
        for label, value in source.document.items()
        if label not in ("variables", "set", "content_sha256", "files", "grouped_by")
    }
    if "vocabulary" in source.arrays:
        document.setdefault("vocabulary", [str(one) for one in np.atleast_1d(tidy(source.arrays["vocabulary"]))])
    if recipe.step_s is not None or recipe.start_s is not None:
        document["sampling"] = Sampling(step="time bin", step_s=recipe.step_s, start_s=recipe.start_s)
    brought = document.get("provenance")
    if path is not None and isinstance(brought, Mapping) and not any(brought.values()):
        brought = None
    if asked != ArraysRecipe() or not brought:
        document["provenance"] = provenance_of(path, asked, told, libraries)
    return assemble(
        flat,
        variables,
        specs,
        {"name": name} | document,
        fields,
        trial=numbers[dims.TRIAL],
        step=numbers[dims.STEP],
        token=flats.placed.get(dims.TOKEN),
        eligible=flats.placed.get(dims.ELIGIBLE),
        units=units,
        unit_metadata=of_units,
        sample_metadata=of_samples,
    )


def _declared(source: Arrays, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Sequence[Any]:
    """Variables as the user's manifest declares them, or the file's; none where the recipe says how they are computed."""
    return () if recipe.variables else fields.get("variables") or source.document.get("variables") or ()


def _variables(
    source: Arrays,
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    columns: _Columns,
    implied: Sequence[str],
    n_samples: int,
) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Values, one per sample, and declarations."""
    if recipe.variables:
        values, specs = make_variables(recipe.variables, columns, source.where)
        return {label: np.broadcast_to(one, (n_samples,)) for label, one in values.items()}, list(specs)
    documents = _declared(source, recipe, fields)
    declared = declared_names(documents)
    if declared is not None:
        return {label: columns[label] for label in columns.placed if label in declared}, list(documents)
    recipes = {
        _clean(label): VariableRecipe(expression=f"col({json.dumps(label, ensure_ascii=False)})")
        for label in implied
        if label != EVENT_S and not label.startswith(SAMPLE_PREFIX)
    }
    if not recipes:
        told = [f"{label} {values.shape}" for label, values in source.arrays.items()]
        raise InvalidInput(
            f"{source.where}: no array holds a value per trial or sample, so that there is no variable; there are "
            f"{', '.join(told)}",
            kind="no_variables",
        )
    values, specs = make_variables(recipes, columns, source.where)
    return values, list(specs)


def _clean(name: str) -> str:
    """A name that a variable can have."""
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "unnamed"
    cleaned = f"_{cleaned}" if cleaned[0].isdigit() else cleaned
    return f"{cleaned}_" if cleaned in dims.RESERVED else cleaned


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers that came as floats as whole numbers."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    return values


def _counted(source: Arrays, what: str, named: str | None, values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Numbers of trials or steps."""
    whole = None if values is None else _whole(values)
    if whole is not None and whole.dtype.kind not in "iu":
        raise InvalidInput(
            f"{source.where}: {what} array {named or what!r}: expected whole numbers, got {whole.dtype}, e.g. "
            f"{whole.ravel()[:2].tolist()}",
            kind="axes",
        )
    return whole


def _told_apart(names: NDArray[Any] | None) -> tuple[NDArray[Any] | None, list[str]]:
    """`names` with a number behind each that occurs more than once, and which those are: ``cell`` → ``cell.1``, ``cell.2``."""
    if names is None:
        return None, []
    texts = [str(one) for one in names.tolist()]
    again = [one for one in dict.fromkeys(texts) if texts.count(one) > 1]
    made = [f"{one}.{texts[: at + 1].count(one)}" if one in again else one for at, one in enumerate(texts)]
    return (np.array(made) if len(set(made)) == len(made) else names), again


def _unit_names(source: Arrays, recipe: ArraysRecipe, n_units: int) -> NDArray[Any] | None:
    label = recipe.unit or dims.UNIT
    if recipe.unit is None and label not in source.arrays:
        return None
    names = _whole(tidy(source.array(label, "names of the units")))
    if names.size != n_units:
        if recipe.unit is None and label in source.arrays and names.ndim != 1:
            return None
        raise InvalidInput(
            f"{source.where}: {label!r} names {names.size} units, the activity has {n_units}", kind="unit_mismatch"
        )
    return names.ravel().astype(str)


def _axes(source: Arrays, recipe: ArraysRecipe, key: str) -> tuple[str, ...]:
    """What each axis of the activity is."""
    shape = source.array(key, "activity").shape
    axes: tuple[str, ...] | None = recipe.axes
    if axes is None and key in source.dims:
        renamed = tuple(dims.STEP if one == "time" else one for one in source.dims[key])
        known = {dims.TRIAL, dims.STEP, dims.UNIT, dims.SAMPLE}
        axes = renamed if set(renamed) <= known and len(set(renamed)) == len(renamed) else None
    if axes is None:
        defaults: dict[int, tuple[str, ...]] = {
            3: (dims.TRIAL, dims.STEP, dims.UNIT),
            2: (dims.SAMPLE, dims.UNIT),
        }
        axes = defaults.get(len(shape))
        if axes is None:
            raise InvalidInput(
                f"{source.where}: array {key!r} of shape {shape}: expected 2 or 3 axes; say what they are "
                '(axes), e.g. ["trial", "step", "unit"]',
                kind="axes",
            )
    twice = len(set(axes)) < len(axes)
    mixed = dims.SAMPLE in axes and (dims.TRIAL in axes or dims.STEP in axes)
    lacks = source.vectors and len(shape) < len(axes) and key not in source.dims
    if twice or mixed or (len(axes) != len(shape) and not lacks):
        why = "names an axis twice" if twice else "a sample is one step of a trial, so that it cannot stand beside them"
        why = why if twice or mixed else f"names {len(axes)} axes, the array has {len(shape)}"
        raise InvalidInput(f"{source.where}: array {key!r} of shape {shape}: axes={list(axes)}: {why}", kind="axes")
    return axes


def _canonical(axes: Sequence[str]) -> tuple[str, ...]:
    return (dims.SAMPLE, dims.UNIT) if dims.SAMPLE in axes else (dims.TRIAL, dims.STEP, dims.UNIT)


def _in_order(array: NDArray[Any], axes: tuple[str, ...]) -> NDArray[Any]:
    """Activity of shape (n_trials, n_steps, n_units) or (n_samples, n_units); an axis that it lacks has length 1."""
    array = array.reshape(array.shape + (1,) * (len(axes) - array.ndim))
    canonical = _canonical(axes)
    array = array.transpose([axes.index(one) for one in canonical if one in axes])
    return array.reshape(
        [array.shape[[a for a in canonical if a in axes].index(one)] if one in axes else 1 for one in canonical]
    )


def _padding(activity: NDArray[Any]) -> tuple[NDArray[np.bool_] | None, str]:
    """Which steps are not padding, that is no unit's NaN up to the trial's end; None if all are, and what to note."""
    absent = np.isnan(activity).all(axis=2)
    padding = np.logical_and.accumulate(absent[:, ::-1], axis=1)[:, ::-1]
    if not padding.any():
        return None, ""
    return ~padding, f"left out as padding: {int(padding.sum())} steps at the ends of trials, NaN in every unit"


class _Places:
    """Where arrays lie beside the activity: per trial, per step, per (trial, step), per sample, or per unit."""

    def __init__(self, source: Arrays, key: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        self.source = source
        self.key = key
        self.axes = axes
        self.canonical = _canonical(axes)
        self.sizes = dict(zip(self.canonical, shape, strict=True))
        names = source.dims.get(key, ())
        self.axis_of = dict(zip(names, axes, strict=True)) if len(names) == len(axes) else {}

    def _axes_of(self, label: str) -> tuple[tuple[str, ...], NDArray[Any]] | None:
        """What the axes of an array are, and the array; None if they are none of the activity's."""
        array = self.source.arrays[label]
        if label in self.source.dims and self.axis_of:
            named = self.source.dims[label]
            if not all(one in self.axis_of for one in named):
                return None
            return tuple(self.axis_of[one] for one in named), array
        if self.source.vectors and array.ndim == 2 and 1 in array.shape:
            array = array.ravel()
        if array.ndim == 1:
            # a name that tells goes before a length that may fit by chance
            first = (dims.UNIT,) if label.startswith(UNIT_PREFIX) or label == dims.UNIT else ()
            for axis in (*first, *self.canonical):
                if array.size == self.sizes[axis]:
                    return (axis,), array
        if array.ndim == 2 and dims.TRIAL in self.sizes:
            own = tuple(axis for axis in self.axes if axis in (dims.TRIAL, dims.STEP))
            for pair in (own, own[::-1]):
                if len(pair) == 2 and array.shape == tuple(self.sizes[axis] for axis in pair):
                    return pair, array
        return None

    def find(self, label: str) -> NDArray[Any] | None:
        """An array as `Layout.column` takes it; None if it has no value per trial, step or sample."""
        placed = self._axes_of(label)
        if placed is None or dims.UNIT in placed[0]:
            return None
        axes, array = placed
        if axes == (dims.STEP,):
            if label in (dims.STEP,):
                return array
            return np.broadcast_to(array[None, :], (self.sizes[dims.TRIAL], self.sizes[dims.STEP]))
        if axes == (dims.STEP, dims.TRIAL):
            return array.T
        return array if axes else None

    def is_variable(self, label: str) -> bool:
        """Whether an array has a value per trial, per (trial, step) or per sample."""
        placed = self._axes_of(label)
        return placed is not None and placed[0] not in ((), (dims.STEP,), (dims.UNIT,))

    def of_units(self, label: str) -> NDArray[Any] | None:
        """Metadata of the units, if the array is that."""
        placed = self._axes_of(label)
        return None if placed is None or placed[0] != (dims.UNIT,) else tidy(placed[1])
