"""Which units a recipe reads, and what describes them: columns of the source, tables beside it, their own activity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import BLOCK_BYTES, listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.locked import Binned
from neuromas.recordings.expression import evaluate_mask, names_in
from neuromas.recordings.units import KEYS, STATISTICS, SYNONYMS, UnitColumns, rows_of_units, taken_rows
from neuromas.schema.recipe import UnitsRecipe


@dataclass(frozen=True)
class Described:
    """Columns of units from tables.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_units,)
    notes : list of str
        For the provenance.
    """

    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def key_of(table: Mapping[str, NDArray[Any]], on: str | None, where: str) -> str:
    """The column of a table that names the units; NotFound if it does not exist."""
    if on is None:
        on = next((name for name in KEYS if name in table), None)
        expected = f"expected one of {', '.join(KEYS)}, or its name in the recipe (units_on)"
    else:
        expected = "units_on names it"
    if on is None or on not in table:
        raise NotFound(
            f"{where}: no column{'' if on is None else f' {on!r}'} with the names of the units; {expected}; there are "
            f"{listing(list(table)) or 'none'}",
            kind="unknown_column",
        )
    return on


def described(units: Sequence[str], table: Mapping[str, Any], on: str | None, where: str) -> Described:
    """Columns of a table with one row per unit, in the order of `units`; missing where a unit has no row.

    Raises
    ------
    NotFound
        The table has no column that names units.
    InvalidInput
        Two rows describe a unit, or no row describes any.

    Examples
    --------
    >>> table = {"cluster_id": np.array([7, 3]), "group": np.array(["good", "mua"])}
    >>> described(["3", "5", "7"], table, None, "cluster_group.tsv")
    Described(columns={'group': array(['mua', '', 'good'], dtype='<U4')}, notes=["cluster_group.tsv has no row for units '5'"])
    """
    table = {name: tidy(values) for name, values in table.items()}
    key = key_of(table, on, where)
    rows = rows_of_units([units], [table[key]], where, [key])
    without = [name for name, row in zip(units, rows.tolist(), strict=True) if row < 0]
    usable = {name: values for name, values in table.items() if name != key and values.dtype.kind in "biufU"}
    return Described(
        {name: taken_rows(values, rows) for name, values in usable.items()},
        [f"{where} has no row for units {listing(without)}"] if without else [],
    )


def select_units(
    columns: Mapping[str, NDArray[Any]], recipe: UnitsRecipe, n_units: int, where: str
) -> NDArray[np.int64]:
    """Positions of the units for which ``units_where`` is true; InvalidInput if there are none.

    All units, if ``units_where`` asks for their activity: `by_activity` then selects them.
    """
    if recipe.units_where is None or _statistics_in(recipe.units_where, columns):
        return np.arange(n_units)
    # it asks for no statistic, but messages list them
    every = UnitColumns(columns, lambda: (), "")
    rows = np.flatnonzero(evaluate_mask(recipe.units_where, every, n_units, f"{where}: units_where"))
    return _some(rows, recipe, n_units, where)


def by_activity(binned: Binned, columns: Mapping[str, NDArray[Any]], recipe: UnitsRecipe, where: str) -> Binned:
    """`binned` of the units for which ``units_where`` is true, if it asks for their activity; else unchanged.

    Parameters
    ----------
    binned : Binned
        Of all units.
    columns : mapping of str to ndarray of shape (n_units,)
        What ``units_where`` may name beside statistics of the activity.
    recipe : UnitsRecipe
    where : str
        The source, for messages.
    """
    expression = recipe.units_where
    if expression is None or not _statistics_in(expression, columns):
        return binned
    n_trials, n_steps, n_units = binned.activity.shape
    block = max(1, BLOCK_BYTES // (8 * n_steps * n_units))
    every = UnitColumns(
        columns,
        lambda: (binned.activity[at : at + block].reshape(-1, n_units) for at in range(0, n_trials, block)),
        binned.physical,
        recipe.width_s,
    )
    rows = np.flatnonzero(evaluate_mask(expression, every, n_units, f"{where}: units_where"))
    rows = _some(rows, recipe, n_units, where)
    return replace(
        binned,
        activity=binned.activity[:, :, rows],
        units=[binned.units[row] for row in rows.tolist()],
        unit_metadata={
            name: (np.asarray(values[0])[rows], values[1]) if isinstance(values, tuple) else np.asarray(values)[rows]
            for name, values in binned.unit_metadata.items()
        },
        left_out=(*binned.left_out, *not_selected(n_units - len(rows))),
    )


def not_selected(n_units: int) -> list[str]:
    """How many units were not selected, for the provenance."""
    return [f"{n_units} units not selected"] if n_units else []


def metadata_columns(columns: Mapping[str, NDArray[Any]], recipe: UnitsRecipe, where: str) -> dict[str, NDArray[Any]]:
    """Columns that become metadata of the units."""
    if recipe.unit_columns is None:
        return {name: values for name, values in columns.items() if name != "id"}
    unknown = [name for name in recipe.unit_columns if name not in columns]
    if unknown:
        raise NotFound(
            f"{where}: unit_columns: no column {listing(unknown)} with one number or text per unit; expected some of "
            f"{', '.join(columns)}",
            kind="unknown_column",
        )
    return {name: columns[name] for name in recipe.unit_columns}


def _statistics_in(expression: str, columns: Mapping[str, Any]) -> set[str]:
    return {name for name in names_in(expression) if name in {*STATISTICS, *SYNONYMS} and name not in columns}


def _some(rows: NDArray[np.int64], recipe: UnitsRecipe, n_units: int, where: str) -> NDArray[np.int64]:
    if rows.size == 0:
        raise InvalidInput(
            f"{where}: units_where={recipe.units_where!r} is true for none of {n_units} units", kind="no_units"
        )
    return rows
