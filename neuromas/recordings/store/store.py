"""`RecordingStore`: recording sets in a folder, as users see them."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from pathlib import Path

from neuromas.errors import Corrupt, InvalidInput, NeuromasError, ReadOnly
from neuromas.files import local_path
from neuromas.html import table
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.arrays import checked_on_reading, open_published, read_groups, restored
from neuromas.recordings.store.commit import register_recordings, register_stream, remove_recordings
from neuromas.recordings.store.index import (
    RecordingEntry,
    entries,
    members_or_present,
    names_by_set,
    no_such_set,
    parse_name,
    read_published,
)
from neuromas.recordings.store.layout import PACKAGE, SET_FILE, check_names, is_store, is_vacant, set_folders
from neuromas.recordings.store.published import Published
from neuromas.recordings.store.verify import FileProblem, check_presence, folder_problems, store_problems

STORE_VARIABLE = "NEUROMAS_STORE"
"""Environment variable that names the store."""

_SHOWN_SETS, _SHOWN_NAMES, _SHOWN_ROWS = 8, 4, 100


class RecordingStore:
    """Recording sets in a folder.

    Parameters
    ----------
    path : str or Path
        The store's folder. If it is absent or empty, the first `register` makes it a store.
    read_only : bool
        Whether to refuse any change. Sets that ship with neuromas are always read-only where they are installed.

    Raises
    ------
    InvalidInput
        The folder holds something else, or `path` looks like a URL.

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
        self.path = local_path(path)
        self.read_only = read_only or self.path.absolute().is_relative_to(PACKAGE)
        if not is_store(self.path) and not is_vacant(self.path):
            raise InvalidInput(
                f"{self.path} is not a recording store: expected a folder with recording sets (SET/{SET_FILE}), "
                "or an empty or absent one",
                kind="not_a_store",
            )

    def __repr__(self) -> str:
        sets = names_by_set(self.path)
        lines = [
            f"  {set_name}: {'cannot be read' if isinstance(names, NeuromasError) else _first_names(names)}"
            for set_name, names in [*sets.items()][:_SHOWN_SETS]
        ]
        more = [f"  and {len(sets) - _SHOWN_SETS} more sets"] if len(sets) > _SHOWN_SETS else []
        n_recordings = sum(len(names) for names in sets.values() if not isinstance(names, NeuromasError))
        return "\n".join([f"<{self._headline(n_recordings, len(sets))}>", *lines, *more])

    def _repr_html_(self) -> str:
        listed = self.list()
        more = f"and {len(listed) - _SHOWN_ROWS} more recordings" if len(listed) > _SHOWN_ROWS else ""
        n_sets = len({entry.set for entry in listed})
        n_recordings = sum(entry.recording != "?" for entry in listed)
        return table(
            ["recording", "samples × units", "access", "variables"],
            [_row(entry) for entry in listed[:_SHOWN_ROWS]],
            caption=self._headline(n_recordings, n_sets),
            note=more,
        )

    def _headline(self, n_recordings: int, n_sets: int) -> str:
        recordings = f"{n_recordings} recording{'s' * (n_recordings != 1)}"
        mode = ", read-only" if self.read_only else ""
        return f"RecordingStore {str(self.path)!r}: {recordings} in {n_sets} set{'s' * (n_sets != 1)}{mode}"

    # ---------------------------------------------------------------------------------------------------------- reading

    def list(self) -> builtins.list[RecordingEntry]:
        """Every recording, by set and name; a damaged recording is listed with its problem."""
        return entries(self.path)

    def sets(self) -> builtins.list[str]:
        """Names of the recording sets."""
        return [folder.name for folder in set_folders(self.path)]

    def get(self, name: str, *, load: bool = True) -> Recording:
        """The recording called `name`.

        Parameters
        ----------
        name : str
            ``SET/RECORDING``.
        load : bool
            Whether to read everything now, so that damage shows now. If false, activity is read when it is used; after the
            recording was removed or replaced, that is an error.

        Returns
        -------
        Recording
            With the stored manifest, whose ``files`` name everything that was checked.

        Raises
        ------
        NotFound
            There is no such set or recording. The error lists what exists and ends with the nearest name.
        Corrupt
            A file is missing, has another size, or holds other bytes than were written; names the file.
        """
        set_name, recording_name = parse_name(self.path, name)
        return read_published(self.path, set_name, recording_name, lambda published: _opened(published, load))

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
        return store_problems(self.path, name)

    # --------------------------------------------------------------------------------------------------------- changing

    def register(
        self, recordings: Recording | Iterable[Recording], *, set: str, group_by: Sequence[str] = ()
    ) -> builtins.list[str]:
        """Publish recordings as members of a set, all of them at once or none.

        Parameters
        ----------
        recordings : Recording or iterable of Recording
            Their names must differ. A recording is skipped if the set already holds the same content under its name.
        set : str
            The set's name. A new set is made if there is none; otherwise the set grows.
        group_by : sequence of str, optional
            Variables by whose values samples are stored together, in random order within each combination. Then
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
            What was written did not read back equal, or the set's ``set.json`` is damaged, or missing though recordings
            lie beside it. Nothing was published.
        """
        self._refuse_if_read_only("registered")
        members = [recordings] if isinstance(recordings, Recording) else [*recordings]
        members = [
            member._view(member.dataset, member.manifest) if member.manifest.grouped_by else member
            for member in members
        ]
        names = [member.manifest.name for member in members]
        check_names(set, names)
        register_recordings(self.path, set, members, group_by)
        return [f"{set}/{name}" for name in names]

    def register_blocks(self, blocks: Iterable[Recording], *, set: str, name: str, group_by: Sequence[str] = ()) -> str:
        """Publish one recording that comes in blocks and may be larger than memory.

        Parameters
        ----------
        blocks : iterable of Recording
            Each small enough for memory, all with the same units, variables and coordinates. Every trial lies whole in
            one block. Blocks are taken one at a time, once.
        set, name : str
            What the recording will be called: ``SET/NAME``. The rest of the manifest is that of the first block.
        group_by : sequence of str, optional
            As in `register`; without it samples keep their order.

        Returns
        -------
        str
            ``SET/NAME``.

        Raises
        ------
        InvalidInput
            There is no block, a block differs from the first, or two blocks hold the same trial.
        Conflict
            The set holds other content under that name. This shows after all blocks were read.
        NotFound, ReadOnly, StorageFailed, Corrupt
            As `register`.

        Notes
        -----
        Peak memory is that of one block, a few times 64 MiB, 8 bytes per trial, and text coordinates, which are held whole.
        During the call the store's folder holds all samples a second time, uncompressed, and the largest group a third time.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
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
        check_names(set, [name])
        register_stream(self.path, set, name, blocks, group_by)
        return f"{set}/{name}"

    def remove(self, name: str) -> builtins.list[str]:
        """Take a recording, or a whole set, out of the store.

        Parameters
        ----------
        name : str
            ``SET/RECORDING`` or ``SET``. A set that loses its last recording is removed, too. A set whose ``set.json`` is
            damaged or missing can be removed as a whole, with every recording that lies in it.

        Returns
        -------
        list of str
            ``SET/RECORDING`` of each that was removed.

        Raises
        ------
        NotFound
            There is no such set or recording.
        Corrupt
            A single recording is to be removed, and the set's ``set.json`` is damaged or missing.
        Conflict
            Another process is registering it.
        ReadOnly
            The store is read-only.
        StorageFailed
            The disk refused.
        """
        self._refuse_if_read_only("removed")
        whole_set = "/" not in name
        if not whole_set:
            set_name, recording_name = parse_name(self.path, name)
            names = [recording_name]
        elif name in self.sets():
            set_name, names = name, sorted(members_or_present(self.path, name))
        else:
            raise no_such_set(self.path, name)
        remove_recordings(self.path, set_name, names, whole_set=whole_set)
        return [f"{set_name}/{recording_name}" for recording_name in names]

    def _refuse_if_read_only(self, done: str) -> None:
        if self.read_only:
            raise ReadOnly(
                f"{self.path} is read-only, so nothing can be {done} there; name a store of your own "
                f"(--store PATH, or {STORE_VARIABLE})",
                kind="read_only_store",
            )


def _opened(published: Published, load: bool) -> Recording:
    check_presence(published)
    try:
        dataset = open_published(published)
        dataset = dataset.load() if load else checked_on_reading(dataset, published.name)
        dataset = restored(dataset, published.manifest)
        groups = read_groups(published)
    except (InvalidInput, Corrupt):
        raise
    except Exception as error:  # whatever zarr's codecs raise; only the hashes can tell which file it was
        reason = "; ".join(f"{each.file} {each.problem}" for each in folder_problems(published)) or str(error)
        raise Corrupt(f"recording {published.name!r} cannot be read: {reason}") from error
    return Recording._trusted(dataset, published.manifest, groups)


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _row(entry: RecordingEntry) -> list[str]:
    """What a notebook shows of a recording; of a damaged one, its problem."""
    if entry.problem:
        return [entry.name, entry.problem, "", ""]
    return [entry.name, f"{entry.n_samples} × {entry.n_units}", entry.access, ", ".join(entry.variables)]
