"""Recipes: what is taken from a foreign file, and how."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from neuromas.schema.document import Document


class VariableRecipe(Document):
    """How a causal variable comes from the columns of a table."""

    model_config = ConfigDict(allow_inf_nan=False)

    expression: str = Field(min_length=1)
    """A column, or what `neuromas.recordings.expression` computes from columns. ``time`` is the centre of a bin in seconds, so
    that a variable may differ between the steps of a trial; ``event_time`` is the trial's time zero, where there is one."""
    type: Literal["categorical", "integer", "real"] | None = None
    """By default as the values are: text and booleans categorical, whole numbers integer, others real."""
    meanings: dict[str, str] | None = None
    """Value as text → how it reads, for coded columns, e.g. ``{"0": "foil", "1": "target"}``; then categorical."""
    bins: tuple[float, ...] | None = Field(default=None, min_length=2)
    """Edges that cut a continuous variable into categories; each holds its lower edge, the last one its upper edge too."""
    description: str = ""
    units: str = "1"

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if self.bins is not None and any(high <= low for low, high in itertools.pairwise(self.bins)):
            raise ValueError(f"bins: expected rising edges, got {list(self.bins)}")
        if self.bins is not None and self.meanings is not None:
            raise ValueError("expected bins or meanings, got both")
        if self.meanings is not None and self.type not in (None, "categorical"):
            raise ValueError(f"meanings make a variable categorical, but type is {self.type!r}")
        return self


class Recipe(Document):
    """What is taken from a foreign file: base of every converter's own recipe."""

    model_config = ConfigDict(allow_inf_nan=False)

    format_version: Literal[1] = 1
    variables: dict[str, VariableRecipe] = Field(default_factory=dict)
    """Causal variables by name; text alone is an expression."""

    @field_validator("variables", mode="before")
    @classmethod
    def _expand(cls, variables: object) -> object:
        if not isinstance(variables, Mapping):
            return variables
        return {name: {"expression": one} if isinstance(one, str) else one for name, one in variables.items()}


class EventRecipe(Recipe):
    """Activity about events: a trial is a row of a table of events, its steps are bins of time."""

    align: str = "start_time"
    """Column, or expression of columns, that holds each trial's time zero in seconds."""
    where: str | None = None
    """Expression of columns: only rows in which it is true are trials."""
    start_s: float
    """Left edge of the first bin, relative to the event."""
    stop_s: float
    """Right edge of the last bin."""
    bin_s: float | None = Field(default=None, gt=0)
    """Width of a bin; null: one bin, the whole window."""
    activity: Literal["rate", "count"] = "rate"
    """Of spikes: in Hz, or how many in a bin."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        length = self.stop_s - self.start_s
        if length <= 0:
            raise ValueError(f"expected start_s < stop_s, got {self.start_s:g} and {self.stop_s:g}")
        if self.bin_s is not None:
            if self.bin_s > length * (1 + 1e-9):
                raise ValueError(f"bin_s of {self.bin_s:g} s is wider than the window of {length:g} s")
            if abs(length / self.bin_s - round(length / self.bin_s)) > 1e-6:
                raise ValueError(f"a window of {length:g} s does not hold a whole number of bins of {self.bin_s:g} s")
        return self

    @property
    def n_steps(self) -> int:
        """Bins in the window."""
        return 1 if self.bin_s is None else round((self.stop_s - self.start_s) / self.bin_s)

    @property
    def width_s(self) -> float:
        """Width of a bin in seconds."""
        return self.stop_s - self.start_s if self.bin_s is None else self.bin_s


class NwbRecipe(EventRecipe):
    """What is taken from an NWB file."""

    table: str = "trials"
    """Interval table whose rows are the trials."""
    source: str = "units"
    """``units`` for spike times, or the path of a time series in the file, e.g. ``processing/ophys/DfOverF/RoiResponseSeries``
    or ``acquisition/ElectricalSeries``: its samples are averaged in each bin."""
    units_where: str | None = None
    """Expression of the columns of the units table (or of the series' channels): only these are taken."""
    unit_columns: tuple[str, ...] | None = None
    """Columns kept as metadata of the units; null: all that hold one number or text per unit."""
    coverage: Literal["auto", "obs_intervals", "spikes", "session"] = "auto"
    """How it is known when a unit was recorded: by ``obs_intervals``, from its first spike to its last, or throughout.
    ``auto`` takes ``obs_intervals`` where the file has them, else spikes. Trials outside are missing, never zero."""


class SpikesRecipe(EventRecipe):
    """What is taken from a table of spike times and one of events, each text, CSV or NPZ."""

    align: str = "time"
    times: str | None = None
    """Column, or expression of columns, of spike times in seconds; null: the first."""
    unit: str | None = None
    """Column (or array) that tells which unit fired; null: one unit, the file's."""
    events: str | None = None
    """File of events, a row each, beside the spikes; null: columns of the same file."""
    event_columns: str | None = None
    """Wide form: each column holds the times of one kind of event. A regular expression that matches the whole name of such a
    column; its named groups are the columns of the table of events, beside ``time``."""
    coverage: Literal["spikes", "session"] = "spikes"
    """How it is known when a unit was recorded: from its first spike to its last, or from the first spike of all units to the
    last. Trials outside are missing, never zero."""


class ArraysRecipe(Recipe):
    """What is taken from a file of arrays or a table: npz, mat, csv, parquet, netCDF, AnnData."""

    activity: str | None = None
    """Name of the array of shape (n_trials, n_steps, n_units) or (n_samples, n_units); null: ``activity`` (AnnData: X)."""
    axes: tuple[Literal["trial", "step", "unit", "sample"], ...] | None = None
    """What the axes of that array are, in its own order; null: as above."""
    unit_columns: str | None = None
    """Tables: a regular expression for the columns that are units; the others are coordinates."""
    trial: str | None = None
    """Array or column that numbers the trials."""
    step: str | None = None
    unit: str | None = None
    """Array of the units' names."""
    start_s: float | None = None
    """Left edge of the first step, where steps are bins of time."""
    step_s: float | None = Field(default=None, gt=0)
