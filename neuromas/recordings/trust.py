"""How far foreign files are trusted, while they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Trust:
    """How far foreign files are trusted.

    Attributes
    ----------
    allow_external : bool
        Whether a file may refer to other files, which are then read too.
    in_process : bool
        Whether files are read in this process, which a damaged file can end, and not in a child.
    timeout_s : float or None
        Seconds that a child may take for a file. By default they depend on the file's size.
    """

    allow_external: bool = False
    in_process: bool = False
    timeout_s: float | None = None


_DEFAULT = Trust()
_trust = ContextVar("trust", default=_DEFAULT)


def trust() -> Trust:
    """How far files are trusted here and now."""
    return _trust.get()


@contextmanager
def trusting(**changes: Any) -> Iterator[None]:
    """Trust files as `changes`, fields of `Trust`, say.

    Examples
    --------
    >>> with trusting(allow_external=True):
    ...     trust()
    Trust(allow_external=True, in_process=False, timeout_s=None)
    """
    before = _trust.set(replace(_trust.get(), **changes))
    try:
        yield
    finally:
        _trust.reset(before)
