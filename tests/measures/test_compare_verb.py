"""``neuromas compare``: the registry's measures from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.cli import verbs
from neuromas.measures.comparison import compare
from neuromas.measures.registry import MEASURES
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

N_TRIALS = 20


def toy(name: str, seed: int, **fields) -> Recording:
    activity = np.random.default_rng(seed).normal(size=(N_TRIALS, 4, 3)).astype(np.float32)
    activity[0, :, 1] = np.nan
    fields = {"token": np.tile(["B", "D", "R", "E"], (N_TRIALS, 1)), "vocabulary": ("B", "D", "R", "E")} | fields
    return Recording.from_arrays(activity, {"count": np.arange(N_TRIALS)}, name=name, missing=True, **fields)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingStore:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROMAS_STORE", str(tmp_path / "store"))
    held = RecordingStore(tmp_path / "store")
    other = np.tile(["B", "R", "D", "E"], (N_TRIALS, 1))
    held.register(
        [toy("a", 0), toy("b", 1), toy("other", 1, token=other), toy("later", 1, trial=np.arange(50, 70))], set="s"
    )
    return held


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(verbs.app, ["compare", *map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize("measure", MEASURES)
def test_prints_and_writes_what_compare_finds(store, measure):
    words = ("s/a", "s/b", "--measure", measure, "--samples", 30, "--resamples", 4, "--seed", 2)
    output = run(*words)
    found = compare(store.get("s/a"), store.get("s/b"), measure, n_samples=30, n_resamples=4, seed=2)
    row = next(line for line in output.splitlines() if line.startswith(measure))
    assert row.split()[1:8] == [f"{v:.3f}" for v in (found.mean, found.low, found.high)] + ["4", "30", "of", "57"]
    assert "80 shared samples, matched by trial, step, token; left out: 20 with an end token, 3 incomplete." in output
    written = json.loads(run(*words, "--json"))
    assert written["values"] == list(found.values)
    assert written["mean"] == found.mean
    assert written["options"] == found.options


def test_options_and_units(store):
    output = run("s/a", "s/b", "--measure=cka", "-o", "kernel=linear", "-o", "zscore=false", "--units", "s/a=u0,u2")
    assert "kernel linear, zscore false" in output
    units = {"s/a": ["u0", "u2"]}
    found = compare(store.get("s/a"), store.get("s/b"), "cka", units=units, kernel="linear", zscore=False)
    assert f"{found.mean:.3f}" in output


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["s/a", "s/none"], "no recording 'none'", 3),
        (["s/a", "s/b", "--measure=cca"], "no measure 'cca'; the measures are rsa, cka", 3),
        (["s/a", "s/b", "-o", "kernel=linear"], "measure 'rsa' has no option 'kernel'; it has dissimilarity", 2),
        (["s/a", "s/b", "-o", "n_samples=5"], "has no option 'n_samples'", 2),
        (["s/a", "s/b", "-o", "comparison=kendall"], "comparison is one of spearman, pearson, got 'kendall'", 2),
        (["s/a", "s/b", "-o", "comparison"], "expected NAME=VALUE", 2),
        (["s/a", "s/b", "--units", "s/c=u0"], "'s/c', but the recordings are 's/a' and 's/b'", 3),
        (["s/a", "s/b", "--units", "s/a=u7"], "no unit 'u7'", 3),
        (["s/a", "s/other"], "not of the same trials: of 20 trials with equal numbers 20 hold different tokens", 2),
        (["s/a", "s/later"], "share no (trial, step) row: 's/a' has 20 trials numbered 0 to 19", 2),
        (["s/a", "s/b", "--samples", "2"], "--samples (n_samples): expected a number of at least 3, got '2'", 2),
    ],
)
def test_bad_input_is_one_clear_message(store, words, told, code):
    assert told in " ".join(run(*words, code=code).split())


def test_help_names_every_measure():
    output = run("--help")
    assert all(name in output for name in MEASURES)
