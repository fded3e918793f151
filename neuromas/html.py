"""HTML for notebooks: tables of escaped text, in the style of the page around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from neuromas.text import visible

_CELL = "text-align: {align}; padding: 0.1em 0.7em;"
_NUMERIC = frozenset("0123456789.,–−-+%[] e")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "", note: str = "") -> str:
    """A table; everything in it is escaped.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequence
        One cell per column, shown as ``str`` does. Columns of numbers are aligned to the right.
    caption, note : str
        Text above and below.

    Returns
    -------
    str

    Examples
    --------
    >>> "&lt;b&gt;" in table(["name"], [["<b>"]])
    True
    """
    texts = [[str(cell) for cell in row] for row in rows]
    align = ["right" if all(set(row[i]) <= _NUMERIC for row in texts) else "left" for i in range(len(columns))]
    head = "".join(_cell("th", name, side) for name, side in zip(columns, align, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell('td', cell, side) for cell, side in zip(row, align, strict=True))}</tr>" for row in texts
    )
    return (
        f"<div>{_line(caption, 'strong')}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{_line(note, 'span')}</div>"
    )


def fields(caption: str, values: Mapping[str, object]) -> str:
    """Names and values, one per row; everything in it is escaped.

    Examples
    --------
    >>> fields("a", {"rank": 2}).count("<tr>")
    1
    """
    body = "".join(
        f"<tr>{_cell('th', name, 'left')}{_cell('td', str(value), 'left')}</tr>" for name, value in values.items()
    )
    return f"<div>{_line(caption, 'strong')}<table><tbody>{body}</tbody></table></div>"


def _cell(tag: str, text: str, align: str) -> str:
    return f'<{tag} style="{_CELL.format(align=align)}">{escape(visible(text))}</{tag}>'


def _line(text: str, tag: str) -> str:
    return f"<{tag}>{escape(visible(text))}</{tag}>" if text else ""
