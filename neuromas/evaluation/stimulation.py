"""Stimulation plans: the change of each unit that would make a recorded system hold other values.

An alignment gives the latent that a target should have had after an interchange. For a brain that is a prediction and a
proposal: the change of each unit's activity that an experiment would have to produce, within the range that was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims, seeds
from neuromas.align.alignment import Alignment, Subspace
from neuromas.align.pairs import Direction, paired_columns
from neuromas.align.prepare import warnings_of
from neuromas.align.side import Side
from neuromas.errors import InvalidInput, NoMatch, NotFound, suggestion
from neuromas.evaluation.after import NAMES, predicted_after
from neuromas.files import write_atomically
from neuromas.index.choose import near
from neuromas.provenance import now, versions
from neuromas.recordings.annotate import STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS
from neuromas.recordings.export import check_ending, readable
from neuromas.schema.recording import VariableSpec
from neuromas.text import csv_table

ENDINGS = (".nc", ".csv")
_DATA = ("current", "wanted", "planned", "change", "clipped", *NAMES)


def stimulation_plan(
    alignment: Alignment,
    source: Side,
    target: Side,
    wanted: Mapping[str, Any],
    *,
    subspace: str | None = None,
    part: Literal["train", "validation", "test"] = "test",
    n_samples: int | None = None,
    n_sources: int = 1,
    n_after: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """For every recorded sample of a target: its latent, the latent it should have instead, and the change of each unit.

    Parameters
    ----------
    alignment : Alignment
        It joins both sides.
    source, target : Side
        The sides of the fit. Recorded latents of the source donate the values.
    wanted : mapping of str to value
        Variable of the target (or shared name) → the value that it should hold, a meaning or a number. Other variables of the
        subspace keep the target's value.
    subspace : str, optional
        The subspace to interchange. Needed if the alignment has several.
    part : {"train", "validation", "test"}
        Samples of this part. The fit did not see those of ``test``.
    n_samples : int, optional
        Draw this number of samples at random; all by default.
    n_sources : int
        Source latents that are drawn for each sample. The plan is the mean over them.
    n_after : int, optional
        Steps after the stimulation for which the target's twin predicts activity and answers, with and without it.
    seed : int

    Returns
    -------
    xarray.Dataset
        Dims sample × unit, in the recording's physical units, also if the recording was standardised. ``current``: recorded
        activity. ``wanted``: activity after the interchange. ``planned``: the same, within each unit's recorded range.
        ``change``: planned − current. ``clipped``: whether wanted and planned differ. Coordinates: trial, step, the values that
        the sample holds and should hold (``wanted_NAME``); ``recorded_min`` and ``recorded_max`` of each unit over all eligible
        samples. Attributes name what the plan was made from.

    Raises
    ------
    NotFound
        A side, variable or subspace does not exist.
    InvalidInput
        The variable cannot have the value or is not in the subspace; or the alignment has several subspaces and none is named.
    NoMatch
        The source was never recorded with the wanted values.

    Notes
    -----
    Nothing is run. The plan names a goal for the activity. How stimulation reaches it is up to the experiment.
    """
    _check_request(alignment, source, target, part, n_samples, n_sources)
    chosen = _chosen_subspace(alignment, subspace)
    columns, source_columns = paired_columns(Direction(source, target), chosen)
    codes = _wanted_codes(target, wanted, columns)
    generator = seeds.generator(seed)
    samples, values = _drawn_samples(target, part, codes, n_samples, generator)
    specs = [target.recording.spec(target.variables[column]) for column in columns]
    donors = _donors(source, part, values[:, columns], source_columns, specs, n_sources, generator, chosen.name)
    activity = _Activity.after_interchange(alignment, source, target, samples, donors, chosen.name)
    positions = target.recording.unit_positions(target.units)
    planned = activity.planned
    activity = activity.physical(target, positions)
    predicted = {} if n_after is None else predicted_after(target, samples, planned, n_after, activity.units)
    warnings = warnings_of([source, target])
    return xr.Dataset(
        activity.variables() | predicted,
        coords=_coordinates(target, samples, values, codes, positions) | activity.bounds(),
        attrs={
            "title": f"stimulation plan for {target.name}, values donated by {source.name}",
            "source": source.name,
            "target": target.name,
            "recording": target.original.name,
            "recording_sha256": target.original.content_sha256,
            "source_recording": source.original.name,
            "source_recording_sha256": source.original.content_sha256,
            "alignment_sha256": alignment.sha256(),
            "subspace": chosen.name,
            "seed": seed,
            "n_sources": n_sources,
            "created": now(),
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
            **({"warnings": "; ".join(warnings)} if warnings else {}),
        },
    )


def _check_request(
    alignment: Alignment, source: Side, target: Side, part: str, n_samples: int | None, n_sources: int
) -> None:
    if part not in target.candidates:
        raise InvalidInput(
            f"plan: expected part {', '.join(target.candidates)}, got {part!r}{suggestion(part, target.candidates)}",
            kind="unknown_option",
        )
    if n_sources < 1 or (n_samples is not None and n_samples < 1):
        raise InvalidInput(
            f"plan: expected at least 1 sample and 1 source, got n_samples={n_samples} and n_sources={n_sources}",
            kind="invalid_option",
        )
    clashing = [name for name in target.variables if name in _DATA]
    if clashing:
        raise InvalidInput(
            f"plan for {target.name!r}: the plan itself has a variable {clashing[0]!r}; rename the recording's (mapping=)",
            kind="invalid_name",
        )
    for side in (source, target):
        if side.name not in alignment.maps:
            raise NotFound(f"the alignment joins {', '.join(alignment.maps)}, not {side.name!r}", kind="unknown_system")


def _chosen_subspace(alignment: Alignment, name: str | None) -> Subspace:
    if name is not None:
        return alignment.subspace(name)
    if len(alignment.subspaces) > 1:
        names = ", ".join(subspace.name for subspace in alignment.subspaces)
        raise InvalidInput(f"the alignment has several subspaces; name one of {names}", kind="missing_subspace")
    return alignment.subspaces[0]


def _wanted_codes(target: Side, wanted: Mapping[str, Any], columns: list[int]) -> dict[int, float]:
    """Column of the target's values → the code that it should hold."""
    if not wanted:
        raise InvalidInput(
            f"plan for {target.name!r}: no value is wanted; its variables are {', '.join(target.variables)}",
            kind="invalid_option",
        )
    codes, problems = {}, []
    for name, value in wanted.items():
        (column,) = target.columns([name])
        spec = target.recording.spec(target.variables[column])
        if column not in columns:
            inside = ", ".join(target.variables[each] for each in columns)
            raise InvalidInput(
                f"plan for {target.name!r}: variable {name!r} is not in the subspace, which holds {inside}",
                kind="outside_subspace",
            )
        try:
            codes[column] = spec.code(value)
        except KeyError:
            labels = [spec.label(code) for code in np.unique(target.recording.dataset[spec.name].values)]
            problems.append(
                f"variable {name!r} has no value {value!r}; recorded are {', '.join(labels)}{suggestion(value, labels)}"
            )
    if problems:
        raise InvalidInput(f"plan for {target.name!r}: {'; '.join(problems)}", kind="invalid_value")
    return codes


def _drawn_samples(
    target: Side, part: str, codes: Mapping[int, float], n_samples: int | None, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Samples of the target (n_samples,), and the values that they should hold (n_samples, n_variables)."""
    candidates = target.candidates[part]
    drawn = np.arange(len(candidates.samples))
    if n_samples is not None and n_samples < len(drawn):
        drawn = np.sort(generator.choice(drawn, n_samples, replace=False))
    values = candidates.values[drawn].copy()
    for column, code in codes.items():
        values[:, column] = code
    return candidates.samples[drawn], values


def _donors(
    source: Side,
    part: str,
    wanted: NDArray[np.float64],
    columns: list[int],
    specs: Sequence[VariableSpec],
    n_sources: int,
    generator: np.random.Generator,
    subspace: str,
) -> NDArray[np.int64]:
    """Samples of the source that hold each row of `wanted`, values of the target's `specs`; shape (n_samples, n_sources)."""
    candidates = source.candidates[part]
    held = candidates.values[:, columns]
    tolerance = source.indexes[part].tolerance
    widths = np.array([tolerance.get(source.variables[column], 0.0) for column in columns])
    donors = np.empty((len(wanted), n_sources), dtype=np.int64)
    combinations, group = np.unique(wanted, axis=0, return_inverse=True)
    for number, row in enumerate(combinations):
        matching = candidates.samples[near(held, row, widths)]
        if not len(matching):
            values = ", ".join(
                f"{source.variables[column]}={spec.label(code)}"
                for column, spec, code in zip(columns, specs, row.tolist(), strict=True)
            )
            raise NoMatch(
                f"plan: source {source.name!r} was never recorded with {values} (subspace {subspace!r}, {part} part)"
            )
        members = group.reshape(-1) == number
        donors[members] = generator.choice(matching, (int(members.sum()), n_sources))
    return donors


@dataclass(frozen=True)
class _Activity:
    """Activity of a target's samples before and after the interchange.

    Attributes
    ----------
    current, wanted, planned : ndarray of float64, shape (n_samples, n_units)
    low, high : ndarray of float64, shape (n_units,)
        Each unit's recorded range.
    clipped : ndarray of bool, shape (n_samples, n_units)
    units : str
        Units of the activity.
    """

    current: NDArray[np.float64]
    wanted: NDArray[np.float64]
    planned: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clipped: NDArray[np.bool_]
    units: str

    @classmethod
    def after_interchange(
        cls,
        alignment: Alignment,
        source: Side,
        target: Side,
        samples: NDArray[np.int64],
        donors: NDArray[np.int64],
        subspace: str,
    ) -> _Activity:
        """Interchange each sample with its donors (n_samples, n_sources), and average."""
        latents = target.take(samples)
        alignment = alignment.to(latents.device)
        total = torch.zeros_like(latents, dtype=torch.float64)
        for donor in donors.T:
            total += alignment.interchange(
                latents, source.take(donor), target_system=target.name, source_system=source.name, subspace=subspace
            ).double()
        current, wanted = latents.double().cpu().numpy(), (total / donors.shape[1]).cpu().numpy()
        eligible = np.concatenate([candidates.samples for candidates in target.candidates.values()])
        recorded = target.take(eligible).double()
        low, high = recorded.min(dim=0).values.cpu().numpy(), recorded.max(dim=0).values.cpu().numpy()
        planned = np.clip(wanted, low, high)
        return cls(current, wanted, planned, low, high, planned != wanted, target.recording.manifest.units)

    def physical(self, target: Side, positions: NDArray[np.int64]) -> _Activity:
        """The activity in physical units, if the recording was standardised; `positions` (n_units,) are its units' columns."""
        coordinates = target.recording.dataset.coords
        if STANDARD_SD not in coordinates:
            return self
        mean, sd, physical = (
            coordinates[name].values[positions] for name in (STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS)
        )
        current, wanted, planned, low, high = (
            mean + sd * array for array in (self.current, self.wanted, self.planned, self.low, self.high)
        )
        return _Activity(current, wanted, planned, low, high, self.clipped, str(physical[0]))

    def variables(self) -> dict[str, xr.Variable]:
        """Data variables of the plan."""
        described = {
            "current": (self.current, "recorded activity"),
            "wanted": (self.wanted, "activity after the interchange"),
            "planned": (self.planned, "activity after the interchange, within the recorded range"),
            "change": (self.planned - self.current, "planned less recorded activity"),
        }
        both = (dims.SAMPLE, dims.UNIT)
        variables = {
            name: xr.Variable(both, array, {"long_name": text, "units": self.units})
            for name, (array, text) in described.items()
        }
        text = "whether the interchange leaves the recorded range"
        return variables | {"clipped": xr.Variable(both, self.clipped, {"long_name": text})}

    def bounds(self) -> dict[str, Any]:
        """The recorded range as coordinates."""
        return {
            "recorded_min": (dims.UNIT, self.low, {"units": self.units}),
            "recorded_max": (dims.UNIT, self.high, {"units": self.units}),
        }


def _coordinates(
    target: Side,
    samples: NDArray[np.int64],
    values: NDArray[np.float64],
    codes: Mapping[int, float],
    positions: NDArray[np.int64],
) -> dict[str, Any]:
    """Coordinates of samples and of units, from the recording."""
    recording = target.recording
    held = recording.select_samples(samples)
    coordinates: dict[str, Any] = {dims.SAMPLE: samples}
    for name in (dims.TRIAL, dims.STEP, dims.EVENT_S, *target.variables):
        if name in held.dataset.coords:
            shown = readable(held, name)
            coordinates[name] = (dims.SAMPLE, shown.astype(str) if shown.dtype.kind == "O" else shown)
    if held.time_s is not None:
        coordinates[dims.TIME_S] = (dims.SAMPLE, held.time_s, {"units": "s"})
    for column in codes:
        spec = recording.spec(target.variables[column])
        wanted = values[:, column]
        labels = np.array([spec.label(code) for code in wanted.tolist()]) if spec.meanings else wanted
        coordinates[f"wanted_{spec.name}"] = (dims.SAMPLE, labels)
    for key, coordinate in recording.dataset.coords.items():
        if coordinate.dims == (dims.UNIT,) and key not in (*_DATA, *coordinates):
            coordinates[str(key)] = (dims.UNIT, coordinate.values[positions], dict(coordinate.attrs))
    return coordinates


def save_plan(plan: xr.Dataset, path: str | Path) -> Path:
    """Write a plan, whole or not at all.

    Parameters
    ----------
    plan : xarray.Dataset
        What `stimulation_plan` returned.
    path : str or Path
        Ends in ``.nc``, or in ``.csv`` for a row per sample and unit. Beside a ``.csv``, ``.csv.json`` holds units, origin and
        warnings.

    Returns
    -------
    Path

    Raises
    ------
    InvalidInput
        The path has another ending.
    """
    path = check_ending(path, ENDINGS)
    if path.suffix == ".nc":
        write_atomically(path, bytes(plan.assign(clipped=plan["clipped"].astype("i1")).to_netcdf(engine="h5netcdf")))
    else:
        described = {**plan.attrs, "units": plan["change"].attrs["units"]}
        write_atomically(path.with_name(f"{path.name}.json"), json.dumps(described, indent=2) + "\n")
        write_atomically(path, csv_table(plan.to_dataframe().reset_index(), index=False))
    return path
