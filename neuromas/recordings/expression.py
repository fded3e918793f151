"""Expressions over the columns of a table: they compute causal variables and select rows.

An expression is written in a small part of Python. It is parsed into a syntax tree, and NumPy computes it on whole columns.
It can use only the columns and the functions below, so you can use a recipe from somebody else without trusting it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NeuromasError, NotFound, suggestion
from neuromas.recordings.expression_size import check_size
from neuromas.recordings.matrices import Matrix, checked, example

_LONGEST = 2000

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}


def _number(values: Any) -> NDArray[np.float64]:
    return np.asarray(values).astype(np.float64)


def _text(values: Any) -> NDArray[Any]:
    return np.asarray(values).astype(str)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": np.where,
    "isnan": np.isnan,
    "isfinite": np.isfinite,
    "abs": np.abs,
    "round": np.round,
    "floor": np.floor,
    "ceil": np.ceil,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "clip": np.clip,
    "number": _number,
    "text": _text,
    "contains": lambda values, part: np.char.find(_text(values), part) >= 0,
    "startswith": lambda values, part: np.char.startswith(_text(values), part),
    "endswith": lambda values, part: np.char.endswith(_text(values), part),
}
"""Functions that an expression may call. ``col("name")`` is a column whose name is not an identifier."""

_ARGUMENTS = dict.fromkeys(FUNCTIONS, (1,)) | {
    **{"where": (3,), "clip": (3,), "round": (1, 2), "minimum": (2,), "maximum": (2,)},
    **{"contains": (2,), "startswith": (2,), "endswith": (2,)},
}
"""Number of arguments of each; NumPy would write its result into a further argument."""


class _Value(NamedTuple):
    """The value of a part of an expression, and where it is unknown because a column has a missing entry."""

    values: Any
    missing: Any = np.False_


def evaluate(expression: str, columns: Mapping[str, Any], where: str = "expression") -> NDArray[Any]:
    """Compute `expression` on whole columns.

    Parameters
    ----------
    expression : str
        Names of columns, columns of matrices (``v[:, 0]``), numbers, text in quotes, ``+ - * / // % **``, comparisons, ``in``
        and ``not in`` with a list of numbers or text, ``and or not`` (or ``& | ~``), ``a if condition else b``, and
        `FUNCTIONS`. Everything is elementwise. Whole numbers do not overflow; divided by zero, they are missing (NaN).
    columns : mapping of str to array, or to `Matrix`
        Shapes that broadcast against one another, e.g. (n_trials,) each, or (n_trials, 1) beside (n_steps,). An index names a
        column of a `Matrix`.
    where : str
        What the expression is for, for messages.

    Returns
    -------
    ndarray
        In the shape to which its columns broadcast; shape () if it uses no column.

    Raises
    ------
    NotFound
        A column or function does not exist. The error lists those that do.
    InvalidInput
        The text is not an expression, contains something that is not allowed, or cannot be computed on these columns.

    Examples
    --------
    >>> columns = {"stim": np.array([0, 1, 2]), "side": np.array(["l", "r", "l"])}
    >>> evaluate("where(stim > 0 and side == 'l', 'hit', 'other')", columns)
    array(['other', 'other', 'hit'], dtype='<U5')
    >>> evaluate("stim % 2", columns)
    array([0, 1, 0])
    """
    return np.asarray(_computed(expression, columns, where).values)


def evaluate_known(
    expression: str, columns: Mapping[str, Any], where: str = "expression"
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """As `evaluate`; also, in which entries the result is unknown because it depends on a missing entry.

    A comparison with a missing number (NaN) or missing text (``""``) is missing, too. It is known if the other side of an
    ``and`` or ``or`` decides the result, or if ``where`` takes the other branch. ``isnan``, ``isfinite`` and ``== ""`` are
    always known.

    Examples
    --------
    >>> values, missing = evaluate_known("rt < 0.5", {"rt": np.array([0.1, np.nan, 0.9])})
    >>> missing.tolist()
    [False, True, False]
    >>> evaluate_known("isfinite(rt) and rt < 0.5", {"rt": np.array([0.1, np.nan, 0.9])})[1].any()
    np.False_
    """
    result = _computed(expression, columns, where)
    values = np.asarray(result.values)
    return values, np.broadcast_to(result.missing | _absent(values), values.shape)


def evaluate_mask(
    expression: str, columns: Mapping[str, Any], size: int, where: str = "expression"
) -> NDArray[np.bool_]:
    """Whether `expression` is true of each of `size` rows; false where the result is missing.

    Raises
    ------
    NotFound, InvalidInput
        As `evaluate`, or the expression is not true or false.

    Examples
    --------
    >>> evaluate_mask("not rt < 0.5", {"rt": np.array([0.1, np.nan, 0.9])}, 3).tolist()
    [False, False, True]
    """
    values, missing = evaluate_known(expression, columns, where)
    if values.dtype.kind != "b":
        raise InvalidInput(
            f"{where}: {expression!r}: expected something true or false, got {values.dtype}; compare it, e.g. {expression} == 1",
            kind="invalid_expression",
        )
    return np.broadcast_to(values & ~missing, size)


def _computed(expression: str, columns: Mapping[str, Any], where: str) -> _Value:
    if len(expression) > _LONGEST:
        raise InvalidInput(
            f"{where}: expected at most {_LONGEST} characters, got {len(expression)}", kind="invalid_expression"
        )
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(
            f"{where}: {expression!r} is not an expression: {error}", kind="invalid_expression"
        ) from error
    try:
        check_size(tree, columns, expression, where)
        with np.errstate(all="ignore"):
            return _value(tree, columns, where, expression)
    except NeuromasError:
        raise
    except RecursionError as error:
        raise InvalidInput(
            f"{where}: {expression[:80]!r}… cannot be computed: too many terms, or brackets in brackets",
            kind="invalid_expression",
        ) from error
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise InvalidInput(f"{where}: {expression!r} cannot be computed: {error}", kind="invalid_expression") from error


def names_in(expression: str) -> set[str]:
    """Every name in `expression`, also those of functions; empty if the text is not an expression.

    Examples
    --------
    >>> sorted(names_in("where(time < 0, 'before', col('which side'))"))
    ['col', 'time', 'where', 'which side']
    """
    if len(expression) > _LONGEST:
        return set()
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)]):
                names.add(name)
    return names


def column_of(expression: str) -> str | None:
    """The column that an expression names, if it is nothing but its name.

    Examples
    --------
    >>> column_of("side"), column_of("col('which side')"), column_of("side == 'l'")
    ('side', 'which side', None)
    """
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    match node:
        case ast.Name(id=name):
            return name
        case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]):
            return name
    return None


def _value(node: ast.expr, columns: Mapping[str, Any], where: str, whole: str) -> _Value:
    def value(part: ast.expr) -> _Value:
        return _value(part, columns, where, whole)

    match node:
        case ast.Constant(value=bool() | str() | int() | float()):
            return _Value(_constant(node))
        case ast.Name(id=name):
            return _column(name, columns, where)
        case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]):
            return _column(name, columns, where)
        case ast.Subscript(
            value=ast.Name(id=name)
            | ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]),
            slice=index,
        ):
            return _column(name, columns, where, _index(index, where, whole))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                functions = sorted([*FUNCTIONS, "col"])
                raise NotFound(
                    f"{where}: no function {name!r}; there are {', '.join(functions)}" + suggestion(name, functions),
                    kind="unknown_function",
                )
            if not any(isinstance(argument, ast.Starred) for argument in arguments):
                return _called(name, [value(argument) for argument in arguments])
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            inner = value(operand)
            return _Value(np.logical_not(inner.values), inner.missing)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            inner = value(operand)
            change = np.negative if isinstance(op, ast.USub) else np.positive
            return _Value(change(_numeric(inner.values)), inner.missing)
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
            return _joined(isinstance(op, ast.BitAnd), value(left), value(right))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            first, second = value(left), value(right)
            return _Value(_arithmetic(op, first.values, second.values), first.missing | second.missing)
        case ast.BoolOp(op=op, values=parts):
            result = value(parts[0])
            for part in parts[1:]:
                result = _joined(isinstance(op, ast.And), result, value(part))
            return result
        case ast.Compare(left=left, ops=ops, comparators=others):
            if not any(isinstance(op, (ast.Is, ast.IsNot)) for op in ops):
                return _compared(left, ops, others, value, where, whole)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _chosen(value(test), value(body), value(orelse))
    raise _refused(node, where, whole)


def _refused(node: ast.AST, where: str, whole: str, index: bool = False) -> InvalidInput:
    source = ast.get_source_segment(whole.strip(), node) or type(node).__name__
    if isinstance(node, (ast.List, ast.Tuple)) and not index:
        why = "a list is allowed only on the right of 'in'"
    elif index or isinstance(node, ast.Subscript):
        why = "an index stands behind a column and holds whole axes and whole numbers, e.g. v[:, 0]"
    else:
        why = (
            "it may contain columns, numbers, text, arithmetic, comparisons, 'and', 'or', 'not', 'a if condition else b' and "
            f"the functions {', '.join(FUNCTIONS)}"
        )
    return InvalidInput(f"{where}: {source!r} is not allowed in an expression; {why}", kind="invalid_expression")


def _constant(node: ast.expr) -> Any:
    """A literal number or text. Whole numbers are NumPy's, because Python's have no limit of size."""
    match node:
        case ast.Constant(value=bool() | str() as constant):
            return constant
        case ast.Constant(value=int() as constant):
            return np.int64(constant) if abs(constant) < 2**63 else np.float64(constant)
        case ast.Constant(value=float() as constant):
            return np.float64(constant)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()) as operand):
            return -_constant(operand)
    return None


def _compared(
    left: ast.expr,
    ops: Sequence[ast.cmpop],
    others: Sequence[ast.expr],
    value: Callable[[ast.expr], _Value],
    where: str,
    whole: str,
) -> _Value:
    """``a < b <= c`` as ``a < b and b <= c``; also ``in`` and ``not in``."""
    result, before = _Value(np.True_), value(left)
    for op, first, right in zip(ops, (left, *others), others, strict=False):
        if isinstance(op, (ast.In, ast.NotIn)):
            if op is not ops[-1]:
                raise _refused(right, where, whole)
            link = _member(before, right, where, whole)
            link = link if isinstance(op, ast.In) else _Value(~link.values, link.missing)
        else:
            after = value(right)
            absent = before.missing | after.missing | _nan(before.values) | _nan(after.values)
            with_nothing = isinstance(op, (ast.Eq, ast.NotEq)) and "" in (_constant(first), _constant(right))
            link = _Value(_COMPARE[type(op)](before.values, after.values), np.False_ if with_nothing else absent)
            before = after
        result = link if len(ops) == 1 else _joined(True, result, link)
    return result


def _member(left: _Value, listed: ast.expr, where: str, whole: str) -> _Value:
    entries = [_constant(entry) for entry in listed.elts] if isinstance(listed, (ast.List, ast.Tuple)) else [None]
    if any(entry is None for entry in entries):
        source = ast.get_source_segment(whole.strip(), listed)
        raise InvalidInput(
            f"{where}: {source!r}: 'in' needs a list of literal numbers or text, e.g. [1, 2]; compare columns with ==, and "
            "search for text in a column with contains(column, 'text')",
            kind="invalid_expression",
        )
    kinds = {isinstance(entry, str) for entry in entries} | {np.asarray(left.values).dtype.kind == "U"}
    if len(kinds) > 1:
        raise TypeError("'in' compares text with numbers")
    missing = np.False_ if "" in entries else left.missing | _nan(left.values)
    values = np.asarray(left.values)
    if values.dtype.kind == "U":
        # longer text equals none of them, and would make every entry as long
        entries = [entry for entry in entries if len(str(entry)) <= values.dtype.itemsize // 4]
    listed_values = np.array(entries, dtype=values.dtype if values.dtype.kind == "U" else None)
    return _Value(np.isin(values, listed_values), missing)


def _joined(both: bool, left: _Value, right: _Value) -> _Value:
    """``and`` (`both`) or ``or``. A side that decides the result does so even if the other side is missing."""
    values = (np.logical_and if both else np.logical_or)(left.values, right.values)
    decided = [~side.missing & (np.asarray(side.values).astype(bool) != both) for side in (left, right)]
    return _Value(values, (left.missing | right.missing) & ~(decided[0] | decided[1]))


def _chosen(test: _Value, body: _Value, otherwise: _Value) -> _Value:
    values = np.where(test.values, body.values, otherwise.values)
    return _Value(values, test.missing | np.where(test.values, body.missing, otherwise.missing))


def _called(name: str, arguments: Sequence[_Value]) -> _Value:
    if len(arguments) not in _ARGUMENTS[name]:
        expected = " or ".join(map(str, _ARGUMENTS[name]))
        raise TypeError(f"{name} takes {expected} argument{'s' * (expected != '1')}, got {len(arguments)}")
    if name == "where":
        return _chosen(*arguments)
    values = FUNCTIONS[name](*(argument.values for argument in arguments))
    if name in ("isnan", "isfinite"):
        return _Value(values)
    missing = arguments[0].missing
    for argument in arguments[1:]:
        missing = missing | argument.missing
    return _Value(values, missing)


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    compute = _BINARY[type(op)]
    if isinstance(op, ast.Add) and all(np.asarray(side).dtype.kind == "U" for side in (left, right)):
        return np.strings.add(np.asarray(left), np.asarray(right))
    left, right = _numeric(left), _numeric(right)
    if left.dtype.kind == "f" or right.dtype.kind == "f" or isinstance(op, ast.Div):
        return compute(left, right)
    rough = compute(left.astype(np.float64), right.astype(np.float64))
    if isinstance(op, (ast.FloorDiv, ast.Mod)):
        by_zero = right == 0
        return np.where(by_zero, np.nan, rough) if np.any(by_zero) else compute(left, right)
    negative = isinstance(op, ast.Pow) and np.any(right < 0)
    return rough if negative or not np.all(np.abs(rough) < 2**62) else compute(left, right)


def _numeric(values: Any) -> NDArray[Any]:
    """Numbers to compute with; true and false as 1 and 0."""
    array = np.asarray(values)
    if array.dtype.kind == "U":
        raise TypeError("text is not a number; number(x) reads numbers from text")
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _nan(values: Any) -> Any:
    array = np.asarray(values)
    return np.isnan(array) if array.dtype.kind == "f" else np.False_


def _absent(values: NDArray[Any]) -> Any:
    return values == "" if values.dtype.kind == "U" else _nan(values)


def part_of(text: str) -> tuple[str, list[Any]] | None:
    """The array and the index that `text` names, as in ``hidden[:, 3]``; None if it is no such text.

    Examples
    --------
    >>> part_of("hidden[:, 3]"), part_of("hidden")
    (('hidden', [slice(None, None, None), 3]), None)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        match tree:
            case ast.Subscript(
                value=ast.Name(id=name)
                | ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]),
                slice=index,
            ):
                return name, _index(index, text, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None


def _index(node: ast.expr, where: str, whole: str) -> list[Any]:
    """The entries of an index: ``:``, ``...`` and whole numbers."""
    entries: list[Any] = []
    for part in node.elts if isinstance(node, ast.Tuple) else [node]:
        match part:
            case ast.Slice(lower=None, upper=None, step=None):
                entries.append(slice(None))
            case ast.Constant(value=number) if number is ... or type(number) is int:
                entries.append(number)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=number)) if type(number) is int:
                entries.append(-number)
            case _:
                raise _refused(part, where, whole, index=True)
    if sum(entry is ... for entry in entries) > 1:
        raise _refused(node, where, whole, index=True)
    return entries


def _column(name: str, columns: Mapping[str, Any], where: str, index: list[Any] | None = None) -> _Value:
    if name not in columns:
        raise NotFound(
            f"{where}: no column {name!r}; there are {', '.join(map(str, columns)) or 'none'}"
            + suggestion(name, map(str, columns)),
            kind="unknown_column",
        )
    values = _stored(columns[name], name, where, index)
    if values.dtype.kind not in "biufU":
        raise InvalidInput(
            f"{where}: column {name!r} has neither numbers nor text, but {values.dtype}", kind="invalid_expression"
        )
    if values.dtype.kind == "u" and values.size and values.max() >= 2**63:
        values = values.astype(np.float64)
    elif values.dtype.kind in "iu":
        values = values.astype(np.int64)  # so that differences do not wrap
    elif values.dtype == np.float16:
        values = values.astype(np.float64)
    values = values.view()
    values.flags.writeable = False
    return _Value(values, _absent(values))


def _stored(column: Any, name: str, where: str, index: list[Any] | None) -> NDArray[Any]:
    """A column as an array; of a matrix, the column that `index` names."""
    if not isinstance(column, Matrix):
        # a matrix of one column, which readers of files make a plain column
        if index is None or (index[:1] == [slice(None)] and index[1:] in ([0], [-1])):
            return np.asarray(column)
        raise InvalidInput(
            f"{where}: an index of {name!r} is not allowed, because this column has a single value per row; expected the name"
            " alone, or [:, 0]",
            kind="invalid_expression",
        )
    if index is not None:
        return np.asarray(column.part(checked(column, index, name, where)))
    if column.whole is None:
        raise InvalidInput(
            f"{where}: {name!r} is of shape {column.described}; name one of its columns, e.g. "
            f"{example(name, column)}{column.remark}",
            kind="invalid_expression",
        )
    return np.asarray(column.whole)
