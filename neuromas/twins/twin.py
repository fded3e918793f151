"""A twin: models of a system that can only be read, learnt from its recording; some for fits, one that judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuromas import dims
from neuromas.causal.model import TASKS, CausalModel, get_task
from neuromas.errors import Corrupt, InvalidInput, NotFound
from neuromas.files import local_path, sha256_bytes, write_atomically
from neuromas.interrupts import deferred_interrupt
from neuromas.provenance import now, versions
from neuromas.recordings.pseudo import parts_of
from neuromas.recordings.recording import Recording
from neuromas.schema.document import Provenance
from neuromas.schema.system import SystemConfig
from neuromas.schema.twin import TwinCard, TwinConfig, TwinMember, TwinQuality
from neuromas.twins.data import TwinData
from neuromas.twins.kinds import KINDS, Dynamics
from neuromas.twins.quality import ceiling_of, noise_ceilings, quality_of, verdict_of
from neuromas.twins.system import TwinSystem
from neuromas.twins.training import Course, train_dynamics
from neuromas.weights import read_safetensors, safetensors_bytes

CARD = "twin.json"
REFEREE, JUDGE = "referee", "judge"
_HALVES = 7933  # stream of seeds

Progress = Callable[[str, int, int, float], None]
"""Called with the member that is trained, its iteration, the largest iteration, and its latest validation loss."""


@dataclass(frozen=True)
class Rollout:
    """What a member expects after some latents.

    Attributes
    ----------
    latents : ndarray of float64, shape (n_samples, n_steps + 1, n_units)
        The first are those from which it started. NaN beyond the end of a trial.
    answers : ndarray of int64, shape (n_samples, n_steps + 1)
        Class of each answer; −1 beyond the end of a trial.
    """

    latents: NDArray[np.float64] = field(repr=False)
    answers: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class Twin:
    """Models of a system that can only be read.

    Attributes
    ----------
    card : TwinCard
        What they are of, and how good they are.
    members : mapping of str to Dynamics
        By role.
    """

    card: TwinCard
    members: Mapping[str, Dynamics] = field(repr=False)

    def __repr__(self) -> str:
        judge = self.card.quality_of(JUDGE)
        ceiling = "" if judge.cl_ceiling is None else f", ceiling {judge.cl_ceiling:.3f}"
        return (
            f"<Twin of {self.card.recording!r}: {len(self.members)} models, {self.card.verdict}; judge ({judge.kind}): one-step"
            f" R² {judge.r2:.3f}, behaviour {judge.behaviour:.3f}{ceiling}>"
        )

    @classmethod
    def fit(
        cls,
        recording: Recording,
        config: TwinConfig | None = None,
        *,
        units: Sequence[str] | None = None,
        model: CausalModel | None = None,
        out: str | Path | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Twin:
        """Learn a twin from a recording.

        Parameters
        ----------
        recording : Recording
            With trials of several steps, and what the system itself did.
        config : TwinConfig, optional
            Settings; by default `options` and the defaults of `TwinConfig`.
        units : sequence of str, optional
            Units of the twin; all by default.
        model : CausalModel, optional
            Causal model of the task, for the counterfactual-latent ceiling; by default that of the recording's task.
        out : path-like, optional
            Folder for checkpoints and the result. An interrupted call goes on from there; a finished twin is returned.
        progress : callable, optional
            Called with the member that is trained, its iteration, the largest iteration, and its latest validation loss.
        **options
            Fields of `TwinConfig`.

        Returns
        -------
        Twin

        Raises
        ------
        InvalidInput
            The recording has no steps, too few trials, no complete samples, or no behaviour of the system itself; `out` holds
            another twin.
        NotFound
            It has no such unit, input or behaviour.
        InvalidDocument
            An option is out of its bounds.

        Examples
        --------
        >>> from neuromas import capture, load_system
        >>> recording = capture(load_system("multi-object/gru-0"), 60, seed=0)
        >>> twin = Twin.fit(recording, kind="gru", judge_kind="mlp", n_twins=1, max_iterations=5, validate_every=5)
        >>> [member.role for member in twin.card.members]
        ['twin-0', 'referee', 'judge']
        """
        if config is None:
            config = TwinConfig.parse(options, "settings of a twin")
        folder = None if out is None else local_path(out)
        training = _Training.of(recording, config, units, model)
        if folder is not None and (folder / CARD).is_file():
            finished = cls.load(folder)
            finished.check(recording, units)
            if finished.card.config != config:
                raise InvalidInput(
                    f"{folder} holds a twin with other settings; choose another folder or remove it", kind="occupied"
                )
            return finished
        twin = training.run(folder, progress)
        if folder is not None:
            twin.save(folder)
        return twin

    def save(self, folder: str | Path) -> None:
        """Write the weights and, last, the card; then remove checkpoints."""
        folder = Path(folder)
        for role, dynamics in self.members.items():
            write_atomically(folder / _weights(role), safetensors_bytes(dynamics.state_dict()))
        write_atomically(folder / CARD, self.card.to_json())
        for path in folder.glob("checkpoint-*.safetensors"):
            path.unlink()

    @classmethod
    def load(cls, folder: str | Path) -> Twin:
        """Read what `save` wrote.

        Raises
        ------
        NotFound
            There is no twin.
        InvalidDocument
            ``twin.json`` breaks its schema.
        Corrupt
            Weights are not those that the card names.
        """
        folder = local_path(folder)
        if not (folder / CARD).is_file():
            raise NotFound(f"no twin in {folder}: expected {CARD}", kind="unknown_twin")
        card = TwinCard.parse((folder / CARD).read_bytes(), str(folder / CARD))
        n_features = sum(1 if entry.codes is None else len(entry.codes) for entry in card.inputs)
        members = {}
        for member in card.members:
            path = folder / _weights(member.role)
            if not path.is_file() or sha256_bytes(path.read_bytes()) != member.weights_sha256:
                raise Corrupt(f"{path} is missing, or not the file that {CARD} names", kind="hash_mismatch")
            dynamics = KINDS[member.kind](len(card.units), n_features, len(card.behaviour.codes), card.config.n_hidden)
            dynamics.load_state_dict(read_safetensors(path)[0])
            members[member.role] = dynamics.eval().requires_grad_(False)
        return cls(card, members)

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        return sha256_bytes("".join(member.weights_sha256 for member in self.card.members).encode())

    def check(self, recording: Recording, units: Sequence[str] | None = None) -> None:
        """Refuse a recording, or units, that this is no twin of.

        Raises
        ------
        InvalidInput
        """
        if recording.content_sha256 != self.card.content_sha256:
            raise InvalidInput(
                f"this twin was learnt from recording {self.card.recording!r} with content {self.card.content_sha256[:12]}…, not"
                f" from {recording.name!r} ({recording.content_sha256[:12]}…); a twin stands in for its own recording alone",
                kind="wrong_twin",
            )
        own = tuple(recording.unit_names if units is None else units)
        if own != self.card.units:
            raise InvalidInput(
                f"this twin of {self.card.recording!r} has {len(self.card.units)} units, {self.card.units[0]} …; the fit uses"
                f" {len(own)}, {own[0]} …; learn a twin of these units (units=)",
                kind="wrong_twin",
            )

    def system(self, role: str, device: str | torch.device = "cpu") -> TwinSystem:
        """A member as a system that can be resumed.

        Raises
        ------
        InvalidInput
            Inputs or behaviour are not tokens.
        """
        return _as_system(self.members[role], self.card, role, device)

    @torch.no_grad()
    def roll(
        self,
        recording: Recording,
        samples: NDArray[np.int64],
        latents: torch.Tensor,
        n_steps: int,
        *,
        role: str = JUDGE,
    ) -> Rollout:
        """Go on from `latents` in place of recorded ones, with the inputs that were recorded then.

        Parameters
        ----------
        recording : Recording
            The twin's own.
        samples : ndarray of int64, shape (n_samples,)
            Rows of the recording.
        latents : Tensor, shape (n_samples, n_units)
            What takes their place.
        n_steps : int
        role : str
            The member that predicts.

        Returns
        -------
        Rollout

        Raises
        ------
        InvalidInput
            `n_steps` is beyond the longest trial.
        """
        if not 0 <= n_steps < self.card.longest:
            raise InvalidInput(
                f"the twin of {self.card.recording!r} was asked to predict {n_steps} steps; expected 0 to"
                f" {self.card.longest - 1}, its longest trial has {self.card.longest}",
                kind="beyond_longest",
            )
        names = [entry.name for entry in self.card.inputs]
        data = TwinData.of(recording, inputs=names, behaviour=self.card.behaviour.name, units=self.card.units)
        rows = torch.from_numpy(np.argsort(data.order)[samples])
        dynamics = self.members[role]
        activity = np.full((len(samples), n_steps + 1, len(self.card.units)), np.nan)
        answers = np.full((len(samples), n_steps + 1), -1, dtype=np.int64)
        alive = torch.arange(len(samples))
        for step in range(n_steps + 1):
            activity[alive, step] = latents.double().numpy()
            answers[alive, step] = dynamics.behaviour(latents).argmax(dim=1).numpy()
            going_on = data.followed[rows]
            alive, rows = alive[going_on], rows[going_on] + 1
            latents = dynamics(latents[going_on], data.inputs[rows])
        return Rollout(activity, answers)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the members that a fit runs in turn."""
        return tuple(role for role in self.members if role not in (REFEREE, JUDGE))


def _weights(role: str) -> str:
    return f"{role}.safetensors"


def _as_system(dynamics: Dynamics, card: TwinCard, role: str, device: str | torch.device = "cpu") -> TwinSystem:
    config = SystemConfig(
        kind="twin",
        name=f"{card.system}-{role}"[:100],
        task=card.task,
        vocabulary=card.vocabulary or (),
        n_units=len(card.units),
        n_hidden=card.config.n_hidden,
    )
    return TwinSystem(dynamics, config, card.inputs, card.behaviour, card.longest, device)


@dataclass(frozen=True)
class _Training:
    """A twin before it is trained."""

    recording: Recording
    config: TwinConfig
    data: TwinData
    units: tuple[str, ...]
    model: CausalModel | None
    parts: Mapping[str, NDArray[np.int64]]
    halves: tuple[NDArray[np.int64], NDArray[np.int64]]
    identity: str

    @classmethod
    def of(
        cls, recording: Recording, config: TwinConfig, units: Sequence[str] | None, model: CausalModel | None
    ) -> _Training:
        data = TwinData.of(recording, inputs=config.inputs, behaviour=config.behaviour, units=units)
        fractions = {str(part): share for part, share in config.fractions.items()}
        parts = {name: part.trials for name, part in parts_of(recording, fractions, config.seed).items()}
        # the trials of the judge are others than those of the twins that fits use
        order = np.random.default_rng([config.seed, _HALVES]).permutation(parts["train"])
        if len(order) < 2:
            raise InvalidInput(
                f"recording {recording.name!r} has {len(order)} training trial; two twins from different trials need at least 2",
                kind="too_few_trials",
            )
        halves = (np.sort(order[::2]), np.sort(order[1::2]))
        own = tuple(recording.unit_names if units is None else units)
        task = recording.manifest.task
        if model is None and task in TASKS and set(get_task(task).variable_names) <= set(recording.variable_names):
            model = get_task(task)
        identity = sha256_bytes("".join([recording.content_sha256, config.model_dump_json(), *own]).encode())
        return cls(recording, config, data, own, model, parts, halves, identity)

    def run(self, folder: Path | None, progress: Progress | None) -> Twin:
        """Train every member, and measure it."""
        race, kind, judge = self._kinds(folder, progress)
        config = self.config
        plan = [(f"twin-{number}", kind, 0) for number in range(config.n_twins)]
        plan += [(REFEREE, kind, 0), (JUDGE, judge, 1)]
        trained = {
            role: (kind_of, half, *self._train(role, kind_of, half, config, folder, progress))
            for role, kind_of, half in plan
        }
        members = tuple(
            TwinMember(
                role=role,
                kind=kind_of,
                seed=self._seed(role),
                n_trials=len(self.halves[half]),
                iterations=course.iterations,
                best_iteration=course.best_iteration,
                loss=course.loss,
                weights_sha256=sha256_bytes(safetensors_bytes(dynamics.state_dict())),
            )
            for role, (kind_of, half, dynamics, course) in trained.items()
        )
        dynamics = {role: entry[2] for role, entry in trained.items()}
        return Twin(self._card(race, members, dynamics), dynamics)

    def _kinds(self, folder: Path | None, progress: Progress | None) -> tuple[dict[str, float], str, str]:
        """The kind of the twins of a fit, and that of the judge; by a short training of each kind if they are not named."""
        config = self.config
        race: dict[str, float] = {}
        if "auto" in (config.kind, config.judge_kind):
            short = config.model_copy(update={"max_iterations": max(1, config.max_iterations // 4)})
            for kind in KINDS:
                race[kind] = self._train(f"race-{kind}", kind, 0, short, folder, progress)[1].surprise
        best = min(race, key=lambda name: race[name], default="")
        kind, judge = (best if named == "auto" else named for named in (config.kind, config.judge_kind))
        return race, kind, judge

    def _seed(self, role: str) -> int:
        return int(np.random.SeedSequence([self.config.seed, *role.encode()]).generate_state(1)[0])

    def _train(
        self, role: str, kind: str, half: int, config: TwinConfig, folder: Path | None, progress: Progress | None
    ) -> tuple[Dynamics, Course]:
        validation = np.sort(self.parts["validation"])[half::2]
        with deferred_interrupt() as interrupted:
            return train_dynamics(
                self.data,
                kind,
                config,
                train=self.data.rows(self.halves[half]),
                validation=self.data.rows(validation),
                seed=self._seed(role),
                identity=f"{self.identity}/{role}/{kind}",
                checkpoint=None if folder is None else folder / f"checkpoint-{role}.safetensors",
                interrupted=interrupted,
                report=lambda iteration, loss, validated: (
                    None if progress is None else progress(role, iteration, config.max_iterations, validated)
                ),
            )

    def _card(
        self, race: dict[str, float], members: tuple[TwinMember, ...], dynamics: Mapping[str, Dynamics]
    ) -> TwinCard:
        manifest, config = self.recording.manifest, self.config
        task = self.model.name if self.model is not None else manifest.task
        fields: dict[str, Any] = {
            "recording": self.recording.name,
            "content_sha256": self.recording.content_sha256,
            "system": manifest.system,
            "task": task,
            "units": self.units,
            "vocabulary": manifest.vocabulary,
            "config": config,
            "inputs": self.data.of_inputs,
            "behaviour": self.data.of_behaviour,
            "longest": self.data.longest,
            "n_trials": len(np.unique(self.data.trial)),
            "race": race,
            "members": members,
            "warnings": self._warnings(),
            "provenance": Provenance(
                source=f"twin of {self.recording.name}", seed=config.seed, created=now(), versions=versions()
            ),
        }
        card = TwinCard(**fields, quality=(), verdict="poor")
        quality = tuple(self._quality(member, dynamics[member.role], card) for member in members)
        judge = next(each for each in quality if each.role == JUDGE)
        reasons = verdict_of(judge)
        return card.model_copy(
            update={"quality": quality, "reasons": reasons, "verdict": "poor" if reasons else "good"}
        )

    def _warnings(self) -> tuple[str, ...]:
        warnings = []
        if self.data.of_behaviour.shown_next:
            warnings.append(
                f"{self.recording.name}: the tokens that the system was shown next are taken for its own answers; if it fails"
                " trials, nothing that this twin says of it holds"
            )
        return tuple(warnings)

    def _quality(self, member: TwinMember, dynamics: Dynamics, card: TwinCard) -> TwinQuality:
        test = self.data.rows(self.parts["test"])
        ceiling = None
        if self.model is not None and [e.name for e in card.inputs] == [dims.TOKEN] and card.behaviour.tokens:
            system = _as_system(dynamics, card, member.role)
            ceiling = ceiling_of(system, self.model, self.recording, self.data, test, self.config.seed)
        return quality_of(
            member.role,
            member.kind,
            dynamics,
            self.data,
            train=self.data.rows(self.halves[0]),
            test=test,
            ceilings=noise_ceilings(self.recording, self.data, test),
            cl_ceiling=ceiling,
        )
