"""Whether what one schema writes can be read with another: Avro's rules of schema resolution, as sentences.

fastavro resolves value by value and says only that one did not fit. These answer for two schemas, before any value is
there: `unreadable` for a reader that meets a foreign writer, `incompatible` for who is about to register a schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})
_PROMOTIONS: Final = frozenset(
    {
        *(("int", wider) for wider in ("long", "float", "double")),
        *(("long", wider) for wider in ("float", "double")),
        ("float", "double"),
        ("string", "bytes"),
        ("bytes", "string"),
    }
)


@dataclass(slots=True)
class _Findings:
    """What no value survives, and what only some do not: those of a branch or symbol that the reader does not have."""

    every: list[str] = field(default_factory=list)
    some: list[str] = field(default_factory=list)


def unreadable(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    """Return why no value of the writer can be read; empty: values can, but for branches and symbols not known here."""
    return _compare(reader, writer).every


def incompatible(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    """Return why not every value of the writer can be read; empty: the reader is backward compatible with it."""
    findings = _compare(reader, writer)
    return findings.every + findings.some


def _compare(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> _Findings:
    comparison = _Comparison(_types_of(reader, {}), _types_of(writer, {}))
    comparison.look(reader, writer, "")
    return comparison.found


class _Comparison:
    """One walk through two schemas. Both have passed `core.schema_limits`: they end, and no name stands for two."""

    def __init__(self, read_types: dict[str, Any], written_types: dict[str, Any]) -> None:
        self._read_types = read_types
        self._written_types = written_types
        self.found = _Findings()

    def look(self, reader: Any, writer: Any, at: str) -> None:
        """Compare what stands at one place."""
        reader, writer = _meant(reader, self._read_types), _meant(writer, self._written_types)
        if isinstance(writer, list):
            self._union(reader, writer, at)
        elif isinstance(reader, list):
            if not any(self._fits(branch, writer, at) for branch in reader):
                self._every(at, f"{_shown(writer)} is in no branch of {_shown(reader)}")
        elif (kind := _kind(writer)) != _kind(reader):
            if (kind, _kind(reader)) not in _PROMOTIONS:
                self._every(at, f"is written as {_shown(writer)} and read as {_shown(reader)}")
        elif kind in _NAMED and not _same_name(reader, writer):
            self._every(at, f"is a {_shown(writer)}, not a {_shown(reader)}")
        elif (written := _logical(writer)) and (read := _logical(reader)) and written != read:
            # The number would be read as it stands: microseconds for milliseconds, say.
            self._every(at, f"is written as {written} and read as {read}")
        else:
            self._inside(kind, reader, writer, at)

    def _inside(self, kind: str, reader: Any, writer: Any, at: str) -> None:
        match kind:
            case "record" | "error":
                self._fields(reader, writer, at)
            case "array":
                self.look(reader["items"], writer["items"], f"{at}[]")
            case "map":
                self.look(reader["values"], writer["values"], f"{at}{{}}")
            case "fixed" if reader["size"] != writer["size"]:
                self._every(at, f"has {writer['size']} bytes, not {reader['size']}")
            case "enum":
                gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                if gone and "default" not in reader:
                    self.found.some.append(f"{_place(at)} may be {', '.join(map(str, gone))}, which is not known")

    def _fields(self, reader: Any, writer: Any, at: str) -> None:
        written = {one["name"]: one for one in writer["fields"]}
        for one in reader["fields"]:
            names = [one["name"], *one.get("aliases", ())]
            before = next((written[name] for name in names if name in written), None)
            place = f"{at}.{one['name']}"
            if before is not None:
                self.look(one["type"], before["type"], place)
            elif "default" not in one:
                self._every(place, "is missing and has no default")

    def _union(self, reader: Any, writer: list[Any], at: str) -> None:
        """Avro fails where such a value comes, not before; where every branch fails, every value does."""
        bad = [branch for branch in writer if not self._fits(reader, branch, at)]
        for branch in bad:
            text = f"{_place(at)} may be {_shown(branch)}, which {_shown(reader)} cannot take"
            (self.found.every if len(bad) == len(writer) else self.found.some).append(text)

    def _fits(self, reader: Any, writer: Any, at: str) -> bool:
        part = _Comparison(self._read_types, self._written_types)
        part.look(reader, writer, at)
        self.found.some += part.found.some if not part.found.every else []
        return not part.found.every

    def _every(self, at: str, text: str) -> None:
        self.found.every.append(f"{_place(at)} {text}")


def _types_of(schema: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The named types, by the last part of their names."""
    parts: Iterable[Any] = ()
    if isinstance(schema, list):
        parts = schema
    elif isinstance(schema, dict):
        if schema.get("type") in _NAMED:
            found[_last(schema["name"])] = schema
        parts = [schema[key] for key in ("type", "items", "values") if key in schema]
        parts += [one["type"] for one in schema.get("fields", ())]
    for part in parts:
        _types_of(part, found)
    return found


def _meant(schema: Any, types: Mapping[str, Any]) -> Any:
    """A type itself, where it stands under its name or in a dict of its own."""
    while True:
        if isinstance(schema, str) and _last(schema) in types:
            return types[_last(schema)]
        if not isinstance(schema, dict) or isinstance(schema["type"], str):
            return schema
        schema = schema["type"]


def _kind(schema: Any) -> str:
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _logical(schema: Any) -> str:
    named = str(schema.get("logicalType", "")) if isinstance(schema, dict) else ""
    return named if named.replace("-", "").isalnum() and named.isascii() else ascii(named[:40]) if named else ""


def _same_name(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> bool:
    """Avro asks for the last part only, or for an alias of the reader."""
    return _last(writer["name"]) in {_last(name) for name in (reader["name"], *reader.get("aliases", ()))}


def _last(name: Any) -> str:
    return str(name).rpartition(".")[2]


def _place(at: str) -> str:
    return at.removeprefix(".") or "it"


def _shown(schema: Any) -> str:
    if isinstance(schema, list):
        return f"[{', '.join(map(_shown, schema))}]"
    kind = _kind(schema)
    return f"{kind} {_last(schema['name'])[:100]}" if kind in _NAMED and isinstance(schema, dict) else kind[:100]
