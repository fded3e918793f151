"""How good a twin is on trials that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.causal.model import CausalModel
from neuromas.recordings.recording import Recording
from neuromas.schema.twin import TwinQuality
from neuromas.systems.system import Packed, System, all_right
from neuromas.twins.data import MISSING, TwinData
from neuromas.twins.kinds import Dynamics, least_squares

GOOD_CEILING = 0.99
"""Counterfactual-latent ceiling from which a judge is good. Answers that no rule decides, such as which token comes next
at random, need not be predicted."""
_N_CEILING = 2_000


def quality_of(
    role: str,
    kind: str,
    dynamics: Dynamics,
    data: TwinData,
    *,
    train: Tensor,
    test: Tensor,
    ceilings: NDArray[np.float64] | None,
    cl_ceiling: tuple[int, int] | None,
) -> TwinQuality:
    """Quality of one model.

    Parameters
    ----------
    role, kind : str
    dynamics : Dynamics
    data : TwinData
    train, test : Tensor of int64
        Rows of `data`: those of the linear model that it is compared with, and those that it is scored on.
    ceilings : ndarray of shape (n_units,), or None
        Noise ceilings from `noise_ceilings`.
    cl_ceiling : (int, int) or None
        Latents that went on as they should, of how many; from `ceiling_of`.

    Returns
    -------
    TwinQuality
    """
    before = test[data.followed[test]]
    after = before + 1
    truth = data.latents[after]
    with torch.no_grad():
        predicted = dynamics(data.latents[before], data.inputs[after])
    linear = _linear(data, train[data.followed[train]])
    by_unit = _r2_by_unit(predicted, truth)
    known = test[data.behaviour[test] != MISSING]
    with torch.no_grad():
        right = dynamics.behaviour(data.latents[known]).argmax(dim=1) == data.behaviour[known]
    low, high = interval(int(right.sum()), len(right))
    counts = torch.bincount(data.behaviour[known])
    variances = truth.var(dim=0, correction=0).numpy()
    ceiling = None
    if ceilings is not None:
        seen = ~np.isnan(ceilings)
        ceiling = float(np.average(ceilings[seen], weights=variances[seen] + 1e-12)) if seen.any() else None
    of_cl: tuple[float | None, ...] = (None, None, None)
    if cl_ceiling is not None:
        of_cl = (cl_ceiling[0] / cl_ceiling[1], *interval(*cl_ceiling))
    return TwinQuality(
        role=role,
        kind=kind,
        r2=_r2(predicted, truth),
        r2_no_change=_r2(data.latents[before], truth),
        r2_linear=_r2(linear(data.latents[before], data.inputs[after]), truth),
        r2_by_unit=tuple(by_unit.tolist()),
        ceiling_by_unit=()
        if ceilings is None
        else tuple(None if np.isnan(value) else float(value) for value in ceilings),
        ceiling=ceiling,
        rollout=_rollout(dynamics, data, test, 2 * 6),
        behaviour=float(right.double().mean()),
        behaviour_low=low,
        behaviour_high=high,
        behaviour_chance=float(counts.max() / counts.sum()),
        cl_ceiling=of_cl[0],
        cl_ceiling_low=of_cl[1],
        cl_ceiling_high=of_cl[2],
    )


def interval(n_right: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Clopper & Pearson 1934).

    Examples
    --------
    >>> [round(end, 4) for end in interval(1000, 1000)]
    [0.9963, 1.0]
    """
    from scipy.stats import binomtest

    ends = binomtest(n_right, n).proportion_ci()
    return float(ends.low), float(ends.high)


def noise_ceilings(recording: Recording, data: TwinData, rows: Tensor) -> NDArray[np.float64] | None:
    """Share of each unit's variance that step and variables explain, without bias (one-way random effects).

    Parameters
    ----------
    recording : Recording
    data : TwinData
        Of `recording`.
    rows : Tensor of int64

    Returns
    -------
    ndarray of shape (n_units,), or None
        NaN for a unit without variance. None if no combination of step and variables occurs twice.
    """
    at = data.order[rows.numpy()]
    keys = np.column_stack([recording.step[at], recording.values(recording.variable_names)[at]])
    _, group, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    n, n_groups = len(group), len(counts)
    if n_groups < 2 or n == n_groups:
        return None
    latents = data.latents[rows].double().numpy()
    sums = np.zeros((n_groups, latents.shape[1]))
    np.add.at(sums, group, latents)
    means = sums / counts[:, None]
    within = np.square(latents - means[group]).sum(axis=0) / (n - n_groups)
    between = (np.square(means - latents.mean(axis=0)) * counts[:, None]).sum(axis=0) / (n_groups - 1)
    size = (n - np.square(counts).sum() / n) / (n_groups - 1)
    signal = np.maximum(0.0, (between - within) / size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(signal + within > 0, signal / (signal + within), np.nan)


def ceiling_of(
    system: System, model: CausalModel, recording: Recording, data: TwinData, rows: Tensor, seed: int
) -> tuple[int, int] | None:
    """From how many recorded latents a model goes on as the causal model says for their values.

    Parameters
    ----------
    system : System
        The model, ready to be resumed.
    model : CausalModel
    recording : Recording
    data : TwinData
    rows : Tensor of int64
        Samples of `data` to take; only eligible ones with possible values are.
    seed : int

    Returns
    -------
    (int, int) or None
        Right, and all. None if no sample is eligible.
    """
    if not set(model.variable_names) <= set(recording.variable_names):
        return None
    at = data.order[rows.numpy()]
    values = recording.values(list(model.variable_names))[at].astype(np.int64)
    usable = recording.eligible[at] & model.possible(values)
    chosen = np.flatnonzero(usable)
    if not len(chosen):
        return None
    generator = np.random.default_rng([seed, _N_CEILING])
    chosen = np.sort(generator.choice(chosen, min(len(chosen), _N_CEILING), replace=False))
    follows = model.counterfactual(values[chosen], generator)
    packed = Packed.from_sequences(follows.tokens, system.foreseen(follows.lengths), follows.deterministic)
    with torch.no_grad():
        logits = system.resume(data.latents[rows[torch.from_numpy(chosen)]], packed)
    return int(all_right(logits, packed, len(chosen)).sum()), len(chosen)


def verdict_of(judge: TwinQuality) -> tuple[str, ...]:
    """Why a judge is poor: empty for a good one."""
    if judge.cl_ceiling is None:
        return ("there is no causal model that says how the system should go on from a latent",)
    if judge.cl_ceiling < GOOD_CEILING:
        return (
            f"from recorded latents it goes on as the causal model says in only {judge.cl_ceiling:.1%} of the cases; expected at"
            f" least {GOOD_CEILING:.0%}",
        )
    return ()


def _r2(predicted: Tensor, truth: Tensor) -> float:
    residual = (predicted - truth).double().square().sum()
    variance = (truth.double() - truth.double().mean(dim=0)).square().sum()
    return float(1 - residual / variance.clamp_min(1e-12))


def _r2_by_unit(predicted: Tensor, truth: Tensor) -> Tensor:
    residual = (predicted - truth).double().square().sum(dim=0)
    variance = (truth.double() - truth.double().mean(dim=0)).square().sum(dim=0)
    return torch.where(variance > 0, 1 - residual / variance.clamp_min(1e-12), 0.0)


def _linear(data: TwinData, rows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The linear function of latent and next input that predicts the next latent best."""
    x = torch.cat([data.latents[rows], data.inputs[rows + 1]], dim=1)
    weights = least_squares(x, data.latents[rows + 1])
    return lambda latents, inputs: torch.cat([latents, inputs], dim=1) @ weights[:-1] + weights[-1]


@torch.no_grad()
def _rollout(dynamics: Dynamics, data: TwinData, rows: Tensor, most: int) -> tuple[float, ...]:
    """R² after each number of steps."""
    scores = []
    latents = data.latents[rows]
    for _ in range(most):
        alive = data.followed[rows]
        if int(alive.sum()) < 2:
            break
        rows, latents = rows[alive] + 1, latents[alive]
        latents = dynamics(latents, data.inputs[rows])
        scores.append(_r2(latents, data.latents[rows]))
    return tuple(scores)
