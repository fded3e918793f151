"""Time until an alignment reaches its IIA: the paper's schedule compared with others, on the shipped networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromas.align.alignment import Alignment
from neuromas.align.interchange import LinearMap
from neuromas.bench.measure import Row, at_most, threads
from neuromas.errors import InvalidInput
from neuromas.evaluation.accuracy import evaluate
from neuromas.fit.fitters import CLMAS, FITTERS, MAS, Fitter
from neuromas.fit.objective import losses, make_batch
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.start import start_maps
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import shipped_store
from neuromas.schema.evaluation import DirectionScore
from neuromas.systems.system import System, check_device
from neuromas.systems.training import load_system

METHODS = {"mas": MAS, "clmas": CLMAS}
FEWER = 20
"""The target: this many times fewer iterations than the paper's schedule."""
_LBFGS_PAIRS = 512

_COSINE: dict[str, Any] = {"learning_rate": 0.015, "schedule": "cosine", "batch_size": 64, "patience": 10**6}
_QUICK: dict[str, Any] = {"learning_rate": 0.03, "schedule": "cosine", "batch_size": 64, "patience": 10**6}


def paper(iterations: int) -> dict[str, Any]:
    """The paper's schedule: random start, Adam at 1e-3, 512 pairs per direction, the best validation checkpoint."""
    return {"max_iterations": iterations, "patience": 10**6}


def tried(iterations: int) -> dict[str, dict[str, Any]]:
    """The other schedules, by name: settings of a fit. None is longer than the target allows."""
    longest = iterations // FEWER
    lengths = sorted({min(length, longest) for length in (100, 200, 400, 600, 1000)})
    schedules: dict[str, dict[str, Any]] = {}
    for length in lengths:
        schedules[f"cosine from 0.015, {length} × 64"] = {**_COSINE, "max_iterations": length}
    for length in lengths[:3]:
        schedules[f"closed-form start, cosine from 0.015, {length} × 64"] = {
            **_COSINE,
            "max_iterations": length,
            "init": "closed-form",
        }
    middle = lengths[min(2, len(lengths) - 1)]
    gram_schmidt = {**_COSINE, "rotation": "gram-schmidt"}
    for length in sorted({middle, longest}):
        schedules[f"Gram-Schmidt, cosine from 0.015, {length} × 64"] = {**gram_schmidt, "max_iterations": length}
        schedules[f"Gram-Schmidt, closed-form start, cosine from 0.015, {length} × 64"] = {
            **gram_schmidt,
            "max_iterations": length,
            "init": "closed-form",
        }
    schedules[f"closed-form start, cosine from 0.015, {longest} × 64"] = {
        **_COSINE,
        "max_iterations": longest,
        "init": "closed-form",
    }
    schedules[f"cosine from 0.03, {middle} × 64"] = {**_QUICK, "max_iterations": middle}
    schedules[f"Cayley, cosine from 0.015, {middle} × 64"] = {**_COSINE, "max_iterations": middle, "rotation": "cayley"}
    schedules[f"constant 0.001, {longest} × 512"] = paper(longest)
    return schedules


@dataclass(frozen=True)
class Tried:
    """Result of a fit with one schedule.

    Attributes
    ----------
    name : str
    iterations : int
        Number of gradients of the objective.
    pairs : int
        Interchanges per direction in these gradients.
    seconds : float
    worst : float
        Held-out IIA of the worst direction. Where the fit may not run a target, an oracle measures it afterwards.
    """

    name: str
    iterations: int
    pairs: int
    seconds: float
    worst: float


@dataclass(frozen=True)
class _Problem:
    """The systems that every schedule is tried on.

    Attributes
    ----------
    fitter : callable
        Makes the fitter from the schedule's settings.
    systems : list of System or Recording
    oracles : dict of str to System
    n_test : int
        Test pairs per direction.
    device : str
    """

    fitter: Callable[..., Fitter]
    systems: list[System | Recording]
    oracles: Mapping[str, System]
    n_test: int
    device: str

    @classmethod
    def of(cls, method: str, n_test: int, device: str, common: Mapping[str, Any]) -> _Problem:
        first, second = load_system("multi-object/gru-0"), load_system("multi-object/gru-1")
        fitter = partial(METHODS[method], **common)
        if method == "clmas":
            brain = shipped_store().get("multi-object/gru-1")
            return cls(fitter, [first, brain], {"gru-1": second}, n_test, device)
        return cls(fitter, [first, second], {}, n_test, device)

    def worst(self, scores: Sequence[DirectionScore]) -> float:
        """IIA of the worst direction."""
        return min(score.iia for score in scores if score.iia is not None)

    def tried(self, name: str, settings: Mapping[str, Any]) -> Tried:
        """Fit with the schedule `settings`, and score the fit."""
        fitter = self.fitter(**settings)
        started = time.perf_counter()
        result = fitter.fit(self.systems, device=self.device)
        seconds = time.perf_counter() - started
        scores = result.evaluate(oracles=self.oracles, controls=(), n_pairs=self.n_test).scores
        n_pairs = result.report.iterations * fitter.config.batch_size
        return Tried(name, result.report.iterations, n_pairs, seconds, self.worst(scores))


def bench_schedule(
    method: str = "mas",
    *,
    iterations: int = 20_000,
    run: int | None = None,
    rank: int = 16,
    seed: int = 0,
    n_pairs: int = 10_000,
    n_test: int = 1000,
    n_trials: int = 2000,
    n_threads: int = 1,
    device: str = "cpu",
    report: Callable[[Tried], None] | None = None,
) -> list[Row]:
    """Fit the shipped pair of networks with the paper's schedule and with others.

    Parameters
    ----------
    method : {"mas", "clmas"}
        CLMAS only reads ``gru-1``; an oracle scores it after the fit.
    iterations : int
        Iterations of the paper's schedule. The paper has 20,000.
    run : int, optional
        Number of these iterations to run, if all take too long. By default all. The row says how many were run.
    rank, seed : int
    n_pairs, n_test : int
        Training pairs and test pairs per direction.
    n_trials : int
        Trials that each network is recorded on.
    n_threads : int
    device : str
        On a GPU, L-BFGS is left out.
    report : callable, optional
        Called with the result of each schedule.

    Returns
    -------
    list of Row
        ``ratio`` of each schedule: its iterations over the paper's. The target is met if the ratio is at most 1/20 and the worst
        direction's IIA is not below the paper's.

    Raises
    ------
    InvalidInput
        Another method, fewer than 20 iterations, or a device that is not there.
    """
    check_device(device)
    if method not in METHODS or iterations < FEWER:
        raise InvalidInput(
            f"bench schedule: expected {' or '.join(METHODS)} and at least {FEWER} iterations, got {method!r} and {iterations}",
            kind="invalid_option",
        )
    common = {"preset": "paper", "rank": rank, "seed": seed, "n_train_pairs": n_pairs, "n_trials": n_trials}
    problem = _Problem.of(method, n_test, device, common)
    results = []
    with threads(n_threads):
        for result in _all_tried(problem, iterations, min(run or iterations, iterations)):
            results.append(result)
            if report is not None:
                report(result)
    return _rows(method, iterations, *results)


def _all_tried(problem: _Problem, iterations: int, run: int) -> Iterator[Tried]:
    """The paper's schedule, then all others."""
    yield problem.tried(f"paper: constant 0.001, {iterations} × 512", paper(run))
    for name, settings in tried(iterations).items():
        yield problem.tried(name, settings)
    if problem.device == "cpu":
        yield _lbfgs(problem, iterations // FEWER)


def _rows(method: str, iterations: int, reference: Tried, *others: Tried) -> list[Row]:
    rows = [
        Row(f"{method}, {reference.name}: worst IIA", reference.worst, "share"),
        Row(f"{method}, {reference.name}: time", reference.seconds, "s"),
        Row(f"{method}, {reference.name}: iterations run", reference.iterations, "iterations"),
    ]
    for result in others:
        name, ratio = f"{method}, {result.name}", result.iterations / iterations
        against = f"paper's {iterations:,} iterations"
        fewer = at_most(f"{name}: iterations", result.iterations, "iterations", 1 / FEWER, against, ratio)
        of_paper, iia_ratio = "paper's schedule", result.worst / max(reference.worst, 1e-9)
        rows += [
            replace(fewer, met=bool(fewer.met) and result.worst >= reference.worst),
            Row(f"{name}: worst IIA", result.worst, "share", of_paper, iia_ratio),
            Row(f"{name}: time", result.seconds, "s", of_paper, result.seconds / reference.seconds),
        ]
    return rows


def _lbfgs(problem: _Problem, evaluations: int) -> Tried:
    """L-BFGS with a strong Wolfe line search on one batch of pairs, the same at every evaluation."""
    started = time.perf_counter()
    fitter = problem.fitter()
    ready = prepare(fitter.config, problem.systems, fit_sides(fitter.config, problem.systems))
    start = start_maps(ready)
    names, maps = list(start), nn.ModuleList(start.values())
    generator = torch.Generator().manual_seed(fitter.config.seed)
    batches = [
        make_batch(
            term, pairs, np.arange(min(_LBFGS_PAIRS, len(pairs))), ready.plan.subspaces, generator if term.cl else None
        )
        for term, pairs in zip(ready.plan.terms, ready.plan.train, strict=True)
    ]
    optimiser = torch.optim.LBFGS(
        maps.parameters(), max_iter=evaluations, max_eval=evaluations, history_size=20, line_search_fn="strong_wolfe"
    )
    n_done = 0

    def now() -> dict[str, LinearMap]:
        return {name: trainable() for name, trainable in zip(names, maps, strict=True)}

    def closure() -> torch.Tensor:
        nonlocal n_done
        n_done += 1
        optimiser.zero_grad()
        total = losses(now(), batches, fitter.config).total
        total.backward()
        for parameter in maps.parameters():
            if parameter.grad is not None:
                # the layout that the optimiser needs
                parameter.grad = parameter.grad.contiguous()
        return total

    optimiser.step(closure)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        alignment = Alignment(
            {name: fitted.detach() for name, fitted in now().items()}, ready.plan.subspaces, fitter.config.map, False
        )
    scores = evaluate(alignment, ready.sides, oracles=problem.oracles, controls=(), n_pairs=problem.n_test).scores
    name = f"L-BFGS, one batch of {_LBFGS_PAIRS}"
    return Tried(name, n_done, n_done * len(batches[0]), seconds, problem.worst(scores))


assert set(METHODS) <= set(FITTERS)
