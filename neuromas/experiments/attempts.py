"""Who works on a job: one process at a time, with a line in ``attempts.csv`` for each time that somebody began."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from neuromas.files import file_lock

ATTEMPTS = "attempts.csv"
"""One line for each time that a process began, or resumed, the work: when, on which machine, in which process, at which
iteration."""

Report = Callable[[int, int, str], None]
"""Called with (iteration, iteration limit, message) while work goes on; raises `Stopped` to end the work."""


class Stopped(Exception):
    """The work was asked to end; its last checkpoint stays."""


@contextmanager
def held(folder: Path, report: Report) -> Iterator[None]:
    """Let only one process at a time work in `folder`; others wait.

    The system releases the lock when the process dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock", wait=True, waiting=lambda: report(0, 1, "waiting: another process works on it")):
        yield


class Attempt:
    """Writes a line to ``attempts.csv`` when this process has done its first iteration.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._written = folder / ATTEMPTS, False

    def at(self, iteration: int) -> None:
        """Note that this process has done `iteration`; only the first call writes."""
        if self._written:
            return
        self._written = True
        header = "" if self._path.exists() else "began,machine,process,from_iteration\n"
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{header}{began},{socket.gethostname()},{os.getpid()},{iteration - 1}\n")
