"""IIA where the answer is known: planted systems, planted alignments, analytic chance."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from scipy import stats

from neuromas.align.alignment import Alignment, lay_out
from neuromas.align.interchange import LinearMap
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidInput, NotFound, ReadOnly
from neuromas.evaluation.accuracy import CONTROLS, evaluate, scores_table
from neuromas.evaluation.divergence import nearest_values
from neuromas.evaluation.ruler import behaviour
from neuromas.fit.fitters import CLMAS, DAS, MAS, LatentStitch
from neuromas.recordings.recording import Recording
from neuromas.schema.evaluation import SCORE_COLUMNS
from neuromas.systems.capture import capture

SCHEMA = Path(__file__).parents[2] / "schemas" / "evaluation.schema.json"


@pytest.fixture(scope="module")
def planted(toys):
    """Two systems and a recording whose latents are rotations of one and the same state."""
    net, other = toys.make("net"), toys.make("other", 13, seed=4, scale=0.7)
    live = toys.make("brain", 14, seed=2, scale=1.5)
    brain = capture(live, 150, model=toys.model, seed=5)
    sides = make_sides([net, other, brain], model=toys.model, n_trials=150)
    return sides, {"net": net, "other": other, "brain": live}


def of_columns(systems, columns=slice(None), wrong=None) -> Alignment:
    """The alignment that was planted; with `wrong`, that system's map has its components shifted by one."""
    maps = {}
    for name, system in systems.items():
        u = system.columns[:, columns].roll(1, dims=1) if name == wrong else system.columns[:, columns]
        maps[name] = LinearMap(u.T / system.scale, u * system.scale, torch.zeros(len(u)))
    rank = next(iter(maps.values())).rank
    return Alignment(maps, lay_out({"full": rank}))


@pytest.fixture(scope="module")
def perfect(planted, toys):
    sides, systems = planted
    return evaluate(of_columns(systems), sides, oracles={"brain": systems["brain"]}, n_pairs=400)


def scores_of(evaluation, method):
    return [score for score in evaluation.scores if score.method == method]


def test_the_planted_alignment_is_perfect_in_every_direction(perfect):
    scores = scores_of(perfect, "alignment")
    assert len(scores) == 9
    for score in scores:
        assert (score.iia, score.high) == (1.0, 1.0)
        assert 0.95 < score.low < stats.binomtest(400, 400).proportion_ci().low  # pairs share trials
        assert score.token_accuracy == 1.0
        assert (score.coverage, score.n_missed) == (1.0, 0)
        assert score.retrieval == 1.0
        assert score.cl_loss == pytest.approx(0, abs=1e-6)
        assert sum(value.n_pairs for value in score.by_value) == score.n_pairs == 400
        assert {value.iia for value in score.by_value} == {1.0}


def test_a_wrong_alignment_is_not(planted, toys):
    sides, systems = planted
    found = evaluate(of_columns(systems, wrong="other"), sides, n_pairs=200, controls=())
    for score in found.scores:
        if score.target == "brain":
            continue
        if score.source == score.target or "other" not in (score.source, score.target):
            assert score.iia == 1.0  # the same mistake there and back
        else:
            assert score.iia < 0.3


def test_ceiling_of_exact_systems_is_one(perfect):
    for score in scores_of(perfect, "cl-ceiling"):
        assert score.iia == 1.0
        assert score.cl_loss is None  # it would be compared with itself


def goes_right(own: tuple[int, int], wanted: tuple[int, int], further: int, most: int) -> bool:
    """Whether a system in state `own` answers as one in `wanted` should, told `further` more objects."""
    phase, count = own
    if wanted[0] == 1:
        return own == wanted
    if phase == 0:  # it counts on from where it is; it cannot count beyond `most`
        return min(count + further, most) == wanted[1] + further
    return count == wanted[1] + further  # objects and trigger do not move one that is answering already


def held(side) -> dict[tuple[int, int], float]:
    """Probability of each value: trials uniformly, then an eligible step."""
    candidates = side.candidates["test"]
    weights: Counter = Counter()
    for first, count in zip(candidates.first, candidates.count, strict=True):
        for row in candidates.values[first : first + count].astype(int).tolist():
            weights[tuple(row)] += 1 / count / len(candidates.first)
    return weights


def test_without_interchange_there_is_only_chance(perfect, planted, toys):
    """The analytic chance: over all values of source and target and all numbers of further objects."""
    sides = {side.name: side for side in planted[0]}
    for score in scores_of(perfect, "none"):
        chance = 0.0
        for own, p_own in held(sides[score.target]).items():
            for wanted, p_wanted in held(sides[score.source]).items():
                room = range(toys.most - wanted[1] + 1) if wanted[0] == 0 else [0]
                right = np.mean([goes_right(own, wanted, further, toys.most) for further in room])
                chance += p_own * p_wanted * right
        error = np.sqrt(chance * (1 - chance) / score.n_pairs)
        assert abs(score.iia - chance) < 4.5 * error
        assert score.low < score.iia < score.high
        # wider than of independent pairs, as far as trials that several pairs share are alike
        assert 0.9 < (score.high - score.low) / (2 * 1.96 * error) < 2
        assert -0.2 < score.icc < 0.5


def test_a_random_rotation_of_low_rank_is_near_chance(planted, toys):
    """Two random components of 12 change little, so there is nearly only chance."""
    sides, systems = planted
    found = evaluate(of_columns(systems, slice(2)), sides[:2], n_pairs=400, controls=("none", "random"))
    by = {(score.method, score.source, score.target): score.iia for score in found.scores}
    for source, target in (("net", "other"), ("other", "net")):
        assert by["random", source, target] < by["none", source, target] + 0.1


def test_methods_and_controls_are_scored_on_the_same_pairs(planted, toys):
    sides, systems = planted
    one, other = (
        evaluate(of_columns(systems, columns), sides[:2], n_pairs=150, method=name)
        for columns, name in ((slice(None), "a"), (slice(3), "b"))
    )
    for control in ("none", "cl-ceiling"):
        assert scores_of(one, control) == scores_of(other, control)
    for score in one.scores:
        twin = next(s for s in other.scores if (s.source, s.target) == (score.source, score.target))
        assert [v.n_pairs for v in score.by_value] == [v.n_pairs for v in twin.by_value]


def test_directions_have_pairs_of_their_own(perfect):
    told = {
        (score.source, score.target): tuple((tuple(v.values.values()), v.n_pairs) for v in score.by_value)
        for score in scores_of(perfect, "none")
    }
    assert len(set(told.values())) == 9


class TestReadOnly:
    def test_without_an_oracle_there_is_no_iia(self, planted, toys):
        sides, systems = planted
        found = evaluate(of_columns(systems), sides, n_pairs=100)
        assert found.oracles == ()
        into_brain = [score for score in found.scores if score.target == "brain"]
        assert len(into_brain) == 3 * len(CONTROLS)  # the method, and all but the wrong variable of one subspace
        for score in into_brain:
            assert (score.iia, score.low, score.high, score.token_accuracy) == (None,) * 4
            assert all(value.iia is None for value in score.by_value)
            assert (score.ran, score.oracle) == (False, False)
            assert score.coverage == 1.0
            assert score.retrieval is not None
            assert (score.cl_loss is None) == (score.method == "cl-ceiling")
        assert all(score.iia is not None for score in found.scores if score.target != "brain")

    def test_with_an_oracle_it_is_said(self, perfect):
        assert perfect.oracles == ("brain",)
        for score in perfect.scores:
            assert score.oracle == (score.target == "brain")
            assert score.ran == (score.target != "brain")

    def test_the_oracle_touches_no_side(self, perfect, planted):
        assert planted[0][2].system is None

    def test_recordings_alone_need_no_causal_model(self, planted, toys):
        values = planted[0][2].recording
        one = capture(planted[1]["net"], 80, model=toys.model, name="one")
        sides = make_sides([one, values])
        assert all(side.model is None for side in sides)
        systems = {"one": planted[1]["net"], "brain": planted[1]["brain"]}
        found = evaluate(of_columns(systems), sides, n_pairs=100)
        for score in scores_of(found, "alignment"):
            assert score.iia is None
            assert score.retrieval == 1.0

    def test_running_it_is_an_error(self, planted, toys):
        sides, _ = planted
        pairs = draw_pair_set(Direction(sides[0], sides[2]), "test", 5, lay_out({"full": 2}), [0])
        with pytest.raises(ReadOnly):
            behaviour(sides[2].take(pairs.target), pairs, sides[2])


def test_misses_are_counted_and_in_no_distance(planted, toys):
    """The brain was never recorded at four objects: pairs that ask for it are misses, named by value."""
    brain = planted[0][2].recording
    values = brain.values(["phase", "count"])
    keep = ~((values[:, 0] == 0) & (values[:, 1] == 2))
    holed = Recording.from_arrays(
        brain.latents()[keep],
        {"phase": values[keep, 0].astype(int), "count": values[keep, 1].astype(int)},
        name="brain",
        trial=brain.trial[keep],
        step=brain.step[keep],
        token=brain.dataset["token"].values[keep],
        vocabulary=toys.Toy.vocabulary,
        eligible=brain.eligible[keep],
        variable_specs=toys.Toy.variables,
    )
    sides = make_sides([planted[1]["net"], holed], model=toys.model, n_trials=100)
    systems = {name: planted[1][name] for name in ("net", "brain")}
    found = evaluate(of_columns(systems), sides, oracles={"brain": systems["brain"]}, n_pairs=300)
    for score in found.scores:
        missing = {tuple(v.values.values()): v.n_missed for v in score.by_value if v.n_missed}
        if (score.source, score.target) == ("net", "brain"):
            assert set(missing) == {("demo", "2")}
            assert 0 < score.n_missed == missing["demo", "2"]
            assert score.coverage == pytest.approx(1 - score.n_missed / 300)
        else:
            assert score.n_missed == 0
    (method,) = [s for s in scores_of(found, "alignment") if (s.source, s.target) == ("net", "brain")]
    (ceiling,) = [s for s in scores_of(found, "cl-ceiling") if (s.source, s.target) == ("net", "brain")]
    assert method.iia == 1.0  # behaviour needs no recorded latent
    assert method.cl_loss == pytest.approx(0, abs=1e-6)
    assert ceiling.iia == pytest.approx(1 - method.n_missed / 300)  # a miss has nothing to put in place


class TestFitted:
    """Fits of planted systems end at IIA 1, also in the direction that the fit could not run."""

    SMALL: dict = {"n_trials": 100, "batch_size": 64, "n_train_pairs": 640, "n_validation_pairs": 100}  # noqa: RUF012

    def scored(self, toys, fitter, systems, oracles=None):
        result = fitter.fit(systems, model=toys.model)
        found = evaluate(result.alignment, result.sides, oracles=oracles, n_pairs=300, controls=())
        return {(score.source, score.target): score.iia for score in found.scores}

    @pytest.mark.parametrize("kind", ["orthogonal", "linear"])
    def test_closed_form(self, planted, toys, kind):
        sides, systems = planted
        fitter = CLMAS(toys.n_ever, map=kind, init="closed-form", max_iterations=0, **self.SMALL)
        found = self.scored(toys, fitter, [systems["net"], sides[2].recording], {"brain": systems["brain"]})
        assert set(found.values()) == {1.0}

    def test_clmas_from_a_random_start(self, planted, toys):
        sides, systems = planted
        fitter = CLMAS(
            toys.n_ever, learning_rate=0.03, max_iterations=400, validate_every=100, patience=20, **self.SMALL
        )
        found = self.scored(toys, fitter, [systems["net"], sides[2].recording], {"brain": systems["brain"]})
        assert len(found) == 4
        assert min(found.values()) > 0.99

    def test_mas(self, planted, toys):
        systems = planted[1]
        fitter = MAS(toys.n_ever, learning_rate=0.03, max_iterations=300, validate_every=100, **self.SMALL)
        found = self.scored(toys, fitter, [systems["net"], systems["other"]])
        assert min(found.values()) > 0.99

    def test_das(self, planted, toys):
        fitter = DAS(toys.n_ever, learning_rate=0.03, max_iterations=300, validate_every=100, **self.SMALL)
        assert self.scored(toys, fitter, [planted[1]["net"]]) == {("net", "net"): 1.0}

    def test_latent_stitch(self, planted, toys):
        sides, systems = planted
        fitter = LatentStitch(solver="closed-form", **self.SMALL)
        net = toys.make("net", scale=1.5)  # an orthogonal matrix does not scale
        found = self.scored(toys, fitter, [net, sides[2].recording], {"brain": systems["brain"]})
        assert found["net", "brain"] == 1.0


def test_table(perfect, tmp_path):
    rows = list(csv.DictReader(io.StringIO(scores_table(perfect.scores))))
    assert len(rows) == len(perfect.scores) == 36
    assert tuple(rows[0]) == SCORE_COLUMNS
    wanted = {"method", "source", "target", "ran", "iia", "low", "high", "n_pairs"}
    assert wanted <= set(SCORE_COLUMNS)
    for row, score in zip(rows, perfect.scores, strict=True):
        assert (row["method"], float(row["iia"]), row["ran"]) == (score.method, score.iia, str(score.ran))


def test_document_follows_its_schema(perfect):
    jsonschema.validate(json.loads(perfect.to_json()), json.loads(SCHEMA.read_text()))


def test_nearest_values_is_the_nearest_row():
    rng = np.random.default_rng(0)
    latents, means = rng.normal(size=(20, 5)), rng.normal(size=(7, 5))
    expected = [min(range(7), key=lambda i: np.linalg.norm(row - means[i])) for row in latents]
    assert nearest_values(torch.from_numpy(latents), torch.from_numpy(means)).tolist() == expected


class TestBadInput:
    def refused(self, planted, toys, error, **options):
        sides, systems = planted
        with pytest.raises(error) as caught:
            evaluate(of_columns(systems), sides, n_pairs=10, **options)
        return caught.value

    def test_an_oracle_for_nobody(self, planted, toys):
        error = self.refused(planted, toys, NotFound, oracles={"cat": planted[1]["net"]})
        assert "net, other, brain" in str(error)

    def test_an_oracle_for_what_can_be_run(self, planted, toys):
        error = self.refused(planted, toys, InvalidInput, oracles={"net": planted[1]["net"]})
        assert error.kind == "needless_oracle"

    def test_an_oracle_of_another_width(self, planted, toys):
        error = self.refused(planted, toys, InvalidInput, oracles={"brain": planted[1]["net"]})
        assert error.kind == "unit_mismatch"

    def test_a_direction_of_nobody(self, planted, toys):
        self.refused(planted, toys, NotFound, directions=[("net", "cat")])

    def test_sides_that_the_alignment_does_not_join(self, planted, toys):
        sides, systems = planted
        with pytest.raises(NotFound, match="net, other"):
            evaluate(of_columns({k: systems[k] for k in ("net", "other")}), sides[2:], n_pairs=10)

    def test_an_unknown_control(self, planted, toys):
        assert self.refused(planted, toys, NotFound, controls=("nothing",)).kind == "unknown_control"

    def test_behaviour_without_a_causal_model(self, planted, toys):
        sides, systems = planted
        with pytest.raises(InvalidInput) as caught:
            evaluate(of_columns(systems), [replace(side, model=None) for side in sides], n_pairs=10)
        assert caught.value.kind == "no_model"
