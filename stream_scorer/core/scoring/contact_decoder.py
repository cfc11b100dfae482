"""Decoder of ``ContactFeatures`` values, with a fast path for usual ones.

A usual value has short strings and one block of features. fastavro reads byte by byte and interprets the schema for
every value. That takes half of the time spent on a contact before it is sent. `decode_fast_path` has the fields in its
code and walks the bytes once, in less than half the time. It returns None for any other value, such as broken bytes,
and fastavro decodes or rejects that value. So the fast path may accept less than fastavro, never more: a test compares
both with valid, mutilated and random bytes.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.types import ContactEvent

if TYPE_CHECKING:
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.scoring.types import FeatureValue

_OPTIONAL_STRING: Final = ["null", "string"]
_FIELDS: Final = [
    ("event_id", "string"),
    ("contact_id", "string"),
    ("features", {"type": "map", "values": ["null", "boolean", "long", "double", "string"]}),
    ("occurred_at", {"type": "long"}),
    ("campaign_id", _OPTIONAL_STRING),
    ("model_version", _OPTIONAL_STRING),
    ("attributes", {"type": "map", "values": "string"}),
]
# Schemas of releases before attributes end there: a body of theirs with an empty map behind it is a present one.
_FIELDS_WITHOUT_ATTRIBUTES: Final = len(_FIELDS) - 1
_NO_ATTRIBUTES: Final = b"\0"
_double: Final = Struct("<d").unpack_from
_six_bytes: Final = Struct("6B").unpack_from
# Zig-zag lengths and counts of one byte are even and below 128.
_ODD_OR_LONG: Final = 0x81
_MORE: Final = 0x80
_MORE_OF_FIVE: Final = sum(_MORE << shift for shift in range(0, 35, 7))
_MAX_SHIFT: Final = 56
_NULL_BRANCH, _BOOLEAN_BRANCH, _LONG_BRANCH, _DOUBLE_BRANCH, _STRING_BRANCH = 0, 2, 4, 6, 8
_SECOND_BRANCH: Final = 2


class ContactDecoder:
    """Decoder of ``ContactFeatures`` values.

    Args:
        codec: of ``ContactFeatures``.

    Attributes:
        has_fast_path: whether `decode_fast_path` supports the fields of the schema, in this order.
    """

    __slots__ = ("_codec", "has_fast_path")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.has_fast_path = [(field["name"], field["type"]) for field in codec.schema["fields"]] == _FIELDS

    def decode(self, value: bytes | None) -> ContactEvent:
        """Decode a value.

        Raises:
            UndecodableError: as `Codec.decode`.
        """
        codec = self._codec
        if value is not None and self.has_fast_path and len(value) <= codec.max_bytes:
            at = codec.fast_path_offset(value)
            if at is not None:
                usual = decode_fast_path(value, at)
            else:
                at = codec.prefix_offset(value, _FIELDS_WITHOUT_ATTRIBUTES)
                usual = None if at is None else decode_fast_path(value + _NO_ATTRIBUTES, at)
            if usual is not None:
                return usual
        fields = codec.decode(value)
        return ContactEvent(
            fields["event_id"],
            fields["contact_id"],
            fields["features"],
            fields["occurred_at"],
            fields["campaign_id"],
            fields["model_version"],
            fields["attributes"],
        )


def _attributes(data: bytes, at: int) -> tuple[dict[str, str], int]:
    attributes: dict[str, str] = {}
    count = data[at]
    at += 1
    if count & _ODD_OR_LONG:
        raise _NotFastPathError
    for _ in range(count >> 1):
        name, at = _string(data, at)
        attributes[name], at = _string(data, at)
    if data[at] != 0:
        raise _NotFastPathError
    return attributes, at + 1


def decode_fast_path(data: bytes, start: int) -> ContactEvent | None:
    """Decode the value whose Avro body begins at ``start`` and ends with ``data``; None: it is not a usual one."""
    try:
        event_id, at = _string(data, start)
        contact_id, at = _string(data, at)
        features, at = _features(data, at)
        occurred_at_ms, at = _time(data, at)
        campaign_id, at = _optional_string(data, at)
        model_version, at = _optional_string(data, at)
        attributes: dict[str, str] = {}
        if data[at] == 0:
            at += 1
        else:
            attributes, at = _attributes(data, at)
    except (_NotFastPathError, IndexError, UnicodeDecodeError, error):
        return None
    if at != len(data):
        return None
    return ContactEvent(event_id, contact_id, features, occurred_at_ms, campaign_id, model_version, attributes)


class _NotFastPathError(Exception):
    pass


def _features(data: bytes, at: int) -> tuple[dict[str, FeatureValue | None], int]:
    features: dict[str, FeatureValue | None] = {}
    count = data[at]
    if count & _ODD_OR_LONG:
        raise _NotFastPathError
    at += 1
    if count == 0:
        return features, at
    for _ in range(count >> 1):
        name, at = _string(data, at)
        branch = data[at]
        at += 1
        if branch == _LONG_BRANCH:
            features[name], at = _long(data, at)
        elif branch == _DOUBLE_BRANCH:
            features[name] = _double(data, at)[0]
            at += 8
        elif branch == _STRING_BRANCH:
            features[name], at = _string(data, at)
        elif branch == _NULL_BRANCH:
            features[name] = None
        elif branch == _BOOLEAN_BRANCH and data[at] <= 1:
            features[name] = data[at] == 1
            at += 1
        else:
            raise _NotFastPathError
    if data[at] != 0:
        raise _NotFastPathError
    return features, at + 1


def _string(data: bytes, at: int) -> tuple[str, int]:
    size = data[at]
    if size & _ODD_OR_LONG:
        raise _NotFastPathError
    end = at + 1 + (size >> 1)
    return data[at + 1 : end].decode(), end


def _optional_string(data: bytes, at: int) -> tuple[str | None, int]:
    branch = data[at]
    if branch == 0:
        return None, at + 1
    if branch != _SECOND_BRANCH:
        raise _NotFastPathError
    return _string(data, at + 1)


def _time(data: bytes, at: int) -> tuple[int, int]:
    """Decode a long; present times in milliseconds, which have six bytes, without a loop."""
    b0, b1, b2, b3, b4, b5 = _six_bytes(data, at)
    if not b0 & b1 & b2 & b3 & b4 & _MORE or b5 & _MORE:
        return _long(data, at)
    value = b0 + (b1 << 7) + (b2 << 14) + (b3 << 21) + (b4 << 28) + (b5 << 35) - _MORE_OF_FIVE
    return (value >> 1) ^ -(value & 1), at + 6


def _long(data: bytes, at: int) -> tuple[int, int]:
    part = data[at]
    at += 1
    if not part & _MORE:
        return (part >> 1) ^ -(part & 1), at
    value, shift = part & 0x7F, 7
    while part & _MORE:
        if shift > _MAX_SHIFT:
            raise _NotFastPathError
        part = data[at]
        value |= (part & 0x7F) << shift
        shift += 7
        at += 1
    return (value >> 1) ^ -(value & 1), at
