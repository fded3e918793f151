"""Temporary folders and marked processes go with the process that made them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuromas.scratch import BELONGS_TO, scratch_folder

PARENT = f"""
import os, subprocess, sys, time
from neuromas.scratch import BELONGS_TO, scratch_folder
with scratch_folder("neuromas-test-") as folder:
    (folder / "spilt").write_bytes(b"x" * 1000)
    child = subprocess.Popen(["sleep", "300"], env={{**os.environ, {BELONGS_TO!r}: str(folder)}}, start_new_session=True)
    print(folder, child.pid, flush=True)
    time.sleep(300)
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("kill", ["process", "group"])
def test_after_a_kill(tmp_path, kill):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as parent:
        name, child = parent.stdout.readline().split()
        assert Path(name, "spilt").is_file()
        assert alive(int(child))
        if kill == "process":
            parent.kill()
        else:
            os.killpg(parent.pid, signal.SIGKILL)
    until(lambda: not alive(int(child)))
    until(lambda: list(tmp_path.iterdir()) == [])


def test_after_an_error_and_processes_of_others_stay(tmp_path):
    other = subprocess.Popen(["sleep", "300"], env={**os.environ, BELONGS_TO: str(tmp_path / "elsewhere")})
    try:
        with contextlib.suppress(ZeroDivisionError), scratch_folder("neuromas-", tmp_path) as folder:
            (folder / "file").touch()
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
