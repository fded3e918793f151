"""The result of a fit: an alignment, its report, and in the same program the sides that were fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from neuromas.align.alignment import Alignment
from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.evaluation.accuracy import CONTROLS, evaluate
from neuromas.fit.folder import read_result, write_result
from neuromas.fit.table import fit_row
from neuromas.html import table
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport
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
        if not self.sides:
            raise InvalidInput(
                "this result was loaded without its systems. If a command fitted it, use neuromas.reopen(DIR); otherwise call"
                " the same fit(..., out=DIR) again, which returns the finished fit",
                kind="missing_systems",
            )
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
