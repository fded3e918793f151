"""A progress bar for long work: a bar in a terminal or a notebook, elsewhere a line every half minute."""

from __future__ import annotations

import time
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from neuromas.text import visible

_LINE_EVERY_S = 30.0
"""Between two lines where no bar can be drawn."""
_DRAW_EVERY_S = 0.2
"""Between two drawings in a notebook."""


def can_draw(console: Console) -> bool:
    """Whether a bar can be drawn: in a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter


class Bar:
    """Shows the progress of long work.

    Parameters
    ----------
    title : str
    total : int or None
        Expected number of iterations; None if unknown.
    console : rich.console.Console, optional
        Standard error by default.
    """

    def __init__(self, title: str, total: int | None, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._title, self._total = visible(title, lines=False), total
        # when a line or a notebook's bar was last written
        self._written = time.monotonic()
        self._task = TaskID(0)
        self._bar: Progress | None = None
        self._cell: _NotebookBar | None = None
        if self._console.is_jupyter:
            self._cell = _NotebookBar()
        elif self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(12),
                TextColumn("{task.completed:.0f}{task.fields[of]}"),
                TextColumn("{task.fields[message]}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(title, total=total, of=self._of, message="preparing")

    @property
    def _of(self) -> str:
        return "" if self._total is None else f"/{self._total}"

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        elif self._cell is not None:
            self._cell.draw(self._title, 0, self._total, "preparing")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, iteration: int, message: str, total: int | None = None) -> None:
        """Show the iteration and a message.

        Parameters
        ----------
        iteration : int
        message : str
            Shown beside the bar: losses, accuracy, time left.
        total : int, optional
            The expected number of iterations, if it has changed.
        """
        if total is not None:
            self._total = total
        elapsed = time.monotonic() - self._written
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, total=self._total, of=self._of, message=message)
        elif self._cell is not None and elapsed >= _DRAW_EVERY_S:
            self._written = time.monotonic()
            self._cell.draw(self._title, iteration, self._total, message)
        elif self._cell is None and elapsed >= _LINE_EVERY_S:
            self._written = time.monotonic()
            self._print(f"{self._title} {iteration}{self._of} {message}")

    def finish(self, iteration: int, message: str) -> None:
        """Fill the bar at `iteration` and show how the work ended."""
        self._total = max(iteration, 1)
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, total=self._total, of=self._of, message=message)
        elif self._cell is not None:
            self._cell.draw(self._title, iteration, self._total, message)
        else:
            self._print(f"{self._title} {iteration} {message}")

    def _print(self, line: str) -> None:
        self._console.print(visible(line), markup=False, highlight=False, soft_wrap=True)


class _NotebookBar:
    """A bar in the output of a notebook's cell, without widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, title: str, iteration: int, total: int | None, message: str) -> None:
        # there wherever a console is in a notebook
        ipython = import_module("IPython.display")
        of = "" if total is None else f"/{total}"
        extent = "" if total is None else f' value="{iteration}" max="{max(total, 1)}"'
        html = ipython.HTML(
            f"<div>{escape(title)} <progress{extent}></progress> {iteration}{of} {escape(message)}</div>"
        )
        if self._handle is None:
            self._handle = ipython.display(html, display_id=True)
        else:
            self._handle.update(html)
