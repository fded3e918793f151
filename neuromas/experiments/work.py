"""Running the jobs of a sweep: fit and score, or measure. What is finished is not repeated, and what was interrupted goes on
from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from neuromas.actions.evaluate import evaluate
from neuromas.actions.fit import fit_all
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.experiments.attempts import Attempt, Report, Stopped, held
from neuromas.experiments.jobs import EVALUATION, FITS, JOB, MEASURE, check_weights, finished, job_folder, order_of_fit
from neuromas.experiments.measure_jobs import measure
from neuromas.experiments.recorded import recorded_for_fit, recording_store, system_path
from neuromas.files import write_atomically
from neuromas.fit.folder import CHECKPOINT, RESULT
from neuromas.fit.progress import Progress
from neuromas.fit.result import FitResult
from neuromas.schema.actions import EvaluateRequest
from neuromas.schema.fit import FitRequest
from neuromas.schema.sweep import SweepJob

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
        fits = _fit_together({number: jobs[number] for number in unfinished}, out, report, device)
        for number in unfinished:
            try:
                _run(jobs[number], out, partial(report, number), device, fits.get(number))
            except Stopped:
                raise
            except Exception as error:
                problems[number] = error
    return problems


def _fit_together(jobs: dict[int, SweepJob], out: Path, report: JobReport, device: str) -> dict[int, FitResult]:
    """Fits of the same systems, by number; none where there are fewer than two, or where some fit fails.

    A fit that fails may keep others from beginning. Each is then run alone, from its checkpoint on, and has its own error.
    """
    jobs = {number: job for number, job in jobs.items() if job.config is not None}
    if len(jobs) < 2:
        return {}
    try:
        return _fit(jobs, out, report, device)
    except Stopped:
        raise
    except Exception:
        return {}


def _fit(jobs: Mapping[int, SweepJob], out: Path, report: JobReport, device: str) -> dict[int, FitResult]:
    """Fit what jobs of the same systems say; results by number. What is finished is not repeated."""
    folders = {number: job_folder(out, job) for number, job in jobs.items()}
    requests = {
        folders[number].name: fit_request(job, out, partial(report, number), device) for number, job in jobs.items()
    }
    reports = {folder.name: _progress(folder, partial(report, number)) for number, folder in folders.items()}
    results = fit_all(requests, out / FITS, device=device, progress=lambda name, progress: reports[name](progress))
    return {number: results[folder.name] for number, folder in folders.items()}


def _run(job: SweepJob, out: Path, report: Report, device: str, fit: FitResult | None) -> None:
    """One job in its folder, which this process holds; `fit` if it was fitted together with others."""
    folder = job_folder(out, job)
    if job.config is None:
        write_atomically(folder / MEASURE, measure(job, out, report).to_json())
        return
    if fit is None:
        fit = _fit_alone(job, out, report, device)
    report(fit.report.iterations, job.config.max_iterations, "scoring")
    evaluate(_evaluation(job, fit, out), result=fit)


def _fit_alone(job: SweepJob, out: Path, report: Report, device: str) -> FitResult:
    try:
        return _fit({0: job}, out, lambda _, *progress: report(*progress), device)[0]
    except InvalidInput as error:
        if error.kind != "occupied":
            raise
        # the folder is this job's own: an earlier version, in which another fit had this identity, left what is there
        for name in (RESULT, CHECKPOINT, EVALUATION):
            (job_folder(out, job) / name).unlink(missing_ok=True)
        return _fit({0: job}, out, lambda _, *progress: report(*progress), device)[0]


def _progress(folder: Path, report: Report) -> Callable[[Progress], None]:
    attempt = Attempt(folder)

    def progress(now: Progress) -> None:
        attempt.at(now.iteration)
        report(now.iteration, now.max_iterations, str(now))

    return progress


def fit_request(job: SweepJob, out: Path, report: Report, device: str = "cpu") -> FitRequest:
    """The request for the fit of `job`, after what it only reads was recorded.

    Systems that the fit may run come first, as in any request.

    Raises
    ------
    InvalidInput
        A system was trained again, and is not the one that the job names.
    """
    assert job.config is not None
    for entry in job.systems:
        check_weights(entry, out)
    read = [place for place, entry in enumerate(job.systems) if entry.access == "read"]
    return FitRequest(
        config=job.config,
        systems=tuple(system_path(entry, out) for entry in job.systems if entry.access == "intervene"),
        read=tuple(recorded_for_fit(job, place, out, report, device) for place in read),
        store=str(recording_store(out).absolute()) if read else None,
    )


def _evaluation(job: SweepJob, fit: FitResult, out: Path) -> EvaluateRequest:
    """The request for the scores of `fit`; oracles are the systems that it only read."""
    assert job.evaluation is not None
    names = dict(zip(order_of_fit(job), (side.name for side in fit.sides), strict=True))
    read = [place for place, entry in enumerate(job.systems) if entry.access == "read"]
    options = job.evaluation.model_dump(exclude={"directions"})
    if job.evaluation.directions is not None:
        options["directions"] = tuple(
            f"{names[source]}:{names[target]}" for source, target in job.evaluation.directions
        )
    oracles = {names[place]: system_path(job.systems[place], out) for place in read if job.oracles}
    return EvaluateRequest(folder=str(job_folder(out, job)), oracle=oracles, **options)


def one_thread() -> None:
    """Compute on one thread: the same numbers everywhere, and no thread that waits for another's core."""
    torch.set_num_threads(1)


def describe(error: BaseException) -> str:
    """An error as one message, for a process that did not see it raised."""
    return error.message if isinstance(error, NeuromasError) else f"{type(error).__name__}: {error}"
