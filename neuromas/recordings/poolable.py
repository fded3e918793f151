"""Which recordings can be pooled into a pseudo-population, and under which codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuromas import dims
from neuromas.errors import InvalidInput, suggestion
from neuromas.recordings.check import listing
from neuromas.recordings.codes import CommonCodes
from neuromas.recordings.meeting import Held, Mismatch, mismatch, other_words, refusal
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import VariableSpec


def alike(
    recordings: Sequence[Recording], variables: Sequence[str], mapping: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[Recording], list[VariableSpec]]:
    """The recordings with equal codes for equal meanings, and what the codes mean; refuses recordings that do not fit."""
    if not recordings or not variables:
        raise InvalidInput(
            f"pool: expected recordings and variables, got {len(recordings)} and {len(variables)}",
            kind="no_recordings",
        )
    if dims.PART in variables:
        raise InvalidInput(
            "pool: a variable cannot be called 'part', the name of the coordinate that says which part a trial belongs to",
            kind="invalid_name",
        )
    pooled = [recording.name for recording in recordings if recording.manifest.pseudo_population is not None]
    if pooled:
        raise InvalidInput(
            f"pool: {listing(pooled)} is a pseudo-population already; if it were divided again, a trial would be in several"
            " parts. Pool the recordings that it was made from",
            kind="pooled",
        )
    _refuse_versions(recordings)
    if mapping:
        recordings = _mapped(recordings, mapping)
    refuse_unlike(recordings, variables, mapping=mapping, shared=True)
    specs = all_meanings(recordings, variables)
    return [recording.relabel(like=specs) for recording in recordings], specs


def _mapped(recordings: Sequence[Recording], mapping: Mapping[str, Mapping[str, Any]]) -> list[Recording]:
    """The recordings under the names that `mapping` gives them."""
    known = [name for recording in recordings for name in dict.fromkeys((recording.name, recording.manifest.name))]
    unknown = [name for name in mapping if name not in known]
    if unknown:
        raise InvalidInput(
            f"pool: mapping for {listing(unknown)}, but the recordings are {listing(known)}{suggestion(unknown[0], known)}",
            kind="invalid_option",
        )
    own = [_entries(recording, mapping) for recording in recordings]
    codes = CommonCodes()
    for recording, entries in zip(recordings, own, strict=True):
        codes.learn_numbers(recording.manifest.variables, entries, {})
    return [
        recording.relabel(entries, like=codes.like([*recording.variable_names, *entries], {})) if entries else recording
        for recording, entries in zip(recordings, own, strict=True)
    ]


def _entries(recording: Recording, mapping: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return mapping.get(recording.name, mapping.get(recording.manifest.name, {}))


def refuse_unlike(
    recordings: Sequence[Recording],
    variables: Sequence[str],
    verb: str = "pool",
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    shared: bool = False,
) -> None:
    """Refuse recordings with different physical units, steps or types of variables; `verb` begins the message.

    `mapping` is what gave the recordings the names and values that they have. If values must be `shared`, categorical variables
    without one in common are refused, too.
    """
    first, others = recordings[0], recordings[1:]
    for other in others:
        _refuse_other_steps(first, other, verb)
    held = [
        {name: _held(recording, name, _entries(recording, mapping or {})) for name in variables}
        for recording in recordings
    ]
    message = refusal(
        problem
        for theirs in held[1:]
        for name in variables
        if (problem := _problem(held[0][name], theirs[name], shared)) is not None
    )
    if message:
        raise InvalidInput(f"{verb}: {message}", kind="recordings_differ")
    differing = [
        f"{here.units!r} in {first.name!r}, {there.units!r} in {other.name!r} (variable {variable!r})"
        for other in others
        for variable in variables
        if (here := first.spec(variable)).units != (there := other.spec(variable)).units
    ]
    if differing:
        raise InvalidInput(f"{verb}: units of variables differ: {'; '.join(differing)}", kind="recordings_differ")


def _problem(first: Held, other: Held, shared: bool) -> Mismatch | None:
    return mismatch(first, other) or (other_words(first, other) if shared else None)


def _refuse_other_steps(first: Recording, other: Recording, verb: str) -> None:
    ours, theirs = first.manifest.sampling, other.manifest.sampling
    for what, mine, its in (
        ("units", first.manifest.units, other.manifest.units),
        ("seconds per step", ours.step_s, theirs.step_s),
        ("time of the first step", ours.start_s, theirs.start_s),
        ("the event at time zero", ours.aligned_to, theirs.aligned_to),
    ):
        if mine != its:
            raise InvalidInput(
                f"{verb}: {what} differ: {mine!r} in {first.name!r}, {its!r} in {other.name!r}",
                kind="recordings_differ",
            )


def _held(recording: Recording, variable: str, mapping: Mapping[str, Any]) -> Held:
    return Held(recording.name, recording.spec(variable), lambda: recording.dataset[variable].values, mapping=mapping)


def _refuse_versions(recordings: Sequence[Recording]) -> None:
    """Refuse two versions of one recording: they hold the same trials of the same units, which would be in several parts."""
    units_by_ancestor: dict[str, tuple[str, set[str]]] = {}
    for recording in recordings:
        units = set(recording.unit_names)
        ancestors = (identified(recording), *recording.manifest.provenance.derived_from)
        for ancestor in ancestors:
            relative, others = units_by_ancestor.get(ancestor, ("", set()))
            if others & units:
                raise InvalidInput(
                    f"pool: {relative!r} and {recording.name!r} are versions of one recording, {ancestor}, and share units"
                    f" {listing(sorted(others & units))}; name one of them",
                    kind="duplicate_unit",
                )
        for ancestor in ancestors:
            name, others = units_by_ancestor.get(ancestor, (recording.name, set()))
            units_by_ancestor[ancestor] = name, others | units


def identified(recording: Recording) -> str:
    """The recording's name, with the hash of its content if it comes from a store."""
    content = recording.manifest.content_sha256
    return recording.name if content is None else f"{recording.name} ({content})"


def all_meanings(recordings: Sequence[Recording], variables: Sequence[str]) -> list[VariableSpec]:
    """Declarations with every meaning that any of the recordings has."""
    specs = []
    for variable in variables:
        spec = recordings[0].spec(variable)
        if spec.meanings is not None:
            meanings = dict.fromkeys(
                text for recording in recordings for text in recording.spec(variable).meanings or ()
            )
            spec = spec.model_copy(update={"values": tuple(range(len(meanings))), "meanings": tuple(meanings)})
        elif any(recording.spec(variable).type == "real" for recording in recordings):
            spec = spec.model_copy(update={"type": "real", "values": None})
        elif spec.values is not None:
            allowed = {value for recording in recordings for value in recording.spec(variable).values or ()}
            spec = spec.model_copy(update={"values": tuple(sorted(allowed))})
        specs.append(spec)
    return specs
