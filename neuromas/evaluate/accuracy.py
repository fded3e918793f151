"""Interchange intervention accuracy (IIA) by direction, with its controls, on held-out pairs.

If the target cannot be run and no oracle is given, there is no IIA. The held-out counterfactual-latent error, the retrieval of
values and the coverage then say how well the alignment does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuromas.align.alignment import Alignment, random_maps
from neuromas.align.pairs import Direction, PairSet, draw_pair_set
from neuromas.align.prepare import warnings_of
from neuromas.align.side import Side
from neuromas.errors import InvalidInput, NotFound
from neuromas.evaluate.divergence import (
    Ellipsoid,
    natural_ellipsoid,
)
from neuromas.evaluate.inference import split_half_reliability
from neuromas.evaluate.ruler import _decoding_part, _Ruler
from neuromas.files import sha256_bytes
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.evaluation import DirectionScore, Evaluation
from neuromas.systems.system import System

CONTROLS = ("none", "random", "wrong-variable", "cl-ceiling")
"""No interchange; a random rotation of the same rank; the components of another subspace than the one asked for, left out
where there is only one; a counterfactual latent itself put in place."""
_EVALUATION, _NATURAL = 4, 5  # streams of seeds
_N_NATURAL = 10_000  # held-out latents that size the ellipsoid


def evaluate(
    alignment: Alignment,
    sides: Sequence[Side],
    *,
    method: str = "alignment",
    oracles: Mapping[str, System] | None = None,
    directions: Iterable[tuple[str, str]] | None = None,
    controls: Sequence[str] = CONTROLS,
    ran: Collection[str] | None = None,
    n_pairs: int = 1000,
    part: Literal["train", "validation", "test"] = "test",
    stepwise: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Score an alignment, and controls on the same pairs, in every direction.

    Parameters
    ----------
    alignment : Alignment
    sides : sequence of Side
        As fitted.
    method : str
        How the alignment's rows are called.
    oracles : mapping of side name to System, optional
        Live copies of sides that are only read. Used here and nowhere else; the result says so.
    directions : iterable of (source, target), optional
        By default every ordered pair of sides that the alignment joins, itself included.
    controls : sequence of str
        Out of `CONTROLS`.
    ran : collection of str, optional
        Sides that the fit ran, for the column ``access``; by default all that can be run.
    n_pairs : int
        Held-out pairs per direction.
    part : str
        Which trials.
    stepwise : bool
        Interchange at every step up to the source's, as the fit did; distances are then those of the last one.
    seed : int

    Returns
    -------
    Evaluation

    Raises
    ------
    NotFound
        An oracle or direction for a side that does not exist, or a control that does not.
    """
    strange = [control for control in controls if control not in CONTROLS]
    if strange:
        raise NotFound(
            f"no control {', '.join(map(repr, strange))}; known controls: {', '.join(CONTROLS)}", kind="unknown_control"
        )
    by_name = {side.name: side for side in sides if side.name in alignment.maps}
    if not by_name:
        raise NotFound(
            f"the alignment joins {', '.join(alignment.maps)}; none of them is among the sides"
            f" ({', '.join(side.name for side in sides) or 'none'})",
            kind="unknown_system",
        )
    oracles = dict(oracles or {})
    wanted = list(directions) if directions is not None else [(s, t) for t in by_name for s in by_name]
    for name in (*oracles, *(name for pair in wanted for name in pair)):
        if name not in by_name:
            raise NotFound(f"the alignment joins {', '.join(by_name)}, not {name!r}", kind="unknown_system")
    needless = [name for name in oracles if by_name[name].system is not None]
    if needless:
        raise InvalidInput(
            f"{', '.join(needless)} can be run; an oracle is for what can only be read", kind="needless_oracle"
        )
    runnable = {name: side.with_system(oracles[name]) if name in oracles else side for name, side in by_name.items()}
    device = next(iter(by_name.values())).latents.device
    alignment = alignment.to(device)
    random = _random_alignment(alignment, by_name, seed) if "random" in controls else None

    scores: list[DirectionScore] = []
    ellipsoids = {name: _ellipsoid(by_name[name], seed) for name in dict.fromkeys(name for _, name in wanted)}
    ceilings = {name: _pattern_ceiling(by_name[name], part) for name in ellipsoids}
    for source_name, target_name in wanted:
        direction = Direction(by_name[source_name], runnable[target_name])
        stream = [seed, _EVALUATION, _stream(source_name, target_name)]
        pairs = draw_pair_set(direction, part, n_pairs, alignment.subspaces, stream, stepwise=stepwise)
        generator = torch.Generator(device=device).manual_seed(seed * 2**32 + _stream(source_name, target_name))
        by_fit = by_name[target_name].system is not None if ran is None else target_name in ran
        ruler = _Ruler(
            pairs,
            runnable[target_name],
            alignment.subspaces,
            ellipsoids[target_name],
            ceilings[target_name],
            generator,
            accessed=by_fit,
            by_oracle=target_name in oracles,
        )
        source, target = pairs.latents()
        for control in controls:
            if control == "none":
                scores += ruler.score(control, target, in_full=True)
            elif control == "cl-ceiling":
                if not stepwise:  # a latent of one step says nothing of those before it
                    scores += ruler.score(control, ruler.cl)
            elif control == "wrong-variable":
                if len(alignment.subspaces) > 1:
                    scores += ruler.score(control, _interchange(alignment, target, source, pairs, shift=1))
            elif random is not None:
                scores += ruler.score(control, _interchange(random, target, source, pairs))
        scores += ruler.score(method, _interchange(alignment, target, source, pairs), in_full=True)
    return Evaluation(
        part=part,
        n_pairs=n_pairs,
        seed=seed,
        oracles=tuple(sorted(oracles)),
        warnings=warnings_of(list(by_name.values())),
        tolerances={
            name: side.indexes[part].tolerance for name, side in by_name.items() if side.indexes[part].tolerance
        },
        controls=tuple(controls),
        scores=tuple(scores),
        provenance=Provenance(source=f"evaluation of {method}", seed=seed, created=now(), versions=versions()),
    )


def _stream(source: str, target: str) -> int:
    """A number that depends on the names alone, so that methods are compared on the same pairs."""
    return int(sha256_bytes(f"{source}->{target}".encode())[:8], 16)


def _interchange(alignment: Alignment, target: Tensor, source: Tensor, pairs: PairSet, shift: int = 0) -> Tensor:
    """Interchange each pair's subspace, or the one `shift` places after it."""
    h = torch.empty_like(target)
    subspace = torch.from_numpy(pairs.subspace).to(target.device)
    for number in range(len(alignment.subspaces)):
        rows = subspace == number
        h[rows] = alignment.interchange(
            target[rows],
            source[rows],
            target_system=pairs.direction.target.name,
            source_system=pairs.direction.source.name,
            subspace=alignment.subspaces[(number + shift) % len(alignment.subspaces)].name,
        )
    return h


def _ellipsoid(side: Side, seed: int) -> Ellipsoid:
    """Where latents of `side` lie that pairs may draw, whatever their values."""
    candidates = side.candidates["validation"]
    drawn = candidates.draw(_N_NATURAL, np.random.default_rng([seed, _NATURAL]))
    return natural_ellipsoid(side.indexes["train"].latents, side.take(candidates.samples[drawn]))


def _pattern_ceiling(side: Side, part: str) -> float | None:
    """What the true means of `side` would correlate with those that values are told by, which noise blurs."""
    pooled = side.recording.manifest.pseudo_population
    index = side.indexes[_decoding_part(part)]
    if index.tolerance or (pooled is not None and pooled.replace):
        return None  # values with one sample each; halves that share trials agree too well
    samples = index.samples.cpu().numpy()
    if len(samples) > _N_NATURAL:
        samples = np.sort(np.random.default_rng(0).choice(samples, _N_NATURAL, replace=False))
    values = torch.from_numpy(side.recording.values(list(side.variables))[samples])
    groups = index.lookup(values)[0].cpu().numpy()
    reliability = split_half_reliability(side.take(samples).cpu().numpy(), groups, side.recording.trial[samples])
    return None if reliability is None else max(0.0, reliability) ** 0.5


def _random_alignment(alignment: Alignment, sides: Mapping[str, Side], seed: int) -> Alignment:
    names = [name for name in alignment.maps if name in sides]
    made = random_maps(
        [sides[name].n_units for name in names], alignment.subspaces, "orthogonal", "gram-schmidt", seed + 1
    )
    device = next(iter(sides.values())).latents.device
    with torch.no_grad():
        maps = {name: one().detach() for name, one in zip(names, made, strict=True)}
    return Alignment(maps, alignment.subspaces, "orthogonal", alignment.replace).to(device)


COLUMNS = tuple(name for name in DirectionScore.model_fields if not name.startswith("by_"))
"""Columns of ``iia.csv``."""


def scores_table(scores: Sequence[DirectionScore]) -> str:
    """Scores as CSV text, one row per method, direction and subspace; empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for score in scores:
        row = score.model_dump(include=set(COLUMNS))
        writer.writerow(["" if row[name] is None else row[name] for name in COLUMNS])
    return text.getvalue()
