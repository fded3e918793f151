"""What arrays say of themselves (masks, names of axes, types) reaches the recording, or is refused."""

from __future__ import annotations

import datetime
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from neuromas import Recording
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.measures.cka import cka
from neuromas.recordings.incoming import activity_axes, array_of, filled

ACTIVITY = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("f4")  # (trial, step, unit)
LABELS = {"x": np.arange(4)}


def made(activity=ACTIVITY, variables=None, **fields):
    return Recording.from_arrays(activity, LABELS if variables is None else variables, name="m", **fields)


def refused(*words, **arguments):
    with pytest.raises(InvalidDocument) as error:
        made(**arguments)
    assert len(error.value.problems) == 1, error.value.problems
    for word in words:
        assert word in error.value.problems[0]


# ------------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", ">i4"])
def test_masked_activity_is_missing(dtype):
    activity = np.ma.masked_equal(np.arange(24).reshape(4, 3, 2).astype(dtype), 5)
    recorded = made(activity, missing=True).latents(dtype=float)
    assert np.argwhere(np.isnan(recorded)).tolist() == [[2, 1]]
    assert np.array_equal(recorded.ravel()[6:], np.arange(6, 24))
    refused("NaN", "missing=True", activity=activity)
    # lists of masked rows
    assert np.isnan(made([*activity], missing=True).latents()[2, 1])


@pytest.mark.parametrize(
    "values",
    [
        np.ma.masked_array([7, 1, 2, 0], [1, 0, 0, 0]),
        np.ma.masked_array([7.5, 1, 2, 0], [1, 0, 0, 0]),
        np.ma.masked_array([True, True, False, False], [1, 0, 0, 0]),
        np.ma.masked_array(["?", "a", "b", "a"], [1, 0, 0, 0]),
        [None, "a", "b", "a"],
        [np.nan, "a", "b", "a"],
        [None, 1, 2, 3],
        [np.ma.masked, 1, 2, 3],
        pd.Series([np.nan, "a", "b", "a"]),
        pd.Series([None, "a", "b", "a"], dtype="string"),
        pd.Series([None, "a", "b", "a"], dtype="category"),
        pd.array([None, 1, 2, 3], dtype="Int64"),
        pd.array([None, True, False, True], dtype="boolean"),
        pd.array([None, 1.5, 2.5, 3], dtype="Float64"),
    ],
)
def test_a_missing_value_of_a_variable_is_told_once_with_its_place(values):
    refused("'x'", "missing in 3 of 12 samples", "trial 0, step 0", variables={"x": values})


def test_a_value_that_is_masked_in_padding_is_not_missing():
    count = np.ma.masked_array(np.tile([1, 2, -999], (4, 1)), np.tile([0, 0, 1], (4, 1)))
    recording = made(variables={"count": count}, lengths=[2, 2, 2, 2])
    assert recording.dataset["count"].values.tolist() == [1, 2] * 4
    refused("missing in 1 of 9", "trial 3, step 2", variables={"count": count}, lengths=[2, 2, 2, 3])


def test_masked_order_lengths_and_marks_are_refused():
    mask = [1, 0, 0, 0]
    refused("lengths: 1 of 4 entries are missing", lengths=np.ma.masked_array([3, 1, 2, 3], mask))
    refused("trial: missing in 3 of 12", trial=np.ma.masked_array([9, 1, 2, 3], mask))
    refused("step: 1 of 3 entries", step=np.ma.masked_array([0, 1, 2], [0, 0, 1]))
    refused("eligible: missing", eligible=np.ma.masked_array([True] * 4, mask))
    refused("token: missing", token=np.ma.masked_array(["a"] * 4, mask))
    refused(
        "present: 1 of 12", present=np.ma.masked_array(np.ones((4, 3), bool), [[1, 0, 0], [0] * 3, [0] * 3, [0] * 3])
    )
    refused("units: 1 of 2", units=[None, "a"])


def test_masked_metadata_are_missing():
    metadata = {
        "depth": np.ma.masked_equal([1.0, -999.0], -999),
        "shank": np.ma.masked_equal([3, -999], -999),
        "area": np.ma.masked_array(["CA1", "?"], [0, 1]),
        "layer": pd.Series(["deep", None]),
    }
    dataset = made(unit_metadata=metadata, sample_metadata={"rt": np.ma.masked_less([0.5, -1, 0.7, 0.2], 0)}).dataset
    assert np.array_equal(dataset["depth"].values, [1, np.nan], equal_nan=True)
    assert np.array_equal(dataset["shank"].values, [3, np.nan], equal_nan=True)
    assert [dataset[name].values.tolist() for name in ("area", "layer")] == [["CA1", ""], ["deep", ""]]
    assert np.isnan(dataset["rt"].values).sum() == 3
    refused("2^53", unit_metadata={"id": np.ma.masked_array([2**60, 1], [0, 1])})


def test_masks_reach_measures():
    x = np.random.default_rng(1).normal(size=(9, 3))
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        cka(np.ma.masked_less(x, -1), x)
    assert cka(torch.tensor(x, requires_grad=True), x) == pytest.approx(1)


# --------------------------------------------------------------------------------------------------------- names of axes


def test_axes_that_xarray_names_may_have_any_order():
    for order in itertools.permutations(("trial", "step", "unit")):
        array = xr.DataArray(ACTIVITY, dims=("trial", "step", "unit")).transpose(*order)
        assert np.array_equal(made(array).latents(), made().latents()), order
    timed = xr.DataArray(ACTIVITY, dims=("trial", "time", "neuron")).transpose("neuron", "time", "trial")
    assert np.array_equal(made(timed).latents(), made().latents())
    flat = xr.DataArray(ACTIVITY[:, 0], dims=("sample", "unit")).T
    assert np.array_equal(made(flat).latents(), ACTIVITY[:, 0])
    unnamed = xr.DataArray(ACTIVITY)
    assert np.array_equal(made(unnamed).latents(), made().latents())


def test_axes_with_names_that_mean_nothing_here_are_refused():
    refused("'cell', 'trial', 'bin'", "rename", activity=xr.DataArray(ACTIVITY, dims=("cell", "trial", "bin")))
    with pytest.raises(InvalidInput, match="rename"):
        activity_axes(("sample", "trial"))
    assert activity_axes(("unit", "observation")) == ("unit", "sample")


def test_variables_along_named_axes():
    count = xr.DataArray(np.arange(12).reshape(3, 4), dims=("step", "trial"))
    assert made(variables={"count": count}).dataset["count"].values.tolist() == count.T.values.ravel().tolist()
    square = np.random.default_rng(2).normal(size=(3, 3, 2))
    per_step = xr.DataArray([5, 6, 7], dims="step")  # as many as trials
    assert made(square, {"count": per_step}).dataset["count"].values.tolist() == [5, 6, 7] * 3


def test_labels_of_axes_name_units_trials_and_steps():
    labels = {"unit": ["a", "b"], "trial": [7, 8, 9, 12], "step": [2, 3, 4]}
    recording = made(xr.DataArray(ACTIVITY, coords=labels, dims=("trial", "step", "unit")))
    assert recording.unit_names == ["a", "b"]
    assert [recording.trial[::3].tolist(), recording.step[:3].tolist()] == [[7, 8, 9, 12], [2, 3, 4]]
    timed = xr.DataArray(ACTIVITY, coords={"time": [-0.1, 0.0, 0.1]}, dims=("trial", "time", "unit"))
    assert made(timed).dataset["time"].values[:3].tolist() == [-0.1, 0.0, 0.1]
    # what the caller says goes before
    assert made(recording.dataset.activity.values, {"x": np.arange(12)}, units=["c", "d"]).unit_names == ["c", "d"]


def test_columns_of_a_table_name_units():
    table = pd.DataFrame(ACTIVITY[:, 0], columns=["cell 3", "cell 9"])
    assert made(table).unit_names == ["cell 3", "cell 9"]
    assert made(pd.DataFrame(ACTIVITY[:, 0])).unit_names == ["u0", "u1"]
    assert made(table, units=["a", "b"]).unit_names == ["a", "b"]
    indexed = table.set_index(pd.MultiIndex.from_tuples([(3, 0), (3, 1), (5, 0), (5, 1)], names=["trial", "step"]))
    assert made(indexed).trial.tolist() == [3, 3, 5, 5]
    nullable = table.astype("Float64")
    nullable.iloc[1, 0] = pd.NA
    assert np.isnan(made(nullable, missing=True).latents()[1, 0])
    frame = pd.DataFrame({"depth": [1, 2]})
    assert made(table, unit_metadata=frame).dataset["depth"].values.tolist() == [1, 2]
    assert made(table, pd.DataFrame({"x": [1, 2, 3, 4]})).variable_names == ["x"]


# ----------------------------------------------------------------------------------------------------------------- types


def test_trials_beyond_int64_are_refused_not_wrapped():
    big = np.array([2**63, 2**63 + 1, 5, 6], dtype=np.uint64)
    refused("trial", "2^63", trial=big)
    assert made(trial=big - np.uint64(2)).trial.max() == 2**63 - 1
    dataset = made().to_dataset().assign_coords(trial=("sample", np.repeat(big, 3)))
    with pytest.raises(InvalidDocument, match="trial: numbers up to 9223372036854775809"):
        Recording.from_dataset(dataset)


def test_tensors():
    tensor = torch.tensor(ACTIVITY)
    for activity in (tensor.clone().requires_grad_(), list(tensor), tensor.to_sparse()):
        assert np.array_equal(made(activity).latents(), made().latents())
    half = tensor.bfloat16()
    assert np.array_equal(made(half).latents(), half.float().numpy().reshape(-1, 2))
    assert made(variables={"x": torch.tensor([1.0, 2, 3, 4], requires_grad=True)}).values().max() == 4
    refused("complex", activity=tensor.to(torch.complex64))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.array([b"a", b"\xe9"] * 2), "not UTF-8"),
        (np.array([b"a", b"\xe9"] * 2, dtype=object), "not UTF-8"),
        (["caf\udce9", "b", "c", "d"], "surrogate"),
        (np.array([0x110000, 65, 66, 67], dtype="u4").view("U1"), "0x110000"),
        (pd.date_range("2020", periods=4), "dates"),
        ([datetime.date(2020, 1, 1)] * 4, "dates"),
        (pd.date_range("2020", periods=4, tz="UTC"), "dates"),
        (pd.to_timedelta([1, 2, 3, 4], unit="s"), "spans of time"),
        (np.zeros(4, dtype=[("a", "f4"), ("b", "f4")]), "structured"),
        ([{1}, {2}, {3}, {4}], "neither numbers nor text"),
        ([[1], [2, 3], [4], [5]], "cannot be made an array"),
        ([2**70, 1, 2, 3], "cannot be made an array|no array of numbers"),
    ],
)
def test_what_is_no_value_is_told_in_one_line(values, word):
    with pytest.raises(InvalidDocument) as error:
        made(variables={"x": values})
    (problem,) = error.value.problems
    assert re.search(word, problem)
    with pytest.raises(InvalidDocument) as error:
        made(unit_metadata={"x": values[:2]})
    assert len(error.value.problems) == 1


def test_what_is_right_stays_as_it_was():
    for values in ([1, 2], [1.5, np.nan], [True, False], ["a", "b"], [1, "a"], np.float16([1, 2])):
        assert np.array_equal(array_of(values), np.asarray(values), equal_nan=np.asarray(values).dtype.kind == "f")
    assert filled(np.ma.masked_array([True, False], [0, 1])).tolist()[0] == 1
    assert array_of(np.array(["a", "b"], dtype=np.dtypes.StringDType())).dtype.kind == "U"
