"""Expressions over columns, against Python's own arithmetic on each row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.expression import evaluate, names_in

COLUMNS = {
    "n": np.array([1, 2, 3, 4]),
    "x": np.array([0.5, np.nan, -1.0, 2.0]),
    "side": np.array(["left", "right", "left", "none"]),
    "two words": np.array([10, 20, 30, 40]),
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("n", [1, 2, 3, 4]),
        ("n % 2 == 0", [False, True, False, True]),
        ("1 < n <= 3", [False, True, True, False]),
        ("side == 'left'", [True, False, True, False]),
        ("side in ['left', 'none']", [True, False, True, True]),
        ("side not in ['left', 'none']", [False, True, False, False]),
        ("n > 1 and side == 'left'", [False, False, True, False]),
        ("(n > 3) | (side == 'left')", [True, False, True, True]),
        ("not n > 2", [True, True, False, False]),
        ("isfinite(x) & ~(x < 0)", [True, False, False, True]),
        ("'up' if n > 2 else 'down'", ["down", "down", "up", "up"]),
        ("col('two words') / 10 - n", [0, 0, 0, 0]),
        ("contains(side, 'e')", [True, False, True, True]),
        ("number(text(n)) + 1", [2, 3, 4, 5]),
        ("-n // 2", [-1, -1, -2, -2]),
    ],
)
def test_rows(expression, expected):
    assert evaluate(expression, COLUMNS).tolist() == expected


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=8),
    st.integers(-9, 9),
    st.sampled_from(["a + {} * b", "(a - b) % 7 + {}", "a if a > {} else b", "(a > {}) or (b > {})", "a <= {} <= b"]),
)
def test_whole_columns_are_what_python_says_of_each_row(values, number, form):
    a, b = np.array(values), np.array(values[::-1])
    expression = form.replace("{}", f"({number})")
    rows = [eval(expression, {"a": int(one), "b": int(other)}) for one, other in zip(a, b, strict=True)]
    found = evaluate(expression, {"a": a, "b": b}).tolist()
    assert [bool(row) for row in found] == [bool(row) for row in rows] if "or" in form else found == rows


def test_columns_broadcast():
    columns = {"trial": np.array([[1], [2]]), "time": np.array([-1.0, 0.0, 1.0])}
    assert evaluate("where(time < 0, 0, trial)", columns).tolist() == [[0, 1, 1], [0, 2, 2]]


@pytest.mark.parametrize(
    "expression",
    [
        "n.__class__",
        "().__class__.__bases__",
        "[c for c in n]",
        "lambda: 0",
        "n[0]",
        "f'{n}'",
        "(n := 3)",
        "where(condition=n, x=1, y=2)",
        "where(*n)",
        "None",
        "b'x'",
        "1j",
    ],
)
def test_nothing_else_is_allowed(expression):
    with pytest.raises(InvalidInput, match="not allowed") as caught:
        evaluate(expression, COLUMNS, "variable 'v'")
    assert "variable 'v'" in str(caught.value)


def test_no_builtin_can_be_called():
    with pytest.raises(NotFound, match="no function '__import__'; there are abs"):
        evaluate("__import__('os')", COLUMNS)


def test_unknown_column_lists_those_there_are():
    with pytest.raises(NotFound, match="no column 'm'; there are n, x, side, two words"):
        evaluate("m + 1", COLUMNS)


@pytest.mark.parametrize("expression", ["n +", "", "n = 3", "x" * 3000, "side + n", "(" * 500 + "n" + ")" * 500])
def test_what_cannot_be_computed_is_one_error(expression):
    with pytest.raises((InvalidInput, NotFound)):
        evaluate(expression, COLUMNS)


def test_huge_powers_end_at_once():
    assert evaluate("9 ** 9 ** 9", COLUMNS).shape == ()


def test_names():
    assert names_in("where(a > 1, b, 'c')") == {"where", "a", "b"}
    assert names_in("a +") == set()
