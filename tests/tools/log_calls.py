"""Log events in the source: their text, level, place and fields, read from the syntax of the calls.

Texts, levels and fields may be chosen by a condition, a local variable or a function of the same module.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LEVELS: Final = ("debug", "info", "warning", "error")
_LOGGER: Final = re.compile(r"log$|structlog\.get_logger\(")
_LOGS: Final = re.compile(rf"(log|logger|\))\.({'|'.join(LEVELS)})\(")


@dataclass(frozen=True)
class LogCall:
    """One event of one call; a call whose event is chosen by a condition is several."""

    event: str
    levels: tuple[str, ...]
    module: str
    fields: tuple[str, ...]


def log_calls(package: Path) -> Iterator[LogCall]:
    """All calls of structlog's loggers; lines with ``%s`` are those of the standard library's."""
    methods = functions_of(package)
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package).with_suffix("").parts)
        source = file.read_text(encoding="utf-8")
        if not _LOGS.search(source):
            continue
        tree = ast.parse(source)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                scope = Scope(tree, function, methods)
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
                for call in calls:
                    if (levels := scope.levels(call.func)) and not isinstance(call.args[0], ast.Starred):
                        fields = tuple(name for keyword in call.keywords for name in scope.fields(keyword))
                        for event in scope.texts(call.args[0]):
                            if "%" not in event:
                                yield LogCall(event, levels, module, fields)


def functions_of(package: Path) -> dict[str, list[ast.FunctionDef]]:
    """All functions and methods of a package, by name."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(node)
    return found


class Scope:
    """A function and its module, where the values of names are looked up; ``methods``: of all classes, by name."""

    def __init__(
        self, module: ast.Module, function: ast.FunctionDef, methods: Mapping[str, Sequence[ast.FunctionDef]]
    ) -> None:
        self._methods = methods
        self._functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
        self._values: dict[str, ast.expr] = {}
        for root in (module, function):
            for node in ast.walk(root):
                if isinstance(node, ast.Assign) and len(node.targets) == 1:
                    self._values[ast.unparse(node.targets[0])] = node.value

    def levels(self, called: ast.expr) -> tuple[str, ...]:
        """The levels that a called expression may stand for; empty: it is no log method."""
        match called:
            case ast.Attribute(value=value, attr=attr) if attr in LEVELS and _LOGGER.search(ast.unparse(value)):
                return (attr,)
            case ast.Name(id=name) if name in self._values:
                return self.levels(self._values[name])
            case ast.IfExp(body=body, orelse=other):
                return (*self.levels(body), *self.levels(other))
        return ()

    def texts(self, node: ast.expr) -> list[str]:
        """The texts that an expression may have."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.IfExp(body=body, orelse=other):
                return [*self.texts(body), *self.texts(other)]
            case ast.Name(id=name):
                return self.texts(self._values[name])
            case ast.FormattedValue(value=value):
                return self.texts(value)
            case ast.JoinedStr(values=values):
                return ["".join(parts) for parts in product(*map(self.texts, values))]
            case ast.Call(func=ast.Name(id=name)):
                return [text for value in self._returned(name) for text in self.texts(value)]
        raise ValueError(f"line {node.lineno}: what text is {ast.unparse(node)}?")

    def fields(self, keyword: ast.keyword) -> list[str]:
        """The names of a keyword argument, or of the mapping behind ``**``."""
        return [keyword.arg] if keyword.arg is not None else self._keys(keyword.value)

    def _keys(self, node: ast.expr) -> list[str]:
        match node:
            case ast.Dict(keys=keys, values=values):
                named = zip(keys, values, strict=True)
                return [one for key, value in named for one in (self._keys(value) if key is None else self.texts(key))]
            case ast.IfExp(body=body, orelse=other):
                return [*self._keys(body), *self._keys(other)]
            case ast.Name() | ast.Attribute() if (text := ast.unparse(node)) in self._values:
                return self._keys(self._values[text])
            case ast.Attribute(attr=name):
                return [key for value in self._returned(name) for key in self._keys(value)]
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                # Each subclass may have its own.
                found = [value for method in self._methods[name] for value in _values_of(method)]
                return list(dict.fromkeys(key for value in found for key in self._keys(value)))
        raise ValueError(f"line {node.lineno}: what fields has {ast.unparse(node)}?")

    def _returned(self, name: str) -> list[ast.expr]:
        return _values_of(self._functions[name])


def _values_of(function: ast.FunctionDef) -> list[ast.expr]:
    nodes = ast.walk(function)
    return [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]
