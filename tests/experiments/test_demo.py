"""The demo from end to end with few iterations: its table, its page, its going on after an interruption."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.console import Console

from neuromas import load_system
from neuromas.experiments import demo
from neuromas.fit.fitters import Fitter

METHODS = ["none", "random", "cl-ceiling", "stitch", "latent-stitch", "das", "mas", "clmas", "clmas-linear"]


@pytest.fixture(scope="module")
def short_jobs():
    """The demo's own jobs, cut to a few iterations on a few pairs."""
    cut = {"max_iterations": 4, "validate_every": 2, "n_train_pairs": 200, "n_validation_pairs": 50, "n_trials": 100}
    return [
        demo.Job(
            job.method,
            Fitter.from_config(job.fitter.config.model_copy(update=cut)),
            runs_both=job.runs_both,
            only_first=job.only_first,
        )
        for job in demo.jobs(0)
    ]


@pytest.fixture(scope="module")
def done(short_jobs, tmp_path_factory):
    out, told = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "jobs", lambda seed=0: short_jobs)
        scores = demo.run_demo(out, console=Console(file=told, width=110))
    return out, scores, told.getvalue()


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


def test_access_and_oracle_say_who_was_run(done):
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
    _, scores, told = done
    for score in scores:
        if (score.source, score.target) == ("gru-0", "gru-1"):
            assert re.search(rf"{score.method} +{score.iia:.3f}", told), score


def test_called_again_it_repeats_nothing(done, short_jobs, monkeypatch):
    out, _, _ = done
    before = rows_of(out)
    monkeypatch.setattr(demo, "jobs", lambda seed=0: short_jobs)
    monkeypatch.setattr(
        "neuromas.fit.together.run_together", lambda *_, **__: pytest.fail("a finished fit was run again")
    )
    demo.run_demo(out, console=Console(file=io.StringIO()))
    assert rows_of(out) == before
