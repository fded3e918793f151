"""Codes → what they mean: categorical variables and tokens as text, for everything that a person or a file gets.

Inside neuromas, and in a store, categorical variables are small integer codes. Everything that leaves (a query's result,
`Recording.to_dataset`, every file that is exported) holds their meanings. `neuromas.recordings.encode` goes the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from neuromas import dims
from neuromas.schema.recording import RecordingManifest


def meanings_by_code(manifest: RecordingManifest, name: str) -> dict[int, str] | None:
    """What each code of the coordinate `name` means; None if the coordinate holds no codes.

    Examples
    --------
    >>> side = {"name": "side", "type": "categorical", "values": [3, 5], "meanings": ["left", "right"]}
    >>> manifest = RecordingManifest(name="toy", system="toy", variables=(side,))
    >>> meanings_by_code(manifest, "side"), meanings_by_code(manifest, "trial")
    ({3: 'left', 5: 'right'}, None)
    """
    for spec in manifest.variables:
        if spec.name == name:
            coded = spec.values is not None and spec.meanings is not None
            return dict(zip(map(int, spec.values or ()), spec.meanings or (), strict=True)) if coded else None
    if name == dims.TOKEN or name == manifest.behaviour:
        return None if manifest.vocabulary is None else dict(enumerate(manifest.vocabulary))
    return None


def decode(codes: NDArray[Any], meanings: Mapping[int, str]) -> NDArray[np.str_]:
    """The meaning of each code, text in the shape of `codes`.

    Examples
    --------
    >>> decode(np.array([5, 3, 3]), {3: "left", 5: "right"})
    array(['right', 'left', 'left'], dtype='<U5')
    """
    known = np.array(sorted(meanings))
    text = np.array([meanings[code] for code in sorted(meanings)], dtype=np.str_)
    return np.asarray(text[np.searchsorted(known, codes)])


def readable(manifest: RecordingManifest, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Stored values of the coordinate `name` as people read them: codes as meanings, everything else as it is."""
    meanings = meanings_by_code(manifest, name)
    return values if meanings is None else decode(values, meanings)


def with_meanings(dataset: xr.Dataset, manifest: RecordingManifest) -> xr.Dataset:
    """`dataset` with the meanings of its categorical coordinates and tokens instead of their codes.

    Coordinates that are not in memory stay on disk, and are decoded when they are read.
    """
    coordinates = {}
    for key, coordinate in dataset.coords.items():
        meanings = meanings_by_code(manifest, str(key))
        if meanings is not None:
            coordinates[key] = _decoded(coordinate.variable, meanings)
    # `assign_coords` would move them to the end
    order = [coordinates.get(key, coordinate.variable) for key, coordinate in dataset.coords.items()]
    return dataset.drop_vars(list(dataset.coords)).assign_coords(dict(zip(dataset.coords, order, strict=True)))


def _decoded(variable: xr.Variable, meanings: Mapping[int, str]) -> xr.Variable:
    attributes = {key: value for key, value in variable.attrs.items() if key not in ("flag_values", "flag_meanings")}
    if variable._in_memory:
        return xr.Variable(variable.dims, decode(variable.values, meanings), attributes)
    lazy = indexing.MemoryCachedArray(indexing.LazilyIndexedArray(_DecodedArray(variable, meanings)))
    return xr.Variable(variable.dims, lazy, attributes)


class _DecodedArray(BackendArray):
    """Codes on disk that read as their meanings."""

    def __init__(self, codes: xr.Variable, meanings: Mapping[int, str]) -> None:
        self._codes, self._meanings = codes, meanings
        self.shape = codes.shape
        self.dtype = np.array(list(meanings.values()), dtype=np.str_).dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.str_]:
        return decode(self._codes[key].values, self._meanings)
