"""Verbs about systems: train and capture."""

from __future__ import annotations

from pathlib import Path

from neuromas.cli import terminal
from neuromas.cli.options import Asked
from neuromas.cli.recordings import say_registered
from neuromas.cli.verbs import verb
from neuromas.schema.actions import CaptureRequest, IntoFile, IntoFolder, ReadsDevice
from neuromas.schema.system import TrainRequest


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
