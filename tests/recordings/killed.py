"""Kill registrations with ``kill -9``, each at another moment, and look at what they leave behind.

Run by test_store_killed.py in a process of its own: ``python killed.py STORE KILLS SEED``. Everything is imported once;
each registration then runs in a fork, which is cheap, and which the kill takes with everything it holds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

TOUCHING = ("open", "os.", "shutil.", "fcntl.")
"""Audit events that go with a change of the disk, or may."""


def recording(name: str, seed: int) -> Recording:
    """A recording in two shards, as small as that can be."""
    rng = np.random.default_rng(seed)
    activity = np.repeat(rng.normal(size=(3, 1500)).astype(np.float16), 200, axis=0)
    return Recording.from_arrays(activity, {"count": rng.integers(0, 5, 600)}, name=name)


def in_fork(work: Callable[[], None]) -> int:
    """Exit status of `work`, done in a fork; negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after(events: int) -> None:
    """Have this process killed at its n-th event that touches the disk."""
    lock, left = threading.Lock(), [events]

    def count(event: str, _: object) -> None:
        if event.startswith(TOUCHING) and event != "os.kill":  # which is our own
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def count_events(work: Callable[[], None], report: Path) -> int:
    """How many events that touch the disk `work` makes."""
    events: list[str] = []

    def counted() -> None:
        sys.addaudithook(lambda event, _: events.append(event) if event.startswith(TOUCHING) else None)
        work()
        count = len(events)
        report.write_text(str(count))

    assert in_fork(counted) == 0
    return int(report.read_text())


def main(path: Path, kills: int, seed: int) -> None:
    """Print one JSON line per kill."""
    chance = random.Random(seed)
    store = RecordingStore(path)
    old, first, second, third = (recording(name, seed) for seed, name in enumerate(("old", "first", "second", "third")))
    assert in_fork(lambda: store.register(old, set="held") and None) == 0

    def register(set_name: str) -> None:
        store.register([first, second], set=set_name)

    points = []
    for set_name in ("new", "held"):  # a set of its own, or joining one
        for _ in range(2):  # the second time counts: the first one also makes folders that stay
            events = count_events(lambda set_name=set_name: register(set_name), path.parent / "events.txt")
            for name in ("first", "second"):
                assert in_fork(lambda name=f"{set_name}/{name}": store.remove(name) and None) == 0
        # Chance alone would hardly hit the commit: around each rename, and before the journal goes.
        about_the_commit = [events - before for before in (11, 9, 8, 7, 6, 5, 4, 1)]
        drawn = chance.sample(range(1, events - 12), kills // 2 - len(about_the_commit)) + about_the_commit
        points += [(set_name, point) for point in sorted(drawn)]
    for set_name, point in points:

        def killed(point: int, set_name: str = set_name) -> None:
            kill_after(point)
            register(set_name)

        while (status := in_fork(lambda point=point: killed(point))) == 0:
            # How many events there are varies a little from run to run: this one was over before its point came.
            for name in ("first", "second"):
                assert in_fork(lambda name=f"{set_name}/{name}": store.remove(name) and None) == 0
            point -= 1
        held = {entry.name for entry in store.list()}
        added = sorted(held - {"held/old"})
        problems = [str(problem) for problem in store.verify()]
        # Whatever is registered next clears away the rest of what was killed; registering that again then succeeds.
        other = in_fork(lambda set_name=set_name: store.register(third, set=set_name) and None)
        private = path / ".neuromas"
        leftover = [
            str(file)
            for folder in ("building", "discarded", "pending")
            for file in (private / folder).rglob("*")
            if file.is_file()
        ]
        named = {entry.name for entry in store.list()}
        folders = {f"{folder.parent.name}/{folder.name}" for folder in path.glob("[!.]*/*") if folder.is_dir()}
        again = in_fork(lambda set_name=set_name: register(set_name))
        new = {f"{set_name}/{name}" for name in ("first", "second", "third")}
        complete = {entry.name for entry in store.list()} == {"held/old", *new}
        report = {
            "point": point,
            "status": status,
            "set": set_name,
            "old": "held/old" in held,
            "added": added,
            "problems": problems,
            "other": other,
            "again": again,
            "leftover": leftover,
            "unnamed": sorted(folders - named),
            "complete": complete,
            "problems_after": [str(problem) for problem in store.verify()],
        }
        print(json.dumps(report), flush=True)
        for name in sorted(new):
            assert in_fork(lambda name=name: store.remove(name) and None) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
