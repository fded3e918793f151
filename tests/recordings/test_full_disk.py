"""On a full disk nothing can be published, and removing a recording gives its space back."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neuromas import Recording, RecordingStore
from neuromas.errors import StorageFailed


def recording(name: str, n_samples: int = 3000) -> Recording:
    activity = np.random.default_rng(0).normal(size=(n_samples, 20)).astype("f4")
    return Recording.from_arrays(activity, {"count": np.arange(n_samples) % 3}, name=name)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mounted)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting a file system of 2 MB needs rights that this user lacks")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def fill(folder: Path) -> None:
    """Leave not a byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@pytest.mark.parametrize("name", ["k/first", "k"])
def test_a_removal_frees_a_disk_that_is_full(small_disk, name):
    store = RecordingStore(small_disk / "store")
    store.register([recording("first"), recording("second")], set="k")
    fill(small_disk)
    with pytest.raises(StorageFailed, match="no space left on the disk; nothing was published"):
        store.register(recording("third"), set="k")
    assert store.remove(name) == (["k/first"] if "/" in name else ["k/first", "k/second"])
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize > 200_000
    assert [entry.name for entry in store.list()] == (["k/second"] if "/" in name else [])
    assert store.verify() == []
    store.register(recording("third", 300), set="k")
    assert "k/third" in [entry.name for entry in store.list()]
    assert store.verify() == []


@pytest.mark.parametrize("new_names", [True, False])
def test_a_disk_that_refuses_every_write_until_there_is_room(tmp_path, monkeypatch, new_names):
    """As on a disk whose folders cannot even hold another name."""
    store = RecordingStore(tmp_path / "store")
    store.register([recording("first"), recording("second")], set="k")
    first = store.path / "k" / "first"

    def refuse_while_full(real):
        def call(*arguments, **options):
            if (first / "activity").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", refuse_while_full(os.fsync))
    if not new_names:
        monkeypatch.setattr(Path, "rename", refuse_while_full(Path.rename))
    assert store.remove("k/first") == ["k/first"]
    monkeypatch.undo()
    assert not first.exists()
    assert [entry.name for entry in store.list()] == ["k/second"]
    assert store.verify() == []


def test_a_removal_that_was_killed_on_a_full_disk_is_ended_by_the_next(tmp_path, monkeypatch):
    store = RecordingStore(tmp_path / "store")
    store.register([recording("first"), recording("second")], set="k")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="no space left"):
        store.remove("k/first")
    monkeypatch.undo()
    listed = {entry.name: entry.problem for entry in store.list()}
    assert "manifest.json is missing" in listed["k/first"]
    assert listed["k/second"] == ""
    assert store.remove("k/first") == ["k/first"]
    assert [entry.name for entry in store.list()] == ["k/second"]
    assert store.verify() == []
