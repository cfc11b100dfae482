"""Schema compatibility: Avro's rules of schema resolution, with each violation as a sentence.

fastavro resolves value by value and reports only that one did not fit. These functions compare two schemas before there
is a value: `compare` for a reader with a foreign writer, `incompatibilities` before a schema is registered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.avro.logical_types import Meaning, field_name, meaning
from stream_scorer.core.avro.schema_form import (
    NAMED,
    describe,
    kind_of,
    last_part,
    logical_type,
    named_types,
    normal_form,
    printable_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROMOTIONS: Final = frozenset(
    {
        *(("int", wider) for wider in ("long", "float", "double")),
        *(("long", wider) for wider in ("float", "double")),
        ("float", "double"),
        ("string", "bytes"),
        ("bytes", "string"),
    }
)
_MAX_SYMBOLS: Final = 10


@dataclass(slots=True)
class Findings:
    """Violations: of ``every`` value, or of ``some``, with a branch or symbol that the reader does not have.

    ``wrong``: such values would be decoded with another meaning, without an error.
    """

    every: list[str] = field(default_factory=list)
    some: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def read_errors(self) -> list[str]:
        """Why no value of the writer may be decoded; empty: all may, except ``some``."""
        return self.every + self.wrong


def compare(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> Findings:
    """Compare two schemas that have passed `core.avro.schema_safety`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: one of them is no Avro schema.
    """
    read, written = normal_form(reader), normal_form(writer)
    comparison = _Checker(named_types(read, {}), named_types(written, {}))
    comparison.check(read, written, "")
    return comparison.found


def incompatibilities(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    """Return why not every value of the writer can be decoded; empty: the reader is backward compatible with it."""
    findings = compare(reader, writer)
    return findings.read_errors + findings.some


class _Checker:
    """One walk through two schemas in normal form. It ends, as both have passed `core.avro.schema_safety`."""

    def __init__(self, read_types: dict[str, Any], written_types: dict[str, Any]) -> None:
        self._read_types = read_types
        self._written_types = written_types
        self.found = Findings()

    def check(self, reader: Any, writer: Any, at: str) -> None:
        """Compare the types at one position."""
        reader, writer = _meant(reader, self._read_types), _meant(writer, self._written_types)
        if isinstance(writer, list):
            self._union(reader, writer, at)
        elif isinstance(reader, list):
            self._branch(reader, writer, at)
        elif (kind := kind_of(writer)) != kind_of(reader) and (kind, kind_of(reader)) not in _PROMOTIONS:
            self._every(at, f"is written as {describe(writer)} and read as {describe(reader)}")
        elif kind in NAMED and not _same_name(reader, writer):
            self._every(at, f"is a {describe(writer)}, not a {describe(reader)}")
        elif meaning(reader, writer) is Meaning.FOREIGN:
            self._foreign(reader, writer, at)
        elif kind == kind_of(reader):
            self._inside(kind, reader, writer, at)

    def _foreign(self, reader: Any, writer: Any, at: str) -> None:
        if not logical_type(reader):
            self._every(at, f"is written as {describe(writer)} and read as {describe(reader)}")
            return
        # The number would be decoded unchanged: microseconds as milliseconds, for example.
        self.found.wrong.append(
            f"{field_name(at)} is written as {logical_type(writer)} and read as {logical_type(reader)}"
        )

    def _inside(self, kind: str, reader: Any, writer: Any, at: str) -> None:
        match kind:
            case "record" | "error":
                self._fields(reader, writer, at)
            case "array":
                self.check(reader["items"], writer["items"], f"{at}[]")
            case "map":
                self.check(reader["values"], writer["values"], f"{at}{{}}")
            case "fixed" if reader["size"] != writer["size"]:
                self._every(at, f"has {writer['size']} bytes, not {reader['size']}")
            case "enum":
                missing = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                if missing and "default" not in reader:
                    symbols = ", ".join(map(printable_name, missing[:_MAX_SYMBOLS]))
                    self.found.some.append(f"{field_name(at)} may be {symbols}, which is not known")

    def _fields(self, reader: Any, writer: Any, at: str) -> None:
        written = {one["name"]: one for one in writer["fields"]}
        for one in reader["fields"]:
            names = [one["name"], *one.get("aliases", ())]
            before = next((written[name] for name in names if name in written), None)
            place = f"{at}.{one['name']}"
            if before is not None:
                self.check(one["type"], before["type"], place)
            elif "default" not in one:
                self._every(place, "is missing and has no default")

    def _branch(self, reader: list[Any], writer: Any, at: str) -> None:
        """Compare a type with a union: the first compatible branch takes the value."""
        if logical_type(writer) and meaning(reader, writer) is Meaning.NUMBER:
            return
        parts = [self._part(branch, writer, at) for branch in reader]
        taking = next((part for part in parts if not part.read_errors), None)
        mistaking = next((part for part in parts if not part.every), None)
        if taking is not None:
            self.found.some += taking.some
        elif mistaking is not None:
            self.found.wrong += mistaking.wrong
        else:
            self._every(at, f"{describe(writer)} is in no branch of {describe(reader)}")

    def _union(self, reader: Any, writer: list[Any], at: str) -> None:
        """Compare a writer's union: one incompatible branch fails for its values only, all branches for every value."""
        parts = [self._part(reader, branch, at) for branch in writer]
        failing = [branch for branch, part in zip(writer, parts, strict=True) if part.every]
        for branch in failing:
            text = f"{field_name(at)} may be {describe(branch)}, which {describe(reader)} cannot take"
            (self.found.every if len(failing) == len(writer) else self.found.some).append(text)
        for part in parts:
            if not part.every:
                self.found.some += part.some
                self.found.wrong += part.wrong

    def _part(self, reader: Any, writer: Any, at: str) -> Findings:
        part = _Checker(self._read_types, self._written_types)
        part.check(reader, writer, at)
        return part.found

    def _every(self, at: str, text: str) -> None:
        self.found.every.append(f"{field_name(at)} {text}")


def _meant(schema: Any, types: Mapping[str, Any]) -> Any:
    """Return the type that a name refers to, or the type itself."""
    return types.get(schema, schema) if isinstance(schema, str) else schema


def _same_name(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> bool:
    """Return whether the last parts of the names are equal, or an alias of the reader is; Avro requires no more."""
    return last_part(writer["name"]) in {last_part(name) for name in (reader["name"], *reader.get("aliases", ()))}
