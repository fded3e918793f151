"""Small files that unpack to much more than they should are refused before they fill the memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy.io import savemat

from neuromas import InvalidInput, Recording, RecordingStore, unpacking
from neuromas.actions.annotate import annotate
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.text import read_text
from neuromas.schema.actions import AnnotateRequest
from neuromas.unpacking import largest

# the limits that these tests set are those of this process
pytestmark = pytest.mark.usefixtures("in_process")
ROWS = 20_000
"""Of 100 units: 16 MB of zeros, which pack into a few kB."""
ACTIVITY = {"variables": {"first": "trial == 0"}}


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """What 1 GiB is to a real file, 2 MiB is to these."""
    monkeypatch.setattr(unpacking, "LEAST_BYTES", 2 * 2**20)
    monkeypatch.setattr(unpacking, "TIMES", 10)


def zeros_npz(path):
    np.savez_compressed(path, activity=np.zeros((ROWS, 100)), trial=np.arange(ROWS))


def zeros_gzip(path):
    path.write_bytes(gzip.compress(b"u1,side\n" + b"0.0,1\n" * 2_000_000))


def zeros_mat(path):
    savemat(path, {"activity": np.zeros((ROWS, 100)), "trial": np.arange(ROWS)}, do_compression=True)


def zeros_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("activity", data=np.zeros((ROWS, 100)), compression="gzip", chunks=(ROWS // 4, 100))


def no_numbers_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("activity", shape=(10**9, 10**6), dtype="f8", chunks=(1000, 1000))


def linked_hdf5(path):
    """One dataset of 1 MB by 300 links."""
    with h5py.File(path, "w") as file:
        file["activity"] = np.zeros((1000, 125))
        for number in range(300):
            file[f"again_{number}"] = h5py.SoftLink("/activity") if number % 2 else file["activity"]


def lying_chunk(path):
    """A chunk of 80 kB by its shape, which zlib unpacks to 1.2 GB."""
    block, packer = bytes(2**24), zlib.compressobj(1)
    packed = b"".join([*(packer.compress(block) for _ in range(72)), packer.flush()])
    assert len(packed) > 2**20
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("activity", shape=(100, 100), dtype="f8", chunks=(100, 100), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), packed)


def zeros_zarr(path):
    xr.Dataset({"activity": (("sample", "unit"), np.zeros((ROWS, 100)))}).to_zarr(path)


def hollow_zarr(path):
    group = zarr.open_group(path, mode="w")
    group.create_array("activity", shape=(10**6, 10**6), chunks=(10**5, 10**5), dtype="f8", dimension_names=["a", "b"])


def zeros_parquet(path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({f"u{unit}": np.zeros(ROWS * 10) for unit in range(10)}), path)


def repeated_parquet(path):
    import pyarrow as pa
    from pyarrow import parquet

    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, "i4")), ["x" * 100_000])
    parquet.write_table(pa.table({"u1": np.zeros(1000), "word": words.cast(pa.string())}), path)


def zeros_h5ad(path):
    import pandas as pd
    from anndata import AnnData

    names = pd.Index([str(number) for number in range(ROWS)], dtype=object)
    units = pd.Index([str(number) for number in range(100)], dtype=object)
    data = np.zeros((ROWS, 100), dtype=np.float32)
    AnnData(data, pd.DataFrame(index=names), pd.DataFrame(index=units)).write_h5ad(path, compression="gzip")


BOMBS = {
    "npz": (".npz", zeros_npz),
    "gzip": (".csv.gz", zeros_gzip),
    "spikes": (".txt.gz", zeros_gzip),
    "mat 5": (".mat", zeros_mat),
    "mat 7.3": (".mat", zeros_hdf5),
    "netcdf": (".nc", zeros_hdf5),
    "netcdf without numbers": (".nc", no_numbers_hdf5),
    "netcdf of links": (".nc", linked_hdf5),
    "netcdf whose chunk lies": (".nc", lying_chunk),
    "nwb": (".nwb", zeros_hdf5),
    "h5ad": (".h5ad", zeros_h5ad),
    "zarr": (".zarr", zeros_zarr),
    "zarr without numbers": (".zarr", hollow_zarr),
    "parquet": (".parquet", zeros_parquet),
    "parquet of one text": (".parquet", repeated_parquet),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_of_many_zeros_is_refused(name, tmp_path):
    """At once, without the memory that it asks for, when it is read and when its contents are listed."""
    ending, write = BOMBS[name]
    write(tmp_path / f"zeros{ending}")
    converter = find_converter(tmp_path / f"zeros{ending}")
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="largest_gib") as refused:
        converter.contents(tmp_path / f"zeros{ending}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.kind == "too_large"
    assert peak < 20 * 2**20


@pytest.mark.parametrize("name", ["npz", "mat 5", "mat 7.3", "netcdf", "zarr", "h5ad", "parquet", "gzip"])
def test_a_file_that_is_really_large_is_read_with_the_option(name, tmp_path):
    """`largest_gib` of convert, and the context for readers that have no such argument."""
    ending, write = BOMBS[name]
    write(tmp_path / f"zeros{ending}")
    recipe = (
        {"activity": "activity", "variables": {"none": "0 * trial"}} if ending not in (".parquet", ".csv.gz") else {}
    )
    recipe |= {"unit_columns": r"u\d+", "variables": {"n": "trial * 0"}} if ending in (".parquet", ".csv.gz") else {}
    recipe |= {"activity": "X"} if ending == ".h5ad" else {}
    recipe = {key: value for key, value in recipe.items() if value}
    if ending in (".mat", ".nc"):
        recipe["axes"] = ["unit", "sample"] if name == "mat 7.3" else ["sample", "unit"]
    with pytest.raises(InvalidInput, match="largest_gib"):
        convert(tmp_path / f"zeros{ending}", recipe)
    recording = convert(tmp_path / f"zeros{ending}", recipe, largest_gib=0.5)
    assert recording.n_samples >= ROWS
    assert not recording.latents().any()


def test_recordings_own_readers_are_bounded(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", activity=np.zeros((ROWS, 100)), side=np.arange(ROWS) % 2)
    with pytest.raises(InvalidInput, match=r"zeros.npz: .* unpack to 15\.4 MiB, expected at most .* MiB"):
        Recording.from_npz(tmp_path / "zeros.npz")
    with largest(1):
        assert Recording.from_npz(tmp_path / "zeros.npz").n_samples == ROWS
    zeros_hdf5(tmp_path / "zeros.nc")
    with pytest.raises(InvalidInput, match="largest_gib"):
        Recording.from_file(tmp_path / "zeros.nc")


def test_what_packs_well_but_is_small_is_read(tmp_path, monkeypatch):
    """The true limit: 16 MB of zeros in a few kB are no bomb."""
    monkeypatch.undo()
    zeros_npz(tmp_path / "zeros.npz")
    assert convert(tmp_path / "zeros.npz", ACTIVITY).n_samples == ROWS
    assert unpacking.LEAST_BYTES == 2**30


def test_a_table_to_annotate_with_is_bounded(tmp_path):
    RecordingStore(tmp_path / "store").register(
        Recording.from_arrays(np.zeros((2, 1, 1)), {"side": ["left", "right"]}, name="toy"), set="lab"
    )
    zeros_gzip(tmp_path / "table.csv.gz")
    request = AnnotateRequest(
        recording="lab/toy",
        variable={"fast": "u1"},
        table=str(tmp_path / "table.csv.gz"),
        store=str(tmp_path / "store"),
        in_process=True,
    )
    with pytest.raises(InvalidInput, match="largest_gib"):
        annotate(request)


def test_short_rows_below_a_wide_header(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"u{column}" for column in range(2000)) + "\n" + "1\n" * 20_000)
    with pytest.raises(InvalidInput, match=r"wide.csv: .* unpack to") as refused:
        read_text(tmp_path / "wide.csv")
    assert refused.value.kind == "too_large"


def test_one_long_text_in_a_long_column(tmp_path):
    (tmp_path / "long.csv").write_text("u1,word\n" + "1,a\n" * 20_000 + "1," + "b" * 50_000 + "\n")
    with pytest.raises(InvalidInput, match="20,001 texts of up to 50,000 characters"):
        read_text(tmp_path / "long.csv")
    assert tidy(["left", None, "right"]).tolist() == ["left", "", "right"]


def test_links_that_lead_round(tmp_path):
    """2^30 ways through the file."""
    with h5py.File(tmp_path / "round.h5ad", "w") as file:
        for level in range(30):
            group = file.create_group("/".join(["a"] * (level + 1)))
            group.parent["b"] = h5py.SoftLink(group.name)
    with pytest.raises(InvalidInput, match="again and again"):
        find_converter(tmp_path / "round.h5ad").contents(tmp_path / "round.h5ad")
    with h5py.File(tmp_path / "circle.nc", "w") as file:
        file.create_group("inner")["outer"] = file["/"]
    with pytest.raises(InvalidInput, match="again and again"):
        convert(tmp_path / "circle.nc", ACTIVITY)


def test_zarr_of_a_chunk_per_number(tmp_path):
    group = zarr.open_group(tmp_path / "fine.zarr", mode="w")
    group.create_array("activity", shape=(500_000,), chunks=(1,), dtype="f4", dimension_names=["sample"])
    with pytest.raises(InvalidInput, match="500,000 chunks, but there are 2 files"):
        convert(tmp_path / "fine.zarr", ACTIVITY)
    (tmp_path / "fine.zarr" / "loop").symlink_to(tmp_path / "fine.zarr")
    with pytest.raises(InvalidInput, match=r"another file|is a link to a folder"):
        convert(tmp_path / "fine.zarr", ACTIVITY)
    with pytest.raises(InvalidInput, match="is a link to what holds it"):
        convert(tmp_path / "fine.zarr", ACTIVITY, allow_external=True)


def test_nwb_zarr_folders_are_bounded(tmp_path):
    folder = tmp_path / "zeros.nwb.zarr"
    zarr.open_group(folder, mode="w", zarr_format=2).create_array(
        "values", shape=(10**6, 10**6), chunks=(10**5, 10**5), dtype="f8"
    )
    from neuromas.recordings.convert.zarr_as_hdf5 import zarr_as_hdf5

    with pytest.raises(InvalidInput, match="largest_gib"):
        zarr_as_hdf5(folder)


def test_sizes_in_a_zip_archive_that_lie(tmp_path):
    """The directory says 1 kB; zipfile then reads no more than that."""
    zeros_npz(tmp_path / "lie.npz")
    data = bytearray((tmp_path / "lie.npz").read_bytes())
    size = struct.pack("<I", ROWS * 800 + 128)
    assert data.count(size) >= 1
    (tmp_path / "lie.npz").write_bytes(data.replace(size, struct.pack("<I", 1000)))
    with pytest.raises(InvalidInput, match="not a NumPy archive"):
        convert(tmp_path / "lie.npz", ACTIVITY)


def test_arrays_without_bytes(tmp_path):
    """A header can announce any number of entries that take no room in the file."""
    header = b"{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with zipfile.ZipFile(tmp_path / "empty.npz", "w") as archive:
        archive.writestr("activity.npy", member)
    with pytest.raises(InvalidInput):
        convert(tmp_path / "empty.npz", ACTIVITY)


def test_path_of_a_folder_or_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").mkdir()
    Path(tmp_path, "b", "c").write_bytes(bytes(5))
    assert unpacking.stored_bytes(tmp_path) == 15
