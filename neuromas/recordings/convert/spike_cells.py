"""Spike times in cell arrays of a ``.mat`` file: a list for each unit, or for each unit and trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import as_text, tidy
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import SLACK_S, as_column, bin_spikes, check_size, take_events
from neuromas.recordings.convert.locked import Binned, recording_of
from neuromas.recordings.convert.matlab import read_mat, read_tree
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import name_of, need_variables, numbered_names, same_source
from neuromas.recordings.convert.spike_struct import as_cell, by_trial, windows_of, with_struct
from neuromas.recordings.convert.spikes import ENDINGS, contents_spikes, convert_spikes, record_spikes, spike_trains
from neuromas.recordings.convert.tree import Cell, Struct, arrays_of, at, elements
from neuromas.recordings.expression import names_in
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import SpikesRecipe

_LIBRARIES = ("scipy", "h5py")
_OWN_CLOCK = "0"
"""The time zero of a trial whose spikes have times of its own clock."""


def convert_spike_files(path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any]) -> Recording | list[Recording]:
    """From text, CSV, NPZ or ``.mat``; with ``each``, a recording for each element of a struct array of a ``.mat`` file."""
    if path.suffix != ".mat":
        for_mat = [
            name for name in ("each", "axes", "trial", "trial_time", "sample_rate") if getattr(recipe, name) is not None
        ]
        if for_mat:
            raise InvalidInput(f"{path}: {listing(for_mat)}: expected a .mat file", kind="invalid_recipe")
        return convert_spikes(path, recipe, fields)
    values = read_tree(path)
    if recipe.each is None:
        return _from_values(values, path, recipe, fields, str(path))
    parts = list(elements(values, recipe.each, str(path)))
    names = numbered_names(name_of(path), len(parts), fields)
    return same_source(
        _from_values(part, path, recipe, {**fields, "name": name}, f"{path}: {recipe.each}({number})")
        for number, (part, name) in enumerate(zip(parts, names, strict=True), 1)
    )


def _from_values(
    values: Mapping[str, Any], path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any], where: str
) -> Recording:
    """A recording from the variables of a file, or from the fields of an element and the other variables."""
    recipe = with_struct(values, recipe, where)
    if recipe.times is None:
        raise InvalidInput(
            f"{where}: which array or cell array holds spike times? times names it; there are {listing(list(values))}",
            kind="invalid_recipe",
        )
    stored = at(values, recipe.times, where) if recipe.times.split(".")[0] in values else None
    source = arrays_of(_others(values, (recipe.times, recipe.trial)), where, vectors=True)
    if recipe.trial is not None:
        return _of_trials(_lists_by_trial(values, recipe, source, where), source, path, recipe, fields, where)
    if not isinstance(stored, Cell):
        columns = _columns(arrays_of(values, where, vectors=True))
        return record_spikes(columns, _in_seconds(spike_trains(columns, recipe, path), recipe), path, recipe, fields)
    lists = _lists(stored, recipe, source, where)
    if dims.TRIAL in lists.axes:
        return _of_trials(lists, source, path, recipe, fields, where)
    spikes = {name: train for name, (train,) in zip(lists.units, lists.trains, strict=True) if train is not None}
    if not spikes:
        raise InvalidInput(f"{where}: {recipe.times!r} holds no spike time", kind="no_units")
    return record_spikes(_columns(source), _in_seconds(spikes, recipe), path, recipe, fields)


def _others(values: Mapping[str, Any], named: Sequence[str | None]) -> dict[str, Any]:
    """`values` without those at the dotted paths in `named`."""
    left = {name: value for name, value in values.items() if name not in named}
    for path in named:
        name, _, field = (path or "").partition(".")
        value = left.get(name)
        if isinstance(value, Struct) and field in value.fields:
            left[name] = Struct({other: entries for other, entries in value.fields.items() if other != field})
    return left


def _in_seconds(spikes: Mapping[str, Any], recipe: SpikesRecipe) -> dict[str, Any]:
    """Spike times in seconds, where the file counts ticks."""
    return {name: train if recipe.sample_rate is None else train / recipe.sample_rate for name, train in spikes.items()}


def _columns(source: Arrays) -> dict[str, Any]:
    """Vectors as columns, other arrays as matrices."""
    return {
        name: as_column(values.ravel() if values.ndim == 2 and 1 in values.shape else values)
        for name, values in source.arrays.items()
        if values.ndim > 0
    }


# ------------------------------------------------------------------------------------------------------ lists of spikes


@dataclass(frozen=True)
class _Lists:
    """Spike times of each unit in each trial.

    Attributes
    ----------
    axes : tuple of str
    units : list of str
    trains : list of list of ndarray of shape (n_spikes,), or None
        ``trains[unit][trial]``; a single entry per unit without trials. None where the unit was not recorded.
    windows : ndarray of shape (n_trials, 2), optional
        Start and end of each trial; bins beyond were not recorded. By default all bins were.
    """

    axes: tuple[str, ...]
    units: list[str]
    trains: list[list[Any]]
    windows: NDArray[np.float64] | None = None


def _lists_by_trial(values: Mapping[str, Any], recipe: SpikesRecipe, source: Arrays, where: str) -> _Lists:
    """Spike times of each unit by the trial of each spike."""
    if recipe.axes is not None:
        raise InvalidInput(f"{where}: expected either trial or axes; got both", kind="invalid_recipe")
    cells = [as_cell(at(values, str(name), where)) for name in (recipe.times, recipe.trial)]
    for name, cell in zip((recipe.times, recipe.trial), cells, strict=True):
        if not isinstance(cell, Cell):
            raise InvalidInput(f"{where}: {name!r}: expected a list for each unit", kind="invalid_recipe")
    times, trials = ([_numbers(entry, f"{where}: {recipe.times}") for entry in cell.entries] for cell in cells)
    bounds = None if recipe.trial_time is None else source.array(recipe.trial_time, "start and end of each trial")
    windows = windows_of(bounds, f"{where}: {recipe.trial_time}")
    n_trials = None if windows is None else len(windows)
    if n_trials is None:
        n_trials = _rows_named(recipe, source, where)
    scale = recipe.sample_rate or 1.0
    trains = by_trial([own / scale for own in times], trials, n_trials, f"{where}: {recipe.trial}")
    return _Lists((dims.UNIT, dims.TRIAL), _names(recipe.unit, len(trains), source, where), trains, windows)


def _numbers(entry: Any, what: str) -> NDArray[np.float64]:
    """A list of numbers, of which none may be missing."""
    numbers = _times(entry, what)
    if numbers is None or numbers.size < entry.size:
        raise InvalidInput(f"{what}: expected a number for each spike, got missing ones", kind="unreadable_source")
    return numbers


def _rows_named(recipe: SpikesRecipe, source: Arrays, where: str) -> int | None:
    """Rows of the arrays that variables are made of, which have one for each trial; None if none is named."""
    columns = _columns(source)
    texts = [
        text for text in (recipe.where, *(each.expression for each in recipe.variables.values())) if text is not None
    ]
    sizes = {len(columns[name]) for text in texts for name in names_in(text) if name in columns}
    return sizes.pop() if len(sizes) == 1 else None


def _lists(cell: Cell, recipe: SpikesRecipe, source: Arrays, where: str) -> _Lists:
    """Spike times of a cell array by unit and trial."""
    axes = recipe.axes or ((dims.UNIT,) if len(cell.axes) == 1 else (dims.UNIT, dims.TRIAL))
    sizes = cell.axes if len(axes) <= len(cell.axes) else cell.shape
    if len(axes) != len(sizes) or len(set(axes)) != len(axes):
        raise InvalidInput(
            f"{where}: cell array {recipe.times!r} of shape {cell.shape}: axes={list(axes)} names {len(axes)} axes; expected "
            'one for each, e.g. ["unit", "trial"]',
            kind="invalid_axes",
        )
    grid = np.empty(len(cell.entries), dtype=object)
    grid[:] = [_times(entry, f"{where}: {recipe.times}") for entry in cell.entries]
    grid = grid.reshape(sizes, order="F")
    if axes == (dims.TRIAL, dims.UNIT):
        grid = grid.T
    elif axes == (dims.TRIAL,):
        grid = grid[None, :]
    elif axes == (dims.UNIT,):
        grid = grid[:, None]
    return _Lists(axes, _names(recipe.unit, len(grid), source, where), [list(row) for row in grid])


def _times(entry: Any, what: str) -> NDArray[np.float64] | None:
    """Spike times of a cell; none if it is empty, None if it holds nothing but NaN, which means not recorded."""
    if (
        not isinstance(entry, np.ndarray)
        or entry.dtype.kind not in "biuf"
        or (entry.ndim > 1 and max(entry.shape) < entry.size)
    ):
        got = f"an array of shape {entry.shape}" if isinstance(entry, np.ndarray) else "something else"
        raise InvalidInput(f"{what}: expected a list of spike times in each cell, got {got}", kind="unreadable_source")
    times = entry.ravel().astype(np.float64)
    recorded = times[np.isfinite(times)]
    return None if times.size and not recorded.size else recorded


def _names(label: str | None, n_units: int, source: Arrays, where: str) -> list[str]:
    """Names of the units: those of the array `label`, or ``u0``, ``u1``, …"""
    if label is None:
        return [f"u{number}" for number in range(n_units)]
    names = as_text(tidy(source.array(label, "names of the units"))).ravel().tolist()
    if len(names) != n_units:
        raise InvalidInput(
            f"{where}: {label!r} names {len(names)} units, the cell array holds those of {n_units}",
            kind="unit_mismatch",
        )
    return [str(name) for name in names]


def _of_trials(
    lists: _Lists, source: Arrays, path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any], where: str
) -> Recording:
    """Activity of trials that each have a clock of their own. A unit counts as recorded in all of a trial, or not at all."""
    n_trials = len(lists.trains[0])
    beside = [name for name in ("events", "event_columns") if getattr(recipe, name) is not None]
    if beside:
        raise InvalidInput(
            f"{where}: {listing(beside)}: spikes are listed by trial here, so what describes trials must be in the file itself, "
            "in arrays with one entry for each trial",
            kind="invalid_recipe",
        )
    table = {
        name: values for name, values in _columns(source).items() if values.shape[0] == n_trials and name != recipe.unit
    }
    need_variables(recipe, list(table), where)
    own_zero = recipe.align == SpikesRecipe.model_fields["align"].default and recipe.align not in table
    timing = recipe.model_copy(update={"align": _OWN_CLOCK}) if own_zero else recipe
    if not own_zero and not names_in(timing.align) & set(table):
        raise NotFound(
            f"{where}: no column {timing.align!r} of {n_trials} times (align); there are {listing(list(table)) or 'none'}",
            kind="unknown_column",
        )
    table[dims.TRIAL] = np.arange(n_trials) if dims.TRIAL not in table else table[dims.TRIAL]
    events = take_events(table, timing, where)
    check_size(len(events.rows), recipe.n_steps, len(lists.units), where)
    width = recipe.width_s if recipe.activity == "rate" else None
    activity = np.full((len(events.rows), recipe.n_steps, len(lists.units)), np.nan, dtype=np.float32)
    for unit, trains in enumerate(lists.trains):
        for place, row in enumerate(events.rows.tolist()):
            if trains[row] is not None:
                activity[place, :, unit] = bin_spikes(trains[row], events.edges[place : place + 1], width)[0]
    if lists.windows is not None:
        starts, stops = lists.windows[events.rows].T[:, :, None]
        beyond = (events.edges[:, :-1] < starts - SLACK_S) | (events.edges[:, 1:] > stops + SLACK_S)
        activity[beyond] = np.nan
    return recording_of(
        events,
        Binned(activity, lists.units, physical="Hz" if recipe.activity == "rate" else "1"),
        recipe,
        fields,
        defaults={"name": name_of(path)},
        where=where,
        path=path,
        libraries=_LIBRARIES,
        session_times=False,
        keep_empty_bins=lists.windows is None,
    )


def contents_spike_files(path: Path) -> list[tuple[str, str]]:
    """Columns of a table, or arrays of a ``.mat`` file, each with a few entries."""
    return read_mat(path).contents() if path.suffix == ".mat" else contents_spikes(path)


CONVERTERS: tuple[Converter, ...] = (
    Converter("spikes", ENDINGS, SpikesRecipe, convert_spike_files, contents_spike_files),
)
