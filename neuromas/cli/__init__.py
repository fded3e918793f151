"""The command line: words to a request document, and a result to words. The work is done by `neuromas.actions`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def open_streams() -> None:
    """Open those of standard input, output and error that are closed: they are empty, and keep nothing.

    Python has None for them, and the next file that is opened would become standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def main() -> None:
    """What the ``neuromas`` command runs."""
    open_streams()
    from neuromas.cli.terminal import spell_out
    from neuromas.cli.verbs import app, check_old_forms
    from neuromas.errors import NeuromasError, StorageFailed
    from neuromas.text import visible

    # If other programs keep the cores busy, OpenMP's threads spin for one another: fits became up to 100 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spell_out()
    try:
        check_old_forms(sys.argv[1:])
    except NeuromasError as error:
        sys.stderr.write(f"error: {visible(error.message)}\n")
        raise SystemExit(error.exit_code) from None
    try:
        app()
    except OSError as error:  # of --help or --version, which end before a verb begins
        sys.stderr.write(f"error: {visible(error.strerror or error)}\n")
        raise SystemExit(StorageFailed.exit_code) from None
