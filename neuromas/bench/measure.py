"""Timing, and rows of results. A benchmark is a ratio measured in one run, never a pass or fail test."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_MATRIX = 2048


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes
    ----------
    name : str
    value : float
    unit : str
    against : str
        The comparison, measured in the same run. Empty if there is none.
    ratio : float or None
        Value divided by that of the comparison.
    target : float or None
        Upper limit of the ratio, or of the value if there is no ratio.
    met : bool or None
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None


def at_most(name: str, value: float, unit: str, target: float, against: str = "", ratio: float | None = None) -> Row:
    """A row whose ratio (or whose value, without one) should be at most `target`."""
    return Row(name, value, unit, against, ratio, target, (value if ratio is None else ratio) <= target)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute on `number` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds(work: Callable[[], object], *, repeats: int = 9, warm_up: int = 2) -> float:
    """Median seconds of one call of `work`, which returns when the work is done."""
    return statistics.median([_once(work) for _ in range(warm_up + repeats)][warm_up:])


def paired(
    work: Callable[[], object], reference: Callable[[], object], *, repeats: int = 9, warm_up: int = 1
) -> tuple[float, float, float]:
    """Time `work` and `reference` in turn, so that a busy machine slows both.

    Returns
    -------
    (float, float, float)
        Median seconds of each, and the median of their ratios, pair by pair.
    """
    times = [(_once(work), _once(reference)) for _ in range(warm_up + repeats)][warm_up:]
    ours, theirs = zip(*times, strict=True)
    return statistics.median(ours), statistics.median(theirs), statistics.median(a / b for a, b in times)


def _once(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def busy(work: Callable[[], object]) -> float:
    """Share of the time that `work` takes on a GPU in which one of its kernels runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        elapsed = time.perf_counter() - started
    ranges = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    running, until = 0.0, 0.0
    for start, end in ranges:  # in microseconds; they overlap where kernels run side by side
        running += max(0.0, end - max(start, until))
        until = max(until, end)
    return running / 1e6 / elapsed


def matrix_product(device: str = "cpu") -> tuple[Callable[[], object], int]:
    """A float32 2048³ matrix product to be timed, and its floating-point operations."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_MATRIX, _MATRIX, generator=generator).to(device) for _ in range(2))
    return _waited(lambda: torch.mm(a, b), device), 2 * _MATRIX**3


def copied(device: str = "cpu") -> tuple[Callable[[], object], int]:
    """A copy of 256 MB to be timed, and the bytes that it reads and writes."""
    source, into = torch.zeros(2**26, device=device), torch.empty(2**26, device=device)
    return _waited(lambda: into.copy_(source), device), 2 * 4 * 2**26


def _waited(work: Callable[[], object], device: str) -> Callable[[], object]:
    if device == "cpu":
        return work

    def done() -> None:
        work()
        torch.cuda.synchronize(device)

    return done
