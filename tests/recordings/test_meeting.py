"""Values meet by meaning: numbers and text, codes, and what is offered where they do not meet."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.index.index import CLIndex
from neuromas.measures.samples import DifferentValuesWarning, shared_samples
from neuromas.recordings.codes import CommonCodes
from neuromas.recordings.incomplete import MissingUnitsWarning, costly_units
from neuromas.recordings.meeting import Held, clashing_codes, mismatch, refusal
from neuromas.recordings.pseudo import pool
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import split_by_value
from neuromas.schema.recording import VariableSpec

N = np.tile([1, 10, 2], 20)


def recorded(name: str, values: object, variable: str = "n") -> Recording:
    """A recording whose only unit holds the number 1, 10 or 2 that the variable stands for."""
    return Recording.from_arrays(N[:, None] + 0.0, {variable: values}, name=name)


def categorical(*meanings: str, name: str = "n") -> VariableSpec:
    return VariableSpec(name=name, type="categorical", values=tuple(range(len(meanings))), meanings=meanings)


def offered(error: pytest.ExceptionInfo[InvalidInput]) -> dict:
    return json.loads(re.search(r"mapping=(\{.*\})$", str(error.value))[1])


# ------------------------------------------------------------------------------------------------- a number in a query


@pytest.mark.parametrize("value", [2, 2.0, np.int64(2), np.float32(2), "2", "2.0", " 2 "])
def test_a_number_means_the_value_and_not_the_code(value):
    labels = [str(number) for number in range(12)]  # sorted as text, "10" and "11" come before "2"
    index = CLIndex(Recording.from_arrays(np.arange(12.0)[:, None], {"cl": labels}, name="m"), ["cl"])
    assert index.query({"cl": value}).values.tolist() == [[2.0]]
    assert sorted(index.query({"cl": [value, 10]})["cl"].values.tolist()) == ["10", "2"]


def test_a_number_that_no_meaning_equals_is_refused():
    index = CLIndex(Recording.from_arrays(np.zeros((3, 1)), {"cl": ["3", "5", "7"]}, name="m"), ["cl"])
    with pytest.raises(InvalidInput, match="no value 1; its values are 3, 5, 7"):
        index.query({"cl": 1})


def test_meanings_of_one_number_are_told_apart_by_their_text():
    spec = categorical("007", "7", "8")
    assert [spec.code(value) for value in ("007", "7", 7, 7.0, 8)] == [0, 1, 1, 1, 2]
    for ambiguous in (categorical("07", "007"), categorical("nan", "1_0", "1")):
        with pytest.raises(KeyError):
            ambiguous.code(7 if "07" in (ambiguous.meanings or ()) else 10)


def test_truth_values_go_by_meaning():
    reversed_codes = VariableSpec(name="hit", type="categorical", values=(0, 1), meanings=("true", "false"))
    assert (reversed_codes.code(True), reversed_codes.code(np.bool_(False))) == (0, 1)
    with pytest.raises(KeyError):
        categorical("left", "right").code(True)
    assert categorical("0", "1").code(True) == 1
    assert categorical("left", "right").code(1) == 1  # no meaning is a number, so this is the code


def test_splits_take_numbers_as_values():
    splits = split_by_value(recorded("m", N.astype(str)), "n", {"train": [2], "test": [10]})
    assert set(N[splits["train"].trials]) == {2}
    assert set(N[splits["test"].trials]) == {10}


# ------------------------------------------------------------------------------------------------------------ mappings


def test_numeric_text_becomes_numbers_where_it_meets_numbers():
    like = [VariableSpec(name="n", type="integer")]
    for mapping in ({1: "1", 10: "10", 2: "2"}, {"1": "1", "10": "10", "2": "2"}):
        mapped = recorded("m", N.astype(str)).relabel({"n": {"values": mapping}}, like=like)
        assert mapped.spec("n").type == "integer"
        assert mapped.values()[:, 0].tolist() == N.tolist()
    halves = recorded("m", (N / 4).astype(str)).relabel(
        {"n": {"values": {"0.25": "0.25", "2.5": "2.5", "0.5": "0.5"}}}, like=[VariableSpec(name="n", type="real")]
    )
    assert halves.values()[:, 0].tolist() == (N / 4).tolist()


def test_every_recorded_value_needs_its_number():
    with pytest.raises(InvalidInput, match="mapped to numbers, but '2' is not") as caught:
        recorded("m", N.astype(str)).relabel(
            {"n": {"values": {"1": "1", "10": "10"}}}, like=[VariableSpec(name="n", type="integer")]
        )
    assert caught.value.kind == "invalid_mapping"


def test_floats_of_a_foreign_file_can_be_given_meanings():
    mapped = recorded("m", N.astype(float)).relabel({"n": {"values": {"one": 1, "ten": 10, "two": 2}}})
    assert mapped.to_dataset()["n"].values[:3].tolist() == ["one", "ten", "two"]


def test_a_mapping_may_name_the_reference_by_number():
    like = [categorical("demo", "response")]
    mapped = recorded("m", np.where(N == 1, 7, 8)).relabel({"n": {"values": {"0": 7, "1": 8}}}, like=like)
    assert set(mapped.to_dataset()["n"].values[N == 1]) == {"demo"}


# --------------------------------------------------------------------------------------------------- what is comparable


def test_the_offered_mapping_follows_from_equal_numbers():
    text, number = Held("a", categorical("01", "1", "2")), Held("b", VariableSpec(name="n", type="integer"), lambda: N)
    for one, other in ((text, number), (number, text)):
        assert '{"a": {"n": {"values": {"1": ["01", "1"], "2": "2"}}}}' in refusal([mismatch(one, other)])
    assert mismatch(number, number) is mismatch(text, text) is None
    assert "compare other variables" in refusal([mismatch(text, number, fixed={"a", "b"})])


def test_codes_of_two_causal_models_that_disagree():
    one, other = Held("a", categorical("demo", "response")), Held("b", categorical("response", "demo"))
    assert "'demo' has the code 0 in 'a', and in 'b' the code 1" in refusal([clashing_codes(one, other)])
    assert "that code means 'iti'" in refusal([clashing_codes(one, Held("c", categorical("demo", "iti")))])
    assert clashing_codes(one, Held("d", categorical("demo"))) is None


def test_meanings_that_only_later_systems_have_get_codes_of_their_own():
    codes = CommonCodes()
    codes.learn([categorical("left", "right", name="side")], {})
    codes.learn([VariableSpec(name="side", type="categorical", values=(0, 2), meanings=("left", "up"))], {})
    (spec,) = codes.like(["side"], {})
    assert dict(zip(spec.meanings, spec.values, strict=True)) == {"left": 0, "right": 1, "up": 2}
    (choice,) = codes.like(["choice"], {"side": "choice"})  # another name for the same thing
    assert (choice.name, choice.meanings) == ("choice", spec.meanings)


# ------------------------------------------------------------------------------------------------------ pool and compare


@pytest.mark.parametrize("first", [0, 1])
def test_pool_joins_equal_meanings_and_refuses_the_rest(first):
    pair = [recorded("a", N), recorded("b", N.astype(str))]
    with pytest.raises(InvalidInput, match="never compared with categories") as caught:
        pool([pair[first], pair[1 - first]], ["n"], name="p")
    assert caught.value.kind == "recordings_differ"
    joined = pool([pair[first], pair[1 - first]], ["n"], name="p", mapping=offered(caught))
    np.testing.assert_array_equal(joined.latents(), np.repeat(joined.values(), 2, axis=1))


def test_pool_takes_whole_numbers_and_floats_for_the_same():
    joined = pool([recorded("a", N), recorded("c", N.astype(float))], ["n"], name="p")
    assert joined.spec("n").type == "real"
    np.testing.assert_array_equal(joined.latents(), np.repeat(joined.values(), 2, axis=1))


def test_pool_refuses_a_mapping_for_nobody():
    with pytest.raises(InvalidInput, match="mapping for 'nobody'"):
        pool([recorded("a", N), recorded("b", N)], ["n"], name="p", mapping={"nobody": {"n": "m"}})


def test_compare_reads_text_and_numbers_alike(recwarn):
    shared_samples(recorded("a", N), recorded("b", N.astype(str)))
    assert not recwarn
    with pytest.warns(DifferentValuesWarning, match="n in 20 of 60 rows"):
        shared_samples(recorded("a", N), recorded("b", np.where(N == 10, "3", N.astype(str))))
    with pytest.warns(DifferentValuesWarning, match="n in 60 of 60 rows"):
        shared_samples(recorded("a", N), recorded("b", np.where(N == 10, "ten", "few")))


# ------------------------------------------------------------------------------------------------ units that cost samples


@pytest.mark.filterwarnings("default")
def test_indexes_and_comparisons_name_the_units_that_cost_samples():
    activity = np.random.default_rng(0).normal(size=(60, 4))
    activity[:25, 1] = activity[:25, 2] = np.nan
    holed = Recording.from_arrays(activity, {"n": N}, name="holed", missing=True)
    sentence = (
        "units 'u1', 'u2' were not recorded in up to 25 of 60 samples; without them 60 instead of 35 are complete"
    )
    index = CLIndex(holed, ["n"])
    assert sentence in repr(index)
    with pytest.warns(MissingUnitsWarning, match=sentence):
        index.query({"n": 1})
    with pytest.warns(MissingUnitsWarning, match=f"holed: {sentence}"):
        shared_samples(holed, recorded("a", N))
    assert sentence not in repr(CLIndex(holed, ["n"], units=["u0", "u3"]))
    with pytest.raises(InvalidInput, match="25 incomplete in the 4 units of the index; units 'u1', 'u2'"):
        CLIndex(holed.select_samples(np.arange(25)), ["n"])


def test_units_that_cost_little_are_not_named():
    activity = np.ones((60, 6))
    activity[:18, 1] = np.nan  # less than a third
    assert costly_units(Recording.from_arrays(activity, {"n": N}, name="few", missing=True)) == ""
    activity = np.where(np.arange(6) == np.arange(60)[:, None] % 6, np.nan, 1.0)  # each unit costs a sixth
    assert costly_units(Recording.from_arrays(activity, {"n": N}, name="all", missing=True)).count("'u") >= 2


def test_pool_names_the_unit_that_costs_most_joined_trials():
    scarce = Recording.from_arrays(np.ones((15, 1)), {"n": N[:15]}, name="scarce")
    pair = [recorded("a", N), recorded("b", N)]
    with pytest.warns(
        MissingUnitsWarning, match=r"unit 'scarce/u0' has 5 trials .* without it 20 are \(min_trials=6\)"
    ):
        joined = pool([*pair, scarce], ["n"], name="p")
    assert joined.n_samples == 15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pool([*pair, scarce], ["n"], name="p", min_trials=6).n_samples == 60
