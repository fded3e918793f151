"""Recordings of the same units over different trials, joined: every sample keeps what it held, whatever the parts were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromas.errors import InvalidInput
from neuromas.recordings.join import join
from neuromas.recordings.recording import Recording


def whole(n_trials: int = 6) -> Recording:
    generator = np.random.default_rng(0)
    return Recording.from_arrays(
        generator.normal(size=(n_trials, 3, 4)),
        {
            "side": np.array(["left", "right", "up"])[np.arange(n_trials) % 3],
            "count": generator.integers(0, 5, (n_trials, 3)),
        },
        name="whole",
        token=np.array(["a", "b", "c"])[generator.integers(0, 3, (n_trials, 3))],
        unit_metadata={"region": ["CA1", "CA1", "CA3", "CA3"]},
        sampling={"step": "time bin", "step_s": 0.1, "start_s": 0.0},
    )


def part(recording: Recording, trials: list[int], name: str) -> Recording:
    """Some trials of a recording, as somebody stored them by themselves: own codes, trials counted from 0."""
    frame = recording.to_dataset().isel(sample=np.flatnonzero(np.isin(recording.trial, trials)))
    n = len(trials)
    return Recording.from_arrays(
        frame["activity"].values.reshape(n, 3, 4),
        {"side": frame["side"].values.reshape(n, 3), "count": frame["count"].values.reshape(n, 3)},
        name=name,
        token=frame["token"].values.reshape(n, 3),
        unit_metadata={"region": frame["region"].values},
        sampling=recording.manifest.sampling.model_dump(),
    )


@given(cut=st.integers(1, 5))
def test_parts_give_the_whole_again_whatever_their_codes(cut):
    expected = whole()
    parts = [part(expected, list(range(cut)), "first"), part(expected, list(range(cut, 6)), "second")]
    joined = join(parts, name="whole")
    np.testing.assert_array_equal(joined.latents(), expected.latents())
    for name in ("side", "count", "token", "trial", "step", "region"):
        np.testing.assert_array_equal(
            joined.to_dataset()[name].values, expected.to_dataset()[name].values, err_msg=name
        )
    assert joined.dataset["joined_from"].values.tolist() == ["first"] * 3 * cut + ["second"] * 3 * (6 - cut)
    assert joined.manifest.sampling == expected.manifest.sampling
    assert joined.manifest.provenance.derived_from == ("first", "second")


def test_trials_with_numbers_of_their_own_keep_them():
    parts = [Recording.from_arrays([[1.0]], {"n": [n]}, name=f"p{n}", trial=[10 * n]) for n in (3, 1)]
    assert join(parts).trial.tolist() == [30, 10]


def test_units_in_another_order_are_put_in_order():
    first = Recording.from_arrays([[1.0, 2.0]], {"n": [0]}, name="a", units=["x", "y"])
    second = Recording.from_arrays([[4.0, 3.0]], {"n": [1]}, name="b", units=["y", "x"])
    assert join([first, second]).latents().tolist() == [[1, 2], [3, 4]]


def test_missing_units_and_ineligible_samples_stay_so():
    first = Recording.from_arrays([[np.nan], [1.0]], {"n": [0, 1]}, name="a", missing=True)
    second = Recording.from_arrays([[2.0]], {"n": [1]}, name="b", eligible=[False])
    joined = join([first, second])
    assert joined.manifest.missing
    assert joined.eligible.tolist() == [True, True, False]
    assert joined.complete().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"units": ["z"]}, "units differ: only 'a' has 'u0'; only 'b' has 'z'"),
        ({"variables": {"m": [1]}}, "variables differ"),
        ({"variables": {"n": ["one"]}}, "variable 'n' is a number in 'a'"),
        ({"activity_units": "Hz"}, "units differ: '1' in 'a', 'Hz' in 'b'"),
        ({"sampling": {"step_s": 0.1}}, "seconds per step differ"),
    ],
)
def test_what_does_not_fit_is_refused(other, message):
    first = Recording.from_arrays([[1.0]], {"n": [1]}, name="a")
    arguments = {"variables": {"n": [2]}} | other
    with pytest.raises(InvalidInput, match=message):
        join([first, Recording.from_arrays([[2.0]], **arguments, name="b")])


def test_one_recording_or_one_twice_is_refused():
    first = Recording.from_arrays([[1.0]], {"n": [1]}, name="a")
    with pytest.raises(InvalidInput, match="at least 2"):
        join([first])
    with pytest.raises(InvalidInput, match="given twice"):
        join([first, first])
