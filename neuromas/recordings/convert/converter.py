"""What a converter is, and how it is found: neuromas's own, and those that other packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.convert.arrow import is_dataset
from neuromas.recordings.convert.file_name import with_file_name
from neuromas.recordings.encode import labelled
from neuromas.recordings.isolation import isolates, read_contents, read_recordings
from neuromas.recordings.outside import following, outside_hashes
from neuromas.recordings.rebin import rebinned
from neuromas.recordings.recording import Recording
from neuromas.recordings.trust import trust, trusting
from neuromas.schema.recipe import Recipe
from neuromas.unpacking import largest

GROUP = "neuromas.converters"
"""Entry points of this group bring converters: each names a `Converter`."""


@dataclass(frozen=True)
class Converter:
    """The converter of a foreign format.

    Its functions run in a child process, which a damaged file may end, if the child finds them by their names. A function of
    a notebook or a lambda runs in this process.

    Attributes
    ----------
    name : str
        Name of the format, as in ``--format``.
    endings : tuple of str
        Endings of the file names of this format, each with its dot. If several formats claim a file, the longest ending wins.
    recipe : type of Recipe
        The document that says what to read from a file.
    convert : callable
        ``convert(path, recipe, fields) -> Recording``, or a list of recordings. `fields` are fields of the manifest that the
        user gives. They override what the file says.
    contents : callable, optional
        ``contents(path) -> list of (name, description)``: what a file holds, for people who write a recipe.
    requires : tuple of str
        Modules that must be importable.
    extra : str
        The extra of neuromas that installs them: ``pip install "neuromas[EXTRA]"``.
    holds : tuple of str
        If the format is a folder: a folder is of this format if it holds one of these files.
    """

    name: str
    endings: tuple[str, ...]
    recipe: type[Recipe]
    convert: Callable[[Path, Any, Mapping[str, Any]], Recording | list[Recording]]
    contents: Callable[[Path], list[tuple[str, str]]] | None = None
    requires: tuple[str, ...] = field(default=())
    extra: str = ""
    holds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "convert", _apart(self.convert, self.requires))
        if self.contents is not None:
            object.__setattr__(self, "contents", _contents_apart(self.contents, self.requires))

    def check_requirements(self) -> None:
        """InvalidInput if a library that this needs is not installed."""
        for module in self.requires:
            if find_spec(module) is None:
                how = f'; pip install "neuromas[{self.extra}]"' if self.extra else ""
                raise InvalidInput(
                    f"format {self.name!r} needs {module}, which is not installed{how}", kind="missing_package"
                )


def _apart(
    convert: Callable[[Path, Any, Mapping[str, Any]], Recording | list[Recording]], requires: Sequence[str]
) -> Callable[[Path, Any, Mapping[str, Any]], Recording | list[Recording]]:
    """`convert` in a child process, unless files are to be read in this one."""

    @wraps(convert)
    def read(path: Path, recipe: Any, fields: Mapping[str, Any]) -> Recording | list[Recording]:
        if not isolates(convert):
            recordings = _converted(convert, path, recipe, fields)
        else:
            preload = _preload(convert, requires)
            read = read_recordings(path, _converted, convert, path, recipe, dict(fields), preload=preload)
            recordings = [Recording(dataset, manifest) for dataset, manifest in read]
        return recordings[0] if len(recordings) == 1 else recordings

    return read


def _contents_apart(
    contents: Callable[[Path], list[tuple[str, str]]], requires: Sequence[str]
) -> Callable[[Path], list[tuple[str, str]]]:
    """`contents` in a child process, unless files are to be read in this one."""

    @wraps(contents)
    def read(path: Path) -> list[tuple[str, str]]:
        if not isolates(contents):
            return contents(path)
        return read_contents(path, contents, path, preload=_preload(contents, requires))

    return read


def _preload(function: Callable[..., Any], requires: Sequence[str]) -> tuple[str, ...]:
    """Modules that children may share: neuromas's own, not those of a package that may change meanwhile."""
    module = function.__module__
    return (module, *requires) if module.startswith("neuromas.") else ()


def _converted(
    convert: Callable[[Path, Any, Mapping[str, Any]], Recording | list[Recording]],
    path: Path,
    recipe: Any,
    fields: Mapping[str, Any],
) -> list[Recording]:
    """The recordings, with the hashes of the files that their source refers to."""
    with following() as followed:
        made = convert(path, recipe, fields)
    recordings = made if isinstance(made, list) else [made]
    hashes = outside_hashes(path, followed) if trust().allow_external else {}
    return [_with_hashes(recording, hashes) for recording in recordings] if hashes else recordings


def _with_hashes(recording: Recording, hashes: Mapping[str, str]) -> Recording:
    provenance = recording.manifest.provenance.model_copy(update={"external_sha256": hashes})
    manifest = recording.manifest.model_copy(update={"provenance": provenance})
    return recording.replaced(labelled(recording.dataset, manifest), manifest)


_OWN = ("nwb.converter", "spike_cells", "phy", "suite2p", "arrays", "tensors", "tables", "anndata", "eeglab")
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
    """The converter called `name`, or the one that claims the ending of `path` or what a folder holds.

    Raises
    ------
    NotFound
        No format has that name; the message lists the existing ones.
    InvalidInput
        No format has the file's ending, or the folder's files; the message lists the known ones.
    """
    by_name = converters()
    if name is not None:
        if name not in by_name:
            raise NotFound(f"no format {name!r}; there are {', '.join(by_name)}", kind="unknown_format")
        return by_name[name]
    if (path / "manifest.json").is_file():  # a stored recording, whatever the name of its folder
        return by_name["zarr"]
    if is_dataset(path):
        return by_name["arrow"]
    for converter in by_name.values():
        if any((path / name).is_file() for name in converter.holds):
            return converter
    claims = [(ending, converter) for converter in by_name.values() for ending in converter.endings]
    fitting = [claim for claim in claims if path.name.endswith(claim[0])]
    if not fitting:
        endings = ", ".join(sorted({ending for ending, _ in claims}))
        folders = "; ".join(f"{name}: {' or '.join(own.holds)}" for name, own in by_name.items() if own.holds)
        held = f" Folders are known by a file that they hold ({folders})." if path.is_dir() else ""
        raise InvalidInput(
            f"{path}: no format has this ending; the known endings are {endings}.{held} --format can name the format: "
            f"{', '.join(by_name)}",
            kind="invalid_format",
        )
    return max(fitting, key=lambda claim: len(claim[0]))[1]


def convert(
    path: str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    format: str | None = None,
    allow_external: bool = False,
    in_process: bool = False,
    timeout_s: float | None = None,
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
    allow_external : bool
        Whether to read other files that the file refers to: by HDF5's external links, virtual datasets and external storage,
        or by symbolic links in a folder. The provenance then holds their hashes.
    in_process : bool
        Whether to read the file in this process. By default a child process does, because a damaged file can crash the libraries
        that read it.
    timeout_s : float, optional
        Seconds that the child process may take. By default 2 minutes, and a second more per MiB of the file.
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
        The file is not what its ending says, refers to other files, unpacks to too much, crashes its reader or keeps it too
        long; its format is unknown, a library that it needs is not installed, or the recipe makes several recordings of it
        (`convert_all`).
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
    recordings = convert_all(
        path,
        recipe,
        format=format,
        allow_external=allow_external,
        in_process=in_process,
        timeout_s=timeout_s,
        largest_gib=largest_gib,
        **fields,
    )
    if len(recordings) != 1:
        raise InvalidInput(
            f"{path}: the recipe makes {len(recordings)} recordings of this file; expected one. convert_all gives all of them",
            kind="invalid_recipe",
        )
    return recordings[0]


def convert_all(
    path: str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    format: str | None = None,
    allow_external: bool = False,
    in_process: bool = False,
    timeout_s: float | None = None,
    largest_gib: float | None = None,
    **fields: Any,
) -> list[Recording]:
    """Every recording that a recipe makes of a foreign file; parameters and errors are those of `convert`.

    Most recipes make one. With ``each``, there is one for every element of a struct array, e.g. for units with trials of their
    own. `NAME-1`, `NAME-2`, … are their names.
    """
    path = Path(path)
    if not path.exists():
        raise NotFound(f"no such file: {path}", kind="unknown_file")
    converter = find_converter(path, format)
    converter.check_requirements()
    options = {"allow_external": allow_external, "in_process": in_process, "timeout_s": timeout_s}
    with trusting(**{name: value for name, value in options.items() if value}), largest(largest_gib):
        try:
            settled = with_file_name(read_recipe(converter, recipe), path)
            if settled.behaviour is not None:
                fields = {"behaviour": settled.behaviour, **fields}
            recordings = converter.convert(path, settled, fields)
        except MemoryError as error:
            raise InvalidInput(f"{path}: needs more memory than there is: {error}", kind="too_large") from error
    recordings = recordings if isinstance(recordings, list) else [recordings]
    if settled.steps_per_bin is None:
        return recordings
    return [rebinned(recording, settled.steps_per_bin, settled.bin_by) for recording in recordings]


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
