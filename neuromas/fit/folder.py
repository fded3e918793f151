"""The folder of a fit's result: the name of every file in it, how each is written and read.

``result.json`` is written last, so that a folder that has it is complete. ``checkpoint.safetensors`` is there only while the
fit is unfinished.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from neuromas.align.alignment import Alignment
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.evaluation.accuracy import scores_table
from neuromas.files import sha256_bytes, sha256_file, write_atomically
from neuromas.fit.plan import FitPlan, State
from neuromas.schema.evaluation import Evaluation
from neuromas.schema.fit import FitReport, FitRequest, Validation
from neuromas.schema.validity import Validity
from neuromas.text import cell, csv_table
from neuromas.weights import adam_tensors, read_safetensors, restore_adam, resuming, safetensors_bytes

RESULT, ALIGNMENT, HISTORY = "result.json", "alignment.safetensors", "history.csv"
REQUEST, CHECKPOINT = "request.json", "checkpoint.safetensors"
EVALUATION, IIA, PAIRED = "evaluation.json", "iia.csv", "paired.csv"
VALIDITY, VALIDITY_TABLE = "validity.json", "validity.csv"
LOCATION, LOCATION_TABLE, LOCATION_FIGURE = "locate.json", "locate.csv", "locate.png"
RANKS, RANKS_TABLE, RANKS_FIGURE = "ranks.json", "ranks.csv", "ranks.png"
TABLE = "table.csv"
"""In a folder with the folders of several fits: a row for each."""

_NUMBERS = ("iteration", "best_iteration", "best_score", "reference", "references", "stale", "seconds")


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a result."""
    return (folder / RESULT).is_file()


def write_result(folder: Path, alignment: Alignment, report: FitReport) -> None:
    """Write alignment, history and, last, the report."""
    alignment.save(folder / ALIGNMENT)
    write_atomically(folder / HISTORY, history_table(report.history))
    write_atomically(folder / RESULT, report.to_json())


def read_result(folder: Path) -> tuple[Alignment, FitReport]:
    """What `write_result` wrote.

    Raises
    ------
    NotFound
        There is no result.
    InvalidDocument
        ``result.json`` breaks its schema.
    Corrupt
        The alignment is not the one that the report names.
    """
    if not is_finished(folder):
        raise NotFound(f"no fit result in {folder}: expected {RESULT}", kind="unknown_result")
    report = FitReport.parse((folder / RESULT).read_bytes(), str(folder / RESULT))
    alignment = Alignment.load(folder / ALIGNMENT)
    if sha256_file(folder / ALIGNMENT) != report.alignment_sha256:
        raise Corrupt(
            f"{folder / ALIGNMENT} is not the file that {RESULT} names (SHA-256 differs)", kind="hash_mismatch"
        )
    return alignment, report


def history_table(history: Sequence[Validation]) -> str:
    """The validation history as CSV text: a row per validation, a column per loss and direction."""
    names = {
        f"{kind} {direction}": None
        for seen in history
        for kind in ("behaviour", "cl", "iia")
        for direction in getattr(seen, kind)
    }
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["iteration", "train_loss", "loss", *map(cell, names)])
    for seen in history:
        row = {
            f"{kind} {name}": value
            for kind in ("behaviour", "cl", "iia")
            for name, value in getattr(seen, kind).items()
        }
        writer.writerow([seen.iteration, seen.train_loss, seen.loss, *(row.get(name, "") for name in names)])
    return text.getvalue()


def write_request(folder: Path, request: FitRequest) -> None:
    """Write the request beside the result."""
    write_atomically(folder / REQUEST, request.to_json())


def read_request(folder: str | Path) -> FitRequest:
    """The request in a fit's folder.

    Raises
    ------
    NotFound
        There is none, because the fit was made in Python with systems that only that program had.
    InvalidDocument
        It breaks its schema.
    """
    path = Path(folder) / REQUEST
    if not path.is_file():
        raise NotFound(
            f"{folder} has no {REQUEST}, which says where systems and recordings are; it was not fitted by a command",
            kind="unknown_request",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(str(path), [f"not text: {error}"]) from error
    return FitRequest.parse(text, str(path))


def keep_evaluation(folder: Path, evaluation: Evaluation) -> Path | None:
    """Copy what ``evaluation.json`` holds if it is another evaluation than `evaluation`; ``iia.csv`` with it.

    Returns
    -------
    Path or None
        The copy, which is named after its content.
    """
    path = folder / EVALUATION
    if not path.is_file():
        return None
    text = path.read_bytes()
    if not Evaluation.problems(text) and Evaluation.parse(text, str(path)).like(evaluation):
        return None
    digest = sha256_bytes(text)[:8]
    if (folder / IIA).is_file():
        scores = Path(IIA)
        write_atomically(folder / f"{scores.stem}-{digest}{scores.suffix}", (folder / IIA).read_bytes())
    kept = path.with_stem(f"{path.stem}-{digest}")
    write_atomically(kept, text)
    return kept


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path | None:
    """Write ``iia.csv`` and ``evaluation.json``; returns the copy of an evaluation with other options that was there."""
    kept = keep_evaluation(folder, evaluation)
    write_atomically(folder / IIA, scores_table(evaluation.scores))
    write_atomically(folder / EVALUATION, evaluation.to_json())
    return kept


def read_evaluation(folder: Path) -> Evaluation:
    """What `write_evaluation` wrote.

    Raises
    ------
    NotFound
        The fit was not evaluated.
    InvalidDocument
        ``evaluation.json`` breaks its schema.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise NotFound(f"no evaluation in {folder}: expected {EVALUATION}", kind="unknown_result")
    return Evaluation.parse(path.read_bytes(), str(path))


def write_validity(folder: Path, validity: Validity) -> None:
    """Write ``validity.csv`` and ``validity.json``."""
    write_atomically(folder / VALIDITY_TABLE, csv_table(validity.to_dataframe(), index=False))
    write_atomically(folder / VALIDITY, validity.to_json())


def read_validity(folder: Path) -> Validity:
    """What `write_validity` wrote.

    Raises
    ------
    NotFound
        The fit was not validated.
    InvalidDocument
        ``validity.json`` breaks its schema.
    """
    path = folder / VALIDITY
    if not path.is_file():
        raise NotFound(f"no validation in {folder}: expected {VALIDITY}", kind="unknown_result")
    return Validity.parse(path.read_bytes(), str(path))


def write_checkpoint(folder: Path, plan: FitPlan, state: State) -> None:
    """Write the whole state of an unfinished fit."""
    tensors = {f"now/{name}": value for name, value in state.maps.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= adam_tensors(state.maps, state.optimiser)
    metadata = {
        "identity": plan.identity,
        "state": json.dumps({name: getattr(state, name) for name in _NUMBERS}),
        "history": json.dumps([seen.model_dump() for seen in state.history]),
    }
    write_atomically(folder / CHECKPOINT, safetensors_bytes(tensors, metadata))


def read_checkpoint(folder: Path, plan: FitPlan, state: State) -> bool:
    """Fill `state` from the folder's checkpoint; False if there is none.

    Raises
    ------
    InvalidInput
        It belongs to another fit.
    Corrupt
        It is damaged. Nothing must be computed with `state` then.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    with resuming(path):
        tensors, metadata = read_safetensors(path)
        if metadata["identity"] != plan.identity:
            raise InvalidInput(
                f"{path} belongs to another fit (configuration or inputs differ); choose another folder or remove it",
                kind="occupied",
            )
        state.maps.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("now/")})
        state.best = {name[5:]: value for name, value in tensors.items() if name.startswith("best/")}
        restore_adam(state.maps, state.optimiser, tensors)
        for name, value in json.loads(metadata["state"]).items():
            setattr(state, name, value)
        state.history = [Validation.model_validate(seen) for seen in json.loads(metadata["history"])]
    return True


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint, if there is one."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
