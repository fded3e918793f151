"""Training the systems of a sweep that are not shipped."""

from __future__ import annotations

from pathlib import Path

from neuromas.actions.train import train
from neuromas.errors import InvalidInput
from neuromas.experiments.attempts import Attempt, Report, held
from neuromas.experiments.jobs import read_config, training_limits
from neuromas.files import write_atomically
from neuromas.schema.system import SystemConfig, TrainRequest, TrainSpec
from neuromas.systems.training import CHECKPOINT, CONFIG

MADE = "made.json"


def trained(out: Path, name: str, made: TrainSpec) -> SystemConfig | None:
    """The configuration of a system whose training is finished; None if it is still to be trained.

    Raises
    ------
    InvalidInput
        The folder holds another network.
    """
    folder = out / "systems" / name
    if (folder / MADE).is_file():
        before = TrainSpec.parse((folder / MADE).read_bytes(), str(folder / MADE))
        if before.model_copy(update=training_limits(made)) != made:
            raise InvalidInput(
                f"{folder} holds another system: made by {before.model_dump_json(exclude_defaults=True)}, the sweep"
                f" declares {made.model_dump_json(exclude_defaults=True)}; choose another --out",
                kind="occupied",
            )
    if not (folder / CONFIG).is_file():
        return None
    config = read_config(folder)
    stored, declared = ((each.task, each.kind, each.seed, each.n_units) for each in (config, made))
    if stored != declared:
        raise InvalidInput(
            f"{folder} holds another system: task, kind, seed and width are {stored}, the sweep declares {declared}",
            kind="occupied",
        )
    unfinished = (folder / CHECKPOINT).exists() and config.iterations < made.max_iterations
    return None if unfinished else config


def run_training(name: str, made: TrainSpec, out: Path, report: Report) -> SystemConfig:
    """Train the system `name` in ``out/systems``, or resume its training; returns its configuration.

    Raises
    ------
    Stopped
    NeuromasError
        What `train` and `trained` raise.
    """
    folder = out / "systems" / name
    with held(folder, report):
        config = trained(out, name, made)
        if config is not None:
            return config
        write_atomically(folder / MADE, made.to_json())
        attempt = Attempt(folder)

        def progress(iteration: int, loss: float, accuracy: float | None) -> None:
            attempt.at(iteration)
            shown = "" if accuracy is None else f", accuracy {accuracy:.4f}"
            report(iteration, made.max_iterations, f"loss {loss:.4f}{shown}")

        request = TrainRequest(**made.model_dump(), name=Path(name).name)
        system = train(request, folder, progress=progress)
    return system.config
