"""An oracle must be the system that was recorded, and evaluations never replace others in silence."""

from __future__ import annotations

import pytest
import torch

from neuromas import CLMAS, capture, load_system
from neuromas.actions.evaluate import evaluate
from neuromas.align.oracle import check_oracle
from neuromas.errors import InvalidInput
from neuromas.fit.folder import keep_evaluation, read_evaluation, write_evaluation
from neuromas.fit.request import parse_request, run_request
from neuromas.recordings.annotate import derived, standardised
from neuromas.recordings.recording import Recording
from neuromas.schema.actions import EvaluateRequest
from neuromas.systems.recurrent import GRU

RUNS, READS, OTHER = "multi-object/gru-0", "multi-object/gru-1", "multi-object/gru-2"
QUICK = {"n_trials": 60, "n_train_pairs": 40, "n_validation_pairs": 20, "batch_size": 16, "max_iterations": 1}


@pytest.fixture(scope="module")
def brain():
    return capture(load_system(READS), 60, name="brain", access="read")


@pytest.fixture(scope="module")
def result(brain):
    return CLMAS(4, **QUICK).fit([load_system(RUNS), brain])


def check(system, recording):
    check_oracle(system, recording, torch.from_numpy(recording.latents()))


def test_the_recorded_system_is_an_oracle(result):
    evaluation = result.evaluate(oracles={"brain": load_system(READS)}, n_pairs=20, controls=())
    assert evaluation.oracles == ("brain",)
    assert evaluation.oracle_weights == {"brain": load_system(READS).config.weights_sha256}
    assert not evaluation.warnings


@pytest.mark.parametrize("name", [OTHER, RUNS, READS + "@embedding"])
def test_another_network_or_layer_is_refused(result, name):
    with pytest.raises(InvalidInput, match="is not the system that recording 'brain' was made from") as caught:
        result.evaluate(oracles={"brain": load_system(name)}, n_pairs=20, controls=())
    assert caught.value.kind == "wrong_oracle"


def test_the_same_weights_under_another_name_are_an_oracle(brain):
    system = load_system(READS)
    check(GRU(system.config.model_copy(update={"name": "copy", "weights_sha256": None}), system.weights), brain)


def test_weights_that_went_on_learning_are_refused(brain):
    system, generator = load_system(READS), torch.Generator().manual_seed(0)
    moved = {
        name: tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in system.weights.items()
    }
    with pytest.raises(InvalidInput, match="of their spread"):
        check(GRU(system.config, moved), brain)


def test_half_precision_is_near_enough():
    system = load_system(READS)
    check(system, capture(system, 30, dtype="float16"))


def test_activity_that_was_changed_is_refused(brain):
    """The oracle would be resumed from latents that it never had."""
    with pytest.raises(InvalidInput, match="of their spread"):
        check(load_system(READS), standardised(brain))


def without_tokens(brain, source):
    return Recording.from_arrays(
        brain.latents(),
        {name: brain.values([name])[:, 0].astype(int) for name in brain.variable_names},
        name="bare",
        trial=brain.trial,
        step=brain.step,
        provenance={"source": source},
    )


def test_without_tokens_only_the_weights_say_what_was_recorded(brain):
    system = load_system(READS)
    with pytest.raises(InvalidInput, match="'bare' has no tokens") as caught:
        check(system, without_tokens(brain, "somewhere"))
    assert caught.value.kind == "no_tokens"
    check(system, without_tokens(brain, brain.manifest.provenance.source))
    with pytest.raises(InvalidInput):
        check(load_system(OTHER), without_tokens(brain, brain.manifest.provenance.source))


def test_trials_with_holes_are_compared_up_to_the_hole(brain):
    """Step 3 is missing everywhere: what follows cannot be compared, what comes before can."""
    kept = derived(brain, brain.dataset.isel(sample=brain.step != 3), brain.manifest.variables, "without step 3")
    check(load_system(READS), kept)
    with pytest.raises(InvalidInput):
        check(load_system(OTHER), kept)


def test_an_oracle_that_fails_its_task_is_warned_of(toys):
    class Failing(toys.Exact):
        def solved(self, trials, batch_size=1000):
            return super().solved(trials, batch_size) & (trials.lengths > 5)

    system = toys.make("brain", kind=Failing)
    recording = capture(toys.make("brain"), 60, model=toys.model, access="read")
    bare = recording.manifest.provenance.model_copy(update={"trial_accuracy": None})  # as of earlier versions
    recording = recording.replaced(recording.dataset, recording.manifest.model_copy(update={"provenance": bare}))
    result = CLMAS(2, **QUICK).fit([toys.make("net"), recording], model=toys.model)
    evaluation = result.evaluate(oracles={"brain": system}, n_pairs=20, controls=())
    assert any("oracle brain solves only" in warning for warning in evaluation.warnings)


class TestFolder:
    @pytest.fixture
    def fitted(self, tmp_path):
        config = {"method": "mas", "subspaces": {"full": 4}, **QUICK}
        run_request(parse_request({"config": config, "systems": [RUNS, OTHER]}, "test"), tmp_path)
        return tmp_path

    def request(self, folder, **options):
        return EvaluateRequest(folder=str(folder), n_pairs=options.pop("n_pairs", 10), controls=(), **options)

    def test_other_options_keep_what_was_there(self, fitted, recwarn):
        first = evaluate(self.request(fitted))
        assert not [str(warning.message) for warning in recwarn]
        with pytest.warns(UserWarning, match=r"other oracles or options; it is kept as evaluation-\w{8}\.json"):
            second = evaluate(self.request(fitted, part="validation"))
        (kept,) = fitted.glob("evaluation-*.json")
        assert type(first).parse(kept.read_bytes(), "kept") == first
        assert read_evaluation(fitted) == second
        assert len([*fitted.glob("iia-*.csv")]) == 1
        assert (fitted / "iia.csv").read_text() != next(fitted.glob("iia-*.csv")).read_text()

    @pytest.mark.parametrize("options", [{"seed": 1}, {"n_pairs": 12}, {"label": "mine"}])
    def test_every_option_counts(self, fitted, options):
        first = evaluate(self.request(fitted))
        with pytest.warns(UserWarning, match="kept as"):
            evaluate(self.request(fitted, **options))
        (kept,) = fitted.glob("evaluation-*.json")
        assert type(first).parse(kept.read_bytes(), "kept") == first

    def test_the_same_evaluation_replaces_itself(self, fitted, recwarn):
        assert evaluate(self.request(fitted)).like(evaluate(self.request(fitted)))
        assert not [*fitted.glob("evaluation-*.json")]
        assert not [str(warning.message) for warning in recwarn]

    def test_a_damaged_evaluation_is_kept_too(self, fitted):
        evaluation = evaluate(self.request(fitted))
        (fitted / "evaluation.json").write_text("{")
        kept = write_evaluation(fitted, evaluation)
        assert kept is not None
        assert kept.read_text() == "{"
        assert keep_evaluation(fitted, evaluation) is None
