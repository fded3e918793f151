"""Training of networks on a task, and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from neuromas import seeds
from neuromas.causal.model import PAD, CausalModel, get_task
from neuromas.errors import Corrupt, InvalidInput, NotFound, suggestion
from neuromas.files import local_path, sha256_bytes, write_atomically
from neuromas.interrupts import deferred_interrupt
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.system import SystemConfig, TrainRequest
from neuromas.systems.language_model import train_language_model
from neuromas.systems.pretrained import CARD, is_huggingface, load_huggingface
from neuromas.systems.recurrent import GRU, LSTM
from neuromas.systems.system import EMBEDDING, System, Trained, check_device
from neuromas.systems.transformer import Transformer
from neuromas.systems.updates import (
    BATCH_SIZE,
    LLAMA,
    MAX_RATE,
    Course,
    Limits,
    Report,
    descend,
    held_out_trials,
    reporting,
    seeded,
    train_until,
    training_batch,
)
from neuromas.weights import adam_tensors, read_safetensors, restore_adam, resuming, safetensors_bytes

CONFIG, WEIGHTS, CHECKPOINT = "config.json", "weights.safetensors", "checkpoint.safetensors"
SYSTEMS: dict[str, type[Trained]] = {"gru": GRU, "lstm": LSTM, "transformer": Transformer}
"""Kind → class of the systems that are saved as ``config.json`` and ``weights.safetensors``; each knows its trainable network."""

KINDS = (*SYSTEMS, LLAMA)
"""Every kind that can be trained."""

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the trained systems that come with the package."""

Kind = Literal["gru", "lstm", "transformer", "llama"]
"""Kinds of network that `train` makes."""


def train(
    task: str | CausalModel,
    *,
    out: str | Path,
    kind: Kind | str = "gru",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
    n_units: int = 128,
    memory: int = 0,
    target_accuracy: float = 0.999,
    min_iterations: int | None = None,
    max_iterations: int | None = None,
    validate_every: int | None = None,
    n_held_out: int | None = None,
    learning_rate: float = MAX_RATE,
    weight_decay: float = 0.0,
    dropout: float | None = None,
    device: str = "cpu",
    progress: bool | Report = False,
) -> System:
    """Train a network until it solves held-out trials of a task, and save it.

    If training was interrupted, the same call continues from the last checkpoint in `out` and ends with the same weights as a
    run that was not interrupted. A llama keeps no checkpoint and starts again.

    Parameters
    ----------
    task : str or CausalModel
        Name of a registered task, or a causal model.
    out : path-like
        Folder for ``config.json``, ``weights.safetensors`` and, until training is done, ``checkpoint.safetensors``. A llama is
        saved as ``save_pretrained`` does.
    kind : {"gru", "lstm", "transformer", "llama"}
        Kind of network. A llama is a small language model; it reads the prompt of the in-context task before each trial.
    options : mapping, optional
        Options of a task that is given by name, such as ``{"void": 0.2}``.
    seed : int
        Seed of weights, batches and dropout.
    name : str, optional
        Name of the system; by default kind and seed, such as ``gru-0``.
    n_units : int
        Width of the latent: of the hidden state of a GRU, of h and c together of an LSTM, of the residual stream of a
        transformer or a llama. The hidden layer of a readout is four times as wide as the hidden state.
    memory : int
        Recurrent networks: how many steps the gates are set to remember before training (chrono initialisation, Tallec &
        Ollivier 2018). 0 leaves the gates as PyTorch sets them. A GRU learns arithmetic with 60 within a thousand iterations,
        and had not learned to end its trials after three thousand without.
    target_accuracy : float
        Training stops after two validations in a row with at least this share of held-out trials correct.
    min_iterations : int, optional
        Training goes on for at least this many iterations, because states sharpen after accuracy has reached its ceiling; by
        default 2,000, and 0 for a llama.
    max_iterations : int, optional
        Training stops after this many iterations; by default 20,000, and 5,000 for a llama.
    validate_every : int, optional
        Iterations from one validation to the next; by default 250, and 100 for a llama.
    n_held_out : int, optional
        Held-out trials in each validation; by default 2,000, and 1,000 for a llama.
    learning_rate : float
        Largest learning rate. It is reached after 100 iterations and then falls with the square root of the iteration.
    weight_decay : float
        Decay of the weights, decoupled from the gradient as in AdamW.
    dropout : float, optional
        Share of the readout's hidden units that training drops; by default 0.5.
    device : str
        Where to train, such as ``cuda:0``.
    progress : bool or callable
        True shows a bar. A function is called with (iteration, loss, latest accuracy on held-out trials or None).

    Returns
    -------
    System
        The frozen network, with its accuracy in ``config.trial_accuracy``. If `max_iterations` came first, that may be below
        `target_accuracy`. Then the checkpoint stays, and a call with a higher limit continues from it.

    Raises
    ------
    NotFound
        There is no such task, or no such kind.
    InvalidDocument
        An option is out of its bounds; every such option is listed.
    InvalidInput
        `out` holds another system; `n_units` does not suit the kind; the task has no such option; the kind of network has no
        gates for a `memory`.
    """
    if isinstance(task, str):
        model = get_task(task, **(options or {}))
    elif options:
        raise InvalidInput(
            f"train: options {', '.join(options)} go with the name of a task; task {task.name!r} is a causal model already",
            kind="invalid_option",
        )
    else:
        model = task
    request = TrainRequest.parse(
        {
            "task": model.name,
            "options": dict(options or {}),
            "kind": kind,
            "seed": seed,
            "name": name,
            "n_units": n_units,
            "memory": memory,
            "target_accuracy": target_accuracy,
            "min_iterations": min_iterations,
            "max_iterations": max_iterations,
            "validate_every": validate_every,
            "n_held_out": n_held_out,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "dropout": dropout,
        },
        "training",
    )
    return train_from(request, out=out, model=model, device=device, progress=progress)


def train_from(
    request: TrainRequest,
    *,
    out: str | Path,
    model: CausalModel | None = None,
    device: str = "cpu",
    progress: bool | Report = False,
) -> System:
    """Train the network that `request` asks for, whatever its kind; see `train`.

    Parameters
    ----------
    request : TrainRequest
    out : path-like
    model : CausalModel, optional
        The task, where it is not registered; by default the task that the request names.
    device : str
    progress : bool or callable

    Returns
    -------
    System

    Raises
    ------
    NotFound, InvalidInput
        As `train`.
    """
    if request.kind not in KINDS:
        raise NotFound(
            f"no system kind {request.kind!r}; known kinds: {', '.join(KINDS)}{suggestion(request.kind, KINDS)}",
            kind="unknown_system",
        )
    model = get_task(request.task, **request.options) if model is None else model
    check_device(device)
    with reporting(progress, request.name or f"{request.kind}-{request.seed}", Limits.of(request)) as report:
        if request.kind == LLAMA:
            return train_language_model(request, model, local_path(out), device, report)
        return _train_network(request, model, local_path(out), device, report)


def _train_network(request: TrainRequest, model: CausalModel, out: Path, device: str, report: Report) -> System:
    config, limits = _planned(request, model), Limits.of(request)
    if (out / CONFIG).exists():
        finished = load_system(out, device=device)
        if _identity(finished.config) != _identity(config):
            raise InvalidInput(f"{out} already holds system {finished.name!r}; choose another folder", kind="occupied")
        # a network that came to its iteration limit keeps its checkpoint, to continue from with a higher one
        if not (out / CHECKPOINT).exists() or finished.config.iterations >= limits.max_iterations:
            return finished
    with deferred_interrupt() as interrupted:
        network = _initial(config, request.memory).to(device)
        # without decay this is Adam, bit by bit
        optimiser = torch.optim.AdamW(network.parameters(), lr=request.learning_rate, weight_decay=request.weight_decay)
        held_out = held_out_trials(model, limits.n_held_out, config.seed)

        def freeze() -> Trained:
            with seeded(config.seed):  # making a network draws
                return SYSTEMS[config.kind](config, network.state_dict(), device)

        course = train_until(
            _restore(out, config, network, optimiser),
            limits,
            lambda iteration: _update(network, optimiser, model, request, iteration, device),
            lambda: freeze().trial_accuracy(held_out),
            keep=lambda course: _checkpoint(out, config, network, optimiser, course),
            interrupted=interrupted,
            report=report,
        )
        system = freeze()
        accuracy = system.trial_accuracy(held_out) if course.accuracy is None else course.accuracy
        system.config = _finished(config, course.iteration, accuracy, model, request)
        save_system(system, out)
        if course.solved or limits.max_iterations == 0:
            (out / CHECKPOINT).unlink(missing_ok=True)
        with seeded(config.seed):
            return load_system(out, device=device)


def _planned(request: TrainRequest, model: CausalModel) -> SystemConfig:
    """The configuration of the network that `request` asks for."""
    kind = request.kind
    notes = [f"task options: {model.options}"] * bool(model.options)
    notes += [f"{name.replace('_', ' ')}: {value:g}" for name, value in _unusual(request).items()]
    described = {
        "kind": kind,
        "name": request.name or f"{kind}-{request.seed}",
        "task": model.name,
        "vocabulary": model.vocabulary,
        "n_units": request.n_units,
        "n_hidden": SYSTEMS[kind].readout_width(request.n_units),
        "seed": request.seed,
        "provenance": {"notes": "; ".join(notes)},
    }
    if request.dropout is not None:
        described["dropout"] = request.dropout
    return SystemConfig.parse(described, "system to train")


def _initial(config: SystemConfig, memory: int) -> nn.Module:
    """The network before training."""
    with seeded(config.seed):
        network = SYSTEMS[config.kind].network(config)
    if memory:
        SYSTEMS[config.kind].remember(network, memory, torch.Generator().manual_seed(seeds.for_torch(config.seed)))
    return network


def _unusual(request: TrainRequest) -> dict[str, float]:
    """Settings of training that are not at their defaults and that no other field of the configuration holds."""
    names = ("memory", "learning_rate", "weight_decay")
    return {
        name: getattr(request, name)
        for name in names
        if getattr(request, name) != TrainRequest.model_fields[name].default
    }


def _finished(
    config: SystemConfig, iterations: int, accuracy: float, model: CausalModel, request: TrainRequest
) -> SystemConfig:
    """`config` with what came of training."""
    words = ["neuromas train", model.name, f"--system {config.kind} --seed {config.seed}", *_spelt(model, request)]
    provenance = Provenance(
        source=" ".join(words),
        seed=config.seed,
        created=now(),
        versions=versions(),
        notes=config.provenance.notes,
    )
    return config.model_copy(update={"iterations": iterations, "trial_accuracy": accuracy, "provenance": provenance})


def _spelt(model: CausalModel, request: TrainRequest) -> list[str]:
    """Options of the command that made a system."""
    void, held_out = getattr(model, "void", 0), getattr(model, "hold_out", ())
    words = [f"--void {void:g}"] * bool(void) + [f"--hold-out {','.join(map(str, held_out))}"] * bool(held_out)
    words += [f"--{name.replace('_', '-')} {value:g}" for name, value in _unusual(request).items()]
    return words if request.dropout is None else [*words, f"--dropout {request.dropout:g}"]


def _update(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    model: CausalModel,
    request: TrainRequest,
    iteration: int,
    device: str,
) -> float:
    trials = training_batch(model, BATCH_SIZE, request.seed, iteration)
    tokens = torch.from_numpy(trials.tokens).to(device)
    network.train()
    with seeded(request.seed * 1_000_003 + iteration):  # dropout
        logits = network(tokens[:, :-1])
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
    return descend(optimiser, loss, iteration, request.learning_rate)


def _identity(config: SystemConfig) -> dict[str, object]:
    named = config.model_dump(include={"kind", "name", "task", "vocabulary", "n_units", "n_hidden", "dropout", "seed"})
    return {**named, "notes": config.provenance.notes} if config.provenance.notes else named


def _checkpoint(
    out: Path, config: SystemConfig, network: nn.Module, optimiser: torch.optim.Optimizer, course: Course
) -> None:
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= adam_tensors(network, optimiser, ".")
    described = {
        "identity": json.dumps(_identity(config)),
        "iteration": str(course.iteration),
        "streak": str(course.streak),
    }
    write_atomically(out / CHECKPOINT, safetensors_bytes(tensors, described))


def _restore(out: Path, config: SystemConfig, network: nn.Module, optimiser: torch.optim.Optimizer) -> Course:
    path = out / CHECKPOINT
    if not path.exists():
        return Course()
    with resuming(path):
        tensors, described = read_safetensors(path)
        if json.loads(described["identity"]) != json.loads(json.dumps(_identity(config))):
            raise InvalidInput(
                f"{path} belongs to another training run; choose another folder or remove it", kind="occupied"
            )
        network.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("network.")})
        restore_adam(network, optimiser, tensors, ".")
        return Course(int(described["iteration"]), int(described["streak"]))


def save_system(system: Trained, folder: str | Path) -> None:
    """Write the weights, then the config with their hash. Each file is written completely or not at all."""
    folder = Path(folder)
    weights = safetensors_bytes(system.weights)
    system.config = system.config.model_copy(update={"weights_sha256": sha256_bytes(weights)})
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, system.config.to_json())


def load_system(path: str | Path, device: str = "cpu", *, layer: str | None = None) -> System:
    """Load a trained system from its folder, or a shipped system by its name.

    Parameters
    ----------
    path : path-like
        A folder written by `train` or by ``save_pretrained`` of a Hugging Face model, or the name of a shipped system such
        as ``"multi-object/gru-0"``. A layer may follow: ``"multi-object/gru-0@embedding"``.
    device : str
    layer : str, optional
        Layer whose activity is the latent. By default the layer after ``@``; without one, the hidden layer, or for a Hugging
        Face model the embedding.

    Returns
    -------
    System

    Raises
    ------
    NotFound
        There is no such folder, shipped system or layer.
    InvalidInput
        The device cannot be used here.
    InvalidDocument
        The config breaks its schema; every problem is listed.
    Corrupt
        The weights are not a safetensors file, are not the ones that the config names, or have other shapes.

    Examples
    --------
    >>> load_system("multi-object/gru-0").n_units
    128
    """
    if not isinstance(path, (str, Path)):
        raise InvalidInput(f"expected the folder or the name of a system, got {path!r}", kind="invalid_name")
    if "@" in str(path) and not Path(path).is_dir():
        path, _, named = str(path).rpartition("@")
        layer = named if layer is None else layer
    folder = Path(path)
    if not (folder / CONFIG).is_file() and (SHIPPED / str(path) / CONFIG).is_file():
        folder = SHIPPED / str(path)
    if not (folder / CONFIG).is_file():
        raise NotFound(
            f"no system at {path}: expected a folder with {CONFIG} and {WEIGHTS}, or a shipped system"
            f" ({', '.join(shipped_systems()) or 'none'}){suggestion(path, shipped_systems())}",
            kind="unknown_system",
        )
    check_device(device)
    if (folder / CARD).is_file() or is_huggingface(folder):
        return load_huggingface(folder, layer=layer or EMBEDDING, device=device)
    config = SystemConfig.parse((folder / CONFIG).read_bytes(), str(folder / CONFIG))
    if config.kind not in SYSTEMS:
        raise NotFound(
            f"{folder / CONFIG} says kind {config.kind!r}; kinds that can be loaded: {', '.join(sorted(SYSTEMS))}",
            kind="unknown_system",
        )
    if not (folder / WEIGHTS).is_file():
        raise Corrupt(f"{folder} has no {WEIGHTS}", kind="missing_weights")
    weights, _ = read_safetensors(folder / WEIGHTS)
    if config.weights_sha256 is not None and sha256_bytes((folder / WEIGHTS).read_bytes()) != config.weights_sha256:
        raise Corrupt(f"{folder / WEIGHTS} is not the file that {CONFIG} names (SHA-256 differs)", kind="hash_mismatch")
    try:
        return SYSTEMS[config.kind](config, weights, device, layer)
    except RuntimeError as error:
        raise Corrupt(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}", kind="weights_mismatch") from error


def shipped_systems() -> list[str]:
    """Names, TASK/SYSTEM, of the trained systems that come with the package."""
    return sorted(path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.glob(f"*/*/{CONFIG}"))
