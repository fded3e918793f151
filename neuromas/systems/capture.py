"""Record a system: run it on trials, and keep the latents with their causal variables.

Trials are token sequences of a task, or for a `TorchSystem` batches of whatever its module takes. They are run batch by batch,
and written batch by batch if they go into a store, so a recording may be larger than memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from neuromas import dims
from neuromas.causal.model import TASKS, CausalModel, Sequences, get_task
from neuromas.errors import InvalidInput
from neuromas.progress import Bar, can_draw
from neuromas.provenance import now, versions
from neuromas.recordings.encode import infer_spec
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.document import Access, Provenance
from neuromas.schema.recording import Sampling, VariableSpec
from neuromas.systems.batches import COORDINATES, NOT_VARIABLES, Labels, Samples, as_column, n_labelled, run_batches
from neuromas.systems.competence import N_CHECKED, measured_accuracy, remark
from neuromas.systems.inputs import describe_inputs
from neuromas.systems.system import System
from neuromas.systems.torch_module import TorchSystem

FLOATS = ("float32", "float16", "float64")
"""Types of stored activity."""

Report = Callable[[int, int | None], None]
"""Called with the trials done, and how many there are if that is known."""


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
    allow_unsolved: bool = False,
    outputs: bool = True,
    expected: ArrayLike | Recording | None = None,
    into: RecordingStore | str | Path | None = None,
    set: str | None = None,
    group_by: Sequence[str] = (),
    progress: bool | Report | None = None,
    **fields: Any,
) -> Recording:
    """Run `system` on `trials` and return what was recorded.

    Parameters
    ----------
    system : System
    trials : Sequences, int, or iterable of batches
        Trials of the system's task, or how many to draw. For a `TorchSystem` also batches of inputs. Each batch is a tensor or
        array, a tuple of the module's positional arguments, a mapping of its named arguments, or a pair (inputs, variables of
        these trials). Every tensor has a row per trial. A single tensor, array or mapping holds all inputs and is cut into
        batches of `batch_size`.
    variables : mapping of str to array, optional
        Causal variables of all trials, in the order of the inputs, if the batches are not pairs. Each has shape (n_trials,) or
        (n_trials, n_steps). Some names are not variables, here and in pairs: ``trial`` (numbers of the trials; by default 0, 1,
        2, …), ``step``, ``token``, ``eligible``, ``lengths`` (steps of each trial; later steps are padding and are dropped, as
        are those that an ``attention_mask`` among the inputs leaves out) and ``input_hash`` (see `expected`).
    seed : int
        Seed of the trials, if `trials` is a number.
    name : str, optional
        The recording's name; the system's by default.
    access : {"intervene", "read"}, optional
        Whether the recorded system can be run later ("intervene"), or only be read, as for a system that stands in for a brain
        ("read"). By default "intervene" for a system that does a task, and "read" for any other.
    model : CausalModel, optional
        Causal model of the task; by default that of the system's own task.
    dtype : str
        Type of the activity: ``float32``, ``float64``, or ``float16``, which halves the size. It changes GRU states, which lie
        in (-1, 1), by at most 5e-4.
    batch_size : int
        Trials run at once.
    only_solved : bool
        Keep only trials in which every deterministic token is the most probable one. The provenance says how many trials were
        left out.
    allow_unsolved : bool
        Record a system also if it solves its task no better than guesses would.
    outputs : bool
        Also record what the system itself answers at each step of its task, as the coordinate ``output``: its most probable next
        token. The recording's ``token`` is what the system was shown. A twin learns its behaviour from ``output``.
    expected : sequence of hashes, or Recording, optional
        The inputs that are expected, in order: hashes from `hash_inputs`, or a recording captured from the same inputs.
    into : RecordingStore or path-like, optional
        Store to write to, batch by batch; memory holds one batch. If the capture is interrupted, the store stays as it was.
    set : str, optional
        The recording set in the store.
    group_by : sequence of str, optional
        As in `RecordingStore.register_blocks`.
    progress : bool or callable, optional
        True shows a bar on a terminal or in a notebook; False shows nothing. A function is called after every batch with the
        trials done and the number of trials, or None if that is not known. By default a bar is shown for batches of inputs and
        for trials that go into a store.
    **fields
        Further arguments of `Recording.from_arrays`: ``variable_specs``, ``vocabulary``, ``units``, ``description``,
        ``licence``, …

    Returns
    -------
    Recording
        One sample for each step of each trial; ``eligible`` says after which an interchange may take place. A recording in a
        store is opened lazily. Samples from batches have the coordinate ``input_hash``. The trial accuracy of a system that does
        a task, measured on at most 300 trials, is in ``manifest.provenance``; a warning says if it is below 99.9 %.

    Raises
    ------
    InvalidInput
        Arguments do not go together; task and system have different tokens; no trial is solved; variables and inputs have
        different numbers of trials; inputs are not the expected ones; a batch cannot be run, or gives activity that is not
        finite; the system solves its task no better than guesses would.
    InvalidDocument
        Variables or fields cannot be stored in a recording.
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
    of_task = isinstance(trials, (Sequences, int, np.integer))
    _check_arguments(system, trials, variables, expected, model, only_solved, into, set, group_by)
    _check_fields(fields, of_task)
    dtype = _float_type(system, dtype)
    _check_batch_size(system, batch_size)
    if of_task:
        run = _of_task(system, trials, seed, model, dtype, batch_size, only_solved, allow_unsolved, outputs)  # type: ignore[arg-type]
    else:
        assert isinstance(system, TorchSystem)
        labels = Labels.of(variables, expected)
        run = _of_inputs(system, trials, labels, dtype, batch_size, allow_unsolved)  # type: ignore[arg-type]
        specs = _specs(variables, fields.get("variable_specs"))
        if specs:
            fields["variable_specs"] = specs
    warning = remark(name or system.name, run.fields["provenance"].trial_accuracy)
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    described = {
        "name": name or system.name,
        "system": system.name,
        "layer": system.layer,
        "access": access or ("intervene" if system.config.task else "read"),
        **run.fields,
        **fields,
    }
    if progress is None:
        progress = not of_task or into is not None
    with _reporting(progress, described["name"], run.n_trials) as report:
        samples = _reported(run.samples, report)
        if into is None or set is None:
            return _recording(_joined(samples, system.name), described)
        store = into if isinstance(into, RecordingStore) else RecordingStore(into)
        blocks = (_recording(block, described) for block in samples)
        return store.get(store.register_blocks(blocks, set=set, name=described["name"], group_by=group_by), load=False)


def _check_arguments(
    system: System,
    trials: Any,
    variables: Any,
    expected: Any,
    model: Any,
    only_solved: bool,
    into: Any,
    set_: str | None,
    group_by: Sequence[str],
) -> None:
    """Raise if arguments of `capture` do not go together."""
    if not isinstance(system, System):
        raise InvalidInput(
            f"capture: expected a System, got {describe_inputs(system)}; a module is wrapped as TorchSystem(module, tap)",
            kind="wrong_systems",
        )
    of_task = isinstance(trials, (Sequences, int, np.integer))
    if isinstance(trials, bool) or not (of_task or isinstance(trials, Iterable)):
        raise InvalidInput(
            f"capture of system {system.name!r}: expected trials, their number or batches of inputs, got"
            f" {describe_inputs(trials)}",
            kind="invalid_inputs",
        )
    if variables is not None and not isinstance(variables, Mapping):
        raise InvalidInput(
            f"capture of system {system.name!r}: expected variables by name, got {describe_inputs(variables)}",
            kind="invalid_variables",
        )
    for wrong, rule in (
        (
            of_task and (variables is not None or expected is not None),
            "variables and expected go with batches of inputs",
        ),
        (not of_task and (only_solved or model is not None), "only_solved and model go with trials of a task"),
        (not of_task and not isinstance(system, TorchSystem), "batches of inputs go with a TorchSystem"),
        ((into is None) != (set_ is None), "into and set go together: a store, and the recording set in it"),
        (into is None and bool(group_by), "group_by goes with into: samples are grouped as they are stored"),
    ):
        if wrong:
            kind_of_trials = "trials of its task" if of_task else f"trials as {type(trials).__name__}"
            raise InvalidInput(f"capture of system {system.name!r} got {kind_of_trials}: {rule}", kind="invalid_option")


_OF_SAMPLES = ("activity", "trial", "step", "token", "eligible", "lengths", "present", "sample_metadata")
"""What the capture itself gives a recording."""


def _check_fields(fields: Mapping[str, Any], of_task: bool) -> None:
    own = (*_OF_SAMPLES, "behaviour") if of_task else _OF_SAMPLES
    clashing = [name for name in fields if name in own]
    if clashing:
        raise InvalidInput(
            f"capture: {', '.join(clashing)}: the capture gives the recording these itself; trials, steps and tokens of"
            " batches go into variables=",
            kind="invalid_option",
        )


_FLOATS = ("float16", "float32", "float64")


def _float_type(system: System, dtype: Any) -> str:
    """The name of a float type of NumPy or PyTorch; whole numbers would cut activity, and no recording holds bfloat16."""
    try:
        name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if dtype is None or name not in _FLOATS:
        raise InvalidInput(
            f"capture of system {system.name!r}: dtype: expected {', '.join(_FLOATS[:-1])} or {_FLOATS[-1]}, got {dtype!r}",
            kind="invalid_option",
        )
    return name


def _check_batch_size(system: System, batch_size: Any) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InvalidInput(
            f"capture of system {system.name!r}: batch_size: expected a whole number of at least 1, got {batch_size!r}",
            kind="invalid_option",
        )


@dataclass(frozen=True)
class _Run:
    """What `capture` records: `n_trials` (None if not known), their samples, and fields of the manifest."""

    n_trials: int | None
    samples: Iterator[Samples]
    fields: dict[str, Any]


def _of_task(
    system: System,
    trials: Sequences | int,
    seed: int,
    model: CausalModel | None,
    dtype: str,
    batch_size: int,
    only_solved: bool,
    allow_unsolved: bool,
    outputs: bool,
) -> _Run:
    """Trials of a task."""
    model = _model_of(system, model)
    drawn = trials if isinstance(trials, Sequences) else model.sample(trials, seed)
    accuracy = measured_accuracy(
        system, model, drawn, drawn=not isinstance(trials, Sequences), allow_unsolved=allow_unsolved
    )
    notes = ""
    if only_solved:
        solved = system.solved(drawn)
        if not solved.any():
            raise InvalidInput(
                f"system {system.name!r} solves none of {len(drawn)} trials of task {model.name!r}; expected at least 1",
                kind="no_trials",
            )
        notes = f"left out {int((~solved).sum())} of {len(drawn)} trials, which the system does not solve"
        drawn = drawn.take(solved)
    source = f"capture of {system.name}, weights {system.config.weights_sha256 or 'unsaved'}"
    fields = {
        "vocabulary": model.vocabulary,
        "variable_specs": model.variables,
        "task": model.name,
        "sampling": Sampling(step="token"),
        "provenance": _provenance(source, None if isinstance(trials, Sequences) else int(seed), notes, accuracy),
    }
    # a system without a trial accuracy can only be recorded
    outputs = outputs and accuracy is not None
    if outputs:
        fields["behaviour"] = dims.OUTPUT
    return _Run(len(drawn), _run_trials(system, model, drawn, dtype, batch_size, outputs), fields)


def _model_of(system: System, model: CausalModel | None) -> CausalModel:
    """The causal model of the system's task; `model` if it has the system's tokens."""
    if not system.config.task:
        raise InvalidInput(
            f"system {system.name!r} was made without a task, so no trials can be drawn; expected batches of inputs with their"
            " variables",
            kind="no_task",
        )
    model = get_task(system.config.task) if model is None else model
    # a system trained with more tokens, such as void ones, does the task without them
    if model.vocabulary != system.config.vocabulary[: len(model.vocabulary)]:
        strange = [token for token in model.vocabulary if token not in system.config.vocabulary]
        raise InvalidInput(
            f"task {model.name!r} and system {system.name!r} have different tokens"
            + (f": the system does not know {', '.join(strange)}" if strange else ", or in another order"),
            kind="vocabulary_mismatch",
        )
    return model


def _run_trials(
    system: System, model: CausalModel, trials: Sequences, dtype: str, batch_size: int, outputs: bool
) -> Iterator[Samples]:
    """Samples of one batch of trials after another."""
    for start in range(0, len(trials), batch_size):
        batch = trials.take(np.arange(start, min(start + batch_size, len(trials))))
        tokens = torch.from_numpy(batch.tokens)
        latents = system.latents(tokens).cpu().numpy()
        row, step = np.nonzero(np.arange(batch.tokens.shape[1]) < batch.lengths[:, None])
        columns: dict[str, NDArray[Any]] = {
            dims.TRIAL: start + row,
            dims.STEP: step,
            dims.TOKEN: batch.tokens[row, step],
            dims.ELIGIBLE: batch.eligible[row, step],
        }
        columns |= {name: batch.values[row, step, at] for at, name in enumerate(model.variable_names)}
        if outputs:
            answers = system.outputs(tokens, torch.from_numpy(batch.lengths), n_tokens=len(model.vocabulary))
            columns[dims.OUTPUT] = answers.cpu().numpy()[row, step]
        yield Samples(latents[row, step].astype(dtype), columns, len(batch))


def _of_inputs(
    system: TorchSystem, batches: Iterable[Any], labels: Labels, dtype: str, batch_size: int, allow_unsolved: bool
) -> _Run:
    """Batches of whatever a module takes."""
    accuracy = None
    if system.config.task in TASKS:
        model = get_task(system.config.task)
        trials = model.sample(N_CHECKED, 0)
        accuracy = measured_accuracy(system, model, trials, allow_unsolved=allow_unsolved)
    where = f"{type(system.module).__name__} at {system.layer}"
    source = f"capture of {system.name}, {where}, weights {system.weights_sha256()}"
    fields: dict[str, Any] = {"provenance": _provenance(source, None, "", accuracy), "sampling": Sampling(step="step")}
    if system.config.task:
        fields |= {"task": system.config.task, "vocabulary": system.config.vocabulary}
        fields["sampling"] = Sampling(step="token")
    n_trials = n_labelled(labels.columns, f"capture of {system.name!r}")
    samples = run_batches(system, batches, labels, dtype, batch_size)
    return _Run(n_trials, (_in_own_tokens(system, block) for block in samples), fields)


def _in_own_tokens(system: TorchSystem, samples: Samples) -> Samples:
    """`samples` with the system's tokens in place of the module's numbers."""
    tokens = samples.columns.get(dims.TOKEN)
    if tokens is None or tokens.dtype.kind not in "iu":
        return samples
    return replace(samples, columns={**samples.columns, dims.TOKEN: system.tokens_of(tokens)})


def _specs(variables: Mapping[str, ArrayLike] | None, declared: Any) -> list[Any]:
    """Every variable of all trials, declared or inferred: the same for each batch."""
    listed = declared.values() if isinstance(declared, Mapping) else declared or ()
    specs = {spec.name if isinstance(spec, VariableSpec) else str(spec.get("name")): spec for spec in listed}
    for name, values in ({} if variables is None else variables).items():
        if name not in NOT_VARIABLES and name not in specs:
            specs[name] = infer_spec(name, as_column(name, values))
    return [*specs.values()]


def _joined(blocks: Iterable[Samples], name: str) -> Samples:
    """All samples in memory."""
    kept = list(blocks)
    if not kept:
        raise InvalidInput(f"capture of {name!r}: every step is padding, no sample is left", kind="no_samples")
    first = kept[0].columns
    for number, block in enumerate(kept):
        if block.columns.keys() != first.keys():
            raise InvalidInput(
                f"batch {number} of {name!r} has {', '.join(block.columns)}; the first has {', '.join(first)}",
                kind="variables_mismatch",
            )
    columns = {key: np.concatenate([block.columns[key] for block in kept]) for key in first}
    return Samples(np.concatenate([block.activity for block in kept]), columns, sum(block.n_trials for block in kept))


def _recording(samples: Samples, fields: Mapping[str, Any]) -> Recording:
    columns = samples.columns
    own = (*COORDINATES, dims.OUTPUT) if fields.get("behaviour") == dims.OUTPUT else COORDINATES
    return Recording.from_arrays(
        samples.activity,
        {key: values for key, values in columns.items() if key not in own},
        trial=columns[dims.TRIAL],
        step=columns[dims.STEP],
        token=columns.get(dims.TOKEN),
        eligible=columns.get(dims.ELIGIBLE),
        sample_metadata={key: columns[key] for key in (dims.INPUT_HASH, dims.OUTPUT) if key in columns and key in own},
        **fields,
    )


def _provenance(source: str, seed: int | None, notes: str, accuracy: float | None) -> Provenance:
    return Provenance(
        source=source, seed=seed, created=now(), versions=versions(), notes=notes, trial_accuracy=accuracy
    )


@contextmanager
def _reporting(progress: bool | Report, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function that reports how many trials are done: to `progress`, or on a bar if it is true and a bar can be drawn."""
    console = Console(stderr=True)
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress and can_draw(console):
        with Bar(name, total, console) as bar:
            yield lambda done: bar.update(done, "trials")
    else:
        yield lambda done: None


def _reported(blocks: Iterable[Samples], report: Callable[[int], None]) -> Iterator[Samples]:
    """The blocks that hold samples. A block is done when the next one is asked for."""
    done = 0
    for block in blocks:
        if len(block.activity):
            yield block
        done += block.n_trials
        report(done)


__all__ = ["capture"]
