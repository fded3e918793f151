"""Nested values of a foreign file, structs and lists within one another, as named arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.recordings.check import listing
from neuromas.recordings.columns import as_text
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.named_arrays import Arrays

DEEPEST = 16
"""Structs within structs."""

MOST_NAMES = 100_000
"""Arrays of a file; a link to what holds it would give them names without end."""

_MOSTLY_FILLING = 2**27
"""Lists of different lengths are written out in full up to so many bytes, or if most of that is no filling."""


@dataclass(frozen=True)
class Struct:
    """``fields[name]`` lists the value of each element."""

    fields: dict[str, list[Any]]

    @property
    def n_elements(self) -> int:
        return max((len(entries) for entries in self.fields.values()), default=0)

    def element(self, number: int) -> dict[str, Any]:
        """The fields of one element."""
        return {name: entries[number] for name, entries in self.fields.items()}


@dataclass(frozen=True)
class Cell:
    """Values side by side: a list, a cell array, or a field of a struct array.

    Attributes
    ----------
    entries : list
        The first axis of `shape` counts fastest, as in MATLAB.
    shape : tuple of int
    of_struct : bool
        Whether these are the values of a field, one for each element of a struct array.
    """

    entries: list[Any]
    shape: tuple[int, ...]
    of_struct: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The shape without axes of length 1."""
        return tuple(size for size in self.shape if size != 1) or (len(self.entries),)


@dataclass(frozen=True)
class Unusable:
    """What is neither numbers nor text, and why."""

    reason: str


def arrays_of(values: Mapping[str, Any], where: str, *, vectors: bool = False) -> Arrays:
    """Every array in `values`: numbers, logicals and text; fields of structs as ``struct.field``.

    A list with one number or text per entry becomes an array, and so does a field of a struct array. An empty entry is missing:
    NaN beside numbers, empty text beside text. Arrays of one shape are stacked, entries first. If they differ in the length of
    one axis, shorter ones are filled up with NaN.
    """
    source = Arrays({}, where, vectors=vectors)
    for name, value in values.items():
        _add(source, name, value, 0)
    return source


def _add(source: Arrays, name: str, value: Any, depth: int) -> None:
    """Add what `value` holds to `source`, structs by field."""
    if len(source.arrays) + len(source.unusable) > MOST_NAMES:
        raise InvalidInput(
            f"{source.where}: holds more than {MOST_NAMES:,} arrays, counting each under all of its names",
            kind="too_large",
        )
    if isinstance(value, list):  # references that belong to no struct
        value = Cell(value, (len(value),))
    if isinstance(value, Cell):
        value = _merged(value)
    if isinstance(value, Struct) and depth < DEEPEST:
        for label, entries in value.fields.items():
            whole = entries[0] if len(entries) == 1 else Cell(entries, (len(entries),), of_struct=True)
            _add(source, f"{name}.{label}", whole, depth + 1)
        return
    if isinstance(value, Struct):
        value = Unusable(f"structs within structs, more than {DEEPEST} deep")
    if isinstance(value, Cell):
        value = _joined(source, name, value)
    if isinstance(value, Unusable):
        source.unusable[name] = value.reason
    else:
        source.arrays[name] = value


def _merged(cell: Cell) -> Cell | Struct:
    """Structs in the entries of a cell as a struct array; empty entries have empty fields."""
    structs = [entry for entry in cell.entries if isinstance(entry, Struct)]
    if not structs or any(struct.n_elements != 1 for struct in structs):
        return cell
    if any(not isinstance(entry, Struct) and not _empty(entry) for entry in cell.entries):
        return cell
    names = dict.fromkeys(name for struct in structs for name in struct.fields)
    absent = np.zeros((0, 0))
    return Struct(
        {
            name: [
                entry.fields.get(name, [absent])[0] if isinstance(entry, Struct) else absent for entry in cell.entries
            ]
            for name in names
        }
    )


def _empty(entry: Any) -> bool:
    return isinstance(entry, np.ndarray) and entry.size == 0


def _joined(source: Arrays, name: str, cell: Cell) -> NDArray[Any] | Unusable:
    """The entries of a cell as one array."""
    if not all(isinstance(entry, np.ndarray) for entry in cell.entries):
        return Unusable("a cell or struct array of other things; expected numbers or text in each")
    if all(entry.size <= 1 for entry in cell.entries):
        return _column(cell)
    if any(entry.dtype.kind == "U" for entry in cell.entries):
        return Unusable("a cell or struct array of lists of text; expected one text in each")
    return _stacked(source, name, cell)


def _column(cell: Cell) -> NDArray[Any] | Unusable:
    """One number or text per entry; an empty entry is missing."""
    values = [entry.item() if entry.size else None for entry in cell.entries]
    # '' is an empty text in MATLAB, not an empty number
    texts = [isinstance(value, str) or _empty_text(entry) for value, entry in zip(values, cell.entries, strict=True)]
    present = [value for value in values if value is not None]
    if not present and not any(texts) and cell.entries:
        return Unusable("a cell or struct array of which every entry is empty")
    if any(texts):
        numbers = [value for value in present if not isinstance(value, str)]
        if numbers and not cell.of_struct:
            return Unusable("a cell or struct array of both numbers and text")
        words = ["" if value is None else value if isinstance(value, str) else _word(value) for value in values]
        return _shaped(np.array(words, dtype=str), cell)
    if len(present) < len(values) and any(isinstance(value, int) and abs(value) > 2**53 for value in present):
        return Unusable("a cell or struct array with empty entries beside whole numbers that NaN cannot stand beside")
    column = np.array([np.nan if value is None else value for value in values])
    return _shaped(column, cell)


def _empty_text(entry: NDArray[Any]) -> bool:
    return entry.size == 0 and entry.dtype.kind == "U"


def _word(number: Any) -> str:
    return str(as_text(np.asarray([number]))[0])


def _shaped(values: NDArray[Any], cell: Cell) -> NDArray[Any]:
    """Entries, the first axis of `values`, in the shape of their cell."""
    axes = cell.axes
    if len(axes) < 2:
        return values
    reversed_axes = values.reshape(*axes[::-1], *values.shape[1:])
    n_axes = len(axes)
    return reversed_axes.transpose(*range(n_axes)[::-1], *range(n_axes, reversed_axes.ndim))


def _stacked(source: Arrays, name: str, cell: Cell) -> NDArray[Any] | Unusable:
    """Arrays of numbers, entries first; shorter ones are filled up with NaN, which `source` notes."""
    arrays = _of_equal_axes(cell.entries, source.vectors)
    shapes = {array.shape for array in arrays if array.size}
    longest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    differing = [axis for axis, size in enumerate(longest) if any(shape[axis] != size for shape in shapes)]
    if len(differing) > 1:
        first, other = sorted(shapes)[0], sorted(shapes)[-1]
        return Unusable(f"a cell or struct array of arrays that differ in several axes, e.g. {first} and {other}")
    absent = any(not array.size for array in arrays)
    # an empty entry has no steps of the axis that differs, or of the last one
    axis = differing[0] if differing else len(longest) - 1
    n_filled, n_bytes = len(arrays) * math.prod(longest), sum(array.nbytes for array in arrays)
    if 8 * n_filled > min(named_arrays.LARGEST_DENSE_BYTES, max(_MOSTLY_FILLING, 4 * n_bytes)):
        return Unusable(f"a cell or struct array of lists of very different lengths, up to {longest}")
    if differing or absent:
        stacked: NDArray[Any] = np.full((len(arrays), *longest), np.nan)
        for number, array in enumerate(arrays):
            if array.size:
                stacked[number][tuple(slice(size) for size in array.shape)] = array
    else:
        stacked = np.stack(arrays)
    n_axes = len(cell.axes)
    if differing or absent:
        source.filled[name] = n_axes + axis
    shaped = _shaped(stacked, cell)
    source.stacked.add(name)
    if source.vectors and longest[0] == 1 and len(longest) == 2:
        source.dropped[name] = n_axes
        return shaped.reshape(*shaped.shape[:n_axes], longest[1])
    return shaped


def _of_equal_axes(entries: list[NDArray[Any]], vectors: bool) -> list[NDArray[Any]]:
    """Arrays of one number of axes. MATLAB drops last axes of length 1, and a vector may be a row or a column."""
    n_axes = max(entry.ndim for entry in entries)
    arrays = [entry.reshape(entry.shape + (1,) * (n_axes - entry.ndim)) for entry in entries]
    if vectors and n_axes == 2 and all(1 in array.shape or array.size == 0 for array in arrays):
        lying = any(array.shape[:1] == (1,) and array.size > 1 for array in arrays)
        standing = any(array.shape[1:] == (1,) and array.size > 1 for array in arrays)
        if lying and standing:
            return [array.reshape(1, -1) for array in arrays]
    return arrays


# --------------------------------------------------------------------------------------------------------------- elements


def at(values: Mapping[str, Any], path: str, where: str) -> Any:
    """The value at a dotted `path`; NotFound lists what there is."""
    value: Any = Struct({name: [entry] for name, entry in values.items()})
    walked = ""
    for part in path.split("."):
        fields = value.fields if isinstance(value, Struct) else {}
        if part not in fields:
            existing = [f"{walked}{name}" for name in fields]
            raise NotFound(
                f"{where}: no {path!r}; there are {listing(existing) or 'none'}" + suggestion(walked + part, existing),
                kind="unknown_array",
            )
        entries, walked = fields[part], f"{walked}{part}."
        value = entries[0] if len(entries) == 1 else Cell(entries, (len(entries),), of_struct=True)
    return value


def elements(values: Mapping[str, Any], path: str, where: str) -> Iterator[dict[str, Any]]:
    """What each element of the struct or cell array at `path` holds, beside everything else at the top of the file.

    Raises
    ------
    NotFound
        There is nothing at `path`.
    InvalidInput
        It is neither a struct array nor a cell array.
    """
    value = at(values, path, where)
    others = {name: entry for name, entry in values.items() if name != path.split(".")[0]}
    value = _merged(value) if isinstance(value, Cell) else value
    if isinstance(value, Struct):
        for number in range(value.n_elements):
            yield others | value.element(number)
    elif isinstance(value, Cell):
        for entry in value.entries:
            yield others | {path.split(".")[-1]: entry}
    else:
        raise InvalidInput(
            f"{where}: each={path!r}: expected a struct array or a cell array, got an array of shape "
            f"{getattr(value, 'shape', '()')}",
            kind="invalid_recipe",
        )
