"""Long tables with a row per sample, CSV or parquet, and tables of trials and units."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.patterns import full_matches
from neuromas.recordings.check import listing
from neuromas.recordings.columns import unusable as why_unusable
from neuromas.recordings.convert.arrays import per_trial
from neuromas.recordings.convert.arrow import Columns, read_columns
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import entry, name_of
from neuromas.recordings.convert.take import take
from neuromas.recordings.convert.text import as_labels, as_numbers, read_text, read_written
from neuromas.recordings.convert.workbook import EXTRA, read_workbook
from neuromas.recordings.export import readable
from neuromas.recordings.expression import names_in
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import ArraysRecipe

_INDEX = "Unnamed: 0"  # pandas's name for the row numbers that it writes by default
WORKBOOK_ENDINGS = (".xlsx", ".xlsm")
CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def convert_csv(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a table of text, a row per sample."""
    columns = read_text(path, recipe.column_names)
    columns, variables = as_labels(
        recipe.variables, columns, lambda names: read_written(path, names, recipe.column_names)
    )
    labelled = recipe.model_copy(update={"variables": variables})
    return _from_table(path, Columns(columns), labelled, fields, ("pandas",), user_recipe=recipe)


def convert_workbook(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a sheet of a workbook, a row per sample."""
    return _from_table(path, Columns(read_workbook(path, recipe.sheet)), recipe, fields, ("pandas", "openpyxl"))


def convert_arrow(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From parquet, Arrow or a saved dataset: a row per sample, or a row per trial with lists of steps."""
    return _from_table(path, read_columns(path, _lists_named(recipe)), recipe, fields, ("pandas", "pyarrow"))


def _lists_named(recipe: ArraysRecipe) -> Callable[[str], bool]:
    """Which columns of lists the recipe may need: those that it names, or all if it names no variables."""
    pattern = recipe.unit_columns
    named = {recipe.trial, recipe.step, dims.TOKEN, dims.ELIGIBLE, recipe.activity or dims.ACTIVITY}
    for text in (recipe.activity or "", *(variable.expression for variable in recipe.variables.values())):
        named |= names_in(text)

    def is_named(name: str) -> bool:
        return not recipe.variables or name in named or bool(pattern and full_matches(pattern, [name], "unit_columns"))

    return is_named


def _from_table(
    path: Path,
    columns: Columns,
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    libraries: tuple[str, ...],
    user_recipe: ArraysRecipe | None = None,
) -> Recording:
    n_rows = len(next(iter(columns.arrays.values()), ()))
    notes = []
    if _INDEX in columns.arrays and np.array_equal(columns.arrays[_INDEX], np.arange(n_rows)) and n_rows:
        columns = replace(columns, arrays={name: values for name, values in columns.arrays.items() if name != _INDEX})
        notes.append("a first column without a name, which numbers the rows, was left out")
    source = _of_lists(path, columns, recipe) if recipe.unit_columns is None else None
    source = _of_unit_columns(path, columns, recipe) if source is None else source
    if n_rows == 0:
        raise InvalidInput(f"{path}: the table has no rows", kind="unreadable_source")
    # `export` writes row numbers beside selected samples
    sample = source.arrays.get(dims.SAMPLE)
    aside = [dims.SAMPLE] if sample is not None and sample.dtype.kind in "iu" and np.all(np.diff(sample) > 0) else []
    for label in (recipe.trial, recipe.step):
        if label is not None and label not in columns.arrays:
            raise NotFound(
                f"{path}: no column {label!r}; there are {listing(list(columns.arrays))}", kind="unknown_column"
            )
    by_lists = recipe.unit_columns is None
    own = recipe.model_copy(update={"activity": None, "axes": recipe.axes if by_lists else None, "unit": None})
    return take(
        source,
        own,
        fields,
        name=name_of(path, (*CSV_ENDINGS, *WORKBOOK_ENDINGS, ".parquet", ".arrow")),
        path=path,
        user_recipe=user_recipe or recipe,
        libraries=libraries,
        aside=aside,
        notes=notes,
    )


def _of_unit_columns(path: Path, columns: Columns, recipe: ArraysRecipe) -> Arrays:
    """A row per sample: columns of numbers, or of lists of numbers, are units."""
    units = _unit_columns(columns, recipe, path)
    numbers = {name: as_numbers(columns.arrays[name]) for name in units if name in columns.arrays}
    arrays = columns.arrays | numbers
    text = [name for name in units if name not in arrays or arrays[name].dtype.kind not in "biuf"]
    if text:
        raise InvalidInput(
            f"{path}: unit_columns={recipe.unit_columns!r} matches columns that hold no numbers: {listing(text)}, e.g. "
            f"{arrays[text[0]].ravel()[:1].tolist() if text[0] in arrays else columns.unusable[text[0]]}",
            kind="invalid_recipe",
        )
    several = [name for name in units if name in columns.filled or arrays[name].ndim > 2]
    if several:
        raise InvalidInput(
            f"{path}: unit_columns={recipe.unit_columns!r} matches lists of different lengths, or of lists: {listing(several)}; "
            "a column with a list of steps per trial is named by activity",
            kind="invalid_recipe",
        )
    names = [label for name in units for label in _labels(name, arrays[name])]
    activity = np.column_stack([arrays[name] for name in units]) if units else np.zeros((0, 0))
    return _beside_activity(path, columns, set(units), activity, (dims.SAMPLE, dims.UNIT), np.array(names))


def _labels(name: str, values: NDArray[Any]) -> list[str]:
    """Names of the units that a column holds."""
    return [name] if values.ndim == 1 else [f"{name}_{number}" for number in range(values.shape[1])]


def _of_lists(path: Path, columns: Columns, recipe: ArraysRecipe) -> Arrays | None:
    """A column of lists as the activity, which the recipe names or which has this name; None if there is none."""
    key = recipe.activity or dims.ACTIVITY
    whole = Arrays(columns.arrays, str(path), unusable=columns.unusable, filled=columns.filled, dims={}).with_part(
        recipe.activity
    )
    whole.refuse_unusable(key)
    if key not in whole.arrays or whole.arrays[key].ndim < 2:
        if recipe.activity is None:
            return None
        lists = [*(name for name, values in whole.arrays.items() if values.ndim > 1), *columns.unread]
        raise NotFound(
            f"{path}: activity={key!r} is no column of lists of numbers; there are "
            f"{listing(lists) or 'none'}. unit_columns names "
            "columns with one number per row",
            kind="unknown_array",
        )
    activity = whole.arrays[key]
    if activity.dtype.kind not in "biuf":
        raise InvalidInput(f"{path}: activity={key!r}: expected numbers, got {activity.dtype}", kind="invalid_recipe")
    own = {key, *names_in(key)}
    names = {2: (dims.SAMPLE, dims.UNIT), 3: (dims.TRIAL, dims.STEP, dims.UNIT)}.get(
        activity.ndim, tuple(f"axis {axis}" for axis in range(activity.ndim))
    )
    source = _beside_activity(path, columns, own, activity, names, None)
    if key in whole.filled:
        source.filled[dims.ACTIVITY] = whole.filled[key]
    lengths = next((columns.lengths[name] for name in own if name in columns.lengths), None)
    if activity.ndim == 3 and lengths is not None:
        alike = [
            name for name, others in columns.lengths.items() if np.array_equal(others, lengths) and name not in own
        ]
        for name in alike:
            source.dims[name] = (names[0], names[1], *source.dims[name][2:])
    return source


def _beside_activity(
    path: Path,
    columns: Columns,
    own: Collection[str],
    activity: NDArray[Any],
    names: tuple[str, ...],
    units: NDArray[Any] | None,
) -> Arrays:
    """The activity with axes called `names`, and every column that is no part of it, one entry per row."""
    others = {name: values for name, values in columns.arrays.items() if name not in own}
    clash = [name for name in (dims.ACTIVITY, dims.UNIT) if name in others]
    unusable = columns.unusable | dict.fromkeys(clash, "the activity or the units have this name; rename the column")
    unusable |= {name: reason for name, values in others.items() if (reason := why_unusable(values))}
    unusable |= {name: f"lists that no variable names ({kind})" for name, kind in columns.unread.items()}
    arrays = {name: values for name, values in others.items() if name not in unusable}
    named: dict[str, tuple[str, ...]] = {
        name: (names[0], *(f"{name} {axis}" for axis in range(1, values.ndim))) for name, values in arrays.items()
    }
    arrays[dims.ACTIVITY], named[dims.ACTIVITY] = activity, names
    if units is not None:
        arrays[dims.UNIT], named[dims.UNIT] = units, (dims.UNIT,)
    return Arrays(arrays, str(path), dims=named, unusable=unusable)


def _unit_columns(columns: Columns, recipe: ArraysRecipe, path: Path) -> list[str]:
    existing = [*columns.arrays, *columns.unusable]
    if recipe.unit_columns is None:
        lists = [name for name, values in columns.arrays.items() if values.ndim > 1]
        raise InvalidInput(
            f'{path}: which columns are units? unit_columns is a regular expression for their names, e.g. "u\\d+"'
            + (f", and activity names a column of lists, such as {listing(lists)}" if lists else "")
            + f"; columns are {listing(existing)}",
            kind="invalid_recipe",
        )
    matched = list(full_matches(recipe.unit_columns, existing, "unit_columns"))
    if not matched:
        raise NotFound(
            f"{path}: unit_columns={recipe.unit_columns!r} matches no column; there are {listing(existing)}",
            kind="unknown_column",
        )
    return matched


def contents_csv(path: Path) -> list[tuple[str, str]]:
    """Columns with dtype and a few values."""
    return [(name, entry(values)) for name, values in read_text(path).items()]


def contents_workbook(path: Path) -> list[tuple[str, str]]:
    """Columns of the first sheet with dtype and a few values."""
    return [(name, entry(values)) for name, values in read_workbook(path).items()]


def contents_arrow(path: Path) -> list[tuple[str, str]]:
    """Columns with shape, dtype and a few values."""
    columns = read_columns(path)
    listed = [(name, entry(values)) for name, values in columns.arrays.items()]
    return listed + [(name, f"not usable: {reason}") for name, reason in columns.unusable.items()]


def to_tables(recording: Recording) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the trials and of the units, as in NWB files.

    Returns
    -------
    trials : DataFrame
        A row per trial: its number, and every coordinate that is constant in each trial, categories as their labels. If the
        recording has event times and sampling, also ``start_time`` and ``stop_time`` in seconds of the session.
    units : DataFrame
        A row per unit: its name and metadata.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((2, 3, 1)), {"side": ["left", "right"]}, name="toy")
    >>> trials, units = to_tables(recording)
    >>> trials.to_dict("list"), units.to_dict("list")
    ({'trial': [0, 1], 'side': ['left', 'right']}, {'unit': ['u0']})
    """
    dataset, sampling = recording.dataset, recording.manifest.sampling
    trials, row = np.unique(dataset[dims.TRIAL].values, return_inverse=True)
    columns: dict[str, Any] = {dims.TRIAL: trials}
    if dims.EVENT_S in dataset.coords and sampling.start_s is not None and sampling.step_s is not None:
        begin = dataset[dims.EVENT_S].values + sampling.start_s + sampling.step_s * dataset[dims.STEP].values
        first, last = np.full(len(trials), np.inf), np.full(len(trials), -np.inf)
        np.minimum.at(first, row, begin)
        np.maximum.at(last, row, begin + sampling.step_s)
        columns |= {"start_time": first, "stop_time": last}
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if coordinate.dims == (dims.SAMPLE,) and name not in (dims.TRIAL, dims.STEP, dims.SAMPLE):
            of_trial = per_trial(np.asarray(readable(recording, name)), row, len(trials))
            if of_trial is not None:
                columns[name] = of_trial
    of_units = {str(key): column.values for key, column in dataset.coords.items() if column.dims == (dims.UNIT,)}
    names = of_units.pop(dims.UNIT)
    return pd.DataFrame(columns), pd.DataFrame({dims.UNIT: names} | of_units)


CONVERTERS: tuple[Converter, ...] = (
    Converter("csv", CSV_ENDINGS, ArraysRecipe, convert_csv, contents_csv),
    Converter("xlsx", WORKBOOK_ENDINGS, ArraysRecipe, convert_workbook, contents_workbook, ("openpyxl",), EXTRA),
    Converter("parquet", (".parquet",), ArraysRecipe, convert_arrow, contents_arrow, ("pyarrow",), "parquet"),
    Converter("arrow", (".arrow",), ArraysRecipe, convert_arrow, contents_arrow, ("pyarrow",), "parquet"),
)
