"""Pool: units that were recorded in different trials, as one pseudo-population."""

from __future__ import annotations

from collections.abc import Sequence

from neuromas.actions.register import Registered, publish
from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.pseudo import pool as pool_recordings
from neuromas.recordings.store.locate import existing_store
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import PoolRequest


def pool(request: PoolRequest) -> Registered:
    """Join units of several recordings and register the result; trials of train and test stay apart.

    Parameters
    ----------
    request : PoolRequest

    Returns
    -------
    Registered

    Raises
    ------
    InvalidInput
        The new name is no SET/RECORDING, or no unit has enough trials.
    NotFound
        A set, recording or variable that does not exist.
    """
    store = existing_store(request.store)
    set_name, own = destination(request.name)
    pooled = pool_recordings(
        [store.get(name) for name in expanded(store, request.recordings)],
        list(request.by),
        name=own,
        mapping=request.mapping,
        n_trials=request.n_trials,
        replace=request.replace,
        min_trials=request.min_trials,
        seed=request.seed,
    )
    (registered,) = publish(store, [pooled], set_name)
    return registered


def destination(name: str) -> tuple[str, str]:
    """Set and name of a recording to be made, from SET/RECORDING.

    Raises
    ------
    InvalidInput
        `name` has another form.
    """
    set_name, slash, own = name.partition("/")
    if not slash or not own:
        raise InvalidInput(f"name {name!r}: expected SET/RECORDING", kind="invalid_option")
    return set_name, own


def expanded(store: RecordingStore, names: Sequence[str]) -> list[str]:
    """The recordings that `names` stand for: a set stands for all of its recordings.

    Raises
    ------
    NotFound
        No recording is meant.
    """
    entries = [entry.name for entry in store.list()]
    chosen = [
        recording
        for name in names
        for recording in ([name] if "/" in name else [entry for entry in entries if entry.startswith(f"{name}/")])
    ]
    if not chosen:
        raise NotFound(f"no recordings in {', '.join(names)}", kind="unknown_set")
    return chosen
