"""Regular expressions that others write are matched within a time limit, and as Python's own."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from neuromas import InvalidInput, patterns
from neuromas.patterns import full_matches, groups_of
from neuromas.recordings.convert.converter import convert


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"((a{1,100}){1,100}){1,100}b"])
def test_endless_patterns_are_an_error(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "LIMIT_S", 0.2)
    begin = time.monotonic()
    with pytest.raises(InvalidInput, match=r"takes more than 0\.2 s") as refused:
        full_matches(pattern, ["a" * 2000 + "!"] * 100, "unit_columns")
    assert refused.value.kind == "invalid_recipe"
    assert time.monotonic() - begin < 5


SAME = (
    r"u\d+",
    r"(?!trial|step).*",
    r"(?P<kind>[a-z]+)_(?P<n>\d+)",
    r"(\w)\1",
    r"\w+",
    r"größ.*",
    r"(?i)U\d",
    r"[^_]*",
    "",
)


@pytest.mark.parametrize("pattern", [*SAME, "u1|u2", r"u\d$"])
def test_matches_are_those_of_python(pattern):
    names = ["u1", "u2", "U3", "trial", "step", "left_12", "aa", "größe", "日本", "", "u1\n", "u٣", "a b"]
    expected = {name: match.groupdict() for name in names if (match := re.fullmatch(pattern, name))}
    assert full_matches(pattern, names, "unit_columns") == expected
    assert groups_of(pattern, "unit_columns") == list(re.compile(pattern).groupindex)


@pytest.mark.parametrize(
    "pattern", ["(", "a{2,1}", "*", "(?R)", r"\p{L}", "(" * 500 + ")" * 500, "a" * 1001, "(?P<a>x)(?P<a>y)"]
)
def test_what_is_no_pattern_of_python_is_refused(pattern):
    with pytest.raises(InvalidInput, match="unit_columns"):
        full_matches(pattern, ["a"], "unit_columns")


def test_tables_with_endless_patterns(tmp_path, monkeypatch):
    """The recipes of tables and of spikes."""
    monkeypatch.setattr(patterns, "LIMIT_S", 0.2)
    name = "u" * 3000 + "!"
    (tmp_path / "a.csv").write_text(f"{name},side\n1,2\n")
    with pytest.raises(InvalidInput, match=r"unit_columns=.*takes more than"):
        convert(tmp_path / "a.csv", {"unit_columns": "(u|uu)+$", "variables": {"side": "side"}})
    (tmp_path / "a.txt").write_text(f"spikes,{name}\n1,2\n")
    recipe = {"event_columns": "(u|uu)+$", "start_s": 0, "stop_s": 1, "variables": {"t": "time"}}
    with pytest.raises(InvalidInput, match=r"event_columns=.*takes more than"):
        convert(tmp_path / "a.txt", recipe)


def test_one_repetition_in_another_still_finds_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("uu,uuu,side\n1,2,0\n3,4,1\n")
    recording = convert(tmp_path / "a.csv", {"unit_columns": "(u+)+$", "variables": {"side": "side"}})
    assert recording.unit_names == ["uu", "uuu"]
    assert np.array_equal(recording.latents(), [[1, 2], [3, 4]])
