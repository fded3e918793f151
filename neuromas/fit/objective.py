"""The objective of all methods: behavioural and counterfactual-latent losses (eqs. 5-9).

Methods differ only in which directions carry which loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from neuromas.causal.model import pad_steps
from neuromas.evaluation.divergence import cl_distance
from neuromas.schema.fit import FitConfig
from neuromas.systems.system import Packed, all_right, with_steps

T = TypeVar("T")
_CPU_PAIRS = 1024
"""Pairs of several fits that run at once on a CPU. With more, the activations no longer fit in its cache."""


@dataclass(frozen=True)
class Term:
    """A direction with the losses it carries."""

    direction: Direction
    behaviour: bool
    """Train on the target's behaviour: the target is run."""
    cl: bool
    """Train towards counterfactual latents: the target is only read."""

    def in_turn(self, iteration: int) -> Term:
        """The term in this iteration: the members of a twin run in turn in place of a target that can only be read."""
        twin = self.direction.target.twin
        return self if twin is None else self.run_by(twin.roles[iteration % len(twin.roles)])

    def run_by(self, role: str) -> Term:
        """The term with this member of the target's twin in the target's place; itself if the target can be run."""
        target = self.direction.target
        if not self.behaviour or target.system is not None:
            return self
        return replace(self, direction=replace(self.direction, target=target.run_by(role)))

    @property
    def by_twin(self) -> bool:
        """Whether a twin answers for the target."""
        return self.behaviour and bool(self.direction.target.stand_ins)


@dataclass(frozen=True)
class Following:
    """Continuations after the interchanges of a batch.

    Attributes
    ----------
    tokens, lengths, deterministic : ndarray or Tensor
        Padded: (n_pairs, n_steps), (n_pairs,), (n_pairs, n_steps). Tensors if they are packed on the device.
    rows : ndarray of int64, shape (n_pairs,), or None
        Samples of the target, for systems with more state than the latent.
    steps : ndarray of int64, shape (n_pairs,), or None
        Stepwise: number of steps with an intervention.
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
        Whether a counterfactual latent exists; other pairs do not count in the loss.
    following : Following or None
        None if the term does not carry the behavioural loss.
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
    """The value of the objective.

    Attributes
    ----------
    total : Tensor, scalar
    behaviour, cl : dict of str to Tensor
        By direction, scalars.
    right : dict of str to Tensor of bool, shape (n_pairs,)
        Whether all deterministic tokens were right; only for targets that were run with ``score=True``.
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
    nested: bool = False,
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
        Latents and hits of all `pairs`, drawn once for the whole fit.
    n_matches : int
        Number of recorded latents that are averaged into one counterfactual latent.
    nested : bool
        Pairs take turns in how many of the first components they interchange.
    """
    target = pairs.direction.target
    mask, table = None, mask_table(subspaces, nested=nested)
    if table is not None:
        subspace, turn = pairs.subspace[chosen], np.arange(len(chosen)) % table.shape[1]
        mask = table[torch.from_numpy(subspace), torch.from_numpy(turn)].to(target.latents.device)
    cl = hit = None
    if term.cl and fixed is not None:
        at = torch.from_numpy(chosen).to(fixed[0].device)
        cl, hit = fixed[0][at], fixed[1][at]
    elif term.cl:
        draw = target.indexes[pairs.part].sample(torch.from_numpy(pairs.values[chosen]), generator, n_matches)
        cl, hit = draw.latents, draw.hit
    following = None
    if term.behaviour:
        # a target that can be run has a causal model
        assert pairs.continuation is not None
        tokens, lengths = pairs.continuation.tokens[chosen], pairs.continuation.lengths[chosen]
        steps = None if pairs.lengths is None else pairs.lengths[chosen]
        following = Following(tokens, lengths, pairs.continuation.deterministic[chosen], pairs.target[chosen], steps)
    return PairBatch(term, *pairs.latents(chosen), mask, cl, hit, following)


def token_totals(
    each: Tensor, continuation: Packed, group: Tensor, n_groups: int, loss_tokens: str = "all"
) -> tuple[Tensor, Tensor]:
    """Sums of next-token losses by group, whose ratio to the number of tokens is the behavioural loss (eq. 5).

    Parameters
    ----------
    each : Tensor, shape (n_live,)
        Cross-entropy of each token.
    continuation : Packed
    group : Tensor of int64, shape (n_pairs,)
        Group (direction) of each pair.
    n_groups : int
    loss_tokens : {"all", "deterministic"}

    Returns
    -------
    (Tensor, Tensor), shape (n_groups,)
        Sum of the losses, and number of tokens.
    """
    if loss_tokens == "deterministic":
        counted = continuation.deterministic.to(each)
    else:
        counted = torch.ones_like(each) if continuation.counted is None else continuation.counted.to(each)
    if each.device.type != "cpu":
        return totals_in_order(each * counted, counted, continuation, group, n_groups)
    of_token = group[continuation.rows]
    total = each.new_zeros(n_groups).index_add(0, of_token, each * counted)
    return total, each.new_zeros(n_groups).index_add(0, of_token, counted)


def totals_in_order(
    each: Tensor, counted: Tensor, continuation: Packed, group: Tensor, n_groups: int
) -> tuple[Tensor, Tensor]:
    """Sums of `each` and of `counted` (n_live,) by group, always added in the same order, unlike `index_add` on a GPU."""
    n_pairs, n_steps = len(group), len(continuation.sizes)
    # a place of its own for each token
    places = continuation.rows * n_steps + continuation.steps
    spread = each.new_zeros(2, n_pairs * n_steps).index_copy(1, places, torch.stack([each, counted]))
    by_pair = spread.unflatten(1, (n_pairs, n_steps)).sum(dim=2)
    # (n_groups, n_pairs)
    members = group == torch.arange(n_groups, device=group.device)[:, None]
    # chosen, not multiplied by 0: the loss of a group may be NaN
    total, number = torch.where(members, by_pair[:, None], 0.0).sum(dim=2)
    return total, number


def losses(
    maps: Mapping[str, LinearMap], batches: Sequence[PairBatch], config: FitConfig, *, score: bool = False
) -> Losses:
    """The objective of one fit; see `losses_together`."""
    return losses_together([FitBatches(maps, batches, config)], score=score)[0]


@dataclass(frozen=True)
class FitBatches:
    """The maps and batches of one fit, from which its objective is computed.

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
"""Packs the continuations of batches that go through a target together; also gives the batch of each pair."""


def losses_together(fits: Sequence[FitBatches], *, score: bool = False, pack: Packing | None = None) -> list[Losses]:
    """Interchange all batches of all fits, run each target once, and weigh the losses of each fit.

    Parameters
    ----------
    fits : sequence of FitBatches
    score : bool
        Also say which continuations are right; at most ``at_once`` pairs of a system run at once.
    pack : callable, optional
        Packs on the device instead of the host, for systems that are `replayable`.
    """
    intervened: list[list[Tensor]] = []
    runs: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for number, fit in enumerate(fits):
        replace = fit.config.method in ("stitch", "latent-stitch")
        own = []
        for place, batch in enumerate(fit.batches):
            source, target = batch.term.direction.source, batch.term.direction.target
            maps = fit.maps[target.name], fit.maps[source.name]
            own.append(interchange(batch.target, batch.source, *maps, batch.mask, replace=replace))
            if batch.following is not None:
                # the directions of all fits into a target go through it together
                key = run_key(batch.term, fit.config, stepwise=batch.following.steps is not None)
                runs.setdefault(key, []).append((number, place))
        intervened.append(own)
    behaviour: dict[tuple[int, int], Tensor] = {}
    right: dict[tuple[int, int], Tensor] = {}
    groups = list(runs.values())
    if pack is None:
        groups = [some for whole in groups for some in _no_larger_than_the_cache(whole, fits)]
    latents = [_stack([intervened[number][place] for number, place in members]) for members in groups]

    def job(members: Sequence[tuple[int, int]], latents: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        batches = [fits[number].batches[place] for number, place in members]
        config = fits[members[0][0]].config
        return _run(batches, latents, _loss_tokens(batches[0].term, config), score, pack)

    results = side_by_side([partial(job, *work) for work in zip(groups, latents, strict=True)])
    for members, (values, scored) in zip(groups, results, strict=True):
        behaviour |= dict(zip(members, values, strict=True))
        right |= dict(zip(members, scored, strict=score))
    return [
        _weighed(fit, intervened[number], _of_fit(behaviour, number), _of_fit(right, number))
        for number, fit in enumerate(fits)
    ]


def _of_fit(values: Mapping[tuple[int, int], Tensor], number: int) -> dict[int, Tensor]:
    """The values of one fit by the place of their batch, in order."""
    return {place: values[fit, place] for fit, place in sorted(values) if fit == number}


def run_key(term: Term, config: FitConfig, *, stepwise: bool = False) -> tuple[object, ...]:
    """A key that is equal for batches that can go through a target together."""
    target = term.direction.target
    # with a context, or stepwise, rows are those of the side's own recording
    alone = target.context is None and not stepwise
    return id(target.system if alone else target), _loss_tokens(term, config)


def _loss_tokens(term: Term, config: FitConfig) -> str:
    """Tokens that count in the behavioural loss. A twin knows its system's answers, not how often other tokens follow."""
    return "deterministic" if term.by_twin else config.loss_tokens


def mask_table(subspaces: Sequence[Subspace], *, nested: bool = False) -> Tensor | None:
    """Components to exchange, by subspace and turn, shape (n_subspaces, n_turns, rank); None if a single subspace has all.

    There is one turn, or with `nested` one for each of `ladder`. A subspace of smaller rank has all of its components in turns
    beyond its own ladder.
    """
    if len(subspaces) < 2 and not nested:
        return None
    rank = sum(subspace.rank for subspace in subspaces)
    masks = torch.stack([component_mask(rank, subspace) for subspace in subspaces])[:, None]
    if not nested:
        return masks
    rungs = ladder(max(subspace.rank for subspace in subspaces))
    place = torch.arange(rank)
    first = [
        torch.stack([place < subspace.start + min(rung, subspace.rank) for rung in rungs]) for subspace in subspaces
    ]
    return masks * torch.stack(first)


def ladder(rank: int) -> list[int]:
    """The ranks that a nested fit takes turns in: powers of two up to `rank`, and `rank`.

    Examples
    --------
    >>> ladder(6), ladder(8)
    ([1, 2, 4, 6], [1, 2, 4, 8])
    """
    powers = [2**power for power in range(rank.bit_length()) if 2**power < rank]
    return [*powers, rank]


def _no_larger_than_the_cache(
    members: Sequence[tuple[int, int]], fits: Sequence[FitBatches]
) -> Iterator[list[tuple[int, int]]]:
    """Split batches that go through a target together: on a CPU about `_CPU_PAIRS` pairs at once, else all."""
    run: list[tuple[int, int]] = []
    n_pairs, last = 0, -1
    for number, place in members:
        batch = fits[number].batches[place]
        on_cpu = batch.target.device.type == "cpu"
        # batches of the same fit stay together
        if on_cpu and number != last and n_pairs >= _CPU_PAIRS:
            yield run
            run, n_pairs = [], 0
        run.append((number, place))
        n_pairs, last = n_pairs + len(batch), number
    yield run


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Results of independent jobs. While a CUDA graph is recorded, each job is a branch of it.

    The inputs of the jobs must be kept until all have run. A job must copy what its backward pass reads of them.

    Examples
    --------
    >>> side_by_side([lambda: 1, lambda: 2])
    [1, 2]
    """
    if len(jobs) < 2 or not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):
        return [job() for job in jobs]
    trunk, branches = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in jobs]
    results = []
    for job, branch in zip(jobs, branches, strict=True):
        branch.wait_stream(trunk)
        with torch.cuda.stream(branch):
            results.append(job())
    for branch in branches:
        trunk.wait_stream(branch)
    return results


def _run(
    batches: Sequence[PairBatch], latents: Tensor, loss_tokens: str, score: bool, pack: Packing | None
) -> tuple[Tensor, Sequence[Tensor]]:
    """Run the target of `batches` on from `latents`: the loss of each batch, and with `score` who was right in it."""
    target, n_pairs = batches[0].term.direction.target, len(latents)
    assert target.system is not None
    if pack is not None:
        packed, owner = pack(batches)
        # a copy: the trunk may reuse the memory of its own latents before the backward pass reads them
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
            following.tokens[some],
            target.system.foreseen(following.lengths[some]),
            following.deterministic[some],
            latents.device,
        )
        assert following.rows is not None
        steps = None if following.steps is None else following.steps[some]
        arguments = latents[some], packed, following.rows[some], steps
        if score:
            logits = target.resume(*arguments)
            each = functional.cross_entropy(logits, packed.tokens, reduction="none")
            right.append(all_right(logits, packed, some.stop - some.start))
        else:
            each = target.token_losses(*arguments)
        totals.append(torch.stack(token_totals(each, packed, owner[some], len(sizes), loss_tokens)))
    total, number = torch.stack(totals).sum(dim=0)
    return total / number.clamp_min(1), torch.cat(right).split(sizes) if score else ()


def _weighed(
    fit: FitBatches, intervened: Sequence[Tensor], behaviour: Mapping[int, Tensor], right: Mapping[int, Tensor]
) -> Losses:
    """The losses of one fit, from the behavioural losses of its batches."""
    names = [batch.term.direction.name for batch in fit.batches]
    cl: dict[str, Tensor] = {}
    for name, batch, h in zip(names, fit.batches, intervened, strict=True):
        if batch.term.cl:
            assert batch.cl is not None
            assert batch.hit is not None
            each = cl_distance(h, torch.where(batch.hit[:, None], batch.cl, h.detach()), fit.config.cl_terms)
            cl[name] = (each * batch.hit).sum() / batch.hit.sum().clamp_min(1)
    total = _weigh(list(behaviour.values()), list(cl.values()), fit.config)
    by_direction = {names[place]: value for place, value in behaviour.items()}
    return Losses(total, by_direction, cl, {names[place]: value for place, value in right.items()})


def _stack(latents: Sequence[Tensor]) -> Tensor:
    """Join batches; stepwise ones are padded to the longest."""
    if latents[0].ndim == 2:
        return torch.cat(list(latents))
    n_steps = max(batch.shape[1] for batch in latents)
    return torch.cat([with_steps(batch, n_steps) for batch in latents])


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


def _join(batches: Sequence[Following]) -> Following:
    """Join batches, padded to the longest."""
    longest = max(each.tokens.shape[1] for each in batches)
    steps = [each.steps for each in batches if each.steps is not None]
    return Following(
        np.concatenate([pad_steps(each.tokens, longest) for each in batches]),
        np.concatenate([each.lengths for each in batches]),
        np.concatenate([pad_steps(each.deterministic, longest) for each in batches]),
        np.concatenate([each.rows for each in batches if each.rows is not None]),
        np.concatenate(steps) if steps else None,
    )
