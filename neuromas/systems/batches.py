"""Samples recorded from batches of inputs: each batch is run, checked against its labels, and laid out by sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.recordings.encode import complete, plain
from neuromas.recordings.incoming import by_trial
from neuromas.recordings.recording import Recording
from neuromas.systems.inputs import Inputs, as_hashes, as_inputs, before, numpy_of, slices
from neuromas.systems.padding import shifted_by_padding
from neuromas.systems.torch_module import TorchSystem

LENGTHS = "lengths"
COORDINATES = (dims.TRIAL, dims.STEP, dims.TOKEN, dims.ELIGIBLE, dims.INPUT_HASH)
NOT_VARIABLES = (*COORDINATES, LENGTHS)
"""Names among `variables` that mean what they mean in a NumPy archive."""

Columns = dict[str, NDArray[Any]]
"""Name → values with one row per trial, or in `Samples` one per sample."""


@dataclass(frozen=True)
class Samples:
    """Samples of some trials, in order of trials, then steps.

    Attributes
    ----------
    activity : ndarray of float, shape (n_samples, n_units)
    columns : dict of str to ndarray, each of shape (n_samples,)
    n_trials : int
    """

    activity: NDArray[Any]
    columns: Columns
    n_trials: int


@dataclass(frozen=True)
class Labels:
    """What is known of all trials beside their inputs.

    Attributes
    ----------
    columns : dict of str to ndarray
        Variables and other columns, one row per trial.
    in_batches : bool
        Whether each batch comes with variables of its own.
    hashes : dict of int to int, or None
        Trial → hash of the inputs that it must have.
    """

    columns: Columns
    in_batches: bool
    hashes: dict[int, int] | None

    @classmethod
    def of(cls, variables: Mapping[str, ArrayLike] | None, expected: ArrayLike | Recording | None) -> Labels:
        """From the arguments of `capture`."""
        named = {} if variables is None else dict(variables)
        hashes = _known_hashes(expected) if isinstance(expected, Recording) else None
        if expected is not None and not isinstance(expected, Recording):
            named[dims.INPUT_HASH] = expected
        return cls({key: as_column(key, values) for key, values in named.items()}, variables is None, hashes)

    def split(self, batch: Any, where: str) -> tuple[Any, Columns]:
        """Inputs of a batch, and the variables that come with it."""
        if not self.in_batches:
            return batch, {}
        if not (isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], Mapping)):
            raise InvalidInput(
                f"{where}: no variables; expected a pair (inputs, mapping of variables), or variables of all trials beside"
                " the batches",
                kind="no_variables",
            )
        return batch[0], {str(key): as_column(str(key), values) for key, values in batch[1].items()}


def n_labelled(columns: Columns, where: str) -> int | None:
    """How many trials `columns` have values for; None if there are no columns.

    Raises
    ------
    InvalidInput
        The columns differ in how many trials they have.
    """
    counts = {name: len(values) for name, values in columns.items()}
    if len({*counts.values()}) > 1:
        listed = ", ".join(f"{name!r} of {count}" for name, count in counts.items())
        raise InvalidInput(f"{where}: variables differ in how many trials they have: {listed}", kind="sample_mismatch")
    return next(iter(counts.values()), None)


def run_batches(
    system: TorchSystem, batches: Iterable[Any], labels: Labels, dtype: str, batch_size: int
) -> Iterator[Samples]:
    """Run one batch after another.

    Parameters
    ----------
    system : TorchSystem
    batches : iterable of batches, or all inputs in one tensor, array or mapping
    labels : Labels
    dtype : str
        Of the activity.
    batch_size : int
        Trials run at once, where all inputs come in one piece.

    Yields
    ------
    Samples
        Of each batch.

    Raises
    ------
    InvalidInput
        A batch cannot be run, does not fit its labels, or has other inputs than expected.
    """
    if isinstance(batches, (Tensor, np.ndarray, Mapping)):
        batches = slices(batches, batch_size)
    capture = f"capture of {system.name!r}"
    total = n_labelled(labels.columns, capture)
    start, width, shifted = 0, None, False
    for number, batch in enumerate(batches):
        where = f"batch {number} of {system.name!r}"
        arguments, columns = labels.split(batch, where)
        inputs = as_inputs(arguments, where)
        stop = start + inputs.n_trials
        where = f"{where} (trials {start} to {stop - 1})"
        n_own = n_labelled(columns, where)
        if n_own is not None and n_own != inputs.n_trials:
            raise _uneven(where, n_own, f"{inputs.n_trials}")
        if total is not None and stop > total:
            raise _uneven(where, total, f"at least {stop}")
        columns |= {key: values[start:stop] for key, values in labels.columns.items()}
        output = _output(system, inputs, where)
        if not shifted and shifted_by_padding(system, inputs, output):
            shifted = True
            warnings.warn(
                f"{where}: trials are padded on the left, and the module counts positions from the padding, so the latents of a"
                " trial depend on its batch; give position_ids, or pad on the right",
                stacklevel=2,
            )
        samples = _laid_out(output, inputs, columns, start, labels.hashes, dtype, system.layer, where)
        if width not in (None, samples.activity.shape[1]):
            raise InvalidInput(
                f"{where}: {samples.activity.shape[1]} units at {system.layer!r}, batches before had {width}; expected equal"
                " widths, so inputs of one size, or a tap or pool that does not depend on it",
                kind="unit_mismatch",
            )
        start, width = stop, samples.activity.shape[1]
        yield samples
    if not start:
        raise InvalidInput(f"{capture}: expected at least 1 batch of inputs, got none", kind="no_trials")
    for n_expected in (total, None if labels.hashes is None else len(labels.hashes)):
        if n_expected not in (None, start):
            raise _uneven(capture, n_expected, f"{start}")


def as_column(name: str, values: Any) -> NDArray[Any]:
    """`values` with a row per trial, as an array of numbers of one type, or of text.

    Raises
    ------
    InvalidInput
        There is one value for all trials, a value is missing, or values are neither numbers nor text.
    """
    problems: list[str] = []
    array = complete(f"variable {name!r}", by_trial(values), problems)
    if array is None:
        raise InvalidInput(problems[0], kind="invalid_array")
    if not array.ndim:
        raise InvalidInput(
            f"variable {name!r}: expected a value per trial, got {values!r} for all", kind="shape_mismatch"
        )
    return plain(array)


def _output(system: TorchSystem, inputs: Inputs, where: str) -> Tensor:
    """The tap's output for one batch."""
    try:
        return system.activity(inputs)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}", kind=error.kind) from error


def _laid_out(
    output: Tensor,
    inputs: Inputs,
    columns: Columns,
    start: int,
    expected: dict[int, int] | None,
    dtype: str,
    layer: str,
    where: str,
) -> Samples:
    """The tap's output for one batch, whose first trial is number `start`, by sample."""
    activity, has_steps = _activity(output, dtype)
    n_trials, n_steps, _ = activity.shape
    present = inputs.present
    if LENGTHS in columns:
        present = before(columns[LENGTHS], n_trials, n_steps, where)
    elif present is not None and has_steps and present.shape[1] != n_steps:
        raise InvalidInput(
            f"{where}: the attention mask has {present.shape[1]} steps, {layer!r} gives {n_steps}; give the steps of"
            " each trial as 'lengths' among the variables",
            kind="sample_mismatch",
        )
    hashes = inputs.hashes(present if inputs.present is None else inputs.present)
    trials = columns.get(dims.TRIAL, start + np.arange(n_trials))
    if trials.ndim != 1:
        raise InvalidInput(
            f"{where}: trial: expected one number per trial, got shape {trials.shape}", kind="invalid_trials"
        )
    _check_hashes(hashes, trials, columns.get(dims.INPUT_HASH), expected, where)
    mask = present if present is not None and present.shape[1] == n_steps else np.ones((n_trials, n_steps), dtype=bool)
    row, place = np.nonzero(mask)
    step = (np.cumsum(mask, axis=1) - 1)[row, place]
    samples = activity[row, place]
    if not np.isfinite(samples).all():
        first = int((~np.isfinite(samples)).any(axis=1).argmax())
        raise InvalidInput(
            f"{where}: activity at {layer!r} is not finite in {dtype}, first in trial {trials[row[first]]} step"
            f" {step[first]}; expected numbers",
            kind="not_finite",
        )
    by_sample = {dims.TRIAL: trials[row], dims.STEP: step, dims.INPUT_HASH: hashes[row]}
    for name, values in columns.items():
        if name not in (dims.TRIAL, dims.INPUT_HASH, LENGTHS):
            by_sample[name] = _by_sample(name, values, mask, present is not None, where)
    return Samples(samples, by_sample, n_trials)


def _activity(output: Tensor, dtype: str) -> tuple[NDArray[Any], bool]:
    """Activity (n_trials, n_steps, n_units), and whether the tap gave steps; otherwise there is one."""
    with np.errstate(over="ignore"):  # an infinite number is refused later, with its trial
        activity = numpy_of(output).astype(dtype)
    return activity.reshape(len(activity), -1, activity.shape[-1]), output.ndim == 3


def _by_sample(name: str, values: NDArray[Any], mask: NDArray[np.bool_], padded: bool, where: str) -> NDArray[Any]:
    """`values` (n_trials,) or (n_trials, n_steps) of the samples that `mask` (n_trials, n_steps) leaves.

    Where inputs are `padded` behind their end, each batch up to its own longest trial, values may be up to another one.
    """
    row, place = np.nonzero(mask)
    if values.ndim == 1:
        return values[row]
    if values.shape == mask.shape:
        return values[row, place]
    behind = padded and bool((mask[:, :-1] >= mask[:, 1:]).all())
    if values.ndim == 2 and behind and (not place.size or place.max() < values.shape[1]):
        return values[row, place]
    raise InvalidInput(
        f"{where}: variable {name!r}: expected shape {mask.shape[:1]} or {mask.shape}, got {values.shape}",
        kind="shape_mismatch",
    )


def _uneven(where: str, n_labels: int | None, n_inputs: str) -> InvalidInput:
    return InvalidInput(
        f"{where}: variables or expected hashes of {n_labels} trials, inputs of {n_inputs}; expected equal numbers, in the same"
        " order",
        kind="sample_mismatch",
    )


def _known_hashes(recording: Recording) -> dict[int, int]:
    """Hash of each trial's inputs in a recording."""
    if dims.INPUT_HASH not in recording.dataset.coords:
        raise InvalidInput(
            f"recording {recording.name!r} has no hashes of inputs; expected one that was captured from batches",
            kind="missing_inputs",
        )
    trials, first = np.unique(recording.trial, return_index=True)
    hashes = recording.dataset[dims.INPUT_HASH].values[first]
    return dict(zip(trials.tolist(), hashes.tolist(), strict=True))


def _check_hashes(
    hashes: NDArray[np.uint64],
    trials: NDArray[Any],
    of_labels: NDArray[Any] | None,
    of_recording: dict[int, int] | None,
    where: str,
) -> None:
    """Refuse inputs (n_trials,) that are not those that the labels, or another recording, were made from."""
    expected: list[list[Any]] = []
    if of_labels is not None:
        expected.append(as_hashes(of_labels, where).tolist())
    if of_recording is not None:
        expected.append([of_recording.get(int(trial)) for trial in trials])
    for column in expected:
        for trial, actual, hash_ in zip(trials.tolist(), hashes.tolist(), column, strict=True):
            if actual != hash_:
                shown = "none: there is no such trial" if hash_ is None else f"{hash_:016x}"
                raise InvalidInput(
                    f"{where}: trial {trial} has inputs with hash {actual:016x}, expected {shown}. The inputs are others, or in"
                    " another order",
                    kind="inputs_mismatch",
                )
