"""Training that can be interrupted, and weights files that are not what they should be."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from neuromas.causal.counting import HOLD_OUT, MultiObject
from neuromas.causal.model import get_task
from neuromas.cli.verbs import app
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.schema.system import TrainRequest, TrainSpec
from neuromas.systems import training, updates
from neuromas.systems.capture import capture
from neuromas.systems.training import (
    CHECKPOINT,
    CONFIG,
    SYSTEMS,
    WEIGHTS,
    load_system,
    read_safetensors,
    shipped_systems,
    train,
    train_from,
)

TINY = {
    "n_units": 6,
    "min_iterations": 0,
    "max_iterations": 12,
    "validate_every": 4,
    "n_held_out": 20,
}


def weights_of(system) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in system.weights.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Stop(Exception):
    pass


def stop_at(iteration):
    def progress(now, loss, accuracy):
        if now == iteration:
            raise Stop

    return progress


@pytest.fixture(scope="module", params=SYSTEMS)
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train("multi-object", out=folder, seed=3, kind=request.param, **TINY)


@pytest.mark.parametrize("stops", [[2], [4], [7], [12], [3, 5, 9]])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(whole, tmp_path, stops):
    kind = whole[1].config.kind
    for stop in stops:
        with pytest.raises(Stop):
            train("multi-object", out=tmp_path, seed=3, kind=kind, progress=stop_at(stop), **TINY)
    system = train("multi-object", out=tmp_path, seed=3, kind=kind, **TINY)
    assert_equal(weights_of(system), weights_of(whole[1]))
    assert system.config.iterations == whole[1].config.iterations == 12
    assert system.config.trial_accuracy == whole[1].config.trial_accuracy
    assert (tmp_path / CHECKPOINT).exists()  # the target was not reached: a higher limit goes on from here


def test_a_finished_training_is_loaded_not_repeated(whole, monkeypatch):
    kind = whole[1].config.kind
    monkeypatch.setattr(training, "_update", lambda *_: pytest.fail("trained again"))
    again = train("multi-object", out=whole[0], seed=3, kind=kind, **TINY)
    assert_equal(weights_of(again), weights_of(whole[1]))


def test_the_folder_of_another_network_is_refused(whole):
    kind = whole[1].config.kind
    before = (whole[0] / WEIGHTS).read_bytes()
    with pytest.raises(InvalidInput) as caught:
        train("multi-object", out=whole[0], seed=4, kind=kind, **TINY)
    assert caught.value.kind == "occupied"
    assert (whole[0] / WEIGHTS).read_bytes() == before


def test_the_checkpoint_of_another_network_is_refused(tmp_path):
    with pytest.raises(Stop):
        train("multi-object", out=tmp_path, seed=3, progress=stop_at(8), **TINY)
    with pytest.raises(InvalidInput) as caught:
        train("multi-object", out=tmp_path, seed=4, **TINY)
    assert caught.value.kind == "occupied"


def checkpoint_of_0_1(out, config, network, optimiser, course):
    """A checkpoint as the first version wrote it: tensor by tensor."""
    tensors = {f"network.{key}": value.clone() for key, value in network.state_dict().items()}
    for key, parameter in network.named_parameters():
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            tensors[f"adam.{moment}.{key}"] = optimiser.state[parameter][moment].clone()
    identity = {"kind": "gru", "name": "gru-3", "task": "multi-object", "vocabulary": config.vocabulary, "n_units": 6}
    identity |= {"n_hidden": config.n_hidden, "dropout": config.dropout, "seed": 3}
    described = {
        "identity": json.dumps(identity),
        "iteration": str(course.iteration),
        "streak": str(course.streak),
    }
    save_file(tensors, out / CHECKPOINT, described)


def test_a_checkpoint_of_the_first_version_continues(tmp_path, monkeypatch):
    expected = train("multi-object", out=tmp_path / "whole", seed=3, **TINY)
    old = tmp_path / "old"
    old.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_checkpoint", checkpoint_of_0_1)
        with pytest.raises(Stop):
            train("multi-object", out=old, seed=3, progress=stop_at(8), **TINY)
    iterations = []
    system = train("multi-object", out=old, seed=3, progress=lambda now, *_: iterations.append(now), **TINY)
    assert iterations[0] > 1
    assert_equal(weights_of(system), weights_of(expected))
    # and today's has the same tensors
    assert set(load_file(old / CHECKPOINT)) == set(load_file(tmp_path / "whole" / CHECKPOINT))


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Stop):
        train("multi-object", out=tmp_path, seed=3, progress=stop_at(8), **TINY)
    checkpoint = tmp_path / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(Corrupt, match=CHECKPOINT):
        train("multi-object", out=tmp_path, seed=3, **TINY)


def test_a_system_of_another_kind_is_refused(whole):
    another = next(kind for kind in SYSTEMS if kind != whole[1].config.kind)
    with pytest.raises(InvalidInput) as caught:
        train("multi-object", out=whole[0], seed=3, kind=another, name=whole[1].name, **TINY)
    assert caught.value.kind == "occupied"


def test_kinds_of_system_are_the_papers(tmp_path):
    """2.2: GRUs of 128, LSTMs of 64 for each of h and c; A.1: readouts with 4 times the hidden state's width."""
    for kind, width in [("gru", 128), ("lstm", 64)]:
        system = train("same-object", kind=kind, out=tmp_path / kind, min_iterations=0, max_iterations=1, n_held_out=10)
        assert system.config.kind == kind
        assert system.name == f"{kind}-0"
        assert system.n_units == 128
        assert system.config.n_hidden == 4 * width
        assert system.weights["cell.weight_hh_l0"].shape[1] == width
        assert system.weights["embedding.weight"].shape == (4, width)
        recording = capture(system, 5, allow_unsolved=True)
        assert recording.n_units == 128
        assert recording.manifest.system == f"{kind}-0"


def test_the_command_line_trains_every_kind(tmp_path):
    output = CliRunner().invoke(app, ["train", "--help"]).output
    assert all(name in output for name in SYSTEMS)
    for kind in SYSTEMS:
        options = ["--out", str(tmp_path / kind), "--n-units", "6", "--min-iterations", "0", "--max-iterations", "2"]
        done = CliRunner().invoke(app, ["train", "same-object", "--system", kind, *options])
        assert done.exit_code == 0, done.output
        assert load_system(tmp_path / kind).config.kind == kind


def test_an_lstm_has_two_equal_halves(tmp_path):
    with pytest.raises(InvalidInput, match=r"'lstm-0'.*\[h, c\]; expected an even n_units, got 7") as caught:
        train("multi-object", kind="lstm", out=tmp_path, **{**TINY, "n_units": 7})
    assert caught.value.kind == "invalid_width"


def test_options_of_the_task_are_kept(tmp_path):
    """A system remembers its task by name; how it was trained otherwise stands beside it, and is not mixed up."""
    task = MultiObject(hold_out=HOLD_OUT)
    with pytest.raises(Stop):
        train(task, out=tmp_path, progress=stop_at(8), **TINY)
    with pytest.raises(InvalidInput) as caught:
        train("multi-object", out=tmp_path, **TINY)
    assert caught.value.kind == "occupied"
    system = train(task, out=tmp_path, **TINY)
    assert system.config.task == "multi-object"
    assert system.config.provenance.notes == "task options: hold_out=(4, 9, 14, 17)"
    with pytest.raises(InvalidInput) as caught:
        train(MultiObject(), out=tmp_path, **TINY)
    assert caught.value.kind == "occupied"


@pytest.mark.parametrize("kind", SYSTEMS)
@pytest.mark.parametrize("task", ["modulo", "rounding", "arithmetic", "void"])
def test_every_task_can_be_trained_on(kind, task, tmp_path):
    model = MultiObject(void=0.2) if task == "void" else get_task(task)
    seen = []
    options = {**TINY, "max_iterations": 40}
    system = train(model, out=tmp_path, kind=kind, progress=lambda i, loss, a: seen.append(loss), **options)
    assert system.config.vocabulary == model.vocabulary
    assert np.mean(seen[-5:]) < np.mean(seen[:5])


def test_seeds_decide_the_weights(whole, tmp_path):
    other = train("multi-object", out=tmp_path, seed=4, kind=whole[1].config.kind, **TINY)
    assert not torch.equal(weights_of(other)["embedding.weight"], weights_of(whole[1])["embedding.weight"])


def test_the_loss_falls(tmp_path):
    seen = []
    options = {**TINY, "max_iterations": 60}
    train("multi-object", out=tmp_path, seed=0, progress=lambda i, loss, a: seen.append(loss), **options)
    assert np.mean(seen[-5:]) < np.mean(seen[:5])


def test_training_stops_when_the_task_is_solved(tmp_path):
    """Two validations in a row at the wanted accuracy, here none at all."""
    options = {**TINY, "target_accuracy": 0.0}
    system = train("multi-object", out=tmp_path, seed=0, **options)
    assert system.config.iterations == 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_networks_learn_to_count(kind, tmp_path):
    system = train("multi-object", out=tmp_path, seed=9, kind=kind, min_iterations=0)
    assert system.trial_accuracy(get_task("multi-object").sample(4000, 777)) >= 0.999


def test_a_declared_task_can_be_trained_on(toys, tmp_path):
    system = train(toys.Toy(), out=tmp_path, **TINY)
    assert system.config.vocabulary == toys.Toy.vocabulary


def test_unknown_task_and_kind(tmp_path):
    with pytest.raises(NotFound, match="multi-object"):
        train("no-such-task", out=tmp_path)
    with pytest.raises(NotFound, match=r"gru, lstm, transformer, llama; did you mean 'lstm'\?"):
        train("multi-object", kind="lstm9", out=tmp_path)
    with pytest.raises(NotFound, match=r"did you mean 'multi-object/gru-0'\?"):
        load_system("multi-objct/gru-0")


def test_options_are_declared_once():
    """`train` takes what a request has, with the same defaults, and says what each is."""
    parameters = inspect.signature(train).parameters
    fields = dict(TrainRequest.model_fields)
    del fields["format_version"]
    assert set(parameters) - set(fields) == {"out", "device", "progress"}
    assert set(fields) <= set(parameters)
    for name, field in fields.items():
        if name not in ("task", "options"):
            assert parameters[name].default == field.default, name
        assert f"    {name} : " in train.__doc__
        assert field.description, name


def test_a_request_trains_as_the_arguments_do(whole, tmp_path):
    kind = whole[1].config.kind
    request = TrainRequest(task="multi-object", kind=kind, seed=3, **TINY)
    again = TrainRequest.parse(request.to_json(), "request")
    assert_equal(weights_of(train_from(again, out=tmp_path)), weights_of(whole[1]))


def test_limits_are_those_of_the_kind_unless_asked_for():
    network, llama = (updates.Limits.of(TrainRequest(task="in-context", kind=kind)) for kind in ("lstm", "llama"))
    assert (network.min_iterations, network.max_iterations) == (2_000, 20_000)
    assert (llama.min_iterations, llama.max_iterations) == (0, 5_000)
    assert updates.Limits.of(TrainRequest(task="in-context", kind="llama", min_iterations=7)).min_iterations == 7


def test_what_decides_a_network_is_written_as_ever():
    """Part of the identity of sweeps: fields, order and defaults."""
    spec = TrainSpec(task="multi-object")
    expected = {"task": "multi-object", "options": {}, "kind": "gru", "seed": 0, "memory": 0, "n_units": 128}
    expected |= {"target_accuracy": 0.999, "min_iterations": 2000, "max_iterations": 20000}
    assert json.dumps(expected) == json.dumps(json.loads(spec.model_dump_json()))


def test_every_bad_option_is_listed(tmp_path):
    with pytest.raises(InvalidDocument) as caught:
        train("multi-object", out=tmp_path, n_units=0, target_accuracy=2, max_iterations=-1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "n_units",
        "target_accuracy",
        "max_iterations",
    ]


def test_options_of_a_task_by_name(tmp_path):
    options = {"void": 0.2, "hold_out": [4, 9]}
    system = train("multi-object", options=options, out=tmp_path / "named", **TINY)
    same = train(MultiObject(**options), out=tmp_path / "made", **TINY)
    assert_equal(weights_of(system), weights_of(same))
    assert system.config.provenance.notes == same.config.provenance.notes
    with pytest.raises(InvalidInput, match="causal model already"):
        train(MultiObject(), options=options, out=tmp_path / "made", **TINY)
    with pytest.raises(InvalidInput, match=r"no option 'voids'.*did you mean 'void'\?"):
        train("multi-object", options={"voids": 0.2}, out=tmp_path / "made", **TINY)


def test_progress_is_shown_where_it_is_asked_for(tmp_path, monkeypatch):
    shown = []

    class Shown(updates.Bar):
        def update(self, iteration, message):
            shown.append((iteration, message))

    monkeypatch.setattr(updates, "Bar", Shown)
    train("multi-object", out=tmp_path / "silent", **TINY)
    assert not shown
    train("multi-object", out=tmp_path / "shown", progress=True, **TINY)
    assert [iteration for iteration, _ in shown] == [*range(1, 13)]
    assert "held-out accuracy" in shown[-1][1]


def test_warm_up_and_decay():
    rates = [updates.learning_rate(i) for i in (0, 49, 99, 100, 399, 10**14)]
    np.testing.assert_allclose(rates[:3], [1e-5, 5e-4, 1e-3])
    np.testing.assert_allclose(rates[3:5], [1e-3 * (100 / 101) ** 0.5, 5e-4])
    assert rates[5] == 1e-7


class TestFiles:
    @pytest.fixture
    def folder(self, whole, tmp_path):
        for name in (CONFIG, WEIGHTS):
            (tmp_path / name).write_bytes((whole[0] / name).read_bytes())
        return tmp_path

    @staticmethod
    def rehash(folder, **changes):
        document = json.loads((folder / CONFIG).read_text())
        del document["sha256"]  # edited by hand
        document["weights_sha256"] = sha256_file(folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({**document, **changes}))

    def test_whole_is_loaded(self, folder, whole):
        assert_equal(weights_of(load_system(folder)), weights_of(whole[1]))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: b"not safetensors at all",
            lambda data: data[:-1],
            lambda data: data[: len(data) // 2],
            lambda data: data[:7],
            lambda data: b"\xff" * 8 + data[8:],
            lambda data: pickle.dumps({"weight": [1.0]}),
        ],
    )
    def test_no_safetensors_file(self, folder, damage):
        weights = folder / WEIGHTS
        weights.write_bytes(damage(weights.read_bytes()))
        self.rehash(folder)
        with pytest.raises(Corrupt, match=WEIGHTS) as caught:
            load_system(folder)
        assert caught.value.kind == "not_safetensors"

    def test_a_pickle_is_not_opened(self, folder, tmp_path):
        class Trap:
            def __reduce__(self):
                return (tmp_path.joinpath("sprung").touch, ())

        (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(Corrupt):
            load_system(folder)
        assert not (tmp_path / "sprung").exists()

    def test_other_weights_than_the_config_names(self, folder):
        weights = folder / WEIGHTS
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
        with pytest.raises(Corrupt, match="SHA-256") as caught:
            load_system(folder)
        assert caught.value.kind == "hash_mismatch"

    def test_no_weights(self, folder):
        (folder / WEIGHTS).unlink()
        with pytest.raises(Corrupt, match=WEIGHTS) as caught:
            load_system(folder)
        assert caught.value.kind == "missing_weights"

    @pytest.mark.parametrize("change", ["shape", "missing", "extra"])
    def test_weights_that_do_not_fit_the_config(self, folder, change):
        tensors = load_file(folder / WEIGHTS)
        if change == "shape":
            tensors["embedding.weight"] = torch.zeros(3, 3)
        elif change == "missing":
            del tensors["embedding.weight"]
        else:
            tensors["another"] = torch.zeros(1)
        save_file(tensors, folder / WEIGHTS)
        self.rehash(folder)
        with pytest.raises(Corrupt, match=r"embedding\.weight|another") as caught:
            load_system(folder)
        assert caught.value.kind == "weights_mismatch"

    def test_a_config_with_several_problems_names_all(self, folder):
        self.rehash(folder, n_units=-1, dropout=3, flavour="x")
        with pytest.raises(InvalidDocument) as caught:
            load_system(folder)
        told = "\n".join(caught.value.problems)
        assert all(name in told for name in ("n_units", "dropout", "flavour"))

    def test_no_system(self, tmp_path):
        with pytest.raises(NotFound, match="multi-object/gru-0"):
            load_system(tmp_path / "nowhere")


def test_shipped_systems_solve_their_task():
    assert {"multi-object/gru-0", "multi-object/gru-1"} <= set(shipped_systems())
    for name in shipped_systems():
        system = load_system(name)
        assert system.config.trial_accuracy >= 0.999
        assert system.trial_accuracy(get_task(system.config.task).sample(500, 12345)) >= 0.996


def test_shipped_systems_were_trained_independently():
    one, other = load_system("multi-object/gru-0"), load_system("multi-object/gru-1")
    assert one.config.seed != other.config.seed
    assert not torch.allclose(one.weights["embedding.weight"], other.weights["embedding.weight"], atol=0.1)


def test_a_higher_limit_goes_on_where_a_lower_one_stopped(whole, tmp_path):
    kind = whole[1].config.kind
    short = train("multi-object", out=tmp_path, seed=3, kind=kind, **{**TINY, "max_iterations": 5})
    assert short.config.iterations == 5
    assert_equal(weights_of(train("multi-object", out=tmp_path, seed=3, kind=kind, **TINY)), weights_of(whole[1]))


def test_a_target_that_was_reached_leaves_no_checkpoint(tmp_path):
    settings = {**TINY, "target_accuracy": 0.0, "min_iterations": 0}
    system = train("multi-object", out=tmp_path, seed=3, **settings)
    assert not (tmp_path / CHECKPOINT).exists()
    again = train("multi-object", out=tmp_path, seed=3, **{**settings, "max_iterations": 50})
    assert again.config == system.config


def test_ctrl_c_keeps_what_was_done(whole, tmp_path):
    kind = whole[1].config.kind

    def press(iteration, *_):
        if iteration == 1:  # before the first look at held-out trials
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train("multi-object", out=tmp_path, seed=3, kind=kind, progress=press, **TINY)
    assert read_safetensors(tmp_path / CHECKPOINT)[1]["iteration"] == "1"
    assert_equal(weights_of(train("multi-object", out=tmp_path, seed=3, kind=kind, **TINY)), weights_of(whole[1]))


def test_training_leaves_torchs_own_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train("multi-object", out=tmp_path, seed=3, **TINY)
    assert torch.equal(torch.rand(3), expected)


def test_a_name_that_cannot_be_used_is_told(tmp_path):
    with pytest.raises(InvalidDocument, match="a b"):
        train("multi-object", out=tmp_path, name="a b", **TINY)


def test_a_config_that_is_no_text_is_told(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidDocument):
        load_system(tmp_path)


def test_a_device_that_is_not_there_is_told(tmp_path):
    for call in (
        lambda: load_system("multi-object/gru-0", "cuda:99"),
        lambda: train("modulo", out=tmp_path, device="tpu9"),
    ):
        with pytest.raises(InvalidInput, match="cannot be used here"):
            call()
