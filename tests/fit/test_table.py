"""Columns of tables of fits, and tables of earlier versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from neuromas.fit.result import FitResult
from neuromas.fit.table import FIT_COLUMNS, fit_row, late_gain, read_table

ARCHIVE = Path(__file__).parent / "archive" / "format-1"
REPRODUCTION = Path(__file__).parents[2] / "docs" / "reproduction"


def test_late_gain_is_what_the_last_quarter_brought():
    def report(*losses: float) -> SimpleNamespace:
        history = [SimpleNamespace(iteration=10 * number, loss=loss) for number, loss in enumerate(losses)]
        return SimpleNamespace(history=history, iterations=10 * (len(losses) - 1))

    assert late_gain(report(4.0, 2.0, 1.0, 1.0, 1.0)) == 0.0
    assert late_gain(report(4.0, 2.0, 1.0, 1.0, 0.5)) == 0.5
    assert late_gain(report(4.0, 1.0, 2.0, 2.0, 1.5)) == 0.0  # noisy, but never better than before


@pytest.mark.parametrize(("name", "rank", "n_maps"), [("many/rank=2", 2, 1), ("clmas", 4, 2), ("closed", None, 2)])
def test_a_row_is_that_of_the_best_iteration(name, rank, n_maps):
    result = FitResult.load(ARCHIVE / name)
    row = fit_row(result.report, len(result.alignment.maps))
    best = min(result.report.history, key=lambda seen: seen.loss)
    assert set(FIT_COLUMNS) < set(row)
    assert (row["validation_loss"], row["best_iteration"], row["n_maps"]) == (best.loss, best.iteration, n_maps)
    assert row["validation_iia"] == min(best.iia.values(), default=None)
    assert row["rank"] == (result.alignment.rank if rank is None else rank)


def test_earlier_tables_of_settings_are_read():
    table = read_table(ARCHIVE / "many" / "table.csv")
    assert list(table) == [
        *("rank", "name", "status", "iterations", "best_iteration"),
        *("validation_loss", "validation_iia", "seconds"),
    ]
    for name, loss in zip(table["name"], table["validation_loss"], strict=True):
        report = FitResult.load(ARCHIVE / "many" / name).report
        assert loss == min(seen.loss for seen in report.history)


def test_earlier_tables_of_sweeps_are_read():
    table = read_table(REPRODUCTION / "3a" / "table.csv")
    assert "access" not in table
    pair = table["systems"].eq("multi-object/gru-0 + multi-object/gru-1")
    into_read = pair & table["target"].eq("multi-object/gru-1") & table["label"].eq("CLMAS")
    assert into_read.any()
    assert table["ran"].dtype == bool
    assert not table.loc[into_read, "ran"].any()
    assert table.loc[table["label"].eq("MAS"), "ran"].all()
    assert table["fit"].map(type).eq(str).all()


def test_todays_tables_are_read_as_they_are(tmp_path):
    table = pd.DataFrame({"iia": [0.5, 1.0], "ran": [True, False], "validation_loss": [0.25, 2.0], "fit": ["001", "a"]})
    table.to_csv(tmp_path / "table.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)
