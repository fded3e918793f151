"""What a figure of the paper is here: a sweep, a drawing, and the paper's claims about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from neuromas.schema.sweep import Sweep


@dataclass(frozen=True)
class Claim:
    """One thing that the paper says about a figure, and whether it held here.

    Attributes
    ----------
    claim : str
        In the paper's sense.
    held : bool
    detail : str
        With numbers.
    """

    claim: str
    held: bool
    detail: str


@dataclass(frozen=True)
class PaperFigure:
    """One figure, reproduced by ``neuromas reproduce NAME``.

    Attributes
    ----------
    name : str
        As the paper numbers it, e.g. ``2d``.
    title : str
    sweep : callable
        ``sweep(quick)`` gives the declared `Sweep`; the smaller one if quick.
    draw : callable
        ``draw(table)`` gives the drawing, in the paper's arrangement; title and the word "quick" are put above it afterwards.
    claims : callable
        ``claims(table)`` gives a `Claim` per claim of the paper.
    """

    name: str
    title: str
    sweep: Callable[[bool], Sweep]
    draw: Callable[[pd.DataFrame], Figure]
    claims: Callable[[pd.DataFrame], Sequence[Claim]]
