"""The losses against their formulas, one pair and one token at a time (eqs. 5-9)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from neuromas.align.alignment import lay_out, random_maps
from neuromas.align.interchange import interchange
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.evaluation.divergence import cl_distance
from neuromas.fit.objective import Term, losses, make_batch, token_totals
from neuromas.schema.fit import FitConfig
from neuromas.systems.system import Packed


@pytest.fixture(scope="module")
def sides(cast, toys):
    values = cast.noisy.values(["phase", "count"])
    holed = cast.rewritten(cast.noisy, keep=~((values[:, 0] == 0) & (values[:, 1] == 3)))
    made = make_sides([cast.net, cast.other, holed], model=toys.model, n_trials=60)
    return {side.name: side for side in made}


def configured(**options) -> FitConfig:
    return FitConfig.parse({"method": "clmas", "subspaces": {"full": 3}, **options}, "test")


def batch(sides, toys, source, target, behaviour, cl, n=40, ranks=None, fixed=None):
    subspaces = lay_out(ranks or {"full": 3})
    direction = Direction(sides[source], sides[target])
    pairs = draw_pair_set(direction, "train", n, subspaces, [0])
    term = Term(direction, behaviour, cl)
    generator = torch.Generator().manual_seed(0)
    return make_batch(term, pairs, np.arange(n), subspaces, generator, fixed), pairs


def maps_of(sides, ranks=None, seed=0):
    made = random_maps(
        [side.n_units for side in sides.values()], lay_out(ranks or {"full": 3}), "orthogonal", "cayley", seed
    )
    return {name: one() for name, one in zip(sides, made, strict=True)}


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=5), min_size=2, max_size=6),
    st.integers(0, 1000),
    st.sampled_from(["all", "deterministic"]),
)
def test_behavioural_loss_is_a_mean_over_each_directions_tokens(sequences, seed, loss_tokens):
    rng = np.random.default_rng(seed)
    n, longest = len(sequences), max(map(len, sequences))
    tokens, fixed = np.zeros((n, longest), int), np.zeros((n, longest), bool)
    logits = rng.normal(size=(n, longest, 5))
    for row, sequence in enumerate(sequences):
        for step, (token, flag) in enumerate(sequence):
            tokens[row, step], fixed[row, step] = token, flag
    packed = Packed.from_sequences(tokens, np.array([len(s) for s in sequences]), fixed)
    live = [(int(row), list(packed.rows[:i]).count(row)) for i, row in enumerate(packed.rows)]
    part = rng.integers(0, 2, n)
    expected = []
    for direction in (0, 1):
        each = []
        for row in np.flatnonzero(part == direction):
            for step, (token, flag) in enumerate(sequences[row]):
                if flag or loss_tokens == "all":
                    odds = np.exp(logits[row, step])
                    each.append(-np.log(odds[token] / odds.sum()))
        expected.append(np.mean(each) if each else 0.0)
    given_logits = torch.from_numpy(np.array([logits[row, step] for row, step in live]))
    each = torch.nn.functional.cross_entropy(given_logits, packed.tokens, reduction="none")
    total, number = token_totals(each, packed, torch.from_numpy(part), 2, loss_tokens)
    np.testing.assert_allclose((total / number.clamp_min(1)).numpy(), expected, atol=1e-10)


@given(st.integers(0, 1000))
def test_cl_distance_is_equations_8_and_9(seed):
    rng = np.random.default_rng(seed)
    h, cl = rng.normal(size=(2, 5, 7))
    l2 = ((h - cl) ** 2).sum(axis=1) / 7
    cosine = 1 - (h * cl).sum(axis=1) / np.linalg.norm(h, axis=1) / np.linalg.norm(cl, axis=1)
    tensors = torch.from_numpy(h), torch.from_numpy(cl)
    np.testing.assert_allclose(cl_distance(*tensors).numpy(), (l2 + cosine) / 2)
    np.testing.assert_allclose(cl_distance(*tensors, "l2").numpy(), l2 / 2)
    np.testing.assert_allclose(cl_distance(*tensors, "cosine").numpy(), cosine / 2)


@pytest.mark.parametrize("terms", ["both", "l2", "cosine"])
def test_misses_are_not_in_the_loss(sides, toys, terms):
    one, pairs = batch(sides, toys, "net", "brain", False, True, n=200)
    wanted = (pairs.values[:, 0] == 0) & (pairs.values[:, 1] == 3)
    assert 0 < wanted.sum() < 200
    np.testing.assert_array_equal(one.hit.numpy(), ~wanted)
    maps = maps_of(sides)
    for value in maps.values():
        value.back.retain_grad()
    found = losses(maps, [one], configured(cl_terms=terms))
    rows = torch.from_numpy(np.flatnonzero(~wanted))
    h = interchange(one.target[rows], one.source[rows], maps["brain"], maps["net"])
    expected = cl_distance(h, one.cl[rows], terms).mean()
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    assert all(torch.isfinite(maps[name].back.grad).all() for name in ("brain",))


def test_counterfactual_latents_hold_the_values_and_come_from_training_trials(sides, toys):
    one, pairs = batch(sides, toys, "net", "brain", False, True, n=200)
    side = sides["brain"]
    held = {row.numpy().tobytes(): sample for sample, row in enumerate(side.latents)}
    values = side.recording.values(["phase", "count"])
    training = set(side.candidates["train"].samples)
    for latent, hit, wanted in zip(one.cl, one.hit, pairs.values, strict=True):
        if hit:
            sample = held[latent.numpy().tobytes()]
            assert sample in training
            assert values[sample].tolist() == wanted.tolist()


@pytest.mark.parametrize(("weighting", "epsilon"), [("sum", 0.85), ("sum", 2.0), ("convex", 0.85), ("convex", 0.0)])
def test_how_losses_are_weighed(sides, toys, weighting, epsilon):
    """Each loss is a mean over its own directions."""
    batches = [
        batch(sides, toys, source, target, target != "brain", target == "brain")[0]
        for source in sides
        for target in sides
    ]
    found = losses(maps_of(sides), batches, configured(weighting=weighting, epsilon=epsilon))
    assert len(found.behaviour) == 6
    assert len(found.cl) == 3
    behaviour = np.mean([value.item() for value in found.behaviour.values()])
    cl = np.mean([value.item() for value in found.cl.values()])
    expected = (1 - epsilon) * behaviour + epsilon * cl if weighting == "convex" else behaviour + epsilon * cl
    assert found.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ranks", [{"full": 3}, {"phase": 1, "count": 2}])
def test_running_directions_together_is_running_each_alone(sides, toys, ranks):
    maps = maps_of(sides, ranks)
    batches = [batch(sides, toys, s, t, True, False, ranks=ranks)[0] for s in sides for t in ("net", "other")]
    together = losses(maps, batches, configured(), score=True)
    for one in batches:
        name = one.term.direction.name
        alone = losses(maps, [one], configured(), score=True)
        torch.testing.assert_close(together.behaviour[name], alone.behaviour[name])
        assert torch.equal(together.right[name], alone.right[name])


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_scoring_runs_no_more_pairs_at_once_than_the_system_allows(sides, toys, at_once, monkeypatch):
    maps = maps_of(sides)
    batches = [batch(sides, toys, source, "net", True, False, n=9)[0] for source in sides]
    expected = losses(maps, batches, configured(loss_tokens="deterministic"), score=True)
    calls, system = [], sides["net"].system
    plain = system.resume
    monkeypatch.setattr(system, "at_once", at_once)
    monkeypatch.setattr(system, "resume", lambda *given: calls.append(len(given[0])) or plain(*given))
    found = losses(maps, batches, configured(loss_tokens="deterministic"), score=True)
    assert max(calls) == min(at_once, 27)
    assert sum(calls) == 27
    torch.testing.assert_close(found.behaviour, expected.behaviour)
    assert all(torch.equal(found.right[name], expected.right[name]) for name in expected.right)


def test_each_pair_exchanges_its_own_subspace(sides, toys):
    ranks = {"phase": 1, "count": 2}
    one, pairs = batch(sides, toys, "net", "other", True, False, ranks=ranks)
    expected = np.array([[1, 0, 0], [0, 1, 1]])[pairs.subspace]
    np.testing.assert_array_equal(one.mask.numpy(), expected)


def test_stitches_replace_the_whole_latent(sides, toys):
    one, _ = batch(sides, toys, "net", "brain", False, True)
    maps = maps_of(sides)
    found = losses(maps, [one], configured(method="latent-stitch"))
    h = (one.source @ maps["net"].forward.T @ maps["brain"].back.T)[one.hit]
    torch.testing.assert_close(found.total, cl_distance(h, one.cl[one.hit]).mean())


def test_behaviour_is_teacher_forced_on_the_counterfactual(sides, toys):
    """One direction by hand: interchange, run each continuation by itself, mean over all its tokens."""
    one, pairs = batch(sides, toys, "other", "net", True, False, n=15)
    maps = maps_of(sides)
    found = losses(maps, [one], configured())
    h = interchange(one.target, one.source, maps["net"], maps["other"])
    each = []
    for row in range(15):
        length = pairs.continuation.lengths[row]
        alone = Packed.from_continuation(pairs.continuation, np.array([row]))
        logits = sides["net"].system.resume(h[row : row + 1], alone)
        assert len(logits) == length
        each.append(
            functional.cross_entropy(
                logits, torch.from_numpy(pairs.continuation.tokens[row, :length]), reduction="none"
            )
        )
    torch.testing.assert_close(found.total, torch.cat(each).mean())
