"""Untrained copies: the same architecture with initial weights; the system itself stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuromas.causal.model import get_task
from neuromas.systems.system import System
from neuromas.systems.torch_module import TorchSystem
from neuromas.systems.training import load_system


class Elman(nn.Module):
    """A module of a user, with a parameter that no layer initialises."""

    def __init__(self, n_tokens):
        super().__init__()
        self.embed, self.cell = nn.Embedding(n_tokens, 12), nn.RNN(12, 12, batch_first=True)
        self.tap, self.gain, self.read = nn.Identity(), nn.Parameter(torch.arange(12.0)), nn.Linear(12, n_tokens)

    def forward(self, tokens):
        return self.read(self.gain * self.tap(self.cell(self.embed(tokens.clamp(min=0)))[0]))


def a_module():
    return TorchSystem(Elman(7), "tap", name="mine")


def shipped(name):
    return lambda: load_system(name)


@pytest.mark.parametrize(
    "make",
    [
        *(shipped(name) for name in ("multi-object/gru-0", "multi-object/lstm-0", "multi-object/transformer-0")),
        *(shipped(name) for name in ("multi-object/gru-0@embedding", "in-context/llama-0@model.layers.0")),
        a_module,
    ],
    ids=["gru", "lstm", "transformer", "embedding", "llama", "module"],
)
def test_it_has_the_same_shape_and_other_latents(make):
    system = make()
    tokens = torch.from_numpy(get_task(system.config.task or "multi-object").sample(4, 0).tokens)

    def record(each):
        return each.module(tokens).detach() if isinstance(each, TorchSystem) else each.latents(tokens)

    before = record(system).clone()
    first, again, other = (system.untrained(seed) for seed in (1, 1, 2))
    assert record(first).shape == before.shape
    assert torch.equal(record(first), record(again))
    assert not torch.allclose(record(first), record(other))
    assert not torch.allclose(record(first), before)
    assert torch.equal(record(system), before)
    assert (first.layer, first.config.kind) == (system.layer, system.config.kind)


def test_it_does_not_do_the_task():
    trials = get_task("multi-object").sample(100, 0)
    assert load_system("multi-object/gru-0").untrained(0).trial_accuracy(trials) < 0.1


def test_the_gates_of_a_long_memory_are_set_as_before_training():
    system = load_system("arithmetic/gru-0")
    assert "memory: 60" in system.config.provenance.notes
    bias = system.untrained(3)._network.cell.bias_hh_l0[128:256]
    plain = load_system("multi-object/gru-0").untrained(3)._network.cell.bias_hh_l0[128:256]
    assert bias.abs().max() > 10 * plain.abs().max()


def test_torch_random_numbers_go_on_as_they_would():
    system = load_system("multi-object/gru-0")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    system.untrained(1)
    assert torch.equal(torch.rand(3), expected)


def test_a_system_of_another_kind_has_none(toys):
    assert System.untrained(toys.make("net"), 0) is None
