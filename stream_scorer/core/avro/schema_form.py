"""Normal form of an Avro schema: full names, no wrappers, and only the attributes that reading needs.

Schemas that write the same bytes with the same meaning have one normal form, however their text was generated. It keeps
names, types, sizes, symbols, defaults, aliases and logical types; documentation and unknown attributes are dropped.

A logical type is kept where producers write it: beside the type, as the specification wants it; beside the field, a
common mistake that Avro ignores; and as ``connect.name``, which Kafka Connect and Debezium write instead.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.text import truncated

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"record", "error", "enum", "fixed"})
# Null and boolean have no unit, so a logical type beside a union does not apply to them.
_WITH_MEANING: Final = PRIMITIVES - {"null", "boolean"}
_MAX_SCALE: Final = 64
_MAX_NAME_CHARACTERS: Final = 61
_CONNECT_PREFIXES: Final = ("org.apache.kafka.connect.data.", "io.debezium.")
_CONNECT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "org.apache.kafka.connect.data.Date": "date",
        "org.apache.kafka.connect.data.Time": "time-millis",
        "org.apache.kafka.connect.data.Timestamp": "timestamp-millis",
        "io.debezium.time.Date": "date",
        "io.debezium.time.Time": "time-millis",
        "io.debezium.time.MicroTime": "time-micros",
        "io.debezium.time.Timestamp": "timestamp-millis",
        "io.debezium.time.MicroTimestamp": "timestamp-micros",
        "io.debezium.time.NanoTimestamp": "timestamp-nanos",
    }
)


def full_name(schema: Mapping[str, Any], namespace: str) -> str:
    """Return the full name of a named type inside ``namespace``.

    A name in no namespace begins with a dot. Otherwise fastavro would add the namespace around it.
    """
    name = _text(schema["name"])
    inside = schema.get("namespace", namespace) or ""
    return name if "." in name else f"{_text(inside) if inside else inside}.{name}"


def referred_name(name: str, namespace: str, defined: Container[str]) -> str:
    """Return the full name of a reference inside ``namespace``.

    A type in no namespace is the fallback: Java and C# write references to such types without a mark.

    Args:
        name: of the reference.
        namespace: of the type around it.
        defined: the full names of the types before it.
    """
    if "." in name:
        return name
    inside = f"{namespace}.{name}"
    return inside if inside in defined else f".{name}"


def namespace_of(name: str) -> str:
    """Return the namespace of a full name, which is that of the names inside."""
    return name.rpartition(".")[0]


def last_part(name: Any) -> str:
    """Return a name without its namespace, by which schema resolution compares named types."""
    return str(name).rpartition(".")[2]


def normal_form(schema: Any) -> Any:
    """Return the normal form of a schema that has passed `core.avro.schema_safety`.

    Args:
        schema: an Avro schema as parsed JSON.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no Avro schema.
    """
    return _form(schema, "", None, set())


def named_types(schema: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Add the named types of a normal form to ``found``, by full name, and return it."""
    if isinstance(schema, list):
        for branch in schema:
            named_types(branch, found)
    elif isinstance(schema, dict):
        if schema["type"] in NAMED:
            found[schema["name"]] = schema
        for part in (*(one["type"] for one in schema.get("fields", ())), schema.get("items"), schema.get("values")):
            named_types(part, found)
    return found


def kind_of(schema: Any) -> str:
    """Return the type of a normal form that is no union: ``long``, ``record``, …"""
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def logical_type(schema: Any) -> str:
    """Return the logical type of a normal form, for a message; empty: it has none."""
    named = schema.get("logicalType", "") if isinstance(schema, dict) else ""
    return printable_name(named) if named else ""


def printable_name(name: Any) -> str:
    """Return a schema's name for a one-line message: escaped and shortened unless it is a valid Avro name."""
    text = str(name)
    short = truncated(text, _MAX_NAME_CHARACTERS)
    return short if text.isascii() and text.replace("-", "").replace("_", "").isalnum() else ascii(short)


def describe(schema: Any) -> str:
    """Return a type for a message: ``bytes (decimal)``, ``enum Colour``, ``[null, string]``."""
    if isinstance(schema, list):
        return f"[{', '.join(map(describe, schema))}]"
    kind = printable_name(kind_of(schema))
    if kind in NAMED and isinstance(schema, dict):
        kind = f"{kind} {printable_name(last_part(schema['name']))}"
    return f"{kind} ({unit})" if (unit := logical_type(schema)) else kind


def _form(schema: Any, namespace: str, outer: Mapping[str, Any] | None, defined: set[str]) -> Any:
    """Return the normal form of a part of a schema.

    Args:
        schema: the part.
        namespace: of the type around it.
        outer: the logical type beside the field or wrapper around it; None: there is none.
        defined: the full names of the types before it; those inside it are added.
    """
    if isinstance(schema, list):
        return [_form(branch, namespace, outer, defined) for branch in schema]
    if isinstance(schema, str):
        return _with_meaning(schema, outer) if schema in PRIMITIVES else referred_name(schema, namespace, defined)
    kind, meaning = schema["type"], _meaning(schema) or outer
    if kind in ("array", "map"):
        inside = "items" if kind == "array" else "values"
        return {"type": kind, inside: _form(schema[inside], namespace, None, defined)}
    if isinstance(kind, str) and kind in NAMED:
        name = full_name(schema, namespace)
        defined.add(name)
        return _named(kind, schema, name, meaning, defined)
    return _form(kind, namespace, meaning, defined)


def _named(
    kind: str, schema: Mapping[str, Any], name: str, meaning: Mapping[str, Any] | None, defined: set[str]
) -> dict[str, Any]:
    made: dict[str, Any] = {"type": kind, "name": name}
    if "aliases" in schema:
        made["aliases"] = schema["aliases"]
    match kind:
        case "fixed":
            made |= {"size": schema["size"], **(meaning or {})}
        case "enum":
            made |= {"symbols": list(schema["symbols"])} | _kept(schema, "default")
        case _:
            made["fields"] = [_field(one, namespace_of(name), defined) for one in schema["fields"]]
    return made


def _field(field: Mapping[str, Any], namespace: str, defined: set[str]) -> dict[str, Any]:
    kind = _form(field["type"], namespace, _meaning(field, "logicalType"), defined)
    return {"name": _text(field["name"]), "type": kind} | _kept(field, "default", "aliases")


def _kept(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: schema[name] for name in names if name in schema}


def _with_meaning(kind: str, meaning: Mapping[str, Any] | None) -> Any:
    return {"type": kind, **meaning} if meaning and kind in _WITH_MEANING else kind


def _meaning(schema: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    """Return the logical type in a schema or field, and a decimal's scale; None: there is none."""
    for name in names or ("logicalType", "connect.name"):
        said = schema.get(name)
        if not isinstance(said, str) or not said or (name == "connect.name" and not said.startswith(_CONNECT_PREFIXES)):
            continue
        unit = _CONNECT_NAMES.get(said, said)
        return {"logicalType": unit, "scale": _scale(schema)} if unit == "decimal" else {"logicalType": unit}
    return None


def _scale(schema: Mapping[str, Any]) -> int | None:
    """Return a decimal's scale; None: it is invalid, so the value has no meaning."""
    scale = schema.get("scale", 0)
    return scale if type(scale) is int and 0 <= scale <= _MAX_SCALE else None


def _text(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError("a name is no text")
    return name
