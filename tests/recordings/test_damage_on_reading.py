"""A damaged file of a recording is `Corrupt` by whichever way it is read: at once, later, or through its dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuromas.errors import Corrupt, NeuromasError
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

N = np.arange(12) % 3
READERS = {
    "trial": lambda recording: recording.trial,
    "n": lambda recording: recording.values(),
    "rt": lambda recording: recording.dataset["rt"].values,
    "depth": lambda recording: recording.to_dataset().load(),
    "activity": lambda recording: recording.dataset["activity"].values,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    recording = Recording.from_arrays(
        np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32),
        {"n": N, "side": np.array(["l", "r"])[N % 2]},
        name="one",
        trial=np.arange(12) // 3,
        step=N,
        unit_metadata={"depth": [1.0, 2.0]},
        sample_metadata={"rt": N / 4},
    )
    RecordingStore(tmp_path).register(recording, set="lab")
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_later(store, name):
    whole = RecordingStore(store).get("lab/one", load=False)
    READERS[name](whole)
    np.testing.assert_array_equal(whole.dataset["rt"].values, N / 4)
    (chunk,) = [file for file in (store / "lab" / "one" / name / "c").rglob("*") if file.is_file()]
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    chunk.write_bytes(damaged)
    with pytest.raises(Corrupt, match=f"'lab/one': .*{name}.* cannot be read"):
        READERS[name](RecordingStore(store).get("lab/one", load=False))


def test_a_flipped_bit_in_any_file_is_told(store):
    """In three places of each file; what opens is what was written."""
    truth = RecordingStore(store).get("lab/one")
    refused = 0
    files = [file for file in sorted(store.rglob("*")) if file.is_file() and file.stat().st_size]
    for file in files:
        data = file.read_bytes()
        for at in (len(data) // 5, len(data) // 2, len(data) - 3):
            damaged = bytearray(data)
            damaged[at] ^= 2
            file.write_bytes(damaged)
            try:
                recording = RecordingStore(store).get("lab/one")
            except NeuromasError:
                refused += 1
            else:
                assert recording.dataset.identical(truth.dataset)
        file.write_bytes(data)
    assert refused >= 3 * len(files) - 3
