"""From a request document to options and help, and from the words that somebody typed back to a document.

Every option of a verb is a field of its request document. The option's name, help, type and bounds follow from the field, so a
new field is a new option. `Shell` says where a spelling differs. All values are checked by the document, which reports every
problem at once.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from neuromas.errors import InvalidInput, NotFound
from neuromas.schema.document import Document, Shell, checked, merged
from neuromas.text import exact

CONFIG, JSON, OTHERS = "config_file", "as_json", "others"
"""Parameters that every verb has, or may have, beside those of its documents."""


@dataclass(frozen=True)
class Option:
    """One field of a document as an option.

    Attributes
    ----------
    path : tuple of str
        Where the field lies in the document, e.g. ``("config", "learning_rate")``.
    field : FieldInfo
    document : type
        The document that has the field.
    """

    path: tuple[str, ...]
    field: FieldInfo
    document: type[BaseModel]

    @property
    def parameter(self) -> str:
        """Name of the parameter that carries what was typed."""
        return "__".join(self.path)

    @cached_property
    def shell(self) -> Shell:
        """How the field says that it is spelled."""
        return next((extra for extra in self.field.metadata if isinstance(extra, Shell)), Shell())

    @property
    def name(self) -> str:
        """As it is typed: ``--learning-rate``; of an argument, what stands for it in the help."""
        if self.shell.positional:
            return self.shell.metavar or self.path[-1].upper()
        return self.shell.name or f"--{self.path[-1].replace('_', '-')}"

    @cached_property
    def kind(self) -> Any:
        """The field's type without ``None``."""
        return _without_none(self.field.annotation)

    @property
    def is_flag(self) -> bool:
        """Whether it stands alone, without a value."""
        return self.kind is bool

    @property
    def is_mapping(self) -> bool:
        """Whether it takes names with values."""
        return get_origin(self.kind) is dict

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self.kind) is tuple

    @property
    def from_file(self) -> bool:
        """Whether its value is a JSON file or JSON text."""
        return self.shell.file or (self.is_mapping and get_origin(_without_none(get_args(self.kind)[1])) is dict)

    @property
    def repeatable(self) -> bool:
        """Whether it may be typed several times."""
        return (self.is_mapping or self.is_list) and not self.from_file

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it may take, where they are listed."""
        return tuple(map(str, get_args(self.kind))) if get_origin(self.kind) is Literal else ()

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if self.shell.metavar:
            return self.shell.metavar
        if self.choices:
            return "|".join(self.choices)
        if self.from_file:
            return "FILE|JSON"
        if self.is_mapping:
            listed = get_origin(get_args(self.kind)[1]) is tuple
            return "NAME=A,B,…" if listed else "NAME=VALUE"
        if self.is_list:
            return "A,B,…"
        return {int: "N", float: "NUMBER"}.get(self.kind, "TEXT")

    @property
    def help(self) -> str:
        """The field's docstring, its bounds and its default."""
        text = " ".join((self.field.description or "").replace("``", "").replace("`", "").split())
        notes = [note for note in (self._bounds(), self._default()) if note]
        if self.repeatable and not self.shell.positional:
            notes.append("repeatable")
        return f"{text} [{'; '.join(notes)}]" if notes else text

    def _bounds(self) -> str:
        signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
        return ", ".join(
            f"{sign} {exact(getattr(extra, bound))}"
            for extra in self.field.metadata
            for bound, sign in signs.items()
            if getattr(extra, bound, None) is not None
        )

    def _default(self) -> str:
        if issubclass(self.document, Document) and (note := self.document.default_note(self.path[-1])):
            return f"default: {note}"
        if self.field.is_required():
            return "required"
        default = self.field.default
        if default is None or default == () or default == "" or self.is_flag or self.field.default_factory is not None:
            return ""
        if isinstance(default, Mapping):
            return "default: " + ",".join(f"{key}={value}" for key, value in default.items())
        return "default: " + (",".join(map(str, default)) if isinstance(default, tuple) else str(default))

    def declaration(self) -> inspect.Parameter:
        """The parameter by which typer makes the option."""
        kind: Any = bool if self.is_flag else list[str] if self.repeatable else str
        text = self.help
        if self.shell.positional:
            made: Any = typer.Argument(metavar=self.name, help=text, show_default=False)
        else:
            names = [self.name, self.shell.short] if self.shell.short else [self.name]
            if self.is_flag and self.field.default is True:
                names = [f"{self.name}/--no-{self.name.removeprefix('--')}"]
            made = typer.Option(
                *names,
                metavar=None if self.is_flag else self.metavar,
                help=text,
                show_default=False,
                autocompletion=_completion(self.choices),
            )
        return inspect.Parameter(
            self.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, made]
        )

    def value(self, typed: Any) -> Any:
        """The document's value for what was typed; the document checks it."""
        if self.is_flag:
            return typed
        if self.from_file:
            return read_json(typed, self.name)
        if self.is_mapping:
            return self._mapping(typed)
        return self._list(typed) if self.is_list else typed

    def _list(self, typed: Sequence[str]) -> list[Any]:
        entries: list[Any] = []
        for text in typed:
            if text.startswith("[") and isinstance(listed := as_json(text), list):
                entries += listed
            else:
                entries += [text] if self.shell.whole else [part.strip() for part in text.split(",")]
        return entries

    def _mapping(self, typed: Sequence[str]) -> dict[str, Any]:
        inner = _without_none(get_args(self.kind)[1])
        if len(typed) == 1 and typed[0].startswith("{") and isinstance(whole := as_json(typed[0]), dict):
            return whole
        if self.shell.bare and len(typed) == 1 and "=" not in typed[0]:
            return {self.shell.bare: as_json(typed[0])}
        words = list(typed)
        if inner in (int, float):
            words = [part.strip() for text in typed for part in text.split(",")]
        entries: dict[str, Any] = {}
        for name, text in pairs(self.name, words).items():
            if get_origin(inner) is tuple:
                entries[name] = _entries(text, get_args(inner)[0] in (str, int, float, float | str))
            else:
                entries[name] = text if inner is str else self.key_value(name, text)
        return entries

    def key_value(self, key: str, text: str) -> Any:
        """The value of one key of a mapping; a list with commas only for a key that has an option of its own."""
        listed = key in self.shell.keys and "," in text
        return _entries(text, False) if listed else as_json(text)


def options_of(document: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Option]:
    """The options of a document, those of documents in it included; not its format version."""
    for name, field in document.model_fields.items():
        kind = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from options_of(kind, (*path, name))
        elif name != "format_version":
            yield Option((*path, name), field, document)


@dataclass(frozen=True)
class Asked:
    """What somebody typed after a verb.

    Attributes
    ----------
    documents : tuple of type
        The request document, and what else the verb takes.
    typed : dict of str to dict
        What was typed, by document, as that document has it; nested where the document is.
    filed : dict or None
        What the file of ``--config`` holds.
    as_json : bool
    """

    documents: tuple[type[Document], ...]
    typed: tuple[dict[str, Any], ...]
    filed: dict[str, Any] | None = None
    as_json: bool = False

    def document(self) -> dict[str, Any]:
        """The request as a document: the file's, with what was typed in its place."""
        return merged(self.filed or {}, self.typed[0])

    def parse(self, verb: str) -> list[Any]:
        """The documents, each checked; InvalidDocument lists every problem of the first that has any."""
        where = verb if self.filed is None else f"{verb}, configuration file and options"
        first, *others = self.documents
        return [
            first.parse(self.document(), where),
            *(kind.parse(typed, verb) for kind, typed in zip(others, self.typed[1:], strict=True)),
        ]


def signature(documents: Sequence[type[Document]], *, others: str = "", table: bool = False) -> inspect.Signature:
    """The parameters of a verb: the fields of `documents`, ``--config``, and ``--json`` for what prints a table.

    Parameters
    ----------
    documents : sequence of Document types
        The first one is the request.
    others : str
        Name of the document in the request whose fields ``--option KEY=VALUE`` may also name; empty for none.
    table : bool
    """
    options = [option for document in documents for option in options_of(document)]
    options.sort(key=lambda option: not option.shell.positional)
    parameters = [option.declaration() for option in options]
    for option in options:
        parameters += [_key_option(option, key) for key in option.shell.keys]
    if others:
        declared = typer.Option(
            "--option", "-o", metavar="KEY=VALUE", help="Any setting by its field's name. Repeatable."
        )
        parameters.append(_parameter(OTHERS, Annotated[list[str] | None, declared]))
    declared = typer.Option("--config", metavar="FILE", help="JSON: a request. Options replace what it says.")
    parameters.append(_parameter(CONFIG, Annotated[str | None, declared]))
    if table:
        declared = typer.Option("--json", help="Print JSON instead of a table.")
        parameters.append(_parameter(JSON, Annotated[bool, declared], default=False))
    return inspect.Signature(parameters)


def read_words(documents: Sequence[type[Document]], words: Mapping[str, Any], *, others: str = "") -> Asked:
    """What was typed, by document.

    Raises
    ------
    InvalidInput
        Words that are no NAME=VALUE, a setting that is given twice, a file that holds no JSON.
    NotFound
        There is no such file.
    """
    typed: list[dict[str, Any]] = []
    for document in documents:
        entries: dict[str, Any] = {}
        for option in options_of(document):
            word = words.get(option.parameter)
            if word is not None and word not in ([], ()):
                _put(entries, option.path, option.value(word))
            for key in option.shell.keys:
                text = words.get(f"{option.parameter}__{key}")
                if text is not None:
                    _put(entries, (*option.path, key), option.key_value(key, text))
        typed.append(entries)
    if words.get(OTHERS):
        _put_others(typed[0], documents[0], words[OTHERS], others)
    path = words.get(CONFIG)
    filed = None if path is None else read_json(path, "--config")
    return Asked(tuple(documents), tuple(typed), filed, bool(words.get(JSON)))


def _put_others(entries: dict[str, Any], document: type[Document], words: Sequence[str], inside: str) -> None:
    """Settings of ``--option KEY=VALUE``, each of which may have an option of its own."""
    by_key = {option.path[-1]: option for option in options_of(document) if option.path[:-1] == (inside,)}
    twice = []
    for key, text in pairs("--option", words).items():
        name = key.replace("-", "_")
        if name in entries.get(inside, {}):
            twice.append(f"{by_key[name].name} and -o {key}" if name in by_key else key)
        _put(entries, (inside, name), as_json(text))
    if twice:
        raise InvalidInput(f"given twice: {', '.join(twice)}", kind="given_twice")


def _put(entries: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *outer, last = path
    for part in outer:
        entries = entries.setdefault(part, {})
    if isinstance(value, dict) and isinstance(entries.get(last), dict):
        entries[last] |= value
    else:
        entries[last] = value


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _key_option(option: Option, key: str) -> inspect.Parameter:
    """An option of its own for one key of a mapping."""
    made = typer.Option(
        f"--{key.replace('_', '-')}", metavar="VALUE", help=f"Short for {option.name} {key}=VALUE.", show_default=False
    )
    return _parameter(f"{option.parameter}__{key}", Annotated[str | None, made])


def _completion(choices: Sequence[str]) -> Callable[[str], list[str]] | None:
    if not choices:
        return None
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _without_none(annotation: Any) -> Any:
    """A type without ``None`` and without what annotates it."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _without_none(inner[0]) if len(inner) == 1 else annotation
    return annotation


# ------------------------------------------------------------------------------------------------------- words into values


def pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping."""
    entries: dict[str, str] = {}
    for text in words:
        name, _, value = text.partition("=")
        if not name or not value:
            raise InvalidInput(f"{option} {text!r}: expected NAME=VALUE", kind="invalid_option")
        if name in entries:
            raise InvalidInput(f"{option}: {name!r} is given twice", kind="given_twice")
        entries[name] = value
    return entries


def _entries(text: str, as_text: bool) -> list[Any]:
    """Entries of a list with commas, or of a JSON list."""
    if text.startswith("[") and isinstance(listed := as_json(text), list):
        return listed
    parts = [part.strip() for part in text.split(",")]
    return parts if as_text else [as_json(part) for part in parts]


def as_json(text: str) -> Any:
    """The value that `text` is in JSON; the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_json(text: str, option: str) -> dict[str, Any]:
    """The object in a JSON file, in ``-`` (standard input), or in the text itself where it begins with a brace.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        It holds no JSON object.
    Corrupt
        It is a file that neuromas wrote, and damaged.
    """
    where = f"{option} {text if len(text) < 80 else text[:80] + '…'}"
    try:
        if text.startswith("{"):
            document = json.loads(text)
        elif text == "-":
            document = json.loads(getattr(sys.stdin, "buffer", sys.stdin).read())
        else:
            document = json.loads(Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{option}: no such file: {text}", kind="unknown_file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: cannot be read as JSON: {error}", kind="unreadable_source") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{where}: expected a JSON object, got {type(document).__name__}", kind="unreadable_source")
    return checked(document, where)
