"""Capture: what is recorded, and under which labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system


def test_labels_are_those_of_the_trials(toys):
    """The planted latent says which state it is in: decode it and compare with the labels."""
    system = toys.make("a", 13, seed=1, scale=2.0)
    trials = toys.model.sample(25, 0)
    recording = capture(system, trials, model=toys.model, batch_size=7)
    values = recording.values(["phase", "count"])
    decoded = torch.from_numpy(recording.latents()) @ system.columns / system.scale
    torch.testing.assert_close(decoded, toys.states(values), rtol=0, atol=1e-5)
    n = 0
    for row in range(len(trials)):
        for step in range(trials.lengths[row]):
            assert (recording.trial[n], recording.step[n]) == (row, step)
            assert values[n].tolist() == trials.values[row, step].tolist()
            assert recording.dataset["token"].values[n] == trials.tokens[row, step]
            assert recording.eligible[n] == trials.eligible[row, step]
            n += 1
    assert n == recording.n_samples


def test_manifest(toys):
    recording = capture(toys.make("a"), 5, model=toys.model, access="read", name="brain", seed=9)
    manifest = recording.manifest
    assert (manifest.name, manifest.system, manifest.layer, manifest.task) == ("brain", "a", "state", "toy")
    assert manifest.access == "read"
    assert manifest.vocabulary == toys.Toy.vocabulary
    assert manifest.variable("phase").meanings == ("demo", "response")
    assert manifest.provenance.seed == 9


def test_a_seed_draws_the_same_trials(toys):
    system = toys.make("a")
    one, again, other = (capture(system, 20, model=toys.model, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.latents(), again.latents())
    assert one.n_samples != other.n_samples or (one.latents() != other.latents()).any()


def test_the_registered_task_is_the_default():
    recording = capture(load_system("multi-object/gru-0"), 3)
    assert recording.variable_names == ["phase", "count"]
    assert recording.n_units == 128
    assert abs(recording.latents()).max() <= 1


def test_half_precision_errs_little():
    system = load_system("multi-object/gru-0")
    whole, half = capture(system, 10), capture(system, 10, dtype="float16")
    assert half.activity.dtype == np.float16
    np.testing.assert_allclose(half.latents(), whole.latents(), atol=5e-4)


@pytest.mark.parametrize(
    ("vocabulary", "told"),
    [(("B", "D1", "D2", "T", "R", "X"), "X"), (("D1", "B", "D2", "T", "R", "E"), "another order")],
)
def test_other_tokens_are_refused(toys, vocabulary, told):
    model: CausalModel = toys.Toy()
    model.vocabulary = vocabulary
    with pytest.raises(InvalidInput, match=told) as caught:
        capture(toys.make("a"), 5, model=model)
    assert caught.value.kind == "vocabulary_mismatch"


@pytest.mark.parametrize("name", ["trial", "token", "sample_metadata", "behaviour"])
def test_what_a_capture_gives_itself_is_no_field(toys, name):
    with pytest.raises(InvalidInput, match=f"{name}: the capture gives the recording these itself"):
        capture(toys.make("net"), 5, model=toys.model, **{name: [1]})
