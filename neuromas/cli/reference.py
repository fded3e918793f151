"""The reference of the command line, ``docs/reference.md``, drawn from the documents of the verbs.

python -m neuromas.cli.reference docs/reference.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from neuromas.cli import verbs
from neuromas.cli.options import Option, options_of
from neuromas.schema.document import Document

_HEAD = """# Command line

Every verb with its options. This page is made from the request documents: `python -m neuromas.cli.reference docs/reference.md`.

- Each option is a field of a document. The same names are keys in JSON: `--config FILE` takes a request as JSON, and options
  replace what it says. `--config -` reads standard input. The JSON Schemas lie in [`schemas/`](../schemas/).
- `--json` prints JSON instead of a table. `-` as the name of a file to write is standard output.
- A list takes several values, with commas or by repeating the option. JSON text works too.
- Results go to standard output. Progress, warnings and errors go to standard error. [Errors](errors.md) lists the exit codes.
"""


def reference() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for panel in dict.fromkeys(panel for panel, _, _ in verbs.VERBS.values()):
        parts.append(f"## {panel}\n")
        parts += [_section(name) for name, (its_panel, _, _) in verbs.VERBS.items() if its_panel == panel]
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str) -> str:
    made = verbs.verb_of(name)
    options = [option for document in made.documents for option in options_of(document)]
    arguments = " ".join(option.name for option in options if option.shell.positional)
    lines = [f"### {name}\n", f"`neuromas {name} [OPTIONS] {arguments}`".replace(" `", "`"), "", verbs.VERBS[name][2]]
    if options:
        lines += ["", "| option | value | meaning |", "|---|---|---|", *map(_row, options)]
    if schema := _schema(made.documents[0]):
        lines += ["", f"As a document: [`{schema}`](../schemas/{schema})."]
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    names = [option.name, option.shell.short] if option.shell.short else [option.name]
    value = "" if option.is_flag or option.shell.positional else f"`{option.metavar}`"
    cells = (", ".join(f"`{name}`" for name in names), value, option.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _schema(document: type[Document]) -> str:
    from neuromas.schema.export import json_schemas

    name = re.sub(r"(?<!^)(?=[A-Z])", "_", document.__name__).lower() + ".schema.json"
    return name if name in json_schemas() else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page to the file that is named."""
    words = sys.argv[1:] if arguments is None else arguments
    Path(words[0] if words else "docs/reference.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
