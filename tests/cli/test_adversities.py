"""Hostile and unlucky circumstances: closed streams, names that no file can have, numbers beyond all bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.cli.verbs import VERBS, app, as_ours
from neuromas.errors import InvalidInput, StorageFailed
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore


@pytest.fixture
def store(tmp_path) -> Path:
    recording = Recording.from_arrays(np.zeros((20, 2)), {"count": np.arange(20) % 4}, name="a")
    RecordingStore(tmp_path / "store").register(recording, set="lab")
    return tmp_path / "store"


def typed(folder: Path, words: str) -> tuple[int, str]:
    """Exit status and standard error of a command as a shell runs it."""
    script = f"{sys.executable} -W ignore -m neuromas.cli {words}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NEUROMAS_STORE": str(folder / "store")},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("list >&-", 0, ""),
        ("export lab/a --out - >&-", 8, "error: standard output is closed"),
        ("export lab/a --out - >/dev/full", 8, "error: No space left on device"),
        ("--version >/dev/full", 8, "error: No space left on device"),
        ("show --config - <&-", 2, "cannot be read as JSON"),
        ("export lab/a --out - | head -1 >/dev/null; exit ${PIPESTATUS[0]}", None, ""),
        ("show lab/b 2>&-", 3, ""),
    ],
)
def test_closed_and_full_streams(store, words, status, message):
    code, errors = typed(store.parent, words)
    assert status is None or code == status
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert message in errors
    assert {path.name for path in store.parent.iterdir()} == {"store"}


DOCUMENTS = {
    "large": '{"seed": ' + "9" * 5000 + "}",
    "not a number": '{"seed": NaN, "x": "a/b", "y": "a/c"}',
    "infinite": '{"largest_gib": Infinity, "timeout_s": NaN, "n_samples": -Infinity}',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "half a pair": '{"store": "\\ud800", "recording": "\\ud800/b", "set": "\\ud800"}',
    "nul": json.dumps(
        dict.fromkeys(("store", "recording", "set", "folder", "system", "out", "x", "y", "name"), "\x00")
    ),
}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("formats", "bench")])
def test_documents_beyond_all_bounds_are_one_error(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    for name, text in DOCUMENTS.items():
        (tmp_path / "request.json").write_text(text)
        out = ["--out", "out"] if verb in ("demo", "reproduce") else []
        if verb in ("demo", "reproduce", "list", "verify") and name in ("not a number", "infinite", "nul"):
            continue
        done = CliRunner().invoke(app, [verb, "--config", "request.json", *out])
        assert done.exception is None or isinstance(done.exception, SystemExit), (name, done.exception)
        assert done.exit_code in (2, 3), (name, done.output)
        assert [path.name for path in tmp_path.iterdir()] == ["request.json"]


@pytest.mark.parametrize("name", ["\0", "a" * 300])
@pytest.mark.parametrize(
    "words",
    [
        ["list", "--store", "NAME"],
        ["register", "NAME", "--set", "lab"],
        ["register", "a.npz", "--set", "lab", "--store", "NAME"],
        ["evaluate", "NAME"],
        ["capture", "NAME", "--out", "c.npz"],
        ["export", "lab/a", "--out", "NAME"],
        ["export", "lab/a", "--out", "NAME.npz"],
        ["annotate", "lab/a", "--table", "NAME", "--variable", "x=x"],
        ["compare", "NAME.csv", "NAME.csv"],
        ["show", "--config", "NAME"],
        ["fit", "das", "multi-object/gru-0", "--out", "NAME"],
        ["train", "multi-object", "--out", "NAME"],
    ],
)
def test_names_that_no_file_can_have_are_one_error(store, monkeypatch, words, name):
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("NEUROMAS_STORE", str(store))
    np.savez("a.npz", activity=np.zeros((4, 2)), count=np.arange(4))
    done = CliRunner().invoke(app, [word.replace("NAME", name) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (2, 3, 8), done.output
    assert {path.name for path in store.parent.iterdir()} == {"store", "a.npz"}


def test_errors_of_the_system_are_ours():
    assert str(as_ours(PermissionError(13, "Permission denied", "x.csv"))) == "x.csv: Permission denied"
    assert isinstance(as_ours(OSError("odd")), StorageFailed)
    assert isinstance(as_ours(MemoryError()), InvalidInput)
    assert isinstance(as_ours(RecursionError()), InvalidInput)
    assert isinstance(as_ours(ValueError("embedded null byte")), InvalidInput)
    assert as_ours(ValueError("a mistake of neuromas")) is None
