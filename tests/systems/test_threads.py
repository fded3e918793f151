"""What a hook saw stays as it was, and a module serves one thread at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from neuromas import TorchSystem, capture, load_system
from neuromas.causal.in_context import PROMPT, InContext
from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput
from neuromas.systems.huggingface import HuggingFace
from neuromas.systems.inputs import hash_inputs
from neuromas.systems.language_model import word_tokenizer
from neuromas.systems.system import Packed

TASK = get_task("multi-object")
LABELS = {"d": np.arange(20) % 2}
NONE = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def language_model(config: type, layer: str, **shape) -> HuggingFace:
    transformers = pytest.importorskip("transformers")
    task = InContext()
    tokenizer = word_tokenizer(PROMPT, task.vocabulary[1:])
    torch.manual_seed(0)
    made = getattr(transformers, config)(vocab_size=len(tokenizer), **shape, **NONE)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()
    return HuggingFace(model, tokenizer, name="lm", layer=layer)


@pytest.mark.parametrize(
    ("config", "layer", "shape"),
    [
        # the block adds attention to the output of its mlp, in place
        ("FalconConfig", "transformer.h.0.mlp", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}),
        # the model scales its embedding by the square root of the width, in place
        ("CTRLConfig", "embedding", {"n_positions": 256, "n_embd": 16, "dff": 24, "n_layer": 2, "n_head": 2}),
    ],
)
def test_a_language_model_is_recorded_before_later_code_changes_its_output(config, layer, shape):
    system = language_model(config, layer, **shape)
    trial = InContext().sample(1, 0)
    length = int(trial.lengths[0])
    found = system.latents(torch.from_numpy(trial.tokens))[0, :length]
    words = [*system.prompt_ids, *(system.word_ids[token] for token in trial.tokens[0, 1:length])]
    kept = []
    handle = system._module.register_forward_hook(lambda module, args, output: kept.append(output.detach().clone()))
    with torch.no_grad():
        system._model(input_ids=torch.tensor([words]), use_cache=False)
    handle.remove()
    torch.testing.assert_close(found, kept[0][0, len(system.prompt_ids) - 1 :], atol=1e-5, rtol=1e-4)


class InPlace(nn.Module):
    """Changes its input and the output of its first layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        hidden = self.first(x)
        x.zero_()
        hidden.zero_()
        return hidden


def test_a_module_that_changes_its_inputs_leaves_those_of_its_caller():
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    before, hashes = inputs.clone(), hash_inputs(inputs)
    module = InPlace()
    recording = capture(TorchSystem(module, "first", name="n"), inputs, {**LABELS, "input_hash": hashes})
    assert torch.equal(inputs, before)
    with torch.no_grad():
        np.testing.assert_allclose(recording.latents(), module.first(before).numpy(), rtol=1e-6)


def resumed(system, latents, context, packed):
    with torch.no_grad():
        return system.resume(latents, packed, context)


def in_threads(system, task, n=40):
    """Largest difference of what four threads resume from what one does, and whether it is the same each time."""
    drawn, rows = task.sample(n, 0), np.arange(n)
    values = drawn.values[rows, 2][:, : len(task.variable_names)]
    packed = Packed.from_continuation(task.counterfactual(values, np.random.default_rng(0)), rows)
    context = system.context(torch.from_numpy(drawn.tokens)).at(rows, np.full(n, 1))
    latents = [torch.randn(n, system.n_units, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    right = [resumed(system, each, context, packed) for each in latents]

    def largest(k):
        return max(float((resumed(system, latents[k], context, packed) - right[k]).abs().max()) for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        return max(pool.map(largest, range(4)))


def test_threads_that_share_a_module_get_the_numbers_of_one_thread():
    network = load_system("multi-object/transformer-0")._network
    assert in_threads(TorchSystem(network, "blocks.0", name="yours", task="multi-object"), TASK) < 1e-4


def test_threads_that_share_a_language_model_get_the_numbers_of_one_thread():
    pytest.importorskip("transformers")
    assert in_threads(load_system("in-context/llama-0@model.layers.0"), InContext(), n=8) < 1e-4


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8))

    def forward(self, x):
        time.sleep(0.05)
        return self.net(x)


@pytest.mark.parametrize("whole", [True, False])
def test_captures_that_overlap_leave_a_module_as_it_was(whole):
    """Two threads capture two layers of one module; or one of them a part of it only."""
    module, done = Slow().train(), {}
    parts = [(module, "net.0"), (module if whole else module.net, "net.2" if whole else "2")]

    def go(part, tap, delay):
        time.sleep(delay)
        done[tap] = capture(TorchSystem(part, tap, name="n"), torch.ones(20, 4), LABELS)

    threads = [threading.Thread(target=go, args=(*each, 0.02 * n)) for n, each in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(done) == {tap for _, tap in parts}
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    with torch.no_grad():
        expected = module.net[0](torch.ones(20, 4)).numpy()
    np.testing.assert_allclose(done["net.0"].latents(), expected, rtol=1e-6)


def test_another_thread_that_calls_the_module_is_not_recorded():
    module, stop = Slow().eval(), threading.Event()
    seen = []

    def call():
        while not stop.is_set():
            seen.append(module.net(torch.zeros(1, 4)))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        recording = capture(TorchSystem(module, "net.0", name="n"), torch.ones(20, 4), LABELS)
    finally:
        stop.set()
        thread.join()
    assert seen
    assert recording.n_samples == 20


def scripted(module):
    return torch.jit.script(module)


def traced(module):
    return torch.jit.trace(module, torch.ones(2, 4))


def inside(module):
    return nn.Sequential(scripted(module))


def compiled(module):
    return torch.compile(module, backend="eager")


def compiled_in_place(module):
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize(
    ("make", "tap"),
    [(scripted, "0"), (traced, "0"), (inside, "0.0"), (compiled, "_orig_mod.0"), (compiled_in_place, "0")],
)
def test_a_compiled_module_is_refused_with_what_to_pass_instead(make, tap):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with pytest.raises(InvalidInput, match="is compiled by") as caught:
        TorchSystem(make(module), tap, name="n")
    assert caught.value.kind == "invalid_module"


@pytest.mark.parametrize("module", [nn.Sequential(nn.LazyLinear(3)), nn.Sequential(nn.Linear(4, 3, device="meta"))])
def test_a_module_without_weights_is_refused(module):
    with pytest.raises(InvalidInput, match="holds no numbers yet"):
        capture(TorchSystem(module, "0", name="n"), torch.ones(20, 4), LABELS)
