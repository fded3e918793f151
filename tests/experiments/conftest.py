"""Tiny sweeps of the shipped GRUs, and a look at processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuromas.schema.sweep import Sweep

FIRST, SECOND = "multi-object/gru-0", "multi-object/gru-1"
TINY = {
    "n_trials": 100,
    "n_train_pairs": 200,
    "n_validation_pairs": 40,
    "batch_size": 32,
    "max_iterations": 10,
    "validate_every": 5,
}


def group(label: str, method: str = "das", **fields) -> dict:
    """A group of tiny fits."""
    config = {**TINY, **fields.pop("config", {})}
    usual = {"systems": [[FIRST]], "evaluation": {"n_pairs": 40}}
    return {"label": label, "method": method, **usual, **fields, "config": config}


def declared(*groups: dict, **fields) -> Sweep:
    """A sweep of these groups."""
    return Sweep.parse({"figure": "tiny", "title": "Tiny", **fields, "groups": groups}, "tiny sweep")


def descendants(process: int) -> set[int]:
    """Processes that `process` began, directly or not, and that are alive."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found, new = set(), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(process: int) -> bool:
    """Whether `process` still runs."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds: float = 180):
    """What `condition` gives, as soon as that is true of it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true within {seconds} s"
        time.sleep(0.01)
    return found


def attempts(out: Path) -> list[dict[str, str]]:
    """Every line of every ``attempts.csv`` of fits below `out`."""
    lines = []
    for path in out.glob("fits/*/attempts.csv"):
        head, *rows = path.read_text().splitlines()
        lines += [{**dict(zip(head.split(","), row.split(","), strict=True)), "fit": path.parent.name} for row in rows]
    return lines


@pytest.fixture(scope="session")
def tiny():
    """The helpers of this module; with them, as ``environment``, one thread for whatever a test starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return SimpleNamespace(
        first=FIRST,
        second=SECOND,
        config=TINY,
        group=group,
        declared=declared,
        descendants=descendants,
        alive=alive,
        until=until,
        attempts=attempts,
        environment=environment,
    )
