"""When units count as recorded: what a recipe says, against spikes that were planted in quiet and busy stretches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.recordings.convert.converter import convert

EVENTS = [1.0, 5.0, 9.0, 13.0, 17.0]
RECIPE = {
    "times": "t", "unit": "u", "events": "cues.csv", "start_s": 0, "stop_s": 2, "bin_s": 1, "activity": "count",
    "variables": {"cue": "cue"},
}  # fmt: skip
SPIKES = {"busy": [0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 19.5], "sparse": [9.2, 9.4]}
COUNTS = {
    "busy": [[1, 0], [1, 0], [1, 0], [1, 0], [1, 0]],
    "sparse": [[0, 0], [0, 0], [2, 0], [0, 0], [0, 0]],
    "none": [[0, 0]] * 5,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [f"{time},{unit}" for unit, times in SPIKES.items() for time in times]
    (tmp_path / "spikes.csv").write_text("\n".join(["t,u", *rows]) + "\n")
    (tmp_path / "cues.csv").write_text("time,cue\n" + "".join(f"{time},{n}\n" for n, time in enumerate(EVENTS)))
    return tmp_path / "spikes.csv"


def counts(source: Path, coverage: object, **more: object) -> dict[str, np.ndarray]:
    """Counts of each unit, shape (5 events, 2 bins); NaN where a unit or a whole sample is missing."""
    recording = convert(source, RECIPE | {"coverage": coverage} | more, format="spikes")
    cube = np.full((5, 2, recording.n_units), np.nan)
    cube[recording.trial, recording.step] = recording.latents()
    return dict(zip(recording.unit_names, np.moveaxis(cube, 2, 0), strict=True))


def with_nan(unit: str, *bins: tuple[int, int]) -> np.ndarray:
    expected = np.array(COUNTS[unit], dtype=float)
    for event, step in bins:
        expected[event, step] = np.nan
    return expected


def test_throughout_keeps_every_trial_of_a_sparse_unit(source):
    made = counts(source, "throughout")
    for unit in SPIKES:
        np.testing.assert_array_equal(made[unit], COUNTS[unit])


def test_an_interval_decides_bin_by_bin(source):
    # from 1 to 14 s: the second bin of the trial at 13 s and the trial at 17 s lie outside
    made = counts(source, [1, 14])
    for unit in SPIKES:
        np.testing.assert_array_equal(made[unit], with_nan(unit, (3, 1), (4, 0), (4, 1)))


def test_several_intervals(source):
    made = counts(source, [[9, 20], [1, 3]])
    for unit in SPIKES:
        np.testing.assert_array_equal(made[unit], with_nan(unit, (1, 0), (1, 1)))


def test_by_default_quiet_ends_are_missing_and_the_notes_say_so(source):
    recording = convert(source, RECIPE, format="spikes")
    assert recording.unit_names == ["busy"]
    assert (
        "5 trials of units that lie before the unit's first or after its last spike"
        in recording.manifest.provenance.notes
    )
    whole = convert(source, RECIPE | {"coverage": "session"}, format="spikes")
    assert whole.unit_names == ["busy", "sparse"]
    assert "before the unit's first" not in whole.manifest.provenance.notes


def test_spikes_outside_an_interval_are_counted_and_all_outside_are_refused(source):
    recording = convert(source, RECIPE | {"coverage": [1, 14]}, format="spikes")
    assert "3 of 9 spikes outside coverage" in recording.manifest.provenance.notes
    with pytest.raises(
        InvalidInput, match=r"all 9 spikes lie outside coverage, which is \[\[1000.0, 2000.0\]\]"
    ) as raised:
        convert(source, RECIPE | {"coverage": [1000, 2000]}, format="spikes")
    assert raised.value.kind == "invalid_times"


def test_a_unit_of_the_table_without_spikes_is_silent_where_it_was_recorded(source):
    (source.parent / "units.csv").write_text("unit,area\nnone,CA3\nbusy,CA1\nsparse,CA1\n")
    made = counts(source, [0, 20], units="units.csv")
    assert list(made) == ["busy", "sparse", "none"]
    np.testing.assert_array_equal(made["none"], COUNTS["none"])
    # without a word on when it was recorded, nothing says that it was
    assert list(counts(source, "spikes", units="units.csv")) == ["busy"]


@pytest.mark.parametrize(
    "coverage", [[3, 1], [1], [], "always", [[1, 2], 3], [True, 2], 7, [0, float("inf")], [0, float("nan")]]
)
def test_what_is_no_coverage(source, coverage):
    with pytest.raises(InvalidDocument, match="coverage"):
        convert(source, RECIPE | {"coverage": coverage}, format="spikes")


def test_a_recipe_in_a_file_says_it_too(source):
    path = source.parent / "recipe.json"
    path.write_text(json.dumps(RECIPE | {"coverage": [0, 20]}))
    recording = convert(source, path, format="spikes")
    assert recording.n_samples == 10
    assert not recording.manifest.missing
    assert '"coverage":[[0.0,20.0]]' in recording.manifest.provenance.notes


def test_nwb_units_have_the_same_coverage(source):
    pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile

    file = NWBFile(session_description="-", identifier="-", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    file.add_trial_column("cue", "-")
    for number, time in enumerate(EVENTS):
        file.add_trial(start_time=time, stop_time=time + 2, cue=number)
    for times in [*SPIKES.values(), []]:
        file.add_unit(spike_times=times, obs_intervals=[[0.0, 4.0]])
    path = source.parent / "s.nwb"
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    recipe = {name: value for name, value in RECIPE.items() if name not in ("times", "unit", "events")}
    for coverage, missing in {
        "throughout": [],
        "session": [],
        "auto": [(event, step) for event in range(1, 5) for step in (0, 1)],
    }.items():
        recording = convert(path, recipe | {"coverage": coverage, "align": "start_time"})
        assert recording.n_units == 3
        cube = np.full((5, 2, 3), np.nan)
        cube[recording.trial, recording.step] = recording.latents()
        for number, unit in enumerate(COUNTS):
            np.testing.assert_array_equal(cube[:, :, number], with_nan(unit, *missing))
    recording = convert(path, recipe | {"coverage": [1, 14], "align": "start_time"})
    assert np.isnan(recording.latents()[recording.trial == 3]).sum() == 3  # the second bin, in 3 units
    assert 4 not in recording.trial
