"""The document of an evaluation: what it shows, its table, and documents of earlier versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuromas.errors import InvalidDocument
from neuromas.evaluation.accuracy import scores_table
from neuromas.schema.evaluation import SCORE_COLUMNS, Evaluation

ARCHIVED = Path(__file__).parents[1] / "fit" / "archive" / "format-1" / "clmas" / "evaluation.json"


@pytest.fixture(scope="module")
def archived() -> Evaluation:
    return Evaluation.parse(ARCHIVED.read_bytes(), str(ARCHIVED))


class TestVersion1:
    def test_access_becomes_ran(self, archived):
        scores = json.loads(ARCHIVED.read_text())["scores"]
        assert {score["access"] for score in scores} == {"yes", "no"}
        assert [score.ran for score in archived.scores] == [score["access"] == "yes" for score in scores]

    def test_it_is_written_as_version_3(self, archived):
        again = json.loads(archived.to_json())
        assert again["format_version"] == 3
        assert all("ran" in score and "access" not in score for score in again["scores"])
        assert Evaluation.parse(archived.to_json(), "again") == archived

    def test_what_was_wrong_with_it_still_is(self):
        document = json.loads(ARCHIVED.read_text())
        document["scores"][0]["access"] = "perhaps"
        del document["scores"][1]["iia"]
        with pytest.raises(InvalidDocument) as caught:
            Evaluation.parse(document, "here")
        assert {problem.split(":")[0] for problem in caught.value.problems} == {
            "scores.0.access",
            "scores.0.ran",
            "scores.1.iia",
        }

    @pytest.mark.parametrize("scores", [None, "none", [1, "two"]])
    def test_scores_that_are_none(self, scores):
        assert Evaluation.problems({**json.loads(ARCHIVED.read_text()), "scores": scores})

    def test_a_later_version_is_refused(self):
        (problem,) = Evaluation.problems({**json.loads(ARCHIVED.read_text()), "format_version": 4, "scores": []})
        assert problem == "format_version: expected 3, got 4"


class TestVersion2:
    def test_it_still_opens(self, archived):
        path = Path(__file__).parent / "archive" / "evaluation-2.json"
        assert json.loads(path.read_text())["format_version"] == 2
        evaluation = Evaluation.parse(path.read_bytes(), str(path))
        assert evaluation == archived
        score = evaluation.scores[0]
        assert (score.icc, score.trained, score.threads, score.right, evaluation.pairs) == (None, None, None, None, ())


class TestTable:
    def test_it_is_iia_csv(self, archived, tmp_path):
        (tmp_path / "iia.csv").write_text(scores_table(archived.scores))
        table = archived.to_dataframe()
        assert tuple(table.columns) == SCORE_COLUMNS
        read = pd.read_csv(tmp_path / "iia.csv").astype({"subspace": object})
        read["subspace"] = read["subspace"].fillna("")
        unknown = ["trained", "threads"]  # in evaluations of version 1
        assert table[unknown].isna().all(axis=None)
        pd.testing.assert_frame_equal(table.drop(columns=unknown), read.drop(columns=unknown), check_dtype=False)

    def test_types(self, archived):
        table = archived.to_dataframe()
        assert table["ran"].dtype == table["oracle"].dtype == np.dtype(bool)
        assert table["iia"].dtype == table["pattern"].dtype == np.dtype(float)
        assert table["n_pairs"].dtype.kind == "i"

    def test_without_scores(self, archived):
        assert archived.model_copy(update={"scores": ()}).to_dataframe().empty


class TestLooks:
    def test_repr_is_a_short_table(self, archived):
        lines = repr(archived).splitlines()
        assert lines[0] == f"<Evaluation: {len(archived.scores)} scores, 20 test pairs per direction, oracles: gru-1>"
        assert lines[1].split() == [
            "method",
            "source",
            "target",
            "ran",
            "iia",
            "95",
            "%",
            "interval",
            "icc",
            "cl_loss",
            "coverage",
        ]
        score = archived.scores[0]
        cells = lines[2].split()
        assert cells[:4] == [score.method, score.source, score.target, str(score.ran)]
        assert cells[4:6] == [f"{score.iia:.3f}", f"{score.low:.3f}–{score.high:.3f}"]
        assert len(repr(archived)) < 100 * (len(archived.scores) + 5)
        assert str(archived) == repr(archived)

    def test_many_scores_are_cut(self, archived):
        many = archived.model_copy(update={"scores": archived.scores * 20})
        assert len(repr(many).splitlines()) < 70
        assert f"… {len(many.scores) - 60} more scores" in repr(many)
        assert many._repr_html_().count("<tr>") == 61

    def test_one_score_is_one_line(self, archived):
        assert len(repr(archived.scores[0])) < 1000

    def test_html_is_escaped(self, archived):
        score = archived.scores[0].model_copy(update={"method": "<script>", "iia": None, "low": None})
        html = archived.model_copy(update={"scores": (score,), "warnings": ("a < b",)})._repr_html_()
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
        assert "warning: a &lt; b" in html
        assert "–" in html

    def test_subspaces_are_named(self, archived):
        scores = [archived.scores[0].model_copy(update={"subspace": name}) for name in ("", "count")]
        shown = repr(archived.model_copy(update={"scores": tuple(scores)}))
        assert [line.split()[3] for line in shown.splitlines()[1:]] == ["subspace", "all", "count"]


def test_the_schema_does_not_import_pandas():
    code = "import sys, neuromas.schema.evaluation; print('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
