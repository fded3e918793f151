"""Orthonormal columns and their parametrisations, O(d·k) in memory and O(d·k²) in work wherever k is well below d.

Each parametrisation is a module whose ``forward`` gives the columns, shape (n_units, rank), and which starts exactly at the
columns it was made with. `ROTATIONS` names them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from neuromas.errors import InvalidInput, NotFound


def random_columns(n_units: int, rank: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns, uniform over the Stiefel manifold; float32, shape (n_units, rank), on the CPU."""
    return orthonormalise(torch.randn(n_units, rank, generator=generator))


def orthonormalise(columns: Tensor) -> Tensor:
    """The Gram-Schmidt process on `columns` (n_units, rank), eqs. 10-12, computed as Q · sign(diag R) of a QR decomposition.

    Q alone would flip signs of columns from one iteration to the next.

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

    On a GPU torch's own asks the host how many terms to take, which waits for the GPU and cannot be part of a CUDA graph.
    """
    return scaled_and_squared(square) if square.is_cuda else torch.linalg.matrix_exp(square)


_SQUARINGS = 8


def scaled_and_squared(square: Tensor) -> Tensor:
    """exp of a `square` matrix (n, n) by the same operations whatever it holds; NaN where its 1-norm is above 256.

    exp(A) = exp(A / 2ˢ)^(2ˢ), with s such that the norm of A / 2ˢ is at most 1: there the power series without its seventeenth
    and later terms is off by less than 10⁻¹³, which every squaring doubles.

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
    *rows, found = (_series(x.dtype, x.device) @ powers.flatten(1)).unflatten(1, x.shape)
    for row in reversed(rows):
        found = torch.addmm(row, found, fourth)
    for number in range(_SQUARINGS):
        found = torch.where(number < squarings, found @ found, found)
    return torch.where(norm <= 2.0**_SQUARINGS, found, torch.nan)


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

    A has rank 2k, so with P = [X, −U₀] and S = [U₀, X], exp(A) U₀ = U₀ + P φ(SᵀP) SᵀU₀ where φ(M) = Σ Mⁿ/(n+1)!; φ is a block of
    the exponential of a 4k × 4k matrix. No d × d matrix exists, unless that is the smaller one.
    """

    initial: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.register_buffer("initial", initial.clone())
        self.free = nn.Parameter(torch.zeros_like(initial))

    def forward(self) -> Tensor:
        # torch's own exponential takes any norm
        return self.columns(balance(self.free) if self.free.is_cuda else 1.0)

    def columns(self, ratio: Tensor | float) -> Tensor:
        """The columns (n_units, rank), whatever the `ratio` by which X is made smaller, and U₀ larger, in P and S."""
        n_units, rank = self.initial.shape
        if 4 * rank >= n_units:
            half = self.free @ self.initial.T
            return exponential(half - half.T) @ self.initial
        free, initial = self.free / ratio, self.initial * ratio
        left = torch.cat([free, -initial], dim=1)  # (n_units, 2k)
        right = torch.cat([initial, free], dim=1)
        inner = right.T @ left  # (2k, 2k)
        size = len(inner)
        block = torch.zeros(2 * size, 2 * size, dtype=inner.dtype, device=inner.device)
        block[:size, :size] = inner
        block[:size, size:] = torch.eye(size, dtype=inner.dtype, device=inner.device)
        phi = exponential(block)[:size, size:]
        return self.initial + left @ (phi @ (right.T @ self.initial))


@torch.no_grad()
def balance(free: Tensor) -> Tensor:
    """The ratio with which `MatrixExponential.columns` takes the exponential of what grows as `free`, not as its square."""
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
        # never singular, since A is skew-symmetric; to check it would wait for a GPU
        return self.initial + left @ torch.linalg.solve_ex(eye - inner / 2, right.T @ self.initial)[0]


class Householder(nn.Module):
    """A product of k Householder reflections, times fixed signs; in compact form, I − V T Vᵀ with T k × k, by matrix products.

    T⁻¹ is the upper triangle of VᵀV with its diagonal halved (Joffrain et al. 2006).
    """

    sign: Tensor

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        packed, scale = torch.geqrf(initial)
        sign = torch.where(packed.diagonal() < 0, -1.0, 1.0).to(packed.dtype)
        # LAPACK leaves out (scale 0) a reflection that has nothing to do; here it takes place and flips the column
        self.register_buffer("sign", torch.where(scale == 0, -sign, sign))
        self.free = nn.Parameter(packed.tril(-1))

    def forward(self) -> Tensor:
        n_units, rank = self.free.shape
        eye = torch.eye(n_units, rank, dtype=self.free.dtype, device=self.free.device)
        vectors = self.free.tril(-1) + eye  # their leading ones are implied
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
        No parametrisation of that name.
    InvalidInput
        More columns than units, or columns that are not orthonormal.
    """
    if name not in ROTATIONS:
        raise NotFound(f"no rotation {name!r}; known rotations: {', '.join(ROTATIONS)}", kind="unknown_rotation")
    n_units, rank = initial.shape
    if rank > n_units:
        raise InvalidInput(
            f"rank {rank} is larger than the width: the system has {n_units} units", kind="rank_too_large"
        )
    error = (initial.T @ initial - torch.eye(rank, dtype=initial.dtype, device=initial.device)).abs().max().item()
    if not error < 1e-3:
        raise InvalidInput(f"columns are not orthonormal: UᵀU differs from I by {error:.2g}", kind="not_orthonormal")
    return ROTATIONS[name](initial)
