"""Requests for fits: from documents to fits, and from a fit's folder back to its systems and recordings.

``request.json`` beside a result says which systems and recordings were fitted. From the two, an evaluation has everything that
the fit had.
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
from neuromas.errors import Corrupt, InvalidDocument, InvalidInput
from neuromas.fit.folder import REQUEST, RESULT, read_request, write_request
from neuromas.fit.prepare import describe_inputs, fit_sides
from neuromas.fit.progress import Progress
from neuromas.fit.result import FitResult
from neuromas.fit.stand_ins import Twins
from neuromas.fit.together import together
from neuromas.recordings.recording import Recording
from neuromas.recordings.store.locate import existing_store
from neuromas.recordings.store.store import RecordingStore
from neuromas.schema.fit import FitInput, FitRequest, method_defaults
from neuromas.systems.system import System
from neuromas.systems.training import CONFIG, load_system

T = TypeVar("T")


def parse_request(document: Mapping[str, Any], where: str) -> FitRequest:
    """Check a request and fill it with the defaults of its method and its preset.

    Parameters
    ----------
    document : mapping
        Fields of `neuromas.schema.fit.FitRequest`; its ``config`` needs at least ``method``.
    where : str
        File or command from which it comes, for messages.

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
    if isinstance(config, Mapping) and "method" in config:
        document = {**document, "config": {**method_defaults(str(config["method"])), **config}}
    return FitRequest.parse(document, where)


def at_point(config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `config` with the values of `point`; a dot in a key leads into a nested setting.

    Raises
    ------
    InvalidInput
        A key leads into a setting that is neither null nor a mapping.

    Examples
    --------
    >>> at_point({"seed": 0, "subspaces": {"phase": 4}}, {"seed": 1, "subspaces.count": 8})
    {'seed': 1, 'subspaces': {'phase': 4, 'count': 8}}
    """
    copy: dict[str, Any] = json.loads(json.dumps(dict(config)))
    for path, value in point.items():
        *outer, last = path.split(".")
        inside = copy
        for key in outer:
            nested = inside.get(key)
            if nested is not None and not isinstance(nested, dict):
                raise InvalidInput(f"{path}: {key} is {nested!r}, which has no settings inside", kind="invalid_option")
            inside[key] = nested or {}
            inside = inside[key]
        inside[last] = value
    return copy


@dataclass(frozen=True)
class Varied:
    """One of the requests that `vary` makes.

    Attributes
    ----------
    name : str
        Name of its folder.
    point : mapping
        The settings in which it differs from the others, as they were asked for.
    request : FitRequest
    """

    name: str
    point: Mapping[str, Any]
    request: FitRequest


SHORT = {"rank": "subspaces.full"}
"""Short names of settings, for `vary`."""


def vary(request: FitRequest, axes: Mapping[str, Sequence[Any]]) -> list[Varied]:
    """A request for every combination of settings.

    The preset fills what was not set explicitly anew for each combination: ``map=orthogonal,linear`` gives each kind of map the
    preset's settings for it.

    Parameters
    ----------
    request : FitRequest
        What they have in common.
    axes : mapping of str to sequence
        Setting → its values; a dot leads into a nested setting. ``rank`` is short for ``subspaces.full``.

    Raises
    ------
    InvalidInput
        A setting or a value is given twice, or the method varies.
    InvalidDocument
        Some combination breaks the schema; lists every problem once.

    Examples
    --------
    >>> request = parse_request({"config": {"method": "das"}, "systems": ["multi-object/gru-0"]}, "example")
    >>> [varied.name for varied in vary(request, {"rank": [4, 8], "seed": [0, 1]})]
    ['rank=4,seed=0', 'rank=4,seed=1', 'rank=8,seed=0', 'rank=8,seed=1']
    """
    paths = [SHORT.get(key, key) for key in axes]
    _check_axes(list(axes), paths)
    requests: list[Varied] = []
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
            requests.append(Varied(name, point, FitRequest.parse(document, name)))
    if problems:
        raise InvalidDocument(f"fits with {', '.join(axes)} varied", list(problems))
    for first, second in itertools.combinations(requests, 2):
        same = first.request.config.identity_json() == second.request.config.identity_json()
        if same or first.name == second.name:
            raise InvalidInput(f"{first.name} and {second.name} are the same fit, asked for twice", kind="given_twice")
    return requests


def _check_axes(keys: Sequence[str], paths: Sequence[str]) -> None:
    if any(path.partition(".")[0] == "method" for path in paths):
        raise InvalidInput("all fits of a command have one method; its settings may vary", kind="invalid_option")
    for (key, path), (other, longer) in itertools.permutations(zip(keys, paths, strict=True), 2):
        if f"{longer}.".startswith(f"{path}."):
            raise InvalidInput(f"{key} and {other} are the same setting", kind="given_twice")


def _in_a_name(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, Mapping):
        value = [f"{key}-{inner}" for key, inner in value.items()]
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+-]", "-", text)


def settled(request: FitRequest) -> FitRequest:
    """The request with full paths of systems' folders, of the twin and of the store, so that it can be opened from any folder.

    Raises
    ------
    NotFound, InvalidInput
        There is no such store.
    """
    store = str(existing_store(request.store).path.absolute()) if request.read else None
    config, twin = request.config, request.config.twin
    if twin not in (None, "auto"):
        config = config.model_copy(update={"twin": str(Path(twin).absolute())})
    systems = tuple(map(_full_path, request.systems))
    return request.model_copy(update={"config": config, "systems": systems, "store": store})


def _full_path(system: str) -> str:
    layered = "@" in system and not Path(system).is_dir()
    folder, at, layer = system.rpartition("@") if layered else (system, "", "")
    return f"{Path(folder).absolute()}{at}{layer}" if (Path(folder) / CONFIG).is_file() else system


def open_inputs(request: FitRequest, device: str = "cpu") -> list[System | Recording]:
    """Systems, then recordings, in the order in which the request names them.

    A settled request names its store, which is opened as it is.

    Raises
    ------
    InvalidInput
        The request names neither systems nor recordings.
    NotFound
        A system, store or recording does not exist.
    Corrupt
        Weights or recordings are damaged.
    """
    if not request.systems and not request.read:
        raise InvalidInput("a fit needs at least one system, or a recording to read", kind="wrong_systems")
    systems: list[System | Recording] = [load_system(path, device) for path in request.systems]
    if request.read:
        store = existing_store() if request.store is None else RecordingStore(request.store)
        systems += [store.get(name) for name in request.read]
    return systems


def run_request(
    request: FitRequest,
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Run one request: the fit goes into the folder `out`, with the request beside the result.

    Parameters and errors are those of `run_requests`, but the folder is `out` itself and `progress` gets no name.
    """
    report = None if progress is None else lambda _, current: progress(current)
    return _run({"": request}, [Path(out)], device, report)[""]


def run_requests(
    requests: Mapping[str, FitRequest],
    out: str | Path,
    *,
    device: str = "cpu",
    progress: Callable[[str, Progress], None] | None = None,
) -> dict[str, FitResult]:
    """Run requests of the same systems together, each in a folder of its name in `out`, with the request beside the result.

    If a run is interrupted, the same call continues from the checkpoints. Finished fits are not repeated.

    Parameters
    ----------
    requests : mapping of str to FitRequest
        At least one. They differ in ``config`` alone; see `vary`.
    out : path-like
    device : str
    progress : callable, optional
        Called with a request's name and its `Progress` after each of its iterations.

    Raises
    ------
    InvalidInput
        A folder holds the fit of another request, or the requests have different systems. Fits whose loss is no longer finite
        are named after all others have ended and are saved.
    NeuromasError
        As in `open_inputs` and `neuromas.fit.together.together`. A fit that could not begin leaves no request behind.
    """
    return _run(requests, [Path(out) / name for name in requests], device, progress)


def _run(
    requests: Mapping[str, FitRequest],
    folders: Sequence[Path],
    device: str,
    progress: Callable[[str, Progress], None] | None,
) -> dict[str, FitResult]:
    names = list(requests)
    kinds = {request.model_dump_json(exclude={"config"}) for request in requests.values()}
    if len(kinds) != 1:
        raise InvalidInput(
            f"expected requests with the same systems, which differ in config alone; got {len(kinds)} kinds",
            kind="mixed_requests",
        )
    first = requests[names[0]]
    systems = open_inputs(first, device)
    written: set[int] = set()

    def write(number: int) -> None:
        # only now is it known that the folder holds no other fit, whose request this would replace
        if number not in written:
            write_request(folders[number], requests[names[number]])
            written.add(number)

    def report(number: int, current: Progress) -> None:
        write(number)
        if progress is not None:
            progress(names[number], current)

    results = together(
        [request.config for request in requests.values()],
        systems,
        mapping=_by_side(first.mapping, systems),
        units=_by_side(first.units, systems),
        device=device,
        out=folders,
        progress=report,
        names=names,
    )
    for number in range(len(names)):
        write(number)
    return dict(zip(names, results, strict=True))


def reopen(folder: str | Path, *, store: str | Path | None = None, device: str = "cpu") -> FitResult:
    """Open a fit's result together with its systems and recordings, exactly as they were fitted.

    Parameters
    ----------
    folder : path-like
        Folder of a fit, written by `run_request` or by the command line.
    store : path-like, optional
        Where the recordings are now, if they have moved.
    device : str

    Returns
    -------
    FitResult
        With ``sides``, so that it can be evaluated.

    Raises
    ------
    NotFound
        The folder has no result or no request, or a system or recording no longer exists.
    Corrupt
        Weights or a recording are not those that were fitted. The message says which, and how they differ.
    """
    folder = Path(folder)
    result = FitResult.load(folder)
    request = read_request(folder)
    if request.config.identity_json() != result.report.config.identity_json():
        raise Corrupt(f"{folder / REQUEST} and {RESULT} belong to different fits", kind="changed")
    if store is not None:
        request = request.model_copy(update={"store": str(store)})
    systems = open_inputs(request, device)
    mapping, units = _by_side(request.mapping, systems), _by_side(request.units, systems)
    sides = fit_sides(request.config, systems, mapping=mapping, units=units, device=device)
    differences = _differences(result.report.inputs, describe_inputs(sides, systems, mapping))
    if differences:
        raise Corrupt(f"{folder}: the inputs are not those that were fitted: {'; '.join(differences)}", kind="changed")
    sides = Twins().of(request.config, sides, folder)
    return FitResult(result.alignment, result.report, tuple(sides))


def oracles_by_side(result: FitResult, oracles: Mapping[str, System]) -> dict[str, System]:
    """Oracles by the names that a fit has for its systems; recordings may be called SET/RECORDING as well."""
    names = {side.recording.name: side.name for side in result.sides}
    return {names.get(name, name): oracle for name, oracle in oracles.items()}


def _by_side(keyed: Mapping[str, T] | None, systems: Sequence[System | Recording]) -> dict[str, T] | None:
    """The entries by the names of sides. A recording may also be called SET/RECORDING."""
    if keyed is None:
        return None
    names = dict(zip((system.name for system in systems), side_names(systems), strict=True))
    return {names.get(name, name): entry for name, entry in keyed.items()}


def _differences(fitted: Sequence[FitInput], current: Sequence[FitInput]) -> list[str]:
    if [each.name for each in fitted] != [each.name for each in current]:
        before, after = (", ".join(each.name for each in inputs) for inputs in (fitted, current))
        return [f"they were {before}, and are {after}"]
    differences = []
    for was, is_now in zip(fitted, current, strict=True):
        old, new = was.model_dump(mode="json"), is_now.model_dump(mode="json")
        differences += [f"{was.name!r}: {key} was {old[key]}, is {new[key]}" for key in old if old[key] != new[key]]
    return differences
