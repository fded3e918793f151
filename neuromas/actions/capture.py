"""Capture: run a system on trials of its task, and keep what was recorded."""

from __future__ import annotations

from pathlib import Path

from neuromas.actions.outputs import check_file
from neuromas.actions.register import Registered, publish
from neuromas.causal.balanced import balanced_trials
from neuromas.causal.model import CausalModel, get_task
from neuromas.errors import InvalidInput
from neuromas.recordings.export import check_ending, export
from neuromas.recordings.store.locate import resolve_store
from neuromas.schema.actions import CaptureRequest
from neuromas.systems.capture import capture as capture_system
from neuromas.systems.system import System
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
    system = load_system(request.system, device)
    model = _task(request, system)
    recording = capture_system(
        system,
        request.n_trials
        if request.per_quantity is None
        else balanced_trials(model, request.per_quantity, request.seed),
        seed=request.seed,
        name=request.name,
        access=request.access,
        model=model,
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


def _task(request: CaptureRequest, system: System) -> CausalModel:
    """The task that the system is run on: the one that is asked for, or its own."""
    task = system.config.task if request.task is None else request.task
    return get_task(task, **request.task_options)
