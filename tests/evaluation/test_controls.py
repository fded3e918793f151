"""What stands beside an IIA: diagnostics of divergence, the wrong variable, rows by subspace, source by target value."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment, lay_out
from neuromas.align.interchange import LinearMap
from neuromas.align.prepare import make_sides
from neuromas.evaluation.accuracy import CONTROLS, evaluate
from neuromas.recordings.recording import Recording
from neuromas.schema.evaluation import Evaluation

N_UNITS, N_VALUES = 9, 4


def turn(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(N_UNITS, N_UNITS)))
    return q


def noisy(name, seed, holes=False):
    """Latents of one distribution per value, in coordinates of its own: rotated by `turn(seed)`."""
    rng = np.random.default_rng(seed)
    n_trials, n_steps = 2000, 5
    count = rng.integers(N_VALUES, size=n_trials * n_steps)
    latents = 3 * np.eye(N_UNITS)[count] + rng.normal(size=(len(count), N_UNITS)) * np.geomspace(1, 0.01, N_UNITS)
    latents = (latents @ turn(seed).T).astype(np.float32)
    if holes:
        latents[rng.random(len(latents)) < 0.2, 4] = np.nan
    trial = np.repeat(np.arange(n_trials), n_steps)
    return Recording.from_arrays(latents, {"count": count}, name=name, trial=trial, missing=holes)


def undone(seeds):
    """The alignment that undoes the rotations; full width, so that an interchange gives a natural latent."""
    turns = {name: torch.from_numpy(turn(seed)).float() for name, seed in seeds.items()}
    maps = {name: LinearMap(q.T, q, torch.zeros(N_UNITS)) for name, q in turns.items()}
    return Alignment(maps, lay_out({"count": N_UNITS}))


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "units missing"])
def found(request):
    sides = make_sides([noisy("a", 1), noisy("b", 2, holes=request.param)])
    scores = evaluate(undone({"a": 1, "b": 2}), sides, directions=[("a", "b")], n_pairs=1000).scores
    return {score.method: score for score in scores}


class TestDivergence:
    def test_a_perfect_interchange_is_natural_also_where_nothing_runs(self, found):
        score = found["alignment"]
        assert score.iia is None
        assert score.l2_ratio == pytest.approx(1, abs=0.03)
        assert score.cosine_ratio == pytest.approx(1, abs=0.12)
        assert score.mahalanobis_ratio == pytest.approx(1, abs=0.05)
        assert score.outside == pytest.approx(0.01, abs=0.012)
        assert score.wasserstein < 2.2 * score.wasserstein_natural

    def test_without_interchange_latents_are_natural_but_hold_other_values(self, found):
        score = found["none"]
        assert score.outside == pytest.approx(0.01, abs=0.012)
        assert score.mahalanobis_ratio == pytest.approx(1, abs=0.05)
        assert score.l2_ratio > 1.5

    def test_the_ceiling_is_the_yardstick(self, found):
        score = found["cl-ceiling"]
        assert (score.l2_ratio, score.cosine_ratio, score.mahalanobis_ratio) == (1, 1, 1)
        assert score.wasserstein == score.wasserstein_natural
        assert score.outside == score.outside_natural == pytest.approx(0.01, abs=0.012)

    def test_a_random_rotation_leaves_the_natural_latents(self, found):
        score = found["random"]
        assert score.outside > 0.9
        assert score.mahalanobis_ratio > 10
        assert score.wasserstein > 3 * score.wasserstein_natural


def test_equal_latents_of_equal_values_are_no_yardstick(toys):
    """Planted systems have one latent per value: ratios of distances are null, and what leaves the span is outside."""
    net = toys.make("net")
    sides = make_sides([net], model=toys.model, n_trials=150)
    maps = {"net": LinearMap(net.columns.T, net.columns, torch.zeros(12))}
    for score in evaluate(Alignment(maps, lay_out({"full": toys.n_states})), sides, n_pairs=200).scores:
        assert (score.l2_ratio, score.cosine_ratio) == (None, None)
        if score.method == "random":
            assert score.outside > 0.5
        else:
            assert score.outside <= 0.02
        if score.method == "alignment":
            assert score.outside == score.outside_natural


@pytest.fixture(scope="module")
def factored(toys):
    """Two systems whose latent keeps phase and count apart, and the alignment of the two variables that was planted."""
    n_counts = toys.most + 1
    width = 2 + n_counts

    class Factored(toys.Exact):
        def latents(self, tokens):
            state = super().latents(tokens) @ self.columns / self.scale
            state = state.reshape(*state.shape[:-1], 2, n_counts)
            parts = torch.cat([state.sum(dim=-1), state.sum(dim=-2)], dim=-1)
            return self.scale * parts @ self.columns[:, :width].T

        def resume(self, latents, continuation, context=None):
            parts = latents @ self.columns[:, :width]
            number = parts[:, :2].argmax(dim=1) * n_counts + parts[:, 2:].argmax(dim=1)
            return super().resume(self.scale * torch.eye(toys.n_states)[number] @ self.columns.T, continuation)

    systems = [toys.make("one", kind=Factored), toys.make("two", 13, seed=4, scale=0.7, kind=Factored)]
    maps = {}
    for system in systems:
        u = system.columns[:, :width]
        maps[system.name] = LinearMap(u.T / system.scale, u * system.scale, torch.zeros(len(u)))
    sides = make_sides(systems, model=toys.model, n_trials=200)
    return evaluate(Alignment(maps, lay_out({"phase": 2, "count": n_counts})), sides, n_pairs=400)


class TestSubspaces:
    def test_every_method_has_a_row_for_all_and_one_for_each(self, factored):
        rows = [(score.method, score.subspace) for score in factored.scores]
        assert len(rows) == 4 * 5 * 3
        assert set(rows) == {(m, s) for m in (*CONTROLS, "alignment") for s in ("", "phase", "count")}

    def test_rows_of_subspaces_make_up_the_row_of_all(self, factored):
        of = {(s.method, s.source, s.target, s.subspace): s for s in factored.scores}
        for (method, source, target, subspace), whole in of.items():
            if subspace:
                continue
            parts = [of[method, source, target, name] for name in ("phase", "count")]
            assert [one.n_pairs for one in parts] == [200, 200]
            for field in ("iia", "retrieval", "outside", "coverage"):
                mean = np.mean([getattr(one, field) for one in parts])
                assert getattr(whole, field) == pytest.approx(mean)
            pairs = sum(value.n_pairs for one in parts for value in one.by_value)
            assert pairs == sum(value.n_pairs for value in whole.by_value) == 400

    def test_the_planted_variables_are_found(self, factored):
        assert {score.iia for score in factored.scores if score.method == "alignment"} == {1.0}

    def test_the_wrong_variable_does_not_do(self, factored):
        by = {(s.method, s.source, s.target, s.subspace): s for s in factored.scores}
        for (method, *direction, subspace), score in by.items():
            if method == "wrong-variable":
                assert score.iia < 0.6
                assert score.retrieval < 0.6
                if subspace == "phase":  # putting the source's count in harms where leaving the target alone may do
                    assert score.iia < by["none", *direction, subspace].iia


def test_one_subspace_has_no_wrong_variable(toys):
    net = toys.make("net")
    sides = make_sides([net], model=toys.model, n_trials=60)
    maps = {"net": LinearMap(net.columns.T, net.columns, torch.zeros(12))}
    found = evaluate(Alignment(maps, lay_out({"full": toys.n_states})), sides, n_pairs=50)
    assert [score.method for score in found.scores] == ["none", "random", "cl-ceiling", "alignment"]
    assert {score.subspace for score in found.scores} == {""}


class TestSourceByTarget:
    def test_cells_make_up_the_iia(self, factored):
        for score in factored.scores:
            if score.method not in ("alignment", "none"):
                assert score.by_source_target == ()
                continue
            cells = score.by_source_target
            assert sum(cell.n_pairs for cell in cells) == score.n_pairs
            assert sum(cell.n_pairs * cell.iia for cell in cells) == pytest.approx(score.iia * score.n_pairs)
            told = [(*cell.source.items(), *cell.target.items()) for cell in cells]
            assert len(set(told)) == len(told)
            assert all(set(cell.source) == {"phase", "count"} == set(cell.target) for cell in cells)

    def test_a_system_that_ignores_the_interchange_is_right_where_it_changes_nothing(self, toys):
        """No component is exchanged: a pair is right where source and target hold equal values, as the cells say."""
        net = toys.make("net")
        sides = make_sides([net], model=toys.model, n_trials=200)
        idle = {"net": LinearMap(torch.zeros(1, 12), torch.zeros(12, 1), torch.zeros(12))}
        (score,) = evaluate(Alignment(idle, lay_out({"full": 1})), sides, n_pairs=600, controls=()).scores
        equal = [cell for cell in score.by_source_target if cell.source == cell.target]
        assert equal
        assert {cell.iia for cell in equal} == {1.0}
        responding = [cell for cell in score.by_source_target if cell.source["phase"] == "response"]
        assert {cell.iia for cell in responding if cell.source != cell.target} == {0.0}

    def test_where_nothing_runs_there_are_none(self):
        sides = make_sides([noisy("a", 1), noisy("b", 2)])
        found = evaluate(undone({"a": 1, "b": 2}), sides, n_pairs=40)
        assert all(score.by_source_target == () for score in found.scores)


def test_earlier_documents_without_the_diagnostics_open(factored):
    document = json.loads(factored.to_json())
    # earlier versions wrote no checksum
    del document["sha256"]
    new = ("subspace", "l2_ratio", "cosine_ratio", "wasserstein", "wasserstein_natural", "outside", "outside_natural")
    for score in document["scores"]:
        for field in (*new, "mahalanobis_ratio", "by_source_target"):
            del score[field]
    assert Evaluation.parse(document, "here").scores[0].outside is None
