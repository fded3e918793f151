"""Regular expressions that a user or a recipe brings: matched within a time limit, so that none can run for ever."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterable

import regex

from neuromas.errors import InvalidInput

LONGEST = 1000
"""Characters of a pattern."""

LIMIT_S = 3.0
"""Time for all matches of a pattern. An honest pattern takes microseconds for each name."""


def full_matches(pattern: str, names: Iterable[str], what: str) -> dict[str, dict[str, str | None]]:
    """The names that `pattern` matches from their first to their last character, each with its named groups.

    Parameters
    ----------
    pattern : str
        A regular expression as Python's `re` reads it.
    names : iterable of str
    what : str
        What the pattern is, for messages, e.g. ``unit_columns``.

    Returns
    -------
    dict of str to dict
        In the order of `names`. A group that took no part in the match is None.

    Raises
    ------
    InvalidInput
        `pattern` is not a regular expression, is too long, or needs too much time for these names.

    Examples
    --------
    >>> full_matches(r"u(?P<number>\\d+)", ["u1", "trial", "u20"], "unit_columns")
    {'u1': {'number': '1'}, 'u20': {'number': '20'}}
    """
    expression = _compiled(pattern, what)
    end, matches = time.monotonic() + LIMIT_S, {}
    for name in names:
        try:
            match = expression.fullmatch(name, timeout=max(end - time.monotonic(), 1e-3))
        except (TimeoutError, MemoryError, RecursionError) as error:
            raise InvalidInput(
                f"{what}={_shown(pattern)}: takes more than {LIMIT_S:g} s for the names at hand, e.g. {_shown(name)}; "
                "write it without a repetition inside a repetition, such as (u+)+",
                kind="invalid_recipe",
            ) from error
        if match is not None:
            matches[name] = match.groupdict()
    return matches


def groups_of(pattern: str, what: str) -> list[str]:
    """Named groups of `pattern`; InvalidInput as `full_matches`."""
    return list(_compiled(pattern, what).groupindex)


def _compiled(pattern: str, what: str) -> regex.Pattern[str]:
    if len(pattern) > LONGEST:
        raise InvalidInput(
            f"{what}: expected a regular expression of at most {LONGEST} characters, got {len(pattern)}",
            kind="invalid_recipe",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # Python's own syntax: what only `regex` knows, e.g. recursion, is refused here
            re.compile(pattern)
            return regex.compile(pattern, regex.VERSION0)
    except (re.error, regex.error, OverflowError, RecursionError, ValueError, MemoryError) as error:
        raise InvalidInput(
            f"{what}={_shown(pattern)} is not a regular expression: {error}", kind="invalid_recipe"
        ) from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
