"""The recordings that ship: intact, attributed, and with missing told from zero."""

from __future__ import annotations

import numpy as np

from neuromas.recordings.store.locate import shipped_store


def test_shipped_recordings_are_intact_small_and_attributed():
    store = shipped_store()
    assert store.read_only
    assert store.verify() == []
    entries = store.list()
    assert "guo2017/mouse-thalamus" in [entry.name for entry in entries]
    assert sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()) < 12e6
    for entry in entries:
        manifest = store.get(entry.name, load=False).manifest
        assert manifest.licence
        assert manifest.description
        assert manifest.provenance.source


def test_mouse_thalamus():
    recording = shipped_store().get("guo2017/mouse-thalamus")
    assert recording.manifest.licence == "CC-BY-4.0"
    assert "10.1038/nature22324" in recording.manifest.citation
    assert recording.manifest.missing
    assert np.unique(recording.trial).size == 342
    assert recording.n_samples == 342 * 39
    # Trials outside each unit's first-to-last-spike span, counted from the spike times themselves.
    lost = [int((~recording.complete([unit])).sum()) / 39 for unit in recording.unit_names]
    assert lost == [287, 289, 114, 0]
    rates = recording.latents(["unit-4"])
    assert np.isfinite(rates).all()
    assert rates.min() == 0
    np.testing.assert_array_equal(rates % 10, 0)  # whole spikes in bins of 0.1 s
    epochs = recording.values(["epoch"])[:, 0].reshape(342, 39)
    np.testing.assert_array_equal(epochs, np.broadcast_to(np.repeat([0, 1, 2], 13), (342, 39)))
    assert recording.spec("type").meanings == ("lick left", "lick right")
