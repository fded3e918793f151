"""Which samples two recordings share: the same (trial, step) rows, once it is sure that they are of the same trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.check import MIN_SAMPLES
from neuromas.recordings.recording import Recording

END_TOKENS = ("E",)
"""Tokens whose samples are left out by default: after the end there is nothing left to represent."""

Units = Mapping[str, Sequence[str]]

_SHOWN_TOKENS = 8


class DifferentValuesWarning(UserWarning):
    """Two recordings name a variable alike but disagree about its value in the samples they share."""


@dataclass(frozen=True)
class SharedSamples:
    """The samples that two recordings share and that can be compared.

    Parameters
    ----------
    x_samples, y_samples : ndarray of int64, shape (n,)
        Sample numbers in each recording, in order of trial, then step; entry i of both is the same (trial, step).
    n_shared : int
        (trial, step) rows that both have, before any is left out.
    n_ended : int
        Of these, left out for their token.
    n_incomplete : int
        Of the rest, left out because a unit was not recorded in one of the two.
    matched_by : tuple of str
        What had to agree: trial and step; token and hash of the inputs where both recordings have one.
    """

    x_samples: NDArray[np.int64] = field(repr=False)
    y_samples: NDArray[np.int64] = field(repr=False)
    n_shared: int
    n_ended: int
    n_incomplete: int
    matched_by: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many can be compared."""
        return int(self.x_samples.size)


def shared_samples(
    x: Recording, y: Recording, *, units: Units | None = None, exclude_tokens: Sequence[str] = END_TOKENS
) -> SharedSamples:
    """The (trial, step) rows in which both systems were recorded.

    Whether the index may use a sample (``eligible``) has no part in it.

    Parameters
    ----------
    x, y : Recording
        Of the same trials. Their order may differ, and either may have trials or steps that the other lacks.
    units : mapping of str to sequence of str, optional
        Recording's name → units that must have been recorded; all by default.
    exclude_tokens : sequence of str
        Samples of these tokens are left out, where there are tokens.

    Returns
    -------
    SharedSamples

    Raises
    ------
    InvalidInput
        No (trial, step) in common, trials that are numbered alike but hold other tokens or were made from other inputs, or
        fewer than 3 samples left.
    NotFound
        `units` names a recording that is neither, or a unit that does not exist.

    Warns
    -----
    DifferentValuesWarning
        A variable that both have differs in value between them: perhaps these are not the same trials.

    Examples
    --------
    >>> both = {"variables": {"count": [0, 1, 2, 0, 1, 2]}, "trial": [0, 0, 0, 1, 1, 1], "step": [0, 1, 2] * 2}
    >>> activity = np.random.default_rng(0).normal(size=(6, 2))
    >>> x, y = (Recording.from_arrays(activity, **both, name=name) for name in "xy")
    >>> shared_samples(x, y.select_samples([5, 4, 3, 0])).x_samples
    array([0, 3, 4, 5])
    """
    pooled = [one.manifest.pseudo_population for one in (x, y)]
    if pooled[0] != pooled[1]:
        joined = x.name if pooled[0] is not None else y.name
        raise InvalidInput(
            f"recording {joined!r} is a pseudo-population: its trials were joined and numbered anew, so that those of another"
            " recording are never the same ones; compare the recordings that it was made from, or parts of one pseudo-population",
            kind="pooled",
        )
    units_of = {one: chosen_units(one, units, (x, y)) for one in (x, y)}
    left, right = (
        pd.DataFrame({dims.TRIAL: one.trial, dims.STEP: one.step, side: np.arange(one.n_samples)})
        for one, side in ((x, "x"), (y, "y"))
    )
    both = left.merge(right, on=[dims.TRIAL, dims.STEP]).sort_values([dims.TRIAL, dims.STEP])
    if both.empty:
        raise InvalidInput(
            f"recordings {x.name!r} and {y.name!r} share no (trial, step) row: {_extent(x)}; {_extent(y)}",
            kind="no_shared_samples",
        )
    x_samples, y_samples = (both[side].to_numpy(dtype=np.int64) for side in ("x", "y"))
    tokens = {one: _tokens(one) for one in (x, y)}
    x_tokens, y_tokens = tokens[x], tokens[y]
    matched_by: tuple[str, ...] = (dims.TRIAL, dims.STEP)
    if x_tokens is not None and y_tokens is not None:
        _check_tokens(x, y, both[dims.TRIAL].to_numpy(), x_tokens, y_tokens, x_tokens[x_samples] != y_tokens[y_samples])
        matched_by = (*matched_by, dims.TOKEN)
    if all(dims.INPUT_HASH in one.dataset.coords for one in (x, y)):
        _check_inputs(x, y, both[dims.TRIAL].to_numpy(), x_samples, y_samples)
        matched_by = (*matched_by, dims.INPUT_HASH)
    _warn_of_values(x, y, x_samples, y_samples)
    ended = np.zeros(len(both), dtype=bool)
    for told, samples in ((x_tokens, x_samples), (y_tokens, y_samples)):
        if told is not None:
            ended |= np.isin(told[samples], list(exclude_tokens))
    complete = x.complete(units_of[x])[x_samples] & y.complete(units_of[y])[y_samples]
    kept = ~ended & complete
    n_incomplete = int((~ended & ~complete).sum())
    if kept.sum() < MIN_SAMPLES:
        raise InvalidInput(
            f"recordings {x.name!r} and {y.name!r}: {int(kept.sum())} samples are left to compare, expected at least "
            f"{MIN_SAMPLES}: of {len(both)} shared (trial, step) rows {int(ended.sum())} hold an end token "
            f"({', '.join(exclude_tokens)}) and {n_incomplete} are incomplete in the units asked for",
            kind="too_few_samples",
        )
    return SharedSamples(x_samples[kept], y_samples[kept], len(both), int(ended.sum()), n_incomplete, matched_by)


def chosen_units(recording: Recording, units: Units | None, among: Sequence[Recording]) -> list[str] | None:
    """The units asked for of `recording`; None for all of them.

    Raises
    ------
    NotFound
        `units` names a recording that is not `among` these.
    """
    names = [one.name for one in among]
    strange = [name for name in units or {} if name not in names]
    if strange:
        raise NotFound(
            f"units are given for {', '.join(map(repr, strange))}; compared are {' and '.join(map(repr, names))}",
            kind="unknown_recording",
        )
    found = (units or {}).get(recording.name)
    return None if found is None else list(found)


def _extent(recording: Recording) -> str:
    trial, step = recording.trial, recording.step
    return (
        f"{recording.name!r} has {np.unique(trial).size:,} trials numbered {trial.min()} to {trial.max()}, steps "
        f"{step.min()} to {step.max()} ({recording.n_samples:,} samples)"
    )


def _tokens(recording: Recording) -> NDArray[np.str_] | None:
    """Each sample's token as text, so that recordings with other vocabularies compare; None without tokens."""
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
    """Refuse recordings of other trials: rows that agree by chance would give a plausible wrong number."""
    if not differ.any():
        return
    wrong = np.unique(trials[differ])
    told = []
    for one, tokens in ((x, x_tokens), (y, y_tokens)):
        samples = np.flatnonzero(one.trial == wrong[0])
        words = tokens[samples[np.argsort(one.step[samples])]].tolist()
        more = " …" if len(words) > _SHOWN_TOKENS else ""
        told.append(f"{' '.join(words[:_SHOWN_TOKENS])}{more} in {one.name!r}")
    raise InvalidInput(
        f"recordings {x.name!r} and {y.name!r} are not of the same trials: of {np.unique(trials).size:,} trials numbered "
        f"alike {wrong.size:,} hold other tokens, first trial {wrong[0]} ({told[0]}, {told[1]}); record both systems on "
        "the same trials, networks with equal numbers of trials and equal seeds",
        kind="different_trials",
    )


def _check_inputs(
    x: Recording,
    y: Recording,
    trials: NDArray[np.int64],
    x_samples: NDArray[np.int64],
    y_samples: NDArray[np.int64],
) -> None:
    """Refuse recordings whose trials are numbered alike but were made from other inputs."""
    x_hashes, y_hashes = (
        one.dataset[dims.INPUT_HASH].values[samples] for one, samples in ((x, x_samples), (y, y_samples))
    )
    differ = x_hashes != y_hashes
    if not differ.any():
        return
    wrong, first = np.unique(trials[differ]), int(differ.argmax())
    raise InvalidInput(
        f"recordings {x.name!r} and {y.name!r} are not of the same trials: of {np.unique(trials).size:,} trials numbered "
        f"alike {wrong.size:,} were made from other inputs, first trial {wrong[0]} (input_hash {x_hashes[first]:016x} and "
        f"{y_hashes[first]:016x}); capture both systems on the same inputs in the same order",
        kind="different_trials",
    )


def _warn_of_values(x: Recording, y: Recording, x_samples: NDArray[np.int64], y_samples: NDArray[np.int64]) -> None:
    differing = []
    for name in x.variable_names:
        if name not in y.variable_names or (x.spec(name).meanings is None) != (y.spec(name).meanings is None):
            continue
        n = int((_values(x, name, x_samples) != _values(y, name, y_samples)).sum())
        if n:
            differing.append(f"{name} in {n:,} of {x_samples.size:,}")
    if differing:
        warnings.warn(
            f"recordings {x.name!r} and {y.name!r} disagree in shared (trial, step) rows about {', '.join(differing)}; are "
            "they of the same trials?",
            DifferentValuesWarning,
            stacklevel=3,
        )


def _values(recording: Recording, name: str, samples: NDArray[np.int64]) -> NDArray[np.generic]:
    spec, codes = recording.spec(name), recording.dataset[name].values[samples]
    if spec.meanings is None:
        return np.asarray(codes, dtype=np.float64)
    known, inverse = np.unique(codes, return_inverse=True)
    return np.asarray([spec.label(float(code)) for code in known], dtype=np.str_)[inverse]
