"""What the name of a source says, such as its session, as columns that expressions may name."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from neuromas.errors import InvalidInput
from neuromas.patterns import full_matches
from neuromas.recordings.expression import names_in
from neuromas.schema.recipe import Recipe

R = TypeVar("R", bound=Recipe)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
"""A number as people write it; ``007`` is a label."""


def with_file_name(recipe: R, path: Path) -> R:
    """The recipe with the groups of ``file_name`` replaced in its expressions by what the name of `path` says.

    Parameters
    ----------
    recipe : Recipe
    path : Path
        The source, a file or a folder.

    Returns
    -------
    Recipe
        Of the same type. Its provenance thus holds the values.

    Raises
    ------
    InvalidInput
        ``file_name`` is not a regular expression, takes too long, or does not match the name of the source.

    Examples
    --------
    >>> from neuromas.schema.recipe import ArraysRecipe
    >>> recipe = ArraysRecipe(
    ...     file_name=r"(?P<mouse>m\\d+)_day(?P<day>\\d+)\\.csv", variables={"late": "day > 2", "mouse": "mouse"}
    ... )
    >>> settled = with_file_name(recipe, Path("data/m1_day3.csv"))
    >>> {name: variable.expression for name, variable in settled.variables.items()}
    {'late': '3 > 2', 'mouse': "'m1'"}
    """
    if recipe.file_name is None:
        return recipe
    name = path.name or path.resolve().name
    matches = full_matches(recipe.file_name, [name], "file_name")
    if name not in matches:
        raise InvalidInput(
            f"{path}: file_name={recipe.file_name!r} does not match the name {name!r}, from its first to its last character",
            kind="invalid_recipe",
        )
    values = {group: _value(text or "") for group, text in matches[name].items()}
    variables = {
        label: variable.model_copy(update={"expression": _replaced(variable.expression, values)})
        for label, variable in recipe.variables.items()
    }
    update: dict[str, object] = {"variables": variables}
    where = getattr(recipe, "where", None)
    if where is not None:
        update["where"] = _replaced(where, values)
    return recipe.model_copy(update=update)


def _value(text: str) -> int | float | str:
    """A number if the text is one, else the text."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _replaced(expression: str, values: Mapping[str, int | float | str]) -> str:
    """`expression` with names replaced by constants; unchanged if it names none of them, or is no expression."""
    try:
        named = names_in(expression)
        tree = ast.parse(expression, mode="eval")
    except (InvalidInput, SyntaxError, ValueError, RecursionError, MemoryError):
        # reported where the expression is computed
        return expression
    return ast.unparse(_Constants(values).visit(tree)) if named & set(values) else expression


class _Constants(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, int | float | str]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.values[node.id]) if node.id in self.values else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        match node:
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str() as name)]) if name in self.values:
                return ast.Constant(self.values[name])
        # the name of a function is no column
        node.args = [self.visit(argument) for argument in node.args]
        return node
