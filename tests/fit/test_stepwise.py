"""Interchanges at every step up to the source's: what is carried over whole must lead to what the source would have done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment, lay_out, random_maps
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.evaluation.accuracy import evaluate
from neuromas.fit.fitters import CLMAS, DAS, MAS, Stitch
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.remarks import strange_steps
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system

NAMES = ("multi-object/gru-0@embedding", "multi-object/transformer-0@embedding", "multi-object/transformer-0@layer-1")
QUICK = {
    "n_trials": 100,
    "n_train_pairs": 100,
    "n_validation_pairs": 40,
    "batch_size": 16,
    "max_iterations": 2,
    "stepwise": True,
}


@pytest.fixture(scope="module", params=NAMES)
def side(request):
    return make_sides([load_system(request.param)], stepwise=True, n_trials=150)[0]


def test_pairs_are_of_whole_prefixes(side):
    pairs = draw_pair_set(Direction(side, side), "train", 50, lay_out({"full": 4}), [3], stepwise=True)
    assert (pairs.lengths == side.recording.step[pairs.source] + 1).all()
    assert np.array_equal(pairs.values, side.recording.values(list(side.variables))[pairs.source])
    source, target = pairs.latents(np.arange(10))
    assert source.shape == target.shape == (10, pairs.lengths[:10].max(), side.n_units)
    for row in range(10):  # the source's latents are those that were recorded
        samples = np.flatnonzero(side.recording.trial == side.recording.trial[pairs.source[row]])[: pairs.lengths[row]]
        assert torch.allclose(source[row, : pairs.lengths[row]], side.take(samples), atol=1e-5)


def test_behind_their_end_targets_are_filled_with_responses(side):
    tokens = side.unrolled.tokens
    ends = [row.tolist().index(6) for row in tokens]  # E
    assert all((row[end + 1 :] == 5).all() for row, end in zip(tokens, ends, strict=True))  # R
    assert tokens.min() >= 0


def test_a_whole_interchange_makes_the_target_the_source(side):
    """At full rank every rotation carries everything: no training is needed, and the target is the source."""
    subspaces = lay_out({"full": side.n_units})
    (one,) = random_maps([side.n_units], subspaces, "orthogonal", "gram-schmidt", 0)
    alignment = Alignment({side.name: one().detach()}, subspaces)
    scores = {score.method: score for score in evaluate(alignment, [side], n_pairs=150, stepwise=True).scores}
    if side.system.layer == "embedding":
        assert scores["alignment"].iia >= 0.99
    else:  # further steps of the layer below still look at the target's own tokens
        assert 0.3 < scores["alignment"].iia < 0.9
    assert scores["none"].iia < 0.6  # the same step of two trials is often the same count
    assert "cl-ceiling" not in scores


def test_a_part_of_it_carries_less(side):
    subspaces = lay_out({"full": 2})
    (one,) = random_maps([side.n_units], subspaces, "orthogonal", "gram-schmidt", 0)
    alignment = Alignment({side.name: one().detach()}, subspaces)
    (score,) = evaluate(alignment, [side], n_pairs=150, stepwise=True, controls=()).scores
    assert score.iia < 0.5


@pytest.mark.parametrize(("options", "warned"), [(None, False), ({"same-object": {"hold_out": range(6, 21)}}, True)])
def test_steps_that_the_target_never_has_are_told_of(options, warned):
    systems = [load_system(f"{task}/gru-0@embedding") for task in ("multi-object", "same-object")]
    fitter = MAS(8, **QUICK, task_options=options)
    plan = prepare(fitter.config, systems, fit_sides(fitter.config, systems)).plan
    told = strange_steps(plan)
    by_hand = {}
    for term, pairs in zip(plan.terms, plan.train, strict=True):
        source, most = term.direction.source, 5 if warned and term.direction.target.name.startswith("same") else 20
        trials, steps = source.recording.trial, source.recording.step
        count = np.where(source.recording.eligible, source.recording.dataset["count"].values, 0)
        by_hand[term.direction.name] = sum(
            count[(trials == trials[row]) & (steps < steps[row])].max(initial=0) > most for row in pairs.source
        )
    assert [n > 0 for n in by_hand.values()].count(True) == warned
    assert told == tuple(
        f"{name}: {n} of 100 pairs carry over steps with values that never occur in the task of 'same-object/gru-0';"
        " task_options can restrict the task of 'multi-object/gru-0'"
        for name, n in by_hand.items()
        if n
    )
    if warned:
        assert told[0] in fitter.fit(systems).report.warnings


@pytest.mark.parametrize("fitter", [DAS, MAS, Stitch])
def test_fitted_and_scored(fitter, tmp_path):
    names = ["multi-object/gru-0@embedding", "multi-object/lstm-0@embedding"][: 1 if fitter is DAS else 2]
    options = {"direction": ("gru-0", "lstm-0")} if fitter is Stitch else {"rank": 8}
    result = fitter(**options, **QUICK).fit([load_system(name) for name in names], out=tmp_path)
    assert [given.layer for given in result.report.inputs] == ["embedding"] * len(names)
    assert result.evaluate(n_pairs=20).scores[-1].iia is not None


def test_gradients_are_those_of_the_interchange():
    """The loss falls along its gradient: what `resume_steps` gives back reaches the maps."""
    system = load_system("multi-object/gru-0@embedding")
    result = DAS(
        32,
        **{**QUICK, "n_train_pairs": 400, "batch_size": 64, "max_iterations": 30, "validate_every": 10},
        learning_rate=1e-2,
    ).fit([system])
    looks = [seen.loss for seen in result.report.history]
    assert looks[-1] < 0.8 * looks[0]


class TestBadInput:
    def test_hidden_states_follow_from_one_another(self):
        with pytest.raises(InvalidInput, match="depends on the one before") as caught:
            DAS(4, **QUICK).fit([load_system("multi-object/gru-0")])
        assert caught.value.kind == "not_stepwise"

    def test_a_recording_cannot_be_filled_up(self):
        live = load_system("multi-object/gru-0@embedding")
        with pytest.raises(InvalidInput, match="can only be read"):
            make_sides([live, capture(live, 60, name="read")], stepwise=True, n_trials=60)

    def test_a_task_without_a_token_to_fill_up_with(self):
        with pytest.raises(InvalidInput, match="without a filler token"):
            DAS(4, **QUICK).fit([load_system("arithmetic/gru-0@embedding")])

    def test_part_of_the_variables(self):
        with pytest.raises(InvalidInput, match="'full'") as caught:
            DAS({"count": 4}, **QUICK).fit([load_system("multi-object/gru-0@embedding")])
        assert caught.value.kind == "not_stepwise"

    def test_not_where_nothing_runs(self):
        with pytest.raises(InvalidDocument, match="stepwise"):
            CLMAS(4, stepwise=True)
