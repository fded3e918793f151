"""Which directions carry which loss, by method (eqs. 5-9).

One loop and one objective serve all methods. They differ in this table:

=============  ==========================  ==============================
method         behaviour                   counterfactual latents
=============  ==========================  ==============================
das            A → A                       –
mas            every direction             –
clmas          targets that can be run,    targets that can only be read
               or that have a twin
stitch         source → target, replacing  –
latent-stitch  –                           source → target, replacing
=============  ==========================  ==============================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuromas.align.pairs import Direction
from neuromas.align.side import Side
from neuromas.errors import InvalidInput, ReadOnly
from neuromas.fit.objective import Term
from neuromas.schema.fit import FitConfig


def terms_of(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    """The directions of a fit, each with the losses that it carries.

    Parameters
    ----------
    config : FitConfig
        ``method``, ``direction``, ``cl_directions``.
    sides : sequence of Side

    Raises
    ------
    InvalidInput
        The wrong number of systems, or a direction between systems that are not there.
    ReadOnly
        The method would run a side that can only be read.
    """
    return _TERMS[config.method](config, sides)


def _das(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    _expect(sides, len(sides) == 1, "exactly 1 system", config.method)
    return [_run(Direction(sides[0], sides[0]), config.method)]


def _mas(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    _expect(sides, len(sides) >= 2, "at least 2 systems", config.method)
    return [_run(Direction(source, target), config.method) for target in sides for source in sides]


def _clmas(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    _expect(sides, len(sides) >= 2, "at least 2 systems", config.method)
    expected = "at least 1 system that can be run (latent-stitch, LatentStitch, joins two that can only be read)"
    _expect(sides, any(side.system is not None for side in sides), expected, config.method)
    everywhere = config.cl_directions == "all"
    return [
        Term(
            Direction(source, target),
            behaviour=target.system is not None or target.twin is not None,
            cl=everywhere or target.system is None,
        )
        for target in sides
        for source in sides
    ]


def _stitch(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    return [_run(_one_direction(config, sides, "intervene"), config.method)]


def _latent_stitch(config: FitConfig, sides: Sequence[Side]) -> list[Term]:
    return [Term(_one_direction(config, sides, "read"), behaviour=False, cl=True)]


_TERMS: dict[str, Callable[[FitConfig, Sequence[Side]], list[Term]]] = {
    "das": _das,
    "mas": _mas,
    "clmas": _clmas,
    "stitch": _stitch,
    "latent-stitch": _latent_stitch,
}


def _one_direction(config: FitConfig, sides: Sequence[Side], preferred: str) -> Direction:
    """The configured direction; else into the only side whose access is `preferred`; else into the last side."""
    by_name = {side.name: side for side in sides}
    if config.direction is not None:
        for name in config.direction:
            if name not in by_name:
                raise InvalidInput(
                    f"direction names {name!r}, but the systems are {', '.join(by_name)}", kind="invalid_option"
                )
        return Direction(by_name[config.direction[0]], by_name[config.direction[1]])
    _expect(sides, len(sides) == 2, "exactly 2 systems, or direction=(source, target)", config.method)
    first, second = sides
    if first.access == preferred and second.access != preferred:
        return Direction(second, first)
    return Direction(first, second)


def _expect(sides: Sequence[Side], met: bool, expected: str, method: str) -> None:
    if not met:
        names = ", ".join(f"{side.name} ({side.access})" for side in sides)
        raise InvalidInput(f"{method} expects {expected}; got {len(sides)}: {names}", kind="wrong_systems")


def _run(direction: Direction, method: str) -> Term:
    if direction.target.system is None:
        raise ReadOnly(
            f"{method} runs every target, but {direction.target.name!r} can only be read: it is a recording, not a system"
        )
    return Term(direction, behaviour=True, cl=False)
