"""NWB files with planted spikes, series and columns, and two real ones whose answers are known."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.pickled_array import read_pickled_array
from neuromas.recordings.recording import Recording

NAMED_FOLDER = os.environ.get("NEUROMAS_TEST_DATA", "")
GUO = Path(NAMED_FOLDER) / "nwb_mouse_thalamus_guo2017/sub_anm00239123_ses_20170627T093549_ecephys_and_ogen.nwb"
ZHENG = Path(NAMED_FOLDER) / "nwb_human_mtl_zheng2022/sub-4_ses-4_ecephys+image.nwb"
BOTH_KINDS = Path(__file__).parent / "nwb" / "small.zip"

pytestmark = pytest.mark.skipif(find_spec("pynwb") is None, reason="needs pynwb: pip install 'neuromas[nwb]'")
needs_data = pytest.mark.skipif(not NAMED_FOLDER, reason="NEUROMAS_TEST_DATA names no folder that holds NWB files")

CUES = (1.0, 3.0, 5.0, np.nan, 7.0, -1.5e9)
SPIKES = {
    "full": [0.5, 1.05, 1.06, 1.3, 3.25, 9.0],  # 1.3 lies on an edge
    "early": [0.9, 1.15, 2.0],
    "silent": [],
}
COUNTS = np.array([[2, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # of "full", at 1, 3, 5 and 7 s
WINDOW = {"align": "cue", "start_s": 0.0, "stop_s": 0.4, "bin_s": 0.1}
SIDE = {"side": "side"}


def session(intervals: dict[str, list[list[float]]] | None = None) -> Any:
    """Six trials, numbered from 10, and three units."""
    from pynwb import NWBFile
    from pynwb.file import Subject

    file = NWBFile(
        session_description="a planted task\nof two lines",
        identifier="planted",
        session_start_time=datetime(2020, 1, 1, tzinfo=UTC),
        related_publications=["Nobody (2020)"],
        subject=Subject(subject_id="m1", species="Mus musculus"),
    )
    group = file.create_electrode_group(
        name="shank", description="-", location="CA1", device=file.create_device(name="probe")
    )
    for location in ("CA1", "CA1", "CA3"):
        file.add_electrode(location=location, group=group)
    file.add_unit_column("type", "shape of the waveform")
    file.add_unit_column("snr", "signal to noise")
    for number, (kind, times) in enumerate(SPIKES.items()):
        observed = {} if intervals is None else {"obs_intervals": np.reshape(intervals[kind], (-1, 2))}
        file.add_unit(
            id=number + 5, spike_times=times, electrodes=[0, number], type=kind, snr=float(number), **observed
        )
    for name in ("cue", "side", "code", "clip"):
        file.add_trial_column(name, "-")
    for number, cue in enumerate(CUES):
        file.add_trial(
            id=10 + number,
            start_time=float(2 * number),
            stop_time=float(2 * number + 2),
            cue=cue,
            side=("left", "right")[number % 2],
            code=np.uint8(number % 3),
            clip=(b"NB_1.mp4", b"SB_2.mp4")[number // 3],
        )
    return file


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a session as ``planted.nwb``."""

    def writer(file: Any) -> Path:
        from pynwb import NWBHDF5IO

        path = tmp_path / "planted.nwb"
        with NWBHDF5IO(path, "w") as io:
            io.write(file, cache_spec=False)
        return path

    return writer


def take(path: Path, window: dict[str, Any] = WINDOW, variables: Any = SIDE, **more: Any) -> Recording:
    return convert(path, {**window, "variables": variables, **more})


def cube(recording: Recording) -> np.ndarray:
    """Activity of shape (n_trials, n_steps, n_units)."""
    n_steps = int(recording.dataset["step"].values.max()) + 1
    return recording.dataset["activity"].values.reshape(-1, n_steps, recording.n_units)


# ---------------------------------------------------------------------------------------------------- spikes


@pytest.mark.parametrize(("activity", "scale", "units"), [("rate", 10, "Hz"), ("count", 1, "1")])
def test_planted_spikes_are_counted_and_what_was_not_recorded_is_missing(write, activity, scale, units):
    recording = take(write(session()), activity=activity)
    assert recording.manifest.units == units
    assert recording.dataset["activity"].dtype == np.float32
    assert recording.unit_names == ["unit-5", "unit-6"]
    expected = np.full((4, 4, 2), np.nan)
    expected[:, :, 0] = scale * COUNTS
    expected[0, :, 1] = [0, scale, 0, 0]
    np.testing.assert_array_equal(cube(recording), expected)
    assert recording.manifest.missing
    assert recording.dataset["trial"].values[::4].tolist() == [10, 11, 12, 14]
    assert recording.dataset["event_s"].values[::4].tolist() == [1, 3, 5, 7]
    notes = recording.manifest.provenance.notes
    assert "1 rows without a time" in notes  # no cue
    assert "1 trials in which no unit was recorded" in notes  # the sentinel
    assert "recorded in none of the trials: 'unit-7'" in notes  # silent


def test_a_trial_beyond_all_recording_never_yields_zeros(write):
    recording = take(write(session()), coverage="session")
    assert recording.dataset["trial"].values[::4].tolist() == [10, 11, 12, 14]
    np.testing.assert_array_equal(cube(recording)[:, :, 2], np.zeros((4, 4)))  # silent, but in the session
    np.testing.assert_array_equal(cube(recording)[1:, :, 1], np.zeros((3, 4)))
    assert not recording.manifest.missing


def test_observed_intervals_tell_bin_by_bin(write):
    observed = {"full": [[0.0, 9.0]], "early": [[0.0, 1.2], [4.9, 5.45]], "silent": [[2.0, 4.0]]}
    path = write(session(observed))
    for coverage in ("auto", "obs_intervals"):
        found = cube(take(path, coverage=coverage))
        expected = np.full((4, 4, 3), np.nan)
        expected[:, :, 0] = 10 * COUNTS
        expected[0, :2, 1] = [0, 10]
        expected[2, :, 1] = 0
        expected[1, :, 2] = 0
        np.testing.assert_array_equal(found, expected)
    assert take(path, coverage="spikes").unit_names == ["unit-5", "unit-6"]


def test_a_unit_without_observed_intervals_is_judged_by_its_spikes(write):
    path = write(session({"full": [[0.0, 9.0]], "early": [], "silent": []}))
    found = cube(take(path))
    np.testing.assert_array_equal(found[0, :, 1], [0, 10, 0, 0])
    assert np.isnan(found[1:, :, 1]).all()
    assert take(path, coverage="obs_intervals").unit_names == ["unit-5"]


def test_one_bin_may_be_the_whole_window(write):
    recording = take(write(session()), bin_s=None, activity="count")
    assert cube(recording)[:, 0, 0].tolist() == [3, 1, 0, 0]
    assert recording.manifest.sampling.step_s == pytest.approx(0.4)
    assert recording.manifest.sampling.aligned_to == "cue"


# ---------------------------------------------------------------------------------------------------- variables


def test_variables_come_from_columns_and_expressions(write):
    recording = take(
        write(session()),
        where="cue > 0",
        variables={
            "side": "side",
            "shown": {"expression": "code", "meanings": {"0": "none", "1": "foil", "2": "target"}},
            "clip": {"expression": "clip"},
            "early": "time < 0.2",
            "load": "code * 2 + id",
            "late_cue": {"expression": "cue", "bins": [0, 4, 10], "units": "s"},
        },
    )
    told = {name: recording.manifest.variable(name).meanings for name in recording.variable_names}
    assert told == {
        "side": ("left", "right"),
        "shown": ("none", "foil", "target"),
        "clip": ("NB_1.mp4", "SB_2.mp4"),
        "early": ("false", "true"),
        "load": None,
        "late_cue": ("[0, 4)", "[4, 10]"),
    }
    assert recording.dataset["side"].values[::4].tolist() == [0, 1, 0, 0]
    assert recording.dataset["shown"].values[::4].tolist() == [0, 1, 2, 1]
    assert recording.dataset["clip"].values[::4].tolist() == [0, 0, 0, 1]
    assert recording.dataset["early"].values[:8].tolist() == [1, 1, 0, 0] * 2
    assert recording.dataset["load"].values[::4].tolist() == [10, 13, 16, 16]
    assert recording.dataset["late_cue"].values[::4].tolist() == [0, 0, 1, 1]


def test_where_takes_rows_and_units_where_takes_units(write):
    path = write(session())
    recording = take(path, where="side == 'left' and cue > 0", units_where="snr < 1 or type == 'silent'")
    assert recording.dataset["trial"].values[::4].tolist() == [10, 12, 14]
    assert recording.unit_names == ["unit-5"]
    assert "3 rows not selected" in recording.manifest.provenance.notes
    assert "1 units not selected" in recording.manifest.provenance.notes


def test_units_bring_their_columns(write):
    path = write(session())
    dataset = take(path, variables={"type": "side"}).dataset
    assert dataset["unit_type"].values.tolist() == ["full", "early"]  # a variable is called type
    assert dataset["snr"].values.tolist() == [0, 1]
    assert dataset["electrode_group"].values.tolist() == ["shank", "shank"]
    assert dataset["location"].values.tolist() == ["CA1", "CA1"]
    assert dataset["first_spike"].values.tolist() == [0.5, 0.9]
    assert dataset["last_spike"].values.tolist() == [9, 2]
    assert dataset["last_spike"].attrs["units"] == "s"
    assert take(path, coverage="session").dataset["location"].values.tolist() == ["CA1", "CA1", "CA1; CA3"]
    kept = take(path, unit_columns=["snr"]).dataset
    assert {name for name in kept.coords if kept[name].dims == ("unit",)} == {
        "unit",
        "snr",
        "first_spike",
        "last_spike",
    }


def test_units_are_called_by_a_column_of_unique_names(write):
    def labelled(names: list[str]) -> Path:
        file = session()
        file.add_unit_column("unit_name", "-", data=names)
        return write(file)

    assert take(labelled(["a 1", "b", "c"])).unit_names == ["a 1", "b"]
    assert take(labelled(["a", "a", "c"])).unit_names == ["unit-5", "unit-6"]


def test_ids_that_occur_twice_give_way_to_row_numbers(write):
    file = session()
    file.trials.id.data[4] = 10
    recording = take(write(file))
    assert recording.dataset["trial"].values[::4].tolist() == [0, 1, 2, 4]
    assert "trials are numbered by rows" in recording.manifest.provenance.notes


def test_any_table_of_intervals_will_do(write):
    from pynwb.epoch import TimeIntervals

    file = session()
    licks = TimeIntervals(name="licks", description="-")
    module = file.create_processing_module(name="behavior", description="-")
    module.add(licks)
    file.add_time_intervals(TimeIntervals(name="sounds", description="-"))
    for table in (licks, file.intervals["sounds"]):
        table.add_column("pitch", "-")
        table.add_interval(start_time=1.0, stop_time=1.4, pitch="low")
        table.add_interval(start_time=3.0, stop_time=3.4, pitch="high")
    path = write(file)
    for name in ("sounds", "intervals/sounds", "processing/behavior/licks", "licks"):
        recording = take(path, {**WINDOW, "align": "start_time"}, {"pitch": "pitch"}, table=name)
        np.testing.assert_array_equal(cube(recording)[:, :, 0], 10 * COUNTS[:2])
        assert recording.manifest.variable("pitch").meanings == ("high", "low")


@pytest.mark.skipif(
    find_spec("pynwb") is None or find_spec("pynwb.event") is None, reason="needs a pynwb that has EventsTable"
)
def test_a_table_of_events_will_do(write):
    from pynwb.event import EventsTable

    file = session()
    table = EventsTable(name="tones", description="-")
    table.add_column("pitch", "-")
    file.add_events_table(table)
    table.add_event(timestamp=3.0, duration=0.4, pitch="high")
    table.add_event(timestamp=1.0, duration=float("nan"), pitch="low")
    path = write(file)
    told = dict(find_converter(path).contents(path))
    assert "tones" in " ".join(told)
    for name in ("events/tones", "tones"):
        recording = take(path, {**WINDOW, "align": "timestamp"}, {"pitch": "pitch"}, table=name)
        np.testing.assert_array_equal(cube(recording)[:, :, 0], 10 * COUNTS[[1, 0]])
        assert meant(recording, "pitch")[::4] == ["high", "low"]
        assert recording.dataset["event_s"].values[::4].tolist() == [3, 1]


def test_columns_with_several_values_are_named_by_an_index(write):
    from pynwb import TimeSeries

    file = session()
    series = TimeSeries(name="eye", data=np.arange(5.0), unit="mm", rate=1.0)
    file.add_acquisition(series)
    file.add_trial_column("licks", "-", data=[1.0] * 8, index=[2, 3, 4, 5, 6, 8])
    file.add_trial_column("place", "-", data=np.zeros((6, 2)))
    file.add_trial_column("context", "-", data=[0, 1, 1, 0, 0, 1], enum=["calm", "noisy"])
    path = write(file)
    told = dict(find_converter(path).contents(path))
    assert told["trials.licks"].startswith("(6, up to 2): an expression names one entry per row")
    assert told["trials.place"].startswith("(6, 2): ")
    context = take(path, variables={"context": "context"})
    assert meant(context, "context")[::4] == ["calm", "noisy", "noisy", "calm"]
    with pytest.raises(InvalidDocument, match="name one of its columns"):
        take(path, variables={"licks": "licks"})


# ---------------------------------------------------------------------------------------------------- time series


def with_series(series: Any, place: str = "acquisition") -> Any:
    file = session()
    if place == "acquisition":
        file.add_acquisition(series(file))
    else:
        file.create_processing_module(name=place, description="-").add(series(file))
    return file


def field(file: Any, **more: Any) -> Any:
    """100 samples per second from 0.5 s to 7.3 s, three channels: the sample's number times 1, 2 and 3."""
    from pynwb.ecephys import ElectricalSeries

    return ElectricalSeries(
        name="lfp",
        data=(np.arange(680)[:, None] * np.array([1, 2, 3])).astype(np.int16),
        electrodes=file.create_electrode_table_region(region=[0, 1, 2], description="all"),
        **({"rate": 100.0, "starting_time": 0.5} | more),
    )


MEANS = {1.0: 50 + 4.5 + 10 * np.arange(4), 3.0: 250 + 4.5 + 10 * np.arange(4), 5.0: 450 + 4.5 + 10 * np.arange(4)}
"""Of the first channel's stored numbers, by cue."""


def test_samples_of_a_series_are_averaged_in_each_bin(write):
    path = write(with_series(field))
    recording = take(path, source="acquisition/lfp")
    assert recording.manifest.units == "volts"
    assert recording.unit_names == ["electrode-0", "electrode-1", "electrode-2"]
    assert recording.dataset["location"].values.tolist() == ["CA1", "CA1", "CA3"]
    assert recording.dataset["trial"].values[::4].tolist() == [10, 11, 12, 14]  # none at the sentinel
    found = cube(recording)
    for trial, means in enumerate(MEANS.values()):
        np.testing.assert_allclose(found[trial], means[:, None] * [1, 2, 3], rtol=1e-6)
    # the series ends at 7.29 s: the last bin has no samples, the others have
    np.testing.assert_allclose(found[3, :3, 0], 650 + 4.5 + 10 * np.arange(3), rtol=1e-6)
    assert np.isnan(found[3, 3]).all()
    assert recording.manifest.missing


def test_conversion_offset_and_the_channels_own_factors_apply(write):
    path = write(
        with_series(lambda file: field(file, conversion=0.5, offset=2.0, channel_conversion=[1.0, 10.0, 100.0]))
    )
    found = cube(take(path, source="lfp"))
    np.testing.assert_allclose(found[0], MEANS[1.0][:, None] * [0.5, 2 * 5, 3 * 50] + 2, rtol=1e-6)
    only = take(path, source="lfp", units_where="location == 'CA3' or id == 0", unit_columns=["location"])
    assert only.unit_names == ["electrode-0", "electrode-2"]
    np.testing.assert_array_equal(cube(only), found[:, :, [0, 2]])


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("whole", [True, False], ids=["read in one go", "bisected"])
def test_timestamps_tell_where_samples_lie(write, monkeypatch, whole):
    from pynwb import TimeSeries

    monkeypatch.setattr("neuromas.recordings.convert.nwb.series.READ_AT_ONCE", 10**6 if whole else 0)
    # 1.1 and 1.3 lie on edges; between 3.0 and 3.4 there is nothing; at 5 only one sample, and one that is NaN
    times = [0.2, 1.0, 1.05, 1.1, 1.3, 1.39, 2.9, 3.4, 5.25, 5.35, 6.0]
    values = [9.0, 1.0, 3.0, 5.0, 7.0, 8.0, 9.0, 9.0, 4.0, np.nan, 9.0]
    series = TimeSeries(name="pupil", data=values, timestamps=times, unit="mm")
    recording = take(write(with_series(lambda file: series)), source="pupil")
    assert recording.unit_names == ["channel-0"]
    assert recording.manifest.units == "mm"
    assert recording.dataset["trial"].values[::4].tolist() == [10, 12]
    np.testing.assert_array_equal(cube(recording)[:, :, 0], [[2, 5, np.nan, 7.5], [np.nan, np.nan, 4, np.nan]])


def test_two_series_may_share_timestamps(write):
    from pynwb import TimeSeries

    file = session()
    first = TimeSeries(name="first", data=np.arange(70.0), timestamps=np.arange(70) / 7, unit="mm")
    file.add_acquisition(first)
    file.add_acquisition(TimeSeries(name="second", data=2 * np.arange(70.0), timestamps=first, unit="mm"))
    one, other = (take(write(file), source=name) for name in ("first", "second"))
    np.testing.assert_array_equal(2 * one.dataset["activity"].values, other.dataset["activity"].values)


def test_fluorescence_is_called_by_its_cells(write):
    from pynwb.ophys import DfOverF, ImageSegmentation, OpticalChannel, RoiResponseSeries

    file = session()
    plane = file.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="optical", description="-", emission_lambda=500.0),
        description="-",
        device=file.create_device(name="microscope"),
        excitation_lambda=600.0,
        indicator="GCaMP",
        location="V1",
    )
    masks = ImageSegmentation()
    cells = masks.create_plane_segmentation(name="cells", description="-", imaging_plane=plane)
    cells.add_column("kind", "-")
    for number in range(3):
        cells.add_roi(id=20 + number, pixel_mask=[(number, number, 1.0)], kind="soma" if number else "dendrite")
    module = file.create_processing_module(name="ophys", description="-")
    module.add(masks)
    series = RoiResponseSeries(
        name="RoiResponseSeries",
        data=np.arange(160.0).reshape(80, 2),
        rois=cells.create_roi_table_region(region=[2, 0], description="-"),
        rate=10.0,
        unit="lumens",
    )
    module.add(DfOverF(roi_response_series=series))
    recording = take(write(file), source="processing/ophys/DfOverF/RoiResponseSeries")
    assert recording.unit_names == ["roi-22", "roi-20"]
    assert recording.dataset["kind"].values.tolist() == ["soma", "dendrite"]
    np.testing.assert_array_equal(cube(recording)[0], [[20, 21], [22, 23], [24, 25], [26, 27]])


@pytest.mark.usefixtures("in_process")
def test_of_a_large_series_only_the_trials_are_read(write, monkeypatch):
    import h5py
    from pynwb import TimeSeries

    from neuromas.recordings.convert.nwb.file import NwbFile

    path = write(with_series(lambda file: TimeSeries(name="lfp", data=np.zeros((9, 64)), unit="V", rate=20_000.0)))
    with h5py.File(path, "r+") as file:
        group = file["acquisition/lfp"]
        attributes = dict(group["data"].attrs)
        del group["data"]
        # 2.4 GiB that nobody wrote
        data = group.create_dataset("data", shape=(20_000_000, 64), dtype="i2", chunks=(4096, 64), fillvalue=3)
        data.attrs.update(attributes)

    class Counted:
        n_read = 0

        def __init__(self, data: Any) -> None:
            self.data, self.shape, self.dtype = data, data.shape, data.dtype

        def __getitem__(self, key: Any) -> Any:
            read = self.data[key]
            Counted.n_read += read.size
            return read

    monkeypatch.setattr(NwbFile, "array", lambda self, data: Counted(data))
    tracemalloc.start()
    try:
        recording = take(path, source="lfp")
        peak = tracemalloc.get_traced_memory()[1]
        assert Counted.n_read == 4 * 8000 * 64  # four trials of 0.4 s
        Counted.n_read = 0
        take(path, source="lfp", units_where="20 <= id < 22")
        assert Counted.n_read == 4 * 8000 * 2
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(cube(recording), np.full((4, 4, 64), 3))
    assert peak < 100 * 2**20


# ---------------------------------------------------------------------------------------------------- zarr


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """The same session as HDF5 and as hdmf-zarr wrote it."""
    with zipfile.ZipFile(BOTH_KINDS) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "small.nwb", tmp_path / "small.nwb.zarr"


SMALL = {"start_s": 0.0, "stop_s": 1.5, "bin_s": 0.1}
SMALL_VARIABLES = {
    "stimulus": "stimulus",
    "choice": {"expression": "choice", "meanings": {"0": "none", "1": "left", "2": "right"}},
}
SOURCES = ("units", "processing/ecephys/LFP/ElectricalSeries", "processing/ophys/DfOverF/RoiResponseSeries")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("largest", [2**22, 0], ids=["copied", "read in place"])
def test_zarr_and_hdf5_give_the_same_recording(both, monkeypatch, largest):
    monkeypatch.setattr("neuromas.recordings.convert.zarr_as_hdf5._LARGEST", largest)
    for source in SOURCES:
        one, other = (take(path, SMALL, SMALL_VARIABLES, source=source) for path in both)
        assert one.dataset.drop_attrs().identical(other.dataset.drop_attrs())
        assert np.nanstd(one.dataset["activity"]) > 0
        same = [one.manifest.model_dump(exclude={"provenance"}), other.manifest.model_dump(exclude={"provenance"})]
        assert same[0] == same[1]
        assert one.manifest.variable("stimulus").meanings == ("gräting", "noise")
    assert other.manifest.provenance.source == "small.nwb.zarr"
    assert len(other.manifest.provenance.source_sha256) == 64
    told = [find_converter(path).contents(path) for path in both]
    assert told[0] == told[1]


@pytest.mark.usefixtures("in_process")
def test_timestamps_that_are_shared_are_found_by_their_link_in_zarr(both, monkeypatch):
    folder = both[1] / "processing" / "ophys" / "DfOverF"
    (folder / "RoiResponseSeries").rename(folder / "First")
    shutil.copytree(folder / "First", folder / "RoiResponseSeries")
    shutil.rmtree(folder / "RoiResponseSeries" / "timestamps")
    link = {"name": "timestamps", "source": ".", "path": "/processing/ophys/DfOverF/First/timestamps"}
    attributes = json.loads((folder / "First" / ".zattrs").read_text())
    links = [*attributes.get("zarr_link", []), link]
    (folder / "RoiResponseSeries" / ".zattrs").write_text(json.dumps(attributes | {"zarr_link": links}))
    (folder / "First" / ".zattrs").write_text(json.dumps(attributes | {"object_id": "0" * 36}))
    expected = take(both[0], SMALL, SMALL_VARIABLES, source=SOURCES[2]).dataset.drop_attrs()
    for largest in (2**22, 0):
        monkeypatch.setattr("neuromas.recordings.convert.zarr_as_hdf5._LARGEST", largest)
        assert take(both[1], SMALL, SMALL_VARIABLES, source=SOURCES[2]).dataset.drop_attrs().identical(expected)


def test_the_hash_of_a_zarr_folder_tells_its_content(both):
    def sha256() -> str:
        return take(both[1], SMALL, SMALL_VARIABLES).manifest.provenance.source_sha256

    before = sha256()
    assert sha256() == before
    (both[1] / "more.txt").write_text("more")
    assert sha256() != before


def add_references(folder: Path, reference: Any) -> None:
    """A column of (start, count, reference) to the trials, as hdmf-zarr stored them before numcodecs refused to unpickle."""
    trials = folder / "intervals" / "trials"
    parts = [["idx_start", "<i4"], ["count", "<i4"], ["timeseries", "|O"]]
    rows = np.array([(0, 1200, reference)] * 6, dtype=[tuple(part) for part in parts])
    path = {"zarr_dtype": "object", "value": {"source": ".", "path": "/intervals/trials/timeseries"}}
    plain = {"order": "C", "zarr_format": 2, "fill_value": 0, "compressor": None, "shape": [6], "chunks": [6]}
    told = [{"name": name, "dtype": "object" if dtype == "|O" else "int32"} for name, dtype in parts]
    arrays = {
        "timeseries": (
            plain | {"dtype": parts, "filters": [{"id": "pickle", "protocol": 5}]},
            {"zarr_dtype": told, "namespace": "core", "neurodata_type": "TimeSeriesReferenceVectorData"},
            pickle.dumps(rows, protocol=5),
        ),
        "timeseries_index": (
            plain | {"dtype": "|u1", "filters": None},
            {"zarr_dtype": "uint8", "namespace": "hdmf-common", "neurodata_type": "VectorIndex", "target": path},
            bytes(range(1, 7)),
        ),
    }
    for name, (layout, attributes, chunk) in arrays.items():
        (trials / name).mkdir()
        (trials / name / ".zarray").write_text(json.dumps(layout))
        (trials / name / ".zattrs").write_text(
            json.dumps(attributes | {"description": "-", "object_id": f"{name:0<36}"})
        )
        (trials / name / "0").write_bytes(chunk)
    attributes = json.loads((trials / ".zattrs").read_text())
    (trials / ".zattrs").write_text(json.dumps(attributes | {"colnames": [*attributes["colnames"], "timeseries"]}))


def test_references_of_trials_to_series_are_followed_in_zarr(both):
    from neuromas.recordings.convert.nwb.file import open_nwb

    add_references(both[1], {"source": ".", "path": "/processing/ecephys/LFP/ElectricalSeries"})
    with open_nwb(both[1]) as opened:
        (row,) = opened.content.trials["timeseries"][2]
        assert (row.idx_start, row.count, row.timeseries.name) == (0, 1200, "ElectricalSeries")
    expected = take(both[0], SMALL, SMALL_VARIABLES).dataset.drop_attrs()
    assert take(both[1], SMALL, SMALL_VARIABLES).dataset.drop_attrs().identical(expected)


class Runs:
    """Whoever unpickles this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_a_zarr_folder_runs_no_code(both, tmp_path):
    add_references(both[1], Runs(tmp_path / "made"))
    with pytest.raises(InvalidInput, match=r"posix\.mkdir|nt\.mkdir") as refused:
        take(both[1], SMALL, SMALL_VARIABLES)
    assert refused.value.kind == "unreadable_source"
    assert "could run code" in refused.value.message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("entry", [((1, (2,)), "a"), ([1], "a"), ({"a": [1]}, "b")])
def test_pickled_entries_are_rows_of_plain_things(entry):
    array = np.empty(len(entry), dtype=object)
    array[:] = entry
    with pytest.raises(ValueError, match=r"holds a pickled (tuple|list|dict) in an array"):
        read_pickled_array(pickle.dumps(array))


def test_zarr_that_leads_to_another_file_is_refused(both):
    place = both[1] / "general" / "extracellular_ephys" / "shank" / ".zattrs"
    attributes = json.loads(place.read_text())
    attributes["zarr_link"][0]["source"] = "../other.nwb.zarr"
    place.write_text(json.dumps(attributes))
    with pytest.raises(InvalidInput, match=r"in another file, '\.\./other\.nwb\.zarr'"):
        take(both[1], SMALL, SMALL_VARIABLES)


# ---------------------------------------------------------------------------------------------------- manifest, contents


def test_the_manifest_says_what_the_file_says_unless_told_otherwise(write):
    path = write(session()).rename(Path(write(session()).parent) / "_sub 1+ecephys.nwb")
    recipe = {**WINDOW, "variables": SIDE}
    manifest = convert(path, recipe).manifest
    assert manifest.name == "sub-1-ecephys"
    assert (manifest.system, manifest.layer) == ("Mus musculus, CA1", "CA1")
    assert manifest.task == "a planted task"
    assert manifest.description == "a planted task\nof two lines"
    assert manifest.citation == "Nobody (2020)"
    assert manifest.access == "read"
    assert manifest.provenance.source == "_sub 1+ecephys.nwb"
    assert set(manifest.provenance.versions) == {"neuromas", "pynwb", "hdmf", "h5py", "numpy"}
    assert '"align":"cue"' in manifest.provenance.notes
    told = convert(path, recipe, name="mine", system="mouse", units="spikes/s", licence="CC0-1.0").manifest
    assert (told.name, told.system, told.units, told.licence) == ("mine", "mouse", "spikes/s", "CC0-1.0")
    with pytest.raises(InvalidInput, match="expected in the recipe"):
        convert(path, recipe, variables=[])


def test_contents_tell_tables_units_and_series(write):
    path = write(with_series(field))
    told = dict(find_converter(path).contents(path))
    assert told["trials"] == "interval table, 6 rows"
    assert told["trials.side"] == "left, right"
    assert told["trials.clip"] == "NB_1.mp4, SB_2.mp4"
    assert told["trials.code"] == "0, 1, 2"
    assert told["trials.cue"] == "-1.5e+09, 1, 3, 5, 7 (1 missing)"
    assert told["units"] == "spikes of 3 units"
    assert told["units.type"] == "early, full, silent"
    assert told["acquisition/lfp"] == "ElectricalSeries, shape (680, 3), 100 Hz from 0.5 s, volts"


# ---------------------------------------------------------------------------------------------------- bad input


def refused(kind: type[NeuromasError], *told: str, **how: Any) -> NeuromasError:
    with pytest.raises(kind) as error:
        take(**how)
    missing = [part for part in told if part not in error.value.message]
    assert not missing, error.value.message
    assert type(error.value) is kind
    return error.value


def test_no_such_table_lists_those_there_are(write):
    error = refused(NotFound, "no interval table 'epochs'", "trials (6 rows)", path=write(session()), table="epochs")
    assert error.kind == "unknown_table"


def test_a_file_without_units_lists_what_else_there_is(write):
    file = with_series(field)
    file.fields.pop("units")
    path = write(file)
    error = refused(NotFound, "no units with spike times", "acquisition/lfp", path=path)
    assert error.kind == "unknown_source"


def test_no_such_series_lists_units_and_series(write):
    path = write(with_series(field, "ecephys"))
    error = refused(NotFound, "'acquisition/eye'", "units, processing/ecephys/lfp", path=path, source="acquisition/eye")
    assert error.kind == "unknown_source"


@pytest.mark.parametrize(
    ("more", "kind", "told"),
    [
        ({"align": "go"}, NotFound, ["align", "no column 'go'", "cue"]),
        ({"where": "cue > 100"}, InvalidInput, ["none of 6 rows is a trial", "1 have no time"]),
        ({"units_where": "snr > 100"}, InvalidInput, ["units_where='snr > 100' is true for none of 3 units"]),
        ({"units_where": "snr"}, InvalidInput, ["expected something true or false"]),
        ({"unit_columns": ["depth"]}, NotFound, ["no column 'depth'", "snr"]),
        ({"coverage": "obs_intervals"}, InvalidInput, ["needs a column 'obs_intervals'", "spike_times"]),
        ({"variables": {}}, InvalidInput, ["names no variable", "'side', 'code', 'clip'"]),
        ({"variables": {"late": "cue"}, "where": "side == 'right'"}, InvalidDocument, ["are missing"]),
        ({"where": "cue < 0"}, InvalidInput, ["no unit was recorded in any of 1 trials", "from 0.5 to 9 s"]),
        ({"align": "side"}, InvalidInput, ["expected a time in seconds for each row"]),
        ({"align": "[1, 2]"}, InvalidInput, ["a list is allowed only on the right of 'in'"]),
        ({"variables": {"v": "[1, 2, 3]"}}, InvalidDocument, ["a list is allowed only"]),
        ({"variables": {"v": "cue > 2"}, "align": "start_time"}, InvalidDocument, ["are missing"]),
        ({"stop_s": 1e9, "bin_s": 1e-3}, InvalidInput, ["would take"]),
        ({"stop_s": 1e999}, InvalidDocument, ["stop_s"]),
        ({"bin_s": 0.5}, InvalidDocument, ["bin_s of 0.5 s is wider than the window of 0.4 s"]),
        ({"bin_s": 0.3}, InvalidDocument, ["does not hold a whole number of bins"]),
        ({"source": "lfp", "activity": "count"}, InvalidInput, ["activity='count' is for spikes"]),
        ({"source": "lfp", "coverage": "spikes"}, InvalidInput, ["coverage='spikes' is for spikes"]),
    ],
)
def test_recipes_that_do_not_fit(write, more, kind, told):
    path = write(with_series(field))
    if more.get("variables") == {"late": "cue"}:
        more = more | {"align": "start_time"}
    refused(kind, *told, path=path, **more)


@pytest.mark.parametrize(
    "field", [{"trial": 1}, {"present": [1]}, {"token": ["a"]}, {"eligible": [True]}, {"name": "a/b"}]
)
def test_fields_that_no_manifest_has(write, field):
    with pytest.raises(InvalidDocument, match=next(iter(field))):
        convert(write(session()), {**WINDOW, "variables": SIDE}, **field)


def test_codes_of_few_bits_are_subtracted_and_intervals_that_touch_are_one(write):
    whole = {kind: [[-2e9, 1.15], [1.15, 20.0]] for kind in SPIKES}
    recording = take(write(session(whole)), variables={"less": "code - 2"})
    assert sorted(set(recording.values(["less"]).ravel().tolist())) == [-2, -1, 0]
    assert not recording.manifest.missing


@pytest.mark.parametrize(
    ("series", "told"),
    [
        (
            {"data": np.zeros(4), "timestamps": [0.0, 2.0, 1.0, 3.0]},
            "timestamps do not rise: sample 2 is at 1 s, after 2 s",
        ),
        (
            {"data": np.zeros(3), "timestamps": [0.0, 0.5, np.nan]},
            "timestamps do not rise: sample 2 is at nan s, after 0.5",
        ),
        ({"data": np.zeros((5, 3, 2)), "rate": 1.0}, "shape (5, 3, 2)"),
        ({"data": ["a", "b"], "rate": 1.0}, "expected numbers of shape (time, channel) or (time,)"),
    ],
)
def test_series_that_cannot_be_averaged(write, series, told):
    from pynwb import TimeSeries

    file = session()
    file.add_acquisition(TimeSeries(name="eye", unit="mm", **series))
    refused(InvalidInput, "eye", told, path=write(file), source="acquisition/eye")


def test_a_series_with_fewer_timestamps_than_samples(write):
    import h5py
    from pynwb import TimeSeries

    eye = TimeSeries(name="eye", unit="mm", data=np.zeros((5, 3)), timestamps=np.arange(5.0))
    path = write(with_series(lambda file: eye))
    with h5py.File(path, "r+") as file:
        group = file["acquisition/eye"]
        attributes = dict(group["timestamps"].attrs)
        del group["timestamps"]
        group.create_dataset("timestamps", data=np.arange(3.0)).attrs.update(attributes)
    refused(InvalidInput, "5 samples, but 3 timestamps", path=path, source="eye")


def test_a_series_whose_channels_are_not_those_it_names(write):
    import h5py

    path = write(with_series(field))
    with h5py.File(path, "r+") as file:
        group = file["acquisition/lfp"]
        attributes, values = dict(group["data"].attrs), group["data"][...].T
        del group["data"]
        group.create_dataset("data", data=values).attrs.update(attributes)
    refused(InvalidInput, "680 channels, but electrodes names 3", path=path, source="lfp")


def test_foreign_and_corrupt_files_give_one_error(write, tmp_path):
    import h5py

    good = write(session()).read_bytes()
    bad = {name: tmp_path / f"{name}.nwb" for name in ("text", "empty", "truncated", "plain", "folder", "damaged")}
    bad["text"].write_text("spike times: 1, 2, 3")
    bad["empty"].write_bytes(b"")
    bad["truncated"].write_bytes(good[: len(good) // 2])
    with h5py.File(bad["plain"], "w") as file:
        file["x"] = np.arange(3)
    bad["folder"].mkdir()
    bad["damaged"].write_bytes(good[:2000] + bytes(40_000) + good[42_000:])
    (tmp_path / "v3.nwb.zarr").mkdir()
    (tmp_path / "v3.nwb.zarr" / "zarr.json").write_text("{}")
    for path in (*bad.values(), tmp_path / "v3.nwb.zarr"):
        for attempt in (take, find_converter(path).contents):
            with pytest.raises(InvalidInput) as error:
                attempt(path)
            assert error.value.kind == "unreadable_source"
            assert error.value.message.startswith(f"{path}: cannot be read as an NWB file: ")
            assert len(error.value.message) < 400
            assert "\n" not in error.value.message


def test_what_turns_out_corrupt_only_when_it_is_read(write):
    import h5py

    path = write(session())
    with h5py.File(path, "r+") as file:
        values = file["units/spike_times"][...]
        attributes = dict(file["units/spike_times"].attrs)
        index = dict(file["units/spike_times_index"].attrs)
        del file["units/spike_times"]
        data = file["units"].create_dataset("spike_times", data=values, chunks=(9,), compression="gzip")
        data.attrs.update(attributes)
        file["units/spike_times_index"].attrs.update(index | {"target": data.ref})
        chunk = data.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    error = refused(InvalidInput, "cannot be read as an NWB file", path=path)
    assert error.kind == "unreadable_source"


# ---------------------------------------------------------------------------------------------------- real files

GUO_RECIPE = {
    "align": "cue_start_time",
    "start_s": -2.6,
    "stop_s": 1.3,
    "bin_s": 0.1,
    "variables": {
        "type": "type",
        "response": "response",
        "photostim": "where(stim_present == 1, 'on', 'off')",
        "epoch": "where(time < -1.3, 'sample', where(time < 0, 'delay', 'response'))",
    },
}


def meant(recording: Recording, name: str) -> list[str]:
    """What a categorical variable means in each sample."""
    spec = recording.manifest.variable(name)
    known = dict(zip(spec.values, spec.meanings, strict=True))
    return [known[code] for code in recording.dataset[name].values.tolist()]


@needs_data
@pytest.mark.slow
def test_the_mouse_is_the_one_that_ships():
    from neuromas.recordings.store.locate import shipped_store

    recording = convert(GUO, GUO_RECIPE)
    shipped = shipped_store().get("guo2017/mouse-thalamus")
    assert recording.unit_names == shipped.unit_names
    for name in ("trial", "step", "first_spike", "last_spike", "unit_x", "unit_y", "unit_z", "cell_type"):
        np.testing.assert_array_equal(recording.dataset[name].values, shipped.dataset[name].values)
    np.testing.assert_array_equal(
        recording.dataset["activity"].values.astype(np.float16), shipped.dataset["activity"].values
    )
    for name in shipped.variable_names:
        assert meant(recording, name) == meant(shipped, name)
    missing = np.isnan(cube(recording)).all(axis=1)
    assert missing.sum(axis=0).tolist() == [287, 289, 114, 0]
    assert len(missing) == 342
    assert "70 rows without a time" in recording.manifest.provenance.notes


@needs_data
@pytest.mark.slow
def test_the_script_makes_the_mouse_that_ships_bit_for_bit(tmp_path):
    from neuromas.recordings.store.locate import shipped_store
    from neuromas.recordings.store.store import RecordingStore

    place = spec_from_file_location("build", Path(__file__).parents[2] / "recordings" / "build.py")
    build = module_from_spec(place)
    place.loader.exec_module(build)
    store = RecordingStore(tmp_path / "store")
    (name,) = store.register(build.build(GUO), set="guo2017")
    made, shipped = (one.get(name).manifest for one in (store, shipped_store()))
    assert made.content_sha256 == shipped.content_sha256
    assert made.provenance.source_sha256 == shipped.provenance.source_sha256


def zheng(table: str, start_s: float, stop_s: float, variables: Any, **more: Any) -> Recording:
    window = {"start_s": start_s, "stop_s": stop_s, "bin_s": None}
    return convert(ZHENG, {**window, "table": table, "variables": variables, **more})


@needs_data
@pytest.mark.slow
def test_the_humans_tables_are_read_as_they_are_meant():
    variables = {
        "shown": {"expression": "stimuli_type", "meanings": {"0": "foil", "1": "target"}},
        "answer": {"expression": "old_new", "meanings": {"0": "none", "1": "new", "2": "old"}},
        "accuracy": {"expression": "accuracy", "meanings": {"1": "wrong", "2": "correct"}},
        "frame": "frameName",
    }
    recording = zheng("recognition_table", -0.5, 1.5, variables)
    assert recording.n_units == 35
    assert (recording.n_samples, recording.manifest.missing) == (180, False)
    assert recording.manifest.system == "Homo sapiens, hippocampus_right, amygdala_right"
    areas, counts = np.unique(recording.dataset["location"].values, return_counts=True)
    assert dict(zip(areas.tolist(), counts.tolist(), strict=True)) == {"amygdala_right": 10, "hippocampus_right": 25}
    frames, shown = meant(recording, "frame"), meant(recording, "shown")
    assert frames[0] == "SB_5_frameB_foil.png"
    assert [("foil" if name.endswith("_foil.png") else "target") for name in frames] == shown
    right = [
        (a == "old") == (s == "target") and a != "none" for a, s in zip(meant(recording, "answer"), shown, strict=True)
    ]
    assert [told == "correct" for told in meant(recording, "accuracy")] == right


def smallest_p(before: Recording, after: Recording) -> tuple[float, str]:
    """Of a signed-rank test in each unit, before against after, and whose it is."""
    from scipy import stats

    one, other = (recording.dataset["activity"].values.astype(np.float64) for recording in (before, after))
    assert before.unit_names == after.unit_names
    assert before.dataset["trial"].values.tolist() == after.dataset["trial"].values.tolist()
    found = [
        (float(stats.wilcoxon(other[:, unit], one[:, unit]).pvalue), name)
        for unit, name in enumerate(before.unit_names)
    ]
    return min(found)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "align", "window_s", "expected"),
    [
        ("encoding_table", "boundary1_time", 0.5, ("8.5e-07", "unit-3")),
        ("recognition_table", "start_time", 1.0, ("2.3e-26", "unit-28")),
    ],
)
def test_the_humans_units_respond_as_is_known(table, align, window_s, expected):
    more = {"align": align, "coverage": "session"}
    before = zheng(table, -window_s, 0.0, {"row": "id"}, **more)
    after = zheng(table, 0.0, window_s, {"row": "id"}, **more)
    p, unit = smallest_p(before, after)
    assert (f"{p:.1e}", unit) == expected


@needs_data
@pytest.mark.slow
def test_a_sentinel_timestamp_is_no_time():
    told = dict(find_converter(ZHENG).contents(ZHENG))
    assert told["encoding_table"] == "interval table, 90 rows"
    assert told["encoding_table.Clip_name"].startswith("HB_1.mp4, ")
    assert told["units"] == "spikes of 35 units"
    for coverage in ("spikes", "session"):
        align = "where(id == 0, -1542900540.7, start_time)"
        taken = zheng("encoding_table", 0, 1, {"clip": "stimCategory"}, align=align, coverage=coverage)
        assert (taken.n_samples, taken.n_units) == (89, 35)
        assert 0 not in taken.dataset["trial"].values
    # TTLs, the first of them at the sentinel, and others out of order
    with pytest.raises(
        InvalidInput, match=r"acquisition/events: its timestamps do not rise: sample 294 is at 1260.99 s"
    ):
        zheng("encoding_table", -1, 1, {"clip": "stimCategory"}, source="acquisition/events")
    with pytest.raises(InvalidInput, match="no unit was recorded in any of 90 trials"):
        zheng(
            "encoding_table", -1, 1, {"clip": "stimCategory"}, align="start_time * 0 - 1542900540.7", coverage="session"
        )
