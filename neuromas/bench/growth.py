"""Growth of costs: an index with samples and variables, a recording on disk with samples, a fit with systems."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from neuromas.bench.measure import Row, seconds, threads
from neuromas.bench.store import bench_store
from neuromas.errors import InvalidInput
from neuromas.fit.fitters import MAS
from neuromas.fit.loop import init, step
from neuromas.fit.prepare import fit_sides, prepare
from neuromas.fit.start import start_maps
from neuromas.index.index import CLIndex
from neuromas.recordings.recording import Recording
from neuromas.report.figures import new_figure
from neuromas.report.panels import titled
from neuromas.systems.training import load_system

_UNITS = 16
_NETWORKS = ("multi-object/gru-0", "multi-object/gru-1", "multi-object/gru-2", "multi-object/gru-3")


@dataclass(frozen=True)
class Curve:
    """A cost at several sizes, and the power of the size by which it should grow.

    Attributes
    ----------
    name, of, unit : str
        What is measured, the size that it depends on, and the unit of the cost.
    sizes, costs : tuple of float
    power : float
        The cost should be proportional to the size to this power.
    """

    name: str
    of: str
    unit: str
    sizes: tuple[float, ...]
    costs: tuple[float, ...]
    power: float

    @property
    def slope(self) -> float:
        """Measured power: least squares in logarithms, over the larger half of the sizes, where fixed costs weigh less."""
        half = min(len(self.sizes) // 2, len(self.sizes) - 2)
        return float(np.polyfit(np.log(self.sizes[half:]), np.log(self.costs[half:]), 1)[0])


def bench_growth(
    *, most_samples: int = 10_000_000, most_systems: int = 8, n_threads: int = 1
) -> tuple[list[Row], list[Curve]]:
    """Measure every curve.

    Parameters
    ----------
    most_samples : int
        Sizes are powers of ten from 10⁴ up to it.
    most_systems : int
        Fits are of 2, 4, … systems up to it.
    n_threads : int

    Raises
    ------
    InvalidInput
        Too few sizes for a slope.
    """
    if most_samples < 10**5 or most_systems < 4:
        raise InvalidInput(
            f"a curve needs two sizes: expected at least 100,000 samples and 4 systems, got {most_samples:,} and {most_systems}",
            kind="invalid_option",
        )
    sizes = [10**power for power in range(4, len(str(most_samples)))]
    with threads(n_threads):
        curves = [
            *_in_memory(sizes),
            _by_variables(min(10**6, most_samples)),
            *_on_disk(sizes),
            _by_systems(most_systems),
        ]
    rows = [
        Row(f"{curve.name}, at {size:,.0f} {curve.of}", cost, curve.unit)
        for curve in curves
        for size, cost in zip(curve.sizes, curve.costs, strict=True)
    ]
    rows += [Row(f"{curve.name}: power of {curve.of}", curve.slope, "", "expected", curve.power) for curve in curves]
    return rows, curves


def draw_growth(curves: Sequence[Curve]) -> Figure:
    """Every curve on logarithmic axes, with the expected slope through its last point."""
    columns = -(-len(curves) // 2)
    figure, axes = new_figure(3.1 * columns, 5.6, rows=2, columns=columns)
    for panel in axes.flat[len(curves) :]:
        panel.set_axis_off()
    for panel, curve in zip(axes.flat, curves, strict=False):
        sizes = np.asarray(curve.sizes)
        panel.loglog(
            sizes,
            curve.costs,
            marker="o",
            markersize=4,
            color="#2f6fb0",
            label=f"measured ({curve.slope:.2f})".replace("-0.00", "0.00"),
        )
        expected = curve.costs[-1] * (sizes / sizes[-1]) ** curve.power
        panel.loglog(sizes, expected, linestyle="dashed", color="#777777", label=f"expected ({curve.power:g})")
        if sizes.max() < 100:
            panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
            panel.xaxis.set_minor_locator(NullLocator())
        low, high = min(*curve.costs, *expected), max(*curve.costs, *expected)
        panel.set_ylim(low / 2, high * 4)
        panel.set_title(curve.name, fontsize=9)
        panel.set_xlabel(curve.of, fontsize=9)
        panel.set_ylabel(curve.unit, fontsize=9)
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    return titled(figure, "Cost of growth, with the power it grows by")


def _recording(n_samples: int, n_variables: int = 3) -> Recording:
    generator = np.random.default_rng(0)
    columns = {f"v{number}": generator.integers(0, 4, n_samples).astype(np.int8) for number in range(n_variables)}
    activity = generator.integers(0, 2**14, (n_samples, _UNITS), dtype=np.uint16).view(np.float16)
    return Recording.from_arrays(activity, columns, name="planted")


def _in_memory(sizes: Sequence[int]) -> list[Curve]:
    building, memory, drawing = [], [], []
    for size in sizes:
        recording = _recording(size)
        names = recording.variable_names

        def build(recording: Recording = recording, names: list[str] = names) -> CLIndex:
            return CLIndex(recording, names, dtype=torch.float16)

        building.append(seconds(build, repeats=3))
        tracemalloc.start()
        index = build()
        memory.append(tracemalloc.get_traced_memory()[0] / 2**20)
        tracemalloc.stop()
        generator = torch.Generator().manual_seed(0)
        queries = index.combinations[torch.randint(index.n_values, (512,), generator=generator)]

        def draw(index: CLIndex = index, queries: Tensor = queries, generator: torch.Generator = generator) -> None:
            index.sample(queries, generator)

        drawing.append(seconds(draw, repeats=101) * 1e6)
    lengths = tuple(map(float, sizes))
    return [
        Curve("building an index", "samples", "s", lengths, tuple(building), 1),
        Curve("memory of an index", "samples", "MiB", lengths, tuple(memory), 1),
        Curve("drawing 512 latents", "samples", "µs", lengths, tuple(drawing), 0),
    ]


def _by_variables(n_samples: int) -> Curve:
    recording = _recording(n_samples, 6)
    numbers = range(1, 7)
    costs = [
        seconds(lambda n=n: CLIndex(recording, recording.variable_names[:n], dtype=torch.float16), repeats=3)  # type: ignore[misc]
        for n in numbers
    ]
    return Curve(f"index of {n_samples:,} samples", "variables", "s", tuple(map(float, numbers)), tuple(costs), 1)


def _on_disk(sizes: Sequence[int]) -> list[Curve]:
    rows = []
    for size in sizes:
        # a process for each size, since peak memory is that of a process
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            measured = alone.submit(_stored, size).result()
            rows.append({row.name.split(" ")[0]: row for row in measured if "slowest" not in row.name})
    lengths = tuple(map(float, sizes))
    return [
        Curve("registering, grouped", "samples", "s", lengths, tuple(row["registering"].value for row in rows), 1),
        Curve("cold query of up to 512 latents", "samples", "ms", lengths, tuple(row["cold"].value for row in rows), 0),
        Curve("peak memory, on disk", "samples", "GiB", lengths, tuple(row["peak"].value for row in rows), 0),
    ]


def _stored(n_samples: int) -> list[Row]:
    return bench_store(n_samples=n_samples, n_queries=15)


def _by_systems(most: int) -> Curve:
    common = {"batch_size": 32, "n_trials": 200, "n_train_pairs": 500, "n_validation_pairs": 20}
    numbers = [number for number in (2, 4, 6, 8) if number <= most]
    costs = []
    for number in numbers:
        systems = []
        for place in range(number):  # the same four networks again, under other names
            system = load_system(_NETWORKS[place % len(_NETWORKS)])
            system.config = system.config.model_copy(update={"name": f"gru-{place}"})
            systems.append(system)
        fitter = MAS(16, **common)
        ready = prepare(fitter.config, systems, fit_sides(fitter.config, systems))
        state = init(ready.plan, start_maps(ready), None)
        costs.append(seconds(lambda plan=ready.plan, state=state: step(plan, state), repeats=7) * 1e3)  # type: ignore[misc]
    return Curve("mas iteration, 32 pairs per direction", "systems", "ms", tuple(map(float, numbers)), tuple(costs), 2)
