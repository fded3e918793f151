"""Documents of a sweep: the figure, its jobs, and the results of measures."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from neuromas.files import sha256_bytes
from neuromas.schema.document import Access, Document, Name, Provenance, Sha256, StoredDocument
from neuromas.schema.evaluation import EvaluationSpec
from neuromas.schema.fit import NO_IDENTITY, FitConfig
from neuromas.schema.system import SystemName, TrainSpec


class SweepGroup(Document):
    """Fits or measures of one kind: one for each choice of systems and each combination of settings."""

    label: str = Field(min_length=1)
    tags: dict[str, str] = Field(default_factory=dict)
    """Columns of the table that tell this group from others, e.g. ``{"panel": "a"}``."""
    method: Literal["das", "mas", "clmas", "stitch", "latent-stitch"] | None = None
    measure: str | None = None
    """Name of a measure of `neuromas.measures.registry.MEASURES`, in place of a method."""
    systems: tuple[tuple[SystemName, ...], ...] = Field(min_length=1)
    """Systems of each fit, in its order."""
    read: tuple[int, ...] = ()
    """Positions of systems that the fit gets as a recording only, after all others. The evaluation may run them, as oracles."""
    oracles: bool = True
    """Whether the evaluation runs the systems that were only read."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of FitConfig; for a measure, options of `neuromas.measures.comparison.compare`, and ``n_per_quantity``."""
    axes: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Field of ``config``, dotted where nested (``subspaces.full``), → its values; all combinations are taken."""
    evaluation: EvaluationSpec = EvaluationSpec()

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if (self.method is None) == (self.measure is None):
            raise ValueError(
                f"group {self.label!r} needs either a method or a measure, got {self.method!r} and {self.measure!r}"
            )
        if self.measure is not None and any(len(chosen) != 2 for chosen in self.systems):
            raise ValueError(f"group {self.label!r}: a measure compares 2 systems")
        if self.measure is not None and self.read:
            raise ValueError(f"group {self.label!r}: a measure reads both systems; read= is for fits")
        for chosen in self.systems:
            strange = [place for place in self.read if not 0 <= place < len(chosen)]
            if strange:
                raise ValueError(f"group {self.label!r}: read={strange}, but the systems are {', '.join(chosen)}")
        empty = [axis for axis, values in self.axes.items() if not values]
        if empty:
            raise ValueError(f"group {self.label!r}: no values on axis {', '.join(empty)}")
        return self


class Sweep(StoredDocument):
    """A figure: its systems, and the fits and measures of them."""

    format_version: Literal[1] = 1
    figure: Name
    title: str
    quick: bool = False
    """Whether this is the smaller sweep. The figure says so."""
    note: str = ""
    """What is smaller about it, for a quick one."""
    systems: dict[SystemName, TrainSpec] = Field(default_factory=dict)
    """Systems to train. All other systems that groups name must be shipped."""
    groups: tuple[SweepGroup, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_sweep(self) -> Self:
        if self.quick and not self.note:
            raise ValueError("a quick sweep needs a note that says what is smaller about it")
        layered = [name for name in self.systems if "@" in name]
        if layered:
            raise ValueError(f"systems are declared without a layer, got {', '.join(layered)}")
        labels = [group.label for group in self.groups]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two groups are labelled {', '.join(map(repr, twice))}")
        return self


class JobSystem(Document):
    """A system of a job."""

    name: SystemName
    """Name in the sweep, with the layer if it is not the usual one."""
    access: Access = "intervene"
    made: TrainSpec
    weights_sha256: Sha256 | None = None
    """Null until the system is trained. Part of the job's identity: a fit of a retrained system is another fit."""


class SweepJob(StoredDocument):
    """One fit or measure of a sweep with all of its settings: ``job.json`` beside its result."""

    format_version: Literal[1] = 1
    config: FitConfig | None = None
    measure: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the measure."""
    systems: tuple[JobSystem, ...] = Field(min_length=1)
    oracles: bool = True
    evaluation: EvaluationSpec | None = None

    def identity(self) -> str:
        """SHA-256 of all settings except controls. A new field at its default changes no identity."""
        chosen = self.model_dump(mode="json", exclude_defaults=True)
        chosen.get("evaluation", {}).pop("controls", None)
        for name in NO_IDENTITY:
            chosen.get("config", {}).pop(name, None)
        return sha256_bytes(json.dumps(chosen, sort_keys=True, separators=(",", ":")).encode())


class MeasureReport(StoredDocument):
    """``measure.json``: a measure of two systems on the same trials."""

    format_version: Literal[1] = 1
    job: SweepJob
    options: dict[str, Any]
    """All options of the measure that were used."""
    values: tuple[float, ...] = Field(min_length=1)
    """One per resample."""
    mean: float
    low: float
    """Smallest value of a resample."""
    high: float
    n_trials: int
    n_samples: int
    """In each resample."""
    n_usable: int
    seconds: float
    provenance: Provenance
