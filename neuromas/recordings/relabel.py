"""Variables and values of one system under the names that another system gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.recordings.check import listing
from neuromas.recordings.encode import labelled, small_codes, small_integers
from neuromas.schema.recording import RecordingManifest, VariableSpec, as_number


def relabel(
    name: str,
    dataset: xr.Dataset,
    manifest: RecordingManifest,
    mapping: Mapping[str, tuple[str, Mapping[Any, Any]]],
    references: Mapping[str, VariableSpec],
) -> tuple[xr.Dataset, RecordingManifest]:
    """Dataset and manifest with renamed variables and values; activity is shared.

    Parameters
    ----------
    name : str
        The recording's name, for messages.
    dataset : xarray.Dataset
    manifest : RecordingManifest
    mapping : mapping of str to (str, mapping)
        Canonical name of a variable → its name in this recording, and canonical value → value here, as `mapping_entry`
        reads them. Every name in the recording exists.
    references : mapping of str to VariableSpec
        Declarations, by canonical name, whose codes to use for equal meanings. Where one holds numbers, the mapping's values are
        numbers.

    Raises
    ------
    NotFound
        A value is not in the recording; lists those that are.
    InvalidInput
        Two variables or values would have the same name.
    """
    sources = _by_name_here(mapping)
    names = [variable.name for variable in manifest.variables]
    new_names = [sources[name][0] if name in sources else name for name in names]
    all_names = [*new_names, *(str(name) for name in dataset.coords if name not in names)]
    twice = sorted({name for name in new_names if all_names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"mapping: recording {name!r} would have two coordinates called {listing(twice)}", kind="invalid_mapping"
        )
    specs: list[VariableSpec] = []
    renamed = dataset.drop_vars(names)
    for variable, new in zip(manifest.variables, new_names, strict=True):
        values = sources.get(variable.name, (new, {}))[1]
        stored = np.asarray(dataset[variable.name].values)
        spec, recoded = relabelled(variable, new, values, references.get(new), stored)
        specs.append(spec)
        renamed = renamed.assign_coords({new: (dims.SAMPLE, recoded)})
    behaviour = dict(zip(names, new_names, strict=True)).get(manifest.behaviour or "", manifest.behaviour)
    update: dict[str, Any] = {"variables": tuple(specs), "behaviour": behaviour, "content_sha256": None, "files": {}}
    manifest = manifest.model_copy(update=update)
    return labelled(renamed, manifest), manifest


def _by_name_here(mapping: Mapping[str, tuple[str, Mapping[Any, Any]]]) -> dict[str, tuple[str, Mapping[Any, Any]]]:
    """Name in this recording → canonical name, and canonical value → value here."""
    sources: dict[str, tuple[str, Mapping[Any, Any]]] = {}
    for canonical, (here, values) in mapping.items():
        if here in sources:
            raise InvalidInput(
                f"mapping: both {sources[here][0]!r} and {canonical!r} are mapped to variable {here!r}",
                kind="invalid_mapping",
            )
        sources[here] = (canonical, values)
    return sources


def mapping_entry(canonical: str, entry: object) -> tuple[str, Mapping[Any, Any]]:
    """(name here, canonical value → value here) of one entry of a mapping."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping):
        unknown = sorted(str(key) for key in set(entry) - {"name", "values"})
        name, values = entry.get("name", canonical), entry.get("values", {})
        if not unknown and isinstance(name, str) and isinstance(values, Mapping):
            return name, values
    raise InvalidInput(
        f"mapping: {canonical!r}: expected a variable's name or {{'name': …, 'values': {{canonical: here}}}}, "
        f"got {entry!r}",
        kind="invalid_mapping",
    )


@dataclass
class _Renaming:
    """What becomes of each value of a variable.

    Attributes
    ----------
    meaning : dict of float to str or None
        Code here → its canonical meaning; None where a value is only a number.
    number : dict of float to float
        Code here → its canonical number.
    fixed : set of float
        Codes here whose canonical number the mapping gives.
    mapped : set of float
        Codes here that the mapping mentions.
    """

    meaning: dict[float, str | None]
    number: dict[float, float]
    fixed: set[float]
    mapped: set[float]

    @property
    def codes(self) -> list[float]:
        return list(self.number)


def relabelled(
    spec: VariableSpec,
    name: str,
    renames: Mapping[Any, Any],
    reference: VariableSpec | None,
    values: NDArray[Any],
) -> tuple[VariableSpec, NDArray[Any]]:
    """The variable under its canonical name and values, and its samples' numbers recoded to match."""
    if spec.type == "real" and not renames:
        return spec.model_copy(update={"name": name}), values
    renaming = _renaming(spec, renames, values, reference)
    if spec.meanings is not None and _has_numbers(reference) and renaming.fixed:
        return _as_numbers(spec, name, _only_numbers(spec, renaming, values), values, reference)
    if any(text is not None for text in renaming.meaning.values()):
        return _as_meanings(spec, name, renaming, reference, values)
    if renames:
        return _as_numbers(spec, name, renaming, values, reference)
    return spec.model_copy(update={"name": name}), values


def _has_numbers(reference: VariableSpec | None) -> bool:
    """Whether the variable that this one is to be compared with holds numbers."""
    return reference is not None and reference.meanings is None


def _only_numbers(spec: VariableSpec, renaming: _Renaming, values: NDArray[Any]) -> _Renaming:
    """The values to which the mapping gives numbers; InvalidInput if a recorded one is not among them."""
    left = [spec.label(code) for code in np.unique(values).tolist() if code not in renaming.fixed]
    if left:
        raise InvalidInput(
            f"mapping: values of {spec.name!r} are mapped to numbers, but {listing(left)} is not; map every recorded value, or"
            " select the samples that have a number first (where=)",
            kind="invalid_mapping",
        )
    number = {code: renaming.number[code] for code in renaming.codes if code in renaming.fixed}
    return _Renaming(dict.fromkeys(number), number, renaming.fixed, renaming.mapped)


def _renaming(
    spec: VariableSpec, renames: Mapping[Any, Any], values: NDArray[Any], reference: VariableSpec | None
) -> _Renaming:
    """What the mapping says about each value that is allowed or, without declared values, recorded."""
    codes = list(spec.values) if spec.values is not None else [value.item() for value in np.unique(values)]
    meaning = {code: spec.label(code) if spec.meanings is not None else None for code in codes}
    renaming = _Renaming(meaning, {code: code for code in codes}, set(), set())
    for asked, here in renames.items():
        canonical = _canonical(asked, spec, reference)
        for value in here if isinstance(here, (list, tuple, set)) else [here]:
            code = _code(spec, value, codes)
            renaming.mapped.add(code)
            if isinstance(canonical, str):
                renaming.meaning[code] = canonical
            else:
                renaming.number[code] = canonical
                renaming.fixed.add(code)
    return renaming


def _canonical(asked: Any, spec: VariableSpec, reference: VariableSpec | None) -> Any:
    """A canonical value as the mapping means it: a meaning of the reference, a number, or a new meaning.

    Keys of a mapping that came as JSON are always text. They are numbers where they meet numbers.
    """
    if reference is not None and reference.meanings is not None:
        try:
            return reference.label(reference.code(asked))
        except KeyError:
            return asked
    number = as_number(asked) if isinstance(asked, str) else None
    if number is None or (spec.meanings is not None and not _has_numbers(reference)):
        return asked
    if number.is_integer():
        return int(number)
    return number if _has_numbers(reference) else asked


def _code(spec: VariableSpec, value: object, codes: Sequence[float]) -> float:
    try:
        code = spec.code(value)
    except KeyError:
        code = float("nan")
    if code in codes:
        return code
    existing = [spec.label(code) for code in codes]
    raise NotFound(
        f"mapping: variable {spec.name!r} has no value {value!r}; it has {listing(existing)}"
        + suggestion(value, existing),
        kind="unknown_value",
    )


def _as_numbers(
    spec: VariableSpec, name: str, renaming: _Renaming, values: NDArray[Any], reference: VariableSpec | None
) -> tuple[VariableSpec, NDArray[Any]]:
    codes = renaming.codes
    table = np.array([renaming.number[code] for code in codes], dtype=np.float64)
    whole = np.array_equal(table, np.rint(table))
    if not whole and not _has_numbers(reference):
        raise InvalidInput(
            f"mapping: {spec.name!r} is {spec.type}, so its values map to whole numbers or to meanings",
            kind="invalid_mapping",
        )
    _refuse_silent_merge(spec.name, {code: f"{renaming.number[code]:g}" for code in codes}, renaming.mapped)
    mapped = _lookup(codes, table, values)
    units = reference.units if spec.meanings is not None and reference is not None else spec.units
    described: dict[str, Any] = {"name": name, "description": spec.description, "units": units}
    if not whole:
        return VariableSpec(type="real", **described), mapped
    allowed = None if spec.values is None else tuple(dict.fromkeys(int(value) for value in table))
    return VariableSpec(type="integer", values=allowed, **described), small_integers(mapped.astype(np.int64))


def _as_meanings(
    spec: VariableSpec, name: str, renaming: _Renaming, reference: VariableSpec | None, values: NDArray[Any]
) -> tuple[VariableSpec, NDArray[Any]]:
    codes = renaming.codes
    texts = {code: text if text is not None else f"{code:g}" for code, text in renaming.meaning.items()}
    _refuse_silent_merge(spec.name, texts, renaming.mapped)
    code_of = _canonical_codes(renaming, texts, reference)
    pairs = sorted((code, text) for text, code in code_of.items())
    renamed = VariableSpec(
        name=name,
        type="categorical",
        values=tuple(code for code, _ in pairs),
        meanings=tuple(text for _, text in pairs),
        description=spec.description,
    )
    table = np.array([code_of[texts[code]] for code in codes])
    return renamed, small_codes(_lookup(codes, table, values), [code for code, _ in pairs])


def _canonical_codes(renaming: _Renaming, texts: Mapping[float, str], reference: VariableSpec | None) -> dict[str, int]:
    """Meaning → code: that of the reference, else the one that the mapping gives, else the old one or the next free."""
    in_reference: dict[str, int] = {}
    if reference is not None and reference.meanings is not None and reference.values is not None:
        in_reference = dict(zip(reference.meanings, (int(code) for code in reference.values), strict=True))
    code_of: dict[str, int] = {}
    used = set(in_reference.values())
    for code in sorted(renaming.codes, key=lambda code: code not in renaming.fixed):
        text = texts[code]
        if text in code_of:
            continue
        canonical = in_reference.get(text, int(renaming.number[code]))
        while text not in in_reference and canonical in used:
            canonical = max(used) + 1
        code_of[text] = canonical
        used.add(canonical)
    return code_of


def _refuse_silent_merge(name: str, meanings: Mapping[float, str], mapped: set[float]) -> None:
    """Two values may become one only if the mapping mentions both."""
    for code, text in meanings.items():
        if code not in mapped and sum(other == text for other in meanings.values()) > 1:
            raise InvalidInput(
                f"mapping: two values of {name!r} would mean {text!r}; map both to it if they are to count as one",
                kind="invalid_mapping",
            )


def _lookup(codes: Sequence[float], table: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """`table` at the position that each of `values` has in `codes`."""
    order = np.argsort(codes, kind="stable")
    return table[order[np.searchsorted(np.asarray(codes)[order], values)]]
