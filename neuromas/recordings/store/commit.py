"""How a store changes: all recordings of a call at once, or none.

A call holds the lock of each recording that it publishes or removes. It builds recordings under ``.neuromas/building``, reads
them back, and makes them durable. Then it takes the lock of the set, ends what a killed call left there, writes the journal,
moves the recordings into the set's folder, and replaces ``set.json``: that is the commit.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuromas.errors import Conflict, Corrupt, InvalidInput, StorageFailed
from neuromas.files import fsync_folder, sha256_bytes, sha256_file
from neuromas.recordings.content import content_sha256
from neuromas.recordings.recording import Recording
from neuromas.recordings.spool import Spool, pieces
from neuromas.recordings.store.arrays import open_group, restored, write_group, write_stream
from neuromas.recordings.store.index import members, members_or_present, read_index
from neuromas.recordings.store.layout import (
    GROUPS_FILE,
    MANIFEST_FILE,
    PRIVATE_FOLDER,
    SET_FILE,
    building_folder,
    is_recording,
    journal_file,
    read_journal,
)
from neuromas.recordings.store.medium import discard, disk_failures, is_full, make_folders, replace_file, store_lock
from neuromas.schema.document import FileEntry
from neuromas.schema.recording import RecordingManifest, RecordingSetIndex, SetEntry

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

# ------------------------------------------------------------------------------------------------------ a call from start to end


def register_recordings(root: Path, set_name: str, recordings: Sequence[Recording], group_by: Sequence[str]) -> None:
    """Build the recordings that the set does not hold yet, and publish them."""
    by_name = {recording.manifest.name: recording for recording in recordings}
    with _publishing(root, set_name, by_name):
        built: dict[str, SetEntry] = {}
        try:
            if group_by:
                for name, recording in by_name.items():
                    built |= _build_stream(root, set_name, name, pieces(recording), group_by, whole_trials=False)
            else:
                for name, recording in _not_published(root, set_name, by_name).items():
                    built[name] = _build(root, set_name, recording)
            if built:
                publish(root, set_name, built)
        finally:
            for name in by_name:
                discard(root, building_folder(root, set_name, name))


def register_stream(root: Path, set_name: str, name: str, blocks: Iterable[Recording], group_by: Sequence[str]) -> None:
    """Build one recording from blocks, and publish it if the set does not hold it yet."""
    with _publishing(root, set_name, [name]):
        try:
            built = _build_stream(root, set_name, name, blocks, group_by)
            if built:
                publish(root, set_name, built)
        finally:
            discard(root, building_folder(root, set_name, name))


def remove_recordings(root: Path, set_name: str, names: Sequence[str], *, whole_set: bool) -> None:
    """Take recordings out of a set; with `whole_set`, out of a set whose ``set.json`` may be damaged or gone, too."""
    with disk_failures(root), contextlib.ExitStack() as locks:
        for name in names:
            if not locks.enter_context(store_lock(root, "recordings", set_name, name)):
                raise Conflict(f"another process is registering or removing {set_name}/{name}", kind="being_registered")
        with store_lock(root, "sets", set_name, wait=True):
            _settle(root, set_name)
            held = members_or_present(root, set_name) if whole_set else read_index(root, set_name).recordings
            rest = {key: entry for key, entry in held.items() if entry is not None and key not in names}
            try:
                _write_journal(root, set_name, names)
                _write_index(root, set_name, rest)
            except OSError as error:
                if not is_full(error):
                    raise
                # What is removed makes room for the set.json without it. If this call is killed between the two, set.json names
                # recordings that are gone: they are reported as damaged until they are removed again.
                for name in names:
                    discard(root, root / set_name / name)
                _write_index(root, set_name, rest)
            for name in names:
                discard(root, root / set_name / name)
            _settle(root, set_name)


@contextlib.contextmanager
def _publishing(root: Path, set_name: str, names: Collection[str]) -> Iterator[None]:
    """Hold the locks of recordings that are being published, with what killed processes left cleared away."""
    with disk_failures(root, "; nothing was published"), contextlib.ExitStack() as locks:
        for name in sorted(names):
            if not locks.enter_context(store_lock(root, "recordings", set_name, name)):
                raise Conflict(
                    f"another process is registering {set_name}/{name}; try again when it is done",
                    kind="being_registered",
                )
        _clean(root, set_name, keep=names)
        yield


def _clean(root: Path, set_name: str, keep: Collection[str]) -> None:
    """Clear away what killed processes left: recordings half built, or published or removed halfway."""
    private = root / PRIVATE_FOLDER
    for grave in (private / "discarded").glob("*"):
        shutil.rmtree(grave, ignore_errors=True)
    for folder in sorted((private / "building").glob("*/*")):
        if folder.is_dir() and not (folder.parent.name == set_name and folder.name in keep):
            with store_lock(root, "recordings", folder.parent.name, folder.name) as free:
                if free:
                    discard(root, folder)
    for draft in (private / "building").glob(f"*/.{SET_FILE}"):
        with store_lock(root, "sets", draft.parent.name) as free:
            if free:
                draft.unlink(missing_ok=True)
    for journal in (private / "pending").glob("*.json"):
        with store_lock(root, "sets", journal.stem) as free:
            if free:
                _settle(root, journal.stem)


# ---------------------------------------------------------------------------------------------------------------- building


def _build(root: Path, set_name: str, recording: Recording) -> SetEntry:
    """Write the recording beside the store's sets, read it back, and make it durable."""
    name = recording.manifest.name
    folder = building_folder(root, set_name, name)
    discard(root, folder)
    make_folders(folder.parent)
    manifest = recording.manifest.model_copy(update={"set": set_name, "content_sha256": None, "files": {}})
    content = content_sha256(recording)
    write_group(recording, manifest, folder)
    return _finish(folder, manifest, content)


def _build_stream(
    root: Path,
    set_name: str,
    name: str,
    blocks: Iterable[Recording],
    group_by: Sequence[str],
    whole_trials: bool = True,
) -> dict[str, SetEntry]:
    """`_build` for blocks; empty if the set holds the same recording already."""
    folder = building_folder(root, set_name, name)
    discard(root, folder)
    make_folders(folder)
    spool = Spool(folder / "spool", tuple(group_by), whole_trials)
    spool.folder.mkdir()
    for block in _made(blocks):
        spool.add(block)
    if spool.first is None:
        raise InvalidInput(f"recording {name!r}: expected at least one block, got none", kind="no_recordings")
    manifest = spool.first.manifest.model_copy(
        update={"name": name, "set": set_name, "grouped_by": tuple(group_by), "content_sha256": None, "files": {}}
    )
    written = write_stream(spool, folder / ".done")
    table = spool.table()
    if table is not None:
        (folder / ".done" / GROUPS_FILE).write_text(table.to_json(), encoding="utf-8")
    shutil.rmtree(spool.folder)
    for path in (folder / ".done").iterdir():
        path.rename(folder / path.name)
    (folder / ".done").rmdir()
    entry = _finish(folder, manifest, {key: digest.hexdigest() for key, digest in written.items()})
    published = members(root, set_name).get(name)
    if published is None:
        return {name: entry}
    _check_equal(set_name, name, published.content_sha256, entry.content_sha256)
    return {}


def _made(blocks: Iterable[Recording]) -> Iterator[Recording]:
    """The blocks; what goes wrong on a disk while one is made is no failure of the store's."""
    try:
        yield from blocks
    except OSError as error:
        raise InvalidInput(f"a block could not be made: {error}", kind="unreadable_source") from error


def _not_published(root: Path, set_name: str, by_name: Mapping[str, Recording]) -> dict[str, Recording]:
    """The recordings that the set does not hold yet; Conflict if it holds one with other content."""
    published = members(root, set_name)
    for name, recording in by_name.items():
        if name in published:
            _check_equal(set_name, name, published[name].content_sha256, content_sha256(recording))
    return {name: recording for name, recording in by_name.items() if name not in published}


def _check_equal(set_name: str, name: str, published: str, offered: str) -> None:
    if published != offered:
        raise Conflict(
            f"{set_name}/{name} exists with other content, and a published recording does not change; "
            "register it under another name, or remove the old one first",
            kind="other_content",
        )


def _finish(folder: Path, manifest: RecordingManifest, written: str | Mapping[str, str]) -> SetEntry:
    """Read back what was written, name every file in the manifest, and make it all durable.

    `written` is the hash of the content, or a hash of each array if the content is not known beforehand.
    """
    with open_group(folder) as dataset:
        back = Recording._trusted(restored(dataset, manifest), manifest)
        read: dict[str, Digest] | None = None if isinstance(written, str) else {}
        content = content_sha256(back, read)
        if written != (content if read is None else {key: digest.hexdigest() for key, digest in read.items()}):
            raise Corrupt(f"recording {manifest.name!r} did not read back as it was written; nothing was published")
    files = {}
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        files[path.relative_to(folder).as_posix()] = FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
    manifest = manifest.model_copy(update={"content_sha256": content, "files": files})
    text = manifest.to_json().encode()
    (folder / MANIFEST_FILE).write_bytes(text)
    for path in [*folder.rglob("*"), folder]:
        fsync_folder(path)
    return SetEntry(content_sha256=content, manifest_sha256=sha256_bytes(text))


# -------------------------------------------------------------------------------------------------------------- publishing


def publish(root: Path, set_name: str, built: dict[str, SetEntry]) -> None:
    """Move what was built into the set's folder, then name it in ``set.json``: the commit."""
    with store_lock(root, "sets", set_name, wait=True):
        _settle(root, set_name)
        published = members(root, set_name)
        set_folder = root / set_name
        make_folders(set_folder)
        try:
            for name in built:
                # A rename over an empty folder succeeds without a word. Under the lock, nothing else makes one.
                if (set_folder / name).exists() or (set_folder / name).is_symlink():
                    _remove_leftover(root, set_folder / name)
            _write_journal(root, set_name, built)
            for name in built:
                building_folder(root, set_name, name).rename(set_folder / name)
            fsync_folder(set_folder)
            _write_index(root, set_name, published | built)
        finally:
            with contextlib.suppress(OSError):
                _settle(root, set_name)
            with contextlib.suppress(OSError):  # it is empty only if this call made it, in vain
                set_folder.rmdir()


def _remove_leftover(root: Path, target: Path) -> None:
    """Clear a folder that a killed process left under a name that ``set.json`` does not hold."""
    ours = target.is_dir() and not target.is_symlink()
    if not ours or not ((target / MANIFEST_FILE).is_file() or not any(target.iterdir())):
        raise StorageFailed(f"{target} is in the way, and is no recording; nothing was published", kind="in_the_way")
    discard(root, target)


def _write_index(root: Path, set_name: str, recordings: Mapping[str, SetEntry]) -> None:
    """Replace ``set.json`` in one step, durably; without recordings, take it away."""
    target = root / set_name / SET_FILE
    if not recordings:
        target.unlink(missing_ok=True)
        fsync_folder(target.parent)
        return
    index = RecordingSetIndex(name=set_name, recordings=dict(sorted(recordings.items())))
    replace_file(root, set_name, target, index.to_json())
    try:
        fsync_folder(target.parent)
    except OSError as error:
        raise StorageFailed(
            f"{target} was replaced, but the disk did not confirm that this will last: {error}", kind="not_durable"
        ) from error


# ------------------------------------------------------------------------------------------------------------- the journal
# It is written and read under the set's lock. Therefore a journal that a call finds there was left by a call that was killed.


def _write_journal(root: Path, set_name: str, names: Iterable[str]) -> None:
    """Name the recordings that this call is about to publish or remove, durably, before anything is moved."""
    journal = journal_file(root, set_name)
    make_folders(journal.parent)
    replace_file(root, set_name, journal, json.dumps(sorted(names)) + "\n")
    fsync_folder(journal.parent)


def _settle(root: Path, set_name: str) -> None:
    """End the call that wrote the set's journal: delete what the journal names and ``set.json`` does not, then the journal.

    It does not matter whether the call published or removed, and how far it came. ``set.json`` is replaced in one step, so it
    names all of the recordings that should be there. The set's lock must be held.
    """
    journal = journal_file(root, set_name)
    if not journal.exists():
        return
    set_folder = root / set_name
    published: Collection[str] = ()
    if (set_folder / SET_FILE).exists():
        try:
            published = read_index(root, set_name).recordings
        except (Corrupt, InvalidInput):
            return  # nothing of this set may be deleted, since it is unknown what a damaged set.json names
    litter = [set_folder / name for name in read_journal(root, set_name) if name not in published]
    for folder in filter(is_recording, litter):
        discard(root, folder)
    if litter and set_folder.is_dir():
        fsync_folder(set_folder)  # else a power cut could bring them back without the journal
        with contextlib.suppress(OSError):  # other recordings, or a file of the user's
            set_folder.rmdir()
    journal.unlink()
