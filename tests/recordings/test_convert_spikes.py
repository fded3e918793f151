"""Spike times and events: planted in bins and found there again, and what is told about files that are none."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.events import bin_spikes, within
from neuromas.recordings.convert.text import read_text

NAMED_FOLDER = os.environ.get("NEUROMAS_TEST_DATA", "")
needs_data = pytest.mark.skipif(
    not NAMED_FOLDER, reason="NEUROMAS_TEST_DATA names no folder that holds chick_number_neurons"
)

KINDS = {"num1rad": [10.0, 16.0], "num2rad": [12.0], "num1area": [14.0, 20.0], "num2area": [18.0]}
WIDE = {"event_columns": r"num(?P<number>\d)(?P<control>rad|area)", "start_s": 0, "stop_s": 1, "bin_s": 0.5}
VARIABLES = {"variables": {"number": "number", "control": "control"}}


def plant(seed: int = 0) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Spike times, and how many lie in each of two bins of half a second after each event."""
    rng = np.random.default_rng(seed)
    counts = {onset: rng.integers(0, 4, 2) for each in KINDS.values() for onset in each}
    times = [5.0, 25.0]  # the unit was there before the first event and after the last
    for onset, each in counts.items():
        for step, count in enumerate(each):
            times += list(onset + 0.5 * step + rng.uniform(0.01, 0.49, count))
    return np.sort(times), counts


def write_wide(path: Path, times: np.ndarray, kinds: dict[str, list[float]] = KINDS, unit: str = "SPK01") -> Path:
    """Ragged columns, as text."""
    table = pd.DataFrame({name: pd.Series(values) for name, values in {unit: times, **kinds}.items()})
    text = table.to_csv(index=False, sep="\t" if ".txt" in path.name else ",")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["chick 1.txt", "chick_1.txt.gz", "chick_1.csv"])
def test_planted_spikes_are_counted_in_their_bins(tmp_path, name):
    times, counts = plant()
    path = write_wide(tmp_path / name, times)
    recording = convert(path, WIDE | VARIABLES | {"activity": "count"}, format="spikes", licence="CC0-1.0")
    onsets = sorted(counts)
    assert recording.latents().reshape(-1, 2).tolist() == [counts[onset].tolist() for onset in onsets]
    assert recording.dataset["event_s"].values[::2].tolist() == onsets
    assert recording.dataset["trial"].values.tolist() == np.repeat(np.arange(6), 2).tolist()
    told = {onset: re.fullmatch(r"num(\d)(\w+)", kind).groups() for kind, each in KINDS.items() for onset in each}
    specs = [recording.spec(one) for one in ("number", "control")]
    assert [spec.type for spec in specs] == ["integer", "categorical"]
    found = [
        tuple(spec.label(one) for spec, one in zip(specs, row, strict=True))
        for row in recording.values(["number", "control"])
    ]
    assert found[::2] == [told[onset] for onset in onsets]
    manifest = recording.manifest
    assert (manifest.access, manifest.units, manifest.missing, manifest.licence) == ("read", "1", False, "CC0-1.0")
    assert manifest.name == re.sub(" ", "-", name).split(".")[0]
    assert recording.unit_names == ["SPK01"]
    assert (manifest.sampling.step_s, manifest.sampling.start_s) == (0.5, 0)
    assert manifest.provenance.source == name
    assert manifest.provenance.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert '"event_columns":' in manifest.provenance.notes


def test_rates_are_in_hertz(tmp_path):
    times, counts = plant()
    recording = convert(write_wide(tmp_path / "a.txt", times), WIDE | VARIABLES)
    assert recording.manifest.units == "Hz"
    assert recording.latents().ravel().tolist() == [2.0 * one for onset in sorted(counts) for one in counts[onset]]


@given(seed=st.integers(0, 10_000), bin_s=st.sampled_from([0.1, 0.25, 1.0, None]))
@settings(max_examples=15)
def test_counts_are_those_of_a_loop_over_spikes(tmp_path_factory, seed, bin_s):
    rng = np.random.default_rng(seed)
    times, cues = np.sort(rng.uniform(0, 40, 60)), np.sort(rng.uniform(5, 30, 8))
    folder = tmp_path_factory.mktemp("spikes")
    np.savez(folder / "s.npz", spikes=times, cue=cues, side=rng.integers(0, 2, 8))
    recipe = {
        "align": "cue",
        "start_s": -0.5,
        "stop_s": 0.5,
        "bin_s": bin_s,
        "activity": "count",
        "variables": {"side": "side"},
    }
    recording = convert(folder / "s.npz", recipe, format="spikes")
    width = bin_s or 1.0
    for sample in range(recording.n_samples):
        cue = cues[recording.dataset["trial"].values[sample]]
        left = cue - 0.5 + width * recording.dataset["step"].values[sample]
        expected = sum(1 for one in times if left <= one < left + width)
        near = np.abs(times[:, None] - [left, left + width]).min() < 1e-9
        assert near or recording.latents()[sample, 0] == expected


def test_long_events_beside_spikes_of_several_units(tmp_path):
    spikes = pd.DataFrame({"t": [0.1, 1.2, 1.3, 2.2, 9.0, 0.0, 1.4, 2.1], "cell": [2.0] * 5 + [7.0] * 3})
    spikes.to_csv(tmp_path / "spikes.csv", index=False)
    events = pd.DataFrame(
        {"time": [2.0, 1.0, 5.0, np.nan], "side": ["right", "left", "left", "right"], "n": [1, 2, 3, 4]}
    )
    events.to_csv(tmp_path / "cues.tsv", index=False, sep="\t")
    recipe = {
        "times": "t", "unit": "cell", "events": "cues.tsv", "start_s": 0, "stop_s": 1, "activity": "count",
        "variables": {"side": "side", "n": "n"},
    }  # fmt: skip
    recording = convert(tmp_path / "spikes.csv", recipe, format="spikes")
    # in order of time; unit 7 fires last at 2.1 s, so that only the trial at 1 s lies within its spikes
    assert recording.unit_names == ["2", "7"]
    assert np.array_equal(recording.latents(), [[2, 1], [1, np.nan], [0, np.nan]], equal_nan=True)
    assert recording.values(["n"]).ravel().tolist() == [2, 1, 3]
    assert recording.manifest.missing
    notes = recording.manifest.provenance.notes
    assert "1 rows without a time" in notes
    assert hashlib.sha256((tmp_path / "cues.tsv").read_bytes()).hexdigest() in notes
    # everything the session holds: unit 7 was silent, not missing
    whole = convert(tmp_path / "spikes.csv", recipe | {"coverage": "session"}, format="spikes")
    assert whole.latents().tolist() == [[2, 1], [1, 1], [0, 0]]
    assert not whole.manifest.missing
    # a trial has the same number whichever are taken
    some = convert(tmp_path / "spikes.csv", recipe | {"where": "n != 2"}, format="spikes")
    assert some.dataset["trial"].values.tolist() == [1, 2]


def test_trials_that_no_unit_saw_are_left_out_and_counted(tmp_path):
    times, _ = plant()
    path = write_wide(tmp_path / "a.txt", times, KINDS | {"num1rad": [1.0, 10.0, 16.0, 24.5]})
    recording = convert(path, WIDE | VARIABLES)
    assert np.unique(recording.dataset["trial"].values).tolist() == [1, 2, 3, 4, 5, 6]
    assert "2 trials in which no unit was recorded" in recording.manifest.provenance.notes


def test_wide_events_in_an_archive_and_times_as_a_variable(tmp_path):
    np.savez(tmp_path / "s.npz", unit=np.array([0.0, 1.1, 4.0]), left=[1.0], right=[2.0, 3.0], note=np.zeros((2, 2)))
    recipe = {"event_columns": "(?P<side>left|right)", "start_s": -0.5, "stop_s": 0.5, "bin_s": 0.5}
    recording = convert(
        tmp_path / "s.npz", recipe | {"variables": {"side": "side", "after": "time > 0"}}, format="spikes"
    )
    assert recording.latents().ravel().tolist() == [0, 2, 0, 0, 0, 0]
    assert recording.values(["side", "after"]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 1]]


def test_contents_tell_columns_and_how_many_times_each_holds(tmp_path):
    times, _ = plant()
    path = write_wide(tmp_path / "a.txt", times)
    listed = dict(find_converter(path).contents(path))
    assert list(listed) == ["SPK01", *KINDS]
    assert listed["num1rad"] == "(2,) float64: 10.0, 16.0"


@pytest.mark.parametrize(
    ("change", "error", "kind", "told"),
    [
        ({"bin_s": 2}, InvalidDocument, "invalid_document", "bin_s of 2 s is wider than the window of 1 s"),
        ({"bin_s": 0.3}, InvalidDocument, "invalid_document", "does not hold a whole number of bins"),
        ({"event_columns": "("}, InvalidInput, "invalid_recipe", "is not a regular expression"),
        ({"event_columns": "(?P<time>num.*)"}, InvalidInput, "invalid_recipe", "cannot be called 'time'"),
        ({"event_columns": "dots.*"}, NotFound, "unknown_column", "matches no column; there are 'num1rad'"),
        ({"event_columns": None}, NotFound, "unknown_column", "no column 'time' of event times"),
        ({"times": "spikes"}, NotFound, "unknown_column", "no column 'spikes'; there are 'SPK01'"),
        ({"unit": "cell"}, NotFound, "unknown_column", "no column 'cell'"),
        ({"variables": {}}, InvalidInput, "no_variables", "made from columns such as 'time', 'number', 'control'"),
        ({"variables": {"n": "numbr"}}, InvalidDocument, "invalid_document", "no column 'numbr'"),
        ({"where": "number > 7"}, InvalidInput, "no_trials", "none of 6 rows is a trial"),
        ({"start_s": 100, "stop_s": 101}, InvalidInput, "no_trials", "no unit was recorded in any of 6 trials"),
        ({"events": "none.csv"}, NotFound, "unknown_file", "no such file of events"),
        ({"events": "../other.csv"}, InvalidInput, "invalid_recipe", "expected a file beside the source"),
        ({"binz": 1}, InvalidDocument, "invalid_document", "binz: no such field"),
    ],
)  # fmt: skip
def test_bad_recipes_are_told(tmp_path, change, error, kind, told):
    path = write_wide(tmp_path / "a.txt", plant()[0])
    with pytest.raises(error) as raised:
        convert(path, WIDE | VARIABLES | change)
    assert raised.value.kind == kind
    assert told in raised.value.message


def test_an_event_in_two_columns_is_refused(tmp_path):
    path = write_wide(tmp_path / "a.txt", plant()[0], KINDS | {"num1all": [10.0, 14.0]})
    with pytest.raises(
        InvalidInput, match=r"2 events would be used more than once, e\.g\. 10 s from columns 'num1rad', 'num1all'"
    ) as raised:
        convert(path, WIDE | {"event_columns": r"num(?P<number>\d).*", "variables": {"n": "number"}})
    assert raised.value.kind == "duplicate_event"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no header"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "binary data"),
        (b"t\tn\n1\t2\n1\t2\t3\n", "cannot be read as a table of text"),
        (b"t\tt\n1\t2\n", "columns named more than once: 't'"),
        ("t\n\xe9".encode("latin-1"), "cannot be read as a table of text"),
        (b"t\tn\n,\t3\n", "expected times in seconds, got ','"),
        (b"t\tn\n\t3\n", "holds no spike time"),
    ],
)
def test_files_that_are_no_table_are_told(tmp_path, content, told):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as raised:
        convert(path, {"align": "n", "start_s": 0, "stop_s": 1, "variables": {"n": "n"}})
    assert raised.value.kind == "unreadable_source"
    assert told in raised.value.message
    assert str(path) in raised.value.message


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:20] + b"xxxx" + data[24:], lambda _: b"t\tn\n"]
)
def test_damaged_gzip_is_told(tmp_path, damage):
    path = write_wide(tmp_path / "a.txt.gz", plant()[0])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidInput) as raised:
        convert(path, WIDE | VARIABLES)
    assert raised.value.kind == "unreadable_source"


def test_a_spike_whose_unit_is_blank_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("t\tcell\ttime\n1\ta\t1\n2\t\t2\n")
    with pytest.raises(InvalidInput, match="1 of 2 spikes have no unit in column 'cell'"):
        convert(tmp_path / "a.txt", {"unit": "cell", "start_s": 0, "stop_s": 1, "variables": {"n": "time"}})


def test_a_pickle_in_an_archive_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", spikes=np.array([{"t": 1}], dtype=object), time=[1.0])
    with pytest.raises(InvalidInput) as raised:
        convert(tmp_path / "s.npz", {"start_s": 0, "stop_s": 1, "variables": {"n": "time"}}, format="spikes")
    assert raised.value.kind == "pickle_refused"


def test_words_for_nothing_among_numbers_and_text(tmp_path):
    (tmp_path / "a.csv").write_text("x,side,flag\n1,None,True\nNA,left,false\nnan,,True\n")
    columns = read_text(tmp_path / "a.csv")
    assert np.array_equal(columns["x"], [1, np.nan, np.nan], equal_nan=True)
    assert columns["side"].tolist() == ["None", "left", ""]  # a condition may be called None
    assert columns["flag"].tolist() == [True, False, True]


EVENTS = {"events": "cues.csv", "start_s": 0, "stop_s": 0.2, "activity": "count", "variables": {"side": "side"}}


def spikes_file(folder: Path, spikes: str, cues: str) -> Path:
    (folder / "cues.csv").write_text(cues)
    (folder / "spikes.csv").write_text(spikes)
    return folder / "spikes.csv"


def test_a_spike_on_an_edge_belongs_to_the_bin_that_begins_there_in_spite_of_rounding():
    rng = np.random.default_rng(0)
    for event, step in zip(rng.integers(0, 100_000, 500) / 1000, rng.integers(0, 10, 500), strict=True):
        counts = bin_spikes(np.round([event + step * 0.1], 3), (event + 0.1 * np.arange(11))[None])
        assert counts[0].nonzero()[0].tolist() == [step]


def test_touching_intervals_are_one():
    assert within(np.array([[5.0, 9.0], [0.0, 5.0]]), np.array([[4.0, 6.0, 10.0]])).tolist() == [[True, False]]


def test_units_numbered_with_many_digits_stay_apart(tmp_path):
    rows = ["0.1,950921187", "1.1,950921188", "9,950921187", "9.5,950921188", "0.2,950921188", ","]
    path = spikes_file(tmp_path, "\n".join(["t,u", *rows]), "time,side\n1,l\n2,r\n")
    recording = convert(path, EVENTS | {"unit": "u"}, format="spikes")
    assert recording.unit_names == ["950921187", "950921188"]
    assert recording.latents().tolist() == [[0, 1], [0, 0]]


def test_a_session_goes_from_the_first_spike_of_all_units_to_the_last(tmp_path):
    path = spikes_file(tmp_path, "t,u\n0,a\n3,a\n2.1,b\n", "time,side\n1,l\n2,r\n50,r\n")
    recording = convert(path, EVENTS | {"unit": "u", "coverage": "session"}, format="spikes")
    assert recording.dataset["event_s"].values.tolist() == [1, 2]
    assert recording.latents().tolist() == [[0, 0], [0, 1]]
    assert "1 trials in which no unit was recorded" in recording.manifest.provenance.notes
    recording = convert(path, EVENTS | {"unit": "u"}, format="spikes")  # b has one spike: it was never seen to last
    assert recording.unit_names == ["a"]
    assert "units that were recorded in none of the trials: 'b'" in recording.manifest.provenance.notes


def test_expressions_of_times_and_names_that_are_no_identifiers(tmp_path):
    path = spikes_file(tmp_path, "t ms\n0\n1100\n9000\n", "cue time,side\n1,l\n2,r\n")
    recipe = EVENTS | {"times": "col('t ms') / 1000", "align": "col('cue time') * 1"}
    recording = convert(path, recipe, format="spikes")
    assert (recording.unit_names, recording.latents().ravel().tolist()) == (["spikes"], [1, 0])
    assert "events cues.csv" in recording.manifest.provenance.notes
    assert "left out" not in recording.manifest.provenance.notes
    with pytest.raises(InvalidInput, match=r"write col\('cue time'\)"):
        convert(path, recipe | {"align": "cue time"}, format="spikes")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stop_s": float("inf")}, "stop_s"),
        ({"start_s": float("nan")}, "start_s"),
        ({"stop_s": 1e9, "bin_s": 1e-3}, "would take"),
        ({"align": "side"}, "expected a time in seconds for each row"),
        ({"variables": {"x": "[1, 2, 3]"}}, "a list is allowed only"),
        ({"variables": {"fast": "rt < 0.5"}}, "1 of 2 entries of 'rt < 0.5' are missing"),
        ({"variables": {"fast": "where(rt < 0.5, 1, 0)"}}, "1 of 2 entries"),
    ],
)
def test_what_no_recording_can_be_made_of_is_told(tmp_path, change, told):
    path = spikes_file(tmp_path, "t\n0\n1.1\n9\n", "time,side,rt\n1,l,0.1\n2,r,\n")
    with pytest.raises(NeuromasError, match=re.escape(told)):
        convert(path, EVENTS | change, format="spikes")


def test_a_header_of_numbers_is_no_header(tmp_path):
    path = spikes_file(tmp_path, "0.5\n1.1\n9\n", "time,side\n1,l\n2,r\n")
    with pytest.raises(InvalidInput, match="its first line holds numbers"):
        convert(path, EVENTS, format="spikes")


@needs_data
@pytest.mark.slow
def test_every_chick_file_has_as_many_trials_as_onsets():
    files = sorted(Path(NAMED_FOLDER, "chick_number_neurons").glob("*.txt.gz"))
    assert len(files) == 53
    total = 0
    for path in files:
        pattern = r"num(?P<number>[1-5])(?P<control>rad|area|perim)Sel"
        table = pd.read_csv(path, sep="\t")
        onsets = {name: table[name].dropna().to_numpy() for name in table.columns if re.fullmatch(pattern, name)}
        spikes = np.sort(table.iloc[:, 0].dropna().to_numpy())
        recipe = {
            "event_columns": pattern,
            "start_s": 0,
            "stop_s": 0.5,
            "activity": "count",
            "coverage": "session",
        } | VARIABLES
        try:
            recording = convert(path, recipe)
        except NeuromasError as error:
            pytest.fail(f"{path.name}: {error}")
        expected = {
            one: sum(len(values) for name, values in onsets.items() if name.startswith(f"num{one}"))
            for one in range(1, 6)
        }
        numbers, counts = np.unique(recording.values(["number"]), return_counts=True)
        lost = sum(expected.values()) - recording.n_samples  # a window that ends after the session
        assert 0 <= lost <= 1
        assert sum(abs(expected[int(one)] - count) for one, count in zip(numbers, counts, strict=True)) == lost
        first = recording.dataset["event_s"].values[0]
        assert recording.latents()[0, 0] == ((spikes >= first) & (spikes < first + 0.5)).sum()
        total += sum(expected.values())
    assert total == 21_076  # as its README says
