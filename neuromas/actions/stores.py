"""Look into a store and keep it in order: list, show, verify, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuromas.recordings.recording import Recording
from neuromas.recordings.store.index import RecordingEntry
from neuromas.recordings.store.locate import existing_store
from neuromas.recordings.store.store import RecordingStore
from neuromas.recordings.store.verify import FileProblem
from neuromas.schema.actions import ListRequest, RemoveRequest, ShowRequest, VerifyRequest


@dataclass(frozen=True)
class Listing:
    """The recordings of a store.

    Attributes
    ----------
    store : RecordingStore
    entries : list of RecordingEntry
    """

    store: RecordingStore
    entries: list[RecordingEntry]


@dataclass(frozen=True)
class Verification:
    """What became of the files of some recordings.

    Attributes
    ----------
    recordings : list of str
        Those that were looked at.
    problems : list of FileProblem
        Files that differ from what was written.
    """

    recordings: list[str]
    problems: list[FileProblem]


def list_recordings(request: ListRequest) -> Listing:
    """The recordings of a store, damaged ones included; NotFound if there is no store."""
    store = existing_store(request.store)
    return Listing(store, store.list())


def show(request: ShowRequest) -> Recording:
    """A recording whose activity stays on disk; NotFound if it does not exist, Corrupt if it is damaged."""
    return existing_store(request.store).get(request.recording, load=False)


def verify(request: VerifyRequest) -> Verification:
    """Compare every stored file with what was written; NotFound if the name does not exist."""
    store = existing_store(request.store)
    problems = store.verify(request.name)
    return Verification(_chosen(store, request.name), problems)


def removable(request: RemoveRequest) -> Listing:
    """What `remove` would delete."""
    store = existing_store(request.store)
    names = _chosen(store, request.name)
    return Listing(store, [entry for entry in store.list() if entry.name in names])


def remove(request: RemoveRequest) -> Sequence[str]:
    """Delete a recording, or a set; the names of what was deleted.

    Raises
    ------
    NotFound
        It does not exist.
    ReadOnly, StorageFailed
        The store cannot be written.
    """
    return existing_store(request.store).remove(request.name)


def _chosen(store: RecordingStore, name: str | None) -> list[str]:
    return [entry.name for entry in store.list() if name in (None, entry.set, entry.name)]
