"""Arrays of objects that zarr v2 stores as pickles, read as the data that they are.

Nothing is unpickled. A pickle is a program; here its instructions are listed (`pickletools.genops`, which runs none) and those
that only write down text, numbers, lists and mappings are followed by hand. What the pickle names is kept as a name: nothing is
imported, called or constructed by it.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Named:
    """A thing that a pickle names, ``module.name``; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Made(dict[str, Any]):
    """What a pickle would have made by calling something: the attributes that it would have, and what it is."""

    def __init__(self, of: Named, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.of, self.arguments = of, arguments
        self.state: Any = None


_REFERENCE = Named("hdmf_zarr.utils", "ZarrReference")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PLAIN = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
)
_FRESH = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_SMALL_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickled_array(data: bytes) -> NDArray[Any]:
    """The array of text, numbers and references that a pickle writes down.

    Parameters
    ----------
    data : bytes
        A NumPy array of objects as numcodecs' ``pickle`` filter writes it, of any protocol from 3 on.

    Returns
    -------
    ndarray of object
        A reference of hdmf-zarr is a mapping with ``source`` and ``path``; a row of several fields is a tuple.

    Raises
    ------
    ValueError
        It is no such array; says what it would have called or what is in its place.

    Examples
    --------
    >>> import pickle
    >>> read_pickled_array(pickle.dumps(np.array(["left", None, 3], dtype=object)))
    array(['left', None, 3], dtype=object)
    >>> read_pickled_array(b"cos\\nsystem\\n(S'true'\\ntR.")
    Traceback (most recent call last):
    ...
    ValueError: holds a pickled os.system, which is refused because it could run code
    """
    try:
        return _array(_follow(data))
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a pickled array: {error!r}") from error


def _follow(data: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name in ("PROTO", "FRAME"):
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PLAIN:
            stack.append(argument)
        elif name in _FRESH:
            stack.append(_FRESH[name]())
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _SMALL_TUPLES:
            size = _SMALL_TUPLES[name]
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "APPEND":
            stack[-2].append(stack.pop())
        elif name == "APPENDS":
            more = since_mark()
            stack[-1].extend(more)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "SETITEMS":
            pairs = since_mark()
            stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_allowed(Named(*str(argument).split(" ", 1))))
        elif name == "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            stack.append(_allowed(Named(str(module), str(last))))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            if not isinstance(called, Named):
                raise TypeError(f"calls {called!r}")
            stack.append(_Made(called, tuple(arguments)))
        elif name == "BUILD":
            state = stack.pop()
            made = stack[-1]
            made.state = state
            if isinstance(state, dict):
                made.update(state)
        elif name == "STOP":
            return stack.pop()
        else:
            raise ValueError(f"holds the pickle instruction {name}, which arrays do not need")
    raise ValueError("a pickle that does not end")


def _allowed(named: Named) -> Named:
    """`named`, if it is what arrays and references are written with."""
    of_numpy = named.module.split(".")[0] == "numpy" and named.name in ("_reconstruct", "ndarray", "dtype", "scalar")
    if of_numpy or named == _REFERENCE:
        return named
    raise ValueError(f"holds a pickled {named}, which is refused because it could run code")


def _array(found: Any) -> NDArray[Any]:
    if isinstance(found, _Made) and found.of.name == "_reconstruct":
        _, shape, dtype, _, content = found.state  # entries in the order of C, whatever the array's own
        if not isinstance(content, list):  # else bytes, which an array of numbers has
            raise ValueError(f"holds a pickled array of {dtype.arguments[0]}, expected one of objects")
        result = np.empty(len(content), dtype=object)
        for place, one in enumerate(content):
            result[place] = _plain(one)
        return result.reshape(shape)
    if isinstance(found, list):
        result = np.empty(len(found), dtype=object)
        for place, one in enumerate(found):
            result[place] = _plain(one)
        return result
    raise ValueError(f"holds a pickled {getattr(found, 'of', type(found).__name__)}, expected an array")


def _plain(one: Any) -> Any:
    """An entry, if it is text, a number, nothing, a reference, or a row of these."""
    if isinstance(one, tuple) and not any(isinstance(part, tuple) for part in one):
        return tuple(_plain(part) for part in one)
    if isinstance(one, _Made):
        if one.of == _REFERENCE:
            return one
        raise ValueError(f"holds a pickled {one.of} in an array, expected text, numbers or references")
    if isinstance(one, Named):
        raise ValueError(f"holds a pickled {one} in an array, expected text, numbers or references")
    reference = isinstance(one, dict) and all(isinstance(part, (str, int, type(None))) for part in one.values())
    if not reference and one is not None and not isinstance(one, (str, bytes, int, float)):
        raise ValueError(f"holds a pickled {type(one).__name__} in an array, expected text, numbers or references")
    return one
