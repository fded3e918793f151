"""A linear probe: which values of a variable can be read from held-out latents."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuromas.errors import InvalidInput

_RIDGE = 1e-3
"""Share of the total variance per unit that is added to the covariance within values."""
_LEAST = 1e-30
"""What is added at least: latents that are all equal have no variance."""


@dataclass(frozen=True)
class Probe:
    """Linear discriminant analysis of a variable.

    Attributes
    ----------
    values : ndarray, shape (n_values,)
        Values that it can name.
    weights : ndarray of float64, shape (n_units, n_values)
    bias : ndarray of float64, shape (n_values,)
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64] = field(repr=False)
    bias: NDArray[np.float64] = field(repr=False)

    @classmethod
    def fit(cls, latents: NDArray[np.floating], values: NDArray[np.float64]) -> Probe:
        """Fit on latents (n, n_units) and their values (n,).

        Raises
        ------
        InvalidInput
            Fewer than two values.

        Examples
        --------
        >>> generator = np.random.default_rng(0)
        >>> values = generator.integers(3, size=300)
        >>> latents = np.eye(5)[values] + 0.1 * generator.normal(size=(300, 5))
        >>> probe = Probe.fit(latents[:200], values[:200])
        >>> float((probe.read(latents[200:]) == values[200:]).mean())
        1.0
        """
        x = np.asarray(latents, dtype=np.float64)
        names, group = np.unique(values, return_inverse=True)
        if len(names) < 2:
            raise InvalidInput(f"a probe needs at least 2 values, got {len(names)}", kind="too_few_values")
        counts = np.bincount(group)
        means = np.stack([x[group == number].mean(axis=0) for number in range(len(names))])
        centre = x.mean(axis=0)
        residual = x - means[group]
        spread = float(((x - centre) ** 2).mean())
        within = residual.T @ residual / len(x) + max(_RIDGE * spread, _LEAST) * np.eye(x.shape[1])
        # centred, so that the bias keeps its precision
        weights = np.linalg.solve(within, (means - centre).T)
        bias = np.log(counts / len(x)) - 0.5 * np.einsum("vu,uv->v", means - centre, weights) - centre @ weights
        return cls(names.astype(np.float64), weights, bias)

    def read(self, latents: NDArray[np.floating]) -> NDArray[np.float64]:
        """The value that each latent (n, n_units) holds most probably, shape (n,)."""
        scores = np.asarray(latents, dtype=np.float64) @ self.weights + self.bias
        named: NDArray[np.float64] = self.values[scores.argmax(axis=1)]
        return named
