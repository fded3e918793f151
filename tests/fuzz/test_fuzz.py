"""Whatever is done to a file or a document, the outcome is a whole recording or document, or an error of neuromas.

``pytest tests/fuzz --fuzz 1000`` mutates each format and document 1,000 times. ``python tests/fuzz/run.py FOLDER 17 18 npz`` is
mutation 17 of the case ``npz`` alone, for a debugger.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FEW = 6
"""Mutations of each case without ``--fuzz``."""

HANG_S = 60
"""After this time without a word, a process hangs inside a C library and is killed."""

GOOD = ("read", "refused")


def outcomes(folder: Path, n_mutations: int) -> list[dict[str, Any]]:
    """Every outcome; a process that dies is an outcome, and another goes on with the next case."""
    from neuromas import __file__ as package

    names = _batch(folder, 0, 0, "", package)[0]["cases"]
    done: list[dict[str, Any]] = []
    waiting = [(number, name) for number in range(n_mutations + 1) for name in names]
    while waiting:
        first, name = waiting[0]
        rest = [other for number, other in waiting if number == first]
        whole = len(rest) == len(names)
        last, some = (n_mutations + 1, "") if whole else (first + 1, ",".join(rest))
        lines = _batch(folder, first, last, some, package)
        ended = [line for line in lines if "end" in line]
        done += ended
        seen = {(line["number"], line["end"]) for line in ended}
        started = [(line["number"], line["start"]) for line in lines if "start" in line]
        if started and started[-1] not in seen:
            number, name = started[-1]
            done.append({"end": name, "number": number, "outcome": "crashed", "detail": lines[-1].get("died", "")})
            seen.add((number, name))
        elif not started:
            raise AssertionError(f"{name}, mutation {first}: no case began: {lines}")
        waiting = [entry for entry in waiting if entry not in seen]
    return done


def _environment(package: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(package).parents[1]),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _batch(folder: Path, first: int, last: int, names: str, package: str) -> list[dict[str, Any]]:
    """The lines of a process, and one more if it died."""
    words = [sys.executable, str(HERE / "run.py"), str(folder), str(first), str(last), names]
    with (
        (folder / "errors.txt").open("w") as errors,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder, env=_environment(package)
        ) as process,
    ):
        watch = threading.Timer(HANG_S, process.kill)
        watch.start()
        lines: list[dict[str, Any]] = []
        assert process.stdout is not None
        for line in process.stdout:
            watch.cancel()
            watch = threading.Timer(HANG_S, process.kill)
            watch.start()
            if line.startswith("{"):
                lines.append(json.loads(line))
        watch.cancel()
        code = process.wait()
    if code:
        lines.append({"died": f"exit code {code}: {(folder / 'errors.txt').read_text()[-2000:]}"})
    return lines


@pytest.fixture(scope="session")
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return outcomes(tmp_path_factory.mktemp("fuzz"), request.config.getoption("--fuzz") or FEW)


def test_no_mutation_escapes(fuzzed: list[dict[str, Any]]) -> None:
    """Neither another exception, nor a hang, nor a file that is written elsewhere, nor a crash of neuromas's own readers."""
    bad = [line for line in fuzzed if line["outcome"] not in GOOD]
    assert not bad, _report(bad, len(fuzzed))


def _report(bad: list[dict[str, Any]], n_inputs: int) -> str:
    kinds = Counter((line["end"], line["outcome"]) for line in bad)
    shown = [f"{line['end']}, mutation {line['number']}: {line['outcome']}\n{line['detail']}" for line in bad[:20]]
    return "\n\n".join([f"{len(bad)} of {n_inputs}: {dict(kinds)}", *shown])


def test_seeds_are_read_and_mutations_matter(fuzzed: list[dict[str, Any]]) -> None:
    """Otherwise nothing would be tested: each seed is read, and many of its mutations are not."""
    seeds = {line["end"]: line for line in fuzzed if line["number"] == 0}
    unread = {
        name: line["detail"] for name, line in seeds.items() if line["outcome"] != "read" and "request" not in name
    }
    assert not unread
    refused = {line["end"] for line in fuzzed if line["outcome"] == "refused"}
    assert len(refused) > len(seeds) // 2
