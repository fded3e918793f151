"""Files of a folder, and files beside a source, such as its table of events. What lies elsewhere is refused unless allowed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound
from neuromas.recordings.check import listing
from neuromas.recordings.convert.source import entry, unreadable
from neuromas.recordings.convert.text import read_text
from neuromas.recordings.outside import note_followed, refused, symbolic_link
from neuromas.recordings.trust import trust


def beside(path: Path, name: str, what: str) -> Path:
    """The file `name` beside the source at `path`, or in it if the source is a folder.

    Parameters
    ----------
    path : Path
        The source, a file or a folder.
    name : str
        Relative to the folder that holds the source, or to the source itself.
    what : str
        The field of the recipe, for messages.

    Raises
    ------
    InvalidInput
        The file lies elsewhere, or two files have this name; or it is a link that leads elsewhere, and that is not allowed.
    NotFound
        There is no such file.
    """
    # the source may be a link, or "."
    parent = (path if path.name not in ("", "..") else path.resolve()).parent
    around = (parent.resolve(), path.resolve().parent)
    candidates = list(dict.fromkeys([*([path / name] if path.is_dir() else []), parent / name]))
    inside = [file for file in candidates if _lies_in(file.resolve(), around) or _is_named_in(file, parent)]
    if not inside:
        raise InvalidInput(
            f"{path}: {what}={name!r}: expected a file beside the {_of(path)}, or in a folder there",
            kind="invalid_recipe",
        )
    existing = [file for file in inside if file.is_file()]
    if not existing:
        raise NotFound(f"no such file of {what}: {' or '.join(map(str, inside))}", kind="unknown_file")
    if len(existing) > 1:
        raise InvalidInput(
            f"{path}: {what}={name!r}: there are two such files, {existing[0]} and {existing[1]}; rename one of them",
            kind="duplicate_name",
        )
    return follow(existing[0], path, around)


def follow(file: Path, path: Path, around: Sequence[Path]) -> Path:
    """`file` of the source `path`; InvalidInput if it is a link out of the folders `around`, unless that is allowed.

    A link that was followed is hashed for the provenance.
    """
    if not _lies_in(file.resolve(), around):
        if not trust().allow_external:
            raise refused(path, symbolic_link(os.path.relpath(file, path.parent), file.resolve()))
        note_followed(file)
    return file


def _lies_in(file: Path, folders: Sequence[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _is_named_in(file: Path, folder: Path) -> bool:
    """Whether the name of `file`, links left alone, leads into `folder`."""
    return Path(os.path.normpath(file.absolute())).is_relative_to(os.path.normpath(folder.absolute()))


def _of(path: Path) -> str:
    return "folder" if path.is_dir() else "source"


def files_in(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files in `folder` whose names match one of `patterns`, in order.

    Raises
    ------
    InvalidInput
        A link leads out of the folder that holds `folder`, and that is not allowed.
    """
    around = [folder.resolve().parent]
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    return [follow(file, folder, around) for file in files]


def read_npy(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file, left on disk until it is used; pickled objects are refused unread.

    Raises
    ------
    InvalidInput
        The file is no such array, is cut off, or holds pickled objects.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError, SyntaxError, TypeError) as error:
        if "object" in str(error).lower():
            raise InvalidInput(
                f"{path}: holds pickled Python objects, which are refused because reading them would run code",
                kind="pickle_refused",
            ) from error
        raise unreadable(path, "a NumPy array (.npy)", error) from error
    return array


def need_array(files: dict[str, Path], name: str, folder: Path) -> NDArray[Any]:
    """The array ``NAME.npy`` of a folder; NotFound lists the others."""
    if name not in files:
        raise NotFound(
            f"{folder}: no file {name}.npy; there are {listing([file.name for file in files.values()]) or 'no .npy files'}",
            kind="unknown_array",
        )
    return read_npy(files[name])


def contents_of(folder: Path, tables: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Arrays of a folder, with shape, dtype and a few values, and columns of its tables."""
    listed = []
    for file in files_in(folder, ["*.npy"]):
        try:
            listed.append((file.stem, entry(read_npy(file))))
        except InvalidInput as error:
            listed.append(
                (file.stem, "not usable: pickled objects" if error.kind == "pickle_refused" else error.message)
            )
    for file in files_in(folder, tables):
        listed += [(f"{file.name}: {name}", entry(values)) for name, values in read_text(file).items()]
    return listed
