"""A recording from an NWB file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import take_events
from neuromas.recordings.convert.locked import Binned, recording_of
from neuromas.recordings.convert.nwb.columns import read_columns, read_matrices
from neuromas.recordings.convert.nwb.contents import contents
from neuromas.recordings.convert.nwb.file import NwbFile, find_place, open_nwb
from neuromas.recordings.convert.nwb.series import average_series, readable_shape
from neuromas.recordings.convert.nwb.units import bin_units
from neuromas.recordings.convert.source import check_fields, name_of, need_variables
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import NwbRecipe

_LONGEST_AREA = 100  # characters; a longer list of areas is no name


def convert(path: Path, recipe: NwbRecipe, fields: Mapping[str, Any]) -> Recording:
    """A recording from an NWB file: activity about the rows of one of its interval tables.

    Parameters
    ----------
    path : Path
        A ``.nwb`` file, or a folder that hdmf-zarr wrote.
    recipe : NwbRecipe
    fields : mapping
        Fields of the manifest. They override what the file says.

    Returns
    -------
    Recording
        float32. Trial numbers are the row ids of the table; ``event_s`` is the time zero of each trial in the session. Activity
        is NaN where a unit was not recorded. Trials in which no unit was recorded are left out, and so are units that were
        recorded in none of the trials.

    Raises
    ------
    NotFound
        The file has no table, source or column of that name; the message lists the existing ones.
    InvalidInput
        The file is not an NWB file, or no trial is left.
    InvalidDocument
        Variables cannot be computed, or fields of the manifest are invalid; lists every problem.
    """
    if "variables" in fields:
        raise InvalidInput(
            "variables: expected in the recipe, not among the fields of the manifest", kind="invalid_recipe"
        )
    check_fields(fields)
    with open_nwb(path) as file:
        table = _find_table(file, recipe)
        where = f"{path}: {table}"
        columns = read_columns(file.tables[table])
        need_variables(recipe, list(columns), where)
        source, place = _find_source(file, recipe)
        events = take_events(read_matrices(file.tables[table]) | columns, recipe, where)
        read = bin_units if source == "units" else average_series
        binned = read(file, place, recipe, events, f"{path}: {place}")
        defaults = _manifest(file)
    area = _area(binned, recipe)
    defaults["system"] = ", ".join(filter(None, (defaults["system"], area))) or defaults["name"]
    return recording_of(
        events,
        binned,
        recipe,
        fields,
        defaults=defaults | {"layer": area},
        where=where,
        path=path,
        libraries=("pynwb", "hdmf", "h5py"),
        row_ids=columns["id"],
        keep_empty_bins=True,
    )


def _find_table(file: NwbFile, recipe: NwbRecipe) -> str:
    table = find_place(file.tables, recipe.table)
    if table is None:
        tables = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in file.tables.items())
        raise NotFound(
            f"{file.path}: no interval table {recipe.table!r}; the file has {tables or 'none'}", kind="unknown_table"
        )
    return table


def _find_source(file: NwbFile, recipe: NwbRecipe) -> tuple[str, str]:
    """``units`` or ``series``, and the path of the source in the file."""
    for kind, places in (("units", file.units), ("series", file.series)):
        place = find_place(places, recipe.source)
        if place is not None:
            return kind, place
    series = [place for place, item in file.series.items() if readable_shape(file.array(item.data)) is not None]
    existing = ", ".join([*file.units, *series]) or "none"
    what = "no units with spike times" if recipe.source == "units" else f"no units or time series {recipe.source!r}"
    raise NotFound(f"{file.path}: {what}; the file has {existing}", kind="unknown_source")


def _manifest(file: NwbFile) -> dict[str, Any]:
    """Fields of the manifest that the file itself tells."""
    session = _text(file.content.session_description)
    experiment = _text(file.content.experiment_description)
    subject = file.content.subject
    return {
        "name": name_of(file.path, ("", ".nwb", ".zarr", ".nwb.zarr")),
        "system": "" if subject is None else _text(subject.species),
        "task": session.splitlines()[0] if session else "",
        "description": "\n".join(filter(None, (session, experiment if experiment != session else ""))),
        "citation": _text(file.content.related_publications),
    }


def _area(binned: Binned, recipe: NwbRecipe) -> str:
    """The brain areas of the recorded units; empty if they are unknown or too many to list."""
    if "location" not in binned.unit_metadata or "location" in recipe.variables:
        return ""
    locations = np.asarray(binned.unit_metadata["location"])[binned.recorded_units].astype(str)
    area = ", ".join(filter(None, dict.fromkeys(locations.tolist())))
    return area if len(area) <= _LONGEST_AREA else ""


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if value is None:
        return ""
    return str(value).strip() if np.ndim(value) == 0 else "; ".join(_text(part) for part in value)


CONVERTERS: tuple[Converter, ...] = (
    Converter(
        name="nwb",
        endings=(".nwb", ".nwb.zarr"),
        recipe=NwbRecipe,
        convert=convert,
        contents=contents,
        requires=("pynwb",),
        extra="nwb",
    ),
)
