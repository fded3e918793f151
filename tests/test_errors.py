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


def test_every_kind_that_is_raised_is_explained_and_has_one_class():
    for path, name, kind in EVERYWHERE:
        known = CLASSES[name].kind if kind is None else kind
        assert known in errors.KINDS, f"{path} raises {name} of kind {known!r}, which errors.KINDS does not explain"
        assert errors.KINDS[known].error is CLASSES[name], f"{path} raises kind {known!r} as {name}"


def test_every_kind_that_is_explained_is_raised():
    used = {kind for _, _, kind in EVERYWHERE if kind is not None} | {error.kind for error in CLASSES.values()}
    assert set(errors.KINDS) == used


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
