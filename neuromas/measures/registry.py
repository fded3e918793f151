"""Every measure by name, with what it claims; look-up, command line, documentation and tests go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.cka import KERNELS, cka
from neuromas.measures.rsa import COMPARISONS, DISSIMILARITIES, rsa

INVARIANCES: dict[str, str] = {
    "rotation": "an orthogonal matrix turns the latents",
    "scaling": "all activity is multiplied by one positive number",
    "unit scaling": "each unit is multiplied by a positive number of its own",
    "shift": "each unit has a number of its own added",
    "unit order": "units change places",
}
"""What may happen to one of the two systems without changing a measure that claims it. None sees the order of samples."""


@dataclass(frozen=True)
class Measure:
    """A comparison of two systems' activity in the same samples.

    Parameters
    ----------
    name : str
        What it is looked up by.
    description : str
        One line.
    function : callable
        ``function(x, y, **options) -> float`` on arrays of shape (n_samples, n_units of each).
    symmetric : bool
        Whether x and y may change places.
    range : (float, float)
        Smallest and largest value.
    identical : float
        What a system compared with itself gets.
    is_metric : bool
        Whether it satisfies the axioms of a metric.
    invariances : tuple of str
        Which of `INVARIANCES` it claims with its default options; it has none of the others.
    options : mapping of str to tuple
        Settings and what each may be, the default first.
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
        """All options, those not given at their defaults.

        Raises
        ------
        InvalidInput
            It has no such option, or the option no such value; lists those that it has.
        """
        given = dict(options or {})
        unknown = [name for name in given if name not in self.options]
        if unknown:
            raise InvalidInput(
                f"measure {self.name!r} has no option {', '.join(map(repr, unknown))}; it has {', '.join(self.options)}",
                kind="unknown_option",
            )
        for name, value in given.items():
            allowed = self.options[name]
            if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
                raise InvalidInput(
                    f"measure {self.name!r}: {name} is one of {', '.join(map(_told, allowed))}, got {value!r}",
                    kind="unknown_option",
                )
        return {name: given.get(name, allowed[0]) for name, allowed in self.options.items()}

    def __call__(self, x: ArrayLike, y: ArrayLike, **options: Any) -> float:
        """The measure of two arrays of shape (n_samples, n_units of each), row i the same sample in both."""
        return self.function(x, y, **self.settled(options))


MEASURES: dict[str, Measure] = {
    one.name: one
    for one in (
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
        raise NotFound(f"no measure {name!r}; there are {', '.join(MEASURES)}", kind="unknown_measure")
    return MEASURES[name]


def measures_table() -> str:
    """The registry as a Markdown table; docs/measures.md holds a copy."""
    rows = ["| measure | what it is | range | symmetric | metric | unchanged by | options, default first |"]
    rows.append("|" + "---|" * 7)
    for one in MEASURES.values():
        low, high = one.range
        options = "; ".join(f"`{name}`: {', '.join(map(_told, allowed))}" for name, allowed in one.options.items())
        cells = [f"`{one.name}`", one.description, f"{low:g} to {high:g}".replace("-", "−")]
        cells += [_yes(one.symmetric), _yes(one.is_metric), ", ".join(one.invariances), options]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _told(value: object) -> str:
    return str(value).lower()


def _yes(claim: bool) -> str:
    return "yes" if claim else "no"
