"""From mean latents per value to maps without iterations: means → axes → maps (method: exploration).

Every function takes one matrix of mean latents per system. Its rows are the same combinations of values in all systems.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuromas import seeds
from neuromas.align.rotation import orthonormalise, random_columns
from neuromas.errors import InvalidInput

RIDGE = 1e-6
_ROUNDS = 100


def axes(means: Tensor, rank: int, *, seed: int = 0, avoid: Tensor | None = None) -> Tensor:
    """Orthonormal columns along which mean latents vary most.

    Parameters
    ----------
    means : Tensor, shape (n_values, n_units)
        Centred or not: they are used as they are.
    rank : int
        If it is larger than the rank of `means`, random columns complete the basis.
    seed : int
        Seed of the random columns.
    avoid : Tensor, shape (n_units, n_avoided), optional
        Orthonormal columns that belong to other subspaces. The result is orthogonal to them.

    Returns
    -------
    Tensor, shape (n_units, rank)

    Raises
    ------
    InvalidInput
        The rank of all subspaces together is larger than the number of units.
    """
    n_units = means.shape[1]
    others = means.new_zeros(n_units, 0) if avoid is None else avoid
    if rank + others.shape[1] > n_units:
        raise InvalidInput(
            f"rank {rank + others.shape[1]} is larger than the width: the system has {n_units} units",
            kind="invalid_rank",
        )
    free = means - means @ others @ others.T
    _, singular, right = torch.linalg.svd(free, full_matrices=False)
    rank_of_means = int((singular > 1e-6 * singular[:1]).sum())
    leading = right[: min(rank, rank_of_means)].T
    if leading.shape[1] == rank:
        return leading
    generator = torch.Generator().manual_seed(seeds.for_torch(seed))
    filler = random_columns(n_units, rank - leading.shape[1], generator).to(means)
    whole = orthonormalise(torch.cat([others, leading, filler], dim=1))
    return whole[:, others.shape[1] :]


def procrustes(components: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
    """Generalised orthogonal Procrustes with scale: rotations and scales that bring all `components` together.

    Parameters
    ----------
    components : sequence of Tensor, each of shape (n_values, rank)

    Returns
    -------
    list of (Tensor, float)
        Per system a rotation Q of shape (rank, rank) and a scale λ > 0, such that λ Z Q is near the common mean. The first scale
        is 1.
    """
    scales = [1.0] * len(components)
    rotations = [torch.eye(z.shape[1], dtype=z.dtype, device=z.device) for z in components]
    common = components[0]
    for _ in range(_ROUNDS if len(components) > 2 else 1):
        before = common
        for i, z in enumerate(components):
            if i == 0 and len(components) == 2:
                continue
            u, singular, v = torch.linalg.svd(z.T @ common)
            rotations[i] = u @ v
            scales[i] = (singular.sum() / z.square().sum().clamp_min(1e-30)).item()
        common = torch.stack([s * z @ q for z, q, s in zip(components, rotations, scales, strict=True)]).mean(dim=0)
        if len(components) > 2 and torch.linalg.norm(common - before) <= 1e-7 * torch.linalg.norm(before):
            break
    if len(components) == 2:
        common = components[0]
    return [(q, s / scales[0]) for q, s in zip(rotations, scales, strict=True)]


def canonical(components: Sequence[Tensor], ridge: float = RIDGE) -> list[Tensor]:
    """Generalised canonical correlation analysis: whitening, then the rotation that brings all systems together.

    Parameters
    ----------
    components : sequence of Tensor, each of shape (n_values, rank)
        Centred mean latents in the systems' axes.
    ridge : float
        Added to the covariance, relative to its mean eigenvalue.

    Returns
    -------
    list of Tensor, each of shape (rank, rank)
        Invertible A, such that Z Aᵀ has (nearly) unit covariance. For two systems these are the canonical variates of CCA.
    """
    whitened, whiteners = [], []
    for z in components:
        covariance = z.T @ z / len(z)
        covariance = covariance + ridge * covariance.diagonal().mean() * torch.eye(
            len(covariance), dtype=z.dtype, device=z.device
        )
        values, vectors = torch.linalg.eigh(covariance)
        whitener = (vectors / values.clamp_min(1e-30).sqrt()).T
        whiteners.append(whitener)
        # columns are nearly orthonormal
        whitened.append(z @ whitener.T / len(z) ** 0.5)
    rank = components[0].shape[1]
    u, _, _ = torch.linalg.svd(torch.cat(whitened, dim=1), full_matrices=False)
    # (n_values, rank): the variates that all systems share
    common = u[:, : min(rank, u.shape[1])]
    if common.shape[1] < rank:
        common = torch.cat([common, common.new_zeros(len(common), rank - common.shape[1])], dim=1)
    maps = []
    for z, whitener in zip(whitened, whiteners, strict=True):
        left, _, right = torch.linalg.svd(z.T @ common)
        maps.append((left @ right).T @ whitener)
    return maps


def procrustes_axes(source: Tensor, target: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Orthogonal Procrustes: U and V that minimise ‖source U Vᵀ − target‖ (the closed form of Latent Stitch).

    Parameters
    ----------
    source : Tensor, shape (n_pairs, n_units of the source)
    target : Tensor, shape (n_pairs, n_units of the target)
    rank : int
        At most the smaller width.

    Returns
    -------
    U : Tensor, shape (n_units of the source, rank)
    V : Tensor, shape (n_units of the target, rank)
        Orthonormal columns.

    Examples
    --------
    >>> x = torch.eye(2)
    >>> u, v = procrustes_axes(x, x.flip(1), rank=2)
    >>> torch.allclose(u @ v.T, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), atol=1e-6)
    True
    """
    u, _, v = torch.linalg.svd(source.T @ target, full_matrices=False)
    return u[:, :rank], v[:rank].T
