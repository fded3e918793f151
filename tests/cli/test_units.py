"""Units in the shell: a folder is registered, a table describes its units, and some are chosen."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.cli import verbs
from neuromas.recordings.store.store import RecordingStore


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three clusters: 1 fires in each trial, 4 in the first, 6 never during a trial."""
    monkeypatch.chdir(tmp_path)
    Path("ks").mkdir()
    np.save("ks/spike_times.npy", np.array([110, 120, 310, 510, 250, 900]))
    np.save("ks/spike_clusters.npy", np.array([1, 4, 1, 1, 6, 6]))
    Path("ks/params.py").write_text("sample_rate = 100\n")
    Path("cues.csv").write_text("time,side\n1,l\n3,r\n5,l\n")
    Path("layers.tsv").write_text("cluster_id\tlayer\n4\tL5\n1\tL2\n")


def run(line: str, code: int = 0) -> str:
    shown = CliRunner().invoke(verbs.app, shlex.split(line))
    assert shown.exit_code == code, shown.output
    return shown.output


def test_a_folder_from_its_labels_to_chosen_units():
    register = "register ks --set lab --store s -o events=cues.csv -o start_s=0 -o stop_s=1 --variable side=side"
    assert "ks (phy) holds" in run("register ks --set lab --store s --dry-run")
    assert "lab/ks registered: 3 samples × 3 units" in run(f"{register} -o coverage=[0,10]")
    assert "3 samples × 2 units" in run(f"{register} -o coverage=throughout -o 'units_where=rate > 0' --name busy")
    chosen = "--units-where \"layer == 'L5' or silent\""
    assert "lab/ks.v2 registered: 3 samples × 2 units" in run(
        f"annotate lab/ks --store s --table layers.tsv --on unit=cluster_id {chosen}"
    )
    stored = RecordingStore("s").get("lab/ks.v2")
    assert stored.unit_names == ["4", "6"]
    assert stored.dataset["layer"].values.tolist() == ["L5", ""]
    assert stored.latents().tolist() == [[1, 0], [0, 0], [0, 0]]


def test_coverage_that_is_none_is_one_clear_error():
    register = "register ks --set lab --store s -o events=cues.csv -o start_s=0 -o stop_s=1 --variable side=side"
    assert "coverage: expected 'spikes', 'session', 'throughout', [start, stop] in seconds" in " ".join(
        run(f"{register} -o coverage=[10,0]", code=2).split()
    )


def test_formats_say_which_folders_are_known():
    shown = run("formats")
    assert "a folder with spike_times.npy" in shown
    assert "suite2p" in shown
