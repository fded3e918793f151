"""Presets: named groups of settings, whose values count and whose name does not."""

from __future__ import annotations

import pytest

from neuromas.errors import InvalidDocument
from neuromas.fit.fitters import CLMAS, DAS, FITTERS, LatentStitch
from neuromas.fit.folder import read_request
from neuromas.fit.request import parse_request, reopen, run_request, vary
from neuromas.fit.together import together
from neuromas.schema.fit import PRESETS, FitConfig, method_defaults
from neuromas.schema.sweep import SweepJob

QUICK = {"n_trials": 60, "n_train_pairs": 60, "n_validation_pairs": 20, "max_iterations": 2}


def request(systems=("multi-object/gru-0",), **config):
    return parse_request({"config": config, "systems": systems}, "test")


@pytest.mark.parametrize("method", FITTERS)
def test_fast_is_the_default_of_python_and_paper_that_of_documents(method):
    fast, paper = FITTERS[method]().config, FITTERS[method](preset="paper").config
    assert FitConfig.parse({**method_defaults(method), "preset": "fast"}, "test") == fast
    for name, value in PRESETS["fast"][method].items():
        assert getattr(fast, name) == value != FitConfig.model_fields[name].default
    assert request(method=method).config == paper.model_copy(update={"preset": None})
    assert request(method=method).config.identity_json() == paper.identity_json() != fast.identity_json()


def test_single_options_override_a_preset():
    config = CLMAS(8, learning_rate=0.5, batch_size=7).config
    assert (config.learning_rate, config.batch_size, config.schedule) == (0.5, 7, "cosine")
    assert request(method="das", preset="fast", max_iterations=3).config.max_iterations == 3


@pytest.mark.parametrize("fitter", [CLMAS(4, map="linear", seed=3), DAS(), LatentStitch(preset="paper")], ids=repr)
def test_a_stored_configuration_is_read_as_it_was(fitter):
    stored = fitter.config.model_dump_json()
    assert FitConfig.model_validate_json(stored) == fitter.config
    # with all values explicit, nothing is left for a later preset to fill
    assert FitConfig.model_validate_json(stored).model_fields_set == set(FitConfig.model_fields)


def test_a_preset_is_filled_in_for_each_combination():
    found = vary(request(method="clmas"), {"preset": ["paper", "fast"]})
    assert [each.request.config.epsilon for each in found] == [0.85, 3.0]
    found = vary(request(method="clmas", epsilon=1.5), {"preset": ["paper", "fast"]})
    assert [each.request.config.epsilon for each in found] == [1.5, 1.5]
    assert [each.request.config.max_iterations for each in found] == [20_000, 400]


def test_the_name_of_a_preset_decides_nothing(tmp_path):
    """A fit that was made under a preset is finished for whoever asks for its values."""
    named = request(method="das", preset="fast", **QUICK)
    values = named.config.model_dump(mode="json", exclude={"preset"})
    plain = request(**values)
    assert plain.config.preset is None
    assert plain.config != named.config
    first = run_request(named, tmp_path)
    again = run_request(plain, tmp_path)
    assert again.report == first.report
    assert read_request(tmp_path).config.preset is None
    assert reopen(tmp_path).report.config.preset == "fast"


def test_nor_does_it_in_a_sweep():
    system = {"name": "multi-object/gru-0", "made": {"task": "multi-object"}}
    fast = FitConfig.parse({**method_defaults("das"), "preset": "fast"}, "test")
    jobs = [
        SweepJob.parse({"config": config, "systems": [system]}, "test")
        for config in (fast, fast.model_copy(update={"preset": None}), DAS(preset="paper").config)
    ]
    assert jobs[0].identity() == jobs[1].identity() != jobs[2].identity()


def test_a_preset_that_does_not_exist():
    with pytest.raises(InvalidDocument, match="preset: expected 'fast' or 'paper', got 'quick'"):
        CLMAS(preset="quick")


def test_settings_of_the_preset_are_no_options_without_effect(cast):
    (fast,) = together(
        [LatentStitch(solver="closed-form", n_trials=60).config], [cast.net, cast.noisy], model=cast.model
    )
    assert fast.report.warnings == ()
