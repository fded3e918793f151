"""FieldTrip's struct of spikes: planted spikes are found again, in files of every version of MATLAB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

RATE = 32_000.0
UNITS = ["sig001a", "sig002b", "silent"]
STARTS = np.array([10.0, 13.0, 16.0, 19.0])
"""Of the trials' triggers, on the session's clock."""
WINDOWS = np.array([[-0.5, 1.0], [-0.5, 1.0], [-0.5, 0.5], [-0.2, 1.0]])
"""Of the trials, on their own clock; two are shorter."""
SIDE = np.array([1, 2, 2, 1])
WINDOW = {"start_s": -0.5, "stop_s": 1.0, "bin_s": 0.5, "activity": "count"}
OWN = {**WINDOW, "variables": {"side": 'col("spike.trialinfo")[:, 0]'}}


def planted() -> list[tuple[np.ndarray, np.ndarray]]:
    """Times and trials (from 1) of each unit's spikes, as FieldTrip writes them; trial 2 of the first unit is silent."""
    rng = np.random.default_rng(0)
    units = []
    for unit in range(2):
        times, trials = [], []
        for trial, (start, stop) in enumerate(WINDOWS.tolist(), 1):
            count = 0 if (unit, trial) == (0, 2) else int(rng.integers(3, 9))
            times += np.sort(rng.uniform(start, stop, count)).tolist()
            trials += [trial] * count
        units.append((np.array(times), np.array(trials)))
    return [*units, (np.empty(0), np.empty(0))]


def expected(windows: bool = True) -> np.ndarray:
    """Counts of shape (4 trials, 3 bins, 3 units), spike by spike; with `windows`, NaN where a trial was not recorded."""
    counts = np.zeros((4, 3, 3))
    for unit, (times, trials) in enumerate(planted()):
        for time, trial in zip(times.tolist(), trials.tolist(), strict=True):
            counts[int(trial) - 1, int((time + 0.5) // 0.5), unit] += 1
    if windows:
        counts[2, 2], counts[3, 0] = np.nan, np.nan
    return counts


def struct(**changes: Any) -> dict[str, Any]:
    units = planted()
    stamps = [np.rint((STARTS[trials.astype(int) - 1] + times) * RATE) for times, trials in units]
    whole = {
        "label": UNITS,
        "timestamp": stamps,
        "time": [times for times, _ in units],
        "trial": [trials.astype(float) for _, trials in units],
        "trialtime": WINDOWS,
        "trialinfo": np.c_[SIDE, [7, 8, 9, 10]],
        "dimord": "{chan}_lead_time_spike",
        "cfg": {"method": "none", "trl": np.zeros((4, 3))},
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def write_v5(path: Path, values: dict[str, Any]) -> Path:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(entry) for name, entry in value.items()}
        if isinstance(value, list):
            cell = np.empty((1, len(value)), dtype=object)
            for number, entry in enumerate(value):
                cell[0, number] = entry if isinstance(entry, str) else np.atleast_2d(entry)
            return cell
        return value

    savemat(path, plain(values))
    return path


def write_v73(path: Path, values: dict[str, Any]) -> Path:
    """As MATLAB writes version 7.3: last axis first, text as codes, cells as references."""

    def put(group: h5py.Group, name: str, value: Any, refs: h5py.Group) -> Any:
        if isinstance(value, dict):
            made = group.create_group(name)
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, entry in value.items():
                put(made, field, entry, refs)
        elif isinstance(value, list):
            cells = [put(refs, f"{len(refs)}", entry, refs).ref for entry in value]
            made = group.create_dataset(name, data=np.array(cells, dtype=h5py.ref_dtype)[:, None])
            made.attrs["MATLAB_class"] = np.bytes_("cell")
        elif isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), dtype=np.uint16)[:, None]
            made = group.create_dataset(name, data=codes)
            made.attrs["MATLAB_class"] = np.bytes_("char")
        elif np.size(value) == 0:
            made = group.create_dataset(name, data=np.array([1, 0], dtype=np.uint64))
            made.attrs.update({"MATLAB_class": np.bytes_("double"), "MATLAB_empty": 1})
        else:
            made = group.create_dataset(name, data=np.atleast_2d(value).T)
            made.attrs["MATLAB_class"] = np.bytes_("double")
        return made

    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in values.items():
            put(file, name, value, refs)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return path


every = pytest.mark.parametrize("write", [write_v5, write_v73])


def grid(recording: Recording, n_units: int = 3) -> np.ndarray:
    """Activity of shape (4 trials, 3 bins, n_units), NaN where there is no sample."""
    activity = np.full((4, 3, n_units), np.nan)
    activity[recording.trial, recording.step] = recording.activity.values
    return activity


@every
@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"times": "spike"},
        {"times": "spike.time", "trial": "spike.trial", "trial_time": "spike.trialtime", "unit": "spike.label"},
    ],
)
def test_planted_spikes_of_trials_are_found_again(tmp_path, write, recipe):
    recording = convert(write(tmp_path / "s.mat", {"spike": struct()}), OWN | recipe, format="spikes")
    np.testing.assert_array_equal(grid(recording), expected())
    assert recording.unit_names == UNITS
    assert recording.values(["side"]).ravel().tolist() == np.repeat(SIDE, [3, 3, 2, 2]).tolist()
    assert recording.time_s.tolist() == pytest.approx([-0.25, 0.25, 0.75] * 2 + [-0.25, 0.25] + [0.25, 0.75])
    assert "event_s" not in recording.dataset


@every
def test_time_zero_may_be_a_column_of_the_trials(tmp_path, write):
    go = np.array([0.5, 0.5, 0.0, 0.5])
    path = write(tmp_path / "s.mat", {"spike": struct(trialinfo=np.c_[SIDE, go])})
    window = {"start_s": 0, "stop_s": 0.5, "bin_s": 0.5, "activity": "count", "variables": {"side": "side"}}
    recipe = {**window, "align": 'col("spike.trialinfo")[:, 1]', "variables": {"side": 'col("spike.trialinfo")[:, 0]'}}
    counts = expected()
    np.testing.assert_array_equal(
        convert(path, recipe, format="spikes").latents(), [counts[0, 2], counts[1, 2], counts[2, 1], counts[3, 2]]
    )


@every
def test_without_windows_every_bin_counts_as_recorded(tmp_path, write):
    recording = convert(write(tmp_path / "s.mat", {"spike": struct(trialtime=None)}), OWN, format="spikes")
    np.testing.assert_array_equal(grid(recording), expected(windows=False))


@every
def test_stamps_of_the_session_are_ticks(tmp_path, write):
    """Trials come from elsewhere in the file, or beside it."""
    trials = {"cue": STARTS, "side": SIDE}
    for changes, times in (({}, "spike.timestamp"), ({"time": None, "trial": None, "trialtime": None}, "spike")):
        path = write(tmp_path / "s.mat", {"spike": struct(**changes), **trials})
        recipe = {
            **WINDOW,
            "times": times,
            "unit": "spike.label",
            "align": "cue",
            "sample_rate": RATE,
            "coverage": "throughout",
        }
        recording = convert(path, recipe | {"variables": {"side": "side"}}, format="spikes")
        np.testing.assert_array_equal(grid(recording), expected(windows=False))
    (tmp_path / "cues.csv").write_text(
        "cue,side\n" + "".join(f"{cue},{side}\n" for cue, side in zip(STARTS, SIDE, strict=True))
    )
    beside = convert(path, recipe | {"events": "cues.csv", "variables": {"side": "side"}}, format="spikes")
    np.testing.assert_array_equal(beside.latents(), recording.latents())


def test_integers_and_a_single_unit(tmp_path):
    """Time stamps of 64 bits; a single unit need not be in a cell."""
    times, trials = planted()[0]
    stamps = np.rint((STARTS[trials - 1] + times) * RATE).astype(np.uint64)[None]
    spike = {"label": "a", "timestamp": stamps, "time": times[None], "trial": trials[None].astype(np.int32)}
    savemat(tmp_path / "s.mat", {"spike": spike, "side": SIDE})
    own = convert(tmp_path / "s.mat", {**WINDOW, "variables": {"side": "side"}}, format="spikes")
    np.testing.assert_array_equal(grid(own, 1), expected(windows=False)[:, :, :1])


@pytest.mark.parametrize(
    ("changes", "recipe", "error", "message"),
    [
        ({"trial": None}, {}, InvalidInput, r"spike\.timestamp counts ticks; expected ticks per second .*sample_rate"),
        (
            {"trial": [np.ones(3)] * 3},
            {},
            InvalidInput,
            "expected the number of a trial for each spike, got 9 in 3 lists",
        ),
        ({"trialtime": WINDOWS[:2]}, {}, InvalidInput, "whole numbers of trials, from 1 to 2, got 1 to 4"),
        ({"trialtime": WINDOWS[:, ::-1]}, {}, InvalidInput, "a trial does not end after its start"),
        ({"trialtime": WINDOWS[:, 0]}, {"trial_time": "spike.trialtime"}, InvalidInput, r"of shape \(n_trials, 2\)"),
        ({"label": ["a", "b"]}, {}, InvalidInput, "names 2 units, the cell array holds those of 3"),
        ({"label": ["a", "a", "b"]}, {}, InvalidInput, "a"),
        ({}, {"times": "spike.cfg"}, InvalidInput, "is a struct with 'method', 'trl'"),
        ({}, {"times": "spike.times"}, NotFound, "no 'spike.times'.*did you mean"),
        ({}, {"events": "cues.csv"}, InvalidInput, "what describes trials must be in the file itself"),
        ({}, {"trial": "spike.trial", "axes": ["unit"]}, InvalidInput, "either trial or axes"),
    ],
)
def test_structs_that_contradict_themselves_are_refused(tmp_path, changes, recipe, error, message):
    path = write_v5(tmp_path / "s.mat", {"spike": struct(**changes)})
    with pytest.raises(error, match=message):
        convert(path, OWN | recipe, format="spikes")


def test_zero_based_and_broken_numbers_of_trials(tmp_path):
    for broken in (lambda trials: trials - 1, lambda trials: trials + 0.5, lambda trials: trials * np.nan):
        path = write_v5(
            tmp_path / "s.mat", {"spike": struct(trial=[broken(trials.astype(float)) for _, trials in planted()])}
        )
        with pytest.raises(InvalidInput, match=r"whole numbers of trials|a number for each spike"):
            convert(path, OWN, format="spikes")


def test_other_files_have_no_such_fields(tmp_path):
    np.savez(tmp_path / "s.npz", t=np.arange(5.0))
    with pytest.raises(InvalidInput, match=r"'trial', 'sample_rate': expected a \.mat file"):
        convert(tmp_path / "s.npz", OWN | {"trial": "t", "sample_rate": 3}, format="spikes")


def test_the_command_line_registers_it(tmp_path):
    path = write_v5(tmp_path / "s.mat", {"spike": struct()})
    words = [
        "register",
        str(path),
        "--set",
        "lab",
        "--store",
        str(tmp_path / "store"),
        "--format",
        "spikes",
        "-o",
        "start_s=-0.5",
    ]
    words += [
        "-o",
        "stop_s=1",
        "-o",
        "bin_s=0.5",
        "-o",
        "activity=count",
        "--variable",
        'side=col("spike.trialinfo")[:, 0]',
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(grid(RecordingStore(tmp_path / "store").get("lab/s")), expected())
    assert "spike.trialinfo" in dict(find_converter(path, "spikes").contents(path))
