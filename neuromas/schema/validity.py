"""Documents of a validation: what the controls of an alignment came to, each with its interval and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from neuromas.html import table
from neuromas.schema.document import Document, Provenance, Sha256, StoredDocument

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["passed", "failed", "undecided", "not applicable"]
Check = Literal["interchange", "untrained", "wrong-model", "unmapped", "fresh", "probe", "divergence"]
CHECKS: tuple[Check, ...] = (
    *("interchange", "untrained", "wrong-model", "unmapped"),
    *("fresh", "probe", "divergence"),
)
"""Does the interchange do anything; what does an untrained network of the same architecture reach; what does a wrong causal model
reach; what does the interchange leave alone; does it hold on trials that the recording does not have; what does a linear probe
read; how far do intervened latents lie from recorded ones."""


class Share(Document):
    """A share with its interval."""

    value: float
    low: float
    high: float
    """95 % interval, widened for pairs that share a trial."""
    n: int
    """Pairs or samples."""

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


class ValidityCheck(Document):
    """One control of one direction, or of one system."""

    check: Check
    variant: str = ""
    """Which of the check's controls, e.g. ``permuted values``, or the variable that should be left alone."""
    source: str
    target: str
    """Equal to `source` for what concerns a single system."""
    subspace: str = ""
    measure: Literal["iia", "retrieval", "kept", "accuracy", "outside"]
    """iia: share of pairs with every deterministic token right. retrieval: share of intervened latents whose nearest mean latent
    holds the expected values; for targets that cannot be run. kept: share of pairs that keep what they should. accuracy: share of
    held-out samples that a probe reads right. outside: share of latents outside the region of natural ones."""
    claim: Share | None = None
    """What the alignment reaches."""
    control: Share | None = None
    """What it is compared with."""
    outcome: Outcome
    decides: bool = True
    """Whether a failure counts against the alignment. The others inform."""
    verdict: str
    """The outcome in a sentence."""


class Validity(StoredDocument):
    """``validity.json``: whether an alignment survives the controls that any claim must survive."""

    format_version: Literal[1] = 1
    method: str
    part: Literal["train", "validation", "test"]
    n_pairs: int
    seed: int
    oracles: tuple[str, ...] = ()
    """Read-only systems of which a live copy was run."""
    outcome: Literal["supported", "not supported", "undecided"]
    """not supported: a check that decides failed. supported: all that apply passed. undecided: some interval is too wide."""
    verdict: str
    checks: tuple[ValidityCheck, ...] = Field(repr=False)
    alignment_sha256: Sha256
    provenance: Provenance

    def of(self, check: Check) -> tuple[ValidityCheck, ...]:
        """The rows of one check."""
        return tuple(row for row in self.checks if row.check == check)

    def to_dataframe(self) -> pd.DataFrame:
        """The checks as a table, a row each; intervals in columns of their own.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.checks], columns=list(COLUMNS))

    def __repr__(self) -> str:
        lines = [f"  {row.outcome:14}  {row.check:11}  {row.verdict}" for row in shown(self.checks)]
        return "\n".join([f"<Validity of {self.method}: {self.outcome}>", self.verdict, *lines])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [[row.outcome, row.check, row.verdict] for row in shown(self.checks)]
        return table(["outcome", "check", "verdict"], rows, caption=f"{self.method}: {self.outcome}", note=self.verdict)


COLUMNS = (
    *("check", "variant", "source", "target", "subspace", "measure"),
    *("claim", "claim_low", "claim_high", "claim_n", "control", "control_low", "control_high", "control_n"),
    *("outcome", "decides", "verdict"),
)
"""Columns of ``validity.csv``."""


def shown(checks: Sequence[ValidityCheck]) -> list[ValidityCheck]:
    """The checks that a person reads first: of rows that say the same, only one."""
    return list({(row.check, row.outcome, row.verdict): row for row in checks}.values())


def _flat(row: ValidityCheck) -> dict[str, object]:
    cells = {name: getattr(row, name) for name in COLUMNS if not name.startswith(("claim", "control"))}
    for name in ("claim", "control"):
        share: Share | None = getattr(row, name)
        values = (None,) * 4 if share is None else (share.value, share.low, share.high, share.n)
        cells |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_n"), values, strict=True))
    return cells
