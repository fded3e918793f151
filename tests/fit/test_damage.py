"""What a fit left is damaged by one bit: it is never resumed, returned or evaluated in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save

from neuromas.errors import Corrupt, NeuromasError
from neuromas.fit import folder as files
from neuromas.fit.folder import ALIGNMENT, CHECKPOINT, EVALUATION, REQUEST, RESULT
from neuromas.fit.request import reopen, run_request
from neuromas.fit.result import FitResult
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport, FitRequest

ARCHIVE = Path(__file__).parent / "archive" / "format-1" / "clmas"


class Stop(Exception):
    pass


def stop(progress):
    if progress.iteration >= 6:
        raise Stop


def flipped(path: Path, at: float, bit: int = 6) -> bytes:
    """The file's bytes with one bit flipped, at a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    return bytes(data)


def test_a_fit_does_not_go_on_from_a_damaged_checkpoint(cast, tmp_path):
    whole = cast.fit("clmas")
    with pytest.raises(Stop):
        cast.fit("clmas", out=tmp_path, progress=stop)
    path = tmp_path / CHECKPOINT
    intact = path.read_bytes()
    for at in np.linspace(0, 0.999, 25):
        path.write_bytes(flipped(path, at))
        with pytest.raises(Corrupt, match=rf"{CHECKPOINT}.*Delete .*{CHECKPOINT} and repeat the call"):
            cast.fit("clmas", out=tmp_path)
        assert not (tmp_path / RESULT).exists()
        path.write_bytes(intact)
    assert cast.fit("clmas", out=tmp_path).alignment.sha256() == whole.alignment.sha256()


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(cast, tmp_path, monkeypatch):
    whole = cast.fit("clmas")

    def without_checksum(tensors, metadata):
        return save({name: value.detach().clone().contiguous() for name, value in tensors.items()}, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(files, "safetensors_bytes", without_checksum)
        with pytest.raises(Stop):
            cast.fit("clmas", out=tmp_path, progress=stop)
    assert b"sha256" not in (tmp_path / CHECKPOINT).read_bytes()
    begun: list[int] = []
    result = cast.fit("clmas", out=tmp_path, progress=lambda progress: begun.append(progress.iteration))
    assert begun[0] > 1
    assert result.alignment.sha256() == whole.alignment.sha256()


@pytest.mark.parametrize("metadata", [{}, {"identity": "?"}])
def test_tensors_of_something_else_are_no_checkpoint(cast, tmp_path, metadata):
    (tmp_path / CHECKPOINT).write_bytes(save({}, metadata))
    with pytest.raises(NeuromasError, match=CHECKPOINT):
        cast.fit("clmas", out=tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """An archived fit, with its documents as this version writes them."""
    copy = tmp_path_factory.mktemp("finished") / "fit"
    shutil.copytree(ARCHIVE, copy)
    for name, kind in {RESULT: FitReport, REQUEST: FitRequest, EVALUATION: Evaluation}.items():
        (copy / name).write_text(kind.parse((copy / name).read_bytes(), name).to_json())
    return copy


@pytest.mark.parametrize("name", [RESULT, ALIGNMENT, REQUEST])
def test_a_damaged_result_is_neither_returned_nor_opened(finished, tmp_path, name):
    copy = shutil.copytree(finished, tmp_path / "fit")
    request = files.read_request(copy)
    for at in (0.1, 0.35, 0.6, 0.85):
        (copy / name).write_bytes(flipped(finished / name, at))
        with pytest.raises(NeuromasError, match=name.split(".")[0]):
            reopen(copy)
        if name != REQUEST:  # it is written anew
            with pytest.raises(NeuromasError, match=name.split(".")[0]):
                run_request(request, copy)
    shutil.copy(finished / name, copy / name)
    assert reopen(copy).report == FitResult.load(ARCHIVE).report


def test_a_damaged_evaluation_is_told(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "fit")
    assert files.read_evaluation(copy) == files.read_evaluation(ARCHIVE)
    for at in (0.1, 0.35, 0.6, 0.85):
        (copy / EVALUATION).write_bytes(flipped(finished / EVALUATION, at))
        with pytest.raises(NeuromasError, match=EVALUATION):
            files.read_evaluation(copy)
