"""A published recording's folder, and whether what was read in it belongs together.

A published folder never changes. It leaves its place whole, in one step, and never comes back. Therefore everything that was
read in it belongs together if the same file, not merely an equal one, is ``manifest.json`` before and after.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from neuromas.errors import Corrupt
from neuromas.files import sha256_bytes
from neuromas.recordings.store.layout import MANIFEST_FILE
from neuromas.schema.recording import RecordingManifest

Stamp = tuple[int, int, int, int]
"""Which file it is: device, inode, time of its last change in nanoseconds, size in bytes."""


def stamp_of(file: BufferedReader) -> Stamp:
    """The stamp of an open file. It is opened anew for each stamp, since network disks may otherwise tell an old one."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def manifest_stamp(folder: Path) -> Stamp | None:
    """The stamp of the manifest in `folder`; None if there is none that can be read."""
    try:
        with (folder / MANIFEST_FILE).open("rb") as file:
            return stamp_of(file)
    except OSError:
        return None


@dataclass(eq=False)
class Published:
    """A recording as it lay in its set when its manifest was read.

    Attributes
    ----------
    name : str
        ``SET/RECORDING``.
    folder : Path
    manifest : RecordingManifest
    manifest_sha256 : str
    stamp : tuple of int
        Of the manifest's file.
    """

    name: str
    folder: Path
    manifest: RecordingManifest
    manifest_sha256: str
    stamp: Stamp

    def unchanged(self) -> bool:
        """Whether what was read since the manifest, or since the last call, belongs to this recording; if not, read it again.

        Raises
        ------
        Corrupt
            The recording was removed or replaced.
        """
        try:
            with (self.folder / MANIFEST_FILE).open("rb") as file:
                now = stamp_of(file)
                if now == self.stamp:
                    return True
                problem = "" if sha256_bytes(file.read()) == self.manifest_sha256 else "is another"
        except FileNotFoundError:
            problem = "is missing"
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        if problem:
            raise Corrupt(
                f"recording {self.name!r} was removed or replaced after it was opened ({MANIFEST_FILE} {problem}); open it again",
                kind="replaced",
            )
        self.stamp = now
        return False
