"""Every parametrisation against dense formulas and torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.parametrizations import orthogonal
from torch.utils._python_dispatch import TorchDispatchMode

from neuromas.align.rotation import (
    ROTATIONS,
    balance,
    make_rotation,
    orthonormalise,
    random_columns,
    scaled_and_squared,
)
from neuromas.errors import InvalidInput, NotFound

SHAPES = [(1, 1), (2, 1), (5, 5), (6, 2), (12, 3), (16, 2), (9, 8)]


def columns(n_units: int, rank: int, seed: int = 0) -> torch.Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_units, rank)))
    return torch.from_numpy(q)


@given(st.integers(1, 12), st.integers(0, 1000), st.floats(0, 255), st.booleans())
def test_the_exponential_is_scipys(size, seed, norm, skew):
    """By the operations of a GPU, here on the CPU; the series is off by less than 1e-13, and every squaring doubles that."""
    square = np.random.default_rng(seed).normal(size=(size, size))
    square = square - square.T if skew else square
    square *= (norm if skew else norm / 10) / max(np.abs(square).sum(axis=0).max(), 1e-9)
    expected = scipy.linalg.expm(square)
    found = scaled_and_squared(torch.from_numpy(square))
    tolerance = max(1e-11, 2 * norm * 1e-13)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_the_exponential_of_what_is_too_large_is_no_number():
    square = torch.tensor([[0.0, -260.0], [260.0, 0.0]])
    assert scaled_and_squared(square).isnan().all()
    assert scaled_and_squared(square / 2).isfinite().all()


@pytest.mark.parametrize("size", [0.0, 0.5, 60.0])
def test_balanced_factors_give_the_same_columns_of_a_smaller_matrix(size, monkeypatch):
    """As on a GPU: with them the exponential is in reach where the parameters are large."""
    rotation = make_rotation("matrix-exponential", columns(40, 4))
    with torch.no_grad():
        rotation.free += size * columns(40, 4, 1)  # of spectral norm `size`
    expected = rotation().detach()
    largest = []

    def watched(square):
        largest.append(square.abs().sum(dim=0).max().item())
        return scaled_and_squared(square)

    monkeypatch.setattr("neuromas.align.rotation.exponential", watched)
    found = rotation.columns(balance(rotation.free))
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-9)
    assert largest[0] <= 1 + 4 * max(size, 1.0)
    goal = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 4)))
    (mine,) = torch.autograd.grad((found * goal).sum(), rotation.free)
    monkeypatch.undo()
    (its,) = torch.autograd.grad((rotation() * goal).sum(), rotation.free)
    torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_the_exponential():
    for scale in (0.01, 1.0, 8.0):
        square = scale * torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.autograd.gradcheck(scaled_and_squared, (square.requires_grad_(),))


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize(("n_units", "rank"), SHAPES)
def test_starts_where_it_is_told_to(name, n_units, rank):
    for seed in range(5):
        initial = columns(n_units, rank, seed)
        torch.testing.assert_close(make_rotation(name, initial)(), initial, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_starts_at_columns_of_the_identity(name, sign):
    """Where a Householder factorisation finds nothing to reflect."""
    for n_units, rank in SHAPES:
        initial = sign * torch.eye(n_units, rank)
        torch.testing.assert_close(make_rotation(name, initial)(), initial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ROTATIONS)
@settings(max_examples=25)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 1000), n_steps=st.integers(1, 8), rate=st.floats(0.001, 1.0))
def test_stays_orthonormal_whatever_the_optimiser_does(name, shape, seed, n_steps, rate):
    rotation = make_rotation(name, columns(*shape, seed).float())
    optimiser = torch.optim.Adam(rotation.parameters(), lr=rate)
    goal = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    for _ in range(n_steps):
        optimiser.zero_grad()
        (rotation() * goal).sum().backward()
        optimiser.step()
    found = rotation().detach()
    torch.testing.assert_close(found.T @ found, torch.eye(shape[1]), rtol=0, atol=5e-5)  # torch's matrix_exp: 2.3e-5


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("shape", [(5, 2), (12, 2), (6, 6)])
def test_gradients(name, shape):
    rotation = make_rotation(name, columns(*shape))
    with torch.no_grad():
        for parameter in rotation.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).double()
    (parameter,) = rotation.parameters()

    def of(free):
        return torch.func.functional_call(rotation, {"free": free}, ())

    assert torch.autograd.gradcheck(of, (parameter.detach().clone().requires_grad_(),))


@pytest.mark.parametrize("name", ROTATIONS)
def test_finds_a_planted_subspace(name):
    """Columns in 8 dimensions, sought by gradient from a random start."""
    goal = columns(8, 2, 1).float()
    rotation = make_rotation(name, columns(8, 2, 2).float())
    optimiser = torch.optim.Adam(rotation.parameters(), lr=0.05)
    for _ in range(400):
        found = rotation()
        loss = (found @ found.T - goal @ goal.T).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-4


def moved(name: str, shape: tuple[int, int], seed: int):
    """A rotation with random parameters; and the dense skew-symmetric matrix that they stand for."""
    rotation = make_rotation(name, columns(*shape, seed))
    with torch.no_grad():
        rotation.free += 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    half = rotation.free.detach() @ rotation.initial.T
    return rotation, half - half.T


@settings(max_examples=30)
@given(st.sampled_from(SHAPES), st.integers(0, 1000))
def test_matrix_exponential_is_the_dense_one(shape, seed):
    rotation, skew = moved("matrix-exponential", shape, seed)
    torch.testing.assert_close(rotation().detach(), torch.linalg.matrix_exp(skew) @ rotation.initial)


@settings(max_examples=30)
@given(st.sampled_from(SHAPES), st.integers(0, 1000))
def test_cayley_is_the_dense_one(shape, seed):
    rotation, skew = moved("cayley", shape, seed)
    eye = torch.eye(shape[0], dtype=skew.dtype)
    dense = torch.linalg.solve(eye - skew / 2, (eye + skew / 2) @ rotation.initial)
    torch.testing.assert_close(rotation().detach(), dense)


@pytest.mark.parametrize(
    ("name", "theirs"), [("matrix-exponential", "matrix_exp"), ("cayley", "cayley"), ("householder", "householder")]
)
def test_square_rotations_are_those_of_torch(name, theirs):
    n_units = 5
    linear = torch.nn.Linear(n_units, n_units, bias=False, dtype=torch.float64)
    torch.nn.init.eye_(linear.weight)
    orthogonal(linear, orthogonal_map=theirs, use_trivialization=theirs != "householder")
    free = torch.randn(n_units, n_units, generator=torch.Generator().manual_seed(0)).double().tril(-1)
    original = linear.parametrizations.weight.original
    rotation = make_rotation(name, torch.eye(n_units, dtype=torch.float64))
    with torch.no_grad():
        original.copy_(free + torch.diag(rotation.sign) if theirs == "householder" else free)
        rotation.free.copy_(free)
    torch.testing.assert_close(rotation().detach(), linear.weight.detach())


def literal_gram_schmidt(free: np.ndarray) -> np.ndarray:
    """Eqs. 10-12, one column at a time."""
    done: list[np.ndarray] = []
    for column in free.T:
        rest = column.copy()
        for other in done:
            rest -= (other @ column) * other
        done.append(rest / np.linalg.norm(rest))
    return np.column_stack(done)


@given(st.sampled_from(SHAPES), st.integers(0, 1000))
def test_gram_schmidt_is_the_literal_one(shape, seed):
    free = np.random.default_rng(seed).normal(size=shape)
    found = orthonormalise(torch.from_numpy(free)).numpy()
    np.testing.assert_allclose(found, literal_gram_schmidt(free), atol=1e-8)


def test_gram_schmidt_moves_smoothly():
    """A small change of the free columns is a small change of the rotation: no sign flips."""
    free = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4)))
    before = orthonormalise(free)
    for step in range(200):
        free = free + 0.02 * torch.from_numpy(np.random.default_rng(step).normal(size=(8, 4)))
        after = orthonormalise(free)
        assert (after * before).sum(dim=0).min() > 0.5
        before = after


def test_random_columns_favour_no_direction():
    """Over the Stiefel manifold the mean is zero and the mean projection is I·k/d."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_columns(4, 2, generator) for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(dim=0), torch.zeros(4, 2), rtol=0, atol=0.04)
    projection = (drawn @ drawn.transpose(1, 2)).mean(dim=0)
    torch.testing.assert_close(projection, torch.eye(4) / 2, rtol=0, atol=0.03)


def test_unknown_rotation_lists_the_known():
    with pytest.raises(NotFound) as caught:
        make_rotation("givens", torch.eye(2))
    assert all(name in str(caught.value) for name in ROTATIONS)


def test_more_columns_than_units():
    with pytest.raises(InvalidInput, match="2 units") as caught:
        make_rotation("cayley", torch.ones(2, 3))
    assert caught.value.kind == "invalid_rank"


@pytest.mark.parametrize("bad", [2 * torch.eye(3), torch.ones(3, 2), torch.full((3, 2), float("nan"))])
def test_columns_that_are_not_orthonormal(bad):
    with pytest.raises(InvalidInput) as caught:
        make_rotation("cayley", bad)
    assert caught.value.kind == "not_orthonormal"


class Allocated(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and not one.is_nested:
                self.largest = max(self.largest, one.numel() * one.element_size())
        return found


def bytes_of_an_iteration(name: str, n_units: int, rank: int) -> tuple[int, int]:
    """(largest tensor, what parameters, optimiser and graph hold) while a map is trained."""
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    generator = torch.Generator().manual_seed(0)
    rotation = make_rotation(name, random_columns(n_units, rank, generator))
    optimiser = torch.optim.Adam(rotation.parameters(), lr=1e-3)
    latents = torch.randn(16, n_units, generator=generator)
    with Allocated() as seen:
        for _ in range(2):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                directions = rotation()
                loss = (latents @ directions @ directions.T - latents).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    states = [one for moments in optimiser.state.values() for one in moments.values()]
    parts = [*rotation.parameters(), *rotation.buffers(), *states, *(p.grad for p in rotation.parameters())]
    return seen.largest, sum(held.values()) + sum(one.numel() * one.element_size() for one in parts)


@pytest.mark.parametrize("name", ROTATIONS)
def test_memory_grows_with_units_times_rank(name):
    n_units, rank = 16_384, 32
    largest, _ = bytes_of_an_iteration(name, n_units, rank)
    assert (
        largest <= 2 * 4 * n_units * rank
    )  # two blocks of columns side by side; a square matrix would be 256 times that


@pytest.mark.parametrize("name", ROTATIONS)
def test_a_wide_rotation_trains_in_little_memory(name):
    _, held = bytes_of_an_iteration(name, 4096, 128)
    assert held < 100e6 / 2  # for one of two systems
