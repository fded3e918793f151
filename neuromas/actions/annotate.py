"""Annotate: another version of a recording, with other samples, units, variables or names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from neuromas.actions.register import Registered, publish
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.annotate import (
    about_units,
    drop_variables,
    next_version,
    rename_variables,
    select,
    standardised,
)
from neuromas.recordings.annotate import (
    annotate as add_variables,
)
from neuromas.recordings.rebin import rebinned
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import AnnotateRequest
from neuromas.unpacking import check_zip, read_packed


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
    table = None if request.table is None else _read_table(Path(request.table))
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
        recording = standardised(recording)
    if request.shuffle is not None:
        recording = shuffled(recording, seed=request.shuffle, within=request.within, by=request.shuffle_by)
    return recording


def _read_table(path: Path) -> Any:
    import pandas as pd

    from neuromas.recordings.convert.workbook import read_workbook

    if path.suffix in (".xlsx", ".xlsm") and path.is_file():
        return pd.DataFrame(read_workbook(path))
    # pandas guesses the separator, unless the name says it
    separator = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else None
    try:
        if path.suffix == ".zip":
            check_zip(path)
            return pd.read_csv(path, sep=separator, engine="python")
        return pd.read_csv(io.BytesIO(read_packed(path)), sep=separator, engine="python")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", kind="unknown_file") from None
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes pandas and the unpackers raise
        raise InvalidInput(f"{path}: cannot be read as a table: {error}", kind="unreadable_source") from error
