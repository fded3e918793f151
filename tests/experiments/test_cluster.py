"""Workers that are killed while the cluster of a sweep starts."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from neuromas.errors import NeuromasError
from neuromas.experiments.cluster import connected

pytest.importorskip("distributed")


def starting_workers() -> list[int]:
    """Processes that multiprocessing spawned from this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and "spawn_main" in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.fixture
def killing(tmp_path, monkeypatch):
    """Kill so many of the workers that begin."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = threading.Event()
    before = set(starting_workers())
    threads = []

    def kill(most: int) -> None:
        killed: set[int] = set()
        while not ended.is_set() and len(killed) < most:
            for process in set(starting_workers()) - before - killed:
                os.kill(process, signal.SIGKILL)
                killed.add(process)
            time.sleep(0.01)

    def start(most: int) -> None:
        threads.append(threading.Thread(target=kill, args=(most,)))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()
    assert list(tmp_path.glob("neuromas-*")) == []


def test_one_that_is_killed_is_started_again(killing):
    killing(1)
    with connected(None, 1, 1) as (client, n_workers):
        assert n_workers == 1
        assert client.submit(int, "7", pure=False).result(timeout=60) == 7


def test_a_cluster_that_never_starts_is_one_error(killing):
    killing(1000)
    with pytest.raises(NeuromasError, match="did not start, 3 times") as caught, connected(None, 1, 1):
        pass
    assert caught.value.kind == "no_workers"
