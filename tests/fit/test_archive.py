"""Fits that earlier versions left: they open, are evaluated, and count as finished for the request that made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from neuromas.fit.folder import read_request
from neuromas.fit.request import reopen, run_request
from neuromas.fit.result import FitResult

ARCHIVE = Path(__file__).parent / "archive" / "format-1"
FOLDERS = sorted(path.parent.relative_to(ARCHIVE).as_posix() for path in ARCHIVE.rglob("result.json"))
IDENTITIES = {
    folder: json.loads((ARCHIVE / folder / "result.json").read_text(encoding="utf-8"))["identity"] for folder in FOLDERS
}


def test_the_archive_holds_every_kind_of_fit():
    assert FOLDERS == ["clmas", "closed", "many/rank=2", "many/rank=4", "roles"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_fit_of_format_1_is_finished_for_its_own_request(folder, tmp_path):
    copy = shutil.copytree(ARCHIVE / folder, tmp_path / "fit")
    before = (copy / "alignment.safetensors").read_bytes()
    result = run_request(read_request(copy), copy)  # fits nothing: a changed identity would be an error
    assert result.report.identity == IDENTITIES[folder]
    assert result.report.seconds == FitResult.load(ARCHIVE / folder).report.seconds
    assert (copy / "alignment.safetensors").read_bytes() == before


def test_an_evaluation_of_format_1_comes_to_the_same_numbers(tmp_path):
    copy = shutil.copytree(ARCHIVE / "clmas", tmp_path / "fit")
    filed = json.loads((copy / "evaluation.json").read_text(encoding="utf-8"))
    evaluation = reopen(copy).evaluate(n_pairs=filed["n_pairs"], controls=("none", "cl-ceiling"))
    expected = {(s["method"], s["source"], s["target"]): s for s in filed["scores"]}
    assert evaluation.scores
    for score in evaluation.scores:
        then = expected[score.method, score.source, score.target]
        assert score.coverage == then["coverage"]
        assert score.retrieval == pytest.approx(then["retrieval"])
        if score.iia is not None:
            assert score.iia == pytest.approx(then["iia"])
        if score.cl_loss is not None:
            assert score.cl_loss == pytest.approx(then["cl_loss"], rel=1e-4)
