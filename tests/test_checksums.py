"""A flipped bit in any file that neuromas reads again is told, or changes nothing; files without a checksum open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neuromas.align.alignment import Alignment
from neuromas.errors import Corrupt, InvalidDocument, NeuromasError
from neuromas.experiments.jobs import read_config
from neuromas.fit.folder import ALIGNMENT, EVALUATION, REQUEST, RESULT
from neuromas.schema.document import CHECKSUM, StoredDocument
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport, FitRequest
from neuromas.schema.system import SystemConfig, TrainSpec
from neuromas.systems import training
from neuromas.systems.training import CONFIG, WEIGHTS, load_system, train
from neuromas.weights import read_safetensors, safetensors_bytes

ARCHIVE = Path(__file__).parent / "fit" / "archive" / "format-1" / "clmas"
DOCUMENTS = {RESULT: FitReport, REQUEST: FitRequest, EVALUATION: Evaluation}


def flips(data: bytes, n: int, seed: int = 0) -> list[bytes]:
    """`data` with one bit flipped, in `n` places."""
    rng = np.random.default_rng(seed)
    changed = []
    for at in np.linspace(0, len(data) - 1, n).astype(int):
        copy = bytearray(data)
        copy[at] ^= 1 << int(rng.integers(8))
        changed.append(bytes(copy))
    return changed


def same_but_for_spaces(text: bytes, other: bytes) -> bool:
    try:
        return json.loads(text) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_an_earlier_version_opens_and_is_written_with_a_checksum(name):
    document = DOCUMENTS[name].parse((ARCHIVE / name).read_bytes(), name)
    assert CHECKSUM not in json.loads((ARCHIVE / name).read_bytes())
    text = document.to_json()
    assert [*json.loads(text)][-1] == CHECKSUM
    assert DOCUMENTS[name].parse(text, name) == document
    # laid out anew by another program, it is what was written
    assert DOCUMENTS[name].parse(json.dumps(json.loads(text)), name) == document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_flipped_bit_in_a_document_is_told(name):
    kind = DOCUMENTS[name]
    text = kind.parse((ARCHIVE / name).read_bytes(), name).to_json().encode()
    told = 0
    for damaged in flips(text, 200):
        if same_but_for_spaces(damaged, text):
            continue
        assert kind.problems(damaged)
        with pytest.raises((Corrupt, InvalidDocument), match=name):
            kind.parse(damaged, name)
        told += 1
    assert told > 120


def test_a_value_that_was_edited_is_told_and_without_the_checksum_taken():
    document = json.loads(TrainSpec(task="multi-object", seed=3).to_json())
    document["seed"] = 4
    for edited in (document, json.dumps(document)):
        with pytest.raises(Corrupt, match=r'made\.json is damaged.*remove its entry "sha256"') as caught:
            TrainSpec.parse(edited, "made.json")
        assert caught.value.kind == "hash_mismatch"
    del document[CHECKSUM]
    assert TrainSpec.parse(document, "made.json").seed == 4


def test_every_document_that_is_read_again_has_a_checksum():
    names = {kind.__name__ for kind in _all_subclasses(StoredDocument)}
    expected = "FitRequest FitReport Evaluation SystemConfig LanguageModelCard TrainSpec SweepJob MeasureReport Sweep"
    assert set(expected.split()) <= names


def _all_subclasses(kind: type) -> list[type]:
    return [each for direct in kind.__subclasses__() for each in (direct, *_all_subclasses(direct))]


# -------------------------------------------------------------------------------------------------------------- safetensors


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"b": torch.randn(5, 3, generator=generator), "a": torch.arange(4), "half": torch.ones(3).bfloat16()}


def test_tensors_and_metadata_come_back_without_the_checksum(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"name": "é", "history": "[]"}
    path.write_bytes(safetensors_bytes(tensors(), metadata))
    back, described = read_safetensors(path)
    assert described == metadata
    assert back.keys() == tensors().keys()
    assert all(torch.equal(back[name], value) for name, value in tensors().items())
    assert len({safetensors_bytes(tensors(), metadata) for _ in range(20)}) == 1


def test_every_flipped_bit_in_tensors_is_told(tmp_path):
    path = tmp_path / "x.safetensors"
    data = safetensors_bytes(tensors(), {"name": "é", "history": "[]"})
    header = int.from_bytes(data[:8], "little")
    for at in range(len(data)):
        for bit in (0, 2, 5, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            if 8 <= at < 8 + header and same_but_for_spaces(damaged[8 : 8 + header], data[8 : 8 + header]):
                continue
            path.write_bytes(damaged)
            with pytest.raises(Corrupt, match=r"x\.safetensors"):
                read_safetensors(path)


def test_files_without_a_checksum_open(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(tensors()))
    assert read_safetensors(path)[1] == {}
    alignment = Alignment.load(ARCHIVE / ALIGNMENT)
    assert b"sha256" not in (ARCHIVE / ALIGNMENT).read_bytes()
    alignment.save(tmp_path / ALIGNMENT)
    again = Alignment.load(tmp_path / ALIGNMENT)
    assert again.to_bytes() == alignment.to_bytes() == (tmp_path / ALIGNMENT).read_bytes()
    for name, each in alignment.maps.items():
        assert torch.equal(again.maps[name].forward, each.forward)


def test_a_flipped_bit_in_an_alignment_is_told(tmp_path):
    data = Alignment.load(ARCHIVE / ALIGNMENT).to_bytes()
    for damaged in flips(data, 60):
        (tmp_path / ALIGNMENT).write_bytes(damaged)
        with pytest.raises(Corrupt):
            Alignment.load(tmp_path / ALIGNMENT)


# ------------------------------------------------------------------------------------------------- what an interruption leaves

TINY = {"n_units": 6, "max_iterations": 12, "min_iterations": 0, "validate_every": 4, "n_held_out": 20}


class Stop(Exception):
    pass


def stop_at(iteration: int):
    def report(now, *_):
        if now >= iteration:
            raise Stop

    return report


def test_a_training_does_not_go_on_from_a_damaged_checkpoint(tmp_path):
    whole = train("multi-object", out=tmp_path / "whole", seed=3, **TINY)
    with pytest.raises(Stop):
        train("multi-object", out=tmp_path / "half", seed=3, progress=stop_at(9), **TINY)
    path = tmp_path / "half" / training.CHECKPOINT
    data = path.read_bytes()
    for damaged in flips(data, 12):
        path.write_bytes(damaged)
        with pytest.raises(Corrupt, match=r"checkpoint\.safetensors.*Delete .* and repeat the call"):
            train("multi-object", out=tmp_path / "half", seed=3, **TINY)
        assert not (tmp_path / "half" / CONFIG).exists()
    path.unlink()
    again = train("multi-object", out=tmp_path / "half", seed=3, **TINY)
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())


def test_a_system_is_not_loaded_from_damaged_files(tmp_path):
    train("multi-object", out=tmp_path, seed=3, **TINY)
    for name in (CONFIG, WEIGHTS):
        data = (tmp_path / name).read_bytes()
        for damaged in flips(data, 40):
            if name == CONFIG and same_but_for_spaces(damaged, data):
                continue
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(NeuromasError):
                load_system(tmp_path)
        (tmp_path / name).write_bytes(data)
    assert load_system(tmp_path).config == read_config(tmp_path)
    assert SystemConfig.parse((tmp_path / CONFIG).read_bytes(), CONFIG).weights_sha256
