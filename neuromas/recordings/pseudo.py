"""Pseudo-populations: units that were recorded in different trials, joined where the values of variables agree.

What a joined trial does not have is what trials have in common: noise correlations. Everything that rests on them, the
covariance of units at equal values above all, is made up; the manifest says so, and results made from it warn.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.check import listing
from neuromas.recordings.grouping import by_trial
from neuromas.recordings.recording import Recording
from neuromas.recordings.split import DEFAULT_FRACTIONS, Split, split_by_coordinate, split_by_part
from neuromas.schema.document import Provenance
from neuromas.schema.recording import PseudoPopulation, VariableSpec

_APART = (
    "units were not recorded together (a pseudo-population): correlations between units at equal values mean nothing"
)
_REPEATED = "its trials were taken more than once: intervals are too narrow, and there is no noise ceiling"


def warnings_about(recording: Recording) -> tuple[str, ...]:
    """What results made from the recording must say: that it is a control, or a pseudo-population."""
    pooled, control = recording.manifest.pseudo_population, recording.manifest.control
    told = [] if not control else [f"this is a control: {control}"]
    told += [] if pooled is None else [_APART, _REPEATED] if pooled.replace else [_APART]
    return tuple(told)


@dataclass(frozen=True)
class _Source:
    """Trials of one recording, by the values that they hold step by step.

    Attributes
    ----------
    samples : ndarray of int64, shape (n_trials,)
        First sample of each trial, trial by trial and step by step (`order`).
    order : ndarray of int64, shape (n_eligible,)
    lengths : ndarray of int64, shape (n_trials,)
    profiles : list of bytes
        Steps and values of each trial: equal profiles can be joined.
    usable : ndarray of bool, shape (n_trials, n_units)
        Whether the unit was recorded in every eligible step.
    """

    recording: Recording
    order: NDArray[np.int64] = field(repr=False)
    samples: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    profiles: list[bytes] = field(repr=False)
    usable: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class _Unit:
    """One unit's trials of each profile, dealt out to the parts: ``trials[profile][part]``."""

    name: str
    source: int
    column: int
    trials: dict[bytes, dict[str, NDArray[np.int64]]] = field(repr=False)


def pool(
    recordings: Sequence[Recording],
    variables: Sequence[str],
    *,
    name: str,
    n_trials: int | Mapping[str, int] | None = None,
    replace: bool = False,
    min_trials: int | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    **fields: Any,
) -> Recording:
    """Join units of several recordings, or units of one that were recorded in different trials, into a pseudo-population.

    For each unit, the trials with equal values are shuffled and dealt out to train, validation and test; a joined trial of a
    part takes of every unit one trial of that part with its values. So no trial of a unit is in two parts.

    Parameters
    ----------
    recordings : sequence of Recording
        With the same steps and physical units. Samples that are not eligible, and trials in which a unit was not recorded, are
        not taken.
    variables : sequence of str
        Trials are joined where these agree, step by step. The result has these variables alone.
    name : str
        Of the result.
    n_trials : int or mapping of part to int, optional
        Joined trials for each combination of values; by default as many as the unit with fewest has, in each part.
    replace : bool
        Whether a unit's trial may be taken more than once within its part; without, `n_trials` is bounded by the unit with
        fewest.
    min_trials : int, optional
        Units with fewer trials of any combination are left out, and named in the manifest; by default as many as there are
        parts, so that each part has one.
    fractions : mapping of part to float, optional
        By default train 0.6, validation 0.2, test 0.2.
    seed : int
        Of the shares and of the joining. A unit's shares depend on this and its own name alone.
    **fields
        Fields of the manifest; by default those in which all recordings agree.

    Returns
    -------
    Recording
        Units are called RECORDING/UNIT where two share a name. The coordinate ``part`` says which part a trial belongs to; fits
        and evaluations keep to it.

    Raises
    ------
    NotFound
        A recording has no such variable.
    InvalidInput
        No recording, one that is a pseudo-population itself, two versions of one, different steps or physical units, a variable
        with different meanings, or no unit with enough trials.

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
    given = recordings
    recordings, specs = _alike(given, variables)
    parts = list(fractions)
    fewest = len(parts) if min_trials is None else min_trials
    if fewest < len(parts):
        raise InvalidInput(
            f"min_trials: expected at least {len(parts)}, one for each part, got {fewest}", kind="min_trials"
        )
    sources = [_source(recording, variables) for recording in recordings]
    profiles = list(
        dict.fromkeys(
            told for one in sources for told, any_unit in zip(one.profiles, one.usable, strict=True) if any_unit.any()
        )
    )
    units, left_out = _deal(sources, profiles, fractions, fewest, seed)
    if not units:
        raise InvalidInput(_too_few(sources, profiles, specs, fewest), kind="too_few_trials")
    counts = _counts(units, profiles, parts, n_trials, replace)
    generator = np.random.default_rng([seed, 1])
    blocks: list[NDArray[Any]] = []
    columns: dict[str, list[NDArray[Any]]] = {key: [] for key in (dims.TRIAL, dims.STEP, dims.PART, *variables)}
    activities = [source.recording.latents(dtype=np.float32) for source in sources]
    joined = 0
    for part in parts:
        for profile in profiles:
            wanted = counts[part]
            example = next(source for source in sources if profile in source.profiles)
            first = example.profiles.index(profile)
            n_steps = int(example.lengths[first])
            rows = example.order[example.samples[first] : example.samples[first] + n_steps]
            block = np.empty((wanted, n_steps, len(units)), dtype=np.float32)
            for column, unit in enumerate(units):
                own = unit.trials[profile][part]
                chosen = own[
                    generator.integers(len(own), size=wanted) if replace else generator.permutation(len(own))[:wanted]
                ]
                source = sources[unit.source]
                samples = source.order[source.samples[chosen][:, None] + np.arange(n_steps)]
                block[:, :, column] = activities[unit.source][samples, unit.column]
            blocks.append(block.reshape(-1, len(units)))
            columns[dims.TRIAL].append(np.repeat(np.arange(joined, joined + wanted), n_steps))
            columns[dims.STEP].append(np.tile(example.recording.step[rows], wanted))
            columns[dims.PART].append(np.full(wanted * n_steps, part))
            for variable in variables:
                columns[variable].append(np.tile(example.recording.dataset[variable].values[rows], wanted))
            joined += wanted
    told = {key: np.concatenate(one) for key, one in columns.items()}
    manifest = _manifest(given, units, left_out, variables, seed, replace)
    return Recording.from_arrays(
        np.concatenate(blocks),
        {variable: told[variable] for variable in variables},
        name=name,
        trial=told[dims.TRIAL],
        step=told[dims.STEP],
        sample_metadata={dims.PART: told[dims.PART]},
        units=_names(units, sources),
        unit_metadata={
            "recording": np.array([sources[unit.source].recording.name for unit in units]),
            **_unit_metadata(units, sources),
        },
        variable_specs=specs,
        **(manifest | fields),
    )


def trials_by_part(recording: Recording) -> dict[str, int]:
    """How many joined trials of a pseudo-population are in each part."""
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
            kind="fractions",
        )
    if seed < 0:
        raise InvalidInput(f"pool: expected a seed of 0 or more, got {seed}", kind="invalid_seed")
    strange = [part for part in n_trials if part not in fractions] if isinstance(n_trials, Mapping) else []
    if strange:
        raise InvalidInput(f"n_trials for {listing(strange)}; the parts are {', '.join(fractions)}", kind="n_trials")


def parts_of(recording: Recording, fractions: Mapping[str, float] | None = None, seed: int = 0) -> dict[str, Split]:
    """Train, validation and test: those settled when the recording was pooled, else trials dealt out anew.

    Raises
    ------
    InvalidInput
        Too few trials; or fractions that name other parts than the recording was pooled for.
    """
    if recording.manifest.pseudo_population is None:
        return split_by_coordinate(recording, dims.TRIAL, fractions, seed)
    names = list(DEFAULT_FRACTIONS if fractions is None else fractions)
    return split_by_part(recording, names)


def _alike(recordings: Sequence[Recording], variables: Sequence[str]) -> tuple[list[Recording], list[VariableSpec]]:
    """The recordings with equal codes for equal meanings, once they are known to fit together; and what the codes mean."""
    if not recordings or not variables:
        raise InvalidInput(
            f"pool: expected recordings and variables, got {len(recordings)} and {len(variables)}",
            kind="nothing_to_pool",
        )
    first = recordings[0]
    reserved = [variable for variable in variables if variable == dims.PART]
    if reserved:
        raise InvalidInput(
            "pool: a variable cannot be called 'part', which tells the parts apart", kind="reserved_name"
        )
    pooled = [one.name for one in recordings if one.manifest.pseudo_population is not None]
    if pooled:
        raise InvalidInput(
            f"pool: {listing(pooled)} is a pseudo-population already; dealt out again, a trial would be in several parts. Pool"
            " the recordings that it was made from",
            kind="pooled",
        )
    _refuse_versions(recordings)
    for other in recordings[1:]:
        mine_s, its_s = first.manifest.sampling, other.manifest.sampling
        for what, mine, its in (
            ("units", first.manifest.units, other.manifest.units),
            ("seconds per step", mine_s.step_s, its_s.step_s),
            ("time of the first step", mine_s.start_s, its_s.start_s),
            ("the event at time zero", mine_s.aligned_to, its_s.aligned_to),
        ):
            if mine != its:
                raise InvalidInput(
                    f"pool: {what} differ: {mine!r} in {first.name!r}, {its!r} in {other.name!r}",
                    kind="unlike_recordings",
                )
        for variable in variables:
            here, there = first.spec(variable), other.spec(variable)
            if here.type != there.type or here.units != there.units:
                raise InvalidInput(
                    f"pool: variable {variable!r} is {here.type} ({here.units}) in {first.name!r}, {there.type}"
                    f" ({there.units}) in {other.name!r}",
                    kind="unlike_recordings",
                )
    specs = _all_meanings(recordings, variables)
    return [recording.relabel(like=specs) for recording in recordings], specs


def _refuse_versions(recordings: Sequence[Recording]) -> None:
    """Two versions of one recording hold the same trials of the same units, which would be in several parts."""
    seen: dict[str, tuple[str, set[str]]] = {}
    for one in recordings:
        own = one.name if one.manifest.content_sha256 is None else f"{one.name} ({one.manifest.content_sha256})"
        units = set(one.unit_names)
        for ancestor in (own, *one.manifest.provenance.derived_from):
            if ancestor in seen and seen[ancestor][1] & units:
                raise InvalidInput(
                    f"pool: {seen[ancestor][0]!r} and {one.name!r} are versions of one recording, {ancestor}, and share units"
                    f" {listing(sorted(seen[ancestor][1] & units))}; name one of them",
                    kind="versions_of_one",
                )
        for ancestor in (own, *one.manifest.provenance.derived_from):
            name, others = seen.get(ancestor, (one.name, set()))
            seen[ancestor] = name, others | units


def _all_meanings(recordings: Sequence[Recording], variables: Sequence[str]) -> list[VariableSpec]:
    """Declarations that know every meaning that any of the recordings has."""
    specs = []
    for variable in variables:
        spec = recordings[0].spec(variable)
        if spec.meanings is not None:
            meanings = dict.fromkeys(text for one in recordings for text in one.spec(variable).meanings or ())
            spec = spec.model_copy(update={"values": tuple(range(len(meanings))), "meanings": tuple(meanings)})
        elif spec.values is not None:
            allowed = {value for one in recordings for value in one.spec(variable).values or ()}
            spec = spec.model_copy(update={"values": tuple(sorted(allowed))})
        specs.append(spec)
    return specs


def _source(recording: Recording, variables: Sequence[str]) -> _Source:
    """The recording's trials, without the samples that are not eligible."""
    for variable in variables:
        recording.spec(variable)
    eligible = np.flatnonzero(recording.eligible)
    if not len(eligible):
        raise InvalidInput(f"pool: recording {recording.name!r} has no eligible sample", kind="no_samples")
    within, starts, lengths = by_trial(recording.trial[eligible], recording.step[eligible])
    order = eligible[within]
    told = np.column_stack([recording.step, recording.values(variables)])[order] + 0.0  # no minus zero
    profiles = [told[start : start + length].tobytes() for start, length in zip(starts, lengths, strict=True)]
    known = np.ones((recording.n_samples, recording.n_units), dtype=bool)
    if recording.manifest.missing:
        for start, block in recording.blocks():
            known[start : start + len(block)] = ~np.isnan(block)
    return _Source(recording, order, starts, lengths, profiles, np.logical_and.reduceat(known[order], starts, axis=0))


def _deal(
    sources: Sequence[_Source], profiles: Sequence[bytes], fractions: Mapping[str, float], fewest: int, seed: int
) -> tuple[list[_Unit], list[str]]:
    """Units with enough trials of every profile, their trials in parts; and the names of the others."""
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
    """`trials` cut into parts as near to the fractions as can be, none of them empty."""
    share = np.array(list(fractions.values()))
    counts = np.maximum(1, np.floor(share * len(trials) + 1e-9).astype(int))
    while counts.sum() > len(trials):
        counts[np.argmax(counts - share * len(trials))] -= 1
    while counts.sum() < len(trials):
        counts[np.argmin(counts - share * len(trials))] += 1
    return dict(zip(fractions, np.split(trials, np.cumsum(counts)[:-1]), strict=True))


def _counts(
    units: Sequence[_Unit],
    profiles: Sequence[bytes],
    parts: Sequence[str],
    n_trials: int | Mapping[str, int] | None,
    replace: bool,
) -> dict[str, int]:
    """Joined trials of each profile, by part."""
    most = {part: min(len(unit.trials[profile][part]) for unit in units for profile in profiles) for part in parts}
    if n_trials is None:
        return most
    each = n_trials if isinstance(n_trials, Mapping) else dict.fromkeys(parts, n_trials)
    wanted = {part: int(each.get(part, most[part])) for part in parts}
    if min(wanted.values()) < 1:
        raise InvalidInput(f"n_trials: expected at least 1 in each part, got {wanted}", kind="n_trials")
    beyond = [part for part in parts if wanted[part] > most[part] and not replace]
    if beyond:
        raise InvalidInput(
            f"n_trials: {listing([f'{part} {wanted[part]}' for part in beyond])} asked for, but the unit with fewest has "
            f"{listing([f'{part} {most[part]}' for part in beyond])} of a combination of values; ask for fewer, leave it out"
            " (min_trials), or take trials more than once (replace=True)",
            kind="too_few_trials",
        )
    return wanted


def _too_few(sources: Sequence[_Source], profiles: Sequence[bytes], specs: Sequence[VariableSpec], fewest: int) -> str:
    """Why no unit is left: the combination of values that the best unit has fewest trials of."""
    told = []
    for source in sources:
        counts = np.zeros((len(profiles), source.recording.n_units), dtype=np.int64)
        place = {profile: row for row, profile in enumerate(profiles)}
        known = [number for number, profile in enumerate(source.profiles) if profile in place]
        np.add.at(counts, [place[source.profiles[number]] for number in known], source.usable[known])
        best = int(counts.min(axis=0).argmax())
        lacking = int(counts[:, best].argmin())
        first = np.frombuffer(profiles[lacking], dtype=np.float64).reshape(-1, 1 + len(specs))[0, 1:]
        values = ", ".join(f"{spec.name}={spec.label(code)}" for spec, code in zip(specs, first.tolist(), strict=True))
        told.append(
            f"{source.recording.name}/{source.recording.unit_names[best]} has {counts[lacking, best]} with {values}"
        )
    return (
        f"pool: no unit has {fewest} trials of each of {len(profiles)} combinations of "
        f"{', '.join(spec.name for spec in specs)}, which train, validation and test need (eligible samples, all steps recorded);"
        f" {listing(told)}"
    )


def _names(units: Sequence[_Unit], sources: Sequence[_Source]) -> list[str]:
    short = [unit.name for unit in units]
    unique = len(set(short)) == len(short)
    return short if unique else [f"{sources[unit.source].recording.manifest.name}/{unit.name}" for unit in units]


def _unit_metadata(units: Sequence[_Unit], sources: Sequence[_Source]) -> dict[str, Any]:
    """Metadata of the units that every recording has."""
    shared: dict[str, Any] = {}
    for key, one in sources[0].recording.dataset.coords.items():
        name = str(key)
        if one.dims != (dims.UNIT,) or name in (dims.UNIT, "recording"):
            continue
        if all(name in source.recording.dataset.coords for source in sources):
            values = [source.recording.dataset[name].values for source in sources]
            shared[name] = (np.array([values[unit.source][unit.column] for unit in units]), dict(one.attrs))
    return shared


def _manifest(
    recordings: Sequence[Recording],
    units: Sequence[_Unit],
    left_out: Sequence[str],
    variables: Sequence[str],
    seed: int,
    replace: bool,
) -> dict[str, Any]:
    """Fields in which all recordings agree, and how they were joined."""
    fields = {}
    for key in ("system", "layer", "task", "access", "control", "licence", "citation", "description"):
        values = {getattr(recording.manifest, key) for recording in recordings}
        if len(values) == 1:
            fields[key] = values.pop()
    controls = [one.name for one in recordings if one.manifest.control]
    if controls and "control" not in fields:
        fields["control"] = f"made from {listing(controls)}, which are controls"
    versions = {key: told for one in recordings for key, told in one.manifest.provenance.versions.items()}
    contents = [one.manifest.content_sha256 for one in recordings]
    named = [
        one.name if content is None else f"{one.name} ({content})"
        for one, content in zip(recordings, contents, strict=True)
    ]
    return fields | {
        "activity_units": recordings[0].manifest.units,
        "sampling": recordings[0].manifest.sampling,
        "pseudo_population": PseudoPopulation(
            variables=tuple(variables), seed=seed, replace=replace, recordings=tuple(named), left_out=tuple(left_out)
        ),
        "provenance": Provenance(
            source=f"{len(recordings)} recordings, {recordings[0].name} to {recordings[-1].name}",
            seed=seed,
            versions=versions,
            notes=f"pseudo-population of {len(units)} units; {len(left_out)} left out",
        ),
    }
