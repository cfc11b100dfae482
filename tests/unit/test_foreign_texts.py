"""The text of a foreign exception is no part of a log or an error: it may quote URLs, headers and passwords."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stream_scorer

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(stream_scorer.__file__).parent
# Permitted parts of a foreign exception: the operating system's message, a number, a class, a position.
HARMLESS = {"strerror", "errno", "filename", "lineno", "colno", "pos", "code", "http_status_code", "error_code", "name"}
HARMLESS |= {"symbol_name"}  # the user's own word
# Functions that translate a foreign exception.
TRANSLATORS = {
    "_reason",
    "one_line",
    "validation_message",
    "parse_error_place",
    "registry_error_text",
    "translate",
    "unexpected_line",
}


@cache  # not at import: every process of a test run imports this module
def own_exceptions() -> frozenset[str]:
    """Return the names of all classes of the package, whose messages are our own texts."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.rglob("*.py"))
    return frozenset(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def caught(handler: ast.ExceptHandler) -> list[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return [ast.unparse(kind).rpartition(".")[2] for kind in kinds if kind is not None]


def quotes(handler: ast.ExceptHandler) -> Iterator[int]:
    """Return the lines that convert the exception to text."""
    for node in ast.walk(ast.Module(handler.body, [])):
        if isinstance(node, ast.FormattedValue) and mentions(node.value, handler.name):
            yield node.lineno
        is_text = isinstance(node, ast.Call) and ast.unparse(node.func) in {"str", "repr", "format"}
        if is_text and any(mentions(argument, handler.name) for argument in node.args):
            yield node.lineno


def mentions(node: ast.expr, name: str | None) -> bool:
    """Return whether an expression is the exception and not only a permitted part of it."""
    if isinstance(node, ast.Name):
        return node.id == name
    if isinstance(node, ast.Attribute):
        return node.attr not in HARMLESS and mentions(node.value, name)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"type", "isinstance", "getattr", *TRANSLATORS}:
        return False
    return any(isinstance(child, ast.expr) and mentions(child, name) for child in ast.iter_child_nodes(node))


def offenders(source: str, module: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.name is not None and not set(caught(node)) <= own_exceptions():
            found += [f"{module}:{line}" for line in dict.fromkeys(quotes(node))]
    return found


def test_no_offender_is_overlooked() -> None:
    source = """
try: pass
except (OSError, ValueError) as error: raise SettingsError(f"{path}: {error.strerror or error}")
except KafkaException as error: said = str(error)
except OSError as error: said = f"{error.strerror} {type(error).__name__}"
except SettingsError as error: said = str(error)
except tomllib.TOMLDecodeError as e: log.error("x", detail=f"{e!r}")
"""
    assert offenders(source, "m") == ["m:3", "m:4", "m:7"]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_no_exception_of_a_library_is_quoted(path: Path) -> None:
    module = path.relative_to(FOLDER).with_suffix("").as_posix()
    found = offenders(path.read_text(encoding="utf-8"), module)
    assert not found, found
