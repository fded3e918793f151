"""Verbs that examine a fit or a system: validate, ranks and locate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuromas.cli import terminal
from neuromas.cli.options import Asked
from neuromas.cli.verbs import verb
from neuromas.schema.actions import IntoFolder, LocateRequest, RanksRequest, ReadsDevice, ValidateRequest

if TYPE_CHECKING:
    from neuromas.schema.validity import Validity

COLOURS = {"supported": "bold green", "not supported": "bold red", "undecided": "bold yellow"}


@verb(ValidateRequest, ReadsDevice, table=True)
def validate_(asked: Asked) -> None:
    """An alignment that fails a check ends with exit code 0 all the same: the verdict is the result."""
    from neuromas.actions.validate import validate
    from neuromas.fit.folder import VALIDITY, VALIDITY_TABLE

    request, place = asked.parse("validate")
    validity = validate(request, device=place.device, progress=lambda text: terminal.tell(f"{text} …", "dim"))
    if asked.as_json:
        terminal.show_json(validity.model_dump(mode="json"))
        return
    show_validity(validity)
    folder = Path(request.folder)
    terminal.say(f"wrote {folder / VALIDITY}, {folder / VALIDITY_TABLE}")


@verb(RanksRequest, ReadsDevice, table=True)
def ranks_(asked: Asked) -> None:
    from neuromas.actions.ranks import ranks
    from neuromas.fit.folder import RANKS, RANKS_FIGURE, RANKS_TABLE

    request, place = asked.parse("ranks")
    curve = ranks(request, device=place.device)
    if asked.as_json:
        terminal.show_json(curve.model_dump(mode="json"))
        return
    table = terminal.table("rank >", "direction", "subspace", "measure", "score >", "95 % >")
    for row in curve.scores:
        interval = f"{row.score.low:.3f}–{row.score.high:.3f}"
        names = f"{row.source} → {row.target}", row.subspace, row.measure
        terminal.row(table, row.rank, *names, terminal.number(row.score.value), interval)
    terminal.show(table)
    terminal.say(curve.verdict())
    folder = Path(request.folder)
    terminal.say(f"wrote {', '.join(str(folder / name) for name in (RANKS, RANKS_TABLE, RANKS_FIGURE))}")


@verb(LocateRequest, IntoFolder, table=True)
def locate_(asked: Asked) -> None:
    from neuromas.actions.locate import locate

    request, place = asked.parse("locate")
    location = locate(request, place.out, device=place.device, report=lambda text: terminal.tell(f"{text} …", "dim"))
    if asked.as_json:
        terminal.show_json(location.model_dump(mode="json"))
        return
    table = terminal.table("layer", "variable", "best rank >", "IIA >", "without >", "probe >", "corrected p >", "by")
    for row in location.summary().to_dict("records"):
        numbers = (terminal.number(row[name]) for name in ("iia", "none", "probe", "p"))
        terminal.row(table, row["layer"], row["variable"], row["rank"], *numbers, row["by"])
    terminal.show(table)
    terminal.tell("IIA of the worst direction over all steps; locate.csv has every rank and range of steps.", "dim")
    terminal.say(f"wrote {terminal.contents(Path(place.out))}")


def show_validity(validity: Validity) -> None:
    """The verdict, and a row per check."""
    from neuromas.schema.validity import shown

    table = terminal.table("check", "outcome", "verdict")
    for row in shown(validity.checks):
        outcome = row.outcome if row.decides else f"{row.outcome} (informs)"
        terminal.row(table, row.check, outcome, row.verdict)
    terminal.show(table)
    terminal.say(f"{validity.outcome}: {validity.verdict}", COLOURS[validity.outcome])
