"""``python -m neuromas.cli`` is the ``neuromas`` command."""

from neuromas.cli import main

main()
