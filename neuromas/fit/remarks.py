"""What a reader of a fit must know: expected values that were never recorded, options without effect, impossible steps."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from neuromas.align.alignment import Subspace
from neuromas.align.pairs import Direction, PairSet, paired_columns
from neuromas.align.side import Side
from neuromas.causal.counterfactual import possible
from neuromas.fit.objective import Term
from neuromas.fit.plan import FitPlan
from neuromas.schema.fit import FitConfig, Misses

_MANY, _SOME = 0.25, 0.05
"""Shares of training pairs: missed for any reason, and because a value was never recorded, from which on a fit warns."""
_MOST_VALUES = 60
"""Values up to which ``values=`` is spelled out."""
_OF_CL = ("cl_draw", "cl_matches", "cl_terms")
_OF_ITERATIONS = (
    "learn_scale",
    "cl_draw",
    "rotation",
    "init",
    "batch_size",
    "learning_rate",
    "schedule",
    "max_iterations",
    "validate_every",
    "patience",
    "tolerance",
)


def count_misses(pairs: PairSet) -> Misses:
    """Count the pairs whose expected values were never recorded in the target's part, and list these values."""
    index = pairs.direction.target.indexes[pairs.part]
    hit = index.lookup(torch.from_numpy(pairs.values))[1].cpu().numpy() > 0
    missing = Counter(
        ", ".join(
            f"{name}={_label(pairs.direction, name, code)}"
            for name, code in zip(pairs.direction.target.variables, row, strict=True)
        )
        for row in pairs.values[~hit].tolist()
    )
    return Misses(
        direction=pairs.direction.name,
        part=pairs.part,
        n_pairs=len(pairs),
        n_missed=int((~hit).sum()),
        resampled=pairs.resampled,
        values=dict(missing.most_common()),
    )


def _label(direction: Direction, variable: str, code: float) -> str:
    """A value of the target's variable as people read it. Only the source may know what it means."""
    source, target = direction.source, direction.target
    spec = target.recording.spec(variable)
    theirs = source.roles.get(_shared_name(target, variable), variable)
    if spec.values is not None and code not in spec.values and theirs in source.variables:
        spec = source.recording.spec(theirs)
    return spec.label(code)


def _shared_name(side: Side, variable: str) -> str:
    """The name under which a side's variable meets those of other sides."""
    return next((role for role, own in side.roles.items() if own == variable), variable)


def missed_pairs(plan: FitPlan, misses: Sequence[Misses]) -> tuple[str, ...]:
    """Directions of which many training pairs have no counterfactual latent, with the values that were never recorded.

    Parameters
    ----------
    plan : FitPlan
    misses : sequence of Misses
        Of ``plan.train``.

    Returns
    -------
    tuple of str
        For `FitReport.warnings`. Each says which ``values=`` leaves the missing values out, if any does.
    """
    warnings = []
    for term, pairs, missed in zip(plan.terms, plan.train, misses, strict=True):
        if not term.cl or not missed.n_missed:
            continue
        never, kept, n_never = _never_recorded(pairs, plan.subspaces)
        if missed.n_missed < _MANY * len(pairs) and n_never < _SOME * len(pairs):
            continue
        warnings.append(
            f"{missed.direction}: {missed.n_missed:,} of {len(pairs):,} training pairs have no counterfactual latent and do not"
            f" count in the loss: {pairs.direction.target.name!r} was never recorded with "
            + (_values_left_out(never, kept) if never else _combinations_left_out(missed, pairs.direction))
        )
    return tuple(warnings)


def _never_recorded(
    pairs: PairSet, subspaces: Sequence[Subspace]
) -> tuple[dict[str, list[str]], dict[str, list[Any]], int]:
    """Expected values of single variables that the target never holds, those that both sides hold, and pairs of the former."""
    source, target = pairs.direction.source, pairs.direction.target
    index = target.indexes[pairs.part]
    recorded = index.combinations.cpu().numpy()
    never: dict[str, list[str]] = {}
    kept: dict[str, list[Any]] = {}
    affected = np.zeros(len(pairs), dtype=bool)
    columns = (zip(*paired_columns(pairs.direction, subspace), strict=True) for subspace in subspaces)
    for column, source_column in sorted(set(itertools.chain(*columns))):
        variable = target.variables[column]
        if index.tolerance.get(variable):
            continue
        strange = ~np.isin(pairs.values[:, column], recorded[:, column])
        if not strange.any():
            continue
        affected |= strange
        name = _shared_name(target, variable)
        codes = np.unique(pairs.values[strange, column]).tolist()
        never[name] = [_label(pairs.direction, variable, code) for code in codes]
        donated = source.candidates[pairs.part].values[:, source_column]
        spec = target.recording.spec(variable)
        shared = np.intersect1d(donated, recorded[:, column]).tolist()
        kept[name] = (
            [] if spec.type == "real" else [spec.label(code) if spec.meanings else int(code) for code in shared]
        )
    return never, kept, int(affected.sum())


def _values_left_out(never: Mapping[str, Sequence[str]], kept: Mapping[str, Sequence[Any]]) -> str:
    """The values of each variable that were never recorded, and the setting that leaves them out."""
    text = "; ".join(f"{name} {_some(labels)}" for name, labels in never.items())
    if any(not 0 < len(values) <= _MOST_VALUES for values in kept.values()):
        return f"{text}; bring values together with bins or a tolerance (tolerances=), or say what they are (mapping=)"
    values = json.dumps({name: list(shared) for name, shared in kept.items()}, ensure_ascii=False)
    return f"{text}; values={values} leaves them out"


def _combinations_left_out(missed: Misses, direction: Direction) -> str:
    shown = _some([f"{values} ({count:,} pairs)" for values, count in missed.values.items()], 3)
    several = len(direction.target.variables) > 1
    return f"{shown}; " + (
        "name fewer variables (variables=), or bring values together" if several else "bring values together with bins"
    )


def _some(texts: Sequence[str], most: int = 20) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def without_effect(config: FitConfig, terms: Sequence[Term], defaults: FitConfig) -> tuple[str, ...]:
    """Options that differ from the method's defaults but cannot change the alignment, each group with the reason.

    Parameters
    ----------
    config : FitConfig
    terms : sequence of Term
        Directions of the fit.
    defaults : FitConfig
        The method's defaults.

    Returns
    -------
    tuple of str
        For `FitReport.warnings`.

    Examples
    --------
    >>> config = FitConfig(method="clmas", map="linear", learn_scale=False)
    >>> without_effect(config, (), FitConfig(method="clmas"))[0]
    'without effect: learn_scale=False, because a linear map has no scale of its own'
    """
    cl, behaviour = any(term.cl for term in terms), any(term.behaviour for term in terms)
    sides = [side for term in terms for side in (term.direction.source, term.direction.target)]
    groups: list[tuple[bool, str, tuple[str, ...]]] = [
        (config.map == "linear", "a linear map has no scale of its own", ("learn_scale",)),
        (config.method != "clmas", "it is an option of clmas", ("cl_directions",)),
        (not cl, "no direction carries a counterfactual-latent loss", _OF_CL),
        (not (cl and behaviour), "the fit has only one loss", ("epsilon", "weighting")),
        (
            cl and behaviour and config.epsilon == 0,
            "the weight of the counterfactual-latent loss is 0",
            (*_OF_CL, "weighting"),
        ),
        (not behaviour, "no system is run", ("loss_tokens", "select")),
        (config.solver == "closed-form", "a closed-form solution has no iterations", _OF_ITERATIONS),
        (
            all(side.system is None for side in sides),
            "every input is a recording already",
            ("n_trials", "only_solved"),
        ),
    ]
    warnings = []
    for applies, why, fields in groups:
        changed = {name: getattr(config, name) for name in fields if applies}
        options = [f"{name}={value}" for name, value in changed.items() if value != getattr(defaults, name)]
        if options:
            warnings.append(f"without effect: {', '.join(options)}, because {why}")
    return tuple(warnings)


def strange_steps(plan: FitPlan) -> tuple[str, ...]:
    """Stepwise directions whose sources carry over, before their last step, values that never occur in the target's task.

    Parameters
    ----------
    plan : FitPlan

    Returns
    -------
    tuple of str
        For `FitReport.warnings`: the number of such training pairs in each direction.
    """
    warnings = []
    for term, pairs in zip(plan.terms, plan.train, strict=True):
        source, target = term.direction.source, term.direction.target
        if pairs.lengths is None or target.model is None:
            continue
        recording = source.recording
        # all variables, in the target's order
        columns, source_columns = paired_columns(term.direction, plan.subspaces[0])
        values = recording.values(list(source.variables))[:, source_columns][:, np.argsort(columns)]
        strange = recording.eligible & ~possible(target.model, values)
        _, trial = np.unique(recording.trial, return_inverse=True)
        first = np.full(trial.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, trial[strange], recording.step[strange])
        number = int((first[trial[pairs.source]] < recording.step[pairs.source]).sum())
        if number:
            warnings.append(
                f"{term.direction.name}: {number:,} of {len(pairs):,} pairs carry over steps with values that never occur in the"
                f" task of {target.name!r}; task_options can restrict the task of {source.name!r}"
            )
    return tuple(warnings)
