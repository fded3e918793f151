"""Stored files against what was written: presence, size, and SHA-256."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from neuromas.errors import Corrupt, NotFound
from neuromas.files import sha256_file
from neuromas.recordings.store.index import no_such_set, parse_name, read_index, read_published
from neuromas.recordings.store.layout import MANIFEST_FILE, SET_FILE, set_folders
from neuromas.recordings.store.published import Published
from neuromas.schema.document import FileEntry


@dataclass(frozen=True)
class FileProblem:
    """A stored file that is not what was written."""

    recording: str
    """``SET/RECORDING``, or the set's name if its ``set.json`` is damaged."""
    file: str
    """Path relative to the store."""
    problem: str

    def __str__(self) -> str:
        return f"{self.recording}: {self.file}: {self.problem}"


def store_problems(root: Path, name: str | None = None) -> list[FileProblem]:
    """Every problem of a recording (``SET/RECORDING``), of a set (``SET``), or of the whole store."""
    if name is not None and "/" in name:
        return recording_problems(root, *parse_name(root, name))
    sets = [folder.name for folder in set_folders(root)]
    if name is not None and name not in sets:
        raise no_such_set(root, name)
    problems: list[FileProblem] = []
    for set_name in sets if name is None else [name]:
        try:
            index = read_index(root, set_name)
        except NotFound:  # removed meanwhile
            continue
        except Corrupt as error:
            problems.append(FileProblem(set_name, f"{set_name}/{SET_FILE}", error.message))
            continue
        for recording_name in sorted(index.recordings):
            with contextlib.suppress(NotFound):  # removed meanwhile
                problems += recording_problems(root, set_name, recording_name)
    return problems


def recording_problems(root: Path, set_name: str, name: str) -> list[FileProblem]:
    """Every file of a recording that is missing, changed, or was not written by neuromas."""
    try:
        return read_published(root, set_name, name, folder_problems)
    except Corrupt as error:
        full = f"{set_name}/{name}"
        return [FileProblem(full, f"{full}/{MANIFEST_FILE}", error.message)]


def folder_problems(published: Published) -> list[FileProblem]:
    """`recording_problems` of a recording whose manifest was read."""
    full, folder, files = published.name, published.folder, published.manifest.files
    problems = []
    for file, entry in files.items():
        problem = _file_problem(folder / PurePosixPath(file), entry)
        if problem:
            problems.append(FileProblem(full, f"{full}/{file}", problem))
    # os.walk, since another process may take the folder away
    for path in sorted(Path(base, file) for base, _, names in os.walk(folder) for file in names):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative != MANIFEST_FILE and relative not in files:
            problems.append(FileProblem(full, f"{full}/{relative}", "was not written by neuromas"))
    return problems


def check_presence(published: Published) -> None:
    """Corrupt if a file of the recording is missing or has another size; metadata, which has no checksum, is hashed."""
    problems = []
    for file, entry in published.manifest.files.items():
        problem = _file_problem(published.folder / PurePosixPath(file), entry, hashed=file.endswith(".json"))
        if problem:
            problems.append(f"{file} {problem}")
    if problems:
        raise Corrupt(f"recording {published.name!r} cannot be read: {'; '.join(problems)}")


def _file_problem(path: Path, entry: FileEntry, hashed: bool = True) -> str:
    """What is wrong with one file, or nothing."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"has {size} bytes, expected {entry.size}"
        if hashed and sha256_file(path) != entry.sha256:
            return "does not have the bytes that were written (SHA-256 differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""
