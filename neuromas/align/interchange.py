"""The interchange as one pure function (eqs. 4 and 13)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuromas.errors import InvalidInput


@dataclass(frozen=True)
class LinearMap:
    """Maps one system's latents to the shared components, z = forward (h − offset), and back.

    ``forward @ back`` is the identity. With R = λQ: forward = λUᵀ, back = U/λ, offset = 0.

    Attributes
    ----------
    forward : Tensor, shape (rank, n_units)
    back : Tensor, shape (n_units, rank)
    offset : Tensor, shape (n_units,)
    """

    forward: Tensor
    back: Tensor
    offset: Tensor

    @property
    def n_units(self) -> int:
        return self.back.shape[0]

    @property
    def rank(self) -> int:
        return self.back.shape[1]

    def components(self, latents: Tensor) -> Tensor:
        """Components of `latents` (n, n_units) in the aligned subspace; shape (n, rank)."""
        return (latents - self.offset) @ self.forward.T

    def detach(self) -> LinearMap:
        """The same map without gradients."""
        return LinearMap(self.forward.detach(), self.back.detach(), self.offset.detach())

    def __repr__(self) -> str:
        return f"<LinearMap: {self.n_units:,} units, {self.rank:,} components>"


def interchange(
    target: Tensor,
    source: Tensor,
    target_map: LinearMap,
    source_map: LinearMap,
    mask: Tensor | None = None,
    *,
    replace: bool = False,
) -> Tensor:
    """Replace components of the target's latent by the source's, and return to the target's own space.

    Parameters
    ----------
    target : Tensor, shape (n_pairs, n_units of the target)
    source : Tensor, shape (n_pairs, n_units of the source)
    target_map, source_map : LinearMap
        Of equal rank.
    mask : Tensor, shape (rank,) or (n_pairs, rank), optional
        1 for components to interchange (the diagonal of D_v); all by default.
    replace : bool
        Discard the target's own latent, as stitching does.

    Returns
    -------
    Tensor, shape (n_pairs, n_units of the target)
        h_v. With ``replace=False`` it equals the target's latent outside the subspace.

    Raises
    ------
    InvalidInput
        The widths of latents and maps differ, or the ranks of the two maps.

    Notes
    -----
    With orthogonal maps this is eq. 13 with scale: h_trg − U_trg U_trgᵀ h_trg + (λ_src/λ_trg) U_trg U_srcᵀ h_src.

    Examples
    --------
    >>> import torch
    >>> eye = LinearMap(torch.eye(2, 3), torch.eye(3, 2), torch.zeros(3))
    >>> interchange(torch.zeros(1, 3), torch.ones(1, 3), eye, eye)
    tensor([[1., 1., 0.]])
    """
    for role, latents, own in (("target", target, target_map), ("source", source, source_map)):
        if latents.shape[-1] != own.n_units:
            raise InvalidInput(
                f"the {role}'s latents have {latents.shape[-1]} units, but its map expects {own.n_units}",
                kind="unit_mismatch",
            )
    if source_map.rank != target_map.rank:
        raise InvalidInput(
            f"the source's map has rank {source_map.rank}, the target's {target_map.rank}; expected equal ranks",
            kind="rank_mismatch",
        )
    change = source_map.components(source)
    if not replace:
        change = change - target_map.components(target)
    if mask is not None:
        change = change * mask
    kept = target_map.offset if replace else target
    return kept + change @ target_map.back.T
