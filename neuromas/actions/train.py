"""Train: a network on a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuromas.actions.outputs import check_folder
from neuromas.causal.model import get_task
from neuromas.schema.system import TrainRequest
from neuromas.systems.system import System
from neuromas.systems.training import train as train_system


def train(
    request: TrainRequest,
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[int, float, float | None], None] | None = None,
) -> System:
    """Train a network until it solves held-out trials, and save it in `out`.

    Interrupted, it goes on from its checkpoint there when it is called again.

    Parameters
    ----------
    request : TrainRequest
    out : path-like
        Folder for configuration, weights and checkpoint.
    device : str
    progress : callable, optional
        Called with iteration, loss, and the latest held-out trial accuracy or None.

    Returns
    -------
    System
        Frozen.

    Raises
    ------
    NotFound
        Unknown task or kind.
    InvalidInput
        An option that the task or kind does not have, or a folder that holds another network.
    """
    settings = {
        name: getattr(request, name) for name in request.model_fields_set - {"task", "options", "format_version"}
    }
    return train_system(
        get_task(request.task, **request.options), out=check_folder(out), device=device, progress=progress, **settings
    )
