"""Latents that are left on disk: the index of a grouped recording against the same recording held in memory."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from scipy import stats

from neuromas.errors import Corrupt, InvalidInput, NoMatch
from neuromas.index.choose import Windows
from neuromas.index.index import CLIndex, FewMatchesWarning
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import split_by_trial
from neuromas.recordings.store.store import RecordingStore

NAMES = ["phase", "count"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RecordingStore:
    rng = np.random.default_rng(0)
    shape = (150, 8)
    activity = rng.normal(size=(*shape, 3)).astype(np.float32)
    activity[..., 0] = np.arange(activity[..., 0].size).reshape(shape)
    recording = Recording.from_arrays(
        activity,
        {"phase": rng.choice(["demo", "resp"], shape, p=[0.8, 0.2]), "count": rng.integers(0, 4, shape)},
        name="x",
        eligible=rng.random(shape) < 0.9,
        activity_units="Hz",
    )
    made = RecordingStore(tmp_path_factory.mktemp("store"))
    made.register(recording, set="grouped", group_by=NAMES)
    made.register(recording, set="plain")
    return made


@pytest.fixture
def in_pieces(monkeypatch):
    """Nothing is read as a whole."""
    monkeypatch.setattr(Recording, "blocks", lambda _: pytest.fail("all of the recording was read"))


def split_of(recording: Recording):
    return split_by_trial(recording, {"train": 0.3, "test": 0.7}, seed=1)["train"]


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("variables", [NAMES, ["count", "phase"], ["count"], ["phase"]])
@pytest.mark.parametrize("split", [False, True])
def test_it_finds_what_the_index_in_memory_finds(store, variables, split):
    lazy, loaded = store.get("grouped/x", load=False), store.get("grouped/x")
    parts = (split_of(lazy), split_of(loaded)) if split else (None, None)
    index, known = CLIndex(lazy, variables, split=parts[0]), CLIndex(loaded, variables, split=parts[1])
    assert isinstance(index._choose, Windows)
    assert not isinstance(known._choose, Windows)
    for name in ("n_samples", "n_ineligible", "n_incomplete", "n_outside_split", "n_values"):
        assert getattr(index, name) == getattr(known, name), name
    assert index.values().equals(known.values())
    asked = torch.cartesian_prod(*(torch.arange(-1.0, 6) for _ in variables)).reshape(-1, len(variables))
    for one, other in zip(index.lookup(asked), known.lookup(asked), strict=True):
        assert torch.equal(one, other)
    assert index.coverage(asked) == known.coverage(asked)
    torch.testing.assert_close(index.means().latents, known.means().latents)
    query = {variables[0]: "demo" if variables[0] == "phase" else 2}
    np.testing.assert_array_equal(index.query(query)["sample"], known.query(query)["sample"])
    assert index.query(query).identical(known.query(query))


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("split", [False, True])
def test_sampled_latents_hold_the_values_and_belong_to_the_split(store, split):
    recording = store.get("grouped/x", load=False)
    part = split_of(recording) if split else None
    index = CLIndex(recording, NAMES, split=part)
    asked = torch.from_numpy(np.random.default_rng(0).integers(-1, 6, (400, 2)).astype(float))
    draw = index.sample(asked, torch.Generator().manual_seed(0))
    again = index.sample(asked, torch.Generator().manual_seed(0))
    assert torch.equal(again.samples, draw.samples)
    _, count = index.lookup(asked)
    assert torch.equal(draw.hit, count > 0)
    assert 0 < int(draw.hit.sum()) < 400
    samples = draw.samples[draw.hit].numpy()
    np.testing.assert_array_equal(recording.values(NAMES)[samples], asked[draw.hit])
    assert recording.eligible[samples].all()
    assert part is None or part.samples[samples].all()
    np.testing.assert_array_equal(draw.latents[draw.hit], store.get("grouped/x").activity.values[samples])
    assert draw.latents[~draw.hit].isnan().all()
    assert (draw.samples[~draw.hit] == -1).all()


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("variables", [NAMES, ["phase"]])
def test_draws_are_uniform_over_seeds_and_differ_within_a_batch(store, variables):
    recording = store.get("grouped/x", load=False)
    index = CLIndex(recording, variables, split=split_of(recording))
    values = torch.tensor([[0.0, 2.0][: len(variables)]]).repeat(5, 1)
    _, count = index.lookup(values)
    drawn, asked = np.zeros(recording.n_samples), np.zeros(recording.n_samples)
    for seed in range(400):
        samples = index.sample(values, torch.Generator().manual_seed(seed)).samples.numpy()
        drawn[samples] += 1
        if len(variables) == 2:
            assert np.unique(samples).size == 5
        names = dict(zip(variables, ["demo", 2], strict=False))
        asked[index.query(names, n=5, seed=seed)["sample"].values] += 1
    for seen in (drawn, asked):
        assert (seen > 0).sum() == count[0]
        # five neighbours at once are not five independent draws: the statistic is up to five times as large
        assert stats.chisquare(seen[seen > 0]).statistic / 5 < stats.chi2(int(count[0]) - 1).isf(1e-3)


def test_misses_and_too_few_are_told_as_ever(store):
    index = CLIndex(store.get("grouped/x", load=False), NAMES)
    with pytest.raises(NoMatch, match="nearest recorded: phase=demo count=3"):
        index.query({"phase": "demo", "count": 9})
    with pytest.warns(FewMatchesWarning, match="of the 5000 requested samples"):
        found = index.query({"phase": "resp", "count": 1}, n=5000)
    assert len(found) == index.values().query("phase == 'resp' and count == 1")["n_samples"].item()


def test_latents_of_an_index_on_disk_are_not_to_be_had_as_one(store):
    index = CLIndex(store.get("grouped/x", load=False), NAMES)
    with pytest.raises(InvalidInput, match="left on disk"):
        _ = index.latents
    recording = store.get("grouped/x", load=False)
    empty = split_of(recording)
    empty.samples[:] = False
    object.__setattr__(empty, "trials", empty.trials[:0])
    with pytest.raises(InvalidInput, match="outside the split"):
        CLIndex(recording, NAMES, split=empty)


def test_a_recording_that_is_not_grouped_is_held_unless_told_otherwise(store):
    held = CLIndex(store.get("plain/x", load=False), NAMES)
    assert held.latents.shape == (held.n_samples, 3)
    left = CLIndex(store.get("plain/x", load=False), NAMES, hold=False)
    asked = torch.from_numpy(np.random.default_rng(0).integers(-1, 6, (300, 2)).astype(float))
    one, other = (index.sample(asked, torch.Generator().manual_seed(5)) for index in (held, left))
    for mine, known in zip(one, other, strict=True):
        torch.testing.assert_close(mine, known, equal_nan=True)
    assert held.query({"count": 2}, n=7, seed=3).identical(left.query({"count": 2}, n=7, seed=3))
    torch.testing.assert_close(held.means().latents, left.means().latents)
    with pytest.raises(InvalidInput, match="left on disk"):
        _ = left.latents


def test_what_the_recording_holds_already_is_not_copied(store):
    recording = store.get("plain/x")
    index = CLIndex(recording, NAMES)
    assert index._latents.held is not None
    assert np.shares_memory(index._latents.held.numpy(), recording.activity.values)
    np.testing.assert_array_equal(index.latents, recording.latents()[recording.eligible])


def test_a_store_that_goes_away_during_a_query_is_told(store, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(store.path, copied)
    index = CLIndex(RecordingStore(copied).get("grouped/x", load=False), NAMES)
    assert len(index.query({"count": 2}, n=3)) == 3
    shutil.rmtree(copied)
    with pytest.raises(Corrupt, match="is missing"):
        index.query({"count": 2}, n=3)
    with pytest.raises(Corrupt, match="is missing"):
        index.sample(torch.tensor([[0.0, 1.0]]))


def test_some_units_of_a_recording_with_missing_ones_are_looked_up_in_memory(tmp_path):
    """Groups leave out what is incomplete in any unit; in the units asked for it may be complete."""
    activity = np.arange(12.0).reshape(6, 2)
    activity[:2, 1] = np.nan
    made = Recording.from_arrays(activity, {"count": [0, 0, 1, 1, 1, 1]}, name="x", missing=True)
    store = RecordingStore(tmp_path / "store")
    store.register(made, set="s", group_by=["count"])
    for units, counts in ((["u0"], [2, 4]), (None, [4])):
        index = CLIndex(store.get("s/x", load=False), ["count"], units=units)
        assert index.counts.tolist() == counts
        assert index.n_incomplete == 6 - sum(counts)
