"""What a module is fed: batches in any usual form, and a hash that tells a trial's inputs from all others."""

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

ATTENTION_MASK = "attention_mask"
"""Input that says which steps are real, as Hugging Face models take it."""


@dataclass(frozen=True)
class Inputs:
    """One call of a module: every tensor among its arguments has a row per trial.

    Attributes
    ----------
    args : tuple
    kwargs : dict of str to Any
        What is no tensor is handed on as it is.
    n_trials : int
    present : ndarray of bool, shape (n_trials, n_steps), or None
        Which steps are real, where an `ATTENTION_MASK` says so.
    """

    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    n_trials: int
    present: NDArray[np.bool_] | None = field(default=None, repr=False)

    def to(self, device: torch.device) -> Inputs:
        """The same with its tensors on `device`."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return Inputs(
            tuple(map(moved, self.args)),
            {key: moved(value) for key, value in self.kwargs.items()},
            self.n_trials,
            self.present,
        )

    def hashes(self, present: NDArray[np.bool_] | None = None) -> NDArray[np.uint64]:
        """The first 64 bits of a SHA-256 over each trial's inputs; shape (n_trials,).

        Hashed are dtype, shape and bytes of every tensor: positional ones in order, then named ones by name, without the
        attention mask. What `present` (n_trials, n_steps) says is padding does not count, so that a trial's hash does not
        depend on the batch it came in: in whole numbers (n_trials, n_steps), tokens say, and in what is (n_trials, n_steps, …).
        Other tensors count whole, and so does how many steps there are.
        """
        named = (self.kwargs[key] for key in sorted(self.kwargs) if key != ATTENTION_MASK)
        digests = [hashlib.sha256() for _ in range(self.n_trials)]
        for tensor in (value for value in (*self.args, *named) if isinstance(value, Tensor)):
            whole = tensor.detach().cpu().contiguous()
            rest = tuple(whole.shape[1:])
            rows = (
                whole.reshape(self.n_trials, math.prod(rest)).view(torch.uint8).numpy()
            )  # also what NumPy has no number for
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
    """A batch from a tensor or array, a tuple of arguments, or a mapping of named ones.

    Raises
    ------
    InvalidInput
        It is none of these, holds no tensor, or tensors that differ in how many rows they have.
    """
    if isinstance(inputs, Mapping):
        args, kwargs = (), {str(key): _tensor(value, f"{where}: {key!r}") for key, value in inputs.items()}
    else:
        listed = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        args, kwargs = tuple(_tensor(value, f"{where}: argument {n}") for n, value in enumerate(listed)), {}
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not tensors:
        raise InvalidInput(
            f"{where}: expected a tensor, or a tuple or mapping with at least one, got {_told(inputs)}",
            kind="no_inputs",
        )
    counts = [tensor.shape[0] if tensor.ndim else 0 for tensor in tensors]
    if min(counts) != max(counts) or not counts[0]:
        raise InvalidInput(
            f"{where}: every tensor needs a row per trial; shapes are {', '.join(str(tuple(one.shape)) for one in tensors)}",
            kind="batch_mismatch",
        )
    mask = kwargs.get(ATTENTION_MASK)
    present = mask.detach().cpu().numpy() != 0 if isinstance(mask, Tensor) and mask.ndim == 2 else None
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
    counts = np.asarray(lengths)
    if counts.shape != (n_trials,) or counts.dtype.kind not in "iu" or counts.min() < 0 or counts.max() > n_steps:
        told = f"{counts.min()} to {counts.max()}" if counts.size and counts.dtype.kind in "iuf" else counts.dtype
        raise InvalidInput(
            f"{where}: lengths: expected {n_trials} whole numbers from 0 to {n_steps} (the steps there are), got"
            f" {told} of shape {counts.shape}",
            kind="wrong_lengths",
        )
    return np.arange(n_steps) < counts[:, None]


def hash_inputs(inputs: Any, lengths: ArrayLike | None = None) -> NDArray[np.str_]:
    """A hash of each trial's inputs: the one that `capture` stores with each sample.

    Kept beside the labels, it shows later on that a recording's rows are of the trials that the labels are of.

    Parameters
    ----------
    inputs : Tensor, array, tuple of these, or mapping
        A batch, as `capture` takes it. Steps that an ``attention_mask`` leaves out do not count; positional and named
        arguments hash alike.
    lengths : array of int of shape (n_trials,), optional
        Steps of each trial, where there is no ``attention_mask``; what lies beyond is padding and does not count.

    Returns
    -------
    ndarray of str, shape (n_trials,)
        16 hexadecimal digits each: the first 64 bits of a SHA-256 over dtype, shape and bytes.

    Raises
    ------
    InvalidInput
        No batch, or lengths that do not fit it.

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
    return np.array([f"{one:016x}" for one in batch.hashes(present).tolist()])


def as_hashes(values: ArrayLike, where: str) -> NDArray[np.uint64]:
    """Hashes as numbers, from these or from what `hash_inputs` gives.

    Raises
    ------
    InvalidInput
        They are neither.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.uint64)
    try:
        numbers = [int(str(one), 16) for one in array.ravel().tolist()]
        return np.array(numbers, dtype=np.uint64).reshape(array.shape)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{where}: expected hashes of inputs as hash_inputs gives them, 16 hexadecimal digits each: {error}",
            kind="wrong_hash",
        ) from error


def _tensor(value: Any, where: str) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.array(value))  # a copy: what came may be read-only
    if value is None or isinstance(value, (Tensor, bool, int, float, str)):
        return value
    raise InvalidInput(f"{where}: expected a tensor or an array of numbers, got {_told(value)}", kind="no_inputs")


def _told(value: Any) -> str:
    dtype = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
    return type(value).__name__ + dtype


__all__ = ["Inputs", "as_hashes", "as_inputs", "before", "hash_inputs", "slices"]
