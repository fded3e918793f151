"""Recordings that come in blocks, and samples grouped by value on disk: every sample is planted with a number of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuromas import dims
from neuromas.errors import Conflict, Corrupt, InvalidInput, NotFound
from neuromas.recordings import spool as spooling
from neuromas.recordings.recording import Recording
from neuromas.recordings.spool import Spool
from neuromas.recordings.store.store import RecordingStore


def block(number: int, n_trials: int = 20, n_steps: int = 6, **changed) -> Recording:
    """Unit 0 numbers the samples of all blocks; the last is missing in some."""
    rng = np.random.default_rng(number)
    trials = number * n_trials + np.arange(n_trials)
    activity = rng.normal(size=(n_trials, n_steps, 3))
    activity[..., 0] = trials[:, None] * n_steps + np.arange(n_steps)
    activity[..., 2][rng.random((n_trials, n_steps)) < 0.1] = np.nan
    arguments = {
        "trial": trials,
        "name": "block",
        "missing": True,
        "eligible": rng.random((n_trials, n_steps)) < 0.85,
        "sample_metadata": {"note": rng.choice(["a", "bcd"] if number else ["a"], (n_trials, n_steps))},
        "unit_metadata": {"depth": [0.1, 0.2, 0.3]},
        "variable_specs": [{"name": "phase", "type": "categorical", "values": [7, 3], "meanings": ["demo", "resp"]}],
    }
    variables = {
        "phase": rng.choice(["demo", "resp"], (n_trials, n_steps), p=[0.9, 0.1]),
        "count": rng.integers(0, 3 + 200 * number, (n_trials, n_steps)) % 4,
        "load": rng.choice(np.array([0.1, 0.7]), (n_trials, n_steps)),
    }
    return Recording.from_arrays(activity, variables, **(arguments | changed))


def blocks(n: int = 4):
    return (block(number) for number in range(n))


def by_number(recording: Recording) -> xr.Dataset:
    """Samples in the order of their numbers, so that two stored orders can be compared."""
    return recording.dataset.isel({dims.SAMPLE: np.argsort(recording.activity.values[:, 0], kind="stable")})


def joined() -> Recording:
    whole = xr.concat([one.dataset for one in blocks()], dims.SAMPLE)
    return Recording.from_dataset(whole, block(0).manifest)


@pytest.fixture
def store(tmp_path) -> RecordingStore:
    return RecordingStore(tmp_path / "store")


@pytest.mark.parametrize(
    "in_memory", [spooling.IN_MEMORY, 3000]
)  # the latter: groups are dealt out before they are shuffled
@pytest.mark.parametrize("group_by", [["phase", "count"], ["count"], ["load", "phase"]])
def test_samples_with_equal_values_lie_together_and_none_is_lost(store, monkeypatch, in_memory, group_by):
    monkeypatch.setattr(spooling, "IN_MEMORY", in_memory)
    assert store.register_blocks(blocks(), set="s", name="x", group_by=group_by) == "s/x"
    assert store.verify() == []
    stored, source = store.get("s/x"), joined()
    xr.testing.assert_equal(by_number(stored).drop_vars(dims.UNIT), by_number(source).drop_vars(dims.UNIT))
    assert stored.manifest.grouped_by == tuple(group_by)
    table = stored.groups
    assert table is not None
    values = stored.values(group_by)
    usable = stored.eligible & stored.complete()
    at = 0
    for row, start, count in zip(table.values, table.starts, table.counts, strict=True):
        assert start == at
        at += count
        assert (values[start:at] == np.asarray(row)).all()
        assert count == (source.eligible & source.complete() & (source.values(group_by) == row).all(axis=1)).sum()
        number = stored.activity.values[start:at, 0]
        assert count < 8 or not (np.diff(number) > 0).all()  # shuffled
    assert list(table.values) == sorted(table.values)
    assert usable[:at].all()
    assert not usable[at:].any()
    assert table.n_ineligible == (~source.eligible).sum()
    assert at + table.n_ineligible + table.n_incomplete == source.n_samples


def test_a_block_without_a_usable_sample_lies_behind_the_groups(store):
    none = block(1, eligible=np.zeros((20, 6), dtype=bool))
    store.register_blocks(iter([block(0), none]), set="s", name="x", group_by=["count"])
    stored = store.get("s/x")
    assert stored.groups is not None
    assert stored.groups.n_ineligible == 120 + (~block(0).eligible).sum()
    assert set(stored.activity.values[-120:, 0]) <= {*none.activity.values[:, 0], *block(0).activity.values[:, 0]}
    assert not stored.eligible[-stored.groups.n_ineligible :].any()
    assert sum(stored.groups.counts) == (block(0).eligible & block(0).complete()).sum()


def test_a_damaged_recording_is_not_grouped(store):
    store.register(joined(), set="s")
    chunk = max((store.path / "s" / "block" / "activity").rglob("c/**/*"), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 255
    chunk.write_bytes(bytes(data))
    with pytest.raises(Corrupt):
        store.register(store.get("s/block", load=False), set="t", group_by=["count"])
    assert [entry.name for entry in store.list()] == ["s/block"]


def test_a_whole_recording_is_grouped_the_same_way(store, monkeypatch):
    source = joined()
    monkeypatch.setattr(spooling, "IN_MEMORY", 3000)
    store.register(source, set="s", group_by=["phase", "count"])
    stored = store.get("s/block")
    xr.testing.assert_equal(by_number(stored).drop_vars(dims.UNIT), by_number(source).drop_vars(dims.UNIT))
    assert stored.groups is not None
    store.register(source, set="s", group_by=["phase", "count"])  # again: nothing to do
    with pytest.raises(Conflict, match="other content"):
        store.register(source, set="s", group_by=["count"])
    assert store.get("s/block").groups == stored.groups


def test_without_grouping_blocks_make_the_recording_that_they_are_parts_of(store):
    store.register_blocks(blocks(), set="s", name="block")
    store.register(joined(), set="t")
    one, other = store.get("s/block"), store.get("t/block")
    assert one.groups is None
    assert one.manifest.content_sha256 == other.manifest.content_sha256
    xr.testing.assert_identical(one.dataset, other.dataset.assign_attrs(one.dataset.attrs))


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_group_too_large_for_memory_is_shuffled_whole(tmp_path_factory, n_samples, at_once, seed):
    folder = tmp_path_factory.mktemp("spool")
    made = Recording.from_arrays(np.arange(n_samples)[:, None].astype(float), {"v": np.zeros(n_samples)}, name="x")
    spool = Spool(folder, ("v",))
    spool.add(made)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spooling, "IN_MEMORY", at_once * spool._record().itemsize)
        found = np.concatenate([one["activity"][:, 0] for one in spool.blocks(np.random.default_rng(seed))])
    assert sorted(found) == list(range(n_samples))
    assert list(folder.iterdir()) == []


def test_every_place_is_as_likely_as_any_other(tmp_path, monkeypatch):
    n_samples, n_runs = 12, 1500
    made = Recording.from_arrays(np.arange(n_samples)[:, None].astype(float), {"v": np.zeros(n_samples)}, name="x")
    counts = np.zeros((n_samples, n_samples))
    for seed in range(n_runs):
        spool = Spool(tmp_path / str(seed), ("v",))
        spool.folder.mkdir()
        spool.add(made)
        monkeypatch.setattr(spooling, "IN_MEMORY", 4 * spool._record().itemsize)
        found = np.concatenate([one["activity"][:, 0] for one in spool.blocks(np.random.default_rng(seed))])
        counts[np.arange(n_samples), found.astype(int)] += 1
    # doubly stochastic: (n - 1)² degrees of freedom
    statistic = ((counts - n_runs / n_samples) ** 2 / (n_runs / n_samples)).sum() * (n_samples - 1) / n_samples
    assert stats.chi2((n_samples - 1) ** 2).sf(statistic) > 1e-3


def test_blocks_that_do_not_fit_together_publish_nothing(store):
    def refused(*given: Recording, match: str, **options) -> None:
        with pytest.raises((InvalidInput, NotFound), match=match):
            store.register_blocks(iter(given), set="s", name="x", **options)
        assert store.list() == []
        assert not list((store.path / ".neuromas" / "building").glob("*/*"))

    refused(match="expected at least one block")
    refused(block(0), block(0), match=r"trials '0', '1', .* are also in an earlier block")
    refused(
        block(0), block(1).select_units(["u0"]), match="from sample 120 on: it differs from the first block in units"
    )
    refused(block(0), block(1, variable_specs=[]), match="in variables")
    refused(block(0), block(1, sample_metadata={}), match="in coordinates")
    other = {"sample_metadata": {"note": np.zeros((20, 6))}}
    refused(block(0), block(1, **other), match="in kind of number in 'note'")
    refused(block(0), block(1, unit_metadata={"depth": [0.1, 0.2, 0.4]}), match="in metadata of units")
    tokens = [block(one, token=np.full((20, 6), text)) for one, text in ((0, "a"), (1, "b"))]
    refused(*tokens, match="in 'vocabulary'")
    refused(block(0), match="no variable 'side'", group_by=["side"])
    many = Recording.from_arrays(np.zeros((10_001, 1)), {"v": np.arange(10_001)}, name="x")
    refused(many, match="more than 10,000 combinations", group_by=["v"])


def test_a_generator_that_fails_is_not_the_stores_fault(store):
    def broken():
        yield block(0)
        raise FileNotFoundError("no such tape")

    with pytest.raises(InvalidInput, match="a block could not be made: no such tape"):
        store.register_blocks(broken(), set="s", name="x")


def test_any_name_and_width_of_text_will_do(store):
    """A coordinate called like a folder, and text in wider fields than it needs over more samples than are hashed at once."""
    n_samples = 70_000
    made = Recording.from_arrays(
        np.zeros((n_samples, 1)),
        {"v": np.zeros(n_samples)},
        name="x",
        sample_metadata={"done": np.full(n_samples, "a", dtype="U40"), "spool": np.arange(n_samples)},
    )
    store.register(made, set="s", group_by=["v"])
    store.register(made, set="t")
    assert store.verify() == []
    assert (store.get("s/x").dataset["done"] == "a").all()


def test_a_grouped_recording_that_is_looked_at_otherwise_is_no_longer_grouped(store):
    store.register_blocks(blocks(), set="s", name="x", group_by=["count"])
    other = store.get("s/x", load=False).relabel({"n": "count"})
    assert other.manifest.grouped_by == ()
    store.register(store.get("s/x"), set="t")
    assert store.get("t/x").manifest.grouped_by == ()
    assert store.get("t/x").groups is None


def test_an_interrupted_registration_leaves_nothing(store):
    def broken():
        yield block(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.register_blocks(broken(), set="s", name="x", group_by=["count"])
    assert store.list() == []
    assert not list((store.path / ".neuromas" / "building").glob("*/*"))


def test_a_table_of_groups_that_was_changed_is_refused(store):
    store.register_blocks(blocks(), set="s", name="x", group_by=["count"])
    file = store.path / "s" / "x" / "groups.json"
    text = file.read_text()
    file.write_text(text.replace('"counts"', '"Counts"'))
    with pytest.raises(Corrupt, match=r"groups\.json"):
        store.get("s/x", load=False)
    file.unlink()
    with pytest.raises(Corrupt, match=r"groups\.json is missing"):
        store.get("s/x", load=False)


def test_a_table_of_groups_of_another_format_version_is_refused_by_name(store):
    store.register_blocks(blocks(), set="s", name="x", group_by=["count"])
    folder = store.path / "s" / "x"
    document = json.loads((folder / "groups.json").read_text()) | {"format_version": 3}
    rewritten = json.dumps(document).encode()
    (folder / "groups.json").write_bytes(rewritten)
    _sign_anew(store, "groups.json", rewritten)
    with pytest.raises(InvalidInput, match=r"groups\.json was written by a newer neuromas \(format version 3"):
        store.get("s/x", load=False)


def _sign_anew(store: RecordingStore, name: str, data: bytes) -> None:
    """As a later version would have written it: named in manifest and set with its hash."""
    import hashlib

    manifest_file, set_file = store.path / "s" / "x" / "manifest.json", store.path / "s" / "set.json"
    manifest = json.loads(manifest_file.read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest_file.write_text(json.dumps(manifest))
    index = json.loads(set_file.read_text())
    index["recordings"]["x"]["manifest_sha256"] = hashlib.sha256(manifest_file.read_bytes()).hexdigest()
    set_file.write_text(json.dumps(index))
