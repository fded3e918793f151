"""Actions: a request document in, a result out, the same whoever calls."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuromas.actions.annotate import annotate
from neuromas.actions.capture import capture
from neuromas.actions.compare import compare
from neuromas.actions.evaluate import evaluate, oracles_by_side
from neuromas.actions.export import export
from neuromas.actions.fit import combinations, finished, fit, fits_request
from neuromas.actions.join import join
from neuromas.actions.outputs import check_file, check_folder
from neuromas.actions.plan import plan, side_of
from neuromas.actions.pool import pool
from neuromas.actions.query import query
from neuromas.actions.register import preview, register
from neuromas.actions.stores import list_recordings, remove, show, verify
from neuromas.causal.counting import DEMO
from neuromas.errors import InvalidInput, NotFound, StorageFailed
from neuromas.fit.folder import read_request
from neuromas.fit.request import reopen
from neuromas.recordings.export import export as write_file
from neuromas.recordings.recording import Recording
from neuromas.schema.actions import (
    AnnotateRequest,
    CaptureRequest,
    CompareRequest,
    EvaluateRequest,
    ExportRequest,
    JoinRequest,
    ListRequest,
    PlanRequest,
    PoolRequest,
    QueryRequest,
    RegisterRequest,
    RemoveRequest,
    ShowRequest,
    VerifyRequest,
)
from neuromas.systems.training import load_system

LIVE, BRAIN = "multi-object/gru-0", "multi-object/gru-1"
TINY = {
    **{"subspaces": {"full": 4}, "n_trials": 60, "n_train_pairs": 40, "n_validation_pairs": 20},
    **{"batch_size": 8, "max_iterations": 4, "validate_every": 2, "rotation": "gram-schmidt"},
}


def recording(name: str = "toy", seed: int = 0) -> Recording:
    """24 trials of three steps, two values of ``side``."""
    rng = np.random.default_rng(seed)
    return Recording.from_arrays(
        rng.normal(size=(24, 3, 4)).astype(np.float32),
        {"side": np.array(["left", "right"])[np.arange(24) % 2], "count": np.tile([0, 1, 2], (24, 1))},
        name=name,
        system="planted",
    )


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The path of a store that holds ``days/a`` and ``days/b``."""
    for seed, name in enumerate("ab"):
        write_file(recording(name, seed), tmp_path / f"{name}.npz")
    sources = tuple(str(tmp_path / f"{name}.npz") for name in "ab")
    path = str(tmp_path / "store")
    registered = register(RegisterRequest(sources=sources, set="days", store=path))
    assert [(entry.name, entry.unchanged) for entry in registered] == [("days/a", False), ("days/b", False)]
    return path


def test_what_is_registered_is_listed_shown_verified_and_removed(store: str) -> None:
    assert [entry.name for entry in list_recordings(ListRequest(store=store)).entries] == ["days/a", "days/b"]
    assert show(ShowRequest(recording="days/a", store=store)).n_samples == 72
    verification = verify(VerifyRequest(name="days", store=store))
    assert (verification.recordings, verification.problems) == (["days/a", "days/b"], [])
    assert list(remove(RemoveRequest(name="days/a", store=store))) == ["days/a"]
    assert [entry.name for entry in list_recordings(ListRequest(store=store)).entries] == ["days/b"]


def test_registering_again_changes_nothing_and_says_so(store: str, tmp_path: Path) -> None:
    (entry,) = register(RegisterRequest(sources=(str(tmp_path / "a.npz"),), set="days", store=store))
    assert entry.unchanged


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "spikes.csv").write_text("unit,time\na,0.5\nb,1.5\n")
    (source,) = preview(RegisterRequest(sources=(str(tmp_path / "spikes.csv"),), set="x", format="spikes"))
    assert source.recordings == ()
    assert source.contents
    assert [path.name for path in tmp_path.iterdir()] == ["spikes.csv"]


def test_an_annotated_version_is_another_recording(store: str) -> None:
    request = AnnotateRequest(recording="days/a", variable={"late": "count == 2"}, where="trial < 10", store=store)
    made = annotate(request)
    assert made.name == "days/a.v2"
    assert made.recording.variable_names == ["side", "count", "late"]
    assert show(ShowRequest(recording="days/a", store=store)).variable_names == ["side", "count"]
    with pytest.raises(InvalidInput, match="nothing to change"):
        annotate(AnnotateRequest(recording="days/a", store=store))


def test_a_set_stands_for_its_recordings_when_they_are_pooled(store: str) -> None:
    pooled = pool(PoolRequest(recordings=("days",), by=("side",), name="joined/all", store=store))
    assert pooled.recording.n_units == 8
    with pytest.raises(NotFound, match="no recordings in nights"):
        pool(PoolRequest(recordings=("nights",), by=("side",), name="joined/none", store=store))


def test_many_files_become_one_recording(tmp_path: Path) -> None:
    for day in range(3):
        np.savez(tmp_path / f"day{day}.npz", activity=np.full((2, 4, 1), day), side=["left", "right"])
    request = {
        "sources": [str(tmp_path / f"day{day}.npz") for day in range(3)],
        "set": "m",
        "store": str(tmp_path / "s"),
    }
    (joined,) = register(RegisterRequest.parse({**request, "join": True, "name": "mouse"}, "test"))
    assert joined.name == "m/mouse"
    assert joined.recording.activity.values[:, 0].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert np.unique(joined.recording.dataset["joined_from"]).tolist() == ["day0", "day1", "day2"]
    register(RegisterRequest.parse(request, "test"))
    again = join(JoinRequest(recordings=("m/day0", "m/day1", "m/day2"), name="m/again", store=request["store"]))
    np.testing.assert_array_equal(again.recording.latents(), joined.recording.latents())
    longer = annotate(AnnotateRequest(recording="m/mouse", steps_per_bin=2, bin_by="sum", store=request["store"]))
    assert longer.recording.activity.values[:, 0].tolist() == [0] * 4 + [2] * 4 + [4] * 4


def test_a_query_finds_samples_that_hold_the_values(store: str) -> None:
    found = query(QueryRequest(recording="days/a", values={"side": "left", "count": "1..2"}, store=store))
    whole = show(ShowRequest(recording="days/a", store=store))
    values = whole.values(["side", "count"])
    left = whole.spec("side").code("left")
    expected = np.flatnonzero((values[:, 0] == left) & (values[:, 1] >= 1))
    np.testing.assert_array_equal(found.samples, expected)


def test_an_exported_recording_is_registered_again_with_equal_content(store: str, tmp_path: Path) -> None:
    export(ExportRequest(recording="days/a", store=store), tmp_path / "again.nc")
    other = str(tmp_path / "other")
    (entry,) = register(RegisterRequest(sources=(str(tmp_path / "again.nc"),), set="days", store=other))
    then, now = (show(ShowRequest(recording="days/a", store=path)) for path in (store, other))
    assert entry.name == "days/a"
    assert then.manifest.content_sha256 == now.manifest.content_sha256


def test_csv_goes_to_standard_output(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    export(ExportRequest(recording="days/a", units=("u1",), store=store), "-")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 72
    assert {row["side"] for row in rows} == {"left", "right"}
    assert "u0" not in rows[0]


def test_a_system_is_captured_into_a_set_or_a_file(tmp_path: Path) -> None:
    request = {"system": LIVE, "n_trials": 12, "seed": 1}
    into = capture(CaptureRequest(**request, set="mine", store=str(tmp_path / "s")))
    assert into.name == "mine/gru-0"
    filed = capture(CaptureRequest(**request), out=tmp_path / "c.nc")
    np.testing.assert_array_equal(filed.recording.latents(), into.recording.latents())
    for both in ({"set": "mine"}, {}):
        with pytest.raises(InvalidInput, match="either"):
            capture(CaptureRequest(**request, **both), out=tmp_path / "c.nc" if both else None)


def test_trials_show_each_quantity_equally_often_and_options_reach_the_task(tmp_path: Path) -> None:
    request = {"system": LIVE, "set": "mine", "store": str(tmp_path), "per_quantity": 2}
    balanced = capture(CaptureRequest(**request)).recording.dataset
    in_demo = balanced["phase"].values == DEMO
    shown = pd.Series(balanced["count"].values[in_demo]).groupby(balanced["trial"].values[in_demo]).max()
    assert np.unique(shown, return_counts=True)[1].tolist() == [2] * 20
    chosen = capture(CaptureRequest(**request, name="few", task_options={"hold_out": list(range(4, 21))})).recording
    assert chosen.dataset["count"].max() == 3


def test_a_measure_of_a_recording_with_itself_is_one() -> None:
    result = compare(CompareRequest(x=LIVE, y=LIVE, measure="cka", n_samples=200, n_resamples=2))
    assert result.mean == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------------------------------ fits


def tiny(**fields) -> dict:
    """A request of a tiny CLMAS fit."""
    return {"config": {"method": "clmas", **TINY}, "systems": [LIVE], "read": [BRAIN], **fields}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished fit."""
    out = tmp_path_factory.mktemp("fits") / "one"
    fits = fit(fits_request(tiny(), "test"), out)
    assert list(fits.results) == [""]
    assert not fits.repeated
    return out


def test_a_fit_is_not_repeated_and_its_request_reopens_it(fitted: Path) -> None:
    seen: list[str] = []
    again = fit(fits_request(tiny(), "test"), fitted, progress=lambda name, now: seen.append(name))
    assert again.repeated
    assert not seen
    assert read_request(fitted).config == again.results[""].report.config
    assert [side.name for side in reopen(fitted).sides] == ["gru-0", "gru-1"]


def test_settings_that_vary_make_a_folder_each_and_a_table(tmp_path: Path) -> None:
    request = fits_request(tiny(vary={"rank": [2, 4], "seed": [0]}), "test")
    assert [one.name for one in combinations(request)] == ["rank=2,seed=0", "rank=4,seed=0"]
    assert finished(request, tmp_path / "many").results == {}
    fits = fit(request, tmp_path / "many")
    with (tmp_path / "many" / "table.csv").open() as file:
        assert [row["rank"] for row in csv.DictReader(file)] == ["2", "4"]
    assert fits.table()["rank"].tolist() == [2, 4]
    shutil.rmtree(tmp_path / "many" / "rank=2,seed=0")
    assert list(finished(request, tmp_path / "many").results) == ["rank=4,seed=0"]


def test_an_evaluation_lies_beside_its_fit(fitted: Path) -> None:
    evaluation = evaluate(EvaluateRequest(folder=str(fitted), n_pairs=20, oracle={BRAIN: BRAIN}))
    assert evaluation.oracles == ("gru-1",)
    with (fitted / "iia.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(evaluation.scores)


def test_single_directions_are_scored(fitted: Path) -> None:
    request = {"folder": str(fitted), "n_pairs": 20, "controls": ()}
    evaluation = evaluate(EvaluateRequest(**request, directions=("gru-1:gru-0",)))
    assert [(score.source, score.target) for score in evaluation.scores] == [("gru-1", "gru-0")]
    with pytest.raises(NotFound, match="gru-9"):
        evaluate(EvaluateRequest(**request, directions=("gru-9:gru-0",)))
    assert "expected SOURCE:TARGET, got 'gru-1'" in EvaluateRequest.problems(request | {"directions": ["gru-1"]})[0]


def test_an_oracle_may_be_called_as_its_recording(fitted: Path) -> None:
    assert list(oracles_by_side(reopen(fitted), {BRAIN: load_system(LIVE)})) == ["gru-1"]


def test_a_plan_names_the_nearest_system(fitted: Path, tmp_path: Path) -> None:
    request = {"folder": str(fitted), "source": "gru-0", "want": {"count": "3", "phase": "demo"}, "n_samples": 4}
    made = plan(PlanRequest(**request, target=BRAIN), tmp_path / "plan.nc")
    assert made["change"].shape == (4, 128)
    with pytest.raises(NotFound, match=r"not 'gru1'; did you mean 'gru-1'\?"):
        side_of(reopen(fitted), "gru1", "here")


# --------------------------------------------------------------------------------------------------------------- outputs


def test_outputs_are_checked_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="expected a folder to write to, got a file"):
        fit(fits_request(tiny(), "test"), tmp_path / "file")
    with pytest.raises(InvalidInput, match="so no folder can be made in it"):
        check_folder(tmp_path / "file" / "below")
    with pytest.raises(InvalidInput, match="expected a file to write, got a folder"):
        check_file(tmp_path)
    assert check_folder(tmp_path / "new" / "below") == tmp_path / "new" / "below"
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(StorageFailed, match="MiB are free"):
        check_file(tmp_path / "new.nc")
