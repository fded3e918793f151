"""Capture: run a system on trials of its task, and keep what was recorded."""

from __future__ import annotations

from pathlib import Path

from neuromas.actions.outputs import check_file
from neuromas.actions.register import Registered, publish
from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput
from neuromas.recordings.export import check_ending, export
from neuromas.recordings.store.locate import resolve_store
from neuromas.schema.actions import CaptureRequest
from neuromas.systems.capture import capture as capture_system
from neuromas.systems.training import load_system


def capture(request: CaptureRequest, *, out: str | Path | None = None, device: str = "cpu") -> Registered:
    """Record a system into a set of a store, or into a file.

    Parameters
    ----------
    request : CaptureRequest
    out : path-like, optional
        A ``.nc`` or ``.npz`` file, if ``request.set`` is not given.
    device : str

    Returns
    -------
    Registered
        Its name is the file's, if there is one.

    Raises
    ------
    InvalidInput
        Neither a set nor a file, or both; a task whose tokens the system does not know, or which it solves no better
        than guesses would.
    NotFound
        A system or task that does not exist.
    """
    if (request.set is None) == (out is None):
        raise InvalidInput("capture: expected either --set NAME or --out FILE", kind="no_destination")
    store = None if request.set is None else resolve_store(request.store)
    if out is not None:
        check_file(check_ending(Path(out), (".nc", ".npz")))
    recording = capture_system(
        load_system(request.system, device),
        request.n_trials,
        seed=request.seed,
        name=request.name,
        access=request.access,
        model=None if request.task is None else get_task(request.task),
        dtype=request.dtype,
        only_solved=request.only_solved,
        allow_unsolved=request.allow_unsolved,
    )
    if store is not None and request.set is not None:
        (registered,) = publish(store, [recording], request.set)
        return registered
    assert out is not None
    export(recording, Path(out))
    return Registered(str(out), recording, False)
