"""One iteration of DAS in other software: pyvene, and a plain PyTorch loop that runs every sequence from its start.

All of them train a rotation of a frozen GRU's hidden state on the same pairs: the source is run up to its step, the target up to
its own, components are exchanged there, and the loss is over the tokens of the counterfactual continuation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neuromas.align.pairs import PairSet
from neuromas.causal.model import tokens_by_trial
from neuromas.recordings.recording import Recording
from neuromas.systems.recurrent import GRU

Iterate = Callable[[NDArray[np.int64]], float]
"""One iteration on some rows: forward, backward, and one step of Adam. It returns the loss before the step."""


@dataclass(frozen=True)
class Whole:
    """Pairs as whole sequences, from the first token on.

    Attributes
    ----------
    source, target : Tensor of int64, shape (n_pairs, n_steps)
        Tokens, padded with 0. Those of the target end with the counterfactual continuation.
    u, t : Tensor of int64, shape (n_pairs,)
        Steps between which components are exchanged.
    labels : Tensor of int64, shape (n_pairs, n_steps)
        Expected token after each step of the target; −100 where nothing is scored.
    """

    source: Tensor
    target: Tensor
    u: Tensor
    t: Tensor
    labels: Tensor

    @classmethod
    def of(cls, pairs: PairSet) -> Whole:
        """The pairs of a direction."""
        assert pairs.continuation is not None
        source_tokens, u = _up_to(pairs.direction.source.recording, pairs.source)
        target_tokens, t = _up_to(pairs.direction.target.recording, pairs.target)
        tokens, lengths = pairs.continuation.tokens, pairs.continuation.lengths
        target = np.zeros((len(pairs), int((t + 1 + lengths).max())), dtype=np.int64)
        target[:, : target_tokens.shape[1]] = target_tokens
        labels = np.full(target.shape, -100)
        rows, places = np.nonzero(np.arange(tokens.shape[1]) < lengths[:, None])
        target[rows, t[rows] + 1 + places] = tokens[rows, places]
        labels[rows, t[rows] + places] = tokens[rows, places]
        return cls(*(torch.from_numpy(x) for x in (source_tokens, target, u, t, labels)))

    def at(self, rows: NDArray[np.int64]) -> Whole:
        """Some of the pairs, no longer than they need to be."""
        batch = Whole(*(x[torch.from_numpy(rows)] for x in (self.source, self.target, self.u, self.t, self.labels)))
        steps = int((batch.labels >= 0).any(dim=0).nonzero().max()) + 1
        source = batch.source[:, : int(batch.u.max()) + 1]
        return Whole(source, batch.target[:, :steps], batch.u, batch.t, batch.labels[:, :steps])


def _up_to(recording: Recording, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens (n_pairs, n_steps) of the samples' trials up to them, filled up with 0, and their steps."""
    tokens, rows = tokens_by_trial(recording.dataset["token"].values, recording.trial, recording.step, fill=0)
    steps = recording.step[samples]
    own = tokens[rows[samples], : int(steps.max()) + 1]
    return np.where(np.arange(own.shape[1]) <= steps[:, None], own, 0), steps


class _Rotation(nn.Module):
    """A square weight made orthogonal, as one writes it in PyTorch."""

    def __init__(self, n_units: int, columns: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_units, columns.shape[1]))
        nn.utils.parametrizations.orthogonal(self)
        self.weight = columns  # type: ignore[assignment]  # the parametrisation takes it apart

    def forward(self) -> Tensor:
        return self.weight


def plain(system: GRU, pairs: PairSet, columns: Tensor, learning_rate: float) -> Iterate:
    """Both sequences run from their first token, step by step, the exchange by a mask, the readout at every step.

    Parameters
    ----------
    system : GRU
    pairs : PairSet
    columns : Tensor, shape (n_units, rank)
        Orthonormal; where training starts.
    learning_rate : float
        Of Adam.
    """
    network = system._network
    parameters = dict(network.cell.named_parameters())
    cell = nn.GRUCell(network.cell.input_size, network.cell.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in parameters.items()})
    cell.requires_grad_(False)
    rotation, whole = _Rotation(len(columns), columns), Whole.of(pairs)
    optimiser = torch.optim.Adam(rotation.parameters(), lr=learning_rate)

    def iterate(rows: NDArray[np.int64]) -> float:
        batch, (directions) = whole.at(rows), rotation()
        with torch.no_grad():
            states = network.cell(network.embedding(batch.source))[0]
        source = states[torch.arange(len(rows)), batch.u]
        embedded, hidden, kept = network.embedding(batch.target), states.new_zeros(len(rows), states.shape[2]), []
        for step in range(batch.target.shape[1]):
            hidden = cell(embedded[:, step], hidden)
            changed = hidden + (source - hidden) @ directions @ directions.T
            hidden = torch.where((batch.t == step)[:, None], changed, hidden)
            kept.append(hidden)
        loss = functional.cross_entropy(network.readout(torch.stack(kept, dim=1)).flatten(0, 1), batch.labels.flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return iterate


def pyvene(system: GRU, pairs: PairSet, columns: Tensor, learning_rate: float) -> Iterate:
    """pyvene's `IntervenableModel` around its own GRU with our weights, and its `LowRankRotatedSpaceIntervention`.

    Parameters are those of `plain`.
    """
    import pyvene as library
    from pyvene.models.gru.modelings_gru import GRUConfig, GRUModel

    network = system._network
    width, rank = columns.shape
    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        gru = GRUModel(GRUConfig(include_emb=False, n_layer=1, h_dim=width, pdrop=0.0))
        own = dict(network.cell.named_parameters())
        cell = {
            "x2h.weight": "weight_ih_l0",
            "x2h.bias": "bias_ih_l0",
            "h2h.weight": "weight_hh_l0",
            "h2h.bias": "bias_hh_l0",
        }
        gru.cells[0].load_state_dict({name: own[mine] for name, mine in cell.items()})
        representation = library.RepresentationConfig(
            layer=0, component="cell_output", unit="t", max_number_of_units=1, low_rank_dimension=rank
        )

        class Batched(library.LowRankRotatedSpaceIntervention):
            """Its 0.1.8 intervenes at every step of a recurrent network, with zeros for a source at all but the chosen one, and
            puts a batch back with a dimension too few. Mended here, so that it does what was asked of it."""

            def forward(self, base: Tensor, source: Tensor, *arguments: object, **named: object) -> Tensor:
                changed = super().forward(base, source, *arguments, **named)
                return torch.where((source == 0).all(dim=1, keepdim=True), base, changed).unsqueeze(1)

        config = library.IntervenableConfig([representation], intervention_types=Batched)
        model = library.IntervenableModel(config, gru)
    model.disable_model_gradients()
    (intervention,) = model.interventions.values()
    intervention = intervention[0] if isinstance(intervention, (tuple, list)) else intervention
    intervention.rotate_layer.weight = columns
    whole = Whole.of(pairs)
    optimiser = torch.optim.Adam(intervention.parameters(), lr=learning_rate)

    def iterate(rows: NDArray[np.int64]) -> float:
        batch = whole.at(rows)
        places = [[[u] for u in batch.u.tolist()]], [[[t] for t in batch.t.tolist()]]
        _, outputs = model(
            {"inputs_embeds": network.embedding(batch.target)},
            [{"inputs_embeds": network.embedding(batch.source)}],
            {"sources->base": places},
        )
        logits = network.readout(outputs[0])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return iterate


def peers() -> dict[str, Callable[[GRU, PairSet, Tensor, float], Iterate]]:
    """The plain loop, and pyvene where it is installed (the extra ``bench``)."""
    loops: dict[str, Callable[[GRU, PairSet, Tensor, float], Iterate]] = {"a plain PyTorch loop": plain}
    if importlib.util.find_spec("pyvene"):
        loops["pyvene"] = pyvene
    return loops
