"""Closed forms: planted rotations are undone; scipy and scikit-learn agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.cross_decomposition import CCA

from neuromas.align.alignment import closed_form_maps, lay_out
from neuromas.align.closed_form import axes, canonical, procrustes, procrustes_axes
from neuromas.errors import InvalidInput


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array))


def rotation(rng, n):
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return q


def of(means, ranks, kind, **options):
    maps = closed_form_maps(means, lay_out(ranks), kind, "gram-schmidt", **options)
    with torch.no_grad():
        return [one() for one in maps]


def carried(into, out_of, latents):
    """Latents of one system in another, by way of the shared components."""
    return into.offset + out_of.components(latents) @ into.back.T


class TestAxes:
    @given(st.integers(0, 1000), st.integers(1, 5))
    def test_are_the_leading_right_singular_vectors(self, seed, rank):
        means = np.random.default_rng(seed).normal(size=(9, 6))
        found = axes(tensor(means), rank).numpy()
        expected = np.linalg.svd(means)[2][:rank].T
        assert subspace_angles(found, expected).max() < 1e-6
        np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-10)

    @pytest.mark.parametrize("rank", [3, 4, 6, 8])
    def test_beyond_the_number_of_values_the_basis_is_completed(self, rank):
        means = np.random.default_rng(0).normal(size=(3, 8))
        found = axes(tensor(means), rank).numpy()
        np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-6)
        np.testing.assert_allclose(means @ found @ found.T, means, atol=1e-6)

    def test_avoid_what_is_taken(self):
        rng = np.random.default_rng(0)
        taken = rotation(rng, 7)[:, :3]
        found = axes(tensor(rng.normal(size=(5, 7))), 4, avoid=tensor(taken)).numpy()
        np.testing.assert_allclose(found.T @ taken, 0, atol=1e-6)
        np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-6)

    def test_no_room(self):
        with pytest.raises(InvalidInput, match=r"rank 8.*7 units"):
            axes(torch.ones(3, 7), 8)


class TestProcrustes:
    @given(st.integers(0, 1000))
    def test_two_systems_as_in_scipy(self, seed):
        rng = np.random.default_rng(seed)
        one, other = rng.normal(size=(2, 9, 4))
        (q0, s0), (q1, s1) = procrustes([tensor(one), tensor(other)])
        np.testing.assert_allclose(q0.numpy(), np.eye(4))
        assert s0 == 1
        expected, total = orthogonal_procrustes(other, one)
        np.testing.assert_allclose(q1.numpy(), expected, atol=1e-8)
        assert s1 == pytest.approx(total / (other**2).sum())

    @settings(max_examples=20)
    @given(st.integers(0, 1000), st.integers(2, 5))
    def test_planted_rotations_and_scales_are_undone(self, seed, n_systems):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(10, 4))
        scales = rng.uniform(0.5, 2, n_systems)
        planted = [s * truth @ rotation(rng, 4) for s in scales]
        found = procrustes([tensor(z) for z in planted])
        assert all(scale > 0 for _, scale in found)
        together = [scale * z @ q.numpy() for z, (q, scale) in zip(planted, found, strict=True)]
        for other in together[1:]:
            np.testing.assert_allclose(other, together[0], atol=1e-5)


class TestCanonical:
    @settings(max_examples=20)
    @given(st.integers(0, 1000))
    def test_canonical_correlations_are_scikit_learns(self, seed):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=(60, 3))
        one = shared @ rng.normal(size=(3, 4)) + 0.5 * rng.normal(size=(60, 4))
        other = shared @ rng.normal(size=(3, 4)) + 0.5 * rng.normal(size=(60, 4))
        one, other = one - one.mean(0), other - other.mean(0)
        a, b = (m.numpy() for m in canonical([tensor(one), tensor(other)], ridge=1e-12))
        x, y = one @ a.T, other @ b.T
        np.testing.assert_allclose(x.T @ x / 60, np.eye(4), atol=1e-6)  # white
        found = np.array([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(4)])
        theirs = CCA(n_components=4, scale=False, tol=1e-12, max_iter=5000).fit(one, other)
        u, v = theirs.transform(one, other)
        expected = np.array([np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(4)])
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=2e-3)

    @settings(max_examples=20)
    @given(st.integers(0, 1000), st.integers(2, 4))
    def test_systems_that_are_linear_images_of_one_another_coincide(self, seed, n_systems):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(30, 4))
        truth -= truth.mean(0)
        seen = [tensor(truth @ (rng.normal(size=(4, 4)) + 2 * np.eye(4))) for _ in range(n_systems)]
        maps = canonical(seen, ridge=1e-12)
        shared = [(z @ a.T).numpy() for z, a in zip(seen, maps, strict=True)]
        for other in shared[1:]:
            np.testing.assert_allclose(other, shared[0], atol=1e-4)

    def test_more_components_than_values_stays_invertible(self):
        rng = np.random.default_rng(0)
        seen = [tensor(np.pad(rng.normal(size=(3, 2)), ((0, 0), (0, 4)))) for _ in range(2)]
        for a in canonical(seen):
            assert np.isfinite(np.linalg.cond(a.numpy()))
            assert torch.linalg.matrix_rank(a) == 6


class TestMaps:
    """Means → maps: a recording's means, rotated and scaled, are brought back to 1e-5."""

    @settings(max_examples=25)
    @given(st.integers(0, 1000), st.integers(2, 4), st.sampled_from(["orthogonal", "linear"]))
    def test_planted_systems_are_joined(self, seed, n_systems, kind):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(12, 5)) + 1.0
        widths = rng.integers(5, 10, n_systems)
        scales = rng.uniform(0.5, 2, n_systems)
        means = [tensor(s * truth @ rotation(rng, w)[:5]) for s, w in zip(scales, widths, strict=True)]
        maps = of([means], {"full": 5}, kind)
        for i, one in enumerate(means):
            for j, other in enumerate(means):
                np.testing.assert_allclose(carried(maps[j], maps[i], one).numpy(), other.numpy(), atol=1e-4)

    def test_the_planted_rotation_itself_is_found(self):
        rng = np.random.default_rng(0)
        means = rng.normal(size=(20, 6))
        planted = rotation(rng, 6)
        maps = of([[tensor(means), tensor(2.5 * means @ planted)]], {"full": 6}, "orthogonal")
        found = (maps[1].back @ maps[0].forward).numpy()  # source → target
        np.testing.assert_allclose(found, 2.5 * planted.T, atol=1e-5)

    def test_a_general_linear_image_needs_the_linear_map(self):
        rng = np.random.default_rng(1)
        means = rng.normal(size=(20, 4))
        image = means @ (rng.normal(size=(4, 4)) + np.eye(4)) + 3
        pair = [tensor(means), tensor(image)]
        bent = of([pair], {"full": 4}, "linear")
        np.testing.assert_allclose(carried(bent[1], bent[0], pair[0]).numpy(), image, atol=1e-3)
        stiff = of([pair], {"full": 4}, "orthogonal")
        assert np.abs(carried(stiff[1], stiff[0], pair[0]).numpy() - image).max() > 0.5

    @pytest.mark.parametrize("kind", ["orthogonal", "linear"])
    def test_rank_beyond_the_number_of_values(self, kind):
        rng = np.random.default_rng(2)
        means = rng.normal(size=(4, 9))
        pair = [tensor(means), tensor(means @ rotation(rng, 9))]
        maps = of([pair], {"full": 7}, kind)
        np.testing.assert_allclose(carried(maps[1], maps[0], pair[0]).numpy(), pair[1].numpy(), atol=1e-2)
        for one in maps:
            torch.testing.assert_close(one.forward @ one.back, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("kind", ["orthogonal", "linear"])
    def test_two_subspaces_are_disjoint(self, kind):
        rng = np.random.default_rng(3)
        phases, counts = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
        turn = rotation(rng, 8)
        means = [[tensor(m), tensor(m @ turn)] for m in (phases, counts)]
        first, second = of(means, {"phase": 2, "count": 4}, kind)
        for one in (first, second):
            # each block of the way there is blind to the other block of the way back
            torch.testing.assert_close(one.forward @ one.back, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
            grams = one.forward @ one.forward.T
            torch.testing.assert_close(grams[:2, 2:], torch.zeros(2, 4, dtype=torch.float64), rtol=0, atol=1e-6)

    def test_one_shared_value_is_too_few(self):
        with pytest.raises(InvalidInput, match="at least 2") as caught:
            of([[torch.ones(1, 3), torch.ones(1, 3)]], {"full": 2}, "orthogonal")
        assert caught.value.kind == "too_few_shared_values"


class TestLatentStitchAxes:
    @given(st.integers(0, 1000), st.integers(2, 6))
    def test_at_full_rank_as_in_scipy(self, seed, n_units):
        source, target = np.random.default_rng(seed).normal(size=(2, 20, n_units))
        u, v = procrustes_axes(tensor(source), tensor(target), n_units)
        np.testing.assert_allclose((u @ v.T).numpy(), orthogonal_procrustes(source, target)[0], atol=1e-8)

    @given(st.integers(0, 1000))
    def test_at_lower_rank_no_other_choice_is_better(self, seed):
        rng = np.random.default_rng(seed)
        source, target = rng.normal(size=(15, 6)), rng.normal(size=(15, 4))
        u, v = (x.numpy() for x in procrustes_axes(tensor(source), tensor(target), 2))

        def fitted(u, v):
            return np.sum(target * (source @ u @ v.T))  # what orthonormal columns maximise, given norms

        best = fitted(u, v)
        for _ in range(20):
            assert best >= fitted(rotation(rng, 6)[:, :2], rotation(rng, 4)[:, :2]) - 1e-9
