"""Register recordings: foreign files or stored ones into a recording set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromas.errors import InvalidInput, NeuromasError
from neuromas.recordings.convert.converter import convert_all, find_converter
from neuromas.recordings.join import join
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import resolve_store
from neuromas.recordings.store.store import RecordingStore
from neuromas.recordings.trust import trusting
from neuromas.schema.actions import RegisterRequest
from neuromas.schema.document import merged
from neuromas.unpacking import largest


@dataclass(frozen=True)
class Registered:
    """A recording that is in a store now.

    Attributes
    ----------
    name : str
        SET/RECORDING.
    recording : Recording
    unchanged : bool
        Whether it was there before, with the same content.
    """

    name: str
    recording: Recording
    unchanged: bool


@dataclass(frozen=True)
class SourceContents:
    """What a foreign file holds.

    Attributes
    ----------
    source, format : str
    contents : list of (str, str) or None
        What there is and which; None if the format cannot say.
    recordings : tuple of Recording
        What would be registered; empty as long as a recipe is missing.
    problem : NeuromasError or None
        Why nothing would be registered.
    """

    source: str
    format: str
    contents: list[tuple[str, str]] | None
    recordings: tuple[Recording, ...] = ()
    problem: NeuromasError | None = None


def register(request: RegisterRequest, *, store: RecordingStore | None = None) -> list[Registered]:
    """Publish recordings in a store: all of them, or none.

    Parameters
    ----------
    request : RegisterRequest
    store : RecordingStore, optional
        In place of ``request.store``.

    Returns
    -------
    list of Registered
        In the order of the sources.

    Raises
    ------
    InvalidInput
        A name for several sources, or a source that cannot become a recording.
    NotFound
        A source or column that does not exist.
    Conflict
        The set holds other content under this name.
    StorageFailed, ReadOnly
        The store cannot be written.

    Examples
    --------
    >>> register(RegisterRequest(sources=("none.npz",), set="lab"))
    Traceback (most recent call last):
    neuromas.errors.NotFound: no such file: none.npz
    """
    _check_name(request)
    store = resolve_store(request.store) if store is None else store
    recordings = [
        recording
        for source in request.sources
        for recording in convert_all(
            Path(source),
            recipe_of(request),
            format=request.format,
            largest_gib=request.largest_gib,
            **_trust(request),
            **_fields(request),
        )
    ]
    if request.join:
        recordings = [join(recordings, name=request.name)]
    return publish(store, recordings, request.set, request.group_by)


def preview(request: RegisterRequest) -> list[SourceContents]:
    """What the sources hold and what would be registered; nothing is written.

    Raises
    ------
    InvalidInput, NotFound
        A source does not exist, or its format is unknown. What else is wrong is in ``problem``.
    """
    _check_name(request)
    recipe, previews = recipe_of(request), []
    for source in request.sources:
        contents, name = None, request.format or ""
        if Path(source).exists():
            converter = find_converter(Path(source), request.format)
            converter.check_requirements()
            name = converter.name
            if converter.contents is not None:
                with trusting(**_trust(request)), largest(request.largest_gib):
                    contents = list(converter.contents(Path(source)))
            if recipe is None and converter.contents is not None and converter.recipe.problems({}):
                previews.append(SourceContents(source, name, contents))
                continue
        try:
            recordings = convert_all(
                Path(source),
                recipe,
                format=request.format,
                largest_gib=request.largest_gib,
                **_trust(request),
                **_fields(request),
            )
        except NeuromasError as problem:
            if contents is None:
                raise
            previews.append(SourceContents(source, name, contents, problem=problem))
        else:
            previews.append(SourceContents(source, name, contents, tuple(recordings)))
    return previews


def publish(
    store: RecordingStore, recordings: Sequence[Recording], set_name: str, group_by: Sequence[str] = ()
) -> list[Registered]:
    """Publish `recordings` in `store`; errors are those of `register`."""
    before = {entry.name for entry in store.list()}
    names = store.register(recordings, set=set_name, group_by=group_by)
    return [Registered(name, recording, name in before) for name, recording in zip(names, recordings, strict=True)]


def recipe_of(request: RegisterRequest) -> dict[str, Any] | None:
    """The recipe that the request spells: the document, then its options, then its variables; None if there is none."""
    recipe = merged(request.recipe or {}, request.option)
    return merged(recipe, {"variables": request.variable} if request.variable else {}) or None


def _check_name(request: RegisterRequest) -> None:
    if request.name is not None and len(request.sources) > 1 and not request.join:
        raise InvalidInput(
            f"a name is for one source, got {len(request.sources)} sources: {', '.join(request.sources)}; join= makes one"
            " recording of them",
            kind="invalid_option",
        )


def _trust(request: RegisterRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("allow_external", "in_process", "timeout_s")}


def _fields(request: RegisterRequest) -> dict[str, Any]:
    # joined sources keep names of their own
    explicit = {"name": None if request.join else request.name, "access": request.access}
    declared = {"missing": True} if request.missing else {}
    return {**request.manifest, **declared, **{key: value for key, value in explicit.items() if value is not None}}
