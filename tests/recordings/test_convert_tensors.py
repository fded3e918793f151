"""Activations as language-model tools leave them: columns of lists, saved datasets, tensors; and workbooks."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from neuromas.cli import verbs
from neuromas.errors import InvalidDocument, InvalidInput, NeuromasError, NotFound
from neuromas.recordings.convert import named_arrays, tensor_files, workbook
from neuromas.recordings.convert.converter import convert, find_converter
from neuromas.recordings.recording import Recording

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(6, 4, 3)).astype(np.float32)  # trial, step, unit
LABEL = [0, 1, 0, 1, 1, 0]
LENGTHS = [4, 2, 3, 4, 1, 2]


def values(recording: Recording, name: str) -> list[Any]:
    spec, column = recording.spec(name), recording.values([name]).ravel()
    return [spec.label(value) for value in column] if spec.type == "categorical" else column.tolist()


def lists(array: np.ndarray, lengths: list[int] | None = None) -> list[Any]:
    rows = array if lengths is None else [row[:length] for row, length in zip(array, lengths, strict=True)]
    return [row.tolist() for row in rows]


def write_stream(table: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


def write_file(table: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


def write_parquet(table: pa.Table, path: Path) -> Path:
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=4)
    return path.with_suffix(".parquet")


def write_dataset(table: pa.Table, path: Path) -> Path:
    """As ``Dataset.save_to_disk`` of Hugging Face does, in two shards."""
    folder = path.with_suffix("")
    folder.mkdir()
    names = [f"data-0000{shard}-of-00002.arrow" for shard in range(2)]
    half = table.num_rows // 2
    for name, part in zip(names, (table.slice(0, half), table.slice(half)), strict=True):
        write_stream(part, folder / name)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


arrow = pytest.mark.parametrize("write", [write_parquet, write_stream, write_file, write_dataset])


# ------------------------------------------------------------------------------------------------------ columns of lists


@arrow
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3), pa.large_list(pa.float16())])
def test_a_list_per_sample(tmp_path, write, kind):
    rows = HIDDEN[:, 0].astype(np.float16).astype(np.float32)
    column = pa.array(
        [row.astype(np.float16) for row in rows] if kind.value_type == pa.float16() else lists(rows), type=kind
    )
    table = pa.table({"hidden": column, "more": column, "label": LABEL, "text": ["a", "b", "a", "b", "b", "a"]})
    path = write(table, tmp_path / "hf.arrow")
    recipe = {"activity": "hidden", "variables": {"label": "label", "text": "text", "first": "more[:, 0]"}}
    recording = convert(path, recipe)
    assert np.array_equal(recording.latents(dtype=np.float32), rows)
    assert values(recording, "label") == LABEL
    assert values(recording, "text") == ["a", "b", "a", "b", "b", "a"]
    assert values(recording, "first") == rows[:, 0].tolist()
    assert recording.manifest.provenance.source == path.name
    by_columns = convert(path, {"unit_columns": "hidden", "variables": {"label": "label"}})
    assert by_columns.unit_names == ["hidden_0", "hidden_1", "hidden_2"]
    assert np.array_equal(by_columns.latents(), recording.latents())
    listed = dict(find_converter(path).contents(path))
    assert listed["hidden"].startswith("(6, 3) float")


@arrow
def test_lists_of_steps_per_trial(tmp_path, write):
    tokens = np.arange(24).reshape(6, 4)
    table = pa.table(
        {
            "hidden": lists(HIDDEN, LENGTHS),
            "tokens": lists(tokens, LENGTHS),
            "words": [[f"w{token}" for token in row[:length]] for row, length in zip(tokens, LENGTHS, strict=True)],
            "pair": lists(tokens[:, :2]),
            "label": LABEL,
        }
    )
    path = write(table, tmp_path / "hf.arrow")
    variables = {"label": "label", "number": "tokens", "word": "words", "second": "pair[:, 1]", "start": "words[:, 0]"}
    recording = convert(path, {"activity": "hidden", "variables": variables})
    real = np.arange(4) < np.array(LENGTHS)[:, None]
    assert np.array_equal(recording.latents(dtype=np.float32), HIDDEN[real])
    assert values(recording, "number") == tokens[real].tolist()
    assert recording.spec("number").type == "integer"
    assert values(recording, "word") == [f"w{token}" for token in tokens[real]]
    assert values(recording, "second") == np.repeat(tokens[:, 1], LENGTHS).tolist()
    assert values(recording, "start") == np.repeat([f"w{token}" for token in tokens[:, 0]], LENGTHS).tolist()
    assert recording.dataset["trial"].values.tolist() == np.repeat(np.arange(6), LENGTHS).tolist()
    implied = convert(path, {"activity": "hidden"})
    assert set(implied.variable_names) == {"label", "tokens", "words"}


def test_activity_may_be_a_part_of_lists_of_lists(tmp_path):
    layers = RNG.normal(size=(6, 2, 4, 3)).astype(np.float32)  # trial, layer, step, unit
    path = write_parquet(pa.table({"hidden": lists(layers), "label": LABEL}), tmp_path / "a")
    recording = convert(
        path, {"activity": "hidden[:, 1]" + "", "variables": {"label": "label"}} | {"activity": "hidden[:, 1, :, :]"}
    )
    assert np.array_equal(recording.latents(dtype=np.float32), layers[:, 1].reshape(-1, 3))
    last = convert(path, {"activity": "hidden[:, -1, -1, :]", "variables": {"label": "label"}})
    assert np.array_equal(last.latents(dtype=np.float32), layers[:, 1, 3])
    np.savez(tmp_path / "a.npz", hidden=layers, label=LABEL)
    again = convert(tmp_path / "a.npz", {"activity": "hidden[:, 1, ...]", "variables": {"label": "label"}})
    assert np.array_equal(again.latents(), recording.latents())
    with pytest.raises(
        InvalidInput, match=r"shape \(6, 2, 4, 3\): expected 2 or 3 axes; the recipe can name them for a part"
    ):
        convert(path, {"activity": "hidden", "variables": {"label": "label"}})
    with pytest.raises(InvalidInput, match=r"\(6, 2, 4, 3\); its axis 1 has no entry 2"):
        convert(path, {"activity": "hidden[:, 2, :, :]", "variables": {"label": "label"}})


@arrow
def test_class_labels_are_their_names(tmp_path, write):
    features = {"label": {"names": ["odd", "even"], "_type": "ClassLabel"}, "hidden": {"_type": "List"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"hidden": lists(HIDDEN[:, 0]), "label": LABEL}).replace_schema_metadata(metadata)
    recording = convert(write(table, tmp_path / "a.arrow"), {"activity": "hidden"})
    assert values(recording, "label") == ["even" if code else "odd" for code in LABEL]


def test_what_lists_cannot_be(tmp_path):
    table = pa.table(
        {
            "words": [["a", "b"]] * 6,
            "ragged": lists(HIDDEN[:, :, 0], LENGTHS),
            "twice": [[[0.0] * (1 + (row + step) % 3) for step in range(1 + row)] for row in range(6)],
            "structs": [[{"x": 1}]] * 6,
            "label": LABEL,
        }
    )
    path = write_parquet(table, tmp_path / "a")
    variables = {"label": "label"}
    for recipe, message in (
        ({"activity": "words"}, "expected numbers"),
        ({"activity": "ragged"}, "differ in their number of units"),
        ({"activity": "twice"}, "differ in several axes"),
        ({"activity": "structs"}, "neither numbers nor text"),
        ({"activity": "label"}, "no column of lists of numbers; there are 'words', 'ragged'"),
        ({"unit_columns": "ragged"}, "lists of different lengths"),
        ({"unit_columns": "structs"}, "hold no numbers"),
        ({}, "activity names a column of lists, such as"),
    ):
        with pytest.raises(NeuromasError, match=message):
            convert(path, recipe | ({"variables": variables} if recipe else {}))
    steps = convert(path, {"activity": "ragged", "axes": ["trial", "step"], "variables": variables})
    assert steps.n_samples == sum(LENGTHS)


@pytest.mark.usefixtures("in_process")
def test_lists_that_nobody_names_are_not_written_out(tmp_path, monkeypatch):
    path = write_parquet(
        pa.table({"hidden": lists(HIDDEN[:, 0]), "big": lists(HIDDEN), "label": LABEL}), tmp_path / "a"
    )
    recording = convert(path, {"activity": "hidden", "variables": {"label": "label"}})
    assert "left out: 'big'" in recording.manifest.provenance.notes
    monkeypatch.setattr(named_arrays, "LARGEST_DENSE_BYTES", 100)
    with pytest.raises(InvalidInput, match="too much memory"):
        convert(path, {"activity": "hidden", "variables": {"label": "label"}})


def test_damaged_arrow_and_folders(tmp_path):
    table = pa.table({"hidden": lists(HIDDEN[:, 0]), "label": LABEL})
    data = write_stream(table, tmp_path / "a.arrow").read_bytes()
    for number, broken in enumerate(
        (b"", data[: len(data) // 2], b"no arrow" * 20, data[:40] + b"\xff" * 40 + data[80:])
    ):
        (tmp_path / f"{number}.arrow").write_bytes(broken)
        with pytest.raises(InvalidInput, match=r"cannot be read as an Arrow table|hidden"):
            convert(tmp_path / f"{number}.arrow", {"activity": "hidden"})
    folder = write_dataset(table, tmp_path / "set.arrow")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../a.arrow"}]}))
    with pytest.raises(InvalidInput, match="its files lie elsewhere"):
        convert(folder, {"activity": "hidden"})
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(InvalidInput, match=r"several splits; name one of these folders: .*train"):
        convert(folder, {"activity": "hidden"})


def test_offsets_beyond_the_data_are_refused(tmp_path):
    array = pa.array([[1.0] * 77, [2.0] * 123], pa.list_(pa.float32()))
    path = write_stream(pa.table({"hidden": array, "label": [0, 1]}), tmp_path / "a.arrow")
    offsets, wrong = (np.array([0, 77, end], dtype=np.int32).tobytes() for end in (200, 10**6))
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, wrong))
    with pytest.raises(InvalidInput, match="cannot be read as an Arrow table"):
        convert(tmp_path / "a.arrow", {"activity": "hidden"})


# ---------------------------------------------------------------------------------------------------------------- tensors


def write_safetensors(path: Path, content: dict[str, torch.Tensor]) -> Path:
    save_file(content, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_pt(path: Path, content: Any) -> Path:
    torch.save(content, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


@pytest.mark.parametrize("write", [write_safetensors, write_pt])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_named_tensors(tmp_path, write, dtype):
    hidden = torch.from_numpy(HIDDEN).to(dtype)
    path = write(
        tmp_path / "act", {"activations": hidden, "label": torch.tensor(LABEL), "pair": torch.arange(12).view(6, 2)}
    )
    recipe = {"activity": "activations", "variables": {"label": "label", "odd": "pair[:, 1]"}}
    recording = convert(path, recipe)
    assert np.array_equal(recording.latents(dtype=np.float64), hidden.double().numpy().reshape(-1, 3))
    assert values(recording, "label")[::4] == LABEL
    assert values(recording, "odd")[::4] == [1, 3, 5, 7, 9, 11]
    with pytest.raises(NotFound, match=r"no array 'activity'.*activations \(6, 4, 3\)"):
        convert(path)


def test_what_a_pt_may_hold(tmp_path):
    ragged = [torch.from_numpy(HIDDEN[trial, :length]) for trial, length in enumerate(LENGTHS)]
    content = OrderedDict(
        acts=OrderedDict({"blocks.3": ragged}),
        label=["a", "b", "a", "b", "b", "a"],
        score=[0.5, 1, 2, 3, 4, 5],
        parameter=torch.nn.Parameter(torch.zeros(6)),
        odd=torch.complex(torch.zeros(2), torch.zeros(2)),
        name="toy",
        nothing=None,
    )
    recording = convert(
        write_pt(tmp_path / "a", content),
        {"activity": "acts.blocks.3", "variables": {"label": "label", "score": "score"}},
    )
    assert np.array_equal(recording.latents(dtype=np.float32), np.concatenate([row.numpy() for row in ragged]))
    assert values(recording, "label") == np.repeat(content["label"], LENGTHS).tolist()
    assert values(recording, "score") == np.repeat(content["score"], LENGTHS).tolist()
    assert "'odd'" in recording.manifest.provenance.notes
    plain = convert(write_pt(tmp_path / "b", torch.from_numpy(HIDDEN).requires_grad_()), {"variables": {"s": "step"}})
    assert np.array_equal(plain.latents(dtype=np.float32), HIDDEN.reshape(-1, 3))


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pt_runs_no_code_and_asks_for_no_memory(tmp_path):
    class Hostile:
        def __init__(self, *how: Any) -> None:
            self.how = how

        def __reduce__(self) -> Any:
            return self.how

    evil = tmp_path / "evil"
    for number, content in enumerate(
        (
            {"x": _Touch(evil)},
            {"x": np.zeros(3)},
            {"x": Hostile(bytearray, (10**11,))},
            {"x": Hostile(torch.UntypedStorage, (10**12,))},
            torch.nn.Linear(2, 2),
        )
    ):
        path = write_pt(tmp_path / str(number), content)
        with pytest.raises(InvalidInput, match="no tensors; they are refused") as refused:
            convert(path, {"activity": "x", "variables": {"s": "step"}})
        assert refused.value.kind == "pickle_refused"
    assert not evil.exists()
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"x": _Touch(evil)}))
    with pytest.raises(InvalidInput, match=r"before 1.6 must be saved again"):
        convert(tmp_path / "old.pt")
    torch.save(torch.zeros(3), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidInput, match=r"before 1.6 must be saved again"):
        convert(tmp_path / "legacy.pt")
    assert not evil.exists()


def _rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, change(name, data))
    return path


@pytest.mark.usefixtures("in_process")
def test_archives_of_pytorch_that_were_tampered_with(tmp_path, monkeypatch):
    path = write_pt(tmp_path / "a", {"x": torch.zeros(1000)})
    _rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidInput, match=r"compressed, which torch.save never does"):
        convert(path)
    # a size that the storage does not have: PyTorch would make room, and never fill it
    path = write_pt(tmp_path / "b", {"x": torch.zeros(1000)})
    large = (10**8).to_bytes(4, "little")

    def larger(name: str, data: bytes) -> bytes:
        return data.replace(b"M\xe8\x03\x85", b"J" + large + b"\x85") if name.endswith("data.pkl") else data

    with pytest.raises(InvalidInput, match="cannot be read as a file of PyTorch"):
        convert(_rewritten(path, larger), {"activity": "x"})
    # a view of one number that claims to be many
    path = write_pt(tmp_path / "c", {"x": torch.zeros(1, 1).expand(3000, 1000)})
    monkeypatch.setattr(named_arrays, "LARGEST_DENSE_BYTES", 10**6)
    with pytest.raises(InvalidInput, match="GiB when written out in full"):
        convert(path, {"activity": "x", "variables": {"s": "step"}})
    # lists that hold one another many times over
    nested: list[Any] = [1, "a"]
    for _ in range(14):
        nested = [nested] * 10
    monkeypatch.setattr(tensor_files, "_MOST_VALUES", 1000)
    with pytest.raises(InvalidInput, match="more than 1000 values"):
        convert(write_pt(tmp_path / "d", {"x": nested}))
    monkeypatch.setattr(tensor_files, "_SAFE_TORCH", (99, 0))
    with pytest.raises(InvalidInput, match=r"PyTorch 2.6 or later"):
        convert(path)


def test_damaged_files_of_tensors(tmp_path):
    path = write_safetensors(tmp_path / "a", {"activity": torch.zeros(100, 3)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InvalidInput, match="cannot be read as a safetensors file"):
        convert(path)
    path = write_pt(tmp_path / "a", {"activity": torch.zeros(100, 3)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInput, match="cannot be read as a file of PyTorch"):
        convert(path)
    np.save(tmp_path / "a.npy", np.zeros((100, 3)))
    whole = (tmp_path / "a.npy").read_bytes()
    for broken in (
        whole[:-8],
        b"",
        whole[:20],
        b"no array at all" * 9,
        whole.replace(b"(100, 3)", b"(999999999999, 3)"),
    ):
        (tmp_path / "b.npy").write_bytes(broken)
        with pytest.raises(InvalidInput, match=r"cannot be read as a NumPy array|takes more memory than"):
            convert(tmp_path / "b.npy")
    evil = tmp_path / "evil"
    np.save(tmp_path / "c.npy", np.array([_Touch(evil)], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match="would run code") as refused:
        convert(tmp_path / "c.npy")
    assert refused.value.kind == "pickle_refused"
    (tmp_path / "d.npy").write_bytes(pickle.dumps(_Touch(evil)))
    with pytest.raises(InvalidInput, match="cannot be read as a NumPy array"):
        convert(tmp_path / "d.npy")
    np.savez(tmp_path / "e.npz", a=1)
    (tmp_path / "e.npz").rename(tmp_path / "e.npy")
    with pytest.raises(InvalidInput, match="an archive of arrays"):
        convert(tmp_path / "e.npy")
    assert not evil.exists()


# --------------------------------------------------------------------------------------------------- npy and files beside


def test_an_array_with_labels_in_files_beside_it(tmp_path):
    np.save(tmp_path / "acts.npy", HIDDEN)
    np.save(tmp_path / "label.npy", np.array(LABEL))
    (tmp_path / "more.csv").write_text("word,score\n" + "".join(f"w{trial},{trial / 2}\n" for trial in range(6)))
    book = openpyxl.Workbook()
    for row in (["day"], *[[trial] for trial in range(6)]):
        book.active.append(row)
    book.save(tmp_path / "days.xlsx")
    recipe = {
        "beside": ["label.npy", "more.csv", "days.xlsx"],
        "variables": {"label": "label", "word": "word", "day": "day", "score": "score", "late": "step > 1"},
    }
    recording = convert(tmp_path / "acts.npy", recipe)
    assert np.array_equal(recording.latents(dtype=np.float32), HIDDEN.reshape(-1, 3))
    assert values(recording, "label")[::4] == LABEL
    assert values(recording, "word")[::4] == [f"w{trial}" for trial in range(6)]
    assert values(recording, "day")[::4] == list(range(6))
    assert "beside it label.npy (sha256 " in recording.manifest.provenance.notes
    records = np.zeros(6, dtype=[("activity", "f4", (4, 3)), ("label", "i8"), ("word", "U2")])
    records["activity"], records["label"], records["word"] = HIDDEN, LABEL, "a"
    np.save(tmp_path / "records.npy", records)
    again = convert(tmp_path / "records.npy", {"variables": {"label": "label", "word": "word"}})
    assert np.array_equal(again.latents(), recording.latents())
    assert values(again, "label") == values(recording, "label")


def test_files_beside_that_cannot_be(tmp_path):
    np.save(tmp_path / "acts.npy", HIDDEN)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "acts.npy", HIDDEN)
    np.save(folder / "activity.npy", HIDDEN)
    for beside, error, message in (
        ("../acts.npy", InvalidInput, "expected a file beside the source"),
        (str(tmp_path / "acts.npy"), InvalidInput, "expected a file beside the source"),
        ("none.npy", NotFound, "no such file of beside"),
        ("activity.npy", InvalidInput, "'activity' also in"),
    ):
        with pytest.raises(error, match=message):
            convert(folder / "acts.npy", {"beside": [beside], "variables": {"s": "step"}})


def test_tensors_from_the_shell(tmp_path):
    np.save(tmp_path / "acts.npy", HIDDEN)
    np.save(tmp_path / "label.npy", np.array(LABEL))
    words = [
        "register",
        str(tmp_path / "acts.npy"),
        "--set",
        "lm",
        "--store",
        str(tmp_path / "s"),
        "-o",
        'beside=["label.npy"]',
    ]
    finished = CliRunner().invoke(verbs.app, [*words, "--variable", "label=label"])
    assert finished.exit_code == 0, finished.stderr
    assert "lm/acts registered: 24 samples × 3 units" in finished.stdout
    path = write_parquet(pa.table({"hidden": lists(HIDDEN[:, 0]), "label": LABEL}), tmp_path / "hf")
    words = ["register", str(path), "--set", "lm", "--store", str(tmp_path / "s"), "-o", "activity=hidden"]
    finished = CliRunner().invoke(verbs.app, words)
    assert "lm/hf registered: 6 samples × 3 units" in finished.stdout


# -------------------------------------------------------------------------------------------------------------- workbooks


def book_of(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


ROWS: list[list[Any]] = [
    ["trial", "side", "code", "rt", "u0", "u1", None],
    [0, "left", "007", 0.5, 1.5, 2, None],
    [0, "left", "7", "NA", 2.5, 3, None],
    [1, "right", "7", None, 3.5, 4, None],
]


def test_a_workbook(tmp_path):
    path = book_of(tmp_path / "a b.xlsx", {"first": ROWS, "second": [["u0", "n"], [1, 2], [3, 4]]})
    recording = convert(
        path, {"unit_columns": r"u\d+", "variables": {"side": "side", "code": "code", "fast": "isfinite(rt)"}}
    )
    assert recording.name == "a-b"
    assert recording.latents(dtype=float).tolist() == [[1.5, 2], [2.5, 3], [3.5, 4]]
    assert values(recording, "side") == ["left", "left", "right"]
    assert values(recording, "code") == ["007", "7", "7"]
    assert values(recording, "fast") == ["true", "false", "false"]
    assert recording.dataset["trial"].values.tolist() == [0, 0, 1]
    second = convert(path, {"unit_columns": "u0", "sheet": "second"})
    assert values(second, "n") == [2, 4]
    with pytest.raises(NotFound, match="no sheet 'third'; there are 'first', 'second'"):
        convert(path, {"unit_columns": "u0", "sheet": "third"})
    assert dict(find_converter(path).contents(path))["rt"] == "(3,) float64: 0.5, nan, nan"


@pytest.mark.usefixtures("in_process")
def test_workbooks_that_cannot_be_read(tmp_path, monkeypatch):
    recipe = {"unit_columns": "u0"}
    twice = book_of(tmp_path / "twice.xlsx", {"a": [["u0", "u0"], [1, 2]]})
    with pytest.raises(InvalidInput, match="columns named more than once: 'u0'"):
        convert(twice, recipe)
    with pytest.raises(InvalidInput, match="no header in the first row"):
        convert(book_of(tmp_path / "empty.xlsx", {"a": []}), recipe)
    data = twice.read_bytes()
    for broken in (b"", data[:-50], b"no workbook", data[:300] + b"\0" * 300 + data[600:]):
        (tmp_path / "b.xlsx").write_bytes(broken)
        with pytest.raises(InvalidInput, match="cannot be read as a workbook"):
            convert(tmp_path / "b.xlsx", recipe)
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/worksheets/sheet1.xml", b"0" * 10**6)
        (tmp_path / "bomb.xlsx").write_bytes(buffer.getvalue())
    monkeypatch.setattr(workbook, "LARGEST_BYTES", 10**5)
    with pytest.raises(InvalidInput, match="when they are decompressed") as refused:
        convert(tmp_path / "bomb.xlsx", recipe)
    assert refused.value.kind == "too_large"


def test_events_and_tables_of_annotations_in_workbooks(tmp_path):
    (tmp_path / "spikes.txt").write_text("t\n" + "\n".join(f"{time / 10}" for time in range(100)) + "\n")
    book_of(tmp_path / "cues.xlsx", {"a": [["time", "side"], [1, "l"], [3, "r"]]})
    recipe = {"events": "cues.xlsx", "start_s": 0, "stop_s": 1, "activity": "count", "variables": {"side": "side"}}
    recording = convert(tmp_path / "spikes.txt", recipe)
    assert values(recording, "side") == ["l", "r"]
    with pytest.raises(InvalidDocument, match="no column 'sides'"):
        convert(tmp_path / "spikes.txt", recipe | {"variables": {"side": "sides"}})
