"""What all documents are: frozen, closed, and able to list everything that is wrong with a candidate.

``problems`` lists every problem, ``parse`` raises one error that holds the whole list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuromas.errors import InvalidDocument

FORMAT_VERSION = 1
"""Version of the stored layout of recordings and recording sets."""

Access = Literal["intervene", "read"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Document(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

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


class Provenance(Document):
    """Where something came from: enough to make it again."""

    source: str = ""
    """File, system or script it was made from."""
    source_sha256: Sha256 | None = None
    derived_from: tuple[str, ...] = ()
    """The recording that this is another version of, with the hash of its content; then those before."""
    seed: int | None = None
    created: str | None = None
    """ISO 8601, UTC."""
    versions: dict[str, str] = Field(default_factory=dict)
    notes: str = ""


class FileEntry(Document):
    """One stored file: its hash and its size in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)
