"""The labelled container: what goes in comes out, and what is wrong is told at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings import check
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.recording import Sampling, VariableSpec


def problems(*args, **kwargs) -> str:
    with pytest.raises(InvalidDocument) as caught:
        Recording.from_arrays(*args, **kwargs)
    return "\n".join(caught.value.problems)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_samples_are_trials_then_steps(n_trials, n_steps, n_units, seed):
    rng = np.random.default_rng(seed)
    activity = rng.normal(size=(n_trials, n_steps, n_units))
    lengths = rng.integers(0, n_steps + 1, n_trials)
    lengths[rng.integers(n_trials)] = n_steps
    count = rng.integers(-3, 3, (n_trials, n_steps))
    side = rng.choice(["left", "right"], n_trials)
    recording = Recording.from_arrays(activity, {"count": count, "side": side}, name="r", lengths=lengths)
    rows = [(trial, step) for trial in range(n_trials) for step in range(lengths[trial])]
    assert list(zip(recording.trial, recording.step, strict=True)) == rows
    np.testing.assert_array_equal(recording.latents(dtype=float), [activity[row] for row in rows])
    np.testing.assert_array_equal(recording.values(["count"])[:, 0], [count[row] for row in rows])
    meanings = [recording.spec("side").label(code) for code in recording.values(["side"])[:, 0]]
    assert meanings == [side[trial] for trial, _ in rows]
    mask = np.arange(n_steps) < lengths[:, None]
    again = Recording.from_arrays(activity, {"count": count, "side": side}, name="r", present=mask)
    xr.testing.assert_identical(again.dataset, recording.dataset)


def test_equal_numbers_of_trials_and_steps_are_not_confused():
    recording = Recording.from_arrays(np.zeros((3, 3, 1)), {"v": [5, 6, 7]}, name="r", step=[10, 11, 12])
    assert recording.step.tolist() == [10, 11, 12] * 3
    assert recording.values(["v"])[:, 0].tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7]


def test_two_dimensional_activity_with_trials_counts_steps():
    recording = Recording.from_arrays(np.zeros((5, 1)), {"v": range(5)}, name="r", trial=[7, 7, 9, 7, 9])
    assert recording.step.tolist() == [0, 1, 0, 2, 1]


def test_types_are_inferred_and_stored_small(planted):
    recording = planted()
    assert {spec.name: spec.type for spec in recording.manifest.variables} == {
        "side": "categorical",
        "count": "integer",
        "load": "real",
    }
    side = recording.dataset["side"]
    assert side.dtype == np.int8
    assert side.attrs["flag_values"].tolist() == [0, 1]
    assert side.attrs["flag_meanings"] == "lick_left lick_right"
    assert recording.manifest.variable("side").meanings == ("lick left", "lick right")
    assert recording.manifest.vocabulary == ("BOS", "D", "R")
    assert recording.dataset["token"].dtype == np.int32
    assert recording.dataset["depth"].attrs == {"units": "mm"}
    assert recording.activity.attrs["units"] == "Hz"


def test_booleans_are_categorical():
    recording = Recording.from_arrays(np.zeros((2, 1)), {"rewarded": [True, False]}, name="r")
    assert recording.spec("rewarded").meanings == ("false", "true")
    assert recording.values(["rewarded"])[:, 0].tolist() == [1, 0]


def test_declared_codes_are_used():
    spec = VariableSpec(name="phase", type="categorical", values=(7, 300), meanings=("resp", "demo"))
    recording = Recording.from_arrays(np.zeros((2, 1)), {"phase": ["demo", "resp"]}, name="r", variable_specs=[spec])
    assert recording.values(["phase"])[:, 0].tolist() == [300, 7]
    assert recording.dataset["phase"].dtype == np.int16


def test_every_problem_is_told_at_once():
    activity = np.zeros((4, 3), dtype=np.float32)
    activity[1, 0], activity[2, 1], activity[3, 1] = np.inf, np.nan, np.nan
    told = problems(
        activity,
        {"count": [0, 1, 9, 1], "speed": [0.1, np.nan, 0.2, 0.3], "short": [1, 2]},
        name="bad",
        units=["a", "b", "a"],
        trial=[3, 3, 4, 4],
        step=[0, 0, 1, 2],
        variable_specs=[
            VariableSpec(name="count", type="integer", values=(0, 1, 2)),
            VariableSpec(name="absent", type="integer"),
        ],
    )
    for expected in (
        "infinite in 1 of 4 samples of unit 'a', first at sample 1 (trial 3, step 0)",
        "NaN in 2 of 4 samples of unit 'b', first at sample 2 (trial 4, step 1)",
        "duplicate names 'a'",
        "more than one at trial 3 step 0",
        "variable 'count': values '9' are not allowed (first at sample 2 (trial 4, step 1)); allowed are '0', '1', '2'",
        "variable 'absent': in the manifest but not in the data",
        "variable 'speed': not finite in 1 samples, first at sample 1",
        "variable 'short': expected shape (4,), one per sample, got (2,)",
    ):
        assert expected in told


def test_problems_of_the_manifest_are_told_together():
    told = problems(np.zeros((1, 1)), {"v": [1]}, name="no spaces", access="write", sampling=3, nonsense=1)
    for place in ("name", "access", "sampling", "nonsense"):
        assert f"manifest: {place}" in told


@pytest.mark.parametrize(
    ("activity", "arguments", "expected"),
    [
        (np.zeros(3), {}, "got (3,)"),
        (np.zeros((0, 3)), {}, "got (0, 3)"),
        (np.array([["a"]]), {}, "got dtype <U1"),
        (np.zeros((2, 3, 1)), {"lengths": [1, 4]}, "expected 0 to 3"),
        (np.zeros((2, 3, 1)), {"lengths": [1, 2, 3]}, "expected 2 whole numbers"),
        (np.zeros((2, 3, 1)), {"lengths": [0, 0]}, "every step is padding"),
        (np.zeros((2, 3, 1)), {"present": np.ones((2, 2), bool)}, "present: expected booleans of shape (2, 3)"),
        (np.zeros((2, 3, 1)), {"lengths": [1, 1], "present": np.ones((2, 3), bool)}, "got both"),
        (np.zeros((2, 1)), {"lengths": [1, 1]}, "only beside activity"),
        (np.zeros((2, 2)), {"units": ["a"]}, "units: expected 2 values"),
        (np.zeros((2, 2)), {"unit_metadata": {"depth": [1]}}, "unit metadata 'depth': expected 2 values"),
        (np.zeros((2, 2)), {"unit_metadata": {"trial": [1, 2]}}, "unit metadata 'trial': the name is reserved"),
        (np.zeros((2, 2)), {"sample_metadata": {"a/b": [1, 2]}}, "expected a name of letters"),
        (np.zeros((2, 2)), {"eligible": [1, 2]}, "eligible: expected booleans"),
        (np.zeros((2, 2)), {"token": [0, 5], "vocabulary": ["x", "y"]}, "token: expected codes 0 to 1"),
        (np.zeros((2, 2)), {"token": [0, 1]}, "no vocabulary"),
        (np.zeros((2, 2)), {"token": ["x", "z"], "vocabulary": ["x", "y"]}, "token: 'z' not in the vocabulary"),
        (np.zeros((2, 2)), {"trial": [0.5, 1.0]}, "trial: expected whole numbers"),
    ],
)
def test_bad_input_is_refused(activity, arguments, expected):
    values = np.zeros(len(activity) if activity.size else 0)
    assert expected in problems(activity, {"v": values}, name="bad", **arguments)


@pytest.mark.parametrize("name", ["trial", "unit", "activity", "n_samples", "with space", "9lives"])
def test_variables_with_unusable_names_are_refused(name):
    assert name in problems(np.zeros((2, 2)), {name: [1, 2]}, name="bad")


def test_a_recording_needs_a_variable():
    assert "variables" in problems(np.zeros((2, 2)), {}, name="bad")


def test_an_unknown_meaning_is_refused():
    spec = {"name": "phase", "type": "categorical", "values": [0, 1], "meanings": ["demo", "resp"]}
    told = problems(np.zeros((2, 1)), {"phase": ["demo", "rest"]}, name="bad", variable_specs={"phase": spec})
    assert "variable 'phase': values 'rest' are not allowed; allowed are 'demo', 'resp'" in told


def test_missing_activity_must_be_declared(planted):
    recording = planted()
    first = recording.trial == 0
    np.testing.assert_array_equal(recording.complete(), ~first)
    assert recording.complete(["u0", "u2"]).all()
    assert "declare missing=True" in problems(np.array([[np.nan]]), {"v": [1]}, name="bad")


def test_latents_of_chosen_units_and_samples(planted, monkeypatch):
    recording = planted()
    monkeypatch.setattr(check, "BLOCK_BYTES", 64)  # several blocks
    whole = recording.activity.values
    np.testing.assert_array_equal(recording.latents(), whole)
    np.testing.assert_array_equal(recording.latents(["u3", "u0"]), whole[:, [3, 0]])
    order = np.random.default_rng(0).permutation(recording.n_samples)[:17]
    np.testing.assert_array_equal(recording.latents(["u2"], order), whole[order][:, [2]])
    mask = recording.eligible
    np.testing.assert_array_equal(recording.latents(samples=mask), whole[mask])
    with pytest.raises(InvalidInput, match="samples: expected a mask"):
        recording.latents(samples=np.array([recording.n_samples]))


def test_unknown_names_list_what_exists(planted):
    recording = planted()
    with pytest.raises(NotFound, match=r"no variable 'cuont'; it has side, count, load"):
        recording.values(["cuont"])
    with pytest.raises(NotFound, match=r"no unit 'u9'; its 5 units are 'u0', 'u1'"):
        recording.select_units(["u9"])
    with pytest.raises(InvalidInput, match="selected twice: 'u1'"):
        recording.select_units(["u1", "u1"])
    with pytest.raises(InvalidInput, match="no unit was selected"):
        recording.select_units([])


def test_selected_units_and_samples_are_recordings(planted):
    recording = planted().select_units(["u4", "u1"])
    assert recording.unit_names == ["u4", "u1"]
    assert recording.dataset["depth"].values.tolist() == [0.4, 0.1]
    Recording(recording.dataset, recording.manifest)  # valid as it stands
    some = recording.select_samples(recording.eligible)
    assert some.n_samples == recording.eligible.sum()
    with pytest.raises(InvalidInput, match="no sample was selected"):
        recording.select_samples(np.zeros(recording.n_samples, bool))


def test_it_shows_what_it_is(planted):
    recording = planted()
    lines = repr(recording).splitlines()
    assert (
        lines[0]
        == f"<Recording 'toy' (sample: {recording.n_samples}, unit: 5)> float32 in Hz, 20 trials, access 'read'"
    )
    assert lines[1:4] == [
        "Variables:",
        "    side     categorical: lick left, lick right",
        "    count    integer: 0 to 3",
    ]
    page = recording._repr_html_()
    counts = [int((recording.values(["side"])[:, 0] == code).sum()) for code in (0, 1)]
    assert f"lick left ({counts[0]}), lick right ({counts[1]})" in page
    for text in (
        "Recording toy",
        "5 units: u0",
        "in 20 trials",
        "float32, in Hz, in memory",
        "session (sample)",
        "depth (unit)",
    ):
        assert text in page


def test_what_it_shows_is_escaped():
    recording = Recording.from_arrays(
        np.zeros((1, 1)), {"v": ["<script>"]}, name="r", system="<img src=x>", units=["<u>"], licence="a & b"
    )
    page = recording._repr_html_()
    assert not {"<script>", "<img", "<u>", "a & b"} & {
        text for text in ("<script>", "<img", "<u>", "a & b") if text in page
    }
    assert "&lt;script&gt; (1)" in page


def test_many_values_are_shown_as_a_range():
    recording = Recording.from_arrays(np.zeros((300, 1)), {"n": np.arange(300), "x": np.arange(300) / 2}, name="r")
    page = recording._repr_html_()
    assert "0 to 299, 300 distinct values" in page
    assert "0 to 149.5, 300 distinct values" in page


def test_a_recording_on_disk_is_shown_without_reading_it(planted, tmp_path, monkeypatch):
    store = RecordingStore(tmp_path / "store")
    store.register([planted()], set="s")
    lazy = store.get("s/toy", load=False)

    def refuse(*_):
        raise AssertionError("activity was read")

    with monkeypatch.context() as patched:
        for name in ("blocks", "latents", "_read"):
            patched.setattr(Recording, name, refuse)
        shown = repr(lazy) + lazy._repr_html_()
    assert not lazy.dataset["activity"].variable._in_memory
    assert "lick left, lick right" in shown
    assert "on disk" in shown


# ------------------------------------------------------------------------------------------------------- meanings, not codes


def meant(recording: Recording, name: str) -> list[str]:
    return [recording.spec(name).label(code) for code in recording.values([name])[:, 0]]


def test_what_leaves_a_recording_holds_meanings(planted):
    recording = planted()
    dataset = recording.to_dataset()
    assert dataset["side"].values.tolist() == meant(recording, "side")
    assert dataset["token"].values.tolist() == [
        recording.manifest.vocabulary[code] for code in recording.dataset["token"].values
    ]
    assert list(dataset.coords) == list(recording.dataset.coords)
    assert recording.dataset["side"].dtype == np.int8  # inside, codes stay
    left = recording.activity[recording.activity.side == "lick left"]
    np.testing.assert_array_equal(left, recording.latents()[recording.values(["side"])[:, 0] == 0])
    assert recording.activity.groupby("side").mean().side.values.tolist() == ["lick left", "lick right"]
    frame = recording.to_dataframe()
    assert frame["side"].tolist() == meant(recording, "side")
    assert frame.columns.tolist()[-5:] == recording.unit_names


def test_codes_that_are_not_in_order_are_decoded():
    spec = VariableSpec(name="v", type="categorical", values=(40, -7, 300), meanings=("a", "b", "c d"))
    recording = Recording.from_arrays(np.zeros((4, 1)), {"v": ["c d", "b", "a", "b"]}, name="r", variable_specs=[spec])
    assert recording.to_dataset()["v"].values.tolist() == ["c d", "b", "a", "b"]
    again = Recording.from_dataset(recording.to_dataset())
    xr.testing.assert_identical(again.dataset, recording.dataset)
    assert again.manifest == recording.manifest


def test_meanings_of_a_recording_on_disk_are_read_when_they_are_used(planted, tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([planted()], set="s")
    lazy, loaded = store.get("s/toy", load=False), store.get("s/toy")
    activity = lazy.activity
    assert not activity.variable._in_memory
    assert not activity["side"].variable._in_memory
    assert activity["side"].values.tolist() == meant(loaded, "side")
    some = lazy.activity.isel(sample=[5, 2, 9])
    assert some["side"].values.tolist() == [meant(loaded, "side")[row] for row in (5, 2, 9)]
    xr.testing.assert_identical(lazy.to_dataset().load(), loaded.to_dataset())


@pytest.mark.parametrize("suffix", [".npz", ".nc"])
def test_an_export_holds_meanings_and_registers_as_the_same_content(planted, tmp_path, suffix):
    recording = planted()
    if suffix == ".npz":
        del recording.dataset["depth"].attrs["units"]  # an archive of arrays cannot hold it
    path = export(recording, tmp_path / f"toy{suffix}")
    if suffix == ".npz":
        side, token = (np.load(path)[name].tolist() for name in ("side", "token"))
    else:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            side, token = dataset["side"].values.tolist(), dataset["token"].values.tolist()
            assert "flag_values" not in dataset["side"].attrs
    assert side == meant(recording, "side")
    assert set(token) == {"BOS", "D", "R"}
    store = RecordingStore(tmp_path / "store")
    store.register([recording], set="one")
    store.register([Recording.from_file(path)], set="two")
    one, two = store.get("one/toy"), store.get("two/toy")
    assert one.manifest.content_sha256 == two.manifest.content_sha256
    xr.testing.assert_equal(one.dataset, two.dataset)


def test_an_export_of_chosen_samples_holds_meanings(planted, tmp_path):
    recording = planted().select_samples(np.array([7, 3]))
    for suffix in (".csv", ".npz"):
        export(recording, tmp_path / f"a{suffix}", samples=np.array([7, 3]))
    table = pd.read_csv(tmp_path / "a.csv")
    assert table.columns[0] == "sample"
    assert table["sample"].tolist() == [7, 3]
    assert table["side"].tolist() == meant(recording, "side")
    assert np.load(tmp_path / "a.npz")["side"].tolist() == meant(recording, "side")


def test_a_file_with_codes_as_older_versions_exported_it_opens(planted, tmp_path):
    recording = planted()
    recording.dataset.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    arrays = {
        name: recording.dataset[name].values for name in ("trial", "step", "token", "side", "count", "load", "unit")
    }
    document = recording.manifest.model_dump(mode="json", exclude={"set", "content_sha256", "files"})
    np.savez(
        tmp_path / "old.npz", activity=recording.dataset["activity"].values, manifest=json.dumps(document), **arrays
    )
    for name in ("old.nc", "old.npz"):
        again = Recording.from_file(tmp_path / name)
        assert again.manifest.variables == recording.manifest.variables
        np.testing.assert_array_equal(again.values(), recording.values())


def test_a_field_of_the_manifest_that_is_an_array_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", activity=np.zeros((2, 1)), n=[1, 2], manifest=json.dumps({"step": "time bin"}))
    with pytest.raises(InvalidDocument, match="manifest: step: no such field"):
        Recording.from_npz(tmp_path / "a.npz")


def test_misspelt_names_get_the_nearest(planted):
    recording = planted(n_units=3)
    with pytest.raises(NotFound, match=r"did you mean 'count'\?$"):
        recording.values(["cuont"])
    with pytest.raises(NotFound, match=r"did you mean 'u1'\?$"):
        recording.select_units(["u11"])
    with pytest.raises(NotFound, match=r"no value 'lick lfet'.*did you mean 'lick left'\?$"):
        recording.relabel({"where": {"name": "side", "values": {"l": "lick lfet"}}})


# ------------------------------------------------------------------------------------------------------------ relabelling


def mouse() -> Recording:
    return Recording.from_arrays(
        np.arange(4.0)[:, None],
        {"epoch": ["sample", "delay", "response", "delay"], "n_licks": [0, 10, 20, 10]},
        name="mouse",
    )


def test_relabelled_variables_and_values():
    view = mouse().relabel(
        {
            "phase": {"name": "epoch", "values": {"demo": "sample", "resp": ["delay", "response"]}},
            "count": {"name": "n_licks", "values": {0: 0, 1: 10, 2: 20}},
        }
    )
    assert sorted(view.variable_names) == ["count", "phase"]
    assert [view.spec("phase").label(code) for code in view.values(["phase"])[:, 0]] == ["demo", "resp", "resp", "resp"]
    assert view.values(["count"])[:, 0].tolist() == [0, 1, 2, 1]
    Recording(view.dataset, view.manifest)  # valid as it stands
    np.testing.assert_array_equal(view.latents(), mouse().latents())


def test_relabelled_codes_follow_another_system():
    other = Recording.from_arrays(
        np.zeros((2, 1)),
        {"phase": ["demo", "resp"]},
        name="network",
        variable_specs=[VariableSpec(name="phase", type="categorical", values=(5, 6), meanings=("demo", "resp"))],
    )
    view = mouse().relabel({"phase": {"name": "epoch", "values": {"demo": "sample", "resp": "response"}}}, like=other)
    assert [view.spec("phase").label(code) for code in view.values(["phase"])[:, 0]] == [
        "demo",
        "delay",
        "resp",
        "delay",
    ]
    assert view.values(["phase"])[:, 0].tolist()[::2] == [5, 6]
    assert not {5, 6} & {view.values(["phase"])[1, 0]}


def test_numbers_can_be_given_meanings():
    view = mouse().relabel({"n_licks": {"values": {"none": 0, "some": [10, 20]}}})
    assert view.spec("n_licks").type == "categorical"
    assert [view.spec("n_licks").label(code) for code in view.values(["n_licks"])[:, 0]] == ["none", *["some"] * 3]


def test_relabelling_with_nothing_changes_nothing():
    recording = mouse()
    xr.testing.assert_equal(recording.relabel({}).dataset, recording.dataset)


def test_names_can_be_exchanged():
    view = mouse().relabel({"epoch": "n_licks", "n_licks": "epoch"})
    assert view.spec("n_licks").type == "categorical"
    assert view.spec("epoch").type == "integer"


@pytest.mark.parametrize(
    ("mapping", "error", "expected"),
    [
        ({"count": "licks"}, NotFound, "no variable 'licks'; it has epoch, n_licks"),
        ({"phase": {"name": "epoch", "values": {"demo": "cue"}}}, NotFound, "no value 'cue'; it has"),
        ({"n_licks": "epoch"}, InvalidInput, "two coordinates called 'n_licks'"),
        ({"a": "epoch", "b": "epoch"}, InvalidInput, "both 'a' and 'b'"),
        ({"trial": "epoch"}, InvalidInput, "'trial'"),
        ({"phase": {"name": "epoch", "values": {"delay": "sample"}}}, InvalidInput, "would mean 'delay'"),
        ({"n_licks": {"values": {20: 10}}}, InvalidInput, "would mean '20'"),
        ({"n_licks": {"values": {0.5: 10}}}, InvalidInput, "whole numbers"),
        ({"phase": 3}, InvalidInput, "expected a variable's name"),
        ({"phase": {"nmae": "epoch"}}, InvalidInput, "expected a variable's name"),
    ],
)
def test_bad_mappings_are_refused(mapping, error, expected):
    with pytest.raises(error, match=expected):
        mouse().relabel(mapping)


# ---------------------------------------------------------------------------------------------------------------- files


def test_npz_keys(tmp_path):
    path = tmp_path / "toy.npz"
    rng = np.random.default_rng(0)
    activity = rng.normal(size=(3, 2, 2))
    np.savez(
        path,
        activity=activity,
        side=np.array(["left", "right", "left"]),
        count=rng.integers(0, 3, (3, 2)),
        trial=np.array([4, 5, 6]),
        step=np.array([1, 2]),
        token=np.array([[0, 1], [0, 1], [0, 0]]),
        vocabulary=np.array(["BOS", "D"]),
        eligible=np.array([[True, False]] * 3),
        lengths=np.array([2, 2, 1]),
        unit=np.array(["a", "b"]),
        unit_depth=np.array([0.1, 0.2]),
        sample_session=np.array(["x", "x", "y"]),
        manifest=json.dumps({"system": "mouse", "units": "Hz"}),
    )
    recording = Recording.from_npz(path, {"task": "toy"}, access="intervene")
    manifest = recording.manifest
    assert (manifest.name, manifest.system, manifest.units, manifest.task, manifest.access) == (
        "toy", "mouse", "Hz", "toy", "intervene",
    )  # fmt: skip
    assert recording.variable_names == ["side", "count"]
    assert recording.trial.tolist() == [4, 4, 5, 5, 6]
    assert recording.step.tolist() == [1, 2, 1, 2, 1]
    assert recording.unit_names == ["a", "b"]
    assert recording.dataset["depth"].values.tolist() == [0.1, 0.2]
    assert recording.dataset["session"].values.tolist() == ["x", "x", "x", "x", "y"]
    assert recording.eligible.tolist() == [True, False, True, False, True]


def test_a_manifest_file_declares_the_variables(tmp_path):
    np.savez(tmp_path / "toy.npz", activity=np.zeros((2, 1)), phase=np.array([3, 4]), other=np.array([0.5, 0.6]))
    spec = {"name": "phase", "type": "categorical", "values": [3, 4], "meanings": ["demo", "resp"]}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"variables": [spec], "sampling": {"step_s": 0.1}}))
    recording = Recording.from_file(tmp_path / "toy.npz", manifest)
    assert recording.variable_names == ["phase"]
    assert recording.manifest.sampling == Sampling(step_s=0.1)
    assert "other" in recording.dataset.coords  # kept, though no variable
    manifest.write_text(json.dumps({"variables": [spec | {"name": "epoch"}], "colour": "red"}))
    with pytest.raises(InvalidDocument) as caught:
        Recording.from_file(tmp_path / "toy.npz", manifest)
    assert "manifest: colour: no such field" in str(caught.value)
    manifest.write_text("{")
    with pytest.raises(InvalidDocument, match="not JSON"):
        Recording.from_file(tmp_path / "toy.npz", manifest)
    with pytest.raises(NotFound, match="no such manifest file"):
        Recording.from_file(tmp_path / "toy.npz", tmp_path / "none.json")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_pickles_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "bomb.npz", activity=np.zeros((1, 1)), v=np.array([Bomb()], dtype=object))
    with pytest.raises(InvalidInput, match="pickled Python objects, which are refused") as caught:
        Recording.from_npz(tmp_path / "bomb.npz")
    assert caught.value.kind == "pickle_refused"
    assert not Path("exploded").exists()


def test_text_is_not_called_a_pickle(tmp_path):
    for name, content in (("junk.npz", b"hello"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=r"not a NumPy archive \(\.npz\)") as caught:
            Recording.from_npz(tmp_path / name)
        assert caught.value.kind == "unreadable_source"
    np.save(tmp_path / "one.npy", np.zeros(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InvalidInput, match="got a single array"):
        Recording.from_npz(tmp_path / "one.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("suffix", [".npz", ".nc"])
def test_files_that_are_not_what_they_say(tmp_path, content, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(content)
    with pytest.raises(InvalidInput, match="bad"):
        Recording.from_file(tmp_path / f"bad{suffix}")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(InvalidInput, match=r"expected a \.npz or \.nc file"):
        Recording.from_file(tmp_path / "a.csv")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read as a zarr folder"):
        Recording.from_file(tmp_path / "a.zarr")
    with pytest.raises(NotFound, match="no such file"):
        Recording.from_file(tmp_path / "none.npz")
    np.savez(tmp_path / "empty.npz", count=[1])
    with pytest.raises(InvalidInput, match="no array called 'activity'; arrays are: count"):
        Recording.from_file(tmp_path / "empty.npz")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_datasets_round_trip_through_files(tmp_path, planted, suffix):
    recording = planted()
    path = tmp_path / f"saved{suffix}"
    if suffix == ".nc":
        recording.dataset.to_netcdf(path, engine="h5netcdf")
    else:
        with pytest.warns(UserWarning, match="Consolidated metadata"):
            recording.dataset.to_zarr(path, zarr_format=3)
    again = Recording.from_file(path)
    assert again.manifest == recording.manifest
    xr.testing.assert_identical(again.dataset, recording.dataset)


@pytest.mark.parametrize("samples", [None, [3, 1], [False, True, False, True]])
def test_activity_too_large_for_the_precision_asked_for(samples):
    activity = np.zeros((4, 3))
    activity[3, 2] = -1e39
    recording = Recording.from_arrays(activity, {"v": range(4)}, name="large")
    chosen = None if samples is None else np.array(samples)
    with pytest.raises(
        InvalidInput, match=r"unit 'u2' at sample 3 \(trial 3, step 0\) is too large for float32"
    ) as caught:
        recording.latents(samples=chosen)
    assert caught.value.kind == "too_large"
    assert recording.latents(samples=chosen, dtype=float).min() == -1e39
    assert np.isfinite(recording.latents(["u0"], chosen)).all()


@pytest.mark.parametrize(
    "values",
    [
        [2**53, 2**53 + 1],
        [-(2**53) - 1, 0],
        np.array([2**63, 2**64 - 1], dtype=np.uint64),
        [1e300, 2.0],
    ],
)
@pytest.mark.parametrize("kind", ["integer", "categorical", "real", None])
def test_whole_numbers_that_float64_would_merge(values, kind):
    specs = None
    if kind is not None:
        codes = {"values": [0, 1], "meanings": ["a", "b"]} if kind == "categorical" else {}
        specs = [VariableSpec(name="v", type=kind, **codes)]
    if kind in ("real", None) and np.asarray(values).dtype.kind == "f":
        Recording.from_arrays(np.zeros((2, 1)), {"v": values}, name="r", variable_specs=specs)  # nothing is merged
        return
    assert "variable 'v': whole numbers beyond ±2^53" in problems(
        np.zeros((2, 1)), {"v": values}, name="r", variable_specs=specs
    )
    assert Recording.from_arrays(np.zeros((2, 1)), {"v": [2**53, -(2**53)]}, name="r").n_samples == 2


EXPORT = """
import resource, signal, sys
import numpy as np
from neuromas.errors import StorageFailed
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording

recording = Recording.from_arrays(np.random.default_rng(0).normal(size=(4000, 4)), {"v": range(4000)}, name="big")
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    export(recording, sys.argv[1])
except StorageFailed as error:
    print(error.message)
"""


@pytest.mark.parametrize("suffix", [".npz", ".nc", ".csv"])
def test_an_export_that_the_kernel_refuses(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("what stood there")
    done = subprocess.run([sys.executable, "-c", EXPORT, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"could not write {path}: File too large\n"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "what stood there"


def test_a_foreign_dataset():
    flags = {"flag_values": np.array([2, 4], dtype=np.int8), "flag_meanings": "demo resp"}
    dataset = xr.Dataset(
        {"activity": (("unit", "sample"), np.arange(6).reshape(2, 3)), "count": ("sample", [1, 2, 3])},
        coords={"phase": ("sample", np.array([2, 4, 2], dtype=np.int8), flags), "unit": ["a", "b"]},
    )
    recording = Recording.from_dataset(dataset, name="foreign")
    assert recording.latents().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert recording.spec("phase").meanings == ("demo", "resp")
    assert recording.values(["phase", "count"]).tolist() == [[2, 1], [4, 2], [2, 3]]
    with pytest.raises(InvalidDocument, match="expected a variable 'activity' with dims"):
        Recording.from_dataset(dataset.rename(activity="rates"), name="foreign")


def test_a_mapping_from_json_keeps_numbers_numbers():
    recording = Recording.from_arrays(np.zeros((3, 1)), {"n_seen": [2, 4, 6]}, name="a")
    same = recording.relabel(json.loads('{"count": {"name": "n_seen", "values": {"1": 2, "2": 4, "3": 6}}}'))
    assert same.manifest.variable("count").type == "integer"
    assert same.values(["count"])[:, 0].tolist() == [1, 2, 3]
