"""Recipes: what to read from a foreign file, and how."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Literal, Self, get_args

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
    file_name: str | None = None
    """Regular expression for the name of the source. Its named groups can be used in expressions as columns can:
    ``(?P<mouse>\\w+)_day(?P<day>\\d+)\\.csv``."""
    behaviour: str | None = None
    """Variable that holds what the animal, person or network itself did, such as its choice. A twin learns to predict it."""
    steps_per_bin: int | None = Field(default=None, ge=2)
    """Let this many steps become one, such as 50 steps of 1 ms."""
    bin_by: Literal["mean", "sum"] = "mean"
    """Activity of such a bin: the mean of its steps, for rates, or their sum, for counts."""

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


class EeglabRecipe(Recipe):
    """What to read from an EEGLAB data set: its epochs, or activity about the events of a continuous one."""

    align: str = "time"
    """Column, or expression of columns, with the time zero of each trial in seconds. By default the time of an event, or the time
    zero of an epoch."""
    where: str | None = None
    """Expression of columns. Only events or epochs for which it is true are trials."""
    start_s: float | None = None
    """Start of the first bin in seconds, relative to time zero. By default, the start of an epoch."""
    stop_s: float | None = None
    """End of the last bin in seconds, relative to time zero. By default, the end of an epoch."""
    bin_s: float | None = Field(default=None, gt=0)
    """Width of a bin in seconds, in which samples are averaged. By default, one sample."""


Interval = tuple[float, float]
"""Start and end in seconds."""


class UnitsRecipe(EventRecipe):
    """Activity about events, of units that are described by columns of a table."""

    units_where: str | None = None
    """Expression of the columns that describe the units, or the channels of a series. Only units for which it is true are
    read. It may also use their activity in the selected trials: ``rate > 0.5``, ``not silent``."""
    unit_columns: tuple[str, ...] | None = None
    """Columns to keep as metadata of the units. By default, all columns with one number or text per unit."""


class UnitCoverage(Document):
    """From when to when each unit was recorded, from the columns that describe the units."""

    start: str = Field(min_length=1)
    """Column, or expression of columns, with the start in seconds."""
    stop: str = Field(min_length=1)
    """Column, or expression of columns, with the end in seconds."""


SpikesCovered = Literal["spikes", "session", "throughout"]
NwbCovered = Literal["auto", "obs_intervals", "spikes", "session", "throughout"]
SupportCovered = Literal["time_support", "session", "throughout"]


def _coverage(coverage: object, words: tuple[str, ...]) -> object:
    """One of `words`, or intervals; a single interval may be written without its own brackets."""
    if isinstance(coverage, Mapping):
        problems = UnitCoverage.problems(coverage)
        if problems:
            raise ValueError("; ".join(problems))
        return UnitCoverage.model_validate(coverage)
    if isinstance(coverage, UnitCoverage) or coverage in words:
        return coverage
    listed = coverage if isinstance(coverage, (list, tuple)) else ()
    pairs = [listed] if all(_is_number(edge) for edge in listed) else list(listed)
    for pair in pairs:
        ends = pair if isinstance(pair, (list, tuple)) and all(_is_number(end) for end in pair) else ()
        if len(ends) != 2 or not ends[0] < ends[1]:
            named = ", ".join(repr(word) for word in words)
            raise ValueError(
                f"expected {named}, [start, stop] in seconds with start < stop, a list of such intervals, or columns of "
                f'the units ({{"start": …, "stop": …}}), got {coverage!r}'
            )
    return tuple((float(start), float(stop)) for start, stop in pairs)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


class NwbRecipe(UnitsRecipe):
    """What to read from an NWB file."""

    table: str = "trials"
    """Name of the interval table whose rows are the trials."""
    source: str = "units"
    """``units`` for spike times, or the path of a time series in the file, e.g. ``acquisition/ElectricalSeries``. Samples of a
    time series are averaged in each bin."""
    coverage: NwbCovered | Interval | tuple[Interval, ...] | UnitCoverage = "auto"
    """When units count as recorded: ``[start, stop]`` in seconds, or a list of such intervals; from and to columns of the table
    of units, ``{"start": "first_s", "stop": "last_s"}``; in the unit's ``obs_intervals``; from its first to its last spike
    (``spikes``); from the first to the last spike of all units (``session``); at all times (``throughout``). ``auto`` means
    ``obs_intervals`` if the file has them, else ``spikes``. Other times are missing, never zero. Of a time series, bins
    without samples are always missing."""
    invalid_times: Literal["missing", "keep"] = "missing"
    """Whether bins that touch the file's ``invalid_times`` are missing, as if not recorded, or are kept."""

    @field_validator("coverage", mode="before")
    @classmethod
    def _check_coverage(cls, coverage: object) -> object:
        return _coverage(coverage, get_args(NwbCovered))


class PynappleRecipe(EventRecipe):
    """What to make of an object of pynapple."""

    coverage: SupportCovered | Interval | tuple[Interval, ...] | UnitCoverage = "time_support"
    """When units count as recorded: ``[start, stop]`` in seconds, or a list of such intervals; from and to columns of the
    metadata, ``{"start": "first_s", "stop": "last_s"}``; in the object's time support; from its start to its end
    (``session``); at all times (``throughout``). A group of spikes that was made without a time support has one from its
    first to its last spike."""

    @field_validator("coverage", mode="before")
    @classmethod
    def _check_coverage(cls, coverage: object) -> object:
        return _coverage(coverage, get_args(SupportCovered))


class SessionRecipe(UnitsRecipe):
    """Activity about events, from files with a table of events and a table of units beside them."""

    align: str = "time"
    """Column, or expression of columns, with the time zero of each trial in seconds."""
    events: str | None = None
    """Name of a file beside the source, or in it if the source is a folder, with one row per event. By default, the events are
    columns of the source."""
    event_columns: str | None = None
    """Regular expression for the names of columns that each hold the times of one kind of event. Its named groups become columns
    of the table of events, beside ``time``."""
    units: str | None = None
    """Name of a file beside the source, or in it if the source is a folder, with one row per unit. Its columns become metadata
    of the units, and ``units_where`` may use them."""
    units_on: str | None = None
    """Column of that file with the names of the units. By default ``unit``, ``cluster_id``, ``id`` or ``roi``, the first that
    exists."""


class SpikesRecipe(SessionRecipe):
    """What to read from a table of spike times and a table of events, each as text, CSV or NPZ."""

    times: str | None = None
    """Column, or expression of columns, with spike times in seconds. By default, the first column."""
    unit: str | None = None
    """Column that names the unit of each spike. By default, the file holds one unit."""
    column_names: tuple[str, ...] | None = None
    """Names of the columns of a table of spikes in text without a header."""
    axes: tuple[Literal["trial", "unit"], ...] | None = None
    """What each axis of a cell array of spike times in a .mat file is. By default unit, or unit, trial. Times are then those of
    the session, or with trials those of the trial's own clock, whose zero is ``align`` (by default 0)."""
    each: str | None = None
    """Struct array or cell array of a .mat file, of which each element becomes a recording of its own. The recipe then names the
    fields of an element, and what else the file holds."""
    trial: str | None = None
    """Cell array of a .mat file with, for each unit, the number of the trial of each spike, from 1. Times are then those of the
    trial's own clock, as in ``axes``. In FieldTrip's struct of spikes, which ``times`` may name as a whole, it is ``trial``."""
    trial_time: str | None = None
    """Array of shape (n_trials, 2) with start and end of each trial on its own clock. Bins beyond are missing. In a struct of
    spikes of FieldTrip it is ``trialtime``."""
    sample_rate: float | None = Field(default=None, gt=0)
    """Ticks per second, where the times of a .mat file count ticks, such as FieldTrip's ``timestamp``."""
    coverage: SpikesCovered | Interval | tuple[Interval, ...] | UnitCoverage = "spikes"
    """When units count as recorded: ``[start, stop]`` in seconds, or a list of such intervals; from and to columns of the table
    of units, ``{"start": "first_s", "stop": "last_s"}``; from a unit's first to its last spike (``spikes``); from the first
    to the last spike of all units (``session``); at all times (``throughout``). Other times are missing, never zero."""

    @field_validator("coverage", mode="before")
    @classmethod
    def _check_coverage(cls, coverage: object) -> object:
        return _coverage(coverage, get_args(SpikesCovered))


class PhyRecipe(SpikesRecipe):
    """What to read from a folder that Kilosort, phy or SpikeInterface wrote: ``spike_times.npy``, ``spike_clusters.npy``."""

    times: str | None = None
    """Expression of the folder's arrays with spike times in seconds. By default ``spike_times`` divided by the sample rate."""
    unit: str | None = None
    """Array that names the unit of each spike. By default ``spike_clusters``, else ``spike_templates``."""
    sample_rate: float | None = Field(default=None, gt=0)
    """Samples per second. By default, ``params.py`` says it; that file is read, never run."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.times is not None and self.sample_rate is not None:
            raise ValueError("expected either times, in seconds, or sample_rate; got both")
        return self


class Suite2pRecipe(SessionRecipe):
    """What to read from a folder of suite2p, or of one of its planes: ``F.npy``, ``iscell.npy``."""

    plane: str | None = None
    """Name of the plane in the folder, e.g. ``plane1``. By default, the folder is a plane, or holds only one."""
    source: Literal["F", "Fneu", "spks"] = "F"
    """Fluorescence of the regions of interest (``F``) or around them (``Fneu``), or deconvolved activity (``spks``). Frames are
    averaged in each bin."""
    neuropil: float | None = Field(default=None, ge=0)
    """Share of ``Fneu`` that is subtracted from ``F``; suite2p itself uses 0.7. By default nothing is."""
    fs: float | None = Field(default=None, gt=0)
    """Frames per second of this plane. suite2p keeps it in ``ops.npy``, a pickle, which is not opened."""
    first_frame_s: float = 0.0
    """Time of the first frame in seconds, on the clock of the events."""
    frame_times: str | None = None
    """Instead of ``fs``: name of a file in the folder or beside it (``.npy``, or a table, of which the first column counts) with
    the time of each frame in seconds."""

    @model_validator(mode="after")
    def _check_fluorescence(self) -> Self:
        if self.neuropil is not None and self.source != "F":
            raise ValueError(f"neuropil is subtracted from F, but source is {self.source!r}")
        if self.activity == "count":
            raise ValueError("activity 'count' is for spikes; frames are averaged")
        if self.frame_times is not None and self.model_fields_set & {"fs", "first_frame_s"}:
            raise ValueError("expected either frame_times, or fs with first_frame_s; got both")
        return self


class ArraysRecipe(Recipe):
    """What to read from a file of arrays or a table: npy, npz, mat, safetensors, pt, csv, xlsx, parquet, arrow, netCDF, zarr,
    AnnData."""

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
    each: str | None = None
    """Struct array or cell array of a .mat file, of which each element becomes a recording of its own. The recipe then names the
    fields of an element, and what else the file holds."""
    beside: tuple[str, ...] = ()
    """Names of files beside the source with further arrays: a ``.npy`` counts by its name, of others the arrays or columns."""
    sheet: str | None = None
    """Name of the sheet of a workbook. By default the first one."""
    column_names: tuple[str, ...] | None = None
    """Names of the columns of a table of text without a header."""
