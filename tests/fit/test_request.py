"""Requests that vary: which fits a grid of settings asks for, and that each keeps what it is."""

from __future__ import annotations

import pytest

from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.fit.request import at_point, parse_request, run_requests, settled, vary
from neuromas.fit.result import FitResult, results_table

TINY = {"n_trials": 60, "n_train_pairs": 60, "n_validation_pairs": 20, "batch_size": 12, "max_iterations": 4}
TINY |= {"validate_every": 2}


def request(method: str = "das", systems: tuple[str, ...] = ("multi-object/gru-0",), **config):
    document = {"config": {"method": method, **TINY, **config}, "systems": systems}
    return parse_request(document, "test")


def test_every_combination_in_order():
    found = vary(request(), {"subspaces.full": [4, 8], "learning_rate": [0.1, 1e-5], "seed": [3]})
    asked = [(one.request.config.subspaces, one.request.config.learning_rate, one.request.config.seed) for one in found]
    assert asked == [({"full": rank}, rate, 3) for rank in (4, 8) for rate in (0.1, 1e-5)]
    assert [one.name for one in found][1] == "subspaces.full=4,learning_rate=1e-05,seed=3"
    assert found[1].point == {"subspaces.full": 4, "learning_rate": 1e-5, "seed": 3}
    for one in found:  # all else is as it was
        same = one.request.config.model_copy(update={"subspaces": {"full": 16}, "learning_rate": 0.001, "seed": 0})
        assert same == request().config


def test_lists_and_objects_make_names_that_folders_can_have():
    found = vary(request(), {"subspaces": [{"phase": 2, "count": 3}, {"full": 4}], "variables": [["phase", "count"]]})
    assert [one.name for one in found] == [
        "subspaces=phase-2+count-3,variables=phase+count",
        "subspaces=full-4,variables=phase+count",
    ]
    assert found[0].request.config.subspaces == {"phase": 2, "count": 3}


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"seed": [1, 1]}, "are the same fit"),
        ({"learning_rate": [1, 1.0]}, "are the same fit"),  # two names of one fit
        ({"rank": [2, 4], "subspaces.full": [8]}, "the same setting"),
        ({"subspaces": [{"full": 2}], "rank": [4]}, "the same setting"),
        ({"method": ["das", "mas"]}, "one method"),
        ({"method.x": [1]}, "one method"),
        ({"seed.x": [1]}, "seed.x: seed is 5, which has no settings inside"),
    ],
)
def test_what_cannot_vary(axes, told):
    with pytest.raises(InvalidInput, match=told):
        vary(request(seed=5), axes)


def test_every_problem_is_told_once():
    with pytest.raises(InvalidDocument) as caught:
        vary(request(), {"colour": ["red", "blue"], "epsilon": [-1, 0.5], "seed": [0, 1]})
    assert len(caught.value.problems) == 2
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {"config.colour", "config.epsilon"}


def test_at_point_changes_nothing_that_it_is_given():
    config = {"subspaces": None, "seed": 0}
    assert at_point(config, {"subspaces.count": 2}) == {"subspaces": {"count": 2}, "seed": 0}
    assert config == {"subspaces": None, "seed": 0}


def test_requests_of_other_systems_are_no_company(tmp_path):
    mixed = {"a": request(), "b": request(systems=("multi-object/gru-1",))}
    for requests in (mixed, {}):
        with pytest.raises(InvalidInput, match="same systems"):
            run_requests(requests, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fit_that_diverges_is_named_and_the_others_are_there(tmp_path):
    varied = vary(
        request("mas", ("multi-object/gru-0", "multi-object/gru-1"), map="linear"), {"learning_rate": [1e-3, 1e25]}
    )
    with pytest.raises(InvalidInput, match=r"of fit learning_rate=1e\+25 became") as caught:
        run_requests({one.name: one.request for one in varied}, tmp_path)
    assert caught.value.kind == "diverged"
    assert FitResult.load(tmp_path / "learning_rate=0.001").report.iterations == 4
    assert not (tmp_path / "learning_rate=1e+25" / "result.json").exists()


def test_the_table_tells_each_fits_best_look(tmp_path):
    varied = vary(request(), {"seed": [0, 1]})
    results = run_requests({one.name: one.request for one in varied}, tmp_path)
    table = results_table(results, {one.name: one.point for one in varied})
    assert table["seed"].tolist() == [0, 1]
    for row, result in zip(table.to_dict("records"), results.values(), strict=True):
        best = min(result.report.history, key=lambda seen: seen.loss)
        assert (row["validation_loss"], row["best_iteration"], row["validation_iia"]) == (
            best.loss,
            best.iteration,
            min(best.iia.values()),
        )
        assert row["iterations"] == 4


def test_a_settled_request_finds_its_twin_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for twin, expected in (("twins/brain", str(tmp_path / "twins" / "brain")), ("auto", "auto"), (None, None)):
        request = parse_request({"config": {"method": "clmas", "twin": twin}, "systems": ["a"]}, "example")
        opened = settled(request)
        assert opened.config.twin == expected
        # where a twin lies is no part of what a fit is
        assert opened.config.identity_json() == request.config.identity_json()
