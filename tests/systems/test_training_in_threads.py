"""Networks that are trained in several threads are those that are trained alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from neuromas.systems.training import train
from neuromas.systems.updates import seeded

TINY = {"n_units": 8, "max_iterations": 6, "min_iterations": 0, "validate_every": 2, "n_held_out": 20}
KINDS = ("gru", "transformer")


def test_trained_in_threads_is_trained_alone(tmp_path):
    def weights(number: int, where: str) -> dict[str, torch.Tensor]:
        kind = KINDS[number]
        return train("multi-object", out=tmp_path / where / str(number), kind=kind, seed=number, **TINY).weights

    alone = [weights(number, "alone") for number in range(len(KINDS))]
    with ThreadPoolExecutor(len(KINDS)) as threads:
        together = list(threads.map(lambda number: weights(number, "together"), range(len(KINDS))))
    for expected, network in zip(alone, together, strict=True):
        assert all(torch.equal(values, network[name]) for name, values in expected.items())


def test_dropout_is_drawn(tmp_path):
    """Else the test above would pass without a seed of its own for each iteration."""
    system = train("multi-object", out=tmp_path, **TINY)
    assert system.config.dropout > 0


def test_the_generator_goes_on_where_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)


def test_training_leaves_the_generator_as_it_was(tmp_path):
    before = torch.get_rng_state()
    train("multi-object", out=tmp_path, **TINY)
    assert torch.equal(torch.get_rng_state(), before)
