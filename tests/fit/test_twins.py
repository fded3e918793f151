"""CLMAS with a twin: behaviour in directions into a system that can only be read, and a judge that no fit saw."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.evaluation.accuracy import evaluate
from neuromas.fit.fitters import CLMAS
from neuromas.schema.fit import FitConfig
from neuromas.schema.twin import TwinConfig
from neuromas.systems.capture import capture
from neuromas.twins.twin import JUDGE, REFEREE, Twin

SETTINGS = {
    "kind": "gru",
    "judge_kind": "gru",
    "n_twins": 2,
    "n_hidden": 32,
    "rollout": 10,
    "batch_size": 48,
    "max_iterations": 250,
    "validate_every": 125,
    "noise": 0.02,
}
FIT = {"preset": "paper", "n_trials": 60, "batch_size": 32, "n_train_pairs": 160, "n_validation_pairs": 60}
FIT |= {
    "max_iterations": 40,
    "validate_every": 20,
    "learning_rate": 0.02,
    "rotation": "gram-schmidt",
    "init": "closed-form",
}


@pytest.fixture(scope="module")
def live(toys):
    return toys.make("brain", 14, seed=2, scale=1.5)


@pytest.fixture(scope="module")
def read(live, toys):
    return capture(live, 200, model=toys.model, seed=5, access="read")


@pytest.fixture(scope="module")
def folder(read, toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("twin")
    Twin.fit(read, model=toys.model, out=out, **SETTINGS)
    return out


def _fit(toys, read, folder, **options):
    fitter = CLMAS(8, **{**FIT, "twin": None if folder is None else str(folder), **options})
    return fitter.fit([toys.make("net"), read], model=toys.model)


@pytest.fixture(scope="module")
def result(toys, read, folder):
    return _fit(toys, read, folder)


def test_directions_into_the_read_system_carry_both_losses(result):
    first = result.report.history[0]
    assert set(first.behaviour) == {"net->net", "brain->net", "net->brain", "brain->brain"}
    assert set(first.cl) == {"net->brain", "brain->brain"}
    # what the referee says is no IIA of the system
    assert set(first.iia) == {"net->net", "brain->net"}
    assert set(first.iia_twin) == {"net->brain", "brain->brain"}
    assert result.report.ran == ("net",)
    assert result.report.twins["brain"].role == JUDGE


def test_the_judge_agrees_with_the_oracle(result, live):
    evaluation = result.evaluate(oracles={"brain": live}, n_pairs=300)
    rows = [score for score in evaluation.scores if score.target == "brain"]
    assert {score.method for score in rows} == {"none", "random", "cl-ceiling", "clmas"}
    for score in rows:
        # without a fit, targets are led where no trial ever went, and a twin cannot know what its system does there
        limit = 0.05 if score.method in ("cl-ceiling", "clmas") else 0.1
        assert score.iia_twin == pytest.approx(score.iia, abs=limit), score.method
        assert score.iia_twin_low <= score.iia_twin <= score.iia_twin_high
    assert all(score.iia_twin is None for score in evaluation.scores if score.target == "net")
    assert evaluation.twins["brain"].role == JUDGE


def test_without_an_oracle_the_judge_alone_answers(result):
    scores = result.evaluate(n_pairs=100, controls=()).scores
    into = [score for score in scores if score.target == "brain"]
    assert all(score.iia is None and score.iia_twin is not None for score in into)


def test_the_gradient_never_sees_referee_and_judge(toys, read, folder, monkeypatch):
    from neuromas.twins.system import TwinSystem

    trained = []
    resume = TwinSystem.resume

    def watched(self, latents, continuation, context=None):
        if latents.requires_grad:
            trained.append(self.name)
        return resume(self, latents, continuation, context)

    monkeypatch.setattr(TwinSystem, "resume", watched)
    _fit(toys, read, folder)
    assert set(trained) == {"brain-twin-0", "brain-twin-1"}
    assert not any(name.endswith((REFEREE, JUDGE)) for name in trained)


def test_a_checkpoint_that_is_worse_into_the_read_system_is_not_preferred(result):
    kept = result.report.best
    later = [seen for seen in result.report.history if seen.iteration > kept.iteration]
    for seen in later:
        worse = any(seen.iia_twin[name] < kept.iia_twin[name] for name in kept.iia_twin)
        assert worse or seen.loss >= kept.loss


def test_a_poor_twin_gives_no_estimate(result, toys):
    side = next(side for side in result.sides if side.name == "brain")
    poor = Twin(side.twin.card.model_copy(update={"verdict": "poor", "reasons": ("it guesses",)}), side.twin.members)
    sides = [each if each.name != "brain" else each.with_twin(poor) for each in result.sides]
    evaluation = evaluate(result.alignment, sides, n_pairs=50, controls=())
    assert all(score.iia_twin is None for score in evaluation.scores)
    assert "brain: no IIA is estimated, because its twin is poor: it guesses" in evaluation.warnings


def test_a_twin_is_part_of_what_a_fit_is(toys, read, folder, tmp_path):
    _fit(toys, read, None, max_iterations=2)
    fitter = CLMAS(4, **{**FIT, "max_iterations": 2, "twin": str(folder)})
    first = fitter.fit([toys.make("net"), read], model=toys.model, out=tmp_path / "a")
    plain = CLMAS(4, **{**FIT, "max_iterations": 2}).fit([toys.make("net"), read], model=toys.model)
    assert first.report.identity != plain.report.identity
    moved = tmp_path / "moved"
    Twin.load(folder).save(moved)
    same = CLMAS(4, **{**FIT, "max_iterations": 2, "twin": str(moved)})
    # the same twin elsewhere is the same fit, which is finished
    again = same.fit([toys.make("net"), read], model=toys.model, out=tmp_path / "a")
    assert again.report.identity == first.report.identity


def test_twins_are_learnt_and_kept_with_the_fit(toys, read, tmp_path, monkeypatch):
    from neuromas.fit import stand_ins

    monkeypatch.setattr(stand_ins, "TwinConfig", lambda **kept: TwinConfig(**{**SETTINGS, "max_iterations": 6, **kept}))
    fitter = CLMAS(4, **{**FIT, "max_iterations": 2, "twin": "auto"})
    first = fitter.fit([toys.make("net"), read], model=toys.model, out=tmp_path)
    assert (tmp_path / "twins" / "brain" / "twin.json").is_file()
    monkeypatch.setattr(stand_ins.Twin, "save", lambda *_: pytest.fail("learnt again"))
    again = fitter.fit([toys.make("net"), read], model=toys.model, out=tmp_path)
    assert again.report == first.report
    assert again.sides[1].twin.sha256 == first.sides[1].twin.sha256


def test_wrong_twins_are_refused(toys, read, live, folder):
    other = capture(live, 60, model=toys.model, seed=8, access="read", name="other")
    with pytest.raises(InvalidInput, match="stands in for its own recording alone"):
        _fit(toys, other, folder)
    with pytest.raises(InvalidInput, match="has 14 units"):
        CLMAS(4, **FIT, twin=str(folder)).fit(
            [toys.make("net"), read], model=toys.model, units={"brain": read.unit_names[:12]}
        )
    with pytest.raises(InvalidInput, match="every system of this fit can be run"):
        CLMAS(4, **FIT, twin=str(folder)).fit([toys.make("net"), live], model=toys.model)
    with pytest.raises(InvalidInput, match="is the twin of one recording"):
        CLMAS(4, **FIT, twin=str(folder)).fit([toys.make("net"), read, other], model=toys.model)
    assert "in clmas; not in 'mas'" in FitConfig.problems({"method": "mas", "twin": "auto"})[0]
    with pytest.raises(InvalidDocument):
        CLMAS(4, twin="")


def test_a_plan_is_rolled_through_the_twin(result, live, toys):
    """What the judge expects after the stimulation is what the system itself does."""
    from neuromas.evaluation.stimulation import stimulation_plan

    sides = {side.name: side for side in result.sides}
    plan = stimulation_plan(
        result.alignment, sides["net"], sides["brain"], {"count": 2}, n_samples=20, n_after=3, seed=1
    )
    assert plan["predicted"].dims == ("sample", "after", "unit")
    np.testing.assert_allclose(plan["predicted"][:, 0], plan["planned"], atol=1e-5)
    np.testing.assert_allclose(plan["predicted_without"][:, 0], plan["current"], atol=1e-5)
    # without the stimulation: what was recorded then
    recording = sides["brain"].recording
    rows = plan["sample"].values
    later = [
        np.flatnonzero((recording.trial == recording.trial[row]) & (recording.step == recording.step[row] + 1))
        for row in rows
    ]
    known = np.array([len(following) == 1 for following in later])
    recorded = recording.latents()[np.concatenate(later)]
    error = plan["predicted_without"].values[known, 1] - recorded
    assert np.square(error).mean() < 0.1 * recorded.var()
    answers = recording.to_dataset()["output"].values[np.concatenate(later)]
    assert (plan["answer_without"].values[known, 1] == answers).mean() > 0.8
    # beyond the end of a trial there is nothing
    assert np.isnan(plan["predicted"].values[~known, 1]).all()
    assert set(plan["answer"].values[~known, 1]) <= {""}


def test_a_plan_without_a_good_twin_predicts_nothing(result, toys, read):
    from neuromas.evaluation.stimulation import stimulation_plan

    sides = {side.name: side for side in result.sides}
    options = {"wanted": {"count": 2}, "n_samples": 5}
    plain = _fit(toys, read, None, max_iterations=0)
    with pytest.raises(InvalidInput, match="this fit has none"):
        stimulation_plan(plain.alignment, *plain.sides, **options, n_after=2)
    card = sides["brain"].twin.card.model_copy(update={"verdict": "poor", "reasons": ("it guesses",)})
    poor = sides["brain"].with_twin(Twin(card, sides["brain"].twin.members))
    with pytest.raises(InvalidInput, match="is poor, so it predicts nothing: it guesses"):
        stimulation_plan(result.alignment, sides["net"], poor, **options, n_after=2)
    with pytest.raises(InvalidInput, match="asked to predict 99 steps"):
        stimulation_plan(result.alignment, sides["net"], sides["brain"], **options, n_after=99)
