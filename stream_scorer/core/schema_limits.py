"""Which writers' schemas may be read by: those with which a few bytes can neither grow nor be worked on for long.

A schema may come from anyone who may register one, and some turn a value of a few bytes into gigabytes or into hours of
work: items that take no bytes, types that hold themselves, types that hold another one twice, and that one the next
twice, forty times over. With the schemas that pass here, reading takes steps in proportion to the value's bytes.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from stream_scorer.core.feature_rules import shown
from stream_scorer.errors import SettingsError

# The fewest bytes that a value of each primitive type takes.
_PRIMITIVE_BYTES: Final = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
}
# Far from what a schema of people needs: one with 1,000 optional fields has 3,001 steps, three for each byte.
_MOST_STEPS: Final = 10_000
_MOST_STEPS_A_BYTE: Final = 16
_DEEPEST: Final = 64


class _Cost(NamedTuple):
    """The fewest bytes that a value takes, and the most steps it takes to read it, but for the items of arrays."""

    size: int
    steps: int


def check_schema(schema: Any, record: str) -> None:
    """Refuse a writer's schema that is dangerous to read by; ``record`` is the type's name, for the message.

    Raises:
        SettingsError: it is, or it is no Avro schema.
    """
    try:
        cost = _cost(schema, {}, record, 0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"schema {record}: is no valid Avro schema ({type(error).__name__})") from None
    if cost.steps > _MOST_STEPS:
        raise SettingsError(f"schema {record}: a value has {cost.steps} parts, more than the {_MOST_STEPS} allowed")


def _cost(schema: Any, named: dict[str, _Cost | None], record: str, depth: int) -> _Cost:
    """Return the cost of a value; ``named`` holds None for a type that is still being looked at."""
    if depth > _DEEPEST:
        raise SettingsError(f"schema {record}: is nested more than {_DEEPEST} deep")
    if isinstance(schema, list):
        branches = [_cost(branch, named, record, depth + 1) for branch in schema]
        return _Cost(1 + min(one.size for one in branches), 1 + max(one.steps for one in branches))
    if isinstance(schema, str):
        return _named(schema, named, record)
    kind = schema["type"]
    if kind in ("array", "map"):
        return _items(schema, kind, named, record, depth)
    if kind not in ("record", "enum", "fixed"):
        return _cost(kind, named, record, depth + 1)
    name = str(schema["name"]).rpartition(".")[2]
    if name in named:
        # In two namespaces that would be allowed; which one a reference means is not worth being wrong about.
        raise SettingsError(f"schema {record}: two types have the name {shown(name)}")
    named[name] = None
    if kind == "record":
        fields = [_cost(field["type"], named, record, depth + 1) for field in schema["fields"]]
        made = _Cost(sum(one.size for one in fields), 1 + sum(one.steps for one in fields))
    else:
        made = _Cost(1 if kind == "enum" else _fixed_size(schema["size"]), 1)
    named[name] = made
    return made


def _fixed_size(size: Any) -> int:
    if type(size) is not int or size < 0:  # a reader would go back over what it has read
        raise ValueError(f"{size!r} is no size")
    return size


def _named(name: str, named: dict[str, _Cost | None], record: str) -> _Cost:
    if name in _PRIMITIVE_BYTES:
        return _Cost(_PRIMITIVE_BYTES[name], 1)
    cost = named.get(name.rpartition(".")[2])
    if cost is None:
        raise SettingsError(
            f"schema {record}: type {shown(name)} is recursive or not defined; neither can be read safely"
        )
    return cost


def _items(schema: Any, kind: str, named: dict[str, _Cost | None], record: str, depth: int) -> _Cost:
    item = _cost(schema["items" if kind == "array" else "values"], named, record, depth + 1)
    size = item.size if kind == "array" else item.size + 1  # the key
    if size == 0:
        raise SettingsError(f"schema {record}: an array's items take no bytes, so a few bytes can fill the memory")
    if item.steps > _MOST_STEPS_A_BYTE * size:
        raise SettingsError(f"schema {record}: the items of {kind} have {item.steps} parts in {size} bytes, too many")
    return _Cost(1, 1)
