"""Long tables with a row per sample, CSV or parquet, and tables of trials and units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.columns import unusable as why_unusable
from neuromas.recordings.convert.arrays import per_trial
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import entry, name_of, unreadable
from neuromas.recordings.convert.take import take
from neuromas.recordings.convert.text import as_labels, as_numbers, read_text, read_written
from neuromas.recordings.export import readable
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import ArraysRecipe

_INDEX = "Unnamed: 0"  # pandas's name for the row numbers that it writes by default
CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def convert_csv(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a table of text, a row per sample."""
    columns = read_text(path)
    columns, variables = as_labels(recipe.variables, columns, lambda names: read_written(path, names))
    labelled = recipe.model_copy(update={"variables": variables})
    return _from_table(path, columns, labelled, fields, ("pandas",), user_recipe=recipe)


def convert_parquet(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From parquet, a row per sample."""
    return _from_table(path, _read_parquet(path), recipe, fields, ("pandas", "pyarrow"))


def _read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    try:
        table = pd.read_parquet(path, engine="pyarrow")
        if any(name is not None for name in table.index.names):
            table = table.reset_index()
        return {str(name): tidy(table[name].to_numpy()) for name in table.columns}
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a parquet file", error) from error


def _from_table(
    path: Path,
    columns: dict[str, NDArray[Any]],
    recipe: ArraysRecipe,
    fields: Mapping[str, Any],
    libraries: tuple[str, ...],
    user_recipe: ArraysRecipe | None = None,
) -> Recording:
    n_rows = len(next(iter(columns.values())))
    notes = []
    if _INDEX in columns and np.array_equal(columns[_INDEX], np.arange(n_rows)) and n_rows:
        columns = {name: values for name, values in columns.items() if name != _INDEX}
        notes.append("a first column without a name, which numbers the rows, was left out")
    units = _unit_columns(columns, recipe, path)
    columns = columns | {name: as_numbers(columns[name]) for name in units}
    text = [name for name in units if columns[name].dtype.kind not in "biuf"]
    if text:
        raise InvalidInput(
            f"{path}: unit_columns={recipe.unit_columns!r} matches columns that hold no numbers: {listing(text)}, e.g. "
            f"{columns[text[0]].ravel()[:1].tolist()}",
            kind="invalid_recipe",
        )
    if n_rows == 0:
        raise InvalidInput(f"{path}: the table has no rows", kind="unreadable_source")
    others = {name: values for name, values in columns.items() if name not in units}
    # `export` writes row numbers beside selected samples
    sample = others.get(dims.SAMPLE)
    aside = [dims.SAMPLE] if sample is not None and sample.dtype.kind in "iu" and np.all(np.diff(sample) > 0) else []
    clash = [name for name in (dims.ACTIVITY, dims.UNIT) if name in others]
    unusable = dict.fromkeys(clash, "the activity or the units have this name; rename the column")
    unusable |= {name: reason for name, values in others.items() if (reason := why_unusable(values))}
    arrays = {name: values for name, values in others.items() if name not in unusable}
    named: dict[str, tuple[str, ...]] = dict.fromkeys(arrays, (dims.SAMPLE,))
    arrays[dims.ACTIVITY] = np.column_stack([columns[name] for name in units])
    arrays[dims.UNIT] = np.array(units)
    named |= {dims.ACTIVITY: (dims.SAMPLE, dims.UNIT), dims.UNIT: (dims.UNIT,)}
    source = Arrays(arrays, str(path), dims=named, unusable=unusable)
    for label in (recipe.trial, recipe.step):
        if label is not None and label not in others:
            raise NotFound(f"{path}: no column {label!r}; there are {listing(list(columns))}", kind="unknown_column")
    own = recipe.model_copy(update={"activity": None, "axes": None, "unit": None})
    return take(
        source,
        own,
        fields,
        name=name_of(path, (*CSV_ENDINGS, ".parquet")),
        path=path,
        user_recipe=user_recipe or recipe,
        libraries=libraries,
        aside=aside,
        notes=notes,
    )


def _unit_columns(columns: Mapping[str, NDArray[Any]], recipe: ArraysRecipe, path: Path) -> list[str]:
    if recipe.unit_columns is None:
        raise InvalidInput(
            f'{path}: which columns are units? unit_columns is a regular expression for their names, e.g. "u\\d+"; columns '
            f"are {listing(list(columns))}",
            kind="invalid_recipe",
        )
    try:
        expression = re.compile(recipe.unit_columns)
    except re.error as error:
        raise InvalidInput(
            f"unit_columns={recipe.unit_columns!r} is not a regular expression: {error}", kind="invalid_recipe"
        ) from error
    matched = [name for name in columns if expression.fullmatch(name)]
    if not matched:
        raise NotFound(
            f"{path}: unit_columns={recipe.unit_columns!r} matches no column; there are {listing(list(columns))}",
            kind="unknown_column",
        )
    return matched


def contents_csv(path: Path) -> list[tuple[str, str]]:
    """Columns with dtype and a few values."""
    return [(name, entry(values)) for name, values in read_text(path).items()]


def contents_parquet(path: Path) -> list[tuple[str, str]]:
    """Columns with dtype and a few values."""
    return [(name, entry(values)) for name, values in _read_parquet(path).items()]


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
    Converter("parquet", (".parquet",), ArraysRecipe, convert_parquet, contents_parquet, ("pyarrow",), "parquet"),
)
