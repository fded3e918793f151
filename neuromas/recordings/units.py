"""What describes units: columns of tables, and statistics of their activity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.columns import as_text

STATISTICS = {
    "rate": "mean rate in Hz",
    "mean": "mean activity",
    "sd": "standard deviation of the activity",
    "silent": "whether the activity is 0 throughout",
    "constant": "whether the activity never changes",
    "recorded": "share of the samples in which the unit was recorded",
}
"""Statistics of a unit's activity that an expression about units may name. A column of the same name comes first."""

SYNONYMS = {
    **dict.fromkeys(("std", "stdev", "stddev", "standard_deviation"), "sd"),
    **dict.fromkeys(("firing_rate", "mean_rate"), "rate"),
    "average": "mean",
}
"""Other names of statistics, each with the name in `STATISTICS`."""

KEYS = ("unit", "cluster_id", "id", "roi")
"""Columns of a table that name units, the first that exists, unless somebody says which."""

_HERTZ = ("Hz", "1/s", "s-1", "s^-1", "spikes/s")


class UnitColumns(Mapping[str, NDArray[Any]]):
    """Columns that describe units, and `STATISTICS` of their activity, which is read only if an expression names one.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n_units,)
    blocks : callable
        Gives the activity of all samples that count, as arrays of shape (n_block, n_units). NaN where a unit was not recorded.
    units : str
        Physical unit of the activity.
    step_s : float, optional
        Length of a step in seconds. Counts per step become rates with it.

    Examples
    --------
    >>> columns = UnitColumns({"depth": np.array([1, 2])}, lambda: [np.array([[0.0, 2.0], [0.0, 4.0]])], "Hz")
    >>> columns["rate"].tolist(), columns["silent"].tolist(), "depth" in columns
    ([0.0, 3.0], [True, False], True)
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any]],
        blocks: Callable[[], Iterable[NDArray[Any]]],
        units: str,
        step_s: float | None = None,
    ) -> None:
        self._columns = columns
        self._blocks = blocks
        self._units = units
        self._step_s = step_s

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> UnitColumns:
        """These and more columns; the new ones come first."""
        return UnitColumns({**self._columns, **columns}, self._blocks, self._units, self._step_s)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._columns:
            return self._columns[name]
        name = SYNONYMS.get(name, name)
        if name not in STATISTICS:
            raise KeyError(name)
        return self._rate() if name == "rate" else self._statistics[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._columns
        yield from (name for name in STATISTICS if name not in self._columns)

    def __len__(self) -> int:
        return len({*self._columns, *STATISTICS})

    @cached_property
    def _statistics(self) -> dict[str, NDArray[Any]]:
        return statistics(self._blocks())

    def _rate(self) -> NDArray[np.float64]:
        computed = self._statistics
        if self._units in _HERTZ:
            return computed["mean"]
        if self._units == "1" and self._step_s is not None and computed["counts"].all():
            return np.asarray(computed["mean"] / self._step_s)
        raise InvalidInput(
            f"'rate' needs activity in Hz, or counts of spikes in steps of known length; this activity is in {self._units!r}"
            + ("" if self._units != "1" or self._step_s is None else " and not only whole numbers")
            + "; use 'mean'",
            kind="invalid_expression",
        )


def statistics(blocks: Iterable[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Statistics of each unit over blocks of samples; NaN and false entries of units that were never recorded.

    Returns
    -------
    dict of str to ndarray of shape (n_units,)
        `STATISTICS` but for ``rate``, and ``counts``: whether all activity is whole numbers from 0.

    Examples
    --------
    >>> computed = statistics([np.array([[1.0, 0.0]]), np.array([[3.0, np.nan]])])
    >>> {name: values.tolist() for name, values in computed.items() if name in ("mean", "sd", "silent", "recorded")}
    {'mean': [2.0, 0.0], 'sd': [1.0, 0.0], 'silent': [False, True], 'recorded': [1.0, 0.5]}
    """
    waiting = iter(blocks)
    first = next(waiting, None)
    if first is None:
        raise InvalidInput("no samples to compute statistics of units from", kind="no_samples")
    n_samples = 0
    n, mean, squares = np.zeros((3, first.shape[1]))
    low, high = np.full(first.shape[1], np.inf), np.full(first.shape[1], -np.inf)
    whole = np.ones(first.shape[1], dtype=bool)
    for block in itertools.chain([first], waiting):
        values = np.asarray(block, dtype=np.float64)
        present = np.isfinite(values)
        n_samples += len(values)
        count = present.sum(axis=0)
        block_mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        # sums of squares about the mean add up as those of Chan, Golub & LeVeque (1983)
        squares += np.where(present, (values - block_mean) ** 2, 0.0).sum(axis=0)
        squares += (block_mean - mean) ** 2 * n * count / np.maximum(n + count, 1)
        mean += (block_mean - mean) * count / np.maximum(n + count, 1)
        n += count
        low = np.minimum(low, np.where(present, values, np.inf).min(axis=0, initial=np.inf))
        high = np.maximum(high, np.where(present, values, -np.inf).max(axis=0, initial=-np.inf))
        whole &= np.where(present, (values >= 0) & (values == np.rint(values)), True).all(axis=0)
    seen = n > 0
    return {
        "mean": np.where(seen, mean, np.nan),
        "sd": np.where(seen, np.sqrt(squares / np.maximum(n, 1)), np.nan),
        "silent": ~seen | ((low == 0) & (high == 0)),
        "constant": ~seen | (low == high),
        "recorded": n / max(n_samples, 1),
        "counts": whole,
    }


def rows_of_units(
    units: Sequence[ArrayLike], rows: Sequence[ArrayLike], where: str, on: Sequence[str]
) -> NDArray[np.int64]:
    """The row of a table that describes each unit, shape (n_units,); -1 where there is none.

    Parameters
    ----------
    units, rows : sequence of array
        For each key, its values of the units and of the rows. They are compared as text: unit ``"3"`` is row ``3``.
    where : str
        The table, for messages.
    on : sequence of str
        Names of the keys, for messages.

    Raises
    ------
    InvalidInput
        Two rows describe a unit, or no row describes any.

    Examples
    --------
    >>> rows_of_units([["7", "3", "5"]], [np.array([3, 7])], "table", ["unit"]).tolist()
    [1, 0, -1]
    """
    keys_of_rows = _keys(rows)
    place: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(keys_of_rows):
        if "" in key:  # such as an empty line
            continue
        if key in place:
            raise InvalidInput(
                f"{where} has two rows for {_named(on, key)}; expected one row per unit", kind="duplicate_row"
            )
        place[key] = row
    keys = _keys(units)
    row_of_unit = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    if (row_of_unit < 0).all():
        raise InvalidInput(
            f"{where} has a row for none of the {len(keys)} units, e.g. {_named(on, keys[0])}; its rows are for "
            + (listing(["/".join(key) for key in keys_of_rows], 3) or "none"),
            kind="missing_rows",
        )
    return row_of_unit


def _keys(columns: Sequence[ArrayLike]) -> list[tuple[str, ...]]:
    return list(zip(*(names_of(np.asarray(values)).tolist() for values in columns), strict=True))


def names_of(values: NDArray[Any]) -> NDArray[Any]:
    """Names of units as text; a whole number without ``.0``, a missing one as empty text.

    Examples
    --------
    >>> names_of(np.array([3.0, np.nan])).tolist()
    ['3', '']
    """
    return np.where(np.isnan(values), "", as_text(values)) if values.dtype.kind == "f" else as_text(values)


def _named(on: Sequence[str], key: Sequence[str]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in zip(on, key, strict=True))


def taken_rows(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """`values` at `rows`; missing (NaN, empty text) where a row is -1.

    Examples
    --------
    >>> rows = np.array([1, -1])
    >>> taken_rows(np.array(["good", "mua"]), rows).tolist(), taken_rows(np.array([4, 5]), rows).tolist()
    (['mua', ''], [5.0, nan])
    """
    absent = rows < 0
    if not absent.any():
        return values[rows]
    if values.dtype.kind == "U":
        return np.where(absent, "", values[rows])
    return np.where(absent, np.nan, values[rows].astype(np.float64))
