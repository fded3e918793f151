"""Files that crash or stop what reads them, and what a child hands over."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat
from typer.testing import CliRunner

from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput
from neuromas.recordings import assemble
from neuromas.recordings.content import content_sha256
from neuromas.recordings.convert.anndata import to_anndata
from neuromas.recordings.convert.converter import Converter, convert, find_converter
from neuromas.recordings.export import export
from neuromas.recordings.isolation import _variable, _written, read_recording
from neuromas.recordings.recording import Recording
from neuromas.recordings.trust import trust, trusting
from neuromas.schema.recipe import ArraysRecipe, Recipe

# children find what they are to do by its name
sys.path.append(str(Path(__file__).parents[1]))
import child_jobs

RECIPE = {"variables": {"cue": "cue"}}


def damaged(path: Path, at: int, value: int) -> Path:
    """A ``.mat`` file with one wrong byte."""
    savemat(path, {"activity": np.zeros((2, 3, 4)), "cue": np.array(["a", "b"], dtype=object)})
    data = bytearray(path.read_bytes())
    assert data[at] != value
    data[at] = value
    path.write_bytes(bytes(data))
    return path


# scipy's reader crashes: the type of the numbers does not exist
CRASHES = (192, 0)


def test_a_file_that_crashes_its_reader_is_one_error(tmp_path):
    path = damaged(tmp_path / "a.mat", *CRASHES)
    for read in (
        lambda: convert(path, RECIPE),
        lambda: find_converter(path).convert(path, ArraysRecipe.parse(RECIPE, "recipe"), {}),
        lambda: find_converter(path).contents(path),
    ):
        with pytest.raises(InvalidInput, match=r"a\.mat: the process that read it crashed \(SIG\w+\)") as caught:
            read()
        assert caught.value.kind == "reader_stopped"


def test_a_crash_ends_a_command_with_one_line(tmp_path):
    path = damaged(tmp_path / "a.mat", *CRASHES)
    words = ["register", str(path), "--set", "lab", "--store", str(tmp_path / "store"), "--variable", "cue=cue"]
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 2
        assert "crashed (SIG" in done.output
        assert "Traceback" not in done.output
    assert not (tmp_path / "store" / "lab").exists()


def test_a_file_that_keeps_its_reader_is_given_up(tmp_path):
    (tmp_path / "a.acme").write_text("")
    converter = Converter("acme", (".acme",), Recipe, child_jobs.convert_by_loop, child_jobs.loop)
    started = time.monotonic()
    with (
        trusting(timeout_s=1.0),
        pytest.raises(InvalidInput, match=r"a\.acme: reading took longer than 1 s and was ended.*--timeout-s"),
    ):
        converter.convert(tmp_path / "a.acme", Recipe(), {})
    assert time.monotonic() - started < 20
    words = ["register", "--set", "lab", "--store", str(tmp_path / "store"), "--timeout-s", "0.000001"]
    np.savez(tmp_path / "b.npz", activity=np.zeros((2, 3, 4)), cue=[1, 2])
    done = CliRunner().invoke(app, [*words, str(tmp_path / "b.npz")])
    assert "took longer" in done.output


def test_converters_of_other_packages_run_in_a_child_if_it_finds_them(tmp_path):
    (tmp_path / "a.acme").write_text("")
    crashing = Converter("acme", (".acme",), Recipe, child_jobs.convert_by_crash, child_jobs.crash)
    with pytest.raises(InvalidInput, match="crashed"):
        crashing.convert(tmp_path / "a.acme", Recipe(), {})
    with pytest.raises(InvalidInput, match="crashed"):
        crashing.contents(tmp_path / "a.acme")
    pids: list[int] = []

    def here(path: Path, recipe: Recipe, fields: object) -> Recording:
        pids.append(os.getpid())
        return Recording.from_arrays(np.zeros((2, 1)), {"a": [1, 2]}, name="here")

    local = Converter("acme", (".acme",), Recipe, here)
    assert local.convert(tmp_path / "a.acme", Recipe(), {}).name == "here"
    assert pids == [os.getpid()]


@pytest.mark.parametrize("ending", [".npz", ".nc", ".zarr", ".h5ad", ".mat"])
def test_a_child_hands_over_the_same_recording(tmp_path, planted, ending):
    path, recipe = tmp_path / f"toy{ending}", None
    if ending in (".npz", ".nc"):
        export(planted(), path)
    elif ending == ".zarr":
        planted().to_dataset().to_zarr(path, zarr_format=2)
    elif ending == ".h5ad":
        to_anndata(planted()).write_h5ad(path)
    else:
        savemat(path, {"activity": np.random.default_rng(0).normal(size=(2, 3, 4)), "cue": ["a", "bé"]})
        recipe = RECIPE
    apart, here = convert(path, recipe), convert(path, recipe, in_process=True)
    assert content_sha256(apart) == content_sha256(here)
    created = {"provenance": {"created"}}
    assert apart.manifest.model_dump(exclude=created) == here.manifest.model_dump(exclude=created)
    assert apart.dataset.drop_attrs().identical(here.dataset.drop_attrs())
    for name, coordinate in here.dataset.coords.items():
        assert {key: np.asarray(value).tolist() for key, value in apart.dataset[name].attrs.items()} == {
            key: np.asarray(value).tolist() for key, value in coordinate.attrs.items()
        }
    # as after any other way of reading, the numbers can be changed
    apart.dataset["activity"].values[0, 0] = 7


def test_recordings_of_files_are_read_in_a_child(tmp_path, planted, monkeypatch):
    export(planted(), tmp_path / "a.nc")
    Recording.from_file(tmp_path / "a.nc")

    def not_here(*_: object, **__: object) -> None:
        raise RuntimeError("read in this process")

    monkeypatch.setattr(assemble.xr, "load_dataset", not_here)
    assert Recording.from_file(tmp_path / "a.nc").name == "toy"
    with trusting(in_process=True), pytest.raises(InvalidInput, match="read in this process"):
        Recording.from_file(tmp_path / "a.nc")


def test_paths_are_the_callers(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    np.savez(tmp_path / "below" / "a.npz", activity=np.zeros((2, 3, 4)), cue=[1, 2])
    monkeypatch.chdir(tmp_path)
    assert convert("below/a.npz").name == "a"
    monkeypatch.chdir(tmp_path / "below")
    assert convert("a.npz").name == "a"
    with pytest.raises(InvalidInput, match=r"^a\.npz: "):
        convert("a.npz", {"activity": "cue"})


def entry(values: np.ndarray, folder: Path) -> tuple[dict, bytes]:
    with (folder / "data").open("w+b") as file:
        described = _written(file, xr.Variable(("sample",) if values.ndim == 1 else ("sample", "unit"), values))
        file.seek(0)
        return described, file.read()


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(3, 2),
        np.arange(6, dtype=">i2").reshape(2, 3).T,
        np.array([True, False]),
        np.array(["", "é", "𝔘"]),
        np.zeros((0, 2), dtype=np.float16),
    ],
    ids=str,
)
def test_arrays_are_handed_over_as_they_are(tmp_path, values):
    described, data = entry(values, tmp_path)
    read = _variable(described, memoryview(data))
    np.testing.assert_array_equal(read.values, values)
    assert read.dtype == values.dtype.newbyteorder("<")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "|O"},
        {"dtype": "<f8, <i4"},
        {"dtype": "<M8[s]"},
        {"shape": [-1]},
        {"shape": [2**62]},
        {"shape": [2**40, 2**40]},
        {"start": -8},
        {"start": 16},
        {"start": 2**70},
        {"start": "x"},
        {"dims": None},
        {"dtype": "|b1", "shape": [24]},
        {"dtype": "<U1", "shape": [6]},
        {"attributes": 3},
    ],
    ids=str,
)
def test_arrays_that_cannot_be_are_refused(tmp_path, change):
    described, data = entry(np.array([1.5, 2.5, -1e300]), tmp_path)
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        _variable(described | change, memoryview(data))


@pytest.mark.parametrize("missing", ["manifest", "variables", "activity", "unit"])
def test_half_a_recording_is_refused(tmp_path, monkeypatch, planted, missing):
    def run(*_: object, **__: object) -> object:
        with (tmp_path / "data").open("w+b") as file:
            recording = planted()
            variables = {str(name): _written(file, array) for name, array in recording.dataset.variables.items()}
            document = {"manifest": recording.manifest.model_dump(mode="json"), "variables": variables}
            variables.pop("sample", None)
            document.pop(missing, None)
            variables.pop(missing, None)
            file.seek(0)
            return document, memoryview(file.read())

    monkeypatch.setattr("neuromas.recordings.isolation.run_in_child", run)
    (tmp_path / "a.nc").write_text("")
    with pytest.raises(InvalidInput):
        Recording(*read_recording(tmp_path / "a.nc", child_jobs.write))


def test_trust_is_given_for_a_while():
    assert not trust().in_process
    with trusting(in_process=True), trusting(timeout_s=3.0):
        assert trust().in_process
        assert trust().timeout_s == 3
    assert not trust().in_process
