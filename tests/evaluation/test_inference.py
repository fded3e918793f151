"""Split halves against what is known in closed form, or planted."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.evaluation.inference import split_half_reliability


@pytest.mark.parametrize(("n_trials", "noise"), [(4, 1.0), (20, 3.0), (10, 0.0)])
def test_split_halves_find_the_planted_reliability(n_trials, noise):
    generator = np.random.default_rng(n_trials)
    n_groups, n_units = 30, 40
    signal = np.repeat(generator.normal(size=(n_groups, n_units)), n_trials, axis=0)
    latents = signal + noise * generator.normal(size=signal.shape)
    found = split_half_reliability(latents, np.repeat(np.arange(n_groups), n_trials), seed=1)
    assert found == pytest.approx(1 / (1 + noise**2 / n_trials), abs=0.03)


def test_split_halves_of_noise_alone_agree_about_nothing():
    generator = np.random.default_rng(0)
    found = split_half_reliability(generator.normal(size=(400, 30)), np.repeat(np.arange(20), 20))
    assert abs(found) < 0.12


def test_samples_of_one_trial_stay_in_one_half():
    # noise belongs to trials, so that samples of one trial agree: told apart, they would pass for reliability
    generator = np.random.default_rng(0)
    groups, trials = np.repeat(np.arange(20), 40), np.repeat(np.arange(80), 10)
    latents = generator.normal(size=(80, 30))[trials]
    together = split_half_reliability(latents, groups, trials)
    apart = split_half_reliability(latents, groups)
    assert abs(together) < 0.2
    assert apart > 0.8


def test_split_halves_need_three_groups_with_two_trials():
    assert split_half_reliability(np.eye(3), [0, 1, 2]) is None
    assert split_half_reliability(np.eye(4), [0, 0, 1, 2]) is None
    assert split_half_reliability(np.random.default_rng(0).normal(size=(4, 2)), [0, 0, 1, 1]) is None
    assert split_half_reliability(np.ones((6, 2)), [0, 0, 1, 1, 2, 2]) is None
    with pytest.raises(InvalidInput, match="got 3 latents, 2 groups"):
        split_half_reliability(np.eye(3), [0, 1])


def test_trials_that_hold_several_values_are_not_torn():
    # noise belongs to trials, each in three of five groups: the truth is how well another recording's means agree
    def recorded(generator, signal):
        trials = [generator.choice(5, 3, replace=False) for _ in range(60)]
        noise = 2 * generator.normal(size=(60, 40))
        x = np.concatenate([signal[groups] + noise[trial] for trial, groups in enumerate(trials)])
        return x, np.concatenate(trials), np.repeat(np.arange(60), 3)

    def means(x, groups):
        found = np.stack([x[groups == group].mean(axis=0) for group in range(5)])
        return (found - found.mean(axis=0)).ravel()

    for size in (0.0, 1.0):
        estimates, replications = [], []
        for seed in range(10):
            generator = np.random.default_rng(seed)
            signal = size * generator.normal(size=(5, 40))
            first, second = recorded(generator, signal), recorded(generator, signal)
            estimates.append(split_half_reliability(*first, n_splits=20))
            replications.append(np.corrcoef(means(*first[:2]), means(*second[:2]))[0, 1])
        assert np.mean(estimates) == pytest.approx(np.mean(replications), abs=0.15)
