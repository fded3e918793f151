"""What converters share: names, provenance, and the one way from arrays to a recording."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from neuromas import dims
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.files import name_from, readable_name, sha256_bytes, sha256_file
from neuromas.provenance import now, versions
from neuromas.recordings.check import listing
from neuromas.recordings.encode import labelled
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.recipe import Recipe
from neuromas.schema.recording import RecordingManifest, VariableSpec


def name_of(path: Path, endings: Sequence[str] = ()) -> str:
    """The name of a recording from a file: the file's without the ending, with ``-`` for what a name cannot hold.

    Examples
    --------
    >>> name_of(Path("data/chick 11_1.62.txt.gz"), (".txt", ".txt.gz"))
    'chick-11_1.62'
    """
    ends = [ending for ending in endings if path.name.endswith(ending)]
    if path.is_dir() and not ends:
        return name_from(_own_name(path), "recording")
    stem = path.name.removesuffix(max(ends, key=len)) if ends else path.stem
    return name_from(stem, "recording")


def _own_name(path: Path) -> str:
    """The name of a file or folder, also of ``.``."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def provenance_of(
    path: Path | None,
    recipe: Recipe,
    notes: Sequence[str] = (),
    libraries: Sequence[str] = (),
    files: Sequence[Path] = (),
) -> Provenance:
    """The source's name and hash, the recipe as JSON, `notes` such as what was left out, and versions.

    Of a folder, `files` are those that were read; by default all.
    """
    texts = [f"recipe {recipe.model_dump_json(exclude_unset=True)}", *filter(None, notes)]
    return Provenance(
        source=readable_name(_own_name(path)) if path is not None else "",
        source_sha256=None if path is None else _hash(path, files),
        created=now(),
        versions=versions(("numpy", *libraries)),
        notes="; ".join(texts),
    )


def _hash(path: Path, files: Sequence[Path] = ()) -> str:
    """SHA-256 of a file; of a folder, of the names and hashes of `files` in order, by default of all its files."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(files or (file for file in path.rglob("*") if file.is_file()))
    lines = [f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n" for file in files]
    return sha256_bytes(os.fsencode("".join(lines)))


def unreadable(path: Path, what: str, error: object) -> InvalidInput:
    """The error for a file that is not what its ending says, is cut off, or is damaged."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidInput(f"{path}: cannot be read as {what}: {lines[0]}", kind="unreadable_source")


def free_names(names: Iterable[str], taken: Iterable[str], prefix: str = "unit_") -> dict[str, str]:
    """For each of `names`, the name of a coordinate that is still free.

    Characters that no coordinate can hold become ``_``. A name in `taken` gets the `prefix`, and then, if need be, a number.

    Examples
    --------
    >>> free_names(["brain area", "side", "brain-area", "trial"], ["side"])
    {'brain area': 'brain_area', 'side': 'unit_side', 'brain-area': 'brain_area_2', 'trial': 'unit_trial'}
    """
    used = {*taken, *dims.RESERVED}
    free: dict[str, str] = {}
    for name in names:
        clean = re.sub(r"\W", "_", name, flags=re.ASCII)
        clean = clean if re.match(r"[A-Za-z_]", clean) else f"_{clean}"
        if clean in used and clean not in free.values():
            clean = f"{prefix}{clean}"
        free[name] = next(candidate for candidate in _numbered(clean) if candidate not in used)
        used.add(free[name])
    return free


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def need_variables(recipe: Recipe, columns: Sequence[str], where: str) -> None:
    """InvalidInput if `recipe` names no variable; lists the columns that variables can be made from."""
    if not recipe.variables:
        raise InvalidInput(
            f"{where}: the recipe names no variable; expected at least one, made from columns such as "
            f"{listing(columns) or 'none'}",
            kind="no_variables",
        )


def check_fields(fields: Mapping[str, Any]) -> None:
    """InvalidDocument if `fields` of a manifest that a user gives are invalid; lists every problem."""
    stand_ins = {"name": "name", "system": "system", "variables": [{"name": "variable", "type": "real"}]}
    checked = {key: value for key, value in fields.items() if key != "variables" or value}
    problems = RecordingManifest.problems(stand_ins | checked)
    if problems:
        raise InvalidDocument("manifest", problems)


def assemble(
    activity: NDArray[Any],
    variables: Mapping[str, ArrayLike],
    specs: Sequence[VariableSpec | Mapping[str, Any]],
    defaults: Mapping[str, Any],
    fields: Mapping[str, Any],
    **arrays: Any,
) -> Recording:
    """`Recording.from_arrays`; the user's `fields` of the manifest override `defaults`, those of the source.

    Variables that `fields` declares override `specs` of the same name.
    """
    check_fields(fields)
    document = {**defaults, **{name: value for name, value in fields.items() if name != "variables"}}
    declared = {
        str(document["name"]): document
        for document in (
            spec.model_dump() if isinstance(spec, VariableSpec) else dict(spec)
            for spec in (*specs, *(fields.get("variables") or ()))
        )
    }
    return Recording.from_arrays(
        activity,
        variables,
        name=document.pop("name"),
        variable_specs=declared,
        activity_units=document.pop("units", None),
        vocabulary=document.pop("vocabulary", None),
        **arrays,
        **document,
    )


def with_provenance(recording: Recording, path: Path, recipe: Recipe, libraries: Sequence[str] = ()) -> Recording:
    """`recording` with the file in its provenance, unless it has a provenance already."""
    if recording.manifest.provenance != Provenance():
        return recording
    provenance = provenance_of(path, recipe, (), libraries)
    manifest = recording.manifest.model_copy(update={"provenance": provenance})
    return Recording(labelled(recording.dataset, manifest), manifest)


def numbered_names(name: str, count: int, fields: Mapping[str, Any]) -> list[str]:
    """Names of `count` recordings of one file.

    Examples
    --------
    >>> numbered_names("day", 2, {}), numbered_names("day", 1, {"name": "mine"})
    (['day-1', 'day-2'], ['mine-1'])
    """
    return [f"{fields.get('name', name)}-{number}" for number in range(1, count + 1)]


def same_source(recordings: Iterable[Recording]) -> list[Recording]:
    """`recordings` of one file, each with the file and the hash that the first one has in its provenance."""
    first, *others = recordings
    origin = first.manifest.provenance
    shared = {"source": origin.source, "source_sha256": origin.source_sha256}
    same = [first]
    for recording in others:
        provenance = recording.manifest.provenance.model_copy(update=shared)
        manifest = recording.manifest.model_copy(update={"provenance": provenance})
        same.append(Recording(labelled(recording.dataset, manifest), manifest))
    return same


def entry(values: NDArray[Any], most: int = 3) -> str:
    """An array in words: shape, dtype and the first few values.

    Examples
    --------
    >>> import numpy as np
    >>> entry(np.array([[1.5, 2.0], [3.0, 4.0]]))
    '(2, 2) float64: 1.5, 2.0, 3.0, …'
    """
    flat = values.ravel()
    examples = ", ".join(str(value) for value in flat[:most].tolist())
    return f"{values.shape} {values.dtype}: {examples}" + (", …" if flat.size > most else "")


def needed(module: str, extra: str) -> Any:
    """`module`, imported; InvalidInput says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInput(
            f'{module} is needed, but is not installed; pip install "neuromas[{extra}]"', kind="missing_package"
        ) from error
