"""Seeds are whole numbers from 0; every other seed is refused in a sentence, wherever it enters."""

from __future__ import annotations

import numpy as np
import pytest

from neuromas import DAS, CLIndex, capture, compare, load_system, seeds
from neuromas.causal.balanced import balanced_trials
from neuromas.causal.model import get_task
from neuromas.errors import InvalidDocument, InvalidInput
from neuromas.evaluation.paired import paired_test
from neuromas.recordings.shuffle import shuffled
from neuromas.recordings.split import split_by_trial
from neuromas.schema import actions
from neuromas.schema.document import Document
from neuromas.schema.evaluation import EvaluationSpec
from neuromas.schema.fit import FitConfig
from neuromas.schema.system import TrainRequest

TASK = get_task("multi-object")
QUICK = {"n_trials": 60, "n_train_pairs": 30, "n_validation_pairs": 10, "batch_size": 8, "max_iterations": 1}


@pytest.fixture(scope="module")
def recording():
    return capture(load_system("multi-object/gru-0"), 20)


WITH_SEED: list[tuple[type[Document], dict[str, object]]] = [
    (FitConfig, {"method": "das"}),
    (TrainRequest, {"task": "multi-object"}),
    (EvaluationSpec, {}),
    (actions.CaptureRequest, {"system": "x"}),
    (actions.EvaluateRequest, {"folder": "x"}),
    (actions.PlanRequest, {"folder": "x", "source": "a", "target": "b", "want": {"n": 1}}),
    (actions.CompareRequest, {"x": "a/b", "y": "a/c"}),
    (actions.PoolRequest, {"recordings": ["a"], "by": ["n"], "name": "a/b"}),
    (actions.QueryRequest, {"recording": "a/b"}),
    (actions.DemoRequest, {}),
]


@pytest.mark.parametrize(("document", "fields"), WITH_SEED)
def test_requests_take_seeds_below_two_to_the_64(document, fields):
    assert document.parse({**fields, "seed": 2**64 - 1}, "test").seed == 2**64 - 1
    for wrong in (2**64, -1, 0.5, "a"):
        with pytest.raises(InvalidDocument, match="seed: expected"):
            document.parse({**fields, "seed": wrong}, "test")


def test_a_shuffle_has_such_a_seed_too():
    assert actions.AnnotateRequest.problems({"recording": "a/b", "shuffle": 2**64})
    assert not actions.AnnotateRequest.problems({"recording": "a/b", "shuffle": 2**64 - 1})


@pytest.mark.parametrize("seed", [-1, 0.5, "a", None])
def test_functions_refuse_what_is_no_seed(recording, seed):
    index = CLIndex(recording, ["count"])
    for use in (
        lambda: TASK.sample(3, seed),
        lambda: balanced_trials(TASK, 1, seed),
        lambda: capture(load_system("multi-object/gru-0"), 3, seed=seed),
        lambda: split_by_trial(recording, seed=seed),
        lambda: shuffled(recording, seed=seed),
        lambda: index.query({"count": 2}, n=1, seed=seed),
        lambda: compare(recording, recording, seed=seed),
        lambda: paired_test([0, 1], [1, 1], [0, 0], seed=seed),
    ):
        with pytest.raises(InvalidInput):
            use()


def test_a_fit_and_its_evaluation_with_the_largest_seed():
    fitter = DAS(4, seed=2**64 - 1, **QUICK)
    result = fitter.fit([load_system("multi-object/gru-0")])
    evaluation = result.evaluate(n_pairs=10, seed=2**64 - 1)
    assert evaluation.seed == 2**64 - 1


def test_small_seeds_are_those_of_numpy_and_torch():
    assert seeds.generator(3).integers(1000) == np.random.default_rng(3).integers(1000)
    generator = np.random.default_rng(0)
    assert seeds.generator(generator) is generator
    assert [seeds.for_torch(seed) for seed in (0, 2**64 - 1, 2**64 + 2)] == [0, 2**64 - 1, 2]
