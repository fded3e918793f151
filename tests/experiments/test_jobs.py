"""Expansion of sweeps, identities of jobs, jobs run in this process: what needs no cluster."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.experiments import jobs
from neuromas.experiments.figures import FIGURES
from neuromas.experiments.training_jobs import MADE, trained
from neuromas.experiments.work import fit_request, run_job
from neuromas.fit.fitters import Fitter
from neuromas.fit.request import reopen
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.fit import FitConfig
from neuromas.schema.sweep import Sweep, SweepJob
from neuromas.schema.system import TrainSpec
from neuromas.systems.capture import capture
from neuromas.systems.training import load_system


def silent(iteration, most, told):
    """Hears everything, says nothing."""


def ids(sweep):
    return [planned.job.identity() for planned in jobs.expand(sweep)]


def test_every_choice_of_systems_at_every_point_of_the_axes(tiny):
    axes = {"subspaces.full": [2, 4], "epsilon": [0.5, 0.85]}
    group = tiny.group("mas", "mas", systems=[[tiny.first, tiny.second], [tiny.second, tiny.first]], axes=axes)
    planned = jobs.expand(tiny.declared({**group, "tags": {"panel": "a"}}))
    assert len(planned) == 8
    assert {(one.job.config.subspaces["full"], one.job.config.epsilon) for one in planned} == {
        (rank, epsilon) for rank in (2, 4) for epsilon in (0.5, 0.85)
    }
    assert planned[0].tags == {"panel": "a", "subspaces.full": 2, "epsilon": 0.5}
    assert len({one.job.identity() for one in planned}) == 8


def test_a_group_gets_its_methods_own_defaults(tiny):
    (planned,) = jobs.expand(tiny.declared(tiny.group("s", "stitch", systems=[[tiny.first, tiny.second]])))
    assert planned.job.config.subspaces is None


def test_equal_declarations_have_equal_ids_whatever_the_figure_and_the_labels(tiny):
    one = tiny.declared(tiny.group("a"), figure="x")
    other = tiny.declared({**tiny.group("b"), "tags": {"panel": "z"}}, figure="y", quick=True, note="smaller")
    assert ids(one) == ids(other)
    again = Sweep.parse(one.to_json(), "again")
    assert ids(again) == ids(one)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"seed": 1}},
        {"config": {"subspaces": {"full": 3}}},
        {"evaluation": {"n_pairs": 41}},
        {"systems": [["multi-object/gru-1"]]},
        {"systems": [["multi-object/gru-0@embedding"]]},
        {"method": "stitch", "systems": [["multi-object/gru-0", "multi-object/gru-1"]]},
    ],
    ids=str,
)
def test_whatever_decides_a_fit_is_in_its_id(tiny, changed):
    assert not set(ids(tiny.declared(tiny.group("a", **changed)))) & set(ids(tiny.declared(tiny.group("a"))))


def test_reading_is_another_fit_than_running(tiny):
    both = {"method": "clmas", "systems": [[tiny.first, tiny.second]]}
    assert ids(tiny.declared(tiny.group("a", read=[1], **both))) != ids(tiny.declared(tiny.group("a", **both)))


def test_other_weights_are_another_fit_and_unknown_ones_are_no_fit_yet(tiny):
    sweep = tiny.declared(
        tiny.group("a", systems=[["new/gru-5"]]), systems={"new/gru-5": {"task": "multi-object", "seed": 5}}
    )
    (planned,) = jobs.expand(sweep)
    assert jobs.settle(planned.job, {}) is None
    first, second = (jobs.settle(planned.job, {"new/gru-5": digit * 64}) for digit in "12")
    assert first.identity() != second.identity()
    longer = sweep.systems["new/gru-5"].model_copy(update={"max_iterations": 30_000})
    (same,) = jobs.expand(sweep.model_copy(update={"systems": {"new/gru-5": longer}}))
    assert jobs.settle(same.job, {"new/gru-5": "1" * 64}).identity() == first.identity()


def test_a_job_written_down_keeps_its_id(tiny):
    (planned,) = jobs.expand(tiny.declared(tiny.group("a")))
    read = SweepJob.parse(planned.job.to_json(), "job")
    assert read.identity() == planned.job.identity()


def test_a_field_at_its_default_does_not_change_an_id(tiny):
    spelled = {**tiny.config, "epsilon": FitConfig.model_fields["epsilon"].default}
    assert ids(tiny.declared(tiny.group("a", config=spelled))) == ids(tiny.declared(tiny.group("a")))


def test_systems_that_are_neither_shipped_nor_declared(tiny):
    with pytest.raises(NotFound, match=r"no system 'new/gru-5'; it declares none, shipped are .*multi-object/gru-0"):
        jobs.expand(tiny.declared(tiny.group("a", systems=[["new/gru-5"]])))


def test_a_configuration_that_breaks_at_one_point_says_where(tiny):
    with pytest.raises(InvalidDocument, match=r"group 'a', \{'subspaces.full': 0\}"):
        jobs.expand(tiny.declared(tiny.group("a", axes={"subspaces.full": [2, 0]})))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"measure": "rsa"}, "either a method or a measure"),
        ({"method": None, "measure": "rsa"}, "a measure compares 2 systems"),
        ({"read": [1]}, "read=[1], but the systems are multi-object/gru-0"),
        ({"axes": {"epsilon": []}}, "no values on axis epsilon"),
    ],
)
def test_groups_that_make_no_sense(tiny, fields, problem):
    document = {"figure": "x", "title": "", "groups": [{**tiny.group("a"), **fields}]}
    assert problem in "".join(Sweep.problems(document))


def test_a_quick_sweep_must_say_what_is_smaller(tiny):
    document = {"figure": "x", "title": "", "quick": True, "groups": [tiny.group("a")]}
    assert "note" in "".join(Sweep.problems(document))


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_figure_declares_a_sweep_and_a_smaller_one(figure):
    full, quick = jobs.expand(figure.sweep(False)), jobs.expand(figure.sweep(True))
    assert figure.sweep(True).quick
    assert not figure.sweep(False).quick
    assert len(quick) <= len(full)
    assert {figure.sweep(False).figure, figure.sweep(True).figure, figure.name} == {figure.name}


def test_a_fit_reads_what_it_may_only_read(tiny, tmp_path):
    group = tiny.group("a", "clmas", systems=[[tiny.first, tiny.second]], read=[1], config={"seed": 3})
    (planned,) = jobs.expand(tiny.declared(group))
    request = fit_request(planned.job, tmp_path, silent)
    assert request.systems == (tiny.first,)
    recording = RecordingStore(tmp_path / "recordings").get(*request.read)
    assert (recording.manifest.access, recording.manifest.name) == ("read", "gru-1")
    # the trials that the fit would run if it might: those of seed 3 * 1000 + place
    expected = capture(load_system(tiny.second), planned.job.config.n_trials, seed=3001)
    np.testing.assert_array_equal(recording.activity, expected.activity)
    assert fit_request(planned.job, tmp_path, silent) == request  # recorded once


def test_a_fit_of_a_sweep_is_that_of_the_fitter_and_can_be_opened_again(tiny, tmp_path):
    group = tiny.group("a", "clmas", systems=[[tiny.first, tiny.second]], read=[1])
    (planned,) = jobs.expand(tiny.declared(group))
    config = planned.job.config
    run_job(planned.job, tmp_path, silent)
    folder = jobs.job_folder(tmp_path, planned.job)
    report, scores = jobs.read_fit(folder)
    brain = capture(load_system(tiny.second), config.n_trials, seed=1, access="read")
    alone = Fitter.from_config(config).fit([load_system(tiny.first), brain])
    assert report.alignment_sha256 == alone.report.alignment_sha256
    evaluation = alone.evaluate(
        oracles={"gru-1": load_system(tiny.second)}, n_pairs=40, controls=planned.job.evaluation.controls
    )
    assert scores.scores == evaluation.scores
    assert reopen(folder).sides[1].recording.manifest.access == "read"


def test_a_system_that_was_trained_again_is_refused(tiny, tmp_path):
    (planned,) = jobs.expand(tiny.declared(tiny.group("a")))
    entry = planned.job.systems[0].model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(InvalidInput, match="the system was trained again"):
        run_job(planned.job.model_copy(update={"systems": (entry,)}), tmp_path, silent)


def test_another_system_under_the_same_name_is_refused(tmp_path):
    made = TrainSpec(task="multi-object", seed=3)
    folder = tmp_path / "systems/mine/gru-3"
    folder.mkdir(parents=True)
    (folder / MADE).write_text(made.to_json())
    assert trained(tmp_path, "mine/gru-3", made.model_copy(update={"max_iterations": 7})) is None
    with pytest.raises(InvalidInput, match="holds another system"):
        trained(tmp_path, "mine/gru-3", made.model_copy(update={"memory": 60}))


def test_what_an_earlier_version_left_under_the_same_id_is_made_anew(tiny, tmp_path):
    (planned,) = jobs.expand(tiny.declared(tiny.group("a")))
    run_job(planned.job, tmp_path, silent)
    folder = jobs.job_folder(tmp_path, planned.job)
    before = jobs.read_fit(folder)
    report = json.loads((folder / "result.json").read_text())
    del report["sha256"]  # earlier versions wrote none
    report["config"]["epsilon"], report["identity"] = 0.1, "0" * 64
    (folder / "result.json").write_text(json.dumps(report))
    assert not jobs.finished(tmp_path, planned.job)
    run_job(planned.job, tmp_path, silent)
    after = jobs.read_fit(folder)
    assert after[0].config == planned.job.config
    assert (after[0].identity, after[1].scores) == (before[0].identity, before[1].scores)


def test_a_damaged_evaluation_is_made_again(tiny, tmp_path):
    (planned,) = jobs.expand(tiny.declared(tiny.group("a")))
    run_job(planned.job, tmp_path, silent)
    path = jobs.job_folder(tmp_path, planned.job) / jobs.EVALUATION
    before = json.loads(path.read_text())["scores"]
    path.write_text(path.read_text()[:100])
    assert not jobs.finished(tmp_path, planned.job)
    run_job(planned.job, tmp_path, silent)
    assert json.loads(path.read_text())["scores"] == before


def test_a_finished_fit_without_the_controls_asked_for_is_scored_again_not_fitted_again(tiny, tmp_path):
    def job(*controls):
        group = tiny.group("a", evaluation={"n_pairs": 40, "controls": controls})
        return jobs.expand(tiny.declared(group))[0].job

    run_job(job(), tmp_path, silent)
    folder = jobs.job_folder(tmp_path, job())
    assert folder == jobs.job_folder(tmp_path, job("none", "random"))
    (own,) = jobs.read_fit(folder)[1].scores
    before = (folder / "result.json").read_bytes()
    assert not jobs.finished(tmp_path, job("none", "random"))

    run_job(job("none", "random"), tmp_path, silent)
    assert jobs.finished(tmp_path, job("none", "random"))
    assert [score.method for score in jobs.read_fit(folder)[1].scores] == ["none", "random", "das"]
    assert jobs.read_fit(folder)[1].scores[-1] == own
    assert (folder / "result.json").read_bytes() == before
    assert len(tiny.attempts(tmp_path)) == 1
    assert jobs.finished(tmp_path, job("none"))  # more than was asked for is enough


def test_an_iia_has_controls_beside_it_unless_they_are_declined(tiny):
    (planned,) = jobs.expand(tiny.declared({**tiny.group("a"), "evaluation": {}}))
    assert planned.job.evaluation.controls == ("none", "random", "wrong-variable")
