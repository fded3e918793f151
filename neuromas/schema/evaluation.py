"""Documents of an evaluation: how an alignment does on held-out pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuromas.schema.document import Document, Provenance


class ValueScore(Document):
    """Pairs that ask for one combination of values."""

    values: dict[str, str]
    n_pairs: int
    n_missed: int
    """Pairs without a counterfactual latent."""
    iia: float | None


class SourceTargetScore(Document):
    """Pairs whose source and target hold these values."""

    source: dict[str, str]
    """What the source holds, by its own variable names."""
    target: dict[str, str]
    """What the target held before."""
    n_pairs: int
    iia: float


class DirectionScore(Document):
    """How one method does in one direction, on held-out pairs."""

    method: str
    source: str
    target: str
    access: Literal["yes", "no"]
    """Whether the fit could run the target, or only read it."""
    oracle: bool
    """Whether a live copy of a read-only target was run to get this IIA; the fit never saw it."""
    iia: float | None
    """Share of pairs with every deterministic token right; null where nothing could be run."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over pairs."""
    token_accuracy: float | None
    """Share of deterministic tokens that are right."""
    n_pairs: int
    n_missed: int
    """Pairs whose expected values are not recorded in the held-out part of the target."""
    coverage: float
    """Share of pairs whose expected values are."""
    cl_loss: float | None
    """Held-out counterfactual-latent loss (eqs. 8, 9); null for the ceiling, which would be compared with itself."""
    cl_spread: float | None
    """The same between two different counterfactual latents of equal values; a perfect prediction of their mean has half."""
    l2_ratio: float | None = None
    """Mean L2 distance from counterfactual latents, over that between two different ones of equal values: 1 for natural
    latents, about 0.7 for their means; null where equal values always have equal latents."""
    cosine_ratio: float | None = None
    """The same of 1 − cosine: 1 for natural latents, about 0.5 for their means."""
    wasserstein: float | None = None
    """Sliced Wasserstein distance of the cloud of intervened latents from that of counterfactual latents, in units of the
    activity. It compares clouds: a natural latent with other values than those expected adds little."""
    wasserstein_natural: float | None = None
    """The same between two draws of counterfactual latents: what chance alone makes of this number of pairs."""
    outside: float | None = None
    """Share outside the ellipsoid that holds 99 % of natural latents, whatever their values."""
    outside_natural: float | None = None
    """The same of counterfactual latents."""
    mahalanobis_ratio: float | None = None
    """Median Mahalanobis distance from the mean of natural latents, over that of counterfactual latents."""
    retrieval: float | None
    """Share of intervened latents whose nearest mean latent holds the expected values; the means are of a part of the recording
    that neither the fit was trained on nor these pairs come from."""
    retrieval_ceiling: float | None
    """The same for counterfactual latents themselves."""
    retrieval_chance: float | None = None
    """The same if what was expected had nothing to do with what was found, each as frequent as it is."""
    pattern: float | None = None
    """Correlation over values and units of mean intervened latents with mean recorded ones of equal values, those that
    `retrieval` goes by, each unit less its mean over values; null with fewer than two values."""
    pattern_ceiling: float | None = None
    """What the true means would reach: the root of the recorded means' split-half reliability (Spearman-Brown), the same for
    every method. Uncertain where values and units are few; null with fewer than three values, where they were recorded once, and
    for pseudo-populations whose trials were taken more than once."""
    subspace: str = ""
    """Only pairs that interchange this one; empty: all pairs. Where an alignment has one subspace, there is only that row."""
    by_value: tuple[ValueScore, ...] = ()
    by_source_target: tuple[SourceTargetScore, ...] = ()
    """Combinations that occur, where the target was run; empty for controls, but not for ``none``."""


class Evaluation(Document):
    """``evaluation.json``: held-out scores of an alignment with its controls."""

    format_version: Literal[1] = 1
    part: Literal["train", "validation", "test"]
    n_pairs: int
    seed: int
    oracles: tuple[str, ...]
    """Read-only systems of which a live copy was run, by this evaluation only."""
    warnings: tuple[str, ...] = ()
    """As of the fit."""
    tolerances: dict[str, dict[str, float]] = Field(default_factory=dict)
    """System → variable → by how much a counterfactual latent's value could be off; here as in the fit."""
    controls: tuple[str, ...] = ()
    """Those that were asked for; one that means nothing here, a wrong variable where there is one subspace, has no score."""
    scores: tuple[DirectionScore, ...]
    provenance: Provenance


class EvaluationSpec(Document):
    """How a fit is scored: what `neuromas.evaluate.accuracy.evaluate` takes."""

    n_pairs: int = Field(default=1_000, gt=0)
    """Held-out pairs per direction."""
    controls: tuple[str, ...] = ("none", "random", "wrong-variable")
    """Beside every IIA; a finished fit that lacks some is scored again, not fitted again."""
    directions: tuple[tuple[int, int], ...] | None = None
    """(source, target) by position among the fit's systems; null: every direction that the alignment has."""
    part: Literal["train", "validation", "test"] = "test"
    seed: int = Field(default=0, ge=0)
