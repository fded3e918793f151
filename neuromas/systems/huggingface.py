"""Hugging Face causal language models as systems: any decoder that keeps keys and values, any of its modules as the layer.

The begin token of a task stands for a whole prompt, whose keys and values are computed once and shared by every trial; each
other token is one token of the language model. `transformers` is an extra and is imported when a model is loaded.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from neuromas.causal.in_context import PROMPT
from neuromas.causal.model import Sequences, get_task
from neuromas.errors import InvalidInput
from neuromas.schema.system import LanguageModelCard, SystemConfig
from neuromas.systems.hooks import Hook, alone, check_hookable, describe_output, get_part, hooked, put_part
from neuromas.systems.system import (
    EMBEDDING,
    Context,
    Packed,
    Past,
    System,
    check_device,
    find_layer,
    join_past,
    with_steps,
)
from neuromas.systems.untrained import untrained_module
from neuromas.systems.words import import_transformers, read_words

_CHUNK = 64  # trials run at once where nothing has to be kept for a gradient
_NEVER = torch.finfo(torch.float32).min / 2  # finite, so that 0 times it is 0; exp of it is 0


@dataclass(frozen=True)
class Prefix:
    """What later steps attend to: keys and values of the prompt and of the trial before each pair's step.

    Attributes
    ----------
    past : tuple of (Tensor, Tensor)
        By block, each (n_pairs, n_heads, n_past, head width); padded on the left, so that what lies side by side in a
        sequence does so here.
    alive : Tensor of int64, shape (n_pairs, n_past)
        0 where there is padding.
    steps : Tensor of int64, shape (n_pairs,)
    words : Tensor of int64, shape (n_pairs,)
        The language model's token at each pair's step.
    """

    past: Past
    alive: Tensor
    steps: Tensor
    words: Tensor


class KeysValues(Context):
    """Keys and values of whole trials; those of the prompt are kept once.

    Parameters
    ----------
    prompt : tuple of (Tensor, Tensor)
        By block, each (1, n_heads, n_prompt, head width).
    past : tuple of (Tensor, Tensor)
        By block, each (n_trials, n_heads, n_steps, head width).
    words : Tensor of int64, shape (n_trials, n_steps)
    """

    def __init__(self, prompt: Past, past: Past, words: Tensor) -> None:
        self._prompt, self._past, self._words = prompt, past, words

    def at(self, trials: np.ndarray, steps: np.ndarray) -> Prefix:
        n_prompt, longest = self._prompt[0][0].shape[2], int(steps.max(initial=0))
        rows, at = torch.from_numpy(trials), torch.from_numpy(steps)
        # column of [prompt, trial] that each place holds; negative in the padding
        columns = torch.arange(n_prompt + longest) - (longest - at)[:, None]
        ragged = bool((at != longest).any())

        def whole(prompt: Tensor, past: Tensor) -> Tensor:
            trial = past[rows.to(past.device), :, :longest]
            joined = torch.cat([prompt.to(past.device).expand(len(rows), -1, -1, -1), trial], dim=2)
            if not ragged:
                return joined
            index = columns.clamp(min=0).to(past.device)
            return joined.gather(2, index[:, None, :, None].expand_as(joined))

        both = zip(self._prompt, self._past, strict=True)
        device = self._words.device
        return Prefix(
            tuple((whole(of_prompt[0], of_trial[0]), whole(of_prompt[1], of_trial[1])) for of_prompt, of_trial in both),
            (columns >= 0).long().to(device),
            at.to(device),
            self._words[rows.to(device), at.to(device)],
        )


class HuggingFace(System):
    """A frozen causal language model; its latent is the output of one of its modules at each token.

    Step 0 is the begin token of the task, which stands for the prompt; its latent is that of the prompt's last token. Each later
    step is one token. Logits cover the whole vocabulary of the language model: first the tokens of the task in their order, then
    all others. The begin token is never predicted. Of equal logits, which are likely in low precision, the first counts.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model itself, not a copy. It is put in evaluation mode, and its parameters take no gradients any more.
    tokenizer : transformers.PreTrainedTokenizerBase
    card : LanguageModelCard, optional
        Task, prompt and words; by default the in-context task.
    layer : str
        Dotted name of a module, such as ``model.layers.1``, or ``embedding``. If its output is a tuple, the latent is the first
        element.
    name : str
        Name of the system.
    source : str
        Where the model comes from, for the provenance.
    weights_sha256 : str, optional
        Hash of the weights, if they come from a file.

    Raises
    ------
    NotFound
        No such layer, or no such task.
    InvalidInput
        A word of the task is not exactly one token of the language model; the model keeps no keys and values; the output of the
        layer has another shape than (n_trials, n_steps, n_units); `transformers` is not installed.
    """

    at_once = 128

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        card: LanguageModelCard | None = None,
        *,
        layer: str = EMBEDDING,
        name: str = "language-model",
        source: str = "",
        weights_sha256: str | None = None,
    ) -> None:
        self._library = import_transformers()
        check_hookable(model, "", f"system {name!r}")
        self.card = LanguageModelCard() if card is None else card
        if self.card.prompt is None:
            self.card = self.card.model_copy(update={"prompt": PROMPT})
        task = get_task(self.card.task)
        self.prompt_ids, self.word_ids = read_words(tokenizer, task, self.card, name)
        self._model, self._tokenizer = model.eval().requires_grad_(False), tokenizer
        self._embedding: nn.Module = model.get_input_embeddings()
        self._head: nn.Module | None = model.get_output_embeddings()
        self.device = _device(self._embedding)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._begin = task.begin
        self._names = (EMBEDDING, *(name for name, _ in model.named_modules() if name))
        shape = getattr(model.config, "get_text_config", lambda: model.config)()
        provenance = self.card.provenance
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        notes = "; ".join(note for note in (provenance.notes, f"weights in {dtype}") if note)
        self.config = SystemConfig(
            kind="huggingface",
            name=name,
            task=task.name,
            vocabulary=task.vocabulary,
            n_layers=getattr(shape, "num_hidden_layers", None) or 1,
            n_heads=getattr(shape, "num_attention_heads", None) or 1,
            dropout=0.0,
            seed=self.card.seed,
            iterations=self.card.iterations,
            trial_accuracy=self.card.trial_accuracy,
            weights_sha256=weights_sha256,
            provenance=provenance.model_copy(update={"source": provenance.source or source, "notes": notes}),
        )
        last, n_known = max(*self.prompt_ids, *self.word_ids), getattr(self._embedding, "num_embeddings", None)
        if n_known is not None and last >= n_known:
            raise InvalidInput(
                f"system {name!r}: its tokenizer has a token number {last}, but its embedding ends at {n_known - 1}. Tokenizer"
                " and model do not belong together",
                kind="vocabulary_mismatch",
            )
        self._longest: int | None = getattr(shape, "max_position_embeddings", None)
        self._prompt, n_words = self._read_prompt()
        others = sorted(set(range(n_words)) - {id_ for at, id_ in enumerate(self.word_ids) if at != task.begin})
        self._columns = torch.tensor([*self.word_ids, *others])
        self._tap(find_layer(layer, self._names, name))

    @property
    def layers(self) -> tuple[str, ...]:
        return self._names

    @property
    def stepwise(self) -> bool:
        return True  # a module sees all steps at once: none of its latents is made from another

    def at(self, layer: str) -> Self:
        """The same system, its latent taken from another layer; they share the weights, and so the device."""
        other = copy.copy(self)
        other._tap(find_layer(layer, self._names, self.name))
        return other

    def untrained(self, seed: int) -> Self:
        other = copy.copy(self)
        other._model = untrained_module(self._model, seed)
        other._embedding, other._head = other._model.get_input_embeddings(), other._model.get_output_embeddings()
        other.config = self.config.model_copy(update={"weights_sha256": None})
        other._tap(self.layer)
        other._prompt, _ = other._read_prompt()
        return other

    def to(self, device: str | torch.device) -> Self:
        if getattr(self._model, "hf_device_map", None):
            if torch.device(device).type != self.device.type:
                raise InvalidInput(
                    f"system {self.name!r} was spread over devices by device_map, with its embedding on {self.device}; it"
                    f" cannot be moved to {device}. Load it again without device_map, or with another device_map",
                    kind="invalid_device",
                )
            return self
        check_device(device)
        with alone(self._model):
            self._model.to(device)
        self.device = _device(self._embedding)
        self._prompt = tuple((keys.to(self.device), values.to(self.device)) for keys, values in self._prompt)
        return self

    @torch.no_grad()
    def latents(self, tokens: Tensor) -> Tensor:
        recorded = [self._record(words)[0].float() for words in self._words(tokens).split(_CHUNK)]
        return torch.cat(recorded).to(self.device)

    @torch.no_grad()
    def context(self, tokens: Tensor) -> KeysValues:
        words = self._words(tokens)
        past = join_past([self._record(chunk)[1] for chunk in words.split(_CHUNK)])
        return KeysValues(self._prompt, past, words)

    def solved(self, trials: Sequences, batch_size: int = _CHUNK) -> np.ndarray:
        return super().solved(trials, min(batch_size, _CHUNK))  # logits range over a large vocabulary

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        if not isinstance(context, Prefix):
            raise InvalidInput(
                f"system {self.name!r} attends to earlier tokens: resume it with the result of context(tokens).at(...)",
                kind="no_context",
            )
        rest = self._words(continuation.padded()[:, :-1])  # nothing is predicted from the last one
        words = torch.cat([context.words[:, None], rest], dim=1)
        inside = torch.zeros_like(words, dtype=torch.bool)
        inside[:, 0] = True
        live = continuation.rows, continuation.steps
        return self._resume(latents[:, None], inside, words, context.past, context.alive, context.steps, live)

    def resume_steps(self, latents: Tensor, lengths: Tensor, tokens: Tensor, continuation: Packed) -> Tensor:
        n_steps = int(lengths.max()) + len(continuation.sizes)
        whole = with_steps(tokens, n_steps)
        column = lengths[continuation.rows] + continuation.steps
        whole[continuation.rows, column] = continuation.tokens
        inside = torch.arange(n_steps, device=self.device) < lengths[:, None]  # (n_pairs, n_steps)
        live = continuation.rows, column - 1  # each token is predicted one step before it
        past, alive, steps = self._after_prompt(len(whole))
        return self._resume(latents, inside, self._words(whole), past, alive, steps, live)

    def _resume(
        self,
        latents: Tensor,
        inside: Tensor,
        words: Tensor,
        past: Past,
        alive: Tensor,
        steps: Tensor,
        live: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Logits (n_live, n_tokens) at the (row, column) positions `live`, with `latents` where `inside` says so."""

        def intervene(module: nn.Module, args: Any, output: Any) -> Any:
            place = _place(output)
            own = get_part(output, place)
            put = with_steps(latents, words.shape[1]).to(own)
            return put_part(output, place, torch.where(inside[:, :, None].to(own.device), put, own))

        logits, _ = self._run(words, past, alive, steps, intervene, live)
        logits = logits.index_select(1, self._columns.to(logits.device)).float()
        logits[:, self._begin] = _NEVER
        return logits.to(self.device)

    def _record(self, words: Tensor) -> tuple[Tensor, Past]:
        """Latents (n, n_steps, n_units) of trials `words` (n, n_steps), and the keys and values of their own steps."""
        recorded: list[Any] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            part = get_part(output, _place(output))
            # a copy: what runs later may change the output in place
            recorded.append(part.detach().clone() if isinstance(part, Tensor) else part)

        nowhere = torch.zeros(0, dtype=torch.int64, device=self.device)
        _, cache = self._run(words, *self._after_prompt(len(words)), keep, (nowhere, nowhere))
        first = recorded[0] if len(recorded) == 1 else None
        if not isinstance(first, Tensor) or first.shape[:-1] != words.shape:
            outputs = ", ".join(map(describe_output, recorded))
            raise InvalidInput(
                f"system {self.name!r}: layer {self.layer!r} gives {outputs or 'nothing'} for {tuple(words.shape)} tokens;"
                f" expected one tensor of shape {(*words.shape, 'n_units')}, as decoder blocks and their parts give",
                kind="missing_output",
            )
        n_prompt = len(self.prompt_ids) - 1
        return first, tuple((keys[:, :, n_prompt:], values[:, :, n_prompt:]) for keys, values in cache)

    def _run(
        self,
        words: Tensor,
        past: Past,
        alive: Tensor,
        steps: Tensor,
        hook: Hook,
        live: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Past]:
        """Run `words` (n, n_steps), which begin at `steps`, after `past`: logits at `live`, keys and values of all."""
        length = alive.shape[1] + words.shape[1]
        if self._longest is not None and length > self._longest:
            raise InvalidInput(
                f"system {self.name!r} reads at most {self._longest} tokens; prompt and trial have {length}",
                kind="too_large",
            )
        cache = self._library.DynamicCache()  # updated in place: a new one for each run
        for number, (keys, values) in enumerate(past):
            cache.update(keys, values, number)
        ones = torch.ones_like(words)
        positions: dict[str, Tensor] = {}
        if self._takes_positions:
            first = len(self.prompt_ids) - 1 + steps
            positions["position_ids"] = first[:, None] + torch.arange(words.shape[1], device=words.device)
        # the head alone may cost more than all blocks: it runs only where something is predicted
        narrow = self._head is not None and self._module not in set(self._head.modules())
        rows, columns = live
        with alone(self._model), hooked(self._module, hook), self._narrowed(narrow, live):
            out = self._model(
                input_ids=words,
                attention_mask=torch.cat([alive, ones], dim=1),
                past_key_values=cache,
                use_cache=True,
                **positions,
            )
        logits = out.logits[0] if narrow else out.logits[rows.to(out.logits.device), columns.to(out.logits.device)]
        return logits, tuple((layer.keys, layer.values) for layer in cache.layers)

    @contextmanager
    def _narrowed(self, narrow: bool, live: tuple[Tensor, Tensor]) -> Iterator[None]:
        """Let the head see only the positions `live` of its input, as one row."""
        if not narrow or self._head is None:
            yield
            return

        def pick(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            rows, columns = (index.to(args[0].device) for index in live)
            return (args[0][rows, columns][None], *args[1:])

        handle = self._head.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()

    def _tap(self, layer: str) -> None:
        """Take the latent from `layer`, whose width is found by running two tokens."""
        self.layer = layer
        self._module = self._embedding if layer == EMBEDDING else self._model.get_submodule(layer)
        with torch.no_grad():
            latents, _ = self._record(torch.tensor([self.word_ids[:2]], device=self.device))
        self.config = self.config.model_copy(update={"n_units": latents.shape[-1], "n_hidden": latents.shape[-1]})

    @torch.no_grad()
    def _read_prompt(self) -> tuple[Past, int]:
        """Keys and values of the prompt but for its last token, and how many tokens the model knows."""
        probe = torch.tensor([self.prompt_ids[-1:]], device=self.device)
        with alone(self._model):
            out = self._model(input_ids=probe, use_cache=True)
        cache = out.get("past_key_values")
        layers = getattr(cache, "layers", None) or ()
        whole = [getattr(layer, "keys", None) is not None and layer.keys.shape[2] == 1 for layer in layers]
        states = [hasattr(layer, "conv_states") or hasattr(layer, "recurrent_states") for layer in layers]
        if not layers or not all(whole) or any(states):
            raise InvalidInput(
                f"system {self.name!r}: {type(self._model).__name__} keeps no keys and values of all its steps, so it cannot be"
                " resumed inside a trial; expected a decoder with attention in every layer (config.use_cache)",
                kind="no_context",
            )
        empty = tuple((layer.keys[:, :, :0], layer.values[:, :, :0]) for layer in layers)
        if len(self.prompt_ids) == 1:
            return empty, out.logits.shape[-1]
        before = torch.tensor([self.prompt_ids[:-1]], device=self.device)
        past = self._library.DynamicCache()  # keeps all steps, also of models whose own cache keeps only the last
        with alone(self._model):
            self._model(input_ids=before, past_key_values=past, use_cache=True)
        return tuple((layer.keys, layer.values) for layer in past.layers), out.logits.shape[-1]

    def _after_prompt(self, n: int) -> tuple[Past, Tensor, Tensor]:
        """Past, mask and steps of `n` sequences that begin with the begin token."""
        past = tuple((keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1)) for keys, values in self._prompt)
        alive = torch.ones(n, len(self.prompt_ids) - 1, dtype=torch.int64, device=self.device)
        return past, alive, torch.zeros(n, dtype=torch.int64, device=self.device)

    def _words(self, tokens: Tensor) -> Tensor:
        """The language model's tokens for the task's `tokens`, of any shape."""
        ids = torch.tensor(self.word_ids, device=self.device)
        return ids[tokens.to(self.device).clamp(min=0)]  # what stands after a trial's end is seen by nothing before it


def _device(embedding: nn.Module) -> torch.device:
    """Where `embedding` runs: a model laid out by device_map may keep its weights elsewhere."""
    hook = getattr(embedding, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(next(embedding.parameters()).device if device is None else device)


def _place(output: Any) -> int | None:
    """Where the latent is in a layer's output: first in a tuple."""
    return 0 if isinstance(output, (tuple, list)) and output else None
