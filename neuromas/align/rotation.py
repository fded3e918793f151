"""Orthonormal columns and their parametrisations: O(d·k) memory and O(d·k²) work if k is well below d.

The ``forward`` of each parametrisation gives the columns, shape (n_units, rank). It starts exactly at the columns that it was
made with. `ROTATIONS` names the parametrisations.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from neuromas.errors import InvalidInput, NotFound, suggestion


def random_columns(n_units: int, rank: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns, uniform over the Stiefel manifold; float32, shape (n_units, rank), on the CPU."""
    return orthonormalise(torch.randn(n_units, rank, generator=generator))


def orthonormalise(columns: Tensor) -> Tensor:
    """Apply the Gram-Schmidt process to `columns` (n_units, rank), eqs. 10-12: Q · sign(diag R) of a QR decomposition.

    Without the signs, columns of Q would flip from one iteration to the next.

    Examples
    --------
    >>> orthonormalise(torch.tensor([[-3.0], [0.0], [4.0]])).T
    tensor([[-0.6000,  0.0000,  0.8000]])
    """
    q, r = torch.linalg.qr(columns)
    sign = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    return q * sign


def exponential(square: Tensor) -> Tensor:
    """exp of a `square` matrix (n, n).

    On a GPU, torch's own function asks the host for the number of terms. That waits for the GPU, and cannot be part of a CUDA
    graph.
    """
    return scaled_and_squared(square) if square.is_cuda else torch.linalg.matrix_exp(square)


_SQUARINGS = 8


def scaled_and_squared(square: Tensor) -> Tensor:
    """exp of a `square` matrix (n, n) by the same operations for every matrix; NaN if its 1-norm is above 256.

    exp(A) = exp(A / 2ˢ)^(2ˢ), with s such that the norm of A / 2ˢ is at most 1. There, the first sixteen terms of the power
    series have an error below 10⁻¹³, and every squaring doubles it.

    Examples
    --------
    >>> scaled_and_squared(torch.tensor([[0.0, -torch.pi / 2], [torch.pi / 2, 0.0]])).round(decimals=4) + 0.0
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    norm = square.detach().abs().sum(dim=0).max()
    squarings = torch.ceil(torch.log2(norm)).clamp(0, _SQUARINGS)
    x = square * torch.exp2(-squarings)
    second = x @ x
    powers = torch.stack([torch.eye(len(x), dtype=x.dtype, device=x.device), x, second, second @ x])
    fourth = second @ second
    # the series' terms four at a time, then Horner's rule in x⁴
    *rows, result = (_series(x.dtype, x.device) @ powers.flatten(1)).unflatten(1, x.shape)
    for row in reversed(rows):
        result = torch.addmm(row, result, fourth)
    for number in range(_SQUARINGS):
        result = torch.where(number < squarings, result @ result, result)
    return torch.where(norm <= 2.0**_SQUARINGS, result, torch.nan)


@lru_cache(maxsize=16)
def _series(dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / n! for n up to 15, four in a row."""
    return torch.tensor([[1 / math.factorial(4 * row + n) for n in range(4)] for row in range(4)], dtype=dtype).to(
        device
    )


class GramSchmidt(nn.Module):
    """Free columns, made orthonormal by the Gram-Schmidt process (paper 2.6)."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.free = nn.Parameter(initial.clone())

    def forward(self) -> Tensor:
        return orthonormalise(self.free)


class MatrixExponential(nn.Module):
    """exp(A) U₀ with A = X U₀ᵀ − U₀ Xᵀ skew-symmetric (the paper's default parametrisation).

    A has rank 2k, so with P = [X, −U₀] and S = [U₀, X], exp(A) U₀ = U₀ + P φ(SᵀP) SᵀU₀, where φ(M) = Σ Mⁿ/(n+1)!. φ is a block
    of the exponential of a 4k × 4k matrix. A d × d matrix is built only if it is the smaller one.
    """

    initial: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.register_buffer("initial", initial.clone())
        self.free = nn.Parameter(torch.zeros_like(initial))

    def forward(self) -> Tensor:
        # torch's own exponential accepts any norm
        return self.columns(balance(self.free) if self.free.is_cuda else 1.0)

    def columns(self, ratio: Tensor | float) -> Tensor:
        """The columns (n_units, rank). `ratio` divides X and multiplies U₀ in P and S; the result is the same for every ratio."""
        n_units, rank = self.initial.shape
        if 4 * rank >= n_units:
            half = self.free @ self.initial.T
            return exponential(half - half.T) @ self.initial
        free, initial = self.free / ratio, self.initial * ratio
        # (n_units, 2k)
        left = torch.cat([free, -initial], dim=1)
        right = torch.cat([initial, free], dim=1)
        # (2k, 2k)
        inner = right.T @ left
        size = len(inner)
        block = torch.zeros(2 * size, 2 * size, dtype=inner.dtype, device=inner.device)
        block[:size, :size] = inner
        block[:size, size:] = torch.eye(size, dtype=inner.dtype, device=inner.device)
        phi = exponential(block)[:size, size:]
        return self.initial + left @ (phi @ (right.T @ self.initial))


@torch.no_grad()
def balance(free: Tensor) -> Tensor:
    """The ratio for `MatrixExponential.columns`: the matrix of which it takes the exponential then grows as `free`, not as its
    square."""
    return (free.T @ free).abs().sum(dim=0).max().clamp_min(1.0) ** 0.25


class Cayley(nn.Module):
    """(I − A/2)⁻¹ (I + A/2) U₀ with A as in `MatrixExponential`; by the Woodbury identity a 2k × 2k solve."""

    initial: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.register_buffer("initial", initial.clone())
        self.free = nn.Parameter(torch.zeros_like(initial))

    def forward(self) -> Tensor:
        left = torch.cat([self.free, -self.initial], dim=1)
        right = torch.cat([self.initial, self.free], dim=1)
        inner = right.T @ left
        eye = torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
        # never singular, because A is skew-symmetric; a check would wait for the GPU
        return self.initial + left @ torch.linalg.solve_ex(eye - inner / 2, right.T @ self.initial)[0]


class Householder(nn.Module):
    """A product of k Householder reflections and fixed signs, in the compact form I − V T Vᵀ with T of shape (k, k).

    T⁻¹ is the upper triangle of VᵀV with its diagonal halved (Joffrain et al. 2006).
    """

    sign: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        packed, scale = torch.geqrf(initial)
        sign = torch.where(packed.diagonal() < 0, -1.0, 1.0).to(packed.dtype)
        # LAPACK skips (scale 0) a reflection that changes nothing; here it is done, and flips the column
        self.register_buffer("sign", torch.where(scale == 0, -sign, sign))
        self.free = nn.Parameter(packed.tril(-1))

    def forward(self) -> Tensor:
        n_units, rank = self.free.shape
        eye = torch.eye(n_units, rank, dtype=self.free.dtype, device=self.free.device)
        # the leading ones of the vectors are not stored
        vectors = self.free.tril(-1) + eye
        inner = vectors.T @ vectors
        upper = inner.triu(1) + torch.diag(inner.diagonal() / 2)
        return (eye - vectors @ torch.linalg.solve_triangular(upper, vectors[:rank].T, upper=True)) * self.sign


ROTATIONS: dict[str, type[nn.Module]] = {
    "matrix-exponential": MatrixExponential,
    "gram-schmidt": GramSchmidt,
    "cayley": Cayley,
    "householder": Householder,
}
"""Parametrisations of orthonormal columns by name."""


def make_rotation(name: str, initial: Tensor) -> nn.Module:
    """The parametrisation called `name`, starting at `initial`.

    Parameters
    ----------
    name : str
        A key of `ROTATIONS`.
    initial : Tensor, shape (n_units, rank)
        Orthonormal columns.

    Raises
    ------
    NotFound
        There is no parametrisation of that name.
    InvalidInput
        There are more columns than units, or the columns are not orthonormal.
    """
    if name not in ROTATIONS:
        raise NotFound(
            f"no rotation {name!r}; the rotations are {', '.join(ROTATIONS)}{suggestion(name, ROTATIONS)}",
            kind="unknown_rotation",
        )
    n_units, rank = initial.shape
    if rank > n_units:
        raise InvalidInput(f"rank {rank} is larger than the width: the system has {n_units} units", kind="invalid_rank")
    error = (initial.T @ initial - torch.eye(rank, dtype=initial.dtype, device=initial.device)).abs().max().item()
    if not error < 1e-3:
        raise InvalidInput(
            f"the columns are not orthonormal: UᵀU differs from the identity by up to {error:.2g}",
            kind="not_orthonormal",
        )
    return ROTATIONS[name](initial)
