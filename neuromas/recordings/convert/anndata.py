"""From and to AnnData's objects and ``.h5ad`` files: samples are obs, units are var."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import entry, name_of, needed, unreadable
from neuromas.recordings.convert.take import take
from neuromas.recordings.encode import MANIFEST_ATTRIBUTE, UNIT_PREFIX, manifest_text
from neuromas.recordings.export import readable
from neuromas.recordings.meanings import meanings_by_code
from neuromas.recordings.outside import refuse_outside
from neuromas.recordings.recording import Recording
from neuromas.recordings.unpacked import check_hdf5
from neuromas.schema.recipe import ArraysRecipe

_EXTRA = "anndata"


def from_anndata(adata: Any, recipe: ArraysRecipe | Mapping[str, Any] | None = None, **fields: Any) -> Recording:
    """A recording from an AnnData object.

    Parameters
    ----------
    adata : anndata.AnnData
        Samples are obs, units are var. Sparse activity is written out in full, if it then needs at most 8 GiB.
    recipe : ArraysRecipe or mapping, optional
        ``activity`` names a layer or an entry of obsm; the default is X. ``trial`` and ``step`` name columns of obs. Variables
        are expressions of columns of obs. Without variables in the recipe, they are those of the manifest that `to_anndata`
        stored in uns, or else all columns of obs.
    **fields
        Fields of the manifest. They override those in uns.

    Returns
    -------
    Recording

    Raises
    ------
    NotFound
        No layer, entry or column has that name; the message lists the existing ones.
    InvalidInput
        Sparse activity is too large to be written out in full.
    InvalidDocument
        The content is invalid; lists every problem.

    Examples
    --------
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"side": ["left", "right"]}, index=["a", "b"])
    >>> from_anndata(AnnData(np.zeros((2, 3), dtype=np.float32), obs=obs), name="toy")
    <Recording 'toy' (sample: 2, unit: 3)> float32, 2 trials, access 'read'
    Variables:
        side     categorical: left, right
    """
    recipe = recipe if isinstance(recipe, ArraysRecipe) else ArraysRecipe.parse(dict(recipe or {}), "recipe")
    return _take(_arrays(adata, recipe, "AnnData"), recipe, fields, "anndata", None)


def _arrays(adata: Any, recipe: ArraysRecipe, where: str) -> Arrays:
    if adata.isbacked:
        adata = adata.to_memory()
    activity, units = _activity(adata, recipe.activity, where)
    if issparse(activity):
        size = activity.shape[0] * activity.shape[1] * activity.dtype.itemsize
        if size > named_arrays.LARGEST_DENSE_BYTES:
            raise InvalidInput(
                f"{where}: sparse activity of shape {activity.shape} would take {size / 2**30:.1f} GiB when written out in "
                f"full, expected at most {named_arrays.LARGEST_DENSE_BYTES / 2**30:g}; select fewer units or samples",
                kind="too_large",
            )
        activity = activity.toarray()
    arrays: dict[str, NDArray[Any]] = {dims.ACTIVITY: np.asarray(activity), dims.UNIT: units}
    named: dict[str, tuple[str, ...]] = {dims.ACTIVITY: (dims.SAMPLE, dims.UNIT), dims.UNIT: (dims.UNIT,)}
    unusable: dict[str, str] = {}
    for name, values in _columns(adata.obs).items():
        if name in (dims.ACTIVITY, dims.UNIT) or values.dtype.kind not in "biufU":
            unusable[name] = f"a column of obs of {values.dtype}, or with the name of the activity or the units"
        else:
            arrays[name], named[name] = values, (dims.SAMPLE,)
    for name, values in adata.obsm.items():
        if issparse(values):
            continue
        matrix = np.asarray(values)
        if name != recipe.activity and name not in arrays and matrix.ndim == 2 and matrix.dtype.kind in "biuf":
            arrays[name], named[name] = matrix, (dims.SAMPLE, f"{name}_column")
    if units is not None and recipe.activity not in adata.obsm:
        for name, values in _columns(adata.var).items():
            if values.dtype.kind in "biufU":
                arrays[UNIT_PREFIX + name], named[UNIT_PREFIX + name] = values, (dims.UNIT,)
    document = {}
    if MANIFEST_ATTRIBUTE in adata.uns:
        document = manifest_text(adata.uns[MANIFEST_ATTRIBUTE], f"{where}: uns[{MANIFEST_ATTRIBUTE!r}]")
    return Arrays(arrays, where, dims=named, unusable=unusable, document=document)


def _activity(adata: Any, name: str | None, where: str) -> tuple[Any, NDArray[Any]]:
    """Activity of shape (n_samples, n_units), perhaps sparse, and names of its units."""
    units = np.array([str(name) for name in adata.var_names], dtype=str)
    if name is None or name == "X":
        if adata.X is None:
            raise NotFound(f"{where}: X is missing; layers are {listing(list(adata.layers))}", kind="unknown_array")
        return adata.X, units
    if name in adata.layers:
        return adata.layers[name], units
    if name in adata.obsm:
        values = adata.obsm[name]
        names = values.columns if isinstance(values, pd.DataFrame) else range(values.shape[1])
        columns = [label if isinstance(label, str) else f"{name}_{label}" for label in names]
        return values.to_numpy() if isinstance(values, pd.DataFrame) else values, np.array(columns, dtype=str)
    raise NotFound(
        f"{where}: no activity {name!r}; there are X, layers {listing(list(adata.layers)) or 'none'} and obsm "
        f"{listing(list(adata.obsm)) or 'none'}",
        kind="unknown_array",
    )


def _columns(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Columns as numbers, booleans or text; categories as their labels."""
    columns = {}
    for name in table.columns:
        values = table[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(object)
        columns[str(name)] = tidy(values.to_numpy(dtype=object) if values.dtype.kind == "O" else values.to_numpy())
    return columns


def to_anndata(recording: Recording) -> Any:
    """An AnnData object with everything that `recording` holds.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    anndata.AnnData
        X is the activity, NaN where a unit was not recorded. Columns of obs are trial, step, variables and other coordinates
        of samples; categorical variables are labels in their order. Columns of var are metadata of the units. The manifest is
        JSON text in uns, so `from_anndata` gives the same recording back.

    Raises
    ------
    InvalidInput
        anndata is not installed.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((2, 3)), {"side": ["left", "right"]}, name="toy")
    >>> adata = to_anndata(recording)
    >>> adata.obs["side"].cat.categories.tolist(), adata.var_names.tolist()
    (['left', 'right'], ['u0', 'u1', 'u2'])
    >>> from_anndata(adata).manifest == recording.manifest
    True
    """
    AnnData = needed("anndata", _EXTRA).AnnData
    dataset, manifest = recording.dataset, recording.manifest
    obs: dict[str, Any] = {}
    for key, coordinate in dataset.coords.items():
        name = str(key)
        if coordinate.dims != (dims.SAMPLE,) or name == dims.SAMPLE:
            continue
        values = readable(recording, name)
        meanings = meanings_by_code(manifest, name)
        obs[name] = _column(values, None if meanings is None else list(meanings.values()))
    index = [
        f"{trial}/{step}" for trial, step in zip(dataset[dims.TRIAL].values, dataset[dims.STEP].values, strict=True)
    ]
    var = {
        str(key): _column(coordinate.values, None)
        for key, coordinate in dataset.coords.items()
        if coordinate.dims == (dims.UNIT,) and key != dims.UNIT
    }
    document = manifest.model_copy(update={"set": None, "content_sha256": None, "files": {}})
    return AnnData(
        dataset[dims.ACTIVITY].values.copy(),
        obs=pd.DataFrame(obs, index=pd.Index(index, dtype=object)),
        var=pd.DataFrame(var, index=pd.Index(recording.unit_names, dtype=object)),
        uns={MANIFEST_ATTRIBUTE: document.model_dump_json(exclude={"files"})},
    )


def _column(values: NDArray[Any], words: Sequence[str] | None) -> Any:
    """Text as categories, which an ``.h5ad`` file can hold with every version of pandas; other values as they are."""
    if values.dtype.kind not in "UO":
        return values
    words = np.unique(values.astype(str)).tolist() if words is None else words
    return pd.Categorical(values.astype(object), categories=pd.Index(list(words), dtype=object))


def convert_anndata(path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    """From a ``.h5ad`` file."""
    source = _arrays(_read(path), recipe, str(path))
    return _take(source, recipe, fields, name_of(path), path)


def _take(source: Arrays, recipe: ArraysRecipe, fields: Mapping[str, Any], name: str, path: Path | None) -> Recording:
    # the source's activity is the one that the recipe names
    own = recipe.model_copy(update={"activity": None})
    return take(source, own, fields, name=name, path=path, user_recipe=recipe, libraries=(_EXTRA,))


def _read(path: Path) -> Any:
    refuse_outside(path)
    try:
        check_hdf5(path)
        return needed("anndata", _EXTRA).read_h5ad(path)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "an AnnData file", error) from error


def contents_anndata(path: Path) -> list[tuple[str, str]]:
    """X, layers, obsm, and columns of obs and var."""
    adata = _read(path)
    listed = [("X", "none" if adata.X is None else f"{adata.X.shape} {adata.X.dtype}")]
    listed += [(name, f"layer: {values.shape} {values.dtype}") for name, values in adata.layers.items()]
    listed += [(name, f"obsm: {values.shape}") for name, values in adata.obsm.items()]
    listed += [(name, f"obs: {entry(values)}") for name, values in _columns(adata.obs).items()]
    return listed + [(name, f"var: {entry(values)}") for name, values in _columns(adata.var).items()]


CONVERTERS: tuple[Converter, ...] = (
    Converter("anndata", (".h5ad",), ArraysRecipe, convert_anndata, contents_anndata, ("anndata",), _EXTRA),
)
