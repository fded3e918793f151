"""Causal variables from the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError
from neuromas.recordings.check import listing
from neuromas.recordings.expression import evaluate_known
from neuromas.recordings.incoming import array_of, filled
from neuromas.schema.recipe import VariableRecipe
from neuromas.schema.recording import VariableSpec


def tidy(values: ArrayLike) -> NDArray[Any]:
    """A column as numbers, booleans or text. Bytes are decoded; a missing entry becomes NaN or ``""``.

    What is neither numbers nor text is returned as it is, and text that is not Unicode as bytes: `unusable` says why.

    Examples
    --------
    >>> tidy(np.array([b"NB_24.mp4", b"SB_23.mp4"], dtype=object))
    array(['NB_24.mp4', 'SB_23.mp4'], dtype='<U9')
    >>> tidy(np.array([1, None, 2.5], dtype=object))
    array([1. , nan, 2.5])
    """
    try:
        return filled(array_of(values))
    except InvalidInput as error:
        if error.kind == "too_large":
            raise
        array = np.asarray(values)
        return array.view(f"V{array.dtype.itemsize}") if array.dtype.kind == "U" else array


def unusable(values: ArrayLike) -> str:
    """Why a column is neither numbers nor text that expressions can use; empty if it is.

    Examples
    --------
    >>> unusable(np.array(["2020-01-01"], dtype="datetime64[D]")), unusable(np.zeros(2))
    ('dates, which are no values; give numbers, such as seconds or days, or text', '')
    """
    try:
        array = filled(array_of(values))
    except InvalidInput as error:
        return error.message
    return "" if array.dtype.kind in "biufU" else f"{array.dtype}, which is neither numbers nor text"


def exact(number: Any) -> str:
    """A number as text that no other number has; whole numbers without ``.0``.

    Examples
    --------
    >>> exact(950921187.0), exact(np.float32(0.1)), exact(0.1234567)
    ('950921187', '0.1', '0.1234567')
    """
    return str(int(number)) if float(number).is_integer() and abs(number) < 2**53 else str(number)


def as_text(values: NDArray[Any]) -> NDArray[Any]:
    """`values` as text, numbers by `exact`, booleans as ``true`` and ``false``."""
    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind == "f":
        return np.array([exact(number) for number in values.ravel()], dtype=str).reshape(values.shape)
    return values.astype(str)


def make_variables(
    recipes: Mapping[str, VariableRecipe], columns: Mapping[str, Any], where: str
) -> tuple[dict[str, NDArray[Any]], list[VariableSpec]]:
    """Values and declarations of the variables that `recipes` define.

    Parameters
    ----------
    recipes : mapping of str to VariableRecipe
    columns : mapping of str to array
        The names that expressions may use; shapes broadcast against one another.
    where : str
        File or recording, for messages.

    Returns
    -------
    values : dict of str to ndarray
        Text, booleans, numbers, or codes where the declaration has meanings.
    specs : list of VariableSpec
        One per variable.

    Raises
    ------
    InvalidDocument
        A variable cannot be made. The error lists every problem.

    Examples
    --------
    >>> recipes = {"old": VariableRecipe(expression="kind", meanings={"0": "foil", "1": "target"})}
    >>> values, specs = make_variables(recipes, {"kind": np.array([1, 0])}, "example")
    >>> values["old"], specs[0].meanings
    (array(['target', 'foil'], dtype='<U6'), ('foil', 'target'))
    """
    problems: list[str] = []
    made: dict[str, NDArray[Any]] = {}
    specs: list[VariableSpec] = []
    for name, recipe in recipes.items():
        try:
            values, absent = evaluate_known(recipe.expression, columns, f"variable {name!r}")
        except NeuromasError as error:
            problems.append(error.message)
            continue
        if absent.any():
            problems.append(
                f"variable {name!r}: {int(absent.sum())} of {values.size} entries of {recipe.expression!r} are missing, "
                "because a column has missing entries; leave these rows out (where), or say what they count as "
                "(where(isfinite(x), x, 0), where(x == '', 'none', x))"
            )
            continue
        document: dict[str, Any] = {"name": name, "description": recipe.description, "units": recipe.units}
        if recipe.bins is not None:
            values, document = _binned(recipe.bins, values, document, problems)
        elif recipe.meanings is not None:
            values, document = _named(recipe.meanings, values, document, problems)
        elif recipe.type == "categorical":
            values, document = _categories(values, document)
        elif recipe.type is not None:
            document["type"] = recipe.type
        elif values.dtype.kind in "iuf":
            whole = values.dtype.kind != "f" or np.array_equal(values, np.rint(values))
            document["type"] = "integer" if whole else "real"
        else:
            values, document = _categories(values, document)
        listed = VariableSpec.problems(document)
        problems += [f"variable {name!r}: {problem}" for problem in listed]
        if not listed:
            made[name] = values
            specs.append(VariableSpec.model_validate(document))
    if problems:
        raise InvalidDocument(where, problems)
    return made, specs


def _categories(values: NDArray[Any], document: dict[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    texts = as_text(values)
    names = ["false", "true"] if values.dtype.kind == "b" else np.unique(texts).tolist()
    return texts, document | {"type": "categorical", "values": list(range(len(names))), "meanings": names}


def _binned(
    edges: tuple[float, ...], values: NDArray[Any], document: dict[str, Any], problems: list[str]
) -> tuple[NDArray[Any], dict[str, Any]]:
    if values.dtype.kind not in "iuf":
        problems.append(f"variable {document['name']!r}: bins are for numbers, got {values.dtype}")
        return values, document | {"type": "real"}
    outside = (values < edges[0]) | (values > edges[-1])
    if outside.any():
        problems.append(
            f"variable {document['name']!r}: {int(outside.sum())} of {values.size} values lie outside the bins, which go from"
            f" {edges[0]:g} to {edges[-1]:g}; the values go from {values.min():g} to {values.max():g}"
        )
    codes = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    ends = [")"] * (len(edges) - 2) + ["]"]
    meanings = [f"[{exact(low)}, {exact(high)}{end}" for low, high, end in zip(edges, edges[1:], ends, strict=False)]
    document = document | {"type": "categorical", "values": list(range(len(meanings))), "meanings": meanings}
    if document["units"] != "1":
        document["description"] = f"{document['description']} (bins in {document['units']})".strip()
        document["units"] = "1"
    return np.array(meanings)[codes], document


def _named(
    meanings: Mapping[str, str], values: NDArray[Any], document: dict[str, Any], problems: list[str]
) -> tuple[NDArray[Any], dict[str, Any]]:
    texts = as_text(values)
    distinct = np.unique(texts).tolist()
    unnamed = [text for text in distinct if text not in meanings]
    if unnamed:
        problems.append(
            f"variable {document['name']!r}: no meaning is given for {listing(unnamed)}; meanings are given for "
            f"{listing(list(meanings))}"
        )
    names = list(dict.fromkeys(meanings.values()))
    document = document | {"type": "categorical", "values": list(range(len(names))), "meanings": names}
    table = np.array([meanings.get(text, names[0]) for text in distinct])
    return table[np.searchsorted(distinct, texts)], document
