"""Predicates, as objects and as text."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuromas.errors import InvalidInput
from neuromas.index.query import ANY, Between, between, describe, matches, parse_query
from neuromas.schema.recording import VariableSpec

PHASE = VariableSpec(name="phase", type="categorical", values=(3, 5), meanings=("demo", "lick left"))
COUNT = VariableSpec(name="count", type="integer")
SPEED = VariableSpec(name="speed", type="real")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count=3", "3"),
        ("count=1,3, 5", ("1", "3", "5")),
        ("count=2..5", Between(2, 5)),
        ("count=-2..-1.5", Between(-2, -1.5)),
        ("count=..5", Between(-math.inf, 5)),
        ("count=2..", Between(2, math.inf)),
        ("count=any", ANY),
        ("count = lick left", "lick left"),
    ],
)
def test_text(text, expected):
    assert parse_query([text]) == {"count": expected}


@pytest.mark.parametrize(
    "text", ["count", "count=", "=3", "count=1,,2", "count=a..b", "count=5..2", "", "count=nan..1"]
)
def test_text_that_is_no_query(text):
    with pytest.raises(InvalidInput):
        parse_query([text])


def test_a_variable_asked_for_twice():
    with pytest.raises(InvalidInput, match="'count' is named twice"):
        parse_query(["count=1", "count=2"])


def test_description_reads_as_the_text():
    texts = ["phase=demo", "count=1,3", "speed=2..5", "load=any"]
    assert describe(parse_query(texts)) == " ".join(texts)


@pytest.mark.parametrize("meaning", ["a, b", "a,b", "1..2", "any", '"', 'say "no"', '"a" or "b, c"', "plain"])
def test_a_meaning_in_quotes_is_taken_as_it_is(meaning):
    quoted = '"' + meaning.replace('"', '""') + '"'
    assert parse_query([f"type={quoted}"]) == {"type": meaning}
    assert parse_query([f"type={quoted}, other"]) == {"type": (meaning, "other")}
    assert parse_query([describe({"type": meaning})]) == {"type": meaning}


@pytest.mark.parametrize("value", ['"a', '"a"b', '""', '"a",'])
def test_quotes_that_do_not_match_are_told(value):
    with pytest.raises(InvalidInput) as caught:
        parse_query([f"type={value}"])
    assert caught.value.kind == "invalid_query"


@pytest.mark.parametrize(
    ("predicate", "spec", "values", "expected"),
    [
        ("demo", PHASE, [3, 5], [True, False]),
        (5, PHASE, [3, 5], [False, True]),
        (["demo", "lick left"], PHASE, [3, 5], [True, True]),
        ({"lick left"}, PHASE, [3, 5], [False, True]),
        (ANY, PHASE, [3, 5], [True, True]),
        (2, COUNT, [1, 2, 3], [False, True, False]),
        ("2", COUNT, [1, 2, 3], [False, True, False]),
        (("1", 3), COUNT, [1, 2, 3], [True, False, True]),
        (range(2, 9), COUNT, [1, 2, 3], [False, True, True]),
        (np.array([3, 1]), COUNT, [1, 2, 3], [True, False, True]),
        (between(2, 3), COUNT, [1, 2, 3], [False, True, True]),
        (2.5, COUNT, [1, 2, 3], [False, False, False]),
        (between(0.1, 0.2), SPEED, np.array([0.1, 0.2, 0.3], "f4").astype(float), [True, True, False]),
        (0.1, SPEED, np.array([0.1, 0.2], "f4").astype(float), [True, False]),
    ],
)
def test_matches(predicate, spec, values, expected):
    fulfilled, distance = matches(predicate, spec, np.asarray(values, dtype=float), np.dtype(np.float32))
    assert fulfilled.tolist() == expected
    assert (distance == 0).tolist() == expected


@pytest.mark.parametrize(
    ("predicate", "spec", "expected"),
    [
        ("rest", PHASE, "has no value 'rest'; its values are demo, lick left"),
        (4, PHASE, "has no value 4; its values are demo, lick left"),
        (between(1, 2), PHASE, "is categorical and has no order"),
        ("three", COUNT, "has no value 'three'; its values are 1, 2"),
        (float("nan"), COUNT, "has no value nan"),
        ([], COUNT, "expected at least one value, got none"),
        (None, COUNT, "has no value None"),
    ],
)
def test_values_that_cannot_be(predicate, spec, expected):
    with pytest.raises(InvalidInput, match=expected):
        matches(predicate, spec, np.array([1.0, 2.0]), np.dtype(np.int32))
