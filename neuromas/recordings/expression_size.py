"""What an expression over columns would take, found before anything is computed."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from neuromas.errors import InvalidInput

_LEAST = 2 * 2**30
_PER_COLUMN_BYTE = 8
_TEXT_PER_BYTE = 8
_NUMBER_WIDTH = 32  # characters of a number as text, as NumPy makes it


class _Size(NamedTuple):
    """Of the value of a part of an expression, and of everything that is computed for it.

    Attributes
    ----------
    shape : tuple of int
    width : int
        Characters of each entry if it is text, else 0.
    own : int
        Bytes of the value; 0 for a column, which is not copied.
    peak : int
        Most bytes that exist at the same time while it is computed.
    text : int
        Bytes of all text that is made on the way.
    """

    shape: tuple[int, ...]
    width: int
    own: int
    peak: int
    text: int


def check_size(tree: ast.expr, columns: Mapping[str, Any], expression: str, where: str) -> None:
    """InvalidInput if `tree` would take more than 2 GiB and more than 8 times the bytes of the columns that it names.

    The same holds, 8 times as high, for all text that is made on the way.
    """
    named = {name: columns[name] for name in _names(tree) if name in columns}
    # of a matrix, only the column that is named is read
    arrays = {name: values for name, values in named.items() if isinstance(values, np.ndarray)}
    most = max(_LEAST, _PER_COLUMN_BYTE * sum(array.nbytes for array in arrays.values()))
    size = _size(tree, arrays)
    needed, what = max((size.peak, "memory"), (size.text // _TEXT_PER_BYTE, "text"))
    if needed > most:
        needed, most = (needed, most) if what == "memory" else (size.text, most * _TEXT_PER_BYTE)
        shown = expression if len(expression) <= 80 else f"{expression[:80]}…"
        raise InvalidInput(
            f"{where}: {shown!r} would take {needed / 2**30:.1f} GiB of {what}, expected at most {most / 2**30:.1f}; join "
            "fewer columns of text, or use a shorter expression",
            kind="too_large",
        )


def _names(tree: ast.expr) -> set[str]:
    """Names of columns, not texts that happen to be called like one."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)]):
                names.add(name)
    return names


def _size(node: ast.AST, arrays: Mapping[str, np.ndarray[Any, Any]]) -> _Size:
    match node:
        case ast.Constant(value=str() as text):
            return _Size((), len(text), 0, 0, 0)
        case ast.Constant() | ast.List() | ast.Tuple():
            return _Size((), 0, 0, 0, 0)
        case ast.Name(id=name) | ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)]):
            return _of_column(arrays[name]) if name in arrays else _Size((), 0, 0, 0, 0)
    # an operator or a function's name is no value
    parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    parts = parts[1:] if isinstance(node, ast.Call) else parts
    held, peak, made_text = 0, 0, 0
    sizes = []
    for part in parts:
        size = _size(part, arrays)
        peak, made_text = max(peak, held + size.peak), made_text + size.text
        held += size.own
        sizes.append(size)
    shape = _broadcast([size.shape for size in sizes])
    width, made = _widths(node, sizes)
    own = math.prod(shape) * (4 * width if width else 1 if isinstance(node, (ast.Compare, ast.BoolOp)) else 8)
    on_the_way = math.prod(shape) * 4 * made
    return _Size(shape, width, own, max(peak, held + own + on_the_way), made_text + (own if width else 0) + on_the_way)


def _of_column(array: np.ndarray[Any, Any]) -> _Size:
    width = array.dtype.itemsize // 4 if array.dtype.kind == "U" else 0
    # whole numbers are widened
    copied = array.size * 8 if array.dtype.kind in "iu" and array.dtype.itemsize < 8 else 0
    return _Size(array.shape, width, copied, copied, 0)


def _widths(node: ast.AST, sizes: list[_Size]) -> tuple[int, int]:
    """Characters of each entry of the value of `node`, and of text that is made only to compute it."""
    widest = max((size.width for size in sizes), default=0)
    match node:
        case ast.BinOp(op=ast.Add()) if all(size.width for size in sizes):
            return sum(size.width for size in sizes), 0
        case ast.IfExp() | ast.Call(func=ast.Name(id="where")):
            return widest, 0
        case ast.Call(func=ast.Name(id="text")):
            return widest or _NUMBER_WIDTH, 0
        case ast.Call(func=ast.Name(id="contains" | "startswith" | "endswith")) if sizes and not sizes[0].width:
            return 0, _NUMBER_WIDTH
        case ast.Subscript():
            return widest, 0
    return 0, 0


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:  # what cannot be computed says so when it is
        return max(shapes, key=math.prod)
