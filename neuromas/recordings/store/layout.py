"""What lies where in a store: the names of files and folders, and the journal.

Every function takes `root`, the store's folder, or a path, and reads the disk without changing it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from neuromas.errors import InvalidInput
from neuromas.schema.document import NAME_PATTERN

SET_FILE = "set.json"
MANIFEST_FILE = "manifest.json"
GROUPS_FILE = "groups.json"
PRIVATE_FOLDER = ".neuromas"

PACKAGE = Path(__file__).resolve().parents[2]
"""Where neuromas is installed. Its own sets lie in it, or beside it in a checkout."""


def is_store(path: Path) -> bool:
    """Whether `path` is a folder that holds recording sets, or has held some."""
    return path.is_dir() and ((path / PRIVATE_FOLDER).is_dir() or any(path.glob(f"*/{SET_FILE}")))


def is_vacant(path: Path) -> bool:
    """Whether a store may be started here: nothing there, or nothing but a README and hidden files."""
    if not path.exists():
        return True
    return path.is_dir() and all(entry.is_file() and entry.name.startswith((".", "README")) for entry in path.iterdir())


def building_folder(root: Path, set_name: str, name: str) -> Path:
    """Where a recording is built before it is published."""
    return root / PRIVATE_FOLDER / "building" / set_name / name


def draft_file(root: Path, set_name: str) -> Path:
    """Where a set's ``set.json`` and journal are written before they replace the old one."""
    return root / PRIVATE_FOLDER / "building" / set_name / f".{SET_FILE}"


def journal_file(root: Path, set_name: str) -> Path:
    """The set's journal: the recordings that a call is about to publish or remove."""
    return root / PRIVATE_FOLDER / "pending" / f"{set_name}.json"


def read_journal(root: Path, set_name: str) -> list[str]:
    """Names of the recordings on their way into the set or out of it."""
    try:
        names = json.loads(journal_file(root, set_name).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in names if is_name(name)] if isinstance(names, list) else []


def set_folders(root: Path) -> list[Path]:
    """Folders of the sets, including those that lost their ``set.json``."""
    return sorted(
        folder
        for folder in _entries(root)
        if is_name(folder.name) and ((folder / SET_FILE).exists() or orphans(root, folder.name))
    )


def orphans(root: Path, set_name: str) -> list[str]:
    """Recordings that lie in a set without a ``set.json``, and are not on their way into it or out of it."""
    folder = root / set_name
    if (folder / SET_FILE).exists():
        return []
    present = recordings_in(folder)
    moving = read_journal(root, set_name) if present else []
    # Looked at again, since the call that wrote the journal may have ended before the journal was read.
    orphaned = [name for name in present if name not in moving and is_recording(folder / name)]
    return [] if (folder / SET_FILE).exists() else orphaned


def recordings_in(folder: Path) -> list[str]:
    """Names of the recordings that lie in a set's folder, whether ``set.json`` names them or not."""
    return sorted(path.name for path in _entries(folder) if is_name(path.name) and is_recording(path))


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing if it is gone, which another process may bring about at any time."""
    try:
        return [*folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_recording(folder: Path) -> bool:
    """Whether a recording lies in `folder`."""
    return folder.is_dir() and not folder.is_symlink() and (folder / MANIFEST_FILE).is_file()


def is_name(name: object) -> bool:
    """Whether a set or a recording can be called `name`."""
    # fullmatch, since Python's $ also matches before a newline at the end
    return isinstance(name, str) and len(name) <= 100 and re.fullmatch(NAME_PATTERN, name) is not None


def check_names(set_name: str, names: list[str]) -> None:
    """InvalidInput if a name of the set or of its new recordings cannot be used, or two recordings share one."""
    if not names:
        raise InvalidInput("expected at least one recording to register, got none", kind="no_recordings")
    for noun, name in (("set", set_name), *(("recording", name) for name in names)):
        if not is_name(name) or name == SET_FILE:
            raise InvalidInput(
                f"{noun} name {name!r}: expected letters, digits, '.', '_' or '-', at most 100, starting with a letter "
                f"or digit, and not {SET_FILE!r}",
                kind="invalid_name",
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"two recordings of one call have the same name: {', '.join(twice)}", kind="duplicate_name")
