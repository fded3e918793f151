"""The objective that all fitters share: behavioural and counterfactual-latent losses (eqs. 5-9).

Fitters differ only in which directions carry which loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuromas.align.alignment import Subspace, component_mask
from neuromas.align.interchange import LinearMap, interchange
from neuromas.align.pairs import Direction, PairSet
from neuromas.evaluate.divergence import cl_distance
from neuromas.schema.fit import FitConfig
from neuromas.systems.system import Packed, all_right

T = TypeVar("T")
_CPU_PAIRS = 1024
"""Pairs of several fits that are run at once on a CPU; beyond, activations fall out of its cache."""


@dataclass(frozen=True)
class Term:
    """A direction with the losses it carries."""

    direction: Direction
    behaviour: bool
    """Train on the target's behaviour: the target is run."""
    cl: bool
    """Train towards counterfactual latents: the target is only read."""


@dataclass(frozen=True)
class Following:
    """What follows the interchanges of a batch.

    Attributes
    ----------
    tokens, lengths, deterministic : ndarray or Tensor
        The continuations, padded: (n_pairs, n_steps), (n_pairs,), (n_pairs, n_steps). Tensors where the device packs them.
    rows : ndarray of int64, shape (n_pairs,), or None
        The target's samples, for systems that keep more than the latent.
    steps : ndarray of int64, shape (n_pairs,), or None
        Stepwise: how many steps are intervened at.
    """

    tokens: Any = field(repr=False)
    lengths: Any = field(repr=False)
    deterministic: Any = field(repr=False)
    rows: NDArray[np.int64] | None = field(default=None, repr=False)
    steps: NDArray[np.int64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one term, as tensors.

    Attributes
    ----------
    term : Term
    source : Tensor, shape (n_pairs, n_units of the source)
    target : Tensor, shape (n_pairs, n_units of the target)
        Stepwise, both (n_pairs, n_steps, …).
    mask : Tensor or None, shape (n_pairs, rank)
        Components to exchange; None for all.
    cl : Tensor or None, shape (n_pairs, n_units of the target)
        Counterfactual latents.
    hit : Tensor of bool or None, shape (n_pairs,)
        Where there is one; the rest is left out of the loss.
    following : Following or None
        None where behaviour is not trained on.
    """

    term: Term
    source: Tensor = field(repr=False)
    target: Tensor = field(repr=False)
    mask: Tensor | None = field(repr=False)
    cl: Tensor | None = field(repr=False)
    hit: Tensor | None = field(repr=False)
    following: Following | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Losses:
    """What one evaluation of the objective gives.

    Attributes
    ----------
    total : Tensor, scalar
    behaviour, cl : dict of str to Tensor
        By direction, scalars.
    right : dict of str to Tensor of bool, shape (n_pairs,)
        Whether all deterministic tokens were right; only where the target was run and ``score`` was asked for.
    """

    total: Tensor
    behaviour: dict[str, Tensor]
    cl: dict[str, Tensor]
    right: dict[str, Tensor]


def make_batch(
    term: Term,
    pairs: PairSet,
    chosen: NDArray[np.int64],
    subspaces: Sequence[Subspace],
    generator: torch.Generator | None,
    fixed: tuple[Tensor, Tensor] | None = None,
    n_matches: int = 1,
) -> PairBatch:
    """The rows `chosen` of `pairs` as tensors.

    Parameters
    ----------
    term : Term
    pairs : PairSet
    chosen : ndarray of int64, shape (n,)
    subspaces : sequence of Subspace
    generator : torch.Generator or None
        Draws counterfactual latents.
    fixed : (Tensor, Tensor), optional
        Latents and hits of all of `pairs`, drawn once and for good.
    n_matches : int
        Recorded latents whose mean is a counterfactual latent.
    """
    target = pairs.direction.target
    mask, table = None, mask_table(subspaces)
    if table is not None:
        mask = table.to(target.latents.device)[torch.from_numpy(pairs.subspace[chosen]).to(target.latents.device)]
    cl = hit = None
    if term.cl and fixed is not None:
        at = torch.from_numpy(chosen).to(fixed[0].device)
        cl, hit = fixed[0][at], fixed[1][at]
    elif term.cl:
        draw = target.indexes[pairs.part].sample(torch.from_numpy(pairs.values[chosen]), generator, n_matches)
        cl, hit = draw.latents, draw.hit
    following = None
    if term.behaviour:
        assert pairs.continuation is not None  # a target that runs has a causal model
        tokens, lengths = pairs.continuation.tokens[chosen], pairs.continuation.lengths[chosen]
        steps = None if pairs.lengths is None else pairs.lengths[chosen]
        following = Following(tokens, lengths, pairs.continuation.deterministic[chosen], pairs.target[chosen], steps)
    return PairBatch(term, *pairs.latents(chosen), mask, cl, hit, following)


def token_totals(
    each: Tensor, continuation: Packed, part: Tensor, n_parts: int, loss_tokens: str = "all"
) -> tuple[Tensor, Tensor]:
    """Sums of next-token losses by part, whose ratio to the number of tokens is the behavioural loss (eq. 5).

    Parameters
    ----------
    each : Tensor, shape (n_live,)
        Cross-entropy of each token.
    continuation : Packed
    part : Tensor of int64, shape (n_pairs,)
        Which part (direction) each pair belongs to.
    n_parts : int
    loss_tokens : {"all", "deterministic"}

    Returns
    -------
    (Tensor, Tensor), shape (n_parts,)
        Sum of the losses, and number of tokens.
    """
    if loss_tokens == "deterministic":
        counted = continuation.deterministic.to(each)
    else:
        counted = torch.ones_like(each) if continuation.counted is None else continuation.counted.to(each)
    if each.device.type != "cpu":
        return totals_in_order(each * counted, counted, continuation, part, n_parts)
    of_token = part[continuation.rows]
    total = each.new_zeros(n_parts).index_add(0, of_token, each * counted)
    return total, each.new_zeros(n_parts).index_add(0, of_token, counted)


def totals_in_order(
    each: Tensor, counted: Tensor, continuation: Packed, part: Tensor, n_parts: int
) -> tuple[Tensor, Tensor]:
    """Sums of `each` and of `counted` (n_live,) by part, in one order wherever they are summed; `index_add` has none on a GPU."""
    n_pairs, n_steps = len(part), len(continuation.sizes)
    places = continuation.rows * n_steps + continuation.steps  # no two tokens share one
    spread = each.new_zeros(2, n_pairs * n_steps).index_copy(1, places, torch.stack([each, counted]))
    by_pair = spread.unflatten(1, (n_pairs, n_steps)).sum(dim=2)
    members = part == torch.arange(n_parts, device=part.device)[:, None]  # (n_parts, n_pairs)
    # chosen, not multiplied by 0: one part's loss may be no number
    total, number = torch.where(members, by_pair[:, None], 0.0).sum(dim=2)
    return total, number


def losses(
    maps: Mapping[str, LinearMap], batches: Sequence[PairBatch], config: FitConfig, *, score: bool = False
) -> Losses:
    """The objective of one fit; `losses_together` for one part."""
    return losses_together([FitBatches(maps, batches, config)], score=score)[0]


@dataclass(frozen=True)
class FitBatches:
    """One fit's share of an evaluation of the objective.

    Attributes
    ----------
    maps : mapping of side name to LinearMap
    batches : sequence of PairBatch
        One per term.
    config : FitConfig
        ``epsilon``, ``weighting``, ``loss_tokens``, ``cl_terms``, ``method``.
    """

    maps: Mapping[str, LinearMap]
    batches: Sequence[PairBatch]
    config: FitConfig


Packing = Callable[[Sequence[PairBatch]], tuple[Packed, Tensor]]
"""Continuations of batches that go through a target together, packed on the device, and the batch that each pair is of."""


def losses_together(parts: Sequence[FitBatches], *, score: bool = False, pack: Packing | None = None) -> list[Losses]:
    """Interchange all batches of all fits, run each target once, and weigh the losses of each fit.

    Parameters
    ----------
    parts : sequence of FitBatches
    score : bool
        Also say which continuations are right, running no more pairs at once than a system's ``at_once``.
    pack : callable, optional
        Instead of packing on the host: for systems that are `replayable`.
    """
    intervened: list[list[Tensor]] = []
    runs: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for number, part in enumerate(parts):
        replace = part.config.method in ("stitch", "latent-stitch")
        own = []
        for place, batch in enumerate(part.batches):
            source, target = batch.term.direction.source, batch.term.direction.target
            maps = part.maps[target.name], part.maps[source.name]
            own.append(interchange(batch.target, batch.source, *maps, batch.mask, replace=replace))
            if batch.following is not None:
                # all directions into one target go through it together, those of all fits
                key = run_key(batch.term, part.config, stepwise=batch.following.steps is not None)
                runs.setdefault(key, []).append((number, place))
        intervened.append(own)
    behaviour: dict[tuple[int, int], Tensor] = {}
    right: dict[tuple[int, int], Tensor] = {}
    groups = list(runs.values())
    if pack is None:
        groups = [some for whole in groups for some in _no_larger_than_the_cache(whole, parts)]
    latents = [_stack([intervened[number][place] for number, place in members]) for members in groups]

    def job(members: Sequence[tuple[int, int]], latents: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        batches = [parts[number].batches[place] for number, place in members]
        return _run(batches, latents, parts[members[0][0]].config.loss_tokens, score, pack)

    found = side_by_side([partial(job, *one) for one in zip(groups, latents, strict=True)])
    for members, (told, scored) in zip(groups, found, strict=True):
        behaviour |= dict(zip(members, told, strict=True))
        right |= dict(zip(members, scored, strict=score))
    return [
        _weighed(
            part,
            intervened[number],
            {place: behaviour[one] for place in range(len(part.batches)) if (one := (number, place)) in behaviour},
            {place: right[one] for place in range(len(part.batches)) if (one := (number, place)) in right},
        )
        for number, part in enumerate(parts)
    ]


def run_key(term: Term, config: FitConfig, *, stepwise: bool = False) -> tuple[object, ...]:
    """What batches have in common that go through a target together."""
    target = term.direction.target
    alone = target.context is None and not stepwise  # else its rows are those of its own recording
    return id(target.system if alone else target), config.loss_tokens


def mask_table(subspaces: Sequence[Subspace]) -> Tensor | None:
    """Components to exchange, by subspace, shape (n_subspaces, rank); None where there is one, which is all of them."""
    if len(subspaces) < 2:
        return None
    rank = sum(subspace.rank for subspace in subspaces)
    return torch.stack([component_mask(rank, subspace) for subspace in subspaces])


def _no_larger_than_the_cache(
    members: Sequence[tuple[int, int]], parts: Sequence[FitBatches]
) -> Iterator[list[tuple[int, int]]]:
    """Batches of several fits that go through a target together: all of them, but on the CPU about `_CPU_PAIRS` pairs."""
    run: list[tuple[int, int]] = []
    n_pairs, last = 0, -1
    for number, place in members:
        batch = parts[number].batches[place]
        on_cpu = batch.target.device.type == "cpu"
        if on_cpu and number != last and n_pairs >= _CPU_PAIRS:  # one fit's own batches stay together
            yield run
            run, n_pairs = [], 0
        run.append((number, place))
        n_pairs, last = n_pairs + len(batch), number
    yield run


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Results of jobs that do not depend on each other; in a CUDA graph that is being recorded, each is a branch.

    What jobs read must be kept until all have been called; what backward is to read of it, they must copy.

    Examples
    --------
    >>> side_by_side([lambda: 1, lambda: 2])
    [1, 2]
    """
    if len(jobs) < 2 or not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):
        return [job() for job in jobs]
    trunk, branches = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in jobs]
    found = []
    for job, branch in zip(jobs, branches, strict=True):
        branch.wait_stream(trunk)
        with torch.cuda.stream(branch):
            found.append(job())
    for branch in branches:
        trunk.wait_stream(branch)
    return found


def _run(
    batches: Sequence[PairBatch], latents: Tensor, loss_tokens: str, score: bool, pack: Packing | None
) -> tuple[Tensor, Sequence[Tensor]]:
    """Run the target of `batches` on from `latents`: the loss of each batch, and with `score` who was right in it."""
    target, n_pairs = batches[0].term.direction.target, len(latents)
    assert target.system is not None
    if pack is not None:
        packed, owner = pack(batches)
        # a copy of this branch's own: what is the trunk's, backward may read after the trunk has taken its memory back
        each = target.system.token_losses(latents.clone(), packed)
        total, number = token_totals(each, packed, owner, len(batches), loss_tokens)
        return total / number.clamp_min(1), ()
    following = _join([batch.following for batch in batches if batch.following is not None])
    sizes = [len(batch) for batch in batches]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(latents.device)
    totals, right = [], []
    at_once = target.system.at_once if score else n_pairs
    for start in range(0, n_pairs, at_once):
        some = slice(start, min(start + at_once, n_pairs))
        packed = Packed.from_sequences(
            following.tokens[some], following.lengths[some], following.deterministic[some], latents.device
        )
        assert following.rows is not None
        given = latents[some], packed, following.rows[some], None if following.steps is None else following.steps[some]
        if score:
            logits = target.resume(*given)
            each = functional.cross_entropy(logits, packed.tokens, reduction="none")
            right.append(all_right(logits, packed, some.stop - some.start))
        else:
            each = target.token_losses(*given)
        totals.append(torch.stack(token_totals(each, packed, owner[some], len(sizes), loss_tokens)))
    total, number = torch.stack(totals).sum(dim=0)
    return total / number.clamp_min(1), torch.cat(right).split(sizes) if score else ()


def _weighed(
    part: FitBatches, intervened: Sequence[Tensor], behaviour: Mapping[int, Tensor], right: Mapping[int, Tensor]
) -> Losses:
    """The losses of one fit, from those of the behaviour of its batches."""
    names = [batch.term.direction.name for batch in part.batches]
    cl: dict[str, Tensor] = {}
    for name, batch, h in zip(names, part.batches, intervened, strict=True):
        if batch.term.cl:
            assert batch.cl is not None
            assert batch.hit is not None
            each = cl_distance(h, torch.where(batch.hit[:, None], batch.cl, h.detach()), part.config.cl_terms)
            cl[name] = (each * batch.hit).sum() / batch.hit.sum().clamp_min(1)
    total = _weigh(list(behaviour.values()), list(cl.values()), part.config)
    told = {names[place]: value for place, value in behaviour.items()}
    return Losses(total, told, cl, {names[place]: value for place, value in right.items()})


def _stack(latents: Sequence[Tensor]) -> Tensor:
    """One batch after another; stepwise ones are filled up to the longest."""
    if latents[0].ndim == 2:
        return torch.cat(list(latents))
    longest = max(one.shape[1] for one in latents)
    return torch.cat([functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one in latents])


def _weigh(behaviour: Sequence[Tensor], cl: Sequence[Tensor], config: FitConfig) -> Tensor:
    if not behaviour:
        return torch.stack(list(cl)).mean()
    of_behaviour = torch.stack(list(behaviour)).mean()
    if not cl:
        return of_behaviour
    of_cl = torch.stack(list(cl)).mean()
    if config.weighting == "convex":
        return (1 - config.epsilon) * of_behaviour + config.epsilon * of_cl
    return of_behaviour + config.epsilon * of_cl


def _join(parts: Sequence[Following]) -> Following:
    """One batch after another."""
    longest = max(part.tokens.shape[1] for part in parts)

    def padded(array: NDArray[Any]) -> NDArray[Any]:
        return np.pad(array, ((0, 0), (0, longest - array.shape[1])))

    steps = [part.steps for part in parts if part.steps is not None]
    return Following(
        np.concatenate([padded(part.tokens) for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([padded(part.deterministic) for part in parts]),
        np.concatenate([part.rows for part in parts if part.rows is not None]),
        np.concatenate(steps) if steps else None,
    )
