"""One loop for all fitters: init, step, terminate; resumable, interruptible, deterministic."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from neuromas.align.alignment import TrainableMap
from neuromas.align.interchange import LinearMap
from neuromas.errors import InvalidInput
from neuromas.files import write_atomically
from neuromas.fit.objective import Batch, Losses, Part, losses, losses_together, make_batch
from neuromas.fit.plan import Plan, State, batch_rows, draw_generator, learning_rate
from neuromas.fit.replay import MOST, Replay, replayable
from neuromas.interrupts import deferred_interrupt
from neuromas.schema.fit import Validation
from neuromas.weights import read_safetensors

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a fit stands; what a progress bar shows."""

    iteration: int
    max_iterations: int
    loss: float
    validation: Validation | None
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Until the iteration limit, at the rate so far; early stopping may come first."""
        return self.seconds / max(self.iteration, 1) * (self.max_iterations - self.iteration)

    def __str__(self) -> str:
        told = f"loss {self.loss:.4f}"
        if self.validation is not None and self.validation.iia:
            told += f", IIA {min(self.validation.iia.values()):.3f}"
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{told}, {minutes}:{seconds:02d} left"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C arrived; the state was saved at the end of an iteration, where there is a folder to save it in."""


def run(
    plan: Plan,
    maps: Mapping[str, TrainableMap],
    *,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Iterate until validation is flat or the limit is reached; return the best checkpoint's maps.

    Parameters
    ----------
    plan : Plan
    maps : mapping of side name to TrainableMap
        Where to start; trained in place.
    folder : path, optional
        For the checkpoint; an earlier one there is resumed.
    report : callable, optional
        Called after every iteration.

    Raises
    ------
    Interrupted
        On Ctrl-C, after saving a checkpoint.
    InvalidInput
        `folder` holds another fit's checkpoint, or the loss is no longer finite.
    """
    found: list[Outcome] = []
    run_together(
        [plan],
        [maps],
        lambda _, outcome: found.append(outcome),
        folders=[folder],
        report=None if report is None else lambda _, progress: report(progress),
    )
    return found[0]


Outcome = tuple[dict[str, LinearMap], State, Literal["converged", "max_iterations"]]
"""Maps of the best checkpoint, the state at the end, and why it ended."""


def run_together(
    plans: Sequence[Plan],
    maps: Sequence[Mapping[str, TrainableMap]],
    ended: Callable[[int, Outcome], object],
    *,
    folders: Sequence[Path | None] | None = None,
    report: Callable[[int, Progress], None] | None = None,
    names: Sequence[object] | None = None,
) -> None:
    """`run` for several fits at once: in each iteration, every frozen target is run once for all of them.

    Each fit has its own parameters, optimiser, pairs, end, and checkpoint, and comes to what it comes to alone, but for
    rounding.

    Parameters
    ----------
    plans : sequence of Plan
    maps : sequence of mapping of side name to TrainableMap
        Where each starts; trained in place.
    ended : callable
        Called with the number of each fit and its outcome when it ends.
    folders : sequence of path or None, optional
        For the checkpoints; earlier ones there are resumed.
    report : callable, optional
        Called with the number of the fit after each of its iterations.
    names : sequence, optional
        What errors call the fits, where not by their numbers.

    Raises
    ------
    Interrupted
        As `run`.
    InvalidInput
        As `run`. Where the loss of some fits is no longer finite, after all others have ended.
    """
    folders = [None] * len(plans) if folders is None else folders
    states = [init(plan, one, folder) for plan, one, folder in zip(plans, maps, folders, strict=True)]
    fixed = [_fixed_draws(plan) if plan.config.cl_draw == "fixed" else None for plan in plans]
    active, diverged = list(range(len(plans))), dict[int, str]()
    replay: Replay | None = None
    with deferred_interrupt() as interrupted:
        while True:
            over = [one for one in active if terminate(plans[one], states[one])]
            for number in over:
                active.remove(number)
                ended(number, _outcome(plans[number], states[number]))
            if not active:
                break
            started = time.monotonic()
            members = list(active)
            its = [plans[one] for one in members], [states[one] for one in members], [fixed[one] for one in members]
            if replay is None or replay.n_fits != len(members):
                replay = Replay(*its) if replayable(its[0]) else None
            for found in _iterations(*its, replay):
                for number, loss in zip(members, found, strict=True):
                    plan, state, folder = plans[number], states[number], folders[number]
                    if number not in active:
                        continue  # its loss became what it is some iterations ago
                    if not math.isfinite(loss):
                        active.remove(number)
                        diverged[number] = f"became {loss} at iteration {state.iteration}"
                        continue
                    if (
                        state.iteration % plan.config.validate_every == 0
                        or state.iteration == plan.config.max_iterations
                    ):
                        _look(plan, state, loss)
                        if folder is not None:
                            save_checkpoint(folder / CHECKPOINT, plan, state)
                    if report is not None:
                        seconds = state.seconds + time.monotonic() - started
                        last = state.history[-1] if state.history else None
                        report(number, Progress(state.iteration, plan.config.max_iterations, loss, last, seconds))
            taken = time.monotonic() - started
            for number in active:
                states[number].seconds += taken
            if interrupted():
                for number in active:
                    folder = folders[number]
                    if folder is not None:
                        save_checkpoint(folder / CHECKPOINT, plans[number], states[number])
                raise Interrupted
    if diverged:
        told = {
            number: "" if len(plans) == 1 else f" of fit {(names or range(len(plans)))[number]}" for number in diverged
        }
        each = "; ".join(f"the loss{told[number]} {why}" for number, why in diverged.items())
        raise InvalidInput(f"{each}; a smaller learning rate may help", kind="diverged")


def _iterations(
    plans: Sequence[Plan],
    states: Sequence[State],
    fixed: Sequence[Sequence[tuple[Tensor, Tensor] | None] | None],
    replay: Replay | None,
) -> Iterator[list[float]]:
    """The next iteration; with `replay`, those until the next look at a fit. Gives the losses of all fits before each update."""
    if replay is None:
        yield step_together(plans, states, fixed)
        return
    for found in replay.run(min(MOST, *map(_until_next_look, plans, states))):
        for loss, state in zip(found, states, strict=True):
            state.iteration += math.isfinite(loss)
        yield found


def _until_next_look(plan: Plan, state: State) -> int:
    every, left = plan.config.validate_every, plan.config.max_iterations - state.iteration
    return min(every - state.iteration % every, left)


def _outcome(plan: Plan, state: State) -> Outcome:
    state.maps.load_state_dict(state.best)
    status: Literal["converged", "max_iterations"] = (
        "converged" if state.stale >= plan.config.patience else "max_iterations"
    )
    with torch.no_grad():
        return {name: one().detach() for name, one in state.named_maps()}, state, status


def init(plan: Plan, maps: Mapping[str, TrainableMap], folder: Path | None) -> State:
    """A fresh state with the starting point validated, or the one that a checkpoint in `folder` holds."""
    state = State.fresh(maps, plan.config.learning_rate)
    if folder is not None and (folder / CHECKPOINT).exists():
        load_checkpoint(folder / CHECKPOINT, plan, state)
    else:
        _look(plan, state, None)
    return state


def step(plan: Plan, state: State, fixed: Sequence[tuple[Tensor, Tensor] | None] | None = None) -> float:
    """One optimiser update on a fresh batch of every direction; returns the loss before it."""
    return step_together([plan], [state], [fixed])[0]


def step_together(
    plans: Sequence[Plan],
    states: Sequence[State],
    fixed: Sequence[Sequence[tuple[Tensor, Tensor] | None] | None] | None = None,
) -> list[float]:
    """`step` for several fits, whose targets are run together; returns the losses before it.

    A fit whose loss is not finite is left as it is.
    """
    parts = []
    for number, (plan, state) in enumerate(zip(plans, states, strict=True)):
        state.set_learning_rate(learning_rate(plan.config, state.iteration))
        maps = {name: one() for name, one in state.named_maps()}  # once per iteration, never once per step
        parts.append(Part(maps, _batches(plan, state.iteration, None if fixed is None else fixed[number]), plan.config))
    totals = [found.total for found in losses_together(parts)]
    for state in states:
        state.optimiser.zero_grad(set_to_none=True)
    torch.stack(totals).sum().backward()  # each total depends on its own fit's parameters alone
    told = torch.stack(totals).detach().tolist()
    for loss, state in zip(told, states, strict=True):
        if math.isfinite(loss):
            state.optimiser.step()
            state.iteration += 1
    return told


def _batches(plan: Plan, iteration: int, fixed: Sequence[tuple[Tensor, Tensor] | None] | None) -> list[Batch]:
    """A fresh batch of every direction."""
    batches = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.train, strict=True)):
        chosen = batch_rows(len(pairs), plan.config.batch_size, plan.config.seed, number, iteration)
        generator = draw_generator(pairs, plan.config.seed, number, iteration) if term.cl else None
        drawn = None if fixed is None else fixed[number]
        batches.append(
            make_batch(term, pairs, chosen, plan.subspaces, generator, drawn, n_matches=plan.config.cl_matches)
        )
    return batches


def terminate(plan: Plan, state: State) -> bool:
    """Whether the iteration limit is reached or validation has been flat for `patience` looks."""
    return state.iteration >= plan.config.max_iterations or state.stale >= plan.config.patience


@torch.no_grad()
def validate(plan: Plan, maps: Mapping[str, LinearMap]) -> Losses:
    """The objective on all validation pairs, with who was right; draws are the same at every look."""
    batches = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.validation, strict=True)):
        generator = draw_generator(pairs, plan.config.seed, number, -1) if term.cl else None
        every = np.arange(len(pairs))
        batches.append(make_batch(term, pairs, every, plan.subspaces, generator, n_matches=plan.config.cl_matches))
    return losses(maps, batches, plan.config, score=True)


def _look(plan: Plan, state: State, train_loss: float | None) -> None:
    with torch.no_grad():
        found = validate(plan, {name: one() for name, one in state.named_maps()})
    seen = Validation(
        iteration=state.iteration,
        train_loss=train_loss,
        loss=found.total.item(),
        behaviour={name: value.item() for name, value in found.behaviour.items()},
        cl={name: value.item() for name, value in found.cl.items()},
        iia={name: value.double().mean().item() for name, value in found.right.items()},
    )
    state.history.append(seen)
    # an oracle never chooses: iia holds only directions whose target the fit may run
    score = -min(seen.iia.values()) if plan.config.select == "iia" and seen.iia else seen.loss
    if score < state.best_score:
        state.best_score, state.best_iteration = score, state.iteration
        state.best = {name: value.detach().clone() for name, value in state.maps.state_dict().items()}
    if not math.isfinite(state.reference) or score < state.reference - plan.config.tolerance * abs(state.reference):
        state.reference, state.stale = score, 0
    else:
        state.stale += 1


def _fixed_draws(plan: Plan) -> list[tuple[Tensor, Tensor] | None]:
    drawn: list[tuple[Tensor, Tensor] | None] = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.train, strict=True)):
        if not term.cl:
            drawn.append(None)
            continue
        generator = draw_generator(pairs, plan.config.seed, number, -2)
        index = pairs.direction.target.indexes[pairs.part]
        draw = index.sample(torch.from_numpy(pairs.values), generator, plan.config.cl_matches)
        drawn.append((draw.latents, draw.hit))
    return drawn


def save_checkpoint(path: Path, plan: Plan, state: State) -> None:
    """Write the whole state as safetensors, whole or not at all."""
    tensors = {f"now/{name}": value for name, value in state.maps.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    for name, parameter in state.maps.named_parameters():
        for moment, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"adam/{moment}/{name}"] = value
    described = {
        "identity": plan.identity,
        "state": json.dumps(
            {
                "iteration": state.iteration,
                "best_iteration": state.best_iteration,
                "best_score": state.best_score,
                "reference": state.reference,
                "stale": state.stale,
                "seconds": state.seconds,
            }
        ),
        "history": json.dumps([seen.model_dump() for seen in state.history]),
    }
    write_atomically(
        path,
        save_safetensors(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, described
        ),
    )


def load_checkpoint(path: Path, plan: Plan, state: State) -> None:
    """Fill `state` from what `save_checkpoint` wrote; InvalidInput if it belongs to another fit."""
    tensors, described = read_safetensors(path)
    if described.get("identity") != plan.identity:
        raise InvalidInput(
            f"{path} belongs to another fit (configuration or inputs differ); choose another folder or remove it",
            kind="occupied",
        )
    state.maps.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("now/")})
    state.best = {name[5:]: value for name, value in tensors.items() if name.startswith("best/")}
    for name, parameter in state.maps.named_parameters():
        if f"adam/step/{name}" in tensors:
            moments = {one: tensors[f"adam/{one}/{name}"] for one in ("exp_avg", "exp_avg_sq")}
            state.optimiser.state[parameter] = {
                "step": tensors[f"adam/step/{name}"].to(parameter.device),
                # laid out in memory as the parameter, which one kernel for all of them asks for
                **{one: torch.empty_like(parameter.data).copy_(value) for one, value in moments.items()},
            }
    for name, value in json.loads(described["state"]).items():
        setattr(state, name, value)
    state.history = [Validation.model_validate(seen) for seen in json.loads(described["history"])]
