"""Distances to counterfactual latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from neuromas.evaluate.divergence import cl_distance, nearest_values


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
