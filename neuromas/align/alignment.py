"""Alignments: one map per system into shared components, trainable, then frozen, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from neuromas.align.closed_form import axes, canonical, procrustes
from neuromas.align.interchange import LinearMap, interchange
from neuromas.align.rotation import make_rotation, random_columns
from neuromas.errors import Corrupt, InvalidInput, NotFound
from neuromas.files import sha256_bytes, write_atomically
from neuromas.weights import read_safetensors

MapKind = Literal["orthogonal", "linear"]


@dataclass(frozen=True)
class Subspace:
    """A run of contiguous components that belongs to some variables (the ones on the diagonal of D_v).

    Attributes
    ----------
    name : str
        Its variables, joined by ``+``.
    variables : tuple of str
    start, rank : int
        First component and how many.
    """

    name: str
    variables: tuple[str, ...]
    start: int
    rank: int


def lay_out(ranks: Mapping[str, int]) -> tuple[Subspace, ...]:
    """Disjoint blocks, one after another, from a mapping of ``"variable"`` or ``"variable+variable"`` to rank.

    Examples
    --------
    >>> [(block.name, block.start, block.rank) for block in lay_out({"phase": 2, "count": 6})]
    [('phase', 0, 2), ('count', 2, 6)]
    """
    blocks, start = [], 0
    owned = [variable for name in ranks for variable in name.split("+")]
    if len(set(owned)) < len(owned) or (len(owned) > 1 and "full" in owned):
        raise InvalidInput(
            f"subspaces are disjoint, so a variable belongs to one of them; got {', '.join(map(repr, ranks))}",
            kind="overlap",
        )
    for name, rank in ranks.items():
        if rank < 1:
            raise InvalidInput(f"subspace {name!r} has rank {rank}: expected at least 1", kind="rank_too_small")
        blocks.append(Subspace(name, tuple(name.split("+")), start, rank))
        start += rank
    return tuple(blocks)


class TrainableMap(nn.Module):
    """One system's map, R = λQ or z = A Uᵀ(h − μ), with gradients.

    Parameters
    ----------
    columns : Tensor, shape (n_units, rank)
        Orthonormal, where training starts.
    rotation : str
        Parametrisation of the columns.
    scale : float
        λ, orthogonal map only.
    learn_scale : bool
    mixing : Tensor, shape (rank, rank), optional
        A, invertible; given, the map is linear.
    blocks : Tensor of bool, shape (rank, rank), optional
        Where A may differ from zero.
    offset : Tensor, shape (n_units,), optional
        μ, fixed.
    """

    offset: Tensor
    blocks: Tensor | None

    def __init__(
        self,
        columns: Tensor,
        rotation: str = "matrix-exponential",
        *,
        scale: float = 1.0,
        learn_scale: bool = True,
        mixing: Tensor | None = None,
        blocks: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rotation = make_rotation(rotation, columns)
        self.register_buffer("offset", columns.new_zeros(len(columns)) if offset is None else offset)
        self.log_scale: nn.Parameter | None = None
        self.mixing: nn.Parameter | None = None
        if mixing is None:
            log_scale = torch.tensor(float(scale), dtype=columns.dtype).log().to(columns.device)
            self.log_scale = nn.Parameter(log_scale, requires_grad=learn_scale)
        else:
            self.mixing = nn.Parameter(mixing.clone())
            self.register_buffer("blocks", blocks)

    def forward(self) -> LinearMap:
        """The map as it stands; computed once per iteration, never per step."""
        columns = self.rotation()
        if self.mixing is None:
            assert self.log_scale is not None
            scale = self.log_scale.exp()
            return LinearMap(scale * columns.T, columns / scale, self.offset)
        mixing = self.mixing if self.blocks is None else self.mixing * self.blocks
        # a singular A gives numbers that are not finite, which end a fit; to check it here would wait for a GPU
        return LinearMap(mixing @ columns.T, torch.linalg.solve_ex(mixing, columns, left=False)[0], self.offset)


@dataclass(frozen=True)
class Alignment:
    """Frozen maps that join systems, one per system.

    Attributes
    ----------
    maps : dict of str to LinearMap
    subspaces : tuple of Subspace
    kind : {"orthogonal", "linear"}
    replace : bool
        Stitching: the target's own latent is thrown away.
    """

    maps: dict[str, LinearMap]
    subspaces: tuple[Subspace, ...]
    kind: MapKind = "orthogonal"
    replace: bool = False

    @property
    def rank(self) -> int:
        return next(iter(self.maps.values())).rank

    def map_of(self, system: str) -> LinearMap:
        """The map of `system`; NotFound lists those there are."""
        if system not in self.maps:
            raise NotFound(
                f"the alignment has no system {system!r}; it joins {', '.join(self.maps)}", kind="unknown_system"
            )
        return self.maps[system]

    def subspace(self, name: str) -> Subspace:
        """The subspace called `name`; NotFound lists those there are."""
        for subspace in self.subspaces:
            if subspace.name == name:
                return subspace
        known = ", ".join(subspace.name for subspace in self.subspaces)
        raise NotFound(f"the alignment has no subspace {name!r}; it has {known}", kind="unknown_subspace")

    def interchange(
        self, target: Tensor, source: Tensor, *, target_system: str, source_system: str, subspace: str | None = None
    ) -> Tensor:
        """Put the source's subspace (all components by default) into `target`; shapes as `interchange`."""
        mask = None
        if subspace is not None and len(self.subspaces) > 1:
            mask = component_mask(self.rank, self.subspace(subspace)).to(target)
        return interchange(
            target, source, self.map_of(target_system), self.map_of(source_system), mask, replace=self.replace
        )

    def to(self, device: str | torch.device) -> Alignment:
        """The same maps on another device."""
        maps = {
            name: LinearMap(m.forward.to(device), m.back.to(device), m.offset.to(device))
            for name, m in self.maps.items()
        }
        return Alignment(maps, self.subspaces, self.kind, self.replace)

    def to_bytes(self) -> bytes:
        """A safetensors file's content: per system ``NAME/forward``, ``NAME/back``, ``NAME/offset``."""
        tensors = {}
        for name, one in self.maps.items():
            for part in ("forward", "back", "offset"):
                tensors[f"{name}/{part}"] = getattr(one, part).detach().cpu().contiguous().clone()
        described = {
            "kind": self.kind,
            "replace": self.replace,
            "systems": list(self.maps),
            "subspaces": [vars(subspace) for subspace in self.subspaces],
        }
        # one entry only: safetensors writes several in an order that changes from call to call, and so would the hash
        return save_safetensors(tensors, {"alignment": json.dumps(described)})

    def sha256(self) -> str:
        """Hash of `to_bytes`."""
        return sha256_bytes(self.to_bytes())

    def save(self, path: str | Path) -> None:
        """Write `to_bytes`, whole or not at all."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """Read what `save` wrote; Corrupt if it is not that."""
        path = Path(path)
        if not path.is_file():
            raise NotFound(f"no alignment at {path}", kind="unknown_alignment")
        tensors, metadata = read_safetensors(path)
        try:
            described = json.loads(metadata["alignment"])
            maps = {
                name: LinearMap(tensors[f"{name}/forward"], tensors[f"{name}/back"], tensors[f"{name}/offset"])
                for name in described["systems"]
            }
            subspaces = tuple(
                Subspace(s["name"], tuple(s["variables"]), s["start"], s["rank"]) for s in described["subspaces"]
            )
            rank = sum(subspace.rank for subspace in subspaces)
            for name, one in maps.items():
                shapes = tuple(one.forward.shape), tuple(one.back.shape), tuple(one.offset.shape)
                if shapes != ((rank, one.n_units), (one.n_units, rank), (one.n_units,)):
                    raise ValueError(f"map of {name!r} has shapes {shapes}, its subspaces have rank {rank}")
            kind: MapKind = "linear" if described["kind"] == "linear" else "orthogonal"
            return cls(maps, subspaces, kind, described["replace"])
        except (KeyError, ValueError, TypeError) as error:
            raise Corrupt(
                f"{path} is a safetensors file, but no alignment: {error}", kind="not_an_alignment"
            ) from error


def component_mask(rank: int, subspace: Subspace) -> Tensor:
    """Diagonal of D_v: ones at the subspace's components, shape (rank,)."""
    mask = torch.zeros(rank)
    mask[subspace.start : subspace.start + subspace.rank] = 1
    return mask


def random_maps(
    n_units: Sequence[int],
    subspaces: Sequence[Subspace],
    kind: MapKind,
    rotation: str,
    seed: int,
    *,
    offsets: Sequence[Tensor] | None = None,
    learn_scale: bool = True,
) -> list[TrainableMap]:
    """Maps that start at random orthonormal columns, λ = 1 and A = I; one per width in `n_units`."""
    generator = torch.Generator().manual_seed(seed)
    rank = sum(subspace.rank for subspace in subspaces)
    maps = []
    for position, width in enumerate(n_units):
        if rank > width:
            raise InvalidInput(
                f"rank {rank} is larger than the width: a system has {width} units", kind="rank_too_large"
            )
        maps.append(
            TrainableMap(
                random_columns(width, rank, generator),
                rotation,
                learn_scale=learn_scale,
                mixing=torch.eye(rank) if kind == "linear" else None,
                blocks=_block_diagonal(rank, subspaces),
                offset=None if offsets is None or kind == "orthogonal" else offsets[position],
            )
        )
    return maps


def closed_form_maps(
    means: Sequence[Sequence[Tensor]],
    subspaces: Sequence[Subspace],
    kind: MapKind,
    rotation: str,
    *,
    offsets: Sequence[Tensor] | None = None,
    learn_scale: bool = True,
    seed: int = 0,
) -> list[TrainableMap]:
    """Maps that start at the closed form: mean latents per value → axes → a map that brings the systems together.

    Parameters
    ----------
    means : sequence over subspaces of sequences over systems of Tensor, shape (n_values, n_units)
        Mean latents for values of the subspace's variables that all systems hold, in the same order.
    subspaces : sequence of Subspace
    kind : {"orthogonal", "linear"}
        Orthogonal: uncentred means, Procrustes, fitted λ. Linear: centred means, whitening, generalised CCA.
    rotation : str
    offsets : sequence over systems of Tensor, shape (n_units,)
        μ of a linear map; by default the mean over the first subspace's values.
    learn_scale : bool
    seed : int

    Returns
    -------
    list of TrainableMap
        One per system.

    Raises
    ------
    InvalidInput
        Fewer than two shared values.
    """
    n_systems = len(means[0])
    if len(means[0][0]) < 2:
        raise InvalidInput(
            f"the systems share {len(means[0][0])} combinations of values; a closed-form start needs at least 2",
            kind="too_few_shared_values",
        )
    rank = sum(subspace.rank for subspace in subspaces)
    columns: list[Tensor] = [one.new_zeros(one.shape[1], 0) for one in means[0]]
    mixing = [torch.zeros(rank, rank, dtype=means[0][0].dtype) for _ in range(n_systems)]
    turned: list[list[Tensor]] = [[] for _ in range(n_systems)]
    for subspace, per_system in zip(subspaces, means, strict=True):
        block = slice(subspace.start, subspace.start + subspace.rank)
        if kind == "linear":
            per_system = [m - m.mean(dim=0) for m in per_system]
        found = [axes(m, subspace.rank, seed=seed, avoid=columns[i]) for i, m in enumerate(per_system)]
        components = [m @ u for m, u in zip(per_system, found, strict=True)]
        if kind == "linear":
            for i, square in enumerate(canonical(components)):
                mixing[i][block, block] = square
        else:
            for i, (turn, _) in enumerate(procrustes(components)):
                found[i] = found[i] @ turn
                turned[i].append(components[i] @ turn)
        columns = [torch.cat([taken, new], dim=1) for taken, new in zip(columns, found, strict=True)]
    # λ is one number per system, whatever the number of subspaces: least squares onto the first system's components
    flat = [torch.cat([block.flatten() for block in blocks]) for blocks in turned] if kind == "orthogonal" else []
    scales = [(one @ flat[0] / (one @ one).clamp_min(1e-30)).item() for one in flat] or [1.0] * n_systems
    return [
        TrainableMap(
            columns[i],
            rotation,
            scale=scales[i],
            learn_scale=learn_scale,
            mixing=mixing[i] if kind == "linear" else None,
            blocks=_block_diagonal(rank, subspaces),
            offset=(means[0][i].mean(dim=0) if offsets is None else offsets[i]) if kind == "linear" else None,
        )
        for i in range(n_systems)
    ]


def _block_diagonal(rank: int, subspaces: Sequence[Subspace]) -> Tensor | None:
    if len(subspaces) == 1:
        return None
    masks = torch.stack([component_mask(rank, subspace) for subspace in subspaces])
    return masks.T @ masks  # 1 where row and column belong to the same subspace
