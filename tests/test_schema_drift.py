"""``schemas/`` holds the JSON Schema of every document, as the code has it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from neuromas.schema import export

FOLDER = Path(__file__).parents[1] / "schemas"
EXPORTED = export.json_schemas()
ADVICE = "regenerate with: python -m neuromas.schema schemas/"


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_exported_schema_is_current(name):
    assert (FOLDER / name).read_text() == EXPORTED[name], ADVICE


def test_no_schema_is_left_over():
    assert {path.name for path in FOLDER.glob("*")} == set(EXPORTED), ADVICE


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_schema_is_itself_valid(name):
    jsonschema.Draft202012Validator.check_schema(json.loads(EXPORTED[name]))


def test_schemas_can_be_regenerated(tmp_path):
    export.main([str(tmp_path)])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == EXPORTED
