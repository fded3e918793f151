"""Annotate: another version of a recording, with other samples, units, variables or names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.actions.register import Registered, publish
from neuromas.errors import InvalidInput
from neuromas.recordings.annotate import (
    about_units,
    drop_variables,
    expanded,
    key_columns,
    next_version,
    rename_variables,
    select,
    standardised,
)
from neuromas.recordings.annotate import (
    annotate as add_variables,
)
from neuromas.recordings.export import readable
from neuromas.recordings.rebin import rebinned
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.store.locate import existing_store
from neuromas.recordings.trust import trusting
from neuromas.schema.actions import AnnotateRequest
from neuromas.schema.recipe import VariableRecipe
from neuromas.unpacking import largest


def annotate(request: AnnotateRequest) -> Registered:
    """Register another version of a recording; the recording itself stays as it is.

    The order is: add metadata of units, select samples and units, add variables, drop, rename, bin, standardise, shuffle.

    Parameters
    ----------
    request : AnnotateRequest

    Returns
    -------
    Registered

    Raises
    ------
    InvalidInput
        Nothing to change, or an expression, table or selection that cannot be used.
    NotFound
        A recording, variable, column or file that does not exist.
    Conflict
        The set holds other content under the new name.
    """
    store = existing_store(request.store)
    before = store.get(request.recording, load=False)
    recording = changed(before, request)
    if recording is before:
        raise InvalidInput(
            "nothing to change: expected variable=, where=, units_where=, rename=, drop=, steps_per_bin=, standardise= or"
            " shuffle=",
            kind="invalid_option",
        )
    set_name, _, own = request.recording.partition("/")
    names = [entry.name.partition("/")[2] for entry in store.list() if entry.set == set_name]
    manifest = recording.manifest.model_copy(update={"name": request.name or next_version(own, names)})
    (registered,) = publish(store, [recording.replaced(recording.dataset, manifest)], set_name)
    return registered


def changed(recording: Recording, request: AnnotateRequest) -> Recording:
    """`recording` with the changes that `request` asks for; the same object if there are none."""
    added: dict[str, Any] = {**request.recipe, **request.variable}
    table = None
    if request.table is not None:
        with trusting(in_process=request.in_process, timeout_s=request.timeout_s), largest(request.largest_gib):
            table, added = _read_table(Path(request.table), recording, added, request.on)
    how: dict[str, Any] = {"table": table, "on": list(request.on), "replace": request.replace}
    of_units = about_units(recording, how["on"]) and (bool(added) or table is not None)
    if of_units:
        # first, so that units_where can use it
        recording = add_variables(recording, added, **how)
    recording = select(recording, request.where, request.units_where)
    if added and not of_units:
        recording = add_variables(recording, added, **how)
    elif table is not None and not of_units:
        raise InvalidInput(
            "a table brings columns; variable NAME=COLUMN says which of them to take", kind="invalid_option"
        )
    if request.drop:
        recording = drop_variables(recording, list(request.drop))
    if request.rename:
        recording = rename_variables(recording, request.rename)
    if request.steps_per_bin is not None:
        recording = rebinned(recording, request.steps_per_bin, request.bin_by)
    if request.standardise:
        recording = standardised(recording, leave_out_silent=request.leave_out_silent)
    elif request.leave_out_silent:
        raise InvalidInput("leave_out_silent goes with standardise", kind="invalid_option")
    if request.shuffle is not None:
        recording = shuffled(recording, seed=request.shuffle, within=request.within, by=request.shuffle_by)
    return recording


def _read_table(
    path: Path, recording: Recording, added: Mapping[str, Any], on: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Columns of a table, and the variables made of them; labels such as 007 are kept as they are written."""
    from neuromas.recordings.convert.text import as_labels, labels_apart
    from neuromas.recordings.convert.user_table import read_user_table

    columns, written = read_user_table(path)
    if not written:
        return columns, dict(added)
    coordinates = {column: name for name, column in key_columns(on, columns).items()}
    for name, values in columns.items():
        if values.dtype.kind not in "iuf":
            continue
        by_text = name in coordinates and _is_written(recording, coordinates[name], written[name])
        columns[name] = written[name] if by_text else labels_apart(values, written[name])
    variables = {name: VariableRecipe.parse(expanded(recipe), f"variable {name!r}") for name, recipe in added.items()}
    labelled, kept = as_labels(variables, columns, lambda names: {name: written[name] for name in names})
    return labelled, {**kept}


def _is_written(recording: Recording, name: str, written: NDArray[np.str_]) -> bool:
    """Whether a coordinate of text is matched by cells as they are written; units are matched by number if no cell names one."""
    if name not in recording.dataset.coords:
        return False
    labels = readable(recording, name)
    of_units = recording.dataset.coords[name].dims == (dims.UNIT,)
    return labels.dtype.kind == "U" and (not of_units or bool(np.isin(written, labels).any()))
