"""The command line: each verb on small real inputs, each bad input with its one clear error."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from neuromas.cli import verbs
from neuromas.fit.fitters import FITTERS
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitConfig, FitReport, FitRequest
from neuromas.systems import training, updates

ROOT = Path(__file__).parents[1]
LIVE, BRAIN = "multi-object/gru-0", "multi-object/gru-1"
TINY = ["--rank=4", "--rotation=gram-schmidt", "--batch-size=16", "--max-iterations=4", "-o", "n_trials=60"]
TINY += ["-o", "n_train_pairs=64", "-o", "n_validation_pairs=32", "-o", "validate_every=2"]
TRAIN = ["train", "multi-object", "--min-iterations", "0", "--max-iterations", "2", "--out"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that the store is the shipped one unless a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEUROMAS_STORE", raising=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks gain nothing from threads; training validates on few trials, and often."""
    monkeypatch.setitem(updates.NETWORK_LIMITS, "n_held_out", 32)
    monkeypatch.setitem(updates.NETWORK_LIMITS, "validate_every", 2)
    monkeypatch.setattr(training, "BATCH_SIZE", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*words: object, code: int = 0, **options: Any) -> str:
    """What a command prints, once its exit code is as expected."""
    result = CliRunner().invoke(verbs.app, [str(word) for word in words], **options)
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert "Traceback" not in result.output
    return result.output


def toy(name: str = "toy", seed: int = 0, n_trials: int = 12) -> Recording:
    """A recording with text, tokens, metadata, and a unit that is missing in one trial."""
    rng = np.random.default_rng(seed)
    activity = rng.normal(size=(n_trials, 3, 4)).astype(np.float32)
    activity[0, :, 1] = np.nan
    return Recording.from_arrays(
        activity,
        {
            "side": np.array(["lick left", "lick right"])[np.arange(n_trials) % 2],
            "count": np.tile([0, 1, 2], (n_trials, 1)),
        },
        name=name,
        system="planted",
        token=np.tile(["B", "D", "E"], (n_trials, 1)),
        vocabulary=("B", "D", "E"),
        unit_metadata={"depth": np.arange(4.0)},
        sample_metadata={"session": np.repeat("first", n_trials)},
        missing=True,
        licence="CC0-1.0",
        citation="Nobody (2020)",
        activity_units="Hz",
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that holds ``demo/toy``."""
    path = tmp_path / "store"
    RecordingStore(path).register(toy(), set="demo")
    return path


# ----------------------------------------------------------------------------------------------------------------- global


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = ("torch", "xarray", "zarr", "matplotlib", "pandas", "numpy", "rich")
    code = "import sys, neuromas.cli.verbs as verbs; [verbs.load(name) for name in verbs.VERBS]; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "[]"
    output = run("--help")
    for verb, (_, _, sentence) in verbs.VERBS.items():
        assert f" {verb} " in output
        assert sentence.split()[0] in output


def test_version() -> None:
    assert re.fullmatch(r"neuromas \d+\.\d+\.\d+\S*\n", run("--version"))


def test_an_error_is_one_message_without_traceback_unless_asked() -> None:
    assert run("show", "no/such", code=3).startswith("error: ")
    result = CliRunner().invoke(verbs.app, ["--debug", "show", "no/such"])
    assert result.exit_code == 3
    assert "Traceback" in result.output


def test_a_message_may_hold_brackets() -> None:
    assert "[/red]" in run("query", BRAIN, "phase=[/red]", code=2)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("neuromas.actions.stores.existing_store", broken)
    result = CliRunner().invoke(verbs.app, ["list"])
    assert isinstance(result.exception, RuntimeError)


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuromas.actions.stores.existing_store", pressed)
    assert "Interrupted" in run("list", code=130)


def test_every_verb_has_a_sentence_and_every_option_a_help() -> None:
    for name in verbs.VERBS:
        command = verbs.load(name)
        assert command.help, name
        for parameter in command.params:
            if parameter.opts[0].startswith("--"):
                assert getattr(parameter, "help", None), (name, parameter.name)


def documented() -> list[str]:
    """Every neuromas command in the README's and the documentation's shell examples."""
    lines = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", text, re.DOTALL):
            joined = block.replace("\\\n", " ")
            lines += [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [command.strip() for line in lines for command in line.split("&&") if command.strip().startswith("neuromas")]


def test_every_documented_verb_and_option_exists() -> None:
    whole = {"--help", "-h", "--version", "--debug", "--install-completion"}
    for line in documented():
        words = shlex.split(line, comments=True)[1:]
        words = words[: next((at for at, word in enumerate(words) if word in ("|", ">", "2>", ";")), None)]
        verb = next((word for word in words if not word.startswith("-")), None)
        assert verb is None or verb in verbs.VERBS, line
        own = [] if verb is None else verbs.load(verb).params
        known = whole | {name for parameter in own for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("-") and not re.match(r"-\d", word):
                assert word.partition("=")[0] in known, line


# ------------------------------------------------------------------------------------------------------------- recordings


def test_list_and_show_the_shipped_sets() -> None:
    listed = run("list")
    for name in (LIVE, BRAIN, "guo2017/mouse-thalamus"):
        assert name in listed
    shown = run("show", "guo2017/mouse-thalamus")
    for told in ("Hz", "CC-BY-4.0", "Guo ZV", "lick left (", "lick right (", "epoch", "units missing"):
        assert told in shown
    assert json.loads(run("show", BRAIN, "--json"))["access"] == "read"


@pytest.mark.parametrize("ending", ["npz", "nc", "zarr"])
def test_register_takes_each_format_once(ending: str, tmp_path: Path) -> None:
    source = tmp_path / f"made.{ending}"
    if ending == "zarr":
        toy("made").dataset.to_zarr(source, zarr_format=3)
    else:
        export(toy("made"), source)
    for told in ("registered", "unchanged"):
        assert told in run(
            "register", source, "--set", "mine", "--store", "s", "--name", "again", "--access", "intervene"
        )
    held = RecordingStore("s").get("mine/again")
    assert held.manifest.access == "intervene"
    np.testing.assert_array_equal(held.latents(), toy().latents())
    assert held.manifest.variable("side") == toy().manifest.variable("side")


def test_register_with_a_manifest_reports_every_problem(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", activity=np.zeros((3, 2)), count=[1, 2, 3])
    (tmp_path / "m.json").write_text(json.dumps({"access": "none", "sampling": {"step_s": -1}, "colour": "red"}))
    output = run("register", "a.npz", "--set", "mine", "--store", "s", "--manifest", "m.json", code=2)
    for place in ("access", "step_s", "colour"):
        assert place in output
    assert not Path("s").exists()


def test_register_refuses_what_it_must(store: Path, tmp_path: Path) -> None:
    export(toy(), "a.npz")
    export(toy(seed=1), "b.npz")
    assert "read-only" in run("register", "a.npz", "--set", "mine", code=7)
    assert "one source" in run("register", "a.npz", "b.npz", "--set", "mine", "--name", "x", "--store", "s", code=2)
    assert "other content" in run("register", "b.npz", "--set", "demo", "--name", "toy", "--store", store, code=5)
    assert "no such file" in run("register", "c.npz", "--set", "mine", "--store", "s", code=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "not a recording store" in run("register", "a.npz", "--set", "mine", "--store", "mine", code=2)
    np.savez("inf.npz", activity=np.array([[0.0, np.inf]]), count=[1])
    told = run("register", "inf.npz", "--set", "mine", "--store", "s", code=2)
    assert "u1" in told
    assert "sample 0" in told


def test_the_store_is_the_option_else_the_environment_else_here_else_the_shipped(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "guo2017" in run("list")
    RecordingStore(tmp_path / "recordings").register(toy(), set="local")
    assert "local/toy" in run("list")
    RecordingStore(tmp_path / "environment").register(toy(), set="environment")
    monkeypatch.setenv("NEUROMAS_STORE", "environment")
    assert "environment/toy" in run("list")
    assert "demo/toy" in run("list", "--store", store)


@pytest.mark.parametrize("words", [["list"], ["show", "a/b"], ["verify"], ["remove", "a"], ["query", "a/b", "x=1"]])
def test_a_store_that_does_not_exist(words: list[str]) -> None:
    assert "no recording store" in run(*words, "--store", "absent", code=3)
    assert not Path("absent").exists()


def test_verify_names_each_damaged_file(store: Path) -> None:
    assert "demo/toy" in run("verify", "--store", store)
    chunks = [path for path in (store / "demo/toy/activity").rglob("*") if path.is_file() and path.name != "zarr.json"]
    damaged = bytearray(chunks[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunks[0].write_bytes(damaged)
    output = run("verify", "demo/toy", "--store", store, code=6)
    assert chunks[0].relative_to(store).as_posix() in output
    assert "demo/toy" in run("query", "demo/toy", "count=1", "--store", store, code=6)


def test_remove_asks_first(store: Path) -> None:
    run("remove", "demo/toy", "--store", store, input="n\n", code=1)
    assert "demo/toy" in run("list", "--store", store)
    assert "removed demo/toy" in run("remove", "demo", "--store", store, "--yes")
    assert "no recordings" in run("list", "--store", store)
    assert "read-only" in run("remove", BRAIN, "--yes", code=7)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_set_without_its_set_file_is_told_and_can_be_removed(store: Path, content: str | None) -> None:
    (store / "demo" / "set.json").unlink()
    if content is not None:
        (store / "demo" / "set.json").write_text(content)
    assert "set.json is" in run("list", "--store", store)
    assert "demo/set.json" in run("verify", "--store", store, code=6)
    asked = run("remove", "demo", "--store", store, input="n\n", code=1)
    assert "set.json is" in asked
    assert "This deletes demo/?" in asked
    assert "removed demo/toy" in run("remove", "demo", "--store", store, "--yes")
    assert not (store / "demo").exists()


# ------------------------------------------------------------------------------------------------------------------ query


def test_query_prints_a_table() -> None:
    output = run("query", BRAIN, "phase=demo", "count=3", "-n", 5, "--seed", 0)
    rows = [line for line in output.splitlines() if " demo " in line]
    assert len(rows) == 5
    assert output == run("query", BRAIN, "phase=demo", "count=3", "-n", 5, "--seed", 0)
    assert "more" in run("query", BRAIN, "phase=demo")


def test_what_a_file_holds_is_told_before_there_is_a_recipe() -> None:
    Path("spikes.csv").write_text("unit,time\na,0.5\nb,1.5\n")
    output = run("register", "spikes.csv", "--format", "spikes", "--set", "lab", "--dry-run", "--store", "new")
    assert "A recipe says" in output
    assert "Nothing was written" in output
    output = run("register", "spikes.csv", "--format", "spikes", "--set", "lab", "--store", "new", code=2)
    assert "start_s: required" in output
    assert not Path("new").exists()


@pytest.mark.parametrize("ending", ["npz", "nc", "csv"])
def test_query_writes_what_opens_again(ending: str, store: Path) -> None:
    out = Path(f"found.{ending}")
    run("query", "demo/toy", "side=lick left", "count=1,2", "--units", "u3,u0", "-n", 4, "--out", out, "--store", store)
    whole = RecordingStore(store).get("demo/toy")
    if ending == "csv":
        with out.open() as file:
            rows = list(csv.DictReader(file))
        samples = [int(row["sample"]) for row in rows]
        assert {row["side"] for row in rows} == {"lick left"}
        np.testing.assert_allclose([float(row["u3"]) for row in rows], whole.latents(["u3"])[samples, 0])
    else:
        found = Recording.from_file(out)
        numbers = np.load(out)["sample_number"] if ending == "npz" else xr.load_dataset(out)["sample"].values
        samples = numbers.tolist()
        np.testing.assert_array_equal(found.latents(), whole.latents(["u3", "u0"])[samples])
        np.testing.assert_array_equal(found.values(), whole.values()[samples])
        assert found.unit_names == ["u3", "u0"]
        assert found.dataset["session"].values.tolist() == ["first"] * 4
        assert found.dataset["depth"].values.tolist() == [3.0, 0.0]
        assert found.manifest.licence == "CC0-1.0"
    assert len(samples) == 4
    assert [path.name for path in Path.cwd().iterdir() if path.name != "store"] == [out.name]


def test_query_leaves_out_incomplete_samples_and_says_so(store: Path) -> None:
    assert "3 incomplete" in run("query", "demo/toy", "count=1", "--store", store)
    assert "incomplete" not in run("query", "demo/toy", "count=1", "--units", "u0", "--store", store)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["phase=demo", "count=0"], 4, "count=1"),
        (["phase=nowhere"], 2, "demo, response"),
        (["count=99"], 2, "20"),
        (["colour=red"], 3, "phase, count"),
        (["phase"], 2, "VARIABLE=VALUE"),
        (["phase=demo", "--units", "u0,nix"], 3, "nix"),
        (["phase=demo", "-n", "0"], 2, "at least 1"),
        (["phase=demo", "--out", "found.xlsx"], 2, ".npz, .nc or .csv"),
    ],
)
def test_query_refuses_with_what_there_is(words: list[str], code: int, told: str) -> None:
    assert told in run("query", BRAIN, *words, code=code)
    assert not list(Path.cwd().iterdir())


def test_query_warns_of_fewer() -> None:
    result = CliRunner().invoke(verbs.app, ["query", BRAIN, "phase=demo", "count=20", "-n", "5000", "--out", "few.npz"])
    assert result.exit_code == 0
    assert "warning: only" in result.stderr
    assert "warning" not in result.stdout
    assert Recording.from_file("few.npz").n_samples < 5000


# ---------------------------------------------------------------------------------------------------------------- systems


def test_train_and_capture(store: Path) -> None:
    words = [*TRAIN, "t", "--n-units", 16, "--target-accuracy", 0.9]
    output = run(*words, "--seed", 5, "--name", "small")
    assert "small: 2 iterations" in output
    assert "warning: the iteration limit came before" in output
    assert "small: 2 iterations" in run(*words, "--seed", 5, "--name", "small")
    assert "choose another folder" in run(*words, "--seed", 6, code=2)
    output = run(
        *("capture", "t", "--allow-unsolved", "--trials", 20, "--access", "read", "--set", "mine"),
        *("--store", store, "--dtype", "float16"),
    )
    assert "mine/small registered" in output
    held = RecordingStore(store).get("mine/small")
    assert (held.n_units, held.manifest.access) == (16, "read")
    assert held.activity.dtype == np.float16
    run("capture", "t", "--allow-unsolved", "--trials", 20, "--out", "c.nc", "--name", "other")
    assert Recording.from_file("c.nc").name == "other"
    assert "either --set NAME or --out FILE" in run("capture", "t", code=2)
    assert "read-only" in run("capture", "t", "--allow-unsolved", "--set", "mine", "--trials", 5, code=7)


def test_unknown_task_system_and_weights_that_are_none() -> None:
    assert "multi-object" in run("train", "juggling", "--out", "t", code=3)
    assert "gru" in run("train", "multi-object", "--system", "perceptron", "--out", "t", code=3)
    assert LIVE in run("capture", "nowhere", "--out", "a.nc", code=3)
    run(*TRAIN, "t", "--n-units", 8)
    Path("t/weights.safetensors").write_bytes(b"\x80\x04K\x01.")
    for words in (["capture", "t", "--out", "a.nc"], ["fit", "das", "--system", "t", "--out", "f"]):
        assert "not a safetensors file" in run(*words, code=6)
    assert not Path("f").exists()


def test_training_goes_on_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    update = training._update

    def pressed(network: Any, optimiser: Any, model: Any, seed: int, iteration: int, device: str) -> float:
        if iteration == 5:
            raise KeyboardInterrupt
        return update(network, optimiser, model, seed, iteration, device)

    length = ["--n-units", 4, "--min-iterations", 6, "--max-iterations", 6]
    with monkeypatch.context() as patched:
        patched.setattr(training, "_update", pressed)
        assert "the same command goes on" in run(*TRAIN, "t", *length, code=130)
    assert Path("t/checkpoint.safetensors").is_file()
    run(*TRAIN, "t", *length)
    run(*TRAIN, "u", *length)
    assert Path("t/weights.safetensors").read_bytes() == Path("u/weights.safetensors").read_bytes()


# -------------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("method", FITTERS)
def test_fit_and_evaluate_by_every_method(method: str) -> None:
    inputs = {
        "das": ["--system", LIVE],
        "mas": ["--system", LIVE, "--system", BRAIN],
    }.get(method, ["--system", LIVE, "--read", BRAIN])
    output = run("fit", method, *inputs, *TINY, "--out", "f")
    assert f"{method}: max_iterations, 4 iterations" in output
    request = FitRequest.parse(Path("f/request.json").read_text(), "request")
    report = FitReport.parse(Path("f/result.json").read_text(), "report")
    assert request.config == report.config
    assert "finished already" in run("fit", method, *inputs, *TINY, "--out", "f")
    assert "--pairs" in run("evaluate", "f", "--pairs", 1, code=2)  # one pair has no spread
    output = run("evaluate", "f", "--pairs", 20)
    evaluation = Evaluation.parse(Path("f/evaluation.json").read_text(), "evaluation")
    assert {score.method for score in evaluation.scores} == {"none", "random", "cl-ceiling", method}
    with Path("f/iia.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(evaluation.scores)
    for score in evaluation.scores:
        assert score.ran == (score.target in report.ran)
        assert (score.iia is None) == (score.target == "gru-1" and method not in ("das", "mas"))
        assert score.retrieval is not None
    assert ("has no IIA" in output) == (method not in ("das", "mas"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished CLMAS fit of the shipped pair."""
    folder = tmp_path_factory.mktemp("fitted") / "f"
    run("fit", "clmas", "--system", LIVE, "--read", BRAIN, *TINY, "--out", folder)
    return folder


@pytest.mark.parametrize("name", [BRAIN, "gru-1"])
def test_an_oracle_is_told_of(fitted: Path, name: str) -> None:
    output = run("evaluate", fitted, "--pairs", 20, "--oracle", f"{name}={BRAIN}", "--part", "validation")
    assert "oracle" in output
    assert "warning" not in output
    evaluation = Evaluation.parse((fitted / "evaluation.json").read_text(), "evaluation")
    assert evaluation.oracles == ("gru-1",)
    assert evaluation.part == "validation"
    assert all(score.iia is not None for score in evaluation.scores)
    assert {score.oracle for score in evaluation.scores if score.target == "gru-1"} == {True}
    assert "ICC" in output


def test_two_fits_are_compared_on_the_same_pairs(fitted: Path, tmp_path: Path) -> None:
    fitted = Path(shutil.copytree(fitted, tmp_path / "f"))
    run("fit", "latent-stitch", "--system", LIVE, "--read", BRAIN, *TINY, "--out", tmp_path / "other")
    assert "no evaluation in" in run("evaluate", fitted, "--pairs", 20, "--against", tmp_path / "other", code=3)
    run("evaluate", tmp_path / "other", "--pairs", 20)
    output = run("evaluate", fitted, "--pairs", 20, "--against", tmp_path / "other")
    assert "clmas less latent-stitch" in output
    table = pd.read_csv(fitted / "paired.csv")
    assert set(table["measure"]) == {"iia", "retrieval"}
    assert set(table["second"]) == {"latent-stitch"}
    assert table["p_value"].between(0, 1).all()
    document = json.loads(run("evaluate", fitted, "--pairs", 20, "--against", tmp_path / "other", "--json"))
    assert [row["difference"] for row in document["against"]] == pytest.approx(table["difference"].tolist())
    assert "scored no pairs in common" in run(
        "evaluate", fitted, "--pairs", 30, "--against", tmp_path / "other", code=2
    )


def test_evaluate_refuses_what_it_must(fitted: Path, tmp_path: Path) -> None:
    assert "no fit result" in run("evaluate", "nowhere", code=3)
    assert "not 'nobody'" in run("evaluate", fitted, "--oracle", f"nobody={LIVE}", code=3)
    assert "NAME=VALUE" in run("evaluate", fitted, "--oracle", LIVE, code=2)
    assert "can be run" in run("evaluate", fitted, "--oracle", f"gru-0={LIVE}", code=2)
    assert "is not the system that recording" in run(
        "evaluate", fitted, "--pairs", 20, "--oracle", f"{BRAIN}={LIVE}", code=2
    )
    changed = RecordingStore(tmp_path / "changed")
    brain = RecordingStore(ROOT / "recordings").get(BRAIN)
    changed.register(brain.select_samples(brain.trial < 700), set="multi-object")
    assert "content_sha256" in run("evaluate", fitted, "--store", tmp_path / "changed", code=6)


def test_an_evaluation_finds_its_systems_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    run(*TRAIN, "t", "--n-units", 8)
    run(
        "capture",
        "t",
        "--trials",
        60,
        "--name",
        "brain",
        "--access",
        "read",
        "--set",
        "mine",
        "--store",
        "store",
        "--allow-unsolved",
    )
    run(
        "fit",
        "clmas",
        "--system",
        "t",
        "--read",
        "mine/brain",
        *TINY,
        "--store",
        "store",
        "--units",
        "mine/brain=u1,u2,u3,u5",
        "--allow-unsolved",
        "--out",
        "f",
    )
    report = FitReport.parse(Path("f/result.json").read_text(), "report")
    assert report.inputs[1].units == ("u1", "u2", "u3", "u5")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert "brain" in run("evaluate", "../f", "--pairs", 10)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["mas", "--system", LIVE, "--read", BRAIN], 7, "can only be read"),
        (["clmas", "--system", LIVE, "--read", BRAIN, "--rank", "129"], 2, "larger than the width"),
        (["clmas", "--system", LIVE, "--read", BRAIN, "--rank", "colour=2"], 3, "phase, count"),
        (["clmas", "--system", LIVE, "--read", BRAIN, "-o", "n_trials=2"], 2, "too few"),
        (["clmas", "--system", LIVE, "--read", "guo2017/mouse-thalamus", "--rank", "2"], 3, "photostim"),
        (["clmas", "--system", LIVE, "--read", BRAIN, "--units", "gru-1=u0,nix"], 3, "nix"),
        (["clmas", "--system", LIVE, "--read", BRAIN, "--units", "nobody=u0"], 2, "nobody"),
        (["clmas", "--system", LIVE, "--read", "no/such"], 3, BRAIN),
        (["clmas", "--system", LIVE, "--read", BRAIN, "--store", "absent"], 3, "no recording store"),
        (["clmas", "--system", "nowhere", "--read", BRAIN], 3, "nowhere"),
        (["das"], 2, "at least one system"),
        (["das", "--system", LIVE, "-o", "seed"], 2, "NAME=VALUE"),
        (["das", "--system", LIVE, "-o", "seed=1", "--seed", "2"], 2, "seed"),
        (["das", "--system", LIVE, "--mapping", "absent.json"], 3, "absent.json"),
        (["sorcery", "--system", LIVE], 2, "latent-stitch"),
        ([], 2, "method"),
        (["das", "--system", LIVE, "--vary", "seed"], 2, "NAME=VALUE"),
        (["das", "--system", LIVE, "--vary", "seed=1,1"], 2, "the same fit"),
        (["das", "--system", LIVE, "--vary", "seed=0,1", "--seed", "2"], 2, "given twice"),
        (["das", "--system", LIVE, "--vary", "rank=2,4", "--rank", "2"], 2, "given twice"),
        (["das", "--system", LIVE, "--vary", "patience=2,4", "-o", "patience=2"], 2, "by an option of its own"),
        (
            ["das", "--system", LIVE, "--vary", "batch-size=2,4", "--vary", "batch_size=8"],
            2,
            "given twice, there and before",
        ),
        (["das", "--system", LIVE, "--vary", "rank=2", "--vary", "subspaces.full=4"], 2, "the same setting"),
        (["das", "--system", LIVE, "--vary", "roles.n.other-name=count"], 2, "'other-name'"),
        (["das", "--system", LIVE, "--vary", "sed=0,1", "--vary", "rank=x,2"], 2, "2 problems"),
        (["das", "--system", LIVE, "--vary", "rank=2,129"], 2, "larger than the width"),
    ],
)
def test_fit_refuses_and_leaves_nothing(words: list[str], code: int, told: str) -> None:
    assert told in run("fit", *words, "--out", "f", code=code)
    assert not Path("f").exists()


def test_all_wrong_settings_are_told_at_once() -> None:
    output = run(
        *("fit", "clmas", "--system", LIVE, "--rank", "x", "--map", "round", "--epsilon", -1, "--out", "f"),
        *("-o", "colour=red", "-o", "fractions={", "-o", "n_trials=-3"),
        code=2,
    )
    assert "6 problems" in output
    for place in ("subspaces.full", "map", "epsilon", "colour", "fractions", "n_trials"):
        assert f"config.{place}" in output


def test_every_setting_can_be_reached() -> None:
    names = {parameter.name: parameter.opts for parameter in verbs.load("fit").params}
    for key in FitConfig.model_fields:
        assert key == "format_version" or f"config__{key}" in names, key
    assert names["config__subspaces"] == ["--rank"]
    assert names["config__cl_directions"] == ["--cl-directions"]


def test_a_file_holds_settings_and_options_go_before_it() -> None:
    document = {
        "config": {"method": "clmas", "subspaces": {"phase": 1, "count": 2}, "epsilon": 0.5, "max_iterations": 2},
        "systems": [LIVE],
        "read": [BRAIN],
    }
    Path("fit.json").write_text(json.dumps(document))
    tiny = [word for word in TINY if not word.startswith(("--rank", "--max"))]
    output = run("fit", "--config", "fit.json", *tiny, "--epsilon", 0.25, "-o", "cl-terms=l2", "--out", "f")
    assert "The file names no preset" in output
    config = FitReport.parse(Path("f/result.json").read_text(), "report").config
    assert (config.preset, config.learning_rate, config.schedule) == (None, 1e-3, "constant")
    assert config.subspaces == {"phase": 1, "count": 2}
    assert (config.epsilon, config.cl_terms, config.max_iterations) == (0.25, "l2", 2)
    assert "'clmas'" in run("fit", "mas", "--config", "fit.json", "--out", "g", code=2)
    Path("later.json").write_text(json.dumps(document | {"format_version": 2}))
    assert "format_version: expected 1, got 2" in run("fit", "--config", "later.json", "--out", "g", code=2)
    Path("broken.json").write_text("[1, 2")
    assert "JSON" in run("fit", "--config", "broken.json", "--out", "g", code=2)


def test_a_mapping_joins_what_is_called_otherwise(store: Path) -> None:
    brain = RecordingStore(ROOT / "recordings").get(BRAIN)
    here = brain.relabel({"n": "count", "epoch": {"name": "phase", "values": {"sample": "demo", "go": "response"}}})
    document = {"name": "mouse", "set": None, "content_sha256": None, "files": {}}
    RecordingStore(store).register(Recording(here.dataset, here.manifest.model_copy(update=document)), set="mine")
    words = "fit", "clmas", "--system", LIVE, "--read", "mine/mouse", *TINY, "--store", store, "--out", "f"
    assert "phase" in run(*words, code=3)
    values = {"demo": "sample", "response": "go"}
    mapping = {"mine/mouse": {"count": "n", "phase": {"name": "epoch", "values": values}}}
    Path("mapping.json").write_text(json.dumps(mapping))
    run(*words, "--mapping", "mapping.json")
    run("evaluate", "f", "--pairs", 20)


def test_a_folder_with_another_fit_is_left_alone(fitted: Path) -> None:
    before = (fitted / "request.json").read_bytes()
    output = run("fit", "clmas", "--system", LIVE, "--read", BRAIN, *TINY, "--epsilon", 0.1, "--out", fitted, code=2)
    assert "another fit" in output
    assert (fitted / "request.json").read_bytes() == before


def _interrupt(words: list[str], when: Callable[[], bool]) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "neuromas.cli", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on() -> None:
    words = ["fit", "clmas", "--system", LIVE, "--read", BRAIN, *TINY, "--max-iterations=16", "-o", "patience=99"]
    code, told = _interrupt([*words, "--out", "f"], Path("f/checkpoint.safetensors").is_file)
    assert code == 130, told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    assert Path("f/checkpoint.safetensors").is_file()
    assert Path("f/request.json").is_file()
    run(*words, "--out", "f")
    assert not Path("f/checkpoint.safetensors").exists()
    run(*words, "--out", "g")
    again, whole = (FitReport.parse(Path(f"{name}/result.json").read_text(), name) for name in "fg")
    assert again.history == whole.history
    assert again.alignment_sha256 == whole.alignment_sha256


def test_fits_that_vary_are_those_of_commands_of_their_own() -> None:
    words = ["fit", "clmas", "--system", LIVE, "--read", BRAIN, *(word for word in TINY if "rank" not in word)]
    output = run(*words, "--vary", "rank=2,4", "--vary", "seed=0,1", "--out", "many")
    with Path("many/table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["rank"], row["seed"]) for row in table] == [("2", "0"), ("2", "1"), ("4", "0"), ("4", "1")]
    run(*words, "--rank", 4, "--seed", 1, "--out", "one")
    many, one = (FitReport.parse(Path(f"{x}/result.json").read_text(), x) for x in ("many/rank=4,seed=1", "one"))
    assert many.config == one.config
    assert many.identity == one.identity
    assert [seen.loss for seen in many.history] == pytest.approx([seen.loss for seen in one.history], rel=1e-4)
    assert float(table[3]["validation_loss"]) == min(seen.loss for seen in many.history)
    assert float(table[3]["validation_iia"]) >= 0
    assert "many/table.csv" in output
    assert "clmas" in run("evaluate", f"many/{table[3]['name']}", "--pairs", 10)
    before = Path("many/rank=2,seed=0/result.json").read_bytes()
    run(*words, "--vary", "rank=2,4", "--vary", "seed=0,1,2", "--out", "many")  # those that are there are not repeated
    assert Path("many/rank=2,seed=0/result.json").read_bytes() == before
    assert Path("many/rank=4,seed=2/result.json").is_file()


def test_warnings_of_fits_that_vary_say_which_they_concern() -> None:
    words = ["fit", "clmas", "--system", LIVE, "--read", BRAIN, *TINY, "-o", "cl_draw=fixed"]
    output = run(*words, "--vary", "epsilon=0,0.5", "--out", "many")
    (told,) = (line for line in output.splitlines() if "without effect" in line)
    assert told.startswith("warning: epsilon=0: without effect: cl_draw=fixed, because")
    output = run(*words, "--vary", "epsilon=0", "--vary", "seed=0,1", "--out", "others")
    assert "warning: without effect: cl_draw=fixed, because" in output


def test_what_finished_is_in_the_table_though_others_diverged() -> None:
    words = [
        "fit",
        "mas",
        "--system",
        LIVE,
        "--system",
        BRAIN,
        *(one for one in TINY if "rotation" not in one),
        "--map=linear",
        "--preset=paper",
    ]
    output = run(*words, "--vary", "learning-rate=0.0001,1e25", "--out", "many", code=2)
    assert "loss of fit learning_rate=1e+25" in output
    with Path("many/table.csv").open() as file:
        assert [row["learning_rate"] for row in csv.DictReader(file)] == ["0.0001"]
    assert "0.0001" in output


def test_lists_vary_as_json() -> None:
    words = ["fit", "das", "--system", LIVE, *(word for word in TINY if "rank" not in word)]
    run(*words, "--vary", 'subspaces=[{"phase": 2}, {"phase": 2, "count": 4}]', "--out", "many")
    reports = [FitReport.parse(path.read_text(), "report") for path in Path("many").glob("*/result.json")]
    assert sorted(len(report.config.subspaces or {}) for report in reports) == [1, 2]
    assert {path.name for path in Path("many").iterdir() if path.is_dir()} == {
        "subspaces=phase-2",
        "subspaces=phase-2+count-4",
    }


def test_ctrl_c_keeps_checkpoints_of_all_that_vary() -> None:
    words = ["fit", "das", "--system", LIVE, *TINY, "--max-iterations=16", "-o", "patience=99", "--vary", "seed=0,1"]
    names = ["seed=0", "seed=1"]
    code, told = _interrupt(
        [*words, "--out", "f"], lambda: all(Path("f", name, "checkpoint.safetensors").is_file() for name in names)
    )
    assert code == 130, told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    run(*words, "--out", "f")
    run(*words, "--out", "g")
    for name in names:
        again, whole = (FitReport.parse(Path(at, name, "result.json").read_text(), name) for at in "fg")
        assert again.history == whole.history
        assert again.alignment_sha256 == whole.alignment_sha256
        assert not Path("f", name, "checkpoint.safetensors").exists()


# ------------------------------------------------------------------------------------------------------------------- demo


def test_demo_hands_over_to_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    called = {}

    def run_demo(out: Path, *, seed: int, quick: bool, console: Any) -> None:
        called.update(out=out, seed=seed, quick=quick)

    monkeypatch.setattr("neuromas.experiments.demo.run_demo", run_demo)
    run("demo", "--out", "d", "--seed", 3, "--quick")
    assert called == {"out": Path("d"), "seed": 3, "quick": True}


# ------------------------------------------------------------------------------------------------------------- appearance


def test_a_pipe_gets_names_whole_and_no_colour(store: Path) -> None:
    long = "a-recording-with-a-name-of-nearly-one-hundred-letters-" + "x" * 40
    RecordingStore(store).register(toy(long), set="demo")
    listed = run("list", "--store", store)
    assert f"demo/{long}" in listed
    assert "\x1b" not in listed


# ------------------------------------------------------------------------------------------ layers, tasks and other systems


def refused(*words: str) -> str:
    """What a command prints that ends with one error message."""
    result = CliRunner().invoke(verbs.app, list(words))
    assert result.exit_code not in (0, 1), result.output
    assert result.output.count("error: ") == 1
    return " ".join(result.output.split())


def test_capture_at_a_layer_on_solved_trials() -> None:
    run("capture", "multi-object/transformer-0@layer-1", "--trials", "12", "--only-solved", "--out", "seen.nc")
    assert Recording.from_file("seen.nc").manifest.layer == "layer-1"


def test_capture_on_a_task_that_the_system_was_not_trained_on_says_which_tokens() -> None:
    told = refused("capture", "multi-object/gru-0", "--task", "arithmetic", "--out", "seen.nc")
    assert "does not know 0, 1, 2" in told
    assert "=" in told
    assert not Path("seen.nc").exists()


def test_a_layer_that_does_not_exist() -> None:
    assert "nearest: hidden" in refused("capture", "multi-object/gru-0@hiden", "--out", "seen.nc")


def test_train_with_options_of_the_task() -> None:
    small = ("--n-units", "8", "--max-iterations", "1", "--target-accuracy", "0")
    run("train", "multi-object", "--system", "transformer", "--void", "0.2", "--hold-out", "4,9", *small, "--out", "t")
    config = json.loads(Path("t/config.json").read_text())
    assert config["vocabulary"][-1] == "V"
    assert config["provenance"]["source"].endswith("--seed 0 --void 0.2 --hold-out 4,9")
    assert "expected whole numbers" in refused("train", "multi-object", "--hold-out", "four", "--out", "u")
    assert "no option 'void'" in refused("train", "arithmetic", "--void", "0.2", "--out", "u")
    output = refused("train", "in-context", "--system", "llama", "--void", "0.2", "--out", "u")
    assert "without options; got void=0.2" in output


def test_a_folder_and_its_layer_are_found_again_from_anywhere(tmp_path: Path) -> None:
    run("train", "multi-object", "--n-units", "8", "--max-iterations", "1", "--target-accuracy", "0", "--out", "t")
    tiny = ("-o", "n_trials=60", "-o", "n_train_pairs=50", "-o", "n_validation_pairs=20", "--max-iterations", "1")
    run(
        "fit",
        "das",
        "--system",
        "t@embedding",
        "--rank",
        "2",
        "-o",
        "stepwise=true",
        *tiny,
        "--allow-unsolved",
        "--out",
        "f",
    )
    assert json.loads(Path("f/request.json").read_text())["systems"] == [f"{Path('t').absolute()}@embedding"]
    run("evaluate", "f", "--pairs", "10")


def test_roles_as_an_option() -> None:
    tiny = ("-o", "n_trials=100", "-o", "n_train_pairs=50", "-o", "n_validation_pairs=20", "--max-iterations", "1")
    roles = 'roles={"number": {"multi-object": "count", "arithmetic": "rem_ops"}}'
    systems = ("--system", "multi-object/gru-0", "--system", "arithmetic/gru-0")
    run("fit", "mas", *systems, "--rank", "number=4", "-o", roles, *tiny, "--out", "f")
    assert json.loads(Path("f/result.json").read_text())["variables"] == ["number"]


def test_figures_are_listed() -> None:
    told = run("reproduce", "--list")
    assert all(name in told for name in ("2a", "2d", "3a", "lm", "n-systems"))
    assert "known figures: 2a" in refused("reproduce", "9z")


def test_a_recording_registered_by_value_is_queried_on_disk(tmp_path: Path) -> None:
    source, store = tmp_path / "brain.npz", tmp_path / "store"
    run("query", BRAIN, "phase=any", "--out", source)
    run("register", source, "--name", "brain", "--set", "mine", "--group-by", "phase, count", "--store", store)
    assert json.loads((store / "mine" / "brain" / "manifest.json").read_text())["grouped_by"] == ["phase", "count"]
    told = run("query", "mine/brain", "phase=response", "count=3", "-n", 4, "--store", store)
    assert "response" in told
    whole = run("query", "mine/brain", "phase=response", "count=3", "--store", store, "--out", tmp_path / "few.npz")
    with np.load(tmp_path / "few.npz") as found:
        assert (found["count"] == 3).all()
        assert f"{len(found['count']):,} latents" in whole
    assert "no variable 'side'" in run("register", source, "--set", "x", "--group-by", "side", "--store", store, code=3)


# ------------------------------------------------------------------------------------------------- versions, pooled, planned


def test_annotate_makes_versions_and_leaves_what_was(store: Path) -> None:
    Path("table.csv").write_text("trial;reward\n" + "".join(f"{trial};{trial % 4}\n" for trial in range(12)))
    words = ("--variable", "late=count == 2", "--variable", "rich=reward > 1", "--table", "table.csv")
    assert "demo/toy.v2 registered: 30 samples × 4 units" in run(
        "annotate", "demo/toy", *words, "--where", "trial < 10", "--store", store
    )
    told = run("show", "demo/toy.v2", "--store", store)
    assert re.search(r"late +categorical +false \(20\), true \(10\)", told)
    assert re.search(r"rich +categorical +false \(18\), true \(12\)", told)
    assert re.search(r"version of +demo/toy \([0-9a-f]{64}\)", told)
    run("annotate", "demo/toy.v2", "--rename", "count=n", "--drop", "side", "--store", store)
    assert RecordingStore(store).get("demo/toy.v3").variable_names == ["n", "late", "rich"]
    run("annotate", "demo/toy", "--units-where", "depth > 1", "--as", "deep", "--store", store)
    assert RecordingStore(store).get("demo/deep").unit_names == ["u2", "u3"]
    assert RecordingStore(store).get("demo/toy").variable_names == ["side", "count"]
    assert run("verify", "--store", store).startswith("4 recordings are as they were written")


def test_shuffled_labels_from_the_command_line(store: Path) -> None:
    run("annotate", "demo/toy", "--shuffle", 3, "--as", "control", "--store", store)
    held = RecordingStore(store)
    before, after = held.get("demo/toy"), held.get("demo/control")
    np.testing.assert_array_equal(after.latents(), before.latents())
    assert after.values(["side"]).ravel().tolist() != before.values(["side"]).ravel().tolist()
    assert "shuffled between trials, seed 3" in run("show", "demo/control", "--store", store)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "nothing to change: expected --variable, --where, --units-where"),
        (("--variable", "x=nowhere"), 2, "no column 'nowhere'; there are side, count, trial, step, session, token"),
        (("--variable", "x"), 2, "expected NAME=VALUE"),
        (("--table", "none.csv", "--variable", "x=a"), 3, "no such file: none.csv"),
        (("--where", "count > 9"), 2, "true of none of 36"),
        (("--rename", "n=m"), 3, "no variable 'n'; it has side, count"),
        (("--drop", "side", "--as", "toy"), 5, "other content"),
    ],
)
def test_annotate_refuses_with_what_there_is(words: tuple[str, ...], code: int, told: str, store: Path) -> None:
    assert told in run("annotate", "demo/toy", *words, "--store", store, code=code)
    assert [entry.name for entry in RecordingStore(store).list()] == ["demo/toy"]


def test_pool_joins_recordings_and_says_what_that_costs(store: Path) -> None:
    RecordingStore(store).register([toy("b", seed=1), toy("c", seed=2)], set="days")
    told = run("pool", "days", "demo/toy", "--by", "side", "--as", "joined/all", "--store", store)
    assert "Left out" not in told
    assert "joined/all registered:" in told
    assert "noise correlations mean nothing" in told
    made = RecordingStore(store).get("joined/all")
    assert made.n_units == 12
    assert "units of 3 recordings, joined by side (seed 0)" in run("show", "joined/all", "--store", store)
    assert "no unit has 20 trials" in run(
        "pool", "days", "--by", "side", "--as", "joined/none", "--min-trials", 20, "--store", store, code=2
    )
    assert "expected SET/RECORDING" in run("pool", "days", "--by", "side", "--as", "none", "--store", store, code=2)
    assert "no recordings in nights" in run("pool", "nights", "--by", "side", "--as", "a/b", "--store", store, code=3)


def test_plan_writes_what_each_unit_would_have_to_do(fitted: Path) -> None:
    told = run(
        *("plan", fitted, "--source", "gru-0", "--target", BRAIN, "--want", "count=3", "--want", "phase=demo"),
        *("--samples", 6, "--out", "plan.nc"),
    )
    assert "Means over 6 samples" in told
    plan = xr.load_dataset("plan.nc", engine="h5netcdf")
    assert plan["change"].shape == (6, 128)
    assert set(plan["wanted_phase"].values) == {"demo"}
    words = "plan", fitted, "--source", "gru-0", "--target"
    assert "joins gru-0, gru-1, not 'mouse'" in run(*words, "mouse", "--want", "count=3", "--out", "p.nc", code=3)
    assert "ends in .nc or .csv" in run(*words, "gru-1", "--want", "count=3", "--out", "p.txt", code=2)
    assert "no variable 'n'" in run(*words, "gru-1", "--want", "n=3", "--out", "p.nc", code=3)
    assert not Path("p.nc").exists()
