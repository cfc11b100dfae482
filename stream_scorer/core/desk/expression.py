"""Filter expressions of ``--where``, in the language of the library rule-engine (docs/desk.md).

The library has a grammar and types of its own; nothing is evaluated as Python. An unknown name and a comparison of two
types are errors before any record is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from rule_engine import (  # type: ignore[import-untyped]
    Context,
    DataType,
    EngineError,
    Rule,
    RuleSyntaxError,
    SymbolResolutionError,
    type_resolver_from_dict,
)
from rule_engine.ast import (  # type: ignore[import-untyped]
    ArithmeticComparisonExpression,
    ASTNodeBase,
    ComparisonExpression,
    ContainsExpression,
)
from rule_engine.errors import ArithmeticError as RuleArithmeticError  # type: ignore[import-untyped]
from rule_engine.errors import DatetimeSyntaxError, RegexSyntaxError, TimedeltaSyntaxError

from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT: Final = DataType.STRING
_NUMBER: Final = DataType.FLOAT
# Names of an expression about a rejected contact, with their types.
REJECTED_NAMES: Final[Mapping[str, Any]] = {
    "contact_id": _TEXT,
    "event_id": _TEXT,
    "campaign_id": _TEXT,
    "model_version": _TEXT,
    "occurred_at": DataType.DATETIME,
    "features": DataType.MAPPING,
    "attributes": DataType.MAPPING,
    "reason": _TEXT,
    "detail": _TEXT,
    "status": _NUMBER,
    "replays": _NUMBER,
    "rejected_at": DataType.DATETIME,
}
# The same for a score in review.
REVIEW_NAMES: Final[Mapping[str, Any]] = {
    "contact_id": _TEXT,
    "event_id": _TEXT,
    "campaign_id": _TEXT,
    "model_id": _TEXT,
    "model_version": _TEXT,
    "score": _NUMBER,
    "confidence_lower": _NUMBER,
    "confidence_upper": _NUMBER,
    "occurred_at": DataType.DATETIME,
    "scored_at": DataType.DATETIME,
    "attributes": DataType.MAPPING,
}
# Names of an expression about a rejected callback.
DELIVERY_NAMES: Final[Mapping[str, Any]] = {
    "callback_id": _TEXT,
    "campaign_id": _TEXT,
    "target": _TEXT,
    "contacts": _NUMBER,
    "attempts": _NUMBER,
    "reason": _TEXT,
    "detail": _TEXT,
    "status": _NUMBER,
}
_ITEM: Final = re.compile(r"\b(features|attributes)\s*\[\s*(['\"])(.*?)\2\s*\]")
_DOTTED: Final = re.compile(r"\b(features|attributes)\s*\.")
_LITERAL: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
# `'x' in campaign_id` without a campaign is a TypeError of the library, a power that is too large an ArithmeticError.
_NO_RESULT: Final = (EngineError, TypeError, ArithmeticError)
_TWO_TYPES: Final = "--where compares values of two types: put texts into quotation marks, and numbers not"
_TOO_DEEP: Final = "--where has too many parts: use `in` with a list, or several commands"


class _Node(Protocol):
    """Node of the library's syntax tree."""

    def evaluate(self, thing: Any) -> Any:
        """Return its value for a record."""


class _Comparison:
    """Comparison that is false where the record lacks a value.

    The library raises an error there, which would end the whole expression: `status >= 400 or reason == 'expired'`
    would select no record without a status.
    """

    def __init__(self, node: _Node) -> None:
        self._node = node
        # Of two values that are null the library finds neither the larger.
        self._ordered: _Node | None = node.left if isinstance(node, ArithmeticComparisonExpression) else None

    def evaluate(self, thing: Any) -> bool:
        try:
            if self._ordered is not None and self._ordered.evaluate(thing) is None:
                return False
            return bool(self._node.evaluate(thing))
        except _NO_RESULT:
            return False


class Expression:
    """Filter expression.

    Args:
        text: such as ``features["age"] > 70 and campaign_id == "spring"``. A value that a record lacks is null.
        names: the names that it may use, with their types.

    Raises:
        UsageError: it is no expression, uses an unknown name, or compares two types.
    """

    def __init__(self, text: str, names: Mapping[str, Any] = REJECTED_NAMES) -> None:
        context = Context(
            type_resolver=type_resolver_from_dict(dict(names)), default_value=None, default_timezone="utc"
        )
        self._names = names
        if not is_text(text):
            raise UsageError("--where: the expression is not valid Unicode")
        # The library would find that out only at the first record, and each record would then not match.
        if dotted := _DOTTED.search(_LITERAL.sub("''", text)):
            raise UsageError(f"--where: write {dotted[1]}['NAME'], without a dot")
        self._items: dict[str, list[str]] = {}
        for item in _ITEM.finditer(text):
            self._items.setdefault(item[1], []).append(item[3])
        try:
            self._rule = Rule(text, context=context)
            _replace_comparisons(self._rule.statement)
        except EngineError as error:
            raise UsageError(_mistake(error, names)) from None
        except RecursionError:
            raise UsageError(_TOO_DEEP) from None

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Return whether it is true for a record; False too if the record's values do not have the types it needs.

        Raises:
            UsageError: it is too deep to be evaluated.
        """
        try:
            return bool(self._rule.matches({name: self._with_nulls(name, values.get(name)) for name in self._names}))
        except _NO_RESULT:
            return False
        except RecursionError:
            raise UsageError(_TOO_DEEP) from None

    def _with_nulls(self, name: str, value: Any) -> Any:
        """Return a map with null for each item of the expression that it lacks: the library would raise an error."""
        items = self._items.get(name, ())
        if value is None and items:
            value = {}
        return {**dict.fromkeys(items), **value} if isinstance(value, dict) else value


def _mistake(error: EngineError, names: Mapping[str, Any]) -> str:
    """Return what is wrong with an expression that the library refuses."""
    match error:
        case SymbolResolutionError():
            return f"--where: there is no {quoted(str(error.symbol_name))}; use {', '.join(names)}"
        case RuleSyntaxError():
            place = "its end" if error.token is None else f"character {error.token.lexpos + 1}"
            return f'--where is no expression (at {place}): write it like reason == "wrong_type"'
        case RegexSyntaxError():
            return "--where: the text behind =~ or !~ is no regular expression"
        case DatetimeSyntaxError() | TimedeltaSyntaxError():
            return "--where: write a time like d'2030-01-31T06:00:00+00:00', and a duration like t'P1D'"
        case RuleArithmeticError():
            return "--where divides by zero, or its numbers are too large"
        case _:
            return _TWO_TYPES


def _replace_comparisons(node: Any) -> None:
    """Replace each comparison below a node by one that is false where the record lacks a value."""
    for name in _attributes(node):
        value = getattr(node, name, None)
        if isinstance(value, ASTNodeBase):
            setattr(node, name, _replaced(value))
        elif isinstance(value, tuple | list) and any(isinstance(one, ASTNodeBase) for one in value):
            setattr(node, name, type(value)(_replaced(one) for one in value))


def _replaced(node: Any) -> Any:
    if not isinstance(node, ASTNodeBase):
        return node
    if isinstance(node, ComparisonExpression) and not _is_comparable(node.left.result_type, node.right.result_type):
        raise UsageError(_TWO_TYPES)
    _replace_comparisons(node)
    return _Comparison(node) if isinstance(node, ComparisonExpression | ContainsExpression) else node


def _is_comparable(left: Any, right: Any) -> bool:
    """Return whether values of two types may be equal; the library finds out only whether one can be the larger."""
    return DataType.NULL in (left, right) or bool(DataType.is_compatible(left, right))


def _attributes(node: Any) -> set[str]:
    slots = (name for kind in type(node).__mro__ for name in getattr(kind, "__slots__", ()))
    return {*slots, *getattr(node, "__dict__", ())}
