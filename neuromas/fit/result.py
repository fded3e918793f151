"""What a fit gives, in one directory: ``result.json``, ``alignment.safetensors``, ``history.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from neuromas.align.alignment import Alignment
from neuromas.align.side import Side
from neuromas.errors import Corrupt, InvalidInput, NotFound
from neuromas.evaluate.accuracy import evaluate
from neuromas.files import sha256_file, write_atomically
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport, Validation
from neuromas.systems.system import System

RESULT, ALIGNMENT, HISTORY = "result.json", "alignment.safetensors", "history.csv"


@dataclass(frozen=True)
class FitResult:
    """An alignment and the report of how it came about.

    Attributes
    ----------
    alignment : Alignment
        The best checkpoint's, on the CPU.
    report : FitReport
        Configuration, inputs, history, misses, provenance.
    sides : tuple of Side
        What was fitted, for an evaluation in the same program; empty after `load`.
    """

    alignment: Alignment
    report: FitReport
    sides: tuple[Side, ...] = field(default=(), repr=False)

    def evaluate(self, *, oracles: Mapping[str, System] | None = None, **options: Any) -> Evaluation:
        """Score the alignment on held-out pairs; see `neuromas.evaluate.accuracy.evaluate`.

        Parameters
        ----------
        oracles : mapping of name to System, optional
            Live copies of systems that the fit only read.
        **options
            ``method``, ``directions``, ``controls``, ``n_pairs``, ``part``, ``seed``. By default every direction; a
            stitch only between systems, since nothing was stitched from a system into itself.

        Raises
        ------
        InvalidInput
            The result was loaded from a folder, without the systems; `neuromas.reopen` finds them again.
        """
        if not self.sides:
            raise InvalidInput(
                "this result was loaded without its systems: use neuromas.reopen(DIR) if a command fitted it, else call the same"
                " fit(..., out=DIR) again, which returns what is finished",
                kind="no_sides",
            )
        names = [side.name for side in self.sides if side.name in self.alignment.maps]
        if self.alignment.replace:
            options.setdefault(
                "directions", [(source, target) for target in names for source in names if source != target]
            )
        settled = {"method": self.report.config.method, "ran": self.report.ran, "stepwise": self.report.config.stepwise}
        options = settled | options
        return evaluate(self.alignment, self.sides, oracles=oracles, **options)

    def save(self, folder: str | Path) -> None:
        """Write the files; ``result.json`` last, so that a folder that has it is whole."""
        folder = Path(folder)
        self.alignment.save(folder / ALIGNMENT)
        write_atomically(folder / HISTORY, history_table(self.report.history))
        write_atomically(folder / RESULT, self.report.to_json())

    @classmethod
    def load(cls, folder: str | Path) -> FitResult:
        """Read what `save` wrote.

        Raises
        ------
        NotFound
            No result there.
        InvalidDocument
            ``result.json`` breaks its schema.
        Corrupt
            The alignment is not the one that the report names.
        """
        folder = Path(folder)
        if not (folder / RESULT).is_file():
            raise NotFound(f"no fit result in {folder}: expected {RESULT}", kind="unknown_result")
        report = FitReport.parse((folder / RESULT).read_bytes(), str(folder / RESULT))
        alignment = Alignment.load(folder / ALIGNMENT)
        if sha256_file(folder / ALIGNMENT) != report.alignment_sha256:
            raise Corrupt(
                f"{folder / ALIGNMENT} is not the file that {RESULT} names (SHA-256 differs)", kind="hash_mismatch"
            )
        return cls(alignment, report)


def history_table(history: Sequence[Validation]) -> str:
    """The validation history as CSV text: one row per look, one column per loss and direction."""
    names = {
        f"{kind} {direction}": None
        for seen in history
        for kind in ("behaviour", "cl", "iia")
        for direction in getattr(seen, kind)
    }
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["iteration", "train_loss", "loss", *names])
    for seen in history:
        row = {
            f"{kind} {name}": value
            for kind in ("behaviour", "cl", "iia")
            for name, value in getattr(seen, kind).items()
        }
        writer.writerow([seen.iteration, seen.train_loss, seen.loss, *(row.get(name, "") for name in names)])
    return text.getvalue()


def results_table(results: Mapping[str, FitResult], points: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Fits of several settings side by side.

    Parameters
    ----------
    results : mapping of str to FitResult
        By name.
    points : mapping of str to mapping
        By name, the settings that tell each fit from the others.

    Returns
    -------
    pandas.DataFrame
        A row per fit: its settings, ``name``, ``status``, ``iterations``, ``best_iteration``; ``loss`` and ``iia``, the
        validation loss and the worst direction's validation IIA there (None where nothing was run); ``seconds`` of wall time,
        in which fits that were fitted together all went on.
    """
    rows = []
    for name, result in results.items():
        report = result.report
        best = next((seen for seen in report.history if seen.iteration == report.best_iteration), report.history[-1])
        rows.append(
            {
                **points[name],
                "name": name,
                "status": report.status,
                "iterations": report.iterations,
                "best_iteration": report.best_iteration,
                "loss": best.loss,
                "iia": min(best.iia.values(), default=None),
                "seconds": report.seconds,
            }
        )
    return pd.DataFrame(rows)
