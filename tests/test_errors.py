"""Kinds of errors form a closed list: every kind that is raised is explained, and every explained kind is raised."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuromas
from neuromas import errors
from neuromas.cli import error_page

ROOT = Path(neuromas.__file__).parent
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.NeuromasError)
}


def raised(source: str) -> Iterator[tuple[str, str | None]]:
    """(class, kind or None) of every error that is made in `source`; not of those that keep another error's kind."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in CLASSES:
            continue
        (kind,) = [keyword.value for keyword in node.keywords if keyword.arg == "kind"] or [None]
        if isinstance(kind, ast.Attribute) and ast.unparse(kind) == "error.kind":
            continue
        for choice in (kind.body, kind.orelse) if isinstance(kind, ast.IfExp) else (kind,):
            assert choice is None or isinstance(choice, ast.Constant), f"line {node.lineno}: a kind must be a literal"
            yield name, None if choice is None else str(choice.value)


def defined(source: str) -> Iterator[tuple[str, str, str | None]]:
    """(class, base, its own kind or None) of every class of errors that `source` derives from one of neuromas.errors."""
    for node in ast.walk(ast.parse(source)):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if name in CLASSES and node.name not in CLASSES:
                kinds = [ast.literal_eval(line.value) for line in node.body if ast.unparse(line).startswith("kind = ")]
                yield node.name, name, kinds[0] if kinds else None


SPEAKING = {"InvalidDocument", "NoMatch", "Corrupt", "ReadOnly", "StorageFailed"}
"""Classes whose own kind says enough. An error of another class names its kind."""
DERIVED = [
    (path.relative_to(ROOT).as_posix(), *described)
    for path in sorted(ROOT.rglob("*.py"))
    for described in defined(path.read_text(encoding="utf-8"))
]
EVERYWHERE = [
    (path.relative_to(ROOT).as_posix(), name, kind)
    for path in sorted(ROOT.rglob("*.py"))
    for name, kind in raised(path.read_text(encoding="utf-8"))
]


def test_the_collector_sees_kinds_and_errors_without_one():
    source = 'raise InvalidInput("a", kind="b")\nraise errors.NotFound("c")\nx.argsort(kind="stable")\n'
    assert list(raised(source)) == [("InvalidInput", "b"), ("NotFound", None)]
    with pytest.raises(AssertionError, match="must be a literal"):
        list(raised("raise InvalidInput('a', kind=b)"))
    source = (
        'class A(NeuromasError):\n    kind = "b"\nclass C(errors.NotFound):\n    pass\nclass D(dict):\n    kind = "e"\n'
    )
    assert list(defined(source)) == [("A", "NeuromasError", "b"), ("C", "NotFound", None)]


def test_an_error_names_its_kind_unless_its_class_says_enough():
    for path, name, kind in EVERYWHERE:
        assert kind is not None or name in SPEAKING, f"{path} raises {name} without a kind"


def test_a_derived_class_has_a_kind_that_is_explained():
    for path, name, base, kind in DERIVED:
        assert kind in errors.KINDS, f"{path}: {name} is of kind {kind!r}, which errors.KINDS does not explain"
        assert errors.KINDS[kind].error is CLASSES[base], f"{path}: {name} has kind {kind!r} of another class"


def test_every_kind_that_is_raised_is_explained_and_has_one_class():
    for path, name, kind in EVERYWHERE:
        known = CLASSES[name].kind if kind is None else kind
        assert known in errors.KINDS, f"{path} raises {name} of kind {known!r}, which errors.KINDS does not explain"
        assert errors.KINDS[known].error is CLASSES[name], f"{path} raises kind {known!r} as {name}"


def test_every_kind_that_is_explained_is_raised():
    used = {kind for _, _, kind in EVERYWHERE if kind is not None} | {error.kind for error in CLASSES.values()}
    assert set(errors.KINDS) == used | {kind for _, _, _, kind in DERIVED}


def test_a_meaning_is_one_plain_sentence():
    for name, kind in errors.KINDS.items():
        assert kind.meaning.endswith("."), name
        assert kind.meaning[0].isupper(), name
        assert len(kind.meaning) <= 110, name
    assert len({kind.meaning for kind in errors.KINDS.values()}) == len(errors.KINDS)


def test_the_page_is_current():
    page = ROOT.parent / "docs" / "errors.md"
    assert page.read_text(encoding="utf-8") == error_page.errors_page(), f"run {error_page.COMMAND}"


def test_the_page_has_every_kind_and_exit_code():
    page = error_page.errors_page()
    for name in errors.KINDS:
        assert f"| `{name}` |" in page
    for error in CLASSES.values():
        assert f"| {error.exit_code} |" in page
