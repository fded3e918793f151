"""Recordings compared on the samples they share, and refused where they share none."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from neuromas import compare as public_compare
from neuromas import shipped_store
from neuromas.causal.counting import MultiObject
from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.comparison import compare
from neuromas.measures.registry import MEASURES
from neuromas.measures.samples import DifferentValuesWarning, shared_samples
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system


@pytest.fixture(autouse=True)
def _strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DifferentValuesWarning)
        yield


def make(name: str, seed: int = 0, n_trials: int = 30, n_units: int = 5, task_seed: int = 0, **fields) -> Recording:
    """Trials ``B D … D T R … R E`` of differing length; `seed` is the system's, `task_seed` the trials'."""
    rng = np.random.default_rng(task_seed)
    quantity = rng.integers(1, 6, n_trials)
    lengths = 2 * quantity + 3
    tokens = np.full((n_trials, lengths.max()), "E", dtype="<U2")
    for trial, n in enumerate(quantity):
        tokens[trial, : lengths[trial]] = ["B", *rng.choice(["D1", "D2"], n), "T", *["R"] * n, "E"]
    activity = np.random.default_rng([7, seed]).normal(size=(*tokens.shape, n_units))
    if fields.get("missing"):
        activity[3, :, 1] = np.nan
    fields = {"token": tokens, "vocabulary": ("B", "D1", "D2", "T", "R", "E")} | fields
    if fields["token"] is None:
        del fields["token"], fields["vocabulary"]
    return Recording.from_arrays(activity, {"quantity": quantity}, name=name, lengths=lengths, **fields)


def reference(x: Recording, y: Recording, measure: str, end: str | None = "E") -> float:
    """The measure of all shared rows, found by a dictionary."""
    rows = []
    for one in (x, y):
        words = one.manifest.vocabulary
        rows.append(
            {
                (int(trial), int(step)): one.activity.values[i]
                for i, (trial, step) in enumerate(zip(one.trial, one.step, strict=True))
                if end is None or words[int(one.dataset["token"].values[i])] != end
            }
        )
    keys = sorted(key for key in rows[0] if key in rows[1])
    a, b = (np.array([row[key] for key in keys]) for row in rows)
    usable = ~np.isnan(a).any(axis=1) & ~np.isnan(b).any(axis=1)
    return MEASURES[measure](a[usable], b[usable])


@pytest.mark.parametrize("measure", MEASURES)
def test_all_shared_samples_where_there_are_few(measure):
    x, y = make("x", 0), make("y", 1, n_units=3)
    found = compare(x, y, measure, n_samples=10_000)
    assert found.values == pytest.approx([reference(x, y, measure)])
    assert found.n_resamples == 1
    assert found.n_shared == x.n_samples
    assert found.n_ended == 30
    assert found.n_samples == found.n_usable == x.n_samples - 30
    assert found.matched_by == ("trial", "step", "token")
    assert found.low == found.mean == found.high == found.values[0]
    assert found.recordings == ("x", "y")


@pytest.mark.parametrize("measure", MEASURES)
def test_resamples(measure):
    x, y = make("x", 0), make("y", 1)
    found = compare(x, y, measure, n_samples=60, n_resamples=6, seed=3)
    assert len(set(found.values)) == found.n_resamples == 6
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(np.mean(found.values))
    assert compare(x, y, measure, n_samples=60, n_resamples=6, seed=3) == found
    assert compare(x, y, measure, n_samples=60, n_resamples=3, seed=3).values == found.values[:3]
    assert not set(compare(x, y, measure, n_samples=60, n_resamples=6, seed=4).values) & set(found.values)
    np.testing.assert_allclose(compare(y, x, measure, n_samples=60, n_resamples=6, seed=3).values, found.values)


def test_samples_are_drawn_uniformly_over_steps_without_replacement(monkeypatch):
    x = make("x", n_trials=4, n_units=1)
    numbered = x.dataset["activity"].copy(data=np.arange(x.n_samples, dtype=float)[:, None])
    x = Recording(x.dataset.assign(activity=numbered), x.manifest)
    seen = []

    def spy(a, b, **options):
        np.testing.assert_array_equal(a, b)
        assert len(np.unique(a)) == len(a) == 5
        seen.extend(a[:, 0].astype(int))
        return 0.0

    monkeypatch.setitem(MEASURES, "rsa", replace(MEASURES["rsa"], function=spy))
    compare(x, x, n_samples=5, n_resamples=2000)
    counts = np.bincount(seen, minlength=x.n_samples)
    ended = x.dataset["token"].values == 5
    assert not counts[ended].any()
    expected = 2000 * 5 / (~ended).sum()
    assert np.all(np.abs(counts[~ended] - expected) < 5 * np.sqrt(expected))


def test_order_of_rows_trials_that_one_lacks_and_other_vocabularies():
    x, y = make("x", 0), make("y", 1)
    order = np.random.default_rng(0).permutation(y.n_samples)[:150]
    recoded = make("y", 1, vocabulary=("E", "T", "R", "D2", "D1", "B", "unused"))
    for partial in (y.select_samples(order), recoded.select_samples(order)):
        found = compare(x, partial)
        assert found.values == pytest.approx([reference(x, partial, "rsa")])
        assert found.n_shared == 150


def test_incomplete_samples_are_left_out_and_counted():
    x, y = make("x", 0, missing=True), make("y", 1)
    steps = int((x.trial == 3).sum())
    found = compare(x, y)
    assert found.n_incomplete == steps - 1  # its end token counts as ended
    assert found.values == pytest.approx([reference(x, y, "rsa")])
    assert compare(x, y, units={"x": ["u0", "u2"]}).n_incomplete == 0
    assert compare(y, x).n_incomplete == steps - 1


def test_units():
    x, y = make("x", 0), make("y", 1)
    found = compare(x, y, units={"x": ["u3", "u0"], "y": ["u1", "u2", "u4"]})
    assert found == compare(x.select_units(["u0", "u3"]), y.select_units(["u1", "u2", "u4"]))
    with pytest.raises(NotFound, match="'z', but the recordings are 'x' and 'y'"):
        compare(x, y, units={"z": ["u0"]})
    with pytest.raises(NotFound, match="no unit 'u9'"):
        compare(x, y, units={"x": ["u9"]})


def test_eligible_has_no_part_in_it():
    x, y = make("x", 0), make("y", 1)
    flagged = make("x", 0, eligible=np.zeros((30, 13), dtype=bool))
    assert compare(flagged, y).values == compare(x, y).values


def test_end_tokens_are_a_choice():
    x, y = make("x", 0), make("y", 1)
    found = compare(x, y, exclude_tokens=())
    assert found.n_ended == 0
    assert found.values == pytest.approx([reference(x, y, "rsa", end=None)])
    assert compare(x, y, exclude_tokens=("E", "B")).n_ended == 60


def test_one_side_without_tokens_is_matched_by_trial_and_step():
    x, brain = make("x", 0), make("brain", 1, token=None)
    found = compare(x, brain)
    assert found.matched_by == ("trial", "step")
    assert found.n_ended == 30
    assert found.values == compare(x, make("y", 1)).values
    assert compare(brain, brain).n_ended == 0


def test_other_trials_are_refused():
    x, y = make("x", 0), make("y", 1, task_seed=1)
    with pytest.raises(
        InvalidInput, match=r"of 30 trials with equal numbers \d\d hold different tokens, first trial 0 \(B D"
    ) as error:
        compare(x, y)
    assert error.value.kind == "different_trials"
    assert "in 'x'" in str(error.value)
    assert "in 'y'" in str(error.value)


def test_no_row_in_common_says_what_each_has():
    x, y = make("x", 0), make("y", 1, trial=np.arange(100, 130))
    told = r"'x' has 30 trials numbered 0 to 29, steps 0 to \d+ \(\d+ samples\); 'y' has 30 trials numbered 100 to 129"
    with pytest.raises(InvalidInput, match=told) as error:
        compare(x, y)
    assert error.value.kind == "no_shared_samples"


def test_too_few_left():
    x, y = make("x", 0), make("y", 1)
    ends = np.flatnonzero(y.dataset["token"].values == 5)
    with pytest.raises(InvalidInput, match="2 samples are left to compare, expected at least 3: of 32 shared") as error:
        compare(x, y.select_samples(np.sort([0, 1, *ends])))
    assert error.value.kind == "too_few_samples"


def test_disagreement_about_a_variable_is_told():
    x, brain = make("x", 0), make("brain", 1, token=None, task_seed=1)
    with pytest.warns(DifferentValuesWarning, match=r"'x' and 'brain' differ .*: quantity in \d+ of \d+"):
        shared_samples(x, brain)


def test_a_measure_that_is_undefined_names_the_recordings():
    x, y = make("x", 0), make("y", 1)
    silent = Recording(y.dataset.assign(activity=0 * y.activity), y.manifest)
    with pytest.raises(InvalidInput, match=r"rsa of x = 'x' and y = 'y': y: .* are zero in every unit") as error:
        compare(x, silent)
    assert error.value.kind == "undefined_measure"


def test_constant_units_are_counted():
    x, y = make("x", 0), make("y", 1)
    still = x.activity * np.array([1, 0, 1, 0, 1])
    x = Recording(x.dataset.assign(activity=still), x.manifest)
    found = compare(x, y, "cka")
    assert found.n_constant_units == (2, 0)
    assert found.values == pytest.approx(compare(x.select_units(["u0", "u2", "u4"]), y, "cka").values)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_samples": 2}, "n_samples: expected a whole number of at least 3, got 2"),
        ({"n_samples": 10.5}, "n_samples: expected a whole number"),
        ({"n_resamples": 0}, "n_resamples: expected a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"kernel": "linear"}, "measure 'rsa' has no option 'kernel'; it has dissimilarity, comparison"),
    ],
)
def test_bad_settings(options, told):
    with pytest.raises(InvalidInput, match=told):
        compare(make("x"), make("y"), **options)


def test_unknown_measure():
    with pytest.raises(NotFound, match="no measure 'cca'"):
        compare(make("x"), make("y"), "cca")


def test_shipped_recordings_are_of_other_trials():
    store = shipped_store()
    with pytest.raises(InvalidInput, match="not of the same trials"):
        compare(store.get("multi-object/gru-0"), store.get("multi-object/gru-1"))


@pytest.mark.parametrize("measure", MEASURES)
def test_two_networks_on_the_same_trials(measure):
    trials = MultiObject().sample(60, seed=5)
    x, y = (capture(load_system(f"multi-object/gru-{i}"), trials) for i in (0, 1))
    assert compare(x, x, measure, n_samples=300, n_resamples=2).values == pytest.approx([1, 1])
    found = public_compare(x, y, measure, n_samples=300, n_resamples=4)
    assert 0.9 < found.mean < 0.9999  # independently trained, and yet much alike in what they hold to be alike
    assert found.high - found.low < 0.05
    assert found.n_ended == 60


@pytest.fixture(scope="module")
def result():
    return compare(make("x", 0), make("y", 1), "cka", n_samples=40, n_resamples=3)


class TestLooks:
    def test_repr(self, result):
        first, *rest = repr(result).splitlines()
        assert first == f"<MeasureResult: cka of 'x' and 'y' is {result.mean:.3f}>"
        assert "over 3 resamples of 40 samples" in rest[0]
        assert rest[1] == "  options   kernel='cosine', zscore=True"
        assert len(rest) == 3

    def test_html(self, result):
        html = replace(result, recordings=("<b>", "y"))._repr_html_()
        assert "<b>" not in html
        assert "&lt;b&gt;" in html
        assert f"{result.mean:.3f}" in html

    def test_table(self, result):
        table = result.to_dataframe()
        assert table["value"].tolist() == list(result.values)
        assert table[["measure", "x", "y", "n_samples"]].drop_duplicates().values.tolist() == [["cka", "x", "y", 40]]
        assert table["resample"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("measure", "options", "nearest"),
    [
        ("ckaa", {}, "cka"),
        ("rsa", {"dissimilarty": "cosine"}, "dissimilarity"),
        ("rsa", {"dissimilarity": "cosin"}, "cosine"),
        ("cka", {"units": {"network": []}}, "networks"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(measure, options, nearest):
    with pytest.raises((InvalidInput, NotFound), match=f"did you mean '{nearest}'"):
        compare(make("networks"), make("y"), measure, **options)
