"""Recordings annotated after the fact: the truth is worked out by hand, or planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.annotate import annotate, drop_variables, next_version, rename_variables, select, standardised
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.recipe import VariableRecipe

ACTIVITY = np.arange(24.0).reshape(4, 2, 3)  # 4 trials, 2 steps, 3 units


@pytest.fixture
def made():
    return Recording.from_arrays(
        ACTIVITY,
        {"side": ["left", "right", "left", "right"], "count": [[1, 2], [3, 4], [5, 6], [7, 8]]},
        name="made",
        trial=[10, 11, 12, 13],
        sample_metadata={"session": ["a", "a", "b", "b"]},
        unit_metadata={"region": ["CA1", "CA3", "CA1"], "quality": [0.9, 0.5, 0.2]},
        sampling={"step": "time bin", "step_s": 0.5, "start_s": -0.5, "aligned_to": "cue"},
        activity_units="Hz",
    )


def readable(recording, name):
    spec = recording.spec(name)
    return [spec.label(float(code)) for code in recording.dataset[name].values]


def test_expressions_name_variables_coordinates_and_time(made):
    seen = annotate(
        made,
        {
            "epoch": "where(time < 0, 'before', 'after')",
            "odd": "count % 2 == 1",
            "late_left": "session == 'b' and side == 'left'",
        },
    )
    assert readable(seen, "epoch") == ["before", "after"] * 4
    assert readable(seen, "odd") == ["true", "false"] * 4
    assert readable(seen, "late_left") == ["false"] * 4 + ["true"] * 2 + ["false"] * 2
    assert seen.variable_names == ["side", "count", "epoch", "odd", "late_left"]
    np.testing.assert_array_equal(seen.latents(), made.latents())


def test_a_table_is_matched_by_trial_whatever_its_order(made):
    table = pd.DataFrame({"trial": [13, 99, 10, 12, 11], "reward": [4, 9, 1, 3, 2]})
    seen = annotate(made, {"reward": "reward", "rich": "reward > 2"}, table=table)
    assert seen.dataset["reward"].values.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert readable(seen, "rich") == ["false"] * 4 + ["true"] * 4


def test_a_table_may_be_matched_by_several_coordinates(made):
    table = {"trial": np.repeat([10, 11, 12, 13], 2), "step": [0, 1] * 4, "gaze": np.arange(8) / 2}
    seen = annotate(made, {"gaze": VariableRecipe(expression="gaze", units="deg")}, table=table, on=["trial", "step"])
    assert seen.dataset["gaze"].values.tolist() == (np.arange(8) / 2).tolist()
    assert seen.spec("gaze").units == "deg"


def test_continuous_values_become_declared_bins(made):
    table = {"trial": [10, 11, 12, 13], "speed": [0.0, 4.9, 5.0, 20.0]}
    seen = annotate(made, {"pace": {"expression": "speed", "bins": [0, 5, 20], "units": "cm/s"}}, table=table)
    assert readable(seen, "pace") == ["[0, 5)"] * 4 + ["[5, 20]"] * 4
    with pytest.raises(InvalidDocument, match="1 of 8 values lie outside the bins, which go from 0 to 7"):
        annotate(made, {"small": {"expression": "count", "bins": [0, 3, 7]}})


def test_coded_values_get_their_meanings(made):
    seen = annotate(made, {"kind": {"expression": "count % 2", "meanings": {"0": "even", "1": "odd"}}})
    assert readable(seen, "kind") == ["odd", "even"] * 4
    with pytest.raises(InvalidDocument, match="no meaning is given for '2'"):
        annotate(made, {"kind": {"expression": "count % 3", "meanings": {"0": "even", "1": "odd"}}})


def test_every_problem_is_told_at_once(made):
    with pytest.raises(InvalidDocument) as caught:
        annotate(made, {"a": "nowhere", "b": "count + side", "c": "count.real", "d": "where(count > 3, 1.0, log(-1))"})
    told = "\n".join(caught.value.problems)
    assert "no column 'nowhere'; there are" in told
    assert "cannot be computed" in told
    assert "not allowed" in told
    assert "3 of 8 entries" in told


def test_a_variable_is_replaced_only_if_that_is_said(made):
    with pytest.raises(InvalidDocument, match="'count' exists already; replace it with replace=True"):
        annotate(made, {"count": "count * 10"})
    assert annotate(made, {"count": "count * 10"}, replace=True).dataset["count"].values.max() == 80
    with pytest.raises(InvalidDocument, match="'session' exists already, as a coordinate"):
        annotate(made, {"session": "count"}, replace=True)


@pytest.mark.parametrize(
    ("table", "on", "error", "message"),
    [
        ({"trial": [10, 11], "x": [1, 2]}, "trial", InvalidInput, r"no row for 4 of 8 samples .* \(first: trial 12\)"),
        ({"trial": [10, 10], "x": [1, 2]}, "trial", InvalidInput, "two rows for trial 10"),
        ({"number": [10], "x": [1]}, "number", NotFound, "no coordinate 'number'"),
        ({"number": [10], "x": [1]}, "trial", NotFound, "no column 'trial'; it has number, x"),
        ({"trial": ["10"], "x": [1]}, "trial", InvalidInput, "cannot be matched by 'trial'"),
        ({"trial": [10], "count": [1]}, "trial", InvalidInput, "column 'count' is also a coordinate"),
    ],
)
def test_tables_that_do_not_fit(made, table, on, error, message):
    with pytest.raises(error, match=message):
        annotate(made, {"x": "x"}, table=table, on=on)


def test_rename_and_drop(made):
    assert rename_variables(made, {"count": "n"}).variable_names == ["side", "n"]
    assert drop_variables(made, ["side"]).variable_names == ["count"]
    with pytest.raises(NotFound, match="no variable 'nothing'; it has side, count"):
        rename_variables(made, {"nothing": "n"})
    with pytest.raises(InvalidInput, match="no variable would be left"):
        drop_variables(made, ["side", "count"])
    with pytest.raises(InvalidInput, match="two coordinates called"):
        rename_variables(made, {"count": "session"})


def test_select_by_session_step_and_region(made):
    seen = select(made, "session == 'b' and time > 0", "region == 'CA1' and quality > 0.1")
    np.testing.assert_array_equal(seen.latents(), ACTIVITY[2:, 1][:, [0, 2]])
    with pytest.raises(InvalidInput, match="true of none of 3"):
        select(made, units_where="region == 'V1'")
    with pytest.raises(NotFound, match="no column 'area'; there are unit, region, quality"):
        select(made, units_where="area == 'V1'")
    with pytest.raises(InvalidInput, match="expected something true or false"):
        select(made, "count")


def test_versions_say_where_they_come_from_and_both_stay(made, tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    before = store.get("s/made")
    other = annotate(before, {"odd": "count % 2 == 1"})
    again = select(other, "odd == 'true'")
    name = next_version("made", ["made"])
    manifest = again.manifest.model_copy(update={"name": name})
    store.register([Recording(again.dataset, manifest)], set="s")
    found = store.get("s/made.v2")
    assert found.manifest.provenance.derived_from[-1] == f"s/made ({before.manifest.content_sha256})"
    assert "variables odd added" in found.manifest.provenance.notes
    assert "only samples where odd == 'true'" in found.manifest.provenance.notes
    assert found.n_samples == 4
    assert store.get("s/made").variable_names == ["side", "count"]
    assert store.verify() == []


def test_a_recording_left_on_disk_is_annotated_without_reading_its_activity(made, tmp_path, monkeypatch):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    lazy = store.get("s/made", load=False)

    def refuse(*_):
        raise AssertionError("activity was read")

    with monkeypatch.context() as patched:
        patched.setattr(Recording, "blocks", refuse)
        patched.setattr(Recording, "_read", refuse)
        seen = annotate(lazy, {"odd": "count % 2 == 1"})
    assert not seen.in_memory
    np.testing.assert_array_equal(seen.latents(), made.latents())


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from("ab")), min_size=2, max_size=12),
    st.integers(0, 10),
    st.booleans(),
)
def test_shuffled_trials_exchange_whole_value_sequences(trials, seed, within):
    lengths = [length for length, _ in trials]
    trial = np.repeat(np.arange(len(trials)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    recording = Recording.from_arrays(
        np.arange(len(trial), dtype=float)[:, None],
        {"owner": trial, "place": step},
        trial=trial,
        step=step,
        name="r",
        sample_metadata={"session": np.array([session for _, session in trials])[trial]},
    )
    kinds = [(length, session if within else "") for length, session in trials]
    if len(set(kinds)) == len(kinds):  # nobody to exchange with
        with pytest.raises(InvalidInput, match="changes nothing"):
            shuffled(recording, seed=seed, within="session" if within else "")
        return
    seen = shuffled(recording, seed=seed, within="session" if within else "")
    owner, place = seen.values(["owner", "place"]).T.astype(int)
    donors = []
    for number in range(len(trials)):
        mine = trial == number
        assert len(set(owner[mine])) == 1  # values of a trial stay together, in their order
        donor = owner[mine][0]
        assert place[mine].tolist() == step[mine].tolist()
        assert lengths[donor] == lengths[number]
        assert not within or trials[donor][1] == trials[number][1]
        donors.append(donor)
    assert sorted(donors) == list(range(len(trials)))
    np.testing.assert_array_equal(seen.latents(), recording.latents())


def test_shuffling_breaks_what_activity_says_of_values():
    generator = np.random.default_rng(0)
    values = generator.integers(5, size=400)
    recording = Recording.from_arrays(values[:, None] + 0.1 * generator.normal(size=(400, 1)), {"n": values}, name="r")
    seen = shuffled(recording, seed=3)
    assert abs(np.corrcoef(seen.latents()[:, 0], seen.values(["n"])[:, 0])[0, 1]) < 0.15
    assert np.corrcoef(recording.latents()[:, 0], recording.values(["n"])[:, 0])[0, 1] > 0.99
    assert shuffled(recording, seed=3).values().tolist() == seen.values().tolist()


def test_time_is_that_of_bin_centres(made):
    assert made.time_s.tolist() == [-0.25, 0.25] * 4
    assert Recording.from_arrays([[0.0]], {"n": [1]}, name="r").time_s is None


def test_standardised_units_have_mean_0_and_deviation_1_where_eligible():
    generator = np.random.default_rng(0)
    activity = generator.gamma(2.0, 10.0, size=(200, 3))
    activity[:50, 1] = np.nan
    eligible = generator.random(200) < 0.7
    made = Recording.from_arrays(
        activity, {"n": np.arange(200)}, name="r", missing=True, eligible=eligible, activity_units="Hz"
    )
    seen = standardised(made)
    latents = seen.latents(dtype=np.float64)
    np.testing.assert_array_equal(np.isnan(latents), np.isnan(activity))
    np.testing.assert_allclose(np.nanmean(latents[eligible], axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(latents[eligible], axis=0), 1, rtol=1e-6)
    mean, sd = (seen.dataset[f"standard_{name}"].values for name in ("mean", "sd"))
    np.testing.assert_allclose(latents * sd + mean, activity, rtol=1e-5)
    assert seen.manifest.units == "1"
    assert set(seen.dataset["standard_units"].values) == {"Hz"}
    with pytest.raises(InvalidInput, match="standardised already"):
        standardised(seen)
    still = Recording.from_arrays(np.ones((4, 2)), {"n": [1, 2, 3, 4]}, name="r")
    with pytest.raises(InvalidInput, match="activity of 'u0', 'u1' never changes"):
        standardised(still)


def test_samples_may_exchange_values_too():
    step = np.tile(np.arange(4), 50)
    made = Recording.from_arrays(np.zeros((50, 4, 1)), {"place": step.reshape(50, 4)}, name="r")
    with pytest.raises(InvalidInput, match="changes nothing"):
        shuffled(made, seed=0)  # the same in every trial, so it stays true
    by_sample = shuffled(made, seed=0, by="sample")
    assert (by_sample.values()[:, 0] == step).mean() < 0.4
    assert sorted(by_sample.values()[:, 0]) == sorted(step)


def test_a_control_that_changes_nothing_is_refused():
    lengths = np.arange(1, 6)  # no two trials could exchange
    trial = np.repeat(np.arange(5), lengths)
    made = Recording.from_arrays(np.zeros((15, 1)), {"n": trial}, trial=trial, name="r")
    with pytest.raises(InvalidInput, match=r"changes nothing.*by='sample' exchanges values of single samples"):
        shuffled(made)
    seen = shuffled(made, by="sample")
    assert "values shuffled between samples, seed 0: n (" in seen.manifest.control


def test_versions_name_the_whole_line_they_come_from(made, tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    second = annotate(store.get("s/made"), {"odd": "count % 2"})
    store.register([second.replaced(second.dataset, second.manifest.model_copy(update={"name": "two"}))], set="s")
    third = drop_variables(store.get("s/two"), ["odd"])
    nearest, first = third.manifest.provenance.derived_from
    assert nearest.startswith("s/two (")
    assert first.startswith("s/made (")


def test_what_is_selected_is_not_what_was_stored(made, tmp_path):
    store = RecordingStore(tmp_path / "store")
    store.register([made], set="s")
    whole = store.get("s/made")
    assert whole.manifest.content_sha256 is not None
    assert whole.select_units([0]).manifest.content_sha256 is None
    assert whole.select_samples(np.arange(3)).manifest.files == {}
