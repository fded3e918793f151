"""Where is a variable? A map of IIA over layers, steps, variables and ranks.

A closed form and a linear probe screen every layer and variable. Fits follow where the variable is present and the closed form
left something. Both are nested, so each gives every rank. All cells are tested together: the largest one of a map without effect
sets the level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromas.align.alignment import Alignment
from neuromas.align.interchange import LinearMap
from neuromas.align.prepare import side_names
from neuromas.align.side import Side
from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidInput
from neuromas.evaluation.shares import share_of
from neuromas.evaluation.validity import Setting, drawn, judged_probe, probed, scored, unchanged
from neuromas.fit.loop import Outcome, run_together
from neuromas.fit.objective import ladder
from neuromas.fit.prepare import Prepared, fit_sides, prepare
from neuromas.fit.start import start_maps
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.fit import FitConfig
from neuromas.schema.locate import Cell, Location
from neuromas.systems.system import System

_FLIPS = 2_000
_FLIPPED = 19  # stream of seeds
ENOUGH = 0.98
"""IIA of the closed form above which nothing is left to fit."""


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes
    ----------
    layers : sequence of str
    variables : sequence of str
        Names of subspaces, such as ``count`` or ``full``.
    ranks : sequence of int
    n_bins : int
        Ranges of steps.
    n_fits : int
        Layers and variables that are fitted at most.
    config : FitConfig
        Settings of these fits; its subspaces do not count.
    n_pairs, seed : int
    """

    layers: Sequence[str]
    variables: Sequence[str]
    ranks: Sequence[int]
    n_bins: int
    n_fits: int
    config: FitConfig
    n_pairs: int
    seed: int

    def of(self, variable: str, width: int) -> FitConfig:
        """Settings of the nested fit of one variable in a layer of `width` units."""
        rank = min(max(self.ranks), width)
        return self.config.model_copy(update={"subspaces": {variable: rank}, "nested": True, "init": "closed-form"})


@dataclass(frozen=True)
class _Scored:
    """One layer, variable and direction at every rank.

    Attributes
    ----------
    right : ndarray of bool, shape (n_ranks, n_pairs)
    none : ndarray of bool, shape (n_pairs,)
        The same pairs without an interchange.
    trials, steps : ndarray of int64, shape (n_pairs,)
        Of the targets.
    probe : float or None
        Accuracy of a linear probe of the target's held-out latents.
    present : bool
        Whether that is more than half of what it could gain over naming the commonest value.
    """

    layer: str
    variable: str
    source: str
    target: str
    ranks: tuple[int, ...]
    right: NDArray[np.bool_] = field(repr=False)
    none: NDArray[np.bool_] = field(repr=False)
    trials: NDArray[np.int64] = field(repr=False)
    steps: NDArray[np.int64] = field(repr=False)
    probe: float | None
    present: bool


def locate(
    systems: Sequence[System],
    search: Search,
    *,
    model: CausalModel | None = None,
    device: str = "cpu",
    report: Callable[[str], object] | None = None,
) -> Location:
    """Map the IIA of one system with itself, or of two with each other.

    Parameters
    ----------
    systems : sequence of System
        One or two. Two are read at layers of the same name.
    search : Search
    model : CausalModel, optional
        By default that of each system's task.
    device : str
    report : callable, optional
        Called with what is done next, in words.

    Returns
    -------
    Location

    Raises
    ------
    InvalidInput
        Another number of systems; or as in a fit.
    NotFound
        A layer or variable does not exist.
    """
    if len(systems) not in (1, 2):
        raise InvalidInput(f"locate expects 1 or 2 systems, got {len(systems)}", kind="wrong_systems")
    tell = report or (lambda _: None)
    ready: dict[tuple[str, str], Prepared] = {}
    screened: dict[tuple[str, str], list[_Scored]] = {}
    for layer in search.layers:
        tell(f"closed form in layer {layer}")
        here = [system.at(layer) for system in systems]
        sides = fit_sides(search.config, here, model=model, device=device)
        width = min(side.n_units for side in sides)
        for variable in search.variables:
            prepared = prepare(search.of(variable, width), here, sides)
            maps = {name: module().detach() for name, module in start_maps(prepared).items()}
            ready[layer, variable] = prepared
            screened[layer, variable] = _scores(layer, variable, prepared, maps, search)
    chosen = _worth_a_fit(screened, search.n_fits)
    if chosen:
        tell(f"{len(chosen)} fits")
    fitted = _fitted([ready[key] for key in chosen], device)
    results = dict(screened)
    for key, maps in zip(chosen, fitted, strict=True):
        results[key] = _scores(*key, ready[key], maps, search)
    return Location(
        systems=tuple(side_names(list(systems))),
        layers=tuple(search.layers),
        variables=tuple(search.variables),
        ranks=tuple(search.ranks),
        n_pairs=search.n_pairs,
        n_fits=len(chosen),
        seed=search.seed,
        cells=tuple(_cells(results, set(chosen), search)),
        provenance=Provenance(
            source=f"search in {', '.join(system.name for system in systems)}",
            seed=search.seed,
            created=now(),
            versions=versions(),
        ),
    )


def default_ranks(width: int) -> tuple[int, ...]:
    """1, 2, 4, … up to 16, or to the width of the narrowest layer."""
    return tuple(ladder(min(16, width)))


def _scores(layer: str, variable: str, ready: Prepared, maps: dict[str, LinearMap], search: Search) -> list[_Scored]:
    """The alignment of `maps` at every rank, in each direction between two systems, or of one with itself."""
    sides: dict[str, Side] = {side.name: side for side in ready.sides}
    names = list(sides)
    directions = [(a, b) for a in names for b in names if a != b] or [(names[0], names[0])]
    alignment = Alignment(maps, ready.plan.subspaces, ready.plan.config.map)
    (subspace,) = alignment.subspaces
    ranks = tuple(rank for rank in search.ranks if rank <= subspace.rank)
    setting = Setting("test", search.n_pairs, search.seed)
    results = []
    for source, target in directions:
        pairs = drawn(sides[source], sides[target], subspace, setting)
        smaller = [alignment.at_rank(rank) for rank in ranks]
        right = np.stack([scored(each, pairs, each.subspaces[0]).right for each in smaller])
        side = sides[target]
        at = side.recording.trial[pairs.target], side.recording.step[pairs.target]
        names = [side.variables[column] for column in side.columns(subspace.variables)]
        read = probed(side, names, "test")
        seen = (None, False) if read is None else (read[0].value, judged_probe(*read))
        results.append(_Scored(layer, variable, source, target, ranks, right, unchanged(pairs).right, *at, *seen))
    return results


def _worth_a_fit(screened: dict[tuple[str, str], list[_Scored]], n_fits: int) -> list[tuple[str, str]]:
    """Layers and variables that a probe reads and that the closed form does not reach, those with most to gain first."""
    missing = {}
    for key, directions in screened.items():
        reached = min(float(each.right.mean(axis=1).max()) for each in directions)
        if reached < ENOUGH and all(each.present for each in directions):
            missing[key] = min(each.probe or 0.0 for each in directions) - reached
    return sorted(missing, key=lambda key: -missing[key])[:n_fits]


def _fitted(ready: Sequence[Prepared], device: str) -> list[dict[str, LinearMap]]:
    """Maps of several fits that run together."""
    maps: dict[int, dict[str, LinearMap]] = {}

    def ended(number: int, outcome: Outcome) -> None:
        maps[number] = dict(outcome[0])

    if ready:
        starts = [{name: module.to(device) for name, module in start_maps(each).items()} for each in ready]
        run_together([each.plan for each in ready], starts, ended)
    return [maps[number] for number in range(len(ready))]


def _cells(results: dict[tuple[str, str], list[_Scored]], fitted: set[tuple[str, str]], search: Search) -> list[Cell]:
    every = [each for directions in results.values() for each in directions]
    edges = _edges(np.concatenate([each.steps for each in every]), search.n_bins)
    rows: list[tuple[_Scored, int, int, int, NDArray[np.bool_]]] = []
    for each in every:
        for first, last in edges:
            members = (each.steps >= first) & (each.steps <= last)
            if members.sum() >= 2:
                rows += [(each, place, first, last, members) for place in range(len(each.ranks))]
    p = _corrected([_gains(each, place, members) for each, place, _, _, members in rows], search.seed)
    return [
        Cell(
            layer=each.layer,
            variable=each.variable,
            rank=each.ranks[place],
            first_step=first,
            last_step=last,
            source=each.source,
            target=each.target,
            iia=share_of(each.right[place][members], each.trials[members]),
            none=float(each.none[members].mean()),
            probe=each.probe,
            by=_by(each, fitted),
            p=float(value),
        )
        for (each, place, first, last, members), value in zip(rows, p, strict=True)
    ]


def _by(each: _Scored, fitted: set[tuple[str, str]]) -> Literal["closed-form", "fit"]:
    return "fit" if (each.layer, each.variable) in fitted else "closed-form"


def _edges(steps: NDArray[np.int64], n_bins: int) -> list[tuple[int, int]]:
    """Ranges of steps with about equal numbers of pairs, first and last step included."""
    borders = np.unique(np.quantile(steps, np.linspace(0, 1, n_bins + 1), method="lower").astype(int))
    starts = borders[:-1] if len(borders) > 1 else borders
    ends = [*(starts[1:] - 1).tolist(), int(steps.max())]
    return list(zip(starts.tolist(), ends, strict=True))


def _gains(each: _Scored, place: int, members: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Trials, and what the interchange gains over none in each of their pairs."""
    gain = each.right[place][members].astype(float) - each.none[members]
    return each.trials[members], gain


def _corrected(gains: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], seed: int) -> NDArray[np.float64]:
    """One-sided p of each cell, corrected for all by the largest standardised gain; trials change signs as a whole.

    If an interchange did nothing, it would be right as often where none is wrong as the other way round.
    """
    known = np.unique(np.concatenate([trials for trials, _ in gains]))
    sums = np.zeros((len(gains), len(known)))
    for row, (trials, gain) in zip(sums, gains, strict=True):
        np.add.at(row, np.searchsorted(known, trials), gain)
    spread = np.sqrt((sums**2).sum(axis=1))
    standard = sums / np.where(spread > 0, spread, 1)[:, None]
    signs = np.random.default_rng([seed, _FLIPPED]).integers(2, size=(_FLIPS, len(known))) * 2 - 1
    largest = (signs @ standard.T).max(axis=1)
    p: NDArray[np.float64] = (1 + (largest[None, :] >= standard.sum(axis=1)[:, None] - 1e-9).sum(axis=1)) / (1 + _FLIPS)
    return p
