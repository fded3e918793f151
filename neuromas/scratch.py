"""Temporary folders that go even if the process that made them is killed, and worker processes with them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BELONGS_TO = "NEUROMAS_SCRATCH"
"""A process with this environment variable ends, at the latest, with the folder that the variable names."""

# Waits until the process that started it closes the pipe, or dies. It imports little, so that it starts at once.
_CARETAKER = """
import os, shutil, signal, sys, time
sys.stdin.buffer.read()
folder, mark = sys.argv[1], sys.argv[2].encode()
for _ in range(50):
    left = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                mine = mark in file.read().split(b"\\0")
            if mine:
                os.kill(int(process), signal.SIGKILL)
                left += 1
        except OSError:
            pass
    if not left:
        break
    time.sleep(0.1)
shutil.rmtree(folder, ignore_errors=True)
"""


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder that is deleted when the block ends, or when this process ends in any way.

    Processes whose environment holds `BELONGS_TO` with the folder's path are killed before.

    Parameters
    ----------
    prefix : str
        With which the folder's name begins.
    parent : Path, optional
        Where it lies; by default where temporary files lie.

    Examples
    --------
    >>> with scratch_folder("neuromas-example-") as folder:
    ...     folder.is_dir()
    True
    >>> folder.exists()
    False
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        command = [sys.executable, "-I", "-S", "-c", _CARETAKER, name, f"{BELONGS_TO}={name}"]
        # in a session of its own, so that Ctrl-C or a killed process group does not end it too
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
            yield Path(name)
