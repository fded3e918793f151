"""Splits: whole trials, each in one part, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import split_by_coordinate, split_by_trial, split_by_value


@settings(max_examples=40)
@given(st.integers(5, 60), st.integers(0, 1000), st.integers(0, 1000))
def test_every_trial_is_in_exactly_one_part(n_trials, seed, trial_seed):
    trial = np.random.default_rng(trial_seed).integers(0, n_trials, 200)
    trial[:n_trials] = np.arange(n_trials)
    recording = Recording.from_arrays(np.zeros((200, 1)), {"v": np.zeros(200)}, name="r", trial=trial * 7)
    splits = split_by_trial(recording, seed=seed)
    np.testing.assert_array_equal(sum(split.samples.astype(int) for split in splits.values()), 1)
    trials = np.concatenate([split.trials for split in splits.values()])
    np.testing.assert_array_equal(np.sort(trials), np.unique(recording.trial))
    for split in splits.values():
        np.testing.assert_array_equal(np.isin(recording.trial, split.trials), split.samples)
        assert abs(split.n_trials - n_trials * {"train": 0.6}.get(split.name, 0.2)) < 1
    again = split_by_trial(recording, seed=seed)
    assert {split.identity for split in again.values()} == {split.identity for split in splits.values()}


def test_another_seed_deals_otherwise(planted):
    first, second = (split_by_trial(planted(), seed=seed) for seed in (0, 1))
    assert first["train"].identity != second["train"].identity


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.0, "test": 0.0}, {}, {"a": 1.5, "b": -0.5}])
def test_shares_must_add_up(planted, fractions):
    with pytest.raises(InvalidInput, match="fractions"):
        split_by_trial(planted(), fractions)


def test_too_few_trials():
    recording = Recording.from_arrays(np.zeros((2, 4, 1)), {"v": [1, 2]}, name="tiny")
    with pytest.raises(InvalidInput, match="has 2 trials, too few for every split to get one") as caught:
        split_by_trial(recording)
    assert caught.value.kind == "too_few_trials"


def test_whole_sessions(planted):
    splits = split_by_coordinate(planted(), "session", {"train": 0.5, "test": 0.5})
    sessions = planted().dataset["session"].values
    assert not set(sessions[splits["train"].samples]) & set(sessions[splits["test"].samples])
    with pytest.raises(NotFound, match=r"no coordinate 'day' on sample; it has .*session"):
        split_by_coordinate(planted(), "day")


def test_by_value(planted):
    recording = planted()
    splits = split_by_value(recording, "side", {"train": ["lick left"], "test": ["lick right"]})
    assert set(recording.values(["side"])[splits["test"].samples, 0]) == {1}
    with pytest.raises(InvalidInput, match="no value 'left'; recorded are lick left, lick right"):
        split_by_value(recording, "side", {"train": ["left"]})
    with pytest.raises(InvalidInput, match="is in two splits"):
        split_by_value(recording, "side", {"a": ["lick left"], "b": ["lick left"]})
    with pytest.raises(InvalidInput, match="changes within trials"):
        split_by_value(recording, "count", {"train": [0, 1], "test": [2, 3]})
    with pytest.raises(InvalidInput, match="split 'test' has no trials"):
        split_by_value(recording, "count", {"train": [0, 1, 2, 3], "test": [9]})


def test_a_split_belongs_to_its_recording(planted):
    split = split_by_trial(planted())["train"]
    split.check(planted())
    with pytest.raises(InvalidInput, match="was made of recording 'toy'"):
        split.check(planted(n_trials=30))
