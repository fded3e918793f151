"""Recordings annotated, renamed and selected after the fact: each call gives another recording, the old one stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import make_variables, tidy
from neuromas.recordings.encode import encode, labelled
from neuromas.recordings.export import readable
from neuromas.recordings.expression import evaluate_mask
from neuromas.recordings.grouping import by_trial
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.recipe import VariableRecipe
from neuromas.schema.recording import RecordingManifest, VariableSpec


def sample_columns(recording: Recording) -> dict[str, NDArray[Any]]:
    """What an expression about samples may name, each of shape (n_samples,).

    Every coordinate on sample, categorical variables by their meanings; ``time``, the centre of a step's bin in seconds
    relative to the event, where the recording says how long a step lasts.
    """
    there = {str(name) for name, one in recording.dataset.coords.items() if one.dims == (dims.SAMPLE,)} - {dims.SAMPLE}
    first = [*recording.variable_names, dims.TRIAL, dims.STEP]
    columns = {name: tidy(readable(recording, name)) for name in [*first, *sorted(there - set(first))]}
    seconds = recording.time_s
    return columns if seconds is None or "time" in columns else columns | {"time": seconds}


def unit_columns(recording: Recording) -> dict[str, NDArray[Any]]:
    """What an expression about units may name, each of shape (n_units,): their names as ``unit``, and their metadata."""
    names = [str(name) for name, one in recording.dataset.coords.items() if one.dims == (dims.UNIT,)]
    return {name: tidy(recording.dataset[name].values) for name in sorted(names, key=lambda name: name != dims.UNIT)}


def annotate(
    recording: Recording,
    variables: Mapping[str, str | VariableRecipe | Mapping[str, Any]],
    *,
    table: pd.DataFrame | Mapping[str, ArrayLike] | None = None,
    on: str | Sequence[str] = dims.TRIAL,
    replace: bool = False,
) -> Recording:
    """The recording with more causal variables.

    Parameters
    ----------
    recording : Recording
    variables : mapping of str to str, VariableRecipe or mapping
        Name → expression of the coordinates on sample (`sample_columns`) and of the table's columns, or a
        `neuromas.schema.recipe.VariableRecipe` with meanings, bins, units.
    table : DataFrame or mapping of str to array, optional
        More columns, one row per value of `on`. Rows for trials that were not recorded are no matter.
    on : str or sequence of str
        Coordinates, and columns of the table, by which its rows are matched with samples.
    replace : bool
        Whether a variable may take the place of one of the same name.

    Returns
    -------
    Recording
        Shares the activity with this one. The provenance names the recording that it comes from.

    Raises
    ------
    NotFound
        `on` is no coordinate, or no column of the table.
    InvalidInput
        The table has two rows for one sample, or none for some.
    InvalidDocument
        Variables that exist already, or cannot be computed; lists every problem.

    Examples
    --------
    >>> made = Recording.from_arrays([[0.1], [0.2], [0.3]], {"side": ["l", "r", "l"]}, name="toy")
    >>> table = pd.DataFrame({"trial": [0, 1, 2], "reaction_s": [0.3, 0.5, 0.9]})
    >>> annotate(made, {"fast": "reaction_s < 0.4", "left": "side == 'l'"}, table=table).variable_names
    ['side', 'fast', 'left']
    """
    where = f"recording {recording.name!r}"
    recipes = {
        name: one if isinstance(one, VariableRecipe) else VariableRecipe.parse(_expanded(one), f"variable {name!r}")
        for name, one in variables.items()
    }
    columns = sample_columns(recording)
    if table is not None:
        columns |= _matched(recording, columns, table, on)
    taken = {str(name) for name in recording.dataset.coords} | {str(name) for name in recording.dataset.dims}
    allowed = set(recording.variable_names) if replace else set()
    there = [name for name in recipes if name in taken - allowed]
    if there:
        raise InvalidDocument(where, [f"{name!r} is there already" + _how(name, recording) for name in there])
    values, specs = make_variables(recipes, columns, where)
    shaped = {name: np.broadcast_to(one, recording.n_samples) for name, one in values.items()}
    return _with_variables(recording, shaped, specs, f"variables {', '.join(recipes)} added")


def _expanded(recipe: object) -> object:
    return {"expression": recipe} if isinstance(recipe, str) else recipe


def _how(name: str, recording: Recording) -> str:
    return "; replace it with replace=True" if name in recording.variable_names else ", as a coordinate"


def _matched(
    recording: Recording,
    columns: Mapping[str, NDArray[Any]],
    table: pd.DataFrame | Mapping[str, ArrayLike],
    on: str | Sequence[str],
) -> dict[str, NDArray[Any]]:
    """The table's columns, one value per sample."""
    keys = [on] if isinstance(on, str) else list(on)
    if dims.TRIAL in keys and recording.manifest.pseudo_population is not None:
        raise InvalidInput(
            f"recording {recording.name!r} is a pseudo-population: its trials were joined and numbered anew, so no table of"
            " trials fits them; annotate the recordings before they are pooled",
            kind="pooled",
        )
    frame = pd.DataFrame({str(name): tidy(np.asarray(table[name])) for name in table})
    for what, known in (
        (f"recording {recording.name!r} has no coordinate", columns),
        ("the table has no column", frame),
    ):
        missing = [key for key in keys if key not in known]
        if missing:
            raise NotFound(f"{what} {listing(missing)}; it has {', '.join(map(str, known))}", kind="unknown_column")
    clashing = [name for name in frame if name in columns and name not in keys]
    if clashing:
        raise InvalidInput(
            f"the table's column {listing(clashing)} is a coordinate of recording {recording.name!r} as well; rename it, or "
            "match by it (on)",
            kind="duplicate_column",
        )
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        told = ", ".join(f"{key} {twice.iloc[0][key]}" for key in keys)
        raise InvalidInput(f"the table has two rows for {told}; expected one", kind="duplicate_row")
    samples = pd.DataFrame({key: columns[key] for key in keys})
    differing = [key for key in keys if (samples[key].dtype == object) != (frame[key].dtype == object)]
    try:
        joined = samples.merge(frame, on=keys, how="left", indicator="_found")
    except ValueError as error:  # text against numbers
        raise InvalidInput(
            f"the table cannot be matched by {listing(differing or keys)}: {error}", kind="unmatched_rows"
        ) from error
    without = (joined["_found"] == "left_only").to_numpy()
    if without.any():
        first = ", ".join(f"{key} {samples.iloc[int(np.argmax(without))][key]}" for key in keys)
        raise InvalidInput(
            f"the table has no row for {int(without.sum()):,} of {recording.n_samples:,} samples of {recording.name!r} "
            f"(first: {first}); select the others first (select, where=)",
            kind="unmatched_rows",
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
    return _derived(recording, dataset.assign_coords(coordinates), [*kept, *specs], note)


def _derived(
    recording: Recording,
    dataset: xr.Dataset,
    variables: Sequence[VariableSpec],
    note: str,
    **update: Any,
) -> Recording:
    """The recording of `dataset`, whose provenance says that it comes from `recording`."""
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
        There is no such variable; lists those there are.
    InvalidInput
        Two coordinates would go by one name.

    Examples
    --------
    >>> made = Recording.from_arrays([[0.1]], {"n": [3]}, name="toy")
    >>> rename_variables(made, {"n": "count"}).variable_names
    ['count']
    """
    for old in names:
        recording.spec(old)
    renamed = recording.relabel({new: old for old, new in names.items()})
    if len(set(names.values())) < len(names):
        raise InvalidInput(f"two variables would be called the same: {dict(names)}", kind="duplicate_name")
    told = ", ".join(f"{old} renamed to {new}" for old, new in names.items())
    return _derived(recording, renamed.dataset, renamed.manifest.variables, told)


def drop_variables(recording: Recording, names: Sequence[str]) -> Recording:
    """The recording without some of its causal variables.

    Raises
    ------
    NotFound
        There is no such variable; lists those there are.
    InvalidInput
        None would be left.

    Examples
    --------
    >>> made = Recording.from_arrays([[0.1]], {"n": [3], "side": ["left"]}, name="toy")
    >>> drop_variables(made, ["side"]).variable_names
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
    return _derived(recording, recording.dataset.drop_vars(names), kept, f"variables {', '.join(names)} dropped")


def select(recording: Recording, where: str | None = None, units_where: str | None = None) -> Recording:
    """The recording of some samples and units alone, chosen by expressions.

    Parameters
    ----------
    recording : Recording
    where : str, optional
        True for samples to keep, of `sample_columns`, e.g. ``"session == 's1' and time > 0"``.
    units_where : str, optional
        True for units to keep, of their metadata, e.g. ``"region == 'CA1' and quality > 0.8"``.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        There is no such coordinate; lists those there are.
    InvalidInput
        An expression is not true or false, or nothing is left.

    Examples
    --------
    >>> made = Recording.from_arrays(
    ...     np.eye(3), {"n": [1, 2, 3]}, name="toy", unit_metadata={"region": ["CA1", "CA3", "CA1"]}
    ... )
    >>> select(made, "n > 1", "region == 'CA1'").latents()
    array([[0., 0.],
           [0., 1.]], dtype=float32)
    """
    chosen, told = recording, []
    if where is not None:
        chosen = chosen.select_samples(_mask(where, sample_columns(recording), recording, dims.SAMPLE))
        told.append(f"samples where {where}")
    if units_where is not None:
        mask = _mask(units_where, unit_columns(recording), recording, dims.UNIT)
        chosen = chosen.select_units(np.flatnonzero(mask).tolist())
        told.append(f"units where {units_where}")
    if not told:
        return recording
    return _derived(recording, chosen.dataset, recording.manifest.variables, f"only {' and '.join(told)}")


def _mask(expression: str, columns: Mapping[str, Any], recording: Recording, dim: str) -> NDArray[np.bool_]:
    what = f"recording {recording.name!r}, {dim}s"
    size = recording.dataset.sizes[dim]
    mask = evaluate_mask(expression, columns, size, what)
    if not mask.any():
        raise InvalidInput(f"{what}: {expression!r} is true of none of {size:,}", kind=f"no_{dim}s")
    return mask


def shuffled(
    recording: Recording,
    variables: Sequence[str] | None = None,
    seed: int = 0,
    within: str = "",
    by: Literal["trial", "sample"] = "trial",
) -> Recording:
    """The recording with the values of its variables exchanged between trials: a control that no fit may pass.

    Whole trials exchange the values of all their steps, with trials of as many steps; so values stay as frequent and as
    ordered as they were, and what is the same in every trial at a step, a phase say, stays true. By sample, nothing does.

    Parameters
    ----------
    recording : Recording
    variables : sequence of str, optional
        All by default. They travel together.
    seed : int
    within : str, optional
        A coordinate on sample: trials exchange values only if they agree in it, e.g. ``session``. A recording that is divided
        into parts (a pseudo-population) exchanges within them in any case.
    by : {"trial", "sample"}
        What exchanges values: whole trials, or each sample for itself.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        There is no such variable or coordinate.
    InvalidInput
        No sample would get another value: trials that could exchange hold the same values, step by step.

    Examples
    --------
    >>> made = Recording.from_arrays(np.zeros((6, 1)), {"n": [1, 2, 3, 4, 5, 6]}, name="toy")
    >>> sorted(shuffled(made, seed=1).values(["n"]).ravel().tolist())
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    names = recording.variable_names if variables is None else list(variables)
    for name in names:
        recording.spec(name)
    columns = sample_columns(recording)
    pooled = recording.manifest.pseudo_population is not None
    kept_apart = [one for one in (within, dims.PART if pooled else "") if one]
    missing = [one for one in kept_apart if one not in columns]
    if missing:
        raise NotFound(
            f"recording {recording.name!r} has no coordinate {missing[0]!r}; it has {', '.join(columns)}",
            kind="unknown_coordinate",
        )
    owner = recording.trial if by == "trial" else np.arange(recording.n_samples)
    order, starts, lengths = by_trial(owner, recording.step)
    strata = [lengths, *(pd.factorize(columns[one][order[starts]])[0] for one in kept_apart)]
    _, stratum = np.unique(np.column_stack(strata), axis=0, return_inverse=True)
    generator = np.random.default_rng(seed)
    strata_members = [np.flatnonzero(stratum == one) for one in np.unique(stratum)]
    shares: dict[str, float] = {}
    for _ in range(10):  # of few trials, a random order may be the old one
        donor = np.arange(len(starts))
        for members in strata_members:
            donor[members] = members[generator.permutation(len(members))]
        source = np.concatenate([order[starts[d] : starts[d] + lengths[d]] for d in donor])
        values = {name: recording.dataset[name].values.copy() for name in names}
        for name, stored in values.items():
            stored[order] = recording.dataset[name].values[source]
        shares = {name: float((stored != recording.dataset[name].values).mean()) for name, stored in values.items()}
        if any(shares.values()):
            break
    if not any(shares.values()):
        raise InvalidInput(
            f"recording {recording.name!r}: shuffling {by}s changes nothing: those that could exchange values hold the same ones"
            + (
                ". Trials exchange with trials of as many steps; by='sample' exchanges step by step"
                if by == "trial"
                else ""
            ),
            kind="nothing_shuffled",
        )
    coordinates = {name: xr.Variable((dims.SAMPLE,), stored) for name, stored in values.items()}
    told = ", ".join(f"{name} ({share:.0%} of samples changed)" for name, share in shares.items())
    note = f"values shuffled between {by}s, seed {seed}: {told}"
    control = "; ".join(text for text in (recording.manifest.control, note) if text)
    dataset = recording.dataset.assign_coords(coordinates)
    return _derived(recording, dataset, recording.manifest.variables, note, control=control)


STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS = "standard_mean", "standard_sd", "standard_units"


def standardised(recording: Recording) -> Recording:
    """The recording with each unit's activity less its mean, over its standard deviation.

    Losses on counterfactual latents add squares over units: of rates in Hz, where units differ by tens, a few fast units would
    decide everything.

    Parameters
    ----------
    recording : Recording
        Mean and standard deviation are those of its eligible samples in which the unit was recorded.

    Returns
    -------
    Recording
        In standard deviations, float32, held in memory. Mean, standard deviation and physical units are metadata of the units
        (``standard_mean``, ``standard_sd``, ``standard_units``), from which stimulation plans go back.

    Raises
    ------
    InvalidInput
        A unit never changes, or the recording is standardised already.

    Examples
    --------
    >>> made = Recording.from_arrays([[1.0], [3.0]], {"n": [1, 2]}, name="toy", activity_units="Hz")
    >>> seen = standardised(made)
    >>> seen.latents().ravel().tolist(), seen.dataset["standard_mean"].values.tolist()
    ([-1.0, 1.0], [2.0])
    """
    if STANDARD_SD in recording.dataset.coords:
        raise InvalidInput(f"recording {recording.name!r} is standardised already", kind="standardised")
    activity = recording.latents(dtype=np.float64)
    used = activity[recording.eligible]
    known = np.isfinite(used)
    counts = known.sum(axis=0)
    mean = np.where(known, used, 0.0).sum(axis=0) / np.maximum(counts, 1)
    sd = np.sqrt(np.where(known, (used - mean) ** 2, 0.0).sum(axis=0) / np.maximum(counts, 1))
    still = [name for name, width in zip(recording.unit_names, sd, strict=True) if not width > 0]
    if still:
        raise InvalidInput(
            f"recording {recording.name!r}: {listing(still)} never change in eligible samples; leave them out first "
            "(select, units_where=)",
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
    return _derived(recording, dataset, recording.manifest.variables, "activity standardised per unit", units="1")


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
