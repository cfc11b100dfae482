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
    """What no value survives, and what only some do not: those of a branch or symbol that the reader does not have.

    And what is ``wrong``: such values would be read as something else, and nothing would fail when one comes.
    """

    every: list[str] = field(default_factory=list)
    some: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether values can be read."""
        return not self.every and not self.wrong


def unreadable(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    """Return why no value of the writer may be read; empty: they may, but for branches and symbols not known here."""
    findings = _compare(reader, writer)
    return findings.every + findings.wrong


def incompatible(reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    """Return why not every value of the writer can be read; empty: the reader is backward compatible with it."""
    findings = _compare(reader, writer)
    return findings.every + findings.wrong + findings.some


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
            self._branch(reader, writer, at)
        elif (kind := _kind(writer)) != _kind(reader) and (kind, _kind(reader)) not in _PROMOTIONS:
            self._every(at, f"is written as {_shown(writer)} and read as {_shown(reader)}")
        elif kind in _NAMED and not _same_name(reader, writer):
            self._every(at, f"is a {_shown(writer)}, not a {_shown(reader)}")
        elif (written := _logical(writer)) and (read := _logical(reader)) and written != read:
            # The number would be read as it stands: microseconds for milliseconds, say.
            self.found.wrong.append(f"{_place(at)} is written as {written} and read as {read}")
        elif kind == _kind(reader):
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

    def _branch(self, reader: list[Any], writer: Any, at: str) -> None:
        """The first branch that fits takes the value."""
        parts = [self._part(branch, writer, at) for branch in reader]
        taking = next((part for part in parts if part.fits), None)
        mistaking = next((part for part in parts if not part.every), None)
        if taking is not None:
            self.found.some += taking.some
        elif mistaking is not None:
            self.found.wrong += mistaking.wrong
        else:
            self._every(at, f"{_shown(writer)} is in no branch of {_shown(reader)}")

    def _union(self, reader: Any, writer: list[Any], at: str) -> None:
        """Avro fails where such a value comes, not before; where every branch fails, every value does."""
        parts = [self._part(reader, branch, at) for branch in writer]
        failing = [branch for branch, part in zip(writer, parts, strict=True) if part.every]
        for branch in failing:
            text = f"{_place(at)} may be {_shown(branch)}, which {_shown(reader)} cannot take"
            (self.found.every if len(failing) == len(writer) else self.found.some).append(text)
        for part in parts:
            if not part.every:
                self.found.some += part.some
                self.found.wrong += part.wrong

    def _part(self, reader: Any, writer: Any, at: str) -> _Findings:
        part = _Comparison(self._read_types, self._written_types)
        part.look(reader, writer, at)
        return part.found

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
