"""Predicates on the values of a variable: one value, several, a range, or any.

Values are meanings (``"demo"``) or numbers (``3``). The same predicates can be written as text: ``phase=demo``,
``count=1,3,5``, ``count=2..5``, ``phase=any``. Put a meaning in double quotes if it could be read as one of these:
``phase="a, b"``.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput, suggestion
from neuromas.schema.recording import VariableSpec


@dataclass(frozen=True)
class Between:
    """Every value from `low` to `high`, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


@dataclass(frozen=True)
class Any_:
    """Every value. (`typing` has the name without the underscore.)"""

    def __str__(self) -> str:
        return "any"


ANY: Final = Any_()
"""Predicate that every value fulfils."""

Value = str | int | float | bool
Predicate = Value | Between | Any_ | Iterable[Value]
"""The condition on one variable in a query."""


def between(low: float, high: float) -> Between:
    """Every value from `low` to `high`, both included; either may be infinite.

    Raises
    ------
    InvalidInput
        `low` is above `high`, or one of them is not a number.

    Examples
    --------
    >>> str(between(2, 5))
    '2..5'
    """
    if not low <= high:  # also where one is NaN
        raise InvalidInput(
            f"between: expected a low bound that is not above the high bound, got {low} and {high}",
            kind="invalid_query",
        )
    return Between(low, high)


def parse_query(texts: Sequence[str]) -> dict[str, Predicate]:
    """The query that words of the command line describe.

    Parameters
    ----------
    texts : sequence of str
        ``VARIABLE=VALUE``, ``VARIABLE=VALUE,VALUE``, ``VARIABLE=LOW..HIGH`` (LOW or HIGH may be missing),
        ``VARIABLE=any``. A value in double quotes is read literally; a double quote in it is written twice.

    Returns
    -------
    dict of str to predicate

    Raises
    ------
    InvalidInput
        A word has none of these forms, or a variable is named twice.

    Examples
    --------
    >>> parse_query(["phase=demo", "count=1,3"])
    {'phase': 'demo', 'count': ('1', '3')}
    >>> parse_query(["count=2..5"])
    {'count': Between(low=2.0, high=5.0)}
    >>> parse_query(['phase="a, b"', 'count="any",3'])
    {'phase': 'a, b', 'count': ('any', '3')}
    """
    query: dict[str, Predicate] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value:
            raise InvalidInput(
                f"query {text!r}: expected VARIABLE=VALUE, VARIABLE=VALUE,VALUE, VARIABLE=LOW..HIGH or VARIABLE=any",
                kind="invalid_query",
            )
        if name in query:
            raise InvalidInput(f"query: variable {name!r} is named twice", kind="invalid_query")
        query[name] = _parse_value(text, value)
    return query


def _parse_value(text: str, value: str) -> Predicate:
    if re.search(r'(^|,)\s*"', value):
        try:
            (quoted,) = csv.reader([value], skipinitialspace=True, strict=True)
        except csv.Error as error:
            raise InvalidInput(f"query {text!r}: the quotes do not match: {error}", kind="invalid_query") from error
        if not all(quoted):
            raise InvalidInput(f"query {text!r}: a value between the commas is empty", kind="invalid_query")
        return quoted[0] if len(quoted) == 1 else tuple(quoted)
    if value == "any":
        return ANY
    if ".." in value:
        low, _, high = value.partition("..")
        try:
            return between(float(low) if low else -math.inf, float(high) if high else math.inf)
        except ValueError as error:
            raise InvalidInput(
                f"query {text!r}: expected numbers around '..': {error}", kind="invalid_query"
            ) from error
    if "," in value:
        parts = tuple(part.strip() for part in value.split(","))
        if not all(parts):
            raise InvalidInput(f"query {text!r}: a value between the commas is empty", kind="invalid_query")
        return parts
    return value


def describe(query: Mapping[str, Predicate]) -> str:
    """The query as text, for messages.

    Examples
    --------
    >>> describe({"phase": "demo", "count": between(2, 5)})
    'phase=demo count=2..5'
    """
    return " ".join(f"{name}={_text(predicate)}" for name, predicate in query.items())


def _text(predicate: Predicate) -> str:
    if isinstance(predicate, (str, Between, Any_)) or not isinstance(predicate, Iterable):
        return _quoted(predicate)
    return ",".join(_quoted(value) for value in predicate)


def _quoted(value: object) -> str:
    """`value` as `parse_query` reads it."""
    special = isinstance(value, str) and (value == "any" or "," in value or ".." in value or value.startswith('"'))
    return '"{}"'.format(str(value).replace('"', '""')) if special else str(value)


def matches(
    predicate: Predicate, spec: VariableSpec, values: NDArray[np.float64], dtype: np.dtype[np.generic]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of a variable's values fulfil a predicate, and how far off the others are.

    Parameters
    ----------
    predicate : predicate
        The condition.
    spec : VariableSpec
        The variable's declaration.
    values : ndarray of shape (n_values,)
        As stored numbers.
    dtype : dtype
        Precision in which the variable is stored; values of the predicate are rounded to it.

    Returns
    -------
    fulfilled : ndarray of bool of shape (n_values,)
    distance : ndarray of shape (n_values,)
        0 where the predicate is fulfilled. Elsewhere 1 for a categorical variable, and else relative to the range of `values`.

    Raises
    ------
    InvalidInput
        The variable cannot take the value. The error lists the values that it can take, or those that were recorded.
    """
    if isinstance(predicate, Any_):
        return np.ones(values.shape, dtype=bool), np.zeros(values.shape)
    if isinstance(predicate, Between):
        if spec.type == "categorical":
            raise InvalidInput(
                f"variable {spec.name!r} is categorical and has no order, so a range cannot select its values; "
                f"they are {', '.join(spec.meanings or ())}",
                kind="invalid_query",
            )
        low, high = (
            np.asarray(bound).astype(dtype if spec.type == "real" else np.float64)
            for bound in (predicate.low, predicate.high)
        )
        off = np.maximum(np.maximum(low - values, values - high), 0.0)
    else:
        several = predicate if isinstance(predicate, Iterable) and not isinstance(predicate, str) else [predicate]
        codes = np.asarray(_codes(list(several), spec, values))
        if not codes.size:
            raise InvalidInput(f"variable {spec.name!r}: expected at least one value, got none", kind="invalid_query")
        rounded = codes.astype(dtype).astype(np.float64) if spec.type == "real" else codes
        off = np.abs(values[:, None] - rounded[None, :]).min(axis=1)
    if spec.type == "categorical":
        return off == 0, (off > 0).astype(np.float64)
    return off == 0, off / (float(np.ptp(values)) or 1.0)


def matching(
    query: Mapping[str, Predicate],
    specs: Sequence[VariableSpec],
    values: NDArray[np.float64],
    dtypes: Sequence[np.dtype[np.generic]],
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which combinations of values fulfil every predicate, and how far the others are off, shape (n_values,) each.

    Parameters
    ----------
    query : mapping of str to predicate
    specs : sequence of VariableSpec
        One per column of `values`; one that the query does not mention may have any value.
    values : ndarray of shape (n_values, n_variables)
    dtypes : sequence of dtype
        Precision in which each variable is stored.

    Raises
    ------
    InvalidInput
        Values that the variables cannot take; all are listed.
    """
    fulfilled, distance = np.ones(len(values), dtype=bool), np.zeros(len(values))
    problems = []
    for column, (spec, dtype) in enumerate(zip(specs, dtypes, strict=True)):
        if spec.name in query:
            try:
                hit, off = matches(query[spec.name], spec, values[:, column], dtype)
            except InvalidInput as error:  # the message names all variables whose values are refused
                problems.append(error)
                continue
            fulfilled &= hit
            distance += off
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InvalidInput("; ".join(map(str, problems)), kind="invalid_value")
    return fulfilled, distance


def nearest(
    specs: Sequence[VariableSpec],
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    distance: NDArray[np.float64],
    most: int = 3,
) -> str:
    """The combinations of values with the smallest distance, as text for messages."""
    texts = []
    for row in np.lexsort((-counts, distance))[:most]:
        held = " ".join(f"{spec.name}={spec.label(number)}" for spec, number in zip(specs, values[row], strict=True))
        texts.append(f"{held} ({counts[row]:,} samples)")
    return ", ".join(texts)


def _codes(several: Sequence[object], spec: VariableSpec, values: NDArray[np.float64]) -> list[float]:
    """Stored numbers of values; InvalidInput lists all that the variable cannot take."""
    codes = [_code(value, spec) for value in several]
    strange = [value for value, code in zip(several, codes, strict=True) if math.isnan(code)]
    if strange:
        existing = list(spec.meanings or [spec.label(float(number)) for number in (spec.values or values)])
        listed = ", ".join(existing[:30]) + (f" and {len(existing) - 30} more" if len(existing) > 30 else "")
        hint = suggestion(strange[0], existing) if isinstance(strange[0], str) else ""
        raise InvalidInput(
            f"variable {spec.name!r} has no value {', '.join(map(repr, strange))}; its values are {listed}{hint}",
            kind="invalid_value",
        )
    return codes


def _code(value: object, spec: VariableSpec) -> float:
    try:
        return spec.code(value)
    except KeyError:
        return math.nan


def checked_tolerance(name: str, specs: Sequence[VariableSpec], tolerance: Mapping[str, float]) -> dict[str, float]:
    """The tolerances above 0 of an index of the recording `name`.

    Raises
    ------
    InvalidInput
        A tolerance is negative or infinite, or is for a categorical variable or one that the index does not have.
    """
    variables = [spec.name for spec in specs]
    unknown = [key for key in tolerance if key not in variables]
    if unknown:
        raise InvalidInput(
            f"index of {name!r}: tolerance for {', '.join(map(repr, unknown))}, but the index has the variables "
            f"{', '.join(variables)}" + suggestion(unknown[0], variables),
            kind="invalid_option",
        )
    wrong = {key: width for key, width in tolerance.items() if not 0 <= width < math.inf}
    categorical = [spec.name for spec in specs if spec.type == "categorical" and tolerance.get(spec.name)]
    if wrong or categorical:
        raise InvalidInput(
            f"index of {name!r}: expected a tolerance of 0 or more"
            + (f", got {wrong}" if wrong else f" for numbers; {', '.join(map(repr, categorical))} is categorical"),
            kind="invalid_option",
        )
    return {key: float(width) for key, width in tolerance.items() if width > 0}
