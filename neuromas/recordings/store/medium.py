"""The local folder that holds a store: what the commit does to it, one durable operation each."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from neuromas.errors import StorageFailed
from neuromas.files import file_lock, fsync_folder
from neuromas.recordings.store.layout import MANIFEST_FILE, PRIVATE_FOLDER, draft_file


def make_folders(path: Path) -> None:
    """Make `path` and whatever is above it, durably."""
    if path.is_dir():
        return
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), [path, *path.parents]))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def replace_file(root: Path, set_name: str, target: Path, text: str) -> None:
    """Replace a file in one step.

    `files.write_atomically` is not used, because the draft of a call that was killed must lie where the next call looks for it.
    """
    draft = draft_file(root, set_name)
    make_folders(draft.parent)
    try:
        with draft.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def discard(root: Path, path: Path) -> None:
    """Make `path` vanish in one step, then delete it at leisure; on a full disk, take its manifest away first."""
    if not path.exists() and not path.is_symlink():
        return
    grave = root / PRIVATE_FOLDER / "discarded" / secrets.token_hex(16)
    try:
        make_folders(grave.parent)
        path.rename(grave)
    except OSError as error:
        if not is_full(error):
            raise
        (path / MANIFEST_FILE).unlink(missing_ok=True)
        grave = path
    shutil.rmtree(grave, ignore_errors=True)


def is_full(error: OSError) -> bool:
    """Whether there was no space on the disk, or no more of it for this user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def store_lock(root: Path, *name: str, wait: bool = False) -> Iterator[bool]:
    """Hold the store's lock called `name`; yields False if another process holds it and `wait` is false."""
    file = root.joinpath(PRIVATE_FOLDER, "locks", *name)
    make_folders(file.parent)
    ignore = root / PRIVATE_FOLDER / ".gitignore"
    if not ignore.exists():
        with contextlib.suppress(OSError):  # a convenience
            ignore.write_text("*\n")
    with file_lock(file, wait=wait) as held:
        yield held


@contextlib.contextmanager
def disk_failures(root: Path, outcome: str = "") -> Iterator[None]:
    """Turn the disk's refusals into `StorageFailed`, whose message ends with the `outcome` of the call."""
    try:
        yield
    except StorageFailed:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if is_full(error):
            reason = "no space left on the disk"
        raise StorageFailed(f"cannot write to {root}: {reason}{outcome}") from error
