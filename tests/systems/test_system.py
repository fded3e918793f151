"""Packing, scoring, and the seam for systems that need more than the latent to go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.align.alignment import lay_out
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.causal.model import PAD
from neuromas.errors import InvalidInput
from neuromas.evaluation.ruler import behaviour
from neuromas.fit.fitters import DAS
from neuromas.systems.system import Packed, all_right, check_device

RAGGED = st.lists(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=8)


def padded(sequences):
    lengths = np.array([len(sequence) for sequence in sequences])
    tokens = np.full((len(sequences), lengths.max() + 2), PAD)
    fixed = np.zeros(tokens.shape, dtype=bool)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = [token for token, _ in sequence]
        fixed[row, : len(sequence)] = [flag for _, flag in sequence]
    return tokens, lengths, fixed


@given(RAGGED)
def test_packing_keeps_every_live_token_and_no_other(sequences):
    packed = Packed.from_sequences(*[padded(sequences)[i] for i in (0, 1, 2)])
    assert sum(packed.sizes) == sum(map(len, sequences)) == len(packed.tokens)
    assert list(packed.sizes) == sorted(packed.sizes, reverse=True)
    assert PAD not in packed.tokens
    back = [[] for _ in sequences]
    for row, token, fixed in zip(
        packed.rows.tolist(), packed.tokens.tolist(), packed.deterministic.tolist(), strict=True
    ):
        back[row].append((token, fixed))
    assert back == sequences
    assert sorted(packed.order.tolist()) == list(range(len(sequences)))


@given(RAGGED)
def test_rows_alive_at_a_step_are_the_first_of_the_order(sequences):
    packed = Packed.from_sequences(*padded(sequences))
    start = 0
    for size in packed.sizes:
        assert packed.rows[start : start + size].tolist() == packed.order[:size].tolist()
        start += size


@given(RAGGED, st.integers(0, 1000))
def test_a_pair_is_right_if_every_deterministic_token_is(sequences, seed):
    packed = Packed.from_sequences(*padded(sequences))
    logits = torch.randn(len(packed.tokens), 3, generator=torch.Generator().manual_seed(seed))
    guesses = logits.argmax(dim=1).tolist()
    expected = [True] * len(sequences)
    for row, token, fixed, guess in zip(
        packed.rows.tolist(), packed.tokens.tolist(), packed.deterministic.tolist(), guesses, strict=True
    ):
        if fixed and token != guess:
            expected[row] = False
    assert all_right(logits, packed, len(sequences)).tolist() == expected


def test_trial_accuracy_of_a_system_that_cannot_err(toys):
    trials = toys.model.sample(300, 0)
    assert toys.make("a").trial_accuracy(trials, batch_size=70) == 1.0
    assert toys.make("b", kind=toys.Remembering).trial_accuracy(trials, batch_size=70) == 1.0


def test_trial_accuracy_counts_trials(toys):
    """Of 100 trials, 25 end with a token that the rules do not give."""
    trials = toys.model.sample(100, 0)
    trials.tokens[np.arange(25), trials.lengths[:25] - 1] = 4
    assert toys.make("a").trial_accuracy(trials, batch_size=30) == 0.75


class TestContext:
    """A system whose prediction depends on the sum of all earlier tokens, not on the latent alone."""

    @pytest.fixture
    def side(self, toys):
        sides = make_sides([toys.make("mind", 14, kind=toys.Remembering)], model=toys.model, n_trials=80)
        return sides[0]

    @pytest.fixture
    def pairs(self, toys, side):
        return draw_pair_set(Direction(side, side), "test", 300, lay_out({"full": 4}), [0])

    def test_its_own_latent_with_its_own_past_goes_on_rightly(self, toys, side, pairs):
        own = toys.model.counterfactual(
            side.recording.values(["phase", "count"])[pairs.target].astype(int), np.random.default_rng(0)
        )
        done = behaviour(side.take(pairs.target), replace(pairs, continuation=own), side)
        assert done.right.all()

    def test_with_another_past_it_does_not(self, toys, side, pairs):
        own = toys.model.counterfactual(
            side.recording.values(["phase", "count"])[pairs.target].astype(int), np.random.default_rng(0)
        )
        packed = Packed.from_continuation(own)
        logits = side.resume(side.take(pairs.target), packed, np.roll(pairs.target, 1))
        assert all_right(logits, packed, len(pairs)).double().mean() < 0.7
        without = side.system.resume(side.take(pairs.target), packed, None)
        assert all_right(without, packed, len(pairs)).double().mean() < 0.5

    def test_the_planted_interchange_succeeds_in_the_targets_past(self, toys, side, pairs):
        """Exchange the state, and let the shift be the target's: that is what `at(samples)` must say."""
        states = toys.states(pairs.values) @ side.system.columns.T
        shift = side.take(pairs.target) - (
            toys.states(side.recording.values(["phase", "count"])[pairs.target]) @ side.system.columns.T
        )
        assert behaviour(states + shift, pairs, side).right.all()

    def test_a_fit_goes_through_it(self, toys):
        system = toys.make("mind", 14, kind=toys.Remembering)
        fitter = DAS(8, batch_size=64, n_train_pairs=400, n_validation_pairs=100, max_iterations=40, n_trials=80)
        result = fitter.fit([system], model=toys.model)
        assert result.report.history[-1].loss < 0.8 * result.report.history[0].loss


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_resuming_is_in_the_batchs_order(toys, seed):
    """Rows of a batch can be shuffled: every pair gets its own logits."""
    system = toys.make("a")
    rng = np.random.default_rng(seed)
    values = toys.model.sample(6, rng)
    held = values.values[values.eligible]
    chosen = held[rng.integers(len(held), size=7)]
    went_on = toys.model.counterfactual(chosen, rng)
    latents = toys.states(chosen) @ system.columns.T
    packed = Packed.from_continuation(went_on)
    assert all_right(system.resume(latents, packed), packed, 7).all()
    order = rng.permutation(7)
    shuffled = Packed.from_continuation(went_on, order)
    assert all_right(system.resume(latents[order], shuffled), shuffled, 7).all()


@pytest.mark.parametrize(("n_gpus", "told"), [(0, "there are no CUDA devices"), (2, "there are cuda:0, cuda:1")])
def test_a_device_that_is_not_there(n_gpus, told, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    with pytest.raises(InvalidInput) as caught:
        check_device("cuda:7")
    assert "'cuda:7'" in caught.value.message
    assert told in caught.value.message
    assert "\n" not in caught.value.message
