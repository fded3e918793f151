"""Interchange intervention accuracy (IIA) by direction, with its controls, on held-out pairs.

If the target cannot be run and no oracle is passed, there is no IIA. The held-out counterfactual-latent error, the retrieval
of values and the coverage then say how well the alignment does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas import seeds
from neuromas.align.alignment import Alignment, random_maps
from neuromas.align.pairs import Direction, PairSet, draw_pair_set
from neuromas.align.prepare import warnings_of
from neuromas.align.side import PARTS, Side
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.evaluation.repeats import repeated_share
from neuromas.evaluation.ruler import Facts, NaturalLatents, Ruler, trials_of
from neuromas.files import sha256_bytes
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.evaluation import SCORE_COLUMNS, DirectionScore, Evaluation, PairTrials
from neuromas.systems.competence import N_CHECKED, remark, trial_accuracy
from neuromas.systems.system import System
from neuromas.text import cell
from neuromas.twins.twin import JUDGE

CONTROLS = ("none", "random", "wrong-variable", "cl-ceiling")
"""No interchange; random rotations of the same rank, over which scores are means; the components of another subspace than the
pair's, left out if there is only one subspace; a recorded counterfactual latent in place of the intervened one."""
_EVALUATION, _ROTATIONS = 4, 6  # streams of seeds
N_ROTATIONS = 10
"""Rotations of the control ``random``."""


def evaluate(
    alignment: Alignment,
    sides: Sequence[Side],
    *,
    method: str = "alignment",
    oracles: Mapping[str, System] | None = None,
    directions: Iterable[tuple[str, str]] | None = None,
    controls: Sequence[str] = CONTROLS,
    ran: Collection[str] | None = None,
    trained: Collection[str] | None = None,
    threads: int | None = None,
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
        The sides of the fit.
    method : str
        Name of the alignment in the rows of the result.
    oracles : mapping of side name to System, optional
        Live copies of sides that are only read. Nothing but this evaluation runs them, and the result names them.
    directions : iterable of (source, target), optional
        By default every ordered pair of sides that the alignment joins, each side with itself included.
    controls : sequence of {"none", "random", "wrong-variable", "cl-ceiling"}
        See `CONTROLS`.
    ran : collection of str, optional
        Sides that the fit ran, for the column ``ran``; by default all that can be run.
    trained : collection of str, optional
        Directions that the fit was trained in, such as ``"gru-0->gru-1"``, for the column ``trained``.
    threads : int, optional
        Threads that the fit computed with, for the column ``threads``.
    n_pairs : int
        Held-out pairs per direction.
    part : {"train", "validation", "test"}
        The part whose trials form the pairs.
    stepwise : bool
        Interchange at every step up to the source's, as the fit did. Distances are then those of the last step.
    seed : int
        Equal seeds give equal pairs, whatever the alignment.

    Returns
    -------
    Evaluation

    Raises
    ------
    NotFound
        `oracles` or `directions` name a side that the alignment does not join, or `controls` a control that does not exist.
    InvalidInput
        An oracle for a side that can be run, or that is not the system that was recorded; a side without a causal model
        that is to be run.
    """
    _check_options(n_pairs, part, oracles, seed)
    controls = (controls,) if isinstance(controls, str) else controls
    _check_controls(controls)
    joined = _joined_sides(alignment, sides)
    oracles = dict(oracles or {})
    chosen = (
        list(directions) if directions is not None else [(source, target) for target in joined for source in joined]
    )
    _check_names([*oracles, *(name for direction in chosen for name in direction)], joined)
    runnable = _with_oracles(joined, oracles)
    device = next(iter(joined.values())).latents.device
    alignment = alignment.to(device)
    scorer = _Scorer(
        alignment,
        tuple(rotation.to(device) for rotation in _random_alignments(alignment, joined, seed))
        if "random" in controls
        else (),
        joined,
        runnable,
        {target: NaturalLatents.of(joined[target], part, seed) for target in dict.fromkeys(t for _, t in chosen)},
        {name: repeated_share(joined[name], part) for name in dict.fromkeys(name for pair in chosen for name in pair)},
        method=method,
        controls=controls,
        ran=frozenset(name for name, side in joined.items() if side.system is not None) if ran is None else ran,
        trained=trained,
        threads=threads,
        n_pairs=n_pairs,
        part=part,
        stepwise=stepwise,
        seed=seed,
    )
    scored = [scorer.scores(source, target) for source, target in chosen]
    return Evaluation(
        part=part,
        n_pairs=n_pairs,
        seed=seed,
        oracles=tuple(sorted(oracles)),
        oracle_weights={
            name: digest
            for name, oracle in sorted(oracles.items())
            if (digest := oracle.config.weights_sha256) is not None
        },
        warnings=(
            *warnings_of(list(joined.values())),
            *_failing(runnable, oracles),
            *_without_estimate(joined.values()),
        ),
        twins={name: side.twin.card.quality_of(JUDGE) for name, side in joined.items() if side.twin is not None},
        tolerances={
            name: side.indexes[part].tolerance for name, side in joined.items() if side.indexes[part].tolerance
        },
        controls=tuple(controls),
        scores=tuple(score for scores, _ in scored for score in scores),
        pairs=tuple(trials for _, trials in scored),
        threads=torch.get_num_threads(),
        provenance=Provenance(source=f"evaluation of {method}", seed=seed, created=now(), versions=versions()),
    )


def scores_table(scores: Sequence[DirectionScore]) -> str:
    """Scores as CSV text, a row per method, direction and subspace; cells are empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(SCORE_COLUMNS)
    for score in scores:
        row = score.model_dump(include=set(SCORE_COLUMNS))
        writer.writerow(["" if row[name] is None else cell(row[name]) for name in SCORE_COLUMNS])
    return text.getvalue()


def _check_options(n_pairs: int, part: str, oracles: Mapping[str, System] | None, seed: int) -> None:
    seeds.checked(seed, "evaluation: seed")
    for name, value, expected, right in (
        ("n_pairs", n_pairs, "a whole number of at least 1", isinstance(n_pairs, (int, np.integer)) and n_pairs >= 1),
        ("part", part, f"one of {', '.join(PARTS)}", part in PARTS),
        ("oracles", oracles, "systems by name", oracles is None or isinstance(oracles, Mapping)),
    ):
        if not right:
            raise InvalidInput(f"evaluation: {name}: expected {expected}, got {value!r}", kind="invalid_option")
    for name, oracle in (oracles or {}).items():
        if not isinstance(oracle, System):
            raise InvalidInput(f"evaluation: oracle {name!r}: expected a System, got {oracle!r}", kind="wrong_systems")


def _check_controls(controls: Sequence[str]) -> None:
    unknown = [
        control for control in ([controls] if isinstance(controls, str) else controls) if control not in CONTROLS
    ]
    if unknown:
        raise NotFound(
            f"no control {', '.join(map(repr, unknown))}; the controls are {', '.join(CONTROLS)}"
            f"{suggestion(unknown[0], CONTROLS)}",
            kind="unknown_control",
        )


def _joined_sides(alignment: Alignment, sides: Sequence[Side]) -> dict[str, Side]:
    joined = {side.name: side for side in sides if side.name in alignment.maps}
    if not joined:
        raise NotFound(
            f"the alignment joins {', '.join(alignment.maps)}; none of them is among the sides"
            f" ({', '.join(side.name for side in sides) or 'none'})",
            kind="unknown_system",
        )
    return joined


def _check_names(names: Iterable[str], joined: Mapping[str, Side]) -> None:
    for name in names:
        if name not in joined:
            raise NotFound(
                f"the alignment joins {', '.join(joined)}, not {name!r}{suggestion(name, joined)}",
                kind="unknown_system",
            )


def _with_oracles(joined: Mapping[str, Side], oracles: Mapping[str, System]) -> dict[str, Side]:
    """The sides as they are run: those with an oracle by it."""
    needless = [name for name in oracles if joined[name].system is not None]
    if needless:
        raise InvalidInput(
            f"{', '.join(needless)} can be run; an oracle is for a system that can only be read", kind="needless_oracle"
        )
    return {name: side.with_system(oracles[name]) if name in oracles else side for name, side in joined.items()}


def _failing(runnable: Mapping[str, Side], oracles: Collection[str]) -> list[str]:
    """Remarks on oracles that fail trials of their task, where the recording does not say so already."""
    remarks = []
    for name in oracles:
        side = runnable[name]
        measured = side.recording.manifest.provenance.trial_accuracy is not None
        if side.system is None or side.model is None or measured:
            continue
        accuracy = trial_accuracy(side.system, side.model.sample(N_CHECKED, 0))
        failing = remark(f"oracle {side.system.name}", accuracy)
        remarks += [] if failing is None else [failing]
    return remarks


@dataclass(frozen=True)
class _Scorer:
    """What all directions of an evaluation share.

    Attributes
    ----------
    alignment : Alignment
    random : tuple of Alignment
        For the control ``random``.
    sides, runnable : mapping of str to Side
        As they were fitted; and with oracles, as they are run.
    natural : mapping of str to NaturalLatents
        By target.
    repeated : mapping of str to float
        By side: share of held-out latents that occur in the training part.
    """

    alignment: Alignment
    random: tuple[Alignment, ...]
    sides: Mapping[str, Side]
    runnable: Mapping[str, Side]
    natural: Mapping[str, NaturalLatents]
    repeated: Mapping[str, float]
    method: str
    controls: Sequence[str]
    ran: Collection[str]
    trained: Collection[str] | None
    threads: int | None
    n_pairs: int
    part: str
    stepwise: bool
    seed: int

    def scores(self, source_name: str, target_name: str) -> tuple[list[DirectionScore], PairTrials]:
        """Scores of the controls and of the method in one direction, and the trials of its pairs."""
        target = self.runnable[target_name]
        pairs = draw_pair_set(
            Direction(self.sides[source_name], target),
            self.part,
            self.n_pairs,
            self.alignment.subspaces,
            [self.seed, _EVALUATION, _stream(source_name, target_name)],
            stepwise=self.stepwise,
        )
        generator = torch.Generator(device=target.latents.device)
        ruler = Ruler(
            pairs,
            target,
            self.alignment.subspaces,
            self.natural[target_name],
            generator.manual_seed(seeds.for_torch(self.seed * 2**32 + _stream(source_name, target_name))),
            facts=self._facts(source_name, target_name),
            judge=_judge(self.sides[target_name]),
        )
        latents = pairs.latents()
        scores: list[DirectionScore] = []
        for control in self.controls:
            if control == "random":
                scores += ruler.mean_score(control, (_interchange(each, latents, pairs) for each in self.random))
                continue
            intervened = self._controlled(control, ruler, latents)
            if intervened is not None:
                scores += ruler.score(control, intervened, by_source_target=control == "none")
        if self.trained is not None:
            scores = [score.model_copy(update={"trained": False}) for score in scores]
        intervened = _interchange(self.alignment, latents, pairs)
        return scores + ruler.score(self.method, intervened, by_source_target=True), _pair_trials(pairs, self.alignment)

    def _facts(self, source: str, target: str) -> Facts:
        return Facts(
            ran=target in self.ran,
            oracle=self.runnable[target].system is not self.sides[target].system,
            trained=None if self.trained is None else f"{source}->{target}" in self.trained,
            threads=self.threads,
            repeated_source=self.repeated[source],
            repeated_target=self.repeated[target],
        )

    def _controlled(self, control: str, ruler: Ruler, latents: tuple[Tensor, Tensor]) -> Tensor | None:
        """The latents that a control puts in place; None if it does not apply."""
        if control == "none":
            return latents[1]
        if control == "cl-ceiling":
            # a counterfactual latent is of one step, and does not say what those before it were
            return None if self.stepwise else ruler.cl
        several = len(self.alignment.subspaces) > 1
        return _interchange(self.alignment, latents, ruler.pairs, shift=1) if several else None


def _judge(side: Side) -> Side | None:
    """The side, run by the twin that judges, if there is a good one."""
    return side.run_by(JUDGE) if side.twin is not None and side.twin.card.verdict == "good" else None


def _without_estimate(sides: Iterable[Side]) -> list[str]:
    """Why there is no estimate of an IIA, or that nothing ranks alignments."""
    return [
        f"{side.name}: no IIA is estimated, because its twin is poor: {'; '.join(side.twin.card.reasons)}"
        for side in sides
        if side.twin is not None and side.twin.card.verdict == "poor"
    ]


def _stream(source: str, target: str) -> int:
    """A number that depends on the names alone, so that methods are compared on the same pairs."""
    return int(sha256_bytes(f"{source}->{target}".encode())[:8], 16)


def _interchange(alignment: Alignment, latents: tuple[Tensor, Tensor], pairs: PairSet, shift: int = 0) -> Tensor:
    """Interchange each pair's subspace, or the one `shift` places after it; `latents` are the source's and the target's."""
    source, target = latents
    intervened = torch.empty_like(target)
    subspace = torch.from_numpy(pairs.subspace).to(target.device)
    for number in range(len(alignment.subspaces)):
        rows = subspace == number
        intervened[rows] = alignment.interchange(
            target[rows],
            source[rows],
            target_system=pairs.direction.target.name,
            source_system=pairs.direction.source.name,
            subspace=alignment.subspaces[(number + shift) % len(alignment.subspaces)].name,
        )
    return intervened


def _pair_trials(pairs: PairSet, alignment: Alignment) -> PairTrials:
    source, target = trials_of(pairs)
    several = len(alignment.subspaces) > 1
    drawn = np.stack([pairs.source, pairs.target, pairs.subspace]).astype("<i8")
    return PairTrials(
        source=pairs.direction.source.name,
        target=pairs.direction.target.name,
        pairs_sha256=sha256_bytes(drawn.tobytes()),
        source_trials=_spaced(source),
        target_trials=_spaced(target),
        subspace_names=tuple(subspace.name for subspace in alignment.subspaces) if several else (),
        subspaces=_spaced(pairs.subspace) if several else "",
    )


def _spaced(numbers: NDArray[np.int64]) -> str:
    return " ".join(map(str, numbers.tolist()))


def _random_alignments(alignment: Alignment, sides: Mapping[str, Side], seed: int) -> Iterator[Alignment]:
    names = [name for name in alignment.maps if name in sides]
    widths = [sides[name].n_units for name in names]
    for rotation in range(N_ROTATIONS):
        state = np.random.SeedSequence([seed, _ROTATIONS, rotation]).generate_state(2)
        drawn = int(state[0]) << 31 | int(state[1]) >> 1
        maps = random_maps(widths, alignment.subspaces, "orthogonal", "gram-schmidt", drawn)
        with torch.no_grad():
            frozen = {name: trainable().detach() for name, trainable in zip(names, maps, strict=True)}
        yield Alignment(frozen, alignment.subspaces, "orthogonal", alignment.replace)
