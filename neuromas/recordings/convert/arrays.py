"""Files of named arrays: NumPy archives, MATLAB's ``.mat``, NetCDF and zarr; and from and to xarray's objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.assemble import open_zarr, whole
from neuromas.recordings.columns import tidy
from neuromas.recordings.columns import unusable as why_unusable
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.matlab import read_mat, read_tree
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import (
    check_fields,
    name_of,
    numbered_names,
    same_source,
    unreadable,
    with_provenance,
)
from neuromas.recordings.convert.take import take
from neuromas.recordings.convert.tree import arrays_of, elements
from neuromas.recordings.encode import MANIFEST_ATTRIBUTE, labelled, load_npz, manifest_text
from neuromas.recordings.export import readable
from neuromas.recordings.incoming import TIME
from neuromas.recordings.outside import refuse_outside
from neuromas.recordings.recording import Recording
from neuromas.recordings.unpacked import check_hdf5
from neuromas.schema.recipe import ArraysRecipe

_MAT_LIBRARIES = ("scipy", "h5py")
_PRESENT = "present"  # (trial, step): which entries are samples


def convert_npz(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a NumPy archive; without a recipe, by `Recording.from_npz`."""
    if recipe == ArraysRecipe():
        check_fields(fields)
        named = dict(fields)
        # no recording can have the file's name
        if name_of(path) != path.stem and "name" not in fields:
            named["name"] = _read_npz(path).document.get("name", name_of(path))
        return with_provenance(Recording.from_npz(path, **named), path, recipe)
    return take(_read_npz(path), recipe, fields, name=name_of(path), path=path)


def convert_mat(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording | list[Recording]:
    """From a ``.mat`` file, v5 or v7.3; axes are in MATLAB's order. With ``each``, a recording for each element."""
    if recipe.each is not None:
        return _convert_each(path, recipe, fields)
    return take(read_mat(path), recipe, fields, name=name_of(path), path=path, libraries=_MAT_LIBRARIES)


def _convert_each(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> list[Recording]:
    """A recording for each element of the struct or cell array ``recipe.each``."""
    parts = list(elements(read_tree(path), str(recipe.each), str(path)))
    sources = [
        arrays_of(values, f"{path}: {recipe.each}({number})", vectors=True) for number, values in enumerate(parts, 1)
    ]
    key = recipe.activity or dims.ACTIVITY
    if recipe.axes is None and any(source.array(key, "activity").ndim < 3 for source in sources):
        raise InvalidInput(
            f"{path}: each={recipe.each!r}: the recipe must say what the axes of {key!r} are, e.g. axes = "
            '["trial", "step"] for a single unit',
            kind="invalid_axes",
        )
    names = numbered_names(name_of(path), len(sources), fields)
    return same_source(
        (
            take(source, recipe, {**fields, "name": name}, name=name, path=first, libraries=_MAT_LIBRARIES)
            for source, name, first in zip(sources, names, (path, *[None] * (len(sources) - 1)), strict=True)
        )
    )


def convert_netcdf(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From NetCDF; without a recipe, by `Recording.from_dataset`."""
    return _convert_dataset(path, _open_netcdf(path), recipe, fields, ("xarray", "h5netcdf"))


def convert_zarr(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a zarr group; without a recipe, by `Recording.from_file`."""
    if recipe == ArraysRecipe() and (path / "manifest.json").is_file():
        return with_provenance(Recording.from_file(path, **fields), path, recipe)
    return _convert_dataset(path, _open_zarr(path), recipe, fields, ("xarray", "zarr"))


def _convert_dataset(
    path: Path, dataset: xr.Dataset, recipe: ArraysRecipe, fields: Mapping[str, Any], libraries: tuple[str, ...]
) -> Recording:
    if recipe == ArraysRecipe() and _is_recording(dataset):
        check_fields(fields)
        document = {"name": name_of(path)}
        if MANIFEST_ATTRIBUTE in dataset.attrs:
            document |= manifest_text(dataset.attrs.pop(MANIFEST_ATTRIBUTE), f"{path}: {MANIFEST_ATTRIBUTE}")
        return with_provenance(Recording.from_dataset(dataset, document | dict(fields)), path, recipe, libraries)
    return take(_from_dataset(dataset, str(path)), recipe, fields, name=name_of(path), path=path, libraries=libraries)


def _is_recording(dataset: xr.Dataset) -> bool:
    return dims.ACTIVITY in dataset.variables and set(dataset[dims.ACTIVITY].dims) == {dims.SAMPLE, dims.UNIT}


def _read_npz(path: Path) -> Arrays:
    arrays = load_npz(path)
    document = {}
    if "manifest" in arrays:
        document = manifest_text(arrays.pop("manifest"), f"{path}: manifest")
    unusable = {name: reason for name, values in arrays.items() if (reason := why_unusable(values))}
    kept = {name: tidy(values) for name, values in arrays.items() if name not in unusable}
    return Arrays(kept, str(path), unusable=unusable, document=document)


def _open_netcdf(path: Path) -> xr.Dataset:
    refuse_outside(path)
    try:
        with path.open("rb") as file:
            classic = file.read(3) == b"CDF"
        if not classic:
            check_hdf5(path)
        return whole(xr.load_dataset(path, engine="scipy" if classic else "h5netcdf"))
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a NetCDF file", error) from error


def _open_zarr(path: Path) -> xr.Dataset:
    refuse_outside(path)
    try:
        return whole(open_zarr(path))
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign folder makes these libraries raise
        raise unreadable(path, "a zarr folder", error) from error


def _from_dataset(dataset: xr.Dataset, where: str) -> Arrays:
    """A dataset's variables with the names of their axes; codes with CF flags as their labels."""
    document = {}
    if MANIFEST_ATTRIBUTE in dataset.attrs:
        document = manifest_text(dataset.attrs[MANIFEST_ATTRIBUTE], f"{where}: {MANIFEST_ATTRIBUTE}")
    arrays: dict[str, NDArray[Any]] = {}
    unusable: dict[str, str] = {}
    units: dict[str, str] = {}
    for key, variable in dataset.variables.items():
        values = variable.values
        meanings = str(variable.attrs.get("flag_meanings", "")).split()
        codes = np.atleast_1d(variable.attrs.get("flag_values", []))
        if meanings and len(meanings) == len(codes) and values.dtype.kind in "iu" and np.isin(values, codes).all():
            order = np.argsort(codes)
            values = np.array(meanings)[order][np.searchsorted(codes[order], values)]
        if isinstance(variable.attrs.get("units"), str):
            units[str(key)] = variable.attrs["units"]
        if values.dtype.kind == "m":
            # xarray reads "seconds" as spans of time
            values, units[str(key)] = values / np.timedelta64(1, "s"), "s"
        reason = why_unusable(values)
        if reason:
            unusable[str(key)] = reason
        else:
            arrays[str(key)] = tidy(values)
    named = {str(key): tuple(map(str, variable.dims)) for key, variable in dataset.variables.items()}
    return Arrays(arrays, where, dims=named, unusable=unusable, document=document, units=units)


def _contents_npz(path: Path) -> list[tuple[str, str]]:
    return _read_npz(path).contents()


def _contents_mat(path: Path) -> list[tuple[str, str]]:
    return read_mat(path).contents()


def _contents_netcdf(path: Path) -> list[tuple[str, str]]:
    return _from_dataset(_open_netcdf(path), str(path)).contents()


def _contents_zarr(path: Path) -> list[tuple[str, str]]:
    return _from_dataset(_open_zarr(path), str(path)).contents()


# ------------------------------------------------------------------------------------------------------- xarray's objects


def from_xarray(
    array: xr.DataArray | xr.Dataset, recipe: ArraysRecipe | Mapping[str, Any] | None = None, **fields: Any
) -> Recording:
    """A recording from xarray's objects.

    Parameters
    ----------
    array : DataArray or Dataset
        Activity, or a dataset that holds it (``recipe.activity``, by default ``activity``). Dimensions are called trial, step
        (or time) and unit, or sample and unit, in any order; otherwise the recipe's ``axes`` say what they are. Variables
        come from coordinates on trial, on trial and step, or on sample. Coordinates on unit are metadata of the units. Steps
        at the end of a trial that are NaN in every unit are padding.
    recipe : ArraysRecipe or mapping, optional
    **fields
        Fields of the manifest; ``name`` is the array's own by default.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound, InvalidInput, InvalidDocument
        As `neuromas.recordings.convert.converter.convert`.

    Examples
    --------
    >>> rates = xr.DataArray(
    ...     np.zeros((2, 3, 1)), dims=("trial", "time", "unit"), coords={"side": ("trial", ["left", "right"])}, name="toy"
    ... )
    >>> from_xarray(rates, {"start_s": 0, "step_s": 0.1, "variables": {"side": "side", "late": "time > 0.1"}})
    <Recording 'toy' (sample: 6, unit: 1)> float64, 2 trials, access 'read'
    Variables:
        side     categorical: left, right
        late     categorical: false, true
    """
    recipe = recipe if isinstance(recipe, ArraysRecipe) else ArraysRecipe.parse(dict(recipe or {}), "recipe")
    if isinstance(array, xr.Dataset):
        dataset, name = array, "recording"
        if recipe == ArraysRecipe() and _is_recording(dataset):
            check_fields(fields)
            return Recording.from_dataset(
                dataset, {"name": name} if MANIFEST_ATTRIBUTE not in dataset.attrs else {}, **fields
            )
    else:
        key = recipe.activity or dims.ACTIVITY
        dataset = array.rename(key).to_dataset()
        dataset.attrs = dict(array.attrs)
        name = name_of(Path(str(array.name or "recording")), ("",))
    return take(_from_dataset(dataset, f"xarray {name!r}"), recipe, fields, name=name, libraries=("xarray",))


def to_xarray(recording: Recording) -> xr.DataArray:
    """Activity as an xarray object of dimensions (trial, step, unit).

    Returns
    -------
    DataArray
        It has every coordinate of the recording, categorical variables as their labels. A coordinate that is constant in each
        trial is per trial, others are per (trial, step). ``time`` is the centre of a step in seconds, if the recording's
        sampling gives it. If trials differ in length, missing steps hold NaN, empty text or false, and ``present`` says
        which steps exist. The manifest is an attribute, so `from_xarray` gives the same recording back.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((2, 3, 1)), {"side": ["left", "right"]}, name="toy", lengths=[2, 3])
    >>> array = to_xarray(recording)
    >>> array.sizes, array.side.values.tolist(), array.isnull().sum().item()
    (Frozen({'trial': 2, 'step': 3, 'unit': 1}), ['left', 'right'], 1)
    >>> from_xarray(array)
    <Recording 'toy' (sample: 5, unit: 1)> float64, 2 trials, access 'read'
    Variables:
        side     categorical: left, right
    """
    dataset, manifest = recording.dataset, recording.manifest
    trials, row = np.unique(dataset[dims.TRIAL].values, return_inverse=True)
    steps, column = np.unique(dataset[dims.STEP].values, return_inverse=True)
    present = np.zeros((len(trials), len(steps)), dtype=bool)
    present[row, column] = True
    activity = np.full((*present.shape, recording.n_units), np.nan, dtype=dataset[dims.ACTIVITY].dtype)
    activity[row, column] = dataset[dims.ACTIVITY].values
    coordinates: dict[str, Any] = {
        dims.TRIAL: (dims.TRIAL, trials),
        dims.STEP: (dims.STEP, steps),
    }
    sampling = manifest.sampling
    if sampling.start_s is not None and sampling.step_s is not None:
        centres = sampling.start_s + sampling.step_s * (steps + 0.5)
        coordinates["time"] = (dims.STEP, centres, {"units": "s"})
    if not present.all():
        coordinates[_PRESENT] = ((dims.TRIAL, dims.STEP), present)
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if coordinate.dims == (dims.UNIT,):
            coordinates[name] = (dims.UNIT, coordinate.values, coordinate.attrs)
        elif name not in (dims.TRIAL, dims.STEP, dims.SAMPLE):
            values = np.asarray(readable(recording, name))
            values = values.astype(str) if values.dtype.kind == "O" else values
            of_trial = per_trial(values, row, len(trials))
            if (
                name == TIME
                and values.dtype.kind in "iuf"
                and (of_step := per_trial(values, column, len(steps))) is not None
            ):
                coordinates[name] = (dims.STEP, of_step)
            elif of_trial is not None:
                coordinates[name] = (dims.TRIAL, of_trial)
            else:
                filled = _absent(values, present)
                filled[row, column] = values
                coordinates[name] = ((dims.TRIAL, dims.STEP), filled)
    attributes = labelled(dataset, manifest).attrs | {"units": manifest.units}
    return xr.DataArray(activity, coordinates, (dims.TRIAL, dims.STEP, dims.UNIT), name=manifest.name, attrs=attributes)


def per_trial(values: NDArray[Any], row: NDArray[np.int64], n_trials: int) -> NDArray[Any] | None:
    """The value of each trial, shape (n_trials,), from the values of its samples; None if a trial has several values.

    Examples
    --------
    >>> per_trial(np.array([5, 5, 7]), np.array([0, 0, 1]), 2)
    array([5, 7])
    """
    first = np.zeros(n_trials, dtype=np.int64)
    first[row[::-1]] = np.arange(len(row))[::-1]
    of_trial = values[first]
    same = values == of_trial[row]
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(of_trial[row])
    return of_trial if bool(np.all(same)) else None


def _absent(values: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """An array of the shape of `present` that can hold `values`, filled with the value of missing steps."""
    if values.dtype.kind in "iu" and not present.all():
        return np.full(present.shape, np.nan)
    return np.full(
        present.shape, np.nan if values.dtype.kind == "f" else 0 if values.dtype.kind in "biu" else "", values.dtype
    )


CONVERTERS: tuple[Converter, ...] = (
    Converter("npz", (".npz",), ArraysRecipe, convert_npz, _contents_npz),
    Converter("mat", (".mat",), ArraysRecipe, convert_mat, _contents_mat),
    Converter("netcdf", (".nc",), ArraysRecipe, convert_netcdf, _contents_netcdf),
    Converter("zarr", (".zarr",), ArraysRecipe, convert_zarr, _contents_zarr),
)
