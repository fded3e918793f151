"""The verb twin, and twins in fit and evaluate, as they are typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from neuromas.cli.verbs import app
from neuromas.recordings.store.store import RecordingStore
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system

SMALL = ["--kind", "gru", "--n-twins", "1", "--max-iterations", "2", "--validate-every", "2", "--n-hidden", "8"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab")
    recording = capture(load_system("multi-object/gru-1"), 40, seed=1, name="brain", access="read")
    silent = capture(load_system("multi-object/gru-1"), 40, seed=1, name="silent", access="read", outputs=False)
    RecordingStore(path).register([recording, silent], set="lab")
    return str(path)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_twin_is_learnt_used_and_judged(store, tmp_path):
    made = run("twin", "lab/brain", "--store", store, *SMALL, "--out", tmp_path / "twin")
    assert made.exit_code == 0, made.output
    assert "CL ceiling" in made.output
    assert "no IIA is estimated" in made.output
    card = run("twin", "lab/brain", "--store", store, *SMALL, "--out", tmp_path / "twin", "--json")
    assert json.loads(card.stdout)["verdict"] == "poor"
    small = [
        "--rank",
        "4",
        "--n-trials",
        "60",
        "--n-train-pairs",
        "40",
        "--n-validation-pairs",
        "20",
        "--batch-size",
        "8",
    ]
    fitted = run(
        *(
            "fit",
            "clmas",
            "--system",
            "multi-object/gru-0",
            "--read",
            "lab/brain",
            "--store",
            store,
            "--twin",
            tmp_path / "twin",
        ),
        *(*small, "--max-iterations", "1", "--out", tmp_path / "fit"),
    )
    assert fitted.exit_code == 0, fitted.output
    scored = run("evaluate", tmp_path / "fit", "--pairs", "20", "--controls", "none")
    assert scored.exit_code == 0, scored.output
    assert "its twin is poor" in scored.output
    assert "do not rank alignments" in scored.output
    assert "IIA by twin" not in scored.output


def test_what_no_twin_is_learnt_from_is_told_in_the_shells_words(store, tmp_path):
    silent = run("twin", "lab/silent", "--store", store, *SMALL, "--out", tmp_path / "a")
    assert silent.exit_code == 2
    assert "does not say what the system itself did" in silent.output
    wrong = run("twin", "lab/brain", "--store", store, "--kind", "lstm", "--noise", "-1", "--out", tmp_path / "b")
    assert wrong.exit_code == 2
    assert "--kind (config.kind)" in wrong.output
    assert "--noise (config.noise)" in wrong.output
    assert not (tmp_path / "b").exists()
    fitted = run(
        *("fit", "mas", "--system", "multi-object/gru-0", "--system", "multi-object/gru-1", "--twin", "auto"),
        *("--out", tmp_path / "c"),
    )
    assert fitted.exit_code == 2
    assert "in clmas; not in 'mas'" in fitted.output
