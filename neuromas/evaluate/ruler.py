"""What is measured of intervened latents: behaviour if the target can be run, distances from recorded latents always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.align.pairs import PairSet
from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.evaluate.divergence import (
    Ellipsoid,
    cl_distance,
    nearest_values,
    outside_ellipsoid,
    relative_distance,
    sliced_wasserstein,
)
from neuromas.evaluate.inference import bootstrap_interval
from neuromas.index.choose import near
from neuromas.schema.evaluation import DirectionScore, SourceTargetScore, ValueScore
from neuromas.systems.system import Packed, all_right


@dataclass(frozen=True)
class Behaviour:
    """What a target did after interventions.

    Attributes
    ----------
    right : Tensor of bool, shape (n_pairs,)
        Whether every deterministic token was the argmax.
    n_right, n_tokens : Tensor of int64, shape (n_pairs,)
        Deterministic tokens of each pair, right and all.
    """

    right: Tensor = field(repr=False)
    n_right: Tensor = field(repr=False)
    n_tokens: Tensor = field(repr=False)


@torch.no_grad()
def behaviour(intervened: Tensor, pairs: PairSet, target: Side) -> Behaviour:
    """Run `target` on from `intervened` latents and compare with the counterfactual sequences.

    Parameters
    ----------
    intervened : Tensor, shape (n_pairs, n_units), or stepwise (n_pairs, n_steps, n_units)
    pairs : PairSet
        With continuations.
    target : Side
        One that can be run.

    Raises
    ------
    ReadOnly
        It cannot.
    """
    if pairs.continuation is None:
        raise InvalidInput(
            "pairs without a causal model have no counterfactual behaviour to compare with", kind="no_model"
        )
    rights, n_right, n_tokens = [], [], []
    at_once = len(pairs) if target.system is None else target.system.at_once
    for start in range(0, len(pairs), at_once):
        rows = np.arange(start, min(start + at_once, len(pairs)))
        packed = Packed.from_continuation(pairs.continuation, rows, intervened.device)
        lengths = None if pairs.lengths is None else pairs.lengths[rows]
        logits = target.resume(intervened[start : start + at_once], packed, pairs.target[rows], lengths)
        rights.append(all_right(logits, packed, len(rows)))
        scored = packed.deterministic
        told = (logits.argmax(dim=-1) == packed.tokens) & scored
        n_right.append(torch.bincount(packed.rows[told], minlength=len(rows)))
        n_tokens.append(torch.bincount(packed.rows[scored], minlength=len(rows)))
    return Behaviour(torch.cat(rights), torch.cat(n_right), torch.cat(n_tokens))


def _decoding_part(part: str) -> str:
    """By whose means values are told: a part that neither the fit was trained on nor the pairs come from.

    With those of the training part a fit to shuffled values would seem to know them.
    """
    return "validation" if part == "test" else "test"


@dataclass(frozen=True)
class _Part:
    """Pairs that are scored together, and what natural latents do there.

    Attributes
    ----------
    subspace : str
        Whose pairs; empty for all.
    rows : Tensor of bool, shape (n_pairs,)
    hit : Tensor of bool, shape (n_pairs,)
        Those of `rows` with a counterfactual latent.
    differ : Tensor of bool, shape (n_pairs,)
        Those of `hit` with two different ones: a latent is at no distance from itself.
    decodable : Tensor of bool, shape (n_pairs,)
        Those of `hit` whose values have a mean latent.
    spread, ceiling, wasserstein, outside, distance : float or None
        Of counterfactual latents: loss, retrieval, sliced Wasserstein, share outside the ellipsoid, median distance.
    """

    subspace: str
    rows: Tensor
    hit: Tensor
    differ: Tensor
    decodable: Tensor
    spread: float | None
    ceiling: float | None
    wasserstein: float | None
    outside: float | None
    distance: float | None


class _Ruler:
    """Measures intervened latents of one direction: behaviour where the target runs, distances always."""

    def __init__(
        self,
        pairs: PairSet,
        target: Side,
        subspaces: Sequence[Subspace],
        ellipsoid: Ellipsoid,
        pattern_ceiling: float | None,
        generator: torch.Generator,
        *,
        accessed: bool,
        by_oracle: bool,
    ) -> None:
        index = target.indexes[pairs.part]
        values = torch.from_numpy(pairs.values)
        draw, again = index.sample(values, generator), index.sample(values, generator)
        self.pairs, self.target, self.ellipsoid, self.pattern_ceiling = pairs, target, ellipsoid, pattern_ceiling
        self.hit, self.accessed, self.by_oracle = draw.hit, accessed, by_oracle
        # without a match nothing stands in for the latent: such rows count as wrong, and in no distance
        self.cl = torch.where(draw.hit[:, None], draw.latents, 0.0)
        self.again = torch.where(draw.hit[:, None], again.latents, 0.0)
        decoder = target.indexes[_decoding_part(pairs.part)]
        self.means, self.tolerance = decoder.means(), decoder.tolerance
        self.wanted = values
        self.combination, known = decoder.lookup(values)
        self.decodable, self.differ = draw.hit & (known > 0), draw.hit & (again.samples != draw.samples)
        self.projections = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        self.parts = [self._part("", torch.ones_like(draw.hit))]
        if len(subspaces) > 1:
            number = torch.from_numpy(pairs.subspace).to(draw.hit.device)
            self.parts += [self._part(one.name, number == i) for i, one in enumerate(subspaces)]

    def _part(self, subspace: str, rows: Tensor) -> _Part:
        hit, differ, decodable = self.hit & rows, self.differ & rows, self.decodable & rows
        return _Part(
            subspace,
            rows,
            hit,
            differ,
            decodable,
            spread=_mean(cl_distance(self.again[differ], self.cl[differ])),
            ceiling=self._retrieval(self.cl, decodable)[0],
            wasserstein=self._wasserstein(self.cl, hit),
            outside=outside_ellipsoid(self.cl[hit], self.ellipsoid),
            distance=_median(self.ellipsoid.distance(self.cl[hit])),
        )

    def _retrieval(self, latents: Tensor, decodable: Tensor) -> tuple[float | None, float | None]:
        """Share of latents whose nearest mean holds the expected values, and the same by chance."""
        if not bool(decodable.any()):
            return None, None
        found = nearest_values(latents[decodable], self.means.latents)
        expected = self.combination[decodable]
        if self.tolerance:
            wide = np.array([self.tolerance.get(name, 0.0) for name in self.target.variables])
            told, wanted = self.means.values.cpu()[found.cpu()].numpy(), self.wanted[decodable.cpu()].numpy()
            some = slice(1000)  # of all ways to pair what was found with what was wanted
            by_chance = near(told[some, None], wanted[None, some], wide)
            return float(near(told, wanted, wide).mean()), float(by_chance.mean())
        frequencies = [torch.bincount(one, minlength=len(self.means.latents)).double() for one in (found, expected)]
        chance = float((frequencies[0] @ frequencies[1]) / len(found) ** 2)
        return float((found == expected).double().mean()), chance

    def _pattern(self, latents: Tensor, decodable: Tensor) -> float | None:
        """Correlation of mean latents by expected values with the means that values are told by."""
        values, which = torch.unique(self.combination[decodable], return_inverse=True)
        if len(values) < 2:
            return None
        which = which.cpu()  # elsewhere `index_add_` sums in any order
        counts = torch.bincount(which)[:, None]
        sums = torch.zeros(len(values), latents.shape[1], dtype=torch.float64)
        means = sums.index_add_(0, which, latents[decodable].double().cpu()) / counts
        natural = self.means.latents[values].double().cpu()
        mine, its = means - means.mean(dim=0), natural - natural.mean(dim=0)
        norms = mine.norm() * its.norm()
        return float((mine * its).sum() / norms) if norms > 0 else None

    def _wasserstein(self, latents: Tensor, hit: Tensor) -> float | None:
        # the same projections for every method, so that their scores differ by the latents alone
        generator = torch.Generator(device=latents.device).manual_seed(self.projections)
        return sliced_wasserstein(latents[hit], self.again[hit], generator=generator)

    def score(self, method: str, intervened: Tensor, *, in_full: bool = False) -> list[DirectionScore]:
        """Over all pairs, then by subspace where there are several; `in_full` with IIA by source and target value."""
        done: Behaviour | None = None
        right: Tensor | None = None
        if self.target.system is not None:
            done = behaviour(intervened, self.pairs, self.target)
            right = done.right & self.hit if method == "cl-ceiling" else done.right
        if self.pairs.lengths is not None:
            last = torch.from_numpy(self.pairs.lengths - 1).to(intervened.device)
            intervened = intervened[torch.arange(len(last), device=last.device), last]
        return [self._score(part, method, intervened, done, right, in_full) for part in self.parts]

    def _score(
        self,
        part: _Part,
        method: str,
        intervened: Tensor,
        done: Behaviour | None,
        right: Tensor | None,
        in_full: bool,
    ) -> DirectionScore:
        rows, hit = part.rows, part.hit
        of_part = None if right is None else right[rows]
        # an interval needs two pairs
        low, high = (None, None) if of_part is None or len(of_part) < 2 else bootstrap_interval(of_part.cpu().numpy())
        l2, cosine = relative_distance(intervened[part.differ], self.cl[part.differ], self.again[part.differ])
        distance = _median(self.ellipsoid.distance(intervened[hit]))
        n_pairs = int(rows.sum())
        retrieval, chance = self._retrieval(intervened, part.decodable)
        return DirectionScore(
            method=method,
            source=self.pairs.direction.source.name,
            target=self.target.name,
            subspace=part.subspace,
            access="yes" if self.accessed else "no",
            oracle=self.by_oracle,
            iia=None if of_part is None else _mean(of_part),
            low=low,
            high=high,
            token_accuracy=None
            if done is None
            else float(done.n_right[rows].sum() / done.n_tokens[rows].sum().clamp(1)),
            n_pairs=n_pairs,
            n_missed=n_pairs - int(hit.sum()),
            coverage=int(hit.sum()) / max(n_pairs, 1),
            cl_loss=None if method == "cl-ceiling" else _mean(cl_distance(intervened[hit], self.cl[hit])),
            cl_spread=part.spread,
            l2_ratio=l2,
            cosine_ratio=cosine,
            wasserstein=self._wasserstein(intervened, hit),
            wasserstein_natural=part.wasserstein,
            outside=outside_ellipsoid(intervened[hit], self.ellipsoid),
            outside_natural=part.outside,
            mahalanobis_ratio=distance / part.distance if distance is not None and part.distance else None,
            retrieval=retrieval,
            retrieval_ceiling=part.ceiling,
            retrieval_chance=chance,
            pattern=self._pattern(intervened, part.decodable),
            pattern_ceiling=self.pattern_ceiling,
            by_value=self._by_value(rows, right),
            by_source_target=self._by_source_target(rows, right) if in_full and right is not None else (),
        )

    def _by_value(self, rows: Tensor, right: Tensor | None) -> tuple[ValueScore, ...]:
        mine = rows.cpu().numpy()
        hit = self.hit.cpu().numpy()[mine]
        ok = None if right is None else right.cpu().numpy()[mine]
        combinations, which = np.unique(self.pairs.values[mine], axis=0, return_inverse=True)
        scores = []
        for number, combination in enumerate(combinations):
            its = which.reshape(-1) == number
            scores.append(
                ValueScore(
                    values=_labels(self.target, combination),
                    n_pairs=int(its.sum()),
                    n_missed=int((~hit[its]).sum()),
                    iia=None if ok is None else float(ok[its].mean()),
                )
            )
        return tuple(scores)

    def _by_source_target(self, rows: Tensor, right: Tensor) -> tuple[SourceTargetScore, ...]:
        mine, donor = rows.cpu().numpy(), self.pairs.direction.source
        own = donor.recording.values(list(donor.variables))[self.pairs.source[mine]]
        held = self.target.recording.values(list(self.target.variables))[self.pairs.target[mine]]
        ok = right.cpu().numpy()[mine]
        combinations, which = np.unique(np.hstack([own, held]), axis=0, return_inverse=True)
        counts = np.bincount(which.reshape(-1), minlength=len(combinations))
        n_right = np.bincount(which.reshape(-1), weights=ok, minlength=len(combinations))
        return tuple(
            SourceTargetScore(
                source=_labels(donor, combination[: own.shape[1]]),
                target=_labels(self.target, combination[own.shape[1] :]),
                n_pairs=int(count),
                iia=float(n / count),
            )
            for combination, count, n in zip(combinations, counts, n_right, strict=True)
        )


def _labels(side: Side, combination: NDArray[np.float64]) -> dict[str, str]:
    specs = [side.recording.manifest.variable(name) for name in side.variables]
    return {spec.name: spec.label(code) for spec, code in zip(specs, combination.tolist(), strict=True)}


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


def _median(values: Tensor) -> float | None:
    return float(values.median()) if len(values) else None
