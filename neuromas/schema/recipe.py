"""Recipes: what to read from a foreign file, and how."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from neuromas.schema.document import Document

_MOST_BINS = 10**15  # far beyond what memory holds, but a whole number
_LONGEST_S = 1e12  # seconds: 30,000 years


class VariableRecipe(Document):
    """How a causal variable is computed from the columns of a table."""

    model_config = ConfigDict(allow_inf_nan=False)

    expression: str = Field(min_length=1)
    """Name of a column, or an expression of columns. ``time`` is the centre of a step in seconds and ``event_time`` the time
    zero of its trial, where the source has times."""
    type: Literal["categorical", "integer", "real"] | None = None
    """Type of the variable. By default, text and booleans are categorical, whole numbers integer, other numbers real."""
    meanings: dict[str, str] | None = None
    """Label of each value of a coded column, e.g. ``{"0": "foil", "1": "target"}``. The variable is then categorical."""
    bins: tuple[float, ...] | None = Field(default=None, min_length=2)
    """Edges that divide a continuous variable into categories. A category includes its lower edge, the last one also its upper
    edge."""
    description: str = ""
    """What the variable means, in words."""
    units: str = "1"
    """Physical unit of the values."""

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if self.bins is not None and any(high <= low for low, high in itertools.pairwise(self.bins)):
            raise ValueError(f"bins: expected rising edges, got {list(self.bins)}")
        if self.bins is not None and self.meanings is not None:
            raise ValueError("expected either bins or meanings, got both")
        if self.meanings is not None and self.type not in (None, "categorical"):
            raise ValueError(f"meanings make a variable categorical, but type is {self.type!r}")
        return self


class Recipe(Document):
    """What to read from a foreign file: base of the recipes of all formats."""

    model_config = ConfigDict(allow_inf_nan=False)

    format_version: Literal[1] = 1
    """Version of the format of recipes."""
    variables: dict[str, VariableRecipe] = Field(default_factory=dict)
    """Causal variables by name. A text instead of an object is an expression."""

    @field_validator("variables", mode="before")
    @classmethod
    def _expand(cls, variables: object) -> object:
        if not isinstance(variables, Mapping):
            return variables
        return {
            name: {"expression": variable} if isinstance(variable, str) else variable
            for name, variable in variables.items()
        }


class EventRecipe(Recipe):
    """Activity about events: each row of a table of events is a trial, and its steps are bins of time."""

    align: str = "start_time"
    """Column, or expression of columns, with the time zero of each trial in seconds."""
    where: str | None = None
    """Expression of columns. Only rows for which it is true are trials."""
    start_s: float
    """Start of the first bin in seconds, relative to time zero."""
    stop_s: float
    """End of the last bin in seconds, relative to time zero."""
    bin_s: float | None = Field(default=None, gt=0)
    """Width of a bin in seconds. By default, the whole window is one bin."""
    activity: Literal["rate", "count"] = "rate"
    """Whether spikes become rates in Hz or counts per bin."""

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        length = self.stop_s - self.start_s
        if not math.isfinite(length):
            raise ValueError(f"a window from {self.start_s:g} to {self.stop_s:g} s is too long")
        if length <= 0:
            raise ValueError(f"expected start_s < stop_s, got {self.start_s:g} and {self.stop_s:g}")
        if self.bin_s is not None:
            if self.bin_s > length * (1 + 1e-9):
                raise ValueError(f"bin_s of {self.bin_s:g} s is wider than the window of {length:g} s")
            if not length / self.bin_s <= _MOST_BINS:
                raise ValueError(f"a window of {length:g} s holds more than {_MOST_BINS:,} bins of {self.bin_s:g} s")
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
    """What to read from an NWB file."""

    table: str = "trials"
    """Name of the interval table whose rows are the trials."""
    source: str = "units"
    """``units`` for spike times, or the path of a time series in the file, e.g. ``acquisition/ElectricalSeries``. Samples of a
    time series are averaged in each bin."""
    units_where: str | None = None
    """Expression of the columns that describe the units, or the channels of a series. Only units for which it is true are
    read."""
    unit_columns: tuple[str, ...] | None = None
    """Columns to keep as metadata of the units. By default, all columns with one number or text per unit."""
    coverage: Literal["auto", "obs_intervals", "spikes", "session"] = "auto"
    """When a unit counts as recorded: in its ``obs_intervals``, from its first to its last spike (``spikes``), or in the whole
    ``session``. ``auto`` means ``obs_intervals`` if the file has them, else ``spikes``; other times are missing, never zero."""


class SpikesRecipe(EventRecipe):
    """What to read from a table of spike times and a table of events, each as text, CSV or NPZ."""

    align: str = "time"
    """Column, or expression of columns, with the time zero of each trial in seconds."""
    times: str | None = None
    """Column, or expression of columns, with spike times in seconds. By default, the first column."""
    unit: str | None = None
    """Column that names the unit of each spike. By default, the file holds one unit."""
    events: str | None = None
    """Name of a file beside the spikes with one row per event. By default, the events are columns of the same file."""
    event_columns: str | None = None
    """Regular expression for the names of columns that each hold the times of one kind of event. Its named groups become columns
    of the table of events, beside ``time``."""
    coverage: Literal["spikes", "session"] = "spikes"
    """When a unit counts as recorded: from its first to its last spike (``spikes``), or from the first to the last spike of all
    units (``session``). Trials outside are missing, never zero."""


class ArraysRecipe(Recipe):
    """What to read from a file of arrays or a table: npz, mat, csv, parquet, netCDF, zarr, AnnData."""

    activity: str | None = None
    """Name of the array with the activity, of shape (n_trials, n_steps, n_units) or (n_samples, n_units). By default
    ``activity``, for AnnData ``X``."""
    axes: tuple[Literal["trial", "step", "unit", "sample"], ...] | None = None
    """What each axis of the activity is, in the file's order. By default trial, step, unit or sample, unit, by their number."""
    unit_columns: str | None = None
    """Regular expression for the names of the columns of a table that are units. The other columns are coordinates."""
    trial: str | None = None
    """Array or column with the numbers of the trials. By default ``trial``, if the file has it."""
    step: str | None = None
    """Array or column with the numbers of the steps. By default ``step``, if the file has it."""
    unit: str | None = None
    """Array with the names of the units. By default ``unit``, if the file has it."""
    where: str | None = None
    """Expression of columns. Only samples for which it is true are taken."""
    start_s: float | None = Field(default=None, ge=-_LONGEST_S, le=_LONGEST_S)
    """Start of the first step in seconds, if steps are bins of time."""
    step_s: float | None = Field(default=None, gt=0, le=_LONGEST_S)
    """Length of a step in seconds, if steps are bins of time."""
