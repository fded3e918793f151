"""Text from files as it may be shown: characters that steer a terminal or a spreadsheet become visible."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

_KEPT = frozenset("\n\t")
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of characters that do something instead of being seen: control, format, half a pair, separators."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_LEAST_EXPONENT, _LONG, _LONGEST = 31, 10**5, 10**15
"""Powers of two from here on are written as such; whole numbers in between have all of their digits, with commas."""


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


def exact(number: float) -> str:
    """A bound in words that lose nothing: large powers of two as such, other whole numbers with all of their digits.

    Examples
    --------
    >>> exact(2**64), exact(10_000_000), exact(20), exact(0.5), exact(1e12), exact(-1e300)
    ('2^64', '10,000,000', '20', '0.5', '1,000,000,000,000', '-1e+300')
    """
    if not math.isfinite(number) or number != int(number):
        return f"{number:g}" if float(f"{number:g}") == number else repr(number)
    whole = int(number)
    exponent = abs(whole).bit_length() - 1
    if exponent >= _LEAST_EXPONENT and abs(whole) == 2**exponent:
        return f"{'-' * (whole < 0)}2^{exponent}"
    short = abs(whole) < _LONG or (isinstance(number, float) and abs(whole) > _LONGEST)
    return f"{number:g}" if short else f"{whole:,}"


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
