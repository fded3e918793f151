"""Documents that neuromas writes and reads: pydantic models, exported as JSON Schema to ``schemas/``.

Every document is frozen and forbids unknown keys. ``problems`` lists everything that is wrong with a candidate, ``parse``
raises one error that holds the whole list.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from neuromas import dims
from neuromas.errors import InvalidDocument

FORMAT_VERSION = 1
"""Version of the stored layout of recordings and recording sets."""

Access = Literal["intervene", "read"]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Document(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def problems(cls, document: object) -> list[str]:
        """Everything that is wrong with `document`, each with its place.

        Parameters
        ----------
        document : mapping or str
            A candidate, or its JSON text.

        Returns
        -------
        list of str
            Empty if the document is valid.

        Examples
        --------
        >>> VariableSpec.problems({"name": "count", "type": "number"})
        ["type: expected 'categorical', 'integer' or 'real', got 'number'"]
        """
        try:
            if isinstance(document, (str, bytes)):
                cls.model_validate_json(document)
            else:
                cls.model_validate(document)
        except ValidationError as error:
            return [_describe(problem) for problem in error.errors()]
        return []

    @classmethod
    def parse(cls, document: object, where: str) -> Self:
        """The document, or one `InvalidDocument` that lists every problem; `where` names the file or argument."""
        problems = cls.problems(document)
        if problems:
            raise InvalidDocument(where, problems)
        if isinstance(document, (str, bytes)):
            return cls.model_validate_json(document)
        return cls.model_validate(document)

    def to_json(self) -> str:
        """Indented JSON text, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def _describe(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "document"
    message = problem["msg"]
    if problem["type"] == "missing":
        message = "required, but missing"
    elif problem["type"] == "extra_forbidden":
        message = "no such field"
    elif problem["type"] == "literal_error":
        message = f"expected {problem['ctx']['expected']}, got {problem['input']!r}"
    elif problem["type"] == "value_error":
        message = message.removeprefix("Value error, ")
    elif "input" in problem and not isinstance(problem["input"], (dict, list)):
        message = f"{message} (got {problem['input']!r})"
    return f"{place}: {message}"


class VariableSpec(Document):
    """A causal variable: its type, the values it may take, and what they mean.

    A categorical variable is stored as integer codes; ``values`` lists the codes and ``meanings`` says what each is.
    """

    name: str
    type: Literal["categorical", "integer", "real"]
    values: tuple[float | int, ...] | None = None
    """Allowed values; ``None`` allows any (not for categorical variables)."""
    meanings: tuple[str, ...] | None = None
    """One per value; may hold spaces. Categorical variables only."""
    description: str = ""
    units: str = "1"

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"expected letters, digits and underscores, got {name!r}")
        if name in dims.RESERVED:
            raise ValueError(f"{name!r} is reserved; reserved are {', '.join(dims.RESERVED)}")
        return name

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError(f"variable {self.name!r} lists a value twice: {list(self.values)}")
        if self.type == "categorical":
            if self.values is None or self.meanings is None:
                raise ValueError(f"categorical variable {self.name!r} needs values (codes) and meanings")
            if len(self.values) != len(self.meanings):
                raise ValueError(
                    f"variable {self.name!r} has {len(self.values)} values but {len(self.meanings)} meanings"
                )
            if len(set(self.meanings)) != len(self.meanings):
                raise ValueError(f"variable {self.name!r} gives the same meaning to two values: {list(self.meanings)}")
        elif self.meanings is not None:
            raise ValueError(f"variable {self.name!r} is {self.type}; only categorical variables have meanings")
        if self.type != "real" and any(not float(value).is_integer() for value in self.values or ()):
            raise ValueError(
                f"{self.type} variable {self.name!r} has a value that is no integer: {list(self.values or ())}"
            )
        return self

    def code(self, value: object) -> float:
        """The stored number for `value`, which may be a meaning or a number already.

        Raises
        ------
        KeyError
            `value` is neither a meaning nor an allowed value.
        """
        if isinstance(value, str) and self.meanings is not None and self.values is not None and value in self.meanings:
            return float(self.values[self.meanings.index(value)])
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise KeyError(value) from None
        if self.values is not None and number not in self.values:
            raise KeyError(value)
        return number

    def label(self, code: float) -> str:
        """How the stored number `code` reads: its meaning, or the number itself."""
        if self.meanings is not None and self.values is not None and code in self.values:
            return self.meanings[self.values.index(code)]
        return f"{code:g}"


class Sampling(Document):
    """What a step is, and how long it lasts where time matters."""

    step: str = "token"
    """What one step stands for, e.g. ``token`` or ``time bin``."""
    step_s: float | None = Field(default=None, gt=0)
    """Seconds per step, where steps are bins of time."""
    start_s: float | None = None
    """Time of the first step's left edge relative to `aligned_to`, in seconds."""
    aligned_to: str | None = None
    """The event at time zero."""

    def seconds(self, step: Any) -> Any:
        """Time of the centre of each step's bin, in seconds, as an array of the shape of `step`; None where steps are no time."""
        return None if self.step_s is None else (self.start_s or 0.0) + self.step_s * (step + 0.5)


class Provenance(Document):
    """Where something came from: enough to make it again."""

    source: str = ""
    """File, system or script it was made from."""
    source_sha256: Sha256 | None = None
    derived_from: tuple[str, ...] = ()
    """The recording that this is another version of, with the hash of its content; then those before."""
    seed: int | None = None
    created: str | None = None
    """ISO 8601, UTC."""
    versions: dict[str, str] = Field(default_factory=dict)
    notes: str = ""


class FileEntry(Document):
    """One stored file: its hash and its size in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class VariableRecipe(Document):
    """How a causal variable comes from the columns of a table."""

    model_config = ConfigDict(allow_inf_nan=False)

    expression: str = Field(min_length=1)
    """A column, or what `neuromas.recordings.expression` computes from columns. ``time`` is the centre of a bin in seconds, so
    that a variable may differ between the steps of a trial; ``event_time`` is the trial's time zero, where there is one."""
    type: Literal["categorical", "integer", "real"] | None = None
    """By default as the values are: text and booleans categorical, whole numbers integer, others real."""
    meanings: dict[str, str] | None = None
    """Value as text → how it reads, for coded columns, e.g. ``{"0": "foil", "1": "target"}``; then categorical."""
    bins: tuple[float, ...] | None = Field(default=None, min_length=2)
    """Edges that cut a continuous variable into categories; each holds its lower edge, the last one its upper edge too."""
    description: str = ""
    units: str = "1"

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if self.bins is not None and any(high <= low for low, high in itertools.pairwise(self.bins)):
            raise ValueError(f"bins: expected rising edges, got {list(self.bins)}")
        if self.bins is not None and self.meanings is not None:
            raise ValueError("expected bins or meanings, got both")
        if self.meanings is not None and self.type not in (None, "categorical"):
            raise ValueError(f"meanings make a variable categorical, but type is {self.type!r}")
        return self


class Recipe(Document):
    """What is taken from a foreign file: base of every converter's own recipe."""

    model_config = ConfigDict(allow_inf_nan=False)

    format_version: Literal[1] = 1
    variables: dict[str, VariableRecipe] = Field(default_factory=dict)
    """Causal variables by name; text alone is an expression."""

    @field_validator("variables", mode="before")
    @classmethod
    def _expand(cls, variables: object) -> object:
        if not isinstance(variables, Mapping):
            return variables
        return {name: {"expression": one} if isinstance(one, str) else one for name, one in variables.items()}


class EventRecipe(Recipe):
    """Activity about events: a trial is a row of a table of events, its steps are bins of time."""

    align: str = "start_time"
    """Column, or expression of columns, that holds each trial's time zero in seconds."""
    where: str | None = None
    """Expression of columns: only rows in which it is true are trials."""
    start_s: float
    """Left edge of the first bin, relative to the event."""
    stop_s: float
    """Right edge of the last bin."""
    bin_s: float | None = Field(default=None, gt=0)
    """Width of a bin; null: one bin, the whole window."""
    activity: Literal["rate", "count"] = "rate"
    """Of spikes: in Hz, or how many in a bin."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        length = self.stop_s - self.start_s
        if length <= 0:
            raise ValueError(f"expected start_s < stop_s, got {self.start_s:g} and {self.stop_s:g}")
        if self.bin_s is not None:
            if self.bin_s > length * (1 + 1e-9):
                raise ValueError(f"bin_s of {self.bin_s:g} s is wider than the window of {length:g} s")
            if abs(length / self.bin_s - round(length / self.bin_s)) > 1e-6:
                raise ValueError(f"a window of {length:g} s does not hold a whole number of bins of {self.bin_s:g} s")
        return self

    @property
    def n_steps(self) -> int:
        """Bins in the window."""
        return 1 if self.bin_s is None else round((self.stop_s - self.start_s) / self.bin_s)

    @property
    def width_s(self) -> float:
        """Width of a bin in seconds."""
        return self.stop_s - self.start_s if self.bin_s is None else self.bin_s


class NwbRecipe(EventRecipe):
    """What is taken from an NWB file."""

    table: str = "trials"
    """Interval table whose rows are the trials."""
    source: str = "units"
    """``units`` for spike times, or the path of a time series in the file, e.g. ``processing/ophys/DfOverF/RoiResponseSeries``
    or ``acquisition/ElectricalSeries``: its samples are averaged in each bin."""
    units_where: str | None = None
    """Expression of the columns of the units table (or of the series' channels): only these are taken."""
    unit_columns: tuple[str, ...] | None = None
    """Columns kept as metadata of the units; null: all that hold one number or text per unit."""
    coverage: Literal["auto", "obs_intervals", "spikes", "session"] = "auto"
    """How it is known when a unit was recorded: by ``obs_intervals``, from its first spike to its last, or throughout.
    ``auto`` takes ``obs_intervals`` where the file has them, else spikes. Trials outside are missing, never zero."""


class SpikesRecipe(EventRecipe):
    """What is taken from a table of spike times and one of events, each text, CSV or NPZ."""

    align: str = "time"
    times: str | None = None
    """Column, or expression of columns, of spike times in seconds; null: the first."""
    unit: str | None = None
    """Column (or array) that tells which unit fired; null: one unit, the file's."""
    events: str | None = None
    """File of events, a row each, beside the spikes; null: columns of the same file."""
    event_columns: str | None = None
    """Wide form: each column holds the times of one kind of event. A regular expression that matches the whole name of such a
    column; its named groups are the columns of the table of events, beside ``time``."""
    coverage: Literal["spikes", "session"] = "spikes"
    """How it is known when a unit was recorded: from its first spike to its last, or from the first spike of all units to the
    last. Trials outside are missing, never zero."""


class ArraysRecipe(Recipe):
    """What is taken from a file of arrays or a table: npz, mat, csv, parquet, netCDF, AnnData."""

    activity: str | None = None
    """Name of the array of shape (n_trials, n_steps, n_units) or (n_samples, n_units); null: ``activity`` (AnnData: X)."""
    axes: tuple[Literal["trial", "step", "unit", "sample"], ...] | None = None
    """What the axes of that array are, in its own order; null: as above."""
    unit_columns: str | None = None
    """Tables: a regular expression for the columns that are units; the others are coordinates."""
    trial: str | None = None
    """Array or column that numbers the trials."""
    step: str | None = None
    unit: str | None = None
    """Array of the units' names."""
    start_s: float | None = None
    """Left edge of the first step, where steps are bins of time."""
    step_s: float | None = Field(default=None, gt=0)


class PseudoPopulation(Document):
    """How units that were not recorded together were joined."""

    variables: tuple[str, ...] = Field(min_length=1)
    """Trials were joined where these agree, step by step; by the names that they had then."""
    seed: int = Field(ge=0)
    replace: bool
    """Whether a unit's trial may occur in several joined trials."""
    recordings: tuple[str, ...] = Field(min_length=1)
    """What was joined, each with the hash of its content if it came from a store; the units' coordinate ``recording`` tells which
    unit is of which."""
    left_out: tuple[str, ...] = ()
    """Units that lacked trials of a combination of values."""


class RecordingManifest(Document):
    """Everything about a recording that is not a number in it."""

    format_version: Literal[1] = 1
    name: Name
    set: Name | None = None
    system: str
    """Which network or brain area was recorded."""
    layer: str = ""
    """Which layer, area or population."""
    task: str = ""
    access: Access = "read"
    variables: tuple[VariableSpec, ...] = Field(min_length=1)
    vocabulary: tuple[str, ...] | None = None
    """What each `token` code stands for, where there are tokens."""
    units: str = "1"
    """Physical units of the activity, e.g. ``Hz``."""
    missing: bool = False
    """Whether activity may be NaN: a unit that was not recorded in a sample."""
    sampling: Sampling = Sampling()
    grouped_by: tuple[str, ...] = ()
    """Variables by whose values the samples lie together, as ``groups.json`` tells; empty where they are in order of trials."""
    pseudo_population: PseudoPopulation | None = None
    """Set where units were not recorded together: correlations between units, noise correlations above all, mean nothing."""
    control: str = ""
    """What was done to make this a control, e.g. that values were shuffled; results made from it say so."""
    licence: str = ""
    citation: str = ""
    description: str = ""
    provenance: Provenance = Provenance()
    content_sha256: Sha256 | None = None
    """Hash of activity, coordinates and this document less provenance and files: equal content, equal hash."""
    files: dict[str, FileEntry] = Field(default_factory=dict)
    """Every stored file, path relative to the recording's folder."""

    @field_validator("variables")
    @classmethod
    def _check_unique(cls, variables: tuple[VariableSpec, ...]) -> tuple[VariableSpec, ...]:
        names = [variable.name for variable in variables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"declared twice: {', '.join(twice)}")
        return variables

    def variable(self, name: str) -> VariableSpec:
        """The variable called `name`; KeyError if there is none."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        raise KeyError(name)


class GroupTable(Document):
    """``groups.json``: where in a recording that is stored grouped the samples with each combination of values lie."""

    format_version: Literal[1] = 1
    variables: tuple[str, ...] = Field(min_length=1)
    values: tuple[tuple[float, ...], ...]
    """Combinations in ascending order, as stored numbers."""
    starts: tuple[int, ...]
    """First sample of each."""
    counts: tuple[int, ...]
    """How many samples of each follow one another; within them, their order is random."""
    n_ineligible: int = Field(default=0, ge=0)
    """Samples that the recording declares not eligible; they lie behind all groups."""
    n_incomplete: int = Field(default=0, ge=0)
    """Eligible samples in which a unit was not recorded; they lie behind those."""

    @model_validator(mode="after")
    def _check_sizes(self) -> GroupTable:
        sizes = {len(self.values), len(self.starts), len(self.counts)}
        if len(sizes) > 1 or any(len(row) != len(self.variables) for row in self.values):
            raise ValueError("expected a start, a count and one value per variable for each combination")
        return self


class SetEntry(Document):
    """A recording as its set names it."""

    content_sha256: Sha256
    manifest_sha256: Sha256


class RecordingSetIndex(Document):
    """``set.json``: the recordings of a set. What it does not name does not exist."""

    format_version: Literal[1] = 1
    name: Name
    recordings: dict[Name, SetEntry]


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
    dtype: str | None = None
    """Numbers that the weights are kept in, e.g. ``float32``."""
    seed: int = 0
    iterations: int = 0
    trial_accuracy: float | None = Field(default=None, ge=0, le=1)
    provenance: Provenance = Provenance()


class FitConfig(Document):
    """Everything that decides a fit, except the systems themselves."""

    format_version: Literal[1] = 1
    method: Literal["das", "mas", "clmas", "stitch", "latent-stitch"]
    """Which directions carry which loss; see `neuromas.fit.fitters`."""
    subspaces: dict[str, Annotated[int, Field(gt=0)]] | None = Field(default={"full": 16}, min_length=1)
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
    direction: tuple[str, str] | None = None
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
    fractions: dict[Literal["train", "validation", "test"], float] = {"train": 0.6, "validation": 0.2, "test": 0.2}
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
    systems: tuple[str, ...] = ()
    """Folders, or names of shipped systems, that may be run."""
    read: tuple[str, ...] = ()
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


SYSTEM_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*(@[A-Za-z0-9._-]+)?$"
SystemName = Annotated[str, Field(pattern=SYSTEM_PATTERN, max_length=200)]
"""Shipped, or one that a sweep declares, e.g. ``multi-object/gru-0``; a layer may follow: ``multi-object/gru-0@embedding``."""


class TrainSpec(Document):
    """How a network is made: what `neuromas.systems.training.train` takes."""

    task: str
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the task, e.g. ``{"void": 0.2}``."""
    kind: str = "gru"
    seed: int = Field(default=0, ge=0)
    memory: int = Field(default=0, ge=0)
    """Steps that the gates of a recurrent network remember at first."""
    n_units: int = Field(default=128, gt=0)
    target_accuracy: float = Field(default=0.999, ge=0, le=1)
    min_iterations: int = Field(default=2_000, ge=0)
    max_iterations: int = Field(default=20_000, gt=0)


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


class SweepGroup(Document):
    """Fits, or measures, of one kind: every choice of systems, at every point of the axes."""

    label: str = Field(min_length=1)
    tags: dict[str, str] = Field(default_factory=dict)
    """Columns of the table that tell this group from others, e.g. ``{"panel": "a"}``."""
    method: Literal["das", "mas", "clmas", "stitch", "latent-stitch"] | None = None
    measure: str | None = None
    """Either this, of `neuromas.measures.registry.MEASURES`, or a method."""
    systems: tuple[tuple[SystemName, ...], ...] = Field(min_length=1)
    """Which systems go into each fit, in the order in which the fit gets them."""
    read: tuple[int, ...] = ()
    """Positions of systems that the fit gets as a recording only; the evaluation may run them, as oracles."""
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


class Sweep(Document):
    """A figure as declared: which systems, and which fits and measures of them."""

    format_version: Literal[1] = 1
    figure: Name
    title: str
    quick: bool = False
    """Whether this is the smaller sweep; the figure says so."""
    note: str = ""
    """What is smaller about it, for a quick one."""
    systems: dict[SystemName, TrainSpec] = Field(default_factory=dict)
    """Systems to train where they are not shipped; all others that groups name must be shipped."""
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
    """A system as a job of a sweep takes it."""

    name: SystemName
    """As the sweep calls it, with the layer if it is not the usual one."""
    access: Access = "intervene"
    made: TrainSpec
    weights_sha256: Sha256 | None = None
    """Null until it is trained; part of the job's identity, so that a retrained system is another fit."""


class SweepJob(Document):
    """One fit or measure of a sweep, settled in full: ``job.json`` beside its result."""

    format_version: Literal[1] = 1
    config: FitConfig | None = None
    measure: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the measure."""
    systems: tuple[JobSystem, ...] = Field(min_length=1)
    oracles: bool = True
    evaluation: EvaluationSpec | None = None

    def identity(self) -> str:
        """SHA-256 over everything that was chosen but for controls; a new field at its default changes no identity."""
        chosen = self.model_dump(mode="json", exclude_defaults=True)
        chosen.get("evaluation", {}).pop("controls", None)
        return hashlib.sha256(json.dumps(chosen, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class MeasureReport(Document):
    """``measure.json``: what a measure says about two systems on the same trials."""

    format_version: Literal[1] = 1
    job: SweepJob
    options: dict[str, Any]
    """All of the measure's options, as they were used."""
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


def json_schemas() -> dict[str, str]:
    """File name → JSON Schema text of every document that reaches a disk."""
    documents: list[type[Document]] = [
        RecordingManifest,
        NwbRecipe,
        SpikesRecipe,
        ArraysRecipe,
        RecordingSetIndex,
        GroupTable,
        SystemConfig,
        LanguageModelCard,
        FitConfig,
        FitRequest,
        FitReport,
        Evaluation,
        Sweep,
        SweepJob,
        MeasureReport,
    ]
    return {
        f"{_snake(document.__name__)}.schema.json": json.dumps(document.model_json_schema(), indent=2) + "\n"
        for document in documents
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every JSON Schema: ``python -m neuromas.schema schemas/``."""
    given = sys.argv[1:] if arguments is None else arguments
    folder = Path(given[0] if given else "schemas")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in json_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
