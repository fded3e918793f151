"""The battery of controls that any claim of an alignment must survive, with the fits that some of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.align.alignment import Alignment, Subspace
from neuromas.align.controls import fresh_trials, permuted_values, recorded_by, shuffled_values
from neuromas.align.pairs import Direction
from neuromas.align.prepare import rebuilt
from neuromas.align.side import Side
from neuromas.causal.model import TASKS, CausalModel
from neuromas.errors import InvalidInput, NotFound
from neuromas.evaluation.validity import (
    KEPT,
    Kept,
    Measured,
    Setting,
    judged_control,
    judged_fresh,
    judged_interchange,
    judged_kept,
    judged_probe,
    kept_behaviour,
    kept_value,
    measured,
    probed,
)
from neuromas.fit.loop import Outcome as Ended
from neuromas.fit.loop import run_together
from neuromas.fit.prepare import prepare
from neuromas.fit.start import solve, start_maps
from neuromas.fit.terms import terms_of
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitConfig
from neuromas.schema.validity import CHECKS, Check, Share, ValidityCheck
from neuromas.systems.system import System

_WORDS = {"iia": "IIA", "retrieval": "retrieval"}
_MOST_COLUMNS = 12
"""Recorded columns beside the compared variables that are tried at most."""


def refit(config: FitConfig, sides: Sequence[Side]) -> Alignment:
    """Fit sides that are made already, such as those of a control, with the settings of another fit.

    Raises
    ------
    InvalidInput, NotFound, ReadOnly
        As in `neuromas.fit.fitters.Fitter.fit`.
    """
    systems: list[System | Recording] = [side.original if side.system is None else side.system for side in sides]
    ready = prepare(config, systems, sides)
    ends: list[Ended] = []
    if config.solver == "closed-form":
        maps = solve(ready.plan)[0]
    else:
        device = sides[0].latents.device
        start = {name: module.to(device) for name, module in start_maps(ready).items()}
        run_together([ready.plan], [start], lambda _, ended: ends.append(ended))
        maps = ends[0][0]
    return Alignment(maps, ready.plan.subspaces, config.map, config.method in ("stitch", "latent-stitch"))


@dataclass(frozen=True)
class Battery:
    """The controls of one alignment.

    Attributes
    ----------
    alignment : Alignment
        On the device of the sides.
    config : FitConfig
        The settings of the fit, which fits of controls share.
    sides : tuple of Side
        As they were fitted.
    oracles : mapping of str to System
        Live copies of sides that are only read. No fit runs them.
    setting : Setting
    report : callable, optional
        Called with what is done next, in words.
    """

    alignment: Alignment
    config: FitConfig
    sides: tuple[Side, ...]
    oracles: Mapping[str, System] = field(default_factory=dict)
    setting: Setting = field(default_factory=Setting)
    report: Callable[[str], object] | None = None

    def checks(self, names: Sequence[Check] = CHECKS) -> list[ValidityCheck]:
        """The rows of the checks `names`, in the order of `CHECKS`."""
        runs = self.run_sides(self.sides, self.oracles)
        claims = {
            (*direction, subspace.name): self._measured(self.alignment, runs, direction, subspace)
            for direction in self.directions()
            for subspace in self.alignment.subspaces
        }
        stages: dict[Check, Callable[[_Context], Iterator[ValidityCheck]]] = {
            "interchange": self._interchange,
            "untrained": self._untrained,
            "wrong-model": self._wrong_model,
            "unmapped": self._unmapped,
            "fresh": self._fresh,
            "probe": self._probe,
            "divergence": self._divergence,
        }
        context = _Context(runs, claims)
        return [row for name in CHECKS if name in names for row in stages[name](context)]

    # ---------------------------------------------------------------------------------------------------------- what exists

    def directions(self) -> list[tuple[str, str]]:
        """Source and target of each direction: every ordered pair, or the one that a stitch was trained in."""
        if self.alignment.replace:
            terms = terms_of(self.config, self.sides)
            return [(term.direction.source.name, term.direction.target.name) for term in terms]
        names = [side.name for side in self.sides if side.name in self.alignment.maps]
        return [(source, target) for target in names for source in names]

    def run_sides(self, sides: Sequence[Side], oracles: Mapping[str, System]) -> dict[str, Side]:
        """The sides as they are measured: those with an oracle by it."""
        return {
            side.name: side.with_system(oracles[side.name]) if side.name in oracles and side.system is None else side
            for side in sides
        }

    def _measured(
        self, alignment: Alignment, runs: Mapping[str, Side], direction: tuple[str, str], subspace: Subspace
    ) -> Measured | None:
        source, target = direction
        return measured(alignment, runs[source], runs[target], subspace, self.setting)

    def _rebuilt(self, side: Side, recording: Recording, system: System | None) -> Side:
        config = self.config
        fractions = {str(part): share for part, share in config.fractions.items()}
        return rebuilt(
            side,
            recording,
            system,
            values=config.values,
            tolerances=config.tolerances,
            fractions=fractions,
            seed=config.seed,
        )

    def _tell(self, text: str) -> None:
        if self.report is not None:
            self.report(text)

    # --------------------------------------------------------------------------------------------------------------- checks

    def _interchange(self, context: _Context) -> Iterator[ValidityCheck]:
        for (source, target, subspace), claim in context.claims.items():
            if claim is None:
                text = "none of the expected values were recorded in the held-out part"
                yield _absent("interchange", "", source, target, text, subspace=subspace)
                continue
            outcome = judged_interchange(claim)
            does = {
                "passed": "it does most of what it should",
                "failed": "it does not do what it should",
                "undecided": "the interval is too wide to tell whether it does most of what it should",
            }[outcome]
            text = f"{_WORDS[claim.measure]} {claim.claim}, without an interchange {claim.none}: {does}"
            yield _row("interchange", "", context.key(source, target, subspace), claim, claim.none, outcome, text)

    def _untrained(self, context: _Context) -> Iterator[ValidityCheck]:
        for side in self.sides:
            trained = context.runs[side.name].system
            system = None if trained is None else trained.untrained(self.setting.seed + 1)
            recording = None if system is None else recorded_by(side, system)
            if trained is None:
                text = f"{side.name} can only be read, so no untrained copy of it can be made; an oracle allows it"
            else:
                text = f"it is not known how an untrained copy of {side.name} is made"
            if system is None or recording is None:
                yield _absent("untrained", side.name, side.name, side.name, text)
                continue
            self._tell(f"fit with an untrained {side.name}")
            changed = self._rebuilt(side, recording, None if side.system is None else system)
            sides = [changed if other is side else other for other in self.sides]
            oracles = {**self.oracles, **({side.name: system} if side.name in self.oracles else {})}
            directions = [each for each in self.directions() if side.name in each]
            yield from self._refitted("untrained", f"untrained {side.name}", sides, oracles, directions, context)

    def _wrong_model(self, context: _Context) -> Iterator[ValidityCheck]:
        ran = [each for each in self.directions() if context.runs[each[1]].system is not None]
        read = [each for each in self.directions() if each not in ran]
        if ran:
            self._tell("fit with permuted values")
            recordings = permuted_values(self.sides, self.setting.seed)
            sides = [self._rebuilt(side, new, side.system) for side, new in zip(self.sides, recordings, strict=True)]
            yield from self._refitted("wrong-model", "permuted values", sides, self.oracles, ran, context)
            other = _another_task(self.sides)
            if other is not None:
                self._tell(f"fit with the causal model of {other.name}")
                sides = [replace(side, model=other) for side in self.sides]
                yield from self._refitted("wrong-model", f"task {other.name}", sides, self.oracles, ran, context)
        if read:
            self._tell("fit with shuffled values")
            seeds = range(self.setting.seed + 1, self.setting.seed + 1 + len(self.sides))
            sides = [
                self._rebuilt(side, shuffled_values(side, seed), side.system)
                for side, seed in zip(self.sides, seeds, strict=True)
            ]
            yield from self._refitted("wrong-model", "shuffled values", sides, {}, read, context)

    def _refitted(
        self,
        check: Check,
        variant: str,
        sides: Sequence[Side],
        oracles: Mapping[str, System],
        directions: Sequence[tuple[str, str]],
        context: _Context,
    ) -> Iterator[ValidityCheck]:
        """Fit `sides` as the alignment was, and compare its claims with what this comes to."""
        try:
            alignment = refit(self.config, sides)
            runs = self.run_sides(sides, oracles)
            results = {
                (*direction, subspace.name): self._measured(alignment, runs, direction, subspace)
                for direction in directions
                for subspace in alignment.subspaces
            }
        except (InvalidInput, NotFound) as error:
            text = f"a fit with {variant} is impossible: {error.message}"
            yield _absent(check, variant, sides[0].name, sides[-1].name, text)
            return
        compared = [
            (key, claim, control.claim)
            for key, control in results.items()
            if control is not None and (claim := context.claims[key]) is not None and claim.measure == control.measure
        ]
        for measure in ("iia", "retrieval"):
            rows = [row for row in compared if row[1].measure == measure]
            # an alignment is as good as its worst direction, and so is that of a control
            worst = min(rows, key=lambda row: row[2].value, default=None)
            for key, claim, reached in rows:
                yield _control_row(check, variant, key, claim, reached, decides=worst is not None and key == worst[0])

    def _unmapped(self, context: _Context) -> Iterator[ValidityCheck]:
        for source, target in self.directions():
            direction = Direction(context.runs[source], context.runs[target])
            for subspace in self.alignment.subspaces:
                if self.alignment.replace or self.setting.stepwise:
                    text = "the method replaces the whole latent, and leaves nothing alone by design"
                    yield _absent("unmapped", "", source, target, text, subspace=subspace.name)
                    continue
                yield from self._left_alone(direction, subspace)

    def _left_alone(self, direction: Direction, subspace: Subspace) -> Iterator[ValidityCheck]:
        key = direction.source.name, direction.target.name, subspace.name
        target = direction.target
        mapped = {target.variables[column] for column in target.columns(subspace.variables)}
        causal = [name for name in target.variables if name not in mapped]
        if causal and target.system is not None and target.model is not None:
            result = kept_behaviour(self.alignment, direction, subspace, self.setting)
            yield _kept_row("behaviour", key, result, decides=True)
        for name in [*causal, *_other_columns(direction)]:
            columns = _column(direction.source, name), _column(target, name)
            if columns[0] is None or columns[1] is None:
                continue
            result = kept_value(self.alignment, direction, subspace, (columns[0], columns[1]), self.setting)
            # what a probe reads outside of natural latents need not be what the system uses; where it runs, its behaviour decides
            yield _kept_row(name, key, result, decides=name in causal and target.system is None)
        if not causal:
            text = "every variable of the causal model is interchanged, so none should be left alone"
            yield _absent("unmapped", "", *key[:2], text, subspace=subspace.name)

    def _fresh(self, context: _Context) -> Iterator[ValidityCheck]:
        new: dict[str, Side] = {}
        for name, side in context.runs.items():
            if side.system is None or side.model is None or dims.TOKEN not in side.recording.dataset.coords:
                text = f"{name} can only be read, so it has no new trials; an oracle allows them"
                yield _absent("fresh", name, name, name, text)
                continue
            self._tell(f"new trials of {name}")
            recording = fresh_trials(side, self.config.n_trials, self.config.seed + 7_919 + self.setting.seed)
            if recording is None:
                text = f"nearly every trial that the task of {name} can have is in its recording"
                yield _absent("fresh", name, name, name, text)
                continue
            new[name] = self._rebuilt(side, recording, side.system)
        runs = {**context.runs, **new}
        for (source, target, subspace), claim in context.claims.items():
            if claim is None or target not in new:
                continue
            fresh = self._measured(self.alignment, runs, (source, target), self.alignment.subspace(subspace))
            if fresh is None:
                continue
            outcome = judged_fresh(claim.claim, fresh.claim)
            does = {
                "passed": "no worse",
                "failed": "worse, so part of the alignment holds for the recorded trials alone",
                "undecided": "the interval is too wide to tell whether that is worse",
            }[outcome]
            text = f"trials that are not in the recording: IIA {fresh.claim}, held-out trials {claim.claim}: {does}"
            yield _row("fresh", "", (source, target, subspace), claim, fresh.claim, outcome, text)

    def _probe(self, context: _Context) -> Iterator[ValidityCheck]:
        for (source, target, subspace), claim in context.claims.items():
            side = context.runs[target]
            names = [side.variables[column] for column in side.columns(self.alignment.subspace(subspace).variables)]
            result = probed(side, names, self.setting.part)
            if result is None or claim is None:
                text = f"{'+'.join(names)} has one value, or too many for a probe"
                yield _absent("probe", "+".join(names), source, target, text, subspace=subspace)
                continue
            accuracy, commonest = result
            used = judged_interchange(claim) == "passed"
            outcome, says = _presence(judged_probe(accuracy, commonest), used, claim.measure)
            text = (
                f"a probe reads {'+'.join(names)} of {target} with an accuracy of {accuracy} (commonest value"
                f" {commonest:.3f}); {_WORDS[claim.measure]} {claim.claim.value:.3f}: {says}"
            )
            key = source, target, subspace
            yield _row("probe", "+".join(names), key, claim, accuracy, outcome, text, decides=False, measure="accuracy")

    def _divergence(self, context: _Context) -> Iterator[ValidityCheck]:
        for key, claim in context.claims.items():
            if claim is None or claim.outside is None or claim.outside_natural is None:
                continue
            natural = claim.outside.low <= max(2 * claim.outside_natural.high, 0.05)
            says = "natural" if natural else "often unlike any recorded one, and the system may use them in another way"
            text = (
                f"outside the region of natural latents: {claim.outside}, without an interchange {claim.outside_natural}:"
                f" {says}"
            )
            yield _row(
                "divergence",
                "",
                key,
                replace(claim, claim=claim.outside),
                claim.outside_natural,
                "passed" if natural else "failed",
                text,
                decides=False,
                measure="outside",
            )


@dataclass(frozen=True)
class _Context:
    """What all checks share: the sides as they are measured, and the alignment's own scores."""

    runs: Mapping[str, Side]
    claims: Mapping[tuple[str, str, str], Measured | None]

    def key(self, source: str, target: str, subspace: str) -> tuple[str, str, str]:
        return source, target, subspace


def _presence(present: bool, used: bool, measure: str) -> tuple[str, str]:
    if measure == "retrieval":
        return ("passed" if present else "failed"), "present" if present else "not linearly present"
    if present:
        return ("passed", "present and used") if used else ("failed", "present but not used through this subspace")
    return (
        ("passed", "used, though a linear probe does not read it") if used else ("failed", "neither present nor used")
    )


def _another_task(sides: Sequence[Side]) -> CausalModel | None:
    """A causal model of another task with the same tokens and variables."""
    models = {side.model.name: side.model for side in sides if side.model is not None}
    if len(models) != 1:
        return None
    (model,) = models.values()
    for name, task in TASKS.items():
        if name != model.name and task.vocabulary == model.vocabulary[: len(task.vocabulary)]:
            other = task()
            if other.variable_names == model.variable_names:
                return other
    return None


def _other_columns(direction: Direction) -> list[str]:
    """What both recordings hold beside the compared variables: other variables, and the token."""
    names = []
    for side in (direction.source, direction.target):
        recording = side.recording
        token = [dims.TOKEN] if dims.TOKEN in recording.dataset.coords else []
        names.append([name for name in [*recording.variable_names, *token] if name not in side.variables])
    return [name for name in names[0] if name in names[1]][:_MOST_COLUMNS]


def _column(side: Side, name: str) -> NDArray[np.float64] | None:
    """A variable, by its own or a shared name, or the token; shape (n_samples,)."""
    recording = side.recording
    if name == dims.TOKEN and name in recording.dataset.coords:
        return np.asarray(recording.dataset[name].values, dtype=np.float64)
    own = side.roles.get(name, name)
    return recording.values([own])[:, 0] if own in recording.variable_names else None


def _row(
    check: Check,
    variant: str,
    key: tuple[str, str, str],
    claim: Measured,
    control: Share,
    outcome: str,
    verdict: str,
    *,
    decides: bool = True,
    measure: str | None = None,
) -> ValidityCheck:
    source, target, subspace = key
    return ValidityCheck.model_validate(
        {
            "check": check,
            "variant": variant,
            "source": source,
            "target": target,
            "subspace": subspace,
            "measure": measure or claim.measure,
            "claim": claim.claim,
            "control": control,
            "outcome": outcome,
            "decides": decides,
            "verdict": f"{source} → {target}, {subspace}: {verdict}",
        }
    )


def _control_row(
    check: Check, variant: str, key: tuple[str, str, str], claim: Measured, reached: Share, *, decides: bool
) -> ValidityCheck:
    outcome = judged_control(claim, reached)
    nearly = {
        "untrained": "nearly as much, so this direction says little about what was learnt",
        "wrong-model": "nearly as much, so this direction does not speak for the causal model",
    }[check]
    does = {
        "passed": "far less",
        "failed": nearly,
        "undecided": "the interval is too wide to tell whether that is far less",
    }[outcome]
    where = "worst direction" if decides else "other direction"
    text = f"{variant} ({where}): {_WORDS[claim.measure]} {reached}, the alignment {claim.claim}: {does}"
    return _row(check, variant, key, claim, reached, outcome, text, decides=decides)


def _kept_row(variant: str, key: tuple[str, str, str], result: Kept | str, *, decides: bool) -> ValidityCheck:
    if isinstance(result, str):
        text = f"{variant}: {result}"
        return _absent("unmapped", variant, *key[:2], text, subspace=key[2])
    outcome = judged_kept(result.kept)
    subject = "the target's behaviour" if variant == "behaviour" else variant
    does = {
        "passed": f"the interchange leaves {subject} alone",
        "failed": f"the interchange changes {subject}",
        "undecided": f"the interval is too wide to tell whether {subject} is left alone (from {KEPT:g} on)",
    }[outcome]
    moved = "" if variant == "behaviour" else f", {result.moved:.3f} get the source's"
    text = f"{variant} is kept in {result.kept} of pairs with equal {key[2]}{moved}: {does}"
    return ValidityCheck(
        check="unmapped",
        variant=variant,
        source=key[0],
        target=key[1],
        subspace=key[2],
        measure="kept",
        control=result.kept,
        outcome=outcome,
        decides=decides,
        verdict=f"{key[0]} → {key[1]}, {key[2]}: {text}",
    )


def _absent(check: Check, variant: str, source: str, target: str, text: str, subspace: str = "") -> ValidityCheck:
    measure = {"unmapped": "kept", "probe": "accuracy", "divergence": "outside"}.get(check, "iia")
    return ValidityCheck.model_validate(
        {
            "check": check,
            "variant": variant,
            "source": source,
            "target": target,
            "subspace": subspace,
            "measure": measure,
            "outcome": "not applicable",
            "verdict": text,
        }
    )


def summary(
    checks: Sequence[ValidityCheck],
) -> tuple[Literal["supported", "not supported", "undecided"], str]:
    """Outcome of a validation, and its verdict in words.

    Examples
    --------
    >>> summary([])
    ('undecided', 'No check that decides was made, or none applies.')
    """
    deciding = [row for row in checks if row.decides and row.outcome != "not applicable"]
    if not deciding:
        return "undecided", "No check that decides was made, or none applies."
    absent = dict.fromkeys(row.check for row in checks if not any(each.check == row.check for each in deciding))
    absent_words = ", ".join(name for name in absent if any(row.check == name and row.decides for row in checks))
    rest = f" Not tested: {absent_words}." if absent_words else ""
    failed, open_ = (
        list(dict.fromkeys(row.check for row in deciding if row.outcome == outcome))
        for outcome in ("failed", "undecided")
    )
    if failed:
        return "not supported", f"The alignment does not survive {', '.join(failed)}.{rest}"
    if open_:
        return "undecided", f"The intervals are too wide in {', '.join(open_)}; more pairs may help.{rest}"
    measured_by = {row.measure for row in deciding}
    only_read = (
        " Where the target can only be read, retrieval says what its latents hold, not what it uses."
        if "retrieval" in measured_by
        else ""
    )
    return "supported", f"The alignment survives every check that applies.{only_read}{rest}"


__all__ = ["Battery", "refit", "summary"]
