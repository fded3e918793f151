"""What is measured of intervened latents: behaviour if the target can be run, distances from recorded latents always."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Subspace
from neuromas.align.pairs import PairSet
from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.evaluation.divergence import (
    Ellipsoid,
    cl_distance,
    natural_ellipsoid,
    nearest_values,
    outside_ellipsoid,
    relative_distance,
    sliced_wasserstein,
)
from neuromas.evaluation.inference import split_half_reliability
from neuromas.evaluation.intervals import proportion
from neuromas.evaluation.outcomes import outcomes_text, read_outcomes
from neuromas.index.choose import near
from neuromas.index.index import CLIndex
from neuromas.schema.evaluation import DirectionScore, SourceTargetScore, ValueScore
from neuromas.systems.system import Packed, all_right

_NATURAL = 5  # stream of seeds
_N_NATURAL = 10_000
"""Held-out latents that size the ellipsoid and estimate reliability; more change little and take time."""
_AVERAGED = tuple(name for name, each in DirectionScore.model_fields.items() if each.annotation == float | None)
"""Fields that are means over alternatives; those that no alternative changes stay as they are."""
_N_CHANCE = 1_000
"""Latents of which all combinations with expected values are compared, for retrieval by chance."""


@dataclass(frozen=True)
class Behaviour:
    """What a target did after interventions.

    Attributes
    ----------
    right : Tensor of bool, shape (n_pairs,)
        Whether every deterministic token was the argmax.
    n_right, n_tokens : Tensor of int64, shape (n_pairs,)
        Deterministic tokens of each pair: those that are right, and all.
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
        A side that can be run.

    Returns
    -------
    Behaviour

    Raises
    ------
    ReadOnly
        The side can only be read.
    InvalidInput
        The pairs have no continuations.
    """
    if pairs.continuation is None:
        raise InvalidInput(
            "pairs without a causal model have no counterfactual behaviour to compare with", kind="no_model"
        )
    right, n_right, n_tokens = [], [], []
    at_once = len(pairs) if target.system is None else target.system.at_once
    for start in range(0, len(pairs), at_once):
        rows = np.arange(start, min(start + at_once, len(pairs)))
        following = pairs.continuation
        lengths_of = following.lengths if target.system is None else target.system.foreseen(following.lengths)
        packed = Packed.from_sequences(
            following.tokens[rows], lengths_of[rows], following.deterministic[rows], intervened.device
        )
        lengths = None if pairs.lengths is None else pairs.lengths[rows]
        logits = target.resume(intervened[start : start + at_once], packed, pairs.target[rows], lengths)
        right.append(all_right(logits, packed, len(rows)))
        scored = packed.deterministic
        correct = (logits.argmax(dim=-1) == packed.tokens) & scored
        n_right.append(torch.bincount(packed.rows[correct], minlength=len(rows)))
        n_tokens.append(torch.bincount(packed.rows[scored], minlength=len(rows)))
    return Behaviour(torch.cat(right), torch.cat(n_right), torch.cat(n_tokens))


@dataclass(frozen=True)
class Facts:
    """What is known of a direction before anything is scored.

    Attributes
    ----------
    ran : bool
        Whether the fit ran the target.
    oracle : bool
        Whether the target's system is an oracle.
    trained : bool or None
        Whether the fit was trained in this direction; None if that is not known.
    threads : int or None
        Threads that the fit computed with.
    repeated_source, repeated_target : float
        Share of the held-out latents that are bit-identical to a training latent of the same system.
    """

    ran: bool
    oracle: bool
    trained: bool | None
    threads: int | None
    repeated_source: float
    repeated_target: float


def trials_of(pairs: PairSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The trials of each pair's source and of its target, by number; shape (n_pairs,) each."""
    source, target = pairs.direction.source.recording, pairs.direction.target.recording
    return source.trial[pairs.source], target.trial[pairs.target]


@dataclass(frozen=True)
class NaturalLatents:
    """What is known of a target's recorded latents, whatever was intervened on.

    Attributes
    ----------
    ellipsoid : Ellipsoid
        Where latents lie that pairs may draw, whatever their values.
    decoder : CLIndex
        Latents whose means decode values.
    pattern_ceiling : float or None
        The correlation of the true means with those of the decoder, which are noisy.
    """

    ellipsoid: Ellipsoid
    decoder: CLIndex
    pattern_ceiling: float | None

    @classmethod
    def of(cls, side: Side, part: str, seed: int) -> NaturalLatents:
        """Of `side`, for pairs of `part`."""
        candidates = side.candidates["validation"]
        drawn = candidates.draw(_N_NATURAL, np.random.default_rng([seed, _NATURAL]))
        ellipsoid = natural_ellipsoid(side.indexes["train"].latents, side.take(candidates.samples[drawn]))
        # neither the part that the fit was trained on nor that of the pairs: with the means of the training part, a fit to
        # shuffled values would seem to know them
        decoder = side.indexes["validation" if part == "test" else "test"]
        return cls(ellipsoid, decoder, _pattern_ceiling(side, decoder))


def _pattern_ceiling(side: Side, decoder: CLIndex) -> float | None:
    pooled = side.recording.manifest.pseudo_population
    if decoder.tolerance or (pooled is not None and pooled.replace):
        return None  # values with one sample each; or halves that share trials, which agree too well
    samples = decoder.samples.cpu().numpy()
    if len(samples) > _N_NATURAL:
        samples = np.sort(np.random.default_rng(0).choice(samples, _N_NATURAL, replace=False))
    values = torch.from_numpy(side.recording.values(list(side.variables))[samples])
    groups = decoder.lookup(values)[0].cpu().numpy()
    reliability = split_half_reliability(side.take(samples).cpu().numpy(), groups, side.recording.trial[samples])
    return None if reliability is None else max(0.0, reliability) ** 0.5


@dataclass(frozen=True)
class _Group:
    """Pairs that are scored together, and what natural latents do there.

    Attributes
    ----------
    subspace : str
        Only pairs that interchange this subspace; empty: all pairs.
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


class Ruler:
    """Measures intervened latents of one direction.

    Parameters
    ----------
    pairs : PairSet
    target : Side
        Scored by behaviour too, if it can be run.
    subspaces : sequence of Subspace
    natural : NaturalLatents
        Of the target.
    generator : torch.Generator
        Draws counterfactual latents.
    facts : Facts
        What is known of the direction, and stands in each of its scores.
    judge : Side, optional
        The target, run by the twin that judges.
    """

    def __init__(
        self,
        pairs: PairSet,
        target: Side,
        subspaces: Sequence[Subspace],
        natural: NaturalLatents,
        generator: torch.Generator,
        *,
        facts: Facts,
        judge: Side | None = None,
    ) -> None:
        index = target.indexes[pairs.part]
        expected = torch.from_numpy(pairs.values)
        draw, again = index.sample(expected, generator), index.sample(expected, generator)
        self.pairs, self.target, self.natural, self.facts = pairs, target, natural, facts
        self.trials = trials_of(pairs)
        self.judge = judge
        self.hit, self.expected = draw.hit, expected
        # a miss has no latent to compare with: it counts as wrong, and is in no distance
        self.cl = torch.where(draw.hit[:, None], draw.latents, 0.0)
        self.again = torch.where(draw.hit[:, None], again.latents, 0.0)
        self.means = natural.decoder.means()
        self.combination, n_recorded = natural.decoder.lookup(expected)
        self.decodable, self.differ = draw.hit & (n_recorded > 0), draw.hit & (again.samples != draw.samples)
        self.projections = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        self.groups = [self._group("", torch.ones_like(draw.hit))]
        if len(subspaces) > 1:
            number = torch.from_numpy(pairs.subspace).to(draw.hit.device)
            self.groups += [self._group(subspace.name, number == i) for i, subspace in enumerate(subspaces)]

    def score(self, method: str, intervened: Tensor, *, by_source_target: bool = False) -> list[DirectionScore]:
        """Scores over all pairs, then by subspace if there are several.

        Parameters
        ----------
        method : str
        intervened : Tensor, shape (n_pairs, n_units), or stepwise (n_pairs, n_steps, n_units)
            Distances of stepwise interchanges are those of the last step.
        by_source_target : bool
            Also score every combination of source and target values.

        Returns
        -------
        list of DirectionScore
        """
        done: Behaviour | None = None
        right: Tensor | None = None
        if self.target.system is not None:
            done = behaviour(intervened, self.pairs, self.target)
            right = done.right & self.hit if method == "cl-ceiling" else done.right
        judged = None
        if self.judge is not None:
            judged = behaviour(intervened, self.pairs, self.judge).right
            judged = judged & self.hit if method == "cl-ceiling" else judged
        if self.pairs.lengths is not None:
            last = torch.from_numpy(self.pairs.lengths - 1).to(intervened.device)
            intervened = intervened[torch.arange(len(last), device=last.device), last]
        return [self._score(group, method, intervened, done, right, judged, by_source_target) for group in self.groups]

    def mean_score(self, method: str, several: Iterable[Tensor]) -> list[DirectionScore]:
        """Scores that are means over equally good alternatives, such as several random rotations.

        Parameters
        ----------
        method : str
        several : iterable of Tensor
            The intervened latents of each alternative, as for `score`.

        Returns
        -------
        list of DirectionScore
            As `score`. Every number is a mean over the alternatives, intervals are those of the means, and ``iia_sd`` is the
            standard deviation of the IIA over the alternatives.
        """
        runs = [self.score(method, intervened) for intervened in several]
        return [self._mean(group, scores) for group, scores in zip(self.groups, zip(*runs, strict=True), strict=True)]

    def _mean(self, group: _Group, scores: Sequence[DirectionScore]) -> DirectionScore:
        means = {name: _mean_of([getattr(score, name) for score in scores]) for name in _AVERAGED}
        rows = group.rows.cpu().numpy()
        chosen = rows.nonzero()[0], group.decodable.cpu().numpy().nonzero()[0]
        for prefix, name, pairs in zip(("", "retrieval_"), ("right", "retrieved"), chosen, strict=True):
            outcomes = [read_outcomes(text) for score in scores if (text := getattr(score, name)) is not None]
            if outcomes and len(pairs):
                share = np.mean(outcomes, axis=0)
                means |= self._interval(share[~np.isnan(share)], pairs, prefix)
        iia = [score.iia for score in scores if score.iia is not None]
        by_value = tuple(
            values[0].model_copy(update={"iia": _mean_of([value.iia for value in values])})
            for values in zip(*(score.by_value for score in scores), strict=True)
        )
        means["iia_sd"] = float(np.std(iia, ddof=1)) if len(iia) > 1 else None
        return scores[0].model_copy(update={**means, "by_value": by_value, "right": None, "retrieved": None})

    def _interval(
        self, right: NDArray[Any], pairs: NDArray[np.int64], prefix: str = "", sizes: NDArray[Any] | None = None
    ) -> dict[str, float | None]:
        """Ends of the interval, and intraclass correlation, of outcomes of these pairs, by the fields of a score."""
        share = proportion(right, *(trials[pairs] for trials in self.trials), sizes=sizes)
        return {f"{prefix}low": share.low, f"{prefix}high": share.high, f"{prefix}icc": share.icc}

    def _intervals(
        self, group: _Group, right: Tensor | None, done: Behaviour | None, retrieved: NDArray[np.bool_] | None
    ) -> dict[str, float | None]:
        """Intervals of the IIA, of the token accuracy and of the retrieval, where they were measured."""
        pairs = group.rows.cpu().numpy().nonzero()[0]
        intervals: dict[str, float | None] = {}
        if right is not None and done is not None and len(pairs):
            intervals |= self._interval(right.cpu().numpy()[pairs], pairs)
            n_right, n_tokens = (counts.cpu().numpy()[pairs] for counts in (done.n_right, done.n_tokens))
            if n_tokens.any():
                tokens = self._interval(n_right, pairs, "token_", n_tokens)
                intervals |= {name: tokens[name] for name in ("token_low", "token_high")}
        if retrieved is not None:
            intervals |= self._interval(retrieved, group.decodable.cpu().numpy().nonzero()[0], "retrieval_")
        return intervals

    def _group(self, subspace: str, rows: Tensor) -> _Group:
        hit, differ, decodable = self.hit & rows, self.differ & rows, self.decodable & rows
        return _Group(
            subspace,
            rows,
            hit,
            differ,
            decodable,
            spread=_mean(cl_distance(self.again[differ], self.cl[differ])),
            ceiling=_share_of(self._retrieval(self.cl, decodable)[0]),
            wasserstein=self._wasserstein(self.cl, hit),
            outside=outside_ellipsoid(self.cl[hit], self.natural.ellipsoid),
            distance=_median(self.natural.ellipsoid.distance(self.cl[hit])),
        )

    def _retrieval(self, latents: Tensor, decodable: Tensor) -> tuple[NDArray[np.bool_] | None, float | None]:
        """Whether the mean nearest to each latent holds the expected values, and the share of these by chance."""
        if not bool(decodable.any()):
            return None, None
        retrieved = nearest_values(latents[decodable], self.means.latents)
        tolerance = self.natural.decoder.tolerance
        if tolerance:
            widths = np.array([tolerance.get(name, 0.0) for name in self.target.variables])
            values = self.means.values.cpu()[retrieved.cpu()].numpy()
            expected = self.expected[decodable.cpu()].numpy()
            by_chance = near(values[:_N_CHANCE, None], expected[None, :_N_CHANCE], widths)
            return near(values, expected, widths), float(by_chance.mean())
        combination = self.combination[decodable]
        n_means = len(self.means.latents)
        n_retrieved, n_expected = (torch.bincount(x, minlength=n_means).double() for x in (retrieved, combination))
        chance = float((n_retrieved @ n_expected) / len(retrieved) ** 2)
        return (retrieved == combination).cpu().numpy(), chance

    def _pattern(self, latents: Tensor, decodable: Tensor) -> float | None:
        """Correlation of mean latents by expected values with the decoder's means of the same values."""
        values, group = torch.unique(self.combination[decodable], return_inverse=True)
        if len(values) < 2:
            return None
        group = group.cpu()  # on a GPU `index_add_` sums in no fixed order
        counts = torch.bincount(group)[:, None]
        sums = torch.zeros(len(values), latents.shape[1], dtype=torch.float64)
        means = sums.index_add_(0, group, latents[decodable].double().cpu()) / counts
        recorded = self.means.latents[values].double().cpu()
        means, recorded = means - means.mean(dim=0), recorded - recorded.mean(dim=0)
        norms = means.norm() * recorded.norm()
        return float((means * recorded).sum() / norms) if norms > 0 else None

    def _wasserstein(self, latents: Tensor, hit: Tensor) -> float | None:
        # the same projections for every method, so that their scores differ by the latents alone
        generator = torch.Generator(device=latents.device).manual_seed(self.projections)
        return sliced_wasserstein(latents[hit], self.again[hit], generator=generator)

    def _score(
        self,
        group: _Group,
        method: str,
        intervened: Tensor,
        done: Behaviour | None,
        right: Tensor | None,
        judged: Tensor | None,
        by_source_target: bool,
    ) -> DirectionScore:
        rows, hit, ellipsoid = group.rows, group.hit, self.natural.ellipsoid
        right_here = None if right is None else right[rows]
        judged_here = None if judged is None else judged[rows]
        l2, cosine = relative_distance(intervened[group.differ], self.cl[group.differ], self.again[group.differ])
        distance = _median(ellipsoid.distance(intervened[hit]))
        n_pairs = int(rows.sum())
        retrieved, chance = self._retrieval(intervened, group.decodable)
        intervals: dict[str, float | None] = {"low": None, "high": None}
        intervals |= self._intervals(group, right, done, retrieved)
        if judged_here is not None and len(judged_here):
            said = self._interval(judged_here.cpu().numpy(), rows.cpu().numpy().nonzero()[0])
            intervals |= {"iia_twin_low": said["low"], "iia_twin_high": said["high"]}
        return DirectionScore(
            method=method,
            source=self.pairs.direction.source.name,
            target=self.target.name,
            subspace=group.subspace,
            ran=self.facts.ran,
            oracle=self.facts.oracle,
            iia=None if right_here is None else _mean(right_here),
            iia_twin=None if judged_here is None else _mean(judged_here),
            **intervals,
            token_accuracy=None if done is None else _share(done.n_right[rows], done.n_tokens[rows]),
            n_pairs=n_pairs,
            n_missed=n_pairs - int(hit.sum()),
            coverage=int(hit.sum()) / max(n_pairs, 1),
            cl_loss=None if method == "cl-ceiling" else _mean(cl_distance(intervened[hit], self.cl[hit])),
            cl_spread=group.spread,
            l2_ratio=l2,
            cosine_ratio=cosine,
            wasserstein=self._wasserstein(intervened, hit),
            wasserstein_natural=group.wasserstein,
            outside=outside_ellipsoid(intervened[hit], ellipsoid),
            outside_natural=group.outside,
            mahalanobis_ratio=distance / group.distance if distance is not None and group.distance else None,
            retrieval=_share_of(retrieved),
            retrieval_ceiling=group.ceiling,
            retrieval_chance=chance,
            pattern=self._pattern(intervened, group.decodable),
            pattern_ceiling=self.natural.pattern_ceiling,
            trained=self.facts.trained,
            threads=self.facts.threads,
            repeated_source=self.facts.repeated_source,
            repeated_target=self.facts.repeated_target,
            right=None if right_here is None else outcomes_text(right_here.cpu().numpy()),
            retrieved=None if retrieved is None else self._retrieved_text(group, retrieved),
            by_value=self._by_value(rows, right),
            by_source_target=self._by_source_target(rows, right) if by_source_target and right is not None else (),
        )

    @staticmethod
    def _retrieved_text(group: _Group, retrieved: NDArray[np.bool_]) -> str:
        outcomes = np.full(len(group.rows), np.nan)
        outcomes[group.decodable.cpu().numpy()] = retrieved
        return outcomes_text(outcomes[group.rows.cpu().numpy()])

    def _by_value(self, rows: Tensor, right: Tensor | None) -> tuple[ValueScore, ...]:
        chosen = rows.cpu().numpy()
        hit = self.hit.cpu().numpy()[chosen]
        right_here = None if right is None else right.cpu().numpy()[chosen]
        combinations, group = np.unique(self.pairs.values[chosen], axis=0, return_inverse=True)
        scores = []
        for number, combination in enumerate(combinations):
            members = group.reshape(-1) == number
            scores.append(
                ValueScore(
                    values=_labels(self.target, combination),
                    n_pairs=int(members.sum()),
                    n_missed=int((~hit[members]).sum()),
                    iia=None if right_here is None else float(right_here[members].mean()),
                )
            )
        return tuple(scores)

    def _by_source_target(self, rows: Tensor, right: Tensor) -> tuple[SourceTargetScore, ...]:
        chosen, source = rows.cpu().numpy(), self.pairs.direction.source
        donated = source.recording.values(list(source.variables))[self.pairs.source[chosen]]
        before = self.target.recording.values(list(self.target.variables))[self.pairs.target[chosen]]
        combinations, group = np.unique(np.hstack([donated, before]), axis=0, return_inverse=True)
        counts = np.bincount(group.reshape(-1), minlength=len(combinations))
        n_right = np.bincount(group.reshape(-1), weights=right.cpu().numpy()[chosen], minlength=len(combinations))
        width = donated.shape[1]
        return tuple(
            SourceTargetScore(
                source=_labels(source, combination[:width]),
                target=_labels(self.target, combination[width:]),
                n_pairs=int(count),
                iia=float(n / count),
            )
            for combination, count, n in zip(combinations, counts, n_right, strict=True)
        )


def _labels(side: Side, combination: NDArray[np.float64]) -> dict[str, str]:
    specs = [side.recording.manifest.variable(name) for name in side.variables]
    return {spec.name: spec.label(code) for spec, code in zip(specs, combination.tolist(), strict=True)}


def _share_of(outcomes: NDArray[np.bool_] | None) -> float | None:
    return None if outcomes is None else float(outcomes.mean())


def _mean_of(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


def _share(n_right: Tensor, n_tokens: Tensor) -> float:
    return float(n_right.sum() / n_tokens.sum().clamp(1))


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


def _median(values: Tensor) -> float | None:
    return float(values.median()) if len(values) else None
