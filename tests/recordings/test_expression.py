"""Expressions over columns, against Python's own arithmetic on each row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.expression import evaluate, evaluate_known, evaluate_mask, names_in

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


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("l - r", [-25, 25]),
        ("-l", [0, -25]),
        ("ok + ok", [2, 0]),
        ("-ok", [-1, 0]),
        ("l * 10 ** 18", [0, 2.5e19]),
        ("l // 0 + r % 0", [None, None]),
        ("r ** -1", [1 / 25, float("inf")]),
    ],
)
def test_whole_numbers_never_wrap(expression, expected):
    columns = {"l": np.array([0, 25], np.uint8), "r": np.array([25, 0], np.uint8), "ok": np.array([True, False])}
    found = evaluate(expression, columns).tolist()
    assert [None if one != one else one for one in found] == expected


@pytest.mark.parametrize(
    "expression",
    ["minimum(a, b, c)", "sqrt(a, c)", "round(a, 0, c)", "clip(a, 0, 1, c)", "where(a > 1)", "startswith('a')"],
)
def test_functions_take_a_fixed_number_of_arguments(expression):
    columns = {"a": np.array([1.0, 5.0]), "b": np.array([3.0, 2.0]), "c": np.zeros(2)}
    with pytest.raises(InvalidInput, match=r"takes [123]"):
        evaluate(expression, columns)
    assert columns["c"].tolist() == [0, 0]


@pytest.mark.parametrize("expression", ["n in [a, b]", "'left' in side", "n in n", "side in 'left'", "n in ['1']"])
def test_in_is_for_lists_that_are_written_out(expression):
    columns = COLUMNS | {"a": np.ones(4), "b": np.ones(4)}
    with pytest.raises(InvalidInput, match=r"contains|text with numbers"):
        evaluate(expression, columns)


@pytest.mark.parametrize("expression", ["[1, 2]", "n == [1, 2, 3, 4]", "'a' * 3000000000"])
def test_lists_elsewhere_and_text_times_a_number_are_refused(expression):
    with pytest.raises(InvalidInput):
        evaluate(expression, COLUMNS)


@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("x < 0", [1]),
        ("not x < 0", [1]),
        ("x < 0 or n == 2", []),
        ("x < 0 and n == 2", [1]),
        ("isfinite(x) and x < 0", []),
        ("where(isnan(x), 'none', 'some')", []),
        ("where(n == 2, 0, x)", []),
        ("where(x < 0, 0, 1)", [1]),
        ("word == 'a'", [2]),
        ("word == ''", []),
        ("word in ['a', '']", []),
        ("word not in ['a']", [2]),
        ("contains(word, 'a')", [2]),
        ("0 < n < x", [1]),
        ("log(x) < 3", [1, 2]),
        ("n", []),
    ],
)
def test_what_is_missing_decides_nothing(expression, missing):
    columns = COLUMNS | {"word": np.array(["a", "b", "", "a"])}
    assert np.flatnonzero(evaluate_known(expression, columns)[1]).tolist() == missing


def test_a_mask_takes_no_row_that_something_missing_decides():
    columns = {"x": np.array([0.5, np.nan, -1.0, 2.0]), "side": np.array(["left", "", "right", "left"])}
    assert evaluate_mask("x < 1", columns, 4).tolist() == [True, False, True, False]
    assert evaluate_mask("not x < 1", columns, 4).tolist() == [False, False, False, True]
    assert evaluate_mask("side != 'left'", columns, 4).tolist() == [False, False, True, False]
    assert evaluate_mask("isnan(x)", columns, 4).tolist() == [False, True, False, False]
    with pytest.raises(InvalidInput, match=r"expected something true or false, got float64; compare it, e\.g\. x == 1"):
        evaluate_mask("x", columns, 4)
