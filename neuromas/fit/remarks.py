"""What a reader of a fit must know: expected values that were never recorded, options without effect, impossible steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from neuromas.align.pairs import PairSet, paired_columns
from neuromas.causal.counterfactual import possible
from neuromas.fit.objective import Term
from neuromas.fit.plan import FitPlan
from neuromas.schema.fit import FitConfig, Misses

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
            f"{name}={pairs.direction.target.recording.manifest.variable(name).label(code)}"
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
