"""Fits compare values by meaning, say what they miss, and know what they were made from."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.prepare import make_sides
from neuromas.cli import verbs
from neuromas.errors import InvalidInput
from neuromas.evaluation.stimulation import stimulation_plan
from neuromas.fit.fitters import CLMAS, LatentStitch
from neuromas.fit.request import parse_request, reopen, run_request
from neuromas.fit.result import results_table
from neuromas.recordings.export import export
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.store import RecordingStore

SMALL = {"solver": "closed-form", "n_train_pairs": 400, "n_validation_pairs": 60}


def recorded(name, variables, n=300, seed=0, n_units=5, activity=None, **fields):
    """A recording of noise, whose variables are drawn from the values of `variables`."""
    generator = np.random.default_rng(seed)
    drawn = {key: np.asarray(values)[generator.integers(len(values), size=n)] for key, values in variables.items()}
    latents = generator.normal(size=(n, n_units)) if activity is None else activity
    return Recording.from_arrays(latents, drawn, name=name, **fields)


def offered(text: object, option: str) -> dict:
    return json.loads(re.search(option + r"=(\{.*?\})(?: leaves|$)", str(text))[1])


# ---------------------------------------------------------------------------------------------------- values by meaning

AS_TEXT = {"count": lambda values: values.astype(int).astype(str)}
OTHER_CODES = {"phase": lambda values: 2 - values.astype(int)}  # 2 is demo, 1 is response
AS_FLOATS = {"phase": lambda values: values + 1.0}


@pytest.mark.parametrize("changed", [AS_TEXT, OTHER_CODES, AS_FLOATS, AS_TEXT | OTHER_CODES])
def test_numbers_and_categories_are_refused_and_mapped(cast, changed):
    """With the right mapping, the fit is that of the recording as it was."""
    values = cast.noisy.values(["phase", "count"])
    columns = {"phase": np.array(["demo", "response"])[values[:, 0].astype(int)], "count": values[:, 1].astype(int)}
    columns |= {name: change(values[:, int(name == "count")]) for name, change in changed.items()}
    where = {"trial": cast.noisy.trial, "step": cast.noisy.step, "eligible": cast.noisy.eligible}
    other = Recording.from_arrays(cast.noisy.latents(), columns, name="brain", **where)
    with pytest.raises(InvalidInput, match="never compared with categories") as caught:
        cast.fit("clmas", [cast.net, other])
    assert caught.value.kind == "no_shared_value"
    mapping = offered(caught.value, "mapping")
    assert set(mapping["brain"]) == set(changed)
    if "phase" in changed and changed is not AS_FLOATS:  # what was offered is a guess, and says so
        assert "say which is which" in str(caught.value)
        mapping["brain"]["phase"] = {"values": {"demo": 2, "response": 1}}
    mapped = cast.fit("clmas", [cast.net, other], mapping=mapping)
    assert mapped.alignment.sha256() == cast.fit("clmas").alignment.sha256()


@pytest.mark.parametrize("turned", [False, True])
def test_two_recordings_that_only_a_mapping_joins(turned):
    pair = [recorded("a", {"n": [1, 2, 10]}), recorded("b", {"n": ["1", "2", "10"]}, seed=1)]
    pair = pair[::-1] if turned else pair
    with pytest.raises(InvalidInput, match="never compared with categories") as caught:
        LatentStitch(**SMALL).fit(pair)
    result = LatentStitch(**SMALL).fit(pair, mapping=offered(caught.value, "mapping"))
    assert [side.recording.spec("n").type for side in result.sides] == ["integer", "integer"]
    assert [misses.n_missed for misses in result.report.misses] == [0, 0]


def test_meanings_that_the_first_recording_does_not_have_meet_by_meaning():
    held = {"a": ["left", "right"], "b": ["centre", "left", "up"], "c": ["down", "left", "up"]}
    recordings = [recorded(name, {"side": sides}, seed=seed) for seed, (name, sides) in enumerate(held.items())]
    _, b, c = make_sides(recordings)
    specs = {side.name: side.recording.spec("side") for side in (b, c)}
    codes = {name: dict(zip(spec.meanings, spec.values, strict=True)) for name, spec in specs.items()}
    assert codes["b"]["up"] == codes["c"]["up"]
    assert codes["c"]["down"] not in codes["b"].values()
    pairs = draw_pair_set(Direction(b, c), "train", 200, LatentStitch(2).fit(recordings[:2]).alignment.subspaces, [0])
    shown = [b.recording.spec("side").label(code) for code in pairs.values[:, 0]]
    assert shown == b.recording.to_dataset()["side"].values[pairs.source].tolist()


def test_nothing_in_common_offers_the_mapping():
    pair = [recorded("a", {"side": ["l", "r"]}), recorded("b", {"side": ["left", "right"]}, seed=1)]
    with pytest.raises(InvalidInput, match="side of 'a' is l, r; side of 'b' is left, right") as caught:
        LatentStitch(**SMALL).fit(pair)
    assert caught.value.kind == "no_shared_value"
    result = LatentStitch(**SMALL).fit(pair, mapping=offered(caught.value, "mapping"))
    assert result.report.misses[0].n_missed == 0


def test_meanings_that_the_task_does_not_have_are_named(cast):
    phases = np.array(["demo", "response"])[cast.noisy.values(["phase"])[:, 0].astype(int)]
    phases = np.where(cast.noisy.trial % 4 == 0, "rest", phases)
    other = Recording.from_arrays(
        cast.noisy.latents(),
        {"phase": phases, "count": cast.noisy.values(["count"])[:, 0].astype(int)},
        name="brain",
        trial=cast.noisy.trial,
        step=cast.noisy.step,
        eligible=cast.noisy.eligible,
    )
    (warning,) = cast.fit("clmas", [cast.net, other], max_iterations=1).report.warnings
    assert "phase is 'rest' in some samples, which task 'toy' does not have ('demo', 'response')" in warning


HELD = {"side": ["l", "r", "up"], "cl": ["1", "10", "2"]}


class TestValues:
    PAIR = recorded("a", HELD), recorded("b", HELD, seed=1)

    def test_meanings_and_numbers_of_meanings(self):
        sides = make_sides(self.PAIR, values={"side": ("l", "up"), "cl": (2.0,)})
        for side in sides:
            rows = side.candidates["train"].samples
            shown = side.recording.to_dataset()
            assert set(shown["side"].values[rows].tolist()) == {"l", "up"}
            assert set(shown["cl"].values[rows].tolist()) == {"2"}

    def test_numbers_as_text_are_numbers(self):
        assert LatentStitch(values={"n": ("1", 2, "left")}).config.values == {"n": (1.0, 2.0, "left")}

    def test_a_meaning_that_nobody_has(self):
        with pytest.raises(
            InvalidInput, match="no system has side 'upp'; its values are 'l', 'r', 'up'; did you mean 'up'"
        ):
            make_sides(self.PAIR, values={"side": ("upp",)})


# ------------------------------------------------------------------------------------------------------- what is missed


@pytest.fixture(scope="module")
def missing():
    """Counts 1 to 8 and sides l, r, up against 1 to 4 and l, r."""
    more = recorded("a", {"side": ["l", "r", "up"], "n": range(1, 9)})
    return more, recorded("b", {"side": ["r", "l"], "n": range(1, 5)}, seed=1)


def test_missed_pairs_are_said_with_the_values_that_leave_them_out(missing):
    report = LatentStitch(**SMALL).fit(missing).report
    train = report.misses[0]
    (warning,) = report.warnings
    assert f"{train.n_missed} of 400 training pairs have no counterfactual latent" in warning
    assert "'b' was never recorded with side up; n 5, 6, 7, 8" in warning
    assert any(values.startswith("side=up") for values in train.values)  # not its code
    values = offered(warning, "values")
    assert values == {"side": ["l", "r"], "n": [1, 2, 3, 4]}
    restricted = LatentStitch(values=values, **SMALL).fit(missing).report
    assert restricted.warnings == ()
    assert restricted.misses[0].n_missed == 0


def test_combinations_that_were_never_recorded(missing):
    n = np.arange(300) % 4 + 1
    diagonal = Recording.from_arrays(
        np.random.default_rng(0).normal(size=(300, 4)), {"side": np.where(n > 2, "l", "r"), "n": n}, name="diagonal"
    )
    other = recorded("a", {"side": ["l", "r"], "n": range(1, 5)})
    (warning,) = LatentStitch(**SMALL).fit([other, diagonal]).report.warnings
    assert re.search(r"'diagonal' was never recorded with side=\w, n=\d \(\d+ pairs\)", warning)


def test_few_misses_say_nothing(missing):
    assert LatentStitch(**SMALL).fit([missing[1], missing[0]]).report.warnings == ()


def test_tables_show_the_misses_of_training(missing):
    result = LatentStitch(**SMALL).fit(missing)
    train = result.report.misses[0]
    assert f"{train.n_missed} of 400" in result._repr_html_()
    table = results_table({"one": result}, {"one": {"seed": 0}})
    assert table["missed_pairs"].tolist() == [train.n_missed / 400]


def test_clmas_of_recordings_names_latent_stitch(missing):
    with pytest.raises(InvalidInput, match="latent-stitch, LatentStitch, joins two that can only be read"):
        CLMAS(2).fit(missing)


def test_a_unit_that_costs_a_third_of_the_samples_is_named(missing):
    latents = np.random.default_rng(0).normal(size=(300, 5))
    latents[:120, 3] = np.nan
    holed = recorded("b", {"side": ["r", "l"], "n": range(1, 5)}, activity=latents, missing=True)
    other = recorded("a", {"side": ["r", "l"], "n": range(1, 5)}, seed=3)
    result = LatentStitch(**SMALL).fit([other, holed])
    sentence = "b: unit 'u3' was not recorded in 120 of 300 samples; without it 300 instead of 180 are complete"
    assert result.report.warnings[0].startswith(sentence)
    assert result.evaluate(n_pairs=20).warnings[0].startswith(sentence)
    without = LatentStitch(**SMALL).fit([other, holed], units={"b": ["u0", "u1", "u2", "u4"]})
    assert (without.report.warnings, without.report.inputs[1].n_samples) == ((), 300)
    latents = np.where(np.arange(5) == 3, np.nan, np.ones((300, 5)))
    holed = recorded("b", {"side": ["r", "l"], "n": range(1, 5)}, activity=latents, missing=True)
    with pytest.raises(InvalidInput, match="no eligible, complete sample in the train part; unit 'u3'"):
        LatentStitch(**SMALL).fit([other, holed])


# -------------------------------------------------------------------------------------------------- what it was made from


def test_a_plan_and_a_reopened_fit_name_what_they_were_made_from(tmp_path, missing):
    store = RecordingStore(tmp_path / "store")
    store.register(missing, set="lab")
    stored = {name: store.get(f"lab/{name}").manifest.content_sha256 for name in "ab"}
    mapping = {"b": {"side": {"values": {"r": "l", "l": "r"}}}}
    for number, mapped in enumerate((None, mapping)):
        document = {"config": {"method": "latent-stitch", **SMALL}, "read": ["lab/a", "lab/b"], "mapping": mapped}
        folder = tmp_path / f"fit-{number}"
        run_request(parse_request(document | {"store": str(store.path)}, "test"), folder)
        result = reopen(folder)
        source, target = result.sides
        assert {side.name: side.original.content_sha256 for side in result.sides} == stored
        assert {each.name: each.content_sha256 for each in result.report.inputs} == stored
        # under other names it says something else, and has a hash of its own
        assert source.recording.manifest.content_sha256 == stored["a"]
        assert (target.recording.manifest.content_sha256 == stored["b"]) is (mapped is None)
        assert target.recording.content_sha256 == target.recording.manifest.content_sha256
        made = stimulation_plan(result.alignment, source, target, {"n": 2, "side": "l"}, part="train")
        assert (made.recording, made.recording_sha256) == ("lab/b", stored["b"])
        assert (made.source_recording, made.source_recording_sha256) == ("lab/a", stored["a"])


def test_recordings_in_memory_and_in_files_know_their_hash(tmp_path, missing):
    result = LatentStitch(**SMALL).fit(missing)
    store = RecordingStore(tmp_path / "store")
    store.register(missing, set="lab")
    for number, recording in enumerate(missing):
        content = store.get(f"lab/{recording.name}", load=False).content_sha256
        assert recording.content_sha256 == result.report.inputs[number].content_sha256 == content
        assert recording.manifest.content_sha256 is None  # it is not stored
        assert recording.select_units([0]).content_sha256 != content
        export(recording, tmp_path / "again.npz")
        assert Recording.from_file(tmp_path / "again.npz", name=recording.name).content_sha256 == content


def test_the_hash_of_a_recording_in_memory_changes_no_identity(missing):
    """It is part of the report alone, whether somebody asked for it before or not."""
    fresh = [recording.select_samples(np.arange(recording.n_samples)) for recording in missing]
    before = LatentStitch(**SMALL).fit(fresh).report.identity
    assert all(recording.content_sha256 for recording in fresh)
    assert LatentStitch(**SMALL).fit(fresh).report.identity == before


# ----------------------------------------------------------------------------------------------------------------- shell


def test_the_shell_offers_options_and_shows_both_parts(tmp_path, missing, monkeypatch):
    monkeypatch.setenv("NEUROMAS_STORE", str(tmp_path / "store"))
    text = recorded("text", {"side": ["r", "l"], "n": ["1", "2", "3", "4"]}, seed=4)
    RecordingStore(tmp_path / "store").register([*missing, text], set="lab")
    words = ["fit", "latent-stitch", "--read", "lab/a", "-o", "solver=closed-form", "-o", "n_train_pairs=400"]
    shown = CliRunner().invoke(verbs.app, [*words, "--read", "lab/text", "--out", str(tmp_path / "x")]).output
    assert """--mapping '{"text": {"n": {"values": {"1": "1", "2": "2", "3": "3", "4": "4"}}}}'""" in shown
    shown = CliRunner().invoke(verbs.app, [*words, "--read", "lab/b", "--out", str(tmp_path / "y")]).output
    assert "missed training pairs" in shown
    assert """--values '{"side": ["l", "r"], "n": [1, 2, 3, 4]}' leaves them out""" in shown
    narrow = ["--values", '{"side": ["l", "r"], "n": [1, 2, 3, 4]}']
    shown = CliRunner().invoke(verbs.app, [*words, *narrow, "--read", "lab/b", "--out", str(tmp_path / "z")]).output
    assert "0 of 400" in shown
    assert "warning" not in shown


@pytest.mark.parametrize(
    "words", [["list", "--store", "URL"], ["fit", "das", "--system", "multi-object/gru-0", "--out", "URL"]]
)
def test_urls_are_refused_where_folders_are_named(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/lab", "gs://b", "file:///lab", "simplecache::s3://bucket/lab", "HTTPS://host/lab"):
        shown = CliRunner().invoke(verbs.app, [url if word == "URL" else word for word in words])
        assert shown.exit_code == 2
        assert "looks like a URL" in shown.output
    monkeypatch.setenv("NEUROMAS_STORE", "s3://bucket/lab")
    assert "looks like a URL" in CliRunner().invoke(verbs.app, ["list"]).output
    with pytest.raises(InvalidInput, match="'s3://bucket/lab' looks like a URL") as caught:
        RecordingStore("s3://bucket/lab")
    assert caught.value.kind == "not_local"
    assert list(tmp_path.iterdir()) == []
    RecordingStore(tmp_path / "a:b")  # a colon alone is no URL
