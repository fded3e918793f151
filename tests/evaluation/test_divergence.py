"""How far from natural: known distributions, and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cosine, mahalanobis

from neuromas.errors import InvalidInput
from neuromas.evaluation.divergence import (
    cl_distance,
    natural_ellipsoid,
    nearest_values,
    outside_ellipsoid,
    relative_distance,
    sliced_wasserstein,
)


def test_the_distance_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    h, cl = rng.normal(size=(2, 20, 7))
    expected = [0.5 * ((a - b) ** 2).mean() + 0.5 * cosine(a, b) for a, b in zip(h, cl, strict=True)]
    found = cl_distance(torch.from_numpy(h), torch.from_numpy(cl))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_two_silent_latents_are_at_no_distance():
    silent, active = torch.zeros(1, 4), torch.ones(1, 4)
    assert cl_distance(silent, silent).item() == 0
    assert cl_distance(silent, active).item() == pytest.approx(0.5 * 1 + 0.5 * 1)  # L2 of 1, and no angle to speak of


def test_silence_has_a_finite_gradient():
    h = torch.zeros(2, 3, requires_grad=True)
    cl_distance(h, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_nearest_values_are_those_of_scipy():
    rng = np.random.default_rng(1)
    latents, means = rng.normal(size=(30, 5)), rng.normal(size=(6, 5))
    expected = np.linalg.norm(latents[:, None] - means, axis=2).argmin(axis=1)
    assert nearest_values(torch.from_numpy(latents), torch.from_numpy(means)).tolist() == expected.tolist()


SEEDS = st.integers(0, 2**31 - 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def turned(width, seed):
    return torch.linalg.qr(torch.randn(width, width, generator=seeded(seed), dtype=torch.float64)).Q


class TestRelativeDistance:
    def test_natural_latents_have_one_and_their_mean_less(self):
        """Three independent draws around one mean: any two are as far apart, the mean itself is nearer by √2."""
        mean = torch.randn(40, generator=seeded(0)) * 3
        x, cl, other = mean + torch.randn(3, 4000, 40, generator=seeded(1))
        assert relative_distance(x, cl, other) == pytest.approx((1, 1), abs=0.02)
        l2, angle = relative_distance(mean.expand_as(cl), cl, other)
        assert l2 == pytest.approx(0.5**0.5, abs=0.01)
        assert angle == pytest.approx(0.5, abs=0.03)  # exactly so where the noise is small beside the mean

    def test_a_natural_latent_is_the_yardstick(self):
        cl, other = torch.randn(2, 20, 6, generator=seeded(2))
        assert relative_distance(cl, cl, other) == (1.0, 1.0)

    def test_it_is_the_ratio_of_scipys_distances(self):
        x, cl, other = np.random.default_rng(3).normal(size=(3, 15, 5))
        wanted = [
            np.mean([distance(a, b) for a, b in zip(x, other, strict=True)])
            / np.mean([distance(a, b) for a, b in zip(cl, other, strict=True)])
            for distance in (lambda a, b: np.linalg.norm(a - b), cosine)
        ]
        assert relative_distance(*map(torch.from_numpy, (x, cl, other))) == pytest.approx(wanted)

    def test_without_natural_spread_there_is_no_ratio(self):
        cl = torch.randn(9, 4, generator=seeded(4))
        assert relative_distance(cl + 1, cl, cl * (1 + 1e-7)) == (None, None)
        assert relative_distance(cl[:0], cl[:0], cl[:0]) == (None, None)

    @settings(max_examples=25)
    @given(seed=SEEDS, width=st.integers(2, 6))
    def test_it_is_positive_and_keeps_under_rotation_and_scale(self, seed, width):
        x, cl, other = torch.randn(3, 12, width, generator=seeded(seed), dtype=torch.float64)
        found = relative_distance(x, cl, other)
        assert min(found) >= 0
        turn = 3 * turned(width, seed)
        assert relative_distance(x @ turn, cl @ turn, other @ turn) == pytest.approx(found)


class TestSlicedWasserstein:
    def test_each_projection_is_scipys(self):
        x, y = torch.randn(2, 50, 4, generator=seeded(0)) * torch.tensor([1.0, 2.0, 0.1, 1.0])
        directions = torch.randn(4, 7, generator=seeded(5), dtype=torch.float64)
        directions /= directions.norm(dim=0)
        wanted = [stats.wasserstein_distance((x.double() @ d).numpy(), (y.double() @ d).numpy()) for d in directions.T]
        assert sliced_wasserstein(x, y, n_projections=7, generator=seeded(5)) == pytest.approx(np.mean(wanted))

    def test_a_shift_is_seen_at_its_mean_projection(self):
        """E|θᵀs| of a unit vector θ in the plane is 2/π of the length of s."""
        x = torch.randn(30, 2, generator=seeded(1))
        found = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), n_projections=20_000, generator=seeded(2))
        assert found == pytest.approx(5 * 2 / np.pi, rel=0.02)

    def test_one_draw_is_nearer_to_another_than_to_a_wider_one(self):
        a, b, wide = torch.randn(3, 1000, 8, generator=seeded(3)) * torch.tensor([1.0, 1.0, 1.3])[:, None, None]
        noise, found = (sliced_wasserstein(a, other, generator=seeded(4)) for other in (b, wide))
        assert found > 3 * noise

    @settings(max_examples=25)
    @given(seed=SEEDS, width=st.integers(1, 6))
    def test_it_is_a_distance_of_clouds(self, seed, width):
        x, y = torch.randn(2, 10, width, generator=seeded(seed))
        found = sliced_wasserstein(x, y, generator=seeded(seed))
        assert found > 0
        assert sliced_wasserstein(y, x, generator=seeded(seed)) == pytest.approx(found)
        assert sliced_wasserstein(x, x.flip(0), generator=seeded(seed)) == pytest.approx(0, abs=1e-6)

    def test_a_common_rotation_changes_only_which_directions_were_drawn(self):
        x, y = torch.randn(2, 40, 3, generator=seeded(6), dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.2])
        turn = turned(3, 7)
        one, other = (
            sliced_wasserstein(a, b, n_projections=20_000, generator=seeded(8))
            for a, b in ((x, y), (x @ turn, y @ turn))
        )
        assert one == pytest.approx(other, rel=0.02)

    def test_clouds_of_different_sizes_are_refused(self):
        with pytest.raises(InvalidInput) as caught:
            sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
        assert caught.value.kind == "shape_mismatch"

    def test_no_latents_no_distance(self):
        assert sliced_wasserstein(torch.zeros(0, 2), torch.zeros(0, 2)) is None


class TestEllipsoid:
    WIDTHS = torch.tensor([5.0, 1.0, 0.5, 0.01])

    def latents(self, n, seed):
        return torch.randn(n, 4, generator=seeded(seed), dtype=torch.float64) * self.WIDTHS + 7

    @pytest.mark.parametrize("level", [0.9, 0.99])
    def test_of_a_gaussian_the_share_outside_is_what_was_asked_for(self, level):
        ellipsoid = natural_ellipsoid(self.latents(20_000, 0), self.latents(20_000, 1), level=level)
        assert outside_ellipsoid(self.latents(20_000, 2), ellipsoid) == pytest.approx(1 - level, abs=0.005)
        assert ellipsoid.radius == pytest.approx(stats.chi2.ppf(level, 4) ** 0.5, rel=0.02)

    def test_the_distance_is_scipys(self):
        natural = self.latents(300, 3)
        ellipsoid = natural_ellipsoid(natural, natural)  # of itself: plainly the sample covariance
        inverse = np.linalg.inv(np.cov(natural.numpy(), rowvar=False, bias=True))
        others = self.latents(5, 4) * 1.1
        wanted = [mahalanobis(one, natural.mean(dim=0).numpy(), inverse) for one in others.numpy()]
        np.testing.assert_allclose(ellipsoid.distance(others), wanted, rtol=1e-6)

    def test_a_small_shift_along_an_axis_of_little_variance_is_outside(self):
        ellipsoid = natural_ellipsoid(self.latents(5000, 5), self.latents(5000, 6))
        held_out = self.latents(1000, 7)
        assert outside_ellipsoid(held_out + torch.tensor([0.1, 0, 0, 0]), ellipsoid) < 0.03
        assert outside_ellipsoid(held_out + torch.tensor([0, 0, 0, 0.1]), ellipsoid) > 0.99

    def test_what_leaves_the_span_is_outside(self):
        """Natural latents fill 3 of 8 dimensions, in single precision; a thousandth of them outside is far."""
        span = turned(8, 8)[:3]
        natural, held_out, x = (
            (torch.randn(2000, 3, generator=seeded(seed), dtype=torch.float64) @ span).float() for seed in (9, 10, 11)
        )
        ellipsoid = natural_ellipsoid(natural, held_out)
        assert outside_ellipsoid(x, ellipsoid) == pytest.approx(0.01, abs=0.01)
        assert outside_ellipsoid(x + 1e-3 * turned(8, 8)[5].float(), ellipsoid) == 1

    def test_fewer_latents_than_units_make_no_natural_latent_look_strange(self):
        natural, held_out, x = (torch.randn(n, 50, generator=seeded(n)) for n in (30, 1000, 2000))
        ellipsoid = natural_ellipsoid(natural, held_out)
        assert outside_ellipsoid(x, ellipsoid) == pytest.approx(0.01, abs=0.01)
        assert outside_ellipsoid(2 * x, ellipsoid) > 0.99

    def test_latents_that_are_not_gaussian_keep_their_own_quantile(self):
        """Two far clusters: the chi-squared radius, that of one Gaussian, would leave half as many outside."""
        sides = [torch.randn(4000, 2, generator=seeded(seed)) for seed in (12, 13, 14)]
        for one in sides:
            one[::2, 0] += 30
        natural, held_out, x = sides
        assert outside_ellipsoid(x, natural_ellipsoid(natural, held_out)) == pytest.approx(0.01, abs=0.006)
        gaussian = natural_ellipsoid(natural, held_out, radius="chi2")
        assert gaussian.radius == pytest.approx(stats.chi2.ppf(0.99, 2) ** 0.5)
        assert outside_ellipsoid(x, gaussian) < 0.006

    def test_what_is_not_a_number_is_outside(self):
        ellipsoid = natural_ellipsoid(self.latents(50, 15), self.latents(50, 16))
        assert outside_ellipsoid(torch.full((2, 4), torch.nan), ellipsoid) == 1

    def test_silence_is_inside_silence(self):
        silent = torch.zeros(20, 3)
        ellipsoid = natural_ellipsoid(silent, silent)
        assert outside_ellipsoid(silent, ellipsoid) == 0
        assert outside_ellipsoid(silent + 0.1, ellipsoid) == 1

    @settings(max_examples=25)
    @given(seed=SEEDS, width=st.integers(2, 6))
    def test_a_common_rotation_changes_nothing(self, seed, width):
        sides = torch.randn(3, 40, width, generator=seeded(seed), dtype=torch.float64)
        turn = turned(width, seed)
        one, other = (natural_ellipsoid(a, b) for a, b in (sides[:2], sides[:2] @ turn))
        torch.testing.assert_close(one.distance(sides[2]), other.distance(sides[2] @ turn))
        assert one.radius == pytest.approx(other.radius)

    @pytest.mark.parametrize(("n", "m", "level"), [(0, 5, 0.99), (5, 0, 0.99), (5, 5, 1.0)])
    def test_nothing_to_go_by_is_refused(self, n, m, level):
        with pytest.raises(InvalidInput) as caught:
            natural_ellipsoid(torch.ones(n, 2), torch.ones(m, 2), level=level)
        assert caught.value.kind == "undefined_measure"
