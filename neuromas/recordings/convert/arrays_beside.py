"""Further arrays from files beside the source: labels for a file that holds activity alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from neuromas import dims
from neuromas.errors import InvalidInput
from neuromas.files import sha256_file
from neuromas.recordings.check import listing
from neuromas.recordings.columns import tidy
from neuromas.recordings.convert.arrow import read_columns
from neuromas.recordings.convert.beside import beside
from neuromas.recordings.convert.matlab import read_mat
from neuromas.recordings.convert.named_arrays import Arrays
from neuromas.recordings.convert.source import needed
from neuromas.recordings.convert.tensor_files import read_npy, read_pt, read_safetensors
from neuromas.recordings.convert.text import as_labels, is_text, read_text, read_written
from neuromas.recordings.convert.workbook import read_workbook
from neuromas.recordings.encode import load_npz
from neuromas.schema.recipe import ArraysRecipe


def with_files_beside(
    source: Arrays, recipe: ArraysRecipe, path: Path | None
) -> tuple[Arrays, ArraysRecipe, list[str]]:
    """`source` with the arrays of the recipe's files beside `path`, the recipe with labels as written there, a note per file.

    Raises
    ------
    NotFound
        There is no such file.
    InvalidInput
        A file lies elsewhere, cannot be read, or holds an array whose name is in use.
    """
    if not recipe.beside:
        return source, recipe, []
    if path is None:
        raise InvalidInput(f"{source.where}: 'beside' needs a single recording from a file", kind="invalid_recipe")
    arrays, variables, notes = dict(source.arrays), dict(recipe.variables), []
    for name in recipe.beside:
        file = beside(path, name, "beside")
        added = read_beside(file)
        twice = [key for key in added if key in arrays]
        if twice:
            raise InvalidInput(
                f"{file}: {listing(twice)} also in {path} or in another file beside it; rename them",
                kind="duplicate_column",
            )
        if is_text(file):
            added, variables = as_labels(variables, added, partial(read_written, file))
        arrays |= added
        notes.append(f"beside it {name} (sha256 {sha256_file(file)})")
    return replace(source, arrays=arrays), recipe.model_copy(update={"variables": variables}), notes


def read_beside(path: Path) -> Mapping[str, NDArray[Any]]:
    """Arrays or columns of a file, whatever its format."""
    match path.suffix:
        case ".npy":
            arrays = read_npy(path).arrays
            return {path.stem: arrays[dims.ACTIVITY]} if list(arrays) == [dims.ACTIVITY] else arrays
        case ".npz":
            return {name: tidy(values) for name, values in load_npz(path).items()}
        case ".mat":
            return read_mat(path).arrays
        case ".safetensors":
            return read_safetensors(path).arrays
        case ".pt" | ".pth":
            return read_pt(path).arrays
        case ".parquet" | ".arrow":
            needed("pyarrow", "parquet")
            return read_columns(path).arrays
        case ".xlsx" | ".xlsm":
            return read_workbook(path)
    return read_text(path)
