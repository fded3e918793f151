"""A system's trial accuracy is measured before it is recorded or fitted: recorded, warned of, refused at chance."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from neuromas import CLMAS, DAS, capture, load_system
from neuromas.causal.model import Sequences, get_task
from neuromas.cli.verbs import app
from neuromas.errors import InvalidInput
from neuromas.fit.result import FitResult
from neuromas.recordings.annotate import annotate
from neuromas.schema.fit import FitConfig
from neuromas.schema.recording import RecordingManifest
from neuromas.systems.competence import chance, remark, trial_accuracy
from neuromas.systems.recurrent import GRU
from neuromas.systems.training import save_system, shipped_systems

QUICK = {"n_trials": 80, "n_train_pairs": 40, "n_validation_pairs": 20, "batch_size": 16, "max_iterations": 2}
TASK = get_task("multi-object")


def renumbered(name: str = "renumbered") -> GRU:
    """The shipped GRU with the embedding's rows in another order: as if its tokens had other numbers."""
    system = load_system("multi-object/gru-0")
    weights = {key: tensor.clone() for key, tensor in system.weights.items()}
    weights["embedding.weight"] = weights["embedding.weight"].roll(1, dims=0)
    return GRU(system.config.model_copy(update={"name": name, "weights_sha256": None}), weights)


def failing(toys, every: int):
    """A planted system that fails every n-th trial."""

    class Failing(toys.Exact):
        def solved(self, trials, batch_size=1000):
            return np.arange(len(trials)) % every != every - 1

    return toys.make("failing", kind=Failing)


@pytest.mark.parametrize("name", shipped_systems())
def test_shipped_systems_do_their_tasks_without_a_word(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = capture(load_system(name), 4)
    assert recording.manifest.provenance.trial_accuracy == 1.0


@pytest.mark.parametrize("access", ["intervene", "read"])
def test_a_network_with_other_token_numbers_is_refused(access):
    with pytest.raises(InvalidInput, match=r"'renumbered' solves 0 of 60 trials of task 'multi-object'") as caught:
        capture(renumbered(), 5, access=access)
    assert caught.value.kind == "unsolved"
    with pytest.warns(UserWarning, match=r"renumbered solves only 0\.0 %"):
        recording = capture(renumbered(), 5, access=access, allow_unsolved=True)
    assert recording.manifest.provenance.trial_accuracy == 0.0


def test_a_fit_refuses_it_too_unless_told_otherwise(tmp_path):
    with pytest.raises(InvalidInput, match="allow_unsolved") as caught:
        DAS(4, **QUICK).fit([renumbered()], out=tmp_path / "f")
    assert caught.value.kind == "unsolved"
    assert not (tmp_path / "f").exists()
    with pytest.warns(UserWarning, match="renumbered"):
        result = DAS(4, allow_unsolved=True, **QUICK).fit([renumbered()])
    assert result.report.trial_accuracy == {"renumbered": 0.0}
    assert any("renumbered solves only 0.0 %" in text for text in result.report.warnings)


def test_a_system_that_fails_some_trials_is_warned_of_everywhere(toys, tmp_path):
    system = failing(toys, every=50)
    with pytest.warns(UserWarning, match=r"failing solves only 98\.\d %"):
        result = DAS(2, **QUICK).fit([system], model=toys.model, out=tmp_path)
    (warning,) = [text for text in result.report.warnings if "solves only" in text]
    assert FitResult.load(tmp_path).report.warnings == result.report.warnings
    assert result.report.trial_accuracy["failing"] == pytest.approx(0.98, abs=0.01)
    assert warning in result.evaluate(n_pairs=10, controls=()).warnings


def test_a_recording_takes_the_accuracy_along(toys):
    with pytest.warns(UserWarning, match="failing"):
        recording = capture(failing(toys, every=20), 100, model=toys.model)
    other = annotate(recording, {"twice": "2 * count"})
    assert other.manifest.provenance.trial_accuracy == pytest.approx(0.95)
    with pytest.warns(UserWarning, match=r"^failing solves only 95\.0 %"):
        capture(failing(toys, every=20), 100, model=toys.model)
    report = CLMAS(2, **QUICK).fit([toys.make("net"), other], model=toys.model).report
    assert report.trial_accuracy == {"net": 1.0, "failing": pytest.approx(0.95)}
    assert any("failing solves only 95.0 %" in text for text in report.warnings)


def test_the_content_of_a_recording_does_not_depend_on_it(tmp_path):
    from neuromas.recordings.content import content_sha256

    recording = capture(load_system("multi-object/gru-0"), 5)
    provenance = recording.manifest.provenance.model_copy(update={"trial_accuracy": None})
    manifest = recording.manifest.model_copy(update={"provenance": provenance})
    assert content_sha256(recording) == content_sha256(recording.replaced(recording.dataset, manifest))
    assert RecordingManifest.problems(manifest.model_dump()) == []


def test_the_option_changes_no_identity():
    plain, allowing = (FitConfig(method="das", allow_unsolved=allow) for allow in (False, True))
    assert plain.identity_json() == allowing.identity_json()
    assert "allow_unsolved" not in plain.identity_json()


def test_trials_that_were_left_out_count():
    recording = capture(load_system("multi-object/gru-0"), 70, only_solved=True)
    assert recording.manifest.provenance.trial_accuracy == 1.0


def test_chance_is_what_guesses_reach():
    """One deterministic token per trial, 30 % of one kind: always that one is right in 30 %."""
    tokens = np.repeat([[0, 1], [0, 2], [0, 3]], [6, 5, 9], axis=0)
    scored = np.tile([False, True], (20, 1))
    trials = Sequences(tokens, np.full(20, 2), scored, np.zeros((20, 2, 1), np.int64), scored)
    assert chance(trials) == pytest.approx(9 / 20)
    assert chance(TASK.sample(500, 0)) < 0.05


def test_a_system_at_the_level_of_a_coin_is_refused(toys):
    """Two answers: half of the trials right is chance, three quarters are not."""

    class Coin(toys.Toy):
        name = "coin"

        def sample(self, n_trials, seed):
            tokens = np.column_stack([np.zeros(n_trials, int), 3 + np.arange(n_trials) % 2, np.full(n_trials, 5)])
            scored = np.tile([False, True, False], (n_trials, 1))
            values = np.zeros((n_trials, 3, 2), np.int64)
            return Sequences(tokens, np.full(n_trials, 3), scored, values, scored)

    with pytest.raises(InvalidInput, match="no more than guesses"):
        capture(failing(toys, every=2), 100, model=Coin())
    with pytest.warns(UserWarning, match=r"75\.0 %"):
        capture(failing(toys, every=4), 100, model=Coin())


def test_what_cannot_be_resumed_is_recorded_without_a_check(toys):
    class Mute(toys.Exact):
        """As a module that can only be recorded: it has no way to go on from a latent."""

        def resume(self, latents, continuation, context=None):
            raise NotImplementedError

    recording = capture(toys.make("mute", kind=Mute), 10, model=toys.model)
    assert recording.manifest.provenance.trial_accuracy is None
    assert trial_accuracy(toys.make("mute", kind=Mute), toys.model.sample(5, 0)) is None
    assert remark("mute", None) is None


def test_the_command_line_has_the_option(tmp_path):
    folder = tmp_path / "renumbered"
    save_system(renumbered(), folder)
    run = CliRunner()
    for words in (
        ["capture", str(folder), "--trials", "5", "--out", str(tmp_path / "r.nc")],
        ["fit", "das", "--system", str(folder), "--rank", "2", *_options(QUICK), "--out", str(tmp_path / "fit")],
    ):
        refused = run.invoke(app, words)
        assert refused.exit_code == 2, refused.output
        assert "no more than guesses would" in refused.output
        assert "--allow-unsolved" in refused.output
        allowed = run.invoke(app, [*words, "--allow-unsolved"])
        assert allowed.exit_code == 0, allowed.output
        assert allowed.output.count("solves only 0.0 %") == 1


def _options(settings):
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_the_check_leaves_random_numbers_alone():
    system = load_system("multi-object/gru-0")
    torch.manual_seed(3)
    capture(system, 5)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
