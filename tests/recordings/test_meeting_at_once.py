"""All variables that need a mapping are named at once, with the one mapping that joins them all."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from neuromas.align.side import PARTS
from neuromas.errors import InvalidInput
from neuromas.evaluation.stimulation import stimulation_plan
from neuromas.fit.fitters import LatentStitch
from neuromas.index.index import CLIndex
from neuromas.recordings.join import join
from neuromas.recordings.pseudo import pool
from neuromas.recordings.recording import Recording

SMALL = {"solver": "closed-form", "n_train_pairs": 300, "n_validation_pairs": 60}
N, SIDE, CUE = np.tile([1, 10, 2], 40), np.tile(["l", "r"], 60), np.repeat(["go", "stop"], 60)


def recorded(name: str, **variables: object) -> Recording:
    activity = np.column_stack([N, SIDE == "r", CUE == "go"]).astype(float)
    return Recording.from_arrays(activity, variables, name=name)


def offered(error: pytest.ExceptionInfo[InvalidInput]) -> dict:
    return json.loads(re.search(r"mapping=(\{.*\})$", str(error.value))[1])


PLAIN = {"n": N, "cue": CUE, "side": SIDE}
OTHER = {
    "n": N.astype(str),
    "cue": np.where(CUE == "go", 1, 0),
    "side": np.where(SIDE == "l", "left", "right"),
}


def test_a_fit_names_all_variables_and_offers_one_mapping():
    """Numbers and text, codes and text, and text of other words."""
    pair = [recorded("a", **PLAIN), recorded("b", **OTHER)]
    fit = LatentStitch(3, **SMALL)
    with pytest.raises(InvalidInput, match="3 variables do not meet") as caught:
        fit.fit(pair)
    mapping = offered(caught)
    assert mapping == {
        "b": {
            "n": {"values": {"1": "1", "2": "2", "10": "10"}},
            "cue": {"values": {"go": 0, "stop": 1}},
            "side": {"values": {"l": "left", "r": "right"}},
        }
    }
    assert "say which is which, e.g. if 0 means 'go' and 1 means 'stop'" in str(caught.value)
    mapping["b"]["cue"]["values"] = {"go": 1, "stop": 0}
    _, b = fit.fit(pair, mapping=mapping).sides
    np.testing.assert_array_equal(b.recording.values(["n"])[:, 0], N)
    assert b.recording.to_dataset()["cue"].values.tolist() == CUE.tolist()


def test_variables_of_other_words_are_named_at_once():
    other = {"cue": np.where(CUE == "go", "G", "S"), "side": np.where(SIDE == "l", "left", "right")}
    pair = [recorded("a", cue=CUE, side=SIDE), recorded("b", **other)]
    with pytest.raises(InvalidInput, match="2 variables do not meet") as caught:
        LatentStitch(3, variables=["cue", "side"], **SMALL).fit(pair)
    assert "no value of 'cue' in common" in str(caught.value)
    assert "no value of 'side' in common" in str(caught.value)
    result = LatentStitch(3, variables=["cue", "side"], **SMALL).fit(pair, mapping=offered(caught))
    assert [misses.n_missed for misses in result.report.misses] == [0, 0]


def test_the_offered_mapping_keeps_what_was_mapped_before():
    pair = [recorded("a", **PLAIN), recorded("b", number=OTHER["n"], what=CUE, side=SIDE)]
    begun = {"b": {"n": "number", "cue": {"name": "what", "values": {"go": "go", "stop": "stop"}}}}
    with pytest.raises(InvalidInput) as caught:
        LatentStitch(3, **SMALL).fit(pair, mapping=begun)
    mapping = offered(caught)
    assert mapping["b"]["cue"] == begun["b"]["cue"]
    assert mapping["b"]["n"] == {"name": "number", "values": {"1": "1", "2": "2", "10": "10"}}
    result = LatentStitch(3, **SMALL).fit(pair, mapping=mapping)
    np.testing.assert_array_equal(result.sides[1].recording.values(["n"])[:, 0], N)


def test_a_variable_whose_values_were_mapped_before_is_mapped_from_its_own_values():
    pair = [recorded("a", side=SIDE), recorded("b", side=OTHER["side"])]
    begun = {"b": {"side": {"values": {"links": "left", "rechts": "right"}}}}
    with pytest.raises(InvalidInput, match="side of 'b' is links, rechts") as caught:
        LatentStitch(3, **SMALL).fit(pair[::-1], mapping=begun)
    assert offered(caught) == {"b": {"side": {"values": {"l": "left", "r": "right"}}}}


def test_pool_names_all_variables_of_all_recordings():
    recordings = [recorded("a", **PLAIN), recorded("b", **OTHER), recorded("c", n=N.astype(str), cue=CUE, side=SIDE)]
    with pytest.raises(InvalidInput, match=r"^pool: 3 variables do not meet") as caught:
        pool(recordings, ["n", "cue"], name="p")
    assert caught.value.kind == "recordings_differ"
    mapping = offered(caught)
    assert {name: list(entries) for name, entries in mapping.items()} == {"b": ["n", "cue"], "c": ["n"]}
    mapping["b"]["cue"]["values"] = {"go": 1, "stop": 0}
    joined = pool(recordings, ["n", "cue"], name="p", mapping=mapping)
    np.testing.assert_array_equal(joined.latents()[:, ::3], np.repeat(joined.values(["n"]), 3, axis=1))


def test_join_names_all_variables():
    with pytest.raises(InvalidInput, match=r"(?s)'n' is a number in 'a'.*'cue' is categorical in 'a'"):
        join([recorded("a", n=N, cue=CUE), recorded("b", n=OTHER["n"], cue=OTHER["cue"])])


def test_queries_name_all_values_that_do_not_exist():
    index = CLIndex(recorded("a", **PLAIN), ["n", "cue", "side"])
    with pytest.raises(InvalidInput) as caught:
        index.query({"n": 1, "cue": "gone", "side": ["l", "up", "down"]})
    assert str(caught.value) == (
        "variable 'cue' has no value 'gone'; its values are go, stop; did you mean 'go'?; "
        "variable 'side' has no value 'up', 'down'; its values are l, r"
    )


def test_plans_name_all_values_that_do_not_exist():
    result = LatentStitch(3, **SMALL).fit([recorded("a", **PLAIN), recorded("b", **PLAIN)])
    source, target = result.sides
    with pytest.raises(InvalidInput, match=r"'cue' has no value 'gone'.*'side' has no value 'up'"):
        stimulation_plan(result.alignment, source, target, {"cue": "gone", "side": "up"}, part=PARTS[-1])


def test_pool_offers_a_mapping_for_other_words():
    """Booleans of NumPy are true and false, those of a text file often True and False."""
    pair = [recorded("a", hit=SIDE == "l"), recorded("b", hit=np.where(SIDE == "l", "True", "False"))]
    with pytest.raises(InvalidInput, match="without a value in common; say which is which") as caught:
        pool(pair, ["hit"], name="p")
    assert caught.value.kind == "recordings_differ"
    joined = pool(pair, ["hit"], name="p", mapping=offered(caught))
    np.testing.assert_array_equal(joined.latents()[:, 1], joined.latents()[:, 4])
    # joined one after the other, they may differ
    assert join([recorded("c", cue=CUE), recorded("d", cue=np.full(N.shape, "rest"))]).n_samples == 2 * len(N)
