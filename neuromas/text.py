"""Text from files as it may be shown: characters that steer a terminal or a spreadsheet become visible."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

_KEPT = frozenset("\n\t")
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that do something instead of being seen: control, format, half a pair, separators."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: object, *, lines: bool = True) -> str:
    """`text` in which escape sequences, other control characters and marks of writing direction are shown as codes.

    Parameters
    ----------
    text : object
        Shown as ``str`` does.
    lines : bool
        Whether ends of lines and tabs stay, as in a message of several lines. In a name they are codes, too.

    Examples
    --------
    >>> visible("\\x1b[31mred\\u202e"), visible("α ≥ 2 naïve"), visible("two\\nlines", lines=False)
    ('\\\\x1b[31mred\\\\u202e', 'α ≥ 2 naïve', 'two\\\\nlines')
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_seen(character, lines) else _code(character) for character in text)


def _is_seen(character: str, lines: bool) -> bool:
    return (lines and character in _KEPT) or unicodedata.category(character) not in _STEERING


def _code(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        # a byte of a file's name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def cell(value: Any) -> Any:
    """`value` as it may stand in a table for a spreadsheet: text that would be a formula gets a ``'`` before it.

    Numbers, and text that is a number, stay as they are. Control characters are shown as codes, as `visible` does.

    Examples
    --------
    >>> cell("=1+1"), cell("-1.5"), cell("left"), cell(-2)
    ("'=1+1", '-1.5', 'left', -2)
    """
    if not isinstance(value, str) or _is_number(value):
        return value
    return f"{chr(39) * value.lstrip(' ').startswith(_FORMULA)}{visible(value)}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) or text.strip().lstrip("+-").lower() in ("inf", "nan", "infinity")
    except ValueError:
        return False


def csv_table(table: Any, **options: Any) -> str:
    """A DataFrame as CSV in which neither a cell nor a name of a column is a formula.

    Parameters
    ----------
    table : pandas.DataFrame
    **options
        Of `pandas.DataFrame.to_csv`.

    Examples
    --------
    >>> import pandas as pd
    >>> csv_table(pd.DataFrame({"=a": ["@b", "c"], "n": [-1, 2]}), index=False)
    "'=a,n\\n'@b,-1\\nc,2\\n"
    """
    safe = table.copy(deep=False)
    for place, dtype in enumerate(table.dtypes):
        if not (hasattr(dtype, "kind") and dtype.kind in "biufcmM"):
            safe.isetitem(place, table.iloc[:, place].astype(object).map(cell, na_action="ignore"))
    safe.columns = [cell(name) for name in table.columns]
    return str(safe.to_csv(**{"lineterminator": "\n", **options}))
