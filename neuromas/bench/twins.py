"""Calibration of twins: what the judge says of an alignment beside the IIA that the live system gives.

Each case treats a network that can be run as one that can only be read. Its twin is learnt from a recording alone. Then the
network itself says how well alignments of very different quality do.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from neuromas.align.pairs import Direction, draw_pair_set
from neuromas.align.side import HeldContext, Side
from neuromas.bench.measure import Row, at_most
from neuromas.evaluation.ruler import behaviour
from neuromas.fit.fitters import CLMAS, MAS
from neuromas.fit.result import FitResult
from neuromas.recordings.recording import Recording
from neuromas.report.figures import new_figure
from neuromas.schema.system import TrainRequest
from neuromas.schema.twin import TwinConfig
from neuromas.systems.capture import capture
from neuromas.systems.system import Context, Packed, System
from neuromas.systems.training import load_system, train_from
from neuromas.twins.twin import JUDGE, Twin

READ = "read"
"""Name of the recording that stands for the system that can only be read."""
RANK = 16
_N_PAIRS = 1_000
_STREAM = 7963

RECIPES: dict[str, dict[str, Any]] = {
    "narrow-a": {"n_units": 96, "seed": 101, "learning_rate": 0.002, "dropout": 0.0, "weight_decay": 0.01},
    "narrow-b": {"n_units": 96, "seed": 102, "learning_rate": 0.002, "dropout": 0.0, "weight_decay": 0.01},
    "wide-a": {"n_units": 192, "seed": 111, "learning_rate": 0.0007, "dropout": 0.2},
    "wide-b": {"n_units": 192, "seed": 112, "learning_rate": 0.0007, "dropout": 0.2},
    "half-a": {"seed": 121, "target_accuracy": 0.5, "validate_every": 50},
    "untrained": {"seed": 122, "max_iterations": 0},
}
"""GRUs of other training recipes than the shipped ones; all stop as soon as they reach their target accuracy."""


@dataclass(frozen=True)
class Case:
    """A system that runs, one that is only read, and what is done to the recording.

    Attributes
    ----------
    source, target : str
        Shipped systems, or names of `RECIPES`.
    n_trials : int
        Trials of the recording.
    noise : float
        Noise on the recorded latents, as a share of each unit's standard deviation.
    share : float
        Share of the units that are recorded.
    with_twin : bool
        Also fit with the twin, and MAS, which may run both.
    """

    source: str
    target: str
    n_trials: int = 2_000
    noise: float = 0.0
    share: float = 1.0
    with_twin: bool = False

    @property
    def name(self) -> str:
        """Both systems and what was done."""
        changes = [f"{self.n_trials:,} trials"] * (self.n_trials != 2_000)
        changes += [f"noise {self.noise:g}"] * (self.noise > 0) + [f"{self.share:.0%} of the units"] * (self.share < 1)
        return ", ".join([f"{self.source.partition('/')[2] or self.source} → {self.target}", *changes])


CASES = (
    Case("multi-object/gru-0", "multi-object/gru-1", with_twin=True),
    Case("narrow-a", "narrow-b", with_twin=True),
    Case("wide-a", "wide-b", with_twin=True),
    Case("multi-object/gru-2", "multi-object/gru-3", with_twin=True),
    Case("narrow-b", "wide-a"),
    Case("wide-b", "narrow-a"),
    Case("multi-object/lstm-0", "multi-object/lstm-1"),
    Case("multi-object/gru-0", "multi-object/lstm-0"),
    Case("multi-object/transformer-0", "multi-object/transformer-1"),
    Case("modulo/gru-0", "modulo/gru-1"),
    Case("narrow-a", "half-a"),
    Case("narrow-a", "untrained"),
    Case("narrow-a", "narrow-b", n_trials=400),
    Case("narrow-a", "narrow-b", n_trials=100),
    Case("narrow-a", "narrow-b", noise=0.1),
    Case("narrow-a", "narrow-b", noise=0.5),
    Case("narrow-a", "narrow-b", share=0.5),
)


@dataclass(frozen=True)
class Point:
    """One alignment of a case, scored twice.

    Attributes
    ----------
    case, method, map : str
    iterations : int
    iia : float
        By the live system.
    iia_twin : float
        By the judge.
    low, high : float
        95 % interval of `iia_twin` over pairs.
    cl_loss : float
        Counterfactual-latent loss, which needs no access either.
    verdict : str
        What the twin's card says.
    ceiling : float or None
        Counterfactual-latent ceiling of the judge.
    r2 : float
        Its one-step R² on held-out trials.
    behaviour : float
        Share of held-out answers that it predicts.
    kind : str
        Its kind.
    """

    case: str
    method: str
    map: str
    iterations: int
    iia: float
    iia_twin: float
    low: float
    high: float
    cl_loss: float
    verdict: str
    ceiling: float | None
    r2: float
    behaviour: float
    kind: str


COLUMNS = tuple(each.name for each in fields(Point))


class Partly(System):
    """A system of which only some units are recorded and intervened on; the others stay as they are.

    Parameters
    ----------
    system : System
        Resumed from its latent alone.
    units : ndarray of int64, shape (n_recorded,)
    """

    def __init__(self, system: System, units: NDArray[np.int64]) -> None:
        self._system, self._units = system, units
        self.config = system.config.model_copy(update={"n_units": len(units)})

    def latents(self, tokens: Tensor) -> Tensor:
        return self._system.latents(tokens)[..., self._units]

    def context(self, tokens: Tensor) -> Context:
        return _Whole(self._system.latents(tokens))

    def resume(self, latents: Tensor, continuation: Packed, context: Any = None) -> Tensor:
        whole = context.clone()
        whole[:, self._units] = latents
        return self._system.resume(whole, continuation)


class _Whole(Context):
    """All units at each step, (n_trials, n_steps, n_units)."""

    def __init__(self, latents: Tensor) -> None:
        self._latents = latents

    def at(self, trials: NDArray[np.int64], steps: NDArray[np.int64]) -> Tensor:
        return self._latents[torch.from_numpy(trials), torch.from_numpy(steps)]


def calibrate(
    cases: Sequence[Case] = CASES,
    *,
    out: str | Path,
    report: Callable[[Point], None] = lambda point: None,
    **settings: Any,
) -> list[Point]:
    """Every alignment of every case, scored by the live system and by the judge.

    Cases that lie in `out` are not repeated.

    Parameters
    ----------
    cases : sequence of Case
    out : path-like
        Folder for networks, twins and a table for each case.
    report : callable
        Called with each point.
    **settings
        Fields of `TwinConfig`.

    Returns
    -------
    list of Point
    """
    folder = Path(out)
    points: list[Point] = []
    for case in cases:
        path = folder / f"{case.name.replace('/', '-').replace(' ', '_')}.csv"
        if path.is_file():
            made = read_points(path)
        else:
            made = []
            for point in _points(
                case, folder, TwinConfig(**{"kind": "gru", "n_twins": 3 if case.with_twin else 1, **settings})
            ):
                report(point)
                made.append(point)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(points_table(made), encoding="utf-8")
        points += made
    return points


def points_table(points: Sequence[Point]) -> str:
    """Points as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else value for value in astuple(point)] for point in points)
    return text.getvalue()


def read_points(path: Path) -> list[Point]:
    """What `points_table` wrote."""
    texts = ("case", "method", "map", "verdict", "kind")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(
            **{name: value if name in texts else (None if value == "" else float(value)) for name, value in row.items()}  # type: ignore[arg-type]
        )
        for row in rows
    ]


def network(name: str, folder: Path) -> System:
    """A shipped system, or one of `RECIPES`, trained if it is not in `folder` yet."""
    if name not in RECIPES:
        return load_system(name)
    document = {"task": "multi-object", "name": name, "min_iterations": 0, **RECIPES[name]}
    return train_from(TrainRequest.parse(document, name), out=folder / "networks" / name)


def _points(case: Case, folder: Path, config: TwinConfig) -> Iterator[Point]:
    source, target = network(case.source, folder), network(case.target, folder)
    recording, units = _recorded(case, target)
    twin = Twin.fit(recording, config, out=folder / "twins" / case.name.replace("/", "-").replace(" ", "_"))
    live = target if len(units) == target.n_units else Partly(target, units)
    for kind in ("linear", "orthogonal"):
        for iterations in (0, 30, 400):
            fit = CLMAS(RANK, map=kind, max_iterations=iterations).fit([source, recording])
            yield _point(case, "clmas", kind, fit, twin, live)
        if case.with_twin:
            path = str(folder / "twins" / case.name.replace("/", "-").replace(" ", "_"))
            yield _point(
                case, "clmas with twin", kind, CLMAS(RANK, map=kind, twin=path).fit([source, recording]), twin, live
            )
            yield _point(case, "mas", kind, MAS(RANK, map=kind).fit([source, target]), twin, live)


def _recorded(case: Case, target: System) -> tuple[Recording, NDArray[np.int64]]:
    """The recording that stands for the target, and the units in it."""
    recording = capture(target, case.n_trials, seed=7, name=READ, access="read", allow_unsolved=True)
    generator = np.random.default_rng(_STREAM)
    units = np.sort(generator.permutation(target.n_units)[: round(case.share * target.n_units)])
    latents = recording.latents()
    latents = latents + case.noise * latents.std(axis=0) * generator.normal(size=latents.shape)
    dataset = recording.dataset.isel(unit=units)
    dataset = dataset.assign(activity=(("sample", "unit"), latents[:, units].astype(np.float32)))
    return Recording(dataset, recording.manifest), units


def _point(case: Case, method: str, kind: str, fit: FitResult, twin: Twin, live: System) -> Point:
    """One alignment, from the system that runs into the one that is read."""
    source, target = fit.sides
    if target.system is not None:
        target = replace(target, system=None)
    running = replace(target, system=live, context=HeldContext.of(live, target.recording))
    pairs = draw_pair_set(Direction(source, running), "test", _N_PAIRS, fit.alignment.subspaces, [0, _STREAM])
    donated, received = pairs.latents()
    intervened = fit.alignment.interchange(
        received,
        donated,
        target_system=target.name,
        source_system=source.name,
        subspace=fit.alignment.subspaces[0].name,
    )
    judged = _judged(target, twin)
    right, said = (behaviour(intervened, pairs, side).right.double() for side in (running, judged))
    score = fit.evaluate(n_pairs=_N_PAIRS, controls=(), directions=[(source.name, target.name)]).scores[0]
    quality = twin.card.quality_of(JUDGE)
    return Point(
        case.name,
        method,
        kind,
        fit.report.iterations,
        float(right.mean()),
        float(said.mean()),
        *_interval(said),
        float("nan") if score.cl_loss is None else score.cl_loss,
        twin.card.verdict,
        quality.cl_ceiling,
        quality.r2,
        quality.behaviour,
        quality.kind,
    )


def _judged(target: Side, twin: Twin) -> Side:
    return replace(target, system=twin.system(JUDGE), context=None)


def _interval(right: Tensor) -> tuple[float, float]:
    from neuromas.twins.quality import interval

    return interval(int(right.sum()), len(right))


def bench_twins(points: Sequence[Point]) -> list[Row]:
    """Mean error of the estimate by case, where the twin is good; against the limit of 0.05."""
    rows = []
    for case in dict.fromkeys(point.case for point in points):
        own = [point for point in points if point.case == case]
        if own[0].verdict != "good":
            rows.append(Row(f"{case}: the twin is poor, nothing is estimated", float("nan"), "IIA"))
            continue
        errors = [abs(point.iia_twin - point.iia) for point in own]
        rows.append(at_most(f"{case}: mean error of iia_twin", float(np.mean(errors)), "IIA", 0.05, "the live system"))
    return rows


def draw_twins(points: Sequence[Point]) -> Figure:
    """What the judge says against what the live system does, a point per alignment."""
    figure, panels = new_figure(5.2, 4.6)
    axes = panels[0, 0]
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, zorder=1)
    axes.fill_between([0, 1], [-0.05, 0.95], [0.05, 1.05], color="#eeeeee", zorder=0)
    for verdict, marker in (("good", "o"), ("poor", "x")):
        some = [point for point in points if point.verdict == verdict]
        axes.scatter(
            [point.iia for point in some],
            [point.iia_twin for point in some],
            marker=marker,
            s=22,
            alpha=0.8,
            label=f"{verdict} twin",
            color="#1d8f6f" if verdict == "good" else "#a83c6e",
        )
    axes.set_xlabel("IIA by the live system")
    axes.set_ylabel("IIA by the twin that judges")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, loc="lower right")
    return figure
