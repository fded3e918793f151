"""Expressions over the columns of a table: how a causal variable is computed, and which rows are taken.

An expression is a small part of Python, read by its syntax tree and computed by NumPy on whole columns. Nothing in it can
reach beyond the columns and the functions below, so a recipe from somebody else can be used without being trusted.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, NotFound

_LONGEST = 2000

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
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
    ast.In: lambda left, right: np.isin(left, right),
    ast.NotIn: lambda left, right: ~np.isin(left, right),
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
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
"""What an expression may call. ``col("name")`` reaches a column whose name is no identifier."""


def evaluate(expression: str, columns: Mapping[str, Any], where: str = "expression") -> NDArray[Any]:
    """Compute `expression` on whole columns.

    Parameters
    ----------
    expression : str
        Names of columns, numbers, text in quotes, lists of these, ``+ - * / // % **``, comparisons (``in`` with a list too),
        ``and or not`` (or ``& | ~``), ``a if condition else b``, and `FUNCTIONS`. Elementwise throughout.
    columns : mapping of str to array
        Shapes that broadcast against one another, e.g. (n_trials,) each, or (n_trials, 1) beside (n_steps,).
    where : str
        What the expression is for, for messages.

    Returns
    -------
    ndarray
        Of the shape to which the columns used in it broadcast; shape () if it uses none.

    Raises
    ------
    NotFound
        A column or function does not exist; lists those that do.
    InvalidInput
        It is no expression, holds what is not allowed, or cannot be computed on these columns.

    Examples
    --------
    >>> columns = {"stim": np.array([0, 1, 2]), "side": np.array(["l", "r", "l"])}
    >>> evaluate("where(stim > 0 and side == 'l', 'hit', 'other')", columns)
    array(['other', 'other', 'hit'], dtype='<U5')
    >>> evaluate("stim % 2", columns)
    array([0, 1, 0])
    """
    if len(expression) > _LONGEST:
        raise InvalidInput(f"{where}: expected at most {_LONGEST} characters, got {len(expression)}", kind="expression")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"{where}: {expression!r} is no expression: {error}", kind="expression") from error
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_value(tree, columns, where, expression))
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidInput(f"{where}: {expression!r} cannot be computed: {error}", kind="expression") from error


def names_in(expression: str) -> set[str]:
    """Every name that `expression` mentions, functions too; empty if it is none.

    Examples
    --------
    >>> sorted(names_in("where(time < 0, 'before', side)"))
    ['side', 'time', 'where']
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _value(node: ast.expr, columns: Mapping[str, Any], where: str, whole: str) -> Any:
    def value(part: ast.expr) -> Any:
        return _value(part, columns, where, whole)

    match node:
        case ast.Constant(value=bool() | str() as constant):
            return constant
        case ast.Constant(value=int() as constant):
            return (
                np.int64(constant) if abs(constant) < 2**63 else np.float64(constant)
            )  # never Python's endless integers
        case ast.Constant(value=float() as constant):
            return np.float64(constant)
        case ast.Name(id=name):
            return _column(name, columns, where)
        case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)], keywords=[]):
            return _column(name, columns, where)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                raise NotFound(
                    f"{where}: no function {name!r}; there are {', '.join(sorted([*FUNCTIONS, 'col']))}",
                    kind="unknown_function",
                )
            return FUNCTIONS[name](*(value(argument) for argument in arguments))
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return np.array([value(part) for part in parts])
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](value(operand))
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
            return (np.logical_and if isinstance(op, ast.BitAnd) else np.logical_or)(value(left), value(right))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](value(left), value(right))
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            result = value(parts[0])
            for part in parts[1:]:
                result = join(result, value(part))
            return result
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            result, before = np.True_, value(left)
            for comparison, other in zip(ops, others, strict=True):
                after = value(other)
                result, before = np.logical_and(result, _COMPARE[type(comparison)](before, after)), after
            return result
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return np.where(value(test), value(body), value(orelse))
    told = ast.get_source_segment(whole.strip(), node) or type(node).__name__
    raise InvalidInput(
        f"{where}: {told!r} is not allowed in an expression; it may hold columns, numbers, text, arithmetic, comparisons, "
        f"'and', 'or', 'not', 'a if condition else b' and the functions {', '.join(FUNCTIONS)}",
        kind="expression",
    )


def _column(name: str, columns: Mapping[str, Any], where: str) -> Any:
    if name not in columns:
        raise NotFound(
            f"{where}: no column {name!r}; there are {', '.join(map(str, columns)) or 'none'}", kind="unknown_column"
        )
    return np.asarray(columns[name])
