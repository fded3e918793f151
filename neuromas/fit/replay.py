"""Iterations of fits on a GPU, recorded once as a CUDA graph and then replayed.

An iteration is a thousand small kernels, which a GPU works off faster than a host can launch them. In a graph they are launched
together; but a graph's shapes are fixed, and it cannot ask the host for anything. So the pairs of many iterations are chosen
beforehand and lie in tables on the device, of which each replay takes the next row. Continuations, whose lengths differ
from batch to batch, are packed on the device into a `Layout` with room for more than nearly every batch needs; the rare batch
that needs still more is computed launch by launch. Losses are written to a table, and read when all iterations are done.
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

from neuromas.causal.model import Sequences
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
from neuromas.systems.system import Layout, Packed

MOST = 50
"""Iterations that are prepared at a time."""
_WARM_UP = 2  # iterations launched one kernel at a time first: libraries and the optimiser allocate what they keep


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
    """Iterations of several fits, some at a time.

    What an iteration does is what `neuromas.fit.loop.step_together` does, but for rounding.

    Parameters
    ----------
    plans, states : sequence of FitPlan, of State
        `replayable`; states are taken on in place, but for their count of iterations, which is the caller's.
    fixed : sequence
        Of each fit: of each term counterfactual latents and hits that were drawn once, or None.

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
        self._record = self._device.type == "cuda"  # elsewhere every iteration is launched, and comes to the same
        self._pairs: list[list[_Pairs]] = []
        self._groups: dict[tuple[object, ...], list[_Pairs]] = {}
        n_rows = n_shares = 0
        longest = max((after.tokens.shape[1] for after in _continuations(plans)), default=0)
        for plan, drawn in zip(plans, fixed, strict=True):
            own = []
            for number, term in enumerate(plan.terms):
                one = _Pairs(plan, number, None if drawn is None else drawn[number], n_rows, n_shares, longest)
                own.append(one)
                n_rows, n_shares = n_rows + one.size, n_shares + one.size * len(one.shares)
                if term.behaviour:
                    self._groups.setdefault(run_key(term, plan.config), []).append(one)
            self._pairs.append(own)
        self._layouts = {
            tuple(id(one.term) for one in group): Layout.of(
                room([(one.lengths, one.size) for one in group]), self._device
            )
            for group in self._groups.values()
        }
        self._owners = {
            terms: torch.from_numpy(np.repeat(np.arange(len(group)), [one.size for one in group])).to(self._device)
            for terms, group in zip(self._layouts, self._groups.values(), strict=True)
        }
        self._wider: dict[tuple[int, ...], Layout] = {}
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
        """The next `n` iterations, at most `MOST`; of each the losses of all fits, before its update."""
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
        found: list[list[float]] = self._losses[:n].tolist()
        return found

    def _load(self, n: int) -> dict[int, dict[tuple[int, ...], Layout]]:
        """Fill the tables for `n` iterations; layouts for those of them that need more room than there is."""
        chosen = np.empty((n, self._chosen.shape[1]), dtype=np.int64)
        rates = np.empty((n, len(self._plans)))
        for fit, (plan, state, own) in enumerate(zip(self._plans, self._states, self._pairs, strict=True)):
            rates[:, fit] = [learning_rate(plan.config, state.iteration + place) for place in range(n)]
            for number, one in enumerate(own):
                for place in range(n):
                    iteration = state.iteration + place
                    chosen[place, one.rows] = batch_rows(
                        one.n_pairs, plan.config.batch_size, plan.config.seed, number, iteration
                    )
                    if one.shares:
                        self._generator.manual_seed(draw_seed(plan.config.seed, number, iteration))
                    for columns in one.shares:
                        self._shares[place, columns].uniform_(generator=self._generator)
        self._chosen[:n].copy_(torch.from_numpy(chosen))
        self._rates[:n].copy_(torch.from_numpy(rates))
        self._place.zero_()
        wider: dict[int, dict[tuple[int, ...], Layout]] = {}
        for (terms, layout), group in zip(self._layouts.items(), self._groups.values(), strict=True):
            lengths = np.concatenate([one.lengths[chosen[:, one.rows]] for one in group], axis=1)
            alive = np.stack([(lengths > step).sum(axis=1) for step in range(len(layout.sizes))], axis=1)
            for place in np.flatnonzero((alive > layout.sizes).any(axis=1)).tolist():
                sizes = np.maximum(alive[place], layout.sizes)
                wider.setdefault(place, {})[terms] = Layout.of(sizes.tolist(), self._device)
        return wider

    def _iterate(self) -> None:
        """One iteration, on the tables' next row."""
        chosen, shares, rates = (
            table.index_select(0, self._place)[0] for table in (self._chosen, self._shares, self._rates)
        )
        modules = [(fit, name, one) for fit, state in enumerate(self._states) for name, one in state.named_maps()]
        maps = side_by_side([one for _, _, one in modules])  # once per iteration, never once per step
        parts = []
        for fit, (plan, state, own) in enumerate(zip(self._plans, self._states, self._pairs, strict=True)):
            state.set_learning_rate(rates[fit])
            its = {name: found for (number, name, _), found in zip(modules, maps, strict=True) if number == fit}
            parts.append(FitBatches(its, [one.batch(chosen, shares) for one in own], plan.config))
        totals = torch.stack([found.total for found in losses_together(parts, pack=self._pack)])
        for state in self._states:
            state.optimiser.zero_grad(set_to_none=True)
        totals.sum().backward()  # each total depends on its own fit's parameters alone
        for state in self._states:
            state.optimiser.step()
        self._losses.index_copy_(0, self._place, totals.detach().double()[None])
        self._place += 1

    def _pack(self, batches: Sequence[PairBatch]) -> tuple[Packed, Tensor]:
        terms = tuple(id(batch.term) for batch in batches)
        parts = [batch.following for batch in batches if batch.following is not None]
        packed = Packed.at_layout(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.lengths for part in parts]),
            torch.cat([part.deterministic for part in parts]),
            self._wider.get(terms, self._layouts[terms]),
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
        """The graph of an iteration, which recording does not execute; None, with a warning, if it cannot be had."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
                self._iterate()
        except RuntimeError as error:
            with torch.cuda.device(self._device):
                torch.cuda.set_stream(before)  # where recording ends in an error, torch does not
            self._record = False
            warnings.warn(
                "a fit's iteration could not be recorded as a CUDA graph, so each launches its kernels one by one, which takes"
                f" several times as long: {str(error).partition(chr(10))[0]}",
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


def room(parts: Sequence[tuple[NDArray[np.int64], int]]) -> list[int]:
    """How many continuations to make room for at each step, so that a batch seldom needs more.

    Parameters
    ----------
    parts : sequence of (ndarray of int64, shape (n_pairs,); int)
        Of each direction: lengths of all its continuations, and how many of them a batch has.

    Returns
    -------
    list of int
        Falling. Four standard deviations above the mean of a batch drawn without replacement, and two more for steps that hardly
        any continuation reaches; never more than all.

    Examples
    --------
    >>> room([(np.array([1, 1, 1, 3]), 4)])
    [4, 1, 1]
    """
    longest = max(int(lengths.max()) for lengths, _ in parts)
    mean, variance, most = np.zeros(longest), np.zeros(longest), np.zeros(longest)
    for lengths, size in parts:
        n = len(lengths)
        reaching = (lengths[:, None] > np.arange(longest)).sum(axis=0)
        share = reaching / n
        mean += size * share
        variance += size * share * (1 - share) * (n - size) / max(n - 1, 1)
        most += np.minimum(size, reaching)
    wanted = np.minimum(np.ceil(mean + 4 * np.sqrt(variance) + 2), most)
    falling: list[int] = np.maximum.accumulate(wanted[::-1])[::-1].astype(int).tolist()
    return falling


class _Pairs:
    """Training pairs of one term on the device, and which columns of the tables are those of its batches."""

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
        table = mask_table(plan.subspaces)
        self._masks = None if table is None else table[torch.from_numpy(pairs.subspace)].to(device)
        self._drawn, self._combination, n_matches = drawn, None, 0
        if self.term.cl and drawn is None:
            self._combination = target.indexes[pairs.part].lookup(torch.from_numpy(pairs.values))[0]
            n_matches = plan.config.cl_matches
        if self.term.behaviour:
            assert pairs.continuation is not None
            self.lengths = pairs.continuation.lengths
            room = ((0, 0), (0, longest - pairs.continuation.tokens.shape[1]))
            self._tokens, self._deterministic = (
                there(np.pad(array, room)) for array in (pairs.continuation.tokens, pairs.continuation.deterministic)
            )
            self._lengths = there(self.lengths)
        self.rows = slice(first_row, first_row + self.size)
        starts = [first_share + match * self.size for match in range(n_matches)]
        self.shares = [slice(start, start + self.size) for start in starts]

    def batch(self, chosen: Tensor, shares: Tensor) -> PairBatch:
        """The batch of these rows of the tables, each (n_columns,)."""
        rows, direction = chosen[self.rows], self.term.direction
        source = direction.source.latents.index_select(0, self._source.index_select(0, rows))
        target = direction.target.latents.index_select(0, self._target.index_select(0, rows))
        cl = hit = following = None
        if self._drawn is not None:
            cl, hit = (one.index_select(0, rows) for one in self._drawn)
        elif self._combination is not None:
            wanted, index = self._combination.index_select(0, rows), direction.target.indexes["train"]
            draws = [index.draw_at(wanted, shares[columns]) for columns in self.shares]
            cl, hit = torch.stack([draw.latents for draw in draws]).mean(dim=0), draws[0].hit
        if self.term.behaviour:
            following = Following(
                self._tokens.index_select(0, rows),
                self._lengths.index_select(0, rows),
                self._deterministic.index_select(0, rows),
            )
        masks = None if self._masks is None else self._masks.index_select(0, rows)
        return PairBatch(self.term, source, target, masks, cl, hit, following)
