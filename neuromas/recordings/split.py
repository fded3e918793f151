"""Which samples are for training, which for validation, which for testing.

A split consists of whole trials, so that no trial is used both to fit and to evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims, seeds
from neuromas.errors import InvalidInput, NotFound, suggestion
from neuromas.files import sha256_bytes
from neuromas.recordings.recording import Recording

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True, eq=False)
class Split:
    """Some trials of one recording.

    Parameters
    ----------
    name : str
        E.g. ``train``.
    recording : str
        Name of the recording that was split.
    trials : ndarray of int64 of shape (n_trials,)
        Trial numbers, in ascending order.
    samples : ndarray of bool of shape (n_samples,)
        Whether each sample of the recording belongs to the split.
    identity : str
        Name of the division and of the part. Splits with equal identities have equal trials. Results keep it, so that a later
        evaluation can check that it uses other trials than the fit.
    """

    name: str
    recording: str
    trials: NDArray[np.int64] = field(repr=False)
    samples: NDArray[np.bool_] = field(repr=False)
    identity: str

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return int(self.trials.size)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return int(self.samples.sum())

    def check(self, recording: Recording) -> None:
        """Refuse a recording that this split was not made of.

        Raises
        ------
        InvalidInput
            The recording has other samples.
        """
        if self.samples.shape != (recording.n_samples,) or not np.array_equal(
            np.unique(recording.trial[self.samples]), self.trials
        ):
            raise InvalidInput(
                f"split {self.name!r} was made of recording {self.recording!r} with {self.samples.size} samples; "
                f"recording {recording.name!r} has {recording.n_samples} samples and other trials",
                kind="sample_mismatch",
            )


def split_by_trial(
    recording: Recording, fractions: Mapping[str, float] | None = None, seed: int = 0
) -> dict[str, Split]:
    """Divide a recording's trials at random.

    Parameters
    ----------
    recording : Recording
        To split.
    fractions : mapping of str to float, optional
        Name of each split → share of the trials; the shares add up to 1. By default train 0.6, validation 0.2, test
        0.2.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    dict of str to Split

    Raises
    ------
    InvalidInput
        The shares do not add up to 1, or there are too few trials for every split to get one.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((10, 2, 3)), {"count": np.arange(10)}, name="toy")
    >>> {name: split.n_trials for name, split in split_by_trial(recording).items()}
    {'train': 6, 'validation': 2, 'test': 2}
    """
    return split_by_coordinate(recording, dims.TRIAL, fractions, seed)


def split_by_coordinate(
    recording: Recording, coordinate: str, fractions: Mapping[str, float] | None = None, seed: int = 0
) -> dict[str, Split]:
    """Divide a recording by the values of `coordinate` at random, for example into whole sessions.

    Parameters
    ----------
    recording : Recording
        To split.
    coordinate : str
        A coordinate on sample that is constant within each trial, such as ``session``.
    fractions : mapping of str to float, optional
        Name of each split → share of the coordinate's distinct values. Defaults are those of `split_by_trial`.
    seed : int
        Equal seeds give equal splits.

    Returns
    -------
    dict of str to Split

    Raises
    ------
    NotFound
        The coordinate does not exist.
    InvalidInput
        The shares do not add up to 1, there are too few distinct values, or the coordinate changes within a trial.
    """
    if recording.manifest.pseudo_population is not None:
        raise InvalidInput(
            f"recording {recording.name!r} is a pseudo-population: its parts were settled when it was pooled, and in a new"
            " division a trial would be in several parts; use parts_of(recording)",
            kind="pooled",
        )
    fractions = dict(DEFAULT_FRACTIONS if fractions is None else fractions)
    if not fractions or any(not share > 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise InvalidInput(
            f"fractions: expected positive shares that add up to 1, got {fractions}", kind="invalid_option"
        )
    values = _coordinate(recording, coordinate)
    levels, level = np.unique(values, return_inverse=True)
    counts = _share_out(levels.size, list(fractions.values()))
    if min(counts) < 1:
        sizes = ", ".join(f"{name} {count}" for name, count in zip(fractions, counts, strict=True))
        noun = "trials" if coordinate == dims.TRIAL else f"values of {coordinate!r}"
        raise InvalidInput(
            f"recording {recording.name!r} has {levels.size} {noun}, too few for every split to get one ({sizes})",
            kind="too_few_trials",
        )
    owner = np.empty(levels.size, dtype=np.int64)
    owner[seeds.generator(seed).permutation(levels.size)] = np.repeat(np.arange(len(counts)), counts)
    return _splits(recording, coordinate, list(fractions), owner[level])


def split_by_value(recording: Recording, variable: str, values: Mapping[str, Sequence[Any]]) -> dict[str, Split]:
    """Split by the value that a variable takes, for example to hold out a condition.

    Parameters
    ----------
    recording : Recording
        To split.
    variable : str
        A causal variable that is constant within each trial.
    values : mapping of str to sequence
        Name of each split → its values, as meanings or numbers. Samples with other values belong to no split.

    Returns
    -------
    dict of str to Split

    Raises
    ------
    NotFound
        The variable does not exist.
    InvalidInput
        A value is unknown or in two splits, a split has no trials, or the variable changes within a trial.

    Examples
    --------
    >>> recording = Recording.from_arrays(np.zeros((3, 2, 1)), {"side": ["left", "right", "left"]}, name="toy")
    >>> splits = split_by_value(recording, "side", {"train": ["left"], "test": ["right"]})
    >>> splits["test"].trials
    array([1])
    """
    spec = recording.spec(variable)
    owners: dict[float, int] = {}
    for position, (name, chosen) in enumerate(values.items()):
        for value in [chosen] if isinstance(chosen, str) else chosen:
            try:
                code = spec.code(value)
            except KeyError:
                existing = [spec.label(code) for code in np.unique(recording.dataset[variable].values)]
                raise InvalidInput(
                    f"split {name!r}: variable {variable!r} has no value {value!r}; recorded are {', '.join(existing)}"
                    + suggestion(value, existing),
                    kind="invalid_value",
                ) from None
            if owners.setdefault(code, position) != position:
                raise InvalidInput(f"value {value!r} of {variable!r} is in two splits", kind="invalid_split")
    levels, level = np.unique(recording.dataset[variable].values, return_inverse=True)
    owner = np.array([owners.get(float(value), -1) for value in levels])
    return _splits(recording, variable, list(values), owner[level])


def split_by_part(recording: Recording, parts: Sequence[str]) -> dict[str, Split]:
    """The splits in the coordinate ``part`` of a pooled recording.

    Raises
    ------
    NotFound
        The recording has no such coordinate.
    InvalidInput
        A part has no trials.
    """
    part_of = _coordinate(recording, dims.PART)
    owner = np.full(recording.n_samples, -1)
    for position, part in enumerate(parts):
        owner[part_of == part] = position
    return _splits(recording, dims.PART, list(parts), owner)


def _coordinate(recording: Recording, name: str) -> NDArray[Any]:
    coordinates = recording.dataset.coords
    if name not in coordinates or coordinates[name].dims != (dims.SAMPLE,):
        existing = [str(key) for key, values in coordinates.items() if values.dims == (dims.SAMPLE,)]
        raise NotFound(
            f"recording {recording.name!r} has no coordinate {name!r} on sample; it has {', '.join(existing)}"
            + suggestion(name, existing),
            kind="unknown_coordinate",
        )
    return np.asarray(coordinates[name].values)


def _share_out(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, as close to the shares as possible (largest remainders)."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts.tolist()


def _splits(recording: Recording, basis: str, names: Sequence[str], owner: NDArray[np.int64]) -> dict[str, Split]:
    """Splits of the samples that `owner` (n_samples,) numbers, −1 for none; refuses a trial with two owners."""
    trial = recording.trial
    order = np.argsort(trial, kind="stable")
    same = trial[order][1:] == trial[order][:-1]
    torn = np.flatnonzero(same & (owner[order][1:] != owner[order][:-1]))
    if torn.size:
        raise InvalidInput(
            f"recording {recording.name!r}: {basis!r} changes within trials (first in trial {trial[order][torn[0]]}), "
            "and a trial cannot belong to two splits",
            kind="invalid_split",
        )
    splits = {}
    for position, name in enumerate(names):
        samples = owner == position
        trials = np.unique(trial[samples])
        if trials.size == 0:
            raise InvalidInput(f"recording {recording.name!r}: split {name!r} has no trials", kind="too_few_trials")
        digest = sha256_bytes(trials.astype("<i8").tobytes())[:16]
        splits[name] = Split(name, recording.name, trials, samples, f"{recording.name}:{name}:{digest}")
    return splits
