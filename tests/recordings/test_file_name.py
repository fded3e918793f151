"""What the name of a file says, as columns: in every format, in variables and selections, alone and beside other columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuromas.actions.register import register
from neuromas.errors import InvalidInput
from neuromas.recordings.convert.converter import convert
from neuromas.schema.actions import RegisterRequest

PATTERN = r"(?P<mouse>m\d+)_day(?P<day>\d+)_(?P<label>\d+)\..*"


def written(folder: Path, name: str) -> Path:
    path = folder / name
    activity = np.arange(12.0).reshape(4, 3)
    if path.suffix == ".npz":
        np.savez(path, rates=activity, side=["left", "right", "left", "right"])
    else:
        rows = [f"{side},{','.join(map(str, row))}" for side, row in zip(["left", "right"] * 2, activity, strict=True)]
        path.write_text("\n".join(["side,u0,u1,u2", *rows]))
    return path


@pytest.mark.parametrize(("ending", "options"), [(".npz", {"activity": "rates"}), (".csv", {"unit_columns": r"u\d"})])
def test_groups_are_columns(tmp_path, ending, options):
    path = written(tmp_path, f"m1_day3_007{ending}")
    variables = {
        "mouse": "mouse",
        "day": "day",
        "label": "label",
        "late": "day > 2 and side == 'left'",
        "both": "col('mouse') + side",
    }
    recording = convert(path, {"file_name": PATTERN, "variables": variables, **options})
    table = recording.to_dataframe()
    assert table["mouse"].tolist() == ["m1"] * 4
    assert table["day"].tolist() == [3] * 4
    assert table["label"].tolist() == ["007"] * 4
    assert table["late"].astype(str).tolist() == ["true", "false"] * 2
    assert table["both"].tolist() == ["m1left", "m1right"] * 2
    assert "3 > 2" in recording.manifest.provenance.notes


def test_many_files_become_one_recording(tmp_path):
    paths = [written(tmp_path, f"m{mouse}_day{day}_{day}.csv") for mouse, day in ((1, 1), (1, 2), (2, 1))]
    request = {
        "sources": list(map(str, paths)),
        "set": "s",
        "name": "all",
        "join": True,
        "store": str(tmp_path / "store"),
    }
    request["recipe"] = {"file_name": PATTERN, "unit_columns": r"u\d", "variables": {"mouse": "mouse", "day": "day"}}
    (joined,) = register(RegisterRequest.parse(request, "test"))
    table = joined.recording.to_dataframe()
    assert table["mouse"].tolist() == ["m1"] * 8 + ["m2"] * 4
    assert table["day"].tolist() == [1] * 4 + [2] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("day", "does not match the name 'm1_day3_007.npz', from its first to its last character"),
        ("(", "is not a regular expression"),
        ("(m+)+$", "does not match|takes more than"),
    ],
)
def test_patterns_that_do_not_fit(tmp_path, pattern, message):
    path = written(tmp_path, "m1_day3_007.npz")
    with pytest.raises(InvalidInput, match=message):
        convert(path, {"file_name": pattern, "activity": "rates", "variables": {"side": "side"}})


def test_a_function_keeps_its_name(tmp_path):
    path = written(tmp_path, "m1_day3_007.npz")
    recipe = {
        "file_name": r"m(?P<where>\d)_.*",
        "activity": "rates",
        "variables": {"v": "where(side == 'left', where, 0)"},
    }
    assert convert(path, recipe).to_dataframe()["v"].tolist() == [1, 0, 1, 0]


def test_steps_become_longer_on_the_way_in(tmp_path):
    activity = np.arange(24.0).reshape(2, 6, 2)
    np.savez(tmp_path / "ms.npz", rates=activity, side=["left", "right"])
    recipe = {"activity": "rates", "step_s": 0.001, "start_s": 0.0, "steps_per_bin": 3, "variables": {"side": "side"}}
    recording = convert(tmp_path / "ms.npz", recipe)
    np.testing.assert_allclose(recording.latents(), activity.reshape(2, 2, 3, 2).mean(axis=2).reshape(4, 2))
    assert recording.manifest.sampling.step_s == pytest.approx(0.003)
