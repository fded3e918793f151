"""EEGLAB's data sets: the data inside or beside, version 5 and 7.3, epochs and continuous; planted numbers found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from neuromas.cli import verbs
from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.files import sha256_file
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.recording import Recording

N_CHANNELS, N_POINTS, N_EPOCHS, RATE = 3, 20, 4, 100.0
EMPTY = np.zeros((0, 0))
DATA = np.random.default_rng(0).normal(size=(N_CHANNELS, N_POINTS, N_EPOCHS)).astype(np.float32)
XMIN = -0.05


def values(recording: Recording, name: str) -> list[Any]:
    spec, column = recording.spec(name), recording.values([name]).ravel()
    return [spec.label(value) for value in column] if spec.type == "categorical" else column.tolist()


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    made = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        made[0, number] = tuple(row.values())
    return made


def epoched(data: Any = DATA) -> dict[str, Any]:
    """Epochs with a square at time zero, and in all but the second a response 60 + 10 n ms later."""
    events = []
    for epoch in range(N_EPOCHS):
        zero = epoch * N_POINTS + 5 + 1  # counted from 1
        events.append(
            {"type": "square", "latency": float(zero), "position": float(1 + epoch % 2), "epoch": epoch + 1.0}
        )
        if epoch != 1:
            events.append({"type": "rt", "latency": zero + 6.0 + epoch, "position": EMPTY, "epoch": epoch + 1.0})
    return {
        "setname": "planted", "subject": "S01", "nbchan": 3.0, "trials": 4.0, "pnts": 20.0, "srate": RATE, "xmin": XMIN,
        "xmax": 0.14, "data": data, "event": structs(events), "epoch": structs([{"event": 1.0}] * N_EPOCHS),
        "chanlocs": structs([{"labels": label, "X": 0.5 * number} for number, label in enumerate(("Fz", "Cz", "Pz"))]),
    }  # fmt: skip


def continuous(data: Any) -> dict[str, Any]:
    kinds = [("left", 31.0), ("right", 101.0), ("boundary", 150.5), ("left", 148.0), ("right", 178.0), ("right", 199.0)]
    return epoched(data) | {
        "trials": 1.0, "pnts": 200.0, "xmin": 0.0, "epoch": EMPTY,
        "event": structs([{"type": kind, "latency": latency, "load": 2.0} for kind, latency in kinds]),
    }  # fmt: skip


def write_v5(path: Path, eeg: dict[str, Any]) -> Path:
    savemat(path, {"EEG": eeg})
    return path


def write_at_root(path: Path, eeg: dict[str, Any]) -> Path:
    savemat(path, eeg, appendmat=False)
    return path


def write_v73(path: Path, eeg: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")

        def put(group: h5py.Group, name: str, value: Any) -> None:
            if isinstance(value, np.ndarray) and value.dtype.names:
                made = group.create_group(name)
                made.attrs["MATLAB_class"] = np.bytes_("struct")
                for field in value.dtype.names:
                    references = []
                    for entry in value[field].ravel():
                        label = f"r{len(refs)}"
                        put(refs, label, entry)
                        references.append(refs[label].ref)
                    made.create_dataset(field, data=np.array(references, dtype=h5py.ref_dtype)[:, None])
            elif isinstance(value, str):
                codes = np.frombuffer(value.encode("utf-16-le"), dtype=np.uint16)[:, None]
                group.create_dataset(name, data=codes).attrs["MATLAB_class"] = np.bytes_("char")
            elif np.size(value) == 0:
                made = group.create_dataset(name, data=np.array([0, 0], dtype=np.uint64))
                made.attrs["MATLAB_empty"], made.attrs["MATLAB_class"] = np.uint8(1), np.bytes_("double")
            else:
                made = group.create_dataset(name, data=np.atleast_2d(value).T)
                made.attrs["MATLAB_class"] = np.bytes_("single" if np.asarray(value).dtype == np.float32 else "double")

        eeg_group = file.create_group("EEG")
        eeg_group.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in eeg.items():
            put(eeg_group, name, value)
    return path


def write_fdt(path: Path, data: np.ndarray) -> str:
    """The data beside the set, channel by channel within each point."""
    path.with_suffix(".fdt").write_bytes(data.astype("<f4").tobytes(order="F"))
    return path.with_suffix(".fdt").name


every = pytest.mark.parametrize("write", [write_v5, write_at_root, write_v73])
VARIABLES = {
    "kind": "type",
    "position": "position",
    "answered": "where(eventtype[:, 1] == '', 'no', eventtype[:, 1])",
    "rt": "where(isfinite(eventlatency[:, 1]), eventlatency[:, 1], 0)",
    "after": "time > -0.001",
}


def test_data_that_lie_elsewhere_are_refused_or_hashed(tmp_path, tmp_path_factory):
    write_v5(tmp_path / "s.set", epoched(write_fdt(tmp_path / "s.set", DATA)))
    target = Path(shutil.move(tmp_path / "s.fdt", tmp_path_factory.mktemp("elsewhere") / "data.fdt"))
    (tmp_path / "s.fdt").symlink_to(target)
    with pytest.raises(InvalidInput, match=r"'s\.fdt' lies in another file, '.*data\.fdt' \(symbolic link\)"):
        convert(tmp_path / "s.set", {"variables": VARIABLES})
    recording = convert(tmp_path / "s.set", {"variables": VARIABLES}, allow_external=True)
    assert np.array_equal(recording.latents(dtype=np.float32), DATA.transpose(2, 1, 0).reshape(-1, N_CHANNELS))
    assert list(recording.manifest.provenance.external_sha256.values()) == [sha256_file(target)]


@every
@pytest.mark.parametrize("beside", [False, True])
def test_epochs(tmp_path, write, beside):
    path = tmp_path / "s 1.set"
    write(path, epoched(write_fdt(path, DATA) if beside else DATA))
    recording = convert(path, {"variables": VARIABLES})
    assert np.array_equal(recording.latents(dtype=np.float32), DATA.transpose(2, 1, 0).reshape(-1, N_CHANNELS))
    assert recording.unit_names == ["Fz", "Cz", "Pz"]
    assert recording.dataset["X"].values.tolist() == [0, 0.5, 1]
    assert np.allclose(recording.time_s[:N_POINTS], XMIN + np.arange(N_POINTS) / RATE)
    assert values(recording, "kind")[::N_POINTS] == ["square"] * 4
    assert values(recording, "position")[::N_POINTS] == [1, 2, 1, 2]
    assert values(recording, "answered")[::N_POINTS] == ["rt", "no", "rt", "rt"]
    assert np.allclose(values(recording, "rt")[::N_POINTS], [0.06, 0, 0.08, 0.09])
    assert values(recording, "after")[:N_POINTS] == ["false"] * 5 + ["true"] * 15
    assert recording.dataset["trial"].values[::N_POINTS].tolist() == [0, 1, 2, 3]
    assert "event_s" not in recording.dataset
    manifest = recording.manifest
    assert (manifest.name, manifest.system, manifest.units) == ("s-1", "S01", "uV")
    assert ("data in s 1.fdt (sha256 " in manifest.provenance.notes) == beside


@every
def test_epochs_selected_binned_and_aligned_to_another_event(tmp_path, write):
    path = write(tmp_path / "a.set", epoched())
    recipe = {"start_s": 0, "stop_s": 0.1, "bin_s": 0.05, "where": "position == 1", "variables": {"epoch": "epoch"}}
    recording = convert(path, recipe)
    means = DATA[:, 5:15].reshape(N_CHANNELS, 2, 5, N_EPOCHS).mean(axis=2)
    assert np.allclose(recording.latents().reshape(2, 2, 3), means[..., [0, 2]].transpose(2, 1, 0), atol=1e-6)
    assert values(recording, "epoch")[::2] == [1, 3]
    assert recording.manifest.sampling.step_s == 0.05
    aligned = convert(
        path, {"align": "eventlatency[:, 1]", "start_s": -0.02, "stop_s": 0.02, "variables": {"e": "epoch"}}
    )
    # the response of epoch n is 6 + n points after its time zero; the second epoch has none
    expected = [DATA[:, 5 + 6 + epoch - 2 : 5 + 6 + epoch + 2, epoch].T for epoch in (0, 2, 3)]
    assert np.array_equal(aligned.latents(dtype=np.float32), np.concatenate(expected))
    assert values(aligned, "e")[::4] == [1, 3, 4]


@every
@pytest.mark.parametrize("beside", [False, True])
def test_a_continuous_recording(tmp_path, write, beside):
    data = np.random.default_rng(1).normal(size=(3, 200)).astype(np.float32)
    path = tmp_path / "a.set"
    write(path, continuous(write_fdt(path, data) if beside else data))
    recipe = {
        "start_s": -0.1,
        "stop_s": 0.1,
        "where": "type in ['left', 'right']",
        "variables": {"side": "type", "load": "load"},
    }
    recording = convert(path, recipe)
    # counted from 1; the one at 148 lies across a boundary, the last one is cut off by the end
    expected = [data[:, latency - 1 - 10 : latency - 1 + 10].T for latency in (31, 101, 178)]
    assert np.array_equal(recording.latents(dtype=np.float32), np.concatenate(expected))
    assert values(recording, "side")[::20] == ["left", "right", "right"]
    assert np.allclose(recording.dataset["event_s"].values[::20], [0.3, 1.0, 1.77])
    assert "1 trials across a boundary" in recording.manifest.provenance.notes
    with pytest.raises(InvalidInput, match="the data set is continuous; start_s and stop_s"):
        convert(path, {"variables": {"side": "type"}})


def test_data_by_channel_and_under_another_name(tmp_path):
    path = write_v5(tmp_path / "a.set", epoched("old name.dat"))
    (tmp_path / "a.dat").write_bytes(DATA.reshape(N_CHANNELS, -1, order="F").astype("<f4").tobytes())
    recording = convert(path, {"variables": {"kind": "type"}})
    assert np.array_equal(recording.latents(dtype=np.float32), DATA.transpose(2, 1, 0).reshape(-1, N_CHANNELS))


def test_types_that_are_numbers_or_both(tmp_path):
    eeg = epoched()
    for kinds, expected in (([1.0, 2.0], [1, 1, 1, 1]), (["1", 2.0], ["1", "1", "1", "1"])):
        for event in eeg["event"][0]:
            event["type"] = kinds[0] if event["position"] is not EMPTY else kinds[1]
        recording = convert(write_v5(tmp_path / "a.set", eeg), {"variables": {"kind": "type"}})
        assert values(recording, "kind")[::N_POINTS] == expected


def test_sets_that_contradict_themselves(tmp_path):
    recipe = {"variables": {"kind": "type"}}
    path = tmp_path / "a.set"
    for change, error, message in (
        (
            {"data": DATA[:, :-1]},
            InvalidInput,
            r"EEG.data is of shape \(3, 19, 4\), but nbchan.* 3 channels of 80",
        ),
        ({"data": "none.fdt"}, NotFound, "no file 'none.fdt' beside it"),
        ({"data": "../../etc/passwd"}, NotFound, "no file 'passwd' beside it"),
        ({"srate": 0.0}, InvalidInput, "a rate above 0"),
        ({"pnts": "many"}, InvalidInput, "EEG.pnts: expected a number"),
        ({"event": EMPTY}, InvalidDocument, "no column 'type'; there are trial, epoch"),
    ):
        write_v5(path, epoched() | change)
        with pytest.raises(error, match=message):
            convert(path, recipe)
    write_v5(path, epoched("a.fdt"))
    (tmp_path / "a.fdt").write_bytes(b"\0" * 100)
    with pytest.raises(InvalidInput, match=r"expected 960 bytes.*got 100"):
        convert(path, recipe)
    savemat(path, {"x": 1.0}, appendmat=False)
    with pytest.raises(InvalidInput, match="no data set of EEGLAB: it has no data, srate"):
        convert(path, recipe)
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"cannot be read as a .mat file"):
        convert(path, recipe)


def test_eeglab_from_the_shell(tmp_path):
    path = write_v5(tmp_path / "a.set", epoched())
    listed = dict(find_converter(path).contents(path))
    assert listed["data"] == "4 epochs, 3 channels, 100 Hz, -0.05 to 0.14 s"
    assert listed["eventtype"].startswith("(4, up to 2): an expression names one entry per row")
    words = ["register", str(path), "--set", "eeg", "--store", str(tmp_path / "s"), "--variable", "kind=type"]
    finished = CliRunner().invoke(verbs.app, words)
    assert finished.exit_code == 0, finished.stderr
    assert "eeg/a registered: 80 samples × 3 units" in finished.stdout
