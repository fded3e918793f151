"""Time has one value: what a file, a recipe and a manifest say of it agree, or the file is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.io import savemat

from neuromas import Recording, annotate
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.recordings.convert.arrays import from_xarray, to_xarray
from neuromas.recordings.convert.converter import convert

N_TRIALS, N_STEPS = 4, 5
RATES = np.random.default_rng(0).normal(size=(N_TRIALS, N_STEPS, 3))
SIDE = [0, 1, 0, 1]
CENTRES = -0.1 + 0.05 * (np.arange(N_STEPS) + 0.5)
SAID = {"start_s": -0.1, "step_s": 0.05, "variables": {"side": "side"}}


def table(time):
    rows = {
        "trial": np.repeat(np.arange(N_TRIALS), N_STEPS),
        "side": np.repeat(SIDE, N_STEPS),
        "time": np.tile(time, N_TRIALS),
    }
    return pd.DataFrame(rows | {f"u{unit}": RATES[..., unit].ravel() for unit in range(3)})


def written(folder, ending, time):
    """A file with its own time, and what of the recipe depends on the format."""
    path = folder / f"a{ending}"
    if ending == ".npz":
        np.savez(path, activity=RATES, time=time, side=SIDE)
    elif ending == ".mat":
        savemat(path, {"activity": RATES, "time": time, "side": SIDE})
    elif ending == ".csv":
        table(time).to_csv(path, index=False)
    elif ending == ".parquet":
        table(time).to_parquet(path)
    elif ending == ".h5ad":
        from anndata import AnnData

        obs = table(time)[["trial", "side", "time"]]
        names = [pd.Index([str(number) for number in range(size)], dtype=object) for size in (len(obs), 3)]
        AnnData(RATES.reshape(-1, 3), obs.set_index(names[0]), pd.DataFrame(index=names[1])).write_h5ad(path)
    else:
        data = {"activity": (("trial", "time", "unit"), RATES), "side": ("trial", SIDE)}
        dataset = xr.Dataset(data, {"time": time})
        dataset.to_netcdf(path, engine="h5netcdf") if ending == ".nc" else dataset.to_zarr(path)
    return path, {"unit_columns": r"u\d"} if ending in (".csv", ".parquet") else {}


@pytest.mark.parametrize("ending", [".npz", ".mat", ".csv", ".parquet", ".h5ad", ".nc", ".zarr"])
def test_a_time_that_contradicts_the_recipe_is_refused_in_every_format(tmp_path, ending):
    path, own = written(tmp_path, ending, CENTRES)
    recording = convert(path, SAID | own)
    assert np.allclose(recording.time_s[:N_STEPS], CENTRES)
    for number, time in enumerate(
        (CENTRES + 1, 1000 * CENTRES, CENTRES - 0.025, CENTRES[::-1], 0.04 * np.arange(N_STEPS))
    ):
        (tmp_path / str(number)).mkdir()
        path, own = written(tmp_path / str(number), ending, time)
        with pytest.raises(
            InvalidInput, match=r"two sources of time: the array 'time' begins with .*leave out start_s"
        ):
            convert(path, SAID | own)
        # without the recipe's, the file's own time is kept
        assert convert(path, {"variables": {"side": "side"}} | own).dataset["time"].values[:5] == pytest.approx(time)


def test_a_part_of_the_sampling_is_compared_too(tmp_path):
    path, _ = written(tmp_path, ".npz", CENTRES)
    recipe = {"variables": {"side": "side"}}
    assert convert(path, recipe | {"step_s": 0.05}).manifest.sampling.step_s == 0.05
    assert convert(path, recipe | {"start_s": -0.1}).manifest.sampling.start_s == -0.1
    for wrong in ({"step_s": 0.1}, {"start_s": 0}):
        with pytest.raises(InvalidInput, match="two sources of time"):
            convert(path, recipe | wrong)


def test_a_time_that_was_rounded_agrees(tmp_path):
    path, _ = written(tmp_path, ".npz", CENTRES.round(3).astype("f4"))
    assert convert(path, SAID).time_s[:N_STEPS] == pytest.approx(CENTRES)


def test_a_time_of_trials_is_another_fact(tmp_path):
    onset = np.array([3.0, 7.5, 9.0, 12.25])
    np.savez(tmp_path / "a.npz", activity=RATES, time=onset, side=SIDE)
    assert convert(tmp_path / "a.npz", SAID).time_s[0] == pytest.approx(CENTRES[0])
    with pytest.raises(InvalidInput, match="two sources"):
        convert(tmp_path / "a.npz", SAID | {"variables": {"late": "time > 0"}})


def test_a_recipe_and_a_manifest_agree_or_are_refused(tmp_path):
    manifest = '{"name": "a", "system": "s", "sampling": {"step_s": 0.05, "start_s": 0.5, "aligned_to": "cue"}}'
    np.savez(tmp_path / "a.npz", activity=RATES, side=SIDE, manifest=manifest)
    with pytest.raises(InvalidInput, match=r"the recipe gives start_s=-0\.1, the manifest in the file gives 0\.5"):
        convert(tmp_path / "a.npz", SAID)
    kept = convert(tmp_path / "a.npz", SAID | {"start_s": 0.5, "variables": {"late": "time > 0.6"}})
    assert kept.manifest.sampling.aligned_to == "cue"
    assert kept.values(["late"]).sum() == 3 * N_TRIALS
    np.savez(tmp_path / "b.npz", activity=RATES, side=SIDE)
    with pytest.raises(InvalidInput, match="the manifest that was given gives 2"):
        convert(tmp_path / "b.npz", SAID, sampling={"step": "time bin", "start_s": 2, "step_s": 0.05})


def test_the_sampling_of_a_file_and_its_time_agree_or_are_refused():
    recording = Recording.from_arrays(RATES, {"side": SIDE}, name="a", sampling={"start_s": -0.1, "step_s": 0.05})
    array = to_xarray(recording)
    assert from_xarray(array).manifest == recording.manifest
    assert from_xarray(array[:, 2:]).time_s[:3] == pytest.approx(CENTRES[2:])
    with pytest.raises(InvalidInput, match="two sources of time"):
        from_xarray(array.assign_coords(time=array.time + 1))
    timed = xr.DataArray(RATES, coords={"time": CENTRES + 1}, dims=("trial", "time", "unit"))
    with pytest.raises(InvalidDocument, match="two sources of time"):
        Recording.from_arrays(timed, {"side": SIDE}, name="a", sampling={"start_s": -0.1, "step_s": 0.05})


def test_xarray_keeps_its_time():
    array = xr.DataArray(RATES, coords={"side": ("trial", SIDE)}, dims=("trial", "time", "unit"), name="a")
    uneven = array.assign_coords(time=[0.0, 0.1, 0.3, 0.7, 1.5])
    recording = from_xarray(uneven)
    assert recording.dataset["time"].values[:5].tolist() == [0.0, 0.1, 0.3, 0.7, 1.5]
    assert annotate(recording, {"late": "time > 0.2"}).values(["late"])[:5].ravel().tolist() == [0, 0, 1, 1, 1]
    again = to_xarray(recording)
    assert again["time"].dims == ("step",)
    assert from_xarray(again).dataset["time"].equals(recording.dataset["time"])
    # what says its unit becomes sampling
    for units, scale in (("ms", 1000), ("s", 1), ("Seconds", 1)):
        timed = array.assign_coords(time=("time", scale * CENTRES, {"units": units}))
        assert from_xarray(timed).time_s[:N_STEPS] == pytest.approx(CENTRES)
        assert from_xarray(timed, SAID).manifest.sampling.start_s == -0.1
    spans = array.assign_coords(time=pd.to_timedelta(1000 * CENTRES, unit="ms"))
    assert from_xarray(spans).time_s[:N_STEPS] == pytest.approx(CENTRES)


def test_other_facts_with_two_sources(tmp_path):
    units = xr.DataArray(RATES, coords={"side": ("trial", SIDE)}, dims=("trial", "step", "unit"), attrs={"units": "Hz"})
    assert from_xarray(units).manifest.units == "Hz"
    array = to_xarray(from_xarray(units)).assign_attrs(units="mV")
    with pytest.raises(InvalidInput, match="two units of activity: the array has 'mV', the manifest in the file 'Hz'"):
        from_xarray(array)
    manifest = '{"name": "a", "system": "s", "vocabulary": ["x", "y"]}'
    np.savez(
        tmp_path / "a.npz", activity=RATES, side=SIDE, token=[0, 1, 0, 1], vocabulary=["y", "x"], manifest=manifest
    )
    for recipe in ({}, {"activity": "activity"}):
        with pytest.raises(InvalidInput, match="two vocabularies"):
            convert(tmp_path / "a.npz", recipe)


def test_time_of_an_archive_belongs_to_steps(tmp_path):
    square = RATES[:, :4]
    np.savez(tmp_path / "a.npz", activity=square, time=CENTRES[:4], side=SIDE)
    assert convert(tmp_path / "a.npz").values(["time"])[:4].ravel() == pytest.approx(CENTRES[:4])
