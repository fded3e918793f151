"""Arrays of objects that zarr v2 stores as pickles, read as the data that they are.

Nothing is unpickled. A pickle is a program. Here its instructions are listed (`pickletools.genops` runs none), and only those
that write down text, numbers, lists and mappings are followed. What the pickle names is kept as a name: nothing is imported,
called or constructed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Named:
    """A name in a pickle, ``module.name``; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Made(dict[str, Any]):
    """An object that a pickle would have made by a call: its attributes, and the name of what would have been called."""

    def __init__(self, of: Named, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.of = of
        self.arguments = arguments
        self.state: Any = None


_REFERENCE = Named("hdmf_zarr.utils", "ZarrReference")
_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
)
"""Instructions whose argument is the value."""
_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
"""Instructions that make a value of their own."""


def read_pickled_array(data: bytes) -> NDArray[Any]:
    """The array of text, numbers and references that a pickle writes down.

    Parameters
    ----------
    data : bytes
        A NumPy array of objects as numcodecs' ``pickle`` filter writes it, of protocol 3 or later.

    Returns
    -------
    ndarray of object
        A reference of hdmf-zarr is a mapping with ``source`` and ``path``; a row of several fields is a tuple.

    Raises
    ------
    ValueError
        The pickle is no such array. The message says what it would have called, or what it holds.

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
    """What the instructions of a pickle write down."""
    machine = _Machine()
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name == "STOP":
            return machine.stack.pop()
        if name in _LITERALS:
            machine.stack.append(argument)
        elif name in _MAKERS:
            machine.stack.append(_MAKERS[name]())
        elif name in _STEPS:
            _STEPS[name](machine, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"holds the pickle instruction {name}, which arrays do not need")
    raise ValueError("a pickle that does not end")


class _Machine:
    """The stack, marks and memo of a pickle; each method is one instruction, `argument` is what stands behind it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        entries = self.stack[start:]
        del self.stack[start:]
        return entries

    def mark(self, argument: Any) -> None:
        self.marks.append(len(self.stack))

    def memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def put(self, argument: Any) -> None:
        self.memo[int(argument or 0)] = self.stack[-1]

    def get(self, argument: Any) -> None:
        self.stack.append(self.memo[int(argument or 0)])

    def tuple(self, argument: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def tuple1(self, argument: Any) -> None:
        self._last_as_tuple(1)

    def tuple2(self, argument: Any) -> None:
        self._last_as_tuple(2)

    def tuple3(self, argument: Any) -> None:
        self._last_as_tuple(3)

    def _last_as_tuple(self, size: int) -> None:
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def append(self, argument: Any) -> None:
        self.stack[-2].append(self.stack.pop())

    def appends(self, argument: Any) -> None:
        entries = self._since_mark()
        self.stack[-1].extend(entries)

    def setitem(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def setitems(self, argument: Any) -> None:
        pairs = self._since_mark()
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def name(self, argument: Any) -> None:
        self.stack.append(_allowed(Named(*str(argument).split(" ", 1))))

    def stack_name(self, argument: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_allowed(Named(str(module), str(name))))

    def call(self, argument: Any) -> None:
        """Write down what would be called; nothing is."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Named):
            raise TypeError(f"calls {called!r}")
        self.stack.append(_Made(called, tuple(arguments)))

    def build(self, argument: Any) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        made.state = state
        if isinstance(state, dict):
            made.update(state)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.tuple,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
}
"""Instructions that change the stack, as `pickletools` calls them."""


def _allowed(named: Named) -> Named:
    """`named`, if it is what arrays and references are written with."""
    of_numpy = named.module.split(".")[0] == "numpy" and named.name in ("_reconstruct", "ndarray", "dtype", "scalar")
    if of_numpy or named == _REFERENCE:
        return named
    raise ValueError(f"holds a pickled {named}, which is refused because it could run code")


def _array(pickled: Any) -> NDArray[Any]:
    """The array that a pickle wrote down, as NumPy's own object or as a list."""
    if isinstance(pickled, _Made) and pickled.of.name == "_reconstruct":
        # entries in the order of C, whatever the array's own
        _, shape, dtype, _, content = pickled.state
        if not isinstance(content, list):  # an array of numbers has bytes
            raise ValueError(f"holds a pickled array of {dtype.arguments[0]}, expected an array of objects")
        return _entries(content).reshape(shape)
    if isinstance(pickled, list):
        return _entries(pickled)
    raise ValueError(f"holds a pickled {getattr(pickled, 'of', type(pickled).__name__)}, expected an array")


def _entries(content: list[Any]) -> NDArray[Any]:
    array = np.empty(len(content), dtype=object)
    for place, entry in enumerate(content):
        array[place] = _plain(entry)
    return array


def _plain(entry: Any) -> Any:
    """`entry`, if it is text, a number, nothing, a reference, or a row of these; else ValueError."""
    if isinstance(entry, tuple) and not any(isinstance(part, tuple) for part in entry):
        return tuple(_plain(part) for part in entry)
    if isinstance(entry, _Made) and entry.of == _REFERENCE:
        return entry
    what = entry.of if isinstance(entry, _Made) else entry if isinstance(entry, Named) else None
    plain = entry is None or isinstance(entry, (str, bytes, int, float))
    if isinstance(entry, dict):
        plain = all(isinstance(part, (str, int, type(None))) for part in entry.values())
    if what is not None or not plain:
        raise ValueError(
            f"holds a pickled {what or type(entry).__name__} in an array, expected text, numbers or references"
        )
    return entry
