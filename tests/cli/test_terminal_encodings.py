"""Terminals that are not UTF-8, names of files that are not UTF-8, and documents that are too deep: one line, the right exit."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas import Recording
from neuromas.cli import terminal
from neuromas.cli.verbs import app, keywords_as_options
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import AnnotateRequest, RegisterRequest
from neuromas.schema.recipe import ArraysRecipe, EventRecipe
from neuromas.schema.recording import RecordingManifest

LATIN = os.fsdecode(b"caf\xe9")


def neuromas(*words, **environment):
    environment = {**os.environ, "NEUROMAS_STORE": "st", **environment}
    return subprocess.run(
        [sys.executable, "-m", "neuromas.cli", *words], capture_output=True, env=environment, check=False
    )


def invoke(*words):
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def archive(path, **arrays):
    with Path(path).open("wb") as file:
        np.savez(file, **({"activity": np.zeros((4, 2)), "x": np.arange(4)} | arrays))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_work_that_was_done_ends_well_on_any_terminal(folder, encoding):
    archive("a.npz", x=np.array(["é", "日本", "–", "a"]))
    ended = neuromas("register", "a.npz", "--set", "s", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"4 samples x 2 units" in ended.stdout or b"4 samples \xd7 2 units" in ended.stdout
    shown = neuromas("show", "s/a", PYTHONIOENCODING=encoding)
    assert shown.returncode == 0
    assert rb"\u65e5\u672c" in shown.stdout


def test_characters_are_spelled_in_the_terminals_own():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    original, sys.stdout = sys.stdout, stream
    try:
        terminal.spell_out()
        stream.write(f"2 × 3 – é … {LATIN} → 日")
        stream.flush()
    finally:
        sys.stdout = original
    assert stream.buffer.getvalue() == b"2 x 3 - \\xe9 ... caf\\xe9 -> \\u65e5"


def test_data_on_standard_output_are_utf8_everywhere(folder):
    store = RecordingStore("st")
    store.register([Recording.from_arrays(np.zeros((2, 1)), {"x": ["é", "日"]}, name="a")], set="s")
    written = neuromas("export", "s/a", PYTHONIOENCODING="ascii")
    assert written.returncode == 0
    rows = csv.DictReader(written.stdout.decode("utf-8").splitlines())
    assert [(row["trial"], row["x"]) for row in rows] == [("0", "é"), ("1", "日")]
    manifest = json.loads(neuromas("show", "s/a", "--json", PYTHONIOENCODING="ascii").stdout)
    assert RecordingManifest.model_validate(manifest) == store.get("s/a").manifest


@pytest.mark.parametrize("ending", [".npz", ".csv", ".tsv", ".nc", ".mat", ".zarr"])
def test_names_of_files_that_are_not_utf8(folder, ending):
    path = Path(f"{LATIN}{ending}")
    recording = Recording.from_arrays(np.zeros((4, 2)), {"x": np.arange(4)}, name="r")
    recipe = {}
    if ending == ".npz":
        archive(path)
    elif ending in (".csv", ".tsv"):
        recording.to_dataframe().to_csv(path, index=False, sep="," if ending == ".csv" else "\t")
        recipe = {"unit_columns": "u.*"}
    elif ending == ".mat":
        from scipy.io import savemat

        with path.open("wb") as file:
            savemat(file, {"activity": np.zeros((4, 2)), "x": np.arange(4)})
    elif ending == ".nc":
        path.write_bytes(recording.to_dataset().to_netcdf(engine="h5netcdf"))
    else:
        recording.to_dataset().to_zarr(path)
        Path(path, LATIN).write_text("a stray file")
    made = convert(path, recipe, name="made")
    assert made.manifest.provenance.source == f"caf\\xe9{ending}"
    RecordingStore("st").register([made], set="s")
    assert RecordingStore("st").get("s/made").n_samples == 4


def test_the_shell_takes_names_that_are_not_utf8(folder):
    archive(f"{LATIN}.npz")
    assert RegisterRequest.problems({"sources": (f"{LATIN}.npz",), "set": "s"}) == []
    ended = neuromas("register", f"{LATIN}.npz", "--set", "s", "--name", "a")
    assert (ended.returncode, ended.stderr) == (0, b"")
    ended = neuromas("register", f"no{LATIN}.npz", "--set", "s")
    assert ended.returncode == 3
    assert b"no such file: nocaf\\xe9.npz" in ended.stderr


def test_other_text_that_is_not_utf8_is_refused_in_one_line(folder):
    archive("a.npz")
    for words in (
        ["--variable", f"x={LATIN}"],
        ["-o", f"activity={LATIN}"],
        ["--manifest", json.dumps({"task": LATIN})],
    ):
        ended = invoke("register", "a.npz", "--set", "s", *words)
        assert ended.exit_code == 2
        assert "expected text that is Unicode" in ended.output
    assert ArraysRecipe.problems({"activity": LATIN}) == ["activity: expected text that is Unicode, got 'caf\\udce9'"]
    assert ArraysRecipe.problems(f'{{"activity": "{LATIN}"}}')[0].startswith("document: expected text")


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_deep_documents_are_refused_in_one_line(folder, depth):
    lists, objects = "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth
    Path("recipe.json").write_text(f'{{"variables": {lists}}}')
    archive("d.npz", manifest=f'{{"description": {objects}}}')
    archive("e.npz")
    for words in (["e.npz", "--recipe", "recipe.json"], ["d.npz"], ["e.npz", "--manifest", f'{{"task": {objects}}}']):
        ended = invoke("register", *words, "--set", "s")
        assert ended.exit_code == 2, ended.output
        assert len(ended.output) < 3000
    assert ArraysRecipe.problems(f'{{"variables": {lists}}}')


def test_numbers_with_thousands_of_digits_are_refused(folder):
    archive("d.npz", manifest='{"description": ' + "9" * 5000 + "}")
    ended = invoke("register", "d.npz", "--set", "s")
    assert ended.exit_code == 2
    assert "not JSON" in ended.output


@pytest.mark.parametrize(
    "window",
    [
        {"start_s": 0, "stop_s": 1e308, "bin_s": 0.1},
        {"start_s": -1.7e308, "stop_s": 1.7e308},
        {"start_s": -1e308, "stop_s": 1e308, "bin_s": 1e300},
        {"start_s": 0, "stop_s": 1, "bin_s": 5e-324},
    ],
)
def test_endless_windows_are_refused(window):
    (problem,) = EventRecipe.problems(window)
    assert "too long" in problem or "more than 1,000,000,000,000,000 bins" in problem


def test_endless_steps_are_refused():
    assert ArraysRecipe.problems({"start_s": 1e308})
    assert ArraysRecipe.problems({"step_s": 1e308})


def test_missing_activity_is_told_once_with_what_to_type(folder):
    activity = np.random.default_rng(0).normal(size=(40, 30))
    activity[3:7, 2:20] = np.nan
    archive("n.npz", activity=activity, x=np.arange(40))
    ended = invoke("register", "n.npz", "--set", "s", "--store", "st")
    assert ended.exit_code == 2
    told = [line for line in ended.output.splitlines() if "NaN" in line]
    assert len(told) == 1
    assert "NaN in 72 of 1,200 values, in 18 of 30 units ('u2', 'u3', 'u4' and 15 more)" in told[0]
    assert "first at sample 3 (trial 3, step 0)" in told[0]
    assert told[0].endswith("--missing")
    assert invoke("register", "n.npz", "--set", "s", "--store", "st", "--missing").exit_code == 0
    assert RecordingStore("st").get("s/n").manifest.missing


def test_silent_units_can_be_left_out(folder):
    activity = np.random.default_rng(0).normal(size=(20, 5))
    activity[:, [1, 3]] = [0, 7]
    RecordingStore("st").register([Recording.from_arrays(activity, {"x": np.arange(20)}, name="a")], set="s")
    ended = invoke("annotate", "s/a", "--standardise", "--store", "st")
    assert ended.exit_code == 2
    assert "'u1', 'u3' never changes" in ended.output
    assert "--leave-out-silent" in ended.output
    assert invoke("annotate", "s/a", "--standardise", "--leave-out-silent", "--store", "st").exit_code == 0
    made = RecordingStore("st").get("s/a.v2")
    assert made.unit_names == ["u0", "u2", "u4"]
    kept = activity[:, [0, 2, 4]]
    assert np.allclose(made.latents(), (kept - kept.mean(0)) / kept.std(0), atol=1e-6)
    assert "left out, as their activity never changes: 'u1', 'u3'" in made.manifest.provenance.notes
    assert invoke("annotate", "s/a", "--leave-out-silent", "--store", "st").exit_code == 2
    assert "leave_out_silent" in AnnotateRequest.model_fields


def test_keywords_become_options():
    assert keywords_as_options("declare missing=True; n=True", {"missing": "--missing"}) == "declare --missing; n=True"
