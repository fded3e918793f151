"""Two recordings compared by a measure, in the samples that they share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput
from neuromas.html import fields
from neuromas.measures.check import MIN_SAMPLES
from neuromas.measures.cka import constant_units
from neuromas.measures.registry import get_measure
from neuromas.measures.samples import END_TOKENS, Units, chosen_units, shared_samples
from neuromas.recordings.recording import Recording

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MeasureResult:
    """The value of a measure for two recordings.

    Parameters
    ----------
    measure : str
    options : dict
        All options of the measure, as they were used.
    recordings : (str, str)
        Names of the two recordings.
    values : tuple of float
        One per resample.
    n_samples : int
        Samples in each resample.
    n_usable : int
        Samples from which they were drawn.
    n_shared, n_ended, n_incomplete : int
        (trial, step) rows that both recordings have; of these, rows left out because of an end token; of the others, rows left
        out because a unit was not recorded.
    n_constant_units : (int, int)
        Units of each recording that are constant over all drawn samples.
    matched_by : tuple of str
        Coordinates that agree if two samples are the same.
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
        """Smallest value over the resamples."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest value over the resamples. Its distance from `low` shows the effect of the choice of samples only."""
        return max(self.values)

    @property
    def n_resamples(self) -> int:
        """Number of values; 1 if a resample holds every usable sample."""
        return len(self.values)

    def to_dataframe(self) -> pd.DataFrame:
        """The values as a table.

        Returns
        -------
        pandas.DataFrame
            A row per resample: ``measure``, ``x``, ``y``, ``resample``, ``value``, ``n_samples``.
        """
        import pandas as pd

        x, y = self.recordings
        resamples = range(self.n_resamples)
        return pd.DataFrame(
            {"measure": self.measure, "x": x, "y": y, "resample": resamples, "value": self.values}
        ).assign(n_samples=self.n_samples)

    def __repr__(self) -> str:
        facts = "\n".join(f"  {name:10}{text}" for name, text in self._facts().items())
        return f"<{self._headline()}>\n{facts}"

    def _repr_html_(self) -> str:
        return fields(self._headline(), self._facts())

    def _headline(self) -> str:
        x, y = self.recordings
        return f"MeasureResult: {self.measure} of {x!r} and {y!r} is {self.mean:.3f}"

    def _facts(self) -> dict[str, str]:
        left_out = f"{self.n_ended:,} with an end token, {self.n_incomplete:,} incomplete"
        return {
            "range": f"{self.low:.3f} to {self.high:.3f} over {self.n_resamples:,} resamples of {self.n_samples:,} samples",
            "options": ", ".join(f"{name}={value!r}" for name, value in self.options.items()),
            "samples": f"{self.n_usable:,} of {self.n_shared:,} shared; left out: {left_out}",
        }


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

    Both systems are compared in the same samples: (trial, step) rows that both recordings have, drawn uniformly without
    replacement. Neither system is run.

    Parameters
    ----------
    x, y : Recording
        Recordings of the same trials. Samples are matched by trial and step, and by token if both recordings have tokens.
    measure : {"rsa", "cka"}
    n_samples : int
        Samples in each resample; all usable ones if there are fewer.
    n_resamples : int
        Number of draws. If a resample holds every usable sample, there is only one.
    seed : int
        Resample i depends on the seed, on i and on the rows that the recordings share.
    units : mapping of str to sequence of str, optional
        Name of a recording → its units to compare; all by default.
    exclude_tokens : sequence of str
        Leave out samples of these tokens, if there are tokens; by default the end token ``E``.
    **options
        Options of the measure: ``dissimilarity``, ``comparison`` for ``rsa``; ``kernel``, ``zscore`` for ``cka``.

    Returns
    -------
    MeasureResult

    Raises
    ------
    NotFound
        There is no such measure or unit, or `units` names another recording.
    InvalidInput
        The recordings are not of the same trials, too few samples are left, an option does not exist, or the measure is not
        defined for these samples.

    Examples
    --------
    >>> activity = np.random.default_rng(0).normal(size=(30, 5, 4))
    >>> x = Recording.from_arrays(activity, {"count": np.tile(range(5), (30, 1))}, name="x")
    >>> y = Recording.from_arrays(-2 * activity, {"count": np.tile(range(5), (30, 1))}, name="y")
    >>> result = compare(x, y, n_samples=50)
    >>> round(result.mean, 6), result.n_resamples, result.n_usable
    (1.0, 10, 150)
    """
    chosen = get_measure(measure)
    settled = chosen.settled(options)
    n_samples = _whole("n_samples", n_samples, MIN_SAMPLES)
    n_resamples = _whole("n_resamples", n_resamples, 1)
    seed = _whole("seed", seed, 0)
    shared = shared_samples(x, y, units=units, exclude_tokens=exclude_tokens)
    draws = draws_of(shared.n, n_samples, n_resamples, seed)
    drawn = np.unique(np.concatenate(draws))
    # each recording is read once, also for many resamples; (n_drawn, n_units)
    x_latents, y_latents = (
        recording.latents(chosen_units(recording, units, (x, y)), samples[drawn], recording.activity.dtype)
        for recording, samples in ((x, shared.x_samples), (y, shared.y_samples))
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


def draws_of(n_usable: int, n_samples: int, n_resamples: int, seed: int) -> list[NDArray[np.int64]]:
    """Usable samples of each resample, in ascending order."""
    if n_usable <= n_samples:
        return [np.arange(n_usable)]
    return [
        np.sort(np.random.default_rng([seed, resample]).choice(n_usable, n_samples, replace=False))
        for resample in range(n_resamples)
    ]


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InvalidInput(f"{name}: expected a whole number of at least {least}, got {value!r}", kind="invalid_option")
    return number
