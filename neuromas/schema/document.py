"""What all documents are: frozen, closed, and able to list everything that is wrong with a candidate.

``problems`` lists every problem, ``parse`` raises one error that holds the whole list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuromas.errors import Corrupt, InvalidDocument, suggestion
from neuromas.files import sha256_bytes
from neuromas.seeds import N_SEEDS
from neuromas.text import exact

FORMAT_VERSION = 2
"""Version of the stored layout of recordings and recording sets."""

Access = Literal["intervene", "read"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
Seed = Annotated[int, Field(ge=0, lt=N_SEEDS)]
SHA256_PATTERN = r"^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]


class Document(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)
    paths: ClassVar[tuple[str, ...]] = ()
    """Fields that name files to read, whose names need not be UTF-8; other text must be, or no file could hold it."""

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
        >>> from neuromas.schema.recording import VariableSpec
        >>> VariableSpec.problems({"name": "count", "type": "number"})
        ["type: expected 'categorical', 'integer' or 'real', got 'number'"]
        """
        try:
            not_unicode = _not_unicode(document, cls.paths)
            if not_unicode and isinstance(document, str):
                return not_unicode
            if isinstance(document, (str, bytes)):
                cls.model_validate_json(document)
            else:
                cls.model_validate(document)
        except ValidationError as error:
            return [_describe(problem, cls) for problem in error.errors()]
        except RecursionError:
            return ["document: nested too deeply"]
        return not_unicode

    @classmethod
    def parse(cls, document: object, where: str) -> Self:
        """The document, or one `InvalidDocument` that lists every problem; `where` names the file or argument."""
        problems = cls.problems(document)
        if problems:
            raise InvalidDocument(where, problems)
        if isinstance(document, (str, bytes)):
            return cls.model_validate_json(document)
        return cls.model_validate(document)

    @classmethod
    def default_note(cls, name: str) -> str:
        """What the help says of a field's default, where it does not stand in the field itself; empty otherwise."""
        return ""

    def to_json(self) -> str:
        """Indented JSON text, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


CHECKSUM = "sha256"
"""Last entry of a document that neuromas wrote: SHA-256 of its other content, as JSON with sorted keys and no spaces."""


class StoredDocument(Document):
    """A document that neuromas writes and reads again: its file holds a checksum.

    A file without a checksum is read as well: earlier versions wrote none, and people write such documents by hand.
    """

    def to_json(self) -> str:
        """Indented JSON text, ending in a newline. Its last entry is the checksum.

        Examples
        --------
        >>> from neuromas.schema.system import TrainSpec
        >>> text = TrainSpec(task="multi-object", seed=3).to_json()
        >>> TrainSpec.parse(text, "made.json").seed
        3
        >>> TrainSpec.parse(text.replace("3", "4", 1), "made.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        neuromas.errors.Corrupt: made.json is damaged: its content is not what was written (SHA-256 differs)...
        """
        text = super().to_json()
        last = f'"{CHECKSUM}": "{_content_sha256(json.loads(text))}"'
        return text.removesuffix("\n}\n") + f",\n  {last}\n}}\n"

    @classmethod
    def problems(cls, document: object) -> list[str]:
        # docstring inherited
        content, intact = _without_checksum(document)
        return super().problems(content) or ([] if intact else [_NOT_WRITTEN])

    @classmethod
    def parse(cls, document: object, where: str) -> Self:
        """As `Document.parse`; Corrupt if the document follows its schema, but is not what its checksum says."""
        content, intact = _without_checksum(document)
        parsed = super().parse(content, where)
        if not intact:
            raise Corrupt(f"{where} is damaged: {_NOT_WRITTEN}", kind="hash_mismatch")
        return parsed


_NOT_WRITTEN = (
    f'its content is not what was written (SHA-256 differs). If you changed it, remove its entry "{CHECKSUM}"'
)


def checked(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A document that may be part of a request, without its checksum.

    Raises
    ------
    Corrupt
        The content is not what was written.
    """
    content, intact = _without_checksum(document)
    if not intact:
        raise Corrupt(f"{where} is damaged: {_NOT_WRITTEN}", kind="hash_mismatch")
    return dict(content)


def _without_checksum(document: object) -> tuple[Any, bool]:
    """A document without its checksum, and whether that is right; one that has none, or is no document, as it is."""
    content = document
    if isinstance(document, (str, bytes)):
        try:
            content = json.loads(document)
        except (ValueError, RecursionError):  # reported by the schema
            return document, True
    if not isinstance(content, Mapping) or CHECKSUM not in content:
        return document, True
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    intact = content[CHECKSUM] == _content_sha256(rest)
    return json.dumps(rest) if isinstance(document, (str, bytes)) else rest, intact


def _content_sha256(document: Mapping[str, Any]) -> str:
    return sha256_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def _not_unicode(value: object, exempt: Sequence[str] = (), place: str = "") -> list[str]:
    """Where text in a document is not Unicode, as in the name of a file that is not UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return [f"{place or 'document'}: expected text that is Unicode, got {_shown(value)}"]
        return []
    if isinstance(value, Mapping):
        entries = [(key, entry) for key, entry in value.items() if key not in exempt]
        keys = _not_unicode([key for key, _ in entries if isinstance(key, str)], (), f"{place} key".strip())
    elif isinstance(value, (list, tuple)):
        entries, keys = list(enumerate(value)), []
    else:
        return []
    inner = [_not_unicode(entry, (), f"{place}.{key}".lstrip(".")) for key, entry in entries]
    return [*keys, *(problem for problems in inner for problem in problems)]


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "string_type": "text",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
"""What pydantic's kinds of problem expected, in plain words."""
_SHOWN = 80  # characters of a value in a message
_LONGEST_PLACE = 200  # characters; longer ones lie in something nested hundreds of times


def _describe(problem: Mapping[str, Any], document: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "document"
    place = place if len(place) <= _LONGEST_PLACE else f"{place[:_LONGEST_PLACE]}…"
    kind, message = problem["type"], problem["msg"]
    if kind == "missing":
        message = "required, but missing"
    elif kind == "extra_forbidden":
        message = f"no such field{suggestion(problem['loc'][-1], _fields_at(document, problem['loc'][:-1]))}"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    elif kind in _EXPECTED:
        message = (
            f"expected {_EXPECTED[kind].format_map(_bounds(problem.get('ctx', {})))}, got {_shown(problem['input'])}"
        )
    elif "input" in problem and not isinstance(problem["input"], (dict, list)):
        message = f"{message} (got {_shown(problem['input'])})"
    return f"{place}: {message}"


def _bounds(context: Mapping[str, Any]) -> dict[str, Any]:
    return {key: exact(value) if key in ("gt", "ge", "lt", "le") else value for key, value in context.items()}


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _fields_at(document: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Names of the fields at `place` in `document`; empty where no document lies there."""
    for part in place:
        field = document.model_fields.get(str(part))
        inner = [] if field is None else list(documents_in(field.annotation))
        if inner:
            document = inner[0]
        elif field is None and not isinstance(part, int):
            continue  # the key of a mapping, or the branch of a union
    return list(document.model_fields)


def documents_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The documents that a field's type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from documents_in(inner)


@dataclass(frozen=True)
class Shell:
    """How a field is spelled in the shell, where that does not follow from its name and type.

    Attributes
    ----------
    name : str
        The option, e.g. ``--rank``; by default the field's name with hyphens.
    short : str
        A second spelling, e.g. ``-o``.
    metavar : str
        What stands for the value in the help.
    positional : bool
        An argument instead of an option.
    whole : bool
        A comma belongs to the value; otherwise it separates entries.
    file : bool
        The value is the path of a JSON file, or JSON text, and the field is what it holds.
    bare : str
        Key of a mapping for a value without one: ``16`` for ``full=16``.
    keys : tuple of str
        Keys of a mapping that have options of their own.
    """

    name: str = ""
    short: str = ""
    metavar: str = ""
    positional: bool = False
    whole: bool = False
    file: bool = False
    bare: str = ""
    keys: tuple[str, ...] = ()


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the entries of `changes`; a mapping in both is merged in the same way, anything else is replaced.

    Examples
    --------
    >>> merged({"config": {"seed": 0, "map": "linear"}}, {"config": {"seed": 1}})
    {'config': {'seed': 1, 'map': 'linear'}}
    """
    result = dict(document)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


class Provenance(Document):
    """Where something came from: enough to make it again."""

    source: str = ""
    """File, system or script it was made from."""
    source_sha256: Sha256 | None = None
    external_sha256: dict[str, Sha256] = Field(default_factory=dict)
    """Other files that the source refers to, and the hash of each."""
    derived_from: tuple[str, ...] = ()
    """The recording that this is another version of, with the hash of its content; then those before."""
    seed: int | None = None
    created: str | None = None
    """ISO 8601, UTC."""
    versions: dict[str, str] = Field(default_factory=dict)
    notes: str = ""
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Recordings of a system: share of some hundred trials of its task that it solved. null: it was not measured."""


class FileEntry(Document):
    """One stored file: its hash and its size in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)
