"""Documents of a system: what it is, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from neuromas.schema.document import Name, Provenance, Seed, Sha256, Shell, StoredDocument


class SystemConfig(StoredDocument):
    """A trained network: the file ``config.json`` beside its weights."""

    format_version: Literal[1] = 1
    kind: str = "gru"
    """Kind of network that the weights belong to: ``gru``, ``lstm`` or ``transformer``."""
    name: Name
    """Name of the system, such as ``gru-0``."""
    task: str
    """Name of the task that the network does."""
    vocabulary: tuple[str, ...]
    """Tokens of the task; a token's number is its position here."""
    n_units: int = Field(default=128, gt=0)
    """Width of the latent. For an LSTM, the width of h and c together."""
    n_hidden: int = Field(default=512, gt=0)
    """Width of the readout's hidden layer."""
    n_layers: int = Field(default=2, gt=0)
    """Transformers: number of layers."""
    n_heads: int = Field(default=1, gt=0)
    """Transformers: attention heads in each layer."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the readout's hidden units that training drops."""
    seed: int = 0
    """Seed of weights, batches and dropout."""
    iterations: int = 0
    """Iterations that the network was trained for."""
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Share of held-out trials with every deterministic token correct."""
    weights_sha256: Sha256 | None = None
    """SHA-256 of the file of weights."""
    provenance: Provenance = Provenance()


class LanguageModelCard(StoredDocument):
    """The task that a language model does, and its words for it: the file ``neuromas.json`` beside its weights.

    The rest of a `SystemConfig` (layer, widths, hash) is read from the model itself.
    """

    format_version: Literal[1] = 1
    task: str = "in-context"
    """Name of the task that the language model does."""
    prompt: str | None = None
    """Text that the begin token of the task stands for; by default the prompt of the in-context task."""
    words: dict[str, str] = Field(default_factory=dict)
    """Token of the task → its text. A token that is not listed is written as a space and the token itself."""
    name: Name | None = None
    """Name of the system; by default the name of the folder."""
    dtype: str | None = None
    """Type of the weights in memory, such as ``float32``."""
    seed: int = 0
    """Seed of weights and batches, if neuromas trained the model."""
    iterations: int = 0
    """Iterations that neuromas trained the model for."""
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Share of held-out trials with every deterministic token correct."""
    provenance: Provenance = Provenance()


SYSTEM_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*(@[A-Za-z0-9._-]+)?$"
SystemName = Annotated[str, Field(pattern=SYSTEM_PATTERN, max_length=200)]
"""Name of a system that is shipped or declared by a sweep, such as ``multi-object/gru-0``. A layer may follow:
``multi-object/gru-0@embedding``."""


class TrainSpec(StoredDocument):
    """What decides a network: its task, its kind, and how long it is trained.

    Sweeps keep it as part of what identifies a job, so its fields and their defaults do not change. A person asks for a network
    with a `TrainRequest`.
    """

    task: Annotated[str, Shell(metavar="TASK", positional=True)]
    """Name of the task, such as ``multi-object``."""
    options: Annotated[
        dict[str, JsonValue], Shell(name="--task-option", metavar="KEY=VALUE", keys=("void", "hold_out"))
    ] = Field(default_factory=dict)
    """Options of the task, such as ``{"void": 0.2, "hold_out": [4, 9]}``."""
    kind: Annotated[str, Shell(name="--system", metavar="KIND")] = "gru"
    """Kind of network: ``gru``, ``lstm``, ``transformer`` or ``llama``."""
    seed: Seed = 0
    """Seed of weights, batches and dropout."""
    memory: int = Field(default=0, ge=0)
    """Recurrent networks: how many steps the gates are set to remember before training; 0 leaves them as PyTorch sets them."""
    n_units: int = Field(default=128, gt=0)
    """Width of the latent."""
    target_accuracy: float = Field(default=0.999, ge=0, le=1)
    """Training stops after two validations in a row with at least this share of held-out trials correct."""
    min_iterations: int = Field(default=2_000, ge=0)
    """Training goes on for at least this many iterations."""
    max_iterations: int = Field(default=20_000, gt=0)
    """Training stops after this many iterations."""


class TrainRequest(TrainSpec):
    """A network to train: every option of ``neuromas train`` and of `neuromas.train`."""

    format_version: Literal[1] = 1
    name: Name | None = None
    """Name of the system; by default kind and seed, such as ``gru-0``."""
    min_iterations: int | None = Field(default=None, ge=0)  # type: ignore[assignment]
    """Training goes on for at least this many iterations; by default 2,000, and 0 for a llama."""
    max_iterations: int | None = Field(default=None, ge=0)  # type: ignore[assignment]
    """Training stops after this many iterations; by default 20,000, and 5,000 for a llama."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Largest learning rate. It is reached after 100 iterations and then falls with the square root of the iteration."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the weights, decoupled from the gradient as in AdamW."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Share of the readout's hidden units that training drops; by default 0.5."""
    validate_every: int | None = Field(default=None, gt=0)
    """Iterations from one validation to the next; by default 250, and 100 for a llama."""
    n_held_out: int | None = Field(default=None, gt=0)
    """Held-out trials in each validation; by default 2,000, and 1,000 for a llama."""
