"""How far a foreign file may unpack: a small file can hold petabytes of zeros.

A file may unpack to 1 GiB, or to 100 times its own size if that is more. `largest` lifts the limit for files that are really
that large. Every reader of a compressed format asks here before it reads, or while it does.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from neuromas.errors import InvalidInput

LEAST_BYTES = 2**30
"""Any file may unpack to this size."""

TIMES = 100
"""And to this many times its own size."""

_LEAST_MEMORY, _COPIES = 8 * 2**30, 4

_largest: ContextVar[int | None] = ContextVar("largest", default=None)
_BLOCK = 2**20


@contextmanager
def largest(gib: float | None) -> Iterator[None]:
    """Inside, files may unpack to `gib` GiB each; None changes nothing.

    Examples
    --------
    >>> with largest(20):
    ...     most_bytes(1000) / 2**30
    20.0
    """
    token = _largest.set(_largest.get() if gib is None else int(gib * 2**30))
    try:
        yield
    finally:
        _largest.reset(token)


def largest_now() -> float | None:
    """GiB to which files may unpack here and now; None if the file's own size decides."""
    limit = _largest.get()
    return None if limit is None else limit / 2**30


def most_bytes(stored: int) -> int:
    """Bytes to which `stored` bytes may unpack.

    Examples
    --------
    >>> most_bytes(1000) == 2**30, most_bytes(2**30) // 2**30
    (True, 100)
    """
    limit = _largest.get()
    return max(LEAST_BYTES, TIMES * stored) if limit is None else limit


def most_memory(stored: int) -> int:
    """Bytes of memory that reading `stored` bytes may take: 8 GiB and 4 times what they may unpack to, and what there is at most.

    Examples
    --------
    >>> most_memory(1000) <= 12 * 2**30
    True
    """
    allowed = _LEAST_MEMORY + _COPIES * most_bytes(stored)
    try:
        return min(allowed, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not every system says how much there is
        return allowed


def stored_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def check_unpacked(size: int, stored: int, where: object) -> None:
    """InvalidInput if `stored` bytes may not unpack to `size` bytes."""
    if size > most_bytes(stored):
        raise too_large(size, stored, where)


def too_large(size: int, stored: int, where: object, *, cut: bool = False) -> InvalidInput:
    """The error for `stored` bytes that unpack to `size` bytes, or, if reading was `cut`, to more."""
    limit = _largest.get()
    rule = f"{TIMES} times the file, and at least {LEAST_BYTES / 2**30:g} GiB" if limit is None else "largest_gib"
    return InvalidInput(
        f"{where}: {in_words(stored)} unpack to {'more than ' if cut else ''}{in_words(size)}, expected at most "
        f"{in_words(most_bytes(stored))} ({rule}); a file that is really that large is read with a higher largest_gib=",
        kind="too_large",
    )


def in_words(size: int) -> str:
    """A size for people.

    Examples
    --------
    >>> in_words(300), in_words(6 * 2**20), in_words(2**41)
    ('300 bytes', '6.0 MiB', '2,048.0 GiB')
    """
    if size < 2**20:
        return f"{size:,} bytes"
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


_OPEN: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_packed(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz, .bz2 or .xz; InvalidInput as soon as it is too large.

    Raises
    ------
    InvalidInput
        It unpacks to more than `most_bytes`.
    OSError, EOFError, zlib.error, lzma.LZMAError
        It is not packed in this way, is cut off, or is damaged.
    """
    if path.suffix not in _OPEN:
        return path.read_bytes()
    stored = stored_bytes(path)
    most, size, blocks = most_bytes(stored), 0, []
    with _OPEN[path.suffix](path) as file:
        while block := file.read(_BLOCK):
            size += len(block)
            if size > most:
                raise too_large(most, stored, path, cut=True)
            blocks.append(block)
    return b"".join(blocks)


def inflated_size(data: bytes | memoryview, most: int) -> int:
    """Bytes to which zlib's `data` unpacks, counted up to the first block beyond `most`; nothing is kept."""
    machine, size, rest = zlib.decompressobj(), 0, data
    while rest and size <= most and not machine.eof:
        size += len(machine.decompress(rest, _BLOCK))
        rest = machine.unconsumed_tail
    return size


def check_zip(path: Path) -> None:
    """InvalidInput if the members of a zip archive unpack to too much; their sizes are in its directory.

    Raises
    ------
    InvalidInput
        They do.
    zipfile.BadZipFile
        It is no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        check_unpacked(sum(member.file_size for member in archive.infolist()), stored_bytes(path), path)
