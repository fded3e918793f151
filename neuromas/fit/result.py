"""The result of a fit: an alignment, its report, and in the same program the sides that were fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from neuromas import seeds
from neuromas.align.alignment import Alignment
from neuromas.align.side import PARTS, Side
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.evaluation.accuracy import CONTROLS, evaluate
from neuromas.evaluation.ranks import by_rank, learned_rank, scores
from neuromas.evaluation.validity import Setting
from neuromas.fit.battery import Battery, summary
from neuromas.fit.folder import read_result, write_result
from neuromas.fit.objective import ladder
from neuromas.fit.table import fit_row
from neuromas.html import table
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport
from neuromas.schema.ranks import RankCurve
from neuromas.schema.validity import CHECKS, Check, Validity
from neuromas.systems.system import System


@dataclass(frozen=True, repr=False)
class FitResult:
    """An alignment and the report of its fit.

    Attributes
    ----------
    alignment : Alignment
        Of the best checkpoint, on the CPU.
    report : FitReport
        Configuration, inputs, history, missing values, provenance.
    sides : tuple of Side
        What was fitted, for an evaluation in the same program; empty after `load`.
    """

    alignment: Alignment
    report: FitReport
    sides: tuple[Side, ...] = ()

    def __repr__(self) -> str:
        return repr(self.report).replace("<FitReport", "<FitResult", 1)

    def _repr_html_(self) -> str:
        return _html(self.report)

    def evaluate(
        self,
        *,
        oracles: Mapping[str, System] | None = None,
        directions: Iterable[tuple[str, str]] | None = None,
        controls: Sequence[str] = CONTROLS,
        n_pairs: int = 1000,
        part: Literal["train", "validation", "test"] = "test",
        seed: int = 0,
        method: str | None = None,
    ) -> Evaluation:
        """Score the alignment, and controls on the same pairs, in every direction.

        Parameters
        ----------
        oracles : mapping of name to System, optional
            Live copies of systems that the fit only read. Only this evaluation runs them.
        directions : iterable of (source, target), optional
            Names of systems. By default every ordered pair, each system with itself included; of a stitch, which joins a source
            to another target, all pairs of two systems.
        controls : sequence of str
            Some of `neuromas.evaluation.accuracy.CONTROLS`.
        n_pairs : int
            Held-out pairs per direction.
        part : {"train", "validation", "test"}
            Trials that the pairs come from.
        seed : int
            Seed of the pairs.
        method : str, optional
            Name of the method in the scores; by default the method of the fit.

        Returns
        -------
        Evaluation

        Raises
        ------
        InvalidInput
            The result was loaded from a folder, without the systems: `neuromas.reopen` opens them again. Or an oracle is given
            for a system that can be run.
        NotFound
            A system or a control does not exist.
        """
        self._check_sides()
        names = [side.name for side in self.sides if side.name in self.alignment.maps]
        if directions is None and self.alignment.replace:
            directions = [(source, target) for target in names for source in names if source != target]
        config = self.report.config
        return evaluate(
            self.alignment,
            self.sides,
            method=config.method if method is None else method,
            oracles=oracles,
            directions=directions,
            controls=controls,
            ran=self.report.ran,
            trained={misses.direction for misses in self.report.misses},
            threads=self.report.threads,
            n_pairs=n_pairs,
            part=part,
            stepwise=config.stepwise,
            seed=seed,
        )

    def validate(
        self,
        *,
        oracles: Mapping[str, System] | None = None,
        checks: Sequence[Check] = CHECKS,
        n_pairs: int = 500,
        part: Literal["train", "validation", "test"] = "test",
        seed: int = 0,
        progress: Callable[[str], object] | None = None,
    ) -> Validity:
        """Try the controls that any claim of an alignment must survive; docs/validity.md explains each.

        Two of them fit again, with the settings of this fit: once per system, and up to three times with a wrong causal model.

        Parameters
        ----------
        oracles : mapping of name to System, optional
            Live copies of systems that the fit only read. No fit runs them.
        checks : sequence of str
            Some of `neuromas.schema.validity.CHECKS`.
        n_pairs : int
            Held-out pairs per direction and subspace.
        part : {"train", "validation", "test"}
            Trials that the pairs come from.
        seed : int
            Seed of pairs, permutations and untrained weights.
        progress : callable, optional
            Called with what is done next, in words.

        Returns
        -------
        Validity

        Raises
        ------
        InvalidInput
            The result was loaded from a folder, without the systems: `neuromas.reopen` opens them again. Or an oracle is not the
            system that was recorded, or a number is out of range.
        NotFound
            A system or a check does not exist.
        """
        battery = self._battery(oracles, checks, Setting(part, n_pairs, seed, self.report.config.stepwise), progress)
        rows = battery.checks(checks)
        outcome, verdict = summary(rows)
        return Validity(
            method=self.report.config.method,
            part=part,
            n_pairs=n_pairs,
            seed=seed,
            oracles=tuple(sorted(oracles or {})),
            outcome=outcome,
            verdict=verdict,
            checks=tuple(rows),
            alignment_sha256=self.report.alignment_sha256,
            provenance=Provenance(
                source=f"validation of {self.report.config.method}", seed=seed, created=now(), versions=versions()
            ),
        )

    def ranks(
        self,
        ranks: Sequence[int] | None = None,
        *,
        oracles: Mapping[str, System] | None = None,
        n_pairs: int = 1000,
        part: Literal["train", "validation", "test"] = "test",
        seed: int = 0,
    ) -> RankCurve:
        """Score a nested fit at every rank: its first components are an alignment of a smaller rank.

        Parameters
        ----------
        ranks : sequence of int, optional
            By default those that the fit took turns in: 1, 2, 4, … up to the rank of the largest subspace.
        oracles : mapping of name to System, optional
            Live copies of systems that the fit only read.
        n_pairs : int
            Held-out pairs per direction and subspace. Every rank is scored on the same ones.
        part : {"train", "validation", "test"}
            Trials that the pairs come from.
        seed : int
            Seed of pairs and resamples.

        Returns
        -------
        RankCurve
            With the smallest rank that is enough, and its interval.

        Raises
        ------
        InvalidInput
            The fit was not nested, so its components are in no order; or a rank is out of range; or as `validate`.
        NotFound
            A system does not exist.
        """
        battery = self._battery(oracles, (), Setting(part, n_pairs, seed, self.report.config.stepwise))
        config = self.report.config
        if not config.nested:
            raise InvalidInput(
                "the components of this fit are in no order, because it was not nested; fit with"
                " nested=True (--nested)",
                kind="not_nested",
            )
        largest = max(subspace.rank for subspace in self.alignment.subspaces)
        chosen = ladder(largest) if ranks is None else sorted(set(ranks))
        if not chosen or not all(isinstance(rank, int) and 1 <= rank <= largest for rank in chosen):
            raise InvalidInput(f"ranks: expected numbers in 1..{largest}, got {chosen}", kind="invalid_rank")
        runs = battery.run_sides(self.sides, battery.oracles)
        results = by_rank(battery.alignment, runs, battery.directions(), chosen, battery.setting)
        if not results:
            raise InvalidInput(
                "none of the expected values were recorded in the held-out part, so no rank can be scored",
                kind="no_counterfactual_latents",
            )
        return RankCurve(
            method=config.method,
            part=part,
            n_pairs=n_pairs,
            seed=seed,
            oracles=tuple(sorted(oracles or {})),
            ranks=tuple(chosen),
            learned=learned_rank(results, chosen, seed),
            scores=tuple(scores(results, chosen)),
            alignment_sha256=self.report.alignment_sha256,
            provenance=Provenance(source=f"ranks of {config.method}", seed=seed, created=now(), versions=versions()),
        )

    def _battery(
        self,
        oracles: Mapping[str, System] | None,
        checks: Sequence[str],
        setting: Setting,
        progress: Callable[[str], object] | None = None,
    ) -> Battery:
        """The controls of this alignment, and its sides as they are measured."""
        self._check_sides()
        _check_validation(checks, setting.n_pairs, setting.part, setting.seed)
        _check_oracles(oracles or {}, self.sides)
        alignment = self.alignment.to(self.sides[0].latents.device)
        return Battery(alignment, self.report.config, self.sides, dict(oracles or {}), setting, progress)

    def _check_sides(self) -> None:
        if not self.sides:
            raise InvalidInput(
                "this result was loaded without its systems. If a command fitted it, use neuromas.reopen(DIR); otherwise call"
                " the same fit(..., out=DIR) again, which returns the finished fit",
                kind="missing_systems",
            )

    def save(self, folder: str | Path) -> None:
        """Write ``alignment.safetensors``, ``history.csv`` and, last, ``result.json``."""
        write_result(Path(folder), self.alignment, self.report)

    @classmethod
    def load(cls, folder: str | Path) -> FitResult:
        """Read what `save` wrote.

        Raises
        ------
        NotFound
            There is no result.
        InvalidDocument
            ``result.json`` breaks its schema.
        Corrupt
            The alignment is not the one that the report names.
        """
        return cls(*read_result(Path(folder)))


def _check_validation(checks: Sequence[str], n_pairs: int, part: str, seed: int) -> None:
    seeds.checked(seed, "validation: seed")
    if not isinstance(n_pairs, int) or n_pairs < 2:
        raise InvalidInput(
            f"validation: n_pairs: expected a whole number of at least 2, got {n_pairs!r}", kind="invalid_option"
        )
    if part not in PARTS:
        raise InvalidInput(f"validation: part: expected one of {', '.join(PARTS)}, got {part!r}", kind="invalid_option")
    for name in checks:
        if name not in CHECKS:
            raise NotFound(
                f"no check {name!r}; the checks are {', '.join(CHECKS)}{suggestion(name, CHECKS)}",
                kind="unknown_control",
            )


def _check_oracles(oracles: Mapping[str, System], sides: Sequence[Side]) -> None:
    by_name = {side.name: side for side in sides}
    for name, oracle in oracles.items():
        if name not in by_name:
            raise NotFound(
                f"oracle {name!r}: the fit has {', '.join(by_name)}{suggestion(name, by_name)}", kind="unknown_system"
            )
        if not isinstance(oracle, System):
            raise InvalidInput(f"oracle {name!r}: expected a System, got {oracle!r}", kind="wrong_systems")
        if by_name[name].system is not None:
            raise InvalidInput(
                f"{name} can be run; an oracle is for a system that can only be read", kind="needless_oracle"
            )


def _html(report: FitReport) -> str:
    """A report as tables for a notebook, escaped."""
    best = report.best
    names = dict.fromkeys([*best.behaviour, *best.cl, *best.iia])
    missed = {
        seen.direction: f"{seen.n_missed:,} of {seen.n_pairs:,}" for seen in report.misses if seen.part == "train"
    }
    scored = [
        [name, *(_number(losses.get(name)) for losses in (best.behaviour, best.cl, best.iia)), missed.get(name, "–")]
        for name in names
    ]
    inputs = [
        [each.name, each.access, f"{each.n_units:,}", f"{each.n_samples:,}", f"{each.n_incomplete:,}"]
        for each in report.inputs
    ]
    caption = (
        f"{report.config.method}: {report.status}, {report.iterations:,} iterations in {report.seconds:.1f} s; best at"
        f" {report.best_iteration:,}, validation loss {best.loss:.4f}"
    )
    warnings = "; ".join(f"warning: {warning}" for warning in report.warnings)
    return table(["input", "access", "units", "samples", "incomplete"], inputs, caption=caption) + table(
        ["direction", "behavioural loss", "counterfactual-latent loss", "IIA", "missed training pairs"],
        scored,
        note=warnings,
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def results_table(results: Mapping[str, FitResult], points: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Compare the fits of several settings in a table.

    Parameters
    ----------
    results : mapping of str to FitResult
        By name.
    points : mapping of str to mapping
        By name, the settings in which the fits differ.

    Returns
    -------
    pandas.DataFrame
        A row per fit: its settings, ``name``, and the columns of `neuromas.fit.table.fit_row`, which tables of sweeps have too.
    """
    rows = []
    for name, result in results.items():
        columns = fit_row(result.report, len(result.alignment.maps))
        rows.append({**points[name], "name": name, **{key: columns[key] for key in columns if key not in points[name]}})
    return pd.DataFrame(rows)
