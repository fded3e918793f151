"""Files that are whole or absent: atomic writes, hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from neuromas.errors import StorageFailed


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of the file at `path` in hexadecimal, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        Its folder is made if need be.
    data : bytes, memoryview or str
        Text is written as UTF-8.

    Raises
    ------
    StorageFailed
        The disk refused (full, read-only, no permission); `path` is as it was.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise StorageFailed(f"could not write {path}: {error.strerror or error}") from error
