"""Logical types of foreign writers: conversion of their values if the reader's field has no such type.

Avro resolves a schema by its bare types. The bytes of a ``decimal`` would be read as text, and a ``date`` as a number
of another unit. Here a value is converted by its logical type, or the record is rejected with the field and both types.
Text stays text with any logical type. A ``decimal`` becomes its number, or the digits of an integer in a text field.
All other logical types have no counterpart among the reader's fields.

`decodable_form` marks these positions in the writer's schema, and fastavro calls `LOGICAL_READERS` for each marked
value. So a union may have such a branch: only the values of that branch are rejected.
"""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.avro.schema_form import PRIMITIVES, describe, kind_of, logical_type, named_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # The value by its bare type, the writer's type, the reader's.
    LogicalReader = Callable[[Any, Any, Any], Any]

_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONG: Final = range(-(2**63), 2**63)
# 77 digits: more than any database has, and few enough for cheap arithmetic.
_MAX_DECIMAL_BYTES: Final = 32
# The notation of a position inside an array or map.
_INSIDE: Final = (("items", "[]"), ("values", "{}"))


class ForeignMeaningError(ValueError):
    """A value whose logical type the reader's field does not have; the message names the field and both types."""


class Meaning(StrEnum):
    """How a value with a logical type is decoded. The values are private logical types, those of `LOGICAL_READERS`."""

    SAME = "stream-scorer-same"
    NUMBER = "stream-scorer-number"
    DIGITS = "stream-scorer-digits"
    FOREIGN = "stream-scorer-foreign"


def meaning(reader: Any, writer: Any) -> Meaning:
    """Return how the values of a writer's type are decoded.

    Args:
        reader: the reader's type in normal form; a union as a whole.
        writer: the writer's type in normal form, no union.
    """
    written = logical_type(writer)
    readers = reader if isinstance(reader, list) else [reader]
    if not written or kind_of(writer) == "string" or any(logical_type(one) == written for one in readers):
        return Meaning.SAME
    if written != "decimal" or kind_of(writer) != "bytes" or writer["scale"] is None:
        return Meaning.FOREIGN
    kinds = {kind_of(one) for one in readers}
    # fastavro accepts bytes for a union only if that has a branch for text.
    if {"double", "string"} <= kinds:
        return Meaning.NUMBER
    return Meaning.DIGITS if "string" in kinds and writer["scale"] == 0 else Meaning.FOREIGN


def decodable_form(writer: Any, reader: Any) -> Any:
    """Return the writer's schema for fastavro, reduced to the attributes that decoding needs.

    Defaults of a writer are not used, so an ill-typed one is no reason to reject its values. Logical types that the
    reader does not have are replaced by marks. Symbols that Avro does not allow are replaced; a reader has none.

    Args:
        writer: in normal form.
        reader: in normal form. Two equal results need no resolution.
    """
    return _Marker(_places(reader, named_types(reader, {}), "", {})).mark(writer, "")


def field_name(at: str) -> str:
    """Return a position inside a record for a message."""
    return at.removeprefix(".") or "it"


class _Marker:
    def __init__(self, places: Mapping[str, Any]) -> None:
        self._places = places

    def mark(self, writer: Any, at: str) -> Any:
        if isinstance(writer, list):
            return [self.mark(branch, at) for branch in writer]
        if isinstance(writer, str):
            return writer
        if writer["type"] in PRIMITIVES:
            return self._primitive(writer, at)
        made = {name: writer[name] for name in ("type", "name", "size") if name in writer}
        if "symbols" in writer:
            made["symbols"] = _readable_symbols(writer["symbols"])
        if "fields" in writer:
            made["fields"] = [
                {"name": one["name"], "type": self.mark(one["type"], f"{at}.{one['name']}")} for one in writer["fields"]
            ]
        for key, inside in _INSIDE:
            if key in writer:
                made[key] = self.mark(writer[key], f"{at}{inside}")
        return made

    def _primitive(self, writer: Mapping[str, Any], at: str) -> Any:
        reader = self._places.get(at, "null")
        how = meaning(reader, writer)
        if how is Meaning.SAME:
            return writer["type"]
        problem = f"{field_name(at)} is written as {describe(writer)} and read as {describe(reader)}"
        return {"type": writer["type"], "logicalType": how.value, "scale": writer.get("scale", 0), "problem": problem}


def _readable_symbols(symbols: list[Any]) -> list[str]:
    """Return the symbols, with other names for those that fastavro rejects: ``web-form``, a number, a repeated one."""
    good = {one for one in symbols if isinstance(one, str) and _SYMBOL.fullmatch(one)}
    kept: list[str] = []
    unused = set(good)
    for number, one in enumerate(symbols):
        symbol = one if isinstance(one, str) and one in unused else f"_{number}"
        unused.discard(symbol)
        while symbol != one and symbol in good:
            symbol += "_"
        kept.append(symbol)
    return kept


def _places(schema: Any, types: Mapping[str, Any], at: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the reader's types by position; a union as a whole."""
    schema = types.get(schema, schema) if isinstance(schema, str) else schema
    found.setdefault(at, schema)
    if isinstance(schema, list):
        for branch in schema:
            _places(branch, types, at, found)
    elif isinstance(schema, dict):
        for one in schema.get("fields", ()):
            for name in (one["name"], *one.get("aliases", ())):
                _places(one["type"], types, f"{at}.{name}", found)
        for key, inside in _INSIDE:
            if key in schema:
                _places(schema[key], types, f"{at}{inside}", found)
    return found


def _number(data: bytes, writer: Mapping[str, Any], _reader: Any = None) -> int | float:
    unscaled = _unscaled(data, writer)
    if writer["scale"]:
        return float(unscaled / 10 ** int(writer["scale"]))  # the nearest double
    return unscaled if unscaled in _LONG else float(unscaled)


def _digits(data: bytes, writer: Mapping[str, Any], _reader: Any = None) -> str:
    return str(_unscaled(data, writer))


def _foreign(_data: Any, writer: Mapping[str, Any], _reader: Any = None) -> Any:
    raise ForeignMeaningError(writer["problem"])


def _unscaled(data: bytes, writer: Mapping[str, Any]) -> int:
    if not 0 < len(data) <= _MAX_DECIMAL_BYTES:
        raise ForeignMeaningError(f"{writer['problem']}: it has {len(data)} bytes, not 1 to {_MAX_DECIMAL_BYTES}")
    return int.from_bytes(data, "big", signed=True)


LOGICAL_READERS: Final[Mapping[str, LogicalReader]] = MappingProxyType(
    {
        f"bytes-{Meaning.NUMBER.value}": _number,
        f"bytes-{Meaning.DIGITS.value}": _digits,
        **{f"{kind}-{Meaning.FOREIGN.value}": _foreign for kind in ("int", "long", "float", "double", "bytes")},
    }
)
