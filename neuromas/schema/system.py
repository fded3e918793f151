"""Documents of a system: what it is, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from neuromas.schema.document import Document, Name, Provenance, Sha256, Shell


class SystemConfig(Document):
    """A trained network, as saved beside its weights."""

    format_version: Literal[1] = 1
    kind: str = "gru"
    """Which class the weights belong to, by its name in ``SYSTEMS`` where it can be saved and loaded: ``gru``, ``lstm``,
    ``transformer``."""
    name: Name
    task: str
    vocabulary: tuple[str, ...]
    n_units: int = Field(default=128, gt=0)
    """Width of the latent; of h and c together for an LSTM."""
    n_hidden: int = Field(default=512, gt=0)
    """Width of the readout's hidden layer."""
    n_layers: int = Field(default=2, gt=0)
    """Transformers only."""
    n_heads: int = Field(default=1, gt=0)
    """Transformers only."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    seed: int = 0
    iterations: int = 0
    """Optimiser updates done."""
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Share of held-out trials with every deterministic token right."""
    weights_sha256: Sha256 | None = None
    provenance: Provenance = Provenance()


class LanguageModelCard(Document):
    """What a language model is asked to do: the file ``neuromas.json`` beside its weights.

    The rest of a `SystemConfig` (layer, widths, hash) follows from the model itself.
    """

    format_version: Literal[1] = 1
    task: str = "in-context"
    prompt: str | None = None
    """What the task's begin token stands for; by default the prompt of the in-context task."""
    words: dict[str, str] = Field(default_factory=dict)
    """Token of the task → text, where that is not the token itself after a space."""
    name: Name | None = None
    """Name of the system. By default KIND-SEED."""
    dtype: str | None = None
    """Numbers that the weights are kept in, e.g. ``float32``."""
    seed: int = 0
    iterations: int = 0
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    provenance: Provenance = Provenance()


SYSTEM_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*(@[A-Za-z0-9._-]+)?$"
SystemName = Annotated[str, Field(pattern=SYSTEM_PATTERN, max_length=200)]
"""Shipped, or one that a sweep declares, e.g. ``multi-object/gru-0``; a layer may follow: ``multi-object/gru-0@embedding``."""


class TrainSpec(Document):
    """How a network is made: what `neuromas.systems.training.train` takes."""

    task: Annotated[str, Shell(metavar="TASK", positional=True)]
    options: Annotated[
        dict[str, JsonValue], Shell(name="--task-option", metavar="KEY=VALUE", keys=("void", "hold_out"))
    ] = Field(default_factory=dict)
    """Of the task, e.g. ``{"void": 0.2}``."""
    kind: Annotated[str, Shell(name="--system", metavar="KIND")] = "gru"
    seed: int = Field(default=0, ge=0)
    memory: int = Field(default=0, ge=0)
    """Steps that the gates of a recurrent network remember at first."""
    n_units: int = Field(default=128, gt=0)
    target_accuracy: float = Field(default=0.999, ge=0, le=1)
    min_iterations: int = Field(default=2_000, ge=0)
    max_iterations: int = Field(default=20_000, gt=0)


class TrainRequest(TrainSpec):
    """Train a network on a task."""

    name: Name | None = None
    """Name of the system. By default KIND-SEED."""
