"""The loop of all fits: init, step, terminate. It can be interrupted and resumed, and it is deterministic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from neuromas.align.alignment import TrainableMap
from neuromas.align.interchange import LinearMap
from neuromas.errors import InvalidInput
from neuromas.fit.folder import read_checkpoint, write_checkpoint
from neuromas.fit.objective import FitBatches, Losses, PairBatch, losses, losses_together, make_batch
from neuromas.fit.plan import FitPlan, State, batch_rows, draw_generator, learning_rate
from neuromas.fit.progress import Progress, expected_end
from neuromas.fit.replay import MOST, Replay, replayable
from neuromas.interrupts import deferred_interrupt
from neuromas.schema.fit import Validation
from neuromas.twins.twin import REFEREE

Drawn = tuple[Tensor, Tensor]
"""Counterfactual latents and hits of all training pairs of a term."""
Outcome = tuple[dict[str, LinearMap], State, Literal["converged", "max_iterations", "closed_form"]]
"""Maps of the best checkpoint, the state at the end, and the status."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed. The state was saved at the end of an iteration, if the fit has a folder."""


@dataclass
class _Fit:
    """One of several fits that run together."""

    number: int
    plan: FitPlan
    state: State
    fixed: Sequence[Drawn | None] | None
    folder: Path | None

    def save(self) -> None:
        if self.folder is not None:
            write_checkpoint(self.folder, self.plan, self.state)

    def validate_if_due(self, loss: float) -> None:
        config, iteration = self.plan.config, self.state.iteration
        if iteration % config.validate_every == 0 or iteration == config.max_iterations:
            _validate_state(self.plan, self.state, loss)
            self.save()

    def progress(self, loss: float, seconds: float) -> Progress:
        config, state = self.plan.config, self.state
        latest = state.history[-1] if state.history else None
        end = expected_end(config, state.history, state.stale)
        return Progress(state.iteration, config.max_iterations, loss, latest, state.seconds + seconds, end)


def run_together(
    plans: Sequence[FitPlan],
    maps: Sequence[Mapping[str, TrainableMap]],
    ended: Callable[[int, Outcome], object],
    *,
    folders: Sequence[Path | None] | None = None,
    report: Callable[[int, Progress], None] | None = None,
    names: Sequence[object] | None = None,
) -> None:
    """Iterate several fits at once until each converges or reaches its limit.

    In each iteration, every frozen target is run once for all fits. Each fit has its own parameters, optimiser, pairs, end and
    checkpoint. Its result is that of the same fit alone, up to rounding.

    Parameters
    ----------
    plans : sequence of FitPlan
    maps : sequence of mapping of side name to TrainableMap
        Where each fit starts; trained in place.
    ended : callable
        Called with the number of each fit and its outcome when it ends.
    folders : sequence of path or None, optional
        Folders for the checkpoints. A fit continues from an earlier checkpoint there.
    report : callable, optional
        Called with the number of the fit and its `Progress` after each of its iterations.
    names : sequence, optional
        Names of the fits in error messages; by default a message does not name the fit.

    Raises
    ------
    Interrupted
        On Ctrl-C, after saving checkpoints.
    InvalidInput
        A folder holds the checkpoint of another fit. Or the loss of some fits is no longer finite; this is raised after all
        others have ended.
    """
    active = _begin(plans, maps, folders)
    diverged: dict[int, str] = {}
    replay: Replay | None = None
    with deferred_interrupt() as interrupted:
        while active := _end_finished(active, ended):
            started = time.monotonic()
            replay = _replay_of(active, replay)
            for values in _iterations(active, replay):
                for fit, loss in zip(active, values, strict=True):
                    if fit.number in diverged:
                        # the loss became infinite in an earlier one of these iterations
                        continue
                    if not math.isfinite(loss):
                        diverged[fit.number] = f"became {loss} at iteration {fit.state.iteration}"
                        continue
                    fit.validate_if_due(loss)
                    if report is not None:
                        report(fit.number, fit.progress(loss, time.monotonic() - started))
            active = [fit for fit in active if fit.number not in diverged]
            _add_seconds(active, time.monotonic() - started)
            if interrupted():
                for fit in active:
                    fit.save()
                raise Interrupted
    if diverged:
        raise _diverged(diverged, names)


def _begin(
    plans: Sequence[FitPlan],
    maps: Sequence[Mapping[str, TrainableMap]],
    folders: Sequence[Path | None] | None,
) -> list[_Fit]:
    folders = [None] * len(plans) if folders is None else folders
    fits = []
    for number, (plan, start, folder) in enumerate(zip(plans, maps, folders, strict=True)):
        fixed = fixed_draws(plan) if plan.config.cl_draw == "fixed" else None
        fits.append(_Fit(number, plan, init(plan, start, folder), fixed, folder))
    return fits


def _end_finished(active: Sequence[_Fit], ended: Callable[[int, Outcome], object]) -> list[_Fit]:
    """Report the fits that have ended; gives those that go on."""
    going_on = []
    for fit in active:
        if terminate(fit.plan, fit.state):
            ended(fit.number, _outcome(fit.plan, fit.state))
        else:
            going_on.append(fit)
    return going_on


def _replay_of(active: Sequence[_Fit], replay: Replay | None) -> Replay | None:
    """The recorded iterations of these fits, recorded anew if a fit has left; None where nothing can be recorded."""
    if replay is not None and replay.n_fits == len(active):
        return replay
    plans = [fit.plan for fit in active]
    if not replayable(plans):
        return None
    return Replay(plans, [fit.state for fit in active], [fit.fixed for fit in active])


def _iterations(active: Sequence[_Fit], replay: Replay | None) -> Iterator[list[float]]:
    """The next iteration; with `replay`, those until the next validation of a fit. Gives all losses before each update."""
    plans, states = [fit.plan for fit in active], [fit.state for fit in active]
    if replay is None:
        yield step_together(plans, states, [fit.fixed for fit in active])
        return
    for values in replay.run(min(MOST, *map(_until_validation, plans, states))):
        for loss, state in zip(values, states, strict=True):
            state.iteration += math.isfinite(loss)
        yield values


def _until_validation(plan: FitPlan, state: State) -> int:
    every, left = plan.config.validate_every, plan.config.max_iterations - state.iteration
    return min(every - state.iteration % every, left)


def _add_seconds(active: Sequence[_Fit], seconds: float) -> None:
    for fit in active:
        fit.state.seconds += seconds


def _diverged(diverged: Mapping[int, str], names: Sequence[object] | None) -> InvalidInput:
    each = "; ".join(
        f"the loss{'' if names is None else f' of fit {names[number]}'} {problem}"
        for number, problem in diverged.items()
    )
    return InvalidInput(f"{each}; a smaller learning rate may help", kind="diverged")


def _outcome(plan: FitPlan, state: State) -> Outcome:
    state.maps.load_state_dict(state.best)
    status: Literal["converged", "max_iterations"] = (
        "converged" if state.stale >= plan.config.patience else "max_iterations"
    )
    with torch.no_grad():
        return {name: module().detach() for name, module in state.named_maps()}, state, status


def init(plan: FitPlan, maps: Mapping[str, TrainableMap], folder: Path | None) -> State:
    """A new state with its start validated, or the state in the checkpoint of `folder`."""
    state = State.fresh(maps, plan.config.learning_rate)
    if folder is None or not read_checkpoint(folder, plan, state):
        _validate_state(plan, state, None)
    return state


def step(plan: FitPlan, state: State, fixed: Sequence[Drawn | None] | None = None) -> float:
    """One optimiser update on a new batch of every direction; returns the loss before it."""
    return step_together([plan], [state], [fixed])[0]


def step_together(
    plans: Sequence[FitPlan],
    states: Sequence[State],
    fixed: Sequence[Sequence[Drawn | None] | None] | None = None,
) -> list[float]:
    """One update of several fits, whose targets are run together; returns the losses before it.

    A fit whose loss is not finite is not updated.
    """
    fits = []
    for number, (plan, state) in enumerate(zip(plans, states, strict=True)):
        state.set_learning_rate(learning_rate(plan.config, state.iteration))
        # once per iteration, never once per step
        maps = {name: module() for name, module in state.named_maps()}
        drawn = None if fixed is None else fixed[number]
        fits.append(FitBatches(maps, _batches(plan, state.iteration, drawn), plan.config))
    totals = [each.total for each in losses_together(fits)]
    for state in states:
        state.optimiser.zero_grad(set_to_none=True)
    # each total depends on the parameters of its own fit alone
    torch.stack(totals).sum().backward()
    values: list[float] = torch.stack(totals).detach().tolist()
    for loss, state in zip(values, states, strict=True):
        if math.isfinite(loss):
            state.optimiser.step()
            state.iteration += 1
    return values


def _batches(plan: FitPlan, iteration: int, fixed: Sequence[Drawn | None] | None) -> list[PairBatch]:
    """A new batch of every direction."""
    batches = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.train, strict=True)):
        chosen = batch_rows(len(pairs), plan.config.batch_size, plan.config.seed, number, iteration)
        generator = draw_generator(pairs, plan.config.seed, number, iteration) if term.cl else None
        drawn = None if fixed is None else fixed[number]
        batches.append(
            make_batch(
                term.in_turn(iteration),
                pairs,
                chosen,
                plan.subspaces,
                generator,
                drawn,
                n_matches=plan.config.cl_matches,
                nested=bool(plan.config.nested),
            )
        )
    return batches


def terminate(plan: FitPlan, state: State) -> bool:
    """Whether the iteration limit is reached, or the last `patience` validations made no progress."""
    return state.iteration >= plan.config.max_iterations or state.stale >= plan.config.patience


@torch.no_grad()
def validate(plan: FitPlan, maps: Mapping[str, LinearMap]) -> Losses:
    """The objective on all validation pairs, and which were right; draws are the same at every validation."""
    batches = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.validation, strict=True)):
        generator = draw_generator(pairs, plan.config.seed, number, -1) if term.cl else None
        every = np.arange(len(pairs))
        # a twin's referee: what the gradient never saw
        judged = term.run_by(REFEREE)
        options: dict[str, Any] = {"n_matches": plan.config.cl_matches, "nested": bool(plan.config.nested)}
        batches.append(make_batch(judged, pairs, every, plan.subspaces, generator, **options))
    return losses(maps, batches, plan.config, score=True)


def _validate_state(plan: FitPlan, state: State, train_loss: float | None) -> None:
    with torch.no_grad():
        result = validate(plan, {name: module() for name, module in state.named_maps()})
    by_twin = {term.direction.name for term in plan.terms if term.by_twin}
    scored = {name: value.double().mean().item() for name, value in result.right.items()}
    seen = Validation(
        iteration=state.iteration,
        train_loss=train_loss,
        loss=result.total.item(),
        behaviour={name: value.item() for name, value in result.behaviour.items()},
        cl={name: value.item() for name, value in result.cl.items()},
        iia={name: value for name, value in scored.items() if name not in by_twin},
        iia_twin={name: value for name, value in scored.items() if name in by_twin},
    )
    worse = _worse_where_read(seen, next((old for old in state.history if old.iteration == state.best_iteration), None))
    state.history.append(seen)
    # an oracle never chooses: iia holds only directions whose target the fit may run
    score = -min(seen.iia.values()) if plan.config.select == "iia" and seen.iia else seen.loss
    if score < state.best_score and not worse:
        state.best_score, state.best_iteration = score, state.iteration
        state.best = {name: value.detach().clone() for name, value in state.maps.state_dict().items()}
    progress = _falls(score, state.reference, plan.config.tolerance)
    if progress:
        state.reference = score
    for kind, values in (("behaviour", seen.behaviour), ("cl", seen.cl)):
        for name, value in values.items():
            # a direction whose own loss still falls has not converged, whatever the others do
            if _falls(value, state.references.get(f"{kind} {name}", math.inf), plan.config.tolerance):
                state.references[f"{kind} {name}"], progress = value, True
    state.stale = 0 if progress else state.stale + 1


def _falls(value: float, reference: float, tolerance: float) -> bool:
    """Whether a loss is lower than before by more than `tolerance`, relative to it."""
    return not math.isfinite(reference) or value < reference - tolerance * abs(reference)


def _worse_where_read(seen: Validation, best: Validation | None) -> bool:
    """Whether the referee finds a checkpoint worse than the best so far in some direction into a target that is only read."""
    return best is not None and any(value < best.iia_twin.get(name, 0.0) for name, value in seen.iia_twin.items())


def fixed_draws(plan: FitPlan) -> list[Drawn | None]:
    """For each term, one counterfactual latent per training pair; None for terms that need none."""
    drawn: list[Drawn | None] = []
    for number, (term, pairs) in enumerate(zip(plan.terms, plan.train, strict=True)):
        if not term.cl:
            drawn.append(None)
            continue
        generator = draw_generator(pairs, plan.config.seed, number, -2)
        index = pairs.direction.target.indexes[pairs.part]
        draw = index.sample(torch.from_numpy(pairs.values), generator, plan.config.cl_matches)
        drawn.append((draw.latents, draw.hit))
    return drawn
