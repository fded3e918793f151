"""Seeds of random numbers: whole numbers from 0. NumPy takes any, PyTorch those below 2^64."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

from neuromas.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

N_SEEDS = 2**64
"""Requests name a seed below this."""


def generator(seed: int | np.random.Generator, where: str = "seed") -> np.random.Generator:
    """The generator of `seed`; a generator is returned as it is.

    Raises
    ------
    InvalidInput
        `seed` is neither a generator nor a whole number from 0.

    Examples
    --------
    >>> import numpy as np
    >>> int(generator(7).integers(100)) == int(np.random.default_rng(7).integers(100))
    True
    """
    # documents need the limit of seeds alone, and numpy takes a while
    import numpy as np

    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(checked(seed, where))


def checked(seed: int, where: str = "seed") -> int:
    """`seed`, if it is a whole number from 0; else InvalidInput."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise InvalidInput(f"{where}: expected a whole number from 0, got {seed!r}", kind="invalid_option")
    return int(seed)


def for_torch(seed: int) -> int:
    """`seed` where PyTorch can take it; the same below 2^64.

    Examples
    --------
    >>> for_torch(5), for_torch(2**64 + 5)
    (5, 5)
    """
    return seed % N_SEEDS
