"""Files that refer to other files: refused, or read and hashed where that is allowed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.actions.register import preview, register
from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings import outside
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.matlab import read_mat
from neuromas.recordings.export import export
from neuromas.recordings.outside import outside_hashes, references, refuse_outside
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import RegisterRequest

SECRET = np.full((6, 2), 42.0)
RECIPE = {"axes": ["sample", "unit"], "variables": {"count": "count"}}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A folder with files that others reach out for."""
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "secret.bin").write_bytes(SECRET.tobytes())
    with h5py.File(folder / "secret.h5", "w") as file:
        file["activity"] = SECRET
    return folder


def by_raw(group: Any, name: str, others: Path) -> None:
    external = [(str(others / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    group.create_dataset(name, shape=SECRET.shape, dtype="f8", external=external)


def by_link(group: Any, name: str, others: Path) -> None:
    group[name] = h5py.ExternalLink(str(others / "secret.h5"), "/activity")


def by_soft_link(group: Any, name: str, others: Path) -> None:
    group.file["aside"] = h5py.ExternalLink(str(others / "secret.h5"), "/")
    group[name] = h5py.SoftLink("/aside/activity")


def by_virtual(group: Any, name: str, others: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, "f8")
    layout[:] = h5py.VirtualSource(str(others / "secret.h5"), "activity", SECRET.shape)
    group.create_virtual_dataset(name, layout)


WAYS = {"raw": by_raw, "link": by_link, "soft link": by_soft_link, "virtual": by_virtual}
SORTS = {
    "raw": "external raw storage",
    "link": "external link",
    "soft link": "external link",
    "virtual": "virtual dataset",
}
OTHER = {"raw": "secret.bin", "link": "secret.h5", "soft link": "secret.h5", "virtual": "secret.h5"}
ways = pytest.mark.parametrize("way", list(WAYS))


def netcdf(path: Path, reach: Callable[..., None], others: Path) -> dict[str, Any]:
    with h5py.File(path, "w") as file:
        reach(file, "activity", others)
        file["count"] = np.arange(6.0)
    return RECIPE


def mat(path: Path, reach: Callable[..., None], others: Path) -> dict[str, Any]:
    with h5py.File(path, "w", userblock_size=512) as file:
        reach(file, "activity", others)
        file["count"] = np.arange(6.0)[None]
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return {"axes": ["unit", "sample"], "variables": {"count": "count"}}


def anndata(path: Path, reach: Callable[..., None], others: Path) -> dict[str, Any]:
    import pandas as pd
    from anndata import AnnData

    obs, var = (pd.DataFrame(index=pd.Index([str(row) for row in range(size)], dtype=object)) for size in SECRET.shape)
    AnnData(np.zeros(SECRET.shape), obs=obs.assign(count=np.arange(6)), var=var).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        reach(file, "X", others)
        if file.get("X", getlink=True).__class__ is h5py.HardLink:
            file["X"].attrs.update(attributes)
    return {"variables": {"count": "count"}}


def nwb(path: Path, reach: Callable[..., None], others: Path) -> dict[str, Any]:
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile, TimeSeries

    file = NWBFile("session", "identifier", datetime(2020, 1, 1, tzinfo=UTC))
    file.add_acquisition(TimeSeries(name="lfp", data=np.zeros(SECRET.shape), unit="V", rate=1.0))
    for start in range(6):
        file.add_trial(float(start), start + 1.0)
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    with h5py.File(path, "r+") as stored:
        group = stored["acquisition/lfp"]
        attributes = dict(group["data"].attrs)
        del group["data"]
        reach(group, "data", others)
        if group.get("data", getlink=True).__class__ is h5py.HardLink:
            group["data"].attrs.update(attributes)
    return {"source": "lfp", "start_s": 0, "stop_s": 1, "variables": {"count": "id % 3"}}


FILES = {".nc": netcdf, ".h5ad": anndata, ".nwb": nwb, ".mat": mat}


@ways
@pytest.mark.parametrize("ending", [".nc", ".h5ad", ".nwb"])
def test_other_files_are_refused_and_read_where_that_is_allowed(tmp_path, others, ending, way):
    if way in ("link", "soft link") and ending != ".nc":
        # h5py links keep attributes in the other file
        with h5py.File(others / "secret.h5", "r+") as file:
            file["activity"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0", "unit": "V"})
            file["activity"].attrs.update({"conversion": 1.0, "resolution": -1.0, "offset": 0.0})
    path = tmp_path / f"a{ending}"
    recipe = FILES[ending](path, WAYS[way], others)
    message = rf"a\{ending}: '.*' lies in another file, '.*{OTHER[way]}' \({SORTS[way]}\); .*allow_external"
    with pytest.raises(InvalidInput, match=message) as caught:
        convert(path, recipe)
    assert caught.value.kind == "external_files"
    with pytest.raises(InvalidInput, match="lies in another file"):
        convert(path, recipe, in_process=True)
    converter = find_converter(path)
    with pytest.raises(InvalidInput, match="lies in another file"):
        converter.contents(path)
    with pytest.raises(InvalidInput, match="lies in another file"):
        converter.convert(path, converter.recipe.parse(recipe, "recipe"), {})
    if way == "soft link" and ending != ".nc":
        # pynwb and anndata stumble over the link at the top
        return
    recording = convert(path, recipe, allow_external=True)
    assert (recording.latents() == 42).all()
    assert recording.manifest.provenance.external_sha256 == {f"others/{OTHER[way]}": sha256(others / OTHER[way])}


@ways
def test_an_array_of_a_mat_file_that_lies_elsewhere_is_unusable_unless_allowed(tmp_path, others, way):
    recipe = mat(tmp_path / "a.mat", WAYS[way], others)
    assert "another file" in read_mat(tmp_path / "a.mat").unusable["activity"]
    with pytest.raises(InvalidInput, match=r"'activity' cannot be used: .*another file"):
        convert(tmp_path / "a.mat", recipe)
    recording = convert(tmp_path / "a.mat", recipe | {"axes": ["unit", "sample"]}, allow_external=True)
    assert (recording.latents() == 42).all()
    assert recording.manifest.provenance.external_sha256 == {f"others/{OTHER[way]}": sha256(others / OTHER[way])}


@ways
def test_a_recording_of_a_file_refuses_too(tmp_path, others, way):
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        WAYS[way](file, "activity", others)
    with pytest.raises(InvalidInput, match="lies in another file"):
        Recording.from_file(path)


def test_register_refuses_shows_and_allows(tmp_path, others):
    path = tmp_path / "a.nc"
    recipe = netcdf(path, by_virtual, others)
    asked = RegisterRequest(sources=(str(path),), set="lab", store=str(tmp_path / "store"), recipe=recipe)
    for action in (register, preview):
        with pytest.raises(InvalidInput, match="lies in another file"):
            action(asked)
    assert not (tmp_path / "store").exists()
    allowed = asked.model_copy(update={"allow_external": True})
    assert (preview(allowed)[0].recordings[0].latents() == 42).all()
    register(allowed)
    stored = RecordingStore(tmp_path / "store").get("lab/a")
    assert stored.manifest.provenance.external_sha256 == {"others/secret.h5": sha256(others / "secret.h5")}


def test_the_command_line_says_what_allows_it(tmp_path, others):
    recipe = json.dumps(netcdf(tmp_path / "a.nc", by_link, others))
    words = ["register", str(tmp_path / "a.nc"), "--set", "lab", "--store", str(tmp_path / "store"), "--recipe", recipe]
    refused = CliRunner().invoke(app, [*words, "--dry-run"])
    assert refused.exit_code != 0
    allowed = CliRunner().invoke(app, [*words, "--allow-external"])
    assert allowed.exit_code == 0, allowed.output


def test_files_behind_other_files_are_hashed_too(tmp_path, others):
    with h5py.File(others / "middle.h5", "w") as file:
        by_raw(file, "raw", others)
        file["back"] = h5py.ExternalLink(str(tmp_path / "a.nc"), "/")
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["activity"] = h5py.ExternalLink("others/middle.h5", "/raw")
        file["nowhere"] = h5py.ExternalLink("missing.h5", "/")
    hashes = outside_hashes(tmp_path / "a.nc")
    assert hashes == {f"others/{name}": sha256(others / name) for name in ("middle.h5", "secret.bin")}


def test_numbers_are_not_made_up_for_files_that_are_missing_or_short(tmp_path, others):
    recipe = netcdf(tmp_path / "raw.nc", by_raw, others)
    (others / "secret.bin").write_bytes(SECRET.tobytes()[:-1])
    with pytest.raises(InvalidInput, match="is too short: 95 bytes, expected 96"):
        convert(tmp_path / "raw.nc", recipe, allow_external=True)
    netcdf(tmp_path / "virtual.nc", by_virtual, others)
    with h5py.File(others / "secret.h5", "r+") as file:
        del file["activity"]
    with pytest.raises(InvalidInput, match="has no dataset 'activity'"):
        convert(tmp_path / "virtual.nc", recipe, allow_external=True)
    (others / "secret.h5").write_text("other")
    with pytest.raises(InvalidInput, match="cannot be read"):
        convert(tmp_path / "virtual.nc", recipe, allow_external=True)
    (others / "secret.h5").unlink()
    with pytest.raises(NotFound, match=r"secret\.h5' \(virtual dataset\), which does not exist"):
        convert(tmp_path / "virtual.nc", recipe, allow_external=True)


def test_a_virtual_dataset_of_its_own_file_is_no_other_file(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["stored"] = SECRET
        layout = h5py.VirtualLayout(SECRET.shape, "f8")
        layout[:] = h5py.VirtualSource(file["stored"])
        file.create_virtual_dataset("activity", layout)
        file["count"] = np.arange(6.0)
        file["again"] = h5py.SoftLink("/stored")
    assert list(references(tmp_path / "a.nc")) == []
    assert (convert(tmp_path / "a.nc", RECIPE).latents() == 42).all()


@pytest.mark.parametrize("holder", ["attribute", "dataset", "compound", "list", "region"])
def test_what_only_a_reference_leads_to_is_looked_at(tmp_path, others, holder):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        by_raw(file, "zzz", others)
        reference = file["zzz"].regionref[:] if holder == "region" else file["zzz"].ref
        if holder == "attribute":
            file.attrs["reference"] = reference
        elif holder == "compound":
            dtype = np.dtype([("start", "i4"), ("which", h5py.ref_dtype)])
            file["rows"] = np.array([(0, reference)], dtype=dtype)
        elif holder == "list":
            rows = np.empty(1, dtype=object)
            rows[0] = np.array([reference], dtype=object)
            file.create_dataset("rows", data=rows, dtype=h5py.vlen_dtype(h5py.ref_dtype))
        else:
            dtype = h5py.regionref_dtype if holder == "region" else h5py.ref_dtype
            file.create_dataset("rows", data=np.array([reference], dtype=object), dtype=dtype)
    (link,) = references(path)
    assert link.file == str(others / "secret.bin")
    data = bytearray(path.read_bytes())
    # the table of the root group's names forgets the last one: only the reference leads there now
    at = data.rindex(b"SNOD") + 6
    data[at] -= 1
    path.write_bytes(bytes(data))
    with h5py.File(path) as file:
        assert "zzz" not in list(file)
    (hidden,) = references(path)
    assert (hidden.sort, hidden.file) == ("external raw storage", str(others / "secret.bin"))


def test_the_walk_ends(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        for number in range(6):
            group[f"back-{number}"] = file["/"]
            group[f"self-{number}"] = h5py.SoftLink("/a")
        group.attrs["own"] = group.ref
    assert list(references(path)) == []
    monkeypatch.setattr(outside, "_MOST", 8)
    with pytest.raises(InvalidInput, match="holds more than 8 objects and links") as caught:
        refuse_outside(path)
    assert caught.value.kind == "too_large"


def test_a_walk_is_not_led_too_deep(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(1200):
            group = group.create_group("g")
    with pytest.raises(InvalidInput, match="objects more than 1,000 deep"):
        refuse_outside(path)


def test_symbolic_links_out_of_a_folder(tmp_path, planted):
    recording = planted()
    export(recording, tmp_path / "a.nc")
    recording.to_dataset().drop_attrs().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    folder = tmp_path / "a.zarr" / "activity"
    chunk = next(entry for entry in folder.iterdir() if entry.name[0].isdigit())
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(chunk, tmp_path / "elsewhere" / "chunk")
    chunk.symlink_to(moved)
    with pytest.raises(
        InvalidInput, match=rf"'activity/{chunk.name}' lies in another file, '{moved}' \(symbolic link\)"
    ):
        convert(tmp_path / "a.zarr")
    with pytest.raises(InvalidInput, match="symbolic link"):
        Recording.from_file(tmp_path / "a.zarr")
    allowed = convert(tmp_path / "a.zarr", allow_external=True, missing=True)
    np.testing.assert_array_equal(allowed.latents(), recording.latents())
    assert allowed.manifest.provenance.external_sha256 == {"elsewhere/chunk": sha256(moved)}
    chunk.unlink()
    shutil.move(moved, folder / "real")
    # inside the folder, and the folder itself by another name
    chunk.symlink_to("real")
    (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
    np.testing.assert_array_equal(convert(tmp_path / "b.zarr", missing=True).latents(), recording.latents())


def test_names_of_chunks_do_not_lead_out_of_a_folder(tmp_path):
    from neuromas.recordings.convert.zarr_as_hdf5 import _read_array

    (tmp_path / "a" / "0").mkdir(parents=True)
    (tmp_path / "secret0").write_bytes(np.float64(42).tobytes())
    layout = {"shape": [1, 1], "chunks": [1, 1], "dtype": "<f8", "dimension_separator": "/../../secret"}
    with pytest.raises(InvalidInput, match=r"expected '\.' or '/' between the numbers of a chunk"):
        _read_array(tmp_path / "a", layout)


def write_mat(path: Path, fill: Callable[[Any], None]) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return path


def test_loops_of_links_in_a_mat_file_end(tmp_path):
    def fill(file: Any) -> None:
        group = file.create_group("a")
        group["x"] = np.zeros((3, 2))
        for number in range(6):
            group[f"soft{number}"] = h5py.SoftLink("/a")
            group[f"hard{number}"] = group
        file["round"] = h5py.SoftLink("/about")
        file["about"] = h5py.SoftLink("/round")
        cell = file.create_dataset("cell", shape=(2,), dtype=h5py.ref_dtype)
        cell[:] = [cell.ref, cell.ref]
        cell.attrs["MATLAB_class"] = np.bytes_("cell")

    source = read_mat(write_mat(tmp_path / "a.mat", fill))
    assert source.arrays["a.x"].shape == (2, 3)
    assert source.unusable["a.soft0"] == source.unusable["a.hard5"] == "a link back to what holds it"
    assert source.unusable["round"] == "a link that leads nowhere"
    assert "cell" in source.unusable
    assert len(source.unusable) == 15


def test_names_of_one_array_in_a_mat_file_are_limited(tmp_path):
    """6^16 names, without any loop."""

    def fill(file: Any) -> None:
        below = file.create_group("#x")
        below["x"] = np.zeros((3, 2))
        for _ in range(16):
            above = file.create_group(f"#{len(file)}")
            for number in range(6):
                above[f"g{number}"] = below
            below = above
        file["top"] = below

    with pytest.raises(InvalidInput, match="holds more than 100,000 arrays, counting each under all of its names"):
        read_mat(write_mat(tmp_path / "a.mat", fill))


def test_an_array_with_many_names_in_a_mat_file_is_read_once(tmp_path, monkeypatch):
    from neuromas.recordings.convert import matlab

    def fill(file: Any) -> None:
        file["x"] = np.arange(6.0).reshape(3, 2)
        for number in range(5):
            file[f"y{number}"] = file["x"] if number % 2 else h5py.SoftLink("/x")

    read = []
    monkeypatch.setattr(
        matlab, "_from_hdf5", lambda item, *_, f=matlab._from_hdf5: read.append(item.name) or f(item, {}, 0)
    )
    arrays = read_mat(write_mat(tmp_path / "a.mat", fill)).arrays
    assert len(arrays) == 6
    assert all(np.array_equal(array, np.arange(6.0).reshape(3, 2).T) for array in arrays.values())
    assert len(read) == 1


def test_a_linked_folder_of_a_zarr_folder(tmp_path, planted):
    recording = planted()
    recording.to_dataset().drop_attrs().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "a.zarr" / "activity").rename(tmp_path / "elsewhere" / "activity")
    (tmp_path / "a.zarr" / "activity").symlink_to(moved)
    with pytest.raises(InvalidInput, match=r"'activity' lies in another file, .* \(symbolic link\)"):
        convert(tmp_path / "a.zarr")
    allowed = convert(tmp_path / "a.zarr", allow_external=True, missing=True)
    np.testing.assert_array_equal(allowed.latents(), recording.latents())
    expected = {f"elsewhere/activity/{file.name}": sha256(file) for file in moved.iterdir()}
    assert allowed.manifest.provenance.external_sha256 == expected
