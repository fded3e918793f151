"""Twins of planted systems: what they learn, what their cards say, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture
from neuromas.systems.system import Packed
from neuromas.twins.twin import JUDGE, REFEREE, Twin


def test_a_twin_goes_on_from_unseen_latents_as_its_system_does(twin, toys):
    live = toys.make("brain", 14, seed=2, scale=1.5)
    trials = toys.model.sample(200, seed=99)
    latents = live.latents(torch.from_numpy(trials.tokens))
    rows, steps = np.nonzero(trials.eligible)
    values = trials.values[rows, steps]
    follows = toys.model.counterfactual(values, np.random.default_rng(0))
    packed = Packed.from_continuation(follows)
    start = latents[torch.from_numpy(rows), torch.from_numpy(steps)]
    expected = live.resume(start, packed).argmax(dim=1)
    scored = packed.deterministic
    for role in (*twin.roles, REFEREE, JUDGE):
        answered = twin.system(role).resume(start, packed).argmax(dim=1)
        assert (answered == expected)[scored].double().mean() > 0.99, role


def test_the_card_says_how_good_each_member_is(twin, brain):
    card = twin.card
    assert [member.role for member in card.members] == ["twin-0", "twin-1", "referee", "judge"]
    assert [member.kind for member in card.members] == ["gru", "gru", "gru", "mlp"]
    assert card.content_sha256 == brain.content_sha256
    judge = card.quality_of(JUDGE)
    # the planted dynamics are linear in a one-hot state for each token, so latents follow almost exactly
    assert judge.r2 > 0.97 > judge.r2_no_change
    assert judge.cl_ceiling > 0.98
    assert judge.cl_ceiling_low < judge.cl_ceiling
    assert judge.behaviour > judge.behaviour_chance
    assert len(judge.r2_by_unit) == brain.n_units
    # a noiseless system whose latent is its state: step and variables explain all of it
    assert judge.ceiling == pytest.approx(1.0)


def test_judge_and_twins_learn_from_different_trials(twin):
    counts = {member.role: member.n_trials for member in twin.card.members}
    assert counts["twin-0"] + counts[JUDGE] == 180  # of 300 trials, 60 % are for training
    weights = {member.weights_sha256 for member in twin.card.members}
    assert len(weights) == 4


def test_a_twin_is_what_was_saved(twin, brain, tmp_path):
    twin.save(tmp_path)
    again = Twin.load(tmp_path)
    assert again.card == twin.card
    assert again.sha256 == twin.sha256
    x = brain.latents()[:5].astype(np.float32)
    inputs = torch.eye(6)[:5]
    for role, dynamics in twin.members.items():
        torch.testing.assert_close(
            again.members[role](torch.from_numpy(x), inputs), dynamics(torch.from_numpy(x), inputs)
        )


def test_a_changed_weight_is_found(twin, tmp_path):
    twin.save(tmp_path)
    path = tmp_path / "judge.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"judge\.safetensors"):
        Twin.load(tmp_path)


def test_an_interrupted_training_ends_with_the_same_weights(brain, toys, tmp_path, short):
    whole = Twin.fit(brain, model=toys.model, **short)
    seen = []

    def stop(role, iteration, end, loss):
        seen.append(role)
        if role == REFEREE and iteration == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Twin.fit(brain, model=toys.model, out=tmp_path, progress=stop, **short)
    assert not (tmp_path / "twin.json").exists()
    continued = []
    again = Twin.fit(brain, model=toys.model, out=tmp_path, progress=lambda role, *now: continued.append(role), **short)
    assert again.sha256 == whole.sha256
    # twin-0 was finished, and its weights came from the checkpoint
    assert "twin-0" not in continued
    assert not list(tmp_path.glob("checkpoint-*"))
    # finished: nothing is trained again
    continued.clear()
    assert Twin.fit(brain, model=toys.model, out=tmp_path, **short).sha256 == whole.sha256


def test_a_folder_holds_one_twin(brain, toys, tmp_path, short):
    Twin.fit(brain, model=toys.model, out=tmp_path, **short)
    with pytest.raises(InvalidInput, match="other settings"):
        Twin.fit(brain, model=toys.model, out=tmp_path, **{**short, "seed": 1})
    other = capture(toys.make("brain", 14, seed=2, scale=1.5), 60, model=toys.model, seed=6)
    with pytest.raises(InvalidInput, match="stands in for its own recording alone"):
        Twin.fit(other, model=toys.model, out=tmp_path, **short)


def test_the_kind_is_chosen_by_held_out_error(brain, toys, short):
    chosen = Twin.fit(brain, model=toys.model, **{**short, "kind": "auto", "judge_kind": "auto", "max_iterations": 40})
    losses = chosen.card.race
    assert set(losses) == {"gru", "mlp", "linear"}
    ranked = sorted(losses, key=losses.get)
    assert [member.kind for member in chosen.card.members] == [ranked[0]] * 3


def test_a_system_that_answers_wrongly_has_a_poor_twin(toys, quick):
    """The trap: tokens were shown rightly, but the system's own answers are others."""
    live = toys.make("brain", 14, seed=2)
    wrong = capture(live, 300, model=toys.model, seed=5)
    output = np.random.default_rng(0).permutation(6)[wrong.dataset["output"].values]
    wrong = Recording(wrong.dataset.assign_coords(output=("sample", output)), wrong.manifest)
    card = Twin.fit(wrong, model=toys.model, **quick).card
    assert card.verdict == "poor"
    assert card.quality_of(JUDGE).cl_ceiling < 0.5
    assert "goes on as the causal model says" in card.reasons[-1]


def test_shown_tokens_are_answers_only_if_somebody_says_so(brain, toys, short):
    silent = Recording(brain.dataset.drop_vars("output"), brain.manifest.model_copy(update={"behaviour": None}))
    with pytest.raises(InvalidInput, match="does not say what the system itself did"):
        Twin.fit(silent, model=toys.model, **short)
    card = Twin.fit(silent, model=toys.model, behaviour="token", **short).card
    assert card.behaviour.shown_next
    assert "taken for its own answers" in card.warnings[0]


def _recording(n_trials=12, n_steps=6, n_units=4, **fields):
    generator = np.random.default_rng(3)
    latents = generator.normal(size=(n_trials, n_steps, n_units)).cumsum(axis=1).astype(np.float32)
    variables = {
        "choice": generator.integers(0, 2, size=n_trials).astype(str),
        "speed": generator.normal(size=(n_trials, n_steps)),
    }
    return Recording.from_arrays(latents, variables, name="cells", behaviour="choice", **fields)


def test_a_brain_has_a_twin_without_tokens(short):
    card = Twin.fit(_recording(40), inputs=("speed",), **{**short, "max_iterations": 60}).card
    assert [entry.name for entry in card.inputs] == ["speed"]
    assert card.behaviour.name == "choice"
    judge = card.quality_of(JUDGE)
    # a random walk: the next step is this one plus noise of variance 1, so nothing does better than no change
    assert judge.r2_no_change > 0.5
    assert judge.cl_ceiling is None
    assert card.verdict == "poor"


def test_linear_dynamics_are_recovered():
    """Planted: x' = A x + noise. The one-step R² of the best predictor is known."""
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    noise = 0.3
    x = np.zeros((400, 20, 5))
    x[:, 0] = generator.normal(size=(400, 5)) * noise / np.sqrt(1 - 0.9**2)
    for step in range(1, 20):
        x[:, step] = 0.9 * x[:, step - 1] @ rotation.T + noise * generator.normal(size=(400, 5))
    recording = Recording.from_arrays(
        x.astype(np.float32), {"sign": (x[:, :, 0] > 0).astype(int).astype(str)}, name="walk", behaviour="sign"
    )
    config = {"kind": "linear", "judge_kind": "linear", "n_twins": 1, "rollout": 1, "max_iterations": 60, "noise": 0.0}
    quality = Twin.fit(recording, **config).card.quality_of("twin-0")
    assert quality.r2 == pytest.approx(0.81, abs=0.02)
    assert quality.r2 == pytest.approx(quality.r2_linear, abs=0.01)
    # after k steps the best prediction explains 0.81^k
    assert quality.rollout[2] == pytest.approx(0.81**3, abs=0.04)


@pytest.mark.parametrize(
    ("recording", "options", "error", "words"),
    [
        (lambda: _recording(12, 1), {}, InvalidInput, "has no steps"),
        (lambda: _recording(1, 6), {}, InvalidInput, "1 trials; a twin needs at least"),
        (lambda: _recording(12), {"inputs": ("sped",)}, NotFound, "did you mean 'speed'"),
        (lambda: _recording(12), {"behaviour": "speed"}, InvalidInput, "Divide it into categories"),
        (lambda: _recording(12), {"behaviour": "answer"}, NotFound, "answer"),
        (lambda: _recording(12), {"kind": "lstm"}, InvalidDocument, "kind"),
        (lambda: _recording(12), {"units": ["u9"]}, NotFound, "u9"),
    ],
)
def test_what_no_twin_can_be_learnt_from(recording, options, error, words, short):
    with pytest.raises(error, match=words):
        Twin.fit(recording(), **{**short, **options})


def test_missing_samples_are_left_out(short):
    whole = _recording(30)
    activity = whole.latents().copy()
    activity[whole.trial == 3] = np.nan
    activity[(whole.trial == 5) & (whole.step == 2), 1] = np.nan
    dataset = whole.dataset.assign(activity=(("sample", "unit"), activity))
    gaps = Recording(dataset, whole.manifest.model_copy(update={"missing": True}))
    twin = Twin.fit(gaps, **short)
    assert all(np.isfinite(quality.r2) for quality in twin.card.quality)
    activity[:] = np.nan
    nothing = Recording(dataset.assign(activity=(("sample", "unit"), activity)), gaps.manifest)
    with pytest.raises(InvalidInput, match="no two complete samples"):
        Twin.fit(nothing, **short)


def test_a_twin_runs_no_further_than_its_longest_trial(twin, toys):
    longest = twin.card.longest
    tokens = np.full((1, longest + 1), 4)
    packed = Packed.from_sequences(tokens, np.array([longest + 1]), np.ones_like(tokens, bool))
    with pytest.raises(InvalidInput, match=f"asked to run {longest + 1} steps"):
        twin.system(JUDGE).resume(torch.zeros(1, 14), packed)


def test_a_twin_makes_no_latents_of_its_own(twin):
    with pytest.raises(InvalidInput, match="so it cannot be recorded"):
        twin.system(JUDGE).latents(torch.zeros(1, 3, dtype=torch.int64))


def test_a_twin_of_a_brain_follows_no_tokens(short):
    twin = Twin.fit(_recording(30), **short)
    with pytest.raises(InvalidInput, match="cannot follow a sequence of tokens"):
        twin.system(JUDGE)


def test_the_card_keeps_its_schema(twin):
    document = json.loads(twin.card.to_json())
    document["verdict"] = "splendid"
    document["behaviour"]["codes"] = "abc"
    problems = type(twin.card).problems(document)
    assert any(problem.startswith("verdict") for problem in problems)
    assert any(problem.startswith("behaviour.codes") for problem in problems)
