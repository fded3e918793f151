"""Causal variables from the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromas.errors import InvalidDocument, NeuromasError
from neuromas.recordings.check import listing
from neuromas.recordings.expression import evaluate_known
from neuromas.schema.recipe import VariableRecipe
from neuromas.schema.recording import VariableSpec
from neuromas.unpacking import check_unpacked


def tidy(values: ArrayLike) -> NDArray[Any]:
    """A column as numbers, booleans or text. Bytes are decoded; a missing entry becomes NaN or ``""``.

    Examples
    --------
    >>> tidy(np.array([b"NB_24.mp4", b"SB_23.mp4"], dtype=object))
    array(['NB_24.mp4', 'SB_23.mp4'], dtype='<U9')
    >>> tidy(np.array([1, None, 2.5], dtype=object))
    array([1. , nan, 2.5])
    """
    array = np.asarray(values)
    if array.dtype.kind == "S":
        # eight bytes for each object on the way
        check_unpacked(8 * array.size + 4 * array.nbytes, array.nbytes, "text")
        return np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "OT":
        return array
    entries = [
        entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry for entry in array.ravel().tolist()
    ]
    entries = [None if _is_missing(entry) else entry for entry in entries]
    if any(isinstance(entry, str) for entry in entries):
        return _texts(["" if entry is None else str(entry) for entry in entries]).reshape(array.shape)
    if all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        return np.array(entries, dtype=bool).reshape(array.shape)
    try:
        return np.array([np.nan if entry is None else entry for entry in entries]).reshape(array.shape)
    except (ValueError, TypeError):  # ragged
        return array


def _texts(texts: list[str]) -> NDArray[Any]:
    """An array in which every entry is as wide as the longest; InvalidInput if one long text makes it far too large."""
    lengths = [len(text) for text in texts]
    check_unpacked(
        4 * len(texts) * max(lengths), sum(lengths), f"{len(texts):,} texts of up to {max(lengths):,} characters"
    )
    return np.array(texts, dtype=str)


def _is_missing(entry: object) -> bool:
    is_nan = isinstance(entry, (float, np.floating)) and entry != entry
    return entry is None or entry is pd.NA or entry is pd.NaT or is_nan


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
