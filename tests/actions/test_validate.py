"""Validate and ranks as actions and as verbs: what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import neuromas
from neuromas.actions.evaluate import evaluate
from neuromas.actions.ranks import ranks
from neuromas.actions.validate import validate
from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput, NotFound
from neuromas.fit.folder import read_validity
from neuromas.fit.result import FitResult
from neuromas.schema.actions import EvaluateRequest, RanksRequest, ValidateRequest
from neuromas.schema.locate import Location
from neuromas.schema.ranks import RankCurve
from neuromas.schema.validity import COLUMNS

NETWORK = "multi-object/gru-0"
QUICK = ["--batch-size", "16", "--max-iterations", "2", "--n-trials", "120", "--n-train-pairs", "60"]
QUICK += ["--n-validation-pairs", "20"]


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A nested fit of one network, too short to be good."""
    out = tmp_path_factory.mktemp("fit") / "f"
    run("fit", "das", "--system", NETWORK, "--rank", "count=4", "--nested", *QUICK, "--out", out)
    return out


def test_a_validation_is_shown_and_written(folder):
    output = run("validate", folder, "--pairs", 30)
    for check in ("interchange", "untrained", "wrong-model", "unmapped", "fresh", "probe", "divergence"):
        assert check in output
    assert "supported" in output
    validity = read_validity(folder)
    table = pd.read_csv(folder / "validity.csv")
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == len(validity.checks)
    assert {row.variant for row in validity.of("wrong-model")} == {"permuted values", "task modulo"}
    assert all(row.claim.low < row.claim.high for row in validity.checks if row.claim is not None)


def test_equal_seeds_give_equal_rows(folder):
    request = ValidateRequest(folder=str(folder), n_pairs=20, seed=3, checks=("interchange", "fresh", "probe"))
    assert validate(request).checks == validate(request).checks


def test_json_is_the_document(folder):
    document = json.loads(run("validate", folder, "--pairs", 20, "--checks", "interchange", "--json"))
    assert document["checks"][0]["check"] == "interchange"
    assert document["outcome"] in ("supported", "not supported", "undecided")


def test_an_evaluation_can_validate_too(folder):
    (folder / "validity.json").unlink(missing_ok=True)
    evaluate(EvaluateRequest(folder=str(folder), n_pairs=20, controls=()))
    assert not (folder / "validity.json").exists()
    output = run("evaluate", folder, "--pairs", 20, "--controls", "none", "--validity")
    assert "untrained" in output
    assert read_validity(folder).method == "das"


def test_what_cannot_be_validated_is_refused(folder, tmp_path):
    assert "no fit result" in run("validate", tmp_path, code=3)
    assert "can be run" in run("validate", folder, "--oracle", f"gru-0={NETWORK}", code=2)
    assert "expected 'interchange'" in run("validate", folder, "--checks", "everything", code=2)
    with pytest.raises(NotFound, match=r"no check 'probes'; .* did you mean 'probe'"):
        neuromas.reopen(folder).validate(checks=("probes",))
    with pytest.raises(NotFound, match="no validation"):
        read_validity(tmp_path)
    with pytest.raises(InvalidInput, match="without its systems"):
        FitResult.load(folder).validate()


def test_ranks_are_shown_written_and_drawn(folder):
    output = run("ranks", folder, "--pairs", 30)
    assert "is enough (95 % interval" in output
    curve = RankCurve.parse((folder / "ranks.json").read_bytes(), "here")
    assert curve.ranks == (1, 2, 4)
    assert len(pd.read_csv(folder / "ranks.csv")) == 3
    assert (folder / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert ranks(RanksRequest(folder=str(folder), n_pairs=30, ranks=(2,))).ranks == (2,)


def test_ranks_need_a_nested_fit(folder, tmp_path):
    run("fit", "das", "--system", NETWORK, "--rank", 4, *QUICK, "--out", tmp_path / "plain")
    output = run("ranks", tmp_path / "plain", code=2)
    assert "--nested" in output
    assert "expected numbers in 1..4" in run("ranks", folder, "--rank", 8, code=2)


def test_a_map_is_shown_written_and_drawn(tmp_path):
    words = ["--layer", "hidden", "--variable", "count", "--rank", "1,4", "--trials", 120, "--pairs", 30]
    output = run("locate", NETWORK, *words, "--fits", 1, "--max-iterations", 2, "--step-bins", 2, "--out", tmp_path)
    assert "corrected p" in output
    location = Location.parse((tmp_path / "locate.json").read_bytes(), "here")
    assert (location.ranks, location.variables, location.n_fits) == ((1, 4), ("count",), 1)
    assert len(pd.read_csv(tmp_path / "locate.csv")) == len(location.cells) == 4
    assert (tmp_path / "locate.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_that_cannot_be_made_is_refused(tmp_path):
    assert "no layer 'attic'" in run("locate", NETWORK, "--layer", "attic", "--out", tmp_path, code=3)
    assert "no variable 'colour'" in run("locate", NETWORK, "--variable", "colour", "--out", tmp_path, code=3)
    assert "at most 2" in run("locate", NETWORK, NETWORK, NETWORK, "--out", tmp_path, code=2)
