"""A small Llama that learns the in-context task from scratch: a language model where none can be downloaded.

It is saved and loaded exactly as a large one is. Only its tokenizer is built here, from the words of the prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuromas.causal.in_context import PROMPT
from neuromas.causal.model import PAD, CausalModel, Sequences
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.system import LanguageModelCard, TrainRequest
from neuromas.scratch import scratch_folder
from neuromas.systems.huggingface import HuggingFace
from neuromas.systems.pretrained import CARD, load_huggingface
from neuromas.systems.updates import (
    BATCH_SIZE,
    MAX_RATE,
    Course,
    Limits,
    Report,
    descend,
    held_out_trials,
    seeded,
    train_until,
    training_batch,
)
from neuromas.systems.words import import_transformers, read_words

UNKNOWN = "<unknown>"
N_LAYERS, N_HEADS = 2, 4


def word_tokenizer(prompt: str, words: tuple[str, ...]) -> Any:
    """A tokenizer that knows the words and punctuation marks of `prompt`, and `words`; one token each.

    Parameters
    ----------
    prompt : str
    words : tuple of str

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    library = import_transformers()
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    split = Whitespace()
    pieces = [word for word, _ in split.pre_tokenize_str(" ".join([prompt, *words]))]
    numbers = {word: number for number, word in enumerate(dict.fromkeys([UNKNOWN, *pieces]))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    return library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def train_language_model(
    request: TrainRequest, model: CausalModel, out: Path, device: str, report: Report
) -> HuggingFace:
    """Train a small Llama on prompt and trials, and save it as ``save_pretrained`` does.

    The loss runs over the tokens of the trials alone. The folder is written when training is done; there is no checkpoint.

    Parameters
    ----------
    request : TrainRequest
    model : CausalModel
        The task that the request names.
    out : Path
        Folder that does not exist yet, or that the same request has written: then what it holds is loaded.
    device : str
    report : callable

    Returns
    -------
    HuggingFace
        Loaded from `out`, in float32. If the iteration limit came first, ``config.trial_accuracy`` may be below the target.

    Raises
    ------
    InvalidInput
        `out` holds something else; the width is not an even multiple of the number of heads; the request has options that a
        llama does not take; `transformers` is not installed.
    """
    name = request.name or f"{request.kind}-{request.seed}"
    source = f"neuromas train {model.name} --system {request.kind} --seed {request.seed}"
    _check_request(request, model)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        return _reopened(out, name, source, device)
    limits, seed = Limits.of(request), request.seed
    card = LanguageModelCard(task=model.name, prompt=PROMPT, name=name, dtype="float32", seed=seed)
    tokenizer = word_tokenizer(PROMPT, model.vocabulary[1:])
    with seeded(seed):
        network = _network(len(tokenizer), request.n_units).to(device)
    spoken = read_words(tokenizer, model, card, name)
    optimiser = torch.optim.Adam(network.parameters(), lr=MAX_RATE)
    held_out = held_out_trials(model, limits.n_held_out, seed)
    course = train_until(
        Course(),
        limits,
        lambda iteration: _update(network, spoken, optimiser, model, seed, iteration, device),
        lambda: _accuracy(network, spoken, held_out, device),
        report=report,
    )
    accuracy = _accuracy(network, spoken, held_out, device) if course.accuracy is None else course.accuracy
    used = {**versions(), "transformers": import_transformers().__version__}
    provenance = Provenance(source=source, seed=seed, created=now(), versions=used)
    done = {"iterations": course.iteration, "trial_accuracy": accuracy, "provenance": provenance}
    _save(network, tokenizer, card.model_copy(update=done), out)
    return load_huggingface(out, device=device)


def _check_request(request: TrainRequest, model: CausalModel) -> None:
    if model.options:
        raise InvalidInput(
            f"a llama does the task {model.name!r} as it is, without options; got {model.options}",
            kind="invalid_option",
        )
    if request.memory:
        raise InvalidInput(f"a llama has no gates to set for a memory of {request.memory} steps", kind="invalid_option")
    for name in ("learning_rate", "weight_decay", "dropout"):
        if getattr(request, name) != TrainRequest.model_fields[name].default:
            raise InvalidInput(
                f"a llama is trained with one recipe, without the option {name}; got {getattr(request, name):g}",
                kind="invalid_option",
            )
    if request.n_units % (2 * N_HEADS):
        raise InvalidInput(
            f"expected n_units to be a multiple of twice the number of heads ({N_HEADS}), got {request.n_units}",
            kind="invalid_width",
        )


def _reopened(out: Path, name: str, source: str, device: str) -> HuggingFace:
    """The language model in `out`, if it was trained by the same request."""
    if (out / CARD).is_file():
        finished = load_huggingface(out, device=device)
        if (finished.card.name, finished.card.provenance.source) == (name, source):
            return finished
    raise InvalidInput(f"{out} already holds something else; choose another folder", kind="occupied")


def _network(n_words: int, n_units: int) -> Any:
    library = import_transformers()
    config = library.LlamaConfig(
        vocab_size=n_words,
        hidden_size=n_units,
        intermediate_size=4 * n_units,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return library.LlamaForCausalLM(config)


def _logits(network: Any, spoken: tuple[list[int], list[int]], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n_trials, n_steps - 1, n_words) after each of `tokens` (n_trials, n_steps) but the last, and the labels.

    The prompt is the same for all trials: it is run once, and its keys and values serve them all.
    """
    prompt, words = (torch.tensor(ids, device=tokens.device) for ids in spoken)
    cache = network(input_ids=prompt[None, :-1], use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(tokens))
    said = words[tokens.clamp(min=0)]
    logits = network(input_ids=said[:, :-1], past_key_values=cache, use_cache=True).logits
    return logits, torch.where(tokens == PAD, PAD, said)[:, 1:]


def _update(
    network: Any,
    spoken: tuple[list[int], list[int]],
    optimiser: torch.optim.Optimizer,
    model: CausalModel,
    seed: int,
    iteration: int,
    device: str,
) -> float:
    trials = training_batch(model, BATCH_SIZE, seed, iteration)
    network.train()
    logits, labels = _logits(network, spoken, torch.from_numpy(trials.tokens).to(device))
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PAD)
    return descend(optimiser, loss, iteration)


@torch.no_grad()
def _accuracy(network: Any, spoken: tuple[list[int], list[int]], trials: Sequences, device: str) -> float:
    """Share of `trials` with every deterministic token as the most probable one."""
    network.eval()
    right = 0
    for rows in np.array_split(np.arange(len(trials)), max(1, len(trials) // BATCH_SIZE)):
        logits, labels = _logits(network, spoken, torch.from_numpy(trials.tokens[rows]).to(device))
        fixed = torch.from_numpy(trials.deterministic[rows, 1:]).to(device)
        right += int(((logits.argmax(dim=-1) == labels) | ~fixed).all(dim=1).sum())
    return right / len(trials)


def _save(network: Any, tokenizer: Any, card: LanguageModelCard, out: Path) -> None:
    """Write the whole folder under another name, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{out.name}.", out.parent) as temporary:
        folder = temporary / out.name
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_atomically(folder / CARD, card.to_json())
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        folder.replace(out)
