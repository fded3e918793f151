"""What an HDF5 file or a zarr folder would unpack to, found before its numbers are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from neuromas.errors import InvalidInput
from neuromas.recordings.trust import trust
from neuromas.recordings.zarr_chunks import Packing, check_chunks, packing_of
from neuromas.unpacking import check_unpacked, inflated_size, most_bytes, stored_bytes, too_large

_DEEPEST = 100
_FREE_VISITS = 10_000
_VISITS_PER_OBJECT = 20
_SMALL_CHUNK = 2**20
_FREE_CHUNKS = 200_000
_CHUNKS_PER_FILE = 20


def check_hdf5(path: Path, sliced: str = "", *, once: bool = False) -> None:
    """InvalidInput if reading every dataset, by every link that leads to it, would take too much.

    Numbers in other files do not count here, nor do datasets called `sliced`, of which only slices are read. `once` is for a
    reader that reads each object once, whatever the number of links: links may then lead round in circles.

    Raises
    ------
    InvalidInput
        Datasets unpack to too much, or links lead round in circles.
    OSError, RuntimeError, KeyError, ValueError
        h5py's, if the file is damaged.
    """
    import h5py

    stored = stored_bytes(path)
    with h5py.File(path, "r") as file:
        size, n_visits, seen = 0, 0, set()
        waiting: list[tuple[Any, int]] = [(file, 0)]
        while waiting:
            group, depth = waiting.pop()
            for item in _members(group):
                n_visits += 1
                address = h5py.h5o.get_info(item.id).addr
                if once and address in seen:
                    continue
                if isinstance(item, h5py.Group):
                    waiting.append((item, depth + 1))
                elif isinstance(item, h5py.Dataset) and item.size and item.external is None and not item.is_virtual:
                    size += 0 if sliced and item.name.endswith(f"/{sliced}") else item.size * item.dtype.itemsize
                    check_unpacked(size, stored, path)
                    if address not in seen:
                        _check_chunks(item, path)
                seen.add(address)
            if depth > _DEEPEST or n_visits > _FREE_VISITS + _VISITS_PER_OBJECT * len(seen):
                raise InvalidInput(
                    f"{path}: links lead to the same groups again and again, e.g. at {group.name!r}; expected a file whose "
                    "links lead round in no circle",
                    kind="unreadable_source",
                )


def _members(group: Any) -> list[Any]:
    """What a group holds in this file; not what links to other files, or to nothing, lead to."""
    import h5py

    members = []
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            continue
        try:
            item = group[name]
        # a soft link to nothing, to itself, or to another file's external link
        except (KeyError, OSError, RuntimeError):
            continue
        if item.file == group.file and isinstance(item, (h5py.Group, h5py.Dataset)):
            members.append(item)
    return members


def _check_chunks(dataset: Any, path: Path) -> None:
    """InvalidInput if a chunk holds far more than its shape says: HDF5 unpacks whatever lies there.

    Chunks of less than 1 MiB cannot hold much, and are not looked at.
    """
    if dataset.chunks is None or dataset.compression != "gzip":
        return
    declared = dataset.dtype.itemsize * math.prod(dataset.chunks)
    large: list[Any] = []
    dataset.id.chunk_iter(lambda chunk: large.append(chunk) if chunk.size > _SMALL_CHUNK else None)
    for chunk in large:
        _, data = dataset.id.read_direct_chunk(chunk.chunk_offset)
        most = max(most_bytes(chunk.size), declared)
        if inflated_size(data, most) > most:
            raise too_large(most, chunk.size, f"{path}: a chunk of {dataset.name}", cut=True)


class Grid(NamedTuple):
    """An array of a zarr folder: its name, shape, chunks, and bytes of an entry."""

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int


def check_zarr(path: Path) -> None:
    """InvalidInput if reading every array of the group at `path` would take too much; other errors are zarr's."""
    import zarr

    arrays = dict(zarr.open_group(path, mode="r").arrays())
    check_grids(
        (Grid(name, array.shape, array.shards or array.chunks, array.dtype.itemsize) for name, array in arrays.items()),
        path,
    )
    check_packed({path / name: packing_of(array) for name, array in arrays.items()}, path)


def check_packed(packings: Mapping[Path, Packing], path: Path) -> None:
    """InvalidInput if chunks of arrays in the folder `path` hold far more than their shapes say, or all text too much."""
    size = 0
    for folder, packing in packings.items():
        unpacked = check_chunks(folder, packing, path)
        if packing.itemsize is None:
            size += unpacked
            check_unpacked(size, stored_bytes(path), path)


def folders_in(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder in `path` with the names of its files; links to folders only where other files may be read.

    Raises
    ------
    InvalidInput
        A link to a folder, which is not allowed, or leads to what holds it.
    """
    allowed = trust().allow_external
    for folder, below, files in os.walk(path, followlinks=allowed):
        linked = [Path(folder, name) for name in below if Path(folder, name).is_symlink()]
        leading_back = [link for link in linked if Path(folder).resolve().is_relative_to(link.resolve())]
        if linked and not allowed:
            raise InvalidInput(
                f"{path}: {linked[0]} is a link to a folder; it is read only if you allow it: allow_external=True "
                "(--allow-external)",
                kind="external_files",
            )
        if leading_back:
            raise InvalidInput(f"{path}: {leading_back[0]} is a link to what holds it", kind="unreadable_source")
        yield folder, files


def check_grids(grids: Iterable[Grid], path: Path) -> None:
    """InvalidInput if arrays of the folder `path` would unpack to too much, or have far more chunks than there are files."""
    n_files, stored = 0, 0
    for folder, files in folders_in(path):
        n_files += len(files)
        stored += sum(Path(folder, name).stat().st_size for name in files if Path(folder, name).is_file())
    size = 0
    for grid in grids:
        if len(grid.shape) != len(grid.chunks) or min((*grid.shape, 0)) < 0 or min((*grid.chunks, 1)) < 1:
            raise InvalidInput(
                f"{path}: array {grid.name!r} of shape {grid.shape} has chunks of shape {grid.chunks}",
                kind="unreadable_source",
            )
        size += math.prod(grid.shape) * max(grid.itemsize, 1)
        check_unpacked(size, stored, path)
        n_chunks = math.prod(math.ceil(length / chunk) for length, chunk in zip(grid.shape, grid.chunks, strict=True))
        if n_chunks > _FREE_CHUNKS + _CHUNKS_PER_FILE * n_files:
            raise InvalidInput(
                f"{path}: array {grid.name!r} of shape {grid.shape} has {n_chunks:,} chunks, but there are {n_files:,} files; "
                "save it with larger chunks",
                kind="too_large",
            )
