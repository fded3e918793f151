"""The index against pandas, chance against chi-square."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas.errors import InvalidInput, NoMatch, NotFound
from neuromas.index.index import CLIndex, FewMatchesWarning
from neuromas.index.query import ANY, between
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import split_by_trial
from neuromas.schema.recording import VariableSpec

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is seen")],
    ),
]


def make(seed: int = 0, n_trials: int = 60, n_steps: int = 7, n_units: int = 3) -> Recording:
    """Unit 0 holds the sample's number, so that a latent tells which sample it is of."""
    rng = np.random.default_rng(seed)
    activity = rng.normal(size=(n_trials, n_steps, n_units)).astype(np.float32)
    activity[..., 0] = np.arange(n_trials * n_steps).reshape(n_trials, n_steps)
    activity[rng.random((n_trials, n_steps)) < 0.1, 2] = np.nan
    phase = VariableSpec(name="phase", type="categorical", values=(7, 3, 40), meanings=("demo", "resp", "rest"))
    return Recording.from_arrays(
        activity,
        {
            "phase": rng.choice(["demo", "resp", "rest"], (n_trials, n_steps), p=[0.6, 0.35, 0.05]),
            "count": rng.integers(-2, 5, (n_trials, n_steps)),
            "load": rng.choice(np.array([0.1, 0.2, 0.7], dtype=np.float32), (n_trials, n_steps)),
        },
        name="planted",
        missing=True,
        eligible=rng.random((n_trials, n_steps)) < 0.8,
        variable_specs=[phase],
        unit_metadata={"depth": [0.1, 0.2, 0.3]},
        activity_units="Hz",
    )


def table(recording: Recording, units: list[str] | None = None) -> pd.DataFrame:
    """What the index should use, row by row: the independent account."""
    frame = pd.DataFrame({spec.name: recording.values([spec.name])[:, 0] for spec in recording.manifest.variables})
    frame["sample"] = np.arange(recording.n_samples)
    frame["trial"] = recording.trial
    activity = recording.activity.values if units is None else recording.activity.sel(unit=units).values
    return frame[recording.dataset["eligible"].values & ~np.isnan(activity).any(axis=1)]


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["phase", "count", "load"]), min_size=1, max_size=3, unique=True),
    st.booleans(),
)
def test_combinations_and_counts_are_those_of_pandas(seed, variables, narrow):
    recording = make(seed, n_trials=12)
    units = ["u0", "u1"] if narrow else None
    index = CLIndex(recording, variables, units=units)
    frame = table(recording, units)
    assert index.n_samples == len(frame)
    assert index.n_ineligible == (~recording.eligible).sum()
    assert index.n_incomplete == recording.n_samples - index.n_ineligible - len(frame)
    expected = frame.groupby(variables).size().reset_index(name="n")
    np.testing.assert_array_equal(index.combinations.numpy(), expected[variables].to_numpy())
    assert index.counts.tolist() == expected["n"].tolist()
    told = index.values()
    assert told.columns.tolist() == [*variables, "n_samples"]
    assert told["n_samples"].tolist() == expected["n"].tolist()
    means = index.means()
    activity = recording.latents(units, dtype=np.float64)
    for values, mean, count in zip(means.values.numpy(), means.latents.numpy(), means.counts, strict=True):
        rows = frame[(frame[variables] == values).all(axis=1)]["sample"]
        assert count == len(rows)
        np.testing.assert_allclose(mean, activity[rows].mean(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variables", [["phase"], ["count", "phase"], ["load", "count", "phase"]])
def test_sampled_latents_hold_the_values_asked_for(device, variables):
    recording = make()
    frame = table(recording)
    index = CLIndex(recording, variables, device=device)
    rng = np.random.default_rng(1)
    asked = np.stack(
        [
            rng.choice({"phase": [7, 3, 40, 5], "count": range(-4, 7), "load": [0.1, 0.2, 0.7, 0.3]}[v], 5000)
            for v in variables
        ],
        axis=1,
    ).astype(float)
    draw = index.sample(torch.from_numpy(asked).to(device), torch.Generator(device).manual_seed(0))
    assert draw.latents.shape == (5000, 3)
    assert draw.latents.device.type == device
    recorded = {tuple(np.float32(row)) for row in frame[variables].to_numpy()}
    np.testing.assert_array_equal(draw.hit.cpu(), [tuple(np.float32(row)) in recorded for row in asked])
    hit, samples = draw.hit.cpu().numpy(), draw.samples.cpu().numpy()
    assert 0 < hit.sum() < len(hit)
    np.testing.assert_array_equal(np.float32(recording.values(variables)[samples[hit]]), np.float32(asked[hit]))
    assert np.isin(samples[hit], frame["sample"]).all()
    np.testing.assert_array_equal(draw.latents.cpu().numpy()[hit], recording.latents()[samples[hit]])
    assert np.isnan(draw.latents.cpu().numpy()[~hit]).all()
    assert (samples[~hit] == -1).all()
    assert index.coverage(torch.from_numpy(asked)) == pytest.approx(hit.mean())


@pytest.mark.parametrize("device", DEVICES)
def test_draws_are_uniform_among_matches(device):
    recording = make()
    index = CLIndex(recording, ["phase", "count"], device=device)
    combination = int(index.counts.argmax())
    n_matches = int(index.counts[combination])
    n_draws = 200 * n_matches
    draw = index.sample(index.combinations[combination].repeat(n_draws, 1), torch.Generator(device).manual_seed(3))
    seen = np.bincount(draw.samples.cpu().numpy(), minlength=recording.n_samples)
    seen = seen[seen > 0]
    assert seen.size == n_matches
    assert stats.chisquare(seen).pvalue > 1e-3
    # Consecutive draws are independent, too: pairs fall on all parts alike.
    rank = np.searchsorted(np.unique(draw.samples.cpu().numpy()), draw.samples.cpu().numpy()) * 4 // n_matches
    pairs = np.bincount(rank[:-1:2] * 4 + rank[1::2], minlength=16).reshape(4, 4)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


@pytest.mark.parametrize("device", DEVICES)
def test_shares_that_are_given_draw_what_the_generator_would(device):
    index = CLIndex(make(), ["phase", "count"], device=device)
    combination = torch.randint(-1, index.n_values, (500,), generator=torch.Generator().manual_seed(0)).to(device)
    expected = index.draw(combination, torch.Generator(device).manual_seed(1))
    share = torch.empty(500, dtype=torch.float64, device=device).uniform_(
        generator=torch.Generator(device).manual_seed(1)
    )
    assert index.replayable
    for mine, its in zip(index.draw_at(combination, share), expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0, equal_nan=True)


def test_shares_need_latents_that_are_held_and_equal_values():
    index = CLIndex(make(), ["load"], tolerance={"load": 0.1})
    assert not index.replayable
    with pytest.raises(InvalidInput, match="draw_at needs latents that are held and values without a tolerance"):
        index.draw_at(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64))


def test_queries_are_uniform_too():
    recording = make(n_trials=10)
    index = CLIndex(recording, ["phase"])
    seen = np.zeros(recording.n_samples)
    for seed in range(600):
        seen[index.query({"phase": "demo"}, n=5, seed=seed)["sample"].values] += 1
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-3
    assert (seen > 0).sum() == index.counts[index.combinations[:, 0] == 7].sum()


def test_a_generator_fixes_the_draw():
    index = CLIndex(make(), ["phase"])
    asked = torch.full((100, 1), 7.0)
    draws = [index.sample(asked, torch.Generator().manual_seed(seed)).samples.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@settings(max_examples=60)
@given(st.data(), st.integers(0, 50))
def test_a_query_returns_only_what_was_asked_for(data, seed):
    recording = make(seed, n_trials=10)
    frame = table(recording)
    index = CLIndex(recording, ["phase", "count", "load"])
    code = {"demo": 7, "resp": 3, "rest": 40}
    phase = data.draw(st.sampled_from([None, ANY, "demo", ["resp", "rest"], {"demo", "resp"}]))
    count = data.draw(st.sampled_from([None, ANY, 3, [1, 2], between(-1, 2)]))
    load = data.draw(st.sampled_from([None, 0.2, between(0.1, 0.2), (0.7, 0.1)]))
    query = {name: what for name, what in (("phase", phase), ("count", count), ("load", load)) if what is not None}
    mask = np.ones(len(frame), dtype=bool)
    if phase not in (None, ANY):
        mask &= frame["phase"].isin([code[p] for p in ([phase] if isinstance(phase, str) else phase)]).to_numpy()
    if count == between(-1, 2):
        mask &= frame["count"].between(-1, 2).to_numpy()
    elif count not in (None, ANY):
        mask &= frame["count"].isin(count if isinstance(count, list) else [count]).to_numpy()
    kept = np.float32(frame["load"])
    if load is not None:
        allowed = {0.2: [0.2], between(0.1, 0.2): [0.1, 0.2], (0.7, 0.1): [0.7, 0.1]}[load]
        mask &= np.isin(kept, np.float32(allowed))
    expected = frame["sample"].to_numpy()[mask]
    if expected.size == 0:
        with pytest.raises(NoMatch):
            index.query(query)
        return
    found = index.query(query)
    assert found["sample"].values.tolist() == expected.tolist()
    np.testing.assert_array_equal(found.values, recording.latents()[expected])
    n = data.draw(st.integers(1, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewMatchesWarning)
        some = index.query(query, n=n, seed=seed)
    chosen = some["sample"].values
    assert len(chosen) == len(set(chosen)) == min(n, expected.size)
    assert np.isin(chosen, expected).all()


def test_a_query_is_labelled():
    recording = make()
    found = CLIndex(recording, ["phase", "count"], units=["u1", "u0"]).query({"phase": "demo", "count": 3}, n=5, seed=0)
    assert found.dims == ("sample", "unit")
    assert found.name == "activity"
    assert found.attrs == {"units": "Hz", "recording": "planted"}
    assert found["unit"].values.tolist() == ["u1", "u0"]
    assert found["depth"].values.tolist() == [0.2, 0.1]
    rows = found["sample"].values
    for name in ("trial", "step", "count", "load", "eligible"):
        np.testing.assert_array_equal(found[name], recording.dataset[name].values[rows])
    assert found["phase"].values.tolist() == ["demo"] * 5
    assert "flag_meanings" not in found["phase"].attrs
    np.testing.assert_array_equal(found.sel(unit="u0"), rows)
    again = CLIndex(recording, ["phase", "count"]).query({"phase": "demo", "count": 3}, n=5, seed=0)
    assert set(again["sample"].values) <= set(np.flatnonzero(recording.complete()))


def test_fewer_matches_than_asked_for_are_returned_with_a_warning():
    index = CLIndex(make(), ["phase", "count"])
    expected = len(index.query({"phase": "rest", "count": 1}))
    with pytest.warns(FewMatchesWarning, match=f"only {expected} of the 500 requested samples"):
        found = index.query({"phase": "rest", "count": 1}, n=500)
    assert len(found) == expected


def test_a_miss_tells_what_was_asked_and_what_is_near():
    recording = Recording.from_arrays(
        np.zeros((5, 1)),
        {"phase": ["demo", "demo", "demo", "resp", "resp"], "count": [1, 2, 2, 5, 9]},
        name="toy",
    )
    with pytest.raises(NoMatch) as caught:
        CLIndex(recording, ["phase", "count"]).query({"phase": "demo", "count": 5})
    assert caught.value.message == (
        "no sample of 'toy' has phase=demo count=5; nearest recorded: phase=demo count=2 (2 samples), "
        "phase=demo count=1 (1 samples), phase=resp count=5 (1 samples)"
    )
    assert caught.value.exit_code != 0


@pytest.mark.parametrize(
    ("query", "error", "expected"),
    [
        ({"phaes": "demo"}, NotFound, "no variable 'phaes'; it has phase, count, load"),
        ({"load": 0.1}, InvalidInput, "this index has the variables phase, count, not 'load'"),
        ({"phase": "dmeo"}, InvalidInput, "no value 'dmeo'; its values are demo, resp, rest"),
        ({"count": "many"}, InvalidInput, "no value 'many'; its values are -2, -1, 0"),
    ],
)
def test_unknown_names_list_what_exists(query, error, expected):
    with pytest.raises(error, match=expected):
        CLIndex(make(), ["phase", "count"]).query(query)


def test_bad_arguments():
    recording = make()
    with pytest.raises(NotFound, match="no variable 'phaes'"):
        CLIndex(recording, ["phaes"])
    with pytest.raises(NotFound, match="no unit 'u7'"):
        CLIndex(recording, ["phase"], units=["u7"])
    for variables in ([], ["phase", "phase"]):
        with pytest.raises(InvalidInput, match="expected variables, each once"):
            CLIndex(recording, variables)
    index = CLIndex(recording, ["phase", "count"])
    with pytest.raises(InvalidInput, match=r"expected values of shape \(n_queries, 2\) for phase, count, got \(4, 3\)"):
        index.sample(torch.zeros(4, 3))
    with pytest.raises(InvalidInput, match="expected n of at least 1"):
        index.query({"phase": "demo"}, n=0)
    with pytest.raises(InvalidInput, match="expected at least one row of values"):
        index.coverage(torch.zeros(0, 2))
    assert index.sample(torch.zeros(0, 2)).latents.shape == (0, 3)
    assert not index.sample(torch.full((1, 2), torch.nan)).hit.any()
    assert not index.sample(torch.tensor([[torch.inf, -torch.inf]])).hit.any()


def test_no_sample_left():
    activity = np.full((3, 2), np.nan)
    activity[0, 0] = activity[1, 1] = 0
    recording = Recording.from_arrays(activity, {"v": [1, 2, 3]}, name="gaps", missing=True)
    with pytest.raises(InvalidInput, match=r"none of 3 samples is left: .* 3 incomplete in the 2 units of the index"):
        CLIndex(recording, ["v"])
    assert CLIndex(recording, ["v"], units=["u1"]).n_samples == 1


def test_a_split_keeps_training_and_held_out_trials_apart():
    recording = make()
    splits = split_by_trial(recording)
    indices = {name: CLIndex(recording, ["phase"], split=split) for name, split in splits.items()}
    whole = CLIndex(recording, ["phase"])
    assert sum(index.n_samples for index in indices.values()) == whole.n_samples
    asked = torch.full((2000, 1), 7.0)
    for name, index in indices.items():
        trials = recording.trial[index.sample(asked).samples]
        assert np.isin(trials, splits[name].trials).all()
        assert np.isin(index.query({"phase": "demo"})["trial"], splits[name].trials).all()
    with pytest.raises(InvalidInput, match="was made of recording 'planted'"):
        CLIndex(make(n_trials=9), ["phase"], split=splits["train"])


def test_ineligible_samples_on_request():
    recording = make()
    index = CLIndex(recording, ["phase"], eligible_only=False)
    assert index.n_samples == recording.complete().sum()


def test_many_variables_of_many_values_do_not_overflow():
    rng = np.random.default_rng(0)
    names = [f"v{number}" for number in range(8)]
    values = rng.normal(size=(3000, 8))  # 3000**8 combinations are conceivable, far beyond 64 bits
    recording = Recording.from_arrays(np.arange(3000.0)[:, None], dict(zip(names, values.T, strict=True)), name="wide")
    index = CLIndex(recording, names)
    draw = index.sample(torch.from_numpy(values))
    assert draw.samples.tolist() == list(range(3000))
    crossed = values.copy()
    crossed[:, 7] = np.roll(crossed[:, 7], 1)
    assert not index.sample(torch.from_numpy(crossed)).hit.any()


def test_integers_far_apart():
    recording = Recording.from_arrays(np.zeros((3, 1)), {"v": [-(2**40), 0, 2**40]}, name="far")
    assert CLIndex(recording, ["v"]).sample(torch.tensor([[2.0**40], [1.0]]).double()).hit.tolist() == [True, False]


@pytest.mark.parametrize("base", [2**40, 2**50, -(2**53) + 10, 2**53 - 5])
def test_large_whole_numbers_close_together_are_told_apart(base):
    near = base + np.arange(400) % 4
    recording = Recording.from_arrays(
        np.arange(400.0)[:, None], {"a": near, "b": np.arange(400) // 4, "c": near}, name="x"
    )
    index = CLIndex(recording, ["a", "b", "c"])
    draw = index.sample(torch.from_numpy(recording.values(["a", "b", "c"])))
    assert draw.samples.tolist() == list(range(400))


def test_values_that_no_number_can_be_are_misses():
    index = CLIndex(make(), ["count", "phase"])
    odd = torch.tensor([[np.inf, 7], [1e308, 1e308], [np.nan, 7], [0.5, 7], [-np.inf, np.nan]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not index.sample(odd).hit.any()
        assert not CLIndex(make(), ["load"]).sample(odd[:, :1]).hit.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_samples_and_latents_of_an_index_are_its_own(dtype):
    recording = make()
    index = CLIndex(recording, ["phase"], dtype=dtype)
    assert index.latents.dtype == dtype
    samples = index.samples.numpy()
    assert (np.diff(samples) > 0).all()
    np.testing.assert_array_equal(samples, table(recording)["sample"])
    torch.testing.assert_close(index.latents, torch.from_numpy(recording.latents()[samples]).to(dtype))
    before = recording.latents()
    index.latents.zero_()
    np.testing.assert_array_equal(recording.latents(), before)


def test_meanings_of_a_query_can_be_compared_and_grouped_by():
    recording = make()
    latents = CLIndex(recording, ["phase", "count"]).query({})
    code = {"demo": 7, "resp": 3, "rest": 40}
    codes = recording.values(["phase"])[latents["sample"].values, 0]
    means = latents.groupby("phase").mean()
    for meaning, number in code.items():
        np.testing.assert_array_equal(latents.phase == meaning, codes == number)
        expected = recording.latents()[latents["sample"].values[codes == number]].mean(axis=0)
        np.testing.assert_allclose(means.sel(phase=meaning), expected, rtol=1e-4)


def test_tokens_of_a_query_are_words():
    recording = Recording.from_arrays(
        np.zeros((3, 1)), {"n": [0, 0, 1]}, name="r", token=[1, 0, 1], vocabulary=["BOS", "D"]
    )
    assert CLIndex(recording, ["n"]).query({"n": 0}).token.values.tolist() == ["D", "BOS"]


def test_names_that_are_misspelt_get_the_nearest():
    index = CLIndex(make(), ["phase", "count"])
    with pytest.raises(NotFound, match=r"no variable 'phaes'.*did you mean 'phase'\?$"):
        index.query({"phaes": "demo"})
    with pytest.raises(InvalidInput, match=r"no value 'dmeo'.*did you mean 'demo'\?$"):
        index.query({"phase": "dmeo"})
    with pytest.raises(InvalidInput, match=r"not 'load'; make an index with 'load' to query it$"):
        index.query({"load": 0.1})
    with pytest.raises(InvalidInput, match=r"did you mean 'count'\?$"):
        CLIndex(make(), ["phase", "count"], tolerance={"cuont": 1.0})


def test_an_index_shows_what_it_has():
    recording = Recording.from_arrays(
        np.zeros((4, 2)),
        {"phase": ["<b>demo</b>", "resp", "resp", "resp"], "count": [1, 2, 1, 1]},
        name="toy",
        eligible=[True, True, True, False],
    )
    index = CLIndex(recording, ["phase", "count"])
    assert repr(index).splitlines() == [
        "<CLIndex of 'toy' (sample: 3, combination: 3, unit: 2)>",
        "Variables:",
        "    phase    categorical: <b>demo</b>, resp",
        "    count    integer: 1 to 2",
        "Left out: 1 not eligible",
    ]
    page = index._repr_html_()
    assert "<b>demo" not in page
    for text in (
        "&lt;b&gt;demo&lt;/b&gt; (1), resp (2)",
        "1 (2), 2 (1)",
        "1 not eligible",
        "3, with 1 to 1 samples each",
    ):
        assert text in page
