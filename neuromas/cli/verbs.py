"""The verbs of the command line, each imported when it is used, with one place where errors become messages and exit codes."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command as typer_command

from neuromas.cli import terminal
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, StorageFailed, suggestion

if TYPE_CHECKING:
    from neuromas.schema.document import Document

RECORDINGS, SYSTEMS, ALIGNMENT = "Recordings", "Systems", "Alignment"

VERBS: dict[str, tuple[str, str, str]] = {
    "demo": (ALIGNMENT, "experiments", "Align two trained networks by every method; write iia.csv and report.html."),
    "reproduce": (ALIGNMENT, "experiments", "Reproduce a figure of the paper; interrupted, the same command goes on."),
    "bench": (ALIGNMENT, "experiments", "Measure this machine: fits, look-ups, recordings on disk, schedules."),
    "register": (RECORDINGS, "recordings", "Publish recordings in a store: all of them, or none."),
    "formats": (RECORDINGS, "recordings", "List the formats that register reads, those of other packages too."),
    "annotate": (
        RECORDINGS,
        "recordings",
        "Make another version of a recording: variables, names, selections, shuffles.",
    ),
    "pool": (RECORDINGS, "recordings", "Join units that were recorded in different trials into a pseudo-population."),
    "join": (RECORDINGS, "recordings", "Join recordings of the same units over different trials into one recording."),
    "list": (RECORDINGS, "recordings", "List the recordings of a store."),
    "show": (RECORDINGS, "recordings", "Show a recording: its manifest, its variables, and the values recorded."),
    "verify": (RECORDINGS, "recordings", "Compare every stored file with what was written; name each that differs."),
    "remove": (RECORDINGS, "recordings", "Take a recording, or a whole set, out of a store."),
    "query": (RECORDINGS, "recordings", "Find recorded latents whose variables hold the values asked for."),
    "export": (RECORDINGS, "recordings", "Write a recording to a file: .npz, .nc or .csv."),
    "train": (SYSTEMS, "systems", "Train a network on a task; interrupted, the same command goes on."),
    "capture": (SYSTEMS, "systems", "Run a system on trials of its task and keep what was recorded."),
    "twin": (
        SYSTEMS,
        "systems",
        "Learn a twin of a system that can only be read, from its recording; see docs/twins.md.",
    ),
    "fit": (ALIGNMENT, "alignment", "Fit an alignment; interrupted, the same command goes on from its checkpoint."),
    "evaluate": (
        ALIGNMENT,
        "alignment",
        "Score a fit on held-out pairs, with its controls; write evaluation.json and iia.csv.",
    ),
    "validate": (
        ALIGNMENT,
        "validity",
        "Try the controls that a fit's claim must survive; write validity.json and validity.csv.",
    ),
    "ranks": (ALIGNMENT, "validity", "Score a nested fit at every rank; write ranks.json, ranks.csv and ranks.png."),
    "locate": (
        ALIGNMENT,
        "validity",
        "Find layers, steps and ranks at which a variable can be interchanged; write a map of them.",
    ),
    "plan": (ALIGNMENT, "alignment", "Write a stimulation plan: how every unit would have to change for other values."),
    "compare": (ALIGNMENT, "alignment", "Compare two recordings of the same trials by a measure of similarity."),
}
"""Verb → help panel, module of `neuromas.cli` that holds it, and its sentence in the help."""


@dataclass(frozen=True)
class Verb:
    """What a verb takes, and what it does with that.

    Attributes
    ----------
    run : callable
        Called with what was typed, as `Asked`.
    documents : tuple of Document types
        The request, and what else is an option: the folder or file to write, the device.
    others : str
        Document in the request whose fields ``--option KEY=VALUE`` may name.
    table : bool
        Whether it prints a table, which ``--json`` prints as JSON.
    extra : tuple of inspect.Parameter
        Options that belong to the shell alone, such as ``--yes``.
    """

    run: Callable[..., None]
    documents: tuple[type[Document], ...]
    others: str = ""
    table: bool = False
    extra: tuple[inspect.Parameter, ...] = ()


def verb(
    *documents: type[Document], others: str = "", table: bool = False, extra: Sequence[inspect.Parameter] = ()
) -> Callable[[Callable[..., None]], Verb]:
    """Make a function that takes an `Asked` into a verb whose options are the fields of `documents`."""
    return lambda run: Verb(run, documents, others, table, tuple(extra))


def verb_of(name: str) -> Verb:
    """What a verb takes and does; imports its module."""
    made = getattr(import_module(f"neuromas.cli.{VERBS[name][1]}"), f"{name}_")
    assert isinstance(made, Verb)
    return made


def load(name: str) -> TyperCommand:
    """The command of a verb, with all of its options."""
    from neuromas.cli.options import read_words, signature

    panel, _, sentence = VERBS[name]
    made = verb_of(name)
    parameters = signature(made.documents, others=made.others, table=made.table)

    def call(**words: Any) -> None:
        extra = {parameter.name: words.pop(parameter.name) for parameter in made.extra}
        with _shell_words(name, made):
            made.run(read_words(made.documents, words, others=made.others), **extra)

    call.__signature__ = parameters.replace(  # type: ignore[attr-defined]
        parameters=[*parameters.parameters.values(), *made.extra]
    )
    app = typer.Typer(add_completion=False, **_APP)
    details = (made.run.__doc__ or "").strip()
    app.command(name, help=f"{sentence}\n\n{details}" if details else sentence)(call)
    command = typer_command(app)
    assert isinstance(command, TyperCommand)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            # only a name: what the value is, its help says
            parameter.display_type_rich = lambda ctx: ""  # type: ignore[attr-defined]
    command.rich_help_panel = panel
    return command


_APP: dict[str, Any] = {
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "pretty_exceptions_enable": False,
    # plain text: nothing to draw, and nothing slow to import
    "rich_markup_mode": None,
}


class Verbs(TyperGroup):
    """The commands: their names and sentences at once, their options when they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs in their order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A verb; without its options as long as only its sentence is asked for."""
        if cmd_name not in VERBS:
            return None
        if ctx is None or ctx.resilient_parsing or getattr(ctx, "invoked_subcommand", None) == cmd_name:
            return load(cmd_name)
        panel, _, sentence = VERBS[cmd_name]
        return TyperCommand(
            cmd_name, help=sentence, rich_help_panel=panel, rich_markup_mode=None, callback=lambda: None
        )

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The verbs under their headings."""
        for heading in dict.fromkeys(panel for panel, _, _ in VERBS.values()):
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, sentence) for name, (panel, _, sentence) in VERBS.items() if panel == heading]
                )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that was typed, with its options; a usage error with the nearest verb if there is no such one."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no verb {args[0]!r}{suggestion(args[0], VERBS)}")
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in VERBS else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; `typer.Exit` with the error's code if it raises a `NeuromasError`."""
        terminal.WARNED.clear()
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: terminal.warn(message)
            try:
                return super().invoke(ctx)
            # typer ends quietly if nobody reads the output any more
            except BrokenPipeError:
                raise
            except (NeuromasError, OSError, ValueError, MemoryError, RecursionError) as error:
                if ctx.params.get("debug"):
                    sys.stderr.write(traceback.format_exc())
                own = as_ours(error)
                if own is None:
                    raise
                terminal.tell(f"error: {own.message}", "bold red")
                raise typer.Exit(own.exit_code) from error
            except KeyboardInterrupt:
                terminal.tell("Interrupted.")
                raise typer.Exit(terminal.INTERRUPTED) from None


def as_ours(error: Exception) -> NeuromasError | None:
    """An error as neuromas's own: those of the system that no action expects, such as a name that is too long; else None.

    Examples
    --------
    >>> as_ours(OSError(36, "File name too long", "aaa"))
    StorageFailed('aaa: File name too long')
    """
    if isinstance(error, NeuromasError):
        return error
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return StorageFailed(": ".join([*names[:1], error.strerror or str(error) or type(error).__name__]))
    if isinstance(error, MemoryError):
        return InvalidInput(
            f"this needs more memory than there is{f': {error}' if str(error) else ''}", kind="too_large"
        )
    if isinstance(error, RecursionError):
        return InvalidInput("something is nested too deeply", kind="too_large")
    if "null byte" in str(error) or "null character" in str(error):
        return InvalidInput("a name of a file holds a NUL character, which no file can have", kind="invalid_name")
    return None


class _shell_words:
    """Inside, an error speaks the shell's words: options as they are typed, beside the fields that they stand for."""

    def __init__(self, name: str, verb: Verb) -> None:
        self.name, self.verb = name, verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, NeuromasError):
            return
        from neuromas.cli.options import options_of

        options = {
            ".".join(option.path): option.name for document in self.verb.documents for option in options_of(document)
        }
        fields = {path.rpartition(".")[2]: option for path, option in options.items()}
        if isinstance(error, InvalidDocument):
            reworded = [keywords_as_options(in_shell_words(problem, options), fields) for problem in error.problems]
            where = error.message.partition(": ")[0]
            raise InvalidDocument(where, reworded) from error
        error.message = keywords_as_options(error.message, fields)


def in_shell_words(problem: str, options: Mapping[str, str]) -> str:
    """A problem of a document with the option's name before the place: ``--seed (config.seed): expected …``

    Examples
    --------
    >>> in_shell_words("config.seed: expected a whole number, got 'x'", {"config.seed": "--seed"})
    "--seed (config.seed): expected a whole number, got 'x'"
    """
    place, colon, message = problem.partition(": ")
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        path = ".".join(parts[:length])
        if path in options:
            return f"{options[path]} ({place}){colon}{message}"
    return problem


def keywords_as_options(message: str, fields: Mapping[str, str]) -> str:
    """`message` with Python's keywords, ``mapping=`` or ``missing=True``, as they are typed in the shell, ``--mapping``.

    Examples
    --------
    >>> keywords_as_options("names may need mapping=, or tolerances=", {"mapping": "--mapping"})
    'names may need --mapping, or tolerances='
    >>> print(keywords_as_options('map them: mapping={"a": {"n": "count"}}', {"mapping": "--mapping"}))
    map them: --mapping '{"a": {"n": "count"}}'
    """
    message = re.sub(
        r"\b(\w+)=(\{.*\})",
        lambda match: f"{fields[match[1]]} {quote(match[2])}" if match[1] in fields else match[0],
        message,
    )
    return re.sub(r"\b(\w+)=(?:True\b|(?=[\s,;.)]|$))", lambda match: fields.get(match[1], match[0]), message)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"neuromas {metadata.version('neuromas')}")
        raise typer.Exit


app = typer.Typer(cls=Verbs, no_args_is_help=True, **_APP)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """Causal alignment of neural systems: those you can run, and those you can only read."""


def check_old_forms(arguments: Sequence[str]) -> None:
    """Refuse what earlier versions took, with the new form.

    Raises
    ------
    InvalidInput
        ``--json FILE`` of compare and bench.
    """
    if arguments[:1] and arguments[0] in ("compare", "bench"):
        for option, value in itertools.pairwise(arguments):
            if option == "--json" and value.endswith(".json"):
                raise InvalidInput(
                    f"--json prints to standard output now: neuromas {arguments[0]} … --json > {value}", kind="old_form"
                )
