"""What can be wrong with the data of a recording; all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.schema.recording import RecordingManifest, VariableSpec

BLOCK_BYTES = 8 * 2**20
"""About how much activity is held in memory at once while a recording is read, checked or written."""

LARGEST_EXACT = 2**53
"""Whole numbers up to here stay distinct as float64, in which values are compared."""

_LISTED = 10
"""Problems of one sort that are listed in full."""


def block_bounds(n_samples: int, sample_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of about `BLOCK_BYTES`; whole multiples of a shard, since both are powers of two."""
    rows = 1 << max(0, (BLOCK_BYTES // max(1, sample_bytes)).bit_length() - 1)
    for start in range(0, n_samples, rows):
        yield start, min(start + rows, n_samples)


def problems_of(dataset: xr.Dataset, manifest: RecordingManifest) -> list[str]:
    """Everything about the data that contradicts the manifest or makes them unusable."""
    if dims.ACTIVITY not in dataset or dataset[dims.ACTIVITY].dims != (dims.SAMPLE, dims.UNIT):
        return ["expected a data variable 'activity' with dims (sample, unit)"]
    activity = dataset[dims.ACTIVITY]
    problems: list[str] = []
    if activity.dtype.kind != "f" or activity.dtype.itemsize > 8:
        problems.append(f"activity: expected float16, float32 or float64, got dtype {activity.dtype}")
    if 0 in activity.shape:
        return [*problems, f"activity: expected at least one sample and one unit, got shape {activity.shape}"]
    problems += coordinate_problems(dataset, manifest)
    if activity.dtype.kind == "f" and all(name in dataset.coords for name in (dims.TRIAL, dims.STEP)):
        problems += _activity_problems(dataset, manifest.missing)
    return problems


def coordinate_problems(dataset: xr.Dataset, manifest: RecordingManifest) -> list[str]:
    """What of this is wrong with the coordinates; activity is not read."""
    problems = _unit_problems(dataset)
    problems += _order_problems(dataset)
    for spec in manifest.variables:
        problems += _variable_problems(dataset, spec)
    return problems + _other_coordinate_problems(dataset, manifest)


def _unit_problems(dataset: xr.Dataset) -> list[str]:
    if dims.UNIT not in dataset.coords:
        return ["unit: no names of the units"]
    names = dataset[dims.UNIT].values
    if names.dtype.kind != "U":
        return [f"unit: expected names as text, got dtype {names.dtype}"]
    unique, counts = np.unique(names, return_counts=True)
    twice = [str(name) for name in unique[counts > 1]]
    return [f"unit: duplicate names {listing(twice)}"] if twice else []


def _order_problems(dataset: xr.Dataset) -> list[str]:
    problems = []
    for name in (dims.TRIAL, dims.STEP):
        if name not in dataset.coords or dataset[name].dims != (dims.SAMPLE,):
            problems.append(f"{name}: no such coordinate on sample")
        elif dataset[name].dtype.kind not in "iu":
            problems.append(f"{name}: expected whole numbers, got dtype {dataset[name].dtype}")
    if problems:
        return problems
    trial, step = (np.asarray(dataset[name].values, dtype=np.int64) for name in (dims.TRIAL, dims.STEP))
    if np.all((trial[1:] > trial[:-1]) | ((trial[1:] == trial[:-1]) & (step[1:] > step[:-1]))):
        return []  # in order, so no pair can occur twice
    order = np.lexsort((step, trial))
    again = np.flatnonzero((trial[order][1:] == trial[order][:-1]) & (step[order][1:] == step[order][:-1]))
    places = [f"trial {trial[order][at]} step {step[order][at]}" for at in again[:_LISTED]]
    more = f" and {again.size - _LISTED} more" if again.size > _LISTED else ""
    return [f"samples: more than one at {', '.join(places)}{more}"] if again.size else []


def _variable_problems(dataset: xr.Dataset, spec: VariableSpec) -> list[str]:
    if spec.name not in dataset.coords:
        existing = [str(name) for name, coord in dataset.coords.items() if coord.dims == (dims.SAMPLE,)]
        return [f"variable {spec.name!r}: in the manifest but not in the data, which have {listing(existing)}"]
    coordinate = dataset[spec.name]
    where = f"variable {spec.name!r}"
    if coordinate.dims != (dims.SAMPLE,):
        return [f"{where}: expected one value per sample, got dims {coordinate.dims}"]
    expected = "f" if spec.type == "real" else "iu"
    values = coordinate.values
    if values.dtype.kind not in expected:
        noun = "floats" if spec.type == "real" else "whole numbers"
        return [f"{where}: expected {noun} for type {spec.type!r}, got dtype {values.dtype}"]
    too_large = "" if spec.type == "real" else beyond_exact(values)
    if too_large:
        return [f"{where}: {too_large}"]
    if spec.type == "real" and not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        return [f"{where}: not finite in {bad.size} samples, first at {place(dataset, int(bad[0]))}"]
    if spec.values is None:
        return []
    allowed = np.asarray(spec.values, dtype=np.float64).astype(values.dtype if spec.type == "real" else np.float64)
    outside = ~np.isin(values, allowed)
    if not outside.any():
        return []
    wrong = [f"{value:g}" for value in np.unique(values[outside])]
    first = place(dataset, int(np.flatnonzero(outside)[0]))
    return [
        f"{where}: values {listing(wrong)} are not allowed (first at {first}); "
        f"allowed are {listing([f'{value:g}' for value in spec.values])}"
    ]


def beyond_exact(values: NDArray[Any]) -> str:
    """What is wrong with `values` that are too large for whole numbers; nothing if none is."""
    beyond = values[(values > LARGEST_EXACT) | (values < -LARGEST_EXACT)]
    if not beyond.size:
        return ""
    return (
        f"whole numbers beyond ±2^53 ({beyond.size} values, such as {beyond.flat[0]}) cannot be told apart from their "
        "neighbours; number them anew, or give them as text"
    )


def _other_coordinate_problems(dataset: xr.Dataset, manifest: RecordingManifest) -> list[str]:
    problems = []
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if coordinate.dims not in ((dims.SAMPLE,), (dims.UNIT,)):
            problems.append(f"coordinate {name!r}: expected one dimension, sample or unit, got {coordinate.dims}")
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append(f"coordinate {name!r}: expected a name of letters, digits and underscores")
        elif coordinate.dtype.kind not in "biufU" or coordinate.dtype == np.longdouble:
            problems.append(
                f"coordinate {name!r}: expected bool, whole numbers, floats or text, got {coordinate.dtype}"
            )
    extra = [str(name) for name in dataset.data_vars if name != dims.ACTIVITY]
    if extra:
        problems.append(f"data variables other than 'activity': {listing(extra)}")
    if dims.ELIGIBLE in dataset.coords and dataset[dims.ELIGIBLE].dtype.kind != "b":
        problems.append(f"eligible: expected booleans, got dtype {dataset[dims.ELIGIBLE].dtype}")
    behaviour = manifest.behaviour
    if behaviour is not None and (behaviour not in dataset.coords or dataset[behaviour].dims != (dims.SAMPLE,)):
        existing = [str(name) for name, coordinate in dataset.coords.items() if coordinate.dims == (dims.SAMPLE,)]
        problems.append(f"behaviour: no coordinate {behaviour!r} on sample; there are {listing(existing)}")
    variables = {variable.name for variable in manifest.variables}
    for coded in {dims.TOKEN, dims.TOKEN if behaviour is None else behaviour}:
        if coded in dataset.coords and coded not in variables:
            problems += _code_problems(coded, dataset[coded].values, manifest.vocabulary)
    return problems


def _code_problems(name: str, codes: NDArray[Any], vocabulary: Sequence[str] | None) -> list[str]:
    """What is wrong with codes of tokens."""
    if codes.dtype.kind not in "iu":
        return [f"{name}: expected codes (whole numbers), got dtype {codes.dtype}"]
    if vocabulary is None:
        return [f"{name}: the manifest has no vocabulary that says what the codes stand for"]
    if codes.min() < 0 or codes.max() >= len(vocabulary):
        return [
            f"{name}: expected codes 0 to {len(vocabulary) - 1} (the vocabulary), got {codes.min()} to {codes.max()}"
        ]
    return []


def _activity_problems(dataset: xr.Dataset, missing: bool) -> list[str]:
    """Infinite activity, and NaN that was not declared: a sentence each, with the first sample."""
    variable = dataset[dims.ACTIVITY].variable
    n_samples, n_units = variable.shape
    sorts = [("infinite", np.isinf)] + ([] if missing else [("NaN", np.isnan)])
    counts = {sort: np.zeros(n_units, dtype=np.int64) for sort, _ in sorts}
    first = {sort: np.full(n_units, -1, dtype=np.int64) for sort, _ in sorts}
    for start, stop in block_bounds(n_samples, n_units * variable.dtype.itemsize):
        block = variable[start:stop].values
        for sort, test in sorts:
            bad = test(block)
            if bad.any():
                per_unit = bad.sum(axis=0)
                new = (first[sort] < 0) & (per_unit > 0)
                first[sort][new] = start + bad.argmax(axis=0)[new]
                counts[sort] += per_unit
    names = dataset[dims.UNIT].values if dims.UNIT in dataset.coords else np.arange(n_units)
    return [
        _activity_problem(dataset, sort, counts[sort], first[sort], names, n_samples)
        for sort, _ in sorts
        if counts[sort].any()
    ]


def _activity_problem(
    dataset: xr.Dataset,
    sort: str,
    counts: NDArray[np.int64],
    first: NDArray[np.int64],
    names: NDArray[Any],
    n_samples: int,
) -> str:
    """One sentence for all units, with `counts` and the `first` sample of each."""
    units = np.flatnonzero(counts)
    earliest = units[np.argmin(first[units])]
    if units.size == 1:
        where = f"{int(counts.sum()):,} of {n_samples:,} samples of unit {str(names[earliest])!r}"
    else:
        some = listing([str(name) for name in names[units]], 3)
        where = f"{int(counts.sum()):,} of {n_samples * names.size:,} values, in {units.size:,} of {names.size:,} units ({some})"
    hint = "; if units were not recorded there, declare missing=True" if sort == "NaN" else ""
    return f"activity: {sort} in {where}, first at {place(dataset, int(first[earliest]))}{hint}"


def place(dataset: xr.Dataset, sample: int) -> str:
    """Where a sample is, for an error message: its number, trial and step."""
    place = [f"sample {sample}"]
    for name in (dims.TRIAL, dims.STEP):
        if name in dataset.coords:
            place.append(f"{name} {dataset[name].values[sample]}")
    return " ".join([place[0], f"({', '.join(place[1:])})"]) if len(place) > 1 else place[0]


def listing(names: Sequence[str], most: int = 20) -> str:
    """Names for an error message, in quotes, at most `most` of them."""
    listed = ", ".join(repr(str(name)) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")


def chosen_rows(samples: NDArray[Any], n_samples: int) -> NDArray[np.int64]:
    """Numbers of the samples that a mask or a list of numbers chooses."""
    if samples.dtype.kind == "b" and samples.shape == (n_samples,):
        return np.flatnonzero(samples)
    whole = samples.ndim == 1 and (samples.dtype.kind in "iu" or samples.size == 0)
    if whole and (samples.size == 0 or (samples.min() >= 0 and samples.max() < n_samples)):
        return samples.astype(np.int64)
    raise InvalidInput(
        f"samples: expected a mask of shape ({n_samples},) or sample numbers 0 to {n_samples - 1}, "
        f"got {samples.dtype} of shape {samples.shape}",
        kind="sample_mismatch",
    )
