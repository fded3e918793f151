"""Record a system: run it on trials, keep the latents with their causal variables.

Trials come as a task's token sequences, or, for a `TorchSystem`, as batches of whatever its module takes. They are run and, where
there is a store for them, written batch by batch, so that a recording may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from torch import Tensor

from neuromas import dims
from neuromas.causal.model import CausalModel, Sequences, get_task
from neuromas.errors import InvalidInput
from neuromas.progress import Bar, can_draw
from neuromas.provenance import now, versions
from neuromas.recordings.encode import infer_spec, plain
from neuromas.recordings.recording import Recording
from neuromas.recordings.store import RecordingStore
from neuromas.schema.document import Access, Provenance
from neuromas.schema.recording import Sampling, VariableSpec
from neuromas.systems.inputs import Batch, as_batch, as_hashes, before, slices
from neuromas.systems.system import System
from neuromas.systems.torch_module import TorchSystem

LENGTHS = "lengths"
_COORDINATES = (dims.TRIAL, dims.STEP, dims.TOKEN, dims.ELIGIBLE, dims.INPUT_HASH)
_NOT_VARIABLES = (*_COORDINATES, LENGTHS)
"""Names among `variables` that mean what they mean in a NumPy archive."""

Report = Callable[[int, int | None], None]


def capture(
    system: System,
    trials: Sequences | int | Iterable[Any],
    variables: Mapping[str, ArrayLike] | None = None,
    *,
    seed: int = 0,
    name: str | None = None,
    access: Access | None = None,
    model: CausalModel | None = None,
    dtype: str = "float32",
    batch_size: int = 500,
    only_solved: bool = False,
    expected: ArrayLike | Recording | None = None,
    into: RecordingStore | str | Path | None = None,
    set: str | None = None,
    group_by: Sequence[str] = (),
    progress: Report | None = None,
    **fields: Any,
) -> Recording:
    """Run `system` on `trials` and return what was recorded.

    Parameters
    ----------
    system : System
    trials : Sequences, int, or iterable of batches
        Trials of the system's task, or how many to draw. For a `TorchSystem` also batches of inputs, taken one at a time: each a
        tensor or array, a tuple of the module's arguments, a mapping of named ones, or a pair (inputs, variables of these
        trials). Every tensor has a row per trial. One tensor or mapping alone is all inputs, and is cut by `batch_size`.
    variables : mapping of str to array, optional
        Beside batches that are no pairs: causal variables of all trials in the order of the inputs, each of shape (n_trials,) or
        (n_trials, n_steps). As in `Recording.from_npz`, some names are no variables, here or in a pair: ``trial`` (numbers of
        the trials; by default 0, 1, 2, …), ``step``, ``token``, ``eligible``, ``lengths`` (steps of each trial; what lies
        beyond is padding and is dropped, as it is where an ``attention_mask`` among the inputs says so), and ``input_hash``
        (see `expected`).
    seed : int
        Of the trials, where a number is given.
    name : str, optional
        The recording's name; the system's by default.
    access : {"intervene", "read"}, optional
        What whoever gets the recording may be told: "read" for a system that plays a brain. By default "intervene" for a system
        that does a task.
    model : CausalModel, optional
        The task's causal model; by default the registered task that the system names.
    dtype : str
        ``float16`` halves the size; GRU states lie in (-1, 1), where it errs by at most 5e-4.
    batch_size : int
        Trials run at once.
    only_solved : bool
        Keep only trials in which every deterministic token is the most probable one; the provenance says how many were not.
    expected : sequence of hashes, or Recording, optional
        What the inputs must be, in order: hashes from `hash_inputs`, or a recording captured from the same inputs.
    into : RecordingStore or path-like, optional
        Write there, batch by batch; memory holds one batch. Interrupted, the store is as it was.
    set : str, optional
        The recording set in the store.
    group_by : sequence of str, optional
        As in `RecordingStore.register_blocks`.
    progress : callable, optional
        Called with the trials done, and how many there are if that is known, after every batch. Without it, batches and what is
        written to a store show a bar on a terminal or in a notebook.
    **fields
        More for `Recording.from_arrays`: ``variable_specs``, ``vocabulary``, ``units``, ``description``, ``licence``, …

    Returns
    -------
    Recording
        One sample per (trial, step), all steps, the ineligible ones marked. From a store, it is opened lazily. Captured from
        batches, each sample has the coordinate ``input_hash``.

    Raises
    ------
    InvalidInput
        The task's tokens are not the system's; no trial is solved; variables and inputs differ in how many trials they have;
        inputs are not those expected; a batch cannot be run or gives activity that is not finite.
    InvalidDocument
        Variables or fields that make no recording.
    Conflict, StorageFailed, ReadOnly
        As `RecordingStore.register_blocks`.

    Examples
    --------
    >>> from neuromas.systems.training import load_system
    >>> recording = capture(load_system("multi-object/gru-0"), 10, seed=0)
    >>> recording.n_units
    128

    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
    >>> batches = ((torch.ones(4, 2), {"number": [n] * 4, "trial": 4 * n + np.arange(4)}) for n in range(3))
    >>> capture(TorchSystem(module, "1", name="net"), batches).n_samples
    12
    """
    own = isinstance(trials, (Sequences, int, np.integer))
    for wrong, told in (
        (own and (variables is not None or expected is not None), "variables and expected go with batches of inputs"),
        (not own and (only_solved or model is not None), "only_solved and model go with trials of a task"),
        (not own and not isinstance(system, TorchSystem), "batches of inputs go with a TorchSystem"),
        ((into is None) != (set is None), "into and set go together: a store and the recording set in it"),
        (into is None and bool(group_by), "group_by goes with into: samples are grouped as they are stored"),
    ):
        if wrong:
            given = "trials of its task" if own else f"trials as {type(trials).__name__}"
            raise InvalidInput(f"capture of system {system.name!r} got {given}: {told}", kind="wrong_options")
    ours: dict[str, Any] = {
        "name": name or system.name,
        "system": system.name,
        "layer": system.layer,
        "access": access or ("intervene" if system.config.task else "read"),
    }
    if own:
        total, pieces, more = _of_task(system, trials, seed, model, dtype, batch_size, only_solved)  # type: ignore[arg-type]
    else:
        assert isinstance(system, TorchSystem)
        total, pieces, more = _of_inputs(system, trials, variables, expected, dtype, batch_size)  # type: ignore[arg-type]
    ours = {**ours, **more, **fields}
    specs = {} if own else _specs(variables, fields.get("variable_specs"))
    if specs:
        ours["variable_specs"] = list(specs.values())
    with _telling(progress, not own or into is not None, ours["name"], total) as report:
        taken = _reported(pieces, report)
        if into is None or set is None:
            return _recording(_joined(taken, system.name), ours)
        store = into if isinstance(into, RecordingStore) else RecordingStore(into)
        blocks = (_recording(piece, ours) for piece in taken)
        return store.get(store.register_blocks(blocks, set=set, name=ours["name"], group_by=group_by), load=False)


@dataclass(frozen=True)
class _Piece:
    """Samples of some trials: activity (n_samples, n_units) and columns (n_samples,), in order of trials, then steps."""

    activity: NDArray[Any]
    columns: dict[str, NDArray[Any]]
    n_trials: int


_Pieces = tuple[int | None, Iterator[_Piece], dict[str, Any]]
"""How many trials there are, if that is known; the samples; fields of the manifest."""


def _of_task(
    system: System,
    trials: Sequences | int,
    seed: int,
    model: CausalModel | None,
    dtype: str,
    batch_size: int,
    only_solved: bool,
) -> _Pieces:
    """Trials of a task, by the system's own tokens."""
    if not system.config.task:
        raise InvalidInput(
            f"system {system.name!r} says no task, so there are no trials of it; expected batches of inputs with their variables",
            kind="no_task",
        )
    model = get_task(system.config.task) if model is None else model
    # a system trained with more tokens, void ones say, does the task without them
    if model.vocabulary != system.config.vocabulary[: len(model.vocabulary)]:
        strange = [token for token in model.vocabulary if token not in system.config.vocabulary]
        raise InvalidInput(
            f"task {model.name!r} and system {system.name!r} have different tokens"
            + (f": the system does not know {', '.join(strange)}" if strange else ", or in another order"),
            kind="vocabulary_mismatch",
        )
    drawn = trials if isinstance(trials, Sequences) else model.sample(trials, seed)
    notes = ""
    if only_solved:
        solved = system.solved(drawn)
        if not solved.any():
            raise InvalidInput(
                f"system {system.name!r} solves none of {len(drawn)} trials of task {model.name!r}; expected at least 1",
                kind="none_solved",
            )
        notes = f"left out {int((~solved).sum())} of {len(drawn)} trials, which the system does not solve"
        drawn = drawn.take(solved)
    n_trials, n_steps = drawn.tokens.shape

    def pieces() -> Iterator[_Piece]:
        for start in range(0, n_trials, batch_size):
            rows = slice(start, start + batch_size)
            found = system.latents(torch.from_numpy(drawn.tokens[rows])).cpu().numpy()
            row, step = np.nonzero(np.arange(n_steps) < drawn.lengths[rows][:, None])
            trial = start + row
            columns: dict[str, NDArray[Any]] = {
                dims.TRIAL: trial,
                dims.STEP: step,
                dims.TOKEN: drawn.tokens[trial, step],
            }
            columns[dims.ELIGIBLE] = drawn.eligible[trial, step]
            columns |= {name: drawn.values[trial, step, at] for at, name in enumerate(model.variable_names)}
            yield _Piece(found[row, step].astype(dtype), columns, len(found))

    source = f"capture of {system.name}, weights {system.config.weights_sha256 or 'unsaved'}"
    more = {
        "vocabulary": model.vocabulary,
        "variable_specs": model.variables,
        "task": model.name,
        "sampling": Sampling(step="token"),
        "provenance": _provenance(source, None if isinstance(trials, Sequences) else seed, notes),
    }
    return n_trials, pieces(), more


def _of_inputs(
    system: TorchSystem,
    batches: Iterable[Any],
    variables: Mapping[str, ArrayLike] | None,
    expected: ArrayLike | Recording | None,
    dtype: str,
    batch_size: int,
) -> _Pieces:
    """Batches of whatever a module takes."""
    whole = dict(variables or {})
    if expected is not None and not isinstance(expected, Recording):
        whole[dims.INPUT_HASH] = expected
    columns = {key: _array(values) for key, values in whole.items()}
    total = _n_rows(columns, f"capture of {system.name!r}")
    known = _known_hashes(expected) if isinstance(expected, Recording) else None
    if isinstance(batches, (Tensor, np.ndarray, Mapping)):
        batches = slices(batches, batch_size)

    def pieces() -> Iterator[_Piece]:
        start, width = 0, None
        for number, given in enumerate(batches):
            where = f"batch {number} of {system.name!r}"
            inputs, told = (given, {}) if variables is not None else _pair(given, where)
            batch = as_batch(inputs, where)
            stop = start + batch.n_trials
            where = f"{where} (trials {start} to {stop - 1})"
            n_told = _n_rows(told, where)
            if n_told is not None and n_told != batch.n_trials:
                raise _uneven(where, n_told, f"{batch.n_trials}")
            if total is not None and stop > total:
                raise _uneven(where, total, f"at least {stop}")
            told |= {key: values[start:stop] for key, values in columns.items()}
            piece = _read(system, batch, told, start, known, dtype, where)
            if width not in (None, piece.activity.shape[1]):
                raise InvalidInput(
                    f"{where}: {piece.activity.shape[1]} units at {system.layer!r}, batches before had {width}; expected equal"
                    " widths, so inputs of one size, or a tap or pool that does not depend on it",
                    kind="width_changed",
                )
            start, width = stop, piece.activity.shape[1]
            yield piece
        if not start:
            raise InvalidInput(
                f"capture of {system.name!r}: expected at least 1 batch of inputs, got none", kind="no_trials"
            )
        for n_known in (total, None if known is None else len(known)):
            if n_known not in (None, start):
                raise _uneven(f"capture of {system.name!r}", n_known, f"{start}")

    source = (
        f"capture of {system.name}, {type(system.module).__name__} at {system.layer}, weights {system.weights_sha256()}"
    )
    more: dict[str, Any] = {"provenance": _provenance(source, None, "")}
    if system.config.task:
        more |= {"task": system.config.task, "vocabulary": system.config.vocabulary, "sampling": Sampling(step="token")}
    else:
        more |= {"sampling": Sampling(step="step")}
    return total, pieces(), more


def _read(
    system: TorchSystem,
    batch: Batch,
    told: dict[str, NDArray[Any]],
    start: int,
    known: dict[int, int] | None,
    dtype: str,
    where: str,
) -> _Piece:
    """Run one batch, whose first trial is number `start`, and lay it out by sample."""
    try:
        found = system.activity(batch)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}", kind=error.kind) from error
    with np.errstate(over="ignore"):  # what becomes infinite is told below
        activity = found.to(torch.promote_types(found.dtype, torch.float16)).cpu().numpy().astype(dtype)
    activity = activity.reshape(len(activity), -1, activity.shape[-1])  # (n_trials, n_steps, n_units)
    n_trials, n_steps, _ = activity.shape
    present = batch.present
    if LENGTHS in told:
        present = before(told[LENGTHS], n_trials, n_steps, where)
    elif present is not None and found.ndim == 3 and present.shape[1] != n_steps:
        raise InvalidInput(
            f"{where}: the attention mask has {present.shape[1]} steps, {system.layer!r} gives {n_steps}; say lengths= among the"
            " variables",
            kind="wrong_lengths",
        )
    hashes = batch.hashes(present if batch.present is None else batch.present)
    trials = told.get(dims.TRIAL, start + np.arange(n_trials))
    if trials.ndim != 1:
        raise InvalidInput(
            f"{where}: trial: expected one number per trial, got shape {trials.shape}", kind="wrong_trials"
        )
    _check_hashes(hashes, trials, told.get(dims.INPUT_HASH), known, where)
    mask = present if present is not None and present.shape[1] == n_steps else np.ones((n_trials, n_steps), dtype=bool)
    row, place = np.nonzero(mask)
    step = (np.cumsum(mask, axis=1) - 1)[row, place]
    samples = activity[row, place]
    if not np.isfinite(samples).all():
        first = int((~np.isfinite(samples)).any(axis=1).argmax())
        raise InvalidInput(
            f"{where}: activity at {system.layer!r} is not finite in {dtype}, first in trial {trials[row[first]]} step"
            f" {step[first]}; expected numbers",
            kind="not_finite",
        )
    columns = {dims.TRIAL: trials[row], dims.STEP: step, dims.INPUT_HASH: hashes[row]}
    for name, values in told.items():
        if name not in (dims.TRIAL, dims.INPUT_HASH, LENGTHS):
            columns[name] = _column(name, values, mask, present is not None, where)
    return _Piece(samples, columns, n_trials)


def _column(name: str, values: NDArray[Any], mask: NDArray[np.bool_], padded: bool, where: str) -> NDArray[Any]:
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
        kind="wrong_shape",
    )


def _pair(given: Any, where: str) -> tuple[Any, dict[str, NDArray[Any]]]:
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)):
        raise InvalidInput(
            f"{where}: no variables; expected a pair (inputs, mapping of variables), or variables of all trials beside the"
            " batches",
            kind="no_variables",
        )
    return given[0], {str(key): _array(values) for key, values in given[1].items()}


def _array(values: Any) -> NDArray[Any]:
    """`values` with a row per trial; numbers of one type, or text."""
    try:
        array = plain(values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values))
    except ValueError as error:  # rows of different lengths
        raise InvalidInput(f"variables: cannot be made an array: {error}", kind="wrong_shape") from error
    if not array.ndim:
        raise InvalidInput(f"variables: expected a value per trial, got {values!r} for all", kind="wrong_shape")
    return array


def _n_rows(columns: Mapping[str, NDArray[Any]], where: str) -> int | None:
    """How many trials the columns tell of; None if there are none."""
    counts = {name: len(values) for name, values in columns.items()}
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{name!r} of {count}" for name, count in counts.items())
        raise InvalidInput(f"{where}: variables differ in how many trials they have: {told}", kind="count_mismatch")
    return next(iter(counts.values()), None)


def _uneven(where: str, n_told: int | None, n_inputs: str) -> InvalidInput:
    return InvalidInput(
        f"{where}: variables or expected hashes of {n_told} trials, inputs of {n_inputs}; expected equal numbers, in one order",
        kind="count_mismatch",
    )


def _known_hashes(recording: Recording) -> dict[int, int]:
    """Hash of each trial's inputs in a recording."""
    if dims.INPUT_HASH not in recording.dataset.coords:
        raise InvalidInput(
            f"recording {recording.name!r} has no hashes of inputs; expected one that was captured from batches",
            kind="no_hashes",
        )
    trials, first = np.unique(recording.trial, return_index=True)
    hashes = recording.dataset[dims.INPUT_HASH].values[first]
    return dict(zip(trials.tolist(), hashes.tolist(), strict=True))


def _check_hashes(
    hashes: NDArray[np.uint64],
    trials: NDArray[Any],
    expected: NDArray[Any] | None,
    known: dict[int, int] | None,
    where: str,
) -> None:
    """Refuse inputs (n_trials,) that are not those the labels, or another recording, were made from."""
    wanted: list[list[Any]] = []
    if expected is not None:
        wanted.append(as_hashes(expected, where).tolist())
    if known is not None:
        wanted.append([known.get(int(trial)) for trial in trials])
    for one in wanted:
        for trial, found, meant in zip(trials.tolist(), hashes.tolist(), one, strict=True):
            if found != meant:
                told = "none, it has no such trial" if meant is None else f"{meant:016x}"
                raise InvalidInput(
                    f"{where}: trial {trial} has inputs with hash {found:016x}, expected {told}: other inputs, or in another"
                    " order",
                    kind="other_inputs",
                )


def _specs(variables: Mapping[str, ArrayLike] | None, declared: Any) -> dict[str, Any]:
    """Every variable of all trials, declared or inferred: the same for each batch."""
    given = declared.values() if isinstance(declared, Mapping) else declared or ()
    specs = {spec.name if isinstance(spec, VariableSpec) else str(spec.get("name")): spec for spec in given}
    for name, values in (variables or {}).items():
        if name not in _NOT_VARIABLES and name not in specs:
            specs[name] = infer_spec(name, _array(values))
    return specs


def _joined(pieces: Iterable[_Piece], name: str) -> _Piece:
    """All samples in memory."""
    kept = list(pieces)
    if not kept:
        raise InvalidInput(f"capture of {name!r}: every step is padding, no sample is left", kind="no_samples")
    for number, piece in enumerate(kept):
        if piece.columns.keys() != kept[0].columns.keys():
            raise InvalidInput(
                f"batch {number} of {name!r} has {', '.join(piece.columns)}; the first has {', '.join(kept[0].columns)}",
                kind="variables_differ",
            )
    columns = {key: np.concatenate([piece.columns[key] for piece in kept]) for key in kept[0].columns}
    return _Piece(np.concatenate([piece.activity for piece in kept]), columns, sum(piece.n_trials for piece in kept))


def _recording(piece: _Piece, fields: Mapping[str, Any]) -> Recording:
    columns = piece.columns
    return Recording.from_arrays(
        piece.activity,
        {key: values for key, values in columns.items() if key not in _COORDINATES},
        trial=columns[dims.TRIAL],
        step=columns[dims.STEP],
        token=columns.get(dims.TOKEN),
        eligible=columns.get(dims.ELIGIBLE),
        sample_metadata={key: columns[key] for key in (dims.INPUT_HASH,) if key in columns},
        **fields,
    )


def _provenance(source: str, seed: int | None, notes: str) -> Provenance:
    return Provenance(source=source, seed=seed, created=now(), versions=versions(), notes=notes)


@contextmanager
def _telling(progress: Report | None, bar: bool, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """How to tell the number of trials done: to `progress`, or by a bar if one is wanted and can be drawn."""
    console = Console(stderr=True)
    if progress is not None:
        yield lambda done: progress(done, total)
    elif bar and can_draw(console):
        with Bar(name, total, console) as shown:
            yield lambda done: shown.update(done, "trials")
    else:
        yield lambda done: None


def _reported(pieces: Iterable[_Piece], report: Callable[[int], None]) -> Iterator[_Piece]:
    """The pieces that hold samples; what comes before the next one is asked for is done."""
    done = 0
    for piece in pieces:
        if len(piece.activity):
            yield piece
        done += piece.n_trials
        report(done)


__all__ = ["capture"]
