"""The command line: one verb per user action; no logic of its own.

Results go to standard output, everything else (progress, warnings, errors) to standard error. An error that neuromas raises
on purpose is one message and its own exit code; anything else keeps its traceback. What is slow to import is imported where
it is used, so that ``neuromas --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from neuromas.errors import Corrupt, InvalidInput, NeuromasError, NotFound
from neuromas.schema.fit import FitConfig

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from neuromas.bench.measure import Row
    from neuromas.bench.schedule import Tried
    from neuromas.fit.loop import Progress
    from neuromas.fit.result import FitResult
    from neuromas.index.index import CLIndex
    from neuromas.recordings.recording import Recording
    from neuromas.recordings.store import RecordingStore
    from neuromas.schema.evaluation import DirectionScore, Evaluation
    from neuromas.schema.fit import FitRequest
    from neuromas.systems.system import System

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_SHOWN_SAMPLES, _SHOWN_UNITS, _SHOWN_VALUES = 10, 4, 12
_WHOLE_NAME = 40  # columns; longer names fold on a terminal
_WIDE = 100_000  # columns of what is not a terminal: nothing is cut or wrapped for a program


class Verbs(TyperGroup):
    """The commands, with one place where errors become messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; `typer.Exit` with the error's code if it raises a `NeuromasError`."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except NeuromasError as error:
                if ctx.params.get("debug"):
                    sys.stderr.write(traceback.format_exc())
                _tell(f"error: {error.message}", "bold red")
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt:
                _tell("Interrupted.")
                raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RECORDINGS, _SYSTEMS, _ALIGNMENT = "Recordings", "Systems", "Alignment"

StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Recording store; else NEUROMAS_STORE, else ./recordings where that is one, else the shipped sets.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1, …")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Equal seeds give equal results.")]


def main() -> None:
    """What the ``neuromas`` command runs."""
    # Where other programs keep the cores busy, OpenMP's threads spin for one another: fits became up to 100 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"neuromas {metadata.version('neuromas')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """Causal alignment of neural systems: those you can run, and those you can only read."""


# ------------------------------------------------------------------------------------------------------------ the main job


@app.command(rich_help_panel=_ALIGNMENT)
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for results and report.")] = Path(
        "neuromas-demo"
    ),
    seed: Seed = 0,
) -> None:
    """Align two trained networks, one of them only read, by every method; write iia.csv and report.html."""
    from neuromas.experiments.demo import run_demo

    try:
        run_demo(out, seed=seed, console=_output())
    except KeyboardInterrupt:
        _stop(f"Interrupted. The same command goes on from what {out} holds.")


@app.command(rich_help_panel=_ALIGNMENT)
def reproduce(
    figure: Annotated[
        str | None, typer.Argument(metavar="FIGURE", help="As the paper numbers it, e.g. 2d.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for systems, fits and figures; figures share them.")
    ] = Path("neuromas-figures"),
    quick: Annotated[bool, typer.Option("--quick", help="A smaller sweep; the figure says so.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Processes on this machine. [one per core]", show_default=False
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="A Dask scheduler, tcp://…, whose one-thread workers share DIR.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            help="Where to fit: cpu, cuda, cuda:1, … Repeatable: workers take them in turn. [cpu]",
            show_default=False,
        ),
    ] = None,
    list_figures: Annotated[bool, typer.Option("--list", help="List the figures.")] = False,
) -> None:
    """Reproduce a figure of the paper; interrupted, the same command goes on.

    Writes table.csv, phases.csv (where the task has phases), figure.png, figure.svg and claims.csv into DIR/FIGURE, of a quick
    one into DIR/FIGURE-quick.
    """
    from neuromas.experiments.figures import FIGURES
    from neuromas.experiments.reproduce import figure_folder
    from neuromas.experiments.reproduce import reproduce as reproduce_figure

    if list_figures or figure is None:
        known = _table("figure", "what")
        for one in FIGURES.values():
            _row(known, one.name, one.title)
        _show_table(known)
        return
    if workers is not None and scheduler is not None:
        raise InvalidInput("reproduce: --workers is for this machine, --scheduler has its own", kind="invalid_option")
    try:
        claims = reproduce_figure(
            figure,
            out,
            quick=quick,
            workers=workers,
            scheduler=scheduler,
            devices=device or ["cpu"],
            console=_output(True),
        )
    except KeyboardInterrupt:
        _stop(f"Interrupted. The same command goes on from what {out} holds.")
    table = _table("claim", "held", "detail")
    for claim in claims:
        _row(table, claim.claim, "yes" if claim.held else "no", claim.detail)
    _show_table(table)
    _output().print(_text(f"wrote {_contents(figure_folder(out, figure, quick))}"), soft_wrap=True)


@app.command(rich_help_panel=_ALIGNMENT)
def bench(
    what: Annotated[
        Literal["fit", "pairs", "index", "store", "growth", "schedule"], typer.Argument(help="What to measure.")
    ],
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the fit.")] = 1,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Pairs per direction (fit: 128), latents drawn at once (512)."),
    ] = None,
    n_samples: Annotated[
        int,
        typer.Option("--samples", min=10_000, help="index, store, growth: samples of the (largest) recording made."),
    ] = 10_000_000,
    iterations: Annotated[
        int,
        typer.Option(
            "--iterations", min=20, help="schedule: of the paper's schedule, which the others are held against."
        ),
    ] = 20_000,
    run: Annotated[
        int | None, typer.Option("--run", min=1, help="schedule: how many of these to run. [all]", show_default=False)
    ] = None,
    method: Annotated[Literal["mas", "clmas"], typer.Option("--method", help="schedule: what is fitted.")] = "mas",
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="growth: also draw the curves.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option("--device", help="fit, index, schedule: cpu, cuda, cuda:1, …")] = "cpu",
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the rows as JSON.")] = None,
) -> None:
    """Measure this machine: a fit iteration against its floor, drawing pairs, look-ups, a recording left on disk, schedules."""
    from dataclasses import asdict

    from neuromas.bench.fit import bench_fit, bench_pairs
    from neuromas.bench.index import bench_index
    from neuromas.bench.schedule import bench_schedule
    from neuromas.bench.store import bench_store
    from neuromas.files import write_atomically

    if device != "cpu" and what not in ("fit", "index", "schedule"):
        raise InvalidInput(
            f"bench {what} measures the CPU; --device goes with fit, index and schedule", kind="invalid_option"
        )
    measured: dict[str, Callable[[], list[Row]]] = {
        "fit": lambda: bench_fit(n_threads=threads, batch_size=batch_size or 128, device=device),
        "pairs": bench_pairs,
        "index": lambda: bench_index(n_samples=n_samples, batch_size=batch_size or 512, device=device),
        "store": lambda: bench_store(n_samples=n_samples, batch_size=batch_size or 512),
        "growth": lambda: _growth(n_samples, threads, figure),
        "schedule": lambda: bench_schedule(
            method, iterations=iterations, run=run, n_threads=threads, device=device, report=_tell_schedule
        ),
    }
    rows = measured[what]()
    table = _table("what", "value >", "unit", "ratio >", "against", "target >", "met")
    for row in rows:
        target = "" if row.target is None else f"≤ {row.target:g}"
        met = "" if row.met is None else "yes" if row.met else "no"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        _row(table, row.name, f"{row.value:.4g}", row.unit, ratio, row.against, target, met)
    _show_table(table)
    if out is not None:
        write_atomically(out, json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _tell_schedule(done: Tried) -> None:
    _tell(f"{done.name}: worst IIA {done.worst:.3f} after {done.iterations:,} iterations, {done.seconds:.0f} s")


def _growth(n_samples: int, n_threads: int, figure: Path | None) -> list[Row]:
    from neuromas.bench.growth import bench_growth, draw_growth
    from neuromas.files import write_atomically
    from neuromas.report.figures import png

    rows, curves = bench_growth(most_samples=n_samples, n_threads=n_threads)
    if figure is not None:
        write_atomically(figure, png(draw_growth(curves)))
    return rows


# -------------------------------------------------------------------------------------------------------------- recordings


@app.command(rich_help_panel=_RECORDINGS)
def register(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Files or folders; neuromas formats lists what can be read."),
    ],
    set_name: Annotated[str, typer.Option("--set", metavar="NAME", help="Recording set to make or to add to.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The recording's name (one SOURCE only).", show_default=False)
    ] = None,
    access: Annotated[
        str | None,
        typer.Option("--access", metavar="read|intervene", help="Whether the system can be run.", show_default=False),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", metavar="FILE", help="JSON fields that go before the source's.", show_default=False),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="By default told by the ending.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="FILE", help="JSON: what is taken of a foreign file, and how.", show_default=False
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Field of the recipe. Repeatable."),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--variable", metavar="NAME=EXPRESSION", help="Causal variable, of the source's columns. Repeatable."
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="VARIABLE,…",
            help="Lay samples with equal values together, for look-ups on disk; their order is not kept.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the source holds and what would be made; write nothing.")
    ] = False,
    store: StorePath = None,
) -> None:
    """Publish recordings in a store, all of them at once or none."""
    if name is not None and len(sources) > 1:
        raise InvalidInput(f"--name is for one source; {len(sources)} were given", kind="several_sources")
    from neuromas.recordings.convert.converter import convert, find_converter
    from neuromas.recordings.encode import manifest_fields
    from neuromas.recordings.store import resolve_store

    fields = {key: value for key, value in (("name", name), ("access", access)) if value is not None}
    fields = manifest_fields(manifest, "manifest") | fields
    document = _recipe(recipe, option or [], variable or [])
    into = resolve_store(store)
    read = []
    for source in sources:
        if dry_run and source.exists():
            converter = find_converter(source, form)
            converter.check_requirements()
            if converter.contents is not None:
                _output().print(_text(f"{source} ({converter.name}) holds", "bold"), soft_wrap=True)
                told = _table("", "", header=False)
                for what, which in converter.contents(source):
                    _row(told, what, which)
                _show_table(told)
            if document is None and converter.recipe.problems({}):
                _tell("What to take of it, a recipe says: --recipe, --option, --variable.")
                continue
        read.append(convert(source, document, format=form, **fields))
    if not dry_run:
        _register(into, read, set_name, _listed(group_by) or ())
        return
    for made in read:
        _output().print(_text(f"would be registered: {set_name}/{made.manifest.name}", "bold"), soft_wrap=True)
        _show_recording(made)
    _tell("Nothing was written.", "dim")


def _recipe(path: Path | None, options: Sequence[str], variables: Sequence[str]) -> dict[str, Any] | None:
    """A recipe from a file and words; None if neither is given."""
    document = {} if path is None else _read_json(path)
    document |= {key: _as_json(value) for key, value in _pairs("--option", options).items()}
    if variables:
        filed = document.get("variables", {})
        if not isinstance(filed, Mapping):
            raise InvalidInput(f"{path}: variables: expected an object, got {filed!r}", kind="invalid_document")
        document["variables"] = {**filed, **_pairs("--variable", variables)}
    return document or None


@app.command(rich_help_panel=_RECORDINGS)
def formats() -> None:
    """List the formats that register reads, those of other packages too."""
    from neuromas.recordings.convert.converter import converters

    table = _table("format", "endings", "recipe", "needs")
    for name, one in converters().items():
        needs = (
            "" if not one.requires else f'pip install "neuromas[{one.extra}]"' if one.extra else ", ".join(one.requires)
        )
        _row(table, name, " ".join(one.endings), one.recipe.__name__, needs)
    _show_table(table)


@app.command(rich_help_panel=_RECORDINGS)
def annotate(
    name: Annotated[str, typer.Argument(metavar="SET/RECORDING")],
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--variable", metavar="NAME=EXPRESSION", help="Variable to add, of coordinates and columns. Repeatable."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="FILE", help="JSON: variables with meanings, bins, units.", show_default=False
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="CSV with more columns.", show_default=False)
    ] = None,
    on: Annotated[str, typer.Option("--on", metavar="NAME,…", help="What the table's rows are matched by.")] = "trial",
    replace: Annotated[bool, typer.Option("--replace", help="Let variables take the place of others.")] = False,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Rename a variable. Repeatable.")
    ] = None,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="NAME,…", help="Variables to leave out.", show_default=False)
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPRESSION", help="Samples to keep.", show_default=False)
    ] = None,
    units_where: Annotated[
        str | None, typer.Option("--units-where", metavar="EXPRESSION", help="Units to keep.", show_default=False)
    ] = None,
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Each unit less its mean, over its standard deviation.")
    ] = False,
    shuffle: Annotated[
        int | None,
        typer.Option(
            "--shuffle", metavar="SEED", min=0, help="Exchange values between trials: a control.", show_default=False
        ),
    ] = None,
    within: Annotated[
        str, typer.Option("--within", metavar="NAME", help="Exchange only between trials that agree in this.")
    ] = "",
    shuffle_by: Annotated[
        Literal["trial", "sample"],
        typer.Option("--shuffle-by", help="Whether whole trials exchange values, or samples."),
    ] = "trial",
    new_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Of the new version. [NAME.v2, …]", show_default=False)
    ] = None,
    store: StorePath = None,
) -> None:
    """Make another version of a recording: more variables, others' names, some samples or units, shuffled values.

    Selection comes first, then what the table and expressions add, names last. The recording itself stays as it is.
    """
    from neuromas.recordings import annotate as changes

    held = _existing_store(store)
    recording = before = held.get(name, load=False)
    recording = changes.select(recording, where, units_where)
    added: dict[str, Any] = {**({} if recipe is None else _read_json(recipe)), **_pairs("--variable", variable or [])}
    if added:
        columns = None if table is None else _read_table(table)
        recording = changes.annotate(recording, added, table=columns, on=_listed(on) or [], replace=replace)
    elif table is not None:
        raise InvalidInput("--table brings columns; --variable NAME=COLUMN says which to take", kind="invalid_option")
    if drop is not None:
        recording = changes.drop_variables(recording, _listed(drop) or [])
    if rename:
        recording = changes.rename_variables(recording, _pairs("--rename", rename))
    if standardise:
        recording = changes.standardised(recording)
    if shuffle is not None:
        from neuromas.recordings.shuffle import shuffled

        recording = shuffled(recording, seed=shuffle, within=within, by=shuffle_by)
    if recording is before:
        raise InvalidInput(
            "nothing to change; say --variable, --where, --units-where, --rename, --drop, --standardise or --shuffle",
            kind="invalid_option",
        )
    set_name, _, own = name.partition("/")
    taken = [entry.name.partition("/")[2] for entry in held.list() if entry.set == set_name]
    called = new_name or changes.next_version(own, taken)
    manifest = recording.manifest.model_copy(update={"name": called})
    _register(held, [recording.replaced(recording.dataset, manifest)], set_name)


@app.command(rich_help_panel=_RECORDINGS)
def pool(
    names: Annotated[
        list[str], typer.Argument(metavar="SET/RECORDING...", help="Or a SET, for all of its recordings.")
    ],
    by: Annotated[str, typer.Option("--by", metavar="VARIABLE,…", help="Trials are joined where these agree.")],
    new_name: Annotated[str, typer.Option("--as", metavar="SET/RECORDING", help="What is made.")],
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=1, help="Joined trials per combination of values and part. [all]", show_default=False
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let a unit's trial be taken more than once.")] = False,
    min_trials: Annotated[
        int | None,
        typer.Option("--min-trials", help="Leave out units with fewer of any combination. [3]", show_default=False),
    ] = None,
    seed: Seed = 0,
    store: StorePath = None,
) -> None:
    """Join units that were recorded in different trials into a pseudo-population; train and test trials stay apart."""
    from neuromas.recordings.pseudo import pool as pool_recordings
    from neuromas.recordings.pseudo import trials_by_part

    held = _existing_store(store)
    entries = [entry.name for entry in held.list()]
    chosen = [
        own for name in names for own in ([name] if "/" in name else [e for e in entries if e.startswith(f"{name}/")])
    ]
    set_name, slash, own = new_name.partition("/")
    if not slash or not own:
        raise InvalidInput(f"--as {new_name!r}: expected SET/RECORDING", kind="invalid_option")
    if not chosen:
        raise NotFound(f"no recordings in {', '.join(names)}", kind="unknown_set")
    made = pool_recordings(
        [held.get(one) for one in chosen],
        _listed(by) or [],
        name=own,
        n_trials=trials,
        replace=replace,
        min_trials=min_trials,
        seed=seed,
    )
    pooled = made.manifest.pseudo_population
    assert pooled is not None
    if pooled.left_out:
        _tell(f"Left out, for want of trials: {', '.join(pooled.left_out)}.", "dim")
    _register(held, [made], set_name)
    told = ", ".join(f"{part} {count:,}" for part, count in trials_by_part(made).items())
    _tell(f"Joined trials: {told}. Units were not recorded together: their noise correlations mean nothing.", "dim")


@app.command("list", rich_help_panel=_RECORDINGS)
def list_recordings(store: StorePath = None) -> None:
    """List the recordings of a store."""
    held = _existing_store(store)
    entries = held.list()
    if not entries:
        _tell(f"{held.path} holds no recordings.")
        return
    table = _table("recording", "samples >", "units >", "access", "variables")
    for entry in entries:
        if entry.problem:
            _row(table, entry.name, "", "", "damaged", entry.problem)
        else:
            counts = f"{entry.n_samples:,}", f"{entry.n_units:,}"
            _row(table, entry.name, *counts, entry.access, ", ".join(entry.variables))
    _show_table(table)
    _tell(f"Store: {held.path}" + (" (read-only)" if held.read_only else ""), "dim")


@app.command(rich_help_panel=_RECORDINGS)
def show(
    name: Annotated[str, typer.Argument(metavar="SET/RECORDING")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole manifest, as JSON.")] = False,
    store: StorePath = None,
) -> None:
    """Show a recording: its manifest, its variables, and the values recorded."""
    recording = _existing_store(store).get(name, load=False)
    if as_json:
        sys.stdout.write(recording.manifest.to_json())
        return
    _show_recording(recording)


def _show_recording(recording: Recording) -> None:
    manifest = recording.manifest
    trials = len(set(recording.trial.tolist()))
    facts = {
        "recording": recording.name,
        "activity": f"{recording.n_samples:,} samples × {recording.n_units:,} units, {recording.activity.dtype}, "
        f"{trials:,} trials" + (", units missing in some samples" if manifest.missing else ""),
        "units": manifest.units,
        "eligible": f"{int(recording.eligible.sum()):,} samples",
        "access": manifest.access,
        "system": manifest.system,
        "layer": manifest.layer,
        "task": manifest.task,
        "step": manifest.sampling.step
        + ("" if manifest.sampling.step_s is None else f" of {manifest.sampling.step_s:g} s"),
        "aligned to": manifest.sampling.aligned_to or "",
        "time": _time_told(recording),
        "pseudo-population": _pooled_told(recording),
        "description": manifest.description,
        "licence": manifest.licence,
        "citation": manifest.citation,
        "source": manifest.provenance.source,
        "version of": " < ".join(manifest.provenance.derived_from),
        "control": manifest.control,
        "notes": manifest.provenance.notes,
        "content": "" if manifest.content_sha256 is None else f"sha256 {manifest.content_sha256}",
    }
    table = _table("", "", header=False)
    for key, value in facts.items():
        if value:
            _row(table, key, value)
    _show_table(table)
    variables = _table("variable", "type", "values recorded (samples)")
    for spec in manifest.variables:
        _row(variables, spec.name, spec.type, _values_recorded(recording, spec.name))
    _show_table(variables)


@app.command(rich_help_panel=_RECORDINGS)
def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="SET[/RECORDING]", help="All by default.", show_default=False)
    ] = None,
    store: StorePath = None,
) -> None:
    """Compare every stored file with what was written; name each that differs."""
    held = _existing_store(store)
    problems = held.verify(name)
    for problem in problems:
        _output().print(_text(str(problem)), soft_wrap=True)
    if problems:
        noun = "file is" if len(problems) == 1 else "files are"
        raise Corrupt(f"{name or held.path}: {len(problems)} {noun} not as written", kind="verify_failed")
    chosen = [entry.name for entry in held.list() if name in (None, entry.set, entry.name)]
    _output().print(_text(f"{len(chosen)} recordings are as they were written: {', '.join(chosen) or 'none'}"))


@app.command(rich_help_panel=_RECORDINGS)
def remove(
    name: Annotated[str, typer.Argument(metavar="SET[/RECORDING]")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StorePath = None,
) -> None:
    """Take a recording, or a whole set, out of a store; a set whose set.json is damaged or gone goes as a whole."""
    held = _existing_store(store)
    chosen = [entry for entry in held.list() if name in (entry.set, entry.name)]
    if chosen and not yes and not held.read_only:
        for entry in chosen:
            if entry.problem:
                _tell(f"warning: {entry.name}: {entry.problem}", "yellow")
        _tell(f"This deletes {', '.join(entry.name for entry in chosen)} from {held.path}.")
        if not typer.confirm("Go on?", err=True):
            raise typer.Exit(1)
    for removed in held.remove(name):
        _output().print(_text(f"removed {removed}"))


@app.command(rich_help_panel=_RECORDINGS)
def query(
    name: Annotated[str, typer.Argument(metavar="SET/RECORDING")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VARIABLE=VALUE...",
            help="phase=demo, count=1,3, count=2..5, phase=any; type='\"a, b\"' where a value holds a comma or '..'.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="Draw so many at random; else all, in order.", show_default=False)
    ] = None,
    seed: Seed = 0,
    units: Annotated[
        str | None, typer.Option("--units", metavar="A,B,…", help="Units to take; else all.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to .npz, .nc or .csv.", show_default=False)
    ] = None,
    store: StorePath = None,
) -> None:
    """Find recorded latents whose variables hold the values asked for."""
    from neuromas.recordings.export import check_ending, export

    if out is not None:
        check_ending(out)
    from neuromas.index.index import CLIndex
    from neuromas.index.query import parse_query

    asked = parse_query(words or [])
    held = _existing_store(store)
    recording = held.get(name, load=False)
    if not set(asked or recording.variable_names) <= set(recording.manifest.grouped_by):
        recording = held.get(name)
    index = CLIndex(recording, list(asked) or recording.variable_names, units=_listed(units))
    found = index.query(asked, n, seed)
    _tell_left_out(index)
    latents = recording.select_samples(found["sample"].values).select_units(index.units)
    if out is None:
        shown = min(latents.n_samples, n or _SHOWN_SAMPLES)
        samples = found["sample"].values.tolist()[:shown]
        tables = [_latents_table(latents, samples, latents.unit_names[:count]) for count in range(1, _SHOWN_UNITS + 1)]
        _show_table(next((table for table in reversed(tables) if _fits(table)), tables[0]))
        if shown < latents.n_samples:
            _tell(f"… and {latents.n_samples - shown:,} more; --out FILE writes them all")
    else:
        export(latents, out, samples=found["sample"].values)
        _output().print(_text(f"{out}: {latents.n_samples:,} latents of {latents.n_units:,} units"))


# ----------------------------------------------------------------------------------------------------------------- systems


@app.command(rich_help_panel=_SYSTEMS)
def train(
    task: Annotated[str, typer.Argument(help="multi-object, same-object, modulo, rounding, arithmetic or in-context.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for config and weights.")],
    system: Annotated[
        str, typer.Option("--system", help="Kind of network: gru, lstm, transformer, or llama (in-context task).")
    ] = "gru",
    seed: Seed = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="The system's name; else KIND-SEED.", show_default=False)
    ] = None,
    n_units: Annotated[int, typer.Option("--n-units", min=1, help="Width of the latent.")] = 128,
    void: Annotated[
        float, typer.Option("--void", help="Counting tasks: chance of a void token (paper: 0.2 for transformers).")
    ] = 0,
    hold_out: Annotated[
        str | None,
        typer.Option(
            "--hold-out",
            metavar="N,…",
            help="Counting tasks: quantities never shown (paper: 4,9,14,17).",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        int,
        typer.Option(
            "--memory", min=0, help="Recurrent networks: steps that gates remember at first (arithmetic: 60)."
        ),
    ] = 0,
    target_accuracy: Annotated[
        float, typer.Option("--target-accuracy", min=0, max=1, help="Stop at this share of held-out trials right.")
    ] = 0.999,
    min_iterations: Annotated[
        int | None,
        typer.Option("--min-iterations", min=0, help="Go on at least so long; by default 2000.", show_default=False),
    ] = None,
    max_iterations: Annotated[int, typer.Option("--max-iterations", min=1, help="Go on at most so long.")] = 20_000,
    device: Device = "cpu",
) -> None:
    """Train a network on a task; interrupted, the same command goes on."""
    from neuromas.causal.model import get_task
    from neuromas.progress import Bar
    from neuromas.systems.language_model import train_language_model
    from neuromas.systems.training import CHECKPOINT
    from neuromas.systems.training import train as train_system

    options: dict[str, Any] = {} if not void else {"void": void}
    if hold_out is not None:
        options["hold_out"] = [_whole(part, "--hold-out") for part in hold_out.split(",")]
    model = get_task(task, **options)
    try:
        with Bar(f"{system} {seed}", max_iterations) as bar:

            def progress(iteration: int, loss: float, accuracy: float | None) -> None:
                told = "" if accuracy is None else f", held-out accuracy {accuracy:.4f}"
                bar.update(iteration, f"loss {loss:.4f}{told}")

            common: dict[str, Any] = {
                "out": out,
                "seed": seed,
                "name": name,
                "n_units": n_units,
                "target_accuracy": target_accuracy,
                "max_iterations": max_iterations,
                "device": device,
                "progress": progress,
            }
            trained: System
            if system == "llama":
                if options or memory or min_iterations is not None:
                    raise InvalidInput(
                        "--void, --hold-out, --memory and --min-iterations are not for --system llama",
                        kind="invalid_option",
                    )
                trained = train_language_model(task=task, **common)
            else:
                if min_iterations is not None:
                    common["min_iterations"] = min_iterations
                trained = train_system(model, kind=system, memory=memory, **common)
    except KeyboardInterrupt:
        if system == "llama":
            _stop("Interrupted. A language model keeps no checkpoint; the same command begins anew.")
        _stop_at(out / CHECKPOINT)
    accuracy = trained.config.trial_accuracy
    told = f"{trained.name}: {trained.config.iterations:,} iterations, held-out trial accuracy {accuracy:.4f}"
    _output().print(_text(f"{told}\nwrote {_contents(out)}"), soft_wrap=True)
    if accuracy is not None and accuracy < target_accuracy:
        _tell(f"warning: the iteration limit came before accuracy {target_accuracy:g}", "yellow")


@app.command(rich_help_panel=_SYSTEMS)
def capture(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="Folder, or name of a shipped system; @LAYER may follow.")
    ],
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many trials to draw and run.")] = 1000,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="Another task than its own.", show_default=False)
    ] = None,
    only_solved: Annotated[
        bool, typer.Option("--only-solved", help="Keep only trials that the system solves.")
    ] = False,
    seed: Seed = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="The recording's name; else the system's.", show_default=False)
    ] = None,
    access: Annotated[
        Literal["intervene", "read"], typer.Option("--access", help="read: for a system that plays a brain.")
    ] = "intervene",
    dtype: Annotated[Literal["float32", "float16"], typer.Option("--dtype", help="Precision to store.")] = "float32",
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Recording set to put it into.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Or a .nc or .npz file.", show_default=False)
    ] = None,
    store: StorePath = None,
    device: Device = "cpu",
) -> None:
    """Run a system on trials of its task and keep what was recorded."""
    if (set_name is None) == (out is None):
        raise InvalidInput("capture: expected either --set NAME or --out FILE", kind="nowhere_to_go")
    from neuromas.recordings.export import check_ending, export
    from neuromas.recordings.store import resolve_store

    into = None if set_name is None else resolve_store(store)
    if out is not None:
        check_ending(out, (".nc", ".npz"))
    from neuromas.causal.model import get_task
    from neuromas.systems.capture import capture as capture_system
    from neuromas.systems.training import load_system

    recording = capture_system(
        load_system(system, device),
        trials,
        seed=seed,
        name=name,
        access=access,
        model=None if task is None else get_task(task),
        dtype=dtype,
        only_solved=only_solved,
    )
    if into is not None and set_name is not None:
        _register(into, [recording], set_name)
    elif out is not None:
        export(recording, out)
        _output().print(_text(f"{out}: {recording.n_samples:,} samples × {recording.n_units:,} units"))


# --------------------------------------------------------------------------------------------------------------- alignment

_EXPLICIT = (
    *("method", "subspaces", "variables", "map", "rotation", "init", "solver", "direction", "epsilon", "batch_size"),
    *("learning_rate", "max_iterations", "seed", "format_version"),
)
_OTHERS = ", ".join(key for key in FitConfig.model_fields if key not in _EXPLICIT)


@app.command(rich_help_panel=_ALIGNMENT)
def fit(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for checkpoint and result.")],
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="das, mas, clmas, stitch or latent-stitch.", show_default=False),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option("--system", metavar="DIR[@LAYER]", help="Trained or shipped system that may be run. Repeatable."),
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option("--read", metavar="SET/RECORDING", help="Recording that is only read. Repeatable."),
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank",
            metavar="N|VARIABLE=N,…",
            help="Components of the subspace, or of each variable's. [16; stitching: the full width]",
            show_default=False,
        ),
    ] = None,
    variables: Annotated[
        str | None, typer.Option("--variables", metavar="A,B,…", help="What is compared.", show_default=False)
    ] = None,
    map_: Annotated[
        str | None, typer.Option("--map", metavar="orthogonal|linear", help="Kind of map.", show_default=False)
    ] = None,
    rotation: Annotated[
        str | None,
        typer.Option(
            "--rotation",
            metavar="NAME",
            help="matrix-exponential, gram-schmidt, cayley or householder.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="random|closed-form", help="Where to start.", show_default=False)
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option("--solver", metavar="gradient|closed-form", help="latent-stitch only.", show_default=False),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            "--direction", metavar="SOURCE,TARGET", help="Stitching only: from whom to whom.", show_default=False
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", help="Weight of the counterfactual-latent loss.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", help="Pairs per direction and iteration.", show_default=False),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Of Adam.", show_default=False)] = None,
    max_iterations: Annotated[
        int | None, typer.Option("--max-iterations", metavar="N", help="Go on at most so long.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Equal seeds give equal results. [0]", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help=f"Any other setting: {_OTHERS}. Repeatable."),
    ] = None,
    several: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=A,B,…",
            help="Fit every value together, each into a folder of its own in DIR: seed=0,1,2, rank=4,8, epsilon=0.3,0.85; of "
            "lists and objects a JSON list. Repeatable: every combination.",
        ),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="NAME=A,B,…", help="Units to take of a recording. Repeatable."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            metavar="FILE",
            help="JSON: recording → names and values that differ in it.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="JSON: a fit request; options go before it.", show_default=False),
    ] = None,
    store: StorePath = None,
    device: Device = "cpu",
) -> None:
    """Fit an alignment; interrupted, the same command goes on from its checkpoint."""
    from neuromas.fit.loop import CHECKPOINT
    from neuromas.fit.request import parse_request, run_request, settled
    from neuromas.fit.result import RESULT
    from neuromas.progress import Bar

    given = {
        "method": method,
        "subspaces": _rank(rank),
        "variables": _listed(variables),
        "map": map_,
        "rotation": rotation,
        "init": init,
        "solver": solver,
        "direction": _listed(direction),
        "epsilon": epsilon,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_iterations": max_iterations,
        "seed": seed,
    }
    document = {} if config is None else _read_json(config)
    places = {
        "systems": system or None,
        "read": read or None,
        "units": {key: value.split(",") for key, value in _pairs("--units", units or []).items()} or None,
        "mapping": None if mapping is None else _read_json(mapping),
        "store": None if store is None else str(store),
    }
    document |= {key: value for key, value in places.items() if value is not None}
    explicit = _settings({}, given, option or [])
    document["config"] = _settings(document.get("config", {}), given, option or [])
    request = settled(parse_request(document, "fit" if config is None else f"fit, {config} and options"))
    if request.read:
        _existing_store(request.store)
    if several:
        _fit_several(request, _axes(several, explicit), out, device)
        return
    was_finished = (out / RESULT).is_file()
    try:
        with Bar(request.config.method, request.config.max_iterations) as bar:
            result = run_request(request, out, device=device, progress=lambda now: bar.update(now.iteration, str(now)))
    except KeyboardInterrupt:
        _stop_at(out / CHECKPOINT)
    if was_finished:
        _tell(f"{out} holds this fit, finished already.")
    _print_fit(result)
    _output().print(_text(f"wrote {_contents(out)}\nnext: neuromas evaluate {out}"), soft_wrap=True)


def _axes(several: Sequence[str], explicit: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values by setting, of ``--vary``; none of them is `explicit`, given by an option of its own."""
    from neuromas.fit.request import SHORT

    axes: dict[str, list[Any]] = {}
    for text in several:
        ((key, values),) = _pairs("--vary", [text]).items()
        head, dot, rest = key.partition(".")
        name = head.replace("-", "_") + dot + rest
        inside: Any = explicit
        for part in SHORT.get(name, name).split("."):
            inside = inside.get(part) if isinstance(inside, Mapping) else None
        if name in axes or inside is not None:
            raise InvalidInput(
                f"--vary {key}: given twice, there and {'by an option of its own' if inside is not None else 'before'}",
                kind="given_twice",
            )
        listed = _as_json(values) if values.startswith("[") else None
        axes[name] = listed if isinstance(listed, list) else [_as_json(value) for value in values.split(",")]
    return axes


def _fit_several(request: FitRequest, axes: Mapping[str, Sequence[Any]], out: Path, device: str) -> None:
    """Fits for every combination on the axes, and a table of them in `out`."""
    from neuromas.fit.request import run_requests, vary
    from neuromas.progress import Bar

    varied = vary(request, axes)
    points = {one.name: one.point for one in varied}
    iterations = dict.fromkeys(points, 0)
    n_at_most = sum(one.request.config.max_iterations for one in varied)

    def report(name: str, now: Progress) -> None:
        iterations[name] = now.iteration
        bar.update(sum(iterations.values()), f"{name}: {now}")

    try:
        with Bar(f"{len(varied)} × {request.config.method}", n_at_most) as bar:
            run_requests({one.name: one.request for one in varied}, out, device=device, progress=report)
    except KeyboardInterrupt:
        _stop(f"Interrupted. What is in {out} is kept; the same command goes on from there.")
    except InvalidInput as error:
        if error.kind == "diverged":  # the others are there
            _write_results(out, points)
        raise
    _write_results(out, points)
    _output().print(_text(f"next: neuromas evaluate {out / varied[0].name}"), soft_wrap=True)


def _write_results(out: Path, points: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of those fits in `out` that are finished, there and on the terminal."""
    from neuromas.files import write_atomically
    from neuromas.fit.result import RESULT, FitResult, results_table

    results = {name: FitResult.load(out / name) for name in points if (out / name / RESULT).is_file()}
    if not results:
        return
    table = results_table(results, points)
    write_atomically(out / "table.csv", table.to_csv(index=False))
    settings = list(next(iter(points.values())))
    shown = _table(*(f"{column} >" for column in (*settings, "iterations", "loss", "iia", "seconds", "status")))
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        numbers = (_number(row[column]) for column in ("loss", "iia", "seconds"))
        _row(shown, *(str(row[one]) for one in (*settings, "iterations")), *numbers, row["status"])
    _show_table(shown)
    for warning in dict.fromkeys(one for result in results.values() for one in result.report.warnings):
        warned = [name for name, result in results.items() if warning in result.report.warnings]
        where = "" if len(warned) == len(results) else f"{', '.join(warned)}: "
        _tell(f"warning: {where}{warning}", "yellow")
    _output().print(_text(f"wrote {out / 'table.csv'}"), soft_wrap=True)


@app.command(rich_help_panel=_ALIGNMENT)
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What fit wrote.")],
    oracle: Annotated[
        list[str] | None,
        typer.Option(
            "--oracle",
            metavar="NAME=DIR",
            help="Live copy of a system that was only read, for this evaluation alone. Repeatable.",
        ),
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", min=2, help="Held-out pairs per direction.")] = 1000,
    part: Annotated[Literal["train", "validation", "test"], typer.Option("--part", help="Which trials.")] = "test",
    seed: Seed = 0,
    store: StorePath = None,
    device: Device = "cpu",
) -> None:
    """Score a fit on held-out pairs, with its controls; write evaluation.json and iia.csv."""
    from neuromas.evaluate.accuracy import scores_table
    from neuromas.files import write_atomically
    from neuromas.fit.request import reopen
    from neuromas.systems.training import load_system

    live = {name: load_system(path, device) for name, path in _pairs("--oracle", oracle or []).items()}
    result = reopen(folder, store=store, device=device)
    called = {side.recording.name: side.name for side in result.sides}
    live = {called.get(name, name): one for name, one in live.items()}
    for side in result.sides:
        if side.name in live and side.recording.manifest.system != live[side.name].name:
            _tell(
                f"warning: {side.name} was recorded from {side.recording.manifest.system!r}, the oracle is called "
                f"{live[side.name].name!r}",
                "yellow",
            )
    evaluation = result.evaluate(oracles=live, n_pairs=pairs, part=part, seed=seed)
    write_atomically(folder / "evaluation.json", evaluation.to_json())
    write_atomically(folder / "iia.csv", scores_table(evaluation.scores))
    _print_evaluation(evaluation)
    _output().print(_text(f"wrote {folder / 'evaluation.json'}, {folder / 'iia.csv'}"), soft_wrap=True)


@app.command(rich_help_panel=_ALIGNMENT)
def plan(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What fit wrote.")],
    source: Annotated[
        str, typer.Option("--source", metavar="NAME", help="System whose recorded latents donate values.")
    ],
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="System that is to hold them.")],
    want: Annotated[
        list[str], typer.Option("--want", metavar="VARIABLE=VALUE", help="What it is to hold. Repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help=".nc, or .csv with a row per sample and unit.")],
    subspace: Annotated[
        str | None, typer.Option("--subspace", metavar="NAME", help="If there are several.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="So many, at random. [all]", show_default=False)
    ] = None,
    sources: Annotated[int, typer.Option("--sources", min=1, help="Source latents averaged for each sample.")] = 1,
    part: Annotated[Literal["train", "validation", "test"], typer.Option("--part", help="Which trials.")] = "test",
    seed: Seed = 0,
    store: StorePath = None,
    device: Device = "cpu",
) -> None:
    """Write a stimulation plan: for each sample, how every unit would have to change for other values to be held."""
    from neuromas.evaluate.stimulation import save_plan, stimulation_plan
    from neuromas.fit.request import reopen
    from neuromas.recordings.export import check_ending

    check_ending(out, (".nc", ".csv"))
    result = reopen(folder, store=store, device=device)
    by_name = {name: side for side in result.sides for name in (side.recording.name, side.name)}
    for name in (source, target):
        if name not in by_name:
            known = ", ".join(side.name for side in result.sides)
            raise NotFound(f"{folder} joins {known}, not {name!r}", kind="unknown_system")
    made = stimulation_plan(
        result.alignment,
        by_name[source],
        by_name[target],
        _pairs("--want", want),
        subspace=subspace,
        part=part,
        n_samples=samples,
        n_sources=sources,
        seed=seed,
    )
    save_plan(made, out)
    units = _table("unit", "current >", "planned >", "change >", "clipped >")
    for number, unit in enumerate(made["unit"].values[:_SHOWN_VALUES]):
        of = made.isel(unit=number)
        mean = (float(of[key].mean()) for key in ("current", "planned", "change"))
        _row(units, unit, *(f"{value:.3g}" for value in mean), f"{float(of['clipped'].mean()):.0%}")
    _show_table(units)
    told = f" (the first {_SHOWN_VALUES} of {made.sizes['unit']} units)" if made.sizes["unit"] > _SHOWN_VALUES else ""
    _tell(f"Means over {made.sizes['sample']:,} samples{told}, in {made['change'].attrs['units']}.", "dim")
    if "warnings" in made.attrs:
        _tell(f"warning: {made.attrs['warnings']}", "yellow")
    _output().print(_text(f"wrote {out}"), soft_wrap=True)


@app.command(rich_help_panel=_ALIGNMENT)
def compare(
    x: Annotated[str, typer.Argument(metavar="SET/RECORDING")],
    y: Annotated[str, typer.Argument(metavar="SET/RECORDING", help="Of the same trials.")],
    measure: Annotated[str, typer.Option("--measure", metavar="NAME", help="rsa or cka.")] = "rsa",
    samples: Annotated[int, typer.Option("--samples", min=3, help="Samples drawn for one value.")] = 1000,
    resamples: Annotated[int, typer.Option("--resamples", min=1, help="How often they are drawn anew.")] = 10,
    seed: Seed = 0,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="NAME=A,B,…", help="Units to take of a recording. Repeatable."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Setting of the measure. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.", show_default=False)
    ] = None,
    store: StorePath = None,
) -> None:
    """Compare two recordings of the same trials by a measure of similarity; nothing is run."""
    from dataclasses import asdict

    from neuromas.files import write_atomically
    from neuromas.measures.comparison import compare as compare_recordings
    from neuromas.measures.registry import get_measure

    settings = {key.replace("-", "_"): _as_json(value) for key, value in _pairs("--option", option or []).items()}
    settings = get_measure(measure).settled(settings)
    taken = {name: _listed(listed) or [] for name, listed in _pairs("--units", units or []).items()}
    held = _existing_store(store)
    result = compare_recordings(
        held.get(x), held.get(y), measure, n_samples=samples, n_resamples=resamples, seed=seed, units=taken, **settings
    )
    table = _table("measure", "mean >", "lowest >", "highest >", "resamples >", "samples >", "options")
    numbers = (_number(value) for value in (result.mean, result.low, result.high))
    told = ", ".join(f"{key} {str(value).lower()}" for key, value in result.options.items())
    _row(table, measure, *numbers, result.n_resamples, f"{result.n_samples:,} of {result.n_usable:,}", told)
    _show_table(table)
    left_out = {"with an end token": result.n_ended, "incomplete": result.n_incomplete}
    why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "none"
    _tell(f"{result.n_shared:,} shared samples, matched by {', '.join(result.matched_by)}; left out: {why}.", "dim")
    for name, count in zip(result.recordings, result.n_constant_units, strict=True):
        if count:
            _tell(f"{name}: {count:,} units are constant over the samples drawn.", "dim")
    if out is not None:
        document = asdict(result) | {"mean": result.mean, "low": result.low, "high": result.high}
        write_atomically(out, json.dumps(document, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------------- words into values


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise InvalidInput(f"{option} {text!r}: expected NAME=VALUE", kind="invalid_option")
        if name in pairs:
            raise InvalidInput(f"{option}: {name!r} is given twice", kind="invalid_option")
        pairs[name] = value
    return pairs


def _rank(text: str | None) -> dict[str, Any] | None:
    """Ranks by subspace; what is no number is left for the schema to name."""
    if text is None:
        return None
    named = _pairs("--rank", text.split(",")) if "=" in text else {"full": text}
    return {name: _as_json(value) for name, value in named.items()}


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{option}: expected whole numbers, got {text!r}", kind="invalid_option") from None


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _settings(filed: Any, given: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """A fit's settings: the file's, then ``--option``, then options of their own."""
    if not isinstance(filed, Mapping):
        raise InvalidInput(f"config: expected an object, got {filed!r}", kind="invalid_document")
    explicit = {key: value for key, value in given.items() if value is not None}
    others = {key.replace("-", "_"): _as_json(value) for key, value in _pairs("--option", options).items()}
    twice = [key for key in others if key in explicit]
    if twice:
        raise InvalidInput(
            f"given both by --option and by an option of its own: {', '.join(twice)}", kind="given_twice"
        )
    if "method" in explicit and filed.get("method", explicit["method"]) != explicit["method"]:
        raise InvalidInput(
            f"the configuration file is for {filed['method']!r}, the command says {explicit['method']!r}",
            kind="given_twice",
        )
    return {**filed, **others, **explicit}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", kind="no_such_file") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON: {error}", kind="unreadable_source") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: expected a JSON object, got {type(document).__name__}", kind="unreadable_source")
    return document


def _read_table(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(path, sep=None, engine="python")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", kind="no_such_file") from None
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        raise InvalidInput(f"{path}: cannot be read as a table: {error}", kind="unreadable_source") from error


def _existing_store(path: Path | str | None) -> RecordingStore:
    from neuromas.recordings.store import is_store, resolve_store

    store = resolve_store(path)
    if not is_store(store.path):
        raise NotFound(f"no recording store at {store.path}; the first register makes one", kind="no_such_store")
    return store


def _register(
    store: RecordingStore, recordings: Sequence[Recording], set_name: str, group_by: Sequence[str] = ()
) -> None:
    held = {entry.name for entry in store.list()}
    names = store.register(recordings, set=set_name, group_by=group_by)
    for name, recording in zip(names, recordings, strict=True):
        verb = "was there already, unchanged:" if name in held else "registered:"
        told = f"{recording.n_samples:,} samples × {recording.n_units:,} units, access {recording.manifest.access}"
        _output().print(_text(f"{name} {verb} {told}"), soft_wrap=True)


# ----------------------------------------------------------------------------------------------------- values into words


def _time_told(recording: Recording) -> str:
    seconds, width = recording.time_s, recording.manifest.sampling.step_s
    if seconds is None or width is None:
        return ""
    return f"{seconds.min() - width / 2:g} to {seconds.max() + width / 2:g} s"


def _pooled_told(recording: Recording) -> str:
    from neuromas.recordings.pseudo import trials_by_part

    pooled = recording.manifest.pseudo_population
    if pooled is None:
        return ""
    trials = ", ".join(f"{part} {count:,}" for part, count in trials_by_part(recording).items())
    return (
        f"units of {len(pooled.recordings)} recordings, joined by {', '.join(pooled.variables)} (seed {pooled.seed}); trials:"
        f" {trials}; noise correlations mean nothing"
    )


def _values_recorded(recording: Recording, name: str) -> str:
    import numpy as np

    spec = recording.spec(name)
    values, counts = np.unique(recording.dataset[name].values, return_counts=True)
    if spec.type == "real" or (spec.type == "integer" and len(values) > _SHOWN_VALUES):
        unit = "" if spec.units == "1" else f" {spec.units}"
        return f"{values.min():g} to {values.max():g}{unit}, {len(values):,} different"
    told = [f"{spec.label(float(value))} ({count:,})" for value, count in zip(values, counts, strict=True)]
    more = [] if len(told) <= _SHOWN_VALUES else [f"and {len(told) - _SHOWN_VALUES:,} more"]
    return ", ".join([*told[:_SHOWN_VALUES], *more])


def _tell_left_out(index: CLIndex) -> None:
    why = {
        "not eligible": index.n_ineligible,
        "incomplete in the units asked for": index.n_incomplete,
    }
    told = ", ".join(f"{count:,} {reason}" for reason, count in why.items() if count)
    if told:
        _tell(f"Looked among {index.n_samples:,} samples; left out: {told}.", "dim")


def _latents_table(latents: Recording, samples: Sequence[int], units: Sequence[str]) -> Table:
    from neuromas.recordings.export import readable

    names = ["trial", "step", *latents.variable_names]
    names += [name for name in ("token",) if name in latents.dataset.coords]
    columns = [readable(latents, name) for name in names]
    numeric = [column.dtype.kind in "iuf" for column in columns]
    activity = latents.latents(units)
    heads = (f"{name} >" if number else name for name, number in zip(names, numeric, strict=True))
    table = _table("sample >", *heads, *(f"{unit} >" for unit in units))
    for row, sample in enumerate(samples):
        told = (f"{column[row]:g}" if number else column[row] for column, number in zip(columns, numeric, strict=True))
        _row(table, sample, *told, *(f"{value:.3g}" for value in activity[row]))
    return table


def _print_fit(result: FitResult) -> None:
    report = result.report
    best = next((seen for seen in report.history if seen.iteration == report.best_iteration), report.history[-1])
    _output().print(
        _text(
            f"{report.config.method}: {report.status}, {report.iterations:,} iterations in {report.seconds:.1f} s; "
            f"best at {report.best_iteration:,}, validation loss {best.loss:.4f}"
        ),
        soft_wrap=True,
    )
    for warning in report.warnings:
        _tell(f"warning: {warning}", "yellow")
    inputs = _table("input", "access", "units >", "samples used >", "incomplete >")
    for one in report.inputs:
        _row(inputs, one.name, one.access, f"{one.n_units:,}", f"{one.n_samples:,}", f"{one.n_incomplete:,}")
    _show_table(inputs)
    scores = _table("direction", "behaviour loss >", "CL loss >", "validation IIA >", "missed pairs >")
    missed = {one.direction: one for one in report.misses if one.part == "validation"}
    for name in dict.fromkeys([*missed, *best.behaviour, *best.cl]):
        share = f"{missed[name].n_missed:,} of {missed[name].n_pairs:,}" if name in missed else ""
        _row(scores, name, *(_number(d.get(name)) for d in (best.behaviour, best.cl, best.iia)), share)
    _show_table(scores)


def _print_evaluation(evaluation: Evaluation) -> None:
    by_direction: dict[tuple[str, str], list[DirectionScore]] = {}
    for score in evaluation.scores:
        by_direction.setdefault((score.source, score.target), []).append(score)
    for (source, target), scores in by_direction.items():
        first = scores[0]
        how = "its live copy, an oracle, was run here" if first.oracle else "only read, never run"
        how = "run" if first.access == "yes" else how
        _output().print(_text(f"{source} → {target} ({how}; {first.n_pairs:,} {evaluation.part} pairs)", "bold"))
        several = any(score.subspace for score in scores)
        ran = any(score.iia is not None for score in scores)
        behaved = ("IIA >", "95 % >", "tokens >") if ran else ()
        heads = (*behaved, "CL loss >", "L2 ratio >", "outside >", "retrieval >", "chance >")
        heads = (*heads, "coverage >") if ran else (*heads, "pattern >", "ceiling >", "coverage >")
        table = _table("method", *(["subspace"] if several else []), *heads)
        for score in scores:
            interval = "" if score.low is None or score.high is None else f"{score.low:.3f}–{score.high:.3f}"
            told = [_number(score.iia), interval, _number(score.token_accuracy)] if ran else []
            told += map(
                _number, (score.cl_loss, score.l2_ratio, score.outside, score.retrieval, score.retrieval_chance)
            )
            told += [] if ran else map(_number, (score.pattern, score.pattern_ceiling))
            names = (score.method, score.subspace or "all") if several else (score.method,)
            _row(table, *names, *told, _number(score.coverage))
        _show_table(table)
    for warning in evaluation.warnings:
        _tell(f"warning: {warning}", "yellow")
    if evaluation.oracles:
        _tell(
            f"{', '.join(evaluation.oracles)}: read only in the fit; a live copy (oracle) was run by this evaluation alone."
        )
    elif any(score.iia is None for score in evaluation.scores):
        _tell("Where the target can only be read there is no IIA: --oracle NAME=DIR runs a live copy, if there is one.")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"  # no minus zero


def _contents(folder: Path) -> str:
    return ", ".join(str(path) for path in sorted(folder.iterdir()) if not path.name.startswith("."))


# ------------------------------------------------------------------------------------------------------------ the terminal


def _output(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def _text(message: object, style: str = "") -> Any:
    from rich.text import Text

    return Text(str(message), style)  # never markup: messages may hold brackets


def _tell(message: str, style: str = "") -> None:
    _output(stderr=True).print(_text(message, style), soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _tell(f"warning: {message}", "yellow")


def _stop(message: str) -> NoReturn:
    _tell(message, "yellow")
    raise typer.Exit(INTERRUPTED)


def _stop_at(checkpoint: Path) -> NoReturn:
    if checkpoint.is_file():
        _stop(f"Interrupted. {checkpoint} is kept; the same command goes on from there.")
    _stop("Interrupted before the first checkpoint; the same command starts anew.")


def _table(*columns: str, header: bool = True) -> Table:
    """A table that folds long words rather than cut them; a column whose name ends in ``>`` stands to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_header=header, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith(" >")
        table.add_column(_text(column.removesuffix(" >")), justify="right" if right else "left", overflow="fold")
    return table


def _show_table(table: Table) -> None:
    console = _output()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as rendered:
        console.print(table)
    lines = (line.strip() for line in rendered.get().splitlines())
    sys.stdout.write("\n".join(line for line in lines if line) + "\n\n")


def _fits(table: Table) -> bool:
    """Whether the terminal is wide enough for the table as it is."""
    from rich.measure import Measurement

    console = _output()
    return Measurement.get(console, console.options.update_width(_WIDE), table).maximum <= console.width


def _row(table: Table, *cells: object) -> None:
    name = table.columns[0]
    name.min_width = max(name.min_width or 0, min(len(str(cells[0])), _WHOLE_NAME))
    table.add_row(*(_text(cell) for cell in cells))


if __name__ == "__main__":
    main()
