"""What one fit iteration costs, against the floor: the work that cannot be left out at the machine's own rate."""

from __future__ import annotations

import numpy as np

from neuromas.align.alignment import lay_out
from neuromas.align.side import Direction, draw_pair_set, make_sides
from neuromas.bench.measure import Row, at_most, matrix_product, paired, seconds, threads
from neuromas.causal.model import get_task
from neuromas.fit.fitters import CLMAS, MAS, Fitter
from neuromas.fit.loop import Plan, State, init, step
from neuromas.recordings.recording import Recording
from neuromas.recordings.store import shipped_store
from neuromas.schema import SystemConfig
from neuromas.systems.system import System
from neuromas.systems.training import load_system

_ITERATIONS = 10  # per timing: the mean over batches of different lengths


def continuation_flops(config: SystemConfig, lengths: np.ndarray) -> int:
    """Operations of a frozen GRU's continuation: live tokens forward, and the gradient with respect to the latent.

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
    width, hidden, n_tokens = config.n_units, config.n_hidden, len(config.vocabulary)
    live = int(lengths.sum())
    steps = live - int((lengths > 0).sum())
    forward = 2 * (steps * 3 * width * width + live * (width * hidden + hidden * n_tokens))
    return 2 * forward


def bench_fit(*, n_threads: int = 1, batch_size: int = 128) -> list[Row]:
    """Time iterations of MAS (four directions run) and CLMAS (two run, two read) on the shipped GRUs.

    Parameters
    ----------
    n_threads : int
    batch_size : int
        Pairs per direction.
    """
    first, second = load_system("multi-object/gru-0"), load_system("multi-object/gru-1")
    brain = shipped_store().get("multi-object/gru-1")
    rows: list[Row] = []
    with threads(n_threads):
        common = {"batch_size": batch_size, "n_trials": 800}
        rows += _iterations(MAS(16, **common), [first, second], n_threads)
        rows += _iterations(CLMAS(16, **common), [first, brain], n_threads)
    return rows


def _iterations(fitter: Fitter, systems: list[System | Recording], n_threads: int) -> list[Row]:
    plan, state = _started(fitter, systems)
    product, product_flops = matrix_product()
    taken, reference, ratio = paired(lambda: [step(plan, state) for _ in range(_ITERATIONS)], product)
    flops = 0.0
    for term, pairs in zip(plan.terms, plan.train, strict=True):
        if term.behaviour:
            assert pairs.continuation is not None
            assert term.direction.target.system is not None
            whole = continuation_flops(term.direction.target.system.config, pairs.continuation.lengths)
            flops += whole * plan.config.batch_size / len(pairs)
    share = flops * _ITERATIONS / product_flops  # of the product's work that the iterations cannot do without
    name = f"{fitter.config.method} iteration, batch {plan.config.batch_size} × {len(plan.terms)} directions"
    return [
        Row(f"float32 2048³ matrix product, {n_threads} threads", product_flops / reference / 1e9, "GFLOP/s"),
        Row(f"{name}: work of live tokens", flops / 1e9, "GFLOP"),
        at_most(
            name,
            taken / _ITERATIONS * 1e3,
            "ms",
            3.0,
            "floor: live tokens at the matrix product's rate",
            ratio / share,
        ),
    ]


def _started(fitter: Fitter, systems: list[System | Recording]) -> tuple[Plan, State]:
    ready = fitter.prepare(systems)
    return ready.plan, init(ready.plan, fitter.start(ready), None)


def bench_pairs(*, n_pairs: int = 10_000) -> list[Row]:
    """Time the drawing of pairs with their counterfactual sequences."""
    model = get_task("multi-object")
    sides = make_sides([shipped_store().get("multi-object/gru-0")], model=model)
    direction = Direction(sides[0], sides[0])
    subspaces = lay_out({"full": 16})
    with threads(1):
        taken = seconds(lambda: draw_pair_set(direction, "train", n_pairs, subspaces, [0]), repeats=5)
    return [at_most(f"{n_pairs} pairs with counterfactual sequences", taken, "s", 1.0)]
