"""The interchange against full d x d matrices (eq. 4) and against the formula of the linear map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuromas.align.interchange import LinearMap, interchange
from neuromas.errors import InvalidInput


def full_rotation(rng, n_units):
    q, _ = np.linalg.qr(rng.normal(size=(n_units, n_units)))
    return q


def of_columns(columns, scale=1.0):
    u = torch.from_numpy(np.asarray(columns))
    return LinearMap(scale * u.T, u / scale, torch.zeros(len(u), dtype=u.dtype))


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 7))
def test_is_equation_4_with_full_matrices(seed, n_units, rank):
    rank = min(rank, n_units)
    rng = np.random.default_rng(seed)
    q_src, q_trg = full_rotation(rng, n_units), full_rotation(rng, n_units)
    l_src, l_trg = rng.uniform(0.3, 3, 2)
    r_src, r_trg = l_src * q_src.T, l_trg * q_trg.T
    d = np.diag((np.arange(n_units) < rank).astype(float))
    h_src, h_trg = rng.normal(size=(2, 4, n_units))
    expected = np.array(
        [
            np.linalg.inv(r_trg) @ ((np.eye(n_units) - d) @ r_trg @ t + d @ r_src @ s)
            for t, s in zip(h_trg, h_src, strict=True)
        ]
    )
    found = interchange(
        torch.from_numpy(h_trg),
        torch.from_numpy(h_src),
        of_columns(q_trg[:, :rank], l_trg),
        of_columns(q_src[:, :rank], l_src),
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(2, 7))
def test_blocks_are_masks_of_equation_4(seed, n_src, n_trg):
    """Systems of different widths; D_v keeps the middle block of the components."""
    rng = np.random.default_rng(seed)
    rank = min(n_src, n_trg)
    u_src, u_trg = full_rotation(rng, n_src)[:, :rank], full_rotation(rng, n_trg)[:, :rank]
    mask = (rng.random(rank) < 0.5).astype(float)
    h_src, h_trg = rng.normal(size=(3, n_src)), rng.normal(size=(3, n_trg))
    z = (1 - mask) * (h_trg @ u_trg) + mask * (h_src @ u_src)
    expected = h_trg - h_trg @ u_trg @ u_trg.T + z @ u_trg.T
    found = interchange(
        torch.from_numpy(h_trg),
        torch.from_numpy(h_src),
        of_columns(u_trg),
        of_columns(u_src),
        torch.from_numpy(mask),
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    # the other block, and what lies outside the subspace, are the target's own
    np.testing.assert_allclose((found.numpy() @ u_trg)[:, mask == 0], (h_trg @ u_trg)[:, mask == 0], atol=1e-9)
    outside = np.eye(n_trg) - u_trg @ u_trg.T
    np.testing.assert_allclose(found.numpy() @ outside, h_trg @ outside, atol=1e-9)


def linear(rng, n_units, rank):
    u, a, mu = (
        full_rotation(rng, n_units)[:, :rank],
        rng.normal(size=(rank, rank)) + 2 * np.eye(rank),
        rng.normal(size=n_units),
    )
    made = LinearMap(*(torch.from_numpy(x) for x in (a @ u.T, u @ np.linalg.inv(a), mu)))
    return made, u, a, mu


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_is_the_formula_of_the_linear_map(seed, n_src, n_trg):
    rng = np.random.default_rng(seed)
    rank = min(n_src, n_trg)
    src, u_s, a_s, mu_s = linear(rng, n_src, rank)
    trg, u_t, a_t, mu_t = linear(rng, n_trg, rank)
    h_src, h_trg = rng.normal(size=(3, n_src)), rng.normal(size=(3, n_trg))
    z_src, z_trg = (h_src - mu_s) @ u_s @ a_s.T, (h_trg - mu_t) @ u_t @ a_t.T
    expected = h_trg + (z_src - z_trg) @ np.linalg.inv(a_t).T @ u_t.T
    found = interchange(torch.from_numpy(h_trg), torch.from_numpy(h_src), trg, src)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_a_latent_interchanged_with_itself_is_itself(seed, n_units, is_linear):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, n_units + 1))
    one = linear(rng, n_units, rank)[0] if is_linear else of_columns(full_rotation(rng, n_units)[:, :rank], 1.7)
    h = torch.from_numpy(rng.normal(size=(4, n_units)))
    torch.testing.assert_close(interchange(h, h, one, one), h, rtol=1e-7, atol=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_at_full_rank_the_targets_own_latent_does_not_matter(seed, n_units):
    """... which is stitching."""
    rng = np.random.default_rng(seed)
    src, trg = of_columns(full_rotation(rng, n_units), 2.0), of_columns(full_rotation(rng, n_units), 0.7)
    source = torch.from_numpy(rng.normal(size=(4, n_units)))
    one, other = (torch.from_numpy(rng.normal(size=(4, n_units))) for _ in range(2))
    found = interchange(one, source, trg, src)
    torch.testing.assert_close(found, interchange(other, source, trg, src))
    torch.testing.assert_close(found, interchange(other, source, trg, src, replace=True))


@given(st.integers(0, 10_000))
def test_replacing_keeps_nothing_of_the_target(seed):
    rng = np.random.default_rng(seed)
    u_src, u_trg = full_rotation(rng, 6)[:, :2], full_rotation(rng, 5)[:, :2]
    source, target = rng.normal(size=(3, 6)), rng.normal(size=(3, 5))
    found = interchange(
        torch.from_numpy(target), torch.from_numpy(source), of_columns(u_trg, 2.0), of_columns(u_src, 3.0), replace=True
    )
    np.testing.assert_allclose(found.numpy(), 1.5 * source @ u_src @ u_trg.T, atol=1e-10)


def test_arguments_are_left_alone():
    rng = np.random.default_rng(0)
    one = of_columns(full_rotation(rng, 4)[:, :2])
    target, source = torch.from_numpy(rng.normal(size=(2, 3, 4)))
    kept = target.clone(), source.clone()
    interchange(target, source, one, one)
    torch.testing.assert_close((target, source), kept, rtol=0, atol=0)


def test_widths_and_ranks_that_do_not_fit():
    rng = np.random.default_rng(0)
    four, five = of_columns(full_rotation(rng, 4)[:, :2]), of_columns(full_rotation(rng, 5)[:, :2])
    h4, h5 = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
    with pytest.raises(InvalidInput, match=r"target.* 5 units.*expects 4") as caught:
        interchange(h5, h5, four, five)
    assert caught.value.kind == "unit_mismatch"
    with pytest.raises(InvalidInput, match=r"source.* 4 units.*expects 5"):
        interchange(h4, h4, four, five)
    with pytest.raises(InvalidInput, match=r"rank 3.* 2") as caught:
        interchange(h4, h5, four, of_columns(full_rotation(rng, 5)[:, :3]))
    assert caught.value.kind == "rank_mismatch"
