"""Twins of the sides of a fit that can only be read: learnt, or opened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from neuromas.align.side import Side
from neuromas.errors import InvalidInput
from neuromas.progress import Bar
from neuromas.schema.fit import FitConfig
from neuromas.schema.twin import TwinConfig
from neuromas.twins.twin import Twin

FOLDER = "twins"
"""In a fit's folder: a folder with the twin of each side."""


class Twins:
    """Gives sides their twins. Fits that are made together share those that they learn.

    Parameters
    ----------
    show : bool
        Show a bar while a twin is learnt.
    """

    def __init__(self, *, show: bool = False) -> None:
        self._learnt: dict[str, Twin] = {}
        self._show = show

    def of(self, config: FitConfig, sides: Sequence[Side], folder: Path | None) -> list[Side]:
        """The sides, those that can only be read with their twins.

        Parameters
        ----------
        config : FitConfig
            ``twin``, and for ``auto`` the seed and the parts.
        sides : sequence of Side
        folder : Path or None
            The fit's folder, where a twin that is learnt is kept.

        Raises
        ------
        InvalidInput
            No side can only be read, or several can and `config` names one folder; a twin of another recording.
        NotFound
            There is no twin in the folder.
        """
        if config.twin is None:
            return list(sides)
        read = [side for side in sides if side.system is None]
        if not read:
            raise InvalidInput(
                "a twin stands in for a system that can only be read, but every system of this fit can be run",
                kind="needless_twin",
            )
        if config.twin != "auto" and len(read) > 1:
            raise InvalidInput(
                f"twin={config.twin!r} is the twin of one recording, but {', '.join(side.name for side in read)} can only be"
                " read; twin='auto' learns one of each",
                kind="wrong_twin",
            )
        return [side.with_twin(self._twin(config, side, folder)) if side.system is None else side for side in sides]

    def _twin(self, config: FitConfig, side: Side, folder: Path | None) -> Twin:
        assert config.twin is not None
        if config.twin != "auto":
            return Twin.load(config.twin)
        settings = TwinConfig(fractions=config.fractions, seed=config.seed)
        out = None if folder is None else folder / FOLDER / side.name.replace("/", "-")
        key = "".join([side.original.content_sha256, settings.model_dump_json(), *side.units])
        if key not in self._learnt:
            self._learnt[key] = self._learn(side, settings, out)
        elif out is not None:
            self._learnt[key].save(out)
        return self._learnt[key]

    def _learn(self, side: Side, settings: TwinConfig, out: Path | None) -> Twin:
        """Learn the twin of a side, under the names and codes that all sides share."""
        with Bar(f"twin of {side.name}", None) if self._show else nullcontext() as bar:

            def show(role: str, iteration: int, end: int, loss: float) -> None:
                if bar is not None:
                    bar.update(iteration, f"{role}, loss {loss:.4f}", total=end)

            return Twin.fit(side.recording, settings, units=side.units, model=side.model, out=out, progress=show)
