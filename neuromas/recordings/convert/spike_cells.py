"""Spike times in cell arrays of a ``.mat`` file: a list for each unit, or for each unit and trial."""

from __future__ import annotations

from collections.abc import Mapping
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
from neuromas.recordings.convert.events import as_column, bin_spikes, check_size, take_events
from neuromas.recordings.convert.locked import Binned, recording_of
from neuromas.recordings.convert.matlab import read_mat, read_tree
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import name_of, need_variables, numbered_names, same_source
from neuromas.recordings.convert.spikes import ENDINGS, contents_spikes, convert_spikes, record_spikes, spike_trains
from neuromas.recordings.convert.tree import Cell, arrays_of, at, elements
from neuromas.recordings.expression import names_in
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import SpikesRecipe

_LIBRARIES = ("scipy", "h5py")
_OWN_CLOCK = "0"
"""The time zero of a trial whose spikes have times of its own clock."""


def convert_spike_files(path: Path, recipe: SpikesRecipe, fields: Mapping[str, Any]) -> Recording | list[Recording]:
    """From text, CSV, NPZ or ``.mat``; with ``each``, a recording for each element of a struct array of a ``.mat`` file."""
    if path.suffix != ".mat":
        if recipe.each is not None or recipe.axes is not None:
            raise InvalidInput(f"{path}: each and axes are for cell arrays of a .mat file", kind="invalid_recipe")
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
    if recipe.times is None:
        raise InvalidInput(
            f"{where}: which array or cell array holds spike times? times names it; there are {listing(list(values))}",
            kind="invalid_recipe",
        )
    stored = at(values, recipe.times, where) if recipe.times.split(".")[0] in values else None
    others = {name: value for name, value in values.items() if name != recipe.times}
    source = arrays_of(others, where, vectors=True)
    if not isinstance(stored, Cell):
        columns = _columns(arrays_of(values, where, vectors=True))
        return record_spikes(columns, spike_trains(columns, recipe, path), path, recipe, fields)
    lists = _lists(stored, recipe, source, where)
    if dims.TRIAL in lists.axes:
        return _of_trials(lists, source, path, recipe, fields, where)
    spikes = {name: train for name, (train,) in zip(lists.units, lists.trains, strict=True) if train is not None}
    if not spikes:
        raise InvalidInput(f"{where}: {recipe.times!r} holds no spike time", kind="no_units")
    return record_spikes(_columns(source), spikes, path, recipe, fields)


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
    """

    axes: tuple[str, ...]
    units: list[str]
    trains: list[list[Any]]


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
        keep_empty_bins=True,
    )


def contents_spike_files(path: Path) -> list[tuple[str, str]]:
    """Columns of a table, or arrays of a ``.mat`` file, each with a few entries."""
    return read_mat(path).contents() if path.suffix == ".mat" else contents_spikes(path)


CONVERTERS: tuple[Converter, ...] = (
    Converter("spikes", ENDINGS, SpikesRecipe, convert_spike_files, contents_spike_files),
)
