"""What the recorded system itself did: a coordinate that the manifest names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuromas.errors import InvalidDocument
from neuromas.recordings.annotate import drop_variables, rename_variables
from neuromas.recordings.convert.anndata import from_anndata, to_anndata
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.systems.capture import capture


@pytest.fixture
def net(toys):
    return capture(toys.make("net"), 20, model=toys.model, seed=1)


def test_a_live_system_records_its_own_answers(net, toys):
    data = net.to_dataset()
    token, output, trial = (data[name].values for name in ("token", "output", "trial"))
    follows = np.append(trial[1:] == trial[:-1], False)
    response = follows & (data["phase"].values == "response")
    # the planted system solves its task: where the answer is fixed, it is what comes next
    assert (output[response] == np.roll(token, -1)[response]).all()
    assert output[~follows].shape == (20,)
    assert net.manifest.format_version == 2


def test_answers_are_those_of_the_system_not_those_that_were_shown(toys):
    stubborn = toys.make("stubborn")
    # it always answers E
    stubborn.outputs = lambda tokens, lengths, **options: torch.full_like(tokens, 5)
    recording = capture(stubborn, 20, model=toys.model, seed=1)
    assert set(recording.to_dataset()["output"].values.tolist()) == {"E"}
    assert len(set(recording.to_dataset()["token"].values.tolist())) == 6


def test_answers_can_be_left_out(toys):
    recording = capture(toys.make("net"), 5, model=toys.model, outputs=False)
    assert "output" not in recording.dataset
    assert (recording.manifest.behaviour, recording.manifest.format_version) == (None, 1)


@pytest.mark.parametrize("ending", [".npz", ".nc"])
def test_files_keep_it(net, ending, tmp_path):
    path = tmp_path / f"net{ending}"
    export(net, path)
    again = Recording.from_file(path)
    assert again.content_sha256 == net.content_sha256
    assert again.manifest.behaviour == "output"


def test_anndata_keeps_it(net):
    pytest.importorskip("anndata")
    adata = to_anndata(net)
    assert adata.obs["output"].dtype.name == "category"
    assert from_anndata(adata).manifest.behaviour == "output"


def test_a_recipe_names_it(tmp_path):
    np.savez(tmp_path / "cells.npz", rates=np.zeros((6, 3)), side=list("lrlrlr"), chosen=list("llrrll"))
    recipe = {"activity": "rates", "variables": {"side": "side", "choice": "chosen"}, "behaviour": "choice"}
    recording = convert(tmp_path / "cells.npz", recipe)
    assert recording.manifest.behaviour == "choice"
    assert rename_variables(recording, {"choice": "response"}).manifest.behaviour == "response"
    assert drop_variables(recording, ["choice"]).manifest.behaviour is None


def test_it_must_be_there():
    with pytest.raises(InvalidDocument, match="behaviour: no coordinate 'choice' on sample"):
        Recording.from_arrays([[0.1], [0.2]], {"count": [1, 2]}, name="toy", behaviour="choice")
    with pytest.raises(InvalidDocument, match="output: expected codes 0 to 1"):
        Recording.from_arrays(
            [[0.1], [0.2]],
            {"count": [1, 2]},
            name="toy",
            vocabulary=["a", "b"],
            sample_metadata={"output": [0, 7]},
            behaviour="output",
        )
