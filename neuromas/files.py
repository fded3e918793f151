"""Files and folders: atomic writes, hashes, locks, and names made from free text."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from neuromas.errors import InvalidInput, StorageFailed


def local_path(path: str | Path) -> Path:
    """`path` on this machine's disks, where a place to write is named.

    Raises
    ------
    InvalidInput
        It looks like a URL, which would become a folder of that name, ``s3:``; or it holds a NUL character.

    Examples
    --------
    >>> local_path("results/a:b").name
    'a:b'
    >>> local_path("s3://bucket/lab")
    Traceback (most recent call last):
    neuromas.errors.InvalidInput: 's3://bucket/lab' looks like a URL, and only folders of this machine can be used; name a folder
    """
    text = os.fspath(path)
    if "\0" in text:
        raise InvalidInput(f"{text!r}: the name of a file cannot hold a NUL character", kind="invalid_name")
    # of `Path("s3://bucket")` one slash is left
    if re.match(r"([a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE):
        folder = re.sub(r"^file:/+", "/", text)
        url = re.sub(r":/+", "://", text, count=1)
        raise InvalidInput(
            f"{url!r} looks like a URL, and only folders of this machine can be used; name a folder"
            + (f": {folder}" if folder != text else ""),
            kind="not_local",
        )
    return Path(path)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of the file at `path` in hexadecimal, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: str | Path, pattern: str = "**/*") -> str:
    """SHA-256 of the files in the folder `path`: of their hashes and names, in the order of the names.

    Parameters
    ----------
    path : path-like
    pattern : str
        Which files count, as in `pathlib.Path.glob`; all of them at any depth by default.

    Returns
    -------
    str
        The hash of the lines ``SHA256  NAME`` in hexadecimal. ``sha256sum`` prints these lines.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "b.txt").write_text("second"), Path(folder, "a.txt").write_text("first")
    ...     before = sha256_folder(folder)
    ...     Path(folder, "a.txt").rename(Path(folder, "c.txt")).name
    ...     sha256_folder(folder) == before
    (6, 5)
    'c.txt'
    False
    """
    folder = Path(path)
    files = sorted(file for file in folder.glob(pattern) if file.is_file())
    lines = (f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return sha256_bytes(os.fsencode("".join(lines)))


def readable_name(path: str | Path) -> str:
    """The name of a file as text that can be written anywhere: bytes that are not UTF-8 as ``\\xe9``.

    Examples
    --------
    >>> readable_name("data/café.npz"), readable_name(os.fsdecode(b"caf\\xe9.npz"))
    ('café.npz', 'caf\\\\xe9.npz')
    """
    return os.fsencode(Path(path).name).decode("utf-8", "backslashreplace")


def name_from(text: str, otherwise: str) -> str:
    """`text` as a name for a file, folder, recording or system; `otherwise` if nothing of it can stand in a name.

    A name has letters, digits, ``.``, ``_`` and ``-``, begins with a letter or digit, and has at most 100 characters.
    Everything else becomes ``-``.

    Examples
    --------
    >>> name_from("chick 11 (left).v2", "recording"), name_from("../…", "recording")
    ('chick-11-left-.v2', 'recording')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100] or otherwise


@contextlib.contextmanager
def file_lock(path: str | Path, *, wait: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock on the file at `path`, which is made if it is absent, in a folder that exists.

    Only one process at a time holds it. The operating system takes it back when its holder ends, even if that was killed.
    The file stays: if it were deleted, two processes could hold "the" lock.

    Parameters
    ----------
    path : path-like
    wait : bool
        Whether to wait while another process holds the lock.
    waiting : callable, optional
        Called five times per second while this process waits, for instance to report it or to stop.

    Yields
    ------
    bool
        Whether the lock is held: False if another process holds it and `wait` is false.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with file_lock(f"{folder}/lock") as first, file_lock(f"{folder}/lock") as second:
    ...         first, second
    (True, False)
    """
    with Path(path).open("ab") as handle:
        held = _locked(handle, block=wait and waiting is None)
        while wait and waiting is not None and not held:
            waiting()
            time.sleep(_POLL_S)
            held = _locked(handle, block=False)
        yield held


_POLL_S = 0.2


def _locked(handle: IO[bytes], block: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def fsync_folder(path: str | Path) -> None:
    """Make renames inside the folder `path` survive a power cut; of a file, its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | Path, data: bytes | memoryview | str) -> None:
    """Replace the file at `path` so that a reader, or a crash, sees the old content or the new, never a part.

    Parameters
    ----------
    path : path-like
        Its folder is made if need be. What a killed call left there is removed.
    data : bytes, memoryview or str
        Text is written as UTF-8.

    Raises
    ------
    StorageFailed
        The disk refused (full, read-only, no permission); `path` is as it was.
    InvalidInput
        `path` looks like a URL.
    """
    path = local_path(path)
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(path.parent)
        file, draft = _new_draft(path.parent)
        with file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            draft.chmod(0o644)  # mkstemp makes it private
            draft.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageFailed(f"could not write {path}: {error.strerror or error}") from error
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink()


_DRAFT = (".neuromas-", ".part")
"""How the name of a draft begins and ends: a file that is being written, or was when its writer was killed."""


def _new_draft(folder: Path) -> tuple[BinaryIO, Path]:
    """An empty draft in `folder`, whose lock this process holds as long as the file is open."""
    begin, end = _DRAFT
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=begin, suffix=end)
        file = os.fdopen(descriptor, "wb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_still(file, Path(name)):
            return file, Path(name)
        # another process took it for the draft of a dead writer before it was locked
        file.close()


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether `path` still names the open `file`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def remove_drafts(folder: Path) -> None:
    """Remove drafts in `folder` whose writers were killed: nothing that is being written, and no file of anybody else."""
    begin, end = _DRAFT
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        named = [entry for entry in entries if entry.name.startswith(begin) and entry.name.endswith(end)]
        for draft in [Path(entry) for entry in named if entry.is_file(follow_symlinks=False)]:
            # by the time its lock is free, it may have become the file that was written
            with contextlib.suppress(OSError), draft.open("rb") as file:
                if _locked(file, block=False) and _is_still(file, draft):
                    draft.unlink()
