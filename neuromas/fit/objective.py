"""The objective that all fitters share: behavioural and counterfactual-latent losses (eqs. 5-9).

Fitters differ only in which directions carry which loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuromas.align.alignment import Subspace, component_mask
from neuromas.align.interchange import LinearMap, interchange
from neuromas.align.side import Direction, PairSet
from neuromas.evaluate.divergence import cl_distance
from neuromas.schema import FitConfig
from neuromas.systems.system import Packed, all_right

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
class Batch:
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
    rows : ndarray of int64, shape (n_pairs,)
        The target's samples, for systems that keep more than the latent.
    tokens, lengths, deterministic : ndarray
        The continuation, padded; empty where behaviour is not trained on.
    steps : ndarray of int64, shape (n_pairs,), or None
        Stepwise: how many steps are intervened at.
    """

    term: Term
    source: Tensor = field(repr=False)
    target: Tensor = field(repr=False)
    mask: Tensor | None = field(repr=False)
    cl: Tensor | None = field(repr=False)
    hit: Tensor | None = field(repr=False)
    rows: NDArray[np.int64] = field(repr=False)
    tokens: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    deterministic: NDArray[np.bool_] = field(repr=False)
    steps: NDArray[np.int64] | None = field(default=None, repr=False)


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
) -> Batch:
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
    rows = pairs.target[chosen]
    mask = None
    if len(subspaces) > 1:
        table = torch.stack([component_mask(sum(s.rank for s in subspaces), s) for s in subspaces]).to(
            target.latents.device
        )
        mask = table[torch.from_numpy(pairs.subspace[chosen]).to(table.device)]
    cl = hit = None
    if term.cl and fixed is not None:
        at = torch.from_numpy(chosen).to(fixed[0].device)
        cl, hit = fixed[0][at], fixed[1][at]
    elif term.cl:
        draw = target.indexes[pairs.part].sample(torch.from_numpy(pairs.values[chosen]), generator, n_matches)
        cl, hit = draw.latents, draw.hit
    if term.behaviour:
        assert pairs.continuation is not None  # a target that runs has a causal model
        tokens, lengths = pairs.continuation.tokens[chosen], pairs.continuation.lengths[chosen]
        deterministic = pairs.continuation.deterministic[chosen]
    else:
        tokens = np.empty((len(chosen), 0), np.int64)
        lengths, deterministic = np.zeros(len(chosen), np.int64), np.empty((len(chosen), 0), bool)
    steps = None if pairs.lengths is None else pairs.lengths[chosen]
    return Batch(term, *pairs.latents(chosen), mask, cl, hit, rows, tokens, lengths, deterministic, steps)


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
    counted = torch.ones_like(each) if loss_tokens == "all" else continuation.deterministic.to(each)
    of_token = part[continuation.rows]
    total = each.new_zeros(n_parts).index_add(0, of_token, each * counted)
    return total, each.new_zeros(n_parts).index_add(0, of_token, counted)


def losses(
    maps: Mapping[str, LinearMap], batches: Sequence[Batch], config: FitConfig, *, score: bool = False
) -> Losses:
    """The objective of one fit; `losses_together` for one part."""
    return losses_together([Part(maps, batches, config)], score=score)[0]


@dataclass(frozen=True)
class Part:
    """One fit's share of an evaluation of the objective.

    Attributes
    ----------
    maps : mapping of side name to LinearMap
    batches : sequence of Batch
        One per term.
    config : FitConfig
        ``epsilon``, ``weighting``, ``loss_tokens``, ``cl_terms``, ``method``.
    """

    maps: Mapping[str, LinearMap]
    batches: Sequence[Batch]
    config: FitConfig


def losses_together(parts: Sequence[Part], *, score: bool = False) -> list[Losses]:
    """Interchange all batches of all fits, run each target once, and weigh the losses of each fit.

    Parameters
    ----------
    parts : sequence of Part
    score : bool
        Also say which continuations are right, running no more pairs at once than a system's ``at_once``.
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
            if batch.term.behaviour:
                # all directions into one target go through it together, those of all fits
                alone = target.context is None and batch.steps is None  # else its rows are those of its own recording
                key = (id(target.system if alone else target), part.config.loss_tokens)
                runs.setdefault(key, []).append((number, place))
        intervened.append(own)
    behaviour: dict[tuple[int, int], Tensor] = {}
    right: dict[tuple[int, int], Tensor] = {}
    for members in (some for whole in runs.values() for some in _no_larger_than_the_cache(whole, parts)):
        batches = [parts[number].batches[place] for number, place in members]
        latents = _stack([intervened[number][place] for number, place in members])
        told, scored = _run(batches, latents, parts[members[0][0]].config.loss_tokens, score)
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


def _no_larger_than_the_cache(
    members: Sequence[tuple[int, int]], parts: Sequence[Part]
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
        n_pairs, last = n_pairs + len(batch.rows), number
    yield run


def _run(batches: Sequence[Batch], latents: Tensor, loss_tokens: str, score: bool) -> tuple[Tensor, Sequence[Tensor]]:
    """Run the target of `batches` on from `latents`: the loss of each batch, and with `score` who was right in it."""
    target, n_pairs = batches[0].term.direction.target, len(latents)
    assert target.system is not None
    tokens, lengths, deterministic = _continuations(batches)
    rows = np.concatenate([batch.rows for batch in batches])
    steps = (
        None
        if batches[0].steps is None
        else np.concatenate([batch.steps for batch in batches if batch.steps is not None])
    )
    sizes = [len(batch.rows) for batch in batches]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(latents.device)
    totals, right = [], []
    at_once = target.system.at_once if score else n_pairs
    for start in range(0, n_pairs, at_once):
        some = slice(start, min(start + at_once, n_pairs))
        packed = Packed.from_sequences(tokens[some], lengths[some], deterministic[some], latents.device)
        given = latents[some], packed, rows[some], None if steps is None else steps[some]
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
    part: Part, intervened: Sequence[Tensor], behaviour: Mapping[int, Tensor], right: Mapping[int, Tensor]
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


def _continuations(batches: Sequence[Batch]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens, lengths and which tokens are deterministic, one batch after another."""
    longest = max(batch.tokens.shape[1] for batch in batches)

    def padded(array: NDArray[Any]) -> NDArray[Any]:
        return np.pad(array, ((0, 0), (0, longest - array.shape[1])))

    return (
        np.concatenate([padded(batch.tokens) for batch in batches]),
        np.concatenate([batch.lengths for batch in batches]),
        np.concatenate([padded(batch.deterministic) for batch in batches]),
    )
