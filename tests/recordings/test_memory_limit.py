"""Every reader of foreign files works in a child process, which may take only so much memory."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat
from typer.testing import CliRunner

from neuromas import child_server, unpacking
from neuromas.actions.annotate import annotate
from neuromas.actions.compare import compare
from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput
from neuromas.recordings.convert.converter import Converter, convert
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.recordings.trust import trusting
from neuromas.schema.actions import AnnotateRequest, CompareRequest
from neuromas.schema.recipe import Recipe
from neuromas.unpacking import largest, most_memory

# children find what they are to do by its name
sys.path.append(str(Path(__file__).parents[1]))
import child_jobs

MIB = 2**20


@pytest.fixture
def little_memory(monkeypatch):
    """Reading a file may take 100 MiB."""
    monkeypatch.setattr(unpacking, "_LEAST_MEMORY", 100 * MIB)
    monkeypatch.setattr(unpacking, "_COPIES", 0)


def large_npz(path: Path) -> None:
    np.savez_compressed(path, activity=np.zeros((2000, 12_500)), cue=np.arange(2000))


def large_mat(path: Path) -> None:
    savemat(path, {"activity": np.zeros((2000, 12_500)), "cue": np.arange(2000)}, do_compression=True)


def large_netcdf(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("activity", data=np.zeros((2000, 12_500)), compression="gzip")
        file["cue"] = np.arange(2000)


@pytest.mark.parametrize(("ending", "write"), [(".npz", large_npz), (".mat", large_mat), (".nc", large_netcdf)])
def test_a_file_that_takes_too_much_memory_is_one_error(tmp_path, little_memory, ending, write):
    """200 MiB of zeros are no bomb, but more than is allowed here."""
    path = tmp_path / f"a{ending}"
    write(path)
    recipe = {"axes": ["sample", "unit"], "variables": {"cue": "cue"}}
    with pytest.raises(
        InvalidInput, match=r"a\.\w+: reading takes more memory than the 100\.0 MiB .*largest_gib"
    ) as refused:
        convert(path, recipe)
    assert refused.value.kind == "too_large"
    if ending != ".mat":
        with pytest.raises(InvalidInput, match="more memory than"):
            Recording.from_file(path)
    words = ["register", str(path), "--set", "lab", "--store", str(tmp_path / "store"), "--variable", "cue=cue"]
    done = CliRunner().invoke(app, [*words, "-o", 'axes=["sample","unit"]'])
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    assert "--largest-gib" in done.output
    # the limit follows the size that is allowed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "_COPIES", 4)
        assert convert(path, recipe, largest_gib=1).n_units == 12_500


def test_converters_of_other_packages_are_limited_too(tmp_path, little_memory):
    (tmp_path / "a.acme").write_text("")
    converter = Converter("acme", (".acme",), Recipe, child_jobs.convert_by_memory)
    for how in ("numpy", "bytes", "wrapped"):
        (tmp_path / "a.acme").write_text(how)
        with pytest.raises(InvalidInput, match=r"more memory than the 100\.0 MiB"):
            converter.convert(tmp_path / "a.acme", Recipe(), {})


def test_the_limit_follows_the_file_and_the_option(monkeypatch):
    monkeypatch.setattr(unpacking.os, "sysconf", lambda name: 2**20)  # a machine with 1 TiB
    assert most_memory(1000) == 12 * 2**30
    assert most_memory(2**30) == 408 * 2**30
    with largest(0.5):
        assert most_memory(2**30) == 10 * 2**30
    monkeypatch.setattr(unpacking.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}[name])
    assert most_memory(1000) == 4 * 2**30
    monkeypatch.delattr(unpacking.os, "sysconf")
    assert most_memory(1000) == 12 * 2**30


def test_a_system_without_such_limits_reads_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    child_server._limit("RLIMIT_DATA", 1)
    monkeypatch.undo()
    child_server._limit("RLIMIT_OF_NO_SYSTEM", 1)
    monkeypatch.setattr(child_server, "Path", lambda name: Path("/nonexistent"))
    assert child_server._memory_now() == 0


# -------------------------------------------------------------------------------------------------------- in a child


@pytest.fixture
def store(tmp_path, planted) -> RecordingStore:
    made = RecordingStore(tmp_path / "store")
    made.register(planted(), set="lab")
    return made


def test_every_reader_works_in_a_child(tmp_path, planted, store):
    """Which is ended after a time too short for any file."""
    export(planted(), tmp_path / "a.npz")
    (tmp_path / "table.csv").write_text("trial,x\n" + "".join(f"{trial},{trial}\n" for trial in range(20)))
    np.save(tmp_path / "rdm.npy", 1 - np.eye(4))
    request = AnnotateRequest(
        store=str(store.path),
        recording="lab/toy",
        table=str(tmp_path / "table.csv"),
        variable={"x": "x"},
        timeout_s=1e-6,
    )
    rdm = str(tmp_path / "rdm.npy")
    with trusting(timeout_s=1e-6):
        for read in (
            lambda: Recording.from_npz(tmp_path / "a.npz"),
            lambda: Recording.from_file(tmp_path / "a.npz"),
            lambda: annotate(request),
            lambda: compare(CompareRequest(x=rdm, y=rdm, timeout_s=1e-6)),
        ):
            with pytest.raises(InvalidInput, match=r"took longer than 1e-06 s .*--timeout-s") as stopped:
                read()
            assert stopped.value.kind == "reader_stopped"
    here = Recording.from_npz(tmp_path / "a.npz", in_process=True)
    assert here.content_sha256 == Recording.from_npz(tmp_path / "a.npz").content_sha256


def test_a_table_that_crashes_its_reader_is_one_error(tmp_path, store, monkeypatch):
    """A workbook with an XML bomb, a table of a single quote, bytes of any kind: one sentence each."""
    words = ["annotate", "lab/toy", "--store", str(store.path), "--variable", "x=x"]
    for name, content in {
        "a.csv": b'"' * 10_001,
        "b.csv.gz": b"\x1f\x8b" + bytes(50),
        "c.xlsx": b"PK" + bytes(90),
        "d.zip": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        done = CliRunner().invoke(app, [*words, "--table", str(tmp_path / name)])
        assert done.exit_code in (2, 3), done.output
        assert "Traceback" not in done.output


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".csv.zip", ".xlsx"])
def test_a_table_read_in_a_child_is_that_read_here(tmp_path, store, ending):
    import pandas as pd

    table = pd.DataFrame(
        {"trial": range(20), "id": [f"{n:03d}" for n in range(20)], "x": np.arange(20) / 7,
         "late": [n % 2 == 0 for n in range(20)], "day": pd.date_range("2020-01-01", periods=20), "mixed": [1, "a"] * 10}
    )  # fmt: skip
    path = tmp_path / f"table{ending}"
    if ending == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    made = []
    for in_process in (False, True):
        request = AnnotateRequest(
            store=str(store.path), recording="lab/toy", table=str(path), in_process=in_process, name=f"v{in_process}",
            variable={"id": "id", "x": "x", "late": "late"},
        )  # fmt: skip
        annotate(request)
        made.append(store.get(f"lab/v{in_process}"))
    xr.testing.assert_identical(*(recording.dataset.drop_attrs() for recording in made))
    assert made[0].dataset["x"].values[:7].max() == pytest.approx(1 / 7)
    refused = AnnotateRequest(store=str(store.path), recording="lab/toy", table=str(path), variable={"day": "day + 1"})
    with pytest.raises(InvalidInput, match="day"):
        annotate(refused)
