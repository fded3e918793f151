"""The command line: words to a request document, and a result to words. The work is done by `neuromas.actions`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """What the ``neuromas`` command runs."""
    from neuromas.cli.terminal import spell_out
    from neuromas.cli.verbs import app, check_old_forms
    from neuromas.errors import NeuromasError
    from neuromas.text import visible

    # If other programs keep the cores busy, OpenMP's threads spin for one another: fits became up to 100 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spell_out()
    try:
        check_old_forms(sys.argv[1:])
    except NeuromasError as error:
        sys.stderr.write(f"error: {visible(error.message)}\n")
        raise SystemExit(error.exit_code) from None
    app()
