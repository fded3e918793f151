"""Export: a recording, or the latents of a query, as a file of another program."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from neuromas.actions.outputs import check_file
from neuromas.actions.query import QueryResult
from neuromas.errors import StorageFailed
from neuromas.recordings.export import check_ending
from neuromas.recordings.export import export as write_file
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import existing_store
from neuromas.schema.actions import ExportRequest
from neuromas.scratch import scratch_folder

STDOUT = "-"
"""In place of a file's name: standard output, as CSV."""


def export(request: ExportRequest, out: str | Path) -> Recording:
    """Write a recording to a file; the ending of `out` decides the format.

    Parameters
    ----------
    request : ExportRequest
    out : path-like
        ``.npz``, ``.nc`` or ``.csv``; ``-`` writes CSV to standard output.

    Returns
    -------
    Recording
        What was written.

    Raises
    ------
    InvalidInput
        An ending that stands for no format.
    NotFound
        A recording or unit that does not exist.
    StorageFailed
        The file cannot be written.
    """
    check_export(out)
    recording = existing_store(request.store).get(request.recording)
    if request.units is not None:
        recording = recording.select_units(list(request.units))
    _write(recording, out)
    return recording


def write_latents(result: QueryResult, out: str | Path) -> None:
    """Write the latents of a query, with the numbers of their samples; `out` is as in `export`."""
    check_export(out)
    _write(result.latents, out, samples=result.samples)


def check_export(out: str | Path) -> None:
    """Refuse a file that `export` cannot write: InvalidInput, or StorageFailed."""
    if str(out) != STDOUT:
        check_file(check_ending(Path(out)))


def _write(recording: Recording, out: str | Path, **options: object) -> None:
    if str(out) != STDOUT:
        write_file(recording, Path(out), **options)  # type: ignore[arg-type]
        return
    if (
        getattr(sys.stdout, "name", None) == os.devnull
    ):  # as the command line opens it in the place of one that is closed
        raise StorageFailed("standard output is closed; --out names a file")
    with scratch_folder("neuromas-export-") as folder:
        path = write_file(recording, folder / "latents.csv", **options)  # type: ignore[arg-type]
        if not hasattr(sys.stdout, "buffer"):  # as in a notebook
            sys.stdout.write(path.read_text(encoding="utf-8"))
            return
        # UTF-8, whatever the terminal's encoding is
        sys.stdout.flush()
        sys.stdout.buffer.write(path.read_bytes())
        sys.stdout.buffer.flush()
