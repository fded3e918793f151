"""Pseudo-populations: every joined trial must be made of trials that hold its values, each of one part only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.align.prepare import make_sides
from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.samples import shared_samples
from neuromas.recordings.annotate import annotate, select
from neuromas.recordings.pseudo import parts_of, pool, trials_by_part
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.split import split_by_trial
from neuromas.recordings.store.store import RecordingStore


def recorded(name, values, n_units=1, n_steps=1, missing=None, **fields):
    """Activity tells unit, trial and step: 1000·unit + trial + step / 10."""
    trials = np.arange(len(values))
    activity = (
        1000.0 * np.arange(n_units)[None, None, :] + trials[:, None, None] + np.arange(n_steps)[None, :, None] / 10
    )
    if missing is not None:
        activity[missing] = np.nan
    return Recording.from_arrays(
        activity, {"n": values}, name=name, missing=missing is not None, activity_units="Hz", **fields
    )


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(3, 9), min_size=3, max_size=3), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_trials_are_joined_by_value_and_stay_in_their_part(counts, n_steps, seed):
    sources = [
        recorded(f"r{number}", np.repeat([1, 2, 3], each), n_units=2, n_steps=n_steps)
        for number, each in enumerate(counts)
    ]
    joined = pool(sources, ["n"], name="pool", seed=seed)
    assert joined.n_units == 2 * len(counts)
    part = joined.dataset["part"].values
    own_values = [np.repeat([1, 2, 3], each) for each in counts]
    latents = joined.latents(dtype=np.float64)
    for column in range(joined.n_units):
        number, unit = divmod(column, 2)
        trial = np.floor(latents[:, column] - 1000 * unit + 1e-3).astype(int)
        step = np.rint((latents[:, column] - 1000 * unit - trial) * 10).astype(int)
        assert (own_values[number][trial] == joined.values(["n"])[:, 0]).all()
        assert (step == joined.step).all()
        owner = {one: set(part[trial == one]) for one in np.unique(trial)}
        assert all(len(parts) == 1 for parts in owner.values())
        used, times = np.unique(trial[joined.step == 0], return_counts=True)
        assert (times == 1).all(), used  # without replacement
    for name, count in trials_by_part(joined).items():
        assert len(np.unique(joined.trial[part == name])) == count


def test_all_trials_are_used_where_units_have_as_many():
    joined = pool([recorded("a", [1, 2] * 10), recorded("b", [2, 1] * 10)], ["n"], name="pool")
    assert trials_by_part(joined) == {"train": 12, "validation": 4, "test": 4}
    assert joined.unit_names == ["a/u0", "b/u0"]
    assert joined.dataset["recording"].values.tolist() == ["a", "b"]
    assert joined.manifest.units == "Hz"


def test_a_units_shares_depend_on_its_own_name_alone():
    a, b, c = (recorded(name, np.tile([1, 2], 15)) for name in "abc")
    alone, together = pool([a, b], ["n"], name="p", seed=4), pool([c, a, b], ["n"], name="p", seed=4)

    def dealt(recording, unit):
        column = recording.latents([unit])[:, 0]
        return {
            part: sorted(column[recording.dataset["part"].values == part]) for part in ("train", "validation", "test")
        }

    assert dealt(alone, "a/u0") == dealt(together, "a/u0")
    assert dealt(pool([a, b], ["n"], name="p", seed=5), "a/u0") != dealt(alone, "a/u0")


def test_missing_and_ineligible_trials_are_not_taken():
    values = np.repeat([1, 2], 10)
    hole = np.zeros((20, 1, 2), dtype=bool)
    hole[:4, :, 1] = True  # unit 1 lacks four trials of value 1
    source = recorded("a", values, n_units=2, missing=hole, eligible=np.arange(20) != 19)
    joined = pool([source], ["n"], name="p")
    latents = joined.latents()
    assert np.isfinite(latents).all()
    assert not joined.manifest.missing
    assert not set(latents[:, 1] - 1000) & {0, 1, 2, 3}
    assert 19 not in set(latents[:, 0])


def test_units_with_too_few_trials_are_left_out_and_named():
    values = np.repeat([1, 2], 10)
    hole = np.zeros((20, 1, 2), dtype=bool)
    hole[2:10, :, 1] = True
    joined = pool([recorded("a", values, n_units=2, missing=hole), recorded("b", values)], ["n"], name="p")
    assert joined.unit_names == ["a/u0", "b/u0"]
    assert joined.manifest.pseudo_population.left_out == ("a/u1",)
    assert joined.dataset["recording"].values.tolist() == ["a", "b"]


def test_one_trial_per_value_is_too_few():
    with pytest.raises(InvalidInput, match=r"no unit has 3 trials of each of 4 combinations of n.*a/u0 has 1 with n=0"):
        pool([recorded("a", np.arange(4))], ["n"], name="p")


def test_counts_asked_for():
    sources = [recorded("a", [1, 2] * 10), recorded("b", [1, 2] * 5)]
    with pytest.raises(InvalidInput, match=r"'train 5' asked for, but the unit with fewest has 'train 3'"):
        pool(sources, ["n"], name="p", n_trials={"train": 5})
    joined = pool(sources, ["n"], name="p", n_trials=50, replace=True)
    assert trials_by_part(joined) == {"train": 100, "validation": 100, "test": 100}
    assert joined.manifest.pseudo_population.replace
    with pytest.raises(InvalidInput, match="at least 3, one for each part"):
        pool(sources, ["n"], name="p", min_trials=2)


def test_equal_meanings_count_as_equal_whatever_their_codes():
    a = Recording.from_arrays(np.arange(9.0)[:, None], {"side": ["l", "m", "r"] * 3}, name="a")
    b = Recording.from_arrays(100 + np.arange(6.0)[:, None], {"side": ["m", "r"] * 3}, name="b")
    with pytest.raises(InvalidInput, match="b/u0 has 0 with side=l"):
        pool([b, a], ["side"], name="p", min_trials=4)
    joined = pool([b, a.select_samples(a.values(["side"])[:, 0] > 0)], ["side"], name="p")
    latents, spec = joined.latents(), joined.spec("side")
    for row, code in zip(latents, joined.values(["side"])[:, 0], strict=True):
        assert ("m", "r")[int(row[0] - 100) % 2] == spec.label(code) == ("l", "m", "r")[int(row[1]) % 3]


def test_recordings_that_cannot_be_joined():
    a = recorded("a", [1, 2] * 5)
    with pytest.raises(InvalidInput, match="expected recordings and variables, got 0 and 1"):
        pool([], ["n"], name="p")
    counts = Recording.from_arrays(np.zeros((10, 1)), {"n": [1, 2] * 5}, name="b")
    with pytest.raises(InvalidInput, match="units differ: 'Hz' in 'a', '1' in 'b'"):
        pool([a, counts], ["n"], name="p")
    binned = recorded("c", [1, 2] * 5, sampling={"step": "time bin", "step_s": 0.1})
    with pytest.raises(InvalidInput, match=r"seconds per step differ: None in 'a', 0.1 in 'c'"):
        pool([a, binned], ["n"], name="p")
    with pytest.raises(NotFound, match="no variable 'm'"):
        pool([a], ["m"], name="p")


def test_fits_keep_to_the_parts_it_was_made_with(tmp_path):
    joined = pool([recorded("a", [1, 2] * 10), recorded("b", [1, 2] * 10)], ["n"], name="p")
    store = RecordingStore(tmp_path / "store")
    store.register([joined], set="s", group_by=["n"])
    for recording in (joined, store.get("s/p")):
        (side,) = make_sides([recording], variables=["n"], seed=7)
        for part, candidates in side.candidates.items():
            assert set(recording.dataset["part"].values[candidates.samples]) == {part}
            assert len(candidates.samples) == trials_by_part(joined)[part]
            assert set(recording.dataset["part"].values[side.indexes[part].samples.numpy()]) == {part}


def test_parts_of_other_recordings_are_dealt_out_by_seed():
    recording = recorded("a", [1, 2] * 10)
    assert parts_of(recording, seed=1)["test"].trials.tolist() != parts_of(recording, seed=2)["test"].trials.tolist()


def test_shuffling_keeps_parts_apart():
    joined = pool([recorded("a", [1] * 10 + [2] * 30), recorded("b", [1] * 10 + [2] * 30)], ["n"], name="p")
    seen = shuffled(joined, seed=0)
    for part in ("train", "validation", "test"):
        mine = joined.dataset["part"].values == part
        assert sorted(seen.values(["n"])[mine, 0]) == sorted(joined.values(["n"])[mine, 0])


def test_what_was_joined_is_not_joined_or_dealt_out_again():
    joined = pool([recorded("a", [1, 2] * 10)], ["n"], name="p", replace=True, n_trials=20)
    with pytest.raises(InvalidInput, match="'p' is a pseudo-population already"):
        pool([joined], ["n"], name="pp")
    with pytest.raises(InvalidInput, match="its parts were settled when it was pooled"):
        split_by_trial(joined)
    with pytest.raises(InvalidInput, match="no table of trials fits them"):
        annotate(joined, {"x": "x"}, table={"trial": np.arange(200), "x": np.arange(200)})


def test_versions_of_one_recording_are_not_joined(tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([recorded("a", [1, 2] * 10, n_units=2)], set="s")
    whole = store.get("s/a")
    other = annotate(whole, {"odd": "n % 2"})
    with pytest.raises(
        InvalidInput, match=r"versions of one recording, s/a \([0-9a-f]{64}\), and share units 'u0', 'u1'"
    ):
        pool([whole, other], ["n"], name="p")
    with pytest.raises(InvalidInput, match="versions of one recording"):
        pool([shuffled(whole, seed=1), other], ["n"], name="p")
    halves = [select(whole, units_where=f"unit == 'u{number}'") for number in (0, 1)]
    assert pool(halves, ["n"], name="p").n_units == 2  # other units of the same trials are no matter


def test_only_eligible_samples_are_joined():
    values = np.repeat([1, 2], 15)
    eligible = np.tile([False, True, True], (30, 1))
    joined = pool([recorded("a", values, n_steps=3, eligible=eligible)], ["n"], name="p")
    assert set(joined.step) == {1, 2}
    assert sum(trials_by_part(joined).values()) == 30
    strange = pool([recorded("a", [*values, 7], eligible=np.arange(31) < 30)], ["n"], name="p")
    assert set(strange.values()[:, 0]) == {1, 2}


def test_controls_stay_controls():
    joined = pool([shuffled(recorded("a", [1, 2] * 10), seed=0), recorded("b", [1, 2] * 10)], ["n"], name="p")
    assert joined.manifest.control == "made from 'a', which are controls"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": {"train": 5, "validation": 5, "test": 5}}, "add up to 1"),
        ({"fractions": {"train": 0.5, "test": 0.5}}, "expected fractions for train, validation, test"),
        ({"n_trials": {"tset": 1}}, "n_trials for 'tset'; the parts are train, validation, test"),
        ({"n_trials": 0}, "at least 1 in each part"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
    ],
)
def test_choices_that_make_no_sense(options, message):
    with pytest.raises(InvalidInput, match=message):
        pool([recorded("a", [1, 2] * 10)], ["n"], name="p", **options)


def test_other_events_are_not_joined():
    def about(event):
        return recorded(event, [1, 2] * 5, sampling={"step": "time bin", "step_s": 0.1, "aligned_to": event})

    with pytest.raises(InvalidInput, match="the event at time zero differ"):
        pool([about("cue"), about("reward")], ["n"], name="p")


def test_joined_trials_are_not_compared_with_others():
    days = [recorded("a", [1, 2] * 10, n_units=2), recorded("b", [1, 2] * 10, n_units=2)]
    one, other = (pool(days, ["n"], name="p", seed=seed) for seed in (0, 1))
    for pair in ((one, other), (one, days[0])):
        with pytest.raises(InvalidInput, match="'p' is a pseudo-population: its trials were joined and numbered again"):
            shared_samples(*pair)
    halves = select(one, units_where="recording == 'a'"), select(one, units_where="recording == 'b'")
    assert shared_samples(*halves).n == one.n_samples
