"""What figures take from a table: the worst direction, the better rank, means with errors over systems."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from neuromas.errors import InvalidInput
from neuromas.experiments.table import best_of, headline, mean_and_error


@pytest.fixture
def table():
    """Two pairs of systems, two ranks, two directions, one control; rank 32 is better in validation, worse in the test."""
    rows = []
    for number, systems in enumerate(("a + b", "c + d")):
        for rank, loss, iia in ((16, 0.4, 0.9), (32, 0.2, 0.5)):
            fit = {
                "label": "mas",
                "systems": systems,
                "rank": rank,
                "fit": f"{systems}-{rank}",
                "validation_loss": loss,
            }
            for method, trained, value in (("mas", True, iia), ("mas", True, iia + 0.1 * number), ("none", False, 0.0)):
                rows.append({**fit, "method": method, "trained": trained, "iia": value, "validation_iia": 1 - loss})
    return pd.DataFrame(rows)


def test_headline_is_the_worst_trained_direction(table):
    found = headline(table)
    assert found["iia"].tolist() == [0.9, 0.5, 0.9, 0.5]
    assert set(found["method"]) == {"mas"}


@pytest.mark.parametrize("score", ["validation_loss", "validation_iia"])
def test_validation_chooses_even_where_the_test_would_choose_otherwise(table, score):
    chosen = best_of(table, ["label", "systems"], score=score)
    assert set(chosen["rank"]) == {32}
    assert len(chosen) == 6


def test_the_test_may_not_choose(table):
    with pytest.raises(InvalidInput, match="validation_loss or validation_iia, got 'iia'"):
        best_of(table, ["label"], score="iia")


def test_mean_and_standard_error_over_systems():
    values = {"a": [0.2, 0.4], "b": [0.6], "c": [0.9]}  # two rows of the same systems are no two observations
    rows = [{"rank": 2, "label": "x", "systems": name, "iia": iia} for name, iias in values.items() for iia in iias]
    found = mean_and_error(pd.DataFrame(rows), ["label", "rank"])
    means = np.array([0.3, 0.6, 0.9])
    assert found["n"].tolist() == [3]
    assert found["mean"][0] == pytest.approx(means.mean())
    assert found["error"][0] == pytest.approx(means.std(ddof=1) / math.sqrt(3))


def test_one_pair_of_systems_has_no_error():
    found = mean_and_error(pd.DataFrame([{"rank": 2, "systems": "a", "iia": 0.5}]), ["rank"])
    assert found["mean"].tolist() == [0.5]
    assert math.isnan(found["error"][0])
