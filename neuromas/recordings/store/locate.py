"""Which store to use: the one that was named, the folder's own, or the shipped one."""

from __future__ import annotations

import os
from pathlib import Path

from neuromas.errors import NotFound
from neuromas.recordings.store.layout import PACKAGE, is_store
from neuromas.recordings.store.store import STORE_VARIABLE, RecordingStore


def shipped_store() -> RecordingStore:
    """The recording sets that come with neuromas, read-only.

    Raises
    ------
    NotFound
        This installation has none.
    """
    path = _shipped_folder()
    if path is None:
        raise NotFound("this installation of neuromas has no recordings", kind="unknown_store")
    return RecordingStore(path, read_only=True)


def resolve_store(store: RecordingStore | str | Path | None = None) -> RecordingStore:
    """The store to use: `store`, else the one ``NEUROMAS_STORE`` names, else ``./recordings``, else the shipped sets.

    Parameters
    ----------
    store : RecordingStore, str or Path, optional
        Named by the user. A `RecordingStore` is returned as it is. A folder may be absent; the first
        `RecordingStore.register` makes it.

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
    if isinstance(store, RecordingStore):
        return store
    named = store or os.environ.get(STORE_VARIABLE)
    if named:
        return RecordingStore(named)
    local = Path("recordings")
    if is_store(local):
        shipped = _shipped_folder()
        # a checkout's own recordings are changed only by a user who names them
        return shipped_store() if shipped is not None and shipped.samefile(local) else RecordingStore(local)
    return shipped_store()


def existing_store(store: RecordingStore | str | Path | None = None) -> RecordingStore:
    """The store that `resolve_store` finds, if it is there.

    Raises
    ------
    NotFound
        There is no store, or nothing was named and none was found.
    InvalidInput
        What was named is no store.
    """
    store = resolve_store(store)
    if not is_store(store.path):
        raise NotFound(f"no recording store at {store.path}; the first register makes one", kind="unknown_store")
    return store


def _shipped_folder() -> Path | None:
    folders = (PACKAGE / "_shipped" / "recordings", PACKAGE.parent / "recordings")
    return next(filter(is_store, folders), None)
