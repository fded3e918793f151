"""Documents of a search: in which layers, at which steps and ranks a variable can be interchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from neuromas.schema.document import Document, Provenance, StoredDocument
from neuromas.schema.validity import Share

if TYPE_CHECKING:
    import pandas as pd


class Cell(Document):
    """One layer, variable, rank and range of steps, in one direction."""

    layer: str
    variable: str
    rank: int
    first_step: int
    last_step: int
    """Steps of the targets, both included."""
    source: str
    target: str
    iia: Share
    none: float
    """IIA of the same pairs without an interchange."""
    probe: float | None
    """Accuracy of a linear probe of the target's latents in this layer, over all steps; null if there are too many values."""
    by: Literal["closed-form", "fit"]
    """How the alignment of this cell was made."""
    p: float
    """Chance that the largest cell of a map without any effect reaches as much: corrected for all cells of the map."""


class Location(StoredDocument):
    """``locate.json``: a map of IIA over layers, steps, variables and ranks."""

    format_version: Literal[1] = 1
    systems: tuple[str, ...]
    layers: tuple[str, ...]
    variables: tuple[str, ...]
    ranks: tuple[int, ...]
    n_pairs: int
    n_fits: int
    """Layers and variables that were fitted; the others have the closed form."""
    seed: int
    cells: tuple[Cell, ...] = Field(repr=False)
    provenance: Provenance

    def to_dataframe(self) -> pd.DataFrame:
        """A row per cell.

        Returns
        -------
        pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame(
            [
                cell.model_dump(exclude={"iia"})
                | {"iia": cell.iia.value, "low": cell.iia.low, "high": cell.iia.high, "n": cell.iia.n}
                for cell in self.cells
            ]
        )

    def summary(self) -> pd.DataFrame:
        """For each layer and variable, its best rank over all steps.

        Returns
        -------
        pandas.DataFrame
            Columns ``layer``, ``variable``, ``rank``, ``iia`` (of the worst direction), ``none``, ``probe``, ``by`` and
            ``p``, the smallest of that direction. Steps are weighed by their pairs.
        """
        import numpy as np
        import pandas as pd

        table = self.to_dataframe()
        rows = []
        keys = ["layer", "variable", "rank", "source", "target"]
        for (layer, variable, rank, *_), group in table.groupby(keys, sort=False):
            mean, none = (float(np.average(group[name], weights=group["n"])) for name in ("iia", "none"))
            row = {"layer": layer, "variable": variable, "rank": rank, "iia": mean, "none": none}
            rows.append(row | {"probe": group["probe"].iloc[0], "by": group["by"].iloc[0], "p": group["p"].min()})
        worst = pd.DataFrame(rows).sort_values("iia", kind="stable").drop_duplicates(["layer", "variable", "rank"])
        best = worst.sort_values(["iia", "rank"], ascending=[False, True], kind="stable")
        return best.drop_duplicates(["layer", "variable"]).reset_index(drop=True)
