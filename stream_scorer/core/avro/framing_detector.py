"""Detection of other serializers' framings, for values that begin neither with a fingerprint nor with an id.

The first rejected record shows that a producer uses another serializer, or none: the reason names the framing and the
remedy. Values in these framings are not decoded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.records import Headers

_USE_AVRO: Final = "let the producer use an Avro serializer"
# The framing of the value, and the remedy at its producer.
_BY_BYTES: Final[Sequence[tuple[re.Pattern[bytes], str]]] = (
    (
        re.compile(rb"\0\0\0\0\0"),
        "begins with schema id 0, as ids of eight bytes do: for Apicurio set apicurio.registry.as-confluent=true",
    ),
    (
        re.compile(rb"\x03[\x00\x05].{16}", re.DOTALL),
        "is in the framing of AWS Glue: let the producer use the Confluent wire format or single-object encoding",
    ),
    (re.compile(rb"Obj\x01"), "is an Avro container file: let the producer send each record of it as a value"),
    (re.compile(rb"(\xef\xbb\xbf)?\s*[{\[]"), f"is JSON, not Avro: {_USE_AVRO}"),
    (
        re.compile(rb"(AA[A-Za-z0-9+/]{4}|wwE[A-Za-z0-9+/]{3})[A-Za-z0-9+/]*={0,2}\s*\Z"),
        "is base64 text: let the producer send the bytes themselves",
    ),
    (
        re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18"),
        "is compressed by its producer: set Kafka's compression.type there instead",
    ),
    (re.compile(rb"\xac\xed\x00\x05"), f"is a serialized Java object: {_USE_AVRO}"),
    (re.compile(rb"<"), f"is XML or HTML, not Avro: {_USE_AVRO}"),
)
# By the beginning of a header's name: the place of the id, and the setting that puts it before the value.
_BY_HEADER: Final = (
    ("__value_schema_id", "the header __value_schema_id", "use Confluent's PrefixSchemaIdSerializer"),
    ("apicurio.value.", "headers of Apicurio", "set apicurio.registry.headers.enabled=false"),
)
_AZURE: Final = b"avro/binary+"


def framing_of(data: bytes) -> str | None:
    """Return the framing of a value, as the end of a sentence about it; None: it is unknown.

    A bare Avro body may begin like some of these, so try to decode that first.
    """
    return next((text for pattern, text in _BY_BYTES if pattern.match(data)), None)


def with_framing(error: Exception, headers: Headers) -> str:
    """Return why a record is undecodable; its headers may identify the framing better than its value does.

    Args:
        error: why the value cannot be decoded.
        headers: of the record.
    """
    for name, value in headers:
        for beginning, place, remedy in _BY_HEADER:
            if name.startswith(beginning):
                return _in_header(place, remedy, error)
        if name.lower() == "content-type" and (value or b"").startswith(_AZURE):
            return _in_header("the header content-type of Azure", "use the Confluent wire format", error)
    return str(error)


def _in_header(place: str, remedy: str, error: Exception) -> str:
    return f"the id of its schema stands in {place}, not before the value: let the producer {remedy} ({error})"
