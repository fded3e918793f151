"""Struct arrays and cell arrays of MATLAB: empty entries, trials, spike times, units with trials of their own."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from neuromas.actions.pool import pool
from neuromas.actions.register import preview, register
from neuromas.cli import verbs
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.converter import convert, convert_all, find_converter
from neuromas.recordings.convert.matlab import read_mat
from neuromas.recordings.convert.tree import Cell, Struct, arrays_of
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import PoolRequest, RegisterRequest

RNG = np.random.default_rng(0)
EMPTY = np.zeros((0, 0))


class Structs(list):
    """A struct array: a list of dicts with the same keys."""


def write_v5(path: Path, variables: dict[str, Any]) -> Path:
    def plain(value: Any) -> Any:
        if isinstance(value, Structs):
            made = np.empty(len(value), dtype=[(name, object) for name in value[0]])
            for number, element in enumerate(value):
                made[number] = tuple(plain(entry) for entry in element.values())
            return made
        if isinstance(value, list):
            nested = value and isinstance(value[0], list)
            cells = np.empty((len(value), len(value[0])) if nested else (1, len(value)), dtype=object)
            for place in np.ndindex(cells.shape):
                cells[place] = plain(value[place[0]][place[1]] if nested else value[place[1]])
            return cells
        return {name: plain(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    savemat(path, {name: plain(value) for name, value in variables.items()})
    return path


def write_v73(path: Path, variables: dict[str, Any]) -> Path:
    """As MATLAB writes v7.3: last axis first, text as UTF-16 codes, cells and struct arrays as references."""

    numbers = count()

    def put(group: h5py.Group, name: str, value: Any, refs: h5py.Group) -> None:
        if isinstance(value, Structs):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field in value[0]:
                made.create_dataset(field, data=references([element[field] for element in value], refs)[:, None])
            return
        if isinstance(value, dict):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, entry in value.items():
                put(made, field, entry, refs)
            return
        if isinstance(value, list):
            rows = value if value and isinstance(value[0], list) else [value]
            cells = np.array([references(row, refs) for row in rows], dtype=h5py.ref_dtype)
            group.create_dataset(name, data=cells.T).attrs["MATLAB_class"] = np.bytes_("cell")
            return
        if isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), dtype=np.uint16)[None, :]
            group.create_dataset(name, data=codes.T).attrs["MATLAB_class"] = np.bytes_("char")
            return
        array = np.atleast_2d(np.asarray(value, dtype=np.float64))
        if array.size == 0:
            made = group.create_dataset(name, data=np.array(array.shape, dtype=np.uint64))
            made.attrs["MATLAB_empty"] = np.uint8(1)
        else:
            made = group.create_dataset(name, data=array.T)
        made.attrs["MATLAB_class"] = np.bytes_("double")

    def references(values: list[Any], refs: h5py.Group) -> np.ndarray:
        made = []
        for value in values:
            name = f"r{next(numbers)}"
            put(refs, name, value, refs)
            made.append(refs[name].ref)
        return np.array(made, dtype=h5py.ref_dtype)

    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in variables.items():
            put(file, name, value, refs)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + b" " * 8 + b"\x00\x02IM")
    return path


mat = pytest.mark.parametrize("write", [write_v5, write_v73])


def values(recording: Recording, name: str) -> list[Any]:
    spec, column = recording.spec(name), recording.values([name]).ravel()
    return [spec.label(value) for value in column] if spec.type == "categorical" else column.tolist()


# --------------------------------------------------------------------------------------------------------- empty entries


@mat
def test_an_empty_entry_is_missing(tmp_path, write):
    events = Structs(
        {"type": "square" if n % 2 == 0 else "rt", "latency": 100.0 * n, "position": 1.0 + n if n % 2 == 0 else EMPTY,
         "hand": EMPTY if n == 1 else "left", "never": EMPTY, "code": "x" if n == 0 else float(n), "xy": np.array([[n, n + 0.5]])}
        for n in range(4)
    )  # fmt: skip
    cells = [1.0, EMPTY, 3.0, 4.0]
    path = write(tmp_path / "a.mat", {"EEG": {"event": events}, "cells": cells, "activity": RNG.normal(size=(4, 3))})
    found = read_mat(path).arrays
    assert found["EEG.event.type"].tolist() == ["square", "rt", "square", "rt"]
    assert np.array_equal(found["EEG.event.position"], [1, np.nan, 3, np.nan], equal_nan=True)
    assert found["EEG.event.hand"].tolist() == ["left", "", "left", "left"]
    assert found["EEG.event.code"].tolist() == ["x", "1", "2", "3"]  # numbers beside text in one field are words
    assert found["EEG.event.xy"].tolist() == [[n, n + 0.5] for n in range(4)]
    assert np.array_equal(found["cells"], [1, np.nan, 3, 4], equal_nan=True)
    assert "every entry is empty" in read_mat(path).unusable["EEG.event.never"]
    variables = {
        "place": 'where(isfinite(col("EEG.event.position")), col("EEG.event.position"), 0)',
        "y": 'col("EEG.event.xy")[:, 1]',
    }
    recording = convert(path, {"variables": variables})
    assert values(recording, "place") == [1, 0, 3, 0]
    assert values(recording, "y") == [0.5, 1.5, 2.5, 3.5]
    with pytest.raises(InvalidDocument, match=r"2 of 4 entries of .* are missing"):
        convert(path, {"variables": {"place": 'col("EEG.event.position")'}})


# ---------------------------------------------------------------------------------------------------------------- trials


@mat
def test_a_cell_array_of_trials(tmp_path, write):
    trials = [RNG.normal(size=(2, 10)) for _ in range(4)]  # channel × time, as FieldTrip's data.trial
    path = write(tmp_path / "a.mat", {"data": {"trial": trials, "trialinfo": np.c_[[1, 2, 1, 2], [5, 6, 7, 8]]}})
    recipe = {
        "activity": "data.trial",
        "axes": ["trial", "unit", "step"],
        "variables": {"condition": 'col("data.trialinfo")[:, 0]'},
    }
    recording = convert(path, recipe)
    assert np.array_equal(recording.latents(dtype=float), np.stack(trials).transpose(0, 2, 1).reshape(-1, 2))
    assert values(recording, "condition")[::10] == [1, 2, 1, 2]
    with pytest.raises(InvalidInput, match=r"entries of a cell or struct array.*must say what each axis is"):
        convert(path, recipe | {"axes": None})


@mat
def test_trials_of_different_lengths_and_an_empty_one(tmp_path, write):
    lengths = (4, 6, 0, 5)
    trials = [RNG.normal(size=(3, length)) if length else EMPTY for length in lengths]
    path = write(tmp_path / "a.mat", {"trial": trials, "side": np.array([[1.0, 2.0, 1.0, 2.0]])})
    recording = convert(path, {"activity": "trial", "axes": ["trial", "unit", "step"], "variables": {"side": "side"}})
    assert recording.n_samples == sum(lengths)
    assert np.array_equal(recording.latents(dtype=float), np.concatenate([trial.T for trial in trials if trial.size]))
    assert recording.dataset["trial"].values.tolist() == np.repeat([0, 1, 3], (4, 6, 5)).tolist()
    with pytest.raises(InvalidInput, match="differ in their number of units, which only steps may"):
        convert(path, {"activity": "trial", "axes": ["trial", "step", "unit"], "variables": {"side": "side"}})


@mat
@pytest.mark.parametrize("axes", [["trial", "step"], ["trial", "unit", "step"]])
def test_trials_of_a_single_unit_are_row_vectors(tmp_path, write, axes):
    trials = [RNG.normal(size=(1, length)) for length in (4, 6, 5)]
    path = write(tmp_path / "a.mat", {"trial": trials, "side": np.array([[1.0, 2.0, 1.0]])})
    recording = convert(path, {"activity": "trial", "axes": axes, "variables": {"side": "side"}})
    assert np.array_equal(recording.latents(dtype=float).ravel(), np.concatenate([trial.ravel() for trial in trials]))


@mat
def test_a_cell_array_of_units_and_trials(tmp_path, write):
    rates = RNG.normal(size=(2, 3, 5))  # unit, trial, step
    cells = [[rates[unit, trial][None] for trial in range(3)] for unit in range(2)]
    path = write(tmp_path / "a.mat", {"rates": cells, "side": np.array([[1.0, 2.0, 1.0]])})
    recording = convert(path, {"activity": "rates", "axes": ["unit", "trial", "step"], "variables": {"side": "side"}})
    assert np.array_equal(recording.latents(dtype=float), rates.transpose(1, 2, 0).reshape(-1, 2))


@mat
def test_a_matrix_that_lost_its_last_axis(tmp_path, write):
    rates = RNG.normal(size=(6, 4))  # trial × step of a single unit
    licks = np.arange(24.0).reshape(6, 4)
    content = {"rates": rates, "licks": licks, "side": np.array([[1.0, 2, 1, 2, 1, 2]]), "name": ["cell 7"]}
    path = write(tmp_path / "a.mat", content)
    recipe = {"activity": "rates", "axes": ["trial", "step", "unit"], "unit": "name", "variables": {"n": "licks"}}
    recording = convert(path, recipe)
    assert recording.unit_names == ["cell 7"]
    assert np.array_equal(recording.latents(dtype=float).ravel(), rates.ravel())
    assert values(recording, "n") == licks.ravel().tolist()
    # without axes it looks like samples × units; what contradicts this says what to do
    with pytest.raises(
        InvalidDocument, match=r"drops a last axis of length 1.*axes = \[\"trial\", \"step\", \"unit\"\]"
    ):
        convert(path, {"activity": "rates", "variables": {"n": "licks"}})
    with pytest.raises(InvalidInput, match=r"'name' names 1 units, the activity has 4. MATLAB drops"):
        convert(path, {"activity": "rates", "unit": "name", "variables": {"side": "side"}})
    vector = write(tmp_path / "b.mat", {"rates": rates[:, :1].T, "side": content["side"]})
    recording = convert(vector, {"activity": "rates", "axes": ["trial"], "variables": {"side": "side"}})
    assert np.array_equal(recording.latents(dtype=float).ravel(), rates[:, 0])


# -------------------------------------------------------------------------------------------------- units of their own


def units_of_their_own(n_trials: tuple[int, ...] = (8, 12, 10)) -> Structs:
    return Structs(
        {
            "name": f"cell {number}",
            "response": RNG.normal(size=(size, 5)),
            "side": (np.arange(size)[:, None] % 2).astype(float),
            "note": EMPTY,
        }
        for number, size in enumerate(n_trials)
    )


EACH = {
    "each": "unit",
    "activity": "response",
    "axes": ["trial", "step"],
    "unit": "name",
    "variables": {"side": {"expression": "side", "meanings": {"0": "left", "1": "right"}}, "late": "latency > 0.2"},
}


@mat
def test_each_unit_becomes_a_recording_ready_for_pool(tmp_path, write):
    units = units_of_their_own()
    path = write(tmp_path / "day 1.mat", {"unit": units, "latency": 0.1 * np.arange(5)[None, :]})
    recordings = convert_all(path, EACH, system="monkey")
    assert [recording.name for recording in recordings] == ["day-1-1", "day-1-2", "day-1-3"]
    for recording, unit in zip(recordings, units, strict=True):
        assert np.array_equal(recording.latents(dtype=float).ravel(), unit["response"].ravel())
        assert recording.unit_names == [unit["name"]]
        assert values(recording, "side")[::5] == ["left", "right"] * (len(unit["side"]) // 2)
        assert values(recording, "late")[:5] == ["false"] * 3 + ["true"] * 2
        provenance = recording.manifest.provenance
        assert (provenance.source, len(provenance.source_sha256)) == ("day 1.mat", 64)
    with pytest.raises(InvalidInput, match="makes 3 recordings of this file"):
        convert(path, EACH)
    request = RegisterRequest(sources=(str(path),), set="lab", recipe=EACH, store=str(tmp_path / "store"))
    assert [len(source.recordings) for source in preview(request)] == [3]
    assert [entry.name for entry in register(request)] == ["lab/day-1-1", "lab/day-1-2", "lab/day-1-3"]
    pooled = pool(PoolRequest(recordings=("lab",), by=("side",), name="lab/all", store=str(tmp_path / "store")))
    stored = RecordingStore(tmp_path / "store").get("lab/all")
    assert stored.n_units == 3
    assert pooled.recording.n_samples == stored.n_samples


@mat
def test_each_entry_of_a_cell_array(tmp_path, write):
    rates = [RNG.normal(size=(4, 2, 3)), RNG.normal(size=(5, 2, 3))]  # trial, step, unit of each session
    path = write(tmp_path / "a.mat", {"sessions": {"rates": rates}, "step_code": np.array([[7.0, 8.0]])})
    recordings = convert_all(path, {"each": "sessions.rates", "activity": "rates", "variables": {"code": "step_code"}})
    for recording, activity in zip(recordings, rates, strict=True):
        assert np.array_equal(recording.latents(dtype=float), activity.reshape(-1, 3))
        assert values(recording, "code")[:2] == [7, 8]
    cells_of_structs = [{"rates": activity, "side": np.arange(len(activity))[None]} for activity in rates]
    path = write(tmp_path / "b.mat", {"session": cells_of_structs})
    recordings = convert_all(path, {"each": "session", "activity": "rates", "variables": {"side": "side"}})
    assert [values(recording, "side")[::2] for recording in recordings] == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_what_each_cannot_be(tmp_path):
    path = write_v5(tmp_path / "a.mat", {"unit": units_of_their_own(), "x": np.zeros((2, 2))})
    for each, error, message in (
        ("units", NotFound, "did you mean 'unit'"),
        ("x", InvalidInput, "expected a struct array or a cell array"),
        ("unit.respons", NotFound, "did you mean 'unit.response'"),
    ):
        with pytest.raises(error, match=message):
            convert_all(path, EACH | {"each": each})
    with pytest.raises(InvalidInput, match="must say what the axes of 'response' are"):
        convert_all(path, {key: value for key, value in EACH.items() if key != "axes"})
    # stacked, units would share trials that are not the same
    with pytest.raises(InvalidInput, match=r"differ in their number of trials.*'each'"):
        convert(path, {"activity": "unit.response", "axes": ["unit", "trial", "step"], "variables": {"s": "step"}})


def test_each_from_the_shell(tmp_path):
    path = write_v5(tmp_path / "m.mat", {"unit": units_of_their_own()})
    options = ["-o", "each=unit", "-o", "activity=response", "-o", 'axes=["trial","step"]', "--variable", "side=side"]
    words = ["register", str(path), "--set", "lab", "--store", str(tmp_path / "s")]
    finished = CliRunner().invoke(verbs.app, [*words, *options])
    assert finished.exit_code == 0, finished.stderr
    assert "lab/m-2 registered: 60 samples × 1 units" in finished.stdout
    # what the file holds is shown also where nothing can be made of it
    finished = CliRunner().invoke(verbs.app, [*words, "--dry-run"])
    assert finished.exit_code == 3
    assert "unit.response" in finished.stdout
    assert "no array 'activity'" in finished.stderr


# ----------------------------------------------------------------------------------------------------------- spike times


WINDOW = {"start_s": 0, "stop_s": 1, "bin_s": 0.25, "activity": "count"}


def counted(times: Any, zero: float = 0.0) -> list[int]:
    return np.histogram(np.asarray(times) - zero, bins=np.arange(5) * 0.25)[0].tolist()


@mat
def test_spike_times_of_each_unit_in_each_trial(tmp_path, write):
    spikes = [[np.sort(RNG.uniform(0, 1, size=(1, 5 + trial)), axis=1) for trial in range(4)] for _ in range(3)]
    spikes[0][1], spikes[2][3] = EMPTY, np.array([[np.nan]])  # no spike; not recorded
    path = write(tmp_path / "a.mat", {"spikes": spikes, "side": np.array([[1.0, 2, 1, 2]]), "names": ["a", "b", "c"]})
    recipe = WINDOW | {"times": "spikes", "unit": "names", "variables": {"side": "side"}}
    recording = convert(path, recipe, format="spikes", missing=True)
    cube = recording.latents().reshape(4, 4, 3)
    assert recording.unit_names == ["a", "b", "c"]
    assert "event_s" not in recording.dataset
    for unit, trains in enumerate(spikes):
        for trial, train in enumerate(trains):
            expected = [np.nan] * 4 if np.isnan(train).any() else counted(train)
            assert np.array_equal(cube[trial, :, unit], expected, equal_nan=True)
    assert values(recording, "side")[::4] == [1, 2, 1, 2]
    turned = [[spikes[unit][trial] for unit in range(3)] for trial in range(4)]
    path = write(tmp_path / "b.mat", {"spikes": turned, "side": np.array([[1.0, 2, 1, 2]]), "names": ["a", "b", "c"]})
    again = convert(path, recipe | {"axes": ["trial", "unit"]}, format="spikes", missing=True)
    assert np.array_equal(again.latents(), recording.latents(), equal_nan=True)


@mat
def test_trials_may_be_aligned_to_events_of_their_own_clock(tmp_path, write):
    spikes = [np.sort(RNG.uniform(0, 3, size=(1, 20)), axis=1) for _ in range(3)]
    path = write(tmp_path / "a.mat", {"trains": spikes, "cue": np.array([[0.5, 1.0, np.nan]]), "n": np.arange(3)[None]})
    recipe = WINDOW | {"times": "trains", "axes": ["trial"], "align": "cue", "variables": {"n": "n"}}
    recording = convert(path, recipe, format="spikes")
    assert recording.latents().ravel().tolist() == counted(spikes[0], 0.5) + counted(spikes[1], 1.0)
    with pytest.raises(NotFound, match="no column 'cues' of 3 times"):
        convert(path, recipe | {"align": "cues"}, format="spikes")


@mat
def test_spike_times_of_the_session_for_each_unit(tmp_path, write):
    trains = [np.sort(RNG.uniform(0, 20, size=(200, 1)), axis=0) for _ in range(2)]
    events = {"cue": np.array([[2.0], [9.0], [15.0]]), "side": np.array([[1.0], [2.0], [1.0]])}
    units = Structs({"label": f"u-{number}", "spikes": train} for number, train in enumerate(trains))
    expected = [counted(train, cue) for cue in (2, 9, 15) for train in trains]
    for name, content, more in (
        ("cells", {"spikes": trains}, {"times": "spikes"}),
        ("structs", {"units": units}, {"times": "units.spikes", "unit": "units.label"}),
        ("rows", {"spikes": np.concatenate([np.c_[train, np.full(200, number)] for number, train in enumerate(trains)])},
         {"times": "spikes[:, 0]", "unit": "spikes[:, 1]"}),
    ):  # fmt: skip
        path = write(tmp_path / f"{name}.mat", content | events)
        recipe = WINDOW | {"align": "cue", "variables": {"side": "side"}} | more
        recording = convert(path, recipe, format="spikes")
        cube = recording.latents().reshape(3, 4, 2).transpose(0, 2, 1)
        assert cube.reshape(-1, 4).tolist() == expected
        assert recording.dataset["event_s"].values[::4].tolist() == [2, 9, 15]
    path = write(tmp_path / "never.mat", {"spikes": [*trains, np.array([[np.nan]])]} | events)
    recipe = WINDOW | {"align": "cue", "variables": {"side": "side"}, "times": "spikes", "coverage": "session"}
    assert convert(path, recipe, format="spikes").unit_names == ["u0", "u1"]  # NaN: the third was not recorded
    assert convert(tmp_path / "structs.mat", WINDOW | {
        "times": "units.spikes", "unit": "units.label", "align": "cue", "variables": {"side": "side"}
    }, format="spikes").unit_names == ["u-0", "u-1"]  # fmt: skip


@mat
def test_spikes_of_units_with_trials_of_their_own(tmp_path, write):
    units = Structs(
        {
            "spikes": [np.sort(RNG.uniform(0, 1, size=(1, 6)), axis=1) for _ in range(n_trials)],
            "side": np.arange(n_trials)[None],
        }
        for n_trials in (3, 5)
    )
    path = write(tmp_path / "a.mat", {"unit": units})
    recipe = WINDOW | {"each": "unit", "times": "spikes", "axes": ["trial"], "variables": {"side": "side"}}
    for recording, unit in zip(convert_all(path, recipe, format="spikes"), units, strict=True):
        assert recording.latents().reshape(-1, 4).tolist() == [counted(train) for train in unit["spikes"]]
        assert values(recording, "side")[::4] == list(range(len(unit["spikes"])))


def test_cells_that_are_no_lists_of_spikes(tmp_path):
    path = write_v5(tmp_path / "a.mat", {"spikes": [np.zeros((2, 2)), np.zeros((2, 2))], "cue": np.array([[1.0, 2.0]])})
    recipe = WINDOW | {"align": "cue", "variables": {"c": "cue"}}
    with pytest.raises(InvalidInput, match="expected a list of spike times in each cell, got an array of shape"):
        convert(path, recipe | {"times": "spikes"}, format="spikes")
    nothing = write_v5(tmp_path / "b.mat", {"spikes": [np.array([[np.nan]])] * 2, "cue": np.array([[1.0, 2.0]])})
    with pytest.raises(InvalidInput, match="'spikes' holds no spike time"):
        convert(nothing, recipe | {"times": "spikes"}, format="spikes")
    with pytest.raises(InvalidInput, match="times names it"):
        convert(path, recipe, format="spikes")
    with pytest.raises(InvalidInput, match="names 2 axes"):
        convert(path, recipe | {"times": "spikes", "axes": ["unit", "unit"]}, format="spikes")
    (tmp_path / "a.txt").write_text("u\ttime\n1\t1\n")
    with pytest.raises(InvalidInput, match=r"'each': expected a .mat file"):
        convert(tmp_path / "a.txt", recipe | {"each": "unit"})


# ----------------------------------------------------------------------------------------------------------------- limits


def test_lists_of_very_different_lengths_are_not_written_out(monkeypatch):
    cell = Cell([np.zeros((1, 10**6)), *[np.zeros((1, 2))] * 1000], (1, 1001))
    assert "very different lengths" in arrays_of({"a": cell}, "x", vectors=True).unusable["a"]
    monkeypatch.setattr(named_arrays, "LARGEST_DENSE_BYTES", 50)
    cell = Cell([np.zeros((1, 4))] * 3, (1, 3))
    assert "very different lengths" in arrays_of({"a": cell}, "x", vectors=True).unusable["a"]


def test_odd_cells():
    found = arrays_of(
        {
            "differ": Cell([np.zeros((2, 3)), np.zeros((3, 2))], (1, 2)),
            "nested": Cell([Cell([], (0,))], (1, 1)),
            "words": Cell([np.array(["a", "b"]), np.array(["c"])], (1, 2)),
            "huge": Cell([np.array([2**60]), EMPTY], (1, 2)),
            "mixed": Cell([np.array([1.0]), np.array(["a"])], (1, 2)),
            "grid": Cell([np.array([number]) for number in range(6)], (2, 3)),
            "turned": Cell([np.zeros((1, 3)), np.ones((3, 1))], (1, 2)),
            "structs": Cell([Struct({"a": [np.array([1.0])]}), EMPTY], (1, 2)),
        },
        "x",
        vectors=True,
    )
    assert set(found.unusable) == {"differ", "nested", "words", "huge", "mixed"}
    assert found.arrays["grid"].tolist() == [[0, 2, 4], [1, 3, 5]]  # the first axis counts fastest, as in MATLAB
    assert found.arrays["turned"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.array_equal(found.arrays["structs.a"], [1, np.nan], equal_nan=True)


def test_contents_of_a_mat_of_spikes(tmp_path):
    path = write_v5(tmp_path / "a.mat", {"cue": np.array([[1.0, 2.0]])})
    assert dict(find_converter(path, "spikes").contents(path)) == {"cue": "(1, 2) float64: 1.0, 2.0"}
