"""Iterations of fits on a GPU, recorded once as a CUDA graph and then replayed.

An iteration has about a thousand small kernels. A GPU computes them faster than the host can launch them, so a graph launches all
of them together. The shapes in a graph are fixed, and a graph cannot read from the host. Therefore the pairs of many iterations
are chosen in advance and put in tables on the device; each replay uses the next row. The lengths of continuations differ from
batch to batch. They are packed on the device into a `Capacity` with more room than nearly every batch needs. The rare batch that
needs more is computed without the graph. Losses are written to a table, which is read after all iterations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.causal.model import Sequences, pad_steps
from neuromas.fit.objective import (
    FitBatches,
    Following,
    PairBatch,
    Term,
    losses_together,
    mask_table,
    run_key,
    side_by_side,
)
from neuromas.fit.plan import FitPlan, State, batch_rows, draw_seed, learning_rate
from neuromas.systems.system import Capacity, Packed

MOST = 50
"""Largest number of iterations that are prepared at once."""
_WARM_UP = 2
"""Iterations before the recording, in which libraries and the optimiser allocate their memory."""


def replayable(plans: Sequence[FitPlan]) -> bool:
    """Whether iterations of these fits can be recorded as a CUDA graph."""
    return all(_replayable(term, plan) for plan in plans for term in plan.terms)


def _replayable(term: Term, plan: FitPlan) -> bool:
    target = term.direction.target
    if target.latents.device.type != "cuda" or plan.config.stepwise:
        return False
    if term.cl and plan.config.cl_draw == "fresh" and not target.indexes["train"].replayable:
        return False
    return not term.behaviour or (target.system is not None and target.system.replayable and target.context is None)


class Replay:
    """Iterations of several fits, many at a time.

    An iteration is that of `neuromas.fit.loop.step_together`, up to rounding.

    Parameters
    ----------
    plans, states : sequence of FitPlan, of State
        They must be `replayable`. States are changed in place, except their number of iterations, which the caller counts.
    fixed : sequence
        For each fit and term, counterfactual latents and hits that were drawn once, or None.

    Attributes
    ----------
    n_fits : int
    """

    def __init__(
        self,
        plans: Sequence[FitPlan],
        states: Sequence[State],
        fixed: Sequence[Sequence[tuple[Tensor, Tensor] | None] | None],
    ) -> None:
        self._plans, self._states = plans, states
        self.n_fits = len(plans)
        self._device = plans[0].train[0].direction.target.latents.device
        # on a CPU every iteration is launched kernel by kernel, with the same result
        self._record = self._device.type == "cuda"
        self._pairs: list[list[_Pairs]] = []
        self._groups: dict[tuple[object, ...], list[_Pairs]] = {}
        n_rows = n_shares = 0
        longest = max((continuation.tokens.shape[1] for continuation in _continuations(plans)), default=0)
        for plan, drawn in zip(plans, fixed, strict=True):
            own = []
            for number, term in enumerate(plan.terms):
                pairs = _Pairs(plan, number, None if drawn is None else drawn[number], n_rows, n_shares, longest)
                own.append(pairs)
                n_rows, n_shares = n_rows + pairs.size, n_shares + pairs.size * len(pairs.shares)
                if term.behaviour:
                    self._groups.setdefault(run_key(term, plan.config), []).append(pairs)
            self._pairs.append(own)
        self._capacities = {
            tuple(id(pairs.term) for pairs in group): Capacity.of(
                room([(pairs.lengths, pairs.size) for pairs in group]), self._device
            )
            for group in self._groups.values()
        }
        self._owners = {
            terms: torch.from_numpy(np.repeat(np.arange(len(group)), [pairs.size for pairs in group])).to(self._device)
            for terms, group in zip(self._capacities, self._groups.values(), strict=True)
        }
        self._wider: dict[tuple[int, ...], Capacity] = {}
        self._chosen = torch.zeros(MOST, n_rows, dtype=torch.int64, device=self._device)
        self._shares = torch.zeros(MOST, n_shares, dtype=torch.float64, device=self._device)
        self._rates = torch.zeros(MOST, len(plans), dtype=torch.float64, device=self._device)
        self._losses = torch.zeros(MOST, len(plans), dtype=torch.float64, device=self._device)
        self._place = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._generator = torch.Generator(self._device)
        self._n_launched = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def run(self, n: int) -> list[list[float]]:
        """Run the next `n` iterations, at most `MOST`; gives the losses of all fits before each update."""
        wider = self._load(n)
        for place in range(n):
            if place in wider:
                self._wider = wider[place]
                self._launch()
                self._wider = {}
                continue
            if self._graph is None and self._record and self._n_launched >= _WARM_UP:
                self._graph = self._recorded()
            if self._graph is None:
                self._launch()
            else:
                self._graph.replay()
        losses: list[list[float]] = self._losses[:n].tolist()
        return losses

    def _load(self, n: int) -> dict[int, dict[tuple[int, ...], Capacity]]:
        """Fill the tables for `n` iterations; capacities for those of them that need more room than there is."""
        chosen = np.empty((n, self._chosen.shape[1]), dtype=np.int64)
        rates = np.empty((n, len(self._plans)))
        for fit, (plan, state, own) in enumerate(zip(self._plans, self._states, self._pairs, strict=True)):
            rates[:, fit] = [learning_rate(plan.config, state.iteration + place) for place in range(n)]
            for number, pairs in enumerate(own):
                for place in range(n):
                    iteration = state.iteration + place
                    chosen[place, pairs.rows] = batch_rows(
                        pairs.n_pairs, plan.config.batch_size, plan.config.seed, number, iteration
                    )
                    if pairs.shares:
                        self._generator.manual_seed(draw_seed(plan.config.seed, number, iteration))
                    for columns in pairs.shares:
                        self._shares[place, columns].uniform_(generator=self._generator)
        self._chosen[:n].copy_(torch.from_numpy(chosen))
        self._rates[:n].copy_(torch.from_numpy(rates))
        self._place.zero_()
        wider: dict[int, dict[tuple[int, ...], Capacity]] = {}
        for (terms, capacity), group in zip(self._capacities.items(), self._groups.values(), strict=True):
            lengths = np.concatenate([pairs.lengths[chosen[:, pairs.rows]] for pairs in group], axis=1)
            alive = np.stack([(lengths > step).sum(axis=1) for step in range(len(capacity.sizes))], axis=1)
            for place in np.flatnonzero((alive > capacity.sizes).any(axis=1)).tolist():
                sizes = np.maximum(alive[place], capacity.sizes)
                wider.setdefault(place, {})[terms] = Capacity.of(sizes.tolist(), self._device)
        return wider

    def _iterate(self) -> None:
        """One iteration, on the tables' next row."""
        chosen, shares, rates = (
            table.index_select(0, self._place)[0] for table in (self._chosen, self._shares, self._rates)
        )
        modules = [(fit, name, module) for fit, state in enumerate(self._states) for name, module in state.named_maps()]
        # once per iteration, never once per step
        maps = side_by_side([module for _, _, module in modules])
        fits = []
        for fit, (plan, state, own) in enumerate(zip(self._plans, self._states, self._pairs, strict=True)):
            state.set_learning_rate(rates[fit])
            its = {
                name: linear_map for (number, name, _), linear_map in zip(modules, maps, strict=True) if number == fit
            }
            fits.append(FitBatches(its, [pairs.batch(chosen, shares) for pairs in own], plan.config))
        totals = torch.stack([losses.total for losses in losses_together(fits, pack=self._pack)])
        for state in self._states:
            state.optimiser.zero_grad(set_to_none=True)
        # each total depends on the parameters of its own fit alone
        totals.sum().backward()
        for state in self._states:
            state.optimiser.step()
        self._losses.index_copy_(0, self._place, totals.detach().double()[None])
        self._place += 1

    def _pack(self, batches: Sequence[PairBatch]) -> tuple[Packed, Tensor]:
        terms = tuple(id(batch.term) for batch in batches)
        following = [batch.following for batch in batches if batch.following is not None]
        packed = Packed.at_capacity(
            torch.cat([each.tokens for each in following]),
            torch.cat([each.lengths for each in following]),
            torch.cat([each.deterministic for each in following]),
            self._wider.get(terms, self._capacities[terms]),
        )
        return packed, self._owners[terms]

    def _launch(self) -> None:
        with self._aside():
            self._iterate()
        self._n_launched += 1

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On the stream that the graph is recorded on."""
        if self._stream is None:
            yield
            return
        before = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            yield
        before.wait_stream(self._stream)

    def _recorded(self) -> torch.cuda.CUDAGraph | None:
        """Record the graph of an iteration, without running it; None, with a warning, if that is impossible."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
                self._iterate()
        except RuntimeError as error:
            with torch.cuda.device(self._device):
                # torch does not, if recording ends in an error
                torch.cuda.set_stream(before)
            self._record = False
            warnings.warn(
                "the iterations of a fit could not be recorded as a CUDA graph; without it they take several times as long:"
                f" {str(error).partition(chr(10))[0]}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return graph


def _continuations(plans: Sequence[FitPlan]) -> Iterator[Sequences]:
    """Of all pairs whose behaviour is trained on."""
    for plan in plans:
        for term, pairs in zip(plan.terms, plan.train, strict=True):
            if term.behaviour and pairs.continuation is not None:
                yield pairs.continuation


def room(directions: Sequence[tuple[NDArray[np.int64], int]]) -> list[int]:
    """Room for continuations at each step, such that a batch seldom needs more.

    Parameters
    ----------
    directions : sequence of (ndarray of int64, shape (n_pairs,); int)
        For each direction, the lengths of all its continuations, and the number of them in a batch.

    Returns
    -------
    list of int
        Number of continuations by step; it never rises. Four standard deviations above the mean of a batch drawn without
        replacement, plus two for steps that few continuations reach; never more than all.

    Examples
    --------
    >>> room([(np.array([1, 1, 1, 3]), 4)])
    [4, 1, 1]
    """
    longest = max(int(lengths.max()) for lengths, _ in directions)
    mean, variance, most = np.zeros(longest), np.zeros(longest), np.zeros(longest)
    for lengths, size in directions:
        n = len(lengths)
        reaching = (lengths[:, None] > np.arange(longest)).sum(axis=0)
        share = reaching / n
        mean += size * share
        variance += size * share * (1 - share) * (n - size) / max(n - 1, 1)
        most += np.minimum(size, reaching)
    needed = np.minimum(np.ceil(mean + 4 * np.sqrt(variance) + 2), most)
    falling: list[int] = np.maximum.accumulate(needed[::-1])[::-1].astype(int).tolist()
    return falling


class _Pairs:
    """Training pairs of one term on the device, and the columns of the tables that belong to its batches."""

    def __init__(
        self,
        plan: FitPlan,
        number: int,
        drawn: tuple[Tensor, Tensor] | None,
        first_row: int,
        first_share: int,
        longest: int,
    ) -> None:
        self.term, pairs = plan.terms[number], plan.train[number]
        target = self.term.direction.target
        device = target.latents.device

        def there(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.n_pairs, self.size = len(pairs), min(plan.config.batch_size, len(pairs))
        self._source, self._target = there(pairs.source), there(pairs.target)
        table = mask_table(plan.subspaces, nested=bool(plan.config.nested))
        # (n_subspaces * n_turns, rank)
        self._masks = None if table is None else table.flatten(0, 1).to(device)
        n_turns = 1 if table is None else table.shape[1]
        self._first_mask = there(pairs.subspace * n_turns)
        self._turns = torch.arange(self.size, device=device) % n_turns
        self._drawn, self._combination, n_matches = drawn, None, 0
        if self.term.cl and drawn is None:
            self._combination = target.indexes[pairs.part].lookup(torch.from_numpy(pairs.values))[0]
            n_matches = plan.config.cl_matches
        if self.term.behaviour:
            assert pairs.continuation is not None
            self.lengths = pairs.continuation.lengths
            self._tokens, self._deterministic = (
                there(pad_steps(array, longest))
                for array in (pairs.continuation.tokens, pairs.continuation.deterministic)
            )
            self._lengths = there(self.lengths)
        self.rows = slice(first_row, first_row + self.size)
        starts = [first_share + match * self.size for match in range(n_matches)]
        self.shares = [slice(start, start + self.size) for start in starts]

    def batch(self, chosen: Tensor, shares: Tensor) -> PairBatch:
        """The batch of one row of each table, (n_columns,)."""
        rows, direction = chosen[self.rows], self.term.direction
        source = direction.source.latents.index_select(0, self._source.index_select(0, rows))
        target = direction.target.latents.index_select(0, self._target.index_select(0, rows))
        cl = hit = following = None
        if self._drawn is not None:
            cl, hit = (tensor.index_select(0, rows) for tensor in self._drawn)
        elif self._combination is not None:
            combination, index = self._combination.index_select(0, rows), direction.target.indexes["train"]
            draws = [index.draw_at(combination, shares[columns]) for columns in self.shares]
            cl, hit = torch.stack([draw.latents for draw in draws]).mean(dim=0), draws[0].hit
        if self.term.behaviour:
            following = Following(
                self._tokens.index_select(0, rows),
                self._lengths.index_select(0, rows),
                self._deterministic.index_select(0, rows),
            )
        masks = None
        if self._masks is not None:
            masks = self._masks.index_select(0, self._first_mask.index_select(0, rows) + self._turns)
        return PairBatch(self.term, source, target, masks, cl, hit, following)
