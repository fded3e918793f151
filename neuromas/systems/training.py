"""Training of networks on a task, and their files (paper A.1; method: training details)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import nn
from torch.nn import functional

from neuromas.causal.model import PAD, CausalModel, get_task
from neuromas.errors import Corrupt, InvalidInput, NotFound
from neuromas.files import sha256_bytes, write_atomically
from neuromas.interrupts import deferred_interrupt
from neuromas.provenance import now, versions
from neuromas.schema.document import Provenance
from neuromas.schema.system import SystemConfig
from neuromas.systems.pretrained import CARD, is_huggingface, load_huggingface
from neuromas.systems.recurrent import GRU, LSTM
from neuromas.systems.system import EMBEDDING, System, Trained, check_device
from neuromas.systems.transformer import Transformer
from neuromas.weights import read_safetensors

CONFIG, WEIGHTS, CHECKPOINT = "config.json", "weights.safetensors", "checkpoint.safetensors"
SYSTEMS: dict[str, type[Trained]] = {"gru": GRU, "lstm": LSTM, "transformer": Transformer}
"""Kinds of system that can be trained and loaded, by the name the command line uses; each knows its trainable network."""

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the trained systems that travel with the package."""

HELD_OUT_STREAM = 2**32  # seeds of training batches are (seed, iteration); no iteration reaches this
BATCH_SIZE = 128
WARM_UP, MAX_RATE, MIN_RATE, POWER = 100, 1e-3, 1e-7, 0.5


def learning_rate(iteration: int) -> float:
    """Linear warm-up to 1e-3 over 100 iterations, then decay with the power 0.5 of the iteration (paper A.1)."""
    if iteration < WARM_UP:
        return MAX_RATE * (iteration + 1) / WARM_UP
    return max(MIN_RATE, MAX_RATE * (WARM_UP / (iteration + 1)) ** POWER)


def train(
    task: str | CausalModel,
    *,
    out: str | Path,
    kind: str = "gru",
    seed: int = 0,
    name: str | None = None,
    n_units: int = 128,
    memory: int = 0,
    target_accuracy: float = 0.999,
    min_iterations: int = 2000,
    max_iterations: int = 20_000,
    validate_every: int = 250,
    n_held_out: int = 2000,
    device: str = "cpu",
    progress: Callable[[int, float, float | None], None] | None = None,
) -> System:
    """Train a network until it solves held-out trials, and save it.

    Interrupted, it goes on from its last checkpoint in `out` when called again with the same arguments; batches depend on
    (seed, iteration) alone, so the outcome is that of an uninterrupted run.

    Parameters
    ----------
    task : str or CausalModel
        A registered task's name, or a causal model.
    out : path-like
        Folder for ``config.json``, ``weights.safetensors`` and, until done, ``checkpoint.safetensors``.
    kind : str
        ``"gru"``, ``"lstm"`` or ``"transformer"``, see `SYSTEMS`.
    seed : int
        Of weights, batches, dropout.
    name : str, optional
        The system's name; by default kind and seed, e.g. ``gru-0``.
    n_units : int
        Width of the latent: of a GRU's hidden state, or of an LSTM's h and c together. Embedding and hidden state are equally
        wide (64 for an LSTM by default), the readout's hidden layer is four times as wide.
    memory : int
        Recurrent networks: about how many steps their gates are set to remember before training begins (chrono initialisation,
        Tallec & Ollivier 2018); 0 leaves PyTorch's own. A GRU learns arithmetic with 60 within a thousand iterations; without,
        it had not learned to end its trials after three thousand.
    target_accuracy : float
        Stop once two validations in a row reach this trial accuracy on held-out trials.
    min_iterations : int
        Go on at least so long: states sharpen after accuracy has reached its ceiling.
    max_iterations, validate_every, n_held_out : int
    device : str
    progress : callable, optional
        Called with (iteration, loss, latest held-out trial accuracy or None).

    Returns
    -------
    System
        Frozen, with ``config.trial_accuracy``. If `max_iterations` came first, that may be below `target_accuracy`; then the
        checkpoint stays, and a call with a higher limit goes on from it.

    Raises
    ------
    NotFound
        Unknown task or kind.
    InvalidDocument
        `name` or `n_units` cannot be used.
    InvalidInput
        `out` holds another network's checkpoint or weights; `n_units` is odd for an LSTM or a transformer; `memory` for a
        transformer.
    """
    model = get_task(task) if isinstance(task, str) else task
    if kind not in SYSTEMS:
        raise NotFound(f"no system kind {kind!r}; known kinds: {', '.join(sorted(SYSTEMS))}", kind="unknown_system")
    out = Path(out)
    check_device(device)
    notes = [f"task options: {model.options}"] * bool(model.options) + [f"memory: {memory}"] * bool(memory)
    described = {
        "kind": kind,
        "name": name or f"{kind}-{seed}",
        "task": model.name,
        "vocabulary": model.vocabulary,
        "n_units": n_units,
        "n_hidden": SYSTEMS[kind].readout_width(n_units),
        "seed": seed,
        "provenance": {"notes": "; ".join(notes)},
    }
    config = SystemConfig.parse(described, "system to train")
    if (out / CONFIG).exists():
        finished = load_system(out, device=device)
        if _identity(finished.config) != _identity(config):
            raise InvalidInput(f"{out} already holds system {finished.name!r}; choose another folder", kind="occupied")
        # one that ran into its limit keeps its checkpoint, to go on from with a higher one
        if not (out / CHECKPOINT).exists() or finished.config.iterations >= max_iterations:
            return finished
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as interrupted:
        return _train(
            model,
            config,
            out,
            memory,
            Limits(target_accuracy, min_iterations, max_iterations, validate_every, n_held_out),
            device,
            progress,
            interrupted,
        )


@dataclass(frozen=True)
class Limits:
    """When training looks at held-out trials, and when it stops; see `train`."""

    target_accuracy: float
    min_iterations: int
    max_iterations: int
    validate_every: int
    n_held_out: int


def _train(
    model: CausalModel,
    config: SystemConfig,
    out: Path,
    memory: int,
    limits: Limits,
    device: str,
    progress: Callable[[int, float, float | None], None] | None,
    interrupted: Callable[[], bool],
) -> System:
    kind, seed = config.kind, config.seed
    torch.manual_seed(seed)
    network = SYSTEMS[kind].network(config)
    if memory:
        SYSTEMS[kind].remember(network, memory, torch.Generator().manual_seed(seed))
    network = network.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=MAX_RATE)
    start, streak = _restore(out, config, network, optimiser)
    held_out = model.sample(limits.n_held_out, np.random.default_rng([seed, HELD_OUT_STREAM]))
    accuracy: float | None = None
    iteration = start
    for iteration in range(start, limits.max_iterations):
        if streak >= 2 and iteration >= limits.min_iterations:
            break
        loss = _update(network, optimiser, model, seed, iteration, device)
        if (iteration + 1) % limits.validate_every == 0 or iteration + 1 == limits.max_iterations:
            accuracy = SYSTEMS[kind](config, network.state_dict(), device).trial_accuracy(held_out)
            streak = streak + 1 if accuracy >= limits.target_accuracy else 0
            _checkpoint(out, config, network, optimiser, iteration + 1, streak)
        if progress is not None:
            progress(iteration + 1, loss, accuracy)
        if interrupted():
            _checkpoint(out, config, network, optimiser, iteration + 1, streak)
            raise KeyboardInterrupt
    else:
        iteration = limits.max_iterations
    frozen = SYSTEMS[kind](config, network.state_dict(), device)
    frozen.config = config.model_copy(
        update={
            "iterations": iteration,
            "trial_accuracy": frozen.trial_accuracy(held_out) if accuracy is None else accuracy,
            "provenance": Provenance(
                source=" ".join(
                    ["neuromas train", model.name, f"--system {kind} --seed {seed}", *_spelt(model, memory)]
                ),
                seed=seed,
                created=now(),
                versions=versions(),
                notes=config.provenance.notes,
            ),
        }
    )
    save_system(frozen, out)
    if streak >= 2 or limits.max_iterations == 0:
        (out / CHECKPOINT).unlink(missing_ok=True)
    return load_system(out, device=device)


def _spelt(model: CausalModel, memory: int) -> list[str]:
    """Options of the command that made a system."""
    void, held_out = getattr(model, "void", 0), getattr(model, "hold_out", ())
    words = [f"--void {void:g}"] * bool(void) + [f"--hold-out {','.join(map(str, held_out))}"] * bool(held_out)
    return words + [f"--memory {memory}"] * bool(memory)


def _update(
    network: nn.Module, optimiser: torch.optim.Optimizer, model: CausalModel, seed: int, iteration: int, device: str
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(iteration)
    trials = model.sample(BATCH_SIZE, np.random.default_rng([seed, iteration]))
    tokens = torch.from_numpy(trials.tokens).to(device)
    torch.manual_seed(seed * 1_000_003 + iteration)  # dropout
    network.train()
    logits = network(tokens[:, :-1])
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    value = loss.item()
    if not math.isfinite(value):
        raise InvalidInput(f"training loss became {value} at iteration {iteration}", kind="diverged")
    return value


def _identity(config: SystemConfig) -> dict[str, object]:
    named = config.model_dump(include={"kind", "name", "task", "vocabulary", "n_units", "n_hidden", "dropout", "seed"})
    return {**named, "notes": config.provenance.notes} if config.provenance.notes else named


def _checkpoint(
    out: Path, config: SystemConfig, network: nn.Module, optimiser: torch.optim.Optimizer, iteration: int, streak: int
) -> None:
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    for key, parameter in network.named_parameters():
        for moment, value in optimiser.state[parameter].items():
            tensors[f"adam.{moment}.{key}"] = value
    described = {"identity": json.dumps(_identity(config)), "iteration": str(iteration), "streak": str(streak)}
    write_atomically(out / CHECKPOINT, save_safetensors(tensors, described))


def _restore(out: Path, config: SystemConfig, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, int]:
    path = out / CHECKPOINT
    if not path.exists():
        return 0, 0
    tensors, described = read_safetensors(path)
    if json.loads(described.get("identity", "null")) != json.loads(json.dumps(_identity(config))):
        raise InvalidInput(
            f"{path} belongs to another training run; choose another folder or remove it", kind="occupied"
        )
    network.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("network.")})
    for key, parameter in network.named_parameters():
        optimiser.state[parameter] = {
            moment: tensors[f"adam.{moment}.{key}"].to(parameter.device if moment != "step" else "cpu")
            for moment in ("step", "exp_avg", "exp_avg_sq")
        }
    return int(described["iteration"]), int(described["streak"])


def save_system(system: Trained, folder: str | Path) -> None:
    """Write weights, then the config that names their hash; each file whole or absent."""
    folder = Path(folder)
    weights = save_safetensors({key: value.contiguous().cpu() for key, value in system.weights.items()})
    system.config = system.config.model_copy(update={"weights_sha256": sha256_bytes(weights)})
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, system.config.to_json())


def load_system(path: str | Path, device: str = "cpu", *, layer: str | None = None) -> System:
    """A trained system from its folder, or a shipped one by name.

    Parameters
    ----------
    path : path-like
        A folder written by `train` or by ``save_pretrained`` of a Hugging Face model, or the name of a shipped system such
        as ``"multi-object/gru-0"``. A layer may follow: ``"multi-object/gru-0@embedding"``.
    device : str
    layer : str, optional
        Whose activity is the latent; by default the one after ``@``, or else the hidden layer (of a Hugging Face model, the
        embedding).

    Returns
    -------
    System

    Raises
    ------
    NotFound
        No such folder, shipped system, or layer.
    InvalidInput
        There is no such device here.
    InvalidDocument
        The config breaks its schema.
    Corrupt
        The weights are not safetensors, not those the config names, or of other shapes.

    Examples
    --------
    >>> load_system("multi-object/gru-0").n_units
    128
    """
    if "@" in str(path) and not Path(path).is_dir():
        path, _, named = str(path).rpartition("@")
        layer = named if layer is None else layer
    folder = Path(path)
    if not (folder / CONFIG).is_file() and (SHIPPED / str(path) / CONFIG).is_file():
        folder = SHIPPED / str(path)
    if not (folder / CONFIG).is_file():
        raise NotFound(
            f"no system at {path}: expected a folder with {CONFIG} and {WEIGHTS}, or a shipped system"
            f" ({', '.join(shipped_systems()) or 'none'})",
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
        raise Corrupt(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}", kind="wrong_shapes") from error


def shipped_systems() -> list[str]:
    """Names, TASK/SYSTEM, of the trained systems that travel with the package."""
    return sorted(path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.glob(f"*/*/{CONFIG}"))
