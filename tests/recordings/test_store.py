"""The store: what is published stays as it is, and damage is seen."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuromas.errors import Conflict, Corrupt, InvalidInput, NotFound, ReadOnly, StorageFailed
from neuromas.recordings.content import content_sha256
from neuromas.recordings.recording import Recording
from neuromas.recordings.store import commit, index
from neuromas.recordings.store.locate import resolve_store, shipped_store
from neuromas.recordings.store.store import RecordingStore

ARCHIVE = Path(__file__).with_name("archive")


def files(path: Path) -> dict[str, bytes]:
    """Everything under `path` but what is private to the store."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and ".neuromas" not in file.relative_to(path).parts
    }


def private_files(path: Path) -> list[Path]:
    """What registrations left behind, locks aside."""
    return [
        file
        for folder in ("building", "discarded", "pending")
        for file in (path / ".neuromas" / folder).rglob("*")
        if file.is_file()
    ]


@pytest.fixture
def store(tmp_path, planted) -> RecordingStore:
    """A store that holds set/first and set/second."""
    store = RecordingStore(tmp_path / "store")
    store.register([planted("first", 1), planted("second", 2)], set="set")
    return store


# ----------------------------------------------------------------------------------------------------------- round trip


def test_what_goes_in_comes_out(store, planted):
    recording = store.get("set/first")
    before = planted("first", 1)
    xr.testing.assert_identical(recording.dataset.drop_attrs(deep=False), before.dataset.drop_attrs(deep=False))
    kept = {"set", "files", "content_sha256"}
    assert recording.manifest.model_dump(exclude=kept) == before.manifest.model_dump(exclude=kept)
    assert recording.name == "set/first"
    Recording(recording.dataset, recording.manifest)  # valid as it stands
    assert store.verify() == []
    assert [(entry.name, entry.n_samples, entry.n_units, entry.access) for entry in store.list()] == [
        ("set/first", before.n_samples, 5, "read"),
        ("set/second", planted("second", 2).n_samples, 5, "read"),
    ]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.integers(1, 40),
    st.integers(1, 4),
    st.booleans(),
)
def test_any_recording_survives_storage(tmp_path, data, dtype, n_samples, n_units, missing):
    finite = st.floats(allow_nan=missing, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)
    activity = data.draw(hnp.arrays(dtype, (n_samples, n_units), elements=finite))
    count = data.draw(hnp.arrays(np.int64, n_samples, elements=st.integers(-(2**53), 2**53)))
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    side = np.array(data.draw(st.lists(text, min_size=n_samples, max_size=n_samples)))
    recording = Recording.from_arrays(activity, {"count": count, "side": side}, name="any", missing=missing)
    store = RecordingStore(tmp_path)
    store.register(recording, set="set")
    for load in (True, False):
        back = store.get("set/any", load=load)
        xr.testing.assert_identical(back.dataset.drop_attrs(deep=False), recording.dataset.drop_attrs(deep=False))
        assert back.latents(dtype=dtype).tobytes() == activity.tobytes()  # NaN's bits and the sign of 0 included
        assert back.spec("side").meanings == recording.spec("side").meanings
    store.remove("set")


def test_several_shards_and_lazy_reading(tmp_path):
    rng = np.random.default_rng(0)
    activity = rng.normal(size=(3001, 300)).astype(np.float32)
    recording = Recording.from_arrays(activity, {"count": np.arange(3001)}, name="wide")
    store = RecordingStore(tmp_path)
    store.register(recording, set="set")
    shards = [file for file in files(tmp_path) if "/activity/c/" in file]
    assert len(shards) > 1
    assert max(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2 * 2**20
    lazy = store.get("set/wide", load=False)
    assert not lazy.dataset["activity"].variable._in_memory
    np.testing.assert_array_equal(lazy.latents(["u7", "u3"], np.array([2999, 5])), activity[[2999, 5]][:, [7, 3]])
    assert not lazy.dataset["activity"].variable._in_memory
    assert content_sha256(lazy) == content_sha256(recording)
    (tmp_path / shards[-1]).unlink()
    with pytest.raises(Corrupt, match=r"activity/c/\d+/0 is missing"):
        lazy.latents()


def test_every_chunk_ends_in_a_checksum(store):
    arrays = [json.loads(file.read_bytes()) for file in (store.path / "set" / "first").glob("*/zarr.json")]
    assert len(arrays) >= 10
    for array in arrays:
        codecs = array["codecs"]
        inner = codecs[0]["configuration"]["codecs"] if codecs[0]["name"] == "sharding_indexed" else codecs
        assert inner[-1]["name"] == "crc32c"


def test_xarray_opens_it_without_neuromas(store):
    script = """
import sys
sys.modules["neuromas"] = None
import numpy as np, xarray as xr
dataset = xr.open_zarr(sys.argv[1]).load()
assert dataset.activity.dims == ("sample", "unit")
meanings = dataset.side.attrs["flag_meanings"].split()
print(meanings, dataset.side.attrs["flag_values"], dataset.unit.values.tolist(), dataset.cell_type.values.tolist())
print(float(np.nansum(dataset.activity.values.astype(float))), dataset.attrs["license"])
"""
    path = store.path / "set" / "first"
    command = [sys.executable, "-W", "error", "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("['lick_left', 'lick_right'] [0, 1] ['u0', 'u1', 'u2', 'u3', 'u4'] ['type 0', 'type 1',")
    assert float(second.split()[0]) == pytest.approx(np.nansum(store.get("set/first").latents(dtype=float)))
    assert second.endswith("CC0-1.0")


# --------------------------------------------------------------------------------- one identity, one content, one moment


def test_identical_content_is_passed_over(store, planted):
    before = files(store.path)
    assert store.register([planted("first", 1), planted("second", 2)], set="set") == ["set/first", "set/second"]
    assert store.register(store.get("set/first"), set="set") == ["set/first"]
    assert files(store.path) == before


def test_content_has_one_hash_however_it_is_laid_out(planted):
    recording = planted()
    order = list(recording.dataset.coords)[::-1]
    shuffled = xr.Dataset(
        {"activity": recording.activity.variable}, coords={name: recording.dataset[name].variable for name in order}
    )
    assert content_sha256(Recording(shuffled, recording.manifest)) == content_sha256(recording)
    assert content_sha256(planted(seed=1)) != content_sha256(recording)
    other = recording.manifest.model_copy(update={"task": "other"})
    assert content_sha256(Recording(recording.dataset, other)) != content_sha256(recording)


def test_a_published_recording_does_not_change(store, planted):
    before = files(store.path)
    with pytest.raises(Conflict, match="set/first exists with other content") as caught:
        store.register([planted("third", 3), planted("first", 9)], set="set")
    assert caught.value.kind == "other_content"
    assert files(store.path) == before  # the third one was not published either
    assert private_files(store.path) == []


def test_a_set_can_grow(store, planted):
    before = files(store.path)
    store.register(planted("third", 3), set="set")
    after = files(store.path)
    assert [entry.recording for entry in store.list()] == ["first", "second", "third"]
    del before["set/set.json"]
    assert before.items() <= after.items()


def test_leftovers_are_cleared_and_only_those(store, planted):
    half = store.path / ".neuromas" / "building" / "set" / "half"
    half.mkdir(parents=True)
    (half / "zarr.json").write_text("{}")
    shutil.copytree(store.path / "set" / "first", store.path / "set" / "third")  # renamed into place, never named
    mine = store.path / "set" / "my notes"
    mine.mkdir()
    (mine / "a.txt").write_text("keep me")
    (store.path / "set" / "fourth").mkdir()
    assert [entry.recording for entry in store.list()] == ["first", "second"]
    store.register([planted("third", 3), planted("fourth", 4)], set="set")
    np.testing.assert_array_equal(store.get("set/third").latents(), planted("third", 3).latents())
    assert store.verify() == []
    assert not half.exists()
    assert (mine / "a.txt").read_text() == "keep me"


def test_a_folder_of_ones_own_is_not_overwritten(store, planted):
    mine = store.path / "set" / "third"
    mine.mkdir()
    (mine / "a.txt").write_text("keep me")
    with pytest.raises(StorageFailed, match="is in the way, and is no recording; nothing was published"):
        store.register([planted("fourth", 4), planted("third", 3)], set="set")
    assert (mine / "a.txt").read_text() == "keep me"
    assert [entry.recording for entry in store.list()] == ["first", "second"]
    assert private_files(store.path) == []


def _register(path: str, seed: int, start, paused, resume, outcome) -> None:
    """Register held/toy with content of its own; where told so, stop in the middle."""
    try:
        rng = np.random.default_rng(seed)
        recording = Recording.from_arrays(rng.normal(size=(50, 2)), {"count": np.arange(50)}, name="toy")
        store = RecordingStore(path)
        if paused is not None:
            publish = commit.publish

            def pausing(*arguments):
                paused.set()
                resume.wait(30)
                publish(*arguments)

            commit.publish = pausing
        start.wait(30)
        store.register(recording, set="held")
        outcome.put((seed, "won"))
    except Conflict as error:
        outcome.put((seed, error.kind))


def test_of_two_processes_one_wins(tmp_path):
    # fork, since a spawned process would have to import all this again; nothing in the parent holds a lock here
    context = multiprocessing.get_context("fork")
    start, paused, resume, outcome = context.Event(), context.Event(), context.Event(), context.Queue()
    first = context.Process(target=_register, args=(str(tmp_path), 1, start, paused, resume, outcome))
    second = context.Process(target=_register, args=(str(tmp_path), 2, start, None, resume, outcome))
    first.start()
    start.set()
    assert paused.wait(30)
    second.start()
    assert outcome.get(timeout=30) == (2, "being_registered")
    resume.set()
    assert outcome.get(timeout=30) == (1, "won")
    first.join(30)
    second.join(30)
    assert RecordingStore(tmp_path).verify() == []


def test_racing_processes_publish_one(tmp_path):
    context = multiprocessing.get_context("fork")
    start, outcome = context.Event(), context.Queue()
    racers = [
        context.Process(target=_register, args=(str(tmp_path), seed, start, None, None, outcome)) for seed in range(4)
    ]
    for racer in racers:
        racer.start()
    start.set()
    outcomes = dict(outcome.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join(30)
    winners = [seed for seed, result in outcomes.items() if result == "won"]
    assert len(winners) == 1
    assert set(outcomes.values()) <= {"won", "being_registered", "other_content"}
    expected = np.random.default_rng(winners[0]).normal(size=(50, 2))
    np.testing.assert_array_equal(RecordingStore(tmp_path).get("held/toy").latents(dtype=float), expected)


# ---------------------------------------------------------------------------------------------------------------- damage


def test_every_flipped_bit_is_found(store):
    rng = np.random.default_rng(0)
    for relative in files(store.path):
        if "/second/" in relative or relative.endswith("set.json"):
            continue
        path = store.path / relative
        before = path.read_bytes()
        at = int(rng.integers(len(before)))
        path.write_bytes(before[:at] + bytes([before[at] ^ 1 << int(rng.integers(8))]) + before[at + 1 :])
        assert [problem.file for problem in store.verify()] == [relative]
        assert [problem.file for problem in store.verify("set/first")] == [relative]
        with pytest.raises(Corrupt, match=relative.removeprefix("set/first/")):
            store.get("set/first")
        store.get("set/second")
        path.write_bytes(before)
    assert store.verify() == []


@pytest.mark.parametrize("file", ["activity/c/0/0", "count/c/0", "zarr.json", "cell_type/c/0", "manifest.json"])
@pytest.mark.parametrize("damage", ["deleted", "truncated", "emptied", "extended"])
def test_files_that_went_or_shrank(store, file, damage):
    path = store.path / "set" / "first" / file
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-1], "emptied": b"", "extended": content + b"\0"}[damage])
    for load in (True, False):
        with pytest.raises(Corrupt, match=file):
            store.get("set/first", load=load)
    assert [problem.file for problem in store.verify()] == [f"set/first/{file}"]
    assert store.verify("set/second") == []
    listed = {entry.name: entry.problem for entry in store.list()}
    assert list(listed) == ["set/first", "set/second"]
    assert bool(listed["set/first"]) == (file == "manifest.json")


def test_a_file_from_elsewhere_is_told(store):
    (store.path / "set" / "first" / "activity" / "c" / "9").write_bytes(b"?")
    assert [str(problem) for problem in store.verify()] == [
        "set/first: set/first/activity/c/9: was not written by neuromas"
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "set", "recordings": {"../up": {}}}'])
def test_a_damaged_set_file_hides_nothing_else(store, planted, content):
    store.register(planted("other"), set="intact")
    (store.path / "set" / "set.json").write_bytes(content)
    entries = store.list()
    assert [(entry.name, bool(entry.problem)) for entry in entries] == [("intact/other", False), ("set/?", True)]
    with pytest.raises(Corrupt, match=r"set\.json is damaged"):
        store.get("set/first")
    assert [problem.file for problem in store.verify()] == ["set/set.json"]
    store.get("intact/other")
    before = files(store.path)
    with pytest.raises(Corrupt, match=r"set\.json is damaged"):
        store.register(planted("third"), set="set")
    assert files(store.path) == before


def test_a_set_file_that_names_what_is_not_there_costs_no_recording(store, planted):
    path = store.path / "set" / "set.json"
    path.write_bytes(path.read_bytes().replace(b'"first"', b'"girst"'))  # one bit
    store.register(planted("third"), set="set")
    assert (store.path / "set" / "first" / "manifest.json").is_file()
    assert any("girst" in problem.file for problem in store.verify())


def test_a_set_file_that_went_costs_no_recording(store, planted):
    (store.path / "set" / "set.json").unlink()
    before = files(store.path)
    told = (
        r"set\.json is gone, though recordings lie beside it: first, second; put it back from a copy, or remove 'set'"
    )
    for names in (["third"], ["first"]):
        with pytest.raises(Corrupt, match=told):
            store.register([planted(name, 1) for name in names], set="set")
    with pytest.raises(Corrupt, match=told):
        store.get("set/first")
    assert files(store.path) == before
    assert private_files(store.path) == []
    assert store.sets() == ["set"]
    assert [(entry.name, entry.problem != "") for entry in store.list()] == [("set/?", True)]
    assert [problem.file for problem in store.verify()] == ["set/set.json"]
    assert [problem.file for problem in store.verify("set")] == ["set/set.json"]
    store.register(planted("third"), set="other")  # which clears the litter of every set
    assert files(store.path).items() >= before.items()


def test_an_old_set_file_costs_no_recording(store, planted):
    old = (store.path / "set" / "set.json").read_bytes()
    store.register(planted("third", 3), set="set")
    (store.path / "set" / "set.json").write_bytes(old)  # put back from a copy
    store.register(planted("fourth", 4), set="set")
    assert (store.path / "set" / "third" / "manifest.json").is_file()


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_set_without_a_readable_set_file_can_be_removed(store, planted, content):
    (store.path / "set" / "set.json").unlink()
    if content is not None:
        (store.path / "set" / "set.json").write_bytes(content)
    (store.path / "set" / "notes.txt").write_text("keep me")
    with pytest.raises(Corrupt):
        store.remove("set/first")
    assert store.remove("set") == ["set/first", "set/second"]
    assert files(store.path) == {"set/notes.txt": b"keep me"}
    assert private_files(store.path) == []
    store.register(planted("first", 9), set="set")
    assert store.verify() == []


@pytest.mark.parametrize("name", ["set", "set/first"])
def test_a_removal_that_was_killed_is_ended_by_the_next_call(store, planted, monkeypatch, name):
    with monkeypatch.context() as patched:
        patched.setattr(commit, "discard", lambda *_: os._exit(9))
        child = os.fork()
        if child == 0:
            store.remove(name)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (store.path / "set" / "first").is_dir()
    left = [] if name == "set" else ["set/second"]
    assert [entry.name for entry in store.list()] == left
    assert store.verify() == []
    store.register(planted("third", 3), set="set")
    assert sorted(path.name for path in (store.path / "set").iterdir()) == sorted(
        ["set.json", "third", *(full.removeprefix("set/") for full in left)]
    )
    assert private_files(store.path) == []


# ------------------------------------------------------------------------------------------------------ a disk that refuses


def test_no_space_at_any_point(store, planted, monkeypatch):
    before = files(store.path)
    real, calls, fail_at = os.fsync, 0, 0

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):  # the second time counts: the first one also makes folders that stay
        calls = 0
        store.register(planted("third", 3), set="new")
        total = calls
        store.remove("new")
    for point in [*range(1, total - 1, 5), total - 2, total - 1]:
        calls, fail_at = 0, point
        with pytest.raises(StorageFailed, match="no space left on the disk; nothing was published"):
            store.register(planted("third", 3), set="new")
        assert files(store.path) == before
        assert private_files(store.path) == []
        assert not (store.path / "new").exists()
    calls, fail_at = 0, total
    with pytest.raises(StorageFailed, match="the disk did not confirm") as caught:
        store.register(planted("third", 3), set="new")
    assert caught.value.kind == "not_durable"
    assert store.verify("new/third") == []


def _with_small_files(path: str, outcome) -> None:
    """Register where the kernel refuses to write more than 8 kB to a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    recording = Recording.from_arrays(np.random.default_rng(0).normal(size=(4000, 4)), {"v": range(4000)}, name="big")
    try:
        RecordingStore(path).register(recording, set="new")
        outcome.put("registered")
    except StorageFailed as error:
        outcome.put(error.message)


def test_writes_that_the_kernel_refuses(store):
    before = files(store.path)
    context = multiprocessing.get_context("fork")
    outcome = context.Queue()
    process = context.Process(target=_with_small_files, args=(str(store.path), outcome))
    process.start()
    message = outcome.get(timeout=30)
    process.join(30)
    assert "cannot write" in message
    assert "nothing was published" in message
    assert files(store.path) == before
    assert private_files(store.path) == []


def test_a_place_that_cannot_hold_a_store(tmp_path, planted):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="nothing was published"):
        RecordingStore(tmp_path / "file" / "store").register(planted(), set="set")


# ------------------------------------------------------------------------------------------------------- names and places


def test_unknown_names_list_what_exists(store):
    with pytest.raises(NotFound, match=r"no recording set 'sett'.*recordings are set/first, set/second"):
        store.get("sett/first")
    with pytest.raises(NotFound, match="has no recording 'third'; it has first, second"):
        store.get("set/third")
    with pytest.raises(NotFound, match="no recording set 'sett'"):
        store.verify("sett")
    with pytest.raises(NotFound, match="no recording set 'sett'"):
        store.remove("sett")
    for name in ("first", "set/first/activity", "../set/first", "set/", ""):
        with pytest.raises(InvalidInput, match="expected SET/RECORDING"):
            store.get(name)


@pytest.mark.parametrize("name", ["x\n", "", ".hidden", "a/b", "..", "with space", "a" * 101])
def test_set_names_that_cannot_be_used(store, planted, name):
    with pytest.raises(InvalidInput, match="set name"):
        store.register(planted(), set=name)


def test_recordings_that_cannot_be_registered_together(store, planted):
    with pytest.raises(InvalidInput, match="two recordings of one call have the same name: toy"):
        store.register([planted(), planted(seed=1)], set="new")
    with pytest.raises(InvalidInput, match=r"not 'set\.json'"):
        store.register(planted("set.json"), set="new")
    with pytest.raises(InvalidInput, match="expected at least one recording to register"):
        store.register([], set="new")


def test_a_folder_of_something_else_is_no_store(tmp_path, planted):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(InvalidInput, match="is not a recording store") as caught:
        RecordingStore(tmp_path)
    assert caught.value.kind == "not_a_store"
    with pytest.raises(InvalidInput, match="is not a recording store"):
        RecordingStore(tmp_path / "thesis.txt")
    (tmp_path / "thesis.txt").rename(tmp_path / "analysis.py")
    with pytest.raises(InvalidInput, match="is not a recording store"):
        RecordingStore(tmp_path)
    (tmp_path / "analysis.py").rename(tmp_path / "README.md")
    RecordingStore(tmp_path).register(planted(), set="set")


def test_removing(store):
    assert store.remove("set/first") == ["set/first"]
    assert [entry.name for entry in store.list()] == ["set/second"]
    assert not (store.path / "set" / "first").exists()
    assert store.verify() == []
    assert store.remove("set") == ["set/second"]
    assert not (store.path / "set").exists()
    assert store.list() == []
    RecordingStore(store.path)  # still a store


def test_a_read_only_store_is_not_changed(store, planted):
    before = {file: file.stat().st_mtime_ns for file in store.path.rglob("*")}
    guarded = RecordingStore(store.path, read_only=True)
    with pytest.raises(ReadOnly, match="is read-only"):
        guarded.register(planted(), set="new")
    with pytest.raises(ReadOnly, match="is read-only"):
        guarded.remove("set")
    guarded.get("set/first")
    guarded.verify()
    assert {file: file.stat().st_mtime_ns for file in store.path.rglob("*")} == before


def test_which_store_is_used(store, tmp_path, monkeypatch, planted):
    monkeypatch.delenv("NEUROMAS_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_store().path == shipped_store().path
    assert resolve_store().read_only
    (tmp_path / "recordings").mkdir()
    assert resolve_store().path == shipped_store().path  # an empty folder is no store yet
    RecordingStore("recordings").register(planted(), set="local")
    assert resolve_store().sets() == ["local"]
    monkeypatch.setenv("NEUROMAS_STORE", str(store.path))
    assert resolve_store().sets() == ["set"]
    assert resolve_store("recordings").sets() == ["local"]
    assert not resolve_store("recordings").read_only
    monkeypatch.delenv("NEUROMAS_STORE")
    monkeypatch.chdir(shipped_store().path.parent)
    assert resolve_store().read_only  # a checkout's own, unless it is named


# -------------------------------------------------------------------------------------------------------- stored for good


def test_format_version_1_keeps_opening():
    store = RecordingStore(ARCHIVE / "format-1")
    assert store.verify() == []
    recording = store.get("archived/toy")
    assert recording.manifest.format_version == 1
    assert recording.n_samples == 10
    sample = np.arange(10)
    expected = (sample[:, None] * 4 + np.arange(3)).astype(np.float32) / 8
    expected[:3, 1] = np.nan
    np.testing.assert_array_equal(recording.latents(), expected)
    assert recording.trial.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert recording.step.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2]
    assert [recording.spec("side").label(code) for code in recording.values(["side"])[[0, 3, 7], 0]] == [
        "lick left", "lick right", "lick left",
    ]  # fmt: skip
    assert recording.values(["count"])[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2]
    assert recording.values(["load"])[[0, 3, 7], 0].tolist() == [0.25, 0.5, 0.75]
    assert recording.eligible.tolist() == [True] * 9 + [False]
    assert [recording.manifest.vocabulary[code] for code in recording.dataset["token"].values[:3]] == ["BOS", "D", "D"]
    assert recording.unit_names == ["a", "b", "ç"]
    assert recording.dataset["cell_type"].values.tolist() == ["narrow width", "wide", "wide"]
    assert recording.dataset["session"].values[[0, 9]].tolist() == ["monday", "tuesday"]
    assert content_sha256(recording) == recording.manifest.content_sha256


def test_a_later_format_is_told_apart_from_damage(store):
    path = store.path / "set" / "set.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 3'))
    with pytest.raises(InvalidInput, match="written by a newer neuromas") as caught:
        store.get("set/first")
    assert caught.value.kind == "newer_format"


# ----------------------------------------------------------------------------------------------------------- how it looks


def test_a_store_prints_its_sets_and_few_names(store, planted, monkeypatch):
    monkeypatch.setattr(index, "read_published", lambda *_: pytest.fail("a manifest was read"))
    assert repr(store) == f"<RecordingStore {str(store.path)!r}: 2 recordings in 1 set>\n  set: first, second"
    store.register([planted(f"more-{number}", 2, n_trials=1) for number in range(5)], set="set")
    assert repr(store).splitlines()[1] == "  set: first, more-0, more-1, more-2 and 3 more"
    (store.path / "set" / "set.json").write_bytes(b"{")
    assert repr(RecordingStore(store.path, read_only=True)).splitlines() == [
        f"<RecordingStore {str(store.path)!r}: 0 recordings in 1 set, read-only>",
        "  set: cannot be read",
    ]


def test_a_store_in_a_notebook_is_a_table(store):
    page = store._repr_html_()
    n_samples = store.get("set/first").n_samples
    assert "2 recordings in 1 set</strong>" in page
    assert ["set/first", f"{n_samples} × 5", "read", "side, count, load"] in [
        re.findall("<td[^>]*>([^<]*)</td>", row) for row in page.split("<tr>")
    ]
    assert page.count("<tr>") == 3


def test_hostile_text_in_a_notebook_stays_text(tmp_path, planted):
    hostile = RecordingStore(tmp_path / "<img src=x onerror=alert(1)>")
    hostile.register(planted("first"), set="set")
    assert "<img" not in hostile._repr_html_()
    assert "&lt;img src=x onerror=alert(1)&gt;" in hostile._repr_html_()
    (hostile.path / "set" / "set.json").write_text('{"<script>": 1}')
    page = hostile._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "0 recordings in 1 set" in page


def test_a_set_of_a_newer_version_is_listed_beside_the_others(store, planted):
    store.register(planted("other"), set="intact")
    path = store.path / "set" / "set.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 3'))
    listed = {entry.name: entry.problem for entry in store.list()}
    assert listed["intact/other"] == ""
    assert "written by a newer neuromas" in listed["set/?"]


def test_errors_for_unknown_names_end_with_the_nearest(store, planted):
    for name, error, nearest in (
        ("sett/first", NotFound, "set"),
        ("set/frist", NotFound, "first"),
        ("first", InvalidInput, "set/first"),
    ):
        with pytest.raises(error, match=f"; did you mean '{nearest}'\\?$"):
            store.get(name)
    for verb in (store.verify, store.remove):
        with pytest.raises(NotFound, match=r"; did you mean 'set'\?$"):
            verb("sett")
    with pytest.raises(NotFound) as caught:
        store.get("set/xyz")
    assert "did you mean" not in caught.value.message


def test_errors_for_unknown_names_do_not_list_hundreds(store, planted):
    tiny = [Recording.from_arrays([[0.0]], {"v": [0]}, name=f"m{number:02}") for number in range(25)]
    store.register(tiny, set="many")
    with pytest.raises(NotFound, match=r"it has m00, .*, m19 and 5 more; did you mean 'm24'\?$"):
        store.get("many/m24x")


def test_a_store_that_was_made_already_is_used_as_it_is(store):
    guarded = RecordingStore(store.path, read_only=True)
    assert resolve_store(guarded) is guarded


def test_format_version_2_keeps_opening():
    """A recording that names what the system itself did."""
    store = RecordingStore(ARCHIVE / "format-2")
    assert store.verify() == []
    recording = store.get("archived/net")
    assert (recording.manifest.format_version, recording.manifest.behaviour) == (2, "output")
    shown, answered = (recording.to_dataset()[name].values.tolist() for name in ("token", "output"))
    assert shown == ["B", "D", "D", "E"] * 2
    assert answered == ["D", "D", "R", "E", "D", "R", "R", "R"]
    assert content_sha256(recording) == recording.manifest.content_sha256
