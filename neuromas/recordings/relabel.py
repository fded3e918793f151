"""Variables and values of one system under the names that another gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.encode import small_codes, small_integers
from neuromas.schema.recording import VariableSpec


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
        kind="mapping",
    )


def relabelled(
    spec: VariableSpec,
    name: str,
    renames: Mapping[Any, Any],
    reference: VariableSpec | None,
    values: NDArray[Any],
) -> tuple[VariableSpec, NDArray[Any]]:
    """The variable under its canonical name and values, and its samples' numbers recoded to match."""
    if spec.type == "real":
        if renames:
            raise InvalidInput(f"mapping: {spec.name!r} is real; only its name can be mapped", kind="mapping")
        return spec.model_copy(update={"name": name}), values
    present = np.unique(values)
    codes = list(spec.values) if spec.values is not None else [value.item() for value in present]
    meaning = {code: spec.label(code) if spec.meanings is not None else None for code in codes}
    number = {code: code for code in codes}  # code here → canonical number
    fixed: set[float] = set()  # codes here whose canonical number the mapping gives
    mapped: set[float] = set()  # codes here that the mapping mentions
    for canonical, here in renames.items():
        if spec.meanings is None and isinstance(canonical, str) and canonical.lstrip("-").isdigit():
            canonical = int(canonical)  # a mapping that came as JSON, whose keys are always text
        for value in here if isinstance(here, (list, tuple, set)) else [here]:
            try:
                code = spec.code(value)
            except KeyError:
                code = float("nan")
            if code not in number:
                existing = [spec.label(known) for known in codes]
                raise NotFound(
                    f"mapping: variable {spec.name!r} has no value {value!r}; it has {listing(existing)}",
                    kind="unknown_value",
                )
            mapped.add(code)
            if isinstance(canonical, str):
                meaning[code] = canonical
            else:
                number[code] = canonical
                fixed.add(code)
    if all(text is None for text in meaning.values()):
        if not renames:
            return spec.model_copy(update={"name": name}), values
        table = np.array([number[code] for code in codes], dtype=np.float64)
        if not np.array_equal(table, np.rint(table)):
            raise InvalidInput(
                f"mapping: {spec.name!r} is integer, so its values map to whole numbers or to meanings", kind="mapping"
            )
        allowed = None if spec.values is None else tuple(dict.fromkeys(int(value) for value in table))
        _refuse_silent_merge(spec.name, {code: f"{number[code]:g}" for code in codes}, mapped)
        made = VariableSpec(name=name, type="integer", values=allowed, description=spec.description, units=spec.units)
        return made, small_integers(_lookup(codes, table, values).astype(np.int64))
    texts = {code: text if text is not None else f"{code:g}" for code, text in meaning.items()}
    _refuse_silent_merge(spec.name, texts, mapped)
    known = {}
    if reference is not None and reference.meanings is not None and reference.values is not None:
        known = dict(zip(reference.meanings, (int(code) for code in reference.values), strict=True))
    canonical_code: dict[str, int] = {}  # meaning → canonical code
    taken = set(known.values())
    for code in sorted(codes, key=lambda code: code not in fixed):
        text = texts[code]
        if text in canonical_code:
            continue
        wanted = known.get(text, int(number[code]))
        while text not in known and wanted in taken:
            wanted = max(taken) + 1
        canonical_code[text] = wanted
        taken.add(wanted)
    table = np.array([canonical_code[texts[code]] for code in codes])
    pairs = sorted((code, text) for text, code in canonical_code.items())
    made = VariableSpec(
        name=name,
        type="categorical",
        values=tuple(code for code, _ in pairs),
        meanings=tuple(text for _, text in pairs),
        description=spec.description,
    )
    return made, small_codes(_lookup(codes, table, values), [code for code, _ in pairs])


def _refuse_silent_merge(name: str, meanings: Mapping[float, str], mapped: set[float]) -> None:
    """Values may become one only if the mapping says so of each of them."""
    for code, text in meanings.items():
        if code not in mapped and sum(other == text for other in meanings.values()) > 1:
            raise InvalidInput(
                f"mapping: two values of {name!r} would mean {text!r}; map both to it if they are to count as one",
                kind="mapping",
            )


def _lookup(codes: Sequence[float], table: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """`table` at the position that each of `values` has in `codes`."""
    order = np.argsort(codes, kind="stable")
    return table[order[np.searchsorted(np.asarray(codes)[order], values)]]
