"""The public names: one list, which exists, which the docstring shows in its groups, and which completion offers."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import neuromas
from neuromas import errors

STUB = Path(neuromas.__file__).with_suffix(".pyi").read_text(encoding="utf-8")


def groups_of_the_stub() -> dict[str, set[str]]:
    """Names below each comment of the stub."""
    groups: dict[str, set[str]] = {}
    for line in STUB.splitlines()[2:]:
        if line.startswith("# "):
            names = groups.setdefault(line.removeprefix("# "), set())
        elif found := re.fullmatch(r"from \.[\w.]+ import (\w+) as (\w+)", line):
            assert found[1] == found[2]
            names.add(found[1])
        else:
            assert line in ("", "__version__: str"), line
    return groups


def groups_of_the_docstring() -> dict[str, set[str]]:
    """Names below each heading of the package's docstring."""
    groups: dict[str, set[str]] = {}
    for block in re.findall(r"^(\w[\w ]+)\n((?:    .*\n)+)", inspect.getdoc(neuromas) or "", re.MULTILINE):
        groups[block[0]] = set(re.findall(r"\w+", block[1]))
    return groups


def test_the_docstring_shows_the_list_in_its_groups():
    assert groups_of_the_docstring() == groups_of_the_stub()


@pytest.mark.parametrize("name", neuromas.__all__)
def test_every_public_name_exists_and_is_explained(name):
    value = getattr(neuromas, name)
    assert name == "ANY" or inspect.getdoc(value), name


def test_completion_shows_public_names_only():
    assert set(dir(neuromas)) == set(neuromas.__all__) == set().union(*groups_of_the_stub().values())


def test_every_error_is_public():
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.NeuromasError)
    }
    assert classes <= set(neuromas.__all__)


def test_a_function_is_no_module_whatever_was_imported_before():
    import neuromas.evaluation.accuracy

    assert callable(neuromas.evaluate)
    assert neuromas.evaluate is neuromas.evaluation.accuracy.evaluate


def test_the_version_is_that_of_the_package():
    assert neuromas.__version__ == importlib.metadata.version("neuromas")
    with pytest.raises(AttributeError, match="no_such_name"):
        neuromas.no_such_name  # noqa: B018


def test_there_are_about_forty_names():
    assert len(neuromas.__all__) <= 45


def test_a_name_that_moved_says_where_it_is():
    import neuromas.evaluation.stimulation

    with pytest.raises(AttributeError, match=r"from neuromas\.evaluation\.stimulation import save_plan"):
        neuromas.save_plan  # noqa: B018
    for name, module in neuromas._ELSEWHERE.items():
        assert hasattr(importlib.import_module(module), name), name


def test_importing_is_quick():
    code = (
        "import sys, neuromas; print([name for name in ('numpy', 'torch', 'xarray', 'pandas') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
