"""Sides: what a comparison sees of a system, and the pairs drawn between two."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from neuromas.align.alignment import lay_out
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.align.side import PARTS
from neuromas.causal.model import get_task
from neuromas.errors import InvalidDocument, InvalidInput, NotFound, ReadOnly
from neuromas.fit.fitters import MAS
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitConfig
from neuromas.systems.capture import capture
from neuromas.systems.system import Packed
from neuromas.systems.training import load_system


@pytest.fixture(scope="module")
def brain(toys):
    return capture(toys.make("brain", 14, seed=2), 80, model=toys.model, seed=5)


@pytest.fixture(scope="module")
def sides(toys, brain):
    return make_sides([toys.make("net"), brain], model=toys.model, n_trials=70)


def test_a_recording_holds_nothing_that_runs(sides):
    net, read = sides
    assert (net.access, read.access) == ("intervene", "read")
    assert read.system is None
    packed = Packed.from_sequences(np.array([[4, 5]]), np.array([2]), np.ones((1, 2), bool))
    with pytest.raises(ReadOnly, match="'brain'") as caught:
        read.resume(read.latents[:1], packed, np.array([0]))
    assert caught.value.kind == "read_only"


def test_access_is_what_was_handed_in_not_what_the_manifest_says(toys):
    said = capture(toys.make("x"), 40, model=toys.model, access="intervene")
    assert make_sides([said], model=toys.model)[0].access == "read"


def test_parts_share_no_trial(sides):
    for side in sides:
        trials = [set(side.recording.trial[side.candidates[part].samples]) for part in PARTS]
        assert sum(map(len, trials)) == len(set.union(*trials))
        for part, mine in zip(PARTS, trials, strict=True):
            assert set(side.recording.trial[side.indexes[part].samples.numpy()]) == mine


def test_candidates_are_eligible(toys, sides):
    for side in sides:
        for part in PARTS:
            tokens = side.recording.dataset["token"].values[side.candidates[part].samples]
            assert set(tokens.tolist()) <= {1, 2, 4}
        assert side.n_samples == int(side.recording.eligible.sum())


@pytest.mark.parametrize("part", PARTS)
def test_pairs_come_from_their_part(toys, sides, part):
    direction = Direction(*sides)
    pairs = draw_pair_set(direction, part, 300, lay_out({"full": 4}), [1])
    assert set(pairs.source) <= set(sides[0].candidates[part].samples)
    assert set(pairs.target) <= set(sides[1].candidates[part].samples)
    np.testing.assert_array_equal(pairs.values, sides[0].recording.values(["phase", "count"])[pairs.source])


def test_pairs_of_several_subspaces(toys, sides):
    pairs = draw_pair_set(Direction(*sides), "train", 301, lay_out({"phase": 2, "count": 2}), [1])
    of_source = sides[0].recording.values(["phase", "count"])[pairs.source]
    of_target = sides[1].recording.values(["phase", "count"])[pairs.target]
    for number, column in ((0, 0), (1, 1)):
        rows = pairs.subspace == number
        expected = of_target[rows].copy()
        expected[:, column] = of_source[rows, column]
        np.testing.assert_array_equal(pairs.values[rows], expected)
    assert abs(int((pairs.subspace == 0).sum()) - 150) <= 1
    # spread, not one after another; and each continuation still belongs to its pair
    assert 20 < (pairs.subspace[:100] == 0).sum() < 80
    first = pairs.continuation.tokens[:, 0]
    answering = pairs.values[:, 0] == 1
    assert (first[answering] == np.where(pairs.values[answering, 1] > 0, 4, 5)).all()
    assert np.isin(first[~answering], [1, 2, 3]).all()


def test_other_names_and_values_can_be_mapped(toys, brain):
    """The same recording under other names and codes gives, mapped back, the same side."""
    values = brain.values(["phase", "count"])
    foreign = Recording.from_arrays(
        brain.latents(),
        {"epoch": np.where(values[:, 0] == 0, "stimulus on", "answering"), "n_left": values[:, 1].astype(int)},
        name="brain",
        trial=brain.trial,
        step=brain.step,
        eligible=brain.eligible,
    )
    mapping = {
        "brain": {
            "phase": {"name": "epoch", "values": {"demo": "stimulus on", "response": "answering"}},
            "count": "n_left",
        }
    }
    mapped = make_sides([toys.make("net"), foreign], model=toys.model, mapping=mapping, n_trials=70)[1]
    plain = make_sides([toys.make("net"), brain], model=toys.model, n_trials=70)[1]
    for part in PARTS:
        np.testing.assert_array_equal(mapped.candidates[part].samples, plain.candidates[part].samples)
        np.testing.assert_array_equal(mapped.candidates[part].values, plain.candidates[part].values)
        assert torch.equal(mapped.indexes[part].combinations, plain.indexes[part].combinations)


def test_incomplete_samples_are_left_out(toys, brain):
    activity = brain.latents()
    trial = brain.trial
    activity[trial % 4 == 0, 3] = np.nan
    values = brain.values(["phase", "count"])
    holed = Recording.from_arrays(
        activity,
        {"phase": values[:, 0].astype(int), "count": values[:, 1].astype(int)},
        name="brain",
        trial=trial,
        step=brain.step,
        eligible=brain.eligible,
        missing=True,
    )
    net = toys.make("net")
    mapping = {"brain": {"phase": {"values": {"demo": 0, "response": 1}}}}
    every = make_sides([net, holed], model=toys.model, mapping=mapping, n_trials=70)[1]
    some = [name for name in holed.unit_names if name != "u3"]
    fewer = make_sides([net, holed], model=toys.model, mapping=mapping, n_trials=70, units={"brain": some})[1]
    usable = brain.eligible & (trial % 4 != 0)
    assert every.n_samples == int(usable.sum())
    assert sum(index.n_incomplete for index in every.indexes.values()) == int((brain.eligible & ~usable).sum())
    assert fewer.n_samples == int(brain.eligible.sum())
    assert (fewer.n_units, every.n_units) == (13, 14)
    for part in PARTS:
        assert torch.isfinite(every.take(every.candidates[part].samples)).all()
        assert torch.isfinite(every.indexes[part].latents).all()


def test_tasks_take_options():
    """Trials, pairs and what follows them hold no quantity that is held out, of systems and of recordings alike."""
    options = {"multi-object": {"hold_out": list(range(6, 21))}}
    read = capture(load_system("multi-object/gru-1"), 120, model=get_task("multi-object", **options["multi-object"]))
    sides = make_sides([load_system("multi-object/gru-0"), read], task_options=options, n_trials=120)
    for side in sides:
        assert side.model.quantities.tolist() == [1, 2, 3, 4, 5]
    assert sides[0].recording.values(["count"]).max() == 5
    for source, target in itertools.product(sides, sides):
        pairs = draw_pair_set(Direction(source, target), "train", 200, lay_out({"full": 4}), [0])
        assert pairs.values[:, 1].max() == 5
        assert pairs.continuation.values[..., 1].max() == 5
    assert make_sides([load_system("multi-object/gru-0")], n_trials=120)[0].recording.values(["count"]).max() > 5


@pytest.mark.parametrize("held_out", [range(6, 9), (6, 7, 8), np.arange(6, 9), [6, 7, 8]])
def test_options_of_a_task_are_written_down_as_plain_numbers(held_out):
    config = MAS(task_options={"multi-object": {"hold_out": held_out, "void": 0.0}}).config
    assert config.task_options == {"multi-object": {"hold_out": [6, 7, 8], "void": 0.0}}
    assert FitConfig.parse(config.to_json(), "again") == config


def test_options_of_a_task_that_cannot_be_written_down():
    with pytest.raises(InvalidDocument, match="task_options"):
        MAS(task_options={"multi-object": {"hold_out": object()}})


class TestBadInput:
    def test_options_of_a_task_that_nobody_does(self):
        with pytest.raises(InvalidInput, match=r"task_options for 'modulo', but the tasks are multi-object$"):
            make_sides([load_system("multi-object/gru-0")], task_options={"modulo": {"hold_out": [4]}})

    def test_options_that_a_task_does_not_have(self):
        with pytest.raises(InvalidInput, match=r"'multi-object' has no option 'holdout'; it has void, hold_out"):
            make_sides([load_system("multi-object/gru-0")], task_options={"multi-object": {"holdout": [4]}})

    def test_options_beside_a_model(self, toys):
        with pytest.raises(InvalidInput, match="on the model itself"):
            make_sides([toys.make("net")], model=toys.model, task_options={"toy": {}})

    def test_two_of_one_name(self, toys):
        with pytest.raises(InvalidInput, match="'toy/net'") as caught:
            make_sides([toys.make("net"), toys.make("net", seed=1)], model=toys.model)
        assert caught.value.kind == "duplicate_name"

    @pytest.mark.parametrize("what", ["mapping", "units"])
    def test_words_about_nobody(self, toys, what):
        with pytest.raises(InvalidInput, match="'nobody'"):
            make_sides([toys.make("net")], model=toys.model, **{what: {"nobody": {}}})

    def test_a_variable_that_one_recording_lacks(self, toys, brain):
        poor = Recording.from_arrays(
            brain.latents(), {"count": brain.values(["count"])[:, 0].astype(int)}, name="poor", trial=brain.trial
        )
        with pytest.raises(NotFound, match=r"'poor'.*'phase'.*count.*mapping") as caught:
            make_sides([toys.make("net"), poor], model=toys.model, n_trials=50)
        assert caught.value.kind == "unknown_variable"

    def test_recordings_that_share_no_variable(self):
        one = Recording.from_arrays(np.zeros((10, 2)), {"a": np.arange(10)}, name="one")
        other = Recording.from_arrays(np.zeros((10, 2)), {"b": np.arange(10)}, name="other")
        with pytest.raises(NotFound, match="share no variable") as caught:
            make_sides([one, other])
        assert caught.value.kind == "no_shared_variable"

    def test_an_unknown_unit(self, toys, brain):
        with pytest.raises(NotFound, match="u99"):
            make_sides([toys.make("net"), brain], model=toys.model, n_trials=50, units={"brain": ["u1", "u99"]})

    def test_an_unknown_value_in_a_mapping(self, toys, brain):
        mapping = {"brain": {"phase": {"values": {"demo": "showing"}}}}
        with pytest.raises(NotFound, match="'showing'"):
            make_sides([toys.make("net"), brain], model=toys.model, n_trials=50, mapping=mapping)

    def test_too_few_trials_for_three_parts(self, toys):
        with pytest.raises(InvalidInput, match="too few") as caught:
            make_sides([toys.make("net")], model=toys.model, n_trials=2)
        assert caught.value.kind == "too_few_trials"

    def test_an_oracle_of_another_width(self, toys, sides):
        with pytest.raises(InvalidInput, match=r"12 units.*14") as caught:
            sides[1].with_system(toys.make("net"))
        assert caught.value.kind == "unit_mismatch"

    def test_nothing_at_all(self):
        with pytest.raises(InvalidInput):
            make_sides([])

    def test_what_is_neither_system_nor_recording(self):
        with pytest.raises(InvalidInput, match="multi-object/gru-0"):
            make_sides(["multi-object/gru-0"])

    @pytest.mark.parametrize("device", ["banana", "meta:x", "cuda:99"])
    def test_a_device_that_is_not_there(self, toys, device):
        with pytest.raises(InvalidInput, match=device) as caught:
            make_sides([toys.make("net")], model=toys.model, device=device)
        assert caught.value.kind == "invalid_device"

    def test_an_oracle_that_needs_tokens_that_were_not_recorded(self, toys):
        oracle = toys.make("mind", 14, kind=toys.Remembering)
        seen = capture(oracle, 40, model=toys.model)
        values = seen.values(["phase", "count"]).astype(int)
        bare = Recording.from_arrays(
            seen.latents(), {"phase": values[:, 0], "count": values[:, 1]}, name="mind", trial=seen.trial
        )
        (side,) = make_sides([bare])
        with pytest.raises(InvalidInput) as caught:
            side.with_system(oracle)
        assert caught.value.kind == "no_tokens"
        (whole,) = make_sides([seen])
        assert whole.with_system(oracle).context is not None
