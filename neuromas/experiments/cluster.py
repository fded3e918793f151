"""The Dask cluster that a sweep runs on: one on this machine, or one that somebody else keeps."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from neuromas.errors import InvalidInput, NeuromasError
from neuromas.scratch import BELONGS_TO, scratch_folder

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

ALLOWED_KILLS = 10
"""How often the workers that run a work item may be killed before the item fails."""
_STARTS = 3


@contextmanager
def connected(scheduler: str | None, workers: int | None, n_useful: int) -> Iterator[tuple[Client, int]]:
    """A client and how many workers there are: those of a scheduler, or of a cluster on this machine that ends with the block.

    Parameters
    ----------
    scheduler : str or None
        Address.
    workers : int or None
        Processes of the cluster on this machine; by default one per core, and never more than `n_useful`.
    n_useful : int

    Raises
    ------
    InvalidInput
        Dask is not installed, no scheduler answers, or its workers have several threads.
    NeuromasError
        The processes of a cluster on this machine did not start.
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
            'sweeps run on Dask, which is not installed: pip install "neuromas[sweep]"', kind="missing_package"
        ) from error
    if workers is not None and workers < 1:
        raise InvalidInput(f"expected at least 1 worker, got {workers}", kind="invalid_option")
    n_workers = min(workers or len(os.sched_getaffinity(0)), n_useful)
    with _elsewhere(scheduler) if scheduler is not None else _here(n_workers) as connection:
        yield connection


@contextmanager
def _elsewhere(scheduler: str) -> Iterator[tuple[Client, int]]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"no Dask scheduler at {scheduler}: {error}", kind="no_scheduler") from error
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        several = [address for address, worker in workers.items() if worker["nthreads"] != 1]
        if several:
            raise InvalidInput(
                f"workers of {scheduler} have several threads ({', '.join(several)}), which would share random numbers;"
                " start them with: dask worker --nthreads 1",
                kind="invalid_option",
            )
        yield client, len(workers)


@contextmanager
def _here(n_workers: int) -> Iterator[tuple[Client, int]]:
    import dask
    from distributed import Client

    with scratch_folder("neuromas-sweep-") as scratch:
        settings = {
            "temporary-directory": str(scratch),
            "distributed.scheduler.allowed-failures": ALLOWED_KILLS,
            # so that a killed worker takes only what it runs with it
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.nanny.pre-spawn-environ": {
                **dask.config.get("distributed.nanny.pre-spawn-environ"),
                **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
                "OMP_WAIT_POLICY": "PASSIVE",
                # so that no worker outlives this process, however that ends
                BELONGS_TO: str(scratch),
            },
        }
        with (
            dask.config.set(settings),
            _started(n_workers, scratch) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client, n_workers


def _started(n_workers: int, scratch: Path) -> LocalCluster:
    """A cluster whose workers are there. A worker that is killed meanwhile, e.g. for want of memory, is started again.

    Raises
    ------
    NeuromasError
        It did not start.
    """
    from distributed import LocalCluster

    for attempt in range(1, _STARTS + 1):
        try:
            with _ctrl_c_held():
                return LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    # no fixed port, and no dashboard on it
                    dashboard_address=":0",
                    scheduler_kwargs={"dashboard": False},
                    memory_limit=0,
                    local_directory=str(scratch),
                    silence_logs=logging.CRITICAL,
                )
        except Exception as error:  # Dask raises whatever ended a worker
            if attempt == _STARTS:
                raise NeuromasError(
                    f"the {n_workers} worker processes of the sweep did not start, {_STARTS} times: {error}; is there enough"
                    " memory? Fewer workers need less (--workers 1)",
                    kind="no_workers",
                ) from error
    raise AssertionError("unreachable")


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Threads and processes that begin meanwhile never see Ctrl-C, which a terminal sends to all; the main thread does."""
    # started by a process's first spawn, the tracker would let Ctrl-C through to that thread
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
