"""Whether values of a variable mean the same in two systems, and which mapping would say so.

Values meet by meaning: equal meanings match, and equal numbers match. Text and numbers match only where a mapping says which text
is which number. Codes of categorical variables are never compared with numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.schema.recording import VariableSpec, as_number

_SHOWN = 5
"""Values of each system in a sentence; an offered mapping has them all."""
_MOST = 60
"""Values up to which a mapping is spelled out."""


@dataclass(frozen=True)
class Held:
    """A variable as one system has it.

    Attributes
    ----------
    owner : str
        Name of the system.
    spec : VariableSpec
    values : callable, optional
        Gives the stored numbers of its samples. By default those that the declaration allows.
    noun : str
        What the owner is, if it is no system.
    """

    owner: str
    spec: VariableSpec
    values: Callable[[], NDArray[Any]] | None = None
    noun: str = ""

    @property
    def is_text(self) -> bool:
        """Whether its values have meanings."""
        return self.spec.meanings is not None

    @functools.cached_property
    def labels(self) -> list[str]:
        """The values that it holds as people read them, in order of their stored numbers."""
        stored = np.asarray(self.spec.values or () if self.values is None else self.values(), dtype=np.float64)
        numbers = np.unique(stored[np.isfinite(stored)]).tolist()
        return [self.spec.label(number) if self.is_text else str(_whole(number)) for number in numbers]

    def __str__(self) -> str:
        labels = [repr(text) for text in self.labels] if self.is_text else self.labels
        more = ", …" if len(labels) > _SHOWN else ""
        kind = "categorical" if self.is_text else "a number"
        return f"{kind} in {self.noun}{self.owner!r} ({', '.join(labels[:_SHOWN])}{more})"


def not_comparable(first: Held, other: Held, fixed: Collection[str] = ()) -> str:
    """Why values of the two cannot be compared, with the mapping that would change it; empty if they can.

    Parameters
    ----------
    first, other : Held
    fixed : collection of str
        Owners whose values cannot be mapped, because they run.

    Examples
    --------
    >>> text = VariableSpec(name="n", type="categorical", values=(0, 1), meanings=("1", "10"))
    >>> number = VariableSpec(name="n", type="integer")
    >>> not_comparable(Held("mouse", text), Held("net", number, lambda: np.array([1, 10]))).partition("; ")[2]
    'map them: mapping={"mouse": {"n": {"values": {"1": "1", "10": "10"}}}}'
    >>> not_comparable(Held("mouse", number), Held("net", number))
    ''
    """
    if first.is_text == other.is_text:
        return ""
    changed, kept = (other, first) if _is_kept(first, other, fixed) else (first, other)
    name = changed.spec.name if changed.spec.name == kept.spec.name else f"{changed.spec.name}/{kept.spec.name}"
    advice = "compare other variables" if changed.owner in fixed else offered_mapping(changed, kept)
    return f"variable {name!r} is {first} and {other}, and numbers are never compared with categories; {advice}"


def clashing_codes(first: Held, other: Held) -> str:
    """Why codes of two categorical variables that cannot be recoded do not agree; empty if they do, or if these are numbers."""
    if not (first.is_text and other.is_text):
        return ""
    ours, theirs = (dict(zip(each.spec.meanings or (), each.spec.values or (), strict=True)) for each in (first, other))
    text_of = {code: text for text, code in theirs.items()}
    for text, code in ours.items():
        if theirs.get(text, code) != code or text_of.get(code, text) != text:
            return (
                f"variable {first.spec.name!r}: {text!r} has the code {code} in {first.owner!r}, and in {other.owner!r} "
                + (f"the code {theirs[text]}" if text in theirs else f"that code means {text_of[code]!r}")
                + "; give equal meanings equal codes in the two causal models"
            )
    return ""


def unlike(first: Held, other: Held) -> list[str]:
    """Meanings that samples of `first` hold and `other` does not declare; none for numbers."""
    return [text for text in first.labels if text not in (other.spec.meanings or ())] if first.is_text else []


def _is_kept(first: Held, other: Held, fixed: Collection[str]) -> bool:
    """Whether the names of `first` stay and `other` is mapped to them."""
    if (first.owner in fixed) != (other.owner in fixed):
        return first.owner in fixed
    # text that spells numbers is mapped to numbers; other text says more than numbers do
    text = first if first.is_text else other
    spells_numbers = all(as_number(label) is not None for label in text.labels)
    return first.is_text != spells_numbers


def offered_mapping(changed: Held, kept: Held) -> str:
    """The mapping that gives values of `changed` the names that `kept` has for them, as the end of a sentence."""
    entries = _equal_numbers(changed, kept) if changed.is_text != kept.is_text else {}
    how = "map them"
    if not entries:
        # which is which, nobody has said: one after the other, to be corrected
        here, there = changed.labels, kept.labels
        if changed.is_text and kept.is_text:
            here, there = [text for text in here if text not in there], [text for text in there if text not in here]
        values = here if changed.is_text else [as_number(label) for label in here]
        entries = {text: [value] for text, value in zip(there, values, strict=False)}
        how = "say which is which, e.g. if {}"
    if not entries or len(entries) > _MOST:
        return f"map the values of {changed.owner!r} (mapping=), or leave the variable out (variables=)"
    written = {text: _plain(values) for text, values in entries.items()}
    mapping = json.dumps({changed.owner: {changed.spec.name: {"values": written}}}, ensure_ascii=False)
    return f"{how.format(_sentence(written))}: mapping={mapping}"


def _equal_numbers(changed: Held, kept: Held) -> dict[str, list[Any]]:
    """Values of `kept`, as text → the values of `changed` that are the same number; empty unless all of `changed` are numbers."""
    texts = {as_number(text): text for text in kept.labels}
    entries: dict[str, list[Any]] = {}
    for label in changed.labels:
        number = as_number(label)
        if number is None:
            return {}
        entries.setdefault(texts.get(number, str(_whole(number))), []).append(label if changed.is_text else number)
    return entries if not kept.is_text or set(entries) & set(kept.labels) else {}


def _sentence(entries: dict[str, Any]) -> str:
    texts = [f"{value!r} means {text!r}" for text, value in list(entries.items())[:_SHOWN]]
    return " and ".join(texts) + (" …" if len(entries) > _SHOWN else "")


def _plain(values: Sequence[Any]) -> Any:
    """One value, or a list of several; whole numbers without a point."""
    plain = [_whole(value) if isinstance(value, float) else value for value in values]
    return plain[0] if len(plain) == 1 else plain


def _whole(number: float) -> float | int:
    """A whole number without a point."""
    return int(number) if float(number).is_integer() else float(number)
