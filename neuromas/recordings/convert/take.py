"""A recording from named arrays, whatever file they lie in: which axis is what, and what fits trials, steps, samples or units."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.convert.source import assemble, entry, free_names, provenance_of
from neuromas.recordings.encode import SAMPLE_PREFIX, UNIT_PREFIX, Layout, as_floats, declared_names, flatten
from neuromas.recordings.expression import names_in
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import ArraysRecipe, VariableRecipe
from neuromas.schema.recording import Sampling

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

    def __init__(self, source: Arrays, layout: Layout, of: str) -> None:
        self.source = source
        self.of = of  # the activity's shape, for messages
        self.layout = layout
        self.placed: dict[str, NDArray[Any]] = {}
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> NDArray[Any]:
        values = tidy(self.layout.column(name, self.placed[name], []))
        self.used.add(name)
        return values

    def __contains__(self, name: object) -> bool:
        self.source.refuse_unusable(name)
        if name not in self.placed and name in self.source.arrays:
            raise InvalidInput(
                f"{self.source.where}: array {name!r} of shape {self.source.arrays[str(name)].shape} has no value per trial, "
                f"step or sample; the activity is of shape {self.of}",
                kind="axes",
            )
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
    aside: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Recording:
    """The recording that `recipe` takes from `source`; `asked` is the user's own, where `recipe` was made from that.

    Expressions may name the arrays `aside`, but they are no variables by themselves; `notes` go to the provenance.

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
    told: list[str] = list(notes)
    asked = asked or recipe

    def given(what: str, named: str | None = None, must_fit: bool = False) -> NDArray[Any] | None:
        if named is None and what not in source.arrays:
            return None
        name = named or what
        source.array(name, what)
        values = places.find(name)
        if values is None and (named is not None or must_fit):
            raise InvalidInput(
                f"{source.where}: {what} array {name!r} of shape {source.arrays[name].shape} does not fit activity of "
                f"shape {activity.shape} ({', '.join(places.canonical)})",
                kind="axes",
            )
        return values

    lengths, present = given("lengths", must_fit=True), given("present", must_fit=True)
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
    _check_numbers(source, recipe, numbers, layout, dims.STEP in source.arrays or recipe.step is not None)
    if recipe.start_s is not None:
        numbers[dims.STEP] = numbers[dims.STEP] - numbers[dims.STEP].min()  # a step's time follows from its number
    units, again = _told_apart(_unit_names(source, recipe, activity.shape[-1]))

    taken = {key, recipe.unit or dims.UNIT, recipe.trial or dims.TRIAL, recipe.step or dims.STEP, *_KEYS}
    shape = f"{activity.shape} ({', '.join(places.canonical)})"
    columns = _Columns(source, layout, shape)
    columns.placed = {
        label: values
        for label in source.arrays
        if label != key and label not in _KEYS[2:] and (values := places.find(label)) is not None
    }
    flats = _Columns(source, Layout(layout.n_samples, 1, None), shape)  # already one per sample
    flats.placed = {label: columns[label] for label in columns.placed}
    for label in (dims.TRIAL, dims.STEP):
        flats.placed.setdefault(label, numbers[label])
    if recipe.step_s is not None and recipe.start_s is not None:
        centres = recipe.start_s + recipe.step_s * (numbers[dims.STEP] + 0.5)
        flats.placed[_TIME] = _one_time(source, recipe, flats.placed.get(_TIME), centres)

    implied = [label for label in columns.placed if label not in {*taken, *aside} and places.is_variable(label)]
    variables, specs = _variables(source, recipe, fields, flats, implied, layout.n_samples)
    per_unit = {
        label: values
        for label in source.arrays
        if label not in taken and label not in flats.used and (values := places.of_units(label)) is not None
    }
    declared = declared_names(_declared(source, recipe, fields)) is not None  # then all others are plain coordinates
    per_sample = [
        label
        for label in implied
        if (declared or label == dims.EVENT_S or label.startswith(SAMPLE_PREFIX)) and label not in variables
    ]
    sample_names = free_names(
        [_clean(label.removeprefix(SAMPLE_PREFIX)) for label in per_sample], variables, SAMPLE_PREFIX
    )
    of_samples = {sample_names[_clean(label.removeprefix(SAMPLE_PREFIX))]: flats.placed[label] for label in per_sample}
    unit_names = _distinct([label.removeprefix(UNIT_PREFIX) for label in per_unit])
    free = free_names(unit_names, [*variables, *of_samples])
    of_units = {free[name]: values for name, values in zip(unit_names, per_unit.values(), strict=True)}
    used = {*taken, *flats.used, *variables, *per_unit, *per_sample}
    left_out = [label for label in source.arrays if label not in used]
    told += places.guesses(flats.used)
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
    labels = [label for label in implied if label != dims.EVENT_S and not label.startswith(SAMPLE_PREFIX)]
    recipes = {
        name: VariableRecipe(expression=f"col({json.dumps(label, ensure_ascii=False)})")
        for name, label in zip(_distinct(labels), labels, strict=True)
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


def _distinct(labels: Sequence[str]) -> list[str]:
    """A name that a variable can have for each label, with a number behind where two would be called alike."""
    names: list[str] = []
    for label in labels:
        clean, number = _clean(label), 2
        while clean in names:
            clean, number = f"{_clean(label)}_{number}", number + 1
        names.append(clean)
    return names


def _check_numbers(
    source: Arrays, recipe: ArraysRecipe, numbers: Mapping[str, NDArray[Any]], layout: Layout, steps_given: bool
) -> None:
    """InvalidInput if trial numbers come back after others, so that steps cannot be counted, or steps are no bins."""
    trial = np.asarray(numbers[dims.TRIAL])
    if layout.present is None and not steps_given:
        starts = trial[np.r_[True, trial[1:] != trial[:-1]]]
        known, times = np.unique(starts, return_counts=True)
        if (times > 1).any():
            raise InvalidInput(
                f"{source.where}: trial {known[times > 1][0]} comes back after others ({int((times > 1).sum())} trials do), and "
                "no step tells its samples apart; number trials anew where they are others (of another session), or name a "
                "column of steps (step)",
                kind="trial_numbers",
            )
    steps = np.unique(numbers[dims.STEP])
    if (recipe.step_s is not None or recipe.start_s is not None) and steps.size > 1 and np.diff(steps).min() > 1:
        raise InvalidInput(
            f"{source.where}: steps are numbered {', '.join(map(str, steps[:3].tolist()))}{', …' * (steps.size > 3)}; where "
            "step_s or start_s tells their times they count bins, one by one",
            kind="axes",
        )


def _one_time(
    source: Arrays, recipe: ArraysRecipe, own: NDArray[Any] | None, centres: NDArray[np.float64]
) -> NDArray[Any]:
    """The centres of steps; InvalidInput if the file's own ``time`` says other, and an expression asks for it."""
    if own is None or any(label == _TIME for label in (recipe.trial, recipe.step)):
        return centres
    same = own.dtype.kind in "biuf" and np.allclose(own, centres, rtol=1e-6, atol=1e-6 * float(recipe.step_s or 1))
    if not same and any(_TIME in names_in(one.expression) for one in recipe.variables.values()):
        raise InvalidInput(
            f"{source.where}: two sources of time: the array 'time' begins with {own.ravel()[:2].tolist()}, start_s and step_s "
            f"say {centres.ravel()[:2].round(9).tolist()} for the centres of steps; leave out start_s and step_s, or rename it",
            kind="time",
        )
    return own


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
    if values is not None and values.dtype.kind == "f" and np.isnan(values).any():
        raise InvalidInput(
            f"{source.where}: {what} array {named or what!r}: {int(np.isnan(values).sum())} of {values.size} entries are missing",
            kind="axes",
        )
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
    times, seen = Counter(texts), Counter[str]()
    again = [one for one in times if times[one] > 1]
    made = []
    for one in texts:
        seen[one] += 1
        made.append(f"{one}.{seen[one]}" if times[one] > 1 else one)
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
        axes = tuple(dims.STEP if one == "time" else one for one in source.dims[key])
        known = {dims.TRIAL, dims.STEP, dims.UNIT, dims.SAMPLE}
        if not set(axes) <= known or len(set(axes)) < len(axes):
            example = '["sample", "unit"]' if len(shape) == 2 else '["trial", "step", "unit"]'
            raise InvalidInput(
                f"{source.where}: array {key!r} of shape {shape}: its axes are called {listing(source.dims[key])}; say what each "
                f"is (axes), e.g. {example}",
                kind="axes",
            )
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
    whole = int(padding.all(axis=1).sum())
    trials = f", {whole} trials of nothing else" if whole else ""
    return ~padding, f"left out as padding: {int(padding.sum())} steps at the ends of trials, NaN in every unit{trials}"


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
        self.guessed: dict[str, str] = {}

    def _axes_of(self, label: str) -> tuple[tuple[str, ...], NDArray[Any]] | None:
        """What the axes of an array are, and the array; None if they are none of the activity's."""
        array = self.source.arrays[label]
        if label in self.source.dims and self.axis_of:
            named = self.source.dims[label]
            if not all(one in self.axis_of for one in named):
                return None
            return tuple(self.axis_of[one] for one in named), array
        if array.ndim == 2 and (array.shape[1] == 1 or (self.source.vectors and 1 in array.shape)):
            fits = (self.sizes.get(dims.TRIAL), self.sizes.get(dims.STEP))
            array = array if array.shape == fits else array.ravel()
        if array.ndim == 1:
            # a name that tells goes before a length that may fit by chance
            of_steps = label in (dims.STEP, _TIME) and dims.STEP in self.sizes
            first = (dims.UNIT,) if label.startswith(UNIT_PREFIX) or label == dims.UNIT else ()
            first = (dims.STEP,) if of_steps else first
            fitting = [axis for axis in (*first, *self.canonical) if array.size == self.sizes[axis]]
            if len(set(fitting)) > 1 and fitting[0] not in first:
                self.guessed[label] = f"one per {fitting[0]}, not per {' or '.join(fitting[1:])}"
            if fitting:
                return (fitting[0],), array
        if array.ndim == 2 and dims.TRIAL in self.sizes:
            own = tuple(axis for axis in self.axes if axis in (dims.TRIAL, dims.STEP))
            if len(own) == 2 and array.shape[0] == array.shape[1] == self.sizes[dims.TRIAL] == self.sizes[dims.STEP]:
                self.guessed[label] = f"of shape ({', '.join(own)})"
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

    def guesses(self, used: Iterable[str]) -> list[str]:
        """What is to note of arrays that would fit in more than one way."""
        told = [f"{label!r} {self.guessed[label]}" for label in sorted(used) if label in self.guessed]
        return [f"taken by their sizes: {', '.join(told)}"] if told else []

    def is_variable(self, label: str) -> bool:
        """Whether an array has a value per trial, per (trial, step) or per sample."""
        placed = self._axes_of(label)
        return placed is not None and placed[0] not in ((), (dims.STEP,), (dims.UNIT,))

    def of_units(self, label: str) -> NDArray[Any] | None:
        """Metadata of the units, if the array is that."""
        placed = self._axes_of(label)
        return None if placed is None or placed[0] != (dims.UNIT,) else tidy(placed[1])
