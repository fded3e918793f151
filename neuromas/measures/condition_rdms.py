"""The RDM of a recording's conditions: the dissimilarity of its mean latents for each value of a variable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.measures.check import MIN_SAMPLES, Floats
from neuromas.measures.rsa import rdm
from neuromas.measures.samples import END_TOKENS
from neuromas.recordings.check import listing
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import VariableSpec, as_number


@dataclass(frozen=True)
class Conditions:
    """The conditions of a recording and their dissimilarities.

    Attributes
    ----------
    spec : VariableSpec
        The variable whose values are the conditions.
    values : ndarray of shape (n_conditions,)
        Stored values, ascending.
    matrix : ndarray of shape (n_conditions, n_conditions)
    n_ended, n_incomplete : int
        Samples left out because of an end token; of the others, because a unit was not recorded.
    """

    spec: VariableSpec
    values: Floats
    matrix: Floats
    n_ended: int
    n_incomplete: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Values as people read them."""
        return tuple(self.spec.label(value) for value in self.values.tolist())

    def place(self, label: str) -> int | None:
        """Which condition `label` means; None if it means none.

        A label is a meaning of a categorical variable, or a number that equals the value. It is never a code.
        """
        if label in self.labels:
            return self.labels.index(label)
        number = as_number(label)
        equal = [place for place, own in enumerate(self.labels) if number is not None and as_number(own) == number]
        return equal[0] if len(equal) == 1 else None


def conditions_of(
    recording: Recording,
    by: str,
    dissimilarity: str = "cosine",
    *,
    units: Sequence[str] | None = None,
    exclude_tokens: Sequence[str] = END_TOKENS,
) -> Conditions:
    """Dissimilarities of the mean latents of a recording's conditions.

    Parameters
    ----------
    recording : Recording
    by : str
        The variable whose values are the conditions.
    dissimilarity : str
        One of `neuromas.measures.rsa.DISSIMILARITIES`.
    units : sequence of str, optional
        Units to take; by default all.
    exclude_tokens : sequence of str
        Samples of these tokens are left out, if there are tokens.

    Raises
    ------
    NotFound
        There is no such variable or unit.
    InvalidInput
        Fewer than 3 conditions are left, or one has no such dissimilarity.

    Examples
    --------
    >>> activity = [[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 1.0]]
    >>> toy = Recording.from_arrays(activity, {"side": ["left", "right", "right", "up"]}, name="toy")
    >>> conditions = conditions_of(toy, "side", "euclidean")
    >>> conditions.labels, conditions.matrix[0].round(3).tolist()
    (('left', 'right', 'up'), [0.0, 2.236, 1.0])
    """
    spec = recording.spec(by)
    column = recording.values([by])[:, 0]
    ended = _ended(recording, exclude_tokens)
    complete = recording.complete(None if units is None else list(units))
    usable = ~ended & complete & ~np.isnan(column)
    values, places = np.unique(column[usable], return_inverse=True)
    if len(values) < MIN_SAMPLES:
        raise InvalidInput(
            f"recording {recording.name!r}: {by!r} has {len(values)} values in the samples that can be used, expected at least "
            f"{MIN_SAMPLES} conditions: {listing([spec.label(value) for value in values.tolist()]) or 'none'}",
            kind="too_few_samples",
        )
    condition = np.full(recording.n_samples, -1)
    condition[usable] = places
    means = _means(recording, condition, len(values), recording.unit_positions(units))
    return Conditions(spec, values, rdm(means, dissimilarity), int(ended.sum()), int((~ended & ~complete).sum()))


def _ended(recording: Recording, exclude_tokens: Sequence[str]) -> NDArray[np.bool_]:
    vocabulary = recording.manifest.vocabulary
    if dims.TOKEN not in recording.dataset.coords or vocabulary is None:
        return np.zeros(recording.n_samples, dtype=bool)
    return np.isin(np.asarray(vocabulary)[recording.dataset[dims.TOKEN].values], list(exclude_tokens))


def _means(recording: Recording, condition: NDArray[np.int64], n_conditions: int, columns: NDArray[np.int64]) -> Floats:
    """Mean activity of each condition, shape (n_conditions, n_columns); samples of condition -1 do not count."""
    sums = np.zeros((n_conditions, len(columns)))
    for start, block in recording.blocks():
        own = condition[start : start + len(block)]
        np.add.at(sums, own[own >= 0], block[own >= 0][:, columns])
    counts = np.bincount(condition[condition >= 0], minlength=n_conditions)
    return np.asarray(sums / counts[:, None])
