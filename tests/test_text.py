"""Hostile names reach terminals, pages and tables as text."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from neuromas import Recording, RecordingStore, html
from neuromas.cli.verbs import app
from neuromas.recordings.export import export
from neuromas.report.figures import png
from neuromas.schema.actions import requests_by_verb
from neuromas.text import cell, csv_table, exact, visible

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\x00\x08"
BIDI = "abc\u202edcb\u2066\u200f\u2028\ufeff"
HOSTILE = [ESCAPES, BIDI, "<script>alert(1)</script>", "\"><img src=x onerror='a'>", "two\nlines\rover", "$\\frac{"]
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def test_control_characters_are_codes():
    assert visible(ESCAPES) == r"\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\x00\x08"
    assert visible(BIDI) == r"abc\u202edcb\u2066\u200f\u2028\ufeff"
    assert visible("σ = 3 µV, größer, 日本") == "σ = 3 µV, größer, 日本"
    assert visible("a\nb\tc") == "a\nb\tc"
    assert visible("a\nb\tc\r", lines=False) == r"a\nb\tc\r"
    assert visible("\ud800") == r"\ud800"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-a", "@SUM(A1)", "\t=1", "\r=1", "  =1", "-", "+"])
def test_formulas_are_text(text):
    assert cell(text).startswith("'")


@pytest.mark.parametrize("value", ["-1", "+2.5e3", "-inf", "1", "left", "", "a=b", -1, 2.5, None, "x-y"])
def test_numbers_and_words_stay(value):
    assert cell(value) == value


def test_tables_hold_no_formula():
    table = pd.DataFrame({"=A1": ["@b", "-1"], "n": [-1.5, 2], "+m": pd.Categorical(["-x", "y"]), "none": [None, "=z"]})
    rows = list(csv.reader(io.StringIO(csv_table(table, index=False))))
    assert rows == [
        ["'=A1", "n", "'+m", "none"],
        ["'@b", "-1.5", "'-x", ""],
        ["-1", "2.0", "y", "'=z"],
    ]


@pytest.fixture
def hostile():
    """A recording in which every free text is hostile."""
    return Recording.from_arrays(
        np.arange(len(HOSTILE) * 2.0).reshape(len(HOSTILE), 1, 2),
        {"word": np.array([f"{index}{text}" for index, text in enumerate(HOSTILE)])},
        name="toy",
        system=ESCAPES,
        layer=BIDI,
        units=["=1+1" + ESCAPES, "<b>" + BIDI],
        unit_metadata={"area": ["@" + ESCAPES, "-x"]},
        activity_units="Hz" + ESCAPES,
        licence=ESCAPES,
        description="<script>" + BIDI,
        citation=ESCAPES,
    )


def test_looks_escape_everything(hostile):
    page = hostile._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    for text in (page, repr(hostile), html.table(HOSTILE, [HOSTILE], caption=ESCAPES, note=BIDI)):
        assert not UNSEEN.search(text)
    assert "<script" not in html.fields("<script>", {"<script>": "<script>"})


def test_the_command_line_shows_hostile_names_as_text(hostile, tmp_path):
    RecordingStore(tmp_path / "store").register(hostile, set="lab")
    place = ["--store", str(tmp_path / "store")]
    for words in (
        ["list", *place],
        ["show", "lab/toy", *place],
        ["show", "lab/toy", "--json", *place],
        ["verify", *place],
        ["query", "lab/toy", "word=" + ESCAPES, *place],
        ["query", "lab/" + ESCAPES, "word=1", *place],
        ["show", "lab/" + BIDI, *place],
        ["export", "lab/toy", "--out", "-", *place],
        ["register", str(tmp_path / f"{BIDI}\x1b[31m.npz"), "--set", "lab", *place],
        ["register", str(tmp_path / f"{BIDI}\x1b[31m.xyz"), "--set", "lab", *place],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        assert not UNSEEN.search(result.output), words
        assert result.output


def test_exports_hold_no_formula(hostile, tmp_path):
    rows = list(csv.reader(io.StringIO(export(hostile, tmp_path / "toy.csv").read_text(encoding="utf-8"))))
    for row in rows:
        for text in row:
            assert not text.startswith(("=", "@", "\t", "\r"))
            assert not UNSEEN.search(text)
    assert rows[0][-2].startswith("'=1+1")
    assert [float(number) for number in rows[1][-2:]] == [0, 1]


def test_figures_draw_names_as_they_are():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 10], [1, 100], label="$\\frac{")
    axes.set_title("$\\broken", loc="left")
    axes.set_yscale("log")
    axes.set_xticks([1, 10], ["$a_{", "$\\x"])
    axes.legend()
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("bound", [2**64, 2**64 - 1, 2**31, 10**7, 123_456_789, 1e12, 0.001, 0.123456789, -3, 1e300])
def test_a_bound_is_shown_without_losing_a_digit(bound):
    shown = exact(bound)
    base, _, exponent = shown.replace(",", "").partition("^")
    assert (int(base) ** int(exponent) if exponent else type(bound)(base)) == bound
    assert ("e" in shown) == (bound == 1e300)


def test_help_and_errors_show_the_bound_of_seeds():
    refused = CliRunner().invoke(app, ["query", "a/b", "--seed", str(2**64)])
    assert "expected a number below 2^64, got '18446744073709551616'" in refused.output
    assert "< 2^64" in CliRunner().invoke(app, ["query", "--help"]).output
    schemas = [document.model_json_schema() for document in requests_by_verb().values()]
    assert not [shown for shown in map(str, schemas) if "e+1" in shown]
