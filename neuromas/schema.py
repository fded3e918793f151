"""Documents that neuromas writes and reads: pydantic models, exported as JSON Schema to ``schemas/``.

Every document is frozen and forbids unknown keys. ``problems`` lists everything that is wrong with a candidate, ``parse``
raises one error that holds the whole list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neuromas import dims
from neuromas.errors import InvalidDocument

FORMAT_VERSION = 1
"""Version of the stored layout of recordings and recording sets."""

Access = Literal["intervene", "read"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Document(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def problems(cls, document: object) -> list[str]:
        """Everything that is wrong with `document`, each with its place.

        Parameters
        ----------
        document : mapping or str
            A candidate, or its JSON text.

        Returns
        -------
        list of str
            Empty if the document is valid.

        Examples
        --------
        >>> VariableSpec.problems({"name": "count", "type": "number"})
        ["type: expected 'categorical', 'integer' or 'real', got 'number'"]
        """
        try:
            if isinstance(document, (str, bytes)):
                cls.model_validate_json(document)
            else:
                cls.model_validate(document)
        except ValidationError as error:
            return [_describe(problem) for problem in error.errors()]
        return []

    @classmethod
    def parse(cls, document: object, where: str) -> Self:
        """The document, or one `InvalidDocument` that lists every problem; `where` names the file or argument."""
        problems = cls.problems(document)
        if problems:
            raise InvalidDocument(where, problems)
        if isinstance(document, (str, bytes)):
            return cls.model_validate_json(document)
        return cls.model_validate(document)

    def to_json(self) -> str:
        """Indented JSON text, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def _describe(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "document"
    message = problem["msg"]
    if problem["type"] == "missing":
        message = "required, but missing"
    elif problem["type"] == "extra_forbidden":
        message = "no such field"
    elif problem["type"] == "literal_error":
        message = f"expected {problem['ctx']['expected']}, got {problem['input']!r}"
    elif problem["type"] == "value_error":
        message = message.removeprefix("Value error, ")
    elif "input" in problem and not isinstance(problem["input"], (dict, list)):
        message = f"{message} (got {problem['input']!r})"
    return f"{place}: {message}"


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
                raise ValueError(f"variable {self.name!r} has {len(self.values)} values but {len(self.meanings)} meanings")
            if len(set(self.meanings)) != len(self.meanings):
                raise ValueError(f"variable {self.name!r} gives the same meaning to two values: {list(self.meanings)}")
        elif self.meanings is not None:
            raise ValueError(f"variable {self.name!r} is {self.type}; only categorical variables have meanings")
        if self.type != "real" and any(value != int(value) for value in self.values or ()):
            raise ValueError(f"{self.type} variable {self.name!r} has a value that is no integer: {list(self.values or ())}")
        return self

    def code(self, value: object) -> float:
        """The stored number for `value`, which may be a meaning or a number already.

        Raises
        ------
        KeyError
            `value` is neither a meaning nor an allowed value.
        """
        if isinstance(value, str) and self.meanings is not None and self.values is not None and value in self.meanings:
            return float(self.values[self.meanings.index(value)])
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


class Provenance(Document):
    """Where something came from: enough to make it again."""

    source: str = ""
    """File, system or script it was made from."""
    source_sha256: Sha256 | None = None
    seed: int | None = None
    created: str | None = None
    """ISO 8601, UTC."""
    versions: dict[str, str] = Field(default_factory=dict)
    notes: str = ""


class FileEntry(Document):
    """One stored file: its hash and its size in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class RecordingManifest(Document):
    """Everything about a recording that is not a number in it."""

    format_version: Literal[1] = 1
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
    units: str = "1"
    """Physical units of the activity, e.g. ``Hz``."""
    missing: bool = False
    """Whether activity may be NaN: a unit that was not recorded in a sample."""
    sampling: Sampling = Sampling()
    licence: str = ""
    citation: str = ""
    description: str = ""
    provenance: Provenance = Provenance()
    content_sha256: Sha256 | None = None
    """Hash of activity, coordinates and this document less provenance and files: equal content, equal hash."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """Every stored file, path relative to the recording's folder."""

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


class SetEntry(Document):
    """A recording as its set names it."""

    content_sha256: Sha256
    manifest_sha256: Sha256


class RecordingSetIndex(Document):
    """``set.json``: the recordings of a set. What it does not name does not exist."""

    format_version: Literal[1] = 1
    name: Name
    recordings: dict[Name, SetEntry]


class SystemConfig(Document):
    """A trained network, as saved beside its weights."""

    format_version: Literal[1] = 1
    kind: Literal["gru"] = "gru"
    name: Name
    task: str
    vocabulary: tuple[str, ...]
    n_units: int = Field(default=128, gt=0)
    """Width of the latent."""
    n_hidden: int = Field(default=512, gt=0)
    """Width of the readout's hidden layer."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    seed: int = 0
    iterations: int = 0
    """Optimiser updates done."""
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Share of held-out trials with every deterministic token right."""
    weights_sha256: Sha256 | None = None
    provenance: Provenance = Provenance()


def json_schemas() -> dict[str, str]:
    """File name → JSON Schema text of every document that reaches a disk."""
    documents: list[type[Document]] = [RecordingManifest, RecordingSetIndex, SystemConfig, *_FIT_DOCUMENTS]
    return {
        f"{_snake(document.__name__)}.schema.json": json.dumps(document.model_json_schema(), indent=2) + "\n"
        for document in documents
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


_FIT_DOCUMENTS: list[type[Document]] = []
