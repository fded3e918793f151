"""What an evaluation says about how sure its numbers are: intervals, trials, repeated latents, rotations, paired tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment, lay_out
from neuromas.align.interchange import LinearMap
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidInput
from neuromas.evaluation.accuracy import CONTROLS, N_ROTATIONS, evaluate
from neuromas.evaluation.intervals import proportion
from neuromas.evaluation.outcomes import outcomes_text, read_outcomes
from neuromas.evaluation.paired import compare_evaluations, mcnemar, paired_test
from neuromas.evaluation.repeats import repeated_share
from neuromas.fit.fitters import CLMAS, MAS, Stitch
from neuromas.schema.evaluation import Evaluation


@pytest.fixture(scope="module")
def systems(toys):
    return {"net": toys.make("net"), "other": toys.make("other", 13, seed=4, scale=0.7)}


@pytest.fixture(scope="module")
def sides(systems, toys):
    return make_sides(list(systems.values()), model=toys.model, n_trials=150)


def aligned(systems, *, noise=0.0):
    """The planted alignment, whose maps may be somewhat off."""
    generator, maps = torch.Generator().manual_seed(0), {}
    for name, system in systems.items():
        u = torch.linalg.qr(system.columns + noise * torch.randn(system.columns.shape, generator=generator))[0]
        u = u * torch.sign((u * system.columns).sum(dim=0))
        maps[name] = LinearMap(u.T / system.scale, u * system.scale, torch.zeros(len(u)))
    return Alignment(maps, lay_out({"full": next(iter(maps.values())).rank}))


@pytest.fixture(scope="module")
def rough(systems, sides):
    return evaluate(aligned(systems, noise=0.12), sides, method="rough", n_pairs=400)


@pytest.fixture(scope="module")
def exact(systems, sides):
    return evaluate(aligned(systems), sides, method="exact", n_pairs=400)


def labels_of(evaluation, score):
    (trials,) = [each for each in evaluation.pairs if (each.source, each.target) == (score.source, score.target)]
    return [np.array(text.split(), dtype=int) for text in (trials.source_trials, trials.target_trials)]


def test_intervals_are_of_the_outcomes_and_their_trials(rough):
    scores = [score for score in rough.scores if score.method == "rough"]
    assert len(scores) == 4
    for score in scores:
        labels = labels_of(rough, score)
        right, retrieved = read_outcomes(score.right), read_outcomes(score.retrieved)
        assert score.iia == pytest.approx(right.mean())
        expected = proportion(right, *labels)
        assert (score.low, score.high, score.icc) == (expected.low, expected.high, expected.icc)
        kept = ~np.isnan(retrieved)
        expected = proportion(retrieved[kept], *(label[kept] for label in labels))
        assert score.retrieval == pytest.approx(expected.estimate)
        assert (score.retrieval_low, score.retrieval_high) == (expected.low, expected.high)
        assert score.token_low < score.token_accuracy <= score.token_high


def test_no_interval_has_no_width(rough, exact):
    for score in (*rough.scores, *exact.scores):
        for low, high in (
            (score.low, score.high),
            (score.token_low, score.token_high),
            (score.retrieval_low, score.retrieval_high),
        ):
            assert high - low > 0.005


def test_trials_are_those_of_the_recordings(exact, sides):
    trials = {side.name: set(side.recording.trial[side.candidates["test"].samples].tolist()) for side in sides}
    for score in exact.scores:
        source, target = labels_of(exact, score)
        assert set(source) <= trials[score.source]
        assert set(target) <= trials[score.target]
        assert len(source) == len(target) == 400


def test_random_is_a_mean_over_rotations_with_its_spread(rough, systems, sides):
    for score in rough.scores:
        assert (score.iia_sd is not None) == (score.method == "random")
        if score.method == "random":
            assert (score.right, score.retrieved) == (None, None)
            assert score.low < score.iia < score.high
            # a share of 400 pairs in each of 10 rotations
            assert (score.iia * 400 * N_ROTATIONS) == pytest.approx(round(score.iia * 400 * N_ROTATIONS))
            assert 0 < score.iia_sd < 0.3
            weighted = sum(value.iia * value.n_pairs for value in score.by_value) / score.n_pairs
            assert weighted == pytest.approx(score.iia)
    again = evaluate(aligned(systems), sides, n_pairs=400, controls=("random",))
    mine = [score.iia for score in again.scores if score.method == "random"]
    assert mine == [score.iia for score in rough.scores if score.method == "random"]


def test_rotations_differ_with_the_seed(systems, sides):
    scores = [
        evaluate(
            aligned(systems), sides, n_pairs=50, controls=("random",), directions=[("net", "other")], seed=seed
        ).scores[0]
        for seed in (0, 1)
    ]
    assert scores[0].cl_loss != scores[1].cl_loss


def test_two_methods_are_compared_pair_by_pair(rough, exact):
    table = compare_evaluations(exact, rough)
    assert set(table["measure"]) == {"iia", "retrieval"}
    assert len(table) == 8
    row = table[(table["source"] == "net") & (table["target"] == "other") & (table["measure"] == "iia")].iloc[0]
    score, other = (
        next(s for s in each.scores if (s.method, s.source, s.target) == (name, "net", "other"))
        for each, name in ((exact, "exact"), (rough, "rough"))
    )
    assert (row["first"], row["second"]) == ("exact", "rough")
    assert row["difference"] == pytest.approx(score.iia - other.iia)
    assert row["n_second"] == 0
    assert row["low"] <= row["difference"] <= row["high"]
    expected = paired_test(read_outcomes(score.right), read_outcomes(other.right), *labels_of(exact, score))
    assert row["p_value"] == expected.p_value < 0.01
    assert mcnemar(row["n_first"], 0) < row["p_value"]


def test_a_stored_evaluation_is_compared_as_well(rough, exact):
    read = Evaluation.parse(rough.to_json(), "here")
    assert compare_evaluations(exact, read).equals(compare_evaluations(exact, rough))


def test_other_pairs_cannot_be_compared(rough, systems, sides):
    others = evaluate(aligned(systems), sides, n_pairs=400, controls=(), seed=1)
    with pytest.raises(InvalidInput) as caught:
        compare_evaluations(rough, others)
    assert caught.value.kind == "different_pairs"


def test_subspaces_are_compared_too(systems, sides, toys):
    maps = aligned(systems).maps
    rank = next(iter(maps.values())).rank
    names = toys.model.variable_names
    several = Alignment(maps, lay_out({names[0]: rank - 1, names[1]: 1}))
    first, second = (evaluate(several, sides, method=name, n_pairs=200, controls=()) for name in ("a", "b"))
    table = compare_evaluations(first, second)
    assert set(table["subspace"]) == {"", *names[:2]}
    assert (table["difference"] == 0).all()
    assert (table["p_value"] == 1).all()
    assert {len(score.right) for score in first.scores} == {200, 100}


def test_latents_that_training_latents_repeat_are_counted(sides):
    side = sides[0]
    training = {row.numpy().tobytes() for row in side.take(side.candidates["train"].samples)}
    for part in ("train", "validation", "test"):
        held_out = [row.numpy().tobytes() for row in side.take(side.candidates[part].samples)]
        assert repeated_share(side, part) == pytest.approx(np.mean([row in training for row in held_out]))
    assert repeated_share(side, "train") == 1.0


def test_a_bit_more_or_less_is_no_repeat(sides):
    side = sides[0]
    samples = side.candidates["test"].samples
    before = repeated_share(side, "test")
    assert before > 0
    latents = side.latents.clone()
    rows = torch.from_numpy(samples)
    latents[rows] = torch.nextafter(latents[rows], torch.tensor(float("inf")))
    changed = type(side)(**{**vars(side), "latents": latents})
    assert repeated_share(changed, "test") < before


@pytest.mark.parametrize(
    ("fitter", "trained", "ran"),
    [
        (
            Stitch(max_iterations=2, n_trials=100, n_train_pairs=50, n_validation_pairs=20),
            [("net", "other")],
            [("net", "other")],
        ),
        (MAS(rank=4, max_iterations=2, n_trials=100, n_train_pairs=50, n_validation_pairs=20), "every", "every"),
    ],
)
def test_a_score_says_what_was_trained_and_run(systems, toys, fitter, trained, ran):
    fitted = fitter.fit([systems["net"], systems["other"]], model=toys.model)
    evaluation = fitted.evaluate(n_pairs=20)
    directions = {(score.source, score.target) for score in evaluation.scores}
    for score in evaluation.scores:
        direction = (score.source, score.target)
        expected = trained == "every" or direction in trained
        assert score.trained == (expected and score.method not in CONTROLS)
        assert score.threads == evaluation.threads == torch.get_num_threads() == fitted.report.threads
        assert 0 <= score.repeated_source <= 1
        assert score.ran == (ran == "every" or score.target in {target for _, target in ran})
    assert len(directions) == (4 if trained == "every" else 2)


def test_without_a_fit_it_is_not_known_what_was_trained(exact):
    assert {score.trained for score in exact.scores} == {None}
    assert {score.threads for score in exact.scores} == {None}


def test_outcomes_as_text():
    assert outcomes_text([1, 0, float("nan")]) == "10."
    np.testing.assert_array_equal(read_outcomes("10."), [1, 0, np.nan])


def test_a_read_only_system_is_compared_by_retrieval(systems, toys):
    from neuromas.systems.capture import capture

    brain = capture(toys.make("brain", 14, seed=2, scale=1.5), 150, model=toys.model, seed=5)
    first, second = (
        CLMAS(rank=4, max_iterations=n, n_trials=100, n_train_pairs=50, n_validation_pairs=20)
        .fit([systems["net"], brain], model=toys.model)
        .evaluate(n_pairs=50, method=str(n))
        for n in (1, 30)
    )
    table = compare_evaluations(first, second)
    into_brain = table[table["target"] == "brain"]
    assert set(into_brain["measure"]) == {"retrieval"}
