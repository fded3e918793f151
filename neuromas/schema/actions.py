"""Requests: what a person asks of an action. The command line, the JSON Schemas and the reference are drawn from these fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from neuromas.schema.document import Access, Document, Name, Seed, Shell
from neuromas.schema.fit import FitRequest
from neuromas.schema.system import TrainRequest
from neuromas.schema.twin import TwinConfig
from neuromas.schema.validity import CHECKS, Check

RecordingName = Annotated[str, Shell(metavar="SET/RECORDING", positional=True)]
Store = Annotated[str | None, Shell(metavar="PATH")]
Units = Annotated[tuple[str, ...] | None, Shell(metavar="A,B,…")]
UnitsByName = Annotated[dict[str, tuple[str, ...]], Shell(metavar="NAME=A,B,…")]
Part = Literal["train", "validation", "test"]


class StoreRequest(Document):
    """A request that needs a recording store."""

    store: Store = None
    """Recording store. By default NEUROMAS_STORE, else ./recordings if that is a store, else the shipped sets."""


class ReadsFiles(StoreRequest):
    """A request that may read a foreign file."""

    largest_gib: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """What a compressed file may unpack to, in GiB. By default 1, or 100 times the size of the file if that is more."""
    in_process: bool = False
    """Read files in this process. By default a child process does, which a damaged file may crash."""
    timeout_s: Annotated[float | None, Field(gt=0), Shell(metavar="SECONDS")] = None
    """Give up a file after this time. By default 2 minutes, and a second more per MiB."""


class RegisterRequest(StoreRequest):
    """Publish recordings in a store: all of them, or none."""

    paths = ("sources", "store")

    sources: Annotated[tuple[str, ...], Shell(metavar="SOURCE", positional=True, whole=True)] = Field(min_length=1)
    """Files or folders. `neuromas formats` lists the formats."""
    set: Name
    """Recording set to make or to add to."""
    name: Annotated[Name | None, Shell(metavar="NAME")] = None
    """Name of the recording, if there is one source."""
    access: Access | None = None
    """Whether the system can be run (intervene) or only read (read)."""
    missing: bool = False
    """Let activity be missing (NaN): a unit that was not recorded in a sample."""
    manifest: Annotated[dict[str, JsonValue], Shell(metavar="FILE", file=True)] = Field(default_factory=dict)
    """Fields of the manifest. They replace those of the source."""
    format: Annotated[str | None, Shell(metavar="NAME")] = None
    """Format of the sources. By default the file's ending decides."""
    largest_gib: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """What a compressed file may unpack to, in GiB. By default 1, or 100 times the size of the file if that is more."""
    recipe: Annotated[dict[str, JsonValue] | None, Shell(metavar="FILE", file=True)] = None
    """Recipe: what is taken of a foreign file, and how."""
    option: Annotated[dict[str, JsonValue], Shell(short="-o", metavar="KEY=VALUE")] = Field(default_factory=dict)
    """Field of the recipe. It replaces the recipe's own."""
    variable: Annotated[dict[str, JsonValue], Shell(metavar="NAME=EXPRESSION")] = Field(default_factory=dict)
    """Causal variable, as an expression of the source's columns."""
    join: bool = False
    """Join the sources, which hold the same units in different trials, into one recording. --name names it."""
    group_by: Annotated[tuple[str, ...], Shell(metavar="VARIABLE,…")] = ()
    """Store samples with equal values side by side, for look-ups on disk. Their order is not kept."""
    allow_external: bool = False
    """Read other files that a source refers to, for data that are split over files. Their hashes are kept."""
    in_process: bool = False
    """Read files in this process. By default a child process does, which a damaged file may crash."""
    timeout_s: Annotated[float | None, Field(gt=0), Shell(metavar="SECONDS")] = None
    """Give up a file after this time. By default 2 minutes, and a second more per MiB."""
    dry_run: bool = False
    """Show what the source holds and what would be made. Write nothing."""


class FormatsRequest(Document):
    """List the formats that register reads."""


class AnnotateRequest(ReadsFiles):
    """Make another version of a recording: describe units, select, add, drop, rename, bin, standardise, shuffle, in order."""

    paths = ("table",)

    recording: RecordingName
    """The recording. It stays as it is."""
    variable: Annotated[dict[str, JsonValue], Shell(metavar="NAME=EXPRESSION")] = Field(default_factory=dict)
    """Variable to add, as an expression of coordinates and columns; with --on unit, metadata of the units."""
    recipe: Annotated[dict[str, JsonValue], Shell(metavar="FILE", file=True)] = Field(default_factory=dict)
    """Variables to add, with meanings, bins or units."""
    table: Annotated[str | None, Shell(metavar="FILE")] = None
    """CSV file or workbook (.xlsx) with more columns."""
    on: Annotated[tuple[str, ...], Shell(metavar="NAME,…")] = ("trial",)
    """Columns by which rows of the table belong to samples, or to units (unit). NAME=COLUMN if the column has another name."""
    replace: bool = False
    """Let a new variable replace one of the same name."""
    rename: Annotated[dict[str, str], Shell(metavar="OLD=NEW")] = Field(default_factory=dict)
    """Rename a variable."""
    drop: Annotated[tuple[str, ...], Shell(metavar="NAME,…")] = ()
    """Variables to leave out."""
    where: Annotated[str | None, Shell(metavar="EXPRESSION")] = None
    """Samples to keep."""
    units_where: Annotated[str | None, Shell(metavar="EXPRESSION")] = None
    """Units to keep. Activity counts as well: 'rate > 0.5', 'not silent'."""
    steps_per_bin: Annotated[int | None, Field(ge=2)] = None
    """Let this many steps become one, such as 50 steps of 1 ms."""
    bin_by: Literal["mean", "sum"] = "mean"
    """Activity of such a bin: the mean of its steps, for rates, or their sum, for counts."""
    standardise: bool = False
    """Subtract each unit's mean and divide by its standard deviation."""
    leave_out_silent: bool = False
    """With standardise: leave out units whose activity never changes, because they have no scale."""
    shuffle: Annotated[Seed | None, Shell(metavar="SEED")] = None
    """Exchange values between trials, as a control."""
    within: Annotated[str, Shell(metavar="VARIABLE")] = ""
    """Exchange values only between trials that agree in this variable."""
    shuffle_by: Literal["trial", "sample"] = "trial"
    """Exchange the values of whole trials, or of single samples."""
    name: Annotated[Name | None, Shell(name="--as", metavar="NAME")] = None
    """Name of the new version. By default NAME.v2, NAME.v3, …"""


class PoolRequest(StoreRequest):
    """Join units that were recorded in different trials into a pseudo-population."""

    recordings: Annotated[tuple[str, ...], Shell(metavar="SET/RECORDING", positional=True, whole=True)] = Field(
        min_length=1
    )
    """Recordings to join. A SET stands for all of its recordings."""
    by: Annotated[tuple[str, ...], Shell(metavar="VARIABLE,…")] = Field(min_length=1)
    """Trials are joined where these variables agree."""
    name: Annotated[str, Shell(name="--as", metavar="SET/RECORDING")]
    """Name of the new recording."""
    mapping: dict[str, dict[str, JsonValue]] | None = None
    """Names and values that differ in a recording, by the recording's name; see `Recording.relabel`."""
    n_trials: Annotated[int | None, Field(gt=0), Shell(name="--trials")] = None
    """Joined trials per combination of values and part. By default as many as there are."""
    replace: bool = False
    """Let a trial of a unit be used more than once."""
    min_trials: Annotated[int | None, Field(gt=0)] = None
    """Leave out units that have fewer trials of any combination. By default 3."""
    seed: Seed = 0
    """Seed of the random choice of trials."""


class JoinRequest(StoreRequest):
    """Join recordings of the same units over different trials into one recording."""

    recordings: Annotated[tuple[str, ...], Shell(metavar="SET/RECORDING", positional=True, whole=True)] = Field(
        min_length=1
    )
    """Recordings to join. A SET stands for all of its recordings."""
    name: Annotated[str, Shell(name="--as", metavar="SET/RECORDING")]
    """Name of the new recording."""


class ListRequest(StoreRequest):
    """List the recordings of a store."""


class ShowRequest(StoreRequest):
    """Show a recording: its manifest, its variables, and the values recorded."""

    recording: RecordingName
    """The recording."""


class VerifyRequest(StoreRequest):
    """Compare every stored file with what was written."""

    name: Annotated[str | None, Shell(metavar="SET[/RECORDING]", positional=True)] = None
    """What to verify. By default the whole store."""


class RemoveRequest(StoreRequest):
    """Take a recording, or a whole set, out of a store."""

    name: Annotated[str, Shell(metavar="SET[/RECORDING]", positional=True)]
    """What to remove. A set whose set.json is damaged or missing goes as a whole."""


class QueryRequest(StoreRequest):
    """Find recorded latents whose variables hold the values asked for."""

    recording: RecordingName
    """The recording."""
    values: Annotated[dict[str, JsonValue], Shell(metavar="VARIABLE=VALUE", positional=True)] = Field(
        default_factory=dict
    )
    """Values: phase=demo, count=1,3, count=2..5, phase=any; type='"a, b"' for a value with a comma or '..'."""
    n: Annotated[int | None, Shell(name="-n")] = None
    """Draw this many at random. By default all, in order."""
    seed: Seed = 0
    """Seed of the random choice."""
    units: Units = None
    """Units to take. By default all."""


class ExportRequest(StoreRequest):
    """Write a recording to a file."""

    recording: RecordingName
    """The recording."""
    units: Units = None
    """Units to take. By default all."""


class CaptureRequest(StoreRequest):
    """Run a system on trials of its task and keep its activity as a recording."""

    system: Annotated[str, Shell(metavar="SYSTEM", positional=True)]
    """Folder, or name of a shipped system. @LAYER may follow."""
    n_trials: Annotated[int, Field(gt=0), Shell(name="--trials")] = 1000
    """Number of trials to draw and run."""
    per_quantity: Annotated[int | None, Field(gt=0)] = None
    """Run this many trials of each object quantity instead (paper 2.7). For measures of similarity."""
    task: Annotated[str | None, Shell(metavar="NAME")] = None
    """Another task than the system's own."""
    task_options: Annotated[
        dict[str, JsonValue], Shell(name="--task-option", metavar="KEY=VALUE", keys=("void", "hold_out"))
    ] = Field(default_factory=dict)
    """Option of the task."""
    only_solved: bool = False
    """Keep only trials that the system solves."""
    allow_unsolved: bool = False
    """Record also a system that solves its task no better than guesses would. It is refused otherwise."""
    seed: Seed = 0
    """Seed of the trials."""
    name: Annotated[Name | None, Shell(metavar="NAME")] = None
    """Name of the recording. By default the system's."""
    access: Access = "intervene"
    """Use read for a system that stands for a brain."""
    dtype: Literal["float32", "float16"] = "float32"
    """Precision of the stored activity."""
    set: Annotated[Name | None, Shell(metavar="NAME")] = None
    """Recording set to add the recording to. Or use --out."""


class TwinRequest(StoreRequest):
    """Learn a twin of a system that can only be read, from its recording."""

    recording: RecordingName
    """Recording to learn from."""
    units: Units = None
    """Units of the twin. By default all; a fit must use the same."""
    config: TwinConfig = TwinConfig()
    """How the twin is learnt."""


class FitsRequest(FitRequest):
    """Fit an alignment, or one for every combination of settings."""

    vary: Annotated[dict[str, tuple[JsonValue, ...]], Shell(metavar="KEY=A,B,…")] = Field(default_factory=dict)
    """Fit every value, each into a folder of its own: seed=0,1,2, rank=4,8. Lists and objects are JSON lists."""


class EvaluateRequest(StoreRequest):
    """Score a fit on held-out pairs, with its controls."""

    folder: Annotated[str, Shell(metavar="DIR", positional=True)]
    """Folder of the fit."""
    oracle: Annotated[dict[str, str], Shell(metavar="NAME=DIR")] = Field(default_factory=dict)
    """Live copy of a system that the fit only read. Only this evaluation runs it."""
    n_pairs: Annotated[int, Field(ge=2), Shell(name="--pairs")] = 1000
    """Held-out pairs per direction."""
    controls: tuple[str, ...] = ("none", "random", "wrong-variable", "cl-ceiling")
    """Controls on the same pairs."""
    label: Annotated[str | None, Shell(metavar="NAME")] = None
    """Name of the method in the tables. By default the method of the fit."""
    against: Annotated[str | None, Shell(metavar="DIR")] = None
    """Folder of another fit of the same systems, evaluated already with the same pairs: a paired test says whether the two
    differ."""
    directions: Annotated[tuple[str, ...] | None, Shell(name="--direction", metavar="SOURCE:TARGET", whole=True)] = None
    """Direction to score. By default every direction of the alignment."""
    part: Part = "test"
    """Trials that the pairs come from."""
    seed: Seed = 0
    """Seed of the pairs."""
    validity: bool = False
    """Also try the controls of `neuromas validate`, with these oracles, this part and this seed; write validity.json."""

    @field_validator("directions")
    @classmethod
    def _check_directions(cls, directions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unclear = [direction for direction in directions or () if len(direction.split(":")) != 2]
        if unclear:
            raise ValueError(f"expected SOURCE:TARGET, got {', '.join(map(repr, unclear))}")
        return directions


class ValidateRequest(StoreRequest):
    """Try the controls that a fit's claim must survive, and say whether it does."""

    folder: Annotated[str, Shell(metavar="DIR", positional=True)]
    """Folder of the fit."""
    oracle: Annotated[dict[str, str], Shell(metavar="NAME=DIR")] = Field(default_factory=dict)
    """Live copy of a system that the fit only read. No fit runs it."""
    checks: tuple[Check, ...] = CHECKS
    """Checks to make. untrained and wrong-model fit again, with the settings of the fit; all others take seconds."""
    n_pairs: Annotated[int, Field(ge=2), Shell(name="--pairs")] = 500
    """Held-out pairs per direction and subspace."""
    part: Part = "test"
    """Trials that the pairs come from."""
    seed: Seed = 0
    """Seed of pairs, permutations and untrained weights."""


class RanksRequest(StoreRequest):
    """Score a nested fit at every rank, and say which one is enough."""

    folder: Annotated[str, Shell(metavar="DIR", positional=True)]
    """Folder of a fit with --nested."""
    ranks: Annotated[tuple[Annotated[int, Field(gt=0)], ...] | None, Shell(name="--rank", metavar="N,…")] = None
    """Ranks to score. By default 1, 2, 4, … up to that of the fit."""
    oracle: Annotated[dict[str, str], Shell(metavar="NAME=DIR")] = Field(default_factory=dict)
    """Live copy of a system that the fit only read."""
    n_pairs: Annotated[int, Field(ge=2), Shell(name="--pairs")] = 1000
    """Held-out pairs per direction and subspace."""
    part: Part = "test"
    """Trials that the pairs come from."""
    seed: Seed = 0
    """Seed of the pairs."""


class LocateRequest(Document):
    """Find the layers, steps and ranks at which a variable can be interchanged, in one system or between two."""

    systems: Annotated[tuple[str, ...], Shell(metavar="SYSTEM", positional=True, whole=True)] = Field(
        min_length=1, max_length=2
    )
    """One or two systems: folders, or names of shipped systems."""
    layers: Annotated[tuple[str, ...] | None, Shell(name="--layer", metavar="NAME,…")] = None
    """Layers to search. By default all that the systems share."""
    variables: Annotated[tuple[str, ...] | None, Shell(name="--variable", metavar="NAME,…")] = None
    """Variables to search for. By default each variable of the causal model, and full."""
    ranks: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Shell(name="--rank", metavar="N,…")] = (1, 2, 4, 8, 16)
    """Ranks. A layer has those that are not larger than its width."""
    n_bins: Annotated[int, Field(gt=0), Shell(name="--step-bins")] = 4
    """Ranges of steps, with about equal numbers of pairs."""
    n_fits: Annotated[int, Field(ge=0), Shell(name="--fits")] = 4
    """Layers and variables to fit at most: those that a linear probe reads and that the closed form does not reach."""
    n_pairs: Annotated[int, Field(ge=2), Shell(name="--pairs")] = 500
    """Held-out pairs per layer, variable and direction."""
    n_trials: Annotated[int, Field(gt=0), Shell(name="--trials")] = 1000
    """Trials on which each layer is recorded."""
    max_iterations: Annotated[int, Field(ge=0)] = 300
    """Iterations of each fit."""
    seed: Seed = 0
    """Seed of trials, pairs and permutations."""


class PlanRequest(StoreRequest):
    """Write a stimulation plan: how each unit would have to change for other values to be held."""

    folder: Annotated[str, Shell(metavar="DIR", positional=True)]
    """Folder of the fit."""
    source: Annotated[str, Shell(metavar="NAME")]
    """System whose recorded latents donate values."""
    target: Annotated[str, Shell(metavar="NAME")]
    """System that is to hold these values."""
    want: Annotated[dict[str, JsonValue], Shell(metavar="VARIABLE=VALUE")] = Field(min_length=1)
    """Value that the target is to hold."""
    subspace: Annotated[str | None, Shell(metavar="NAME")] = None
    """Subspace to use, if the fit has several."""
    n_samples: Annotated[int | None, Field(gt=0), Shell(name="--samples")] = None
    """Number of samples, chosen at random. By default all."""
    n_sources: Annotated[int, Field(gt=0), Shell(name="--sources")] = 1
    """Source latents averaged for each sample."""
    n_after: Annotated[int | None, Field(ge=0), Shell(name="--after")] = None
    """Steps after the stimulation for which the fit's twin predicts activity and answers."""
    part: Part = "test"
    """Trials that the samples come from."""
    seed: Seed = 0
    """Seed of the random choices."""


class CompareRequest(ReadsFiles):
    """Compare two recordings of the same trials by a measure of similarity."""

    x: RecordingName
    """The first recording, or a file with an RDM (.mat, .npz, .npy, .csv, .tsv), as FILE or FILE:ARRAY."""
    y: RecordingName
    """The second recording, of the same trials, or a file with an RDM of the same conditions."""
    by: Annotated[str | None, Shell(metavar="VARIABLE")] = None
    """Compare RDMs of conditions: the values of this variable in a recording. It is needed for a recording beside a file."""
    conditions: Annotated[tuple[str, ...], Shell(metavar="A,B,…")] = ()
    """Names of the conditions in a file that does not name them, in its order."""
    measure: Annotated[str, Shell(metavar="NAME")] = "rsa"
    """Measure of similarity: rsa or cka."""
    n_samples: Annotated[int, Field(ge=3), Shell(name="--samples")] = 1000
    """Samples drawn for each value of the measure."""
    n_resamples: Annotated[int, Field(gt=0), Shell(name="--resamples")] = 10
    """Number of draws."""
    seed: Seed = 0
    """Seed of the draws."""
    units: UnitsByName = Field(default_factory=dict)
    """Units to take of a recording."""
    option: Annotated[dict[str, JsonValue], Shell(short="-o", metavar="KEY=VALUE")] = Field(default_factory=dict)
    """Option of the measure."""


class DemoRequest(Document):
    """Align two trained networks by every method. One of them is only read."""

    seed: Seed = 0
    """Seed of every random choice."""
    quick: bool = False
    """Fewer methods, with the same settings and pairs."""


class ReproduceRequest(Document):
    """Reproduce a figure of the paper."""

    figure: Annotated[str | None, Shell(metavar="FIGURE", positional=True)] = None
    """Number of the figure in the paper, e.g. 2d."""
    quick: bool = False
    """A smaller sweep. The figure says so."""
    workers: Annotated[int | None, Field(gt=0)] = None
    """Processes on this machine. By default one per core."""
    scheduler: Annotated[str | None, Shell(metavar="ADDRESS")] = None
    """Address of a Dask scheduler, tcp://…, whose one-thread workers share DIR."""
    device: tuple[str, ...] = ("cpu",)
    """Where to fit: cpu, cuda, cuda:1, … Workers take several devices in turn."""
    list: bool = False
    """List the figures."""


class BenchRequest(Document):
    """Measure this machine: fits against their floor, look-ups, recordings on disk, schedules."""

    what: Annotated[
        Literal["fit", "pairs", "index", "store", "growth", "schedule", "twins"],
        Shell(metavar="WHAT", positional=True),
    ]
    """What to measure: fit, pairs, index, store, growth, schedule or twins."""
    threads: int = Field(default=1, gt=0)
    """Threads of the fit."""
    batch_size: Annotated[int | None, Field(gt=0)] = None
    """Pairs per direction (fit: 128), or latents drawn at once (512)."""
    n_samples: Annotated[int, Field(ge=10_000), Shell(name="--samples")] = 10_000_000
    """index, store, growth: samples of the largest recording that is made."""
    iterations: int = Field(default=20_000, ge=20)
    """schedule: iterations of the paper's schedule, the reference of the others."""
    run: Annotated[int | None, Field(gt=0)] = None
    """schedule, twins: number of schedules or cases to run. By default all."""
    method: Literal["mas", "clmas"] = "mas"
    """schedule: the method."""
    figure: Annotated[str | None, Shell(metavar="FILE")] = None
    """growth, twins: also draw the curves, or the points."""
    folder: Annotated[str, Shell(metavar="DIR")] = "twins-bench"
    """twins: folder for networks, twins and tables. The same command goes on from what it holds."""
    device: str = "cpu"
    """fit, index, schedule: where to compute."""


class ReadsDevice(Document):
    """Where an action computes."""

    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


class IntoFolder(ReadsDevice):
    """Where an action computes, and the folder that it writes."""

    out: Annotated[str, Shell(metavar="DIR")]
    """Folder for results and checkpoints. The same command goes on from what it holds."""


class IntoFile(Document):
    """The file that an action writes."""

    out: Annotated[str | None, Shell(metavar="FILE")] = None
    """File to write. The ending says the format; - is standard output."""


def requests_by_verb() -> dict[str, type[Document]]:
    """The request document of every action, by the verb that it is named after."""
    return {
        "register": RegisterRequest,
        "annotate": AnnotateRequest,
        "pool": PoolRequest,
        "join": JoinRequest,
        "list": ListRequest,
        "show": ShowRequest,
        "verify": VerifyRequest,
        "remove": RemoveRequest,
        "query": QueryRequest,
        "export": ExportRequest,
        "train": TrainRequest,
        "capture": CaptureRequest,
        "twin": TwinRequest,
        "fit": FitsRequest,
        "evaluate": EvaluateRequest,
        "validate": ValidateRequest,
        "ranks": RanksRequest,
        "locate": LocateRequest,
        "plan": PlanRequest,
        "compare": CompareRequest,
    }
