"""NWB ``invalid_times``: planted intervals make the bins that they touch missing, and nothing else."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.convert.events import touching

pynwb = pytest.importorskip("pynwb")

RECIPE = {"align": "start_time", "start_s": 0, "stop_s": 1, "bin_s": 0.5, "variables": {"side": "side"}}
SPIKES = {"coverage": "throughout", "activity": "count"}


def session() -> Any:
    """Four trials at 0, 10, 20 and 30 s, two units that fire in every bin, a pupil and two channels."""
    file = pynwb.NWBFile(session_description="-", identifier="-", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    file.add_trial_column("side", "-")
    for number in range(4):
        file.add_trial(start_time=10.0 * number, stop_time=10.0 * number + 5, side="lr"[number % 2])
    for phase in (0.1, 0.3):
        file.add_unit(spike_times=np.arange(0, 40, 0.5) + phase)
    file.add_acquisition(pynwb.TimeSeries(name="pupil", data=np.arange(400.0), unit="mm", rate=10.0))
    group = file.create_electrode_group("g", "-", "-", file.create_device("probe"))
    for _ in range(2):
        file.add_electrode(location="CA1", group=group)
    electrodes = file.create_electrode_table_region([0, 1], "-")
    for name in ("raw", "lfp"):
        file.add_acquisition(
            pynwb.ecephys.ElectricalSeries(name=name, data=np.ones((400, 2)), rate=10.0, electrodes=electrodes)
        )
    return file


def write(path: Path, file: Any) -> Path:
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def missing(path: Path, **more: Any) -> tuple[list[tuple[int, int]], str]:
    """(trial, step) of the bins in which nothing was recorded, of 4 trials and 2 steps; and the notes."""
    recording = convert(path, RECIPE | more)
    present = np.zeros((4, 2), dtype=bool)
    for trial, step, latent in zip(recording.trial, recording.step, recording.latents(), strict=True):
        assert np.isnan(latent).all() or not np.isnan(latent).any()
        present[trial, step] = not np.isnan(latent).any()
    return list(zip(*map(np.ndarray.tolist, np.nonzero(~present)), strict=True)), recording.manifest.provenance.notes


@pytest.mark.parametrize(
    ("intervals", "bins"),
    [
        ([(10.0, 12.0)], [(1, 0), (1, 1)]),  # a whole trial, which is left out
        ([(20.5, 20.6)], [(2, 1)]),
        ([(20.4, 20.6)], [(2, 0), (2, 1)]),
        ([(1.0, 10.0), (31.0, 40.0)], []),  # edges that touch no bin
        ([(30.7, 30.7)], [(3, 1)]),  # a moment
        ([(30.2, np.nan)], [(3, 0), (3, 1)]),  # open at its end
        ([(0.2, 0.3), (30.9, 35.0)], [(0, 0), (3, 1)]),
    ],
)
def test_bins_that_touch_invalid_times_are_missing(tmp_path, intervals, bins):
    file = session()
    for start, stop in intervals:
        file.add_invalid_time_interval(start_time=start, stop_time=stop)
    seen, notes = missing(write(tmp_path / "s.nwb", file), **SPIKES)
    assert seen == bins
    assert (f"{len(bins)} bins that touch invalid_times ({len(intervals)} intervals)" in notes) == bool(bins)


def test_series_too_and_the_user_may_keep_them(tmp_path):
    file = session()
    file.add_invalid_time_interval(start_time=20.5, stop_time=20.6)
    path = write(tmp_path / "s.nwb", file)
    assert missing(path, source="pupil")[0] == missing(path, source="lfp")[0] == [(2, 1)]
    assert missing(path, source="pupil", invalid_times="keep")[0] == []
    assert missing(path, **SPIKES, invalid_times="keep")[0] == []


def test_what_stays_holds_the_same_numbers(tmp_path):
    plain = convert(write(tmp_path / "a.nwb", session()), RECIPE | SPIKES)
    file = session()
    file.add_invalid_time_interval(start_time=20.0, stop_time=20.1)
    cut = convert(write(tmp_path / "b.nwb", file), RECIPE | SPIKES)
    expected = plain.latents()
    expected[(plain.trial == 2) & (plain.step == 0)] = np.nan
    np.testing.assert_array_equal(cut.latents(), expected)
    assert cut.manifest.missing
    assert not plain.manifest.missing


def test_an_interval_that_names_series_holds_for_these_and_for_what_was_made_of_them(tmp_path):
    file = session()
    file.add_invalid_time_interval(
        start_time=10.0, stop_time=11.0, timeseries=[file.acquisition["pupil"]], tags=["blink"]
    )
    file.add_invalid_time_interval(
        start_time=20.0, stop_time=20.5, timeseries=[file.acquisition["raw"]], tags=["artefact"]
    )
    path = write(tmp_path / "s.nwb", file)
    assert missing(path, source="pupil")[0] == [(1, 0), (1, 1)]
    for more in (SPIKES, {"source": "raw"}, {"source": "lfp"}):
        seen, notes = missing(path, **more)
        assert seen == [(2, 0)]
        assert "1 intervals of invalid_times that hold for other series" in notes


def test_invalid_times_outweigh_what_the_recipe_says_of_coverage_and_observed_intervals(tmp_path):
    file = session()
    file.add_unit_column("depth", "-", data=[1.0, 2.0])
    file.add_invalid_time_interval(start_time=20.0, stop_time=21.0)
    path = write(tmp_path / "s.nwb", file)
    for coverage in ("spikes", "session", "throughout", [0, 40]):
        assert (2, 0) in missing(path, coverage=coverage)[0]


def test_a_session_that_is_invalid_altogether_is_told(tmp_path):
    file = session()
    file.add_invalid_time_interval(start_time=0.0, stop_time=40.0)
    path = write(tmp_path / "s.nwb", file)
    with pytest.raises(InvalidInput, match="8 bins that touch invalid_times") as raised:
        convert(path, RECIPE | SPIKES)
    assert raised.value.kind == "no_trials"


def test_an_interval_that_ends_before_it_starts_is_refused(tmp_path):
    file = session()
    file.add_invalid_time_interval(start_time=20.0, stop_time=10.0)
    with pytest.raises(InvalidInput, match="row 0: the interval ends at 10 s, before it starts at 20 s") as raised:
        convert(write(tmp_path / "s.nwb", file), RECIPE)
    assert raised.value.kind == "invalid_times"


# ---------------------------------------------------------------------------------------------------- as hdmf-zarr writes it


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """The session with intervals for the pupil (10 to 11 s), for ``raw`` (20 to 20.5 s) and for both (30.7 to 30.8 s)."""
    with zipfile.ZipFile(Path(__file__).parent / "nwb" / "invalid.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "invalid.nwb", tmp_path / "invalid.nwb.zarr"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("largest", [2**22, 0], ids=["copied", "read in place"])
def test_zarr_and_hdf5_leave_out_the_same_bins(both, monkeypatch, largest):
    monkeypatch.setattr("neuromas.recordings.convert.zarr_as_hdf5._LARGEST", largest)
    for path in both:
        assert missing(path, source="pupil")[0] == [(1, 0), (1, 1), (3, 1)]
        for more in (SPIKES, {"source": "raw"}, {"source": "lfp"}):
            seen, notes = missing(path, **more)
            assert seen == [(2, 0), (3, 1)]
            assert "2 bins that touch invalid_times (2 intervals)" in notes
            assert "1 intervals of invalid_times that hold for other series" in notes
        assert missing(path, **SPIKES, invalid_times="keep")[0] == []


@pytest.mark.usefixtures("in_process")
def test_intervals_that_name_no_series_hold_for_everything_in_zarr(both):
    """As a file that says nothing of series has them: without their column."""
    table = both[1] / "intervals" / "invalid_times"
    attributes = json.loads((table / ".zattrs").read_text())
    attributes["colnames"] = [name for name in attributes["colnames"] if name != "timeseries"]
    (table / ".zattrs").write_text(json.dumps(attributes))
    for name in ("timeseries", "timeseries_index"):
        shutil.rmtree(table / name)
    for more in (SPIKES, {"source": "pupil"}, {"source": "lfp"}):
        assert missing(both[1], **more)[0] == [(1, 0), (1, 1), (2, 0), (3, 1)]


@pytest.mark.usefixtures("in_process")
def test_a_folder_that_was_not_written_to_its_end_is_refused(both):
    column = both[1] / "intervals" / "invalid_times" / "timeseries"
    (column / ".zattrs").unlink()
    (column / "0").unlink()
    with pytest.raises(InvalidInput, match="probably not written to its end") as raised:
        convert(both[1], RECIPE | SPIKES)
    assert raised.value.kind == "unreadable_source"


def test_touching_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, 50, (20, 1)), axis=0) + np.arange(5) * 2.0
    intervals = np.sort(rng.uniform(0, 60, (6, 2)), axis=1)
    expected = [
        [any(start < high and stop > low for start, stop in intervals) for low, high in itertools.pairwise(row)]
        for row in edges
    ]
    np.testing.assert_array_equal(touching(intervals, edges), expected)
