"""Train: a network on a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuromas.actions.outputs import check_folder
from neuromas.schema.system import TrainRequest
from neuromas.systems.system import System
from neuromas.systems.training import train_from


def train(
    request: TrainRequest,
    out: str | Path,
    *,
    device: str = "cpu",
    progress: bool | Callable[[int, float, float | None], None] = False,
) -> System:
    """Train a network until it solves held-out trials, and save it in `out`.

    Interrupted, it goes on from its checkpoint there when it is called again. A llama keeps no checkpoint.

    Parameters
    ----------
    request : TrainRequest
    out : path-like
        Folder for configuration, weights and checkpoint.
    device : str
    progress : bool or callable
        True shows a bar. A function is called with iteration, loss, and the latest held-out trial accuracy or None.

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
    return train_from(request, out=check_folder(out), device=device, progress=progress)
