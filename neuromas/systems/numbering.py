"""The numbers that a foreign module has for the tokens of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.causal.model import PAD
from neuromas.errors import InvalidInput, suggestion


@dataclass(frozen=True)
class Numbering:
    """Tokens of a system, and the module's number of each.

    Attributes
    ----------
    vocabulary : tuple of str
        Tokens in the system's order: those of the task, then others that the module knows.
    numbers : tuple of int
        The module's number of each.
    """

    vocabulary: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, vocabulary: Sequence[str] | Mapping[str, int] | None, of_task: tuple[str, ...], name: str) -> Numbering:
        """From the argument `vocabulary` of a `TorchSystem`.

        Parameters
        ----------
        vocabulary : sequence of str, mapping of str to int, or None
            The module's tokens in the order of their numbers; or token of the task → its number; or None, if the module has the
            task's numbers.
        of_task : tuple of str
            Tokens of the task; empty if they are not known.
        name : str
            Name of the system, for messages.

        Raises
        ------
        InvalidInput
            A token of the task has no number, or two have the same.

        Examples
        --------
        >>> Numbering.of(["end", "a", "begin", "unused"], ("begin", "a", "end"), "net")
        Numbering(vocabulary=('begin', 'a', 'end', 'unused'), numbers=(2, 1, 0, 3))
        >>> Numbering.of(["<s>", "x", "</s>"], ("begin", "a", "end"), "net")  # other names, in the task's order
        Numbering(vocabulary=('begin', 'a', 'end'), numbers=(0, 1, 2))
        >>> Numbering.of({"end": 2, "begin": 50, "a": 7}, ("begin", "a", "end"), "net").numbers
        (50, 7, 2)
        """
        if vocabulary is None:
            return cls(of_task, tuple(range(len(of_task))))
        if isinstance(vocabulary, Mapping):
            return cls._numbered(vocabulary, of_task or tuple(map(str, vocabulary)), name)
        spoken = [str(token) for token in vocabulary]
        repeated = sorted({token for token in spoken if spoken.count(token) > 1})
        if repeated:
            raise InvalidInput(
                f"system {name!r}: vocabulary has {', '.join(map(repr, repeated))} twice; each token has one number",
                kind="vocabulary_mismatch",
            )
        if not set(spoken) & set(of_task) and len(spoken) == len(of_task):
            spoken = list(of_task)
        missing = [token for token in of_task if token not in spoken]
        if missing:
            example = ", ".join(f"{token!r}: number" for token in of_task[:2])
            raise InvalidInput(
                f"system {name!r}: vocabulary has no {', '.join(map(repr, missing))}, which the task has. If the module has other"
                f" names for its tokens, give the module's number of each token of the task: vocabulary={{{example}, …}}"
                f"{suggestion(missing[0], spoken)}",
                kind="vocabulary_mismatch",
            )
        tokens = [*of_task, *(token for token in spoken if token not in of_task)]
        return cls(tuple(tokens), tuple(spoken.index(token) for token in tokens))

    @classmethod
    def _numbered(cls, numbers: Mapping[str, int], of_task: tuple[str, ...], name: str) -> Numbering:
        strange = [str(token) for token in numbers if token not in of_task]
        missing = [token for token in of_task if token not in numbers]
        if strange or missing:
            raise InvalidInput(
                f"system {name!r}: vocabulary as numbers by token needs the tokens of the task, {', '.join(of_task)};"
                + (f" {', '.join(map(repr, missing))} missing" if missing else f" got {', '.join(map(repr, strange))}")
                + (suggestion(strange[0], of_task) if strange else ""),
                kind="vocabulary_mismatch",
            )
        chosen = [numbers[token] for token in of_task]
        whole = all(isinstance(number, (int, np.integer)) and number >= 0 for number in chosen)
        if not whole or len(set(chosen)) < len(chosen):
            raise InvalidInput(
                f"system {name!r}: vocabulary: expected another whole number from 0 for each token, got {dict(numbers)}",
                kind="vocabulary_mismatch",
            )
        return cls(of_task, tuple(int(number) for number in chosen))

    @property
    def same(self) -> bool:
        """Whether the module has the system's numbers."""
        return self.numbers == tuple(range(len(self.numbers)))

    def spoken(self, tokens: Tensor) -> Tensor:
        """The module's numbers of `tokens`, of any shape; padding becomes some token."""
        tokens = tokens.clamp(min=0)
        return tokens if self.same else torch.tensor(self.numbers, device=tokens.device)[tokens]

    def heard(self, logits: Tensor) -> Tensor:
        """The module's `logits` (..., n_tokens) in the order of the system's tokens; then what else the module can say."""
        if self.same:
            return logits
        known = set(self.numbers)
        order = [*self.numbers, *(number for number in range(logits.shape[-1]) if number not in known)]
        return logits.index_select(-1, torch.tensor(order, device=logits.device))

    def recorded(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The system's tokens of the module's `numbers`, of any shape; `PAD` for a number that stands for none."""
        table = np.full(max(*self.numbers, int(numbers.max(initial=0))) + 1, PAD)
        table[list(self.numbers)] = np.arange(len(self.numbers))
        return np.where(numbers < 0, PAD, table[numbers])


__all__ = ["Numbering"]
