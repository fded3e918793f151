"""Stimulation plans of planted systems, where the right change of every unit is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from neuromas.align.alignment import Alignment, Subspace
from neuromas.align.interchange import LinearMap
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidInput, NoMatch, NotFound
from neuromas.evaluation.stimulation import save_plan, stimulation_plan
from neuromas.recordings.annotate import standardised
from neuromas.recordings.pseudo import pool
from neuromas.recordings.recording import Recording

SOURCE_AXES = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 3)))[0]
TARGET_AXES = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 3)))[0]


def coded(side, count):
    """Three components: side, count, and one that is nobody's."""
    return np.column_stack([2.0 * side - 1, count, np.zeros(len(count))])


def recorded(name, axes, counts=(1, 2, 3), n=240, seed=0, offset=0.0):
    generator = np.random.default_rng(seed)
    side, count = generator.integers(2, size=n), generator.choice(counts, size=n)
    latents = coded(side, count) @ axes.T + offset
    # what the values do not say lies across the axes, and stays with the target
    across = np.linalg.svd(axes)[0][:, 3:]
    rest = generator.normal(size=(n, across.shape[1])) @ across.T
    return Recording.from_arrays(
        (latents + rest).astype(np.float32),
        {"side": np.array(["left", "right"])[side], "count": count},
        name=name,
        activity_units="Hz",
        trial=1000 + np.arange(n),
        sampling={"step": "time bin", "step_s": 0.5, "start_s": 0.0, "aligned_to": "onset"},
        unit_metadata={"region": np.array(["a", "b", "a", "b", "a"])[: len(axes)]},
    )


@pytest.fixture(scope="module")
def joined():
    source, target = recorded("net", SOURCE_AXES, seed=1), recorded("brain", TARGET_AXES, seed=2)
    sides = make_sides([source, target], variables=["side", "count"])

    def one(axes):
        u = torch.from_numpy(axes.astype(np.float32))
        return LinearMap(u.T, u, torch.zeros(len(axes)))

    subspaces = (Subspace("side", ("side",), 0, 1), Subspace("count", ("count",), 1, 2))
    return Alignment({"net": one(SOURCE_AXES), "brain": one(TARGET_AXES)}, subspaces, "linear", False), *sides


def test_the_change_is_that_of_the_planted_code(joined):
    alignment, source, target = joined
    plan = stimulation_plan(alignment, source, target, {"count": 3}, subspace="count")
    held = target.recording.values(["count"])[plan["sample"].values, 0]
    expected = (3 - held)[:, None] * TARGET_AXES[:, 1]
    np.testing.assert_allclose(plan["wanted"] - plan["current"], expected, atol=1e-5)
    np.testing.assert_array_equal(plan["current"], target.recording.latents()[plan["sample"].values].astype(float))
    assert plan["wanted_count"].values.tolist() == [3.0] * len(held)
    assert plan["count"].values.tolist() == held.tolist()
    assert set(plan["side"].values) == {"left", "right"}
    assert plan["current"].attrs["units"] == plan["change"].attrs["units"] == "Hz"
    assert plan["trial"].values.min() >= 1000
    assert plan["time_s"].values.tolist() == [0.25] * len(held)
    assert plan["region"].values.tolist() == ["a", "b", "a", "b"]
    assert plan.attrs["alignment_sha256"] == alignment.sha256()


def test_only_samples_that_the_fit_did_not_see(joined):
    alignment, source, target = joined
    plan = stimulation_plan(alignment, source, target, {"count": 1}, subspace="count")
    assert set(plan["sample"].values) == set(target.candidates["test"].samples)
    fewer = stimulation_plan(alignment, source, target, {"count": 1}, subspace="count", n_samples=7)
    assert fewer.sizes["sample"] == 7


def test_what_is_planned_was_seen_before(joined):
    alignment, source, target = joined
    plan = stimulation_plan(alignment, source, target, {"count": 3}, subspace="count")
    activity = target.recording.latents().astype(float)
    np.testing.assert_allclose(plan["recorded_min"], activity.min(axis=0))
    np.testing.assert_allclose(plan["recorded_max"], activity.max(axis=0))
    assert (plan["planned"] >= plan["recorded_min"]).all()
    assert (plan["planned"] <= plan["recorded_max"]).all()
    assert bool(plan["clipped"].any())
    outside = (plan["wanted"] < plan["recorded_min"]) | (plan["wanted"] > plan["recorded_max"])
    assert bool((plan["clipped"] == outside).all())
    np.testing.assert_allclose(plan["change"], plan["planned"] - plan["current"])
    kept = ~plan["clipped"].values
    np.testing.assert_array_equal(plan["planned"].values[kept], plan["wanted"].values[kept])


def test_other_variables_of_the_subspace_stay_as_they_are(joined):
    alignment, source, target = joined
    whole = Alignment(alignment.maps, (Subspace("full", ("full",), 0, 3),), "linear", False)
    plan = stimulation_plan(whole, source, target, {"side": "left"}, n_sources=3)
    held = target.recording.values(["side", "count"])[plan["sample"].values]
    expected = coded(np.zeros(len(held)), held[:, 1]) - coded(held[:, 0], held[:, 1])
    np.testing.assert_allclose(plan["wanted"] - plan["current"], expected @ TARGET_AXES.T, atol=1e-5)
    assert plan["wanted_side"].values.tolist() == ["left"] * len(held)


def test_what_cannot_be_planned(joined):
    alignment, source, target = joined

    def plan(wanted, subspace="count", source=source):
        return stimulation_plan(alignment, source, target, wanted, subspace=subspace)

    with pytest.raises(InvalidInput, match="several subspaces; name one of side, count"):
        plan({"count": 1}, None)
    with pytest.raises(InvalidInput, match="variable 'side' is not in the subspace, which holds count"):
        plan({"side": "left"})
    with pytest.raises(InvalidInput, match="no value is wanted"):
        plan({})
    with pytest.raises(NotFound, match="no variable 'number'"):
        plan({"number": 3})
    with pytest.raises(InvalidInput, match="no value 'up'; recorded are left, right"):
        plan({"side": "up"}, "side")
    with pytest.raises(NotFound, match="no subspace 'phase'"):
        plan({"count": 1}, "phase")
    with pytest.raises(NoMatch, match="source 'net' was never recorded with count=9"):
        plan({"count": 9})
    (stranger,) = make_sides([recorded("other", SOURCE_AXES)], variables=["side", "count"])
    with pytest.raises(NotFound, match="joins net, brain, not 'other'"):
        plan({"count": 1}, source=stranger)


def test_plans_are_written_and_read_by_anybody(joined, tmp_path):
    alignment, source, target = joined
    plan = stimulation_plan(alignment, source, target, {"count": 2}, subspace="count", n_samples=5)
    found = xr.open_dataset(save_plan(plan, tmp_path / "plan.nc"), engine="h5netcdf")
    np.testing.assert_allclose(found["change"], plan["change"])
    assert found["change"].attrs["units"] == "Hz"
    assert found.attrs["target"] == "brain"
    table = pd.read_csv(save_plan(plan, tmp_path / "plan.csv"))
    assert len(table) == 5 * 4
    row = table[(table["sample"] == plan["sample"].values[2]) & (table["unit"] == "u3")].iloc[0]
    assert row["change"] == pytest.approx(float(plan["change"][2, 3]))
    told = json.loads((tmp_path / "plan.csv.json").read_text())
    assert (told["units"], told["target"], told["source"]) == ("Hz", "brain", "net")
    with pytest.raises(InvalidInput, match=r"ends in \.nc or \.csv"):
        save_plan(plan, tmp_path / "plan.xlsx")


def test_a_pseudo_populations_plan_warns():
    halves = [recorded("a", TARGET_AXES, seed=3), recorded("b", TARGET_AXES, seed=4)]
    brain = pool([halves[0].select_units([0, 1]), halves[1].select_units([2, 3])], ["side", "count"], name="brain")
    sides = make_sides([recorded("net", SOURCE_AXES, seed=1), brain], variables=["side", "count"])
    u, v = (torch.from_numpy(axes.astype(np.float32)) for axes in (SOURCE_AXES, TARGET_AXES))
    maps = {"net": LinearMap(u.T, u, torch.zeros(5)), "brain": LinearMap(v.T, v, torch.zeros(4))}
    alignment = Alignment(maps, (Subspace("full", ("full",), 0, 3),), "linear", False)
    plan = stimulation_plan(alignment, *sides, {"count": 2})
    assert "not recorded together" in plan.attrs["warnings"]


def test_a_standardised_recordings_plan_is_in_its_own_units(joined):
    alignment, source, target = joined
    seen = standardised(target.recording)
    mean, sd = (torch.from_numpy(seen.dataset[f"standard_{name}"].values.astype(np.float32)) for name in ("mean", "sd"))
    raw = alignment.maps["brain"]
    scaled = LinearMap(raw.forward * sd, (raw.back.T / sd).T, (raw.offset - mean) / sd)
    both = Alignment({"net": alignment.maps["net"], "brain": scaled}, alignment.subspaces, "linear", False)
    (side,) = make_sides([seen], variables=["side", "count"])
    before = stimulation_plan(alignment, source, target, {"count": 3}, subspace="count")
    after = stimulation_plan(both, source, side, {"count": 3}, subspace="count")
    assert after["change"].attrs["units"] == "Hz"
    for name in ("current", "wanted", "planned", "recorded_min"):
        np.testing.assert_allclose(after[name], before[name], atol=2e-4)
    assert bool((after["clipped"] == before["clipped"]).mean() > 0.99)


@pytest.mark.parametrize("options", [{"n_sources": 0}, {"n_samples": 0}, {"n_samples": -2}, {"part": "tset"}])
def test_choices_that_make_no_plan(joined, options):
    alignment, source, target = joined
    with pytest.raises(InvalidInput, match="plan: expected"):
        stimulation_plan(alignment, source, target, {"count": 2}, subspace="count", **options)


def test_plans_for_continuous_values_take_the_tolerance():
    def track(name, axes, seed):
        place = np.random.default_rng(seed).uniform(size=600)
        latents = np.column_stack([np.cos(place), np.sin(place), place]) @ axes.T
        return Recording.from_arrays(latents.astype(np.float32), {"place": place}, name=name)

    recordings = [track("net", SOURCE_AXES, 0), track("brain", TARGET_AXES, 1)]
    u, v = (torch.from_numpy(axes.astype(np.float32)) for axes in (SOURCE_AXES, TARGET_AXES))
    maps = {"net": LinearMap(u.T, u, torch.zeros(5)), "brain": LinearMap(v.T, v, torch.zeros(4))}
    alignment = Alignment(maps, (Subspace("full", ("full",), 0, 3),), "linear", False)
    exact = make_sides(recordings, variables=["place"])
    with pytest.raises(NoMatch):
        stimulation_plan(alignment, *exact, {"place": 0.5})
    near = make_sides(recordings, variables=["place"], tolerances={"place": 0.03})
    plan = stimulation_plan(alignment, *near, {"place": 0.5})
    wanted = np.array([np.cos(0.5), np.sin(0.5), 0.5]) @ TARGET_AXES.T
    np.testing.assert_allclose(plan["wanted"], np.broadcast_to(wanted, plan["wanted"].shape), atol=0.06)
