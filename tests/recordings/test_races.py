"""A recording that is read while other processes remove or replace it is what its manifest says, or an error of neuromas."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from zarr.storage import LocalStore

from neuromas import Recording, RecordingStore
from neuromas.errors import Corrupt, NeuromasError, NotFound
from neuromas.recordings.store import verify
from neuromas.recordings.store.index import RecordingEntry


def version(number: int) -> Recording:
    """Version 1 or 2 of a recording: files of the same names, other numbers of units."""
    activity = np.random.default_rng(number).normal(size=(3000, 4 * number)).astype("f4") + 100 * number
    return Recording.from_arrays(activity, {"count": np.arange(3000) % (4 + number)}, name="r")


def keep_replacing(folder: str, times: int) -> None:
    """What the other process does."""
    store, rng = RecordingStore(folder), np.random.default_rng(0)
    versions = [version(2), version(1)]
    for turn in range(times):
        store.remove("k/r")
        store.register(versions[turn % 2], set="k")
        time.sleep(rng.uniform(0, 0.4))


@pytest.fixture
def store(tmp_path) -> RecordingStore:
    store = RecordingStore(tmp_path / "store")
    store.register(version(1), set="k")
    return store


def replace(store: RecordingStore, number: int) -> None:
    store.remove("k/r")
    store.register(version(number), set="k")


READS = {
    "loaded": lambda store: store.get("k/r"),
    "lazy": lambda store: store.get("k/r", load=False),
}


def test_beside_a_process_that_keeps_replacing(store):
    kept = {number: version(number) for number in (1, 2)}
    seen: Counter[str] = Counter()
    hashes = {store.get("k/r").manifest.content_sha256: 1}
    other = subprocess.Popen([sys.executable, __file__, str(store.path), "5"])
    while other.poll() is None:
        for name, read in READS.items():
            try:
                recording = read(store)
                latents, labelled = recording.latents(), recording.to_dataset()["activity"].values
                values = recording.values()
            except NeuromasError:
                seen["error"] += 1
                time.sleep(0.01)  # the other process has the better chance to go on
                continue
            number = hashes.setdefault(recording.manifest.content_sha256, 2)
            np.testing.assert_array_equal(latents, kept[number].latents())
            np.testing.assert_array_equal(labelled, kept[number].latents())
            np.testing.assert_array_equal(values, kept[number].values())
            seen[f"{name} {number}"] += 1
        listed = store.list()
        assert listed in ([], [entry_of(1)], [entry_of(2)]), listed
        assert store.verify() == []
        assert store.sets() in ([], ["k"])
    assert other.returncode == 0
    assert {"loaded 1", "loaded 2", "error"} <= set(seen), seen
    assert store.verify() == []


def entry_of(number: int) -> RecordingEntry:
    class Matches(RecordingEntry):
        def __eq__(self, entry):
            return (entry.name, entry.n_units, entry.problem) == ("k/r", 4 * number, "")

    return Matches("k", "r")


@pytest.mark.parametrize("successor", [None, 1, 2])
@pytest.mark.parametrize("name", READS)
def test_replaced_at_any_file_that_is_read(tmp_path, monkeypatch, name, successor):
    """Before each read of a file in turn, another process removes the recording, and puts another in its place."""
    made = {number: RecordingStore(tmp_path / f"version-{number}") for number in (1, 2)}
    for number, template in made.items():
        template.register(version(number), set="k")
    kept = {number: version(number).latents() for number in made}
    real, calls, at = LocalStore.get, 0, 0

    async def get(self, *arguments, **options):
        nonlocal calls
        calls += 1
        if calls == at:
            store.remove("k/r")
            if successor is not None:
                shutil.copytree(made[successor].path / "k", store.path / "k")
        return await real(self, *arguments, **options)

    monkeypatch.setattr(LocalStore, "get", get)
    ended: Counter[str] = Counter()
    while calls >= at:
        at, calls = at + 1, 0
        store = RecordingStore(shutil.copytree(made[1].path, tmp_path / f"store-{at}"))
        try:
            recording = READS[name](store)
            np.testing.assert_array_equal(recording.latents(), kept[recording.n_units // 4])
            ended[f"version {recording.n_units // 4}"] += 1
        except NeuromasError as error:
            if not isinstance(error, NotFound) and error.kind != "replaced":
                raise
            ended["error"] += 1
    assert at > 5
    ended["version 1"] -= 1  # the last time, nothing was replaced
    loaded = {None: {"error"}, 1: {"version 1"}, 2: {"version 2"}}[successor]
    # once a lazy recording is open, it is no longer exchanged for another
    assert set(+ended) == (loaded | {"error"} if name == "lazy" and successor == 2 else loaded)


@pytest.mark.parametrize("after", [lambda store: store.remove("k/r"), lambda store: replace(store, 2)])
def test_a_lazy_recording_that_is_gone_is_an_error_however_it_is_read(store, after):
    recording = store.get("k/r", load=False)
    views = (recording, recording.select_units([0]), recording.select_samples(np.arange(10)))
    after(store)
    for read in (
        *(view.latents for view in views),
        lambda: recording.to_dataset()["activity"].values,
        lambda: recording.coordinates_at(np.arange(3)),
        lambda: [*recording.blocks()],
        lambda: recording.to_dataframe(),
    ):
        with pytest.raises(Corrupt, match="removed or replaced") as caught:
            read()
        assert caught.value.kind == "replaced"


def test_a_lazy_recording_that_was_replaced_by_its_equal_is_read_on(store):
    recording = store.get("k/r", load=False)
    manifest = (store.path / "k/r/manifest.json").read_bytes()
    replace(store, 1)
    assert (store.path / "k/r/manifest.json").read_bytes() == manifest
    np.testing.assert_array_equal(recording.latents(), version(1).latents())


def test_a_lost_chunk_is_an_error_and_never_filled(store):
    recording = store.get("k/r", load=False)
    chunk = next((store.path / "k/r/activity/c").rglob("0"))
    while chunk.is_dir():
        chunk /= "0"
    chunk.unlink()
    for read in (recording.latents, lambda: recording.to_dataset()["activity"].values):
        with pytest.raises(Corrupt, match="activity/c/0/0 is missing"):
            read()


def test_verify_and_list_tell_no_damage_of_what_is_replaced_meanwhile(store, monkeypatch):
    """The recording is replaced once between its manifest and the files that it names."""
    real, left = verify._file_problem, 1

    def replacing(*arguments, **options):
        nonlocal left
        left -= 1
        if left == 0:
            replace(store, 2)
        return real(*arguments, **options)

    monkeypatch.setattr(verify, "_file_problem", replacing)
    assert store.verify() == []
    assert left < 0
    left = 1
    assert store.get("k/r").n_units == 8


if __name__ == "__main__":
    keep_replacing(sys.argv[1], int(sys.argv[2]))
