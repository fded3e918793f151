"""Record a system: run it on trials, keep the latents with their causal variables."""

from __future__ import annotations

import numpy as np
import torch

from neuromas.causal.model import CausalModel, Sequences, get_task
from neuromas.errors import InvalidInput
from neuromas.recordings.recording import Recording
from neuromas.schema import Access, Provenance, Sampling
from neuromas.systems.system import System
from neuromas.systems.training import now, versions


def capture(
    system: System,
    trials: Sequences | int,
    *,
    seed: int = 0,
    name: str | None = None,
    access: Access = "intervene",
    model: CausalModel | None = None,
    dtype: str = "float32",
    batch_size: int = 500,
    only_solved: bool = False,
) -> Recording:
    """Run `system` on `trials` and return what was recorded.

    Parameters
    ----------
    system : System
    trials : Sequences or int
        Trials of the system's task, or how many to draw.
    seed : int
        Of the trials, where a number is given.
    name : str, optional
        The recording's name; the system's by default.
    access : {"intervene", "read"}
        What whoever gets the recording may be told: "read" for a system that plays a brain.
    model : CausalModel, optional
        The task's causal model; by default the registered task that the system names.
    dtype : str
        ``float16`` halves the size; GRU states lie in (-1, 1), where it errs by at most 5e-4.
    batch_size : int
        Trials run at once.
    only_solved : bool
        Keep only trials in which every deterministic token is the most probable one; the provenance says how many were not.

    Returns
    -------
    Recording
        One sample per (trial, step), all steps, the ineligible ones marked.

    Raises
    ------
    InvalidInput
        The task's tokens are not the system's; no trial is solved.

    Examples
    --------
    >>> from neuromas.systems.training import load_system
    >>> recording = capture(load_system("multi-object/gru-0"), 10, seed=0)
    >>> recording.n_units
    128
    """
    model = get_task(system.config.task) if model is None else model
    # a system trained with more tokens, void ones say, does the task without them
    if model.vocabulary != system.config.vocabulary[: len(model.vocabulary)]:
        strange = [token for token in model.vocabulary if token not in system.config.vocabulary]
        raise InvalidInput(
            f"task {model.name!r} and system {system.name!r} have different tokens"
            + (f": the system does not know {', '.join(strange)}" if strange else ", or in another order"),
            kind="vocabulary_mismatch",
        )
    drawn = trials if isinstance(trials, Sequences) else model.sample(trials, seed)
    notes = ""
    if only_solved:
        solved = system.solved(drawn)
        if not solved.any():
            raise InvalidInput(
                f"system {system.name!r} solves none of {len(drawn)} trials of task {model.name!r}; expected at least 1",
                kind="none_solved",
            )
        notes = f"left out {int((~solved).sum())} of {len(drawn)} trials, which the system does not solve"
        drawn = Sequences(**{name: array[solved] for name, array in vars(drawn).items()})
    n_trials, n_steps = drawn.tokens.shape
    activity = np.empty((n_trials, n_steps, system.n_units), dtype=dtype)
    for start in range(0, n_trials, batch_size):
        tokens = torch.from_numpy(drawn.tokens[start : start + batch_size])
        activity[start : start + batch_size] = system.latents(tokens).cpu().numpy()
    trial, step = np.nonzero(np.arange(n_steps) < drawn.lengths[:, None])
    return Recording.from_arrays(
        activity[trial, step],
        {variable: drawn.values[trial, step, column] for column, variable in enumerate(model.variable_names)},
        trial=trial,
        step=step,
        token=drawn.tokens[trial, step],
        eligible=drawn.eligible[trial, step],
        vocabulary=model.vocabulary,
        variable_specs=model.variables,
        name=name or system.name,
        system=system.name,
        layer=system.layer,
        task=model.name,
        access=access,
        sampling=Sampling(step="token"),
        provenance=Provenance(
            source=f"capture of {system.name}, weights {system.config.weights_sha256 or 'unsaved'}",
            seed=None if isinstance(trials, Sequences) else seed,
            created=now(),
            versions=versions(),
            notes=notes,
        ),
    )
