"""Real recordings whose answers are known, by way of our own recordings, pseudo-populations and index; scikit-learn decodes.

The data lie in the folder that NEUROMAS_TEST_DATA names. They do not come along: one has no licence, the other's is the GPL.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuromas.index.index import CLIndex
from neuromas.recordings.annotate import select
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.pseudo import parts_of, pool
from neuromas.recordings.recording import Recording
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.store.store import RecordingStore

NAMED_FOLDER = os.environ.get("NEUROMAS_TEST_DATA", "")
CHICKS, MACAQUE = (Path(NAMED_FOLDER) / name for name in ("chick_number_neurons", "zhang_desimone_it"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not NAMED_FOLDER,
        reason="NEUROMAS_TEST_DATA names no folder that holds chick_number_neurons and zhang_desimone_it",
    ),
]


def decoded(
    recording: Recording, variable: str, where: str = "", test_where: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """(values, values found) of test trials by nearest centroid of training and validation trials; means over steps."""
    parts = parts_of(recording)
    trials: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, condition in (("train", where), ("validation", where), ("test", test_where)):
        index = CLIndex(recording, [variable], split=parts[name])
        samples = index.samples.numpy()
        kept = np.ones(len(samples), dtype=bool)
        if condition:
            among = select(recording, condition).dataset["sample_number"].values
            kept = np.isin(samples, among)
        trial, row = np.unique(recording.trial[samples[kept]], return_inverse=True)
        sums = np.zeros((len(trial), index.n_units))
        np.add.at(sums, row, index.latents.numpy()[kept])
        value = np.zeros(len(trial))
        value[row] = recording.values([variable])[samples[kept], 0]
        trials[name] = sums / np.bincount(row)[:, None], value
    x, y = (np.concatenate([trials["train"][i], trials["validation"][i]]) for i in (0, 1))
    moving = x.std(axis=0) > 0
    decoder = make_pipeline(StandardScaler(), NearestCentroid()).fit(x[:, moving], y)
    return trials["test"][1], decoder.predict(trials["test"][0][:, moving])


def numbered(recording: Recording) -> Recording:
    """With the number of each sample as a coordinate, by which a selection is found again."""
    dataset = recording.dataset.assign_coords(sample_number=("sample", np.arange(recording.n_samples)))
    return Recording(dataset, recording.manifest)


@pytest.fixture(scope="module")
def macaque() -> list[Recording]:
    recipe = {
        "activity": "counts",
        "axes": ["trial", "step", "unit"],
        "start_s": -0.5,
        "step_s": 0.05,
        "variables": {"object": "object", "position": "position"},
    }
    sessions = [convert(path, recipe) for path in sorted(MACAQUE.glob("*.npz"))]
    return [select(session, "time > 0.1 and time < 0.5") for session in sessions]


def test_objects_in_inferior_temporal_cortex(macaque):
    found = {"object": [], "position": [], "across": [], "shuffled": []}
    for seed in range(3):
        pooled = numbered(pool(macaque, ["object", "position"], name="it", seed=seed))
        assert pooled.n_units == 132
        for variable in ("object", "position"):
            value, told = decoded(pooled, variable)
            found[variable].append((value == told).mean())
        value, told = decoded(pooled, "object", "position != 'upper'", "position == 'upper'")
        found["across"].append((value == told).mean())
        value, told = decoded(shuffled(pooled, ["object"], seed=seed), "object")
        found["shuffled"].append((value == told).mean())
    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert means["object"] == pytest.approx(0.95, abs=0.04)
    assert means["position"] == pytest.approx(0.71, abs=0.06)
    assert means["across"] == pytest.approx(0.75, abs=0.08)
    assert means["shuffled"] == pytest.approx(1 / 7, abs=0.09)


def test_number_in_the_chicks_nidopallium(tmp_path):
    recipe = {
        "event_columns": "num(?P<number>[1-5])(?P<control>rad|area|perim)Sel",
        "start_s": 0.0,
        "stop_s": 0.5,
        "coverage": "session",
        "variables": {"number": "number", "control": "control"},
    }
    store = RecordingStore(tmp_path / "store")
    store.register([convert(path, recipe) for path in sorted(CHICKS.glob("*.txt.gz"))], set="chicks")
    units = [store.get(entry.name) for entry in store.list()]
    assert len(units) == 53
    confusions = np.zeros((5, 5))
    rates, by_chance = [], []
    most = {"train": 0.8, "validation": 0.1, "test": 0.1}
    for seed in range(40):
        pooled = pool(units, ["number"], name="numbers", fractions=most, seed=seed)
        value, told = decoded(pooled, "number")
        rates.append((value == told).mean())
        np.add.at(confusions, (value.astype(int) - 1, told.astype(int) - 1), 1)
        value, told = decoded(shuffled(pooled, seed=seed), "number")
        by_chance.append((value == told).mean())
    assert np.mean(rates) == pytest.approx(0.47, abs=0.04)
    assert np.mean(by_chance) == pytest.approx(0.2, abs=0.04)
    confusions /= confusions.sum(axis=1, keepdims=True)
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    mistaken = [confusions[distance == apart].mean() for apart in range(1, 5)]
    assert mistaken[0] > 2 * mistaken[1] > 2 * mistaken[2]  # numbers near to one another are mistaken for one another
    assert mistaken[0] > 4 * mistaken[3]
