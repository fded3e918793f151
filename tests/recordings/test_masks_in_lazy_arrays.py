"""Masks of arrays that dask computes later, and of arrays in nested lists, are kept."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from neuromas.errors import InvalidDocument
from neuromas.recordings.recording import Recording

ACTIVITY = np.arange(12.0).reshape(6, 2)
N = np.arange(6) % 2
MASKED = np.ma.masked_equal(ACTIVITY, 3.0)
EXPECTED = np.where(ACTIVITY == 3, np.nan, ACTIVITY)


def nested() -> list[list[np.ndarray]]:
    """Three trials of two steps."""
    return [[MASKED[2 * trial], MASKED[2 * trial + 1]] for trial in range(3)]


def lazily() -> object:
    dask = pytest.importorskip("dask.array")
    return dask.ma.masked_equal(dask.from_array(ACTIVITY, chunks=(2, 2)), 3.0)


@pytest.mark.parametrize(
    "made",
    [
        lazily,
        lambda: xr.DataArray(lazily(), dims=("sample", "unit")),
        lambda: list(lazily()),
        lambda: tuple(MASKED),
    ],
    ids=["dask", "xarray of dask", "list of dask", "tuple"],
)
def test_masked_activity_is_missing(made):
    recording = Recording.from_arrays(made(), {"n": N}, name="x", missing=True)
    np.testing.assert_array_equal(recording.latents(), EXPECTED)
    with pytest.raises(InvalidDocument, match="NaN in 1 of 6 samples"):
        Recording.from_arrays(made(), {"n": N}, name="x")


def test_masks_in_nested_lists():
    variables = {"n": [[0, 1], [0, 1], [1, 1]]}
    recording = Recording.from_arrays(nested(), variables, name="x", missing=True)
    np.testing.assert_array_equal(recording.latents(), EXPECTED)
    variables["n"][0][0] = np.ma.array(1, mask=True)
    with pytest.raises(InvalidDocument, match="'n': missing in 1 of 6"):
        Recording.from_arrays(np.zeros((3, 2, 2)), variables, name="x")


def test_masked_variables_of_dask_are_refused():
    dask = pytest.importorskip("dask.array")
    with pytest.raises(InvalidDocument, match="'n': missing in 3 of 6"):
        Recording.from_arrays(ACTIVITY, {"n": dask.ma.masked_equal(dask.from_array(N, chunks=2), 1)}, name="x")


def test_dask_without_masks_is_what_it_computes():
    dask = pytest.importorskip("dask.array")
    turned = xr.DataArray(dask.from_array(ACTIVITY.T, chunks=(2, 3)), dims=("unit", "sample"))
    np.testing.assert_array_equal(Recording.from_arrays(turned, {"n": N}, name="x").latents(), ACTIVITY)


def test_a_number_and_the_same_text_are_not_made_one_value():
    for entries, shown in (([1, "1", "2"], "1 and the text '1'"), ([True, "True", "x"], "True and the text 'True'")):
        values = np.array(entries, dtype=object)
        with pytest.raises(InvalidDocument, match=shown):
            Recording.from_arrays(np.zeros((3, 2)), {"side": values}, name="toy")
    mixed = np.array([1, "a", "b"], dtype=object)
    recording = Recording.from_arrays(np.zeros((3, 2)), {"side": mixed}, name="toy")
    assert recording.spec("side").meanings == ("1", "a", "b")
