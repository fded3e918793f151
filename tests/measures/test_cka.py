"""CKA against its formula, written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from neuromas.errors import InvalidInput
from neuromas.measures.cka import KERNELS, centred_kernel, cka, hsic, zscored


def planted(n_samples: int, n_units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_samples, n_units))


def literal_hsic(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    """tr(KHLH) / (n − 1)², every product as a loop."""
    n = len(k)
    h = [[(i == j) - 1 / n for j in range(n)] for i in range(n)]

    def times(a, b):
        return [[sum(a[i][m] * b[m][j] for m in range(n)) for j in range(n)] for i in range(n)]

    product = times(times(times(k, h), l), h)
    return sum(product[i][i] for i in range(n)) / (n - 1) ** 2


def literal_cka(x: np.ndarray, y: np.ndarray, kernel: str, zscore: bool) -> float:
    kernels = []
    for z in (x.tolist(), y.tolist()):
        n, d = len(z), len(z[0])
        if zscore:
            for unit in range(d):
                mean = sum(row[unit] for row in z) / n
                deviation = (sum((row[unit] - mean) ** 2 for row in z) / n) ** 0.5
                for row in z:
                    row[unit] = (row[unit] - mean) / deviation
        k = [[sum(a * b for a, b in zip(z[i], z[j], strict=True)) for j in range(n)] for i in range(n)]
        if kernel == "cosine":
            k = [[k[i][j] / (k[i][i] * k[j][j]) ** 0.5 for j in range(n)] for i in range(n)]
        kernels.append(k)
    k, l = kernels  # noqa: E741
    return literal_hsic(k, l) / (literal_hsic(k, k) * literal_hsic(l, l)) ** 0.5


@pytest.mark.parametrize("zscore", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
@given(st.integers(3, 9), st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=15)
def test_is_what_its_formula_says(kernel, zscore, n_samples, n_units, n_others, seed):
    x, y = planted(n_samples, n_units, seed), 5 * planted(n_samples, n_others, seed + 1) + 1
    assert cka(x, y, kernel=kernel, zscore=zscore) == pytest.approx(literal_cka(x, y, kernel, zscore), abs=1e-6)


def test_linear_without_zscore_is_kornblith_et_al():
    x, y = planted(50, 8, 0), planted(50, 5, 1) + 3
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert cka(x, y, kernel="linear", zscore=False) == pytest.approx(expected, abs=1e-9)


def test_hsic_is_its_trace():
    k, l = (z @ z.T for z in (planted(12, 4, 0), planted(12, 3, 1)))  # noqa: E741
    h = np.eye(12) - 1 / 12
    assert hsic(k, l) == pytest.approx(np.trace(k @ h @ l @ h) / 11**2, rel=1e-9)
    np.testing.assert_allclose(centred_kernel(k), h @ k @ h, atol=1e-12)


def test_zscored_is_scikit_learns():
    x = 7 * planted(40, 5, 0) + 100
    x[:, 2] = 0.1  # a unit that never changes
    np.testing.assert_allclose(zscored(x), StandardScaler().fit_transform(x), atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e9, 1e300])
def test_a_unit_that_never_changes_has_no_part_in_it(kernel, constant):
    x, y = planted(30, 4, 0), planted(30, 4, 1)
    silent = np.column_stack([x, np.full((30, 2), constant)])
    assert cka(silent, y, kernel=kernel) == pytest.approx(cka(x, y, kernel=kernel), abs=1e-12)


@given(st.integers(3, 8), st.integers(1, 4), st.integers(0, 10_000))
@settings(max_examples=50)
def test_is_never_negative_nor_beyond_one(n_samples, n_units, seed):
    for kernel in KERNELS:
        assert 0 <= cka(planted(n_samples, n_units, seed), planted(n_samples, 1, seed + 1), kernel=kernel) <= 1


def test_independent_activity_of_many_samples_is_near_zero():
    assert cka(planted(2000, 3, 0), planted(2000, 3, 1)) < 0.01


@pytest.mark.parametrize(
    ("x", "options", "told", "kind"),
    [
        (np.ones((2, 3)), {}, "at least 3 samples, got 2", "too_few_samples"),
        (np.ones((5, 3)), {}, "all 3 units are constant over the 5 samples", "undefined_measure"),
        (np.zeros((5, 3)), {"kernel": "linear"}, "all 3 units are constant", "undefined_measure"),
        (np.full((5, 3), 0.1), {"zscore": False}, "all 5 samples are equally similar", "undefined_measure"),
        (np.full((5, 3), 0.1), {"zscore": False, "kernel": "linear"}, "equally similar", "undefined_measure"),
        (np.outer(np.arange(1, 6), [0.1, 0.3]), {"zscore": False}, "equally similar", "undefined_measure"),
        (np.eye(5, 2), {"zscore": False}, "3 of 5 samples have no direction", "undefined_measure"),
        (np.arange(-2.0, 3)[:, None], {}, "1 of 5 samples have no direction", "undefined_measure"),
        (np.full((5, 3), np.inf), {}, "15 numbers are NaN or infinite", "not_finite"),
        (np.ones((4, 3)), {}, "x has 4 samples, y has 5", "sample_mismatch"),
        (np.ones((5, 0)), {}, r"got \(5, 0\)", "shape_mismatch"),
        (np.eye(5), {"kernel": "rbf"}, "no kernel 'rbf'; expected one of cosine, linear", "unknown_option"),
        (np.eye(5), {"zscore": "yes"}, "expected true or false, got 'yes'", "unknown_option"),
    ],
)
def test_what_has_no_answer_is_an_error_not_nan(x, options, told, kind):
    with pytest.raises(InvalidInput, match=told) as error:
        cka(x, planted(5, 4, 0), **options)
    assert error.value.kind == kind


@pytest.mark.parametrize(("k", "l"), [(np.eye(3), np.eye(4)), (np.ones(3), np.ones(3)), (np.ones((1, 1)),) * 2])
def test_hsic_of_what_is_no_kernel(k, l):  # noqa: E741
    with pytest.raises(InvalidInput, match="expected two kernel matrices"):
        hsic(k, l)
