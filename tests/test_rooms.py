"""Rooms stay small: how long modules and functions may be, and how often a function may branch.

The exceptions stand here with their reasons. The list can only shrink: an exception that is no longer needed, or larger than
it needs to be, fails too.
"""

from __future__ import annotations

import ast
from pathlib import Path

import neuromas

ROOT = Path(neuromas.__file__).parent
MODULE_LINES, FUNCTION_LINES, BRANCHES = 600, 60, 25

LONG_MODULES = {
    "systems/recurrent.py": (680, "a kernel: forward and backward passes by hand, one trade"),
}
"""Module → lines that it may have, and why."""
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}
"""Module:function → lines of code that it may have, and why."""
BRANCHING_FUNCTIONS: dict[str, tuple[int, str]] = {}
"""Module:function → branches that it may have, and why."""

_BRANCHES = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert),
    *(ast.comprehension, ast.match_case),
)


def branches(function: ast.AST) -> int:
    """Places where a function may go two ways; of ``a and b and c``, two."""
    nodes = list(ast.walk(function))
    operators = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return operators + sum(isinstance(node, _BRANCHES) for node in nodes)


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def measured() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """What exceeds the limits: lines of modules, lines of functions, branches of functions."""
    modules: dict[str, int] = {}
    lengths: dict[str, int] = {}
    ways: dict[str, int] = {}
    for path in sorted(ROOT.rglob("*.py")):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        if text.count("\n") > MODULE_LINES:
            modules[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if lines_of_code(node) > FUNCTION_LINES:
                    lengths[f"{name}:{node.name}"] = lines_of_code(node)
                if branches(node) > BRANCHES:
                    ways[f"{name}:{node.name}"] = branches(node)
    return modules, lengths, ways


def check(exceeding: dict[str, int], exceptions: dict[str, tuple[int, str]], slack: int) -> None:
    """Everything that exceeds a limit is an exception, and every exception is needed, and no larger than needed."""
    for name, size in exceeding.items():
        assert name in exceptions, f"{name} has {size}: split it"
        assert size <= exceptions[name][0], f"{name} has grown to {size}, from {exceptions[name][0]}"
    for name, (size, reason) in exceptions.items():
        assert name in exceeding, f"{name} is small now: take it off the list"
        assert size - exceeding[name] <= slack, f"{name} has shrunk to {exceeding[name]}: lower its entry"
        assert reason


def test_modules_are_no_longer_than_they_may_be():
    check(measured()[0], LONG_MODULES, slack=20)


def test_functions_are_no_longer_than_they_may_be():
    check(measured()[1], LONG_FUNCTIONS, slack=5)


def test_functions_do_not_branch_more_than_they_may():
    check(measured()[2], BRANCHING_FUNCTIONS, slack=2)


def test_the_measure_counts_what_it_says():
    function = ast.parse(
        'def f(a, b):\n    """Doc."""\n    if a and b or not a:\n        return [x for x in b if x]\n    return 1 if a else 2\n'
    ).body[0]
    assert isinstance(function, ast.FunctionDef)
    # the if with its two operators, the comprehension, the conditional expression
    assert branches(function) == 5
    assert lines_of_code(function) == 3
