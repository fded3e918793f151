"""Pseudo-populations: units that were recorded in different trials, joined where the values of variables agree.

Units of a joined trial were not recorded together, so the trial has no noise correlations. Whatever depends on them, such
as the covariance of units at equal values, is an artefact. The manifest says so, and results made from it warn.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims, seeds
from neuromas.errors import InvalidInput, suggestion
from neuromas.recordings.check import listing
from neuromas.recordings.grouping import by_trial
from neuromas.recordings.incomplete import MissingUnitsWarning
from neuromas.recordings.poolable import alike, identified
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import DEFAULT_FRACTIONS, Split, split_by_coordinate, split_by_part
from neuromas.schema.document import Provenance
from neuromas.schema.recording import PseudoPopulation, VariableSpec

_APART = (
    "units were not recorded together (a pseudo-population): correlations between units at equal values mean nothing"
)
_REPEATED = "its trials were taken more than once: intervals are too narrow, and there is no noise ceiling"


def warnings_about(recording: Recording) -> tuple[str, ...]:
    """Warnings for results made from the recording: that it is a control, or a pseudo-population."""
    pooled, control = recording.manifest.pseudo_population, recording.manifest.control
    messages = [] if not control else [f"this is a control: {control}"]
    messages += [] if pooled is None else [_APART, _REPEATED] if pooled.replace else [_APART]
    return tuple(messages)


@dataclass(frozen=True)
class _Source:
    """Trials of one recording, by the values that they hold at each step.

    Attributes
    ----------
    order : ndarray of int64, shape (n_eligible,)
        Eligible samples, trial by trial and step by step.
    starts : ndarray of int64, shape (n_trials,)
        Position in `order` where each trial begins.
    lengths : ndarray of int64, shape (n_trials,)
        Number of eligible steps of each trial.
    profiles : list of bytes
        Steps and values of each trial. Trials with equal profiles can be joined.
    usable : ndarray of bool, shape (n_trials, n_units)
        Whether the unit was recorded in every eligible step.
    """

    recording: Recording
    order: NDArray[np.int64] = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    profiles: list[bytes] = field(repr=False)
    usable: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class _Unit:
    """One unit's trials of each profile, divided into the parts: ``trials[profile][part]``."""

    name: str
    source: int
    column: int
    trials: dict[bytes, dict[str, NDArray[np.int64]]] = field(repr=False)


def pool(
    recordings: Sequence[Recording],
    variables: Sequence[str],
    *,
    name: str,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    n_trials: int | Mapping[str, int] | None = None,
    replace: bool = False,
    min_trials: int | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    **fields: Any,
) -> Recording:
    """Join units of several recordings, or units of one that were recorded in different trials, into a pseudo-population.

    For each unit, trials with equal values are shuffled and divided into train, validation and test. A joined trial of a
    part takes, from every unit, one trial of that part with the same values. So no trial of a unit is in two parts.

    Parameters
    ----------
    recordings : sequence of Recording
        They have equal steps and physical units. Samples that are not eligible are left out, and for each unit the trials in
        which it was not recorded.
    variables : sequence of str
        Trials are joined if these variables agree at each step. The result has only these variables.
    name : str
        Name of the result.
    mapping : mapping of recording name to mapping, optional
        For recordings that use other names or values; see `Recording.relabel`.
    n_trials : int or mapping of part to int, optional
        Number of joined trials for each combination of values in each part. By default, that of the unit with the fewest
        trials.
    replace : bool
        Whether a trial of a unit may be taken more than once within its part. Otherwise `n_trials` is at most that of the
        unit with the fewest trials.
    min_trials : int, optional
        Units with fewer trials of any combination are left out, and named in the manifest. By default the number of parts, so
        that each part has a trial.
    fractions : mapping of part to float, optional
        By default train 0.6, validation 0.2, test 0.2.
    seed : int
        Seed of the division into parts and of the joining. How a unit's trials are divided depends only on the seed and on
        the unit's name.
    **fields
        Fields of the manifest. By default those in which all recordings agree.

    Returns
    -------
    Recording
        Units are called RECORDING/UNIT if two units have the same name. The coordinate ``part`` says which part a trial
        belongs to; fits and evaluations use these parts.

    Raises
    ------
    NotFound
        A variable does not exist in one of the recordings.
    InvalidInput
        There is no recording, one is a pseudo-population itself, two are versions of one recording, steps, physical units or
        types of a variable differ, or no unit has enough trials.

    Warns
    -----
    MissingUnitsWarning
        One unit costs a third of the joined trials or more.

    Examples
    --------
    >>> recordings = [
    ...     Recording.from_arrays(np.random.default_rng(day).normal(size=(20, 1)), {"n": np.arange(20) % 2}, name=f"day-{day}")
    ...     for day in (1, 2)
    ... ]
    >>> joined = pool(recordings, ["n"], name="both-days")
    >>> joined.unit_names, trials_by_part(joined)
    (['day-1/u0', 'day-2/u0'], {'test': 4, 'train': 12, 'validation': 4})
    """
    fractions = dict(DEFAULT_FRACTIONS if fractions is None else fractions)
    variables = [variables] if isinstance(variables, str) else list(dict.fromkeys(variables))
    _check_choices(fractions, n_trials, seed)
    parts = list(fractions)
    fewest = len(parts) if min_trials is None else min_trials
    if fewest < len(parts):
        raise InvalidInput(
            f"min_trials: expected at least {len(parts)}, one for each part, got {fewest}", kind="invalid_option"
        )
    fitting, specs = alike(recordings, variables, mapping)
    sources = [_source(recording, variables) for recording in fitting]
    profiles = _profiles(sources)
    units, left_out = _deal(sources, profiles, fractions, fewest, seed)
    if not units:
        raise InvalidInput(_too_few(sources, profiles, specs, fewest), kind="too_few_trials")
    if n_trials is None:
        _warn_of_scarce_trials(units, sources)
    counts = _counts(units, profiles, parts, n_trials, replace)
    activity, columns = _join(sources, units, profiles, counts, variables, replace, seed)
    manifest = _manifest(recordings, units, left_out, variables, seed, replace)
    return Recording.from_arrays(
        activity,
        {variable: columns[variable] for variable in variables},
        name=name,
        trial=columns[dims.TRIAL],
        step=columns[dims.STEP],
        sample_metadata={dims.PART: columns[dims.PART]},
        units=_names(units, sources),
        unit_metadata={
            "recording": np.array([sources[unit.source].recording.name for unit in units]),
            **_unit_metadata(units, sources),
        },
        variable_specs=specs,
        **(manifest | fields),
    )


def trials_by_part(recording: Recording) -> dict[str, int]:
    """Number of joined trials in each part of a pseudo-population."""
    trial, first = np.unique(recording.trial, return_index=True)
    parts, counts = np.unique(recording.dataset[dims.PART].values[first], return_counts=True)
    assert counts.sum() == len(trial)
    return dict(zip(parts.tolist(), counts.tolist(), strict=True))


def _check_choices(fractions: Mapping[str, float], n_trials: int | Mapping[str, int] | None, seed: int) -> None:
    if (
        set(fractions) != set(DEFAULT_FRACTIONS)
        or min(fractions.values()) <= 0
        or abs(sum(fractions.values()) - 1) > 1e-6
    ):
        raise InvalidInput(
            f"pool: expected fractions for {', '.join(DEFAULT_FRACTIONS)}, each above 0, that add up to 1; got {fractions}",
            kind="invalid_option",
        )
    seeds.checked(seed, "pool: seed")
    unknown = [part for part in n_trials if part not in fractions] if isinstance(n_trials, Mapping) else []
    if unknown:
        raise InvalidInput(
            f"n_trials for {listing(unknown)}; the parts are {', '.join(fractions)}"
            + suggestion(unknown[0], fractions),
            kind="invalid_option",
        )


def parts_of(recording: Recording, fractions: Mapping[str, float] | None = None, seed: int = 0) -> dict[str, Split]:
    """Train, validation and test parts: those of a pseudo-population, else a random division of the trials.

    Raises
    ------
    InvalidInput
        There are too few trials, or the fractions name other parts than the pseudo-population has.
    """
    if recording.manifest.pseudo_population is None:
        return split_by_coordinate(recording, dims.TRIAL, fractions, seed)
    names = list(DEFAULT_FRACTIONS if fractions is None else fractions)
    return split_by_part(recording, names)


def _source(recording: Recording, variables: Sequence[str]) -> _Source:
    """The recording's trials, without the samples that are not eligible."""
    for variable in variables:
        recording.spec(variable)
    eligible = np.flatnonzero(recording.eligible)
    if not len(eligible):
        raise InvalidInput(f"pool: recording {recording.name!r} has no eligible sample", kind="no_samples")
    within, starts, lengths = by_trial(recording.trial[eligible], recording.step[eligible])
    order = eligible[within]
    # + 0.0: minus zero and zero are equal, but not their bytes
    rows = np.column_stack([recording.step, recording.values(variables)])[order] + 0.0
    profiles = [rows[start : start + length].tobytes() for start, length in zip(starts, lengths, strict=True)]
    recorded = np.ones((recording.n_samples, recording.n_units), dtype=bool)
    if recording.manifest.missing:
        for start, block in recording.blocks():
            recorded[start : start + len(block)] = ~np.isnan(block)
    usable = np.logical_and.reduceat(recorded[order], starts, axis=0)
    return _Source(recording, order, starts, lengths, profiles, usable)


def _profiles(sources: Sequence[_Source]) -> list[bytes]:
    """Every profile of which some unit has a usable trial, in the order in which they occur."""
    usable = (
        profile
        for source in sources
        for profile, usable_units in zip(source.profiles, source.usable, strict=True)
        if usable_units.any()
    )
    return list(dict.fromkeys(usable))


def _deal(
    sources: Sequence[_Source], profiles: Sequence[bytes], fractions: Mapping[str, float], fewest: int, seed: int
) -> tuple[list[_Unit], list[str]]:
    """Units with enough trials of every profile, their trials divided into parts; and the names of the other units."""
    units, left_out = [], []
    for number, source in enumerate(sources):
        of_profile: dict[bytes, list[int]] = {profile: [] for profile in profiles}
        for trial, profile in enumerate(source.profiles):
            if profile in of_profile:
                of_profile[profile].append(trial)
        for column, name in enumerate(source.recording.unit_names):
            generator = np.random.default_rng([seed, zlib.crc32(f"{source.recording.name}/{name}".encode())])
            trials = {}
            for profile in profiles:
                own = np.array(of_profile[profile], dtype=np.int64)
                own = own[source.usable[own, column]] if len(own) else own
                if len(own) < fewest:
                    break
                trials[profile] = _shares(generator.permutation(own), fractions)
            if len(trials) == len(profiles):
                units.append(_Unit(name, number, column, trials))
            else:
                left_out.append(f"{source.recording.name}/{name}")
    return units, left_out


def _shares(trials: NDArray[np.int64], fractions: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """`trials` cut into parts as close to the fractions as possible, none of them empty."""
    share = np.array(list(fractions.values()))
    counts = np.maximum(1, np.floor(share * len(trials) + 1e-9).astype(int))
    while counts.sum() > len(trials):
        counts[np.argmax(counts - share * len(trials))] -= 1
    while counts.sum() < len(trials):
        counts[np.argmin(counts - share * len(trials))] += 1
    return dict(zip(fractions, np.split(trials, np.cumsum(counts)[:-1]), strict=True))


def _warn_of_scarce_trials(units: Sequence[_Unit], sources: Sequence[_Source]) -> None:
    """Warn if one unit has so few trials of some values that it costs a third of the joined trials or more."""
    fewest = [min(sum(map(len, parts.values())) for parts in unit.trials.values()) for unit in units]
    scarce, *others = sorted(range(len(units)), key=fewest.__getitem__)
    if others and 3 * fewest[scarce] <= 2 * fewest[others[0]]:
        unit = units[scarce]
        warnings.warn(
            f"pool: unit '{sources[unit.source].recording.name}/{unit.name}' has {fewest[scarce]} trials of some combination of"
            f" values, so no more are joined; without it {fewest[others[0]]} are (min_trials={fewest[scarce] + 1})",
            MissingUnitsWarning,
            stacklevel=3,
        )


def _counts(
    units: Sequence[_Unit],
    profiles: Sequence[bytes],
    parts: Sequence[str],
    n_trials: int | Mapping[str, int] | None,
    replace: bool,
) -> dict[str, int]:
    """Number of joined trials of each profile, by part."""
    most = {part: min(len(unit.trials[profile][part]) for unit in units for profile in profiles) for part in parts}
    if n_trials is None:
        return most
    each = n_trials if isinstance(n_trials, Mapping) else dict.fromkeys(parts, n_trials)
    counts = {part: int(each.get(part, most[part])) for part in parts}
    if min(counts.values()) < 1:
        raise InvalidInput(f"n_trials: expected at least 1 in each part, got {counts}", kind="invalid_option")
    beyond = [part for part in parts if counts[part] > most[part] and not replace]
    if beyond:
        raise InvalidInput(
            f"n_trials: {listing([f'{part} {counts[part]}' for part in beyond])} asked for, but the unit with fewest has "
            f"{listing([f'{part} {most[part]}' for part in beyond])} of a combination of values; ask for fewer, leave it out"
            " (min_trials), or take trials more than once (replace=True)",
            kind="too_few_trials",
        )
    return counts


def _join(
    sources: Sequence[_Source],
    units: Sequence[_Unit],
    profiles: Sequence[bytes],
    counts: Mapping[str, int],
    variables: Sequence[str],
    replace: bool,
    seed: int,
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Activity of the joined trials, shape (n_samples, n_units), and their trial, step, part and variables."""
    generator = np.random.default_rng([seed, 1])
    activities = [source.recording.latents(dtype=np.float32) for source in sources]
    blocks: list[NDArray[np.float32]] = []
    columns: dict[str, list[NDArray[Any]]] = {key: [] for key in (dims.TRIAL, dims.STEP, dims.PART, *variables)}
    n_joined = 0
    for part, count in counts.items():
        for profile in profiles:
            recording, rows = _example(sources, profile)
            n_steps = len(rows)
            block = np.empty((count, n_steps, len(units)), dtype=np.float32)
            for column, unit in enumerate(units):
                trials = _chosen(unit.trials[profile][part], count, replace, generator)
                source = sources[unit.source]
                samples = source.order[source.starts[trials][:, None] + np.arange(n_steps)]
                block[:, :, column] = activities[unit.source][samples, unit.column]
            blocks.append(block.reshape(-1, len(units)))
            columns[dims.TRIAL].append(np.repeat(np.arange(n_joined, n_joined + count), n_steps))
            columns[dims.STEP].append(np.tile(recording.step[rows], count))
            columns[dims.PART].append(np.full(count * n_steps, part))
            for variable in variables:
                columns[variable].append(np.tile(recording.dataset[variable].values[rows], count))
            n_joined += count
    return np.concatenate(blocks), {key: np.concatenate(pieces) for key, pieces in columns.items()}


def _example(sources: Sequence[_Source], profile: bytes) -> tuple[Recording, NDArray[np.int64]]:
    """The first trial with this profile: its recording, and its samples step by step."""
    source = next(source for source in sources if profile in source.profiles)
    trial = source.profiles.index(profile)
    start = source.starts[trial]
    return source.recording, source.order[start : start + source.lengths[trial]]


def _chosen(trials: NDArray[np.int64], count: int, replace: bool, generator: np.random.Generator) -> NDArray[np.int64]:
    return trials[
        generator.integers(len(trials), size=count) if replace else generator.permutation(len(trials))[:count]
    ]


def _too_few(sources: Sequence[_Source], profiles: Sequence[bytes], specs: Sequence[VariableSpec], fewest: int) -> str:
    """Why no unit is left: in each recording, the best unit and the combination of which it has the fewest trials."""
    reasons = []
    position = {profile: row for row, profile in enumerate(profiles)}
    for source in sources:
        counts = np.zeros((len(profiles), source.recording.n_units), dtype=np.int64)
        trials = [number for number, profile in enumerate(source.profiles) if profile in position]
        np.add.at(counts, [position[source.profiles[number]] for number in trials], source.usable[trials])
        best = int(counts.min(axis=0).argmax())
        scarcest = int(counts[:, best].argmin())
        codes = np.frombuffer(profiles[scarcest], dtype=np.float64).reshape(-1, 1 + len(specs))[0, 1:]
        values = ", ".join(f"{spec.name}={spec.label(code)}" for spec, code in zip(specs, codes.tolist(), strict=True))
        unit = f"{source.recording.name}/{source.recording.unit_names[best]}"
        reasons.append(f"{unit} has {counts[scarcest, best]} with {values}")
    return (
        f"pool: no unit has {fewest} trials of each of {len(profiles)} combinations of "
        f"{', '.join(spec.name for spec in specs)}, which train, validation and test need (eligible samples, all steps recorded);"
        f" {listing(reasons)}"
    )


def _names(units: Sequence[_Unit], sources: Sequence[_Source]) -> list[str]:
    short = [unit.name for unit in units]
    unique = len(set(short)) == len(short)
    return short if unique else [f"{sources[unit.source].recording.manifest.name}/{unit.name}" for unit in units]


def _unit_metadata(units: Sequence[_Unit], sources: Sequence[_Source]) -> dict[str, Any]:
    """Metadata of the units that every recording has."""
    shared: dict[str, Any] = {}
    for key, coordinate in sources[0].recording.dataset.coords.items():
        name = str(key)
        if coordinate.dims != (dims.UNIT,) or name in (dims.UNIT, "recording"):
            continue
        if all(name in source.recording.dataset.coords for source in sources):
            values = [source.recording.dataset[name].values for source in sources]
            shared[name] = (np.array([values[unit.source][unit.column] for unit in units]), dict(coordinate.attrs))
    return shared


def _manifest(
    recordings: Sequence[Recording],
    units: Sequence[_Unit],
    left_out: Sequence[str],
    variables: Sequence[str],
    seed: int,
    replace: bool,
) -> dict[str, Any]:
    """The fields in which all recordings agree, and how they were joined."""
    fields = {}
    for key in ("system", "layer", "task", "access", "control", "licence", "citation", "description"):
        values = {getattr(recording.manifest, key) for recording in recordings}
        if len(values) == 1:
            fields[key] = values.pop()
    controls = [recording.name for recording in recordings if recording.manifest.control]
    if controls and "control" not in fields:
        fields["control"] = f"made from {listing(controls)}, which are controls"
    versions = {
        library: version
        for recording in recordings
        for library, version in recording.manifest.provenance.versions.items()
    }
    origins = tuple(identified(recording) for recording in recordings)
    return fields | {
        "activity_units": recordings[0].manifest.units,
        "sampling": recordings[0].manifest.sampling,
        "pseudo_population": PseudoPopulation(
            variables=tuple(variables), seed=seed, replace=replace, recordings=origins, left_out=tuple(left_out)
        ),
        "provenance": Provenance(
            source=f"{len(recordings)} recordings, {recordings[0].name} to {recordings[-1].name}",
            seed=seed,
            versions=versions,
            notes=f"pseudo-population of {len(units)} units; {len(left_out)} left out",
        ),
    }
