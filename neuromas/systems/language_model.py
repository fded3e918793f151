"""A small Llama that learns the in-context task from nothing: a language model for where none can be downloaded.

It is made, saved and loaded exactly as a large one is; only its tokenizer is built here, from the words of the prompt.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuromas.causal.in_context import PROMPT, InContext
from neuromas.causal.model import PAD, CausalModel, Sequences, get_task
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.system import LanguageModelCard
from neuromas.systems.huggingface import HuggingFace
from neuromas.systems.pretrained import CARD, load_huggingface
from neuromas.systems.system import check_device
from neuromas.systems.training import BATCH_SIZE, HELD_OUT_STREAM, MAX_RATE, learning_rate
from neuromas.systems.words import import_transformers, read_words

UNKNOWN = "<unknown>"


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
    known = [word for word, _ in split.pre_tokenize_str(" ".join([prompt, *words]))]
    numbers = {word: number for number, word in enumerate(dict.fromkeys([UNKNOWN, *known]))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    return library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def train_language_model(
    out: str | Path,
    *,
    seed: int = 0,
    task: str = InContext.name,
    name: str | None = None,
    n_units: int = 128,
    n_layers: int = 2,
    n_heads: int = 4,
    target_accuracy: float = 0.999,
    max_iterations: int = 5000,
    validate_every: int = 100,
    n_held_out: int = 1000,
    device: str = "cpu",
    progress: Callable[[int, float, float | None], None] | None = None,
) -> HuggingFace:
    """Train a small Llama on prompt and trials, and save it as ``save_pretrained`` does.

    The loss runs over the tokens of the trials alone. Batches depend on (seed, iteration) alone.

    Parameters
    ----------
    out : path-like
        Folder that does not exist yet, or that the same call has written: then what it holds is loaded.
    seed : int
        Of weights and batches.
    task : str
    name : str, optional
        The system's name; by default ``llama-SEED``.
    n_units, n_layers, n_heads : int
        Width of the residual stream, blocks, heads in each.
    target_accuracy : float
        Stop once two validations in a row reach this trial accuracy on held-out trials.
    max_iterations, validate_every, n_held_out : int
    device : str
    progress : callable, optional
        Called with (iteration, loss, latest held-out trial accuracy or None).

    Returns
    -------
    HuggingFace
        Loaded from `out`, in float32. If `max_iterations` came first, ``config.trial_accuracy`` may be below
        `target_accuracy`.

    Raises
    ------
    InvalidInput
        `out` holds something else; the width is no even multiple of the number of heads; `transformers` is not installed.
    """
    out = Path(out)
    model = get_task(task)
    card = LanguageModelCard(task=task, prompt=PROMPT, name=name or f"llama-{seed}", dtype="float32", seed=seed)
    described = f"neuromas train {task} --system llama --seed {seed}"
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if (out / CARD).is_file():
            finished = load_huggingface(out, device=device)
            if (finished.card.name, finished.card.provenance.source) == (card.name, described):
                return finished
        raise InvalidInput(f"{out} already holds something else; choose another folder", kind="occupied")
    if n_units % (2 * n_heads):
        raise InvalidInput(
            f"expected n_units to be a multiple of twice the number of heads ({n_heads}), got {n_units}",
            kind="odd_width",
        )
    check_device(device)
    tokenizer = word_tokenizer(PROMPT, model.vocabulary[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(len(tokenizer), n_units, n_layers, n_heads).to(device)
    spoken = read_words(tokenizer, model, card, str(card.name))
    optimiser = torch.optim.Adam(network.parameters(), lr=MAX_RATE)
    held_out = model.sample(n_held_out, np.random.default_rng([seed, HELD_OUT_STREAM]))
    accuracy, streak, iteration = 0.0, 0, 0
    while iteration < max_iterations and streak < 2:
        loss = _update(network, spoken, optimiser, model, seed, iteration, device)
        iteration += 1
        if iteration % validate_every == 0 or iteration == max_iterations:
            accuracy = _accuracy(network, spoken, held_out, device)
            streak = streak + 1 if accuracy >= target_accuracy else 0
        if progress is not None:
            progress(iteration, loss, accuracy if iteration >= validate_every else None)
    used = {**versions(), "transformers": import_transformers().__version__}
    provenance = Provenance(source=described, seed=seed, created=now(), versions=used)
    done = card.model_copy(
        update={"iterations": iteration, "trial_accuracy": accuracy, "provenance": provenance},
    )
    _save(network, tokenizer, done, out)
    return load_huggingface(out, device=device)


def _network(n_words: int, n_units: int, n_layers: int, n_heads: int) -> Any:
    library = import_transformers()
    config = library.LlamaConfig(
        vocab_size=n_words,
        hidden_size=n_units,
        intermediate_size=4 * n_units,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
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
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(iteration)
    trials = model.sample(BATCH_SIZE, np.random.default_rng([seed, iteration]))
    network.train()
    logits, labels = _logits(network, spoken, torch.from_numpy(trials.tokens).to(device))
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PAD)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


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
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / out.name
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_atomically(folder / CARD, card.to_json())
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        folder.replace(out)
