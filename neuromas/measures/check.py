"""What a measure asks of the arrays it is given."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromas.errors import InvalidInput

MIN_SAMPLES = 3
"""Fewer have at most one dissimilarity, which correlates with nothing."""

Floats = NDArray[np.float64]


def samples_by_units(activity: ArrayLike, name: str) -> Floats:
    """`activity` as finite floats of shape (n_samples, n_units).

    Raises
    ------
    InvalidInput
        Another shape, fewer than `MIN_SAMPLES` samples, or something not finite in it.
    """
    array = np.asarray(activity, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInput(f"{name}: expected shape (n_samples, n_units), got {array.shape}", kind="invalid_shape")
    if len(array) < MIN_SAMPLES:
        raise InvalidInput(f"{name}: expected at least {MIN_SAMPLES} samples, got {len(array)}", kind="too_few_samples")
    bad = ~np.isfinite(array)
    if bad.any():
        raise InvalidInput(
            f"{name}: {int(bad.sum())} numbers are NaN or infinite, in {int(bad.any(axis=1).sum())} of {len(array)} "
            "samples; leave those samples out",
            kind="not_finite",
        )
    return array


def same_samples(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Both activities, checked; row i of one is the same sample as row i of the other.

    Raises
    ------
    InvalidInput
        What `samples_by_units` raises, or they differ in how many samples they have.
    """
    checked = samples_by_units(x, "x"), samples_by_units(y, "y")
    if len(checked[0]) != len(checked[1]):
        raise InvalidInput(
            f"x has {len(checked[0])} samples, y has {len(checked[1])}; expected the same samples in both",
            kind="sample_mismatch",
        )
    return checked


def one_of(given: str, known: Collection[str], what: str) -> str:
    """`given`, if it is one of `known`.

    Raises
    ------
    InvalidInput
        It is not; lists those that are.
    """
    if given not in known:
        raise InvalidInput(f"no {what} {given!r}; expected one of {', '.join(known)}", kind="unknown_option")
    return given


def unit_length(rows: Floats, name: str, why: str, resolution: Floats | float = 0.0) -> Floats:
    """Each row divided by its Euclidean norm.

    Parameters
    ----------
    rows : ndarray, shape (n_samples, n_units)
    name, why : str
        Whose rows they are, and what a row without length means; for the error.
    resolution : float or ndarray of shape (n_samples,)
        Largest magnitude that is rounding error alone.

    Raises
    ------
    InvalidInput
        A row has no length, so no direction either.
    """
    largest = np.abs(rows).max(axis=1)
    without = largest <= resolution
    if without.any():
        raise InvalidInput(f"{name}: {int(without.sum())} of {len(rows)} samples {why}", kind="undefined_measure")
    scaled = rows / largest[:, None]  # squares of what is left can neither overflow nor vanish
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
