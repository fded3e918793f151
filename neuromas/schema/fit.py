"""Documents of a fit: configuration, request and report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ModelWrapValidatorHandler, field_validator, model_validator

from neuromas.schema.document import Access, Document, Provenance, Seed, Sha256, Shell, StoredDocument
from neuromas.schema.recording import as_number
from neuromas.schema.twin import TwinQuality

_LATER = ("task_options", "twin", "nested")
"""Fields that configurations got later: at their default they change no fit's identity."""
NO_IDENTITY = ("preset", "allow_unsolved")
"""Fields that change no number of a fit."""
_FAST: dict[str, Any] = {
    "rotation": "gram-schmidt",
    "learning_rate": 0.015,
    "schedule": "cosine",
    "batch_size": 64,
    "validate_every": 100,
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {
        "das": {**_FAST, "init": "closed-form", "max_iterations": 300},
        "mas": {**_FAST, "init": "closed-form", "max_iterations": 300},
        "clmas": {**_FAST, "init": "closed-form", "epsilon": 3.0, "max_iterations": 400},
        "stitch": {**_FAST, "max_iterations": 300},
        "latent-stitch": {**_FAST, "batch_size": 256, "max_iterations": 100},
    },
    "paper": {},
}
"""Preset → method → settings. docs/decisions.md says how those of ``fast`` were found."""


def preset_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a configuration takes from its preset.

    Parameters
    ----------
    document : mapping
        Fields of `FitConfig`, as far as they were set. It may break the schema.

    Returns
    -------
    dict
        Empty if the document names no preset. Settings that the document itself contains are left out.

    Examples
    --------
    >>> preset_values({"method": "das", "preset": "fast", "batch_size": 32})["max_iterations"]
    300
    >>> preset_values({"method": "das"})
    {}
    """
    preset = document.get("preset")
    settings = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    values = settings.get(str(document.get("method")), {})
    return {name: value for name, value in values.items() if name not in document}


def method_defaults(method: str) -> dict[str, Any]:
    """The settings of a method that differ from those of `FitConfig`, without any preset, as a document.

    Examples
    --------
    >>> method_defaults("latent-stitch")
    {'method': 'latent-stitch', 'subspaces': None, 'learn_scale': False}
    """
    subspaces = None if method in ("stitch", "latent-stitch") else {"full": 16}
    defaults: dict[str, Any] = {"method": method, "subspaces": subspaces}
    return {**defaults, "learn_scale": False} if method == "latent-stitch" else defaults


class FitConfig(Document):
    """All settings that decide a fit, except the systems themselves."""

    format_version: Literal[1] = 1
    method: Annotated[
        Literal["das", "mas", "clmas", "stitch", "latent-stitch"], Shell(metavar="METHOD", positional=True)
    ]
    """Method of the fit. It decides which directions carry which loss; see `neuromas.fit.fitters`."""
    preset: Literal["fast", "paper"] | None = None
    """Named group of settings. Any single option overrides it. fast: settings that reach the IIA of the paper's in 20 to 50
    times fewer iterations. paper: the paper's settings. null: the paper's settings too, as in files that name no preset."""
    subspaces: Annotated[
        dict[str, Annotated[int, Field(gt=0)]] | None, Shell(name="--rank", metavar="N|VARIABLE=N,…", bare="full")
    ] = Field(default={"full": 16}, min_length=1)
    """Rank of each subspace. Subspaces are disjoint and named after a variable, after several variables joined with ``+``, or
    ``full`` (all variables). null: one subspace ``full`` at full width."""
    variables: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Causal variables that are compared. null: those of the causal model, or all that the recordings share."""
    roles: dict[str, dict[str, str]] | None = None
    """Shared names for variables that each system calls differently. Shared name → system or task → name of the variable there,
    e.g. ``{"number": {"multi-object": "count", "arithmetic": "rem_ops"}}``. Subspaces can use the shared names."""
    values: dict[str, tuple[float | str, ...]] | None = None
    """Values to which pairs are restricted. Variable or shared name → values, numbers or meanings. This restricts which samples
    form pairs. Counterfactual latents are still drawn from the whole recording."""
    task_options: dict[str, dict[str, JsonValue]] | None = None
    """Options of causal models. Task → options, e.g. ``{"multi-object": {"hold_out": [13, 14]}}``. They apply to the trials on
    which systems are recorded, to the pairs, and to the expected behaviour after an interchange."""
    stepwise: bool = False
    """Interchange at every step up to the source's step. The target's tokens are padded with responses."""
    map: Literal["orthogonal", "linear"] = "orthogonal"
    """Kind of map from activity to components. orthogonal: R = λQ (the paper). linear: z = A Uᵀ(h − μ), which makes a weaker
    claim about similarity."""
    rotation: Literal["matrix-exponential", "gram-schmidt", "cayley", "householder"] = "matrix-exponential"
    """Parametrisation of the orthonormal columns."""
    init: Literal["random", "closed-form"] = "random"
    """Start of the iterations. random: random columns. closed-form: columns computed from the mean latent of each value."""
    solver: Literal["gradient", "closed-form"] = "gradient"
    """Solver of Latent Stitch. gradient: iterations, as in all methods. closed-form: orthogonal Procrustes on the L2 term."""
    direction: Annotated[tuple[str, str] | None, Shell(metavar="SOURCE,TARGET")] = None
    """Source and target of Stitch and Latent Stitch, by name. null: the method chooses."""
    nested: bool | None = None
    """Order the components by importance, so that one fit gives an alignment for every rank: the first components are those of a
    smaller rank. Pairs of a batch take turns: they interchange the first 1, 2, 4, … components, up to all of them. Losses and
    IIA of the fit are then means over these ranks; `neuromas ranks` scores each."""
    learn_scale: bool = True
    """Fit the scale λ of an orthogonal map. false: λ stays at its start value."""
    epsilon: float = Field(default=0.85, ge=0)
    """Weight ε of the counterfactual-latent loss."""
    weighting: Literal["sum", "convex"] = "sum"
    """Weighting of the two losses. sum: L + ε·L_CL. convex: (1 − ε)·L + ε·L_CL."""
    cl_directions: Literal["read", "all"] = "read"
    """Targets that carry the counterfactual-latent loss. read: those that can only be read. all: every target."""
    cl_draw: Literal["fresh", "fixed"] = "fresh"
    """Draw of counterfactual latents. fresh: a new one at every use of a pair. fixed: the same one at every use."""
    cl_matches: int = Field(default=1, gt=0)
    """Number of recorded latents that are averaged into one counterfactual latent. Use more than 1 for noisy recordings."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Tolerances of continuous variables. Variable or shared name → largest difference between the expected value and the value
    of a counterfactual latent. All other variables must be equal."""
    cl_terms: Literal["both", "l2", "cosine"] = "both"
    """Distances in the counterfactual-latent loss. both: the mean of L2 and cosine (eq. 9)."""
    loss_tokens: Literal["all", "deterministic"] = "all"
    """Tokens of the continuation that count in the behavioural loss."""
    batch_size: int = Field(default=512, gt=0)
    """Pairs per direction and iteration."""
    n_train_pairs: int = Field(default=10_000, gt=0)
    """Training pairs per direction."""
    n_validation_pairs: int = Field(default=1_000, gt=0)
    """Validation pairs per direction."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the learning rate. cosine: it falls to 0 at the last iteration along a cosine."""
    max_iterations: int = Field(default=20_000, ge=0)
    """Largest number of iterations."""
    validate_every: int = Field(default=50, gt=0)
    """Iterations between two validations. A checkpoint is written at each."""
    patience: int = Field(default=10, gt=0)
    """Number of validations in a row without progress after which the fit stops. Progress is set by `tolerance`. It is also made
    if the loss of a single direction falls."""
    tolerance: float = Field(default=1e-3, ge=0)
    """Relative decrease of the validation loss that counts as progress."""
    select: Literal["loss", "iia"] = "loss"
    """Score that chooses the best checkpoint. iia: the worst IIA over the directions whose target the fit can run."""
    twin: Annotated[str | None, Field(min_length=1), Shell(metavar="auto|DIR")] = None
    """Twin that answers for a target that can only be read, so that its directions also carry the behavioural loss (clmas). auto:
    learn one from the recording. Or the folder of a twin."""
    n_trials: int = Field(default=2_000, gt=0)
    """Number of new trials on which each system that can be run is recorded."""
    only_solved: bool = False
    """Keep only trials that the system solves."""
    allow_unsolved: bool = False
    """Fit also systems that solve their task no better than guesses would. They are refused otherwise."""
    fractions: dict[Literal["train", "validation", "test"], float] = Field(
        default={"train": 0.6, "validation": 0.2, "test": 0.2}
    )
    """Share of the trials in each part."""
    seed: Seed = 0
    """Seed of all random numbers: trials, parts, pairs, start, batches and draws."""

    @model_validator(mode="wrap")
    @classmethod
    def _take_preset(cls, document: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill what was not set from the preset; it does not count as set, so that `exclude_unset` leaves it out."""
        if not isinstance(document, Mapping):
            return handler(document)
        values = preset_values(document)
        config = handler({**document, **values})
        config.model_fields_set.difference_update(values)
        return config

    @classmethod
    def default_note(cls, name: str) -> str:
        """The default of a setting that presets decide, e.g. ``64 (latent-stitch: 256); preset paper: 512``."""
        if name == "preset":
            return "fast; none in a file"
        fast = {method: values[name] for method, values in PRESETS["fast"].items() if name in values}
        if not fast:
            return ""
        paper = cls.model_fields[name].default
        common = max(fast.values(), key=list(fast.values()).count)
        others = {method: fast.get(method, paper) for method in PRESETS["fast"]}
        different = ", ".join(f"{method}: {value}" for method, value in others.items() if value != common)
        return f"{common}{f' ({different})' if different else ''}, preset paper: {paper}"

    def identity_json(self) -> str:
        """JSON text of the settings that decide the fit, for comparison and hashing.

        The name of the preset is left out, since only its values count, and what a fit may do but need not. So are fields that
        later versions added, at their defaults.
        """
        later = {name for name in _LATER if getattr(self, name) is None}
        path = {"twin"} if self.twin != "auto" else set()
        return self.model_dump_json(exclude={*NO_IDENTITY, *later, *path})

    @field_validator("values", mode="before")
    @classmethod
    def _as_numbers(cls, value: Any) -> Any:
        """Numbers that came as text, as the shell has them, are numbers."""
        if not isinstance(value, Mapping):
            return value
        return {key: cls._numbers_of(entry) for key, entry in value.items()}

    @staticmethod
    def _numbers_of(entry: Any) -> Any:
        if isinstance(entry, str) or not isinstance(entry, Iterable):
            return entry
        numbers = ((as_number(value) if isinstance(value, str) else None, value) for value in entry)
        return [value if number is None else number for number, value in numbers]

    @field_validator("task_options", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        """Ranges, tuples, sets and arrays as lists, which JSON can store."""
        if isinstance(value, Mapping):
            return {key: cls._as_lists(inner) for key, inner in value.items()}
        if hasattr(value, "tolist"):
            return value.tolist()
        return list(value) if isinstance(value, (range, tuple, set, frozenset)) else value

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
        if self.twin is not None and self.method != "clmas":
            raise ValueError(f"a twin stands in for targets that can only be read, in clmas; not in {self.method!r}")
        if self.direction is not None and not stitching:
            raise ValueError(f"direction is for stitch and latent-stitch, not {self.method!r}")
        if self.solver == "closed-form" and self.method != "latent-stitch":
            raise ValueError(f"solver 'closed-form' is for latent-stitch, not {self.method!r}")
        if self.solver == "closed-form" and self.nested:
            raise ValueError("solver 'closed-form' has no iterations in which nested ranks could take turns")
        if stitching and self.map == "linear":
            raise ValueError(f"method {self.method!r} is an orthogonal map; map='linear' is for das, mas and clmas")
        if self.weighting == "convex" and self.epsilon > 1:
            raise ValueError(f"weighting 'convex' needs epsilon in 0..1, got {self.epsilon}")
        if set(self.fractions) != {"train", "validation", "test"} or min(self.fractions.values()) <= 0:
            raise ValueError(f"fractions needs train, validation and test, each above 0; got {self.fractions}")
        return self


def default_config(method: str, *, preset: str | None = None, map: str = "orthogonal") -> FitConfig:
    """The configuration of a method in which nothing is set but the preset and the kind of map.

    Examples
    --------
    >>> default_config("clmas", preset="fast").learning_rate
    0.015
    """
    return FitConfig.parse({**method_defaults(method), "preset": preset, "map": map}, f"defaults of {method}")


class FitInput(Document):
    """One system or recording as it entered a fit, with enough to find it again."""

    name: str
    access: Access
    n_units: int
    n_samples: int
    """Eligible samples in which all units of this fit were recorded."""
    n_incomplete: int = 0
    """Eligible samples that were left out because a unit was not recorded."""
    n_by_part: dict[str, int] = Field(default_factory=dict)
    """`n_samples` in the train, validation and test part. A pseudo-population has its own parts."""
    units: tuple[str, ...] | None = None
    """Units of this fit; null: all."""
    system: str | None = None
    """Name of the system, if one was run. The request beside the result says where it is."""
    layer: str | None = None
    """Layer whose activity was the latent."""
    weights_sha256: Sha256 | None = None
    recording: str | None = None
    """SET/RECORDING, if a recording was read."""
    content_sha256: Sha256 | None = None
    """Hash of the recording's content."""
    mapping: dict[str, Any] | None = None
    """Names and values that differ in this recording."""


class FitRequest(StoredDocument):
    """A request for a fit: the systems, the recordings and the configuration."""

    format_version: Literal[1] = 1
    config: FitConfig
    """Settings of the fit."""
    systems: Annotated[tuple[str, ...], Shell(name="--system", metavar="DIR[@LAYER]", whole=True)] = ()
    """Systems that may be run: folders, or names of shipped systems. A layer may follow, as in ``DIR@LAYER``."""
    read: Annotated[tuple[str, ...], Shell(metavar="SET/RECORDING", whole=True)] = ()
    """Recordings that are only read, as SET/RECORDING."""
    units: dict[str, tuple[str, ...]] | None = None
    """Units to use of a recording, by the recording's name. null: all."""
    mapping: dict[str, dict[str, Any]] | None = None
    """Names and values that differ in a recording, by the recording's name; see `Recording.relabel`."""
    store: str | None = None
    """Path of the recording store. null: the store that is found where the fit runs."""


class Validation(Document):
    """Losses and IIA on the validation pairs at one iteration."""

    iteration: int
    train_loss: float | None
    loss: float
    """Validation loss: the whole objective."""
    behaviour: dict[str, float] = Field(default_factory=dict)
    """Behavioural loss by direction."""
    cl: dict[str, float] = Field(default_factory=dict)
    """Counterfactual-latent loss by direction."""
    iia: dict[str, float] = Field(default_factory=dict)
    """IIA by direction, only for targets that the fit can run."""
    iia_twin: dict[str, float] = Field(default_factory=dict)
    """IIA by direction that the twin's referee gives, for targets that can only be read. It chooses among checkpoints."""


class Misses(Document):
    """Pairs of one direction whose expected values were never recorded in the target."""

    direction: str
    part: str
    n_pairs: int
    n_missed: int
    resampled: int
    """Number of pairs that were drawn again because their expected values are impossible."""
    values: dict[str, int] = Field(default_factory=dict)
    """Number of pairs by missing combination of values."""


class FitReport(StoredDocument):
    """``result.json``: what was fitted, the course of the fit, and its provenance."""

    format_version: Literal[1] = 1
    config: FitConfig
    inputs: tuple[FitInput, ...]
    variables: tuple[str, ...]
    """Causal variables that were compared."""
    ran: tuple[str, ...]
    """Systems that the fit ran. All others were only read."""
    trial_accuracy: dict[str, float] = Field(default_factory=dict)
    """System → share of some hundred trials of its task that it solved, where that was measured."""
    twins: dict[str, TwinQuality] = Field(default_factory=dict)
    """System → how good the twin is that judges alignments with it."""
    status: Literal["converged", "max_iterations", "closed_form"]
    iterations: int
    best_iteration: int
    seconds: float
    history: tuple[Validation, ...]
    misses: tuple[Misses, ...]
    warnings: tuple[str, ...] = ()
    """What a reader of this result must know, e.g. that the units of a brain were not recorded together."""
    threads: int | None = None
    """Threads that the fit computed with. Another number changes the rounding; null: not recorded."""
    identity: Sha256
    """Hash of configuration and inputs. Fits with equal identity are equal."""
    alignment_sha256: Sha256
    provenance: Provenance

    @property
    def best(self) -> Validation:
        """The validation at the iteration whose maps were kept."""
        kept = (seen for seen in self.history if seen.iteration == self.best_iteration)
        return next(kept, self.history[-1])

    def __repr__(self) -> str:
        inputs = ", ".join(f"{each.name} ({each.access})" for each in self.inputs)
        best = f"validation loss {self.best.loss:.4f}" if self.history else "not validated"
        if self.history and self.best.iia:
            best += f", IIA {min(self.best.iia.values()):.3f}"
        return f"<FitReport {self.config.method}: {inputs}; {self.status}, {self.iterations:,} iterations, {best}>"

    __str__ = __repr__
