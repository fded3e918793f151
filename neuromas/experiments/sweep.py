"""Run a sweep on Dask distributed: train what is missing, then fit, score and measure what is not finished yet.

Workers write into the sweep's folder and return one word each, so with a scheduler on other machines the folder must be a
shared one, at the same path everywhere. Dask is an extra, ``pip install "neuromas[sweep]"``; a sweep in which everything is
finished needs neither it nor any process.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from neuromas.errors import InvalidInput
from neuromas.experiments.jobs import (
    Planned,
    Stopped,
    expand,
    finished,
    job_folder,
    one_thread,
    run_job,
    run_training,
    settle,
    trained,
    why,
)
from neuromas.files import write_atomically
from neuromas.progress import Bar
from neuromas.schema.sweep import Sweep, SweepJob
from neuromas.schema.system import SystemConfig, TrainSpec
from neuromas.systems.system import check_device
from neuromas.systems.training import shipped_systems

if TYPE_CHECKING:
    from distributed import Client, Future

ERROR = "error.txt"
"""Traceback of a unit that failed, in its folder, until it succeeds."""
_ALLOWED_KILLS = 10  # of the workers that a unit runs on, before it counts as what kills them
_TELL_EVERY_S = 1.0
_SHOWN = 3  # units on the progress bar

_stopped: set[str] = set()  # on a worker: runs that somebody wants to end


@dataclass(frozen=True)
class Unit:
    """What one task of the cluster does: train a system, or do a job.

    Attributes
    ----------
    name : str
        For people.
    folder : Path
    job : SweepJob or None
        Settled.
    made : TrainSpec or None
        With the system's name, for a training.
    system : str
    """

    name: str
    folder: Path
    job: SweepJob | None = None
    made: TrainSpec | None = None
    system: str = ""


@dataclass(frozen=True)
class Ended:
    """How a unit ended; `problem` is None if it is done."""

    problem: str | None = None


@dataclass
class SweepRun:
    """What a sweep came to.

    Attributes
    ----------
    sweep : Sweep
    out : Path
    jobs : list of Planned
        Those that are finished, settled, in the order of the sweep.
    problems : dict of str to str
        Trainings and jobs that failed, and why.
    n_done : int
        Units that this run did; all others were finished before.
    n_jobs : int
        How many jobs the sweep has.
    """

    sweep: Sweep
    out: Path
    jobs: list[Planned] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    n_done: int = 0
    n_jobs: int = 0


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    devices: Sequence[str] = ("cpu",),
    console: Console | None = None,
) -> SweepRun:
    """Do what `sweep` declares and is not finished in `out`.

    Interrupted, or with failed jobs, it goes on from what `out` holds when called again: finished jobs are found by their
    identity, others go on from their checkpoints. A job that fails keeps no other from being done.

    Parameters
    ----------
    sweep : Sweep
    out : path-like
        Holds ``systems/``, ``fits/`` and ``measures/``, for any number of sweeps.
    workers : int, optional
        Processes of a cluster on this machine, one thread each; by default one per core, or per device where these are not the
        CPU, and never more than units.
    scheduler : str, optional
        Address of a Dask scheduler whose workers are used instead, e.g. ``tcp://10.0.0.1:8786``. They need one thread each, and
        `out` at the same path.
    devices : sequence of str
        Where fits are computed: workers take them in turn, so that ``["cuda:0", "cuda:1"]`` spreads them over two GPUs. With a
        `scheduler` it is one, and which GPU a worker sees is the worker's (``CUDA_VISIBLE_DEVICES``).
    console : rich.console.Console, optional
        Where progress is shown; standard error by default.

    Returns
    -------
    SweepRun

    Raises
    ------
    InvalidInput
        A device is not there; Dask is not installed; there is no scheduler at the address, or its workers have several
        threads; `out` holds other systems under the sweep's names.
    NotFound, InvalidDocument
        What `expand` raises.
    KeyboardInterrupt
        Ctrl-C: running units were told to stop, and the cluster is closed.
    """
    check_devices(devices, workers, scheduler)
    out = Path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    planned = expand(sweep)
    wanted = {one.name.partition("@")[0] for each in planned for one in each.job.systems} - set(shipped_systems())
    known = {name: trained(out, name, made) for name, made in sweep.systems.items() if name in wanted}
    run = SweepRun(sweep, out, n_jobs=len(planned))
    state = _State(run, planned, {name: config.weights_sha256 for name, config in known.items() if config is not None})
    state.to_train = {name: sweep.systems[name] for name, config in known.items() if config is None}
    units = state.ready()
    if units:
        n_units = state.n_units
        if workers is None and any(device != "cpu" for device in devices):
            workers = len(devices)
        with _connected(scheduler, workers, n_units) as client:
            _work(state, units, client, devices, console, n_units)
    for name, config in known.items():
        _warn_if_poor(name, config or trained(out, name, sweep.systems[name]), sweep.systems[name], console)
    run.jobs = [
        Planned(job, one.label, one.tags)
        for one in planned
        if (job := settle(one.job, state.weights)) is not None and finished(out, job)
    ]
    return run


def check_devices(devices: Sequence[str], workers: int | None = None, scheduler: str | None = None) -> None:
    """InvalidInput unless `run_sweep` can compute on all of `devices`."""
    if isinstance(devices, str) or not devices:
        raise InvalidInput(f"expected a list of devices, at least one; got {devices!r}", kind="no_device")
    if scheduler is not None:
        if len(devices) > 1:
            raise InvalidInput(
                f"expected one device beside a scheduler, whose workers see what they see; got {', '.join(devices)}",
                kind="wrong_workers",
            )
        return
    if workers is not None and workers < len(devices):
        raise InvalidInput(
            f"{len(devices)} devices, but workers are {workers}: the others would have nothing to do",
            kind="wrong_workers",
        )
    for device in devices:
        check_device(device)


class _State:
    """Which units can be done next, and what has become of the others."""

    def __init__(self, run: SweepRun, planned: Sequence[Planned], weights: Mapping[str, str | None]) -> None:
        self.run, self.planned = run, planned
        self.weights = {name: value for name, value in weights.items() if value is not None}
        self.to_train: dict[str, TrainSpec] = {}
        self._begun: set[str] = set()

    @property
    def n_units(self) -> int:
        """Trainings and jobs that are not finished yet; equal jobs count once."""
        settled = [settle(one.job, self.weights) for one in self.planned]
        ids = {job.identity() for job in settled if job is not None and not finished(self.run.out, job)}
        later = {one.job.identity() for one, job in zip(self.planned, settled, strict=True) if job is None}
        return len(self.to_train) + len(ids) + len(later)

    def ready(self) -> list[Unit]:
        """Units that were not begun and lack nothing: trainings first, then jobs whose systems are all there."""
        found = []
        for name, made in self.to_train.items():
            if name not in self._begun:
                self._begun.add(name)
                found.append(Unit(f"training {name}", self.run.out / "systems" / name, made=made, system=name))
        for one in self.planned:
            job = settle(one.job, self.weights)
            if job is None or job.identity() in self._begun:
                continue
            self._begun.add(job.identity())
            if not finished(self.run.out, job):
                found.append(Unit(_told(one), job_folder(self.run.out, job), job=job))
        return found

    def end(self, unit: Unit, ended: Ended) -> None:
        """Take note of how `unit` ended; what it made must be here."""
        problem = ended.problem
        if problem is None and unit.job is not None and not finished(self.run.out, unit.job):
            problem = f"a worker says that it is done, but it is not in {unit.folder}: the folder must be a shared one"
        if problem is None and unit.made is not None:
            config = trained(self.run.out, unit.system, unit.made)
            if config is None or config.weights_sha256 is None:
                problem = (
                    f"a worker says that it is done, but it is not in {unit.folder}: the folder must be a shared one"
                )
            else:
                self.weights[unit.system] = config.weights_sha256
        if problem is None:
            self.run.n_done += 1
        else:
            self.run.problems[unit.name] = problem


def _told(one: Planned) -> str:
    """A job in words: group, place on the axes, systems."""
    point = "".join(f", {key} {value}" for key, value in one.tags.items())
    return f"{one.label}{point}: {' + '.join(system.name for system in one.job.systems)}"


def _warn_if_poor(name: str, config: SystemConfig | None, made: TrainSpec, console: Console | None) -> None:
    accuracy = None if config is None else config.trial_accuracy
    if accuracy is not None and accuracy < made.target_accuracy:
        said = f"warning: {name} reached a trial accuracy of {accuracy:.4f} only, below {made.target_accuracy:g}"
        (console or Console(stderr=True)).print(said, style="yellow", highlight=False, soft_wrap=True)


# ------------------------------------------------------------------------------------------------------------- on a worker


def _on_worker(unit: Unit, out: str, run: str, devices: Sequence[str]) -> Ended:
    """Do `unit` on whatever worker this is; errors are values, since not every one survives the way back."""
    from distributed import get_worker

    worker, said = get_worker(), 0.0

    def tell(iteration: int, most: int, told: str) -> None:
        nonlocal said
        if run in _stopped:
            raise Stopped
        if time.monotonic() - said >= _TELL_EVERY_S:
            said = time.monotonic()
            worker.log_event(_topic(run), {"unit": unit.name, "told": f"{iteration}/{most} {told}"})

    one_thread()
    if not Path(out).is_dir():
        return Ended(f"worker {worker.address} finds no folder {out}; it must be shared, at the same path everywhere")
    try:
        if unit.made is not None:
            run_training(unit.system, unit.made, Path(out), tell)
        elif unit.job is not None:
            run_job(unit.job, Path(out), tell, device_of(worker.name, devices))
    except Stopped:
        return Ended("stopped")
    except Exception as error:
        write_atomically(unit.folder / ERROR, traceback.format_exc())
        return Ended(why(error))
    (unit.folder / ERROR).unlink(missing_ok=True)
    return Ended()


def device_of(worker: object, devices: Sequence[str]) -> str:
    """The device of a worker, which has a number where its cluster is our own.

    Examples
    --------
    >>> [device_of(number, ["cuda:0", "cuda:1"]) for number in range(3)]
    ['cuda:0', 'cuda:1', 'cuda:0']
    """
    return devices[worker % len(devices)] if isinstance(worker, int) else devices[0]


def _topic(run: str) -> str:
    return f"neuromas-{run}"


def _stop(run: str) -> None:
    _stopped.add(run)


# -------------------------------------------------------------------------------------------------------------- the cluster


def _work(
    state: _State,
    units: list[Unit],
    client: Client,
    devices: Sequence[str],
    console: Console | None,
    n_units: int,
) -> None:
    from distributed import as_completed

    run = uuid.uuid4().hex[:12]
    running: dict[str, str] = {}
    by_key: dict[str, Unit] = {}
    futures: list[Future] = []
    n_ended = 0

    def submit(more: Sequence[Unit]) -> list[Future]:
        made = []
        for unit in more:
            key = f"neuromas-{run}-{len(by_key)}"
            by_key[key] = unit
            made.append(client.submit(_on_worker, unit, str(state.run.out), run, tuple(devices), key=key, pure=False))
        futures.extend(made)
        return made

    with Bar(state.run.sweep.figure, n_units, console) as bar:

        def heard(event: tuple[float, Mapping[str, Any]]) -> None:
            running[event[1]["unit"]] = event[1]["told"]
            bar.update(n_ended, _shown(running))

        client.subscribe_topic(_topic(run), heard)
        completed = as_completed(submit(units), loop=client.loop)
        try:
            for future in completed:
                unit = by_key[future.key]
                state.end(unit, _ended(future))
                n_ended += 1
                running.pop(unit.name, None)
                bar.update(n_ended, _shown(running))
                for more in submit(state.ready()):
                    completed.add(more)
        except KeyboardInterrupt:
            client.cancel(futures)
            client.run(_stop, run, on_error="ignore")
            raise
        finally:
            client.unsubscribe_topic(_topic(run))
        bar.finish(n_ended, f"done, {len(state.run.problems)} failed")


def _ended(future: Future) -> Ended:
    error = future.exception()
    if error is None:
        ended: Ended = future.result()
        return ended
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return Ended(f"its workers were killed {_ALLOWED_KILLS + 1} times; is there enough memory?")
    return Ended(why(error))


def _shown(running: Mapping[str, str]) -> str:
    now = [f"{unit} {told}" for unit, told in list(running.items())[:_SHOWN]]
    more = len(running) - len(now)
    return " · ".join(now) + (f" · and {more} more" if more > 0 else "")


@contextmanager
def _connected(scheduler: str | None, workers: int | None, n_units: int) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a cluster on this machine that ends with the block."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InvalidInput(
            'sweeps run on Dask, which is not installed: pip install "neuromas[sweep]"', kind="missing_extra"
        ) from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"no Dask scheduler at {scheduler}: {error}", kind="no_scheduler") from error
        with client:
            threads = {
                address: worker["nthreads"]
                for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()
            }
            several = [address for address, number in threads.items() if number != 1]
            if several:
                raise InvalidInput(
                    f"workers of {scheduler} have several threads ({', '.join(several)}), which would share random numbers;"
                    " start them with: dask worker --nthreads 1",
                    kind="wrong_workers",
                )
            yield client
        return
    if workers is not None and workers < 1:
        raise InvalidInput(f"expected at least 1 worker, got {workers}", kind="wrong_workers")
    settings = {
        "distributed.scheduler.allowed-failures": _ALLOWED_KILLS,
        "distributed.scheduler.worker-saturation": 1.0,  # a killed worker takes only what it runs with it
        "distributed.nanny.pre-spawn-environ": {
            **dask.config.get("distributed.nanny.pre-spawn-environ"),
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "OMP_WAIT_POLICY": "PASSIVE",
        },
    }
    n_workers = min(workers or len(os.sched_getaffinity(0)), n_units)
    with (
        dask.config.set(settings),
        tempfile.TemporaryDirectory(prefix="neuromas-sweep-", ignore_cleanup_errors=True) as scratch,
    ):
        with _ctrl_c_held():
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",  # no fixed port, and no dashboard on it
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Threads and processes that are begun meanwhile never see Ctrl-C, which a terminal sends to all; who began them does."""
    resource_tracker.ensure_running()  # started by a process's first spawn, it would let Ctrl-C through to that thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
