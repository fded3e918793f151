"""A recording's arrays as a zarr group: written from memory or from a spool, and read back."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.dtype import VariableLengthUTF8
from zarr.storage import LocalStore

from neuromas import dims
from neuromas.errors import Corrupt, InvalidInput
from neuromas.recordings.check import block_bounds
from neuromas.recordings.content import as_bytes, attributes_as_json
from neuromas.recordings.encode import MANIFEST_ATTRIBUTE, labelled
from neuromas.recordings.recording import Recording
from neuromas.recordings.spool import Spool
from neuromas.recordings.store.index import refuse_newer
from neuromas.recordings.store.layout import GROUPS_FILE
from neuromas.recordings.store.published import Published
from neuromas.recordings.zarr_chunks import Packing, check_chunk, packing_of
from neuromas.schema.recording import GroupTable, RecordingManifest

if TYPE_CHECKING:
    from hashlib import _Hash as Digest


SHARD_BYTES = 2**20
"""Most bytes of a shard before compression, unless a single sample is larger. Small files are easy to move and to
version."""

_LARGE_SHARD_BYTES = 64 * 2**20
_SHARDS = 256
"""A large recording has about so many shards, of up to the size above, because opening it looks at every file."""
_CHUNK_SAMPLES = 1024


def write_group(recording: Recording, manifest: RecordingManifest, folder: Path) -> None:
    """Write the zarr group of a recording, each shard once."""
    dataset = recording.dataset
    attributes = {str(key): value for key, value in dataset.attrs.items() if key != MANIFEST_ATTRIBUTE}
    group = zarr.create_group(str(folder), zarr_format=3, attributes=attributes)
    names = [str(name) for name in dataset.coords if name not in (dims.SAMPLE,)]
    unlisted = [name for name in names if name != dims.UNIT]
    n_samples, n_units = recording.n_samples, recording.n_units
    array = _create(group, dims.ACTIVITY, dataset[dims.ACTIVITY].variable, {"coordinates": " ".join(unlisted)})
    for start, block in recording.blocks():
        array[start : start + len(block)] = block
    for name in names:
        variable = dataset[name].variable
        array = _create(group, name, variable, {})
        for start, stop in block_bounds(variable.size, max(1, variable.dtype.itemsize)):
            piece = variable[start:stop].values
            array[start:stop] = piece.astype(object) if piece.dtype.kind == "U" else piece
    if (n_samples, n_units) != tuple(group[dims.ACTIVITY].shape):  # type: ignore[union-attr]
        raise Corrupt(f"recording {manifest.name!r} changed while it was written; nothing was published")
    _consolidate(group)


def _consolidate(group: zarr.Group) -> None:
    with warnings.catch_warnings():
        # zarr warns that the v3 specification has no consolidated metadata yet. Readers that do not know it ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(group.store)


def write_stream(spool: Spool, folder: Path) -> dict[str, Digest]:
    """Write the zarr group of a spool, each shard once; returns a hash of each array's bytes, by the array's name."""
    assert spool.first is not None
    first = spool.first.dataset
    attributes = {str(key): value for key, value in first.attrs.items() if key != MANIFEST_ATTRIBUTE}
    group = zarr.create_group(str(folder), zarr_format=3, attributes=attributes)
    digests: dict[str, Digest] = {}
    arrays: dict[str, _Appended] = {}
    dtypes = spool.dtypes()
    unlisted = [name for name in dtypes if name != dims.ACTIVITY]
    of_units = {str(name): values for name, values in first.coords.items() if values.dims == (dims.UNIT,)}
    unlisted += [name for name in of_units if name != dims.UNIT]
    for name, dtype in dtypes.items():
        variable, extra = first[name].variable, {"coordinates": " ".join(unlisted)} if name == dims.ACTIVITY else {}
        shape = (spool.n_samples, *variable.shape[1:])
        digests[name] = hashlib.sha256()
        text_bytes = dtype.itemsize if dtype.kind == "U" else 0
        arrays[name] = _Appended(_create(group, name, variable, extra, shape, dtype), digests[name], text_bytes)
    for block in spool.blocks(np.random.default_rng(0)):
        for name, values in block.items():
            arrays[name].append(values)
    for array in arrays.values():
        array.flush()
    for name, coordinate in of_units.items():
        values = coordinate.values
        _create(group, name, coordinate.variable, {})[:] = values.astype(object) if values.dtype.kind == "U" else values
        digests[name] = hashlib.sha256(as_bytes(values))
    _consolidate(group)
    return digests


class _Appended:
    """Rows that come in pieces of any length, written to an array shard by shard."""

    def __init__(self, array: zarr.Array[Any], digest: Digest, text_bytes: int = 0) -> None:
        self._array, self._digest = array, digest
        self._at_once = (array.shards or array.chunks)[0]
        if text_bytes:  # the hash of text depends on where its blocks begin
            self._at_once = next(iter(block_bounds(2**62, text_bytes)))[1]
        self._waiting: list[NDArray[Any]] = []
        self._n_waiting = self._n_written = 0

    def append(self, rows: NDArray[Any]) -> None:
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        whole = self._n_waiting - self._n_waiting % self._at_once
        if whole:
            self._write(whole)

    def flush(self) -> None:
        if self._n_waiting:
            self._write(self._n_waiting)

    def _write(self, count: int) -> None:
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        for start in range(0, count, self._at_once):
            piece = rows[start : min(start + self._at_once, count)]
            self._digest.update(as_bytes(piece))
            stop = self._n_written + len(piece)
            self._array[self._n_written : stop] = piece.astype(object) if piece.dtype.kind == "U" else piece
            self._n_written = stop
        self._waiting = [rows[count:].copy()]  # a copy lets go of the rest
        self._n_waiting -= count


def _create(
    group: zarr.Group,
    name: str,
    variable: xr.Variable,
    extra: dict[str, Any],
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> zarr.Array[Any]:
    """An array for `variable`, or for a longer variable of its kind with `shape` and `dtype`."""
    shape, dtype, streamed = shape or variable.shape, dtype or variable.dtype, shape is not None
    text = dtype.kind == "U"
    item = dtype.itemsize * (shape[1] if len(shape) == 2 else 1)
    most = min(max(SHARD_BYTES, item * shape[0] // _SHARDS), _LARGE_SHARD_BYTES) if streamed else SHARD_BYTES
    chunk = _CHUNK_SAMPLES if len(shape) == 2 else 16 * _CHUNK_SAMPLES
    while chunk > 1 and chunk * item > SHARD_BYTES // 2:
        chunk //= 2
    shard = chunk
    while shard * 2 * item <= most:
        shard *= 2
    rest = shape[1:]
    n_rows = shape[0]
    return group.create_array(
        name,
        shape=shape,
        dtype=VariableLengthUTF8() if text else dtype.newbyteorder("<"),  # type: ignore[arg-type]
        chunks=(min(chunk, n_rows) if n_rows <= chunk else chunk, *rest),
        shards=(min(shard, -(-n_rows // chunk) * chunk), *rest) if n_rows > chunk and not text else None,
        compressors=(ZstdCodec(level=5), Crc32cCodec()),
        fill_value="" if text else np.nan if dtype.kind == "f" else np.zeros((), dtype).item(),
        attributes=attributes_as_json(variable) | extra,
        dimension_names=[str(dim) for dim in variable.dims],
        config={"write_empty_chunks": True},  # then a missing file is always a lost file
    )


def open_group(folder: Path | Store) -> xr.Dataset:
    """The zarr group as it is stored, read when it is asked for."""
    return xr.open_dataset(folder, engine="zarr", chunks=None, consolidated=True)  # type: ignore[arg-type]


class _Checked(BackendArray):
    """A stored array that is read when it is asked for; damage is `Corrupt` then."""

    def __init__(self, variable: xr.Variable, where: str) -> None:
        self._variable, self._where = variable, where
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._variable[key].values)
        except (ValueError, RuntimeError, OSError) as error:  # zarr's checksum error is a plain ValueError
            raise Corrupt(f"{self._where} cannot be read: {error}") from error


def checked_on_reading(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset of a recording, not read yet; whoever reads a damaged part gets `Corrupt`, by whichever way."""
    for key, variable in list(dataset.variables.items()):
        if variable.dtype.kind in "TO" or key in dataset.indexes:  # is read at once
            continue
        array: Any = indexing.LazilyIndexedArray(_Checked(variable, f"recording {name!r}: {key}"))
        # as xarray does, what was read whole is kept
        kept = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(array))
        dataset = dataset.assign(
            {key: xr.Variable(variable.dims, kept, variable.attrs, variable.encoding, fastpath=True)}
        )
    return dataset


def open_published(published: Published) -> xr.Dataset:
    """The zarr group of a published recording, read when it is asked for."""
    store = PublishedStore(published)
    group = zarr.open_group(store, mode="r", use_consolidated=True)
    store.packings.update({name: packing_of(array) for name, array in group.arrays()})
    return open_group(store)


class PublishedStore(LocalStore):
    """The files of a published recording, for zarr: what is read is what the manifest names, or an error.

    zarr takes a missing chunk for one that was never written, and fills it. Here it is an error. So is everything that is
    read after another process removed or replaced the recording.
    """

    def __init__(self, published: Published, packings: dict[str, Packing] | None = None) -> None:
        super().__init__(published.folder, read_only=True)
        self._published = published
        # by array, as soon as they are known
        self.packings = {} if packings is None else packings
        self._checked: set[str] = set()

    def with_read_only(self, read_only: bool = False) -> PublishedStore:
        # docstring inherited
        return type(self)(self._published, self.packings)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        # docstring inherited
        self._check(key)
        while True:
            value = await super().get(key, prototype, byte_range)
            if self._published.unchanged():
                return self._present(key, value)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        # docstring inherited
        self._check(key)
        while True:
            value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
            if self._published.unchanged():
                return self._present(key, value)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        # docstring inherited
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def _check(self, key: str) -> None:
        """Corrupt if a file holds chunks that unpack to far more than their shapes say; each file is looked at once."""
        packing = self.packings.get(key.partition("/")[0])
        if packing is None or key in self._checked or key.endswith("zarr.json"):
            return
        try:
            check_chunk(self._published.folder / key, packing, f"recording {self._published.name!r}")
        except InvalidInput as error:
            raise Corrupt(error.message, kind="corrupt") from error
        except OSError:  # a file that is missing, which is said when it is read
            return
        self._checked.add(key)

    def _present(self, key: str, value: Buffer | None) -> Buffer | None:
        if value is None and key in self._published.manifest.files:
            raise Corrupt(f"recording {self._published.name!r} cannot be read: {key} is missing")
        return value


def restored(dataset: xr.Dataset, manifest: RecordingManifest) -> xr.Dataset:
    """The stored dataset as `Recording` holds it: text of fixed width, the manifest in the attributes, no encoding."""
    for name, variable in list(dataset.variables.items()):
        if variable.dtype.kind in "TO":
            values = np.asarray(variable.values.tolist(), dtype=str)
            dataset = dataset.assign_coords({name: (variable.dims, values, variable.attrs)})
    return labelled(dataset.drop_encoding(), manifest)


def read_groups(published: Published) -> GroupTable | None:
    """The table of groups; None if the recording's samples are not grouped."""
    if GROUPS_FILE not in published.manifest.files:
        return None
    file = published.folder / GROUPS_FILE
    text = file.read_bytes()
    refuse_newer(text, file)
    return GroupTable.parse(text, str(file))
