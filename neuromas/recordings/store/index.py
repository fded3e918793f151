"""What a store holds: ``set.json`` of each set, manifests, and the list of recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuromas import dims
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NeuromasError, NotFound, suggestion
from neuromas.files import sha256_bytes
from neuromas.recordings.store.layout import MANIFEST_FILE, SET_FILE, is_name, orphans, recordings_in, set_folders
from neuromas.schema.document import FORMAT_VERSION
from neuromas.schema.recording import RecordingManifest, RecordingSetIndex, SetEntry

_LISTED = 20  # names in an error message


@dataclass(frozen=True)
class RecordingEntry:
    """A recording as a store lists it.

    ``n_samples`` and ``n_units`` are 0 if the recording could not be read; `problem` then says why.
    """

    set: str
    recording: str
    n_samples: int = 0
    n_units: int = 0
    access: str = ""
    system: str = ""
    task: str = ""
    variables: tuple[str, ...] = ()
    size: int = 0
    """Bytes on disk."""
    problem: str = ""

    @property
    def name(self) -> str:
        """``SET/RECORDING``."""
        return f"{self.set}/{self.recording}"


def entries(root: Path) -> list[RecordingEntry]:
    """Every recording, by set and name; a damaged recording is listed with its problem."""
    listed: list[RecordingEntry] = []
    for set_name, names in names_by_set(root).items():
        if isinstance(names, NeuromasError):
            listed.append(RecordingEntry(set_name, "?", problem=names.message))
        else:
            listed += [_entry(root, set_name, name) for name in names]
    return listed


def names_by_set(root: Path) -> dict[str, list[str] | NeuromasError]:
    """Names of the recordings of each set, or the error that its ``set.json`` gives; manifests are not read."""
    names: dict[str, list[str] | NeuromasError] = {}
    for folder in set_folders(root):
        try:
            names[folder.name] = sorted(read_index(root, folder.name).recordings)
        except (Corrupt, InvalidInput) as error:
            names[folder.name] = error
    return names


def read_index(root: Path, set_name: str) -> RecordingSetIndex:
    """The set's ``set.json``.

    Raises
    ------
    NotFound
        There is no such set.
    Corrupt
        The file is damaged, or is missing though recordings lie beside it.
    InvalidInput
        A newer neuromas wrote it.
    """
    file = root / set_name / SET_FILE
    try:
        text = file.read_bytes()
        refuse_newer(text, file)
        return RecordingSetIndex.parse(text, str(file))
    except (FileNotFoundError, NotADirectoryError):
        orphaned = orphans(root, set_name)
        if orphaned:
            raise Corrupt(
                f"{file} is gone, though recordings lie beside it: {', '.join(orphaned)}; put it back from a copy, or "
                f"remove {set_name!r} as a whole"
            ) from None
        raise no_such_set(root, set_name) from None
    except InvalidDocument as error:
        raise Corrupt(f"{file} is damaged: {'; '.join(error.problems)}") from error
    except OSError as error:
        raise Corrupt(f"{file} cannot be read: {error}") from error


def members(root: Path, set_name: str) -> dict[str, SetEntry]:
    """The recordings that the set holds; none if there is no such set."""
    try:
        return dict(read_index(root, set_name).recordings)
    except NotFound:
        return {}


def members_or_present(root: Path, set_name: str) -> Mapping[str, SetEntry | None]:
    """What ``set.json`` names; if it is damaged or gone, every recording that lies in the set's folder."""
    try:
        return read_index(root, set_name).recordings
    except Corrupt:
        return dict.fromkeys(recordings_in(root / set_name))


def read_manifest(root: Path, set_name: str, name: str) -> RecordingManifest:
    """The manifest, once its bytes are known to be those that the set names."""
    file = root / set_name / name / MANIFEST_FILE
    members = read_index(root, set_name).recordings
    if name not in members:
        raise no_such_recording(root, set_name, name, list(members))
    try:
        text = file.read_bytes()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise Corrupt(f"recording '{set_name}/{name}': {MANIFEST_FILE} {reason}") from error
    if sha256_bytes(text) != members[name].manifest_sha256:
        raise Corrupt(f"recording '{set_name}/{name}': {MANIFEST_FILE} is not the file that was written")
    refuse_newer(text, file)
    try:
        return RecordingManifest.parse(text, str(file))
    except InvalidDocument as error:
        raise Corrupt(f"recording '{set_name}/{name}': {error.message}") from error


def refuse_newer(text: bytes, file: Path) -> None:
    """InvalidInput if a newer neuromas wrote the document, which would else look damaged."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # damaged, which the schema reports
        return
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InvalidInput(
            f"{file} was written by a newer neuromas (format version {version}; this one reads up to {FORMAT_VERSION})",
            kind="newer_format",
        )


# ---------------------------------------------------------------------------------------------------------------- names


def parse_name(root: Path, name: str) -> tuple[str, str]:
    """(set, recording) of ``SET/RECORDING``, which must exist."""
    parts = name.split("/")
    if len(parts) != 2 or not all(map(is_name, parts)):
        full_names = _full_names(root)
        raise InvalidInput(
            f"expected SET/RECORDING, got {name!r}; {_holdings(full_names)}{suggestion(name, full_names)}",
            kind="invalid_name",
        )
    set_name, recording_name = parts
    members = read_index(root, set_name).recordings
    if recording_name not in members:
        raise no_such_recording(root, set_name, recording_name, list(members))
    return set_name, recording_name


def no_such_recording(root: Path, set_name: str, name: str, members: Sequence[str]) -> NotFound:
    """The error for a recording that the set does not hold; it ends with the nearest name."""
    return NotFound(
        f"set {set_name!r} of {root} has no recording {name!r}; it has {_some(sorted(members))}{suggestion(name, members)}",
        kind="unknown_recording",
    )


def no_such_set(root: Path, set_name: str) -> NotFound:
    """The error for a set that the store does not hold; it ends with the nearest name."""
    nearest = suggestion(set_name, [folder.name for folder in set_folders(root)])
    return NotFound(
        f"no recording set {set_name!r} in {root}; {_holdings(_full_names(root))}{nearest}", kind="unknown_set"
    )


def _full_names(root: Path) -> list[str]:
    """``SET/RECORDING`` of everything, ``SET/?`` for a set whose ``set.json`` cannot be read."""
    return [
        f"{set_name}/{name}"
        for set_name, names in names_by_set(root).items()
        for name in (["?"] if isinstance(names, NeuromasError) else names)
    ]


def _holdings(full_names: Sequence[str]) -> str:
    return f"recordings are {_some(full_names)}" if full_names else "the store is empty"


def _some(names: Sequence[str]) -> str:
    """Names for an error message, which need not list hundreds."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _entry(root: Path, set_name: str, name: str) -> RecordingEntry:
    try:
        manifest = read_manifest(root, set_name, name)
        metadata = json.loads((root / set_name / name / dims.ACTIVITY / "zarr.json").read_text(encoding="utf-8"))
        n_samples, n_units = metadata["shape"]
    except (Corrupt, InvalidInput) as error:
        return RecordingEntry(set_name, name, problem=error.message)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return RecordingEntry(set_name, name, problem=f"{dims.ACTIVITY}/zarr.json cannot be read: {error}")
    return RecordingEntry(
        set=set_name,
        recording=name,
        n_samples=n_samples,
        n_units=n_units,
        access=manifest.access,
        system=manifest.system,
        task=manifest.task,
        variables=tuple(variable.name for variable in manifest.variables),
        size=sum(entry.size for entry in manifest.files.values()),
    )
