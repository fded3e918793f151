"""Centred kernel alignment (CKA): do the similarities of samples vary together in two systems?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from neuromas.errors import InvalidInput
from neuromas.measures.check import Floats, numbers, one_of, same_samples, samples_by_units, unit_length

_EPS = float(np.finfo(np.float64).eps)


def _cosine(x: Floats, name: str) -> Floats:
    directions = unit_length(
        x, name, "have no direction (zero in every unit); use kernel='linear', which is defined for them"
    )
    return directions @ directions.T


def _linear(x: Floats, name: str) -> Floats:
    # CKA does not depend on the scale, but squares of large activity overflow
    scaled = x / (np.abs(x).max() or 1.0)
    return scaled @ scaled.T


KERNELS: dict[str, Callable[[Floats, str], Floats]] = {"cosine": _cosine, "linear": _linear}
"""Similarities of two latents by name: cosine and inner product. Both give positive semi-definite matrices."""


def constant_units(x: Floats) -> np.ndarray:
    """Whether each unit has equal activity in all samples, up to rounding; shape (n_units,)."""
    return np.asarray(np.ptp(x, axis=0) <= 4 * _EPS * np.abs(x).max(axis=0))


def zscored(x: ArrayLike, name: str = "x") -> Floats:
    """Each unit with mean 0 and standard deviation 1 over samples.

    A unit that is constant over these samples carries no information about them. It becomes 0 in all samples.

    Parameters
    ----------
    x : array, shape (n_samples, n_units)
    name : str
        For errors.

    Returns
    -------
    ndarray, shape (n_samples, n_units)

    Raises
    ------
    InvalidInput
        Fewer than 3 samples, NaN or infinite activity, or every unit is constant.

    Examples
    --------
    >>> zscored([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]).round(3)
    array([[-1.225,  0.   ],
           [ 0.   ,  0.   ],
           [ 1.225,  0.   ]])
    """
    array = samples_by_units(x, name)
    constant = constant_units(array)
    if constant.all():
        raise InvalidInput(
            f"{name}: all {array.shape[1]} units are constant over the {len(array)} samples", kind="undefined_measure"
        )
    largest = np.abs(array).max(axis=0)
    scaled = array / np.where(largest > 0, largest, 1)
    centred = scaled - scaled.mean(axis=0)
    spread = np.where(constant, 1, centred.std(axis=0))
    return np.where(constant, 0, centred / spread)


def centred_kernel(kernel: Floats) -> Floats:
    """HKH with H = I − 11ᵀ/n, without building H; shape (n_samples, n_samples)."""
    rows = kernel.mean(axis=0)
    return np.asarray(kernel - rows - rows[:, None] + rows.mean())


def hsic(k: ArrayLike, l: ArrayLike) -> float:  # noqa: E741 - K and L are what the literature calls them
    """Hilbert-Schmidt independence criterion tr(KHLH) / (n − 1)² of two symmetric kernel matrices.

    Parameters
    ----------
    k, l : array, shape (n_samples, n_samples)

    Returns
    -------
    float
        It is not negative for positive semi-definite kernels.

    Raises
    ------
    InvalidInput
        The matrices are not square, or differ in size.

    Examples
    --------
    >>> round(hsic(np.eye(3), np.eye(3)), 3)
    0.5
    """
    first, second = numbers(k, "k"), numbers(l, "l")
    if first.ndim != 2 or first.shape != first.shape[::-1] or first.shape != second.shape or len(first) < 2:
        raise InvalidInput(
            f"expected two kernel matrices of shape (n_samples, n_samples), got {first.shape} and {second.shape}",
            kind="shape_mismatch",
        )
    # tr(KHLH) = ⟨HKH, HLH⟩ because H is idempotent: n² products, not n³; and exactly a square if K is L
    return float(np.vdot(centred_kernel(first), centred_kernel(second)) / (len(first) - 1) ** 2)


def cka(x: ArrayLike, y: ArrayLike, *, kernel: str = "cosine", zscore: bool = True) -> float:
    """CKA = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)) with K and L the similarities of samples in two systems.

    Parameters
    ----------
    x : array, shape (n_samples, n_units of x)
    y : array, shape (n_samples, n_units of y)
        The same samples, in the same order.
    kernel : {"cosine", "linear"}
    zscore : bool
        First give each unit mean 0 and standard deviation 1 over these samples. With ``zscore=False`` the linear kernel gives
        the linear CKA of Kornblith et al. (2019).

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    InvalidInput
        As `zscored`, or the numbers of samples differ, a latent is zero (cosine kernel), or all samples are equally similar.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(cka(x, 3 * x[:, ::-1] + 1), 6)
    1.0
    """
    similarity = KERNELS[one_of(kernel, KERNELS, "kernel")]
    if not isinstance(zscore, bool):
        raise InvalidInput(f"zscore: expected true or false, got {zscore!r}", kind="unknown_option")
    centred = []
    for name, activity in zip("xy", same_samples(x, y), strict=True):
        matrix = similarity(zscored(activity, name) if zscore else activity, name)
        middle = centred_kernel(matrix)
        size = np.linalg.norm(middle)
        if size <= 8 * _EPS * len(matrix) * np.abs(matrix).max():
            raise InvalidInput(
                f"{name}: all {len(matrix)} samples are equally similar ({kernel} kernel), so CKA is not defined",
                kind="undefined_measure",
            )
        centred.append(middle / size)
    # the factors 1/(n − 1)² cancel
    return float(np.clip(np.vdot(centred[0], centred[1]), 0, 1))
