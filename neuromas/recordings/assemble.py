"""The one place that makes a recording from arrays: encode, complete the manifest, check, report every problem."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.recordings.check import listing, problems_of
from neuromas.recordings.clock import OWN_TIME, Clock
from neuromas.recordings.encode import (
    MANIFEST_ATTRIBUTE,
    NPZ_KEYS,
    SAMPLE_PREFIX,
    UNIT_PREFIX,
    Layout,
    ManifestSource,
    attributes_of,
    check_text,
    declared_names,
    default_trial_and_step,
    encode,
    encode_tokens,
    flag_spec,
    infer_spec,
    labelled,
    load_npz,
    manifest_fields,
    manifest_text,
    order_numbers,
    plain,
    unit_coordinates,
)
from neuromas.recordings.incoming import TIME, array_of, filled, missing_in
from neuromas.recordings.outside import refuse_outside
from neuromas.recordings.unpacked import check_hdf5, check_zarr
from neuromas.schema.recording import RecordingManifest, VariableSpec

_ARRAYS = (
    *("activity", "trial", "step", "lengths", "present", "token", "eligible", "unit_metadata", "sample_metadata"),
    *("variable_specs", "activity_units"),
)
"""What `Recording.from_arrays` takes besides fields of the manifest."""


@dataclass
class Draft:
    """A recording in the making: nothing is encoded or checked yet.

    Attributes
    ----------
    activity : xarray.Variable
        Dims (sample, unit).
    samples : dict of str to ndarray
        Coordinates on sample, shape (n_samples,) each; categorical variables as text or codes.
    units : dict of str to xarray.Variable
        Coordinates on unit.
    document : dict
        Fields of the manifest; ``variables`` lists the declared ones.
    inferred : list of str
        Variables whose type follows from their values unless they are declared.
    problems : list of str
        What was wrong so far.
    """

    activity: xr.Variable
    samples: dict[str, NDArray[Any]]
    units: dict[str, xr.Variable]
    document: dict[str, Any]
    inferred: list[str]
    problems: list[str]

    def finish(self) -> tuple[xr.Dataset, RecordingManifest]:
        """The recording's dataset and manifest.

        Raises
        ------
        InvalidDocument
            Lists every problem: of the arrays, of the manifest, and of how they fit together.
        """
        document = {key: value for key, value in self.document.items() if key not in ("set", "content_sha256", "files")}
        document.setdefault("system", document.get("name"))
        specs = {}
        for spec in document["variables"]:
            spec_document = spec.model_dump() if isinstance(spec, VariableSpec) else dict(spec)
            specs[str(spec_document.get("name"))] = spec_document
        self._check_time(specs, document)
        coordinates = self.units | self._encoded(specs, document)
        document["variables"] = list(specs.values())
        listed = RecordingManifest.problems(document)
        if listed:
            name = document.get("name")
            raise InvalidDocument(f"recording {name!r}", [f"manifest: {problem}" for problem in listed] + self.problems)
        manifest = RecordingManifest.model_validate(document)
        dataset = labelled(xr.Dataset({dims.ACTIVITY: self.activity}, coords=coordinates), manifest)
        problems = self.problems + problems_of(dataset, manifest)
        if problems:
            raise InvalidDocument(f"recording {manifest.name!r}", problems)
        return dataset, manifest

    def _check_time(self, specs: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        """A problem if times beside the samples contradict the manifest's ``sampling``."""
        trial, step = (np.ma.getdata(self.samples[name]) for name in (dims.TRIAL, dims.STEP))
        if trial.dtype.kind not in "iu" or step.dtype.kind not in "iu":
            return
        clock = Clock.of(trial, step, document.get("sampling"), f"recording {document.get('name')!r}")
        for name in OWN_TIME:
            own = self.samples.get(name)
            if own is None or name in specs or name in self.inferred or np.ma.is_masked(own):
                continue
            try:
                clock.check(name, np.asarray(own), is_used=False)
            except InvalidInput as error:
                self.problems.append(error.message.partition(": ")[2])

    def _encoded(self, specs: dict[str, dict[str, Any]], document: dict[str, Any]) -> dict[str, xr.Variable]:
        """Coordinates on sample as they are stored. Adds what it infers to `specs`, and a vocabulary to `document`."""
        coordinates = {}
        for label, raw in self.samples.items():
            values = self._plain(label, raw, label in self.inferred or label in specs)
            if label in self.inferred and label not in specs:
                specs[label] = infer_spec(label, values)
            if label in specs:
                values = encode(specs[label], values, self.problems)
            elif label in (dims.TOKEN, document.get("behaviour")) and values.dtype.kind == "U":
                values = encode_tokens(label, values, document, self.problems)
            elif label in (dims.TRIAL, dims.STEP, dims.TOKEN, document.get("behaviour")):
                values = order_numbers(label, values, self.problems)
            elif label == dims.ELIGIBLE and values.dtype.kind in "iu" and np.isin(values, (0, 1)).all():
                values = values.astype(bool)
            coordinates[label] = xr.Variable((dims.SAMPLE,), values)
        return coordinates

    def _plain(self, label: str, raw: NDArray[Any], is_variable: bool) -> NDArray[Any]:
        """Numbers, booleans or text without missing entries; metadata have NaN or empty text instead."""
        what = f"variable {label!r}" if is_variable else label
        needed = is_variable or label in (
            *(dims.TRIAL, dims.STEP, dims.TOKEN, dims.ELIGIBLE),
            self.document.get("behaviour"),
        )
        try:
            values = array_of(raw)
            absent = missing_in(values)
            values = np.ma.getdata(values) if needed else filled(values)
        except InvalidInput as error:
            self.problems.append(f"{what}: {error.message}")
            return np.zeros(len(raw), dtype=np.int64)
        if needed and absent.any():
            first = int(np.flatnonzero(absent)[0])
            self.problems.append(
                f"{what}: missing in {int(absent.sum())} of {absent.size} samples, first at {self._place(first)}; leave them "
                "out, or say what they count as"
            )
            # stands in for the column, so that nothing else is said of it
            counted = np.arange(absent.size)
            return counted if absent.all() or label == dims.TRIAL else values[~absent][np.zeros_like(counted)]
        return plain(values)

    def _place(self, sample: int) -> str:
        trial, step = (np.ma.getdata(self.samples[name])[sample] for name in (dims.TRIAL, dims.STEP))
        return f"sample {sample} (trial {trial}, step {step})"


def sample_columns(
    layout: Layout,
    variables: Mapping[str, ArrayLike],
    metadata: Mapping[str, ArrayLike],
    eligible: ArrayLike | None,
    token: ArrayLike | None,
    problems: list[str],
) -> dict[str, NDArray[Any]]:
    """Variables, metadata and marks of the samples, one value per sample each."""
    columns = {name: layout.column(f"variable {name!r}", values, problems) for name, values in variables.items()}
    for name, values in metadata.items():
        columns[name] = layout.column(f"sample metadata {name!r}", values, problems)
    if eligible is not None:
        columns[dims.ELIGIBLE] = layout.column("eligible", eligible, problems)
    if token is not None:
        columns[dims.TOKEN] = layout.column("token", token, problems)
    return columns


def manifest_document(
    fields: Mapping[str, Any],
    *,
    name: str,
    system: str | None,
    vocabulary: Sequence[str] | None,
    activity_units: str | None,
    variable_specs: Mapping[str, VariableSpec | Mapping[str, Any]] | Sequence[VariableSpec] | None,
) -> dict[str, Any]:
    """Fields of the manifest, unchecked."""
    document: dict[str, Any] = {"name": name} | dict(fields)
    document |= {} if system is None else {"system": system}
    document |= {} if vocabulary is None else {"vocabulary": [str(entry) for entry in vocabulary]}
    document |= {} if activity_units is None else {"units": activity_units}
    specs = variable_specs.values() if isinstance(variable_specs, Mapping) else (variable_specs or ())
    return document | {"variables": list(specs)}


def npz_arguments(path: Path, manifest: ManifestSource, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Recording.from_arrays` for the archive at `path`.

    Raises
    ------
    NotFound
        The file does not exist.
    InvalidInput
        The file is not a NumPy archive, or has no activity.
    InvalidDocument
        Its manifest is not a JSON object.
    """
    arrays = load_npz(path)
    document: dict[str, Any] = {"name": path.stem}
    if "manifest" in arrays:
        document |= manifest_text(arrays.pop("manifest"), f"{path}: manifest")
    document |= manifest_fields(manifest, "manifest") | dict(fields)
    misplaced = [key for key in document if key in _ARRAYS]
    if misplaced:
        raise InvalidDocument(str(path), [f"manifest: {key}: no such field" for key in misplaced])
    if "activity" not in arrays:
        names = ", ".join(sorted(arrays)) or "none"
        raise InvalidInput(f"{path}: no array called 'activity'; arrays are: {names}", kind="missing_activity")
    special = {key: arrays.pop(key) for key in NPZ_KEYS if key in arrays}
    unit_metadata = {key: arrays.pop(key) for key in list(arrays) if key.startswith(UNIT_PREFIX)}
    sample_metadata = {key: arrays.pop(key) for key in list(arrays) if key.startswith(SAMPLE_PREFIX)}
    declared = document.pop("variables", None)
    names_declared = declared_names(declared)
    undeclared = [] if names_declared is None else [key for key in arrays if key not in names_declared]
    extra = {key: arrays.pop(key) for key in undeclared}
    _spread_time(arrays, special["activity"])
    vocabulary = special.pop("vocabulary", None)
    if vocabulary is not None:
        add_vocabulary(document, vocabulary, str(path))
    return document | {
        "activity": special.pop("activity"),
        "variables": arrays,
        "units": special.pop("unit", None),
        "unit_metadata": {key.removeprefix(UNIT_PREFIX): value for key, value in unit_metadata.items()},
        "sample_metadata": {key.removeprefix(SAMPLE_PREFIX): value for key, value in sample_metadata.items()} | extra,
        "variable_specs": declared,
        "activity_units": document.pop("units", None),
        **special,
    }


def open_zarr(path: Path) -> xr.Dataset:
    """A zarr folder, read when it is asked for; InvalidInput if reading it would take too much, other errors are zarr's."""
    check_zarr(path)
    with warnings.catch_warnings():
        # it matters to nobody whether the metadata lie in one file or in several
        warnings.filterwarnings(
            "ignore", message="Failed to open Zarr store with consolidated", category=RuntimeWarning
        )
        return xr.open_zarr(path, chunks=None)


def whole(dataset: xr.Dataset) -> xr.Dataset:
    """`dataset` in memory, every text of it decoded: what cannot be raises its error now, not at the first look."""
    loaded = dataset.load()
    for name, variable in loaded.variables.items():
        check_text(np.asarray(variable.values), f"array {name!r}")
    return loaded


def _spread_time(arrays: dict[str, NDArray[Any]], activity: NDArray[Any]) -> None:
    """Give an array ``time`` with a value per step the shape (n_trials, n_steps): it belongs to steps, also where trials fit."""
    time = arrays.get(TIME)
    if time is not None and activity.ndim == 3 and time.shape == activity.shape[1:2]:
        arrays[TIME] = np.broadcast_to(time, activity.shape[:2])


def add_vocabulary(document: dict[str, Any], array: ArrayLike, where: str) -> None:
    """Put a file's array of tokens into the fields of its manifest; InvalidInput if the manifest lists others."""
    words = [str(word) for word in np.atleast_1d(filled(array_of(array)))]
    listed = document.get("vocabulary")
    if listed is None:
        document["vocabulary"] = words
    elif [str(word) for word in listed] != words:
        raise InvalidInput(
            f"{where}: two vocabularies: the array 'vocabulary' holds {listing(words, 5)}, the manifest lists "
            f"{listing([str(word) for word in listed], 5)}; expected one of them, or the same",
            kind="vocabulary_mismatch",
        )


def read_dataset(path: Path, manifest: ManifestSource, fields: Mapping[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    """The dataset in a NetCDF file or zarr folder, and the fields of its manifest.

    Raises
    ------
    InvalidInput
        The ending is unknown, or the file cannot be read.
    InvalidDocument
        A manifest is not a JSON object.
    """
    beside = path / "manifest.json"
    if path.suffix not in (".nc", ".zarr") and not beside.is_file():
        raise InvalidInput(f"{path}: expected a .npz or .nc file or a .zarr folder", kind="invalid_format")
    document: dict[str, Any] = {"name": path.stem} if path.suffix in (".nc", ".zarr") else {}
    netcdf = path.suffix == ".nc"
    refuse_outside(path)
    try:
        if netcdf:
            check_hdf5(path)
        dataset = whole(xr.load_dataset(path, engine="h5netcdf") if netcdf else open_zarr(path))
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        kind = "NetCDF file" if netcdf else "zarr folder"
        raise InvalidInput(f"{path}: cannot be read as a {kind}: {error}", kind="unreadable_source") from error
    if MANIFEST_ATTRIBUTE in dataset.attrs:
        document |= manifest_text(dataset.attrs.pop(MANIFEST_ATTRIBUTE), f"{path}: {MANIFEST_ATTRIBUTE}")
    if beside.is_file():
        document |= manifest_fields(beside, str(beside))
    return dataset, document | manifest_fields(manifest, "manifest") | dict(fields)


def draft_of_dataset(dataset: xr.Dataset, manifest: ManifestSource, fields: Mapping[str, Any]) -> Draft:
    """The recording that `dataset` describes, before it is encoded and checked.

    Raises
    ------
    InvalidDocument
        It has no activity with dims sample and unit, or its manifest is not a JSON object.
    """
    document: dict[str, Any] = {}
    if MANIFEST_ATTRIBUTE in dataset.attrs:
        document |= manifest_text(dataset.attrs[MANIFEST_ATTRIBUTE], f"attribute {MANIFEST_ATTRIBUTE}")
    document |= manifest_fields(manifest, "manifest") | dict(fields)
    problems: list[str] = []
    activity = _activity_of(dataset, f"recording {document.get('name', '?')!r}")
    samples, units = _coordinates_of(dataset, problems)
    if dims.UNIT not in units:
        units |= unit_coordinates(None, {}, activity.sizes[dims.UNIT], problems)
    samples |= default_trial_and_step(samples, activity.sizes[dims.SAMPLE])
    declared = list(document.get("variables") or ())
    inferred = [] if declared_names(declared) else [label for label in samples if label not in dims.RESERVED]
    flagged = [spec for label in inferred if (spec := flag_spec(label, dataset[label])) is not None]
    return Draft(activity, samples, units, document | {"variables": declared + flagged}, inferred, problems)


def _activity_of(dataset: xr.Dataset, where: str) -> xr.Variable:
    """Activity with dims (sample, unit); whole numbers as float32."""
    if dims.ACTIVITY not in dataset.variables or set(dataset[dims.ACTIVITY].dims) != {dims.SAMPLE, dims.UNIT}:
        existing = ", ".join(f"{name} {variable.dims}" for name, variable in dataset.variables.items())
        raise InvalidDocument(where, [f"expected a variable 'activity' with dims (sample, unit); got {existing}"])
    activity = dataset[dims.ACTIVITY].variable
    if activity.dims != (dims.SAMPLE, dims.UNIT):
        activity = activity.transpose(dims.SAMPLE, dims.UNIT)
    return activity.astype(np.float32) if activity.dtype.kind in "iub" else activity


def _coordinates_of(dataset: xr.Dataset, problems: list[str]) -> tuple[dict[str, NDArray[Any]], dict[str, xr.Variable]]:
    """Everything on sample, and everything on unit."""
    samples: dict[str, NDArray[Any]] = {}
    units: dict[str, xr.Variable] = {}
    for key, variable in dataset.variables.items():
        label = str(key)
        if label in (dims.ACTIVITY, dims.SAMPLE):
            continue
        if variable.dims == (dims.SAMPLE,):
            samples[label] = variable.values
        elif variable.dims == (dims.UNIT,):
            try:
                units[label] = xr.Variable(
                    (dims.UNIT,), plain(filled(array_of(variable.values))), attributes_of(variable)
                )
            except InvalidInput as error:
                problems.append(f"unit metadata {label!r}: {error.message}")
        else:
            problems.append(f"variable {label!r}: expected one dimension, sample or unit, got {variable.dims}")
    return samples, units
