"""Documents of a twin: how it is learnt, what it is of, and how good it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuromas.schema.document import Document, Provenance, Seed, Sha256, StoredDocument

KindOfTwin = Literal["auto", "gru", "mlp", "linear"]


class TwinConfig(Document):
    """How a twin is learnt."""

    format_version: Literal[1] = 1
    kind: KindOfTwin = "auto"
    """Kind of the twins that a fit uses. auto: the one that predicts held-out behaviour best after a short training."""
    judge_kind: KindOfTwin = "auto"
    """Kind of the twin that judges. auto: as `kind`."""
    inputs: tuple[str, ...] | None = None
    """What the system was fed: ``token``, or variables. null: ``token`` if the recording has it, else nothing."""
    behaviour: str | None = None
    """Coordinate with what the system itself did. null: the one that the recording's manifest names."""
    n_twins: int = Field(default=3, gt=0)
    """Number of twins that a fit uses in turn."""
    n_hidden: int = Field(default=256, gt=0)
    """Width of hidden layers."""
    rollout: int = Field(default=24, gt=0)
    """Steps over which a twin is rolled in training."""
    noise: float = Field(default=0.1, ge=0)
    """Noise on the start of a rollout, as a share of each unit's standard deviation."""
    batch_size: int = Field(default=64, gt=0)
    """Rollouts per iteration."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate at the start; it falls to 0 along a cosine. null: 0.01 for gru, 0.003 for mlp, 0.001 for linear."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decay of the weights, decoupled from the gradient as in AdamW."""
    max_iterations: int = Field(default=800, gt=0)
    """Largest number of iterations."""
    validate_every: int = Field(default=100, gt=0)
    """Iterations between two validations. A checkpoint is written at each."""
    patience: int = Field(default=4, gt=0)
    """Number of validations in a row without progress after which training stops."""
    tolerance: float = Field(default=0.01, ge=0)
    """Relative decrease of the validation loss that counts as progress."""
    fractions: dict[Literal["train", "validation", "test"], float] = Field(
        default={"train": 0.6, "validation": 0.2, "test": 0.2}
    )
    """Share of the trials in each part, as in a fit."""
    seed: Seed = 0
    """Seed of parts, weights, batches and noise."""


class TwinInput(Document):
    """An input of a twin."""

    name: str
    codes: tuple[int, ...] | None = None
    """Codes of a category or token, ascending. null: a number."""
    mean: float = 0.0
    sd: float = 1.0
    """Mean and standard deviation of a number, by which it is standardised."""


class TwinBehaviour(Document):
    """What a twin answers."""

    name: str
    codes: tuple[int, ...]
    """Codes of the answers, ascending."""
    tokens: bool = False
    """Whether the answers are tokens of the recording's vocabulary."""
    shown_next: bool = False
    """Whether they are the tokens that the system was shown next, taken for its own answers."""


class TwinMember(Document):
    """One of the models of a twin, and how its training went."""

    role: str
    """twin-0, twin-1, …: a fit runs them in turn. referee: chooses among the checkpoints of a fit. judge: judges a finished fit,
    which never saw it."""
    kind: str
    seed: int
    n_trials: int
    """Training trials. Those of the judge are others than those of the rest."""
    iterations: int
    best_iteration: int
    loss: float
    """Validation loss: error of the latents as a share of their variance, plus cross-entropy of the behaviour."""
    weights_sha256: Sha256


class TwinQuality(Document):
    """How good a model is on held-out trials."""

    role: str
    kind: str
    r2: float
    """One-step R² over all units: 1 minus squared error over variance."""
    r2_no_change: float
    """The same if the latent stays as it is."""
    r2_linear: float
    """The same of a linear function of latent and input, fitted to the training trials by least squares."""
    r2_by_unit: tuple[float, ...] = Field(default=(), repr=False)
    """R² of each unit."""
    ceiling_by_unit: tuple[float | None, ...] = Field(default=(), repr=False)
    """Noise ceiling of each unit: the share of its variance that step and variables explain. A model that sees the latent itself
    may exceed it. null if no combination of step and variables was recorded twice."""
    ceiling: float | None
    """Mean of `ceiling_by_unit`, weighted by the units' variances."""
    rollout: tuple[float, ...]
    """R² after 1, 2, 3, … steps on its own predictions with the recorded inputs."""
    behaviour: float
    """Share of answers that are predicted, from recorded latents."""
    behaviour_low: float
    behaviour_high: float
    """95 % interval (Clopper-Pearson)."""
    behaviour_chance: float
    """Share of the commonest answer."""
    cl_ceiling: float | None
    """Share of recorded latents from which the model behaves as the causal model says for their values, to the end of the trial.
    It is what a perfect interchange could reach. null without a causal model of the task."""
    cl_ceiling_low: float | None
    cl_ceiling_high: float | None


class TwinCard(StoredDocument):
    """``twin.json``: what a twin is of, how it was learnt, and how good it is."""

    format_version: Literal[1] = 1
    recording: str
    """Name of the recording, with its set if it was stored."""
    content_sha256: Sha256
    """Hash of the recording's content. A twin stands in for no other recording."""
    system: str
    task: str = ""
    units: tuple[str, ...]
    vocabulary: tuple[str, ...] | None = None
    config: TwinConfig
    inputs: tuple[TwinInput, ...]
    behaviour: TwinBehaviour
    longest: int
    """Steps of the longest trial; a twin runs no further."""
    n_trials: int
    race: dict[str, float] = Field(default_factory=dict)
    """Kind → cross-entropy of held-out behaviour after the short training that chose among the kinds."""
    members: tuple[TwinMember, ...]
    quality: tuple[TwinQuality, ...]
    verdict: Literal["good", "poor"]
    """Whether `iia_twin` is reported. good: the judge reaches the limits in `reasons`."""
    reasons: tuple[str, ...] = ()
    """Why a twin is poor, in words."""
    warnings: tuple[str, ...] = ()
    provenance: Provenance

    def quality_of(self, role: str) -> TwinQuality:
        """How good the member with this role is."""
        return next(quality for quality in self.quality if quality.role == role)
