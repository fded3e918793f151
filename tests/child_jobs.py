"""What children are asked to do in tests; a child finds these functions by their names."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neuromas.errors import InvalidDocument, NotFound


def crash(*_: Any) -> None:
    ctypes.string_at(0)


def loop(file: Any, note: str = "", *_: Any) -> None:
    if note:
        Path(note).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def leave(file: Any) -> None:
    os._exit(3)


def say_who(file: Any) -> dict[str, Any]:
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "folder": str(Path.cwd())}


def write(file: Any, size: int) -> int:
    numbers = np.arange(size, dtype="<i8")
    file.write(numbers.data)
    return size


def fail(file: Any, how: str) -> None:
    if how == "document":
        raise InvalidDocument("a manifest: of a file", ["first", "second: more"])
    if how == "missing":
        raise NotFound("no such array", kind="unknown_array")
    if how == "memory":
        raise MemoryError
    raise KeyError("deep\nin a library")


def warn(file: Any) -> None:
    warnings.warn("of this file", RuntimeWarning, stacklevel=1)


def harm(path: str) -> None:
    Path(path).write_text("done")


class _Harm:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return harm, (self.path,)


def answer(file: Any, what: str, path: str = "") -> None:
    """Write an answer of one's own, as code in a hostile file could."""
    texts = {
        "pickle": pickle.dumps(_Harm(path)),
        "nothing": b"",
        "text": b"\xff\xfe",
        "deep": b"[" * 100_000,
        "list": b"[1, 2]",
        "class": json.dumps({"warnings": [], "error": {"class": "KINDS", "kind": 3, "message": "x"}}).encode(),
        "error": json.dumps({"warnings": [], "error": {"class": "InvalidDocument", "message": "x"}}).encode(),
    }
    for entry in Path("/proc/self/fd").iterdir():
        if "answer" in os.readlink(entry):  # noqa: PTH115
            os.write(int(entry.name), texts[what])
    os._exit(0)


def convert_by_crash(path: Path, recipe: Any, fields: Any) -> None:
    crash()


def convert_by_loop(path: Path, recipe: Any, fields: Any) -> None:
    loop(None)


def convert_by_memory(path, recipe, fields):
    """Takes more memory than there is, in the way that the file names."""
    how = path.read_text()
    if how == "numpy":
        return np.ones(2**28)
    if how == "bytes":
        return bytearray(2**31)
    try:
        return np.ones(2**28)
    except MemoryError as error:
        raise OSError("cannot be read") from error
