"""Whether a system is the one that was recorded: run on the recording's own inputs, it must give the recorded latents."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuromas import dims
from neuromas.causal.model import tokens_by_trial
from neuromas.errors import InvalidInput
from neuromas.recordings.recording import Recording
from neuromas.systems.system import System

_N_TRIALS = 100
"""Trials that are run."""
_TOLERANCE = 0.02
"""Largest difference, relative to the spread of the recorded latents. Half precision and other kernels stay below it."""


def check_oracle(system: System, recording: Recording, latents: Tensor) -> None:
    """Raise unless `system` is what `recording` was made from.

    Parameters
    ----------
    system : System
    recording : Recording
    latents : Tensor, shape (n_samples, n_units)
        Activity of the recording, in the system's units.

    Raises
    ------
    InvalidInput
        The system gives other latents on the recording's tokens. Or these cannot be compared, and the recording does not name the
        system's weights as its origin.
    """
    samples = _comparable(recording, latents)
    if not len(samples):
        if _names_weights(recording, system):
            return
        why = "no trial from its first step" if dims.TOKEN in recording.dataset.coords else "no tokens"
        raise InvalidInput(
            f"recording {recording.name!r} has {why}, so it cannot be checked that oracle {system.name!r} is the system that was"
            " recorded; expected a recording whose tokens the oracle can be run on",
            kind="no_tokens",
        )
    difference = _difference(system, recording, latents, samples)
    if not difference <= _TOLERANCE:
        raise InvalidInput(
            f"oracle {system.name!r} at layer {system.layer!r} is not the system that recording {recording.name!r} was made from:"
            f" on the recording's own tokens, its latents differ from the recorded ones by {difference:.3g} of their spread;"
            f" expected at most {_TOLERANCE:g}",
            kind="wrong_oracle",
        )


def _comparable(recording: Recording, latents: Tensor) -> NDArray[np.int64]:
    """Complete samples of some trials whose earlier steps were all recorded."""
    if dims.TOKEN not in recording.dataset.coords:
        return np.empty(0, np.int64)
    order = np.lexsort((recording.step, recording.trial))
    trials, first = np.unique(recording.trial[order], return_index=True)
    row = np.searchsorted(trials, recording.trial[order])
    from_start = recording.step[order] == np.arange(len(order)) - first[row]
    complete = torch.isfinite(latents).all(dim=1).cpu().numpy()[order]
    usable = np.unique(row[from_start & complete])
    chosen = usable[np.linspace(0, len(usable) - 1, min(len(usable), _N_TRIALS)).astype(int)]
    return order[from_start & np.isin(row, chosen)]


def _names_weights(recording: Recording, system: System) -> bool:
    weights = system.config.weights_sha256
    return weights is not None and recording.manifest.provenance.source.endswith(f"weights {weights}")


def _difference(system: System, recording: Recording, latents: Tensor, samples: NDArray[np.int64]) -> float:
    """Root mean square difference between the system's latents and the recorded ones, over the spread of these."""
    steps = recording.step[samples]
    tokens, rows = tokens_by_trial(recording.dataset[dims.TOKEN].values[samples], recording.trial[samples], steps)
    own = system.latents(torch.from_numpy(tokens))[torch.from_numpy(rows), torch.from_numpy(steps)].double().cpu()
    recorded = latents[torch.from_numpy(samples).to(latents.device)].double().cpu()
    complete = torch.isfinite(recorded).all(dim=1)
    own, recorded = own[complete], recorded[complete]
    spread = (recorded - recorded.mean(dim=0)).norm()
    return float((own - recorded).norm() / spread.clamp_min(torch.finfo(torch.float32).tiny))


__all__ = ["check_oracle"]
