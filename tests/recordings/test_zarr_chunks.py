"""Chunks of zarr arrays that unpack to far more than their shapes say are refused before they fill the memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner
from zarr import codecs

from neuromas import Corrupt, InvalidInput, Recording, RecordingStore, unpacking
from neuromas.cli.verbs import app
from neuromas.files import sha256_bytes, sha256_file
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.zarr_as_hdf5 import zarr_as_hdf5
from neuromas.recordings.zarr_chunks import SIZES, SMALL, check_chunks, packing_of
from neuromas.unpacking import largest

pytestmark = pytest.mark.usefixtures("in_process")
ZEROS = bytes(40 * 2**20)
"""Far more than the arrays below hold."""
RECIPE = {"variables": {"cue": "cue"}}

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data[: len(data) // 2], 1) + gzip.compress(data[len(data) // 2 :], 1),
    "zlib": lambda data: zlib.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "lzma": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: numcodecs.Zstd().encode(data),
    "blosc": lambda data: numcodecs.Blosc(cname="zstd").encode(data),
    "lz4": lambda data: numcodecs.LZ4().encode(data),
}
V2 = {
    "gzip": numcodecs.GZip(), "zlib": numcodecs.Zlib(), "bz2": numcodecs.BZ2(), "lzma": numcodecs.LZMA(),
    "zstd": numcodecs.Zstd(), "blosc": numcodecs.Blosc(), "lz4": numcodecs.LZ4(),
}  # fmt: skip
V3 = {"gzip": codecs.GzipCodec(), "zstd": codecs.ZstdCodec(), "blosc": codecs.BloscCodec()}


def make(folder: Path, version: int, name: str, *, shards: bool = False, then_crc: bool = False) -> Any:
    """A group with 100 samples of 10 units, packed with the codec `name`."""
    group = zarr.open_group(folder, mode="w", zarr_format=version)
    compressors = V2[name] if version == 2 else ([V3[name], codecs.Crc32cCodec()] if then_crc else V3[name])
    array = group.create_array(
        "activity", shape=(100, 10), chunks=(50, 10), shards=(100, 10) if shards else None, dtype="f8",
        compressors=compressors, **({"dimension_names": ["sample", "unit"]} if version == 3 else {}),
    )  # fmt: skip
    if version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = ["sample", "unit"]
    array[:] = 1 + np.arange(1000.0).reshape(100, 10)
    options = {"dimension_names": ["sample"]} if version == 3 else {}
    cue = group.create_array("cue", shape=(100,), chunks=(100,), dtype="i8", compressors=None, **options)
    if version == 2:
        cue.attrs["_ARRAY_DIMENSIONS"] = ["sample"]
    cue[:] = 1 + np.arange(100) % 3
    return array


def chunk_of(folder: Path) -> Path:
    return next(
        file for file in sorted((folder / "activity").rglob("*")) if file.is_file() and file.name[0] in "0123456789"
    )


def checksum(data: bytes) -> bytes:
    return bytes(numcodecs.CRC32C().encode(data))[-4:]


def lie(file: Path, packed: bytes, *, shard: bool = False, crc: bool = False) -> None:
    """Put `packed` where a chunk lies."""
    packed += checksum(packed) if crc else b""
    if shard:
        index = struct.pack("<4Q", 0, len(packed), 0, len(packed))
        packed += index + checksum(index)
    file.write_bytes(packed)


CASES = [(2, name, False, False) for name in V2] + [
    (3, name, shards, crc) for name in V3 for shards in (False, True) for crc in (False, True)
]


@pytest.mark.parametrize(("version", "name", "shards", "crc"), CASES)
def test_a_chunk_that_lies_is_refused_before_it_fills_the_memory(tmp_path, version, name, shards, crc):
    folder = tmp_path / "a.zarr"
    array = make(folder, version, name, shards=shards, then_crc=crc)
    assert check_chunks(folder / "activity", packing_of(array), folder) <= SMALL
    assert convert(folder, RECIPE).latents().sum() == array[:].sum()
    lie(chunk_of(folder), PACKED[name](ZEROS), shard=shards, crc=crc)
    tracemalloc.start()
    for read in (
        lambda: convert(folder, RECIPE),
        lambda: find_converter(folder).contents(folder),
        lambda: Recording.from_file(folder),
    ):
        with pytest.raises(
            InvalidInput, match=r"a\.zarr: chunk .* unpacks to .*MiB or more, expected [34],?\d*"
        ) as refused:
            read()
        assert refused.value.kind == "too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20


def streamed_zstd(data: bytes) -> bytes:
    """A frame that does not state its size, of repeated bytes, as RFC 8878 has it."""
    block = 2**17
    heads = [(data[at], min(block, len(data) - at), at + block >= len(data)) for at in range(0, len(data), block)]
    body = b"".join((last | 1 << 1 | size << 3).to_bytes(3, "little") + bytes([value]) for value, size, last in heads)
    return (0xFD2FB528).to_bytes(4, "little") + bytes([0, 0x70]) + body


def test_a_frame_of_zstd_that_states_no_size(tmp_path):
    assert numcodecs.Zstd().decode(streamed_zstd(bytes(300_000))) == bytes(300_000)
    assert SIZES["zstd"](memoryview(streamed_zstd(bytes(300_000))), {}, 2**30) == 300_000
    make(tmp_path / "a.zarr", 2, "zstd")
    lie(chunk_of(tmp_path / "a.zarr"), streamed_zstd(ZEROS))
    with pytest.raises(InvalidInput, match="unpacks to"):
        convert(tmp_path / "a.zarr", RECIPE)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 10**6])
@pytest.mark.parametrize("name", PACKED)
def test_sizes_are_those_of_the_codecs(name, size):
    data = np.random.default_rng(size).integers(0, 9, size, dtype=np.uint8).tobytes()
    packed = PACKED[name](data)
    size_of = SIZES[name](memoryview(packed), {}, 2 * 10**6)
    assert size_of == (size if name not in ("gzip", "zlib") else min(size_of, 1032 * len(packed)))
    assert size_of >= size
    # one byte less is too little
    assert size == 0 or SIZES[name](memoryview(packed), {}, size - 1) > size - 1
    for damaged in (packed[: len(packed) // 2], b"", b"\x28\xb5\x2f\xfd", bytes(20)):
        assert SIZES[name](memoryview(damaged), {}, 2**20) >= 0


def test_a_bomb_within_a_chunk_that_does_not_lie(tmp_path):
    """Packed twice: the outer layer is harmless."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array(
        "activity", shape=(100, 10), chunks=(50, 10), dtype="f8", dimension_names=["sample", "unit"],
        compressors=[codecs.GzipCodec(), codecs.ZstdCodec()],
    )  # fmt: skip
    array[:] = 1.0
    lie(chunk_of(tmp_path / "a.zarr"), PACKED["zstd"](PACKED["gzip"](ZEROS)))
    with pytest.raises(InvalidInput, match="unpacks to"):
        find_converter(tmp_path / "a.zarr").contents(tmp_path / "a.zarr")


def test_text_of_any_length_counts_against_the_folder(tmp_path, monkeypatch):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("word", shape=(64,), chunks=(1,), dtype=str, dimension_names=["sample"])
    array[:] = "x" * 2**20
    monkeypatch.setattr(unpacking, "LEAST_BYTES", 16 * 2**20)
    with pytest.raises(InvalidInput, match="largest_gib"):
        find_converter(tmp_path / "a.zarr").contents(tmp_path / "a.zarr")
    with largest(1):
        assert find_converter(tmp_path / "a.zarr").contents(tmp_path / "a.zarr")


def test_nwb_folders(tmp_path):
    folder = tmp_path / "a.nwb.zarr"
    make(folder, 2, "blosc")
    lie(chunk_of(folder), PACKED["blosc"](ZEROS))
    with pytest.raises(InvalidInput, match=r"a\.nwb\.zarr: chunk activity/0\.0 unpacks to 40\.0 MiB or more"):
        zarr_as_hdf5(folder)


# ---------------------------------------------------------------------------------------------------- stores


def forged(store: Path, name: str, packed: bytes) -> None:
    """A store of which a chunk of an array lies, and whose hashes say that it is as it was written."""
    folder = store / "lab" / "toy"
    file = next(path for path in sorted((folder / name).rglob("*")) if path.is_file() and path.name[0] in "0123456789")
    file.write_bytes(packed + checksum(packed))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256", None)
    entry = {"sha256": sha256_file(file), "size": file.stat().st_size}
    manifest["files"][file.relative_to(folder).as_posix()] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))
    document = json.loads((store / "lab" / "set.json").read_text())
    document.pop("sha256", None)
    document["recordings"]["toy"]["manifest_sha256"] = sha256_bytes((folder / "manifest.json").read_bytes())
    (store / "lab" / "set.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", ["activity", "count"])
def test_stored_recordings_whose_chunks_lie_are_damaged(tmp_path, planted, name):
    store = RecordingStore(tmp_path)
    store.register(planted(), set="lab")
    forged(tmp_path, name, PACKED["zstd"](ZEROS))
    tracemalloc.start()
    for read in (
        lambda: store.get("lab/toy"),
        lambda: store.get("lab/toy", load=False).dataset.load(),
        lambda: store.get("lab/toy", load=False).to_dataset().load(),
    ):
        with pytest.raises(Corrupt, match=r"chunk .* unpacks to 40\.0 MiB or more"):
            read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20
    done = CliRunner().invoke(app, ["export", "lab/toy", "--store", str(tmp_path), "--out", str(tmp_path / "a.npz")])
    assert done.exit_code == Corrupt.exit_code
    assert "Traceback" not in done.output


def test_large_honest_recordings_are_read_as_before(tmp_path):
    """Many chunks in a shard, and numbers that pack to nearly nothing."""
    activity = np.zeros((40_000, 64), dtype=np.float32)
    activity[::1000] = np.arange(64)
    recording = Recording.from_arrays(activity, {"n": np.arange(40_000) % 7, "word": ["left"] * 40_000}, name="toy")
    store = RecordingStore(tmp_path)
    store.register(recording, set="lab")
    np.testing.assert_array_equal(store.get("lab/toy").latents(dtype=np.float32), activity)
    lazily = store.get("lab/toy", load=False)
    np.testing.assert_array_equal(lazily.activity[39_000:39_003].values, activity[39_000:39_003])
    xr.testing.assert_identical(lazily.dataset["word"], recording.dataset["word"])
