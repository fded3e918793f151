"""The work of a sweep, unit by unit: train a system, fit and score, measure. Nothing here knows who schedules it.

Everything lies in one folder: ``systems/NAME`` (as `train` leaves it), ``fits/ID`` (as a fit leaves it, with ``job.json`` and
``evaluation.json``) and ``measures/ID`` (``job.json``, ``measure.json``). ID is the job's identity, so whatever is finished is
found again, by any figure. A unit that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import datetime
import fcntl
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from neuromas.causal.counting import DEMO, Counting
from neuromas.causal.model import PAD, CausalModel, Sequences, get_task
from neuromas.errors import InvalidInput, NeuromasError, NotFound
from neuromas.files import write_atomically
from neuromas.fit.fitters import Fitter
from neuromas.fit.folder import CHECKPOINT as FIT_CHECKPOINT
from neuromas.fit.folder import REQUEST, RESULT
from neuromas.fit.prepare import fit_sides
from neuromas.fit.progress import Progress
from neuromas.fit.request import at_point
from neuromas.fit.result import FitResult
from neuromas.measures.comparison import compare
from neuromas.provenance import now, versions
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Document, Provenance
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitConfig, FitReport, FitRequest, method_defaults
from neuromas.schema.sweep import JobSystem, MeasureReport, Sweep, SweepGroup, SweepJob
from neuromas.schema.system import SystemConfig, TrainSpec
from neuromas.systems.capture import capture
from neuromas.systems.pretrained import CARD
from neuromas.systems.system import System
from neuromas.systems.training import CHECKPOINT, CONFIG, SHIPPED, load_system, shipped_systems, train

JOB, EVALUATION, MEASURE, MADE = "job.json", "evaluation.json", "measure.json", "made.json"
ATTEMPTS = "attempts.csv"
"""A line per time that somebody began, or went on with, a unit: when, on which machine, in which process, at which iteration."""
N_PER_QUANTITY = 15
_STREAM = 8  # of the trials that measures compare on
_POLL_S = 0.2
D = TypeVar("D", bound=Document)

Tell = Callable[[int, int, str], None]
"""Called with (iteration, at most, what to show beside it) as a unit goes on; raises `Stopped` to end it there."""


class Stopped(Exception):
    """Somebody wants the unit to end; its last checkpoint stays."""


@dataclass(frozen=True)
class Planned:
    """A job in its place in the figure.

    Attributes
    ----------
    job : SweepJob
    label : str
        Of the group.
    tags : dict
        Columns that tell it from others: the group's tags, and where it lies on the axes.
    """

    job: SweepJob
    label: str
    tags: Mapping[str, Any]


# ------------------------------------------------------------------------------------------------------------- what there is


def expand(sweep: Sweep) -> tuple[Planned, ...]:
    """Every job that `sweep` declares, in its order. Weights that are not shipped are filled in by `settle`.

    Raises
    ------
    NotFound
        A group names a system that is neither declared nor shipped.
    InvalidDocument
        A group's configuration breaks the schema at some point of its axes; lists every problem.

    Examples
    --------
    >>> group = {"label": "mas", "method": "mas", "systems": [["multi-object/gru-0", "multi-object/gru-1"]]}
    >>> group["axes"] = {"subspaces.full": [2, 4]}
    >>> sweep = Sweep.parse({"figure": "x", "title": "", "groups": [group]}, "example")
    >>> [planned.job.config.subspaces for planned in expand(sweep)]
    [{'full': 2}, {'full': 4}]
    """
    return tuple(
        Planned(_job(sweep, group, chosen, dict(zip(group.axes, point, strict=True))), group.label, tags)
        for group in sweep.groups
        for point in itertools.product(*group.axes.values())
        for tags in [{**group.tags, **dict(zip(group.axes, point, strict=True))}]
        for chosen in group.systems
    )


def _job(sweep: Sweep, group: SweepGroup, names: Sequence[str], point: Mapping[str, Any]) -> SweepJob:
    systems = tuple(
        job_system(name, sweep, "read" if place in group.read else "intervene") for place, name in enumerate(names)
    )
    given = at_point(group.config, point)
    if group.measure is not None:
        return SweepJob(measure=group.measure, options=given, systems=systems)
    assert group.method is not None
    own = method_defaults(group.method)
    config = FitConfig.parse({**own, **given}, f"sweep {sweep.figure}, group {group.label!r}, {dict(point)}")
    oracles = group.oracles if group.read else True
    return SweepJob(config=config, systems=systems, oracles=oracles, evaluation=group.evaluation)


def job_system(name: str, sweep: Sweep, access: str = "intervene") -> JobSystem:
    """`name` as a job takes it: shipped, or as `sweep` declares it.

    Raises
    ------
    NotFound
        It is neither.
    """
    plain = name.partition("@")[0]
    if plain in shipped_systems():
        config = read_config(SHIPPED / plain)
        made = TrainSpec(task=config.task, kind=config.kind, seed=config.seed, n_units=config.n_units)
        return JobSystem(name=name, access=access, made=made, weights_sha256=config.weights_sha256)  # type: ignore[arg-type]
    if plain not in sweep.systems:
        raise NotFound(
            f"sweep {sweep.figure}: no system {plain!r}; it declares {', '.join(sweep.systems) or 'none'}, shipped are"
            f" {', '.join(shipped_systems())}",
            kind="unknown_system",
        )
    made = sweep.systems[plain]
    made = made.model_copy(update=_limits(TrainSpec(task=made.task)))
    return JobSystem(name=name, access=access, made=made)  # type: ignore[arg-type]


def settle(job: SweepJob, weights: Mapping[str, str]) -> SweepJob | None:
    """The job with the hashes of its systems' weights, by plain name; None while one is not known."""
    systems = []
    for one in job.systems:
        known = one.weights_sha256 or weights.get(one.name.partition("@")[0])
        if known is None:
            return None
        systems.append(one.model_copy(update={"weights_sha256": known}))
    return job.model_copy(update={"systems": tuple(systems)})


def read_config(folder: Path) -> SystemConfig:
    """A saved system's ``config.json``; of a language model, what it comes to."""
    if (folder / CARD).is_file():
        return load_system(folder).config
    return SystemConfig.parse((folder / CONFIG).read_bytes(), str(folder / CONFIG))


def system_folder(out: Path, name: str) -> Path:
    """Where the system called `name` lies, its layer aside: among those that are shipped, or in ``out/systems``."""
    plain = name.partition("@")[0]
    return SHIPPED / plain if plain in shipped_systems() else out / "systems" / plain


def trained(out: Path, name: str, made: TrainSpec) -> SystemConfig | None:
    """The configuration of a system that is there and finished; None if it is still to be trained.

    Raises
    ------
    InvalidInput
        Another network lies there.
    """
    folder = out / "systems" / name
    if (folder / MADE).is_file():
        before = TrainSpec.parse((folder / MADE).read_bytes(), str(folder / MADE))
        if before.model_copy(update=_limits(made)) != made:
            raise InvalidInput(
                f"{folder} holds another system: made by {before.model_dump_json(exclude_defaults=True)}, the sweep wants"
                f" {made.model_dump_json(exclude_defaults=True)}; choose another --out",
                kind="occupied",
            )
    if not (folder / CONFIG).is_file():
        return None
    config = read_config(folder)
    found, wanted = ((one.task, one.kind, one.seed, one.n_units) for one in (config, made))
    if found != wanted:
        raise InvalidInput(
            f"{folder} holds another system: task, kind, seed and width are {found}, the sweep wants {wanted}",
            kind="occupied",
        )
    unfinished = (folder / CHECKPOINT).exists() and config.iterations < made.max_iterations
    return None if unfinished else config


def _limits(made: TrainSpec) -> dict[str, Any]:
    """When to stop is no part of what a network is: with a higher limit, training goes on."""
    return made.model_dump(include={"target_accuracy", "min_iterations", "max_iterations"})


def job_folder(out: Path, job: SweepJob) -> Path:
    """Where a settled job's result lies."""
    return out / ("measures" if job.measure is not None else "fits") / job.identity()


def read_fit(folder: Path) -> tuple[FitReport, Evaluation] | None:
    """Report and scores of a finished fit; None if it is not finished."""
    report, evaluation = _read(folder / RESULT, FitReport), _read(folder / EVALUATION, Evaluation)
    return None if report is None or evaluation is None else (report, evaluation)


def read_measure(folder: Path) -> MeasureReport | None:
    """A finished measure; None if it is not finished."""
    return _read(folder / MEASURE, MeasureReport)


def finished(out: Path, job: SweepJob) -> bool:
    """Whether the result of a settled job is there, whole, of this very configuration, and with its controls."""
    if job.measure is not None:
        return read_measure(job_folder(out, job)) is not None
    found = read_fit(job_folder(out, job))
    if found is None or job.evaluation is None:
        return False
    report, evaluation = found
    return report.config == job.config and set(job.evaluation.controls) <= set(evaluation.controls)


def _read(path: Path, kind: type[D]) -> D | None:
    if not path.is_file():
        return None
    text = path.read_bytes()
    return None if kind.problems(text) else kind.parse(text, str(path))


# ------------------------------------------------------------------------------------------------------------ what is done


def run_training(name: str, made: TrainSpec, out: Path, tell: Tell) -> SystemConfig:
    """Train the system called `name` into ``out/systems``, or go on with it; its configuration.

    Raises
    ------
    Stopped
    NeuromasError
        What `train` and `trained` raise.
    """
    folder = out / "systems" / name
    with _held(folder, tell):
        there = trained(out, name, made)
        if there is not None:
            return there
        write_atomically(folder / MADE, made.to_json())
        begun = _Attempt(folder)

        def report(iteration: int, loss: float, accuracy: float | None) -> None:
            begun.at(iteration)
            told = "" if accuracy is None else f", accuracy {accuracy:.4f}"
            tell(iteration, made.max_iterations, f"loss {loss:.4f}{told}")

        system = train(
            get_task(made.task, **made.options),
            out=folder,
            kind=made.kind,
            seed=made.seed,
            name=Path(name).name,
            n_units=made.n_units,
            memory=made.memory,
            target_accuracy=made.target_accuracy,
            min_iterations=made.min_iterations,
            max_iterations=made.max_iterations,
            progress=report,
        )
    return system.config


def run_job(job: SweepJob, out: Path, tell: Tell, device: str = "cpu") -> None:
    """Fit and score on `device`, or measure, what a settled job says; nothing is repeated that is finished.

    Raises
    ------
    Stopped
    NeuromasError
        What fitters, evaluation and measures raise.
    """
    folder = job_folder(out, job)
    with _held(folder, tell):
        if finished(out, job):
            return
        write_atomically(folder / JOB, job.to_json())
        if job.measure is not None:
            report = measure(job, [_load(one, out) for one in job.systems])
            write_atomically(folder / MEASURE, report.to_json())
        else:
            _fit(job, out, folder, tell, device)


def _fit(job: SweepJob, out: Path, folder: Path, tell: Tell, device: str) -> None:
    assert job.config is not None
    assert job.evaluation is not None
    live = [_load(one, out) for one in job.systems]
    systems = handed_in(job, live)
    if not any(isinstance(one, Recording) for one in systems):
        _write_request(job, out, folder)
    begun = _Attempt(folder)

    def report(now: Progress) -> None:
        begun.at(now.iteration)
        tell(now.iteration, now.max_iterations, str(now))

    result = _result(job, systems, folder, device, report)
    names = [side.name for side in result.sides]
    oracles = {
        name: one for name, one, system in zip(names, live, systems, strict=True) if isinstance(system, Recording)
    }
    options = job.evaluation.model_dump(exclude={"directions"})
    if job.evaluation.directions is not None:
        options["directions"] = [(names[source], names[target]) for source, target in job.evaluation.directions]
    tell(result.report.iterations, job.config.max_iterations, "scoring")
    evaluation = result.evaluate(oracles=oracles if job.oracles else None, **options)
    write_atomically(folder / EVALUATION, evaluation.to_json())


def _result(
    job: SweepJob,
    systems: Sequence[System | Recording],
    folder: Path,
    device: str,
    report: Callable[[Progress], None],
) -> FitResult:
    """The fit of `job`: as it lies in the folder, if it is finished and lacks scores alone, else fitted."""
    assert job.config is not None
    fitter = Fitter.from_config(job.config)
    done = read_fit(folder)
    if done is not None and done[0].config == job.config:
        return replace(FitResult.load(folder), sides=tuple(fit_sides(job.config, systems, device=device)))
    try:
        return fitter.fit(systems, device=device, out=folder, progress=report)
    except InvalidInput as error:
        if error.kind != "occupied":
            raise
        # the folder is this job's own, so what lies there is of an earlier version, for which another fit had this identity
        for name in (RESULT, FIT_CHECKPOINT, EVALUATION):
            (folder / name).unlink(missing_ok=True)
        return fitter.fit(systems, device=device, out=folder, progress=report)


def handed_in(job: SweepJob, live: Sequence[System]) -> list[System | Recording]:
    """What the fit gets: systems, and for those with access ``"read"`` a recording of the trials a live one would have run."""
    assert job.config is not None
    names = [one.name for one in live]
    given: list[System | Recording] = []
    for place, (one, system) in enumerate(zip(job.systems, live, strict=True)):
        if one.access == "intervene":
            given.append(system)
            continue
        name = system.name if names.count(system.name) == 1 else one.name.replace("/", ".").replace("@", ".")
        seed = job.config.seed * 1000 + place  # as `make_sides` records the systems that it may run
        task = system.config.task
        model = get_task(task, **(job.config.task_options or {}).get(task, {}))
        given.append(capture(system, job.config.n_trials, seed=seed, name=name, access="read", model=model))
    return given


def _write_request(job: SweepJob, out: Path, folder: Path) -> None:
    """So that ``neuromas evaluate`` finds the systems again."""
    assert job.config is not None
    paths = []
    for one in job.systems:
        plain, at, layer = one.name.partition("@")
        paths.append(one.name if plain in shipped_systems() else f"{system_folder(out, plain).absolute()}{at}{layer}")
    write_atomically(folder / REQUEST, FitRequest(config=job.config, systems=tuple(paths)).to_json())


def measure(job: SweepJob, systems: Sequence[System]) -> MeasureReport:
    """Compare two systems on the same trials, as many of each object quantity (paper 2.7, A.3)."""
    assert job.measure is not None
    started = time.monotonic()
    options = dict(job.options)
    n_per_quantity, seed = options.pop("n_per_quantity", N_PER_QUANTITY), options.get("seed", 0)
    first, second = systems
    model = get_task(first.config.task)
    trials = balanced_trials(model, n_per_quantity, seed)
    x, y = (
        capture(one, trials, model=model, name=f"{letter}.{one.name}")
        for letter, one in zip("xy", (first, second), strict=True)
    )
    found = compare(x, y, job.measure, **options)
    return MeasureReport(
        job=job,
        options=found.options,
        values=found.values,
        mean=found.mean,
        low=found.low,
        high=found.high,
        n_trials=len(trials),
        n_samples=found.n_samples,
        n_usable=found.n_usable,
        seconds=time.monotonic() - started,
        provenance=Provenance(
            source=f"{job.measure} of {job.systems[0].name} and {job.systems[1].name}",
            seed=seed,
            created=now(),
            versions=versions(),
        ),
    )


def balanced_trials(model: CausalModel, n_per_quantity: int = N_PER_QUANTITY, seed: int = 0) -> Sequences:
    """Trials of a counting task, `n_per_quantity` for each object quantity that occurs, quantities ascending.

    Of a task that counts nothing: as many trials as 20 quantities would give, as they come.

    Parameters
    ----------
    model : CausalModel
    n_per_quantity, seed : int

    Examples
    --------
    >>> trials = balanced_trials(get_task("multi-object"), n_per_quantity=2)
    >>> shown = np.isin(trials.tokens, [1, 2, 3]).sum(axis=1)
    >>> shown.tolist() == [quantity for quantity in range(1, 21) for _ in range(2)]
    True
    """
    generator = np.random.default_rng([seed, _STREAM])
    if not isinstance(model, Counting):
        return model.sample(20 * n_per_quantity, generator)
    drawn: list[Sequences] = []
    wanted = {int(quantity): n_per_quantity for quantity in model.quantities}
    while any(wanted.values()):
        trials = model.sample(20 * n_per_quantity, generator)
        in_demo = (trials.values[:, :, 0] == DEMO) & (np.arange(trials.tokens.shape[1]) < trials.lengths[:, None])
        quantities = np.where(in_demo, trials.values[:, :, 1], 0).max(axis=1)
        kept = []
        for quantity, missing in wanted.items():
            mine = np.flatnonzero(quantities == quantity)[:missing]
            wanted[quantity] = missing - len(mine)
            kept += mine.tolist()
        drawn.append(_rows(trials, np.array(kept, dtype=np.int64), quantities))
    return _ascending(drawn)


def _rows(trials: Sequences, rows: np.ndarray, quantities: np.ndarray) -> Sequences:
    rows = rows[np.argsort(quantities[rows], kind="stable")]
    return Sequences(**{name: getattr(trials, name)[rows] for name in Sequences.__dataclass_fields__})


def _ascending(parts: Sequence[Sequences]) -> Sequences:
    """Parts joined, sorted by object quantity; shorter ones are padded."""
    longest = max(part.tokens.shape[1] for part in parts)

    def joined(name: str) -> np.ndarray:
        fill = PAD if name == "tokens" else 0
        arrays = []
        for part in parts:
            array = getattr(part, name)
            room = [(0, 0), (0, longest - array.shape[1] if array.ndim > 1 else 0)][: array.ndim]
            arrays.append(np.pad(array, room + [(0, 0)] * (array.ndim - len(room)), constant_values=fill))
        return np.concatenate(arrays)

    whole = Sequences(**{name: joined(name) for name in Sequences.__dataclass_fields__})
    in_demo = (whole.values[:, :, 0] == DEMO) & (np.arange(longest) < whole.lengths[:, None])
    return _rows(whole, np.arange(len(whole)), np.where(in_demo, whole.values[:, :, 1], 0).max(axis=1))


def _load(one: JobSystem, out: Path) -> System:
    folder = system_folder(out, one.name)
    layer = one.name.partition("@")[2] or None
    system = load_system(folder, layer=layer)
    if system.config.weights_sha256 != one.weights_sha256:
        raise InvalidInput(
            f"{folder} has weights {str(system.config.weights_sha256)[:12]}, the job wants {str(one.weights_sha256)[:12]};"
            " it was trained anew meanwhile: run the sweep again",
            kind="changed",
        )
    return system


# ------------------------------------------------------------------------------------------------------------ who is at it


@contextmanager
def _held(folder: Path, tell: Tell) -> Iterator[None]:
    """Only one process at a time works in `folder`; others wait, and find it done. Released when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell(0, 1, "waiting: another process works on it")
                time.sleep(_POLL_S)
        yield


class _Attempt:
    """Notes in ``attempts.csv`` at which iteration this process began, as soon as it does an iteration."""

    def __init__(self, folder: Path) -> None:
        self._path, self._noted = folder / ATTEMPTS, False

    def at(self, iteration: int) -> None:
        if self._noted:
            return
        self._noted = True
        header = "" if self._path.exists() else "began,machine,process,from_iteration\n"
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{header}{began},{socket.gethostname()},{os.getpid()},{iteration - 1}\n")


def one_thread() -> None:
    """Compute on one thread: equal numbers everywhere, and no thread that waits for another's core."""
    torch.set_num_threads(1)


def why(error: BaseException) -> str:
    """An error as one message, for whoever did not see it raised."""
    return error.message if isinstance(error, NeuromasError) else f"{type(error).__name__}: {error}"
