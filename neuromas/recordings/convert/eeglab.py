"""EEGLAB's data sets: ``.set``, with the data inside or in an ``.fdt`` file beside it, in epochs or continuous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.recordings.convert.beside import follow
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.events import SLACK_S, Events, check_size, take_events
from neuromas.recordings.convert.locked import Binned, in_time_order, recording_of
from neuromas.recordings.convert.matlab import read_tree
from neuromas.recordings.convert.source import entry, name_of, need_variables
from neuromas.recordings.convert.tree import Struct, arrays_of
from neuromas.recordings.matrices import Matrix, of_lists
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import EeglabRecipe, EventRecipe

_ZERO = "epoch_zero"  # the time zero of an epoch, on its own clock
_NEEDED = ("data", "srate", "pnts", "trials", "nbchan")
_BOUNDARY = "boundary"
_PHYSICAL = "uV"  # by EEGLAB's convention; the file does not say it


@dataclass(frozen=True)
class _Set:
    """A data set.

    Attributes
    ----------
    samples : ndarray of shape (n_epochs * n_points, n_channels)
        Perhaps on disk.
    n_epochs, n_points : int
    rate : float
        Samples per second.
    start : float
        Time of the first sample, in an epoch that of its own clock.
    in_epochs : bool
    events : dict of str to ndarray of shape (n_events, …)
        Fields of the events.
    channels : dict of str to ndarray of shape (n_channels,)
        Fields that describe the channels.
    subject : str
    notes : list of str
    """

    samples: Any
    n_epochs: int
    n_points: int
    rate: float
    start: float
    in_epochs: bool
    events: dict[str, NDArray[Any]]
    channels: dict[str, NDArray[Any]]
    subject: str
    notes: list[str]


def convert_eeglab(path: Path, recipe: EeglabRecipe, fields: Mapping[str, Any]) -> Recording:
    """Activity of the channels in each epoch, or about the events of a continuous recording.

    Raises
    ------
    NotFound
        The ``.fdt`` file or a column does not exist.
    InvalidInput
        The file is no data set, its parts contradict each other, or a continuous one needs a window.
    """
    data = _read(path)
    table = _epochs(data) if data.in_epochs else _events(data)
    where = str(path)
    need_variables(recipe, list(table), where)
    timing = _timing(data, recipe, where)
    events = take_events(table if data.in_epochs else in_time_order(table, timing.align, where), timing, where)
    n_channels = data.samples.shape[1]
    check_size(len(events.rows), timing.n_steps, n_channels, where)
    activity, notes = _activity(data, events)
    labels = data.channels.get("labels", np.zeros(0, dtype=str)).astype(str)
    named = len(set(labels.tolist())) == n_channels and "" not in labels
    return recording_of(
        events,
        Binned(
            activity,
            labels.tolist() if named else [f"u{number}" for number in range(n_channels)],
            physical=_PHYSICAL,
            unit_metadata={name: values for name, values in data.channels.items() if name != "labels"},
            span=f"there are samples from {data.start:g} to {data.start + data.n_points / data.rate:g} s",
        ),
        timing,
        fields,
        defaults={"name": name_of(path)} | ({"system": data.subject} if data.subject else {}),
        where=where,
        path=path,
        notes=[*data.notes, *notes],
        libraries=("scipy", "h5py"),
        session_times=not data.in_epochs,
    )


def _timing(data: _Set, recipe: EeglabRecipe, where: str) -> EventRecipe:
    """The recipe with its window: by default the epochs of the file, a step per sample."""
    document = recipe.model_dump(exclude_unset=True)
    window = recipe.start_s, recipe.stop_s
    if not data.in_epochs and None in window:
        raise InvalidInput(
            f"{where}: the data set is continuous; start_s and stop_s say which time about each event to take",
            kind="invalid_recipe",
        )
    if (recipe.start_s is None) != (recipe.stop_s is None):
        raise InvalidInput(f"{where}: expected both start_s and stop_s, or none of them", kind="invalid_recipe")
    document.setdefault("align", _ZERO if data.in_epochs else recipe.align)
    if recipe.start_s is None:
        # the centre of a step is the time of its sample
        start = data.start - 0.5 / data.rate
        document |= {"start_s": start, "stop_s": start + data.n_points / data.rate}
    document.setdefault("bin_s", 1 / data.rate)
    return EventRecipe.parse(document, where)


# -------------------------------------------------------------------------------------------------------------- activity


def _activity(data: _Set, events: Events) -> tuple[NDArray[np.float32], list[str]]:
    """Means of the samples in each bin, shape (n_trials, n_steps, n_channels); NaN where there is none."""
    n_trials, n_edges = events.edges.shape
    activity = np.full((n_trials, n_edges - 1, data.samples.shape[1]), np.nan, dtype=np.float32)
    n_across = 0
    boundaries = _boundaries(data)
    for trial, (row, edges) in enumerate(zip(events.rows.tolist(), events.edges, strict=True)):
        if ((boundaries > edges[0]) & (boundaries < edges[-1])).any():
            n_across += 1
            continue
        cuts = np.ceil((edges - data.start - SLACK_S) * data.rate).astype(np.int64)
        # a trial that is cut off by the end of the data would have other bins than the others
        if cuts[0] < 0 or cuts[-1] > data.n_points:
            continue
        first = row * data.n_points if data.in_epochs else 0
        activity[trial] = _means(data.samples[first + cuts[0] : first + cuts[-1]], cuts - cuts[0])
    return activity, [f"left out: {n_across} trials across a boundary"] if n_across else []


def _means(samples: Any, cuts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of `samples`, shape (n_samples, n_channels), between `cuts`; NaN without samples."""
    if np.array_equal(cuts, np.arange(len(samples) + 1)):
        return np.asarray(samples, dtype=np.float64)
    sums = np.r_[np.zeros((1, samples.shape[1])), np.cumsum(np.asarray(samples, dtype=np.float64), axis=0)]
    with np.errstate(invalid="ignore"):
        return np.diff(sums[cuts], axis=0) / np.diff(cuts)[:, None]


def _boundaries(data: _Set) -> NDArray[np.float64]:
    """Times at which a continuous recording was cut, in seconds."""
    kinds = data.events.get("type")
    if data.in_epochs or kinds is None or kinds.dtype.kind != "U":
        return np.zeros(0)
    return (data.events["latency"][kinds == _BOUNDARY] - 1) / data.rate


# ---------------------------------------------------------------------------------------------------------------- tables


def _events(data: _Set) -> dict[str, Any]:
    """Events of a continuous recording, a row each; ``time`` is in seconds from the first sample."""
    if "latency" not in data.events:
        return {}
    return data.events | {"time": (data.events["latency"] - 1) / data.rate}


def _epochs(data: _Set) -> dict[str, Any]:
    """A row per epoch: fields of the event at its time zero, and lists of the fields of all its events as ``eventFIELD``.

    ``eventlatency`` is in seconds of the epoch's clock.
    """
    table: dict[str, Any] = {dims.TRIAL: np.arange(data.n_epochs), "epoch": np.arange(1, data.n_epochs + 1)}
    table[_ZERO] = np.zeros(data.n_epochs)
    if "latency" not in data.events:
        return table
    points = data.events["latency"] - 1
    of_event = data.events["epoch"] - 1 if "epoch" in data.events else np.floor(points / data.n_points)
    inside = np.isfinite(of_event) & np.isfinite(points) & (of_event >= 0) & (of_event < data.n_epochs)
    rows = np.flatnonzero(inside)
    rows = rows[np.lexsort((points[rows], of_event[rows]))]
    epoch = of_event[rows].astype(np.int64)
    seconds = (points[rows] - epoch * data.n_points) / data.rate + data.start
    ends = np.searchsorted(epoch, np.arange(data.n_epochs), side="right")
    at_zero = np.flatnonzero(np.abs(seconds) < 0.5 / data.rate)
    with_zero, first = np.unique(epoch[at_zero], return_index=True)
    for name, values in data.events.items():
        if name != "epoch":
            ordered = seconds if name == "latency" else values[rows]
            table[f"event{name}"] = of_lists(
                ordered.take if ordered.ndim == 1 else ordered.__getitem__, [ends], ordered.shape[1:]
            )
            if name != "latency" and values.ndim == 1:
                table[name] = _of_epochs(ordered[at_zero[first]], with_zero, data.n_epochs)
    return table


def _of_epochs(values: NDArray[Any], epochs: NDArray[np.int64], n_epochs: int) -> NDArray[Any]:
    """Values of some epochs; of the others, missing."""
    if len(epochs) == n_epochs:
        return values
    filled: NDArray[Any] = (
        np.full(n_epochs, "", values.dtype) if values.dtype.kind == "U" else np.full(n_epochs, np.nan)
    )
    filled[epochs] = values
    return filled


# ----------------------------------------------------------------------------------------------------------------- files


def _read(path: Path) -> _Set:
    tree = read_tree(path)
    eeg = tree.get("EEG", tree)
    values = eeg.element(0) if isinstance(eeg, Struct) and eeg.n_elements == 1 else eeg
    if not isinstance(values, Mapping) or not set(_NEEDED) <= set(values):
        missing = [name for name in _NEEDED if not isinstance(values, Mapping) or name not in values]
        raise InvalidInput(f"{path}: no data set of EEGLAB: it has no {', '.join(missing)}", kind="unreadable_source")
    n_channels, n_points, n_epochs = (int(_number(values, name, path)) for name in ("nbchan", "pnts", "trials"))
    rate, start = _number(values, "srate", path), _number(values, "xmin", path) if "xmin" in values else 0.0
    if min(n_channels, n_points, n_epochs) < 1 or not rate > 0:
        raise InvalidInput(
            f"{path}: expected channels, points, epochs and a rate above 0, got {n_channels}, {n_points}, "
            f"{n_epochs} and {rate:g}",
            kind="unreadable_source",
        )
    samples, notes = _samples(values["data"], path, n_channels, n_points * n_epochs)
    epochs = values.get("epoch")
    events, of_events = _fields(values.get("event"), None, path)
    channels, of_channels = _fields(values.get("chanlocs"), n_channels, path)
    unusable = [f"event.{name}" for name in of_events] + [f"chanlocs.{name}" for name in of_channels]
    in_epochs = n_epochs > 1 or (isinstance(epochs, Struct) and epochs.n_elements > 0)
    return _Set(
        samples=samples,
        n_epochs=n_epochs,
        n_points=n_points,
        rate=rate,
        # the clock of a continuous recording begins with its first sample
        start=start if in_epochs else 0.0,
        in_epochs=in_epochs,
        events=events,
        channels=channels,
        subject=_text(values.get("subject")),
        notes=[*notes, *([f"left out: {', '.join(unusable)}"] if unusable else [])],
    )


def _number(values: Mapping[str, Any], name: str, path: Path) -> float:
    value = values[name]
    if (
        not isinstance(value, np.ndarray)
        or value.size != 1
        or value.dtype.kind not in "biuf"
        or not np.isfinite(value).all()
    ):
        raise InvalidInput(f"{path}: EEG.{name}: expected a number", kind="unreadable_source")
    return float(value.item())


def _text(value: Any) -> str:
    return str(value.item()) if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind == "U" else ""


def _fields(value: Any, n_elements: int | None, path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Fields of a struct array with one entry, or several, per element; and the names of the others."""
    if not isinstance(value, Struct) or value.n_elements == 0:
        return {}, []
    source = arrays_of({"": value}, str(path), vectors=True)
    arrays = {name.removeprefix("."): _per_element(array, value.n_elements) for name, array in source.arrays.items()}
    if n_elements is not None and value.n_elements != n_elements:
        return {}, sorted(arrays)
    kept = {
        name: array
        for name, array in arrays.items()
        if len(array) == value.n_elements and (n_elements is None or array.ndim == 1)
    }
    return kept, sorted({*arrays, *(name.removeprefix(".") for name in source.unusable)} - set(kept))


def _per_element(array: NDArray[Any], n_elements: int) -> NDArray[Any]:
    """An array with elements first; that of a single element has no axis of elements."""
    if n_elements == 1:
        return array.reshape(1) if array.size == 1 else array.ravel()[None]
    return array


def _samples(stored: Any, path: Path, n_channels: int, n_samples: int) -> tuple[Any, list[str]]:
    """Samples of shape (n_samples, n_channels), and a note on the file that holds them."""
    if isinstance(stored, np.ndarray) and stored.dtype.kind in "biuf":
        if stored.size != n_channels * n_samples:
            raise InvalidInput(
                f"{path}: EEG.data is of shape {stored.shape}, but nbchan, pnts and trials make {n_channels} channels of "
                f"{n_samples} samples",
                kind="shape_mismatch",
            )
        return stored.reshape(n_channels, n_samples, order="F").T, []
    name = _text(stored)
    if not name:
        raise InvalidInput(f"{path}: EEG.data: expected numbers or the name of a file", kind="unreadable_source")
    beside = _beside(path, name)
    expected = 4 * n_channels * n_samples
    if beside.stat().st_size != expected:
        raise InvalidInput(
            f"{beside}: expected {expected:,} bytes, {n_channels} channels of {n_samples} samples of 4 bytes, got "
            f"{beside.stat().st_size:,}",
            kind="shape_mismatch",
        )
    by_channel = beside.suffix.lower() == ".dat"
    shape = (n_channels, n_samples) if by_channel else (n_samples, n_channels)
    samples: Any = np.memmap(beside, dtype="<f4", mode="r", shape=shape)
    return samples.T if by_channel else samples, [f"data in {beside.name} (sha256 {sha256_file(beside)})"]


def _beside(path: Path, name: str) -> Path:
    """The file of the data: EEGLAB looks beside the set, by the name in it, then by the set's own name."""
    last = name.replace("\\", "/").split("/")[-1]
    candidates = [path.with_name(last)] if last not in ("", ".", "..") else []
    candidates += [path.with_suffix(ending) for ending in (".fdt", ".dat")]
    for candidate in candidates:
        if candidate.is_file() and candidate.suffix.lower() in (".fdt", ".dat"):
            return follow(candidate, path, (path.parent.resolve(), path.resolve().parent))
    raise NotFound(f"{path}: no file {last!r} beside it, which holds its data", kind="unknown_file")


def contents_eeglab(path: Path) -> list[tuple[str, str]]:
    """The data, and the columns that a recipe can use."""
    data = _read(path)
    n_channels = data.samples.shape[1]
    stop = data.start + (data.n_points - 1) / data.rate
    what = f"{data.n_epochs} epochs" if data.in_epochs else "continuous"
    listed = [("data", f"{what}, {n_channels} channels, {data.rate:g} Hz, {data.start:g} to {stop:g} s")]
    for name, values in (_epochs(data) if data.in_epochs else _events(data)).items():
        if isinstance(values, Matrix):
            listed.append((name, f"{values.described}: an expression names one entry per row, e.g. {name}[:, 0]"))
        else:
            listed.append((name, entry(values)))
    return listed + [(f"chanlocs.{name}", entry(values)) for name, values in data.channels.items()]


CONVERTERS: tuple[Converter, ...] = (Converter("eeglab", (".set",), EeglabRecipe, convert_eeglab, contents_eeglab),)
