"""Spike times and events as text, CSV or NPZ: a table of both, or one of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.recordings.check import listing
from neuromas.recordings.columns import as_text, tidy
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import bin_spikes, check_size, spanned, take_events
from neuromas.recordings.convert.locked import Binned, in_time_order, recording_of
from neuromas.recordings.convert.source import entry, name_of, need_variables
from neuromas.recordings.convert.text import as_labels, as_numbers, labels_apart, read_text, read_written
from neuromas.recordings.encode import load_npz
from neuromas.recordings.expression import evaluate, names_in
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import SpikesRecipe, VariableRecipe

ENDINGS = (".txt", ".txt.gz")
_TIME = "time"  # column of the times of events, made from a column for each kind of event


def convert_spikes(path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any]) -> Recording:
    """Activity about events, from spike times.

    Trials are numbered in order of their times, whichever rows are selected. Units of one session in several files thus have
    the same trials.
    """
    columns = _columns(path)
    spikes = _spikes(columns, recipe, path)
    table, variables, where, notes = _events(columns, recipe, path)
    need_variables(recipe, list(table), where)
    labelled = recipe.model_copy(update={"variables": variables})
    events = take_events(in_time_order(table, recipe.align, where), labelled, where)
    check_size(len(events.rows), recipe.n_steps, len(spikes), where)
    everything = np.concatenate(list(spikes.values()))
    width = recipe.width_s if recipe.activity == "rate" else None
    activity = np.full((len(events.rows), recipe.n_steps, len(spikes)), np.nan, dtype=np.float32)
    for column, times in enumerate(spikes.values()):
        recorded = spanned(times if recipe.coverage == "spikes" else everything, events.edges)
        activity[recorded, :, column] = bin_spikes(times, events.edges[recorded], width)
    return recording_of(
        events,
        Binned(activity, list(spikes), physical="Hz" if recipe.activity == "rate" else "1"),
        recipe,
        fields,
        defaults={"name": name_of(path, (*ENDINGS, ".csv.gz"))},
        where=str(path),
        path=path,
        notes=notes,
    )


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix != ".npz":
        return read_text(path)
    return {name: tidy(values) for name, values in load_npz(path).items() if values.ndim == 1}


def _column(columns: Mapping[str, NDArray[Any]], name: str, where: object) -> NDArray[Any]:
    if name not in columns:
        raise NotFound(f"{where}: no column {name!r}; there are {listing(list(columns))}", kind="unknown_column")
    return columns[name]


def _seconds(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    values = as_numbers(values)
    if values.dtype.kind not in "iuf":
        strange = next((value for value in values.tolist() if not _is_number(value)), values[0] if values.size else "")
        raise InvalidInput(f"{what}: expected times in seconds, got {strange!r}", kind="unreadable_source")
    return values.astype(np.float64)


def _spikes(columns: Mapping[str, NDArray[Any]], recipe: SpikesRecipe, path: Path) -> dict[str, NDArray[np.float64]]:
    """Spike times of each unit, in order of the units' names."""
    if not columns:
        raise InvalidInput(f"{path}: no column of spike times", kind="unreadable_source")
    name = next(iter(columns)) if recipe.times is None else recipe.times
    if name in columns:
        stored = columns[name]
    elif set(columns) & names_in(name):
        stored = np.atleast_1d(evaluate(name, columns, f"{path}: times"))
    else:
        stored = _column(columns, name, path)
    times = _seconds(stored, f"{path}: spike times in column {name!r}")
    fired = np.isfinite(times)
    if not fired.any():
        raise InvalidInput(f"{path}: column {name!r} holds no spike time", kind="unreadable_source")
    if recipe.unit is None:
        return {name if name in columns else name_of(path, (*ENDINGS, ".csv.gz")): times[fired]}
    units = _column(columns, recipe.unit, path)
    if units.shape != times.shape:
        raise InvalidInput(
            f"{path}: {name!r} holds {times.size} spike times, but {recipe.unit!r} holds {units.size} units",
            kind="unreadable_source",
        )
    units = _names(units[fired])
    nameless = int((units == "").sum())
    if nameless:
        raise InvalidInput(
            f"{path}: {nameless} of {units.size} spikes have no unit in column {recipe.unit!r}",
            kind="unreadable_source",
        )
    names, which = np.unique(units, return_inverse=True)
    return {str(unit): times[fired][which == number] for number, unit in enumerate(names)}


def _names(units: NDArray[Any]) -> NDArray[Any]:
    """Names as text; a whole number without ``.0``, a missing one as empty text."""
    return np.where(np.isnan(units), "", as_text(units)) if units.dtype.kind == "f" else as_text(units)


def _events(
    columns: Mapping[str, NDArray[Any]], recipe: SpikesRecipe, path: Path
) -> tuple[dict[str, NDArray[Any]], dict[str, VariableRecipe], str, list[str]]:
    """The table of events, the variables made of it, its file for messages, and notes for the provenance."""
    notes: list[str] = []
    file, variables = path, dict(recipe.variables)
    if recipe.events is not None:
        beside = path.parent / recipe.events
        if not beside.resolve().is_relative_to(path.parent.resolve()):
            raise InvalidInput(
                f"{path}: events={recipe.events!r}: expected a file beside the spikes, or in a folder there",
                kind="invalid_recipe",
            )
        if not beside.is_file():
            raise NotFound(f"no such file of events: {beside}", kind="unknown_file")
        columns, file = _columns(beside), beside
        notes.append(f"events {recipe.events} (sha256 {sha256_file(beside)})")
    else:
        first = recipe.times or next(iter(columns))
        own = {recipe.unit, *([first] if first in columns else names_in(first))}
        columns = {name: values for name, values in columns.items() if name not in own}
    where = str(file)
    if recipe.event_columns is not None:
        table, written = _wide(columns, recipe.event_columns, where)
        return *as_labels(variables, table, lambda names: {name: written[name] for name in names}), where, notes
    if file.suffix != ".npz":
        columns, variables = as_labels(variables, columns, lambda names: read_written(file, names))
    return _long(columns, recipe.align, where), variables, where, notes


def _long(columns: Mapping[str, NDArray[Any]], align: str, where: str) -> dict[str, NDArray[Any]]:
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
        blank &= np.isnan(values) if values.dtype.kind == "f" else values == "" if values.dtype.kind == "U" else False
    return {name: values[~blank] for name, values in fitting.items()}


def _wide(
    columns: Mapping[str, NDArray[Any]], pattern: str, where: str
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.str_]]]:
    """One row for each time in each column that `pattern` matches; named groups become columns beside the time.

    The second result is what stands in the names of the columns for each group.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InvalidInput(
            f"event_columns={pattern!r} is not a regular expression: {error}", kind="invalid_recipe"
        ) from error
    matched = {name: match for name in columns if (match := expression.fullmatch(name))}
    if not matched:
        raise NotFound(
            f"{where}: event_columns={pattern!r} matches no column; there are {listing(list(columns)) or 'none'}",
            kind="unknown_column",
        )
    if _TIME in expression.groupindex:
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
    for group in expression.groupindex:
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
    for name, values in _columns(path).items():
        present = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        listed.append((name, entry(present)))
    return listed


CONVERTERS: tuple[Converter, ...] = (Converter("spikes", ENDINGS, SpikesRecipe, convert_spikes, contents_spikes),)
