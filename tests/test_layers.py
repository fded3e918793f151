"""A package imports only from packages above it; inside one, modules import left to right."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import neuromas

ROOT = Path(neuromas.__file__).parent

PACKAGES = (
    "foundation",
    "recordings",
    "index",
    "causal",
    "systems",
    "twins",
    "align",
    "measures",
    "evaluation",
    "fit",
    "report",
    "actions",
    "experiments",
    "bench",
    "cli",
)
"""From the bottom up. A package that does not exist yet keeps its place."""

FOUNDATION = (
    *("errors", "seeds", "unpacking", "child", "child_server", "dims", "text", "patterns", "html", "files"),
    *("weights", "scratch", "interrupts", "progress", "provenance"),
    "schema",
)

MODULES = {
    "foundation": FOUNDATION,
    "recordings": (
        "trust",
        "outside",
        "incoming",
        "clock",
        "matrices",
        "expression_size",
        "expression",
        "grouping",
        "check",
        "columns",
        "zarr_chunks",
        "unpacked",
        "encode",
        "isolation",
        "meanings",
        "relabel",
        "meeting",
        "codes",
        "reading",
        "content",
        "incomplete",
        "assemble",
        "looks",
        "recording",
        "spool",
        "store",
        "export",
        "split",
        "units",
        "annotate",
        "shuffle",
        "rebin",
        "poolable",
        "join",
        "pseudo",
        "convert",
    ),
    "recordings.store": ("layout", "medium", "published", "index", "arrays", "verify", "commit", "store", "locate"),
    "index": ("query", "combinations", "choose", "members", "index"),
    "causal": ("model", "counting", "in_context", "arithmetic", "counterfactual", "balanced"),
    "systems": (
        "system",
        "hooks",
        "untrained",
        "inputs",
        "numbering",
        "torch_module",
        "recurrent",
        "transformer",
        "words",
        "huggingface",
        "pretrained",
        "updates",
        "language_model",
        "training",
        "padding",
        "batches",
        "competence",
        "capture",
    ),
    "twins": ("data", "kinds", "training", "system", "quality", "twin"),
    "align": ("rotation", "interchange", "closed_form", "alignment", "oracle", "side", "prepare", "pairs", "controls"),
    "measures": ("check", "rsa", "cka", "registry", "samples", "comparison", "condition_rdms", "rdms"),
    "evaluation": (
        "intervals",
        "outcomes",
        "inference",
        "shares",
        "probe",
        "divergence",
        "networks",
        "repeats",
        "ruler",
        "accuracy",
        "paired",
        "validity",
        "ranks",
        "after",
        "stimulation",
    ),
    "fit": (
        "objective",
        "table",
        "plan",
        "replay",
        "progress",
        "folder",
        "loop",
        "terms",
        "remarks",
        "prepare",
        "start",
        "stand_ins",
        "battery",
        "locate",
        "result",
        "together",
        "fitters",
        "request",
    ),
    "report": ("figures", "panels", "ranks", "locate", "page"),
    "actions": (
        "outputs",
        "stores",
        "register",
        "annotate",
        "pool",
        "join",
        "query",
        "export",
        "train",
        "capture",
        "twin",
        "fit",
        "validate",
        "ranks",
        "locate",
        "evaluate",
        "compare",
        "plan",
    ),
    "experiments": (
        "demo",
        "attempts",
        "jobs",
        "recorded",
        "training_jobs",
        "measure_jobs",
        "groups",
        "work",
        "cluster",
        "sweep",
        "table",
        "figure",
        "figures",
        "reproduce",
    ),
    "cli": (
        "terminal",
        "options",
        "verbs",
        "recordings",
        "systems",
        "validity",
        "alignment",
        "experiments",
        "reference",
        "error_page",
    ),
    "bench": ("measure", "peers", "fit", "index", "store", "growth", "schedule", "twins"),
}
"""Order inside packages and, by dotted name, subpackages; importer to the right of the imported."""

SOURCES = sorted(path for path in ROOT.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
SCHEMA = (
    "document",
    "signature",
    "recording",
    "recipe",
    "system",
    "twin",
    "fit",
    "validity",
    "ranks",
    "locate",
    "evaluation",
    "sweep",
    "export",
)


def place(module: str) -> tuple[str, str]:
    """(package, module in it) of a dotted name below neuromas."""
    parts = module.split(".")[1:]
    if not parts:
        return "facade", ""
    if parts[0] in FOUNDATION:
        return "foundation", parts[0]
    return parts[0], parts[1] if len(parts) > 1 else ""


def name_in(package: str, module: str) -> str:
    """The name directly in `package` that a dotted name leads to; empty if it leads elsewhere."""
    prefix = f"neuromas.{package}."
    return module.removeprefix(prefix).split(".")[0] if module.startswith(prefix) else ""


def dotted(path: Path) -> str:
    return ".".join(("neuromas", *path.relative_to(ROOT).with_suffix("").parts))


def imports_of(path: Path) -> set[str]:
    """Dotted names below neuromas that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            base = node.module or ""
            for alias in node.names:
                below = ROOT.parent.joinpath(*base.split("."), alias.name)
                is_module = below.with_suffix(".py").exists() or below.is_dir()
                found.add(f"{base}.{alias.name}" if is_module else base)
    return {name for name in found if name.split(".")[0] == "neuromas"}


@pytest.mark.parametrize("path", SOURCES, ids=dotted)
def test_imports_flow_down(path):
    package, module = place(dotted(path))
    assert package in PACKAGES, f"{package} has no place in the layers"
    for imported in imports_of(path):
        below, other = place(imported)
        assert below != "facade", f"{path} imports from the lazy facade neuromas/__init__.py"
        assert PACKAGES.index(below) <= PACKAGES.index(package), f"{package} imports {imported}, which lies above it"
        order = MODULES.get(package, ())
        if below == package and other and module in order and other in order:
            # equal: two modules of one subpackage
            assert order.index(other) <= order.index(module), f"{package}: {module} imports {other}"
        for inner, names in MODULES.items():
            ours, theirs = name_in(inner, dotted(path)), name_in(inner, imported)
            if "." in inner and ours in names and theirs in names:
                assert names.index(theirs) <= names.index(ours), f"{inner}: {ours} imports {theirs}"


@pytest.mark.parametrize("package", ["recordings", "index"])
def test_who_holds_a_recording_holds_nothing_that_runs(package):
    for path in (ROOT / package).rglob("*.py"):
        reached = {place(name)[0] for name in imports_of(path)}
        assert not reached & {"systems", "align", "fit", "evaluation"}, path


def test_every_module_of_an_ordered_package_has_a_place():
    for package, order in MODULES.items():
        if package == "foundation":
            continue
        for path in ROOT.joinpath(*package.split(".")).glob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                assert path.stem in order, f"{path.relative_to(ROOT.parent)} has no place in the order of its package"


def test_top_level_modules_are_foundation():
    known = {*FOUNDATION, "__init__", "__main__"}
    assert {path.stem for path in ROOT.glob("*.py")} <= known
