"""How recordings look in a terminal and in a notebook: short, and without reading activity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromas import dims
from neuromas.schema.recording import RecordingManifest, VariableSpec
from neuromas.text import visible

MOST_VALUES = 12
"""Most values of a variable that are listed one by one."""


def lines(head: str, rows: Iterable[tuple[str, str]], tail: Sequence[str] = ()) -> str:
    """Text in xarray's style: a headline, then one indented line per variable.

    Examples
    --------
    >>> print(lines("<Recording 'toy' (sample: 6, unit: 2)>", [("side", "left, right")]))
    <Recording 'toy' (sample: 6, unit: 2)>
    Variables:
        side     left, right
    """
    entries = list(rows)
    width = max(8, *(len(name) for name, _ in entries))
    named = (f"    {name:<{width}} {visible(text, lines=False)}" for name, text in entries)
    return "\n".join([visible(head, lines=False), "Variables:", *named, *(visible(line, lines=False) for line in tail)])


def page(title: str, facts: Iterable[tuple[str, str]], heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML of a title, facts and a table of variables; every text is escaped.

    Examples
    --------
    >>> text = page("Recording toy", [("samples", "6")], ["variable", "values"], [["side", "<left>"]])
    >>> text.endswith("<tbody><tr><td>side</td><td>&lt;left&gt;</td></tr></tbody></table></div>")
    True
    """
    listed = "".join(f"<dt>{escape(visible(name))}</dt><dd>{escape(visible(text))}</dd>" for name, text in facts)
    head = "".join(f"<th>{escape(visible(text))}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(visible(text))}</td>" for text in row) + "</tr>" for row in rows)
    style = "display: grid; grid-template-columns: max-content auto; column-gap: 1em; margin: 0.5em 0"
    return (
        f'<div class="neuromas"><strong>{escape(visible(title))}</strong><dl style="{style}">{listed}</dl>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def counted(spec: VariableSpec, values: NDArray[Any], counts: NDArray[Any]) -> str:
    """The values of a variable and how many samples hold each; the range of many.

    Parameters
    ----------
    spec : VariableSpec
    values : ndarray of shape (n_values,)
        Distinct stored numbers, ascending.
    counts : ndarray of int64, shape (n_values,)

    Examples
    --------
    >>> counted(VariableSpec(name="n", type="integer"), np.array([1, 2]), np.array([30, 4]))
    '1 (30), 2 (4)'
    """
    many = len(values) > MOST_VALUES
    if spec.meanings is None and (spec.type == "real" or many):
        return f"{range_of(spec, values)}, {len(values):,} distinct values"
    listed = [
        f"{spec.label(float(value))} ({count:,})"
        for value, count in zip(values[:MOST_VALUES], counts[:MOST_VALUES], strict=True)
    ]
    return ", ".join([*listed, f"and {len(values) - MOST_VALUES:,} more"] if many else listed)


def values_of(dataset: xr.Dataset, spec: VariableSpec) -> str:
    """The values that a variable takes, for one line; without its range if it lies on disk."""
    if spec.meanings is not None:
        return ", ".join(spec.meanings)
    variable = dataset[spec.name].variable
    if variable._in_memory:
        return range_of(spec, variable.values)
    return ", ".join(f"{value:g}" for value in spec.values or ())


def describe(dataset: xr.Dataset, manifest: RecordingManifest) -> list[tuple[str, str]]:
    """(name, type and values) of each variable."""
    rows = []
    for spec in manifest.variables:
        values = values_of(dataset, spec)
        rows.append((spec.name, f"{spec.type}: {values}" if values else spec.type))
    return rows


def recording_text(name: str, dataset: xr.Dataset, manifest: RecordingManifest) -> str:
    """The `repr` of a recording."""
    n_samples, n_units = dataset[dims.ACTIVITY].shape
    facts = [f"{dataset[dims.ACTIVITY].dtype}" + ("" if manifest.units == "1" else f" in {manifest.units}")]
    n_trials = _n_trials(dataset)
    facts += [] if n_trials is None else [f"{n_trials:,} trials"]
    facts.append(f"access {manifest.access!r}")
    head = f"<Recording {name!r} (sample: {n_samples:,}, unit: {n_units:,})> {', '.join(facts)}"
    return lines(head, describe(dataset, manifest))


def recording_html(name: str, dataset: xr.Dataset, manifest: RecordingManifest) -> str:
    """The page of a recording in a notebook."""
    n_samples, n_units = dataset[dims.ACTIVITY].shape
    n_trials = _n_trials(dataset)
    in_memory = dataset[dims.ACTIVITY].variable._in_memory
    physical = "" if manifest.units == "1" else f", in {manifest.units}"
    names = [str(unit) for unit in dataset[dims.UNIT].values[:MOST_VALUES]]
    more = f" and {n_units - MOST_VALUES:,} more" if n_units > MOST_VALUES else ""
    listed = {dims.UNIT, dims.SAMPLE, *(spec.name for spec in manifest.variables)}
    others = [f"{key} ({coordinate.dims[0]})" for key, coordinate in dataset.coords.items() if key not in listed]
    facts = [
        ("system", ", ".join(text for text in (manifest.system, manifest.layer, manifest.task) if text)),
        ("samples", f"{n_samples:,}" + ("" if n_trials is None else f", in {n_trials:,} trials")),
        ("units", f"{n_units:,} units: {', '.join(names)}{more}"),
        ("activity", f"{dataset[dims.ACTIVITY].dtype}{physical}, {'in memory' if in_memory else 'on disk'}"),
        ("access", manifest.access),
        ("other coordinates", ", ".join(others)),
        ("control", manifest.control),
        ("licence", manifest.licence),
    ]
    rows = [(spec.name, spec.type, _values_and_counts(dataset, spec), spec.description) for spec in manifest.variables]
    heads = ("variable", "type", "values (samples)", "description")
    return page(f"Recording {name}", [(key, text) for key, text in facts if text], heads, rows)


def _values_and_counts(dataset: xr.Dataset, spec: VariableSpec) -> str:
    variable = dataset[spec.name].variable
    if not variable._in_memory:
        return values_of(dataset, spec)
    return counted(spec, *np.unique(variable.values, return_counts=True))


def range_of(spec: VariableSpec, values: NDArray[Any]) -> str:
    """The smallest and largest of some values, with their units."""
    return f"{values.min():g} to {values.max():g}" + ("" if spec.units == "1" else f" {spec.units}")


def _n_trials(dataset: xr.Dataset) -> int | None:
    """How many trials there are; None if their numbers lie on disk."""
    trial = dataset[dims.TRIAL].variable
    return int(np.unique(trial.values).size) if trial._in_memory else None
