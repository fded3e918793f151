"""Signatures, descriptions and looks of fitters and of their results."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Literal

import pytest
from pydantic import Field

from neuromas.errors import InvalidDocument
from neuromas.fit import fitters
from neuromas.fit.fitters import CLMAS, DAS, FITTERS, Fitter, LatentStitch, Stitch
from neuromas.schema.fit import FitConfig


@pytest.mark.parametrize("fitter", FITTERS.values())
def test_the_signature_is_that_of_the_fields(fitter):
    parameters = inspect.signature(fitter).parameters
    assert list(parameters)[:2] == ["rank", "preset"]
    assert set(parameters) == set(FitConfig.model_fields) - {"format_version", "method", "subspaces"} | {"rank"}
    config = fitter().config
    for name, parameter in parameters.items():
        if name != "rank":
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert parameter.default == getattr(config, name)
        assert f"\n{name} : " in fitter.__doc__
    assert parameters["seed"].annotation is int
    assert "\nlearning_rate : float, default 0.015 (0.001 with ``preset='paper'``)\n    Learning rate" in fitter.__doc__


def test_a_new_field_appears_by_itself(monkeypatch):
    class Extended(FitConfig):
        momentum: float = Field(default=0.5, description="Momentum of the optimiser.")
        flavour: Literal["sweet", "sour"] = "sweet"
        """Flavour of the fit."""

    monkeypatch.setattr(fitters, "FitConfig", Extended)
    monkeypatch.setattr(fitters, "default_config", lambda method, preset=None, map="orthogonal": extended(method))

    def extended(method):
        return Extended.parse({"method": method}, "test")

    class New(Fitter):
        """A method."""

        method = "das"

    assert inspect.signature(New).parameters["momentum"].default == 0.5
    assert "momentum : float, default 0.5\n    Momentum of the optimiser." in New.__doc__
    assert "flavour : {'sweet', 'sour'}, default 'sweet'\n    Flavour of the fit." in New.__doc__
    assert New(momentum=0.25).config.momentum == 0.25


@pytest.mark.parametrize(
    ("fitter", "text"),
    [
        (CLMAS(rank=8, map="linear"), "CLMAS(rank=8, map='linear')"),
        (CLMAS(), "CLMAS()"),
        (DAS({"phase": 2, "count": 4}, seed=3), "DAS(rank={'phase': 2, 'count': 4}, seed=3)"),
        (DAS({"count": 4}), "DAS(rank={'count': 4})"),
        (Stitch(), "Stitch()"),
        (Stitch(4, direction=("a", "b")), "Stitch(rank=4, direction=('a', 'b'))"),
        (LatentStitch(learn_scale=True), "LatentStitch(learn_scale=True)"),
        (CLMAS(preset="paper", learning_rate=0.015), "CLMAS(preset='paper', learning_rate=0.015)"),
        (Fitter.from_config(FitConfig(method="mas")), "MAS(preset=None)"),
    ],
)
def test_a_fitter_prints_what_differs_from_its_defaults(fitter, text):
    assert repr(fitter) == text
    assert eval(text, FITTERS | {one.__name__: one for one in FITTERS.values()}).config == fitter.config


def test_misspelt_options_end_with_the_nearest_name():
    with pytest.raises(InvalidDocument) as caught:
        CLMAS(0, learning_rat=0.1, subspaces={"full": 3}, epsilon=-1)
    assert caught.value.problems[:2] == [
        "learning_rat: no such option; did you mean 'learning_rate'?",
        "subspaces: use rank=, a number or a mapping from variables to numbers",
    ]
    assert [problem.partition(":")[0] for problem in caught.value.problems[2:]] == ["subspaces.full", "epsilon"]


class TestLooks:
    def test_a_result_is_short_in_a_terminal(self, cast):
        result = cast.fit("clmas", max_iterations=1)
        assert repr(result).startswith(
            "<FitResult clmas: net (intervene), brain (read); max_iterations, 1 iterations, "
        )
        assert len(repr(result)) < 200
        assert repr(result.report) == repr(result).replace("FitResult", "FitReport")
        assert str(result.report) == repr(result.report)

    def test_a_result_is_a_table_in_a_notebook(self, cast):
        result = cast.fit("mas", max_iterations=1, epsilon=0.2)
        strange = result.report.model_copy(update={"warnings": (*result.report.warnings, "<script>")})
        page = replace(result, report=strange)._repr_html_()
        assert "<script>" not in page
        assert "warning: &lt;script&gt;</span>" in page
        assert ">net-&gt;other</td>" in page
        best = result.report.best
        for text in ("mas", "max_iterations", "intervene", f"{best.loss:.4f}", "without effect: epsilon=0.2"):
            assert text in page
        for iia in best.iia.values():
            assert f">{iia:.4g}</td>" in page
