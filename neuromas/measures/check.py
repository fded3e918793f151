"""Checks of the arrays and options that a measure receives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromas.errors import InvalidInput, suggestion
from neuromas.recordings.incoming import array_of, filled

MIN_SAMPLES = 3
"""Fewer samples have at most one dissimilarity, and one number has no correlation."""

Floats = NDArray[np.float64]


def as_doubles(values: Any, name: str) -> Floats:
    """Numbers of any shape as float64; a tensor off its device and its graph.

    Raises
    ------
    InvalidInput
        `values` are no array of numbers; `name` is for the message.

    Examples
    --------
    >>> import torch
    >>> as_doubles(torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "x")
    array([1., 1.])
    """
    try:
        return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: expected an array of numbers: {error}", kind="shape_mismatch") from error


def samples_by_units(activity: ArrayLike, name: str) -> Floats:
    """`activity` as finite floats of shape (n_samples, n_units); `name` is for errors.

    Raises
    ------
    InvalidInput
        It has another shape, fewer than `MIN_SAMPLES` samples, or NaN or infinite numbers.
    """
    array = numbers(activity, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInput(f"{name}: expected shape (n_samples, n_units), got {array.shape}", kind="shape_mismatch")
    if len(array) < MIN_SAMPLES:
        raise InvalidInput(f"{name}: expected at least {MIN_SAMPLES} samples, got {len(array)}", kind="too_few_samples")
    bad = ~np.isfinite(array)
    if bad.any():
        raise InvalidInput(
            f"{name}: {int(bad.sum())} numbers are NaN or infinite, in {int(bad.any(axis=1).sum())} of {len(array)} "
            "samples; leave these samples out",
            kind="not_finite",
        )
    return array


def numbers(values: ArrayLike, name: str) -> Floats:
    """`values` as floats, NaN where they are masked; InvalidInput, with `name`, if they are no numbers."""
    try:
        array = filled(array_of(values))
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}", kind=error.kind) from error
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"{name}: expected numbers, got {array.dtype}", kind="invalid_array")
    return array.astype(np.float64, copy=False)


def same_samples(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """Both activities, checked. Row i is the same sample in both.

    Raises
    ------
    InvalidInput
        As `samples_by_units`, or the numbers of samples differ.
    """
    checked = samples_by_units(x, "x"), samples_by_units(y, "y")
    if len(checked[0]) != len(checked[1]):
        raise InvalidInput(
            f"x has {len(checked[0])} samples, y has {len(checked[1])}; expected the same samples in both",
            kind="sample_mismatch",
        )
    return checked


def one_of(choice: str, choices: Collection[str], option: str) -> str:
    """`choice`, if it is one of `choices`.

    Raises
    ------
    InvalidInput
        It is none of them; lists them.
    """
    if choice not in choices:
        raise InvalidInput(
            f"no {option} {choice!r}; expected one of {', '.join(choices)}{suggestion(choice, choices)}",
            kind="unknown_option",
        )
    return choice


def unit_length(rows: Floats, name: str, why: str, resolution: Floats | float = 0.0) -> Floats:
    """Each row divided by its Euclidean norm.

    Parameters
    ----------
    rows : ndarray, shape (n_samples, n_units)
    name, why : str
        For the error: name of the activity, and what a row of length zero means.
    resolution : float or ndarray of shape (n_samples,)
        Magnitudes up to this are rounding errors.

    Raises
    ------
    InvalidInput
        A row has length zero, and so no direction.
    """
    largest = np.abs(rows).max(axis=1)
    zero = largest <= resolution
    if zero.any():
        raise InvalidInput(f"{name}: {int(zero.sum())} of {len(rows)} samples {why}", kind="undefined_measure")
    # scaled first, so that squares neither overflow nor vanish
    scaled = rows / largest[:, None]
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
