"""The jobs of a sweep, and the files in which they are kept. Nothing here knows who runs them.

Everything lies in one folder: ``systems/NAME`` (as `train` leaves it), ``fits/ID`` (as a fit leaves it, with ``job.json`` and
``evaluation.json``) and ``measures/ID`` (``job.json``, ``measure.json``). ID is the job's identity, so any figure finds again
what is finished.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from neuromas.errors import InvalidInput, NotFound
from neuromas.fit.folder import RESULT
from neuromas.fit.request import at_point
from neuromas.schema.document import Access, Document
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitConfig, FitReport, method_defaults
from neuromas.schema.sweep import JobSystem, MeasureReport, Sweep, SweepGroup, SweepJob
from neuromas.schema.system import SystemConfig, TrainSpec
from neuromas.systems.pretrained import CARD
from neuromas.systems.training import CONFIG, SHIPPED, load_system, shipped_systems

FITS, MEASURES = "fits", "measures"
JOB, EVALUATION, MEASURE = "job.json", "evaluation.json", "measure.json"
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Planned:
    """A job in its place in the figure.

    Attributes
    ----------
    job : SweepJob
    label : str
        The group's label.
    tags : dict
        Columns that tell it from others: the group's tags, and its values on the axes.
    """

    job: SweepJob
    label: str
    tags: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call the job: group, values on the axes, systems."""
        point = "".join(f", {key} {value}" for key, value in self.tags.items())
        return f"{self.label}{point}: {' + '.join(system.name for system in self.job.systems)}"


def expand(sweep: Sweep) -> tuple[Planned, ...]:
    """Every job that `sweep` declares, in its order. `settle` fills in weights of systems that are not shipped.

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
        Planned(_job(sweep, group, names, dict(zip(group.axes, point, strict=True))), group.label, tags)
        for group in sweep.groups
        for point in itertools.product(*group.axes.values())
        for tags in [{**group.tags, **dict(zip(group.axes, point, strict=True))}]
        for names in group.systems
    )


def _job(sweep: Sweep, group: SweepGroup, names: Sequence[str], point: Mapping[str, Any]) -> SweepJob:
    systems = tuple(
        job_system(name, sweep, "read" if place in group.read else "intervene") for place, name in enumerate(names)
    )
    settings = at_point(group.config, point)
    if group.measure is not None:
        return SweepJob(measure=group.measure, options=settings, systems=systems)
    assert group.method is not None
    defaults = method_defaults(group.method)
    config = FitConfig.parse({**defaults, **settings}, f"sweep {sweep.figure}, group {group.label!r}, {dict(point)}")
    oracles = group.oracles if group.read else True
    return SweepJob(config=config, systems=systems, oracles=oracles, evaluation=group.evaluation)


def job_system(name: str, sweep: Sweep, access: Access = "intervene") -> JobSystem:
    """The entry of a job for the system `name`, which is shipped, or which `sweep` declares.

    Raises
    ------
    NotFound
        It is neither.
    """
    plain = name.partition("@")[0]
    if plain in shipped_systems():
        config = read_config(SHIPPED / plain)
        made = TrainSpec(task=config.task, kind=config.kind, seed=config.seed, n_units=config.n_units)
        return JobSystem(name=name, access=access, made=made, weights_sha256=config.weights_sha256)
    if plain not in sweep.systems:
        raise NotFound(
            f"sweep {sweep.figure}: no system {plain!r}; it declares {', '.join(sweep.systems) or 'none'}, shipped are"
            f" {', '.join(shipped_systems())}",
            kind="unknown_system",
        )
    made = sweep.systems[plain]
    made = made.model_copy(update=training_limits(TrainSpec(task=made.task)))
    return JobSystem(name=name, access=access, made=made)


def training_limits(made: TrainSpec) -> dict[str, Any]:
    """When a training stops, which is no part of what a network is: with a higher limit, training goes on."""
    return made.model_dump(include={"target_accuracy", "min_iterations", "max_iterations"})


def settle(job: SweepJob, weights: Mapping[str, str]) -> SweepJob | None:
    """The job with the hashes of its systems' weights, by plain name; None while a hash is missing."""
    systems = []
    for system in job.systems:
        digest = system.weights_sha256 or weights.get(system.name.partition("@")[0])
        if digest is None:
            return None
        systems.append(system.model_copy(update={"weights_sha256": digest}))
    return job.model_copy(update={"systems": tuple(systems)})


# ------------------------------------------------------------------------------------------------------- systems and results


def read_config(folder: Path) -> SystemConfig:
    """A saved system's ``config.json``; for a language model, the equivalent."""
    if (folder / CARD).is_file():
        return load_system(folder).config
    return SystemConfig.parse((folder / CONFIG).read_bytes(), str(folder / CONFIG))


def system_folder(out: Path, name: str) -> Path:
    """The folder of the system `name`, without its layer: a shipped one, or one in ``out/systems``."""
    plain = name.partition("@")[0]
    return SHIPPED / plain if plain in shipped_systems() else out / "systems" / plain


def check_weights(entry: JobSystem, out: Path) -> None:
    """Check that a system is still the one that a job names.

    Raises
    ------
    InvalidInput
        Its weights are not those of the job.
    """
    folder = system_folder(out, entry.name)
    weights = read_config(folder).weights_sha256
    if weights != entry.weights_sha256:
        raise InvalidInput(
            f"{folder} has weights {str(weights)[:12]}, the job expects {str(entry.weights_sha256)[:12]}; the system was"
            " trained again meanwhile: run the sweep again",
            kind="inputs_mismatch",
        )


def order_of_fit(job: SweepJob) -> list[int]:
    """Places of a job's systems in the order in which its fit has them: those that are only read come last."""
    return sorted(range(len(job.systems)), key=lambda place: job.systems[place].access == "read")


def job_folder(out: Path, job: SweepJob) -> Path:
    """Where a settled job's result lies."""
    return out / (MEASURES if job.measure is not None else FITS) / job.identity()


def read_fit(folder: Path) -> tuple[FitReport, Evaluation] | None:
    """Report and scores of a finished fit; None if it is not finished."""
    report, evaluation = _read(folder / RESULT, FitReport), _read(folder / EVALUATION, Evaluation)
    return None if report is None or evaluation is None else (report, evaluation)


def read_measure(folder: Path) -> MeasureReport | None:
    """A finished measure; None if it is not finished."""
    return _read(folder / MEASURE, MeasureReport)


def finished(out: Path, job: SweepJob) -> bool:
    """Whether a settled job has its whole result, of exactly its configuration, with its controls."""
    if job.measure is not None:
        return read_measure(job_folder(out, job)) is not None
    fit = read_fit(job_folder(out, job))
    if fit is None or job.config is None or job.evaluation is None:
        return False
    report, evaluation = fit
    same = report.config.identity_json() == job.config.identity_json()
    # someone may have evaluated the fit with other options
    same &= all(getattr(evaluation, name) == getattr(job.evaluation, name) for name in ("n_pairs", "part", "seed"))
    return same and set(job.evaluation.controls) <= set(evaluation.controls)


def _read(path: Path, kind: type[D]) -> D | None:
    if not path.is_file():
        return None
    text = path.read_bytes()
    return None if kind.problems(text) else kind.parse(text, str(path))
