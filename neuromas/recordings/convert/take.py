"""A recording from named arrays, whatever file they lie in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.recordings.assemble import add_vocabulary
from neuromas.recordings.check import listing
from neuromas.recordings.clock import OWN_TIME, Clock, in_seconds, sampling_from, sampling_of
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.convert.arrays_beside import with_files_beside
from neuromas.recordings.convert.axes import Places, activity_of, axes_of, padding_of
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import assemble, free_names, provenance_of
from neuromas.recordings.encode import SAMPLE_PREFIX, UNIT_PREFIX, Layout, as_floats, declared_names, flatten
from neuromas.recordings.expression import evaluate_mask, names_in
from neuromas.recordings.incoming import TIME
from neuromas.recordings.matrices import Index, Matrix, spelled
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import ArraysRecipe, VariableRecipe

_NO_COLUMNS = ("vocabulary", "lengths", "present", "manifest")
"""Arrays with a meaning of their own, which expressions cannot name."""


def take(
    source: Arrays,
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    *,
    name: str,
    path: Path | None = None,
    user_recipe: ArraysRecipe | None = None,
    libraries: Sequence[str] = (),
    aside: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Recording:
    """The recording that `recipe` selects from `source`.

    Variables come from the recipe. Without variables there, they are those that a manifest declares; without such a manifest,
    every array with a value per trial, per (trial, step) or per sample is a variable.

    Parameters
    ----------
    source : Arrays
    recipe : ArraysRecipe
    fields : mapping
        Fields of the manifest that the user gives.
    name : str
        Name of the recording, if neither `fields` nor the file gives one.
    path : Path, optional
        The file, for the provenance.
    user_recipe : ArraysRecipe, optional
        The user's own recipe, if `recipe` was derived from it; for the provenance.
    libraries : sequence of str
        Libraries that read the file, for the provenance.
    aside : sequence of str
        Arrays that expressions may name, but that are no variables by themselves.
    notes : sequence of str
        For the provenance.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        The recipe names an array that does not exist; the message lists the existing ones.
    InvalidInput
        The axes do not fit the array, or an array that the recipe names cannot be used.
    InvalidDocument
        Variables cannot be computed, or the data are invalid; lists every problem.
    """
    user_recipe = user_recipe or recipe
    source, recipe, beside = with_files_beside(source, recipe, path)
    source = source.with_part(recipe.activity)
    samples = _read_samples(source, recipe)
    units, renamed = _unit_names(source, recipe, samples)
    columns = _read_columns(source, recipe, fields, samples)
    samples, columns = _selected(recipe, samples, columns)
    places = samples.places
    own = {samples.key, recipe.unit or dims.UNIT, recipe.trial or dims.TRIAL, recipe.step or dims.STEP}
    own |= {dims.TOKEN, dims.ELIGIBLE, *_NO_COLUMNS, *names_in(samples.key)}
    implied = [
        label
        for label in source.arrays
        if label not in {*own, *aside} and places.is_variable(label) and places.find(label) is not None
    ]
    variables, specs = _variables(source, recipe, fields, columns, implied, len(samples.activity))
    declared = declared_names(_declared(source, recipe, fields)) is not None
    of_samples = _sample_metadata(implied, declared, variables)
    own_time = _own_time(source, recipe, columns, _clock(source, recipe, fields, samples))
    of_time = None if own_time is None else sampling_from(own_time, samples.step, source.units.get(TIME, ""))
    if own_time is not None and of_time is None and TIME not in variables:
        of_samples.setdefault(TIME, TIME)
    if of_time is not None:
        columns.used.add(TIME)
    per_unit = {
        label: values
        for label in source.arrays
        if label not in {*own, *columns.used} and (values := places.of_units(label)) is not None
    }
    of_units = _unit_metadata(list(per_unit), [*variables, *of_samples.values()])
    used = {*own, *columns.used, *variables, *of_units, *of_samples}
    left_out = [*(label for label in source.arrays if label not in used), *source.unusable]
    notes = [
        *notes,
        *beside,
        *samples.notes,
        *places.guesses(columns.used),
        *([f"units of one name numbered: {listing(renamed)}"] if renamed else []),
        *([f"left out: {listing(left_out)}"] if left_out else []),
    ]
    document = _document(source, recipe)
    if of_time is not None:
        document["sampling"] = _known(document.get("sampling")) | of_time
    if user_recipe != ArraysRecipe() or not _has_provenance(document, path):
        document["provenance"] = provenance_of(path, user_recipe, notes, libraries)
    return assemble(
        samples.activity,
        variables,
        specs,
        {"name": name} | document,
        fields,
        trial=samples.trial,
        step=samples.step,
        token=columns.values_of.get(dims.TOKEN),
        eligible=columns.values_of.get(dims.ELIGIBLE),
        units=units,
        unit_metadata={unit_name: per_unit[label] for label, unit_name in of_units.items()},
        sample_metadata={sample_name: columns.values_of[label] for label, sample_name in of_samples.items()},
    )


# ------------------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True)
class _Samples:
    """Activity and order of the samples."""

    key: str
    """Name of the activity's array."""
    activity: NDArray[Any]
    """Shape (n_samples, n_units)."""
    trial: NDArray[Any]
    step: NDArray[Any]
    layout: Layout
    places: Places
    notes: list[str]
    lost_axis: str
    """Advice, if the activity may have lost a last axis of length 1."""


def _read_samples(source: Arrays, recipe: ArraysRecipe) -> _Samples:
    """The activity that the recipe names, one row per sample, with numbers of trials and steps."""
    key = recipe.activity or dims.ACTIVITY
    axes = axes_of(source, recipe, key)
    activity = activity_of(source, key, axes)
    places = Places(source, key, axes, activity.shape)
    lost_axis = _lost_axis(source, recipe, activity)
    lengths = _beside(source, places, "lengths", must_fit=True)
    present = _beside(source, places, "present", must_fit=True)
    if present is not None and present.dtype.kind in "iu" and np.isin(present, (0, 1)).all():
        present = present.astype(bool)
    problems: list[str] = []
    notes: list[str] = []
    floats = as_floats(activity, problems)
    if problems:
        raise InvalidInput(f"{source.where}: array {key!r}: {problems[0]}", kind="invalid_axes")
    if floats.ndim == 3 and lengths is None and present is None:
        present, notes = padding_of(floats)
    flat, layout = flatten(floats, None if lengths is None else _whole(lengths), present, problems)
    if layout is None or problems:
        raise InvalidInput(f"{source.where}: {'; '.join(problems)}{lost_axis}", kind="invalid_axes")
    trial, step = _numbers(source, recipe, places, layout)
    return _Samples(key, flat, trial, step, layout, places, notes, lost_axis)


def _lost_axis(source: Arrays, recipe: ArraysRecipe, activity: NDArray[Any]) -> str:
    """What to try if an array is a matrix only because MATLAB dropped a last axis of length 1."""
    if not source.vectors or recipe.axes is not None or activity.ndim != 2:
        return ""
    return (
        ". MATLAB drops a last axis of length 1: if this is activity of a single unit, name all axes, e.g. axes = "
        '["trial", "step", "unit"]'
    )


def _beside(
    source: Arrays, places: Places, what: str, named: str | None = None, must_fit: bool = False
) -> NDArray[Any] | None:
    """The array beside the activity that the recipe calls `named`, or that is called `what`; None if there is none."""
    if named is None and (what not in source.arrays or what == places.key):
        return None
    name = named or what
    source.array(name, what)
    values = places.find(name)
    if values is None and (named is not None or must_fit):
        raise InvalidInput(
            f"{source.where}: {what} array {name!r} of shape {source.arrays[name].shape} does not fit activity of "
            f"shape {places.shape}",
            kind="invalid_axes",
        )
    return values


def _numbers(source: Arrays, recipe: ArraysRecipe, places: Places, layout: Layout) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers of trial and step of each sample, each of shape (n_samples,)."""
    problems: list[str] = []
    numbers = layout.trial_and_step(
        _counted(source, dims.TRIAL, recipe.trial, _beside(source, places, dims.TRIAL, recipe.trial)),
        _counted(source, dims.STEP, recipe.step, _beside(source, places, dims.STEP, recipe.step)),
        problems,
    )
    if problems:
        raise InvalidDocument(source.where, problems)
    trial, step = np.asarray(numbers[dims.TRIAL]), np.asarray(numbers[dims.STEP])
    if layout.present is None and dims.STEP not in source.arrays and recipe.step is None:
        _check_trials_follow(source, trial)
    if recipe.step_s is not None or recipe.start_s is not None:
        _check_steps_count(source, step)
    # the time of a step follows from its number
    return trial, step if recipe.start_s is None else step - step.min()


def _counted(source: Arrays, what: str, named: str | None, values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Numbers of trials or steps as whole numbers."""
    if values is not None and values.dtype.kind == "f" and np.isnan(values).any():
        raise InvalidInput(
            f"{source.where}: {what} array {named or what!r}: {int(np.isnan(values).sum())} of {values.size} entries are missing",
            kind="invalid_axes",
        )
    whole = None if values is None else _whole(values)
    if whole is not None and whole.dtype.kind not in "iu":
        raise InvalidInput(
            f"{source.where}: {what} array {named or what!r}: expected whole numbers, got {whole.dtype}, e.g. "
            f"{whole.ravel()[:2].tolist()}",
            kind="invalid_axes",
        )
    return whole


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Floats that are all whole numbers as integers; other values as they are."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    return values


def _check_trials_follow(source: Arrays, trial: NDArray[Any]) -> None:
    """InvalidInput if a trial's samples do not follow one another, so that its steps cannot be counted."""
    starts = trial[np.r_[True, trial[1:] != trial[:-1]]]
    numbers, n_runs = np.unique(starts, return_counts=True)
    if (n_runs > 1).any():
        raise InvalidInput(
            f"{source.where}: trial {numbers[n_runs > 1][0]} comes back after others ({int((n_runs > 1).sum())} trials do), and "
            "no column of steps orders its samples. If these are different trials (of another session), give them different "
            "numbers; otherwise name a column of steps (step)",
            kind="invalid_trials",
        )


def _check_steps_count(source: Arrays, step: NDArray[Any]) -> None:
    """InvalidInput if step numbers skip some, so that they cannot count bins of equal width."""
    steps = np.unique(step)
    if steps.size > 1 and np.diff(steps).min() > 1:
        raise InvalidInput(
            f"{source.where}: steps are numbered {', '.join(map(str, steps[:3].tolist()))}{', …' * (steps.size > 3)}; expected "
            "consecutive numbers, because step_s and start_s make steps bins of time",
            kind="invalid_axes",
        )


# ------------------------------------------------------------------------------------------------------- columns


class _Columns(Mapping[str, Any]):
    """What expressions may name, one value per sample each, and arrays of which they name a column; remembers what they named.

    Parameters
    ----------
    source : Arrays
    values_of : dict of str to ndarray of shape (n_samples,)
    samples : _Samples
        All samples of the source.
    rows : ndarray of bool, shape of all samples, optional
        The samples that were selected.
    used : iterable of str
        Names that were used before.
    """

    def __init__(
        self,
        source: Arrays,
        values_of: dict[str, NDArray[Any]],
        samples: _Samples,
        rows: NDArray[np.bool_] | None = None,
        used: Iterable[str] = (),
    ) -> None:
        self.source = source
        self.values_of = values_of
        self.samples = samples
        self.rows = rows
        self.used = set(used)

    def __getitem__(self, name: str) -> NDArray[Any] | Matrix:
        self.used.add(name)
        array = self.source.arrays.get(name)
        if array is None or array.ndim < 2:
            return self.values_of[name]
        remark = f"; the activity is of shape {self.samples.places.shape}{self.samples.lost_axis}"
        return Matrix(array.shape, partial(self._part, name), self.values_of.get(name), remark=remark)

    def _part(self, name: str, index: Index) -> NDArray[Any]:
        """The values per sample of a part of an array."""
        places = self.samples.places
        values = places.find(name, index)
        if values is None:
            part = self.source.arrays[name][index]
            raise InvalidInput(
                f"{self.source.where}: {spelled(name, index)} is of shape {part.shape} and has no value per trial, step or "
                f"sample; {name!r} is of shape {self.source.arrays[name].shape}, the activity of shape {places.shape}",
                kind="invalid_axes",
            )
        self.used.add(spelled(name, index))
        column = tidy(self.samples.layout.column(name, values, []))
        return column if self.rows is None else column[self.rows]

    def __contains__(self, name: object) -> bool:
        self.source.refuse_unusable(name)
        array = self.source.arrays.get(str(name))
        if name in self.values_of or (array is not None and self._columns_of(str(name))):
            return True
        if array is not None:
            raise InvalidInput(
                f"{self.source.where}: array {name!r} of shape {array.shape} has no value per trial, step or sample; the "
                f"activity is of shape {self.samples.places.shape}{self.samples.lost_axis}",
                kind="invalid_axes",
            )
        return False

    def _columns_of(self, name: str) -> bool:
        """Whether an array that has no value per sample has columns that an expression can name."""
        sizes = {size for axis, size in self.samples.places.sizes.items() if axis != dims.UNIT}
        shape = self.source.arrays[name].shape
        return len(shape) >= 2 and bool(sizes & set(shape)) and name not in (self.samples.key, *_NO_COLUMNS)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)


def _read_columns(source: Arrays, recipe: ArraysRecipe, fields: Mapping[str, Any], samples: _Samples) -> _Columns:
    """Every array with a value per trial, step or sample, the numbers of trials and steps, and the time of steps."""
    values_of = {
        label: tidy(samples.layout.column(label, values, []))
        for label in source.arrays
        if label != samples.key and label not in _NO_COLUMNS and (values := samples.places.find(label)) is not None
    }
    values_of.setdefault(dims.TRIAL, samples.trial)
    values_of.setdefault(dims.STEP, samples.step)
    clock = _clock(source, recipe, fields, samples)
    expressions = [variable.expression for variable in recipe.variables.values()]
    used = set().union(*(names_in(text) for text in (*expressions, recipe.where or "")))
    for name in OWN_TIME:
        if name in values_of and name not in (recipe.trial, recipe.step):
            clock.check(name, in_seconds(values_of[name], source.units.get(name, "")), name in used)
    if clock.centres is not None and (TIME not in values_of or TIME in (recipe.trial, recipe.step)):
        values_of[TIME] = clock.centres
    return _Columns(source, values_of, samples)


def _selected(recipe: ArraysRecipe, samples: _Samples, columns: _Columns) -> tuple[_Samples, _Columns]:
    """The samples for which ``where`` is true, and what expressions may name of them."""
    if recipe.where is None:
        return samples, columns
    where = columns.source.where
    rows = evaluate_mask(recipe.where, columns, len(samples.activity), f"{where}: where")
    n_left_out = int((~rows).sum())
    if rows.size == n_left_out:
        raise InvalidInput(
            f"{where}: where={recipe.where!r} is true for none of {rows.size} samples", kind="no_samples"
        )
    chosen = replace(
        samples,
        activity=samples.activity[rows],
        trial=samples.trial[rows],
        step=samples.step[rows],
        notes=[*samples.notes, *([f"not selected: {n_left_out} of {rows.size} samples"] if n_left_out else [])],
    )
    values_of = {name: values[rows] for name, values in columns.values_of.items()}
    return chosen, _Columns(columns.source, values_of, samples, rows, columns.used)


def _clock(source: Arrays, recipe: ArraysRecipe, fields: Mapping[str, Any], samples: _Samples) -> Clock:
    """The times of the samples by recipe and manifest; InvalidInput if these contradict each other."""
    sampling = sampling_of(recipe, source.document.get("sampling"), fields.get("sampling"), source.where)
    return Clock.of(samples.trial, samples.step, fields.get("sampling") or sampling, source.where)


def _own_time(source: Arrays, recipe: ArraysRecipe, columns: _Columns, clock: Clock) -> NDArray[Any] | None:
    """The file's time of the steps, where neither recipe nor manifest says when steps are; None without one."""
    own = columns.values_of.get(TIME)
    if own is None or TIME in (recipe.trial, recipe.step) or TIME not in source.arrays or clock.centres is not None:
        return None
    return own if clock.is_of_steps(own) else None


# ------------------------------------------------------------------------------------------------------- variables


def _declared(source: Arrays, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Sequence[Any]:
    """Variables as the user's manifest declares them, or the file's; none if the recipe computes them."""
    return () if recipe.variables else fields.get("variables") or source.document.get("variables") or ()


def _variables(
    source: Arrays,
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    columns: _Columns,
    implied: Sequence[str],
    n_samples: int,
) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """Values of the variables, each of shape (n_samples,), and their declarations.

    `implied` are the arrays that are variables, if neither a recipe nor a manifest says which are.
    """
    if recipe.variables:
        values, specs = make_variables(recipe.variables, columns, source.where)
        return {label: np.broadcast_to(column, (n_samples,)) for label, column in values.items()}, list(specs)
    documents = _declared(source, recipe, fields)
    declared = declared_names(documents)
    if declared is not None:
        values = {label: values for label, values in columns.values_of.items() if label in declared}
        columns.used |= set(values)
        return values, list(documents)
    labels = [label for label in implied if label != dims.EVENT_S and not label.startswith(SAMPLE_PREFIX)]
    recipes = {
        name: VariableRecipe(expression=f"col({json.dumps(label, ensure_ascii=False)})")
        for name, label in zip(_distinct(labels), labels, strict=True)
    }
    if not recipes:
        existing = [f"{label} {values.shape}" for label, values in source.arrays.items()]
        raise InvalidInput(
            f"{source.where}: no array holds a value per trial or sample, so there is no variable; there are "
            f"{', '.join(existing)}",
            kind="no_variables",
        )
    values, specs = make_variables(recipes, columns, source.where)
    return values, list(specs)


# ------------------------------------------------------------------------------------------------------- metadata


def _sample_metadata(labels: Sequence[str], declared: bool, variables: Mapping[str, Any]) -> dict[str, str]:
    """Arrays that become coordinates of the samples, with the name of each coordinate.

    If a manifest declares the variables, these are all other `labels`; else event times and those whose name says so.
    """
    clean = {
        label: _clean(label.removeprefix(SAMPLE_PREFIX))
        for label in labels
        if (declared or label == dims.EVENT_S or label.startswith(SAMPLE_PREFIX)) and label not in variables
    }
    names = free_names(clean.values(), variables, SAMPLE_PREFIX)
    return {label: names[name] for label, name in clean.items()}


def _unit_metadata(labels: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """The name of the coordinate of the units for each of `labels`; none of them in `taken`."""
    names = _distinct([label.removeprefix(UNIT_PREFIX) for label in labels])
    free = free_names(names, taken)
    return {label: free[name] for label, name in zip(labels, names, strict=True)}


def _distinct(labels: Sequence[str]) -> list[str]:
    """A name that a variable can have for each label; a number follows where two names would be equal.

    Examples
    --------
    >>> _distinct(["brain area", "brain-area", "2nd"])
    ['brain_area', 'brain_area_2', '_2nd']
    """
    names: list[str] = []
    for label in labels:
        clean, number = _clean(label), 2
        while clean in names:
            clean, number = f"{_clean(label)}_{number}", number + 1
        names.append(clean)
    return names


def _clean(name: str) -> str:
    """A name that a variable can have."""
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "unnamed"
    cleaned = f"_{cleaned}" if cleaned[0].isdigit() else cleaned
    return f"{cleaned}_" if cleaned in dims.RESERVED else cleaned


def _unit_names(source: Arrays, recipe: ArraysRecipe, samples: _Samples) -> tuple[NDArray[Any] | None, list[str]]:
    """Names of the units, shape (n_units,), and those that occur more than once and were numbered; None without names."""
    label = recipe.unit or dims.UNIT
    if recipe.unit is None and label not in source.arrays:
        return None, []
    names, n_units = _whole(tidy(source.array(label, "names of the units"))), samples.activity.shape[-1]
    if names.size != n_units:
        if recipe.unit is None and names.ndim != 1:
            return None, []
        raise InvalidInput(
            f"{source.where}: {label!r} names {names.size} units, the activity has {n_units}{samples.lost_axis}",
            kind="unit_mismatch",
        )
    return _numbered(names.ravel().astype(str))


def _numbered(names: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """`names` with a number behind each that occurs more than once, and which do: ``cell`` → ``cell.1``, ``cell.2``."""
    texts = names.tolist()
    counts, seen = Counter(texts), Counter[str]()
    numbered = []
    for text in texts:
        seen[text] += 1
        numbered.append(f"{text}.{seen[text]}" if counts[text] > 1 else text)
    unique = len(set(numbered)) == len(numbered)
    return (np.array(numbered) if unique else names), [text for text in counts if counts[text] > 1]


# ------------------------------------------------------------------------------------------------------- manifest


def _document(source: Arrays, recipe: ArraysRecipe) -> dict[str, Any]:
    """Fields of the manifest that the file and the recipe give."""
    recomputed = ("variables", "set", "content_sha256", "files", "grouped_by")
    document = {label: value for label, value in source.document.items() if label not in recomputed}
    if "vocabulary" in source.arrays:
        add_vocabulary(document, source.arrays["vocabulary"], source.where)
    _add_units(document, source.units.get(recipe.activity or dims.ACTIVITY), source.where)
    sampling = sampling_of(recipe, source.document.get("sampling"), None, source.where)
    if recipe.step_s is not None or recipe.start_s is not None:
        document["sampling"] = sampling
    return document


def _add_units(document: dict[str, Any], units: str | None, where: str) -> None:
    """Put the physical units that the file gives the activity into the manifest; InvalidInput if that has others."""
    listed = document.get("units")
    if units is not None and listed not in (None, "1", units):
        raise InvalidInput(
            f"{where}: two units of activity: the array has {units!r}, the manifest in the file {listed!r}; expected the same",
            kind="invalid_recipe",
        )
    if units is not None:
        document["units"] = units


def _known(sampling: Any) -> dict[str, Any]:
    return {name: value for name, value in dict(sampling or {}).items() if value is not None}


def _has_provenance(document: Mapping[str, Any], path: Path | None) -> bool:
    """Whether the file brings its own provenance; that of a file must say something."""
    provenance = document.get("provenance")
    empty = path is not None and isinstance(provenance, Mapping) and not any(provenance.values())
    return bool(provenance) and not empty
