"""Fit one alignment or several of the same systems together: the only way in which anything is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from neuromas.align.alignment import Alignment, TrainableMap
from neuromas.align.prepare import as_systems, warnings_of
from neuromas.align.side import Side
from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput
from neuromas.files import local_path
from neuromas.fit.folder import is_finished, remove_checkpoint
from neuromas.fit.loop import Outcome, run_together
from neuromas.fit.plan import State
from neuromas.fit.prepare import OF_SIDES, Prepared, compared_variables, fit_sides, prepare
from neuromas.fit.progress import Progress
from neuromas.fit.remarks import count_misses, missed_pairs, strange_steps, without_effect
from neuromas.fit.result import FitResult
from neuromas.fit.stand_ins import Twins
from neuromas.fit.start import solve, start_maps
from neuromas.provenance import now, versions
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.fit import FitConfig, FitReport, default_config
from neuromas.systems.system import System
from neuromas.twins.twin import JUDGE


def together(
    configs: Sequence[FitConfig],
    systems: Sequence[System | Recording],
    *,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    device: str = "cpu",
    out: Sequence[str | Path | None] | None = None,
    progress: Callable[[int, Progress], None] | None = None,
    names: Sequence[object] | None = None,
) -> list[FitResult]:
    """Fit several alignments of the same systems at once.

    Systems are recorded once for all fits with the same seed and trials. In each iteration, the frozen systems run once on the
    batches of several fits (on a CPU about 1,024 pairs). Each result is that of the same fit alone, up to rounding.

    Parameters
    ----------
    configs : sequence of FitConfig
        They may differ in seeds, ranks, variables, weights, even methods.
    systems, model, mapping, units, device
        As in `neuromas.fit.fitters.Fitter.fit`; the same for all.
    out : sequence of path-like or None, optional
        A folder for each fit. An interrupted fit continues from its checkpoint there, a finished one is returned.
    progress : callable, optional
        Called with the number of a fit and its `Progress` after each of its iterations.
    names : sequence, optional
        Names of the fits in error messages; their numbers by default.

    Returns
    -------
    list of FitResult
        In the order of `configs`.

    Raises
    ------
    InvalidInput, NotFound, ReadOnly
        As in `neuromas.fit.fitters.Fitter.fit`. If the loss of some fits is no longer finite, the others end first, and are
        saved if they have folders.
    """
    systems = as_systems(systems)
    folders = _folders(out, len(configs))
    twins = Twins(show=progress is not None)
    ready = _prepare_all(configs, systems, folders, twins, model=model, mapping=mapping, units=units, device=device)
    results: dict[int, FitResult] = {}
    starts: dict[int, dict[str, TrainableMap]] = {}
    for number, (config, each, folder) in enumerate(zip(configs, ready, folders, strict=True)):
        if folder is not None and is_finished(folder):
            results[number] = _finished(folder, each)
        elif config.solver == "closed-form":
            results[number] = _finish(each, device, folder, _solved(each))
        else:
            starts[number] = {name: module.to(device) for name, module in start_maps(each).items()}
    numbers = list(starts)

    def ended(place: int, outcome: Outcome) -> None:
        number = numbers[place]
        results[number] = _finish(ready[number], device, folders[number], outcome)

    if numbers:
        run_together(
            [ready[number].plan for number in numbers],
            list(starts.values()),
            ended,
            folders=[folders[number] for number in numbers],
            report=None if progress is None else lambda place, current: progress(numbers[place], current),
            names=_names(numbers, names, alone=len(configs) == 1),
        )
    return [results[number] for number in range(len(configs))]


def _folders(out: Sequence[str | Path | None] | None, n_fits: int) -> list[Path | None]:
    folders = [None if path is None else local_path(path) for path in (out or [None] * n_fits)]
    if len(folders) != n_fits:
        raise InvalidInput(f"expected one folder for each of {n_fits} fits, got {len(folders)}", kind="invalid_option")
    absolute = [folder.absolute() for folder in folders if folder is not None]
    if len(set(absolute)) < len(absolute):
        raise InvalidInput("two fits have the same folder; each needs its own", kind="invalid_option")
    return folders


def _prepare_all(
    configs: Sequence[FitConfig],
    systems: Sequence[System | Recording],
    folders: Sequence[Path | None],
    twins: Twins,
    *,
    mapping: Mapping[str, Mapping[str, Any]] | None,
    **options: Any,
) -> list[Prepared]:
    """Every fit before its first iteration; fits whose sides are equal share them."""
    shared: dict[str, list[Side]] = {}
    ready = []
    for config, folder in zip(configs, folders, strict=True):
        key = config.model_dump_json(include=OF_SIDES)
        if key not in shared:
            shared[key] = fit_sides(config, systems, mapping=mapping, **options)
        ready.append(prepare(config, systems, twins.of(config, shared[key], folder), mapping))
    return ready


def _finished(folder: Path, ready: Prepared) -> FitResult:
    """The result in `folder`, with the sides of this fit."""
    result = FitResult.load(folder)
    if result.report.identity != ready.plan.identity:
        raise InvalidInput(
            f"{folder} holds the result of another fit ({result.report.provenance.source}; configuration or inputs differ);"
            " choose another folder",
            kind="occupied",
        )
    return FitResult(result.alignment, result.report, ready.sides)


def _solved(ready: Prepared) -> Outcome:
    started = time.monotonic()
    maps, history = solve(ready.plan)
    return maps, State.solved(history, time.monotonic() - started), "closed_form"


def _names(numbers: Sequence[int], names: Sequence[object] | None, *, alone: bool) -> Sequence[object] | None:
    """Names of these fits in error messages; none for a fit that is alone."""
    if alone:
        return None
    return numbers if names is None else [names[number] for number in numbers]


def _finish(ready: Prepared, device: str, folder: Path | None, outcome: Outcome) -> FitResult:
    """The result of a fit, saved if it has a folder."""
    maps, state, status = outcome
    plan, sides = ready.plan, ready.sides
    config = plan.config
    defaults = default_config(config.method, preset=config.preset, map=config.map)
    misses = [count_misses(pairs) for pairs in (*plan.train, *plan.validation)]
    warnings = (
        *warnings_of(sides),
        *missed_pairs(plan, misses[: len(plan.train)]),
        *without_effect(config, plan.terms, defaults),
        *strange_steps(plan),
    )
    alignment = Alignment(maps, plan.subspaces, config.map, config.method in ("stitch", "latent-stitch")).to("cpu")
    report = FitReport(
        config=config,
        inputs=ready.inputs,
        variables=compared_variables(sides, plan.subspaces),
        ran=tuple(
            dict.fromkeys(term.direction.target.name for term in plan.terms if term.behaviour and not term.by_twin)
        ),
        twins={side.name: side.twin.card.quality_of(JUDGE) for side in sides if side.twin is not None},
        trial_accuracy={
            side.name: accuracy
            for side in sides
            if (accuracy := side.recording.manifest.provenance.trial_accuracy) is not None
        },
        status=status,
        iterations=state.iteration,
        best_iteration=state.best_iteration,
        seconds=state.seconds,
        history=tuple(state.history),
        misses=tuple(misses),
        warnings=warnings,
        threads=torch.get_num_threads(),
        identity=plan.identity,
        alignment_sha256=alignment.sha256(),
        provenance=Provenance(
            source=f"{config.method} on {', '.join(side.name for side in sides)}",
            seed=config.seed,
            created=now(),
            versions=versions(),
            notes=f"device {device}, {torch.get_num_threads()} threads",
        ),
    )
    result = FitResult(alignment, report, sides)
    if folder is not None:
        result.save(folder)
        remove_checkpoint(folder)
    return result
