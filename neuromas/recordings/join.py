"""Join recordings of the same units over different trials: many small files as one recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.poolable import all_meanings, identified, refuse_unlike
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance

FROM, FROM_TRIAL = "joined_from", "joined_trial"
"""Coordinates of a joined recording: the recording that a sample comes from, and the number of its trial there."""


def join(recordings: Sequence[Recording], *, name: str | None = None) -> Recording:
    """One recording of the trials of several recordings, which hold the same units.

    Parameters
    ----------
    recordings : sequence of Recording
        At least two. They have the same units, in any order, and the same variables. Steps have the same length.
    name : str, optional
        The new recording's name; by default that of the first.

    Returns
    -------
    Recording
        In memory. Trials keep their numbers if all numbers differ, otherwise they are counted anew. ``joined_from`` names the
        recording that a sample comes from, ``joined_trial`` the number that its trial had there. Categories are those of all
        recordings. Other coordinates stay if every recording has them.

    Raises
    ------
    InvalidInput
        There are fewer than two recordings, one of them is given twice or is a pseudo-population, or units, variables,
        steps or physical units differ.

    Examples
    --------
    >>> days = [
    ...     Recording.from_arrays([[0.1], [0.2]], {"side": ["left", side]}, name=f"day{day}")
    ...     for day, side in enumerate(("left", "right"))
    ... ]
    >>> whole = join(days, name="mouse")
    >>> whole.trial.tolist(), whole.dataset["joined_trial"].values.tolist(), whole.describe()
    ([0, 1, 2, 3], [0, 1, 0, 1], [('side', 'categorical: left, right')])
    """
    _check(recordings)
    first = recordings[0]
    order = first.unit_names
    members = [first, *(member.select_units(order) for member in recordings[1:])]
    datasets = [member.to_dataset().load() for member in members]
    shared = _shared_coordinates(datasets)
    trials = _trials(members)
    joined = xr.Dataset(
        {dims.ACTIVITY: ((dims.SAMPLE, dims.UNIT), np.concatenate([each[dims.ACTIVITY].values for each in datasets]))},
        {
            **{key: (dims.SAMPLE, np.concatenate([each[key].values for each in datasets])) for key in shared},
            **_eligible(members),
            **{key: datasets[0][key].variable for key in _unit_coordinates(datasets)},
            dims.TRIAL: (dims.SAMPLE, trials),
            FROM: (dims.SAMPLE, np.repeat([member.name for member in recordings], [m.n_samples for m in members])),
            FROM_TRIAL: (dims.SAMPLE, np.concatenate([member.trial for member in members])),
        },
    )
    return Recording.from_dataset(joined, _document(recordings, name))


def _check(recordings: Sequence[Recording]) -> None:
    if len(recordings) < 2:
        raise InvalidInput(f"join: expected at least 2 recordings, got {len(recordings)}", kind="no_recordings")
    first = recordings[0]
    origins = [identified(recording) for recording in recordings]
    twice = sorted({origin for origin in origins if origins.count(origin) > 1})
    if twice:
        raise InvalidInput(f"join: {listing(twice)} is given twice; its trials would count twice", kind="given_twice")
    pooled = [recording.name for recording in recordings if recording.manifest.pseudo_population is not None]
    if pooled:
        raise InvalidInput(
            f"join: {listing(pooled)} is a pseudo-population; join the recordings before they are pooled", kind="pooled"
        )
    for other in recordings[1:]:
        for what, names in (("units", lambda each: each.unit_names), ("variables", lambda each: each.variable_names)):
            here, there = set(names(first)), set(names(other))
            if here != there:
                raise InvalidInput(
                    f"join: {what} differ: {'; '.join([*_only(here - there, first), *_only(there - here, other)])}; expected"
                    f" the same {what} in all recordings",
                    kind="recordings_differ",
                )
    refuse_unlike(recordings, first.variable_names, "join")


def _only(names: set[str], recording: Recording) -> list[str]:
    return [f"only {recording.name!r} has {listing(sorted(names))}"] if names else []


def _trials(recordings: Sequence[Recording]) -> NDArray[np.int64]:
    """Trial number of every sample: as they were if they all differ, else counted through all recordings."""
    numbers = [np.unique(recording.trial) for recording in recordings]
    if np.unique(np.concatenate(numbers)).size == sum(map(len, numbers)):
        return np.concatenate([recording.trial for recording in recordings])
    before = np.cumsum([0, *map(len, numbers)])
    return np.concatenate(
        [
            start + np.searchsorted(own, recording.trial)
            for start, own, recording in zip(before, numbers, recordings, strict=False)
        ]
    )


def _shared_coordinates(datasets: Sequence[xr.Dataset]) -> list[str]:
    """Coordinates on sample that every recording has, with the same kind of values; not those that are made anew."""
    made = {dims.TRIAL, dims.ELIGIBLE, dims.SAMPLE, FROM, FROM_TRIAL}
    return [
        str(key)
        for key, coordinate in datasets[0].coords.items()
        if coordinate.dims == (dims.SAMPLE,)
        and key not in made
        and all(
            key in each.coords and (each[key].dtype.kind == "U") == (coordinate.dtype.kind == "U") for each in datasets
        )
    ]


def _unit_coordinates(datasets: Sequence[xr.Dataset]) -> list[str]:
    """Coordinates on unit that are equal in every recording."""
    return [
        str(key)
        for key, coordinate in datasets[0].coords.items()
        if coordinate.dims == (dims.UNIT,)
        and all(key in each.coords and coordinate.variable.equals(each[key].variable) for each in datasets)
    ]


def _eligible(recordings: Sequence[Recording]) -> dict[str, Any]:
    if not any(dims.ELIGIBLE in recording.dataset.coords for recording in recordings):
        return {}
    return {dims.ELIGIBLE: (dims.SAMPLE, np.concatenate([recording.eligible for recording in recordings]))}


def _document(recordings: Sequence[Recording], name: str | None) -> dict[str, Any]:
    """Fields of the joined recording's manifest."""
    manifest = recordings[0].manifest
    specs = all_meanings(recordings, recordings[0].variable_names)
    tokens = [recording.manifest.vocabulary for recording in recordings]
    vocabulary = None if None in tokens else tuple(dict.fromkeys(token for own in tokens for token in own or ()))
    origins = [origin for recording in recordings for origin in _line(recording)]
    provenance = Provenance(
        **manifest.provenance.model_dump(exclude={"notes", "derived_from"}),
        derived_from=tuple(dict.fromkeys(origins)),
        notes=f"{len(recordings)} recordings of the same units joined",
    )
    return manifest.model_dump(exclude={"set", "content_sha256", "files", "grouped_by"}) | {
        "name": name or manifest.name,
        "variables": [spec.model_dump() for spec in specs],
        "vocabulary": vocabulary,
        "missing": any(recording.manifest.missing for recording in recordings),
        "provenance": provenance.model_dump(),
    }


def _line(recording: Recording) -> tuple[str, ...]:
    return (identified(recording), *recording.manifest.provenance.derived_from)
