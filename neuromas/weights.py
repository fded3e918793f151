"""Tensors and optimiser states in safetensors files, which are never unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from neuromas.errors import Corrupt, InvalidInput

_MOMENTS = ("exp_avg", "exp_avg_sq")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text metadata of a safetensors file; a checksum among the metadata is compared and left out.

    Raises
    ------
    Corrupt
        `path` is not a complete safetensors file, or not the file that was written. It is never unpickled.
    """
    data = path.read_bytes()
    try:
        tensors = load_safetensors(data)
        header, body = _parts(data)
    except (SafetensorError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise Corrupt(f"{path} is not a safetensors file, or is damaged: {error}", kind="not_safetensors") from error
    metadata = header.get("__metadata__") or {}
    checksums = {name: value for name, value in metadata.items() if name == CHECKSUM or value.startswith(_SHA256)}
    if checksums:  # earlier versions wrote none
        header["__metadata__"] = {name: value for name, value in metadata.items() if name not in checksums}
        if checksums != {CHECKSUM: _checksum(header, body)}:
            raise Corrupt(f"{path} is damaged: it is not what was written (SHA-256 differs)", kind="hash_mismatch")
    return tensors, header.get("__metadata__") or {}


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file with copies of `tensors`, which may share memory or be on a GPU.

    With `metadata`, a checksum of everything else in the file is added to them. Equal tensors and metadata give equal bytes.
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save_safetensors(copies)
    if metadata is None:
        return data
    header, body = _parts(data)
    header = {"__metadata__": dict(metadata), **header}
    header["__metadata__"][CHECKSUM] = _checksum(header, body)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, body))


CHECKSUM = "sha256"
_SHA256 = "sha256:"  # before the digits, so that the value is recognised although the name is damaged


def _parts(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and tensors' bytes of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), memoryview(data)[end:]


def _checksum(header: Mapping[str, Any], body: memoryview) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(body)
    return _SHA256 + digest.hexdigest()


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint does to its reader into an error that says what to do.

    Raises
    ------
    Corrupt
    """
    try:
        yield
    except InvalidInput:
        raise
    except Corrupt as error:
        raise Corrupt(f"{error.message}. {_ANEW.format(path=path)}", kind=error.kind) from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Corrupt(f"{path} does not hold what a checkpoint holds. {_ANEW.format(path=path)}") from error


_ANEW = "Nothing was resumed. Delete {path} and repeat the call, which then begins anew"


def adam_tensors(module: nn.Module, optimiser: torch.optim.Optimizer, separator: str = "/") -> dict[str, Tensor]:
    """The state of Adam for the parameters of `module`, by names such as ``adam/exp_avg/weight``.

    Parameters
    ----------
    module : nn.Module
    optimiser : torch.optim.Optimizer
    separator : str
        Between the parts of a name.

    Returns
    -------
    dict of str to Tensor
        Empty before the first update.
    """
    return {
        separator.join(("adam", moment, name)): value
        for name, parameter in module.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }


def restore_adam(
    module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], separator: str = "/"
) -> None:
    """Give Adam the state that `adam_tensors` took; parameters without one there are left as they are."""
    on_device = {
        parameter
        for group in optimiser.param_groups
        if group.get("capturable") or group.get("fused")
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        step = tensors.get(separator.join(("adam", "step", name)))
        if step is None:
            continue
        # the moments need the memory layout of the parameter, so that one kernel can update all of them
        moments = {
            moment: torch.empty_like(parameter.data).copy_(tensors[separator.join(("adam", moment, name))])
            for moment in _MOMENTS
        }
        optimiser.state[parameter] = {"step": step.to(parameter.device if parameter in on_device else "cpu"), **moments}
