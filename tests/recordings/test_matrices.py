"""Columns of matrices and of lists: an expression names one entry per row, whatever format it lies in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError
from neuromas.recordings.convert.arrays import from_xarray
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.expression import evaluate, evaluate_known
from neuromas.recordings.matrices import of_lists, of_table
from neuromas.recordings.recording import Recording

RATES = np.random.default_rng(0).normal(size=(6, 5, 3))  # trial, step, unit
CODES = np.c_[np.arange(6) % 2, 10 + np.arange(6)]
PATH = np.random.default_rng(1).integers(0, 9, size=(6, 5, 2))  # trial, step, x and y


def values(recording: Recording, name: str) -> list[Any]:
    return recording.values([name]).ravel().tolist()


def per_trial(recording: Recording, name: str) -> list[Any]:
    return values(recording, name)[:: RATES.shape[1]]


# ----------------------------------------------------------------------------------------------------------- expressions


def test_an_index_names_a_column():
    columns = {"v": of_table(np.array([[1, 2], [3, 4], [5, 6]])), "a b": of_table(np.array([["x", "y"]] * 3))}
    assert evaluate("v[:, 1] - v[:, 0] * 2", columns).tolist() == [0, -2, -4]
    assert evaluate("v[:, -1] > 2 and v[..., 0] < 5", columns).tolist() == [False, True, False]
    assert evaluate("col('a b')[:, 1] == 'y'", columns).tolist() == [True] * 3


def test_entries_behind_the_end_of_a_list_are_missing():
    columns = {
        "rt": of_lists(np.array([0.5, 1.5, 2.5]).take, [np.array([2, 2, 3])], ()),
        "word": of_lists(np.array(["a", "bb", "c"]).take, [np.array([1, 3, 3])], ()),
    }
    values, missing = evaluate_known("rt[:, 1] > 1", columns)
    assert missing.tolist() == [False, True, True]
    assert values[0]
    assert evaluate("word[:, -1]", columns).tolist() == ["a", "c", ""]
    assert evaluate_known("word[:, 0] == 'a'", columns)[1].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("v", r"'v' is of shape \(3, 2\); name one of its columns, e.g. v\[:, 0\]"),
        ("v[:, 2]", r"shape \(3, 2\); its axis 1 has no entry 2, expected 0 to 1"),
        ("v[:, -3]", r"axis 1 has no entry -3"),
        ("v[0]", r"shape \(3, 2\), so an index needs 2 entries, one for each axis, got 1"),
        ("v[0, :]", r"no entry per row; 'v' is of shape \(3, 2\)"),
        ("v[:, :]", r"no entry per row"),
        ("v[:, 0:1]", "whole axes and whole numbers"),
        ("v[:, n]", "whole axes and whole numbers"),
        ("v[:, 1.0]", "whole axes and whole numbers"),
        ("v[:, True]", "whole axes and whole numbers"),
        ("v[..., ...]", "whole axes and whole numbers"),
        ("v[v[:, 0]]", "whole axes and whole numbers"),
        ("v[:, 0][0]", "not allowed"),
        ("(v + v)[:, 0]", "not allowed"),
        ("col('v')['x']", "whole axes and whole numbers"),
        ("n[0]", "index of 'n' is not allowed, because this column has a single value"),
        ("v.T[0]", "not allowed"),
        ("w[:, 0]", "no column 'w'"),
        (f"v[:, {10**30}]", "has no entry"),
    ],
)
def test_an_index_that_names_no_column_says_the_shape(expression, message):
    columns = {"v": of_table(np.array([[1, 2], [3, 4], [5, 6]])), "n": np.array([1, 2, 3])}
    with pytest.raises((InvalidInput, LookupError), match=message):
        evaluate(expression, columns)


# ---------------------------------------------------------------------------------------------------------------- arrays


def mat(folder: Path) -> tuple[Path, dict[str, Any]]:
    savemat(
        folder / "a.mat",
        {"trial": RATES.transpose(0, 2, 1), "trialinfo": CODES, "rows": CODES.T, "path": PATH, "info": {"xy": CODES}},
    )
    return folder / "a.mat", {"activity": "trial", "axes": ["trial", "unit", "step"]}


def npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.savez(folder / "a.npz", activity=RATES, trialinfo=CODES, rows=CODES.T, path=PATH, **{"info.xy": CODES})
    return folder / "a.npz", {}


def netcdf(folder: Path) -> tuple[Path, dict[str, Any]]:
    dataset(RATES).to_netcdf(folder / "a.nc", engine="h5netcdf")
    return folder / "a.nc", {}


def zarr(folder: Path) -> tuple[Path, dict[str, Any]]:
    dataset(RATES).to_zarr(folder / "a.zarr")
    return folder / "a.zarr", {}


def dataset(rates: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {
            "activity": (("trial", "step", "unit"), rates),
            "trialinfo": (("trial", "code"), CODES),
            "rows": (("code", "trial"), CODES.T),
            "path": (("trial", "step", "xy"), PATH),
            "info.xy": (("trial", "code"), CODES),
        }
    )


@pytest.mark.parametrize("write", [mat, npz, netcdf, zarr])
def test_columns_of_arrays_for_some_samples(tmp_path, write):
    path, recipe = write(tmp_path)
    variables = {"number": "rows[1, :]", "x": "path[:, :, 0]"}
    where = "trialinfo[:, 0] == 1 and path[:, :, 1] > 2"
    recording = convert(path, recipe | {"where": where, "variables": variables})
    chosen = (CODES[:, 0] == 1)[:, None] & (PATH[:, :, 1] > 2)
    trial, step = np.nonzero(chosen)
    np.testing.assert_array_equal(recording.latents(), RATES[trial, step].astype(np.float32))
    assert recording.trial.tolist() == trial.tolist()
    assert values(recording, "number") == CODES[trial, 1].tolist()
    assert values(recording, "x") == PATH[trial, step, 0].tolist()
    assert f"not selected: {(~chosen).sum()} of 30 samples" in recording.manifest.provenance.notes


@pytest.mark.parametrize("write", [mat, npz, netcdf, zarr])
def test_columns_of_arrays(tmp_path, write):
    path, recipe = write(tmp_path)
    variables = {
        "side": "trialinfo[:, 0]",
        "number": "rows[1, :]",
        "x": "path[:, :, 0]",
        "last": "path[:, -1, 1]",
        "nested": 'col("info.xy")[:, 1] - 10',
    }
    recording = convert(path, recipe | {"variables": variables})
    assert np.array_equal(recording.latents(dtype=np.float64), RATES.reshape(-1, 3))
    assert per_trial(recording, "side") == CODES[:, 0].tolist()
    assert per_trial(recording, "number") == CODES[:, 1].tolist()
    assert values(recording, "x") == PATH[..., 0].ravel().tolist()
    assert per_trial(recording, "last") == PATH[:, -1, 1].tolist()
    assert per_trial(recording, "nested") == list(range(6))
    assert "left out" not in recording.manifest.provenance.notes


def test_xarray_and_samples(tmp_path):
    recording = from_xarray(dataset(RATES), {"variables": {"y": "path[:, :, 1]"}}, name="toy")
    assert values(recording, "y") == PATH[..., 1].ravel().tolist()
    np.savez(tmp_path / "s.npz", activity=RATES.reshape(-1, 3), v=PATH.reshape(-1, 2))
    recording = convert(tmp_path / "s.npz", {"variables": {"y": "v[:, 1]", "fast": "v[:, 0]**2 + v[:, 1]**2 > 9"}})
    assert values(recording, "y") == PATH[..., 1].ravel().tolist()
    assert values(recording, "fast") == ((PATH**2).sum(axis=2) > 9).ravel().astype(int).tolist()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("trialinfo", r"'trialinfo' is of shape \(6, 2\); name one of its columns, .*activity is of shape \(6, 5, 3\)"),
        ("trialinfo[:, 2]", r"\(6, 2\); its axis 1 has no entry 2"),
        ("trialinfo[0, :]", r"trialinfo\[0, :\] is of shape \(2,\) and has no value per trial.*\(6, 2\)"),
        ("path[:, 0]", r"\(6, 5, 2\), so an index needs 3 entries"),
        ("activity[:, :, 0]", "no column|has no value per trial"),
    ],
)
def test_a_column_that_does_not_fit_says_the_shapes(tmp_path, expression, message):
    path, recipe = npz(tmp_path)
    with pytest.raises(InvalidDocument, match=message):
        convert(path, recipe | {"variables": {"v": expression}})


def test_obsm_of_anndata():
    from anndata import AnnData

    from neuromas.recordings.convert.anndata import from_anndata

    adata = AnnData(RATES[0].astype(np.float32), obsm={"X_pca": RATES[1][:, :2].copy()})
    recording = from_anndata(adata, {"variables": {"pc2": "X_pca[:, 1]"}}, name="toy")
    assert values(recording, "pc2") == RATES[1][:, 1].tolist()


# ------------------------------------------------------------------------------------------------------------------- nwb


@pytest.fixture
def session(tmp_path) -> Path:
    from pynwb import NWBHDF5IO, NWBFile

    file = NWBFile("planted", "planted", datetime(2020, 1, 1, tzinfo=UTC))
    for number in range(3):
        file.add_unit(spike_times=[0.1 + number, 5.1, 9.0], waveform_mean=[0.0, float(number)], id=number)
    file.add_trial_column("position", "x and y")
    file.add_trial_column("licks", "times of licks", index=True)
    file.add_trial_column("words", "words heard", index=True)
    licks: list[list[float]] = [[1.5], [], [5.5, 5.75]]
    words = [["go"], ["stop", "go"], ["nogo", "wait", "stop"]]
    for trial, start in enumerate((1.0, 3.0, 5.0)):
        file.add_trial(start, start + 1, position=[trial, 10.0 + trial], licks=licks[trial], words=words[trial])
    with NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(file)
    return tmp_path / "a.nwb"


WINDOW = {"start_s": 0, "stop_s": 1, "bin_s": 0.5, "activity": "count", "coverage": "session"}


def test_vector_and_ragged_columns_of_nwb(session):
    variables = {
        "y": "position[:, 1]",
        "word": "words[:, -1]",
        "licked": "time - (licks[:, 0] - event_time) > 0 if isfinite(licks[:, 0]) else False",
        "second": "where(words[:, 1] == '', 'none', words[:, 1])",
    }
    recording = convert(session, WINDOW | {"variables": variables, "where": "position[:, 0] != 7"})
    assert values(recording, "y")[::2] == [10, 11, 12]
    meanings = recording.spec("word").meanings
    assert [meanings[int(code)] for code in values(recording, "word")[::2]] == ["go", "go", "stop"]
    assert values(recording, "licked") == [0, 1, 0, 0, 0, 1]
    second = recording.spec("second").meanings
    assert [second[int(code)] for code in values(recording, "second")[::2]] == ["none", "go", "wait"]


def test_nwb_aligned_to_and_selected_by_entries_of_lists(session):
    recipe = WINDOW | {"align": "licks[:, -1]", "variables": {"x": "position[:, 0]"}, "start_s": -0.5, "stop_s": 0}
    recording = convert(session, recipe | {"units_where": "waveform_mean[:, 1] > 0"})
    assert recording.n_units == 2
    assert values(recording, "x") == [0, 2]  # the trial without a lick is left out
    assert recording.dataset["event_s"].values.tolist() == [1.5, 5.75]


def test_nwb_says_what_can_be_named(session):
    listed = dict(find_converter(session).contents(session))
    assert listed["trials.position"] == "(3, 2): an expression names one entry per row, e.g. position[:, 0]"
    assert listed["trials.licks"].startswith("(3, up to 2)")
    with pytest.raises(InvalidDocument, match=r"'words' is of shape \(3, up to 3\); name one of its columns"):
        convert(session, WINDOW | {"variables": {"w": "words"}})
    with pytest.raises(InvalidDocument, match="has no entry 3"):
        convert(session, WINDOW | {"variables": {"w": "words[:, 3]"}})


@pytest.mark.usefixtures("in_process")
def test_of_long_lists_only_the_entries_asked_for_are_read(session, monkeypatch):
    from neuromas.recordings.convert.nwb import columns

    monkeypatch.setattr(columns, "_WHOLE", 1)
    monkeypatch.setattr(columns, "_AT_ONCE", 1)
    read: list[int] = []
    whole = h5py.Dataset.__getitem__

    def counted(self: Any, key: Any, **more: Any) -> Any:
        value = whole(self, key, **more)
        if self.name.endswith("/licks"):
            read.append(len(value))
        return value

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    recording = convert(session, WINDOW | {"variables": {"l": "where(isfinite(licks[:, 0]), licks[:, 0], 0)"}})
    assert values(recording, "l")[::2] == [1.5, 0, 5.5]
    assert read == [1, 1] * 2  # the expression names the column twice


# ------------------------------------------------------------------------------------------------------- lists of lists


def entry(nested: list, index: tuple[int, ...]) -> float:
    """An entry of nested lists as Python takes it; NaN where there is none."""
    for at in index:
        if not -len(nested) <= at < len(nested):
            return np.nan
        nested = nested[at]
    return nested


def test_lists_of_lists_are_those_of_python():
    rng = np.random.default_rng(0)
    rows = [[list(rng.normal(size=rng.integers(4))) for _ in range(rng.integers(4))] for _ in range(30)]
    inner = [each for row in rows for each in row]
    levels = [np.cumsum([len(row) for row in rows]), np.cumsum([len(each) for each in inner])]
    matrix = of_lists(np.concatenate(inner).take, levels, ())
    assert matrix.shape == (30, 3, 3)
    for at in np.ndindex(6, 6):
        index = tuple(number - 3 for number in at)
        np.testing.assert_array_equal(matrix.part((slice(None), *index)), [entry(row, index) for row in rows])
    some = matrix.of_rows(np.array([7, 2]))
    np.testing.assert_array_equal(some.part((slice(None), 0, -1)), [entry(rows[7], (0, -1)), entry(rows[2], (0, -1))])


def test_doubly_ragged_columns_of_nwb(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    taps = [[[1.0, 2.0], [3.0]], [[4.0, 5.0, 6.0]], [[], [7.0]], [[8.0], [9.0, 10.0], [11.0]]]
    pairs = [[[1, 2], [3, 4]], [[5, 6]], [[7, 8], [9, 10], [11, 12]], [[13, 14]]]
    file = pynwb.NWBFile(session_description="-", identifier="-", session_start_time=datetime(2020, 1, 1, tzinfo=UTC))
    for name in ("taps", "pairs"):
        file.add_trial_column(name, "-", index=2)
    for number in range(4):
        file.add_trial(start_time=10.0 * number, stop_time=10.0 * number + 5, taps=taps[number], pairs=pairs[number])
    file.add_unit(spike_times=np.arange(0, 40, 0.5) + 0.1)
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "w") as io:
        io.write(file)
    recipe = {"start_s": 0, "stop_s": 1, "coverage": "throughout"}
    variables = {"last": "taps[:, -1, -1]", "second": "pairs[:, 0, 1]"}
    recording = convert(tmp_path / "s.nwb", recipe | {"variables": variables})
    assert recording.values(["last"])[:, 0].tolist() == [3, 6, 7, 11]
    assert recording.values(["second"])[:, 0].tolist() == [2, 6, 8, 14]
    kept = convert(tmp_path / "s.nwb", recipe | {"variables": {"n": "id"}, "where": "isfinite(taps[:, 0, 1])"})
    assert kept.values(["n"])[:, 0].tolist() == [0, 1]
    listed = dict(find_converter(tmp_path / "s.nwb").contents(tmp_path / "s.nwb"))
    assert listed["trials.taps"] == "(4, up to 3, up to 3): an expression names one entry per row, e.g. taps[:, 0, 0]"
    with pytest.raises(NeuromasError, match=r"'taps' is of shape \(4, up to 3, up to 3\).*e\.g\. taps\[:, 0, 0\]"):
        convert(tmp_path / "s.nwb", recipe | {"variables": {"x": "taps[:, 0]"}})


def test_a_column_of_one_value_per_row_may_be_called_its_first():
    table = {"v": np.array([3, 1, 2])}
    for text in ("v", "v[:, 0]", "v[:, -1]"):
        assert evaluate(text, table, "here").tolist() == [3, 1, 2]
    for text in ("v[:, 1]", "v[0, :]", "v[:]", "v[0]"):
        with pytest.raises(InvalidInput, match=r"expected the name alone, or \[:, 0\]"):
            evaluate(text, table, "here")
