"""The one way from activity in bins to a recording, with and without the bins in which nothing was recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.convert.events import take_events
from neuromas.recordings.convert.locked import Binned, recording_of
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import EventRecipe

RECIPE = EventRecipe(align="cue", start_s=0, stop_s=0.2, bin_s=0.1, where="n > 0", variables={"n": "n"})
COLUMNS = {"cue": np.array([1.0, 2.0, 3.0, 4.0]), "n": np.array([0, 1, 2, 3])}
NONE = [np.nan, np.nan, np.nan]
ACTIVITY = np.array([[[1, 2, np.nan], NONE], [NONE, NONE], [[3, np.nan, np.nan], [4, 5, np.nan]]])
"""Three trials of two steps; the second trial, one bin of the first and the third unit were not recorded."""


def make(activity: np.ndarray = ACTIVITY, **how: Any) -> Recording:
    metadata = {"n": [7, 8, 9], "depth": (np.array([0.1, 0.2, 0.3]), {"units": "mm"})}
    binned = Binned(activity, ["a", "b", "c"], "Hz", metadata, span="the rig ran from 0 to 5 s", left_out=["2 units"])
    events = take_events(COLUMNS, RECIPE, "rig")
    return recording_of(events, binned, RECIPE, {"task": "toy"}, defaults={"name": "rig"}, where="rig", **how)


def test_bins_in_which_no_unit_was_recorded_are_no_samples():
    recording = make()
    assert recording.dataset["trial"].values.tolist() == [1, 3, 3]
    assert recording.dataset["step"].values.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(recording.dataset["activity"].values, [[1, 2], [3, np.nan], [4, 5]])
    assert recording.manifest.missing
    assert (recording.manifest.units, recording.manifest.task) == ("Hz", "toy")
    assert recording.unit_names == ["a", "b"]
    assert recording.dataset["unit_n"].values.tolist() == [7, 8]
    assert recording.dataset["depth"].attrs == {"units": "mm"}
    assert recording.dataset["event_s"].values.tolist() == [2, 4, 4]
    assert recording.manifest.provenance.notes.endswith(
        "left out: 1 rows not selected; 1 trials in which no unit was recorded; 1 bins of other trials in which no unit was "
        "recorded; 2 units; units that were recorded in none of the trials: 'c'"
    )


def test_bins_in_which_no_unit_was_recorded_may_stay_as_missing():
    recording = make(keep_empty_bins=True)
    assert recording.dataset["trial"].values.tolist() == [1, 1, 3, 3]
    np.testing.assert_array_equal(recording.dataset["activity"].values, [[1, 2], [np.nan, np.nan], [3, np.nan], [4, 5]])
    assert recording.manifest.missing
    assert "bins of other trials" not in recording.manifest.provenance.notes


def test_row_ids_number_the_trials_unless_they_occur_twice():
    assert make(row_ids=np.array([10, 11, 12, 13])).dataset["trial"].values.tolist() == [11, 13, 13]
    # the first row is no trial
    assert make(row_ids=np.array([11, 11, 12, 13])).dataset["trial"].values.tolist() == [11, 13, 13]
    twice = make(row_ids=np.array([10, 11, 12, 11]))
    assert twice.dataset["trial"].values.tolist() == [1, 3, 3]
    assert "some occur twice" in twice.manifest.provenance.notes


def test_what_was_never_recorded_is_no_recording():
    with pytest.raises(InvalidInput, match=r"in any of 3 trials, .* between 2 and 4\.2 s; the rig ran from") as raised:
        make(np.full((3, 2, 3), np.nan))
    assert raised.value.kind == "no_trials"


def test_the_provenance_of_a_folder_tells_its_content(tmp_path):
    import xarray as xr

    def sha256(path: Any) -> str | None:
        return convert(path, {"activity": "rates", "variables": {"n": "n"}}).manifest.provenance.source_sha256

    for name, number in (("a", 1), ("b", 1), ("c", 2)):
        rates = xr.Dataset({"rates": (("sample", "unit"), np.eye(2)), "n": ("sample", [0, number])})
        rates.to_zarr(tmp_path / f"{name}.zarr", zarr_format=2, consolidated=False)
    a, b, c = (sha256(tmp_path / f"{name}.zarr") for name in "abc")
    assert a == b
    assert len(a) == 64
    assert a != c
