"""A recording from a file of tensors: ``.npy``, ``.safetensors`` or ``.pt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import name_of
from neuromas.recordings.convert.take import take
from neuromas.recordings.convert.tensor_files import read_npy, read_pt, read_safetensors
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import ArraysRecipe

Read = Callable[[Path], Arrays]


def _convert(read: Read, library: str, path: Path, recipe: ArraysRecipe, fields: Mapping[str, Any]) -> Recording:
    return take(read(path), recipe, fields, name=name_of(path), path=path, libraries=(library,))


def _contents(read: Read, path: Path) -> list[tuple[str, str]]:
    return read(path).contents()


def _converter(name: str, endings: tuple[str, ...], read: Read, library: str) -> Converter:
    return Converter(name, endings, ArraysRecipe, partial(_convert, read, library), partial(_contents, read))


CONVERTERS: tuple[Converter, ...] = (
    _converter("npy", (".npy",), read_npy, "numpy"),
    _converter("safetensors", (".safetensors",), read_safetensors, "safetensors"),
    _converter("pt", (".pt", ".pth"), read_pt, "torch"),
)
