"""Run a batch of mutations and write down what came of each: ``python run.py FOLDER FIRST LAST [CASE,…]``.

A process of its own, so that a crash of a C library is a result and not the end of the tests. Each line of standard output is a
JSON object. The line ``start`` comes before a case, so that what crashed is known.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

LIMIT_S = 20
"""For one input."""

MEMORY_BYTES = 6 * 2**30

_written: list[str] = []
_place = ""


class TooLong(BaseException):
    """The time for a case is over."""


class Calm(Random):
    """Draws that change nothing."""

    def random(self) -> float:
        return 0.9


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Remember files that Python opens for writing outside of the case's own folder."""
    if event == "open" and _place:
        path, mode, _ = arguments
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if writes and isinstance(path, (str, bytes)):
            text = path if isinstance(path, str) else path.decode(errors="replace")
            if not Path(text).resolve().is_relative_to(_place) and not text.startswith(("/dev/", "/proc/")):
                _written.append(text)


def _alarm(number: int, frame: Any) -> None:
    raise TooLong


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def run(name: str, number: int, folder: Path) -> None:
    """Mutate the seed of a case with the seed `number`, read it, and say what came of it."""
    global _place
    from mutate import change_file
    from seeds import CASES

    from neuromas import NeuromasError

    case, rng = CASES[name], Random(f"{name} {number}")
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    seed = folder / "seeds" / name.replace(" ", "-")
    if not seed.exists():
        seed.mkdir(parents=True)
        case.make(seed)
    (path,) = seed.iterdir()
    path = Path(shutil.copytree(path, place / path.name) if path.is_dir() else shutil.copy(path, place))
    if number:
        try:
            case.mutate(path, rng)
        except Exception:  # what the writers of the format refuse
            change_file(path, rng)
    say(start=name, number=number)
    _written.clear()
    _place = str(place)
    begin = time.monotonic()
    signal.alarm(LIMIT_S)
    try:
        case.read(path, rng if number else Calm())
        outcome, detail = "read", ""
    except NeuromasError as error:
        outcome, detail = "refused", f"{type(error).__name__} {error.kind}: {error.message}"
    except TooLong:
        outcome, detail = "too long", "".join(traceback.format_exc(limit=-12))
    except BaseException as error:
        outcome, detail = type(error).__name__, traceback.format_exc(limit=-12)
    finally:
        signal.alarm(0)
        _place = ""
    strange = sorted({other.name for other in place.iterdir()} - {path.name})
    if strange or _written:
        outcome, detail = "wrote outside", f"{strange} {_written}"
    say(end=name, number=number, outcome=outcome, detail=detail[-3000:], seconds=round(time.monotonic() - begin, 2))


def main(folder: str, first: str, last: str, names: str = "") -> None:
    from seeds import CASES

    say(cases=list(CASES))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _alarm)
    sys.addaudithook(_watch)
    for number in range(int(first), int(last)):
        for name in names.split(",") if names else CASES:
            run(name, number, Path(folder).resolve())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
