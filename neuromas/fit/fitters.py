"""The fitters: DAS, MAS, CLMAS, Stitch, LatentStitch.

A fitter is a configuration with a `fit` method. `neuromas.fit.terms` holds the table of which directions carry which loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import EllipsisType
from typing import Any, ClassVar, Literal

from neuromas.causal.model import CausalModel
from neuromas.errors import InvalidDocument, InvalidInput, suggestion
from neuromas.fit.progress import FitBar, Progress
from neuromas.fit.result import FitResult
from neuromas.fit.together import together
from neuromas.recordings.recording import Recording
from neuromas.schema.fit import FitConfig, default_config, method_defaults
from neuromas.schema.signature import describe_options, options_of
from neuromas.systems.system import System

_NO_OPTIONS = ("format_version", "method", "subspaces")
"""Fields of a configuration that the class and its ``rank`` decide."""
_RANK = """\
rank : int or mapping of str to int{or_none}, default {default}
    Rank of the subspace of all variables; or ranks of disjoint subspaces by variable, e.g. ``{{"phase": 4, "count": 12}}``.
    None: the full width; only stitches can have it."""


def _no_option(name: str, known: Iterable[str]) -> str:
    if name == "subspaces":
        return "use rank=, a number or a mapping from variables to numbers"
    return f"no such option{suggestion(name, known)}"


def _rank_of(config: FitConfig) -> int | dict[str, int] | None:
    """The subspaces of a configuration as the parameter ``rank`` of a fitter."""
    subspaces = config.subspaces
    return subspaces["full"] if subspaces is not None and list(subspaces) == ["full"] else subspaces


def _other_defaults(option: inspect.Parameter, others: Mapping[str, FitConfig]) -> str:
    """The defaults of an option in other configurations, where they differ."""
    values = [(getattr(config, option.name), where) for where, config in others.items()]
    return "".join(f" ({value!r} with ``{where}``)" for value, where in values if value != option.default)


class Fitter:
    """Base of the fitters. It turns options into a configuration; `fit` returns a `FitResult`."""

    method: ClassVar[Literal["das", "mas", "clmas", "stitch", "latent-stitch"]]
    config: FitConfig

    def __init_subclass__(cls) -> None:
        """Give the class a signature and a description of its parameters, from the fields of `FitConfig`."""
        fast, paper = default_config(cls.method, preset="fast"), default_config(cls.method)
        others = {"preset='paper'": paper}
        rank = _rank_of(paper)
        options = options_of(FitConfig, _NO_OPTIONS, **fast.model_dump())
        notes = {
            option.name: _other_defaults(option, others) for option in options if option.name not in ("preset", "map")
        }
        first = inspect.Parameter(
            "rank",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=rank,
            annotation=int | Mapping[str, int] | None,
        )
        cls.__signature__ = inspect.Signature([first, *options])  # type: ignore[attr-defined]
        described = _RANK.format(default=rank, or_none=" or None" if rank is None else "")
        described += "\n" + describe_options(FitConfig, options, notes)
        cls.__doc__ = (
            f"{inspect.cleandoc(cls.__doc__ or '')}\n\nParameters\n----------\n{described}\n\nRaises\n------\n"
            "InvalidDocument\n    Options that do not exist or do not go together; lists every problem.\n"
        )

    def __init__(self, rank: int | Mapping[str, int] | EllipsisType | None = ..., **options: Any) -> None:
        where = f"configuration of {type(self).__name__}"
        known = inspect.signature(type(self)).parameters
        problems = [f"{name}: {_no_option(name, known)}" for name in options if name not in known]
        document = {**method_defaults(self.method), "preset": "fast"}
        document |= {name: value for name, value in options.items() if name in known}
        if rank is not ...:
            document["subspaces"] = {"full": rank} if isinstance(rank, int) else rank
        if problems:
            raise InvalidDocument(where, [*problems, *FitConfig.problems(document)])
        self.config = FitConfig.parse(document, where)

    @classmethod
    def from_config(cls, config: FitConfig) -> Fitter:
        """The fitter of a configuration."""
        fitter = object.__new__(FITTERS[config.method])
        fitter.config = config
        return fitter

    def __repr__(self) -> str:
        config, usual = self.config, _rank_of(default_config(self.method))
        defaults = default_config(self.method, preset=config.preset, map=config.map)
        options: dict[str, Any] = {} if (rank := _rank_of(config)) == usual else {"rank": rank}
        options |= {} if config.preset == "fast" else {"preset": config.preset}
        options |= {} if config.map == "orthogonal" else {"map": config.map}
        options |= {
            name: getattr(config, name)
            for name in FitConfig.model_fields
            if name not in _NO_OPTIONS and getattr(config, name) != getattr(defaults, name)
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"

    def fit(
        self,
        systems: Sequence[System | Recording],
        *,
        model: CausalModel | None = None,
        mapping: Mapping[str, Mapping[str, Any]] | None = None,
        units: Mapping[str, Sequence[str]] | None = None,
        device: str = "cpu",
        out: str | Path | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
    ) -> FitResult:
        """Fit the alignment.

        Parameters
        ----------
        systems : sequence of System or Recording
            The fit may run each `System`; it only reads each `Recording`.
        model : CausalModel, optional
            By default each system's own task.
        mapping : mapping of recording name to mapping, optional
            Names and values that differ in a recording; see `Recording.relabel`.
        units : mapping of recording name to units, optional
            Units to use. Samples in which one of them is missing are left out and counted.
        device : str
            ``cpu``, ``cuda``, ``cuda:1``, …
        out : path-like, optional
            Folder for checkpoints and the result. An interrupted fit continues from its checkpoint there; a finished one is
            returned.
        progress : bool or callable, optional
            True shows a bar in a terminal or a notebook. A callable gets a `Progress` after every iteration.

        Returns
        -------
        FitResult
            ``report.status`` is ``converged``, ``max_iterations`` or ``closed_form``.

        Raises
        ------
        InvalidInput
            The wrong number of systems, a rank larger than a width, too few trials, no counterfactual latent at all.
        NotFound
            A variable, unit or name that does not exist.
        ReadOnly
            The method would run a system that can only be read.
        """
        (result,) = fit_together(
            [self],
            systems,
            model=model,
            mapping=mapping,
            units=units,
            device=device,
            out=[out],
            progress=progress if not callable(progress) else lambda _, current: progress(current),
        )
        return result


class DAS(Fitter):
    """Distributed Alignment Search: MAS with one system (Geiger et al. 2023)."""

    method = "das"


class MAS(Fitter):
    """Model Alignment Search: it trains on behaviour in every direction, so every system is run (eq. 6)."""

    method = "mas"


class CLMAS(Fitter):
    """Counterfactual-latent MAS (eqs. 7-9).

    It trains on the behaviour of targets that can be run, and towards counterfactual latents in targets that can only be read.
    """

    method = "clmas"


class Stitch(Fitter):
    """Model stitching: one direction, trained on behaviour alone. The source replaces the whole latent of the target."""

    method = "stitch"


class LatentStitch(Fitter):
    """One orthogonal matrix from source to target, trained towards counterfactual latents alone (eqs. 8, 9).

    ``solver="closed-form"`` is orthogonal Procrustes, the optimum of the L2 term.
    """

    method = "latent-stitch"


FITTERS: dict[str, type[Fitter]] = {fitter.method: fitter for fitter in (DAS, MAS, CLMAS, Stitch, LatentStitch)}
"""Fitters by the name of their method."""


def fit_together(
    fitters: Sequence[Fitter],
    systems: Sequence[System | Recording],
    *,
    model: CausalModel | None = None,
    mapping: Mapping[str, Mapping[str, Any]] | None = None,
    units: Mapping[str, Sequence[str]] | None = None,
    device: str = "cpu",
    out: Sequence[str | Path | None] | None = None,
    progress: bool | Callable[[int, Progress], None] | None = None,
) -> list[FitResult]:
    """Fit several alignments of the same systems at once: other seeds, ranks, variables, weights, even methods.

    Systems are recorded once for all fits with the same seed and trials. In each iteration, the frozen systems run once on the
    batches of several fits (on a CPU about 1,024 pairs). Each result is that of the same fit alone, up to rounding.

    Parameters
    ----------
    fitters : sequence of Fitter
    systems, model, mapping, units, device
        As in `Fitter.fit`; the same for all.
    out : sequence of path-like or None, optional
        A folder for each fit; as in `Fitter.fit`.
    progress : bool or callable, optional
        True shows a bar. A callable gets the number of a fit and its `Progress` after each of its iterations.

    Returns
    -------
    list of FitResult
        In the order of `fitters`.

    Raises
    ------
    InvalidInput, NotFound, ReadOnly
        As `Fitter.fit`. If the loss of some fits is no longer finite, the others end first, and are saved if they have folders.

    Examples
    --------
    >>> from neuromas.systems.training import load_system
    >>> quick = {"n_trials": 60, "n_train_pairs": 40, "n_validation_pairs": 20, "max_iterations": 3, "batch_size": 8}
    >>> results = fit_together([DAS(rank, **quick) for rank in (4, 8)], [load_system("multi-object/gru-0")])
    >>> [result.alignment.rank for result in results]
    [4, 8]
    """
    fitters = list(fitters) if isinstance(fitters, Iterable) else [fitters]
    if not all(isinstance(fitter, Fitter) for fitter in fitters):
        raise InvalidInput(f"expected fitters, such as [DAS(4), DAS(8)], got {fitters!r}", kind="invalid_option")
    configs = [fitter.config for fitter in fitters]
    shown = FitBar(configs) if progress is True else None
    with shown or nullcontext():
        return together(
            configs,
            systems,
            model=model,
            mapping=mapping,
            units=units,
            device=device,
            out=out,
            progress=progress if callable(progress) else shown,
        )
