"""The samples that two recordings share: equal (trial, step) rows, after a check that the trials are the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.measures.check import MIN_SAMPLES
from neuromas.recordings.incomplete import MissingUnitsWarning, costly_units
from neuromas.recordings.recording import Recording
from neuromas.schema.recording import as_number

END_TOKENS = ("E",)
"""Tokens whose samples are left out by default: after the end of a trial, nothing is left to represent."""

Units = Mapping[str, Sequence[str]]

_SHOWN_TOKENS = 8


class DifferentValuesWarning(UserWarning):
    """Two recordings have a variable of the same name, but different values of it in the samples that they share."""


@dataclass(frozen=True)
class SharedSamples:
    """The samples that two recordings share and that can be compared.

    Parameters
    ----------
    x_samples, y_samples : ndarray of int64, shape (n,)
        Sample numbers in each recording, in order of trial, then step. Entry i of both is the same (trial, step).
    n_shared : int
        (trial, step) rows that both recordings have, before any is left out.
    n_ended : int
        Of these, rows left out because of their token.
    n_incomplete : int
        Of the others, rows left out because a unit was not recorded in one of the two.
    matched_by : tuple of str
        Coordinates that agree: trial and step; token and hash of the inputs, if both recordings have them.
    """

    x_samples: NDArray[np.int64] = field(repr=False)
    y_samples: NDArray[np.int64] = field(repr=False)
    n_shared: int
    n_ended: int
    n_incomplete: int
    matched_by: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of samples that can be compared."""
        return int(self.x_samples.size)


def shared_samples(
    x: Recording, y: Recording, *, units: Units | None = None, exclude_tokens: Sequence[str] = END_TOKENS
) -> SharedSamples:
    """The (trial, step) rows in which both systems were recorded.

    Samples that are not ``eligible`` are included: eligibility only concerns interchanges.

    Parameters
    ----------
    x, y : Recording
        Recordings of the same trials. Their order may differ, and trials or steps may be missing in one of them.
    units : mapping of str to sequence of str, optional
        Name of a recording → units that must have been recorded; all by default.
    exclude_tokens : sequence of str
        Leave out samples of these tokens, if there are tokens.

    Returns
    -------
    SharedSamples

    Raises
    ------
    InvalidInput
        The recordings have no (trial, step) row in common, trials of the same number hold other tokens or were made from other
        inputs, or fewer than 3 samples are left.
    NotFound
        `units` names another recording, or a unit that does not exist.

    Warns
    -----
    DifferentValuesWarning
        A variable has different values in the two recordings, so these may not be the same trials.
    MissingUnitsWarning
        A few units cost a third of the samples or more.

    Examples
    --------
    >>> both = {"variables": {"count": [0, 1, 2, 0, 1, 2]}, "trial": [0, 0, 0, 1, 1, 1], "step": [0, 1, 2] * 2}
    >>> activity = np.random.default_rng(0).normal(size=(6, 2))
    >>> x, y = (Recording.from_arrays(activity, **both, name=name) for name in "xy")
    >>> shared_samples(x, y.select_samples([5, 4, 3, 0])).x_samples
    array([0, 3, 4, 5])
    """
    _check_pooled(x, y)
    x_units, y_units = (chosen_units(recording, units, (x, y)) for recording in (x, y))
    trials, x_samples, y_samples = _shared_rows(x, y)
    x_tokens, y_tokens = _tokens(x), _tokens(y)
    matched_by: tuple[str, ...] = (dims.TRIAL, dims.STEP)
    if x_tokens is not None and y_tokens is not None:
        _check_tokens(x, y, trials, x_tokens, y_tokens, x_tokens[x_samples] != y_tokens[y_samples])
        matched_by = (*matched_by, dims.TOKEN)
    if all(dims.INPUT_HASH in recording.dataset.coords for recording in (x, y)):
        _check_inputs(x, y, trials, x_samples, y_samples)
        matched_by = (*matched_by, dims.INPUT_HASH)
    _warn_of_values(x, y, x_samples, y_samples)
    ended = np.zeros(len(trials), dtype=bool)
    for tokens, samples in ((x_tokens, x_samples), (y_tokens, y_samples)):
        if tokens is not None:
            ended |= np.isin(tokens[samples], list(exclude_tokens))
    complete = x.complete(x_units)[x_samples] & y.complete(y_units)[y_samples]
    kept = ~ended & complete
    n_incomplete = int((~ended & ~complete).sum())
    costly = _costly([(x, x_units, x_samples[~ended]), (y, y_units, y_samples[~ended])]) if n_incomplete else ""
    if kept.sum() < MIN_SAMPLES:
        raise InvalidInput(
            f"recordings {x.name!r} and {y.name!r}: {int(kept.sum())} samples are left to compare, expected at least "
            f"{MIN_SAMPLES}: of {len(trials)} shared (trial, step) rows {int(ended.sum())} hold an end token "
            f"({', '.join(exclude_tokens)}) and {n_incomplete} are incomplete in the chosen units"
            + (f"; {costly}" if costly else ""),
            kind="too_few_samples",
        )
    if costly:
        warnings.warn(costly, MissingUnitsWarning, stacklevel=2)
    return SharedSamples(x_samples[kept], y_samples[kept], len(trials), int(ended.sum()), n_incomplete, matched_by)


def _costly(sides: Sequence[tuple[Recording, list[str] | None, NDArray[np.int64]]]) -> str:
    """Units of each recording that cost many of these samples."""
    texts = []
    for recording, units, samples in sides:
        usable = np.zeros(recording.n_samples, dtype=bool)
        usable[samples] = True
        costly = costly_units(recording, units, usable)
        texts += [f"{recording.name}: {costly}"] if costly else []
    return "; ".join(texts)


def chosen_units(recording: Recording, units: Units | None, among: Sequence[Recording]) -> list[str] | None:
    """The units to compare of `recording`; None for all of them.

    Raises
    ------
    NotFound
        `units` names a recording that is not `among` these.
    """
    names = [each.name for each in among]
    unknown = [name for name in units or {} if name not in names]
    if unknown:
        raise NotFound(
            f"units are chosen for {', '.join(map(repr, unknown))}, but the recordings are {' and '.join(map(repr, names))}"
            f"{suggestion(unknown[0], names)}",
            kind="unknown_recording",
        )
    chosen = (units or {}).get(recording.name)
    return None if chosen is None else list(chosen)


def _check_pooled(x: Recording, y: Recording) -> None:
    if x.manifest.pseudo_population == y.manifest.pseudo_population:
        return
    pooled = x.name if x.manifest.pseudo_population is not None else y.name
    raise InvalidInput(
        f"recording {pooled!r} is a pseudo-population: its trials were joined and numbered again, so they never match those of"
        " another recording; compare the recordings that it was made from, or parts of one pseudo-population",
        kind="pooled",
    )


def _shared_rows(x: Recording, y: Recording) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Trial of each shared (trial, step) row, and its sample in `x` and in `y`."""
    left, right = (
        pd.DataFrame({dims.TRIAL: recording.trial, dims.STEP: recording.step, side: np.arange(recording.n_samples)})
        for recording, side in ((x, "x"), (y, "y"))
    )
    both = left.merge(right, on=[dims.TRIAL, dims.STEP]).sort_values([dims.TRIAL, dims.STEP])
    if both.empty:
        raise InvalidInput(
            f"recordings {x.name!r} and {y.name!r} share no (trial, step) row: {_extent(x)}; {_extent(y)}",
            kind="no_shared_samples",
        )
    return both[dims.TRIAL].to_numpy(), both["x"].to_numpy(dtype=np.int64), both["y"].to_numpy(dtype=np.int64)


def _extent(recording: Recording) -> str:
    trial, step = recording.trial, recording.step
    return (
        f"{recording.name!r} has {np.unique(trial).size:,} trials numbered {trial.min()} to {trial.max()}, steps "
        f"{step.min()} to {step.max()} ({recording.n_samples:,} samples)"
    )


def _tokens(recording: Recording) -> NDArray[np.str_] | None:
    """Each sample's token as text, so that recordings with different vocabularies can be compared; None without tokens."""
    vocabulary = recording.manifest.vocabulary
    if dims.TOKEN not in recording.dataset.coords or vocabulary is None:
        return None
    return np.asarray(vocabulary, dtype=np.str_)[recording.dataset[dims.TOKEN].values]


def _check_tokens(
    x: Recording,
    y: Recording,
    trials: NDArray[np.int64],
    x_tokens: NDArray[np.str_],
    y_tokens: NDArray[np.str_],
    differ: NDArray[np.bool_],
) -> None:
    """Refuse recordings of different trials: rows that agree by chance would give a plausible but wrong value."""
    if not differ.any():
        return
    wrong = np.unique(trials[differ])
    shown = []
    for recording, tokens in ((x, x_tokens), (y, y_tokens)):
        samples = np.flatnonzero(recording.trial == wrong[0])
        words = tokens[samples[np.argsort(recording.step[samples])]].tolist()
        more = " …" if len(words) > _SHOWN_TOKENS else ""
        shown.append(f"{' '.join(words[:_SHOWN_TOKENS])}{more} in {recording.name!r}")
    raise InvalidInput(
        f"recordings {x.name!r} and {y.name!r} are not of the same trials: of {np.unique(trials).size:,} trials with equal "
        f"numbers {wrong.size:,} hold different tokens, first trial {wrong[0]} ({shown[0]}, {shown[1]}); record both systems"
        " on the same trials (for networks: equal numbers of trials and equal seeds)",
        kind="different_trials",
    )


def _check_inputs(
    x: Recording,
    y: Recording,
    trials: NDArray[np.int64],
    x_samples: NDArray[np.int64],
    y_samples: NDArray[np.int64],
) -> None:
    """Refuse recordings whose trials have equal numbers but were made from different inputs."""
    x_hashes, y_hashes = (
        recording.dataset[dims.INPUT_HASH].values[samples] for recording, samples in ((x, x_samples), (y, y_samples))
    )
    differ = x_hashes != y_hashes
    if not differ.any():
        return
    wrong, first = np.unique(trials[differ]), int(differ.argmax())
    raise InvalidInput(
        f"recordings {x.name!r} and {y.name!r} are not of the same trials: of {np.unique(trials).size:,} trials with equal "
        f"numbers {wrong.size:,} were made from different inputs, first trial {wrong[0]} (input_hash {x_hashes[first]:016x} and"
        f" {y_hashes[first]:016x}); capture both systems on the same inputs in the same order",
        kind="different_trials",
    )


def _warn_of_values(x: Recording, y: Recording, x_samples: NDArray[np.int64], y_samples: NDArray[np.int64]) -> None:
    differing = []
    for name in x.variable_names:
        if name not in y.variable_names:
            continue
        as_numbers = any(recording.spec(name).meanings is None for recording in (x, y))
        n = int((_values(x, name, x_samples, as_numbers) != _values(y, name, y_samples, as_numbers)).sum())
        if n:
            differing.append(f"{name} in {n:,} of {x_samples.size:,}")
    if differing:
        warnings.warn(
            f"recordings {x.name!r} and {y.name!r} differ in shared (trial, step) rows: {', '.join(differing)} rows; are they"
            " of the same trials?",
            DifferentValuesWarning,
            stacklevel=3,
        )


def _values(
    recording: Recording, name: str, samples: NDArray[np.int64], as_numbers: bool
) -> NDArray[np.str_] | NDArray[np.float64]:
    """Values as people read them: meanings, or numbers. A meaning that is no number is NaN among numbers."""
    spec, codes = recording.spec(name), recording.dataset[name].values[samples]
    if spec.meanings is None:
        return np.asarray(codes, dtype=np.float64)
    distinct, inverse = np.unique(codes, return_inverse=True)
    labels = [spec.label(float(code)) for code in distinct]
    if not as_numbers:
        return np.asarray(labels, dtype=np.str_)[inverse]
    numbers = [as_number(label) for label in labels]
    return np.asarray([np.nan if number is None else number for number in numbers], dtype=np.float64)[inverse]
