"""Ban list of the house style, over names, docstrings, comments, texts of the command line, pages, and the other files.

Exempt are the released schemas, which never change, and this file, which contains the words.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stream_scorer

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(stream_scorer.__file__).parent
ROOT = PACKAGE.parent
BANNED = re.compile(
    r"\b(tells?|told|asked about|nobody|somebody|whoever|what becomes of|let in|for ever|anew|comes? of|says)\b",
    re.IGNORECASE,
)
# The field's own nouns. All other modules are named after a thing, not after what they are doing.
NOUNS = {"wiring", "scoring", "tracing", "logging"}
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHER_FOLDERS = (".ci", "benchmarks", "deploy", "examples", "requirements", "schemas", "tests")
EXEMPT = {ROOT / "tests" / "unit" / "test_prose.py", *(ROOT / "schemas" / "released").rglob("*")}


def other_files() -> list[Path]:
    """Return the files outside of the package and the pages: those of the root folder and of `OTHER_FOLDERS`."""
    top = [path for pattern in ("*file", "*.md", "*.toml", "*.yml", ".env.example") for path in ROOT.glob(pattern)]
    below = [path for folder in OTHER_FOLDERS for path in (ROOT / folder).rglob("*")]
    files = {path for path in [*top, *below] if path.is_file() and "__pycache__" not in path.parts}
    return sorted(files - EXEMPT - set(PAGES))


OTHER_FILES = other_files()


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string != "tell":  # `IO.tell`, the position in a file
            yield token.start[0], token.string.replace("_", " ")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def found(parts: Iterator[tuple[int, str]]) -> list[str]:
    return [f"line {line}: {match[0]!r}" for line, text in parts for match in BANNED.finditer(text)]


def test_the_list_sees_a_planted_word() -> None:
    source = '"""A worker that nobody told."""\n# It comes of this.\ndef _told() -> None: ...\n'
    assert found(docstrings(ast.parse(source))) == ["line 1: 'nobody'", "line 1: 'told'"]
    assert found(comments(source)) == ["line 2: 'comes of'"]
    assert found(names(source)) == ["line 3: 'told'"]


def parts_of_code(path: Path) -> list[tuple[int, str]]:
    source = path.read_text()
    tree = ast.parse(source)
    # Of all strings, not of the command line's alone: errors and log events are texts for operators, too.
    return [*docstrings(tree), *comments(source), *texts(tree), *names(source)]


def lines_of_text(path: Path) -> list[tuple[int, str]]:
    return list(enumerate(path.read_text(errors="replace").splitlines(), 1))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_code_is_in_plain_terms(path: Path) -> None:
    assert found(iter(parts_of_code(path))) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_in_plain_terms(path: Path) -> None:
    assert found(iter(lines_of_text(path))) == []


def test_tests_and_deployment_are_in_plain_terms() -> None:
    """One test for all of them: a test for each file would be a fifth of the unit tests."""
    by_file = {
        path.relative_to(ROOT).as_posix(): found(
            iter(parts_of_code(path) if path.suffix == ".py" else lines_of_text(path))
        )
        for path in OTHER_FILES
    }
    assert {name: words for name, words in by_file.items() if words} == {}
    assert len(by_file) > 300, "the folders of the repository were not found"


def test_no_module_is_a_gerund() -> None:
    parts = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert {part for part in parts if part.endswith("ing")} <= NOUNS
