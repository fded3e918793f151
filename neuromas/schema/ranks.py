"""Documents of a nested fit: what each rank reaches, and which one is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from neuromas.html import table
from neuromas.schema.document import Document, Provenance, Sha256, StoredDocument
from neuromas.schema.validity import Share

if TYPE_CHECKING:
    import pandas as pd


class RankScore(Document):
    """One direction and subspace at one rank."""

    rank: int
    source: str
    target: str
    subspace: str
    measure: Literal["iia", "retrieval"]
    """retrieval for targets that cannot be run."""
    score: Share


class LearnedRank(Document):
    """The smallest rank that is enough."""

    rank: int
    """Smallest rank whose worst direction reaches the lower end of the interval of the best rank's worst direction."""
    low: int
    high: int
    """95 % interval: the same rule on 1,000 resamples of the trials."""
    best: int
    """The rank with the best worst direction; of equal ones, the smallest."""
    threshold: float
    """What a rank must reach."""


class RankCurve(StoredDocument):
    """``ranks.json``: scores of a nested fit at every rank."""

    format_version: Literal[1] = 1
    method: str
    part: Literal["train", "validation", "test"]
    n_pairs: int
    seed: int
    oracles: tuple[str, ...] = ()
    ranks: tuple[int, ...]
    learned: LearnedRank
    scores: tuple[RankScore, ...] = Field(repr=False)
    alignment_sha256: Sha256
    provenance: Provenance

    def worst(self) -> dict[int, float]:
        """Rank → score of its worst direction, over the directions that decide."""
        measures = {row.measure for row in self.scores}
        measure = "iia" if "iia" in measures else "retrieval"
        return {
            rank: min(row.score.value for row in self.scores if row.rank == rank and row.measure == measure)
            for rank in self.ranks
        }

    def to_dataframe(self) -> pd.DataFrame:
        """A row per rank, direction and subspace.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame([row.model_dump(exclude={"score"}) | row.score.model_dump() for row in self.scores])

    def verdict(self) -> str:
        """The learned rank in a sentence."""
        learned = self.learned
        return (
            f"rank {learned.rank} is enough (95 % interval {learned.low} to {learned.high}): the smallest whose worst direction"
            f" reaches {learned.threshold:.3f}, the lower end of the interval of rank {learned.best}"
        )

    def __repr__(self) -> str:
        lines = [f"  rank {rank:4}: {value:.3f}" for rank, value in self.worst().items()]
        return "\n".join([f"<RankCurve of {self.method}: {self.verdict()}>", *lines])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [[str(rank), f"{value:.3f}"] for rank, value in self.worst().items()]
        return table(["rank", "worst direction"], rows, caption=self.method, note=self.verdict())
