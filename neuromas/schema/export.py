"""Every document that reaches a disk, as JSON Schema."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuromas.schema.actions import requests_by_verb
from neuromas.schema.document import CHECKSUM, SHA256_PATTERN, Document, StoredDocument
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitConfig, FitReport, FitRequest
from neuromas.schema.locate import Location
from neuromas.schema.ranks import RankCurve
from neuromas.schema.recipe import ArraysRecipe, EeglabRecipe, NwbRecipe, PhyRecipe, SpikesRecipe, Suite2pRecipe
from neuromas.schema.recording import GroupTable, RecordingManifest, RecordingSetIndex
from neuromas.schema.sweep import MeasureReport, Sweep, SweepJob
from neuromas.schema.system import LanguageModelCard, SystemConfig, TrainRequest
from neuromas.schema.twin import TwinCard, TwinConfig
from neuromas.schema.validity import Validity


def json_schemas() -> dict[str, str]:
    """File name → JSON Schema text of every document that reaches a disk."""
    documents: list[type[Document]] = [
        RecordingManifest,
        EeglabRecipe,
        NwbRecipe,
        SpikesRecipe,
        PhyRecipe,
        Suite2pRecipe,
        ArraysRecipe,
        RecordingSetIndex,
        GroupTable,
        SystemConfig,
        LanguageModelCard,
        TrainRequest,
        TwinConfig,
        TwinCard,
        FitConfig,
        FitRequest,
        FitReport,
        Evaluation,
        Validity,
        RankCurve,
        Location,
        Sweep,
        SweepJob,
        MeasureReport,
        *requests_by_verb().values(),
    ]
    return {
        f"{_snake(document.__name__)}.schema.json": json.dumps(_schema(document), indent=2) + "\n"
        for document in documents
    }


def _schema(document: type[Document]) -> dict[str, Any]:
    """The JSON Schema of a document, with the checksum that files of a stored one have."""
    schema = document.model_json_schema()
    if issubclass(document, StoredDocument):
        description = (
            "SHA-256 of the other content, as JSON with sorted keys and no spaces. Remove it if you edit the file."
        )
        schema["properties"][CHECKSUM] = {"type": "string", "pattern": SHA256_PATTERN, "description": description}
    return schema


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every JSON Schema: ``python -m neuromas.schema schemas/``."""
    words = sys.argv[1:] if arguments is None else arguments
    folder = Path(words[0] if words else "schemas")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in json_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")
