"""Inputs of a module: batches in any usual form, and a hash of each trial's inputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neuromas.errors import InvalidInput
from neuromas.recordings.encode import complete

ATTENTION_MASK = "attention_mask"
"""Name of the input that says which steps are real, as in Hugging Face models."""

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Inputs:
    """One call of a module: every tensor among its arguments has a row per trial.

    Attributes
    ----------
    args : tuple
    kwargs : dict of str to Any
        Named arguments. An argument that is not a tensor is passed on as it is.
    n_trials : int
    present : ndarray of bool, shape (n_trials, n_steps), or None
        Which steps are real, if there is an `ATTENTION_MASK`.
    """

    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    n_trials: int
    present: NDArray[np.bool_] | None = field(default=None, repr=False)

    def to(self, device: torch.device) -> Inputs:
        """The same inputs, their tensors copied to `device`: a module may change what it is given in place."""

        def moved(value: Any) -> Any:
            return value.detach().to(device, non_blocking=True, copy=True) if isinstance(value, Tensor) else value

        return Inputs(
            tuple(map(moved, self.args)),
            {key: moved(value) for key, value in self.kwargs.items()},
            self.n_trials,
            self.present,
        )

    def hashes(self, present: NDArray[np.bool_] | None = None) -> NDArray[np.uint64]:
        """The first 64 bits of a SHA-256 over each trial's inputs; shape (n_trials,).

        The hash covers dtype, shape and bytes of every tensor except the attention mask: positional arguments in order, then
        named arguments by name. Padded steps, for which `present` (n_trials, n_steps) is false, do not count in integers
        (n_trials, n_steps), such as tokens, and in tensors (n_trials, n_steps, …). So the hash of a trial does not depend on its
        batch. All other tensors count with every step.
        """
        named = (self.kwargs[key] for key in sorted(self.kwargs) if key != ATTENTION_MASK)
        digests = [hashlib.sha256() for _ in range(self.n_trials)]
        for tensor in (value for value in (*self.args, *named) if isinstance(value, Tensor)):
            whole = tensor.detach().cpu().to_dense().contiguous()
            rest = tuple(whole.shape[1:])
            # bytes, because NumPy has no bfloat16
            rows = whole.reshape(self.n_trials, math.prod(rest)).view(torch.uint8).numpy()
            over_steps = len(rest) > 1 or not (tensor.is_floating_point() or tensor.is_complex())
            padded = present is not None and bool(rest) and rest[0] == present.shape[1] and over_steps
            for trial, digest in enumerate(digests):
                row, shape = rows[trial], rest
                if padded:
                    assert present is not None
                    row = row.reshape(rest[0], -1)[present[trial]]
                    shape = (len(row), *rest[1:])
                digest.update(f"{whole.dtype}{shape}".encode())
                digest.update(np.ascontiguousarray(row).data)
        return np.array([int.from_bytes(digest.digest()[:8], "big") for digest in digests], dtype=np.uint64)


def as_inputs(inputs: Any, where: str = "inputs") -> Inputs:
    """Inputs from a tensor or array, a tuple of positional arguments, or a mapping of named arguments.

    Raises
    ------
    InvalidInput
        `inputs` is none of these, holds no tensor, or holds tensors with different numbers of rows.
    """
    if isinstance(inputs, Mapping):
        args, kwargs = (), {str(key): _tensor(value, f"{where}: {key!r}") for key, value in inputs.items()}
    else:
        listed = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        args, kwargs = tuple(_tensor(value, f"{where}: argument {n}") for n, value in enumerate(listed)), {}
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not tensors:
        raise InvalidInput(
            f"{where}: expected a tensor, or a tuple or mapping that holds one, got {describe_inputs(inputs)}",
            kind="invalid_inputs",
        )
    counts = [tensor.shape[0] if tensor.ndim else 0 for tensor in tensors]
    if min(counts) != max(counts) or not counts[0]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise InvalidInput(
            f"{where}: every tensor needs a row per trial; shapes are {shapes}",
            kind="shape_mismatch",
        )
    mask = kwargs.get(ATTENTION_MASK)
    present = numpy_of(mask) != 0 if isinstance(mask, Tensor) and mask.ndim == 2 else None
    return Inputs(args, kwargs, counts[0], present)


def slices(inputs: Tensor | NDArray[Any] | Mapping[str, Any], batch_size: int) -> Iterator[Any]:
    """All inputs in one piece, cut into batches of `batch_size`."""
    whole = as_inputs(inputs)
    for start in range(0, whole.n_trials, batch_size):
        rows = slice(start, start + batch_size)
        if whole.args:
            yield whole.args[0][rows]
        else:
            yield {key: value[rows] if isinstance(value, Tensor) else value for key, value in whole.kwargs.items()}


def before(lengths: ArrayLike, n_trials: int, n_steps: int, where: str) -> NDArray[np.bool_]:
    """Which of `n_steps` lie before each trial's end; shape (n_trials, n_steps)."""
    problems: list[str] = []
    counts = complete("lengths", lengths, problems)
    if counts is None:
        raise InvalidInput(f"{where}: {problems[0]}", kind="sample_mismatch")
    if counts.shape != (n_trials,) or counts.dtype.kind not in "iu" or counts.min() < 0 or counts.max() > n_steps:
        actual = f"{counts.min()} to {counts.max()}" if counts.size and counts.dtype.kind in "iuf" else counts.dtype
        raise InvalidInput(
            f"{where}: lengths: expected {n_trials} whole numbers from 0 to {n_steps} (the steps there are), got"
            f" {actual} of shape {counts.shape}",
            kind="sample_mismatch",
        )
    return np.arange(n_steps) < counts[:, None]


def hash_inputs(inputs: Any, lengths: ArrayLike | None = None) -> NDArray[np.str_]:
    """A hash of each trial's inputs, as `capture` stores it with each sample.

    Keep the hashes beside the labels. They show later whether a recording is of the same trials as the labels.

    Parameters
    ----------
    inputs : Tensor, array, tuple of these, or mapping
        A batch, as `capture` takes it. Steps that an ``attention_mask`` leaves out do not count. Positional and named
        arguments have the same hash.
    lengths : array of int of shape (n_trials,), optional
        Steps of each trial, if there is no ``attention_mask``. Later steps are padding and do not count.

    Returns
    -------
    ndarray of str, shape (n_trials,)
        16 hexadecimal digits each: the first 64 bits of a SHA-256 over dtype, shape and bytes.

    Raises
    ------
    InvalidInput
        `inputs` is not a batch, or `lengths` do not fit it.

    Examples
    --------
    >>> import torch
    >>> padded = torch.tensor([[5, 6, 7], [5, 6, 0]])
    >>> hash_inputs(padded, lengths=[3, 2])[1] == hash_inputs({"input_ids": padded[1:, :2]})[0]
    True
    """
    batch = as_inputs(inputs)
    present = batch.present
    if lengths is not None and present is None:
        tensors = [value for value in (*batch.args, *batch.kwargs.values()) if isinstance(value, Tensor)]
        n_steps = next((tensor.shape[1] for tensor in tensors if tensor.ndim > 1), 1)
        present = before(lengths, batch.n_trials, n_steps, "inputs")
    return np.array([f"{digest:016x}" for digest in batch.hashes(present).tolist()])


def as_hashes(values: ArrayLike, where: str) -> NDArray[np.uint64]:
    """Hashes as numbers; `values` are numbers already, or digits as `hash_inputs` returns them.

    Raises
    ------
    InvalidInput
        `values` are not hashes.
    """
    array = numpy_of(values) if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.uint64)
    try:
        numbers = [int(str(digits), 16) for digits in array.ravel().tolist()]
        return np.array(numbers, dtype=np.uint64).reshape(array.shape)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{where}: expected hashes of inputs as hash_inputs gives them, 16 hexadecimal digits each: {error}",
            kind="invalid_inputs",
        ) from error


def _tensor(value: Any, where: str) -> Any:
    if np.ma.is_masked(value):
        raise InvalidInput(
            f"{where}: {np.ma.count_masked(value)} of {np.size(value)} numbers are masked; a module would take what lies behind "
            "the mask for data. Fill them, or leave these trials out",
            kind="invalid_inputs",
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        # a copy, because the array may be read-only
        return torch.from_numpy(np.array(value))
    if isinstance(value, Tensor) and value.layout != torch.strided:
        raise InvalidInput(
            f"{where}: expected a dense tensor, got {value.layout}; use to_dense()", kind="invalid_inputs"
        )
    if value is None or isinstance(value, (Tensor, bool, int, float, str)):
        return value
    raise InvalidInput(
        f"{where}: expected a tensor or an array of numbers, got {describe_inputs(value)}", kind="invalid_inputs"
    )


def numpy_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array: off its device and its graph, in float32 where NumPy does not have its type.

    Examples
    --------
    >>> import torch
    >>> numpy_of(torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True))
    array([0.5], dtype=float32)
    """
    whole = tensor.detach().cpu().to_dense().resolve_conj().resolve_neg()
    foreign = whole.is_floating_point() and whole.dtype not in _NUMPY_FLOATS
    return (whole.float() if foreign else whole).numpy()


def describe_inputs(value: Any) -> str:
    """The type of `value`, for messages."""
    dtype = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
    return type(value).__name__ + dtype


__all__ = ["Inputs", "as_hashes", "as_inputs", "before", "describe_inputs", "hash_inputs", "numpy_of", "slices"]
