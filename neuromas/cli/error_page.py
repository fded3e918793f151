"""The page of errors, ``docs/errors.md``, made from `neuromas.errors.KINDS`.

python -m neuromas.cli.error_page docs/errors.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from neuromas.errors import KINDS, NeuromasError

COMMAND = "python -m neuromas.cli.error_page docs/errors.md"
_HEAD = f"""# Errors

Every error that neuromas raises on purpose is a `NeuromasError`. Its message says what it got, what it expected, and where. In
the shell it is one line on standard error; the exit code is that of its class. `neuromas --debug VERB …` adds the traceback.
Ctrl-C exits with 130. Any other exception is a fault of neuromas: please report it with its traceback.

A program can match on the class, or on `kind`, a short code. The code stays the same when the wording of a message changes.

```python
from neuromas import NotFound, shipped_store

try:
    shipped_store().get("multi-object/gru-9")
except NotFound as error:
    print(error.kind)  # unknown_recording
```

This page is made from `neuromas.errors.KINDS`: `{COMMAND}`.

| class | exit code | when |
|---|---|---|
"""


def errors_page() -> str:
    """The page as Markdown."""
    classes = list(dict.fromkeys(kind.error for kind in KINDS.values()))
    lines = [f"| `{error.__name__}` | {error.exit_code} | {_summary(error)} |" for error in classes]
    for error in classes:
        lines += ["", f"## {error.__name__}", "", "| kind | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {kind.meaning} |" for name, kind in KINDS.items() if kind.error is error]
    return _HEAD + "\n".join(lines) + "\n"


def _summary(error: type[NeuromasError]) -> str:
    """The first line of the class's docstring."""
    return (error.__doc__ or "").strip().splitlines()[0].replace("``", "`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page to the file that is named."""
    words = sys.argv[1:] if arguments is None else arguments
    Path(words[0] if words else "docs/errors.md").write_text(errors_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
