"""Time and memory to register, index and query a recording that is larger than memory."""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuromas.bench.index import VARIABLES
from neuromas.bench.measure import Row, at_most
from neuromas.index.index import CLIndex, FewMatchesWarning
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

_STEPS = 20


def made(n_samples: int, n_units: int, block_samples: int = 500_000) -> Iterator[Recording]:
    """Blocks of a recording with trials of 20 steps, in float16. Each block has its own seed."""
    for number, first in enumerate(range(0, n_samples, block_samples)):
        n_trials = min(block_samples, n_samples - first) // _STEPS
        generator = np.random.default_rng([number, 1])
        bits = generator.integers(0, 2**16, (n_trials, _STEPS, n_units), dtype=np.uint16) & np.uint16(0xBFFF)
        yield Recording.from_arrays(
            bits.view(np.float16),
            {name: generator.integers(0, n, (n_trials, _STEPS)).astype(np.int8) for name, n in VARIABLES.items()},
            trial=first // _STEPS + np.arange(n_trials),
            name="made",
        )


def bench_store(
    *, n_samples: int = 10_000_000, n_units: int = 48, batch_size: int = 512, n_queries: int = 60
) -> list[Row]:
    """Register a recording in blocks, grouped by three variables. Then query it from a cold disk.

    Parameters
    ----------
    n_samples, n_units : int
        Size of the recording, in float16. The folder for temporary files (``TMPDIR``) needs room for it twice.
    batch_size : int
        Latents per query.
    n_queries : int
    """
    names = list(VARIABLES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = RecordingStore(folder)
        started = time.perf_counter()
        store.register_blocks(made(n_samples, n_units), set="made", name="made", group_by=names)
        registering_s = time.perf_counter() - started
        size = sum(entry.size for entry in store.list())
        what = f"{n_samples:,} samples × {n_units} units, {size / 1e9:.2f} GB"
        rows.append(Row(f"registering {what}, blocks made included", registering_s, "s"))
        started = time.perf_counter()
        recording = store.get("made/made", load=False)
        rows.append(Row(f"opening {what}", (time.perf_counter() - started) * 1e3, "ms"))
        started = time.perf_counter()
        index = CLIndex(recording, names)
        rows.append(Row(f"indexing {what}", (time.perf_counter() - started) * 1e3, "ms"))
        values = index.values()[names]
        queries = values.iloc[np.random.default_rng(0).integers(0, len(values), n_queries)].to_dict("records")
        for state in ("cold", "warm"):
            times = []
            for seed, values_of_query in enumerate(queries):
                if state == "cold":
                    _forget(Path(folder))
                started = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FewMatchesWarning)  # where the recording is small
                    latents = index.query(values_of_query, n=batch_size, seed=seed)
                times.append((time.perf_counter() - started) * 1e3)
                assert all((latents[name] == value).all() for name, value in values_of_query.items())
            name = f"{state} query of {batch_size} latents of given values, median of {n_queries}"
            middle = statistics.median(times)
            rows.append(at_most(name, middle, "ms", 50.0) if state == "cold" else Row(name, middle, "ms"))
            rows.append(Row(f"{state} query, the slowest", max(times), "ms"))
    rows.append(at_most("peak memory of all this", _peak_memory(), "GiB", 2.0))
    return rows


def _peak_memory() -> float:
    """Most memory that this process has held, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what `resource` tells there includes that of the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # macOS counts bytes


def _forget(folder: Path) -> None:
    """Drop the files from the operating system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
