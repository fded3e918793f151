"""Spike times and events as text, CSV or NPZ: a table of both, or one of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.patterns import full_matches, groups_of
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.beside import beside, files_in, read_npy
from neuromas.recordings.convert.coverage import Coverage
from neuromas.recordings.convert.events import as_column, bin_spikes, check_size, take_events
from neuromas.recordings.convert.locked import Binned, in_time_order, recording_of
from neuromas.recordings.convert.source import entry, name_of, need_variables
from neuromas.recordings.convert.text import as_labels, as_numbers, is_text, labels_apart, read_text, read_written
from neuromas.recordings.convert.units import (
    Described,
    by_activity,
    described,
    key_of,
    metadata_columns,
    not_selected,
    select_units,
)
from neuromas.recordings.convert.workbook import read_workbook
from neuromas.recordings.encode import load_npz
from neuromas.recordings.expression import evaluate, names_in
from neuromas.recordings.matrices import Matrix, example
from neuromas.recordings.recording import Recording
from neuromas.recordings.units import names_of
from neuromas.schema.recipe import SessionRecipe, SpikesRecipe, VariableRecipe

ENDINGS = (".txt", ".txt.gz")
_TIME = "time"  # column of the times of events, made from a column for each kind of event


class EventTable(NamedTuple):
    """A table of events: columns, the variables made of them, where it lies for messages, and notes for the provenance."""

    columns: Mapping[str, Any]
    variables: Mapping[str, VariableRecipe]
    where: str
    notes: Sequence[str]


class UnitTable(NamedTuple):
    """A table of units: columns, where it lies for messages, and a note for the provenance."""

    columns: Mapping[str, Any]
    where: str
    note: str


def convert_spikes(path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any]) -> Recording:
    """Activity about events, from spike times.

    Trials are numbered in order of their times, whichever rows are selected. Units of one session in several files thus have
    the same trials.
    """
    columns = read_columns(path, recipe.column_names)
    return record_spikes(columns, spike_trains(columns, recipe, path), path, recipe, fields)


def record_spikes(
    columns: Mapping[str, Any],
    spikes: Mapping[str, NDArray[np.float64]],
    path: Path,
    recipe: SpikesRecipe,
    fields: Mapping[str, Any],
) -> Recording:
    """Activity about the events in `columns`, or in the recipe's file of events, from the spike times of each unit."""
    events = event_table(columns, recipe, path)
    table = units_beside(path, recipe)
    if table is not None:
        spikes = {**spikes, **_silent(table, list(spikes), recipe, path)}
    units = units_of_table(table, list(spikes), recipe)
    return locked_spikes(path, recipe, fields, spikes, events, units, arrays_used(path, recipe))


def locked_spikes(
    path: Path,
    recipe: SpikesRecipe,
    fields: Mapping[str, Any],
    spikes: Mapping[str, NDArray[np.float64]],
    events: EventTable,
    units: Described,
    files: Sequence[Path] = (),
) -> Recording:
    """The recording of spike trains about events.

    Parameters
    ----------
    path : Path
        The source.
    recipe : SpikesRecipe
    fields : mapping
        Fields of the manifest.
    spikes : mapping of str to ndarray of shape (n_spikes,)
        Spike times of each unit in seconds.
    events : EventTable
    units : Described
        Columns of the units, in the order of `spikes`.
    files : sequence of Path
        The files of a folder that were read.
    """
    need_variables(recipe, list(events.columns), events.where)
    labelled = recipe.model_copy(update={"variables": events.variables})
    trials = take_events(in_time_order(events.columns, recipe.align, events.where), labelled, events.where)
    columns = {**units.columns, "unit": np.array(list(spikes), dtype=str)}
    rows = select_units(columns, recipe, len(spikes), str(path))
    kept = {name: spikes[name] for name in columns["unit"][rows].tolist()}
    check_size(len(trials.rows), recipe.n_steps, len(kept), events.where)
    coverage = Coverage(recipe.coverage, np.concatenate(list(spikes.values())), columns, str(path))
    width = recipe.width_s if recipe.activity == "rate" else None
    activity = np.full((len(trials.rows), recipe.n_steps, len(kept)), np.nan, dtype=np.float32)
    for column, (unit, times) in enumerate(zip(rows.tolist(), kept.values(), strict=True)):
        seen = coverage.recorded(times, trials.edges, unit)
        activity[:, :, column] = np.where(seen, bin_spikes(times, trials.edges, width), np.nan)
    metadata = metadata_columns(units.columns, recipe, str(path))
    binned = Binned(
        activity,
        list(kept),
        physical="Hz" if recipe.activity == "rate" else "1",
        unit_metadata={name: values[rows] for name, values in metadata.items()},
        left_out=[*coverage.notes(str(path)), *not_selected(len(spikes) - len(kept))],
    )
    columns = {name: values[rows] for name, values in columns.items()}
    return recording_of(
        trials,
        by_activity(binned, columns, recipe, str(path)),
        recipe,
        fields,
        defaults={"name": name_of(path, (*ENDINGS, ".csv.gz"))},
        where=str(path),
        path=path,
        notes=[*events.notes, *units.notes],
        files=files,
    )


def read_columns(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Columns of a table of text, a workbook, a NumPy archive, or a folder of NumPy arrays.

    A column has one entry per row, or several (`Matrix`). `names` are those of a table of text without a header.
    """
    if path.is_dir():
        return {file.stem: values for file, values in _vectors(path)}
    if path.suffix in (".xlsx", ".xlsm"):
        return dict(read_workbook(path))
    if path.suffix == ".npz":
        return {name: as_column(tidy(values)) for name, values in load_npz(path).items() if values.ndim > 0}
    return {path.stem: read_npy(path).ravel()} if path.suffix == ".npy" else read_text(path, names)


def arrays_used(path: Path, recipe: SpikesRecipe) -> list[Path]:
    """Files of the arrays of a folder that a recipe names; none if the source is a file."""
    names = {recipe.unit, recipe.times, *names_in(recipe.times or "")}
    return [file for file in files_in(path, ["*.npy"]) if file.stem in names] if path.is_dir() else []


def _vectors(folder: Path) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Files of a folder with one number or text per entry; others and pickles are passed over."""
    for file in files_in(folder, ["*.npy"]):
        try:
            values = read_npy(file)
        except InvalidInput as error:
            if error.kind != "pickle_refused":
                raise
            continue
        if values.dtype.kind in "biufU" and (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
            yield file, values.reshape(-1)


# ------------------------------------------------------------------------------------------------------- units


def units_beside(path: Path, recipe: SessionRecipe) -> UnitTable | None:
    """The table of units that the recipe names; None if it names none."""
    if recipe.units is None:
        return None
    file = beside(path, recipe.units, "units")
    return UnitTable(read_columns(file), str(file), f"units {recipe.units} (sha256 {sha256_file(file)})")


def units_of_table(table: UnitTable | None, names: Sequence[str], recipe: SessionRecipe) -> Described:
    """The columns of a table of units, in the order of `names`; none without a table."""
    if table is None:
        return Described()
    columns = described(names, table.columns, recipe.units_on, table.where)
    return Described(columns.columns, [table.note, *columns.notes])


def _silent(table: UnitTable, names: Sequence[str], recipe: SpikesRecipe, path: Path) -> dict[str, NDArray[np.float64]]:
    """Units that the table lists but that have no spike: silent where they count as recorded."""
    if recipe.coverage == "spikes" or recipe.unit is None:
        return {}
    listed = names_of(tidy(table.columns[key_of(table.columns, recipe.units_on, table.where)])).tolist()
    return {name: np.empty(0) for name in listed if name and name not in names}


# ------------------------------------------------------------------------------------------------------- spikes


def _column(columns: Mapping[str, Any], name: str, what: str, where: object) -> NDArray[Any]:
    """The column called `name`, or what the expression `name` makes of columns."""
    if name in columns and not isinstance(columns[name], Matrix):
        return np.asarray(columns[name])
    if not set(columns) & names_in(name):
        raise NotFound(f"{where}: no column {name!r}; there are {listing(list(columns))}", kind="unknown_column")
    return np.atleast_1d(evaluate(name, columns, f"{where}: {what}"))


def _seconds(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    values = as_numbers(values)
    if values.dtype.kind not in "iuf":
        strange = next((value for value in values.tolist() if not _is_number(value)), values[0] if values.size else "")
        raise InvalidInput(f"{what}: expected times in seconds, got {strange!r}", kind="unreadable_source")
    return values.astype(np.float64)


def spike_trains(columns: Mapping[str, Any], recipe: SpikesRecipe, path: Path) -> dict[str, NDArray[np.float64]]:
    """Spike times of each unit in seconds, in order of the units' names."""
    if not columns:
        raise InvalidInput(f"{path}: no column of spike times", kind="unreadable_source")
    if recipe.times is None and path.is_dir():
        raise InvalidInput(
            f"{path}: expected the array of spike times in seconds (times); there are {listing(list(columns))}",
            kind="invalid_recipe",
        )
    name = next(iter(columns)) if recipe.times is None else recipe.times
    times = _seconds(_column(columns, name, "times", path), f"{path}: spike times in column {name!r}")
    fired = np.isfinite(times)
    if not fired.any():
        raise InvalidInput(f"{path}: column {name!r} holds no spike time", kind="unreadable_source")
    if recipe.unit is None:
        return {name if name in columns else name_of(path, (*ENDINGS, ".csv.gz")): times[fired]}
    units = _column(columns, recipe.unit, "unit", path)
    if units.shape != times.shape:
        raise InvalidInput(
            f"{path}: {name!r} holds {times.size} spike times, but {recipe.unit!r} holds {units.size} units",
            kind="unreadable_source",
        )
    values, which = np.unique(units[fired], return_inverse=True)
    names = names_of(values)
    nameless = int(np.isin(which, np.flatnonzero(names == "")).sum())
    if nameless:
        raise InvalidInput(
            f"{path}: {nameless} of {which.size} spikes have no unit in column {recipe.unit!r}",
            kind="unreadable_source",
        )
    by_unit = np.argsort(which, kind="stable")
    trains = np.split(times[fired][by_unit], np.cumsum(np.bincount(which))[:-1])
    return {str(names[number]): trains[number] for number in np.argsort(names, kind="stable").tolist()}


def event_table(columns: Mapping[str, Any], recipe: SessionRecipe, path: Path) -> EventTable:
    """The table of events: a file that the recipe names, or the columns of the source that hold no spikes."""
    notes: list[str] = []
    file, variables = path, dict(recipe.variables)
    if recipe.events is not None:
        file = beside(path, recipe.events, "events")
        columns = read_columns(file)
        notes.append(f"events {recipe.events} (sha256 {sha256_file(file)})")
    elif path.is_dir():
        raise InvalidInput(
            f"{path}: expected the name of a file with one row per event (events), in the folder or beside it",
            kind="invalid_recipe",
        )
    elif isinstance(recipe, SpikesRecipe):
        first = recipe.times or next(iter(columns))
        named = (name for name in (first, recipe.unit) if name is not None)
        own = {part for name in named for part in ([name] if name in columns else names_in(name))}
        columns = {name: values for name, values in columns.items() if name not in own}
    where = str(file)
    if recipe.event_columns is not None:
        table, written = _wide(columns, recipe.event_columns, where)
        table, variables = as_labels(recipe.variables, table, lambda names: {name: written[name] for name in names})
        return EventTable(table, variables, where, notes)
    if is_text(file):
        single = {name: values for name, values in columns.items() if not isinstance(values, Matrix)}
        header = _column_names(recipe) if file == path else None
        labelled, variables = as_labels(variables, single, lambda names: read_written(file, names, header))
        columns = {**columns, **labelled}
    return EventTable(_long(columns, recipe.align, where), variables, where, notes)


def _column_names(recipe: SessionRecipe) -> tuple[str, ...] | None:
    return recipe.column_names if isinstance(recipe, SpikesRecipe) else None


def _long(columns: Mapping[str, Any], align: str, where: str) -> dict[str, Any]:
    """Columns as long as those that `align` names, without the rows that are empty."""
    named = [name for name in columns if name in names_in(align)]
    if not named:
        if align in columns:
            raise InvalidInput(
                f"{where}: align={align!r} is no expression, but a column has this name; write col({align!r})",
                kind="invalid_expression",
            )
        raise NotFound(
            f"{where}: no column {align!r} of event times (align); there are {listing(list(columns)) or 'none'}",
            kind="unknown_column",
        )
    fitting = {name: values for name, values in columns.items() if len(values) == len(columns[named[0]])}
    blank = np.ones(len(columns[named[0]]), dtype=bool)
    for values in fitting.values():
        if isinstance(values, Matrix):
            continue
        blank &= np.isnan(values) if values.dtype.kind == "f" else values == "" if values.dtype.kind == "U" else False
    rows = np.flatnonzero(~blank)
    return {
        name: values.of_rows(rows) if isinstance(values, Matrix) else values[rows] for name, values in fitting.items()
    }


def _wide(
    columns: Mapping[str, Any], pattern: str, where: str
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.str_]]]:
    """One row for each time in each column that `pattern` matches; named groups become columns beside the time.

    The second result is what stands in the names of the columns for each group.
    """
    single = [name for name, values in columns.items() if not isinstance(values, Matrix)]
    matched = full_matches(pattern, single, "event_columns")
    if not matched:
        raise NotFound(
            f"{where}: event_columns={pattern!r} matches no column; there are {listing(list(columns)) or 'none'}",
            kind="unknown_column",
        )
    groups = groups_of(pattern, "event_columns")
    if _TIME in groups:
        raise InvalidInput(
            f"event_columns={pattern!r}: a group cannot be called 'time', which holds the times", kind="invalid_recipe"
        )
    times = {name: _seconds(columns[name], f"{where}: event times in column {name!r}") for name in matched}
    times = {name: values[np.isfinite(values)] for name, values in times.items()}
    counts = [values.size for values in times.values()]
    merged = np.concatenate(list(times.values()))
    origin = np.repeat(list(times), counts)
    unique, inverse, n_times = np.unique(merged, return_inverse=True, return_counts=True)
    if (n_times > 1).any():
        first = int(np.flatnonzero(n_times > 1)[0])
        raise InvalidInput(
            f"{where}: event_columns={pattern!r}: {int((n_times > 1).sum())} events would be used more than once, e.g. "
            f"{unique[first]:g} s from columns {listing(origin[inverse == first].tolist())}; use a pattern that matches each "
            "event in one column only",
            kind="duplicate_event",
        )
    table, written = {_TIME: merged}, {_TIME: merged.astype(str)}
    for group in groups:
        texts = [match[group] for match in matched.values()]
        written[group] = np.repeat(np.array([text or "" for text in texts]), counts)
        table[group] = labels_apart(np.repeat(_numbers(texts), counts), written[group])
    return table, written


def _numbers(texts: list[str | None]) -> NDArray[Any]:
    """`texts` as numbers if all look like numbers; None is a missing entry."""
    if all(text is None or (_is_number(text) and np.isfinite(float(text))) for text in texts):
        numbers = [np.nan if text is None else float(text) for text in texts]
        whole = all(text is not None and re.fullmatch(r"[+-]?\d+", text) for text in texts)
        return np.array(numbers).astype(np.int64) if whole else np.array(numbers)
    return np.array([text or "" for text in texts])


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def contents_spikes(path: Path) -> list[tuple[str, str]]:
    """Columns, each with the number of its entries and a few of them."""
    listed = []
    for name, values in read_columns(path).items():
        if isinstance(values, Matrix):
            listed.append((name, f"{values.described}, e.g. {example(name, values)}"))
            continue
        present = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        listed.append((name, entry(present)))
    return listed
