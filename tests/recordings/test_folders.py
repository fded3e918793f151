"""Folders of sorted spikes (phy) and of suite2p: planted spikes and frames are found again; no pickle is opened."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.actions.register import preview, register
from neuromas.cli.verbs import app
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.phy import read_sample_rate
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import RegisterRequest

STARTS = (1.0, 3.0, 5.0)
RECIPE = {
    "events": "cues.csv", "start_s": 0, "stop_s": 1, "activity": "count", "coverage": "throughout", "variables": {"side": "side"},
}  # fmt: skip
FRAMES = {"events": "cues.csv", "start_s": 0, "stop_s": 1, "bin_s": 0.5, "fs": 10, "variables": {"side": "side"}}
RATE = 30000


ANNOUNCED = b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (9999999,), }".ljust(127) + b"\n"
"""The head of an array of which the file holds nothing."""


class Trap:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def cues(folder: Path) -> None:
    (folder / "cues.csv").write_text(
        "time,side\n" + "".join(f"{time},{'lr'[n % 2]}\n" for n, time in enumerate(STARTS))
    )


@pytest.fixture
def ks(tmp_path: Path) -> Path:
    """A folder of 5 clusters as phy leaves it: some labelled, one only summarised, and things that are of no use here."""
    folder = tmp_path / "sorted.v2"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "spike_times.npy", np.sort(rng.integers(0, 8 * RATE, 400)).astype(np.uint64)[:, None])
    np.save(folder / "spike_clusters.npy", rng.choice([0, 2, 10, 11, 203], 400).astype(np.int32))
    np.save(folder / "templates.npy", np.zeros((2, 3, 4)))
    (folder / "temp_wh.dat").write_bytes(bytes(100))
    (folder / "params.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "dat_path = 'C:\\Users\\someone\\raw.dat'\nn_channels_dat = 385\nsample_rate = 30000.\nhp_filtered = False\n"
    )
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n2\tmua\n10\tgood\n77\tgood\n")
    (folder / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n0\tgood\n2\tmua\n10\tmua\n11\tgood\n203\tmua\n")
    (folder / "cluster_info.tsv").write_text(
        "cluster_id\tdepth\tgroup\n0\t10.5\tgood\n2\t20\tmua\n10\t30\tgood\n11\t40\tnoise\n203\t50\t\n"
    )
    cues(tmp_path)
    return folder


def expected(folder: Path) -> dict[str, list[int]]:
    """Spikes of each cluster in the second after each cue, counted one by one."""
    samples, clusters = np.load(folder / "spike_times.npy").ravel(), np.load(folder / "spike_clusters.npy")
    return {
        str(cluster): [
            sum(start <= sample / RATE < start + 1 for sample in samples[clusters == cluster].tolist())
            for start in STARTS
        ]
        for cluster in np.unique(clusters).tolist()
    }


# ------------------------------------------------------------------------------------------------------- phy


def test_spikes_of_clusters_are_counted_and_their_tables_describe_them(ks):
    recording = convert(ks, RECIPE)
    counted = expected(ks)
    assert recording.unit_names == ["0", "2", "10", "11", "203"] == list(counted)
    np.testing.assert_array_equal(recording.latents(), np.transpose(list(counted.values())))
    units = recording.dataset
    assert units["group"].values.tolist() == ["good", "mua", "good", "noise", ""]  # the fourth from the summary
    assert units["KSLabel"].values.tolist() == ["good", "mua", "mua", "good", "mua"]
    assert units["depth"].values.tolist() == [10.5, 20, 30, 40, 50]
    assert units["cluster_id"].values.tolist() == [0, 2, 10, 11, 203]
    assert recording.manifest.name == "sorted.v2"
    assert not (ks.parent / "ran").exists()


def test_the_files_that_were_read_are_hashed_and_no_others(ks):
    provenance = convert(ks, RECIPE).manifest.provenance
    tables = [f"cluster_{name}.tsv" for name in ("group", "KSLabel", "info")]
    read = sorted(["spike_times.npy", "spike_clusters.npy", "params.py", *tables])
    lines = [f"{name} {hashlib.sha256((ks / name).read_bytes()).hexdigest()}\n" for name in read]
    assert provenance.source == "sorted.v2"
    assert provenance.source_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    (ks / "temp_wh.dat").write_bytes(bytes(50))
    assert convert(ks, RECIPE).manifest.provenance.source_sha256 == provenance.source_sha256
    (ks / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tmua\n")
    with pytest.warns(UserWarning, match="'group' differs"):
        changed = convert(ks, RECIPE)
    assert changed.manifest.provenance.source_sha256 != provenance.source_sha256
    assert hashlib.sha256((ks.parent / "cues.csv").read_bytes()).hexdigest() in provenance.notes


@pytest.mark.parametrize(
    ("units_where", "kept"),
    [
        ("group == 'good'", ["0", "10"]),
        ("KSLabel == 'good' and depth < 20", ["0"]),
        ("unit == '11' or cluster_id > 100", ["11", "203"]),
        ("group != 'noise' and rate > 0", ["0", "2", "10"]),  # 203 has no label
        ("group != 'noise' and firing_rate > 0", ["0", "2", "10"]),
    ],
)
def test_units_are_chosen_by_their_labels(ks, units_where, kept):
    recording = convert(ks, RECIPE | {"units_where": units_where})
    assert recording.unit_names == kept
    counted = expected(ks)
    np.testing.assert_array_equal(recording.latents(), np.transpose([counted[name] for name in kept]))
    assert f"{5 - len(kept)} units not selected" in recording.manifest.provenance.notes


def test_tables_that_disagree_are_told(ks):
    (ks / "cluster_info.tsv").write_text("cluster_id\tgroup\n0\tnoise\n2\tmua\n")
    with pytest.warns(UserWarning, match="column 'group' differs from that of another table .* for units '0'"):
        recording = convert(ks, RECIPE)
    assert recording.dataset["group"].values.tolist() == ["good", "mua", "good", "", ""]


def test_tables_without_rows_or_without_clusters_are_passed_over(ks):
    (ks / "cluster_group.tsv").write_text("cluster_id\tgroup\n")
    (ks / "cluster_info.tsv").unlink()
    (ks / "cluster_notes.csv").write_text("a,b\n1,2\n")
    recording = convert(ks, RECIPE)
    assert "group" not in recording.dataset.coords
    notes = recording.manifest.provenance.notes
    assert "cluster_group.tsv has a row for none of the units" in notes
    assert "cluster_notes.csv was not read: no column cluster_id or id" in notes


def test_a_table_of_the_user_describes_units_too(ks):
    (ks.parent / "areas.csv").write_text("cluster,area\n10,CA1\n0,CA3\n2,CA1\n11,CA1\n203,CA3\n")
    recording = convert(ks, RECIPE | {"units": "areas.csv", "units_on": "cluster", "units_where": "area == 'CA3'"})
    assert recording.unit_names == ["0", "203"]
    assert "units areas.csv (sha256" in recording.manifest.provenance.notes
    with pytest.raises(NotFound, match="no column with the names of the units; expected one of unit, cluster_id"):
        convert(ks, RECIPE | {"units": "areas.csv"})


@pytest.mark.parametrize("name", ["spike_clusters", "spike_templates"])
def test_clusters_before_and_after_curation(ks, name):
    if name == "spike_templates":
        (ks / "spike_clusters.npy").rename(ks / "spike_templates.npy")
    assert convert(ks, RECIPE).n_units == 5


@pytest.mark.parametrize(
    ("parameters", "recipe", "rate"),
    [
        ("sample_rate = 25000", {}, 25000),
        ("sample_rate=2.5e4  # Hz", {}, 25000),
        ("sample_rate: float = 25_000.", {}, 25000),
        ("# sample_rate = 1\nsample_rates = 2", {"sample_rate": 25000}, 25000),
        (None, {"sample_rate": 25000}, 25000),
        ("sample_rate = get_rate()", {"times": "spike_times / 25000"}, 25000),
        ("sample_rate = 30000.", {"times": "spike_times / 25000"}, 25000),
    ],
)
def test_the_sample_rate_comes_from_the_parameters_or_the_recipe(ks, parameters, recipe, rate):
    (ks / "params.py").unlink() if parameters is None else (ks / "params.py").write_text(parameters)
    recording = convert(ks, RECIPE | recipe)
    samples = np.load(ks / "spike_times.npy").ravel() / rate
    totals = [((samples >= start) & (samples < start + 1)).sum() for start in STARTS]
    assert recording.latents().sum(axis=1).tolist() == totals


@pytest.mark.parametrize(
    ("parameters", "recipe", "message"),
    [
        (None, {}, "the sample rate is unknown"),
        ("sample_rate = get_rate()", {}, "to be a number above 0, got 'get_rate\\(\\)'; the file is not run"),
        ("sample_rate = -1", {}, "to be a number above 0"),
        ("sample_rate = nan", {}, "to be a number above 0"),
        ("sample_rate = 30000.", {"sample_rate": 25000}, "two sample rates: 30000 in params.py, 25000 in the recipe"),
    ],
)
def test_unclear_sample_rates_are_refused(ks, parameters, recipe, message):
    (ks / "params.py").unlink() if parameters is None else (ks / "params.py").write_text(parameters)
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(ks, RECIPE | recipe)
    assert raised.value.kind == "invalid_times"


def test_parameters_are_read_as_text_whatever_they_hold(tmp_path):
    path = tmp_path / "params.py"
    path.write_bytes(b"\xff\0 (((\nsample_rate = 20000\n" + b"[" * 100_000)
    assert read_sample_rate(path) == 20000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"events": None}, InvalidInput, "the name of a file with one row per event"),
        ({"events": "none.csv"}, NotFound, "no such file of events"),
        ({"events": "../../etc/passwd"}, InvalidInput, "expected a file beside the folder"),
        ({"units": "/etc/passwd"}, InvalidInput, "expected a file beside the folder"),
        ({"unit": "amplitudes"}, NotFound, "no file amplitudes.npy"),
        ({"times": "spike_times", "sample_rate": 3}, InvalidDocument, "either times, in seconds, or sample_rate"),
        ({"units_where": "goup == 'good'"}, NotFound, "did you mean 'group'"),
        ({"units_where": "rate > 1e6"}, InvalidInput, "is true for none of 5 units"),
    ],
)
def test_recipes_that_do_not_fit_a_folder_of_spikes(ks, change, error, message):
    with pytest.raises(error, match=message):
        convert(ks, RECIPE | change)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spike_times.npy", b"", "cannot be read as a NumPy array"),
        (
            "spike_times.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (9999999,), }",
            "NumPy array",
        ),
        ("spike_clusters.npy", pickle.dumps([1, 2]), "cannot be read as a NumPy array"),
        ("cluster_group.tsv", b"\x89HDF\r\n\x1a\n\0\0\0", "binary data"),
        ("cluster_group.tsv", b"cluster_id\tgroup\n0\tgood\n0\tmua\n", "two rows for cluster_id '0'"),
    ],
)
def test_damaged_files_of_a_folder_are_told(ks, name, content, message):
    (ks / name).write_bytes(content)
    with pytest.raises(NeuromasError, match=message):
        convert(ks, RECIPE)


def test_half_samples_are_no_samples(ks):
    np.save(ks / "spike_times.npy", np.arange(400) / 7)
    with pytest.raises(InvalidInput, match="if these are seconds, say so"):
        convert(ks, RECIPE)
    assert convert(ks, RECIPE | {"times": "spike_times"}).latents().sum() == 7 * 3


def test_links_that_lead_out_of_a_folder_are_refused(ks, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.tsv"
    secret.write_text("cluster_id\tsecret\n0\tx\n")
    (ks / "cluster_secret.tsv").symlink_to(secret)
    with pytest.raises(InvalidInput, match=r"lies in another file, '.*secret\.tsv' \(symbolic link\)") as refused:
        convert(ks, RECIPE)
    assert refused.value.kind == "external_files"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def moved_away(path: Path, folder: Path) -> Path:
    """`path` in another folder; a link stands in its place."""
    target = Path(shutil.move(path, folder / path.name))
    path.symlink_to(target)
    return target


@pytest.mark.parametrize("name", ["spike_times.npy", "params.py", "cluster_info.tsv", "../cues.csv"])
def test_links_that_lead_out_of_a_folder_are_followed_and_hashed_where_that_is_allowed(ks, tmp_path_factory, name):
    before = convert(ks, RECIPE)
    target = moved_away(ks / name, tmp_path_factory.mktemp("elsewhere"))
    for in_process in (False, True):
        with pytest.raises(InvalidInput, match=rf"lies in another file, '{target}' \(symbolic link\).*allow_external"):
            convert(ks, RECIPE, in_process=in_process)
        allowed = convert(ks, RECIPE, in_process=in_process, allow_external=True)
        np.testing.assert_array_equal(allowed.latents(), before.latents())
        hashes = {
            (ks.parent / place).resolve(): own for place, own in allowed.manifest.provenance.external_sha256.items()
        }
        assert hashes == {target: sha256(target)}
        assert allowed.manifest.provenance.source_sha256 == before.manifest.provenance.source_sha256


def test_the_command_line_follows_links_where_that_is_allowed(ks, tmp_path, tmp_path_factory):
    target = moved_away(tmp_path / "cues.csv", tmp_path_factory.mktemp("elsewhere"))
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    words = [
        "register",
        str(ks),
        "--set",
        "lab",
        "--store",
        str(tmp_path / "store"),
        "--recipe",
        str(tmp_path / "recipe.json"),
    ]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--allow-external" in refused.output
    assert CliRunner().invoke(app, [*words, "--allow-external"]).exit_code == 0
    provenance = RecordingStore(tmp_path / "store").get("lab/sorted.v2").manifest.provenance
    assert list(provenance.external_sha256.values()) == [sha256(target)]


def test_a_recipe_names_no_file_elsewhere_even_where_links_are_followed(ks, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "cues.csv"
    other.write_text("time,side\n1.0,l\n")
    for name in (str(other), f"../{other.parent.name}/cues.csv", f"../../{other.parent.name}/cues.csv"):
        with pytest.raises((InvalidInput, NotFound), match=r"expected a file beside|no such file"):
            convert(ks, RECIPE | {"events": name}, allow_external=True)


def test_a_plane_that_lies_elsewhere(suite2p, tmp_path_factory):
    before = convert(suite2p.parent, FRAMES)
    moved = moved_away(suite2p, tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(InvalidInput, match="symbolic link"):
        convert(suite2p.parent, FRAMES)
    allowed = convert(suite2p.parent, FRAMES, allow_external=True)
    np.testing.assert_array_equal(allowed.latents(), before.latents())
    assert sha256(moved / "F.npy") in allowed.manifest.provenance.external_sha256.values()


def test_a_folder_may_be_a_link_or_where_one_stands(ks, tmp_path_factory, monkeypatch):
    counted = convert(ks, RECIPE).latents()
    here = tmp_path_factory.mktemp("links")
    (here / "linked").symlink_to(ks)
    cues(here)
    linked = convert(here / "linked", RECIPE)
    assert (linked.manifest.name, linked.manifest.provenance.source) == ("linked", "linked")
    monkeypatch.chdir(ks)
    inside = convert(".", RECIPE)
    assert (inside.manifest.name, inside.manifest.provenance.source) == ("sorted.v2", "sorted.v2")
    for recording in (linked, inside):
        np.testing.assert_array_equal(recording.latents(), counted)


def test_other_arrays_of_spikes_with_names_of_their_own(tmp_path):
    folder = tmp_path / "alf"
    folder.mkdir()
    np.save(folder / "spikes.times.npy", np.array([1.1, 1.2, 3.5, 5.9]))
    np.save(folder / "spikes.clusters.npy", np.array([4, 4, 1, 4]))
    (folder / "clusters.metrics.csv").write_text("cluster_id,label\n1,0.3\n4,1.0\n")
    cues(folder)
    recipe = RECIPE | {"times": "spikes.times", "unit": "spikes.clusters", "units": "clusters.metrics.csv"}
    recording = convert(folder, recipe, format="spikes")
    assert recording.unit_names == ["1", "4"]
    assert recording.latents().tolist() == [[0, 2], [1, 0], [0, 1]]
    assert recording.dataset["label"].values.tolist() == [0.3, 1.0]


# ------------------------------------------------------------------------------------------------------- suite2p


@pytest.fixture
def suite2p(tmp_path: Path) -> Path:
    """Four regions, 80 frames at 10 Hz, and the pickles that suite2p writes."""
    folder = tmp_path / "suite2p" / "plane0"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in ("F", "Fneu", "spks"):
        np.save(folder / f"{name}.npy", rng.normal(size=(4, 80)).astype(np.float32))
    np.save(folder / "iscell.npy", np.array([[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.6]]))
    for name in ("stat", "ops"):
        np.save(folder / f"{name}.npy", np.array([Trap(tmp_path / "unpickled")], dtype=object))
    cues(tmp_path)
    return folder


def averaged(values: np.ndarray) -> np.ndarray:
    """Means of five frames at a time from each cue on, shape (6 samples, n_regions)."""
    first = [int(10 * start) + 5 * step for start in STARTS for step in (0, 1)]
    return np.array([values[:, frame : frame + 5].mean(axis=1) for frame in first])


@pytest.mark.parametrize("source", ["F", "Fneu", "spks"])
def test_frames_are_averaged_in_their_bins(suite2p, source):
    recording = convert(suite2p.parent, FRAMES | {"source": source})
    np.testing.assert_allclose(recording.latents(), averaged(np.load(suite2p / f"{source}.npy")), rtol=1e-5)
    assert recording.unit_names == ["0", "1", "2", "3"]
    assert recording.dataset["iscell"].values.tolist() == [True, False, True, True]
    assert recording.dataset["iscell_probability"].values.tolist() == [0.9, 0.1, 0.8, 0.6]
    assert recording.manifest.layer == source
    assert not (suite2p.parents[1] / "unpickled").exists()


def test_cells_are_chosen_and_neuropil_is_subtracted(suite2p):
    recording = convert(
        suite2p.parent, FRAMES | {"neuropil": 0.7, "units_where": "iscell and iscell_probability > 0.7"}
    )
    corrected = np.load(suite2p / "F.npy") - 0.7 * np.load(suite2p / "Fneu.npy")
    assert recording.unit_names == ["0", "2"]
    np.testing.assert_allclose(recording.latents(), averaged(corrected)[:, [0, 2]], rtol=1e-4, atol=1e-6)
    still = np.load(suite2p / "F.npy")
    still[1] = 0
    np.save(suite2p / "F.npy", still)
    assert convert(suite2p.parent, FRAMES | {"units_where": "not silent"}).unit_names == ["0", "2", "3"]


def test_frames_have_times_of_their_own_or_a_first_one(suite2p):
    data = np.load(suite2p / "F.npy")
    late = FRAMES | {"first_frame_s": 0.2}
    shifted = averaged(np.c_[np.zeros((4, 2)), data])
    np.testing.assert_allclose(convert(suite2p.parent, late).latents(), shifted, rtol=1e-5)
    times = np.arange(80) / 10 + 0.2
    np.save(suite2p.parents[1] / "frames.npy", times)
    (suite2p.parents[1] / "ttl.csv").write_text("t\n" + "".join(f"{time}\n" for time in times))
    del late["fs"], late["first_frame_s"]
    for name in ("frames.npy", "ttl.csv"):
        recording = convert(suite2p.parent, late | {"frame_times": name})
        np.testing.assert_allclose(recording.latents(), shifted, rtol=1e-5)
        assert f"frame_times {name} (sha256" in recording.manifest.provenance.notes
    np.save(suite2p.parents[1] / "frames.npy", times[:-1])
    with pytest.raises(InvalidInput, match="expected the times of 80 frames"):
        convert(suite2p.parent, late | {"frame_times": "frames.npy"})


def test_bins_without_frames_are_no_samples(suite2p):
    (suite2p.parents[1] / "cues.csv").write_text("time,side\n1,l\n7.5,r\n100,l\n")
    recording = convert(suite2p.parent, FRAMES)
    assert list(zip(recording.trial.tolist(), recording.step.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    assert "1 trials in which no unit was recorded" in recording.manifest.provenance.notes


def test_one_of_several_planes_is_named(suite2p):
    other = suite2p.parent / "plane1"
    other.mkdir()
    np.save(other / "F.npy", np.ones((2, 80)))
    with pytest.raises(InvalidInput, match="it holds plane0, plane1; name one in the recipe"):
        convert(suite2p.parent, FRAMES)
    assert convert(suite2p.parent, FRAMES | {"plane": "plane1"}).n_units == 2
    with pytest.raises(InvalidInput, match=r"no plane '\.\./secret'"):
        convert(suite2p.parent, FRAMES | {"plane": "../secret"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fs": None}, InvalidInput, "suite2p keeps fs in ops.npy, which is a pickle and is not opened"),
        ({"activity": "count"}, InvalidDocument, "frames are averaged"),
        ({"source": "spks", "neuropil": 0.7}, InvalidDocument, "neuropil is subtracted from F"),
        ({"frame_times": "t.npy"}, InvalidDocument, "either frame_times, or fs"),
        ({"units_where": "rate > 1"}, InvalidInput, "'rate' needs activity in Hz"),
        ({"events": None}, InvalidInput, "the name of a file with one row per event"),
    ],
)
def test_recipes_that_do_not_fit_a_folder_of_frames(suite2p, change, error, message):
    with pytest.raises(error, match=message):
        convert(suite2p.parent, FRAMES | change)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("iscell", np.ones((3, 2)), r"iscell.npy: expected shape \(4, 2\), a row for each region"),
        ("F", np.ones(80), r"F.npy: expected numbers of shape \(region, frame\)"),
        ("F", np.array([{}], dtype=object), "pickled Python objects"),
        ("Fneu", np.ones((4, 79)), r"Fneu.npy has shape \(4, 79\), but F.npy has \(4, 80\)"),
    ],
)
def test_arrays_that_do_not_fit_each_other(suite2p, name, array, message):
    np.save(suite2p / f"{name}.npy", array)
    with pytest.raises(InvalidInput, match=message):
        convert(suite2p.parent, FRAMES | {"neuropil": 0.7})


# ------------------------------------------------------------------------------------------------------- both


def test_folders_are_known_by_what_they_hold(ks, suite2p, tmp_path):
    for folder, name in ((ks, "phy"), (suite2p, "suite2p"), (suite2p.parent, "suite2p")):
        assert find_converter(folder).name == name
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=r"phy: spike_times.npy; suite2p: F.npy or spks.npy"):
        find_converter(tmp_path / "empty")


def test_contents_list_arrays_and_tables_and_open_no_pickle(ks, suite2p):
    listed = dict(find_converter(ks).contents(ks))
    assert listed["spike_clusters"].startswith("(400,) int32")
    assert listed["cluster_group.tsv: group"] == "(4,) <U4: good, mua, good, …"
    listed = dict(find_converter(suite2p.parent).contents(suite2p.parent))
    assert listed["plane0/F"].startswith("(4, 80) float32")
    assert listed["plane0/stat"] == "not usable: pickled objects"
    assert not (suite2p.parents[1] / "unpickled").exists()


def test_a_folder_is_registered_as_a_file_is(ks, tmp_path):
    request = RegisterRequest(
        sources=(str(ks),),
        set="lab",
        recipe=RECIPE,
        option={"units_where": "group == 'good'"},
        store=str(tmp_path / "s"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (shown,) = preview(request)
        (registered,) = register(request)
    assert shown.format == "phy"
    assert shown.recordings[0].unit_names == ["0", "10"]
    assert registered.name == "lab/sorted.v2"
    stored = RecordingStore(tmp_path / "s").get("lab/sorted.v2")
    np.testing.assert_array_equal(stored.latents(), shown.recordings[0].latents())
    assert stored.dataset["group"].values.tolist() == ["good", "good"]
