"""A module may have other numbers and names for the tokens of its task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuromas import DAS, TorchSystem, capture, load_system
from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput
from neuromas.systems.numbering import Numbering

TASK = get_task("multi-object")
NUMBERS = (4, 0, 6, 2, 5, 1, 3)
"""The module's number of each token of the task."""
QUICK = {"n_trials": 80, "n_train_pairs": 40, "n_validation_pairs": 20, "batch_size": 16, "max_iterations": 2}


class Renumbered(nn.Module):
    """A network that knows the task's tokens under other numbers."""

    def __init__(self, net: nn.Module, numbers=NUMBERS, n_tokens: int = 7):
        super().__init__()
        self.net, self.n_tokens = net, n_tokens
        table = torch.zeros(n_tokens, dtype=torch.int64)
        table[list(numbers)] = torch.arange(len(numbers))
        self.register_buffer("table", table)
        self.register_buffer("numbers", torch.tensor(numbers))

    def forward(self, tokens):
        known = self.net(self.table[tokens])[..., :7]
        logits = torch.full((*tokens.shape, self.n_tokens), -50.0)
        return logits.index_copy(-1, self.numbers, known)


@pytest.fixture(scope="module")
def network():
    return load_system("multi-object/transformer-0")._network


@pytest.fixture(scope="module")
def plain(network):
    """The same module with the task's own numbers."""
    return TorchSystem(Renumbered(network, range(7)), "net.blocks.0", name="plain", task="multi-object")


def in_order(numbers=NUMBERS):
    return [TASK.vocabulary[token] for token in np.argsort(numbers)]


@pytest.mark.parametrize("vocabulary", [in_order(), dict(zip(TASK.vocabulary, NUMBERS, strict=True))])
def test_a_permuted_module_is_the_same_system(network, plain, vocabulary):
    system = TorchSystem(
        Renumbered(network), "net.blocks.0", name="permuted", task="multi-object", vocabulary=vocabulary
    )
    assert system.config.vocabulary == TASK.vocabulary
    trials = TASK.sample(60, 0)
    assert system.trial_accuracy(trials) == 1.0
    one, other = (capture(each, 30, seed=1) for each in (plain, system))
    np.testing.assert_allclose(one.latents(), other.latents(), atol=1e-5)
    assert (one.dataset["token"].values == other.dataset["token"].values).all()


def test_a_fit_of_a_permuted_module_is_that_of_the_plain_one(network, plain):
    module = Renumbered(network)
    system = TorchSystem(module, "net.blocks.0", name="plain", task="multi-object", vocabulary=in_order())
    first, second = (DAS(4, **QUICK).fit([each]) for each in (plain, system))
    assert first.report.best.loss == pytest.approx(second.report.best.loss, rel=1e-4)
    assert second.report.trial_accuracy == {"plain": 1.0}
    again = TorchSystem(module, "net.blocks.0", name="plain", task="multi-object", vocabulary=in_order())
    assert again.config.weights_sha256 == system.config.weights_sha256
    wrong = TorchSystem(module, "net.blocks.0", name="plain", task="multi-object")
    assert wrong.config.weights_sha256 != system.config.weights_sha256  # other numbers: another system
    with pytest.raises(InvalidInput, match="Its tokens may have other numbers"):
        DAS(4, **QUICK).fit([wrong])


def test_a_stepwise_fit_of_a_permuted_module(network, plain):
    """Every step's tokens are translated, and the filler of the target too."""
    options = {**QUICK, "stepwise": True, "map": "orthogonal"}
    system = TorchSystem(Renumbered(network), "net.embedding", name="plain", task="multi-object", vocabulary=in_order())
    first, second = (DAS(4, **options).fit([each]) for each in (plain.at("net.embedding"), system))
    assert first.report.best.loss == pytest.approx(second.report.best.loss, rel=1e-4)


def test_a_step_function_speaks_the_modules_numbers():
    class Cell(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
            self.register_buffer("table", torch.argsort(torch.tensor(NUMBERS)))

        def forward(self, tokens):
            return self.net(self.table[tokens])[..., self.table]

    def step(module, latents, tokens):
        net = module.net
        _, state = net.cell(net.embedding(module.table[tokens])[:, None], latents[None].contiguous())
        return net.readout(latents)[:, module.table], state[0]

    module = Cell(load_system("multi-object/gru-0")._network)
    system = TorchSystem(module, "net.cell", name="gru", task="multi-object", step=step, vocabulary=in_order())
    assert system.trial_accuracy(TASK.sample(60, 0)) == 1.0


def test_a_large_vocabulary_around_the_tasks_tokens(network):
    numbers = (40, 0, 16, 22, 35, 1, 3)
    system = TorchSystem(
        Renumbered(network, numbers, 50),
        "net.blocks.0",
        name="large",
        task="multi-object",
        vocabulary=dict(zip(TASK.vocabulary, numbers, strict=True)),
    )
    assert system.trial_accuracy(TASK.sample(60, 0)) == 1.0


def test_other_names_in_the_tasks_order(network):
    system = TorchSystem(network, "blocks.0", name="named", task="multi-object", vocabulary=list("abcdefg"))
    assert system.config.vocabulary == TASK.vocabulary
    assert system.trial_accuracy(TASK.sample(60, 0)) == 1.0


def test_tokens_of_batches_are_recorded_as_the_tasks(network):
    module = Renumbered(network)
    system = TorchSystem(module, "net.blocks.0", name="n", task="multi-object", vocabulary=in_order())
    numbers = torch.tensor([[4, 0, 5, 1, 3]])  # B, D1, T, R, E
    recording = capture(system, numbers, {"phase": [[0, 0, 1, 1, 1]], "token": numbers})
    tokens = recording.dataset["token"].values
    assert [recording.manifest.vocabulary[token] for token in tokens] == ["B", "D1", "T", "R", "E"]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ([*TASK.vocabulary[:-1], "end"], "vocabulary has no 'E'.*number of each token"),
        (TASK.vocabulary[:-1], "vocabulary has no 'E'"),
        (["B", "B", *TASK.vocabulary[1:]], "'B' twice"),
        ({"B": 0}, "'E' missing"),
        ({**dict.fromkeys(TASK.vocabulary, 0), "X": 1}, "got 'X'"),
        (dict.fromkeys(TASK.vocabulary, 0), "another whole number"),
        (dict(zip(TASK.vocabulary, range(-1, 6), strict=True)), "another whole number"),
    ],
)
def test_an_unclear_vocabulary_is_refused(network, vocabulary, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        TorchSystem(network, "blocks.0", name="n", task="multi-object", vocabulary=vocabulary)
    assert caught.value.kind == "vocabulary_mismatch"


def test_numbers_beyond_the_modules_logits_are_refused(network):
    numbers = {token: 3 * number for number, token in enumerate(TASK.vocabulary)}
    with pytest.raises(InvalidInput):
        TorchSystem(network, "blocks.0", name="n", task="multi-object", vocabulary=numbers)


def test_there_and_back():
    numbering = Numbering.of(in_order(), TASK.vocabulary, "n")
    tokens = torch.arange(7)
    assert numbering.numbers == NUMBERS
    assert torch.equal(torch.from_numpy(numbering.recorded(numbering.spoken(tokens).numpy())), tokens)
    logits = torch.randn(3, 7)
    assert torch.equal(numbering.heard(logits)[:, 2], logits[:, NUMBERS[2]])
