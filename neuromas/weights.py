"""Tensors from files, never unpickled."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from neuromas.errors import Corrupt


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text metadata of a safetensors file.

    Raises
    ------
    Corrupt
        `path` is not a whole safetensors file. It is never unpickled.
    """
    data = path.read_bytes()
    try:
        tensors = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise Corrupt(f"{path} is not a safetensors file, or is damaged: {error}", kind="not_safetensors") from error
    return tensors, header.get("__metadata__") or {}
