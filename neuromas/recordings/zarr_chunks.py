"""What the chunks of a zarr array would unpack to, found before they are read.

A compressed chunk may hold far more than its shape says, and readers unpack it whole. Some formats state the size in their first
bytes. Of the others, the size is counted as far as it is allowed, and nothing is kept.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuromas.errors import InvalidInput
from neuromas.unpacking import in_words, most_bytes

SMALL = 16 * 2**20
"""Bytes to which any chunk may unpack."""

_FILTERED = 8
"""Filters may make entries so many times as large."""
_SLACK = 2**10
"""Bytes that checksums and heads may add to a chunk."""
_ABSENT = 2**64 - 1
"""Where a shard has no chunk."""
_BLOCK = 2**20


@dataclass(frozen=True)
class Packing:
    """How the chunks of an array are packed.

    Attributes
    ----------
    shape : tuple of int
        Of a chunk.
    itemsize : int or None
        Bytes of an entry; None for text of any length.
    codecs : tuple of (str, dict)
        Name and configuration of each codec, in the order in which a chunk is unpacked.
    inner : Packing or None
        If a chunk is a shard: how the chunks in it are packed.
    index : tuple of (str, int, bool)
        Of a shard: byte order of its index, bytes of the index's checksum, and whether the index is at the end.
    """

    shape: tuple[int, ...]
    itemsize: int | None
    codecs: tuple[tuple[str, Mapping[str, Any]], ...]
    inner: Packing | None = None
    index: tuple[str, int, bool] = ("<", 0, True)

    def most(self, stored: int) -> int:
        """Bytes to which `stored` bytes of a chunk may unpack."""
        if self.itemsize is None:
            return most_bytes(stored)
        return max(SMALL, math.prod(self.shape) * self.itemsize * _FILTERED + _SLACK)


def packing_of(array: Any) -> Packing:
    """How the chunks of a zarr array are packed."""
    metadata = array.metadata
    dtype = np.dtype(array.dtype)
    itemsize = None if dtype.kind in "OT" else dtype.itemsize
    if metadata.zarr_format == 2:
        filters = [codec.get_config() for codec in metadata.filters or ()]
        compressor = [] if metadata.compressor is None else [metadata.compressor.get_config()]
        return packing_of_v2(metadata.chunks, itemsize, compressor, filters)
    codecs = [codec.to_dict() for codec in metadata.codecs]
    return _packing_of_v3(tuple(metadata.chunk_grid.chunk_shape), itemsize, codecs)


def packing_of_v2(
    shape: Sequence[int],
    itemsize: int | None,
    compressor: Sequence[Mapping[str, Any]],
    filters: Sequence[Mapping[str, Any]],
) -> Packing:
    """How chunks are packed by the codecs of an array of zarr version 2."""
    chain = [*compressor, *reversed(filters)]
    return Packing(tuple(shape), itemsize, tuple((str(codec["id"]), codec) for codec in chain))


def _packing_of_v3(shape: tuple[int, ...], itemsize: int | None, codecs: Sequence[Mapping[str, Any]]) -> Packing:
    chain: list[tuple[str, Mapping[str, Any]]] = []
    for codec in reversed(codecs):
        name, how = str(codec["name"]).removeprefix("numcodecs."), codec.get("configuration", {})
        if name == "sharding_indexed":
            inner = _packing_of_v3(tuple(how["chunk_shape"]), itemsize, [_as_dict(each) for each in how["codecs"]])
            return Packing(shape, itemsize, tuple(chain), inner, _index(how))
        chain.append((name, how))
    return Packing(shape, itemsize, tuple(chain))


def _as_dict(codec: Any) -> Mapping[str, Any]:
    return codec if isinstance(codec, Mapping) else codec.to_dict()


def _index(how: Mapping[str, Any]) -> tuple[str, int, bool]:
    codecs = [_as_dict(codec) for codec in how.get("index_codecs", ())]
    big = any(
        str(getattr(each, "value", each)) == "big"
        for codec in codecs
        for each in codec.get("configuration", {}).values()
    )
    checksum = 4 * sum(codec["name"] == "crc32c" for codec in codecs)
    location = how.get("index_location", "end")
    return ">" if big else "<", checksum, str(getattr(location, "value", location)) == "end"


def check_chunks(folder: Path, packing: Packing, where: object) -> int:
    """Bytes to which the chunks in an array's folder unpack; InvalidInput if a chunk holds far more than its shape says."""
    return sum(check_chunk(file, packing, where) for file in chunk_files(folder))


def chunk_files(folder: Path) -> Iterator[Path]:
    """Files of the chunks in an array's folder."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in (".zarray", ".zattrs", "zarr.json"):
            yield file


def check_chunk(file: Path, packing: Packing, where: object) -> int:
    """Bytes to which the chunk, or shard, in `file` unpacks.

    Raises
    ------
    InvalidInput
        It unpacks to far more than its shape says.
    """
    if not packing.codecs and packing.inner is None:
        return file.stat().st_size
    if not file.stat().st_size:
        return 0
    return _size(np.memmap(file, mode="r").data, packing, f"{where}: chunk {file.parent.name}/{file.name}")


def _size(data: memoryview, packing: Packing, what: str) -> int:
    """Bytes to which a chunk unpacks. A chunk that is damaged is left to its reader, which says so."""
    most, size, n_packed = packing.most(len(data)), len(data), _n_packed(packing)
    for place, (name, how) in enumerate(packing.codecs):
        if name in SIZES:
            size = SIZES[name](data, how, most)
            if size > most:
                raise _too_large(size, packing, what)
        # what comes later shows only when this is unpacked; the most that it unpacks to is known here
        if place >= n_packed - 1:
            break
        unpacked = _decoded(name, how, data)
        if unpacked is None:
            break
        data, size = unpacked, len(unpacked)
    if packing.inner is None:
        return size
    return sum(_size(chunk, packing.inner, what) for chunk in _chunks(data, packing))


def _n_packed(packing: Packing) -> int:
    """Number of codecs up to the last one that matters: a compressor, or that before the chunks of a shard."""
    if packing.inner is not None:
        return len(packing.codecs) + 1
    return max((place + 1 for place, (name, _) in enumerate(packing.codecs) if name in SIZES), default=0)


def _too_large(size: int, packing: Packing, what: str) -> InvalidInput:
    if packing.itemsize is None:
        expected = (
            f"at most {in_words(most_bytes(0))}; a chunk that is really that large is read with a higher largest_gib="
        )
    else:
        expected = f"{in_words(math.prod(packing.shape) * packing.itemsize)} for its shape {packing.shape}"
    return InvalidInput(f"{what} unpacks to {in_words(size)} or more, expected {expected}", kind="too_large")


def _decoded(name: str, how: Mapping[str, Any], data: memoryview) -> memoryview | None:
    """What a codec makes of `data`; None if it cannot, or makes no bytes."""
    if name == "crc32c":
        at_start = how.get("location") == "start"
        return data[4:] if at_start else data[:-4]
    if name in ("pickle", "json2", "msgpack2") or name.startswith(("vlen", "bytes")):
        return None
    from numcodecs import get_codec

    try:
        config = how if name in ("lzma", "shuffle", "delta") else {}
        return np.ascontiguousarray(get_codec({**config, "id": name}).decode(data)).data.cast("B")
    except Exception:  # whatever a damaged chunk makes codecs raise; its reader raises it again
        return None


def _chunks(data: memoryview, packing: Packing) -> Iterator[memoryview]:
    """The packed chunks of a shard."""
    assert packing.inner is not None
    order, checksum, at_end = packing.index
    n_chunks = math.prod(
        math.ceil(size / chunk) for size, chunk in zip(packing.shape, packing.inner.shape, strict=True)
    )
    length = 16 * n_chunks
    if length + checksum > len(data):
        return
    start = len(data) - length - checksum if at_end else 0
    index = np.frombuffer(data[start : start + length], f"{order}u8").reshape(-1, 2)
    for offset, size in np.unique(index, axis=0).tolist():
        if offset != _ABSENT and offset + size <= len(data):
            yield data[offset : offset + size]


# ------------------------------------------------------------------------------------------------------------------ sizes


def _stated(form: str, at: int) -> Callable[[memoryview, Mapping[str, Any], int], int]:
    """The size that stands in the first bytes, and that no reader exceeds."""

    def size(data: memoryview, how: Mapping[str, Any], most: int) -> int:
        end = at + struct.calcsize(form)
        return int(struct.unpack(form, data[at:end])[0]) if len(data) >= end else 0

    return size


def _deflated(open_file: Callable[[io.BytesIO], Any]) -> Callable[[memoryview, Mapping[str, Any], int], int]:
    """The counted size of what deflate packed, which unpacks to 1,032 times itself at most."""

    def size(data: memoryview, how: Mapping[str, Any], most: int) -> int:
        return 1032 * len(data) if 1032 * len(data) <= most else _counted(open_file(io.BytesIO(data)), most)

    return size


def _by_bz2(data: memoryview, how: Mapping[str, Any], most: int) -> int:
    return _counted(bz2.BZ2File(io.BytesIO(data)), most)


def _by_lzma(data: memoryview, how: Mapping[str, Any], most: int) -> int:
    form = int(how.get("format", lzma.FORMAT_XZ))
    try:
        return _counted(lzma.LZMAFile(io.BytesIO(data), format=form, filters=how.get("filters")), most)
    except (ValueError, TypeError, lzma.LZMAError):
        return 0


def _counted(file: Any, most: int) -> int:
    """Bytes that can be read from `file`, up to the first block beyond `most`."""
    size = 0
    try:
        while size <= most and (block := file.read(_BLOCK)):
            size += len(block)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):  # damaged: its reader says so
        pass
    return size


class _Zlib:
    """A file of zlib's format."""

    def __init__(self, file: io.BytesIO) -> None:
        self._data: bytes | memoryview = file.getbuffer()
        self._machine = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        block = self._machine.decompress(self._data, size)
        self._data = self._machine.unconsumed_tail
        return block


_ZSTD, _ZSTD_SKIPPED = 0xFD2FB528, 0x184D2A50
_ZSTD_BLOCK = 2**17


def _by_zstd(data: memoryview, how: Mapping[str, Any], most: int) -> int:
    """The size that the first frame states; where it states none, what the blocks of all frames hold at most."""
    stated, _ = _zstd_head(data)
    if stated is not None:
        return stated
    size, at = 0, 0
    while at + 4 <= len(data) and size <= most:
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & ~0xF == _ZSTD_SKIPPED:
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD:
            break
        size, at = _zstd_frame(data, at, size, most)
    return size


def _zstd_head(data: memoryview) -> tuple[int | None, int]:
    """The size that a frame states, or None, and the length of its head."""
    if len(data) < 6 or int.from_bytes(data[:4], "little") != _ZSTD:
        return (0 if int.from_bytes(data[:4], "little") & ~0xF != _ZSTD_SKIPPED else None), 4
    descriptor = data[4]
    single = descriptor >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    stated = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    return (stated if width else None), at + width


def _zstd_frame(data: memoryview, at: int, size: int, most: int) -> tuple[int, int]:
    """`size` and what the frame at `at` holds at most, and where the frame ends."""
    descriptor = data[at + 4] if at + 4 < len(data) else 0
    at += _zstd_head(data[at:])[1]
    last = False
    while not last and at + 3 <= len(data) and size <= most:
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = bool(head & 1), head >> 1 & 3, head >> 3
        # raw, repeated or compressed
        size += _ZSTD_BLOCK if kind == 2 else length
        at += 3 + (1 if kind == 1 else length)
    return size, at + 4 * (descriptor >> 2 & 1)


SIZES: Mapping[str, Callable[[memoryview, Mapping[str, Any], int], int]] = {
    "gzip": _deflated(lambda file: gzip.GzipFile(fileobj=file)),
    "zlib": _deflated(_Zlib),
    "bz2": _by_bz2,
    "lzma": _by_lzma,
    "zstd": _by_zstd,
    "blosc": _stated("<I", 4),
    "lz4": _stated("<I", 0),
}
"""Codec → the size to which data unpack; beyond the most that is allowed, any size above it."""
