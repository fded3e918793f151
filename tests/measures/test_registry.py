"""What every registered measure claims, checked: a new one is tested by being registered."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import special_ortho_group

from neuromas.errors import InvalidInput, NotFound
from neuromas.measures.registry import INVARIANCES, MEASURES, Measure, get_measure, measures_table

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def planted(n_samples: int, n_units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_samples, n_units)) + 0.3


CHANGES = {
    "rotation": lambda x, seed: x @ special_ortho_group.rvs(x.shape[1], random_state=seed),
    "scaling": lambda x, seed: x * np.random.default_rng(seed).uniform(0.1, 10),
    "unit scaling": lambda x, seed: x * np.random.default_rng(seed).uniform(0.1, 10, size=x.shape[1]),
    "shift": lambda x, seed: x + np.random.default_rng(seed).normal(size=x.shape[1]),
    "unit order": lambda x, seed: x[:, np.random.default_rng(seed).permutation(x.shape[1])],
}
EVERY_WAY = [
    pytest.param(
        measure, dict(zip(measure.options, chosen, strict=True)), id="-".join(map(str, (measure.name, *chosen)))
    )
    for measure in MEASURES.values()
    for chosen in itertools.product(*measure.options.values())
]
cases = st.tuples(st.integers(5, 30), st.integers(3, 8), st.integers(0, 10_000))


def test_every_invariance_has_a_test():
    assert list(CHANGES) == list(INVARIANCES)
    assert all(set(measure.invariances) <= set(INVARIANCES) for measure in MEASURES.values())


@pytest.mark.parametrize(("measure", "options"), EVERY_WAY)
@given(cases)
@settings(max_examples=10)
def test_compared_with_itself(measure, options, case):
    x = planted(*case)
    assert measure(x, x, **options) == pytest.approx(measure.identical, abs=1e-9)


@pytest.mark.parametrize(("measure", "options"), EVERY_WAY)
@given(cases)
@settings(max_examples=10)
def test_range_symmetry_and_order_of_samples(measure, options, case):
    n_samples, n_units, seed = case
    x, y = planted(n_samples, n_units, seed), planted(n_samples, n_units + 2, seed + 1)
    found = measure(x, y, **options)
    low, high = measure.range
    assert low <= found <= high
    assert (measure(y, x, **options) == pytest.approx(found, abs=1e-12)) == measure.symmetric
    order = np.random.default_rng(seed).permutation(n_samples)
    assert measure(x[order], y[order], **options) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
@given(cases)
@settings(max_examples=15)
def test_claimed_invariances_hold(measure, change, case):
    n_samples, n_units, seed = case
    x, y = planted(n_samples, n_units, seed), planted(n_samples, n_units + 1, seed + 1)
    if change in measure.invariances:
        assert measure(CHANGES[change](x, seed), y) == pytest.approx(measure(x, y), abs=1e-9)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_invariances_that_are_not_claimed_are_not_there(measure, change):
    x, y = planted(40, 6, 0), planted(40, 5, 1)
    moved = abs(measure(CHANGES[change](x, 2), y) - measure(x, y))
    assert (moved < 1e-9) == (change in measure.invariances)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_a_planted_rotation_leaves_more_than_unrelated_activity(measure):
    x = planted(200, 8, 0)
    turned = np.concatenate([CHANGES["rotation"](x, 1), planted(200, 2, 1)], axis=1)
    assert measure(x, turned) > 0.6 > 0.3 > measure(x, planted(200, 8, 3))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_float16_and_float32_are_computed_in_float64(measure):
    x, y = planted(50, 6, 0), planted(50, 6, 1)
    for dtype in (np.float16, np.float32):
        a, b = x.astype(dtype), y.astype(dtype)
        assert measure(a, b) == measure(a.astype(float), b.astype(float))


def test_look_up():
    assert get_measure("rsa") is MEASURES["rsa"]
    assert all(name == measure.name for name, measure in MEASURES.items())
    with pytest.raises(NotFound, match="no measure 'cca'; the measures are rsa, cka") as error:
        get_measure("cca")
    assert error.value.kind == "unknown_measure"


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_options(measure: Measure):
    defaults = {name: allowed[0] for name, allowed in measure.options.items()}
    assert measure.settled() == defaults
    with pytest.raises(InvalidInput, match=f"has no option 'n'; it has {', '.join(measure.options)}"):
        measure.settled({"n": 1})
    for name in measure.options:
        for wrong in ("no such", 1, None, []):
            with pytest.raises(InvalidInput, match=f"{name} is one of .*, got"):
                measure.settled({name: wrong})


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not part of this copy")
def test_the_page_holds_the_table_of_the_registry():
    table = "".join(line for line in PAGE.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("|"))
    assert table == measures_table(), f"{PAGE} is out of date: paste what measures_table() returns"
