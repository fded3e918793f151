"""Running the jobs of a sweep: fit and score, or measure. What is finished is not repeated, and what was interrupted goes on
from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from neuromas.causal.model import get_task
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.experiments.attempts import Attempt, Report, Stopped, held
from neuromas.experiments.jobs import (
    EVALUATION,
    JOB,
    MEASURE,
    finished,
    job_folder,
    open_system,
    read_fit,
    system_folder,
)
from neuromas.experiments.measure_jobs import measure
from neuromas.files import write_atomically
from neuromas.fit.fitters import Fitter, fit_together
from neuromas.fit.folder import CHECKPOINT, REQUEST, RESULT, keep_evaluation
from neuromas.fit.prepare import fit_sides
from neuromas.fit.progress import Progress
from neuromas.fit.result import FitResult
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitRequest
from neuromas.schema.sweep import SweepJob
from neuromas.systems.capture import capture
from neuromas.systems.system import System
from neuromas.systems.training import shipped_systems

JobReport = Callable[[int, int, int, str], None]
"""Called with (number of the job, iteration, iteration limit, message); raises `Stopped` to end the work."""


def run_job(job: SweepJob, out: Path, report: Report, device: str = "cpu") -> None:
    """`run_jobs` for one job, whose error is raised.

    Raises
    ------
    Stopped
    NeuromasError
        What fitters, evaluation and measures raise.
    """
    problems = run_jobs([job], out, lambda _, *progress: report(*progress), device)
    if problems:
        raise problems[0]


def run_jobs(jobs: Sequence[SweepJob], out: Path, report: JobReport, device: str = "cpu") -> dict[int, Exception]:
    """Fit and score on `device`, or measure, what settled jobs say.

    Several fits run together, and each comes to what it comes to alone, but for rounding.

    Parameters
    ----------
    jobs : sequence of SweepJob
        One job, or fits that `neuromas.experiments.groups.grouped` puts together.
    out : Path
    report : callable
    device : str

    Returns
    -------
    dict of int to Exception
        By number, the jobs that failed; all others are finished.

    Raises
    ------
    Stopped
    """
    folders = [job_folder(out, job) for job in jobs]
    problems: dict[int, Exception] = {}
    with ExitStack() as locks:
        # in one order everywhere, so that two processes that have jobs in common never wait for each other
        for number in sorted(range(len(jobs)), key=lambda number: folders[number]):
            locks.enter_context(held(folders[number], partial(report, number)))
        unfinished = [number for number, job in enumerate(jobs) if not finished(out, job)]
        for number in unfinished:
            write_atomically(folders[number] / JOB, jobs[number].to_json())
        together = _fit_together({number: jobs[number] for number in unfinished}, out, report, device)
        for number in unfinished:
            try:
                _run(jobs[number], out, partial(report, number), device, together.get(number))
            except Stopped:
                raise
            except Exception as error:
                problems[number] = error
    return problems


@dataclass(frozen=True)
class _Fit:
    """A finished fit, with its systems, all of which may be run: ``live`` holds those that the fit only read, too."""

    result: FitResult
    live: Sequence[System]


def _fit_together(jobs: dict[int, SweepJob], out: Path, report: JobReport, device: str) -> dict[int, _Fit]:
    """Fits of the same systems, by number; none where there are fewer than two, or where some fit fails.

    A fit that fails may keep others from beginning. Each is then run alone, from its checkpoint on, and has its own error.
    """
    jobs = {number: job for number, job in jobs.items() if job.config is not None and not _only_scores(job, out)}
    if len(jobs) < 2:
        return {}
    numbers, folders = list(jobs), [job_folder(out, job) for job in jobs.values()]
    reports = [_progress(folder, partial(report, number)) for number, folder in zip(numbers, folders, strict=True)]
    try:
        first = next(iter(jobs.values()))
        live = [open_system(system, out) for system in first.systems]
        systems = fit_inputs(first, live)
        for job in jobs.values():
            _write_request(job, out)
        results = fit_together(
            [Fitter.from_config(job.config) for job in jobs.values() if job.config is not None],
            systems,
            device=device,
            out=folders,
            progress=lambda place, progress: reports[place](progress),
        )
    except Stopped:
        raise
    except Exception:
        return {}
    return {number: _Fit(result, live) for number, result in zip(numbers, results, strict=True)}


def _run(job: SweepJob, out: Path, report: Report, device: str, fit: _Fit | None) -> None:
    """One job in its folder, which this process holds; `fit` if it was fitted together with others."""
    folder = job_folder(out, job)
    if job.measure is not None:
        systems = [open_system(system, out) for system in job.systems]
        write_atomically(folder / MEASURE, measure(job, systems).to_json())
        return
    if fit is None:
        fit = _fit_alone(job, out, report, device)
    assert job.config is not None
    report(fit.result.report.iterations, job.config.max_iterations, "scoring")
    _score(job, fit, folder)


def _fit_alone(job: SweepJob, out: Path, report: Report, device: str) -> _Fit:
    """The fit of `job`: if only its scores are missing, the finished one from the folder."""
    assert job.config is not None
    folder, fitter = job_folder(out, job), Fitter.from_config(job.config)
    live = [open_system(system, out) for system in job.systems]
    systems = fit_inputs(job, live)
    _write_request(job, out)
    if _only_scores(job, out):
        return _Fit(replace(FitResult.load(folder), sides=tuple(fit_sides(job.config, systems, device=device))), live)
    progress = _progress(folder, report)
    try:
        return _Fit(fitter.fit(systems, device=device, out=folder, progress=progress), live)
    except InvalidInput as error:
        if error.kind != "occupied":
            raise
        # the folder is this job's own: an earlier version, in which another fit had this identity, left what is there
        for name in (RESULT, CHECKPOINT, EVALUATION):
            (folder / name).unlink(missing_ok=True)
        return _Fit(fitter.fit(systems, device=device, out=folder, progress=progress), live)


def _only_scores(job: SweepJob, out: Path) -> bool:
    """Whether the fit of `job` is there, and has scores, so that at most some scores are missing."""
    fit = read_fit(job_folder(out, job))
    assert job.config is not None
    return fit is not None and fit[0].config.identity_json() == job.config.identity_json()


def _progress(folder: Path, report: Report) -> Callable[[Progress], None]:
    attempt = Attempt(folder)

    def progress(now: Progress) -> None:
        attempt.at(now.iteration)
        report(now.iteration, now.max_iterations, str(now))

    return progress


def _score(job: SweepJob, fit: _Fit, folder: Path) -> None:
    assert job.evaluation is not None
    names = [side.name for side in fit.result.sides]
    oracles = {
        name: live
        for name, entry, live in zip(names, job.systems, fit.live, strict=True)
        if entry.access == "read" and job.oracles
    }
    options = job.evaluation.model_dump(exclude={"directions"})
    if job.evaluation.directions is not None:
        options["directions"] = [(names[source], names[target]) for source, target in job.evaluation.directions]
    evaluation = fit.result.evaluate(oracles=oracles or None, **options)
    keep_evaluation(folder, evaluation)
    write_atomically(folder / EVALUATION, evaluation.to_json())


def fit_inputs(job: SweepJob, live: Sequence[System]) -> list[System | Recording]:
    """What the fit receives: systems, and for those with access ``"read"`` a recording of the trials that they would run.

    Parameters
    ----------
    job : SweepJob
    live : sequence of System
        All its systems, in its order.
    """
    assert job.config is not None
    names = [system.name for system in live]
    inputs: list[System | Recording] = []
    for place, (entry, system) in enumerate(zip(job.systems, live, strict=True)):
        if entry.access == "intervene":
            inputs.append(system)
            continue
        name = system.name if names.count(system.name) == 1 else entry.name.replace("/", ".").replace("@", ".")
        seed = job.config.seed * 1000 + place  # as `make_sides` records the systems that it may run
        task = system.config.task
        model = get_task(task, **(job.config.task_options or {}).get(task, {}))
        recording = capture(
            system,
            job.config.n_trials,
            seed=seed,
            name=name,
            access="read",
            model=model,
            allow_unsolved=job.config.allow_unsolved,
        )
        inputs.append(recording)
    return inputs


def _write_request(job: SweepJob, out: Path) -> None:
    """Write ``request.json``, by which ``neuromas evaluate`` finds the systems again; none if a system is only read."""
    if any(system.access == "read" for system in job.systems):
        return
    assert job.config is not None
    paths = []
    for system in job.systems:
        plain, at, layer = system.name.partition("@")
        shipped = plain in shipped_systems()
        paths.append(system.name if shipped else f"{system_folder(out, plain).absolute()}{at}{layer}")
    request = FitRequest(config=job.config, systems=tuple(paths))
    write_atomically(job_folder(out, job) / REQUEST, request.to_json())


def one_thread() -> None:
    """Compute on one thread: the same numbers everywhere, and no thread that waits for another's core."""
    torch.set_num_threads(1)


def describe(error: BaseException) -> str:
    """An error as one message, for a process that did not see it raised."""
    return error.message if isinstance(error, NeuromasError) else f"{type(error).__name__}: {error}"
