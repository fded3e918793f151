"""Units that cost many samples: a sample in which one unit was not recorded is left out with all other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuromas.recordings.check import listing
from neuromas.recordings.reading import Reading

_COSTLY = 1 / 3
"""Share of the samples that a few units must cost to be named."""
_MOST_UNITS = 3


class MissingUnitsWarning(UserWarning):
    """Many samples are left out because a few units were not recorded in them."""


def costly_units(
    recording: Reading, units: Sequence[str | int] | None = None, samples: NDArray[np.bool_] | None = None
) -> str:
    """A sentence that names up to three units without which many more samples would be complete; empty if there are none.

    Parameters
    ----------
    recording : Recording
    units : sequence of str, optional
        Units in use; by default all.
    samples : ndarray of bool, shape (n_samples,), optional
        Samples that could be used; by default all.

    Examples
    --------
    >>> from neuromas.recordings.recording import Recording
    >>> activity = np.ones((6, 3))
    >>> activity[:4, 1] = np.nan
    >>> print(costly_units(Recording.from_arrays(activity, {"n": range(6)}, name="toy", missing=True)))
    unit 'u1' was not recorded in 4 of 6 samples; without it 6 instead of 2 are complete (units=, or units_where="unit != 'u1'")
    """
    usable = np.ones(recording.n_samples, dtype=bool) if samples is None else samples
    n_usable = int(usable.sum())
    if not recording.manifest.missing or not n_usable:
        return ""
    columns = recording.unit_positions(units)
    missed, complete = _counts(recording, columns, usable)
    if n_usable - complete < _COSTLY * n_usable:
        return ""
    worst = np.argsort(-missed, kind="stable")[: min(_MOST_UNITS, np.count_nonzero(missed), len(columns) - 1)]
    for n_units in range(1, len(worst) + 1):
        _, without = _counts(recording, np.delete(columns, worst[:n_units]), usable)
        if without - complete >= _COSTLY * n_usable:
            names = [recording.unit_names[columns[place]] for place in worst[:n_units]]
            return _sentence(names, int(missed[worst[0]]), n_usable, complete, without)
    return ""


def _counts(recording: Reading, columns: NDArray[np.int64], usable: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """In how many usable samples each unit is missing, shape (n_columns,), and how many samples have all of them."""
    missed, complete = np.zeros(len(columns), dtype=np.int64), 0
    for start, block in recording.blocks():
        missing = np.isnan(block[usable[start : start + len(block)]][:, columns])
        missed += missing.sum(axis=0)
        complete += int((~missing.any(axis=1)).sum())
    return missed, complete


def _sentence(names: Sequence[str], missed: int, n_usable: int, complete: int, without: int) -> str:
    single = len(names) == 1
    where = " and ".join(f"unit != {name!r}" for name in names)
    return (
        f"unit{'' if single else 's'} {listing(names)} {'was' if single else 'were'} not recorded in"
        f" {'' if single else 'up to '}{missed:,} of {n_usable:,} samples; without {'it' if single else 'them'} {without:,}"
        f" instead of"
        f' {complete:,} are complete (units=, or units_where="{where}")'
    )
