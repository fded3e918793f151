"""Time of a look-up, compared with a plain gather of random rows, and with the look-ups of table libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.bench.measure import Row, at_most, copied, paired, seconds, threads
from neuromas.index.index import CLIndex
from neuromas.recordings.recording import Recording
from neuromas.systems.system import check_device

VARIABLES = {"phase": 2, "count": 20, "quantity": 20}
"""Three variables and how many values each has."""
_AT_ONCE, _REPEATS = 16, 41
_BATCHES = 2 * _AT_ONCE * (_REPEATS + 5)
Lookup = Callable[[NDArray[np.float64]], NDArray[np.int64]]
"""From values (n, n_variables) to one sample (n,) each, drawn among those that hold them."""


@dataclass(frozen=True)
class Contender:
    """Another way to look samples up.

    Attributes
    ----------
    name : str
    build : callable
        Makes the groups of the columns and returns the look-up.
    """

    name: str
    build: Callable[[dict[str, NDArray[Any]]], Lookup]


def _pandas(columns: dict[str, NDArray[Any]]) -> Lookup:
    groups: dict[Any, NDArray[np.int64]] = pd.DataFrame(columns).groupby(list(columns)).indices
    generator = np.random.default_rng(0)

    def lookup(values: NDArray[np.float64]) -> NDArray[np.int64]:
        share = generator.random(len(values))
        members = [groups[tuple(row)] for row in values.tolist()]
        return np.array([rows[int(place * len(rows))] for rows, place in zip(members, share.tolist(), strict=True)])

    return lookup


def _polars(columns: dict[str, NDArray[Any]]) -> Lookup:
    import polars

    groups = polars.DataFrame(columns).with_row_index().group_by(list(columns)).agg("index")
    groups = groups.with_columns(polars.col("index").list.len().alias("n"))
    generator = np.random.default_rng(0)
    dtypes = {name: values.dtype for name, values in columns.items()}

    def lookup(values: NDArray[np.float64]) -> NDArray[np.int64]:
        queries = {name: values[:, i].astype(dtype) for i, (name, dtype) in enumerate(dtypes.items())}
        frame = polars.DataFrame(queries | {"share": generator.random(len(values))})
        joined = frame.join(groups, on=list(columns), how="left", maintain_order="left")
        place = (polars.col("share") * polars.col("n")).cast(polars.UInt32)
        return joined.select(polars.col("index").list.get(place)).to_series().to_numpy()

    return lookup


def _duckdb(columns: dict[str, NDArray[Any]]) -> Lookup:
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    frame = pd.DataFrame(columns).assign(row=np.arange(len(next(iter(columns.values())))))
    connection.register("frame", frame)
    names = ", ".join(columns)
    connection.execute(f"create table groups as select {names}, list(row) as members from frame group by {names}")
    generator = np.random.default_rng(0)

    def lookup(values: NDArray[np.float64]) -> NDArray[np.int64]:
        queries = pd.DataFrame(values.astype(np.int64), columns=list(columns))
        queries = queries.assign(share=generator.random(len(values)), place=np.arange(len(values)))
        connection.register("asked", queries)
        member = "members[1 + cast(floor(share * len(members)) as bigint)]"
        sql = f"select {member} as row from queries left join groups using ({names}) order by place"
        return connection.execute(sql).fetchnumpy()["row"].astype(np.int64)

    return lookup


def contenders() -> list[Contender]:
    """pandas, and polars and DuckDB where they are installed (the extra ``bench``)."""
    others = [Contender("polars", _polars), Contender("duckdb", _duckdb)]
    return [
        Contender("pandas", _pandas),
        *(contender for contender in others if importlib.util.find_spec(contender.name)),
    ]


def planted(n_samples: int, n_units: int, seed: int = 0) -> tuple[dict[str, NDArray[Any]], NDArray[np.float16]]:
    """Columns of three variables, and random float16 activity between −2 and 2."""
    generator = np.random.default_rng(seed)
    columns = {name: generator.integers(0, n, n_samples).astype(np.int8) for name, n in VARIABLES.items()}
    bits = generator.integers(0, 2**16, (n_samples, n_units), dtype=np.uint16)
    # without the highest bit of the exponent the numbers are finite, and below 2
    bits &= np.uint16(0xBFFF)
    return columns, bits.view(np.float16)


def bench_index(
    *, n_samples: int = 10_000_000, n_units: int = 128, batch_size: int = 512, device: str = "cpu"
) -> list[Row]:
    """Time the building of an index, and draws of batches from it, on one thread. On a GPU, only the draws are timed.

    Parameters
    ----------
    n_samples, n_units : int
        Size of the recording, in float16.
    batch_size : int
        Latents drawn at once.
    device : str

    Raises
    ------
    InvalidInput
        The device is not there.
    """
    check_device(device)
    columns, activity = planted(n_samples, n_units)
    variables = list(VARIABLES)
    with threads(1):
        recording = Recording.from_arrays(activity, columns, name="planted")
        if device != "cpu":
            return _on_gpu(CLIndex(recording, variables, dtype=torch.float16, device=device), batch_size, device)
        columns = {name: recording.dataset[name].values for name in variables}
        rows, others = _building(recording, columns, variables)
        index = CLIndex(recording, variables, dtype=torch.float16)
        rows += _drawing(index, batch_size, others)
    return rows


def _building(
    recording: Recording, columns: dict[str, NDArray[Any]], variables: list[str]
) -> tuple[list[Row], dict[str, tuple[Lookup, float]]]:
    built, rows = {}, []
    ours = seconds(lambda: CLIndex(recording, variables, dtype=torch.float16), repeats=3)
    for contender in contenders():
        lookup = contender.build(columns)
        theirs = seconds(lambda build=contender.build: build(columns), repeats=3)  # type: ignore[misc]
        built[contender.name] = (lookup, theirs)
        what = f"{contender.name} grouping the same columns"
        target = 1.0 if contender.name == "polars" else None
        name = f"building the index of {recording.n_samples:,} samples by {len(variables)} variables"
        rows.append(_compared(name, ours, "s", what, ours / theirs, target))
    return rows, built


def _drawing(index: CLIndex, batch_size: int, others: dict[str, tuple[Lookup, float]]) -> list[Row]:
    generator, numbers = torch.Generator().manual_seed(0), np.random.default_rng(0)
    latents = index.latents

    def values() -> torch.Tensor:
        return index.combinations[torch.randint(index.n_values, (batch_size,), generator=generator)]

    # as many batches as are timed: rows that were read before would lie in the cache
    queries = [values() for _ in range(_BATCHES)]
    combinations = [index.lookup(query)[0] for query in queries]
    random_rows = [numbers.integers(0, len(latents), batch_size) for _ in range(_BATCHES)]
    turn = iter(range(10**9))
    plain = latents.numpy()
    work: dict[str, Callable[[int], object]] = {
        "sample": lambda i: index.sample(queries[i], generator),
        "draw": lambda i: index.draw(combinations[i], generator),
        "torch": lambda i: torch.index_select(latents, 0, torch.from_numpy(random_rows[i])),
        "numpy": lambda i: plain.take(random_rows[i], axis=0),
    }

    def against(name: str, other: str) -> tuple[float, float, float]:
        def several(which: str) -> Callable[[], object]:
            return lambda: [work[which](next(turn) % _BATCHES) for _ in range(_AT_ONCE)]

        ours, theirs, ratio = paired(several(name), several(other), repeats=_REPEATS, warm_up=5)
        return ours / _AT_ONCE, theirs / _AT_ONCE, ratio

    rows = []
    size = f"{batch_size} latents of {index.n_units} units among {len(latents):,}"
    for name, what_is_timed in (("sample", "sample"), ("draw", "draw (values looked up before)")):
        for other, what in (("torch", "torch.index_select"), ("numpy", "numpy.take")):
            ours, theirs, ratio = against(name, other)
            of = f"{what} of as many random rows: {theirs * 1e6:.0f} µs"
            target = 1 / 0.7 if (name, other) == ("sample", "torch") else None
            rows.append(_compared(f"{what_is_timed}, {size}", ours * 1e6, "µs", of, ratio, target))
    ours, _, _ = against("sample", "torch")
    prepared, fresh = {}, {}
    for name, (lookup, building) in others.items():
        arrays = [query.numpy() for query in queries]
        lookup_s = seconds(lambda: [plain.take(lookup(query), axis=0) for query in arrays[:8]], repeats=5) / 8  # noqa: B023
        prepared[name], fresh[name] = lookup_s, lookup_s + building
    for times, how, target in ((prepared, "groups built before", 0.5), (fresh, "groups built for it", 0.02)):
        best = min(times, key=times.__getitem__)
        what = f"{best} ({how}), the best of {', '.join(times)}: {times[best] * 1e3:.3g} ms"
        rows.append(_compared(f"sample, {size}", ours * 1e6, "µs", what, ours / times[best], target))
    return rows


def _on_gpu(index: CLIndex, batch_size: int, device: str) -> list[Row]:
    """Draws in a CUDA graph, as in a fit, compared with a gather of as many random rows, and with the bandwidth of a copy."""
    generator, at_once = torch.Generator(device=device).manual_seed(0), 100
    copy, copied_bytes = copied(device)
    rows = []
    for size in (batch_size, 128 * batch_size):
        queries = torch.randint(index.n_values, (at_once, size), generator=generator, device=device)
        random_rows = torch.randint(index.n_samples, (at_once, size), generator=generator, device=device)
        share = torch.rand(at_once, size, generator=generator, device=device, dtype=torch.float64)
        latents = index.latents

        def draw(queries: Tensor = queries, share: Tensor = share) -> None:
            for query, number in zip(queries, share, strict=True):
                index.draw_at(query, number.clone())

        def gather(latents: Tensor = latents, random_rows: Tensor = random_rows) -> None:
            for rows_of_batch in random_rows:
                torch.index_select(latents, 0, rows_of_batch)

        work = [_recorded(run, device) for run in (draw, gather)]
        ours, theirs, ratio = paired(*work, repeats=15, warm_up=3)
        copying = seconds(copy)
        name = f"{size:,} latents of {index.n_units} units among {index.n_samples:,}, drawn in a graph"
        moved = at_once * size * index.n_units * 2 * 2  # float16, read and written
        rate = at_once * size / ours / 1e6
        share_of = moved / ours / (copied_bytes / copying)
        rows += [
            Row(
                name,
                ours / at_once * 1e6,
                "µs",
                f"gather of as many random rows: {theirs / at_once * 1e6:.1f} µs",
                ratio,
            ),
            Row(f"{name}: rate", rate, "million rows/s", "bandwidth of a copy", share_of),
        ]
    return rows


def _recorded(work: Callable[[], None], device: str) -> Callable[[], None]:
    """`work` as a CUDA graph; a call returns when the graph has run."""
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
        work()

    def replayed() -> None:
        graph.replay()
        torch.cuda.synchronize(device)

    return replayed


def _compared(name: str, value: float, unit: str, against: str, ratio: float, target: float | None) -> Row:
    return (
        Row(name, value, unit, against, ratio) if target is None else at_most(name, value, unit, target, against, ratio)
    )
