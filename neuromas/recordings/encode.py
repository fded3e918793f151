"""Types and codes: from plain arrays and files to the coordinates of a recording."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput, NotFound, suggestion
from neuromas.recordings.check import beyond_exact, listing
from neuromas.recordings.incoming import (
    CANONICAL,
    activity_axes,
    array_of,
    axis_names,
    by_trial,
    filled,
    in_order,
    missing_in,
)
from neuromas.schema.recording import RecordingManifest, VariableSpec
from neuromas.unpacking import check_zip

MANIFEST_ATTRIBUTE = "neuromas_manifest"
"""Dataset attribute that holds the manifest as JSON, so that a saved dataset can be read back."""


UNIT_PREFIX = "unit_"
SAMPLE_PREFIX = "sample_"
NPZ_KEYS = ("activity", "trial", "step", "token", "vocabulary", "eligible", "lengths", "present", "unit", "manifest")

ManifestSource = str | Path | Mapping[str, Any] | RecordingManifest | None
"""Where fields of a manifest may come from: a path, JSON text, a mapping, a manifest."""


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a NumPy archive; pickled objects are refused unread.

    Raises
    ------
    NotFound
        The file does not exist.
    InvalidInput
        The file is not a NumPy archive, or it holds pickled objects.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}", kind="unknown_file")
    try:
        with path.open("rb") as file:
            start = file.read(len(np.lib.format.MAGIC_PREFIX))
        if start == np.lib.format.MAGIC_PREFIX:
            raise InvalidInput(f"{path}: expected a NumPy archive (.npz), got a single array", kind="unreadable_source")
        if not start.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # otherwise NumPy reads it as a pickle
            raise InvalidInput(
                f"{path}: not a NumPy archive (.npz): it starts with {start!r}", kind="unreadable_source"
            )
        check_zip(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except InvalidInput:
        raise
    except Exception as error:  # of zlib, of zipfile, and of headers that announce more bytes than the file has
        if "pickle" in str(error).lower():
            raise InvalidInput(
                f"{path}: holds pickled Python objects, which are refused because reading them would run code; "
                "save plain arrays instead",
                kind="pickle_refused",
            ) from error
        raise InvalidInput(
            f"{path}: not a NumPy archive: {error or type(error).__name__}", kind="unreadable_source"
        ) from error
    for key, values in arrays.items():
        check_text(values, f"{path}: array {key!r}")
    others = [key for key, values in arrays.items() if not isinstance(values, np.ndarray)]
    if others:
        raise InvalidInput(
            f"{path}: not a NumPy archive: it holds {listing(others)}, not arrays", kind="unreadable_source"
        )
    return arrays


def check_text(values: object, where: str) -> None:
    """InvalidInput if an array of text holds numbers that are no characters of Unicode."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "U" and values.size and values.dtype.itemsize:
        order = ">" if values.dtype.byteorder == ">" else "<"
        if np.ascontiguousarray(values).view(f"{order}u4").max() > 0x10FFFF:
            raise InvalidInput(f"{where}: holds text with characters beyond Unicode's last", kind="unreadable_source")


def manifest_text(text: object, where: str) -> dict[str, Any]:
    """The fields of a manifest that a foreign file holds: JSON text, never the path of another file.

    Examples
    --------
    >>> manifest_text('{"task": "toy"}', "example")
    {'task': 'toy'}
    """
    if not str(text).lstrip().startswith("{"):
        raise InvalidDocument(where, [f"expected a JSON object, got {str(text)[:40]!r}"])
    return manifest_fields(str(text), where)


def manifest_fields(manifest: ManifestSource, where: str) -> dict[str, Any]:
    """The fields in a source. Only that they form a JSON object is checked."""
    if manifest is None:
        return {}
    if isinstance(manifest, RecordingManifest):
        return manifest.model_dump(exclude_unset=True)
    if isinstance(manifest, Mapping):
        return dict(manifest)
    text = str(manifest)
    if isinstance(manifest, Path) or not text.lstrip().startswith("{"):
        where = str(manifest)
        if not Path(manifest).is_file():
            raise NotFound(f"no such manifest file: {manifest}", kind="unknown_file")
        try:
            text = Path(manifest).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{manifest}: cannot be read: {error}", kind="unreadable_source") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # brackets in brackets, numbers of thousands of digits
        raise InvalidDocument(where, [f"not JSON: {error}"]) from error
    if not isinstance(document, dict):
        raise InvalidDocument(where, [f"expected an object with the manifest's fields, got {type(document).__name__}"])
    return document


def declared_names(declared: object) -> set[str] | None:
    """Names of the variables that a manifest lists; None if it lists none."""
    if not isinstance(declared, Sequence) or not declared:
        return None
    return {str(spec.name if isinstance(spec, VariableSpec) else dict(spec).get("name")) for spec in declared}


def as_floats(activity: Any, problems: list[str]) -> NDArray[Any]:
    """Activity as floats in native byte order, NaN where it is masked.

    Whole numbers become float32 where that is exact, else float64. Axes that xarray names come in the order of
    `Recording.from_arrays`.
    """
    names = axis_names(activity)
    try:
        array = array_of(activity)
        if names is not None and array.ndim in CANONICAL:
            array = in_order(array, activity_axes(names))
    except InvalidInput as error:
        problems.append(f"activity: {error.message}")
        return np.zeros((0, 0), dtype=np.float32)
    absent = missing_in(array)
    array = np.ma.getdata(array)
    if array.dtype.kind in "iub":
        present = array[~absent]
        exact = present.size == 0 or (present.min() >= -(2**24) and present.max() <= 2**24)
        array = array.astype(np.float32 if exact else np.float64)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        problems.append(f"activity: expected numbers (float16, float32 or float64), got dtype {array.dtype}")
        return np.zeros(array.shape, dtype=np.float32)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.where(absent, array.dtype.type(np.nan), array) if absent.any() else array


def complete(what: str, values: Any, problems: list[str]) -> NDArray[Any] | None:
    """`values` as an array in which no entry is missing; None, with a problem, if they cannot be that."""
    try:
        array = array_of(values)
    except InvalidInput as error:
        problems.append(f"{what}: {error.message}")
        return None
    absent = missing_in(array)
    if absent.any():
        problems.append(f"{what}: {int(absent.sum())} of {absent.size} entries are missing")
        return None
    return array


@dataclass(frozen=True)
class Layout:
    """How (trial, step) arrays become one row per sample."""

    n_trials: int
    n_steps: int
    present: NDArray[np.bool_] | None
    """Which steps are real, shape (n_trials, n_steps); None if the activity is 2-D, with one row per sample."""

    @property
    def n_samples(self) -> int:
        return self.n_trials if self.present is None else int(self.present.sum())

    def column(self, what: str, values: Any, problems: list[str]) -> NDArray[Any]:
        """One value per sample, shape (n_samples,); masked where it is missing."""
        names = axis_names(values)
        try:
            array = array_of(by_trial(values))
        except InvalidInput as error:
            problems.append(f"{what}: {error.message}")
            return np.zeros(self.n_samples)
        if self.present is None:
            if array.shape == (self.n_trials,):
                return array
            problems.append(f"{what}: expected shape ({self.n_trials},), one per sample, got {array.shape}")
        elif names == (dims.STEP,) and array.shape == (self.n_steps,):
            return _spread(array[None, :], self.present)
        elif array.shape == (self.n_trials,):
            return _spread(array[:, None], self.present)
        elif array.shape == self.present.shape:
            return array[self.present]
        else:
            problems.append(f"{what}: expected shape ({self.n_trials},) or {self.present.shape}, got {array.shape}")
        return np.zeros(self.n_samples, dtype=array.dtype if array.dtype.kind in "biufUT" else float)

    def trial_and_step(self, trial: ArrayLike | None, step: ArrayLike | None, problems: list[str]) -> dict[str, Any]:
        """Trial number and step of each sample, shape (n_samples,) each; counted where they were not given."""
        if self.present is None:
            arrays = {name: values for name, values in ((dims.TRIAL, trial), (dims.STEP, step)) if values is not None}
            columns = {name: self.column(name, values, problems) for name, values in arrays.items()}
            return columns | default_trial_and_step(columns, self.n_samples)
        steps = np.arange(self.n_steps) if step is None else complete(dims.STEP, by_trial(step), problems)
        steps = np.arange(self.n_steps) if steps is None else steps
        if steps.shape == (self.n_steps,):
            steps = np.broadcast_to(steps[None, :], self.present.shape)
        return {
            dims.TRIAL: self.column(dims.TRIAL, np.arange(self.n_trials) if trial is None else trial, problems),
            dims.STEP: self.column(dims.STEP, steps, problems),
        }


def _spread(array: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """`array`, of length 1 along trials or steps, at each of the `present` steps; its mask too."""
    values = np.broadcast_to(np.ma.getdata(array), present.shape)[present]
    if not np.ma.isMaskedArray(array):
        return values
    return np.ma.masked_array(values, np.broadcast_to(missing_in(array), present.shape)[present])


def flatten(
    activity: NDArray[Any], lengths: ArrayLike | None, present: ArrayLike | None, problems: list[str]
) -> tuple[NDArray[Any], Layout | None]:
    """Activity of shape (n_samples, n_units) and how its rows were made; no layout if the shape is unusable."""
    if activity.size == 0 and problems:
        return activity, None  # why it cannot be used was said already
    if activity.ndim not in (2, 3) or 0 in activity.shape:
        problems.append(
            f"activity: expected shape (n_trials, n_steps, n_units) or (n_samples, n_units), without a 0, "
            f"got {activity.shape}"
        )
        return activity, None
    if activity.ndim == 2:
        if lengths is not None or present is not None:
            problems.append("lengths, present: only beside activity of shape (n_trials, n_steps, n_units)")
        return activity, Layout(activity.shape[0], 1, None)
    n_trials, n_steps, n_units = activity.shape
    mask = _real_steps(n_trials, n_steps, lengths, present, problems)
    if not mask.any():
        problems.append("activity: every step is padding, no sample is left")
        return activity, None
    flat = activity.reshape(-1, n_units) if mask.all() else activity[mask]
    return flat, Layout(n_trials, n_steps, mask)


def _real_steps(
    n_trials: int, n_steps: int, lengths: ArrayLike | None, present: ArrayLike | None, problems: list[str]
) -> NDArray[np.bool_]:
    """Which steps are not padding, shape (n_trials, n_steps); all of them where the arguments are unusable."""
    every_step = np.ones((n_trials, n_steps), dtype=bool)
    if lengths is not None and present is not None:
        problems.append("lengths, present: expected one of them, got both")
    elif lengths is not None:
        counts = complete("lengths", lengths, problems)
        if counts is None:
            return every_step
        if counts.shape != (n_trials,) or counts.dtype.kind not in "iu":
            problems.append(f"lengths: expected {n_trials} whole numbers, got {counts.dtype} of shape {counts.shape}")
        elif counts.min() < 0 or counts.max() > n_steps:
            problems.append(
                f"lengths: expected 0 to {n_steps}, the number of steps, got {counts.min()} to {counts.max()}"
            )
        else:
            return np.arange(n_steps) < counts[:, None]
    elif present is not None:
        mask = complete("present", by_trial(present), problems)
        if mask is None:
            return every_step
        if mask.shape == every_step.shape and mask.dtype.kind == "b":
            return mask
        problems.append(
            f"present: expected booleans of shape {every_step.shape}, got {mask.dtype} of shape {mask.shape}"
        )
    return every_step


def default_trial_and_step(columns: Mapping[str, NDArray[Any]], n_samples: int) -> dict[str, NDArray[Any]]:
    """Trial and step where they are missing: each sample is its own trial; steps are counted within a trial."""
    missing: dict[str, NDArray[Any]] = {}
    trial = columns.get(dims.TRIAL)
    if trial is None:
        trial = missing[dims.TRIAL] = np.arange(n_samples)
    if dims.STEP not in columns:
        order = np.argsort(trial, kind="stable")
        ordered = np.asarray(trial)[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        steps = np.empty(n_samples, dtype=np.int64)
        steps[order] = np.arange(n_samples) - np.repeat(starts, np.diff(np.r_[starts, n_samples]))
        missing[dims.STEP] = steps
    return missing


def unit_coordinates(
    units: Sequence[str] | ArrayLike | None,
    metadata: Mapping[str, ArrayLike | tuple[ArrayLike, Mapping[str, Any]]],
    n_units: int,
    problems: list[str],
) -> dict[str, xr.Variable]:
    """Names and metadata of the units, each on the dimension unit."""
    counted = np.array([f"u{column}" for column in range(n_units)])
    entries: dict[str, Any] = {dims.UNIT: counted if units is None else units} | dict(metadata)
    result: dict[str, xr.Variable] = {}
    for label, entry in entries.items():
        what = "units" if label == dims.UNIT else f"unit metadata {label!r}"
        values, attributes = entry if _has_attributes(entry) else (entry, {})
        try:
            values = filled(array_of(values)) if label != dims.UNIT else complete(what, values, problems)
        except InvalidInput as error:
            problems.append(f"{what}: {error.message}")
            continue
        if label in dims.RESERVED and label != dims.UNIT:
            problems.append(f"{what}: the name is reserved")
        elif values is not None and values.shape != (n_units,):
            problems.append(f"{what}: expected {n_units} values, one per unit, got shape {values.shape}")
        elif values is not None:
            values = plain(values)
            values = values.astype(str) if label == dims.UNIT else values
            result[label] = xr.Variable((dims.UNIT,), values, dict(attributes))
    result.setdefault(dims.UNIT, xr.Variable((dims.UNIT,), counted))
    return result


def _has_attributes(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Mapping)


def plain(values: NDArray[Any]) -> NDArray[Any]:
    """`values`, from `array_of`, in native byte order; text no wider than its longest entry."""
    if values.dtype.kind == "U" and values.size:
        longest = max(1, int(np.char.str_len(values).max()))  # as wide as the longest text, not as wide as the input
        return values.astype(f"U{longest}", copy=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def attributes_of(variable: xr.Variable) -> dict[str, Any]:
    """Attributes without those that only describe how codes are stored."""
    return {str(key): value for key, value in variable.attrs.items() if key not in ("flag_values", "flag_meanings")}


def flag_spec(label: str, values: xr.DataArray) -> dict[str, Any] | None:
    """The categorical variable that CF flag attributes declare."""
    attributes = values.attrs
    if "flag_values" not in attributes or "flag_meanings" not in attributes or values.dtype.kind not in "iu":
        return None
    codes = [int(code) for code in np.atleast_1d(attributes["flag_values"])]
    return {"name": label, "type": "categorical", "values": codes, "meanings": str(attributes["flag_meanings"]).split()}


def infer_spec(label: str, values: NDArray[Any]) -> dict[str, Any]:
    """The declaration that fits `values`: text and booleans categorical, whole numbers integer, the rest real."""
    if values.dtype.kind == "b":
        return {"name": label, "type": "categorical", "values": [0, 1], "meanings": ["false", "true"]}
    if values.dtype.kind == "U":
        meanings = np.unique(values).tolist()
        return {"name": label, "type": "categorical", "values": list(range(len(meanings))), "meanings": meanings}
    return {"name": label, "type": "integer" if values.dtype.kind in "iu" else "real"}


def encode(spec: Mapping[str, Any], values: NDArray[Any], problems: list[str]) -> NDArray[Any]:
    """`values` of the variable `spec` as stored numbers; a value that cannot be stored is a problem."""
    label = spec.get("name")
    kind = spec.get("type")
    if kind == "categorical":
        codes, meanings = spec.get("values"), spec.get("meanings")
        if values.dtype.kind == "U" and codes is not None and meanings is not None and len(codes) == len(meanings):
            return _encode_meanings(label, values, codes, meanings, problems)
        if values.dtype.kind in "biu" and not beyond_exact(values):
            return small_codes(values, codes)
    if values.dtype.kind == "b":
        values = values.astype(np.int8)
    if values.dtype.kind in ("iu" if kind == "real" else "iuf"):
        too_large = beyond_exact(values)
        if too_large:
            problems.append(f"variable {label!r}: {too_large}")
            return np.zeros(values.shape, dtype=np.float64 if kind == "real" else np.int32)
    whole = values.dtype.kind == "f" and np.isfinite(values).all() and np.array_equal(values, np.rint(values))
    if whole and kind in ("integer", "categorical"):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iuf":
        problems.append(f"variable {label!r}: expected numbers for type {kind!r}, got dtype {values.dtype}")
        return np.zeros(values.shape, dtype=np.int32)
    if kind == "real" and values.dtype.kind in "iu":
        return values.astype(np.float64)
    return small_integers(values) if values.dtype.kind in "iu" else values


def _encode_meanings(
    label: object, values: NDArray[Any], codes: Sequence[int], meanings: Sequence[str], problems: list[str]
) -> NDArray[Any]:
    unique, inverse = np.unique(values, return_inverse=True)
    code_of = dict(zip(meanings, codes, strict=True))
    unknown = [str(value) for value in unique if str(value) not in code_of]
    if unknown:
        allowed = listing([str(meaning) for meaning in meanings])
        problems.append(
            f"variable {label!r}: values {listing(unknown)} are not allowed; allowed are {allowed}"
            + suggestion(unknown[0], [str(meaning) for meaning in meanings])
        )
    table = np.array([code_of.get(str(value), codes[0] if len(codes) else 0) for value in unique])
    return small_codes(table[inverse].reshape(values.shape), codes)


def small_codes(values: NDArray[Any], codes: Sequence[int] | None) -> NDArray[Any]:
    """`values` in the smallest signed dtype that holds them and every allowed code."""
    wide = values.astype(np.int64)
    extremes = np.array([*(codes or ()), wide.min(), wide.max()], dtype=np.int64)
    for dtype in (np.int8, np.int16, np.int32):
        if extremes.min() >= np.iinfo(dtype).min and extremes.max() <= np.iinfo(dtype).max:
            return wide.astype(dtype)
    return wide


def order_numbers(label: str, values: NDArray[Any], problems: list[str]) -> NDArray[Any]:
    """Numbers of trials or steps as they are stored; a problem if int64 cannot hold them."""
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        problems.append(f"{label}: numbers up to {values.max()}, expected at most 2^63 - 1; number them anew, from 0")
        return np.arange(values.size)
    return small_integers(values)


def small_integers(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as int32 if it can hold them, else int64, so that equal content is stored equally. Other dtypes stay."""
    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    fits = values.min() >= np.iinfo(np.int32).min and values.max() <= np.iinfo(np.int32).max
    return values.astype(np.int32 if fits else np.int64)


def encode_tokens(name: str, values: NDArray[Any], document: dict[str, Any], problems: list[str]) -> NDArray[Any]:
    """Tokens as codes into the manifest's vocabulary, which is made from them if the manifest has none."""
    unique, inverse = np.unique(values, return_inverse=True)
    vocabulary = document.setdefault("vocabulary", unique.tolist())
    code_of = {str(entry): code for code, entry in enumerate(vocabulary)}
    unknown = [str(value) for value in unique if str(value) not in code_of]
    if unknown:
        problems.append(f"{name}: {listing(unknown)} not in the vocabulary")
    table = np.array([code_of.get(str(value), 0) for value in unique])
    return small_integers(table[inverse].reshape(values.shape))


def labelled(dataset: xr.Dataset, manifest: RecordingManifest) -> xr.Dataset:
    """`dataset` with CF attributes that say what its codes and units mean, for readers without neuromas."""
    # a shallow copy, because attributes are set below
    dataset = dataset.copy()
    ordered = [dims.TRIAL, dims.STEP, *(spec.name for spec in manifest.variables)]
    coordinates = {name: dataset.coords[name] for name in ordered if name in dataset.coords}
    rest = [str(name) for name in dataset.coords if name not in coordinates]
    dataset = dataset.drop_vars(list(coordinates)).assign_coords(
        coordinates | {name: dataset.coords[name] for name in rest}
    )
    for spec in manifest.variables:
        if spec.name not in dataset.coords:
            continue
        attributes: dict[str, Any] = {}
        if spec.description:
            attributes["long_name"] = spec.description
        if spec.type == "categorical":
            dtype = dataset[spec.name].dtype
            attributes["flag_values"] = np.asarray(spec.values, dtype=dtype if dtype.kind in "iu" else np.int64)
            attributes["flag_meanings"] = " ".join("_".join(meaning.split()) for meaning in spec.meanings or ())
        elif spec.units != "1":
            attributes["units"] = spec.units
        dataset[spec.name].attrs = attributes
    dataset[dims.ACTIVITY].attrs = {"long_name": "activity", "units": manifest.units}
    dataset.attrs = {"Conventions": "CF-1.11", MANIFEST_ATTRIBUTE: manifest.model_dump_json(exclude={"files"})}
    described = {"title": manifest.description, "license": manifest.licence, "references": manifest.citation}
    dataset.attrs |= {key: text for key, text in described.items() if text}
    return dataset
