"""The words in which a language model does a task: each token of the task is one token of the model."""

from __future__ import annotations

from itertools import product
from typing import Any

from neuromas.causal.in_context import PROMPT
from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput, suggestion
from neuromas.schema.system import LanguageModelCard


def import_transformers() -> Any:
    """The package `transformers`; InvalidInput if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise InvalidInput(
            "a Hugging Face language model needs the package transformers, which is not installed:"
            ' pip install "neuromas[hf]"',
            kind="missing_package",
        ) from error
    transformers.utils.logging.disable_progress_bar()  # it would cut through ours
    return transformers


def read_words(tokenizer: Any, task: CausalModel, card: LanguageModelCard, name: str) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and the language model's token for each token of the task.

    The begin token of the task has the last token of the prompt.

    Raises
    ------
    InvalidInput
        Lists every word that is not exactly one token after the prompt and after every other word.
    """
    spoken = [token for number, token in enumerate(task.vocabulary) if number != task.begin]
    strange = [token for token in card.words if token not in spoken]
    if strange:
        raise InvalidInput(
            f"words for {', '.join(map(repr, strange))}: task {task.name!r} has no such token; it has {', '.join(spoken)}"
            + suggestion(strange[0], spoken),
            kind="vocabulary_mismatch",
        )
    text = {token: card.words.get(token, f" {token}") for token in spoken}
    said = PROMPT if card.prompt is None else card.prompt
    prompt = _encode(tokenizer, said)
    if not prompt:
        raise InvalidInput(f"system {name!r}: expected a prompt of at least 1 token, got none", kind="invalid_option")
    ids: dict[str, int] = {}
    faults = []
    for token in spoken:
        encoded = _encode(tokenizer, said + text[token])
        added = encoded[len(prompt) :]
        if encoded[: len(prompt)] != prompt or len(added) != 1:
            pieces = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(added)))
            faults.append(f"{text[token]!r} is {len(added)} tokens ({pieces})")
        elif added[0] == tokenizer.unk_token_id:
            faults.append(f"{text[token]!r} is unknown")
        elif added[0] in ids.values():
            faults.append(f"{text[token]!r} is the same token as another")
        else:
            ids[token] = added[0]
    for first, second in product(ids, repeat=2):
        if _encode(tokenizer, said + text[first] + text[second]) != [*prompt, ids[first], ids[second]]:
            faults.append(f"{text[first] + text[second]!r} is not the tokens of its two words")
    if faults:
        raise InvalidInput(
            f"system {name!r} cannot say the words of task {task.name!r}: {'; '.join(faults)}. Each must be exactly one token"
            " of the language model; choose other words with words=",
            kind="vocabulary_mismatch",
        )
    return prompt, [prompt[-1] if number == task.begin else ids[token] for number, token in enumerate(task.vocabulary)]


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Tokens of `text`, with the special tokens that the tokenizer puts before it, but not those after it."""
    ids = list(tokenizer(text)["input_ids"])
    while ids and ids[-1] in tokenizer.all_special_ids and ids[-1] != tokenizer.unk_token_id:
        ids.pop()
    return ids
