"""Join: recordings of the same units over different trials, as one recording."""

from __future__ import annotations

from neuromas.actions.pool import destination, expanded
from neuromas.actions.register import Registered, publish
from neuromas.recordings.join import join as join_recordings
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import JoinRequest


def join(request: JoinRequest) -> Registered:
    """Join recordings of a store and register the result.

    Parameters
    ----------
    request : JoinRequest

    Returns
    -------
    Registered

    Raises
    ------
    InvalidInput
        The new name is no SET/RECORDING, or the recordings do not fit together.
    NotFound
        A set or recording that does not exist.
    Conflict
        The set holds other content under the new name.
    """
    store = existing_store(request.store)
    set_name, own = destination(request.name)
    recordings = [store.get(name) for name in expanded(store, request.recordings)]
    (registered,) = publish(store, [join_recordings(recordings, name=own)], set_name)
    return registered
