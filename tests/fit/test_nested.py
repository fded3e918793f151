"""Nested fits: pairs take turns in rank, so that the first components are an alignment of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from neuromas.align.alignment import Alignment, lay_out
from neuromas.align.interchange import LinearMap, interchange
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.evaluation.ranks import ByRank, learned_rank
from neuromas.fit.fitters import DAS, MAS, LatentStitch
from neuromas.fit.loop import step_together
from neuromas.fit.objective import Term, ladder, make_batch, mask_table
from neuromas.fit.plan import State
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.replay import Replay
from neuromas.fit.start import start_maps
from neuromas.schema.fit import FitConfig, default_config
from neuromas.schema.ranks import RankCurve

QUICK = {"n_trials": 200, "n_train_pairs": 600, "n_validation_pairs": 100, "batch_size": 128, "validate_every": 50}


class TestTurns:
    def test_pairs_take_turns_in_every_rank(self, toys):
        (side,) = make_sides([toys.make("net")], model=toys.model, n_trials=60)
        subspaces = lay_out({"full": 6})
        pairs = draw_pair_set(Direction(side, side), "train", 40, subspaces, [0])
        term = Term(pairs.direction, behaviour=True, cl=False)
        batch = make_batch(term, pairs, np.arange(40), subspaces, None, nested=True)
        assert batch.mask.sum(dim=1).tolist() == [1, 2, 4, 6] * 10
        # the first components, without a gap
        assert (batch.mask.diff(dim=1) <= 0).all()

    def test_subspaces_have_their_own_first_components(self):
        masks = mask_table(lay_out({"phase": 2, "count": 4}), nested=True)
        assert masks.shape == (2, 3, 6)
        assert masks[0].tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
        assert masks[1].tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]

    def test_without_turns_there_is_one_mask_per_subspace_and_none_for_a_single_one(self):
        assert mask_table(lay_out({"full": 4})) is None
        assert mask_table(lay_out({"phase": 1, "count": 1})).tolist() == [[[1, 0]], [[0, 1]]]

    @pytest.mark.parametrize("rank", [1, 2, 3, 16, 100])
    def test_the_ladder_ends_at_the_rank(self, rank):
        rungs = ladder(rank)
        assert (rungs[0], rungs[-1]) == (1, rank)
        assert rungs == sorted(set(rungs))

    def test_iterations_on_the_device_take_the_same_turns(self, toys):
        """The tables from which a GPU replays iterations give the losses of the loop."""
        config = FitConfig(method="das", subspaces={"phase": 2, "count": 4}, nested=True, **QUICK)
        losses = []
        for replayed in (False, True):
            systems = [toys.make("net")]
            sides = fit_sides(config, systems, model=toys.model)
            ready = prepare(config, systems, sides)
            state = State.fresh(start_maps(ready), config.learning_rate)
            if replayed:
                losses.append([values[0] for values in Replay([ready.plan], [state], [None]).run(5)])
            else:
                losses.append([step_together([ready.plan], [state])[0] for _ in range(5)])
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class TestAlignment:
    @pytest.mark.parametrize("replace", [False, True])
    def test_the_first_components_are_a_masked_interchange(self, replace):
        generator = torch.Generator().manual_seed(0)
        maps = {}
        for name in "ab":
            forward = torch.randn(5, 9, generator=generator)
            maps[name] = LinearMap(forward, torch.linalg.pinv(forward), torch.randn(9, generator=generator))
        alignment = Alignment(maps, lay_out({"full": 5}), "linear", replace)
        x, y = torch.randn(2, 4, 9, generator=generator)
        mask = torch.tensor([1.0, 1, 1, 0, 0])
        expected = interchange(x, y, maps["a"], maps["b"], mask, replace=replace)
        made = alignment.at_rank(3).interchange(x, y, target_system="a", source_system="b")
        assert torch.allclose(made, expected, atol=1e-5)

    def test_smaller_subspaces_stay_whole(self):
        forward = torch.eye(6)
        alignment = Alignment({"a": LinearMap(forward, forward, torch.zeros(6))}, lay_out({"phase": 2, "count": 4}))
        smaller = alignment.at_rank(3)
        assert [(each.name, each.start, each.rank) for each in smaller.subspaces] == [("phase", 0, 2), ("count", 2, 3)]
        assert smaller.maps["a"].forward.argmax(dim=1).tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(InvalidInput, match="expected at least 1"):
            alignment.at_rank(0)


@pytest.fixture(scope="module")
def planted(toys):
    """A nested fit of a pair whose state needs all but one of its components."""
    systems = [toys.make("one"), toys.make("two", 13, seed=4, scale=0.7)]
    fitter = MAS(rank=10, nested=True, max_iterations=150, learning_rate=0.05, **QUICK)
    return fitter.fit(systems, model=toys.model)


class TestCurve:
    def test_scores_rise_with_the_rank_to_one(self, planted):
        curve = planted.ranks(n_pairs=200)
        worst = curve.worst()
        assert list(worst) == [1, 2, 4, 8, 10]
        assert worst[10] > 0.97
        assert worst[1] < 0.6 < worst[10]
        assert all(
            later >= earlier - 0.05 for earlier, later in zip(worst.values(), [*worst.values()][1:], strict=False)
        )
        assert curve.learned.rank in (8, 10)
        assert curve.learned.low <= curve.learned.rank <= curve.learned.high

    def test_each_rank_is_scored_as_the_alignment_of_that_rank(self, planted, toys):
        curve = planted.ranks([8], n_pairs=300)
        assert {row.score.n for row in curve.scores} == {300}
        assert curve.ranks == (8,)
        assert len(curve.to_dataframe()) == 4
        assert RankCurve.parse(curve.to_json(), "here") == curve

    def test_ranks_beyond_the_fit_are_refused(self, planted):
        with pytest.raises(InvalidInput, match=r"expected numbers in 1\.\.10"):
            planted.ranks([16])

    def test_a_fit_that_was_not_nested_has_no_curve(self, toys):
        quick = QUICK | {"max_iterations": 0}
        result = DAS(rank=4, **quick).fit([toys.make("net")], model=toys.model)
        with pytest.raises(InvalidInput, match="in no order") as caught:
            result.ranks()
        assert caught.value.kind == "not_nested"


class TestLearnedRank:
    def right(self, shares, n=400, seed=0):
        return np.random.default_rng(seed).random(n) < np.array(shares)[:, None]

    def test_the_knee_is_found(self):
        result = ByRank("a", "b", "full", "iia", self.right([0.4, 0.7, 0.995, 0.997, 1]), np.arange(400))
        learned = learned_rank([result], [1, 2, 4, 8, 16])
        assert learned.rank == 4
        assert learned.low <= 4 <= learned.high

    def test_the_threshold_is_the_exact_interval_of_the_best(self):
        right = np.arange(100) < np.array([[50], [90]])
        learned = learned_rank([ByRank("a", "b", "full", "iia", right, np.arange(100))], [1, 2])
        assert learned.threshold == pytest.approx(stats.binomtest(90, 100).proportion_ci(0.95).low)

    def test_the_worst_direction_decides(self):
        good = ByRank("a", "a", "full", "iia", self.right([1, 1, 1]), np.arange(400))
        bad = ByRank("a", "b", "full", "iia", self.right([0.2, 0.5, 1]), np.arange(400))
        assert learned_rank([good, bad], [1, 2, 4]).rank == 4

    def test_targets_that_run_decide(self):
        ran = ByRank("a", "a", "full", "iia", self.right([0.2, 1]), np.arange(400))
        read = ByRank("a", "b", "full", "retrieval", self.right([0.1, 0.3]), np.arange(400))
        assert learned_rank([ran, read], [1, 2]).threshold > 0.9

    def test_close_ranks_have_a_wide_interval(self):
        result = ByRank("a", "b", "full", "iia", self.right([0.90, 0.93, 0.96], n=150), np.arange(150))
        learned = learned_rank([result], [1, 2, 4])
        assert learned.low < learned.high


class TestOption:
    def test_at_its_default_it_changes_no_identity(self):
        plain = default_config("das").model_dump(exclude={"nested"})
        assert "nested" not in FitConfig(**plain).identity_json()
        assert "nested" in FitConfig(**plain, nested=True).identity_json()

    def test_a_closed_form_has_no_turns(self):
        with pytest.raises(InvalidDocument, match="no iterations in which nested ranks could take turns"):
            LatentStitch(nested=True, solver="closed-form")
