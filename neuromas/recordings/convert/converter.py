"""What a converter is, and how it is found: neuromas's own, and those that other packages bring."""

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
from neuromas.unpacking import largest

GROUP = "neuromas.converters"
"""Entry points of this group bring converters: each names a `Converter`."""


@dataclass(frozen=True)
class Converter:
    """The converter of a foreign format.

    Attributes
    ----------
    name : str
        Name of the format, as in ``--format``.
    endings : tuple of str
        Endings of the file names of this format, each with its dot. If several formats claim a file, the longest ending wins.
    recipe : type of Recipe
        The document that says what to read from a file.
    convert : callable
        ``convert(path, recipe, fields) -> Recording``. `fields` are fields of the manifest that the user gives. They override
        what the file says.
    contents : callable, optional
        ``contents(path) -> list of (name, description)``: what a file holds, for people who write a recipe.
    requires : tuple of str
        Modules that must be importable.
    extra : str
        The extra of neuromas that installs them: ``pip install "neuromas[EXTRA]"``.
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
                    f"format {self.name!r} needs {module}, which is not installed{how}", kind="missing_package"
                ) from error


_OWN = ("nwb.converter", "spikes", "arrays", "tables", "anndata")
"""Modules of this package, each with a tuple ``CONVERTERS``."""


def converters() -> dict[str, Converter]:
    """Every converter by name: neuromas's own, then plug-ins of other packages.

    Raises
    ------
    InvalidInput
        A plug-in cannot be loaded, is not a `Converter`, or has the name of another format.

    Examples
    --------
    >>> "npz" in converters()
    True
    """
    by_name: dict[str, Converter] = {}
    for module in _OWN:
        for converter in import_module(f"{__package__}.{module}").CONVERTERS:
            by_name[converter.name] = converter
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        converter = _plugin(point)
        if converter.name in by_name:
            raise InvalidInput(
                f"converter plug-in {point.value!r}: another format is called {converter.name!r}",
                kind="invalid_plugin",
            )
        by_name[converter.name] = converter
    return by_name


def _plugin(point: EntryPoint) -> Converter:
    try:
        converter = point.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise InvalidInput(
            f"converter plug-in {point.name!r} ({point.value}) cannot be loaded: {error}", kind="invalid_plugin"
        ) from error
    if not isinstance(converter, Converter):
        raise InvalidInput(
            f"converter plug-in {point.name!r} ({point.value}): expected a Converter, got {type(converter).__name__}",
            kind="invalid_plugin",
        )
    return converter


def find_converter(path: Path, name: str | None = None) -> Converter:
    """The converter called `name`, or the one that claims the ending of `path`.

    Raises
    ------
    NotFound
        No format has that name; the message lists the existing ones.
    InvalidInput
        No format has the file's ending; the message lists the known endings.
    """
    by_name = converters()
    if name is not None:
        if name not in by_name:
            raise NotFound(f"no format {name!r}; there are {', '.join(by_name)}", kind="unknown_format")
        return by_name[name]
    if (path / "manifest.json").is_file():  # a stored recording, whatever the name of its folder
        return by_name["zarr"]
    claims = [(ending, converter) for converter in by_name.values() for ending in converter.endings]
    fitting = [claim for claim in claims if path.name.endswith(claim[0])]
    if not fitting:
        endings = ", ".join(sorted({ending for ending, _ in claims}))
        raise InvalidInput(
            f"{path}: no format has this ending; the known endings are {endings}. --format can name the format: "
            f"{', '.join(by_name)}",
            kind="invalid_format",
        )
    return max(fitting, key=lambda claim: len(claim[0]))[1]


def convert(
    path: str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    format: str | None = None,
    largest_gib: float | None = None,
    **fields: Any,
) -> Recording:
    """A recording from a foreign file.

    Parameters
    ----------
    path : str or Path
        File or folder.
    recipe : Recipe, mapping or path of a JSON file, optional
        What to read from the file. Its fields depend on the format (``schemas/``).
    format : str, optional
        Name of the format. By default, the file's ending says it.
    largest_gib : float, optional
        What a compressed file may unpack to, in GiB. By default 1 GiB, or 100 times the size of the file if that is more.
    **fields
        Fields of the manifest, e.g. ``name``, ``system``, ``access``, ``licence``. They override what the file says.

    Returns
    -------
    Recording
        With ``access="read"``, unless `fields` say otherwise. Its provenance names the file, its hash and the recipe.

    Raises
    ------
    NotFound
        The file does not exist, or something that the recipe names is not in it.
    InvalidInput
        The file is not what its ending says, unpacks to too much, its format is unknown, or a library that it needs is not
        installed.
    InvalidDocument
        The recipe, or the recording that it gives, is invalid; lists every problem.

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
        raise NotFound(f"no such file: {path}", kind="unknown_file")
    converter = find_converter(path, format)
    converter.check_requirements()
    with largest(largest_gib):
        try:
            return converter.convert(path, read_recipe(converter, recipe), fields)
        except MemoryError as error:
            raise InvalidInput(f"{path}: needs more memory than there is: {error}", kind="too_large") from error


def read_recipe(converter: Converter, recipe: Recipe | Mapping[str, Any] | str | Path | None) -> Recipe:
    """`recipe` as the converter's own document.

    Raises
    ------
    NotFound, InvalidDocument
        The recipe file does not exist; or the recipe is invalid, with every problem.
    """
    if isinstance(recipe, converter.recipe):
        return recipe
    where = f"recipe for format {converter.name!r}"
    if isinstance(recipe, (str, Path)):
        where = str(recipe)
        try:
            recipe_text = Path(recipe).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"no such recipe file: {recipe}", kind="unknown_file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{recipe}: cannot be read: {error}", kind="unreadable_source") from error
        return converter.recipe.parse(recipe_text, where)
    document = recipe.model_dump(exclude_unset=True) if isinstance(recipe, Recipe) else dict(recipe or {})
    return converter.recipe.parse(document, where)
