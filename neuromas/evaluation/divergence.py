"""Distances of intervened latents from natural latents with the same values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from neuromas.errors import InvalidInput

_ROUNDING = 1e-5
"""Relative: smaller differences are rounding errors of single precision."""
_SURFACE = 1e-3
"""Relative: the surface belongs to the inside, also after rounding. Many latents may lie on it if each value has one latent."""


def cl_distance(intervened: Tensor, cl: Tensor, terms: str = "both") -> Tensor:
    """Distance of intervened latents from counterfactual latents (eqs. 8, 9), per pair: the auxiliary loss of fits.

    Parameters
    ----------
    intervened, cl : Tensor, shape (n_pairs, n_units)
    terms : {"both", "l2", "cosine"}
        A single term keeps its factor of one half.

    Returns
    -------
    Tensor, shape (n_pairs,)
        ½ ‖h_v − h_CL‖² / n_units + ½ (1 − cos(h_v, h_CL)). The angle between two latents of zeros (silence in spike data) is 0.

    Examples
    --------
    >>> cl_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """
    square = (intervened - cl).square().mean(dim=1)
    if terms == "l2":
        return square / 2
    angle = _cosine_distance(intervened, cl)
    return angle / 2 if terms == "cosine" else (square + angle) / 2


def _cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    silent = (x == 0).all(dim=1) & (y == 0).all(dim=1)
    return torch.where(silent, 0.0, 1 - functional.cosine_similarity(x, y, dim=1))


def nearest_values(latents: Tensor, means: Tensor) -> Tensor:
    """The mean latent that is nearest to each latent (Euclidean distance).

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


def relative_distance(intervened: Tensor, cl: Tensor, other: Tensor) -> tuple[float | None, float | None]:
    """Distance of intervened latents from counterfactual latents, divided by the distance between two counterfactual latents.

    Parameters
    ----------
    intervened : Tensor, shape (n_pairs, n_units)
    cl, other : Tensor, shape (n_pairs, n_units)
        Two different counterfactual latents of each pair. The intervened latent is compared with `other`.

    Returns
    -------
    (float or None, float or None)
        Mean L2 distance ‖h_v − h_other‖ and mean cosine distance 1 − cos(h_v, h_other), each divided by the same distance of
        h_CL. Natural latents with the expected values have about 1, `cl` itself exactly 1, and means of latents with equal values
        about 1/√2 and 1/2. None without pairs, or if natural latents of equal values are equal.

    Notes
    -----
    Grant, Han, Tartaglini and Potts, "Addressing divergent representations from causal interventions on neural networks"
    (2025, arXiv:2511.04638) ask whether interventions leave the natural distribution.

    Examples
    --------
    >>> cl, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    >>> relative_distance(torch.tensor([[9.0, 3.0]]), cl, other)[0]  # 9 from one, which is √18 from the other
    2.1213...
    """
    x, a, b = intervened.double(), cl.double(), other.double()
    if not len(x):
        return None, None
    size = float(b.norm(dim=1).mean())
    l2, l2_natural = (float((latents - b).norm(dim=1).mean()) for latents in (x, a))
    angle, angle_natural = (float(_cosine_distance(latents, b).mean()) for latents in (x, a))
    return (
        l2 / l2_natural if l2_natural > _ROUNDING * size else None,
        angle / angle_natural if angle_natural > _ROUNDING**2 else None,
    )


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, n_projections: int = 200, generator: torch.Generator | None = None
) -> float | None:
    """Sliced Wasserstein distance of order 1 between two clouds with the same number of latents.

    Parameters
    ----------
    x, y : Tensor, shape (n, n_units)
    n_projections : int
        Directions, drawn uniformly from the sphere.
    generator : torch.Generator, optional
        On the device of the latents. Equal seeds give equal directions.

    Returns
    -------
    float or None
        Mean over directions θ of the distance between θᵀx and θᵀy (the mean difference of their sorted values), in the units of
        the activity. None without latents.

    Raises
    ------
    InvalidInput
        The clouds have different numbers of latents or units.

    Notes
    -----
    Bonneel, Rabin, Peyré and Pfister, "Sliced and Radon Wasserstein barycenters of measures" (2015). The distance between two
    draws from one distribution is about 1/√n. Compare with that value.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_wasserstein(x, x + 2, n_projections=3)
    2.0
    """
    if x.shape != y.shape:
        raise InvalidInput(
            f"sliced Wasserstein distance: expected two clouds of equal shape, got {tuple(x.shape)} and {tuple(y.shape)}",
            kind="shape_mismatch",
        )
    if not len(x):
        return None
    drawn = torch.randn(x.shape[1], n_projections, generator=generator, device=x.device, dtype=torch.float64)
    directions = drawn / drawn.norm(dim=0)
    sorted_x, sorted_y = ((cloud.double() @ directions).sort(dim=0).values for cloud in (x, y))
    return float((sorted_x - sorted_y).abs().mean())


@dataclass(frozen=True)
class Ellipsoid:
    """The region in which nearly all natural latents lie.

    Attributes
    ----------
    mean : Tensor of float64, shape (n_units,)
    whitening : Tensor of float64, shape (n_units, n_units)
        Principal axes in columns, each divided by the standard deviation along the axis.
    radius : float
        Mahalanobis distance at its surface.
    """

    mean: Tensor = field(repr=False)
    whitening: Tensor = field(repr=False)
    radius: float

    def distance(self, latents: Tensor) -> Tensor:
        """Mahalanobis distance of `latents` (n, n_units) from the mean; float64, shape (n,)."""
        return ((latents.double() - self.mean) @ self.whitening).norm(dim=1)


def natural_ellipsoid(
    natural: Tensor, held_out: Tensor, *, level: float = 0.99, radius: Literal["empirical", "chi2"] = "empirical"
) -> Ellipsoid:
    """The ellipsoid that holds a share `level` of natural latents.

    Parameters
    ----------
    natural : Tensor, shape (n, n_units)
        They give the mean and the principal axes. There may be fewer latents than units.
    held_out : Tensor, shape (m, n_units)
        Other latents of the same distribution. They give the variances along the axes, and the radius.
    level : float
    radius : {"empirical", "chi2"}
        The quantile of the held-out latents' distances, or that of Gaussian latents. Latents of networks are not Gaussian.

    Returns
    -------
    Ellipsoid

    Raises
    ------
    InvalidInput
        One of the sets is empty, or the level is outside 0..1.

    Notes
    -----
    Mahalanobis, "On the generalised distance in statistics" (1936). Axes and variances come from different latents (Lam,
    "Nonparametric eigenvalue-regularized precision or covariance matrix estimator", 2016). The variances of a sample along its
    own last axes are too small, and zero with fewer latents than units; held-out latents have the variances of natural latents
    there. No variance is added. So if natural latents stay in a subspace, every latent that leaves it is outside, except for
    rounding errors of single precision.
    """
    if not len(natural) or not len(held_out) or not 0 < level < 1:
        raise InvalidInput(
            f"natural ellipsoid: expected latents and a level in 0..1, got {len(natural)} and {len(held_out)} latents"
            f" and level {level}",
            kind="undefined_measure",
        )
    natural, held_out = natural.double(), held_out.double()
    mean = natural.mean(dim=0)
    centred = natural - mean
    _, axes = torch.linalg.eigh(centred.T @ centred)
    variance = ((held_out - mean) @ axes).square().mean(dim=0)
    rounding = _ROUNDING * natural.square().mean().sqrt()
    whitening = axes / variance.sqrt().clamp_min(rounding.clamp_min(torch.finfo(torch.float64).tiny))
    if radius == "chi2":
        return Ellipsoid(mean, whitening, float(stats.chi2.ppf(level, natural.shape[1]) ** 0.5))
    distances = Ellipsoid(mean, whitening, 0.0).distance(held_out).sort().values
    return Ellipsoid(mean, whitening, float(distances[math.ceil(level * len(distances)) - 1]))


def outside_ellipsoid(latents: Tensor, ellipsoid: Ellipsoid) -> float | None:
    """Share of `latents` (n, n_units) outside the ellipsoid; NaN counts as outside. None without latents.

    Examples
    --------
    >>> line = torch.linspace(-1, 1, 200)[:, None] * torch.tensor([[1.0, 1.0]])
    >>> ellipsoid = natural_ellipsoid(line[::2], line[1::2])
    >>> outside_ellipsoid(line[1::2], ellipsoid)
    0.01
    >>> outside_ellipsoid(line + torch.tensor([[0.01, -0.01]]), ellipsoid)  # off the line, by little
    1.0
    """
    if not len(latents):
        return None
    inside = ellipsoid.distance(latents) <= ellipsoid.radius * (1 + _SURFACE)
    return float((~inside).double().mean())
