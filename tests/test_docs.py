"""Everything shown runs: the ``python`` and ``bash`` blocks of README.md and docs/*.md, and every relative link leads somewhere.

Blocks of one page run in order, in one temporary folder; its ``python`` blocks share a namespace. A ``bash`` block finds the
``neuromas`` of this interpreter. Left out is a block that comes right after ``<!-- typed by .ci/run -->``, for ``.ci/run``
types it. Output is shown in blocks called ``console`` or ``text``, which nobody runs.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if path.is_file())
LINKED = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recordings/*.md")})

TYPED_BY_CI = "<!-- typed by .ci/run -->"
LANGUAGES = {"python", "bash", "console", "text", "json", "yaml", "toml", "csv", "mermaid", ""}
"""What a block may be called: one that should run must not go unnoticed for being called ``py`` or ``sh``."""
TIME_LIMIT_S = 300


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line of code, counted from 1."""
    language: str
    code: str
    typed_by_ci: bool

    @property
    def where(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks_of(page: Path) -> list[Block]:
    """Fenced blocks of a page, in order."""
    found: list[Block] = []
    fence, indent, language, begun, code, before = "", "", "", 0, [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not fence:
            opened = re.match(r"(\s*)(`{3,}|~{3,})\s*([^\s`{]*)", line)
            if opened:
                indent, fence, language = opened.groups()
                begun, code = number + 1, []
            elif text:
                before = text
        elif text == fence:
            found.append(Block(page, begun, language, "\n".join(code) + "\n", before == TYPED_BY_CI))
            fence = before = ""
        else:
            code.append(line.removeprefix(indent))
    assert not fence, f"{name(page)}:{begun}: the block that begins here does not end"
    return found


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    if block.code.lstrip().startswith(">>> "):
        parsed = doctest.DocTestParser().get_doctest(
            block.code, namespace, block.where, str(block.page), block.line - 1
        )
        runner, told = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE), []
        if runner.run(parsed, out=told.append, clear_globs=False).failed:
            pytest.fail(f"{block.where}: this python block does not give what it shows\n{''.join(told)}", pytrace=False)
        namespace |= parsed.globs
        return
    try:
        # as many empty lines as there are above it, so that a traceback tells the page's own line
        exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), namespace)
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(block.page)
        ]
        if isinstance(error, SyntaxError):
            lines.append(error.lineno)
        place = f"{name(block.page)}:{lines[-1] if lines else block.line}"
        pytest.fail(f"{place}: python block failed\n{traceback.format_exc()}", pytrace=False)


def run_bash(block: Block, folder: Path, script: Path) -> None:
    # the trap stands in for the lines above the block, so that it tells the page's own line
    trap = f"trap 'echo {name(block.page)}:$LINENO: exit status $? >&2' ERR"
    script.write_text(trap + "\n" * (block.line - 1) + block.code, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "NEUROMAS_STORE"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    try:
        done = subprocess.run(
            ["bash", "-Eeuo", "pipefail", str(script)],
            cwd=folder,
            env=environment | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"{block.where}: bash block takes longer than {TIME_LIMIT_S} s", pytrace=False)
    if done.returncode:
        pytest.fail(f"{block.where}: bash block ends with exit status {done.returncode}\n{done.stdout}", pytrace=False)


def run_page(page: Path, folder: Path) -> None:
    """Run the blocks of `page` in `folder`; scripts go beside it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.typed_by_ci:
            continue
        if block.language == "python":
            run_python(block, namespace)
        elif block.language == "bash":
            run_bash(block, folder, folder.parent / "block.bash")


def slug(heading: str) -> str:
    """The anchor that a heading gets on the web."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def prose_of(page: Path) -> list[tuple[int, str]]:
    """(line number, line) outside fenced blocks."""
    inside = {
        number for block in blocks_of(page) for number in range(block.line - 1, block.line + block.code.count("\n") + 1)
    }
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    return [(number, line) for number, line in lines if number not in inside]


def broken_links(page: Path) -> list[str]:
    """``page:line: what is wrong`` for every link to a file or heading that does not exist."""
    problems = []
    for number, line in prose_of(page):
        text = re.sub(r"`[^`]*`", "``", line)
        targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text) + re.findall(
            r"(?:src|href)=\"([^\"]+)\"", text
        )
        for target in targets:
            if re.match(r"[a-z][a-z0-9+.-]*:", target):  # another site
                continue
            file, _, anchor = target.partition("#")
            path = (page.parent / file) if file else page
            if not path.exists():
                problems.append(f"{name(page)}:{number}: {target} leads to no file")
            elif anchor and path.suffix == ".md":
                headings = {slug(text.lstrip("#")) for _, text in prose_of(path) if re.match(r"#{1,6} ", text)}
                if anchor not in headings:
                    problems.append(f"{name(page)}:{number}: {target} leads to no heading of {name(path)}")
    return problems


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_run(page, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NEUROMAS_STORE", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run_page(page, folder)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_say_what_they_are(page):
    strange = [f"{block.where}: {block.language}" for block in blocks_of(page) if block.language not in LANGUAGES]
    assert not strange, f"expected one of {', '.join(sorted(LANGUAGES))}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_left_to_ci_is_typed_there(page):
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        return  # not part of this copy
    typed = script.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.typed_by_ci:
            for line in filter(None, map(str.strip, block.code.splitlines())):
                assert line in typed, f"{block.where}: .ci/run does not type {line!r}"


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_somewhere(page):
    assert not broken_links(page)


# ---------------------------------------------------------------------------------------------------- this file's own ways


def page_with(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    (folder / "here").mkdir()
    return page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one\n\n```python\nx = 1\nx / 0\n```\n", "page.md:5: python block failed"),
        ("```python\nx = 1\n```\n\n```python\nassert x == 2, x\n```\n", "page.md:6: python block failed"),
        ("```python\nx = = 1\n```\n", "page.md:2: python block failed"),
        ("```python\n>>> 1 + 1\n3\n```\n", "page.md:2: this python block does not give what it shows"),
        ("a\n\n```bash\ntrue\nfalse\ntrue\n```\n", "page.md:5: exit status 1"),
        ("```bash\nfalse | true\n```\n", "page.md:2: bash block ends"),
        ("```bash\nneuromas show no/such 2>/dev/null\n```\n", "page.md:2: exit status 3"),
    ],
)
def test_a_block_that_fails_tells_page_and_line(tmp_path, text, told):
    with pytest.raises(pytest.fail.Exception) as failure:
        run_page(page_with(tmp_path, text), tmp_path / "here")
    assert told in str(failure.value)


def test_what_runs_and_what_does_not(tmp_path, monkeypatch):
    text = (
        "```python\nx = 2\n```\n```console\n$ false\n```\n1. item\n\n   ```python\n   assert x == 2\n   ```\n"
        f"{TYPED_BY_CI}\n```bash\nfalse\n```\n```bash\necho there > file\n```\n"
        "```python\n>>> open('file').read()\n'there\\n'\n>>> y = x\n```\n```python\nassert y == 2\n```\n"
    )
    page = page_with(tmp_path, text)
    monkeypatch.chdir(tmp_path / "here")
    run_page(page, tmp_path / "here")
    assert [block.typed_by_ci for block in blocks_of(page)] == [False, False, False, True, False, False, False]


def test_links_that_lead_nowhere_are_told(tmp_path):
    text = (
        "# What *it* `does`, and why\n\n[a](page.md#what-it-does-and-why) [b](https://example.org/x) `[c](nowhere)`\n"
        '[d](missing.md) [e](#no-such)\n```text\n[f](nowhere)\n```\n<img src="missing.png">\n'
    )
    assert broken_links(page_with(tmp_path, text)) == [
        "page.md:4: missing.md leads to no file",
        "page.md:4: #no-such leads to no heading of page.md",
        "page.md:8: missing.png leads to no file",
    ]
