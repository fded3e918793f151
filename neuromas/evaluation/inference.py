"""Noise ceilings: how far a recording determines its own means."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from neuromas import seeds
from neuromas.errors import InvalidInput

_FEWEST_GROUPS = 3
"""Two centred means lie on a line, and two lines agree or disagree by chance."""


def split_half_reliability(
    latents: ArrayLike,
    groups: ArrayLike,
    trials: ArrayLike | None = None,
    *,
    n_splits: int = 50,
    seed: int | np.random.Generator = 0,
) -> float | None:
    """Split-half reliability of the mean latents of groups, e.g. of samples with equal values.

    Parameters
    ----------
    latents : array-like, shape (n_samples, n_units)
    groups : array-like of int, shape (n_samples,)
        A split leaves out groups of which one half is empty.
    trials : array-like, shape (n_samples,), optional
        Samples of one trial stay in one half. By default each sample is a trial.
    n_splits : int
        Random halves, over which the correlation is averaged.
    seed : int or numpy.random.Generator

    Returns
    -------
    float or None
        The correlation between the means of the two halves over groups and units, each unit centred over groups, corrected to
        the full number of samples: 2r / (1 + r) (Spearman 1910, Brown 1910). Its square root is the noise ceiling: the
        correlation between the true means and the measured ones. None with fewer than three groups in most splits, or without
        variance.

    Raises
    ------
    InvalidInput
        Different numbers of latents, groups and trials.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> signal = np.repeat(generator.normal(size=(10, 20)), 40, axis=0)
    >>> noisy = signal + 2 * generator.normal(size=signal.shape)  # of a mean of 40: variance 1 to 0.1
    >>> round(split_half_reliability(noisy, np.repeat(np.arange(10), 40)), 1)  # 1 / (1 + 0.1)
    0.9
    """
    x, group = np.asarray(latents, dtype=np.float64), np.asarray(groups)
    trial = np.arange(len(x)) if trials is None else np.unique(np.asarray(trials), return_inverse=True)[1]
    if len(x) != len(group) or len(x) != len(trial):
        raise InvalidInput(
            f"split halves: expected a group and a trial per latent, got {len(x)} latents, {len(group)} groups, {len(trial)}"
            " trials",
            kind="shape_mismatch",
        )
    names, group = np.unique(group, return_inverse=True)
    # trials that occur in the same groups are split together: so each group is split in half, and no trial is divided
    cells = np.unique(np.column_stack([trial, group]), axis=0)
    kinds: dict[bytes, list[int]] = {}
    bounds = np.flatnonzero(np.r_[True, cells[1:, 0] != cells[:-1, 0], True])
    for start, stop in itertools.pairwise(bounds):
        kinds.setdefault(cells[start:stop, 1].tobytes(), []).append(int(cells[start, 0]))
    generator = seeds.generator(seed)
    correlations = []
    for _ in range(n_splits):
        second = np.zeros(int(trial.max()) + 1, dtype=bool)
        for alike in kinds.values():
            mixed = generator.permutation(alike)
            second[mixed[int(generator.integers(2)) :: 2]] = True
        cell = second[trial] * len(names) + group
        members = sparse.csr_array((np.ones(len(x)), (cell, np.arange(len(x)))), shape=(2 * len(names), len(x)))
        sums = (members @ x).reshape(2, len(names), -1)
        counts = np.bincount(cell, minlength=2 * len(names)).reshape(2, -1)
        both = (counts > 0).all(axis=0)
        if both.sum() < _FEWEST_GROUPS:
            continue
        halves = [sums[which, both] / counts[which, both, None] for which in (0, 1)]
        halves = [(means - means.mean(axis=0)).ravel() for means in halves]
        norms = np.linalg.norm(halves[0]) * np.linalg.norm(halves[1])
        if norms == 0:
            return None
        correlations.append(halves[0] @ halves[1] / norms)
    if len(correlations) < n_splits / 2:
        return None
    r = float(np.mean(correlations))
    return 2 * r / (1 + r) if r > -1 else None
