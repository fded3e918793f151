"""Run a sweep on Dask distributed: train what is missing, then fit, score and measure what is not finished yet.

Workers write into the sweep's folder and return a few words each, so with a scheduler on other machines the folder must be a
shared one, at the same path everywhere. Dask is an extra, ``pip install "neuromas[sweep]"``; a sweep in which everything is
finished needs neither Dask nor any process.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from neuromas.errors import InvalidInput
from neuromas.experiments.attempts import Stopped
from neuromas.experiments.cluster import ALLOWED_KILLS, connected
from neuromas.experiments.groups import grouped
from neuromas.experiments.jobs import Planned, expand, finished, job_folder, settle
from neuromas.experiments.training_jobs import run_training, trained
from neuromas.experiments.work import describe, one_thread, run_jobs
from neuromas.files import local_path, write_atomically
from neuromas.progress import Bar
from neuromas.schema.sweep import Sweep, SweepJob
from neuromas.schema.system import SystemConfig, TrainSpec
from neuromas.systems.system import check_device
from neuromas.systems.training import shipped_systems

if TYPE_CHECKING:
    from distributed import Client, Future

ERROR = "error.txt"
"""Traceback of a training or job that failed, in its folder, until it succeeds."""
_REPORT_EVERY_S = 1.0
_SHOWN = 3  # trainings and jobs on the progress bar

_stopped: set[str] = set()  # on a worker: runs that somebody wants to end


@dataclass(frozen=True)
class WorkItem:
    """What one task of the cluster does: train a system, or do jobs, several of them together.

    Attributes
    ----------
    names : tuple of str
        What people call the training, or each job.
    folders : tuple of Path
        One for each name.
    jobs : tuple of SweepJob
        Settled; none for a training.
    system : str
        Name of the system to train.
    made : TrainSpec or None
        How to train it.
    """

    names: tuple[str, ...]
    folders: tuple[Path, ...]
    jobs: tuple[SweepJob, ...] = ()
    system: str = ""
    made: TrainSpec | None = None


@dataclass(frozen=True)
class Ended:
    """How a work item ended.

    Attributes
    ----------
    problems : dict of str to str
        Why each name that failed did so; all others are done.
    killed : bool
        Whether the workers that ran it were killed.
    """

    problems: Mapping[str, str] = field(default_factory=dict)
    killed: bool = False

    @classmethod
    def all_with(cls, item: WorkItem, problem: str, *, killed: bool = False) -> Ended:
        """Every name of `item` failed for the same reason."""
        return cls(dict.fromkeys(item.names, problem), killed)


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
        Trainings and jobs that this run did; all others were finished before.
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

    Fits of the same systems run together where that saves time (`neuromas.experiments.groups.grouped`); each comes to what it
    comes to alone, but for rounding. If the sweep was interrupted, or jobs failed, call it again: finished jobs are found by
    their identity, and others go on from their checkpoints. A job that fails keeps no other from being done.

    Parameters
    ----------
    sweep : Sweep
    out : path-like
        Holds ``systems/``, ``fits/`` and ``measures/``, for any number of sweeps.
    workers : int, optional
        Processes of a cluster on this machine, one thread each; by default one per core, or per device where these are not the
        CPU, and never more than there are trainings and jobs.
    scheduler : str, optional
        Address of a Dask scheduler whose workers are used instead, e.g. ``tcp://10.0.0.1:8786``. They need one thread each, and
        `out` at the same path.
    devices : sequence of str
        Where fits are computed: workers take them in turn, so that ``["cuda:0", "cuda:1"]`` spreads them over two GPUs. With a
        `scheduler`, give one device; which GPU a worker sees is the worker's (``CUDA_VISIBLE_DEVICES``).
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
        Ctrl-C: running work was told to stop, and the cluster is closed.
    """
    check_devices(devices, workers, scheduler)
    out = local_path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    planned = expand(sweep)
    needed = {system.name.partition("@")[0] for each in planned for system in each.job.systems} - set(shipped_systems())
    configs = {name: trained(out, name, made) for name, made in sweep.systems.items() if name in needed}
    run = SweepRun(sweep, out, n_jobs=len(planned))
    state = _State(run, planned, configs, devices)
    n_open = state.n_open
    if n_open:
        if workers is None and any(device != "cpu" for device in devices):
            workers = len(devices)
        with connected(scheduler, workers, n_open) as (client, n_workers):
            state.n_workers = n_workers
            _work(state, client, console, n_open)
    for name, config in configs.items():
        _warn_if_poor(name, config or trained(out, name, sweep.systems[name]), sweep.systems[name], console)
    run.jobs = [
        Planned(job, each.label, each.tags)
        for each in planned
        if (job := settle(each.job, state.weights)) is not None and finished(out, job)
    ]
    return run


def check_devices(devices: Sequence[str], workers: int | None = None, scheduler: str | None = None) -> None:
    """InvalidInput unless `run_sweep` can compute on all of `devices`."""
    if isinstance(devices, str) or not devices:
        raise InvalidInput(f"expected a list of devices, at least one; got {devices!r}", kind="invalid_device")
    if scheduler is not None:
        if len(devices) > 1:
            raise InvalidInput(
                "expected one device beside a scheduler, since its workers decide which GPU they see; got"
                f" {', '.join(devices)}",
                kind="invalid_option",
            )
        return
    if workers is not None and workers < len(devices):
        raise InvalidInput(
            f"expected at least one worker per device, got {workers} for {len(devices)} devices: the other devices would have"
            " nothing to do",
            kind="invalid_option",
        )
    for device in devices:
        check_device(device)


class _State:
    """Which work can be done next, and what has become of the other."""

    def __init__(
        self,
        run: SweepRun,
        planned: Sequence[Planned],
        configs: Mapping[str, SystemConfig | None],
        devices: Sequence[str],
    ) -> None:
        self.run, self.planned, self.devices = run, planned, tuple(devices)
        self.weights = {
            name: config.weights_sha256
            for name, config in configs.items()
            if config is not None and config.weights_sha256 is not None
        }
        self.to_train = {name: run.sweep.systems[name] for name, config in configs.items() if config is None}
        self.n_workers = 1
        self._begun: set[str] = set()
        self._alone: set[str] = set()

    @property
    def n_open(self) -> int:
        """Trainings and jobs that are not finished yet; equal jobs count once."""
        settled = [settle(each.job, self.weights) for each in self.planned]
        ids = {job.identity() for job in settled if job is not None and not finished(self.run.out, job)}
        later = {each.job.identity() for each, job in zip(self.planned, settled, strict=True) if job is None}
        return len(self.to_train) + len(ids) + len(later)

    def ready(self) -> list[WorkItem]:
        """Work that can begin now and has not: trainings first, then jobs whose systems are all there."""
        return [*self._trainings(), *self._jobs()]

    def _trainings(self) -> Iterator[WorkItem]:
        for name, made in self.to_train.items():
            if name not in self._begun:
                self._begun.add(name)
                folder = self.run.out / "systems" / name
                yield WorkItem((f"training {name}",), (folder,), system=name, made=made)

    def _jobs(self) -> Iterator[WorkItem]:
        names: list[str] = []
        jobs: list[SweepJob] = []
        for each in self.planned:
            job = settle(each.job, self.weights)
            if job is None or job.identity() in self._begun:
                continue
            self._begun.add(job.identity())
            if not finished(self.run.out, job):
                names.append(each.name)
                jobs.append(job)
        for numbers in grouped(jobs, self.n_workers, on_cpu="cpu" in self.devices, alone=self._alone):
            yield WorkItem(
                tuple(names[number] for number in numbers),
                tuple(job_folder(self.run.out, jobs[number]) for number in numbers),
                tuple(jobs[number] for number in numbers),
            )

    def end(self, item: WorkItem, ended: Ended) -> None:
        """Take note of how `item` ended; what it made must be here."""
        if ended.killed and len(item.jobs) > 1:
            # together they may need too much memory: each is tried again alone
            ids = {job.identity() for job in item.jobs}
            self._alone |= ids
            self._begun -= ids
            return
        for number, name in enumerate(item.names):
            problem = ended.problems.get(name)
            if problem is None and not self._is_here(item, number):
                folder = item.folders[number]
                problem = f"a worker says that it is done, but it is not in {folder}: the folder must be a shared one"
            if problem is None:
                self.run.n_done += 1
            else:
                self.run.problems[name] = problem

    def _is_here(self, item: WorkItem, number: int) -> bool:
        if item.made is None:
            return finished(self.run.out, item.jobs[number])
        config = trained(self.run.out, item.system, item.made)
        if config is None or config.weights_sha256 is None:
            return False
        self.weights[item.system] = config.weights_sha256
        return True


def _warn_if_poor(name: str, config: SystemConfig | None, made: TrainSpec, console: Console | None) -> None:
    accuracy = None if config is None else config.trial_accuracy
    if accuracy is not None and accuracy < made.target_accuracy:
        message = f"warning: {name} reached a trial accuracy of only {accuracy:.4f}, below {made.target_accuracy:g}"
        (console or Console(stderr=True)).print(message, style="yellow", highlight=False, soft_wrap=True)


# ------------------------------------------------------------------------------------------------------------- on a worker


def _on_worker(item: WorkItem, out: str, run: str, devices: Sequence[str]) -> Ended:
    """Do `item` on this worker; errors are values, since not every one survives the way back."""
    from distributed import get_worker

    worker, reported = get_worker(), dict.fromkeys(item.names, 0.0)

    def report(number: int, iteration: int, most: int, message: str) -> None:
        if run in _stopped:
            raise Stopped
        name = item.names[number]
        if time.monotonic() - reported[name] >= _REPORT_EVERY_S:
            reported[name] = time.monotonic()
            worker.log_event(_topic(run), {"name": name, "message": f"{iteration}/{most} {message}"})

    one_thread()
    if not Path(out).is_dir():
        problem = f"worker {worker.address} finds no folder {out}; it must be shared, at the same path everywhere"
        return Ended.all_with(item, problem)
    try:
        if item.made is not None:
            run_training(item.system, item.made, Path(out), lambda *progress: report(0, *progress))
            errors = {}
        else:
            errors = run_jobs(item.jobs, Path(out), report, device_of(worker.name, devices))
    except Stopped:
        return Ended.all_with(item, "stopped")
    except Exception as error:
        errors = dict.fromkeys(range(len(item.names)), error)
    for number, folder in enumerate(item.folders):
        if number in errors:
            write_atomically(folder / ERROR, "".join(traceback.format_exception(errors[number])))
        else:
            (folder / ERROR).unlink(missing_ok=True)
    return Ended({item.names[number]: describe(error) for number, error in errors.items()})


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


# ------------------------------------------------------------------------------------------------------- in the main process


def _work(state: _State, client: Client, console: Console | None, n_open: int) -> None:
    """Submit work as it gets ready, show how it goes on, and tell `state` how it ended."""
    from distributed import as_completed

    run = uuid.uuid4().hex[:12]
    running: dict[str, str] = {}
    by_key: dict[str, WorkItem] = {}
    futures: list[Future] = []

    def submit() -> list[Future]:
        submitted = []
        for item in state.ready():
            key = f"neuromas-{run}-{len(by_key)}"
            by_key[key] = item
            arguments = (item, str(state.run.out), run, state.devices)
            submitted.append(client.submit(_on_worker, *arguments, key=key, pure=False))
        futures.extend(submitted)
        return submitted

    def n_ended() -> int:
        return state.run.n_done + len(state.run.problems)

    with Bar(state.run.sweep.figure, n_open, console) as bar:

        def heard(event: tuple[float, Mapping[str, Any]]) -> None:
            running[event[1]["name"]] = event[1]["message"]
            bar.update(n_ended(), _shown(running))

        client.subscribe_topic(_topic(run), heard)
        completed = as_completed(submit(), loop=client.loop)
        try:
            for future in completed:
                item = by_key[future.key]
                state.end(item, _ended(future, item))
                for name in item.names:
                    running.pop(name, None)
                bar.update(n_ended(), _shown(running))
                for more in submit():
                    completed.add(more)
        except KeyboardInterrupt:
            client.cancel(futures)
            client.run(_stop, run, on_error="ignore")
            raise
        finally:
            client.unsubscribe_topic(_topic(run))
        bar.finish(n_ended(), f"done, {len(state.run.problems)} failed")


def _ended(future: Future, item: WorkItem) -> Ended:
    error = future.exception()
    if error is None:
        ended: Ended = future.result()
        return ended
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        problem = f"its workers were killed {ALLOWED_KILLS + 1} times; is there enough memory?"
        return Ended.all_with(item, problem, killed=True)
    return Ended.all_with(item, describe(error))


def _shown(running: Mapping[str, str]) -> str:
    now = [f"{name} {message}" for name, message in list(running.items())[:_SHOWN]]
    more = len(running) - len(now)
    return " · ".join(now) + (f" · and {more} more" if more > 0 else "")
