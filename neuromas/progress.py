"""A progress bar for long work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

_LINE_EVERY_S = 30.0  # where there is no terminal


def can_draw(console: Console) -> bool:
    """Whether a bar can be drawn: on a terminal, and in a notebook that has widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


class Bar:
    """Shows how far long work has come.

    Parameters
    ----------
    title : str
    total : int or None
        Iterations at most; None if nobody knows.
    console : rich.console.Console, optional
        Standard error by default.
    """

    def __init__(self, title: str, total: int | None, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._title, self._of = title, "" if total is None else f"/{total}"
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if can_draw(self._console):
            columns = (
                TextColumn("{task.description}"),
                BarColumn(12),
                TextColumn("{task.completed:.0f}{task.fields[of]}"),
                TextColumn("{task.fields[told]}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(title, total=total, of=self._of, told="preparing")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, iteration: int, told: str) -> None:
        """Show `iteration`, and `told` beside it: losses, accuracy, time left."""
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, told=told)
        elif time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{self._title} {iteration}{self._of} {told}", highlight=False, soft_wrap=True)

    def finish(self, iteration: int, told: str) -> None:
        """Say how it ended: the bar is full at `iteration`."""
        if self._bar is not None:
            n = max(iteration, 1)
            self._bar.update(self._task, completed=iteration, total=n, of=f"/{n}", told=told)
        else:
            self._console.print(f"{self._title} {iteration} {told}", highlight=False, soft_wrap=True)
