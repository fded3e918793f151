"""Labels that look like numbers, such as 007 and 7, stay apart, in every table of text."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from neuromas.actions.annotate import annotate
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.recordings.convert.converter import convert
from neuromas.recordings.convert.text import read_text
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.actions import AnnotateRequest


def csv_of(folder, *cells, name="a.csv", header="id,rate"):
    path = Path(folder, name)
    text = "\n".join([header, *(f"{cell},{at / 4}" for at, cell in enumerate(cells))]) + "\n"
    data = (text.replace(",", "\t") if ".tsv" in name else text).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def labels(path, **variable):
    recipe = {"unit_columns": "rate"} | ({"variables": {"id": {"expression": "id"} | variable}} if variable else {})
    recording = convert(path, recipe)
    return recording.to_dataset()["id"].values.tolist()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_labels_that_numbers_would_merge_are_text(tmp_path, name):
    path = csv_of(tmp_path, "007", "7", "12", name=name)
    assert labels(path) == ["007", "7", "12"]
    assert labels(path, type="categorical") == ["007", "7", "12"]
    named = {"007": "Bond", "7": "seven", "12": "twelve"}
    assert labels(path, meanings=named) == ["Bond", "seven", "twelve"]
    with pytest.raises(InvalidDocument, match="no meaning is given for '007'"):
        labels(path, meanings={"7": "seven", "12": "twelve"})


def test_padded_labels_are_numbers_unless_they_are_declared_categorical(tmp_path):
    path = csv_of(tmp_path, "007", "008", "010")
    assert labels(path) == [7, 8, 10]
    assert labels(path, type="categorical") == ["007", "008", "010"]
    assert labels(path, meanings={"7": "a", "8": "b", "10": "c"}) == ["a", "b", "c"]
    assert labels(path, meanings={"007": "a", "008": "b", "010": "c"}) == ["a", "b", "c"]
    # the column counts as numbers elsewhere
    variables = {"id": {"expression": "id", "type": "categorical"}, "big": "id > 7"}
    recording = convert(path, {"unit_columns": "rate", "trial": "id", "variables": variables})
    assert recording.trial.tolist() == [7, 8, 10]
    assert recording.to_dataset()["big"].values.tolist() == ["false", "true", "true"]
    assert recording.to_dataset()["id"].values.tolist() == ["007", "008", "010"]


def test_other_numbers_that_would_merge(tmp_path):
    assert labels(csv_of(tmp_path, "3.1", "3.10"), type="categorical") == ["3.1", "3.10"]
    assert labels(csv_of(tmp_path, "3.1", "3.10", "3.2")) == [3.1, 3.1, 3.2]
    assert labels(csv_of(tmp_path, "1.0", "2.0"), type="categorical") == ["1", "2"]
    long = ["1000000000000000001", "1000000000000000002"]
    huge = ["12345678901234567890123", "12345678901234567890124"]
    assert labels(csv_of(tmp_path, *huge)) == huge
    assert read_text(csv_of(tmp_path, *long, "NA"))["id"].tolist() == [*long, ""]
    assert labels(csv_of(tmp_path, "+1", "1")) == [1, 1]


def test_missing_cells_stay_missing(tmp_path):
    path = csv_of(tmp_path, "007", "7", "NA")
    assert read_text(path)["id"].tolist() == ["007", "7", ""]
    with pytest.raises(InvalidDocument, match="missing"):
        labels(path, type="categorical")


def test_columns_that_hold_numbers_only_are_numbers(tmp_path):
    path = csv_of(tmp_path, "00", "0", "07", header="u0,x")
    assert convert(path, {"unit_columns": "u0"}).latents().ravel().tolist() == [0, 0, 7]


EVENTS = {"start_s": 0, "stop_s": 1, "activity": "count", "coverage": "session"}


def test_labels_of_events(tmp_path):
    Path(tmp_path, "s.txt").write_text("t\n0.5\n1.1\n9.5\n")
    Path(tmp_path, "cues.csv").write_text("time,who\n1.0,007\n3,7\n5,12\n")
    recipe = EVENTS | {"events": "cues.csv", "variables": {"who": "who"}}
    who = convert(tmp_path / "s.txt", recipe).to_dataset()["who"].values.tolist()
    assert who == ["007", "7", "12"]
    Path(tmp_path, "cues.csv").write_text("time,who\n1.0,007\n3,008\n\n5,012\n")
    declared = recipe | {"variables": {"who": {"expression": "who", "type": "categorical"}, "late": "who > 7"}}
    dataset = convert(tmp_path / "s.txt", declared).to_dataset()
    assert dataset["who"].values.tolist() == ["007", "008", "012"]
    assert dataset["late"].values.tolist() == ["false", "true", "true"]


def test_labels_in_names_of_columns(tmp_path):
    Path(tmp_path, "s.txt").write_text("t\tdots007\tdots7\n0.5\t1.0\t2.0\n9\t3\t\n")
    recipe = EVENTS | {"event_columns": r"dots(?P<number>\d+)", "variables": {"number": "number"}}
    assert convert(tmp_path / "s.txt", recipe).to_dataset()["number"].values.tolist() == ["007", "7", "007"]
    Path(tmp_path, "s.txt").write_text("t\tdots01\tdots02\n0.5\t1.0\t2.0\n9\t3\t\n")
    assert convert(tmp_path / "s.txt", recipe).to_dataset()["number"].values.tolist() == [1, 2, 1]
    declared = recipe | {"variables": {"number": {"expression": "number", "type": "categorical"}}}
    assert convert(tmp_path / "s.txt", declared).to_dataset()["number"].values.tolist() == ["01", "02", "01"]


def test_a_table_beside_a_recording(tmp_path):
    store = RecordingStore(tmp_path / "store")
    recording = Recording.from_arrays(np.eye(3), {"subject": ["007", "7", "12"]}, name="r")
    store.register([recording], set="s")
    Path(tmp_path, "t.csv").write_text("subject,site\n007,03\n7,3\n12,4\n")

    def annotated(**request):
        request = {"recording": "s/r", "store": str(tmp_path / "store"), "table": str(tmp_path / "t.csv")} | request
        return annotate(AnnotateRequest(**request)).recording.to_dataset()

    dataset = annotated(variable={"site": "site"}, on=("subject",))
    assert dataset["site"].values.tolist() == ["03", "3", "4"]
    Path(tmp_path, "t.csv").write_text("subject,site\n007,03\n7,05\n12,04\n")
    assert annotated(variable={"site": "site"}, on=("subject",))["site"].values.tolist() == [3, 5, 4]
    declared = {"site": {"expression": "site", "type": "categorical"}}
    assert annotated(recipe=declared, on=("subject",))["site"].values.tolist() == ["03", "05", "04"]
    # padded numbers still find numbers
    Path(tmp_path, "t.csv").write_text("trial,site\n00,a\n01,b\n02,c\n")
    assert annotated(variable={"site": "site"})["site"].values.tolist() == ["a", "b", "c"]


def test_labels_of_events_of_a_folder(tmp_path):
    folder = tmp_path / "ks"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([1500, 33000, 150000]))
    np.save(folder / "spike_clusters.npy", np.array([0, 0, 0]))
    (folder / "params.py").write_text("sample_rate = 30000.\n")
    (tmp_path / "cues.csv").write_text("time,who\n0.1,007\n1.0,008\n3,012\n")
    recipe = EVENTS | {"events": "cues.csv", "variables": {"who": {"expression": "who", "type": "categorical"}}}
    assert convert(folder, recipe).to_dataset()["who"].values.tolist() == ["007", "008", "012"]


def test_labels_in_a_table_beside_an_array(tmp_path):
    np.save(tmp_path / "acts.npy", np.eye(3))
    (tmp_path / "labels.csv").write_text("who\n007\n008\n012\n")
    who = {"expression": "who", "type": "categorical"}
    dataset = convert(tmp_path / "acts.npy", {"beside": ["labels.csv"], "variables": {"who": who}}).to_dataset()
    assert dataset["who"].values.tolist() == ["007", "008", "012"]


@pytest.mark.parametrize(
    ("units", "key"), [(["007", "7", "012"], "unit=id"), (["7", "8", "12"], "unit=id"), (["007", "008", "012"], "unit")]
)
def test_a_table_of_units(tmp_path, units, key):
    store = RecordingStore(tmp_path / "store")
    store.register([Recording.from_arrays(np.eye(3), {"side": ["l", "r", "l"]}, name="r", units=units)], set="s")
    cells = units if units[0] == "007" else ["007", "008", "012"]
    lines = [f"{cell},0{number}" for number, cell in enumerate(cells, 3)]
    Path(tmp_path, "t.csv").write_text("\n".join(["id,site", *lines[::-1]]) + "\n")
    request = {"recording": "s/r", "store": str(tmp_path / "store"), "table": str(tmp_path / "t.csv"), "on": (key,)}
    dataset = annotate(AnnotateRequest(**request)).recording.dataset
    assert dataset["site"].values.tolist() == [3, 4, 5]
    declared = {"place": {"expression": "site", "type": "categorical"}}
    dataset = annotate(AnnotateRequest(**request, recipe=declared)).recording.dataset
    assert dataset["place"].values.tolist() == ["03", "04", "05"]


def test_a_table_in_another_encoding_is_refused(tmp_path):
    Path(tmp_path, "a.csv").write_bytes("id,rate\ncafé,1\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"not UTF-8.*0xe9"):
        labels(tmp_path / "a.csv")
