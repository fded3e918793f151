"""xarray's, AnnData's and pynapple's objects, there and back."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pynapple as nap
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.anndata import from_anndata, to_anndata
from neuromas.recordings.convert.arrays import from_xarray, to_xarray
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.convert.pynapple import from_pynapple, to_pynapple
from neuromas.recordings.convert.tables import to_tables
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import Sampling

EVERY_TIME = [HealthCheck.function_scoped_fixture]


def assert_same(one: Recording, other: Recording) -> None:
    """Activity, coordinates and manifest."""
    assert np.array_equal(one.latents(), other.latents(), equal_nan=True)
    assert one.activity.dtype == other.activity.dtype
    assert one.manifest == other.manifest
    assert set(one.dataset.coords) == set(other.dataset.coords)
    for name, coordinate in one.dataset.coords.items():
        assert coordinate.values.tolist() == other.dataset[name].values.tolist(), name


# ---------------------------------------------------------------------------------------------------------------- xarray


@given(seed=st.integers(0, 1000), n_trials=st.integers(1, 6), n_steps=st.integers(2, 6))
@settings(max_examples=20, suppress_health_check=EVERY_TIME)
def test_through_xarray_and_back(planted, seed, n_trials, n_steps):
    recording = planted(seed=seed, n_trials=n_trials, n_steps=n_steps)
    assert_same(from_xarray(to_xarray(recording)), recording)


def test_what_an_xarray_shows(planted):
    recording = planted()
    array = to_xarray(recording)
    assert array.dims == ("trial", "step", "unit")
    assert array.sizes["trial"] == 20
    assert array.side.dims == ("trial",)
    assert array["count"].dims == ("trial", "step")
    assert set(array.token.values.ravel()) <= {"BOS", "D", "R", ""}
    row = recording.dataset.isel(sample=7)
    cell = array.sel(trial=int(row.trial), step=int(row.step))
    assert np.array_equal(cell.values, row.activity.values, equal_nan=True)
    assert float(cell["count"]) == float(row["count"])
    assert int(array.present.sum()) == recording.n_samples
    assert "time" not in array.coords
    timed = Recording.from_arrays(
        np.zeros((2, 3, 1)), {"n": [1, 2]}, name="t", sampling=Sampling(step="time bin", start_s=-0.1, step_s=0.2)
    )
    assert to_xarray(timed).time.values == pytest.approx([0, 0.2, 0.4])


def test_an_xarray_of_somebody_else():
    rates = np.random.default_rng(0).normal(size=(3, 4, 5))
    rates[2, :, 3:] = np.nan  # a short trial
    array = xr.DataArray(
        rates,
        dims=("channel", "trial", "bin"),
        coords={"channel": ["a", "b", "c"], "side": ("trial", list("lrlr")), "bin": [0.0, 0.1, 0.2, 0.3, 0.4]},
    ).where(lambda one: (one.trial != 1) | (one.bin < 0.25))
    recipe = {"axes": ["unit", "trial", "step"], "unit": "channel", "start_s": -0.05, "step_s": 0.1}
    recording = from_xarray(
        array, recipe | {"variables": {"side": "side", "late": "bin > 0.15"}}, name="lab", missing=True
    )
    assert recording.unit_names == ["a", "b", "c"]
    assert recording.n_samples == 4 * 5 - 2
    assert recording.values(["late"])[:5].ravel().tolist() == [0, 0, 1, 1, 1]
    assert recording.manifest.provenance.notes.count("2 steps at the ends of trials") == 1
    with pytest.raises(InvalidInput, match="its axes are called 'bin'"):
        from_xarray(array.isel(channel=0, trial=0), name="flat")
    with pytest.raises(NotFound, match="no array 'rates'"):
        from_xarray(array.to_dataset(name="mine"), {"activity": "rates"})


def test_a_dataset_with_samples_is_taken_as_it_is(planted):
    recording = planted()
    assert_same(from_xarray(recording.dataset), recording)


# --------------------------------------------------------------------------------------------------------------- anndata


@given(seed=st.integers(0, 1000), n_trials=st.integers(1, 6))
@settings(max_examples=10, suppress_health_check=EVERY_TIME)
def test_through_anndata_and_back(planted, seed, n_trials):
    recording = planted(seed=seed, n_trials=n_trials)
    assert_same(from_anndata(to_anndata(recording)), recording)


def test_through_a_file_of_anndata_and_back(tmp_path, planted):
    recording = planted()
    adata = to_anndata(recording)
    assert adata.obs["side"].cat.categories.tolist() == ["lick left", "lick right"]
    assert adata.var["cell_type"].tolist()[:2] == ["type 0", "type 1"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = convert(tmp_path / "a.h5ad", licence="other")
    assert again.manifest.licence == "other"
    assert again.manifest.provenance.source == "a.h5ad"  # the recording brought none along
    same = again.manifest.model_copy(
        update={"licence": recording.manifest.licence, "provenance": recording.manifest.provenance}
    )
    assert_same(Recording(again.dataset, same), recording)
    listed = dict(find_converter(tmp_path / "a.h5ad").contents(tmp_path / "a.h5ad"))
    assert listed["X"] == f"{recording.n_samples, 5} float32"
    assert listed["side"].startswith("obs: ")
    assert listed["depth"].startswith("var: (5,) float64: 0.0, 0.1")


def cells() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"kind": pd.Categorical(["b", "a", "b", "c"]), "n": [1.0, 2.0, 3.0, np.nan], "batch": [1, 1, 2, 2]},
        index=list("wxyz"),
    )
    made = anndata.AnnData(
        csr_matrix(np.arange(12.0).reshape(4, 3)), obs=obs, var=pd.DataFrame({"n": [7, 8, 9]}, index=["g1", "g2", "g3"])
    )
    made.layers["scaled"] = rng.normal(size=(4, 3))
    made.obsm["X_pca"] = rng.normal(size=(4, 2))
    return made


def test_anndata_of_somebody_else(monkeypatch):
    adata = cells()
    recipe = {"variables": {"kind": "kind", "known": "isfinite(n)"}, "trial": "batch"}
    recording = from_anndata(adata, recipe, name="cells")
    assert np.array_equal(recording.latents(), np.arange(12.0).reshape(4, 3))
    assert recording.dataset["n"].values.tolist() == [7, 8, 9]
    assert recording.unit_names == ["g1", "g2", "g3"]
    assert recording.dataset["trial"].values.tolist() == [1, 1, 2, 2]
    assert recording.values(["kind", "known"]).tolist() == [[1, 1], [0, 1], [1, 1], [2, 0]]
    assert np.array_equal(
        from_anndata(adata, recipe | {"activity": "scaled"}).latents(dtype=float), adata.layers["scaled"]
    )
    components = from_anndata(adata, recipe | {"activity": "X_pca"})
    assert components.unit_names == ["X_pca_0", "X_pca_1"]
    assert '"activity":"X_pca"' in components.manifest.provenance.notes
    with pytest.raises(InvalidDocument, match="variable 'n': 1 of 4 entries"):
        from_anndata(adata)
    with pytest.raises(NotFound, match="no activity 'raw'; there are X, layers 'scaled' and obsm 'X_pca'"):
        from_anndata(adata, {"activity": "raw"})
    with pytest.raises(NotFound, match="no array 'session' \\(trial\\)"):
        from_anndata(adata, {"trial": "session"})
    monkeypatch.setattr(named_arrays, "LARGEST_DENSE_BYTES", 90)
    with pytest.raises(InvalidInput, match="sparse activity of shape \\(4, 3\\) would take") as raised:
        from_anndata(adata)
    assert raised.value.kind == "too_large"


def test_an_obs_column_and_a_var_column_of_one_name():
    obs = pd.DataFrame({"area": ["a", "b", "a"], "n": pd.array([1, None, 2], dtype="Int64")}, index=list("xyz"))
    var = pd.DataFrame({"area": ["p", "q"], "n": [1, 2]}, index=["g1", "g2"])
    adata = anndata.AnnData(np.zeros((3, 2), np.float32), obs=obs, var=var)
    recording = from_anndata(adata, {"variables": {"area": "area"}}, name="x")
    assert recording.dataset["unit_area"].values.tolist() == ["p", "q"]
    assert "left out: 'n'" in recording.manifest.provenance.notes  # that of obs


@pytest.mark.parametrize("content", [b"", b"no h5ad", b"\x89HDF\r\n\x1a\n" + b"\1" * 600])
def test_foreign_files_under_h5ad_are_told(tmp_path, content):
    (tmp_path / "a.h5ad").write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read as an AnnData file") as raised:
        convert(tmp_path / "a.h5ad")
    assert raised.value.kind == "unreadable_source"


def test_an_hdf5_file_that_is_no_anndata_is_told(tmp_path):
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(tmp_path / "a.h5ad", engine="h5netcdf")
    with pytest.raises(InvalidInput) as raised:
        convert(tmp_path / "a.h5ad")
    assert raised.value.kind == "unreadable_source"


# -------------------------------------------------------------------------------------------------------------- pynapple

COUNTED = {"start_s": 0, "stop_s": 1, "bin_s": 0.5, "activity": "count", "variables": {"side": "side"}}


def cues() -> nap.IntervalSet:
    return nap.IntervalSet([2, 5, 8], [3, 6, 9], metadata={"side": ["left", "right", "left"]})


def spikes(support: nap.IntervalSet) -> nap.TsGroup:
    times = {3: [2.1, 2.2, 5.6, 8.1], 8: [2.7, 5.1, 5.2, 8.9]}
    return nap.TsGroup(
        {unit: nap.Ts(np.array(one)) for unit, one in times.items()},
        time_support=support,
        metadata={"area": ["V1", "V2"]},
    )


def test_spikes_about_intervals():
    recording = from_pynapple(spikes(nap.IntervalSet(0, 10)), cues(), COUNTED, name="session-1", system="cat")
    assert recording.latents().tolist() == [[2, 0], [0, 1], [0, 2], [1, 0], [1, 0], [0, 1]]
    assert recording.unit_names == ["3", "8"]
    assert recording.dataset["area"].values.tolist() == ["V1", "V2"]
    assert recording.dataset["event_s"].values[::2].tolist() == [2, 5, 8]
    assert (recording.manifest.system, recording.manifest.missing) == ("cat", False)
    rates = from_pynapple(spikes(nap.IntervalSet(0, 10)), cues(), COUNTED | {"activity": "rate"}, name="r")
    assert np.array_equal(rates.latents(), 2 * recording.latents())
    assert rates.manifest.units == "Hz"
    ends = from_pynapple(spikes(nap.IntervalSet(0, 10)), cues(), COUNTED | {"align": "end", "stop_s": 0.5}, name="e")
    assert ends.dataset["event_s"].values.tolist() == [3, 6, 9]


def test_outside_the_support_nothing_was_recorded():
    support = nap.IntervalSet([0, 5.5], [5.2, 8.7])
    recording = from_pynapple(spikes(support), cues(), COUNTED, name="gaps")
    # of the second trial the second bin is left, of the third the first
    assert recording.dataset["trial"].values.tolist() == [0, 0, 1, 2]
    assert recording.dataset["step"].values.tolist() == [0, 1, 1, 0]
    assert recording.latents().tolist() == [[2, 0], [0, 1], [1, 0], [1, 0]]
    assert "2 bins of other trials in which no unit was recorded" in recording.manifest.provenance.notes
    with pytest.raises(InvalidInput, match="no unit was recorded in any of 3 trials"):
        from_pynapple(spikes(nap.IntervalSet(0, 1)), cues(), COUNTED, name="none")


def test_series_are_averaged_in_bins():
    time = np.arange(0, 10, 0.25) + 0.01
    values = np.column_stack([time, -time])
    frame = nap.TsdFrame(t=time, d=values, columns=["x", "y"], metadata={"depth": [1.0, 2.0]})
    events = pd.DataFrame({"cue": [5.0, 2.0, np.nan], "side": ["right", "left", "left"]})
    with pytest.raises(InvalidInput, match="'count' is for spikes"):
        from_pynapple(frame, events, COUNTED | {"align": "cue"}, name="s")
    averaged = COUNTED | {"align": "cue", "activity": "rate"}
    recording = from_pynapple(frame, events, averaged, name="s")
    expected = [
        [values[(time >= left) & (time < left + 0.5), unit].mean() for unit in (0, 1)] for left in (2, 2.5, 5, 5.5)
    ]
    assert recording.latents() == pytest.approx(np.array(expected), rel=1e-6)
    assert recording.unit_names == ["x", "y"]
    assert recording.dataset["depth"].values.tolist() == [1, 2]
    assert recording.manifest.units == "1"
    single = from_pynapple(frame["x"], events, averaged, name="s")
    assert np.array_equal(single.latents()[:, 0], recording.latents()[:, 0])
    holes = values.copy()
    holes[time == 2.01] = np.nan  # one of the two samples of a bin
    rest = from_pynapple(nap.Tsd(t=time, d=holes[:, 0]), events, averaged, name="s")
    assert rest.latents()[0, 0] == pytest.approx(2.26)
    fine = averaged | {"bin_s": 0.125}  # some bins lie between two samples of the series
    assert from_pynapple(frame, events, fine, name="s").n_samples == 8


def test_metadata_called_as_a_variable_or_as_no_coordinate_can_be():
    group = nap.TsGroup(
        {3: nap.Ts(np.array([2.1])), 8: nap.Ts(np.array([5.1])), 9: nap.Ts(np.array([]))},
        time_support=nap.IntervalSet(0, 10),
        metadata={"side": ["l", "r", "l"], "brain area": ["a", "b", "c"], "unit": ["p", "q", "r"]},
    )
    recording = from_pynapple(group, cues(), COUNTED, name="s")
    found = {name: recording.dataset[name].values.tolist() for name in ("unit_side", "brain_area", "unit_unit")}
    assert found == {"unit_side": ["l", "r", "l"], "brain_area": ["a", "b", "c"], "unit_unit": ["p", "q", "r"]}
    assert recording.unit_names == ["3", "8", "9"]
    assert recording.spec("side").meanings == ("left", "right")
    scaled = COUNTED | {"variables": {"event_s": "start_time * 10", "late": "event_time > 4"}}
    recording = from_pynapple(group, cues(), scaled, name="s")
    assert recording.values(["event_s"]).ravel().tolist() == [20, 20, 50, 50, 80, 80]
    assert recording.values(["late"]).ravel().tolist() == [0, 0, 1, 1, 1, 1]


def test_to_pynapple_and_back():
    recording = from_pynapple(spikes(nap.IntervalSet(0, 10)), cues(), COUNTED, name="session-1")
    activity, trials = to_pynapple(recording)
    assert activity.t.tolist() == [2.25, 2.75, 5.25, 5.75, 8.25, 8.75]
    assert np.array_equal(activity.values, recording.latents())
    assert list(activity.columns) == ["3", "8"]
    assert activity["area"].tolist() == ["V1", "V2"]
    assert trials["side"].tolist() == ["left", "right", "left"]
    assert trials["event_s"].tolist() == [2, 5, 8]
    again = from_pynapple(activity, trials, COUNTED | {"align": "event_s", "activity": "rate"}, name="session-1")
    assert np.array_equal(again.latents(), recording.latents())
    assert again.manifest.variables == recording.manifest.variables
    assert again.dataset["trial"].values.tolist() == recording.dataset["trial"].values.tolist()


@pytest.mark.filterwarnings("error")
def test_trials_that_touch_go_to_pynapple_and_those_that_overlap_do_not():
    touching = nap.IntervalSet([2, 3.0], [2.9, 3.9], metadata={"side": ["left", "right"]})
    whole = spikes(nap.IntervalSet(0, 10))
    activity, trials = to_pynapple(from_pynapple(whole, touching, COUNTED | {"stop_s": 1.0}, name="t"))
    assert (len(activity), trials["side"].tolist()) == (4, ["left", "right"])
    with pytest.raises(InvalidInput, match="windows of 2 trials overlap") as raised:
        to_pynapple(from_pynapple(whole, touching, COUNTED | {"stop_s": 1.5}, name="t"))
    assert raised.value.kind == "invalid_trials"


@pytest.mark.parametrize("kept", ["event_s", "sampling"])
def test_to_pynapple_tells_what_is_missing(kept):
    made = {"sample_metadata": {"event_s": [1.0]}} if kept == "event_s" else {"sampling": Sampling(start_s=0, step_s=1)}
    recording = Recording.from_arrays(np.zeros((1, 2, 1)), {"n": [1]}, name="toy", **made)
    lacking = "sampling.start_s, sampling.step_s" if kept == "event_s" else "a coordinate 'event_s'"
    with pytest.raises(InvalidInput, match=f"recording 'toy' has no times in a session; missing: {lacking}"):
        to_pynapple(recording)


@pytest.mark.parametrize(
    ("data", "intervals", "told"),
    [
        (np.zeros(3), None, "expected a TsGroup, Ts, TsdFrame or Tsd, got ndarray"),
        (None, [1, 2], "expected an IntervalSet or a DataFrame of events, got list"),
    ],
)
def test_other_classes_are_told(data, intervals, told):
    with pytest.raises(InvalidInput, match=told):
        from_pynapple(
            spikes(nap.IntervalSet(0, 10)) if data is None else data,
            cues() if intervals is None else intervals,
            COUNTED,
        )


# ---------------------------------------------------------------------------------------------------------------- tables


def test_tables_of_trials_and_units(planted):
    recording = from_pynapple(spikes(nap.IntervalSet(0, 10)), cues(), COUNTED, name="session-1")
    trials, units = to_tables(recording)
    assert trials.to_dict("list") == {
        "trial": [0, 1, 2],
        "start_time": [2, 5, 8],
        "stop_time": [3, 6, 9],
        "event_s": [2, 5, 8],
        "side": ["left", "right", "left"],
    }
    assert units.to_dict("list") == {"unit": ["3", "8"], "area": ["V1", "V2"]}
    trials, units = to_tables(planted())
    assert set(trials) == {"trial", "side", "load", "session"}  # the others change within trials
    assert list(units) == ["unit", "cell_type", "depth"]
