"""Check that the demo's ``iia.csv`` holds the numbers that neuromas promises.

    python .ci/check_demo.py neuromas-demo/iia.csv

Prints each promise with what was measured, and ends with exit status 1 where one is not met.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

LIVE, BRAIN = "gru-0", "gru-1"
"""The system that runs, and the one that most fits only read."""
METHODS = ("none", "random", "cl-ceiling", "stitch", "latent-stitch", "das", "mas", "clmas", "clmas-linear")
COLUMNS = ("method", "source", "target", "ran", "iia", "low", "high", "n_pairs")
MIN_PAIRS = 1000

Rows = list[dict[str, str]]


def promises(rows: Rows) -> Iterator[tuple[bool, str]]:
    """(kept, what was promised and what was measured) of every promise."""
    table = {(row["method"], row["source"], row["target"]): row for row in rows}

    def score(method: str, source: str, target: str) -> float:
        row = table.get((method, source, target))
        return float(row["iia"]) if row and row["iia"] else float("nan")

    def at_least(bound: float, method: str, source: str, target: str) -> tuple[bool, str]:
        measured = score(method, source, target)
        return measured >= bound, f"{method} {source}->{target}: iia {measured:.3f}, at least {bound}"

    for method in METHODS:
        yield any(row["method"] == method for row in rows), f"{method} is there"
    few = min((int(row["n_pairs"]) for row in rows), default=0)
    yield few >= MIN_PAIRS, f"every direction: {few} held-out pairs, at least {MIN_PAIRS}"
    for method in ("none", "random"):
        measured = [float(row["iia"] or "nan") for row in rows if row["method"] == method]
        low = all(iia <= 0.10 for iia in measured)  # false where one is no number
        yield low, f"{method}, every direction: iia {', '.join(f'{iia:.3f}' for iia in measured)}, at most 0.1"

    yield at_least(0.97, "stitch", BRAIN, LIVE)
    for method, bound in (("clmas", 0.96), ("clmas-linear", 0.97)):
        for source in (LIVE, BRAIN):
            yield at_least(bound, method, source, BRAIN)
            yield at_least(0.98, method, source, LIVE)
        ran = {target: table.get((method, LIVE, target), {}).get("ran") for target in (LIVE, BRAIN)}
        yield ran == {LIVE: "True", BRAIN: "False"}, f"{method} ran {LIVE} and only read {BRAIN}: ran {ran}"
    ours = score("clmas", LIVE, BRAIN)
    for other in ("stitch", "latent-stitch"):
        others = score(other, LIVE, BRAIN)
        yield ours > others, f"clmas {LIVE}->{BRAIN}: iia {ours:.3f}, above {other} ({others:.3f})"
    yield at_least(0.98, "das", LIVE, LIVE)
    for source in (LIVE, BRAIN):
        for target in (LIVE, BRAIN):
            yield at_least(0.98, "mas", source, target)


def main(arguments: list[str]) -> int:
    """The exit status."""
    path = Path(arguments[0] if arguments else "neuromas-demo/iia.csv")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        print(f"{path} has no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}")
        return 1
    broken = 0
    for kept, message in promises(rows):
        print("ok    " if kept else "BROKEN", message)
        broken += not kept
    print(f"{path}: {broken} promises broken" if broken else f"{path}: every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
