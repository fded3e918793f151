"""How many held-out latents occur, bit by bit, among those of the training part."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.side import Side

_BLOCK = 65_536
"""Rows that are hashed at once."""


def repeated_share(side: Side, part: str) -> float:
    """Share of the eligible latents of `part` that are bit-identical to an eligible latent of the training part.

    Trials that begin alike have equal latents until they differ: a held-out pair of such latents tests nothing new.

    Parameters
    ----------
    side : Side
    part : {"train", "validation", "test"}

    Returns
    -------
    float
        0 without latents.
    """
    training, held_out = (side.candidates[name].samples for name in ("train", part))
    if not len(held_out):
        return 0.0
    known = torch.cat([_hashes(side.take(rows)) for rows in _blocks(training)]) if len(training) else torch.empty(0)
    repeated = [torch.isin(_hashes(side.take(rows)), known) for rows in _blocks(held_out)]
    return float(torch.cat(repeated).double().mean())


def _blocks(samples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [samples[start : start + _BLOCK] for start in range(0, len(samples), _BLOCK)]


def _hashes(latents: Tensor) -> Tensor:
    """A number of 64 bits per row, of its bits; shape (n,)."""
    bits = latents.contiguous().view(torch.int32).long()
    generator = torch.Generator().manual_seed(0)
    # odd factors, whose products wrap around at 64 bits
    factors = torch.randint(2**62, (bits.shape[1],), generator=generator) * 2 + 1
    return (bits * factors.to(bits.device)).sum(dim=1)
