"""What the controls of an alignment measure, and the rules by which they are judged.

Behaviour is measured where the target can be run, and retrieval of values where it can only be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.alignment import Alignment, Subspace
from neuromas.align.pairs import Direction, PairSet, draw_pair_set
from neuromas.align.side import Side
from neuromas.evaluation.divergence import natural_ellipsoid, nearest_values
from neuromas.evaluation.probe import Probe
from neuromas.evaluation.ruler import behaviour
from neuromas.evaluation.shares import share_of
from neuromas.index.choose import near
from neuromas.schema.validity import Outcome, Share

_PAIRS, _MATCHED = 11, 13  # streams of seeds
_N_PROBED = 10_000
"""Training samples of a probe, and held-out samples that it is scored on, at most."""
_MOST_VALUES = 60
"""Values of a variable that a probe tells apart at most."""
_FEWEST = 20
"""Matched pairs from which anything can be told."""
KEPT = 0.9
"""Share of pairs that must keep what the interchange should leave alone."""
LOST = 0.05
"""What trials that are not in the recording may cost."""
READABLE = 0.7
"""Share of latents from which a variable must be read right before it can be said whether an interchange changes it."""


@dataclass(frozen=True)
class Setting:
    """What all measurements of a validation share: part, number of pairs, seed, and whether interchanges are stepwise."""

    part: Literal["train", "validation", "test"] = "test"
    n_pairs: int = 500
    seed: int = 0
    stepwise: bool = False

    def generator(self, *stream: int) -> np.random.Generator:
        """Random numbers of one measurement."""
        return np.random.default_rng([self.seed, *stream])


@dataclass(frozen=True)
class Measured:
    """An alignment in one direction, and the same pairs without any interchange.

    Attributes
    ----------
    measure : {"iia", "retrieval"}
    claim, none : Share
    outside, outside_natural : Share
        Shares of intervened and of the target's own latents outside the region that holds 99 % of natural latents.
    """

    measure: Literal["iia", "retrieval"]
    claim: Share
    none: Share
    outside: Share | None
    outside_natural: Share | None


def measured(alignment: Alignment, source: Side, target: Side, subspace: Subspace, setting: Setting) -> Measured | None:
    """Score the interchange of one subspace; None if none of its expected values were recorded in a target that is only read."""
    pairs = drawn(source, target, subspace, setting)
    before = pairs.latents()[1]
    after = _interchanged(alignment, pairs, subspace)
    trials = target.recording.trial[pairs.target]
    outside = None if setting.stepwise else _outside(target, after, before, trials)
    claim, none = _scored(pairs, after), _scored(pairs, before)
    known = claim.known
    if not known.any():
        return None
    shares = (share_of(each.right[known], trials[known]) for each in (claim, none))
    return Measured(claim.measure, *shares, *(outside or (None, None)))


@dataclass(frozen=True)
class Scored:
    """Which pairs came out right.

    Attributes
    ----------
    measure : {"iia", "retrieval"}
    right : ndarray of bool, shape (n_pairs,)
    known : ndarray of bool, shape (n_pairs,)
        Pairs that can be judged: all by behaviour, and by retrieval those whose values were recorded.
    """

    measure: Literal["iia", "retrieval"]
    right: NDArray[np.bool_]
    known: NDArray[np.bool_]


def drawn(source: Side, target: Side, subspace: Subspace, setting: Setting) -> PairSet:
    """Pairs of one direction and subspace; equal settings give equal pairs."""
    direction, seed = Direction(source, target), [setting.seed, _PAIRS]
    return draw_pair_set(direction, setting.part, setting.n_pairs, [subspace], seed, stepwise=setting.stepwise)


def scored(alignment: Alignment, pairs: PairSet, subspace: Subspace) -> Scored:
    """Interchange a subspace, and compare with what should follow."""
    return _scored(pairs, _interchanged(alignment, pairs, subspace))


def unchanged(pairs: PairSet) -> Scored:
    """The same pairs without any interchange."""
    return _scored(pairs, pairs.latents()[1])


def _scored(pairs: PairSet, latents: Tensor) -> Scored:
    target = pairs.direction.target
    if target.system is not None and pairs.continuation is not None:
        right = behaviour(latents, pairs, target).right.cpu().numpy()
        return Scored("iia", right, np.ones(len(right), dtype=bool))
    return Scored("retrieval", *_retrieved(target, latents, pairs.values, pairs.part))


def _interchanged(alignment: Alignment, pairs: PairSet, subspace: Subspace) -> Tensor:
    source, target = pairs.latents()
    return alignment.interchange(
        target,
        source,
        target_system=pairs.direction.target.name,
        source_system=pairs.direction.source.name,
        subspace=subspace.name,
    )


def _retrieved(
    target: Side, latents: Tensor, expected: NDArray[np.float64], part: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the nearest mean latent of another part holds the expected values; and whether they have a mean latent there."""
    index = target.indexes["validation" if part == "test" else "test"]
    means = index.means()
    values = means.values.cpu()[nearest_values(latents, means.latents).cpu()].numpy()
    widths = np.array([index.tolerance.get(name, 0.0) for name in target.variables])
    known = index.lookup(torch.from_numpy(expected))[1].cpu().numpy() > 0
    return near(values, expected, widths), known


def _outside(target: Side, after: Tensor, before: Tensor, trials: NDArray[np.int64]) -> tuple[Share, Share]:
    ellipsoid = natural_ellipsoid(target.indexes["train"].latents, target.indexes["validation"].latents)
    shares = [ellipsoid.distance(latents).cpu().numpy() > ellipsoid.radius for latents in (after, before)]
    return share_of(shares[0], trials), share_of(shares[1], trials)


# ------------------------------------------------------------------------------------- what an interchange should leave alone


@dataclass(frozen=True)
class Kept:
    """What an interchange between latents with equal mapped values does to another variable.

    Attributes
    ----------
    kept : Share
        Pairs that keep the target's value, or its behaviour.
    moved : float
        Share of pairs that got the source's value.
    before : float
        Share of pairs from which the target's value could be read before the interchange.
    """

    kept: Share
    moved: float
    before: float


def kept_value(
    alignment: Alignment,
    direction: Direction,
    subspace: Subspace,
    columns: tuple[NDArray[np.float64], NDArray[np.float64]],
    setting: Setting,
) -> Kept | str:
    """Whether the interchange leaves a variable alone, by what a probe reads before and after it.

    Sources and targets hold equal values of the subspace's variables, and different values of the other variable. So nothing
    that the interchange should move differs between them.

    Parameters
    ----------
    alignment : Alignment
    direction : Direction
    subspace : Subspace
    columns : (ndarray, ndarray) of float64, shape (n_samples of the source,), (n_samples of the target,)
        The other variable in the two recordings.
    setting : Setting

    Returns
    -------
    Kept or str
        Or why it cannot be told.
    """
    target = direction.target
    pairs = _matched(direction, subspace, columns, setting)
    if len(pairs) < _FEWEST:
        return "it follows from the variables that are interchanged"
    probe = _probe(target, columns[1])
    if probe is None:
        return "it has one value, or too many"
    own, others = columns[1][pairs.target], columns[0][pairs.source]
    readable = probe.read(_numpy(pairs.latents()[1])) == own
    if readable.mean() < READABLE:
        return f"a probe reads it right from {readable.mean():.0%} of latents only".replace("%", " %")
    read = probe.read(_numpy(_interchanged(alignment, pairs, subspace)))[readable]
    trials = target.recording.trial[pairs.target][readable]
    moved = float((read == others[readable]).mean())
    return Kept(share_of(read == own[readable], trials), moved, float(readable.mean()))


def kept_behaviour(alignment: Alignment, direction: Direction, subspace: Subspace, setting: Setting) -> Kept | str:
    """Whether a target goes on as it would have, after an interchange with a source that holds equal mapped values."""
    source, target = direction.source, direction.target
    assert target.model is not None
    others = [name for name in target.variables if name not in _mapped(target, subspace)]
    shared = [name for name in others if name in source.variables]
    if not shared:
        return "no other variable is shared"
    columns = tuple(_combined(side, shared) for side in (source, target))
    # equal numbers stand for equal combinations only if both sides number them alike
    pairs = _matched(direction, subspace, _numbered(*columns), setting, behaviour=True)
    if len(pairs) < _FEWEST:
        return "they follow from the variables that are interchanged"
    before = behaviour(pairs.latents()[1], pairs, target).right.cpu().numpy()
    if before.mean() < READABLE:
        return f"the target goes on right from {before.mean():.0%} of its own latents only".replace("%", " %")
    after = behaviour(_interchanged(alignment, pairs, subspace), pairs, target).right.cpu().numpy()
    trials = target.recording.trial[pairs.target]
    return Kept(share_of(after[before], trials[before]), float(1 - after[before].mean()), float(before.mean()))


def _mapped(side: Side, subspace: Subspace) -> list[str]:
    """The subspace's variables by the side's own names."""
    return [side.variables[column] for column in side.columns(subspace.variables)]


def _combined(side: Side, names: list[str]) -> NDArray[np.float64]:
    return side.recording.values(names)


def _numbered(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of two tables as numbers, equal rows as equal numbers."""
    _, numbers = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    return numbers[: len(first)].astype(np.float64), numbers[len(first) :].astype(np.float64)


def _matched(
    direction: Direction,
    subspace: Subspace,
    columns: tuple[NDArray[np.float64], NDArray[np.float64]],
    setting: Setting,
    *,
    behaviour: bool = False,
) -> PairSet:
    """Pairs with equal values of the subspace's variables and different values of another."""
    source, target = direction.source, direction.target
    generator = setting.generator(_MATCHED)
    donors, receivers = source.candidates[setting.part], target.candidates[setting.part]
    other, own = columns[0][donors.samples], columns[1][receivers.samples]
    # values of the subspace, then the other variable
    table = np.column_stack([donors.values[:, source.columns(subspace.variables)], other])
    received = np.column_stack([receivers.values[:, target.columns(subspace.variables)], own])
    groups: dict[bytes, list[int]] = {}
    for number, row in enumerate(table[:, :-1] + 0.0):
        groups.setdefault(row.tobytes(), []).append(number)
    chosen: list[tuple[int, int]] = []
    for place in receivers.draw(2 * setting.n_pairs, generator).tolist():
        pool = np.array(groups.get((received[place, :-1] + 0.0).tobytes(), ()), dtype=np.int64)
        pool = pool[(other[pool] != own[place]) & np.isfinite(other[pool])]
        if len(pool) and np.isfinite(own[place]):
            chosen.append((int(pool[generator.integers(len(pool))]), place))
        if len(chosen) == setting.n_pairs:
            break
    sources, targets = np.array(chosen, dtype=np.int64).reshape(-1, 2).T
    values = receivers.values[targets]
    continuation = None
    if behaviour and target.model is not None and len(values):
        continuation = target.model.counterfactual(values.astype(np.int64), generator)
    nothing = np.zeros(len(targets), dtype=np.int64)
    return PairSet(
        direction,
        setting.part,
        donors.samples[sources],
        receivers.samples[targets],
        values,
        continuation,
        nothing,
        resampled=0,
    )


# ------------------------------------------------------------------------------------------------------------------- probes


def probed(side: Side, variables: list[str], part: str) -> tuple[Share, float] | None:
    """How well a linear probe reads variables, all of them at once, from held-out latents.

    Returns
    -------
    (Share, float) or None
        Accuracy in `part`, of a probe trained on the training part (in the training part itself: on the test part), and the
        accuracy of always naming the commonest value. None if there is one value, or too many to tell apart.
    """
    values = side.recording.values(variables)
    numbers = _numbered(values, values)[0]
    train, held_out = ("test" if part == "train" else "train"), side.candidates[part].samples
    probe = _probe(side, numbers, train)
    if probe is None:
        return None
    generator = np.random.default_rng(0)
    if len(held_out) > _N_PROBED:
        held_out = generator.choice(held_out, _N_PROBED, replace=False)
    right = probe.read(_numpy(side.take(held_out))) == numbers[held_out]
    commonest = float(np.unique(numbers[held_out], return_counts=True)[1].max() / len(held_out))
    return share_of(right, side.recording.trial[held_out]), commonest


def _probe(side: Side, numbers: NDArray[np.float64], part: str = "train") -> Probe | None:
    samples = side.candidates[part].samples
    samples = samples[np.isfinite(numbers[samples])]
    if len(samples) > _N_PROBED:
        samples = np.random.default_rng(0).choice(samples, _N_PROBED, replace=False)
    n_values = len(np.unique(numbers[samples]))
    return Probe.fit(_numpy(side.take(samples)), numbers[samples]) if 2 <= n_values <= _MOST_VALUES else None


def _numpy(latents: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = latents.float().cpu().numpy()
    return array


# -------------------------------------------------------------------------------------------------------------------- rules


def judged_interchange(result: Measured) -> Outcome:
    """passed: the interchange does more than half of what it should, beyond what happens without any.

    Examples
    --------
    >>> shares = [Share(value=x, low=x - 0.02, high=x + 0.02, n=500) for x in (0.95, 0.05)]
    >>> judged_interchange(Measured("iia", *shares, None, None))
    'passed'
    """
    half = (result.none.value + 1) / 2
    if result.claim.low > max(half, result.none.high):
        return "passed"
    return "failed" if result.claim.high < half or result.claim.value <= result.none.high else "undecided"


def judged_control(claim: Measured, control: Share) -> Outcome:
    """passed: the control stays below the middle between the alignment and no interchange."""
    middle = (claim.claim.value + claim.none.value) / 2
    if control.high < middle:
        return "passed"
    return "failed" if control.low > middle or control.value > claim.claim.value else "undecided"


def judged_fresh(claim: Share, fresh: Share) -> Outcome:
    """passed: new trials cost no more than `LOST`, and their interval reaches that of the alignment."""
    lowest = claim.value - LOST
    if fresh.value >= lowest:
        return "passed"
    return "failed" if fresh.high < lowest else "undecided"


def judged_kept(kept: Share) -> Outcome:
    """passed: at least `KEPT` of the pairs keep what they should."""
    if kept.value >= KEPT:
        return "passed"
    return "failed" if kept.high < KEPT else "undecided"


def judged_probe(accuracy: Share, commonest: float) -> bool:
    """Whether a variable is present: the probe does more than half of what it could beyond naming the commonest value."""
    return accuracy.low > (commonest + 1) / 2
