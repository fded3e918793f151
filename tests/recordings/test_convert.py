"""How converters are found, and those of other packages: a tiny package is built for each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuromas.errors import InvalidDocument, InvalidInput, NotFound
from neuromas.recordings.convert.converter import Converter, convert, converters, find_converter
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.recipe import ArraysRecipe

PLUGIN = '''
"""Lines of numbers, the first of each a count: `.acme`."""
import numpy as np
from neuromas.recordings.convert.converter import Converter
from neuromas.recordings.recording import Recording
from neuromas.schema.recipe import Recipe

class AcmeRecipe(Recipe):
    scale: float = 1.0

def convert(path, recipe, fields):
    table = np.loadtxt(path)
    return Recording.from_arrays(
        recipe.scale * table[:, 1:], {"count": table[:, 0].astype(int)}, **{"name": path.stem, **fields}
    )

def contents(path):
    return [("lines", str(len(np.loadtxt(path))))]

CONVERTER = Converter("acme", (".acme",), AcmeRecipe, convert, contents)
TAKEN = Converter("npz", (".acme",), AcmeRecipe, convert)
NEEDY = Converter("needy", (".needy",), AcmeRecipe, convert, requires=("no_such_module_xyz",), extra="acme")
'''


def build(folder: Path, entry_points: str) -> Path:
    """A package as pip leaves it: a module, and metadata with entry points."""
    (folder / "acme_reader.py").write_text(PLUGIN)
    described = folder / "acme_reader-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-reader\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[neuromas.converters]\n{entry_points}\n")
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "acme_reader", raising=False)
    return folder


def test_another_packages_format_is_found_by_its_ending_and_its_name(package, tmp_path):
    build(package, "acme = acme_reader:CONVERTER")
    source = tmp_path / "day.acme"
    source.write_text("1 0.5 0.25\n2 1.5 1.25\n")
    made = convert(source, {"scale": 2.0}, system="rig")
    assert made.latents().tolist() == [[1.0, 0.5], [3.0, 2.5]]
    assert (made.manifest.name, made.manifest.system, made.manifest.access) == ("day", "rig", "read")
    assert find_converter(tmp_path / "other.txt", "acme").name == "acme"
    with pytest.raises(InvalidDocument, match=r"scale: .*'wide'"):
        convert(source, {"scale": "wide"})
    with pytest.raises(InvalidDocument, match="colour: no such field"):
        convert(source, {"colour": "red"})


def test_another_packages_format_works_from_the_command_line(package, tmp_path):
    build(package, "acme = acme_reader:CONVERTER")
    (tmp_path / "day.acme").write_text("1 0.5 0.25\n2 1.5 1.25\n")

    def run(*words: str) -> str:
        path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-m", "neuromas.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "acme" in run("formats")
    assert "AcmeRecipe" in run("formats")
    told = run("register", "day.acme", "--set", "rig", "-o", "scale=4", "--store", "store", "--dry-run")
    assert "lines" in told
    assert "would be registered: rig/day" in told
    assert not (tmp_path / "store").exists()
    run("register", "day.acme", "--set", "rig", "-o", "scale=4", "--store", "store")
    assert RecordingStore(tmp_path / "store").get("rig/day").latents().max() == 6.0


@pytest.mark.parametrize(
    ("entry_points", "message"),
    [
        ("acme = acme_reader:TAKEN", "another format is called 'npz'"),
        ("acme = acme_reader:convert", "expected a Converter, got function"),
        ("acme = acme_reader:MISSING", r"'acme' \(acme_reader:MISSING\) cannot be loaded: "),
        ("acme = no_such_module_abc:CONVERTER", "cannot be loaded: No module named 'no_such_module_abc'"),
    ],
)
def test_plugins_that_cannot_be_used_are_named(package, entry_points, message):
    build(package, entry_points)
    with pytest.raises(InvalidInput, match=message):
        converters()


def test_a_library_that_is_not_installed_is_asked_for(package, tmp_path):
    build(package, "needy = acme_reader:NEEDY")
    (tmp_path / "a.needy").write_text("1 2\n")
    with pytest.raises(InvalidInput, match=r'needs no_such_module_xyz, .* pip install "neuromas\[acme\]"') as caught:
        convert(tmp_path / "a.needy")
    assert caught.value.kind == "missing_package"


def test_the_longest_ending_wins(tmp_path):
    assert find_converter(Path("a.csv")).name == find_converter(Path("a.csv.gz")).name == "csv"
    assert find_converter(Path("a.txt.gz")).name == "spikes"
    assert find_converter(Path("a.nwb.zarr")).name == "nwb"
    assert find_converter(Path("a.zarr")).name == "zarr"


def test_a_stored_recording_is_taken_whatever_its_folder_is_called(tmp_path):
    store = RecordingStore(tmp_path / "store")
    made = Recording.from_arrays(np.eye(3), {"n": [1, 2, 3]}, name="toy")
    store.register([made], set="s")
    found = convert(tmp_path / "store" / "s" / "toy", name="again")
    np.testing.assert_array_equal(found.latents(), made.latents())
    assert found.manifest.name == "again"


def test_unknown_formats_and_files(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        convert(tmp_path / "none.nwb")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InvalidInput, match=r"no format has this ending; the known endings are .*\.nwb.*\.parquet"):
        convert(tmp_path / "thesis.tex")
    with pytest.raises(NotFound, match="no format 'word'; there are nwb, spikes"):
        convert(tmp_path / "thesis.tex", format="word")


def test_recipes_come_from_files_too(tmp_path):
    np.savez(tmp_path / "a.npz", rates=np.eye(4), n=[1, 2, 3, 4])
    recipe = {"activity": "rates", "variables": {"even": "n % 2 == 0"}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    by_file, by_mapping = convert(tmp_path / "a.npz", tmp_path / "recipe.json"), convert(tmp_path / "a.npz", recipe)
    by_document = convert(tmp_path / "a.npz", ArraysRecipe.parse(recipe, "recipe"))
    assert (
        by_file.describe() == by_mapping.describe() == by_document.describe() == [("even", "categorical: false, true")]
    )
    with pytest.raises(NotFound, match="no such recipe file"):
        convert(tmp_path / "a.npz", tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidDocument, match=r"broken\.json"):
        convert(tmp_path / "a.npz", tmp_path / "broken.json")


def test_every_converter_says_what_it_is(tmp_path):
    for name, one in converters().items():
        assert isinstance(one, Converter)
        assert one.name == name
        assert all(ending.startswith(".") for ending in one.endings)
        assert one.contents is not None


@pytest.mark.parametrize("ending", [".npz", ".nc", ".csv"])
def test_what_is_exported_can_be_registered_again(ending, tmp_path):
    made = Recording.from_arrays(
        np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32),
        {"side": ["left", "right", "left", "left", "right"], "n": [1, 2, 3, 4, 5]},
        name="toy",
        trial=[3, 4, 5, 6, 7],
    )
    path = export(made, tmp_path / f"toy{ending}")
    recipe = {"unit_columns": "u[0-9]+", "trial": "trial", "step": "step"} if ending == ".csv" else None
    if recipe is not None:
        recipe["variables"] = {"side": "side", "n": "n"}
    found = convert(path, recipe)
    np.testing.assert_allclose(found.latents(), made.latents(), rtol=1e-6)
    assert [found.spec("side").label(code) for code in found.values(["side"])[:, 0]] == [
        "left",
        "right",
        "left",
        "left",
        "right",
    ]
    assert found.trial.tolist() == [3, 4, 5, 6, 7]
