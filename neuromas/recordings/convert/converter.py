"""What a converter is, and where it is found: those that come along, and those that other packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import Recipe

GROUP = "neuromas.converters"
"""Entry points of this group bring converters: each names a `Converter`."""


@dataclass(frozen=True)
class Converter:
    """One foreign format.

    Attributes
    ----------
    name : str
        What ``--format`` calls it.
    endings : tuple of str
        File names that it claims, each with its dot, longest match first.
    recipe : type of Recipe
        The document that says what is taken.
    convert : callable
        ``convert(path, recipe, fields) -> Recording``. `fields` are fields of the manifest that the user gave; they go
        before what the file says.
    contents : callable, optional
        ``contents(path) -> list of (what, told)``: what there is in a file to choose from, for people.
    requires : tuple of str
        Modules that must be importable.
    extra : str
        What ``pip install "neuromas[EXTRA]"`` brings them.
    """

    name: str
    endings: tuple[str, ...]
    recipe: type[Recipe]
    convert: Callable[[Path, Any, Mapping[str, Any]], Recording]
    contents: Callable[[Path], list[tuple[str, str]]] | None = None
    requires: tuple[str, ...] = field(default=())
    extra: str = ""

    def check_requirements(self) -> None:
        """InvalidInput if a library that this needs is not installed."""
        for module in self.requires:
            try:
                import_module(module)
            except ImportError as error:
                how = f'; pip install "neuromas[{self.extra}]"' if self.extra else ""
                raise InvalidInput(
                    f"format {self.name!r} needs {module}, which is not installed{how}", kind="missing_extra"
                ) from error


_OWN = ("nwb.converter", "spikes", "arrays", "tables", "anndata")
"""Modules of this package, each with a tuple ``CONVERTERS``."""


def converters() -> dict[str, Converter]:
    """Every converter by name: neuromas's own, then plug-ins of other packages.

    Raises
    ------
    InvalidInput
        A plug-in cannot be loaded, is no `Converter`, or takes another's name.

    Examples
    --------
    >>> "npz" in converters()
    True
    """
    found: dict[str, Converter] = {}
    for module in _OWN:
        for one in import_module(f"{__package__}.{module}").CONVERTERS:
            found[one.name] = one
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        one = _plugin(point)
        if one.name in found:
            raise InvalidInput(
                f"converter plug-in {point.value!r}: the format {one.name!r} is taken already", kind="converter_plugin"
            )
        found[one.name] = one
    return found


def _plugin(point: EntryPoint) -> Converter:
    try:
        one = point.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise InvalidInput(
            f"converter plug-in {point.name!r} ({point.value}) cannot be loaded: {error}", kind="converter_plugin"
        ) from error
    if not isinstance(one, Converter):
        raise InvalidInput(
            f"converter plug-in {point.name!r} ({point.value}): expected a Converter, got {type(one).__name__}",
            kind="converter_plugin",
        )
    return one


def find_converter(path: Path, name: str | None = None) -> Converter:
    """The converter called `name`, or the one that claims the ending of `path`.

    Raises
    ------
    NotFound
        There is no format of that name; lists those there are.
    InvalidInput
        Nobody claims the ending; lists the endings that are known.
    """
    known = converters()
    if name is not None:
        if name not in known:
            raise NotFound(f"no format {name!r}; there are {', '.join(known)}", kind="unknown_format")
        return known[name]
    if (path / "manifest.json").is_file():  # a stored recording, whatever its folder is called
        return known["zarr"]
    claims = [(ending, one) for one in known.values() for ending in one.endings if path.name.endswith(ending)]
    if not claims:
        endings = sorted({ending for one in known.values() for ending in one.endings})
        raise InvalidInput(
            f"{path}: no format claims this ending; known are {', '.join(endings)}. --format names one: {', '.join(known)}",
            kind="unknown_format",
        )
    return max(claims, key=lambda claim: len(claim[0]))[1]


def convert(
    path: str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    format: str | None = None,
    **fields: Any,
) -> Recording:
    """A recording from a foreign file.

    Parameters
    ----------
    path : str or Path
        File or folder.
    recipe : Recipe, mapping or path of a JSON file, optional
        What is taken; which fields there are depends on the format (``schemas/``).
    format : str, optional
        Name of the converter; by default the one that claims the file's ending.
    **fields
        Fields of the manifest, e.g. ``name``, ``system``, ``access``, ``licence``; they go before what the file says.

    Returns
    -------
    Recording
        With ``access="read"`` unless told otherwise; its provenance names the file, its hash and the recipe.

    Raises
    ------
    NotFound
        There is no such file, or nothing in it by a name that the recipe gives.
    InvalidInput
        The file is not what its ending says, no format claims it, or a library is needed that is not installed.
    InvalidDocument
        The recipe, or what came of it, is unusable; lists every problem.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/toy.npz", rates=np.zeros((3, 4)), stimulus=[1, 2, 3])
    ...     convert(f"{folder}/toy.npz", {"activity": "rates", "variables": {"odd": "stimulus % 2 == 1"}}).describe()
    [('odd', 'categorical: false, true')]
    """
    path = Path(path)
    if not path.exists():
        raise NotFound(f"no such file: {path}", kind="no_such_file")
    converter = find_converter(path, format)
    converter.check_requirements()
    return converter.convert(path, read_recipe(converter, recipe), fields)


def read_recipe(converter: Converter, recipe: Recipe | Mapping[str, Any] | str | Path | None) -> Recipe:
    """`recipe` as the converter's own document.

    Raises
    ------
    NotFound, InvalidDocument
        No such file; or it breaks the schema, with every problem.
    """
    if isinstance(recipe, converter.recipe):
        return recipe
    where = f"recipe for format {converter.name!r}"
    if isinstance(recipe, (str, Path)):
        where = str(recipe)
        try:
            recipe_text = Path(recipe).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"no such recipe file: {recipe}", kind="no_such_file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{recipe}: cannot be read: {error}", kind="unreadable_source") from error
        return converter.recipe.parse(recipe_text, where)
    document = recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else dict(recipe or {})
    return converter.recipe.parse(document, where)
