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
        What it is compared with, measured in the same run; empty for nothing.
    ratio : float or None
        Value over that.
    target : float or None
        What the ratio (or, where there is none, the value) should not exceed.
    met : bool or None
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None


def at_most(
    name: str, value: float, unit: str, target: float, against: str = "", reference: float | None = None
) -> Row:
    """A row whose ratio to `reference` (or whose value, without one) should be at most `target`."""
    ratio = None if reference is None else value / reference
    return Row(name, value, unit, against, ratio, target, (value if ratio is None else ratio) <= target)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute on `number` threads, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds(work: Callable[[], object], *, repeats: int = 9, warm_up: int = 2) -> float:
    """Median seconds of one call of `work`, which returns when the work is done."""
    taken = []
    for number in range(warm_up + repeats):
        started = time.perf_counter()
        work()
        if number >= warm_up:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def matrix_rate(device: str = "cpu") -> float:
    """Floating-point operations per second of a float32 2048³ matrix product on the threads in use."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_MATRIX, _MATRIX, generator=generator).to(device) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return 2 * _MATRIX**3 / seconds(product, repeats=5)
