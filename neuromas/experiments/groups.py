"""Which fits of a sweep are run together: those of the same systems, as many as pay, and not so many that workers have nothing
to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from neuromas.schema.sweep import SweepJob

# Pairs of several fits that go through a system at once. On a CPU more are slower, since their activations leave its cache.
_CPU_PAIRS = 1024
_GPU_PAIRS = 8192
_RECORDING_FIELDS = {"n_trials", "seed", "task_options"}
"""Fields of a configuration that decide which trials a system that is only read is recorded on."""


@dataclass
class _Group:
    """Jobs that run together; `pairs` go through a target at once, `work` is what all their iterations cost."""

    numbers: list[int] = field(default_factory=list)
    pairs: int = 0
    work: int = 0


def grouped(
    jobs: Sequence[SweepJob], n_workers: int, *, on_cpu: bool = True, alone: Collection[str] = ()
) -> list[list[int]]:
    """Divide jobs into groups that run together.

    Fits form a group if they have the same systems, in the same order, with the same access. A group never holds more than
    a worker's share of the work (unless it is one fit), nor more pairs than pay: on a CPU, fits with large batches stay alone.
    Measures and closed-form fits stay alone, too.

    Parameters
    ----------
    jobs : sequence of SweepJob
        Settled.
    n_workers : int
    on_cpu : bool
    alone : collection of str
        Identities of jobs that must run alone.

    Returns
    -------
    list of list of int
        Numbers of the jobs of each group, in the order of their first jobs.

    Examples
    --------
    >>> from neuromas.experiments.jobs import expand
    >>> from neuromas.schema.sweep import Sweep
    >>> group = {"label": "mas", "method": "mas", "systems": [["multi-object/gru-0", "multi-object/gru-1"]]}
    >>> group |= {"config": {"batch_size": 64}, "axes": {"subspaces.full": [2, 4, 8, 16]}}
    >>> jobs = [planned.job for planned in expand(Sweep.parse({"figure": "x", "title": "", "groups": [group]}, "example"))]
    >>> grouped(jobs, n_workers=2)
    [[0, 1], [2, 3]]
    """
    most_pairs = _CPU_PAIRS if on_cpu else _GPU_PAIRS
    all_work = sum(_work(job) for job in jobs)
    groups: list[_Group] = []
    latest: dict[str, _Group] = {}
    for number, job in enumerate(jobs):
        key = None if job.identity() in alone else _shared(job)
        group = None if key is None else latest.get(key)
        pairs, work = _pairs(job), _work(job)
        if (
            group is None
            or group.pairs + pairs > most_pairs
            or (group.work + work) * max(n_workers, 1) > all_work  # more than one worker's share
        ):
            group = _Group()
            groups.append(group)
        if key is not None:
            latest[key] = group
        group.numbers.append(number)
        group.pairs += pairs
        group.work += work
    return [group.numbers for group in groups]


def _shared(job: SweepJob) -> str | None:
    """What fits of one group have in common; None for a job that runs alone."""
    if job.config is None or job.config.solver == "closed-form":
        return None
    systems = "\n".join(system.model_dump_json() for system in job.systems)
    if all(system.access == "intervene" for system in job.systems):
        return systems
    return f"{systems}\n{job.config.model_dump_json(include=_RECORDING_FIELDS)}"


def _pairs(job: SweepJob) -> int:
    """Pairs that go through one target in an iteration."""
    if job.config is None:
        return 0
    return job.config.batch_size * (len(job.systems) if job.config.method in ("mas", "clmas") else 1)


def _work(job: SweepJob) -> int:
    """Pairs of all iterations and targets; 0 for a measure, which takes seconds."""
    if job.config is None:
        return 0
    n_targets = len(job.systems) if job.config.method in ("mas", "clmas") else 1
    return _pairs(job) * n_targets * job.config.max_iterations
