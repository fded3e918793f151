"""Noisy and continuous recordings: means of several matches, and values within a tolerance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.errors import InvalidInput
from neuromas.index.index import CLIndex
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore


def planted(phase, place, speed=None):
    """Unit 0 holds the sample's number."""
    variables = {"phase": np.asarray(phase), "place": np.asarray(place, dtype=float)}
    if speed is not None:
        variables["speed"] = np.asarray(speed, dtype=float)
    return Recording.from_arrays(np.arange(len(place), dtype=np.float32)[:, None], variables, name="track")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-20, 20), st.integers(-9, 9)), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 2), st.integers(-25, 25), st.integers(-9, 9)), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.5, 1.0, 2.75]),
    st.sampled_from([0.0, 1.5]),
    st.integers(0, 3),
)
def test_draws_are_within_the_tolerance_and_reach_every_match(rows, asked, first, second, seed):
    phase, place, speed = np.array(rows, dtype=float).T
    index = CLIndex(
        planted(phase.astype(int), place / 2, speed),
        ["phase", "place", "speed"],
        tolerance={"place": first, "speed": second},
    )
    wanted = np.array(asked, dtype=float) * [1, 0.5, 1]
    near = (
        (phase[None] == wanted[:, :1])
        & (np.abs(place[None] / 2 - wanted[:, 1:2]) <= first)
        & (np.abs(speed[None] - wanted[:, 2:]) <= second)
    )
    combination, count = index.lookup(torch.from_numpy(wanted))
    assert count.tolist() == near.sum(axis=1).tolist()
    assert index.coverage(torch.from_numpy(wanted)) == near.any(axis=1).mean()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        draw = index.sample(torch.from_numpy(wanted), generator)
        assert draw.hit.tolist() == near.any(axis=1).tolist()
        for row, sample in enumerate(draw.samples.tolist()):
            assert sample == -1 if not near[row].any() else near[row, sample]
    for row, one in enumerate(combination.tolist()):
        assert (one >= 0) == near[row].any()


def test_every_match_within_the_tolerance_is_as_likely():
    index = CLIndex(
        planted([0] * 6 + [1], [0.0, 0.1, 0.1, 0.2, 0.9, 5.0, 0.1]), ["phase", "place"], tolerance={"place": 0.2}
    )
    wanted = torch.tensor([[0.0, 0.1]]).repeat(8000, 1)
    drawn = index.sample(wanted, torch.Generator().manual_seed(0)).samples
    counts = torch.bincount(drawn, minlength=7).numpy()
    assert counts[4:].sum() == 0
    assert stats.chisquare(counts[:4]).pvalue > 1e-3


def test_a_value_off_by_just_the_tolerance_counts():
    index = CLIndex(planted([0], [0.3]), ["place"], tolerance={"place": 0.2})
    assert index.lookup(torch.tensor([[0.1], [0.5], [0.09], [float("nan")]], dtype=torch.float64))[1].tolist() == [
        1,
        1,
        0,
        0,
    ]


def test_the_nearest_combination_is_named():
    index = CLIndex(planted([0, 0, 0], [0.0, 1.0, 1.5]), ["place"], tolerance={"place": 1.0})
    combination, count = index.lookup(torch.tensor([[0.9], [1.4], [9.0]], dtype=torch.float64))
    assert combination.tolist() == [1, 2, -1]
    assert count.tolist() == [3, 2, 0]


def test_a_recording_grouped_on_disk_takes_a_tolerance_too(tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([planted([0, 1] * 20, np.arange(40) // 4)], set="s", group_by=["place"])
    recording = store.get("s/track", load=False)
    index = CLIndex(recording, ["place"], tolerance={"place": 1.0})
    draw = index.sample(torch.full((300, 1), 4.5), torch.Generator().manual_seed(0))
    assert set(recording.values(["place"])[draw.samples.numpy(), 0]) == {4.0, 5.0}


def test_means_of_several_matches():
    recording = planted([0] * 5 + [1] * 3, np.zeros(8))
    index = CLIndex(recording, ["phase"])
    draw = index.sample(torch.tensor([[0.0], [1.0], [7.0]]), torch.Generator().manual_seed(0), n_matches=4)
    assert draw.samples.shape == (3, 4)
    assert draw.hit.tolist() == [True, True, False]
    assert draw.latents[:2, 0].tolist() == draw.samples[:2].double().mean(dim=1).tolist()
    assert torch.isnan(draw.latents[2]).all()
    assert set(draw.samples[0].tolist()) <= set(range(5))
    assert draw.samples[2].tolist() == [-1] * 4


def test_means_of_matches_have_less_noise():
    generator = np.random.default_rng(0)
    recording = Recording.from_arrays(generator.normal(size=(5000, 1)), {"n": np.zeros(5000, dtype=int)}, name="r")
    index = CLIndex(recording, ["n"])
    asked = torch.zeros(4000, 1)
    spread = {
        m: index.sample(asked, torch.Generator().manual_seed(m), n_matches=m).latents.var().item() for m in (1, 9)
    }
    assert spread[9] == pytest.approx(spread[1] / 9, rel=0.1)


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"time": 1.0}, "tolerance for 'time', but the index has the variables phase, place"),
        ({"place": -1.0}, "0 or more, got"),
        ({"place": float("inf")}, "0 or more, got"),
        ({"side": 1.0}, "'side' is categorical"),
    ],
)
def test_tolerances_that_make_no_sense(tolerance, message):
    recording = Recording.from_arrays(
        np.zeros((2, 1)), {"phase": [0, 1], "place": [0.5, 0.1], "side": ["l", "r"]}, name="r"
    )
    variables = ["phase", "place", *(["side"] if "side" in tolerance else [])]
    with pytest.raises(InvalidInput, match=message):
        CLIndex(recording, variables, tolerance=tolerance)


def test_no_matches_asked_for():
    with pytest.raises(InvalidInput, match="n_matches of 1 or more, got 0"):
        CLIndex(planted([0], [0.0]), ["place"]).sample(torch.zeros(1, 1), n_matches=0)


def test_seconds_stand_beside_steps(tmp_path):
    sampling = {"step": "time bin", "step_s": 0.1, "start_s": -0.2, "aligned_to": "cue"}
    made = Recording.from_arrays(np.zeros((3, 4, 1)), {"n": [1, 2, 3]}, name="r", sampling=sampling)
    found = CLIndex(made, ["n"]).query({"n": 2})
    np.testing.assert_allclose(found["time_s"], [-0.15, -0.05, 0.05, 0.15])
    assert found["time_s"].attrs == {"units": "s", "long_name": "centre of the bin, from cue"}
    table = pd.read_csv(export(made, tmp_path / "r.csv"))
    np.testing.assert_allclose(table["time_s"], made.time_s)
    tokens = Recording.from_arrays(np.zeros((3, 4, 1)), {"n": [1, 2, 3]}, name="r")
    assert "time_s" not in CLIndex(tokens, ["n"]).query({"n": 2}).coords
