"""A fit as a document: what to fit, of which systems and recordings, and where to find them again.

The command line, and any other program that fits on somebody's behalf, writes ``request.json`` beside the result; from the
two, an evaluation has everything that the fit had.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from neuromas.align.prepare import side_names
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput, NotFound
from neuromas.files import write_atomically
from neuromas.fit.fitters import FITTERS, Fitter, describe_inputs, fit_together
from neuromas.fit.loop import Progress
from neuromas.fit.result import RESULT, FitResult
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import resolve_store
from neuromas.schema.fit import FitInput, FitRequest
from neuromas.systems.system import System
from neuromas.systems.training import CONFIG, load_system

REQUEST = "request.json"
T = TypeVar("T")


def parse_request(document: Mapping[str, Any], where: str) -> FitRequest:
    """The request that `document` spells, with the method's own defaults for what its configuration leaves out.

    Parameters
    ----------
    document : mapping
        Fields of `neuromas.schema.fit.FitRequest`; its ``config`` needs at least ``method``.
    where : str
        File or command that it comes from, for messages.

    Raises
    ------
    InvalidDocument
        Lists every problem.

    Examples
    --------
    >>> parse_request({"config": {"method": "stitch"}, "systems": ["a", "b"]}, "example").config.subspaces is None
    True
    """
    config = document.get("config")
    if isinstance(config, Mapping) and str(config.get("method")) in FITTERS:
        own = FITTERS[config["method"]]().config.model_dump(mode="json", exclude_unset=True)
        document = {**document, "config": {**own, **config}}
    return FitRequest.parse(document, where)


def at_point(config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the values of `point`, whose keys are dotted where nested.

    Raises
    ------
    InvalidInput
        A key goes into what holds nothing.

    Examples
    --------
    >>> at_point({"seed": 0, "subspaces": {"phase": 4}}, {"seed": 1, "subspaces.count": 8})
    {'seed': 1, 'subspaces': {'phase': 4, 'count': 8}}
    """
    settled: dict[str, Any] = json.loads(json.dumps(dict(config)))
    for path, value in point.items():
        *outer, last = path.split(".")
        inside = settled
        for part in outer:
            found = inside.get(part)
            if found is not None and not isinstance(found, dict):
                raise InvalidInput(f"{path}: {part} is {found!r}, which has nothing inside", kind="invalid_option")
            inside[part] = found or {}
            inside = inside[part]
        inside[last] = value
    return settled


@dataclass(frozen=True)
class Varied:
    """One of the requests that `vary` makes.

    Attributes
    ----------
    name : str
        To keep it under.
    point : dict
        The settings that tell it from the others, as they were asked for.
    request : FitRequest
    """

    name: str
    point: Mapping[str, Any]
    request: FitRequest


SHORT = {"rank": "subspaces.full"}
"""Settings that may be called by another name where they vary."""


def vary(request: FitRequest, axes: Mapping[str, Sequence[Any]]) -> list[Varied]:
    """A request for every combination of settings.

    Parameters
    ----------
    request : FitRequest
        What they have in common.
    axes : mapping of str to sequence
        Setting, dotted where nested, → its values. ``rank`` is short for ``subspaces.full``.

    Raises
    ------
    InvalidInput
        A setting or a value is given twice; the method is to vary.
    InvalidDocument
        Some combination breaks the schema; lists every problem once.

    Examples
    --------
    >>> request = parse_request({"config": {"method": "das"}, "systems": ["multi-object/gru-0"]}, "example")
    >>> [one.name for one in vary(request, {"rank": [4, 8], "seed": [0, 1]})]
    ['rank=4,seed=0', 'rank=4,seed=1', 'rank=8,seed=0', 'rank=8,seed=1']
    """
    paths = [SHORT.get(key, key) for key in axes]
    if any(path.partition(".")[0] == "method" for path in paths):
        raise InvalidInput("fits of one command have one method; its settings may vary", kind="invalid_option")
    for (one, path), (other, longer) in itertools.permutations(zip(axes, paths, strict=True), 2):
        if f"{longer}.".startswith(f"{path}."):
            raise InvalidInput(f"{one} and {other} are one setting", kind="given_twice")
    found: list[Varied] = []
    problems: dict[str, None] = {}
    common = request.config.model_dump(mode="json", exclude_unset=True)
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        name = ",".join(f"{key}={_in_a_name(value)}" for key, value in point.items())
        config = at_point(common, dict(zip(paths, values, strict=True)))
        document = request.model_dump(mode="json") | {"config": config}
        wrong = FitRequest.problems(document)
        problems |= dict.fromkeys(wrong)
        if not wrong:
            found.append(Varied(name, point, FitRequest.parse(document, name)))
    if problems:
        raise InvalidDocument(f"fits with {', '.join(axes)} varied", list(problems))
    for first, second in itertools.combinations(found, 2):
        if first.request == second.request or first.name == second.name:
            raise InvalidInput(f"{first.name} and {second.name}: one fit is asked for twice", kind="given_twice")
    return found


def _in_a_name(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, Mapping):
        value = [f"{key}-{one}" for key, one in value.items()]
    told = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+-]", "-", told)


def settled(request: FitRequest) -> FitRequest:
    """The request with full paths for systems' folders and for the store, so that it can be read from anywhere.

    Raises
    ------
    NotFound, InvalidInput
        There is no such store.
    """
    systems = []
    for one in request.systems:
        layered = "@" in one and not Path(one).is_dir()
        folder, at, layer = one.rpartition("@") if layered else (one, "", "")
        systems.append(f"{Path(folder).absolute()}{at}{layer}" if (Path(folder) / CONFIG).is_file() else one)
    store = str(resolve_store(request.store).path.absolute()) if request.read else None
    return request.model_copy(update={"systems": tuple(systems), "store": store})


def open_inputs(request: FitRequest, device: str = "cpu") -> list[System | Recording]:
    """Systems, then recordings, in the order in which the request names them.

    Raises
    ------
    InvalidInput
        The request names none.
    NotFound
        A system, store or recording does not exist.
    Corrupt
        Weights or recordings are damaged.
    """
    if not request.systems and not request.read:
        raise InvalidInput("a fit needs at least one system, or a recording to read", kind="no_systems")
    systems: list[System | Recording] = [load_system(path, device) for path in request.systems]
    if request.read:
        store = resolve_store(request.store)
        systems += [store.get(name) for name in request.read]
    return systems


def run_request(
    request: FitRequest,
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Fit what `request` asks for into the folder `out`, with the request beside the result.

    Interrupted, it goes on from its checkpoint in `out` when called again with the same request.

    Parameters
    ----------
    request : FitRequest
    out : path-like
    device : str
    progress : callable, optional
        As for `Fitter.fit`.

    Raises
    ------
    InvalidInput
        `out` holds another request's fit.
    NeuromasError
        What `open_inputs` and `Fitter.fit` raise. A fit that could not begin leaves no request behind.
    """
    out = Path(out)
    systems = open_inputs(request, device)
    written = False

    def begun() -> (
        None
    ):  # not before the fitter has found that `out` holds no other fit, whose request this would replace
        nonlocal written
        if not written:
            write_atomically(out / REQUEST, request.to_json())
            written = True

    def report(now: Progress) -> None:
        begun()
        if progress is not None:
            progress(now)

    fitter = Fitter.from_config(request.config)
    result = fitter.fit(
        systems,
        mapping=_by_side(request.mapping, systems),
        units=_by_side(request.units, systems),
        device=device,
        out=out,
        progress=report,
    )
    begun()
    return result


def run_requests(
    requests: Mapping[str, FitRequest],
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[str, Progress], None] | None = None,
) -> dict[str, FitResult]:
    """Fit requests of the same systems together (`fit_together`), each into a folder of its name in `out`.

    Interrupted, they go on from their checkpoints when called again; finished ones are not repeated.

    Parameters
    ----------
    requests : mapping of str to FitRequest
        At least one; they differ in ``config`` alone, see `vary`.
    out : path-like
    device : str
    progress : callable, optional
        Called with a request's name and its `Progress` after each of its iterations.

    Raises
    ------
    InvalidInput
        A folder holds another request's fit, or requests are of other systems; those whose loss is no longer finite are
        named after all others have ended and are saved.
    NeuromasError
        What `open_inputs` and `fit_together` raise.
    """
    names, folders = list(requests), [Path(out) / name for name in requests]
    others = {one.model_dump_json(exclude={"config"}) for one in requests.values()}
    if len(others) != 1:
        raise InvalidInput(
            f"expected requests of the same systems, which differ in config alone; got {len(others)} kinds",
            kind="mixed_requests",
        )
    first = requests[names[0]]
    systems = open_inputs(first, device)
    written: set[int] = set()

    def begun(number: int) -> None:
        if number not in written:
            write_atomically(folders[number] / REQUEST, requests[names[number]].to_json())
            written.add(number)

    def report(number: int, now: Progress) -> None:
        begun(number)
        if progress is not None:
            progress(names[number], now)

    results = fit_together(
        [Fitter.from_config(one.config) for one in requests.values()],
        systems,
        mapping=_by_side(first.mapping, systems),
        units=_by_side(first.units, systems),
        device=device,
        out=folders,
        progress=report,
        names=names,
    )
    for number in range(len(names)):
        begun(number)
    return dict(zip(names, results, strict=True))


def reopen(folder: str | Path, *, store: str | Path | None = None, device: str = "cpu") -> FitResult:
    """A fit's result with its sides made anew, exactly as they were fitted.

    Parameters
    ----------
    folder : path-like
        Written by `run_request`.
    store : path-like, optional
        Where the recordings are now, if they have moved.
    device : str

    Returns
    -------
    FitResult
        With ``sides`` and ``model``.

    Raises
    ------
    NotFound
        No result or request there, or a system or recording has gone.
    Corrupt
        Weights or a recording are not those that were fitted; says which, and how they differ.
    """
    folder = Path(folder)
    result = FitResult.load(folder)
    request = read_request(folder)
    if request.config != result.report.config:
        raise Corrupt(f"{folder / REQUEST} and {RESULT} are of different fits", kind="mixed_result")
    if store is not None:
        request = request.model_copy(update={"store": str(store)})
    systems = open_inputs(request, device)
    mapping = _by_side(request.mapping, systems)
    sides = Fitter.from_config(request.config).sides(
        systems, mapping=mapping, units=_by_side(request.units, systems), device=device
    )
    inputs = describe_inputs(sides, systems, mapping)
    differences = _differences(result.report.inputs, inputs)
    if differences:
        raise Corrupt(f"{folder}: the inputs are not those that were fitted: {'; '.join(differences)}", kind="changed")
    return FitResult(result.alignment, result.report, tuple(sides))


def read_request(folder: str | Path) -> FitRequest:
    """The request that a fit's folder holds.

    Raises
    ------
    NotFound
        It holds none: the fit was made in a program that kept its systems to itself.
    InvalidDocument
        It breaks its schema.
    """
    path = Path(folder) / REQUEST
    if not path.is_file():
        raise NotFound(
            f"{folder} has no {REQUEST}, which says where systems and recordings are; it was not fitted by a command",
            kind="no_request",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(str(path), [f"not text: {error}"]) from error
    return FitRequest.parse(text, str(path))


def _by_side(keyed: Mapping[str, T] | None, systems: Sequence[System | Recording]) -> dict[str, T] | None:
    """The entries by the names that sides go by; recordings may be called SET/RECORDING as well."""
    if keyed is None:
        return None
    known = dict(zip((one.name for one in systems), side_names(systems), strict=True))
    return {known.get(name, name): entry for name, entry in keyed.items()}


def _differences(fitted: Sequence[FitInput], now: Sequence[FitInput]) -> list[str]:
    if [one.name for one in fitted] != [one.name for one in now]:
        return [f"they were {', '.join(one.name for one in fitted)}, and are {', '.join(one.name for one in now)}"]
    told = []
    for before, after in zip(fitted, now, strict=True):
        was, is_ = before.model_dump(mode="json"), after.model_dump(mode="json")
        told += [f"{before.name!r}: {key} was {was[key]}, is {is_[key]}" for key in was if was[key] != is_[key]]
    return told
