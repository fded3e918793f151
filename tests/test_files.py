"""Files and folders: hashes, locks, names."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from neuromas.errors import StorageFailed
from neuromas.files import file_lock, name_from, remove_drafts, sha256_file, sha256_folder, write_atomically
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


# ---------------------------------------------------------------------------------------- what killed writers leave


def _write(path: Path, started: Any) -> None:
    """Write a file, and hang when it is to be made durable."""

    def hang(_: int) -> None:
        started.set()
        time.sleep(60)

    os.fsync = hang
    write_atomically(path, b"new" * 1000)


@pytest.fixture
def writing(tmp_path):
    """A process in the middle of writing `content.json`; the old content is there."""
    (tmp_path / "content.json").write_bytes(b"old")
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_write, args=(tmp_path / "content.json", started))
    process.start()
    assert started.wait(30)
    yield process
    process.kill()
    process.join(30)


def drafts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".neuromas-*.part"))


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, writing):
    for name in (".content.json.abc.part", "video.mp4.part", ".neuromas-notes", "neuromas-x.part"):
        (tmp_path / name).write_text("of somebody else")
    (half,) = drafts(tmp_path)
    write_atomically(tmp_path / "other.json", "{}")
    assert drafts(tmp_path) == [half]
    os.kill(writing.pid, signal.SIGKILL)
    writing.join(30)
    assert drafts(tmp_path) == [half]
    assert (tmp_path / "content.json").read_bytes() == b"old"
    write_atomically(tmp_path / "other.json", "{}")
    names = {".content.json.abc.part", "video.mp4.part", ".neuromas-notes", "neuromas-x.part"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"content.json", "other.json"}


def test_a_link_called_like_a_draft_leaves_its_target(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".neuromas-link.part").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "content", b"new")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_draft_that_another_writer_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    makes = tempfile.mkstemp
    calls = []

    def removed(**options: Any) -> tuple[int, str]:
        descriptor, name = makes(**options)
        if not calls:
            remove_drafts(tmp_path)
        calls.append(name)
        return descriptor, name

    monkeypatch.setattr(tempfile, "mkstemp", removed)
    write_atomically(tmp_path / "content", b"new")
    assert len(calls) == 2
    assert (tmp_path / "content").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["content"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((error, StorageFailed)):
        write_atomically(tmp_path / "content", b"new")
    assert not list(tmp_path.iterdir())


def test_many_writers_of_one_folder_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from neuromas.files import write_atomically\n"
        "for n in range(60): write_atomically(Path(sys.argv[1], f'{sys.argv[2]}-{n}'), sys.argv[2] * 1000)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{name}-{number}": name * 1000 for name in "abc" for number in range(60)
    }
