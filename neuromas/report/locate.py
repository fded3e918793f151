"""The figure of a search: IIA by layer and rank, and by layer and step, a column for each variable."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from neuromas.report.figures import new_figure, png
from neuromas.schema.locate import Location

LEVEL = 0.05


def draw(location: Location) -> bytes:
    """Maps of the worst direction; PNG. A dot marks cells that differ from no interchange after correction for the whole map."""
    table = location.to_dataframe()
    n_layers, n_variables = len(location.layers), len(location.variables)
    figure, axes = new_figure(2.2 + 2.6 * n_variables, 2.4 + 0.7 * n_layers, rows=2, columns=n_variables)
    table["steps"] = [f"{first}–{last}" for first, last in zip(table["first_step"], table["last_step"], strict=True)]
    for column, variable in enumerate(location.variables):
        mine = table[table["variable"] == variable]
        largest = mine[mine["rank"] == mine.groupby("layer")["rank"].transform("max")]
        _heat(axes[0][column], _worst(mine, "rank"), location.layers, "rank")
        _heat(axes[1][column], _worst(largest, "steps"), location.layers, "step, at the largest rank")
        axes[0][column].set_title(variable, fontsize=10)
        if column:
            for row in (0, 1):
                axes[row][column].set_yticklabels([])
    return png(figure)


def _worst(table: pd.DataFrame, along: str) -> pd.DataFrame:
    """IIA and corrected p of the worst direction, by layer and `along`; other cells are averaged by their pairs."""
    rows = []
    for (layer, place, *_), group in table.groupby(["layer", along, "source", "target"], sort=False):
        iia = float(np.average(group["iia"], weights=group["n"]))
        rows.append({"layer": layer, along: place, "iia": iia, "p": float(group["p"].min())})
    return pd.DataFrame(rows).sort_values("iia", kind="stable").drop_duplicates(["layer", along])


def _heat(panel: Axes, table: pd.DataFrame, layers: tuple[str, ...], label: str) -> None:
    along = table.columns[1]
    places = sorted(table[along].unique(), key=lambda value: int(str(value).partition("–")[0]))
    values = table.pivot(index="layer", columns=along, values="iia").reindex(index=list(layers), columns=places)
    p = table.pivot(index="layer", columns=along, values="p").reindex(index=list(layers), columns=places)
    panel.imshow(values.to_numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        if np.isfinite(value):
            dot = "•" if p.to_numpy()[row, column] < LEVEL else ""
            colour = "black" if value > 0.6 else "white"
            panel.text(column, row, f"{value:.2f}{dot}", ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(range(len(places)), [str(place) for place in places], fontsize=8)
    panel.set_yticks(range(len(layers)), list(layers), fontsize=8)
    panel.set_xlabel(label, fontsize=8)
