"""Annotate, rename, select and standardise recordings. Each call gives a new recording; the old one does not change."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound, suggestion
from neuromas.recordings.check import listing
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.encode import encode, labelled, plain
from neuromas.recordings.export import readable
from neuromas.recordings.expression import evaluate_known, evaluate_mask, names_in
from neuromas.recordings.recording import Recording
from neuromas.recordings.units import KEYS, STATISTICS, UnitColumns, rows_of_units, taken_rows
from neuromas.schema.document import Provenance
from neuromas.schema.recipe import VariableRecipe
from neuromas.schema.recording import RecordingManifest, VariableSpec

STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS = "standard_mean", "standard_sd", "standard_units"


def sample_columns(recording: Recording) -> dict[str, NDArray[Any]]:
    """The names that an expression about samples may use, with values of shape (n_samples,).

    These are all coordinates on sample, with the meanings of categorical variables. If the manifest says how long a step
    lasts, ``time`` is the centre of the step's bin in seconds relative to the event.
    """
    on_sample = {str(name) for name, coord in recording.dataset.coords.items() if coord.dims == (dims.SAMPLE,)}
    first = [*recording.variable_names, dims.TRIAL, dims.STEP]
    rest = sorted(on_sample - {dims.SAMPLE} - set(first))
    columns = {name: tidy(readable(recording, name)) for name in [*first, *rest]}
    seconds = recording.time_s
    return columns if seconds is None or "time" in columns else columns | {"time": seconds}


def unit_columns(recording: Recording) -> UnitColumns:
    """The names that an expression about units may use, with values of shape (n_units,).

    These are ``unit``, all metadata, and `neuromas.recordings.units.STATISTICS` of the activity in eligible samples. Activity is
    read only if an expression names one of them.
    """
    names = [str(name) for name, coord in recording.dataset.coords.items() if coord.dims == (dims.UNIT,)]
    columns = {name: tidy(recording.dataset[name].values) for name in sorted(names, key=lambda name: name != dims.UNIT)}

    def eligible() -> Iterator[NDArray[Any]]:
        rows = recording.eligible
        for start, block in recording.blocks():
            yield block[rows[start : start + len(block)]]

    units = "standard deviations" if STANDARD_SD in columns else recording.manifest.units
    return UnitColumns(columns, eligible, units, recording.manifest.sampling.step_s)


def annotate(
    recording: Recording,
    variables: Mapping[str, str | VariableRecipe | Mapping[str, Any]] = MappingProxyType({}),
    *,
    table: pd.DataFrame | Mapping[str, ArrayLike] | None = None,
    on: str | Sequence[str] | Mapping[str, str] = dims.TRIAL,
    replace: bool = False,
) -> Recording:
    """The recording with more causal variables, or with more metadata of its units.

    Parameters
    ----------
    recording : Recording
    variables : mapping of str to str, VariableRecipe or mapping
        Name → an expression, or a `neuromas.schema.recipe.VariableRecipe` with meanings, bins, units. An expression may
        use the coordinates on sample (`sample_columns`) and the columns of the table. If `on` names coordinates of units, the
        results are metadata of the units, and an expression may use `unit_columns`. Without any, all columns of the table are.
    table : DataFrame or mapping of str to array, optional
        More columns, with one row per value of `on`. Rows for trials or units that were not recorded are ignored. A unit without
        a row has missing metadata.
    on : str, sequence of str or mapping of str to str
        The coordinates by which rows of the table belong to samples, or to units (``"unit"``). The table has columns of the same
        names; or a mapping, or ``"unit=cluster_id"``, names the column.
    replace : bool
        Whether a new variable, or new metadata, may replace an old one of the same name.

    Returns
    -------
    Recording
        It shares the activity with `recording`, and its provenance names `recording`.

    Raises
    ------
    NotFound
        `on` is not a coordinate, or not a column of the table.
    InvalidInput
        The table has two rows for a sample, or none.
    InvalidDocument
        A variable exists already, or cannot be computed. The error lists every problem.

    Examples
    --------
    >>> recording = Recording.from_arrays([[0.1], [0.2], [0.3]], {"side": ["l", "r", "l"]}, name="toy")
    >>> table = pd.DataFrame({"trial": [0, 1, 2], "reaction_s": [0.3, 0.5, 0.9]})
    >>> annotate(recording, {"fast": "reaction_s < 0.4", "left": "side == 'l'"}, table=table).variable_names
    ['side', 'fast', 'left']
    >>> clusters = pd.DataFrame({"cluster_id": ["u0"], "group": ["good"]})
    >>> annotate(recording, table=clusters, on="unit=cluster_id").dataset["group"].values.tolist()
    ['good']
    """
    where = f"recording {recording.name!r}"
    keys = _keys(on)
    recipes = {
        name: recipe
        if isinstance(recipe, VariableRecipe)
        else VariableRecipe.parse(expanded(recipe), f"variable {name!r}")
        for name, recipe in variables.items()
    }
    if about_units(recording, on):
        return _with_unit_metadata(recording, recipes, table, keys, replace)
    columns = sample_columns(recording)
    if table is not None:
        columns |= _matched(recording, columns, table, keys)
        if not recipes:
            raise InvalidInput(
                "a table of samples brings columns; variables say which of them to take", kind="no_effect"
            )
    existing = {str(name) for name in recording.dataset.coords} | {str(name) for name in recording.dataset.dims}
    replaceable = set(recording.variable_names) if replace else set()
    clashing = [name for name in recipes if name in existing - replaceable]
    if clashing:
        raise InvalidDocument(where, [f"{name!r} exists already" + _how(name, recording) for name in clashing])
    values, specs = make_variables(recipes, columns, where)
    shaped = {name: np.broadcast_to(column, recording.n_samples) for name, column in values.items()}
    return _with_variables(recording, shaped, specs, f"variables {', '.join(recipes)} added")


def expanded(recipe: object) -> object:
    """The document of a variable; text alone is its expression."""
    return {"expression": recipe} if isinstance(recipe, str) else recipe


def _how(name: str, recording: Recording) -> str:
    return "; replace it with replace=True" if name in recording.variable_names else ", as a coordinate"


def key_columns(on: str | Sequence[str] | Mapping[str, str], columns: Container[str]) -> dict[str, str]:
    """Which of a table's `columns` holds each coordinate by which it is matched.

    Examples
    --------
    >>> key_columns(["unit"], ["cluster_id", "group"]), key_columns("unit=neuron", ["neuron"])
    ({'unit': 'cluster_id'}, {'unit': 'neuron'})
    """
    keys = _keys(on)
    if keys.get(dims.UNIT) == dims.UNIT and dims.UNIT not in columns:
        keys[dims.UNIT] = next((key for key in KEYS if key in columns), dims.UNIT)
    return keys


def _keys(on: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The table's column for each coordinate by which it is matched."""
    if isinstance(on, Mapping):
        return dict(on)
    pairs = [name.partition("=") for name in ([on] if isinstance(on, str) else on)]
    return {name: column or name for name, _, column in pairs}


def about_units(recording: Recording, on: str | Sequence[str] | Mapping[str, str]) -> bool:
    """Whether `on` names coordinates of the units, rather than of samples."""
    coordinates = [recording.dataset.coords.get(name) for name in _keys(on)]
    return bool(coordinates) and all(
        coordinate is not None and coordinate.dims == (dims.UNIT,) for coordinate in coordinates
    )


def _with_unit_metadata(
    recording: Recording,
    recipes: Mapping[str, VariableRecipe],
    table: pd.DataFrame | Mapping[str, ArrayLike] | None,
    keys: Mapping[str, str],
    replace: bool,
) -> Recording:
    """The recording with metadata of its units from a table, or from expressions of what describes them."""
    where = f"recording {recording.name!r}"
    columns = unit_columns(recording)
    notes, added = [], {}
    if table is not None:
        frame = _keyed(table, keys)
        rows = rows_of_units([columns[key] for key in keys], [frame.pop(key) for key in keys], "the table", list(keys))
        without = [name for name, row in zip(recording.unit_names, rows.tolist(), strict=True) if row < 0]
        notes = [f"the table has no row for units {listing(without)}"] if without else []
        added = {name: taken_rows(values, rows) for name, values in frame.items() if values.dtype.kind in "biufU"}
    used = {name for recipe in recipes.values() for name in names_in(recipe.expression)}
    metadata = {str(name) for name, coord in recording.dataset.coords.items() if coord.dims == (dims.UNIT,)}
    ambiguous = [name for name in added if name in used and name in metadata and not replace]
    if ambiguous:
        raise InvalidInput(
            f"the table's column {listing(ambiguous)} is also metadata of the units of recording {recording.name!r}; rename it, "
            "or let it replace them (replace)",
            kind="duplicate_column",
        )
    columns = columns.with_columns(added)
    made = {name: _unit_values(name, recipe, columns, where) for name, recipe in recipes.items()}
    made = made or {re.sub(r"\W", "_", name, flags=re.ASCII): (values, "1") for name, values in added.items()}
    in_use = {*map(str, recording.dataset.coords), *dims.RESERVED} - (metadata - {dims.UNIT} if replace else set())
    clashing = [name for name in made if name in in_use]
    if clashing or not made:
        problems = [
            f"{name!r} exists already; give it another name, or replace metadata (replace)" for name in clashing
        ]
        raise InvalidDocument(where, problems or ["the table has no column beside those that it is matched by"])
    coordinates = {
        name: xr.Variable((dims.UNIT,), plain(values), {} if units == "1" else {"units": units})
        for name, (values, units) in made.items()
    }
    dataset = recording.dataset.drop_vars([name for name in made if name in metadata]).assign_coords(coordinates)
    note = "; ".join([f"metadata of units {', '.join(made)} added", *notes])
    return derived(recording, dataset, recording.manifest.variables, note)


def _keyed(table: pd.DataFrame | Mapping[str, ArrayLike], keys: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Columns of the table; those that it is matched by, under the names of the coordinates."""
    frame = {str(name): tidy(table[name]) for name in table}
    keys = key_columns(keys, frame)
    missing = [column for column in keys.values() if column not in frame]
    if missing:
        raise NotFound(
            f"the table has no column {listing(missing)}; it has {', '.join(frame)}{suggestion(missing[0], frame)}; if another "
            f"column holds it, say which (on='{missing[0]}=COLUMN')",
            kind="unknown_column",
        )
    names = {column: name for name, column in keys.items()}
    twice = [name for name in keys if name in frame and name not in names]
    if twice:
        raise InvalidInput(
            f"the table's column {listing(twice)} is also a coordinate that it is matched by; rename it, or match by it (on)",
            kind="duplicate_column",
        )
    return {names.get(name, name): values for name, values in frame.items()}


def _unit_values(
    name: str, recipe: VariableRecipe, columns: Mapping[str, NDArray[Any]], where: str
) -> tuple[NDArray[Any], str]:
    """One value per unit and its physical unit. Missing entries stay missing, unless they need a meaning or a bin."""
    size = len(columns[dims.UNIT])
    if recipe.meanings is not None or recipe.bins is not None:
        values, _ = make_variables({name: recipe}, columns, where)
        return np.broadcast_to(values[name], size), "1"
    computed, missing = evaluate_known(recipe.expression, columns, f"{where}, units: {name!r}")
    rows = np.where(np.broadcast_to(missing, size), -1, np.arange(size))
    return taken_rows(np.broadcast_to(computed, size), rows), recipe.units


def _matched(
    recording: Recording,
    columns: Mapping[str, NDArray[Any]],
    table: pd.DataFrame | Mapping[str, ArrayLike],
    on: Mapping[str, str],
) -> dict[str, NDArray[Any]]:
    """The table's columns, one value per sample."""
    keys = list(on)
    if dims.TRIAL in keys and recording.manifest.pseudo_population is not None:
        raise InvalidInput(
            f"recording {recording.name!r} is a pseudo-population: its trials were joined and have new numbers, so no table of"
            " trials fits them; annotate the recordings before you pool them",
            kind="pooled",
        )
    unknown = [key for key in keys if key not in columns]
    if unknown:
        raise NotFound(
            f"recording {recording.name!r} has no coordinate {listing(unknown)}; it has {', '.join(columns)}, and of units "
            f"{', '.join(name for name in unit_columns(recording) if name not in STATISTICS)}"
            + suggestion(unknown[0], columns),
            kind="unknown_column",
        )
    frame = pd.DataFrame(_keyed(table, on))
    clashing = [name for name in frame if name in columns and name not in keys]
    if clashing:
        raise InvalidInput(
            f"the table's column {listing(clashing)} is also a coordinate of recording {recording.name!r}; rename it, or "
            "match by it (on)",
            kind="duplicate_column",
        )
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        row = ", ".join(f"{key} {twice.iloc[0][key]}" for key in keys)
        raise InvalidInput(f"the table has two rows for {row}; expected one", kind="duplicate_row")
    samples = pd.DataFrame({key: columns[key] for key in keys})
    differing = [key for key in keys if (samples[key].dtype == object) != (frame[key].dtype == object)]
    try:
        joined = samples.merge(frame, on=keys, how="left", indicator="_match")
    except ValueError as error:  # text against numbers
        raise InvalidInput(
            f"the table cannot be matched by {listing(differing or keys)}: {error}", kind="missing_rows"
        ) from error
    without = (joined["_match"] == "left_only").to_numpy()
    if without.any():
        first = ", ".join(f"{key} {samples.iloc[int(np.argmax(without))][key]}" for key in keys)
        raise InvalidInput(
            f"the table has no row for {int(without.sum()):,} of {recording.n_samples:,} samples of {recording.name!r} "
            f"(first: {first}); before you annotate, select the samples that have one (select, where=)",
            kind="missing_rows",
        )
    return {name: tidy(joined[name].to_numpy()) for name in frame if name not in keys}


def _with_variables(
    recording: Recording, values: Mapping[str, NDArray[Any]], specs: Sequence[VariableSpec], note: str
) -> Recording:
    problems: list[str] = []
    coordinates = {
        spec.name: xr.Variable(
            (dims.SAMPLE,), encode(spec.model_dump(), np.ascontiguousarray(values[spec.name]), problems)
        )
        for spec in specs
    }
    if problems:
        raise InvalidDocument(f"recording {recording.name!r}", problems)
    kept = [spec for spec in recording.manifest.variables if spec.name not in coordinates]
    dataset = recording.dataset.drop_vars([name for name in coordinates if name in recording.dataset.coords])
    return derived(recording, dataset.assign_coords(coordinates), [*kept, *specs], note)


def derived(
    recording: Recording,
    dataset: xr.Dataset,
    variables: Sequence[VariableSpec],
    note: str,
    **update: Any,
) -> Recording:
    """The recording of `dataset`, with a provenance that names `recording` as its origin."""
    manifest = recording.manifest
    before = manifest.provenance
    stored = manifest.content_sha256 is not None
    origin = f"{recording.name} ({manifest.content_sha256})" if stored else recording.name
    line = (origin, *before.derived_from) if stored or not before.derived_from else before.derived_from
    document = manifest.model_dump() | {
        "variables": [spec.model_dump() for spec in variables],
        "set": None,
        "content_sha256": None,
        "files": {},
        "grouped_by": (),
        "behaviour": manifest.behaviour if manifest.behaviour in dataset.coords else None,
        "provenance": Provenance(
            **before.model_dump(exclude={"notes", "derived_from"}),
            derived_from=line,
            notes="; ".join(text for text in (before.notes, note) if text),
        ).model_dump(),
        **update,
    }
    parsed = RecordingManifest.parse(document, f"recording {recording.name!r}")
    return recording.replaced(labelled(dataset, parsed), parsed)


def rename_variables(recording: Recording, names: Mapping[str, str]) -> Recording:
    """The recording with variables under other names: ``{old: new}``.

    Raises
    ------
    NotFound
        A variable does not exist. The error lists those that do.
    InvalidInput
        Two coordinates would have the same name.

    Examples
    --------
    >>> recording = Recording.from_arrays([[0.1]], {"n": [3]}, name="toy")
    >>> rename_variables(recording, {"n": "count"}).variable_names
    ['count']
    """
    for old in names:
        recording.spec(old)
    renamed = recording.relabel({new: old for old, new in names.items()})
    if len(set(names.values())) < len(names):
        raise InvalidInput(f"two variables would have the same name: {dict(names)}", kind="duplicate_name")
    note = ", ".join(f"{old} renamed to {new}" for old, new in names.items())
    behaviour = renamed.manifest.behaviour
    return derived(recording, renamed.dataset, renamed.manifest.variables, note, behaviour=behaviour)


def drop_variables(recording: Recording, names: Sequence[str]) -> Recording:
    """The recording without some of its causal variables.

    Raises
    ------
    NotFound
        A variable does not exist. The error lists those that do.
    InvalidInput
        No variable would be left.

    Examples
    --------
    >>> recording = Recording.from_arrays([[0.1]], {"n": [3], "side": ["left"]}, name="toy")
    >>> drop_variables(recording, ["side"]).variable_names
    ['n']
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        recording.spec(name)
    kept = [spec for spec in recording.manifest.variables if spec.name not in names]
    if not kept:
        raise InvalidInput(
            f"recording {recording.name!r}: no variable would be left; it has {', '.join(recording.variable_names)}",
            kind="no_variables",
        )
    return derived(recording, recording.dataset.drop_vars(names), kept, f"variables {', '.join(names)} dropped")


def select(recording: Recording, where: str | None = None, units_where: str | None = None) -> Recording:
    """The recording of some samples and units only, chosen by expressions.

    Parameters
    ----------
    recording : Recording
    where : str, optional
        An expression that is true of the samples to keep, e.g. ``"session == 's1' and time > 0"``. It may use
        `sample_columns`.
    units_where : str, optional
        An expression that is true of the units to keep, e.g. ``"region == 'CA1' and quality > 0.8"``. It may use
        `unit_columns`, which include statistics of the activity: ``"rate > 0.5 and not constant"``.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        A coordinate does not exist. The error lists those that do.
    InvalidInput
        An expression is not true or false, or nothing is left.

    Examples
    --------
    >>> recording = Recording.from_arrays(
    ...     np.eye(3), {"n": [1, 2, 3]}, name="toy", unit_metadata={"region": ["CA1", "CA3", "CA1"]}
    ... )
    >>> select(recording, "n > 1", "region == 'CA1'").latents()
    array([[0., 0.],
           [0., 1.]], dtype=float32)
    """
    chosen, notes = recording, []
    if where is not None:
        chosen = chosen.select_samples(_mask(where, sample_columns(recording), recording, dims.SAMPLE))
        notes.append(f"samples where {where}")
    if units_where is not None:
        mask = _mask(units_where, unit_columns(recording), recording, dims.UNIT)
        chosen = chosen.select_units(np.flatnonzero(mask).tolist())
        notes.append(f"units where {units_where}")
    if not notes:
        return recording
    return derived(recording, chosen.dataset, recording.manifest.variables, f"only {' and '.join(notes)}")


def _mask(expression: str, columns: Mapping[str, Any], recording: Recording, dim: str) -> NDArray[np.bool_]:
    what = f"recording {recording.name!r}, {dim}s"
    size = recording.dataset.sizes[dim]
    mask = evaluate_mask(expression, columns, size, what)
    if not mask.any():
        message = f"{what}: {expression!r} is true of none of {size:,}"
        if dim == dims.UNIT:
            raise InvalidInput(message, kind="no_units")
        raise InvalidInput(message, kind="no_samples")
    return mask


def standardised(recording: Recording, *, leave_out_silent: bool = False) -> Recording:
    """The recording with each unit's activity standardised: its mean subtracted, then divided by its standard deviation.

    Losses on counterfactual latents sum squares over units. With rates in Hz, a few units with high rates would dominate
    them.

    Parameters
    ----------
    recording : Recording
        Mean and standard deviation are computed over the eligible samples in which the unit was recorded.
    leave_out_silent : bool
        Whether to leave out units whose activity never changes in these samples, as that of silent units. The provenance names
        them. By default they are refused, because they have no scale.

    Returns
    -------
    Recording
        Activity in standard deviations, float32, in memory. Mean, standard deviation and physical units are metadata of the
        units (``standard_mean``, ``standard_sd``, ``standard_units``). Stimulation plans use them to return to physical
        units.

    Raises
    ------
    InvalidInput
        A unit never changes and is not left out, no unit would be left, or the recording is standardised already.

    Examples
    --------
    >>> recording = Recording.from_arrays([[1.0], [3.0]], {"n": [1, 2]}, name="toy", activity_units="Hz")
    >>> standard = standardised(recording)
    >>> standard.latents().ravel().tolist(), standard.dataset["standard_mean"].values.tolist()
    ([-1.0, 1.0], [2.0])
    """
    if STANDARD_SD in recording.dataset.coords:
        raise InvalidInput(f"recording {recording.name!r} is standardised already", kind="no_effect")
    activity = recording.latents(dtype=np.float64)
    used = activity[recording.eligible]
    recorded = np.isfinite(used)
    counts = recorded.sum(axis=0)
    mean = np.where(recorded, used, 0.0).sum(axis=0) / np.maximum(counts, 1)
    sd = np.sqrt(np.where(recorded, (used - mean) ** 2, 0.0).sum(axis=0) / np.maximum(counts, 1))
    still = [name for name, width in zip(recording.unit_names, sd, strict=True) if not width > 0]
    if still and leave_out_silent:
        return _without(recording, still)
    if still:
        raise InvalidInput(
            f"recording {recording.name!r}: activity of {listing(still)} never changes in eligible samples, so "
            f"{len(still):,} of {recording.n_units:,} units have no scale; leave them out with leave_out_silent=True",
            kind="constant_unit",
        )
    units = recording.manifest.units
    of_unit = {"units": units}
    dataset = recording.dataset.drop_vars(dims.ACTIVITY).assign(
        {dims.ACTIVITY: ((dims.SAMPLE, dims.UNIT), ((activity - mean) / sd).astype(np.float32))}
    )
    dataset = dataset.assign_coords(
        {
            STANDARD_MEAN: (dims.UNIT, mean, of_unit),
            STANDARD_SD: (dims.UNIT, sd, of_unit),
            STANDARD_UNITS: (dims.UNIT, np.repeat(units, recording.n_units)),
        }
    )
    return derived(recording, dataset, recording.manifest.variables, "activity standardised per unit", units="1")


def _without(recording: Recording, still: Sequence[str]) -> Recording:
    """`recording` standardised without the units `still`."""
    kept = [name for name in recording.unit_names if name not in set(still)]
    if not kept:
        raise InvalidInput(
            f"recording {recording.name!r}: no unit's activity changes in eligible samples, so none is left",
            kind="no_units",
        )
    chosen = recording.select_units(kept)
    note = f"left out, as their activity never changes: {listing(still, len(still))}"
    return standardised(derived(recording, chosen.dataset, recording.manifest.variables, note))


def next_version(name: str, taken: Sequence[str]) -> str:
    """A free name for another version of the recording `name`: ``name.v2``, ``name.v3``, …

    Examples
    --------
    >>> next_version("mouse", ["mouse"]), next_version("mouse.v2", ["mouse", "mouse.v2", "mouse.v3"])
    ('mouse.v2', 'mouse.v4')
    """
    stem = re.sub(r"\.v\d+$", "", name)
    number = 2
    while f"{stem}.v{number}" in taken:
        number += 1
    return f"{stem}.v{number}"
