"""Where a fit starts: random maps or maps in closed form; and the closed-form solution of Latent Stitch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuromas import seeds
from neuromas.align.alignment import Subspace, TrainableMap, closed_form_maps, random_maps
from neuromas.align.closed_form import procrustes_axes
from neuromas.align.interchange import LinearMap
from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.fit.loop import validate
from neuromas.fit.plan import FitPlan
from neuromas.fit.prepare import Prepared
from neuromas.schema.fit import Validation


def start_maps(ready: Prepared) -> dict[str, TrainableMap]:
    """The maps with which the iterations begin, random or in closed form, by side; on the CPU.

    Raises
    ------
    InvalidInput
        A start in closed form, and the sides share fewer than 2 values.
    """
    config, sides, subspaces = ready.plan.config, ready.taking_part, ready.plan.subspaces
    offsets = None
    if config.map == "linear":
        same = len({side.variables for side in sides}) == 1
        everything = Subspace("full", ("full",), 0, 1) if same else subspaces[0]
        offsets = [means.mean(dim=0) for means in _shared_means(sides, everything)]
    if config.init == "random":
        widths = [side.n_units for side in sides]
        maps = random_maps(
            widths,
            subspaces,
            config.map,
            config.rotation,
            config.seed,
            offsets=offsets,
            learn_scale=config.learn_scale,
        )
    else:
        means = [_shared_means(sides, subspace) for subspace in subspaces]
        maps = closed_form_maps(
            means,
            subspaces,
            config.map,
            config.rotation,
            offsets=offsets,
            learn_scale=config.learn_scale,
            seed=config.seed,
        )
    return {side.name: module for side, module in zip(sides, maps, strict=True)}


def solve(plan: FitPlan) -> tuple[dict[str, LinearMap], list[Validation]]:
    """Latent Stitch in closed form: orthogonal Procrustes from source latents to counterfactual latents.

    Returns
    -------
    (dict of side name to LinearMap, list of Validation)
        The maps, and their validation.
    """
    (term,), (pairs,) = plan.terms, plan.train
    source, target = term.direction.source, term.direction.target
    generator = torch.Generator(device=target.latents.device).manual_seed(seeds.for_torch(plan.config.seed))
    draw = target.indexes["train"].sample(torch.from_numpy(pairs.values), generator, plan.config.cl_matches)
    rank = sum(subspace.rank for subspace in plan.subspaces)
    u, v = procrustes_axes(source.take(pairs.source)[draw.hit], draw.latents[draw.hit], rank)
    maps = {
        source.name: LinearMap(u.T, u, u.new_zeros(source.n_units)),
        target.name: LinearMap(v.T, v, v.new_zeros(target.n_units)),
    }
    result = validate(plan, maps)
    cl = {name: value.item() for name, value in result.cl.items()}
    return maps, [Validation(iteration=0, train_loss=None, loss=result.total.item(), cl=cl)]


def _shared_means(sides: Sequence[Side], subspace: Subspace) -> list[Tensor]:
    """Mean training latent of each value of the subspace, in the same order for all sides.

    Only values that every side recorded are used.
    """
    tables = []
    for side in sides:
        means = side.indexes["train"].means()
        tables.append(dict(zip(map(tuple, means.values.tolist()), means.latents.cpu(), strict=True)))
    if len({side.variables for side in sides}) == 1:
        # then all sides average over the same combinations
        together = set.intersection(*(set(table) for table in tables))
        tables = [{combination: table[combination] for combination in together} for table in tables]
    grouped: list[dict[tuple[float, ...], list[Tensor]]] = []
    for side, table in zip(sides, tables, strict=True):
        columns = side.columns(subspace.variables)
        members: dict[tuple[float, ...], list[Tensor]] = {}
        for combination in sorted(table):
            members.setdefault(tuple(combination[column] for column in columns), []).append(table[combination])
        grouped.append(members)
    shared = sorted(set.intersection(*(set(members) for members in grouped)))
    if len(shared) < 2:
        raise InvalidInput(
            f"{', '.join(side.name for side in sides)} share {len(shared)} values of {subspace.name}; a start in closed"
            " form needs at least 2 (names or values may need mapping=, continuous ones tolerances=)",
            kind="too_few_shared_values",
        )
    # unweighted mean over the other variables
    return [torch.stack([torch.stack(members[value]).mean(dim=0) for value in shared]) for members in grouped]
