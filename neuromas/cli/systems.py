"""Verbs about systems: train and capture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuromas.cli import terminal
from neuromas.cli.options import Asked
from neuromas.cli.recordings import say_registered
from neuromas.cli.verbs import verb
from neuromas.schema.actions import CaptureRequest, IntoFile, IntoFolder, ReadsDevice, TwinRequest
from neuromas.schema.system import TrainRequest

if TYPE_CHECKING:
    from neuromas.schema.twin import TwinCard


@verb(TrainRequest, IntoFolder)
def train_(asked: Asked) -> None:
    from neuromas.actions.train import train
    from neuromas.systems.training import CHECKPOINT

    request, place = asked.parse("train")
    out = Path(place.out)
    try:
        system = train(request, out, device=place.device, progress=True)
    except KeyboardInterrupt:
        if request.kind == "llama":
            terminal.stop("Interrupted. A language model keeps no checkpoint; the same command begins anew.")
        terminal.stop_at(out / CHECKPOINT)
    accuracy = system.config.trial_accuracy
    terminal.say(f"{system.name}: {system.config.iterations:,} iterations, held-out trial accuracy {accuracy:.4f}")
    terminal.say(f"wrote {terminal.contents(out)}")
    if accuracy is not None and accuracy < request.target_accuracy:
        terminal.warn(f"the iteration limit came before accuracy {request.target_accuracy:g}")


@verb(TwinRequest, IntoFolder, table=True)
def twin_(asked: Asked) -> None:
    """A fit uses it with --twin DIR."""
    from neuromas.actions.twin import twin
    from neuromas.progress import Bar

    request, place = asked.parse("twin")
    out = Path(place.out)
    try:
        with Bar("twin", None) as bar:
            made = twin(
                request,
                out,
                progress=lambda role, now, end, loss: bar.update(now, f"{role}, loss {loss:.4f}", total=end),
            )
    except KeyboardInterrupt:
        terminal.stop(f"Interrupted. What is in {out} is kept; the same command goes on from there.")
    if asked.as_json:
        terminal.show_json(made.card.model_dump(mode="json"))
        return
    _show_card(made.card)
    terminal.say(f"wrote {terminal.contents(out)}")


def _show_card(card: TwinCard) -> None:
    """How good each member of a twin is."""
    table = terminal.table(
        *("member", "kind", "trials >", "one-step R² >", "linear >", "no change >", "ceiling >"),
        *("R² after 6 steps >", "behaviour >", "95 % >", "CL ceiling >"),
    )
    for member, quality in zip(card.members, card.quality, strict=True):
        later = quality.rollout[min(5, len(quality.rollout) - 1)] if quality.rollout else None
        numbers = (quality.r2, quality.r2_linear, quality.r2_no_change, quality.ceiling, later, quality.behaviour)
        terminal.row(
            table,
            *(member.role, member.kind, f"{member.n_trials:,}", *map(terminal.number, numbers)),
            f"{quality.behaviour_low:.3f}–{quality.behaviour_high:.3f}",
            terminal.number(quality.cl_ceiling),
        )
    terminal.show(table)
    for warning in card.warnings:
        terminal.warn(warning)
    if card.verdict == "good":
        terminal.say("The judge is good: evaluations report iia_twin.")
    else:
        terminal.warn(f"The judge is poor, so no IIA is estimated: {'; '.join(card.reasons)}")


@verb(CaptureRequest, IntoFile, ReadsDevice)
def capture_(asked: Asked) -> None:
    """Give either --set NAME, to keep the recording in a store, or --out FILE."""
    from neuromas.actions.capture import capture

    request, into, place = asked.parse("capture")
    registered = capture(request, out=into.out, device=place.device)
    if into.out is None:
        say_registered([registered])
    else:
        recording = registered.recording
        terminal.say(f"{into.out}: {recording.n_samples:,} samples × {recording.n_units:,} units")
