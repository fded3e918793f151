"""Systems at each of their layers, against the trainable network itself with a hook that puts latents in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput, NotFound
from neuromas.schema.system import SystemConfig
from neuromas.systems.capture import capture
from neuromas.systems.system import Packed
from neuromas.systems.training import SYSTEMS, load_system, train

TASK = get_task("multi-object", void=0.3)
N = 7


def make(kind: str, layer: str | None = None, n_heads: int = 2):
    config = SystemConfig(
        kind=kind,
        name="tiny",
        task="multi-object",
        vocabulary=TASK.vocabulary,
        n_units=16,
        n_hidden=9,
        n_layers=3,
        n_heads=n_heads,
    )
    torch.manual_seed(1)
    network = SYSTEMS[kind].network(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    system = SYSTEMS[kind](config, network.state_dict(), layer=layer)
    system._network.double()
    system._prepare()
    return system, network.double()


LAYERS = [(kind, layer) for kind in SYSTEMS for layer in make(kind)[0].layers]
HOOKED = [(kind, layer) for kind, layer in LAYERS if make(kind, layer)[0].stepwise]
"""Where latents do not follow from one another: the recurrent hidden layers have tests of their own."""


def module(network: torch.nn.Module, layer: str) -> torch.nn.Module:
    return network.embedding if layer == "embedding" else network.blocks[int(layer.removeprefix("layer-")) - 1]


def cut(seed: int):
    """Trials, the step at which each is cut, and what follows."""
    trials = TASK.sample(N, seed)
    steps = np.random.default_rng(seed).integers(0, trials.lengths - 1)
    lengths = trials.lengths - steps - 1
    rest = np.full(trials.tokens.shape, -1)
    for row in range(N):
        rest[row, : lengths[row]] = trials.tokens[row, steps[row] + 1 : trials.lengths[row]]
    return trials, steps, Packed.from_sequences(rest, lengths, np.ones(rest.shape, bool))


def literally(network, layer, tokens, put, where):
    """Logits of whole trials, with `put` in place of the layer's output where `where` says so."""
    handle = module(network, layer).register_forward_hook(
        lambda _module, _inputs, out: torch.where(where[:, :, None], put, out)
    )
    try:
        return network(tokens)
    finally:
        handle.remove()


@pytest.mark.parametrize(("kind", "layer"), LAYERS)
@pytest.mark.parametrize("seed", range(3))
def test_resumed_from_what_was_recorded_it_goes_on_as_if_nothing_had_happened(kind, layer, seed):
    system, network = make(kind, layer)
    trials, steps, rest = cut(seed)
    tokens = torch.from_numpy(trials.tokens)
    latents, context = system.latents(tokens), system.context(tokens)
    assert latents.shape == (*tokens.shape, system.n_units)
    held = None if context is None else context.at(np.arange(N), steps)
    found = system.resume(latents[torch.arange(N), torch.from_numpy(steps)], rest, held)
    assert torch.allclose(found, network(tokens)[rest.rows, torch.from_numpy(steps)[rest.rows] + rest.steps], atol=1e-9)


@pytest.mark.parametrize(("kind", "layer"), HOOKED)
@pytest.mark.parametrize("seed", range(3))
def test_one_step_put_in_place(kind, layer, seed):
    system, network = make(kind, layer)
    trials, steps, rest = cut(seed)
    tokens, at = torch.from_numpy(trials.tokens), torch.from_numpy(steps)
    latents = torch.randn(N, system.n_units, dtype=torch.float64, requires_grad=True)
    found = system.resume(latents, rest, system.context(tokens).at(np.arange(N), steps))
    where = torch.arange(tokens.shape[1]) == at[:, None]
    whole = literally(network, layer, tokens, latents[:, None].expand(-1, tokens.shape[1], -1), where)
    wanted = whole[rest.rows, at[rest.rows] + rest.steps]
    assert torch.allclose(found, wanted, atol=1e-9)
    weights = torch.randn_like(found)
    (mine,) = torch.autograd.grad((found * weights).sum(), latents)
    (theirs,) = torch.autograd.grad((wanted * weights).sum(), latents)
    assert torch.allclose(mine, theirs, atol=1e-9)
    assert mine.abs().max() > 1e-4


@pytest.mark.parametrize(("kind", "layer"), HOOKED)
@pytest.mark.parametrize("seed", range(3))
def test_every_step_put_in_place(kind, layer, seed):
    system, network = make(kind, layer)
    trials, steps, rest = cut(seed)
    tokens, lengths = torch.from_numpy(trials.tokens), torch.from_numpy(steps) + 1
    n_steps = int(lengths.max())
    latents = torch.randn(N, n_steps, system.n_units, dtype=torch.float64, requires_grad=True)
    own = torch.where(torch.arange(n_steps) < lengths[:, None], tokens[:, :n_steps], 3)  # beyond, nothing is looked at
    found = system.resume_steps(latents, lengths, own, rest)
    put = torch.nn.functional.pad(latents, (0, 0, 0, tokens.shape[1] - n_steps))
    whole = literally(network, layer, tokens, put, torch.arange(tokens.shape[1]) < lengths[:, None])
    wanted = whole[rest.rows, lengths[rest.rows] - 1 + rest.steps]
    assert torch.allclose(found, wanted, atol=1e-9)
    weights = torch.randn_like(found)
    (mine,) = torch.autograd.grad((found * weights).sum(), latents)
    (theirs,) = torch.autograd.grad((wanted * weights).sum(), latents)
    assert torch.allclose(mine, theirs, atol=1e-9)
    assert not mine[torch.arange(n_steps) >= lengths[:, None]].any()


@pytest.mark.parametrize(("kind", "layer"), LAYERS)
def test_token_losses_are_the_cross_entropy_of_the_logits(kind, layer):
    system, _ = make(kind, layer)
    trials, steps, rest = cut(0)
    tokens, lengths = torch.from_numpy(trials.tokens), torch.from_numpy(steps) + 1
    context = system.context(tokens)
    latents = torch.randn(N, int(lengths.max()), system.n_units, dtype=torch.float64)
    last, held = latents[torch.arange(N), lengths - 1], None if context is None else context.at(np.arange(N), steps)
    ways = [(system.token_losses, system.resume, last, (rest, held), {})]
    if system.stepwise:
        own = tokens[:, : latents.shape[1]]
        named = {"lengths": lengths, "tokens": own}
        ways.append(
            (
                lambda h, c, **n: system.token_losses(h, c, **n),
                lambda h, c: system.resume_steps(h, lengths, own, c),
                latents,
                (rest,),
                named,
            )
        )
    for losses, logits, given, others, named in ways:
        ours, theirs = given.clone().requires_grad_(), given.clone().requires_grad_()
        found = losses(ours, *others, **named)
        wanted = torch.nn.functional.cross_entropy(logits(theirs, *others), rest.tokens, reduction="none")
        assert torch.allclose(found, wanted, atol=1e-9)
        weights = torch.randn_like(found)
        (found * weights).sum().backward()
        (wanted * weights).sum().backward()
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-9)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_steps_of_a_hidden_layer_follow_from_one_another(kind):
    system, _ = make(kind)
    trials, steps, rest = cut(0)
    with pytest.raises(InvalidInput) as caught:
        system.resume_steps(torch.zeros(N, 3, 16), torch.from_numpy(steps) + 1, torch.from_numpy(trials.tokens), rest)
    assert caught.value.kind == "not_stepwise"


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("lengths", [[1, 0], []])
def test_stepwise_intervenes_at_one_step_at_least(kind, lengths):
    system, _ = make(kind, "embedding")
    rest = Packed.from_sequences(
        np.ones((len(lengths), 1), int), np.ones(len(lengths), int), np.ones((len(lengths), 1), bool)
    )
    latents, own = torch.zeros(len(lengths), 2, 16), torch.zeros(len(lengths), 2, dtype=torch.int64)
    with pytest.raises(InvalidInput) as caught:
        system.resume_steps(latents, torch.tensor(lengths), own, rest)
    assert caught.value.kind == "no_samples"


def test_lengths_go_with_tokens():
    system, _ = make("transformer", "embedding")
    _, steps, rest = cut(0)
    with pytest.raises(InvalidInput) as caught:
        system.token_losses(torch.zeros(N, 3, system.n_units), rest, lengths=torch.from_numpy(steps) + 1)
    assert caught.value.kind == "no_tokens"


@pytest.mark.parametrize(("kind", "layer"), HOOKED)
def test_without_its_context_it_is_not_resumed(kind, layer):
    system, _ = make(kind, layer)
    with pytest.raises(InvalidInput, match="context") as caught:
        system.resume(torch.zeros(N, system.n_units, dtype=torch.float64), cut(0)[2])
    assert caught.value.kind == "no_context"


class TestNames:
    @pytest.mark.parametrize("kind", SYSTEMS)
    def test_every_kind_has_an_embedding_and_a_hidden_layer(self, kind):
        assert make(kind, "embedding")[0].layer == "embedding"
        assert make(kind, "hidden")[0].layer == make(kind)[0].layer != "embedding"

    def test_the_nearest_names_are_listed(self):
        with pytest.raises(NotFound, match="layer-3") as caught:
            make("transformer", "layer-33")
        assert caught.value.kind == "unknown_layer"
        with pytest.raises(NotFound, match="embedding, hidden"):
            load_system("multi-object/gru-0").at("nowhere")

    def test_a_layer_behind_the_name(self):
        assert load_system("multi-object/gru-0@embedding").layer == "embedding"
        assert load_system("multi-object/gru-0", layer="embedding").layer == "embedding"
        assert load_system("multi-object/gru-0").at("embedding").layer == "embedding"
        recording = capture(load_system("multi-object/gru-0@embedding"), 5)
        assert recording.manifest.layer == "embedding"


class TestTransformer:
    def test_positions_are_relative(self):
        """Rotary attention depends on distances alone: with every step shifted by as many, nothing changes."""
        _, network = make("transformer")
        tokens = torch.from_numpy(TASK.sample(1, 0).tokens)
        x = network.embedding(tokens)
        steps = torch.arange(tokens.shape[1])[None]
        for block in network.blocks:
            assert torch.allclose(block(x, network.turns(steps)), block(x, network.turns(steps + 11)), atol=1e-9)
        turned = network.blocks[0](x, network.turns(2 * steps))
        assert not torch.allclose(turned, network.blocks[0](x, network.turns(steps)), atol=1e-3)

    def test_nothing_is_seen_ahead(self):
        _, network = make("transformer")
        tokens = torch.from_numpy(TASK.sample(4, 0).tokens)
        other = tokens.clone()
        other[:, 6:] = 2
        assert torch.equal(network(tokens)[:, :6], network(other)[:, :6])

    def test_width_and_heads_that_do_not_go_together(self):
        with pytest.raises(InvalidInput) as caught:
            make("transformer", n_heads=3)
        assert caught.value.kind == "invalid_width"

    def test_void_tokens_are_for_training_alone(self, tmp_path):
        trained = train(TASK, out=tmp_path, kind="transformer", n_units=8, max_iterations=2, n_held_out=20)
        assert "V" in trained.config.vocabulary
        recording = capture(trained, 20, allow_unsolved=True)
        assert recording.manifest.vocabulary == get_task("multi-object").vocabulary
        assert "void=0.3" in trained.config.provenance.notes


class TestMemory:
    @pytest.mark.parametrize("kind", ["gru", "lstm"])
    def test_gates_remember_longer(self, kind, tmp_path):
        """A pulse in the state lasts longer in a network whose gates were set to remember."""
        left = {}
        for memory in (0, 200):
            system = train(
                "multi-object", out=tmp_path / str(memory), kind=kind, memory=memory, n_units=64, max_iterations=0
            )
            first, second = torch.zeros(1, 64), torch.zeros(1, 64)
            second[:, 32:] = 0.5
            states = [first, second]
            for _ in range(20):
                embedded = system._network.embedding(torch.tensor([1]))
                states = [system._consume(embedded, state, (1,)) for state in states]
            left[memory] = float((states[1] - states[0]).norm())
        assert left[200] > 5 * left[0]

    def test_a_transformer_has_no_gates(self, tmp_path):
        with pytest.raises(InvalidInput) as caught:
            train("multi-object", out=tmp_path, kind="transformer", memory=10, max_iterations=1)
        assert caught.value.kind == "invalid_option"

    def test_other_gates_are_another_training(self, tmp_path):
        train("multi-object", out=tmp_path, n_units=8, max_iterations=1, n_held_out=10)
        with pytest.raises(InvalidInput) as caught:
            train("multi-object", out=tmp_path, n_units=8, max_iterations=1, n_held_out=10, memory=9)
        assert caught.value.kind == "occupied"


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "layer"), LAYERS)
def test_the_same_on_a_gpu(kind, layer):
    system, _ = make(kind, layer)
    trials, steps, rest = cut(0)
    tokens, at = torch.from_numpy(trials.tokens), torch.from_numpy(steps)
    latents, context = system.latents(tokens), system.context(tokens)
    held = None if context is None else context.at(np.arange(N), steps)
    wanted = system.resume(latents[torch.arange(N), at], rest, held)
    moved = system.to("cuda")
    context = moved.context(tokens)
    held = None if context is None else context.at(np.arange(N), steps)
    there = Packed.from_sequences(
        rest.padded().numpy(), np.bincount(rest.rows.numpy(), minlength=N), np.ones(rest.padded().shape, bool), "cuda"
    )
    found = moved.resume(moved.latents(tokens)[torch.arange(N), at], there, held)
    assert torch.allclose(found.cpu(), wanted, atol=1e-8)
    if moved.stepwise:
        n_steps = int(at.max()) + 1
        given = moved.latents(tokens)[:, :n_steps].requires_grad_()
        found = moved.resume_steps(given, at.cuda() + 1, tokens[:, :n_steps].cuda(), there)
        assert torch.allclose(found.detach().cpu(), wanted, atol=1e-8)
        found.square().sum().backward()
        here, _ = make(kind, layer)
        alike = given.detach().cpu().requires_grad_()
        here.resume_steps(alike, at + 1, tokens[:, :n_steps], rest).square().sum().backward()
        assert torch.allclose(given.grad.cpu(), alike.grad, atol=1e-8)


@pytest.mark.parametrize(("kind", "layer"), LAYERS)
def test_one_token_to_come(kind, layer):
    system, network = make(kind, layer)
    trials = TASK.sample(N, 5)
    tokens, at = torch.from_numpy(trials.tokens), torch.from_numpy(trials.lengths - 2)
    last = trials.tokens[np.arange(N), trials.lengths - 1][:, None]
    rest = Packed.from_sequences(last, np.ones(N, np.int64), np.ones((N, 1), bool))
    latents, context = system.latents(tokens), system.context(tokens)
    held = None if context is None else context.at(np.arange(N), at.numpy())
    found = system.resume(latents[torch.arange(N), at], rest, held)
    assert torch.allclose(found, network(tokens)[rest.rows, at[rest.rows]], atol=1e-9)
