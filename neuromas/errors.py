"""One tree of errors, each with a stable ``kind`` that programs can match on.

An error says what it got, what it expected, and where. ``kind`` is a short snake-case code that does not change when the
wording does; the command line prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NeuromasError(Exception):
    """Root of every error that neuromas raises on purpose.

    Parameters
    ----------
    message : str
        One sentence: what was got, what was expected, and where.
    kind : str, optional
        Stable code for this very fault; the class's own kind if not given.
    """

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind


class InvalidInput(NeuromasError, ValueError):
    """The caller handed in something that cannot be used."""

    kind = "invalid_input"
    exit_code = 2


class InvalidDocument(InvalidInput):
    """A document (manifest, configuration, result) breaks its schema; ``problems`` lists every place where."""

    kind = "invalid_document"

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"{where}: {len(problems)} {noun}\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = list(problems)


class NotFound(NeuromasError, LookupError):
    """A name that does not exist: a store, set, recording, variable, unit or system."""

    kind = "not_found"
    exit_code = 3


class NoMatch(NeuromasError, LookupError):
    """No recorded latent holds the values asked for (a miss of the counterfactual-latent index)."""

    kind = "no_match"
    exit_code = 4


class Conflict(NeuromasError):
    """The store already holds something else under this name, or another process is writing it."""

    kind = "conflict"
    exit_code = 5


class Corrupt(NeuromasError):
    """Stored bytes are missing or are not those that were written."""

    kind = "corrupt"
    exit_code = 6


class ReadOnly(NeuromasError):
    """A system that can only be read was asked to run, or a read-only store was asked to change."""

    kind = "read_only"
    exit_code = 7


class StorageFailed(NeuromasError, OSError):
    """The disk refused: no space, no permission. Nothing was published."""

    kind = "storage_failed"
    exit_code = 8


def suggestion(name: object, known: Iterable[str]) -> str:
    """The nearest known name, as a question to end an error message with; empty if none is near.

    Examples
    --------
    >>> suggestion("learning_rat", ["learning_rate", "seed"])
    "; did you mean 'learning_rate'?"
    >>> suggestion("colour", ["learning_rate", "seed"])
    ''
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
