"""Variables from columns: values that differ stay apart, and what is missing is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neuromas.errors import InvalidDocument
from neuromas.recordings.columns import make_variables, tidy
from neuromas.schema.recipe import VariableRecipe


def made(values: list[object], **recipe: object) -> tuple[list[object], tuple[str, ...] | None]:
    recipes = {"v": VariableRecipe(expression="x", **recipe)}
    found, (spec,) = make_variables(recipes, {"x": np.array(values)}, "example")
    return found["v"].tolist(), spec.meanings


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1234567, 1234568], ["1234567", "1234568"]),
        ([1234567.0, 1234568.0], ["1234567", "1234568"]),
        ([0.1234567, 0.1234568], ["0.1234567", "0.1234568"]),
        ([1.0, 2.5], ["1", "2.5"]),
    ],
)
def test_categories_with_many_digits_stay_apart(values, texts):
    assert made(values, type="categorical") == (texts, tuple(texts))
    assert made(values, meanings={one: f"m{one}" for one in texts})[0] == [f"m{one}" for one in texts]


def test_bins_with_many_digits_stay_apart():
    found, meanings = made([0.12345671, 0.12345681], bins=[0.1234567, 0.1234568, 0.1234569])
    assert meanings == ("[0.1234567, 0.1234568)", "[0.1234568, 0.1234569]")
    assert found == list(meanings)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, pd.NA, 2], [1, None, 2]),
        ([True, pd.NA], [1, None]),
        (["a", pd.NA], ["a", ""]),
        ([pd.NaT, 1.5], [None, 1.5]),
    ],
)
def test_what_pandas_takes_for_nothing(values, expected):
    found = tidy(np.array(values, dtype=object)).tolist()
    assert [None if one != one else one for one in found] == expected


@pytest.mark.parametrize("expression", ["x < 0.5", "not x < 0.5", "where(x < 0.5, 'fast', 'slow')", "side == 'l'"])
def test_what_is_missing_is_in_no_category(expression):
    columns = {"x": np.array([0.1, np.nan, 0.9]), "side": np.array(["l", "", "r"])}
    with pytest.raises(InvalidDocument, match=r"1 of 3 entries of .* are missing"):
        make_variables({"v": VariableRecipe(expression=expression)}, columns, "example")
