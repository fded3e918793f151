"""How far intervened latents lie from natural ones with the same values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cl_distance(intervened: Tensor, cl: Tensor, terms: str = "both") -> Tensor:
    """Distance of intervened latents from counterfactual latents (eqs. 8, 9), per pair; the fits' auxiliary loss.

    Parameters
    ----------
    intervened, cl : Tensor, shape (n_pairs, n_units)
    terms : {"both", "l2", "cosine"}
        One term alone keeps its factor of one half.

    Returns
    -------
    Tensor, shape (n_pairs,)
        ½ ‖h_v − h_CL‖² / n_units + ½ (1 − cos(h_v, h_CL)). Two latents of zeros, silence in spike data, are at no angle.

    Examples
    --------
    >>> cl_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """
    square = (intervened - cl).square().mean(dim=1)
    if terms == "l2":
        return square / 2
    silent = (intervened == 0).all(dim=1) & (cl == 0).all(dim=1)
    angle = torch.where(silent, 0.0, 1 - functional.cosine_similarity(intervened, cl, dim=1))
    return angle / 2 if terms == "cosine" else (square + angle) / 2


def nearest_values(latents: Tensor, means: Tensor) -> Tensor:
    """Which mean latent is nearest to each latent (Euclidean).

    Parameters
    ----------
    latents : Tensor, shape (n, n_units)
    means : Tensor, shape (n_values, n_units)

    Returns
    -------
    Tensor of int64, shape (n,)
        Rows of `means`.
    """
    return torch.cdist(latents, means).argmin(dim=1)
