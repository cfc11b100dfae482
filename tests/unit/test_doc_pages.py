"""``stream-scorer docs``, and the pages that errors name by it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import stream_scorer
from stream_scorer.cli import main
from stream_scorer.doc_pages import docs_command, page_text, page_titles
from stream_scorer.errors import UsageError

PACKAGE = Path(stream_scorer.__file__).parent
DOCS = PACKAGE.parent / "docs"
TREES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def test_the_pages_are_those_of_the_folder_with_their_titles() -> None:
    titles = page_titles()
    assert set(titles) == {str(path.relative_to(DOCS)).removesuffix(".md") for path in DOCS.rglob("*.md")}
    assert titles["operations"] == "Operations"
    assert all(titles.values())


def test_a_section_ends_before_the_next_heading_of_its_level_and_code_has_no_headings() -> None:
    text = page_text("operations#offsets-gone")
    assert text.startswith("## Offsets gone\n")
    assert re.findall(r"^## .*", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE) == ["## Offsets gone"]
    assert text in page_text("operations") == (DOCS / "operations.md").read_text()
    assert page_text("docs/operations.md") == page_text("operations")
    assert page_text("internals/trials") == (DOCS / "internals" / "trials.md").read_text()


@pytest.mark.parametrize(
    ("reference", "listed"), [("nope", "operations"), ("../README", "operations"), ("operations#nope", "offsets-gone")]
)
def test_an_unknown_page_is_one_line_with_the_known_ones(reference: str, listed: str) -> None:
    with pytest.raises(UsageError, match=listed):
        page_text(reference)


def test_the_command_lists_pages_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs"]) == 0
    assert re.search(r"^operations +Operations$", capsys.readouterr().out, re.MULTILINE)
    assert main(["docs", "operations#when-it-stops"]) == 0
    assert capsys.readouterr().out == page_text("operations#when-it-stops")
    assert main(["docs", "none"]) == 2


def test_the_pages_that_errors_name_exist() -> None:
    calls = [
        tuple(ast.literal_eval(argument) for argument in node.args)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "docs_command"
    ]
    assert ("operations", "offsets-gone") in calls
    for call in calls:
        command = docs_command(*call)
        assert page_text(command.strip("`").removeprefix("stream-scorer docs "))


def test_no_text_names_a_path_in_the_repository() -> None:
    """The repository is not in the image; docstrings are exempt."""
    for path, tree in TREES.items():
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                assert not re.search(r"\bdocs/[\w/-]+\.md", node.value), f"{path.name}: {node.value}"
