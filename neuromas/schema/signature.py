"""Signatures and parameter lists of functions whose options are the fields of a document."""

from __future__ import annotations

import functools
import inspect
import operator
import textwrap
import types
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import JsonValue

from neuromas.schema.document import Document


def options_of(document: type[Document], leave_out: Collection[str] = (), **defaults: Any) -> list[inspect.Parameter]:
    """The fields of a document as keyword parameters, in order.

    Parameters
    ----------
    document : subclass of Document
    leave_out : collection of str
        Fields that are no options.
    **defaults
        Defaults that differ from those of the fields.

    Examples
    --------
    >>> from neuromas.schema.evaluation import EvaluationSpec
    >>> print(options_of(EvaluationSpec, leave_out=("directions", "controls", "part"), seed=3)[1])
    seed: int = 3
    """
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name, inspect.Parameter.empty if field.is_required() else field.get_default()),
            annotation=plain_type(field.annotation),
        )
        for name, field in document.model_fields.items()
        if name not in leave_out
    ]


def describe_options(
    document: type[Document], parameters: Collection[inspect.Parameter], notes: Mapping[str, str] | None = None
) -> str:
    """The parameters as a section of a numpydoc docstring, with the fields' own descriptions.

    Parameters
    ----------
    document : subclass of Document
    parameters : collection of inspect.Parameter
        From `options_of`.
    notes : mapping of str to str, optional
        Parameter → what is added to its default.
    """
    lines = []
    for parameter in parameters:
        default = "" if parameter.default is inspect.Parameter.empty else f", default {parameter.default!r}"
        note = (notes or {}).get(parameter.name, "")
        lines.append(f"{parameter.name} : {type_text(parameter.annotation)}{default}{note}")
        description = " ".join((document.model_fields[parameter.name].description or "").split())
        # descriptions are also the help of other languages' readers: null is None here
        description = description.replace("null:", "None:").replace("true:", "True:").replace("false:", "False:")
        lines += textwrap.wrap(description, 116, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def plain_type(annotation: Any) -> Any:
    """A type without bounds and other marks.

    Examples
    --------
    >>> plain_type(dict[str, Annotated[int, "positive"]] | None)
    dict[str, int] | None
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is JsonValue:
        return Any
    if origin is Annotated:
        return plain_type(arguments[0])
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(plain_type, arguments))
    if origin in (dict, tuple, list):
        return origin[tuple(plain_type(argument) for argument in arguments)]
    return annotation


def type_text(annotation: Any) -> str:
    """A type as numpydoc writes it.

    Examples
    --------
    >>> type_text(tuple[str, ...] | None)
    'sequence of str or None'
    >>> type_text(dict[str, int])
    'mapping of str to int'
    >>> type_text(Literal["sum", "convex"])
    "{'sum', 'convex'}"
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "{" + ", ".join(map(repr, arguments)) + "}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_text, arguments))
    if origin is dict:
        return f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"sequence of {type_text(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(map(type_text, arguments))})"
    if annotation is type(None):
        return "None"
    return "value" if annotation is Any else annotation.__name__
