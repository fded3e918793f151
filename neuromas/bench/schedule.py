"""Time to IIA: what users wait for. Schedules and optimisers against the paper's, on the shipped pair of networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromas.align.alignment import Alignment
from neuromas.bench.measure import Row, at_most, threads
from neuromas.errors import InvalidInput
from neuromas.evaluate.accuracy import evaluate
from neuromas.fit.fitters import CLMAS, FITTERS, MAS, Fitter
from neuromas.fit.objective import losses, make_batch
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.start import start_maps
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import shipped_store
from neuromas.systems.system import System, check_device
from neuromas.systems.training import load_system

METHODS = {"mas": MAS, "clmas": CLMAS}
FEWER = 20
"""Times fewer iterations than the paper's schedule: the target."""
_LBFGS_PAIRS = 512

_COSINE: dict[str, Any] = {"learning_rate": 0.015, "schedule": "cosine", "batch_size": 64, "patience": 10**6}
_QUICK: dict[str, Any] = {"learning_rate": 0.03, "schedule": "cosine", "batch_size": 64, "patience": 10**6}


def paper(iterations: int) -> dict[str, Any]:
    """The paper's schedule: random start, Adam at 1e-3, 512 pairs per direction, the best validation checkpoint."""
    return {"max_iterations": iterations, "patience": 10**6}


def tried(iterations: int) -> dict[str, dict[str, Any]]:
    """What is tried against it, by name: settings of a fit, none longer than the target allows."""
    longest = iterations // FEWER
    lengths = sorted({min(length, longest) for length in (100, 200, 400, 600, 1000)})
    found: dict[str, dict[str, Any]] = {}
    for length in lengths:
        found[f"cosine from 0.015, {length} × 64"] = {**_COSINE, "max_iterations": length}
    for length in lengths[:3]:
        found[f"closed-form start, cosine from 0.015, {length} × 64"] = {
            **_COSINE,
            "max_iterations": length,
            "init": "closed-form",
        }
    middle = lengths[min(2, len(lengths) - 1)]
    gram_schmidt = {**_COSINE, "rotation": "gram-schmidt"}
    for length in sorted({middle, longest}):
        found[f"Gram-Schmidt, cosine from 0.015, {length} × 64"] = {**gram_schmidt, "max_iterations": length}
        found[f"Gram-Schmidt, closed-form start, cosine from 0.015, {length} × 64"] = {
            **gram_schmidt,
            "max_iterations": length,
            "init": "closed-form",
        }
    found[f"closed-form start, cosine from 0.015, {longest} × 64"] = {
        **_COSINE,
        "max_iterations": longest,
        "init": "closed-form",
    }
    found[f"cosine from 0.03, {middle} × 64"] = {**_QUICK, "max_iterations": middle}
    found[f"Cayley, cosine from 0.015, {middle} × 64"] = {**_COSINE, "max_iterations": middle, "rotation": "cayley"}
    found[f"constant 0.001, {longest} × 512"] = paper(longest)
    return found


@dataclass(frozen=True)
class Tried:
    """What one schedule came to.

    Attributes
    ----------
    name : str
    iterations : int
        Gradients of the objective that were computed.
    pairs : int
        Interchanges per direction that went into them.
    seconds : float
    worst : float
        Held-out IIA of the worst direction; where the fit may not run a target, an oracle tells it, afterwards.
    """

    name: str
    iterations: int
    pairs: int
    seconds: float
    worst: float


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
    """Fit the shipped pair with the paper's schedule and with others.

    Parameters
    ----------
    method : {"mas", "clmas"}
        CLMAS only reads ``gru-1``; an oracle scores it when all is done.
    iterations : int
        Of the paper's schedule; its own are 20,000.
    run : int, optional
        How many of these are run to learn what it comes to, where all would take too long; by default all. The row says so.
    rank, seed : int
    n_pairs, n_test : int
        Training pairs and test pairs per direction.
    n_trials : int
        Trials that each network is recorded on.
    n_threads : int
    device : str
        On a GPU, L-BFGS is left out.
    report : callable, optional
        Called with what each schedule came to.

    Returns
    -------
    list of Row
        ``ratio`` of each schedule: its iterations over the paper's; the target is met where that is at most 1/20 and the worst
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
    first, second = load_system("multi-object/gru-0"), load_system("multi-object/gru-1")
    systems: list[System | Recording] = [first, second]
    oracles: dict[str, System] = {}
    if method == "clmas":
        systems[1], oracles = shipped_store().get("multi-object/gru-1"), {"gru-1": second}
    common: dict[str, Any] = {
        "preset": "paper",
        "rank": rank,
        "seed": seed,
        "n_train_pairs": n_pairs,
        "n_trials": n_trials,
    }

    def of(name: str, settings: Mapping[str, Any]) -> Tried:
        fitter = METHODS[method](**common, **settings)
        started = time.perf_counter()
        result = fitter.fit(systems, device=device)
        taken = time.perf_counter() - started
        scores = result.evaluate(oracles=oracles, controls=(), n_pairs=n_test).scores
        worst = min(score.iia for score in scores if score.iia is not None)
        done = Tried(name, result.report.iterations, result.report.iterations * fitter.config.batch_size, taken, worst)
        if report is not None:
            report(done)
        return done

    with threads(n_threads):
        reference = of(f"paper: constant 0.001, {iterations} × 512", paper(min(run or iterations, iterations)))
        found = [of(name, settings) for name, settings in tried(iterations).items()]
        if device == "cpu":
            newton = _lbfgs(METHODS[method](**common), systems, oracles, iterations // FEWER, n_test)
            if report is not None:
                report(newton)
            found.append(newton)
    rows = [
        Row(f"{method}, {reference.name}: worst IIA", reference.worst, "share"),
        Row(f"{method}, {reference.name}: time", reference.seconds, "s"),
        Row(f"{method}, {reference.name}: iterations run", reference.iterations, "iterations"),
    ]
    for one in found:
        against, ratio = f"paper's {iterations:,} iterations", one.iterations / iterations
        fewer = at_most(f"{method}, {one.name}: iterations", one.iterations, "iterations", 1 / FEWER, against, ratio)
        as_good = one.worst >= reference.worst
        rows += [
            Row(
                fewer.name,
                fewer.value,
                fewer.unit,
                fewer.against,
                fewer.ratio,
                fewer.target,
                bool(fewer.met) and as_good,
            ),
            Row(
                f"{method}, {one.name}: worst IIA",
                one.worst,
                "share",
                "paper's schedule",
                one.worst / max(reference.worst, 1e-9),
            ),
            Row(f"{method}, {one.name}: time", one.seconds, "s", "paper's schedule", one.seconds / reference.seconds),
        ]
    return rows


def _lbfgs(
    fitter: Fitter, systems: list[System | Recording], oracles: Mapping[str, System], evaluations: int, n_test: int
) -> Tried:
    """L-BFGS with a strong Wolfe line search on one batch of pairs, the same at every evaluation."""
    started = time.perf_counter()
    ready = prepare(fitter.config, systems, fit_sides(fitter.config, systems))
    maps = nn.ModuleDict({str(place): one for place, one in enumerate(start_maps(ready).values())})
    names = list(start_maps(ready))
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
    done = 0

    def closure() -> torch.Tensor:
        nonlocal done
        done += 1
        optimiser.zero_grad()
        total = losses(
            {name: one() for name, one in zip(names, maps.values(), strict=True)}, batches, fitter.config
        ).total
        total.backward()
        for parameter in maps.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.contiguous()  # as the optimiser takes it
        return total

    optimiser.step(closure)
    taken = time.perf_counter() - started
    with torch.no_grad():
        found = {name: one().detach() for name, one in zip(names, maps.values(), strict=True)}
    alignment = Alignment(found, ready.plan.subspaces, fitter.config.map, False)
    scores = evaluate(alignment, ready.sides, oracles=oracles, controls=(), n_pairs=n_test).scores
    worst = min(score.iia for score in scores if score.iia is not None)
    return Tried(f"L-BFGS, one batch of {_LBFGS_PAIRS}", done, done * len(batches[0]), taken, worst)


assert set(METHODS) <= set(FITTERS)
