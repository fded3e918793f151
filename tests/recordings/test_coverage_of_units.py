"""From when to when each unit was recorded, from columns that describe the units; coverage of series and of pynapple."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.convert.converter import convert
from neuromas.schema.recipe import EventRecipe

EVENTS = [1.0, 5.0, 9.0, 13.0]
WINDOW = {"start_s": 0, "stop_s": 2, "bin_s": 1}
RECIPE = {
    **WINDOW, "times": "t", "unit": "u", "events": "cues.csv", "units": "units.csv", "activity": "count",
    "variables": {"cue": "cue"}, "coverage": {"start": "on_s", "stop": "off_ms / 1000"},
}  # fmt: skip
TABLE = "unit,on_s,off_ms\nb,4,12000\na,0,20000\nquiet,8,20000\nlost,,\n"
NAN = np.nan
EXPECTED = {
    "a": [[1, 0], [0, 0], [1, 0], [0, 0]],
    "b": [[NAN, NAN], [0, 1], [0, 0], [NAN, NAN]],
    "quiet": [[NAN, NAN], [NAN, NAN], [0, 0], [0, 0]],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "spikes.csv").write_text("t,u\n1.5,a\n9.5,a\n6.5,b\n13.5,b\n")
    (tmp_path / "cues.csv").write_text("time,cue\n" + "".join(f"{time},{n}\n" for n, time in enumerate(EVENTS)))
    (tmp_path / "units.csv").write_text(TABLE)
    return tmp_path / "spikes.csv"


def cube(recording) -> dict[str, np.ndarray]:
    """Activity of each unit, shape (4 events, 2 bins)."""
    made = np.full((4, 2, recording.n_units), np.nan)
    made[recording.trial, recording.step] = recording.latents()
    return dict(zip(recording.unit_names, np.moveaxis(made, 2, 0), strict=True))


def test_spikes_by_columns_of_a_table_of_units(source):
    recording = convert(source, RECIPE, format="spikes")
    made = cube(recording)
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(made[name], expected)
    assert "lost" not in made or np.isnan(made["lost"]).all()
    notes = recording.manifest.provenance.notes
    assert "1 of 4 spikes outside coverage" in notes
    assert "1 units whose coverage is missing count as not recorded" in notes
    assert '"coverage":{"start":"on_s","stop":"off_ms / 1000"}' in notes


def test_units_that_are_selected_keep_their_own_interval(source):
    made = cube(convert(source, RECIPE | {"units_where": "unit in ['b', 'quiet']"}, format="spikes"))
    np.testing.assert_array_equal(made["b"], EXPECTED["b"])
    np.testing.assert_array_equal(made["quiet"], EXPECTED["quiet"])


@pytest.mark.parametrize(
    ("coverage", "error", "words"),
    [
        ({"start": "onset", "stop": "off_ms"}, NotFound, "no column 'onset'"),
        ({"start": "unit", "stop": "off_ms"}, InvalidInput, "expected seconds in 'unit', got"),
        ({"start": "off_ms", "stop": "on_s"}, InvalidInput, "row 0 of the units stops at 0 s, before it starts at 2"),
        ({"start": "on_s"}, InvalidDocument, "stop"),
        ({"start": "on_s", "end": "off_ms"}, InvalidDocument, "end"),
        ({"start": 0, "stop": 5}, InvalidDocument, "coverage"),
    ],
)
def test_what_is_no_coverage_of_units(source, coverage, error, words):
    with pytest.raises(error, match=words):
        convert(source, RECIPE | {"coverage": coverage}, format="spikes")


def test_phy_by_columns_of_its_clusters(tmp_path):
    np.save(tmp_path / "spike_times.npy", np.array([15, 65, 95, 135]))
    np.save(tmp_path / "spike_clusters.npy", np.array([0, 1, 0, 1]))
    (tmp_path / "params.py").write_text("sample_rate = 10.0\n")
    (tmp_path / "cluster_on.tsv").write_text("cluster_id\ton_s\n1\t4\n0\t0\n")
    (tmp_path / "cues.csv").write_text("time,cue\n" + "".join(f"{time},{n}\n" for n, time in enumerate(EVENTS)))
    recipe = {"events": "cues.csv", "activity": "count", "variables": {"cue": "cue"}, **WINDOW}
    made = cube(convert(tmp_path, recipe | {"coverage": {"start": "on_s", "stop": "on_s + 8"}}, format="phy"))
    np.testing.assert_array_equal(made["1"], EXPECTED["b"])
    np.testing.assert_array_equal(made["0"], [[1, 0], [0, 0], [NAN, NAN], [NAN, NAN]])


# ------------------------------------------------------------------------------------------------------------------- NWB


@pytest.fixture
def nwb(tmp_path: Path) -> Path:
    pynwb = pytest.importorskip("pynwb")
    file = pynwb.NWBFile(session_description="-", identifier="-", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    file.add_trial_column("cue", "-")
    for number, time in enumerate(EVENTS):
        file.add_trial(start_time=time, stop_time=time + 2, cue=number)
    for name in ("on_s", "off_ms"):
        file.add_unit_column(name, "-")
    file.add_unit(spike_times=[1.5, 9.5], on_s=0.0, off_ms=20000.0)
    file.add_unit(spike_times=[6.5, 13.5], on_s=4.0, off_ms=12000.0)
    file.add_electrode_column("live_s", "-")
    group = file.create_electrode_group("g", "-", "-", file.create_device("probe"))
    for live in (0.0, 8.0):
        file.add_electrode(location="CA1", group=group, live_s=live)
    electrodes = file.create_electrode_table_region([0, 1], "-")
    file.add_acquisition(
        pynwb.ecephys.ElectricalSeries(name="lfp", data=np.ones((200, 2)), rate=10.0, electrodes=electrodes)
    )
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "w") as io:
        io.write(file)
    return tmp_path / "s.nwb"


@pytest.mark.usefixtures("in_process")
def test_nwb_units_and_series(nwb):
    recipe = {**WINDOW, "activity": "count", "variables": {"cue": "cue"}}
    made = cube(convert(nwb, recipe | {"coverage": {"start": "on_s", "stop": "off_ms / 1000"}}))
    np.testing.assert_array_equal(made["unit-0"], EXPECTED["a"])
    np.testing.assert_array_equal(made["unit-1"], EXPECTED["b"])
    series = {**WINDOW, "source": "lfp", "variables": {"cue": "cue"}}
    whole = cube(convert(nwb, series | {"coverage": "throughout"}))
    assert all((values == 1).all() for values in whole.values())
    made = cube(convert(nwb, series | {"coverage": [4, 12]}))
    for values in made.values():
        np.testing.assert_array_equal(values, [[NAN, NAN], [1, 1], [1, 1], [NAN, NAN]])
    first, second = cube(convert(nwb, series | {"coverage": {"start": "live_s", "stop": "14"}})).values()
    np.testing.assert_array_equal(first, [[1, 1], [1, 1], [1, 1], [1, NAN]])
    np.testing.assert_array_equal(second, [[NAN, NAN], [NAN, NAN], [1, 1], [1, NAN]])
    with pytest.raises(InvalidInput, match="is for spikes"):
        convert(nwb, series | {"coverage": "obs_intervals"})


# -------------------------------------------------------------------------------------------------------------- pynapple


@pytest.mark.filterwarnings("ignore")
def test_pynapple():
    nap = pytest.importorskip("pynapple")
    from neuromas.recordings.convert.pynapple import from_pynapple

    cues = nap.IntervalSet(EVENTS, np.array(EVENTS) + 2, metadata={"cue": list(range(4))})
    trains = {0: nap.Ts(np.array([1.5, 9.5])), 1: nap.Ts(np.array([6.5, 13.5]))}
    spikes = nap.TsGroup(trains, metadata={"on_s": [0.0, 4.0], "off_ms": [20000.0, 12000.0]})
    recipe = {**WINDOW, "activity": "count", "variables": {"cue": "cue"}}

    def made(coverage: object) -> dict[str, np.ndarray]:
        return cube(from_pynapple(spikes, cues, recipe | {"coverage": coverage}, name="toy"))

    np.testing.assert_array_equal(made({"start": "on_s", "stop": "off_ms / 1000"})["1"], EXPECTED["b"])
    np.testing.assert_array_equal(made("throughout")["0"], EXPECTED["a"])
    np.testing.assert_array_equal(made([4, 12])["1"], EXPECTED["b"])
    # the quiet ends lie outside the time support that pynapple makes of the spikes
    assert np.isnan(cube(from_pynapple(spikes, cues, EventRecipe.parse(recipe, "recipe"), name="toy"))["0"]).any()
    with pytest.raises(InvalidDocument, match="time_support"):
        made("always")
