"""Safety check of writers' schemas: decoding must take memory and time in proportion to a value's bytes.

Any program with access to the registry can register a schema. Some schemas turn a value of a few bytes into gigabytes
or hours of work. Examples are items of no size, recursive types, and types that contain another one twice, and that the
next one twice, forty times over.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from stream_scorer.core.avro.schema_form import NAMED, full_name, namespace_of, referred_name
from stream_scorer.core.text import quoted
from stream_scorer.errors import SettingsError

# The minimum size of a value of each primitive type, in bytes.
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
# Far above any real schema: one with 1,000 optional fields has 3,001 steps, three for each byte.
_MOST_STEPS: Final = 10_000
_MOST_STEPS_A_BYTE: Final = 16
_DEEPEST: Final = 64


class _Cost(NamedTuple):
    """The minimum bytes of a value, and the maximum steps to decode it, without the items of arrays."""

    size: int
    steps: int


def check_schema(schema: Any, record: str) -> None:
    """Reject a writer's schema that is unsafe to decode with; ``record``: the type's name, for the message.

    Raises:
        SettingsError: it is unsafe, or no Avro schema.
    """
    try:
        cost = _Walk(record).cost(schema, "", 0)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"schema {record}: is no valid Avro schema ({type(error).__name__})") from None
    if cost.steps > _MOST_STEPS:
        raise SettingsError(f"schema {record}: a value has {cost.steps} parts, more than the {_MOST_STEPS} allowed")


class _Walk:
    """One walk through a schema. ``_named`` has the cost of each named type, None while its parts are visited."""

    def __init__(self, record: str) -> None:
        self._record = record
        self._named: dict[str, _Cost | None] = {}

    def cost(self, schema: Any, namespace: str, depth: int) -> _Cost:
        if depth > _DEEPEST:
            raise SettingsError(f"schema {self._record}: is nested more than {_DEEPEST} deep")
        if isinstance(schema, list):
            branches = [self.cost(branch, namespace, depth + 1) for branch in schema]
            return _Cost(1 + min(one.size for one in branches), 1 + max(one.steps for one in branches))
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        kind = schema["type"]
        if kind in ("array", "map"):
            return self._items(schema, kind, namespace, depth)
        if not isinstance(kind, str) or kind not in NAMED:
            return self.cost(kind, namespace, depth + 1)
        name = full_name(schema, namespace)
        if name in self._named:
            raise SettingsError(f"schema {self._record}: two types have the name {quoted(name.removeprefix('.'))}")
        self._named[name] = None
        made = self._definition(schema, kind, namespace_of(name), depth)
        self._named[name] = made
        return made

    def _definition(self, schema: Any, kind: str, namespace: str, depth: int) -> _Cost:
        if kind == "fixed":
            return _Cost(_fixed_size(schema["size"]), 1)
        if kind == "enum":
            if not isinstance(schema["symbols"], list):
                raise TypeError("the symbols are no list")
            return _Cost(1, 1)
        if not all(isinstance(field["name"], str) for field in schema["fields"]):
            raise TypeError("a field's name is no text")
        fields = [self.cost(field["type"], namespace, depth + 1) for field in schema["fields"]]
        return _Cost(sum(one.size for one in fields), 1 + sum(one.steps for one in fields))

    def _reference(self, name: str, namespace: str) -> _Cost:
        if name in _PRIMITIVE_BYTES:
            return _Cost(_PRIMITIVE_BYTES[name], 1)
        cost = self._named.get(referred_name(name, namespace, self._named))
        if cost is None:
            raise SettingsError(
                f"schema {self._record}: type {quoted(name)} is recursive or not defined; neither can be read safely"
            )
        return cost

    def _items(self, schema: Any, kind: str, namespace: str, depth: int) -> _Cost:
        item = self.cost(schema["items" if kind == "array" else "values"], namespace, depth + 1)
        size = item.size if kind == "array" else item.size + 1  # the key
        if size == 0:
            raise SettingsError(
                f"schema {self._record}: an array's items take no bytes, so a few bytes can fill the memory"
            )
        if item.steps > _MOST_STEPS_A_BYTE * size:
            raise SettingsError(
                f"schema {self._record}: the items of {kind} have {item.steps} parts in {size} bytes, too many"
            )
        return _Cost(1, 1)


def _fixed_size(size: Any) -> int:
    if type(size) is not int or size < 0:  # a decoder would move backwards
        raise ValueError(f"{size!r} is no size")
    return size
