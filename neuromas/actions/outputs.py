"""Outputs are checked before work begins: a folder that is a file, a place that cannot be written, a full disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from neuromas.errors import InvalidInput, StorageFailed
from neuromas.files import local_path

ROOM = 16 * 2**20
"""Bytes that must be free: a result, a checkpoint and a report."""


def check_folder(out: str | Path) -> Path:
    """`out` as a path, if results can be written into it; nothing is made.

    Raises
    ------
    InvalidInput
        It is a file, or looks like a URL.
    StorageFailed
        It cannot be written, or the disk is full.
    """
    out = _named(out)
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"{out}: expected a folder to write to, got a file", kind="not_a_folder")
    _check_room(out)
    return out


def check_file(out: str | Path) -> Path:
    """`out` as a path, if a file can be written there; nothing is made.

    Raises
    ------
    InvalidInput
        It is a folder, or looks like a URL.
    StorageFailed
        It cannot be written, or the disk is full.
    """
    out = _named(out)
    if out.is_dir():
        raise InvalidInput(f"{out}: expected a file to write, got a folder", kind="not_a_file")
    _check_room(out.parent)
    return out


def _named(out: str | Path) -> Path:
    """`out` as a path; StorageFailed if the system does not take its name."""
    path = local_path(out)
    try:
        path.exists()
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}") from error
    return path


def _check_room(folder: Path) -> None:
    """Whether something can be written into `folder`, or into the nearest folder above it that exists."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
    except OSError as error:
        raise StorageFailed(f"{folder}: {error.strerror or error}") from error
    if not there.is_dir():
        raise InvalidInput(f"{folder}: {there} is a file, so no folder can be made in it", kind="not_a_folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageFailed(f"{folder}: no permission to write in {there}")
    free = shutil.disk_usage(there).free
    if free < ROOM:
        raise StorageFailed(f"{folder}: {free / 2**20:.1f} MiB are free, expected at least {ROOM / 2**20:.0f} MiB")
