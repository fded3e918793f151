"""Documents of a recording and of a recording set, as a store keeps them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuromas import dims
from neuromas.schema.document import Access, Document, FileEntry, Name, Provenance, Sha256


def as_number(text: str) -> float | None:
    """The number that `text` is, as people write numbers; None if it is none.

    Examples
    --------
    >>> as_number("-2.50"), as_number("1e3"), as_number("1_0"), as_number("nan")
    (-2.5, 1000.0, None, None)
    """
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) else None


def _meaning_of(value: object, meanings: Sequence[str]) -> str | None:
    """The meaning that `value` names: the same text, or the only one that is the same number or truth value."""
    if str(value) in meanings:
        return str(value)
    number = as_number(value.strip()) if isinstance(value, str) else _finite(value)
    equal = [text for text in meanings if _is_truth_value(value) and text.lower() == str(value).lower()]
    if not equal and number is not None:
        equal = [text for text in meanings if as_number(text) == number]
        equal = [text for text in equal if text == f"{number:g}"] or equal
    return equal[0] if len(equal) == 1 else None


def _is_truth_value(value: object) -> bool:
    """Whether `value` is a boolean, of Python or of numpy."""
    return not isinstance(value, str) and str(value) in ("True", "False")


def _finite(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


class VariableSpec(Document):
    """A causal variable: its type, the values it may take, and what they mean.

    A categorical variable is stored as integer codes; ``values`` lists the codes and ``meanings`` says what each is.
    """

    name: str
    type: Literal["categorical", "integer", "real"]
    values: tuple[float | int, ...] | None = None
    """Allowed values; ``None`` allows any (not for categorical variables)."""
    meanings: tuple[str, ...] | None = None
    """One per value; may hold spaces. Categorical variables only."""
    description: str = ""
    units: str = "1"

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"expected letters, digits and underscores, got {name!r}")
        if name in dims.RESERVED:
            raise ValueError(f"{name!r} is reserved; reserved are {', '.join(dims.RESERVED)}")
        return name

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError(f"variable {self.name!r} lists a value twice: {list(self.values)}")
        if self.type == "categorical":
            if self.values is None or self.meanings is None:
                raise ValueError(f"categorical variable {self.name!r} needs values (codes) and meanings")
            if len(self.values) != len(self.meanings):
                raise ValueError(
                    f"variable {self.name!r} has {len(self.values)} values but {len(self.meanings)} meanings"
                )
            if len(set(self.meanings)) != len(self.meanings):
                raise ValueError(f"variable {self.name!r} gives the same meaning to two values: {list(self.meanings)}")
        elif self.meanings is not None:
            raise ValueError(f"variable {self.name!r} is {self.type}; only categorical variables have meanings")
        if self.type != "real" and any(not float(value).is_integer() for value in self.values or ()):
            raise ValueError(
                f"{self.type} variable {self.name!r} has a value that is no integer: {list(self.values or ())}"
            )
        return self

    def code(self, value: object) -> float:
        """The stored number for `value`: a meaning, or a number.

        A number means a value. Where meanings are numbers themselves (``"0"``, ``"10"``), it is the meaning that equals it, and
        never a code. Where no meaning is a number, it is the code.

        Raises
        ------
        KeyError
            `value` is neither a meaning nor an allowed value, or it equals several meanings.

        Examples
        --------
        >>> cluster = VariableSpec(name="cluster", type="categorical", values=(0, 1, 2), meanings=("0", "10", "2"))
        >>> cluster.code(2), cluster.code("2"), cluster.code(10)
        (2.0, 2.0, 1.0)
        """
        if self.meanings is not None and self.values is not None:
            meaning = _meaning_of(value, self.meanings)
            if meaning is not None:
                return float(self.values[self.meanings.index(meaning)])
            if any(as_number(text) is not None for text in self.meanings) or _is_truth_value(value):
                raise KeyError(value)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise KeyError(value) from None
        if self.values is not None and number not in self.values:
            raise KeyError(value)
        return number

    def label(self, code: float) -> str:
        """How the stored number `code` reads: its meaning, or the number itself."""
        if self.meanings is not None and self.values is not None and code in self.values:
            return self.meanings[self.values.index(code)]
        return f"{code:g}"


class Sampling(Document):
    """What a step is, and how long it lasts where time matters."""

    step: str = "token"
    """What one step stands for, e.g. ``token`` or ``time bin``."""
    step_s: float | None = Field(default=None, gt=0)
    """Seconds per step, where steps are bins of time."""
    start_s: float | None = None
    """Time of the first step's left edge relative to `aligned_to`, in seconds."""
    aligned_to: str | None = None
    """The event at time zero."""

    def seconds(self, step: Any) -> Any:
        """Time of the centre of each step's bin, in seconds, as an array of the shape of `step`; None where steps are no time."""
        return None if self.step_s is None else (self.start_s or 0.0) + self.step_s * (step + 0.5)


class PseudoPopulation(Document):
    """How units that were not recorded together were joined."""

    variables: tuple[str, ...] = Field(min_length=1)
    """Trials were joined where these agree, step by step; by the names that they had then."""
    seed: int = Field(ge=0)
    replace: bool
    """Whether a unit's trial may occur in several joined trials."""
    recordings: tuple[str, ...] = Field(min_length=1)
    """What was joined, each with the hash of its content if it came from a store; the units' coordinate ``recording`` tells which
    unit is of which."""
    left_out: tuple[str, ...] = ()
    """Units that lacked trials of a combination of values."""


class RecordingManifest(Document):
    """Everything about a recording that is not a number in it."""

    format_version: Literal[1, 2] = 1
    """2 where `behaviour` is set, which version 1 did not have."""
    name: Name
    set: Name | None = None
    system: str
    """Which network or brain area was recorded."""
    layer: str = ""
    """Which layer, area or population."""
    task: str = ""
    access: Access = "read"
    variables: tuple[VariableSpec, ...] = Field(min_length=1)
    vocabulary: tuple[str, ...] | None = None
    """What each `token` code stands for, where there are tokens."""
    behaviour: str | None = None
    """Coordinate on sample that holds what the recorded system itself did: ``output`` for a network, the tokens that it found
    most probable, or the variable of a choice or response. The tokens of a trial are what it was shown, and may differ."""
    units: str = "1"
    """Physical units of the activity, e.g. ``Hz``."""
    missing: bool = False
    """Whether activity may be NaN: a unit that was not recorded in a sample."""
    sampling: Sampling = Sampling()
    grouped_by: tuple[str, ...] = ()
    """Variables by whose values the samples lie together, as ``groups.json`` tells; empty where they are in order of trials."""
    pseudo_population: PseudoPopulation | None = None
    """Set where units were not recorded together: correlations between units, noise correlations above all, mean nothing."""
    control: str = ""
    """What was done to make this a control, e.g. that values were shuffled; results made from it say so."""
    licence: str = ""
    citation: str = ""
    description: str = ""
    provenance: Provenance = Provenance()
    content_sha256: Sha256 | None = None
    """Hash of activity, coordinates and this document less provenance and files: equal content, equal hash."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """Every stored file, path relative to the recording's folder."""

    @model_validator(mode="before")
    @classmethod
    def _set_version(cls, document: Any) -> Any:
        if not isinstance(document, dict) or document.get("format_version", 1) not in (1, 2):
            return document
        return {**document, "format_version": 1 if document.get("behaviour") is None else 2}

    @field_validator("variables")
    @classmethod
    def _check_unique(cls, variables: tuple[VariableSpec, ...]) -> tuple[VariableSpec, ...]:
        names = [variable.name for variable in variables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"declared twice: {', '.join(twice)}")
        return variables

    def variable(self, name: str) -> VariableSpec:
        """The variable called `name`; KeyError if there is none."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        raise KeyError(name)


class GroupTable(Document):
    """``groups.json``: where in a recording that is stored grouped the samples with each combination of values lie."""

    format_version: Literal[1] = 1
    variables: tuple[str, ...] = Field(min_length=1)
    values: tuple[tuple[float, ...], ...]
    """Combinations in ascending order, as stored numbers."""
    starts: tuple[int, ...]
    """First sample of each."""
    counts: tuple[int, ...]
    """How many samples of each follow one another; within them, their order is random."""
    n_ineligible: int = Field(default=0, ge=0)
    """Samples that the recording declares not eligible; they lie behind all groups."""
    n_incomplete: int = Field(default=0, ge=0)
    """Eligible samples in which a unit was not recorded; they lie behind those."""

    @model_validator(mode="after")
    def _check_sizes(self) -> GroupTable:
        sizes = {len(self.values), len(self.starts), len(self.counts)}
        if len(sizes) > 1 or any(len(row) != len(self.variables) for row in self.values):
            raise ValueError("expected a start, a count and one value per variable for each combination")
        return self


class SetEntry(Document):
    """A recording as its set names it."""

    content_sha256: Sha256
    manifest_sha256: Sha256


class RecordingSetIndex(Document):
    """``set.json``: the recordings of a set. What it does not name does not exist."""

    format_version: Literal[1] = 1
    name: Name
    recordings: dict[Name, SetEntry]
