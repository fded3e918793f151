"""Whether values of a variable mean the same in two systems, and which mapping would say so.

Values meet by meaning: equal meanings match, and equal numbers match. Text and numbers match only where a mapping says which text
is which number. Codes of categorical variables are never compared with numbers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.recordings.relabel import mapping_entry
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
    mapping : mapping of str to entry
        The mapping that gave the owner's variables these names and values.
    """

    owner: str
    spec: VariableSpec
    values: Callable[[], NDArray[Any]] | None = None
    noun: str = ""
    mapping: Mapping[str, Any] = field(default_factory=dict)

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

    def entry(self, entries: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """What stands for this variable in a mapping that gives values, named as here, other names: name → values here."""
        name = self.spec.name
        origin, renamed = mapping_entry(name, self.mapping[name]) if name in self.mapping else (name, {})
        before = {
            str(text): values if isinstance(values, (list, tuple)) else [values] for text, values in renamed.items()
        }
        values = {
            text: [own for value in here for own in before.get(str(value), [value])] for text, here in entries.items()
        }
        return {**({} if origin == name else {"name": origin}), "values": _written(values)}

    def __str__(self) -> str:
        labels = [repr(text) for text in self.labels] if self.is_text else self.labels
        more = ", …" if len(labels) > _SHOWN else ""
        kind = "categorical" if self.is_text else "a number"
        return f"{kind} in {self.noun}{self.owner!r} ({', '.join(labels[:_SHOWN])}{more})"


@dataclass(frozen=True)
class Mismatch:
    """Why values of a variable cannot be compared, and what would change it.

    Attributes
    ----------
    text : str
    changed : Held, optional
        Whose values a mapping would change.
    entries : mapping of str to list
        Value of the other system → the values of `changed` that mean the same.
    guessed : bool
        Whether nobody has said which value is which.
    advice : str
        What else to do, if no mapping can be offered.
    """

    text: str
    changed: Held | None = None
    entries: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    guessed: bool = False
    advice: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is about: a second mismatch of these values says nothing new."""
        return (self.text,) if self.changed is None else (self.changed.owner, self.changed.spec.name)

    @property
    def in_words(self) -> str:
        """What is wrong, with what the mapping takes for granted or what else to do."""
        if not self.guessed:
            return "; ".join(filter(None, (self.text, self.advice)))
        return f"{self.text}; say which is which, e.g. if {_sentence(_written(self.entries))}"


def refusal(mismatches: Iterable[Mismatch]) -> str:
    """All mismatches in one message that ends with the one mapping that would change them all; empty if there are none.

    Examples
    --------
    >>> text = VariableSpec(name="n", type="categorical", values=(0, 1), meanings=("1", "10"))
    >>> number = Held("net", VariableSpec(name="n", type="integer"), lambda: np.array([1, 10]))
    >>> both = [mismatch(Held("mouse", text), number), mismatch(Held("rat", text, mapping={"m": "k"}), number)]
    >>> refusal(both[:1]).partition("; ")[2]
    'map them: mapping={"mouse": {"n": {"values": {"1": "1", "10": "10"}}}}'
    >>> print(refusal(both))  # doctest: +ELLIPSIS
    2 variables do not meet
      - variable 'n' is categorical in 'mouse' ('1', '10') and a number in 'net' (1, 10), and numbers are never compared ...
      - variable 'n' is categorical in 'rat' ('1', '10') and a number in 'net' (1, 10), and numbers are never compared ...
    map them: mapping={"mouse": {"n": {"values": {"1": "1", "10": "10"}}}, "rat": {"m": "k", "n": {"values": {"1": ...
    """
    different = list({problem.key: problem for problem in reversed(list(mismatches))}.values())[::-1]
    mapping: dict[str, dict[str, Any]] = {}
    for problem in different:
        if problem.changed is not None and problem.entries:
            changed = problem.changed
            mapping.setdefault(changed.owner, dict(changed.mapping))[changed.spec.name] = changed.entry(problem.entries)
    offer = f"mapping={json.dumps(mapping, ensure_ascii=False)}" if mapping else ""
    if len(different) < 2:
        (words,) = [problem.in_words for problem in different] or [""]
        joint = ": " if any(problem.guessed for problem in different) else "; map them: "
        return words + (joint + offer if offer else "")
    lines = [f"  - {problem.in_words}" for problem in different]
    return "\n".join([f"{len(different)} variables do not meet", *lines, *([f"map them: {offer}"] if offer else [])])


def mismatch(first: Held, other: Held, fixed: Collection[str] = ()) -> Mismatch | None:
    """Why values of the two cannot be compared: numbers here and categories there; None if they can.

    Parameters
    ----------
    first, other : Held
    fixed : collection of str
        Owners whose values cannot be mapped, because they run.
    """
    if first.is_text == other.is_text:
        return None
    changed, kept = (other, first) if _is_kept(first, other, fixed) else (first, other)
    name = changed.spec.name if changed.spec.name == kept.spec.name else f"{changed.spec.name}/{kept.spec.name}"
    text = f"variable {name!r} is {first} and {other}, and numbers are never compared with categories"
    if changed.owner in fixed:
        return Mismatch(text, advice="compare other variables")
    return mapped_mismatch(text, changed, kept)


def other_words(kept: Held, changed: Held) -> Mismatch | None:
    """Why no value of two categorical variables is equal, with a mapping of those of `changed`; None if one is."""
    if not (kept.is_text and changed.is_text) or len(unlike(changed, kept)) < len(changed.labels):
        return None
    text = f"variable {changed.spec.name!r} is {kept} and {changed}, without a value in common"
    return mapped_mismatch(text, changed, kept)


def clashing_codes(first: Held, other: Held) -> Mismatch | None:
    """Why codes of two categorical variables that cannot be recoded do not agree; None if they do, or if these are numbers."""
    if not (first.is_text and other.is_text):
        return None
    ours, theirs = (dict(zip(each.spec.meanings or (), each.spec.values or (), strict=True)) for each in (first, other))
    text_of = {code: text for text, code in theirs.items()}
    for text, code in ours.items():
        if theirs.get(text, code) != code or text_of.get(code, text) != text:
            return Mismatch(
                f"variable {first.spec.name!r}: {text!r} has the code {code} in {first.owner!r}, and in {other.owner!r} "
                + (f"the code {theirs[text]}" if text in theirs else f"that code means {text_of[code]!r}"),
                advice="give equal meanings equal codes in the two causal models",
            )
    return None


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


def mapped_mismatch(text: str, changed: Held, kept: Held) -> Mismatch:
    """A mismatch with the mapping that gives values of `changed` the names that `kept` has for them."""
    entries = _equal_numbers(changed, kept) if changed.is_text != kept.is_text else {}
    guessed = not entries
    if guessed:
        # which is which, nobody has said: one after the other, to be corrected
        here, there = changed.labels, kept.labels
        if changed.is_text and kept.is_text:
            here, there = [text for text in here if text not in there], [text for text in there if text not in here]
        values = here if changed.is_text else [as_number(label) for label in here]
        entries = {text: [value] for text, value in zip(there, values, strict=False)}
    if not entries or len(entries) > _MOST:
        advice = f"map the values of {changed.owner!r} (mapping=), or leave the variable out (variables=)"
        return Mismatch(text, changed, advice=advice)
    return Mismatch(text, changed, entries, guessed)


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


def _written(entries: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {text: _plain(values) for text, values in entries.items()}


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
