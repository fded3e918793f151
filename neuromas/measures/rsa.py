"""Representational similarity analysis (RSA): are the same samples similar in two systems?

A representational dissimilarity matrix (RDM) has one dissimilarity per pair of samples. Two RDMs of the same samples are
compared over their strictly lower triangles, without the zeros of the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import distance
from scipy.stats import rankdata

from neuromas.errors import InvalidInput
from neuromas.measures.check import MIN_SAMPLES, Floats, numbers, one_of, same_samples, samples_by_units, unit_length

# later decimals are rounding errors, which would break ties: noise would be ranked
_COSINE_DECIMALS = 13
# relative to the largest dissimilarity
_RANK_DECIMALS = 12


def _cosine(x: Floats, name: str) -> Floats:
    directions = unit_length(
        x, name, "are zero in every unit and have no cosine; use 'euclidean', which is defined for them"
    )
    return _one_minus(directions)


def _correlation(x: Floats, name: str) -> Floats:
    centred = x - x.mean(axis=1, keepdims=True)
    rounding = 4 * np.finfo(np.float64).eps * np.abs(x).max(axis=1)
    directions = unit_length(
        centred,
        name,
        "are equal in all units and have no correlation; use 'euclidean', which is defined for them",
        rounding,
    )
    return _one_minus(directions)


def _one_minus(directions: Floats) -> Floats:
    # one matrix product: an array of shape (n_samples, n_samples, n_units) is never built
    return np.clip(np.round(1 - directions @ directions.T, _COSINE_DECIMALS), 0, 2)


def _euclidean(x: Floats, name: str) -> Floats:
    # differences, not a matrix product, which would give equal latents a distance of rounding errors
    return np.asarray(distance.squareform(distance.pdist(x)))


DISSIMILARITIES: dict[str, Callable[[Floats, str], Floats]] = {
    "cosine": _cosine,
    "correlation": _correlation,
    "euclidean": _euclidean,
}
"""Dissimilarities of two latents by name: 1 − cosine, 1 − Pearson correlation over units, Euclidean distance."""


def _ranks(dissimilarities: Floats) -> Floats:
    scale = np.abs(dissimilarities).max() or 1.0
    return np.asarray(rankdata(np.round(dissimilarities / scale, _RANK_DECIMALS)))


COMPARISONS: dict[str, Callable[[Floats], Floats]] = {"spearman": _ranks, "pearson": np.asarray}
"""Correlations of two RDMs by name → transformation of the dissimilarities before they are correlated."""


def rdm(x: ArrayLike, dissimilarity: str = "cosine") -> Floats:
    """Dissimilarity of every pair of samples.

    Parameters
    ----------
    x : array, shape (n_samples, n_units)
    dissimilarity : str
        One of `DISSIMILARITIES`.

    Returns
    -------
    ndarray, shape (n_samples, n_samples)
        Symmetric, zero on the diagonal.

    Raises
    ------
    InvalidInput
        There are fewer than 3 samples, activity is NaN or infinite, or a sample has no such dissimilarity (a zero latent has no
        cosine).

    Examples
    --------
    >>> rdm([[1, 0], [0, 2], [0, 1]])
    array([[0., 1., 1.],
           [1., 0., 0.],
           [1., 0., 0.]])
    """
    return _rdm(samples_by_units(x, "x"), dissimilarity, "x")


def _rdm(x: Floats, dissimilarity: str, name: str) -> Floats:
    matrix = DISSIMILARITIES[one_of(dissimilarity, DISSIMILARITIES, "dissimilarity")](x, name)
    np.fill_diagonal(matrix, 0)
    return matrix


def dissimilarities_of(matrix: ArrayLike, name: str = "the RDM") -> Floats:
    """The strictly lower triangle of an RDM, one number per pair of samples.

    Parameters
    ----------
    matrix : array, shape (n_samples, n_samples) or (n_pairs,)
        Square, or pairs only, in the order of `scipy.spatial.distance.squareform` and MATLAB.
    name : str
        For errors.

    Returns
    -------
    ndarray, shape (n_pairs,)

    Raises
    ------
    InvalidInput
        It has neither shape, fewer than 3 samples, is not symmetric, or has NaN or infinite numbers off the diagonal.

    Examples
    --------
    >>> dissimilarities_of([[0, 1, 2], [1, 0, 3], [2, 3, 0]])
    array([1., 2., 3.])
    """
    array = numbers(matrix, name)
    if array.ndim == 1 and distance.is_valid_y(array) and len(array) >= MIN_SAMPLES * (MIN_SAMPLES - 1) // 2:
        pairs = array
    elif array.ndim == 2 and array.shape[0] == array.shape[1] and len(array) >= MIN_SAMPLES:
        below, above = (_lower(half) for half in (array, array.T))
        pairs = below
        if not np.allclose(below, above, rtol=1e-5, atol=1e-5 * np.abs(below).max(), equal_nan=True):
            raise InvalidInput(f"{name} is not symmetric", kind="invalid_rdm")
    else:
        raise InvalidInput(
            f"{name}: expected shape (n_samples, n_samples) or (n_pairs,) with at least {MIN_SAMPLES} samples, "
            f"got {array.shape}",
            kind="shape_mismatch",
        )
    if not np.isfinite(pairs).all():
        bad = int((~np.isfinite(pairs)).sum())
        raise InvalidInput(f"{name}: {bad} of {pairs.size} dissimilarities are NaN or infinite", kind="not_finite")
    return pairs


def _lower(matrix: Floats) -> NDArray[np.float64]:
    # column by column: for a symmetric matrix this is the order of squareform
    return matrix.T[np.triu_indices(len(matrix), 1)]


def compare_rdms(a: ArrayLike, b: ArrayLike, comparison: str = "spearman") -> float:
    """Correlation of two RDMs over their strictly lower triangles.

    Parameters
    ----------
    a, b : array, shape (n_samples, n_samples) or (n_pairs,)
        RDMs of the same samples in the same order, in a form that `dissimilarities_of` accepts.
    comparison : {"spearman", "pearson"}
        Correlate ranks of the dissimilarities, where ties share their mean rank, or the dissimilarities themselves.

    Returns
    -------
    float
        In [−1, 1].

    Raises
    ------
    InvalidInput
        As `dissimilarities_of`, or the RDMs differ in size, or all dissimilarities are equal, so that no correlation is defined.

    Examples
    --------
    >>> round(compare_rdms([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]), 3)
    1.0
    >>> round(compare_rdms([1.0, 2.0, 3.0], [1.0, 4.0, 9.0], "pearson"), 3)
    0.99
    """
    prepare = COMPARISONS[one_of(comparison, COMPARISONS, "comparison")]
    named = {"first RDM": dissimilarities_of(a, "first RDM"), "second RDM": dissimilarities_of(b, "second RDM")}
    sizes = [pairs.size for pairs in named.values()]
    if sizes[0] != sizes[1]:
        raise InvalidInput(
            f"the RDMs have {sizes[0]} and {sizes[1]} pairs of samples; expected equal numbers", kind="sample_mismatch"
        )
    directions = []
    for name, pairs in named.items():
        if np.ptp(pairs) <= 10.0**-_RANK_DECIMALS * np.abs(pairs).max():
            raise InvalidInput(
                f"{name}: all {pairs.size} dissimilarities are equal, so no correlation is defined",
                kind="undefined_measure",
            )
        prepared = prepare(pairs / np.abs(pairs).max())
        centred = prepared - prepared.mean()
        directions.append(centred / np.linalg.norm(centred))
    return float(np.clip(directions[0] @ directions[1], -1, 1))


def rsa(x: ArrayLike, y: ArrayLike, *, dissimilarity: str = "cosine", comparison: str = "spearman") -> float:
    """Correlation between the dissimilarities of samples in two systems.

    Parameters
    ----------
    x : array, shape (n_samples, n_units of x)
    y : array, shape (n_samples, n_units of y)
        The same samples, in the same order.
    dissimilarity : str
        One of `DISSIMILARITIES`.
    comparison : str
        One of `COMPARISONS`.

    Returns
    -------
    float
        In [−1, 1].

    Raises
    ------
    InvalidInput
        As `rdm` and `compare_rdms`, or x and y have different numbers of samples.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(rsa(x, 3 * x[:, ::-1]), 6)
    1.0
    """
    a, b = same_samples(x, y)
    return compare_rdms(_rdm(a, dissimilarity, "x"), _rdm(b, dissimilarity, "y"), comparison)
