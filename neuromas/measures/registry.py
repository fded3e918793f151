"""Every measure by name, with the properties it claims. Look-up, command line, documentation and tests use this list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.measures.cka import KERNELS, cka
from neuromas.measures.rsa import COMPARISONS, DISSIMILARITIES, rsa

INVARIANCES: dict[str, str] = {
    "rotation": "an orthogonal matrix rotates the latents",
    "scaling": "all activity is multiplied by one positive number",
    "unit scaling": "each unit is multiplied by its own positive number",
    "shift": "each unit has its own number added",
    "unit order": "units change places",
}
"""Changes of one of the two systems that leave a measure unchanged, if it claims so. No measure depends on the sample order."""


@dataclass(frozen=True)
class Measure:
    """A comparison of two systems' activity in the same samples.

    Parameters
    ----------
    name : str
        Name for look-up.
    description : str
        One line.
    function : callable
        ``function(x, y, **options) -> float`` on arrays of shape (n_samples, n_units of each).
    symmetric : bool
        Whether x and y may change places.
    range : (float, float)
        Smallest and largest value.
    identical : float
        Value for a system compared with itself.
    is_metric : bool
        Whether it satisfies the axioms of a metric.
    invariances : tuple of str
        Those of `INVARIANCES` that it has with its default options. It has none of the others.
    options : mapping of str to tuple
        Name of an option → its possible values, the default first.
    """

    name: str
    description: str
    function: Callable[..., float]
    symmetric: bool
    range: tuple[float, float]
    identical: float
    is_metric: bool
    invariances: tuple[str, ...]
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def settled(self, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`options`, completed by the defaults of all others.

        Raises
        ------
        InvalidInput
            There is no such option, or the option has no such value; lists those that exist.
        """
        chosen = dict(options or {})
        unknown = [name for name in chosen if name not in self.options]
        if unknown:
            raise InvalidInput(
                f"measure {self.name!r} has no option {', '.join(map(repr, unknown))}; it has {', '.join(self.options)}"
                f"{suggestion(unknown[0], self.options)}",
                kind="unknown_option",
            )
        for name, value in chosen.items():
            choices = self.options[name]
            # by identity, because 1 equals True but is not a choice
            if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
                texts = [_text(choice) for choice in choices]
                raise InvalidInput(
                    f"measure {self.name!r}: {name} is one of {', '.join(texts)}, got {value!r}{suggestion(value, texts)}",
                    kind="unknown_option",
                )
        return {name: chosen.get(name, choices[0]) for name, choices in self.options.items()}

    def __call__(self, x: ArrayLike, y: ArrayLike, **options: Any) -> float:
        """The measure of two arrays of shape (n_samples, n_units of each). Row i is the same sample in both."""
        return self.function(x, y, **self.settled(options))


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            name="rsa",
            description="correlation of the dissimilarities of samples",
            function=rsa,
            symmetric=True,
            range=(-1.0, 1.0),
            identical=1.0,
            is_metric=False,
            invariances=("rotation", "scaling", "unit order"),
            options={"dissimilarity": tuple(DISSIMILARITIES), "comparison": tuple(COMPARISONS)},
        ),
        Measure(
            name="cka",
            description="alignment of the centred similarities of samples",
            function=cka,
            symmetric=True,
            range=(0.0, 1.0),
            identical=1.0,
            is_metric=False,
            invariances=("scaling", "unit scaling", "shift", "unit order"),
            options={"kernel": tuple(KERNELS), "zscore": (True, False)},
        ),
    )
}
"""Measures by name."""


def get_measure(name: str) -> Measure:
    """The measure called `name`.

    Raises
    ------
    NotFound
        There is none; lists those that exist.

    Examples
    --------
    >>> get_measure("rsa").range
    (-1.0, 1.0)
    """
    if name not in MEASURES:
        raise NotFound(
            f"no measure {name!r}; the measures are {', '.join(MEASURES)}{suggestion(name, MEASURES)}",
            kind="unknown_measure",
        )
    return MEASURES[name]


def measures_table() -> str:
    """The registry as a Markdown table; docs/measures.md holds a copy."""
    rows = ["| measure | what it is | range | symmetric | metric | unchanged by | options, default first |"]
    rows.append("|" + "---|" * 7)
    for measure in MEASURES.values():
        low, high = measure.range
        options = "; ".join(f"`{name}`: {', '.join(map(_text, choices))}" for name, choices in measure.options.items())
        cells = [f"`{measure.name}`", measure.description, f"{low:g} to {high:g}".replace("-", "−")]
        cells += [_yes(measure.symmetric), _yes(measure.is_metric), ", ".join(measure.invariances), options]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _text(value: object) -> str:
    return str(value).lower()


def _yes(claim: bool) -> str:
    return "yes" if claim else "no"
