"""Expressions that would fill the memory or never end are refused before anything is computed."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from neuromas import InvalidDocument, InvalidInput
from neuromas.recordings import expression_size
from neuromas.recordings.encode import manifest_fields
from neuromas.recordings.expression import evaluate, names_in
from neuromas.schema.recipe import ArraysRecipe
from neuromas.schema.recording import RecordingManifest

N = 100_000
COLUMNS = {
    "word": np.full(N, "abcdefghij"),
    "x": np.linspace(0, 1, N),
    "trial_time": np.zeros((N, 1)),
    "bin_time": np.zeros((1, 1000)),
}
TOO_LARGE = {
    "joined text": "+".join(["word"] * 390),
    "joined text, compared": "+".join(["word"] * 390) + " == word",
    "text in brackets": "(-x + " * 200 + "x" + ")" * 200,
    "long words": f"where(x > 0, '{'q' * 1500}', 'b')",
    "a long word in a choice": f"'{'q' * 1500}' if x > 0 else 'b'",
    "text many times": " or ".join(["(word + word == word)"] * 78),
    "every trial with every bin": "trial_time * bin_time + 1",
}


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """Columns of 4 MB may grow to 32 MB, as those of 400 MB to 3.2 GB."""
    monkeypatch.setattr(expression_size, "_LEAST", 2**20)


@pytest.mark.parametrize("name", TOO_LARGE)
def test_refused_at_once(name):
    tracemalloc.start()
    begin = time.monotonic()
    with pytest.raises(InvalidInput, match="would take") as refused:
        evaluate(TOO_LARGE[name], COLUMNS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.kind == "too_large"
    assert len(refused.value.message) < 300
    assert time.monotonic() - begin < 2
    assert peak < 2**20


def test_what_is_not_too_large_is_computed():
    assert evaluate("word + word", COLUMNS)[0] == "abcdefghijabcdefghij"
    assert evaluate("where(x > 0, abs(x) * 2 + 1, minimum(x, 3)) < 2 and x >= 0", COLUMNS).shape == (N,)
    assert evaluate("word in ['abcdefghij', 'b']", COLUMNS).all()
    few = {"a": np.array(["l", "r"]), "n": np.array([1, 2], dtype=np.int16)}
    assert evaluate("a + '-' + text(n)", few).tolist() == ["l-1", "r-2"]


def test_a_long_word_in_a_list_costs_nothing():
    tracemalloc.start()
    assert not evaluate(f"word in ['{'q' * 1500}']", COLUMNS).any()
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("text", ["-" * 1900 + "x", "(" * 900 + "x" + ")" * 900, "x+" * 900 + "x", "[" * 1000])
def test_deep_expressions_are_refused(text):
    with pytest.raises(InvalidInput, match="expression") as refused:
        evaluate(text, COLUMNS)
    assert len(refused.value.message) < 2500
    assert names_in("-" * 3000 + "x") == set()


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_deep_json_is_one_error(depth):
    deep = '{"variables": ' + "[" * depth + "]" * depth + "}"
    with pytest.raises(InvalidDocument):
        ArraysRecipe.parse(deep, "recipe")
    with pytest.raises((InvalidDocument, InvalidInput)):
        RecordingManifest.parse(manifest_fields(deep, "manifest"), "manifest")
    with pytest.raises(InvalidDocument, match="not JSON"):
        manifest_fields('{"seed": ' + "1" * 5000 + "}", "manifest")
