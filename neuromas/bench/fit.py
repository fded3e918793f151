"""Time of a fit's iteration, compared with a lower limit: the operations that are needed, at the rate of this machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from neuromas.align.alignment import lay_out
from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.bench.measure import Row, at_most, busy, copied, matrix_product, paired, seconds, threads
from neuromas.bench.peers import peers
from neuromas.causal.model import get_task
from neuromas.fit.fitters import CLMAS, DAS, MAS, Fitter
from neuromas.fit.loop import init, step, step_together
from neuromas.fit.plan import FitPlan, State, batch_rows
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.replay import MOST, Replay
from neuromas.fit.start import start_maps
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import shipped_store
from neuromas.schema.system import SystemConfig
from neuromas.systems.recurrent import GRU
from neuromas.systems.system import System, check_device
from neuromas.systems.training import load_system

_ITERATIONS = 10  # per timing: the mean over batches of different lengths


def continuation_flops(config: SystemConfig, lengths: np.ndarray) -> int:
    """Operations of a frozen recurrent network's continuation: live tokens forward, and the gradient with respect to the latent.

    Parameters
    ----------
    config : SystemConfig
    lengths : ndarray of int64, shape (n_pairs,)
        Live tokens of each pair. The first prediction needs no step of the cell: it comes from the latent itself.

    Returns
    -------
    int
        Multiplications and additions of the recurrent and readout matrices; the gradient costs as much as the forward pass.
    """
    width, gates = _cell(config)
    live = int(lengths.sum())
    steps = live - int((lengths > 0).sum())
    forward = 2 * (
        steps * gates * width * width + live * (width * config.n_hidden + config.n_hidden * len(config.vocabulary))
    )
    return 2 * forward


def continuation_bytes(config: SystemConfig, lengths: np.ndarray) -> int:
    """Bytes that the same work must move in float32, if only the weights stay in a cache.

    The states, gates, readout and logits of each live token are written once in the forward pass and read once in the backward
    pass. The backward pass also writes the gradient of the states.
    """
    width, gates = _cell(config)
    live = int(lengths.sum())
    kept = (gates + 1) * width + config.n_hidden + len(config.vocabulary)
    return 4 * live * (2 * kept + width)


def _cell(config: SystemConfig) -> tuple[int, int]:
    """(width of the hidden state, number of gates)."""
    return (config.n_units // 2, 4) if config.kind == "lstm" else (config.n_units, 3)


def bench_fit(*, n_threads: int = 1, batch_size: int = 128, n_fits: int = 32, device: str = "cpu") -> list[Row]:
    """Time iterations of MAS, CLMAS and DAS, of DAS in other libraries, and of many fits at once.

    MAS runs four directions. CLMAS runs two and reads two.

    Parameters
    ----------
    n_threads : int
    batch_size : int
        Pairs per direction.
    n_fits : int
        Fits at once.
    device : str
        On a GPU iterations are replayed, and the peers are left out.

    Raises
    ------
    InvalidInput
        The device is not there.
    """
    check_device(device)
    common = {"preset": "paper", "batch_size": batch_size, "n_trials": 800}
    rows: list[Row] = []
    with threads(n_threads):
        for kind in ("gru", "lstm"):
            first, second = (load_system(f"multi-object/{kind}-{seed}") for seed in (0, 1))
            rows += _iterations(MAS(16, **common), [first, second], n_threads, device)
            if kind == "gru":
                brain = shipped_store().get("multi-object/gru-1")
                rows += _iterations(CLMAS(16, **common), [first, brain], n_threads, device)
        if device == "cpu":
            rows += _against_peers(common)
        few = {"preset": "paper", "n_trials": 800, "batch_size": batch_size, "n_train_pairs": 2000}
        rows.append(_at_once(few, n_fits, n_threads, device))
    return rows


@dataclass(frozen=True)
class _Running:
    """Fits that each call continues by a number of iterations."""

    plans: Sequence[FitPlan]
    states: Sequence[State]
    iterations: int
    replay: Replay | None

    @classmethod
    def begun(cls, fitters: Sequence[Fitter], systems: list[System | Recording], device: str) -> _Running:
        sides = fit_sides(fitters[0].config, systems, device=device)
        ready = [prepare(fitter.config, systems, sides) for fitter in fitters]
        starts = [{name: fit.to(device) for name, fit in start_maps(fit).items()} for fit in ready]
        plans = [fit.plan for fit in ready]
        states = [init(plan, start, None) for plan, start in zip(plans, starts, strict=True)]
        if device == "cpu":
            return cls(plans, states, _ITERATIONS, None)
        return cls(plans, states, MOST, Replay(plans, states, [None] * len(plans)))

    def __call__(self) -> None:
        if self.replay is None:
            for _ in range(self.iterations):
                step_together(self.plans, self.states)
            return
        self.replay.run(self.iterations)
        for state in self.states:
            state.iteration += self.iterations


def _at_once(common: dict[str, Any], n_fits: int, n_threads: int, device: str) -> Row:
    """An iteration of many fits of the same two GRUs at once, compared with as many iterations of one fit."""
    systems: list[System | Recording] = [load_system("multi-object/gru-0"), load_system("multi-object/gru-1")]
    fitters = [MAS(4 + number % 16, **common) for number in range(n_fits)]
    together = _Running.begun(fitters, systems, device)
    name = (
        f"iteration of {n_fits} mas fits at once, batch {common['batch_size']} × 4 directions each, {n_threads} threads"
    )
    # the rank changes the time of a fit little, so a fit from the middle stands for all
    if device != "cpu":
        single = _Running.begun(fitters[n_fits // 2 : n_fits // 2 + 1], systems, device)
        at_once_s, alone_s, ratio = paired(together, single, repeats=3, warm_up=2)
        what = f"one: {alone_s / single.iterations * 1e3:.1f} ms"
        return at_most(name, at_once_s / together.iterations * 1e3, "ms", 4.0, what, ratio)
    alike = list(zip(together.plans, together.states, strict=True))
    at_once_s, alone_s, ratio = paired(
        lambda: step_together(together.plans, together.states),
        lambda: [step(plan, state) for plan, state in alike],
        repeats=5,
    )
    return at_most(name, at_once_s * 1e3, "ms", 0.6, f"one after another: {alone_s * 1e3:.0f} ms", ratio)


def _against_peers(common: dict[str, Any]) -> list[Row]:
    """DAS on the same frozen GRU, the same pairs, at rank 16."""
    system = load_system("multi-object/gru-0")
    assert isinstance(system, GRU)
    fitter = DAS(16, learn_scale=False, **common)
    plan, state = _started(fitter, [system])
    pairs, config = plan.train[0], plan.config
    rows = []
    for name, make in peers().items():
        (own,) = state.maps.values()
        theirs = make(system, pairs, own.get_submodule("rotation")().detach(), config.learning_rate)
        batches = (batch_rows(len(pairs), config.batch_size, config.seed, 0, i) for i in itertools.count())
        own_s, peer_s, ratio = paired(
            lambda: [step(plan, state) for _ in range(_ITERATIONS)],
            lambda theirs=theirs, batches=batches: theirs(next(batches)),  # type: ignore[misc]
            repeats=15,
        )
        what = f"{name}, the same pairs: {peer_s * 1e3:.0f} ms"
        target = 1 / 20 if name == "pyvene" else 1 / 5
        name_of_row = f"das iteration, batch {config.batch_size}"
        rows.append(at_most(name_of_row, own_s / _ITERATIONS * 1e3, "ms", target, what, ratio / _ITERATIONS))
    return rows


def _iterations(fitter: Fitter, systems: list[System | Recording], n_threads: int, device: str) -> list[Row]:
    running = _Running.begun([fitter], systems, device)
    (plan,), (state,) = running.plans, running.states
    product, product_flops = matrix_product(device)
    copy, copy_bytes = copied(device)
    measured_s, reference, ratio = paired(running, product, warm_up=1 if device == "cpu" else 2)
    flops = moved = 0.0
    kind = ""
    for term, pairs in zip(plan.terms, plan.train, strict=True):
        if term.behaviour:
            assert pairs.continuation is not None
            assert term.direction.target.system is not None
            system, share = term.direction.target.system.config, plan.config.batch_size / len(pairs)
            flops += continuation_flops(system, pairs.continuation.lengths) * share
            moved += continuation_bytes(system, pairs.continuation.lengths) * share
            kind = system.kind
    # work that the iterations need, in matrix products
    share = flops * running.iterations / product_flops
    floor_s = flops * reference / product_flops
    bandwidth = copy_bytes / seconds(copy)
    name = f"{fitter.config.method} iteration, {kind}, batch {plan.config.batch_size} × {len(plan.terms)} directions"
    floor = "floor: live tokens at the matrix product's rate"
    on_gpu = [] if device == "cpu" else _on_gpu(name, running, measured_s, plan, state)
    where = f"{n_threads} threads" if device == "cpu" else torch.cuda.get_device_name(device)
    return [
        Row(f"float32 2048³ matrix product, {where}", product_flops / reference / 1e9, "GFLOP/s"),
        Row("memory bandwidth: a copy of 256 MB, read and written", bandwidth / 1e9, "GB/s"),
        Row(f"{name}: work of live tokens", flops / 1e9, "GFLOP"),
        Row(
            f"{name}: bytes moved",
            moved / 1e9,
            "GB",
            "their time at that bandwidth over the floor",
            moved / bandwidth / floor_s,
        ),
        at_most(
            name,
            measured_s / running.iterations * 1e3,
            "ms",
            2.0,
            f"{floor}; {100 * share / ratio:.0f} % of it reached",
            ratio / share,
        ),
        *on_gpu,
    ]


def _on_gpu(name: str, running: _Running, measured_s: float, plan: FitPlan, state: State) -> list[Row]:
    """Share of the time in which no kernel runs, and the time of an iteration whose kernels are launched one by one."""
    launched = seconds(lambda: step(plan, state), repeats=5)
    idle = 1 - busy(replace(running, iterations=10))
    return [
        at_most(f"{name}: share of the time in which no kernel runs", idle, "", 0.3),
        Row(
            f"{name}, kernels launched one by one",
            launched * 1e3,
            "ms",
            "replayed",
            launched * running.iterations / measured_s,
        ),
    ]


def _started(fitter: Fitter, systems: list[System | Recording]) -> tuple[FitPlan, State]:
    ready = prepare(fitter.config, systems, fit_sides(fitter.config, systems))
    return ready.plan, init(ready.plan, start_maps(ready), None)


def bench_pairs(*, n_pairs: int = 10_000) -> list[Row]:
    """Time the drawing of pairs with their counterfactual sequences."""
    model = get_task("multi-object")
    sides = make_sides([shipped_store().get("multi-object/gru-0")], model=model)
    direction = Direction(sides[0], sides[0])
    subspaces = lay_out({"full": 16})
    with threads(1):
        drawing_s = seconds(lambda: draw_pair_set(direction, "train", n_pairs, subspaces, [0]), repeats=5)
    return [at_most(f"{n_pairs} pairs with counterfactual sequences", drawing_s, "s", 1.0)]
