"""Files of tensors, ``.npy``, ``.safetensors`` and ``.pt``, as named arrays; nothing in them is ever run."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput, NeuromasError
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert import named_arrays
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import unreadable
from neuromas.recordings.convert.tree import DEEPEST, Cell, Struct, Unusable, arrays_of

_SAFE_TORCH = (2, 6)
"""Earlier versions of PyTorch run code that a file names, even with ``weights_only``."""

_LARGEST_PICKLE = 2**26
_MOST_VALUES = 2**20

_PLAIN_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch\.nn\.parameter Parameter|torch Size"
    r"|torch (Double|Float|Half|BFloat16|ComplexFloat|ComplexDouble|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch (u?int\d+|float\d+|bfloat16|bool|device)"
)
"""What the pickle inside a ``.pt`` may name: tensors and dictionaries. None of these can ask for memory that the file does not
hold."""


def read_npy(path: Path) -> Arrays:
    """The array of a ``.npy`` file, as ``activity``; of an array of records, each field by its name.

    Raises
    ------
    InvalidInput
        The file is no array, is cut off, or holds pickled objects, which are refused unread.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # of headers that are none, or that announce more bytes than the file has
        if "pickle" in str(error).lower() and path.read_bytes()[:6] == np.lib.format.MAGIC_PREFIX:
            raise InvalidInput(
                f"{path}: holds pickled Python objects, which are refused because reading them would run code; save plain "
                "arrays instead",
                kind="pickle_refused",
            ) from error
        raise unreadable(
            path, "a NumPy array (.npy)", "pickled objects" if "pickle" in str(error) else error
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise unreadable(path, "a NumPy array (.npy)", "it is an archive of arrays (.npz)")
    fields = {dims.ACTIVITY: array} if array.dtype.names is None else {name: array[name] for name in array.dtype.names}
    source = Arrays({}, str(path))
    for name, values in fields.items():
        plain = tidy(values)
        if plain.dtype.kind in "biufU":
            source.arrays[name] = plain
        else:
            source.unusable[name] = f"{plain.dtype}, which is neither numbers nor text"
    return source


def read_safetensors(path: Path) -> Arrays:
    """Every tensor of a ``.safetensors`` file; floats of less than 32 bits that NumPy does not know become float32.

    Raises
    ------
    InvalidInput
        The file is not in this format, or is damaged.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return arrays_of({name: _array(file.get_tensor(name)) for name in file.keys()}, str(path))  # noqa: SIM118
    except NeuromasError:
        raise
    except Exception as error:  # whatever a foreign file makes these libraries raise
        raise unreadable(path, "a safetensors file", error) from error


def read_pt(path: Path) -> Arrays:
    """Every tensor of a file that ``torch.save`` wrote: a tensor is ``activity``, entries of dictionaries go by their keys.

    A list of tensors is stacked. The file may hold tensors, numbers, text, lists and dictionaries; what else its pickle names
    is refused before it is read.

    Raises
    ------
    InvalidInput
        The file is not in PyTorch's zip format, holds other objects, is compressed, or is damaged.
    """
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        raise InvalidInput(
            f"{path}: files of PyTorch are read with PyTorch 2.6 or later, which does not run what they hold; this is "
            f"{torch.__version__}. Save the tensors as safetensors",
            kind="missing_package",
        )
    _check_pickle(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file makes PyTorch raise
        raise unreadable(path, "a file of PyTorch", error) from error
    values = content if isinstance(content, Mapping) else {dims.ACTIVITY: content}
    walk = _Walk(path, path.stat().st_size)
    return arrays_of({str(name): walk.value(value, 0) for name, value in values.items()}, str(path))


def _check_pickle(path: Path) -> None:
    """InvalidInput if the file is no uncompressed archive of PyTorch, or its pickle names anything but tensors."""
    what = "a file of PyTorch"
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            pickles = [part for part in parts if part.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or any("/code/" in part.filename for part in parts):
                raise unreadable(path, what, "it is no archive of tensors as torch.save writes it")
            if any(part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size for part in parts):
                raise unreadable(path, what, "it is compressed, which torch.save never does")
            if pickles[0].file_size > _LARGEST_PICKLE:
                raise unreadable(path, what, "more than 64 MiB of it are no tensors")
            data = archive.read(pickles[0])
    # zipfile raises the last two for a packing that it does not know, and for an encrypted member
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise unreadable(
            path, what, f"{error}; files of PyTorch before 1.6 must be saved again, e.g. as safetensors"
        ) from error
    try:
        named = [(code.name, str(argument)) for code, argument, _ in pickletools.genops(data)]
    except Exception as error:  # of bytes that are no pickle
        raise unreadable(path, what, error) from error
    for code, argument in named:
        is_plain = code == "GLOBAL" and _PLAIN_GLOBALS.fullmatch(argument)
        if code in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4") and not is_plain:
            named_object = f"{argument.replace(' ', '.')!r} " if code == "GLOBAL" else ""
            raise InvalidInput(
                f"{path}: holds pickled objects {named_object}that are no tensors; they are refused because reading them could "
                "run code. Save tensors in a dictionary, or as safetensors",
                kind="pickle_refused",
            )


class _Walk:
    """Values of a file of PyTorch as those of a tree; a file that refers to its parts over and over is refused."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path, self.n_bytes, self.n_values = path, n_bytes, 0

    def value(self, value: Any, depth: int) -> Any:
        import torch

        self.n_values += 1
        if self.n_values > _MOST_VALUES or depth > DEEPEST:
            raise InvalidInput(
                f"{self.path}: more than {_MOST_VALUES} values, or values more than {DEEPEST} deep", kind="too_large"
            )
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, Mapping):
            return Struct({str(name): [self.value(entry, depth + 1)] for name, entry in value.items()})
        if isinstance(value, list | tuple):
            return self._list(list(value), depth)
        if isinstance(value, bool | int | float | str):
            return _plain([value])
        return np.zeros(0) if value is None else Unusable(f"an object of type {type(value).__name__}")

    def _list(self, entries: list[Any], depth: int) -> Any:
        self.n_values += len(entries)
        if entries and all(isinstance(entry, str) for entry in entries):
            return _plain(entries)
        if entries and all(isinstance(entry, bool | int | float) for entry in entries):
            return _plain(entries)
        return Cell([self.value(entry, depth + 1) for entry in entries], (len(entries),))

    def _tensor(self, tensor: Any) -> NDArray[Any] | Unusable:
        import torch

        if tensor.layout != torch.strided or tensor.is_quantized:
            return Unusable(f"a tensor of layout {tensor.layout}; save it as a plain one")
        # storage that the file does not hold was never written
        if tensor.untyped_storage().nbytes() > self.n_bytes:
            raise unreadable(self.path, "a file of PyTorch", "a tensor is larger than the file")
        return _array(tensor)


def _plain(values: list[Any]) -> NDArray[Any] | Unusable:
    array = np.array(values)
    return array if array.dtype.kind in "biufU" else Unusable("whole numbers beyond 64 bits")


def _array(tensor: Any) -> NDArray[Any] | Unusable:
    """A tensor as an array."""
    import torch

    size = tensor.numel() * tensor.element_size()
    if size > named_arrays.LARGEST_DENSE_BYTES and size > tensor.untyped_storage().nbytes():
        return Unusable(f"{size / 2**30:.1f} GiB when written out in full")
    if tensor.is_complex():
        return Unusable("complex numbers; save a part of them, or the magnitude")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.to(torch.float32)
    return np.array(tensor.numpy())
