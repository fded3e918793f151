"""Verbs about recordings and stores."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuromas.cli import terminal
from neuromas.cli.options import Asked
from neuromas.cli.verbs import verb
from neuromas.errors import Corrupt
from neuromas.schema.actions import (
    AnnotateRequest,
    ExportRequest,
    FormatsRequest,
    IntoFile,
    ListRequest,
    PoolRequest,
    QueryRequest,
    RegisterRequest,
    RemoveRequest,
    ShowRequest,
    VerifyRequest,
)

if TYPE_CHECKING:
    from rich.table import Table

    from neuromas.actions.register import Registered
    from neuromas.index.index import CLIndex
    from neuromas.recordings.recording import Recording

_SHOWN_SAMPLES, _SHOWN_UNITS = 10, 4


@verb(RegisterRequest)
def register_(asked: Asked) -> None:
    from neuromas.actions.register import preview, register

    (request,) = asked.parse("register")
    if not request.dry_run:
        say_registered(register(request))
        return
    for source in preview(request):
        if source.contents is not None:
            terminal.say(f"{source.source} ({source.format}) holds", "bold")
            holds = terminal.table("", "", header=False)
            for what, which in source.contents:
                terminal.row(holds, what, which)
            terminal.show(holds)
        if source.recording is None:
            terminal.tell("A recipe says what to take of it: --recipe, --option, --variable.")
            continue
        terminal.say(f"would be registered: {request.set}/{source.recording.manifest.name}", "bold")
        show_recording(source.recording)
    terminal.tell("Nothing was written.", "dim")


@verb(FormatsRequest, table=True)
def formats_(asked: Asked) -> None:
    from neuromas.recordings.convert.converter import converters

    rows = [
        {
            "format": name,
            "endings": list(converter.endings),
            "recipe": converter.recipe.__name__,
            "needs": list(converter.requires),
            "extra": converter.extra,
        }
        for name, converter in converters().items()
    ]
    if asked.as_json:
        terminal.show_json(rows)
        return
    table = terminal.table("format", "endings", "recipe", "needs")
    for entry in rows:
        install = f'pip install "neuromas[{entry["extra"]}]"' if entry["extra"] else ", ".join(entry["needs"])
        terminal.row(
            table, entry["format"], " ".join(entry["endings"]), entry["recipe"], install if entry["needs"] else ""
        )
    terminal.show(table)


@verb(AnnotateRequest)
def annotate_(asked: Asked) -> None:
    """Selection comes first, then what the table and expressions add, names last. The recording itself stays as it is."""
    from neuromas.actions.annotate import annotate

    say_registered([annotate(*asked.parse("annotate"))])


@verb(PoolRequest)
def pool_(asked: Asked) -> None:
    """Trials of train, validation and test stay apart."""
    from neuromas.actions.pool import pool
    from neuromas.recordings.pseudo import trials_by_part

    registered = pool(*asked.parse("pool"))
    pooled = registered.recording.manifest.pseudo_population
    if pooled is not None and pooled.left_out:
        terminal.tell(f"Left out, since they have too few trials: {', '.join(pooled.left_out)}.", "dim")
    say_registered([registered])
    trials = terminal.counted(trials_by_part(registered.recording).items())
    terminal.tell(
        f"Joined trials: {trials}. Units were not recorded together: their noise correlations mean nothing.", "dim"
    )


@verb(ListRequest, table=True)
def list_(asked: Asked) -> None:
    from dataclasses import asdict

    from neuromas.actions.stores import list_recordings

    listing = list_recordings(*asked.parse("list"))
    if asked.as_json:
        terminal.show_json([{"name": entry.name, **asdict(entry)} for entry in listing.entries])
        return
    if not listing.entries:
        terminal.tell(f"{listing.store.path} holds no recordings.")
        return
    table = terminal.table("recording", "samples >", "units >", "access", "variables")
    for entry in listing.entries:
        if entry.problem:
            terminal.row(table, entry.name, "", "", "damaged", entry.problem)
        else:
            counts = f"{entry.n_samples:,}", f"{entry.n_units:,}"
            terminal.row(table, entry.name, *counts, entry.access, ", ".join(entry.variables))
    terminal.show(table)
    terminal.tell(f"Store: {listing.store.path}" + (" (read-only)" if listing.store.read_only else ""), "dim")


@verb(ShowRequest, table=True)
def show_(asked: Asked) -> None:
    from neuromas.actions.stores import show

    recording = show(*asked.parse("show"))
    if asked.as_json:
        terminal.show_json(recording.manifest.model_dump(mode="json"))
        return
    show_recording(recording)


@verb(VerifyRequest, table=True)
def verify_(asked: Asked) -> None:
    from neuromas.actions.stores import verify

    (request,) = asked.parse("verify")
    verification = verify(request)
    problems = [str(problem) for problem in verification.problems]
    if asked.as_json:
        terminal.show_json({"recordings": verification.recordings, "problems": problems})
    else:
        for problem in problems:
            terminal.say(problem)
    if problems:
        noun = "file is" if len(problems) == 1 else "files are"
        raise Corrupt(f"{request.name or 'the store'}: {len(problems)} {noun} not as written", kind="verify_failed")
    if not asked.as_json:
        names = verification.recordings
        terminal.say(f"{len(names)} recordings are as they were written: {', '.join(names) or 'none'}")


_YES = inspect.Parameter(
    "yes",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")],
)


@verb(RemoveRequest, extra=[_YES])
def remove_(asked: Asked, yes: bool) -> None:
    from neuromas.actions.stores import removable, remove

    (request,) = asked.parse("remove")
    listing = removable(request)
    if listing.entries and not yes and not listing.store.read_only:
        for entry in listing.entries:
            if entry.problem:
                terminal.warn(f"{entry.name}: {entry.problem}")
        terminal.tell(f"This deletes {', '.join(entry.name for entry in listing.entries)} from {listing.store.path}.")
        if not typer.confirm("Go on?", err=True):
            raise typer.Exit(1)
    for name in remove(request):
        terminal.say(f"removed {name}")


@verb(QueryRequest, IntoFile, table=True)
def query_(asked: Asked) -> None:
    """Values are phase=demo, count=1,3, count=2..5 or phase=any; type='"a, b"' for a value with a comma or '..'."""
    from neuromas.actions.export import check_export, write_latents
    from neuromas.actions.query import query

    request, into = asked.parse("query")
    if into.out is not None:
        check_export(into.out)
    found = query(request)
    _tell_left_out(found.index)
    if into.out is not None:
        write_latents(found, into.out)
        if into.out != "-":
            terminal.say(f"{into.out}: {found.latents.n_samples:,} latents of {found.latents.n_units:,} units")
        return
    shown = found.latents.n_samples if asked.as_json else min(found.latents.n_samples, request.n or _SHOWN_SAMPLES)
    samples = found.samples.tolist()[:shown]
    if asked.as_json:
        terminal.show_json(_latents_json(found.latents, samples))
        return
    tables = [
        _latents_table(found.latents, samples, found.latents.unit_names[:count]) for count in range(1, _SHOWN_UNITS + 1)
    ]
    terminal.show(next((table for table in reversed(tables) if terminal.fits(table)), tables[0]))
    if shown < found.latents.n_samples:
        terminal.tell(f"… and {found.latents.n_samples - shown:,} more; --out FILE writes them all")


@verb(ExportRequest, IntoFile)
def export_(asked: Asked) -> None:
    from neuromas.actions.export import export

    request, into = asked.parse("export")
    recording = export(request, into.out or "-")
    if into.out not in (None, "-"):
        terminal.say(f"{into.out}: {recording.n_samples:,} samples × {recording.n_units:,} units")


# ---------------------------------------------------------------------------------------------------- recordings in words


def say_registered(registered: Sequence[Registered]) -> None:
    """A line for each recording that is in a store now."""
    for entry in registered:
        recording = entry.recording
        state = "was there already, unchanged:" if entry.unchanged else "registered:"
        size = f"{recording.n_samples:,} samples × {recording.n_units:,} units, access {recording.manifest.access}"
        terminal.say(f"{entry.name} {state} {size}")


def show_recording(recording: Recording) -> None:
    """What a recording is, and the values that it holds."""
    facts = terminal.table("", "", header=False)
    for key, value in _facts(recording).items():
        if value:
            terminal.row(facts, key, value)
    terminal.show(facts)
    variables = terminal.table("variable", "type", "values recorded (samples)")
    for spec in recording.manifest.variables:
        terminal.row(variables, spec.name, spec.type, _values_recorded(recording, spec.name))
    terminal.show(variables)


def _facts(recording: Recording) -> dict[str, str]:
    manifest = recording.manifest
    trials = len(set(recording.trial.tolist()))
    missing = ", units missing in some samples" if manifest.missing else ""
    step = manifest.sampling.step_s
    return {
        "recording": recording.name,
        "activity": f"{recording.n_samples:,} samples × {recording.n_units:,} units, {recording.activity.dtype}, "
        f"{trials:,} trials{missing}",
        "units": manifest.units,
        "eligible": f"{int(recording.eligible.sum()):,} samples",
        "access": manifest.access,
        "system": manifest.system,
        "layer": manifest.layer,
        "task": manifest.task,
        "step": manifest.sampling.step + ("" if step is None else f" of {step:g} s"),
        "aligned to": manifest.sampling.aligned_to or "",
        "time": _time(recording),
        "pseudo-population": _pooled(recording),
        "description": manifest.description,
        "licence": manifest.licence,
        "citation": manifest.citation,
        "source": manifest.provenance.source,
        "version of": " < ".join(manifest.provenance.derived_from),
        "control": manifest.control,
        "notes": manifest.provenance.notes,
        "content": "" if manifest.content_sha256 is None else f"sha256 {manifest.content_sha256}",
    }


def _time(recording: Recording) -> str:
    seconds, width = recording.time_s, recording.manifest.sampling.step_s
    if seconds is None or width is None:
        return ""
    return f"{seconds.min() - width / 2:g} to {seconds.max() + width / 2:g} s"


def _pooled(recording: Recording) -> str:
    from neuromas.recordings.pseudo import trials_by_part

    pooled = recording.manifest.pseudo_population
    if pooled is None:
        return ""
    trials = terminal.counted(trials_by_part(recording).items())
    return (
        f"units of {len(pooled.recordings)} recordings, joined by {', '.join(pooled.variables)} (seed {pooled.seed}); "
        f"trials: {trials}; noise correlations mean nothing"
    )


def _values_recorded(recording: Recording, name: str) -> str:
    import numpy as np

    spec = recording.spec(name)
    values, counts = np.unique(recording.dataset[name].values, return_counts=True)
    if spec.type == "real" or (spec.type == "integer" and len(values) > terminal.SHOWN_VALUES):
        unit = "" if spec.units == "1" else f" {spec.units}"
        return f"{values.min():g} to {values.max():g}{unit}, {len(values):,} different"
    words = [f"{spec.label(float(value))} ({count:,})" for value, count in zip(values, counts, strict=True)]
    rest = len(words) - terminal.SHOWN_VALUES
    more = [f"and {rest:,} more"] if rest > 0 else []
    return ", ".join([*words[: terminal.SHOWN_VALUES], *more])


def _tell_left_out(index: CLIndex) -> None:
    reasons = {"not eligible": index.n_ineligible, "incomplete in the units asked for": index.n_incomplete}
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    if left_out:
        terminal.tell(f"Looked among {index.n_samples:,} samples; left out: {left_out}.", "dim")


def _coordinates(latents: Recording) -> list[str]:
    tokens = [name for name in ("token",) if name in latents.dataset.coords]
    return ["trial", "step", *latents.variable_names, *tokens]


def _latents_table(latents: Recording, samples: Sequence[int], units: Sequence[str]) -> Table:
    from neuromas.recordings.export import readable

    names = _coordinates(latents)
    columns = [readable(latents, name) for name in names]
    numeric = [column.dtype.kind in "iuf" for column in columns]
    activity = latents.latents(list(units))
    heads = (f"{name} >" if is_number else name for name, is_number in zip(names, numeric, strict=True))
    table = terminal.table("sample >", *heads, *(f"{unit} >" for unit in units))
    for number, sample in enumerate(samples):
        cells = (
            f"{column[number]:g}" if is_number else column[number]
            for column, is_number in zip(columns, numeric, strict=True)
        )
        terminal.row(table, sample, *cells, *(f"{value:.3g}" for value in activity[number]))
    return table


def _latents_json(latents: Recording, samples: Sequence[int]) -> dict[str, Any]:
    """Coordinates by name, and the activity as a list per sample; null where a unit was not recorded."""
    import numpy as np

    from neuromas.recordings.export import readable

    activity = latents.latents()
    return {
        "sample": list(samples),
        "units": latents.unit_names,
        **{name: readable(latents, name).tolist()[: len(samples)] for name in _coordinates(latents)},
        "activity": [[None if np.isnan(value) else float(value) for value in row] for row in activity[: len(samples)]],
    }
