"""Files and folders: hashes, locks, names."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import time

import pytest

from neuromas.files import file_lock, name_from, sha256_file, sha256_folder
from neuromas.schema.document import NAME_PATTERN


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.bin", "a.bin", "inner/c.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_the_hash_of_a_folder_is_that_of_what_sha256sum_prints(folder):
    listed = subprocess.run(
        ["sha256sum", "a.bin", "b.bin", "inner/c.txt"], cwd=folder, capture_output=True, check=True, timeout=10
    )
    (folder / "listed").mkdir()
    (folder / "listed" / "lines").write_bytes(listed.stdout)
    expected = sha256_file(folder / "listed" / "lines")
    (folder / "listed" / "lines").unlink()
    assert sha256_folder(folder) == expected


def test_the_hash_of_a_folder_changes_with_every_file_that_counts(folder):
    every, binary = sha256_folder(folder), sha256_folder(folder, "*.bin")
    (folder / "inner" / "c.txt").write_text("other")
    assert sha256_folder(folder) != every
    assert sha256_folder(folder, "*.bin") == binary
    (folder / "a.bin").rename(folder / "d.bin")
    assert sha256_folder(folder, "*.bin") != binary


@pytest.mark.parametrize(
    "text", ["", "…", "../../etc/passwd", "-rf", ".hidden", "a\nb", "x" * 300, "naïve name", "CON "]
)
def test_any_text_becomes_a_name(text):
    name = name_from(text, "recording")
    assert re.fullmatch(NAME_PATTERN, name)
    assert len(name) <= 100


def test_what_is_a_name_already_stays():
    assert name_from("guo2017_mouse-1.v2", "recording") == "guo2017_mouse-1.v2"


def _hold(path, started) -> None:
    with file_lock(path) as held:
        assert held
        started.set()
        time.sleep(60)


@pytest.fixture
def held_elsewhere(tmp_path):
    """A lock, and the process that holds it until it is killed."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", started))
    process.start()
    assert started.wait(30)
    yield tmp_path / "lock", process
    process.kill()
    process.join(30)


def test_a_lock_that_another_process_holds_is_free_when_that_was_killed(held_elsewhere):
    path, process = held_elsewhere
    with file_lock(path) as held:
        assert not held
    process.kill()
    with file_lock(path, wait=True) as held:
        assert held


def test_who_waits_is_called_and_gets_the_lock(held_elsewhere):
    path, process = held_elsewhere
    calls = []

    def waiting() -> None:
        calls.append(None)
        if len(calls) == 2:
            process.kill()

    with file_lock(path, wait=True, waiting=waiting) as held:
        assert held
    assert len(calls) >= 2
