"""Interchange intervention accuracy by direction, with its controls, on held-out pairs.

Where the target cannot be run and there is no oracle there is no IIA: then the held-out counterfactual-latent error, the
retrieval of values and the coverage say what can be said.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuromas.align.alignment import Alignment, random_maps
from neuromas.align.side import Direction, PairSet, Side, draw_pair_set
from neuromas.errors import InvalidInput, NotFound
from neuromas.evaluate.divergence import cl_distance, nearest_values
from neuromas.evaluate.inference import bootstrap_interval
from neuromas.files import sha256_bytes
from neuromas.schema import DirectionScore, Evaluation, Provenance, ValueScore
from neuromas.systems.system import Packed, System, all_right
from neuromas.systems.training import now, versions

CONTROLS = ("none", "random", "cl-ceiling")
"""No interchange; a random rotation of the same rank; a counterfactual latent itself put in place."""
_CHUNK = 2000  # pairs run at once
_EVALUATION = 4  # stream of seeds


@dataclass(frozen=True)
class Behaviour:
    """What a target did after interventions.

    Attributes
    ----------
    right : Tensor of bool, shape (n_pairs,)
        Whether every deterministic token was the argmax.
    n_right, n_tokens : int
        Deterministic tokens, right and all.
    """

    right: Tensor = field(repr=False)
    n_right: int
    n_tokens: int


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
    rights, n_right, n_tokens = [], 0, 0
    for start in range(0, len(pairs), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(pairs)))
        packed = Packed.from_continuation(pairs.continuation, rows, intervened.device)
        lengths = None if pairs.lengths is None else pairs.lengths[rows]
        logits = target.resume(intervened[start : start + _CHUNK], packed, pairs.target[rows], lengths)
        rights.append(all_right(logits, packed, len(rows)))
        scored = packed.deterministic
        n_right += int(((logits.argmax(dim=-1) == packed.tokens) & scored).sum())
        n_tokens += int(scored.sum())
    return Behaviour(torch.cat(rights), n_right, n_tokens)


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

    scores = []
    for source_name, target_name in wanted:
        direction = Direction(by_name[source_name], runnable[target_name])
        stream = [seed, _EVALUATION, _stream(source_name, target_name)]
        pairs = draw_pair_set(direction, part, n_pairs, alignment.subspaces, stream, stepwise=stepwise)
        generator = torch.Generator(device=device).manual_seed(seed * 2**32 + _stream(source_name, target_name))
        by_fit = by_name[target_name].system is not None if ran is None else target_name in ran
        ruler = _Ruler(pairs, runnable[target_name], generator, accessed=by_fit)
        source, target = pairs.latents()
        for control in controls:
            if control == "none":
                scores.append(ruler.score(control, target, target_name in oracles))
            elif control == "cl-ceiling":
                if not stepwise:  # a latent of one step says nothing of those before it
                    scores.append(ruler.score(control, ruler.cl, target_name in oracles))
            elif random is not None:
                h = _interchange(random, target, source, pairs)
                scores.append(ruler.score(control, h, target_name in oracles))
        scores.append(ruler.score(method, _interchange(alignment, target, source, pairs), target_name in oracles))
    return Evaluation(
        part=part,
        n_pairs=n_pairs,
        seed=seed,
        oracles=tuple(sorted(oracles)),
        scores=tuple(scores),
        provenance=Provenance(source=f"evaluation of {method}", seed=seed, created=now(), versions=versions()),
    )


def _stream(source: str, target: str) -> int:
    """A number that depends on the names alone, so that methods are compared on the same pairs."""
    return int(sha256_bytes(f"{source}->{target}".encode())[:8], 16)


def _interchange(alignment: Alignment, target: Tensor, source: Tensor, pairs: PairSet) -> Tensor:
    h = torch.empty_like(target)
    subspace = torch.from_numpy(pairs.subspace).to(target.device)
    for number, one in enumerate(alignment.subspaces):
        rows = subspace == number
        h[rows] = alignment.interchange(
            target[rows],
            source[rows],
            target_system=pairs.direction.target.name,
            source_system=pairs.direction.source.name,
            subspace=one.name,
        )
    return h


def _random_alignment(alignment: Alignment, sides: Mapping[str, Side], seed: int) -> Alignment:
    names = [name for name in alignment.maps if name in sides]
    made = random_maps(
        [sides[name].n_units for name in names], alignment.subspaces, "orthogonal", "gram-schmidt", seed + 1
    )
    device = next(iter(sides.values())).latents.device
    with torch.no_grad():
        maps = {name: one().detach() for name, one in zip(names, made, strict=True)}
    return Alignment(maps, alignment.subspaces, "orthogonal", alignment.replace).to(device)


class _Ruler:
    """Measures intervened latents of one direction: behaviour where the target runs, distances always."""

    def __init__(self, pairs: PairSet, target: Side, generator: torch.Generator, *, accessed: bool) -> None:
        index = target.indexes[pairs.part]
        values = torch.from_numpy(pairs.values)
        draw, again = index.sample(values, generator), index.sample(values, generator)
        self.pairs, self.target, self.hit, self.accessed = pairs, target, draw.hit, accessed
        # without a match nothing stands in for the latent: such rows count as wrong, and in no distance
        self.cl = torch.where(draw.hit[:, None], draw.latents, 0.0)
        self.means = target.indexes["train"].means()
        self.combination, known = target.indexes["train"].lookup(values)
        self.decodable = self.hit & (known > 0)
        differ = self.hit & (again.samples != draw.samples)  # a latent is at no distance from itself
        self.spread = _mean(cl_distance(again.latents[differ], draw.latents[differ]))
        self.ceiling = self._retrieval(self.cl)

    def _retrieval(self, latents: Tensor) -> float | None:
        if not bool(self.decodable.any()):
            return None
        found = nearest_values(latents[self.decodable], self.means.latents)
        return float((found == self.combination[self.decodable]).double().mean())

    def score(self, method: str, intervened: Tensor, by_oracle: bool) -> DirectionScore:
        done: Behaviour | None = None
        right: Tensor | None = None
        if self.target.system is not None:
            done = behaviour(intervened, self.pairs, self.target)
            right = done.right & self.hit if method == "cl-ceiling" else done.right
        if self.pairs.lengths is not None:
            last = torch.from_numpy(self.pairs.lengths - 1).to(intervened.device)
            intervened = intervened[torch.arange(len(last), device=last.device), last]
        low, high = (None, None) if right is None else bootstrap_interval(right.cpu().numpy())
        return DirectionScore(
            method=method,
            source=self.pairs.direction.source.name,
            target=self.target.name,
            access="yes" if self.accessed else "no",
            oracle=by_oracle,
            iia=None if right is None else float(right.double().mean()),
            low=low,
            high=high,
            token_accuracy=None if done is None else done.n_right / max(done.n_tokens, 1),
            n_pairs=len(self.pairs),
            n_missed=int((~self.hit).sum()),
            coverage=float(self.hit.double().mean()),
            cl_loss=None if method == "cl-ceiling" else _mean(cl_distance(intervened[self.hit], self.cl[self.hit])),
            cl_spread=self.spread,
            retrieval=self._retrieval(intervened),
            retrieval_ceiling=self.ceiling,
            by_value=self._by_value(right),
        )

    def _by_value(self, right: Tensor | None) -> tuple[ValueScore, ...]:
        specs = [self.target.recording.manifest.variable(name) for name in self.target.variables]
        combinations, which = np.unique(self.pairs.values, axis=0, return_inverse=True)
        hit = self.hit.cpu().numpy()
        ok = None if right is None else right.cpu().numpy()
        rows = []
        for number, combination in enumerate(combinations):
            mine = which.reshape(-1) == number
            rows.append(
                ValueScore(
                    values={
                        spec.name: spec.label(code) for spec, code in zip(specs, combination.tolist(), strict=True)
                    },
                    n_pairs=int(mine.sum()),
                    n_missed=int((~hit[mine]).sum()),
                    iia=None if ok is None else float(ok[mine].mean()),
                )
            )
        return tuple(rows)


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None


COLUMNS = tuple(name for name in DirectionScore.model_fields if name != "by_value")
"""Columns of ``iia.csv``."""


def scores_table(scores: Sequence[DirectionScore]) -> str:
    """Scores as CSV text, one row per method and direction; empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for score in scores:
        row = score.model_dump(include=set(COLUMNS))
        writer.writerow(["" if row[name] is None else row[name] for name in COLUMNS])
    return text.getvalue()
