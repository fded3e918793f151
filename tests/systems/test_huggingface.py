"""Hugging Face language models: resuming against running whole sequences, loading, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from neuromas.causal.in_context import PROMPT, InContext  # noqa: E402
from neuromas.errors import Corrupt, InvalidInput, NotFound  # noqa: E402
from neuromas.files import sha256_file  # noqa: E402
from neuromas.schema.system import LanguageModelCard  # noqa: E402
from neuromas.systems.capture import capture  # noqa: E402
from neuromas.systems.huggingface import HuggingFace  # noqa: E402
from neuromas.systems.language_model import word_tokenizer  # noqa: E402
from neuromas.systems.pretrained import CARD, load_huggingface  # noqa: E402
from neuromas.systems.system import Packed  # noqa: E402
from neuromas.systems.training import load_system, train  # noqa: E402

TASK = InContext()
TOKENIZER = word_tokenizer(PROMPT, TASK.vocabulary[1:])
N_WORDS = len(TOKENIZER)
SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def network(kind: str):
    torch.manual_seed(0)
    if kind == "llama":
        shape = {**SHAPE, "num_key_value_heads": 1, "max_position_embeddings": 256}
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=N_WORDS, **shape, **NO_SPECIAL))
    elif kind == "window":  # attends to its last 6 tokens only
        shape = {**SHAPE, "num_key_value_heads": 1, "sliding_window": 6}
        made = transformers.MistralForCausalLM(transformers.MistralConfig(vocab_size=N_WORDS, **shape, **NO_SPECIAL))
    elif kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=N_WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=256)
        made = transformers.GPT2LMHeadModel(config)
    elif kind == "bloom":  # positions by distance, and no position_ids to say them
        config = transformers.BloomConfig(vocab_size=N_WORDS, hidden_size=16, n_layer=2, n_head=2, **NO_SPECIAL)
        made = transformers.BloomForCausalLM(config)
    with torch.no_grad():  # larger weights than the default: attention that looks somewhere
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return made.eval()


KINDS = {
    "llama": [
        "embedding",
        "model.layers.0",
        "model.layers.1",
        "model.layers.1.self_attn.k_proj",
        "model.norm",
        "lm_head",
    ],
    "gpt2": ["embedding", "transformer.h.0", "transformer.h.1.mlp"],
    "window": ["model.layers.0"],
    "bloom": ["transformer.h.0"],
}
CASES = [(kind, layer) for kind, layers in KINDS.items() for layer in layers]
MADE = {kind: HuggingFace(network(kind), TOKENIZER, name=kind) for kind in KINDS}


def prompt_and(system: HuggingFace, tokens: np.ndarray) -> torch.Tensor:
    """The language model's tokens of prompt and one trial; shape (1, n)."""
    said = [PROMPT, *(f" {TASK.vocabulary[token]}" for token in tokens[1:])]
    return torch.tensor([TOKENIZER("".join(said))["input_ids"]])


def literally(system: HuggingFace, ids: torch.Tensor, latents: torch.Tensor, at: list[int]) -> torch.Tensor:
    """Logits (n, n_words) of the whole sequence `ids` without a cache, the layer's output at places `at` replaced."""

    def put(module, args, output):
        first = output if isinstance(output, torch.Tensor) else output[0]
        first = first.index_copy(1, torch.tensor(at), latents[None])
        return first if isinstance(output, torch.Tensor) else (first, *output[1:])

    handle = system._module.register_forward_hook(put)
    try:
        return system._model(input_ids=ids, use_cache=False).logits[0]
    finally:
        handle.remove()


def as_ours(logits: torch.Tensor) -> torch.Tensor:
    """Logits of the language model in the order that systems give: the task's words, then all others."""
    said = [TOKENIZER.convert_tokens_to_ids(word) for word in TASK.vocabulary[1:]]
    others = [id_ for id_ in range(N_WORDS) if id_ not in said]
    return logits[..., said + others]


def cut(n: int, seed: int):
    """Trials, a step to cut each at, and what follows there: another trial's rest."""
    trials = TASK.sample(n, seed)
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, trials.lengths - 1)
    went_on = TASK.counterfactual(
        np.stack([rng.integers(0, 2, n), rng.integers(1, 12, n)], axis=1), np.random.default_rng(seed)
    )
    return trials, steps, went_on


@pytest.mark.parametrize(("kind", "layer"), CASES)
def test_resuming_is_running_the_whole_sequence(kind, layer):
    """Ragged batches, any latent: logits and gradients equal those without cache, mask and padding."""
    system = MADE[kind].at(layer)
    trials, steps, went_on = cut(5, 1)
    rows = np.array([3, 0, 4, 1, 2, 0])  # in no order, one twice
    steps = np.append(steps[rows[:-1]], 0)
    context = system.context(torch.from_numpy(trials.tokens))
    packed = Packed.from_continuation(went_on, rows)
    start = torch.randn(len(rows), system.n_units, generator=torch.Generator().manual_seed(2))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    logits = system.resume(ours, packed, context.at(rows, steps))
    assert logits.shape == (len(packed.tokens), N_WORDS + 1)
    n_prompt = len(TOKENIZER(PROMPT)["input_ids"])
    total = 0.0
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)) * (logits > -1e30)
    for pair, (row, step) in enumerate(zip(rows, steps, strict=True)):
        length = went_on.lengths[row]
        tokens = np.concatenate([trials.tokens[row, : step + 1], went_on.tokens[row, :length]])
        place = n_prompt - 1 + step
        expected = literally(system, prompt_and(system, tokens), theirs[pair : pair + 1], [place])
        expected = as_ours(expected[place : place + length])
        mine = packed.rows == pair
        torch.testing.assert_close(logits[mine][:, 1:], expected, rtol=1e-4, atol=2e-5)
        total = total + (weights[mine][:, 1:] * expected).sum()
    (logits * weights).sum().backward()
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    assert ours.grad.abs().max() > 0
    assert all(value.grad is None and not value.requires_grad for value in system._model.parameters())


def test_only_the_continuation_is_run():
    """Given again are the token at the intervened step and those after it, never the prompt or what came before."""
    system = MADE["llama"].at("model.layers.0")
    trials, steps, went_on = cut(5, 1)
    steps = np.maximum(steps, 3)
    context = system.context(torch.from_numpy(trials.tokens)).at(np.arange(5), steps)
    given = []
    handle = system._model.get_input_embeddings().register_forward_pre_hook(lambda _, args: given.append(args[0].shape))
    try:
        system.resume(torch.randn(5, system.n_units), Packed.from_continuation(went_on), context)
    finally:
        handle.remove()
    n_rows, n_steps = (sum(shape[0] for shape in given), max(shape[1] for shape in given))
    assert n_rows == 5
    assert n_steps <= went_on.lengths.max()  # that token and all that follow but the last, which predicts nothing


@pytest.mark.parametrize(("kind", "layer"), CASES)
def test_stepwise_is_running_the_whole_sequence(kind, layer):
    system = MADE[kind].at(layer)
    assert system.stepwise
    trials, steps, went_on = cut(4, 3)
    lengths = steps + 1
    packed = Packed.from_continuation(went_on)
    start = torch.randn(4, int(lengths.max()) + 2, system.n_units, generator=torch.Generator().manual_seed(4))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    logits = system.resume_steps(ours, torch.from_numpy(lengths), torch.from_numpy(trials.tokens), packed)
    n_prompt = len(TOKENIZER(PROMPT)["input_ids"])
    total = 0.0
    for row, length in enumerate(lengths):
        tokens = np.concatenate([trials.tokens[row, :length], went_on.tokens[row, : went_on.lengths[row]]])
        places = list(range(n_prompt - 1, n_prompt - 1 + length))
        expected = literally(system, prompt_and(system, tokens), theirs[row, :length], places)
        expected = as_ours(expected[places[-1] : places[-1] + went_on.lengths[row]])
        mine = packed.rows == row
        torch.testing.assert_close(logits[mine][:, 1:], expected, rtol=1e-4, atol=2e-5)
        total = total + functional.cross_entropy(expected, packed.tokens[mine] - 1, reduction="sum")
    functional.cross_entropy(logits, packed.tokens, reduction="sum").backward()
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_recorded_latents_are_the_hidden_states(kind):
    trials = TASK.sample(5, 5)
    system = MADE[kind]
    blocks = {"llama": "model.layers", "gpt2": "transformer.h"}[kind]
    n_prompt = len(TOKENIZER(PROMPT)["input_ids"])
    first = system.at(f"{blocks}.0").latents(torch.from_numpy(trials.tokens))
    assert first.shape == (*trials.tokens.shape, 16)
    embedded = system.at("embedding").latents(torch.from_numpy(trials.tokens))
    for row, length in enumerate(trials.lengths):
        ids = prompt_and(system, trials.tokens[row, :length])
        with torch.no_grad():
            hidden = system._model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        torch.testing.assert_close(first[row, :length], hidden[1][0, n_prompt - 1 :], rtol=1e-4, atol=1e-5)
        own = system._model.get_input_embeddings()(ids)[0, n_prompt - 1 :]
        torch.testing.assert_close(embedded[row, :length], own)


def test_resuming_from_its_own_latent_changes_nothing():
    system = MADE["llama"].at("model.layers.0")
    trials = TASK.sample(6, 6)
    tokens = torch.from_numpy(trials.tokens)
    latents, context = system.latents(tokens), system.context(tokens)
    begin = Packed.from_sequences(trials.tokens[:, 1:], trials.lengths - 1, trials.deterministic[:, 1:])
    whole = system.resume(latents[:, 0], begin, context.at(np.arange(6), np.zeros(6, np.int64)))
    for step in range(1, int(trials.lengths.min()) - 1):
        rest = Packed.from_sequences(trials.tokens[:, step + 1 :], trials.lengths - step - 1, trials.deterministic)
        again = system.resume(latents[:, step], rest, context.at(np.arange(6), np.full(6, step)))
        for row in range(6):
            expected = whole[begin.rows == row][step:]
            torch.testing.assert_close(again[rest.rows == row], expected, rtol=1e-4, atol=1e-5)


def test_the_begin_token_never_wins_and_breaks_no_loss():
    system = MADE["llama"]
    trials, _, _ = cut(3, 7)
    packed = Packed.from_sequences(trials.tokens[:, 1:], trials.lengths - 1, trials.deterministic[:, 1:])
    tokens = torch.from_numpy(trials.tokens)
    held = system.context(tokens).at(np.arange(3), np.zeros(3, np.int64))
    logits = system.resume(system.latents(tokens)[:, 0], packed, held)
    assert torch.isfinite(logits).all()
    assert not (logits.argmax(dim=1) == TASK.begin).any()
    ours = functional.cross_entropy(logits, packed.tokens)
    torch.testing.assert_close(ours, functional.cross_entropy(logits[:, 1:], packed.tokens - 1))


def test_a_context_is_needed_and_layers_are_named():
    system = MADE["llama"]
    packed = Packed.from_sequences(np.array([[1, 2]]), np.array([2]), np.zeros((1, 2), bool))
    with pytest.raises(InvalidInput, match="attends to earlier tokens") as caught:
        system.resume(torch.zeros(1, 16), packed)
    assert caught.value.kind == "no_context"
    assert {"embedding", "model.layers.1.mlp.down_proj", "lm_head"} <= set(system.layers)
    assert system.at("model.layers.0.mlp.gate_proj").n_units == 24
    assert system.layer == "embedding"  # the first is as it was
    with pytest.raises(NotFound, match=r"no layer 'model\.layer\.1'; nearest: .*model\.layers\.1") as missing:
        system.at("model.layer.1")
    assert missing.value.kind == "unknown_layer"
    for layer in ("model.layers", "model"):
        with pytest.raises(InvalidInput, match=r"expected one tensor of shape") as unfit:
            system.at(layer)
        assert unfit.value.kind == "missing_output"


def test_words_must_be_one_token_each():
    with pytest.raises(InvalidInput, match="cannot say") as caught:
        HuggingFace(
            network("llama"), TOKENIZER, LanguageModelCard(words={"nut": " nut nut", "seed": " pip", "stop": " :"})
        )
    assert caught.value.kind == "vocabulary_mismatch"
    for told in ("' nut nut' is 2 tokens", "' pip' is unknown", "' :' is the same token as another"):
        assert told in caught.value.message
    with pytest.raises(InvalidInput, match="words for 'walnut'"):
        HuggingFace(network("llama"), TOKENIZER, LanguageModelCard(words={"walnut": " nut"}))
    small = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=20, **SHAPE, **NO_SPECIAL))
    with pytest.raises(InvalidInput, match=r"token number \d+, but its embedding ends at 19") as foreign:
        HuggingFace(small, TOKENIZER)
    assert foreign.value.kind == "vocabulary_mismatch"


def test_trials_must_fit_behind_the_prompt():
    room = len(TOKENIZER(PROMPT)["input_ids"]) + 4  # for " nut : seed stop"
    config = transformers.LlamaConfig(vocab_size=N_WORDS, **SHAPE, **NO_SPECIAL, max_position_embeddings=room)
    system = HuggingFace(transformers.LlamaForCausalLM(config), TOKENIZER)
    assert system.latents(torch.tensor([[0, 1, 2, 3, 4]])).shape == (1, 5, 16)
    with pytest.raises(InvalidInput, match=f"at most {room} tokens; prompt and trial have {room + 1}") as caught:
        system.latents(torch.tensor([[0, 1, 1, 2, 3, 3]]))
    assert caught.value.kind == "too_large"


@pytest.mark.gpu
def test_moving_to_a_gpu():
    trials, steps, went_on = cut(5, 9)
    packed, held = Packed.from_continuation(went_on), np.arange(5)
    tokens, start = torch.from_numpy(trials.tokens), torch.randn(5, 16)
    here = HuggingFace(network("llama"), TOKENIZER, layer="model.layers.0")
    expected = here.resume(start, packed, here.context(tokens).at(held, steps))
    there = here.to("cuda")
    moved = Packed.from_continuation(went_on, device="cuda")
    found = there.resume(start.cuda(), moved, there.context(tokens).at(held, steps))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_other_words_can_stand_for_the_tokens():
    card = LanguageModelCard(words={"nut": " trial", "stop": " finished"})
    system = HuggingFace(network("llama"), TOKENIZER, card)
    assert TOKENIZER.convert_ids_to_tokens(system.word_ids)[1:] == ["trial", ":", "seed", "finished"]


def test_a_model_without_keys_and_values_is_refused():
    config = transformers.MambaConfig(
        vocab_size=N_WORDS, hidden_size=16, num_hidden_layers=1, state_size=4, **NO_SPECIAL
    )
    with pytest.raises(InvalidInput, match="keeps no keys and values") as caught:
        HuggingFace(transformers.MambaForCausalLM(config), TOKENIZER)
    assert caught.value.kind == "no_context"


def test_without_transformers_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InvalidInput, match=r'pip install "neuromas\[hf\]"') as caught:
        load_huggingface("anything")
    assert caught.value.kind == "missing_package"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny llama"
    network("llama").save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def test_loading_in_bfloat16_with_a_device_map(saved):
    system = load_huggingface(saved, layer="model.layers.1", device_map="cpu", dtype="bfloat16")
    assert next(system._model.parameters()).dtype == torch.bfloat16
    config = system.config
    assert (config.kind, config.name, config.task, config.vocabulary) == (
        "huggingface", "tiny-llama", "in-context", TASK.vocabulary,
    )  # fmt: skip
    assert (config.n_units, config.n_layers, config.n_heads) == (16, 2, 2)
    assert config.weights_sha256 == sha256_file(saved / "model.safetensors")
    assert config.provenance.source == str(saved)
    assert "bfloat16" in config.provenance.notes
    trials = TASK.sample(4, 0)
    tokens = torch.from_numpy(trials.tokens)
    latents = system.latents(tokens)
    assert latents.dtype == torch.float32
    exact = load_huggingface(saved, layer="model.layers.1", dtype="float32", device="cpu")
    close = functional.cosine_similarity(latents, exact.latents(tokens), dim=-1)
    assert close[torch.from_numpy(np.arange(tokens.shape[1]) < trials.lengths[:, None])].min() > 0.99
    given = latents[:, 1].clone().requires_grad_()
    packed = Packed.from_sequences(trials.tokens[:, 2:], trials.lengths - 2, trials.deterministic[:, 2:])
    logits = system.resume(given, packed, system.context(tokens).at(np.arange(4), np.ones(4, np.int64)))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert given.grad.abs().max() > 0


@pytest.mark.parametrize("layer", ["embedding", "model.layers.0", "model.layers.1"])
def test_a_model_laid_out_over_devices(saved, layer):
    """One block stays on the disk until it is run: the same numbers, and it cannot be moved."""
    parts = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
    plan = {**dict.fromkeys(parts, "cpu"), "model.layers.1": "disk"}
    system = load_huggingface(saved, layer=layer, device_map=plan, dtype="float32")
    whole = load_huggingface(saved, layer=layer, dtype="float32")
    assert system._model.hf_device_map == plan
    assert next(system._model.model.layers[1].parameters()).device.type == "meta"
    trials = TASK.sample(4, 0)
    tokens = torch.from_numpy(trials.tokens)
    torch.testing.assert_close(system.latents(tokens), whole.latents(tokens))
    packed = Packed.from_sequences(trials.tokens[:, 2:], trials.lengths - 2, trials.deterministic[:, 2:])
    found = []
    for one in (system, whole):
        given = whole.latents(tokens)[:, 1].requires_grad_()
        logits = one.resume(given, packed, one.context(tokens).at(np.arange(4), np.ones(4, np.int64)))
        functional.cross_entropy(logits, packed.tokens).backward()
        found.append((logits.detach(), given.grad))
    torch.testing.assert_close(found[0], found[1])
    assert system.to("cpu") is system
    with pytest.raises(InvalidInput, match="device_map") as caught:
        system.to("meta")
    assert caught.value.kind == "invalid_device"


def test_a_folder_is_a_system_like_any_other(saved, tmp_path):
    system = load_system(f"{saved}@model.layers.0")
    assert isinstance(system, HuggingFace)
    assert (system.layer, system.config.task) == ("model.layers.0", "in-context")
    folder = tmp_path / "described"
    shutil.copytree(saved, folder)
    (folder / CARD).write_text(LanguageModelCard(name="nutty", words={"stop": " finished"}, dtype="float32").to_json())
    system = load_system(folder)
    assert (system.name, system.layer) == ("nutty", "embedding")
    assert next(system._model.parameters()).dtype == torch.float32
    assert TOKENIZER.convert_ids_to_tokens(system.word_ids)[-1] == "finished"
    with pytest.raises(NotFound, match=r"model\.layers\.1"):
        load_system(f"{folder}@model.layers.7")
    (folder / CARD).write_text('{"task": 3}')
    with pytest.raises(InvalidInput, match="task"):
        load_system(folder)


def test_folders_that_cannot_be_loaded(saved, tmp_path):
    def broken(name: str, *, without: tuple[str, ...] = (), **files: bytes):
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        for gone in without:
            (folder / gone).unlink()
        for file, content in files.items():
            (folder / file.replace("__", ".")).write_bytes(content)
        return folder

    config = json.loads((saved / "config.json").read_text())
    wider = json.dumps({**config, "intermediate_size": 48}).encode()
    deeper = json.dumps({**config, "num_hidden_layers": 3}).encode()
    for folder, fault, kind, told in [
        (broken("bare", without=("model.safetensors",)), Corrupt, "missing_weights", "no weights"),
        (
            broken("pickled", without=("model.safetensors",), pytorch_model__bin=b"\x80\x04."),
            InvalidInput,
            "pickle_refused",
            "unpickled",
        ),
        (broken("cut", model__safetensors=b"\x09\x00\x00"), Corrupt, "not_safetensors", "damaged"),
        (broken("wider", config__json=wider), Corrupt, "weights_mismatch", "do not fit"),
        (
            broken("deeper", config__json=deeper),
            Corrupt,
            "missing_weights",
            r"9 of its model's weights are missing.*layers\.2",
        ),
        (broken("strange", config__json=b'{"model_type": "abacus"}'), InvalidInput, "not_a_language_model", "abacus"),
        (broken("empty", without=("config.json",)), NotFound, "unknown_system", r"no config\.json"),
        (tmp_path / "absent", NotFound, "unknown_system", "no folder"),
    ]:
        with pytest.raises(fault, match=told) as caught:
            load_huggingface(folder)
        assert caught.value.kind == kind, folder
        assert "\n" not in caught.value.message
    with pytest.raises(InvalidInput, match="dtype"):
        load_huggingface(saved, dtype="int8")
    with pytest.raises(NotFound, match="nobody/nothing") as caught:
        load_huggingface("nobody/nothing", local_files_only=True)
    assert caught.value.kind == "unknown_system"


def test_only_solved_trials_are_kept(monkeypatch):
    system = MADE["gpt2"].at("transformer.h.0")
    trials = TASK.sample(20, 8)
    solved = np.zeros(20, dtype=bool)
    solved[[3, 4, 11]] = True
    monkeypatch.setattr(HuggingFace, "solved", lambda self, trials, batch_size=1: solved)
    every, kept = capture(system, trials), capture(system, trials, only_solved=True)
    of = np.isin(every.trial, [3, 4, 11])
    np.testing.assert_array_equal(kept.latents(), every.latents()[of])
    np.testing.assert_array_equal(kept.values(["phase", "count"]), every.values(["phase", "count"])[of])
    assert len(np.unique(kept.trial)) == 3
    assert "17 of 20 trials" in kept.manifest.provenance.notes
    solved[:] = False
    with pytest.raises(InvalidInput, match="solves none of 20 trials") as caught:
        capture(system, trials, only_solved=True)
    assert caught.value.kind == "no_trials"


def test_training_saves_what_can_be_loaded(tmp_path):
    told = []
    small = {"kind": "llama", "n_units": 16, "max_iterations": 4, "validate_every": 2, "n_held_out": 50}
    system = train("in-context", out=tmp_path / "lm", seed=3, progress=lambda *now: told.append(now), **small)
    assert [iteration for iteration, _, _ in told] == [1, 2, 3, 4]
    assert told[0][2] is None
    assert told[-1][2] is not None
    assert told[0][1] > told[-1][1] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"lm"}
    assert (system.name, system.config.iterations, system.config.seed) == ("llama-3", 4, 3)
    again = load_system(tmp_path / "lm@model.layers.0")
    assert again.config.weights_sha256 == system.config.weights_sha256
    trials = TASK.sample(30, np.random.default_rng(0))
    assert again.trial_accuracy(trials) == system.trial_accuracy(trials)
    repeated = train(TASK, out=tmp_path / "other", seed=3, **small)
    for one, other in zip(repeated._model.parameters(), system._model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert train("in-context", kind="llama", out=tmp_path / "lm", seed=3).config == system.config  # it is there already
    with pytest.raises(InvalidInput, match="already holds") as caught:
        train("in-context", kind="llama", out=tmp_path / "lm", seed=4)
    assert caught.value.kind == "occupied"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"options": {"void": 0.2}}, "invalid_option", "void=0.2"),
        ({"memory": 5}, "invalid_option", "no gates"),
        ({"n_units": 12}, "invalid_width", "multiple of twice"),
    ],
)
def test_options_that_a_llama_does_not_take(options, kind, message, tmp_path):
    with pytest.raises(InvalidInput, match=message) as caught:
        train("in-context", kind="llama", out=tmp_path / "lm", **options)
    assert caught.value.kind == kind
    assert not (tmp_path / "lm").exists()


@pytest.mark.slow
def test_a_small_llama_learns_the_task(tmp_path):
    system = train("in-context", kind="llama", out=tmp_path / "lm", validate_every=50, n_held_out=200)
    assert system.config.trial_accuracy >= 0.999
    assert system.config.iterations < 1000
    trials = TASK.sample(100, 1)
    assert system.solved(trials).all()
    half = load_huggingface(tmp_path / "lm", dtype="bfloat16", device_map="cpu", layer="model.layers.1")
    assert half.trial_accuracy(trials) == 1.0
    recording = capture(half, trials, only_solved=True)
    assert recording.manifest.provenance.notes.startswith("left out 0 of 100")
