"""Twin: models of a system that can only be read, learnt from its recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuromas.actions.outputs import check_folder
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import TwinRequest
from neuromas.twins.twin import Twin


def twin(
    request: TwinRequest,
    out: str | Path,
    *,
    progress: Callable[[str, int, int, float], None] | None = None,
) -> Twin:
    """Learn a twin and save it in `out`.

    Interrupted, it goes on from its checkpoints there when it is called again.

    Parameters
    ----------
    request : TwinRequest
    out : path-like
        Folder for the card, the weights and the checkpoints.
    progress : callable, optional
        Called with the member that is trained, its iteration, the largest iteration, and its latest validation loss.

    Returns
    -------
    Twin

    Raises
    ------
    NotFound
        A recording, unit, input or behaviour that does not exist.
    InvalidInput
        A recording that no twin can be learnt from, or a folder that holds another twin.
    """
    recording = existing_store(request.store).get(request.recording)
    return Twin.fit(recording, request.config, units=request.units, out=check_folder(out), progress=progress)
