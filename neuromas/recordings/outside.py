"""What a file reads from other files: HDF5's links, virtual datasets and external storage, and symbolic links in a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from neuromas.errors import InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.recordings.trust import trust

_MOST = 2**22
"""Objects, links and references of a file that are looked at."""
_MOST_FILES = 10_000
_DEEPEST = 1000
_LINK, _VIRTUAL, _RAW, _SYMBOLIC = "external link", "virtual dataset", "external raw storage", "symbolic link"
_PREFIXES = {_LINK: "HDF5_EXT_PREFIX", _VIRTUAL: "HDF5_VDS_PREFIX", _RAW: "HDF5_EXTFILE_PREFIX"}
"""Environment variables with folders in which HDF5 looks first."""


@dataclass(frozen=True)
class Reference:
    """A part of a file that lies in another file.

    Attributes
    ----------
    place : str
        Where it is in the file that refers.
    sort : str
        How it refers: by a link, a virtual dataset, external storage or a symbolic link.
    file : str
        The other file, as it is named.
    within : str
        What is read there, if that is named.
    n_bytes : int
        How long the other file must be at least.
    """

    place: str
    sort: str
    file: str
    within: str = ""
    n_bytes: int = 0


def refuse_outside(path: Path) -> None:
    """InvalidInput if the file or folder at `path` refers to other files, and that is not allowed.

    Examples
    --------
    >>> import h5py, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/a.h5", "w") as file:
    ...         file["rates"] = h5py.ExternalLink("b.h5", "/rates")
    ...     references(Path(folder, "a.h5"))
    ...     refuse_outside(Path(folder, "a.h5"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    neuromas.errors.InvalidInput: ...a.h5: '/rates' lies in another file, 'b.h5' (external link); ...
    """
    if trust().allow_external:
        return
    for reference in references(path):
        raise refused(path, reference)


def refused(path: Path, reference: Reference) -> InvalidInput:
    """The error for a file that refers to another one."""
    return InvalidInput(
        f"{path}: {reference.place!r} lies in another file, {reference.file!r} ({reference.sort}); other files are read only "
        "if you allow it: allow_external=True (--allow-external)",
        kind="external_files",
    )


def symbolic_link(place: str, target: Path) -> Reference:
    """The reference of a symbolic link at `place`."""
    return Reference(place, _SYMBOLIC, str(target))


_followed: ContextVar[list[Path] | None] = ContextVar("followed", default=None)


@contextmanager
def following() -> Iterator[list[Path]]:
    """Inside, links beside a source that lead elsewhere are listed as they are followed."""
    followed: list[Path] = []
    token = _followed.set(followed)
    try:
        yield followed
    finally:
        _followed.reset(token)


def note_followed(file: Path) -> None:
    """Note that the link `file` was followed."""
    followed = _followed.get()
    if followed is not None and file not in followed:
        followed.append(file)


def outside_hashes(path: Path, followed: Sequence[Path] = ()) -> dict[str, str]:
    """SHA-256 of each file that the file at `path` refers to, also through others, by its path from there.

    `followed` are links beside it that were followed.

    Raises
    ------
    NotFound
        A file is missing without which numbers would be made up. A link that leads nowhere cannot be read, and is left out.
    InvalidInput
        There are too many files.
    """
    hashes: dict[str, str] = {}
    known, waiting = {path.resolve()}, [path, *followed]
    for file in followed:
        hashes |= _hashes(file, path.parent)
    while waiting:
        current = waiting.pop()
        for reference in references(current):
            for file in _files(current, reference):
                _check_complete(current, reference, file)
                if file.resolve() in known:
                    continue
                if len(known) > _MOST_FILES:
                    raise InvalidInput(f"{path}: refers to more than {_MOST_FILES:,} files", kind="too_large")
                known.add(file.resolve())
                waiting.append(file)
                hashes |= _hashes(file, path.parent)
    return hashes


def _check_complete(path: Path, reference: Reference, file: Path) -> None:
    """InvalidInput if HDF5 would make up numbers that `file` does not hold."""
    missing = ""
    if reference.sort == _RAW and file.stat().st_size < reference.n_bytes:
        missing = f"is too short: {file.stat().st_size} bytes, expected {reference.n_bytes}"
    if reference.sort == _VIRTUAL and "%" not in reference.within:
        import h5py

        try:
            with h5py.File(file, "r") as other:
                missing = "" if reference.within in other else f"has no dataset {reference.within!r}"
        except OSError as error:
            missing = f"cannot be read: {error}"
    if missing:
        raise InvalidInput(
            f"{path}: {reference.place!r} lies in another file, {str(file)!r} ({reference.sort}), which {missing}",
            kind="unreadable_source",
        )


def _hashes(path: Path, home: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {os.path.relpath(file.resolve(), home.resolve()): sha256_file(file) for file in files}


def _files(path: Path, reference: Reference) -> list[Path]:
    """The files that `reference`, which stands in `path`, means."""
    if "%b" not in reference.file or reference.sort != _VIRTUAL:
        file = _find(
            path, reference, reference.file.replace("%%", "%") if reference.sort == _VIRTUAL else reference.file
        )
        return [] if file is None else [file]
    # one file per block, up to the first that is missing
    files = []
    for block in range(_MOST_FILES):
        file = _find(path, reference, reference.file.replace("%b", str(block)), must_exist=block == 0)
        if file is None:
            break
        files.append(file)
    return files


def _find(path: Path, reference: Reference, name: str, must_exist: bool = True) -> Path | None:
    """The file called `name`, by HDF5's rules; None if it does not exist and need not."""
    prefixes = [prefix for prefix in os.environ.get(_PREFIXES.get(reference.sort, ""), "").split(":") if prefix]
    beside = [] if reference.sort == _RAW else [path.resolve().parent]
    folders = [Path(prefix.replace("${ORIGIN}", str(path.resolve().parent))) for prefix in prefixes]
    candidates = [folder / name for folder in (*folders, *beside, Path())]
    if Path(name).is_absolute():
        candidates = [Path(name), *(folder / Path(name).name for folder in beside)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if must_exist and reference.sort != _LINK:
        raise NotFound(
            f"{path}: {reference.place!r} lies in another file, {name!r} ({reference.sort}), which does not exist",
            kind="unknown_file",
        )
    return None


def references(path: Path) -> Iterator[Reference]:
    """Everything in the file or folder at `path` that lies in other files; nothing in those is read.

    Raises
    ------
    InvalidInput
        There is too much to look at.
    """
    if path.is_dir():
        yield from _links_out_of(path)
        return
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return
    # whoever reads a damaged file says so
    file = _tried(h5py.File, path, "r")
    if file is not None:
        with file:
            yield from _Walk(path, file).references()


def _links_out_of(folder: Path) -> Iterator[Reference]:
    """Symbolic links that lead out of `folder`."""
    home, waiting, budget = folder.resolve(), [folder], _Budget(folder)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                budget.spend()
                if entry.is_symlink():
                    target = Path(entry.path).resolve()
                    if not target.is_relative_to(home):
                        yield symbolic_link(os.path.relpath(entry.path, folder), target)
                elif entry.is_dir():
                    waiting.append(Path(entry.path))


class _Budget:
    """How much more may be looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = _MOST

    def spend(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise InvalidInput(
                f"{self.path}: holds more than {_MOST:,} objects and links; it cannot be checked for references to other files",
                kind="too_large",
            )


@dataclass(frozen=True)
class _Object:
    place: str
    item: Any
    """Of h5py's low level."""


class _Walk:
    """A walk over every object of an HDF5 file, each once, by links and by references; no link to another file is followed."""

    def __init__(self, path: Path, file: Any) -> None:
        import h5py

        self.h5py = h5py
        self.path = path
        self.file = file
        self.budget = _Budget(path)
        self.seen: set[int] = set()

    def references(self) -> Iterator[Reference]:
        # of each object on the way down: what was not looked at yet
        root = _tried(self.h5py.h5g.open, self.file.id, b"/")
        waiting: list[Iterator[_Object | Reference]] = [] if root is None else [iter([_Object("", root)])]
        while waiting:
            below = next(waiting[-1], None)
            if below is None:
                waiting.pop()
            elif isinstance(below, Reference):
                yield below
            elif self._is_new(below.item):
                if len(waiting) > _DEEPEST:
                    raise InvalidInput(f"{self.path}: holds objects more than {_DEEPEST:,} deep", kind="too_large")
                waiting.append(self._below(below.place, below.item))

    def _is_new(self, item: Any) -> bool:
        info = _tried(self.h5py.h5o.get_info, item)
        if info is None or info.addr in self.seen:
            return False
        self.seen.add(info.addr)
        return True

    def _below(self, place: str, item: Any) -> Iterator[_Object | Reference]:
        """What `item` holds, stores and refers to."""
        if isinstance(item, self.h5py.h5d.DatasetID):
            yield from self._storage(place, item)
        if isinstance(item, self.h5py.h5g.GroupID):
            yield from self._members(place, item)
        yield from self._referred(place, item)

    def _members(self, place: str, group: Any) -> Iterator[_Object | Reference]:
        h5py = self.h5py
        names = _tried(list, group) or []
        self.budget.spend(len(names))
        for name in names:
            info = _tried(group.links.get_info, name)
            sort = None if info is None else info.type
            below = f"{place}/{_text(name)}"
            if sort == h5py.h5l.TYPE_HARD:
                item = _tried(h5py.h5o.open, group, name)
                if item is not None:
                    yield _Object(below, item)
            elif sort not in (None, h5py.h5l.TYPE_SOFT):
                file, within = _tried(group.links.get_val, name) or ("", "")
                yield Reference(below, _LINK, _text(file), _text(within))

    def _storage(self, place: str, dataset: Any) -> Iterator[Reference]:
        layout = _tried(dataset.get_create_plist)
        if layout is None:
            return
        left = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        for number in range(layout.get_external_count()):
            name, offset, size = layout.get_external(number)
            yield Reference(place, _RAW, _text(name), n_bytes=offset + min(size, left))
            left -= min(size, left)
        if layout.get_layout() == self.h5py.h5d.VIRTUAL:
            self.budget.spend(layout.get_virtual_count())
            for number in range(layout.get_virtual_count()):
                file, within = layout.get_virtual_filename(number), layout.get_virtual_dsetname(number)
                if file != ".":
                    yield Reference(place, _VIRTUAL, file, within)

    def _referred(self, place: str, item: Any) -> Iterator[_Object]:
        """Objects that `item` holds references to: in its attributes and, if it is a dataset, in itself."""
        h5py = self.h5py
        attributes = h5py.AttributeManager(SimpleNamespace(id=item))
        for number in range(_tried(h5py.h5a.get_num_attrs, item) or 0):
            attribute = _tried(partial(h5py.h5a.open, item, index=number))
            if attribute is not None and self._refers(attribute):
                name = _text(attribute.name)
                read = partial(attributes.__getitem__, name)
                yield from self._targets(f"{place}@{name}", attribute.shape, read)
        if isinstance(item, h5py.h5d.DatasetID) and self._refers(item):
            yield from self._targets(place, item.shape, lambda: h5py.Dataset(item)[()])

    def _refers(self, item: Any) -> bool:
        dtype = _tried(getattr, item, "dtype")
        return dtype is not None and self._holds_references(dtype)

    def _holds_references(self, dtype: np.dtype[Any]) -> bool:
        if dtype.subdtype is not None:
            return self._holds_references(dtype.subdtype[0])
        if dtype.names is not None:
            return any(self._holds_references(dtype[name]) for name in dtype.names)
        inner = self.h5py.check_vlen_dtype(dtype)
        if isinstance(inner, np.dtype):
            return self._holds_references(inner)
        return self.h5py.check_ref_dtype(dtype) is not None

    def _targets(self, place: str, shape: tuple[int, ...] | None, read: Callable[[], Any]) -> Iterator[_Object]:
        self.budget.spend(math.prod(shape or ()))
        for reference in self._flat(_tried(read)):
            target = _tried(self.h5py.h5r.dereference, reference, self.file.id)
            if target is not None:
                yield _Object(place, target)

    def _flat(self, value: Any) -> Iterator[Any]:
        """Every reference in `value`, however deep."""
        if isinstance(value, self.h5py.Reference | self.h5py.RegionReference):
            if value:
                self.budget.spend()
                yield value
        elif isinstance(value, np.void) and value.dtype.names is not None:
            for name in value.dtype.names:
                yield from self._flat(value[name])
        elif isinstance(value, np.ndarray) and (value.dtype.hasobject or value.dtype.names is not None):
            for entry in value.ravel():
                yield from self._flat(entry)


def _tried(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` gives; None where the file is damaged, so that nobody can read it."""
    try:
        return read(*arguments)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError):
        return None


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
