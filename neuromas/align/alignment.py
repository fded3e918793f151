"""Alignments: one map per system into shared components. Maps are trained, then frozen, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from neuromas import seeds
from neuromas.align.closed_form import axes, canonical, procrustes
from neuromas.align.interchange import LinearMap, interchange
from neuromas.align.rotation import make_rotation, random_columns
from neuromas.errors import Corrupt, InvalidInput, NotFound, suggestion
from neuromas.files import sha256_bytes, write_atomically
from neuromas.html import table
from neuromas.weights import read_safetensors, safetensors_bytes

MapKind = Literal["orthogonal", "linear"]
_MATRICES = ("forward", "back", "offset")


@dataclass(frozen=True)
class Subspace:
    """Consecutive components that are given to some variables (the ones on the diagonal of D_v).

    Attributes
    ----------
    name : str
        Its variables, joined by ``+``.
    variables : tuple of str
    start, rank : int
        First component and number of components.
    """

    name: str
    variables: tuple[str, ...]
    start: int
    rank: int


def lay_out(ranks: Mapping[str, int]) -> tuple[Subspace, ...]:
    """Disjoint subspaces, one after another.

    Parameters
    ----------
    ranks : mapping of str to int
        ``"variable"`` or ``"variable+variable"`` → rank.

    Returns
    -------
    tuple of Subspace

    Raises
    ------
    InvalidInput
        A variable belongs to two subspaces, or a rank is below 1.

    Examples
    --------
    >>> [(subspace.name, subspace.start, subspace.rank) for subspace in lay_out({"phase": 2, "count": 6})]
    [('phase', 0, 2), ('count', 2, 6)]
    """
    subspaces, start = [], 0
    owned = [variable for name in ranks for variable in name.split("+")]
    if len(set(owned)) < len(owned) or (len(owned) > 1 and "full" in owned):
        raise InvalidInput(
            f"a variable belongs to one subspace only, because subspaces are disjoint; got {', '.join(map(repr, ranks))}",
            kind="invalid_subspaces",
        )
    for name, rank in ranks.items():
        if rank < 1:
            raise InvalidInput(f"subspace {name!r} has rank {rank}: expected at least 1", kind="invalid_rank")
        subspaces.append(Subspace(name, tuple(name.split("+")), start, rank))
        start += rank
    return tuple(subspaces)


class TrainableMap(nn.Module):
    """The trainable map of one system: R = λQ (orthogonal) or z = A Uᵀ(h − μ) (linear).

    Parameters
    ----------
    columns : Tensor, shape (n_units, rank)
        Orthonormal columns at which training starts.
    rotation : str
        Parametrisation of the columns, a key of `neuromas.align.rotation.ROTATIONS`.
    scale : float
        λ of an orthogonal map.
    learn_scale : bool
    mixing : Tensor, shape (rank, rank), optional
        A, invertible. With it the map is linear.
    blocks : Tensor of bool, shape (rank, rank), optional
        Entries of A that may differ from zero.
    offset : Tensor, shape (n_units,), optional
        μ, which is not trained.
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
        """The current map; computed once per iteration, never per step."""
        columns = self.rotation()
        if self.mixing is None:
            assert self.log_scale is not None
            scale = self.log_scale.exp()
            return LinearMap(scale * columns.T, columns / scale, self.offset)
        mixing = self.mixing if self.blocks is None else self.mixing * self.blocks
        # a singular A gives numbers that are not finite, which end a fit; a check here would wait for the GPU
        return LinearMap(mixing @ columns.T, torch.linalg.solve_ex(mixing, columns, left=False)[0], self.offset)


@dataclass(frozen=True)
class Alignment:
    """Frozen maps that join systems, one per system.

    ``alignment.maps[name]`` maps latents of a system to the shared components, and back.

    Attributes
    ----------
    maps : dict of str to LinearMap
    subspaces : tuple of Subspace
    kind : {"orthogonal", "linear"}
    replace : bool
        Stitching: an interchange discards the target's own latent.
    """

    maps: dict[str, LinearMap]
    subspaces: tuple[Subspace, ...]
    kind: MapKind = "orthogonal"
    replace: bool = False

    @property
    def rank(self) -> int:
        """Rank of all subspaces together."""
        return next(iter(self.maps.values())).rank

    def __repr__(self) -> str:
        width = max(map(len, self.maps), default=0)
        systems = [f"  {name:{width}}  {each.n_units:,} units" for name, each in self.maps.items()]
        return "\n".join([f"<{self._headline()}>", *systems])

    def _repr_html_(self) -> str:
        rows = [[name, f"{each.n_units:,}", f"{each.rank:,}"] for name, each in self.maps.items()]
        return table(["system", "units", "components"], rows, caption=self._headline())

    def _headline(self) -> str:
        subspaces = ", ".join(f"{subspace.name} (rank {subspace.rank:,})" for subspace in self.subspaces)
        noun = "subspaces" if len(self.subspaces) > 1 else "subspace"
        replaces = ", replaces latents" if self.replace else ""
        return f"Alignment of {len(self.maps)} systems: {self.kind} maps{replaces}, {noun} {subspaces}"

    def map_of(self, system: str) -> LinearMap:
        """The map of `system`.

        Raises
        ------
        NotFound
            The alignment does not join it; lists those that it joins.
        """
        if system not in self.maps:
            raise NotFound(
                f"the alignment has no system {system!r}; it joins {', '.join(self.maps)}"
                f"{suggestion(system, self.maps)}",
                kind="unknown_system",
            )
        return self.maps[system]

    def subspace(self, name: str) -> Subspace:
        """The subspace called `name`.

        Raises
        ------
        NotFound
            There is none; lists those that exist.
        """
        by_name = {subspace.name: subspace for subspace in self.subspaces}
        if name not in by_name:
            raise NotFound(
                f"the alignment has no subspace {name!r}; it has {', '.join(by_name)}{suggestion(name, by_name)}",
                kind="unknown_subspace",
            )
        return by_name[name]

    def interchange(
        self, target: Tensor, source: Tensor, *, target_system: str, source_system: str, subspace: str | None = None
    ) -> Tensor:
        """Put the source's components into the target's latents.

        Parameters
        ----------
        target, source : Tensor, shape (n_pairs, n_units of each)
        target_system, source_system : str
        subspace : str, optional
            The subspace to interchange; all components by default.

        Returns
        -------
        Tensor, shape (n_pairs, n_units of the target)

        Raises
        ------
        NotFound
            No such system or subspace.
        InvalidInput
            Latents of another width than their map.
        """
        mask = None
        if subspace is not None and len(self.subspaces) > 1:
            mask = component_mask(self.rank, self.subspace(subspace)).to(target)
        return interchange(
            target, source, self.map_of(target_system), self.map_of(source_system), mask, replace=self.replace
        )

    def at_rank(self, rank: int) -> Alignment:
        """The alignment of each subspace's first `rank` components, or of all if it has fewer.

        After a nested fit, these are an alignment of that rank. After any other, the order of components means nothing.

        Raises
        ------
        InvalidInput
            The rank is below 1.
        """
        subspaces = lay_out({subspace.name: min(rank, subspace.rank) for subspace in self.subspaces})
        kept = [subspace.start + place for subspace in self.subspaces for place in range(min(rank, subspace.rank))]
        maps = {name: LinearMap(m.forward[kept], m.back[:, kept], m.offset) for name, m in self.maps.items()}
        return Alignment(maps, subspaces, self.kind, self.replace)

    def to(self, device: str | torch.device) -> Alignment:
        """The same maps on another device."""
        maps = {
            name: LinearMap(m.forward.to(device), m.back.to(device), m.offset.to(device))
            for name, m in self.maps.items()
        }
        return Alignment(maps, self.subspaces, self.kind, self.replace)

    def to_bytes(self) -> bytes:
        """The content of a safetensors file: per system ``NAME/forward``, ``NAME/back``, ``NAME/offset``."""
        tensors = {
            f"{name}/{matrix}": getattr(each, matrix) for name, each in self.maps.items() for matrix in _MATRICES
        }
        described = {
            "kind": self.kind,
            "replace": self.replace,
            "systems": list(self.maps),
            "subspaces": [vars(subspace) for subspace in self.subspaces],
        }
        return safetensors_bytes(tensors, {"alignment": json.dumps(described)})

    def sha256(self) -> str:
        """Hash of `to_bytes`."""
        return sha256_bytes(self.to_bytes())

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to `path`, whole or not at all."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """Read what `save` wrote.

        Raises
        ------
        NotFound
            No file there.
        Corrupt
            The file is damaged, or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise NotFound(f"no alignment at {path}", kind="unknown_result")
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
            for name, each in maps.items():
                shapes = tuple(tuple(getattr(each, matrix).shape) for matrix in _MATRICES)
                if shapes != ((rank, each.n_units), (each.n_units, rank), (each.n_units,)):
                    raise ValueError(f"the map of {name!r} has shapes {shapes}, but its subspaces have rank {rank}")
            kind: MapKind = "linear" if described["kind"] == "linear" else "orthogonal"
            return cls(maps, subspaces, kind, described["replace"])
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
            raise Corrupt(
                f"{path} is a safetensors file, but not an alignment: {error}", kind="not_an_alignment"
            ) from error


def component_mask(rank: int, subspace: Subspace) -> Tensor:
    """The diagonal of D_v: ones at the components of `subspace`, shape (rank,)."""
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
    """Maps that start at random orthonormal columns, λ = 1 and A = I.

    Parameters
    ----------
    n_units : sequence of int
        Number of units of each system.
    subspaces : sequence of Subspace
    kind : {"orthogonal", "linear"}
    rotation : str
    seed : int
    offsets : sequence of Tensor, shape (n_units,), optional
        μ of linear maps, one per system; zero by default.
    learn_scale : bool

    Returns
    -------
    list of TrainableMap
        One per system.

    Raises
    ------
    InvalidInput
        The rank is larger than a system's number of units.
    """
    generator = torch.Generator().manual_seed(seeds.for_torch(seed))
    rank = sum(subspace.rank for subspace in subspaces)
    maps = []
    for position, width in enumerate(n_units):
        if rank > width:
            raise InvalidInput(f"rank {rank} is larger than the width: a system has {width} units", kind="invalid_rank")
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
    """Maps that start at the closed form: mean latents per value → axes → maps that bring the systems together.

    Parameters
    ----------
    means : sequence over subspaces of sequences over systems of Tensor, shape (n_values, n_units)
        Mean latents per value of the subspace's variables, for values that all systems hold, in the same order.
    subspaces : sequence of Subspace
    kind : {"orthogonal", "linear"}
        Orthogonal: uncentred means, Procrustes analysis, fitted λ. Linear: centred means, whitening, generalised CCA.
    rotation : str
    offsets : sequence over systems of Tensor, shape (n_units,)
        μ of linear maps; by default the mean over the first subspace's values.
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
            f"the systems share {len(means[0][0])} combinations of values, but a closed-form start needs at least 2",
            kind="too_few_shared_values",
        )
    rank = sum(subspace.rank for subspace in subspaces)
    columns: list[Tensor] = [of_system.new_zeros(of_system.shape[1], 0) for of_system in means[0]]
    mixing = [torch.zeros(rank, rank, dtype=means[0][0].dtype) for _ in range(n_systems)]
    turned: list[list[Tensor]] = [[] for _ in range(n_systems)]
    for subspace, per_system in zip(subspaces, means, strict=True):
        block = slice(subspace.start, subspace.start + subspace.rank)
        if kind == "linear":
            per_system = [m - m.mean(dim=0) for m in per_system]
        new = [axes(m, subspace.rank, seed=seed, avoid=columns[i]) for i, m in enumerate(per_system)]
        components = [m @ u for m, u in zip(per_system, new, strict=True)]
        if kind == "linear":
            for i, square in enumerate(canonical(components)):
                mixing[i][block, block] = square
        else:
            for i, (turn, _) in enumerate(procrustes(components)):
                new[i] = new[i] @ turn
                turned[i].append(components[i] @ turn)
        columns = [torch.cat(both, dim=1) for both in zip(columns, new, strict=True)]
    # λ is one number per system, also with several subspaces: least squares onto the first system's components
    flat = [torch.cat([block.flatten() for block in blocks]) for blocks in turned] if kind == "orthogonal" else []
    scales = [(z @ flat[0] / (z @ z).clamp_min(1e-30)).item() for z in flat] or [1.0] * n_systems
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
    # 1 where row and column belong to the same subspace
    return masks.T @ masks
