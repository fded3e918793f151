"""Seeded mutations of bytes, of JSON, and of the arrays in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "=1+1",
    "../../x",
    "/etc/passwd",
    "a" * 5000,
    "\u202e",
    "\ud800",
    "𝔘",
    "nan",
    "-0",
    "1e999",
)
NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**30,
    1e308,
    -1e308,
    0.1,
    float("nan"),
    float("inf"),
    True,
)


def junk(rng: Random) -> Any:
    """A value of JSON that hardly any field expects."""
    return rng.choice(
        [
            lambda: rng.choice(TEXTS),
            lambda: rng.choice(NUMBERS),
            lambda: None,
            list,
            dict,
            lambda: [rng.choice(NUMBERS), rng.choice(TEXTS)],
            lambda: {rng.choice(TEXTS): rng.choice(NUMBERS)},
            lambda: nested(rng.choice([5, 50, 400])),
        ]
    )()


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def change_json(document: Any, rng: Random) -> Any:
    """A copy of `document` in which one or two places are changed, removed, renamed or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 2)):
        holders: list[Any] = []
        _holders(document, holders)
        if not holders:
            return junk(rng)
        holder = rng.choice(holders)
        keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        action = rng.randrange(5)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif action == 1:
            holder.extend(holder * rng.choice([1, 3]))
        elif action == 2 and isinstance(holder[key], str):
            text = holder[key]
            place = rng.randint(0, len(text))
            holder[key] = text[:place] + rng.choice(TEXTS) + text[place + rng.randint(0, 3) :]
        else:
            holder[key] = junk(rng)
    return document


def _holders(document: Any, holders: list[Any]) -> None:
    if isinstance(document, (dict, list)) and document:
        holders.append(document)
        for value in document.values() if isinstance(document, dict) else document:
            _holders(value, holders)


def json_bytes(document: Any, rng: Random) -> bytes:
    """A changed document as text; now and then with damaged bytes, or brackets in brackets."""
    text = json.dumps(change_json(document, rng)).encode()
    return rng.choice([text, text, text, change_bytes(text, rng), b"[" * rng.choice([100, 100_000]) + text])


def change_bytes(data: bytes, rng: Random) -> bytes:
    """`data` with a few bytes changed, cut, repeated or moved."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if not changed:
            return bytes(changed)
        # heads of files say more than their middles
        place = rng.randrange(len(changed) if rng.random() < 0.6 else min(len(changed), 512))
        length = rng.choice([1, 1, 2, 4, 8, 64])
        action = rng.randrange(6)
        if action == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            changed[place : place + length] = bytes([rng.choice([0, 255, 127])]) * len(changed[place : place + length])
        elif action == 2:
            del changed[place : place + length]
        elif action == 3:
            changed[place:place] = rng.randbytes(length)
        elif action == 4:
            source = rng.randrange(len(changed))
            changed[place : place + length] = changed[source : source + length]
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def change_file(path: Path, rng: Random) -> None:
    """Change bytes of a file, or of one file of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    file = rng.choice(files)
    if file.suffix == ".json" or file.name in (".zarray", ".zattrs", ".zgroup"):
        file.write_bytes(json_bytes(json.loads(file.read_bytes()), rng))
    else:
        file.write_bytes(change_bytes(file.read_bytes(), rng))


ARRAYS: tuple[Callable[[], Any], ...] = (
    lambda: np.zeros((0, 3)),
    lambda: np.zeros((3, 0, 2)),
    lambda: np.float64(3),
    lambda: np.full((6, 2), np.nan),
    lambda: np.full((6, 2), np.inf),
    lambda: np.full(6, 1e308),
    lambda: np.arange(6) + 1j,
    lambda: np.array([2**63, 1, 2, 3, 4, 5], dtype=np.uint64),
    lambda: np.array([-(2**63)] * 6),
    lambda: np.arange(6, dtype=">i2"),
    lambda: np.arange(6, dtype=np.float16),
    lambda: np.array([True, False] * 3),
    lambda: np.array(["a", "\x1b", "=1", "", "b" * 300, "\u202e"]),
    lambda: np.array([b"a", b"\xff", b"", b"b", b"c", b"d"]),
    lambda: np.array(["2020-01-01", "NaT"] * 3, dtype="M8[D]"),
    lambda: np.arange(6).astype("m8[s]"),
    lambda: np.zeros(6, dtype=[("a", "f8"), ("b", "i4")]),
    lambda: np.zeros((1, 1, 1, 1, 6)),
    lambda: np.arange(6),
    lambda: np.arange(12.0).reshape(6, 2),
    lambda: np.array([np.nan, 1, 2, 3, 4, 5]),
)


def array(rng: Random) -> Any:
    """An array of an unusual shape, type or content."""
    return rng.choice(ARRAYS)()


def change_arrays(arrays: dict[str, Any], rng: Random) -> dict[str, Any]:
    """`arrays` with one or two of them replaced, renamed, removed, cut or added."""
    changed = dict(arrays)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(changed)) if changed else "activity"
        action = rng.randrange(5)
        if action == 0 and changed:
            changed[rng.choice(["x", "=1+1", "trial", "lengths", "manifest", "unit", "é\x1b"])] = changed.pop(name)
        elif action == 1:
            changed.pop(name, None)
        elif action == 2 and np.ndim(changed.get(name, 0)):
            changed[name] = np.asarray(changed[name])[: rng.randint(0, 3)]
        elif action == 3:
            changed[rng.choice(["extra", "present", "step", "token", "vocabulary", "time"])] = array(rng)
        else:
            changed[name] = array(rng)
    return changed


LEAVES = ("count", "side", "trial", "step", "time", "1", "0", "-1", "1e308", "2**70", "'a'", "''", "nan", "col('x')")
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "<", "==", "and", "or", "&", "|", "@", "<<", "is")


def expression(rng: Random, depth: int = 0) -> str:
    """A text that is often an expression."""
    if depth > 3 or rng.random() < 0.3:
        return rng.choice(
            ["count", "side", "trial", "step", "time", "1", "0", "-1", "1e308", "2**70", "'a'", "''", "nan", "col('x')"]
        )
    left, right = expression(rng, depth + 1), expression(rng, depth + 1)
    return rng.choice(
        [
            f"{left} {rng.choice(OPERATORS)} {right}",
            f"{rng.choice(['abs', 'text', 'number', 'log', 'isnan', 'round', 'sqrt', 'eval', 'floor', 'col'])}({left})",
            f"{rng.choice(['minimum', 'contains', 'startswith', 'where', 'round', 'clip'])}({left}, {right})",
            f"where({left}, {right}, {left})",
            f"({left} if {right} else {left})",
            f"{left} in [{right}, 1, 'a']",
            f"not {left}",
            f"-{left}",
            f"({left})",
            f"{left}[{right}]",
            f"{left}.{right}",
            f"[{left} for x in {right}]",
            left + rng.choice(TEXTS),
        ]
    )
