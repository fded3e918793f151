"""Recording sets on disk: atomic publication, checksums, and the format's version.

A store is a folder, a set is a folder in it, and a recording is one zarr v3 group in its set's folder, beside a
``manifest.json`` that names every file with its size and SHA-256. The set's ``set.json`` names the recordings: what it
does not name does not exist. It is replaced atomically, last, and that is the commit. ::

    STORE/
      SET/
        set.json
        RECORDING/
          manifest.json
          zarr.json, activity/…, trial/…, …
      .neuromas/            locks, recordings being built, and pending/SET.json

While a call changes a set, its journal ``.neuromas/pending/SET.json`` names the recordings that the call publishes or
removes. What it names and ``set.json`` does not is the litter of a killed call, and goes when the set is changed next.
Nothing else goes: a recording that lies in a set without a ``set.json``, and in no journal, is one whose ``set.json`` was
lost, and is reported as damage.

Chunks of activity and coordinates end in a CRC-32C, which zarr checks whenever it reads one. zarr takes a chunk that
has gone for one that was never written, and fills it; therefore presence and size of every file are checked beforehand.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.dtype import VariableLengthUTF8

from neuromas import dims
from neuromas.errors import Conflict, Corrupt, InvalidDocument, InvalidInput, NotFound, ReadOnly, StorageFailed
from neuromas.files import fsync_folder, sha256_file
from neuromas.recordings.check import block_bounds
from neuromas.recordings.encode import MANIFEST_ATTRIBUTE, labelled
from neuromas.recordings.recording import Recording
from neuromas.recordings.spool import Spool, pieces
from neuromas.schema.document import FORMAT_VERSION, NAME_PATTERN, FileEntry
from neuromas.schema.recording import GroupTable, RecordingManifest, RecordingSetIndex, SetEntry

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

STORE_VARIABLE = "NEUROMAS_STORE"
"""Environment variable that names the store."""

SET_FILE = "set.json"
MANIFEST_FILE = "manifest.json"
GROUPS_FILE = "groups.json"
PRIVATE_FOLDER = ".neuromas"

SHARD_BYTES = 2**20
"""Most bytes of a shard before compression, unless a single sample is larger: files stay easy to move and to
version."""

_LARGE_SHARD_BYTES = 64 * 2**20
_SHARDS = 256
"""Of a large recording: about so many, of up to the size above. Opening one looks at every file."""
_CHUNK_SAMPLES = 1024
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RecordingEntry:
    """A recording as a store lists it.

    ``n_samples`` and ``n_units`` are 0 where `problem` says why the recording could not be looked at.
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


@dataclass(frozen=True)
class FileProblem:
    """One stored file that is not what was written."""

    recording: str
    """``SET/RECORDING``, or the set's name if its ``set.json`` is the trouble."""
    file: str
    """Path relative to the store."""
    problem: str

    def __str__(self) -> str:
        return f"{self.recording}: {self.file}: {self.problem}"


class RecordingStore:
    """Recording sets in a folder.

    Parameters
    ----------
    path : str or Path
        The store's folder. One that is absent or empty becomes a store with the first `register`.
    read_only : bool
        Whether to refuse any change. Sets that ship with neuromas are read-only in any case where they are installed.

    Raises
    ------
    InvalidInput
        The folder holds something else.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = RecordingStore(folder.name)
    >>> toy = Recording.from_arrays([[0.1, 0.2], [0.3, 0.4]], {"count": [1, 2]}, name="toy", system="toy")
    >>> store.register(toy, set="demo")
    ['demo/toy']
    >>> store.get("demo/toy").latents()
    array([[0.1, 0.2],
           [0.3, 0.4]], dtype=float32)
    >>> store.verify()
    []
    >>> folder.cleanup()
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only or self.path.absolute().is_relative_to(_PACKAGE)
        if not is_store(self.path) and not _is_vacant(self.path):
            raise InvalidInput(
                f"{self.path} is not a recording store: expected a folder with recording sets (SET/{SET_FILE}), "
                "or an empty or absent one",
                kind="not_a_store",
            )

    def __repr__(self) -> str:
        entries = self.list()
        sets = len({entry.set for entry in entries})
        mode = ", read-only" if self.read_only else ""
        return f"<RecordingStore {str(self.path)!r}: {len(entries)} recordings in {sets} sets{mode}>"

    # ---------------------------------------------------------------------------------------------------------- reading

    def list(self) -> builtins.list[RecordingEntry]:
        """Every recording, by set and name; one that is damaged is listed with its problem, beside the others."""
        entries: builtins.list[RecordingEntry] = []
        for folder in self._set_folders():
            try:
                index = self._read_index(folder.name)
            except Corrupt as error:
                entries.append(RecordingEntry(folder.name, "?", problem=error.message))
                continue
            entries += [self._entry(folder.name, name) for name in sorted(index.recordings)]
        return entries

    def sets(self) -> builtins.list[str]:
        """Names of the recording sets."""
        return [folder.name for folder in self._set_folders()]

    def get(self, name: str, *, load: bool = True) -> Recording:
        """The recording called `name`.

        Parameters
        ----------
        name : str
            ``SET/RECORDING``.
        load : bool
            Whether to read everything now, so that damage shows now; else activity is read when it is asked for.

        Returns
        -------
        Recording
            With the stored manifest, whose ``files`` name everything that was checked.

        Raises
        ------
        NotFound
            There is no such set or recording; lists those there are.
        Corrupt
            A file is missing, has another size, or holds other bytes than were written; names the file.
        """
        set_name, recording_name = self._parse(name)
        folder = self.path / set_name / recording_name
        manifest = self._read_manifest(set_name, recording_name)
        _check_presence(name, folder, manifest)
        try:
            dataset = xr.open_dataset(folder, engine="zarr", chunks=None, consolidated=True)
            if load:
                dataset.load()
            dataset = _restored(dataset, manifest)
            groups = _read_groups(folder, manifest)
        except InvalidInput:
            raise
        except Exception as error:  # zarr raises whatever its codecs do; which file it was, only the hashes can tell
            told = [f"{found.file} {found.problem}" for found in self._file_problems(set_name, recording_name)]
            reason = "; ".join(told) or str(error)
            raise Corrupt(f"recording {name!r} cannot be read: {reason}") from error
        return Recording._trusted(dataset, manifest, lambda: _check_presence(name, folder, manifest), groups)

    def verify(self, name: str | None = None) -> builtins.list[FileProblem]:
        """Compare every stored file with what was written: presence, size, and SHA-256.

        Parameters
        ----------
        name : str, optional
            ``SET/RECORDING`` or ``SET``; the whole store by default.

        Returns
        -------
        list of FileProblem
            Empty if every file is as it was written.

        Raises
        ------
        NotFound
            There is no such set or recording.
        """
        if name is not None and "/" in name:
            return self._file_problems(*self._parse(name))
        if name is not None and name not in self.sets():
            raise self._no_such_set(name)
        problems: builtins.list[FileProblem] = []
        for set_name in self.sets() if name is None else [name]:
            try:
                index = self._read_index(set_name)
            except Corrupt as error:
                problems.append(FileProblem(set_name, f"{set_name}/{SET_FILE}", error.message))
                continue
            for recording_name in sorted(index.recordings):
                problems += self._file_problems(set_name, recording_name)
        return problems

    # --------------------------------------------------------------------------------------------------------- changing

    def register(
        self, recordings: Recording | Iterable[Recording], *, set: str, group_by: Sequence[str] = ()
    ) -> builtins.list[str]:
        """Publish recordings as members of a set, all of them at once or none.

        Parameters
        ----------
        recordings : Recording or iterable of Recording
            Their names must differ. One whose content the set already holds under the same name is passed over.
        set : str
            The set's name; it is made if there is none, and grows if there is.
        group_by : sequence of str, optional
            Variables by whose values samples are laid together, in random order within each combination, so that
            `neuromas.index.index.CLIndex` finds latents on disk without reading the rest. For recordings larger than
            memory; the order of samples is not kept.

        Returns
        -------
        list of str
            ``SET/RECORDING`` of each.

        Raises
        ------
        InvalidInput
            A name cannot be used, two recordings share one, or samples hold too many combinations to be grouped.
        NotFound
            There is no variable to group by.
        Conflict
            The set holds other content under a name, or another process is registering it.
        ReadOnly
            The store is read-only.
        StorageFailed
            The disk refused. Nothing was published.
        Corrupt
            What was written did not read back equal, or the set's ``set.json`` is damaged, or gone from beside its
            recordings. Nothing was published.
        """
        self._refuse_if_read_only("registered")
        given = [recordings] if isinstance(recordings, Recording) else [*recordings]
        given = [one._view(one.dataset, one.manifest) if one.manifest.grouped_by else one for one in given]
        _check_names(set, [recording.manifest.name for recording in given])
        by_name = {recording.manifest.name: recording for recording in given}
        with self._publishing(set, by_name):
            built: dict[str, SetEntry] = {}
            try:
                if group_by:
                    for name, recording in by_name.items():
                        built |= self._build_stream(set, name, pieces(recording), group_by, whole_trials=False)
                else:
                    for name, recording in self._pending(set, by_name).items():
                        built[name] = self._build(set, recording)
                if built:
                    self._publish(set, built)
            finally:
                for name in by_name:
                    self._discard(self._building(set, name))
        return [f"{set}/{name}" for name in by_name]

    def register_blocks(self, blocks: Iterable[Recording], *, set: str, name: str, group_by: Sequence[str] = ()) -> str:
        """Publish one recording that comes in blocks and may be larger than memory.

        Parameters
        ----------
        blocks : iterable of Recording
            Each small enough for memory, all with the same units, variables and coordinates, every trial whole in one of
            them. Taken one at a time, once.
        set, name : str
            What it will be called: ``SET/NAME``. The manifest is otherwise that of the first block.
        group_by : sequence of str, optional
            As in `register`; without it samples keep their order.

        Returns
        -------
        str
            ``SET/NAME``.

        Raises
        ------
        InvalidInput
            There is no block, one differs from the first, or a trial comes in two of them.
        Conflict
            The set holds other content under that name. This shows when all blocks were read.
        NotFound, ReadOnly, StorageFailed, Corrupt
            As `register`.

        Notes
        -----
        Peak memory is that of one block, a few times 64 MiB, 8 bytes per trial, and text coordinates, which are held whole. While
        it works, the store's folder holds all samples once more, uncompressed, and the largest group a second time.

        Examples
        --------
        >>> import tempfile
        >>> def simulated():
        ...     for first in range(0, 30, 10):
        ...         yield Recording.from_arrays(
        ...             np.zeros((10, 4, 3)), {"count": np.arange(10) % 2}, trial=first + np.arange(10), name="block"
        ...         )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = RecordingStore(folder)
        ...     store.register_blocks(simulated(), set="big", name="sim", group_by=["count"])
        ...     store.get("big/sim", load=False).groups.counts
        'big/sim'
        (60, 60)
        """
        self._refuse_if_read_only("registered")
        _check_names(set, [name])
        with self._publishing(set, [name]):
            try:
                built = self._build_stream(set, name, blocks, group_by)
                if built:
                    self._publish(set, built)
            finally:
                self._discard(self._building(set, name))
        return f"{set}/{name}"

    def remove(self, name: str) -> builtins.list[str]:
        """Take a recording, or a whole set, out of the store.

        Parameters
        ----------
        name : str
            ``SET/RECORDING`` or ``SET``. A set that loses its last recording goes too. A set whose ``set.json`` is
            damaged or gone can be removed as a whole, with every recording that lies in it.

        Returns
        -------
        list of str
            ``SET/RECORDING`` of each that was removed.

        Raises
        ------
        NotFound
            There is no such set or recording.
        Corrupt
            A single recording is to go, and the set's ``set.json`` is damaged or gone.
        Conflict
            Another process is registering it.
        ReadOnly
            The store is read-only.
        StorageFailed
            The disk refused.
        """
        self._refuse_if_read_only("removed")
        set_name = name.split("/")[0]
        if "/" in name:
            chosen = [self._parse(name)[1]]
        elif name in self.sets():
            chosen = sorted(self._held_or_lying(name))
        else:
            raise self._no_such_set(name)
        with self._failures(published=True), contextlib.ExitStack() as locks:
            for recording_name in chosen:
                if not locks.enter_context(self._lock("recordings", set_name, recording_name)):
                    raise Conflict(
                        f"another process is registering or removing {set_name}/{recording_name}",
                        kind="being_registered",
                    )
            with self._lock("sets", set_name, wait=True):
                self._settle(set_name)
                held = self._held_or_lying(set_name) if name == set_name else self._read_index(set_name).recordings
                rest = {key: entry for key, entry in held.items() if entry is not None and key not in chosen}
                self._write_journal(set_name, chosen)
                self._write_index(set_name, rest)
                for recording_name in chosen:
                    self._discard(self.path / set_name / recording_name)
                self._settle(set_name)
        return [f"{set_name}/{recording_name}" for recording_name in chosen]

    # ------------------------------------------------------------------------------------------------ steps of register

    @contextlib.contextmanager
    def _publishing(self, set_name: str, names: Iterable[str]) -> Iterator[None]:
        """Hold the locks of recordings that are being published, with what killed processes left cleared away."""
        with self._failures(), contextlib.ExitStack() as locks:
            for name in sorted(names):
                if not locks.enter_context(self._lock("recordings", set_name, name)):
                    raise Conflict(
                        f"another process is registering {set_name}/{name}; try again when it is done",
                        kind="being_registered",
                    )
            self._clean(set_name, keep=names)
            yield

    def _build_stream(
        self,
        set_name: str,
        name: str,
        blocks: Iterable[Recording],
        group_by: Sequence[str],
        whole_trials: bool = True,
    ) -> dict[str, SetEntry]:
        """`_build` for blocks; empty where the set holds the same already."""
        folder = self._building(set_name, name)
        self._discard(folder)
        _make_folders(folder)
        spool = Spool(folder / "spool", tuple(group_by), whole_trials)
        spool.folder.mkdir()
        for block in _made(blocks):
            spool.add(block)
        if spool.first is None:
            raise InvalidInput(f"recording {name!r}: no block was given", kind="no_recordings")
        manifest = spool.first.manifest.model_copy(
            update={"name": name, "set": set_name, "grouped_by": tuple(group_by), "content_sha256": None, "files": {}}
        )
        written = _write_stream(spool, manifest, folder / ".done")
        table = spool.table()
        if table is not None:
            (folder / ".done" / GROUPS_FILE).write_text(table.to_json(), encoding="utf-8")
        shutil.rmtree(spool.folder)
        for path in (folder / ".done").iterdir():
            path.rename(folder / path.name)
        (folder / ".done").rmdir()
        entry = self._finish(folder, manifest, {key: digest.hexdigest() for key, digest in written.items()})
        held = self._held(set_name).get(name)
        if held is None:
            return {name: entry}
        self._check_equal(set_name, name, held.content_sha256, entry.content_sha256)
        return {}

    def _held(self, set_name: str) -> dict[str, SetEntry]:
        """What the set holds; nothing if there is none."""
        try:
            return dict(self._read_index(set_name).recordings)
        except NotFound:
            return {}

    @staticmethod
    def _check_equal(set_name: str, name: str, held: str, given: str) -> None:
        if held != given:
            raise Conflict(
                f"{set_name}/{name} exists with other content, and a published recording does not change; "
                "register it under another name, or remove the old one first",
                kind="changed_content",
            )

    def _pending(self, set_name: str, by_name: dict[str, Recording]) -> dict[str, Recording]:
        """Those not in the set yet; one that is there with other content is refused."""
        held = self._held(set_name)
        for name, recording in by_name.items():
            if name in held:
                self._check_equal(set_name, name, held[name].content_sha256, content_sha256(recording))
        return {name: recording for name, recording in by_name.items() if name not in held}

    def _build(self, set_name: str, recording: Recording) -> SetEntry:
        """Write the recording beside the store's sets, read it back, and make it durable."""
        name = recording.manifest.name
        folder = self._building(set_name, name)
        self._discard(folder)
        _make_folders(folder.parent)
        manifest = recording.manifest.model_copy(update={"set": set_name, "content_sha256": None, "files": {}})
        content = content_sha256(recording)
        _write_group(recording, manifest, folder)
        return self._finish(folder, manifest, content)

    def _finish(self, folder: Path, manifest: RecordingManifest, written: str | Mapping[str, str]) -> SetEntry:
        """Read back what was written, name every file in the manifest, and make it all durable.

        `written` is the hash of the content, or one of each array where the content is not known beforehand.
        """
        with xr.open_dataset(folder, engine="zarr", chunks=None, consolidated=True) as dataset:
            back = Recording._trusted(_restored(dataset, manifest), manifest)
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
        return SetEntry(content_sha256=content, manifest_sha256=hashlib.sha256(text).hexdigest())

    def _publish(self, set_name: str, built: dict[str, SetEntry]) -> None:
        """Move what was built into the set's folder, then name it in ``set.json``: the commit."""
        with self._lock("sets", set_name, wait=True):
            self._settle(set_name)
            held = self._held(set_name)
            set_folder = self.path / set_name
            _make_folders(set_folder)
            try:
                for name in built:
                    # A rename over an empty folder succeeds without a word. Under the lock, nothing else makes one.
                    if (set_folder / name).exists() or (set_folder / name).is_symlink():
                        self._remove_leftover(set_folder / name)
                self._write_journal(set_name, built)
                for name in built:
                    self._building(set_name, name).rename(set_folder / name)
                fsync_folder(set_folder)
                self._write_index(set_name, held | built)
            finally:
                with contextlib.suppress(OSError):
                    self._settle(set_name)
                with contextlib.suppress(OSError):  # it is empty only if this call made it, in vain
                    set_folder.rmdir()

    def _write_index(self, set_name: str, recordings: dict[str, SetEntry]) -> None:
        """Replace ``set.json`` in one step, durably; without recordings, take it away."""
        target = self.path / set_name / SET_FILE
        if not recordings:
            target.unlink(missing_ok=True)
            fsync_folder(target.parent)
            return
        index = RecordingSetIndex(name=set_name, recordings=dict(sorted(recordings.items())))
        self._replace(set_name, target, index.to_json())
        try:
            fsync_folder(target.parent)
        except OSError as error:
            raise StorageFailed(
                f"{target} was replaced, but the disk did not confirm that this will last: {error}", kind="not_durable"
            ) from error

    def _replace(self, set_name: str, target: Path, text: str) -> None:
        """Replace a file in one step. Not `files.write_atomically`: a kill must leave its draft where `_clean` looks."""
        draft = self.path / PRIVATE_FOLDER / "building" / set_name / f".{SET_FILE}"
        _make_folders(draft.parent)
        try:
            with draft.open("wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    # The journal is written and read under the set's lock, so that whoever finds one there finds that of a killed call.

    def _journal(self, set_name: str) -> Path:
        return self.path / PRIVATE_FOLDER / "pending" / f"{set_name}.json"

    def _write_journal(self, set_name: str, names: Iterable[str]) -> None:
        """Name the recordings that this call is about to publish or remove, durably, before anything is moved."""
        journal = self._journal(set_name)
        _make_folders(journal.parent)
        self._replace(set_name, journal, json.dumps(sorted(names)) + "\n")
        fsync_folder(journal.parent)

    def _read_journal(self, set_name: str) -> builtins.list[str]:
        """Recordings on their way into the set or out of it."""
        try:
            names = json.loads(self._journal(set_name).read_bytes())
        except (OSError, ValueError):
            return []
        return [name for name in names if _is_name(name)] if isinstance(names, builtins.list) else []

    def _settle(self, set_name: str) -> None:
        """End the call that wrote the set's journal: what that names and ``set.json`` does not goes, then the journal.

        Whether the call published or removed, and how far it came, makes no difference: ``set.json`` is replaced in one
        step, so it names all of the recordings that should be there. The set's lock must be held.
        """
        journal = self._journal(set_name)
        if not journal.exists():
            return
        set_folder = self.path / set_name
        held: Iterable[str] = ()
        if (set_folder / SET_FILE).exists():
            try:
                held = self._read_index(set_name).recordings
            except (Corrupt, InvalidInput):
                return  # what a set.json that cannot be read names is unknown, so nothing of that set may go
        litter = [set_folder / name for name in self._read_journal(set_name) if name not in held]
        for folder in filter(_is_recording, litter):
            self._discard(folder)
        if litter and set_folder.is_dir():
            fsync_folder(set_folder)  # else a power cut could bring them back without the journal
            with contextlib.suppress(OSError):  # other recordings, or a file of the user's
                set_folder.rmdir()
        journal.unlink()

    def _clean(self, set_name: str, keep: Iterable[str]) -> None:
        """Clear away what killed processes left: recordings half built, or published or removed halfway."""
        private = self.path / PRIVATE_FOLDER
        for grave in (private / "discarded").glob("*"):
            shutil.rmtree(grave, ignore_errors=True)
        for folder in sorted((private / "building").glob("*/*")):
            if folder.is_dir() and not (folder.parent.name == set_name and folder.name in keep):
                with self._lock("recordings", folder.parent.name, folder.name) as free:
                    if free:
                        self._discard(folder)
        for draft in (private / "building").glob(f"*/.{SET_FILE}"):
            with self._lock("sets", draft.parent.name) as free:
                if free:
                    draft.unlink(missing_ok=True)
        for journal in (private / "pending").glob("*.json"):
            with self._lock("sets", journal.stem) as free:
                if free:
                    self._settle(journal.stem)

    def _remove_leftover(self, target: Path) -> None:
        """Clear a folder that a killed process left under a name that ``set.json`` does not hold."""
        ours = target.is_dir() and not target.is_symlink()
        if not ours or not ((target / MANIFEST_FILE).is_file() or not any(target.iterdir())):
            raise StorageFailed(
                f"{target} is in the way, and is no recording; nothing was published", kind="in_the_way"
            )
        self._discard(target)

    def _discard(self, path: Path) -> None:
        """Make `path` vanish in one step, then delete it at leisure."""
        if not path.exists() and not path.is_symlink():
            return
        grave = self.path / PRIVATE_FOLDER / "discarded" / secrets.token_hex(16)
        _make_folders(grave.parent)
        path.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------- steps of reading

    def _set_folders(self) -> builtins.list[Path]:
        """Folders of the sets, those included that lost their ``set.json``."""
        return sorted(
            folder
            for folder in self.path.glob("*")
            if _is_name(folder.name) and ((folder / SET_FILE).exists() or self._orphans(folder.name))
        )

    def _orphans(self, set_name: str) -> builtins.list[str]:
        """Recordings that lie in a set without a ``set.json``, and are not on their way into it or out of it."""
        folder = self.path / set_name
        if (folder / SET_FILE).exists():
            return []
        lying = _recordings_in(folder)
        moving = self._read_journal(set_name) if lying else []
        # Looked at again, since whoever wrote the journal may have come to its end before it was read.
        orphans = [name for name in lying if name not in moving and _is_recording(folder / name)]
        return [] if (folder / SET_FILE).exists() else orphans

    def _held_or_lying(self, set_name: str) -> Mapping[str, SetEntry | None]:
        """What ``set.json`` names; where it is damaged or gone, every recording that lies in the set's folder."""
        try:
            return self._read_index(set_name).recordings
        except Corrupt:
            return dict.fromkeys(_recordings_in(self.path / set_name))

    def _read_index(self, set_name: str) -> RecordingSetIndex:
        file = self.path / set_name / SET_FILE
        try:
            text = file.read_bytes()
            _refuse_newer(text, file)
            return RecordingSetIndex.parse(text, str(file))
        except (FileNotFoundError, NotADirectoryError):
            orphans = self._orphans(set_name)
            if orphans:
                raise Corrupt(
                    f"{file} is gone, though recordings lie beside it: {', '.join(orphans)}; put it back from a copy, or "
                    f"remove {set_name!r} as a whole"
                ) from None
            raise self._no_such_set(set_name) from None
        except InvalidDocument as error:
            raise Corrupt(f"{file} is damaged: {'; '.join(error.problems)}") from error
        except OSError as error:
            raise Corrupt(f"{file} cannot be read: {error}") from error

    def _read_manifest(self, set_name: str, name: str) -> RecordingManifest:
        """The manifest, once its bytes are known to be those that the set names."""
        file = self.path / set_name / name / MANIFEST_FILE
        entry = self._read_index(set_name).recordings.get(name)
        if entry is None:
            raise self._no_such_recording(set_name, name)
        try:
            text = file.read_bytes()
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
            raise Corrupt(f"recording '{set_name}/{name}': {MANIFEST_FILE} {reason}") from error
        if hashlib.sha256(text).hexdigest() != entry.manifest_sha256:
            raise Corrupt(f"recording '{set_name}/{name}': {MANIFEST_FILE} is not the one that was written")
        _refuse_newer(text, file)
        try:
            return RecordingManifest.parse(text, str(file))
        except InvalidDocument as error:
            raise Corrupt(f"recording '{set_name}/{name}': {error.message}") from error

    def _parse(self, name: str) -> tuple[str, str]:
        """(set, recording) of ``SET/RECORDING``, which must exist."""
        parts = name.split("/")
        if len(parts) != 2 or not all(map(_is_name, parts)):
            raise InvalidInput(f"expected SET/RECORDING, got {name!r}; {self._told()}", kind="invalid_name")
        set_name, recording_name = parts
        if recording_name not in self._read_index(set_name).recordings:
            raise self._no_such_recording(set_name, recording_name)
        return set_name, recording_name

    def _no_such_recording(self, set_name: str, name: str) -> NotFound:
        existing = ", ".join(sorted(self._read_index(set_name).recordings))
        return NotFound(
            f"set {set_name!r} of {self.path} has no recording {name!r}; it has {existing}", kind="no_such_recording"
        )

    def _no_such_set(self, name: str) -> NotFound:
        return NotFound(f"no recording set {name!r} in {self.path}; {self._told()}", kind="no_such_set")

    def _told(self) -> str:
        names = [entry.name for entry in self.list()]
        return f"recordings are {', '.join(names)}" if names else "the store is empty"

    def _entry(self, set_name: str, name: str) -> RecordingEntry:
        try:
            manifest = self._read_manifest(set_name, name)
            metadata = json.loads(
                (self.path / set_name / name / dims.ACTIVITY / "zarr.json").read_text(encoding="utf-8")
            )
            n_samples, n_units = metadata["shape"]
        except Corrupt as error:
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

    def _file_problems(self, set_name: str, name: str) -> builtins.list[FileProblem]:
        full, folder = f"{set_name}/{name}", self.path / set_name / name
        try:
            manifest = self._read_manifest(set_name, name)
        except Corrupt as error:
            return [FileProblem(full, f"{full}/{MANIFEST_FILE}", error.message)]
        problems = []
        for file, entry in manifest.files.items():
            problem = _file_problem(folder / PurePosixPath(file), entry)
            if problem:
                problems.append(FileProblem(full, f"{full}/{file}", problem))
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder).as_posix()
            if path.is_file() and relative != MANIFEST_FILE and relative not in manifest.files:
                problems.append(FileProblem(full, f"{full}/{relative}", "was not written by neuromas"))
        return problems

    # ---------------------------------------------------------------------------------------------------------- locking

    def _building(self, set_name: str, name: str) -> Path:
        return self.path / PRIVATE_FOLDER / "building" / set_name / name

    @contextlib.contextmanager
    def _lock(self, *name: str, wait: bool = False) -> Iterator[bool]:
        """Hold the lock called `name`; yields False, if not told to wait, where another process holds it.

        The kernel lets go of it when its holder dies. Lock files stay, since deleting one would let two hold "the"
        lock.
        """
        file = self.path.joinpath(PRIVATE_FOLDER, "locks", *name)
        _make_folders(file.parent)
        ignore = self.path / PRIVATE_FOLDER / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        with file.open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _refuse_if_read_only(self, done: str) -> None:
        if self.read_only:
            raise ReadOnly(
                f"{self.path} is read-only, so nothing can be {done} there; name a store of your own "
                f"(--store PATH, or {STORE_VARIABLE})",
                kind="read_only_store",
            )

    @contextlib.contextmanager
    def _failures(self, published: bool = False) -> Iterator[None]:
        """Turn the disk's refusals into `StorageFailed`."""
        try:
            yield
        except StorageFailed:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason = "no space left on the disk"
            outcome = "" if published else "; nothing was published"
            raise StorageFailed(f"cannot write to {self.path}: {reason}{outcome}") from error


def is_store(path: Path) -> bool:
    """Whether `path` is a folder that holds recording sets, or has held some."""
    return path.is_dir() and ((path / PRIVATE_FOLDER).is_dir() or any(path.glob(f"*/{SET_FILE}")))


def _is_vacant(path: Path) -> bool:
    """Whether a store may be started here: nothing there, or nothing but a README and hidden files."""
    if not path.exists():
        return True
    return path.is_dir() and all(entry.is_file() and entry.name.startswith((".", "README")) for entry in path.iterdir())


def shipped_store() -> RecordingStore:
    """The recording sets that come with neuromas, read-only.

    Raises
    ------
    NotFound
        This installation has none.
    """
    for path in (_PACKAGE / "_shipped" / "recordings", _PACKAGE.parent / "recordings"):
        if is_store(path):
            return RecordingStore(path, read_only=True)
    raise NotFound("this installation of neuromas brings no recordings", kind="no_shipped_store")


def resolve_store(path: str | Path | None = None) -> RecordingStore:
    """The store to use: `path`, else the one ``NEUROMAS_STORE`` names, else ``./recordings``, else the shipped sets.

    Parameters
    ----------
    path : str or Path, optional
        Named by the user; may be absent still, to be made by the first `RecordingStore.register`.

    Returns
    -------
    RecordingStore
        Read-only if it is the shipped one and was not named.

    Raises
    ------
    InvalidInput
        What was named is no store.
    NotFound
        Nothing was named, and there is neither ``./recordings`` nor a shipped store.
    """
    named = path or os.environ.get(STORE_VARIABLE)
    if named:
        return RecordingStore(named)
    local = Path("recordings")
    if is_store(local):
        with contextlib.suppress(NotFound):
            shipped = shipped_store()
            if shipped.path.samefile(local):  # a checkout's own: changed only by whoever names it
                return shipped
        return RecordingStore(local)
    return shipped_store()


def content_sha256(recording: Recording, each: dict[str, Digest] | None = None) -> str:
    """Hash of what a recording says: equal for equal activity, coordinates and manifest, however and whenever stored.

    Into `each` goes a hash of each array's bytes alone.

    Provenance, the set's name and the list of files do not count, nor do fields of the manifest that hold their
    default, so that fields added by later versions leave it as it is.
    """
    document = recording.manifest.model_dump(
        mode="json", exclude_defaults=True, exclude={"provenance", "files", "content_sha256", "set", "format_version"}
    )
    variables = {str(name): variable for name, variable in recording.dataset.variables.items() if name != dims.SAMPLE}
    described = {spec.name for spec in recording.manifest.variables} | {dims.ACTIVITY}
    arrays = [
        [
            name,
            list(variables[name].dims),
            _dtype_name(variables[name].dtype),
            list(variables[name].shape),
            {} if name in described else _attributes(variables[name]),
        ]
        for name in sorted(variables)
    ]
    digest = hashlib.sha256(json.dumps([document, arrays], sort_keys=True).encode())
    for name in sorted(variables):
        blocks: Iterable[NDArray[Any]]
        blocks = (block for _, block in recording.blocks()) if name == dims.ACTIVITY else _pieces(variables[name])
        own = hashlib.sha256()
        for block in blocks:
            data = _bytes(block)
            digest.update(data)
            if each is not None:
                own.update(data)
        if each is not None:
            each[name] = own
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------- files and zarr


def _write_group(recording: Recording, manifest: RecordingManifest, folder: Path) -> None:
    """Write the zarr group, one writer, each shard once."""
    dataset = recording.dataset
    attributes = {str(key): value for key, value in dataset.attrs.items() if key != MANIFEST_ATTRIBUTE}
    group = zarr.create_group(str(folder), zarr_format=3, attributes=attributes)
    names = [str(name) for name in dataset.coords if name not in (dims.SAMPLE,)]
    unlisted = [name for name in names if name != dims.UNIT]
    n_samples, n_units = recording.n_samples, recording.n_units
    array = _create(group, dims.ACTIVITY, dataset[dims.ACTIVITY].variable, {"coordinates": " ".join(unlisted)})
    for start, block in recording.blocks():
        array[start : start + len(block)] = block
    for name in names:
        variable = dataset[name].variable
        array = _create(group, name, variable, {})
        for start, stop in block_bounds(variable.size, max(1, variable.dtype.itemsize)):
            piece = variable[start:stop].values
            array[start:stop] = piece.astype(object) if piece.dtype.kind == "U" else piece
    if (n_samples, n_units) != tuple(group[dims.ACTIVITY].shape):  # type: ignore[union-attr]
        raise Corrupt(f"recording {manifest.name!r} changed while it was written; nothing was published")
    _consolidate(group)


def _consolidate(group: zarr.Group) -> None:
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata is not in the v3 specification yet. Readers that do not know it ignore
        # it.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(group.store)


def _made(blocks: Iterable[Recording]) -> Iterator[Recording]:
    """The blocks; what goes wrong on a disk while one is made is no failure of the store's."""
    try:
        yield from blocks
    except OSError as error:
        raise InvalidInput(f"a block could not be made: {error}", kind="unreadable_source") from error


def _write_stream(spool: Spool, manifest: RecordingManifest, folder: Path) -> dict[str, Digest]:
    """Write the zarr group of a spool, each shard once; returns a hash of each array's bytes."""
    assert spool.first is not None
    first = spool.first.dataset
    attributes = {str(key): value for key, value in first.attrs.items() if key != MANIFEST_ATTRIBUTE}
    group = zarr.create_group(str(folder), zarr_format=3, attributes=attributes)
    digests: dict[str, Digest] = {}
    arrays: dict[str, _Appended] = {}
    dtypes = spool.dtypes()
    unlisted = [name for name in dtypes if name != dims.ACTIVITY]
    unlisted += [str(name) for name, one in first.coords.items() if one.dims == (dims.UNIT,) and name != dims.UNIT]
    for name, dtype in dtypes.items():
        variable, extra = first[name].variable, {"coordinates": " ".join(unlisted)} if name == dims.ACTIVITY else {}
        shape = (spool.n_samples, *variable.shape[1:])
        digests[name] = hashlib.sha256()
        text_bytes = dtype.itemsize if dtype.kind == "U" else 0
        arrays[name] = _Appended(_create(group, name, variable, extra, shape, dtype), digests[name], text_bytes)
    for block in spool.blocks(np.random.default_rng(0)):
        for name, values in block.items():
            arrays[name].append(values)
    for one in arrays.values():
        one.flush()
    for key, coordinate in first.coords.items():
        if coordinate.dims == (dims.UNIT,):
            values = coordinate.values
            array = _create(group, str(key), coordinate.variable, {})
            array[:] = values.astype(object) if values.dtype.kind == "U" else values
            digests[str(key)] = hashlib.sha256(_bytes(values))
    _consolidate(group)
    return digests


class _Appended:
    """Rows that come in pieces of any length, written to an array shard by shard."""

    def __init__(self, array: zarr.Array[Any], digest: Digest, text_bytes: int = 0) -> None:
        self._array, self._digest = array, digest
        self._at_once = (array.shards or array.chunks)[0]
        if text_bytes:  # the hash of text depends on where its blocks begin
            self._at_once = next(iter(block_bounds(2**62, text_bytes)))[1]
        self._waiting: list[NDArray[Any]] = []
        self._n_waiting = self._n_written = 0

    def append(self, rows: NDArray[Any]) -> None:
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        whole = self._n_waiting - self._n_waiting % self._at_once
        if whole:
            self._write(whole)

    def flush(self) -> None:
        if self._n_waiting:
            self._write(self._n_waiting)

    def _write(self, count: int) -> None:
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        for start in range(0, count, self._at_once):
            piece = rows[start : min(start + self._at_once, count)]
            self._digest.update(_bytes(piece))
            stop = self._n_written + len(piece)
            self._array[self._n_written : stop] = piece.astype(object) if piece.dtype.kind == "U" else piece
            self._n_written = stop
        self._waiting = [rows[count:].copy()]  # a copy lets go of the rest
        self._n_waiting -= count


def _create(
    group: zarr.Group,
    name: str,
    variable: xr.Variable,
    extra: dict[str, Any],
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> zarr.Array[Any]:
    """An array for `variable`; for a longer one of its kind, where `shape` and `dtype` are given."""
    shape, dtype, streamed = shape or variable.shape, dtype or variable.dtype, shape is not None
    text = dtype.kind == "U"
    item = dtype.itemsize * (shape[1] if len(shape) == 2 else 1)
    most = min(max(SHARD_BYTES, item * shape[0] // _SHARDS), _LARGE_SHARD_BYTES) if streamed else SHARD_BYTES
    chunk = _CHUNK_SAMPLES if len(shape) == 2 else 16 * _CHUNK_SAMPLES
    while chunk > 1 and chunk * item > SHARD_BYTES // 2:
        chunk //= 2
    shard = chunk
    while shard * 2 * item <= most:
        shard *= 2
    rest = shape[1:]
    n_rows = shape[0]
    return group.create_array(
        name,
        shape=shape,
        dtype=VariableLengthUTF8() if text else dtype.newbyteorder("<"),  # type: ignore[arg-type]
        chunks=(min(chunk, n_rows) if n_rows <= chunk else chunk, *rest),
        shards=(min(shard, -(-n_rows // chunk) * chunk), *rest) if n_rows > chunk and not text else None,
        compressors=(ZstdCodec(level=5), Crc32cCodec()),
        fill_value="" if text else np.nan if dtype.kind == "f" else np.zeros((), dtype).item(),
        attributes=_attributes(variable) | extra,
        dimension_names=[str(dim) for dim in variable.dims],
        config={"write_empty_chunks": True},  # so that a file which is absent is always one that was lost
    )


def _restored(dataset: xr.Dataset, manifest: RecordingManifest) -> xr.Dataset:
    """The dataset as `Recording` wants it: text as fixed-width unicode, the manifest in its attributes, no encoding."""
    for name, variable in list(dataset.variables.items()):
        if variable.dtype.kind in "TO":
            values = np.asarray(variable.values.tolist(), dtype=str)
            dataset = dataset.assign_coords({name: (variable.dims, values, variable.attrs)})
    return labelled(dataset.drop_encoding(), manifest)


def _read_groups(folder: Path, manifest: RecordingManifest) -> GroupTable | None:
    if GROUPS_FILE not in manifest.files:
        return None
    text = (folder / GROUPS_FILE).read_bytes()
    _refuse_newer(text, folder / GROUPS_FILE)
    return GroupTable.parse(text, str(folder / GROUPS_FILE))


def _attributes(variable: xr.Variable) -> dict[str, Any]:
    """Attributes as JSON can hold them, arrays as lists."""
    return {str(key): np.asarray(value).tolist() for key, value in sorted(variable.attrs.items(), key=str)}


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "U" else dtype.newbyteorder("<").str


def _pieces(variable: xr.Variable) -> Iterator[NDArray[Any]]:
    for start, stop in block_bounds(variable.shape[0], variable.dtype.itemsize):
        yield variable[start:stop].values


def _bytes(block: NDArray[Any]) -> bytes | memoryview:
    if block.dtype.kind == "U":
        return json.dumps(block.tolist()).encode()
    little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    return little.view(np.uint8).data


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


def _check_presence(name: str, folder: Path, manifest: RecordingManifest) -> None:
    """Refuse a recording of which a file has gone or changed size; metadata, which has no checksum, is hashed."""
    found = []
    for file, entry in manifest.files.items():
        problem = _file_problem(folder / PurePosixPath(file), entry, hashed=file.endswith(".json"))
        if problem:
            found.append(f"{file} {problem}")
    if found:
        raise Corrupt(f"recording {name!r} cannot be read: {'; '.join(found)}")


def _refuse_newer(text: bytes, file: Path) -> None:
    """Say so where a document was written by a later neuromas, rather than call it damaged."""
    try:
        document = json.loads(text)
    except ValueError:  # damaged, which the schema will say
        return
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InvalidInput(
            f"{file} was written by a newer neuromas (format version {version}; this one reads up to {FORMAT_VERSION})",
            kind="newer_format",
        )


def _is_name(name: object) -> bool:
    # fullmatch, since Python's $ also matches before a newline at the end
    return isinstance(name, str) and len(name) <= 100 and re.fullmatch(NAME_PATTERN, name) is not None


def _is_recording(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and (folder / MANIFEST_FILE).is_file()


def _recordings_in(folder: Path) -> list[str]:
    """Names of the recordings that lie in a set's folder, whether ``set.json`` names them or not."""
    return sorted(path.name for path in folder.glob("*") if _is_name(path.name) and _is_recording(path))


def _check_names(set_name: str, names: list[str]) -> None:
    if not names:
        raise InvalidInput("no recording was given to register", kind="no_recordings")
    for what, name in (("set", set_name), *(("recording", name) for name in names)):
        if not _is_name(name) or name == SET_FILE:
            raise InvalidInput(
                f"{what} name {name!r}: expected letters, digits, '.', '_' or '-', at most 100, starting with a letter "
                f"or digit, and not {SET_FILE!r}",
                kind="invalid_name",
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"two recordings of one call are called {', '.join(twice)}", kind="duplicate_name")


def _make_folders(path: Path) -> None:
    """Make `path` and whatever is above it, durably."""
    if path.is_dir():
        return
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), [path, *path.parents]))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)
