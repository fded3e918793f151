"""The demo from end to end with few iterations: its table, its page, its going on after an interruption."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.console import Console

from neuromas import load_system, reopen
from neuromas.evaluation.stimulation import stimulation_plan
from neuromas.experiments import demo
from neuromas.schema.evaluation import DirectionScore, Evaluation

METHODS = ["none", "random", "cl-ceiling", "stitch", "latent-stitch", "das", "mas", "clmas", "clmas-linear"]


@pytest.fixture(scope="module")
def short():
    """The demo's own requests, cut to a few iterations on a few pairs; patched in for `requests`."""
    cut = {"max_iterations": 4, "validate_every": 2, "n_train_pairs": 200, "n_validation_pairs": 50, "n_trials": 100}
    whole = demo.requests

    def requests(seed=0, *, quick=False):
        return {
            name: request.model_copy(update={"config": request.config.model_copy(update=cut)})
            for name, request in whole(seed, quick=quick).items()
        }

    return requests


def run_short(short, out, **options) -> tuple[list[DirectionScore], str]:
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "requests", short)
        scores = demo.run_demo(out, console=Console(file=printed, width=110), **options)
    return scores, printed.getvalue()


@pytest.fixture(scope="module")
def done(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, *run_short(short, out)


def rows_of(out) -> list[dict[str, str]]:
    with (out / "iia.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_method_and_direction(done):
    rows = rows_of(done[0])
    assert list(rows[0])[:6] == ["method", "source", "target", "ran", "oracle", "iia"]
    assert list(dict.fromkeys(row["method"] for row in rows)) == METHODS
    both, across = {("gru-0", "gru-0"), ("gru-0", "gru-1"), ("gru-1", "gru-0"), ("gru-1", "gru-1")}, {"gru-0", "gru-1"}
    for method in METHODS:
        directions = {(row["source"], row["target"]) for row in rows if row["method"] == method}
        if method == "das":
            assert directions == {("gru-0", "gru-0")}
        elif "stitch" in method:
            assert directions == {(s, t) for s in across for t in across if s != t}
        else:
            assert directions == both


def test_ran_and_oracle_say_who_was_run(done):
    for row in rows_of(done[0]):
        ran = {"mas": {"gru-0", "gru-1"}, "das": {"gru-0"}, "latent-stitch": set()}.get(row["method"], {"gru-0"})
        assert row["ran"] == str(row["target"] in ran), row
        by_oracle = row["target"] == "gru-1" and row["method"] != "mas"
        assert row["oracle"] == str(by_oracle), row
        assert 0 <= float(row["low"]) <= float(row["iia"]) <= float(row["high"]) <= 1
        assert int(row["n_pairs"]) >= 1000


def test_a_counterfactual_latent_itself_is_the_ceiling_and_doing_nothing_the_floor(done):
    for row in rows_of(done[0]):
        if row["method"] == "cl-ceiling":
            assert float(row["iia"]) >= 0.99
        if row["method"] in ("none", "random"):
            assert float(row["iia"]) <= 0.10


def test_the_page_holds_everything_and_fetches_nothing(done):
    page = (done[0] / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 7
    for row in rows_of(done[0]):
        assert f"<b>{float(row['iia']):.3f}</b>" in page
    assert "oracle" in page
    assert load_system(demo.LIVE).config.weights_sha256[:12] in page


def test_what_is_printed_is_what_is_stored(done):
    _, scores, printed = done
    for score in scores:
        if (score.source, score.target) == ("gru-0", "gru-1"):
            assert re.search(rf"{score.method} +{score.iia:.3f}", printed), score
    for method, use in (("clmas", "only read"), ("mas", "run"), ("das", "not used")):
        assert re.search(rf"^ *{method} .* {use} *$", printed, re.MULTILINE), method


@pytest.mark.parametrize("method", ["mas", "clmas-linear"])
def test_a_fit_can_be_reopened_and_evaluated(done, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = reopen(done[0] / "fits" / method)
    oracles = {side.name: load_system(demo.BRAIN) for side in result.sides if side.system is None}
    again = result.evaluate(method=method, oracles=oracles, controls=(), seed=0)
    stored = Evaluation.parse((done[0] / "fits" / method / "evaluation.json").read_text(), "evaluation.json")
    assert again.scores == stored.scores


def test_a_fit_can_be_reopened_and_planned_with(done):
    result = reopen(done[0] / "fits" / "clmas")
    live, brain = result.sides
    plan = stimulation_plan(result.alignment, live, brain, {"count": 3, "phase": "demo"}, n_samples=5)
    assert (plan.sizes["sample"], plan.sizes["unit"]) == (5, brain.n_units)


def test_called_again_it_repeats_nothing(done, short, monkeypatch):
    before = rows_of(done[0])
    monkeypatch.setattr("neuromas.fit.loop.step_together", lambda *_, **__: pytest.fail("a finished fit went on"))
    run_short(short, done[0])
    assert rows_of(done[0]) == before


def test_the_quick_demo_says_that_it_is_one(done, short, tmp_path):
    scores, printed = run_short(short, tmp_path, quick=True)
    assert [name for name in dict.fromkeys(score.method for score in scores) if name in METHODS[3:]] == list(demo.QUICK)
    assert re.search(r"full\s+demo\s+also\s+fits\s+stitch,\s+das,\s+mas,\s+clmas-linear", printed)
    assert (tmp_path / "report.html").is_file()
    iia = {(row["method"], row["source"], row["target"]): float(row["iia"]) for row in rows_of(done[0])}
    for row in rows_of(tmp_path):  # alone or beside others, but for rounding
        assert float(row["iia"]) == pytest.approx(iia[row["method"], row["source"], row["target"]], abs=0.01), row
