"""Longer steps: activity against a plain loop over trials and bins; labels at the middle; what is not whole is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromas.errors import InvalidInput
from neuromas.recordings.rebin import rebinned
from neuromas.recordings.recording import Recording


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n_steps=st.integers(2, 5),
    by=st.sampled_from(["mean", "sum"]),
    shuffle=st.booleans(),
)
def test_each_bin_holds_its_steps(lengths, n_steps, by, shuffle):
    generator = np.random.default_rng(0)
    activity = generator.normal(size=(len(lengths), max(lengths), 2))
    position = np.tile(np.arange(max(lengths)), (len(lengths), 1))
    recording = Recording.from_arrays(activity, {"position": position}, name="toy", lengths=lengths)
    if shuffle:
        recording = recording.select_samples(generator.permutation(recording.n_samples))
    expected = [
        (trial, bin, getattr(np, by)(activity[trial, bin * n_steps : (bin + 1) * n_steps], axis=0))
        for trial, length in enumerate(lengths)
        for bin in range(length // n_steps)
    ]
    if not expected:
        with pytest.raises(InvalidInput, match="no trial holds a whole bin"):
            rebinned(recording, n_steps, by)
        return
    longer = rebinned(recording, n_steps, by)
    assert [(trial, step) for trial, step, _ in expected] == list(zip(longer.trial, longer.step, strict=True))
    np.testing.assert_allclose(longer.latents(), [row for *_, row in expected], rtol=1e-5, atol=1e-6)
    middle = [bin * n_steps + n_steps // 2 for _, bin, _ in expected]
    assert longer.dataset["position"].values.tolist() == middle
    left_out = sum(lengths) - n_steps * len(expected)
    notes = longer.manifest.provenance.notes
    assert (f"{left_out:,} samples" in notes) == (left_out > 0)
    assert "value at the middle of the bin: 'position'" in notes


def test_time_missing_units_and_eligibility():
    activity = np.arange(8.0).reshape(1, 4, 2)
    activity[0, 1, 1] = np.nan
    recording = Recording.from_arrays(
        activity,
        {"side": ["left"]},
        name="toy",
        missing=True,
        eligible=[[True, False, True, True]],
        sampling={"step": "time bin", "step_s": 0.001, "start_s": -0.002, "aligned_to": "cue"},
    )
    longer = rebinned(recording, 2)
    np.testing.assert_array_equal(longer.activity.values, [[1, np.nan], [5, 6]])
    assert longer.eligible.tolist() == [False, True]
    assert (longer.manifest.sampling.step_s, longer.manifest.sampling.start_s) == (0.002, -0.002)
    assert longer.time_s.tolist() == pytest.approx([-0.001, 0.001])
    assert "value at the middle" not in longer.manifest.provenance.notes


@pytest.mark.parametrize(("n_steps", "by"), [(1, "mean"), (0, "mean"), (2, "median")])
def test_what_cannot_be_a_bin(n_steps, by):
    recording = Recording.from_arrays(np.zeros((1, 4, 1)), {"n": [1]}, name="toy")
    with pytest.raises(InvalidInput, match="expected at least 2 steps per bin, by mean or sum"):
        rebinned(recording, n_steps, by)
