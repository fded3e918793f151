"""The terminal: results to standard output, everything else to standard error, tables that fold rather than cut."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from neuromas.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

WARNED: set[str] = set()
"""Warnings of this command so far."""

SHOWN_VALUES = 12
"""Values, or units, that a table shows of many."""

_WHOLE_NAME = 40  # columns; longer names fold on a terminal
_WIDE = 100_000  # columns of what is not a terminal: nothing is cut or wrapped for a program


_SPELLED = {
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "≈": "~",
    "±": "+-",
    "µ": "u",
}
_BYTES = range(0xDC80, 0xDD00)
"""Lone surrogates that stand for bytes of file names that are not UTF-8."""


def spell_out() -> None:
    """From now on, write characters that the terminal's encoding does not have in others: ``x`` for ``×``, ``\\xe9`` for ``é``.

    Otherwise a command would fail when its work is done, because its last line cannot be written.
    """
    codecs.register_error("neuromas.spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="neuromas.spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character) or _escaped(character) for character in characters), error.end


def _escaped(character: str) -> str:
    if ord(character) in _BYTES:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode("ascii")


def output(stderr: bool = False) -> Console:
    """A console for results, or for everything else."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def text(message: object, style: str = "") -> Any:
    """`message` as it is, brackets included; what would steer the terminal is shown as codes."""
    from rich.text import Text

    return Text(visible(message), style)


def say(message: str, style: str = "") -> None:
    """A result as a line on standard output."""
    output().print(text(message, style), soft_wrap=True)


def tell(message: str, style: str = "") -> None:
    """Something that is no result, as a line on standard error."""
    output(stderr=True).print(text(message, style), soft_wrap=True)


def warn(message: object) -> None:
    """A warning on standard error; once, although a result may repeat what was said while it was made."""
    if str(message) not in WARNED:
        tell(f"warning: {message}", "yellow")
    WARNED.add(str(message))


def stop(message: str) -> NoReturn:
    """End after Ctrl-C, with a message."""
    tell(message, "yellow")
    raise typer.Exit(INTERRUPTED)


def stop_at(checkpoint: Path) -> NoReturn:
    """End after Ctrl-C; say whether the same command goes on from `checkpoint`."""
    if checkpoint.is_file():
        stop(f"Interrupted. {checkpoint} is kept; the same command goes on from there.")
    stop("Interrupted before the first checkpoint; the same command starts anew.")


def table(*columns: str, header: bool = True) -> Table:
    """A table; a column whose name ends in ``>`` stands to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, show_header=header, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith(" >")
        made.add_column(text(column.removesuffix(" >")), justify="right" if right else "left", overflow="fold")
    return made


def row(table: Table, *cells: object) -> None:
    """Add a row; the first column is not made narrower than its names need."""
    name = table.columns[0]
    shown = [visible(cell, lines=False) for cell in cells]
    name.min_width = max(name.min_width or 0, min(len(shown[0]), _WHOLE_NAME))
    table.add_row(*(text(cell) for cell in shown))


def show(table: Table) -> None:
    """Print a table; into a pipe without trailing blanks and empty lines."""
    console = output()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as rendered:
        console.print(table)
    lines = (line.strip() for line in rendered.get().splitlines())
    sys.stdout.write("\n".join(line for line in lines if line) + "\n\n")


def fits(table: Table) -> bool:
    """Whether the terminal is wide enough for the table as it is."""
    from rich.measure import Measurement

    console = output()
    return Measurement.get(console, console.options.update_width(_WIDE), table).maximum <= console.width


def show_json(value: Any) -> None:
    """Print a JSON value on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def number(value: float | None) -> str:
    """Three digits after the point; a dash for what was not measured."""
    # no minus zero
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def contents(folder: Path) -> str:
    """The files in `folder` that a person should see."""
    return ", ".join(str(path) for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def counted(counts: Iterable[tuple[str, int]]) -> str:
    """``train 3, test 1``"""
    return ", ".join(f"{name} {count:,}" for name, count in counts)
