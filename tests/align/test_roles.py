"""Systems of different tasks: variables that stand for each other, values that both have, and each side's own causal model."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.align.alignment import lay_out
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides, side_names
from neuromas.errors import InvalidInput, NotFound
from neuromas.fit.fitters import CLMAS, DAS, MAS
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system

ROLES = {"number": {"multi-object": "count", "arithmetic": "rem_ops"}}
COUNTING, ADDING = "multi-object/gru-0", "arithmetic/gru-0"
QUICK = {"n_trials": 120, "n_train_pairs": 200, "n_validation_pairs": 50, "batch_size": 32, "max_iterations": 2}


@pytest.fixture(scope="module")
def systems():
    return load_system("multi-object/gru-0"), load_system("arithmetic/gru-0")


@pytest.fixture(scope="module")
def sides(systems):
    return make_sides(systems, roles=ROLES, n_trials=200)


def test_each_side_has_the_model_and_the_variables_of_its_own_task(sides):
    assert [side.model.name for side in sides] == ["multi-object", "arithmetic"]
    assert [side.variables for side in sides] == [("phase", "count"), ("cumu_val", "rem_ops")]
    assert [side.columns(["number"]) for side in sides] == [[1], [1]]
    assert [side.name for side in sides] == [COUNTING, ADDING]  # both are called gru-0


@pytest.mark.parametrize("turned", [False, True])
def test_the_number_comes_from_the_source_and_the_rest_from_the_target(sides, turned):
    source, target = sides[::-1] if turned else sides
    pairs = draw_pair_set(Direction(source, target), "train", 400, lay_out({"number": 4}), [1])
    given = source.recording.values(list(source.variables))[pairs.source]
    own = target.recording.values(list(target.variables))[pairs.target]
    assert (pairs.values[:, 1] == given[:, 1]).all()
    assert (pairs.values[:, 0] == own[:, 0]).all()
    assert target.model.possible(pairs.values.astype(int)).all()
    assert (pairs.values[:, 1] != own[:, 1]).mean() > 0.3
    # what follows is in the target's own tokens: every trial ends with its end token
    last = pairs.continuation.tokens[np.arange(400), pairs.continuation.lengths - 1]
    assert (last == target.model.end).all()


def test_a_role_can_be_given_to_one_system(systems):
    roles = {"number": {COUNTING: "count", "arithmetic": "cumu_val"}}
    assert [side.columns(["number"]) for side in make_sides(systems, roles=roles, n_trials=60)] == [[1], [0]]


def test_only_these_values(systems):
    low = make_sides(systems, roles=ROLES, values={"number": [1, 2, 3]}, n_trials=200)
    for side in low:
        for part in ("train", "validation", "test"):
            assert set(side.candidates[part].values[:, 1]) == {1.0, 2.0, 3.0}
        assert len(side.indexes["train"].values()) > 3  # counterfactual latents are looked for among all
    pairs = draw_pair_set(Direction(*low), "train", 200, lay_out({"number": 4}), [1])
    assert set(pairs.values[:, 1]) == {1.0, 2.0, 3.0}


def test_a_recording_of_a_known_task_has_that_tasks_model(systems):
    read = capture(systems[1], 100, access="read")
    live, brain = make_sides([systems[0], read], roles=ROLES, n_trials=100)
    assert brain.model.name == "arithmetic"
    assert brain.access == "read"
    assert live.model.name == "multi-object"


def test_fitted_saved_and_scored(systems, tmp_path):
    fitter = MAS({"number": 4}, roles=ROLES, **QUICK)
    result = fitter.fit(list(systems), out=tmp_path)
    assert result.report.variables == ("number",)
    again = fitter.fit(list(systems), out=tmp_path)
    assert again.report.identity == result.report.identity
    found = {(score.source, score.target) for score in result.evaluate(n_pairs=40).scores}
    assert found == {(one, other) for one in (COUNTING, ADDING) for other in (COUNTING, ADDING)}


@pytest.mark.parametrize("kind", ["orthogonal", "linear"])
def test_the_closed_form_start_uses_values_that_both_have(systems, kind):
    result = MAS({"number": 4}, roles=ROLES, map=kind, init="closed-form", **QUICK).fit(list(systems))
    assert result.alignment.rank == 4


def test_a_system_that_is_only_read_may_do_another_task(systems):
    read = capture(systems[1], 150, access="read")
    result = CLMAS({"number": 4}, roles=ROLES, **QUICK).fit([systems[0], read])
    scores = {(score.source, score.target): score for score in result.evaluate(n_pairs=60, controls=()).scores}
    (blind,) = [one for (source, target), one in scores.items() if source != target and not one.ran]
    assert blind.iia is None
    assert 0 < blind.coverage <= 1


class TestBadInput:
    def test_no_value_in_common(self, systems):
        two = make_sides(systems, roles={"number": {"multi-object": "count", "arithmetic": "rem_ops"}}, n_trials=60)
        for side in two:  # counts go up to 20, remaining operations at a comma up to 9: move the latter beyond 20
            side.candidates["train"].values[:, 1] += 21 * (side.model.name == "arithmetic")
        with pytest.raises(InvalidInput, match=r"count of .*rem_ops of") as caught:
            draw_pair_set(Direction(*two), "train", 10, lay_out({"number": 2}), [0])
        assert caught.value.kind == "no_shared_value"

    def test_full_needs_the_same_variables(self, systems):
        with pytest.raises(InvalidInput, match="roles=") as caught:
            MAS(4, **QUICK).fit(list(systems))
        assert caught.value.kind == "variables_mismatch"

    def test_a_role_for_nobody(self, systems):
        with pytest.raises(InvalidInput, match="'modulo', but the systems are"):
            make_sides(systems, roles={"number": {"modulo": "count"}}, n_trials=60)

    def test_a_role_that_is_no_variable(self, systems):
        with pytest.raises(NotFound, match="'rem_ups'"):
            MAS({"number": 4}, roles={"number": {"multi-object": "count", "arithmetic": "rem_ups"}}, **QUICK).fit(
                list(systems)
            )

    def test_values_that_never_occur(self, systems):
        with pytest.raises(InvalidInput, match="count among 77") as caught:
            DAS(4, values={"count": [77]}, **QUICK).fit([systems[0]])
        assert caught.value.kind == "no_samples"

    def test_recordings_of_one_name(self):
        arrays = np.zeros((30, 3)), {"count": np.arange(30) % 3}
        both = [Recording.from_arrays(*arrays, name="x", trial=np.arange(30)) for _ in range(2)]
        assert side_names(both) == ["x", "x"]
        with pytest.raises(InvalidInput) as caught:
            make_sides(both)
        assert caught.value.kind == "duplicate_name"
