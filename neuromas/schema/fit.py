"""Documents of a fit: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from neuromas.schema.document import Access, Document, Provenance, Sha256, Shell


class FitConfig(Document):
    """Everything that decides a fit, except the systems themselves."""

    format_version: Literal[1] = 1
    method: Annotated[
        Literal["das", "mas", "clmas", "stitch", "latent-stitch"], Shell(metavar="METHOD", positional=True)
    ]
    """Which directions carry which loss; see `neuromas.fit.fitters`."""
    subspaces: Annotated[
        dict[str, Annotated[int, Field(gt=0)]] | None, Shell(name="--rank", metavar="N|VARIABLE=N,…", bare="full")
    ] = Field(default={"full": 16}, min_length=1)
    """Rank of each disjoint block, by variable, by variables joined with ``+``, or ``full``; null: full, at full width."""
    variables: tuple[str, ...] | None = Field(default=None, min_length=1)
    """What is compared, the columns of V*; null: the causal model's, or all that the recordings share."""
    roles: dict[str, dict[str, str]] | None = None
    """Variables that are called differently in each system: shared name → system or task → its own variable, e.g.
    ``{"number": {"multi-object": "count", "arithmetic": "rem_ops"}}``. Subspaces may then be named after the shared name."""
    values: dict[str, tuple[float, ...]] | None = None
    """Variable (or shared name) → values: pairs are drawn only from samples in which it holds one of these. Counterfactual
    latents hold what is expected of them, or with a tolerance what is near it, whatever is listed here."""
    task_options: dict[str, dict[str, JsonValue]] | None = None
    """Task → options of its causal model, e.g. ``{"multi-object": {"hold_out": [13, 14]}}``: what its systems are recorded on,
    what pairs are drawn from, and what follows an interchange."""
    stepwise: bool = False
    """Interchange at every step up to the source's, where the target's tokens are padded with responses."""
    map: Literal["orthogonal", "linear"] = "orthogonal"
    """R = λQ (the paper), or z = A Uᵀ(h − μ), a weaker claim about similarity."""
    rotation: Literal["matrix-exponential", "gram-schmidt", "cayley", "householder"] = "matrix-exponential"
    """Parametrisation of the orthonormal columns."""
    init: Literal["random", "closed-form"] = "random"
    """Where iterations start: random columns, or from mean latents per value."""
    solver: Literal["gradient", "closed-form"] = "gradient"
    """Latent Stitch only: ``closed-form`` is orthogonal Procrustes on the L2 term."""
    direction: Annotated[tuple[str, str] | None, Shell(metavar="SOURCE,TARGET")] = None
    """Stitch and Latent Stitch: names of source and target."""
    learn_scale: bool = True
    """Whether λ of an orthogonal map is fitted, or stays where it starts."""
    epsilon: float = Field(default=0.85, ge=0)
    """Weight of the counterfactual-latent loss."""
    weighting: Literal["sum", "convex"] = "sum"
    """L + ε·L_CL, or (1 − ε)·L + ε·L_CL."""
    cl_directions: Literal["read", "all"] = "read"
    """Which targets carry the counterfactual-latent loss: those that can only be read, or all."""
    cl_draw: Literal["fresh", "fixed"] = "fresh"
    """A new counterfactual latent at every use of a pair, or one for good."""
    cl_matches: int = Field(default=1, gt=0)
    """Recorded latents whose mean is the counterfactual latent; more than 1 for noisy recordings."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Continuous variable (or shared name) → by how much a counterfactual latent's value may be off; others must be equal."""
    cl_terms: Literal["both", "l2", "cosine"] = "both"
    """Distances to counterfactual latents that count; both: their mean (eq. 9)."""
    loss_tokens: Literal["all", "deterministic"] = "all"
    """Tokens of the continuation that count in the behavioural loss."""
    batch_size: int = Field(default=512, gt=0)
    """Pairs per direction and iteration."""
    n_train_pairs: int = Field(default=10_000, gt=0)
    """Per direction."""
    n_validation_pairs: int = Field(default=1_000, gt=0)
    """Per direction."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate stays, or falls to 0 along a cosine."""
    max_iterations: int = Field(default=20_000, ge=0)
    validate_every: int = Field(default=50, gt=0)
    """Iterations between two looks at the validation pairs, and two checkpoints."""
    patience: int = Field(default=10, gt=0)
    """Stop after so many validations in a row without `tolerance` gained."""
    tolerance: float = Field(default=1e-3, ge=0)
    """Relative fall of the validation loss that counts as gained."""
    select: Literal["loss", "iia"] = "loss"
    """What chooses the checkpoint; IIA counts only directions whose target the fit may run."""
    n_trials: int = Field(default=2_000, gt=0)
    """Fresh trials on which systems that can be run are recorded."""
    only_solved: bool = False
    """Of these, keep only trials that the system solves."""
    fractions: dict[Literal["train", "validation", "test"], float] = Field(
        default={"train": 0.6, "validation": 0.2, "test": 0.2}
    )
    """Shares of the trials."""
    seed: int = Field(default=0, ge=0)
    """Decides trials, split, pairs, start, batches and draws."""

    @field_validator("task_options", mode="before")
    @classmethod
    def _as_lists(cls, given: Any) -> Any:
        """Numbers as Python has them, a range or an array say, as lists."""
        if isinstance(given, Mapping):
            return {key: cls._as_lists(value) for key, value in given.items()}
        if hasattr(given, "tolist"):
            return given.tolist()
        return list(given) if isinstance(given, (range, tuple, set, frozenset)) else given

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        stitching = self.method in ("stitch", "latent-stitch")
        if self.subspaces is None and not stitching:
            raise ValueError(
                f"method {self.method!r} needs subspaces with a rank; only stitching defaults to full width"
            )
        if stitching and self.subspaces is not None and len(self.subspaces) > 1:
            raise ValueError(
                f"method {self.method!r} replaces the whole latent: expected one subspace, got {len(self.subspaces)}"
            )
        if self.stepwise and self.method in ("clmas", "latent-stitch"):
            raise ValueError(f"stepwise interchanges need systems that run; method {self.method!r} reads recordings")
        if self.direction is not None and not stitching:
            raise ValueError(f"direction is for stitch and latent-stitch, not {self.method!r}")
        if self.solver == "closed-form" and self.method != "latent-stitch":
            raise ValueError(f"solver 'closed-form' is for latent-stitch, not {self.method!r}")
        if stitching and self.map == "linear":
            raise ValueError(f"method {self.method!r} is an orthogonal map; map='linear' is for das, mas and clmas")
        if self.weighting == "convex" and self.epsilon > 1:
            raise ValueError(f"weighting 'convex' needs epsilon in 0..1, got {self.epsilon}")
        if set(self.fractions) != {"train", "validation", "test"} or min(self.fractions.values()) <= 0:
            raise ValueError(f"fractions needs train, validation and test, each above 0; got {self.fractions}")
        return self


class FitInput(Document):
    """One system as it entered a fit, with enough to find it again."""

    name: str
    access: Access
    n_units: int
    n_samples: int
    """Eligible samples, complete in the units taken."""
    n_incomplete: int = 0
    """Eligible samples left out because a unit was not recorded."""
    n_by_part: dict[str, int] = Field(default_factory=dict)
    """``n_samples`` in train, validation and test; a pseudo-population brings its own shares."""
    units: tuple[str, ...] | None = None
    """Units taken; null: all."""
    system: str | None = None
    """Name of the network, where one was run; the request beside a result says where it lies."""
    layer: str | None = None
    """Whose activity was its latent."""
    weights_sha256: Sha256 | None = None
    recording: str | None = None
    """SET/RECORDING, where a recording was read."""
    content_sha256: Sha256 | None = None
    """Of the recording's content."""
    mapping: dict[str, Any] | None = None


class FitRequest(Document):
    """A fit as the command line takes it from a file: systems and configuration."""

    format_version: Literal[1] = 1
    config: FitConfig
    systems: Annotated[tuple[str, ...], Shell(name="--system", metavar="DIR[@LAYER]", whole=True)] = ()
    """Folders, or names of shipped systems, that may be run."""
    read: Annotated[tuple[str, ...], Shell(metavar="SET/RECORDING", whole=True)] = ()
    """SET/RECORDING names that may only be read."""
    units: dict[str, tuple[str, ...]] | None = None
    mapping: dict[str, dict[str, Any]] | None = None
    store: str | None = None
    """Path of the recording store; null: the one that is resolved where the fit is run."""


class Validation(Document):
    """One look at the validation pairs."""

    iteration: int
    train_loss: float | None
    loss: float
    """Validation loss, the objective itself."""
    behaviour: dict[str, float] = Field(default_factory=dict)
    """Behavioural loss by direction."""
    cl: dict[str, float] = Field(default_factory=dict)
    """Counterfactual-latent loss by direction."""
    iia: dict[str, float] = Field(default_factory=dict)
    """By direction, only where the fit may run the target."""


class Misses(Document):
    """Pairs of one direction whose expected values were never recorded in the target."""

    direction: str
    part: str
    n_pairs: int
    n_missed: int
    resampled: int
    """Draws thrown away because the expected values are impossible."""
    values: dict[str, int] = Field(default_factory=dict)
    """How often each missing combination was asked for."""


class FitReport(Document):
    """``result.json``: what was fitted, how it went, and where it came from."""

    format_version: Literal[1] = 1
    config: FitConfig
    inputs: tuple[FitInput, ...]
    variables: tuple[str, ...]
    """What was compared: the columns of V*."""
    ran: tuple[str, ...]
    """Systems whose behaviour the fit ran; all others were only read."""
    status: Literal["converged", "max_iterations", "closed_form"]
    iterations: int
    best_iteration: int
    seconds: float
    history: tuple[Validation, ...]
    misses: tuple[Misses, ...]
    warnings: tuple[str, ...] = ()
    """What whoever reads this result must know, e.g. that a brain's units were not recorded together."""
    identity: Sha256
    """Hash of configuration and inputs: equal identity, equal fit."""
    alignment_sha256: Sha256
    provenance: Provenance
