"""Stimulation plans: what would have to change in each unit for a recorded system to hold other values.

An alignment says which latent a target should have had after an interchange. For a brain that is a prediction and a proposal:
the change of each unit's activity that an experiment would have to bring about, kept to what the unit was ever seen to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.align.alignment import Alignment
from neuromas.align.prepare import warnings_of
from neuromas.align.side import Side
from neuromas.errors import InvalidInput, NoMatch, NotFound
from neuromas.files import write_atomically
from neuromas.index.choose import near
from neuromas.provenance import now, versions
from neuromas.recordings.annotate import STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS
from neuromas.recordings.export import check_ending, readable

ENDINGS = (".nc", ".csv")
_DATA = ("current", "wanted", "planned", "change", "clipped")


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
    seed: int = 0,
) -> xr.Dataset:
    """For every recorded sample of a target: its latent, the one it should have instead, and the change of each unit.

    Parameters
    ----------
    alignment : Alignment
        Joins both sides.
    source, target : Side
        As fitted. The source's recorded latents donate the values.
    wanted : mapping of str to value
        Variable of the target (or shared name) → the value it is to hold, a meaning or a number. Other variables of the subspace
        keep the value that the target has.
    subspace : str, optional
        Which to interchange; needed where the alignment has several.
    part : str
        Samples of this part, which the fit did not see if it is ``test``.
    n_samples : int, optional
        So many of them, drawn at random; all by default.
    n_sources : int
        Source latents that are drawn for each sample; the plan is the mean of what they ask for.
    seed : int

    Returns
    -------
    xarray.Dataset
        Dims sample × unit, in the recording's physical units, also where it was standardised: ``current``; ``wanted``, the
        latent after the interchange; ``planned``, the same within each unit's recorded range; ``change`` = planned − current;
        ``clipped``, where wanted and planned differ. Coordinates: trial, step, the values held and wanted (``wanted_NAME``);
        each unit's ``recorded_min`` and ``recorded_max`` over all eligible samples. Attributes say what it was made from.

    Raises
    ------
    NotFound
        A side, variable or subspace does not exist.
    InvalidInput
        A value that the variable cannot have, a variable outside the subspace, or several subspaces and none named.
    NoMatch
        The source was never recorded with the values wanted.

    Notes
    -----
    Nothing is run. A linear readout of what stimulation does is assumed to be the experimenter's; this says what to aim at.
    """
    if part not in target.candidates:
        raise InvalidInput(f"plan: expected part {', '.join(target.candidates)}, got {part!r}", kind="unknown_part")
    if n_sources < 1 or (n_samples is not None and n_samples < 1):
        raise InvalidInput(
            f"plan: expected at least 1 sample and 1 source, got n_samples={n_samples} and n_sources={n_sources}",
            kind="nothing_wanted",
        )
    clashing = [name for name in target.variables if name in _DATA]
    if clashing:
        raise InvalidInput(
            f"plan for {target.name!r}: variable {clashing[0]!r} has a name that the plan itself uses; rename it (mapping=)",
            kind="reserved_name",
        )
    for side in (source, target):
        if side.name not in alignment.maps:
            raise NotFound(f"the alignment joins {', '.join(alignment.maps)}, not {side.name!r}", kind="unknown_system")
    if subspace is None and len(alignment.subspaces) > 1:
        names = ", ".join(one.name for one in alignment.subspaces)
        raise InvalidInput(f"the alignment has several subspaces; name one of {names}", kind="which_subspace")
    chosen = alignment.subspaces[0] if subspace is None else alignment.subspace(subspace)
    columns, source_columns = target.columns(chosen.variables), source.columns(chosen.variables)
    values = _wanted_values(target, wanted, columns)
    generator = np.random.default_rng(seed)
    candidates = target.candidates[part]
    picked = np.arange(len(candidates.samples))
    if n_samples is not None and n_samples < len(picked):
        picked = np.sort(generator.choice(picked, n_samples, replace=False))
    samples, after = candidates.samples[picked], candidates.values[picked].copy()
    for column, code in values.items():
        after[:, column] = code
    latents = target.take(samples)
    donors = _donors(source, part, after[:, columns], source_columns, n_sources, generator, chosen.name)
    intervened = torch.zeros_like(latents, dtype=torch.float64)
    mover = alignment.to(latents.device)
    for each in donors.T:
        intervened += mover.interchange(
            latents, source.take(each), target_system=target.name, source_system=source.name, subspace=chosen.name
        ).double()
    current, aim = latents.double().cpu().numpy(), (intervened / n_sources).cpu().numpy()
    low, high = _range(target)
    planned = np.clip(aim, low, high)
    return _dataset(
        alignment,
        source,
        target,
        samples,
        after,
        values,
        current,
        aim,
        planned,
        (low, high),
        chosen.name,
        seed,
        n_sources,
    )


def _wanted_values(target: Side, wanted: Mapping[str, Any], columns: list[int]) -> dict[int, float]:
    if not wanted:
        raise InvalidInput(
            f"plan for {target.name!r}: no value is wanted; its variables are {', '.join(target.variables)}",
            kind="nothing_wanted",
        )
    values = {}
    for name, value in wanted.items():
        (column,) = target.columns([name])
        spec = target.recording.spec(target.variables[column])
        if column not in columns:
            inside = ", ".join(target.variables[one] for one in columns)
            raise InvalidInput(
                f"plan for {target.name!r}: variable {name!r} is not in the subspace, which holds {inside}",
                kind="outside_subspace",
            )
        try:
            values[column] = spec.code(value)
        except KeyError:
            known = ", ".join(spec.label(code) for code in np.unique(target.recording.dataset[spec.name].values))
            raise InvalidInput(
                f"plan for {target.name!r}: variable {name!r} has no value {value!r}; recorded are {known}",
                kind="unknown_value",
            ) from None
    return values


def _donors(
    source: Side,
    part: str,
    wanted: NDArray[np.float64],
    columns: list[int],
    n_sources: int,
    generator: np.random.Generator,
    subspace: str,
) -> NDArray[np.int64]:
    """Samples of the source that hold what each row of `wanted` asks for, shape (n_samples, n_sources)."""
    candidates = source.candidates[part]
    held = candidates.values[:, columns]
    tolerance = source.indexes[part].tolerance
    wide = np.array([tolerance.get(source.variables[column], 0.0) for column in columns])
    donors = np.empty((len(wanted), n_sources), dtype=np.int64)
    asked, which = np.unique(wanted, axis=0, return_inverse=True)
    for number, row in enumerate(asked):
        matching = candidates.samples[near(held, row, wide)]
        if not len(matching):
            told = ", ".join(
                f"{source.variables[column]}={source.recording.spec(source.variables[column]).label(code)}"
                for column, code in zip(columns, row.tolist(), strict=True)
            )
            raise NoMatch(
                f"plan: source {source.name!r} was never recorded with {told} (subspace {subspace!r}, {part} part)"
            )
        mine = which.reshape(-1) == number
        donors[mine] = generator.choice(matching, (int(mine.sum()), n_sources))
    return donors


def _range(target: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    every = target.take(np.concatenate([one.samples for one in target.candidates.values()])).double()
    return every.min(dim=0).values.cpu().numpy(), every.max(dim=0).values.cpu().numpy()


def _dataset(
    alignment: Alignment,
    source: Side,
    target: Side,
    samples: NDArray[np.int64],
    after: NDArray[np.float64],
    values: Mapping[int, float],
    current: NDArray[np.float64],
    aim: NDArray[np.float64],
    planned: NDArray[np.float64],
    recorded: tuple[NDArray[np.float64], NDArray[np.float64]],
    subspace: str,
    seed: int,
    n_sources: int,
) -> xr.Dataset:
    recording = target.recording
    units = recording.manifest.units
    columns = recording.unit_positions(target.units)
    clipped = planned != aim
    if STANDARD_SD in recording.dataset.coords:  # back to what the electrodes measure
        mean, sd, physical = (
            recording.dataset[name].values[columns] for name in (STANDARD_MEAN, STANDARD_SD, STANDARD_UNITS)
        )
        current, aim, planned, low, high = (mean + sd * one for one in (current, aim, planned, *recorded))
        recorded, units = (low, high), str(physical[0])
    both = (dims.SAMPLE, dims.UNIT)

    def array(content: NDArray[Any], what: str) -> xr.Variable:
        return xr.Variable(both, content, {"long_name": what, "units": units})

    held = recording.select_samples(samples)
    coordinates: dict[str, Any] = {dims.SAMPLE: samples}
    for name in (dims.TRIAL, dims.STEP, dims.EVENT_S, *target.variables):
        if name in held.dataset.coords:
            shown = readable(held, name)
            coordinates[name] = (dims.SAMPLE, shown.astype(str) if shown.dtype.kind == "O" else shown)
    if held.time_s is not None:
        coordinates[dims.TIME_S] = (dims.SAMPLE, held.time_s, {"units": "s"})
    for column in values:
        name = target.variables[column]
        spec = recording.spec(name)
        codes = after[:, column]
        told = np.array([spec.label(code) for code in codes.tolist()]) if spec.meanings else codes
        coordinates[f"wanted_{name}"] = (dims.SAMPLE, told)
    for key, one in recording.dataset.coords.items():
        if one.dims == (dims.UNIT,) and key not in (*_DATA, *coordinates):
            coordinates[str(key)] = (dims.UNIT, one.values[columns], dict(one.attrs))
    for name, bound in zip(("recorded_min", "recorded_max"), recorded, strict=True):
        coordinates[name] = (dims.UNIT, bound, {"units": units})
    warnings = warnings_of([source, target])
    return xr.Dataset(
        {
            "current": array(current, "recorded activity"),
            "wanted": array(aim, "activity after the interchange"),
            "planned": array(planned, "activity after the interchange, within the recorded range"),
            "change": array(planned - current, "planned less recorded activity"),
            "clipped": xr.Variable(both, clipped, {"long_name": "whether the interchange leaves the recorded range"}),
        },
        coords=coordinates,
        attrs={
            "title": f"stimulation plan for {target.name}, values donated by {source.name}",
            "source": source.name,
            "target": target.name,
            "recording": recording.name,
            "recording_sha256": recording.manifest.content_sha256 or "",
            "alignment_sha256": alignment.sha256(),
            "subspace": subspace,
            "seed": seed,
            "n_sources": n_sources,
            "created": now(),
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
            **({"warnings": "; ".join(warnings)} if warnings else {}),
        },
    )


def save_plan(plan: xr.Dataset, path: str | Path) -> Path:
    """Write a plan as ``.nc``, or as ``.csv`` with a row per sample and unit and, beside it, ``.csv.json`` with units, origin and
    warnings; each whole or not at all.

    Raises
    ------
    InvalidInput
        Another ending.
    """
    path = check_ending(path, ENDINGS)
    if path.suffix == ".nc":
        write_atomically(path, bytes(plan.assign(clipped=plan["clipped"].astype("i1")).to_netcdf(engine="h5netcdf")))
    else:
        told = {**plan.attrs, "units": plan["change"].attrs["units"]}
        write_atomically(path.with_name(f"{path.name}.json"), json.dumps(told, indent=2) + "\n")
        write_atomically(path, plan.to_dataframe().reset_index().to_csv(index=False))
    return path
