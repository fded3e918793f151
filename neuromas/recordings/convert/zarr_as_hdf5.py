"""NWB folders that hdmf-zarr wrote, as an HDF5 file in memory.

hdmf-zarr itself needs zarr 2 and cannot be imported beside zarr 3. Its layout is plain: groups, arrays and attributes as in
HDF5, links listed in an attribute, references as a path. Large arrays are not copied. An empty dataset stands for each of them,
and their numbers are read from the folder.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numcodecs import get_codec
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.pickled_array import read_pickled_array
from neuromas.recordings.unpacked import Grid, check_grids, check_packed, folders_in
from neuromas.recordings.zarr_chunks import Packing, packing_of_v2

_LARGEST = 2**22
"""Size in bytes up to which an array is copied."""

_HOLLOWED = ("data", "timestamps", "waveforms")
"""Arrays that may be larger. The first two are read through `Hollow`, the others not at all."""

_OWN_ATTRIBUTES = ("zarr_dtype", "zarr_link", "_ARRAY_DIMENSIONS", ".specloc")


class Hollow:
    """A large array of a zarr folder; slices are read on demand.

    Parameters
    ----------
    path : Path
        Folder of the array.
    """

    def __init__(self, path: Path) -> None:
        self._array: Any = zarr.open_array(path, mode="r", zarr_format=2)
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self._array[key])


def identity(dataset: Any) -> int:
    """A number that identifies a dataset in its file, by whichever link it was reached."""
    return int(h5py.h5o.get_info(dataset.id).addr)


def zarr_as_hdf5(path: Path) -> tuple[Any, dict[int, Hollow]]:
    """The NWB folder at `path` as an HDF5 file in memory.

    Parameters
    ----------
    path : Path

    Returns
    -------
    file : h5py.File
        The caller closes it.
    hollow : dict of int to Hollow
        Large arrays, by the `identity` of the empty dataset that stands for each.

    Raises
    ------
    InvalidInput
        The folder is not a zarr group of version 2, or refers to other files.
    """
    if not (path / ".zgroup").is_file():
        raise InvalidInput(
            f"{path}: cannot be read as an NWB file: a folder must be a zarr group of version 2, as hdmf-zarr writes it",
            kind="unreadable_source",
        )
    check_grids((grid for grid, _ in _arrays(path)), path)
    check_packed({path / grid.name: packing for grid, packing in _arrays(path)}, path)
    file = h5py.File(f"{path.name}.h5", "w", driver="core", backing_store=False, libver="latest")
    hollow: dict[int, Hollow] = {}
    # references, which can be made only when their targets exist
    later: list[Callable[[], None]] = []
    try:
        _copy_group(path, path, file, hollow, later)
        for make in later:
            make()
    except BaseException:
        file.close()
        raise
    return file, hollow


def _arrays(path: Path) -> Iterator[tuple[Grid, Packing]]:
    """Every array of a folder, and how its chunks are packed."""
    for folder in sorted(Path(folder) for folder, files in folders_in(path) if ".zarray" in files):
        layout, name = _json(folder / ".zarray"), folder.relative_to(path).as_posix()
        dtype, chunks = _dtype(layout), tuple(layout["chunks"])
        compressor = [layout["compressor"]] if layout.get("compressor") else []
        packing = packing_of_v2(
            chunks, None if dtype.hasobject else dtype.itemsize, compressor, layout.get("filters") or ()
        )
        yield Grid(name, tuple(layout["shape"]), chunks, dtype.itemsize), packing


def _dtype(layout: Mapping[str, Any]) -> np.dtype[Any]:
    dtype = layout["dtype"]
    return np.dtype(dtype if isinstance(dtype, str) else [tuple(part) for part in dtype])


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _copy_group(
    root: Path, folder: Path, group: Any, hollow: dict[int, Hollow], later: list[Callable[[], None]]
) -> None:
    attributes = _json(folder / ".zattrs")
    _copy_attributes(root, attributes, group, later)
    if ".specloc" in attributes:
        location = str(attributes[".specloc"])
        if (root / location / ".zgroup").is_file():
            later.append(lambda: group.attrs.__setitem__(".specloc", group[location].ref))
    for link in attributes.get("zarr_link", ()):
        _check_inside(root, link)
        group[link["name"]] = h5py.SoftLink(link["path"])
    for below in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        if (below / ".zarray").is_file():
            _copy_array(root, below, group, hollow, later)
        elif (below / ".zgroup").is_file():
            _copy_group(root, below, group.create_group(below.name), hollow, later)


def _check_inside(root: Path, reference: Mapping[str, Any]) -> None:
    source = str(reference.get("source", "."))
    if source != "." and (root / source).resolve() != root.resolve():
        raise InvalidInput(
            f"{root}: refers to {reference.get('path')!r} in another file, {source!r}; expected a folder that is complete in "
            "itself",
            kind="unreadable_source",
        )


def _target(root: Path, file: Any, reference: Any) -> Any:
    _check_inside(root, reference)
    return file[str(reference["path"])].ref


def _copy_attributes(root: Path, attributes: Mapping[str, Any], item: Any, later: list[Callable[[], None]]) -> None:
    for name, value in attributes.items():
        if name in _OWN_ATTRIBUTES or value is None:
            continue
        if isinstance(value, Mapping):
            if value.get("zarr_dtype") == "object" and isinstance(value.get("value"), Mapping):

                def refer(name: str = name, reference: Mapping[str, Any] = value["value"]) -> None:
                    item.attrs[name] = _target(root, item.file, reference)

                later.append(refer)
            continue
        item.attrs[name] = value


def _copy_array(
    root: Path, folder: Path, group: Any, hollow: dict[int, Hollow], later: list[Callable[[], None]]
) -> None:
    attributes = _json(folder / ".zattrs")
    layout = _json(folder / ".zarray")
    kind, shape = attributes.get("zarr_dtype"), tuple(layout["shape"])
    plain = isinstance(layout["dtype"], str) and np.dtype(layout["dtype"]).kind in "biuf"
    seldom = folder.name in _HOLLOWED or len(shape) > 2
    if plain and seldom and math.prod(shape) * np.dtype(layout["dtype"]).itemsize > _LARGEST:
        # chunks that nobody writes take no room
        dataset = group.create_dataset(folder.name, shape=shape, dtype=layout["dtype"], chunks=True)
        hollow[identity(dataset)] = Hollow(folder)
        _copy_attributes(root, attributes, dataset, later)
        return
    values = _read_array(folder, layout)
    if kind == "scalar":
        value = values.reshape(-1)[0]
        if isinstance(value, Mapping):
            dataset = group.create_dataset(folder.name, shape=(), dtype=h5py.ref_dtype)
            later.append(lambda: dataset.__setitem__((), _target(root, group.file, value)))
        else:
            dataset = group.create_dataset(folder.name, data=_decoded(value))
    elif isinstance(kind, list):
        dataset = _copy_compound(root, folder.name, kind, values, group, later)
    elif values.dtype.kind == "O" and values.size and isinstance(values.flat[0], Mapping):
        dataset = group.create_dataset(folder.name, shape=shape, dtype=h5py.ref_dtype)

        def refer() -> None:
            for at in np.ndindex(shape):
                dataset[at] = _target(root, group.file, values[at])

        later.append(refer)
    elif values.dtype.kind in "OUS":
        texts = np.array([_decoded(value) for value in values.ravel()], dtype=object).reshape(shape)
        dataset = group.create_dataset(folder.name, data=texts, shape=shape, dtype=h5py.string_dtype())
    elif values.dtype.hasobject:
        raise InvalidInput(
            f"{root}: {folder.relative_to(root)} holds objects and does not say of which kind; the folder was probably not "
            "written to its end",
            kind="unreadable_source",
        )
    else:
        dataset = group.create_dataset(folder.name, data=values)
    _copy_attributes(root, attributes, dataset, later)


def _copy_compound(
    root: Path,
    name: str,
    parts: list[Mapping[str, Any]],
    values: NDArray[Any],
    group: Any,
    later: list[Callable[[], None]],
) -> Any:
    """Rows of several fields, one of which may be a reference."""
    if values.dtype.names is not None and not values.dtype.hasobject:
        return group.create_dataset(name, data=values)
    kinds = {"object": h5py.ref_dtype, "utf8": h5py.string_dtype(), "ascii": h5py.string_dtype()}
    kinds |= {"str": h5py.string_dtype(), "bytes": h5py.string_dtype(), "text": h5py.string_dtype()}
    dtype = np.dtype([(str(part["name"]), kinds.get(str(part["dtype"]), str(part["dtype"]))) for part in parts])
    rows = values.tolist()
    dataset = group.create_dataset(name, shape=(len(rows),), dtype=dtype)

    def fill() -> None:
        made = np.empty(len(rows), dtype=dtype)
        for at, row in enumerate(rows):
            made[at] = tuple(_target(root, group.file, cell) if isinstance(cell, Mapping) else cell for cell in row)
        if len(rows):
            dataset[...] = made

    later.append(fill)
    return dataset


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read_array(folder: Path, layout: Mapping[str, Any]) -> NDArray[Any]:
    """The whole of an array of zarr version 2."""
    shape, chunks = tuple(layout["shape"]), tuple(layout["chunks"])
    dtype = _dtype(layout)
    compressor = get_codec(layout["compressor"]) if layout.get("compressor") else None
    filters = list(layout.get("filters") or ())
    fill = layout.get("fill_value")
    values = np.empty(shape, dtype=dtype)
    if dtype.kind == "O" or (fill is not None and dtype.kind in "biuf"):
        values[...] = fill
    elif dtype.kind in "biufSUV":
        values[...] = np.zeros((), dtype=dtype)
    separator = layout.get("dimension_separator", ".")
    if separator not in (".", "/"):
        # it is part of a path
        raise InvalidInput(
            f"{folder}: expected '.' or '/' between the numbers of a chunk, got {separator!r}", kind="unreadable_source"
        )
    for at in itertools.product(*(range(math.ceil(size / chunk)) for size, chunk in zip(shape, chunks, strict=True))):
        file = folder / (separator.join(map(str, at)) or "0")
        if not file.is_file():
            continue
        data: Any = file.read_bytes()
        data = data if compressor is None else compressor.decode(data)
        for codec in reversed(filters):
            pickled = codec["id"] == "pickle"
            data = read_pickled_array(bytes(data)) if pickled else get_codec(dict(codec)).decode(data)
        if dtype.names is not None and dtype.hasobject:
            data = data.ravel().tolist()  # rows, as tuples
        part = np.asarray(data, dtype=dtype) if dtype.hasobject else np.frombuffer(data, dtype=dtype)
        part = part.reshape(chunks, order=layout.get("order", "C"))
        where = tuple(slice(n * chunk, (n + 1) * chunk) for n, chunk in zip(at, chunks, strict=True))
        values[where] = part[tuple(slice(0, size) for size in values[where].shape)]
    return values
