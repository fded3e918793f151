"""Pickles of arrays read without unpickling, against what unpickling would give; everything else is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromas.recordings.convert.pickled_array import read_pickled_array

ENTRY = st.one_of(
    st.text(max_size=300),
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.binary(),
)


@settings(max_examples=200)
@given(st.lists(ENTRY, max_size=40), st.integers(3, 5), st.booleans())
def test_arrays_are_read_as_they_were_written(entries, protocol, repeat):
    entries = entries * 2 if repeat else entries  # the second time from the pickle's memory
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    found = read_pickled_array(pickle.dumps(array, protocol=protocol))
    assert found.dtype == object
    assert found.tolist() == entries


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_shapes_and_orders(order, protocol):
    array = np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object, order=order)
    np.testing.assert_array_equal(read_pickled_array(pickle.dumps(array, protocol=protocol)), array)


def test_rows_of_several_fields():
    rows = np.array([(1, {"source": "."}), (2, None)], dtype=[("n", "<i4"), ("where", "O")])
    assert read_pickled_array(pickle.dumps(rows)).tolist() == [(1, {"source": "."}), (2, None)]


class Runs:
    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_nothing_is_run(tmp_path, protocol):
    for made in (Runs(tmp_path / "made"), np.array([Runs(tmp_path / "made")], dtype=object)):
        with pytest.raises(ValueError, match=r"pickled \w+\.mkdir, which is refused because it could run code"):
            read_pickled_array(pickle.dumps(made, protocol=protocol))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps("text"),
        pickle.dumps({"a": 1}),
        pickle.dumps(np.arange(3)),
        pickle.dumps(np.array([np.dtype("f8")], dtype=object)),
        pickle.dumps(np.array(["a"], dtype=object))[:-5],
        b"\x80\x02]q\x00(X\x01\x00\x00\x00ae",
        b"\x80\x02h\x07.",
        b"\x80\x02R.",
        b"\x80\x02cnumpy\ndtype\n.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n)R.",
    ],
)
def test_what_is_no_array_of_objects_is_one_error(content):
    with pytest.raises(ValueError):  # noqa: PT011 - a different reason each
        read_pickled_array(content)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 150), st.integers(0, 255))
def test_damage_is_a_value_error_or_another_array(noise, place, byte):
    whole = bytearray(pickle.dumps(np.array(["left", "right", None, 3], dtype=object)))
    whole[place % len(whole)] = byte
    for content in (bytes(whole), noise):
        with contextlib.suppress(ValueError):
            assert read_pickled_array(content).dtype == object
