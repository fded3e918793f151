"""RDMs and their comparison against rsatoolbox, scipy and the published value."""

from __future__ import annotations

import os
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from neuromas.errors import InvalidInput
from neuromas.measures.rsa import COMPARISONS, DISSIMILARITIES, compare_rdms, dissimilarities_of, rdm, rsa

NAMED_FOLDER = os.environ.get("NEUROMAS_TEST_DATA", "")
KRIEGESKORTE = Path(NAMED_FOLDER) / "rsa_92images" / "Kriegeskorte_Neuron2008_supplementalData.mat"

needs_rsatoolbox = pytest.mark.skipif(
    find_spec("rsatoolbox") is None, reason="needs rsatoolbox: pip install 'neuromas[peers]'"
)
needs_data = pytest.mark.skipif(not NAMED_FOLDER, reason="NEUROMAS_TEST_DATA names no folder that holds rsa_92images")
sizes = st.tuples(st.integers(4, 25), st.integers(2, 12), st.integers(0, 10_000))


def planted(n_samples: int, n_units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_samples, n_units))


def literal_spearman(x: np.ndarray, y: np.ndarray) -> float:
    """RSA written out pair by pair: 1 − cosine below the diagonal, and scipy's Spearman."""
    pairs = []
    for z in (x, y):
        below = []
        for i in range(len(z)):
            for j in range(i):
                below.append(1 - z[i] @ z[j] / (np.sqrt(z[i] @ z[i]) * np.sqrt(z[j] @ z[j])))
        pairs.append(below)
    return float(stats.spearmanr(*pairs).statistic)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("comparison", "published"), [("pearson", 0.491)])
def test_human_and_monkey_inferior_temporal_cortex_agree_as_published(comparison, published):
    from scipy.io import loadmat

    entries = loadmat(KRIEGESKORTE)["RDMs_mIT_hIT_fig1"].ravel()
    rdms = {str(one["name"].item()): np.asarray(one["RDM"], dtype=float).ravel() for one in entries}
    assert list(rdms) == ["mIT_674neurons", "hITvisStim_316vx"]
    monkey, human = rdms.values()
    assert monkey.size == 92 * 91 // 2
    found = compare_rdms(human, monkey, comparison)
    assert round(found, 3) == published
    # the square matrices hold zeros on the diagonal, which must have no part in it
    square = [distance.squareform(one) for one in (human, monkey)]
    assert compare_rdms(*square, comparison) == pytest.approx(found, abs=1e-12)


@needs_rsatoolbox
@given(sizes)
@settings(max_examples=20)
def test_rdms_are_those_of_rsatoolbox(size):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    x = planted(*size)
    n_units = x.shape[1]
    squared = calc_rdm(Dataset(x), method="euclidean").get_matrices()[0] * n_units
    np.testing.assert_allclose(rdm(x, "euclidean"), np.sqrt(np.maximum(squared, 0)), atol=1e-6)
    if n_units > 2:  # of two units, every correlation is 1 or -1
        np.testing.assert_allclose(
            rdm(x, "correlation"), calc_rdm(Dataset(x), method="correlation").get_matrices()[0], atol=1e-6
        )
    # 1 - cosine is half the squared distance of directions
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    halved = calc_rdm(Dataset(directions), method="euclidean").get_matrices()[0] * n_units / 2
    np.testing.assert_allclose(rdm(x), halved, atol=1e-6)


@needs_rsatoolbox
@pytest.mark.parametrize(("comparison", "theirs"), [("spearman", "spearman"), ("pearson", "corr")])
@given(sizes)
@settings(max_examples=20)
def test_comparisons_are_those_of_rsatoolbox(comparison, theirs, size):
    from rsatoolbox.rdm import RDMs, compare

    a, b = (dissimilarities_of(rdm(planted(*size[:2], seed))) for seed in (size[2], size[2] + 1))
    expected = float(np.squeeze(compare(RDMs(a[None]), RDMs(b[None]), method=theirs)))
    assert compare_rdms(a, b, comparison) == pytest.approx(expected, abs=1e-6)


@given(sizes)
@settings(max_examples=30)
def test_is_what_its_definition_says(size):
    n_samples, n_units, seed = size
    x, y = planted(n_samples, n_units, seed), planted(n_samples, n_units + 1, seed + 1)
    assert rsa(x, y) == pytest.approx(literal_spearman(x, y), abs=1e-6)


@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_rdm_is_scipys(dissimilarity):
    x = planted(30, 6, 0)
    expected = distance.squareform(distance.pdist(x, dissimilarity))
    np.testing.assert_allclose(rdm(x, dissimilarity), expected, atol=1e-9)
    assert not rdm(x, dissimilarity).diagonal().any()


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_the_diagonal_has_no_part_in_it(comparison):
    a, b = (rdm(planted(6, 4, seed)) for seed in (0, 1))
    with_it = np.tril_indices(6)
    wrong = stats.spearmanr(a[with_it], b[with_it]).statistic
    found = compare_rdms(a, b, comparison)
    np.fill_diagonal(a, 7)
    assert compare_rdms(a, b, comparison) == found
    assert abs(found - wrong) > 0.05


def test_order_of_pairs_is_squareforms():
    square = rdm(planted(7, 3, 0))
    np.testing.assert_array_equal(dissimilarities_of(square), distance.squareform(square, checks=False))


@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_rounding_breaks_no_ties(dissimilarity):
    # equal latents, as every trial's first step has; a rotation computes each of their dissimilarities anew
    x = np.repeat(planted(8, 5, 0), 6, axis=0)
    turned = x @ stats.special_ortho_group.rvs(5, random_state=0)
    if dissimilarity == "correlation":  # sees the mean over units, which a rotation moves
        turned = 3.7 * x
    a, b = (dissimilarities_of(rdm(z, dissimilarity)) for z in (x, turned))
    assert compare_rdms(a, b) == pytest.approx(1, abs=1e-12)
    assert (a == 0).sum() >= 8 * 15 or dissimilarity != "cosine"


def test_five_stimuli_are_enough():
    x, y = planted(5, 7000, 0), planted(5, 3, 1)
    assert rsa(x, y) == pytest.approx(literal_spearman(x, y), abs=1e-6)


def test_three_samples_are_the_fewest():
    assert -1 <= rsa(planted(3, 4, 0), planted(3, 4, 1)) <= 1
    with pytest.raises(InvalidInput, match="at least 3 samples, got 2") as error:
        rsa(planted(2, 4, 0), planted(2, 4, 1))
    assert error.value.kind == "too_few_samples"


@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_memory_is_that_of_the_rdm_not_of_all_differences(dissimilarity):
    n_samples, n_units = (1800, 7000) if dissimilarity != "euclidean" else (1800, 700)
    x = np.random.default_rng(0).random((n_samples, n_units))
    tracemalloc.start()
    rdm(x, dissimilarity)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * (x.nbytes + 8 * n_samples**2)  # 657 GiB would be all differences


@pytest.mark.parametrize(
    ("x", "options", "told", "kind"),
    [
        (np.zeros((5, 2)), {}, "x: 5 of 5 samples are zero in every unit", "undefined_measure"),
        (np.eye(5)[:, :2], {}, "x: 3 of 5 samples are zero", "undefined_measure"),
        (
            np.full((5, 3), 0.1),
            {"dissimilarity": "correlation"},
            "5 of 5 samples are equal in all",
            "undefined_measure",
        ),
        (np.full((5, 3), 0.1), {}, "all 10 dissimilarities are equal", "undefined_measure"),
        (np.full((5, 3), 0.1), {"dissimilarity": "euclidean"}, "all 10 dissimilarities are", "undefined_measure"),
        (np.arange(1.0, 6)[:, None], {}, "all 10 dissimilarities are equal", "undefined_measure"),
        (np.outer(np.arange(1.0, 6), [0.1, 0.7, 3]), {}, "all 10 dissimilarities are equal", "undefined_measure"),
        (np.full((5, 3), np.nan), {}, "15 numbers are NaN or infinite, in 5 of 5 samples", "not_finite"),
        (np.ones(5), {}, r"got \(5,\)", "shape_mismatch"),
        (np.ones((4, 2)), {}, "x has 4 samples, y has 5", "sample_mismatch"),
        (
            np.ones((5, 2)),
            {"dissimilarity": "hamming"},
            "no dissimilarity 'hamming'; expected one of cos",
            "unknown_option",
        ),
        (planted(5, 2, 1), {"comparison": "kendall"}, "expected one of spearman, pearson", "unknown_option"),
    ],
)
def test_what_has_no_answer_is_an_error_not_nan(x, options, told, kind):
    with pytest.raises(InvalidInput, match=told) as error:
        rsa(x, planted(5, 4, 0), **options)
    assert error.value.kind == kind


@pytest.mark.parametrize(
    ("a", "told"),
    [
        (np.ones((3, 4)), r"got \(3, 4\)"),
        (np.ones((2, 2)), r"at least 3 samples, got \(2, 2\)"),
        (np.ones(1), r"got \(1,\)"),
        (np.ones(4), r"got \(4,\)"),
        (np.arange(9.0).reshape(3, 3), "not symmetric"),
        ([1, np.nan, 3], "1 of 3 dissimilarities are NaN"),
        (np.arange(6.0), "6 and 3 pairs"),
        ([2, 2, 2], "all 3 dissimilarities are equal"),
        ([0, 0, 0], "all 3 dissimilarities are equal"),
    ],
)
def test_what_is_no_rdm_is_refused(a, told):
    with pytest.raises(InvalidInput, match=told):
        compare_rdms(a, [1.0, 2.0, 3.0])


def test_extreme_magnitudes_neither_overflow_nor_vanish():
    x = planted(10, 4, 0)
    for scale in (1e300, 1e-300):
        assert rsa(scale * x, x) == pytest.approx(1)
        assert rsa(scale * x, x, dissimilarity="correlation") == pytest.approx(1)
