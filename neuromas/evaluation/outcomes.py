"""Outcomes of single pairs as text, a digit per pair: how an evaluation keeps them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def outcomes_text(outcomes: ArrayLike) -> str:
    """Outcomes as text: 1 for right, 0 for wrong, a dot for NaN.

    Examples
    --------
    >>> outcomes_text([True, False]), outcomes_text([1.0, float("nan")])
    ('10', '1.')
    """
    values = np.asarray(outcomes, dtype=np.float64)
    return "".join(np.where(np.isnan(values), ".", np.where(values > 0, "1", "0")).tolist())


def read_outcomes(text: str) -> NDArray[np.float64]:
    """What `outcomes_text` wrote: 1, 0 and NaN; shape (n_pairs,).

    Examples
    --------
    >>> read_outcomes("10.").tolist()
    [1.0, 0.0, nan]
    """
    return np.array([np.nan if digit == "." else float(digit) for digit in text], dtype=np.float64)
