"""Folders of sorted spikes, as Kilosort, phy and SpikeInterface write them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.convert.beside import contents_of, files_in, need_array
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.convert.spikes import (
    arrays_used,
    event_table,
    locked_spikes,
    read_columns,
    spike_trains,
    units_beside,
    units_of_table,
)
from neuromas.recordings.convert.text import read_text
from neuromas.recordings.convert.units import Described, described
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import PhyRecipe

SPIKES = "spike_times"
CLUSTERS = ("spike_clusters", "spike_templates")
PARAMETERS = "params.py"
TABLES = ("cluster_*.tsv", "cluster_*.csv")
_KEYS = ("cluster_id", "id")
_SUMMARY = "cluster_info"
"""phy writes this table for people and never reads it, so the other tables are right where it differs."""
_LONGEST_PARAMETERS = 2**20  # bytes
_FASTEST = 1e12  # samples per second


def convert_phy(path: Path, recipe: PhyRecipe, fields: Mapping[str, Any]) -> Recording:
    """Activity about events, from a folder of sorted spikes. Units are called by the numbers of their clusters."""
    files = {file.stem: file for file in files_in(path, ["*.npy"])}
    arrays = read_columns(path)
    filled, parameters = _filled(recipe, path, files)
    trains = spike_trains(arrays, filled, path)
    spikes = {name: trains[name] for name in sorted(trains, key=_by_number)}
    events = event_table(arrays, recipe, path)
    clusters, tables = cluster_columns(path, list(spikes))
    own = units_of_table(units_beside(path, recipe), list(spikes), recipe)
    units = Described({**_numbers(spikes), **clusters.columns, **own.columns}, [*clusters.notes, *own.notes])
    read = [*arrays_used(path, filled), *parameters, *tables]
    return locked_spikes(path, recipe, fields, spikes, events, units, read)


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _numbers(spikes: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """The numbers of the clusters, if all units are called by numbers."""
    if not all(name.isdecimal() for name in spikes):
        return {}
    return {"cluster_id": np.array([int(name) for name in spikes], dtype=np.int64)}


def _filled(recipe: PhyRecipe, path: Path, files: dict[str, Path]) -> tuple[PhyRecipe, list[Path]]:
    """The recipe with its defaults for this folder, and the file of parameters if that was read."""
    unit = recipe.unit or next((name for name in CLUSTERS if name in files), CLUSTERS[0])
    need_array(files, unit, path)
    if recipe.times is not None:
        return recipe.model_copy(update={"unit": unit}), []
    samples = need_array(files, SPIKES, path)
    if samples.dtype.kind == "f" and not np.array_equal(samples, np.rint(samples)):
        raise InvalidInput(
            f"{files[SPIKES]}: expected numbers of samples, got {samples.dtype} such as {samples.ravel()[:2].tolist()}; if these "
            f"are seconds, say so (times={SPIKES!r})",
            kind="invalid_times",
        )
    parameters = path / PARAMETERS
    stated = read_sample_rate(parameters) if files_in(path, [PARAMETERS]) else None
    if stated is None and recipe.sample_rate is None:
        raise InvalidInput(
            f"{path}: the sample rate is unknown: no {PARAMETERS} says it; expected sample_rate in the recipe",
            kind="invalid_times",
        )
    if stated is not None and recipe.sample_rate not in (None, stated):
        raise InvalidInput(
            f"{path}: two sample rates: {stated:g} in {PARAMETERS}, {recipe.sample_rate:g} in the recipe; leave sample_rate out, "
            f"or give times, e.g. '{SPIKES} / {recipe.sample_rate:g}'",
            kind="invalid_times",
        )
    rate = float(stated or recipe.sample_rate or 0)
    filled = recipe.model_copy(update={"unit": unit, "times": f"{SPIKES} / {rate!r}"})
    return filled, [] if stated is None else [parameters]


def read_sample_rate(path: Path) -> float | None:
    r"""``sample_rate`` in a file of Python assignments, which is read as text and never run; None if no line assigns it.

    Raises
    ------
    InvalidInput
        The file cannot be read, or the sample rate is not written out as a number above 0.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = Path(folder, "params.py").write_text("dtype = 'int16'\nsample_rate = 30000.  # Hz\n")
    ...     read_sample_rate(Path(folder, "params.py"))
    30000.0
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_PARAMETERS).decode("utf-8", "replace")
    except OSError as error:
        raise unreadable(path, "parameters", error) from error
    rate = None
    for line in text.splitlines():
        name, _, value = line.partition("#")[0].partition("=")
        if name.partition(":")[0].rstrip() != "sample_rate" or not value:
            continue
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if not 0 < rate < _FASTEST:
            raise InvalidInput(
                f"{path}: expected sample_rate to be a number above 0, got {value.strip()[:80]!r}; the file is not run. Write "
                f"the number there, or give times in the recipe, e.g. '{SPIKES} / 30000'",
                kind="invalid_times",
            )
    return rate


# ------------------------------------------------------------------------------------------------------- clusters


def cluster_columns(path: Path, names: Sequence[str]) -> tuple[Described, list[Path]]:
    """Columns of the tables of clusters in a folder, in the order of `names`, and the files that hold them.

    A column of several tables is that of the first; entries that are missing there come from the others.
    """
    files = sorted(files_in(path, TABLES), key=lambda file: (file.stem == _SUMMARY, file.name))
    columns: dict[str, NDArray[Any]] = {}
    notes: list[str] = []
    for file in files:
        rows = read_text(file)
        try:
            table = described(names, rows, next((key for key in _KEYS if key in rows), _KEYS[0]), file.name)
        except NotFound:
            notes.append(f"{file.name} was not read: no column {' or '.join(_KEYS)}")
            continue
        except InvalidInput as error:
            if error.kind != "missing_rows":
                raise
            notes.append(f"{file.name} has a row for none of the units")
            continue
        notes += table.notes
        for name, values in table.columns.items():
            columns[name] = _joined(columns[name], values, names, name, file) if name in columns else values
    return Described(columns, notes), files


def _joined(first: NDArray[Any], second: NDArray[Any], names: Sequence[str], column: str, file: Path) -> NDArray[Any]:
    """`first`, with entries of `second` where they are missing; warns of entries that differ."""
    if (first.dtype.kind == "U") != (second.dtype.kind == "U"):
        first, second = first.astype(str), second.astype(str)
    absent = [values == "" if values.dtype.kind == "U" else np.isnan(values) for values in (first, second)]
    differing = np.flatnonzero(~absent[0] & ~absent[1] & (first != second))
    if differing.size:
        warnings.warn(
            f"{file}: column {column!r} differs from that of another table in the folder for units "
            f"{listing([names[unit] for unit in differing.tolist()], 5)}; the other table was used.",
            stacklevel=2,
        )
    return np.where(absent[0], second, first)


def contents_phy(path: Path) -> list[tuple[str, str]]:
    """Arrays of the folder, and columns of its tables of clusters."""
    return contents_of(path, TABLES)


CONVERTERS: tuple[Converter, ...] = (
    Converter("phy", (), PhyRecipe, convert_phy, contents_phy, holds=(f"{SPIKES}.npy",)),
)
