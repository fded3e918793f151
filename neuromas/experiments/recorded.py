"""Recordings of a sweep's systems, in the store that the sweep keeps in its folder: made once, and used by every job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuromas.actions.capture import capture
from neuromas.experiments.attempts import Report, held
from neuromas.experiments.jobs import read_config, system_folder
from neuromas.files import sha256_bytes
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import CaptureRequest
from neuromas.schema.sweep import JobSystem, SweepJob
from neuromas.systems.training import shipped_systems


def recording_store(out: Path) -> Path:
    """Folder of the store that holds the recordings of a sweep in `out`."""
    return out / "recordings"


def recorded_for_fit(job: SweepJob, place: int, out: Path, report: Report, device: str = "cpu") -> str:
    """A recording of the system at `place`, which the fit of `job` only reads, on the trials that the fit would run.

    Returns
    -------
    str
        ``SET/RECORDING``.
    """
    assert job.config is not None
    entry, names = job.systems[place], [system_name(system, out) for system in job.systems]
    name = names[place]
    if names.count(name) > 1:
        name = entry.name.replace("/", ".").replace("@", ".")
    task = read_config(system_folder(out, entry.name)).task or ""
    fields: dict[str, Any] = {
        "n_trials": job.config.n_trials,
        # as `make_sides` records the systems that it may run
        "seed": job.config.seed * 1000 + place,
        "task_options": (job.config.task_options or {}).get(task, {}),
        "access": "read",
    }
    fields |= {"allow_unsolved": True} if job.config.allow_unsolved else {}
    return _recorded(entry, name, fields, out, report, device)


def recorded_for_measure(
    job: SweepJob, place: int, per_quantity: int, allow_unsolved: bool, out: Path, report: Report
) -> str:
    """A recording of the system at `place`, on trials of the first system's task that show every object quantity equally often.

    Paper 2.7 and A.3 measure similarity on such trials.

    Returns
    -------
    str
        ``SET/RECORDING``.
    """
    fields = {
        "task": read_config(system_folder(out, job.systems[0].name)).task,
        "per_quantity": per_quantity,
        "seed": job.options.get("seed", 0),
    }
    fields |= {"allow_unsolved": True} if allow_unsolved else {}
    return _recorded(job.systems[place], system_name(job.systems[place], out), fields, out, report)


def system_name(entry: JobSystem, out: Path) -> str:
    """The name by which a system calls itself."""
    return read_config(system_folder(out, entry.name)).name


def system_path(entry: JobSystem, out: Path) -> str:
    """The system as a request names it: a shipped one by its name, another one by its folder. A layer may follow."""
    plain, at, layer = entry.name.partition("@")
    shipped = plain in shipped_systems()
    return entry.name if shipped else f"{system_folder(out, plain).absolute()}{at}{layer}"


def _recorded(
    entry: JobSystem, name: str, fields: dict[str, Any], out: Path, report: Report, device: str = "cpu"
) -> str:
    chosen = json.dumps([entry.weights_sha256, fields], sort_keys=True)
    set_name = f"{entry.name.replace('/', '.').replace('@', '.')}.{sha256_bytes(chosen.encode())[:12]}"
    path, recording = recording_store(out), f"{set_name}/{name}"
    with held(out / "captures" / set_name, report):
        if not path.exists() or recording not in {stored.name for stored in RecordingStore(path).list()}:
            system = system_path(entry, out)
            capture(CaptureRequest(system=system, set=set_name, name=name, store=str(path), **fields), device=device)
    return recording
