"""Archives, .mat, NetCDF, zarr and tables: planted numbers found again, and what is told about files that are none."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.sparse import csc_matrix

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.arrays import from_xarray
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.matlab import read_mat
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording

NAMED_FOLDER = os.environ.get("NEUROMAS_TEST_DATA", "")
needs_data = pytest.mark.skipif(
    not NAMED_FOLDER, reason="NEUROMAS_TEST_DATA names no folder that holds zhang_desimone_it"
)

N_TRIALS, N_STEPS, N_UNITS = 5, 4, 3
RATES = np.random.default_rng(0).normal(size=(N_TRIALS, N_STEPS, N_UNITS))
STIMULUS = np.array([3.0, 1.0, 2.0, 1.0, 3.0])
SIDE = ["left", "right", "left", "left", "right"]
LICKS = np.arange(N_TRIALS * N_STEPS).reshape(N_TRIALS, N_STEPS)
ODD_AXES = {"activity": "rates", "axes": ["unit", "step", "trial"]}


def write_hdf5_mat(path: Path, variables: dict[str, object]) -> Path:
    """As MATLAB writes v7.3: last axis first, text as UTF-16 codes, cells and struct arrays as references."""

    def put(group: h5py.Group, name: str, value: object, refs: h5py.Group) -> None:
        if isinstance(value, dict):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, one in value.items():
                put(made, field, one, refs)
            return
        if isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), dtype=np.uint16)[None, :]
            made = group.create_dataset(name, data=codes.T)
            made.attrs["MATLAB_class"] = np.bytes_("char")
            made.attrs["MATLAB_int_decode"] = np.int32(2)
            return
        if isinstance(value, list | tuple):  # a cell array; a tuple is a field of a struct array
            references = []
            for one in value:
                put(refs, f"r{len(refs)}", one, refs)
                references.append(refs[f"r{len(refs) - 1}"].ref)
            made = group.create_dataset(name, data=np.array(references, dtype=h5py.ref_dtype)[:, None])
            if isinstance(value, list):
                made.attrs["MATLAB_class"] = np.bytes_("cell")
            return
        array = np.atleast_2d(np.asarray(value))
        made = group.create_dataset(name, data=(array.astype(np.uint8) if array.dtype.kind == "b" else array).T)
        made.attrs["MATLAB_class"] = np.bytes_({"b": "logical", "f": "double", "i": "int32"}[array.dtype.kind])

    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in variables.items():
            put(file, name, value, refs)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + b" " * 8 + b"\x00\x02IM")
    return path


def write_v5_mat(path: Path, variables: dict[str, object]) -> Path:
    def plain(value: object) -> object:
        if isinstance(value, list):
            cells = np.empty(len(value), dtype=object)
            cells[:] = value
            return cells
        if isinstance(value, dict) and any(isinstance(one, tuple) for one in value.values()):
            rows = list(zip(*value.values(), strict=True))
            return np.array(rows, dtype=[(name, object) for name in value])
        return {name: plain(one) for name, one in value.items()} if isinstance(value, dict) else value

    savemat(path, {name: plain(value) for name, value in variables.items()}, do_compression=True)
    return path


mat = pytest.mark.parametrize("write", [write_v5_mat, write_hdf5_mat])


# ---------------------------------------------------------------------------------------------------------------- matlab


@mat
def test_mat_with_odd_axes(tmp_path, write):
    path = write(
        tmp_path / "session 1.mat",
        {
            "rates": RATES.transpose(2, 1, 0),
            "stimulus": STIMULUS[None, :],
            "info": {"side": SIDE, "licks": LICKS.T.astype(float), "ok": np.array([[True, False, True, True, True]])},
            "names": ["V1 a", "V1 b", "µ-c"],
            "onset": (0.05 + 0.1 * np.arange(N_STEPS))[:, None],
            "depth": np.array([[100.0, 200.0, 300.0]]),
            "number": 10.0 + np.arange(N_TRIALS)[None, :],
            "subject": "mouse 7",
        },
    )
    recipe = ODD_AXES | {
        "unit": "names",
        "trial": "number",
        "start_s": -0.2,
        "step_s": 0.1,
        "variables": {
            "stimulus": "stimulus",
            "side": 'col("info.side")',
            "licks": 'col("info.licks")',
            "ok": 'col("info.ok")',
            "after": "time > 0",
            "late": "onset > 0.2",
        },
    }
    recording = convert(path, recipe, system="mouse 7")
    assert np.array_equal(recording.latents(dtype=np.float64), RATES.reshape(-1, N_UNITS))
    assert recording.unit_names == ["V1 a", "V1 b", "µ-c"]
    assert recording.dataset["trial"].values.tolist() == np.repeat([10, 11, 12, 13, 14], N_STEPS).tolist()
    assert recording.values(["stimulus"]).ravel().tolist() == np.repeat(STIMULUS, N_STEPS).tolist()
    assert recording.spec("stimulus").type == "integer"
    assert recording.values(["licks"]).ravel().tolist() == LICKS.ravel().tolist()
    assert recording.values(["after"]).ravel().tolist() == [0, 0, 1, 1] * N_TRIALS
    assert recording.values(["late"]).ravel().tolist() == [0, 0, 1, 1] * N_TRIALS
    assert [recording.spec("side").label(one) for one in recording.values(["side"])[::N_STEPS, 0]] == SIDE
    assert recording.spec("ok").meanings == ("false", "true")
    assert recording.dataset["depth"].values.tolist() == [100, 200, 300]
    manifest = recording.manifest
    assert (manifest.name, manifest.system, manifest.sampling.start_s) == ("session-1", "mouse 7", -0.2)
    assert manifest.provenance.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "left out: 'subject'" in manifest.provenance.notes
    assert json.loads(manifest.provenance.notes.split("recipe ")[1].split("; ")[0])["activity"] == "rates"


@mat
def test_struct_arrays_and_what_cannot_be_used(tmp_path, write):
    path = write(
        tmp_path / "a.mat",
        {
            "trials": {"side": tuple(SIDE), "n": tuple(np.array([[float(one)]]) for one in range(N_TRIALS))},
            "ragged": [np.zeros((1, 2)), np.zeros((1, 3))],
            "mixed": ["a", np.array([[1.0]])],
            "nested": {"deep": {"er": np.array([[7.0]])}},
        },
    )
    found = read_mat(path)
    assert found.arrays["trials.side"].tolist() == SIDE
    assert found.arrays["trials.n"].tolist() == [0, 1, 2, 3, 4]
    assert found.arrays["nested.deep.er"].item() == 7
    assert found.arrays["ragged"].shape == (2, 3)
    assert np.isnan(found.arrays["ragged"]).tolist() == [[False, False, True], [False, False, False]]
    assert "both numbers and text" in found.unusable["mixed"]
    listed = dict(find_converter(path).contents(path))
    assert listed["trials.side"] == "(5,) <U5: left, right, left, …"
    assert listed["mixed"].startswith("not usable: ")


@mat
def test_an_axis_of_length_one_at_the_end_may_lack(tmp_path, write):
    path = write(tmp_path / "a.mat", {"rates": RATES[0].T, "side": "left"})  # one trial: MATLAB drops its axis
    recording = convert(path, ODD_AXES | {"variables": {"side": "side"}})
    assert np.array_equal(recording.latents(dtype=np.float64), RATES[0])
    assert recording.dataset["trial"].values.tolist() == [0] * N_STEPS


@mat
def test_padding_at_the_end_of_trials_is_left_out(tmp_path, write):
    rates = RATES.copy()
    rates[1, 2:] = np.nan
    path = write(tmp_path / "a.mat", {"rates": rates, "side": SIDE})
    recording = convert(path, {"activity": "rates"})
    assert recording.n_samples == N_TRIALS * N_STEPS - 2
    assert "left out as padding: 2 steps" in recording.manifest.provenance.notes
    rates[0, 0, 0] = np.nan
    path = write(tmp_path / "b.mat", {"rates": rates, "side": SIDE})
    with pytest.raises(InvalidDocument, match="declare missing=True"):
        convert(path, {"activity": "rates"})
    assert np.isnan(convert(path, {"activity": "rates"}, missing=True).latents()[0, 0])


def test_sparse_and_odd_things_in_version_7_3(tmp_path):
    path = write_hdf5_mat(tmp_path / "a.mat", {"x": np.zeros((2, 2))})
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    sparse = csc_matrix(dense)
    with h5py.File(path, "r+") as file:
        group = file.create_group("sparse")
        group.attrs["MATLAB_sparse"] = np.uint64(2)
        group.attrs["MATLAB_class"] = np.bytes_("double")
        group["data"], group["ir"], group["jc"] = sparse.data, sparse.indices, sparse.indptr
        file.create_dataset("table", data=np.zeros((1, 6), dtype=np.uint32)).attrs["MATLAB_object_decode"] = np.int32(3)
        file.create_dataset("none", data=np.array([0, 0], dtype=np.uint64)).attrs["MATLAB_empty"] = np.uint8(1)
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        made = file.create_dataset("z", data=np.zeros((2, 1), dtype=[("real", float), ("imag", float)]))
        made.attrs["MATLAB_class"] = np.bytes_("double")
    found = read_mat(path)
    assert np.array_equal(found.arrays["sparse"], dense)
    assert found.arrays["none"].shape == (0, 0)
    assert "an object of MATLAB's" in found.unusable["table"]
    assert found.unusable["elsewhere"] == "a link to another file"
    assert "neither numbers nor text" in found.unusable["z"]
    for recipe in ({"activity": "table"}, {"activity": "x", "variables": {"a": "table"}}):
        with pytest.raises(InvalidInput, match="'table' cannot be used: an object of MATLAB's"):
            convert(path, recipe)


def test_complex_numbers_are_not_halved(tmp_path):
    savemat(tmp_path / "a.mat", {"z": np.array([[1 + 2j]]), "x": np.zeros((3, 2))})
    assert read_mat(tmp_path / "a.mat").unusable["z"].startswith("complex numbers")


@pytest.mark.usefixtures("in_process")
def test_sparse_is_written_out_up_to_a_size(tmp_path, monkeypatch):
    savemat(tmp_path / "a.mat", {"activity": csc_matrix(RATES[0]), "side": np.array(SIDE[:4], dtype=object)})
    assert np.array_equal(convert(tmp_path / "a.mat").latents(dtype=np.float64), RATES[0])
    monkeypatch.setattr(named_arrays, "LARGEST_DENSE_BYTES", 50)
    with pytest.raises(InvalidInput, match="'activity' cannot be used: sparse, and of"):
        convert(tmp_path / "a.mat")


# -------------------------------------------------------------------------------------------------------------- archives


def test_archives_without_a_recipe_are_what_they_were(tmp_path, planted):
    path = export(planted(), tmp_path / "my recording.npz")
    recording = convert(path, system="other")
    assert recording.manifest.system == "other"
    assert recording.name == "toy"
    assert recording.dataset.drop_attrs().identical(Recording.from_npz(path).dataset.drop_attrs())
    assert recording.manifest.provenance.source == "my recording.npz"
    np.savez(tmp_path / "my own.npz", activity=RATES[0], n=[1, 2, 3, 4])
    assert convert(tmp_path / "my own.npz").name == "my-own"
    assert convert(tmp_path / "my own.npz", name="mine").name == "mine"


def test_an_archive_with_a_recipe(tmp_path):
    np.savez(
        tmp_path / "a.npz", rates=RATES, side=SIDE, licks=LICKS, trial_no=[9, 8, 7, 6, 5], bin=[1, 2, 3, 4],
        unit_area=["V1", "V1", "V2"], lengths=[4, 4, 3, 4, 2], manifest=json.dumps({"task": "licking", "units": "Hz"}),
        strange=np.zeros((2, 2, 2)),
    )  # fmt: skip
    recipe = {"activity": "rates", "trial": "trial_no", "step": "bin", "start_s": 0, "step_s": 0.5}
    recording = convert(tmp_path / "a.npz", recipe | {"variables": {"side": "side", "ms": "time * 1000"}}, task="mine")
    assert recording.n_samples == 17
    assert recording.dataset["trial"].values[:5].tolist() == [9, 9, 9, 9, 8]
    assert recording.dataset["step"].values[:4].tolist() == [0, 1, 2, 3]  # from 0, so that a step tells its time
    assert recording.values(["ms"])[:4].ravel().tolist() == [250, 750, 1250, 1750]
    assert recording.dataset["area"].values.tolist() == ["V1", "V1", "V2"]
    assert (recording.manifest.task, recording.manifest.units) == ("mine", "Hz")
    assert "left out: 'licks', 'strange'" in recording.manifest.provenance.notes
    # without variables, all that fit
    every = convert(tmp_path / "a.npz", recipe)
    assert every.variable_names == ["side", "licks"]
    some = convert(tmp_path / "a.npz", recipe, variables=[{"name": "licks", "type": "real", "units": "1/s"}])
    assert [(one.name, one.type, one.units) for one in some.manifest.variables] == [("licks", "real", "1/s")]


@given(
    axes=st.permutations(["trial", "step", "unit"]), shape=st.tuples(*[st.integers(1, 4)] * 3), seed=st.integers(0, 99)
)
@settings(max_examples=25)
def test_axes_in_any_order(tmp_path_factory, axes, shape, seed):
    rates = np.random.default_rng(seed).normal(size=shape)
    order = [("trial", "step", "unit").index(one) for one in axes]
    own = [one for one in axes if one != "unit"]
    grid = np.arange(shape[0] * shape[1]).reshape(shape[:2])
    path = tmp_path_factory.mktemp("axes") / "a.npz"
    np.savez(path, rates=rates.transpose(order), grid=grid if own == ["trial", "step"] else grid.T)
    recording = convert(path, {"activity": "rates", "axes": axes, "variables": {"n": "grid"}})
    assert np.array_equal(recording.latents(dtype=np.float64), rates.reshape(-1, shape[2]))
    assert recording.values(["n"]).ravel().tolist() == grid.ravel().tolist()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (["unit", "sample"], (3, 20)),
        (["trial", "unit"], (5, 3)),
        (["trial", "step"], (5, 4)),
        (["step", "unit"], (4, 3)),
    ],
)
def test_axes_that_lack_have_length_one(tmp_path, axes, shape):
    values = np.arange(float(np.prod(shape))).reshape(shape)
    np.savez(tmp_path / "a.npz", activity=values, n=np.arange(shape[1] if "sample" in axes else shape[0]))
    recording = convert(tmp_path / "a.npz", {"axes": axes, "variables": {"n": "n"}})
    expected = values.T if axes[0] == "unit" else values.reshape(-1, 1) if axes[1] == "step" else values
    assert np.array_equal(recording.latents(dtype=np.float64), expected)


@pytest.mark.parametrize(
    ("recipe", "error", "kind", "told"),
    [
        ({"activity": "rate"}, NotFound, "unknown_array", "no array 'rate' (activity); there are rates (5, 4, 3), side (5,)"),
        ({}, InvalidInput, "missing_activity", "no array called 'activity'"),
        ({"activity": "rates", "axes": ["trial", "unit"]}, InvalidInput, "invalid_axes", "names 2 axes, the array has 3"),
        ({"activity": "rates", "axes": ["trial", "step", "step"]}, InvalidInput, "invalid_axes", "names an axis twice"),
        ({"activity": "rates", "axes": ["trial", "sample", "unit"]}, InvalidInput, "invalid_axes", "cannot stand beside trial"),
        ({"activity": "rates", "axes": ["time", "unit"]}, InvalidDocument, "invalid_document", "expected 'trial', 'step'"),
        ({"activity": "cube"}, InvalidInput, "invalid_axes", "expected 2 or 3 axes; the recipe can name them"),
        ({"activity": "side"}, InvalidInput, "invalid_axes", "expected 2 or 3 axes"),
        ({"activity": "rates", "unit": "side"}, InvalidInput, "unit_mismatch", "'side' names 5 units, the activity has 3"),
        ({"activity": "rates", "unit": "nom"}, NotFound, "unknown_array", "no array 'nom' (names of the units)"),
        ({"activity": "rates", "trial": "cube"}, InvalidInput, "invalid_axes", "array 'cube' of shape (2, 2, 2, 2) does not fit"),
        ({"activity": "rates", "trial": "side"}, InvalidInput, "invalid_axes", "'side': expected whole numbers, got <U5"),
        ({"activity": "rates", "variables": {"n": "cube"}}, InvalidDocument, "invalid_document", "(2, 2, 2, 2) has no value"),
        ({"activity": "rates", "variables": {"a b": "side"}}, InvalidDocument, "invalid_document", "expected letters"),
        ({"activity": "words", "axes": ["sample", "unit"]}, InvalidInput, "invalid_axes", "expected numbers"),
        ({"activity": "alone"}, InvalidInput, "no_variables", "no array holds a value per trial or sample"),
    ],
)  # fmt: skip
def test_bad_recipes_are_told(tmp_path, recipe, error, kind, told):
    np.savez(
        tmp_path / "a.npz",
        rates=RATES,
        side=SIDE,
        cube=np.zeros((2, 2, 2, 2)),
        words=[["a", "b"]],
        alone=np.zeros((7, 9)),
    )
    with pytest.raises(error) as raised:
        convert(tmp_path / "a.npz", recipe)
    assert raised.value.kind == kind
    assert told in raised.value.message


def test_a_field_that_no_manifest_has_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", rates=RATES, side=SIDE)
    for recipe in (None, {"activity": "rates"}):
        with pytest.raises(InvalidDocument, match="present: no such field"):
            convert(tmp_path / "a.npz", recipe, present=[1])


def test_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", rates=RATES, side=np.array([{"a": 1}] * 5, dtype=object))
    with pytest.raises(InvalidInput) as raised:
        convert(tmp_path / "a.npz", {"activity": "rates"})
    assert raised.value.kind == "pickle_refused"


@pytest.mark.parametrize("ending", [".npz", ".mat", ".nc", ".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize(
    "content", [b"", b"not what it says\0\1\2\3" * 40, b"PK\x03\x04" + b"\0" * 60, b"\x89HDF\r\n\x1a\n" + b"\1" * 600]
)
def test_foreign_files_are_told(tmp_path, ending, content):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as raised:
        convert(path, {"unit_columns": "x"} if ending[1:4] in ("csv", "par") else {"activity": "x"})
    assert raised.value.kind in ("unreadable_source", "unreadable_source")
    assert str(path) in raised.value.message
    with pytest.raises(InvalidInput):
        find_converter(path).contents(path)


@pytest.mark.parametrize("ending", [".npz", ".mat", ".nc", ".csv.gz", ".parquet"])
def test_files_cut_off_are_told(tmp_path, ending):
    whole, path = tmp_path / f"whole{ending}", tmp_path / f"a{ending}"
    table = pd.DataFrame({"n": np.arange(500.0), "u0": np.random.default_rng(0).normal(size=500)})
    writers = {
        ".npz": lambda: np.savez_compressed(whole, activity=RATES, n=STIMULUS),
        ".mat": lambda: write_v5_mat(whole, {"activity": RATES}),
        ".nc": lambda: xr.Dataset({"activity": (("trial", "step", "unit"), RATES)}).to_netcdf(whole, engine="h5netcdf"),
        ".csv.gz": lambda: whole.write_bytes(gzip.compress(table.to_csv(index=False).encode())),
        ".parquet": lambda: table.to_parquet(whole),
    }
    writers[ending]()
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InvalidInput) as raised:
        convert(
            path, {"unit_columns": "u0"} if ending in (".csv.gz", ".parquet") else {"axes": ["trial", "step", "unit"]}
        )
    assert raised.value.kind in ("unreadable_source", "unreadable_source")


# ------------------------------------------------------------------------------------------------------- NetCDF and zarr


@pytest.mark.parametrize("ending", [".nc", ".zarr", " classic.nc"])
def test_named_axes_of_datasets(tmp_path, ending):
    flags = {"flag_values": np.array([0, 1], np.int32), "flag_meanings": "left right"}
    dataset = xr.Dataset(
        {"rates": (("cell", "time", "trial"), RATES.transpose(2, 1, 0)), "licks": (("time", "trial"), LICKS.T)},
        coords={
            "side": ("trial", np.array([0, 1, 0, 0, 1], np.int32), flags),
            "depth": ("cell", [1.0, 2.0, 3.0]),
            "other": ("elsewhere", [1.0]),
        },
    )  # fmt: skip
    path = tmp_path / f"a{ending}"
    if ending == ".zarr":
        dataset.to_zarr(path)
    else:
        dataset.to_netcdf(path, engine="scipy" if "classic" in ending else "h5netcdf")
    recording = convert(path, {"activity": "rates", "axes": ["unit", "step", "trial"]})
    assert np.array_equal(recording.latents(dtype=np.float64), RATES.reshape(-1, N_UNITS))
    assert [recording.spec("side").label(one) for one in recording.values(["side"])[::N_STEPS, 0]] == SIDE
    assert recording.values(["licks"]).ravel().tolist() == LICKS.ravel().tolist()
    assert recording.dataset["depth"].values.tolist() == [1, 2, 3]
    assert "left out: 'other'" in recording.manifest.provenance.notes
    assert dict(find_converter(path).contents(path))["licks"].startswith("(4, 5) int")


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_stored_recordings_open_as_they_were(tmp_path, planted, ending):
    recording = planted()
    path = tmp_path / f"a{ending}"
    if ending == ".nc":
        export(recording, path)
    else:
        recording.dataset.to_zarr(path)
    again = convert(path, licence="other")
    expected = Recording.from_file(path)
    assert again.dataset.drop_attrs().identical(expected.dataset.drop_attrs())
    assert again.manifest.licence == "other"
    ignored = {"provenance", "licence"}
    assert again.manifest.model_dump(exclude=ignored) == expected.manifest.model_dump(exclude=ignored)


def test_a_folder_that_is_no_zarr_is_told(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read as a zarr folder"):
        convert(tmp_path / "a.zarr")


# ---------------------------------------------------------------------------------------------------------------- tables


def long_table() -> pd.DataFrame:
    table = pd.DataFrame(RATES.reshape(-1, N_UNITS), columns=["u0", "u1", "u2"])
    table.insert(0, "no", np.repeat(np.arange(N_TRIALS) + 10, N_STEPS))
    table.insert(1, "bin", np.tile(np.arange(N_STEPS), N_TRIALS))
    table.insert(2, "side", np.repeat(SIDE, N_STEPS))
    return table.assign(licks=LICKS.ravel(), ok=LICKS.ravel() % 2 == 0)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".parquet", " semicolons.csv"])
def test_long_tables(tmp_path, ending):
    path, table = tmp_path / f"a{ending}", long_table()
    if ending == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep={".tsv": "\t", " semicolons.csv": ";"}.get(ending, ","))
    recipe = {"unit_columns": r"u\d+", "trial": "no", "step": "bin"}
    recording = convert(path, recipe)
    assert np.array_equal(recording.latents(dtype=np.float64), RATES.reshape(-1, N_UNITS))
    assert recording.unit_names == ["u0", "u1", "u2"]
    assert recording.dataset["trial"].values.tolist() == table["no"].tolist()
    assert recording.dataset["step"].values.tolist() == table["bin"].tolist()
    assert [(one.name, one.type) for one in recording.manifest.variables] == [
        ("side", "categorical"), ("licks", "integer"), ("ok", "categorical"),
    ]  # fmt: skip
    assert recording.values(["licks"]).ravel().tolist() == LICKS.ravel().tolist()
    some = convert(path, recipe | {"start_s": 1, "step_s": 0.5, "variables": {"even": "licks % 2 == 0", "t": "time"}})
    assert some.values(["t"])[:4].ravel().tolist() == [1.25, 1.75, 2.25, 2.75]
    assert "left out: 'side', 'ok'" in some.manifest.provenance.notes
    assert dict(find_converter(path).contents(path))["licks"] == "(20,) int64: 0, 1, 2, …"


def test_exported_csv_reads_back(tmp_path, planted):
    recording = planted()
    again = convert(export(recording, tmp_path / "a.csv"), {"unit_columns": r"u\d+"}, missing=True)
    assert np.array_equal(again.latents(), recording.latents(), equal_nan=True)
    for name in ("side", "count", "load"):
        labels = [[one.spec(name).label(value) for value in one.values([name])[:, 0]] for one in (recording, again)]
        assert labels[0] == labels[1]
    for name in ("trial", "step", "eligible"):
        assert again.dataset[name].values.tolist() == recording.dataset[name].values.tolist()
    words = [np.array(one.manifest.vocabulary)[one.dataset["token"].values].tolist() for one in (recording, again)]
    assert words[0] == words[1]
    chosen = np.array([3, 5])
    export(recording.select_samples(chosen), tmp_path / "b.csv", samples=chosen)
    some = convert(tmp_path / "b.csv", {"unit_columns": r"u\d+"}, missing=True)
    assert some.n_samples == 2
    assert "sample" not in some.dataset.coords


@pytest.mark.parametrize(
    ("recipe", "error", "kind", "told"),
    [
        ({}, InvalidInput, "invalid_recipe", "which columns are units? unit_columns is a regular expression for their names"),
        ({"unit_columns": "n.*"}, NotFound, "unknown_column", "matches no column"),
        ({"unit_columns": "u("}, InvalidInput, "invalid_recipe", "is not a regular expression"),
        ({"unit_columns": "side|u0"}, InvalidInput, "invalid_recipe", "columns that hold no numbers: 'side', e.g. ['left']"),
        ({"unit_columns": r"u\d", "trial": "nr"}, NotFound, "unknown_column", "no column 'nr'; there are 'trial'"),
        ({"unit_columns": r"u\d", "step": "trial"}, InvalidDocument, "invalid_document", "samples: more than one at trial 10"),
    ],
)  # fmt: skip
def test_bad_recipes_of_tables_are_told(tmp_path, recipe, error, kind, told):
    table = long_table().rename(columns={"no": "trial", "bin": "step"})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(error) as raised:
        convert(tmp_path / "a.csv", recipe)
    assert raised.value.kind == kind
    assert told in raised.value.message


def test_tables_without_rows_and_entries_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("side,u0\n")
    with pytest.raises(InvalidInput, match="has no rows"):
        convert(tmp_path / "a.csv", {"unit_columns": "u0"})
    (tmp_path / "b.csv").write_text("n,u0\n1,2\n,3\n")
    with pytest.raises(InvalidDocument, match=r"variable 'n': 1 of 2 entries of .* are missing"):
        convert(tmp_path / "b.csv", {"unit_columns": "u0"})
    (tmp_path / "c.csv").write_text("n,u0\n1,2\n2,\n")
    with pytest.raises(InvalidDocument, match="declare missing=True"):
        convert(tmp_path / "c.csv", {"unit_columns": "u0"})


# -------------------------------------------------------------------------------------------------------------- real ones


@needs_data
@pytest.mark.slow
def test_a_session_of_inferior_temporal_cortex():
    path = min(Path(NAMED_FOLDER, "zhang_desimone_it").glob("*.npz"))
    variables = {"object": "object", "position": "position", "shown": "time > 0"}
    recipe = {"activity": "counts", "unit": "unit", "start_s": -0.5, "step_s": 0.05, "variables": variables}
    recording = convert(path, recipe, licence="GPL-3.0")
    with np.load(path) as archive:
        counts, time_s = archive["counts"], archive["time_s"]
        assert np.array_equal(recording.latents(), counts.reshape(-1, counts.shape[2]))
        assert recording.unit_names == archive["unit"].tolist()
        told = [recording.spec("object").label(one) for one in recording.values(["object"])[:: len(time_s), 0]]
        assert told == archive["object"].tolist()
    assert recording.values(["shown"])[: len(time_s), 0].tolist() == (time_s > 0).tolist()
    assert len(recording.spec("object").meanings) == 7
    assert recording.spec("position").meanings == ("lower", "middle", "upper")


# ------------------------------------------------------------------------------------------------- what may be taken wrongly


def archive(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize("named", [("trial", "time", "neuron"), ("sample", "cell"), ("a", "b", "c")])
def test_axes_of_unknown_names_are_never_guessed(tmp_path, named):
    array = xr.DataArray(np.ones((5, 4, 3)[: len(named)]), dims=named, coords={"side": (named[0], SIDE)})
    with pytest.raises(InvalidInput, match=rf"its axes are called '{named[0]}', '{named[1]}'.*axes"):
        from_xarray(array)


def test_time_goes_with_steps_and_a_guess_is_told(tmp_path):
    path = archive(tmp_path, x=np.arange(32.0).reshape(4, 4, 2), time=[-0.1, 0, 0.1, 0.2], side=np.arange(4))
    recording = convert(path, {"activity": "x", "variables": {"after": "time > 0.05", "side": "side"}})
    assert recording.values(["after"]).reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 4
    assert "'side' one per trial, not per step" in recording.manifest.provenance.notes


@pytest.mark.parametrize(
    ("arrays", "recipe", "told"),
    [
        ({"lengths": [1, 2]}, {}, "lengths array 'lengths' of shape (2,) does not fit"),
        ({"present": np.ones((2, 2), bool)}, {}, "present array 'present' of shape (2, 2) does not fit"),
        ({"step": [0, 10, 20, 30]}, {"start_s": 0, "step_s": 0.1}, "steps are numbered 0, 10, 20, …"),
        ({"time": [0, 1, 2, 3]}, {"start_s": 0, "step_s": 0.1, "variables": {"t": "time"}}, "two sources of time"),
        ({"trial": [0, 1, np.nan, 3, 4]}, {}, "1 of 5 entries are missing"),
        ({"manifest": "/etc/hostname"}, {}, "expected a JSON object, got '/etc/hostname'"),
        ({"manifest": np.arange(3)}, {}, "expected a JSON object"),
        ({}, {"step_s": float("inf")}, "step_s"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, arrays, recipe, told):
    path = archive(tmp_path, activity=np.ones((5, 4, 3)), side=SIDE, **arrays)
    with pytest.raises((InvalidInput, InvalidDocument), match=re.escape(told)):
        convert(path, {"variables": {"side": "side"}} | recipe)


def test_the_manifest_in_an_archive_is_no_path_without_a_recipe_either(tmp_path):
    (tmp_path / "secret.json").write_text('{"task": "secret"}')
    path = archive(tmp_path, activity=np.ones((3, 2)), side=SIDE[:3], manifest=str(tmp_path / "secret.json"))
    with pytest.raises(InvalidDocument, match="expected a JSON object"):
        convert(path)
    with pytest.raises(InvalidDocument, match="expected a JSON object"):
        Recording.from_npz(path)


def test_columns_of_shape_n_1_and_whole_trials_of_nothing(tmp_path):
    activity = np.ones((5, 4, 3))
    activity[1] = np.nan
    recording = convert(archive(tmp_path, x=activity, side=np.array(SIDE)[:, None]), {"activity": "x"})
    assert [recording.spec("side").label(one) for one in recording.values(["side"])[::4, 0]] == SIDE[:1] + SIDE[2:]
    assert "4 steps at the ends of trials, NaN in every unit, 1 trials of nothing else" in (
        recording.manifest.provenance.notes
    )


def test_large_whole_numbers_stay_exact(tmp_path):
    recording = convert(archive(tmp_path, activity=np.array([[2**24 + 1], [1]]), side=SIDE[:2]))
    assert recording.latents(dtype=np.float64).ravel().tolist() == [2**24 + 1, 1]


@pytest.mark.parametrize("damage", ["member", "content", "shape"])
def test_archives_that_hold_something_else_are_told(tmp_path, damage):
    path = tmp_path / "a.npz"
    if damage == "content":
        np.savez_compressed(path, activity=np.random.default_rng(0).normal(size=(50, 10)), side=np.arange(50))
        content = bytearray(path.read_bytes())
        content[200:230] = b"\xff" * 30
        path.write_bytes(content)
    else:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 1000), }".ljust(117) + b"\n"
        name, text = (
            ("readme.txt", b"hello") if damage == "member" else ("activity.npy", b"\x93NUMPY\x01\x00v\x00" + header)
        )
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, text)
    for recipe in (None, {"activity": "activity"}):
        # an array of that shape would take more memory than a reader may have
        with pytest.raises(InvalidInput, match="takes more memory" if damage == "shape" else "not a NumPy archive"):
            convert(path, recipe)


def table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


def test_a_column_called_sample_is_kept(tmp_path):
    recording = convert(table(tmp_path, "sample,test,u0\nA,B,1\nB,A,2\n"), {"unit_columns": r"u\d"})
    assert recording.spec("sample_").meanings == ("A", "B")
    numbered = table(tmp_path, "sample,test,u0\n3,B,1\n8,A,2\n")  # rows, as export numbers them
    assert convert(numbered, {"unit_columns": r"u\d"}).variable_names == ["test"]
    recording = convert(numbered, {"unit_columns": r"u\d", "variables": {"odd": "sample % 2"}})
    assert recording.values(["odd"]).ravel().tolist() == [1, 0]


def test_names_that_clean_alike_are_both_kept(tmp_path):
    recording = convert(table(tmp_path, "cue time,cue-time,左,u0\n1,5,7,1\n2,6,8,2\n"), {"unit_columns": r"u\d"})
    found = {name: recording.values([name]).ravel().tolist() for name in recording.variable_names}
    assert found == {"cue_time": [1, 2], "cue_time_2": [5, 6], "unnamed": [7, 8]}


def test_trials_that_come_back_are_refused_unless_steps_tell_them_apart(tmp_path):
    path = table(tmp_path, "session,trial,s,u0\nA,0,0,1\nA,1,0,2\nB,0,1,3\nB,1,1,4\n")
    with pytest.raises(InvalidInput, match=r"trial 0 comes back after others \(2 trials do\)"):
        convert(path, {"unit_columns": r"u\d"})
    recording = convert(path, {"unit_columns": r"u\d", "step": "s"})
    assert recording.dataset["trial"].values.tolist() == [0, 1, 0, 1]


def test_a_pandas_index_is_no_variable(tmp_path):
    frame = pd.DataFrame({"side": ["l", "r"], "u0": [1.0, 2.0]})
    frame.to_csv(tmp_path / "t.csv")
    recording = convert(tmp_path / "t.csv", {"unit_columns": r"u\d"})
    assert recording.variable_names == ["side"]
    assert "a first column without a name" in recording.manifest.provenance.notes


def test_parquet_with_several_levels_of_index_and_missing_numbers(tmp_path):
    frame = pd.DataFrame({"trial": [0, 0, 1, 1], "step": [0, 1, 0, 1], "side": list("llrr"), "u0": [1.0, 2, 3, 4]})
    frame["n"] = pd.array([1, None, 2, 3], dtype="Int64")
    frame.set_index(["trial", "step"]).to_parquet(tmp_path / "t.parquet")
    recording = convert(tmp_path / "t.parquet", {"unit_columns": r"u\d", "variables": {"side": "side"}})
    assert recording.dataset["trial"].values.tolist() == [0, 0, 1, 1]
    assert recording.dataset["step"].values.tolist() == [0, 1, 0, 1]
    with pytest.raises(InvalidDocument, match="1 of 4 entries of 'n' are missing"):
        convert(tmp_path / "t.parquet", {"unit_columns": r"u\d", "variables": {"n": "n"}})
