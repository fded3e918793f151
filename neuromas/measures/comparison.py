"""Two recordings compared by a measure, on samples they share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from neuromas.errors import InvalidInput
from neuromas.measures.check import MIN_SAMPLES
from neuromas.measures.cka import constant_units
from neuromas.measures.registry import get_measure
from neuromas.measures.samples import END_TOKENS, Units, chosen_units, shared_samples
from neuromas.recordings.recording import Recording


@dataclass(frozen=True)
class MeasureResult:
    """What a measure says about two recordings.

    Parameters
    ----------
    measure : str
    options : dict
        All of the measure's options, as they were used.
    recordings : (str, str)
        Names of the two.
    values : tuple of float
        One per resample.
    n_samples : int
        Samples in each resample.
    n_usable : int
        Samples they were drawn from.
    n_shared, n_ended, n_incomplete : int
        (trial, step) rows that both recordings have; of these, left out for an end token; of the rest, left out because a
        unit was not recorded.
    n_constant_units : (int, int)
        Units of each that are constant over all samples drawn.
    matched_by : tuple of str
        What had to agree for two samples to be the same one.
    seed : int
    """

    measure: str
    options: dict[str, Any]
    recordings: tuple[str, str]
    values: tuple[float, ...]
    n_samples: int
    n_usable: int
    n_shared: int
    n_ended: int
    n_incomplete: int
    n_constant_units: tuple[int, int]
    matched_by: tuple[str, ...]
    seed: int

    @property
    def mean(self) -> float:
        """Mean over the resamples."""
        return fmean(self.values)

    @property
    def low(self) -> float:
        """Smallest value of a resample."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest value of a resample. How far from `low` it is tells what the choice of samples did, and nothing else."""
        return max(self.values)

    @property
    def n_resamples(self) -> int:
        """How many values there are; 1 where a resample holds every usable sample."""
        return len(self.values)


def compare(
    x: Recording,
    y: Recording,
    measure: str = "rsa",
    *,
    n_samples: int = 1000,
    n_resamples: int = 10,
    seed: int = 0,
    units: Units | None = None,
    exclude_tokens: Sequence[str] = END_TOKENS,
    **options: Any,
) -> MeasureResult:
    """Compare two recordings of the same trials by a measure of `neuromas.measures.registry.MEASURES`.

    Both systems are compared in the same samples: (trial, step) rows drawn uniformly, without replacement, from those that
    both recordings have. Neither system is run.

    Parameters
    ----------
    x, y : Recording
        Of the same trials, told by trial and step, and by token where both have tokens.
    measure : str
        ``rsa`` or ``cka``.
    n_samples : int
        Samples in each resample; all usable ones if there are fewer.
    n_resamples : int
        How often samples are drawn anew. Where a resample holds every usable sample there is only one.
    seed : int
        Resample i depends on the seed, on i and on the rows the recordings share.
    units : mapping of str to sequence of str, optional
        Recording's name → its units to compare; all by default.
    exclude_tokens : sequence of str
        Samples of these tokens are left out, where there are tokens; by default the end token ``E``.
    **options
        Of the measure: ``dissimilarity``, ``comparison`` for ``rsa``; ``kernel``, ``zscore`` for ``cka``.

    Returns
    -------
    MeasureResult

    Raises
    ------
    NotFound
        No such measure, recording in `units`, or unit.
    InvalidInput
        The recordings are not of the same trials, too few samples are left, an option is unknown, or the measure is not
        defined for these samples.

    Examples
    --------
    >>> activity = np.random.default_rng(0).normal(size=(30, 5, 4))
    >>> x = Recording.from_arrays(activity, {"count": np.tile(range(5), (30, 1))}, name="x")
    >>> y = Recording.from_arrays(-2 * activity, {"count": np.tile(range(5), (30, 1))}, name="y")
    >>> found = compare(x, y, n_samples=50)
    >>> round(found.mean, 6), found.n_resamples, found.n_usable
    (1.0, 10, 150)
    """
    chosen = get_measure(measure)
    settled = chosen.settled(options)
    n_samples, n_resamples, seed = (
        _whole(name, value, least)
        for name, value, least in (
            ("n_samples", n_samples, MIN_SAMPLES),
            ("n_resamples", n_resamples, 1),
            ("seed", seed, 0),
        )
    )
    shared = shared_samples(x, y, units=units, exclude_tokens=exclude_tokens)
    if shared.n <= n_samples:
        draws = [np.arange(shared.n)]
    else:
        draws = [
            np.sort(np.random.default_rng([seed, resample]).choice(shared.n, n_samples, replace=False))
            for resample in range(n_resamples)
        ]
    drawn = np.unique(np.concatenate(draws))
    # each recording is read once, however many resamples there are; (n_drawn, n_units)
    x_latents, y_latents = (
        one.latents(chosen_units(one, units, (x, y)), samples[drawn], one.activity.dtype)
        for one, samples in ((x, shared.x_samples), (y, shared.y_samples))
    )
    values = []
    for draw in draws:
        rows = np.searchsorted(drawn, draw)
        try:
            values.append(chosen(x_latents[rows], y_latents[rows], **settled))
        except InvalidInput as error:
            raise InvalidInput(
                f"{measure} of x = {x.name!r} and y = {y.name!r}: {error.message}", kind=error.kind
            ) from error
    return MeasureResult(
        measure=measure,
        options=settled,
        recordings=(x.name, y.name),
        values=tuple(values),
        n_samples=draws[0].size,
        n_usable=shared.n,
        n_shared=shared.n_shared,
        n_ended=shared.n_ended,
        n_incomplete=shared.n_incomplete,
        n_constant_units=(int(constant_units(x_latents).sum()), int(constant_units(y_latents).sum())),
        matched_by=shared.matched_by,
        seed=seed,
    )


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InvalidInput(f"{name}: expected a whole number of at least {least}, got {value!r}", kind="invalid_number")
    return number
