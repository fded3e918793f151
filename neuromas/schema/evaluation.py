"""Documents of an evaluation: scores of an alignment on held-out pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from neuromas.html import table
from neuromas.schema.document import Document, Provenance, Seed, Sha256, StoredDocument
from neuromas.schema.twin import TwinQuality

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_SCORES = 60


class ValueScore(Document):
    """Pairs with one combination of expected values."""

    values: dict[str, str]
    n_pairs: int
    n_missed: int
    """Pairs without a counterfactual latent."""
    iia: float | None


class SourceTargetScore(Document):
    """Pairs whose source and target hold these values."""

    source: dict[str, str]
    """Values of the source, by its own variable names."""
    target: dict[str, str]
    """Values of the target before the interchange."""
    n_pairs: int
    iia: float


class DirectionScore(Document):
    """Scores of one method in one direction, on held-out pairs."""

    method: str
    source: str
    target: str
    ran: bool
    """Whether the fit ran the target; false if it only read the target's recording."""
    oracle: bool
    """Whether the evaluation ran a live copy of a read-only target for this IIA. The fit never saw the copy."""
    iia: float | None
    """Share of pairs with every deterministic token right; null if the target could not be run."""
    low: float | None
    high: float | None
    """95 % interval: Clopper-Pearson, wider where pairs share trials (`icc`). Up to format version 2 it was a bootstrap over
    pairs, which is too narrow near 0 and 1."""
    icc: float | None = None
    """Intraclass correlation: the mean correlation between two pairs that share a trial. null if it could not be measured: no
    pairs share a trial, or all are right or all are wrong."""
    iia_sd: float | None = None
    """Control ``random``, whose scores are means over several rotations: standard deviation of the IIA over these."""
    iia_twin: float | None = None
    """The same share if the twin that no fit saw answers for the target: an estimate of the IIA of a target that can only be
    read. null without a twin, and if the twin is poor. docs/twins.md says how far it is from the truth."""
    iia_twin_low: float | None = None
    iia_twin_high: float | None = None
    """95 % interval over pairs. The error of the twin itself comes on top."""
    token_accuracy: float | None
    """Share of deterministic tokens that are right."""
    token_low: float | None = None
    token_high: float | None = None
    """95 % interval of `token_accuracy`, as that of the IIA. A pair counts once at most."""
    n_pairs: int
    n_missed: int
    """Pairs whose expected values were never recorded in the held-out part of the target."""
    coverage: float
    """Share of pairs whose expected values were recorded there."""
    cl_loss: float | None
    """Held-out counterfactual-latent loss (eqs. 8, 9); null for the ceiling, which would be compared with itself."""
    cl_spread: float | None
    """The same loss between two different counterfactual latents of equal values. A perfect prediction of their mean has half
    of it."""
    l2_ratio: float | None = None
    """Mean L2 distance from counterfactual latents, divided by that between two different ones of equal values: 1 for natural
    latents, about 0.7 for their means; null if equal values always have equal latents."""
    cosine_ratio: float | None = None
    """The same ratio of 1 − cosine: 1 for natural latents, about 0.5 for their means."""
    wasserstein: float | None = None
    """Sliced Wasserstein distance between the cloud of intervened latents and that of counterfactual latents, in units of the
    activity. It compares clouds: a natural latent with unexpected values adds little."""
    wasserstein_natural: float | None = None
    """The same distance between two draws of counterfactual latents: the value that chance gives for this number of pairs."""
    outside: float | None = None
    """Share of intervened latents outside the ellipsoid that holds 99 % of natural latents of any value."""
    outside_natural: float | None = None
    """The same share of counterfactual latents."""
    mahalanobis_ratio: float | None = None
    """Median Mahalanobis distance from the mean of natural latents, divided by that of counterfactual latents."""
    retrieval: float | None
    """Share of intervened latents whose nearest mean latent holds the expected values. The means come from a part of the
    recording that the fit was not trained on and that these pairs do not come from."""
    retrieval_low: float | None = None
    retrieval_high: float | None = None
    """95 % interval of `retrieval`, as that of the IIA."""
    retrieval_icc: float | None = None
    """Intraclass correlation of `retrieval`."""
    retrieval_ceiling: float | None
    """The same share of counterfactual latents."""
    retrieval_chance: float | None = None
    """The same share by chance: if expected and retrieved values were independent, each with its own frequency."""
    pattern: float | None = None
    """Correlation over values and units between mean intervened latents and mean recorded latents of equal values (the means of
    `retrieval`), each unit centred over values; null with fewer than two values."""
    pattern_ceiling: float | None = None
    """The correlation that the true means would reach: the square root of the split-half reliability (Spearman-Brown) of the
    recorded means. It is the same for every method, and uncertain with few values and units. Null with fewer than three values,
    if each value was recorded once, and for pseudo-populations that use a trial more than once."""
    trained: bool | None = None
    """Whether the fit was trained in this direction: a stitch is trained in one of several. False for controls. null: not
    known, as in evaluations of format version 2."""
    threads: int | None = None
    """Threads that the fit computed with. Another number changes the rounding; null: not known."""
    repeated_source: float | None = None
    repeated_target: float | None = None
    """Share of the held-out latents of the source, and of the target, that are bit-identical to a training latent of the same
    system. There, a held-out pair tests nothing that the fit has not seen."""
    subspace: str = ""
    """Only pairs that interchange this subspace; empty: all pairs. With one subspace, there is only that row."""
    right: str | None = Field(default=None, repr=False)
    """A digit per pair: 1 if it is right, 0 if not. null if the target could not be run, and for means over several rotations."""
    retrieved: str | None = Field(default=None, repr=False)
    """The same for `retrieval`; a dot for a pair that cannot be decoded."""
    by_value: tuple[ValueScore, ...] = Field(default=(), repr=False)
    by_source_target: tuple[SourceTargetScore, ...] = Field(default=(), repr=False)
    """Combinations of values that occur, if the target was run. Controls have none, except ``none``."""


class PairTrials(Document):
    """Which trials the pairs of a direction come from: for tests that compare two evaluations of the same pairs."""

    source: str
    target: str
    pairs_sha256: Sha256
    """Hash of the samples and subspaces of the pairs. Where it is equal, two evaluations scored the same pairs."""
    source_trials: str = Field(repr=False)
    target_trials: str = Field(repr=False)
    """The trial of each pair's source and of its target, in the order of the pairs, separated by spaces."""
    subspace_names: tuple[str, ...] = ()
    subspaces: str = Field(default="", repr=False)
    """The subspace that each pair interchanges, by its place in `subspace_names`; empty if there is only one."""


_NOT_IN_TABLES = ("right", "retrieved", "by_value", "by_source_target")
SCORE_COLUMNS = tuple(name for name in DirectionScore.model_fields if name not in _NOT_IN_TABLES)
"""Columns of ``iia.csv`` and of `Evaluation.to_dataframe`."""


class Evaluation(StoredDocument):
    """``evaluation.json``: held-out scores of an alignment, with its controls."""

    format_version: Literal[3] = 3
    """Earlier versions are still read. Version 1 said ``access`` (yes, no) instead of `ran` (true, false). Version 2 had no
    intraclass correlations, no intervals of retrieval and tokens, no outcomes of single pairs, and one random rotation."""
    part: Literal["train", "validation", "test"]
    n_pairs: int
    seed: int
    oracles: tuple[str, ...]
    """Read-only systems of which this evaluation ran a live copy."""
    oracle_weights: dict[str, Sha256] = Field(default_factory=dict)
    """SHA-256 of the weights of each live copy, where they have one."""
    warnings: tuple[str, ...] = ()
    """The same as those of the fit."""
    tolerances: dict[str, dict[str, float]] = Field(default_factory=dict)
    """System → variable → largest difference between the expected value and that of a counterfactual latent, as in the fit."""
    controls: tuple[str, ...] = ()
    """The controls that were asked for. A control that does not apply has no score: a wrong variable needs two subspaces."""
    scores: tuple[DirectionScore, ...]
    twins: dict[str, TwinQuality] = Field(default_factory=dict)
    """System → how good the twin is that judged alignments with it."""
    pairs: tuple[PairTrials, ...] = Field(default=(), repr=False)
    """The trials of the pairs of each direction."""
    threads: int | None = None
    """Threads that the evaluation computed with."""
    provenance: Provenance

    @model_validator(mode="before")
    @classmethod
    def _from_earlier_versions(cls, document: Any) -> Any:
        if not isinstance(document, dict) or document.get("format_version", 3) not in (1, 2):
            return document
        scores = document.get("scores")
        if document["format_version"] == 1 and isinstance(scores, (list, tuple)):
            scores = [_with_ran(score) for score in scores]
        return {**document, "format_version": 3} | ({"scores": scores} if "scores" in document else {})

    def like(self, other: Evaluation) -> bool:
        """Whether `other` scored the same things with the same options."""
        options = ("part", "n_pairs", "seed", "oracles", "oracle_weights", "controls")
        rows = ("method", "source", "target", "subspace")
        same_rows = [[tuple(getattr(score, name) for name in rows) for score in each.scores] for each in (self, other)]
        return same_rows[0] == same_rows[1] and all(getattr(self, name) == getattr(other, name) for name in options)

    def to_dataframe(self) -> pd.DataFrame:
        """The scores as a table.

        Returns
        -------
        pandas.DataFrame
            A row per method, direction and subspace; columns as in ``iia.csv``, NaN where nothing was measured.
        """
        import pandas as pd

        rows = [score.model_dump(include=set(SCORE_COLUMNS)) for score in self.scores]
        measured = {
            name: float for name in SCORE_COLUMNS if DirectionScore.model_fields[name].annotation == float | None
        }
        return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype(
            measured | {"trained": "boolean", "threads": "Int64"}
        )

    def __repr__(self) -> str:
        columns, rows = self._shown()
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (columns, *rows)
        ]
        return "\n".join(filter(None, [f"<{self._headline()}>", *lines, self._footnote()]))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        columns, rows = self._shown()
        return table(columns, rows, caption=self._headline(), note=self._footnote())

    def _headline(self) -> str:
        oracles = f", oracles: {', '.join(self.oracles)}" if self.oracles else ""
        return f"Evaluation: {len(self.scores)} scores, {self.n_pairs:,} {self.part} pairs per direction{oracles}"

    def _footnote(self) -> str:
        hidden = len(self.scores) - _SHOWN_SCORES
        more = [f"… {hidden} more scores; to_dataframe() has all of them"] if hidden > 0 else []
        return "\n".join([*more, *(f"warning: {warning}" for warning in self.warnings)])

    def _shown(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the short table."""
        several = any(score.subspace for score in self.scores)
        columns = [
            "method",
            "source",
            "target",
            *(["subspace"] if several else []),
            "ran",
            "iia",
            "95 % interval",
            "icc",
        ]
        rows = []
        for score in self.scores[:_SHOWN_SCORES]:
            names = [score.method, score.source, score.target, *([score.subspace or "all"] if several else [])]
            interval = "–" if score.low is None or score.high is None else f"{score.low:.3f}–{score.high:.3f}"
            measured = [_number(value) for value in (score.icc, score.cl_loss, score.coverage)]
            rows.append([*names, str(score.ran), _number(score.iia), interval, *measured])
        return [*columns, "cl_loss", "coverage"], rows


def _with_ran(score: Any) -> Any:
    """A score of format version 1, with `ran` in place of ``access``."""
    if not isinstance(score, dict) or score.get("access") not in ("yes", "no"):
        return score
    return {**{name: value for name, value in score.items() if name != "access"}, "ran": score["access"] == "yes"}


def _number(value: float | None) -> str:
    # + 0.0: no minus zero
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


class EvaluationSpec(Document):
    """How a fit is scored: the options of `neuromas.evaluation.accuracy.evaluate`."""

    n_pairs: int = Field(default=1_000, gt=0)
    """Held-out pairs per direction."""
    controls: tuple[str, ...] = ("none", "random", "wrong-variable")
    """Controls to score beside the method. If some are missing, a finished fit is scored again, not fitted again."""
    directions: tuple[tuple[int, int], ...] | None = None
    """(source, target) by position among the fit's systems; null: every direction of the alignment."""
    part: Literal["train", "validation", "test"] = "test"
    seed: Seed = 0
