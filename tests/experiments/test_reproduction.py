"""What the page on the reproduction tells is what the figures declare and what their tables hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuromas.experiments.figures import FIGURES
from neuromas.experiments.jobs import expand
from neuromas.experiments.reproduce import claims_table
from neuromas.fit.table import read_table

REPRODUCTION = Path(__file__).parents[2] / "docs" / "reproduction"
PAGE = REPRODUCTION.with_suffix(".md")


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_is_of_the_sweep_that_the_command_runs(name):
    """All its fits and measures, and no others: of the same settings, systems and weights."""
    table = read_table(REPRODUCTION / name / "table.csv")
    declared = {planned.job.identity()[:12] for planned in expand(FIGURES[name].sweep(False))}
    assert set(table["fit"]) == declared
    scored = table[table["iia"].notna()]
    assert {"none", "random"} < set(scored["method"])


@pytest.mark.parametrize("name", FIGURES)
def test_its_claims_follow_from_the_table(name):
    table = read_table(REPRODUCTION / name / "table.csv")
    claims = list(FIGURES[name].claims(table))
    assert (REPRODUCTION / name / "claims.csv").read_text() == claims_table(claims)
    if name not in ("5", "6"):  # which share a row
        held = f"{sum(claim.held for claim in claims)} of {len(claims)}"
        shown = {"n-systems": "n systems"}.get(name, name)
        (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| [{shown}](#")]
        assert f"| {held} |" in row
